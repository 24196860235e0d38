/* Norms, activations and rotation on a card, tables, pooling, and what they leave for the products after them. */
#include "cuda/checks.h"
#include "kernels/harness.h"

#include "base/half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A row's norm: expected and how far off it may be. */
static void norm_row(double *out, const double *x, const float *weight, int cols)
{
    double squares = 0;
    for (int c = 0; c < cols; c++)
        squares += x[c] * x[c];
    const double scale = 1 / sqrt(squares / cols + 1e-6);
    for (int c = 0; c < cols; c++)
        out[c] = x[c] * scale * (double)weight[c];
}

static void layer_norm_row(double *out, double *bound, const float *x, const float *weight, const float *bias, int cols)
{
    double sum = 0, spread = 0;
    for (int c = 0; c < cols; c++)
        sum += (double)x[c];
    const double mean = sum / cols;
    for (int c = 0; c < cols; c++)
        spread += ((double)x[c] - mean) * ((double)x[c] - mean);
    const double deviation = 1 / sqrt(spread / cols + 1e-6);
    for (int c = 0; c < cols; c++) {
        const double w = (double)weight[c];
        out[c] = ((double)x[c] - mean) * deviation * w + (double)bias[c];
        /* The mean of so many floats is off by some of their last bits, however near to it x is. */
        bound[c] = (2e-5 * (fabs((double)x[c]) + fabs(mean)) + 1e-6) * deviation * fabs(w) +
                   1e-6 * fabs((double)bias[c]) + 1e-9;
    }
}

static bool norms_of(int rows, int cols)
{
    const size_t n = (size_t)rows * (size_t)cols;
    float *x = random_floats(n), *residual = random_floats(n), *weight = random_floats((size_t)cols),
          *next = random_floats((size_t)cols), *bias = random_floats((size_t)cols);
    double *of_x = buffer(n * sizeof(double), 0), *expected[4], *bound[4];
    for (int i = 0; i < 4; i++) {
        expected[i] = buffer(n * sizeof(double), 0);
        bound[i] = buffer(n * sizeof(double), 0);
    }
    for (size_t i = 0; i < n; i++)
        of_x[i] = (double)x[i];
    for (size_t at = 0; at < n; at += (size_t)cols) {
        norm_row(expected[0] + at, of_x + at, weight, cols);
        for (size_t i = at; i < at + (size_t)cols; i++) {
            expected[1][i] = (double)residual[i] + expected[0][i];
            bound[0][i] = 1e-5 * fabs(expected[0][i]) + 1e-9;
            bound[1][i] = bound[0][i] + 1e-6 * fabs((double)residual[i]);
        }
        norm_row(expected[2] + at, expected[1] + at, next, cols);
        for (size_t i = at; i < at + (size_t)cols; i++)
            bound[2][i] = 2e-5 * (fabs(expected[2][i]) + fabs((double)next[i - at]) * bound[1][i]) + 1e-6;
        layer_norm_row(expected[3] + at, bound[3] + at, x + at, weight, bias, cols);
    }
    float *in = on_card(x, n * sizeof *x), *out = on_card(NULL, n * sizeof *x), *to = on_card(residual, n * sizeof *x);
    const float *w = on_card(weight, (size_t)cols * sizeof *x), *b = on_card(bias, (size_t)cols * sizeof *x),
                *following = on_card(next, (size_t)cols * sizeof *x);
    const struct next nobody = {0};
    card->ops->rms_norm(card, out, in, w, rows, cols, 1e-6f, nobody);
    bool ok = compare("rms_norm", out, expected[0], bound[0], n);
    card->ops->layer_norm(card, out, in, w, b, rows, cols, 1e-6f, nobody);
    ok = ok && compare("layer_norm", out, expected[3], bound[3], n);
    card->ops->add_rms_norm(card, to, in, w, following, rows, cols, 1e-6f, nobody);
    ok = ok && compare("add_rms_norm", to, expected[1], bound[1], n) &&
         compare("its norm", in, expected[2], bound[2], n);
    card->ops->write(card, in, x, n * sizeof *x);
    card->ops->write(card, to, residual, n * sizeof *x);
    card->ops->add_rms_norm(card, to, in, w, NULL, rows, cols, 1e-6f, nobody);
    ok = ok && compare("add_rms_norm alone", to, expected[1], bound[1], n);
    release_all();
    return ok || fail("%d rows of %d", rows, cols);
}

