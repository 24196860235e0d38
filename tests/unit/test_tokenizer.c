/* The tokenizer on small vocabularies made here: ids, text of ids, and what is refused. */
#include "folder.h"
#include "small_tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MARK "\xe2\x96\x81" /* stands for a space */
#define BYTE(b) (SMALL_BYTES + (b))

enum { A = SMALL_PIECES, B, C, AB, BC, ABC, AA, SPACE, SPACE_A, THREE_SPACES, E_ACUTE, PLUS_A_PLUS, PLUS, PLUS_A };
static const char *const pieces[] = {"a",        "b",   "c", "ab", "bc", "abc", "aa", MARK, MARK "a", MARK MARK MARK,
                                     "\xc3\xa9", "+a+", "+", "+a", NULL};
static const char *const merges[] = {
    "b c", "a b",  "ab c", "a bc", "a a", MARK " " MARK, MARK " a", MARK MARK " " MARK, MARK " " MARK MARK,
    "+ a", "+a +", NULL};
static const struct small_tokenizer plain = {.pieces = pieces, .merges = merges};

static void check(const struct tokenizer *t, const char *text, size_t length, enum tokenize_mode mode,
                  const int *expected, size_t n)
{
    struct ids ids = {0};
    struct ward_error err = {0};
    if (tokenizer_encode(t, text, length, mode, &ids, &err))
        fail_msg("\"%s\": %s", text, err.text);
    bool same = ids.n == n;
    for (size_t i = 0; i < n && same; i++)
        same = ids.at[i] == expected[i];
    if (!same) {
        print_error("# \"%s\" gives", text);
        for (size_t i = 0; i < ids.n; i++)
            print_error(" %d", (int)ids.at[i]);
        print_error("\n");
    }
    ids_free(&ids);
    assert_true(same);
}

#define CHECK_MODE(t, text, mode, ...)                                                                                 \
    check(t, text, sizeof(text) - 1, mode, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))
#define CHECK(t, text, ...) CHECK_MODE(t, text, TOKENIZE_SPECIAL, __VA_ARGS__)
#define CHECK_PLAIN(t, text, ...) CHECK_MODE(t, text, TOKENIZE_PLAIN, __VA_ARGS__)

/* ---- ids -------------------------------------------------------------------------------------------------------- */

static void test_merges(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    CHECK(t, "a", A);
    CHECK(t, "abc", ABC); /* b c first, then a bc */
    CHECK(t, "ab", AB);
    CHECK(t, "aab", A, AB); /* a b has the lower rank */
    CHECK(t, "aaa", AA, A); /* the leftmost of equals */
    CHECK(t, "aaaaa", AA, AA, A);
    CHECK(t, "cab", C, AB);
    check(t, "", 0, TOKENIZE_SPECIAL, NULL, 0);
    tokenizer_close(&t);
    assert_null(t);
}

static void test_bytes(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    CHECK(t, "\xc3\xa9", E_ACUTE);
    CHECK(t, "\xc3\xa8", BYTE(0xc3), BYTE(0xa8));
    CHECK(t,
          "a\xf0\x9f\xab\x80"
          "b",
          A, BYTE(0xf0), BYTE(0x9f), BYTE(0xab), BYTE(0x80), B);
    CHECK(t, "a\0b", A, BYTE(0), B);
    CHECK(t, "\0", BYTE(0));
    CHECK(t, "\x7f\r", BYTE(0x7f), BYTE(0x0d));
    tokenizer_close(&t);
}

static void test_spaces(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    CHECK(t, " ", SPACE);
    CHECK(t, " ab", SPACE, AB);
    CHECK(t, " a", SPACE_A);
    CHECK(t, "  ", SMALL_TWO_SPACES);
    CHECK(t, "  a", SMALL_TWO_SPACES, A);
    CHECK(t, "   ", THREE_SPACES);
    CHECK(t, "a" MARK "b", A, SPACE, B);                        /* the mark itself reads as a space */
    CHECK(t, "   " MARK MARK " ", THREE_SPACES, SMALL_TWO_SPACES,
          SPACE); /* two marks are an added token, two spaces are not */
    tokenizer_close(&t);
}

