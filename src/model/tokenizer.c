/* The tables of the tokenizer: pieces by id and by text, merges by pair, added tokens. */
#include "model/tokenizer.h"

#include "model/vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- growing arrays --------------------------------------------------------------------------------------------- */

int vocabulary_reserve(void *array, size_t *capacity, size_t n, size_t size, size_t limit, const char *name,
                       struct ward_error *err)
{
    if (n <= *capacity)
        return 0;
    if (n > limit)
        return error_set(err, WARD_EFORMAT, "%s: a list is longer than the %zu entries that a tokenizer may have", name,
                         limit);
    size_t wanted = *capacity < 64 ? 64 : *capacity + *capacity / 2, bytes;
    if (wanted < n)
        wanted = n;
    void *old, *grown = NULL;
    memcpy(&old, array, sizeof old);
    if (size_multiply(wanted, size, &bytes))
        grown = realloc(old, bytes);
    if (!grown)
        return error_no_memory(err, name, wanted);
    memcpy(array, &grown, sizeof grown);
    *capacity = wanted;
    return 0;
}

void ids_free(struct ids *ids)
{
    free(ids->at);
    *ids = (struct ids){0};
}

int ids_append(struct ids *ids, int32_t id, struct ward_error *err)
{
    if (ids->n == ids->capacity) {
        const int rc =
            vocabulary_reserve(&ids->at, &ids->capacity, ids->n + 1, sizeof *ids->at, SIZE_MAX, "the tokens", err);
        if (rc)
            return rc;
    }
    ids->at[ids->n++] = id;
    return 0;
}

/* ---- hash tables ------------------------------------------------------------------------------------------------ */

enum { LOOK_AHEAD = 16 }; /* entries whose slot is fetched while others are stored */

static const uint64_t hash_factor = 0x9e3779b97f4a7c15u;

static uint64_t hash_mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * hash_factor;
    return h ^ h >> 32;
}

static uint64_t hash_text(const char *text, size_t length)
{
    uint64_t h = length * hash_factor, word;
    for (; length >= 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        h = hash_mix(h, word);
    }
    word = 0;
    for (size_t i = 0; i < length; i++)
        word = word << 8 | (uint8_t)text[i];
    return hash_mix(hash_mix(h, word), 0);
}

static uint64_t hash_pair(int32_t left, int32_t right)
{
    return hash_mix(hash_mix(0, (uint64_t)(uint32_t)left << 32 | (uint32_t)right), 0);
}

static int table_open(struct hash_table *table, size_t n, const char *name, struct ward_error *err)
{
    size_t size = 64;
    while (size < 2 * n)
        size *= 2;
    table->slots = calloc(size, sizeof *table->slots);
    if (!table->slots)
        return error_no_memory(err, name, size * sizeof *table->slots);
    table->mask = size - 1;
    return 0;
}

static uint64_t slot_tag(uint64_t hash)
{
    return hash & 0xffffffff00000000u;
}

/* The slot for `hash` whose entry `same` accepts, or the empty one where it belongs; NULL when too many lie before it.
 */
typedef bool same_fn(const struct tokenizer *t, size_t entry, const void *key);

static inline uint64_t *table_slot(const struct tokenizer *t, const struct hash_table *table, uint64_t hash,
                                   same_fn *same, const void *key)
{
    for (size_t probe = 0, at = hash & table->mask; probe < VOCABULARY_MAX_PROBES;
         probe++, at = (at + 1) & table->mask) {
        const uint64_t slot = table->slots[at];
        if (!slot || (slot_tag(slot) == slot_tag(hash) && same(t, (uint32_t)slot - 1, key)))
            return &table->slots[at];
    }
    return NULL;
}

static int collision(const char *name, struct ward_error *err)
{
    return error_set(err, WARD_EFORMAT, "%s: its entries are made to collide, which a tokenizer's are not", name);
}

/* ---- pieces ----------------------------------------------------------------------------------------------------- */

struct text_key {
    const char *text;
    size_t length;
};

