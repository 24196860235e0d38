/* The speed of the kernels as CSV, each beside the limit it can be held against: the tile alone on panels in the
 * first-level cache for products, a loop that only reads for matrix times vector. The best of several runs: what
 * disturbs only slows. */
#include "harness.h"

#include "base/clock.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 7 };
static const double LEAST_MS = 2; /* one measurement repeats its work for at least this long */

typedef void work_fn(const struct compute *c, void *arg);

/* Nanoseconds of one call. */
static double time_ns(const struct compute *c, work_fn *work, void *arg)
{
    double best = INFINITY;
    int repeats = 1;
    work(c, arg);
    for (int run = 0; run < RUNS; run++) {
        const double start = clock_ms();
        for (int i = 0; i < repeats; i++)
            work(c, arg);
        const double ms = clock_ms() - start;
        best = fmin(best, ms * 1e6 / repeats);
        if (ms < LEAST_MS && run == 0) {
            repeats = (int)(LEAST_MS / fmax(ms, 1e-4)) + 1;
            run = -1;
        }
    }
    return best;
}

/* One measurement. The reference is the same work in portable C. */
struct line {
    const char *kernel, *size, *unit; /* unit: GFLOP/s, GB/s or G/s (elements) */
    double amount;                    /* of that unit times 1e9, in one call */
    double limit;                     /* per second, 0: not known */
};

static double measure(const struct compute *c, const struct compute *ref, const struct line *l, work_fn *work,
                      void *arg, double *ref_ns)
{
    const double ns = time_ns(c, work, arg);
    if (c->k.isa == ISA_NONE)
        *ref_ns = ns;
    else if (*ref_ns == 0)
        *ref_ns = time_ns(ref, work, arg);
    printf("%s,%s,%s,%.0f,%.2f,%s,", l->kernel, isa_name(c->k.isa), l->size, ns, l->amount / ns, l->unit);
    if (l->limit > 0)
        printf("%.2f", l->amount / ns * 1e9 / l->limit);
    printf(",%.2f\n", *ref_ns / ns);
    fflush(stdout);
    return ns;
}

/* ---- limits ---- */

struct tile_work {
    const struct gemm *g;
    int k, calls;
};

static void tile_task(void *arg, int task, int thread)
{
    const struct tile_work *t = arg;
    _Alignas(KERNELS_ALIGN) static _Thread_local uint8_t x[GEMM_MAX_MR * 128 * 4], w[GEMM_MAX_NR * 128 * 4];
    _Alignas(KERNELS_ALIGN) float c[GEMM_MAX_MR * GEMM_MAX_NR];
    (void)task, (void)thread;
    gemm_begin(t->g);
    for (int i = 0; i < t->calls; i++)
        t->g->tile(c, (size_t)t->g->nr, x, w, t->k, false);
    gemm_end(t->g);
}

static void tile_work(const struct compute *c, void *arg)
{
    pool_run(c->pool, tile_task, arg, pool_threads(c->pool));
}

/* Operations per second of the tile on all threads. */
static double multiply_limit(const struct compute *c, enum tensor_type type)
{
    struct tile_work t = {.g = c->k.gemm[type], .k = 128, .calls = 2000};
    const double operations = 2.0 * t.g->mr * t.g->nr * t.k * t.calls * pool_threads(c->pool);
    return operations / time_ns(c, tile_work, &t) * 1e9;
}

struct read_work {
    const uint64_t *data;
    size_t bytes;
    atomic_uint_fast64_t sum; /* so that reading cannot be left out */
};

enum { READ_CHUNK = 1 << 20 };

