/* The tree over a log's records (RFC 6962) and its signed heads, as the notes of C2SP: tlog-checkpoint, signed-note. */
#ifndef WARD_AUDIT_CHECKPOINT_H
#define WARD_AUDIT_CHECKPOINT_H

#include "audit/format.h"

/* A growing tree: of each complete subtree that it consists of, the root, the largest first. */
struct audit_tree {
    uint64_t n; /* leaves */
    uint8_t roots[64][AUDIT_HASH];
};
void audit_tree_add(struct audit_tree *tree, const uint8_t leaf[AUDIT_HASH]);
void audit_tree_root(const struct audit_tree *tree, uint8_t out[AUDIT_HASH]);

enum { AUDIT_CHECKPOINT_LIMIT = 1 << 16, AUDIT_ORIGIN = 28, AUDIT_CHECKPOINT_ROOM = 512, AUDIT_VERIFIER_ROOM = 112 };

struct audit_checkpoint {
    char origin[AUDIT_ORIGIN]; /* "ward-audit/" and the log's id */
    uint64_t size;             /* records, headers and all */
    uint8_t root[AUDIT_HASH];
};

void audit_checkpoint_origin(char out[AUDIT_ORIGIN], const uint8_t anchor[AUDIT_KEY]);
/* The note's text, NUL-terminated, signed with the pair that grows from `seed`. */
void audit_checkpoint_sign(char out[AUDIT_CHECKPOINT_ROOM], const struct audit_checkpoint *checkpoint,
                           const uint8_t seed[AUDIT_KEY]);
/* Reads a note; who signed it is not judged yet. */
WARD_CHECKED int audit_checkpoint_parse(struct audit_checkpoint *out, const char *text, size_t length,
                                        const char *name, struct ward_error *err);
/* Whether one of the note's signatures is by this key under the note's origin as its name. Lines of other keys, a
 * witness's, are passed over. */
bool audit_checkpoint_is_signed(const struct audit_checkpoint *checkpoint, const char *text, size_t length,
                                const uint8_t note_key[AUDIT_KEY]);
/* The key as the tools of others take it: NAME+ID+BASE64. */
void audit_checkpoint_verifier(char out[AUDIT_VERIFIER_ROOM], const char *origin, const uint8_t note_key[AUDIT_KEY]);

#endif
