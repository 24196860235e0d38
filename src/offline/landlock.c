/* Landlock: which files are reached, by the path that is in the policy. Linux 5.13 and later; headers of any age. */
#include "offline/parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- the kernel's interface (linux/landlock.h, which older distributions have in part or not at all) --------------- */

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444 /* the same on all architectures */
#define SYS_landlock_add_rule 445
#define SYS_landlock_restrict_self 446
#endif

struct ruleset {
    uint64_t handled_fs, handled_net, scoped;
};
struct rule {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));
enum { VERSION_FLAG = 1, RULE_PATH_BENEATH = 1 };

enum { /* rights on files */
    EXECUTE = 1 << 0, WRITE_FILE = 1 << 1, READ_FILE = 1 << 2, READ_DIR = 1 << 3, REMOVE_DIR = 1 << 4,
    REMOVE_FILE = 1 << 5, MAKE_CHAR = 1 << 6, MAKE_DIR = 1 << 7, MAKE_REG = 1 << 8, MAKE_SOCK = 1 << 9,
    MAKE_FIFO = 1 << 10, MAKE_BLOCK = 1 << 11, MAKE_SYM = 1 << 12,
    REFER = 1 << 13,     /* ABI 2 */
    TRUNCATE = 1 << 14,  /* ABI 3 */
    IOCTL_DEV = 1 << 15, /* ABI 5 */

    ABI_1 = MAKE_SYM * 2 - 1,
    ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV, /* the others mean folders */
    READING = READ_FILE | READ_DIR,
    WRITING = READING | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE | MAKE_DIR | REMOVE_DIR | REFER,
};
enum { BIND_TCP = 1 << 0, CONNECT_TCP = 1 << 1 };          /* ABI 4 */
enum { ABSTRACT_UNIX_SOCKET = 1 << 0, SIGNAL = 1 << 1 }; /* ABI 6 */

static struct ruleset handled(int abi)
{
    return (struct ruleset){
        .handled_fs = ABI_1 | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0) | (abi >= 5 ? IOCTL_DEV : 0),
        .handled_net = abi >= 4 ? BIND_TCP | CONNECT_TCP : 0,
        .scoped = abi >= 6 ? ABSTRACT_UNIX_SOCKET | SIGNAL : 0,
    };
}

int landlock_abi(int *error)
{
    const long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, VERSION_FLAG);
    *error = abi < 0 ? errno : 0;
    return abi < 0 ? 0 : (int)abi;
}

/* ---- rules ------------------------------------------------------------------------------------------------------- */

/* A kernel refuses rights that it does not handle, and those of folders on a file. What is on no file system, a pipe,
 * needs no rule (EBADFD). */
static int add_rule(int rules, int fd, uint64_t rights, int abi)
{
    struct stat st;
    if (fstat(fd, &st))
        return errno;
    struct rule rule = {.allowed = rights & handled(abi).handled_fs, .parent_fd = fd};
    if (!S_ISDIR(st.st_mode))
        rule.allowed &= ON_FILES;
    if (!rule.allowed || syscall(SYS_landlock_add_rule, rules, RULE_PATH_BENEATH, &rule, 0) == 0 || errno == EBADFD)
        return 0;
    return errno;
}

static int add_path(int rules, const char *path, uint64_t rights, int abi)
{
    const int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return 0; /* not there, or behind a folder that we may not search: opening it will fail just so */
    const int error = add_rule(rules, fd, rights, abi);
    close(fd);
    return error;
}

/* The files that links in a folder point to: a snapshot in Hugging Face's cache is made of such. */
static int add_links(int rules, const char *folder, int abi)
{
    DIR *dir = opendir(folder);
    int error = 0;
    for (struct dirent *entry; dir && !error && (entry = readdir(dir));) {
        struct stat st;
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISLNK(st.st_mode))
            continue;
        const int fd = openat(dirfd(dir), entry->d_name, O_PATH | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            error = add_rule(rules, fd, READ_FILE, abi);
        close(fd);
    }
    if (dir)
        closedir(dir);
    return error;
}

static int add_output(int rules, const char *path, int abi)
{
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return add_path(rules, path, WRITE_FILE, abi);
    char *copy = strdup(path);
    const int error = copy ? add_path(rules, dirname(copy), WRITING, abi) : ENOMEM;
    free(copy);
    return error;
}

