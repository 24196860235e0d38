#include "engine/image_cache.h"

#include "base/private.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    uint64_t hash[2];
    uint64_t used;   /* when it was last asked for, in calls */
    float *features; /* NULL: a free place */
};

struct image_cache {
    pthread_mutex_t mutex;
    uint64_t calls;
    size_t bytes; /* of one image's features */
    size_t n_places;
    struct entry places[];
};

int image_cache_open(struct image_cache **out, size_t limit, size_t bytes, struct ward_error *err)
{
    const size_t n = bytes ? limit / bytes : 0;
    struct image_cache *cache = calloc(1, sizeof *cache + n * sizeof *cache->places);
    *out = cache;
    if (!cache)
        return error_no_memory(err, "the cache of images", n * sizeof *cache->places);
    cache->bytes = bytes;
    cache->n_places = n;
    pthread_mutex_init(&cache->mutex, NULL);
    return 0;
}

void image_cache_close(struct image_cache **cache)
{
    if (!*cache)
        return;
    for (size_t i = 0; i < (*cache)->n_places; i++)
        free((*cache)->places[i].features);
    pthread_mutex_destroy(&(*cache)->mutex);
    free(*cache);
    *cache = NULL;
}

static struct entry *find(struct image_cache *cache, const uint64_t hash[2])
{
    for (size_t i = 0; i < cache->n_places; i++) {
        struct entry *e = &cache->places[i];
        if (e->features && memcmp(e->hash, hash, sizeof e->hash) == 0) {
            e->used = ++cache->calls;
            return e;
        }
    }
    return NULL;
}

bool image_cache_get(struct image_cache *cache, const uint64_t hash[2], struct backend *be, float *features)
{
    pthread_mutex_lock(&cache->mutex);
    const struct entry *e = find(cache, hash);
    if (e)
        be->ops->write(be, features, e->features, cache->bytes);
    pthread_mutex_unlock(&cache->mutex);
    return e != NULL;
}

void image_cache_put(struct image_cache *cache, const uint64_t hash[2], struct backend *be, const float *features)
{
    pthread_mutex_lock(&cache->mutex);
    if (!find(cache, hash) && cache->n_places) {
        struct entry *place = &cache->places[0]; /* a free place was used at 0 */
        for (size_t i = 1; i < cache->n_places; i++)
            if (cache->places[i].used < place->used)
                place = &cache->places[i];
        if (!place->features)
            place->features = malloc(cache->bytes);
        if (place->features) {
            memory_keep_private(place->features, cache->bytes);
            memcpy(place->hash, hash, sizeof place->hash);
            place->used = ++cache->calls;
            be->ops->read(be, place->features, features, cache->bytes);
        }
    }
    pthread_mutex_unlock(&cache->mutex);
}
