#include "model/gguf.h"

#include "base/utf8.h"
#include "model/tensor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_KEY = 65535, /* bytes of a key, as the format says */
    MAX_NAME = 255,  /* bytes of a tensor's name; ggml takes 63 */
    MAX_ALIGNMENT = 1 << 20,
    DEFAULT_ALIGNMENT = 32,
    SMALLEST_VALUE = 8 + 1 + 4 + 1,       /* bytes in the file: a key of one letter, its type, a byte */
    SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8, /* a name of one letter, number of dimensions, one, type, offset */
};

struct gguf {
    struct mapping map; /* empty when the bytes belong to the caller */
    char *name;
    size_t size;
    struct gguf_value *values;
    struct gguf_tensor *tensors;
    size_t n_values, n_tensors;
    const void **values_by_name, **tensors_by_name; /* both begin with their name */
};

/* ---- types ------------------------------------------------------------------------------------------------------- */

/* Bytes of a value; 0: not always the same. */
static const size_t type_bytes[GGUF_TYPES] = {
    [GGUF_UINT8] = 1,  [GGUF_INT8] = 1, [GGUF_UINT16] = 2, [GGUF_INT16] = 2, [GGUF_UINT32] = 4,  [GGUF_INT32] = 4,
    [GGUF_FLOAT32] = 4, [GGUF_BOOL] = 1, [GGUF_UINT64] = 8, [GGUF_INT64] = 8, [GGUF_FLOAT64] = 8,
};

/* Types of tensors by their number in files; those that ward does not compute with are known so that they are named. */
static const struct format {
    const char *name; /* NULL: no such type */
    int block, bytes;
    int type; /* enum tensor_type + 1; 0: none of ward's */
} formats[] = {
    [0] = {"f32", 1, 4, TENSOR_F32 + 1},
    [1] = {"f16", 1, 2, TENSOR_F16 + 1},
    [2] = {"q4_0", 32, 18, TENSOR_Q4_0 + 1},
    [3] = {"q4_1", 32, 20, TENSOR_Q4_1 + 1},
    [6] = {"q5_0", 32, 22, TENSOR_Q5_0 + 1},
    [7] = {"q5_1", 32, 24, TENSOR_Q5_1 + 1},
    [8] = {"q8_0", 32, 34, TENSOR_Q8_0 + 1},
    [10] = {"q2_k", 256, 84, 0},
    [11] = {"q3_k", 256, 110, 0},
    [12] = {"q4_k", 256, 144, TENSOR_Q4_K + 1},
    [13] = {"q5_k", 256, 176, TENSOR_Q5_K + 1},
    [14] = {"q6_k", 256, 210, TENSOR_Q6_K + 1},
    [16] = {"iq2_xxs", 256, 66, 0},
    [17] = {"iq2_xs", 256, 74, 0},
    [18] = {"iq3_xxs", 256, 98, 0},
    [19] = {"iq1_s", 256, 50, 0},
    [20] = {"iq4_nl", 32, 18, 0},
    [21] = {"iq3_s", 256, 110, 0},
    [22] = {"iq2_s", 256, 82, 0},
    [23] = {"iq4_xs", 256, 136, 0},
    [24] = {"i8", 1, 1, 0},
    [25] = {"i16", 1, 2, 0},
    [26] = {"i32", 1, 4, 0},
    [27] = {"i64", 1, 8, 0},
    [28] = {"f64", 1, 8, 0},
    [29] = {"iq1_m", 256, 56, 0},
    [30] = {"bf16", 1, 2, TENSOR_BF16 + 1},
    [34] = {"tq1_0", 256, 54, 0},
    [35] = {"tq2_0", 256, 66, 0},
    [39] = {"mxfp4", 32, 17, 0},
};

/* ---- reading forward --------------------------------------------------------------------------------------------- */

/* A file being parsed, from its beginning to the end of its header. */
struct parse {
    const uint8_t *data;
    size_t size, at;
    struct gguf *into;
    struct ward_error *err;
};

static uint64_t little_endian(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    while (n-- > 0)
        value = value << 8 | bytes[n];
    return value;
}

static int truncated(const struct parse *p, const char *what)
{
    return error_set(p->err, WARD_EFORMAT, "%s: is truncated: it ends at byte %zu, within %s", p->into->name, p->size,
                     what);
}

