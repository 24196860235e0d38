/* The audit log to the byte: frames, the keys that evolve from one to the next, the rules that link them.
 * docs/audit-log.md is the specification; this is its only encoder and decoder. Needs audit_start first. */
#ifndef WARD_AUDIT_FORMAT_H
#define WARD_AUDIT_FORMAT_H

#include "base/error.h"

enum {
    AUDIT_KEY = 32,         /* bytes of a key of any kind, and of a secret */
    AUDIT_HASH = 32,        /* SHA-256 */
    AUDIT_MAGIC = 8,        /* bytes before the first frame of a segment */
    AUDIT_HEAD = 224,       /* bytes of a frame before its body */
    AUDIT_SIGNED = 160,     /* of them those that the signature covers */
    AUDIT_ASSOCIATED = 96,  /* of them those that are authenticated with what is encrypted */
    AUDIT_NONCE = 24,       /* bytes before the ciphertext in a body */
    AUDIT_SEAL_COST = AUDIT_NONCE + 16,
    AUDIT_BODY_LIMIT = 64 << 20,
    AUDIT_SEGMENT_LIMIT = 256 << 20, /* bytes of a file that a reader takes */
    AUDIT_MAX_AUDITORS = 16,
    AUDIT_NAME = 13,        /* "00000001.log" */
};

/* At the beginning of a segment: whole, or without the bodies of its records, which retention removed. */
extern const char audit_magic_whole[AUDIT_MAGIC + 1], audit_magic_pruned[AUDIT_MAGIC + 1];

enum audit_type {
    AUDIT_HEADER = 1, /* the first of a segment: its keys. JSON */
    AUDIT_BEGIN,      /* a use begins: encrypted */
    AUDIT_END,        /* and ends: encrypted; `of` is the sequence number of its beginning */
    AUDIT_NOTE,       /* what is neither, a refusal: encrypted */
    AUDIT_CLOSE,      /* the last of a segment. JSON */
    AUDIT_RECOVERY,   /* bytes that a power cut left were cut off. JSON */
    AUDIT_PRUNE,      /* the bodies of older segments were removed. JSON */
    AUDIT_TYPES
};

struct audit_frame {
    enum audit_type type;
    uint32_t length;  /* of the body */
    uint64_t seq;     /* 0, 1, 2, ... through all segments: also the index of its leaf in the tree */
    uint64_t of;      /* AUDIT_END: the beginning's; else 0 */
    uint64_t segment; /* 1, 2, ... */
    uint64_t utc_ms;  /* since 1970, as the machine's clock said */
    uint64_t uptime_ms; /* since the machine started, sleep included: a clock that nobody sets */
    uint8_t boot[16]; /* the kernel's boot id */
    uint8_t prev[AUDIT_HASH];      /* the leaf of the frame before; zeros for the first */
    uint8_t body_hash[AUDIT_HASH];
    uint8_t next[AUDIT_KEY];       /* public key that signs the next frame */
    uint8_t signature[64];
};

/* Numbers are little-endian. */
static inline void audit_put_u64(uint8_t *out, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t audit_get_u64(const uint8_t *in)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)in[i] << 8 * i;
    return value;
}

/* Once, before anything else here: the cryptography's own start. */
WARD_CHECKED int audit_start(struct ward_error *err);

void audit_frame_put(uint8_t out[AUDIT_HEAD], const struct audit_frame *frame);
/* False: no frame begins here. */
bool audit_frame_get(struct audit_frame *out, const uint8_t in[AUDIT_HEAD]);
bool audit_type_is_encrypted(enum audit_type type);
const char *audit_type_name(enum audit_type type);

/* A leaf of the tree, as RFC 6962 has it, over a frame without its body. */
void audit_leaf(uint8_t out[AUDIT_HASH], const uint8_t head[AUDIT_HEAD]);
void audit_hash(uint8_t out[AUDIT_HASH], const void *data, size_t size);
void audit_segment_name(char out[AUDIT_NAME], uint64_t segment);
/* What names a log: the first 16 hexadecimal digits of the hash of its anchor, and a NUL. */
void audit_log_id(char out[17], const uint8_t anchor[AUDIT_KEY]);
/* 2 * size digits and a NUL; and the reverse, of exactly that many. */
void audit_hex(char *out, const void *bytes, size_t size);
bool audit_unhex(uint8_t *out, size_t size, const char *text, size_t length);

/* ---- keys that evolve -------------------------------------------------------------------------------------------- */

/* A secret from which the key of this frame and the secret of the next are derived; neither leads back. */
struct audit_ratchet {
    uint8_t secret[AUDIT_KEY];
};
extern const char audit_for_content[9], audit_for_signing[9]; /* crypto_kdf's contexts */
void audit_ratchet_key(const struct audit_ratchet *r, const char context[9], uint8_t key[AUDIT_KEY]);
void audit_ratchet_step(struct audit_ratchet *r, const char context[9]);
/* The public key that the signing ratchet stands at. */
void audit_ratchet_public(const struct audit_ratchet *signing, uint8_t public_key[AUDIT_KEY]);

/* ---- making and opening a frame ---------------------------------------------------------------------------------- */

/* Completes frame (type, seq, of, segment, times and prev are set) with its body, which is encrypted if its type is,
 * and signs it. Both ratchets are those of this frame, left as they are. out: the whole frame, *size bytes; free()
 * it. */
WARD_CHECKED int audit_frame_make(struct audit_frame *frame, const void *text, size_t length,
                                  const struct audit_ratchet *content, const struct audit_ratchet *signing,
                                  uint8_t **out, size_t *size, struct ward_error *err);
/* Decrypts a body into text, free() it. False: it does not open with this key. */
bool audit_frame_open(const uint8_t head[AUDIT_HEAD], const uint8_t *body, size_t length,
                      const struct audit_ratchet *content, char **text, size_t *text_length);

/* ---- what links frames ------------------------------------------------------------------------------------------- */

struct audit_link { /* what the next frame must be */
    uint8_t key[AUDIT_KEY];  /* that signs it */
    uint8_t prev[AUDIT_HASH];
    uint64_t seq, segment;
    bool header; /* the header of a segment is due */
};

/* Checks the frame at `head` and its body (NULL: removed by retention) against what is due and advances. Returns NULL,
 * or what is wrong, as the end of a sentence. */
const char *audit_link_next(struct audit_link *link, const struct audit_frame *frame, const uint8_t head[AUDIT_HEAD],
                            const uint8_t *body);

#endif
