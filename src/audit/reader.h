/* Reading a log from its first record to its last, with everything checked on the way: what verify, show, export and
 * checkpoint have in common. */
#ifndef WARD_AUDIT_READER_H
#define WARD_AUDIT_READER_H

#include "audit/checkpoint.h"
#include "audit/keys.h"

struct audit_entry {
    const struct audit_frame *frame;
    const uint8_t *head;               /* [AUDIT_HEAD] as it stands in the file */
    const uint8_t *body;               /* [frame->length]; NULL: removed by retention */
    const struct audit_header *header; /* of its segment */
};
/* Called for every record that was found good, in order. Nonzero ends the walk with that code. */
typedef int audit_entry_fn(void *user, const struct audit_entry *entry, struct ward_error *err);

/* Above this a difference between clocks is somebody's doing, in milliseconds. */
enum { AUDIT_CLOCK_TOLERANCE = 60000 };

struct audit_summary {
    struct audit_tree tree; /* tree.n: the records of all types */
    uint64_t segments, pruned; /* pruned: of them those whose records' bodies retention removed, the first so many */
    uint64_t by_type[AUDIT_TYPES];
    uint64_t open_uses;   /* begun, and not ended: killed, a power cut, or going on */
    bool closed;          /* the last record closes its segment */
    uint64_t utc_ms[2];   /* of the first and the last record */
    uint64_t set_back, set_back_seq, set_back_ms; /* how often the clock was, after which record first, how far */
    uint64_t set_forward;
    uint8_t anchor[AUDIT_KEY];  /* the key that signs the first record: as good as where it was compared */
    struct audit_header header; /* of the last segment */
    bool has_state;       /* the writer's own count could be read */
    uint64_t state_seq;
};

struct audit_reader {
    const uint8_t *anchor;  /* the first public key as the auditor keeps it; NULL: what the log says of itself */
    audit_entry_fn *on_entry; /* may be NULL */
    void *user;
    struct audit_summary summary;
    /* its own */
    struct audit_link link;
    struct audit_frame last;
    uint64_t confirmed; /* the last segment that a record says was pruned */
    uint64_t *open;     /* [summary.open_uses] beginnings */
};

/* Both leave in reader->summary what was read until the end, or until the first bad place, which err names. The reader
 * begins zeroed but for anchor, on_entry and user, and ends with audit_reader_clear. */
WARD_CHECKED int audit_read_log(struct audit_reader *reader, const char *dir, struct ward_error *err);
/* One segment, from memory; `name` is what errors call it. Segments come in order. */
WARD_CHECKED int audit_read_segment(struct audit_reader *reader, const uint8_t *bytes, size_t size, const char *name,
                                    struct ward_error *err);
/* After the last one: what only shows at the end. */
WARD_CHECKED int audit_read_end(const struct audit_reader *reader, const char *dir, struct ward_error *err);
void audit_reader_clear(struct audit_reader *reader);

#endif
