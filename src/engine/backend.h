/* Where the operations of the model are computed. An operation is whole (the attention of a layer, a linear map of a
 * batch of rows, a norm) and works on buffers of the backend's own memory; the engine only moves tokens, images and
 * logits in and out. The order of calls is the order of the results. */
#ifndef WARD_ENGINE_BACKEND_H
#define WARD_ENGINE_BACKEND_H

#include "engine/sample.h"
#include "kernels/compute.h"

struct backend {
    const struct backend_ops *ops;
    const char *device;      /* "cpu", "cuda" */
    const char *device_name; /* "NVIDIA GeForce RTX 3090"; NULL: the processor */
    const char *kernels;     /* the instruction set in use */
    int threads;
    struct pool *pool;             /* of that many threads, for what the host does */
    int card;                      /* the number of an NVIDIA card; -1: none */
    enum tensor_type cache_type;   /* of keys and values in the decoder's cache */
    enum tensor_type encoder_type; /* of the encoder's keys and values */
    bool keeps_work; /* its memory is scarce and taken before work begins: encoder and decoder share buffers */
};

/* Keys and values of one layer: [n_heads][capacity][head_dim] of `type`; position p lies in slot p % capacity. */
struct kv_layer {
    void *k, *v;
    enum tensor_type type;
    int n_heads, head_dim, capacity;
};

/* The token of a row of logits, the likeliest (the first of equals) or a drawn one, and what its probability needs:
 * log-probability = logit - log_sum. */
struct choice {
    int32_t id; /* -1: the host has to draw it */
    float logit;
    double log_sum; /* of the exponentials of all logits, its logarithm */
};

/* Heads of `rows` rows before attention. Keys and values [rows][to->n_heads * to->head_dim] of the positions go into
 * the cache. With norms: queries [rows][n_heads * head_dim] and keys get an RMS norm over each head and the rotation of
 * their row first, the queries in place; keys are overwritten. */
struct heads {
    float *q, *k;
    const float *v;
    int rows, n_heads; /* n_heads: of the queries */
    const struct kv_layer *to;
    const int *positions;         /* [rows] */
    const float *q_norm, *k_norm; /* [head_dim], or NULL: neither norm nor rotation */
    float eps;
    const float *cosine, *sine; /* [rows][head_dim / 2] */
};

/* What linear maps need beside their results. */
struct scratch {
    void *packed; /* packed_size: x as the products take it */
    void *sums;   /* sums_size: parts of products on their way; NULL: slower, where rows are neither few nor many */
};

/* Pointers are into the backend's memory, but for `from` of write and `to` of read. */
struct backend_ops {
    void (*close)(struct backend *be);

    /* Bytes of a device's memory, now and at most so far. */
    void (*used)(struct backend *be, size_t *now, size_t *peak);

    /* Memory, zeroed. On the processor pages that are never touched cost nothing. */
    int (*alloc)(struct backend *be, void **out, size_t bytes, const char *what, struct ward_error *err);
    void (*release)(struct backend *be, void *buffer);
    void (*write)(struct backend *be, void *to, const void *from, size_t bytes);
    void (*read)(struct backend *be, void *to, const void *from, size_t bytes);
    void (*copy)(struct backend *be, void *to, const void *from, size_t bytes);
    /* Waits for all that was asked for. An operation that failed (a device that was lost) is told here, at the latest;
     * what was read since is then void. */
    int (*finish)(struct backend *be, struct ward_error *err);

    /* The device computes wrongly: from now on by kernels that ask less of it. False: there are none; NULL: there never
     * are. */
    bool (*fall_back)(struct backend *be);

    /* Weights in memory of the backend's own; NULL: they are used where they lie in the files. placed_bytes: what
     * `place` takes of the memory at `at`, which is aligned for it. from->data is host memory. */
    size_t (*placed_bytes)(struct backend *be, const struct tensor *from);
    void (*place)(struct backend *be, void *at, const struct tensor *from);

