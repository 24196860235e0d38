/* The filter of system calls. What is not named here does not exist (ENOSYS): so a C library that tries a newer call
 * first falls back, and one that a later kernel brings is shut out. What a program is known to be abused for is refused
 * (EPERM). Calls of a foreign architecture (i386, x32) end the process. */
#include "offline/parts.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Names, because older headers and other architectures lack the numbers of some. */
static const char *const allowed[] = {
    /* reading and writing what is open */
    "read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "pwritev", "lseek", "close", "fstat",
    "getdents64", "dup", "dup2", "dup3", "pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "fadvise64", "flock",
    "fsync", "fdatasync", "ftruncate", "fallocate", "sync_file_range", "fstatfs", "close_range",
    /* names; Landlock decides what is behind them */
    "access", "faccessat", "faccessat2", "stat", "lstat", "newfstatat", "statx", "statfs", "readlink", "readlinkat",
    "getcwd", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "linkat",
    "symlink", "symlinkat", "umask",
    "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
    /* memory (mmap and mprotect: below) */
    "brk", "munmap", "mremap", "madvise", "mincore", "msync", "mlock", "mlock2", "munlock",
    /* threads (clone: below) */
    "futex", "futex_waitv", "set_robust_list", "get_robust_list", "set_tid_address", "rseq", "membarrier", "exit",
    "exit_group", "sched_yield", "sched_getaffinity", "getcpu", "arch_prctl", "gettid",
    /* signals of our own (kill: below) */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait",
    "sigaltstack", "restart_syscall",
    /* time, chance, and who and where we are */
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times", "getrandom",
    "getpid", "getppid", "getpgrp", "getpgid", "getsid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "uname",
    "sysinfo", "getrusage", "getrlimit", "getpriority",
};

static const char *const refused[] = {
    /* the network, inherited sockets included; descriptors passed over them */
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "sendmsg", "sendmmsg",
    "recvfrom", "recvmsg", "recvmmsg", "shutdown", "getsockname", "getpeername", "getsockopt", "setsockopt",
    "io_uring_setup", "io_uring_enter", "io_uring_register",
    /* other programs and processes */
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise",
    "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kcmp",
    /* the kernel and the view of the system */
    "bpf", "userfaultfd", "perf_event_open", "add_key", "request_key", "keyctl", "mount", "umount2", "move_mount",
    "open_tree", "fsopen", "fsmount", "pivot_root", "chroot", "setns", "unshare", "open_by_handle_at",
};

/* A build with a sanitizer checks for leaks at its end, with a process that traces the threads. Releases have none. */
#ifdef __has_feature
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || \
    HAS_FEATURE(thread_sanitizer)
static const char *const for_sanitizers[] = {"ptrace", "wait4", "prctl", "tkill", "clone", "getdents", NULL};
#else
static const char *const for_sanitizers[] = {NULL};
#endif

struct filter {
    scmp_filter_ctx context;
    int error;
};

static void put(struct filter *f, uint32_t action, const char *name, const struct scmp_arg_cmp *when)
{
    const int number = seccomp_syscall_resolve_name(name);
    if (f->error || number == __NR_SCMP_ERROR) /* unknown to this libseccomp: stays absent */
        return;
    f->error = -seccomp_rule_add_array(f->context, action, number, when ? 1 : 0, when);
}

static void add(struct filter *f, uint32_t action, const char *name, const struct scmp_arg_cmp *when)
{
    for (size_t i = 0; for_sanitizers[i]; i++)
        if (strcmp(name, for_sanitizers[i]) == 0)
            return;
    put(f, action, name, when);
}

/* When (argument & mask) == value. */
static void add_masked(struct filter *f, uint32_t action, const char *name, unsigned argument, uint64_t mask,
                       uint64_t value)
{
    add(f, action, name, &SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, mask, value));
}

static void allow_value(struct filter *f, const char *name, unsigned argument, uint64_t value)
{
    add_masked(f, SCMP_ACT_ALLOW, name, argument, UINT32_MAX, value);
}

/* O_RDONLY | O_TRUNC empties a file, and Landlock before ABI 3 does not see it. */
static void allow_open(struct filter *f, const char *name, unsigned argument)
{
    add_masked(f, SCMP_ACT_ALLOW, name, argument, O_TRUNC, 0);
    add_masked(f, SCMP_ACT_ALLOW, name, argument, O_ACCMODE, O_WRONLY);
    add_masked(f, SCMP_ACT_ALLOW, name, argument, O_ACCMODE, O_RDWR);
}

/* No memory becomes code: an exploit has to live on what is there. */
static void allow_without_exec(struct filter *f, const char *name)
{
    add_masked(f, SCMP_ACT_ALLOW, name, 2, PROT_EXEC, 0);
    add_masked(f, SCMP_ACT_ERRNO(EACCES), name, 2, PROT_EXEC, PROT_EXEC);
}

