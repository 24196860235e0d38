#include "engine/prompt.h"

#include <limits.h>
#include <stdlib.h>

static int collect_images(struct prompt *p, const struct ward_message *messages, size_t n_messages,
                          struct ward_error *err)
{
    size_t n = 0;
    for (size_t m = 0; m < n_messages; m++)
        for (size_t i = 0; i < messages[m].n_parts; i++)
            n += messages[m].parts[i].image != NULL;
    if (!n)
        return 0;
    p->images = calloc(n, sizeof *p->images);
    if (!p->images || n > INT_MAX)
        return error_no_memory(err, "the prompt's images", n * sizeof *p->images);
    for (size_t m = 0; m < n_messages; m++)
        for (size_t i = 0; i < messages[m].n_parts; i++)
            if (messages[m].parts[i].image)
                p->images[p->n_images++].image = messages[m].parts[i].image;
    return 0;
}

/* A tokenizer may know more than the model: that of a text-only Gemma has the image token, its embedding table not. */
static int check_vocabulary(const struct prompt *p, const struct ward_model *m, struct ward_error *err)
{
    for (size_t i = 0; i < p->ids.n; i++)
        if (p->ids.at[i] >= m->checkpoint.config.text.vocab_size && p->ids.at[i] != m->checkpoint.config.image_token)
            return error_set(err, WARD_EFORMAT,
                             "%s: the tokenizer gave token %d, but the model's vocabulary ends at %d",
                             m->checkpoint.place.path, (int)p->ids.at[i], m->checkpoint.config.text.vocab_size - 1);
    return 0;
}

/* Each run of image tokens belongs to the next image. */
static int place_images(struct prompt *p, const struct model_config *config, struct ward_error *err)
{
    int image = 0;
    for (size_t i = 0; i < p->ids.n;) {
        if (p->ids.at[i] != config->image_token || config->image_tokens == 0) {
            i++;
            continue;
        }
        size_t end = i;
        while (end < p->ids.n && p->ids.at[end] == config->image_token)
            end++;
        if (image == p->n_images || end - i != (size_t)config->image_tokens)
            return error_set(err, WARD_EINVAL, "the prompt has a run of %zu image tokens that belongs to no image",
                             end - i);
        p->images[image++].first = (int)i;
        i = end;
    }
    if (image != p->n_images)
        return error_set(err, WARD_EINVAL, "the prompt has places for %d of its %d images", image, p->n_images);
    return 0;
}

int prompt_build(struct prompt *out, const struct ward_model *m, const struct ward_message *messages, size_t n_messages,
                 struct ward_error *err)
{
    *out = (struct prompt){0};
    int rc = collect_images(out, messages, n_messages, err);
    if (!rc && out->n_images && m->checkpoint.config.image_tokens == 0)
        rc = error_set(err, WARD_EUNSUPPORTED,
                       "%s: is a text-only checkpoint; an image needs one with a vision encoder",
                       m->checkpoint.place.path);
    if (!rc)
        rc = chat_encode(&m->checkpoint.chat, &m->checkpoint.config, m->checkpoint.tokenizer, messages, n_messages,
                         &out->ids, err);
    if (!rc && out->ids.n > INT_MAX / 2)
        rc = error_set(err, WARD_ECONTEXT, "the prompt has %zu tokens", out->ids.n);
    if (!rc)
        rc = check_vocabulary(out, m, err);
    if (!rc)
        rc = place_images(out, &m->checkpoint.config, err);
    if (rc)
        prompt_clear(out);
    return rc;
}

void prompt_clear(struct prompt *p)
{
    ids_free(&p->ids);
    free(p->images);
    *p = (struct prompt){0};
}
