#include "audit/state.h"

#include "base/disk.h"
#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[8] = {'w', 'a', 'r', 'd', 's', 't', 'a', '1'};
enum { CHECKED = AUDIT_STATE - AUDIT_HASH }; /* bytes before the checksum */

static int fail(const char *dir, const char *what, struct ward_error *err)
{
    return error_set(err, WARD_EIO, "%s/writer/state: %s: %s", dir, what, strerror(errno));
}

static void pack(uint8_t out[AUDIT_STATE], const struct audit_state *s)
{
    memcpy(out, magic, sizeof magic);
    audit_put_u64(out + 8, s->segment);
    audit_put_u64(out + 16, s->seq);
    audit_put_u64(out + 24, s->offset);
    audit_put_u64(out + 32, s->utc_ms);
    audit_put_u64(out + 40, s->closed);
    memcpy(out + 48, s->prev, AUDIT_HASH);
    memcpy(out + 80, s->header, AUDIT_HASH);
    memcpy(out + 112, s->content.secret, AUDIT_KEY);
    memcpy(out + 144, s->signing.secret, AUDIT_KEY);
    memcpy(out + 176, s->note_seed, AUDIT_KEY);
    audit_hash(out + CHECKED, out, CHECKED);
}

static bool unpack(struct audit_state *out, const uint8_t in[AUDIT_STATE])
{
    uint8_t hash[AUDIT_HASH];
    audit_hash(hash, in, CHECKED);
    if (memcmp(in, magic, sizeof magic) != 0 || memcmp(in + CHECKED, hash, AUDIT_HASH) != 0)
        return false;
    *out = (struct audit_state){
        .segment = audit_get_u64(in + 8),
        .seq = audit_get_u64(in + 16),
        .offset = audit_get_u64(in + 24),
        .utc_ms = audit_get_u64(in + 32),
        .closed = audit_get_u64(in + 40) != 0,
    };
    memcpy(out->prev, in + 48, AUDIT_HASH);
    memcpy(out->header, in + 80, AUDIT_HASH);
    memcpy(out->content.secret, in + 112, AUDIT_KEY);
    memcpy(out->signing.secret, in + 144, AUDIT_KEY);
    memcpy(out->note_seed, in + 176, AUDIT_KEY);
    return true;
}

static int state_path(char out[PATH_MAX], const char *dir, struct ward_error *err)
{
    if (snprintf(out, PATH_MAX, "%s/writer/state", dir) >= PATH_MAX - 32) /* and other names in the folder fit, too */
        return error_set(err, WARD_EINVAL, "%s: is too long a path", dir);
    return 0;
}

int audit_state_open(int *fd, const char *dir, bool write, struct ward_error *err)
{
    char path[PATH_MAX];
    *fd = -1;
    int rc = state_path(path, dir, err);
    if (rc)
        return rc;
    *fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return *fd < 0 ? fail(dir, "cannot be opened", err) : 0;
}

int audit_state_lock(int fd, int operation, const char *dir, struct ward_error *err)
{
    while (flock(fd, operation))
        if (errno != EINTR)
            return fail(dir, "cannot be locked", err);
    return 0;
}

int audit_state_read(struct audit_state *out, int fd, const char *dir, struct ward_error *err)
{
    uint8_t bytes[AUDIT_STATE];
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    while (n < 0 && errno == EINTR)
        n = pread(fd, bytes, sizeof bytes, 0);
    if (n < 0)
        return fail(dir, "cannot be read", err);
    const bool whole = n == AUDIT_STATE && unpack(out, bytes);
    sodium_memzero(bytes, sizeof bytes);
    return whole ? 0
                 : error_set(err, WARD_EFORMAT, "%s/writer/state: is damaged, so that nothing can be added to this "
                             "log; keep it as it is and begin another with ward audit init", dir);
}

int audit_state_write(const struct audit_state *state, int fd, const char *dir, struct ward_error *err)
{
    uint8_t bytes[AUDIT_STATE];
    pack(bytes, state);
    errno = disk_write(fd, bytes, sizeof bytes, 0);
    sodium_memzero(bytes, sizeof bytes);
    if (errno || fdatasync(fd))
        return fail(dir, "cannot be written", err);
    return 0;
}

int audit_state_create(const struct audit_state *state, const char *dir, struct ward_error *err)
{
    char path[PATH_MAX];
    int rc = state_path(path, dir, err);
    if (rc)
        return rc;
    char *slash = strrchr(path, '/');
    *slash = '\0';
    if (mkdir(path, 0700))
        return error_set(err, WARD_EIO, "%s: cannot be made: %s", path, strerror(errno));
    *slash = '/';
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(dir, "cannot be made", err);
    rc = audit_state_write(state, fd, dir, err);
    close(fd);
    if (!rc) {
        new_file_sync_folder(path);
        new_file_sync_folder(dir);
    }
    return rc;
}

void audit_state_forget(struct audit_state *state)
{
    sodium_memzero(state, sizeof *state);
}

void audit_state_link(const struct audit_state *state, struct audit_link *out)
{
    *out = (struct audit_link){
        .seq = state->seq, .segment = state->segment + state->closed, .header = state->closed,
    };
    audit_ratchet_public(&state->signing, out->key);
    memcpy(out->prev, state->prev, AUDIT_HASH);
}
