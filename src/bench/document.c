#include "bench/document.h"

#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void bytes(struct json_writer *w, const char *key, uint64_t value)
{
    json_write_integer(w, key, (int64_t)value);
}

static void numbers(struct json_writer *w, const char *key, const double *values, size_t n, int decimals)
{
    json_write_open(w, key, '[');
    for (size_t i = 0; i < n; i++)
        json_write_number(w, NULL, values[i], decimals);
    json_write_close(w, ']');
}

/* Milliseconds of the runs; p99 says something from a hundred values on. */
static void write_stats(struct json_writer *w, const char *key, const double *values, size_t n, bool with_values)
{
    const struct stats s = stats_of(values, n);
    if (!n) {
        json_write_null(w, key);
        return;
    }
    json_write_open(w, key, '{');
    json_write_number(w, "mean", s.mean, 3);
    json_write_number(w, "std", s.std, 3);
    json_write_number(w, "min", s.min, 3);
    json_write_number(w, "p50", s.p50, 3);
    json_write_number(w, "p95", s.p95, 3);
    json_write_number(w, "p99", n >= 100 ? s.p99 : NAN, 3);
    json_write_number(w, "max", s.max, 3);
    if (with_values)
        numbers(w, "runs", values, n, 3);
    else
        bytes(w, "n", n);
    json_write_close(w, '}');
}

/* ---- one result -------------------------------------------------------------------------------------------------- */

static void write_model(struct json_writer *w, const struct bench_result *r)
{
    const struct footprint *f = &r->footprint;
    json_write_open(w, "model", '{');
    json_write_text(w, "name", r->model_name);
    json_write_text(w, "sha256", r->settings.model_sha256);
    json_write_text(w, "type", r->type);
    bytes(w, "bytes", f->weights);
    json_write_boolean(w, "random_weights", r->random_weights);
    json_write_boolean(w, "not_for_clinical_use", r->info.not_for_clinical_use);
    json_write_integer(w, "image_tokens", r->info.image_tokens);
    json_write_close(w, '}');
}

static void write_test(struct json_writer *w, const struct bench_result *r)
{
    const struct bench_settings *s = &r->settings;
    json_write_open(w, "test", '{');
    json_write_boolean(w, "image", s->image != NULL);
    if (s->prompt_tokens)
        json_write_integer(w, "prompt_tokens_asked", s->prompt_tokens);
    else
        json_write_null(w, "prompt_tokens_asked");
    if (r->n_runs)
        json_write_integer(w, "prompt_tokens", r->runs[0].prompt_tokens);
    else
        json_write_null(w, "prompt_tokens");
    json_write_integer(w, "max_tokens", s->max_tokens);
    json_write_boolean(w, "fixed", s->fixed);
    json_write_integer(w, "context", r->context);
    json_write_close(w, '}');
}

static void write_tokens(struct json_writer *w, const struct bench_result *r)
{
    double mean = 0;
    int min = 0, max = 0, drafted = 0, accepted = 0, stopped = 0;
    json_write_open(w, "tokens", '{');
    json_write_open(w, "runs", '[');
    for (size_t i = 0; i < r->n_runs; i++) {
        const struct bench_run *run = &r->runs[i];
        json_write_integer(w, NULL, run->tokens);
        mean += (double)run->tokens / (double)r->n_runs;
        min = i && min < run->tokens ? min : run->tokens;
        max = max > run->tokens ? max : run->tokens;
        drafted += run->drafted;
        accepted += run->accepted;
        stopped += run->stopped;
    }
    json_write_close(w, ']');
    json_write_number(w, "mean", r->n_runs ? mean : NAN, 2);
    json_write_integer(w, "min", min);
    json_write_integer(w, "max", max);
    json_write_integer(w, "stopped", stopped);
    json_write_integer(w, "drafted", drafted);
    json_write_integer(w, "accepted", accepted);
    json_write_close(w, '}');
}

static void write_open(struct json_writer *w, const struct bench_result *r)
{
    json_write_open(w, "open", '{');
    json_write_number(w, "cold_ms", r->cold_open_ms, 3);
    json_write_number(w, "cold_first_token_ms", r->cold_first_token_ms, 3);
    json_write_number(w, "cold_resident", r->cold_resident >= 0 ? r->cold_resident : NAN, 4);
    write_stats(w, "warm_ms", r->warm_open_ms, r->n_warm_opens, true);
    json_write_close(w, '}');
}

