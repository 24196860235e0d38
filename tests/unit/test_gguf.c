/* The GGUF container: what is read of a sound file, and a sentence for every way in which one can be broken. */
#include "model/gguf.h"
#include "model/tensor.h"

#include "gguf_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* A file with one value of each kind and three tensors. */
static void write_sound(struct gguf_writer *w)
{
    gguf_writer_open(w, 3);
    gguf_put_string(w, "general.architecture", "gemma3");
    gguf_put_u32(w, "an.integer", 4000000000u);
    gguf_put_f32(w, "a.float", 0.25f);
    gguf_put_bool(w, "a.truth", true);
    gguf_put_numbers(w, "numbers", GGUF_INT32, (const int32_t[]){-1, 0, 7}, 3);
    gguf_put_strings(w, "texts", (const char *const[]){"a", "", "\xe2\x96\x81the"}, 3);
    gguf_put_tensor(w, "matrix", TENSOR_Q4_0, 64, 2, NULL);
    gguf_put_tensor(w, "vector", TENSOR_F32, 3, 0, (const float[]){1, 2, 3});
    gguf_put_tensor(w, "half", TENSOR_F16, 3, 1, NULL);
    gguf_writer_finish(w);
}

static struct gguf *parse(const struct gguf_writer *w)
{
    struct gguf *g;
    struct ward_error err = {0};
    const int rc = gguf_parse(&g, w->file, w->n_file, "m.gguf", &err);
    if (rc)
        print_error("%s\n", err.text);
    assert_int_equal(rc, 0);
    return g;
}

static void test_values(void **state)
{
    (void)state;
    struct gguf_writer w;
    write_sound(&w);
    struct gguf *g = parse(&w);
    int64_t integer;
    double number;
    bool truth;
    const char *text;
    size_t at = 0, length;
    assert_int_equal(gguf_n_values(g), 6);
    assert_string_equal(gguf_value_at(g, 2)->name, "a.float");
    assert_true(gguf_string_is(gguf_value(g, "general.architecture"), "gemma3"));
    assert_false(gguf_string_is(gguf_value(g, "general.architecture"), "gemma"));
    assert_false(gguf_string_is(gguf_value(g, "an.integer"), "gemma3"));
    assert_true(gguf_integer(gguf_value(g, "an.integer"), 0, 0, INT64_MAX, &integer) && integer == 4000000000);
    assert_false(gguf_integer(gguf_value(g, "an.integer"), 0, 0, INT32_MAX, &integer));
    assert_false(gguf_integer(gguf_value(g, "an.integer"), 1, 0, INT64_MAX, &integer));
    assert_false(gguf_integer(gguf_value(g, "a.float"), 0, 0, 9, &integer));
    assert_false(gguf_integer(NULL, 0, 0, 9, &integer));
    assert_true(gguf_number(gguf_value(g, "a.float"), 0, &number) && number == 0.25);
    assert_true(gguf_number(gguf_value(g, "numbers"), 0, &number) && number == -1);
    assert_false(gguf_number(gguf_value(g, "texts"), 0, &number));
    assert_true(gguf_bool(gguf_value(g, "a.truth"), 0, &truth) && truth);
    assert_false(gguf_bool(gguf_value(g, "an.integer"), 0, &truth));
    assert_true(gguf_integer(gguf_value(g, "numbers"), 2, 0, 9, &integer) && integer == 7);
    const struct gguf_value *texts = gguf_value(g, "texts");
    assert_int_equal(texts->n, 3);
    assert_true(gguf_next_string(texts, &at, &text, &length) && length == 1 && *text == 'a');
    assert_true(gguf_next_string(texts, &at, &text, &length) && length == 0);
    assert_true(gguf_next_string(texts, &at, &text, &length) && length == 6);
    assert_false(gguf_next_string(texts, &at, &text, &length));
    /* what follows the type can be copied as it is */
    assert_int_equal(texts->raw_size, 4 + 8 + 3 * 8 + 7);
    assert_ptr_equal(texts->raw + 12, texts->data);
    assert_null(gguf_value(g, "texts2"));
    gguf_close(&g);
    assert_null(g);
}

