#include "synth/texts.h"

#include "base/json.h"
#include "base/mapping.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_LIMIT = 16 << 20, PRESETS = 3 };

const char *const synth_presets[PRESETS + 1] = {"medgemma-4b", "medgemma-27b", "tiny", NULL};

char *synth_take_text(struct json_writer **writer)
{
    const char *text = *writer ? json_writer_text(*writer, NULL) : NULL;
    char *out = NULL;
    if (text && asprintf(&out, "%s\n", text) < 0)
        out = NULL;
    json_writer_free(writer);
    return out;
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

struct preset {
    int hidden, intermediate, layers, heads, kv_heads, head_dim, scalar, vocab, positions, window, pattern;
    int vision_hidden, vision_intermediate, vision_layers, vision_heads, image_size;
    int image_tokens, end_of_turn, boi, eoi, image;
};

/* The first two are google/medgemma-4b-it and google/medgemma-27b-it; the third is for tests. */
static const struct preset presets[PRESETS] = {
    {.hidden = 2560, .intermediate = 10240, .layers = 34, .heads = 8, .kv_heads = 4, .head_dim = 256, .scalar = 256,
     .vocab = 262208, .positions = 131072, .window = 1024, .pattern = 6,
     .vision_hidden = 1152, .vision_intermediate = 4304, .vision_layers = 27, .vision_heads = 16, .image_size = 896,
     .image_tokens = 256, .end_of_turn = 106, .boi = 255999, .eoi = 256000, .image = 262144},
    {.hidden = 5376, .intermediate = 21504, .layers = 62, .heads = 32, .kv_heads = 16, .head_dim = 128, .scalar = 168,
     .vocab = 262208, .positions = 131072, .window = 1024, .pattern = 6,
     .vision_hidden = 1152, .vision_intermediate = 4304, .vision_layers = 27, .vision_heads = 16, .image_size = 896,
     .image_tokens = 256, .end_of_turn = 106, .boi = 255999, .eoi = 256000, .image = 262144},
    {.hidden = 128, .intermediate = 256, .layers = 6, .heads = 4, .kv_heads = 2, .head_dim = 32, .scalar = 32,
     .vocab = 576, .positions = 8192, .window = 64, .pattern = 3,
     .vision_hidden = 64, .vision_intermediate = 128, .vision_layers = 2, .vision_heads = 2, .image_size = 112,
     .image_tokens = 16, .end_of_turn = 6, .boi = 509, .eoi = 510, .image = 511},
};

static void write_text_config(struct json_writer *w, const struct preset *p)
{
    json_write_open(w, "text_config", '{');
    json_write_boolean(w, "attention_bias", false);
    json_write_number(w, "attention_dropout", 0, 1);
    json_write_null(w, "attn_logit_softcapping");
    json_write_text(w, "cache_implementation", "hybrid");
    json_write_null(w, "final_logit_softcapping");
    json_write_integer(w, "head_dim", p->head_dim);
    json_write_text(w, "hidden_activation", "gelu_pytorch_tanh");
    json_write_integer(w, "hidden_size", p->hidden);
    json_write_number(w, "initializer_range", 0.02, 2);
    json_write_integer(w, "intermediate_size", p->intermediate);
    json_write_integer(w, "max_position_embeddings", p->positions);
    json_write_text(w, "model_type", "gemma3_text");
    json_write_integer(w, "num_attention_heads", p->heads);
    json_write_integer(w, "num_hidden_layers", p->layers);
    json_write_integer(w, "num_key_value_heads", p->kv_heads);
    json_write_integer(w, "query_pre_attn_scalar", p->scalar);
    json_write_number(w, "rms_norm_eps", 1e-6, 6);
    json_write_integer(w, "rope_local_base_freq", 10000);
    json_write_open(w, "rope_scaling", '{');
    json_write_number(w, "factor", 8, 1);
    json_write_text(w, "rope_type", "linear");
    json_write_close(w, '}');
    json_write_integer(w, "rope_theta", 1000000);
    json_write_integer(w, "sliding_window", p->window);
    json_write_integer(w, "sliding_window_pattern", p->pattern);
    json_write_text(w, "torch_dtype", "bfloat16");
    json_write_boolean(w, "use_cache", true);
    json_write_integer(w, "vocab_size", p->vocab);
    json_write_close(w, '}');
}

static void write_vision_config(struct json_writer *w, const struct preset *p)
{
    json_write_open(w, "vision_config", '{');
    json_write_number(w, "attention_dropout", 0, 1);
    json_write_text(w, "hidden_act", "gelu_pytorch_tanh");
    json_write_integer(w, "hidden_size", p->vision_hidden);
    json_write_integer(w, "image_size", p->image_size);
    json_write_integer(w, "intermediate_size", p->vision_intermediate);
    json_write_number(w, "layer_norm_eps", 1e-6, 6);
    json_write_text(w, "model_type", "siglip_vision_model");
    json_write_integer(w, "num_attention_heads", p->vision_heads);
    json_write_integer(w, "num_channels", 3);
    json_write_integer(w, "num_hidden_layers", p->vision_layers);
    json_write_integer(w, "patch_size", 14);
    json_write_text(w, "torch_dtype", "bfloat16");
    json_write_boolean(w, "vision_use_head", false);
    json_write_close(w, '}');
}

static char *preset_text(const struct preset *p)
{
    struct json_writer *w = json_writer_new(true);
    if (!w)
        return NULL;
    json_write_open(w, NULL, '{');
    json_write_boolean(w, CONFIG_RANDOM_KEY, true);
    json_write_open(w, "architectures", '[');
    json_write_text(w, NULL, "Gemma3ForConditionalGeneration");
    json_write_close(w, ']');
    json_write_integer(w, "boi_token_index", p->boi);
    json_write_integer(w, "eoi_token_index", p->eoi);
    json_write_open(w, "eos_token_id", '[');
    json_write_integer(w, NULL, 1);
    json_write_integer(w, NULL, p->end_of_turn);
    json_write_close(w, ']');
    json_write_integer(w, "image_token_index", p->image);
    json_write_number(w, "initializer_range", 0.02, 2);
    json_write_integer(w, "mm_tokens_per_image", p->image_tokens);
    json_write_text(w, "model_type", "gemma3");
    write_text_config(w, p);
    json_write_text(w, "torch_dtype", "bfloat16");
    json_write_text(w, "transformers_version", "4.51.3");
    write_vision_config(w, p);
    json_write_close(w, '}');
    return synth_take_text(&w);
}

/* The file as it is, with the mark in front of its first key. */
static int mark_file(char **out, const char *text, const struct json *root, const char *path, struct ward_error *err)
{
    const struct json *mark = json_get_any(root, CONFIG_RANDOM_KEY);
    if (mark && mark->type != JSON_TRUE)
        return error_set(err, WARD_EFORMAT, "%s: " CONFIG_RANDOM_KEY " is not true, which it would become", path);
    const char *brace = strchr(text, '{');
    const int n = mark ? asprintf(out, "%s", text)
                       : asprintf(out, "{\n  \"" CONFIG_RANDOM_KEY "\": true,%s", brace + 1);
    if (n < 0)
        *out = NULL;
    return *out ? 0 : error_no_memory(err, path, strlen(text));
}

static int read_file(struct synth_source *out, const char *path, struct ward_error *err)
{
    struct json_document *document = NULL;
    char *text = NULL;
    size_t length;
    int rc = file_read(&text, &length, path, FILE_LIMIT, err);
    if (!rc)
        rc = json_parse(&document, text, length, path, err);
    if (!rc && (json_root(document)->type != JSON_OBJECT || !json_root(document)->n))
        rc = error_set(err, WARD_EFORMAT, "%s: is not a config.json: an object with members is expected", path);
    if (!rc)
        rc = mark_file(&out->text, text, json_root(document), path, err);
    json_close(&document);
    free(text);
    return rc;
}

/* An id under either of the names that transformers has for it. */
static int token_id(const struct json *root, const char *index_key, const char *id_key, int fallback)
{
    const struct json *value = json_get(root, index_key);
    int64_t id = fallback;
    json_integer(value ? value : json_get(root, id_key), 0, INT32_MAX, &id);
    return (int)id;
}

int synth_source_open(struct synth_source *out, const char *preset, struct ward_error *err)
{
    struct json_document *document = NULL;
    const char *name = preset;
    int rc = 0;
    *out = (struct synth_source){0};
    for (int i = 0; i < PRESETS; i++)
        if (!strcmp(preset, synth_presets[i])) {
            out->text = preset_text(&presets[i]);
            rc = out->text ? 0 : error_no_memory(err, preset, 4096);
        }
    if (!out->text && !rc)
        rc = read_file(out, preset, err);
    if (!rc) {
        const struct config_files files = {.config = {name, out->text, strlen(out->text)}};
        rc = config_parse(&out->config, &files, err);
    }
    if (!rc)
        rc = json_parse(&document, out->text, strlen(out->text), name, err);
    if (!rc) {
        out->boi = token_id(json_root(document), "boi_token_index", "boi_token_id", 255999);
        out->eoi = token_id(json_root(document), "eoi_token_index", "eoi_token_id", 256000);
    }
    json_close(&document);
    if (rc)
        synth_source_close(out);
    return rc;
}

void synth_source_close(struct synth_source *source)
{
    free(source->text);
    *source = (struct synth_source){0};
}

/* ---- its companions ---------------------------------------------------------------------------------------------- */

char *synth_generation_config(const struct synth_source *source)
{
    struct json_writer *w = json_writer_new(true);
    if (!w)
        return NULL;
    json_write_open(w, NULL, '{');
    json_write_integer(w, "bos_token_id", 2);
    json_write_text(w, "cache_implementation", "hybrid");
    json_write_boolean(w, "do_sample", true);
    json_write_open(w, "eos_token_id", '[');
    for (int i = 0; i < source->config.n_eos; i++)
        json_write_integer(w, NULL, source->config.eos[i]);
    json_write_close(w, ']');
    json_write_integer(w, "pad_token_id", 0);
    json_write_integer(w, "top_k", 64);
    json_write_number(w, "top_p", 0.95, 2);
    json_write_close(w, '}');
    return synth_take_text(&w);
}

/* As published, number for number. */
char *synth_preprocessor_config(const struct synth_source *source)
{
    const int side = source->config.vision.image_size;
    char *out;
    const int n = asprintf(
        &out,
        "{\n  \"do_convert_rgb\": true,\n  \"do_normalize\": true,\n  \"do_pan_and_scan\": null,\n"
        "  \"do_rescale\": true,\n  \"do_resize\": true,\n"
        "  \"image_mean\": [\n    0.5,\n    0.5,\n    0.5\n  ],\n"
        "  \"image_processor_type\": \"Gemma3ImageProcessor\",\n  \"image_seq_length\": %d,\n"
        "  \"image_std\": [\n    0.5,\n    0.5,\n    0.5\n  ],\n"
        "  \"pan_and_scan_max_num_crops\": null,\n  \"pan_and_scan_min_crop_size\": null,\n"
        "  \"pan_and_scan_min_ratio_to_activate\": null,\n  \"processor_class\": \"Gemma3Processor\",\n"
        "  \"resample\": 2,\n  \"rescale_factor\": 0.00392156862745098,\n"
        "  \"size\": {\n    \"height\": %d,\n    \"width\": %d\n  }\n}\n",
        source->config.image_tokens, side, side);
    return n < 0 ? NULL : out;
}

char *synth_processor_config(const struct synth_source *source)
{
    char *out;
    const int n =
        asprintf(&out, "{\n  \"image_seq_length\": %d,\n  \"processor_class\": \"Gemma3Processor\"\n}\n",
                 source->config.image_tokens);
    return n < 0 ? NULL : out;
}

char *synth_card(const char *preset, uint64_t seed)
{
    const char *shape = "a configuration of its own";
    char *out;
    for (int i = 0; i < PRESETS; i++)
        if (!strcmp(preset, synth_presets[i]))
            shape = synth_presets[i];
    const int n = asprintf(
        &out,
        "---\nlicense: cc0-1.0\nlibrary_name: transformers\ntags:\n- " CONFIG_RANDOM_TAG "\n---\n"
        "# Random weights\n\n"
        "Made by `ward synth` (ward " WARD_VERSION "), shape: %s, seed: %" PRIu64 ". Nothing was trained, and nothing "
        "of MedGemma or Gemma\nis in it: names, shapes, types and files are those of the published checkpoint, the "
        "numbers are noise.\n\n"
        "**What this model says means nothing.** It is there to measure a machine with: latency, memory, disk.\n",
        shape, seed);
    return n < 0 ? NULL : out;
}
