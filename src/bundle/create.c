/* Making a bundle: every file is read once, hashed and copied in the same pass; the list and its signature come last. */
#include "bundle/bundle.h"
#include "bundle/tar.h"

#include "base/new_file.h"
#include "base/text.h"
#include "model/model_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct output {
    const char *name;
    bool is_tar;
    int64_t seconds;
    char *temporary;      /* the folder until it has its name */
    int folder;
    struct new_file file; /* the tar */
    uint64_t at;          /* where its next header goes */
    struct ward_error *err;
};

static int fail(const struct output *o, int error)
{
    return error_set(o->err, WARD_EIO, "%s: cannot be written: %s", o->name, strerror(error));
}

/* ---- the place --------------------------------------------------------------------------------------------------- */

static int open_folder(struct output *o)
{
    struct stat st;
    if (lstat(o->name, &st) == 0)
        return error_set(o->err, WARD_EIO, "%s: exists; another name is expected", o->name);
    if (asprintf(&o->temporary, "%s.%ld.part", o->name, (long)getpid()) < 0) {
        o->temporary = NULL;
        return error_no_memory(o->err, o->name, strlen(o->name));
    }
    if (mkdir(o->temporary, 0777)) {
        const int error = errno;
        free(o->temporary);
        o->temporary = NULL;
        return fail(o, error);
    }
    o->folder = open(o->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return o->folder < 0 ? fail(o, errno) : 0;
}

static int open_tar(struct output *o)
{
    if (access(o->name, F_OK) == 0)
        return error_set(o->err, WARD_EIO, "%s: exists; another name is expected", o->name);
    return new_file_open(&o->file, o->name, o->err);
}

/* Removes what is not finished. */
static void close_output(struct output *o)
{
    if (o->folder >= 0)
        close(o->folder);
    if (o->temporary)
        bundle_remove(o->temporary);
    free(o->temporary);
    new_file_discard(&o->file);
}

static int commit_output(struct output *o)
{
    static const uint8_t end[2 * TAR_BLOCK];
    if (o->is_tar) {
        const int error = new_file_write_at(&o->file, end, sizeof end, o->at);
        int rc = error ? fail(o, error) : new_file_sync(&o->file, o->err);
        return rc ? rc : new_file_commit(&o->file, o->err);
    }
    bundle_sync_folder(o->temporary);
    if (renameat2(AT_FDCWD, o->temporary, AT_FDCWD, o->name, RENAME_NOREPLACE) &&
        (errno != EINVAL || rename(o->temporary, o->name)))
        return fail(o, errno);
    free(o->temporary);
    o->temporary = NULL;
    return 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* The header of the next file of the tar; *data: where its bytes go. */
static int start_member(struct output *o, const char *path, uint64_t size, bool executable, uint64_t *data)
{
    uint8_t header[TAR_BLOCK];
    char whole[sizeof BUNDLE_PREFIX + MANIFEST_PATH];
    snprintf(whole, sizeof whole, BUNDLE_PREFIX "%s", path);
    if (!tar_header(header, whole, size, executable, o->seconds))
        return error_set(o->err, WARD_EFORMAT, "%s: is too long for a tar file", path);
    const int error = new_file_write_at(&o->file, header, sizeof header, o->at);
    *data = o->at + TAR_BLOCK;
    o->at += tar_size(size);
    /* the zeros behind the bytes are those of a hole */
    return error ? fail(o, error) : ftruncate(o->file.fd, (off_t)o->at) ? fail(o, errno) : 0;
}

static int write_folder_file(struct output *o, const char *path, const void *data, size_t size, bool executable)
{
    int error = bundle_make_folders(o->folder, path);
    const int fd = error ? -1 : openat(o->folder, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                                       executable ? 0777 : 0666);
    if (fd < 0)
        return fail(o, error ? error : errno);
    const struct new_file file = {.fd = fd};
    error = new_file_write_at(&file, data, size, 0);
    if (!error && fsync(fd))
        error = errno;
    if (close(fd) && !error)
        error = errno;
    return error ? fail(o, error) : 0;
}

/* A file that is in memory. */
static int write_small(struct output *o, const char *path, const void *data, size_t size, bool executable)
{
    uint64_t at;
    if (!o->is_tar)
        return write_folder_file(o, path, data, size, executable);
    int rc = start_member(o, path, size, executable, &at);
    const int error = rc ? 0 : new_file_write_at(&o->file, data, size, at);
    return error ? fail(o, error) : rc;
}

/* Where a large file goes, and its length: what it has now. */
static int prepare_large(struct output *o, const struct bundle_item *item, struct hashed_file *file)
{
    file->path = item->source;
    int rc = file_stamp_read(&file->stamp, item->source, o->err);
    if (rc)
        return rc;
    file->is_part = true;
    file->length = file->stamp.size;
    file->executable = item->executable;
    if (o->is_tar) {
        file->copy_to = o->file.temporary;
        return start_member(o, item->path, file->length, item->executable, &file->copy_offset);
    }
    file->copy_to = item->path;
    const int error = bundle_make_folders(o->folder, item->path);
    return error ? fail(o, error) : 0;
}

static int write_large(struct output *o, const struct bundle_items *items, struct hashed_file *files,
                       const struct bundle_progress *progress)
{
    const struct hash_options options = {
        .copy_folder = o->is_tar ? 0 : o->folder,
        .threads = progress->threads,
        .progress = progress->progress,
        .user = progress->user,
    };
    int rc = 0;
    for (size_t i = 0; i < items->n && !rc; i++) {
        files[i].known = !items->at[i].source;
        if (items->at[i].source)
            rc = prepare_large(o, &items->at[i], &files[i]);
    }
    if (!rc)
        rc = hash_files(files, items->n, &options, o->err);
    for (size_t i = 0; i < items->n && !rc; i++)
        if (items->at[i].source && files[i].stamp.size != files[i].length)
            rc = error_set(o->err, WARD_EIO, "%s: changed while it was read", items->at[i].source);
    return rc;
}

/* ---- what it says of itself -------------------------------------------------------------------------------------- */

static int by_counted(const void *a, const void *b, void *items)
{
    const struct bundle_item *all = items;
    return strcmp(all[*(const size_t *)a].counted, all[*(const size_t *)b].counted);
}

static int by_path(const void *a, const void *b, void *items)
{
    const struct bundle_item *all = items;
    return strcmp(all[*(const size_t *)a].path, all[*(const size_t *)b].path);
}

/* The model's hash, of what was copied. order: [items->n] of work space. */
static void hash_model(char hex[SHA256_HEX + 1], const struct bundle_items *items, const struct hashed_file *files,
                       size_t *order)
{
    struct sha256_ctx context;
    uint8_t hash[SHA256_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < items->n; i++)
        if (items->at[i].counted)
            order[n++] = i;
    qsort_r(order, n, sizeof *order, by_counted, items->at);
    sha256_init(&context);
    for (size_t i = 0; i < n; i++)
        model_hash_line(&context, items->at[order[i]].counted, files[order[i]].sha256);
    sha256_digest(&context, SHA256_BYTES, hash);
    sha256_hex(hex, hash);
}

/* "2026-11-25T17:45:38Z" */
static void write_time(char *out, size_t room, int64_t seconds)
{
    const time_t t = (time_t)seconds;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(out, room, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(out, room, "1970-01-01T00:00:00Z");
}

static char *list_text(const struct bundle_items *items, const struct hashed_file *files, size_t *order)
{
    char *text = NULL, hex[SHA256_HEX + 1];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    for (size_t i = 0; i < items->n; i++)
        order[i] = i;
    qsort_r(order, items->n, sizeof *order, by_path, items->at);
    for (size_t i = 0; i < items->n; i++) {
        sha256_hex(hex, files[order[i]].sha256);
        fprintf(out, "%s  %s\n", hex, items->at[order[i]].path);
    }
    if (fclose(out)) {
        free(text);
        text = NULL;
    }
    return text;
}

/* The list of all files, and its signature. */
static int write_list(struct output *o, const struct bundle_items *items, const struct hashed_file *files,
                      size_t *order, const struct minisign_secret *key)
{
    char *signature = NULL, comment[128], created[32], *list = list_text(items, files, order);
    if (!list)
        return error_no_memory(o->err, MANIFEST_NAME, items->n * 128);
    write_time(created, sizeof created, o->seconds);
    snprintf(comment, sizeof comment, "timestamp:%lld\tfile:" MANIFEST_NAME "\thashed\tward bundle of %s",
             (long long)o->seconds, created);
    int rc = write_small(o, MANIFEST_NAME, list, strlen(list), false);
    if (!rc)
        rc = minisign_sign(&signature, key, list, strlen(list), comment, o->err);
    if (!rc)
        rc = write_small(o, MANIFEST_SIGNATURE, signature, strlen(signature), false);
    free(signature);
    free(list);
    return rc;
}

static int write_all_items(struct output *o, struct bundle_items *items, struct bundle_facts *facts,
                           struct hashed_file *files, size_t *order, const struct minisign_secret *key,
                           const struct bundle_progress *progress)
{
    char *json = NULL;
    int rc = write_large(o, items, files, progress);
    if (rc)
        return rc;
    hash_model(facts->model_sha256, items, files, order);
    write_time(facts->created, sizeof facts->created, o->seconds);
    rc = bundle_facts_write(&json, facts, o->err);
    if (!rc)
        rc = bundle_add_text(items, BUNDLE_FACTS, json, false, o->err);
    free(json);
    for (size_t i = 0; i < items->n && !rc; i++) {
        const struct bundle_item *item = &items->at[i];
        if (item->source)
            continue;
        sha256_of(files[i].sha256, item->data, item->size);
        rc = write_small(o, item->path, item->data, item->size, item->executable);
    }
    return rc ? rc : write_list(o, items, files, order, key);
}

int bundle_create(const char *out, struct bundle_items *items, struct bundle_facts *facts,
                  const struct minisign_secret *key, int64_t seconds, const struct bundle_progress *progress,
                  struct ward_error *err)
{
    struct output o = {.name = out, .is_tar = ends_with(out, ".tar"), .seconds = seconds, .folder = -1,
                       .file = {.fd = -1}, .err = err};
    struct hashed_file *files = calloc(items->n + 1, sizeof *files); /* one more: bundle.json */
    size_t *order = calloc(items->n + 1, sizeof *order);
    int rc = files && order ? 0 : error_no_memory(err, out, items->n * sizeof *files);
    if (!rc)
        rc = o.is_tar ? open_tar(&o) : open_folder(&o);
    if (!rc)
        rc = write_all_items(&o, items, facts, files, order, key, progress);
    if (!rc)
        rc = commit_output(&o);
    close_output(&o);
    free(files);
    free(order);
    return rc;
}
