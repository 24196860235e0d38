/* The safetensors container: one or many files, mapped, with or without an index. Every header is checked against the true
 * size of its file: lengths, offsets, overlaps, gaps, duplicates, dtype and shape against the bytes. */
#ifndef WARD_MODEL_SAFETENSORS_H
#define WARD_MODEL_SAFETENSORS_H

#include "base/mapping.h"

enum { SAFETENSORS_MAX_DIMS = 8 };

struct safetensor {
    const char *name;
    const char *dtype;  /* as written: "BF16", "F32", ... */
    const uint8_t *data;
    size_t size;        /* bytes */
    int64_t shape[SAFETENSORS_MAX_DIMS];
    int n_dims;
};

struct safetensors;

/* Opens all weights of a checkpoint folder: model.safetensors.index.json and its shards, else model.safetensors. */
WARD_CHECKED int safetensors_open(struct safetensors **out, const char *folder, struct ward_error *err);
/* Parses one file already in memory; `name` is named in errors. For tests and fuzzing, and used by safetensors_open. */
WARD_CHECKED int safetensors_parse(struct safetensors *into, const uint8_t *data, size_t size, const char *name, struct ward_error *err);
void safetensors_close(struct safetensors **files);
const struct safetensor *safetensors_find(const struct safetensors *files, const char *name);
size_t safetensors_count(const struct safetensors *files);
const struct safetensor *safetensors_at(const struct safetensors *files, size_t i);
size_t safetensors_mapped_bytes(const struct safetensors *files);

#endif
