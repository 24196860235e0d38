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

/* The folder of ORG/NAME in the cache; NULL when it is not there. */
static int find_in_cache(char **folder, char **found_by, const char *cache, const char *name, struct ward_error *err)
{
    char *repository = repository_folder(cache, name);
    if (!repository)
        return error_no_memory(err, "a path", strlen(name));
    *folder = main_snapshot(repository);
    if (!*folder)
        *folder = newest_snapshot(repository);
    if (*folder)
        *found_by = repository;
    else
        free(repository);
    return 0;
}

/* A folder holds a checkpoint when it holds its config.json, or GGUF files. */
static int take_folder(struct model_place *out, char *folder, struct ward_error *err)
{
    int rc = 0;
    if (folder_is_gguf(folder)) {
        out->is_gguf = true;
        rc = find_text_gguf(&out->path, folder, err);
        free(folder);
        return rc;
    }
    out->path = folder;
    char *config = format(folder, "/config.json", "");
    if (!config)
        return error_no_memory(err, "a path", strlen(folder));
    if (!file_exists(config))
        rc = error_set(err, WARD_EIO,
                       "%s: has no config.json and no GGUF file; a checkpoint folder in Hugging Face's layout was "
                       "expected",
                       folder);
    free(config);
    return rc;
}

static int take_copy(struct model_place *out, const char *name, bool is_folder_name, struct ward_error *err)
{
    char *path = strdup(name);
    if (!path)
        return error_no_memory(err, "a path", strlen(name));
    if (is_folder_name)
        return take_folder(out, path, err);
    out->path = path;
    out->is_gguf = true; /* a file that is not says so when it is read */
    return 0;
}

/* Not a path: a name in a store. */
static int find_by_name(struct model_place *out, const char *name, struct ward_error *err)
{
    char *cache = cache_folder(), *folder = NULL;
    int rc = cache ? 0 : error_no_memory(err, "a path", strlen(name));
    if (!rc && is_cache_name(name))
        rc = find_in_cache(&folder, &out->found_by, cache, name, err);
    if (!rc && folder)
        rc = take_folder(out, folder, err);
    else if (!rc)
        rc = find_in_ollama(out, name, err);
    if (!rc && !out->path && is_cache_name(name))
        rc = error_set(err, WARD_EIO,
                       "%s: is neither a folder nor in the Hugging Face cache %s; to download it, once: "
                       "huggingface-cli download %s --local-dir ./models",
                       name, cache, name);
    else if (!rc && !out->path)
        rc = error_set(
            err, WARD_EIO,
            "%s: there is no such folder or file; expected a checkpoint folder, a GGUF file, ORG/NAME in the Hugging "
            "Face cache or a model of Ollama's (to download, once: huggingface-cli download google/medgemma-4b-it "
            "--local-dir ./models)",
            name);
    free(cache);
    return rc;
}

/* The image encoder: what was asked for, else what lies beside the text. */
static int take_mmproj(struct model_place *out, const char *mmproj, struct ward_error *err)
{
    if (mmproj && !out->is_gguf)
        return error_set(err, WARD_EINVAL, "%s: is no GGUF file: the image encoder %s does not go with it", out->path,
                         mmproj);
    if (mmproj) {
        free(out->mmproj);
        out->mmproj = NULL;
        out->text_only = strcmp(mmproj, "none") == 0;
        if (!out->text_only && !(out->mmproj = strdup(mmproj)))
            return error_no_memory(err, "a path", strlen(mmproj));
        return 0;
    }
    return out->is_gguf && !out->mmproj ? find_mmproj(&out->mmproj, &out->guessed, out->path, err) : 0;
}

int model_locate(struct model_place *out, const char *name, const char *mmproj, struct ward_error *err)
{
    *out = (struct model_place){0};
    int rc;
    if (is_folder(name))
        rc = take_copy(out, name, true, err);
    else if (file_exists(name))
        rc = take_copy(out, name, false, err);
    else
        rc = find_by_name(out, name, err);
    if (!rc)
        rc = take_mmproj(out, mmproj, err);
    if (rc)
        model_place_free(out);
    return rc;
}

void model_place_free(struct model_place *place)
{
    free(place->path);
    free(place->mmproj);
    free(place->found_by);
    *place = (struct model_place){0};
}
