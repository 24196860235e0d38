#include "engine/vision.h"

#include "base/mapping.h"
#include "engine/buffers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The MLP, whose hidden rows are the widest, runs over blocks of this many patches to keep the memory small. */
enum { MLP_ROWS = 1024 };

/* N patches, E hidden size, F intermediate size. */
struct encoder {
    struct backend *be;
    const struct vision_config *config;
    int patches;
    float *hidden;          /* [N][E] the residual stream */
    float *norm;            /* [N][E] */
    float *q, *k, *v;       /* [N][E] */
    void *packed, *scratch; /* for linear and for attention */
    struct kv_layer kv;     /* keys and values head by head: [heads][N][E/heads] */
    int *positions;         /* [N] */
    int *lo, *hi;           /* [N]: every patch sees all patches */
    void *own;              /* all of them, unless the caller gave the memory */
};

static void encoder_close(struct encoder *e)
{
    e->be->ops->release(e->be, e->own);
}

enum { BUFFERS = 12 };

/* Shapes, and what they ask of memory. */
static void encoder_shape(struct encoder *e, struct buffer_request wanted[BUFFERS], struct backend *be,
                          const struct vision_config *c)
{
    const int side = c->image_size / c->patch_size, patches = side * side;
    const int pixels = c->n_channels * c->patch_size * c->patch_size;
    *e = (struct encoder){.be = be,
                          .config = c,
                          .patches = patches,
                          .kv = {.type = be->encoder_type,
                                 .n_heads = c->n_heads,
                                 .head_dim = c->hidden_size / c->n_heads,
                                 .capacity = patches}};
    const size_t n = (size_t)patches, rows = n * (size_t)c->hidden_size * sizeof(float);
    /* The pixels of the patches are an input as well: they use q's memory, which may have to be larger for it. */
    const size_t input = n * (size_t)pixels * sizeof(float);
    size_t packed = be->ops->packed_size(be, patches, pixels > c->hidden_size ? pixels : c->hidden_size);
    const int block = patches < MLP_ROWS ? patches : MLP_ROWS;
    const size_t wide_packed = be->ops->packed_size(be, block, c->intermediate_size);
    packed = packed > wide_packed ? packed : wide_packed;
    /* What the MLP needs besides lies where the keys were, before they went head by head. */
    const size_t wide = (size_t)block * (size_t)c->intermediate_size * sizeof(float);
    const struct buffer_request all[BUFFERS] = {
        {(void **)&e->hidden, rows},
        {(void **)&e->norm, rows},
        {(void **)&e->q, input > rows ? input : rows},
        {(void **)&e->k, rows > wide ? rows : wide},
        {(void **)&e->v, rows},
        {&e->packed, packed},
        {&e->scratch, be->ops->attention_size(be, patches, c->n_heads, c->hidden_size / c->n_heads)},
        {&e->kv.k, tensor_bytes(be->encoder_type, n * (size_t)c->hidden_size)},
        {&e->kv.v, tensor_bytes(be->encoder_type, n * (size_t)c->hidden_size)},
        {(void **)&e->positions, n * sizeof(int)},
        {(void **)&e->lo, n * sizeof(int)},
        {(void **)&e->hi, n * sizeof(int)},
    };
    memcpy(wanted, all, sizeof all);
}

static int encoder_open(struct encoder *e, struct backend *be, const struct vision_config *c, void *work,
                        struct ward_error *err)
{
    struct buffer_request wanted[BUFFERS];
    encoder_shape(e, wanted, be, c);
    const size_t n = (size_t)e->patches;
    int *numbers = calloc(n, sizeof *numbers);
    if (!numbers)
        return error_no_memory(err, "the vision encoder", n * sizeof *numbers);
    if (!work) {
        const int rc = be->ops->alloc(be, &e->own, buffers_bytes(wanted, BUFFERS), "the vision encoder", err);
        if (rc) {
            free(numbers);
            return rc;
        }
    }
    buffers_place(work ? work : e->own, wanted, BUFFERS);
    be->ops->write(be, e->lo, numbers, n * sizeof *numbers);
    for (int i = 0; i < e->patches; i++)
        numbers[i] = i;
    be->ops->write(be, e->positions, numbers, n * sizeof *numbers);
    for (int i = 0; i < e->patches; i++)
        numbers[i] = e->patches;
    be->ops->write(be, e->hi, numbers, n * sizeof *numbers);
    free(numbers);
    return 0;
}

size_t vision_work_bytes(struct backend *be, const struct vision_config *config)
{
    struct encoder e;
    struct buffer_request wanted[BUFFERS];
    if (!config->n_layers)
        return 0;
    encoder_shape(&e, wanted, be, config);
    return buffers_bytes(wanted, BUFFERS);
}

