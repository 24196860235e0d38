/* A tokenizer of bytes, in the form of Gemma's. */
#include "synth/texts.h"

#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\xe2\x96\x81" /* U+2581, which Gemma has in place of a space */

enum {
    BOS = 2,
    RUNS = 31,               /* newlines in a row, or spaces, that are one token at most, as in Gemma's */
    MOST_IDS = 1 << 22,      /* that ward reads */
    PIECE_ROOM = 4 * RUNS,
};

struct piece {
    char text[PIECE_ROOM]; /* empty: a filler */
    bool added, special;
};

struct pieces {
    struct piece *at; /* by id */
    int n;
    int next; /* where a free id is looked for first */
};

/* ---- which text has which id ------------------------------------------------------------------------------------- */

static bool is_free(const struct pieces *p, int id)
{
    return id >= 0 && id < p->n && !*p->at[id].text;
}

/* At an id, or, where that is taken or outside, at the next free one. False: there is none. */
static bool place(struct pieces *p, int id, const char *text, bool added, bool special)
{
    if (!is_free(p, id)) {
        int tried = 0;
        for (id = p->next; tried < p->n && !is_free(p, id); tried++)
            id = id + 1 < p->n ? id + 1 : 0;
        if (tried == p->n)
            return false;
        p->next = id;
    }
    snprintf(p->at[id].text, sizeof p->at[id].text, "%s", text);
    p->at[id].added = added;
    p->at[id].special = special;
    return true;
}

static bool place_control(struct pieces *p, const struct synth_source *source)
{
    const struct model_config *config = &source->config;
    const int end_of_turn = config->n_eos > 1 ? config->eos[1] : -1;
    const bool sees = config->vision.n_layers > 0;
    bool ok = place(p, 0, "<pad>", true, true) && place(p, config->eos[0], "<eos>", true, true) &&
              place(p, BOS, "<bos>", true, true) && place(p, 3, "<unk>", true, true) &&
              place(p, 4, "<mask>", true, false);
    if (sees)
        ok = ok && place(p, config->image_token, "<image_soft_token>", true, true) &&
             place(p, source->boi, "<start_of_image>", true, true) &&
             place(p, source->eoi, "<end_of_image>", true, true);
    ok = ok && place(p, end_of_turn, "<end_of_turn>", true, true);
    if (ok && is_free(p, end_of_turn + 1))
        p->next = end_of_turn + 1; /* runs follow, as in Gemma's */
    return ok && place(p, end_of_turn - 1, "<start_of_turn>", true, true);
}

/* Runs of newlines from one on, of spaces from two on: one space is a plain piece. */
static bool place_runs(struct pieces *p, const char *character, int shortest)
{
    bool ok = true;
    char text[PIECE_ROOM] = "";
    for (int n = 1; n <= RUNS && ok; n++) {
        strcat(text, character);
        ok = n < shortest || place(p, -1, text, true, false);
    }
    return ok;
}

static bool place_all(struct pieces *p, const struct synth_source *source)
{
    bool ok = place_control(p, source) && place_runs(p, "\n", 1) && place_runs(p, SPACE, 2);
    for (int byte = 0; byte < 256 && ok; byte++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)byte);
        ok = place(p, -1, text, false, false);
    }
    return ok && place(p, -1, SPACE, false, false);
}

static const char *text_of(const struct pieces *p, int id, char filler[PIECE_ROOM])
{
    if (*p->at[id].text)
        return p->at[id].text;
    snprintf(filler, PIECE_ROOM, "<random%d>", id);
    return filler;
}

/* ---- tokenizer.json ---------------------------------------------------------------------------------------------- */

static void write_pattern(struct json_writer *w, const char *key, const char *type, const char *from)
{
    json_write_open(w, key, '{');
    json_write_text(w, "type", type);
    json_write_open(w, "pattern", '{');
    json_write_text(w, "String", from);
    json_write_close(w, '}');
}

static void write_type(struct json_writer *w, const char *type)
{
    json_write_open(w, NULL, '{');
    json_write_text(w, "type", type);
    json_write_close(w, '}');
}

