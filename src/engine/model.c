#include "engine/model.h"

#include "engine/readahead.h"

#include <stdlib.h>
#include <string.h>

/* Of image features: two dozen images of MedGemma 4B. */
enum { IMAGE_CACHE_BYTES = 64 << 20 };

static int open_backend(struct backend **out, const struct ward_model_options *options, struct ward_error *err)
{
    const int isa = isa_parse(options->cpu_mask);
    if (isa < 0)
        return error_set(err, WARD_EINVAL,
                         "cpu mask %s is unknown; expected none, avx2, avxvnni, avx512, avx512vnni, avx512bf16 or amx",
                         options->cpu_mask);
    if (options->device && strcmp(options->device, "auto") != 0 && strcmp(options->device, "cpu") != 0)
        return error_set(err, WARD_EUNSUPPORTED, "device %s is not in this build; expected auto or cpu",
                         options->device);
    if (options->threads < 0 || options->threads > 1024)
        return error_set(err, WARD_EINVAL, "%d threads were asked for; expected 0 (all) to 1024", options->threads);
    return backend_cpu_open(out, options->threads, (enum isa)isa, err);
}

int ward_model_open(ward_model **out, const char *path, const struct ward_model_options *options,
                    struct ward_error *err)
{
    *out = NULL;
    static const struct ward_model_options defaults;
    struct ward_model *m = calloc(1, sizeof *m);
    if (!m)
        return error_no_memory(err, "the model", sizeof *m);
    if (!options)
        options = &defaults;
    int rc = checkpoint_open(&m->checkpoint, path, options->mmproj, err);
    if (!rc)
        m->readahead = readahead_open(m->checkpoint.weights, &m->checkpoint.config);
    if (!rc)
        rc = open_backend(&m->backend, options, err);
    const struct model_config *c = &m->checkpoint.config;
    if (!rc && c->image_tokens)
        rc = image_cache_open(&m->images, IMAGE_CACHE_BYTES,
                              (size_t)c->image_tokens * (size_t)c->text.hidden_size * sizeof(float), err);
    if (rc)
        ward_model_close(&m);
    *out = m;
    return rc;
}

void ward_model_close(ward_model **model)
{
    struct ward_model *m = *model;
    if (!m)
        return;
    readahead_close(&m->readahead);
    image_cache_close(&m->images);
    backend_close(&m->backend);
    checkpoint_close(&m->checkpoint);
    free(m);
    *model = NULL;
}

void ward_model_get_info(const ward_model *m, struct ward_model_info *info)
{
    *info = (struct ward_model_info){
        .path = m->checkpoint.place.path,
        .mmproj = m->checkpoint.place.mmproj,
        .mmproj_guessed = m->checkpoint.place.guessed,
        .type = tensor_type_name(m->checkpoint.weights->type),
        .device = m->backend->device,
        .kernels = m->backend->kernels,
        .threads = m->backend->threads,
        .vocab_size = m->checkpoint.config.text.vocab_size,
        .hidden_size = m->checkpoint.config.text.hidden_size,
        .context_limit = m->checkpoint.config.text.max_positions,
        .image_tokens = m->checkpoint.config.image_tokens,
        .image_size = m->checkpoint.config.vision.image_size,
        .has_chat_template = m->checkpoint.chat.present,
        .not_for_clinical_use = m->checkpoint.terms.hai_def,
        .random_weights = m->checkpoint.config.random_weights,
    };
}

int ward_tokenize(const ward_model *m, const char *text, size_t length, bool parse_special, int32_t **ids, size_t *n,
                  struct ward_error *err)
{
    struct ids list = {0};
    const enum tokenize_mode mode = parse_special ? TOKENIZE_SPECIAL : TOKENIZE_PLAIN;
    const int rc = tokenizer_encode(m->checkpoint.tokenizer, text, length, mode, &list, err);
    if (rc)
        ids_free(&list);
    *ids = list.at;
    *n = list.n;
    return rc;
}

int ward_detokenize(const ward_model *m, const int32_t *ids, size_t n, bool special, char **text, size_t *length,
                    struct ward_error *err)
{
    return tokenizer_decode(m->checkpoint.tokenizer, ids, n, special, text, length, err);
}

void ward_free(void *allocated)
{
    free(allocated);
}
