#include "audit/checkpoint.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID = 4, SIGNATURE = ID + crypto_sign_BYTES, ALGORITHM_ED25519 = 1 };
static const char dash[] = "\xe2\x80\x94 "; /* begins a signature's line */

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

static void hash_pair(uint8_t out[AUDIT_HASH], const uint8_t left[AUDIT_HASH], const uint8_t right[AUDIT_HASH])
{
    uint8_t both[1 + 2 * AUDIT_HASH];
    both[0] = 1;
    memcpy(both + 1, left, AUDIT_HASH);
    memcpy(both + 1 + AUDIT_HASH, right, AUDIT_HASH);
    audit_hash(out, both, sizeof both);
}

void audit_tree_add(struct audit_tree *tree, const uint8_t leaf[AUDIT_HASH])
{
    int depth = __builtin_popcountll(tree->n);
    memcpy(tree->roots[depth], leaf, AUDIT_HASH);
    for (uint64_t n = tree->n; n & 1; n >>= 1, depth--)
        hash_pair(tree->roots[depth - 1], tree->roots[depth - 1], tree->roots[depth]);
    tree->n++;
}

void audit_tree_root(const struct audit_tree *tree, uint8_t out[AUDIT_HASH])
{
    int depth = __builtin_popcountll(tree->n);
    if (!depth) {
        audit_hash(out, "", 0);
        return;
    }
    memcpy(out, tree->roots[--depth], AUDIT_HASH);
    while (depth > 0)
        hash_pair(out, tree->roots[--depth], out);
}

/* ---- notes ------------------------------------------------------------------------------------------------------- */

void audit_checkpoint_origin(char out[AUDIT_ORIGIN], const uint8_t anchor[AUDIT_KEY])
{
    char id[17];
    audit_log_id(id, anchor);
    snprintf(out, AUDIT_ORIGIN, "ward-audit/%s", id);
}

/* SHA-256 of NAME, newline, algorithm and key, the first four bytes: tells keys of one name apart. */
static void key_id(uint8_t out[ID], const char *name, const uint8_t key[AUDIT_KEY])
{
    uint8_t text[AUDIT_ORIGIN + 2 + AUDIT_KEY], hash[AUDIT_HASH];
    size_t n = strlen(name);
    memcpy(text, name, n);
    text[n++] = '\n';
    text[n++] = ALGORITHM_ED25519;
    memcpy(text + n, key, AUDIT_KEY);
    audit_hash(hash, text, n + AUDIT_KEY);
    memcpy(out, hash, ID);
}

static int write_body(char *out, size_t room, const struct audit_checkpoint *checkpoint)
{
    char root[sodium_base64_ENCODED_LEN(AUDIT_HASH, sodium_base64_VARIANT_ORIGINAL)];
    sodium_bin2base64(root, sizeof root, checkpoint->root, AUDIT_HASH, sodium_base64_VARIANT_ORIGINAL);
    return snprintf(out, room, "%s\n%llu\n%s\n", checkpoint->origin, (unsigned long long)checkpoint->size, root);
}

void audit_checkpoint_sign(char out[AUDIT_CHECKPOINT_ROOM], const struct audit_checkpoint *checkpoint,
                           const uint8_t seed[AUDIT_KEY])
{
    uint8_t public_key[AUDIT_KEY], secret[crypto_sign_SECRETKEYBYTES], signature[SIGNATURE];
    char text[sodium_base64_ENCODED_LEN(SIGNATURE, sodium_base64_VARIANT_ORIGINAL)];
    crypto_sign_seed_keypair(public_key, secret, seed);
    const int n = write_body(out, AUDIT_CHECKPOINT_ROOM, checkpoint);
    key_id(signature, checkpoint->origin, public_key);
    crypto_sign_detached(signature + ID, NULL, (const uint8_t *)out, (unsigned long long)n, secret);
    sodium_memzero(secret, sizeof secret);
    sodium_bin2base64(text, sizeof text, signature, sizeof signature, sodium_base64_VARIANT_ORIGINAL);
    snprintf(out + n, (size_t)(AUDIT_CHECKPOINT_ROOM - n), "\n%s%s %s\n", dash, checkpoint->origin, text);
}

