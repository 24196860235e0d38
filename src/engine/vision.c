#include "engine/vision.h"

#include "base/mapping.h"
#include "engine/buffers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The MLP, whose hidden rows are the widest, runs over blocks of this many patches to keep the memory small, unless
 * they are handed over without being float32. */
enum { MLP_ROWS = 1024 };

/* N patches, E hidden size, F intermediate size, B patches of a block of the MLP. What is handed from one operation to
 * the next (hand_size) may be void where the backend finds it in `packed`. */
struct encoder {
    struct backend *be;
    const struct vision_config *config;
    int patches, block;
    float *hidden;          /* [N][E] the residual stream */
    float *norm;            /* [N][E] handed over */
    void *packed, *scratch; /* for linear and for attention */
    int *lo, *hi;           /* [N]: every patch sees all patches */
    /* In turn: */
    float *pixels;      /* [N][C*P*P] */
    float *q;           /* [N][E] */
    float *k, *v;       /* [N][E] handed over to the cache */
    struct kv_layer kv; /* keys and values head by head: [heads][N][E/heads] */
    float *wide;        /* [B][F] handed over */
    void *wide_packed;
    float *sum;             /* [B][E] handed over to hidden */
    float *normed, *pooled; /* [N][E], [squares][E] */
    void *own;              /* all of them, unless the caller gave the memory */
};

static void encoder_close(struct encoder *e)
{
    e->be->ops->release(e->be, e->own);
}

/* Where everything lies in `memory`; returns how many bytes that takes, with NULL as well. */
static size_t lay_out(struct encoder *e, struct backend *be, const struct model_config *config, void *memory)
{
    const struct vision_config *c = &config->vision;
    const struct backend_ops *ops = be->ops;
    const int side = c->image_size / c->patch_size, patches = side * side, width = c->hidden_size;
    const int pixels = c->n_channels * c->patch_size * c->patch_size;
    const int block = be->keeps_work || patches < MLP_ROWS ? patches : MLP_ROWS;
    *e = (struct encoder){
        .be = be,
        .config = c,
        .patches = patches,
        .block = block,
        .kv = {.type = be->encoder_type, .n_heads = c->n_heads, .head_dim = width / c->n_heads, .capacity = patches}};
    const size_t n = (size_t)patches, rows = n * (size_t)width * sizeof(float);
    const size_t cache = tensor_bytes(be->encoder_type, n * (size_t)width);
    const size_t handed = ops->hand_size(be, patches, width);
    const struct buffer_request always[] = {
        {(void **)&e->hidden, rows},
        {(void **)&e->norm, handed},
        {&e->packed, ops->packed_size(be, patches, pixels > width ? pixels : width, false)},
        {&e->scratch, ops->attention_size(be, patches, c->n_heads, width / c->n_heads)},
        {(void **)&e->lo, n * sizeof(int)},
        {(void **)&e->hi, n * sizeof(int)},
    };
    const struct buffer_request input[] = {{(void **)&e->pixels, n * (size_t)pixels * sizeof(float)}};
    const struct buffer_request attention[] = {
        {(void **)&e->q, rows}, {(void **)&e->k, handed}, {(void **)&e->v, handed},
        {&e->kv.k, cache},      {&e->kv.v, cache},
    };
    const struct buffer_request mlp[] = {
        {(void **)&e->wide, ops->hand_size(be, block, c->intermediate_size)},
        {&e->wide_packed, ops->packed_size(be, block, c->intermediate_size, false)},
        {(void **)&e->sum, ops->hand_size(be, block, width)},
    };
    const struct buffer_request output[] = {
        {(void **)&e->normed, rows},
        {(void **)&e->pooled, (size_t)config->image_tokens * (size_t)width * sizeof(float)},
    };
    const struct buffer_list turns[] = {{input, 1}, {attention, 5}, {mlp, 3}, {output, 2}};
    return buffers_place_turns(memory, (struct buffer_list){always, sizeof always / sizeof *always}, turns,
                               sizeof turns / sizeof *turns);
}

static int encoder_open(struct encoder *e, struct backend *be, const struct model_config *c, void *work,
                        struct ward_error *err)
{
    const size_t bytes = lay_out(e, be, c, NULL), n = (size_t)e->patches;
    int *numbers = calloc(n, sizeof *numbers);
    if (!numbers)
        return error_no_memory(err, "the vision encoder", n * sizeof *numbers);
    void *own = NULL;
    if (!work) {
        const int rc = be->ops->alloc(be, &own, bytes, "the vision encoder", err);
        if (rc) {
            free(numbers);
            return rc;
        }
    }
    lay_out(e, be, c, work ? work : own);
    e->own = own;
    be->ops->write(be, e->lo, numbers, n * sizeof *numbers);
    for (int i = 0; i < e->patches; i++)
        numbers[i] = e->patches;
    be->ops->write(be, e->hi, numbers, n * sizeof *numbers);
    free(numbers);
    return 0;
}

size_t vision_work_bytes(struct backend *be, const struct model_config *config)
{
    struct encoder e;
    return config->vision.n_layers ? lay_out(&e, be, config, NULL) : 0;
}

/* hidden = patches through the convolution (a linear map of the pixels of a patch: channel, row, column) + positions */
static void embed_patches(struct encoder *e, const struct vision_weights *w, const float *patches)
{
    e->be->ops->write(e->be, e->pixels, patches, (size_t)e->patches * (size_t)w->patch.cols * sizeof *patches);
    const struct linear convolution = {.out = e->hidden, .w = &w->patch, .bias = w->patch_bias};
    e->be->ops->linear(e->be, e->pixels, e->patches, &convolution, 1, (struct scratch){.packed = e->packed});
    e->be->ops->add_table(e->be, e->hidden, &w->position);
}

