/* SHA-256 by nettle, which uses the processor's instructions for it (docs/architecture.md has the measure). Hashing in
 * pieces is nettle's own: sha256_init, sha256_update, sha256_digest. */
#ifndef WARD_BASE_SHA256_H
#define WARD_BASE_SHA256_H

#include <nettle/sha2.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = SHA256_DIGEST_SIZE, SHA256_HEX = 2 * SHA256_DIGEST_SIZE };

void sha256_of(uint8_t out[SHA256_BYTES], const void *data, size_t size);
/* 64 small letters and a NUL. */
void sha256_hex(char out[SHA256_HEX + 1], const uint8_t hash[SHA256_BYTES]);
/* The first 64 characters of text, small letters or capitals; false: they are no hash. */
bool sha256_from_hex(uint8_t out[SHA256_BYTES], const char *text);

#endif
