/* A log as an auditor reads it: checked as audit_read_log does, and decrypted. */
#ifndef WARD_AUDIT_RECORDS_H
#define WARD_AUDIT_RECORDS_H

#include "audit/reader.h"
#include "base/json.h"

struct audit_record {
    const struct audit_frame *frame;
    struct json_document *document; /* its content; NULL: removed by retention, or sealed to other auditors. The
                                       callback may take it, and sets it to NULL then */
    bool sealed; /* to other auditors */
};
typedef int audit_record_fn(void *user, struct audit_record *record, struct ward_error *err);

/* Reads all records with the auditor's key, in order. A key that opens no segment at all is an error, one that opens
 * some is none: `sealed` tells of the others. *summary as audit_read_log leaves it. */
WARD_CHECKED int audit_read_records(const char *dir, const uint8_t *anchor, const struct audit_auditor *auditor,
                                    audit_record_fn *on_record, void *user, struct audit_summary *summary,
                                    struct ward_error *err);

#endif
