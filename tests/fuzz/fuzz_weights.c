/* A checkpoint's folder of weights: the index, the headers of its shards (their lengths and data are made to fit), the
 * names of the tensors. The parts: model.safetensors.index.json, then one header a shard; without an index the one of
 * model.safetensors. */
#include "fuzz.h"

#include "base/json.h"
#include "model/weights.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DATA = 4096, LENGTH_BYTES = 8 };

/* The smallest models: what is added for images lies apart. */
#define TEXT_CONFIG \
    "\"hidden_size\":2,\"intermediate_size\":1,\"num_hidden_layers\":1,\"num_attention_heads\":1," \
    "\"num_key_value_heads\":1,\"head_dim\":2,\"sliding_window\":2,\"vocab_size\":3}"
static const char *const configs[] = {
    "{\"model_type\":\"gemma3_text\"," TEXT_CONFIG,
    "{\"model_type\":\"gemma3\",\"mm_tokens_per_image\":1,\"image_token_index\":0,\"boi_token_index\":1,"
    "\"eoi_token_index\":2,"
    "\"vision_config\":{\"hidden_size\":1,\"intermediate_size\":1,\"num_hidden_layers\":1,\"num_attention_heads\":1,"
    "\"image_size\":1,\"patch_size\":1},\"text_config\":{" TEXT_CONFIG "}",
};

/* As many bytes of data as the header speaks of, within reason. */
static size_t data_size(const uint8_t *header, size_t size)
{
    struct json_document *document;
    int64_t end, most = 0;
    if (json_parse(&document, (const char *)header, size, "header", NULL))
        return 0;
    for (const struct json *entry = json_root(document)->first; entry; entry = entry->next) {
        const struct json *offsets = json_get(entry, "data_offsets");
        if (offsets && offsets->first && json_integer(offsets->first->next, 0, MAX_DATA, &end) && end > most)
            most = end;
    }
    json_close(&document);
    return (size_t)most;
}

static void put_shard(const char *name, const uint8_t *header, size_t size)
{
    const size_t n = size ? LENGTH_BYTES + size + data_size(header, size) : 0;
    uint8_t *file = calloc(n + 1, 1);
    REQUIRE(file);
    for (int i = 0; i < LENGTH_BYTES && size; i++)
        file[i] = (uint8_t)((uint64_t)size >> 8 * i);
    if (size)
        memcpy(file + LENGTH_BYTES, header, size);
    fuzz_folder_put(name, file, n);
    free(file);
}

static void open_as(const char *text)
{
    const struct config_files files = {.config = {"config.json", text, strlen(text)}};
    struct model_config config;
    struct ward_error err = {0};
    struct weights *weights;
    REQUIRE(!config_parse(&config, &files, &err));
    const int rc = weights_open(&weights, fuzz_folder(), &config, &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (weights != NULL));
    if (weights) {
        REQUIRE(weights->text.embed.data && weights->text.head.data && weights->text.layers[0].down.data);
        REQUIRE(!weights->vision.layers == !config.vision.n_layers);
    }
    weights_close(&weights);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const shards[] = {"a.safetensors", "b.safetensors", "c.safetensors"};
    struct fuzz_parts parts;
    fuzz_split(&parts, data, size);
    const bool indexed = parts.size[0] > 0;
    fuzz_folder_put("model.safetensors.index.json", parts.data[0], parts.size[0]);
    put_shard("model.safetensors", parts.data[1], indexed ? 0 : parts.size[1]);
    for (size_t i = 0; i < 3; i++)
        put_shard(shards[i], parts.data[1 + i], indexed ? parts.size[1 + i] : 0);
    open_as(configs[0]);
    open_as(configs[1]);
    fuzz_parts_free(&parts);
    return 0;
}
