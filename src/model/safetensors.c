#include "model/safetensors.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_LIMIT = 100000000, /* bytes, as the reference implementation */
    INDEX_LIMIT = 100000000,
    MAX_FILES = 4096,
    LENGTH_BYTES = 8, /* the header's length, little-endian, that a file begins with */
};

struct file {
    char *name;
    char *names;        /* of its tensors, one after the other */
    struct mapping map; /* empty when the bytes belong to the caller */
};

struct safetensors {
    struct file *files;
    size_t n_files;
    struct safetensor *tensors; /* sorted by name */
    size_t n_tensors;
};

static const struct dtype {
    const char *name;
    unsigned bits;
} dtypes[] = {
    {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"F8_E5M2", 8},     {"F8_E4M3", 8}, {"F8_E8M0", 8},
    {"I16", 16},    {"U16", 16},    {"F16", 16},        {"BF16", 16},       {"I32", 32},    {"U32", 32},
    {"F32", 32},    {"F64", 64},    {"I64", 64},        {"U64", 64},        {"C64", 64},    {"F4", 4},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
};

struct safetensors *safetensors_new(void)
{
    return calloc(1, sizeof(struct safetensors));
}

void safetensors_close(struct safetensors **files)
{
    struct safetensors *s = *files;
    if (!s)
        return;
    for (size_t i = 0; i < s->n_files; i++) {
        free(s->files[i].name);
        free(s->files[i].names);
        mapping_close(&s->files[i].map);
    }
    free(s->files);
    free(s->tensors);
    free(s);
    *files = NULL;
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

/* A file being parsed. */
struct parse {
    const char *name;
    const uint8_t *data; /* what follows the header */
    size_t size;
    struct ward_error *err;
};

/* bytes = product of the shape * size of the dtype, or false when that is no whole number of bytes or does not fit. */
static bool shape_bytes(const struct safetensor *t, unsigned bits, uint64_t *bytes)
{
    uint64_t n = bits;
    for (int i = 0; i < t->n_dims; i++)
        if (__builtin_mul_overflow(n, (uint64_t)t->shape[i], &n))
            return false;
    *bytes = n / 8;
    return n % 8 == 0;
}

static int parse_shape(struct safetensor *t, const struct json *shape, const struct parse *p)
{
    if (!shape || shape->type != JSON_ARRAY)
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: shape is not a list", p->name, t->name);
    if (shape->n > SAFETENSORS_MAX_DIMS)
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: has %zu dimensions, at most %d are expected", p->name,
                         t->name, shape->n, SAFETENSORS_MAX_DIMS);
    for (const struct json *size = shape->first; size; size = size->next)
        if (!json_integer(size, 0, INT64_MAX, &t->shape[t->n_dims++]))
            return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: shape holds something else than sizes", p->name,
                             t->name);
    return 0;
}

/* Fills t from its entry in the header. Its data lie anywhere yet: check_layout looks at all of them together. */
static int parse_tensor(struct safetensor *t, const struct json *entry, const struct parse *p)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    if (entry->type != JSON_OBJECT)
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: its entry is not an object", p->name, t->name);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!json_get(entry, keys[i]))
            return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: %s is missing", p->name, t->name, keys[i]);
    if (entry->n != sizeof keys / sizeof *keys)
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: its entry holds more than dtype, shape and data_offsets",
                         p->name, t->name);

    const struct json *written = json_get(entry, "dtype");
    const struct dtype *dtype = NULL;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes && !dtype; i++)
        if (json_string_is(written, dtypes[i].name))
            dtype = &dtypes[i];
    if (!dtype)
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: dtype %.40s is not one of safetensors", p->name, t->name,
                         written->text ? written->text : "(no string)");
    t->dtype = dtype->name;
    int rc = parse_shape(t, json_get(entry, "shape"), p);
    if (rc)
        return rc;

    const struct json *offsets = json_get(entry, "data_offsets");
    int64_t begin, end;
    if (offsets->type != JSON_ARRAY || offsets->n != 2 || !json_integer(offsets->first, 0, INT64_MAX, &begin) ||
        !json_integer(offsets->first->next, 0, INT64_MAX, &end))
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: data_offsets are not two offsets", p->name, t->name);
    uint64_t bytes;
    if (!shape_bytes(t, dtype->bits, &bytes))
        return error_set(p->err, WARD_EFORMAT, "%s: tensor %s: its shape makes no number of bytes", p->name, t->name);
    if (end < begin || (uint64_t)(end - begin) != bytes)
        return error_set(p->err, WARD_EFORMAT,
                         "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64 "] do not span the %" PRIu64 " "
                         "bytes of its dtype and shape",
                         p->name, t->name, begin, end, bytes);
    if ((uint64_t)end > p->size)
        return error_set(p->err, WARD_EFORMAT,
                         "%s: is truncated: tensor %s ends at byte %" PRId64 " of the data, of which there "
                         "are %zu",
                         p->name, t->name, end, p->size);
    t->data = p->data + begin;
    t->size = (size_t)bytes; /* at most p->size */
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct safetensor *)a)->name, ((const struct safetensor *)b)->name);
}

