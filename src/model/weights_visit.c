/* Every weight of a model, in the order of use. */
#include "model/weights.h"

static void visit_matrices(struct tensor *const *matrices, size_t n, const struct weights_visitor *v)
{
    for (size_t i = 0; i < n; i++)
        if (matrices[i]->data)
            v->matrix(v->user, matrices[i]);
}

struct vector {
    const float **at;
    int n;
};

static void visit_vectors(const struct vector *vectors, size_t n, const struct weights_visitor *v)
{
    for (size_t i = 0; v->vector && i < n; i++)
        if (*vectors[i].at)
            v->vector(v->user, vectors[i].at, vectors[i].n);
}

static void visit_vision(struct vision_weights *w, const struct vision_config *c, const struct weights_visitor *v)
{
    const int e = c->hidden_size, f = c->intermediate_size;
    struct tensor *const input[] = {&w->patch, &w->position};
    visit_matrices(input, 2, v);
    const struct vector outside[] = {
        {&w->patch_bias, e}, {&w->post_norm, e}, {&w->post_norm_bias, e}, {&w->projector_norm, e}};
    visit_vectors(outside, sizeof outside / sizeof *outside, v);
    for (int l = 0; l < c->n_layers; l++) {
        struct vision_layer *layer = &w->layers[l];
        struct tensor *const matrices[] = {&layer->q, &layer->k, &layer->v, &layer->out, &layer->fc1, &layer->fc2};
        const struct vector vectors[] = {{&layer->norm1, e},      {&layer->norm1_bias, e}, {&layer->norm2, e},
                                         {&layer->norm2_bias, e}, {&layer->q_bias, e},     {&layer->k_bias, e},
                                         {&layer->v_bias, e},     {&layer->out_bias, e},   {&layer->fc1_bias, f},
                                         {&layer->fc2_bias, e}};
        visit_matrices(matrices, sizeof matrices / sizeof *matrices, v);
        visit_vectors(vectors, sizeof vectors / sizeof *vectors, v);
    }
    struct tensor *const output[] = {&w->projector};
    visit_matrices(output, 1, v);
}

void weights_visit(struct weights *w, const struct model_config *config, const struct weights_visitor *v)
{
    const struct text_config *c = &config->text;
    if (config->vision.n_layers)
        visit_vision(&w->vision, &config->vision, v);
    for (int l = 0; l < c->n_layers; l++) {
        struct text_layer *layer = &w->text.layers[l];
        struct tensor *const matrices[] = {&layer->q,    &layer->k,  &layer->v,   &layer->o,
                                           &layer->gate, &layer->up, &layer->down};
        const struct vector vectors[] = {{&layer->input_norm, c->hidden_size},
                                         {&layer->post_attention_norm, c->hidden_size},
                                         {&layer->pre_feedforward_norm, c->hidden_size},
                                         {&layer->post_feedforward_norm, c->hidden_size},
                                         {&layer->q_norm, c->head_dim},
                                         {&layer->k_norm, c->head_dim}};
        visit_matrices(matrices, sizeof matrices / sizeof *matrices, v);
        visit_vectors(vectors, sizeof vectors / sizeof *vectors, v);
    }
    const struct vector norm = {&w->text.norm, c->hidden_size};
    visit_vectors(&norm, 1, v);
    struct tensor *const ends[] = {&w->text.head, &w->text.embed};
    visit_matrices(ends, 2, v);
}
