/* Keys and signatures in minisign's format (https://jedisct1.github.io/minisign/): Ed25519 over the BLAKE2b-512 of a
 * file, with a comment that is signed too. What is made here the stock minisign reads, and the other way round.
 * docs/airgap.md has the bytes. Signatures of the older kind, over the file itself, are refused. */
#ifndef WARD_BUNDLE_MINISIGN_H
#define WARD_BUNDLE_MINISIGN_H

#include "base/error.h"

enum {
    MINISIGN_ID = 8,
    MINISIGN_COMMENT = 1024, /* with its NUL */
    MINISIGN_FILE = 4096,    /* no key or signature is longer */
};

struct minisign_public {
    uint8_t id[MINISIGN_ID], key[32];
};
struct minisign_secret {
    uint8_t id[MINISIGN_ID], key[64];
};

/* A key file, or its second line alone. `name`: what to call it in an error. */
WARD_CHECKED int minisign_public_parse(struct minisign_public *out, const char *text, size_t length, const char *name,
                                       struct ward_error *err);
/* passphrase NULL: none; *locked tells of a key that needs one, in which case the rest of out is not filled. */
WARD_CHECKED int minisign_secret_parse(struct minisign_secret *out, bool *locked, const char *text, size_t length,
                                       const char *name, const char *passphrase, struct ward_error *err);
/* As minisign shows it: 16 hexadecimal digits. */
void minisign_id_text(char out[17], const uint8_t id[MINISIGN_ID]);

/* The text of a signature file, NUL-terminated; free() it. The comment must be one line. */
WARD_CHECKED int minisign_sign(char **text, const struct minisign_secret *key, const void *data, size_t size,
                               const char *comment, struct ward_error *err);
/* comment: the one that was signed. `name`: of the signature's file. */
WARD_CHECKED int minisign_verify(const struct minisign_public *key, const char *text, size_t length, const char *name,
                                 const void *data, size_t size, char comment[MINISIGN_COMMENT],
                                 struct ward_error *err);

/* A new pair, as the texts of its two files; free() both, the secret one after it was wiped. passphrase NULL: the secret
 * key is not encrypted. */
WARD_CHECKED int minisign_generate(char **public_text, char **secret_text, const char *passphrase,
                                   struct ward_error *err);

#endif
