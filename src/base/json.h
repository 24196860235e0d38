/* JSON, read through yajl. Two ways in: events, for the large tokenizer.json, and a small document tree for all else.
 * Both refuse nesting deeper than JSON_DEPTH, text that is not UTF-8 and escapes of lone surrogates. The tree also
 * refuses a key given twice or holding a NUL, and more than JSON_MAX_VALUES values, which bounds its memory whatever
 * the file says. */
#ifndef WARD_BASE_JSON_H
#define WARD_BASE_JSON_H

#include "base/error.h"

enum { JSON_DEPTH = 64, JSON_MAX_VALUES = 1 << 22 };

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* One value. Children are a linked list in the order of the file. Everything lives as long as its document. */
struct json {
    enum json_type type;
    const char *key;  /* within an object: its key, NUL-terminated */
    const char *text; /* JSON_STRING: its bytes, NUL-terminated (may hold NUL inside); JSON_NUMBER: as written */
    size_t length;    /* bytes of text */
    size_t n;         /* children of an array or object */
    const struct json *first, *next;
};

struct json_document;

/* Parses text. `name` is the file to name in an error. */
WARD_CHECKED int json_parse(struct json_document **out, const char *text, size_t length, const char *name,
                            struct ward_error *err);
/* Reads and parses a file of at most `limit` bytes. */
WARD_CHECKED int json_read(struct json_document **out, const char *path, size_t limit, struct ward_error *err);
void json_close(struct json_document **document);
const struct json *json_root(const struct json_document *document);

/* A member of an object, or NULL: absent, null, or `object` is NULL or not an object. */
const struct json *json_get(const struct json *object, const char *key);
/* As json_get, but tells an explicit null (returned as a JSON_NULL value) from an absent key (NULL). */
const struct json *json_get_any(const struct json *object, const char *key);
/* The value as a whole number within [low, high]; false otherwise. Accepts 1e6 and 10000.0 as whole numbers. */
bool json_integer(const struct json *value, int64_t low, int64_t high, int64_t *out);
bool json_number(const struct json *value, double *out);
bool json_string_is(const struct json *value, const char *text);

/* Events. The callbacks return false to stop the parse with the error that they have set themselves in the `err` that
 * json_walk got. Their text is not NUL-terminated and valid only during the call. A callback left NULL is skipped. */
struct json_events {
    bool (*start)(void *user, bool array);
    bool (*end)(void *user, bool array);
    bool (*key)(void *user, const char *text, size_t length);
    bool (*string)(void *user, const char *text, size_t length);
    bool (*number)(void *user, const char *text, size_t length);
    bool (*literal)(void *user, enum json_type type); /* null, true, false */
};
WARD_CHECKED int json_walk(const struct json_events *events, void *user, const char *text, size_t length,
                           const char *name, struct ward_error *err);

/* Writing: text grows in memory; the writer tracks commas. After a failed allocation it stays failed. Strings are
 * escaped, and bytes that are not UTF-8 become U+FFFD. Numbers that are not finite become null. `pretty` breaks lines
 * between the members of objects and the objects of arrays. */
struct json_writer;
struct json_writer *json_writer_new(bool pretty); /* NULL when memory ran out */
void json_writer_free(struct json_writer **writer);
void json_write_open(struct json_writer *w, const char *key, char bracket); /* '{' or '['; key NULL inside an array */
void json_write_close(struct json_writer *w, char bracket);
void json_write_string(struct json_writer *w, const char *key, const char *text, size_t length);
void json_write_text(struct json_writer *w, const char *key, const char *text); /* to its NUL; NULL: null */
void json_write_integer(struct json_writer *w, const char *key, int64_t value);
void json_write_number(struct json_writer *w, const char *key, double value, int decimals);
void json_write_boolean(struct json_writer *w, const char *key, bool value);
void json_write_null(struct json_writer *w, const char *key);
/* A value that was parsed, with all within it; numbers as they were written. */
void json_write_value(struct json_writer *w, const char *key, const struct json *value);
/* The text so far (NUL-terminated), or NULL when memory ran out. Valid until the writer is used or freed. */
const char *json_writer_text(struct json_writer *w, size_t *length);

#endif
