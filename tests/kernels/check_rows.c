/* Norms, activations, softmax pieces, rotation and conversions. */
#include "harness.h"

#include "base/half.h"

#include <math.h>
#include <string.h>

/* Runs a check for every length up to twice the widest vector and a few beyond. */
static bool every_length(const struct kernels *k, bool (*check)(const struct kernels *k, int n))
{
    static const int longer[] = {72, 100, 255, 256, 257, 1152, 2560};
    for (int n = 1; n <= 33; n++) {
        if (!check(k, n) || !buffers_intact())
            return fail("length %d", n);
        buffers_release();
    }
    for (size_t i = 0; i < sizeof longer / sizeof *longer; i++) {
        if (!check(k, longer[i]) || !buffers_intact())
            return fail("length %d", longer[i]);
        buffers_release();
    }
    return true;
}

static float *random_floats(int n, float scale, float offset)
{
    float *x = float_buffer((size_t)n);
    random_fill(x, (size_t)n);
    for (int i = 0; i < n; i++)
        x[i] = x[i] * scale + offset;
    return x;
}

static bool rms_norm_case(const struct kernels *k, int n, float scale)
{
    const float eps = 1e-6f;
    float *x = random_floats(n, scale, 0), *weight = random_floats(n, 1, 1), *out = float_buffer((size_t)n);
    double squares = 0;
    for (int i = 0; i < n; i++)
        squares += (double)x[i] * (double)x[i];
    const double factor = 1 / sqrt(squares / n + (double)eps);
    k->rms_norm(out, x, weight, n, eps);
    for (int i = 0; i < n; i++) {
        const double expected = (double)x[i] * factor * (double)weight[i];
        if (!near("rms_norm", i, (double)out[i], expected, 8 * EPS * fabs(expected)))
            return false;
    }
    k->rms_norm(x, x, weight, n, eps);
    return memcmp(x, out, (size_t)n * sizeof *x) == 0 || fail("rms_norm differs in place");
}

static bool rms_norm_length(const struct kernels *k, int n)
{
    return rms_norm_case(k, n, 1) && rms_norm_case(k, n, 1e-8f) && rms_norm_case(k, n, 1e12f);
}

static bool check_rms_norm(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, rms_norm_length);
}

static bool layer_norm_case(const struct kernels *k, int n, float offset)
{
    const float eps = 1e-6f;
    float *x = random_floats(n, 1, offset), *weight = random_floats(n, 1, 1), *bias = random_floats(n, 1, 0);
    float *out = float_buffer((size_t)n);
    double mean = 0, squares = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        mean += (double)x[i] / n;
        largest = fmax(largest, fabs((double)x[i]));
    }
    for (int i = 0; i < n; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double factor = 1 / sqrt(squares / n + (double)eps);
    k->layer_norm(out, x, weight, bias, n, eps);
    for (int i = 0; i < n; i++) {
        const double scaled = ((double)x[i] - mean) * factor * (double)weight[i];
        /* the mean is known to a few roundings of the largest value, and the factor with it */
        const double bound =
            8 * EPS *
            (largest * factor * (1 + fabs(scaled)) * fabs((double)weight[i]) + fabs(scaled) + fabs((double)bias[i]));
        if (!near("layer_norm", i, (double)out[i], scaled + (double)bias[i], bound))
            return false;
    }
    k->layer_norm(x, x, weight, bias, n, eps);
    return memcmp(x, out, (size_t)n * sizeof *x) == 0 || fail("layer_norm differs in place");
}

static bool layer_norm_length(const struct kernels *k, int n)
{
    return layer_norm_case(k, n, 0) && layer_norm_case(k, n, 100);
}

static bool check_layer_norm(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, layer_norm_length);
}

static double gelu_tanh(double x)
{
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

/* Values across the curve, and some far out on both sides. */
static float *gelu_inputs(int n)
{
    static const float extremes[] = {0.0f, -0.0f, 1e-30f, 5.0f, -5.0f, 40.0f, -40.0f, 1e4f, -1e4f, 1e15f, -1e15f};
    float *x = random_floats(n, 6, 0);
    for (int i = 0; i < n; i += 5)
        x[i] = extremes[random_int(0, sizeof extremes / sizeof *extremes - 1)];
    return x;
}

/* 1 + tanh cancels for negative x, so the error is relative to x. */
static double gelu_bound(float x)
{
    return 4 * EPS * fabs((double)x);
}

static bool gelu_length(const struct kernels *k, int n)
{
    float *x = gelu_inputs(n), *out = float_buffer((size_t)n);
    memcpy(out, x, (size_t)n * sizeof *x);
    k->gelu(out, n);
    for (int i = 0; i < n; i++)
        if (!near("gelu", i, (double)out[i], gelu_tanh((double)x[i]), gelu_bound(x[i])))
            return fail("of %.9g", (double)x[i]);
    return true;
}

static bool check_gelu(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, gelu_length);
}

