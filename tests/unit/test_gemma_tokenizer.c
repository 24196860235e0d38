/* Gemma's own tokenizer and chat template against Hugging Face's libraries (tools/make_tokenizer_vectors.py). Its files
 * are not in this repository: WARD_GEMMA_TOKENIZER names the folder with tokenizer.json or tokenizer.model; without it
 * the tests are skipped. Run from the root of the repository. */
#include "base/json.h"
#include "base/mapping.h"
#include "model/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void read_ids(struct ids *ids, const struct json *list)
{
    *ids = (struct ids){0};
    for (const struct json *value = list->first; value; value = value->next)
        assert_int_equal(ids_append(ids, atoi(value->text), NULL), 0);
}

static void check_ids(const struct ids *ids, const struct ids *expected, const char *what)
{
    bool same = ids->n == expected->n;
    for (size_t i = 0; i < ids->n && same; i++)
        same = ids->at[i] == expected->at[i];
    if (!same)
        fail_msg("other ids for %s", what);
}

static void check_encode(const struct tokenizer *t, const struct json *list)
{
    for (const struct json *item = list->first; item; item = item->next) {
        const struct json *text = json_get(item, "text");
        struct ids ids = {0}, expected;
        struct ward_error err = {0};
        read_ids(&expected, json_get(item, "ids"));
        if (tokenizer_encode(t, text->text, text->length, TOKENIZE_SPECIAL, &ids, &err))
            fail_msg("%s: %s", text->text, err.text);
        check_ids(&ids, &expected, text->text);
        ids.n = 0;
        assert_int_equal(tokenizer_encode(t, text->text, text->length, TOKENIZE_PLAIN, &ids, NULL), 0);
        for (size_t i = 0; i < ids.n; i++)
            assert_false(tokenizer_is_control(t, ids.at[i]));
        ids_free(&ids);
        ids_free(&expected);
    }
}

static void check_decode(const struct tokenizer *t, const struct json *list)
{
    for (const struct json *item = list->first; item; item = item->next) {
        struct ids ids;
        read_ids(&ids, json_get(item, "ids"));
        for (int special = 0; special < 2; special++) {
            const struct json *expected = json_get(item, special ? "text" : "text_without_special");
            char *text;
            size_t length;
            assert_int_equal(tokenizer_decode(t, ids.at, ids.n, special, &text, &length, NULL), 0);
            assert_int_equal(length, expected->length);
            assert_memory_equal(text, expected->text, length);
            free(text);
        }
        ids_free(&ids);
    }
}

/* ---- conversations ---------------------------------------------------------------------------------------------- */

enum { MAX_MESSAGES = 8, MAX_PARTS = 8, IMAGE_TOKENS = 256 };

struct conversation {
    struct ward_message messages[MAX_MESSAGES];
    struct ward_part parts[MAX_MESSAGES][MAX_PARTS];
    size_t n;
};

static void read_conversation(struct conversation *c, const struct json *list)
{
    c->n = 0;
    for (const struct json *message = list->first; message; message = message->next, c->n++) {
        struct ward_part *parts = c->parts[c->n];
        size_t n = 0;
        for (const struct json *item = json_get(message, "content")->first; item; item = item->next, n++) {
            const struct json *text = json_get(item, "text");
            /* The image itself is not looked at. */
            parts[n] =
                text ? (struct ward_part){.text = text->text} : (struct ward_part){.image = (const ward_image *)c};
        }
        c->messages[c->n] = (struct ward_message){json_get(message, "role")->text, parts, n};
    }
}

static void check_chat(const struct tokenizer *t, const struct json *list)
{
    static struct conversation conversation;
    struct model_config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    config->image_tokens = IMAGE_TOKENS;
    const struct chat_template chat = {
        .present = true,
        .bos = tokenizer_id(t, "<bos>"),
        .start_of_turn = tokenizer_id(t, "<start_of_turn>"),
        .end_of_turn = tokenizer_id(t, "<end_of_turn>"),
        .image = tokenizer_id(t, "<image_soft_token>"),
        .boi = tokenizer_id(t, "<start_of_image>"),
        .eoi = tokenizer_id(t, "<end_of_image>"),
    };
    for (const struct json *item = list->first; item; item = item->next) {
        struct ids ids = {0}, folded, expected = {0};
        struct ward_error err = {0};
        read_conversation(&conversation, json_get(item, "messages"));
        read_ids(&folded, json_get(item, "ids"));
        for (size_t i = 0; i < folded.n; i++)
            for (int k = 0; k < (folded.at[i] == chat.image ? IMAGE_TOKENS : 1); k++)
                assert_int_equal(ids_append(&expected, folded.at[i], NULL), 0);
        if (chat_encode(&chat, config, t, conversation.messages, conversation.n, &ids, &err))
            fail_msg("%s", err.text);
        check_ids(&ids, &expected, "a conversation");
        ids_free(&ids);
        ids_free(&folded);
        ids_free(&expected);
    }
    free(config);
}

/* ---- the files -------------------------------------------------------------------------------------------------- */

static void check_file(const char *file)
{
    const char *folder = getenv("WARD_GEMMA_TOKENIZER");
    char path[1024];
    struct ward_error err = {0};
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "", file);
    if (!folder || !file_exists(path)) {
        print_message("# WARD_GEMMA_TOKENIZER names no folder with Gemma's %s\n", file);
        skip();
    }
    struct mapping map;
    struct tokenizer *t;
    struct json_document *golden;
    if (mapping_open(&map, path, &err) || json_read(&golden, "tests/vectors/tokenizer_golden.json", 1 << 24, &err))
        fail_msg("%s", err.text);
    const bool json = !strcmp(file, "tokenizer.json");
    const int rc = json ? tokenizer_from_json(&t, (const char *)map.data, map.size, path, &err)
                        : tokenizer_from_model(&t, map.data, map.size, path, &err);
    if (rc)
        fail_msg("%s", err.text);
    mapping_close(&map);
    check_encode(t, json_get(json_root(golden), "encode"));
    check_decode(t, json_get(json_root(golden), "decode"));
    check_chat(t, json_get(json_root(golden), "chat"));
    json_close(&golden);
    tokenizer_close(&t);
}

static void test_tokenizer_json(void **state)
{
    (void)state;
    check_file("tokenizer.json");
}

static void test_tokenizer_model(void **state)
{
    (void)state;
    check_file("tokenizer.model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_json),
        cmocka_unit_test(test_tokenizer_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
