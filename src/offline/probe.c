#include "offline/probe.h"

#include "offline/offline.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* the same on all architectures */
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* What listens on this machine while the attempts are made. */
struct targets {
    int tcp, udp, dns, local;          /* listening sockets; dns may be -1: port 53 is for root, and may be taken */
    int ours, inherited;               /* the two ends of a connection */
    struct sockaddr_in tcp_at, udp_at, dns_at;
    struct sockaddr_un local_at;       /* abstract: leaves nothing behind */
    socklen_t local_size;
    char folder[256], program[4096];   /* where we may write; our own file */
};

/* What a process that tries tells. */
struct report {
    int outcome; /* 0 until the kernel refused */
    struct offline_state state;
};

/* errno of a call that returned -1, else 0. */
static int outcome(long returned)
{
    return returned < 0 ? errno : 0;
}

/* ---- the attempts: each returns 0 or errno ----------------------------------------------------------------------- */

static int try_tcp(const struct targets *t)
{
    const long fd = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    return outcome(fd < 0 ? fd : syscall(SYS_connect, fd, &t->tcp_at, sizeof t->tcp_at));
}

static int send_to(const struct sockaddr_in *to, const void *packet, size_t size, int listener)
{
    char got[64];
    const long fd = syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
    const long sent = fd < 0 ? fd : syscall(SYS_sendto, fd, packet, size, 0, to, sizeof *to);
    if (sent < 0 || listener < 0)
        return outcome(sent);
    return outcome(syscall(SYS_recvfrom, listener, got, sizeof got, MSG_DONTWAIT, NULL, NULL));
}

static int try_udp(const struct targets *t)
{
    return send_to(&t->udp_at, "ward", 4, t->udp);
}

/* A question for the address of example.org, as RFC 1035 has it. */
static int try_dns(const struct targets *t)
{
    static const char question[] = "\x12\x34\x01\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1";
    return send_to(&t->dns_at, question, sizeof question - 1, t->dns);
}

static int try_local(const struct targets *t)
{
    const long fd = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    return outcome(fd < 0 ? fd : syscall(SYS_connect, fd, &t->local_at, t->local_size));
}

static int try_socketpair(const struct targets *t)
{
    (void)t;
    int pair[2];
    return outcome(syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair));
}

static int try_inherited(const struct targets *t)
{
    return outcome(syscall(SYS_write, t->inherited, "ward", 4));
}

/* Passing a file over a socket that is there; standard input takes the part of one that stays open. */
static int try_pass_descriptor(const struct targets *t)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    memcpy(CMSG_DATA(&control.header), &t->inherited, sizeof(int));
    return outcome(syscall(SYS_sendmsg, STDIN_FILENO, &message, 0));
}

static int try_exec(const struct targets *t)
{
    char *const arguments[] = {"ward", "--version", NULL};
    char *const environment[] = {NULL};
    return outcome(syscall(SYS_execve, t->program, arguments, environment));
}

static int try_fork(const struct targets *t)
{
    (void)t;
    const long child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0)
        _exit(0);
    return outcome(child);
}

static int try_write(const struct targets *t)
{
    char path[sizeof t->folder + 64];
    snprintf(path, sizeof path, "%s/.ward-offline-%ld", t->folder, (long)getpid());
    const long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd >= 0)
        unlink(path);
    return outcome(fd);
}

static int try_read(const struct targets *t)
{
    return outcome(syscall(SYS_openat, AT_FDCWD, t->program, O_RDONLY, 0));
}

static int try_ptrace(const struct targets *t)
{
    (void)t;
    return outcome(syscall(SYS_ptrace, PTRACE_TRACEME, 0, NULL, NULL));
}

static int try_io_uring(const struct targets *t)
{
    (void)t;
    struct io_uring_params parameters = {0};
    return outcome(syscall(SYS_io_uring_setup, 1, &parameters));
}

/* Another process's descriptor: its connection, without opening one. */
static int try_pidfd_getfd(const struct targets *t)
{
    (void)t;
    const long process = syscall(SYS_pidfd_open, getpid(), 0);
    return outcome(process < 0 ? process : syscall(SYS_pidfd_getfd, process, STDOUT_FILENO, 0));
}

