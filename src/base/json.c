#include "base/json.h"

#include "base/mapping.h"
#include "base/utf8.h"

#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

/* ---- characters -------------------------------------------------------------------------------------------------- */

/* Four hexadecimal digits, or -1. */
static int hex4(const uint8_t *text, size_t length)
{
    if (length < 4)
        return -1;
    int value = 0;
    for (int i = 0; i < 4; i++) {
        const uint8_t c = text[i], letter = c | 0x20;
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if (letter >= 'a' && letter <= 'f')
            value = value * 16 + (letter - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* Length of the escape at text ("\..."), or 0 when it names a surrogate without its other half. yajl would turn those
 * into bytes that are not UTF-8. Other faults are left to yajl. */
static size_t escape_length(const uint8_t *text, size_t length)
{
    if (length < 2 || text[1] != 'u')
        return length < 2 ? length : 2;
    const int unit = hex4(text + 2, length - 2);
    if (unit < 0xd800 || unit > 0xdfff)
        return 2;
    if (unit > 0xdbff || length < 12 || text[6] != '\\' || text[7] != 'u')
        return 0;
    const int low = hex4(text + 8, length - 8);
    return low >= 0xdc00 && low <= 0xdfff ? 12 : 0;
}

static int line_of(const char *text, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset; i++)
        line += text[i] == '\n' && line < INT_MAX;
    return line;
}

/* Bytes that need no look, eight at a time: ASCII without backslashes. Most of a tokenizer.json is. */
static size_t plain_length(const uint8_t *text, size_t length)
{
    const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= length; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        const uint64_t slash = word ^ ones * '\\'; /* a byte of 0 where there is one */
        if ((word | ((slash - ones) & ~slash)) & tops)
            break;
    }
    return i;
}

static int check_characters(const char *text, size_t length, const char *name, struct ward_error *err)
{
    const uint8_t *bytes = (const uint8_t *)text;
    for (size_t i = plain_length(bytes, length); i < length; i += plain_length(bytes + i, length - i)) {
        size_t n, skip;
        if (bytes[i] == '\\') {
            n = escape_length(bytes + i, length - i);
            if (!n)
                return error_set(err, WARD_EFORMAT, "%s: line %d: is not valid JSON: half a surrogate pair", name,
                                 line_of(text, i));
        } else {
            n = utf8_character(bytes + i, length - i, &skip);
            if (!n)
                return error_set(err, WARD_EFORMAT, "%s: line %d: is not valid JSON: a byte that is not UTF-8", name,
                                 line_of(text, i));
        }
        i += n;
    }
    return 0;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

struct walk {
    const struct json_events *events;
    void *user;
    const char *name;
    struct ward_error *err;
    int depth;
};

static int walk_start(struct walk *w, bool array)
{
    if (w->depth == JSON_DEPTH) {
        error_set(w->err, WARD_EFORMAT, "%s: is nested deeper than %d levels", w->name, JSON_DEPTH);
        return 0;
    }
    w->depth++;
    return !w->events->start || w->events->start(w->user, array);
}

static int walk_end(struct walk *w, bool array)
{
    w->depth--;
    return !w->events->end || w->events->end(w->user, array);
}

static int walk_literal(struct walk *w, enum json_type type)
{
    return !w->events->literal || w->events->literal(w->user, type);
}

static int on_null(void *ctx)
{
    return walk_literal(ctx, JSON_NULL);
}

static int on_boolean(void *ctx, int value)
{
    return walk_literal(ctx, value ? JSON_TRUE : JSON_FALSE);
}

static int on_number(void *ctx, const char *text, size_t length)
{
    struct walk *w = ctx;
    return !w->events->number || w->events->number(w->user, text, length);
}

static int on_string(void *ctx, const unsigned char *text, size_t length)
{
    struct walk *w = ctx;
    return !w->events->string || w->events->string(w->user, (const char *)text, length);
}

static int on_key(void *ctx, const unsigned char *text, size_t length)
{
    struct walk *w = ctx;
    return !w->events->key || w->events->key(w->user, (const char *)text, length);
}

static int on_start_map(void *ctx)
{
    return walk_start(ctx, false);
}

static int on_end_map(void *ctx)
{
    return walk_end(ctx, false);
}

static int on_start_array(void *ctx)
{
    return walk_start(ctx, true);
}

static int on_end_array(void *ctx)
{
    return walk_end(ctx, true);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end_map,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end_array,
};

/* yajl's sentence, without its own newline, and the line it stopped at. */
static int syntax_error(yajl_handle parser, const char *text, size_t length, const char *name, struct ward_error *err)
{
    size_t at = yajl_get_bytes_consumed(parser);
    unsigned char *message = yajl_get_error(parser, 0, NULL, 0);
    const int said = message ? (int)strcspn((const char *)message, "\n") : 0;
    error_set(err, WARD_EFORMAT, "%s: line %d: is not valid JSON: %.*s", name, line_of(text, at < length ? at : length),
              said, message ? (const char *)message : "");
    if (message)
        yajl_free_error(parser, message);
    return WARD_EFORMAT;
}

int json_walk(const struct json_events *events, void *user, const char *text, size_t length, const char *name,
              struct ward_error *err)
{
    if (!length)
        return error_set(err, WARD_EFORMAT, "%s: is empty; JSON was expected", name);
    int rc = check_characters(text, length, name, err);
    if (rc)
        return rc;
    struct walk w = {events, user, name, err, 0};
    yajl_handle parser = yajl_alloc(&callbacks, NULL, &w);
    if (!parser)
        return error_no_memory(err, name, length);
    yajl_config(parser, yajl_dont_validate_strings, 1); /* check_characters is stricter */
    yajl_status status = yajl_parse(parser, (const unsigned char *)text, length);
    if (status == yajl_status_ok)
        status = yajl_complete_parse(parser);
    if (status == yajl_status_client_canceled)
        rc = err && err->code ? err->code : WARD_EFORMAT;
    else if (status != yajl_status_ok)
        rc = syntax_error(parser, text, length, name, err);
    yajl_free(parser);
    return rc;
}

/* ---- the tree ---------------------------------------------------------------------------------------------------- */

/* Memory that is freed all at once. Blocks double, so a document takes few of them. */
struct block {
    struct block *next;
    size_t used, size;
    _Alignas(max_align_t) char data[];
};

struct json_document {
    struct block *blocks;
    struct json *root;
};

struct level {
    struct json *parent;
    const struct json **tail; /* where the next child goes */
};

struct tree {
    struct json_document *document;
    const char *name;
    struct ward_error *err;
    const char *key; /* read, its value still to come */
    struct level levels[JSON_DEPTH + 1];
    int depth;
    size_t n_values;
};

static void *arena_alloc(struct json_document *document, size_t size)
{
    struct block *block = document->blocks;
    size = (size + 7) & ~(size_t)7;
    if (!block || block->size - block->used < size) {
        size_t capacity = block ? block->size * 2 : 4096;
        while (capacity < size)
            capacity *= 2;
        struct block *fresh = malloc(sizeof *fresh + capacity);
        if (!fresh)
            return NULL;
        *fresh = (struct block){block, 0, capacity};
        document->blocks = block = fresh;
    }
    void *data = block->data + block->used;
    block->used += size;
    return data;
}

static const char *arena_text(struct json_document *document, const char *text, size_t length)
{
    char *copy = arena_alloc(document, length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

static bool tree_no_memory(struct tree *t, size_t bytes)
{
    error_no_memory(t->err, t->name, bytes);
    return false;
}

/* Adds a value to the innermost open array or object. */
static struct json *tree_add(struct tree *t, enum json_type type, const char *text, size_t length)
{
    if (t->n_values++ == JSON_MAX_VALUES) {
        error_set(t->err, WARD_EFORMAT, "%s: holds more than %d values", t->name, JSON_MAX_VALUES);
        return NULL;
    }
    struct json *value = arena_alloc(t->document, sizeof *value);
    const char *copy = value && text ? arena_text(t->document, text, length) : NULL;
    if (!value || (text && !copy)) {
        tree_no_memory(t, sizeof *value + length);
        return NULL;
    }
    *value = (struct json){.type = type, .key = t->key, .text = copy, .length = length};
    t->key = NULL;
    if (t->depth) {
        struct level *level = &t->levels[t->depth - 1];
        *level->tail = value;
        level->tail = &value->next;
        level->parent->n++;
    } else {
        t->document->root = value;
    }
    return value;
}

static bool tree_start(void *user, bool array)
{
    struct tree *t = user;
    struct json *value = tree_add(t, array ? JSON_ARRAY : JSON_OBJECT, NULL, 0);
    if (!value)
        return false;
    t->levels[t->depth++] = (struct level){value, &value->first};
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorting finds a key given twice in n log n, so that a hostile object of a million keys does not hang. */
static bool check_unique(struct tree *t, const struct json *object)
{
    if (object->n < 2)
        return true;
    const char **keys = malloc(object->n * sizeof *keys); /* n is at most JSON_MAX_VALUES */
    if (!keys)
        return tree_no_memory(t, object->n * sizeof *keys);
    size_t n = 0;
    for (const struct json *child = object->first; child; child = child->next)
        keys[n++] = child->key;
    qsort(keys, n, sizeof *keys, compare_keys);
    bool unique = true;
    for (size_t i = 1; i < n && unique; i++)
        if (!strcmp(keys[i - 1], keys[i])) {
            error_set(t->err, WARD_EFORMAT, "%s: key \"%.200s\" is given twice", t->name, keys[i]);
            unique = false;
        }
    free(keys);
    return unique;
}

static bool tree_end(void *user, bool array)
{
    struct tree *t = user;
    const struct json *value = t->levels[--t->depth].parent;
    return array || check_unique(t, value);
}

static bool tree_key(void *user, const char *text, size_t length)
{
    struct tree *t = user;
    if (memchr(text, 0, length)) {
        error_set(t->err, WARD_EFORMAT, "%s: a key holds a NUL character", t->name);
        return false;
    }
    t->key = arena_text(t->document, text, length);
    return t->key || tree_no_memory(t, length);
}

static bool tree_string(void *user, const char *text, size_t length)
{
    return tree_add(user, JSON_STRING, text, length);
}

static bool tree_number(void *user, const char *text, size_t length)
{
    return tree_add(user, JSON_NUMBER, text, length);
}

static bool tree_literal(void *user, enum json_type type)
{
    return tree_add(user, type, NULL, 0);
}

int json_parse(struct json_document **out, const char *text, size_t length, const char *name, struct ward_error *err)
{
    static const struct json_events events = {tree_start, tree_end, tree_key, tree_string, tree_number, tree_literal};
    *out = NULL;
    struct json_document *document = calloc(1, sizeof *document);
    if (!document)
        return error_no_memory(err, name, sizeof *document);
    struct tree tree = {.document = document, .name = name, .err = err};
    int rc = json_walk(&events, &tree, text, length, name, err);
    if (rc)
        json_close(&document);
    *out = document;
    return rc;
}

int json_read(struct json_document **out, const char *path, size_t limit, struct ward_error *err)
{
    char *text;
    size_t length;
    *out = NULL;
    int rc = file_read(&text, &length, path, limit, err);
    if (rc)
        return rc;
    rc = json_parse(out, text, length, path, err);
    free(text);
    return rc;
}

void json_close(struct json_document **document)
{
    if (!*document)
        return;
    for (struct block *block = (*document)->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(*document);
    *document = NULL;
}

const struct json *json_root(const struct json_document *document)
{
    return document->root;
}

const struct json *json_get_any(const struct json *object, const char *key)
{
    if (object && object->type == JSON_OBJECT)
        for (const struct json *child = object->first; child; child = child->next)
            if (!strcmp(child->key, key))
                return child;
    return NULL;
}

const struct json *json_get(const struct json *object, const char *key)
{
    const struct json *value = json_get_any(object, key);
    return value && value->type != JSON_NULL ? value : NULL;
}

/* strtod as in the C locale, whatever locale the program that embeds the library has set. */
static double number_value(const char *text)
{
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale)
        return NAN;
    const double value = strtod_l(text, NULL, c_locale);
    freelocale(c_locale);
    return value;
}

bool json_number(const struct json *value, double *out)
{
    if (!value || value->type != JSON_NUMBER)
        return false;
    const double number = number_value(value->text);
    if (!isfinite(number))
        return false;
    *out = number;
    return true;
}

bool json_integer(const struct json *value, int64_t low, int64_t high, int64_t *out)
{
    if (!value || value->type != JSON_NUMBER)
        return false;
    int64_t whole;
    if (strpbrk(value->text, ".eE")) {
        const double number = number_value(value->text);
        if (!(fabs(number) <= 0x1p53) || number != floor(number))
            return false;
        whole = (int64_t)number;
    } else {
        errno = 0;
        const long long parsed = strtoll(value->text, NULL, 10);
        if (errno)
            return false;
        whole = parsed;
    }
    if (whole < low || whole > high)
        return false;
    *out = whole;
    return true;
}

bool json_string_is(const struct json *value, const char *text)
{
    return value && value->type == JSON_STRING && value->length == strlen(text) &&
           !memcmp(value->text, text, value->length);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

struct json_writer {
    char *text;
    size_t length, capacity;
    int depth;
    bool pretty, failed;
    bool filled; /* the innermost open array or object has a member already */
    bool broken; /* what was closed last stands on a line of its own */
};

struct json_writer *json_writer_new(bool pretty)
{
    struct json_writer *w = calloc(1, sizeof *w);
    if (w)
        w->pretty = pretty;
    return w;
}

void json_writer_free(struct json_writer **writer)
{
    if (!*writer)
        return;
    free((*writer)->text);
    free(*writer);
    *writer = NULL;
}

static void put(struct json_writer *w, const char *text, size_t length)
{
    if (w->failed)
        return;
    if (w->capacity - w->length <= length) { /* one byte stays for the NUL */
        size_t capacity = w->capacity ? w->capacity : 256;
        while (capacity - w->length <= length && capacity <= SIZE_MAX / 2)
            capacity *= 2;
        char *grown = capacity - w->length > length ? realloc(w->text, capacity) : NULL;
        if (!grown) {
            w->failed = true;
            return;
        }
        w->text = grown;
        w->capacity = capacity;
    }
    memcpy(w->text + w->length, text, length);
    w->length += length;
    w->text[w->length] = '\0';
}

static void put_text(struct json_writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static void put_line(struct json_writer *w)
{
    put_text(w, "\n");
    for (int i = 0; i < w->depth; i++)
        put_text(w, "  ");
}

static void put_string(struct json_writer *w, const char *text, size_t length)
{
    const uint8_t *bytes = (const uint8_t *)text;
    put_text(w, "\"");
    for (size_t i = 0; i < length;) {
        size_t skip;
        const size_t n = utf8_character(bytes + i, length - i, &skip);
        if (!n) {
            put_text(w, "\xef\xbf\xbd");
            i += skip;
        } else if (bytes[i] == '"' || bytes[i] == '\\') {
            put(w, (const char[]){'\\', text[i]}, 2);
            i++;
        } else if (bytes[i] == '\n') {
            put_text(w, "\\n");
            i++;
        } else if (bytes[i] < 0x20 || bytes[i] == 0x7f) {
            char escape[8];
            snprintf(escape, sizeof escape, "\\u%04x", bytes[i]);
            put_text(w, escape);
            i++;
        } else {
            put(w, text + i, n);
            i += n;
        }
    }
    put_text(w, "\"");
}

/* What comes before a value: the comma, the line, the key. */
static void put_lead(struct json_writer *w, const char *key, bool container)
{
    if (w->filled)
        put_text(w, ",");
    if (w->pretty && w->depth && (key || container))
        put_line(w);
    else if (w->pretty && w->filled)
        put_text(w, " ");
    if (key) {
        put_string(w, key, strlen(key));
        put_text(w, w->pretty ? ": " : ":");
    }
    w->filled = true;
    w->broken = w->pretty && (key || container);
}

void json_write_open(struct json_writer *w, const char *key, char bracket)
{
    put_lead(w, key, true);
    put(w, &bracket, 1);
    w->depth++;
    w->filled = false;
    w->broken = false;
}

void json_write_close(struct json_writer *w, char bracket)
{
    w->depth--;
    if (w->broken)
        put_line(w);
    put(w, &bracket, 1);
    w->filled = true;
    w->broken = w->pretty;
}

void json_write_string(struct json_writer *w, const char *key, const char *text, size_t length)
{
    put_lead(w, key, false);
    put_string(w, text, length);
}

void json_write_text(struct json_writer *w, const char *key, const char *text)
{
    if (text)
        json_write_string(w, key, text, strlen(text));
    else
        json_write_null(w, key);
}

void json_write_integer(struct json_writer *w, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    put_lead(w, key, false);
    put_text(w, text);
}

void json_write_number(struct json_writer *w, const char *key, double value, int decimals)
{
    char text[384];
    if (!isfinite(value)) {
        json_write_null(w, key);
        return;
    }
    put_lead(w, key, false);
    snprintf(text, sizeof text, "%.*f", decimals < 0 ? 0 : decimals > 30 ? 30 : decimals, value);
    /* The locale of the embedding program may write something else for the point. */
    const size_t whole = strspn(text, "-0123456789");
    put(w, text, whole);
    if (text[whole]) {
        put_text(w, ".");
        put_text(w, text + whole + strcspn(text + whole, "0123456789"));
    }
}

void json_write_boolean(struct json_writer *w, const char *key, bool value)
{
    put_lead(w, key, false);
    put_text(w, value ? "true" : "false");
}

void json_write_null(struct json_writer *w, const char *key)
{
    put_lead(w, key, false);
    put_text(w, "null");
}

void json_write_value(struct json_writer *w, const char *key, const struct json *value)
{
    const bool array = value->type == JSON_ARRAY;
    switch (value->type) {
    case JSON_NULL: json_write_null(w, key); break;
    case JSON_FALSE: json_write_boolean(w, key, false); break;
    case JSON_TRUE: json_write_boolean(w, key, true); break;
    case JSON_STRING: json_write_string(w, key, value->text, value->length); break;
    case JSON_NUMBER:
        put_lead(w, key, false);
        put_text(w, value->text);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        json_write_open(w, key, array ? '[' : '{');
        for (const struct json *child = value->first; child; child = child->next)
            json_write_value(w, array ? NULL : child->key, child);
        json_write_close(w, array ? ']' : '}');
        break;
    }
}

const char *json_writer_text(struct json_writer *w, size_t *length)
{
    if (!w || w->failed)
        return NULL;
    if (length)
        *length = w->length;
    return w->text ? w->text : "";
}
