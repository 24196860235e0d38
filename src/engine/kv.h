/* The keys and values of a conversation. Global layers keep every position of the context; sliding layers keep a ring
 * of the window and more, so that a chunk of prefill can be stored before it attends. */
#ifndef WARD_ENGINE_KV_H
#define WARD_ENGINE_KV_H

#include "engine/backend.h"
#include "model/config.h"

struct kv_cache {
    struct kv_layer *layers; /* [n_layers] */
    int n_layers;
    int context;             /* positions that a global layer keeps */
    int window;              /* of sliding layers */
    int written;             /* positions ever stored since the cache was empty: what the rings have overwritten */
};

/* Positions that a layer keeps: `room` of them can be stored at once wherever they begin. */
int kv_capacity(const struct text_config *config, int layer, int context, int room);
WARD_CHECKED int kv_open(struct kv_cache *out, struct backend *be, const struct text_config *config, int context,
                         int room, struct ward_error *err);
void kv_close(struct kv_cache *kv, struct backend *be);

/* How many positions from `first` on can be stored at once, so that the rings still have the window before each: more
 * than the room asked for while there is no window yet. */
int kv_room(const struct kv_cache *kv, int first);
/* Positions first .. first + rows - 1 are about to be stored. */
void kv_note_stored(struct kv_cache *kv, int first, int rows);
/* Whether the cache can go back to hold only positions 0..keep-1: the rings must still have the window before `keep`.
 * What was stored beyond has overwritten them, also when the cache has gone back since. */
bool kv_can_rewind(const struct kv_cache *kv, int keep);

#endif
