/* Preloaded into ward: once a command has done its work, and would be done in by what it read, tries to get out and says
 * on standard error what came of it, "escape: socket=EPERM ...", for tests/cli/test_offline.py. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static char report[1024];

static void note(const char *name, long returned)
{
    const size_t used = strlen(report);
    snprintf(report + used, sizeof report - used, " %s=%s", name, returned < 0 ? strerrorname_np(errno) : "allowed");
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

static void *in_a_thread(void *arg)
{
    note("thread_socket", syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
    return arg;
}

__attribute__((destructor)) static void escape(void)
{
    char *const arguments[] = {"true", NULL};
    struct io_uring_params ring = {0};
    struct rlimit core;
    pthread_t thread;
    char name[64];
    int pair[2];
    for (int family = 0; family <= 45; family++) { /* AF_INET to AF_MCTP: none of them */
        const long fd = syscall(SYS_socket, family, SOCK_DGRAM, 0);
        if (fd >= 0 || errno != EPERM) {
            snprintf(name, sizeof name, "socket_family_%d", family);
            note(name, fd);
        }
    }
    note("socket", syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
    note("socketpair", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair));
    note("sendto", syscall(SYS_sendto, 0, "x", 1, 0, NULL, 0));
    note("fork", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    note("exec", syscall(SYS_execve, "/bin/true", arguments, arguments + 1));
    note("ptrace", syscall(SYS_ptrace, PTRACE_ATTACH, getppid(), NULL, NULL));
    note("kill", syscall(SYS_kill, getppid(), 0));
    note("io_uring", syscall(SYS_io_uring_setup, 1, &ring));
    note("code", (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    note("write", open(environment("ESCAPE_WRITE"), O_WRONLY | O_CREAT, 0600));
    note("empty", open(environment("ESCAPE_READ"), O_RDONLY | O_TRUNC));
    note("read", open(environment("ESCAPE_READ"), O_RDONLY));
    note("inherited", fcntl(atoi(environment("ESCAPE_FD")), F_GETFD));
    note("type", ioctl(0, TIOCSTI, "x"));
    note("core", getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_max == 0 ? (errno = EPERM, -1) : 0);
    if (pthread_create(&thread, NULL, in_a_thread, NULL) == 0)
        pthread_join(thread, NULL);
    dprintf(STDERR_FILENO, "escape:%s\n", report);
}
