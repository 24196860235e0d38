#include "bundle/minisign.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The bytes behind base64, as minisign has them. No field is aligned. */
struct public_bytes {
    uint8_t algorithm[2], id[MINISIGN_ID], key[crypto_sign_PUBLICKEYBYTES];
};
struct secret_bytes {
    uint8_t algorithm[2], kdf[2], checksum_algorithm[2], salt[crypto_pwhash_scryptsalsa208sha256_SALTBYTES];
    uint8_t operations[8], memory[8]; /* little endian */
    struct sealed_bytes {
        uint8_t id[MINISIGN_ID], key[crypto_sign_SECRETKEYBYTES], checksum[crypto_generichash_BYTES];
    } sealed;
};
struct signature_bytes {
    uint8_t algorithm[2], id[MINISIGN_ID], signature[crypto_sign_BYTES];
};
static_assert(sizeof(struct public_bytes) == 42 && sizeof(struct secret_bytes) == 158 &&
              sizeof(struct signature_bytes) == 74, "structs of bytes have no holes");

static const uint8_t algorithm_key[2] = "Ed", algorithm_hashed[2] = "ED", kdf_scrypt[2] = "Sc", kdf_none[2],
                     checksum_blake2b[2] = "B2";
static const char untrusted[] = "untrusted comment: ", trusted[] = "trusted comment: ";

/* minisign's own cost, and the most that is paid for somebody else's key file. */
#define OPERATIONS crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE
#define MEMORY crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* The next line, without its end; false when there is none. */
static bool next_line(const char **at, const char *end, const char **line, size_t *length)
{
    if (*at == end)
        return false;
    const char *newline = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *length = (size_t)((newline ? newline : end) - *at);
    *at = newline ? newline + 1 : end;
    if (*length && (*line)[*length - 1] == '\r')
        --*length;
    return true;
}

static bool line_begins(const char *line, size_t length, const char *start)
{
    return length >= strlen(start) && !memcmp(line, start, strlen(start));
}

/* Exactly `size` bytes in canonical base64. */
static bool decode(void *out, size_t size, const char *line, size_t length)
{
    size_t got;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)line[i] >= 0x80) /* libsodium takes 0xaf for a '/' */
            return false;
    return sodium_base642bin(out, size, line, length, NULL, &got, NULL, sodium_base64_VARIANT_ORIGINAL) == 0 &&
           got == size;
}

/* One that memory for was asked before; `out` has room. */
static char *put_base64(char *out, size_t room, const void *bytes, size_t size)
{
    sodium_bin2base64(out, room, bytes, size, sodium_base64_VARIANT_ORIGINAL);
    return out;
}

static int malformed(const char *name, const char *what, struct ward_error *err)
{
    return error_set(err, WARD_EFORMAT, "%s: is no %s of minisign's", name, what);
}

static int start_sodium(struct ward_error *err)
{
    return sodium_init() < 0 ? error_set(err, WARD_EUNSUPPORTED, "libsodium could not be started") : 0;
}

void minisign_id_text(char out[17], const uint8_t id[MINISIGN_ID])
{
    uint64_t value = 0;
    for (int i = MINISIGN_ID - 1; i >= 0; i--)
        value = value << 8 | id[i];
    snprintf(out, 17, "%016" PRIX64, value);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* Two lines, the second base64 of `size` bytes, nothing behind; or that line alone. */
static bool read_key_file(void *out, size_t size, const char *text, size_t length)
{
    const char *at = text, *end = text + length, *line;
    size_t n;
    if (length > MINISIGN_FILE || !next_line(&at, end, &line, &n))
        return false;
    if (line_begins(line, n, untrusted) && !next_line(&at, end, &line, &n))
        return false;
    return at == end && decode(out, size, line, n);
}

int minisign_public_parse(struct minisign_public *out, const char *text, size_t length, const char *name,
                          struct ward_error *err)
{
    struct public_bytes bytes;
    int rc = start_sodium(err);
    if (rc)
        return rc;
    if (!read_key_file(&bytes, sizeof bytes, text, length) || memcmp(bytes.algorithm, algorithm_key, 2) != 0)
        return malformed(name, "public key", err);
    memcpy(out->id, bytes.id, sizeof out->id);
    memcpy(out->key, bytes.key, sizeof out->key);
    return 0;
}

static uint64_t little_endian(const uint8_t bytes[8])
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

static void put_little_endian(uint8_t bytes[8], uint64_t value)
{
    for (int i = 0; i < 8; i++, value >>= 8)
        bytes[i] = (uint8_t)value;
}

/* scrypt's output over the key: to encrypt and to decrypt. */
static int apply_passphrase(struct secret_bytes *bytes, const char *name, const char *passphrase,
                            struct ward_error *err)
{
    const uint64_t operations = little_endian(bytes->operations), memory = little_endian(bytes->memory);
    uint8_t stream[sizeof bytes->sealed], *sealed = (uint8_t *)&bytes->sealed;
    if (operations > OPERATIONS || memory > MEMORY)
        return error_set(err, WARD_EFORMAT, "%s: asks for %" PRIu64 " bytes and %" PRIu64 " steps to open it; at most "
                         "%u and %u are expected", name, memory, operations, (unsigned)MEMORY, (unsigned)OPERATIONS);
    if (crypto_pwhash_scryptsalsa208sha256(stream, sizeof stream, passphrase, strlen(passphrase), bytes->salt,
                                           operations, (size_t)memory))
        return error_set(err, WARD_ENOMEM, "%s: its passphrase takes %" PRIu64 " MB of memory, which are not there",
                         name, memory >> 20);
    for (size_t i = 0; i < sizeof stream; i++)
        sealed[i] ^= stream[i];
    sodium_memzero(stream, sizeof stream);
    return 0;
}

static void checksum(uint8_t out[crypto_generichash_BYTES], const struct secret_bytes *bytes)
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, crypto_generichash_BYTES);
    crypto_generichash_update(&state, bytes->algorithm, sizeof bytes->algorithm);
    crypto_generichash_update(&state, bytes->sealed.id, sizeof bytes->sealed.id);
    crypto_generichash_update(&state, bytes->sealed.key, sizeof bytes->sealed.key);
    crypto_generichash_final(&state, out, crypto_generichash_BYTES);
}

