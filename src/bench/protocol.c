#include "bench/protocol.h"

#include "base/clock.h"
#include "base/mapping.h"
#include "bench/film.h"
#include "bench/pagecache.h"
#include "bench/words.h"
#include "image/image.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

const char *const bench_stage_names[BENCH_STAGES] = {"image", "vision", "prefill", "first_token", "decode"};

enum { WATCH_PERIOD_MS = 20 };

/* ---- the image --------------------------------------------------------------------------------------------------- */

int bench_image_open(struct bench_image *out, const char *path, const struct ward_image_options *options,
                     char warning[256], struct ward_error *err)
{
    enum { LIMIT = 1 << 30 };
    ward_image *image = NULL;
    char *text = NULL;
    *out = (struct bench_image){.drawn = !path};
    warning[0] = '\0';
    int rc = path ? file_read(&text, &out->length, path, LIMIT, err) : film_draw(&out->bytes, &out->length, err);
    if (path)
        out->bytes = (uint8_t *)text;
    if (!rc)
        rc = ward_image_read(&image, out->bytes, out->length, path ? path : "the drawn film", options, warning, err);
    if (rc) {
        bench_image_clear(out);
        return rc;
    }
    uint8_t hash[SHA256_BYTES];
    sha256_of(hash, out->bytes, out->length);
    sha256_hex(out->sha256, hash);
    out->width = image->width;
    out->height = image->height;
    ward_image_close(&image);
    return 0;
}

void bench_image_clear(struct bench_image *image)
{
    free(image->bytes);
    *image = (struct bench_image){0};
}

/* ---- one measurement --------------------------------------------------------------------------------------------- */

struct job {
    struct bench_result *out;
    const struct bench_settings *s;
    const struct bench_hooks *hooks;
    struct ward_error *err;
    struct energy energy;
    struct watch *watch;
    ward_model *model;
    ward_session *session;
    char *prompt;
    double started;
    uint64_t anonymous_before; /* a session was opened */
    size_t device_loaded;      /* of a card's memory, when the model was open */
    bool stopped;
    /* of the run that goes on */
    double *times; /* [max_tokens] when each token came */
    int n_times;
    double first_text;
};

