/* The GGUF container, bytes as they are. */
#include "fuzz.h"

#include "model/gguf.h"
#include "model/tensor.h"

#include <stdlib.h>
#include <string.h>

static bool inside(const uint8_t *at, size_t n, const uint8_t *file, size_t size)
{
    return at >= file && n <= size && (size_t)(at - file) <= size - n;
}

/* The elements are whole, and there are as many as are said. */
static void check_value(const struct gguf *g, size_t i, const uint8_t *file, size_t size)
{
    const struct gguf_value *v = gguf_value_at(g, i);
    const char *text;
    size_t at = 0, length;
    REQUIRE(gguf_value(g, v->name) == v);
    REQUIRE(inside(v->data, v->size, file, size) && inside(v->raw, v->raw_size, file, size));
    REQUIRE(v->raw + v->raw_size == v->data + v->size);
    REQUIRE(v->element != GGUF_ARRAY && (v->type == GGUF_ARRAY || (v->n == 1 && v->raw == v->data)));
    for (uint64_t k = 0; k < v->n; k++) {
        int64_t integer;
        double number;
        bool truth;
        const bool is_integer = gguf_integer(v, k, INT64_MIN, INT64_MAX, &integer);
        const bool is_number = gguf_number(v, k, &number);
        REQUIRE(!is_integer || (is_number && number == (double)integer));
        REQUIRE(!gguf_bool(v, k, &truth) || (!is_number && v->element == GGUF_BOOL));
        const bool is_text = gguf_next_string(v, &at, &text, &length);
        REQUIRE(is_text == (v->element == GGUF_STRING));
        REQUIRE(!is_text || inside((const uint8_t *)text, length, file, size));
    }
    REQUIRE(!gguf_next_string(v, &at, &text, &length));
    REQUIRE(!gguf_integer(v, v->n, INT64_MIN, INT64_MAX, &(int64_t){0}));
}

static void check_tensor(const struct gguf *g, size_t i, const uint8_t *file, size_t size)
{
    const struct gguf_tensor *t = gguf_tensor_at(g, i);
    size_t n = 1;
    REQUIRE(gguf_tensor(g, t->name) == t);
    REQUIRE(inside(t->data, t->size, file, size));
    REQUIRE(t->n_dims >= 1 && t->n_dims <= GGUF_MAX_DIMS && t->type >= -1 && t->type < TENSOR_TYPES && t->type_name);
    for (int d = 0; d < t->n_dims; d++)
        n *= (size_t)t->dims[d];
    REQUIRE(t->type < 0 || t->size == tensor_bytes((enum tensor_type)t->type, n));
    for (size_t k = 0; k < i; k++) {
        const struct gguf_tensor *other = gguf_tensor_at(g, k);
        REQUIRE(t->data + t->size <= other->data || other->data + other->size <= t->data);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct ward_error err = {0};
    uint8_t *file = malloc(size ? size : 1); /* a block of its own, for the sanitizer */
    REQUIRE(file);
    memcpy(file, data, size);
    const int rc = gguf_parse(&g, file, size, "m.gguf", &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (g != NULL));
    for (size_t i = 0; g && i < gguf_n_values(g); i++)
        check_value(g, i, file, size);
    for (size_t i = 0; g && i < gguf_n_tensors(g); i++)
        check_tensor(g, i, file, size);
    REQUIRE(!g || (!gguf_value(g, "not there") && gguf_size(g) == size));
    gguf_close(&g);
    free(file);
    return 0;
}
