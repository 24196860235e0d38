#include "model/config.h"

#include "base/json.h"
#include "base/mapping.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REQUIRED = -1, /* in place of a default */
    FILE_LIMIT = 16 << 20,
    MAX_PATCHES = 65536, /* of one image: 16 times those of the 4B */
};

/* An object whose fields are being read. The first error ends the reading: what follows does nothing. */
struct reader {
    const char *file;
    char section[80];          /* "", "text_config.", "text_config.rope_scaling." */
    const struct json *object; /* NULL: absent, all fields at their defaults */
    struct ward_error *err;
    int *rc; /* shared by the readers of a file */
};

/* ---- fields ------------------------------------------------------------------------------------------------------ */

/* A value as it stands in the file, short. */
static const char *show(const struct json *value, char text[64])
{
    static const char *const types[] = {"null", "false", "true", "", "", "a list", "an object"};
    if (value->type == JSON_NUMBER)
        snprintf(text, 64, "%.40s", value->text);
    else if (value->type == JSON_STRING)
        snprintf(text, 64, "\"%.40s\"", value->text);
    else
        snprintf(text, 64, "%s", types[value->type]);
    return text;
}

static void fail_found(const struct reader *r, int code, const char *key, const struct json *value,
                       const char *expected)
{
    char text[64];
    if (!*r->rc)
        *r->rc = error_set(r->err, code, "%s: %s%s is %s, expected %s", r->file, r->section, key, show(value, text),
                           expected);
}

static void fail_missing(const struct reader *r, const char *key)
{
    if (!*r->rc)
        *r->rc = error_set(r->err, WARD_EFORMAT, "%s: %s%s is missing", r->file, r->section, key);
}

static void read_integer(const struct reader *r, int *out, const char *key, int fallback, int low, int high)
{
    const struct json *value = json_get(r->object, key);
    int64_t number = fallback;
    char expected[64];
    if (!value && fallback == REQUIRED)
        fail_missing(r, key);
    if (value && !json_integer(value, low, high, &number)) {
        snprintf(expected, sizeof expected, "a whole number from %d to %d", low, high);
        fail_found(r, WARD_EFORMAT, key, value, expected);
    }
    *out = (int)number;
}

/* Accepts low < number <= high. */
static void read_number(const struct reader *r, double *out, const char *key, double fallback, double low, double high)
{
    const struct json *value = json_get(r->object, key);
    double number = fallback;
    char expected[64];
    if (value && (!json_number(value, &number) || !(number > low && number <= high))) {
        snprintf(expected, sizeof expected, "a number above %g, at most %g", low, high);
        fail_found(r, WARD_EFORMAT, key, value, expected);
    }
    *out = number;
}

static void read_bool(const struct reader *r, bool *out, const char *key, bool fallback)
{
    const struct json *value = json_get(r->object, key);
    if (value && value->type != JSON_TRUE && value->type != JSON_FALSE)
        fail_found(r, WARD_EFORMAT, key, value, "true or false");
    *out = value ? value->type == JSON_TRUE : fallback;
}

/* A field that may only be absent or this string. */
static void expect_string(const struct reader *r, const char *key, const char *text)
{
    const struct json *value = json_get(r->object, key);
    char expected[64];
    if (value && !json_string_is(value, text)) {
        snprintf(expected, sizeof expected, "\"%s\"", text);
        fail_found(r, WARD_EUNSUPPORTED, key, value, expected);
    }
}

/* A switch that may only be absent or off. */
static void expect_off(const struct reader *r, const char *key)
{
    const struct json *value = json_get(r->object, key);
    if (value && value->type != JSON_FALSE)
        fail_found(r, WARD_EUNSUPPORTED, key, value, "false");
}

/* A feature that ward does not have: the field may only be absent or null. */
static void expect_absent(const struct reader *r, const char *key)
{
    const struct json *value = json_get(r->object, key);
    if (value)
        fail_found(r, WARD_EUNSUPPORTED, key, value, "none");
}

