/* Whole operations of a transformer on the processor: kernels over a pool of threads. How the work is divided never
 * changes the arithmetic, so results do not depend on the number of threads. */
#ifndef WARD_KERNELS_COMPUTE_H
#define WARD_KERNELS_COMPUTE_H

#include "base/error.h"
#include "base/pool.h"
#include "kernels/kernels.h"

struct compute {
    struct kernels k;
    struct pool *pool;
    void **scratch; /* [threads], each of scratch_size bytes: packed weights, tiles; used within one pool_run */
    size_t scratch_size;
    size_t l2_bytes; /* second-level cache of one core: what blocks are cut to */
};

enum { ATTENTION_MAX_HEAD = 4096 }; /* the longest head whose blocks fit the scratch */

WARD_CHECKED int compute_open(struct compute *c, int threads, enum isa highest, struct ward_error *err);
void compute_close(struct compute *c);

/* The linear maps that take an operation's result, for a backend that can prepare it for them (engine/backend.h). */
struct next {
    void *packed; /* theirs: nobody else reads the result; NULL: somebody does */
    bool exact;   /* one of them is exact and has float weights */
};

/* One linear map of a group that shares its input: out [rows][w->rows] = x w^T + bias. What is to become of that is for
 * a backend (engine/backend.h), in this order; compute_linear leaves it to its caller. */
struct linear {
    float *out;
    const struct tensor *w;
    const float *bias; /* [w->rows] or NULL */
    bool exact;        /* products of float32 where the multiply would round float weights' x to bf16 */
    bool gelu;         /* out = gelu(out) */
    float *add;        /* [rows][w->rows] += out; NULL: no */
    struct {
        void *at; /* [w->rows / head_dim][capacity][head_dim]: row r of out goes to slot r of each; NULL: no */
        enum tensor_type type;
        int head_dim, capacity;
    } heads;
    struct next next;
};

/* Bytes that compute_linear needs at `packed` for x [rows][cols], and for fewer rows. */
size_t compute_packed_size(const struct compute *c, int rows, int cols);
/* x [rows][cols] through n maps, all of cols inputs. x is packed once for all maps of one weight type. Up to GEMV_MAX_N
 * rows go by matrix times vector, at the speed of memory; each gives the same, bit for bit, as it does alone. */
void compute_linear(const struct compute *c, const float *x, int rows, const struct linear *maps, int n, void *packed);

/* Attention over cached keys and values. Position p lies in slot p % capacity of every head: k, v
 * [n_kv_heads][capacity][head_dim]. Query row r sees the positions lo[r] <= p < hi[r] (one interval: causal, window and
 * image block together). */
struct attention {
    float *out;     /* [rows][n_heads * head_dim] */
    const float *q; /* [rows][n_heads * head_dim] */
    const void *k, *v;
    enum tensor_type type;                             /* of k and v */
    int rows, n_heads, n_kv_heads, head_dim, capacity; /* head_dim <= ATTENTION_MAX_HEAD */
    const int *lo, *hi; /* [rows]; lo >= 0. A row with lo >= hi sees nothing: its output is 0 */
    float scale;        /* of the scores */
    bool exact;         /* products of float32 even where the multiply would round */
    void *scratch;      /* for a backend that asks for it (engine/backend.h), as for next; compute_attention does not */
    struct next next;
};
/* Blocked with an online softmax, never a whole score matrix; up to GEMV_MAX_N rows each as if it were alone. Query
 * head h uses key head h / (n_heads / n_kv_heads). No allocation. */
void compute_attention(const struct compute *c, const struct attention *a);

/* Row by row, in parallel when that pays. */
void compute_rms_norm(const struct compute *c, float *out, const float *x, const float *weight, int rows, int cols,
                      float eps);
/* residual += rms_norm(x): Gemma's norm after attention and after the MLP. x is overwritten. */
void compute_add_rms_norm(const struct compute *c, float *residual, float *x, const float *weight, int rows, int cols,
                          float eps);
void compute_layer_norm(const struct compute *c, float *out, const float *x, const float *weight, const float *bias,
                        int rows, int cols, float eps);
void compute_gelu(const struct compute *c, float *x, size_t n);
void compute_gelu_multiply(const struct compute *c, float *out, const float *gate, const float *up, size_t n);
void compute_add(const struct compute *c, float *x, const float *y, size_t n);

#endif
