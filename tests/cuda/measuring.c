#include "cuda/checks.h"

#include "kernels/harness.h"

#include "base/half.h"
#include "bench/card_limits.h"
#include "cuda/card.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* `words` of 16 bytes are copied, and what lies behind them stays as it is. */
static bool copies(struct card *c, size_t words)
{
    enum { MOST = 3000 * 16 };
    static uint8_t sent[MOST], got[MOST];
    struct ward_error err;
    void *from, *to;
    if (card_alloc(c, &from, MOST, "a test", &err) || card_alloc(c, &to, MOST, "a test", &err))
        return fail("%s", err.text);
    for (size_t i = 0; i < MOST; i++)
        sent[i] = (uint8_t)(i * 37 + i / 251 + 1);
    card_write(c, from, sent, MOST);
    card_launch(c, KERNEL_measure_copy, (struct card_grid){2, 1, 1}, MEASURE_THREADS, 0,
                (void *[]){&to, &from, &words});
    card_read(c, got, to, MOST);
    const bool ok = card_finish(c, &err) == 0 || fail("%s", err.text);
    card_release(c, from);
    card_release(c, to);
    for (size_t i = words * 16; i < MOST; i++)
        sent[i] = 0;
    return ok && (memcmp(sent, got, MOST) == 0 || fail("%zu words are not copied as they are", words));
}

/* Word i of a thread, as the kernel makes it: two bf16. */
static void pair_of(double out[2], uint32_t thread, uint32_t i)
{
    uint32_t seed = 64 * thread + i;
    seed = (seed ^ seed >> 16) * 0x7feb352du;
    seed = (seed ^ seed >> 15) * 0x846ca68bu;
    seed = ((seed ^ seed >> 16) & 0x80ff80ffu) | 0x3f003f00u;
    out[0] = (double)bf16_to_float((uint16_t)seed);
    out[1] = (double)bf16_to_float((uint16_t)(seed >> 16));
}

/* Row `row` of a [16][16] (which: 0, 1) or b [8][16] (2 and up) of the warp whose first thread is `first`: PTX ISA,
 * "Matrix Fragments for mma.m16n8k16". */
static void row_of(double out[16], uint32_t first, int which, int row)
{
    for (int pair = 0; pair < 8; pair++) {
        const uint32_t lane = (uint32_t)(row % 8 * 4 + pair % 4);
        const int word = which < 2 ? 4 * which + row / 8 + pair / 4 * 2 : 8 + 2 * (which - 2) + pair / 4;
        pair_of(out + 2 * (pair % 4) + pair / 4 * 8, first + lane, (uint32_t)word);
    }
}

/* What a thread leaves after one turn: the sum of its four values of each product. */
static double left_by(uint32_t thread)
{
    const uint32_t first = thread / 32 * 32, g = thread % 32 / 4, t = thread % 4;
    double sum = 0, a[16], b[16];
    for (int i = 0; i < MEASURE_SUMS; i++)
        for (uint32_t value = 0; value < 4; value++) {
            row_of(a, first, i % 2, (int)(g + value / 2 * 8));
            row_of(b, first, 2 + i / 2, (int)(2 * t + value % 2));
            for (int k = 0; k < 16; k++)
                sum += a[k] * b[k];
        }
    return sum;
}

/* Sums of the warpgroups' products, where the card has them: twice the turns, twice the sums. */
static bool multiplies_in_groups(struct card *c)
{
    enum { N = MEASURE_THREADS };
    static float got[2][N];
    struct ward_error err;
    void *out;
    if (card_alloc(c, &out, sizeof got[0], "a test", &err))
        return fail("%s", err.text);
    for (int i = 0; i < 2; i++) {
        int turns = 2 * (i + 1);
        card_launch(c, KERNEL_measure_group, (struct card_grid){1, 1, 1}, MEASURE_THREADS, 0,
                    (void *[]){&out, &turns});
        card_read(c, got[i], out, sizeof got[i]);
    }
    bool ok = card_finish(c, &err) == 0 || fail("%s", err.text);
    card_release(c, out);
    for (int i = 0; ok && i < N; i++) {
        ok =
            near("products of groups", i, (double)got[1][i], 2 * (double)got[0][i], 1 + 1e-3 * fabs((double)got[0][i]));
        ok = ok && ((got[0][i] == 0) == (got[0][0] == 0) || fail("some threads have no sums"));
    }
    return ok;
}

static bool multiplies(struct card *c, int turns)
{
    enum { BLOCKS = 2, N = BLOCKS * MEASURE_THREADS };
    static float got[N];
    struct ward_error err;
    void *out;
    if (card_alloc(c, &out, sizeof got, "a test", &err))
        return fail("%s", err.text);
    card_launch(c, KERNEL_measure_multiply, (struct card_grid){BLOCKS, 1, 1}, MEASURE_THREADS, 0,
                (void *[]){&out, &turns});
    card_read(c, got, out, sizeof got);
    bool ok = card_finish(c, &err) == 0 || fail("%s", err.text);
    card_release(c, out);
    for (uint32_t i = 0; ok && i < N; i++)
        ok = near("products", (int)i, (double)got[i], turns * left_by(i), turns * 1e-2);
    return ok;
}

bool measuring(void)
{
    struct ward_error err;
    struct card_limits limits;
    struct card *c = card_open(-1, &err);
    if (!c)
        return fail("%s", err.text);
    bool ok = copies(c, 3000) && copies(c, 2051) && copies(c, 7) && multiplies(c, 1) &&
              multiplies(c, 3) && multiplies_in_groups(c);
    if (ok && card_limits_measure(&limits, -1, &err))
        return fail("%s", err.text);
    if (ok)
        printf("# copies %.3f GB/s, multiplies bf16 at %.3f TFLOP/s\n", limits.copy_bytes / 1e9,
               card_limits_peak(&limits) / 1e12);
    return ok && ((limits.copy_bytes >= limits.copy_bytes_mean && limits.copy_bytes_mean > 0 &&
                   card_limits_peak(&limits) >= card_limits_peak_mean(&limits) && card_limits_peak_mean(&limits) > 0) ||
                  fail("limits that cannot be"));
}
