/* A conversation as token ids. Text gathers until a control token cuts it, and is tokenized then: so a message's text
 * meets the template's newlines before it is cut into tokens, as it does when the template writes one string, but
 * cannot bring control tokens of its own. */
#include "model/chat.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

struct prompt {
    const struct chat_template *chat;
    const struct model_config *config;
    const struct tokenizer *tokenizer;
    struct ids *out;
    struct ward_error *err;
    char *text; /* since the last control token */
    size_t length, capacity;
};

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static int put_text(struct prompt *p, const char *text, size_t length)
{
    if (length > p->capacity - p->length) {
        size_t capacity, doubled;
        char *grown = NULL;
        if (!__builtin_add_overflow(p->length, length, &capacity) && size_multiply(capacity, 2, &doubled))
            grown = realloc(p->text, doubled);
        if (!grown)
            return error_no_memory(p->err, "the prompt", length);
        p->text = grown;
        p->capacity = doubled;
    }
    if (length)
        memcpy(p->text + p->length, text, length);
    p->length += length;
    return 0;
}

static int put_string(struct prompt *p, const char *text)
{
    return put_text(p, text, strlen(text));
}

static int flush(struct prompt *p)
{
    const int rc = p->length ? tokenizer_encode(p->tokenizer, p->text, p->length, TOKENIZE_PLAIN, p->out, p->err) : 0;
    p->length = 0;
    return rc;
}

static int put_control(struct prompt *p, int32_t id)
{
    const int rc = flush(p);
    return rc ? rc : ids_append(p->out, id, p->err);
}

/* As transformers' Gemma3Processor expands <start_of_image> before it tokenizes (full_image_sequence). */
static int put_image(struct prompt *p)
{
    if (p->config->image_tokens <= 0)
        return error_set(p->err, WARD_EUNSUPPORTED, "this checkpoint has no vision encoder: it takes no images");
    int rc = put_string(p, "\n\n");
    if (!rc)
        rc = put_control(p, p->chat->boi);
    for (int i = 0; i < p->config->image_tokens && !rc; i++)
        rc = ids_append(p->out, p->chat->image, p->err);
    if (!rc)
        rc = put_control(p, p->chat->eoi);
    return rc ? rc : put_string(p, "\n\n");
}

/* ---- trimming --------------------------------------------------------------------------------------------------- */

/* Bytes of the white space character at text, or 0. White space is what Python's str.isspace() says, since Jinja's trim
 * is str.strip(): U+001C to U+001F belong to it. */
static size_t space_length(const char *text, size_t length)
{
    static const char wide[][4] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
                                   "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    const uint8_t first = length ? (uint8_t)text[0] : 0;
    if ((first >= '\t' && first <= '\r') || (first >= 0x1c && first <= ' '))
        return 1;
    if (length >= 3 && !memcmp(text, "\xe2\x80", 2) && (uint8_t)text[2] >= 0x80 && (uint8_t)text[2] <= 0x8a)
        return 3; /* U+2000 to U+200A */
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (length >= strlen(wide[i]) && !memcmp(text, wide[i], strlen(wide[i])))
            return strlen(wide[i]);
    return 0;
}

static int put_trimmed(struct prompt *p, const char *text)
{
    size_t length = strlen(text), n;
    while ((n = space_length(text, length))) {
        text += n;
        length -= n;
    }
    for (size_t start = length; start;) {
        start--;
        while (start && ((uint8_t)text[start] & 0xc0) == 0x80)
            start--;
        if (space_length(text + start, length - start) != length - start)
            break;
        length = start;
    }
    return put_text(p, text, length);
}

/* ---- turns ------------------------------------------------------------------------------------------------------ */

static int put_parts(struct prompt *p, const struct ward_message *message, bool trimmed)
{
    int rc = 0;
    for (size_t i = 0; i < message->n_parts && !rc; i++) {
        const struct ward_part *part = &message->parts[i];
        if (!part->text == !part->image)
            rc = error_set(p->err, WARD_EINVAL, "a part of a message is to be a text or an image, and not both");
        else if (part->image)
            rc = put_image(p);
        else
            rc = trimmed ? put_trimmed(p, part->text) : put_string(p, part->text);
    }
    return rc;
}

static int put_turn(struct prompt *p, const struct ward_message *message, const char *role, const char *prefix)
{
    int rc = put_control(p, p->chat->start_of_turn);
    if (!rc)
        rc = put_string(p, role);
    if (!rc)
        rc = put_string(p, "\n");
    if (!rc && prefix)
        rc = put_string(p, prefix);
    if (!rc && prefix)
        rc = put_string(p, "\n\n");
    if (!rc)
        rc = put_parts(p, message, true);
    if (!rc)
        rc = put_control(p, p->chat->end_of_turn);
    return rc ? rc : put_string(p, "\n");
}

/* The text that goes before the first user's: of a message in parts, the template takes the first and no other. */
static int system_text(const struct ward_message *message, const char **text, struct ward_error *err)
{
    if (!message->n_parts || !message->parts[0].text)
        return error_set(err, WARD_EINVAL, "the system message is to begin with a text");
    for (size_t i = 1; i < message->n_parts; i++)
        if (message->parts[i].image)
            return error_set(err, WARD_EINVAL, "the system message cannot hold images");
    *text = message->parts[0].text;
    return 0;
}

static bool has_role(const struct ward_message *message, const char *role)
{
    return message->role && !strcmp(message->role, role);
}

static int put_conversation(struct prompt *p, const struct ward_message *messages, size_t n)
{
    const char *prefix = NULL;
    if (n && has_role(messages, "system")) {
        const int rc = system_text(messages, &prefix, p->err);
        if (rc)
            return rc;
        messages++;
        n--;
    }
    if (n % 2 == 0)
        return error_set(p->err, WARD_EINVAL, "a conversation is to end with a message of the user");
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const bool user = i % 2 == 0;
        if (!has_role(&messages[i], user ? "user" : "assistant"))
            return error_set(p->err, WARD_EINVAL,
                             "roles must alternate user, assistant, user, ...; message %zu is not the %s's", i + 1,
                             user ? "user" : "assistant");
        rc = put_turn(p, &messages[i], user ? "user" : "model", i ? NULL : prefix);
    }
    if (!rc)
        rc = put_control(p, p->chat->start_of_turn);
    return rc ? rc : put_string(p, "model\n");
}

int chat_encode(const struct chat_template *chat, const struct model_config *config, const struct tokenizer *tokenizer,
                const struct ward_message *messages, size_t n_messages, struct ids *out, struct ward_error *err)
{
    struct prompt p = {.chat = chat, .config = config, .tokenizer = tokenizer, .out = out, .err = err};
    int rc = ids_append(out, chat->bos, err);
    if (!rc && chat->present)
        rc = put_conversation(&p, messages, n_messages);
    else if (!rc && (n_messages != 1 || !has_role(messages, "user")))
        rc = error_set(
            err, WARD_EINVAL,
            "this checkpoint has no chat template: it continues one message of the user, and no conversation");
    else if (!rc)
        rc = put_parts(&p, messages, false);
    if (!rc)
        rc = flush(&p);
    free(p.text);
    return rc;
}