static inline bool same_text(const struct tokenizer *t, size_t entry, const void *user)
{
    const struct text_key *key = user;
    const struct piece *piece = &t->pieces[entry];
    return piece->length == key->length && !memcmp(t->bytes + piece->offset, key->text, key->length);
}

static int add_bytes(struct tokenizer *t, const char *text, size_t length, uint32_t *offset, const char *name,
                     struct ward_error *err)
{
    const int rc = vocabulary_reserve(&t->bytes, &t->bytes_capacity, t->n_bytes + length, 1, UINT32_MAX, name, err);
    if (rc)
        return rc;
    memcpy(t->bytes + t->n_bytes, text, length);
    *offset = (uint32_t)t->n_bytes;
    t->n_bytes += length;
    return 0;
}

static int index_piece(struct tokenizer *t, int32_t id, const char *name, struct ward_error *err)
{
    const struct text_key key = {t->bytes + t->pieces[id].offset, t->pieces[id].length};
    const uint64_t hash = hash_text(key.text, key.length);
    uint64_t *slot = table_slot(t, &t->by_text, hash, same_text, &key);
    if (!slot)
        return collision(name, err);
    if (*slot)
        return error_set(err, WARD_EFORMAT, "%s: tokens %d and %d are the same text", name, (int)((uint32_t)*slot - 1),
                         (int)id);
    *slot = slot_tag(hash) | ((uint32_t)id + 1);
    return 0;
}

int vocabulary_index(struct tokenizer *t, const char *name, struct ward_error *err)
{
    free(t->by_text.slots);
    t->by_text.slots = NULL;
    if (!t->size)
        return error_set(err, WARD_EFORMAT, "%s: has no tokens", name);
    int rc = table_open(&t->by_text, (size_t)t->size, name, err);
    for (int32_t id = 0; id < t->size && !rc; id++) {
        if (id + LOOK_AHEAD < t->size) {
            const struct piece *later = &t->pieces[id + LOOK_AHEAD];
            __builtin_prefetch(&t->by_text.slots[hash_text(t->bytes + later->offset, later->length) & t->by_text.mask],
                               1);
        }
        if (t->pieces[id].length)
            rc = index_piece(t, id, name, err);
    }
    return rc;
}

int vocabulary_add(struct tokenizer *t, const char *text, size_t length, int64_t id, const char *name,
                   struct ward_error *err)
{
    if (id < 0 || id >= VOCABULARY_MAX_ID)
        return error_set(err, WARD_EFORMAT, "%s: has a token with id %lld; ids from 0 to %d are expected", name,
                         (long long)id, VOCABULARY_MAX_ID - 1);
    if (!length || length > VOCABULARY_MAX_PIECE)
        return error_set(err, WARD_EFORMAT, "%s: token %lld is %zu bytes long; 1 to %d are expected", name,
                         (long long)id, length, VOCABULARY_MAX_PIECE);
    int rc = vocabulary_reserve(&t->pieces, &t->pieces_capacity, (size_t)id + 1, sizeof *t->pieces, VOCABULARY_MAX_ID,
                                name, err);
    if (rc)
        return rc;
    if (id >= t->size) {
        memset(t->pieces + t->size, 0, (size_t)(id + 1 - t->size) * sizeof *t->pieces);
        t->size = (int32_t)id + 1;
    }
    struct piece *piece = &t->pieces[id];
    if (piece->length)
        return error_set(err, WARD_EFORMAT, "%s: two tokens have the id %lld", name, (long long)id);
    rc = add_bytes(t, text, length, &piece->offset, name, err);
    if (rc)
        return rc;
    piece->length = (uint16_t)length;
    if (!t->by_text.slots)
        return 0;
    return (size_t)t->size > (t->by_text.mask + 1) / 4 * 3 ? vocabulary_index(t, name, err)
                                                           : index_piece(t, (int32_t)id, name, err);
}

static int32_t find_hashed(const struct tokenizer *t, const char *text, size_t length, uint64_t hash)
{
    const struct text_key key = {text, length};
    const uint64_t *slot = table_slot(t, &t->by_text, hash, same_text, &key);
    return slot && *slot ? (int32_t)((uint32_t)*slot - 1) : -1;
}