static void test_added_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    CHECK(t, "\n", SMALL_NEWLINE);
    CHECK(t, "\n\n\n\n\n\n", SMALL_NEWLINE + 3, SMALL_NEWLINE + 1); /* the longest first */
    CHECK(t, "a\n\nb", A, SMALL_NEWLINE + 1, B);
    CHECK(t, "<b>a", SMALL_BOLD, A);
    CHECK(t, "<<b>", BYTE('<'), SMALL_BOLD);
    CHECK(t, "<bos>a<eos", 2, A, BYTE('<'), BYTE('e'), BYTE('o'), BYTE('s'));
    CHECK(t, "a<start_of_turn>b", A, SMALL_START_OF_TURN, B);
    CHECK(t, "ab<unused94>c", AB, SMALL_UNUSED94, C); /* nothing merges across */
    CHECK(t, "<image_soft_token>", PLUS_A + 1);
    tokenizer_close(&t);
}

static void test_normalized_token(void **state)
{
    (void)state;
    static const char *const own[] = {"a", "b", MARK, "b" MARK "a", NULL};
    static const char *const none[] = {NULL};
    struct tokenizer *t =
        small_open(&(struct small_tokenizer){.pieces = own, .merges = none, .normalized = "b" MARK "a"});
    CHECK(t, "ab aa", SMALL_PIECES, SMALL_PIECES + 3, SMALL_PIECES); /* found once spaces have become marks */
    CHECK(t, "b\na", SMALL_PIECES + 1, SMALL_NEWLINE, SMALL_PIECES);
    tokenizer_close(&t);
}

static void test_ignore_merges(void **state)
{
    (void)state;
    static const char *const none[] = {NULL};
    struct small_tokenizer small = {.pieces = pieces, .merges = none};
    struct tokenizer *t = small_open(&small);
    CHECK(t, "abc", A, B, C);
    tokenizer_close(&t);
    small.ignore_merges = true;
    t = small_open(&small);
    CHECK(t, "abc", ABC);
    CHECK(t, "abcb", A, B, C, B);
    CHECK(t, "<b>abc", SMALL_BOLD, ABC);
    tokenizer_close(&t);
}

/* What a user writes cannot become a control token: not as an added token, not merged from pieces, not as a piece of
 * one character. */
static void test_plain(void **state)
{
    (void)state;
    for (int ignore_merges = 0; ignore_merges < 2; ignore_merges++) {
        struct tokenizer *t = small_open(&(struct small_tokenizer){
            .pieces = pieces, .merges = merges, .control = "+a+", .ignore_merges = ignore_merges});
        CHECK(t, "+a+", PLUS_A_PLUS);
        CHECK_PLAIN(t, "+a+", PLUS_A, PLUS);
        CHECK_PLAIN(t, "<bos>", BYTE('<'), B, BYTE('o'), BYTE('s'), BYTE('>'));
        CHECK_PLAIN(t, "[x]", BYTE('['), BYTE('x'), BYTE(']'));
        CHECK_PLAIN(t, "\n\n<b>  a", SMALL_NEWLINE + 1, SMALL_BOLD, SMALL_TWO_SPACES, A);
        tokenizer_close(&t);
        t = small_open(&(struct small_tokenizer){
            .pieces = pieces, .merges = merges, .control = "+", .ignore_merges = ignore_merges});
        CHECK(t, "a+", A, PLUS);
        CHECK_PLAIN(t, "a+", A, BYTE('+'));
        tokenizer_close(&t);
    }
    struct tokenizer *t = small_open(&plain);
    for (int id = 0; id < SMALL_BYTES; id++)
        assert_int_equal(tokenizer_is_control(t, id), id < SMALL_NEWLINE || id == SMALL_BRACKET);
    char all[4096] = "";
    for (int id = 0; id < SMALL_BYTES; id++)
        strcat(all, small_fixed[id]);
    struct ids ids = {0};
    assert_int_equal(tokenizer_encode(t, all, strlen(all), TOKENIZE_PLAIN, &ids, NULL), 0);
    for (size_t i = 0; i < ids.n; i++)
        assert_false(tokenizer_is_control(t, ids.at[i]));
    ids_free(&ids);
    tokenizer_close(&t);
}

