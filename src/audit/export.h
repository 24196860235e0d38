/* Uses in the forms that hospitals' audit repositories take. */
#ifndef WARD_AUDIT_EXPORT_H
#define WARD_AUDIT_EXPORT_H

#include "audit/uses.h"

/* A FHIR R4 AuditEvent as an entry of a Bundle, which head begins and tail ends; entries are parted by commas. free()
 * it; NULL when memory ran out. */
char *audit_export_fhir(const struct audit_use *use);
extern const char audit_export_fhir_head[], audit_export_fhir_tail[];

/* An AuditMessage of DICOM PS3.15 A.5, one line of XML. free() it; NULL when memory ran out. */
char *audit_export_atna(const struct audit_use *use);

/* ---- what both say ----------------------------------------------------------------------------------------------- */

/* Objects that took part: the model, images, question, answer, studies. */
enum audit_object_kind { AUDIT_MODEL, AUDIT_IMAGE, AUDIT_QUESTION, AUDIT_ANSWER, AUDIT_STUDY, AUDIT_SERIES,
                         AUDIT_INSTANCE };
struct audit_object {
    enum audit_object_kind kind;
    const char *name; /* "model", "image", ... */
    const char *id;   /* its hash, or its UID */
};
enum { AUDIT_MAX_OBJECTS = 256, AUDIT_ISO_TIME = 28 };

struct audit_facts {
    char begin[AUDIT_ISO_TIME], end[AUDIT_ISO_TIME]; /* end: empty where there is none */
    const char *host, *user, *stated, *program, *command, *outcome; /* never NULL; stated may be empty */
    char uid[24], pid[24];
    const char *code; /* "0", "4", "8": RFC 3881's event outcome */
    size_t n_objects;
    struct audit_object objects[AUDIT_MAX_OBJECTS];
};
/* They point into the use's documents. */
void audit_facts_of(struct audit_facts *out, const struct audit_use *use);
/* "2026-01-31T12:00:00.000Z" */
void audit_iso_time(char out[AUDIT_ISO_TIME], uint64_t utc_ms);

#endif
