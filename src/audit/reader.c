#include "audit/reader.h"

#include "audit/state.h"
#include "base/json.h"
#include "base/mapping.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* ---- what a frame adds ------------------------------------------------------------------------------------------- */

static int bad_place(const char *name, const struct audit_reader *r, size_t offset, const char *what,
                     struct ward_error *err)
{
    return error_set(err, WARD_EFORMAT, "%s: record %llu, at byte %zu: %s", name, (unsigned long long)r->link.seq,
                     offset, what);
}

/* The header says which key signs it: that of the log's first is compared with the anchor, of the others with the
 * record before. */
static int take_header(struct audit_reader *r, const struct audit_frame *frame, const uint8_t *body, const char *name,
                       struct ward_error *err)
{
    int rc = audit_header_parse(&r->summary.header, (const char *)body, frame->length, name, err);
    if (rc)
        return rc;
    if (r->link.seq == 0) {
        memcpy(r->summary.anchor, r->summary.header.key, AUDIT_KEY);
        if (r->anchor && memcmp(r->anchor, r->summary.anchor, AUDIT_KEY) != 0)
            return error_set(err, WARD_EFORMAT, "%s: the log begins with another key than the anchor: it is another "
                             "log, or was written anew", name);
        memcpy(r->link.key, r->summary.anchor, AUDIT_KEY);
    } else if (memcmp(r->link.key, r->summary.header.key, AUDIT_KEY) != 0) {
        return error_set(err, WARD_EFORMAT, "%s: its header names another key than the record before it does", name);
    }
    return 0;
}

static int take_use(struct audit_reader *r, const struct audit_frame *frame, const char *name, size_t offset,
                    struct ward_error *err)
{
    uint64_t *n = &r->summary.open_uses;
    if (frame->type == AUDIT_BEGIN) {
        if ((*n & (*n - 1)) == 0) {
            uint64_t *open = reallocarray(r->open, *n ? 2 * *n : 1, sizeof *open);
            if (!open)
                return error_no_memory(err, name, *n * sizeof *open);
            r->open = open;
        }
        r->open[(*n)++] = frame->seq;
    } else if (frame->type == AUDIT_END) {
        uint64_t i = *n;
        while (i > 0 && r->open[i - 1] != frame->of)
            i--;
        if (i == 0)
            return bad_place(name, r, offset, "it ends a use that did not begin, or has ended before", err);
        memmove(&r->open[i - 1], &r->open[i], (*n - i) * sizeof *r->open);
        (*n)--;
    }
    return 0;
}

static int take_prune(struct audit_reader *r, const struct audit_frame *frame, const uint8_t *body, const char *name,
                      struct ward_error *err)
{
    struct json_document *document;
    int64_t through;
    int rc = json_parse(&document, (const char *)body, frame->length, name, err);
    if (rc)
        return rc;
    if (json_integer(json_get(json_root(document), "through"), 1, (int64_t)r->link.segment, &through) &&
        (uint64_t)through > r->confirmed)
        r->confirmed = (uint64_t)through;
    json_close(&document);
    return 0;
}

/* UTC against the record before, and against the clock that nobody sets where both are of one start of the machine. */
static void compare_clocks(struct audit_reader *r, const struct audit_frame *frame)
{
    struct audit_summary *s = &r->summary;
    const int64_t by_utc = (int64_t)(frame->utc_ms - r->last.utc_ms);
    int64_t expected = 0; /* at least */
    const bool same_boot = !memcmp(frame->boot, r->last.boot, sizeof frame->boot);
    if (same_boot)
        expected = (int64_t)(frame->uptime_ms - r->last.uptime_ms);
    if (by_utc < expected - AUDIT_CLOCK_TOLERANCE) {
        if (!s->set_back++) {
            s->set_back_seq = r->last.seq;
            s->set_back_ms = (uint64_t)(expected - by_utc);
        }
    } else if (same_boot && by_utc > expected + AUDIT_CLOCK_TOLERANCE) {
        s->set_forward++;
    }
}

