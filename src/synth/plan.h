/* The tensors of a checkpoint, and the files that they lie in: names, shapes, order and files as Google published
 * them. */
#ifndef WARD_SYNTH_PLAN_H
#define WARD_SYNTH_PLAN_H

#include "model/config.h"

enum synth_kind {
    SYNTH_MATRIX,   /* deviation 0.02, as the models were initialised before training; biases and Gemma's norms too,
                       which multiply by 1 + w */
    SYNTH_RESIDUAL, /* 0.01: what adds to the residual stream */
    SYNTH_UNIT,     /* around 1: SigLIP's norms */
    SYNTH_KINDS
};

struct synth_tensor {
    char name[96];
    uint64_t shape[4];
    int n_dims;
    enum synth_kind kind;
    uint64_t bytes, offset; /* offset: within the data of its file */
    int file;
};

struct synth_plan {
    struct synth_tensor *tensors; /* file by file, in the order of their data */
    size_t n;
    struct synth_file {
        char name[64];
        char *header; /* the JSON that a safetensors file begins with, padded to 8 bytes */
        size_t header_size;
        size_t first, n; /* of its tensors */
        uint64_t bytes;  /* of its data */
    } *files;
    int n_files;
    uint64_t weights, bytes; /* of all tensors */
};

WARD_CHECKED int synth_plan(struct synth_plan *out, const struct model_config *config, struct ward_error *err);
void synth_plan_free(struct synth_plan *plan);
/* Bytes of a whole file: length, header, data. */
uint64_t synth_file_size(const struct synth_file *file);
/* The text of model.safetensors.index.json; NULL when memory ran out. free() it. */
char *synth_index(const struct synth_plan *plan);

#endif
