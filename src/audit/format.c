#include "audit/format.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char audit_magic_whole[AUDIT_MAGIC + 1] = "ward-log", audit_magic_pruned[AUDIT_MAGIC + 1] = "ward-cut";
const char audit_for_content[9] = "ward-rec", audit_for_signing[9] = "ward-sig";

static const uint8_t frame_magic[3] = {'W', 'A', '1'};

int audit_start(struct ward_error *err)
{
    if (sodium_init() < 0)
        return error_set(err, WARD_EIO, "the cryptography cannot start: the system gives no random numbers");
    return 0;
}

/* ---- a frame as bytes -------------------------------------------------------------------------------------------- */

void audit_frame_put(uint8_t out[AUDIT_HEAD], const struct audit_frame *frame)
{
    memcpy(out, frame_magic, 3);
    out[3] = (uint8_t)frame->type;
    for (int i = 0; i < 4; i++)
        out[4 + i] = (uint8_t)(frame->length >> 8 * i);
    audit_put_u64(out + 8, frame->seq);
    audit_put_u64(out + 16, frame->of);
    audit_put_u64(out + 24, frame->segment);
    audit_put_u64(out + 32, frame->utc_ms);
    audit_put_u64(out + 40, frame->uptime_ms);
    memcpy(out + 48, frame->boot, 16);
    memcpy(out + 64, frame->prev, AUDIT_HASH);
    memcpy(out + 96, frame->body_hash, AUDIT_HASH);
    memcpy(out + 128, frame->next, AUDIT_KEY);
    memcpy(out + 160, frame->signature, 64);
}

bool audit_frame_get(struct audit_frame *out, const uint8_t in[AUDIT_HEAD])
{
    *out = (struct audit_frame){
        .type = in[3],
        .length = (uint32_t)in[4] | (uint32_t)in[5] << 8 | (uint32_t)in[6] << 16 | (uint32_t)in[7] << 24,
        .seq = audit_get_u64(in + 8),
        .of = audit_get_u64(in + 16),
        .segment = audit_get_u64(in + 24),
        .utc_ms = audit_get_u64(in + 32),
        .uptime_ms = audit_get_u64(in + 40),
    };
    memcpy(out->boot, in + 48, 16);
    memcpy(out->prev, in + 64, AUDIT_HASH);
    memcpy(out->body_hash, in + 96, AUDIT_HASH);
    memcpy(out->next, in + 128, AUDIT_KEY);
    memcpy(out->signature, in + 160, 64);
    return !memcmp(in, frame_magic, 3) && out->type >= AUDIT_HEADER && out->type < AUDIT_TYPES &&
           out->length <= AUDIT_BODY_LIMIT;
}

bool audit_type_is_encrypted(enum audit_type type)
{
    return type == AUDIT_BEGIN || type == AUDIT_END || type == AUDIT_NOTE;
}

const char *audit_type_name(enum audit_type type)
{
    static const char *const names[AUDIT_TYPES] = {NULL,   "header", "begin",    "end",
                                                   "note", "close",  "recovery", "prune"};
    return names[type];
}

void audit_leaf(uint8_t out[AUDIT_HASH], const uint8_t head[AUDIT_HEAD])
{
    uint8_t leaf[1 + AUDIT_HEAD];
    leaf[0] = 0;
    memcpy(leaf + 1, head, AUDIT_HEAD);
    audit_hash(out, leaf, sizeof leaf);
}

void audit_hash(uint8_t out[AUDIT_HASH], const void *data, size_t size)
{
    crypto_hash_sha256(out, data, size);
}

void audit_segment_name(char out[AUDIT_NAME], uint64_t segment)
{
    snprintf(out, AUDIT_NAME, "%08u.log", (unsigned)(segment % 100000000));
}

void audit_log_id(char out[17], const uint8_t anchor[AUDIT_KEY])
{
    uint8_t hash[AUDIT_HASH];
    audit_hash(hash, anchor, AUDIT_KEY);
    audit_hex(out, hash, 8);
}

void audit_hex(char *out, const void *bytes, size_t size)
{
    sodium_bin2hex(out, 2 * size + 1, bytes, size);
}

bool audit_unhex(uint8_t *out, size_t size, const char *text, size_t length)
{
    size_t n;
    const char *end;
    return length == 2 * size && !sodium_hex2bin(out, size, text, length, NULL, &n, &end) && n == size &&
           end == text + length;
}

/* ---- keys that evolve -------------------------------------------------------------------------------------------- */

void audit_ratchet_key(const struct audit_ratchet *r, const char context[9], uint8_t key[AUDIT_KEY])
{
    crypto_kdf_derive_from_key(key, AUDIT_KEY, 1, context, r->secret);
}

void audit_ratchet_step(struct audit_ratchet *r, const char context[9])
{
    uint8_t next[AUDIT_KEY];
    crypto_kdf_derive_from_key(next, AUDIT_KEY, 2, context, r->secret);
    memcpy(r->secret, next, AUDIT_KEY);
    sodium_memzero(next, sizeof next);
}

static void signing_pair(const struct audit_ratchet *signing, uint8_t public_key[AUDIT_KEY],
                         uint8_t secret[crypto_sign_SECRETKEYBYTES])
{
    uint8_t seed[AUDIT_KEY];
    audit_ratchet_key(signing, audit_for_signing, seed);
    crypto_sign_seed_keypair(public_key, secret, seed);
    sodium_memzero(seed, sizeof seed);
}