static void test_not_utf8(void **state)
{
    (void)state;
    static const char *const texts[] = {"\x80",
                                        "a\xff",
                                        "\xc3",
                                        "\xc0\x80",
                                        "\xe0\x80\x80",
                                        "\xed\xa0\x80",
                                        "\xf4\x90\x80\x80",
                                        "\xf0\x9f\xab",
                                        "\xf8\x88\x80\x80\x80"};
    struct tokenizer *t = small_open(&plain);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct ids ids = {0};
        struct ward_error err = {0};
        assert_int_equal(tokenizer_encode(t, texts[i], strlen(texts[i]), TOKENIZE_SPECIAL, &ids, &err), WARD_EINVAL);
        assert_non_null(strstr(err.text, "not UTF-8"));
        assert_int_equal(ids.n, 0);
        ids_free(&ids);
    }
    tokenizer_close(&t);
}

/* ---- against a simple merger ------------------------------------------------------------------------------------ */

enum { RANDOM_PIECES = 60, RANDOM_LENGTH = 40 };

static uint32_t random_next(uint32_t *state, uint32_t limit)
{
    *state = *state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)*state * limit >> 32);
}

struct random_vocabulary {
    char text[RANDOM_PIECES][32];
    char merge[RANDOM_PIECES * 2][65];
    const char *pieces[RANDOM_PIECES + 1], *merges[RANDOM_PIECES * 2 + 1];
    int left[RANDOM_PIECES * 2], right[RANDOM_PIECES * 2], result[RANDOM_PIECES * 2], n_merges;
};

static int find_piece(const struct random_vocabulary *v, int n, const char *text)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(v->text[i], text))
            return i;
    return -1;
}

static void random_vocabulary(struct random_vocabulary *v, uint32_t *seed)
{
    static const char *const letters[] = {"a", "b", "c", MARK};
    int n = 0;
    for (; n < 4; n++)
        strcpy(v->text[n], letters[n]);
    v->n_merges = 0;
    while (v->n_merges < RANDOM_PIECES) {
        const int left = (int)random_next(seed, (uint32_t)n), right = (int)random_next(seed, (uint32_t)n);
        char joined[64];
        snprintf(joined, sizeof joined, "%s%s", v->text[left], v->text[right]);
        int result = find_piece(v, n, joined);
        bool known =
            strlen(joined) >= sizeof v->text[0] || !strcmp(joined, MARK MARK) || (result < 0 && n == RANDOM_PIECES);
        for (int i = 0; i < v->n_merges; i++)
            known |= v->left[i] == left && v->right[i] == right;
        if (known) {
            if (random_next(seed, 50) == 0)
                break;
            continue;
        }
        if (result < 0)
            strcpy(v->text[result = n++], joined);
        v->left[v->n_merges] = left;
        v->right[v->n_merges] = right;
        v->result[v->n_merges] = result;
        const size_t at = strlen(v->text[left]); /* the result, parted */
        memcpy(v->merge[v->n_merges], joined, at);
        v->merge[v->n_merges][at] = ' ';
        strcpy(v->merge[v->n_merges] + at + 1, joined + at);
        v->merges[v->n_merges] = v->merge[v->n_merges];
        v->n_merges++;
    }
    for (int i = 0; i < n; i++)
        v->pieces[i] = v->text[i];
    v->pieces[n] = v->merges[v->n_merges] = NULL;
}

/* The rule itself, in quadratic time: of all neighbours that merge, the pair of the lowest rank, the leftmost of
 * equals. */
