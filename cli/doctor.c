#include "doctor.h"
#include "lock.h"
#include "output.h"

#include "base/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- the verdict ------------------------------------------------------------------------------------------------- */

static void judge_lock(struct doctor_check *c)
{
    const struct offline_state *state = offline_state();
    *c = (struct doctor_check){.name = "offline, enforced", .needed = "Landlock and seccomp"};
    if (state->enforced) {
        snprintf(c->found, sizeof c->found, "Landlock %d, seccomp", state->landlock);
    } else {
        c->verdict = DOCTOR_WARNING;
        snprintf(c->found, sizeof c->found, "%s", state->missing);
    }
}

static void judge_swap(struct doctor_check *c, const struct machine *m)
{
    *c = (struct doctor_check){.name = "swap", .needed = "off or encrypted"};
    if (m->swap == SWAP_OFF)
        snprintf(c->found, sizeof c->found, "off");
    else
        snprintf(c->found, sizeof c->found, "%s, %.1f GB",
                 m->swap == SWAP_PLAIN ? "not encrypted" : swap_state_name(m->swap), (double)m->swap_bytes / 1e9);
    c->verdict = m->swap == SWAP_PLAIN ? DOCTOR_WARNING : m->swap == SWAP_UNKNOWN ? DOCTOR_UNKNOWN : DOCTOR_OK;
}

static void judge_dumps(struct doctor_check *c, const struct doctor_report *r)
{
    *c = (struct doctor_check){.name = "core dumps", .needed = "off"};
    const bool off = r->dumps_limited || offline_state()->enforced;
    snprintf(c->found, sizeof c->found, "%s",
             r->dumps_limited ? "off" : off ? "off for ward, by its lock" : "on: ulimit -c 0 turns them off");
    c->verdict = off ? DOCTOR_OK : DOCTOR_WARNING;
}

static void judge_log(struct doctor_check *c, const struct doctor_report *r)
{
    *c = (struct doctor_check){.name = "audit log", .needed = "set up"};
    const bool ready = r->has_log && !*r->log_fault.text;
    snprintf(c->found, sizeof c->found, "%.*s", (int)sizeof c->found - 1,
             ready                ? "can be written"
             : *r->log_fault.text ? r->log_fault.text
                                  : "none: ward audit init makes one");
    c->verdict = ready ? DOCTOR_OK : DOCTOR_WARNING;
}

