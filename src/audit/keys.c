#include "audit/keys.h"

#include "base/json.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum {
    KDF_OPS = 3,            /* crypto_pwhash's "moderate" */
    KDF_MEMORY = 256 << 20,
    KDF_MAX_OPS = 64,       /* what a file may ask of a reader */
    KDF_MAX_MEMORY = 1 << 30,
    SALT = crypto_pwhash_argon2id_SALTBYTES,
    LOCKED = AUDIT_KEY + crypto_aead_xchacha20poly1305_ietf_ABYTES,
};

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void write_hex(struct json_writer *w, const char *key, const void *bytes, size_t size)
{
    char text[2 * AUDIT_SEALED + 1];
    audit_hex(text, bytes, size);
    json_write_string(w, key, text, 2 * size);
}

static bool read_hex(const struct json *object, const char *key, uint8_t *out, size_t size)
{
    const struct json *value = json_get(object, key);
    return value && value->type == JSON_STRING && audit_unhex(out, size, value->text, value->length);
}

static int take_text(char **text, size_t *length, struct json_writer **w, const char *what, struct ward_error *err)
{
    const char *written = json_writer_text(*w, length);
    *text = written ? malloc(*length + 2) : NULL;
    if (*text) {
        memcpy(*text, written, *length);
        (*text)[*length] = '\0';
    }
    json_writer_free(w);
    return *text ? 0 : error_no_memory(err, what, 0);
}

/* ---- an auditor's key file --------------------------------------------------------------------------------------- */

void audit_auditor_make(struct audit_auditor *out)
{
    *out = (struct audit_auditor){0};
    crypto_box_keypair(out->public_key, out->secret);
}

void audit_auditor_forget(struct audit_auditor *auditor)
{
    sodium_memzero(auditor, sizeof *auditor);
}

int audit_key_text(char **text, const struct audit_auditor *auditor, const char *passphrase, struct ward_error *err)
{
    size_t length;
    *text = NULL;
    struct json_writer *w = json_writer_new(false);
    if (!w)
        return error_no_memory(err, "a key file", 0);
    json_write_open(w, NULL, '{');
    json_write_string(w, "format", "ward-audit-key-1", 16);
    write_hex(w, "public", auditor->public_key, AUDIT_KEY);
    if (auditor->has_anchor)
        write_hex(w, "anchor", auditor->anchor, AUDIT_KEY);
    if (passphrase) {
        uint8_t salt[SALT], nonce[AUDIT_NONCE], key[AUDIT_KEY], locked[LOCKED];
        randombytes_buf(salt, sizeof salt);
        randombytes_buf(nonce, sizeof nonce);
        if (crypto_pwhash(key, sizeof key, passphrase, strlen(passphrase), salt, KDF_OPS, KDF_MEMORY,
                          crypto_pwhash_ALG_ARGON2ID13)) {
            json_writer_free(&w);
            return error_no_memory(err, "Argon2id", KDF_MEMORY);
        }
        crypto_aead_xchacha20poly1305_ietf_encrypt(locked, NULL, auditor->secret, AUDIT_KEY, auditor->public_key,
                                                   AUDIT_KEY, NULL, nonce, key);
        sodium_memzero(key, sizeof key);
        json_write_string(w, "kdf", "argon2id13", 10);
        json_write_integer(w, "ops", KDF_OPS);
        json_write_integer(w, "memory", KDF_MEMORY);
        write_hex(w, "salt", salt, sizeof salt);
        write_hex(w, "nonce", nonce, sizeof nonce);
        write_hex(w, "secret", locked, sizeof locked);
    } else {
        json_write_string(w, "kdf", "none", 4);
        write_hex(w, "secret", auditor->secret, AUDIT_KEY);
    }
    json_write_close(w, '}');
    int rc = take_text(text, &length, &w, "a key file", err);
    if (!rc)
        strcpy(*text + length, "\n");
    return rc;
}