static int open_secret(struct minisign_secret *out, struct secret_bytes *bytes, bool *locked, const char *name,
                       const char *passphrase, struct ward_error *err)
{
    uint8_t sum[crypto_generichash_BYTES];
    if (memcmp(bytes->kdf, kdf_scrypt, 2) == 0) {
        *locked = true;
        if (!passphrase)
            return 0;
        const int rc = apply_passphrase(bytes, name, passphrase, err);
        if (rc)
            return rc;
        checksum(sum, bytes);
        if (sodium_memcmp(sum, bytes->sealed.checksum, sizeof sum) != 0)
            return error_set(err, WARD_EINVAL, "%s: the passphrase is wrong", name);
    } else if (memcmp(bytes->kdf, kdf_none, 2) != 0) {
        return malformed(name, "secret key", err);
    }
    memcpy(out->id, bytes->sealed.id, sizeof out->id);
    memcpy(out->key, bytes->sealed.key, sizeof out->key);
    return 0;
}

int minisign_secret_parse(struct minisign_secret *out, bool *locked, const char *text, size_t length, const char *name,
                          const char *passphrase, struct ward_error *err)
{
    struct secret_bytes bytes;
    *locked = false;
    int rc = start_sodium(err);
    if (rc)
        return rc;
    if (!read_key_file(&bytes, sizeof bytes, text, length) || memcmp(bytes.algorithm, algorithm_key, 2) != 0 ||
        memcmp(bytes.checksum_algorithm, checksum_blake2b, 2) != 0)
        rc = malformed(name, "secret key", err);
    else
        rc = open_secret(out, &bytes, locked, name, passphrase, err);
    sodium_memzero(&bytes, sizeof bytes);
    return rc;
}

