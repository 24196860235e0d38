#include "settings.h"

#include "base/mapping.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTINGS_LIMIT = 1 << 16 };
static const char system_file[] = "/etc/ward/ward.conf";

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static void trim(const char **text, size_t *length)
{
    while (*length && is_blank(**text)) {
        ++*text;
        --*length;
    }
    while (*length && is_blank((*text)[*length - 1]))
        --*length;
}

static bool is(const char *text, size_t length, const char *word)
{
    return length == strlen(word) && !memcmp(text, word, length);
}

static int set(struct settings *settings, const char *key, size_t n_key, const char *value, size_t n_value,
               const char *name, int line, struct ward_error *err)
{
    if (is(key, n_key, "audit")) {
        if (n_value == 0 || *value != '/')
            return error_set(err, WARD_EFORMAT, "%s: line %d: audit takes the path of a folder from /, or the line is "
                             "left out", name, line);
        char *copy = strndup(value, n_value);
        if (!copy)
            return error_no_memory(err, name, n_value);
        free(settings->audit);
        settings->audit = copy;
    } else if (is(key, n_key, "audit-text")) {
        settings->audit_text = is(value, n_value, "yes");
        if (!settings->audit_text && !is(value, n_value, "no"))
            return error_set(err, WARD_EFORMAT, "%s: line %d: audit-text takes yes or no", name, line);
    } else {
        return error_set(err, WARD_EFORMAT, "%s: line %d: the keys are audit and audit-text, as in 'audit = "
                         "/var/lib/ward/audit'", name, line);
    }
    return 0;
}

int settings_parse(struct settings *settings, const char *text, size_t length, const char *name, struct ward_error *err)
{
    const char *at = text, *end = text + length;
    for (int line = 1; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end, *key = at;
        size_t n = (size_t)(stop - at);
        at = stop + (newline != NULL);
        if (memchr(key, '\0', n))
            return error_set(err, WARD_EFORMAT, "%s: line %d: holds a NUL character", name, line);
        trim(&key, &n);
        if (n == 0 || *key == '#')
            continue;
        const char *equals = memchr(key, '=', n), *value = equals ? equals + 1 : key + n;
        size_t n_key = equals ? (size_t)(equals - key) : n, n_value = (size_t)(key + n - value);
        trim(&key, &n_key);
        trim(&value, &n_value);
        int rc = set(settings, key, n_key, value, n_value, name, line, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_file(struct settings *settings, const char *path, struct ward_error *err)
{
    char *text;
    size_t length;
    if (!file_exists(path))
        return 0;
    int rc = file_read(&text, &length, path, SETTINGS_LIMIT, err);
    if (rc)
        return rc;
    rc = settings_parse(settings, text, length, path, err);
    free(text);
    return rc;
}

int settings_read(struct settings *out, struct ward_error *err)
{
    char path[PATH_MAX] = "";
    const char *given = getenv("WARD_AUDIT"), *folder = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    *out = (struct settings){0};
    if (folder && *folder == '/')
        snprintf(path, sizeof path, "%s/ward/ward.conf", folder);
    else if (home && *home)
        snprintf(path, sizeof path, "%s/.config/ward/ward.conf", home);
    int rc = read_file(out, path, err); /* the weakest first */
    if (!rc && given && *given) {
        free(out->audit);
        out->audit = strdup(given);
        rc = out->audit ? 0 : error_no_memory(err, "WARD_AUDIT", strlen(given));
    }
    if (!rc)
        rc = read_file(out, system_file, err);
    if (rc) {
        free(out->audit);
        out->audit = NULL;
    }
    return rc;
}
