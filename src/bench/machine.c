/* What does not change while a program runs. */
#include "bench/machine.h"

#include "base/cgroup.h"
#include "base/cpus.h"
#include "base/json.h"
#include "base/text.h"
#include "bench/sysfs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CPUS "/sys/devices/system/cpu"

/* ---- processors -------------------------------------------------------------------------------------------------- */

/* Arm's numbers for what is in the machines that ward is likely to meet. */
static void name_arm(char *out, size_t room, const char *root)
{
    static const struct {
        int implementer, part;
        const char *name;
    } parts[] = {
        {0x41, 0xd03, "Cortex-A53"},   {0x41, 0xd08, "Cortex-A72"},  {0x41, 0xd0b, "Cortex-A76"},
        {0x41, 0xd0c, "Neoverse N1"},  {0x41, 0xd40, "Neoverse V1"}, {0x41, 0xd42, "Cortex-A78AE"},
        {0x41, 0xd49, "Neoverse N2"},  {0x41, 0xd4f, "Neoverse V2"}, {0x4e, 0x004, "NVIDIA Carmel"},
        {0x61, 0x022, "Apple M1"},     {0x61, 0x023, "Apple M1"},    {0x61, 0x024, "Apple M1 Pro"},
        {0x61, 0x025, "Apple M1 Pro"}, {0x61, 0x028, "Apple M1 Max"}, {0x61, 0x029, "Apple M1 Max"},
        {0x61, 0x032, "Apple M2"},     {0x61, 0x033, "Apple M2"},
    };
    char implementer[16], part[16];
    if (!sysfs_value(implementer, sizeof implementer, root, "/proc/cpuinfo", "CPU implementer") ||
        !sysfs_value(part, sizeof part, root, "/proc/cpuinfo", "CPU part"))
        return;
    snprintf(out, room, "Arm, implementer %s, part %s", implementer, part);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strtol(implementer, NULL, 0) == parts[i].implementer && strtol(part, NULL, 0) == parts[i].part)
            snprintf(out, room, "%s", parts[i].name);
}

static void read_name(struct machine *out, const char *root)
{
    char text[4096];
    if (!sysfs_value(out->cpu, sizeof out->cpu, root, "/proc/cpuinfo", "model name"))
        name_arm(out->cpu, sizeof out->cpu, root);
    if (sysfs_value(text, sizeof text, root, "/proc/cpuinfo", "cpu family"))
        out->cpu_family = atoi(text);
    if (out->cpu_family && sysfs_value(text, sizeof text, root, "/proc/cpuinfo", "model"))
        out->cpu_model = atoi(text);
    if (sysfs_value(text, sizeof text, root, "/proc/cpuinfo", "flags"))
        out->virtual_machine = strstr(text, " hypervisor ") != NULL;
}

/* "/sys/devices/system/cpu/cpu12/..." -> 12 */
static long cpu_of(const char *name)
{
    return strtol(name + strlen(CPUS "/cpu"), NULL, 10);
}

/* Whether a list of processors like "3-5,7" begins with the one whose folder it lies in: of several that share
 * something one counts it. */
static bool counts_here(const char *root, const char *folder, const char *file)
{
    char list[64];
    return sysfs_line(list, sizeof list, root, "%s/%s", folder, file) && strtol(list, NULL, 10) == cpu_of(folder);
}

static void read_cache(struct machine *out, const char *root, const char *folder)
{
    char type[32], size[32];
    int64_t level = 0;
    if (!sysfs_integer(&level, root, "%s/level", folder) || !sysfs_line(type, sizeof type, root, "%s/type", folder) ||
        !sysfs_line(size, sizeof size, root, "%s/size", folder) || strcmp(type, "Instruction") == 0)
        return;
    const size_t bytes = strtoul(size, NULL, 10) << (ends_with(size, "M") ? 20 : 10);
    if (level == 1 && !out->l1d_bytes)
        out->l1d_bytes = bytes;
    if (level == 2 && !out->l2_bytes)
        out->l2_bytes = bytes;
    if (level == 3 && counts_here(root, folder, "shared_cpu_list"))
        out->l3_bytes += bytes;
}

