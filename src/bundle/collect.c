/* What goes into a bundle. */
#include "bundle/bundle.h"

#include "base/mapping.h"
#include "base/text.h"
#include "model/locate.h"
#include "model/model_hash.h"
#include "model/terms.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int add_item(struct bundle_items *items, const char *path, char *source, char *data, bool executable,
                    struct ward_error *err)
{
    struct bundle_item *at = NULL;
    int rc = 0;
    if (!manifest_path_ok(path))
        rc = error_set(err, WARD_EFORMAT, "%s: is no path for a file of a bundle: at most %d bytes of UTF-8 without "
                       "control characters and leading dots are expected", path, MANIFEST_PATH);
    for (size_t i = 0; i < items->n && !rc; i++)
        if (strcmp(items->at[i].path, path) == 0)
            rc = error_set(err, WARD_EFORMAT, "%s: two files would have this path in the bundle", path);
    if (!rc && items->n == MANIFEST_FILES)
        rc = error_set(err, WARD_EFORMAT, "%s: would be one file more than the %d of a bundle", path, MANIFEST_FILES);
    char *copy = rc ? NULL : strdup(path);
    if (copy && (at = reallocarray(items->at, items->n + 1, sizeof *at))) {
        items->at = at;
        at[items->n++] = (struct bundle_item){copy, source, data, data ? strlen(data) : 0, executable, NULL};
        return 0;
    }
    free(copy);
    free(source);
    free(data);
    return rc ? rc : error_no_memory(err, path, sizeof *at);
}

int bundle_add_file(struct bundle_items *items, const char *path, const char *source, bool executable,
                    struct ward_error *err)
{
    char *copy = strdup(source);
    return copy ? add_item(items, path, copy, NULL, executable, err) : error_no_memory(err, path, strlen(source));
}

int bundle_add_text(struct bundle_items *items, const char *path, const char *text, bool executable,
                    struct ward_error *err)
{
    char *copy = strdup(text);
    return copy ? add_item(items, path, NULL, copy, executable, err) : error_no_memory(err, path, strlen(text));
}

void bundle_items_free(struct bundle_items *items)
{
    for (size_t i = 0; i < items->n; i++) {
        free(items->at[i].path);
        free(items->at[i].source);
        free(items->at[i].data);
        free(items->at[i].counted);
    }
    free(items->at);
    *items = (struct bundle_items){0};
}

/* FOLDER/NAME from a source. */
static int add_below(struct bundle_items *items, const char *folder, const char *name, const char *source,
                     bool executable, struct ward_error *err)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return bundle_add_file(items, path, source, executable, err);
}

/* ---- the program ------------------------------------------------------------------------------------------------- */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The C library and its loader are the system's: a driver that is loaded there belongs to them. */
static bool is_the_system(const char *name)
{
    static const char *const starts[] = {"linux-vdso.", "linux-gate.", "ld-linux", "ld64.", "libc.", "libm.", "libmvec.",
                                         "libpthread.", "libdl.", "librt.", "libutil.", "libresolv.", "libanl."};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (starts_with(name, starts[i]))
            return true;
    return false;
}

struct libraries {
    struct bundle_items *items;
    struct ward_error *err;
};

/* Called for each object of this process, as the dynamic loader found it. */
static int add_library(struct dl_phdr_info *info, size_t size, void *user)
{
    struct libraries *l = user;
    (void)size;
    const char *name = base_name(info->dlpi_name);
    if (!*name || is_the_system(name))
        return 0; /* nameless: the program */
    char path[PATH_MAX];
    snprintf(path, sizeof path, BUNDLE_LIBRARIES "%s", name);
    return bundle_add_file(l->items, path, info->dlpi_name, false, l->err);
}

int bundle_add_program(struct bundle_items *items, struct ward_error *err)
{
    char program[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n < 0)
        return error_set(err, WARD_EIO, "/proc/self/exe: cannot be read: %s", strerror(errno));
    program[n] = '\0';
    struct libraries l = {items, err};
    const int rc = bundle_add_file(items, "bin/ward", program, true, err);
    return rc ? rc : dl_iterate_phdr(add_library, &l);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static bool is_notice(const char *name)
{
    static const char *const starts[] = {"README", "LICENSE", "LICENCE", "NOTICE", "TERMS", "COPYING"};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (starts_with(name, starts[i]))
            return true;
    return ends_with(name, ".NOTICE.txt");
}

static int add_notices(struct bundle_items *items, const char *folder, struct ward_error *err)
{
    DIR *dir = opendir(folder);
    int rc = 0;
    if (!dir)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", folder, strerror(errno));
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (is_notice(entry->d_name) && stat(path, &st) == 0 && S_ISREG(st.st_mode))
            rc = add_below(items, "models", entry->d_name, path, false, err);
    }
    closedir(dir);
    return rc;
}

/* A file that counts for the model's hash under the name `counted`. */
static int add_counted(struct bundle_items *items, const char *name, const char *source, const char *counted,
                       struct ward_error *err)
{
    const int rc = add_below(items, "models", name, source, false, err);
    if (rc)
        return rc;
    char *copy = items->at[items->n - 1].counted = strdup(counted);
    return copy ? 0 : error_no_memory(err, name, strlen(counted));
}

/* The names by which the two are found again in a folder of their own. */
static int add_gguf(struct bundle_items *items, const struct model_place *place, struct ward_error *err)
{
    const char *name = base_name(place->path);
    int rc = add_counted(items, ends_with(name, ".gguf") ? name : "model.gguf", place->path, "model.gguf", err);
    if (!rc && place->mmproj) {
        name = base_name(place->mmproj);
        const bool found = strstr(name, "mmproj") && ends_with(name, ".gguf");
        rc = add_counted(items, found ? name : "mmproj-model.gguf", place->mmproj, "mmproj.gguf", err);
    }
    char *notice = NULL;
    if (!rc && ends_with(place->path, ".gguf") &&
        asprintf(&notice, "%.*s.NOTICE.txt", (int)(strlen(place->path) - strlen(".gguf")), place->path) >= 0) {
        if (file_exists(notice))
            rc = add_below(items, "models", base_name(notice), notice, false, err);
        free(notice);
    }
    return rc;
}

static int terms_of_file(struct terms *terms, const char *path, struct ward_error *err)
{
    struct gguf *file;
    const int rc = gguf_open(&file, path, err);
    if (!rc)
        terms_of_gguf(terms, file);
    gguf_close(&file);
    return rc;
}

int bundle_add_model(struct bundle_items *items, const char *name, const char *mmproj, struct ward_error *err)
{
    struct model_place place;
    int rc = model_locate(&place, name, mmproj, err);
    if (rc)
        return rc;
    if (place.is_gguf) {
        rc = add_gguf(items, &place, err);
    } else {
        struct model_hash files;
        rc = model_hash_list(&files, name, mmproj, err);
        for (size_t i = 0; i < files.n && !rc; i++)
            rc = add_counted(items, files.names[i].name, files.names[i].path, files.names[i].name, err);
        model_hash_free(&files);
        if (!rc)
            rc = add_notices(items, place.path, err);
    }
    model_place_free(&place);
    return rc;
}

int bundle_model_terms(bool *hai_def, const char *name, const char *mmproj, struct ward_error *err)
{
    struct model_place place;
    struct terms terms = {0};
    int rc = model_locate(&place, name, mmproj, err);
    if (rc)
        return rc;
    if (place.is_gguf)
        rc = terms_of_file(&terms, place.path, err);
    else
        terms_of_folder(&terms, place.path);
    *hai_def = terms.hai_def;
    model_place_free(&place);
    return rc;
}
