/* Vocabularies whose pieces have a score and a type: SentencePiece's tokenizer.model, and GGUF files, which copy it.
 * SentencePiece merges two pieces when their text together is a piece, by its score; Hugging Face's tokenizers library
 * wants a list of pairs in order. The list is made as transformers makes it (generate_merges in convert_slow_tokenizer),
 * so that both give the same ids. */
#include "base/utf8.h"
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

/* ---- merges ----------------------------------------------------------------------------------------------------- */

struct candidate {
    float score;
    uint16_t left_length, right_length; /* characters */
    struct merge merge;
};

struct candidates {
    struct candidate *at;
    size_t n, capacity;
};

/* Higher scores first, then longer left halves, then longer right ones, then the order of the results. No two are
 * equal: the halves of one piece differ in length. */
static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->left_length != y->left_length)
        return x->left_length > y->left_length ? -1 : 1;
    if (x->right_length != y->right_length)
        return x->right_length > y->right_length ? -1 : 1;
    return (x->merge.result > y->merge.result) - (x->merge.result < y->merge.result);
}

/* All ways to split a piece into two pieces. */
static int add_splits(const struct tokenizer *t, struct candidates *list, int32_t id, float score, const char *name,
                      struct ward_error *err)
{
    const struct piece *piece = &t->pieces[id];
    const char *text = t->bytes + piece->offset;
    uint16_t characters = 0, left_length = 0;
    for (size_t i = 0; i < piece->length; characters++)
        i += utf8_length((const uint8_t *)text + i, piece->length - i);
    for (size_t i = utf8_length((const uint8_t *)text, piece->length); i < piece->length;
         i += utf8_length((const uint8_t *)text + i, piece->length - i)) {
        left_length++;
        const int32_t left = vocabulary_find(t, text, i);
        const int32_t right = left < 0 ? -1 : vocabulary_find(t, text + i, piece->length - i);
        if (right < 0)
            continue;
        const int rc = vocabulary_reserve(&list->at, &list->capacity, list->n + 1, sizeof *list->at,
                                          VOCABULARY_MAX_MERGES, name, err);
        if (rc)
            return rc;
        list->at[list->n++] =
            (struct candidate){score, left_length, (uint16_t)(characters - left_length), {left, right, id}};
    }
    return 0;
}

/* All merges that scores make, in order. */
static int list_merges(struct candidates *list, const struct tokenizer *t, const float *scores, const char *name,
                       struct ward_error *err)
{
    int rc = 0;
    for (int32_t id = 0; id < t->size && !rc; id++)
        if (t->pieces[id].length)
            rc = add_splits(t, list, id, scores[id], name, err);
    if (list->n)
        qsort(list->at, list->n, sizeof *list->at, compare_candidates);
    return rc;
}

int vocabulary_add_merges(struct tokenizer *t, const float *scores, const char *name, struct ward_error *err)
{
    struct candidates list = {0};
    int rc = list_merges(&list, t, scores, name, err);
    for (size_t i = 0; i < list.n && !rc; i++)
        rc = vocabulary_add_merge(t, list.at[i].merge, name, err);
    free(list.at);
    return rc;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *text, size_t length, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(names[i]) == length && !memcmp(names[i], text, length))
            return true;
    return false;
}

/* <unused7> */
static bool is_unused(const char *text, size_t length)
{
    static const char start[] = "<unused";
    const size_t n = sizeof start - 1;
    if (length < n + 2 || memcmp(text, start, n) || text[length - 1] != '>')
        return false;
    for (size_t i = n; i < length - 1; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return true;
}

static const char image_token[] = "<image_soft_token>";

/* What makes turns and images is never ordinary text. tokenizer.model marks it as the user's, and there are GGUF files
 * that mark it as normal pieces. */
static bool is_structure(const char *text, size_t length)
{
    static const char *const names[] = {"<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
                                        image_token};
    return is_one_of(text, length, names, sizeof names / sizeof *names);
}

/* Files mark what stands for no text as control, Gemma's tokenizer.json far less as special: not its <mask>, and none
 * of the <unusedN>, which GGUF files mark. */
static bool is_special(const char *text, size_t length, int type)
{
    static const char *const never[] = {"<mask>"};
    if (type == PIECE_USER || type == PIECE_NORMAL)
        return is_structure(text, length);
    return !is_one_of(text, length, never, sizeof never / sizeof *never) && !is_unused(text, length);
}

static bool is_added(const char *text, size_t length, int type)
{
    return type == PIECE_CONTROL || type == PIECE_UNKNOWN || type == PIECE_USER ||
           (type == PIECE_NORMAL && is_structure(text, length));
}

int vocabulary_add_typed(struct tokenizer *t, const uint8_t *types, int32_t n, const char *name, struct ward_error *err)
{
    int rc = 0;
    for (int32_t id = 0; id < n && !rc; id++) {
        const struct piece *piece = &t->pieces[id];
        const char *text = t->bytes + piece->offset;
        if (piece->length && !piece->added && is_added(text, piece->length, types[id]))
            rc = vocabulary_add_token(t, id, is_special(text, piece->length, types[id]), false, name, err);
    }
    if (!rc && tokenizer_id(t, "<start_of_image>") >= 0 && tokenizer_id(t, image_token) < 0) {
        const int32_t id = t->size;
        rc = vocabulary_add(t, image_token, strlen(image_token), id, name, err);
        if (!rc)
            rc = vocabulary_add_token(t, id, true, false, name, err);
    }
    return rc;
}

/* ---- for a file -------------------------------------------------------------------------------------------------- */

static bool is_plain(int type)
{
    return type == PIECE_NORMAL || type == PIECE_BYTE;
}

/* What GGUF files mark as control: what is special, and more (is_special says what). */
static uint8_t type_of(const struct tokenizer *t, int32_t id)
{
    static const char *const unknown[] = {"<unk>"}, *const mask[] = {"<mask>"};
    const struct piece *piece = &t->pieces[id];
    const char *text = t->bytes + piece->offset;
    const size_t length = piece->length;
    if (!length)
        return PIECE_UNUSED;
    if (is_one_of(text, length, unknown, 1))
        return PIECE_UNKNOWN;
    if (!piece->added)
        return PIECE_NORMAL;
    return piece->special || is_unused(text, length) || is_one_of(text, length, mask, 1) ? PIECE_CONTROL : PIECE_USER;
}

/* A piece scores less the later its first merge comes, from 0 on, which is the score of the pieces of other types too:
 * so SentencePiece trained Gemma's. Whole numbers of this size are exact. */
int vocabulary_marks(const struct tokenizer *t, float *scores, uint8_t *types, bool *exact, const char *name,
                     struct ward_error *err)
{
    float next = 0;
    for (int32_t id = 0; id < t->size; id++) {
        types[id] = type_of(t, id);
        scores[id] = 1;
    }
    for (int i = 0; i < 256; i++)
        types[t->byte_ids[i]] = PIECE_BYTE;
    for (size_t i = 0; i < t->n_merges; i++) {
        const int32_t id = t->merges[i].result;
        if (scores[id] > 0 && is_plain(types[id]))
            scores[id] = next--;
    }
    for (int32_t id = 0; id < t->size; id++)
        scores[id] = scores[id] > 0 ? 0 : scores[id];
    struct candidates list = {0};
    const int rc = list_merges(&list, t, scores, name, err);
    *exact = list.n == t->n_merges;
    for (size_t i = 0; i < list.n && *exact; i++)
        *exact = !memcmp(&list.at[i].merge, &t->merges[i], sizeof t->merges[i]);
    free(list.at);
    return rc;
}
