/* Which chat template a checkpoint has. ward runs no Jinja: it knows the one template of Gemma 3 and MedGemma, and
 * refuses others. */
#include "base/json.h"
#include "base/mapping.h"
#include "model/chat.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_LIMIT = 1 << 20, CONFIG_LIMIT = 64 << 20 };

/* Gemma 3's template, as published. chat_encode does what it says. */
const char chat_gemma_template[] =
    "{{ bos_token }}\n"
    "{%- if messages[0]['role'] == 'system' -%}\n"
    "    {%- if messages[0]['content'] is string -%}\n"
    "        {%- set first_user_prefix = messages[0]['content'] + '\n"
    "\n"
    "' -%}\n"
    "    {%- else -%}\n"
    "        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n"
    "\n"
    "' -%}\n"
    "    {%- endif -%}\n"
    "    {%- set loop_messages = messages[1:] -%}\n"
    "{%- else -%}\n"
    "    {%- set first_user_prefix = \"\" -%}\n"
    "    {%- set loop_messages = messages -%}\n"
    "{%- endif -%}\n"
    "{%- for message in loop_messages -%}\n"
    "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n"
    "        {{ raise_exception(\"Conversation roles must alternate user/assistant/user/assistant/...\") }}\n"
    "    {%- endif -%}\n"
    "    {%- if (message['role'] == 'assistant') -%}\n"
    "        {%- set role = \"model\" -%}\n"
    "    {%- else -%}\n"
    "        {%- set role = message['role'] -%}\n"
    "    {%- endif -%}\n"
    "    {{ '<start_of_turn>' + role + '\n"
    "' + (first_user_prefix if loop.first else \"\") }}\n"
    "    {%- if message['content'] is string -%}\n"
    "        {{ message['content'] | trim }}\n"
    "    {%- elif message['content'] is iterable -%}\n"
    "        {%- for item in message['content'] -%}\n"
    "            {%- if item['type'] == 'image' -%}\n"
    "                {{ '<start_of_image>' }}\n"
    "            {%- elif item['type'] == 'text' -%}\n"
    "                {{ item['text'] | trim }}\n"
    "            {%- endif -%}\n"
    "        {%- endfor -%}\n"
    "    {%- else -%}\n"
    "        {{ raise_exception(\"Invalid content type\") }}\n"
    "    {%- endif -%}\n"
    "    {{ '<end_of_turn>\n"
    "' }}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{'<start_of_turn>model\n"
    "'}}\n"
    "{%- endif -%}\n";

/* ---- comparing -------------------------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A string of the template, from its quote: single quotes, escapes resolved. Returns what follows it. */
static const char *canonical_string(const char *at, char **out)
{
    const char quote = *at++;
    *(*out)++ = '\'';
    for (; *at && *at != quote; at++) {
        if (*at == '\\' && at[1])
            *(*out)++ = *++at == 'n' ? '\n' : *at;
        else
            *(*out)++ = *at;
    }
    *(*out)++ = '\'';
    return *at ? at + 1 : at;
}

/* A tag from its brace, without the white space in it and the signs that trim the text around it. */
static const char *canonical_tag(const char *at, bool *trims, char **out)
{
    const char close[3] = {at[1] == '{' ? '}' : at[1], '}', '\0'};
    *(*out)++ = *at++;
    *(*out)++ = *at++;
    at += *at == '-';
    *trims = false;
    while (*at && strncmp(at, close, 2)) {
        if (*at == '-' && !strncmp(at + 1, close, 2)) {
            *trims = true;
            at++;
        } else if (is_space(*at)) {
            at++;
        } else if (*at == '\'' || *at == '"') {
            at = canonical_string(at, out);
        } else {
            *(*out)++ = *at++;
        }
    }
    for (int i = 0; i < 2 && *at; i++)
        *(*out)++ = *at++;
    return at;
}

/* Two templates that differ in the layout of their source only have the same canonical form. out is as long as text,
 * and a bit. */
static void canonical(const char *text, char *out)
{
    bool trims = false; /* the tag before trims what follows it */
    while (*text) {
        const char *end = text;
        while (*end && !(end[0] == '{' && (end[1] == '{' || end[1] == '%')))
            end++;
        const char *from = text, *to = end;
        while (trims && from < to && is_space(*from))
            from++;
        while (*end && end[2] == '-' && to > from && is_space(to[-1]))
            to--;
        if (!*end && to - from == 1 && *from == '\n')
            to--; /* Jinja drops the newline at the end of a file */
        memcpy(out, from, (size_t)(to - from));
        out += to - from;
        text = *end ? canonical_tag(end, &trims, &out) : end;
    }
    *out = '\0';
}

static int check_template(const char *text, const char *name, struct ward_error *err)
{
    char known_form[sizeof chat_gemma_template];
    char *form = malloc(strlen(text) + 8); /* a quote left open gains one character */
    if (!form)
        return error_no_memory(err, name, strlen(text) + 8);
    canonical(text, form);
    canonical(chat_gemma_template, known_form);
    const bool known = !strcmp(form, known_form);
    free(form);
    if (known)
        return 0;
    return error_set(err, WARD_EUNSUPPORTED,
                     "%s: has a chat template other than Gemma 3's, the only one that ward knows", name);
}

/* ---- finding ---------------------------------------------------------------------------------------------------- */

static int read_jinja(char **text, const char *path, struct ward_error *err)
{
    size_t length;
    return file_read(text, &length, path, TEMPLATE_LIMIT, err);
}

