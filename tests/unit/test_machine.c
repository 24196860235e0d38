/* What a machine is said to be, from small trees of /proc and /sys files; and its limits, measured. */
#include "folder.h"

#include "base/json.h"
#include "bench/limits.h"
#include "bench/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

static void put(const struct folder *f, const char *name, const char *text)
{
    folder_write_text(f, name, text);
}

/* Two cores of two threads each, one third-level cache. */
static void put_processors(const struct folder *f)
{
    char name[128];
    put(f, "proc/cpuinfo", "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 33\nmodel name\t: AMD Ryzen 5 Test \n"
                           "cpu MHz\t\t: 3700.5\nflags\t\t: fpu avx2 hypervisor smep\n");
    for (int cpu = 0; cpu < 4; cpu++) {
        const char *siblings = cpu % 2 ? "1,3\n" : "0,2\n";
#define PUT(file, text) snprintf(name, sizeof name, "sys/devices/system/cpu/cpu%d/" file, cpu), put(f, name, text)
        PUT("topology/physical_package_id", "0\n");
        PUT("topology/thread_siblings_list", siblings);
        PUT("cache/index0/level", "1\n"), PUT("cache/index0/type", "Data\n"), PUT("cache/index0/size", "32K\n");
        PUT("cache/index1/level", "1\n"), PUT("cache/index1/type", "Instruction\n"), PUT("cache/index1/size", "64K\n");
        PUT("cache/index2/level", "2\n"), PUT("cache/index2/type", "Unified\n"), PUT("cache/index2/size", "512K\n");
        PUT("cache/index3/level", "3\n"), PUT("cache/index3/type", "Unified\n"), PUT("cache/index3/size", "32M\n");
        PUT("cache/index0/shared_cpu_list", siblings), PUT("cache/index1/shared_cpu_list", siblings);
        PUT("cache/index2/shared_cpu_list", siblings), PUT("cache/index3/shared_cpu_list", "0-3\n");
        PUT("cpufreq/scaling_cur_freq", cpu ? "3000000\n" : "2000000\n");
        PUT("cpufreq/scaling_max_freq", "4500000\n");
        PUT("cpufreq/scaling_governor", "schedutil\n");
        PUT("thermal_throttle/core_throttle_count", "3\n");
#undef PUT
    }
}

static void processors_and_caches(void **state)
{
    (void)state;
    struct folder f;
    struct machine m;
    folder_open(&f);
    put_processors(&f);
    machine_read(&m, f.path);
    assert_string_equal(m.cpu, "AMD Ryzen 5 Test");
    assert_int_equal(m.cpu_family, 25);
    assert_int_equal(m.cpu_model, 33);
    assert_true(m.virtual_machine);
    assert_int_equal(m.sockets, 1);
    assert_int_equal(m.cores, 2);
    assert_int_equal(m.cpus, 4);
    assert_int_equal(m.l1d_bytes, 32 << 10);
    assert_int_equal(m.l2_bytes, 512 << 10);
    assert_int_equal(m.l3_bytes, 32 << 20);
    assert_int_equal(m.class, MACHINE_DESKTOP);
    assert_int_equal(m.swap, SWAP_UNKNOWN);
    folder_close(&f);
}

