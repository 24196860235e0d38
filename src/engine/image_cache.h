/* The features of images that were encoded, kept for every session of a model: the encoder is by far the dearest part
 * of a question, and the same film is asked about again in a new conversation. Keyed by the hash of the pixels; all
 * else that features depend on (checkpoint, preprocessing, instruction set) is the model's and never changes. */
#ifndef WARD_ENGINE_IMAGE_CACHE_H
#define WARD_ENGINE_IMAGE_CACHE_H

#include "engine/backend.h"

struct image_cache;

/* Holds at most `limit` bytes of features, the least recently used go first. `bytes`: the features of one image. */
WARD_CHECKED int image_cache_open(struct image_cache **out, size_t limit, size_t bytes, struct ward_error *err);
void image_cache_close(struct image_cache **cache);

/* Any thread may call these. Copies the features of the image into the backend's memory; false: they are not held. */
bool image_cache_get(struct image_cache *cache, const uint64_t hash[2], struct backend *be, float *features);
/* Keeps a copy; without memory for it, nothing is kept. */
void image_cache_put(struct image_cache *cache, const uint64_t hash[2], struct backend *be, const float *features);

#endif