bool norms(void)
{
    return norms_of(1, 1) && norms_of(3, 31) && norms_of(2, 2560) && norms_of(17, 300) && norms_of(2, 3201) &&
           norms_of(1, 4096);
}

/* gelu(x gate^T) * (x up^T), of weights of two types. */
static bool gated_of(enum tensor_type type, enum tensor_type up_type, int rows, int cols_least, int outputs, bool exact)
{
    const int cols = whole_blocks(type, whole_blocks(up_type, cols_least));
    const size_t n = (size_t)rows * (size_t)outputs;
    const float *x = random_floats((size_t)rows * (size_t)cols);
    float *no_bias = float_buffer((size_t)outputs);
    memset(no_bias, 0, (size_t)outputs * sizeof *no_bias);
    struct tensor weights[2];
    struct linear maps[2];
    double *expected[2], *bound[2];
    for (int i = 0; i < 2; i++) {
        const enum tensor_type of = i ? up_type : type;
        float *w = float_buffer((size_t)outputs * (size_t)cols);
        const struct tensor host = {random_matrix(of, outputs, cols, false, w), of, outputs, cols};
        const struct product p = {of, rows, cols, outputs, exact, rows > GEMV_MAX_N};
        weights[i] = matrix_on_card(&host);
        maps[i] = (struct linear){.out = on_card(NULL, n * sizeof(float)), .w = &weights[i], .exact = exact};
        expected[i] = buffer(n * sizeof(double), 0);
        bound[i] = buffer(n * sizeof(double), 0);
        expect_product(&p, x, w, no_bias, expected[i], bound[i]);
    }
    activate(expected[0], bound[0], n);
    for (size_t i = 0; i < n; i++) {
        bound[0][i] = bound[0][i] * (fabs(expected[1][i]) + bound[1][i]) + fabs(expected[0][i]) * bound[1][i] +
                      1e-6 * fabs(expected[0][i] * expected[1][i]);
        expected[0][i] *= expected[1][i];
    }
    const float *input = on_card(x, (size_t)rows * (size_t)cols * sizeof *x);
    const struct scratch scratch = room_for_products(rows, cols, exact);
    card->ops->gated(card, input, rows, maps, scratch);
    bool ok = compare("gated", maps[0].out, expected[0], bound[0], n);
    if (rows > GEMV_MAX_N) {
        maps[0].next = (struct next){room_for_packed(rows, outputs, exact), exact};
        card->ops->gated(card, input, rows, maps, scratch);
        ok = ok && check_packed("gated, packed", maps[0].next.packed, expected[0], bound[0], rows, outputs, exact);
    }
    release_all();
    return ok || fail("%s and %s, %d rows, %d to %d%s", tensor_type_name(type), tensor_type_name(up_type), rows, cols,
                      outputs, exact ? ", exact" : "");
}

bool gated(void)
{
    return gated_of(TENSOR_BF16, TENSOR_BF16, 1, 70, 50, false) &&
           gated_of(TENSOR_Q8_0, TENSOR_Q8_0, 8, 64, 33, false) &&
           gated_of(TENSOR_Q4_0, TENSOR_BF16, 3, 64, 20, false) &&
           gated_of(TENSOR_BF16, TENSOR_BF16, 9, 70, 51, false) &&
           gated_of(TENSOR_Q4_K, TENSOR_Q6_K, 70, 256, 140, false) &&
           gated_of(TENSOR_F16, TENSOR_F16, 20, 72, 130, true);
}

