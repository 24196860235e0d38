/* tokenizer.json of Hugging Face's tokenizers library. The vocabulary and the merges, millions of values, are taken as
 * they are read; the rest is kept aside as a small document and must be what Gemma's tokenizers have there. */
#include "base/json.h"
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HALVES = 256, MAX_HALVES_TEXT = 1 << 14 };
enum place { PLACE_REST, PLACE_VOCAB, PLACE_MERGES };

struct reader {
    struct tokenizer *t;
    const char *name;
    struct ward_error *err;
    struct json_writer *rest;
    enum place place;
    int depth;      /* of open arrays and objects */
    bool in_model;  /* inside the outermost object's "model" */
    bool has_vocab, has_merges;
    char key[VOCABULARY_MAX_PIECE + 1]; /* whose value comes next; a piece while in the vocabulary */
    size_t key_length;
    struct text_query halves[MAX_HALVES]; /* of merges read, to be looked up together */
    size_t n_halves, pair_start;          /* where the merge being read begins */
    char text[MAX_HALVES_TEXT];           /* theirs */
    size_t text_length;
    int32_t result;                       /* of the last merge: neighbours in the list often share it */
};

static bool refuse(struct reader *r, const char *what)
{
    error_set(r->err, WARD_EFORMAT, "%s: is not the tokenizer.json of a BPE tokenizer: %s", r->name, what);
    return false;
}

static const char *rest_key(const struct reader *r)
{
    return r->key_length ? r->key : NULL;
}

/* ---- merges ----------------------------------------------------------------------------------------------------- */

static bool is_joined(const struct tokenizer *t, int32_t id, int32_t left, int32_t right)
{
    const struct piece *joined = &t->pieces[id], *first = &t->pieces[left], *second = &t->pieces[right];
    return joined->length == first->length + second->length &&
           !memcmp(t->bytes + joined->offset, t->bytes + first->offset, first->length) &&
           !memcmp(t->bytes + joined->offset + first->length, t->bytes + second->offset, second->length);
}

/* What two pieces together are, or -1. The list goes through the results in the order of their ids, mostly. */
static int32_t find_joined(const struct reader *r, int32_t left, int32_t right)
{
    const struct tokenizer *t = r->t;
    for (int32_t id = r->result; id < t->size && id <= r->result + 1; id++)
        if (is_joined(t, id, left, right))
            return id;
    char text[2 * VOCABULARY_MAX_PIECE];
    const struct piece *first = &t->pieces[left], *second = &t->pieces[right];
    memcpy(text, t->bytes + first->offset, first->length);
    memcpy(text + first->length, t->bytes + second->offset, second->length);
    return vocabulary_find(t, text, (size_t)first->length + second->length);
}

/* Looks the halves up and adds their merges. */
static bool finish_halves(struct reader *r)
{
    vocabulary_find_all(r->t, r->halves, r->n_halves);
    for (size_t i = 0; i < r->n_halves; i += 2) {
        const int32_t left = r->halves[i].id, right = r->halves[i + 1].id;
        if (left < 0 || right < 0)
            return refuse(r, "a merge names a piece that the vocabulary lacks");
        const int32_t result = find_joined(r, left, right);
        if (result < 0)
            return refuse(r, "a merge gives a piece that the vocabulary lacks");
        if (vocabulary_add_merge(r->t, (struct merge){left, right, result}, r->name, r->err))
            return false;
        r->result = result;
    }
    r->n_halves = r->pair_start = r->text_length = 0;
    return true;
}

static bool add_half(struct reader *r, const char *text, size_t length)
{
    if (r->n_halves == r->pair_start + 2)
        return refuse(r, "a merge has more than two parts");
    if (!length || length > VOCABULARY_MAX_PIECE)
        return refuse(r, "a merge names a piece that the vocabulary lacks");
    char *copy = r->text + r->text_length;
    memcpy(copy, text, length);
    r->halves[r->n_halves++] = (struct text_query){.text = copy, .length = length};
    r->text_length += length;
    return true;
}

static bool finish_pair(struct reader *r)
{
    if (r->n_halves != r->pair_start + 2)
        return refuse(r, "a merge has fewer than two parts");
    r->pair_start = r->n_halves;
    const bool room = r->n_halves + 2 <= MAX_HALVES && r->text_length + 2 * VOCABULARY_MAX_PIECE <= MAX_HALVES_TEXT;
    return room || finish_halves(r);
}

