/* JSON as a tree, as events, and written again. */
#include "fuzz.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

/* ---- events ------------------------------------------------------------------------------------------------------ */

struct count {
    size_t values;
    int depth;
};

static bool on_start(void *user, bool array)
{
    struct count *c = user;
    (void)array;
    c->values++;
    REQUIRE(++c->depth <= JSON_DEPTH);
    return true;
}

static bool on_end(void *user, bool array)
{
    struct count *c = user;
    (void)array;
    REQUIRE(--c->depth >= 0);
    return true;
}

static bool on_key(void *user, const char *text, size_t length)
{
    (void)user;
    (void)text;
    REQUIRE(length <= 1 << 24);
    return true;
}

static bool on_text(void *user, const char *text, size_t length)
{
    struct count *c = user;
    REQUIRE(text || !length);
    c->values++;
    return true;
}

static bool on_literal(void *user, enum json_type type)
{
    struct count *c = user;
    REQUIRE(type <= JSON_TRUE);
    c->values++;
    return true;
}

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

/* Numbers become text: as they are written they need not survive. Returns the number of values. */
static size_t write_tree(struct json_writer *w, const struct json *value)
{
    size_t n = 1, children = 0;
    const bool array = value->type == JSON_ARRAY;
    int64_t whole;
    double number;
    switch (value->type) {
    case JSON_ARRAY:
    case JSON_OBJECT:
        json_write_open(w, value->key, array ? '[' : '{');
        for (const struct json *child = value->first; child; child = child->next, children++) {
            REQUIRE(!child->key == array);
            REQUIRE(array || json_get_any(value, child->key) == child);
            n += write_tree(w, child);
        }
        REQUIRE(children == value->n);
        json_write_close(w, array ? ']' : '}');
        break;
    case JSON_NULL:
        json_write_null(w, value->key);
        break;
    case JSON_NUMBER:
        if (json_integer(value, INT64_MIN, INT64_MAX, &whole))
            REQUIRE(json_number(value, &number));
        if (json_number(value, &number))
            json_write_number(w, value->key, number, 3);
        else
            json_write_string(w, value->key, value->text, value->length);
        break;
    case JSON_STRING:
        REQUIRE(value->text[value->length] == '\0');
        json_write_string(w, value->key, value->text, value->length);
        break;
    default:
        json_write_boolean(w, value->key, value->type == JSON_TRUE);
    }
    return n;
}

/* What is written can be read, and writes itself again. */
static void check_written(const struct json *root, size_t values, bool pretty)
{
    struct json_writer *first = json_writer_new(pretty), *second = json_writer_new(pretty);
    struct json_document *document;
    struct ward_error err;
    size_t length, again;
    REQUIRE(first && second);
    REQUIRE(write_tree(first, root) == values);
    const char *text = json_writer_text(first, &length);
    REQUIRE(text && !json_parse(&document, text, length, "written", &err));
    REQUIRE(write_tree(second, json_root(document)) == values);
    const char *other = json_writer_text(second, &again);
    REQUIRE(other && again == length && !memcmp(text, other, length));
    json_close(&document);
    json_writer_free(&first);
    json_writer_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct json_events events = {on_start, on_end, on_key, on_text, on_text, on_literal};
    struct count count = {0};
    struct ward_error err = {0};
    struct json_document *document;
    const int walked = json_walk(&events, &count, (const char *)data, size, "input", &err);
    fuzz_check_result(walked, &err);
    const int rc = json_parse(&document, (const char *)data, size, "input", &err);
    fuzz_check_result(rc, &err);
    REQUIRE(rc || !walked);
    if (rc)
        return 0;
    REQUIRE(count.depth == 0);
    check_written(json_root(document), count.values, false);
    check_written(json_root(document), count.values, true);
    json_close(&document);
    return 0;
}