/* hidden = patches through the convolution (a linear map of the pixels of a patch: channel, row, column) + positions */
static void embed_patches(struct encoder *e, const struct vision_weights *w, const float *patches)
{
    e->be->ops->write(e->be, e->q, patches, (size_t)e->patches * (size_t)w->patch.cols * sizeof *patches);
    const struct linear convolution = {.out = e->hidden, .w = &w->patch, .bias = w->patch_bias};
    e->be->ops->linear(e->be, e->q, e->patches, &convolution, 1, e->packed);
    e->be->ops->add_table(e->be, e->hidden, &w->position);
}

/* hidden += out(attention(norm1(hidden))) */
static void attention_block(struct encoder *e, const struct vision_layer *w)
{
    const struct vision_config *c = e->config;
    const struct backend_ops *ops = e->be->ops;
    const int head_dim = c->hidden_size / c->n_heads;
    ops->layer_norm(e->be, e->norm, e->hidden, w->norm1, w->norm1_bias, e->patches, c->hidden_size,
                    (float)c->layer_norm_eps);
    const struct linear qkv[] = {{.out = e->q, .w = &w->q, .bias = w->q_bias},
                                 {.out = e->k, .w = &w->k, .bias = w->k_bias},
                                 {.out = e->v, .w = &w->v, .bias = w->v_bias}};
    ops->linear(e->be, e->norm, e->patches, qkv, 3, e->packed);
    const struct heads heads = {.k = e->k, .v = e->v, .rows = e->patches, .to = &e->kv, .positions = e->positions};
    ops->store(e->be, &heads);
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
    };
    ops->attention(e->be, &attention);
    const struct linear output = {.out = e->q, .w = &w->out, .bias = w->out_bias};
    ops->linear(e->be, e->norm, e->patches, &output, 1, e->packed);
    ops->add(e->be, e->hidden, e->q, (size_t)e->patches * (size_t)c->hidden_size);
}

/* hidden += fc2(gelu(fc1(norm2(hidden)))) */
static void mlp_block(struct encoder *e, const struct vision_layer *w)
{
    const struct vision_config *c = e->config;
    const struct backend_ops *ops = e->be->ops;
    const size_t width = (size_t)c->hidden_size;
    float *const wide = e->k; /* [MLP_ROWS][F] */
    ops->layer_norm(e->be, e->norm, e->hidden, w->norm2, w->norm2_bias, e->patches, c->hidden_size,
                    (float)c->layer_norm_eps);
    for (int first = 0; first < e->patches; first += MLP_ROWS) {
        const int rows = e->patches - first < MLP_ROWS ? e->patches - first : MLP_ROWS;
        const struct linear fc1 = {.out = wide, .w = &w->fc1, .bias = w->fc1_bias};
        ops->linear(e->be, e->norm + (size_t)first * width, rows, &fc1, 1, e->packed);
        ops->gelu(e->be, wide, (size_t)rows * (size_t)c->intermediate_size);
        const struct linear fc2 = {.out = e->q + (size_t)first * width, .w = &w->fc2, .bias = w->fc2_bias};
        ops->linear(e->be, wide, rows, &fc2, 1, e->packed);
    }
    ops->add(e->be, e->hidden, e->q, (size_t)e->patches * width);
}

/* features = projector(norm(means of the patches over squares)) */
static void project(struct encoder *e, const struct model_config *config, const struct vision_weights *w,
                    float *features)
{
    const struct vision_config *c = e->config;
    const int side = c->image_size / c->patch_size, squares = (int)lround(sqrt((double)config->image_tokens));
    e->be->ops->pool(e->be, e->q, e->norm, side, side / squares, c->hidden_size);
    /* The projector's norm takes the eps of the vision encoder. */
    e->be->ops->rms_norm(e->be, e->q, e->q, w->projector_norm, config->image_tokens, c->hidden_size,
                         (float)c->layer_norm_eps, e->packed);
    const struct linear projector = {.out = features, .w = &w->projector};
    e->be->ops->linear(e->be, e->q, config->image_tokens, &projector, 1, e->packed);
}

int vision_encode(struct backend *be, const struct model_config *config, const struct vision_weights *weights,
                  const float *patches, float *features, void *work, int index, const struct observer *observer,
                  struct ward_error *err)
{
    const struct vision_config *c = &config->vision;
    struct encoder e;
    const int rc = encoder_open(&e, be, c, work, err);
    if (rc)
        return rc;
    embed_patches(&e, weights, patches);
    observe(observer, be, "vision.embeddings", -1, index, e.patches, c->hidden_size, e.hidden);
    for (int l = 0; l < c->n_layers; l++) {
        attention_block(&e, &weights->layers[l]);
        mlp_block(&e, &weights->layers[l]);
        observe(observer, be, "vision.layer", l, index, e.patches, c->hidden_size, e.hidden);
    }
    be->ops->layer_norm(be, e.norm, e.hidden, weights->post_norm, weights->post_norm_bias, e.patches, c->hidden_size,
                        (float)c->layer_norm_eps);
    observe(observer, be, "vision.output", -1, index, e.patches, c->hidden_size, e.norm);
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
