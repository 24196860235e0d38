#include "bench/sysfs.h"

#include <ctype.h>
#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static FILE *open_file(const char *root, const char *format, va_list args)
{
    char path[PATH_MAX];
    const size_t n = (size_t)snprintf(path, sizeof path, "%s", root);
    if (n >= sizeof path || vsnprintf(path + n, sizeof path - n, format, args) >= (int)(sizeof path - n))
        return NULL;
    return fopen(path, "re");
}

FILE *sysfs_open(const char *root, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    FILE *f = open_file(root, format, args);
    va_end(args);
    return f;
}

static void copy_trimmed(char *out, size_t room, const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t n = strcspn(text, "\n");
    while (n && isspace((unsigned char)text[n - 1]))
        n--;
    snprintf(out, room, "%.*s", (int)(n < room ? n : room - 1), text);
}

static bool read_line(char *out, size_t room, FILE *f)
{
    char line[1024] = "";
    *out = '\0';
    if (f && fgets(line, sizeof line, f))
        copy_trimmed(out, room, line);
    if (f)
        fclose(f);
    return *out;
}

bool sysfs_line(char *out, size_t room, const char *root, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    FILE *f = open_file(root, format, args);
    va_end(args);
    return read_line(out, room, f);
}

bool sysfs_integer(int64_t *out, const char *root, const char *format, ...)
{
    va_list args;
    char line[64], *end;
    va_start(args, format);
    FILE *f = open_file(root, format, args);
    va_end(args);
    if (!read_line(line, sizeof line, f))
        return false;
    const long long value = strtoll(line, &end, 0);
    if (end == line)
        return false;
    *out = value;
    return true;
}

bool sysfs_value(char *out, size_t room, const char *root, const char *file, const char *key)
{
    char *line = NULL;
    size_t capacity = 0;
    FILE *f = sysfs_open(root, "%s", file);
    const size_t n = strlen(key);
    bool found = false;
    *out = '\0';
    while (f && !found && getline(&line, &capacity, f) > 0) {
        found = strncmp(line, key, n) == 0 && (isspace((unsigned char)line[n]) || line[n] == ':' || line[n] == '=');
        if (found)
            copy_trimmed(out, room, line + n + strspn(line + n, " \t:="));
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

int sysfs_list(char (*out)[SYSFS_NAME], int most, const char *root, const char *pattern)
{
    char path[PATH_MAX];
    glob_t found;
    int n = 0;
    if (snprintf(path, sizeof path, "%s%s", root, pattern) >= (int)sizeof path || glob(path, 0, NULL, &found))
        return 0;
    for (size_t i = 0; i < found.gl_pathc && n < most; i++)
        if (snprintf(out[n], SYSFS_NAME, "%s", found.gl_pathv[i] + strlen(root)) < SYSFS_NAME)
            n++;
    globfree(&found);
    return n;
}