int32_t vocabulary_find(const struct tokenizer *t, const char *text, size_t length)
{
    return find_hashed(t, text, length, hash_text(text, length));
}

void vocabulary_find_all(const struct tokenizer *t, struct text_query *queries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        queries[i].hash = hash_text(queries[i].text, queries[i].length);
        __builtin_prefetch(&t->by_text.slots[queries[i].hash & t->by_text.mask]);
    }
    /* Most entries lie where their hash says. */
    for (size_t i = 0; i < n; i++) {
        const uint64_t slot = t->by_text.slots[queries[i].hash & t->by_text.mask];
        queries[i].id = slot ? (int32_t)((uint32_t)slot - 1) : 0;
        __builtin_prefetch(&t->pieces[queries[i].id]);
    }
    for (size_t i = 0; i < n; i++)
        __builtin_prefetch(t->bytes + t->pieces[queries[i].id].offset);
    for (size_t i = 0; i < n; i++)
        queries[i].id = find_hashed(t, queries[i].text, queries[i].length, queries[i].hash);
}

/* ---- merges ----------------------------------------------------------------------------------------------------- */

static inline bool same_pair(const struct tokenizer *t, size_t entry, const void *user)
{
    const struct merge *key = user;
    return t->merges[entry].left == key->left && t->merges[entry].right == key->right;
}

int vocabulary_add_merge(struct tokenizer *t, struct merge merge, const char *name, struct ward_error *err)
{
    const int rc = vocabulary_reserve(&t->merges, &t->merges_capacity, t->n_merges + 1, sizeof *t->merges,
                                      VOCABULARY_MAX_MERGES, name, err);
    if (!rc)
        t->merges[t->n_merges++] = merge;
    return rc;
}

static int index_merges(struct tokenizer *t, const char *name, struct ward_error *err)
{
    int rc = table_open(&t->by_pair, t->n_merges, name, err);
    for (size_t i = 0; i < t->n_merges && !rc; i++) {
        if (i + LOOK_AHEAD < t->n_merges) {
            const struct merge *later = &t->merges[i + LOOK_AHEAD];
            __builtin_prefetch(&t->by_pair.slots[hash_pair(later->left, later->right) & t->by_pair.mask], 1);
        }
        const uint64_t hash = hash_pair(t->merges[i].left, t->merges[i].right);
        uint64_t *slot = table_slot(t, &t->by_pair, hash, same_pair, &t->merges[i]);
        if (!slot)
            rc = collision(name, err);
        else if (*slot)
            rc = error_set(err, WARD_EFORMAT, "%s: merges %zu and %zu are the same pair", name,
                           (size_t)(uint32_t)*slot - 1, i);
        else
            *slot = slot_tag(hash) | (i + 1);
    }
    return rc;
}

