#include "audit/records.h"

#include <sodium.h>
#include <stdlib.h>

struct decryption {
    const char *dir;
    const struct audit_auditor *auditor;
    audit_record_fn *on_record;
    void *user;
    bool opened; /* this segment's content */
    uint64_t segments_opened;
    struct audit_ratchet content;
};

static int decrypt(struct decryption *d, const struct audit_entry *entry, struct audit_record *record,
                   struct ward_error *err)
{
    char *text;
    size_t length;
    char name[64];
    record->sealed = !d->opened;
    if (!d->opened)
        return 0;
    snprintf(name, sizeof name, "record %llu", (unsigned long long)entry->frame->seq);
    if (!audit_frame_open(entry->head, entry->body, entry->frame->length, &d->content, &text, &length))
        return error_set(err, WARD_EFORMAT, "%s: %s: does not open with the key of its segment", d->dir, name);
    int rc = json_parse(&record->document, text, length, name, err);
    sodium_memzero(text, length);
    free(text);
    return rc;
}

static int on_entry(void *user, const struct audit_entry *entry, struct ward_error *err)
{
    struct decryption *d = user;
    struct audit_record record = {.frame = entry->frame};
    int rc = 0;
    if (entry->frame->type == AUDIT_HEADER) {
        d->opened = audit_header_unseal(entry->header, d->auditor, &d->content);
        d->segments_opened += d->opened;
    } else if (audit_type_is_encrypted(entry->frame->type) && entry->body) {
        rc = decrypt(d, entry, &record, err);
    }
    if (!rc && !audit_type_is_encrypted(entry->frame->type))
        rc = json_parse(&record.document, (const char *)entry->body, entry->frame->length, d->dir, err);
    if (!rc)
        rc = d->on_record(d->user, &record, err);
    json_close(&record.document);
    if (entry->frame->type != AUDIT_HEADER && d->opened)
        audit_ratchet_step(&d->content, audit_for_content);
    return rc;
}

int audit_read_records(const char *dir, const uint8_t *anchor, const struct audit_auditor *auditor,
                       audit_record_fn *on_record, void *user, struct audit_summary *summary, struct ward_error *err)
{
    struct decryption d = {.dir = dir, .auditor = auditor, .on_record = on_record, .user = user};
    struct audit_reader reader = {.anchor = anchor, .on_entry = on_entry, .user = &d};
    int rc = audit_read_log(&reader, dir, err);
    if (!rc && !d.segments_opened)
        rc = error_set(err, WARD_EINVAL, "%s: the key opens none of its %llu segments: they are sealed to other "
                       "auditors", dir, (unsigned long long)reader.summary.segments);
    *summary = reader.summary;
    audit_reader_clear(&reader);
    sodium_memzero(&d.content, sizeof d.content);
    return rc;
}