static void write_added(struct json_writer *w, const struct pieces *p)
{
    json_write_open(w, "added_tokens", '[');
    for (int id = 0; id < p->n; id++) {
        if (!p->at[id].added)
            continue;
        json_write_open(w, NULL, '{');
        json_write_integer(w, "id", id);
        json_write_text(w, "content", p->at[id].text);
        json_write_boolean(w, "single_word", false);
        json_write_boolean(w, "lstrip", false);
        json_write_boolean(w, "rstrip", false);
        json_write_boolean(w, "normalized", false);
        json_write_boolean(w, "special", p->at[id].special);
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
}

/* <bos> in front of a text. */
static void write_post_processor(struct json_writer *w)
{
    json_write_open(w, "post_processor", '{');
    json_write_text(w, "type", "TemplateProcessing");
    for (int pair = 0; pair < 2; pair++) {
        json_write_open(w, pair ? "pair" : "single", '[');
        for (int i = 0; i <= pair; i++) {
            json_write_open(w, NULL, '{');
            json_write_open(w, "SpecialToken", '{');
            json_write_text(w, "id", "<bos>");
            json_write_integer(w, "type_id", i);
            json_write_close(w, '}');
            json_write_close(w, '}');
            json_write_open(w, NULL, '{');
            json_write_open(w, "Sequence", '{');
            json_write_text(w, "id", i ? "B" : "A");
            json_write_integer(w, "type_id", i);
            json_write_close(w, '}');
            json_write_close(w, '}');
        }
        json_write_close(w, ']');
    }
    json_write_open(w, "special_tokens", '{');
    json_write_open(w, "<bos>", '{');
    json_write_text(w, "id", "<bos>");
    json_write_open(w, "ids", '[');
    json_write_integer(w, NULL, BOS);
    json_write_close(w, ']');
    json_write_open(w, "tokens", '[');
    json_write_text(w, NULL, "<bos>");
    json_write_close(w, ']');
    json_write_close(w, '}');
    json_write_close(w, '}');
    json_write_close(w, '}');
}

static void write_decoder(struct json_writer *w)
{
    json_write_open(w, "decoder", '{');
    json_write_text(w, "type", "Sequence");
    json_write_open(w, "decoders", '[');
    write_pattern(w, NULL, "Replace", SPACE);
    json_write_text(w, "content", " ");
    json_write_close(w, '}');
    write_type(w, "ByteFallback");
    write_type(w, "Fuse");
    json_write_close(w, ']');
    json_write_close(w, '}');
}

static void write_model(struct json_writer *w, const struct pieces *p)
{
    char filler[PIECE_ROOM];
    json_write_open(w, "model", '{');
    json_write_text(w, "type", "BPE");
    json_write_null(w, "dropout");
    json_write_text(w, "unk_token", "<unk>");
    json_write_null(w, "continuing_subword_prefix");
    json_write_null(w, "end_of_word_suffix");
    json_write_boolean(w, "fuse_unk", true);
    json_write_boolean(w, "byte_fallback", true);
    json_write_boolean(w, "ignore_merges", false);
    json_write_open(w, "vocab", '{');
    for (int id = 0; id < p->n; id++)
        json_write_integer(w, text_of(p, id, filler), id);
    json_write_close(w, '}');
    json_write_open(w, "merges", '[');
    json_write_close(w, ']');
    json_write_close(w, '}');
}

static char *write_tokenizer(const struct pieces *p)
{
    struct json_writer *w = json_writer_new(false);
    if (!w)
        return NULL;
    json_write_open(w, NULL, '{');
    json_write_text(w, "version", "1.0");
    json_write_null(w, "truncation");
    json_write_null(w, "padding");
    write_added(w, p);
    write_pattern(w, "normalizer", "Replace", " ");
    json_write_text(w, "content", SPACE);
    json_write_close(w, '}');
    write_pattern(w, "pre_tokenizer", "Split", " ");
    json_write_text(w, "behavior", "MergedWithPrevious");
    json_write_boolean(w, "invert", false);
    json_write_close(w, '}');
    write_post_processor(w);
    write_decoder(w);
    write_model(w, p);
    json_write_close(w, '}');
    return synth_take_text(&w);
}

int synth_tokenizer(char **json, const struct synth_source *source, struct ward_error *err)
{
    const struct model_config *config = &source->config;
    struct pieces p = {.n = config->text.vocab_size};
    *json = NULL;
    if (config->vision.n_layers && config->image_token < p.n)
        p.n = config->image_token + 1; /* Gemma's rows beyond it have no token */
    else if (config->vision.n_layers && config->image_token == p.n)
        p.n++;
    if (config->vision.n_layers && config->image_token >= p.n)
        return error_set(err, WARD_EUNSUPPORTED,
                         "the built-in tokenizer cannot have a token %d (image_token_index) with a vocabulary of %d: "
                         "one is needed that does",
                         config->image_token, config->text.vocab_size);
    if (p.n > MOST_IDS)
        return error_set(err, WARD_EUNSUPPORTED, "the vocabulary has %d tokens, at most %d are read", p.n, MOST_IDS);
    p.at = calloc((size_t)p.n, sizeof *p.at);
    if (!p.at)
        return error_no_memory(err, "the tokenizer", (size_t)p.n * sizeof *p.at);
    int rc = 0;
    if (!place_all(&p, source))
        rc = error_set(err, WARD_EUNSUPPORTED,
                       "the vocabulary of %d tokens is too small for the built-in tokenizer, which has a token for "
                       "each byte and for white space",
                       p.n);
    if (!rc && !(*json = write_tokenizer(&p)))
        rc = error_no_memory(err, "the tokenizer", (size_t)p.n * 24);
    free(p.at);
    return rc;
}

char *synth_tokenizer_config(const struct synth_source *source)
{
    static const char *const names[][2] = {{"boi_token", "<start_of_image>"},
                                           {"eoi_token", "<end_of_image>"},
                                           {"image_token", "<image_soft_token>"}};
    const bool sees = source->config.vision.n_layers > 0;
    struct json_writer *w = json_writer_new(true);
    if (!w)
        return NULL;
    json_write_open(w, NULL, '{');
    json_write_boolean(w, "add_bos_token", true);
    json_write_boolean(w, "add_eos_token", false);
    for (int i = 0; i < 3 && sees; i++)
        json_write_text(w, names[i][0], names[i][1]);
    json_write_text(w, "bos_token", "<bos>");
    json_write_boolean(w, "clean_up_tokenization_spaces", false);
    json_write_text(w, "eos_token", "<eos>");
    json_write_open(w, "extra_special_tokens", '{');
    for (int i = 0; i < 3 && sees; i++)
        json_write_text(w, names[i][0], names[i][1]);
    json_write_close(w, '}');
    json_write_integer(w, "model_max_length", source->config.text.max_positions);
    json_write_text(w, "pad_token", "<pad>");
    json_write_text(w, "padding_side", "left");
    if (sees)
        json_write_text(w, "processor_class", "Gemma3Processor");
    json_write_boolean(w, "spaces_between_special_tokens", false);
    json_write_text(w, "tokenizer_class", "GemmaTokenizer");
    json_write_text(w, "unk_token", "<unk>");
    json_write_boolean(w, "use_default_system_prompt", false);
    json_write_close(w, '}');
    return synth_take_text(&w);
}
