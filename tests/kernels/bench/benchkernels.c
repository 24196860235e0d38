/* The speed of the kernels of every instruction set that this machine has, as CSV.
 *
 *   benchkernels [--threads N] [--only TEXT] [--isa NAME]
 *
 * rate      what a second does: GFLOP (two for a product and its addition), GB of weights read, G of elements
 * peak      the same of the best that the set could do: its multiply on registers alone; a loop that only reads
 * share     rate / peak
 * times_ref how many times as fast as portable C
 * onednn_ns oneDNN's time for the same matrix product in the nearest type it has
 *
 * Everything is the best of several runs, since what disturbs only slows; with one thread in its processor time. */
#include "bench.h"
#include "harness.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 7 };
static const double LEAST_MS = 2, MOST_MS = 3000; /* of one run, which repeats its work; of all runs, about */

/* With one thread, what this one has had of the processor: other programs then count less. */
static double now_ms(const struct compute *c)
{
    struct timespec t;
    if (pool_threads(c->pool) > 1)
        return clock_ms();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

double time_ns(const struct compute *c, work_fn *work, void *arg)
{
    double best = INFINITY, spent = 0;
    int repeats = 1;
    work(c, arg);
    for (int run = 0; run < RUNS && spent < MOST_MS; run++) {
        const double start = now_ms(c);
        for (int i = 0; i < repeats; i++)
            work(c, arg);
        const double ms = now_ms(c) - start;
        spent += ms;
        if (ms < LEAST_MS && repeats == 1) {
            repeats = (int)(LEAST_MS / fmax(ms, 1e-4)) + 1;
            run = -1;
        } else {
            best = fmin(best, ms * 1e6 / repeats);
        }
    }
    return best;
}

/* ---- one measurement ---- */

struct bench {
    struct compute c, ref;
    const char *only;
    const void *weights; /* larger than any cache */
    double read_peak;
};

struct line {
    const char *kernel, *unit; /* unit: GFLOP/s, GB/s or G/s (elements) */
    char size[64];
    double amount;    /* of that unit times 1e9, in one call */
    double peak;      /* per second, 0: not known */
    double onednn_ns; /* 0: not known */
};

/* Times of portable C and of oneDNN, measured once for each kernel and size. */
static struct known {
    char what[128];
    double ref_ns, onednn_ns;
} known[256];
static int n_known;

static struct known *known_of(const struct line *l)
{
    char what[sizeof known->what];
    snprintf(what, sizeof what, "%s %s", l->kernel, l->size);
    for (int i = 0; i < n_known; i++)
        if (strcmp(known[i].what, what) == 0)
            return &known[i];
    if (n_known == sizeof known / sizeof *known) {
        fprintf(stderr, "more measurements than there is room for\n");
        exit(2);
    }
    memcpy(known[n_known].what, what, sizeof what);
    return &known[n_known++];
}

static bool wanted(const struct bench *b, const char *kernel)
{
    return !b->only || strstr(kernel, b->only);
}

static void measure(const struct bench *b, const struct line *l, work_fn *work, void *arg)
{
    struct known *before = known_of(l);
    const double ns = time_ns(&b->c, work, arg);
    if (before->ref_ns == 0)
        before->ref_ns = b->c.k.isa == ISA_NONE ? ns : time_ns(&b->ref, work, arg);
    printf("%s,%s,%s,%.0f,%.2f,%s,", l->kernel, isa_name(b->c.k.isa), l->size, ns, l->amount / ns, l->unit);
    if (l->peak > 0)
        printf("%.2f,%.3f", l->peak / 1e9, l->amount / ns * 1e9 / l->peak);
    else
        printf(",");
    printf(",%.2f,", before->ref_ns / ns);
    if (l->onednn_ns > 0)
        printf("%.0f", l->onednn_ns);
    printf("\n");
    fflush(stdout);
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

/* ---- the parts of a product: one thread, panels in the first-level cache ---- */

enum { PART_K = 256, PART_CALLS = 64 };

struct part {
    enum tensor_type type;
    const void *w;
    const float *x;
    void *x_panel, *w_panel, *rounded;
    float *c;
};

static void tile_work(const struct compute *c, void *arg)
{
    const struct part *p = arg;
    const struct gemm *g = c->k.gemm[p->type];
    gemm_begin(g);
    for (int i = 0; i < PART_CALLS; i++)
        g->tile(p->c, (size_t)g->nr, p->x_panel, p->w_panel, PART_K, false);
    gemm_end(g);
}

/* As many rows for every set, whatever its panels have. */
static void pack_w_work(const struct compute *c, void *arg)
{
    const struct part *p = arg;
    const struct gemm *g = c->k.gemm[p->type];
    const size_t row_bytes = tensor_bytes(p->type, PART_K);
    for (int row = 0; row < 4 * GEMM_MAX_NR; row += g->nr)
        g->pack_w[p->type](p->w_panel, (const uint8_t *)p->w + (size_t)row * row_bytes, row_bytes, g->nr, PART_K);
}

static void pack_x_work(const struct compute *c, void *arg)
{
    const struct part *p = arg;
    const struct gemm *g = c->k.gemm[p->type];
    for (int row = 0; row < 4 * GEMM_MAX_MR; row += g->mr) {
        const int rows = 4 * GEMM_MAX_MR - row < g->mr ? 4 * GEMM_MAX_MR - row : g->mr;
        g->pack_x(p->x_panel, p->x + (size_t)row * PART_K, PART_K, rows, PART_K);
    }
}

static void quantize_x_work(const struct compute *c, void *arg)
{
    const struct part *p = arg;
    if (c->k.quantize_x[p->type])
        c->k.quantize_x[p->type](p->rounded, p->x, 4 * GEMM_MAX_MR * PART_K);
}

static void bench_parts(const struct bench *b, enum tensor_type type)
{
    const struct gemm *g = b->c.k.gemm[type];
    const size_t panel = (size_t)GEMM_MAX_MR * PART_K * 2 * sizeof(float);
    const char *name = tensor_type_name(type);
    float *x = need(4 * GEMM_MAX_MR * PART_K * sizeof *x);
    struct part p = {.type = type,
                     .w = b->weights,
                     .x = x,
                     .x_panel = need(panel),
                     .w_panel = need(panel),
                     .rounded = need(x8_bytes(4 * GEMM_MAX_MR * PART_K)),
                     .c = need(GEMM_MAX_MR * GEMM_MAX_NR * sizeof(float))};
    struct line line = {.kernel = "tile", .unit = "GFLOP/s"};
    random_fill(x, 4 * GEMM_MAX_MR * PART_K);
    snprintf(line.size, sizeof line.size, "%dx%dx%d %s", g->mr, PART_K, g->nr, name);
    if (wanted(b, line.kernel)) {
        line.amount = 2.0 * g->mr * g->nr * PART_K * PART_CALLS;
        line.peak = multiply_peak(&b->c, g) / pool_threads(b->c.pool);
        measure(b, &line, tile_work, &p);
    }
    line = (struct line){.unit = "G/s", .amount = 4 * GEMM_MAX_MR * PART_K};
    const struct {
        const char *kernel;
        work_fn *work;
    } others[] = {{"pack_w", pack_w_work}, {"pack_x", pack_x_work}, {"quantize_x", quantize_x_work}};
    for (int i = 0; i < 3; i++) {
        line.kernel = others[i].kernel;
        snprintf(line.size, sizeof line.size, "%dx%d %s", 4 * GEMM_MAX_MR, PART_K, name);
        if (wanted(b, line.kernel) && (others[i].work != quantize_x_work || b->c.k.quantize_x[type]))
            measure(b, &line, others[i].work, &p);
    }
    free(x), free(p.x_panel), free(p.w_panel), free(p.rounded), free(p.c);
}

/* ---- linear maps ---- */

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

static void bench_linear(const struct bench *b, enum tensor_type type, int rows, int cols, int outputs)
{
    const bool vector = rows <= GEMV_MAX_N;
    const size_t packed = compute_packed_size(&b->c, rows, cols), packed_ref = compute_packed_size(&b->ref, rows, cols);
    struct line line = {.kernel = vector ? "gemv" : "linear", .unit = vector ? "GB/s" : "GFLOP/s"};
    struct linear_work l = {
        .x = need((size_t)rows * (size_t)cols * 4), .rows = rows, .w = {b->weights, type, outputs, cols}};
    if (!wanted(b, line.kernel)) {
        free((void *)(uintptr_t)l.x);
        return;
    }
    l.packed = need(packed > packed_ref ? packed : packed_ref);
    l.map = (struct linear){.out = need((size_t)rows * (size_t)outputs * 4), .w = &l.w};
    snprintf(line.size, sizeof line.size, "%dx%dx%d %s", rows, cols, outputs, tensor_type_name(type));
    if (vector) {
        line.amount = (double)tensor_row_bytes(&l.w) * outputs;
        line.peak = b->read_peak;
    } else {
        struct known *before = known_of(&line);
        if (before->onednn_ns == 0)
            before->onednn_ns = onednn_ns(&b->c, type, rows, cols, outputs);
        line.onednn_ns = before->onednn_ns;
        line.amount = 2.0 * rows * cols * outputs;
        line.peak = multiply_peak(&b->c, b->c.k.gemm[type]);
    }
    measure(b, &line, linear_work, &l);
    free((void *)(uintptr_t)l.x);
    free(l.packed);
    free(l.map.out);
}

/* ---- attention ---- */

static void attention_work(const struct compute *c, void *arg)
{
    compute_attention(c, arg);
}

static void bench_attention(const struct bench *b, int rows, int positions, int heads, int kv_heads, int d, bool causal,
                            bool exact)
{
    struct line line = {.kernel = "attention", .unit = "GFLOP/s"};
    const size_t n_q = (size_t)rows * (size_t)heads * (size_t)d, n_k = (size_t)kv_heads * (size_t)positions * (size_t)d;
    if (!wanted(b, line.kernel))
        return;
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
                          .scale = 1 / sqrtf((float)d),
                          .exact = exact};
    snprintf(line.size, sizeof line.size, "%d rows %d keys %d/%d heads of %d%s", rows, positions, heads, kv_heads, d,
             exact ? " exact" : "");
    line.amount = 4.0 * pairs * heads * d;
    if (rows > GEMV_MAX_N)
        line.peak = multiply_peak(&b->c, exact ? b->c.k.gemm[TENSOR_F32] : b->c.k.gemm_scores);
    measure(b, &line, attention_work, &a);
    free(q), free(out), free(k), free(v), free(lo), free(hi);
}

/* ---- single kernels, one thread ---- */

enum { ROW = 4096, HEAD = 256, POSITIONS = 256 };

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

static void gelu_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    memcpy(r->out, r->x, ROW * sizeof *r->out);
    c->k.gelu(r->out, ROW);
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

static void add_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.add(r->out, r->x, ROW);
}

