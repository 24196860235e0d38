/* tokenizer.model: a SentencePiece BPE model, a protocol buffer (sentencepiece_model.proto). */
#include "base/mapping.h"
#include "base/utf8.h"
#include "model/vocabulary.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the wire format -------------------------------------------------------------------------------------------- */

struct wire {
    const uint8_t *data;
    size_t size, at;
};

struct field {
    uint32_t number;
    int type;          /* 0: value; 2: body; 5: value, the bits of a float */
    uint64_t value;
    struct wire body;
};

static bool read_varint(struct wire *w, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && w->at < w->size; shift += 7) {
        const uint8_t byte = w->data[w->at++];
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

static bool read_fixed(struct wire *w, int bytes, uint64_t *value)
{
    if (w->size - w->at < (size_t)bytes)
        return false;
    *value = 0;
    for (int i = 0; i < bytes; i++)
        *value |= (uint64_t)w->data[w->at++] << 8 * i;
    return true;
}

/* The next field; false at damage. There is one as long as at < size. */
static bool read_field(struct wire *w, struct field *field)
{
    uint64_t tag, length;
    *field = (struct field){0};
    if (!read_varint(w, &tag) || tag >> 3 == 0 || tag >> 32)
        return false;
    field->number = (uint32_t)(tag >> 3);
    field->type = (int)(tag & 7);
    switch (field->type) {
    case 0:
        return read_varint(w, &field->value);
    case 1:
        return read_fixed(w, 8, &field->value);
    case 5:
        return read_fixed(w, 4, &field->value);
    case 2:
        if (!read_varint(w, &length) || length > w->size - w->at)
            return false;
        field->body = (struct wire){w->data + w->at, (size_t)length, 0};
        w->at += (size_t)length;
        return true;
    default:
        return false; /* groups are not used */
    }
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };                              /* ModelProto */
enum { FIELD_TEXT = 1, FIELD_SCORE = 2, FIELD_TYPE = 3 };                                        /* SentencePiece */
enum { TRAINER_TYPE = 3, TRAINER_SUFFIX = 24, TRAINER_BYTES = 35, TRAINER_BPE = 2 };             /* TrainerSpec */
enum { NORMALIZER_MAP = 2, NORMALIZER_PREFIX = 3, NORMALIZER_SPACES = 4, NORMALIZER_ESCAPE = 5 }; /* NormalizerSpec */

struct settings {
    uint64_t type, suffix, bytes;           /* TrainerSpec */
    uint64_t prefix, remove_spaces, escape; /* NormalizerSpec */
    bool map;
};

struct reader {
    struct tokenizer *t;
    const char *name;
    struct ward_error *err;
    float *scores;  /* [size] */
    uint8_t *types; /* [size] */
    size_t scores_capacity, types_capacity;
    int32_t n_pieces; /* of the model itself; ids from here on were added by files beside it */
    struct settings settings;
};

static int damaged(const struct reader *r)
{
    return error_set(r->err, WARD_EFORMAT, "%s: is not a SentencePiece model, or is damaged", r->name);
}

static int read_piece(struct reader *r, struct wire w)
{
    struct wire text = {0};
    struct field field;
    float score = 0;
    uint64_t type = PIECE_NORMAL;
    while (w.at < w.size) {
        if (!read_field(&w, &field))
            return damaged(r);
        if (field.number == FIELD_TEXT && field.type == 2)
            text = field.body;
        else if (field.number == FIELD_SCORE && field.type == 5)
            memcpy(&score, &(uint32_t){(uint32_t)field.value}, sizeof score);
        else if (field.number == FIELD_TYPE && field.type == 0)
            type = field.value;
    }
    const size_t id = (size_t)r->t->size;
    if (utf8_valid(text.data, text.size) != text.size)
        return error_set(r->err, WARD_EFORMAT, "%s: piece %zu is not UTF-8", r->name, id);
    if (isnan(score) || type < PIECE_NORMAL || type > PIECE_BYTE)
        return error_set(r->err, WARD_EFORMAT, "%s: piece %zu has no proper score and type", r->name, id);
    int rc = vocabulary_reserve(&r->scores, &r->scores_capacity, id + 1, sizeof *r->scores, VOCABULARY_MAX_ID, r->name,
                                r->err);
    if (!rc)
        rc = vocabulary_reserve(&r->types, &r->types_capacity, id + 1, sizeof *r->types, VOCABULARY_MAX_ID, r->name,
                                r->err);
    if (!rc)
        rc = vocabulary_add(r->t, (const char *)text.data, text.size, (int64_t)id, r->name, r->err);
    if (rc)
        return rc;
    r->scores[id] = score;
    r->types[id] = (uint8_t)type;
    return 0;
}

static int read_settings(struct reader *r, struct wire w, bool trainer)
{
    struct settings *s = &r->settings;
    struct field field;
    while (w.at < w.size) {
        if (!read_field(&w, &field))
            return damaged(r);
        if (!trainer && field.number == NORMALIZER_MAP && field.type == 2)
            s->map = field.body.size > 0;
        if (field.type != 0)
            continue;
        if (trainer) {
            if (field.number == TRAINER_TYPE)
                s->type = field.value;
            else if (field.number == TRAINER_SUFFIX)
                s->suffix = field.value;
            else if (field.number == TRAINER_BYTES)
                s->bytes = field.value;
        } else if (field.number == NORMALIZER_PREFIX) {
            s->prefix = field.value;
        } else if (field.number == NORMALIZER_SPACES) {
            s->remove_spaces = field.value;
        } else if (field.number == NORMALIZER_ESCAPE) {
            s->escape = field.value;
        }
    }
    return 0;
}

static int check_settings(const struct reader *r)
{
    const struct settings *s = &r->settings;
    const char *what = NULL;
    if (s->type != TRAINER_BPE)
        what = "is not a BPE model";
    else if (!s->bytes)
        what = "has no byte fallback";
    else if (s->map || s->prefix || s->remove_spaces || !s->escape || s->suffix)
        what = "changes the text by more than turning spaces into U+2581";
    return what ? error_set(r->err, WARD_EUNSUPPORTED, "%s: %s, as Gemma's tokenizer.model does not", r->name, what)
                : 0;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------- */

/* added_tokens_decoder of tokenizer_config.json: {"105": {"content": ..., "special": ...}, ...} */
static int read_decoder_table(struct reader *r, const struct json *table, const char *name)
{
    int rc = 0;
    for (const struct json *entry = table ? table->first : NULL; entry && !rc; entry = entry->next) {
        char *end;
        const long id = strtol(entry->key ? entry->key : "", &end, 10);
        if (end == entry->key || *end || id < 0 || id >= VOCABULARY_MAX_ID)
            return error_set(r->err, WARD_EFORMAT, "%s: added_tokens_decoder has a key that is no id from 0 to %d",
                             name, VOCABULARY_MAX_ID - 1);
        rc = vocabulary_add_entry(r->t, entry, id, name, r->err);
    }
    return rc;
}

/* added_tokens.json: {"<image_soft_token>": 262144, ...} */
static int read_added_file(struct reader *r, const struct json *table, const char *name)
{
    int rc = 0;
    for (const struct json *value = table ? table->first : NULL; value && !rc; value = value->next) {
        int64_t id;
        if (!value->key || !json_integer(value, 0, VOCABULARY_MAX_ID - 1, &id))
            return error_set(r->err, WARD_EFORMAT, "%s: has a token without an id from 0 to %d", name,
                             VOCABULARY_MAX_ID - 1);
        const int32_t found = vocabulary_find(r->t, value->key, strlen(value->key));
        if (found >= 0 && found != id)
            rc = error_set(r->err, WARD_EFORMAT, "%s: gives token %d the id %lld", name, (int)found, (long long)id);
        else if (found < 0)
            rc = vocabulary_add(r->t, value->key, strlen(value->key), id, name, r->err);
        if (!rc && !r->t->pieces[id].added)
            rc = vocabulary_add_token(r->t, (int32_t)id, true, false, name, r->err);
    }
    return rc;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int read_fields(struct reader *r, struct wire w)
{
    struct field field;
    int rc = 0;
    while (w.at < w.size && !rc) {
        if (!read_field(&w, &field))
            return damaged(r);
        if (field.type == 2 && field.number == MODEL_PIECES)
            rc = read_piece(r, field.body);
        else if (field.type == 2 && (field.number == MODEL_TRAINER || field.number == MODEL_NORMALIZER))
            rc = read_settings(r, field.body, field.number == MODEL_TRAINER);
    }
    return !rc && !r->t->size ? damaged(r) : rc;
}

/* The files beside the model; a document may be NULL. */
struct beside {
    struct json_document *config, *added;
    const char *config_name, *added_name;
};

static int read_model(struct reader *r, const uint8_t *data, size_t size, const struct beside *beside)
{
    int rc = read_fields(r, (struct wire){data, size, 0});
    r->n_pieces = r->t->size;
    if (!rc)
        rc = check_settings(r);
    if (!rc)
        rc = vocabulary_index(r->t, r->name, r->err);
    if (!rc)
        rc = vocabulary_add_merges(r->t, r->scores, r->name, r->err);
    if (!rc && beside->config)
        rc = read_decoder_table(r, json_get(json_root(beside->config), "added_tokens_decoder"), beside->config_name);
    if (!rc && beside->added)
        rc = read_added_file(r, json_root(beside->added), beside->added_name);
    if (!rc)
        rc = vocabulary_add_typed(r->t, r->types, r->n_pieces, r->name, r->err);
    return rc ? rc : vocabulary_finish(r->t, r->name, r->err);
}

static int open_model(struct tokenizer **out, const uint8_t *data, size_t size, const struct beside *beside,
                      const char *name, struct ward_error *err)
{
    *out = NULL;
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return error_no_memory(err, name, sizeof *t);
    /* What a field of SentencePiece's is when absent: unigram, text cleaned up. */
    struct reader r = {
        .t = t, .name = name, .err = err, .settings = {.type = 1, .prefix = 1, .remove_spaces = 1, .escape = 1}};
    const int rc = read_model(&r, data, size, beside);
    free(r.scores);
    free(r.types);
    if (rc)
        tokenizer_close(&t);
    *out = t;
    return rc;
}

int tokenizer_from_model(struct tokenizer **out, const uint8_t *data, size_t size, const char *name,
                         struct ward_error *err)
{
    return open_model(out, data, size, &(struct beside){0}, name, err);
}

/* ---- a checkpoint's folder -------------------------------------------------------------------------------------- */

static char *join(const char *folder, const char *file)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, file) < 0 ? NULL : path;
}

static int open_json(struct tokenizer **out, const char *path, struct ward_error *err)
{
    struct mapping map;
    int rc = mapping_open(&map, path, err);
    if (rc)
        return rc;
    rc = tokenizer_from_json(out, (const char *)map.data, map.size, path, err);
    mapping_close(&map);
    return rc;
}

static int open_model_file(struct tokenizer **out, const char *path, const char *config, const char *added,
                           struct ward_error *err)
{
    enum { BESIDE_LIMIT = 64 << 20 };
    struct beside beside = {.config_name = config, .added_name = added};
    struct mapping map = {0};
    int rc = mapping_open(&map, path, err);
    if (!rc && file_exists(config))
        rc = json_read(&beside.config, config, BESIDE_LIMIT, err);
    if (!rc && file_exists(added))
        rc = json_read(&beside.added, added, BESIDE_LIMIT, err);
    if (!rc)
        rc = open_model(out, map.data, map.size, &beside, path, err);
    json_close(&beside.config);
    json_close(&beside.added);
    mapping_close(&map);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *folder, struct ward_error *err)
{
    *out = NULL;
    char *json = join(folder, "tokenizer.json"), *model = join(folder, "tokenizer.model");
    char *config = join(folder, "tokenizer_config.json"), *added = join(folder, "added_tokens.json");
    int rc;
    if (!json || !model || !config || !added)
        rc = error_no_memory(err, folder, strlen(folder));
    else if (file_exists(json))
        rc = open_json(out, json, err);
    else if (file_exists(model))
        rc = open_model_file(out, model, config, added, err);
    else
        rc = error_set(err, WARD_EIO, "%s: holds neither tokenizer.json nor tokenizer.model", folder);
    free(json);
    free(model);
    free(config);
    free(added);
    return rc;
}