/* By place; an empty tensor before the one that begins where it stands. */
static int compare_data(const void *a, const void *b)
{
    const struct safetensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

/* The tensors cover the data without gap or overlap. Sorts them by place. */
static int check_layout(struct safetensor *tensors, size_t n, const struct parse *p)
{
    qsort(tensors, n, sizeof *tensors, compare_data);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t begin = (size_t)(tensors[i].data - p->data);
        if (begin < at)
            return error_set(p->err, WARD_EFORMAT, "%s: tensors %s and %s overlap", p->name, tensors[i - 1].name,
                             tensors[i].name);
        if (begin > at)
            return error_set(p->err, WARD_EFORMAT, "%s: the %zu bytes before tensor %s belong to no tensor", p->name,
                             begin - at, tensors[i].name);
        at += tensors[i].size;
    }
    if (at != p->size)
        return error_set(p->err, WARD_EFORMAT, "%s: the last %zu bytes belong to no tensor", p->name, p->size - at);
    return 0;
}

static int check_metadata(const struct json *metadata, const struct parse *p)
{
    bool sound = metadata->type == JSON_OBJECT;
    for (const struct json *entry = metadata->first; entry && sound; entry = entry->next)
        sound = entry->type == JSON_STRING;
    return sound ? 0 : error_set(p->err, WARD_EFORMAT, "%s: __metadata__ holds something else than strings", p->name);
}

/* Appends the file's tensors and restores the order by name. The names are copied, so that the header can be freed. */
static int parse_header(struct safetensors *into, struct file *file, const struct json *header, const struct parse *p)
{
    size_t name_bytes = 0;
    for (const struct json *entry = header->first; entry; entry = entry->next)
        name_bytes += strlen(entry->key) + 1;
    file->names = malloc(name_bytes + 1);
    const size_t capacity = into->n_tensors + header->n;
    struct safetensor *grown = realloc(into->tensors, (capacity + 1) * sizeof *grown);
    if (grown)
        into->tensors = grown;
    if (!grown || !file->names)
        return error_no_memory(p->err, p->name, (capacity + 1) * sizeof *grown);

    struct safetensor *first = into->tensors + into->n_tensors;
    size_t n = 0;
    char *name = file->names;
    for (const struct json *entry = header->first; entry; entry = entry->next) {
        int rc;
        if (!strcmp(entry->key, "__metadata__")) {
            rc = check_metadata(entry, p);
        } else {
            first[n] = (struct safetensor){.name = name, .file = file->name};
            name = stpcpy(name, entry->key) + 1;
            rc = parse_tensor(&first[n++], entry, p);
        }
        if (rc)
            return rc;
    }
    int rc = check_layout(first, n, p);
    if (rc)
        return rc;
    into->n_tensors += n;
    qsort(into->tensors, into->n_tensors, sizeof *into->tensors, compare_names);
    for (size_t i = 1; i < into->n_tensors; i++)
        if (!compare_names(&into->tensors[i - 1], &into->tensors[i]))
            return error_set(p->err, WARD_EFORMAT, "%s: tensor %s is also in %s", into->tensors[i].file,
                             into->tensors[i].name, into->tensors[i - 1].file);
    return 0;
}

