/* Reading a bundle: nothing of it is believed before the signature, and nothing is used that the list does not name. */
#include "base/disk.h"
#include "bundle/bundle.h"
#include "bundle/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- folder or tar ----------------------------------------------------------------------------------------------- */

static int read_tar(void *user, void *out, size_t size, uint64_t offset)
{
    return disk_read(*(const int *)user, out, size, offset);
}

static int list_tar(struct bundle *b, uint64_t size, struct ward_error *err)
{
    struct tar_index index;
    int rc = tar_read_index(&index, read_tar, &b->fd, size, BUNDLE_PREFIX, MANIFEST_FILES + 2, b->name, err);
    if (rc)
        return rc;
    b->files = calloc(index.n ? index.n : 1, sizeof *b->files);
    if (!b->files)
        rc = error_no_memory(err, b->name, index.n * sizeof *b->files);
    for (size_t i = 0; i < index.n && !rc; i++) {
        const struct tar_entry *e = &index.entries[i];
        b->files[b->n++] = (struct bundle_file){e->path, e->offset, e->size, e->executable};
        index.entries[i].path = NULL;
    }
    tar_index_free(&index);
    return rc;
}

static int list_files(struct bundle *b, struct ward_error *err)
{
    struct stat st;
    b->fd = open(b->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (b->fd < 0)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", b->name, strerror(errno));
    if (fstat(b->fd, &st))
        return error_set(err, WARD_EIO, "%s: cannot be read: %s", b->name, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return bundle_list_folder(&b->files, &b->n, b->fd, b->name, err);
    b->is_tar = true;
    if (!S_ISREG(st.st_mode))
        return error_set(err, WARD_EIO, "%s: is neither a folder nor a tar file", b->name);
    return list_tar(b, (uint64_t)st.st_size, err);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct bundle_file *)a)->path, ((const struct bundle_file *)b)->path);
}

/* Sorted, and each path once: what two files of a tar with one name are depends on who unpacks it. */
static int sort_files(struct bundle *b, struct ward_error *err)
{
    if (b->n)
        qsort(b->files, b->n, sizeof *b->files, by_path);
    for (size_t i = 1; i < b->n; i++)
        if (strcmp(b->files[i - 1].path, b->files[i].path) == 0)
            return error_set(err, WARD_EFORMAT, "%s: holds two files of the same name", b->name);
    return 0;
}

/* ---- small files ------------------------------------------------------------------------------------------------- */

static struct bundle_file *find_file(const struct bundle *b, const char *path)
{
    const struct bundle_file key = {.path = (char *)(uintptr_t)path};
    return b->n ? bsearch(&key, b->files, b->n, sizeof key, by_path) : NULL;
}

static int read_small(char **out, size_t *size, const struct bundle *b, const char *path, size_t limit,
                      struct ward_error *err)
{
    const struct bundle_file *file = find_file(b, path);
    *out = NULL;
    if (!file)
        return error_set(err, WARD_EFORMAT, "%s: is no bundle: it holds no %s", b->name, path);
    if (file->size > limit)
        return error_set(err, WARD_EFORMAT, "%s: its %s is longer than the %zu bytes that are expected", b->name, path,
                         limit);
    *size = (size_t)file->size;
    *out = malloc(*size + 1);
    if (!*out)
        return error_no_memory(err, path, *size);
    (*out)[*size] = '\0';
    const int fd = b->is_tar ? b->fd : openat(b->fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    const int error = fd < 0 ? errno : disk_read(fd, *out, *size, file->offset);
    if (fd >= 0 && !b->is_tar)
        close(fd);
    return error ? error_set(err, WARD_EIO, "%s: its %s cannot be read: %s", b->name, path, strerror(error)) : 0;
}

static int check_signature(struct bundle *b, const struct minisign_public *key, struct ward_error *err)
{
    char *name = NULL;
    int rc = read_small(&b->list, &b->list_size, b, MANIFEST_NAME, MANIFEST_LIMIT, err);
    if (!rc)
        rc = read_small(&b->signature, &b->signature_size, b, MANIFEST_SIGNATURE, MINISIGN_FILE, err);
    if (rc)
        return rc;
    if (asprintf(&name, "%s/%s", b->name, MANIFEST_SIGNATURE) < 0)
        return error_no_memory(err, b->name, strlen(b->name));
    rc = minisign_verify(key, b->signature, b->signature_size, name, b->list, b->list_size, b->comment, err);
    free(name);
    if (rc)
        return rc;
    sha256_of(b->list_sha256, b->list, b->list_size);
    char *list_name = NULL;
    if (asprintf(&list_name, "%s/%s", b->name, MANIFEST_NAME) < 0)
        return error_no_memory(err, b->name, strlen(b->name));
    rc = manifest_parse(&b->manifest, b->list, b->list_size, list_name, err);
    free(list_name);
    return rc;
}

/* The files that are there become those of the list, in its order. */
static int match_files(struct bundle *b, struct ward_error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < b->n; i++) {
        struct bundle_file file = b->files[i];
        const bool is_list = strcmp(file.path, MANIFEST_NAME) == 0 || strcmp(file.path, MANIFEST_SIGNATURE) == 0;
        if (!is_list && !manifest_find(&b->manifest, file.path))
            return error_set(err, WARD_EFORMAT, "%s: holds %s, which is not in the list", b->name, file.path);
    }
    for (size_t i = 0; i < b->manifest.n; i++)
        if (!find_file(b, b->manifest.lines[i].path))
            return error_set(err, WARD_EFORMAT, "%s: lacks %s, which is in the list", b->name,
                             b->manifest.lines[i].path);
    for (size_t i = 0; i < b->n; i++) {
        if (strcmp(b->files[i].path, MANIFEST_NAME) == 0 || strcmp(b->files[i].path, MANIFEST_SIGNATURE) == 0) {
            free(b->files[i].path);
            continue;
        }
        b->bytes += b->files[i].size;
        b->files[kept++] = b->files[i];
    }
    b->n = kept;
    return 0;
}

