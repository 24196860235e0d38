#include "engine/text.h"

#include "engine/buffers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SLIDING, GLOBAL };

/* transformers' "default" and "linear" rope: base^(-2i/C), divided by the factor, all in float32. */
static void rope_frequencies(float *out, const struct rope_config *rope, int head_dim)
{
    for (int i = 0; i < head_dim / 2; i++)
        out[i] = (float)(1.0 / pow(rope->theta, (double)(2 * i) / head_dim)) / (float)rope->factor;
}

/* What differs from one step to the next, of `rows` rows: written at once, so that all else is the same call again. */
struct inputs {
    struct draw *draws;   /* [GEMV_MAX_N] */
    int32_t *ids;         /* [rows] */
    int *positions;       /* [rows] */
    int *lo[2], *hi[2];   /* [rows] the interval of positions that a row sees, on sliding layers and on global ones */
    float *cosine[2], *sine[2]; /* [rows][C/2] */
};

static size_t inputs_bytes(int rows, int head_dim)
{
    return GEMV_MAX_N * sizeof(struct draw) + (size_t)rows * (6 * sizeof(int) + 2 * (size_t)head_dim * sizeof(float));
}

/* Where they lie in a buffer, the host's or the backend's. */
static struct inputs lay_out(void *buffer, int rows, int head_dim)
{
    struct draw *const draws = buffer;
    int *const ints = (int *)(draws + GEMV_MAX_N);
    float *const angles = (float *)ints + 6 * (size_t)rows;
    const size_t n = (size_t)rows, part = n * (size_t)(head_dim / 2);
    return (struct inputs){
        .draws = draws,
        .ids = ints,
        .positions = ints + n,
        .lo = {ints + 2 * n, ints + 3 * n},
        .hi = {ints + 4 * n, ints + 5 * n},
        .cosine = {angles, angles + part},
        .sine = {angles + 2 * part, angles + 3 * part},
    };
}

/* A decoder in float16 or float32 keeps the bits more than bf16 has. The image encoder's weights are multiplied as
 * bf16, in which they were published: float16 holds them without loss (docs/gguf.md). */
static bool is_finer(const struct tensor *w)
{
    return w->type == TENSOR_F16 || w->type == TENSOR_F32;
}

/* Where everything lies in `memory`; returns how many bytes that takes, with NULL as well. */
static size_t lay_out_buffers(struct text_buffers *b, struct backend *be, const struct text_config *c,
                              const struct text_weights *weights, int rows, void *memory)
{
    const struct backend_ops *ops = be->ops;
    const size_t n = (size_t)rows, heads = (size_t)c->n_heads * (size_t)c->head_dim,
                 kv = (size_t)c->n_kv_heads * (size_t)c->head_dim, wide = (size_t)c->intermediate_size;
    const int inputs = c->hidden_size > (int)heads ? c->hidden_size : (int)heads;
    bool finer = false;
    for (int l = 0; l < c->n_layers; l++)
        finer |= is_finer(&weights->layers[l].down);
    const struct buffer_request always[] = {
        {(void **)&b->hidden, n * (size_t)c->hidden_size * sizeof(float)},
        {(void **)&b->norm, n * (size_t)c->hidden_size * sizeof(float)},
        {&b->inputs, inputs_bytes(rows, c->head_dim)},
        {(void **)&b->choices, GEMV_MAX_N * sizeof *b->choices},
        {(void **)&b->logits, (n < GEMV_MAX_N ? n : GEMV_MAX_N) * (size_t)c->vocab_size * sizeof(float)},
        {&b->packed, ops->packed_size(be, rows, inputs, true)},
        {&b->sums, ops->sums_size(be, rows)},
        {&b->attention, ops->attention_size(be, rows, c->n_heads, c->head_dim)},
    };
    const struct buffer_request attention[] = {
        {(void **)&b->q, n * heads * sizeof(float)},
        {(void **)&b->attended, n * heads * sizeof(float)},
        {(void **)&b->k, n * kv * sizeof(float)},
        {(void **)&b->v, n * kv * sizeof(float)},
    };
    const struct buffer_request mlp[] = {
        {(void **)&b->gate, ops->hand_size(be, rows, c->intermediate_size)},
        {(void **)&b->up, n * wide * sizeof(float)},
        {&b->wide_packed, ops->packed_size(be, rows, c->intermediate_size, finer)},
    };
    const struct buffer_list turns[] = {{attention, 4}, {mlp, 3}};
    return buffers_place_turns(memory, (struct buffer_list){always, sizeof always / sizeof *always}, turns,
                               sizeof turns / sizeof *turns);
}

