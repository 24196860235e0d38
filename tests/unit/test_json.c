/* JSON: what is read, what is refused and with which sentence, what is written. */
#include "base/json.h"

#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct json_document *parse(const char *text)
{
    struct json_document *document;
    struct ward_error err = {0};
    if (json_parse(&document, text, strlen(text), "a.json", &err))
        fail_msg("%s: %s", text, err.text);
    return document;
}

static void test_tree(void **state)
{
    (void)state;
    struct json_document *document = parse(" {\"a\": [1, -2.50, \"x\\u0000y\\ud83d\\ude00\\n\", null, true, false, {}, "
                                           "[]], \"\": {\"b\": \"c\"}, \"z\": null}\n");
    const struct json *root = json_root(document);
    assert_int_equal(root->type, JSON_OBJECT);
    assert_int_equal(root->n, 3);
    const struct json *array = json_get(root, "a"), *item = array->first;
    assert_int_equal(array->type, JSON_ARRAY);
    assert_int_equal(array->n, 8);
    assert_string_equal(item->text, "1");
    item = item->next;
    assert_string_equal(item->text, "-2.50");
    item = item->next;
    assert_int_equal(item->length, 8);
    assert_memory_equal(item->text, "x\0y\xf0\x9f\x98\x80\n", 9);
    static const enum json_type rest[] = {JSON_NULL, JSON_TRUE, JSON_FALSE, JSON_OBJECT, JSON_ARRAY};
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) {
        item = item->next;
        assert_int_equal(item->type, rest[i]);
    }
    assert_null(item->next);
    assert_true(json_string_is(json_get(json_get(root, ""), "b"), "c"));
    assert_null(json_get(root, "z"));
    assert_int_equal(json_get_any(root, "z")->type, JSON_NULL);
    assert_null(json_get_any(root, "y"));
    assert_null(json_get(NULL, "a"));
    assert_null(json_get(array, "a"));
    json_close(&document);
    assert_null(document);
}

