#include "base/sha256.h"

#include <sodium.h>

void sha256_of(uint8_t out[SHA256_BYTES], const void *data, size_t size)
{
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, size, data);
    sha256_digest(&context, SHA256_BYTES, out);
}

void sha256_hex(char out[SHA256_HEX + 1], const uint8_t hash[SHA256_BYTES])
{
    sodium_bin2hex(out, SHA256_HEX + 1, hash, SHA256_BYTES);
}

bool sha256_from_hex(uint8_t out[SHA256_BYTES], const char *text)
{
    size_t length;
    for (size_t i = 0; i < SHA256_HEX; i++)
        if (!text[i])
            return false;
    return sodium_hex2bin(out, SHA256_BYTES, text, SHA256_HEX, NULL, &length, NULL) == 0 && length == SHA256_BYTES;
}
