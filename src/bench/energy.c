#include "bench/energy.h"

#include "base/clock.h"
#include "base/text.h"
#include "bench/sysfs.h"

#include <string.h>

static void add_counter(struct energy *e, const char *zone)
{
    struct energy_counter *c = &e->counters[e->n_counters];
    char name[32];
    int64_t value = 0;
    if (e->n_counters == ENERGY_MOST || !sysfs_line(name, sizeof name, e->root, "%s/name", zone))
        return;
    /* Cores and graphics are within their package; psys is the whole board, which only some machines meter. */
    if (!starts_with(name, "package") && strcmp(name, "dram") != 0)
        return;
    if (snprintf(c->path, sizeof c->path, "%s/energy_uj", zone) >= (int)sizeof c->path)
        return;
    if (!sysfs_integer(&value, e->root, "%s", c->path)) {
        e->reason = "the energy counters of the processor (RAPL) can be read by root only";
        return;
    }
    c->last = value;
    c->range = 0;
    (void)sysfs_integer(&c->range, e->root, "%s/max_energy_range_uj", zone);
    e->n_counters++;
}

/* Channels of one sensor chip. Only inputs of the whole board count: what the others measure is part of it. */
static void add_rails(struct energy *e, const char *folder)
{
    for (int channel = 1; channel <= 4; channel++) {
        char label[64];
        struct energy_rail *r = &e->rails[e->n_rails];
        int64_t value;
        if (e->n_rails == ENERGY_MOST || !sysfs_line(label, sizeof label, e->root, "%s/in%d_label", folder, channel))
            continue;
        if (!starts_with(label, "VDD_IN") && !starts_with(label, "VIN") && strcmp(label, "VDD_GPU_SOC") != 0 &&
            strcmp(label, "VDD_CPU_CV") != 0)
            continue;
        snprintf(r->volts, sizeof r->volts, "%.100s/in%d_input", folder, channel);
        snprintf(r->amperes, sizeof r->amperes, "%.100s/curr%d_input", folder, channel);
        if (sysfs_integer(&value, e->root, "%s", r->volts) && sysfs_integer(&value, e->root, "%s", r->amperes))
            e->n_rails++;
    }
}

static double watts(const struct energy *e)
{
    double sum = 0;
    for (int i = 0; i < e->n_rails; i++) {
        int64_t millivolts = 0, milliamperes = 0;
        if (sysfs_integer(&millivolts, e->root, "%s", e->rails[i].volts) &&
            sysfs_integer(&milliamperes, e->root, "%s", e->rails[i].amperes))
            sum += (double)millivolts * (double)milliamperes * 1e-6;
    }
    return sum;
}

void energy_open(struct energy *e, const char *root)
{
    char names[2 * ENERGY_MOST][SYSFS_NAME];
    *e = (struct energy){.root = root, .reason = "this machine has no energy meter that ward reads (RAPL, INA3221, NVML)"};
    const int zones = sysfs_list(names, 2 * ENERGY_MOST, root, "/sys/class/powercap/intel-rapl:*");
    for (int i = 0; i < zones; i++)
        add_counter(e, names[i]);
    if (e->n_counters) {
        e->source = "rapl";
        return;
    }
    const int chips = sysfs_list(names, 2 * ENERGY_MOST, root, "/sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*");
    for (int i = 0; i < chips; i++)
        add_rails(e, names[i]);
    if (!e->n_rails)
        return;
    e->source = "ina3221";
    e->last_ms = clock_ms();
    e->last_watts = watts(e);
}

void energy_add_card(struct energy *e, int card)
{
    struct nvml_state now;
    const struct nvml_card *meter = nvml_open(card, NULL);
    if (!meter || e->n_rails) /* a board's rails have its card among them */
        return;
    nvml_read(meter, &now);
    if (now.joules < 0)
        return;
    e->card = meter;
    e->card_joules = now.joules;
    e->source = e->n_counters ? "rapl, nvml" : "nvml";
}

double energy_joules(struct energy *e, double now_ms)
{
    for (int i = 0; i < e->n_counters; i++) {
        struct energy_counter *c = &e->counters[i];
        int64_t value;
        if (!sysfs_integer(&value, e->root, "%s", c->path))
            continue;
        const int64_t used = value >= c->last ? value - c->last : value - c->last + c->range;
        e->joules += used > 0 ? (double)used * 1e-6 : 0;
        c->last = value;
    }
    if (e->card) {
        struct nvml_state now;
        nvml_read(e->card, &now);
        if (now.joules > e->card_joules) {
            e->joules += now.joules - e->card_joules;
            e->card_joules = now.joules;
        }
    }
    if (e->n_rails && now_ms > e->last_ms) {
        const double now = watts(e);
        e->joules += (now + e->last_watts) / 2 * (now_ms - e->last_ms) * 1e-3;
        e->last_ms = now_ms;
        e->last_watts = now;
    }
    return e->joules;
}
