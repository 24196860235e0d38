/* Versions side by side: DIR/versions/ID, and two links that name the current one and the one before. */
#include "bundle/bundle.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static int fail(const char *path, struct ward_error *err)
{
    return error_set(err, WARD_EIO, "%s: cannot be written: %s", path, strerror(errno));
}

/* ---- links ------------------------------------------------------------------------------------------------------- */

/* What DIR/NAME links to, "versions/ID"; "" where it is not there. */
static int read_link(char out[BUNDLE_ID + 16], const char *dir, const char *name, struct ward_error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    const ssize_t n = readlink(path, out, BUNDLE_ID + 15);
    out[n < 0 ? 0 : n] = '\0';
    if (n < 0 && errno == ENOENT)
        return 0;
    if (n < 0 || strncmp(out, "versions/", 9) != 0 || strchr(out + 9, '/') || out[9] == '.')
        return error_set(err, WARD_EIO, "%s: is no link to a version that was installed", path);
    return 0;
}

/* In one step: whoever looks sees the old or the new. */
static int write_link(const char *dir, const char *name, const char *target, struct ward_error *err)
{
    char path[PATH_MAX], temporary[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(temporary, sizeof temporary, "%s/.%s.part", dir, name);
    unlink(temporary);
    if (symlink(target, temporary))
        return fail(path, err);
    if (rename(temporary, path)) {
        const int error = errno;
        unlink(temporary);
        errno = error;
        return fail(path, err);
    }
    bundle_sync_folder(dir);
    return 0;
}

/* The current version becomes the previous one, unless it stays. */
static int switch_to(const char *dir, const char *target, struct ward_error *err)
{
    char current[BUNDLE_ID + 16];
    int rc = read_link(current, dir, "current", err);
    if (!rc && *current && strcmp(current, target) != 0)
        rc = write_link(dir, "previous", current, err);
    return rc ? rc : write_link(dir, "current", target, err);
}

/* One installation at a time. The descriptor, or a negative status. */
static int take_turn(const char *dir, struct ward_error *err)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", dir, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    const int error = errno;
    close(fd);
    return error_set(err, WARD_EIO, "%s: is being installed to by another process (%s)", dir, strerror(error));
}

/* ---- versions ---------------------------------------------------------------------------------------------------- */

/* Whether version a of the C library comes after b: "2.36", "2.4". */
static bool is_later(const char *a, const char *b)
{
    while (*a && *b) {
        const long left = strtol(a, (char **)(uintptr_t)&a, 10), right = strtol(b, (char **)(uintptr_t)&b, 10);
        if (left != right)
            return left > right;
        if (*a != '.' || *b != '.')
            break;
        a++;
        b++;
    }
    return *a && !*b;
}

static int check_machine(const struct bundle *b, struct ward_error *err)
{
    struct utsname machine;
    if (uname(&machine) == 0 && strcmp(machine.machine, b->facts.machine) != 0)
        return error_set(err, WARD_EUNSUPPORTED, "%s: is for %s machines; this is an %s", b->name, b->facts.machine,
                         machine.machine);
    if (is_later(b->facts.libc, gnu_get_libc_version()))
        return error_set(err, WARD_EUNSUPPORTED, "%s: needs the C library of version %s or later; this system has %s",
                         b->name, b->facts.libc, gnu_get_libc_version());
    return 0;
}

/* WARD-CREATED-HASH: "0.1.0-20261125T174538Z-1a2b3c4d". */
static void make_id(char id[BUNDLE_ID], const struct bundle *b)
{
    char created[sizeof b->facts.created], hex[SHA256_HEX + 1];
    size_t n = 0;
    for (const char *c = b->facts.created; *c; c++)
        if (isalnum((unsigned char)*c))
            created[n++] = *c;
    created[n] = '\0';
    sha256_hex(hex, b->list_sha256);
    snprintf(id, BUNDLE_ID, "%s-%s-%.8s", b->facts.ward, created, hex);
}

/* Of the same list, and still as it was installed. */
static int check_installed(const struct bundle *b, const char *folder, const struct minisign_public *key,
                           const struct bundle_progress *progress, struct ward_error *err)
{
    struct bundle there;
    int rc = bundle_open(&there, folder, key, err);
    if (!rc && memcmp(there.list_sha256, b->list_sha256, SHA256_BYTES) != 0)
        rc = error_set(err, WARD_EFORMAT, "%s: is another bundle than %s", folder, b->name);
    if (!rc)
        rc = bundle_verify(&there, progress, err);
    bundle_close(&there);
    return rc;
}

/* What an installation that was cut off by a power failure left. */
static void remove_remains(const char *versions)
{
    DIR *dir = opendir(versions);
    char path[PATH_MAX + NAME_MAX + 2];
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (entry->d_name[0] != '.' || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", versions, entry->d_name);
        bundle_remove(path);
    }
    if (dir)
        closedir(dir);
}

static int place_version(const struct bundle *b, const char *dir, const char *id, const struct minisign_public *key,
                         const struct bundle_progress *progress, struct ward_error *err)
{
    char versions[PATH_MAX], folder[PATH_MAX + BUNDLE_ID], temporary[PATH_MAX + BUNDLE_ID + 8];
    struct stat st;
    snprintf(versions, sizeof versions, "%s/versions", dir);
    if (mkdir(versions, 0777) && errno != EEXIST)
        return fail(versions, err);
    remove_remains(versions);
    snprintf(folder, sizeof folder, "%s/%s", versions, id);
    if (lstat(folder, &st) == 0)
        return check_installed(b, folder, key, progress, err);
    snprintf(temporary, sizeof temporary, "%s/.%s.part", versions, id);
    const int rc = bundle_copy(b, temporary, progress, err);
    if (rc)
        return rc;
    if (rename(temporary, folder)) {
        const int failed = fail(folder, err);
        bundle_remove(temporary);
        return failed;
    }
    bundle_sync_folder(versions);
    return 0;
}

int bundle_install(const struct bundle *b, const char *dir, const struct minisign_public *key, char id[BUNDLE_ID],
                   const struct bundle_progress *progress, struct ward_error *err)
{
    char target[BUNDLE_ID + 16];
    make_id(id, b);
    snprintf(target, sizeof target, "versions/%s", id);
    int rc = check_machine(b, err);
    const int turn = rc ? rc : take_turn(dir, err);
    if (turn < 0)
        return turn;
    rc = place_version(b, dir, id, key, progress, err);
    if (!rc)
        rc = switch_to(dir, target, err);
    close(turn);
    return rc;
}

int bundle_rollback(const char *dir, char id[BUNDLE_ID], struct ward_error *err)
{
    char previous[BUNDLE_ID + 16], path[PATH_MAX + BUNDLE_ID];
    struct stat st;
    const int turn = take_turn(dir, err);
    if (turn < 0)
        return turn;
    int rc = read_link(previous, dir, "previous", err);
    if (!rc && !*previous)
        rc = error_set(err, WARD_EIO, "%s: has no previous version to go back to", dir);
    snprintf(path, sizeof path, "%s/%s", dir, previous);
    if (!rc && (stat(path, &st) || !S_ISDIR(st.st_mode)))
        rc = error_set(err, WARD_EIO, "%s: is not there any more", path);
    if (!rc)
        rc = switch_to(dir, previous, err);
    if (!rc)
        snprintf(id, BUNDLE_ID, "%.*s", BUNDLE_ID - 1, previous + strlen("versions/"));
    close(turn);
    return rc;
}
