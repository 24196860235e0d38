/* One conversation: what the KV cache holds, and how a prompt is brought into it. */
#ifndef WARD_ENGINE_SESSION_H
#define WARD_ENGINE_SESSION_H

#include "engine/prompt.h"
#include "engine/sample.h"
#include "engine/speculate.h"
#include "engine/text.h"
#include "engine/vision.h"

struct held_image {
    int first;
    uint64_t hash[2];
};

struct ward_session {
    const struct ward_model *model;
    int context;
    struct kv_cache kv;
    struct text_decoder text;
    struct sampler sampler;
    struct observer observer;
    bool encode_always;

    /* What the cache holds: tokens 0 .. n_held-1, and the images among them. */
    int32_t *held; /* [context] */
    int n_held;
    struct held_image *held_images; /* [context / image tokens] */
    int n_held_images;

    /* Of the last step: how many drafted tokens behind the held ones are computed (in held and the cache) and not yet
     * asked for; and the row of its logits that belongs to the last held token: how many of them were right. */
    int n_ahead, row;
    struct speculator speculator;

    float *features;          /* [image_tokens][D] of the image being prefilled, in the backend's memory */
    uint8_t *pixels;          /* [size][size][3] */
    float *patches;           /* [size / patch_size squared][3][patch_size][patch_size] */
    struct sampler_options sampling;
    bool choose;              /* the backend chooses the token: its logits stay where they are */
    struct choice choice;     /* of the last held position; its id is -1 unless the backend has chosen */
    float *logits;            /* [V] of the last held position in host memory, where the id is -1 */
    struct ward_logprob *top; /* [logprobs] */
    int top_capacity;
};

struct prefill_report {
    int cached_tokens, computed_tokens, cached_images;
    double image_ms, vision_ms, prefill_ms;
};

/* The most positions that are computed at once, of a session with that context; and how many there are always room for
 * in its cache. */
int session_chunk(const struct ward_model *model, int context);
int session_room(const struct ward_model *model, int context);
/* Brings the prompt into the cache, computing only what the cache does not hold, and leaves the logits of its last
 * token, or what was chosen by them; that and later steps do as s->choose and s->sampling say at that time. */
WARD_CHECKED int session_prefill(struct ward_session *s, const struct prompt *prompt,
                                 const struct ward_generate_options *options, struct prefill_report *report,
                                 struct ward_error *err);
/* Appends one generated token and leaves the logits after it. There must be room: s->n_held < s->context. Up to
 * `draft_most` further tokens that the caller may be about to append are computed with it, where that is expected to
 * pay or `always`; no result depends on it. *drafted tells how many: 0 as well when an earlier step computed the token.
 * Fails only where a device does. */
WARD_CHECKED int session_step(struct ward_session *s, int32_t id, int draft_most, bool always, int *drafted,
                              struct ward_error *err);

#endif
