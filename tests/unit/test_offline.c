/* The lock, from inside: each attempt in a process of its own, for every ABI of Landlock up to the kernel's. */
#include "folder.h"

#include "base/private.h"
#include "offline/offline.h"
#include "offline/parts.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* What a function returned in a process of its own; 256 + the number of the signal that ended it. */
static int in_a_process(int (*function)(void *arg), void *arg)
{
    int status;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        _exit(function(arg));
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static bool can_lock(void)
{
    int error;
    return landlock_abi(&error) > 0;
}

#define SKIP_UNLESS_LOCKABLE()                                \
    do {                                                      \
        if (!can_lock()) {                                    \
            print_message("# this kernel has no Landlock\n"); \
            skip();                                           \
        }                                                     \
    } while (0)

/* 0, or errno of a file that cannot be opened. */
static int open_in(const struct folder *f, const char *name, int flags)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    const int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? errno : 0;
}

static int rename_in(const struct folder *f, const char *from, const char *to)
{
    char a[512], b[512];
    snprintf(a, sizeof a, "%s/%s", f->path, from);
    snprintf(b, sizeof b, "%s/%s", f->path, to);
    return rename(a, b) ? errno : 0;
}

/* in/scan, in/link -> far/blob, in/folder -> far; other/secret; out/ */
static void make_files(struct folder *f)
{
    char path[512], target[512];
    folder_open(f);
    folder_write_text(f, "in/scan", "an input");
    folder_write_text(f, "far/blob", "what a link in a folder points to");
    folder_write_text(f, "far/other", "what none points to");
    folder_write_text(f, "other/secret", "of another patient");
    folder_write_text(f, "out/old", "to be replaced");
    snprintf(path, sizeof path, "%s/in/link", f->path);
    assert_int_equal(symlink("../far/blob", path), 0);
    snprintf(path, sizeof path, "%s/in/folder", f->path);
    snprintf(target, sizeof target, "%s/far", f->path);
    assert_int_equal(symlink(target, path), 0);
}

static void allow(struct offline_policy *policy, enum offline_access access, const struct folder *f, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", f->path, name);
    offline_allow(policy, access, path);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

struct at_abi {
    struct folder folder;
    int abi;
};

#define REQUIRE(condition) \
    do {                   \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            return 1;      \
        }                  \
    } while (0)

static int files_at_abi(void *arg)
{
    const struct at_abi *a = arg;
    const struct folder *f = &a->folder;
    struct offline_policy policy = {0};
    allow(&policy, OFFLINE_READ, f, "in");
    allow(&policy, OFFLINE_OUTPUT, f, "out/new");
    allow(&policy, OFFLINE_READ, f, "absent");
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    REQUIRE(landlock_enforce(&policy, a->abi) == 0);
    REQUIRE(seccomp_enforce(false) == 0);

    REQUIRE(open_in(f, "in/scan", O_RDONLY) == 0);
    REQUIRE(open_in(f, "in/link", O_RDONLY) == 0);
    REQUIRE(open_in(f, "far/other", O_RDONLY) == EACCES);
    REQUIRE(open_in(f, "in/folder/other", O_RDONLY) == EACCES);
    REQUIRE(open_in(f, "other/secret", O_RDONLY) == EACCES);
    REQUIRE(open_in(f, "absent", O_RDONLY) == ENOENT);

    REQUIRE(open_in(f, "in/scan", O_RDWR) == EACCES);
    REQUIRE(open_in(f, "in/scan", O_RDONLY | O_TRUNC) != 0); /* empties a file without a right to write on ABI 1, 2 */
    REQUIRE(open_in(f, "in/new", O_WRONLY | O_CREAT) == EACCES);
    REQUIRE(open_in(f, "other/new", O_WRONLY | O_CREAT) == EACCES);
    REQUIRE(rename_in(f, "other/secret", "out/stolen") != 0);
    REQUIRE(rename_in(f, "out/old", "other/secret") != 0);

    REQUIRE(open_in(f, "out/temporary", O_RDWR | O_CREAT | O_EXCL) == 0);
    REQUIRE(open_in(f, "out/old", O_WRONLY | O_TRUNC) == 0);
    REQUIRE(rename_in(f, "out/temporary", "out/new") == 0);
    REQUIRE(open_in(f, "out", O_RDONLY | O_DIRECTORY) == 0);

    char path[512];
    snprintf(path, sizeof path, "%s/in/scan", f->path);
    REQUIRE(syscall(SYS_truncate, path, 0) != 0);
    REQUIRE(syscall(SYS_fchmodat, AT_FDCWD, path, 0666) != 0);
    REQUIRE(unlink(path) != 0);
    offline_policy_free(&policy);
    return 0;
}

