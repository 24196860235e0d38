/* The Gemma 3 text decoder. Reference: transformers' modeling_gemma3, Gemma3TextModel. */
#ifndef WARD_ENGINE_TEXT_H
#define WARD_ENGINE_TEXT_H

#include "engine/kv.h"
#include "engine/observe.h"
#include "model/weights.h"

/* Work buffers for at most `rows` positions at a time, in the backend's memory. D hidden, I intermediate, H heads, K
 * key-value heads, C head_dim, V vocabulary. */
struct text_buffers {
    int rows;
    void *memory;               /* all of them, in the backend's memory */
    float *hidden;              /* [rows][D] the residual stream */
    float *norm;                /* [rows][D] */
    float *logits;              /* [at most GEMV_MAX_N][V] */
    struct choice *choices;     /* [GEMV_MAX_N] of them, where the backend chooses */
    void *inputs, *host_inputs; /* of the rows: draws, ids, positions, what they see, their angles (text.c) */
    void *packed, *sums;        /* for linear */
    void *attention;            /* for attention */
    /* In turn, the attention's and the MLP's: */
    float *q, *attended; /* [rows][H*C] */
    float *k, *v;        /* [rows][K*C] */
    float *gate, *up;    /* [rows][I], gate being handed over (hand_size of engine/backend.h) */
    void *wide_packed;
    float *inverse_frequency; /* [2][C/2], in host memory */
};

struct text_decoder {
    struct backend *be;
    const struct text_config *config;
    const struct text_weights *weights;
    struct text_buffers b;
    bool drawn;                    /* the backend draws tokens: by these, which the next step hands over */
    struct draw draws[GEMV_MAX_N]; /* of its rows; of text_logits' rows, after text_forward */
    void *steps[2][GEMV_MAX_N];    /* the backend's recordings of text_step: not drawn, drawn; for each number of rows */
    float embed_scale;
};

/* least: bytes of b.memory at least, which others may use between calls of text_forward; its own are text_work_bytes.
 */
size_t text_work_bytes(struct backend *be, const struct text_config *config, const struct text_weights *weights,
                       int rows);
WARD_CHECKED int text_open(struct text_decoder *t, struct backend *be, const struct text_config *config,
                           const struct text_weights *weights, int rows, size_t least, struct ward_error *err);
void text_close(struct text_decoder *t);

/* A run of positions with the features of one image in place of embeddings. */
struct text_image {
    int first, rows;       /* positions; the whole run lies within one call */
    const float *features; /* [rows][D] in the backend's memory */
};

/* Computes positions first .. first + rows - 1 (rows <= b.rows), extending the cache, and leaves the hidden rows in
 * b.hidden. Up to GEMV_MAX_N rows each give the same, bit for bit, as in a call of their own. */
void text_forward(struct text_decoder *t, struct kv_cache *kv, const int32_t *ids, int first, int rows,
                  const struct text_image *images, int n_images, const struct observer *observer);
/* The logits of `rows` rows (<= GEMV_MAX_N) of the last text_forward from row `row` on, which is that of `position`, in
 * b.logits (and b.choices). As in text_forward, up to GEMV_MAX_N rows each give the same, bit for bit, as alone. */
void text_logits(struct text_decoder *t, int row, int rows, int position, const struct observer *observer);
/* text_forward and text_logits of all its rows (<= GEMV_MAX_N), without images: a step of generating, which the backend
 * may record. A decoder is always stepped with the same cache. */
void text_step(struct text_decoder *t, struct kv_cache *kv, const int32_t *ids, int first, int rows,
               const struct observer *observer);

#endif
