/* Text to ids. Hugging Face's steps, in their order: added tokens are cut out of the text (leftmost first, of those the
 * longest); spaces become SPACE_MARK; added tokens marked `normalized` are cut out; what lies between is one word,
 * whatever it holds (the pre-tokenizer splits at spaces, of which none are left), and is merged from its characters. */
#include "base/utf8.h"
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct symbol {
    int32_t id; /* -1: it has become a part of its left neighbour */
    int32_t previous, next; /* -1: none */
};

/* Memory for one call, as large as the largest stretch needed so far. */
struct encoder {
    const struct tokenizer *t;
    bool plain;
    struct ids *out;
    struct ward_error *err;
    char *normalized;
    struct symbol *symbols;
    uint64_t *heap; /* candidates: rank in the high 32 bits, position of the left symbol in the low ones; the smallest
                       on top */
    size_t normalized_capacity, symbols_capacity, heap_capacity, n_heap;
};

static int reserve(struct encoder *e, void *array, size_t *capacity, size_t n, size_t size)
{
    return vocabulary_reserve(array, capacity, n, size, SIZE_MAX, "the text", e->err);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

static void heap_push(struct encoder *e, uint64_t key)
{
    size_t at = e->n_heap++;
    while (at && e->heap[(at - 1) / 2] > key) {
        e->heap[at] = e->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->heap[at] = key;
}

static uint64_t heap_pop(struct encoder *e)
{
    const uint64_t top = e->heap[0], last = e->heap[--e->n_heap];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < e->n_heap) {
        child += child + 1 < e->n_heap && e->heap[child + 1] < e->heap[child];
        if (e->heap[child] >= last)
            break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    e->heap[at] = last;
    return top;
}

/* Enters the symbol at `left` and its right neighbour, if they merge. */
static void push_pair(struct encoder *e, int32_t left)
{
    const struct symbol *symbol = &e->symbols[left];
    const int64_t rank = vocabulary_find_merge(e->t, symbol->id, e->symbols[symbol->next].id);
    if (rank >= 0 && !(e->plain && e->t->pieces[e->t->merges[rank].result].control))
        heap_push(e, (uint64_t)rank << 32 | (uint32_t)left);
}

/* Merges the pair of the lowest rank, the leftmost of equals, until none is left. Entries whose pair no longer stands
 * there are dropped when they come up. Each merge takes one entry and adds two at most, so n symbols never need more
 * than 2n. */
static int merge_symbols(struct encoder *e, size_t n)
{
    const int rc = reserve(e, &e->heap, &e->heap_capacity, 2 * n, sizeof *e->heap);
    if (rc)
        return rc;
    e->n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(e, (int32_t)i);
    while (e->n_heap) {
        const uint64_t top = heap_pop(e);
        const struct merge *merge = &e->t->merges[top >> 32];
        const int32_t at = (int32_t)(uint32_t)top;
        struct symbol *left = &e->symbols[at];
        if (left->id != merge->left || left->next < 0 || e->symbols[left->next].id != merge->right)
            continue;
        struct symbol *right = &e->symbols[left->next];
        left->id = merge->result;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0) {
            e->symbols[left->next].previous = at;
            push_pair(e, at);
        }
        if (left->previous >= 0)
            push_pair(e, left->previous);
    }
    return 0;
}

static void add_symbol(struct encoder *e, size_t *n, int32_t id)
{
    const int32_t at = (int32_t)*n;
    e->symbols[at] = (struct symbol){id, at - 1, at + 1};
    ++*n;
}

static bool usable(const struct encoder *e, int32_t id)
{
    return id >= 0 && !(e->plain && e->t->pieces[id].control);
}

/* One word: the pieces of its characters, bytes where a character is no piece, merged. */
static int encode_word(struct encoder *e, const char *text, size_t length)
{
    if (e->t->ignore_merges) {
        const int32_t id = vocabulary_find(e->t, text, length);
        if (usable(e, id))
            return ids_append(e->out, id, e->err);
    }
    int rc = reserve(e, &e->symbols, &e->symbols_capacity, length, sizeof *e->symbols);
    if (rc)
        return rc;
    size_t n = 0;
    for (size_t i = 0; i < length;) {
        const size_t bytes = utf8_length((const uint8_t *)text + i, length - i);
        const int32_t id = vocabulary_find(e->t, text + i, bytes);
        if (usable(e, id))
            add_symbol(e, &n, id);
        else
            for (size_t k = 0; k < bytes; k++)
                add_symbol(e, &n, e->t->byte_ids[(uint8_t)text[i + k]]);
        i += bytes;
    }
    e->symbols[n - 1].next = -1;
    rc = merge_symbols(e, n);
    for (int32_t i = 0; i >= 0 && !rc; i = e->symbols[i].next)
        rc = ids_append(e->out, e->symbols[i].id, e->err);
    return rc;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

/* Narrows the sorted range [*low, *high), alike in their first `depth` bytes, to the tokens that have `byte` there. */
static void narrow(const struct tokenizer *t, const struct added_set *set, size_t depth, uint8_t byte, size_t *low,
                   size_t *high)
{
    for (int bound = 0; bound < 2; bound++) {
        size_t from = *low, to = *high;
        while (from < to) {
            const size_t middle = from + (to - from) / 2;
            const struct added_token *token = &set->at[middle];
            const int here = token->length > depth ? (uint8_t)t->bytes[token->offset + depth] : -1;
            if (here < byte + bound)
                from = middle + 1;
            else
                to = middle;
        }
        *(bound ? high : low) = from;
    }
}

/* The longest added token that text begins with, or NULL. */
static const struct added_token *match_added(const struct encoder *e, const struct added_set *set, const char *text,
                                             size_t length)
{
    const struct added_token *best = NULL;
    size_t low = set->first[(uint8_t)text[0]], high = set->first[(uint8_t)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        const struct added_token *shortest = &set->at[low];
        if (shortest->length == depth && usable(e, shortest->id))
            best = shortest;
        if (depth == length)
            break;
        narrow(e->t, set, depth, (uint8_t)text[depth], &low, &high);
    }
    return best;
}

typedef int stretch_fn(struct encoder *e, const char *text, size_t length);

/* Cuts the set's tokens out of text and hands what lies between to `stretch`. */
static int split_added(struct encoder *e, const struct added_set *set, const char *text, size_t length,
                       stretch_fn *stretch)
{
    size_t start = 0, at = 0;
    int rc = 0;
    while (at < length && !rc) {
        const struct added_token *token = match_added(e, set, text + at, length - at);
        if (!token) {
            at++;
            continue;
        }
        if (at > start)
            rc = stretch(e, text + start, at - start);
        if (!rc)
            rc = ids_append(e->out, token->id, e->err);
        start = at += token->length;
    }
    return !rc && at > start ? stretch(e, text + start, at - start) : rc;
}

static int encode_stretch(struct encoder *e, const char *text, size_t length)
{
    const int rc = reserve(e, &e->normalized, &e->normalized_capacity, length * SPACE_MARK_LENGTH, 1);
    if (rc)
        return rc;
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == ' ') {
            memcpy(e->normalized + n, SPACE_MARK, SPACE_MARK_LENGTH);
            n += SPACE_MARK_LENGTH;
        } else {
            e->normalized[n++] = text[i];
        }
    }
    return split_added(e, &e->t->normalized, e->normalized, n, encode_word);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, enum tokenize_mode mode,
                     struct ids *out, struct ward_error *err)
{
    if (length > INT32_MAX / SPACE_MARK_LENGTH)
        return error_set(err, WARD_EINVAL, "the text is %zu bytes long; at most %d are possible", length,
                         INT32_MAX / SPACE_MARK_LENGTH);
    const size_t valid = utf8_valid((const uint8_t *)text, length);
    if (valid < length)
        return error_set(err, WARD_EINVAL, "the text is not UTF-8: its byte %zu is 0x%02x", valid + 1,
                         (uint8_t)text[valid]);
    struct encoder e = {.t = t, .plain = mode == TOKENIZE_PLAIN, .out = out, .err = err};
    const int rc = split_added(&e, &t->raw, text, length, encode_stretch);
    free(e.normalized);
    free(e.symbols);
    free(e.heap);
    return rc;
}
