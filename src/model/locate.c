#include "model/locate.h"

#include "base/mapping.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* asprintf that gives NULL when memory ran out. */
static char *format(const char *first, const char *second, const char *third)
{
    char *text;
    return asprintf(&text, "%s%s%s", first, second, third) < 0 ? NULL : text;
}

/* The cache as huggingface_hub's constants.py finds it. */
static char *cache_folder(void)
{
    const char *value;
    if ((value = environment("HF_HUB_CACHE")) || (value = environment("HUGGINGFACE_HUB_CACHE")))
        return strdup(value);
    if ((value = environment("HF_HOME")))
        return format(value, "/hub", "");
    if ((value = environment("XDG_CACHE_HOME")))
        return format(value, "/huggingface/hub", "");
    if ((value = environment("HOME")))
        return format(value, "/.cache/huggingface/hub", "");
    return strdup(".");
}

/* ORG/NAME: one slash, nothing that leads out of the cache. */
static bool is_cache_name(const char *name)
{
    const char *slash = strchr(name, '/');
    return slash && slash != name && slash[1] && !strchr(slash + 1, '/') && !strchr("./~", name[0]) && slash[1] != '.';
}

/* The folder of a repository in the cache: models--ORG--NAME. */
static char *repository_folder(const char *cache, const char *name)
{
    char *folder = NULL;
    const char *slash = strchr(name, '/');
    if (asprintf(&folder, "%s/models--%.*s--%s", cache, (int)(slash - name), name, slash + 1) < 0)
        return NULL;
    return folder;
}

/* snapshots/HASH, where refs/main holds HASH; NULL when there is no such folder. */
static char *main_snapshot(const char *repository)
{
    char *path = format(repository, "/refs/main", ""), *text = NULL, *snapshot = NULL;
    size_t length;
    if (path && file_exists(path) && !file_read(&text, &length, path, 4096, NULL)) {
        text[strcspn(text, "\r\n")] = '\0';
        if (*text && !strchr(text, '/') && strcmp(text, ".") && strcmp(text, ".."))
            snapshot = format(repository, "/snapshots/", text);
    }
    free(path);
    free(text);
    if (snapshot && !is_folder(snapshot)) {
        free(snapshot);
        snapshot = NULL;
    }
    return snapshot;
}

/* The snapshot that changed last, the first by name among equals; NULL when there is none. */
static char *newest_snapshot(const char *repository)
{
    char *folder = format(repository, "/snapshots", ""), *newest = NULL;
    DIR *dir = folder ? opendir(folder) : NULL;
    struct timespec best = {0};
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat st;
        char *path = entry->d_name[0] == '.' ? NULL : format(folder, "/", entry->d_name);
        if (!path || stat(path, &st) || !S_ISDIR(st.st_mode)) {
            free(path);
            continue;
        }
        const long long seconds = (long long)st.st_mtim.tv_sec - (long long)best.tv_sec;
        const long nanoseconds = st.st_mtim.tv_nsec - best.tv_nsec;
        const bool later = seconds > 0 || (seconds == 0 && nanoseconds > 0);
        const bool equal = seconds == 0 && nanoseconds == 0;
        if (!newest || later || (equal && strcmp(path, newest) < 0)) {
            free(newest);
            newest = path;
            best = st.st_mtim;
        } else {
            free(path);
        }
    }
    if (dir)
        closedir(dir);
    free(folder);
    return newest;
}

/* A folder holds a checkpoint when it holds its config.json. */
static int check_folder(const char *folder, struct ward_error *err)
{
    char *config = format(folder, "/config.json", "");
    if (!config)
        return error_no_memory(err, "a path", strlen(folder));
    const bool there = file_exists(config);
    free(config);
    return there
               ? 0
               : error_set(err, WARD_EIO,
                           "%s: has no config.json; a checkpoint folder in Hugging Face's layout was expected", folder);
}

static int find_in_cache(char **folder, const char *name, struct ward_error *err)
{
    char *cache = cache_folder();
    char *repository = cache ? repository_folder(cache, name) : NULL;
    int rc = 0;
    if (!repository) {
        rc = error_no_memory(err, "a path", strlen(name));
    } else {
        *folder = main_snapshot(repository);
        if (!*folder)
            *folder = newest_snapshot(repository);
        if (!*folder)
            rc = error_set(err, WARD_EIO,
                           "%s: is neither a folder nor in the Hugging Face cache %s; to download it, once: "
                           "huggingface-cli download %s --local-dir ./models",
                           name, cache, name);
    }
    free(cache);
    free(repository);
    return rc;
}

int model_locate(char **folder, const char *name, struct ward_error *err)
{
    int rc = 0;
    *folder = NULL;
    if (is_folder(name)) {
        *folder = strdup(name);
        if (!*folder)
            return error_no_memory(err, "a path", strlen(name));
    } else if (file_exists(name)) {
        return error_set(err, WARD_EUNSUPPORTED,
                         "%s: is a file; a checkpoint folder in Hugging Face's layout was expected", name);
    } else if (is_cache_name(name)) {
        rc = find_in_cache(folder, name, err);
    } else {
        return error_set(
            err, WARD_EIO,
            "%s: there is no such folder; expected a checkpoint folder, or ORG/NAME in the Hugging "
            "Face cache (to download, once: huggingface-cli download google/medgemma-4b-it --local-dir ./models)",
            name);
    }
    if (!rc)
        rc = check_folder(*folder, err);
    if (rc) {
        free(*folder);
        *folder = NULL;
    }
    return rc;
}
