#include "bench/predict.h"

#include "engine/kv.h"

#include <limits.h>
#include <math.h>

enum {
    QUESTION_TOKENS = 17, /* the turns, and "Describe this X-ray." */
    CHUNK = 512,          /* rows of the decoder's buffers (engine/session.c) */
    VISION_MLP_ROWS = 512,
};

/* The types of a checkpoint's parts, as quant/quantize.c chooses them. */
static const struct {
    const char *name;
    enum tensor_type matrix, value, embed, vision;
} types[PREDICT_TYPES] = {
    [PREDICT_BF16] = {"bf16", TENSOR_BF16, TENSOR_BF16, TENSOR_BF16, TENSOR_BF16},
    [PREDICT_INT8] = {"int8", TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0, TENSOR_Q8_0},
    [PREDICT_INT4] = {"int4", TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K, TENSOR_Q8_0},
    [PREDICT_Q4_0] = {"q4_0", TENSOR_Q4_0, TENSOR_Q4_0, TENSOR_Q6_K, TENSOR_Q8_0},
};

const char *predict_type_name(enum predict_type type)
{
    return types[type].name;
}

/* ---- the model's arithmetic -------------------------------------------------------------------------------------- */

/* Numbers of weights. The decoder's: in one layer, in its values, in queries, keys and values together. */
struct counts {
    double matrices, values, exact, embed, vision, projector; /* the last: of the encoder's, what tokens go through */
};

static void count(struct counts *out, const struct model_config *config)
{
    const struct text_config *t = &config->text;
    const struct vision_config *v = &config->vision;
    const double d = t->hidden_size, e = v->hidden_size;
    const double queries = (double)t->n_heads * t->head_dim, keys = (double)t->n_kv_heads * t->head_dim;
    *out = (struct counts){.values = keys * d,
                           .exact = (queries + 2 * keys) * d,
                           .embed = (double)t->vocab_size * d};
    out->matrices = out->exact + queries * d + 3.0 * d * t->intermediate_size;
    if (v->n_layers) {
        out->projector = e * d;
        out->vision = v->n_layers * (4 * e * e + 2 * e * v->intermediate_size) +
                      3.0 * v->patch_size * v->patch_size * e + out->projector;
    }
}

static double bytes_of(enum tensor_type type, double weights)
{
    const struct tensor_format *f = &tensor_formats[type];
    return weights / f->block * (double)f->bytes;
}

static double patches(const struct vision_config *v)
{
    const double side = v->n_layers ? v->image_size / v->patch_size : 0;
    return side * side;
}

static double kv_bytes(const struct text_config *t, int context)
{
    double positions = 0;
    for (int layer = 0; layer < t->n_layers; layer++)
        positions += kv_capacity(t, layer, context, CHUNK);
    return positions * 2 * t->n_kv_heads * t->head_dim * 2;
}

/* Floats that engine/text.c and engine/vision.c have, inputs packed for products once more. */
static double work_bytes(const struct model_config *config)
{
    const struct text_config *t = &config->text;
    const struct vision_config *v = &config->vision;
    const double queries = (double)t->n_heads * t->head_dim, keys = (double)t->n_kv_heads * t->head_dim;
    const double n = patches(v);
    const double decoder = CHUNK * (2.0 * t->hidden_size + 2 * queries + 2 * keys + 3.0 * t->intermediate_size) +
                     8.0 * t->vocab_size;
    const double encoder = n * 8 * v->hidden_size + fmin(n, VISION_MLP_ROWS) * 2 * v->intermediate_size;
    return 4 * (decoder + encoder);
}

void predict_need(struct predict_need *out, const struct model_config *config, enum predict_type type, int context)
{
    struct counts c;
    count(&c, config);
    const double layer = bytes_of(types[type].matrix, c.matrices - c.values) + bytes_of(types[type].value, c.values);
    const double text = config->text.n_layers * layer;
    const double head = bytes_of(types[type].embed, c.embed);
    *out = (struct predict_need){
        .text_bytes = (uint64_t)(text + head * (config->text.tied_embeddings ? 1 : 2)),
        .token_bytes = (uint64_t)(text + head),
        .kv_bytes = (uint64_t)kv_bytes(&config->text, context),
        .work_bytes = (uint64_t)work_bytes(config),
    };
    /* positions stay float32 beside quantized weights, and are small beside all */
    out->vision_bytes = (uint64_t)(bytes_of(types[type].vision, c.vision) +
                                   patches(&config->vision) * config->vision.hidden_size * (type ? 4 : 2));
    out->memory_bytes = out->text_bytes + out->vision_bytes + out->kv_bytes + out->work_bytes;
}

/* ---- what a processor gives of its limits ------------------------------------------------------------------------ */

/* Of the peak of the multiply that a set makes products with, what whole linear maps reach, packing included: measured
 * for each set on one core (docs/kernels.md), the same within a few percent on Zen 3, 4 and 5. */