static int no_key(const char *name, const char *what, struct ward_error *err)
{
    return error_set(err, WARD_EFORMAT, "%s: %s; a key file of ward audit is expected", name, what);
}

static int read_public(struct audit_auditor *out, const struct json *root, const char *name, struct ward_error *err)
{
    *out = (struct audit_auditor){0};
    if (!json_string_is(json_get(root, "format"), "ward-audit-key-1"))
        return no_key(name, "its format is not ward-audit-key-1", err);
    if (!read_hex(root, "public", out->public_key, AUDIT_KEY))
        return no_key(name, "it holds no public key", err);
    out->has_anchor = json_get(root, "anchor") != NULL;
    if (out->has_anchor && !read_hex(root, "anchor", out->anchor, AUDIT_KEY))
        return no_key(name, "its anchor is no key", err);
    return 0;
}

static int unlock(struct audit_auditor *out, const struct json *root, const char *name, audit_passphrase_fn *ask,
                  struct ward_error *err)
{
    uint8_t salt[SALT], nonce[AUDIT_NONCE], key[AUDIT_KEY], locked[LOCKED];
    char passphrase[AUDIT_PASSPHRASE_LIMIT];
    int64_t ops, memory;
    if (!json_string_is(json_get(root, "kdf"), "argon2id13"))
        return no_key(name, "its kdf is neither none nor argon2id13", err);
    if (!json_integer(json_get(root, "ops"), crypto_pwhash_OPSLIMIT_MIN, KDF_MAX_OPS, &ops) ||
        !json_integer(json_get(root, "memory"), crypto_pwhash_MEMLIMIT_MIN, KDF_MAX_MEMORY, &memory))
        return no_key(name, "it asks for more work than a key file may", err);
    if (!read_hex(root, "salt", salt, sizeof salt) || !read_hex(root, "nonce", nonce, sizeof nonce) ||
        !read_hex(root, "secret", locked, sizeof locked))
        return no_key(name, "its encrypted secret is damaged", err);
    int rc = ask(passphrase, name, err);
    if (rc)
        return rc;
    rc = crypto_pwhash(key, sizeof key, passphrase, strlen(passphrase), salt, (unsigned long long)ops, (size_t)memory,
                       crypto_pwhash_ALG_ARGON2ID13);
    sodium_memzero(passphrase, sizeof passphrase);
    if (rc)
        return error_no_memory(err, "Argon2id", (size_t)memory);
    rc = crypto_aead_xchacha20poly1305_ietf_decrypt(out->secret, NULL, NULL, locked, sizeof locked, out->public_key,
                                                    AUDIT_KEY, nonce, key);
    sodium_memzero(key, sizeof key);
    return rc ? error_set(err, WARD_EINVAL, "%s: the passphrase does not open it", name) : 0;
}

static int read_secret(struct audit_auditor *out, const struct json *root, const char *name, audit_passphrase_fn *ask,
                       struct ward_error *err)
{
    if (json_string_is(json_get(root, "kdf"), "none")) {
        if (!read_hex(root, "secret", out->secret, AUDIT_KEY))
            return no_key(name, "it holds no secret", err);
    } else {
        int rc = unlock(out, root, name, ask, err);
        if (rc)
            return rc;
    }
    uint8_t public_key[AUDIT_KEY];
    if (crypto_scalarmult_base(public_key, out->secret) || memcmp(public_key, out->public_key, AUDIT_KEY) != 0)
        return no_key(name, "its secret and its public key are no pair", err);
    return 0;
}

int audit_key_parse(struct audit_auditor *out, const char *text, size_t length, const char *name,
                    audit_passphrase_fn *ask, struct ward_error *err)
{
    struct json_document *document;
    int rc = json_parse(&document, text, length, name, err);
    if (rc)
        return rc;
    rc = read_public(out, json_root(document), name, err);
    if (!rc)
        rc = read_secret(out, json_root(document), name, ask, err);
    json_close(&document);
    if (rc)
        audit_auditor_forget(out);
    return rc;
}

