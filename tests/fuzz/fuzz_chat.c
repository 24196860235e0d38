/* The files that may hold a chat template (chat_template.jinja, chat_template.json, processor_config.json,
 * tokenizer_config.json), and a conversation of one system and one user text. */
#include "fuzz.h"

#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

static void check_prompt(const struct chat_template *chat, const struct model_config *config, const char *system,
                         const char *user)
{
    const struct tokenizer *t = fuzz_tokenizer();
    const struct ward_part parts[] = {{.text = system}, {.text = user}};
    const struct ward_message messages[] = {{.role = "system", .parts = parts, .n_parts = 1},
                                            {.role = "user", .parts = parts + 1, .n_parts = 1}};
    struct ids ids = {0};
    struct ward_error err = {0};
    const int rc = chat_encode(chat, config, t, messages + !chat->present, chat->present ? 2 : 1, &ids, &err);
    fuzz_check_result(rc, &err);
    /* <bos>, and <start_of_turn>, <end_of_turn>, <start_of_turn>: no text can add to them. */
    size_t control = 0;
    for (size_t i = 0; i < ids.n; i++)
        control += tokenizer_is_control(t, ids.at[i]);
    REQUIRE(rc || control == (chat->present ? 4 : 1));
    ids_free(&ids);
}

static char *text_of(const struct fuzz_parts *parts, size_t i)
{
    char *text = strndup(parts->data[i] ? (const char *)parts->data[i] : "", parts->size[i]);
    REQUIRE(text);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"chat_template.jinja", "chat_template.json", "processor_config.json",
                                        "tokenizer_config.json"};
    const struct model_config config = {.image_token = -1};
    struct chat_template chat;
    struct ward_error err = {0};
    struct fuzz_parts parts;
    fuzz_split(&parts, data, size);
    for (int i = 0; i < 4; i++)
        fuzz_folder_put(names[i], parts.data[i], parts.size[i]);
    const int rc = chat_template_open(&chat, fuzz_folder(), &config, fuzz_tokenizer(), &err);
    fuzz_check_result(rc, &err);
    if (!rc) {
        char *system = text_of(&parts, 4), *user = text_of(&parts, 5);
        check_prompt(&chat, &config, system, user);
        free(system);
        free(user);
    }
    fuzz_parts_free(&parts);
    return 0;
}