static size_t merge_simply(const struct random_vocabulary *v, int *ids, size_t n)
{
    for (;;) {
        int best = v->n_merges;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (int m = 0; m < best; m++)
                if (v->left[m] == ids[i] && v->right[m] == ids[i + 1]) {
                    best = m;
                    at = i;
                }
        if (best == v->n_merges)
            return n;
        ids[at] = v->result[best];
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_random_merges(void **state)
{
    (void)state;
    static struct random_vocabulary v;
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        random_vocabulary(&v, &seed);
        struct tokenizer *t =
            small_open(&(struct small_tokenizer){.pieces = v.pieces, .merges = v.merges, .spelled = round % 2});
        for (int k = 0; k < 40; k++) {
            char text[RANDOM_LENGTH + 1] = "";
            int expected[RANDOM_LENGTH];
            size_t n = random_next(&seed, RANDOM_LENGTH);
            const uint32_t letters = 1 + random_next(&seed, 4);
            for (size_t i = 0; i < n; i++) {
                expected[i] = (int)random_next(&seed, letters);
                text[i] = "abc "[expected[i]];
            }
            const size_t length = n;
            n = merge_simply(&v, expected, n);
            for (size_t i = 0; i < n; i++)
                expected[i] += SMALL_PIECES;
            check(t, text, length, TOKENIZE_SPECIAL, expected, n);
        }
        tokenizer_close(&t);
    }
}

/* A megabyte that is one word, and merges at every step: quadratic work would take hours. */
static void test_long_word(void **state)
{
    (void)state;
    const size_t length = 1 << 20;
    char *text = malloc(length);
    assert_non_null(text);
    struct tokenizer *t = small_open(&plain);
    struct ids ids = {0};
    memset(text, 'a', length);
    assert_int_equal(tokenizer_encode(t, text, length, TOKENIZE_SPECIAL, &ids, NULL), 0);
    assert_int_equal(ids.n, length / 2);
    memset(text, '<', length);
    ids.n = 0;
    assert_int_equal(tokenizer_encode(t, text, length, TOKENIZE_SPECIAL, &ids, NULL), 0);
    assert_int_equal(ids.n, length);
    ids_free(&ids);
    tokenizer_close(&t);
    free(text);
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

static void check_text(const struct tokenizer *t, const int32_t *ids, size_t n, bool special, const char *expected)
{
    char *text, streamed[256] = "";
    size_t length;
    struct decoder d;
    assert_int_equal(tokenizer_decode(t, ids, n, special, &text, &length, NULL), 0);
    assert_int_equal(length, strlen(expected));
    assert_string_equal(text, expected);
    free(text);
    assert_int_equal(decoder_open(&d, t, n, special, NULL), 0);
    for (size_t i = 0; i < n; i++)
        strcat(streamed, decoder_push(&d, ids[i], &length));
    strcat(streamed, decoder_finish(&d, &length));
    assert_string_equal(streamed, expected);
    decoder_close(&d);
}

#define CHECK_TEXT(t, special, expected, ...)                                                                          \
    check_text(t, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), special,   \
               expected)
#define BAD "\xef\xbf\xbd"

static void test_decode(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    CHECK_TEXT(t, false, " a  ab\n", SPACE_A, SMALL_TWO_SPACES, AB, SMALL_NEWLINE);
    CHECK_TEXT(t, false, "ab", A, SMALL_END_OF_TURN, B);
    CHECK_TEXT(t, true, "a<end_of_turn>b", A, SMALL_END_OF_TURN, B);
    CHECK_TEXT(t, false, "<unused94>", SMALL_UNUSED94); /* not flagged special */
    CHECK_TEXT(t, false,
               "a\xf0\x9f\xab\x80"
               "b",
               A, BYTE(0xf0), BYTE(0x9f), BYTE(0xab), BYTE(0x80), B);
    CHECK_TEXT(t, false, BAD BAD "b", BYTE(0xf0), BYTE(0x9f), B);
    CHECK_TEXT(t, false, BAD BAD BAD, BYTE('x'), BYTE('y'), BYTE(0xff)); /* the run as a whole is not UTF-8 */
    CHECK_TEXT(t, false, "\xc3\xa8", BYTE(0xc3), SMALL_END_OF_TURN, BYTE(0xa8)); /* what gives no text ends no run */
    CHECK_TEXT(t, true, BAD "<end_of_turn>" BAD, BYTE(0xc3), SMALL_END_OF_TURN, BYTE(0xa8));
    CHECK_TEXT(t, false, "\xc3\xa8", BYTE(0xc3), 100000, -1, BYTE(0xa8)); /* no tokens have these ids */
    CHECK_TEXT(t, false, "");
    tokenizer_close(&t);
}

static void test_decoder(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    struct decoder d;
    size_t length;
    assert_int_equal(decoder_open(&d, t, 3, false, NULL), 0);
    assert_string_equal(decoder_push(&d, A, &length), "a");
    assert_int_equal(length, 1);
    assert_string_equal(decoder_push(&d, BYTE(0xc3), &length), "");
    assert_string_equal(decoder_push(&d, BYTE(0xa8), &length), ""); /* the run may go on */
    assert_string_equal(decoder_push(&d, B, &length),
                        "\xc3\xa8"
                        "b");
    assert_int_equal(length, 3);
    /* A run longer than was promised is cut, and nothing is lost. */
    for (int i = 0; i < 3; i++)
        assert_string_equal(decoder_push(&d, BYTE('x'), &length), "");
    assert_string_equal(decoder_push(&d, BYTE('y'), &length), "xxx");
    assert_string_equal(decoder_finish(&d, &length), "y");
    assert_string_equal(decoder_finish(&d, &length), "");
    decoder_push(&d, BYTE(0), &length);
    decoder_finish(&d, &length);
    assert_int_equal(length, 1);
    decoder_close(&d);
    tokenizer_close(&t);
}

static void test_lookup(void **state)
{
    (void)state;
    struct tokenizer *t = small_open(&plain);
    size_t length;
    assert_int_equal(tokenizer_id(t, "<start_of_turn>"), SMALL_START_OF_TURN);
    assert_int_equal(tokenizer_id(t, "abc"), ABC);
    assert_int_equal(tokenizer_id(t, "abcd"), -1);
    assert_int_equal(tokenizer_id(t, ""), -1);
    assert_int_equal(tokenizer_size(t), PLUS_A + 2);
    assert_true(tokenizer_is_special(t, SMALL_BOS));
    assert_false(tokenizer_is_special(t, SMALL_UNUSED94));
    assert_false(tokenizer_is_special(t, -1));
    assert_false(tokenizer_is_special(t, 100000));
    assert_memory_equal(tokenizer_piece(t, ABC, &length), "abc", 3);
    assert_int_equal(length, 3);
    tokenizer_piece(t, tokenizer_size(t), &length);
    assert_int_equal(length, 0);
    tokenizer_close(&t);
}

/* ---- tokenizer.json that is refused ----------------------------------------------------------------------------- */

static void test_json_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says;
    } cases[] = {
        {"\"Replace\"", "\"NFKC\"", "normalizer"},
        {"\"content\":\"" MARK "\"", "\"content\":\"_\"", "normalizer"},
        {"\"Split\"", "\"Whitespace\"", "pre_tokenizer"},
        {"\"ByteFallback\"", "\"Strip\"", "decoder"},
        {"\"BPE\"", "\"Unigram\"", "model type"},
        {"\"dropout\":null", "\"dropout\":0.1", "dropout"},
        {"\"dropout\":null", "\"end_of_word_suffix\":\"</w>\"", "suffix"},
        {"\"byte_fallback\":true", "\"byte_fallback\":false", "byte_fallback"},
        {"\"<0x41>\":", "\"<0x_41>\":", "byte token <0x41>"},
        {"\"lstrip\":false", "\"lstrip\":true", "lstrip"},
        {"\"single_word\":false", "\"single_word\":true", "single_word"},
        {"\"id\":5,", "\"id\":4,", "is token"},
        {"\"id\":5,", "", "no id"},
        {"\"id\":5,", "\"id\":-1,", "no id"},
        {"\"content\":\"<eos>\"", "\"content\":\"<pad>\"", "is token"},
        {"\"content\":\"<eos>\",", "", "no content"},
        {"\"content\":\"<image_soft_token>\"", "\"content\":\"<other>\",\"x\":[],\"content\":\"\"", "twice"},
        {"\"abc\":", "\"ab\":", "the same text"},
        {"\"<eos>\":1", "\"<eos>\":0", "two tokens have the id 0"},
        {"\"<eos>\":1", "\"<eos>\":99999999", "99999999"},
        {"\"<eos>\":1", "\"<eos>\":-1", "whole number"},
        {"\"<eos>\":1", "\"<eos>\":1.5", "whole number"},
        {"\"<eos>\":1", "\"<eos>\":99999999999999999999", "whole number"},
        {"\"<eos>\":1", "\"<eos>\":\"1\"", "not a number"},
        {"\"<eos>\":1", "\"<eos>\":[1]", "not a number"},
        {"\"<eos>\":1", "\"<eos>\":null", "not a number"},
        {"\"<eos>\":1", "\"\":1", "empty"},
        {"[\"b\",\"c\"]", "[\"b\",\"z\"]", "the vocabulary lacks"},
        {"[\"b\",\"c\"]", "[\"c\",\"b\"]", "gives a piece"},
        {"[\"b\",\"c\"]", "[\"a\",\"b\"]", "same pair"},
        {"[\"b\",\"c\"]", "[\"b\"]", "fewer"},
        {"[\"b\",\"c\"]", "[]", "fewer"},
        {"[\"b\",\"c\"]", "[\"b\",\"c\",\"c\"]", "more"},
        {"[\"b\",\"c\"]", "[\"b\",\"\"]", "lacks"},
        {"[\"b\",\"c\"]", "\"bc\"", "fewer"},
        {"[\"b\",\"c\"]", "\"b  c\"", "lacks"},
        {"[\"b\",\"c\"]", "7", "neither"},
        {"[\"b\",\"c\"]", "{\"b\":\"c\"}", "neither"},
        {"[\"b\",\"c\"]", "[[\"b\"],\"c\"]", "neither"},
        {"[\"b\",\"c\"]", "null", "neither"},
        {"\"vocab\":", "\"merges\":[],\"vocab\":", "before the vocabulary"},
        {"\"merges\":", "\"vocab\":{},\"merges\":", "besides the first"},
        {"\"merges\":", "\"pairs\":", "no merges"},
        {"\"vocab\":", "\"words\":", "before the vocabulary"},
        {"\"model\":", "\"module\":", "no vocabulary"},
        {"\"version\"", "\"a\\u0000b\"", "NUL"},
        {"{\"version\"", "[{\"version\"", "array"},
        {"{\"version\"", "{\"version\" ", "JSON"},
    };
    char *good = small_json(&plain);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        struct ward_error err = {0};
        char *text = replaced(good, cases[i].from, cases[i].to);
        if (i == sizeof cases / sizeof *cases - 1)
            text[strlen(text) - 1] = '\0';
        const int rc = tokenizer_from_json(&t, text, strlen(text), "some.json", &err);
        if (rc >= 0 || t || !strstr(err.text, cases[i].says) || !strstr(err.text, "some.json"))
            fail_msg("%s -> %s gives %d: %s", cases[i].from, cases[i].to, rc, err.text);
        assert_int_equal(tokenizer_from_json(&t, text, strlen(text), "some.json", NULL), rc);
        free(text);
    }
    free(good);
}