static void warn(struct bench_result *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(struct bench_result *r, const char *format, ...)
{
    if (r->n_warnings == BENCH_WARNINGS)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(r->warnings[r->n_warnings++], sizeof r->warnings[0], format, args);
    va_end(args);
}

static bool stop_asked(struct job *job)
{
    job->stopped = job->stopped || (job->hooks->stop && job->hooks->stop(job->hooks->user));
    return job->stopped;
}

static void tell(const struct job *job, const char *what, int done, int total)
{
    if (job->hooks->progress)
        job->hooks->progress(job->hooks->user, what, done, total);
}

static int on_token(void *user, const struct ward_token *token)
{
    struct job *job = user;
    const double now = clock_ms();
    job->times[job->n_times++] = now;
    if (token->length && isnan(job->first_text))
        job->first_text = now;
    return stop_asked(job);
}

static int on_progress(void *user, const char *stage, int done, int total)
{
    (void)stage;
    (void)done;
    (void)total;
    return stop_asked(user);
}

static uint64_t anonymous(const struct watch_sample *s)
{
    return s->resident > s->shareable ? s->resident - s->shareable : 0;
}

static int open_session(struct job *job)
{
    const struct ward_session_options options = {.context = job->out->context, .encode_always = !job->s->keep_caches};
    const struct watch_sample now = watch_look(job->watch);
    job->anonymous_before = anonymous(&now);
    return ward_session_open(&job->session, job->model, &options, job->err);
}

static int open_model(struct job *job, double *ms)
{
    const double start = clock_ms();
    int rc = ward_model_open(&job->model, job->s->model_path, &job->s->model, job->err);
    *ms = clock_ms() - start;
    return rc;
}

/* An answer, timed; WARD_ECANCELLED when it was interrupted. */
static int answer(struct job *job, int max_tokens, struct bench_run *run)
{
    const struct bench_settings *s = job->s;
    struct ward_result result;
    ward_image *image = NULL;
    *run = (struct bench_run){.ttft_ms = NAN};
    if (job->session && !s->keep_caches)
        ward_session_close(&job->session);
    int rc = job->session ? 0 : open_session(job);
    if (rc)
        return rc;
    job->n_times = 0;
    job->first_text = NAN;
    watch_look(job->watch);

    run->start = clock_ms();
    if (s->image)
        rc = ward_image_read(&image, s->image->bytes, s->image->length, "the image", &s->image_options, NULL, job->err);
    const double decoded = clock_ms();
    const struct ward_part parts[2] = {{.image = image}, {.text = job->prompt}};
    const struct ward_message message = {.role = "user", .parts = image ? parts : parts + 1, .n_parts = image ? 2 : 1};
    const struct ward_generate_options options = {
        .max_tokens = max_tokens, .ignore_eos = s->fixed, .draft_max = s->draft_max, .on_token = on_token,
        .on_progress = on_progress, .user = job,
    };
    if (!rc)
        rc = ward_generate(job->session, &message, 1, &options, &result, job->err);
    run->end = clock_ms();
    run->looked = watch_look(job->watch).ms;
    ward_image_close(&image);
    if (rc)
        return rc;

    const double in_prefill = result.image_ms + result.vision_ms + result.prefill_ms;
    run->ms[BENCH_IMAGE] = decoded - run->start + result.image_ms;
    run->ms[BENCH_VISION] = result.vision_ms;
    run->ms[BENCH_PREFILL] = result.prefill_ms;
    run->ms[BENCH_FIRST_TOKEN] = result.first_token_ms - in_prefill;
    run->ms[BENCH_DECODE] = result.decode_ms;
    run->latency_ms = run->end - run->start;
    run->ttft_ms = job->first_text - run->start;
    run->first = decoded + result.first_token_ms;
    run->vision_to = run->first - run->ms[BENCH_FIRST_TOKEN] - result.prefill_ms;
    run->vision_from = run->vision_to - result.vision_ms;
    run->tokens = (int)result.n_ids;
    run->prompt_tokens = (int)result.n_prompt_ids;
    run->prefilled = result.prefill_tokens;
    run->drafted = result.drafted_tokens;
    run->accepted = result.accepted_tokens;
    run->stopped = result.finish == WARD_FINISH_STOP;
    const bool cancelled = result.finish == WARD_FINISH_CANCELLED;
    ward_result_clear(&result);
    return cancelled ? WARD_ECANCELLED : 0;
}

static int keep_run(struct job *job, struct bench_run *run)
{
    struct bench_result *r = job->out;
    run->first_gap = r->n_gaps;
    run->n_gaps = job->n_times > 1 ? (size_t)job->n_times - 1 : 0;
    double *gaps = reallocarray(r->gaps, r->n_gaps + run->n_gaps + 1, sizeof *gaps);
    if (!gaps)
        return error_no_memory(job->err, "the results", (r->n_gaps + run->n_gaps + 1) * sizeof *gaps);
    r->gaps = gaps;
    for (size_t i = 0; i < run->n_gaps; i++)
        r->gaps[r->n_gaps++] = job->times[i + 1] - job->times[i];
    r->runs[r->n_runs++] = *run;
    return 0;
}

/* ---- memory, energy, the machine --------------------------------------------------------------------------------- */

static struct bench_phase phase_of(const struct watch_sample *s, uint64_t shared)
{
    const uint64_t in_files = s->shareable > shared ? s->shareable - shared : 0;
    return (struct bench_phase){.resident = s->resident,
                                .anonymous = anonymous(s),
                                .mapped = in_files,
                                .shared = s->shareable - in_files,
                                .known = s->resident > 0};
}

static void keep_larger(struct watch_sample *best, struct watch_sample candidate)
{
    if (candidate.resident > best->resident)
        *best = candidate;
}

static void keep_memory(struct job *job, double loaded)
{
    struct bench_result *r = job->out;
    struct watch_sample load = watch_peak(job->watch, job->started, loaded), image = {0}, steady = {0};
    memory_now(&r->end);
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct bench_run *run = &r->runs[i];
        if (job->s->image)
            keep_larger(&image, watch_peak(job->watch, run->start, run->first));
        keep_larger(&steady, watch_peak(job->watch, job->s->image ? run->first : run->start, run->looked));
        if (job->s->image) {
            const struct watch_sample encoder = watch_peak(job->watch, run->start, run->vision_to);
            const uint64_t seen = anonymous(&encoder);
            if (seen > job->anonymous_before && seen - job->anonymous_before > r->encoder_seen)
                r->encoder_seen = seen - job->anonymous_before;
        }
    }
    r->load = phase_of(&load, r->end.shared);
    r->with_image = phase_of(&image, r->end.shared);
    r->steady = phase_of(&steady, r->end.shared);
    size_t device, most;
    ward_model_device_memory(job->model, &device, &most);
    r->load.device = job->device_loaded;
    r->steady.device = device;
    r->with_image.device = most;
    if (r->n_runs) {
        const struct bench_run *last = &r->runs[r->n_runs - 1];
        const struct watch_sample now = watch_look(job->watch);
        r->session_seen = anonymous(&now) > job->anonymous_before ? anonymous(&now) - job->anonymous_before : 0;
        r->work = model_work(job->model, last->prefilled);
        r->buffers = buffer_sizes(job->model, r->context, last->prompt_tokens + last->tokens - 1);
    }
    r->n_series = watch_series(job->watch, job->started, clock_ms(), r->series, BENCH_SERIES);
    for (size_t i = 0; i < r->n_series; i++)
        r->series[i].ms -= job->started;
    r->watch = watch_cost(job->watch);
}

