/* Where the operations of the model are computed. An operation is whole (the attention of a layer, a linear map of a
 * batch of rows, a norm) and works on buffers of the backend's own memory; the engine only moves tokens, images and
 * logits in and out. The order of calls is the order of the results. */
#ifndef WARD_ENGINE_BACKEND_H
#define WARD_ENGINE_BACKEND_H

#include "kernels/compute.h"

struct backend {
    const struct backend_ops *ops;
    const char *device;          /* "cpu" */
    const char *kernels;         /* the instruction set in use */
    int threads;
    enum tensor_type cache_type; /* of keys and values in the cache */
};

/* Keys and values of one layer: [n_heads][capacity][head_dim] of `type`; position p lies in slot p % capacity. */
struct kv_layer {
    void *k, *v;
    enum tensor_type type;
    int n_heads, head_dim, capacity;
};

struct backend_ops {
    void (*close)(struct backend *be);

    /* Memory, zeroed. Pages that are never touched cost nothing. */
    int (*alloc)(struct backend *be, void **out, size_t bytes, const char *what, struct ward_error *err);
    void (*release)(struct backend *be, void *buffer);
    void (*write)(struct backend *be, void *to, const void *from, size_t bytes);
    void (*read)(struct backend *be, void *to, const void *from, size_t bytes);

    /* out [rows][cols] = rows `ids` of the table, times scale */
    void (*embed)(struct backend *be, float *out, const struct tensor *table, const int32_t *ids, int rows,
                  float scale);
    /* as compute_linear; packed_size tells how many bytes `packed` needs */
    size_t (*packed_size)(struct backend *be, int rows, int cols);
    void (*linear)(struct backend *be, const float *x, int rows, const struct linear *maps, int n, void *packed);
    void (*rms_norm)(struct backend *be, float *out, const float *x, const float *weight, int rows, int cols,
                     float eps);
    /* residual += rms_norm(x); x is overwritten */
    void (*add_rms_norm)(struct backend *be, float *residual, float *x, const float *weight, int rows, int cols,
                         float eps);
    void (*layer_norm)(struct backend *be, float *out, const float *x, const float *weight, const float *bias, int rows,
                       int cols, float eps);
    void (*gelu)(struct backend *be, float *x, size_t n);
    /* out = gelu(gate) * up */
    void (*gelu_multiply)(struct backend *be, float *out, const float *gate, const float *up, size_t n);
    /* x += y */
    void (*add)(struct backend *be, float *x, const float *y, size_t n);
    /* x [rows][cols] += table [rows][cols] */
    void (*add_table)(struct backend *be, float *x, const struct tensor *table);
    /* x [rows][heads][head_dim]: an RMS norm over each head, then the rotation of its row: cosine, sine [rows][head_dim
     * / 2] */
    void (*norm_rotate)(struct backend *be, float *x, int rows, int heads, int head_dim, const float *weight, float eps,
                        const float *cosine, const float *sine);
    /* Keys and values [rows][n_heads * head_dim] of positions first, first + 1, ... into the cache. */
    void (*store)(struct backend *be, const struct kv_layer *to, const float *k, const float *v, int first, int rows);
    void (*attention)(struct backend *be, const struct attention *a);
    /* out [side/block][side/block][cols] = means over block x block squares of x [side][side][cols] */
    void (*pool)(struct backend *be, float *out, const float *x, int side, int block, int cols);
};

WARD_CHECKED int backend_cpu_open(struct backend **out, int threads, enum isa highest, struct ward_error *err);
void backend_close(struct backend **be);

#endif