static int add_policy(int rules, const struct offline_policy *policy, int abi)
{
    /* What ward and the C library read about the limits of this process and machine. */
    static const char *const system[] = {"/proc/meminfo", "/sys/fs/cgroup", "/sys/devices/system/cpu"};
    int error = 0;
    for (size_t i = 0; i < sizeof system / sizeof *system && !error; i++)
        error = add_path(rules, system[i], READING, abi);
    if (!error && policy->read_anywhere)
        error = add_path(rules, "/", READING, abi);
    for (size_t i = 0; i < policy->n && !error; i++) {
        const struct offline_path *p = &policy->paths[i];
        switch (p->access) {
        case OFFLINE_READ:
            error = add_path(rules, p->path, READING, abi);
            if (!error)
                error = add_links(rules, p->path, abi);
            break;
        case OFFLINE_LIST: error = add_path(rules, p->path, READ_DIR, abi); break;
        case OFFLINE_OUTPUT: error = add_output(rules, p->path, abi); break;
        case OFFLINE_FOLDER: error = add_path(rules, p->path, WRITING, abi); break;
        case OFFLINE_LINKS: error = add_path(rules, p->path, WRITING | MAKE_SYM, abi); break;
        }
    }
    return error;
}

static bool is_card_device(const char *name)
{
    static const char *const prefixes[] = {"nvidia", "nvmap", "nvhost-", "host1x-fence"}; /* the last three a Jetson's */
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

/* procfs forgets the inode of a folder that nobody uses, and the rule on it would be void: the descriptor stays open in
 * *kept, for as long as the process runs. */
static int add_kept(int rules, int *kept, const char *path, uint64_t rights, int abi)
{
    if (*kept < 0)
        *kept = open(path, O_PATH | O_CLOEXEC);
    return *kept < 0 ? 0 : add_rule(rules, *kept, rights, abi);
}

/* NVIDIA's devices, one by one, and what the driver reads about them, the machine and itself. It names the threads that
 * it starts, by fopen("/proc/self/task/N/comm", "w"), and does not start where it cannot. */
static int add_card(int rules, int abi)
{
    static const char *const read[] = {
        "/proc/driver/nvidia", "/proc/driver/nvidia-caps", "/proc/driver/nvidia-uvm", "/proc/driver/nvidia-nvlink",
        "/proc/driver/nvidia-nvswitch", "/proc/devices", "/proc/modules", "/proc/cpuinfo", "/proc/sys/vm/mmap_min_addr",
        "/proc/sys/vm/overcommit_memory", "/sys/bus/pci", "/sys/devices", "/sys/module/nvidia", "/dev/nvidia-caps",
        "/dev/nvidia-caps-imex-channels", "/etc/nvidia", "/usr/share/nvidia"};
    static int tasks = -1;
    int error = add_kept(rules, &tasks, "/proc/self/task", WRITE_FILE | TRUNCATE, abi);
    for (size_t i = 0; i < sizeof read / sizeof *read && !error; i++)
        error = add_path(rules, read[i], READING, abi);
    if (!error)
        error = add_path(rules, "/dev/nvgpu", READING | WRITE_FILE | IOCTL_DEV, abi);
    DIR *dir = opendir("/dev");
    for (struct dirent *entry; dir && !error && (entry = readdir(dir));) {
        const int fd = is_card_device(entry->d_name) ? openat(dirfd(dir), entry->d_name, O_PATH | O_CLOEXEC) : -1;
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISCHR(st.st_mode))
            error = add_rule(rules, fd, READ_FILE | WRITE_FILE | IOCTL_DEV, abi);
        if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
    return error;
}

int landlock_enforce(const struct offline_policy *policy, int abi)
{
    const struct ruleset set = handled(abi);
    const size_t size = abi >= 6 ? sizeof set : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
    const int rules = (int)syscall(SYS_landlock_create_ruleset, &set, size, 0);
    if (rules < 0)
        return errno;
    static int self = -1;
    int error = add_kept(rules, &self, "/proc/self", READING, abi);
    if (!error)
        error = add_policy(rules, policy, abi);
    if (!error && policy->card)
        error = add_card(rules, abi);
    if (!error && syscall(SYS_landlock_restrict_self, rules, 0))
        error = errno;
    close(rules);
    return error;
}
