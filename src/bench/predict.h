/* What a model needs, and how long an answer will take: the model's arithmetic, divided by what a device can do. How
 * the shares of the limits were found: docs/doctor.md. */
#ifndef WARD_BENCH_PREDICT_H
#define WARD_BENCH_PREDICT_H

#include "bench/limits.h"
#include "model/config.h"

/* Kinds of checkpoints: as published, and as `ward quantize` makes them. */
enum predict_type { PREDICT_BF16, PREDICT_INT8, PREDICT_INT4, PREDICT_Q4_0, PREDICT_TYPES };
const char *predict_type_name(enum predict_type type); /* "bf16", "int8", "int4", "q4_0" */

struct predict_need {
    uint64_t text_bytes, vision_bytes; /* of the weights, on disk and mapped */
    uint64_t token_bytes;              /* of them read for each token of an answer */
    uint64_t kv_bytes;                 /* the cache of `context` tokens */
    uint64_t work_bytes;               /* buffers of the decoder and, while an image is encoded, of the encoder */
    uint64_t memory_bytes;             /* all of it at once: the most that is resident */
};

/* context: tokens of conversation that there is room for. */
void predict_need(struct predict_need *out, const struct model_config *config, enum predict_type type, int context);

/* What a device does in a second, with a type of checkpoint: operations of the products of each part (two for a product
 * and its addition), bytes of weights. */
struct predict_rates {
    double vision, vision_attention; /* the encoder's linear maps; its attention */
    double prefill, prefill_exact;   /* the decoder's linear maps; those of queries, keys and values, and attention */
    double read;                     /* weights while one token after the other is generated */
};

/* Of this machine's processor. */
void predict_rates_measured(struct predict_rates *out, const struct limits *limits, enum predict_type type);

/* Of a card: shares of what it multiplies and reads at most. 0: not known, nothing is predicted. */
struct predict_shares {
    double vision, vision_attention, prefill; /* of its products of 16-bit floats */
    double read[PREDICT_TYPES];               /* of its memory's bandwidth */
};
extern const struct predict_shares predict_assumed; /* what good programs reach: docs/doctor.md */
/* multiply: operations, read: bytes, per second. */
void predict_rates_card(struct predict_rates *out, const struct predict_shares *shares, double multiply, double read,
                        enum predict_type type);

enum { PREDICT_TOKENS = 200 }; /* of an answer, the page's protocol */

struct predict_latency {
    int prompt_tokens;
    double vision_ms, prefill_ms, first_token_ms; /* the last: the two before together */
    double token_ms;                              /* each further token */
    double decode_ms, total_ms;                   /* of PREDICT_TOKENS in all */
};

/* One image (none where the model has no encoder), a question of a few words, an answer. */
void predict_latency(struct predict_latency *out, const struct model_config *config, enum predict_type type,
                     const struct predict_rates *rates);
/* The longest answer within so many milliseconds; 0: the first token comes later. */
int predict_tokens_within(const struct predict_latency *latency, double ms);

#endif