/* "left right", as the library wrote merges before version 0.20. */
static bool add_spelled(struct reader *r, const char *text, size_t length)
{
    const char *space = memchr(text, ' ', length);
    if (!space)
        return refuse(r, "a merge has fewer than two parts");
    const size_t left = (size_t)(space - text);
    return add_half(r, text, left) && add_half(r, space + 1, length - left - 1) && finish_pair(r);
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

static bool key_is(const struct reader *r, const char *text)
{
    return r->key_length == strlen(text) && !memcmp(r->key, text, r->key_length);
}

static bool on_start(void *user, bool array)
{
    struct reader *r = user;
    const int depth = r->depth++;
    if (r->place == PLACE_VOCAB)
        return refuse(r, "an id is not a number");
    if (r->place == PLACE_MERGES)
        return (array && depth == 3) || refuse(r, "a merge is neither a text nor a pair of texts");
    if (depth == 0 && array)
        return refuse(r, "it is an array");
    if (depth == 1)
        r->in_model = !array && key_is(r, "model");
    if (depth == 2 && r->in_model && !array && key_is(r, "vocab") && !r->has_vocab) {
        r->place = PLACE_VOCAB;
        r->has_vocab = true;
        return true;
    }
    if (depth == 2 && r->in_model && array && key_is(r, "merges") && !r->has_merges) {
        r->place = PLACE_MERGES;
        r->has_merges = true;
        return r->has_vocab || refuse(r, "the merges come before the vocabulary");
    }
    json_write_open(r->rest, rest_key(r), array ? '[' : '{');
    r->key_length = 0;
    return true;
}

static bool on_end(void *user, bool array)
{
    struct reader *r = user;
    const int depth = --r->depth;
    if (r->place == PLACE_REST) {
        json_write_close(r->rest, array ? ']' : '}');
        if (depth == 1)
            r->in_model = false;
        return true;
    }
    if (depth == 3)
        return finish_pair(r);
    const enum place ended = r->place;
    r->place = PLACE_REST;
    r->key_length = 0;
    return ended == PLACE_MERGES ? finish_halves(r) : !vocabulary_index(r->t, r->name, r->err);
}

static bool on_key(void *user, const char *text, size_t length)
{
    struct reader *r = user;
    if (!length || length > VOCABULARY_MAX_PIECE)
        return refuse(r, "a key is empty or too long");
    if (r->place == PLACE_REST && memchr(text, 0, length))
        return refuse(r, "a key holds a NUL character");
    memcpy(r->key, text, length);
    r->key[length] = '\0';
    r->key_length = length;
    return true;
}

static bool on_string(void *user, const char *text, size_t length)
{
    struct reader *r = user;
    if (r->place == PLACE_VOCAB)
        return refuse(r, "an id is not a number");
    if (r->place == PLACE_MERGES)
        return r->depth == 3 ? add_spelled(r, text, length) : add_half(r, text, length);
    json_write_string(r->rest, rest_key(r), text, length);
    r->key_length = 0;
    return true;
}

static bool on_number(void *user, const char *text, size_t length)
{
    struct reader *r = user;
    int64_t value = 0;
    bool whole = length <= 10;
    for (size_t i = 0; i < length && whole; i++) {
        whole = text[i] >= '0' && text[i] <= '9';
        value = value * 10 + (text[i] - '0');
    }
    if (r->place == PLACE_VOCAB)
        return whole ? !vocabulary_add(r->t, r->key, r->key_length, value, r->name, r->err)
                     : refuse(r, "an id is not a whole number");
    if (r->place == PLACE_MERGES)
        return refuse(r, "a merge is neither a text nor a pair of texts");
    if (whole)
        json_write_integer(r->rest, rest_key(r), value);
    else /* no number of another kind means anything to a tokenizer */
        json_write_string(r->rest, rest_key(r), text, length);
    r->key_length = 0;
    return true;
}

static bool on_literal(void *user, enum json_type type)
{
    struct reader *r = user;
    if (r->place != PLACE_REST)
        return refuse(r, r->place == PLACE_VOCAB ? "an id is not a number"
                                                 : "a merge is neither a text nor a pair of texts");
    if (type == JSON_NULL)
        json_write_null(r->rest, rest_key(r));
    else
        json_write_boolean(r->rest, rest_key(r), type == JSON_TRUE);
    r->key_length = 0;
    return true;
}

/* ---- the rest --------------------------------------------------------------------------------------------------- */

static bool absent_or_empty(const struct json *value)
{
    return !value || json_string_is(value, "");
}

static bool is_true(const struct json *value)
{
    return value && value->type == JSON_TRUE;
}

/* {"type": ..., "pattern": {"String": ...}} */
static bool has_pattern(const struct json *value, const char *type, const char *pattern)
{
    return json_string_is(json_get(value, "type"), type) &&
           json_string_is(json_get(json_get(value, "pattern"), "String"), pattern);
}

static bool is_known_normalizer(const struct json *value)
{
    return has_pattern(value, "Replace", " ") && json_string_is(json_get(value, "content"), SPACE_MARK);
}

/* It would split at spaces, but the normalizer leaves none. */
static bool is_known_splitter(const struct json *value)
{
    return !value || has_pattern(value, "Split", " ");
}

static bool is_known_decoder(const struct json *value)
{
    const struct json *steps = json_get(value, "decoders");
    if (!json_string_is(json_get(value, "type"), "Sequence") || !steps || steps->type != JSON_ARRAY || steps->n != 3)
        return false;
    const struct json *replace = steps->first, *bytes = replace->next, *fuse = bytes->next;
    return has_pattern(replace, "Replace", SPACE_MARK) && json_string_is(json_get(replace, "content"), " ") &&
           json_string_is(json_get(bytes, "type"), "ByteFallback") && json_string_is(json_get(fuse, "type"), "Fuse");
}

static int check_rest(const struct json *root, const char *name, struct ward_error *err)
{
    const struct json *model = json_get(root, "model");
    const char *what = NULL;
    if (!is_known_normalizer(json_get(root, "normalizer")))
        what = "normalizer, which should turn spaces into U+2581 and do nothing else";
    else if (!is_known_splitter(json_get(root, "pre_tokenizer")))
        what = "pre_tokenizer, which should split at spaces or be null";
    else if (!is_known_decoder(json_get(root, "decoder")))
        what = "decoder, which should be U+2581 to spaces, ByteFallback, Fuse";
    else if (json_get(model, "type") && !json_string_is(json_get(model, "type"), "BPE"))
        what = "model type, which should be BPE";
    else if (json_get_any(model, "vocab") || json_get_any(model, "merges"))
        what = "vocab or list of merges besides the first";
    else if (json_get(model, "dropout"))
        what = "model dropout, which should be null";
    else if (!absent_or_empty(json_get(model, "continuing_subword_prefix")) ||
             !absent_or_empty(json_get(model, "end_of_word_suffix")))
        what = "model prefix or suffix of pieces, which should be null";
    else if (!is_true(json_get(model, "byte_fallback")))
        what = "model byte_fallback, which should be true";
    return what ? error_set(err, WARD_EUNSUPPORTED, "%s: has another %s", name, what) : 0;
}

int vocabulary_add_entry(struct tokenizer *t, const struct json *entry, int64_t id, const char *name,
                         struct ward_error *err)
{
    const struct json *content = json_get(entry, "content");
    if (!content || content->type != JSON_STRING || !content->length)
        return error_set(err, WARD_EFORMAT, "%s: the added token %lld has no content", name, (long long)id);
    static const char *const unknown[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (is_true(json_get(entry, unknown[i])))
            return error_set(err, WARD_EUNSUPPORTED, "%s: the added token %lld asks for %s, which ward does not do",
                             name, (long long)id, unknown[i]);
    const int32_t found = vocabulary_find(t, content->text, content->length);
    if (found >= 0 && found != id)
        return error_set(err, WARD_EFORMAT, "%s: the added token %lld is token %d in the vocabulary", name,
                         (long long)id, (int)found);
    const int rc = found < 0 ? vocabulary_add(t, content->text, content->length, id, name, err) : 0;
    return rc ? rc
              : vocabulary_add_token(t, (int32_t)id, is_true(json_get(entry, "special")),
                                     is_true(json_get(entry, "normalized")), name, err);
}

static int read_rest(struct tokenizer *t, const struct json *root, const char *name, struct ward_error *err)
{
    int rc = check_rest(root, name, err);
    if (rc)
        return rc;
    t->ignore_merges = is_true(json_get(json_get(root, "model"), "ignore_merges"));
    const struct json *added = json_get(root, "added_tokens");
    for (const struct json *entry = added ? added->first : NULL; entry && !rc; entry = entry->next) {
        int64_t id;
        if (!json_integer(json_get(entry, "id"), 0, VOCABULARY_MAX_ID - 1, &id))
            return error_set(err, WARD_EFORMAT, "%s: an added token has no id from 0 to %d", name,
                             VOCABULARY_MAX_ID - 1);
        rc = vocabulary_add_entry(t, entry, id, name, err);
    }
    return rc;
}

static int read_json(struct reader *r, const char *text, size_t length)
{
    static const struct json_events events = {on_start, on_end, on_key, on_string, on_number, on_literal};
    struct json_document *document = NULL;
    size_t rest_length = 0;
    int rc = json_walk(&events, r, text, length, r->name, r->err);
    if (rc)
        return rc;
    if (!r->has_vocab || !r->has_merges)
        return error_set(r->err, WARD_EFORMAT, "%s: is not the tokenizer.json of a BPE tokenizer: it has no %s",
                         r->name, r->has_vocab ? "merges" : "vocabulary");
    const char *rest = json_writer_text(r->rest, &rest_length);
    if (!rest)
        return error_no_memory(r->err, r->name, length);
    rc = json_parse(&document, rest, rest_length, r->name, r->err);
    if (!rc)
        rc = read_rest(r->t, json_root(document), r->name, r->err);
    json_close(&document);
    return rc ? rc : vocabulary_finish(r->t, r->name, r->err);
}

int tokenizer_from_json(struct tokenizer **out, const char *text, size_t length, const char *name,
                        struct ward_error *err)
{
    *out = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    struct reader *r = calloc(1, sizeof *r);
    struct json_writer *rest = json_writer_new(false);
    int rc = 0;
    if (!t || !r || !rest) {
        rc = error_no_memory(err, name, sizeof *t + sizeof *r);
    } else {
        *r = (struct reader){.t = t, .name = name, .err = err, .rest = rest};
        rc = read_json(r, text, length);
    }
    json_writer_free(&rest);
    free(r);
    if (rc)
        tokenizer_close(&t);
    *out = t;
    return rc;
}
