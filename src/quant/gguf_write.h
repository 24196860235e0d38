/* Writing a GGUF file: keys, then tensors, whose data may come in any order and from any thread. The file appears under
 * its name whole, or not at all. */
#ifndef WARD_QUANT_GGUF_WRITE_H
#define WARD_QUANT_GGUF_WRITE_H

#include "model/gguf.h"
#include "model/tensor.h"

/* Keys and tensors as the head of a file holds them. After a failed allocation `failed` stays set, and gguf_write_open
 * refuses. */
struct gguf_head {
    struct gguf_bytes {
        uint8_t *at;
        size_t n, capacity;
    } keys, tensors;
    uint64_t n_keys, n_tensors;
    uint64_t data_size; /* of the tensors so far, each padded to the alignment */
    bool failed;
};

void gguf_head_free(struct gguf_head *head);

void gguf_put_u32(struct gguf_head *head, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_head *head, const char *key, double value);
void gguf_put_bool(struct gguf_head *head, const char *key, bool value);
void gguf_put_text(struct gguf_head *head, const char *key, const char *text, size_t length);
/* A list of n numbers or truths of 4, 4 and 1 bytes; a list of texts follows as n calls of gguf_put_entry. */
void gguf_put_list(struct gguf_head *head, const char *key, enum gguf_type element, const void *values, size_t n);
void gguf_put_entry(struct gguf_head *head, const char *text, size_t length);
/* A key as another file has it. */
void gguf_put_copy(struct gguf_head *head, const struct gguf_value *value);

/* A tensor of rows * cols values, by its shape, fastest dimension first; cols = shape[0]. Returns where its data lies,
 * counted from the beginning of the data. */
uint64_t gguf_put_tensor(struct gguf_head *head, const char *name, enum tensor_type type, const uint64_t *shape,
                         int n_dims);

struct gguf_writer;

/* Makes a temporary file beside `path`, of the size that it will have: a full disk shows here. */
WARD_CHECKED int gguf_write_open(struct gguf_writer **out, const char *path, const struct gguf_head *head,
                                 struct ward_error *err);
/* Data at `offset` of the data; from any thread. 0, or an errno. */
int gguf_write_data(struct gguf_writer *writer, uint64_t offset, const void *data, size_t size);
/* Hands all to the disk. */
WARD_CHECKED int gguf_write_sync(struct gguf_writer *writer, struct ward_error *err);
/* Gives the file its name, replacing what has it, and closes. */
WARD_CHECKED int gguf_write_commit(struct gguf_writer **writer, struct ward_error *err);
/* Removes what was not committed. */
void gguf_write_close(struct gguf_writer **writer);

uint64_t gguf_writer_size(const struct gguf_writer *writer); /* bytes of the whole file */

#endif