static void test_tensors(void **state)
{
    (void)state;
    struct gguf_writer w;
    write_sound(&w);
    struct gguf *g = parse(&w);
    assert_int_equal(gguf_n_tensors(g), 3);
    assert_string_equal(gguf_tensor_at(g, 0)->name, "matrix");
    const struct gguf_tensor *t = gguf_tensor(g, "matrix");
    assert_int_equal(t->type, TENSOR_Q4_0);
    assert_int_equal(t->id, 2);
    assert_string_equal(t->type_name, "q4_0");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 64);
    assert_int_equal(t->dims[1], 2);
    assert_int_equal(t->size, 4 * 18);
    t = gguf_tensor(g, "vector");
    assert_int_equal(t->n_dims, 1);
    assert_memory_equal(t->data, ((const float[]){1, 2, 3}), 12);
    assert_int_equal((t->data - w.file) % 32, 0);
    assert_null(gguf_tensor(g, "vecto"));
    gguf_close(&g);
}

/* The file format's types of tensors are those of tensor_formats. */
static void test_types(void **state)
{
    (void)state;
    for (int type = 0; type < TENSOR_TYPES; type++) {
        struct gguf_writer w;
        gguf_writer_open(&w, 3);
        gguf_put_tensor(&w, "t", (enum tensor_type)type, 256, 3, NULL);
        gguf_writer_finish(&w);
        struct gguf *g = parse(&w);
        const struct gguf_tensor *t = gguf_tensor(g, "t");
        assert_int_equal(t->type, type);
        assert_string_equal(t->type_name, tensor_type_name((enum tensor_type)type));
        assert_int_equal(t->size, 3 * tensor_bytes((enum tensor_type)type, 256));
        gguf_close(&g);
    }
}

/* ---- broken files ------------------------------------------------------------------------------------------------ */

static void expect_refused(const uint8_t *data, size_t size, const char *sentence)
{
    struct gguf *g;
    struct ward_error err = {0};
    const int rc = gguf_parse(&g, data, size, "m.gguf", &err);
    assert_true(rc == WARD_EFORMAT || rc == WARD_EUNSUPPORTED);
    assert_null(g);
    if (!strstr(err.text, sentence) || strncmp(err.text, "m.gguf: ", 8))
        fail_msg("'%s' was expected, not: %s", sentence, err.text);
}

static void test_truncated(void **state)
{
    (void)state;
    struct gguf_writer w;
    write_sound(&w);
    for (size_t n = 4; n < w.n_file; n++) {
        uint8_t *copy = malloc(n); /* of exactly this size, so that a read beyond it is seen */
        assert_non_null(copy);
        memcpy(copy, w.file, n);
        expect_refused(copy, n, "is truncated");
        free(copy);
    }
    expect_refused(w.file, 0, "is not a GGUF file");
    expect_refused((const uint8_t *)"GGML....", 8, "is not a GGUF file");
    expect_refused((const uint8_t *)"version https://git-lfs.github.com/spec/v1", 42, "git lfs pull");
}

/* Writes 4 or 8 bytes at the place where the file holds `name`, `after` bytes behind its end. */
static void patch(struct gguf_writer *w, const char *name, size_t after, uint64_t value, size_t n)
{
    uint8_t *at = memmem(w->file, w->n_file, name, strlen(name));
    assert_non_null(at);
    for (size_t i = 0; i < n; i++)
        at[strlen(name) + after + i] = (uint8_t)(value >> 8 * i);
}

