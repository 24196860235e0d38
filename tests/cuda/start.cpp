/* How NVIDIA's driver starts, as far as ward's lock is concerned: the calls of libcuda 555 up to where it looks for a
 * card, seen with strace; a file in memory, which those from 570 on make; and what it asks for beside a card. What it
 * does not start without (CUDA_ERROR_OPERATING_SYSTEM), this one does not either. */
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace
{

int wake = -1, quit[2];

bool report(bool went_well, const char *what)
{
    if (!went_well)
        fprintf(stderr, "emulated driver: %s: %s\n", what, strerror(errno));
    return went_well;
}

/* What is not there is not missed. */
bool reads(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool read_or_absent = fd >= 0 || errno == ENOENT;
    if (fd >= 0)
        close(fd);
    return report(read_or_absent, path);
}

/* Waits for events, for as long as the process lives. */
void *handle_events(void *thread)
{
    *(volatile pid_t *)thread = (pid_t)syscall(SYS_gettid);
    eventfd_write(wake, 1);
    for (;;) {
        pollfd at[] = {{quit[0], POLLIN, 0}};
        poll(at, 1, -1);
    }
    return nullptr;
}

/* The thread is named by the one that started it, which makes the difference: prctl names only oneself. */
bool start_thread()
{
    static pid_t id;
    pthread_t thread;
    eventfd_t count;
    if (!report((wake = eventfd(0, EFD_CLOEXEC)) >= 0 && pipe2(quit, O_CLOEXEC) == 0, "events") ||
        !report((errno = pthread_create(&thread, nullptr, handle_events, &id)) == 0, "a thread") ||
        !report(eventfd_read(wake, &count) == 0, "an event"))
        return false;
    pthread_detach(thread);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)id);
    FILE *file = fopen(path, "w");
    return report(file && fputs("cuda-EvtHandlr", file) >= 0 && fclose(file) == 0, "the name of a thread");
}

/* Shared with a debugger or another process of the user's, if one comes. */
bool shares_memory()
{
    const size_t size = 2 << 20;
    const int fd = (int)syscall(SYS_memfd_create, "cuda", 1 /* MFD_CLOEXEC */);
    void *memory = fd >= 0 && ftruncate(fd, (off_t)size) == 0
                       ? mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                       : MAP_FAILED;
    if (!report(memory != MAP_FAILED, "a file in memory"))
        return false;
    munmap(memory, size);
    close(fd);
    return true;
}

/* Addresses for memory that both see; where threads may run. */
bool places_itself()
{
    const size_t size = (size_t)8 << 30;
    void *memory = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!report(memory != MAP_FAILED, "addresses"))
        return false;
    munmap(memory, size);
    cpu_set_t cpus;
    return report(sched_getaffinity(0, sizeof cpus, &cpus) == 0 && sched_setaffinity(0, sizeof cpus, &cpus) == 0,
                  "processors") &&
           report(sched_get_priority_max(SCHED_RR) >= 0, "priorities");
}

/* The daemon of MPS, which the lock keeps it from and which is rarely there: neither ends the start. */
void looks_for_a_daemon()
{
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        close(fd);
}

} // namespace

bool emulated_start()
{
    static const char *const files[] = {"/proc/sys/vm/mmap_min_addr", "/proc/cpuinfo", "/proc/self/maps", "/proc/self/status",
                                        "/proc/modules", "/proc/devices", "/proc/driver/nvidia/params",
                                        "/sys/devices/system/cpu/online", "/sys/devices/system/node", "/sys/bus/pci/devices",
                                        "/etc/nvidia", "/usr/share/nvidia"};
    for (const char *file : files)
        if (!reads(file))
            return false;
    looks_for_a_daemon();
    return start_thread() && shares_memory() && places_itself();
}
