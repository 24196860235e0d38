#include "offline/offline.h"

#include "offline/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct offline_state state;

const struct offline_state *offline_state(void)
{
    return &state;
}

/* ---- the policy -------------------------------------------------------------------------------------------------- */

void offline_allow(struct offline_policy *policy, enum offline_access access, const char *path)
{
    if (!path || policy->failed)
        return;
    struct offline_path *paths = realloc(policy->paths, (policy->n + 1) * sizeof *paths);
    char *copy = paths ? strdup(path) : NULL;
    if (paths)
        policy->paths = paths;
    if (copy)
        paths[policy->n++] = (struct offline_path){copy, access};
    else
        policy->failed = true;
}

void offline_policy_free(struct offline_policy *policy)
{
    for (size_t i = 0; i < policy->n; i++)
        free(policy->paths[i].path);
    free(policy->paths);
    *policy = (struct offline_policy){0};
}

/* ---- descriptors and dumps --------------------------------------------------------------------------------------- */

/* N of /dev/fd/N and /proc/self/fd/N, as a shell writes <(COMMAND); -1. */
static int descriptor_of(const char *path)
{
    int fd = -1, end = 0;
    if ((sscanf(path, "/dev/fd/%d%n", &fd, &end) == 1 || sscanf(path, "/proc/self/fd/%d%n", &fd, &end) == 1) &&
        !path[end])
        return fd;
    return -1;
}

static int close_range_or_each(unsigned first, unsigned last)
{
#ifndef SYS_close_range
#define SYS_close_range 436 /* Linux 5.9 */
#endif
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return 0;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit))
        return errno;
    for (unsigned fd = first; fd <= last && fd < limit.rlim_cur; fd++)
        close((int)fd);
    return 0;
}

/* What the parent left open may be a socket, a terminal, or a file that the lock would not let ward open. */
static int close_inherited(const struct offline_policy *policy)
{
    int fd = 2, error = 0;
    while (!error && fd < INT_MAX) {
        int next = INT_MAX; /* the lowest one above fd to keep */
        for (size_t i = 0; i < policy->n; i++) {
            const int named = descriptor_of(policy->paths[i].path);
            if (named > fd && named < next)
                next = named;
        }
        error = close_range_or_each((unsigned)fd + 1, next == INT_MAX ? UINT_MAX : (unsigned)next - 1);
        fd = next;
    }
    return error;
}

/* No core file and no core handler gets the memory, no process of the user's may attach. A dump that root takes all the
 * same is to hold nothing of it, where the kernel lets us say so (not with /proc absent). */
static int forbid_dumps(void)
{
    const int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "0\n", 2);
        close(fd);
    }
    if (setrlimit(RLIMIT_CORE, &(struct rlimit){0}) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
        return errno;
    return 0;
}

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

static void note_missing(const char *what, int error)
{
    const size_t used = strlen(state.missing);
    state.enforced = false;
    snprintf(state.missing + used, sizeof state.missing - used, "%s%s (%s)", used ? "; " : "", what, strerror(error));
}

/* Landlock binds the thread that calls it and those it starts: one that runs already would stay free. One that was
 * joined takes the kernel a moment to remove. */
static int other_threads(void)
{
    struct stat st;
    int others = 0;
    for (int tries = 0; tries < 100; tries++) {
        others = stat("/proc/self/task", &st) == 0 && st.st_nlink > 3 ? (int)st.st_nlink - 3 : 0;
        if (!others)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return others;
}

static void lock_files(const struct offline_policy *policy)
{
    int error = 0;
    const int abi = landlock_abi(&error);
    if (abi && !(error = landlock_enforce(policy, abi)))
        state.landlock = abi;
    else
        note_missing("files: no Landlock in this kernel", error);
}

static void lock_all(const struct offline_policy *policy)
{
    int error;
    state = (struct offline_state){.attempted = true, .enforced = true};
    if (!policy->keep_descriptors && (error = close_inherited(policy)))
        note_missing("inherited descriptors are open", error);
    if ((error = forbid_dumps()))
        note_missing("core dumps are on", error);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        note_missing("privileges: no PR_SET_NO_NEW_PRIVS in this kernel", errno);
    lock_files(policy);
    if ((error = seccomp_enforce(policy->card)))
        note_missing("system calls: no seccomp in this kernel", error);
    state.seccomp = !error;
}

int offline_lock(const struct offline_policy *policy, struct ward_error *err)
{
    if (policy->failed)
        return error_no_memory(err, "the lock", policy->n * sizeof *policy->paths);
    const int threads = other_threads(); /* an emulator of the processor, for one, has some of its own */
    if (threads && !policy->partial)
        return error_set(err, WARD_EINVAL, "the lock comes before threads: %d run already", threads);
    if (!state.attempted)
        lock_all(policy);
    else if (state.landlock)
        lock_files(policy);
    if (threads)
        note_missing("files: other threads run already", EBUSY);
    if (!state.enforced && !policy->partial)
        return error_set(err, WARD_EUNSUPPORTED, "the operating system cannot lock ward: %s", state.missing);
    return 0;
}
