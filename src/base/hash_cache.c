#include "base/hash_cache.h"

#include "base/mapping.h"
#include "base/new_file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_ENTRIES = 1024,
    LINE_LIMIT = 256,
    SETTLED = 2, /* seconds after which a change cannot share a stamp: FAT has the coarsest clock */
};
static const char first_line[] = "ward hashes 1\n", last_line[] = "mac ";

struct entry {
    struct file_stamp stamp;
    uint8_t sha256[SHA256_BYTES];
};

struct hash_cache {
    char *list_path;
    bool has_key, changed;
    uint8_t key[crypto_auth_KEYBYTES];
    size_t n;
    struct entry entries[MAX_ENTRIES]; /* the newest last */
};

/* ---- where ------------------------------------------------------------------------------------------------------- */

/* DIR/ward/NAME, its folders made if so wanted. XDG's folders have to be absolute; NULL: there is none. */
static char *place(const char *variable, const char *below_home, const char *name, bool make)
{
    const char *folder = getenv(variable), *home = getenv("HOME");
    char *path = NULL;
    if (folder && *folder == '/') {
        if (asprintf(&path, "%s/ward/%s", folder, name) < 0)
            return NULL;
    } else if (!home || *home != '/' || asprintf(&path, "%s/%s/ward/%s", home, below_home, name) < 0) {
        return NULL;
    }
    for (char *slash = strchr(path + 1, '/'); make && slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    return path;
}

static char *list_place(bool make)
{
    return place("XDG_CACHE_HOME", ".cache", "hashes", make);
}

static char *key_place(bool make)
{
    return place("XDG_STATE_HOME", ".local/state", "hashes.key", make);
}

void hash_cache_paths(char *paths[2])
{
    paths[0] = list_place(true);
    paths[1] = key_place(true);
}

/* ---- the key ----------------------------------------------------------------------------------------------------- */

static bool read_key(uint8_t key[crypto_auth_KEYBYTES], const char *path)
{
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool ok = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
              !(st.st_mode & 077) && st.st_size == crypto_auth_KEYBYTES &&
              read(fd, key, crypto_auth_KEYBYTES) == crypto_auth_KEYBYTES;
    if (fd >= 0)
        close(fd);
    return ok;
}

/* Of two that make a key at once, both use the first. */
static bool take_key(uint8_t key[crypto_auth_KEYBYTES], bool make)
{
    char *path = key_place(make);
    struct ward_error ignored;
    if (!path)
        return false;
    bool ok = read_key(key, path);
    if (!ok && make && !file_exists(path)) {
        uint8_t fresh[crypto_auth_KEYBYTES];
        randombytes_buf(fresh, sizeof fresh);
        (void)!new_file_put_secret(path, fresh, sizeof fresh, &ignored);
        sodium_memzero(fresh, sizeof fresh);
        ok = read_key(key, path);
    }
    free(path);
    return ok;
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

static bool read_entry(struct entry *e, const char *line)
{
    struct file_stamp *s = &e->stamp;
    int at = 0;
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNd64 ".%" SCNd32 " %" SCNd64 ".%" SCNd32 " %n",
               &s->device, &s->inode, &s->size, &s->mtime_s, &s->mtime_ns, &s->ctime_s, &s->ctime_ns, &at) != 7)
        return false;
    return at && sha256_from_hex(e->sha256, line + at);
}

