/* A tokenizer of the form of Gemma's, small enough to read: special tokens, runs of white space, all bytes, then the
 * pieces a test asks for. Written as tokenizer.json or tokenizer.model. */
#ifndef WARD_TESTS_SMALL_TOKENIZER_H
#define WARD_TESTS_SMALL_TOKENIZER_H

#include "base/json.h"
#include "model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    SMALL_BOS = 2,
    SMALL_START_OF_TURN = 4,
    SMALL_END_OF_TURN,
    SMALL_BOI,
    SMALL_EOI,
    SMALL_UNUSED94,
    SMALL_UNUSED95,
    SMALL_NEWLINE, /* 1 to 4 */
    SMALL_TWO_SPACES = SMALL_NEWLINE + 4,
    SMALL_BOLD,
    SMALL_BRACKET,
    SMALL_BYTES,
    SMALL_PIECES = SMALL_BYTES + 256,
};

static const char *const small_fixed[] = {
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<unused94>",
    "<unused95>",
    "\n",
    "\n\n",
    "\n\n\n",
    "\n\n\n\n",
    "\xe2\x96\x81\xe2\x96\x81",
    "<b>",
    "[x]",
};

static inline bool small_is_special(int id)
{
    return id <= SMALL_EOI;
}

struct small_tokenizer {
    const char *const *pieces; /* ids from SMALL_PIECES on; ends with NULL */
    const char *const *merges; /* "left right", lowest rank first; ends with NULL */
    const char *normalized;    /* a piece that is an added token with "normalized": true; may be NULL */
    const char *control;       /* a piece that is an added token with "special": true; may be NULL */
    bool spelled;              /* merges as "left right", not as pairs */
    bool ignore_merges;
};

static inline void small_added(struct json_writer *w, int id, const char *content, bool special, bool normalized)
{
    json_write_open(w, NULL, '{');
    json_write_integer(w, "id", id);
    json_write_string(w, "content", content, strlen(content));
    json_write_boolean(w, "single_word", false);
    json_write_boolean(w, "lstrip", false);
    json_write_boolean(w, "rstrip", false);
    json_write_boolean(w, "normalized", normalized);
    json_write_boolean(w, "special", special);
    json_write_close(w, '}');
}

static inline void small_replace(struct json_writer *w, const char *key, const char *type, const char *from,
                                 const char *to)
{
    json_write_open(w, key, '{');
    json_write_string(w, "type", type, strlen(type));
    json_write_open(w, "pattern", '{');
    json_write_string(w, "String", from, strlen(from));
    json_write_close(w, '}');
    if (to)
        json_write_string(w, "content", to, strlen(to));
    json_write_close(w, '}');
}

static inline void small_step(struct json_writer *w, const char *type)
{
    json_write_open(w, NULL, '{');
    json_write_string(w, "type", type, strlen(type));
    json_write_close(w, '}');
}

static inline void small_model(struct json_writer *w, const struct small_tokenizer *small)
{
    json_write_open(w, "model", '{');
    json_write_string(w, "type", "BPE", 3);
    json_write_null(w, "dropout");
    json_write_boolean(w, "byte_fallback", true);
    json_write_boolean(w, "ignore_merges", small->ignore_merges);
    json_write_open(w, "vocab", '{');
    for (int id = 0; id < SMALL_BYTES; id++)
        json_write_integer(w, small_fixed[id], id);
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        json_write_integer(w, text, SMALL_BYTES + byte);
    }
    for (int i = 0; small->pieces[i]; i++)
        json_write_integer(w, small->pieces[i], SMALL_PIECES + i);
    json_write_close(w, '}');
    json_write_open(w, "merges", '[');
    for (int i = 0; small->merges[i]; i++) {
        const char *merge = small->merges[i], *space = strchr(merge, ' ');
        if (small->spelled) {
            json_write_string(w, NULL, merge, strlen(merge));
        } else {
            json_write_open(w, NULL, '[');
            json_write_string(w, NULL, merge, (size_t)(space - merge));
            json_write_string(w, NULL, space + 1, strlen(space + 1));
            json_write_close(w, ']');
        }
    }
    json_write_close(w, ']');
    json_write_close(w, '}');
}

