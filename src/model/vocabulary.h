/* Inside the tokenizer: its tables, and how the readers of files fill them. */
#ifndef WARD_MODEL_VOCABULARY_H
#define WARD_MODEL_VOCABULARY_H

#include "base/json.h"
#include "model/tokenizer.h"

enum {
    VOCABULARY_MAX_ID = 1 << 22,     /* Gemma 3 has 262145 tokens */
    VOCABULARY_MAX_PIECE = 4096,     /* bytes; Gemma 3's longest has 93 */
    VOCABULARY_MAX_MERGES = 1 << 25, /* Gemma 3 has 514906 */
    VOCABULARY_MAX_PROBES =
        4096,    /* entries of a hash table that may lie side by side: a file made to collide is refused */
};

/* As SentencePiece and GGUF files number them. */
enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

/* What stands for a space inside pieces: U+2581. */
#define SPACE_MARK "\xe2\x96\x81"
enum { SPACE_MARK_LENGTH = 3 };

struct piece {
    uint32_t offset; /* into bytes */
    uint16_t length; /* 0: no token has this id */
    uint8_t special, control, added;
};

/* Two neighbours that become one. Its place in the array is its rank: lower goes first. */
struct merge {
    int32_t left, right, result;
};

/* Open addressing, linear probing; half full when made, never above three quarters. A slot holds 1 + the index of its
 * entry in the low 32 bits and a part of its hash in the high ones; 0: empty. */
struct hash_table {
    uint64_t *slots;
    size_t mask;
};

/* Added tokens, which are found in text before it is cut into pieces. Sorted by their bytes. */
struct added_token {
    uint32_t offset, length; /* pattern, into bytes */
    int32_t id;
};
struct added_set {
    struct added_token *at;
    size_t n, capacity;
    uint32_t first[257]; /* tokens that begin with byte b are at[first[b]] .. at[first[b + 1] - 1] */
};

struct tokenizer {
    char *bytes;           /* the pieces, one after another */
    size_t n_bytes, bytes_capacity;
    struct piece *pieces;  /* [size] */
    int32_t size;
    size_t pieces_capacity;
    struct hash_table by_text;
    struct merge *merges;  /* [n_merges] in order of rank */
    size_t n_merges, merges_capacity;
    struct hash_table by_pair;
    struct added_set raw;        /* matched in the text as it is */
    struct added_set normalized; /* matched after spaces have become SPACE_MARK */
    int32_t byte_ids[256];
    bool ignore_merges;          /* a stretch of text that is a piece as a whole is not built from its characters */
};

/* Adds a piece. Refuses an id twice, and lengths and ids out of bounds. */
WARD_CHECKED int vocabulary_add(struct tokenizer *t, const char *text, size_t length, int64_t id, const char *name,
                                struct ward_error *err);
/* Makes looking up by text work, for pieces added later too. Refuses a text twice. */
WARD_CHECKED int vocabulary_index(struct tokenizer *t, const char *name, struct ward_error *err);
/* The id of a piece, or -1. */
int32_t vocabulary_find(const struct tokenizer *t, const char *text, size_t length);
/* The same for many at once, which takes a third of the time: the tables are larger than the cache, and here the waits
 * overlap. */
struct text_query {
    const char *text;
    size_t length;
    uint64_t hash;
    int32_t id; /* the answer, or -1 */
};
void vocabulary_find_all(const struct tokenizer *t, struct text_query *queries, size_t n);
WARD_CHECKED int vocabulary_add_merge(struct tokenizer *t, struct merge merge, const char *name,
                                      struct ward_error *err);
/* The rank of a pair, or -1. */
int64_t vocabulary_find_merge(const struct tokenizer *t, int32_t left, int32_t right);
/* Declares a piece to be an added token. */
WARD_CHECKED int vocabulary_add_token(struct tokenizer *t, int32_t id, bool special, bool normalized, const char *name,
                                      struct ward_error *err);
/* The same for an entry of added_tokens (tokenizer.json) or added_tokens_decoder (tokenizer_config.json): an object
 * with content and flags. Adds the piece where there is none. */
WARD_CHECKED int vocabulary_add_entry(struct tokenizer *t, const struct json *entry, int64_t id, const char *name,
                                      struct ward_error *err);
/* For files whose pieces have a score and a type (PIECE_NORMAL ...; entries of ids without a piece are not read).
 * Adds the merges that SentencePiece would make, the best score first. scores: [size] */
WARD_CHECKED int vocabulary_add_merges(struct tokenizer *t, const float *scores, const char *name,
                                       struct ward_error *err);
/* Declares what is typed control, unknown or the user's among the ids below n to be added tokens, unless a file beside
 * has; the marks of turns and images whatever their type. Gemma's image token is in no tokenizer.model: where there are images it gets the id after the last. */
WARD_CHECKED int vocabulary_add_typed(struct tokenizer *t, const uint8_t *types, int32_t n, const char *name,
                                      struct ward_error *err);
/* The reverse of both, for a file: scores and types. A vocabulary that SentencePiece trained gets its own merges from
 * the scores; any other, for which *exact becomes false, only much the same ones. scores, types: [size] */
WARD_CHECKED int vocabulary_marks(const struct tokenizer *t, float *scores, uint8_t *types, bool *exact,
                                  const char *name, struct ward_error *err);
/* To be called last: sorts the added tokens, indexes the merges, and refuses a vocabulary that lacks a byte. */
WARD_CHECKED int vocabulary_finish(struct tokenizer *t, const char *name, struct ward_error *err);

/* Makes room for n entries of `size` bytes in a growing array of at most `limit`. */
WARD_CHECKED int vocabulary_reserve(void *array, size_t *capacity, size_t n, size_t size, size_t limit,
                                    const char *name, struct ward_error *err);

#endif