static void scale_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.scale(r->out, 1.0f, ROW);
}

static void rope_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    for (int i = 0; i < ROW; i += HEAD)
        c->k.rope(r->out + i, r->x, r->y, HEAD);
}

static void weighted_rows_work(const struct compute *c, void *arg)
{
    const struct row_work *r = arg;
    c->k.weighted_rows[TENSOR_F16](r->out, r->x, r->bits, HEAD * 2, ROW / HEAD, HEAD);
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

static void bench_rows(const struct bench *b)
{
    static const struct {
        const char *name;
        work_fn *work;
    } all[] = {
        {"exp_sum", exp_sum_work},
        {"max", max_work},
        {"gelu", gelu_work},
        {"gelu_multiply", gelu_multiply_work},
        {"rms_norm", rms_norm_work},
        {"layer_norm", layer_norm_work},
        {"add", add_work},
        {"scale", scale_work},
        {"rope", rope_work},
        {"weighted_rows of f16", weighted_rows_work},
        {"to_float of f16", from_f16_work},
        {"from_float of f16", to_f16_work},
    };
    struct row_work r = {need(ROW * 4), need(ROW * 4), need(ROW * 4), need(ROW * 4)};
    for (int i = 0; i < ROW; i++)
        r.x[i] = -10.0f * fabsf(random_float());
    random_fill(r.y, ROW);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const struct line line = {.kernel = all[i].name, .unit = "G/s", .size = "4096", .amount = ROW};
        if (wanted(b, line.kernel)) {
            memset(r.out, 0, ROW * sizeof *r.out);
            measure(b, &line, all[i].work, &r);
        }
    }
    free(r.x), free(r.y), free(r.out), free(r.bits);
}