static void test_json_accepted(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"\"type\":\"BPE\",", ""}, /* files of old */
        {"\"dropout\":null", "\"continuing_subword_prefix\":\"\",\"end_of_word_suffix\":null,\"fuse_unk\":true"},
        {"\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"}}", "\"pre_tokenizer\":null"},
        {"\"truncation\":null",
         "\"padding\":null,\"post_processor\":{\"type\":\"x\",\"a\":[1,-2.5,true,null,\"s\",{}]}"},
    };
    char *good = small_json(&plain);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t;
        struct ward_error err = {0};
        char *text = replaced(good, cases[i].from, cases[i].to);
        if (tokenizer_from_json(&t, text, strlen(text), "some.json", &err))
            fail_msg("%s: %s", cases[i].to, err.text);
        CHECK(t, "abc\n", ABC, SMALL_NEWLINE);
        tokenizer_close(&t);
        free(text);
    }
    free(good);
}

/* A file that ends early, anywhere, is refused. */
static void test_json_truncated(void **state)
{
    (void)state;
    char *good = small_json(&plain);
    for (size_t length = strlen(good); length-- > 0;) {
        struct tokenizer *t;
        if (length % 7 == 0 || strlen(good) - length < 700)
            assert_true(tokenizer_from_json(&t, good, length, "some.json", NULL) < 0);
    }
    free(good);
}