static void test_scalar_roots(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "0", "-0", "1e400", "\"\"", "null", "true", "[]", "{}", "123456789012345678901234567890"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct json_document *document = parse(texts[i]);
        assert_non_null(json_root(document));
        json_close(&document);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool whole, number;
        int64_t integer;
        double value;
    } cases[] = {
        {"0", true, true, 0, 0},
        {"-7", true, true, -7, -7},
        {"1e6", true, true, 1000000, 1e6},
        {"10000.0", true, true, 10000, 1e4},
        {"9007199254740992", true, true, 9007199254740992, 0x1p53},
        {"9223372036854775807", true, true, INT64_MAX, 0x1p63},
        {"-9223372036854775808", true, true, INT64_MIN, -0x1p63},
        {"9223372036854775808", false, true, 0, 0x1p63},
        {"1e18", false, true, 0, 1e18},
        {"0.5", false, true, 0, 0.5},
        {"1e-6", false, true, 0, 1e-6},
        {"1e400", false, false, 0, 0},
        {"-1e400", false, false, 0, 0},
        {"\"1\"", false, false, 0, 0},
        {"true", false, false, 0, 0},
        {"[1]", false, false, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_document *document = parse(cases[i].text);
        int64_t integer = 0;
        double value = 0;
        assert_int_equal(json_integer(json_root(document), INT64_MIN, INT64_MAX, &integer), cases[i].whole);
        assert_int_equal(json_number(json_root(document), &value), cases[i].number);
        assert_true(integer == cases[i].integer);
        assert_true(value == cases[i].value);
        json_close(&document);
    }
    struct json_document *document = parse("5");
    int64_t integer;
    assert_false(json_integer(json_root(document), 6, 10, &integer));
    assert_false(json_integer(json_root(document), 0, 4, &integer));
    assert_false(json_integer(NULL, 0, 4, &integer));
    json_close(&document);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"", "is empty"},
        {" ", "premature EOF"},
        {"\xef\xbb\xbf{}", "line 1: is not valid JSON"},
        {"{", "premature EOF"},
        {"[1, 2", "premature EOF"},
        {"\"abc", "premature EOF"},
        {"{}x", "is not valid JSON"},
        {"{} {}", "trailing garbage"},
        {"1 2", "trailing garbage"},
        {"[1,]", "is not valid JSON"},
        {"{\"a\": 1,}", "is not valid JSON"},
        {"{\"a\" 1}", "is not valid JSON"},
        {"{a: 1}", "is not valid JSON"},
        {"{\"a\": 1\n,\n\"a\": }", "line 3: is not valid JSON"},
        {"[NaN]", "is not valid JSON"},
        {"[Infinity]", "is not valid JSON"},
        {"[-Infinity]", "is not valid JSON"},
        {"[01]", "is not valid JSON"},
        {"[+1]", "is not valid JSON"},
        {"[.5]", "is not valid JSON"},
        {"[1.]", "is not valid JSON"},
        {"[1e]", "is not valid JSON"},
        {"[0x10]", "is not valid JSON"},
        {"[nul]", "is not valid JSON"},
        {"['a']", "is not valid JSON"},
        {"[1 // one\n]", "is not valid JSON"},
        {"[\"\t\"]", "is not valid JSON"},
        {"[\"\\x\"]", "is not valid JSON"},
        {"[\"\\u12g4\"]", "is not valid JSON"},
        {"[\"\\u12", "is not valid JSON"},
        {"[\"\\", "is not valid JSON"},
        {"[\"\\ud800\"]", "half a surrogate pair"},
        {"[\"\\ud800\\u0041\"]", "half a surrogate pair"},
        {"[\"\\ud800\\ud800\"]", "half a surrogate pair"},
        {"[\"\\udc00\"]", "half a surrogate pair"},
        {"[\"\\ud800\\udc0", "half a surrogate pair"},
        {"[\"\xff\"]", "a byte that is not UTF-8"},
        {"[\"\xc0\xaf\"]", "a byte that is not UTF-8"},
        {"[\"\xe0\x80\xaf\"]", "a byte that is not UTF-8"},
        {"[\"\xed\xa0\x80\"]", "a byte that is not UTF-8"},
        {"[\"\xf4\x90\x80\x80\"]", "a byte that is not UTF-8"},
        {"[\"\xe2\x82\"]", "a byte that is not UTF-8"},
        {"[\"\xe2\x82", "a byte that is not UTF-8"},
        {"{\"a\": 1, \"b\": 2, \"a\": 3}", "key \"a\" is given twice"},
        {"[{\"a\": {\"c\": 1, \"\\u0063\": 2}}]", "key \"c\" is given twice"},
        {"{\"a\\u0000b\": 1}", "a key holds a NUL"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_document *document = (struct json_document *)&document;
        struct ward_error err = {0};
        assert_int_equal(json_parse(&document, cases[i].text, strlen(cases[i].text), "a.json", &err), WARD_EFORMAT);
        assert_null(document);
        assert_int_equal(err.code, WARD_EFORMAT);
        if (strncmp(err.text, "a.json: ", 8) || !strstr(err.text, cases[i].expected))
            fail_msg("%s: said \"%s\", expected \"%s\"", cases[i].text, err.text, cases[i].expected);
        assert_int_equal(json_parse(&document, cases[i].text, strlen(cases[i].text), "a.json", NULL), WARD_EFORMAT);
    }
    struct json_document *document;
    struct ward_error err;
    assert_int_equal(json_parse(&document, "[1\0]", 4, "a.json", &err), WARD_EFORMAT);
}

/* Text is checked several bytes at a time: a fault is found wherever it stands. */
static void test_refused_anywhere(void **state)
{
    (void)state;
    static const char *const faults[] = {"\xff", "\x80", "\\udc00", "\xe2\x82"};
    for (size_t fault = 0; fault < sizeof faults / sizeof *faults; fault++)
        for (int before = 0; before < 20; before++)
            for (int after = 0; after < 20; after++) {
                char text[64];
                struct json_document *document;
                const int n = snprintf(text, sizeof text, "\"%.*s%s%.*s\"", before, "aaaaaaaaaaaaaaaaaaaa",
                                       faults[fault], after, "aaaaaaaaaaaaaaaaaaaa");
                assert_int_equal(json_parse(&document, text, (size_t)n, "a.json", NULL), WARD_EFORMAT);
            }
}