/* ---- all of it, in shapes of MedGemma 4B ---- */

enum { WEIGHT_BYTES = 256 << 20 };

static void bench_isa(struct bench *b)
{
    b->read_peak = read_peak(&b->c, b->weights, WEIGHT_BYTES);
    for (int type = 0; type < TENSOR_TYPES; type++) {
        bench_parts(b, (enum tensor_type)type);
        bench_linear(b, (enum tensor_type)type, 1, 2560, 10240);
        bench_linear(b, (enum tensor_type)type, 300, 2560, 10240);
    }
    bench_linear(b, TENSOR_BF16, 1, 10240, 2560);
    bench_linear(b, TENSOR_BF16, 1, 2560, 50000);
    bench_linear(b, TENSOR_BF16, 300, 10240, 2560);
    bench_linear(b, TENSOR_BF16, 4096, 1152, 4304);
    bench_linear(b, TENSOR_BF16, 4096, 4304, 1152);
    bench_attention(b, 4096, 4096, 16, 16, 72, false, false);
    bench_attention(b, 512, 512, 8, 4, 256, true, false);
    bench_attention(b, 512, 512, 8, 4, 256, true, true);
    bench_attention(b, 1, 1024, 8, 4, 256, true, false);
    bench_rows(b);
}

static int run(struct bench *b, int threads, const char *only_isa)
{
    struct ward_error err;
    b->weights = need(WEIGHT_BYTES);
    random_seed(1);
    if (compute_open(&b->ref, threads, ISA_NONE, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("kernel,isa,size,ns,rate,unit,peak,share,times_ref,onednn_ns\n");
    for (int isa = ISA_NONE; isa < ISA_COUNT; isa++) {
        if (!isa_present((enum isa)isa) || (only_isa && strcmp(only_isa, isa_name((enum isa)isa)) != 0))
            continue;
        if (compute_open(&b->c, threads, (enum isa)isa, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        bench_isa(b);
        compute_close(&b->c);
    }
    compute_close(&b->ref);
    free((void *)(uintptr_t)b->weights);
    return 0;
}

int main(int argc, char **argv)
{
    struct bench b = {0};
    const char *isa = NULL;
    int threads = 0;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (value && strcmp(argv[i], "--only") == 0) {
            b.only = value;
        } else if (value && strcmp(argv[i], "--isa") == 0 && isa_parse(value) >= 0) {
            isa = value;
        } else if (value && strcmp(argv[i], "--threads") == 0) {
            threads = atoi(value);
        } else {
            fprintf(stderr, "usage: benchkernels [--threads N] [--only TEXT] [--isa NAME]\n");
            return 2;
        }
    }
    return run(&b, threads, isa);
}