static void read_task(void *arg, int task, int thread)
{
    struct read_work *r = arg;
    const uint64_t *at = r->data + (size_t)task * (READ_CHUNK / sizeof *at);
    uint64_t sums[8] = {0};
    (void)thread;
    for (size_t i = 0; i < READ_CHUNK / sizeof *at; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += at[i + j];
    for (int j = 1; j < 8; j++)
        sums[0] += sums[j];
    atomic_fetch_add(&r->sum, sums[0]);
}

static void read_work(const struct compute *c, void *arg)
{
    const struct read_work *r = arg;
    pool_run(c->pool, read_task, arg, (int)(r->bytes / READ_CHUNK));
}

/* Bytes per second that all threads read from memory. */
static double read_limit(const struct compute *c, const void *data, size_t bytes)
{
    struct read_work r = {.data = data, .bytes = bytes};
    return (double)bytes / time_ns(c, read_work, &r) * 1e9;
}

/* ---- linear maps ---- */

enum { WEIGHT_BYTES = 256 << 20 }; /* larger than any cache */

struct linear_work {
    const float *x;
    int rows;
    struct tensor w;
    struct linear map;
    void *packed;
};

static void linear_work(const struct compute *c, void *arg)
{
    const struct linear_work *l = arg;
    compute_linear(c, l->x, l->rows, &l->map, 1, l->packed);
}

static void *need(size_t bytes)
{
    void *p = aligned_alloc(KERNELS_ALIGN, (bytes + KERNELS_ALIGN - 1) / KERNELS_ALIGN * KERNELS_ALIGN);
    if (!p) {
        fprintf(stderr, "no memory for %zu bytes\n", bytes);
        exit(2);
    }
    memset(p, 0, bytes);
    return p;
}

/* `ref_ns`: of portable C, measured for the first instruction set. */
static void bench_linear(const struct compute *c, const struct compute *ref, const uint8_t *weights, double read_rate,
                         enum tensor_type type, int rows, int cols, int outputs, double *ref_ns)
{
    char size[64];
    struct linear_work l = {
        .x = need((size_t)rows * (size_t)cols * 4), .rows = rows, .w = {weights, type, outputs, cols}};
    const size_t packed = compute_packed_size(c, rows, cols), packed_ref = compute_packed_size(ref, rows, cols);
    l.packed = need(packed > packed_ref ? packed : packed_ref);
    l.map = (struct linear){.out = need((size_t)rows * (size_t)outputs * 4), .w = &l.w};
    snprintf(size, sizeof size, "%dx%dx%d %s", rows, cols, outputs, tensor_type_name(type));
    if (rows == 1) {
        const struct line line = {"linear", size, "GB/s", (double)tensor_row_bytes(&l.w) * outputs, read_rate};
        measure(c, ref, &line, linear_work, &l, ref_ns);
    } else {
        const struct line line = {"linear", size, "GFLOP/s", 2.0 * rows * cols * outputs, multiply_limit(c, type)};
        measure(c, ref, &line, linear_work, &l, ref_ns);
    }
    free((void *)(uintptr_t)l.x);
    free(l.packed);
    free(l.map.out);
}

/* ---- attention ---- */

static void attention_work(const struct compute *c, void *arg)
{
    compute_attention(c, arg);
}

static void bench_attention(const struct compute *c, const struct compute *ref, int rows, int positions, int heads,
                            int kv_heads, int d, bool causal, double *ref_ns)
{
    char size[64];
    const size_t n_q = (size_t)rows * (size_t)heads * (size_t)d, n_k = (size_t)kv_heads * (size_t)positions * (size_t)d;
    float *q = need(n_q * 4), *out = need(n_q * 4);
    uint16_t *k = need(n_k * 2), *v = need(n_k * 2);
    int *lo = need((size_t)rows * sizeof *lo), *hi = need((size_t)rows * sizeof *hi);
    double pairs = 0;
    random_fill(q, n_q);
    for (int r = 0; r < rows; r++) {
        hi[r] = causal ? positions - rows + r + 1 : positions;
        pairs += hi[r];
    }
    struct attention a = {.out = out,
                          .q = q,
                          .k = k,
                          .v = v,
                          .type = TENSOR_F16,
                          .rows = rows,
                          .n_heads = heads,
                          .n_kv_heads = kv_heads,
                          .head_dim = d,
                          .capacity = positions,
                          .lo = lo,
                          .hi = hi,
                          .scale = 1 / sqrtf((float)d)};
    snprintf(size, sizeof size, "%d rows %d keys %d/%d heads of %d", rows, positions, heads, kv_heads, d);
    const struct line line = {"attention", size, "GFLOP/s", 4.0 * pairs * heads * d,
                              rows > 1 ? multiply_limit(c, TENSOR_BF16) : 0};
    measure(c, ref, &line, attention_work, &a, ref_ns);
    free(q), free(out), free(k), free(v), free(lo), free(hi);
}

/* ---- single kernels, one thread ---- */

enum { ROW = 4096 };

struct row_work {
    float *x, *y, *out;
    void *bits;
};

static void exp_sum_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    memcpy(r->out, r->x, ROW * sizeof *r->out);
    c->k.exp_sum(r->out, 0, ROW);
}