/* What people have instead of the weights, said plainly. */
static int check_magic(const uint8_t *data, size_t size, const char *name, uint64_t *header, struct ward_error *err)
{
    if (is_git_lfs_pointer(data, size))
        return error_set(err, WARD_EFORMAT, "%s: is a Git LFS pointer, not the weights: run git lfs pull", name);
    if (size < LENGTH_BYTES)
        return error_set(err, WARD_EFORMAT, "%s: is %zu bytes long, too short for a safetensors file", name, size);
    for (int i = LENGTH_BYTES; i-- > 0;)
        *header = *header << 8 | data[i];
    if (*header > HEADER_LIMIT)
        return error_set(err, WARD_EFORMAT,
                         "%s: is not a safetensors file: its header would be %" PRIu64 " bytes long, at most %d "
                         "are expected",
                         name, *header, HEADER_LIMIT);
    if (*header > size - LENGTH_BYTES)
        return error_set(err, WARD_EFORMAT,
                         "%s: is truncated: its header is %" PRIu64 " bytes long, the whole file %zu", name, *header,
                         size);
    if (!*header || data[LENGTH_BYTES] != '{')
        return error_set(err, WARD_EFORMAT, "%s: is not a safetensors file: its header is not a JSON object", name);
    return 0;
}

int safetensors_parse(struct safetensors *into, const uint8_t *data, size_t size, const char *name,
                      struct ward_error *err)
{
    uint64_t header_size = 0;
    int rc = check_magic(data, size, name, &header_size, err);
    if (rc)
        return rc;
    struct file *grown = realloc(into->files, (into->n_files + 1) * sizeof *grown);
    if (!grown)
        return error_no_memory(err, name, (into->n_files + 1) * sizeof *grown);
    into->files = grown;
    struct file *file = &grown[into->n_files++];
    *file = (struct file){.name = strdup(name)};
    if (!file->name)
        return error_no_memory(err, name, strlen(name));