/* ---- tokenizer.model -------------------------------------------------------------------------------------------- */

static const char *const model_pieces[] = {"bc", "ab", "abc", "aa", MARK "a", MARK MARK MARK,
                                           "a",  "b",  "c",   MARK, NULL};
enum {
    MODEL_BC = SMALL_PIECES,
    MODEL_AB,
    MODEL_ABC,
    MODEL_AA,
    MODEL_SPACE_A,
    MODEL_THREE,
    MODEL_A,
    MODEL_B,
    MODEL_C,
    MODEL_SPACE
};

static void make_model(struct bytes *b, const int (*trainer)[2], const int (*normalizer)[2])
{
    small_pieces(b, model_pieces);
    put_settings(b, 2, trainer);
    put_settings(b, 3, normalizer);
    put_field(b, 99, "unknown", 7);
}

static void test_model(void **state)
{
    (void)state;
    static struct bytes b;
    struct tokenizer *t;
    struct ward_error err = {0};
    make_model(&b, small_trainer, small_normalizer);
    if (tokenizer_from_model(&t, b.at, b.n, "tokenizer.model", &err))
        fail_msg("%s", err.text);
    CHECK(t, "abc", MODEL_ABC);
    CHECK(t, "aab", MODEL_A, MODEL_AB);
    CHECK(t, "aaa", MODEL_AA, MODEL_A);
    CHECK(t, " a  a   ", MODEL_SPACE_A, SMALL_TWO_SPACES, MODEL_A, MODEL_THREE); /* user-defined pieces merge, too */
    CHECK(t, "\n\n<bos>\xc3\xa8", SMALL_NEWLINE + 1, SMALL_BOS, BYTE(0xc3), BYTE(0xa8));
    CHECK(t, "<start_of_image><image_soft_token>", SMALL_BOI, MODEL_SPACE + 1);
    CHECK_PLAIN(t, "<bos>", BYTE('<'), MODEL_B, BYTE('o'), BYTE('s'), BYTE('>'));
    assert_true(tokenizer_is_special(t, SMALL_BOS));
    assert_true(tokenizer_is_special(t, SMALL_END_OF_TURN));
    assert_true(tokenizer_is_special(t, MODEL_SPACE + 1));
    assert_false(tokenizer_is_special(t, SMALL_UNUSED94));
    assert_true(tokenizer_is_control(t, SMALL_UNUSED94));
    tokenizer_close(&t);
    for (size_t size = 0; size < b.n; size++) { /* cut anywhere: refused, or sound at the cut */
        uint8_t *cut = malloc(size ? size : 1); /* a block of its own, for the sanitizer */
        memcpy(cut, b.at, size);
        const int rc = tokenizer_from_model(&t, cut, size, "tokenizer.model", NULL);
        assert_true(rc ? !t : size >= b.n - 10);
        tokenizer_close(&t);
        free(cut);
    }
}

