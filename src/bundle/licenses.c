/* The licences of the libraries in a bundle, where dpkg (Debian, Ubuntu) tells whose they are: it keeps a list of the
 * files of each package, and the package's copyright lies in a folder of its name. */
#include "bundle/bundle.h"

#include "base/mapping.h"
#include "base/text.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LISTS "/var/lib/dpkg/info"
enum { LIST_LIMIT = 64 << 20 };

static bool has_line(const char *list, const char *text)
{
    char line[PATH_MAX + 2];
    snprintf(line, sizeof line, "\n%s\n", text);
    return strstr(list, line) != NULL;
}

/* Packages from before /lib was a link to /usr/lib may list their libraries there. */
static bool lists_a_library(const char *list, const struct bundle_items *items)
{
    static const char usr[] = "/usr";
    for (size_t i = 0; i < items->n; i++) {
        char path[PATH_MAX];
        if (!starts_with(items->at[i].path, BUNDLE_LIBRARIES) || !realpath(items->at[i].source, path))
            continue;
        if (has_line(list, path) || (starts_with(path, usr) && has_line(list, path + strlen(usr))))
            return true;
    }
    return false;
}

/* list: "PACKAGE.list" or "PACKAGE:ARCHITECTURE.list". Nothing where the package has none. */
static int add_copyright(struct bundle_items *items, const char *list, struct ward_error *err)
{
    char path[PATH_MAX], source[PATH_MAX];
    size_t n = strcspn(list, ":");
    if (!list[n])
        n -= strlen(".list");
    snprintf(source, sizeof source, "/usr/share/doc/%.*s/copyright", (int)n, list);
    snprintf(path, sizeof path, "licenses/%.*s.txt", (int)n, list);
    return file_exists(source) ? bundle_add_file(items, path, source, false, err) : 0;
}

int bundle_add_licenses(struct bundle_items *items, struct ward_error *err)
{
    DIR *dir = opendir(LISTS);
    int rc = 0;
    if (!dir)
        return 0;
    for (struct dirent *entry; !rc && (entry = readdir(dir));) {
        char path[PATH_MAX], *list;
        size_t length;
        struct ward_error ignored; /* a list that cannot be read tells nothing */
        snprintf(path, sizeof path, LISTS "/%s", entry->d_name);
        if (!ends_with(path, ".list") || file_read(&list, &length, path, LIST_LIMIT, &ignored))
            continue;
        if (lists_a_library(list, items))
            rc = add_copyright(items, entry->d_name, err);
        free(list);
    }
    closedir(dir);
    return rc;
}
