#include "synth/folder.h"

#include "base/json.h"
#include "base/new_file.h"
#include "base/text.h"
#include "model/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONFIG_LIMIT = 16 << 20 };

static int fail(const struct synth_folder *f, int error, struct ward_error *err)
{
    return error_set(err, WARD_EIO, "%s: cannot be made: %s", f->path, strerror(error));
}

/* ---- what is there already --------------------------------------------------------------------------------------- */

static bool is_ours(const char *name)
{
    static const char *const names[] = {
        "config.json", "generation_config.json", "README.md", "chat_template.jinja", "preprocessor_config.json",
        "processor_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return starts_with(name, "model") && ends_with(name, ".safetensors");
}

/* Calls visit for each entry but . and .., until one call fails. */
static int visit_entries(const char *folder, int (*visit)(const char *folder, const char *name, void *user), void *user)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int rc = dir ? 0 : errno;
    while (!rc && (entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = visit(folder, entry->d_name, user);
    if (dir)
        closedir(dir);
    return rc;
}

static int find_stranger(const char *folder, const char *name, void *user)
{
    (void)folder;
    if (is_ours(name))
        return 0;
    snprintf(user, NAME_MAX + 1, "%s", name);
    return EEXIST;
}

static int remove_entry(const char *folder, const char *name, void *user)
{
    char *path;
    (void)user;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return ENOMEM;
    const int error = unlink(path) ? errno : 0;
    free(path);
    return error;
}

static void remove_folder(const char *folder)
{
    if (!visit_entries(folder, remove_entry, NULL))
        rmdir(folder);
}

static bool is_marked(const char *folder)
{
    struct json_document *document = NULL;
    struct ward_error ignored;
    char *path;
    bool marked = false;
    if (asprintf(&path, "%s/config.json", folder) < 0)
        return false;
    if (json_read(&document, path, CONFIG_LIMIT, &ignored) == 0) {
        const struct json *mark = json_get(json_root(document), CONFIG_RANDOM_KEY);
        marked = mark && mark->type == JSON_TRUE;
    }
    json_close(&document);
    free(path);
    return marked;
}

static int count_entry(const char *folder, const char *name, void *user)
{
    (void)folder, (void)name;
    ++*(int *)user;
    return 0;
}

static int check_existing(struct synth_folder *f, bool force, struct ward_error *err)
{
    struct stat st;
    char stranger[NAME_MAX + 1];
    int entries = 0;
    if (lstat(f->path, &st))
        return errno == ENOENT ? 0 : fail(f, errno, err);
    if (!S_ISDIR(st.st_mode))
        return error_set(err, WARD_EIO, "%s: is there already, and is no folder", f->path);
    if (!force)
        return error_set(err, WARD_EIO, "%s: is there already; --force replaces it if ward synth made it", f->path);
    if (visit_entries(f->path, find_stranger, stranger))
        return error_set(err, WARD_EIO, "%s: is not replaced: it holds more than a checkpoint (%s)", f->path, stranger);
    if (visit_entries(f->path, count_entry, &entries) == 0 && entries && !is_marked(f->path))
        return error_set(err, WARD_EIO, "%s: is not replaced: its weights are not marked as random", f->path);
    f->replaces = true;
    return 0;
}

/* ---- making one -------------------------------------------------------------------------------------------------- */

static int make_temporary(struct synth_folder *f, const char *suffix, char **out, struct ward_error *err)
{
    for (unsigned i = 0; i < 100; i++) {
        if (asprintf(out, "%s.%ld-%u.%s", f->path, (long)getpid(), i, suffix) < 0) {
            *out = NULL;
            return error_no_memory(err, f->path, strlen(f->path));
        }
        if (mkdir(*out, 0777) == 0)
            return 0;
        const int error = errno;
        free(*out);
        *out = NULL;
        if (error != EEXIST)
            return fail(f, error, err);
    }
    return fail(f, EEXIST, err);
}

int synth_folder_open(struct synth_folder *out, const char *path, bool force, struct ward_error *err)
{
    *out = (struct synth_folder){.path = strdup(path)};
    if (!out->path)
        return error_no_memory(err, path, strlen(path));
    for (size_t n = strlen(out->path); n > 1 && out->path[n - 1] == '/'; n--)
        out->path[n - 1] = '\0';
    if (!*out->path)
        return error_set(err, WARD_EINVAL, "the name of the folder is empty");
    int rc = check_existing(out, force, err);
    return rc ? rc : make_temporary(out, "part", &out->temporary, err);
}

int synth_folder_write(const struct synth_folder *folder, const char *name, const void *data, size_t size,
                       struct ward_error *err)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder->temporary, name) < 0)
        return error_no_memory(err, name, size);
    FILE *file = fopen(path, "wxe");
    int error = !file || fwrite(data, 1, size, file) != size ? errno : 0;
    if (file && fclose(file) && !error)
        error = errno;
    free(path);
    return error ? fail(folder, error, err) : 0;
}

static int sync_entry(const char *folder, const char *name, void *user)
{
    char *path;
    (void)user;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return ENOMEM;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const int error = fd < 0 || fsync(fd) ? errno : 0;
    if (fd >= 0)
        close(fd);
    free(path);
    return error;
}

int synth_folder_commit(struct synth_folder *f, struct ward_error *err)
{
    char *old = NULL;
    const int error = visit_entries(f->temporary, sync_entry, NULL);
    int rc = error ? fail(f, error, err) : 0;
    if (!rc && f->replaces)
        rc = make_temporary(f, "old", &old, err);
    if (rc)
        return rc;
    /* The old one steps aside into an empty folder, which rename replaces. */
    if (old && rename(f->path, old)) {
        rc = fail(f, errno, err);
        rmdir(old);
    } else if (rename(f->temporary, f->path)) {
        rc = fail(f, errno, err);
        if (old && rename(old, f->path) == 0)
            rmdir(old);
    } else {
        new_file_sync_folder(f->path);
        free(f->temporary);
        f->temporary = NULL;
        if (old)
            remove_folder(old);
    }
    free(old);
    return rc;
}

void synth_folder_close(struct synth_folder *folder)
{
    if (folder->temporary)
        remove_folder(folder->temporary);
    free(folder->temporary);
    free(folder->path);
    *folder = (struct synth_folder){0};
}