int audit_key_parse_public(struct audit_auditor *out, const char *text, size_t length, const char *name,
                           struct ward_error *err)
{
    struct json_document *document;
    int rc = json_parse(&document, text, length, name, err);
    if (rc)
        return rc;
    rc = read_public(out, json_root(document), name, err);
    json_close(&document);
    return rc;
}

/* ---- the header of a segment ------------------------------------------------------------------------------------- */

bool audit_header_seal(struct audit_header *header, const struct audit_ratchet *content)
{
    for (int i = 0; i < header->n_auditors; i++)
        if (crypto_box_seal(header->auditors[i].sealed, content->secret, AUDIT_KEY, header->auditors[i].public_key))
            return false;
    return true;
}

bool audit_header_unseal(const struct audit_header *header, const struct audit_auditor *auditor,
                         struct audit_ratchet *content)
{
    for (int i = 0; i < header->n_auditors; i++)
        if (!memcmp(header->auditors[i].public_key, auditor->public_key, AUDIT_KEY) &&
            !crypto_box_seal_open(content->secret, header->auditors[i].sealed, AUDIT_SEALED, auditor->public_key,
                                  auditor->secret))
            return true;
    return false;
}

int audit_header_text(char **text, size_t *length, const struct audit_header *header, struct ward_error *err)
{
    static const char program[] = "ward " WARD_VERSION;
    *text = NULL;
    struct json_writer *w = json_writer_new(false);
    if (!w)
        return error_no_memory(err, "an audit header", 0);
    json_write_open(w, NULL, '{');
    json_write_string(w, "format", "ward-audit-1", 12);
    json_write_string(w, "program", program, sizeof program - 1);
    write_hex(w, "key", header->key, AUDIT_KEY);
    write_hex(w, "note_key", header->note_key, AUDIT_KEY);
    json_write_open(w, "auditors", '[');
    for (int i = 0; i < header->n_auditors; i++) {
        json_write_open(w, NULL, '{');
        write_hex(w, "public", header->auditors[i].public_key, AUDIT_KEY);
        write_hex(w, "sealed", header->auditors[i].sealed, AUDIT_SEALED);
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
    json_write_close(w, '}');
    return take_text(text, length, &w, "an audit header", err);
}

static const char *read_header(struct audit_header *out, const struct json *root)
{
    *out = (struct audit_header){0};
    const struct json *auditors = json_get(root, "auditors");
    if (!json_string_is(json_get(root, "format"), "ward-audit-1"))
        return "its format is not ward-audit-1";
    if (!read_hex(root, "key", out->key, AUDIT_KEY) || !read_hex(root, "note_key", out->note_key, AUDIT_KEY))
        return "it lacks a key";
    if (!auditors || auditors->type != JSON_ARRAY || auditors->n == 0 || auditors->n > AUDIT_MAX_AUDITORS)
        return "it is sealed to no auditor, or to too many";
    for (const struct json *auditor = auditors->first; auditor; auditor = auditor->next, out->n_auditors++)
        if (!read_hex(auditor, "public", out->auditors[out->n_auditors].public_key, AUDIT_KEY) ||
            !read_hex(auditor, "sealed", out->auditors[out->n_auditors].sealed, AUDIT_SEALED))
            return "a seal for an auditor is damaged";
    return NULL;
}

int audit_header_parse(struct audit_header *out, const char *text, size_t length, const char *name,
                       struct ward_error *err)
{
    struct json_document *document;
    int rc = json_parse(&document, text, length, name, err);
    if (rc)
        return rc;
    const char *wrong = read_header(out, json_root(document));
    json_close(&document);
    return wrong ? error_set(err, WARD_EFORMAT, "%s: its header cannot be used: %s", name, wrong) : 0;
}
