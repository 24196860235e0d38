/* What a checkpoint and the program take on the disk, and what a session should take in memory by arithmetic. */
#ifndef WARD_BENCH_FOOTPRINT_H
#define WARD_BENCH_FOOTPRINT_H

#include "engine/model.h"

struct footprint_file {
    char *path;
    uint64_t bytes;
};

struct footprint {
    struct footprint_file *files; /* [n_files] of the checkpoint: weights, tokenizer, configuration */
    size_t n_files;
    uint64_t by_type[TENSOR_TYPES + 1]; /* bytes of the tensors; the last: of types that ward does not compute with */
    uint64_t weights;          /* bytes of the files that hold them */
    uint64_t vision;           /* bytes of tensors of the image encoder and its projector, among them */
    uint64_t tokenizer_config; /* of what a folder needs beside its weights: of tokenizer.model and tokenizer.json the
                                  smaller one; of a GGUF file all that is not tensors */
    uint64_t container; /* the image that `make container` has put beside this program; 0: there is none */
    uint64_t program, libraries; /* this program's file, and those of the shared libraries it is linked with */
};

/* Cleared with footprint_clear, also after an error. */
WARD_CHECKED int footprint_read(struct footprint *out, const struct checkpoint *checkpoint, struct ward_error *err);
void footprint_clear(struct footprint *footprint);

/* What the engine allocates for a session of `context` positions, and of it what a conversation of `positions` touches.
 * Bytes. */
struct buffer_sizes {
    uint64_t kv, kv_touched; /* keys and values */
    uint64_t decoder;        /* its work buffers and logits */
    uint64_t encoder;        /* while an image is encoded, its pixels included; 0: the model has none */
};
struct buffer_sizes buffer_sizes(const struct ward_model *model, int context, int positions);

/* The arithmetic of a model, by the weights that are open. Operations: two for a product and its addition. */
struct model_work {
    double image;         /* of the encoder, attention included; 0: there is none */
    double prompt;        /* of the decoder over `prompt_tokens`, attention and one row of the head included */
    uint64_t token_bytes; /* of weights that are read for each token that is generated */
    enum tensor_type vision_type, text_type; /* of most of their weights */
};
struct model_work model_work(const struct ward_model *model, int prompt_tokens);

#endif
