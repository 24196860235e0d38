/* The weights of a checkpoint under the names of the model, each checked against the config. They stay where they lie
 * in the mapped files, but for norms and biases, which are widened to float32, and the image projector, which is
 * transposed (9 MB in all for the 4B). */
#ifndef WARD_MODEL_WEIGHTS_H
#define WARD_MODEL_WEIGHTS_H

#include "model/config.h"
#include "model/tensor.h"

/* D hidden, I intermediate, H heads, K key-value heads, C head_dim, V vocabulary. Norm weights hold 1 + w: Gemma's
 * RMSNorm multiplies by it. */
struct text_layer {
    const float *input_norm, *post_attention_norm, *pre_feedforward_norm, *post_feedforward_norm; /* [D] */
    const float *q_norm, *k_norm;                                                                 /* [C] */
    struct tensor q, k, v;        /* [H*C][D], [K*C][D], [K*C][D] */
    struct tensor o;              /* [D][H*C] */
    struct tensor gate, up, down; /* [I][D], [I][D], [D][I] */
};

struct text_weights {
    struct tensor embed; /* [V][D] */
    struct tensor head;  /* [V][D], the embedding when tied */
    const float *norm;   /* [D] */
    struct text_layer *layers;
};

/* E vision hidden, F vision intermediate, P*P pixels a patch, N patches. */
struct vision_layer {
    const float *norm1, *norm1_bias, *norm2, *norm2_bias; /* [E] */
    struct tensor q, k, v, out;                           /* [E][E] */
    const float *q_bias, *k_bias, *v_bias, *out_bias;     /* [E] */
    struct tensor fc1, fc2;                               /* [F][E], [E][F] */
    const float *fc1_bias, *fc2_bias;                     /* [F], [E] */
};

struct vision_weights {
    struct tensor patch;                     /* [E][3*P*P], inputs ordered channel, row, column */
    const float *patch_bias;                 /* [E] */
    struct tensor position;                  /* [N][E] */
    const float *post_norm, *post_norm_bias; /* [E] */
    struct vision_layer *layers;
    const float *projector_norm; /* [E], 1 + w */
    struct tensor projector;     /* [D][E]: the file's [E][D] transposed into memory once */
};

struct weights {
    struct text_weights text;
    struct vision_weights vision; /* layers NULL: a text-only checkpoint */
    enum tensor_type type;        /* in which most bytes of the decoder's matrices are stored */
    size_t mapped_bytes;
};

/* Opens the weights in `folder` for `config`, under any of the names that Google and transformers have given them. A
 * tensor that is missing, has another shape or a dtype other than BF16, F16 and F32 is refused, as is one that the
 * model does not know. The text's head is lm_head where there is one, also where the config ties it, as in
 * transformers 5. */
WARD_CHECKED int weights_open(struct weights **out, const char *folder, const struct model_config *config,
                              struct ward_error *err);
struct gguf;
/* The same from GGUF files, which must stay open as long; vision: as for config_from_gguf. Matrices may be of any type
 * in tensor.h, vectors and patches of floats. */
WARD_CHECKED int weights_from_gguf(struct weights **out, const struct gguf *text, const struct gguf *vision,
                                   const struct model_config *config, struct ward_error *err);
void weights_close(struct weights **weights);

/* Calls for every matrix and every vector of `n` floats that is there, in the order of their use but for the embedding:
 * the encoder, the decoder, its head, its embedding (the same data again where it is tied). */
struct weights_visitor {
    void (*matrix)(void *user, struct tensor *t);
    void (*vector)(void *user, const float **v, int n); /* NULL: matrices only */
    void *user;
};
void weights_visit(struct weights *weights, const struct model_config *config, const struct weights_visitor *visitor);

#endif
