/* Writes a small GGUF file in memory. */
#ifndef WARD_TESTS_GGUF_WRITER_H
#define WARD_TESTS_GGUF_WRITER_H

#include "model/gguf.h"
#include "model/tensor.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { GGUF_WRITER_ROOM = 1 << 17, GGUF_WRITER_ALIGNMENT = 32 };

struct gguf_writer {
    uint8_t file[GGUF_WRITER_ROOM]; /* [n_file] once finished */
    uint8_t values[GGUF_WRITER_ROOM], tensors[GGUF_WRITER_ROOM], data[GGUF_WRITER_ROOM];
    size_t n_file, n_value_bytes, n_tensor_bytes, n_data;
    uint64_t n_values, n_tensors;
    uint32_t version;
};

static inline void gguf_writer_open(struct gguf_writer *w, uint32_t version)
{
    memset(w, 0, sizeof *w);
    w->version = version;
}

static inline void gguf_append(uint8_t *to, size_t *n, const void *bytes, size_t size)
{
    assert(size <= GGUF_WRITER_ROOM - *n);
    if (size)
        memcpy(to + *n, bytes, size);
    *n += size;
}

static inline void gguf_append_text(uint8_t *to, size_t *n, const char *text, size_t length)
{
    gguf_append(to, n, &(uint64_t){length}, 8);
    gguf_append(to, n, text, length);
}

static inline void gguf_put_key(struct gguf_writer *w, const char *key, uint32_t type)
{
    gguf_append_text(w->values, &w->n_value_bytes, key, strlen(key));
    gguf_append(w->values, &w->n_value_bytes, &type, 4);
    w->n_values++;
}

static inline void gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    gguf_put_key(w, key, GGUF_UINT32);
    gguf_append(w->values, &w->n_value_bytes, &value, 4);
}

static inline void gguf_put_f32(struct gguf_writer *w, const char *key, float value)
{
    gguf_put_key(w, key, GGUF_FLOAT32);
    gguf_append(w->values, &w->n_value_bytes, &value, 4);
}

static inline void gguf_put_bool(struct gguf_writer *w, const char *key, bool value)
{
    gguf_put_key(w, key, GGUF_BOOL);
    gguf_append(w->values, &w->n_value_bytes, &(uint8_t){value}, 1);
}

static inline void gguf_put_string(struct gguf_writer *w, const char *key, const char *text)
{
    gguf_put_key(w, key, GGUF_STRING);
    gguf_append_text(w->values, &w->n_value_bytes, text, strlen(text));
}

static inline void gguf_put_array(struct gguf_writer *w, const char *key, uint32_t element, uint64_t n)
{
    gguf_put_key(w, key, GGUF_ARRAY);
    gguf_append(w->values, &w->n_value_bytes, &element, 4);
    gguf_append(w->values, &w->n_value_bytes, &n, 8);
}

/* Of a type of 4 bytes, or of bools. */
static inline void gguf_put_numbers(struct gguf_writer *w, const char *key, uint32_t element, const void *numbers,
                                    uint64_t n)
{
    gguf_put_array(w, key, element, n);
    gguf_append(w->values, &w->n_value_bytes, numbers, (size_t)n * (element == GGUF_BOOL ? 1 : 4));
}

static inline void gguf_put_strings(struct gguf_writer *w, const char *key, const char *const *texts, uint64_t n)
{
    gguf_put_array(w, key, GGUF_STRING, n);
    for (uint64_t i = 0; i < n; i++)
        gguf_append_text(w->values, &w->n_value_bytes, texts[i], strlen(texts[i]));
}

/* A tensor of n_dims sizes, fastest first; data NULL: zeros. */
static inline void gguf_put_dims(struct gguf_writer *w, const char *name, enum tensor_type type, const uint64_t *dims,
                                 uint32_t n_dims, const void *data)
{
    static const uint32_t ids[TENSOR_TYPES] = {0, 1, 30, 8, 2, 3, 6, 7, 12, 13, 14};
    uint64_t n = 1;
    gguf_append_text(w->tensors, &w->n_tensor_bytes, name, strlen(name));
    gguf_append(w->tensors, &w->n_tensor_bytes, &n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        gguf_append(w->tensors, &w->n_tensor_bytes, &dims[i], 8);
        n *= dims[i];
    }
    const size_t size = tensor_bytes(type, (size_t)n);
    while (w->n_data % GGUF_WRITER_ALIGNMENT)
        gguf_append(w->data, &w->n_data, "", 1);
    gguf_append(w->tensors, &w->n_tensor_bytes, &ids[type], 4);
    gguf_append(w->tensors, &w->n_tensor_bytes, &(uint64_t){w->n_data}, 8);
    assert(size <= GGUF_WRITER_ROOM - w->n_data);
    if (data)
        memcpy(w->data + w->n_data, data, size);
    w->n_data += size;
    w->n_tensors++;
}

/* rows 0: a vector. */
static inline void gguf_put_tensor(struct gguf_writer *w, const char *name, enum tensor_type type, uint64_t cols,
                                   uint64_t rows, const void *data)
{
    gguf_put_dims(w, name, type, (const uint64_t[]){cols, rows}, rows ? 2 : 1, data);
}

static inline void gguf_writer_finish(struct gguf_writer *w)
{
    w->n_file = 0;
    gguf_append(w->file, &w->n_file, "GGUF", 4);
    gguf_append(w->file, &w->n_file, &w->version, 4);
    gguf_append(w->file, &w->n_file, &w->n_tensors, 8);
    gguf_append(w->file, &w->n_file, &w->n_values, 8);
    gguf_append(w->file, &w->n_file, w->values, w->n_value_bytes);
    gguf_append(w->file, &w->n_file, w->tensors, w->n_tensor_bytes);
    while (w->n_file % GGUF_WRITER_ALIGNMENT)
        gguf_append(w->file, &w->n_file, "", 1);
    gguf_append(w->file, &w->n_file, w->data, w->n_data);
}

#endif