    struct json_document *document;
    rc = json_parse(&document, (const char *)data + LENGTH_BYTES, (size_t)header_size, name, err);
    if (rc)
        return rc;
    const size_t start = LENGTH_BYTES + (size_t)header_size;
    const struct parse p = {name, data + start, size - start, err};
    rc = parse_header(into, file, json_root(document), &p);
    json_close(&document);
    return rc;
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

static int open_file(struct safetensors *into, const char *path, struct ward_error *err)
{
    struct mapping map;
    int rc = mapping_open(&map, path, err);
    if (rc)
        return rc;
    rc = safetensors_parse(into, map.data, map.size, path, err);
    if (rc)
        mapping_close(&map);
    else
        into->files[into->n_files - 1].map = map;
    return rc;
}

/* A file beside the index: no folder, no way out of the checkpoint's own. */
static bool is_plain_name(const struct json *name)
{
    return name->type == JSON_STRING && name->length && name->length < 256 && !memchr(name->text, 0, name->length) &&
           !memchr(name->text, '/', name->length) && strcmp(name->text, ".") && strcmp(name->text, "..");
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* shards: [map->n], filled with each shard's name once, sorted; *n of them. */
static int list_shards(const char **shards, size_t *n, const struct json *map, const char *path, struct ward_error *err)
{
    size_t all = 0;
    for (const struct json *entry = map->first; entry; entry = entry->next) {
        if (!is_plain_name(entry))
            return error_set(err, WARD_EFORMAT, "%s: weight_map: tensor %s is not in a file of this folder", path,
                             entry->key);
        shards[all++] = entry->text;
    }
    qsort(shards, all, sizeof *shards, compare_strings);
    for (size_t i = 0; i < all; i++)
        if (!*n || strcmp(shards[*n - 1], shards[i]))
            shards[(*n)++] = shards[i];
    if (*n > MAX_FILES)
        return error_set(err, WARD_EFORMAT, "%s: names %zu files, at most %d are expected", path, *n, MAX_FILES);
    return 0;
}

static char *join(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static int open_shards(struct safetensors *into, const char *folder, const char **shards, size_t n, const char *path,
                       struct ward_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        char *shard = join(folder, shards[i]);
        if (!shard)
            return error_no_memory(err, "a path", strlen(folder) + strlen(shards[i]));
        if (file_exists(shard))
            rc = open_file(into, shard, err);
        else
            rc = error_set(err, WARD_EIO, "%s: is not there, but %s needs it", shard, path);
        free(shard);
    }
    return rc;
}

/* Every tensor of the index lies in the shard that it names, and there are no others. */
static int check_index(const struct safetensors *s, const char *folder, const struct json *map, const char *path,
                       struct ward_error *err)
{
    int rc = 0;
    bool *listed = calloc(s->n_tensors + 1, sizeof *listed);
    if (!listed)
        return error_no_memory(err, path, s->n_tensors + 1);
    for (const struct json *entry = map->first; entry && !rc; entry = entry->next) {
        const struct safetensor *t = safetensors_find(s, entry->key);
        if (!t || strcmp(t->file + strlen(folder) + 1, entry->text))
            rc = error_set(err, WARD_EFORMAT, "%s/%s: lacks tensor %s, which %s places there", folder, entry->text,
                           entry->key, path);
        else
            listed[t - s->tensors] = true;
    }
    for (size_t i = 0; i < s->n_tensors && !rc; i++)
        if (!listed[i])
            rc = error_set(err, WARD_EFORMAT, "%s: holds tensor %s, which %s does not list", s->tensors[i].file,
                           s->tensors[i].name, path);
    free(listed);
    return rc;
}

static int open_index(struct safetensors *into, const char *folder, const char *path, struct ward_error *err)
{
    struct json_document *document;
    int rc = json_read(&document, path, INDEX_LIMIT, err);
    if (rc)
        return rc;
    const char **shards = NULL;
    const struct json *map = json_get(json_root(document), "weight_map");
    size_t n = 0;
    if (!map || map->type != JSON_OBJECT || !map->n) {
        rc = error_set(err, WARD_EFORMAT, "%s: has no weight_map", path);
        goto done;
    }
    shards = malloc(map->n * sizeof *shards);
    if (!shards) {
        rc = error_no_memory(err, path, map->n * sizeof *shards);
        goto done;
    }
    rc = list_shards(shards, &n, map, path, err);
    if (!rc)
        rc = open_shards(into, folder, shards, n, path, err);
    if (!rc)
        rc = check_index(into, folder, map, path, err);
done:
    free(shards);
    json_close(&document);
    return rc;
}

int safetensors_open(struct safetensors **out, const char *folder, struct ward_error *err)
{
    *out = NULL;
    struct safetensors *s = safetensors_new();
    char *index = join(folder, "model.safetensors.index.json"), *single = join(folder, "model.safetensors");
    int rc;
    if (!s || !index || !single)
        rc = error_no_memory(err, "a path", strlen(folder));
    else if (file_exists(index))
        rc = open_index(s, folder, index, err);
    else if (file_exists(single))
        rc = open_file(s, single, err);
    else
        rc = error_set(err, WARD_EIO, "%s: holds neither model.safetensors.index.json nor model.safetensors", folder);
    free(index);
    free(single);
    if (rc)
        safetensors_close(&s);
    *out = s;
    return rc;
}

const struct safetensor *safetensors_find(const struct safetensors *files, const char *name)
{
    const struct safetensor key = {.name = name};
    return !files->n_tensors ? NULL : bsearch(&key, files->tensors, files->n_tensors, sizeof key, compare_names);
}

size_t safetensors_count(const struct safetensors *files)
{
    return files->n_tensors;
}

const struct safetensor *safetensors_at(const struct safetensors *files, size_t i)
{
    return &files->tensors[i];
}

size_t safetensors_mapped_bytes(const struct safetensors *files)
{
    size_t bytes = 0;
    for (size_t i = 0; i < files->n_files; i++)
        bytes += files->files[i].map.size;
    return bytes;
}
