/* The writer's evolving secret: DIR/writer/state, 240 bytes, overwritten in place so that what it held before is gone.
 * They lie within one sector of a disk, which is written whole or not at all. */
#ifndef WARD_AUDIT_STATE_H
#define WARD_AUDIT_STATE_H

#include "audit/format.h"

enum { AUDIT_STATE = 240 };

struct audit_state {
    uint64_t segment; /* the last one */
    uint64_t seq;     /* of the next frame */
    uint64_t offset;  /* bytes of the last segment's file */
    uint64_t utc_ms;  /* of the last frame */
    bool closed;      /* the last segment is, the next is not there yet */
    uint8_t prev[AUDIT_HASH];   /* leaf of the last frame */
    uint8_t header[AUDIT_HASH]; /* leaf of the last segment's header */
    struct audit_ratchet content, signing; /* of the next frame */
    uint8_t note_seed[AUDIT_KEY];          /* signs checkpoints while this segment is the last */
};

/* Opens DIR/writer/state, to read, or with `write` to write. *fd is -1 after a failure. */
WARD_CHECKED int audit_state_open(int *fd, const char *dir, bool write, struct ward_error *err);
/* flock's LOCK_EX, LOCK_SH or LOCK_UN; waits. */
WARD_CHECKED int audit_state_lock(int fd, int operation, const char *dir, struct ward_error *err);
WARD_CHECKED int audit_state_read(struct audit_state *out, int fd, const char *dir, struct ward_error *err);
/* On disk when it returns. */
WARD_CHECKED int audit_state_write(const struct audit_state *state, int fd, const char *dir, struct ward_error *err);
/* Makes DIR/writer and the file in it, neither of which may be there. */
WARD_CHECKED int audit_state_create(const struct audit_state *state, const char *dir, struct ward_error *err);
void audit_state_forget(struct audit_state *state);
/* What is due after the last frame. */
void audit_state_link(const struct audit_state *state, struct audit_link *out);

#endif