static void test_broken(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t after;
        uint64_t value;
        size_t bytes;
        const char *sentence;
    } cases[] = {
        {"GGUF", 0, 1, 4, "of version 1, expected 2 or 3"},
        {"GGUF", 0, 0x03000000, 4, "big-endian"},
        {"GGUF", 4, UINT64_MAX, 8, "is truncated"},  /* tensors */
        {"GGUF", 12, 1 << 20, 8, "is truncated"},    /* values */
        {"GGUF", 20, 0, 8, "a key is 0 bytes long"},
        {"GGUF", 20, 70000, 8, "a key is 70000 bytes long"},
        {"general.architecture", 0, 13, 4, "value of type 13"},
        {"general.architecture", 4, UINT64_MAX, 8, "is truncated"},
        {"an.integer", 0, GGUF_ARRAY, 4, "one of 0 to 8 and 10 to 12 is expected"},
        {"numbers", 4, GGUF_ARRAY, 4, "value of type 9"},
        {"numbers", 8, UINT64_MAX / 4 + 2, 8, "is truncated"},
        {"texts", 8, UINT64_MAX, 8, "is truncated"},
        {"matrix", 0, 0, 4, "has 0 dimensions"},
        {"matrix", 0, 5, 4, "has 5 dimensions"},
        {"matrix", 4, 63, 8, "rows of 63 values, expected a multiple of 32"},
        {"matrix", 4, 0, 8, "make no number of values"},
        {"matrix", 12, UINT64_MAX / 32, 8, "make no number of values"},
        {"matrix", 12, UINT64_MAX / 64, 8, "larger than the file"},
        {"matrix", 20, 77, 4, "has type 77"},
        {"matrix", 20, 4, 4, "has type 4"},
        {"matrix", 24, 16, 8, "expected a multiple of 32"},
        {"vector", 16, 64, 8, "tensors matrix and vector overlap"},
        {"matrix", 24, UINT64_MAX - 31, 8, "is truncated"},
        {"vector", 16, 1 << 20, 8, "is truncated"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_writer w;
        write_sound(&w);
        patch(&w, cases[i].name, cases[i].after, cases[i].value, cases[i].bytes);
        expect_refused(w.file, w.n_file, cases[i].sentence);
    }
}

static void test_names(void **state)
{
    (void)state;
    struct gguf_writer w;
    gguf_writer_open(&w, 3);
    gguf_put_u32(&w, "twice", 1);
    gguf_put_u32(&w, "twice", 1);
    gguf_writer_finish(&w);
    expect_refused(w.file, w.n_file, "the key twice is there twice");
    gguf_writer_open(&w, 3);
    gguf_put_tensor(&w, "twice", TENSOR_F32, 1, 0, NULL);
    gguf_put_tensor(&w, "twice", TENSOR_F32, 1, 0, NULL);
    gguf_writer_finish(&w);
    expect_refused(w.file, w.n_file, "tensor twice is there twice");
    gguf_writer_open(&w, 3);
    gguf_put_u32(&w, "\xff", 1);
    gguf_writer_finish(&w);
    expect_refused(w.file, w.n_file, "a key is not a text");
}

static void test_alignment(void **state)
{
    (void)state;
    struct gguf_writer w;
    static const uint32_t bad[] = {0, 3, 48, 1u << 21};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        gguf_writer_open(&w, 3);
        gguf_put_u32(&w, "general.alignment", bad[i]);
        gguf_writer_finish(&w);
        expect_refused(w.file, w.n_file, "general.alignment is not a power of two");
    }
    /* data placed for 32 bytes are misplaced for 64 */
    gguf_writer_open(&w, 2);
    gguf_put_u32(&w, "general.alignment", 64);
    gguf_put_tensor(&w, "a", TENSOR_F32, 1, 0, NULL);
    gguf_put_tensor(&w, "b", TENSOR_F32, 1, 0, NULL);
    gguf_writer_finish(&w);
    expect_refused(w.file, w.n_file, "begins at byte 32 of the data, expected a multiple of 64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_tensors), cmocka_unit_test(test_types),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_broken), cmocka_unit_test(test_names),
        cmocka_unit_test(test_alignment),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