static int take_frame(struct audit_reader *r, const struct audit_frame *frame, const uint8_t *head,
                      const uint8_t *body, const char *name, size_t offset, struct ward_error *err)
{
    struct audit_summary *s = &r->summary;
    uint8_t leaf[AUDIT_HASH];
    int rc = 0;
    if (frame->type == AUDIT_HEADER && r->link.header)
        rc = take_header(r, frame, body, name, err);
    if (rc)
        return rc;
    struct audit_link after = r->link;
    const char *wrong = audit_link_next(&after, frame, head, body);
    if (wrong)
        return bad_place(name, r, offset, wrong, err);
    rc = take_use(r, frame, name, offset, err);
    if (!rc && frame->type == AUDIT_PRUNE)
        rc = take_prune(r, frame, body, name, err);
    if (rc)
        return rc;
    if (s->tree.n)
        compare_clocks(r, frame);
    else
        s->utc_ms[0] = frame->utc_ms;
    s->utc_ms[1] = frame->utc_ms;
    s->by_type[frame->type]++;
    s->closed = frame->type == AUDIT_CLOSE;
    r->link = after;
    r->last = *frame;
    audit_leaf(leaf, head);
    audit_tree_add(&s->tree, leaf);
    const struct audit_entry entry = {.frame = frame, .head = head, .body = body, .header = &s->header};
    return r->on_entry ? r->on_entry(r->user, &entry, err) : 0;
}

/* ---- a segment --------------------------------------------------------------------------------------------------- */

static int begin_segment(struct audit_reader *r, const uint8_t *bytes, size_t size, const char *name, bool *pruned,
                         struct ward_error *err)
{
    struct audit_summary *s = &r->summary;
    if (s->segments == 0)
        r->link = (struct audit_link){.segment = 1, .header = true};
    if (!r->link.header)
        return error_set(err, WARD_EFORMAT, "%s: follows a segment that was not closed: the end of that one is missing",
                         name);
    *pruned = size >= AUDIT_MAGIC && !memcmp(bytes, audit_magic_pruned, AUDIT_MAGIC);
    if (!*pruned && (size < AUDIT_MAGIC || memcmp(bytes, audit_magic_whole, AUDIT_MAGIC) != 0))
        return error_set(err, WARD_EFORMAT, "%s: does not begin as a segment of an audit log does", name);
    if (*pruned && s->pruned != s->segments)
        return error_set(err, WARD_EFORMAT, "%s: its records were removed, but not those of older segments", name);
    s->segments++;
    s->pruned += *pruned;
    return 0;
}

int audit_read_segment(struct audit_reader *r, const uint8_t *bytes, size_t size, const char *name,
                       struct ward_error *err)
{
    bool pruned = false;
    int rc = begin_segment(r, bytes, size, name, &pruned, err);
    size_t at = AUDIT_MAGIC;
    while (!rc && at < size) {
        struct audit_frame frame;
        if (at > AUDIT_MAGIC && r->link.header)
            return bad_place(name, r, at, "it follows the record that closes its segment", err);
        if (size - at < AUDIT_HEAD)
            return bad_place(name, r, at, "it is incomplete: its writing did not end, or it was cut", err);
        if (!audit_frame_get(&frame, bytes + at))
            return bad_place(name, r, at, "no record begins here", err);
        const bool removed = pruned && audit_type_is_encrypted(frame.type);
        const size_t n_body = removed ? 0 : frame.length;
        if (size - at - AUDIT_HEAD < n_body)
            return bad_place(name, r, at, "it is incomplete: its writing did not end, or it was cut", err);
        rc = take_frame(r, &frame, bytes + at, removed ? NULL : bytes + at + AUDIT_HEAD, name, at, err);
        at += AUDIT_HEAD + n_body;
    }
    if (!rc && at == AUDIT_MAGIC)
        rc = error_set(err, WARD_EFORMAT, "%s: holds no record", name);
    return rc;
}

int audit_read_end(const struct audit_reader *r, const char *dir, struct ward_error *err)
{
    const struct audit_summary *s = &r->summary;
    if (s->pruned > r->confirmed)
        return error_set(err, WARD_EFORMAT, "%s: the records of segment %llu were removed, but no record says that "
                         "retention did it", dir, (unsigned long long)(r->confirmed + 1));
    /* Between the end of a record and that of the state the log is one ahead. */
    if (s->has_state && s->state_seq > s->tree.n)
        return error_set(err, WARD_EFORMAT, "%s: ends after %llu records, but %llu were written: the last are missing",
                         dir, (unsigned long long)s->tree.n, (unsigned long long)s->state_seq);
    if (s->has_state && s->state_seq + 1 < s->tree.n)
        return error_set(err, WARD_EFORMAT, "%s: holds %llu records, but its writer knows of %llu: its state is an "
                         "older one", dir, (unsigned long long)s->tree.n, (unsigned long long)s->state_seq);
    return 0;
}

