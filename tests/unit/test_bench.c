/* What `ward bench` computes and reads: statistics against numpy's and scipy's, meters from small trees of files, the
 * page cache, memory that is watched, prompts of so many tokens. Run from the root of the repository. */
#include "folder.h"

#include "base/clock.h"
#include "bench/energy.h"
#include "bench/film.h"
#include "bench/footprint.h"
#include "bench/pagecache.h"
#include "bench/stats.h"
#include "bench/watch.h"
#include "bench/words.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#define PHANTOM "models/phantom"

static void is_near(double got, double expected)
{
    if (!(fabs(got - expected) <= 1e-12 * fabs(expected)))
        fail_msg("got %.17g, expected %.17g", got, expected);
}

/* ---- statistics -------------------------------------------------------------------------------------------------- */

static void statistics_are_numpys(void **state)
{
    (void)state;
    const double x[] = {3.5, 1.25, 9, 4, 4.5, 7.75, 2, 8, 6, 5.5, 11};
    const struct stats s = stats_of(x, 11);
    is_near(s.mean, 5.681818181818182);
    is_near(s.std, 2.8803624083274286);
    is_near(s.p25, 3.75);
    is_near(s.p50, 5.5);
    is_near(s.p75, 7.875);
    is_near(s.p95, 10.0);
    is_near(s.p99, 10.8);
    is_near(s.min, 1.25);
    is_near(s.max, 11);
    const struct stats one = stats_of(x, 1), none = stats_of(x, 0);
    is_near(one.p99, 3.5);
    assert_true(one.std <= 0 && isnan(none.mean) && isnan(none.p50) && none.n == 0);
}

static void ranks_are_scipys(void **state)
{
    (void)state;
    const double a[] = {12.1, 11.8, 12.4, 12.0, 11.9, 12.2}, b[] = {12.9, 12.6, 12.3, 13.0, 12.7};
    is_near(stats_mann_whitney(a, 6, b, 5), 0.008658008658008658);
    is_near(stats_mann_whitney(b, 5, a, 6), 0.008658008658008658);
    const double tied_a[] = {1, 2, 3, 4, 5, 6, 7, 8}, tied_b[] = {2, 4, 4, 6, 8, 9, 9};
    is_near(stats_mann_whitney(tied_a, 8, tied_b, 7), 0.29414686448863514);
    double many_a[40], many_b[40];
    for (int i = 0; i < 40; i++) {
        many_a[i] = 2 * i;
        many_b[i] = 2 * i + 7;
    }
    is_near(stats_mann_whitney(many_a, 40, many_b, 40), 0.1989305781861731);
    const double even_a[] = {1, 4, 5, 8}, even_b[] = {2, 3, 6, 7};
    is_near(stats_mann_whitney(even_a, 4, even_b, 4), 1);
    is_near(stats_mann_whitney(even_a, 4, even_a, 0), 1);
    const double same[] = {3, 3, 3};
    is_near(stats_mann_whitney(same, 3, same, 3), 1);
}

/* ---- energy ------------------------------------------------------------------------------------------------------ */

static void put_zone(const struct folder *f, const char *zone, const char *name, const char *energy)
{
    char path[128];
    snprintf(path, sizeof path, "sys/class/powercap/%s/name", zone);
    folder_write_text(f, path, name);
    snprintf(path, sizeof path, "sys/class/powercap/%s/energy_uj", zone);
    folder_write_text(f, path, energy);
    snprintf(path, sizeof path, "sys/class/powercap/%s/max_energy_range_uj", zone);
    folder_write_text(f, path, "1000000000\n");
}

