#include "bench/doctor.h"

#include <stdio.h>
#include <string.h>

enum { CONTEXT = 2048 }; /* tokens, as the page counts memory */

/* The page's minimum. What firmware and kernel keep of 16 GB is not counted against them. */
static const double least_ram = 15e9, least_disk = 20e9, least_card = 7.5e9;
static const double kept_ram = 1.5e9, kept_card = 0.5e9; /* what a system, a desktop on a card need for themselves */

const char *doctor_verdict_name(enum doctor_verdict verdict)
{
    static const char *const names[] = {"ok", "missing", "unknown", "warning"};
    return names[verdict];
}

static double memory_of(const struct doctor_facts *f)
{
    return f->device ? (double)f->memory : (double)machine_memory(f->machine);
}

/* ---- the minimum ------------------------------------------------------------------------------------------------- */

/* Arm's 64-bit processors all have NEON. */
static void check_processor(struct doctor_check *c, const struct doctor_facts *f)
{
    const struct machine *m = f->machine;
    *c = (struct doctor_check){.name = "processor", .needed = "GPU of 8 GB, Apple Silicon, or a CPU with AVX2 or NEON"};
    if (f->device) {
        snprintf(c->found, sizeof c->found, "%s, %.4g GB, %.4g GB/s", f->device->name, f->device->memory_gb,
                 f->device->read_gbs);
        c->verdict = f->device->memory_gb >= least_card / 1e9 ? DOCTOR_OK : DOCTOR_BAD;
        return;
    }
    if (f->card) {
        snprintf(c->found, sizeof c->found, "%s, %.4g GB", f->card->info.name, (double)f->card->info.memory / 1e9);
        c->verdict = DOCTOR_OK;
        return;
    }
    const bool arm = strcmp(m->architecture, "aarch64") == 0;
    snprintf(c->found, sizeof c->found, "%.95s: %s", *m->cpu ? m->cpu : m->architecture,
             arm ? "NEON, used as portable C" : isa_name(m->isa));
    c->verdict = arm || m->isa >= ISA_AVX2 ? DOCTOR_OK : DOCTOR_BAD;
}

static void check_memory(struct doctor_check *c, const struct doctor_facts *f)
{
    const double memory = memory_of(f);
    *c = (struct doctor_check){.name = "RAM", .needed = "16 GB"};
    if (f->device && !f->device->shared) {
        snprintf(c->found, sizeof c->found, "beside the card: not known");
        c->verdict = DOCTOR_UNKNOWN;
        return;
    }
    snprintf(c->found, sizeof c->found, "%.1f GB%s", memory / 1e9,
             !f->device && f->machine->memory_limit ? ", all that this container may use" : "");
    c->verdict = memory >= least_ram ? DOCTOR_OK : DOCTOR_BAD;
}

static void check_disk(struct doctor_check *c, const struct doctor_facts *f)
{
    *c = (struct doctor_check){.name = "disk", .needed = "20 GB"};
    if (f->device || !f->disk_free) {
        snprintf(c->found, sizeof c->found, "not known");
        c->verdict = DOCTOR_UNKNOWN;
        return;
    }
    snprintf(c->found, sizeof c->found, f->disk_held ? "%.1f GB free, the model beside it" : "%.1f GB free",
             (double)f->disk_free / 1e9);
    c->verdict = (double)f->disk_free + (double)f->disk_held >= least_disk ? DOCTOR_OK : DOCTOR_BAD;
}

/* A card that nothing drives is no fault where the processor does the work. */
static void check_driver(struct doctor_check *c, const struct doctor_facts *f)
{
    const struct machine *m = f->machine;
    *c = (struct doctor_check){.name = "driver", .needed = "for NVIDIA: CUDA 11.8 or later"};
    if (f->device) {
        snprintf(c->found, sizeof c->found, "not known");
        c->verdict = DOCTOR_UNKNOWN;
    } else if (f->card) {
        snprintf(c->found, sizeof c->found, "%s%sCUDA %d.%d", f->card->driver, *f->card->driver ? ", " : "",
                 f->card->info.cuda / 1000, f->card->info.cuda % 1000 / 10);
        c->verdict = DOCTOR_OK; /* it took ward's kernels */
    } else if (f->card_fault) {
        snprintf(c->found, sizeof c->found, "%.*s", (int)sizeof c->found - 1, f->card_fault);
        c->verdict = DOCTOR_WARNING;
    } else if (!m->n_gpus) {
        snprintf(c->found, sizeof c->found, "not needed: there is no NVIDIA GPU");
    } else if (!*m->gpu_driver) {
        snprintf(c->found, sizeof c->found, "%s without its driver; ward computes on the processor", m->gpus[0]);
        c->verdict = DOCTOR_WARNING;
    } else {
        snprintf(c->found, sizeof c->found, "%s, driver %s without libcuda.so.1; ward computes on the processor",
                 m->gpus[0], m->gpu_driver);
        c->verdict = DOCTOR_WARNING;
    }
}

bool doctor_requirements(struct doctor_check out[DOCTOR_REQUIREMENTS], const struct doctor_facts *facts)
{
    check_processor(&out[0], facts);
    check_memory(&out[1], facts);
    check_disk(&out[2], facts);
    check_driver(&out[3], facts);
    for (int i = 0; i < DOCTOR_REQUIREMENTS; i++)
        if (out[i].verdict == DOCTOR_BAD)
            return false;
    return true;
}

/* ---- a type of checkpoint ---------------------------------------------------------------------------------------- */

/* Bytes for the model. Of this machine's card what is free, ward's own context taken off. */
static double room_for(const struct doctor_facts *f)
{
    if (f->card)
        return (double)f->card->free_bytes;
    return f->device && !f->device->shared ? f->device->memory_gb * 1e9 - kept_card : memory_of(f) - kept_ram;
}

void doctor_type(struct doctor_type *out, const struct model_config *config, enum predict_type type,
                 const struct doctor_facts *f, const struct limits *limits, const struct card_limits *card)
{
    struct predict_rates rates = {0};
    *out = (struct doctor_type){0};
    predict_need(&out->need, config, type, CONTEXT);
    const double have = room_for(f);
    out->room = have > 0 ? (uint64_t)have : 0;
    out->missing = out->need.memory_bytes > out->room ? out->need.memory_bytes - out->room : 0;
    if (f->device)
        predict_rates_card(&rates, &f->shares, f->device->tflops * 1e12, f->device->read_gbs * 1e9, type);
    else if (f->card)
        predict_rates_card(&rates, &f->shares, card_limits_peak_mean(card), card->copy_bytes_mean, type);
    else
        predict_rates_measured(&rates, limits, type);
    out->predicted = rates.vision > 0 && rates.vision_attention > 0 && rates.prefill > 0 && rates.read > 0;
    if (out->predicted)
        predict_latency(&out->latency, config, type, &rates);
}