void audit_reader_clear(struct audit_reader *reader)
{
    free(reader->open);
    reader->open = NULL;
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

/* How many segments there are: 00000001.log and on, none missing, no other name. */
static int count_segments(const char *dir, uint64_t *count, struct ward_error *err)
{
    DIR *folder = opendir(dir);
    if (!folder)
        return error_set(err, WARD_EIO, "%s: cannot be opened: %s", dir, strerror(errno));
    uint64_t n = 0, highest = 0;
    char odd[64] = "";
    for (struct dirent *entry; (entry = readdir(folder));) {
        const size_t length = strlen(entry->d_name);
        if (length < 4 || strcmp(entry->d_name + length - 4, ".log") != 0)
            continue;
        char name[AUDIT_NAME];
        const uint64_t number = strtoull(entry->d_name, NULL, 10);
        audit_segment_name(name, number);
        if (number == 0 || strcmp(name, entry->d_name) != 0)
            snprintf(odd, sizeof odd, "%.60s", entry->d_name);
        n++;
        highest = number > highest ? number : highest;
    }
    closedir(folder);
    *count = n;
    if (*odd)
        return error_set(err, WARD_EFORMAT, "%s: holds %s, which is no segment's name", dir, odd);
    if (n == 0)
        return error_set(err, WARD_EFORMAT, "%s: holds no audit log; ward audit init makes one", dir);
    if (n != highest)
        return error_set(err, WARD_EFORMAT, "%s: %llu of its segments are missing: %llu are there, the last has number "
                         "%llu", dir, (unsigned long long)(highest - n), (unsigned long long)n,
                         (unsigned long long)highest);
    return 0;
}

static int read_file(char **bytes, size_t *size, char path[PATH_MAX], const char *dir, uint64_t segment,
                     struct ward_error *err)
{
    char name[AUDIT_NAME];
    audit_segment_name(name, segment);
    if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
        return error_set(err, WARD_EINVAL, "%s: is too long a path", dir);
    return file_read(bytes, size, path, AUDIT_SEGMENT_LIMIT, err);
}

/* The writer's count, and the end of the log at one moment: where its state may be read, nobody writes meanwhile.
 * Elsewhere the state is not looked at. */
static int read_tail(struct audit_reader *r, const char *dir, uint64_t *count, char **bytes, size_t *size,
                     struct ward_error *err)
{
    int fd;
    char path[PATH_MAX];
    struct audit_state state;
    struct ward_error unused;
    r->summary.has_state = audit_state_open(&fd, dir, false, &unused) == 0;
    int rc = 0;
    if (r->summary.has_state) {
        rc = audit_state_lock(fd, LOCK_SH, dir, err);
        if (!rc)
            rc = audit_state_read(&state, fd, dir, err);
        r->summary.state_seq = rc ? 0 : state.seq;
        audit_state_forget(&state);
    }
    if (!rc)
        rc = count_segments(dir, count, err);
    if (!rc)
        rc = read_file(bytes, size, path, dir, *count, err);
    if (r->summary.has_state)
        close(fd);
    return rc;
}

int audit_read_log(struct audit_reader *r, const char *dir, struct ward_error *err)
{
    uint64_t count = 0;
    char *tail = NULL, *bytes, path[PATH_MAX];
    size_t n_tail = 0, size;
    int rc = read_tail(r, dir, &count, &tail, &n_tail, err);
    for (uint64_t segment = 1; segment <= count && !rc; segment++) {
        bytes = tail;
        size = n_tail;
        if (segment == count)
            snprintf(path, sizeof path, "%s/%08u.log", dir, (unsigned)segment);
        else
            rc = read_file(&bytes, &size, path, dir, segment, err);
        if (!rc)
            rc = audit_read_segment(r, (const uint8_t *)bytes, size, path, err);
        if (bytes != tail)
            free(bytes);
    }
    free(tail);
    return rc ? rc : audit_read_end(r, dir, err);
}
