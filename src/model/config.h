/* What config.json, generation_config.json, preprocessor_config.json and processor_config.json say: the shapes of the
 * model and its habits. Names and defaults are those of transformers' configuration_gemma3 and configuration_siglip,
 * with one exception: what those defaults would make another model than any published one must be there (hidden_size,
 * intermediate_size, num_hidden_layers, sliding_window of the text). */
#ifndef WARD_MODEL_CONFIG_H
#define WARD_MODEL_CONFIG_H

#include "base/error.h"

enum { CONFIG_MAX_LAYERS = 512, CONFIG_MAX_EOS = 16 };

struct rope_config {
    double theta;  /* base of the frequencies */
    double factor; /* positions are divided by it; 1: no scaling */
};

struct text_config {
    int hidden_size, intermediate_size, n_layers, n_heads, n_kv_heads, head_dim, vocab_size;
    int sliding_window; /* keys seen by a sliding layer, the query's own included */
    int max_positions;
    double query_pre_attn_scalar; /* scores are scaled by its -1/2 power */
    double rms_norm_eps;
    double final_softcap; /* 0: none */
    bool tied_embeddings; /* the output head is the embedding table */
    struct rope_config rope_global, rope_sliding;
    bool global[CONFIG_MAX_LAYERS]; /* layer attends to everything before it, not to a window */
};

struct vision_config {
    int hidden_size, intermediate_size, n_layers, n_heads, image_size, patch_size, n_channels;
    double layer_norm_eps;
};

struct image_config { /* preprocessor_config.json, or the image_processor of processor_config.json */
    double mean[3], std[3], rescale_factor;
    bool resize, rescale, normalize;
};

struct model_config {
    struct text_config text;
    struct vision_config vision; /* n_layers 0: a text-only checkpoint */
    struct image_config image;
    int image_tokens;                      /* mm_tokens_per_image; 0 for text only */
    int image_token;   /* stands for each of them; may lie outside the vocabulary; -1 for text only */
    int eos[CONFIG_MAX_EOS]; /* tokens that end an answer */
    int n_eos;
    bool random_weights; /* made by `ward synth`: what the model says means nothing */
};

/* A file already in memory. */
struct config_file {
    const char *name; /* named in errors */
    const char *text; /* NULL: the file is not there */
    size_t length;
};

struct config_files {
    struct config_file config, generation, preprocessor, processor; /* only the first must be there */
};

/* All sizes in *out are positive and bounded, so that products of a few of them fit 64 bits; heads are divisible by
 * key-value heads, head_dim by 2, the vision hidden size by its heads, and the image by patches and pooled tokens.
 * Token ids lie within the vocabulary, but for eos. `err` names the field, what was found and what was expected. */
WARD_CHECKED int config_parse(struct model_config *out, const struct config_files *files, struct ward_error *err);
/* Reads the files in `folder`. */
WARD_CHECKED int config_read(struct model_config *out, const char *folder, struct ward_error *err);

/* What marks random weights: a key of config.json, a tag of a model card and so of general.tags in a GGUF file. Both
 * outlive a conversion by the tools of others. */
#define CONFIG_RANDOM_KEY "random_weights"
#define CONFIG_RANDOM_TAG "random-weights"

struct gguf;
struct tokenizer;
/* Whether the file of a text model holds an image encoder as well, as Ollama's do. */
bool gguf_has_vision(const struct gguf *text);
/* The same promises, from GGUF files. vision: the file of the image encoder, `text` itself, or NULL for none. Token ids
 * are left to config_add_tokens: what ends an answer, and what stands for an image, by their texts. */
WARD_CHECKED int config_from_gguf(struct model_config *out, const struct gguf *text, const struct gguf *vision,
                                  struct ward_error *err);
void config_add_tokens(struct model_config *out, const struct gguf *text, const struct tokenizer *tokenizer);

#endif