static int try_memory_exec(const struct targets *t)
{
    (void)t;
    return outcome(syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/* ---- the machinery ----------------------------------------------------------------------------------------------- */

static const struct attempt {
    const char *name, *what;
    bool needed;
    int (*make)(const struct targets *t);
} attempts[] = {
    {"tcp_connect", "connect to a TCP listener on this machine", true, try_tcp},
    {"udp_send", "send a UDP packet to a listener on this machine", true, try_udp},
    {"dns_query", "ask a name server: a UDP packet to port 53", true, try_dns},
    {"unix_socket", "connect to a Unix socket", true, try_local},
    {"socketpair", "make a pair of sockets", true, try_socketpair},
    {"inherited_socket", "write to a connection left open by the parent", true, try_inherited},
    {"pass_descriptor", "pass a file over a socket (SCM_RIGHTS)", true, try_pass_descriptor},
    {"exec", "start a program", true, try_exec},
    {"fork", "start a process", true, try_fork},
    {"write_outside", "write a file that is no output", true, try_write},
    {"read_outside", "read a file that is no input", true, try_read},
    {"ptrace", "trace a process", false, try_ptrace},
    {"pidfd_getfd", "take a descriptor of a process", false, try_pidfd_getfd},
    {"io_uring", "open a ring of requests past the filter", false, try_io_uring},
    {"memory_exec", "map memory that can be run", false, try_memory_exec},
};
enum { N_ATTEMPTS = sizeof attempts / sizeof *attempts };
_Static_assert((int)N_ATTEMPTS <= (int)(sizeof((struct proof *)0)->at / sizeof(struct probe)), "room for every result");

static int listen_inet(int type, struct sockaddr_in *at, uint16_t port)
{
    socklen_t size = sizeof *at;
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    const int fd = (int)syscall(SYS_socket, AF_INET, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (syscall(SYS_bind, fd, at, sizeof *at) || (type == SOCK_STREAM && syscall(SYS_listen, fd, 8)) ||
        syscall(SYS_getsockname, fd, at, &size)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void listen_local(struct targets *t)
{
    t->local_at = (struct sockaddr_un){.sun_family = AF_UNIX};
    const int n = snprintf(t->local_at.sun_path + 1, sizeof t->local_at.sun_path - 1, "ward-offline-%ld", (long)getpid());
    t->local_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    t->local = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (t->local >= 0 &&
        (syscall(SYS_bind, t->local, &t->local_at, t->local_size) || syscall(SYS_listen, t->local, 8))) {
        close(t->local);
        t->local = -1;
    }
}

/* A listener that cannot be had leaves the attempt without one: it fails outside the lock too, and the proof is void. */
static void open_targets(struct targets *t)
{
    static const char *const folders[] = {"/tmp", "/dev/shm", "."};
    int pair[2] = {-1, -1};
    t->tcp = listen_inet(SOCK_STREAM, &t->tcp_at, 0);
    t->udp = listen_inet(SOCK_DGRAM, &t->udp_at, 0);
    t->dns = listen_inet(SOCK_DGRAM, &t->dns_at, 53);
    listen_local(t);
    (void)syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
    t->ours = pair[0];
    t->inherited = pair[1];
    for (size_t i = 0; i < sizeof folders / sizeof *folders && access(t->folder, W_OK); i++)
        snprintf(t->folder, sizeof t->folder, "%s", folders[i]);
    const ssize_t n = readlink("/proc/self/exe", t->program, sizeof t->program - 1);
    t->program[n > 0 ? n : 0] = '\0';
}

static void close_targets(const struct targets *t)
{
    const int open[] = {t->tcp, t->udp, t->dns, t->local, t->ours, t->inherited};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        if (open[i] >= 0)
            close(open[i]);
}

/* In a process of its own. A program that was started ends with status 0, as the process itself does. */
static _Noreturn void attempt_in_child(const struct targets *t, const struct attempt *attempt, bool locked,
                                       struct report *report)
{
    const struct offline_policy nothing = {.partial = true};
    const int null = open("/dev/null", O_WRONLY);
    if (null >= 0)
        dup2(null, STDOUT_FILENO);
    dup2(t->inherited, STDIN_FILENO);
    if (locked && offline_lock(&nothing, NULL))
        _exit(1);
    report->state = *offline_state();
    report->outcome = attempt->make(t);
    _exit(0);
}

static int run_attempt(struct report *report, const struct targets *t, const struct attempt *attempt, bool locked,
                       struct ward_error *err)
{
    int status;
    *report = (struct report){0};
    const pid_t child = fork();
    if (child == 0)
        attempt_in_child(t, attempt, locked, report);
    if (child < 0)
        return error_set(err, WARD_EIO, "no process could be started for the proof: %s", strerror(errno));
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(err, WARD_EIO, "a process of the proof was lost: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return error_set(err, WARD_EIO, "%s: the process that tried it ended in disorder", attempt->name);
    return 0;
}

static int run_attempts(struct proof *out, const struct targets *t, struct report *report, struct ward_error *err)
{
    int rc = 0;
    *out = (struct proof){.enforced = true};
    for (; out->n < (int)N_ATTEMPTS && !rc; out->n++) {
        const struct attempt *a = &attempts[out->n];
        struct probe *p = &out->at[out->n];
        *p = (struct probe){.name = a->name, .what = a->what, .needed = a->needed};
        rc = run_attempt(report, t, a, false, err);
        p->unlocked = report->outcome;
        if (!rc)
            rc = run_attempt(report, t, a, true, err);
        p->locked = report->outcome;
        out->state = report->state;
        out->enforced = out->enforced && report->state.enforced && p->locked && (!p->needed || !p->unlocked);
    }
    return rc;
}

int probe_all(struct proof *out, struct ward_error *err)
{
    struct report *report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED)
        return error_no_memory(err, "the proof", sizeof *report);
    struct targets t = {0};
    open_targets(&t);
    const int rc = run_attempts(out, &t, report, err);
    close_targets(&t);
    munmap(report, sizeof *report);
    return rc;
}
