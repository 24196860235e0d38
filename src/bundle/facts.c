/* bundle.json. */
#include "bundle/bundle.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "ward bundle 1"

struct field {
    const char *name;
    size_t offset, room;
};
#define FIELD(name) {#name, offsetof(struct bundle_facts, name), sizeof((struct bundle_facts *)0)->name}
static const struct field fields[] = {FIELD(ward), FIELD(machine), FIELD(libc), FIELD(created), FIELD(model_sha256)};
enum { N_FIELDS = sizeof fields / sizeof *fields };

int bundle_facts_write(char **text, const struct bundle_facts *facts, struct ward_error *err)
{
    struct json_writer *w = json_writer_new(true);
    const char *json = NULL;
    *text = NULL;
    if (w) {
        json_write_open(w, NULL, '{');
        json_write_text(w, "format", FORMAT);
        for (size_t i = 0; i < N_FIELDS; i++)
            json_write_text(w, fields[i].name, (const char *)facts + fields[i].offset);
        json_write_close(w, '}');
        json = json_writer_text(w, &(size_t){0});
    }
    if (!json || asprintf(text, "%s\n", json) < 0)
        *text = NULL;
    json_writer_free(&w);
    return *text ? 0 : error_no_memory(err, "bundle.json", 1);
}

/* What becomes part of a file's name later has no slash. */
static bool is_plain(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!strchr("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._:+-", text[i]) || !text[i])
            return false;
    return length && text[0] != '.';
}

int bundle_facts_parse(struct bundle_facts *out, const char *text, size_t length, const char *name,
                       struct ward_error *err)
{
    struct json_document *document;
    int rc = json_parse(&document, text, length, name, err);
    if (rc)
        return rc;
    const struct json *root = json_root(document);
    if (!json_string_is(json_get(root, "format"), FORMAT))
        rc = error_set(err, WARD_EUNSUPPORTED, "%s: is of another format than \"" FORMAT "\"", name);
    for (size_t i = 0; i < N_FIELDS && !rc; i++) {
        const struct json *value = json_get(root, fields[i].name);
        if (!value || value->type != JSON_STRING || value->length >= fields[i].room ||
            !is_plain(value->text, value->length))
            rc = error_set(err, WARD_EFORMAT, "%s: %s is no short text", name, fields[i].name);
        else
            snprintf((char *)out + fields[i].offset, fields[i].room, "%s", value->text);
    }
    json_close(&document);
    return rc;
}