static void test_model_refused(void **state)
{
    (void)state;
    static const int unigram[][2] = {{3, 1}, {35, 1}, {0, 0}}, no_bytes[][2] = {{3, 2}, {0, 0}};
    static const int suffix[][2] = {{3, 2}, {35, 1}, {24, 1}, {0, 0}};
    static const int dummy_prefix[][2] = {{4, 0}, {0, 0}}, remove_spaces[][2] = {{3, 0}, {0, 0}};
    static const int no_escape[][2] = {{3, 0}, {4, 0}, {5, 0}, {0, 0}};
    static const struct {
        const int (*trainer)[2], (*normalizer)[2];
        const char *says;
    } cases[] = {
        {unigram, small_normalizer, "BPE"},     {no_bytes, small_normalizer, "byte"},
        {suffix, small_normalizer, "text"},     {small_trainer, dummy_prefix, "text"},
        {small_trainer, remove_spaces, "text"}, {small_trainer, no_escape, "text"},
    };
    static struct bytes b;
    struct tokenizer *t;
    struct ward_error err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_model(&b, cases[i].trainer, cases[i].normalizer);
        assert_int_equal(tokenizer_from_model(&t, b.at, b.n, "a.model", &err), WARD_EUNSUPPORTED);
        if (t || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: %s", i, err.text);
    }
    static const struct {
        const char *text;
        float score;
        int type;
        const char *says;
    } bad[] = {
        {"\xff", 0, 1, "UTF-8"}, {"", 0, 1, "bytes long"},  {"x", 0, 9, "type"},
        {"x", NAN, 1, "score"},  {"bc", 0, 1, "same text"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        make_model(&b, small_trainer, small_normalizer);
        put_piece(&b, bad[i].text, bad[i].score, bad[i].type);
        assert_int_equal(tokenizer_from_model(&t, b.at, b.n, "a.model", &err), WARD_EFORMAT);
        if (t || !strstr(err.text, bad[i].says))
            fail_msg("piece %zu: %s", i, err.text);
    }
    static const char *const junk[] = {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                                       "\x0a\x7f",
                                       "\x0b",
                                       "\x07",
                                       "\x01",
                                       "\x0d\x01",
                                       "{\"model\": 1}"};
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
        assert_int_equal(tokenizer_from_model(&t, (const uint8_t *)junk[i], strlen(junk[i]), "a.model", &err),
                         WARD_EFORMAT);
}

static void test_open(void **state)
{
    (void)state;
    static struct bytes b;
    struct folder f;
    struct tokenizer *t;
    struct ward_error err = {0};
    folder_open(&f);
    assert_int_equal(tokenizer_open(&t, f.path, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "neither"));
    make_model(&b, small_trainer, small_normalizer);
    folder_write(&f, "tokenizer.model", b.at, b.n);
    assert_int_equal(tokenizer_open(&t, f.path, &err), 0);
    assert_true(tokenizer_is_special(t, SMALL_BOI));
    tokenizer_close(&t);
    /* The files beside it say more than the model. */
    folder_write_text(&f, "tokenizer_config.json",
                      "{\"added_tokens_decoder\": {\"6\": {\"content\": \"<start_of_image>\", \"special\": false},"
                      " \"300\": {\"content\": \"<extra>\", \"special\": true}}}");
    folder_write_text(&f, "added_tokens.json", "{\"<image_soft_token>\": 301, \"<extra>\": 300}");
    if (tokenizer_open(&t, f.path, &err))
        fail_msg("%s", err.text);
    assert_false(tokenizer_is_special(t, SMALL_BOI));
    assert_true(tokenizer_is_control(t, SMALL_BOI));
    CHECK(t, "<extra><image_soft_token>", 300, 301);
    assert_int_equal(tokenizer_size(t), 302);
    tokenizer_close(&t);
    folder_write_text(&f, "added_tokens.json", "{\"<image_soft_token>\": 5}");
    assert_int_equal(tokenizer_open(&t, f.path, &err), WARD_EFORMAT);
    folder_write_text(&f, "added_tokens.json", "{\"<bos>\": 5}");
    assert_int_equal(tokenizer_open(&t, f.path, &err), WARD_EFORMAT);
    folder_write_text(&f, "added_tokens.json", "{}");
    folder_write_text(&f, "tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"<bos>\"}}}");
    assert_int_equal(tokenizer_open(&t, f.path, &err), WARD_EFORMAT);
    assert_non_null(strstr(err.text, "tokenizer_config.json"));
    /* tokenizer.json goes before it. */
    char *json = small_json(&plain);
    folder_write_text(&f, "tokenizer.json", json);
    free(json);
    assert_int_equal(tokenizer_open(&t, f.path, &err), 0);
    CHECK(t, "abc", ABC);
    tokenizer_close(&t);
    folder_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_normalized_token),
        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_random_merges),
        cmocka_unit_test(test_long_word),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_json_refused),
        cmocka_unit_test(test_json_accepted),
        cmocka_unit_test(test_json_truncated),
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_model_refused),
        cmocka_unit_test(test_open),

    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
