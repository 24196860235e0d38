/* Safetensors files, bytes as they are: one or several of one checkpoint. */
#include "fuzz.h"

#include "model/safetensors.h"

#include <string.h>

static void check_tensor(const struct safetensors *files, size_t i, const struct fuzz_parts *parts)
{
    const struct safetensor *t = safetensors_at(files, i);
    REQUIRE(safetensors_find(files, t->name) == t);
    REQUIRE(!i || strcmp(safetensors_at(files, i - 1)->name, t->name) < 0);
    REQUIRE(t->n_dims >= 0 && t->n_dims <= SAFETENSORS_MAX_DIMS);
    const size_t part = (size_t)(t->file[0] - '0');
    REQUIRE(part < FUZZ_MAX_PARTS && t->data >= parts->data[part]);
    REQUIRE(t->data + t->size <= parts->data[part] + parts->size[part]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_parts parts;
    struct safetensors *files = safetensors_new();
    struct ward_error err = {0};
    int rc = 0;
    REQUIRE(files);
    fuzz_split(&parts, data, size);
    for (size_t i = 0; i < FUZZ_MAX_PARTS && !rc && (!i || parts.size[i]); i++) {
        const char name[] = {(char)('0' + i), '\0'};
        rc = safetensors_parse(files, parts.data[i], parts.size[i], name, &err);
        fuzz_check_result(rc, &err);
    }
    for (size_t i = 0; !rc && i < safetensors_count(files); i++)
        check_tensor(files, i, &parts);
    safetensors_close(&files);
    fuzz_parts_free(&parts);
    return 0;
}