static void max_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    r->out[0] = c->k.max(r->x, ROW);
}

static void gelu_multiply_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.gelu_multiply(r->out, r->x, r->y, ROW);
}

static void rms_norm_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.rms_norm(r->out, r->x, r->y, ROW, 1e-6f);
}

static void layer_norm_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.layer_norm(r->out, r->x, r->y, r->y, ROW, 1e-6f);
}

static void from_f16_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.to_float[TENSOR_F16](r->out, r->bits, ROW);
}

static void to_f16_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.from_float[TENSOR_F16](r->bits, r->x, ROW);
}

static const struct {
    const char *name;
    work_fn *work;
} row_benches[] = {
    {"exp_sum", exp_sum_work},
    {"max", max_work},
    {"gelu_multiply", gelu_multiply_work},
    {"rms_norm", rms_norm_work},
    {"layer_norm", layer_norm_work},
    {"to_float of f16", from_f16_work},
    {"from_float of f16", to_f16_work},
};
enum { ROW_BENCHES = sizeof row_benches / sizeof *row_benches };

static void bench_rows(const struct compute *c, const struct compute *ref, double ref_ns[ROW_BENCHES])
{
    struct row_work r = {need(ROW * 4), need(ROW * 4), need(ROW * 4), need(ROW * 4)};
    for (int i = 0; i < ROW; i++)
        r.x[i] = -10.0f * fabsf(random_float());
    random_fill(r.y, ROW);
    for (int i = 0; i < ROW_BENCHES; i++) {
        const struct line line = {row_benches[i].name, "4096", "G/s", ROW, 0};
        measure(c, ref, &line, row_benches[i].work, &r, &ref_ns[i]);
    }
    free(r.x), free(r.y), free(r.out), free(r.bits);
}

int bench_kernels(int threads)
{
    static const int linear_shapes[][3] = {
        /* of MedGemma 4B: decode, prefill, vision */
        {1, 2560, 10240},   {1, 10240, 2560},   {1, 2560, 50000},   {300, 2560, 10240},
        {300, 10240, 2560}, {4096, 1152, 4304}, {4096, 4304, 1152},
    };
    enum { LINEAR = sizeof linear_shapes / sizeof *linear_shapes };
    double ref_linear[LINEAR] = {0}, ref_attention[3] = {0}, ref_rows[ROW_BENCHES] = {0};
    const uint8_t *weights = need(WEIGHT_BYTES);
    struct compute ref;
    struct ward_error err;
    random_seed(1);
    if (compute_open(&ref, threads, ISA_NONE, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("kernel,isa,size,ns,rate,unit,share_of_limit,times_ref\n");
    for (int isa = ISA_NONE; isa < ISA_COUNT; isa++) {
        if (!isa_present((enum isa)isa))
            continue;
        struct compute c;
        if (compute_open(&c, threads, (enum isa)isa, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        const double read_rate = read_limit(&c, weights, WEIGHT_BYTES);
        printf("limit,%s,reading memory,,%.2f,GB/s,,\n", isa_name(c.k.isa), read_rate / 1e9);
        printf("limit,%s,tile of f32,,%.2f,GFLOP/s,,\n", isa_name(c.k.isa), multiply_limit(&c, TENSOR_F32) / 1e9);
        printf("limit,%s,tile of bf16,,%.2f,GFLOP/s,,\n", isa_name(c.k.isa), multiply_limit(&c, TENSOR_BF16) / 1e9);
        for (int i = 0; i < LINEAR; i++)
            bench_linear(&c, &ref, weights, read_rate, TENSOR_BF16, linear_shapes[i][0], linear_shapes[i][1],
                         linear_shapes[i][2], &ref_linear[i]);
        bench_attention(&c, &ref, 4096, 4096, 16, 16, 72, false, &ref_attention[0]);
        bench_attention(&c, &ref, 512, 512, 8, 4, 256, true, &ref_attention[1]);
        bench_attention(&c, &ref, 1, 1024, 8, 4, 256, true, &ref_attention[2]);
        bench_rows(&c, &ref, ref_rows);
        compute_close(&c);
    }
    compute_close(&ref);
    free((void *)(uintptr_t)weights);
    return 0;
}
