/* Which of a folder's GGUF files is the text model, and which the image encoder that goes with it. */
#include "base/mapping.h"
#include "model/locate.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct names {
    char **at; /* sorted */
    size_t n;
};

static void names_free(struct names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->at[i]);
    free(names->at);
    *names = (struct names){0};
}

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && !strcasecmp(text + length - tail, end);
}

static bool is_mmproj_name(const char *name)
{
    return strcasestr(name, "mmproj") != NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The folder's GGUF files of one kind. */
static int list_gguf(struct names *out, const char *folder, bool mmproj, struct ward_error *err)
{
    *out = (struct names){0};
    DIR *dir = opendir(folder);
    if (!dir)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", folder, strerror(errno));
    int rc = 0;
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        if (entry->d_name[0] == '.' || !ends_with(entry->d_name, ".gguf") || is_mmproj_name(entry->d_name) != mmproj)
            continue;
        char **grown = realloc(out->at, (out->n + 1) * sizeof *grown);
        if (grown)
            out->at = grown;
        if (!grown || !(out->at[out->n] = strdup(entry->d_name)))
            rc = error_no_memory(err, "a list of files", (out->n + 1) * sizeof *grown);
        else
            out->n++;
    }
    closedir(dir);
    if (out->n)
        qsort(out->at, out->n, sizeof *out->at, compare_names);
    if (rc)
        names_free(out);
    return rc;
}

static bool has_file(const char *folder, const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return false;
    const bool there = file_exists(path);
    free(path);
    return there;
}

static int join(char **path, const char *folder, const char *name, struct ward_error *err)
{
    if (asprintf(path, "%s/%s", folder, name) >= 0)
        return 0;
    *path = NULL;
    return error_no_memory(err, "a path", strlen(folder));
}

/* Repositories of GGUF files often hold a config.json as well. */
bool folder_is_gguf(const char *folder)
{
    if (has_file(folder, "model.safetensors") || has_file(folder, "model.safetensors.index.json"))
        return false;
    struct names names;
    const bool found = !list_gguf(&names, folder, false, NULL) && names.n;
    names_free(&names);
    return found;
}

int find_text_gguf(char **path, const char *folder, struct ward_error *err)
{
    *path = NULL;
    struct names names;
    int rc = list_gguf(&names, folder, false, err);
    if (!rc && names.n == 1) {
        rc = join(path, folder, names.at[0], err);
    } else if (!rc) {
        char list[512] = "";
        for (size_t i = 0, used = 0; i < names.n && used < sizeof list; i++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names.at[i]);
        rc = error_set(err, WARD_EINVAL, "%s: holds %zu GGUF files, name the one to open: %s", folder, names.n, list);
    }
    names_free(&names);
    return rc;
}

/* ---- the encoder ------------------------------------------------------------------------------------------------- */

/* Letters of the words that the names begin with alike, once "mmproj-" is taken off; fewer than four are chance. */
static size_t shared_stem(const char *mmproj, const char *text)
{
    size_t words = 0;
    if (!strncasecmp(mmproj, "mmproj", 6))
        mmproj += 6 + strspn(mmproj + 6, "-_.");
    for (size_t n = 0; mmproj[n] && tolower((unsigned char)mmproj[n]) == tolower((unsigned char)text[n]); n++)
        if (strchr("-_.", mmproj[n]))
            words = n;
    return words < 4 ? 0 : words;
}

/* The checkpoints are BF16: this is as they were published, F16 all but that. */
static int rank_type(const char *name)
{
    static const char *const types[] = {"q8_0", "f32", "f16", "bf16"};
    for (int i = (int)(sizeof types / sizeof *types); i-- > 0;)
        if (strcasestr(name, types[i]))
            return i + 1;
    return 0;
}

int find_mmproj(char **path, bool *guessed, const char *text, struct ward_error *err)
{
    *path = NULL;
    *guessed = false;
    const char *slash = strrchr(text, '/'), *base = slash ? slash + 1 : text;
    char *folder = slash ? strndup(text, slash == text ? 1 : (size_t)(slash - text)) : strdup(".");
    if (!folder)
        return error_no_memory(err, "a path", strlen(text));
    struct names names;
    int rc = list_gguf(&names, folder, true, err);
    size_t best = 0;
    for (size_t i = 1; i < names.n; i++) {
        const size_t stem = shared_stem(names.at[i], base), best_stem = shared_stem(names.at[best], base);
        const int type = rank_type(names.at[i]), best_type = rank_type(names.at[best]);
        if (stem > best_stem || (stem == best_stem && type > best_type)) {
            best = i;
            *guessed = false;
        } else if (stem == best_stem && type == best_type) {
            *guessed = true;
        }
    }
    if (!rc && names.n)
        rc = slash ? join(path, slash == text ? "" : folder, names.at[best], err)
                   : (*path = strdup(names.at[best])) ? 0 : error_no_memory(err, "a path", strlen(names.at[best]));
    names_free(&names);
    free(folder);
    return rc;
}
