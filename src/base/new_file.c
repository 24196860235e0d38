#include "base/new_file.h"

#include "base/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail_write(const struct new_file *file, int error, struct ward_error *err)
{
    return error_set(err, WARD_EIO, "%s: cannot be written: %s", file->path, strerror(error));
}

/* As open makes a file, so that the umask decides who may read it; mkstemp's would be for its owner alone. */
static int make_temporary(struct new_file *file, struct ward_error *err)
{
    for (unsigned i = 0; i < 100; i++) {
        free(file->temporary);
        if (asprintf(&file->temporary, "%s.%ld-%u.part", file->path, (long)getpid(), i) < 0) {
            file->temporary = NULL;
            return error_no_memory(err, file->path, strlen(file->path));
        }
        file->fd = open(file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, file->secret ? 0600 : 0666);
        if (file->fd >= 0)
            return 0;
        if (errno != EEXIST)
            break;
    }
    const int error = errno;
    free(file->temporary); /* somebody else's, or nobody's */
    file->temporary = NULL;
    return fail_write(file, error, err);
}

static int open_file(struct new_file *out, const char *path, bool secret, struct ward_error *err)
{
    struct stat st;
    *out = (struct new_file){.path = strdup(path), .fd = -1, .secret = secret};
    if (!out->path)
        return error_no_memory(err, path, strlen(path));
    int rc = 0;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        out->fd = open(path, O_WRONLY | O_CLOEXEC);
        if (out->fd < 0)
            rc = fail_write(out, errno, err);
    } else {
        rc = make_temporary(out, err);
    }
    if (rc)
        new_file_discard(out);
    return rc;
}

int new_file_open(struct new_file *out, const char *path, struct ward_error *err)
{
    return open_file(out, path, false, err);
}

int new_file_open_secret(struct new_file *out, const char *path, struct ward_error *err)
{
    return open_file(out, path, true, err);
}

int new_file_write(struct new_file *file, const void *data, size_t size, struct ward_error *err)
{
    const uint8_t *at = data;
    while (size) {
        const ssize_t n = write(file->fd, at, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_write(file, n ? errno : EIO, err);
        at += n;
        size -= (size_t)n;
    }
    return 0;
}

int new_file_write_at(const struct new_file *file, const void *data, size_t size, uint64_t offset)
{
    return disk_write(file->fd, data, size, offset);
}

int new_file_sync(struct new_file *file, struct ward_error *err)
{
    return file->temporary && fsync(file->fd) ? fail_write(file, errno, err) : 0;
}

void new_file_sync_folder(const char *path)
{
    char *copy = strdup(path);
    const int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(copy);
}

/* By link where the file system knows no other way. */
static int rename_to_nothing(const char *from, const char *to)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return 0;
    if ((errno != EINVAL && errno != ENOSYS) || link(from, to))
        return -1;
    unlink(from);
    return 0;
}

int new_file_commit(struct new_file *file, struct ward_error *err)
{
    int rc = 0;
    /* Some file systems tell of a full disk only here. */
    if (close(file->fd))
        rc = fail_write(file, errno, err);
    file->fd = -1;
    if (!rc && file->temporary) {
        const char *from = file->temporary, *to = file->path;
        if (file->secret ? rename_to_nothing(from, to) : rename(from, to)) {
            rc = fail_write(file, errno, err);
        } else {
            new_file_sync_folder(file->path);
            free(file->temporary);
            file->temporary = NULL;
        }
    }
    new_file_discard(file);
    return rc;
}

void new_file_discard(struct new_file *file)
{
    if (!file->path)
        return;
    if (file->fd >= 0)
        close(file->fd);
    if (file->temporary)
        unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    *file = (struct new_file){.fd = -1};
}

static int put_file(const char *path, const void *data, size_t size, bool secret, struct ward_error *err)
{
    struct new_file file;
    int rc = open_file(&file, path, secret, err);
    if (rc)
        return rc;
    rc = new_file_write(&file, data, size, err);
    if (!rc)
        rc = new_file_sync(&file, err);
    if (!rc)
        return new_file_commit(&file, err);
    new_file_discard(&file);
    return rc;
}

int new_file_put(const char *path, const void *data, size_t size, struct ward_error *err)
{
    return put_file(path, data, size, false, err);
}

int new_file_put_secret(const char *path, const void *data, size_t size, struct ward_error *err)
{
    return put_file(path, data, size, true, err);
}