static void add_with_arguments(struct filter *f)
{
    /* TIOCSTI, which types into the terminal for the shell to run, and all that devices have are left out. */
    static const unsigned terminal[] = {TCGETS, TCSETS, TCSETSW, TCSETSF, TCGETS2,  TCSETS2,
                                        TCSETSW2, TCSETSF2, TIOCGWINSZ, TIOCGPGRP, FIONREAD};
    static const int descriptor[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK,
                                     F_SETLKW, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW};
    enum { THREAD = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD,
           NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |
                        CLONE_NEWCGROUP };
    allow_open(f, "open", 1);
    allow_open(f, "openat", 2);
    allow_without_exec(f, "mmap");
    allow_without_exec(f, "mprotect");
    for (size_t i = 0; i < sizeof terminal / sizeof *terminal; i++)
        allow_value(f, "ioctl", 1, terminal[i]);
    for (size_t i = 0; i < sizeof descriptor / sizeof *descriptor; i++)
        allow_value(f, "fcntl", 1, (uint64_t)descriptor[i]);
    /* clone3 hides its flags in memory: it does not exist, and the C library falls back to clone. */
    add_masked(f, SCMP_ACT_ALLOW, "clone", 0, THREAD | NAMESPACES, THREAD);
    add_masked(f, SCMP_ACT_ERRNO(EPERM), "clone", 0, CLONE_THREAD, 0);
    /* Ourselves, and for Ctrl-Z in a chat our group. */
    allow_value(f, "tgkill", 0, (uint64_t)getpid());
    allow_value(f, "kill", 0, (uint64_t)getpid());
    allow_value(f, "kill", 0, 0);
    allow_value(f, "prctl", 0, PR_SET_NAME);
    add_masked(f, SCMP_ACT_ALLOW, "prlimit64", 2, UINT64_MAX, 0); /* to ask, not to set */
}

/* What NVIDIA's driver asks of its devices: requests of type 'F' (the resource manager's), and those of unified memory,
 * which are plain numbers below 256 and two above; Landlock keeps them to those devices. Beyond that it places threads and
 * memory, and wakes itself up. */
static void add_card(struct filter *f)
{
    enum { TYPE = 0xff00, UVM_INITIALIZE = 0x30000001, UVM_DEINITIALIZE = 0x30000002 };
    static const char *const calls[] = {"eventfd2", "sched_setaffinity", "sched_get_priority_max",
                                        "sched_get_priority_min", "get_mempolicy", "mbind", "set_mempolicy",
                                        "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait"};
    add_masked(f, SCMP_ACT_ALLOW, "ioctl", 1, TYPE, 'F' << 8);
    add_masked(f, SCMP_ACT_ALLOW, "ioctl", 1, UINT32_MAX & ~(uint64_t)UINT8_MAX, 0);
    /* A Jetson's: of the GPU, its address spaces, channels and memory; and of groups of channels, whose type is that of the
     * terminal's requests, which carry no direction. */
    static const char jetson[] = {'G', 'A', 'H', 'N'};
    if (access("/dev/nvmap", F_OK) == 0) {
        enum { GROUP = 'T' << 8 };
        static const uint64_t directions[] = {0x40000000, 0x80000000, 0xc0000000};
        for (size_t i = 0; i < sizeof jetson; i++)
            add_masked(f, SCMP_ACT_ALLOW, "ioctl", 1, TYPE, (uint64_t)jetson[i] << 8);
        for (size_t i = 0; i < sizeof directions / sizeof *directions; i++)
            add_masked(f, SCMP_ACT_ALLOW, "ioctl", 1, 0xc0000000 | TYPE, directions[i] | GROUP);
    }
    allow_value(f, "ioctl", 1, UVM_INITIALIZE);
    allow_value(f, "ioctl", 1, UVM_DEINITIALIZE);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        add(f, SCMP_ACT_ALLOW, calls[i], NULL);
    allow_value(f, "move_pages", 0, 0); /* its own */
    allow_value(f, "fcntl", 1, F_ADD_SEALS);
    allow_value(f, "fcntl", 1, F_GET_SEALS);
}

int seccomp_enforce(bool card)
{
    struct filter f = {.context = seccomp_init(SCMP_ACT_ERRNO(ENOSYS))};
    if (!f.context)
        return ENOMEM;
    f.error = -seccomp_attr_set(f.context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (!f.error)
        f.error = -seccomp_attr_set(f.context, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!f.error)
        f.error = -seccomp_attr_set(f.context, SCMP_FLTATR_API_SYSRAWRC, 1);
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        add(&f, SCMP_ACT_ALLOW, allowed[i], NULL);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        add(&f, SCMP_ACT_ERRNO(EPERM), refused[i], NULL);
    /* A file in memory, with which NVIDIA's driver starts; mmap and execve keep it from becoming code. */
    add(&f, card ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM), "memfd_create", NULL);
    add_with_arguments(&f);
    if (card)
        add_card(&f);
    for (size_t i = 0; for_sanitizers[i]; i++)
        put(&f, SCMP_ACT_ALLOW, for_sanitizers[i], NULL);
    if (!f.error)
        f.error = -seccomp_load(f.context);
    seccomp_release(f.context);
    return f.error;
}
