/* Gemma's tokenizer: byte-pair merges over SentencePiece pieces with byte fallback and added tokens, read from tokenizer.json
 * or tokenizer.model; ids equal to those of Hugging Face's tokenizers library. */
#ifndef WARD_MODEL_TOKENIZER_H
#define WARD_MODEL_TOKENIZER_H

#include "base/error.h"

struct tokenizer;

/* From a checkpoint folder: tokenizer.json, else tokenizer.model (with added_tokens.json / tokenizer_config.json beside it). */
WARD_CHECKED int tokenizer_open(struct tokenizer **out, const char *folder, struct ward_error *err);
/* From a file's bytes in memory; `name` is named in errors. */
WARD_CHECKED int tokenizer_from_json(struct tokenizer **out, const char *text, size_t length, const char *name, struct ward_error *err);
WARD_CHECKED int tokenizer_from_model(struct tokenizer **out, const uint8_t *data, size_t size, const char *name, struct ward_error *err);
void tokenizer_close(struct tokenizer **tokenizer);

struct ids {
    int32_t *at; /* malloc'ed; grows */
    size_t n, capacity;
};
void ids_free(struct ids *ids);
WARD_CHECKED int ids_append(struct ids *ids, int32_t id, struct ward_error *err);

enum tokenize_mode {
    TOKENIZE_SPECIAL, /* special tokens written in the text become control tokens, as Hugging Face does */
    TOKENIZE_PLAIN,   /* special tokens written in the text stay text; other added tokens (newline runs) still match */
};
/* Appends the ids of text, without bos. Text that is not UTF-8 is refused. */
WARD_CHECKED int tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, enum tokenize_mode mode,
                                  struct ids *out, struct ward_error *err);

/* The id of a token given by its exact text ("<start_of_turn>"), or -1. */
int32_t tokenizer_id(const struct tokenizer *t, const char *text);
/* Ids run from 0 to this, exclusive. */
int32_t tokenizer_size(const struct tokenizer *t);
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* The bytes that a token stands for in running text (the marker of a space is a space, a byte token its byte). Valid until close;
 * length 0 for an id outside the vocabulary. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *length);

/* Turns a stream of tokens into whole UTF-8 characters: bytes of an unfinished character wait for the next token. As in
 * Hugging Face's decoder, a run of byte tokens that is not UTF-8 becomes one U+FFFD for each byte. */
struct decoder {
    uint8_t pending[256];
    int n_pending;
};
/* Appends what token `id` completes to out (capacity at least decoder_room(t)); returns its length, NUL-terminated.
 * Special tokens give no text unless `special`. */
size_t decoder_push(struct decoder *d, const struct tokenizer *t, int32_t id, bool special, char *out);
/* Ends the stream: bytes still waiting become U+FFFD. */
size_t decoder_finish(struct decoder *d, char *out);
size_t decoder_room(const struct tokenizer *t);

#endif
