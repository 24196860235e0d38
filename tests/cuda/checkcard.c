/* Every operation of an NVIDIA card against loops in double precision: `checkcard` prints TAP. Whichever driver is
 * found is asked, a card's or the emulated one (LD_LIBRARY_PATH=build/tests/cuda). --seed N for other numbers, --only
 * TEXT. */
#include "cuda/checks.h"
#include "kernels/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct backend *card;

/* ---- to the card and back ---------------------------------------------------------------------------------------- */

enum { MOST_PLACED = 64 };
static void *placed[MOST_PLACED];
static int n_placed;

void *on_card(const void *host, size_t bytes)
{
    struct ward_error err;
    void *at;
    if (n_placed == MOST_PLACED || card->ops->alloc(card, &at, bytes, "a test", &err)) {
        printf("Bail out! %s\n", err.text);
        exit(1);
    }
    placed[n_placed++] = at;
    if (host)
        card->ops->write(card, at, host, bytes);
    return at;
}

struct tensor matrix_on_card(const struct tensor *t)
{
    struct tensor out = *t;
    void *at = on_card(NULL, card->ops->placed_bytes(card, t));
    card->ops->place(card, at, t);
    out.data = at;
    return out;
}

/* What the card has at `at`; false when an operation failed. */
bool fetch(void *host, const void *at, size_t bytes)
{
    struct ward_error err;
    card->ops->read(card, host, at, bytes);
    return card->ops->finish(card, &err) == 0 || fail("%s", err.text);
}

void release_all(void)
{
    while (n_placed)
        card->ops->release(card, placed[--n_placed]);
    buffers_release();
}

float *random_floats(size_t n)
{
    float *out = float_buffer(n);
    random_fill(out, n);
    return out;
}

bool compare(const char *what, const void *at, const double *expected, const double *bound, size_t n)
{
    float *got = float_buffer(n);
    bool ok = fetch(got, at, n * sizeof *got);
    for (size_t i = 0; ok && i < n; i++)
        ok = near(what, (int)i, (double)got[i], expected[i], bound[i]);
    return ok;
}

static const struct {
    const char *name;
    bool (*run)(void);
} checks[] = {
    {"linear f32", linear_f32},
    {"linear f16", linear_f16},
    {"linear bf16", linear_bf16},
    {"linear q8_0", linear_q8_0},
    {"linear q4_0", linear_q4_0},
    {"linear q4_1", linear_q4_1},
    {"linear q5_0", linear_q5_0},
    {"linear q5_1", linear_q5_1},
    {"linear q4_k", linear_q4_k},
    {"linear q5_k", linear_q5_k},
    {"linear q6_k", linear_q6_k},
    {"outcomes", outcomes},
    {"attention", attention},
    {"norms", norms},
    {"gated", gated},
    {"rotation", rotation},
    {"preparing", preparing},
    {"tables", tables},
    {"pooling", pooling},
    {"choice", choice},
    {"drawing", drawing},
    {"undrawn", undrawn},
    {"recording", recording},
    {"measuring", measuring},
};

int main(int argc, char **argv)
{
    const char *only = "";
    uint64_t seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
    }
    struct ward_error err;
    if (backend_cuda_open(&card, -1, 1, &err)) {
        printf("1..0 # SKIP %s\n", err.text);
        return 0;
    }
    enum { N = sizeof checks / sizeof *checks };
    bool passed = true;
    printf("# %s, %s, seed %llu\n1..%d\n", card->device_name, card->kernels, (unsigned long long)seed, N);
    for (int i = 0; i < N; i++) {
        if (!strstr(checks[i].name, only)) {
            printf("ok %d - %s # SKIP not asked for\n", i + 1, checks[i].name);
            continue;
        }
        random_seed(seed + (uint64_t)i);
        const bool ok = checks[i].run();
        passed &= ok;
        printf("%sok %d - %s\n", ok ? "" : "not ", i + 1, checks[i].name);
        fflush(stdout);
    }
    backend_close(&card);
    return !passed;
}
