#include "synth/synth.h"

#include "base/disk.h"
#include "base/mapping.h"
#include "base/text.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "synth/folder.h"
#include "synth/plan.h"
#include "synth/shards.h"
#include "synth/texts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TOKENIZER_LIMIT = 256 << 20 };
static const uint64_t SLACK = 16 << 20; /* beyond the weights: configurations, tokenizer, the file system's own */

/* ---- the tokenizer ----------------------------------------------------------------------------------------------- */

static int copy_file(const struct synth_folder *folder, const char *from, const char *name, struct ward_error *err)
{
    char *text = NULL;
    size_t length;
    int rc = file_read(&text, &length, from, TOKENIZER_LIMIT, err);
    if (!rc)
        rc = synth_folder_write(folder, name, text, length, err);
    free(text);
    return rc;
}

/* Of a folder all files that belong to a tokenizer. */
static int copy_tokenizer(const struct synth_folder *folder, const char *from, struct ward_error *err)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                                        "special_tokens_map.json", "added_tokens.json"};
    struct stat st;
    int found = 0, rc = 0;
    if (stat(from, &st))
        return error_set(err, WARD_EIO, "%s: %s", from, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return copy_file(folder, from, ends_with(from, ".model") ? names[1] : names[0], err);
    for (size_t i = 0; i < sizeof names / sizeof *names && !rc; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", from, names[i]) < 0)
            return error_no_memory(err, from, strlen(from));
        if (file_exists(path)) {
            rc = copy_file(folder, path, names[i], err);
            found += i < 2;
        }
        free(path);
    }
    if (!rc && !found)
        rc = error_set(err, WARD_EIO, "%s: holds neither tokenizer.json nor tokenizer.model", from);
    return rc;
}

static int write_text(const struct synth_folder *folder, const char *name, char *text, struct ward_error *err)
{
    const int rc = text ? synth_folder_write(folder, name, text, strlen(text), err)
                        : error_no_memory(err, name, 1 << 20);
    free(text);
    return rc;
}

static int make_tokenizer(const struct synth_folder *folder, const struct synth_source *source, struct ward_error *err)
{
    char *json;
    int rc = synth_tokenizer(&json, source, err);
    return rc ? rc : write_text(folder, "tokenizer.json", json, err);
}

/* A given one must suit the shape: the tokens of turns and images, ids that the embedding has rows for. */
static int check_tokenizer(const struct synth_folder *folder, const struct synth_source *source,
                           const struct synth_options *o, struct ward_error *err)
{
    const struct model_config *config = &source->config;
    struct tokenizer *tokenizer;
    struct chat_template chat;
    int rc = tokenizer_open(&tokenizer, folder->temporary, err);
    if (rc)
        return rc;
    int32_t size = tokenizer_size(tokenizer);
    if (config->image_tokens && size == config->image_token + 1)
        size--; /* no row is read for it */
    if (size > config->text.vocab_size)
        rc = error_set(err, WARD_EUNSUPPORTED, "%s: has %d tokens, more than the %d of the vocabulary of %s",
                       o->tokenizer, (int)size, config->text.vocab_size, o->preset);
    if (!rc)
        rc = chat_template_open(&chat, folder->temporary, config, tokenizer, err);
    tokenizer_close(&tokenizer);
    return rc;
}

static int put_tokenizer(const struct synth_folder *folder, const struct synth_source *source,
                         const struct synth_options *o, struct ward_error *err)
{
    int rc = o->tokenizer ? copy_tokenizer(folder, o->tokenizer, err) : make_tokenizer(folder, source, err);
    char *path;
    if (rc)
        return rc;
    if (asprintf(&path, "%s/tokenizer_config.json", folder->temporary) < 0)
        return error_no_memory(err, folder->path, strlen(folder->path));
    if (!file_exists(path))
        rc = write_text(folder, "tokenizer_config.json", synth_tokenizer_config(source), err);
    free(path);
    return rc ? rc : check_tokenizer(folder, source, o, err);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static int put_texts(const struct synth_folder *folder, const struct synth_source *source,
                     const struct synth_options *o, struct ward_error *err)
{
    int rc = synth_folder_write(folder, "config.json", source->text, strlen(source->text), err);
    if (!rc)
        rc = write_text(folder, "generation_config.json", synth_generation_config(source), err);
    if (!rc)
        rc = write_text(folder, "README.md", synth_card(o->preset, o->seed), err);
    if (!rc)
        rc = synth_folder_write(folder, "chat_template.jinja", chat_gemma_template, strlen(chat_gemma_template), err);
    if (!rc && source->config.vision.n_layers)
        rc = write_text(folder, "preprocessor_config.json", synth_preprocessor_config(source), err);
    if (!rc && source->config.vision.n_layers)
        rc = write_text(folder, "processor_config.json", synth_processor_config(source), err);
    if (!rc)
        rc = put_tokenizer(folder, source, o, err);
    return rc;
}

static int check_room(const struct synth_folder *folder, uint64_t bytes, struct ward_error *err)
{
    uint64_t free_bytes;
    const int error = disk_free(folder->temporary, &free_bytes);
    if (error)
        return error_set(err, WARD_EIO, "%s: %s", folder->path, strerror(error));
    if (free_bytes >= bytes + SLACK)
        return 0;
    return error_set(err, WARD_EIO, "%s: takes %.2f GB, and its disk has %.2f GB free: %.2f GB are missing",
                     folder->path, (double)(bytes + SLACK) / 1e9, (double)free_bytes / 1e9,
                     (double)(bytes + SLACK - free_bytes) / 1e9);
}

static int write_all_parts(const struct synth_folder *folder, const struct synth_source *source,
                           const struct synth_options *o, struct synth_result *result, struct ward_error *err)
{
    struct synth_plan plan;
    int rc = synth_plan(&plan, &source->config, err);
    for (int i = 0; !rc && i < plan.n_files; i++)
        result->bytes += synth_file_size(&plan.files[i]);
    if (!rc)
        rc = check_room(folder, result->bytes, err);
    if (!rc)
        rc = put_texts(folder, source, o, err);
    if (!rc && plan.n_files > 1)
        rc = write_text(folder, "model.safetensors.index.json", synth_index(&plan), err);
    if (!rc)
        rc = synth_write_shards(&plan, folder, o, err);
    result->weights = plan.weights;
    result->n_files = plan.n_files;
    synth_plan_free(&plan);
    return rc;
}

int synth_checkpoint(const struct synth_options *options, struct synth_result *result, struct ward_error *err)
{
    struct synth_source source;
    struct synth_folder folder;
    *result = (struct synth_result){0};
    int rc = synth_source_open(&source, options->preset, err);
    if (rc)
        return rc;
    rc = synth_folder_open(&folder, options->out, options->force, err);
    if (!rc)
        rc = write_all_parts(&folder, &source, options, result, err);
    if (!rc)
        rc = synth_folder_commit(&folder, err);
    synth_folder_close(&folder);
    synth_source_close(&source);
    return rc;
}
