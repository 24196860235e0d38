/* The vocabulary that a GGUF file carries: the pieces, scores and types of tokenizer.model, with the added tokens of
 * the files beside it written over the pieces that SentencePiece kept free for them. */
#include "base/utf8.h"
#include "model/gguf.h"
#include "model/vocabulary.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct tokenizer *t;
    const struct gguf *file;
    const char *name;
    struct ward_error *err;
    float *scores;  /* [n] */
    uint8_t *types; /* [n] */
    size_t n;
};

/* The list `key` of n elements, which are numbers or texts. */
static int find_list(const struct reader *r, const struct gguf_value **list, const char *key, bool texts)
{
    const struct gguf_value *value = gguf_value(r->file, key);
    if (!value)
        return error_set(r->err, WARD_EFORMAT, "%s: %s is missing", r->name, key);
    if (value->type != GGUF_ARRAY || (value->element == GGUF_STRING) != texts)
        return error_set(r->err, WARD_EFORMAT, "%s: %s is no list of %s", r->name, key, texts ? "texts" : "numbers");
    if (r->n && value->n != r->n)
        return error_set(r->err, WARD_EFORMAT, "%s: %s has %zu entries for %zu tokens", r->name, key, (size_t)value->n,
                         r->n);
    *list = value;
    return 0;
}

static int read_marks(struct reader *r, const struct gguf_value *scores, const struct gguf_value *types)
{
    for (size_t i = 0; i < r->n; i++) {
        double score;
        int64_t type;
        if (!gguf_number(scores, i, &score) || isnan(score) || !gguf_integer(types, i, PIECE_NORMAL, PIECE_BYTE, &type))
            return error_set(r->err, WARD_EFORMAT, "%s: token %zu has no proper score and type", r->name, i);
        r->types[i] = (uint8_t)type;
        /* What is no part of ordinary text has the score 0 in tokenizer.model. llama.cpp's converter writes others. */
        r->scores[i] = type == PIECE_NORMAL || type == PIECE_BYTE ? (float)score : 0;
    }
    return 0;
}

/* Added tokens have lost their spaces' marks in llama.cpp's converter, which decodes them. */
static int add_marked(const struct reader *r, const char *text, size_t length, size_t id)
{
    char marked[VOCABULARY_MAX_PIECE];
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        const bool space = text[i] == ' ';
        const size_t width = space ? SPACE_MARK_LENGTH : 1;
        if (n + width > sizeof marked)
            return error_set(r->err, WARD_EFORMAT, "%s: token %zu is longer than %d bytes", r->name, id,
                             VOCABULARY_MAX_PIECE);
        memcpy(marked + n, space ? SPACE_MARK : text + i, width);
        n += width;
    }
    return vocabulary_add(r->t, marked, n, (int64_t)id, r->name, r->err);
}

/* Unused pieces fill the list up to the rows of the embedding: they stand for nothing. */
static int add_pieces(const struct reader *r, const struct gguf_value *tokens)
{
    const char *text;
    size_t at = 0, length;
    int rc = 0;
    for (size_t id = 0; !rc && gguf_next_string(tokens, &at, &text, &length); id++) {
        if (r->types[id] == PIECE_UNUSED)
            continue;
        if (utf8_valid((const uint8_t *)text, length) != length)
            return error_set(r->err, WARD_EFORMAT, "%s: token %zu is not UTF-8", r->name, id);
        rc = r->types[id] == PIECE_USER ? add_marked(r, text, length, id)
                                        : vocabulary_add(r->t, text, length, (int64_t)id, r->name, r->err);
    }
    return rc;
}

static int read_vocabulary(struct reader *r)
{
    const struct gguf_value *model = gguf_value(r->file, "tokenizer.ggml.model"), *tokens, *scores, *types;
    if (!model)
        return error_set(r->err, WARD_EFORMAT, "%s: holds no tokenizer: tokenizer.ggml.model is missing", r->name);
    if (!gguf_string_is(model, "llama"))
        return error_set(r->err, WARD_EUNSUPPORTED,
                         "%s: tokenizer.ggml.model is not \"llama\", the SentencePiece vocabulary of Gemma 3", r->name);
    int rc = find_list(r, &tokens, "tokenizer.ggml.tokens", true);
    if (rc)
        return rc;
    if (!tokens->n || tokens->n > VOCABULARY_MAX_ID)
        return error_set(r->err, WARD_EFORMAT, "%s: has %zu tokens, 1 to %d are expected", r->name, (size_t)tokens->n,
                         VOCABULARY_MAX_ID);
    r->n = (size_t)tokens->n;
    rc = find_list(r, &scores, "tokenizer.ggml.scores", false);
    if (!rc)
        rc = find_list(r, &types, "tokenizer.ggml.token_type", false);
    if (rc)
        return rc;
    r->scores = calloc(r->n, sizeof *r->scores);
    r->types = calloc(r->n, sizeof *r->types);
    if (!r->scores || !r->types)
        return error_no_memory(r->err, r->name, r->n * sizeof *r->scores);
    rc = read_marks(r, scores, types);
    return rc ? rc : add_pieces(r, tokens);
}

/* "left right" for each: what a file says that was made of a tokenizer that SentencePiece did not train. */
static int add_listed_merges(const struct reader *r, const struct gguf_value *merges)
{
    const char *text;
    size_t at = 0, length;
    int rc = 0;
    if (merges->type != GGUF_ARRAY || merges->element != GGUF_STRING)
        return error_set(r->err, WARD_EFORMAT, "%s: tokenizer.ggml.merges is no list of texts", r->name);
    for (size_t i = 0; !rc && gguf_next_string(merges, &at, &text, &length); i++) {
        const char *space = memchr(text, ' ', length);
        const size_t left_length = space ? (size_t)(space - text) : 0, right_length = length - left_length - 1;
        char joined[2 * VOCABULARY_MAX_PIECE];
        struct merge merge = {-1, -1, -1};
        if (left_length && left_length < length - 1 && length <= sizeof joined) {
            memcpy(joined, text, left_length);
            memcpy(joined + left_length, space + 1, right_length);
            merge = (struct merge){vocabulary_find(r->t, text, left_length),
                                   vocabulary_find(r->t, space + 1, right_length),
                                   vocabulary_find(r->t, joined, length - 1)};
        }
        if (merge.left < 0 || merge.right < 0 || merge.result < 0)
            rc = error_set(r->err, WARD_EFORMAT, "%s: merge %zu is not of two tokens that are one together", r->name, i);
        else
            rc = vocabulary_add_merge(r->t, merge, r->name, r->err);
    }
    return rc;
}

static int add_merges(const struct reader *r)
{
    const struct gguf_value *listed = gguf_value(r->file, "tokenizer.ggml.merges");
    return listed ? add_listed_merges(r, listed) : vocabulary_add_merges(r->t, r->scores, r->name, r->err);
}

int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *file, struct ward_error *err)
{
    *out = NULL;
    const char *name = gguf_name(file);
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return error_no_memory(err, name, sizeof *t);
    struct reader r = {.t = t, .file = file, .name = name, .err = err};
    int rc = read_vocabulary(&r);
    if (!rc)
        rc = vocabulary_index(t, name, err);
    if (!rc)
        rc = add_merges(&r);
    if (!rc)
        rc = vocabulary_add_typed(t, r.types, t->size, name, err);
    if (!rc)
        rc = vocabulary_finish(t, name, err);
    free(r.scores);
    free(r.types);
    if (rc)
        tokenizer_close(&t);
    *out = t;
    return rc;
}