static void read_topology(struct machine *out, const char *root)
{
    enum { MOST = 8192 };
    char(*names)[SYSFS_NAME] = malloc(MOST * sizeof *names);
    if (!names)
        return;
    int n = sysfs_list(names, MOST, root, CPUS "/cpu[0-9]*/topology");
    for (int i = 0; i < n; i++) {
        int64_t package = 0;
        sysfs_integer(&package, root, "%s/physical_package_id", names[i]);
        out->sockets = package + 1 > out->sockets ? (int)package + 1 : out->sockets;
        out->cores += counts_here(root, names[i], "thread_siblings_list");
    }
    out->cpus = n;
    n = sysfs_list(names, MOST, root, CPUS "/cpu[0-9]*/cache/index[0-9]");
    for (int i = 0; i < n; i++)
        read_cache(out, root, names[i]);
    free(names);
}

static void read_processors(struct machine *out, const char *root)
{
    struct kernels k = {0};
    read_name(out, root);
    read_topology(out, root);
    kernels_init(&k, ISA_COUNT - 1);
    out->isa = k.isa;
    out->cpus_usable = cpus_available();
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static void visit_memory(void *user, const char *folder, bool v2)
{
    struct machine *out = user;
    long long limit;
    if (cgroup_numbers(&limit, 1, folder, v2 ? "memory.max" : "memory.limit_in_bytes") == 1 && limit > 0 &&
        (uint64_t)limit < machine_memory(out))
        out->memory_limit = (uint64_t)limit;
}

uint64_t machine_memory(const struct machine *machine)
{
    return machine->memory_limit ? machine->memory_limit : machine->memory_bytes;
}

/* dm-crypt itself, or something all of whose parts lie on it. */
static bool is_encrypted(const char *root, const char *folder, int depth)
{
    enum { MOST = 16 };
    char uuid[128], pattern[2 * SYSFS_NAME], parts[MOST][SYSFS_NAME];
    if (sysfs_line(uuid, sizeof uuid, root, "%s/dm/uuid", folder) && starts_with(uuid, "CRYPT-"))
        return true;
    if (snprintf(pattern, sizeof pattern, "%s/slaves/*", folder) >= (int)sizeof pattern)
        return false;
    const int n = depth < 8 ? sysfs_list(parts, MOST, root, pattern) : 0;
    for (int i = 0; i < n; i++)
        if (!is_encrypted(root, parts[i], depth + 1))
            return false;
    return n > 0;
}

/* A device by its name, a file by the device that it lies on. */
static enum swap_state state_of(const char *root, const char *path)
{
    const char *name = strrchr(path, '/');
    char folder[SYSFS_NAME], backing[64], full[PATH_MAX];
    struct stat st;
    name = name ? name + 1 : path;
    if (starts_with(name, "zram"))
        return sysfs_line(backing, sizeof backing, root, "/sys/class/block/%s/backing_dev", name) &&
                       strcmp(backing, "none") != 0
                   ? SWAP_PLAIN
                   : SWAP_IN_MEMORY;
    if (starts_with(path, "/dev/"))
        snprintf(folder, sizeof folder, "/sys/class/block/%.100s", name);
    else if (snprintf(full, sizeof full, "%s%s", root, path) < (int)sizeof full && stat(full, &st) == 0)
        snprintf(folder, sizeof folder, "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
    else
        return SWAP_PLAIN;
    return is_encrypted(root, folder, 0) ? SWAP_ENCRYPTED : SWAP_PLAIN;
}

/* "FILENAME TYPE SIZE USED PRIORITY" after a line of headings; sizes in KiB. */
static void read_swap(struct machine *out, const char *root)
{
    FILE *f = sysfs_open(root, "/proc/swaps");
    char line[PATH_MAX + 128], path[PATH_MAX];
    unsigned long long size;
    out->swap = f ? SWAP_OFF : SWAP_UNKNOWN;
    while (f && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%4095s %*s %llu", path, &size) != 2)
            continue;
        const enum swap_state state = state_of(root, path);
        out->swap = state > out->swap ? state : out->swap;
        out->swap_bytes += size * 1024;
    }
    if (f)
        fclose(f);
}

static void read_memory(struct machine *out, const char *root)
{
    char text[64];
    if (sysfs_value(text, sizeof text, root, "/proc/meminfo", "MemTotal"))
        out->memory_bytes = strtoull(text, NULL, 10) * 1024;
    cgroup_visit(root, "memory", visit_memory, out);
    read_swap(out, root);
}

/* ---- what it is -------------------------------------------------------------------------------------------------- */

static void read_gpus(struct machine *out, const char *root)
{
    enum { MOST = 64 };
    char names[MOST][SYSFS_NAME], version[160];
    int n = sysfs_list(names, MOST, root, "/proc/driver/nvidia/gpus/*/information");
    for (int i = 0; i < n && out->n_gpus < MACHINE_MAX_GPUS; i++) {
        char *name = out->gpus[out->n_gpus];
        out->n_gpus += sysfs_value(name, sizeof *out->gpus, root, names[i], "Model");
    }
    /* "NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu ...", or "... Open Kernel Module for x86_64  560.35.03 ..." */
    if (sysfs_value(version, sizeof version, root, "/proc/driver/nvidia/version", "NVRM version"))
        for (char *rest = version, *word; (word = strsep(&rest, " "));)
            if (*word >= '0' && *word <= '9' && strchr(word, '.') && !*out->gpu_driver)
                snprintf(out->gpu_driver, sizeof out->gpu_driver, "%.31s", word);
    n = out->n_gpus ? 0 : sysfs_list(names, MOST, root, "/sys/bus/pci/devices/*");
    for (int i = 0; i < n && out->n_gpus < MACHINE_MAX_GPUS; i++) {
        int64_t vendor = 0, class = 0;
        if (sysfs_integer(&vendor, root, "%s/vendor", names[i]) && vendor == 0x10de &&
            sysfs_integer(&class, root, "%s/class", names[i]) && class >> 16 == 3)
            snprintf(out->gpus[out->n_gpus++], sizeof *out->gpus, "NVIDIA GPU");
    }
}

static bool has_file(const char *root, const char *path)
{
    char full[PATH_MAX];
    return snprintf(full, sizeof full, "%s%s", root, path) < (int)sizeof full && access(full, F_OK) == 0;
}

static void read_container(struct machine *out, const char *root)
{
    static const char *const words[] = {"kubepods", "docker", "podman", "lxc"};
    char line[PATH_MAX];
    if (sysfs_line(out->container, sizeof out->container, root, "/run/systemd/container"))
        return;
    FILE *f = sysfs_open(root, "/proc/self/cgroup");
    while (f && !*out->container && fgets(line, sizeof line, f))
        for (size_t i = 0; i < sizeof words / sizeof *words && !*out->container; i++)
            if (strstr(line, words[i]))
                snprintf(out->container, sizeof out->container, "%s", words[i]);
    if (f)
        fclose(f);
    if (!*out->container && has_file(root, "/run/.containerenv"))
        snprintf(out->container, sizeof out->container, "podman");
    if (!*out->container && has_file(root, "/.dockerenv"))
        snprintf(out->container, sizeof out->container, "docker");
}

/* A battery that supplies the machine, or a case that SMBIOS calls portable. */
static bool is_portable(const char *root)
{
    enum { MOST = 16 };
    char folders[MOST][SYSFS_NAME], text[32];
    int64_t chassis = 0;
    const int n = sysfs_list(folders, MOST, root, "/sys/class/power_supply/*");
    for (int i = 0; i < n; i++)
        if (sysfs_line(text, sizeof text, root, "%s/type", folders[i]) && strcmp(text, "Battery") == 0 &&
            !(sysfs_line(text, sizeof text, root, "%s/scope", folders[i]) && strcmp(text, "Device") == 0))
            return true;
    sysfs_integer(&chassis, root, "/sys/class/dmi/id/chassis_type");
    return chassis == 8 || chassis == 9 || chassis == 10 || chassis == 14 || chassis == 31 || chassis == 32;
}

static enum machine_class class_of(const struct machine *machine, const char *root)
{
    if (is_portable(root))
        return MACHINE_LAPTOP;
    if (*machine->product && !starts_with(machine->product, "Apple"))
        return MACHINE_EDGE;
    return machine->n_gpus && *machine->gpu_driver ? MACHINE_DESKTOP_GPU : MACHINE_DESKTOP;
}

static void read_system(struct machine *out, const char *root)
{
    struct utsname names;
    if (uname(&names) == 0)
        snprintf(out->architecture, sizeof out->architecture, "%.15s", names.machine);
    sysfs_line(out->kernel, sizeof out->kernel, root, "/proc/sys/kernel/osrelease");
    char text[128];
    if (sysfs_value(text, sizeof text, root, "/etc/os-release", "PRETTY_NAME") ||
        sysfs_value(text, sizeof text, root, "/usr/lib/os-release", "PRETTY_NAME")) {
        const size_t quoted = *text == '"';
        snprintf(out->system, sizeof out->system, "%.*s", (int)strcspn(text + quoted, "\""), text + quoted);
    }
    sysfs_line(out->product, sizeof out->product, root, "/proc/device-tree/model");
    read_gpus(out, root);
    read_container(out, root);
    out->class = class_of(out, root);
}

void machine_read(struct machine *out, const char *root)
{
    *out = (struct machine){0};
    read_processors(out, root);
    read_memory(out, root);
    read_system(out, root);
}

const char *machine_class_name(enum machine_class class)
{
    static const char *const names[] = {"desktop", "desktop_gpu", "laptop", "edge"};
    return names[class];
}

const char *swap_state_name(enum swap_state state)
{
    static const char *const names[] = {"off", "memory", "encrypted", "plain", "unknown"};
    return names[state];
}

double machine_target_ms(enum machine_class class)
{
    return class == MACHINE_DESKTOP_GPU ? 2000 : 5000;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void write_text(struct json_writer *w, const char *key, const char *text)
{
    json_write_text(w, key, *text ? text : NULL);
}

static void write_count(struct json_writer *w, const char *key, uint64_t value)
{
    if (value)
        json_write_integer(w, key, (int64_t)value);
    else
        json_write_null(w, key);
}

void machine_write_json(struct json_writer *w, const char *key, const struct machine *m)
{
    json_write_open(w, key, '{');
    json_write_text(w, "class", machine_class_name(m->class));
    write_text(w, "product", m->product);
    write_text(w, "cpu", m->cpu);
    write_count(w, "cpu_family", (uint64_t)m->cpu_family);
    write_count(w, "cpu_model", (uint64_t)m->cpu_model);
    write_text(w, "architecture", m->architecture);
    write_count(w, "sockets", (uint64_t)m->sockets);
    write_count(w, "cores", (uint64_t)m->cores);
    write_count(w, "cpus", (uint64_t)m->cpus);
    json_write_integer(w, "cpus_usable", m->cpus_usable);
    write_count(w, "l1d_bytes", m->l1d_bytes);
    write_count(w, "l2_bytes", m->l2_bytes);
    write_count(w, "l3_bytes", m->l3_bytes);
    json_write_text(w, "kernels", isa_name(m->isa));
    write_count(w, "memory_bytes", m->memory_bytes);
    write_count(w, "memory_limit_bytes", m->memory_limit);
    json_write_text(w, "swap", swap_state_name(m->swap));
    json_write_integer(w, "swap_bytes", (int64_t)m->swap_bytes);
    write_text(w, "system", m->system);
    write_text(w, "kernel", m->kernel);
    write_text(w, "container", m->container);
    json_write_boolean(w, "virtual_machine", m->virtual_machine);
    json_write_open(w, "gpus", '[');
    for (int i = 0; i < m->n_gpus; i++)
        json_write_text(w, NULL, m->gpus[i]);
    json_write_close(w, ']');
    write_text(w, "gpu_driver", m->gpu_driver);
    json_write_close(w, '}');
}