/* hidden += out(attention(norm1(hidden))) */
static void attention_block(struct encoder *e, const struct vision_layer *w)
{
    const struct vision_config *c = e->config;
    const struct backend_ops *ops = e->be->ops;
    const int head_dim = c->hidden_size / c->n_heads;
    const struct next next = {.packed = e->packed};
    ops->layer_norm(e->be, e->norm, e->hidden, w->norm1, w->norm1_bias, e->patches, c->hidden_size,
                    (float)c->layer_norm_eps, next);
    const struct linear qkv[] = {
        {.out = e->q, .w = &w->q, .bias = w->q_bias},
        {.out = e->k, .w = &w->k, .bias = w->k_bias, .heads = {e->kv.k, e->kv.type, head_dim, e->patches}},
        {.out = e->v, .w = &w->v, .bias = w->v_bias, .heads = {e->kv.v, e->kv.type, head_dim, e->patches}}};
    ops->linear(e->be, e->norm, e->patches, qkv, 3, (struct scratch){.packed = e->packed});
    const struct attention attention = {
        .out = e->norm,
        .q = e->q,
        .k = e->kv.k,
        .v = e->kv.v,
        .type = e->kv.type,
        .rows = e->patches,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_heads,
        .head_dim = head_dim,
        .capacity = e->patches,
        .lo = e->lo,
        .hi = e->hi,
        .scale = (float)(1.0 / sqrt((double)head_dim)),
        .scratch = e->scratch,
        .next = next,
    };
    ops->attention(e->be, &attention);
    const struct linear output = {.out = e->q, .w = &w->out, .bias = w->out_bias, .add = e->hidden};
    ops->linear(e->be, e->norm, e->patches, &output, 1, (struct scratch){.packed = e->packed});
}

/* hidden += fc2(gelu(fc1(norm2(hidden)))) */
static void mlp_block(struct encoder *e, const struct vision_layer *w)
{
    const struct vision_config *c = e->config;
    const struct backend_ops *ops = e->be->ops;
    for (int first = 0; first < e->patches; first += e->block) {
        const int rows = e->patches - first < e->block ? e->patches - first : e->block;
        float *const hidden = e->hidden + (size_t)first * (size_t)c->hidden_size;
        ops->layer_norm(e->be, e->norm, hidden, w->norm2, w->norm2_bias, rows, c->hidden_size, (float)c->layer_norm_eps,
                        (struct next){.packed = e->packed});
        const struct linear fc1 = {
            .out = e->wide, .w = &w->fc1, .bias = w->fc1_bias, .gelu = true, .next = {.packed = e->wide_packed}};
        ops->linear(e->be, e->norm, rows, &fc1, 1, (struct scratch){.packed = e->packed});
        const struct linear fc2 = {.out = e->sum, .w = &w->fc2, .bias = w->fc2_bias, .add = hidden};
        ops->linear(e->be, e->wide, rows, &fc2, 1, (struct scratch){.packed = e->wide_packed});
    }
}

/* features = projector(norm(means of the patches over squares)) */
static void project(struct encoder *e, const struct model_config *config, const struct vision_weights *w,
                    float *features)
{
    const struct vision_config *c = e->config;
    const int side = c->image_size / c->patch_size, squares = (int)lround(sqrt((double)config->image_tokens));
    e->be->ops->pool(e->be, e->pooled, e->normed, side, side / squares, c->hidden_size);
    /* The projector's norm takes the eps of the vision encoder. */
    e->be->ops->rms_norm(e->be, e->pooled, e->pooled, w->projector_norm, config->image_tokens, c->hidden_size,
                         (float)c->layer_norm_eps, (struct next){.packed = e->packed});
    const struct linear projector = {.out = features, .w = &w->projector};
    e->be->ops->linear(e->be, e->pooled, config->image_tokens, &projector, 1, (struct scratch){.packed = e->packed});
}

int vision_encode(struct backend *be, const struct model_config *config, const struct vision_weights *weights,
                  const float *patches, float *features, void *work, int index, const struct observer *observer,
                  struct ward_error *err)
{
    const struct vision_config *c = &config->vision;
    struct encoder e;
    const int rc = encoder_open(&e, be, config, work, err);
    if (rc)
        return rc;
    embed_patches(&e, weights, patches);
    observe(observer, be, "vision.embeddings", -1, index, e.patches, c->hidden_size, e.hidden);
    for (int l = 0; l < c->n_layers; l++) {
        attention_block(&e, &weights->layers[l]);
        mlp_block(&e, &weights->layers[l]);
        observe(observer, be, "vision.layer", l, index, e.patches, c->hidden_size, e.hidden);
    }
    be->ops->layer_norm(be, e.normed, e.hidden, weights->post_norm, weights->post_norm_bias, e.patches, c->hidden_size,
                        (float)c->layer_norm_eps, (struct next){0});
    observe(observer, be, "vision.output", -1, index, e.patches, c->hidden_size, e.normed);
    project(&e, config, weights, features);
    observe(observer, be, "image.features", -1, index, config->image_tokens, config->text.hidden_size, features);
    const int finished = be->ops->finish(be, err);
    encoder_close(&e);
    return finished;
}

void vision_rest(const struct vision_config *config, const struct vision_weights *weights)
{
    for (int l = 0; l < config->n_layers; l++) {
        const struct vision_layer *w = &weights->layers[l];
        const struct tensor *const matrices[] = {&w->q, &w->k, &w->v, &w->out, &w->fc1, &w->fc2};
        for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
            mapping_release(matrices[i]->data, (size_t)matrices[i]->rows * tensor_row_bytes(matrices[i]));
    }
}