/* tokenizer.json; free() it. */
static inline char *small_json(const struct small_tokenizer *small)
{
    struct json_writer *w = json_writer_new(false);
    int n = SMALL_PIECES;
    json_write_open(w, NULL, '{');
    json_write_string(w, "version", "1.0", 3);
    json_write_null(w, "truncation");
    json_write_open(w, "added_tokens", '[');
    for (int id = 0; id < SMALL_BYTES; id++)
        small_added(w, id, small_fixed[id], small_is_special(id), false);
    for (; small->pieces[n - SMALL_PIECES]; n++) {
        const char *piece = small->pieces[n - SMALL_PIECES];
        const bool normalized = small->normalized && !strcmp(piece, small->normalized);
        const bool control = small->control && !strcmp(piece, small->control);
        if (normalized || control)
            small_added(w, n, piece, control, normalized);
    }
    small_added(w, n, "<image_soft_token>", true, false);
    json_write_close(w, ']');
    small_replace(w, "normalizer", "Replace", " ", "\xe2\x96\x81");
    small_replace(w, "pre_tokenizer", "Split", " ", NULL);
    json_write_open(w, "decoder", '{');
    json_write_string(w, "type", "Sequence", 8);
    json_write_open(w, "decoders", '[');
    small_replace(w, NULL, "Replace", "\xe2\x96\x81", " ");
    small_step(w, "ByteFallback");
    small_step(w, "Fuse");
    json_write_close(w, ']');
    json_write_close(w, '}');
    small_model(w, small);
    json_write_close(w, '}');
    char *text = strdup(json_writer_text(w, NULL));
    json_writer_free(&w);
    return text;
}

static inline struct tokenizer *small_open(const struct small_tokenizer *small)
{
    struct tokenizer *t;
    struct ward_error err = {0};
    char *text = small_json(small);
    if (tokenizer_from_json(&t, text, strlen(text), "tokenizer.json", &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    free(text);
    return t;
}

/* ---- tokenizer.model -------------------------------------------------------------------------------------------- */

struct bytes {
    uint8_t at[1 << 16];
    size_t n;
};

static inline void put_byte(struct bytes *b, unsigned byte)
{
    if (b->n == sizeof b->at)
        abort();
    b->at[b->n++] = (uint8_t)byte;
}

static inline void put_varint(struct bytes *b, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        put_byte(b, (unsigned)(value & 0x7f) | 0x80);
    put_byte(b, (unsigned)value);
}

static inline void put_field(struct bytes *b, int number, const void *data, size_t size)
{
    put_varint(b, (uint64_t)number << 3 | 2);
    put_varint(b, size);
    for (size_t i = 0; i < size; i++)
        put_byte(b, ((const uint8_t *)data)[i]);
}

static inline void put_piece(struct bytes *b, const char *text, float score, int type)
{
    static struct bytes piece;
    piece.n = 0;
    put_field(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | 5);
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    for (int i = 0; i < 4; i++)
        put_byte(&piece, bits >> 8 * i & 0xff);
    put_varint(&piece, 3 << 3);
    put_varint(&piece, (uint64_t)type);
    put_field(b, 1, piece.at, piece.n);
}

/* A trainer_spec or normalizer_spec of numbers: {field, value} until field 0. */
static inline void put_settings(struct bytes *b, int number, const int (*settings)[2])
{
    static struct bytes body;
    body.n = 0;
    for (; (*settings)[0]; settings++) {
        put_varint(&body, (uint64_t)(*settings)[0] << 3);
        put_varint(&body, (uint64_t)(*settings)[1]);
    }
    put_field(b, number, body.at, body.n);
}

static const int small_trainer[][2] = {{3, 2}, {35, 1}, {0, 0}};            /* BPE, byte_fallback */
static const int small_normalizer[][2] = {
    {3, 0}, {4, 0}, {5, 1}, {0, 0}}; /* no dummy prefix, no removed spaces, escape */

/* The same pieces, each scored by its place: earlier merges first. */
static inline void small_pieces(struct bytes *b, const char *const *pieces)
{
    b->n = 0;
    for (int id = 0; id < SMALL_BYTES; id++)
        put_piece(b, small_fixed[id], 0, id == 3 ? 2 : id < 3 ? 3 : 4);
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        put_piece(b, text, 0, 6);
    }
    for (int i = 0; pieces[i]; i++)
        put_piece(b, pieces[i], (float)-i, 1);
}

/* text with its first `from` replaced; free it. */
static inline char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    char *out;
    assert_true(asprintf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    return out;
}

#endif