/* x [ROWS][heads][D]: an RMS norm over each head, and its rotation. */
static void rotate(double *out, double *bound, const float *x, const float *weight, const float *cosine,
                   const float *sine, int rows, int heads, int d)
{
    double *head = malloc((size_t)d * sizeof *head), *normed = malloc((size_t)d * sizeof *normed);
    for (int h = 0; h < rows * heads; h++) {
        const size_t at = (size_t)h * (size_t)d;
        for (int i = 0; i < d; i++)
            head[i] = (double)x[at + (size_t)i];
        norm_row(normed, head, weight, d);
        for (int i = 0; i < d / 2; i++) {
            const double a = normed[i], b = normed[d / 2 + i];
            const double c = (double)cosine[h / heads * d / 2 + i], s = (double)sine[h / heads * d / 2 + i];
            out[at + (size_t)i] = a * c - b * s;
            out[at + (size_t)(d / 2 + i)] = b * c + a * s;
            bound[at + (size_t)i] = bound[at + (size_t)(d / 2 + i)] = 1e-5 * (fabs(a) + fabs(b)) + 1e-9;
        }
    }
    free(head);
    free(normed);
}

bool rotation(void)
{
    enum { ROWS = 5, HEADS = 3, KV = 2, D = 26, N = ROWS * HEADS * D, N_KV = ROWS * KV * D, SLOTS = 7 };
    static const int positions[ROWS] = {12, 13, 14, 15, 16};
    float *q = random_floats(N), *k = random_floats(N_KV), *v = random_floats(N_KV), *q_norm = random_floats(D),
          *k_norm = random_floats(D), *cosine = float_buffer(ROWS * D / 2), *sine = float_buffer(ROWS * D / 2);
    double *expected = buffer(N * sizeof *expected, 0), *bound = buffer(N * sizeof *bound, 0);
    for (int i = 0; i < ROWS * D / 2; i++) {
        cosine[i] = cosf((float)i);
        sine[i] = sinf((float)i);
    }
    const size_t cache = SLOTS * KV * D;
    struct kv_layer layer = {on_card(NULL, 2 * cache), on_card(NULL, 2 * cache), TENSOR_F16, KV, D, SLOTS};
    const struct heads heads = {
        .q = on_card(q, N * sizeof *q),
        .k = on_card(k, N_KV * sizeof *k),
        .v = on_card(v, N_KV * sizeof *v),
        .rows = ROWS,
        .n_heads = HEADS,
        .to = &layer,
        .positions = on_card(positions, sizeof positions),
        .q_norm = on_card(q_norm, D * sizeof *q_norm),
        .k_norm = on_card(k_norm, D * sizeof *k_norm),
        .eps = 1e-6f,
        .cosine = on_card(cosine, ROWS * D / 2 * sizeof *cosine),
        .sine = on_card(sine, ROWS * D / 2 * sizeof *sine),
    };
    card->ops->store(card, &heads);
    rotate(expected, bound, q, q_norm, cosine, sine, ROWS, HEADS, D);
    bool ok = compare("queries", heads.q, expected, bound, N);
    uint16_t *keys = buffer(2 * cache, 0), *values = buffer(2 * cache, 0);
    ok = ok && fetch(keys, layer.k, 2 * cache) && fetch(values, layer.v, 2 * cache);
    rotate(expected, bound, k, k_norm, cosine, sine, ROWS, KV, D);
    for (int i = 0; ok && i < N_KV; i++) { /* row, head, dimension to head, slot, dimension */
        const int at = (i / D % KV * SLOTS + positions[i / D / KV] % SLOTS) * D + i % D;
        ok = near("key", i, (double)f16_to_float(keys[at]), expected[i],
                  bound[i] + 0x1p-11 * fabs(expected[i]) + 0x1p-25) &&
             near("value", i, (double)f16_to_float(values[at]), (double)v[i], 0x1p-11 * fabs((double)v[i]) + 0x1p-25);
    }
    release_all();
    return ok;
}

/* ---- results for the products after them ------------------------------------------------------------------------- */

/* The product of a result that was written as float32, and of one that the operation has left in `packed` for it: the
 * same bits. */
struct preparing {
    int rows, heads, d;
    struct linear map;
    void *packed, *attention;
    float *x, *y, *residual, *residual_again, *out;
    const float *norm;
    struct kv_layer layer;
    int *lo, *hi;
};

static void attend_prepared(const struct preparing *p, struct next next)
{
    const struct attention a = {
        .out = p->out,
        .q = p->y,
        .k = p->layer.k,
        .v = p->layer.v,
        .type = TENSOR_F16,
        .rows = p->rows,
        .n_heads = p->heads,
        .n_kv_heads = p->heads,
        .head_dim = p->d,
        .capacity = p->rows,
        .lo = p->lo,
        .hi = p->hi,
        .scale = 0.1f,
        .scratch = p->attention,
        .next = next,
    };
    card->ops->attention(card, &a);
}

