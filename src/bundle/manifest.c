#include "bundle/manifest.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

bool manifest_path_ok(const char *path)
{
    const size_t length = strlen(path);
    if (!length || length > MANIFEST_PATH || utf8_valid((const uint8_t *)path, length) != length ||
        strcmp(path, MANIFEST_NAME) == 0 || strcmp(path, MANIFEST_SIGNATURE) == 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f || path[i] == '\\')
            return false;
    for (const char *part = path;; part++) {
        if (*part == '/' || *part == '.' || !*part)
            return false;
        part = strchr(part, '/');
        if (!part)
            return true;
    }
}

static bool is_lower_hex(const char *text)
{
    return strspn(text, "0123456789abcdef") >= SHA256_HEX;
}

/* One line, NUL-terminated. */
static bool parse_line(struct manifest_line *out, char *line)
{
    if (strlen(line) < SHA256_HEX + 3 || !is_lower_hex(line) || !sha256_from_hex(out->sha256, line) ||
        line[SHA256_HEX] != ' ' || line[SHA256_HEX + 1] != ' ')
        return false;
    out->path = line + SHA256_HEX + 2;
    return manifest_path_ok(out->path);
}

/* After "a" may come "a.b" and only then "a/c", so the folders of each path are looked up. */
static bool has_file_as_folder(const struct manifest *m)
{
    char folder[MANIFEST_PATH + 1];
    for (size_t i = 0; i < m->n; i++) {
        for (const char *slash = strchr(m->lines[i].path, '/'); slash; slash = strchr(slash + 1, '/')) {
            const size_t n = (size_t)(slash - m->lines[i].path);
            memcpy(folder, m->lines[i].path, n);
            folder[n] = '\0';
            if (manifest_find(m, folder))
                return true;
        }
    }
    return false;
}

static int parse_lines(struct manifest *m, size_t length, const char *name, struct ward_error *err)
{
    char *at = m->text, *end = m->text + length;
    while (at < end) {
        char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t number = m->n + 1;
        if (m->n == MANIFEST_FILES)
            return error_set(err, WARD_EFORMAT, "%s: lists more than %d files", name, MANIFEST_FILES);
        if (newline)
            *newline = '\0';
        if (!newline || strlen(at) != (size_t)(newline - at) || !parse_line(&m->lines[m->n], at))
            return error_set(err, WARD_EFORMAT, "%s: line %zu is no hash and path of a file in a bundle", name, number);
        if (m->n && strcmp(m->lines[m->n - 1].path, m->lines[m->n].path) >= 0)
            return error_set(err, WARD_EFORMAT, "%s: line %zu is not in order", name, number);
        m->n++;
        at = newline + 1;
    }
    if (!m->n)
        return error_set(err, WARD_EFORMAT, "%s: lists no file", name);
    if (has_file_as_folder(m))
        return error_set(err, WARD_EFORMAT, "%s: lists a file as a folder, too", name);
    return 0;
}

int manifest_parse(struct manifest *out, const char *text, size_t length, const char *name, struct ward_error *err)
{
    *out = (struct manifest){0};
    if (length > MANIFEST_LIMIT)
        return error_set(err, WARD_EFORMAT, "%s: is %zu bytes long; at most %d are expected", name, length,
                         MANIFEST_LIMIT);
    size_t lines = 1;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    lines = lines > MANIFEST_FILES ? MANIFEST_FILES : lines;
    out->text = malloc(length + 1);
    out->lines = calloc(lines, sizeof *out->lines);
    int rc = 0;
    if (!out->text || !out->lines) {
        rc = error_no_memory(err, name, length);
    } else {
        memcpy(out->text, text, length);
        out->text[length] = '\0';
        rc = parse_lines(out, length, name, err);
    }
    if (rc)
        manifest_free(out);
    return rc;
}

static int find_line(const void *path, const void *line)
{
    return strcmp(path, ((const struct manifest_line *)line)->path);
}

const struct manifest_line *manifest_find(const struct manifest *m, const char *path)
{
    return m->n ? bsearch(path, m->lines, m->n, sizeof *m->lines, find_line) : NULL;
}

void manifest_free(struct manifest *m)
{
    free(m->lines);
    free(m->text);
    *m = (struct manifest){0};
}
