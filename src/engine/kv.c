#include "engine/kv.h"

#include <stdlib.h>

int kv_capacity(const struct text_config *config, int layer, int context, int room)
{
    const int64_t ring = (int64_t)config->sliding_window - 1 + room;
    return config->global[layer] || ring > context ? context : (int)ring;
}

int kv_open(struct kv_cache *out, struct backend *be, const struct text_config *config, int context, int room,
            struct ward_error *err)
{
    *out = (struct kv_cache){.n_layers = config->n_layers, .context = context, .window = config->sliding_window};
    out->layers = calloc((size_t)config->n_layers, sizeof *out->layers);
    if (!out->layers)
        return error_no_memory(err, "the KV cache", (size_t)config->n_layers * sizeof *out->layers);
    for (int l = 0; l < config->n_layers; l++) {
        struct kv_layer *layer = &out->layers[l];
        const int capacity = kv_capacity(config, l, context, room);
        *layer = (struct kv_layer){
            .type = be->cache_type, .n_heads = config->n_kv_heads, .head_dim = config->head_dim, .capacity = capacity};
        size_t bytes;
        if (!size_multiply((size_t)config->n_kv_heads * (size_t)config->head_dim, tensor_bytes(be->cache_type, 1),
                           &bytes) ||
            !size_multiply(bytes, (size_t)capacity, &bytes)) {
            kv_close(out, be);
            return error_set(err, WARD_EINVAL, "a context of %d tokens is too large for the KV cache", context);
        }
        int rc = be->ops->alloc(be, &layer->k, bytes, "the KV cache", err);
        if (!rc)
            rc = be->ops->alloc(be, &layer->v, bytes, "the KV cache", err);
        if (rc) {
            kv_close(out, be);
            return rc;
        }
    }
    return 0;
}

void kv_close(struct kv_cache *kv, struct backend *be)
{
    for (int l = 0; kv->layers && l < kv->n_layers; l++) {
        be->ops->release(be, kv->layers[l].k);
        be->ops->release(be, kv->layers[l].v);
    }
    free(kv->layers);
    *kv = (struct kv_cache){0};
}

int kv_room(const struct kv_cache *kv, int first)
{
    const int before = first < kv->window - 1 ? first : kv->window - 1;
    int room = kv->context - first;
    for (int l = 0; l < kv->n_layers; l++)
        if (kv->layers[l].capacity < kv->context && kv->layers[l].capacity - before < room)
            room = kv->layers[l].capacity - before;
    return room;
}

void kv_note_stored(struct kv_cache *kv, int first, int rows)
{
    if (first == 0)
        kv->written = 0;
    kv->written = kv->written > first + rows ? kv->written : first + rows;
}

bool kv_can_rewind(const struct kv_cache *kv, int keep)
{
    for (int l = 0; l < kv->n_layers; l++) {
        const int lost = kv->written - kv->layers[l].capacity;
        if (lost > 0 && keep - (kv->window - 1) < lost)
            return false;
    }
    return true;
}