enum { RMS_NORM, ADD_RMS_NORM, LAYER_NORM, ATTENTION, PREPARING };

/* Where the result is. */
static const float *prepare(const struct preparing *p, int operation, struct next next)
{
    const int cols = p->heads * p->d;
    const size_t bytes = (size_t)(p->rows * cols) * sizeof(float);
    switch (operation) {
    case RMS_NORM: card->ops->rms_norm(card, p->out, p->x, p->norm, p->rows, cols, 1e-6f, next); break;
    case ADD_RMS_NORM:
        card->ops->copy(card, p->residual_again, p->residual, bytes);
        card->ops->copy(card, p->out, p->x, bytes);
        card->ops->add_rms_norm(card, p->residual_again, p->out, p->norm, p->norm, p->rows, cols, 1e-6f, next);
        break;
    case LAYER_NORM: card->ops->layer_norm(card, p->out, p->x, p->norm, p->norm, p->rows, cols, 1e-6f, next); break;
    default: attend_prepared(p, next);
    }
    return p->out;
}

static bool preparing_of(enum tensor_type type, int rows, int heads, int d, bool exact)
{
    static const char *const names[PREPARING] = {"rms_norm", "add_rms_norm", "layer_norm", "attention"};
    const int cols = heads * d, outputs = 20;
    const size_t n = (size_t)rows * (size_t)cols, n_out = (size_t)(rows * outputs);
    float *values = float_buffer((size_t)(outputs * cols));
    const struct tensor host = {random_matrix(type, outputs, cols, false, values), type, outputs, cols};
    const struct tensor w = matrix_on_card(&host);
    struct preparing p = {.rows = rows, .heads = heads, .d = d, .packed = room_for_packed(rows, cols, exact)};
    p.map = (struct linear){.out = on_card(NULL, n_out * sizeof(float)), .w = &w, .exact = exact};
    float **const rows_of[] = {&p.x, &p.y, &p.residual, &p.residual_again, &p.out};
    for (int i = 0; i < 5; i++)
        *rows_of[i] = on_card(random_floats(n), n * sizeof(float));
    p.norm = on_card(random_floats((size_t)cols), (size_t)cols * sizeof(float));
    p.attention = on_card(NULL, card->ops->attention_size(card, rows, heads, d));
    p.layer = (struct kv_layer){on_card(NULL, n * 2), on_card(NULL, n * 2), TENSOR_F16, heads, d, rows};
    int *numbers = buffer((size_t)rows * sizeof *numbers, 0);
    for (int r = 0; r < rows; r++)
        numbers[r] = r;
    int *positions = on_card(numbers, (size_t)rows * sizeof *numbers);
    p.lo = on_card(NULL, (size_t)rows * sizeof *numbers);
    for (int r = 0; r < rows; r++)
        numbers[r] = r + 1;
    p.hi = on_card(numbers, (size_t)rows * sizeof *numbers);
    const struct heads kv = {.k = p.y, .v = p.x, .rows = rows, .to = &p.layer, .positions = positions};
    card->ops->store(card, &kv);

    float *plain = float_buffer(n_out), *prepared = float_buffer(n_out), *nothing = float_buffer(n);
    memset(nothing, 0xff, n * sizeof *nothing);
    bool ok = true;
    for (int i = 0; ok && i < PREPARING; i++) {
        card->ops->linear(card, prepare(&p, i, (struct next){0}), rows, &p.map, 1,
                          (struct scratch){.packed = p.packed});
        ok = fetch(plain, p.map.out, n_out * sizeof *plain);
        if (i != ADD_RMS_NORM && rows > GEMV_MAX_N && !(exact && i == ATTENTION))
            card->ops->write(card, p.out, nothing, n * sizeof *nothing); /* nobody looks there */
        card->ops->linear(card, prepare(&p, i, (struct next){p.packed, exact}), rows, &p.map, 1,
                          (struct scratch){.packed = p.packed});
        ok = ok && fetch(prepared, p.map.out, n_out * sizeof *prepared) &&
             (memcmp(prepared, plain, n_out * sizeof *plain) == 0 || fail("%s leaves others", names[i]));
    }
    release_all();
    return ok ||
           fail("%s, %d rows of %d heads of %d%s", tensor_type_name(type), rows, heads, d, exact ? ", exact" : "");
}

