/* The GGUF container of ggml: typed key/values, then tensors, in one mapped file. Every length, count, offset, type and
 * size is checked against the true size of the file when it is opened. The format is that of docs/gguf.md in
 * github.com/ggml-org/ggml, versions 2 and 3, little-endian. */
#ifndef WARD_MODEL_GGUF_H
#define WARD_MODEL_GGUF_H

#include "base/mapping.h"

enum { GGUF_MAX_DIMS = 4 };

enum gguf_type { /* as numbered in files */
    GGUF_UINT8,
    GGUF_INT8,
    GGUF_UINT16,
    GGUF_INT16,
    GGUF_UINT32,
    GGUF_INT32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_UINT64,
    GGUF_INT64,
    GGUF_FLOAT64,
    GGUF_TYPES,
};

struct gguf_value {
    const char *name;       /* its key */
    enum gguf_type type;    /* never an array of arrays */
    enum gguf_type element; /* type of an array's elements, else as type */
    uint64_t n;             /* elements of an array, else 1 */
    const uint8_t *data;    /* the elements one after another; a string is its length in 8 bytes, then its bytes */
    const uint8_t *raw;     /* all that follows the type in the file: of an array its head too */
    size_t size, raw_size;  /* bytes of data, of raw */
};

struct gguf_tensor {
    const char *name;
    uint32_t id;           /* the type as numbered in files: 0 f32, 1 f16, 2 q4_0, ... */
    int type;              /* enum tensor_type, or -1: a type of ggml's that ward does not compute with */
    const char *type_name; /* "q4_k", ... */
    int n_dims;
    uint64_t dims[GGUF_MAX_DIMS]; /* fastest first: dims[0] is the length of a row, whole blocks of the type */
    const uint8_t *data;          /* aligned in the file as it says: 32 bytes if it says nothing */
    size_t size;                  /* bytes */
};

struct gguf;

WARD_CHECKED int gguf_open(struct gguf **out, const char *path, struct ward_error *err);
/* From a file's bytes in memory, which must outlive *out; `name` is copied, for errors. */
WARD_CHECKED int gguf_parse(struct gguf **out, const uint8_t *data, size_t size, const char *name,
                            struct ward_error *err);
void gguf_close(struct gguf **file);

const char *gguf_name(const struct gguf *file);
size_t gguf_size(const struct gguf *file); /* bytes, all mapped */

/* In the order of the file; by name, or NULL. Valid until close. */
size_t gguf_n_values(const struct gguf *file);
const struct gguf_value *gguf_value_at(const struct gguf *file, size_t i);
const struct gguf_value *gguf_value(const struct gguf *file, const char *name);
size_t gguf_n_tensors(const struct gguf *file);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *file, size_t i);
const struct gguf_tensor *gguf_tensor(const struct gguf *file, const char *name);

/* Element i of a value that is no string, as a whole number within [low, high], as a number, as a truth: false where it
 * is none. `value` may be NULL. */
bool gguf_integer(const struct gguf_value *value, uint64_t i, int64_t low, int64_t high, int64_t *out);
bool gguf_number(const struct gguf_value *value, uint64_t i, double *out);
bool gguf_bool(const struct gguf_value *value, uint64_t i, bool *out);
/* The string at *at, at first 0, of a value's data, which goes on to the next; false after the last. */
bool gguf_next_string(const struct gguf_value *value, size_t *at, const char **text, size_t *length);
/* A single string with this text. */
bool gguf_string_is(const struct gguf_value *value, const char *text);

#endif
