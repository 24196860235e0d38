/* The safetensors container: what is read, and every kind of damage with its sentence. */
#include "model/safetensors.h"

#include "folder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A file: length of the header, the header, data_size bytes 0, 1, 2... Returns its size; *out is malloc'ed. */
static size_t make_file(uint8_t **out, const char *header, size_t data_size)
{
    const size_t length = strlen(header), size = 8 + length + data_size;
    uint8_t *file = malloc(size);
    assert_non_null(file);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)length >> (8 * i));
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data_size; i++)
        file[8 + length + i] = (uint8_t)i;
    *out = file;
    return size;
}

static const char good_header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[6,30]},"
                                  "\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6]},"
                                  "\"scalar\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[30,38]},"
                                  "\"empty\":{\"dtype\":\"F16\",\"shape\":[0,4],\"data_offsets\":[30,30]}}   ";

static void check_good(const struct safetensors *s)
{
    assert_int_equal(safetensors_count(s), 4);
    const struct safetensor *t = safetensors_find(s, "b");
    assert_string_equal(t->name, "b");
    assert_string_equal(t->dtype, "F32");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 3);
    assert_int_equal(t->size, 24);
    assert_int_equal(t->data[0], 6);
    t = safetensors_find(s, "scalar");
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->size, 8);
    assert_int_equal(t->data[7], 37);
    assert_int_equal(safetensors_find(s, "empty")->size, 0);
    assert_string_equal(safetensors_at(s, 0)->name, "a");
    assert_null(safetensors_find(s, "c"));
    assert_null(safetensors_find(s, "__metadata__"));
}

static void test_good(void **state)
{
    (void)state;
    uint8_t *file;
    const size_t size = make_file(&file, good_header, 38);
    struct safetensors *s = safetensors_new();
    struct ward_error err = {0};
    assert_null(safetensors_find(s, "a"));
    if (safetensors_parse(s, file, size, "m.safetensors", &err))
        fail_msg("%s", err.text);
    check_good(s);
    safetensors_close(&s);
    assert_null(s);
    free(file);
}

static void expect_refusal(const uint8_t *file, size_t size, const char *expected)
{
    struct safetensors *s = safetensors_new();
    struct ward_error err = {0};
    /* Exactly as long as the file, so that a read behind its end is seen by the address sanitizer. */
    uint8_t *exact = malloc(size ? size : 1);
    memcpy(exact, file, size);
    const int rc = safetensors_parse(s, exact, size, "m.safetensors", &err);
    if (rc != WARD_EFORMAT || strncmp(err.text, "m.safetensors: ", 15) || !strstr(err.text, expected))
        fail_msg("%d, said \"%s\", expected \"%s\"", rc, err.text, expected);
    safetensors_close(&s);
    s = safetensors_new();
    assert_int_equal(safetensors_parse(s, exact, size, "m.safetensors", NULL), WARD_EFORMAT);
    safetensors_close(&s);
    free(exact);
}

#define ENTRY(dtype, shape, offsets) "{\"dtype\":" dtype ",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{\"a\":" ENTRY(dtype, shape, offsets) "}"

