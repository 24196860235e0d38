#include "engine/model.h"

#include "engine/backend_check.h"
#include "engine/device.h"
#include "engine/readahead.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of image features: two dozen images of MedGemma 4B. */
enum { IMAGE_CACHE_BYTES = 64 << 20 };

static int parse_device(const char *name, int *out, struct ward_error *err)
{
    return device_parse(name, out)
               ? 0
               : error_set(err, WARD_EINVAL, "device %s is unknown; expected auto, cpu, cuda or cuda:N, N from 0 to %d",
                           name, CU_CARDS - 1);
}

static int open_processor(struct ward_model *m, const struct ward_model_options *options, struct ward_error *err)
{
    const int isa = isa_parse(options->cpu_mask);
    if (isa < 0)
        return error_set(err, WARD_EINVAL,
                         "cpu mask %s is unknown; expected none, avx2, avxvnni, avx512, avx512vnni, avx512bf16 or amx",
                         options->cpu_mask);
    return backend_cpu_open(&m->backend, options->threads, (enum isa)isa, err);
}

/* A card whose newest instructions are not what they are said to be may still compute by older ones. */
static int check_card(struct ward_model *m, struct ward_error *err)
{
    struct ward_error why = {0};
    int rc = backend_check(m->backend, m->checkpoint.weights, &m->checkpoint.config, &why);
    if (rc == WARD_EUNSUPPORTED && m->backend->ops->fall_back && m->backend->ops->fall_back(m->backend)) {
        snprintf(m->device_note, sizeof m->device_note, "older kernels compute: %s", why.text);
        rc = backend_check(m->backend, m->checkpoint.weights, &m->checkpoint.config, &why);
    }
    if (rc && err)
        *err = why;
    return rc;
}

static int open_card(struct ward_model *m, int card, int threads, struct ward_error *err)
{
    int rc = backend_cuda_open(&m->backend, card, threads, err);
    if (!rc)
        rc = check_card(m, err);
    if (!rc)
        rc = placement_open(&m->placement, m->backend, m->checkpoint.weights, &m->checkpoint.config, err);
    if (rc)
        backend_close(&m->backend);
    return rc;
}

/* The device and the weights on it. A mask of the processor's instructions asks for the processor; a card that is there
 * and cannot be used is told of. */
static int open_backend(struct ward_model *m, const struct ward_model_options *options, struct ward_error *err)
{
    int device = DEVICE_AUTO, rc = parse_device(options->device, &device, err);
    if (rc)
        return rc;
    if (options->threads < 0 || options->threads > 1024)
        return error_set(err, WARD_EINVAL, "%d threads were asked for; expected 0 (all) to 1024", options->threads);
    if (device == DEVICE_AUTO) {
        struct ward_error why = {0};
        const bool try_card = !options->cpu_mask && backend_cuda_load();
        if (!try_card || open_card(m, DEVICE_FIRST_CARD, options->threads, &why))
            rc = open_processor(m, options, err);
        if (why.code)
            snprintf(m->device_note, sizeof m->device_note, "the processor computes: %s", why.text);
    } else {
        rc = device == DEVICE_CPU ? open_processor(m, options, err) : open_card(m, device, options->threads, err);
    }
    m->weights = m->placement ? &m->placement->weights : m->checkpoint.weights;
    return rc;
}

int ward_device_prepare(const char *device, bool *driver, struct ward_error *err)
{
    int number = DEVICE_AUTO;
    const int rc = parse_device(device, &number, err);
    *driver = !rc && number != DEVICE_CPU && backend_cuda_load();
    return rc;
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
        rc = open_backend(m, options, err);
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
    placement_close(&m->placement);
    backend_close(&m->backend);
    checkpoint_close(&m->checkpoint);
    free(m);
    *model = NULL;
}

void ward_model_device_memory(const ward_model *m, size_t *now, size_t *peak)
{
    m->backend->ops->used(m->backend, now, peak);
}

void ward_model_get_info(const ward_model *m, struct ward_model_info *info)
{
    *info = (struct ward_model_info){
        .path = m->checkpoint.place.path,
        .mmproj = m->checkpoint.place.mmproj,
        .mmproj_guessed = m->checkpoint.place.guessed,
        .type = tensor_type_name(m->checkpoint.weights->type),
        .device = m->backend->device,
        .device_name = m->backend->device_name,
        .device_note = m->device_note[0] ? m->device_note : NULL,
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