/* The "chat_template" of a JSON file: a text, or a list of {"name": ..., "template": ...}. */
static int read_json(char **text, const char *path, struct ward_error *err)
{
    struct json_document *document;
    int rc = json_read(&document, path, CONFIG_LIMIT, err);
    if (rc)
        return rc;
    const struct json *value = json_get(json_root(document), "chat_template");
    if (value && value->type == JSON_ARRAY) {
        const struct json *entry = value->first;
        while (entry && !json_string_is(json_get(entry, "name"), "default"))
            entry = entry->next;
        value = json_get(entry, "template");
        if (!value)
            rc = error_set(err, WARD_EUNSUPPORTED, "%s: none of its chat templates is named \"default\"", path);
    }
    if (value && value->type != JSON_STRING)
        rc = error_set(err, WARD_EFORMAT, "%s: its chat_template is not a text", path);
    if (!rc && value && !(*text = strdup(value->text)))
        rc = error_no_memory(err, path, value->length);
    json_close(&document);
    return rc;
}

int chat_template_read(char **text, const char *folder, struct ward_error *err)
{
    /* In transformers' order: the processor's template goes before the tokenizer's. */
    static const struct {
        const char *name;
        int (*read)(char **text, const char *path, struct ward_error *err);
    } places[] = {
        {"chat_template.jinja", read_jinja},
        {"chat_template.json", read_json},
        {"processor_config.json", read_json},
        {"tokenizer_config.json", read_json},
    };
    int rc = 0;
    *text = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !rc && !*text; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", folder, places[i].name) < 0)
            return error_no_memory(err, folder, strlen(folder));
        if (file_exists(path))
            rc = places[i].read(text, path, err);
        if (!rc && *text)
            rc = check_template(*text, path, err);
        free(path);
    }
    if (rc) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

static int find_token(int32_t *id, const struct tokenizer *tokenizer, const char *text, const char *folder,
                      struct ward_error *err)
{
    *id = tokenizer_id(tokenizer, text);
    return *id >= 0 ? 0 : error_set(err, WARD_EFORMAT, "%s: the tokenizer has no %s", folder, text);
}

static int find_tokens(struct chat_template *out, bool present, const char *folder, const struct model_config *config,
                       const struct tokenizer *tokenizer, struct ward_error *err)
{
    struct chat_template c = {
        .present = present, .start_of_turn = -1, .end_of_turn = -1, .image = -1, .boi = -1, .eoi = -1};
    int rc = find_token(&c.bos, tokenizer, "<bos>", folder, err);
    if (!rc && c.present)
        rc = find_token(&c.start_of_turn, tokenizer, "<start_of_turn>", folder, err);
    if (!rc && c.present)
        rc = find_token(&c.end_of_turn, tokenizer, "<end_of_turn>", folder, err);
    if (config->image_tokens > 0) {
        if (!rc)
            rc = find_token(&c.boi, tokenizer, "<start_of_image>", folder, err);
        if (!rc)
            rc = find_token(&c.eoi, tokenizer, "<end_of_image>", folder, err);
        if (!rc)
            rc = find_token(&c.image, tokenizer, "<image_soft_token>", folder, err);
        if (!rc && c.image != config->image_token)
            rc = error_set(err, WARD_EFORMAT, "%s: <image_soft_token> is %d for the tokenizer, but %d in config.json",
                           folder, (int)c.image, config->image_token);
    }
    c.thinking_start = tokenizer_id(tokenizer, "<unused94>");
    c.thinking_end = tokenizer_id(tokenizer, "<unused95>");
    c.thinking = c.thinking_start >= 0 && c.thinking_end >= 0;
    if (!rc)
        *out = c;
    return rc;
}

int chat_template_open(struct chat_template *out, const char *folder, const struct model_config *config,
                       const struct tokenizer *tokenizer, struct ward_error *err)
{
    char *text;
    const int rc = chat_template_read(&text, folder, err);
    const bool present = text != NULL;
    free(text);
    return rc ? rc : find_tokens(out, present, folder, config, tokenizer, err);
}

int chat_template_read_gguf(char **text, const struct gguf *file, struct ward_error *err)
{
    const struct gguf_value *value = gguf_value(file, "tokenizer.chat_template");
    const char *found;
    size_t at = 0, length;
    *text = NULL;
    if (!value)
        return 0;
    if (value->type != GGUF_STRING || !gguf_next_string(value, &at, &found, &length))
        return error_set(err, WARD_EFORMAT, "%s: its tokenizer.chat_template is not a text", gguf_name(file));
    *text = strndup(found, length);
    return *text ? 0 : error_no_memory(err, gguf_name(file), length);
}

int chat_template_from_gguf(struct chat_template *out, const struct gguf *file, const struct model_config *config,
                            const struct tokenizer *tokenizer, struct ward_error *err)
{
    static const char turn[] = "<start_of_turn>";
    char *text;
    if (chat_template_read_gguf(&text, file, err))
        return err->code;
    const bool none = text && !*text; /* a pretrained checkpoint's, as `ward quantize` writes it */
    const bool foreign = text && *text && !strstr(text, turn);
    const bool present = text ? !none : tokenizer_id(tokenizer, turn) >= 0;
    free(text);
    if (foreign)
        return error_set(err, WARD_EUNSUPPORTED,
                         "%s: has a chat template that does not write Gemma's turns, the only ones that ward knows",
                         gguf_name(file));
    return find_tokens(out, present, gguf_name(file), config, tokenizer, err);
}
