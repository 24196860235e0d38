#include "audit/writer.h"

#include "audit/state.h"
#include "base/disk.h"
#include "base/mapping.h"
#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SEGMENT_SIZE = 16 << 20, /* a segment that has grown to this is closed by the next record */
    TEXT_PAD = 256,          /* records are a multiple of this long, so that their length tells less */
    ROOM = 1 << 16,          /* reserved behind a beginning besides what the caller asks for */
};

/* Files are open only during a turn: none is inherited or kept over the lock of the program. */
struct audit_writer {
    char *dir;
    int state_fd, segment_fd; /* -1 between turns */
    uint8_t boot[16];
};

static int fail_segment(const struct audit_writer *w, uint64_t segment, const char *what, int error,
                        struct ward_error *err)
{
    char name[AUDIT_NAME];
    audit_segment_name(name, segment);
    return error_set(err, WARD_EIO, "%s/%s: %s: %s", w->dir, name, what, strerror(error));
}

static void path_in(char out[PATH_MAX], const char *dir, const char *name)
{
    snprintf(out, PATH_MAX, "%s/%s", dir, name); /* audit_state_open has refused a longer path */
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static void read_boot_id(uint8_t out[16])
{
    char text[64] = "", digits[33];
    size_t n = 0;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (file) {
        if (!fgets(text, sizeof text, file))
            text[0] = '\0';
        fclose(file);
    }
    for (const char *c = text; *c && n < 32; c++)
        if (*c != '-')
            digits[n++] = *c;
    if (!audit_unhex(out, 16, digits, n))
        memset(out, 0, 16);
}

static uint64_t clock_now(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The frame that comes next, but for its body. */
static struct audit_frame next_frame(const struct audit_writer *w, const struct audit_state *s, enum audit_type type,
                                     uint64_t of)
{
    struct audit_frame frame = {
        .type = type, .seq = s->seq, .of = of, .segment = s->segment + s->closed,
        .utc_ms = clock_now(CLOCK_REALTIME), .uptime_ms = clock_now(CLOCK_BOOTTIME),
    };
    memcpy(frame.boot, w->boot, sizeof frame.boot);
    memcpy(frame.prev, s->prev, AUDIT_HASH);
    return frame;
}

/* The state after a frame that lies in the segment. */
static void advance(struct audit_state *s, const struct audit_frame *frame, const uint8_t head[AUDIT_HEAD])
{
    audit_leaf(s->prev, head);
    s->seq++;
    s->offset += AUDIT_HEAD + frame->length;
    s->utc_ms = frame->utc_ms;
    s->closed = frame->type == AUDIT_CLOSE;
    audit_ratchet_step(&s->content, audit_for_content);
    audit_ratchet_step(&s->signing, audit_for_signing);
}

/* Appends a frame to the open segment: on disk first, then the key goes. */
static int append(struct audit_writer *w, struct audit_state *s, enum audit_type type, uint64_t of, const char *text,
                  size_t length, struct ward_error *err)
{
    struct audit_frame frame = next_frame(w, s, type, of);
    uint8_t *bytes;
    size_t size;
    int rc = audit_frame_make(&frame, text, length, &s->content, &s->signing, &bytes, &size, err);
    if (rc)
        return rc;
    int error = disk_write(w->segment_fd, bytes, size, s->offset);
    if (!error && fdatasync(w->segment_fd))
        error = errno;
    if (error) {
        (void)!ftruncate(w->segment_fd, (off_t)s->offset); /* else the next to come mends it */
        rc = fail_segment(w, s->segment, "cannot be written", error, err);
    } else {
        advance(s, &frame, bytes);
        rc = audit_state_write(s, w->state_fd, w->dir, err);
    }
    free(bytes);
    return rc;
}

/* ---- segments ---------------------------------------------------------------------------------------------------- */

/* Writes a file whole under a segment's name, with the rights of the state's file. It is made with them: a program that
 * is locked (offline/) cannot change them afterwards. */
static int put_segment(const struct audit_writer *w, uint64_t segment, const char *magic, const uint8_t *bytes,
                       size_t size, struct ward_error *err)
{
    char path[PATH_MAX], name[AUDIT_NAME];
    struct new_file file;
    struct stat st;
    audit_segment_name(name, segment);
    path_in(path, w->dir, name);
    if (fstat(w->state_fd, &st))
        return fail_segment(w, segment, "cannot be written", errno, err);
    const mode_t before = umask(0666 & ~st.st_mode);
    int rc = new_file_open(&file, path, err);
    umask(before);
    if (rc)
        return rc;
    rc = new_file_write(&file, magic, AUDIT_MAGIC, err);
    if (!rc)
        rc = new_file_write(&file, bytes, size, err);
    if (!rc)
        rc = new_file_sync(&file, err);
    if (!rc)
        return new_file_commit(&file, err);
    new_file_discard(&file);
    return rc;
}

/* The segment after a closed one, or the first. Its content is sealed to header's auditors. */
static int start_segment(struct audit_writer *w, struct audit_state *s, struct audit_header *header,
                         struct ward_error *err)
{
    struct audit_state after = *s;
    uint8_t note_secret[crypto_sign_SECRETKEYBYTES], *bytes = NULL;
    char *text = NULL;
    size_t length, size;
    randombytes_buf(after.content.secret, AUDIT_KEY);
    randombytes_buf(after.note_seed, AUDIT_KEY);
    crypto_sign_seed_keypair(header->note_key, note_secret, after.note_seed);
    sodium_memzero(note_secret, sizeof note_secret);
    audit_ratchet_public(&s->signing, header->key);
    int rc = 0;
    if (!audit_header_seal(header, &after.content))
        rc = error_set(err, WARD_EINVAL, "%s: an auditor's public key is none that anything can be sealed to", w->dir);
    if (!rc)
        rc = audit_header_text(&text, &length, header, err);
    struct audit_frame frame = next_frame(w, s, AUDIT_HEADER, 0);
    if (!rc)
        rc = audit_frame_make(&frame, text, length, NULL, &s->signing, &bytes, &size, err);
    if (!rc)
        rc = put_segment(w, frame.segment, audit_magic_whole, bytes, size, err);
    if (!rc) {
        struct audit_ratchet content = after.content; /* the header uses none of it */
        after.segment = frame.segment;
        after.offset = AUDIT_MAGIC;
        advance(&after, &frame, bytes);
        after.content = content;
        memcpy(after.header, after.prev, AUDIT_HASH);
        sodium_memzero(&content, sizeof content);
        *s = after;
    }
    audit_state_forget(&after);
    free(bytes);
    free(text);
    return rc;
}

/* Whom the last segment is sealed to: its header, if it is the one that was written. */
static int read_header(const struct audit_writer *w, const struct audit_state *s, struct audit_header *out,
                       struct ward_error *err)
{
    char path[PATH_MAX], name[AUDIT_NAME], *bytes;
    size_t size;
    uint8_t leaf[AUDIT_HASH], hash[AUDIT_HASH];
    struct audit_frame frame;
    audit_segment_name(name, s->segment);
    path_in(path, w->dir, name);
    int rc = file_read(&bytes, &size, path, AUDIT_SEGMENT_LIMIT, err);
    if (rc)
        return rc;
    const uint8_t *head = (const uint8_t *)bytes + AUDIT_MAGIC, *body = head + AUDIT_HEAD;
    bool whole = size >= AUDIT_MAGIC + AUDIT_HEAD && audit_frame_get(&frame, head) &&
                 size - AUDIT_MAGIC - AUDIT_HEAD >= frame.length;
    if (whole) {
        audit_leaf(leaf, head);
        audit_hash(hash, body, frame.length);
        whole = !memcmp(leaf, s->header, AUDIT_HASH) && !memcmp(hash, frame.body_hash, AUDIT_HASH);
    }
    rc = whole ? audit_header_parse(out, (const char *)body, frame.length, path, err)
               : error_set(err, WARD_EFORMAT, "%s: its header is not the one that was written", path);
    free(bytes);
    return rc;
}

static int open_segment(struct audit_writer *w, const struct audit_state *s, struct ward_error *err)
{
    char path[PATH_MAX], name[AUDIT_NAME];
    audit_segment_name(name, s->segment);
    path_in(path, w->dir, name);
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fail_segment(w, s->segment, "cannot be opened", errno, err);
    if (w->segment_fd >= 0)
        close(w->segment_fd);
    w->segment_fd = fd;
    return 0;
}

/* ---- after a crash ----------------------------------------------------------------------------------------------- */

/* Bytes of the segment beyond what the state knows of. */
static int read_rest(const struct audit_writer *w, const struct audit_state *s, uint8_t **rest, size_t *size,
                     struct ward_error *err)
{
    struct stat st;
    *rest = NULL;
    if (fstat(w->segment_fd, &st))
        return fail_segment(w, s->segment, "cannot be read", errno, err);
    if ((uint64_t)st.st_size < s->offset)
        return error_set(err, WARD_EFORMAT, "%s/%08u.log: holds %lld bytes of the %llu that were written: records were "
                         "removed. Keep it as it is and begin another log with ward audit init", w->dir,
                         (unsigned)s->segment, (long long)st.st_size, (unsigned long long)s->offset);
    *size = (size_t)((uint64_t)st.st_size - s->offset);
    if (!*size)
        return 0;
    if (*size > AUDIT_SEGMENT_LIMIT)
        return error_set(err, WARD_EFORMAT, "%s/%08u.log: %zu bytes were added to it by something else", w->dir,
                         (unsigned)s->segment, *size);
    *rest = malloc(*size);
    if (!*rest)
        return error_no_memory(err, w->dir, *size);
    const int error = disk_read(w->segment_fd, *rest, *size, s->offset);
    return error ? fail_segment(w, s->segment, "cannot be read", error, err) : 0;
}

/* Takes over the records that are whole, which the state had not been told of. Returns the bytes they take. */
static size_t accept_records(struct audit_state *s, const uint8_t *rest, size_t size)
{
    size_t at = 0;
    struct audit_link link;
    audit_state_link(s, &link);
    while (!s->closed && size - at >= AUDIT_HEAD) {
        struct audit_frame frame;
        if (!audit_frame_get(&frame, rest + at) || size - at - AUDIT_HEAD < frame.length ||
            audit_link_next(&link, &frame, rest + at, rest + at + AUDIT_HEAD))
            break;
        advance(s, &frame, rest + at);
        at += AUDIT_HEAD + frame.length;
    }
    return at;
}

static int mend(struct audit_writer *w, struct audit_state *s, struct ward_error *err)
{
    uint8_t *rest, hash[AUDIT_HASH];
    size_t size = 0;
    int rc = read_rest(w, s, &rest, &size, err);
    if (rc || !size) {
        free(rest);
        return rc;
    }
    const size_t whole = accept_records(s, rest, size);
    audit_hash(hash, rest + whole, size - whole);
    free(rest);
    if (whole) {
        if (fdatasync(w->segment_fd))
            return fail_segment(w, s->segment, "cannot be written", errno, err);
        rc = audit_state_write(s, w->state_fd, w->dir, err);
    }
    if (rc || whole == size)
        return rc;
    if (ftruncate(w->segment_fd, (off_t)s->offset))
        return fail_segment(w, s->segment, "cannot be mended", errno, err);
    if (s->closed)
        return 0; /* bytes behind a closed segment were nobody's record */
    char text[160], digits[2 * AUDIT_HASH + 1];
    audit_hex(digits, hash, sizeof hash);
    const int n = snprintf(text, sizeof text, "{\"cut\":%zu,\"sha256\":\"%s\"}", size - whole, digits);
    return append(w, s, AUDIT_RECOVERY, 0, text, (size_t)n, err);
}

/* ---- a turn at the log ------------------------------------------------------------------------------------------- */

/* Until end_turn nobody else writes. Afterwards a segment is open, sound to its end and has room. */
static int begin_turn(struct audit_writer *w, struct audit_state *s, struct ward_error *err)
{
    struct audit_header header;
    int rc = audit_state_open(&w->state_fd, w->dir, true, err);
    if (!rc)
        rc = audit_state_lock(w->state_fd, LOCK_EX, w->dir, err);
    if (!rc)
        rc = audit_state_read(s, w->state_fd, w->dir, err);
    if (!rc)
        rc = open_segment(w, s, err);
    if (!rc)
        rc = mend(w, s, err);
    if (!rc && s->closed) { /* by one who came no further */
        rc = read_header(w, s, &header, err);
        if (!rc)
            rc = start_segment(w, s, &header, err);
        if (!rc)
            rc = audit_state_write(s, w->state_fd, w->dir, err);
        if (!rc)
            rc = open_segment(w, s, err);
    }
    return rc;
}

static void end_turn(struct audit_writer *w, struct audit_state *s)
{
    audit_state_forget(s);
    if (w->segment_fd >= 0)
        close(w->segment_fd);
    if (w->state_fd >= 0)
        close(w->state_fd); /* and with it the lock goes */
    w->segment_fd = w->state_fd = -1;
}

static int rotate(struct audit_writer *w, struct audit_state *s, const struct audit_header *auditors,
                  struct ward_error *err)
{
    struct audit_header header;
    char text[48];
    int rc = 0;
    if (auditors)
        header = *auditors;
    else
        rc = read_header(w, s, &header, err);
    if (rc)
        return rc;
    const int n = snprintf(text, sizeof text, "{\"records\":%llu}", (unsigned long long)s->seq + 1);
    rc = append(w, s, AUDIT_CLOSE, 0, text, (size_t)n, err);
    if (!rc)
        (void)!ftruncate(w->segment_fd, (off_t)s->offset); /* gives back what was reserved */
    if (!rc)
        rc = start_segment(w, s, &header, err);
    if (!rc)
        rc = audit_state_write(s, w->state_fd, w->dir, err);
    return rc ? rc : open_segment(w, s, err);
}

int audit_add(struct audit_writer *w, enum audit_type type, uint64_t of, const char *text, size_t length, size_t room,
              uint64_t *seq, struct ward_error *err)
{
    const size_t padded = (length + TEXT_PAD - 1) / TEXT_PAD * TEXT_PAD;
    struct audit_state s = {0};
    char *copy = malloc(padded + 1);
    if (!copy)
        return error_no_memory(err, "an audit record", padded);
    memcpy(copy, text, length);
    memset(copy + length, ' ', padded - length);
    int rc = begin_turn(w, &s, err);
    if (!rc && s.offset >= SEGMENT_SIZE)
        rc = rotate(w, &s, NULL, err);
    if (!rc && type == AUDIT_BEGIN &&
        fallocate(w->segment_fd, FALLOC_FL_KEEP_SIZE, (off_t)s.offset, (off_t)(2 * padded + room + ROOM)) &&
        errno != EOPNOTSUPP && errno != ENOSYS)
        rc = fail_segment(w, s.segment, "has no room for a record", errno, err);
    *seq = s.seq;
    if (!rc)
        rc = append(w, &s, type, of, copy, padded, err);
    end_turn(w, &s);
    sodium_memzero(copy, padded);
    free(copy);
    return rc;
}

int audit_rotate(struct audit_writer *w, const struct audit_header *auditors, struct ward_error *err)
{
    struct audit_state s = {0};
    int rc = begin_turn(w, &s, err);
    if (!rc)
        rc = rotate(w, &s, auditors, err);
    end_turn(w, &s);
    return rc;
}

int audit_note_seed(struct audit_writer *w, uint64_t segment, uint8_t seed[AUDIT_KEY], bool *current,
                    struct ward_error *err)
{
    struct audit_state s = {0};
    int rc = begin_turn(w, &s, err);
    *current = s.segment == segment;
    memcpy(seed, s.note_seed, AUDIT_KEY);
    end_turn(w, &s);
    return rc;
}

/* ---- retention --------------------------------------------------------------------------------------------------- */

/* The segment again without the bodies that are encrypted. */
static int prune_segment(struct audit_writer *w, uint64_t segment, struct ward_error *err)
{
    char path[PATH_MAX], name[AUDIT_NAME], *bytes;
    size_t size, at = AUDIT_MAGIC, kept = 0;
    audit_segment_name(name, segment);
    path_in(path, w->dir, name);
    int rc = file_read(&bytes, &size, path, AUDIT_SEGMENT_LIMIT, err);
    if (rc)
        return rc;
    uint8_t *out = (uint8_t *)bytes;
    if (size < AUDIT_MAGIC || memcmp(bytes, audit_magic_whole, AUDIT_MAGIC) != 0) {
        free(bytes);
        return 0; /* pruned before */
    }
    while (!rc && at < size) {
        struct audit_frame frame;
        if (size - at < AUDIT_HEAD || !audit_frame_get(&frame, out + at) || size - at - AUDIT_HEAD < frame.length) {
            rc = error_set(err, WARD_EFORMAT, "%s: no record at byte %zu", path, at);
            break;
        }
        const size_t n = AUDIT_HEAD + (audit_type_is_encrypted(frame.type) ? 0 : frame.length);
        memmove(out + kept, out + at, n);
        at += AUDIT_HEAD + frame.length;
        kept += n;
    }
    if (!rc)
        rc = put_segment(w, segment, audit_magic_pruned, out, kept, err);
    free(bytes);
    return rc;
}

int audit_prune(struct audit_writer *w, uint64_t through, struct ward_error *err)
{
    struct audit_state s = {0};
    char text[48];
    int rc = begin_turn(w, &s, err);
    if (!rc && (through == 0 || through >= s.segment))
        rc = error_set(err, WARD_EINVAL, "%s: segment %llu is not closed", w->dir, (unsigned long long)through);
    const int n = snprintf(text, sizeof text, "{\"through\":%llu}", (unsigned long long)through);
    if (!rc)
        rc = append(w, &s, AUDIT_PRUNE, 0, text, (size_t)n, err);
    for (uint64_t segment = 1; segment <= through && !rc; segment++)
        rc = prune_segment(w, segment, err);
    end_turn(w, &s);
    return rc;
}

/* ---- opening and making ------------------------------------------------------------------------------------------ */

static struct audit_writer *new_writer(const char *dir, struct ward_error *err)
{
    struct audit_writer *w = calloc(1, sizeof *w);
    if (!w || !(w->dir = strdup(dir))) {
        free(w);
        (void)error_no_memory(err, dir, sizeof *w);
        return NULL;
    }
    w->state_fd = w->segment_fd = -1;
    read_boot_id(w->boot);
    return w;
}

int audit_writer_open(struct audit_writer **out, const char *dir, struct ward_error *err)
{
    struct audit_state s = {0};
    *out = NULL;
    struct audit_writer *w = new_writer(dir, err);
    if (!w)
        return WARD_ENOMEM;
    int rc = begin_turn(w, &s, err);
    end_turn(w, &s);
    if (rc)
        audit_writer_close(&w);
    *out = w;
    return rc;
}

void audit_writer_close(struct audit_writer **writer)
{
    struct audit_writer *w = *writer;
    if (!w)
        return;
    free(w->dir);
    free(w);
    *writer = NULL;
}

void audit_first_key(struct audit_ratchet *signing, uint8_t anchor[AUDIT_KEY])
{
    randombytes_buf(signing->secret, AUDIT_KEY);
    audit_ratchet_public(signing, anchor);
}

/* Before there is anything the state holds the first signing secret and a segment 0 that is closed. */
int audit_create(const char *dir, struct audit_ratchet *signing, struct audit_header *header, struct ward_error *err)
{
    char path[PATH_MAX], name[AUDIT_NAME];
    struct audit_state s = {.closed = true, .signing = *signing};
    sodium_memzero(signing, sizeof *signing);
    if (mkdir(dir, 0700) && errno != EEXIST)
        return error_set(err, WARD_EIO, "%s: cannot be made: %s", dir, strerror(errno));
    audit_segment_name(name, 1);
    path_in(path, dir, name);
    if (file_exists(path))
        return error_set(err, WARD_EINVAL, "%s: holds an audit log already", dir);
    struct audit_writer *w = new_writer(dir, err);
    if (!w)
        return WARD_ENOMEM;
    int rc = audit_state_create(&s, dir, err);
    if (!rc)
        rc = audit_state_open(&w->state_fd, dir, true, err);
    if (!rc)
        rc = start_segment(w, &s, header, err);
    if (!rc)
        rc = audit_state_write(&s, w->state_fd, dir, err);
    end_turn(w, &s);
    audit_writer_close(&w);
    return rc;
}