int64_t vocabulary_find_merge(const struct tokenizer *t, int32_t left, int32_t right)
{
    const struct merge key = {left, right, 0};
    const uint64_t *slot = table_slot(t, &t->by_pair, hash_pair(left, right), same_pair, &key);
    return slot && *slot ? (int64_t)(uint32_t)*slot - 1 : -1;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

/* <b>, </table>: mark-up of ordinary text, which a user may write. Gemma's vocabulary holds these. */
static bool is_html_tag(const char *text, size_t length)
{
    static const char names[] =
        " a b bbox blockquote body caption code div em footer h1 h2 h3 h4 h5 h6 html i iframe img li s span strong sub "
        "sup table tbody"
        " td tfoot th thead tr u ul ";
    char name[16];
    if (length < 3 || text[0] != '<' || text[length - 1] != '>')
        return false;
    const size_t skip = text[1] == '/' ? 2 : 1, n = length - skip - 1;
    if (!n || n + 3 > sizeof name || memchr(text + skip, ' ', n) || memchr(text, 0, length))
        return false;
    snprintf(name, sizeof name, " %.*s ", (int)n, text + skip);
    return strstr(names, name);
}

/* White space and words cannot steer the model; what is written with signs (<unused94>, [multimodal], <2mass>) may. */
static bool is_ordinary(const char *text, size_t length)
{
    if (is_html_tag(text, length))
        return true;
    for (size_t i = 0; i < length; i++) {
        const uint8_t c = (uint8_t)text[i], letter = c | 0x20;
        if (c < 0x80 && c != ' ' && !(c >= '\t' && c <= '\r') && !(c >= '0' && c <= '9') &&
            !(letter >= 'a' && letter <= 'z'))
            return false;
    }
    return true;
}

static int normalize_pattern(struct tokenizer *t, struct added_token *token, const char *name, struct ward_error *err)
{
    char pattern[VOCABULARY_MAX_PIECE * SPACE_MARK_LENGTH];
    size_t n = 0;
    for (size_t i = 0; i < token->length; i++) {
        const char c = t->bytes[token->offset + i];
        const bool space = c == ' ';
        memcpy(pattern + n, space ? SPACE_MARK : &c, space ? SPACE_MARK_LENGTH : 1);
        n += space ? SPACE_MARK_LENGTH : 1;
    }
    token->length = (uint32_t)n;
    return add_bytes(t, pattern, n, &token->offset, name, err);
}

int vocabulary_add_token(struct tokenizer *t, int32_t id, bool special, bool normalized, const char *name,
                         struct ward_error *err)
{
    struct piece *piece = &t->pieces[id];
    struct added_set *set = normalized ? &t->normalized : &t->raw;
    if (piece->added)
        return error_set(err, WARD_EFORMAT, "%s: the added token %d is given twice", name, (int)id);
    int rc = vocabulary_reserve(&set->at, &set->capacity, set->n + 1, sizeof *set->at, VOCABULARY_MAX_ID, name, err);
    if (rc)
        return rc;
    piece->added = 1;
    piece->special = special;
    piece->control = special || !is_ordinary(t->bytes + piece->offset, piece->length);
    struct added_token *token = &set->at[set->n++];
    *token = (struct added_token){piece->offset, piece->length, id};
    return normalized ? normalize_pattern(t, token, name, err) : 0;
}

static int compare_added(const void *a, const void *b, void *bytes)
{
    const struct added_token *x = a, *y = b;
    const int order = memcmp((const char *)bytes + x->offset, (const char *)bytes + y->offset,
                             x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

static void sort_added(const struct tokenizer *t, struct added_set *set)
{
    if (set->n)
        qsort_r(set->at, set->n, sizeof *set->at, compare_added, t->bytes);
    size_t next = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (next < set->n && (uint8_t)t->bytes[set->at[next].offset] < byte)
            next++;
        set->first[byte] = (uint32_t)next;
    }
}

int vocabulary_finish(struct tokenizer *t, const char *name, struct ward_error *err)
{
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", byte);
        const int32_t id = t->byte_ids[byte] = vocabulary_find(t, text, 6);
        if (id < 0 || t->pieces[id].added)
            return error_set(err, WARD_EUNSUPPORTED, "%s: has no byte token %s; a vocabulary with all 256 is expected",
                             name, text);
    }
    sort_added(t, &t->raw);
    sort_added(t, &t->normalized);
    return index_merges(t, name, err);
}

/* ---- the tokenizer ---------------------------------------------------------------------------------------------- */

void tokenizer_close(struct tokenizer **tokenizer)
{
    struct tokenizer *t = *tokenizer;
    if (t) {
        free(t->bytes);
        free(t->pieces);
        free(t->by_text.slots);
        free(t->merges);
        free(t->by_pair.slots);
        free(t->raw.at);
        free(t->normalized.at);
        free(t);
    }
    *tokenizer = NULL;
}

int32_t tokenizer_id(const struct tokenizer *t, const char *text)
{
    return vocabulary_find(t, text, strlen(text));
}

int32_t tokenizer_size(const struct tokenizer *t)
{
    return t->size;
}

static bool has_id(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->size;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return has_id(t, id) && t->pieces[id].special;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return has_id(t, id) && t->pieces[id].control;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *length)
{
    *length = has_id(t, id) ? t->pieces[id].length : 0;
    return *length ? t->bytes + t->pieces[id].offset : "";
}
