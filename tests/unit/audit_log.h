/* A small audit log for tests, and its bytes in memory. */
#ifndef WARD_TESTS_AUDIT_LOG_H
#define WARD_TESTS_AUDIT_LOG_H

#include "audit/records.h"
#include "audit/state.h"
#include "audit/writer.h"
#include "base/mapping.h"
#include "folder.h"

struct log {
    struct folder folder;
    char dir[300];
    struct audit_auditor auditor;
    uint8_t anchor[AUDIT_KEY];
};

static inline void log_must(int rc, const struct ward_error *err)
{
    if (rc) {
        fprintf(stderr, "%s\n", err->text);
        abort();
    }
}

static inline void log_open(struct log *log)
{
    struct audit_header header = {.n_auditors = 1};
    struct audit_ratchet first;
    struct ward_error err;
    log_must(audit_start(&err), &err);
    folder_open(&log->folder);
    snprintf(log->dir, sizeof log->dir, "%s/log", log->folder.path);
    audit_auditor_make(&log->auditor);
    memcpy(header.auditors[0].public_key, log->auditor.public_key, AUDIT_KEY);
    audit_first_key(&first, log->anchor);
    log_must(audit_create(log->dir, &first, &header, &err), &err);
}

static inline void log_close(struct log *log)
{
    folder_close(&log->folder);
}

/* `n` uses, each a beginning and an end; text is what the beginning says. */
static inline void log_add_uses(const struct log *log, int n, const char *text)
{
    struct audit_writer *writer;
    struct ward_error err;
    log_must(audit_writer_open(&writer, log->dir, &err), &err);
    for (int i = 0; i < n; i++) {
        uint64_t begin, end;
        char record[128];
        snprintf(record, sizeof record, "{\"command\":\"test\",\"text\":\"%s\",\"number\":%d}", text, i);
        log_must(audit_add(writer, AUDIT_BEGIN, 0, record, strlen(record), 0, &begin, &err), &err);
        log_must(audit_add(writer, AUDIT_END, begin, "{\"outcome\":\"stop\"}", 18, 0, &end, &err), &err);
    }
    audit_writer_close(&writer);
}

static inline void log_rotate(const struct log *log)
{
    struct audit_writer *writer;
    struct ward_error err;
    log_must(audit_writer_open(&writer, log->dir, &err), &err);
    log_must(audit_rotate(writer, NULL, &err), &err);
    audit_writer_close(&writer);
}

static inline void log_path(char out[400], const struct log *log, const char *name)
{
    snprintf(out, 400, "%s/%s", log->dir, name);
}

/* A segment's bytes; free() them. */
static inline uint8_t *log_read(const struct log *log, const char *name, size_t *size)
{
    char path[400], *bytes;
    struct ward_error err;
    log_path(path, log, name);
    log_must(file_read(&bytes, size, path, AUDIT_SEGMENT_LIMIT, &err), &err);
    return (uint8_t *)bytes;
}

/* In place: state and segments are opened by their names. */
static inline void log_write(const struct log *log, const char *name, const uint8_t *bytes, size_t size)
{
    char path[400];
    log_path(path, log, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file))
        folder_fail("write", path);
}

static inline int log_verify(const struct log *log, bool with_anchor, struct audit_summary *summary,
                             struct ward_error *err)
{
    struct audit_reader reader = {.anchor = with_anchor ? log->anchor : NULL};
    const int rc = audit_read_log(&reader, log->dir, err);
    audit_reader_clear(&reader);
    if (summary)
        *summary = reader.summary;
    return rc;
}

/* One segment from memory, without what only a folder tells. */
static inline int log_verify_bytes(const struct log *log, const uint8_t *bytes, size_t size,
                                   struct audit_summary *summary, struct ward_error *err)
{
    struct audit_reader reader = {.anchor = log->anchor};
    int rc = audit_read_segment(&reader, bytes, size, "segment", err);
    if (!rc)
        rc = audit_read_end(&reader, "segment", err);
    audit_reader_clear(&reader);
    if (summary)
        *summary = reader.summary;
    return rc;
}

/* Where the frames of a segment begin, and where the last one ends. */
static inline size_t log_frames(const uint8_t *bytes, size_t size, size_t at[], size_t room)
{
    size_t n = 0, offset = AUDIT_MAGIC;
    while (offset < size && n + 1 < room) {
        struct audit_frame frame;
        at[n++] = offset;
        if (!audit_frame_get(&frame, bytes + offset))
            abort();
        offset += AUDIT_HEAD + frame.length;
    }
    at[n] = offset;
    return n;
}

#endif
