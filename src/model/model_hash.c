#include "model/model_hash.h"

#include "base/hash_cache.h"
#include "base/text.h"
#include "model/locate.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_FILES = 1024 };

/* ---- which files ------------------------------------------------------------------------------------------------- */

/* Takes path (malloc'ed; NULL: memory ran out). */
static int add_file(struct model_hash *h, char *path, const char *name, struct ward_error *err)
{
    struct model_hash_file *names = path ? reallocarray(h->names, h->n + 1, sizeof *names) : NULL;
    if (names)
        h->names = names;
    char *copy = names ? strdup(name) : NULL;
    if (!copy) {
        free(path);
        return error_no_memory(err, name, strlen(name));
    }
    names[h->n++] = (struct model_hash_file){path, copy};
    return 0;
}

static bool counts(const char *name)
{
    static const char *const ends[] = {".json", ".jinja", ".model", ".safetensors"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i]))
            return name[0] != '.';
    return false;
}

/* sha256sum would write such a name in another way, and a reader of the list could take it for two. */
static bool is_plain(const char *name)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == '\\' || *c == 0x7f)
            return false;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct model_hash_file *)a)->name, ((const struct model_hash_file *)b)->name);
}

/* Sorted by name. */
static int list_folder(struct model_hash *h, const char *folder, struct ward_error *err)
{
    DIR *dir = opendir(folder);
    int rc = 0;
    if (!dir)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", folder, strerror(errno));
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        char *path;
        if (!counts(entry->d_name))
            continue;
        if (!is_plain(entry->d_name))
            rc = error_set(err, WARD_EFORMAT, "%s: holds a file whose name has a control character or a backslash",
                           folder);
        else if (h->n == MAX_FILES)
            rc = error_set(err, WARD_EFORMAT, "%s: holds more than the %d files that are expected of a model", folder,
                           MAX_FILES);
        else
            rc = add_file(h, asprintf(&path, "%s/%s", folder, entry->d_name) < 0 ? NULL : path, entry->d_name, err);
    }
    closedir(dir);
    if (h->n)
        qsort(h->names, h->n, sizeof *h->names, by_name);
    return rc;
}

int model_hash_list(struct model_hash *h, const char *name, const char *mmproj, struct ward_error *err)
{
    struct model_place place;
    *h = (struct model_hash){0};
    int rc = model_locate(&place, name, mmproj, err);
    if (rc)
        return rc;
    if (place.mmproj) /* "mm" comes before "mo" */
        rc = add_file(h, strdup(place.mmproj), "mmproj.gguf", err);
    if (!rc && place.is_gguf) {
        rc = add_file(h, strdup(place.path), "model.gguf", err);
    } else if (!rc) {
        rc = list_folder(h, place.path, err);
        h->folder = place.path;
        place.path = NULL;
    }
    model_place_free(&place);
    return rc;
}

/* ---- their hashes ------------------------------------------------------------------------------------------------ */

/* Fills what is remembered; the number of files that are not. */
static int look_up(struct model_hash *h, const struct hash_cache *cache, size_t *missing, struct ward_error *err)
{
    *missing = 0;
    for (size_t i = 0; i < h->n; i++) {
        struct hashed_file *f = &h->files[i];
        f->path = h->names[i].path;
        const int rc = file_stamp_read(&f->stamp, f->path, err);
        if (rc)
            return rc;
        f->known = hash_cache_find(cache, &f->stamp, f->sha256);
        *missing += !f->known;
    }
    return 0;
}

static int hash_missing(struct model_hash *h, struct hash_cache *cache, const struct model_hash_options *options,
                        struct ward_error *err)
{
    const struct hash_options hashing = {.threads = options->threads, .progress = options->progress,
                                         .user = options->user};
    const int64_t now = (int64_t)time(NULL);
    const int rc = hash_files(h->files, h->n, &hashing, err);
    for (size_t i = 0; i < h->n && !rc; i++)
        if (!h->files[i].known)
            hash_cache_add(cache, &h->files[i].stamp, h->files[i].sha256, now);
    return rc;
}

void model_hash_line(struct sha256_ctx *context, const char *name, const uint8_t sha256[SHA256_BYTES])
{
    char hex[SHA256_HEX + 1];
    sha256_hex(hex, sha256);
    sha256_update(context, SHA256_HEX, (const uint8_t *)hex);
    sha256_update(context, 2, (const uint8_t *)"  ");
    sha256_update(context, strlen(name), (const uint8_t *)name);
    sha256_update(context, 1, (const uint8_t *)"\n");
}

static void hash_list(struct model_hash *h)
{
    struct sha256_ctx context;
    sha256_init(&context);
    for (size_t i = 0; i < h->n; i++) {
        model_hash_line(&context, h->names[i].name, h->files[i].sha256);
        h->bytes += h->files[i].stamp.size;
    }
    sha256_digest(&context, SHA256_BYTES, h->sha256);
    sha256_hex(h->hex, h->sha256);
    h->complete = true;
}

int model_hash_open(struct model_hash *out, const char *name, const char *mmproj,
                    const struct model_hash_options *options, struct ward_error *err)
{
    size_t missing;
    int rc = model_hash_list(out, name, mmproj, err);
    if (rc)
        return rc;
    out->files = calloc(out->n, sizeof *out->files);
    if (!out->files)
        return error_no_memory(err, name, out->n * sizeof *out->files);
    struct hash_cache *cache = hash_cache_open(!options->known_only);
    rc = look_up(out, cache, &missing, err);
    out->remembered = !missing;
    if (!rc && missing && !options->known_only)
        rc = hash_missing(out, cache, options, err);
    hash_cache_close(&cache);
    if (!rc && (!missing || !options->known_only))
        hash_list(out);
    return rc;
}

/* A file more, or one less, is another model as well. */
static int recheck_names(const struct model_hash *h, struct ward_error *err)
{
    struct model_hash now = {0};
    int rc = list_folder(&now, h->folder, err);
    bool same = now.n == h->n;
    for (size_t i = 0; same && i < h->n; i++)
        same = strcmp(now.names[i].name, h->names[i].name) == 0;
    if (!rc && !same)
        rc = error_set(err, WARD_EIO, "%s: changed after it was hashed", h->folder);
    model_hash_free(&now);
    return rc;
}

int model_hash_recheck(const struct model_hash *h, struct ward_error *err)
{
    int rc = h->folder ? recheck_names(h, err) : 0;
    for (size_t i = 0; i < h->n && !rc; i++) {
        struct file_stamp now;
        rc = file_stamp_read(&now, h->names[i].path, err);
        if (!rc && !file_stamp_equal(&now, &h->files[i].stamp))
            rc = error_set(err, WARD_EIO, "%s: changed after it was hashed", h->names[i].path);
    }
    return rc;
}

void model_hash_free(struct model_hash *h)
{
    for (size_t i = 0; i < h->n; i++) {
        free(h->names[i].path);
        free(h->names[i].name);
    }
    free(h->folder);
    free(h->names);
    free(h->files);
    *h = (struct model_hash){0};
}