static void keep_energy(struct job *job)
{
    struct bench_result *r = job->out;
    double idle = job->s->idle_watts > 0 ? job->s->idle_watts / 1e3 : 0; /* joules a millisecond */
    if (job->energy.card && job->s->card_idle_watts > 0)
        idle += job->s->card_idle_watts / 1e3;
    r->idle_watts = job->s->idle_watts >= 0 || job->energy.card ? idle * 1e3 : NAN;
    double whole = 0, image = 0, decode = 0;
    int tokens = 0;
    r->energy_source = job->energy.source;
    r->energy_reason = job->energy.reason;
    r->joules_run = r->joules_image = r->joules_token = NAN;
    if (!r->energy_source || !r->n_runs)
        return;
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct bench_run *run = &r->runs[i];
        whole += watch_joules(job->watch, run->start, run->end) - idle * run->latency_ms;
        image += watch_joules(job->watch, run->start, run->vision_to) - idle * (run->vision_to - run->start);
        decode += watch_joules(job->watch, run->first, run->end) - idle * (run->end - run->first);
        tokens += run->tokens - 1;
    }
    r->joules_run = whole / (double)r->n_runs;
    if (job->s->image)
        r->joules_image = image / (double)r->n_runs;
    if (tokens)
        r->joules_token = decode / tokens;
}

static double own_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* What else the processors did during the timed runs, and whether heat slowed them. */
static void keep_machine(struct job *job, double own)
{
    enum { FEWEST = 50 }; /* ticks: fewer are too coarse */
    struct bench_result *r = job->out;
    const int64_t ticks = r->after.ticks - r->before.ticks, idle = r->after.idle_ticks - r->before.idle_ticks;
    const double hertz = (double)sysconf(_SC_CLK_TCK);
    r->others_busy = NAN;
    if (ticks >= FEWEST) {
        const double others = (double)(ticks - idle) - own * hertz;
        r->others_busy = others > 0 ? others / (double)ticks : 0;
    }
    if (r->others_busy > 0.05)
        warn(r, "the machine was busy: other programs used %.0f %% of its processors during the runs",
             100 * r->others_busy);
    if (r->before.throttled >= 0 && r->after.throttled > r->before.throttled)
        warn(r, "the processor was throttled by heat %lld times during the runs",
             (long long)(r->after.throttled - r->before.throttled));
    if (r->card_after.slowed)
        warn(r, "the card was slowed by heat or by its power limit at the end of the runs");
    if (r->after.on_battery)
        warn(r, "the machine runs on its battery");
}

/* ---- the steps --------------------------------------------------------------------------------------------------- */

/* Drops the files from the page cache; what another process has mapped stays. */
static void drop_files(struct job *job)
{
    struct bench_result *r = job->out;
    double bytes = 0, resident = 0;
    bool told = true;
    for (size_t i = 0; i < r->footprint.n_files; i++) {
        const struct footprint_file *file = &r->footprint.files[i];
        double share;
        struct ward_error ignored;
        if (pagecache_drop(file->path, &share, &ignored) || share < 0)
            told = false;
        bytes += (double)file->bytes;
        resident += share > 0 ? share * (double)file->bytes : 0;
    }
    r->cold_resident = !told ? -1 : bytes > 0 ? resident / bytes : 0;
    if (!told)
        warn(r, "cold start: whether the files left the page cache is not told; the cold figures may be warm ones");
    else if (r->cold_resident > 0.01)
        warn(r, "cold start: %.0f %% of the files stayed in the page cache (another process has them mapped, or the "
                "file system keeps them); the cold figures are too good", 100 * r->cold_resident);
}

