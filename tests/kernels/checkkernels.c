/* Checks every kernel of every instruction set that this machine has against plain loops in double precision.
 *
 *   checkkernels [--seed N] [--only TEXT] [--isa NAME] [--quick]      prints TAP
 *
 * Every buffer ends at a page that cannot be touched; a fault or an illegal instruction fails the case that caused it.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

bool quick;

static const struct check *const suites[] = {matrix_checks, row_checks, compute_checks};
enum { SUITES = sizeof suites / sizeof *suites };

static sigjmp_buf crash_point;
static pthread_t main_thread;
static volatile sig_atomic_t crash_signal;

static void on_crash(int number)
{
    if (!pthread_equal(pthread_self(), main_thread)) {
        static const char message[] = "# crashed on a thread of the pool\n";
        if (write(STDOUT_FILENO, message, sizeof message - 1) < 0)
            _exit(4);
        _exit(3); /* there is no way back from another thread: the results still owed are missing, which fails them */
    }
    crash_signal = number;
    siglongjmp(crash_point, 1);
}

static void catch_crashes(void)
{
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    main_thread = pthread_self();
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_NODEFER};
        sigaction(signals[i], &action, NULL);
    }
}

static bool run_guarded(const struct check *check, const struct kernels *k)
{
    if (sigsetjmp(crash_point, 1))
        return fail("crashed: %s", strsignal(crash_signal));
    return check->run(k, check->type) && buffers_intact();
}

struct options {
    uint64_t seed;
    const char *only, *isa;
};

static bool selected(const struct options *o, const struct check *check, enum isa isa)
{
    return (!o->only || strstr(check->name, o->only)) && (!o->isa || strcmp(o->isa, isa_name(isa)) == 0);
}

#if defined(__x86_64__)
void kernels_init_avx_vnni_evex(struct kernels *k); /* avx_vnni.c, compiled for AVX-512 */
void kernels_init_amx_emulated(struct kernels *k);  /* amx.c, compiled with amx_emulated.h */
#endif

/* The table of a set; how it runs ("": as it is), or NULL where this processor cannot. */
static const char *table_of(struct kernels *k, enum isa isa)
{
    kernels_init(k, isa);
#if defined(__x86_64__)
    if (isa == ISA_AVX_VNNI && !isa_present(isa) && isa_present(ISA_AVX512_VNNI)) {
        kernels_init_avx_vnni_evex(k);
        return " encoded as AVX-512";
    }
    if (isa == ISA_AMX && !isa_present(isa) && isa_present(ISA_AVX512_BF16)) {
        kernels_init_amx_emulated(k);
        return " with tiles emulated";
    }
#endif
    return isa_present(isa) ? "" : NULL;
}

static int count_selected(const struct options *o, enum isa isa)
{
    int n = 0;
    for (int s = 0; s < SUITES; s++)
        for (const struct check *check = suites[s]; check->name; check++)
            n += selected(o, check, isa);
    return n;
}

/* Results of a set. One that runs in another way than it would on its own processor has one more, which says so. */
static int count_results(const struct options *o, enum isa isa)
{
    struct kernels k;
    const char *how = table_of(&k, isa);
    const int n = count_selected(o, isa);
    return n > 0 && how && *how ? n + 1 : n;
}

static int count_all_results(const struct options *o)
{
    int n = 0;
    for (int isa = 0; isa < ISA_COUNT; isa++)
        n += count_results(o, (enum isa)isa);
    return n;
}

static int run_all(const struct options *o)
{
    int number = 0, failures = 0;
    printf("# seed %llu\n1..%d\n", (unsigned long long)o->seed, count_all_results(o));
    for (int isa = 0; isa < ISA_COUNT; isa++) {
        struct kernels k;
        const char *how = table_of(&k, (enum isa)isa);
        for (int s = 0; s < SUITES; s++)
            for (const struct check *check = suites[s]; check->name; check++) {
                if (!selected(o, check, (enum isa)isa))
                    continue;
                if (!how) {
                    printf("ok %d - %s %s # SKIP this processor has no %s\n", ++number, check->name,
                           isa_name((enum isa)isa), isa_name((enum isa)isa));
                    continue;
                }
                fflush(stdout);
                random_seed(o->seed);
                const bool ok = run_guarded(check, &k);
                buffers_release();
                failures += !ok;
                printf("%s %d - %s %s%s\n", ok ? "ok" : "not ok", ++number, check->name, isa_name((enum isa)isa), how);
            }
        if (count_results(o, (enum isa)isa) > count_selected(o, (enum isa)isa))
            printf("ok %d - the instructions of %s # SKIP this processor has no %s: its kernels ran%s\n", ++number,
                   isa_name((enum isa)isa), isa_name((enum isa)isa), how);
    }
    return failures ? 1 : 0;
}

static int usage(void)
{
    fprintf(stderr, "usage: checkkernels [--seed N] [--only TEXT] [--isa NAME] [--quick]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct options o = {.seed = (uint64_t)time(NULL)};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
            continue;
        }
        const char *option = argv[i], *value = i + 1 < argc ? argv[++i] : NULL;
        if (!value)
            return usage();
        if (strcmp(option, "--seed") == 0)
            o.seed = strtoull(value, NULL, 10);
        else if (strcmp(option, "--only") == 0)
            o.only = value;
        else if (strcmp(option, "--isa") == 0 && isa_parse(value) >= 0)
            o.isa = value;
        else
            return usage();
    }
    catch_crashes();
    return run_all(&o);
}
