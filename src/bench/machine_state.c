/* What changes while a program runs. */
#include "bench/machine.h"

#include "base/json.h"
#include "bench/sysfs.h"

#include <stdlib.h>
#include <string.h>

#define CPUS "/sys/devices/system/cpu"

enum { MOST_FILES = 1024 };

/* Of every processor's file whose pattern this is: the sum, the most, and how many there are. */
struct sum {
    int64_t total, most;
    int n;
};

static struct sum sum_of(const char *root, const char *pattern)
{
    struct sum sum = {0};
    char(*names)[SYSFS_NAME] = malloc(MOST_FILES * sizeof *names);
    const int n = names ? sysfs_list(names, MOST_FILES, root, pattern) : 0;
    for (int i = 0; i < n; i++) {
        int64_t value;
        if (!sysfs_integer(&value, root, "%s", names[i]))
            continue;
        sum.total += value;
        sum.most = !sum.n || value > sum.most ? value : sum.most;
        sum.n++;
    }
    free(names);
    return sum;
}

/* ---- clocks ------------------------------------------------------------------------------------------------------ */

static void read_clock(struct machine_state *out, const char *root)
{
    const struct sum now = sum_of(root, CPUS "/cpu[0-9]*/cpufreq/scaling_cur_freq");
    const struct sum limit = sum_of(root, CPUS "/cpu[0-9]*/cpufreq/scaling_max_freq");
    char text[32];
    if (now.n)
        out->mhz = (double)now.total / now.n / 1e3;
    else if (sysfs_value(text, sizeof text, root, "/proc/cpuinfo", "cpu MHz"))
        out->mhz = atof(text);
    out->mhz_limit = (double)limit.most / 1e3;
}

static void read_governor(struct machine_state *out, const char *root)
{
    char(*names)[SYSFS_NAME] = malloc(MOST_FILES * sizeof *names);
    const int n = names ? sysfs_list(names, MOST_FILES, root, CPUS "/cpu[0-9]*/cpufreq/scaling_governor") : 0;
    for (int i = 0; i < n; i++) {
        char governor[sizeof out->governor];
        if (!sysfs_line(governor, sizeof governor, root, "%s", names[i]))
            continue;
        if (*out->governor && strcmp(governor, out->governor) != 0)
            snprintf(governor, sizeof governor, "mixed");
        memcpy(out->governor, governor, sizeof governor);
    }
    free(names);
}

/* The name of a mode of Jetson's nvpmodel, which differ by board: "< POWER_MODEL ID=3 NAME=MODE_50W >"; "" if unknown. */
static void nvpmodel_name(char *out, size_t room, const char *root, int mode)
{
    char path[256], line[256];
    *out = '\0';
    snprintf(path, sizeof path, "%s/etc/nvpmodel.conf", root);
    FILE *file = fopen(path, "re");
    while (file && !*out && fgets(line, sizeof line, file)) {
        int id = -1;
        char name[32];
        if (sscanf(line, " < POWER_MODEL ID=%d NAME=%31[A-Za-z0-9_+.-]", &id, name) == 2 && id == mode)
            snprintf(out, room, ", %s", name);
    }
    if (file)
        fclose(file);
}

/* Jetson's nvpmodel keeps its choice in a file: "pmode:0003". */
static void read_power_mode(struct machine_state *out, const char *root)
{
    char line[64], name[40];
    if (sysfs_line(line, sizeof line, root, "/var/lib/nvpmodel/status") && strncmp(line, "pmode:", 6) == 0) {
        nvpmodel_name(name, sizeof name, root, atoi(line + 6));
        snprintf(out->power_mode, sizeof out->power_mode, "nvpmodel %d%s", atoi(line + 6), name);
    } else if (!sysfs_line(out->power_mode, sizeof out->power_mode, root, "/sys/firmware/acpi/platform_profile"))
        sysfs_line(out->power_mode, sizeof out->power_mode, root, CPUS "/cpu0/cpufreq/energy_performance_preference");
}

/* ---- heat and power ---------------------------------------------------------------------------------------------- */