    /* A sequence of operations with the same arguments, over and over on other contents. begin tells whether it was
     * played from `*recording` (NULL at first), so that none of it is to be asked for; else what is asked for until
     * `end` may be recorded there. */
    bool (*begin)(struct backend *be, void **recording);
    void (*end)(struct backend *be, void **recording);
    void (*forget)(struct backend *be, void **recording);

    /* out [rows][cols] = rows `ids` of the table, times scale */
    void (*embed)(struct backend *be, float *out, const struct tensor *table, const int32_t *ids, int rows,
                  float scale);
    /* as compute_linear, then what the maps say besides; packed_size and sums_size tell how many bytes of scratch up to
     * `rows` rows need, exact: for maps that are exact as well */
    size_t (*packed_size)(struct backend *be, int rows, int cols, bool exact);
    size_t (*sums_size)(struct backend *be, int rows);
    void (*linear)(struct backend *be, const float *x, int rows, const struct linear *maps, int n,
                   struct scratch scratch);
    /* A result that only the maps of `next` take is where they find it, perhaps in next.packed alone: between that
     * operation and theirs nothing else uses next.packed, and they are given the result's `out` as x. Of more than
     * GEMV_MAX_N rows `out` may be void, as is `out` of a map with add or heads: hand_size tells how many bytes it
     * needs. (Only attention with next.exact always needs all of it.) */
    size_t (*hand_size)(struct backend *be, int rows, int cols);
    void (*rms_norm)(struct backend *be, float *out, const float *x, const float *weight, int rows, int cols, float eps,
                     struct next next);
    /* residual += rms_norm(x); then x = rms_norm(residual) with next_weight, unless that is NULL: x is void then */
    void (*add_rms_norm)(struct backend *be, float *residual, float *x, const float *weight, const float *next_weight,
                         int rows, int cols, float eps, struct next next);
    void (*layer_norm)(struct backend *be, float *out, const float *x, const float *weight, const float *bias, int rows,
                       int cols, float eps, struct next next);
    /* gate_up[0].out = gelu(x gate^T) * (x up^T), for gate_up[0].next. The maps are as for linear, of the same number
     * of outputs, and ask for nothing besides; gate_up[1].out is void then. */
    void (*gated)(struct backend *be, const float *x, int rows, const struct linear gate_up[2], struct scratch scratch);
    /* x [rows][cols] += table [rows][cols] */
    void (*add_table)(struct backend *be, float *x, const struct tensor *table);
    void (*store)(struct backend *be, const struct heads *h);
    /* attention_size tells how many bytes a->scratch needs for up to `rows` rows */
    size_t (*attention_size)(struct backend *be, int rows, int n_heads, int head_dim);
    void (*attention)(struct backend *be, const struct attention *a);
    /* out [side/block][side/block][cols] = means over block x block squares of x [side][side][cols] */
    void (*pool)(struct backend *be, float *out, const float *x, int side, int block, int cols);
    /* out [rows] of logits [rows][n], which are softcapped first unless softcap is 0: cap * tanh(x / cap). Drawn by
     * draws [rows], of a temperature above 0, as sample_token draws; draws NULL: the likeliest. choose NULL: the host
     * chooses as fast. */
    void (*choose)(struct backend *be, struct choice *out, const float *logits, const struct draw *draws, int rows,
                   int n, float softcap);
};

WARD_CHECKED int backend_cpu_open(struct backend **out, int threads, enum isa highest, struct ward_error *err);
/* A card by its number, -1: the first that can be used. The card stays open for the process (cuda/card.h). */
WARD_CHECKED int backend_cuda_open(struct backend **out, int card, int threads, struct ward_error *err);
/* Brings NVIDIA's driver into the process; false: there is none, and nobody expects a card. */
bool backend_cuda_load(void);
void backend_close(struct backend **be);

#endif
