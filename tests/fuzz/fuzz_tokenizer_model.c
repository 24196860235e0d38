/* tokenizer.model, alone or with tokenizer_config.json and added_tokens.json beside it; a text for the tokenizer. */
#include "fuzz.h"

static int open_parts(struct tokenizer **tokenizer, const struct fuzz_parts *parts, struct ward_error *err)
{
    if (!parts->size[2] && !parts->size[3])
        return tokenizer_from_model(tokenizer, parts->data[0], parts->size[0], "tokenizer.model", err);
    fuzz_folder_put("tokenizer.model", parts->data[0], parts->size[0]);
    fuzz_folder_put("tokenizer_config.json", parts->data[2], parts->size[2]);
    fuzz_folder_put("added_tokens.json", parts->data[3], parts->size[3]);
    return tokenizer_open(tokenizer, fuzz_folder(), err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_parts parts;
    struct tokenizer *tokenizer;
    struct ward_error err = {0};
    fuzz_split(&parts, data, size);
    const int rc = open_parts(&tokenizer, &parts, &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (tokenizer != NULL));
    if (tokenizer)
        fuzz_use_tokenizer(tokenizer, parts.data[1], parts.size[1]);
    tokenizer_close(&tokenizer);
    fuzz_parts_free(&parts);
    return 0;
}