static void files_are_held_at_every_abi(void **state)
{
    (void)state;
    SKIP_UNLESS_LOCKABLE();
    int error;
    for (int abi = 1; abi <= landlock_abi(&error); abi++) {
        struct at_abi a = {.abi = abi};
        make_files(&a.folder);
        print_message("# ABI %d\n", abi);
        assert_int_equal(in_a_process(files_at_abi, &a), 0);
        folder_close(&a.folder);
    }
}

/* ---- the lock as a whole ----------------------------------------------------------------------------------------- */

static int lock_twice(void *arg)
{
    const struct folder *f = arg;
    struct offline_policy first = {.read_anywhere = true}, second = {0}, third = {.read_anywhere = true};
    struct ward_error err;
    allow(&second, OFFLINE_READ, f, "in/scan");
    allow(&second, OFFLINE_FOLDER, f, "out"); /* more than the first gave */
    REQUIRE(!offline_state()->attempted);
    REQUIRE(offline_lock(&first, &err) == 0);
    REQUIRE(open_in(f, "other/secret", O_RDONLY) == 0);
    REQUIRE(open_in(f, "out/new", O_WRONLY | O_CREAT) == EACCES);
    REQUIRE(offline_lock(&second, &err) == 0);
    REQUIRE(open_in(f, "other/secret", O_RDONLY) == EACCES);
    REQUIRE(open_in(f, "in/scan", O_RDONLY) == 0);
    REQUIRE(open_in(f, "out/new", O_WRONLY | O_CREAT) == EACCES);
    REQUIRE(offline_lock(&third, &err) == 0);
    REQUIRE(open_in(f, "other/secret", O_RDONLY) == EACCES);
    REQUIRE(offline_state()->enforced && offline_state()->seccomp && offline_state()->landlock > 0);
    REQUIRE(!*offline_state()->missing);
    offline_policy_free(&second);
    return 0;
}

static void a_second_lock_only_takes_away(void **state)
{
    (void)state;
    SKIP_UNLESS_LOCKABLE();
    struct folder f;
    make_files(&f);
    assert_int_equal(in_a_process(lock_twice, &f), 0);
    folder_close(&f);
}

static void *sleep_forever(void *arg)
{
    for (;;)
        pause();
    return arg;
}

static int lock_late(void *arg)
{
    (void)arg;
    struct offline_policy policy = {0};
    struct ward_error err;
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, sleep_forever, NULL) == 0);
    REQUIRE(offline_lock(&policy, &err) == WARD_EINVAL && strstr(err.text, "threads"));
    policy.partial = true; /* what can be locked is, and it says what was not */
    REQUIRE(offline_lock(&policy, &err) == 0 && !offline_state()->enforced && strstr(offline_state()->missing, "threads"));
    REQUIRE(socket(AF_INET, SOCK_STREAM, 0) < 0);
    return 0;
}

static void a_lock_after_threads_is_refused(void **state)
{
    (void)state;
    assert_int_equal(in_a_process(lock_late, NULL), 0);
}

static void *make_socket(void *arg)
{
    *(int *)arg = socket(AF_INET, SOCK_STREAM, 0) < 0 ? errno : 0;
    return NULL;
}