/* values: room for n_runs. */
static void write_stages(struct json_writer *w, const struct bench_result *r, double *values)
{
    json_write_open(w, "stages", '{');
    write_open(w, r);
    for (int stage = 0; stage < BENCH_STAGES; stage++) {
        const bool absent = (stage == BENCH_IMAGE || stage == BENCH_VISION) && !r->settings.image;
        for (size_t i = 0; i < r->n_runs; i++)
            values[i] = r->runs[i].ms[stage];
        write_stats(w, bench_stage_names[stage], values, absent ? 0 : r->n_runs, true);
    }
    write_stats(w, "token", r->gaps, r->n_gaps, false);
    double whole = 0, parts = 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        whole += r->runs[i].latency_ms;
        for (int stage = 0; stage < BENCH_STAGES; stage++)
            parts += r->runs[i].ms[stage];
    }
    json_write_number(w, "sum_share", whole > 0 ? parts / whole : NAN, 5);
    json_write_close(w, '}');
}

static double rate(double n, double ms)
{
    return ms > 0 ? n * 1e3 / ms : NAN;
}

static void write_throughput(struct json_writer *w, const struct bench_result *r)
{
    double prefill = 0, prefill_ms = 0, decode = 0, decode_ms = 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        prefill += r->runs[i].prefilled;
        prefill_ms += r->runs[i].ms[BENCH_PREFILL];
        decode += r->runs[i].tokens - 1;
        decode_ms += r->runs[i].ms[BENCH_DECODE];
    }
    json_write_open(w, "throughput", '{');
    json_write_number(w, "prefill_tps", rate(prefill, prefill_ms), 3);
    json_write_number(w, "decode_tps", decode > 0 ? rate(decode, decode_ms) : NAN, 3);
    json_write_close(w, '}');
}

