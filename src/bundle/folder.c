/* Folders: what is in one, made and removed. */
#include "bundle/bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH = 16 };

struct listing {
    struct bundle_file *files;
    size_t n;
    const char *name;
    struct ward_error *err;
};

static int add_file(struct listing *l, const char *path, const struct stat *st)
{
    if (l->n == MANIFEST_FILES + 2)
        return error_set(l->err, WARD_EFORMAT, "%s: holds more than %d files", l->name, MANIFEST_FILES);
    struct bundle_file *files = reallocarray(l->files, l->n + 1, sizeof *files);
    if (files)
        l->files = files;
    char *copy = files ? strdup(path) : NULL;
    if (!copy)
        return error_no_memory(l->err, l->name, strlen(path));
    files[l->n++] = (struct bundle_file){copy, 0, (uint64_t)st->st_size, st->st_mode & S_IXUSR};
    return 0;
}

static int list_below(struct listing *l, int folder, const char *path, int depth);

static int list_entry(struct listing *l, int folder, const char *path, const char *name, int depth)
{
    char whole[MANIFEST_PATH + 1];
    struct stat st;
    const int n = snprintf(whole, sizeof whole, "%s%s%s", path, *path ? "/" : "", name);
    if (n < 0 || (size_t)n >= sizeof whole)
        return error_set(l->err, WARD_EFORMAT, "%s: holds a path of more than %d bytes", l->name, MANIFEST_PATH);
    if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW))
        return error_set(l->err, WARD_EIO, "%s/%s: cannot be read: %s", l->name, whole, strerror(errno));
    if (S_ISREG(st.st_mode)) {
        if (st.st_mode & (S_ISUID | S_ISGID))
            return error_set(l->err, WARD_EFORMAT, "%s/%s: would run as another user", l->name, whole);
        return add_file(l, whole, &st);
    }
    if (!S_ISDIR(st.st_mode))
        return error_set(l->err, WARD_EFORMAT, "%s/%s: is a %s; a bundle holds files only", l->name, whole,
                         S_ISLNK(st.st_mode) ? "link" : "device, pipe or socket");
    const int below = depth < DEPTH ? openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (below < 0)
        return error_set(l->err, WARD_EIO, "%s/%s: cannot be read: %s", l->name, whole,
                         depth < DEPTH ? strerror(errno) : "it is too deep");
    const size_t before = l->n;
    const int rc = list_below(l, below, whole, depth + 1);
    if (!rc && l->n == before)
        return error_set(l->err, WARD_EFORMAT, "%s/%s: is an empty folder, which no list has", l->name, whole);
    return rc;
}

/* Closes the descriptor. */
static int list_below(struct listing *l, int folder, const char *path, int depth)
{
    DIR *dir = fdopendir(folder);
    int rc = 0;
    if (!dir) {
        close(folder);
        return error_no_memory(l->err, l->name, 1);
    }
    for (struct dirent *entry; !rc && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = list_entry(l, dirfd(dir), path, entry->d_name, depth);
    closedir(dir);
    return rc;
}

int bundle_list_folder(struct bundle_file **files, size_t *n, int folder, const char *name, struct ward_error *err)
{
    struct listing l = {.name = name, .err = err};
    const int own = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int rc = own < 0 ? error_set(err, WARD_EIO, "%s: cannot be read: %s", name, strerror(errno))
                           : list_below(&l, own, "", 0);
    if (rc)
        bundle_files_free(&l.files, &l.n);
    *files = l.files;
    *n = l.n;
    return rc;
}

void bundle_files_free(struct bundle_file **files, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        free((*files)[i].path);
    free(*files);
    *files = NULL;
    *n = 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
    (void)st;
    (void)type;
    (void)where;
    remove(path);
    return 0;
}

void bundle_remove(const char *folder)
{
    nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int bundle_make_folders(int folder, const char *path)
{
    char part[MANIFEST_PATH + 1];
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        if (mkdirat(folder, part, 0777) && errno != EEXIST)
            return errno;
    }
    return 0;
}

void bundle_sync_folder(const char *folder)
{
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}