static bool is_processor_sensor(const char *name)
{
    static const char *const names[] = {"x86_pkg_temp", "coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal",
                                        "CPU-therm",    "soc_thermal", "soc-thermal", "acpitz"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(name, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

/* folder/naming holds the sensor's name, folder/temp* thousandths of a degree. */
static void read_sensors(struct machine_state *out, const char *root, const char *pattern, const char *naming,
                         const char *files)
{
    enum { MOST = 64 };
    char folders[MOST][SYSFS_NAME];
    const int n = sysfs_list(folders, MOST, root, pattern);
    for (int i = 0; i < n; i++) {
        char name[64], path[2 * SYSFS_NAME];
        if (!sysfs_line(name, sizeof name, root, "%s/%s", folders[i], naming) || !is_processor_sensor(name) ||
            snprintf(path, sizeof path, "%s/%s", folders[i], files) >= (int)sizeof path)
            continue;
        const double hottest = (double)sum_of(root, path).most / 1e3;
        out->celsius = hottest > out->celsius ? hottest : out->celsius;
    }
}

static void read_heat(struct machine_state *out, const char *root)
{
    struct sum events = sum_of(root, CPUS "/cpu[0-9]*/thermal_throttle/*_throttle_count");
    const struct sum tegra = sum_of(root, "/sys/class/hwmon/hwmon*/oc*_event_cnt");
    read_sensors(out, root, "/sys/class/thermal/thermal_zone*", "type", "temp");
    read_sensors(out, root, "/sys/class/hwmon/hwmon*", "name", "temp*_input");
    out->throttled = events.n || tegra.n ? events.total + tegra.total : -1;
}

/* A battery that is being emptied, of the machine and not of its mouse. */
static bool read_battery(const char *root)
{
    enum { MOST = 16 };
    char folders[MOST][SYSFS_NAME], text[32];
    const int n = sysfs_list(folders, MOST, root, "/sys/class/power_supply/*");
    for (int i = 0; i < n; i++)
        if (sysfs_line(text, sizeof text, root, "%s/type", folders[i]) && strcmp(text, "Battery") == 0 &&
            !(sysfs_line(text, sizeof text, root, "%s/scope", folders[i]) && strcmp(text, "Device") == 0) &&
            sysfs_line(text, sizeof text, root, "%s/status", folders[i]) && strcmp(text, "Discharging") == 0)
            return true;
    return false;
}

/* ---- load and memory --------------------------------------------------------------------------------------------- */

/* "cpu  USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL ..." */
static void read_ticks(struct machine_state *out, const char *root)
{
    enum { FIELDS = 8, IDLE = 3, IOWAIT = 4 };
    FILE *f = sysfs_open(root, "/proc/stat");
    long long ticks;
    if (f && fscanf(f, "cpu") == 0)
        for (int i = 0; i < FIELDS && fscanf(f, "%lld", &ticks) == 1; i++) {
            out->ticks += ticks;
            out->idle_ticks += i == IDLE || i == IOWAIT ? ticks : 0;
        }
    if (f)
        fclose(f);
}

static uint64_t memory_line(const char *root, const char *key)
{
    char text[32];
    return sysfs_value(text, sizeof text, root, "/proc/meminfo", key) ? strtoull(text, NULL, 10) * 1024 : 0;
}

void machine_read_state(struct machine_state *out, const char *root)
{
    char text[32];
    *out = (struct machine_state){0};
    read_clock(out, root);
    read_governor(out, root);
    read_power_mode(out, root);
    read_heat(out, root);
    out->on_battery = read_battery(root);
    if (sysfs_line(text, sizeof text, root, "/proc/loadavg"))
        out->load = atof(text);
    read_ticks(out, root);
    out->memory_available = memory_line(root, "MemAvailable");
    out->swap_free = memory_line(root, "SwapFree");
}

static void write_figure(struct json_writer *w, const char *key, double value, int decimals)
{
    if (value > 0)
        json_write_number(w, key, value, decimals);
    else
        json_write_null(w, key);
}

void machine_state_write_json(struct json_writer *w, const char *key, const struct machine_state *state)
{
    json_write_open(w, key, '{');
    json_write_text(w, "governor", *state->governor ? state->governor : NULL);
    json_write_text(w, "power_mode", *state->power_mode ? state->power_mode : NULL);
    json_write_boolean(w, "on_battery", state->on_battery);
    write_figure(w, "mhz", state->mhz, 0);
    write_figure(w, "mhz_limit", state->mhz_limit, 0);
    write_figure(w, "celsius", state->celsius, 1);
    if (state->throttled < 0)
        json_write_null(w, "throttled");
    else
        json_write_integer(w, "throttled", state->throttled);
    json_write_number(w, "load", state->load, 2);
    json_write_integer(w, "memory_available_bytes", (int64_t)state->memory_available);
    json_write_integer(w, "swap_free_bytes", (int64_t)state->swap_free);
    json_write_close(w, '}');
}