/* Only what this user's key vouches for is looked at. */
static void read_list(struct hash_cache *c)
{
    enum { HEX = 2 * crypto_auth_BYTES };
    struct ward_error ignored;
    uint8_t mac[crypto_auth_BYTES];
    char *text;
    size_t length, mac_length;
    if (!file_exists(c->list_path) || file_read(&text, &length, c->list_path, MAX_ENTRIES * LINE_LIMIT, &ignored))
        return;
    const size_t tail = sizeof last_line - 1 + HEX + 1;
    if (length >= tail && !memcmp(text + length - tail, last_line, sizeof last_line - 1) &&
        !sodium_hex2bin(mac, sizeof mac, text + length - 1 - HEX, HEX, NULL, &mac_length, NULL) &&
        mac_length == sizeof mac &&
        !crypto_auth_verify(mac, (const uint8_t *)text, length - tail, c->key) &&
        !strncmp(text, first_line, sizeof first_line - 1)) {
        text[length - tail] = '\0';
        for (char *line = text + sizeof first_line - 1; *line && c->n < MAX_ENTRIES; c->n++) {
            if (!read_entry(&c->entries[c->n], line))
                break;
            line += strcspn(line, "\n");
            line += *line == '\n';
        }
    }
    free(text);
}

static void write_list(struct hash_cache *c)
{
    struct ward_error ignored;
    const size_t room = (c->n + 2) * LINE_LIMIT;
    char *text = malloc(room), hex[SHA256_HEX + 1], mac_hex[2 * crypto_auth_BYTES + 1];
    uint8_t mac[crypto_auth_BYTES];
    if (!text)
        return;
    size_t n = (size_t)snprintf(text, room, "%s", first_line);
    for (size_t i = 0; i < c->n; i++) {
        const struct file_stamp *s = &c->entries[i].stamp;
        sha256_hex(hex, c->entries[i].sha256);
        n += (size_t)snprintf(text + n, room - n,
                              "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 ".%" PRId32 " %" PRId64 ".%" PRId32
                              " %s\n",
                              s->device, s->inode, s->size, s->mtime_s, s->mtime_ns, s->ctime_s, s->ctime_ns, hex);
    }
    crypto_auth(mac, (const uint8_t *)text, n, c->key);
    n += (size_t)snprintf(text + n, room - n, "%s%s\n", last_line,
                          sodium_bin2hex(mac_hex, sizeof mac_hex, mac, sizeof mac));
    (void)!new_file_put(c->list_path, text, n, &ignored);
    free(text);
}

/* ---- in use ------------------------------------------------------------------------------------------------------ */

struct hash_cache *hash_cache_open(bool make)
{
    struct hash_cache *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->list_path = list_place(make);
    c->has_key = sodium_init() >= 0 && c->list_path && take_key(c->key, make);
    if (c->has_key)
        read_list(c);
    return c;
}

bool hash_cache_find(const struct hash_cache *c, const struct file_stamp *stamp, uint8_t sha256[SHA256_BYTES])
{
    for (size_t i = c ? c->n : 0; i-- > 0;) {
        if (!file_stamp_equal(&c->entries[i].stamp, stamp))
            continue;
        memcpy(sha256, c->entries[i].sha256, SHA256_BYTES);
        return true;
    }
    return false;
}

void hash_cache_add(struct hash_cache *c, const struct file_stamp *stamp, const uint8_t sha256[SHA256_BYTES],
                    int64_t now)
{
    if (!c || stamp->ctime_s >= now - SETTLED || stamp->mtime_s >= now - SETTLED)
        return;
    /* A file that changed has the same number: its old hash is of no use to anybody. */
    for (size_t i = 0; i < c->n; i++)
        if (c->entries[i].stamp.device == stamp->device && c->entries[i].stamp.inode == stamp->inode)
            memmove(&c->entries[i], &c->entries[i + 1], (--c->n - i) * sizeof *c->entries);
    if (c->n == MAX_ENTRIES)
        memmove(&c->entries[0], &c->entries[1], --c->n * sizeof *c->entries);
    struct entry *e = &c->entries[c->n++];
    e->stamp = *stamp;
    memcpy(e->sha256, sha256, SHA256_BYTES);
    c->changed = true;
}

void hash_cache_close(struct hash_cache **cache)
{
    struct hash_cache *c = *cache;
    if (!c)
        return;
    if (c->changed && c->has_key)
        write_list(c);
    sodium_memzero(c->key, sizeof c->key);
    free(c->list_path);
    free(c);
    *cache = NULL;
}