static void packages_and_their_memory_are_metered(void **state)
{
    (void)state;
    struct folder f;
    struct energy e;
    folder_open(&f);
    put_zone(&f, "intel-rapl:0", "package-0\n", "5000000\n");
    put_zone(&f, "intel-rapl:0:0", "core\n", "1000000\n"); /* within the package: counted already */
    put_zone(&f, "intel-rapl:0:1", "dram\n", "999000000\n");
    put_zone(&f, "intel-rapl:1", "psys\n", "7000000\n");
    energy_open(&e, f.path);
    assert_string_equal(e.source, "rapl");
    assert_true(energy_joules(&e, 0) <= 0);
    put_zone(&f, "intel-rapl:0", "package-0\n", "7500000\n");
    put_zone(&f, "intel-rapl:0:0", "core\n", "2000000\n");
    put_zone(&f, "intel-rapl:0:1", "dram\n", "500000\n"); /* it has begun again */
    put_zone(&f, "intel-rapl:1", "psys\n", "9000000\n");
    is_near(energy_joules(&e, 1), 2.5 + 1.5);
    folder_close(&f);
}

static void rails_of_a_jetson_are_integrated(void **state)
{
    (void)state;
#define CHIP "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/"
    struct folder f;
    struct energy e;
    folder_open(&f);
    folder_write_text(&f, CHIP "in1_label", "VDD_IN\n");
    folder_write_text(&f, CHIP "in1_input", "5000\n");
    folder_write_text(&f, CHIP "curr1_input", "1000\n");
    folder_write_text(&f, CHIP "in2_label", "VDD_CPU_GPU_CV\n");
    folder_write_text(&f, CHIP "in2_input", "5000\n");
    folder_write_text(&f, CHIP "curr2_input", "400\n");
    energy_open(&e, f.path);
    assert_string_equal(e.source, "ina3221");
    const double start = e.last_ms;
    is_near(energy_joules(&e, start + 2000), 10);
    folder_write_text(&f, CHIP "curr1_input", "3000\n");
    is_near(energy_joules(&e, start + 3000), 10 + 10); /* from 5 to 15 W in a second */
    folder_close(&f);
#undef CHIP
}

static void no_meter_has_a_reason(void **state)
{
    (void)state;
    struct folder f;
    struct energy e;
    folder_open(&f);
    energy_open(&e, f.path);
    assert_null(e.source);
    assert_non_null(e.reason);
    assert_true(energy_joules(&e, 10) <= 0);
    folder_close(&f);
}

/* ---- the page cache ---------------------------------------------------------------------------------------------- */

static void files_leave_the_page_cache(void **state)
{
    (void)state;
    enum { SIZE = 3 << 20 };
    struct folder f;
    struct ward_error err;
    char path[300];
    double resident;
    char *data = malloc(SIZE);
    folder_open(&f);
    memset(data, 1, SIZE);
    folder_write(&f, "weights", data, SIZE);
    free(data);
    snprintf(path, sizeof path, "%s/weights", f.path);
    is_near(pagecache_resident(path), 1);
    assert_int_equal(pagecache_drop(path, &resident, &err), 0);
    if (resident > 0) { /* of tmpfs there is nothing behind the cache */
        print_message("# this file system keeps its files in memory\n");
        folder_close(&f);
        skip();
    }
    assert_true(resident >= 0 && pagecache_resident(path) <= 0);
    /* What a process has mapped and touched stays, and is told. */
    FILE *file = fopen(path, "rb");
    unsigned char *map = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fileno(file), 0);
    volatile unsigned sum = 0;
    for (int i = 0; i < SIZE; i += 4096)
        sum += map[i];
    assert_int_equal(pagecache_drop(path, &resident, &err), 0);
    is_near(resident, 1);
    munmap(map, SIZE);
    fclose(file);
    snprintf(path, sizeof path, "%s/nothing", f.path);
    assert_int_equal(pagecache_drop(path, &resident, &err), WARD_EIO);
    assert_true(resident < 0);
    folder_close(&f);
}

/* ---- watching ---------------------------------------------------------------------------------------------------- */