static int read_facts(struct bundle *b, struct ward_error *err)
{
    const struct manifest_line *line = manifest_find(&b->manifest, BUNDLE_FACTS);
    uint8_t hash[SHA256_BYTES];
    char *text;
    size_t size;
    int rc = read_small(&text, &size, b, BUNDLE_FACTS, 1 << 16, err);
    if (!rc) {
        sha256_of(hash, text, size);
        if (!line || memcmp(hash, line->sha256, sizeof hash) != 0)
            rc = error_set(err, WARD_EFORMAT, "%s: %s is not what the list says", b->name, BUNDLE_FACTS);
    }
    if (!rc)
        rc = bundle_facts_parse(&b->facts, text, size, BUNDLE_FACTS, err);
    free(text);
    return rc;
}

int bundle_open(struct bundle *out, const char *name, const struct minisign_public *key, struct ward_error *err)
{
    *out = (struct bundle){.name = strdup(name), .fd = -1};
    if (!out->name)
        return error_no_memory(err, name, strlen(name));
    int rc = list_files(out, err);
    if (!rc)
        rc = sort_files(out, err);
    if (!rc)
        rc = check_signature(out, key, err);
    if (!rc)
        rc = match_files(out, err);
    return rc ? rc : read_facts(out, err);
}

void bundle_close(struct bundle *b)
{
    bundle_files_free(&b->files, &b->n);
    manifest_free(&b->manifest);
    if (b->fd >= 0)
        close(b->fd);
    free(b->list);
    free(b->signature);
    free(b->name);
    *b = (struct bundle){.fd = -1};
}

/* ---- every byte -------------------------------------------------------------------------------------------------- */

/* copy_folder -1: nowhere. */
static int hash_and_compare(const struct bundle *b, int copy_folder, const struct bundle_progress *progress,
                            struct ward_error *err)
{
    const struct hash_options options = {
        .folder = b->is_tar ? 0 : b->fd,
        .no_links = !b->is_tar,
        .copy_folder = copy_folder < 0 ? 0 : copy_folder,
        .threads = progress->threads,
        .progress = progress->progress,
        .user = progress->user,
    };
    struct hashed_file *files = calloc(b->n, sizeof *files);
    if (!files)
        return error_no_memory(err, b->name, b->n * sizeof *files);
    for (size_t i = 0; i < b->n; i++) {
        files[i].path = b->is_tar ? b->name : b->files[i].path;
        files[i].is_part = true;
        files[i].offset = b->files[i].offset;
        files[i].length = b->files[i].size;
        files[i].copy_to = copy_folder < 0 ? NULL : b->files[i].path;
        files[i].executable = b->files[i].executable;
    }
    int rc = hash_files(files, b->n, &options, err);
    for (size_t i = 0; i < b->n && !rc; i++)
        if (memcmp(files[i].sha256, b->manifest.lines[i].sha256, SHA256_BYTES) != 0 ||
            (!b->is_tar && files[i].stamp.size != b->files[i].size))
            rc = error_set(err, WARD_EFORMAT, "%s: %s is not what the list says", b->name, b->files[i].path);
    free(files);
    return rc;
}

int bundle_verify(const struct bundle *b, const struct bundle_progress *progress, struct ward_error *err)
{
    return hash_and_compare(b, -1, progress, err);
}

static int write_beside(int folder, const char *path, const char *data, size_t size, const char *name,
                        struct ward_error *err)
{
    const int fd = openat(folder, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int error = fd < 0 ? errno : disk_write(fd, data, size, 0);
    if (!error && fsync(fd))
        error = errno;
    if (fd >= 0 && close(fd) && !error)
        error = errno;
    return error ? error_set(err, WARD_EIO, "%s/%s: cannot be written: %s", name, path, strerror(error)) : 0;
}

static int copy_into(const struct bundle *b, int folder, const char *name, const struct bundle_progress *progress,
                     struct ward_error *err)
{
    for (size_t i = 0; i < b->n; i++) {
        const int error = bundle_make_folders(folder, b->files[i].path);
        if (error)
            return error_set(err, WARD_EIO, "%s: cannot be written: %s", name, strerror(error));
    }
    int rc = hash_and_compare(b, folder, progress, err);
    if (!rc)
        rc = write_beside(folder, MANIFEST_NAME, b->list, b->list_size, name, err);
    return rc ? rc : write_beside(folder, MANIFEST_SIGNATURE, b->signature, b->signature_size, name, err);
}

int bundle_copy(const struct bundle *b, const char *folder, const struct bundle_progress *progress,
                struct ward_error *err)
{
    if (mkdir(folder, 0777))
        return error_set(err, WARD_EIO, "%s: cannot be made: %s", folder, strerror(errno));
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? error_set(err, WARD_EIO, "%s: cannot be opened: %s", folder, strerror(errno))
                    : copy_into(b, fd, folder, progress, err);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    if (rc)
        bundle_remove(folder);
    return rc;
}
