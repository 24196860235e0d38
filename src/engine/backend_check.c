#include "engine/backend_check.h"

#include "base/random.h"
#include "model/to_float.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OUTPUTS = 24, FEW = 3, MANY = 20, MOST_ROWS = 200, POSITIONS = 40, LOGITS = 500, MOST = 24 };

struct check {
    struct backend *be;
    struct ward_error *err;
    void *buffers[MOST]; /* on the device, of the operation that is checked */
    int n_buffers;
    bool seen[TENSOR_TYPES];
    uint64_t random;
    int rc;
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void *reserve(struct check *c, size_t bytes)
{
    void *at = NULL;
    if (!c->rc)
        c->rc = c->be->ops->alloc(c->be, &at, bytes, "checking the device", c->err);
    if (at)
        c->buffers[c->n_buffers++] = at;
    return at;
}

static void *send(struct check *c, const void *from, size_t bytes)
{
    void *at = reserve(c, bytes);
    if (at)
        c->be->ops->write(c->be, at, from, bytes);
    return at;
}

static void release(struct check *c)
{
    while (c->n_buffers)
        c->be->ops->release(c->be, c->buffers[--c->n_buffers]);
}

/* n numbers between -1 and 1; out of memory is noted. The caller frees it. */
static float *random_floats(struct check *c, size_t n)
{
    float *out = malloc(n * sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        out[i] = (float)(random_mix(c->random += RANDOM_STEP) >> 40) * 0x1p-23f - 1;
    if (!out && !c->rc)
        c->rc = error_no_memory(c->err, "checking the device", n * sizeof *out);
    return out;
}

/* How far the device's floats are from the expected ones, as a share of their size. */
static void compare(struct check *c, const char *what, const char *of, const float *on_device, const double *expected,
                    size_t n)
{
    const double limit = 0.03; /* bf16 and int8 reach a fifth of it */
    float *got = c->rc ? NULL : calloc(n, sizeof *got);
    double difference = 0, size = 0;
    if (!got)
        return;
    c->be->ops->read(c->be, got, on_device, n * sizeof *got);
    c->rc = c->be->ops->finish(c->be, c->err);
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        size += expected[i] * expected[i];
    }
    free(got);
    const double share = sqrt(difference / (size > 0 ? size : 1));
    if (!c->rc && isfinite(size) && !(share <= limit)) /* weights that are no numbers are not the device's fault */
        c->rc = error_set(c->err, WARD_EUNSUPPORTED,
                          "%s computes wrongly: %s%s differs by %.2g of its size from the processor's, which rounding "
                          "does not explain",
                          c->be->device_name ? c->be->device_name : c->be->device, what, of, share);
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

static void check_product(struct check *c, const struct tensor *w, int rows)
{
    const size_t cols = (size_t)w->cols, outputs = (size_t)w->rows, n = (size_t)rows * outputs;
    float *x = random_floats(c, (size_t)rows * cols), *row = random_floats(c, cols);
    double *expected = calloc(n, sizeof *expected);
    if (x && row && expected) {
        for (size_t o = 0; o < outputs; o++) {
            tensor_to_float[w->type](row, tensor_row(w, (int)o), w->cols);
            for (size_t r = 0; r < (size_t)rows; r++)
                for (size_t i = 0; i < cols; i++)
                    expected[r * outputs + o] += (double)row[i] * (double)x[r * cols + i];
        }
        struct tensor placed = *w;
        void *at = reserve(c, c->be->ops->placed_bytes(c->be, w));
        placed.data = at;
        const struct linear map = {.out = reserve(c, n * sizeof(float)), .w = &placed};
        const float *input = send(c, x, (size_t)rows * cols * sizeof *x);
        const size_t sums = c->be->ops->sums_size(c->be, rows);
        const struct scratch scratch = {reserve(c, c->be->ops->packed_size(c->be, rows, w->cols, false)),
                                        sums ? reserve(c, sums) : NULL};
        if (!c->rc) {
            c->be->ops->place(c->be, at, w);
            c->be->ops->linear(c->be, input, rows, &map, 1, scratch);
            compare(c, "a product with weights of ", tensor_type_name(w->type), map.out, expected, n);
        }
    }
    free(x);
    free(row);
    free(expected);
    release(c);
}

/* The first matrix of each type, or its first rows. */
static void check_type(void *user, struct tensor *t)
{
    struct check *c = user;
    if (c->rc || c->seen[t->type])
        return;
    c->seen[t->type] = true;
    struct tensor part = *t;
    part.rows = part.rows < OUTPUTS ? part.rows : OUTPUTS;
    const int rows[] = {FEW, MANY, MOST_ROWS}; /* each by kernels of its own */
    for (int i = 0; i < 3 && !c->rc; i++)
        check_product(c, &part, rows[i]);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* Of one head: query row r sees the positions up to POSITIONS - rows + r. q [rows][d], k and v [POSITIONS][d]. */
static void attend(double *out, const float *q, const float *k, const float *v, int rows, int d, double scale)
{
    double scores[POSITIONS];
    for (int r = 0; r < rows; r++) {
        double total = 0;
        for (int p = 0; p <= POSITIONS - rows + r; p++) {
            scores[p] = 0;
            for (int i = 0; i < d; i++)
                scores[p] += (double)q[r * d + i] * (double)k[p * d + i];
            total += scores[p] = exp(scores[p] * scale);
        }
        for (int i = 0; i < d; i++)
            for (int p = 0; p <= POSITIONS - rows + r; p++)
                out[r * d + i] += scores[p] / total * (double)v[p * d + i];
    }
}

static void check_attention(struct check *c, enum tensor_type type, int rows, int d)
{
    const size_t n_kv = (size_t)POSITIONS * (size_t)d, n = (size_t)rows * (size_t)d;
    float *q = random_floats(c, n), *k = random_floats(c, n_kv), *v = random_floats(c, n_kv);
    double *expected = calloc(n, sizeof *expected);
    int positions[POSITIONS], lo[MANY] = {0}, hi[MANY];
    for (int p = 0; p < POSITIONS; p++)
        positions[p] = p;
    for (int r = 0; r < rows; r++)
        hi[r] = POSITIONS - rows + r + 1;
    if (q && k && v && expected) {
        const size_t cache = tensor_bytes(type, n_kv);
        const struct kv_layer layer = {reserve(c, cache), reserve(c, cache), type, 1, d, POSITIONS};
        const struct heads heads = {.k = send(c, k, n_kv * sizeof *k),
                                    .v = send(c, v, n_kv * sizeof *v),
                                    .rows = POSITIONS,
                                    .to = &layer,
                                    .positions = send(c, positions, sizeof positions)};
        const struct attention a = {
            .out = reserve(c, n * sizeof(float)),
            .q = send(c, q, n * sizeof *q),
            .k = layer.k,
            .v = layer.v,
            .type = type,
            .rows = rows,
            .n_heads = 1,
            .n_kv_heads = 1,
            .head_dim = d,
            .capacity = POSITIONS,
            .lo = send(c, lo, sizeof lo),
            .hi = send(c, hi, sizeof hi),
            .scale = (float)(1 / sqrt(d)),
            .scratch = reserve(c, c->be->ops->attention_size(c->be, rows, 1, d)),
        };
        if (!c->rc) {
            attend(expected, q, k, v, rows, d, 1 / sqrt(d));
            c->be->ops->store(c->be, &heads);
            c->be->ops->attention(c->be, &a);
            compare(c, "attention", "", a.out, expected, n);
        }
    }
    free(q);
    free(k);
    free(v);
    free(expected);
    release(c);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static void check_norm(struct check *c, int cols)
{
    float *x = random_floats(c, (size_t)cols), *weight = random_floats(c, (size_t)cols);
    double *expected = calloc((size_t)cols, sizeof *expected), squares = 0;
    if (x && weight && expected) {
        for (int i = 0; i < cols; i++)
            squares += (double)x[i] * (double)x[i];
        for (int i = 0; i < cols; i++)
            expected[i] = (double)x[i] * (double)weight[i] / sqrt(squares / cols + 1e-6);
        float *out = reserve(c, (size_t)cols * sizeof *out);
        const float *in = send(c, x, (size_t)cols * sizeof *x), *w = send(c, weight, (size_t)cols * sizeof *x);
        if (!c->rc) {
            c->be->ops->rms_norm(c->be, out, in, w, 1, cols, 1e-6f, (struct next){0});
            compare(c, "a norm", "", out, expected, (size_t)cols);
        }
    }
    free(x);
    free(weight);
    free(expected);
    release(c);
}

static void check_choice(struct check *c)
{
    float *logits = random_floats(c, LOGITS);
    if (logits) {
        logits[LOGITS / 3] = 2;
        struct choice choice = {0}, *out = reserve(c, sizeof *out);
        const float *in = send(c, logits, LOGITS * sizeof *logits);
        if (!c->rc) {
            c->be->ops->choose(c->be, out, in, NULL, 1, LOGITS, 0);
            c->be->ops->read(c->be, &choice, out, sizeof choice);
            c->rc = c->be->ops->finish(c->be, c->err);
        }
        if (!c->rc && choice.id != LOGITS / 3)
            c->rc = error_set(c->err, WARD_EUNSUPPORTED,
                              "%s computes wrongly: of %d tokens it takes %d for the likeliest, not %d",
                              c->be->device_name, LOGITS, choice.id, LOGITS / 3);
    }
    free(logits);
    release(c);
}

int backend_check(struct backend *be, const struct weights *weights, const struct model_config *config,
                  struct ward_error *err)
{
    struct check c = {.be = be, .err = err};
    /* The visitor may change what it is shown; check_type does not. */
    struct weights visited = *weights;
    weights_visit(&visited, config, &(struct weights_visitor){.matrix = check_type, .user = &c});
    const int rows[] = {FEW, MANY};
    for (int i = 0; i < 2 && !c.rc; i++) {
        check_attention(&c, be->cache_type, rows[i], config->text.head_dim);
        if (config->vision.n_layers && !c.rc)
            check_attention(&c, be->encoder_type, rows[i], config->vision.hidden_size / config->vision.n_heads);
    }
    if (!c.rc)
        check_norm(&c, config->text.hidden_size);
    if (!c.rc && be->ops->choose)
        check_choice(&c);
    return c.rc;
}
