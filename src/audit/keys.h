/* Auditors' keys: the file that holds one, and the header of a segment, which seals the segment's content to them. */
#ifndef WARD_AUDIT_KEYS_H
#define WARD_AUDIT_KEYS_H

#include "audit/format.h"

enum { AUDIT_SEALED = AUDIT_KEY + 48, AUDIT_KEY_FILE_LIMIT = 1 << 16, AUDIT_PASSPHRASE_LIMIT = 1024 };

/* ---- an auditor's key file --------------------------------------------------------------------------------------- */

struct audit_auditor { /* an X25519 pair */
    uint8_t public_key[AUDIT_KEY];
    uint8_t secret[AUDIT_KEY];
    bool has_anchor;
    uint8_t anchor[AUDIT_KEY]; /* the first public key of the log that the pair was made for */
};

void audit_auditor_make(struct audit_auditor *out);
void audit_auditor_forget(struct audit_auditor *auditor);

/* The file's text, a line of JSON; free() it. passphrase NULL: the secret stands in it as it is. Else it is encrypted
 * with a key by Argon2id, which takes 256 MB and about a second. */
WARD_CHECKED int audit_key_text(char **text, const struct audit_auditor *auditor, const char *passphrase,
                                struct ward_error *err);

/* Asked for a passphrase when a file turns out to need one: fills it, NUL-terminated, or returns nonzero with err. */
typedef int audit_passphrase_fn(char out[AUDIT_PASSPHRASE_LIMIT], const char *name, struct ward_error *err);
WARD_CHECKED int audit_key_parse(struct audit_auditor *out, const char *text, size_t length, const char *name,
                                 audit_passphrase_fn *ask, struct ward_error *err);
/* What of it is public, without a passphrase: the public key, and the anchor if it is there. */
WARD_CHECKED int audit_key_parse_public(struct audit_auditor *out, const char *text, size_t length, const char *name,
                                        struct ward_error *err);

/* ---- the header of a segment ------------------------------------------------------------------------------------- */

struct audit_header {
    uint8_t key[AUDIT_KEY];      /* that signs the header: of the first segment, the log's anchor */
    uint8_t note_key[AUDIT_KEY]; /* that signs checkpoints while the segment is the last */
    int n_auditors;
    struct {
        uint8_t public_key[AUDIT_KEY];
        uint8_t sealed[AUDIT_SEALED]; /* the first secret of the content ratchet, by crypto_box_seal */
    } auditors[AUDIT_MAX_AUDITORS];
};

/* Seals `content` to the auditors, whose public keys are set. False: one is no key of X25519. */
bool audit_header_seal(struct audit_header *header, const struct audit_ratchet *content);
/* False: none of the seals opens with the auditor's key. */
bool audit_header_unseal(const struct audit_header *header, const struct audit_auditor *auditor,
                         struct audit_ratchet *content);

/* As JSON; free() it. */
WARD_CHECKED int audit_header_text(char **text, size_t *length, const struct audit_header *header,
                                   struct ward_error *err);
WARD_CHECKED int audit_header_parse(struct audit_header *out, const char *text, size_t length, const char *name,
                                    struct ward_error *err);

#endif