static int take_number(struct parse *p, uint64_t *value, size_t n, const char *what)
{
    *value = 0;
    if (p->size - p->at < n)
        return truncated(p, what);
    *value = little_endian(p->data + p->at, n);
    p->at += n;
    return 0;
}

/* A name of at most `limit` bytes, copied. */
static int take_name(struct parse *p, const char **name, size_t limit, const char *what)
{
    uint64_t length;
    const int rc = take_number(p, &length, 8, what);
    if (rc)
        return rc;
    if (!length || length > limit)
        return error_set(p->err, WARD_EFORMAT, "%s: %s is %" PRIu64 " bytes long, 1 to %zu are expected",
                         p->into->name, what, length, limit);
    if (length > p->size - p->at)
        return truncated(p, what);
    const uint8_t *text = p->data + p->at;
    if (memchr(text, 0, (size_t)length) || utf8_valid(text, (size_t)length) != length)
        return error_set(p->err, WARD_EFORMAT, "%s: %s is not a text", p->into->name, what);
    *name = strndup((const char *)text, (size_t)length);
    if (!*name)
        return error_no_memory(p->err, p->into->name, (size_t)length);
    p->at += (size_t)length;
    return 0;
}

/* ---- key/values -------------------------------------------------------------------------------------------------- */

static int skip_strings(struct parse *p, const struct gguf_value *value)
{
    for (uint64_t i = 0; i < value->n; i++) {
        uint64_t length;
        const int rc = take_number(p, &length, 8, value->name);
        if (rc)
            return rc;
        if (length > p->size - p->at)
            return truncated(p, value->name);
        p->at += (size_t)length;
    }
    return 0;
}

static int take_value(struct parse *p, struct gguf_value *value)
{
    uint64_t type, element;
    int rc = take_name(p, &value->name, MAX_KEY, "a key");
    if (!rc)
        rc = take_number(p, &type, 4, value->name);
    if (rc)
        return rc;
    value->raw = p->data + p->at;
    element = type;
    value->n = 1;
    if (type == GGUF_ARRAY) {
        rc = take_number(p, &element, 4, value->name);
        if (!rc)
            rc = take_number(p, &value->n, 8, value->name);
        if (rc)
            return rc;
    }
    if (element >= GGUF_TYPES || element == GGUF_ARRAY)
        return error_set(p->err, WARD_EFORMAT,
                         "%s: %s has a value of type %" PRIu64 ", one of 0 to 8 and 10 to 12 is expected",
                         p->into->name, value->name, element);
    value->type = (enum gguf_type)type;
    value->element = (enum gguf_type)element;
    value->data = p->data + p->at;
    if (element == GGUF_STRING) {
        rc = skip_strings(p, value);
        if (rc)
            return rc;
    } else {
        if (value->n > (p->size - p->at) / type_bytes[element])
            return truncated(p, value->name);
        p->at += (size_t)value->n * type_bytes[element];
    }
    value->size = (size_t)(p->data + p->at - value->data);
    value->raw_size = (size_t)(p->data + p->at - value->raw);
    return 0;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* size = bytes of the tensor, which is whole blocks in rows. */
static int measure(const struct parse *p, struct gguf_tensor *t, const struct format *format)
{
    uint64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        if (!t->dims[i] || __builtin_mul_overflow(n, t->dims[i], &n))
            return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: its dimensions make no number of values",
                             p->into->name, t->name);
    if (t->dims[0] % (uint64_t)format->block)
        return error_set(p->err, WARD_EFORMAT,
                         "%s: tensor %s has rows of %" PRIu64 " values, expected a multiple of %d, the block of %s",
                         p->into->name, t->name, t->dims[0], format->block, format->name);
    uint64_t bytes;
    if (__builtin_mul_overflow(n / (uint64_t)format->block, (uint64_t)format->bytes, &bytes) || bytes > p->size)
        return error_set(p->err, WARD_EFORMAT, "%s: is truncated: tensor %s alone is larger than the file of %zu bytes",
                         p->into->name, t->name, p->size);
    t->size = (size_t)bytes;
    return 0;
}