/* What is to be opened, looked at without a backend: its weights are not read, and nothing stays mapped. */
static int prepare_files(struct job *job)
{
    struct bench_result *r = job->out;
    struct checkpoint checkpoint;
    r->cold_open_ms = r->cold_first_token_ms = NAN;
    r->cold_resident = -1;
    int rc = checkpoint_open(&checkpoint, job->s->model_path, job->s->model.mmproj, job->err);
    if (!rc)
        rc = footprint_read(&r->footprint, &checkpoint, job->err);
    if (!rc && job->s->image && !checkpoint.config.image_tokens)
        rc = error_set(job->err, WARD_EUNSUPPORTED, "%s: has no image encoder; give its file by --mmproj, or no image",
                       job->s->model_path);
    checkpoint_close(&checkpoint);
    if (!rc && job->s->cold)
        drop_files(job);
    return rc;
}

static void keep_info(struct job *job)
{
    struct bench_result *r = job->out;
    ward_model_get_info(job->model, &r->info);
    snprintf(r->type, sizeof r->type, "%s", r->info.type);
    snprintf(r->device, sizeof r->device, "%s", r->info.device);
    snprintf(r->kernels, sizeof r->kernels, "%s", r->info.kernels);
    snprintf(r->device_name, sizeof r->device_name, "%s", r->info.device_name ? r->info.device_name : "");
    if (r->info.device_note)
        warn(r, "%s", r->info.device_note);
    r->random_weights = job->model->checkpoint.config.random_weights;
    if (r->info.mmproj_guessed)
        warn(r, "others than the image encoder that was taken lie beside the model: --mmproj chooses");
    r->info.path = r->info.mmproj = r->info.type = r->info.device = r->info.kernels = NULL;
    r->info.device_name = r->info.device_note = NULL;
}

/* The prompt, and a context that it fits. */
static int prepare_prompt(struct job *job)
{
    enum { DEFAULT_CONTEXT = 8192 };
    const struct bench_settings *s = job->s;
    const int limit = job->out->info.context_limit, wanted = s->prompt_tokens + s->max_tokens + 1;
    job->out->context = s->context ? s->context : DEFAULT_CONTEXT < limit ? DEFAULT_CONTEXT : limit;
    if (!s->context && wanted > job->out->context)
        job->out->context = wanted < limit ? wanted : limit;
    if (!s->prompt_tokens) {
        job->prompt = strdup(s->prompt);
        return job->prompt ? 0 : error_no_memory(job->err, "the prompt", strlen(s->prompt));
    }
    ward_image *image = NULL;
    int n = 0, rc = 0;
    if (s->image)
        rc = ward_image_read(&image, s->image->bytes, s->image->length, "the image", &s->image_options, NULL, job->err);
    if (!rc)
        rc = words_for_tokens(&job->prompt, &n, job->model, image, s->prompt_tokens, job->err);
    ward_image_close(&image);
    if (!rc && n != s->prompt_tokens)
        warn(job->out, "a prompt of %d tokens was asked for; the nearest has %d", s->prompt_tokens, n);
    return rc;
}

/* The card that computes is metered from here on. */
static void add_card(struct job *job)
{
    const int card = job->model->backend->card;
    if (card < 0 || card_facts_read(&job->out->card, card, NULL))
        return;
    watch_meter(job->watch, NULL);
    energy_add_card(&job->energy, card);
    watch_meter(job->watch, job->energy.source ? &job->energy : NULL);
}

/* Opens, warms up; *loaded is when the first token of the first answer came. */
static int warm_up(struct job *job, double *loaded)
{
    const struct bench_settings *s = job->s;
    struct bench_result *r = job->out;
    double open_ms;
    tell(job, "opening", 0, 0);
    job->started = clock_ms();
    watch_look(job->watch);
    int rc = open_model(job, &open_ms);
    *loaded = clock_ms();
    if (rc)
        return rc;
    keep_info(job);
    add_card(job);
    size_t peak;
    ward_model_device_memory(job->model, &job->device_loaded, &peak);
    rc = prepare_prompt(job);
    if (s->cold)
        r->cold_open_ms = open_ms;
    for (int i = 0; !rc && i < s->warmups && !stop_asked(job); i++) {
        struct bench_run run;
        tell(job, "warm-up", i + 1, s->warmups);
        const int most = s->warmup_tokens < s->max_tokens ? s->warmup_tokens : s->max_tokens;
        rc = answer(job, most ? most : 1, &run);
        if (!rc && i == 0) {
            *loaded = run.first;
            if (s->cold)
                r->cold_first_token_ms = open_ms + run.first - run.start;
        }
    }
    return rc;
}