static int parse_nested(int depth, struct ward_error *err)
{
    char *text = calloc(2, (size_t)depth);
    assert_non_null(text);
    memset(text, '[', (size_t)depth);
    memset(text + depth, ']', (size_t)depth);
    struct json_document *document;
    const int rc = json_parse(&document, text, (size_t)depth * 2, "a.json", err);
    json_close(&document);
    free(text);
    return rc;
}

static void test_depth(void **state)
{
    (void)state;
    struct ward_error err;
    assert_int_equal(parse_nested(JSON_DEPTH, &err), 0);
    assert_int_equal(parse_nested(JSON_DEPTH + 1, &err), WARD_EFORMAT);
    assert_non_null(strstr(err.text, "nested deeper than 64"));
    assert_int_equal(parse_nested(1000000, &err), WARD_EFORMAT);
}

/* A million keys, and as many values as are allowed and one more: neither hangs. */
static void test_large(void **state)
{
    (void)state;
    const size_t capacity = 2 * (size_t)JSON_MAX_VALUES + 32;
    char *text = malloc(capacity);
    assert_non_null(text);
    size_t n = 0;
    text[n++] = '{';
    for (int i = 0; i < 500000; i++)
        n += (size_t)snprintf(text + n, capacity - n, "\"%d\":0,", i);
    n += (size_t)snprintf(text + n, capacity - n, "\"77\":0}");
    struct json_document *document;
    struct ward_error err;
    assert_int_equal(json_parse(&document, text, n, "a.json", &err), WARD_EFORMAT);
    assert_string_equal(err.text, "a.json: key \"77\" is given twice");
    n = 0;
    text[n++] = '[';
    for (int i = 1; i < JSON_MAX_VALUES; i++) {
        memcpy(text + n, "0,", 2);
        n += 2;
    }
    text[n - 1] = ']';
    assert_int_equal(json_parse(&document, text, n, "a.json", &err), 0);
    json_close(&document);
    memcpy(text + n - 1, ",0]", 3);
    assert_int_equal(json_parse(&document, text, n + 2, "a.json", &err), WARD_EFORMAT);
    assert_non_null(strstr(err.text, "holds more than"));
    free(text);
}

struct log {
    char text[256];
    struct ward_error *err;
};

static void log_add(struct log *log, const char *text, size_t length)
{
    const size_t used = strlen(log->text);
    snprintf(log->text + used, sizeof log->text - used, "%.*s ", (int)length, text);
}

static bool log_start(void *user, bool array)
{
    log_add(user, array ? "[" : "{", 1);
    return true;
}

static bool log_end(void *user, bool array)
{
    log_add(user, array ? "]" : "}", 1);
    return true;
}

static bool log_text(void *user, const char *text, size_t length)
{
    log_add(user, text, length);
    return true;
}

static bool log_literal(void *user, enum json_type type)
{
    log_add(user, type == JSON_NULL ? "n" : type == JSON_TRUE ? "t" : "f", 1);
    return true;
}

static bool refuse_number(void *user, const char *text, size_t length)
{
    struct log *log = user;
    error_set(log->err, WARD_EUNSUPPORTED, "no %.*s", (int)length, text);
    return false;
}

static void test_events(void **state)
{
    (void)state;
    struct json_events events = {log_start, log_end, log_text, log_text, log_text, log_literal};
    const char *text = "{\"a\": [1, \"b\", null, true, false]}";
    struct ward_error err = {0};
    struct log log = {"", &err};
    assert_int_equal(json_walk(&events, &log, text, strlen(text), "a.json", &err), 0);
    assert_string_equal(log.text, "{ a [ 1 b n t f ] } ");
    events = (struct json_events){.number = refuse_number};
    assert_int_equal(json_walk(&events, &log, text, strlen(text), "a.json", &err), WARD_EUNSUPPORTED);
    assert_string_equal(err.text, "no 1");
    log.err = NULL;
    assert_true(json_walk(&events, &log, text, strlen(text), "a.json", NULL) < 0);
}