/* The line at *at without its newline, and *at moves behind it. False: no whole line is left. */
static bool take_line(const char **at, const char *end, const char **line, size_t *length)
{
    const char *newline = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
    if (!newline)
        return false;
    *line = *at;
    *length = (size_t)(newline - *at);
    *at = newline + 1;
    return true;
}

static bool decode(uint8_t *out, size_t size, const char *text, size_t length)
{
    size_t n;
    const char *end;
    for (size_t i = 0; i < length; i++) /* libsodium 1.0.18 takes some of these for others */
        if ((unsigned char)text[i] >= 0x80)
            return false;
    return !sodium_base642bin(out, size, text, length, NULL, &n, &end, sodium_base64_VARIANT_ORIGINAL) && n == size &&
           end == text + length;
}

static bool parse_body(struct audit_checkpoint *out, const char *text, size_t length)
{
    const char *at = text, *end = text + length, *line;
    size_t n;
    if (!take_line(&at, end, &line, &n) || n == 0 || n >= AUDIT_ORIGIN || memchr(line, '\0', n))
        return false;
    memcpy(out->origin, line, n);
    if (!take_line(&at, end, &line, &n) || n == 0 || n > 19 || (*line == '0' && n > 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (line[i] < '0' || line[i] > '9')
            return false;
        out->size = 10 * out->size + (uint64_t)(line[i] - '0');
    }
    if (!take_line(&at, end, &line, &n) || !decode(out->root, AUDIT_HASH, line, n))
        return false;
    return take_line(&at, end, &line, &n) && n == 0; /* ward writes no extension lines, and signs none */
}

int audit_checkpoint_parse(struct audit_checkpoint *out, const char *text, size_t length, const char *name,
                           struct ward_error *err)
{
    *out = (struct audit_checkpoint){0};
    return parse_body(out, text, length)
               ? 0
               : error_set(err, WARD_EFORMAT, "%s: is no checkpoint; the lines that ward audit checkpoint printed are "
                           "expected: origin, size, root, an empty line, signatures", name);
}

bool audit_checkpoint_is_signed(const struct audit_checkpoint *checkpoint, const char *text, size_t length,
                                const uint8_t note_key[AUDIT_KEY])
{
    char body[AUDIT_CHECKPOINT_ROOM];
    const size_t n_body = (size_t)write_body(body, sizeof body, checkpoint);
    uint8_t id[ID], signature[SIGNATURE];
    if (length < n_body || memcmp(body, text, n_body) != 0)
        return false;
    key_id(id, checkpoint->origin, note_key);
    const char *at = text + n_body, *line;
    const size_t n_name = strlen(checkpoint->origin), n_dash = sizeof dash - 1;
    size_t n;
    while (take_line(&at, text + length, &line, &n))
        if (n > n_dash + n_name + 1 && !memcmp(line, dash, n_dash) &&
            !memcmp(line + n_dash, checkpoint->origin, n_name) && line[n_dash + n_name] == ' ' &&
            decode(signature, SIGNATURE, line + n_dash + n_name + 1, n - n_dash - n_name - 1) &&
            !memcmp(signature, id, ID) &&
            !crypto_sign_verify_detached(signature + ID, (const uint8_t *)body, n_body, note_key))
            return true;
    return false;
}

void audit_checkpoint_verifier(char out[AUDIT_VERIFIER_ROOM], const char *origin, const uint8_t note_key[AUDIT_KEY])
{
    uint8_t id[ID], key[1 + AUDIT_KEY] = {ALGORITHM_ED25519};
    char id_text[2 * ID + 1], text[sodium_base64_ENCODED_LEN(sizeof key, sodium_base64_VARIANT_ORIGINAL)];
    key_id(id, origin, note_key);
    audit_hex(id_text, id, ID);
    memcpy(key + 1, note_key, AUDIT_KEY);
    sodium_bin2base64(text, sizeof text, key, sizeof key, sodium_base64_VARIANT_ORIGINAL);
    snprintf(out, AUDIT_VERIFIER_ROOM, "%s+%s+%s", origin, id_text, text);
}
