#include "bundle/tar.h"

#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "a header is a block");

enum { PATH_LIMIT = 256 };

uint64_t tar_size(uint64_t size)
{
    return TAR_BLOCK + (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

/* The sum of all bytes, those of the sum itself taken as blanks. */
static unsigned checksum(const struct header *h)
{
    const uint8_t *bytes = (const uint8_t *)h;
    unsigned sum = 0;
    for (size_t i = 0; i < TAR_BLOCK; i++)
        sum += i >= offsetof(struct header, checksum) && i < offsetof(struct header, type) ? ' ' : bytes[i];
    return sum;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* Octal digits and a NUL; what they cannot say, big endian with the first bit set, as GNU and star have it. */
static void put_number(char *out, size_t room, uint64_t value)
{
    char digits[24];
    if (snprintf(digits, sizeof digits, "%0*" PRIo64, (int)room - 1, value) < (int)room) {
        memcpy(out, digits, room);
        return;
    }
    for (size_t i = room; i-- > 0; value >>= 8)
        out[i] = (char)(value & 0xff);
    out[0] = (char)0x80;
}

/* A path of more than 100 bytes is divided at a slash. */
static bool put_path(struct header *h, const char *path)
{
    const size_t length = strlen(path);
    if (length <= sizeof h->name) {
        memcpy(h->name, path, length);
        return true;
    }
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        const size_t before = (size_t)(slash - path), after = length - before - 1;
        if (before > sizeof h->prefix || after > sizeof h->name)
            continue;
        memcpy(h->prefix, path, before);
        memcpy(h->name, slash + 1, after);
        return true;
    }
    return false;
}

bool tar_header(uint8_t out[TAR_BLOCK], const char *path, uint64_t size, bool executable, int64_t mtime)
{
    struct header h = {0};
    if (!put_path(&h, path))
        return false;
    put_number(h.mode, sizeof h.mode, executable ? 0755 : 0644);
    put_number(h.uid, sizeof h.uid, 0);
    put_number(h.gid, sizeof h.gid, 0);
    put_number(h.size, sizeof h.size, size);
    put_number(h.mtime, sizeof h.mtime, mtime > 0 ? (uint64_t)mtime : 0);
    h.type = '0';
    memcpy(h.magic, "ustar", 6);
    memcpy(h.version, "00", 2);
    memcpy(h.user, "root", 5);
    memcpy(h.group, "root", 5);
    snprintf(h.checksum, sizeof h.checksum, "%06o", checksum(&h));
    h.checksum[7] = ' ';
    memcpy(out, &h, sizeof h);
    return true;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static bool read_number(const char *in, size_t room, uint64_t *out)
{
    const uint8_t *bytes = (const uint8_t *)in;
    *out = 0;
    if (bytes[0] & 0x80) {
        for (size_t i = 1; i < room; i++) {
            if (*out >> 55)
                return false;
            *out = *out << 8 | bytes[i];
        }
        return bytes[0] == 0x80;
    }
    size_t i = 0;
    for (; i < room && in[i] >= '0' && in[i] <= '7'; i++)
        *out = *out << 3 | (uint64_t)(in[i] - '0');
    return i && (i == room || in[i] == '\0' || in[i] == ' ');
}

static bool all_zero(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++)
        if (bytes[i])
            return false;
    return true;
}

/* PREFIX/NAME; false: it does not fit, or is empty. */
static bool read_path(char out[PATH_LIMIT + 1], const struct header *h)
{
    const size_t before = strnlen(h->prefix, sizeof h->prefix), after = strnlen(h->name, sizeof h->name);
    /* what follows a NUL would be somebody's secret name */
    if (!after || !all_zero(h->prefix + before, sizeof h->prefix - before) ||
        !all_zero(h->name + after, sizeof h->name - after))
        return false;
    const int n = snprintf(out, PATH_LIMIT + 1, "%.*s%s%.*s", (int)before, h->prefix, before ? "/" : "", (int)after,
                           h->name);
    return n > 0 && n <= PATH_LIMIT;
}

/* A clause that says what is wrong with a header, or NULL. */
static const char *judge_header(const struct header *h, char path[PATH_LIMIT + 1], uint64_t *size, uint64_t *mode,
                                const char *prefix)
{
    uint64_t sum, ignored;
    if (memcmp(h->magic, "ustar", 6) != 0 || memcmp(h->version, "00", 2) != 0)
        return "is no header of a ustar file";
    if (!read_number(h->checksum, sizeof h->checksum, &sum) || sum != checksum(h))
        return "has a wrong checksum";
    if (h->type != '0')
        return "is no regular file";
    if (!read_path(path, h) || !starts_with(path, prefix))
        return "has a name that is not of a bundle";
    if (!read_number(h->mode, sizeof h->mode, mode) || (*mode != 0644 && *mode != 0755))
        return "has permissions other than 0644 and 0755";
    if (!read_number(h->uid, sizeof h->uid, &ignored) || !read_number(h->gid, sizeof h->gid, &ignored) ||
        !read_number(h->mtime, sizeof h->mtime, &ignored) || !read_number(h->size, sizeof h->size, size))
        return "has a number that cannot be read";
    if (!all_zero(h->link, sizeof h->link) || !all_zero(h->rest, sizeof h->rest))
        return "holds what a header of a file has not";
    return NULL;
}

static int add_entry(struct tar_index *index, const char *path, uint64_t offset, uint64_t size, bool executable,
                     const char *name, struct ward_error *err)
{
    struct tar_entry *entries = reallocarray(index->entries, index->n + 1, sizeof *entries);
    if (entries)
        index->entries = entries;
    char *copy = entries ? strdup(path) : NULL;
    if (!copy)
        return error_no_memory(err, name, strlen(path));
    entries[index->n++] = (struct tar_entry){copy, offset, size, executable};
    return 0;
}

struct reader {
    tar_read_fn *read;
    void *user;
    uint64_t size;
    const char *name;
};

static int read_block(const struct reader *r, void *out, size_t size, uint64_t offset, struct ward_error *err)
{
    const int error = r->read(r->user, out, size, offset);
    return error ? error_set(err, WARD_EIO, "%s: cannot be read: %s", r->name, strerror(error)) : 0;
}

/* Two blocks of zeros or more, to the end of the file, in at most one record of 10 KB. */
static int check_end(const struct reader *r, uint64_t at, struct ward_error *err)
{
    uint8_t block[TAR_BLOCK];
    if (r->size - at < 2 * TAR_BLOCK || r->size - at > 22 * TAR_BLOCK)
        return error_set(err, WARD_EFORMAT, "%s: does not end as a tar file does", r->name);
    for (; at < r->size; at += TAR_BLOCK) {
        const int rc = read_block(r, block, sizeof block, at, err);
        if (rc)
            return rc;
        if (!all_zero(block, sizeof block))
            return error_set(err, WARD_EFORMAT, "%s: holds bytes behind its end", r->name);
    }
    return 0;
}

/* The zeros between a file and the next header. */
static int check_padding(const struct reader *r, uint64_t end, struct ward_error *err)
{
    uint8_t block[TAR_BLOCK];
    const size_t n = (size_t)((TAR_BLOCK - end % TAR_BLOCK) % TAR_BLOCK);
    const int rc = n ? read_block(r, block, n, end, err) : 0;
    if (rc)
        return rc;
    return all_zero(block, n) ? 0 : error_set(err, WARD_EFORMAT, "%s: holds bytes between its files", r->name);
}

static int read_entries(struct tar_index *index, const struct reader *r, const char *prefix, size_t limit,
                        struct ward_error *err)
{
    uint64_t at = 0;
    for (;;) {
        struct header h;
        char path[PATH_LIMIT + 1];
        uint64_t size = 0, mode = 0;
        int rc = read_block(r, &h, sizeof h, at, err);
        if (rc)
            return rc;
        if (all_zero(&h, sizeof h))
            return check_end(r, at, err);
        const char *fault = judge_header(&h, path, &size, &mode, prefix);
        if (fault)
            return error_set(err, WARD_EFORMAT, "%s: file %zu %s", r->name, index->n + 1, fault);
        if (index->n == limit)
            return error_set(err, WARD_EFORMAT, "%s: holds more than %zu files", r->name, limit);
        if (size > r->size - at - TAR_BLOCK || tar_size(size) > r->size - at - TAR_BLOCK)
            return error_set(err, WARD_EFORMAT, "%s: ends within file %zu", r->name, index->n + 1);
        rc = add_entry(index, path + strlen(prefix), at + TAR_BLOCK, size, mode == 0755, r->name, err);
        if (!rc)
            rc = check_padding(r, at + TAR_BLOCK + size, err);
        if (rc)
            return rc;
        at += tar_size(size);
    }
}

int tar_read_index(struct tar_index *out, tar_read_fn *read, void *user, uint64_t size, const char *prefix,
                   size_t limit, const char *name, struct ward_error *err)
{
    const struct reader r = {.read = read, .user = user, .size = size, .name = name};
    *out = (struct tar_index){0};
    if (size < 2 * TAR_BLOCK || size % TAR_BLOCK)
        return error_set(err, WARD_EFORMAT, "%s: is no tar file: its length is no multiple of %d", name, TAR_BLOCK);
    const int rc = read_entries(out, &r, prefix, limit, err);
    if (rc)
        tar_index_free(out);
    return rc;
}

void tar_index_free(struct tar_index *index)
{
    for (size_t i = 0; i < index->n; i++)
        free(index->entries[i].path);
    free(index->entries);
    *index = (struct tar_index){0};
}