void audit_ratchet_public(const struct audit_ratchet *signing, uint8_t public_key[AUDIT_KEY])
{
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    signing_pair(signing, public_key, secret);
    sodium_memzero(secret, sizeof secret);
}

/* ---- making and opening a frame ---------------------------------------------------------------------------------- */

static void sign_frame(struct audit_frame *frame, const struct audit_ratchet *signing, uint8_t head[AUDIT_HEAD])
{
    uint8_t public_key[AUDIT_KEY], secret[crypto_sign_SECRETKEYBYTES];
    struct audit_ratchet after = *signing;
    audit_ratchet_step(&after, audit_for_signing);
    audit_ratchet_public(&after, frame->next);
    sodium_memzero(&after, sizeof after);
    audit_frame_put(head, frame);
    signing_pair(signing, public_key, secret);
    crypto_sign_detached(frame->signature, NULL, head, AUDIT_SIGNED, secret);
    sodium_memzero(secret, sizeof secret);
    audit_frame_put(head, frame);
}

int audit_frame_make(struct audit_frame *frame, const void *text, size_t length, const struct audit_ratchet *content,
                     const struct audit_ratchet *signing, uint8_t **out, size_t *size, struct ward_error *err)
{
    const bool encrypted = audit_type_is_encrypted(frame->type);
    *out = NULL;
    *size = AUDIT_HEAD + length + (encrypted ? AUDIT_SEAL_COST : 0);
    if (*size - AUDIT_HEAD > AUDIT_BODY_LIMIT)
        return error_set(err, WARD_EINVAL, "an audit record of %zu bytes is longer than the %d that one may have",
                         length, AUDIT_BODY_LIMIT);
    uint8_t *bytes = malloc(*size), *body = bytes + AUDIT_HEAD;
    if (!bytes)
        return error_no_memory(err, "an audit record", *size);
    frame->length = (uint32_t)(*size - AUDIT_HEAD);
    if (encrypted) {
        uint8_t key[AUDIT_KEY], head[AUDIT_HEAD];
        audit_frame_put(head, frame); /* of which what is authenticated is complete */
        audit_ratchet_key(content, audit_for_content, key);
        randombytes_buf(body, AUDIT_NONCE);
        crypto_aead_xchacha20poly1305_ietf_encrypt(body + AUDIT_NONCE, NULL, text, length, head, AUDIT_ASSOCIATED, NULL,
                                                   body, key);
        sodium_memzero(key, sizeof key);
    } else if (length) {
        memcpy(body, text, length);
    }
    audit_hash(frame->body_hash, body, frame->length);
    sign_frame(frame, signing, bytes);
    *out = bytes;
    return 0;
}

bool audit_frame_open(const uint8_t head[AUDIT_HEAD], const uint8_t *body, size_t length,
                      const struct audit_ratchet *content, char **text, size_t *text_length)
{
    *text = NULL;
    if (length < AUDIT_SEAL_COST)
        return false;
    uint8_t key[AUDIT_KEY];
    const size_t n = length - AUDIT_SEAL_COST;
    char *out = malloc(n + 1);
    if (!out)
        return false;
    audit_ratchet_key(content, audit_for_content, key);
    const int rc = crypto_aead_xchacha20poly1305_ietf_decrypt(
        (uint8_t *)out, NULL, NULL, body + AUDIT_NONCE, length - AUDIT_NONCE, head, AUDIT_ASSOCIATED, body, key);
    sodium_memzero(key, sizeof key);
    if (rc) {
        free(out);
        return false;
    }
    out[n] = '\0';
    *text = out;
    *text_length = n;
    return true;
}

/* ---- what links frames ------------------------------------------------------------------------------------------- */

const char *audit_link_next(struct audit_link *link, const struct audit_frame *frame, const uint8_t head[AUDIT_HEAD],
                            const uint8_t *body)
{
    uint8_t hash[AUDIT_HASH];
    if (frame->seq != link->seq)
        return frame->seq > link->seq ? "its number is too high: records before it are missing"
                                      : "its number is one that was there already: it is a copy or out of order";
    if (frame->segment != link->segment)
        return "it belongs to another segment";
    if ((frame->type == AUDIT_HEADER) != link->header)
        return link->header ? "it is not the header that a segment begins with" : "it is a header within a segment";
    if (memcmp(frame->prev, link->prev, AUDIT_HASH) != 0)
        return "it does not follow the record before it: that one was changed, or this is of another log";
    if (crypto_sign_verify_detached(frame->signature, head, AUDIT_SIGNED, link->key))
        return "its signature is not by the key that the record before it names";
    if (body) {
        audit_hash(hash, body, frame->length);
        if (memcmp(hash, frame->body_hash, AUDIT_HASH) != 0)
            return "its content was changed";
    }
    if (frame->type == AUDIT_END ? frame->of >= frame->seq : frame->of != 0)
        return "it does not name the beginning of its use";
    memcpy(link->key, frame->next, AUDIT_KEY);
    audit_leaf(link->prev, head);
    link->seq++;
    link->header = frame->type == AUDIT_CLOSE;
    link->segment += link->header;
    return NULL;
}
