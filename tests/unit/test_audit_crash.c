/* The audit log when the program is killed, the power fails or the disk is full, at every write: no answer is out whose
 * record is not there, nothing that was there is lost, and the log goes on.
 *
 * The calls by which the log reaches the disk are this program's own (below), so that a child can be ended before,
 * within and after each of them. With a number as its argument it also makes so many kills at random places. */
#include "audit_log.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- calls that end a child -------------------------------------------------------------------------------------- */

enum fate { BEFORE, WITHIN, AFTER, POWER, FULL, FATES }; /* POWER: what was not synced is lost; FULL: no more room */

static int fatal_call; /* the number of the call that does it; 0: none */
static enum fate fate;
static int calls;

enum { MOST_DIRTY = 8 };
static struct { /* files as they were when they were last synced */
    char path[400];
    uint8_t *bytes;
    size_t size;
} dirty[MOST_DIRTY];

static void path_of(char out[400], int fd)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, out, 399);
    out[n < 0 ? 0 : n] = '\0';
}

static int find_dirty(const char *path)
{
    for (int i = 0; i < MOST_DIRTY; i++)
        if (dirty[i].bytes && strcmp(dirty[i].path, path) == 0)
            return i;
    return -1;
}

/* Keeps what the file holds before its first write since the last sync. */
static void before_write(int fd)
{
    char path[400];
    struct stat st;
    if (!fatal_call || fate != POWER)
        return;
    path_of(path, fd);
    if (find_dirty(path) >= 0)
        return;
    for (int i = 0; i < MOST_DIRTY; i++)
        if (!dirty[i].bytes && fstat(fd, &st) == 0) {
            snprintf(dirty[i].path, sizeof dirty[i].path, "%s", path);
            dirty[i].size = (size_t)st.st_size;
            dirty[i].bytes = malloc(dirty[i].size + 1);
            if (!dirty[i].bytes || syscall(SYS_pread64, fd, dirty[i].bytes, dirty[i].size, 0) < 0)
                abort();
            return;
        }
    abort();
}

static void after_sync(int fd)
{
    char path[400];
    path_of(path, fd);
    const int i = find_dirty(path);
    if (i >= 0) {
        free(dirty[i].bytes);
        dirty[i].bytes = NULL;
    }
}

static void fail_power(void)
{
    for (int i = 0; i < MOST_DIRTY; i++) {
        if (!dirty[i].bytes)
            continue;
        const int fd = open(dirty[i].path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        if (fd >= 0 && syscall(SYS_write, fd, dirty[i].bytes, dirty[i].size) != (long)dirty[i].size)
            abort();
    }
    raise(SIGKILL);
}

/* True: this is the call, and it is to fail for want of room. */
static bool fatal(bool after)
{
    if (!fatal_call || calls != fatal_call)
        return fate == FULL && fatal_call && calls > fatal_call;
    if (fate == BEFORE && !after)
        raise(SIGKILL);
    if ((fate == AFTER || fate == WITHIN) && after) /* within a write: see there */
        raise(SIGKILL);
    if (fate == POWER && after)
        fail_power();
    return fate == FULL;
}

/* The state is overwritten within one sector, which a disk writes whole or not at all, and needs no room. */
static bool is_state(int fd)
{
    char path[400];
    path_of(path, fd);
    return strlen(path) > 6 && strcmp(path + strlen(path) - 6, "/state") == 0;
}

static ssize_t write_at(int fd, const void *data, size_t size, off_t offset, bool positioned)
{
    calls++;
    if (fatal(false) && !is_state(fd)) {
        errno = ENOSPC;
        if (calls != fatal_call || size < 2)
            return -1;
        size /= 2; /* some of it still went */
    }
    const bool within = fatal_call && calls == fatal_call && fate == WITHIN;
    before_write(fd);
    const size_t n = within && !is_state(fd) ? size / 2 : size;
    const ssize_t rc = positioned ? syscall(SYS_pwrite64, fd, data, n, offset) : syscall(SYS_write, fd, data, n);
    if (within)
        raise(SIGKILL);
    (void)fatal(true);
    return rc;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_at(fd, data, size, offset, true);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return fd <= 2 ? syscall(SYS_write, fd, data, size) : write_at(fd, data, size, 0, false);
}

/* Nothing is synced in truth: what a kill leaves is in the page cache, and what a power cut leaves is kept above. */
static int sync_file(int fd)
{
    calls++;
    (void)fatal(false);
    after_sync(fd);
    (void)fatal(true);
    return 0;
}

int fsync(int fd)
{
    return sync_file(fd);
}

int fdatasync(int fd)
{
    return sync_file(fd);
}

int ftruncate(int fd, off_t size)
{
    calls++;
    (void)fatal(false);
    before_write(fd);
    const int rc = (int)syscall(SYS_ftruncate, fd, size);
    (void)fatal(true);
    return rc;
}

int rename(const char *from, const char *to)
{
    calls++;
    (void)fatal(false);
    const int rc = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    (void)fatal(true);
    return rc;
}

/* ---- a child that answers ---------------------------------------------------------------------------------------- */

enum work { ANSWERS, ROTATES, PRUNES, WORKS };

/* Tells on the pipe what it has let out: 'a' an answer's first token, 'd' that it is done. */
static void tell(int out, char what)
{
    if (syscall(SYS_write, out, &what, 1) != 1)
        abort();
}

static void answer(struct audit_writer *writer, int out)
{
    struct ward_error err;
    uint64_t begin, end;
    if (audit_add(writer, AUDIT_BEGIN, 0, "{\"command\":\"test\",\"number\":1}", 29, 0, &begin, &err))
        _exit(1);
    tell(out, 'a');
    if (audit_add(writer, AUDIT_END, begin, "{\"outcome\":\"stop\"}", 18, 0, &end, &err))
        _exit(1);
    tell(out, 'd');
}

static void work_in_child(const struct log *log, enum work work, int out)
{
    struct audit_writer *writer;
    struct ward_error err;
    if (audit_writer_open(&writer, log->dir, &err))
        _exit(1);
    answer(writer, out);
    if (work == ROTATES && audit_rotate(writer, NULL, &err))
        _exit(1);
    if (work == PRUNES && audit_prune(writer, 1, &err))
        _exit(1);
    answer(writer, out);
    _exit(0);
}

/* How many answers were let out and how many were done; *status as waitpid gives it. */
static void run_child(const struct log *log, enum work work, int call, enum fate how, int *shown, int *done,
                      int *status)
{
    int ends[2];
    char what;
    *shown = *done = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        fatal_call = call;
        fate = how;
        calls = 0;
        work_in_child(log, work, ends[1]);
    }
    close(ends[1]);
    while (read(ends[0], &what, 1) == 1) {
        *shown += what == 'a';
        *done += what == 'd';
    }
    close(ends[0]);
    assert_int_equal(waitpid(child, status, 0), child);
}

