/* The small files of a checkpoint, as Google published them: configurations, tokenizer, model card. Every function
 * gives a text to free(), or NULL when memory ran out. */
#ifndef WARD_SYNTH_TEXTS_H
#define WARD_SYNTH_TEXTS_H

#include "model/config.h"

/* What is to be made: config.json, and what is read of it. */
struct synth_source {
    char *text; /* of config.json */
    struct model_config config;
    int boi, eoi; /* ids of the tokens around an image */
};

extern const char *const synth_presets[]; /* names; ends with NULL */

/* preset: one of the names, or a file in the form of config.json. */
WARD_CHECKED int synth_source_open(struct synth_source *out, const char *preset, struct ward_error *err);
void synth_source_close(struct synth_source *source);

char *synth_generation_config(const struct synth_source *source);
char *synth_preprocessor_config(const struct synth_source *source);
char *synth_processor_config(const struct synth_source *source);
/* preset: its name; of a file nothing but that it was one. */
char *synth_card(const char *preset, uint64_t seed);

/* A tokenizer of bytes: each token is a byte, a space, a run of white space, or a control token where the configuration
 * has it. The other ids are texts that nothing is cut into, and that say what the weights are: <random1234>. */
WARD_CHECKED int synth_tokenizer(char **json, const struct synth_source *source, struct ward_error *err);
char *synth_tokenizer_config(const struct synth_source *source);

struct json_writer;
/* What a writer holds, and a newline; frees it. NULL: memory ran out, or the writer is NULL. */
char *synth_take_text(struct json_writer **writer);

#endif