static double linear_share(enum isa isa, enum tensor_type type, enum limits_multiply kind)
{
    switch (kind) {
    case LIMITS_F32: return 0.85;
    case LIMITS_BF16: return isa == ISA_AMX ? 0.35 : 0.80; /* tiles wait for their panels */
    case LIMITS_INT16: return 0.80; /* rounds x and weights to blocks first */
    default: break;
    }
    if (isa >= ISA_AVX512_VNNI)
        return 0.66;
    return type == TENSOR_Q8_0 || type == TENSOR_Q6_K ? 0.42 : 0.62; /* on AVX2 those need a multiply more */
}

/* Attention adds its exponentials. */
static double attention_share(enum limits_multiply kind, enum isa isa)
{
    switch (kind) {
    case LIMITS_F32: return 0.72;
    case LIMITS_INT16: return 0.68;
    default: return isa == ISA_AMX ? 0.20 : 0.62;
    }
}

/* Of the speed of reading, what matrix times vector reaches; finer types take more work for a byte. */
static double read_share(enum tensor_type type)
{
    switch (type) {
    case TENSOR_Q4_0: return 0.87;
    case TENSOR_Q4_K: return 0.80;
    case TENSOR_Q8_0:
    case TENSOR_Q6_K: return 0.95;
    default: return 1.0;
    }
}

/* Norms, activations, the mapping of pages: of the time of a stage, what is left for products. */
static const double rest = 0.92;

static double linear_rate(const struct limits *l, enum tensor_type type)
{
    const enum limits_multiply kind = limits_multiply_of(l->isa, type);
    return l->multiply_mean[kind] * linear_share(l->isa, type, kind) * rest;
}

void predict_rates_measured(struct predict_rates *out, const struct limits *l, enum predict_type type)
{
    const enum limits_multiply attention = limits_attention_of(l->isa);
    const double f32 = l->multiply_mean[LIMITS_F32];
    *out = (struct predict_rates){
        .vision = linear_rate(l, types[type].vision),
        .vision_attention = l->multiply_mean[attention] * attention_share(attention, l->isa) * rest,
        .prefill = linear_rate(l, types[type].matrix),
        .prefill_exact = type == PREDICT_BF16 ? f32 * linear_share(l->isa, TENSOR_F32, LIMITS_F32) * rest
                                              : linear_rate(l, types[type].matrix),
        .read = l->read_bytes_mean * read_share(types[type].matrix),
    };
}

/* Weights of fewer bits are widened to 16 for products, so that all types multiply alike. */
const struct predict_shares predict_assumed = {
    .vision = 0.50,
    .vision_attention = 0.35,
    .prefill = 0.40,
    .read = {[PREDICT_BF16] = 0.80, [PREDICT_INT8] = 0.75, [PREDICT_INT4] = 0.60, [PREDICT_Q4_0] = 0.60},
};

void predict_rates_card(struct predict_rates *out, const struct predict_shares *shares, double multiply, double read,
                        enum predict_type type)
{
    *out = (struct predict_rates){.vision = shares->vision * multiply,
                                  .vision_attention = shares->vision_attention * multiply,
                                  .prefill = shares->prefill * multiply,
                                  .prefill_exact = shares->prefill * multiply,
                                  .read = shares->read[type] * read};
}

/* ---- the latency ------------------------------------------------------------------------------------------------- */

/* Scores and weighted sums of all pairs of a query and a key. */
static double attention_operations(const struct text_config *t, double tokens)
{
    return 4 * tokens * tokens / 2 * t->n_heads * t->head_dim * t->n_layers;
}

void predict_latency(struct predict_latency *out, const struct model_config *config, enum predict_type type,
                     const struct predict_rates *rates)
{
    const struct vision_config *v = &config->vision;
    struct counts c;
    struct predict_need need;
    count(&c, config);
    predict_need(&need, config, type, CHUNK);
    const double n = patches(v), tokens = config->image_tokens + QUESTION_TOKENS, layers = config->text.n_layers;
    *out = (struct predict_latency){.prompt_tokens = (int)tokens};
    if (v->n_layers)
        out->vision_ms = 1e3 * (2 * (n * (c.vision - c.projector) + config->image_tokens * c.projector) / rates->vision +
                                4 * n * n * v->hidden_size * v->n_layers / rates->vision_attention);
    const double linear = 2 * tokens * layers * (c.matrices - c.exact), exact = 2 * tokens * layers * c.exact;
    const double read = (double)need.token_bytes / rates->read;
    const double computed =
        linear / rates->prefill + (exact + attention_operations(&config->text, tokens)) / rates->prefill_exact;
    out->prefill_ms = 1e3 * (computed + read); /* weights are mapped while they are read for the first time */
    out->first_token_ms = out->vision_ms + out->prefill_ms;
    out->token_ms = 1e3 * read;
    out->decode_ms = out->token_ms * (PREDICT_TOKENS - 1);
    out->total_ms = out->first_token_ms + out->decode_ms;
}

int predict_tokens_within(const struct predict_latency *l, double ms)
{
    const double further = floor((ms - l->first_token_ms) / l->token_ms);
    return further < 0 ? 0 : further < INT_MAX ? (int)further + 1 : INT_MAX;
}
