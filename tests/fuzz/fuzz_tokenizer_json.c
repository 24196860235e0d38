/* tokenizer.json, and a text for the tokenizer that it makes. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_parts parts;
    struct tokenizer *tokenizer;
    struct ward_error err = {0};
    fuzz_split(&parts, data, size);
    const int rc = tokenizer_from_json(&tokenizer, (const char *)parts.data[0], parts.size[0], "tokenizer.json", &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (tokenizer != NULL));
    if (tokenizer)
        fuzz_use_tokenizer(tokenizer, parts.data[1], parts.size[1]);
    tokenizer_close(&tokenizer);
    fuzz_parts_free(&parts);
    return 0;
}