size_t text_work_bytes(struct backend *be, const struct text_config *config, const struct text_weights *weights,
                       int rows)
{
    struct text_buffers b;
    return lay_out_buffers(&b, be, config, weights, rows, NULL);
}

static int allocate_buffers(struct text_decoder *t, int rows, size_t least, struct ward_error *err)
{
    const struct text_config *c = t->config;
    struct backend *be = t->be;
    struct text_buffers *b = &t->b;
    const size_t half = (size_t)c->head_dim / 2, bytes = text_work_bytes(be, c, t->weights, rows);
    const int rc = be->ops->alloc(be, &b->memory, bytes > least ? bytes : least, "the decoder's work buffers", err);
    if (rc)
        return rc;
    lay_out_buffers(b, be, c, t->weights, rows, b->memory);
    b->host_inputs = malloc(inputs_bytes(rows, c->head_dim));
    b->inverse_frequency = malloc(2 * half * sizeof(float));
    if (!b->host_inputs || !b->inverse_frequency)
        return error_no_memory(err, "the decoder's work buffers", inputs_bytes(rows, c->head_dim));
    b->rows = rows;
    return 0;
}

int text_open(struct text_decoder *t, struct backend *be, const struct text_config *config,
              const struct text_weights *weights, int rows, size_t least, struct ward_error *err)
{
    *t = (struct text_decoder){.be = be, .config = config, .weights = weights};
    const int rc = allocate_buffers(t, rows, least, err);
    if (rc) {
        text_close(t);
        return rc;
    }
    const int half = config->head_dim / 2;
    rope_frequencies(t->b.inverse_frequency + SLIDING * half, &config->rope_sliding, config->head_dim);
    rope_frequencies(t->b.inverse_frequency + GLOBAL * half, &config->rope_global, config->head_dim);
    /* Gemma3TextScaledWordEmbedding in float32. transformers' bfloat16 run rounds the scale (50.596 to 50.5): that
     * alone is an error ten times as large as all others of float32 products together (docs/parity.md). */
    t->embed_scale = (float)sqrt((double)config->hidden_size);
    return 0;
}

void text_close(struct text_decoder *t)
{
    struct text_buffers *b = &t->b;
    for (int i = 0; t->be && i < 2 * GEMV_MAX_N; i++)
        t->be->ops->forget(t->be, &t->steps[i / GEMV_MAX_N][i % GEMV_MAX_N]);
    if (t->be)
        t->be->ops->release(t->be, b->memory);
    free(b->host_inputs);
    free(b->inverse_frequency);
    *t = (struct text_decoder){0};
}

/* Angles as transformers computes them: float32 position times float32 frequency. */
static void prepare_rotation(const struct text_decoder *t, const struct inputs *in, int first, int rows)
{
    const int half = t->config->head_dim / 2;
    for (int kind = SLIDING; kind <= GLOBAL; kind++)
        for (int r = 0; r < rows; r++) {
            const size_t at = (size_t)r * (size_t)half;
            for (int i = 0; i < half; i++) {
                const float angle = (float)(first + r) * t->b.inverse_frequency[kind * half + i];
                in->cosine[kind][at + (size_t)i] = cosf(angle);
                in->sine[kind][at + (size_t)i] = sinf(angle);
            }
        }
}

/* What each row sees, as one interval of positions: everything up to itself, or to the end of the image that it belongs
 * to; on sliding layers no further back than the window. transformers 5's create_masks_for_vision_model: AND(window,
 * OR(causal, same image)), so a window shorter than an image cuts what lies before a row, never what lies after it. */
static void prepare_mask(const struct text_decoder *t, const struct inputs *in, int first, int rows,
                         const struct text_image *images, int n_images)
{
    const int window = t->config->sliding_window;
    for (int r = 0; r < rows; r++) {
        const int position = first + r;
        in->lo[GLOBAL][r] = 0;
        in->lo[SLIDING][r] = position - window + 1 > 0 ? position - window + 1 : 0;
        in->hi[GLOBAL][r] = in->hi[SLIDING][r] = position + 1;
    }
    for (int i = 0; i < n_images; i++)
        for (int r = images[i].first - first; r < images[i].first - first + images[i].rows; r++)
            in->hi[GLOBAL][r] = in->hi[SLIDING][r] = images[i].first + images[i].rows;
}

