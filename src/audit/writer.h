/* Adding to a log. Any number of processes may have one open; they take turns by a lock on its state. A record is on
 * disk when the call that adds it returns, and the key that signed and encrypted it is gone. */
#ifndef WARD_AUDIT_WRITER_H
#define WARD_AUDIT_WRITER_H

#include "audit/keys.h"

struct audit_writer;

/* The secret that a new log's keys grow from, and the public key of its first record: the log's anchor. */
void audit_first_key(struct audit_ratchet *signing, uint8_t anchor[AUDIT_KEY]);
/* Makes a log in `dir`, which is made if it is not there, sealed to header's auditors (their public keys and number
 * are set; the rest is filled in). Forgets the secret. */
WARD_CHECKED int audit_create(const char *dir, struct audit_ratchet *signing, struct audit_header *header,
                              struct ward_error *err);

/* Checks that the log can be added to, and mends it: what a crash left of a record is cut off, which becomes a record.
 * Between calls no file is held open; a sandbox has to allow that files below `dir` are made, read and written. */
WARD_CHECKED int audit_writer_open(struct audit_writer **out, const char *dir, struct ward_error *err);
void audit_writer_close(struct audit_writer **writer);

/* Adds a record: JSON, of type AUDIT_BEGIN, AUDIT_END (`of`: its beginning) or AUDIT_NOTE. *seq is its number. A
 * beginning also reserves room on the disk for its end, `room` bytes of text. */
WARD_CHECKED int audit_add(struct audit_writer *writer, enum audit_type type, uint64_t of, const char *text,
                           size_t length, size_t room, uint64_t *seq, struct ward_error *err);
/* Closes the segment and begins the next; auditors (NULL: as before) are who can read it. */
WARD_CHECKED int audit_rotate(struct audit_writer *writer, const struct audit_header *auditors, struct ward_error *err);
/* Removes the content of all records up to the end of segment `through`, which is not the last: what remains of each
 * still proves the rest. */
WARD_CHECKED int audit_prune(struct audit_writer *writer, uint64_t through, struct ward_error *err);
/* The seed of the key that signs checkpoints of `segment`. False in *current: that is not the last segment any more. */
WARD_CHECKED int audit_note_seed(struct audit_writer *writer, uint64_t segment, uint8_t seed[AUDIT_KEY], bool *current,
                                 struct ward_error *err);

#endif