static void read_card(const struct job *job, struct nvml_state *out)
{
    if (job->out->card.meter)
        nvml_read(job->out->card.meter, out);
}

static int timed_runs(struct job *job)
{
    const struct bench_settings *s = job->s;
    int rc = 0;
    machine_read_state(&job->out->before, "");
    read_card(job, &job->out->card_before);
    const double own = own_seconds();
    for (int i = 0; !rc && i < s->runs && !stop_asked(job); i++) {
        struct bench_run run;
        tell(job, "run", i + 1, s->runs);
        rc = answer(job, s->max_tokens ? s->max_tokens : 1, &run);
        if (!rc)
            rc = keep_run(job, &run);
    }
    machine_read_state(&job->out->after, "");
    read_card(job, &job->out->card_after);
    keep_machine(job, own_seconds() - own);
    return rc;
}

static int warm_opens(struct job *job)
{
    struct bench_result *r = job->out;
    int rc = 0;
    ward_session_close(&job->session);
    ward_model_close(&job->model);
    while (!rc && r->n_warm_opens < BENCH_WARM_OPENS && !stop_asked(job)) {
        rc = open_model(job, &r->warm_open_ms[r->n_warm_opens]);
        r->n_warm_opens += !rc;
        ward_model_close(&job->model);
    }
    return rc;
}

static char *last_part(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin && path[begin - 1] != '/')
        begin--;
    return strndup(path + begin, end - begin);
}

static int run_job(struct job *job)
{
    struct bench_result *r = job->out;
    const struct bench_settings *s = job->s;
    const size_t most = (size_t)(s->max_tokens > s->warmup_tokens ? s->max_tokens : s->warmup_tokens);
    double loaded = 0;
    r->model_name = last_part(s->model_path);
    r->runs = calloc((size_t)s->runs + 1, sizeof *r->runs);
    job->times = calloc(most + 1, sizeof *job->times);
    if (!r->runs || !job->times || !r->model_name)
        return error_no_memory(job->err, "the results", most * sizeof *job->times);
    int rc = prepare_files(job);
    if (!rc)
        rc = watch_open(&job->watch, WATCH_PERIOD_MS, job->energy.source ? &job->energy : NULL, job->err);
    if (!rc)
        rc = warm_up(job, &loaded);
    if (!rc)
        rc = timed_runs(job);
    if (rc == WARD_ECANCELLED)
        rc = 0;
    if (!rc) {
        keep_memory(job, loaded);
        keep_energy(job);
        rc = warm_opens(job);
    }
    r->complete = !rc && !job->stopped;
    return rc;
}

int bench_measure(struct bench_result *out, const struct bench_settings *settings, const struct bench_hooks *hooks,
                  struct ward_error *err)
{
    struct job job = {.out = out, .s = settings, .hooks = hooks, .err = err};
    *out = (struct bench_result){.settings = *settings};
    energy_open(&job.energy, "");
    const int rc = run_job(&job);
    watch_close(&job.watch);
    ward_session_close(&job.session);
    ward_model_close(&job.model);
    free(job.prompt);
    free(job.times);
    return rc;
}

void bench_result_clear(struct bench_result *r)
{
    free(r->model_name);
    free(r->runs);
    free(r->gaps);
    footprint_clear(&r->footprint);
    *r = (struct bench_result){0};
}

void bench_idle(double ms, int card, double *watts, double *card_watts)
{
    struct energy energy;
    struct nvml_state before = {0}, after = {0};
    const struct nvml_card *meter = card < 0 ? NULL : nvml_open(card, NULL);
    *watts = *card_watts = -1;
    energy_open(&energy, "");
    if (!energy.source && !meter)
        return;
    const double start = clock_ms(), first = energy_joules(&energy, start);
    if (meter)
        nvml_read(meter, &before);
    const struct timespec wait = {(time_t)(ms / 1e3), (long)(fmod(ms, 1e3) * 1e6)};
    nanosleep(&wait, NULL);
    if (meter)
        nvml_read(meter, &after);
    const double end = clock_ms();
    if (energy.source)
        *watts = (energy_joules(&energy, end) - first) / (end - start) * 1e3;
    if (meter && before.joules >= 0)
        *card_watts = (after.joules - before.joules) / (end - start) * 1e3;
}