static void write_sample(struct json_writer *w)
{
    json_write_open(w, NULL, '{');
    json_write_string(w, "te\"xt", "a\"\\\n\x01\x7f\0/\xc3\xa9\xff\xe2\x82z\xed\xa0\x80", 17);
    json_write_open(w, "ids", '[');
    json_write_integer(w, NULL, 1);
    json_write_integer(w, NULL, INT64_MIN);
    json_write_close(w, ']');
    json_write_open(w, "rows", '[');
    json_write_open(w, NULL, '{');
    json_write_number(w, "p", -0.12345, 4);
    json_write_number(w, "q", 2.5, 0);
    json_write_close(w, '}');
    json_write_open(w, NULL, '{');
    json_write_close(w, '}');
    json_write_close(w, ']');
    json_write_number(w, "nan", NAN, 2);
    json_write_null(w, "none");
    json_write_boolean(w, "yes", true);
    json_write_boolean(w, "no", false);
    json_write_close(w, '}');
}

static const char escaped[] = "\"te\\\"xt\":\"a\\\"\\\\\\n\\u0001\\u007f\\u0000/\xc3\xa9\xef\xbf\xbd\xef\xbf\xbdz"
                              "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"";

static void test_writer(void **state)
{
    (void)state;
    struct json_writer *w = json_writer_new(false);
    assert_string_equal(json_writer_text(w, NULL), "");
    write_sample(w);
    char expected[512];
    snprintf(expected, sizeof expected,
             "{%s,\"ids\":[1,-9223372036854775808],\"rows\":[{\"p\":-0.1235,\"q\":2},{}],\"nan\":null,\"none\":null,"
             "\"yes\":true,\"no\":false}",
             escaped);
    size_t length;
    const char *text = json_writer_text(w, &length);
    assert_string_equal(text, expected);
    assert_int_equal(length, strlen(expected));
    struct json_document *document = parse(text);
    assert_int_equal(json_get(json_root(document), "te\"xt")->length, 26);
    json_close(&document);
    json_writer_free(&w);
    assert_null(w);
}

static void test_writer_pretty(void **state)
{
    (void)state;
    struct json_writer *w = json_writer_new(true);
    json_write_open(w, NULL, '{');
    json_write_open(w, "ids", '[');
    json_write_integer(w, NULL, 1);
    json_write_integer(w, NULL, 2);
    json_write_close(w, ']');
    json_write_open(w, "rows", '[');
    json_write_open(w, NULL, '{');
    json_write_null(w, "a");
    json_write_close(w, '}');
    json_write_close(w, ']');
    json_write_open(w, "empty", '[');
    json_write_close(w, ']');
    json_write_close(w, '}');
    assert_string_equal(json_writer_text(w, NULL),
                        "{\n  \"ids\": [1, 2],\n  \"rows\": [\n    {\n      \"a\": null\n    }\n  ],\n"
                        "  \"empty\": []\n}");
    json_writer_free(&w);
}

/* Numbers keep their point where the locale of the program writes a comma. */
static void test_locale(void **state)
{
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    const char *found = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = setlocale(LC_ALL, names[i]);
    if (!found) {
        print_message("# no locale with a decimal comma is installed\n");
        skip();
    }
    struct json_writer *w = json_writer_new(false);
    json_write_number(w, NULL, 1.5, 2);
    assert_string_equal(json_writer_text(w, NULL), "1.50");
    struct json_document *document = parse("[2.25]");
    double value;
    assert_true(json_number(json_root(document)->first, &value));
    assert_true(value == 2.25);
    json_close(&document);
    json_writer_free(&w);
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),          cmocka_unit_test(test_scalar_roots),     cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_refused_anywhere), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_large),         cmocka_unit_test(test_events),           cmocka_unit_test(test_writer),
        cmocka_unit_test(test_writer_pretty), cmocka_unit_test(test_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
