/* A checkpoint of floats into GGUF files of another type: a text file, and for the image encoder an mmproj file beside
 * it, as llama.cpp has them. Weights stream through: the memory taken does not depend on the model's size. */
#ifndef WARD_QUANT_QUANTIZE_H
#define WARD_QUANT_QUANTIZE_H

#include "model/checkpoint.h"

/* What a file is made of mostly. Which tensors are kept finer is decided by the rule in quantize.c. */
enum quant_type { QUANT_Q4_K_M, QUANT_Q4_0, QUANT_Q8_0, QUANT_BF16, QUANT_F16, QUANT_F32, QUANT_TYPES };
extern const char *const quant_type_names[QUANT_TYPES]; /* as llama.cpp's tools print them: "Q4_K_M", ... */

struct quantize_options {
    enum quant_type type;
    const char *text_path;   /* where the text model goes */
    const char *vision_path; /* where the image encoder goes; NULL: not wanted */
    const char *notice_path; /* where the terms' notice goes, if the terms ask for one */
    const char *name;        /* general.name; NULL: the source's own, if it is in GGUF */
    bool requantize;         /* take weights that are quantized already */
    int threads;             /* 0: the processors this process may use */
    /* Called now and then with bytes read so far and in all; nonzero: stop, and leave nothing behind. */
    int (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct quantize_result {
    uint64_t source_bytes, text_bytes, vision_bytes; /* of tensors read, of files written */
    bool notice;                                     /* one was written */
    struct quantize_count {                          /* weights of matrices, by the type they were written in */
        uint64_t weights, bytes;
    } by_type[TENSOR_TYPES];
};

/* Files appear when all is done, and not at all after an error. WARD_ECANCELLED when progress asked to stop. */
WARD_CHECKED int quantize_checkpoint(const struct checkpoint *source, const struct quantize_options *options,
                                     struct quantize_result *result, struct ward_error *err);

#endif
