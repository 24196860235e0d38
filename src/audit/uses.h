/* Records put together: a use is its beginning and its end, or a note. What search and export work on. */
#ifndef WARD_AUDIT_USES_H
#define WARD_AUDIT_USES_H

#include "audit/records.h"

struct audit_part { /* one record */
    struct audit_frame frame;
    struct json_document *document; /* NULL: its content cannot be read */
    bool sealed;                    /* because it is for other auditors; else retention removed it */
};

struct audit_use {
    struct audit_part begin; /* or the note */
    struct audit_part end;   /* frame.type 0: it did not end */
};

typedef int audit_use_fn(void *user, const struct audit_use *use, struct ward_error *err);

struct audit_uses { /* begins zeroed but for these; audit_uses_clear ends it */
    audit_use_fn *on_use;
    void *user;
    struct audit_part *open; /* beginnings whose end is to come */
    size_t n, room;
};

/* Takes the record's document. Uses come in the order of their ends. */
WARD_CHECKED int audit_uses_add(struct audit_uses *uses, struct audit_record *record, struct ward_error *err);
/* Those that did not end, after all others. */
WARD_CHECKED int audit_uses_finish(struct audit_uses *uses, struct ward_error *err);
void audit_uses_clear(struct audit_uses *uses);

/* A member of a record, by its path, "user.name"; NULL: absent. */
const struct json *audit_part_get(const struct audit_part *part, const char *path);

#endif
