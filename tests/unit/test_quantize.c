/* Rows of quantized blocks: bit for bit what the reference makes where there is one (tests/vectors/quant.bin, by
 * tools/make_quant_vectors.py), and close to the row elsewhere. */
#include "model/to_float.h"
#include "quant/blocks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROW = 256, ROWS = 400 };

static enum tensor_type type_of(uint32_t id)
{
    switch (id) {
    case 1: return TENSOR_F16;
    case 30: return TENSOR_BF16;
    case 8: return TENSOR_Q8_0;
    case 2: return TENSOR_Q4_0;
    }
    fail_msg("type %u", id);
    return TENSOR_F32;
}

static void test_reference(void **state)
{
    (void)state;
    FILE *file = fopen("tests/vectors/quant.bin", "rb");
    uint32_t head[2];
    int rows = 0;
    assert_non_null(file);
    while (fread(head, sizeof head, 1, file) == 1) {
        const enum tensor_type type = type_of(head[0]);
        const size_t n = head[1], size = tensor_bytes(type, n);
        float values[1024];
        uint8_t expected[4096], got[4096];
        assert_true(n <= 1024);
        assert_int_equal(fread(values, sizeof *values, n, file), n);
        assert_int_equal(fread(expected, 1, size, file), size);
        quantize_row(type, got, values, n);
        assert_memory_equal(got, expected, size);
        rows++;
    }
    fclose(file);
    assert_true(rows > 50);
}

static float uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(*seed >> 40) * 0x1p-24f;
}

/* About normal; with `tails` every 37th value is eight times as large. */
static void fill(float *out, size_t n, uint64_t *seed, bool tails)
{
    for (size_t i = 0; i < n; i++) {
        float sum = -6;
        for (int k = 0; k < 12; k++)
            sum += uniform(seed);
        out[i] = 0.02f * sum * (tails && i % 37 == 0 ? 8 : 1);
    }
}

/* Root mean square of the error, in parts of that of the values. */
static double error_of(enum tensor_type type, bool tails)
{
    static float in[ROW * ROWS], out[ROW * ROWS];
    static uint8_t packed[ROW * ROWS * 4];
    uint64_t seed = 7;
    double error = 0, all = 0;
    fill(in, ROW * ROWS, &seed, tails);
    quantize_row(type, packed, in, ROW * ROWS);
    tensor_to_float[type](out, packed, ROW * ROWS);
    for (int i = 0; i < ROW * ROWS; i++) {
        error += ((double)in[i] - out[i]) * ((double)in[i] - out[i]);
        all += (double)in[i] * in[i];
    }
    return sqrt(error / all);
}

static void test_error(void **state)
{
    static const struct {
        enum tensor_type type;
        double normal, tails;
    } limits[] = {{TENSOR_Q8_0, 0.006, 0.011}, {TENSOR_Q6_K, 0.0185, 0.030}, {TENSOR_Q5_0, 0.042, 0.085},
                  {TENSOR_Q5_K, 0.038, 0.055}, {TENSOR_Q4_K, 0.075, 0.105},
                  {TENSOR_Q4_0, 0.090, 0.170}};
    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const double normal = error_of(limits[i].type, false), tails = error_of(limits[i].type, true);
        print_message("# %s: %.4f, with tails %.4f\n", tensor_type_name(limits[i].type), normal, tails);
        assert_true(normal > 0 && normal < limits[i].normal);
        assert_true(tails > 0 && tails < limits[i].tails);
    }
}

/* Rows at the edge of what scales can say. */
static void test_extremes(void **state)
{
    static const enum tensor_type types[] = {TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q5_0, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K};
    static const float magnitudes[] = {0, 1e-42f, 1e-30f, 1e-8f, 1e-3f, 1, 65504};
    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        for (size_t m = 0; m < sizeof magnitudes / sizeof *magnitudes; m++) {
            for (int shape = 0; shape < 4; shape++) {
                float in[ROW], out[ROW];
                uint8_t packed[2 * ROW];
                for (int i = 0; i < ROW; i++) {
                    const float alone = i % 64 == 3 ? 1 : 0, sign = i % 2 ? 1 : -1;
                    in[i] = magnitudes[m] * (shape == 0 ? 1 : shape == 1 ? -1 : shape == 2 ? alone : sign);
                }
                quantize_row(types[t], packed, in, ROW);
                tensor_to_float[types[t]](out, packed, ROW);
                for (int i = 0; i < ROW; i++)
                    assert_true(fabsf(out[i] - in[i]) <= 0.15f * magnitudes[m] + 1e-7f);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_error),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