void doctor_judge(struct doctor_report *r)
{
    r->enough = doctor_requirements(r->requirements, &r->facts);
    judge_lock(&r->safety[0]);
    judge_swap(&r->safety[1], &r->machine);
    judge_dumps(&r->safety[2], r);
    judge_log(&r->safety[3], r);
    const enum machine_class class = r->facts.device ? r->facts.device->class : r->machine.class;
    r->target_ms = r->asked_ms > 0 ? r->asked_ms : machine_target_ms(class);
    for (int i = 0; i < PREDICT_TYPES; i++) {
        const struct doctor_type *type = &r->types[i];
        r->fits = r->fits || !type->missing;
        r->in_time = r->in_time || (!type->missing && type->predicted && type->latency.total_ms <= r->target_ms);
    }
    r->will_do = r->enough && r->fits && (r->in_time || !r->asked_ms);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static void print(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void print(const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    output_untrusted(line, strlen(line));
}

/* All of the table's devices are NVIDIA's or Apple's, which are called M1 and so on. */
static bool computes_on(const struct device *d)
{
    return *d->name != 'M';
}

static void print_device(const struct doctor_report *r)
{
    const struct device *d = r->facts.device;
    print("%s: published figures, %.4g GB at %.4g GB/s, %.4g TFLOP/s\n", d->name, d->memory_gb, d->read_gbs, d->tflops);
    if (r->shares_of)
        print("A projection: the shares of its limits are those that ward reached on %s.\n", r->shares_of);
    else
        print("%s: the figures are what such a GPU is able to do, with shares of its limits\nthat other programs reach.\n",
              computes_on(d) ? "ward has not been timed on such a card yet" : "ward does not compute on Apple's GPUs");
}

/* What of a published figure was measured, where the table has the card. */
static void print_share(double measured, double published)
{
    if (published > 0)
        print(" (%.0f %% of the published %.4g)", 100 * measured / published, published);
}

static void print_card(const struct doctor_report *r)
{
    const struct card_info *card = &r->card.info;
    const struct nvml_state *s = &r->card_state;
    const struct card_limits *l = &r->card_limits;
    const struct device *published = device_find(card->name);
    print("%s, %.1f GB (%.1f free), %d multiprocessors, kernels %s, driver %s\n", card->name, (double)card->memory / 1e9,
          (double)r->card.free_bytes / 1e9, card->multiprocessors, card->kernels,
          *r->card.driver ? r->card.driver : "not told");
    if (r->card.meter)
        print("%.0f of %.0f MHz, memory %.0f MHz, %.0f of %.0f W, %.0f degrees%s\n", s->mhz, s->mhz_limit, s->memory_mhz,
              s->watts, s->watts_limit, s->celsius, s->slowed ? ", slowed by heat or by its power limit" : "");
    print("measured in %.1f s: memory is copied at %.0f GB/s", l->ms / 1e3, l->copy_bytes / 1e9);
    print_share(l->copy_bytes / 1e9, published ? published->read_gbs : 0);
    print(", products of bf16");
    for (int kind = 0; kind < CARD_MULTIPLIES; kind++)
        if (l->multiply[kind] > 0) {
            print(" %s %.1f TFLOP/s", card_multiply_name((enum card_multiply)kind), l->multiply[kind] / 1e12);
            print_share(l->multiply[kind] / 1e12, published ? published->tflops : 0);
        }
    print("\n");
}

static void print_machine(const struct doctor_report *r)
{
    const struct machine *m = &r->machine;
    if (r->facts.device) {
        print_device(r);
        return;
    }
    print("%s%s%s", *m->product ? m->product : "", *m->product ? ", " : "", *m->cpu ? m->cpu : m->architecture);
    if (m->cpu_family)
        print(" (family %d, model %d)", m->cpu_family, m->cpu_model);
    print(", %d processor%s, %.1f GB of RAM\n", m->cpus_usable, m->cpus_usable == 1 ? "" : "s",
          (double)machine_memory(m) / 1e9);
    print("%s, Linux %s%s%s%s\n", *m->system ? m->system : "an unknown system", m->kernel,
          *m->container ? ", in a container: " : "", m->container, m->virtual_machine ? ", virtual machine" : "");
    if (*r->state.power_mode)
        print("power mode: %s\n", r->state.power_mode);
    print("measured in %.1f s, %d threads, kernels %s: memory is read at %.1f GB/s (one thread %.1f), products",
          r->limits.ms / 1e3, r->limits.threads, isa_name(r->limits.isa), r->limits.read_bytes / 1e9,
          r->limits.read_bytes_one / 1e9);
    for (int kind = 0, n = 0; kind < LIMITS_MULTIPLIES; kind++)
        if (r->limits.multiply[kind] > 0)
            print("%s %s %.0f", n++ ? "," : "", limits_multiply_name((enum limits_multiply)kind),
                  r->limits.multiply[kind] / 1e9);
    print(" GOP/s\n");
    if (r->facts.card)
        print_card(r);
}

static void print_checks(const char *title, const struct doctor_check *checks, int n)
{
    print("\n%s\n", title);
    for (int i = 0; i < n; i++)
        if (checks[i].name)
            print("  %-8s %-18s %s (asked: %s)\n", doctor_verdict_name(checks[i].verdict), checks[i].name,
                  checks[i].found, checks[i].needed);
}

static void print_types(const struct doctor_report *r)
{
    print("\n%s: one image, a question, %d tokens; target %.4g s\n", r->model, PREDICT_TOKENS, r->target_ms / 1e3);
    print("  %-6s %9s %9s  %-22s %9s %9s %9s %9s\n", "type", "disk", "memory", "fits", "vision", "prefill", "a token",
          "whole");
    for (int i = 0; i < PREDICT_TYPES; i++) {
        const struct doctor_type *t = &r->types[i];
        char fits[48], verdict[48];
        if (t->missing)
            snprintf(fits, sizeof fits, "no: %.1f GB missing", (double)t->missing / 1e9);
        else
            snprintf(fits, sizeof fits, "yes, %.1f GB to spare", (double)(t->room - t->need.memory_bytes) / 1e9);
        print("  %-6s %6.2f GB %6.2f GB  %-22s", predict_type_name((enum predict_type)i),
              (double)(t->need.text_bytes + t->need.vision_bytes) / 1e9, (double)t->need.memory_bytes / 1e9, fits);
        if (t->predicted && t->latency.total_ms <= r->target_ms)
            snprintf(verdict, sizeof verdict, "in time");
        else if (t->predicted)
            snprintf(verdict, sizeof verdict, "slower; %d tokens in time",
                     predict_tokens_within(&t->latency, r->target_ms));
        if (t->predicted)
            print(" %7.2f s %7.2f s %6.1f ms %7.1f s  %s\n", t->latency.vision_ms / 1e3, t->latency.prefill_ms / 1e3,
                  t->latency.token_ms, t->latency.total_ms / 1e3, verdict);
        else
            print(" not predicted\n");
    }
}

void doctor_print_text(const struct doctor_report *r)
{
    print_machine(r);
    print_checks("the minimum", r->requirements, DOCTOR_REQUIREMENTS);
    print_types(r);
    if (!r->facts.device)
        print_checks("safety", r->safety, DOCTOR_SAFETY);
    print("\n%s\n", r->will_do      ? r->in_time ? "This machine will do."
                                                 : "This machine will do, though it is slower than the target."
                    : !r->enough    ? "This machine will not do: it lacks the minimum."
                    : !r->fits      ? "This machine will not do: no type of the model fits its memory."
                                    : "This machine will not do: no type that fits answers in time.");
}

void doctor_print_devices(void)
{
    const struct device *d;
    print("%-24s %8s %12s %12s\n", "device", "memory", "bandwidth", "16-bit");
    for (int i = 0; (d = device_at(i)); i++)
        print("%-24s %5.4g GB %7.4g GB/s %5.4g TFLOP/s\n", d->name, d->memory_gb, d->read_gbs, d->tflops);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void write_card(struct json_writer *w, const struct doctor_report *r)
{
    json_write_text(w, "computed_on", r->facts.card ? "cuda" : "cpu");
    if (!r->facts.card) {
        json_write_null(w, "card");
        json_write_text(w, "card_fault", r->facts.card_fault);
        return;
    }
    card_facts_write_json(w, "card", &r->card);
    card_state_write_json(w, "card_state", r->card.meter ? &r->card_state : NULL);
    card_limits_write_json(w, "card_limits", &r->card_limits);
    const struct device *published = device_find(r->card.info.name);
    if (!published) {
        json_write_null(w, "card_published");
        return;
    }
    json_write_open(w, "card_published", '{');
    json_write_number(w, "read_gbs", published->read_gbs, 2);
    json_write_number(w, "tflops", published->tflops, 2);
    json_write_close(w, '}');
}

static void write_device(struct json_writer *w, const struct doctor_report *r)
{
    const struct device *d = r->facts.device;
    if (!d) {
        json_write_null(w, "device");
        machine_write_json(w, "machine", &r->machine);
        machine_state_write_json(w, "state", &r->state);
        limits_write_json(w, "limits", &r->limits);
        write_card(w, r);
        return;
    }
    json_write_open(w, "device", '{');
    json_write_text(w, "name", d->name);
    json_write_text(w, "class", machine_class_name(d->class));
    json_write_number(w, "memory_gb", (double)r->facts.memory / 1e9, 2);
    json_write_number(w, "read_gbs", d->read_gbs, 2);
    json_write_number(w, "tflops", d->tflops, 2);
    json_write_boolean(w, "shared_memory", d->shared);
    json_write_boolean(w, "computed_on", computes_on(d));
    json_write_text(w, "shares_of", r->shares_of);
    json_write_close(w, '}');
}

static void write_checks(struct json_writer *w, const char *key, const struct doctor_check *checks, int n)
{
    json_write_open(w, key, '[');
    for (int i = 0; i < n; i++) {
        if (!checks[i].name)
            continue;
        json_write_open(w, NULL, '{');
        json_write_text(w, "name", checks[i].name);
        json_write_text(w, "needed", checks[i].needed);
        json_write_text(w, "found", checks[i].found);
        json_write_text(w, "verdict", doctor_verdict_name(checks[i].verdict));
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
}

static void write_type(struct json_writer *w, const struct doctor_type *t, enum predict_type type, double target_ms)
{
    json_write_open(w, NULL, '{');
    json_write_text(w, "type", predict_type_name(type));
    json_write_integer(w, "disk_bytes", (int64_t)(t->need.text_bytes + t->need.vision_bytes));
    json_write_integer(w, "memory_bytes", (int64_t)t->need.memory_bytes);
    json_write_integer(w, "kv_bytes", (int64_t)t->need.kv_bytes);
    json_write_integer(w, "work_bytes", (int64_t)t->need.work_bytes);
    json_write_integer(w, "bytes_a_token", (int64_t)t->need.token_bytes);
    json_write_boolean(w, "fits", !t->missing);
    json_write_integer(w, "missing_bytes", (int64_t)t->missing);
    json_write_integer(w, "spare_bytes", (int64_t)(t->missing ? 0 : t->room - t->need.memory_bytes));
    if (t->predicted) {
        json_write_open(w, "predicted_ms", '{');
        json_write_number(w, "vision", t->latency.vision_ms, 1);
        json_write_number(w, "prefill", t->latency.prefill_ms, 1);
        json_write_number(w, "first_token", t->latency.first_token_ms, 1);
        json_write_number(w, "token", t->latency.token_ms, 2);
        json_write_number(w, "decode", t->latency.decode_ms, 1);
        json_write_number(w, "total", t->latency.total_ms, 1);
        json_write_close(w, '}');
        json_write_integer(w, "tokens_in_time", predict_tokens_within(&t->latency, target_ms));
        json_write_boolean(w, "pass", t->latency.total_ms <= target_ms);
    } else {
        json_write_null(w, "predicted_ms");
        json_write_null(w, "tokens_in_time");
        json_write_null(w, "pass");
    }
    json_write_close(w, '}');
}

void doctor_print_json(const struct doctor_report *r)
{
    struct json_writer *w = json_writer_new(true);
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_integer(w, "doctor", 1);
    json_write_text(w, "ward", WARD_VERSION);
    write_device(w, r);
    json_write_open(w, "model", '{');
    json_write_text(w, "name", r->model);
    json_write_integer(w, "layers", r->config.text.n_layers);
    json_write_integer(w, "image_tokens", r->config.image_tokens);
    if (r->config.random_weights)
        json_write_boolean(w, "random_weights", true);
    json_write_close(w, '}');
    json_write_open(w, "protocol", '{');
    json_write_integer(w, "images", r->config.vision.n_layers ? 1 : 0);
    json_write_integer(w, "prompt_tokens", r->types[0].latency.prompt_tokens);
    json_write_integer(w, "tokens", PREDICT_TOKENS);
    json_write_close(w, '}');
    json_write_number(w, "target_ms", r->target_ms, 0);
    write_checks(w, "minimum", r->requirements, DOCTOR_REQUIREMENTS);
    json_write_open(w, "types", '[');
    for (int i = 0; i < PREDICT_TYPES; i++)
        write_type(w, &r->types[i], (enum predict_type)i, r->target_ms);
    json_write_close(w, ']');
    if (!r->facts.device)
        write_checks(w, "safety", r->safety, DOCTOR_SAFETY);
    json_write_open(w, "verdict", '{');
    json_write_boolean(w, "minimum", r->enough);
    json_write_boolean(w, "fits", r->fits);
    json_write_boolean(w, "in_time", r->in_time);
    json_write_boolean(w, "will_do", r->will_do);
    json_write_close(w, '}');
    lock_write_json(w);
    json_write_close(w, '}');
    output_json_line(&w);
}