static void memory_is_seen_while_it_is_there(void **state)
{
    (void)state;
    enum { SIZE = 64 << 20 };
    struct watch *watch;
    struct watch_sample series[8];
    const struct timespec wait = {0, 30 * 1000 * 1000};
    assert_int_equal(watch_open(&watch, 5, NULL, NULL), 0);
    const struct watch_sample before = watch_look(watch);
    const double start = clock_ms();
    char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 1, SIZE);
    nanosleep(&wait, NULL);
    munmap(memory, SIZE);
    const double end = clock_ms();
    nanosleep(&wait, NULL);
    const struct watch_sample peak = watch_peak(watch, start, end), after = watch_look(watch);
    assert_true(peak.resident > before.resident + SIZE * 9 / 10);
    assert_true(after.resident < peak.resident - SIZE / 2);
    assert_true(watch_peak(watch, 0, start - 1e6).resident == 0);
    const size_t n = watch_series(watch, start, clock_ms(), series, 8);
    assert_true(n > 1 && n <= 8);
    for (size_t i = 1; i < n; i++)
        assert_true(series[i].ms > series[i - 1].ms);
    const struct watch_cost cost = watch_cost(watch);
    assert_true(cost.samples >= 5 && cost.cpu_ms > 0 && cost.wall_ms >= 60);
    watch_close(&watch);
    struct memory_now now;
    memory_now(&now);
    assert_true(now.peak >= now.resident && now.resident > 0 && now.anonymous > 0 && now.mapped > 0);
}

/* ---- prompts, footprints ----------------------------------------------------------------------------------------- */

static void prompts_have_the_tokens_asked_for(void **state)
{
    (void)state;
    struct ward_model *model;
    struct ward_error err;
    ward_image *image;
    char *text;
    int n;
    assert_int_equal(ward_model_open(&model, PHANTOM, NULL, &err), 0);
    for (int wanted = 40; wanted <= 600; wanted += 56) {
        assert_int_equal(words_for_tokens(&text, &n, model, NULL, wanted, &err), 0);
        assert_true(n <= wanted && n > wanted - 12);
        free(text);
    }
    uint8_t *film;
    size_t length;
    assert_int_equal(film_draw(&film, &length, &err), 0);
    assert_int_equal(ward_image_read(&image, film, length, "film", NULL, NULL, &err), 0);
    assert_int_equal(words_for_tokens(&text, &n, model, image, 100, &err), 0);
    assert_true(n <= 100 && n > 88);
    free(text);
    /* There is no prompt of one token: the shortest has a word. */
    assert_int_equal(words_for_tokens(&text, &n, model, NULL, 1, &err), 0);
    assert_true(n > 1 && n < 40);
    assert_null(strchr(text, ' '));
    free(text);
    ward_image_close(&image);
    free(film);
    ward_model_close(&model);
}

static void a_checkpoint_is_added_up(void **state)
{
    (void)state;
    struct checkpoint checkpoint;
    struct footprint f;
    struct ward_error err;
    uint64_t files = 0, types = 0;
    assert_int_equal(checkpoint_open(&checkpoint, PHANTOM, NULL, &err), 0);
    assert_int_equal(footprint_read(&f, &checkpoint, &err), 0);
    for (size_t i = 0; i < f.n_files; i++)
        files += f.files[i].bytes;
    for (int type = 0; type <= TENSOR_TYPES; type++)
        types += f.by_type[type];
    assert_true(types > 0 && types <= f.weights && f.weights - types < 200000); /* the headers */
    assert_true(f.weights + f.tokenizer_config == files);
    assert_true(f.vision > 0 && f.vision < types && f.by_type[TENSOR_BF16] > types / 2);
    assert_true(f.program > 0 && f.libraries > 0);
    footprint_clear(&f);
    checkpoint_close(&checkpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_are_numpys),
        cmocka_unit_test(ranks_are_scipys),
        cmocka_unit_test(packages_and_their_memory_are_metered),
        cmocka_unit_test(rails_of_a_jetson_are_integrated),
        cmocka_unit_test(no_meter_has_a_reason),
        cmocka_unit_test(files_leave_the_page_cache),
        cmocka_unit_test(memory_is_seen_while_it_is_there),
        cmocka_unit_test(prompts_have_the_tokens_asked_for),
        cmocka_unit_test(a_checkpoint_is_added_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