/* The speed of decoding as the conversation grows: the mean over stretches of all runs. */
static void write_curve(struct json_writer *w, const struct bench_result *r)
{
    enum { POINTS = 24 };
    size_t longest = 0;
    for (size_t i = 0; i < r->n_runs; i++)
        longest = r->runs[i].n_gaps > longest ? r->runs[i].n_gaps : longest;
    const size_t points = longest < POINTS ? longest : POINTS;
    json_write_open(w, "decode_curve", '[');
    for (size_t k = 0; k < points; k++) {
        const size_t from = longest * k / points, to = longest * (k + 1) / points;
        double ms = 0;
        size_t n = 0;
        for (size_t i = 0; i < r->n_runs; i++)
            for (size_t g = from; g < to && g < r->runs[i].n_gaps; g++, n++)
                ms += r->gaps[r->runs[i].first_gap + g];
        json_write_open(w, NULL, '{');
        json_write_integer(w, "context", r->runs[0].prompt_tokens + (int64_t)(from + to + 1) / 2);
        json_write_number(w, "tps", rate((double)n, ms), 3);
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
}

/* ---- memory, disk ------------------------------------------------------------------------------------------------ */

static void write_phase(struct json_writer *w, const char *key, const struct bench_phase *p,
                        const struct bench_result *r, bool with_proportional)
{
    if (!p->known) {
        json_write_null(w, key);
        return;
    }
    json_write_open(w, key, '{');
    bytes(w, "resident", p->resident);
    bytes(w, "anonymous", p->anonymous);
    bytes(w, "mapped", p->mapped);
    bytes(w, "shared", p->shared);
    bytes(w, "device", p->device);
    if (with_proportional && r->end.proportional)
        bytes(w, "proportional", r->end.proportional);
    else
        json_write_null(w, "proportional");
    json_write_close(w, '}');
}

static void write_series(struct json_writer *w, const struct bench_result *r)
{
    json_write_open(w, "series", '{');
    json_write_open(w, "ms", '[');
    for (size_t i = 0; i < r->n_series; i++)
        json_write_number(w, NULL, r->series[i].ms, 0);
    json_write_close(w, ']');
    json_write_open(w, "resident", '[');
    for (size_t i = 0; i < r->n_series; i++)
        bytes(w, NULL, r->series[i].resident);
    json_write_close(w, ']');
    json_write_open(w, "anonymous", '[');
    for (size_t i = 0; i < r->n_series; i++) {
        const struct watch_sample *s = &r->series[i];
        bytes(w, NULL, s->resident > s->shareable ? s->resident - s->shareable : 0);
    }
    json_write_close(w, ']');
    json_write_close(w, '}');
}

static void write_memory(struct json_writer *w, const struct bench_result *r)
{
    const struct watch_cost *c = &r->watch;
    json_write_open(w, "memory", '{');
    write_phase(w, "load_peak", &r->load, r, false);
    write_phase(w, "steady", &r->steady, r, true);
    write_phase(w, "with_image", &r->with_image, r, false);
    bytes(w, "peak", r->end.peak);
    json_write_open(w, "kv_cache", '{');
    bytes(w, "computed", r->buffers.kv);
    bytes(w, "computed_touched", r->buffers.kv_touched);
    json_write_close(w, '}');
    json_write_open(w, "work", '{');
    bytes(w, "decoder_computed", r->buffers.decoder);
    bytes(w, "encoder_computed", r->settings.image ? r->buffers.encoder : 0);
    bytes(w, "encoder_seen", r->encoder_seen);
    bytes(w, "session_seen", r->session_seen);
    json_write_close(w, '}');
    write_series(w, r);
    json_write_open(w, "sampler", '{');
    bytes(w, "samples", c->samples);
    json_write_number(w, "cpu_ms", c->cpu_ms, 3);
    json_write_number(w, "share", c->wall_ms > 0 ? c->cpu_ms / c->wall_ms : NAN, 6);
    json_write_close(w, '}');
    json_write_close(w, '}');
}

static void write_disk(struct json_writer *w, const struct footprint *f)
{
    json_write_open(w, "disk", '{');
    bytes(w, "weights", f->weights);
    bytes(w, "vision", f->vision);
    json_write_open(w, "by_type", '{');
    for (int type = 0; type <= TENSOR_TYPES; type++)
        if (f->by_type[type])
            bytes(w, type < TENSOR_TYPES ? tensor_type_name((enum tensor_type)type) : "other", f->by_type[type]);
    json_write_close(w, '}');
    bytes(w, "tokenizer_config", f->tokenizer_config);
    bytes(w, "program", f->program);
    bytes(w, "libraries", f->libraries);
    if (f->container)
        bytes(w, "container", f->container);
    else
        json_write_null(w, "container");
    json_write_close(w, '}');
}

/* Of `most` a second, what so much in so many milliseconds is. */
static double share(double amount, double ms, double most)
{
    return amount > 0 && ms > 0 && most > 0 ? amount / ms * 1e3 / most : NAN;
}

/* Each stage as a share of what the machine, or its card, can do at most: multiplying while there are many rows,
 * reading the weights while there is one. Only full answers are counted: a draft reads them once for several tokens. */
static void write_limits(struct json_writer *w, const struct bench_result *r)
{
    const bool on_card = r->card.driver != NULL;
    const struct limits *l = on_card ? NULL : r->settings.limits;
    const struct card_limits *card = on_card ? r->settings.card_limits : NULL;
    double vision = 0, prefill = 0, decode = 0, steps = 0;
    if ((!l && !card) || !r->n_runs) {
        json_write_null(w, "limits");
        return;
    }
    for (size_t i = 0; i < r->n_runs; i++) {
        vision += r->runs[i].ms[BENCH_VISION] / (double)r->n_runs;
        prefill += r->runs[i].ms[BENCH_PREFILL] / (double)r->n_runs;
        decode += r->runs[i].ms[BENCH_DECODE];
        steps += r->runs[i].tokens - 1 - r->runs[i].accepted;
    }
    const double read = card ? card->copy_bytes : l->read_bytes;
    const double vision_peak =
        card ? card_limits_peak(card) : l->multiply[limits_multiply_of(l->isa, r->work.vision_type)];
    const double text_peak = card ? card_limits_peak(card) : l->multiply[limits_multiply_of(l->isa, r->work.text_type)];
    json_write_open(w, "limits", '{');
    if (card)
        card_limits_write_json(w, "measured", card);
    else
        limits_write_json(w, "measured", l);
    json_write_number(w, "image_operations", r->settings.image ? r->work.image : NAN, 0);
    json_write_number(w, "prompt_operations", r->work.prompt, 0);
    json_write_integer(w, "token_bytes", (int64_t)r->work.token_bytes);
    json_write_number(w, "vision_share", r->settings.image ? share(r->work.image, vision, vision_peak) : NAN, 4);
    json_write_number(w, "prefill_share", share(r->work.prompt, prefill, text_peak), 4);
    json_write_number(w, "decode_share", share(steps * (double)r->work.token_bytes, decode, read), 4);
    json_write_close(w, '}');
}

static void write_energy(struct json_writer *w, const struct bench_result *r)
{
    if (!r->energy_source) {
        json_write_null(w, "energy");
        json_write_text(w, "energy_reason", r->energy_reason);
        return;
    }
    json_write_open(w, "energy", '{');
    json_write_text(w, "source", r->energy_source);
    json_write_number(w, "idle_watts", r->idle_watts, 3);
    json_write_number(w, "joules_run", r->joules_run, 3);
    json_write_number(w, "joules_image", r->joules_image, 3);
    json_write_number(w, "joules_token", r->joules_token, 4);
    json_write_close(w, '}');
    json_write_null(w, "energy_reason");
}

/* ---- the page's rows --------------------------------------------------------------------------------------------- */

static const double GIB = 1024.0 * 1024.0 * 1024.0;

/* The page writes "~12 GB" for what its tools (nvidia-smi, htop) count in units of 2^30 bytes. */
static void write_row(struct json_writer *w, const char *name, const char *unit, double value, double limit)
{
    json_write_open(w, NULL, '{');
    json_write_text(w, "name", name);
    json_write_text(w, "unit", unit);
    json_write_number(w, "value", value, 3);
    json_write_number(w, "limit", limit, 3);
    if (isnan(value))
        json_write_null(w, "pass");
    else
        json_write_boolean(w, "pass", value <= limit);
    json_write_close(w, '}');
}

static double known(const struct bench_phase *p)
{
    return p->known ? (double)p->resident / GIB : NAN;
}

/* The page's rows by the bits of a weight: what a device's memory and the disk should hold. */
static int bits_of(const struct bench_result *r)
{
    return strchr("fb", r->type[0]) ? 16 : strchr(r->type, '8') ? 8 : 4;
}

static void write_rows(struct json_writer *w, const struct bench_document *d, const struct bench_result *r, double mean)
{
    const struct footprint *f = &r->footprint;
    const int bits = bits_of(r);
    json_write_open(w, "rows", '[');
    if (d->target_ms > 0)
        write_row(w, "latency, mean", "ms", mean, d->target_ms);
    write_row(w, "RAM, loading", "GiB", known(&r->load), 12);
    write_row(w, "RAM, inference", "GiB", known(&r->steady), 10);
    write_row(w, "RAM, with an image", "GiB", known(&r->with_image), 11);
    write_row(w, "device memory", "GiB", r->card.driver ? (double)r->with_image.device / GIB : NAN,
              bits == 16  ? 8
              : bits == 8 ? 4
                          : 2.5);
    if (bits > 4)
        write_row(w, "disk, weights", "GiB", (double)f->weights / GIB, bits == 16 ? 8 : 4);
    write_row(w, "disk, tokenizer and config", "MB", (double)f->tokenizer_config / 1e6, 5);
    write_row(w, "disk, container image", "GiB", f->container ? (double)f->container / GIB : NAN, 10);
    json_write_close(w, ']');
}

static void write_result(struct json_writer *w, const struct bench_document *d, const struct bench_result *r)
{
    double *values = malloc((r->n_runs + 1) * sizeof *values), mean = 0;
    if (!values) {
        json_write_null(w, NULL);
        return;
    }
    json_write_open(w, NULL, '{');
    write_model(w, r);
    json_write_text(w, "device", r->device);
    json_write_text(w, "device_name", *r->device_name ? r->device_name : NULL);
    if (r->card.driver)
        card_facts_write_json(w, "card", &r->card);
    else
        json_write_null(w, "card");
    json_write_text(w, "kernels", r->kernels);
    json_write_integer(w, "threads", r->info.threads);
    write_test(w, r);
    json_write_boolean(w, "complete", r->complete);
    for (size_t i = 0; i < r->n_runs; i++) {
        values[i] = r->runs[i].latency_ms;
        mean += values[i] / (double)r->n_runs;
    }
    write_stats(w, "latency_ms", values, r->n_runs, true);
    size_t with_text = 0;
    for (size_t i = 0; i < r->n_runs; i++)
        if (!isnan(r->runs[i].ttft_ms))
            values[with_text++] = r->runs[i].ttft_ms;
    write_stats(w, "ttft_ms", values, with_text, true);
    write_tokens(w, r);
    write_stages(w, r, values);
    free(values);
    write_throughput(w, r);
    write_curve(w, r);
    write_memory(w, r);
    write_disk(w, &r->footprint);
    write_energy(w, r);
    write_limits(w, r);
    if (d->target_ms > 0) {
        json_write_open(w, "target", '{');
        json_write_number(w, "ms", d->target_ms, 3);
        json_write_text(w, "from", d->target_from);
        if (r->n_runs)
            json_write_boolean(w, "pass", mean <= d->target_ms);
        else
            json_write_null(w, "pass");
        json_write_close(w, '}');
    } else {
        json_write_null(w, "target");
    }
    write_rows(w, d, r, r->n_runs ? mean : NAN);
    json_write_open(w, "machine", '{');
    machine_state_write_json(w, "before", &r->before);
    machine_state_write_json(w, "after", &r->after);
    json_write_number(w, "others_busy", r->others_busy, 4);
    card_state_write_json(w, "card_before", r->card.meter ? &r->card_before : NULL);
    card_state_write_json(w, "card_after", r->card.meter ? &r->card_after : NULL);
    json_write_close(w, '}');
    json_write_open(w, "warnings", '[');
    for (int i = 0; i < r->n_warnings; i++)
        json_write_text(w, NULL, r->warnings[i]);
    json_write_close(w, ']');
    json_write_close(w, '}');
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void write_protocol(struct json_writer *w, const struct bench_document *d)
{
    const struct bench_settings *s = d->protocol;
    json_write_open(w, "protocol", '{');
    json_write_integer(w, "warmups", s->warmups);
    json_write_integer(w, "warmup_tokens", s->warmup_tokens);
    json_write_integer(w, "runs", s->runs);
    json_write_boolean(w, "fixed", s->fixed);
    json_write_boolean(w, "caches_kept", s->keep_caches);
    json_write_boolean(w, "cold_start", s->cold);
    json_write_string(w, "sampling", "greedy", 6);
    if (s->draft_max)
        json_write_integer(w, "draft_max", s->draft_max < 0 ? 0 : s->draft_max);
    else
        json_write_string(w, "draft_max", "auto", 4);
    if (d->prompt_sha256) {
        json_write_open(w, "prompt", '{');
        json_write_text(w, "sha256", d->prompt_sha256);
        json_write_boolean(w, "default", !d->prompt_given);
        json_write_close(w, '}');
    } else {
        json_write_null(w, "prompt");
    }
    if (s->image) {
        json_write_open(w, "image", '{');
        json_write_text(w, "sha256", s->image->sha256);
        bytes(w, "bytes", s->image->length);
        json_write_integer(w, "width", s->image->width);
        json_write_integer(w, "height", s->image->height);
        json_write_boolean(w, "drawn", s->image->drawn);
        json_write_boolean(w, "padded", s->image_options.pad);
        json_write_close(w, '}');
    } else {
        json_write_null(w, "image");
    }
    json_write_close(w, '}');
}

void bench_write_document(struct json_writer *w, const struct bench_document *d, const struct bench_result *results,
                          size_t n)
{
    json_write_open(w, NULL, '{');
    json_write_text(w, "format", BENCH_FORMAT);
    json_write_integer(w, "version", BENCH_VERSION);
    json_write_text(w, "ward", WARD_VERSION);
    json_write_text(w, "started", d->started);
    json_write_boolean(w, "complete", d->complete);
    write_protocol(w, d);
    machine_write_json(w, "environment", d->machine);
    json_write_open(w, "results", '[');
    for (size_t i = 0; i < n; i++)
        write_result(w, d, &results[i]);
    json_write_close(w, ']');
    json_write_close(w, '}');
}