static struct reader reader_section(const struct reader *outer, const char *key)
{
    struct reader inner = *outer;
    snprintf(inner.section, sizeof inner.section, "%.40s%s.", outer->section, key);
    inner.object = json_get(outer->object, key);
    if (inner.object && inner.object->type != JSON_OBJECT)
        fail_found(outer, WARD_EFORMAT, key, inner.object, "an object");
    return inner;
}

/* partial_rotary_factor: ward turns whole heads. */
static void expect_whole_heads(const struct reader *r)
{
    double part;
    read_number(r, &part, "partial_rotary_factor", 1, 0, 1);
    if (part < 1)
        fail_found(r, WARD_EUNSUPPORTED, "partial_rotary_factor", json_get(r->object, "partial_rotary_factor"), "1");
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Which layers see everything: layer_types, else every sliding_window_pattern-th, counted from 1. transformers writes
 * _sliding_window_pattern beside layer_types, whatever layer_types says. */
static void read_layer_types(const struct reader *r, struct text_config *text)
{
    const struct json *types = json_get(r->object, "layer_types");
    if (types && (types->type != JSON_ARRAY || types->n != (size_t)text->n_layers)) {
        char expected[64];
        snprintf(expected, sizeof expected, "a list of %d layers, as num_hidden_layers says", text->n_layers);
        fail_found(r, WARD_EFORMAT, "layer_types", types, expected);
    }
    const char *key =
        json_get(r->object, "sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern";
    int pattern;
    read_integer(r, &pattern, key, 6, 1, INT_MAX);
    if (*r->rc)
        return;
    const struct json *type = types ? types->first : NULL;
    for (int i = 0; i < text->n_layers; i++) {
        text->global[i] = type ? json_string_is(type, "full_attention") : (i + 1) % pattern == 0;
        if (!type)
            continue;
        if (!text->global[i] && !json_string_is(type, "sliding_attention"))
            fail_found(r, WARD_EUNSUPPORTED, "layer_types", type, "\"full_attention\" or \"sliding_attention\"");
        type = type->next;
    }
}

/* One of the places where a rotary embedding is described; what it does not say stays. */
static void read_rope_source(const struct reader *r, struct rope_config *rope, bool *linear)
{
    const char *key = json_get(r->object, "rope_type") ? "rope_type" : "type";
    const struct json *type = json_get(r->object, key), *factor = json_get(r->object, "factor");
    if (type) {
        *linear = json_string_is(type, "linear");
        if (!*linear && !json_string_is(type, "default"))
            fail_found(r, WARD_EUNSUPPORTED, key, type, "\"default\" or \"linear\"");
        rope->factor = 1;
    }
    read_number(r, &rope->theta, "rope_theta", rope->theta, 1, 1e12);
    read_number(r, &rope->factor, "factor", rope->factor, 0, 1e6);
    if (type && *linear && !factor)
        fail_missing(r, "factor");
    if (!*linear && rope->factor != 1)
        fail_found(r, WARD_EUNSUPPORTED, "factor", factor, "a rope_type of \"linear\" with it");
    expect_whole_heads(r);
}

/* The rotary embedding of one kind of layer, from the places where it has been written over time, merged as by
 * Gemma3TextConfig's convert_rope_params_to_dict: the flat key of the base frequency, then rope_parameters by kind of
 * layer, then rope_scaling for global layers. */
static void read_rope(const struct reader *r, struct rope_config *rope, bool global)
{
    const char *kind = global ? "full_attention" : "sliding_attention";
    const struct reader parameters = reader_section(r, "rope_parameters"), nested = reader_section(&parameters, kind);
    const struct reader scaling = reader_section(r, "rope_scaling");
    bool linear = false;
    *rope = (struct rope_config){global ? 1e6 : 1e4, 1.0};
    read_number(r, &rope->theta, global ? "rope_theta" : "rope_local_base_freq", rope->theta, 1, 1e12);
    read_rope_source(&nested, rope, &linear);
    if (global)
        read_rope_source(&scaling, rope, &linear);
}

/* Other models have one set of rope_parameters for all layers. transformers ignores such a set in Gemma 3. */
static void check_rope_parameters(const struct reader *r)
{
    const struct json *parameters = json_get(r->object, "rope_parameters");
    if (parameters && parameters->n && !json_get_any(parameters, "full_attention") &&
        !json_get_any(parameters, "sliding_attention"))
        fail_found(r, WARD_EUNSUPPORTED, "rope_parameters", parameters, "full_attention and sliding_attention in it");
}

static void read_text(const struct reader *r, struct text_config *text, bool multimodal)
{
    read_integer(r, &text->hidden_size, "hidden_size", REQUIRED, 1, 65536);
    read_integer(r, &text->intermediate_size, "intermediate_size", REQUIRED, 1, 1 << 20);
    read_integer(r, &text->n_layers, "num_hidden_layers", REQUIRED, 1, CONFIG_MAX_LAYERS);
    read_integer(r, &text->sliding_window, "sliding_window", REQUIRED, 1, 1 << 30);
    read_integer(r, &text->n_heads, "num_attention_heads", 8, 1, 1024);
    read_integer(r, &text->n_kv_heads, "num_key_value_heads", 4, 1, 1024);
    read_integer(r, &text->head_dim, "head_dim", 256, 2, 4096);
    read_integer(r, &text->vocab_size, "vocab_size", 262208, 1, 1 << 24);
    read_integer(r, &text->max_positions, "max_position_embeddings", 131072, 1, 1 << 30);
    read_number(r, &text->query_pre_attn_scalar, "query_pre_attn_scalar", 256, 0, 1e9);
    read_number(r, &text->rms_norm_eps, "rms_norm_eps", 1e-6, 0, 1);
    read_number(r, &text->final_softcap, "final_logit_softcapping", 0, 0, 1e9);
    /* transformers' Gemma3ForConditionalGeneration ignores it, Gemma3ForCausalLM does not. */
    if (multimodal && text->final_softcap > 0)
        expect_absent(r, "final_logit_softcapping");
    expect_string(r, "model_type", "gemma3_text");
    expect_string(r, "hidden_activation", "gelu_pytorch_tanh");
    expect_string(r, "hidden_act", "gelu_pytorch_tanh");
    expect_off(r, "attention_bias");
    expect_off(r, "use_bidirectional_attention");
    expect_absent(r, "attn_logit_softcapping");
    expect_absent(r, "quantization_config");
    expect_absent(r, "per_layer_config");
    expect_whole_heads(r);
    if (!*r->rc && text->n_heads % text->n_kv_heads)
        *r->rc = error_set(r->err, WARD_EFORMAT,
                           "%s: %snum_attention_heads is %d, expected a multiple of num_key_value_heads, %d", r->file,
                           r->section, text->n_heads, text->n_kv_heads);
    if (!*r->rc && text->head_dim % 2)
        fail_found(r, WARD_EFORMAT, "head_dim", json_get(r->object, "head_dim"), "an even number");
    if (*r->rc)
        return;
    read_layer_types(r, text);
    check_rope_parameters(r);
    read_rope(r, &text->rope_global, true);
    read_rope(r, &text->rope_sliding, false);
}

/* ---- vision ------------------------------------------------------------------------------------------------------ */

/* vision_use_head is not looked at: Gemma 3 takes what comes before the head. */
static void read_vision(const struct reader *r, struct vision_config *vision)
{
    read_integer(r, &vision->hidden_size, "hidden_size", 768, 1, 65536);
    read_integer(r, &vision->intermediate_size, "intermediate_size", 3072, 1, 1 << 20);
    read_integer(r, &vision->n_layers, "num_hidden_layers", 12, 1, CONFIG_MAX_LAYERS);
    read_integer(r, &vision->n_heads, "num_attention_heads", 12, 1, 1024);
    read_integer(r, &vision->n_channels, "num_channels", 3, 3, 3);
    read_integer(r, &vision->image_size, "image_size", 224, 1, 16384);
    read_integer(r, &vision->patch_size, "patch_size", 16, 1, 1024);
    read_number(r, &vision->layer_norm_eps, "layer_norm_eps", 1e-6, 0, 1);
    expect_string(r, "model_type", "siglip_vision_model");
    expect_string(r, "hidden_act", "gelu_pytorch_tanh");
    expect_absent(r, "quantization_config");
    expect_absent(r, "per_layer_config");
    if (*r->rc)
        return;
    const int side = vision->image_size / vision->patch_size;
    const char *fault = NULL;
    if (vision->hidden_size % vision->n_heads)
        fault = "hidden_size is not a multiple of num_attention_heads";
    else if (vision->image_size % vision->patch_size)
        fault = "image_size is not a multiple of patch_size";
    else if (side * side > MAX_PATCHES)
        fault = "an image has more than 65536 patches";
    if (fault)
        *r->rc = error_set(r->err, WARD_EFORMAT, "%s: vision_config: %s", r->file, fault);
}

/* The pooling that turns side x side patches into the tokens of the image. */
static void check_pooling(const struct reader *r, const struct model_config *config)
{
    int root = 1;
    while (root * root < config->image_tokens)
        root++;
    const int side = config->vision.image_size / config->vision.patch_size;
    if (root * root != config->image_tokens || side % root)
        *r->rc = error_set(r->err, WARD_EFORMAT,
                           "%s: mm_tokens_per_image is %d, expected a square whose root divides the %d "
                           "patches of a side",
                           r->file, config->image_tokens, side);
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

static void check_architecture(const struct reader *r)
{
    const struct json *list = json_get(r->object, "architectures");
    bool known = !list || (list->type == JSON_ARRAY && !list->n);
    for (const struct json *name = list ? list->first : NULL; name; name = name->next)
        known = known || json_string_is(name, "Gemma3ForConditionalGeneration") ||
                json_string_is(name, "Gemma3ForCausalLM");
    if (!known)
        fail_found(r, WARD_EUNSUPPORTED, "architectures", list->first ? list->first : list,
                   "Gemma3ForConditionalGeneration or Gemma3ForCausalLM");
}

static void read_model(const struct reader *r, struct model_config *out)
{
    const struct json *type = json_get(r->object, "model_type");
    const bool multimodal = json_string_is(type, "gemma3");
    char found[64];
    if (!type)
        fail_missing(r, "model_type");
    else if (!multimodal && !json_string_is(type, "gemma3_text"))
        *r->rc =
            error_set(r->err, WARD_EUNSUPPORTED, "%s: model_type: found %s, expected \"gemma3\" or \"gemma3_text\"",
                      r->file, show(type, found));
    check_architecture(r);
    expect_absent(r, "quantization_config");
    read_bool(r, &out->random_weights, CONFIG_RANDOM_KEY, false);

    const struct reader text = multimodal ? reader_section(r, "text_config") : *r;
    if (!*r->rc)
        read_text(&text, &out->text, multimodal);
    bool inner_tied;
    read_bool(&text, &inner_tied, "tie_word_embeddings", true);
    read_bool(r, &out->text.tied_embeddings, "tie_word_embeddings", inner_tied);
    out->image_token = -1;
    if (!multimodal || *r->rc)
        return;

    const struct reader vision = reader_section(r, "vision_config");
    if (!vision.object)
        fail_missing(r, "vision_config");
    read_vision(&vision, &out->vision);
    read_integer(r, &out->image_tokens, "mm_tokens_per_image", 256, 1, MAX_PATCHES);
    /* transformers knows it by two names */
    read_integer(r, &out->image_token,
                 json_get(r->object, "image_token_index") ? "image_token_index" : "image_token_id", 262144, 0, INT_MAX);
    if (!*r->rc)
        check_pooling(r, out);
}

/* ---- tokens that end an answer ----------------------------------------------------------------------------------- */

/* One id or a list. Ids outside the vocabulary cannot be generated and do no harm. */
static bool read_eos(const struct reader *r, struct model_config *out)
{
    const struct json *value = json_get(r->object, "eos_token_id");
    if (!value)
        return false;
    const bool list = value->type == JSON_ARRAY;
    if (list && (!value->n || value->n > CONFIG_MAX_EOS)) {
        fail_found(r, WARD_EFORMAT, "eos_token_id", value, "a token id, or a list of 1 to 16");
        return true;
    }
    for (const struct json *id = list ? value->first : value; id; id = list ? id->next : NULL) {
        int64_t number;
        if (!json_integer(id, 0, INT_MAX, &number)) {
            fail_found(r, WARD_EFORMAT, "eos_token_id", id, "a token id, or a list of 1 to 16");
            return true;
        }
        out->eos[out->n_eos++] = (int)number;
    }
    return true;
}

/* From generation_config.json, then config.json, then its text_config, then Gemma3TextConfig's defaults. */
static void read_ends(const struct reader sources[3], struct model_config *out)
{
    for (int i = 0; i < 3; i++)
        if (read_eos(&sources[i], out))
            return;
    out->eos[out->n_eos++] = 1;
}

/* ---- preprocessor_config.json ------------------------------------------------------------------------------------ */

static void read_triple(const struct reader *r, double out[3], const char *key, bool divisor)
{
    const struct json *value = json_get(r->object, key), *item = value ? value->first : NULL;
    if (!value)
        return;
    bool sound = value->type == JSON_ARRAY && value->n == 3;
    for (int i = 0; i < 3 && sound; i++, item = item->next)
        sound = json_number(item, &out[i]) && (!divisor || out[i] > 0);
    if (!sound)
        fail_found(r, WARD_EFORMAT, key, value, divisor ? "three numbers above 0" : "three numbers");
}

/* The steps of Gemma3ImageProcessor, with its defaults. Its fast variant computes the same up to rounding. */
static void read_image(const struct reader *r, struct model_config *out)
{
    struct image_config *image = &out->image;
    const int side = out->vision.image_size;
    const struct json *type = json_get(r->object, "image_processor_type");
    if (type && !json_string_is(type, "Gemma3ImageProcessor") && !json_string_is(type, "Gemma3ImageProcessorFast") &&
        !json_string_is(type, "Gemma3ImageProcessorPil"))
        fail_found(r, WARD_EUNSUPPORTED, "image_processor_type", type, "\"Gemma3ImageProcessor\"");
    read_bool(r, &image->resize, "do_resize", true);
    read_bool(r, &image->rescale, "do_rescale", true);
    read_bool(r, &image->normalize, "do_normalize", true);
    read_number(r, &image->rescale_factor, "rescale_factor", 1.0 / 255, 0, 1e9);
    read_triple(r, image->mean, "image_mean", false);
    read_triple(r, image->std, "image_std", true);
    expect_off(r, "do_pan_and_scan");
    expect_off(r, "do_center_crop");
    expect_off(r, "do_pad");
    bool ignored; /* images are RGB in any case */
    read_bool(r, &ignored, "do_convert_rgb", true);

    const struct json *resample = json_get(r->object, "resample"), *size = json_get(r->object, "size");
    int64_t number;
    if (resample && !json_integer(resample, 2, 2, &number))
        fail_found(r, WARD_EUNSUPPORTED, "resample", resample, "2 (bilinear)");
    const bool same = json_integer(json_get(size, "height"), side, side, &number) &&
                      json_integer(json_get(size, "width"), side, side, &number);
    if (!*r->rc && r->object && (size ? !same : side != 224))
        *r->rc = error_set(r->err, WARD_EFORMAT, "%s: %ssize is not the encoder's image_size, %d x %d", r->file,
                           r->section, side, side);
}

static void check_image_tokens(const struct reader *r, const struct model_config *config)
{
    int n;
    read_integer(r, &n, "image_seq_length", config->image_tokens, 1, MAX_PATCHES);
    if (!*r->rc && n != config->image_tokens)
        *r->rc =
            error_set(r->err, WARD_EFORMAT, "%s: %simage_seq_length is %d, expected %d, as mm_tokens_per_image says",
                      r->file, r->section, n, config->image_tokens);
}

/* ---- the files --------------------------------------------------------------------------------------------------- */

struct documents {
    struct json_document *config, *generation, *preprocessor, *processor;
};

/* Parses a file that may be absent into an object; NULL when it is. */
static void parse_file(struct json_document **document, struct reader *r, const struct config_file *file,
                       struct ward_error *err, int *rc)
{
    *r = (struct reader){file->name, "", NULL, err, rc};
    if (*rc || !file->text)
        return;
    *rc = json_parse(document, file->text, file->length, file->name, err);
    if (*rc)
        return;
    r->object = json_root(*document);
    if (r->object->type != JSON_OBJECT)
        *rc = error_set(err, WARD_EFORMAT, "%s: is not a JSON object", file->name);
}

int config_parse(struct model_config *out, const struct config_files *files, struct ward_error *err)
{
    *out = (struct model_config){.image = {.mean = {0.5, 0.5, 0.5}, .std = {0.5, 0.5, 0.5}}};
    int rc = 0;
    struct documents d = {0};
    struct reader config, generation, preprocessor, processor;
    if (!files->config.text)
        return error_set(err, WARD_EIO, "%s: is not there", files->config.name);
    parse_file(&d.config, &config, &files->config, err, &rc);
    parse_file(&d.generation, &generation, &files->generation, err, &rc);
    parse_file(&d.preprocessor, &preprocessor, &files->preprocessor, err, &rc);
    parse_file(&d.processor, &processor, &files->processor, err, &rc);
    if (!rc)
        read_model(&config, out);
    if (!rc) {
        const struct reader ends[3] = {generation, config, reader_section(&config, "text_config")};
        read_ends(ends, out);
    }
    if (!rc && out->vision.n_layers) {
        /* transformers 5 nests the image processor in processor_config.json and then reads it only there. */
        const struct reader nested = reader_section(&processor, "image_processor");
        const struct reader *image = nested.object ? &nested : &preprocessor;
        read_image(image, out);
        check_image_tokens(image, out);
        check_image_tokens(&processor, out);
    }
    json_close(&d.config);
    json_close(&d.generation);
    json_close(&d.preprocessor);
    json_close(&d.processor);
    return rc;
}

int config_read(struct model_config *out, const char *folder, struct ward_error *err)
{
    static const char *const names[] = {"config.json", "generation_config.json", "preprocessor_config.json",
                                        "processor_config.json"};
    enum { N = sizeof names / sizeof *names };
    char *paths[N] = {0}, *texts[N] = {0};
    struct config_files files;
    struct config_file *const slots[N] = {&files.config, &files.generation, &files.preprocessor, &files.processor};
    int rc = 0;
    for (int i = 0; i < N && !rc; i++) {
        size_t length = 0;
        if (asprintf(&paths[i], "%s/%s", folder, names[i]) < 0) {
            paths[i] = NULL;
            rc = error_no_memory(err, "a path", strlen(folder));
        } else if (i == 0 || file_exists(paths[i])) {
            rc = file_read(&texts[i], &length, paths[i], FILE_LIMIT, err);
        }
        *slots[i] = (struct config_file){paths[i], texts[i], length};
    }
    if (!rc)
        rc = config_parse(out, &files, err);
    for (int i = 0; i < N; i++) {
        free(paths[i]);
        free(texts[i]);
    }
    return rc;
}