static int threads_inherit(void *arg)
{
    (void)arg;
    struct offline_policy policy = {0};
    pthread_t thread;
    int error = 0;
    REQUIRE(offline_lock(&policy, NULL) == 0);
    REQUIRE(pthread_create(&thread, NULL, make_socket, &error) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    REQUIRE(error == EPERM);
    REQUIRE(open("/proc/self/status", O_RDONLY) >= 0 && open("/proc/meminfo", O_RDONLY) >= 0);
    return 0;
}

static void threads_inherit_the_lock(void **state)
{
    (void)state;
    SKIP_UNLESS_LOCKABLE();
    assert_int_equal(in_a_process(threads_inherit, NULL), 0);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static int keep_descriptors(void *arg)
{
    struct offline_policy policy = {.keep_descriptors = *(bool *)arg};
    REQUIRE(dup2(0, 40) == 40 && dup2(0, 41) == 41 && dup2(0, 42) == 42 && dup2(0, 900) == 900);
    offline_allow(&policy, OFFLINE_READ, "/dev/fd/41");
    offline_allow(&policy, OFFLINE_READ, "/proc/self/fd/900");
    offline_allow(&policy, OFFLINE_READ, "/dev/fd/42/..");
    REQUIRE(offline_lock(&policy, NULL) == 0);
    REQUIRE(fcntl(0, F_GETFD) >= 0 && fcntl(2, F_GETFD) >= 0);
    REQUIRE(fcntl(41, F_GETFD) >= 0 && fcntl(900, F_GETFD) >= 0);
    REQUIRE((fcntl(40, F_GETFD) >= 0) == policy.keep_descriptors);
    REQUIRE((fcntl(42, F_GETFD) >= 0) == policy.keep_descriptors);
    offline_policy_free(&policy);
    return 0;
}

static void descriptors_are_closed_but_those_named(void **state)
{
    (void)state;
    SKIP_UNLESS_LOCKABLE();
    for (int keep = 0; keep < 2; keep++) {
        bool flag = keep;
        assert_int_equal(in_a_process(keep_descriptors, &flag), 0);
    }
}

/* ---- dumps and swap ---------------------------------------------------------------------------------------------- */

/* "VmFlags: rd wr ..." of the mapping that begins at `at`, in /proc/self/smaps. */
static void flags_of(char *flags, size_t size, const void *at)
{
    char line[512];
    bool here = false;
    FILE *file = fopen("/proc/self/smaps", "re");
    *flags = '\0';
    while (file && !*flags && fgets(line, sizeof line, file)) {
        char *end;
        const unsigned long long begin = strtoull(line, &end, 16);
        if (*end == '-')
            here = begin == (uintptr_t)at;
        else if (here && strncmp(line, "VmFlags:", 8) == 0)
            snprintf(flags, size, "%s", line);
    }
    if (file)
        fclose(file);
}

static void memory_is_kept_private(void **state)
{
    (void)state;
    enum { BYTES = 1 << 16 };
    char before[512], after[512];
    struct rlimit limit;
    void *memory = mmap(NULL, 3 * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    char *middle = (char *)memory + BYTES;
    memory_keep_private(middle - 1, BYTES + 2); /* whole pages only */
    flags_of(before, sizeof before, memory);
    flags_of(after, sizeof after, middle);
    if (!*after) {
        print_message("# there is no /proc/self/smaps\n");
        skip();
    }
    assert_null(strstr(before, " dd"));
    assert_non_null(strstr(after, " dd"));
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= BYTES)
        assert_non_null(strstr(after, " lo"));
    memory_keep_private(NULL, BYTES);
    memory_keep_private(middle, 0);
    munmap(memory, 3 * BYTES);
}

static int dumps_are_off(void *arg)
{
    (void)arg;
    struct rlimit limit;
    char filter[32] = "";
    REQUIRE(offline_lock(&(struct offline_policy){.partial = true}, NULL) == 0);
    REQUIRE(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0);
    FILE *file = fopen("/proc/self/coredump_filter", "re");
    REQUIRE(!file || (fgets(filter, sizeof filter, file) && strtoul(filter, NULL, 16) == 0));
    return 0;
}

static void no_core_is_dumped(void **state)
{
    (void)state;
    assert_int_equal(in_a_process(dumps_are_off, NULL), 0);
}

/* ---- other architectures ----------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
static int call_as_i386(void *arg)
{
    (void)arg;
    long number = 359; /* socket of i386, which is another call here */
    REQUIRE(offline_lock(&(struct offline_policy){0}, NULL) == 0);
    __asm__ volatile("int $0x80" : "+a"(number) : "b"(AF_INET), "c"(SOCK_STREAM), "d"(0) : "memory");
    return 0;
}

static int call_as_x32(void *arg)
{
    (void)arg;
    REQUIRE(offline_lock(&(struct offline_policy){0}, NULL) == 0);
    (void)syscall(0x40000000 + SYS_socket, AF_INET, SOCK_STREAM, 0);
    return 0;
}
#endif

static void calls_of_another_architecture_end_the_process(void **state)
{
    (void)state;
    SKIP_UNLESS_LOCKABLE();
#if defined(__x86_64__)
    const int i386 = in_a_process(call_as_i386, NULL);
    assert_true(i386 == 256 + SIGSYS || i386 == 256 + SIGSEGV); /* a kernel without i386 knows no int 0x80 */
    assert_int_equal(in_a_process(call_as_x32, NULL), 256 + SIGSYS);
#else
    print_message("# a test for x86-64\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_held_at_every_abi),
        cmocka_unit_test(a_second_lock_only_takes_away),
        cmocka_unit_test(a_lock_after_threads_is_refused),
        cmocka_unit_test(threads_inherit_the_lock),
        cmocka_unit_test(descriptors_are_closed_but_those_named),
        cmocka_unit_test(memory_is_kept_private),
        cmocka_unit_test(no_core_is_dumped),
        cmocka_unit_test(calls_of_another_architecture_end_the_process),
    };
    return cmocka_run_group_tests_name("offline", tests, NULL, NULL);
}
