/* The safetensors container: one or many files, mapped, with or without an index. Every header is checked against the
 * true size of its file: lengths, offsets, overlaps, gaps, duplicates, dtype and shape against the bytes. The format is
 * that of github.com/huggingface/safetensors, which refuses the same. */
#ifndef WARD_MODEL_SAFETENSORS_H
#define WARD_MODEL_SAFETENSORS_H

#include "base/mapping.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

struct safetensor {
    const char *name;
    const char *file;    /* the file it lies in, for error messages */
    const char *dtype;   /* as written: "BF16", "F32", ... */
    const uint8_t *data; /* aligned to nothing */
    size_t size;         /* bytes */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    int n_dims;
};

struct safetensors;

/* Opens all weights of a checkpoint folder: model.safetensors.index.json and its shards, else model.safetensors. */
WARD_CHECKED int safetensors_open(struct safetensors **out, const char *folder, struct ward_error *err);

/* An empty collection and the parser that fills it from one file already in memory, which must outlive the collection;
 * `name` is copied, for errors. After a failure the collection can only be closed. safetensors_open is made of these;
 * fuzzing too. */
struct safetensors *safetensors_new(void); /* NULL when memory ran out */
WARD_CHECKED int safetensors_parse(struct safetensors *into, const uint8_t *data, size_t size, const char *name,
                                   struct ward_error *err);
void safetensors_close(struct safetensors **files);

/* By name, or NULL. What _find and _at return is valid until the next safetensors_parse or safetensors_close. */
const struct safetensor *safetensors_find(const struct safetensors *files, const char *name);
size_t safetensors_count(const struct safetensors *files);
const struct safetensor *safetensors_at(const struct safetensors *files, size_t i); /* in the order of the names */
size_t safetensors_mapped_bytes(const struct safetensors *files);

#endif