static void write_inputs(struct text_decoder *t, const int32_t *ids, int first, int rows,
                         const struct text_image *images, int n_images)
{
    const struct inputs in = lay_out(t->b.host_inputs, rows, t->config->head_dim);
    memcpy(in.draws, t->draws, sizeof t->draws);
    memcpy(in.ids, ids, (size_t)rows * sizeof *ids);
    for (int r = 0; r < rows; r++)
        in.positions[r] = first + r;
    prepare_rotation(t, &in, first, rows);
    prepare_mask(t, &in, first, rows, images, n_images);
    t->be->ops->write(t->be, t->b.inputs, t->b.host_inputs, inputs_bytes(rows, t->config->head_dim));
}

/* What the rows of b.norm are for: the products of attention, or of the MLP. */
static struct next for_attention(const struct text_buffers *b, const struct text_layer *w)
{
    return (struct next){b->packed,
                         tensor_is_float(w->q.type) || tensor_is_float(w->k.type) || tensor_is_float(w->v.type)};
}

static struct next for_mlp(const struct text_buffers *b, const struct text_layer *w)
{
    return (struct next){b->packed, is_finer(&w->gate) || is_finer(&w->up)};
}

/* hidden += norm(attention(b.norm)), b.norm = norm(hidden). A block leaves the normed input of the next: one pass over
 * hidden for both. */
static void attention_block(struct text_decoder *t, const struct text_layer *w, const struct kv_layer *cache,
                            const struct inputs *in, int kind, int rows)
{
    const struct text_config *c = t->config;
    const struct backend_ops *ops = t->be->ops;
    struct backend *be = t->be;
    struct text_buffers *b = &t->b;
    const float eps = (float)c->rms_norm_eps;

    /* What decides which positions are seen is worth float32: it costs a tenth of the layer's products and leaves half
     * of the error that rounding every product's input to bf16 makes (docs/parity.md). */
    const struct linear qkv[] = {{.out = b->q, .w = &w->q, .exact = true},
                                 {.out = b->k, .w = &w->k, .exact = true},
                                 {.out = b->v, .w = &w->v, .exact = true}};
    ops->linear(be, b->norm, rows, qkv, 3, (struct scratch){b->packed, b->sums});
    const struct heads heads = {
        .q = b->q,
        .k = b->k,
        .v = b->v,
        .rows = rows,
        .n_heads = c->n_heads,
        .to = cache,
        .positions = in->positions,
        .q_norm = w->q_norm,
        .k_norm = w->k_norm,
        .eps = eps,
        .cosine = in->cosine[kind],
        .sine = in->sine[kind],
    };
    ops->store(be, &heads);
    const struct attention attention = {
        .out = b->attended,
        .q = b->q,
        .k = cache->k,
        .v = cache->v,
        .type = cache->type,
        .rows = rows,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .capacity = cache->capacity,
        .lo = in->lo[kind],
        .hi = in->hi[kind],
        .scale = (float)(1.0 / sqrt(c->query_pre_attn_scalar)),
        .exact = true,
        .scratch = b->attention,
        .next = {b->packed, is_finer(&w->o)},
    };
    ops->attention(be, &attention);
    const struct linear output = {.out = b->norm, .w = &w->o, .exact = is_finer(&w->o)};
    ops->linear(be, b->attended, rows, &output, 1, (struct scratch){b->packed, b->sums});
    ops->add_rms_norm(be, b->hidden, b->norm, w->post_attention_norm, w->pre_feedforward_norm, rows, c->hidden_size,
                      eps, for_mlp(b, w));
}

/* hidden += norm(down(gelu(gate(x)) * up(x))), x = b.norm; b.norm = norm(hidden), unless there is no next layer. */
static void mlp_block(struct text_decoder *t, const struct text_layer *w, const struct text_layer *next, int rows)
{
    const struct text_config *c = t->config;
    const struct backend_ops *ops = t->be->ops;
    struct backend *be = t->be;
    struct text_buffers *b = &t->b;
    const float eps = (float)c->rms_norm_eps;

    const struct linear down = {.out = b->norm, .w = &w->down, .exact = is_finer(&w->down)};
    const struct linear gate_up[] = {
        {.out = b->gate, .w = &w->gate, .exact = is_finer(&w->gate), .next = {b->wide_packed, down.exact}},
        {.out = b->up, .w = &w->up, .exact = is_finer(&w->up)}};
    ops->gated(be, b->norm, rows, gate_up, (struct scratch){b->packed, b->sums});
    ops->linear(be, b->gate, rows, &down, 1, (struct scratch){b->wide_packed, b->sums});
    ops->add_rms_norm(be, b->hidden, b->norm, w->post_feedforward_norm, next ? next->input_norm : NULL, rows,
                      c->hidden_size, eps, next ? for_attention(b, next) : (struct next){0});
}

