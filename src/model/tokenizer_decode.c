/* Ids to text. Hugging Face's steps: special tokens are dropped on request, SPACE_MARK becomes a space, runs of byte
 * tokens become characters. */
#include "base/utf8.h"
#include "model/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
enum { REPLACEMENT_LENGTH = 3 };

int decoder_open(struct decoder *d, const struct tokenizer *t, size_t max_run, bool special, struct ward_error *err)
{
    *d = (struct decoder){.tokenizer = t, .special = special, .capacity = max_run ? max_run : 1};
    size_t room;
    if (size_multiply(d->capacity, REPLACEMENT_LENGTH, &room) && room <= SIZE_MAX / 2) {
        d->run = malloc(d->capacity);
        d->text = malloc(room + VOCABULARY_MAX_PIECE + 1); /* a run and the piece that ends it */
    }
    if (d->run && d->text)
        return 0;
    decoder_close(d);
    return error_no_memory(err, "decoded text", max_run);
}

void decoder_close(struct decoder *d)
{
    free(d->run);
    free(d->text);
    *d = (struct decoder){0};
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The byte that a piece of the form <0x0A> stands for, or -1. */
static int piece_byte(const char *piece, size_t length)
{
    if (length != 6 || memcmp(piece, "<0x", 3) || piece[5] != '>')
        return -1;
    const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* Writes the run to the start of d->text; returns its length. */
static size_t end_run(struct decoder *d)
{
    size_t n = d->n_run;
    if (utf8_valid(d->run, n) == n) {
        memcpy(d->text, d->run, n);
    } else {
        for (size_t i = 0; i < n; i++)
            memcpy(d->text + i * REPLACEMENT_LENGTH, REPLACEMENT, REPLACEMENT_LENGTH);
        n *= REPLACEMENT_LENGTH;
    }
    d->n_run = 0;
    return n;
}

const char *decoder_push(struct decoder *d, int32_t id, size_t *length)
{
    size_t piece_length, n = 0;
    const char *piece = tokenizer_piece(d->tokenizer, id, &piece_length);
    if (tokenizer_is_special(d->tokenizer, id) && !d->special)
        piece_length = 0;
    const int byte = piece_byte(piece, piece_length);
    /* A token without text does not end a run. */
    if (piece_length && (byte < 0 || d->n_run == d->capacity))
        n = end_run(d);
    if (byte >= 0) {
        d->run[d->n_run++] = (uint8_t)byte;
    } else {
        for (size_t i = 0; i < piece_length;) {
            const bool mark =
                piece_length - i >= SPACE_MARK_LENGTH && !memcmp(piece + i, SPACE_MARK, SPACE_MARK_LENGTH);
            d->text[n++] = mark ? ' ' : piece[i];
            i += mark ? SPACE_MARK_LENGTH : 1;
        }
    }
    d->text[n] = '\0';
    *length = n;
    return d->text;
}

const char *decoder_finish(struct decoder *d, size_t *length)
{
    *length = end_run(d);
    d->text[*length] = '\0';
    return d->text;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool special, char **text, size_t *length,
                     struct ward_error *err)
{
    struct decoder decoder;
    char *all = NULL;
    size_t used = 0, capacity = 0;
    *text = NULL;
    *length = 0;
    int rc = decoder_open(&decoder, t, n, special, err);
    for (size_t i = 0; i <= n && !rc; i++) {
        size_t piece_length;
        const char *piece =
            i < n ? decoder_push(&decoder, ids[i], &piece_length) : decoder_finish(&decoder, &piece_length);
        rc = vocabulary_reserve(&all, &capacity, used + piece_length + 1, 1, SIZE_MAX, "decoded text", err);
        if (rc)
            break;
        memcpy(all + used, piece, piece_length + 1);
        used += piece_length;
    }
    decoder_close(&decoder);
    if (rc) {
        free(all);
        return rc;
    }
    *text = all;
    *length = used;
    return 0;
}
