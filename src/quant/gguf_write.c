#include "quant/gguf_write.h"

#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VERSION = 3, ALIGNMENT = 32 };

/* ---- the head ---------------------------------------------------------------------------------------------------- */

static void put(struct gguf_head *head, struct gguf_bytes *to, const void *data, size_t size)
{
    if (head->failed || !size)
        return;
    if (size > to->capacity - to->n) {
        const size_t capacity = 2 * to->capacity + size + 256;
        uint8_t *at = realloc(to->at, capacity);
        if (!at) {
            head->failed = true;
            return;
        }
        to->at = at;
        to->capacity = capacity;
    }
    memcpy(to->at + to->n, data, size);
    to->n += size;
}

static void put_u32(struct gguf_head *head, struct gguf_bytes *to, uint32_t value)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    put(head, to, bytes, sizeof bytes);
}

static void put_u64(struct gguf_head *head, struct gguf_bytes *to, uint64_t value)
{
    put_u32(head, to, (uint32_t)value);
    put_u32(head, to, (uint32_t)(value >> 32));
}

static void put_string(struct gguf_head *head, struct gguf_bytes *to, const char *text, size_t length)
{
    put_u64(head, to, length);
    put(head, to, text, length);
}

static void put_key(struct gguf_head *head, const char *key, enum gguf_type type)
{
    put_string(head, &head->keys, key, strlen(key));
    put_u32(head, &head->keys, type);
    head->n_keys++;
}

void gguf_head_free(struct gguf_head *head)
{
    free(head->keys.at);
    free(head->tensors.at);
    *head = (struct gguf_head){0};
}

void gguf_put_u32(struct gguf_head *head, const char *key, uint32_t value)
{
    put_key(head, key, GGUF_UINT32);
    put_u32(head, &head->keys, value);
}

void gguf_put_f32(struct gguf_head *head, const char *key, double value)
{
    const float single = (float)value;
    put_key(head, key, GGUF_FLOAT32);
    put(head, &head->keys, &single, sizeof single);
}

void gguf_put_bool(struct gguf_head *head, const char *key, bool value)
{
    const uint8_t byte = value;
    put_key(head, key, GGUF_BOOL);
    put(head, &head->keys, &byte, sizeof byte);
}

void gguf_put_text(struct gguf_head *head, const char *key, const char *text, size_t length)
{
    put_key(head, key, GGUF_STRING);
    put_string(head, &head->keys, text, length);
}

void gguf_put_list(struct gguf_head *head, const char *key, enum gguf_type element, const void *values, size_t n)
{
    put_key(head, key, GGUF_ARRAY);
    put_u32(head, &head->keys, element);
    put_u64(head, &head->keys, n);
    if (element != GGUF_STRING)
        put(head, &head->keys, values, n * (element == GGUF_BOOL ? 1 : 4));
}

void gguf_put_entry(struct gguf_head *head, const char *text, size_t length)
{
    put_string(head, &head->keys, text, length);
}

void gguf_put_copy(struct gguf_head *head, const struct gguf_value *value)
{
    put_key(head, value->name, value->type);
    put(head, &head->keys, value->raw, value->raw_size);
}

static uint64_t aligned(uint64_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

uint64_t gguf_put_tensor(struct gguf_head *head, const char *name, enum tensor_type type, const uint64_t *shape,
                         int n_dims)
{
    static const uint32_t ids[TENSOR_TYPES] = {
        [TENSOR_F32] = 0,  [TENSOR_F16] = 1,  [TENSOR_BF16] = 30, [TENSOR_Q8_0] = 8,  [TENSOR_Q4_0] = 2,
        [TENSOR_Q4_1] = 3, [TENSOR_Q5_0] = 6, [TENSOR_Q5_1] = 7,  [TENSOR_Q4_K] = 12, [TENSOR_Q5_K] = 13,
        [TENSOR_Q6_K] = 14,
    };
    const uint64_t offset = head->data_size;
    size_t n = 1;
    put_string(head, &head->tensors, name, strlen(name));
    put_u32(head, &head->tensors, (uint32_t)n_dims);
    for (int d = 0; d < n_dims; d++) {
        put_u64(head, &head->tensors, shape[d]);
        n *= shape[d];
    }
    put_u32(head, &head->tensors, ids[type]);
    put_u64(head, &head->tensors, offset);
    head->n_tensors++;
    head->data_size += aligned(tensor_bytes(type, n));
    return offset;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

struct gguf_writer {
    struct new_file file;
    uint64_t data_start, size;
};

/* The head with its zeros up to the data. */
static int write_head(struct gguf_writer *w, const struct gguf_head *head, struct ward_error *err)
{
    struct gguf_head all = {0};
    struct gguf_bytes *out = &all.keys;
    static const uint8_t zeros[ALIGNMENT];
    put(&all, out, "GGUF", 4);
    put_u32(&all, out, VERSION);
    put_u64(&all, out, head->n_tensors);
    put_u64(&all, out, head->n_keys);
    put(&all, out, head->keys.at, head->keys.n);
    put(&all, out, head->tensors.at, head->tensors.n);
    put(&all, out, zeros, aligned(out->n) - out->n);
    int rc = all.failed || head->failed ? error_no_memory(err, w->file.path, head->keys.n) : 0;
    if (!rc) {
        w->data_start = out->n;
        w->size = out->n + head->data_size;
        int error = 0;
        /* A file system that cannot reserve says so, and is written to all the same. */
        if (fallocate(w->file.fd, 0, 0, (off_t)w->size) && errno != EOPNOTSUPP && errno != ENOSYS)
            error = errno;
        if (!error && ftruncate(w->file.fd, (off_t)w->size))
            error = errno;
        if (!error)
            error = new_file_write_at(&w->file, out->at, out->n, 0);
        if (error)
            rc = error_set(err, WARD_EIO, "%s: cannot be written, with its %.2f GB: %s", w->file.path,
                           (double)w->size / 1e9, strerror(error));
    }
    gguf_head_free(&all);
    return rc;
}

int gguf_write_open(struct gguf_writer **out, const char *path, const struct gguf_head *head, struct ward_error *err)
{
    *out = NULL;
    struct gguf_writer *w = calloc(1, sizeof *w);
    if (!w)
        return error_no_memory(err, path, sizeof *w);
    int rc = new_file_open(&w->file, path, err);
    if (!rc)
        rc = write_head(w, head, err);
    if (rc)
        gguf_write_close(&w);
    *out = w;
    return rc;
}

int gguf_write_data(struct gguf_writer *writer, uint64_t offset, const void *data, size_t size)
{
    return new_file_write_at(&writer->file, data, size, writer->data_start + offset);
}

int gguf_write_sync(struct gguf_writer *writer, struct ward_error *err)
{
    return new_file_sync(&writer->file, err);
}

int gguf_write_commit(struct gguf_writer **writer, struct ward_error *err)
{
    const int rc = new_file_commit(&(*writer)->file, err);
    gguf_write_close(writer);
    return rc;
}

void gguf_write_close(struct gguf_writer **writer)
{
    if (!*writer)
        return;
    new_file_discard(&(*writer)->file);
    free(*writer);
    *writer = NULL;
}

uint64_t gguf_writer_size(const struct gguf_writer *writer)
{
    return writer->size;
}