/* Its data are placed later, when it is known where they begin: *offset counts from there. */
static int take_tensor(struct parse *p, struct gguf_tensor *t, uint64_t *offset)
{
    uint64_t n_dims, id;
    int rc = take_name(p, &t->name, MAX_NAME, "a tensor's name");
    if (!rc)
        rc = take_number(p, &n_dims, 4, t->name);
    if (!rc && (n_dims < 1 || n_dims > GGUF_MAX_DIMS))
        rc = error_set(p->err, WARD_EFORMAT, "%s: tensor %s has %" PRIu64 " dimensions, 1 to %d are expected",
                       p->into->name, t->name, n_dims, GGUF_MAX_DIMS);
    for (t->n_dims = 0; !rc && t->n_dims < (int)n_dims; t->n_dims++)
        rc = take_number(p, &t->dims[t->n_dims], 8, t->name);
    if (!rc)
        rc = take_number(p, &id, 4, t->name);
    if (!rc)
        rc = take_number(p, offset, 8, t->name);
    if (rc)
        return rc;
    if (id >= sizeof formats / sizeof *formats || !formats[id].name)
        return error_set(p->err, WARD_EUNSUPPORTED, "%s: tensor %s has type %" PRIu64 ", which ward does not know",
                         p->into->name, t->name, id);
    t->id = (uint32_t)id;
    t->type = formats[id].type - 1;
    t->type_name = formats[id].name;
    return measure(p, t, &formats[id]);
}

static int find_alignment(const struct parse *p, uint64_t *alignment)
{
    const struct gguf_value *value = gguf_value(p->into, "general.alignment");
    int64_t number = DEFAULT_ALIGNMENT;
    if (value && (!gguf_integer(value, 0, 1, MAX_ALIGNMENT, &number) || (number & (number - 1))))
        return error_set(p->err, WARD_EFORMAT, "%s: general.alignment is not a power of two up to %d", p->into->name,
                         MAX_ALIGNMENT);
    *alignment = (uint64_t)number;
    return 0;
}

static int place_tensors(const struct parse *p, const uint64_t *offsets)
{
    uint64_t alignment = 1;
    int rc = find_alignment(p, &alignment);
    if (rc)
        return rc;
    const uint64_t start = (p->at + alignment - 1) & ~(alignment - 1);
    const uint64_t room = start < p->size ? p->size - start : 0;
    for (size_t i = 0; i < p->into->n_tensors; i++) {
        struct gguf_tensor *t = &p->into->tensors[i];
        if (offsets[i] % alignment)
            return error_set(p->err, WARD_EFORMAT,
                             "%s: tensor %s begins at byte %" PRIu64 " of the data, expected a multiple of %" PRIu64,
                             p->into->name, t->name, offsets[i], alignment);
        if (offsets[i] > room || t->size > room - offsets[i])
            return error_set(p->err, WARD_EFORMAT,
                             "%s: is truncated: tensor %s takes %zu bytes from byte %" PRIu64
                             " of the data, of which there are %" PRIu64,
                             p->into->name, t->name, t->size, offsets[i], room);
        t->data = p->data + start + offsets[i];
    }
    return 0;
}

/* ---- searching --------------------------------------------------------------------------------------------------- */

/* Values and tensors begin with their name, and so are searched alike. */
static const char *name_of(const void *entry)
{
    const char *name;
    memcpy(&name, entry, sizeof name);
    return name;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(name_of(*(const void *const *)a), name_of(*(const void *const *)b));
}

static int compare_name(const void *name, const void *entry)
{
    return strcmp(name, name_of(*(const void *const *)entry));
}