/* ---- what has to hold afterwards --------------------------------------------------------------------------------- */

struct totals {
    int kills, shown, done, recovered, refused;
};

static void kill_once(const struct log *log, enum work work, int call, enum fate how, struct totals *t, int *status)
{
    struct audit_summary before, after;
    struct ward_error err;
    int shown, done;
    log_must(log_verify(log, true, &before, &err), &err);
    run_child(log, work, call, how, &shown, &done, status);
    log_add_uses(log, 1, "after"); /* the next one mends what is left */
    if (log_verify(log, true, &after, &err))
        fail_msg("work %d, call %d, fate %d: %s", work, call, how, err.text);
    const uint64_t begun = after.by_type[AUDIT_BEGIN] - before.by_type[AUDIT_BEGIN] - 1;
    const uint64_t ended = after.by_type[AUDIT_END] - before.by_type[AUDIT_END] - 1;
    if (begun < (uint64_t)shown || ended < (uint64_t)done || after.tree.n <= before.tree.n)
        fail_msg("work %d, call %d, fate %d: %d answers were let out and %d were done, but %llu begun and %llu ended",
                 work, call, how, shown, done, (unsigned long long)begun, (unsigned long long)ended);
    t->kills += WIFSIGNALED(*status);
    t->refused += WIFEXITED(*status) && WEXITSTATUS(*status) == 1;
    t->shown += shown;
    t->done += done;
    t->recovered += after.by_type[AUDIT_RECOVERY] > before.by_type[AUDIT_RECOVERY];
}

/* A log whose first segment is closed, for PRUNES. */
static void prepare(struct log *log)
{
    log_open(log);
    log_add_uses(log, 1, "first");
    log_rotate(log);
}

static void test_every_write(void **state)
{
    struct totals t = {0};
    (void)state;
    for (int work = 0; work < WORKS; work++)
        for (int how = 0; how < FATES; how++) {
            int status = -1;
            for (int call = 1; status != 0; call++) { /* until the child gets to its end */
                struct log log;
                prepare(&log);
                kill_once(&log, (enum work)work, call, (enum fate)how, &t, &status);
                log_close(&log);
                assert_true(call < 200);
            }
        }
    print_message("# %d kills at every write, %d disks full: %d answers out, %d done, %d tails cut off and recorded; "
                  "none without its record\n", t.kills, t.refused, t.shown, t.done, t.recovered);
    assert_true(t.kills > 100 && t.refused > 20 && t.recovered > 10);
}

static int random_kills = 60;

static void test_random_kills(void **state)
{
    struct totals t = {0};
    struct log log;
    const unsigned seed = (unsigned)time(NULL);
    (void)state;
    srand(seed);
    prepare(&log); /* what a kill leaves, the next finds; a log that is long is slow to verify after each */
    print_message("# seed %u\n", seed);
    for (int i = 1; t.kills < random_kills; i++) {
        int status;
        if (i % 50 == 0) {
            log_close(&log);
            prepare(&log);
        }
        const int dice = rand() % 20;
        kill_once(&log, dice == 0 ? ROTATES : dice == 1 ? PRUNES : ANSWERS, 1 + rand() % 12, (enum fate)(rand() % FULL),
                  &t, &status);
    }
    print_message("# %d kills at random, one after the other: %d answers out, %d done, %d tails cut off and recorded; "
                  "none without its record\n", t.kills, t.shown, t.done, t.recovered);
    log_close(&log);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_write),
        cmocka_unit_test(test_random_kills),
    };
    if (argc > 1)
        random_kills = atoi(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
