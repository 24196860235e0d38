/* Gemma's tokenizer: byte-pair merges over SentencePiece pieces with byte fallback and added tokens, read from
 * tokenizer.json, tokenizer.model or a GGUF file; ids equal to those of Hugging Face's tokenizers library. */
#ifndef WARD_MODEL_TOKENIZER_H
#define WARD_MODEL_TOKENIZER_H

#include "base/error.h"

struct tokenizer;
struct gguf;

/* From a checkpoint folder: tokenizer.json, else tokenizer.model (with added_tokens.json / tokenizer_config.json beside
 * it). */
WARD_CHECKED int tokenizer_open(struct tokenizer **out, const char *folder, struct ward_error *err);
/* From a file's bytes in memory; `name` is named in errors. */
WARD_CHECKED int tokenizer_from_json(struct tokenizer **out, const char *text, size_t length, const char *name,
                                     struct ward_error *err);
WARD_CHECKED int tokenizer_from_model(struct tokenizer **out, const uint8_t *data, size_t size, const char *name,
                                      struct ward_error *err);
/* From the vocabulary of a GGUF file, which may be closed then. Of the tokens that it marks as control, those that
 * Gemma's tokenizer.json does not flag as special (<mask>, <unusedN>) are not special here either. */
WARD_CHECKED int tokenizer_from_gguf(struct tokenizer **out, const struct gguf *file, struct ward_error *err);
void tokenizer_close(struct tokenizer **tokenizer);

struct ids {
    int32_t *at; /* malloc'ed; grows */
    size_t n, capacity;
};
void ids_free(struct ids *ids);
WARD_CHECKED int ids_append(struct ids *ids, int32_t id, struct ward_error *err);

enum tokenize_mode {
    TOKENIZE_SPECIAL, /* special tokens written in the text become control tokens, as Hugging Face does */
    TOKENIZE_PLAIN, /* control tokens (tokenizer_is_control) written in the text stay text; other added tokens still
                       match */
};
/* Appends the ids of text, without bos. Text that is not UTF-8 is refused (WARD_EINVAL); NUL is a character like any
 * other. */
WARD_CHECKED int tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, enum tokenize_mode mode,
                                  struct ids *out, struct ward_error *err);

/* The id of a token given by its exact text ("<start_of_turn>"), or -1. */
int32_t tokenizer_id(const struct tokenizer *t, const char *text);
/* Ids run from 0 to this, exclusive. */
int32_t tokenizer_size(const struct tokenizer *t);
/* Flagged special in the file: left out of decoded text on request. */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);
/* Could steer the model: flagged special, or an added token that is neither white space, nor a word, nor an HTML tag,
 * such as <unused94> or [multimodal]. TOKENIZE_PLAIN never gives such an id. */
bool tokenizer_is_control(const struct tokenizer *t, int32_t id);
/* The text of a token as the file has it (a space is U+2581, a byte "<0x0A>"). Not NUL-terminated; valid until close;
 * length 0 for an id outside the vocabulary. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *length);

/* Text of ids, as Hugging Face's decode (clean_up_tokenization_spaces=False) gives it; special tokens give none unless
 * `special`. *text is malloc'ed and NUL-terminated; NULL after a failure. */
WARD_CHECKED int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool special, char **text,
                                  size_t *length, struct ward_error *err);

/* The same, token by token, in whole UTF-8 characters. As in Hugging Face's decoder a run of byte tokens that is not
 * UTF-8 as a whole becomes one U+FFFD for each byte, so a run is held back until it ends. */
struct decoder {
    const struct tokenizer *tokenizer;
    bool special;
    uint8_t *run; /* [capacity] bytes of the unfinished run */
    size_t n_run, capacity;
    char *text; /* what the last push completed */
};
/* Takes all memory that decoding will need; pushing cannot fail. max_run: the longest run of byte tokens kept together,
 * at least 1; the number of tokens that may come is always enough. */
WARD_CHECKED int decoder_open(struct decoder *d, const struct tokenizer *t, size_t max_run, bool special,
                              struct ward_error *err);
/* What token `id` completes, NUL-terminated; valid until the next call. */
const char *decoder_push(struct decoder *d, int32_t id, size_t *length);
/* Ends the stream, so that the next push begins another: the text of a run still held back. */
const char *decoder_finish(struct decoder *d, size_t *length);
void decoder_close(struct decoder *d);

#endif