static int compare_data(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

static int sort_by_name(const struct parse *p, const void ***out, const void *entries, size_t n, size_t size,
                        const char *what)
{
    const void **sorted = calloc(n + 1, sizeof *sorted);
    if (!sorted)
        return error_no_memory(p->err, p->into->name, (n + 1) * sizeof *sorted);
    *out = sorted;
    for (size_t i = 0; i < n; i++)
        sorted[i] = (const uint8_t *)entries + i * size;
    qsort(sorted, n, sizeof *sorted, compare_names);
    for (size_t i = 1; i < n; i++)
        if (!compare_names(&sorted[i - 1], &sorted[i]))
            return error_set(p->err, WARD_EFORMAT, "%s: %s %s is there twice", p->into->name, what, name_of(sorted[i]));
    return 0;
}

static int check_overlaps(const struct parse *p)
{
    const size_t n = p->into->n_tensors;
    const struct gguf_tensor **sorted = calloc(n + 1, sizeof *sorted);
    if (!sorted)
        return error_no_memory(p->err, p->into->name, (n + 1) * sizeof *sorted);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &p->into->tensors[i];
    qsort(sorted, n, sizeof *sorted, compare_data);
    int rc = 0;
    for (size_t i = 1; i < n && !rc; i++)
        if (sorted[i - 1]->data + sorted[i - 1]->size > sorted[i]->data)
            rc = error_set(p->err, WARD_EFORMAT, "%s: tensors %s and %s overlap", p->into->name, sorted[i - 1]->name,
                           sorted[i]->name);
    free(sorted);
    return rc;
}

static const void *find(const void *const *sorted, size_t n, const char *name)
{
    const void *const *found = n ? bsearch(name, sorted, n, sizeof *sorted, compare_name) : NULL;
    return found ? *found : NULL;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* What people have instead of the file, said plainly. */
static int take_head(struct parse *p, uint64_t *n_tensors, uint64_t *n_values)
{
    const char *name = p->into->name;
    uint64_t version;
    if (is_git_lfs_pointer(p->data, p->size))
        return error_set(p->err, WARD_EFORMAT, "%s: is a Git LFS pointer, not the weights: run git lfs pull", name);
    if (p->size < 4 || memcmp(p->data, "GGUF", 4))
        return error_set(p->err, WARD_EFORMAT, "%s: is not a GGUF file: it does not begin with \"GGUF\"", name);
    p->at = 4;
    int rc = take_number(p, &version, 4, "its head");
    if (rc)
        return rc;
    if (version && !(version & 0xffff))
        return error_set(p->err, WARD_EUNSUPPORTED, "%s: is a big-endian GGUF file, expected a little-endian one",
                         name);
    if (version != 2 && version != 3)
        return error_set(p->err, WARD_EUNSUPPORTED, "%s: is a GGUF file of version %" PRIu64 ", expected 2 or 3", name,
                         version);
    rc = take_number(p, n_tensors, 8, "its head");
    if (!rc)
        rc = take_number(p, n_values, 8, "its head");
    if (rc)
        return rc;
    const size_t left = p->size - p->at;
    if (*n_values > left / SMALLEST_VALUE || *n_tensors > left / SMALLEST_TENSOR)
        return error_set(p->err, WARD_EFORMAT,
                         "%s: is truncated: it speaks of %" PRIu64 " values and %" PRIu64 " tensors, and has %zu bytes",
                         name, *n_values, *n_tensors, p->size);
    return 0;
}

static int take_tensors(struct parse *p, size_t n)
{
    uint64_t *offsets = calloc(n + 1, sizeof *offsets);
    if (!offsets)
        return error_no_memory(p->err, p->into->name, (n + 1) * sizeof *offsets);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = take_tensor(p, &p->into->tensors[p->into->n_tensors++], &offsets[i]);
    if (!rc)
        rc = place_tensors(p, offsets);
    free(offsets);
    return rc;
}

static int parse_file(struct parse *p)
{
    struct gguf *g = p->into;
    uint64_t n_tensors = 0, n_values = 0;
    int rc = take_head(p, &n_tensors, &n_values);
    if (rc)
        return rc;
    g->values = calloc((size_t)n_values + 1, sizeof *g->values);
    g->tensors = calloc((size_t)n_tensors + 1, sizeof *g->tensors);
    if (!g->values || !g->tensors)
        return error_no_memory(p->err, g->name, (size_t)n_tensors * sizeof *g->tensors);
    for (uint64_t i = 0; i < n_values && !rc; i++)
        rc = take_value(p, &g->values[g->n_values++]);
    if (!rc)
        rc = sort_by_name(p, &g->values_by_name, g->values, g->n_values, sizeof *g->values, "the key");
    if (!rc)
        rc = take_tensors(p, (size_t)n_tensors);
    if (!rc)
        rc = sort_by_name(p, &g->tensors_by_name, g->tensors, g->n_tensors, sizeof *g->tensors, "tensor");
    return rc ? rc : check_overlaps(p);
}

int gguf_parse(struct gguf **out, const uint8_t *data, size_t size, const char *name, struct ward_error *err)
{
    *out = NULL;
    struct gguf *g = calloc(1, sizeof *g);
    if (g)
        g->name = strdup(name);
    int rc = g && g->name ? 0 : error_no_memory(err, name, sizeof *g);
    if (!rc) {
        struct parse p = {data, size, 0, g, err};
        g->size = size;
        rc = parse_file(&p);
    }
    if (rc)
        gguf_close(&g);
    *out = g;
    return rc;
}

int gguf_open(struct gguf **out, const char *path, struct ward_error *err)
{
    *out = NULL;
    struct mapping map;
    int rc = mapping_open(&map, path, err);
    if (!rc)
        rc = gguf_parse(out, map.data, map.size, path, err);
    if (rc)
        mapping_close(&map);
    else
        (*out)->map = map;
    return rc;
}

void gguf_close(struct gguf **file)
{
    struct gguf *g = *file;
    if (!g)
        return;
    for (size_t i = 0; i < g->n_values; i++)
        free((char *)(uintptr_t)g->values[i].name);
    for (size_t i = 0; i < g->n_tensors; i++)
        free((char *)(uintptr_t)g->tensors[i].name);
    free(g->values);
    free(g->tensors);
    free(g->values_by_name);
    free(g->tensors_by_name);
    free(g->name);
    mapping_close(&g->map);
    free(g);
    *file = NULL;
}

const char *gguf_name(const struct gguf *file)
{
    return file->name;
}

size_t gguf_size(const struct gguf *file)
{
    return file->size;
}

size_t gguf_n_values(const struct gguf *file)
{
    return file->n_values;
}

const struct gguf_value *gguf_value_at(const struct gguf *file, size_t i)
{
    return &file->values[i];
}

const struct gguf_value *gguf_value(const struct gguf *file, const char *name)
{
    return find(file->values_by_name, file->n_values, name);
}

size_t gguf_n_tensors(const struct gguf *file)
{
    return file->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *file, size_t i)
{
    return &file->tensors[i];
}

const struct gguf_tensor *gguf_tensor(const struct gguf *file, const char *name)
{
    return find(file->tensors_by_name, file->n_tensors, name);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* The bits of element i, or false. */
static bool element_bits(const struct gguf_value *value, uint64_t i, uint64_t *bits)
{
    if (!value || i >= value->n || !type_bytes[value->element])
        return false;
    const size_t n = type_bytes[value->element];
    *bits = little_endian(value->data + (size_t)i * n, n);
    return true;
}

bool gguf_integer(const struct gguf_value *value, uint64_t i, int64_t low, int64_t high, int64_t *out)
{
    uint64_t bits;
    int64_t number;
    if (!element_bits(value, i, &bits))
        return false;
    switch (value->element) {
    case GGUF_INT8:
        number = (int8_t)bits;
        break;
    case GGUF_INT16:
        number = (int16_t)bits;
        break;
    case GGUF_INT32:
        number = (int32_t)bits;
        break;
    case GGUF_UINT8:
    case GGUF_UINT16:
    case GGUF_UINT32:
    case GGUF_INT64:
        number = (int64_t)bits;
        break;
    case GGUF_UINT64:
        if (bits > INT64_MAX)
            return false;
        number = (int64_t)bits;
        break;
    default:
        return false;
    }
    if (number < low || number > high)
        return false;
    *out = number;
    return true;
}

bool gguf_number(const struct gguf_value *value, uint64_t i, double *out)
{
    uint64_t bits;
    int64_t integer;
    if (gguf_integer(value, i, INT64_MIN, INT64_MAX, &integer)) {
        *out = (double)integer;
        return true;
    }
    if (!element_bits(value, i, &bits))
        return false;
    if (value->element == GGUF_FLOAT32) {
        float number;
        memcpy(&number, &(uint32_t){(uint32_t)bits}, sizeof number);
        *out = number;
    } else if (value->element == GGUF_FLOAT64) {
        memcpy(out, &bits, sizeof *out);
    } else {
        return false;
    }
    return true;
}

bool gguf_bool(const struct gguf_value *value, uint64_t i, bool *out)
{
    uint64_t bits;
    if (!element_bits(value, i, &bits) || value->element != GGUF_BOOL)
        return false;
    *out = bits != 0;
    return true;
}

bool gguf_next_string(const struct gguf_value *value, size_t *at, const char **text, size_t *length)
{
    if (!value || value->element != GGUF_STRING || *at >= value->size)
        return false;
    *length = (size_t)little_endian(value->data + *at, 8);
    *text = (const char *)value->data + *at + 8;
    *at += 8 + *length;
    return true;
}

bool gguf_string_is(const struct gguf_value *value, const char *text)
{
    const char *found;
    size_t at = 0, length;
    return value && value->type == GGUF_STRING && gguf_next_string(value, &at, &found, &length) &&
           length == strlen(text) && !memcmp(found, text, length);
}