static void memory_is_what_the_tightest_group_leaves(void **state)
{
    (void)state;
    struct folder f;
    struct machine m;
    folder_open(&f);
    put(&f, "proc/meminfo", "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\nSwapFree: 4 kB\n");
    put(&f, "proc/self/cgroup", "4:cpu,memory:/a/b\n0::/outer/inner\n");
    put(&f, "sys/fs/cgroup/outer/inner/memory.max", "max\n");
    put(&f, "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    machine_read(&m, f.path);
    assert_int_equal(m.memory_bytes, 16 << 20);
    assert_int_equal(m.memory_limit, 0);
    assert_int_equal(machine_memory(&m), 16 << 20);
    put(&f, "sys/fs/cgroup/outer/memory.max", "4194304\n");
    put(&f, "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8388608\n");
    machine_read(&m, f.path);
    assert_int_equal(machine_memory(&m), 4 << 20);
    struct machine_state now;
    machine_read_state(&now, f.path);
    assert_int_equal(now.memory_available, 8 << 20);
    assert_int_equal(now.swap_free, 4 << 10);
    assert_int_equal(now.throttled, -1);
    folder_close(&f);
}

#define SWAPS "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"

static enum swap_state swap_with(const struct folder *f, const char *lines)
{
    char text[1024];
    struct machine m;
    snprintf(text, sizeof text, SWAPS "%s", lines);
    put(f, "proc/swaps", text);
    machine_read(&m, f->path);
    return m.swap;
}

static void swap_is_as_safe_as_its_worst_part(void **state)
{
    (void)state;
    struct folder f;
    folder_open(&f);
    put(&f, "sys/class/block/dm-0/dm/uuid", "CRYPT-PLAIN-swap\n");
    put(&f, "sys/class/block/dm-2/dm/uuid", "LVM-xyz\n");
    put(&f, "sys/class/block/dm-2/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-pool\n");
    put(&f, "sys/class/block/dm-3/dm/uuid", "LVM-xyz\n");
    put(&f, "sys/class/block/dm-3/slaves/dm-0/dm/uuid", "CRYPT-LUKS2-pool\n");
    put(&f, "sys/class/block/dm-3/slaves/sda3/size", "1\n");
    put(&f, "sys/class/block/zram1/backing_dev", "/dev/sda4\n");
    assert_int_equal(swap_with(&f, ""), SWAP_OFF);
    assert_int_equal(swap_with(&f, "/dev/zram0 partition 1024 0 100\n"), SWAP_IN_MEMORY);
    assert_int_equal(swap_with(&f, "/dev/zram1 partition 1024 0 100\n"), SWAP_PLAIN);
    assert_int_equal(swap_with(&f, "/dev/dm-0 partition 1024 0 -2\n"), SWAP_ENCRYPTED);
    assert_int_equal(swap_with(&f, "/dev/dm-2 partition 1024 0 -2\n"), SWAP_ENCRYPTED);
    assert_int_equal(swap_with(&f, "/dev/dm-3 partition 1024 0 -2\n"), SWAP_PLAIN);
    assert_int_equal(swap_with(&f, "/dev/sda2 partition 1024 0 -2\n"), SWAP_PLAIN);
    assert_int_equal(swap_with(&f, "/dev/zram0 partition 1 0 5\n/dev/dm-0 partition 1 0 1\n"), SWAP_ENCRYPTED);
    assert_int_equal(swap_with(&f, "/dev/dm-0 partition 1 0 5\n/swap.img file 1 0 1\n"), SWAP_PLAIN);
    put(&f, "swapfile", "x"); /* a file is as safe as the device of its file system */
    struct stat st;
    char path[320], name[64];
    snprintf(path, sizeof path, "%s/swapfile", f.path);
    assert_int_equal(stat(path, &st), 0);
    snprintf(name, sizeof name, "sys/dev/block/%u:%u/dm/uuid", major(st.st_dev), minor(st.st_dev));
    put(&f, name, "CRYPT-LUKS2-root\n");
    assert_int_equal(swap_with(&f, "/swapfile file 1 0 1\n"), SWAP_ENCRYPTED);
    folder_close(&f);
}

static void classes_of_machines(void **state)
{
    (void)state;
    struct folder f;
    struct machine m;
    folder_open(&f);
    put(&f, "sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    put(&f, "sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n");
    machine_read(&m, f.path);
    assert_int_equal(m.class, MACHINE_DESKTOP); /* a card without a driver computes nothing */
    assert_string_equal(m.gpus[0], "NVIDIA GPU");
    put(&f, "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version: 12\n");
    put(&f, "proc/driver/nvidia/gpus/0000:01:00.0/information",
        "Model: \t\t NVIDIA GeForce RTX 3090\nIRQ:   \t\t 1\n");
    machine_read(&m, f.path);
    assert_int_equal(m.n_gpus, 1);
    assert_string_equal(m.gpus[0], "NVIDIA GeForce RTX 3090");
    assert_string_equal(m.gpu_driver, "535.129.03");
    assert_int_equal(m.class, MACHINE_DESKTOP_GPU);
    assert_true(machine_target_ms(m.class) == 2000);
    put(&f, "sys/class/power_supply/mouse/type", "Battery\n");
    put(&f, "sys/class/power_supply/mouse/scope", "Device\n");
    machine_read(&m, f.path);
    assert_int_equal(m.class, MACHINE_DESKTOP_GPU);
    put(&f, "sys/class/power_supply/BAT0/type", "Battery\n");
    put(&f, "sys/class/power_supply/BAT0/status", "Discharging\n");
    machine_read(&m, f.path);
    assert_int_equal(m.class, MACHINE_LAPTOP);
    assert_true(machine_target_ms(m.class) == 5000);
    struct machine_state now;
    machine_read_state(&now, f.path);
    assert_true(now.on_battery);
    folder_close(&f);

    folder_open(&f);
    put(&f, "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit");
    put(&f, "proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n");
    put(&f, "var/lib/nvpmodel/status", "pmode:0003 fmode:fanNull\n");
    machine_read(&m, f.path);
    machine_read_state(&now, f.path);
    assert_int_equal(m.class, MACHINE_EDGE);
    assert_string_equal(m.cpu, "Cortex-A78AE");
    assert_string_equal(now.power_mode, "nvpmodel 3");
    put(&f, "etc/nvpmodel.conf", "# modes\n< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=3 NAME=MODE_50W >\n");
    machine_read_state(&now, f.path);
    assert_string_equal(now.power_mode, "nvpmodel 3, MODE_50W");
    folder_close(&f);
}

static void state_of_the_moment(void **state)
{
    (void)state;
    struct folder f;
    struct machine_state now;
    folder_open(&f);
    put_processors(&f);
    put(&f, "proc/stat", "cpu  100 0 50 800 40 0 10 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
    put(&f, "proc/loadavg", "1.25 0.5 0.2 2/300 4000\n");
    put(&f, "sys/class/thermal/thermal_zone0/type", "x86_pkg_temp\n");
    put(&f, "sys/class/thermal/thermal_zone0/temp", "61000\n");
    put(&f, "sys/class/hwmon/hwmon1/name", "nvme\n");
    put(&f, "sys/class/hwmon/hwmon1/temp1_input", "90000\n");
    put(&f, "sys/class/hwmon/hwmon2/name", "k10temp\n");
    put(&f, "sys/class/hwmon/hwmon2/temp1_input", "63500\n");
    put(&f, "sys/firmware/acpi/platform_profile", "low-power\n");
    machine_read_state(&now, f.path);
    assert_string_equal(now.governor, "schedutil");
    assert_string_equal(now.power_mode, "low-power");
    assert_true(now.mhz == 2750 && now.mhz_limit == 4500);
    assert_true(now.celsius == 63.5);
    assert_int_equal(now.throttled, 12);
    assert_int_equal(now.ticks, 1000);
    assert_int_equal(now.idle_ticks, 840);
    assert_true(now.load == 1.25 && !now.on_battery);
    put(&f, "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance\n");
    machine_read_state(&now, f.path);
    assert_string_equal(now.governor, "mixed");
    folder_close(&f);
}

static void containers(void **state)
{
    (void)state;
    struct folder f;
    struct machine m;
    folder_open(&f);
    put(&f, "etc/os-release", "NAME=\"x\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
    machine_read(&m, f.path);
    assert_string_equal(m.container, "");
    assert_string_equal(m.system, "Debian GNU/Linux 12 (bookworm)");
    put(&f, "proc/self/cgroup", "0::/kubepods/besteffort/pod1\n");
    machine_read(&m, f.path);
    assert_string_equal(m.container, "kubepods");
    folder_close(&f);
}

/* Of this machine. What a set multiplies is a matter of its kernels, that it can read of any machine. */
static void limits_are_measured(void **state)
{
    (void)state;
    struct limits one, all;
    struct machine m;
    machine_read(&m, "");
    assert_true(m.memory_bytes > 0 && m.cores <= m.cpus);
    assert_true(m.cores > 0 || access("/sys/devices/system/cpu", F_OK) != 0); /* a bare root may lack /sys */
    assert_int_equal(limits_measure(&one, 1, ISA_NONE, NULL), 0);
    assert_int_equal(limits_measure(&all, 0, ISA_COUNT - 1, NULL), 0);
    assert_int_equal(one.threads, 1);
    assert_true(one.read_bytes > 1e8 && one.read_bytes < 1e13);
    assert_true(one.multiply[LIMITS_F32] > 0 && one.multiply[LIMITS_BF16] == 0 && one.multiply[LIMITS_INT8] == 0);
    assert_int_equal(all.isa, m.isa);
    assert_true(all.read_bytes >= 0.5 * all.read_bytes_one);
    assert_true(all.multiply[limits_multiply_of(all.isa, TENSOR_Q8_0)] > 0);
    if (m.isa >= ISA_AVX2) /* eight sums a step and products that add, in place of four */
        assert_true(all.multiply[LIMITS_F32] > 1.5 * one.multiply[LIMITS_F32]);
    assert_true(one.ms < 10000 && all.ms < 10000);

    struct json_writer *w = json_writer_new(true);
    struct json_document *document;
    size_t length;
    json_write_open(w, NULL, '{');
    limits_write_json(w, "limits", &all);
    machine_write_json(w, "machine", &m);
    struct machine_state now;
    machine_read_state(&now, "");
    machine_state_write_json(w, "state", &now);
    json_write_close(w, '}');
    const char *text = json_writer_text(w, &length);
    assert_int_equal(json_parse(&document, text, length, "limits", NULL), 0);
    int64_t threads;
    assert_true(json_integer(json_get(json_get(json_root(document), "limits"), "threads"), all.threads, all.threads,
                             &threads));
    json_close(&document);
    json_writer_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processors_and_caches),
        cmocka_unit_test(memory_is_what_the_tightest_group_leaves),
        cmocka_unit_test(swap_is_as_safe_as_its_worst_part),
        cmocka_unit_test(classes_of_machines),
        cmocka_unit_test(state_of_the_moment),
        cmocka_unit_test(containers),
        cmocka_unit_test(limits_are_measured),
    };
    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