static bool gelu_multiply_length(const struct kernels *k, int n)
{
    float *gate = gelu_inputs(n), *up = random_floats(n, 2, 0), *out = float_buffer((size_t)n);
    k->gelu_multiply(out, gate, up, n);
    for (int i = 0; i < n; i++)
        if (!near("gelu_multiply", i, (double)out[i], gelu_tanh((double)gate[i]) * (double)up[i],
                  1.25 * gelu_bound(gate[i]) * fabs((double)up[i])))
            return false;
    float *copy = float_buffer((size_t)n);
    memcpy(copy, gate, (size_t)n * sizeof *gate);
    k->gelu_multiply(copy, copy, up, n);
    k->gelu_multiply(up, gate, up, n);
    return (memcmp(copy, out, (size_t)n * sizeof *out) == 0 && memcmp(up, out, (size_t)n * sizeof *out) == 0) ||
           fail("gelu_multiply differs in place");
}

static bool check_gelu_multiply(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, gelu_multiply_length);
}

static bool add_scale_length(const struct kernels *k, int n)
{
    float *x = random_floats(n, 1, 0), *y = random_floats(n, 1, 0), *sum = float_buffer((size_t)n);
    memcpy(sum, x, (size_t)n * sizeof *x);
    k->add(sum, y, n);
    for (int i = 0; i < n; i++)
        if (!near("add", i, (double)sum[i], (double)(x[i] + y[i]), 0))
            return false;
    k->scale(sum, 0.3f, n);
    for (int i = 0; i < n; i++)
        if (!near("scale", i, (double)sum[i], (double)((x[i] + y[i]) * 0.3f), 0))
            return false;
    return true;
}

static bool check_add_scale(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, add_scale_length);
}

/* Each exponential within one unit of the last place; results below the normal floats may become 0. */
static bool exp_sum_length(const struct kernels *k, int n)
{
    float *x = random_floats(n, 20, 0), *out = float_buffer((size_t)n), highest = -INFINITY;
    for (int i = 0; i < n; i += 7)
        x[i] = i % 2 ? -INFINITY : -1000.0f;
    for (int i = 0; i < n; i++)
        highest = fmaxf(highest, x[i]);
    if (highest == -INFINITY)
        highest = x[0] = 0;
    memcpy(out, x, (size_t)n * sizeof *x);
    const float sum = k->exp_sum(out, highest, n);
    double expected_sum = 0;
    for (int i = 0; i < n; i++) {
        const double expected = exp((double)(x[i] - highest));
        if (!near("exp_sum", i, (double)out[i], expected, 2 * EPS * expected + 0x1p-126))
            return fail("of %.9g", (double)(x[i] - highest));
        expected_sum += (double)out[i];
    }
    return near("exp_sum: the sum", 0, (double)sum, expected_sum, 8 * EPS * expected_sum);
}

static bool check_exp_sum(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, exp_sum_length);
}

static bool max_length(const struct kernels *k, int n)
{
    float *x = random_floats(n, 1, -3000);
    for (int at = 0; at < n; at += 1 + n / 40) { /* the highest at every place */
        const float before = x[at];
        x[at] = 7;
        if (!near("max", at, (double)k->max(x, n), 7, 0))
            return false;
        x[at] = before;
    }
    for (int i = 0; i < n; i++)
        x[i] = -INFINITY;
    return near("max of -infinity", 0, (double)k->max(x, n), (double)-INFINITY, 0) &&
           near("max of nothing", 0, (double)k->max(x, 0), (double)-INFINITY, 0);
}

static bool check_max(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, max_length);
}

static bool rope_length(const struct kernels *k, int half)
{
    float *x = random_floats(2 * half, 1, 0), *out = float_buffer((size_t)(2 * half));
    float *cosine = float_buffer((size_t)half), *sine = float_buffer((size_t)half);
    for (int i = 0; i < half; i++) {
        const double angle = 100 * (double)random_float();
        cosine[i] = (float)cos(angle);
        sine[i] = (float)sin(angle);
    }
    memcpy(out, x, (size_t)(2 * half) * sizeof *x);
    k->rope(out, cosine, sine, 2 * half);
    for (int i = 0; i < half; i++) {
        const double a = (double)x[i], b = (double)x[half + i], c = (double)cosine[i], s = (double)sine[i];
        const double bound = 2 * EPS * (fabs(a) + fabs(b));
        if (!near("rope", i, (double)out[i], a * c - b * s, bound) ||
            !near("rope", half + i, (double)out[half + i], b * c + a * s, bound))
            return false;
    }
    return true;
}