int minisign_generate(char **public_text, char **secret_text, const char *passphrase, struct ward_error *err)
{
    struct public_bytes public = {.algorithm = {'E', 'd'}};
    struct secret_bytes secret = {.algorithm = {'E', 'd'}, .checksum_algorithm = {'B', '2'}};
    char public_line[64], secret_line[256], id[17];
    *public_text = *secret_text = NULL;
    int rc = start_sodium(err);
    if (rc)
        return rc;
    crypto_sign_keypair(public.key, secret.sealed.key);
    randombytes_buf(public.id, sizeof public.id);
    memcpy(secret.sealed.id, public.id, sizeof public.id);
    minisign_id_text(id, public.id);
    if (passphrase) {
        memcpy(secret.kdf, kdf_scrypt, 2);
        randombytes_buf(secret.salt, sizeof secret.salt);
        put_little_endian(secret.operations, OPERATIONS);
        put_little_endian(secret.memory, MEMORY);
        checksum(secret.sealed.checksum, &secret);
        rc = apply_passphrase(&secret, "the new key", passphrase, err);
    }
    put_base64(public_line, sizeof public_line, &public, sizeof public);
    put_base64(secret_line, sizeof secret_line, &secret, sizeof secret);
    if (!rc && (asprintf(public_text, "%sminisign public key %s\n%s\n", untrusted, id, public_line) < 0 ||
                asprintf(secret_text, "%sminisign %ssecret key\n%s\n", untrusted, passphrase ? "encrypted " : "",
                         secret_line) < 0))
        rc = error_no_memory(err, "a key", sizeof secret_line);
    sodium_memzero(&secret, sizeof secret);
    sodium_memzero(secret_line, sizeof secret_line);
    return rc;
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

/* What the second signature covers: the first, then the comment. */
static size_t join_comment(uint8_t out[crypto_sign_BYTES + MINISIGN_COMMENT], const uint8_t *signature,
                           const char *comment, size_t length)
{
    memcpy(out, signature, crypto_sign_BYTES);
    memcpy(out + crypto_sign_BYTES, comment, length);
    return crypto_sign_BYTES + length;
}

int minisign_sign(char **text, const struct minisign_secret *key, const void *data, size_t size, const char *comment,
                  struct ward_error *err)
{
    struct signature_bytes signature = {.algorithm = {'E', 'D'}};
    uint8_t hash[crypto_generichash_BYTES_MAX], joined[crypto_sign_BYTES + MINISIGN_COMMENT], global[crypto_sign_BYTES];
    char first[128], second[128];
    *text = NULL;
    assert(strlen(comment) < MINISIGN_COMMENT && !strpbrk(comment, "\r\n"));
    memcpy(signature.id, key->id, sizeof key->id);
    crypto_generichash(hash, sizeof hash, data, size, NULL, 0);
    crypto_sign_detached(signature.signature, NULL, hash, sizeof hash, key->key);
    const size_t n = join_comment(joined, signature.signature, comment, strlen(comment));
    crypto_sign_detached(global, NULL, joined, n, key->key);
    if (asprintf(text, "%ssignature of ward bundle create\n%s\n%s%s\n%s\n", untrusted,
                 put_base64(first, sizeof first, &signature, sizeof signature), trusted, comment,
                 put_base64(second, sizeof second, global, sizeof global)) < 0) {
        *text = NULL;
        return error_no_memory(err, "a signature", sizeof joined);
    }
    return 0;
}

struct parsed_signature {
    struct signature_bytes bytes;
    uint8_t global[crypto_sign_BYTES];
    const char *comment;
    size_t length;
};

/* Four lines: two comments, each before its signature. */
static bool parse_signature(struct parsed_signature *out, const char *text, size_t length)
{
    const char *at = text, *end = text + length, *line;
    size_t n;
    if (length > MINISIGN_FILE || !next_line(&at, end, &line, &n) || !line_begins(line, n, untrusted) ||
        !next_line(&at, end, &line, &n) || !decode(&out->bytes, sizeof out->bytes, line, n) ||
        !next_line(&at, end, &line, &n) || !line_begins(line, n, trusted))
        return false;
    out->comment = line + strlen(trusted);
    out->length = n - strlen(trusted);
    return out->length < MINISIGN_COMMENT && next_line(&at, end, &line, &n) &&
           decode(out->global, sizeof out->global, line, n) && at == end;
}

int minisign_verify(const struct minisign_public *key, const char *text, size_t length, const char *name,
                    const void *data, size_t size, char comment[MINISIGN_COMMENT], struct ward_error *err)
{
    struct parsed_signature s;
    uint8_t hash[crypto_generichash_BYTES_MAX], joined[crypto_sign_BYTES + MINISIGN_COMMENT];
    char theirs[17], ours[17];
    if (!parse_signature(&s, text, length))
        return malformed(name, "signature", err);
    if (memcmp(s.bytes.algorithm, algorithm_key, 2) == 0)
        return error_set(err, WARD_EUNSUPPORTED, "%s: is a signature of minisign's older kind; one over a hash (ED) is "
                         "expected", name);
    if (memcmp(s.bytes.algorithm, algorithm_hashed, 2) != 0)
        return malformed(name, "signature", err);
    if (memcmp(s.bytes.id, key->id, sizeof key->id) != 0) {
        minisign_id_text(theirs, s.bytes.id);
        minisign_id_text(ours, key->id);
        return error_set(err, WARD_EFORMAT, "%s: was made with the key %s; %s is expected", name, theirs, ours);
    }
    crypto_generichash(hash, sizeof hash, data, size, NULL, 0);
    if (crypto_sign_verify_detached(s.bytes.signature, hash, sizeof hash, key->key))
        return error_set(err, WARD_EFORMAT, "%s: the signature is not that of this list and key", name);
    const size_t n = join_comment(joined, s.bytes.signature, s.comment, s.length);
    if (crypto_sign_verify_detached(s.global, joined, n, key->key))
        return error_set(err, WARD_EFORMAT, "%s: the signature of the comment is not that of this key", name);
    memcpy(comment, s.comment, s.length);
    comment[s.length] = '\0';
    return 0;
}
