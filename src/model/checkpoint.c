#include "model/checkpoint.h"

#include <string.h>
#include <sys/stat.h>

/* The files of a GGUF checkpoint and their configuration. */
static int open_gguf(struct checkpoint *c, struct ward_error *err)
{
    int rc = gguf_open(&c->text, c->place.path, err);
    if (!rc && c->place.mmproj)
        rc = gguf_open(&c->vision, c->place.mmproj, err);
    return rc;
}

const struct gguf *checkpoint_vision_file(const struct checkpoint *c)
{
    return c->vision ? c->vision : !c->place.text_only && gguf_has_vision(c->text) ? c->text : NULL;
}

static int read_config(struct checkpoint *c, struct ward_error *err)
{
    if (!c->place.is_gguf)
        return config_read(&c->config, c->place.path, err);
    const int rc = open_gguf(c, err);
    return rc ? rc : config_from_gguf(&c->config, c->text, checkpoint_vision_file(c), err);
}

static int read_gguf(struct checkpoint *c, struct ward_error *err)
{
    int rc = tokenizer_from_gguf(&c->tokenizer, c->text, err);
    if (rc)
        return rc;
    config_add_tokens(&c->config, c->text, c->tokenizer);
    rc = chat_template_from_gguf(&c->chat, c->text, &c->config, c->tokenizer, err);
    return rc ? rc : weights_from_gguf(&c->weights, c->text, checkpoint_vision_file(c), &c->config, err);
}

static int read_folder(struct checkpoint *c, struct ward_error *err)
{
    int rc = tokenizer_open(&c->tokenizer, c->place.path, err);
    if (!rc)
        rc = chat_template_open(&c->chat, c->place.path, &c->config, c->tokenizer, err);
    return rc ? rc : weights_open(&c->weights, c->place.path, &c->config, err);
}

int checkpoint_open(struct checkpoint *out, const char *name, const char *mmproj, struct ward_error *err)
{
    *out = (struct checkpoint){0};
    int rc = model_locate(&out->place, name, mmproj, err);
    if (!rc)
        rc = read_config(out, err);
    if (!rc)
        rc = out->place.is_gguf ? read_gguf(out, err) : read_folder(out, err);
    if (!rc && out->place.is_gguf)
        terms_of_gguf(&out->terms, out->text);
    else if (!rc)
        terms_of_folder(&out->terms, out->place.path);
    if (out->config.random_weights)
        out->terms = (struct terms){0}; /* whatever they are called, nobody's weights are among them */
    return rc;
}

void checkpoint_close(struct checkpoint *c)
{
    weights_close(&c->weights);
    tokenizer_close(&c->tokenizer);
    gguf_close(&c->text);
    gguf_close(&c->vision);
    model_place_free(&c->place);
    *c = (struct checkpoint){0};
}

int checkpoint_read_config(struct model_config *out, const char *name, const char *mmproj, struct ward_error *err)
{
    struct checkpoint c = {0};
    int rc = model_locate(&c.place, name, mmproj, err);
    if (!rc)
        rc = read_config(&c, err);
    *out = c.config;
    checkpoint_close(&c);
    return rc;
}

static int open_tokenizer_file(struct tokenizer **out, const struct model_place *place, struct ward_error *err)
{
    if (!place->is_gguf)
        return tokenizer_open(out, place->path, err);
    struct gguf *file;
    int rc = gguf_open(&file, place->path, err);
    if (!rc)
        rc = tokenizer_from_gguf(out, file, err);
    gguf_close(&file);
    return rc;
}

int checkpoint_open_tokenizer(struct tokenizer **out, const char *name, struct ward_error *err)
{
    struct stat st;
    *out = NULL;
    if (stat(name, &st) == 0 && S_ISDIR(st.st_mode) && !folder_is_gguf(name))
        return tokenizer_open(out, name, err);
    struct model_place place;
    int rc = model_locate(&place, name, NULL, err);
    if (!rc)
        rc = open_tokenizer_file(out, &place, err);
    model_place_free(&place);
    return rc;
}
