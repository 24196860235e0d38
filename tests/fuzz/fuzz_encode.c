/* Any text through a sound tokenizer: what it gives must spell the text again. */
#include "fuzz.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* Decoding gives the text back, but for U+2581, which it takes for a space. */
static void check_spelling(const struct tokenizer *t, const char *text, size_t size, enum tokenize_mode mode)
{
    struct ids ids = {0};
    struct ward_error err;
    char *decoded;
    size_t length, at = 0;
    REQUIRE(!tokenizer_encode(t, text, size, mode, &ids, &err));
    REQUIRE(!tokenizer_decode(t, ids.at, ids.n, true, &decoded, &length, &err));
    for (size_t i = 0; i < size; at++) {
        const bool mark = size - i >= 3 && !memcmp(text + i, "\xe2\x96\x81", 3);
        REQUIRE(at < length && decoded[at] == (mark ? ' ' : text[i]));
        i += mark ? 3 : 1;
    }
    REQUIRE(at == length);
    free(decoded);
    ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct tokenizer *t = fuzz_tokenizer();
    fuzz_use_tokenizer(t, data, size);
    if (utf8_valid(data, size) == size) {
        check_spelling(t, (const char *)data, size, TOKENIZE_SPECIAL);
        check_spelling(t, (const char *)data, size, TOKENIZE_PLAIN);
    }
    /* The same bytes as ids, most of which exist. */
    struct ids ids = {0};
    struct ward_error err;
    char *text;
    size_t length;
    for (size_t i = 0; i + 1 < size; i += 2)
        REQUIRE(!ids_append(&ids, (int32_t)(data[i] | (data[i + 1] & 3) << 8) - 1, &err));
    REQUIRE(!tokenizer_decode(t, ids.at, ids.n, size & 1, &text, &length, &err));
    REQUIRE(utf8_valid((const uint8_t *)text, length) == length);
    free(text);
    ids_free(&ids);
    return 0;
}