bool preparing(void)
{
    return preparing_of(TENSOR_Q8_0, 1, 4, 32, false) && preparing_of(TENSOR_Q8_0, 8, 2, 80, false) &&
           preparing_of(TENSOR_Q8_0, 3, 2, 16, false) && preparing_of(TENSOR_Q8_0, 20, 4, 32, false) &&
           preparing_of(TENSOR_BF16, 70, 3, 24, false) && preparing_of(TENSOR_BF16, 9, 5, 10, true) &&
           preparing_of(TENSOR_F16, 17, 40, 80, true);
}

bool tables(void)
{
    enum { ROWS = 9, IDS = 4 };
    static const int32_t ids[IDS] = {8, 0, 3, 3};
    bool ok = true;
    for (int type = 0; ok && type < TENSOR_TYPES; type++) {
        const int cols = whole_blocks((enum tensor_type)type, 70);
        float *values = float_buffer((size_t)(ROWS * cols)), *x = random_floats((size_t)(ROWS * cols));
        const struct tensor host = {random_matrix((enum tensor_type)type, ROWS, cols, true, values),
                                    (enum tensor_type)type, ROWS, cols};
        const struct tensor table = matrix_on_card(&host);
        double *expected = buffer((size_t)(ROWS * cols) * sizeof *expected, 0),
               *bound = buffer((size_t)(ROWS * cols) * sizeof *bound, 0);
        float *of = float_buffer((size_t)(ROWS * cols));
        magnitudes((enum tensor_type)type, of, values, ROWS * cols);
        for (int i = 0; i < IDS * cols; i++) {
            expected[i] = 3.5 * (double)values[ids[i / cols] * cols + i % cols];
            bound[i] = 1e-6 * 3.5 * (double)of[ids[i / cols] * cols + i % cols];
        }
        float *out = on_card(NULL, (size_t)(IDS * cols) * sizeof *out),
              *to = on_card(x, (size_t)(ROWS * cols) * sizeof *x);
        card->ops->embed(card, out, &table, on_card(ids, sizeof ids), IDS, 3.5f);
        ok = compare("embed", out, expected, bound, (size_t)(IDS * cols));
        for (int i = 0; i < ROWS * cols; i++) {
            expected[i] = (double)x[i] + (double)values[i];
            bound[i] = 1e-6 * (fabs((double)x[i]) + (double)of[i]);
        }
        card->ops->add_table(card, to, &table);
        ok = ok && compare("add_table", to, expected, bound, (size_t)(ROWS * cols));
        if (!ok)
            fail("%s", tensor_type_name((enum tensor_type)type));
        release_all();
    }
    return ok;
}

bool pooling(void)
{
    enum { SIDE = 6, BLOCK = 3, COLS = 37, OUT = (SIDE / BLOCK) * (SIDE / BLOCK) * COLS };
    float *x = random_floats(SIDE * SIDE * COLS);
    double *expected = buffer(OUT * sizeof *expected, 0), *bound = buffer(OUT * sizeof *bound, 0);
    for (int i = 0; i < OUT; i++) {
        const int square = i / COLS, top = square / 2 * BLOCK, left = square % 2 * BLOCK;
        expected[i] = bound[i] = 0;
        for (int k = 0; k < BLOCK * BLOCK; k++) {
            const double value = (double)x[((top + k / BLOCK) * SIDE + left + k % BLOCK) * COLS + i % COLS];
            expected[i] += value / (BLOCK * BLOCK);
            bound[i] += 1e-6 * fabs(value);
        }
    }
    float *out = on_card(NULL, OUT * sizeof *out);
    card->ops->pool(card, out, on_card(x, SIDE * SIDE * COLS * sizeof *x), SIDE, BLOCK, COLS);
    const bool ok = compare("pool", out, expected, bound, OUT);
    release_all();
    return ok;
}