static bool check_rope(const struct kernels *k, int type)
{
    (void)type;
    return every_length(k, rope_length);
}

static float exact_value(enum tensor_type type, uint16_t bits)
{
    return type == TENSOR_F16 ? f16_to_float(bits) : bf16_to_float(bits);
}

/* Every bit pattern. */
static bool check_to_float(const struct kernels *k, int type)
{
    enum { ALL = 1 << 16, EXTRA = 5 };
    uint8_t *in = buffer((size_t)(ALL + EXTRA) * 2, 1);
    float *out = float_buffer(ALL + EXTRA);
    for (int i = 0; i < ALL + EXTRA; i++) {
        const uint16_t bits = (uint16_t)i;
        memcpy(in + 2 * i, &bits, sizeof bits);
    }
    k->to_float[type](out, in, ALL + EXTRA);
    for (int i = 0; i < ALL + EXTRA; i++)
        if (!near("to_float", i, (double)out[i], (double)exact_value((enum tensor_type)type, (uint16_t)i), 0))
            return false;
    for (int n = 1; n <= 33; n++) {
        float *few = float_buffer((size_t)n);
        k->to_float[type](few, in + 2 * (ALL + EXTRA - n), n);
        for (int i = 0; i < n; i++)
            if (float_bits(few[i]) != float_bits(out[ALL + EXTRA - n + i]))
                return fail("to_float of %d values differs at %d", n, i);
    }
    return true;
}

/* Any float: the nearest value of the type, ties to even, exactly. */
static bool check_from_float(const struct kernels *k, int type)
{
    enum { N = 200003 };
    float *in = float_buffer(N);
    uint8_t *out = buffer(N * 2, 1);
    for (int i = 0; i < N; i++) {
        in[i] = float_from_bits(random_bits());
        if (i % 4 == 1) /* within and around the range of f16 */
            in[i] = ldexpf(random_float(), random_int(-26, 17));
        if (i % 4 == 2) /* ties */
            in[i] = float_from_bits((random_bits() & 0xffff8000u) | 0x8000u);
        if (i % 4 == 3)
            in[i] = ldexpf((float)(2 * random_int(0, 2047) + 1), random_int(-36, 5));
    }
    k->from_float[type](out, in, N);
    for (int i = 0; i < N; i++) {
        uint16_t got;
        memcpy(&got, out + 2 * i, sizeof got);
        const uint16_t expected = type == TENSOR_F16 ? f16_from_float(in[i]) : bf16_from_float(in[i]);
        if (got != expected && !(isnan(in[i]) && isnan(exact_value((enum tensor_type)type, got))))
            return fail("from_float of %a is %#x, expected %#x", (double)in[i], got, expected);
    }
    for (int n = 1; n <= 33; n++) {
        uint8_t *few = buffer((size_t)n * 2, n % 2 ? 1 : 0);
        k->from_float[type](few, in, n);
        if (memcmp(few, out, (size_t)n * 2) != 0)
            return fail("from_float of %d values differs", n);
        if (!buffers_intact())
            return false;
    }
    return true;
}

static bool check_copies(const struct kernels *k, int type)
{
    const int n = 37;
    float *in = random_floats(n, 1, 0), *out = float_buffer((size_t)n);
    uint8_t *odd = buffer((size_t)n * sizeof *in, 1);
    k->from_float[type](odd, in, n);
    k->to_float[type](out, odd, n);
    return memcmp(in, out, (size_t)n * sizeof *in) == 0 || fail("float32 did not survive");
}

const struct check row_checks[] = {
    {"rms_norm", check_rms_norm, -1},
    {"layer_norm", check_layer_norm, -1},
    {"gelu", check_gelu, -1},
    {"gelu_multiply", check_gelu_multiply, -1},
    {"add and scale", check_add_scale, -1},
    {"exp_sum", check_exp_sum, -1},
    {"max", check_max, -1},
    {"rope", check_rope, -1},
    {"to_float and from_float of f32", check_copies, TENSOR_F32},
    {"to_float of f16", check_to_float, TENSOR_F16},
    {"to_float of bf16", check_to_float, TENSOR_BF16},
    {"from_float of f16", check_from_float, TENSOR_F16},
    {"from_float of bf16", check_from_float, TENSOR_BF16},
    {0},
};