/* hidden = embeddings of the tokens; the rows of an image are its features, which are not scaled. */
static void embed(struct text_decoder *t, const struct inputs *in, int first, int rows, const struct text_image *images,
                  int n_images)
{
    const size_t width = (size_t)t->config->hidden_size;
    int done = 0;
    for (int i = 0; i <= n_images; i++) {
        const int until = i < n_images ? images[i].first - first : rows;
        t->be->ops->embed(t->be, t->b.hidden + (size_t)done * width, &t->weights->embed, in->ids + done, until - done,
                          t->embed_scale);
        if (i < n_images)
            t->be->ops->copy(t->be, t->b.hidden + (size_t)until * width, images[i].features,
                             (size_t)images[i].rows * width * sizeof(float));
        done = i < n_images ? until + images[i].rows : rows;
    }
}

/* The decoder on what write_inputs has written. */
static void run_layers(struct text_decoder *t, struct kv_cache *kv, int first, int rows,
                       const struct text_image *images, int n_images, const struct observer *observer)
{
    const struct text_config *c = t->config;
    const struct inputs in = lay_out(t->b.inputs, rows, c->head_dim);
    embed(t, &in, first, rows, images, n_images);
    observe(observer, t->be, "text.embeddings", -1, first, rows, c->hidden_size, t->b.hidden);
    const struct text_layer *layer = t->weights->layers;
    t->be->ops->rms_norm(t->be, t->b.norm, t->b.hidden, layer->input_norm, rows, c->hidden_size, (float)c->rms_norm_eps,
                         for_attention(&t->b, layer));
    for (int l = 0; l < c->n_layers; l++, layer++) {
        attention_block(t, layer, &kv->layers[l], &in, c->global[l] ? GLOBAL : SLIDING, rows);
        mlp_block(t, layer, l + 1 < c->n_layers ? layer + 1 : NULL, rows);
        observe(observer, t->be, "text.layer", l, first, rows, c->hidden_size, t->b.hidden);
    }
}

void text_forward(struct text_decoder *t, struct kv_cache *kv, const int32_t *ids, int first, int rows,
                  const struct text_image *images, int n_images, const struct observer *observer)
{
    kv_note_stored(kv, first, rows);
    write_inputs(t, ids, first, rows, images, n_images);
    run_layers(t, kv, first, rows, images, n_images, observer);
}

void text_logits(struct text_decoder *t, int row, int rows, int position, const struct observer *observer)
{
    const struct text_config *c = t->config;
    struct text_buffers *b = &t->b;
    t->be->ops->rms_norm(t->be, b->norm, b->hidden + (size_t)row * (size_t)c->hidden_size, t->weights->norm, rows,
                         c->hidden_size, (float)c->rms_norm_eps, (struct next){.packed = b->packed});
    observe(observer, t->be, "text.norm", -1, position, rows, c->hidden_size, b->norm);
    const struct linear head = {.out = b->logits, .w = &t->weights->head};
    t->be->ops->linear(t->be, b->norm, rows, &head, 1, (struct scratch){b->packed, b->sums});
    observe(observer, t->be, "text.logits", -1, position, rows, c->vocab_size, b->logits);
    if (t->be->ops->choose)
        t->be->ops->choose(t->be, b->choices, b->logits, t->drawn ? lay_out(b->inputs, 0, 0).draws : NULL, rows,
                           c->vocab_size, (float)c->final_softcap);
}

void text_step(struct text_decoder *t, struct kv_cache *kv, const int32_t *ids, int first, int rows,
               const struct observer *observer)
{
    void **recording = &t->steps[t->drawn][rows - 1];
    kv_note_stored(kv, first, rows);
    write_inputs(t, ids, first, rows, NULL, 0);
    if (!observer->fn && t->be->ops->begin(t->be, recording))
        return;
    run_layers(t, kv, first, rows, NULL, 0, observer);
    text_logits(t, 0, rows, first, observer);
    if (!observer->fn)
        t->be->ops->end(t->be, recording);
}