static void test_headers_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *expected;
    } cases[] = {
        {"", 0, "its header is not a JSON object"},
        {"[]", 0, "its header is not a JSON object"},
        {" {}", 0, "its header is not a JSON object"},
        {"{", 0, "is not valid JSON"},
        {"{}{}", 0, "is not valid JSON"},
        {"{\"a\":1}", 0, "its entry is not an object"},
        {"{\"a\":[]}", 0, "its entry is not an object"},
        {"{\"a\":null}", 0, "its entry is not an object"},
        {"{\"a\":{}}", 0, "dtype is missing"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "shape is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets is missing"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"x\":1}}", 1, "holds more than"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, "given twice"},
        {ONE("\"F33\"", "[1]", "[0,4]"), 4, "dtype F33 is not one of safetensors"},
        {ONE("7", "[1]", "[0,4]"), 4, "is not one of safetensors"},
        {ONE("[]", "[1]", "[0,4]"), 4, "is not one of safetensors"},
        {ONE("\"F32\"", "4", "[0,4]"), 4, "shape is not a list"},
        {ONE("\"F32\"", "[-1]", "[0,4]"), 4, "shape holds something else"},
        {ONE("\"F32\"", "[1.5]", "[0,4]"), 4, "shape holds something else"},
        {ONE("\"F32\"", "[\"1\"]", "[0,4]"), 4, "shape holds something else"},
        {ONE("\"F32\"", "[99999999999999999999]", "[0,4]"), 4, "shape holds something else"},
        {ONE("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "9 dimensions"},
        {ONE("\"F32\"", "[4294967296,4294967296]", "[0,4]"), 4, "its shape makes no number of bytes"},
        {ONE("\"F32\"", "[4611686018427387904]", "[0,0]"), 0, "its shape makes no number of bytes"},
        {ONE("\"F4\"", "[3]", "[0,1]"), 1, "its shape makes no number of bytes"},
        {ONE("\"F32\"", "[1]", "4"), 4, "are not two offsets"},
        {ONE("\"F32\"", "[1]", "[0]"), 4, "are not two offsets"},
        {ONE("\"F32\"", "[1]", "[0,4,8]"), 4, "are not two offsets"},
        {ONE("\"F32\"", "[1]", "[-4,0]"), 4, "are not two offsets"},
        {ONE("\"F32\"", "[1]", "[0,18446744073709551620]"), 4, "are not two offsets"},
        {ONE("\"F32\"", "[1]", "[4,0]"), 4, "do not span the 4 bytes"},
        {ONE("\"F32\"", "[1]", "[0,8]"), 8, "do not span the 4 bytes"},
        {ONE("\"F32\"", "[2]", "[0,8]"), 7, "is truncated: tensor a ends at byte 8"},
        {ONE("\"F32\"", "[1]", "[9223372036854775803,9223372036854775807]"), 4, "is truncated"},
        {ONE("\"F32\"", "[1]", "[0,4]"), 5, "the last 1 bytes belong to no tensor"},
        {ONE("\"F32\"", "[1]", "[1,5]"), 5, "the 1 bytes before tensor a belong to no tensor"},
        {"{}", 3, "the last 3 bytes belong to no tensor"},
        {"{\"a\":" ENTRY("\"U8\"", "[4]", "[0,4]") ",\"b\":" ENTRY("\"U8\"", "[4]", "[2,6]") "}", 6, "a and b overlap"},
        {"{\"a\":" ENTRY("\"U8\"", "[4]", "[0,4]") ",\"b\":" ENTRY("\"U8\"", "[4]", "[0,4]") "}", 4, "overlap"},
        {"{\"a\":" ENTRY("\"U8\"", "[2]", "[0,2]") ",\"b\":" ENTRY("\"U8\"", "[2]", "[4,6]") "}", 6,
         "the 2 bytes before tensor b belong to no tensor"},
        {"{\"a\":" ENTRY("\"U8\"", "[2]", "[0,2]") ",\"a\":" ENTRY("\"U8\"", "[2]", "[2,4]") "}", 4,
         "\"a\" is given twice"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ holds something else than strings"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__ holds something else than strings"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *file;
        const size_t size = make_file(&file, cases[i].header, cases[i].data);
        expect_refusal(file, size, cases[i].expected);
        free(file);
    }
}

/* What stands where the header's length should be. */
static void test_not_safetensors(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4961251752\n";
    static const char page[] = "<!DOCTYPE html><html>Access denied</html>";
    static const uint8_t longer[] = {200, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    static const uint8_t huge[] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    expect_refusal((const uint8_t *)"", 0, "is 0 bytes long, too short");
    expect_refusal((const uint8_t *)"1234567", 7, "is 7 bytes long, too short");
    expect_refusal((const uint8_t *)pointer, sizeof pointer - 1,
                   "is a Git LFS pointer, not the weights: run git lfs pull");
    expect_refusal((const uint8_t *)page, sizeof page - 1, "is not a safetensors file");
    expect_refusal(longer, sizeof longer, "is truncated: its header is 200 bytes long");
    expect_refusal(huge, sizeof huge, "is not a safetensors file");
}

/* Every prefix of a sound file is refused, and so is every file with one bit turned in its length. */
static void test_truncated(void **state)
{
    (void)state;
    uint8_t *file;
    const size_t size = make_file(&file, good_header, 38);
    for (size_t n = 0; n < size; n++)
        expect_refusal(file, n, "");
    for (int bit = 0; bit < 64; bit++) {
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        expect_refusal(file, size, "");
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(file);
}

/* Bytes of the header replaced at random: refused or read, never a crash. */
static void test_mutated(void **state)
{
    (void)state;
    uint32_t random = 12345;
    for (int round = 0; round < 20000; round++) {
        uint8_t *file;
        const size_t size = make_file(&file, good_header, 38);
        for (int i = 0; i < 1 + round % 3; i++) {
            random = random * 1664525 + 1013904223;
            file[8 + (random >> 8) % (sizeof good_header - 1)] = (uint8_t) "0123456789,:{}[]\"FUI\\x"[random % 22];
        }
        struct safetensors *s = safetensors_new();
        if (!safetensors_parse(s, file, size, "m.safetensors", NULL))
            for (size_t i = 0; i < safetensors_count(s); i++) {
                const struct safetensor *t = safetensors_at(s, i);
                assert_true(t->data >= file + 8 && t->data + t->size <= file + size);
            }
        safetensors_close(&s);
        free(file);
    }
}

static void test_many(void **state)
{
    (void)state;
    enum { N = 50000 };
    char *header = malloc(N * 80 + 16);
    size_t n = (size_t)sprintf(header, "{");
    for (int i = 0; i < N; i++)
        n += (size_t)sprintf(header + n, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                             i ? "," : "", (i * 7919) % N, i, i + 1);
    strcpy(header + n, "}");
    uint8_t *file;
    const size_t size = make_file(&file, header, N);
    struct safetensors *s = safetensors_new();
    assert_int_equal(safetensors_parse(s, file, size, "m.safetensors", NULL), 0);
    assert_int_equal(safetensors_count(s), N);
    assert_int_equal(safetensors_find(s, "t7919")->data[0], 1);
    safetensors_close(&s);
    free(file);
    free(header);
}

/* ---- folders ----------------------------------------------------------------------------------------------------- */

static void write_tensor(const struct folder *folder, const char *file, const char *name)
{
    char header[256];
    uint8_t *data;
    snprintf(header, sizeof header, "{\"%s\":" ENTRY("\"U8\"", "[4]", "[0,4]") "}", name);
    const size_t size = make_file(&data, header, 4);
    folder_write(folder, file, data, size);
    free(data);
}

static void test_single_file(void **state)
{
    (void)state;
    struct folder folder;
    folder_open(&folder);
    uint8_t *file;
    const size_t size = make_file(&file, good_header, 38);
    folder_write(&folder, "model.safetensors", file, size);
    struct safetensors *s;
    struct ward_error err = {0};
    if (safetensors_open(&s, folder.path, &err))
        fail_msg("%s", err.text);
    check_good(s);
    assert_int_equal(safetensors_mapped_bytes(s), size);
    assert_non_null(strstr(safetensors_at(s, 0)->file, "/model.safetensors"));
    safetensors_close(&s);
    free(file);
    folder_close(&folder);
}

static void test_index(void **state)
{
    (void)state;
    static const struct {
        const char *map, *expected;
    } cases[] = {
        {"{\"weight_map\":{\"x\":\"s1\",\"y\":\"s2\"}}", NULL},
        {"{\"metadata\":{\"total_size\":8},\"weight_map\":{\"y\":\"s2\",\"x\":\"s1\"}}", NULL},
        {"{\"weight_map\":{\"x\":\"s1\",\"y\":\"s1\"}}", "/s1: lacks tensor y"},
        {"{\"weight_map\":{\"x\":\"s2\",\"y\":\"s1\"}}", "lacks tensor"},
        {"{\"weight_map\":{\"x\":\"s1\",\"y\":\"s2\",\"z\":\"s2\"}}", "/s2: lacks tensor z"},
        {"{\"weight_map\":{\"x\":\"s1\",\"y\":\"s3\"}}", "/s3: is not there, but "},
        {"{\"weight_map\":{\"x\":\"s1\",\"y\":\"s2\",\"x\":\"s2\"}}", "given twice"},
        {"{\"weight_map\":{\"y\":\"two\"}}", "/two: holds tensor x, which "},
        {"{\"weight_map\":{\"x\":\"two\",\"y\":\"s2\"}}", "tensor y is also in"},
        {"{\"weight_map\":{\"x\":\"../s1\",\"y\":\"s2\"}}", "tensor x is not in a file of this folder"},
        {"{\"weight_map\":{\"x\":\"/s1\",\"y\":\"s2\"}}", "is not in a file of this folder"},
        {"{\"weight_map\":{\"x\":\"..\",\"y\":\"s2\"}}", "is not in a file of this folder"},
        {"{\"weight_map\":{\"x\":\"s1\\u0000\",\"y\":\"s2\"}}", "is not in a file of this folder"},
        {"{\"weight_map\":{\"x\":\"\",\"y\":\"s2\"}}", "is not in a file of this folder"},
        {"{\"weight_map\":{\"x\":1,\"y\":\"s2\"}}", "is not in a file of this folder"},
        {"{\"weight_map\":{\"x\":\"folder\",\"y\":\"s2\"}}", "is not a regular file"},
        {"{\"weight_map\":{}}", "has no weight_map"},
        {"{\"weight_map\":[\"s1\"]}", "has no weight_map"},
        {"{}", "has no weight_map"},
        {"[]", "has no weight_map"},
        {"", "is empty"},
        {"{\"weight_map\":", "is not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct folder folder;
        folder_open(&folder);
        write_tensor(&folder, "s1", "x");
        write_tensor(&folder, "s2", "y");
        write_tensor(&folder, "folder/s1", "x");
        uint8_t *file;
        const size_t size = make_file(
            &file, "{\"x\":" ENTRY("\"U8\"", "[1]", "[0,1]") ",\"y\":" ENTRY("\"U8\"", "[1]", "[1,2]") "}", 2);
        folder_write(&folder, "two", file, size);
        free(file);
        folder_write_text(&folder, "model.safetensors.index.json", cases[i].map);
        struct safetensors *s;
        struct ward_error err = {0};
        const int rc = safetensors_open(&s, folder.path, &err);
        if (cases[i].expected ? !rc || s || !strstr(err.text, cases[i].expected) : rc)
            fail_msg("%s: %d, said \"%s\", expected \"%s\"", cases[i].map, rc, err.text, cases[i].expected);
        if (!rc)
            assert_int_equal(safetensors_find(s, "y")->data[3], 3);
        safetensors_close(&s);
        folder_close(&folder);
    }
}

static void test_empty_folder(void **state)
{
    (void)state;
    struct folder folder;
    folder_open(&folder);
    struct safetensors *s;
    struct ward_error err = {0};
    assert_int_equal(safetensors_open(&s, folder.path, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "holds neither model.safetensors.index.json nor model.safetensors"));
    folder_write(&folder, "model.safetensors", "", 0);
    assert_int_equal(safetensors_open(&s, folder.path, &err), WARD_EFORMAT);
    assert_non_null(strstr(err.text, "/model.safetensors: is 0 bytes long"));
    folder_close(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_headers_refused),
        cmocka_unit_test(test_not_safetensors),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_single_file),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_empty_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
