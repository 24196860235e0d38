#include "engine/placement.h"

#include "base/mapping.h"

#include <stdlib.h>
#include <string.h>

/* A weight after the other in one piece of memory: first counted, then copied. */
struct walk {
    struct backend *be;
    uint8_t *memory; /* NULL: only count */
    size_t bytes;
    const void *last; /* host memory of the last matrix, and where it went: a tied head and embedding are one */
    const void *last_placed;
    const struct tensor *in_memory; /* the projector, which lies in no file */
};

static void *take(struct walk *w, const struct tensor *t)
{
    void *at = w->memory ? w->memory + w->bytes : NULL;
    w->bytes += w->be->ops->placed_bytes(w->be, t);
    if (at)
        w->be->ops->place(w->be, at, t);
    return at;
}

static void matrix(void *user, struct tensor *t)
{
    struct walk *w = user;
    if (t->data != w->last) {
        w->last = t->data;
        w->last_placed = take(w, t);
        if (w->memory && t != w->in_memory) /* this process needs the pages no longer */
            mapping_release(t->data, (size_t)t->rows * tensor_row_bytes(t));
    }
    if (w->memory)
        t->data = w->last_placed;
}

static void vector(void *user, const float **v, int n)
{
    struct walk *w = user;
    const struct tensor t = {.data = *v, .type = TENSOR_F32, .rows = 1, .cols = n};
    const void *at = take(w, &t);
    if (w->memory)
        *v = at;
}

/* A copy of the structures, whose pointers can then be turned to the copies of what they point to. */
static int copy_layers(struct weights *to, const struct weights *from, const struct model_config *config,
                       struct ward_error *err)
{
    const size_t text = (size_t)config->text.n_layers * sizeof *from->text.layers;
    const size_t vision = (size_t)config->vision.n_layers * sizeof *from->vision.layers;
    *to = *from;
    to->text.layers = malloc(text);
    to->vision.layers = vision ? malloc(vision) : NULL;
    if (!to->text.layers || (vision && !to->vision.layers))
        return error_no_memory(err, "the weights", text + vision);
    memcpy(to->text.layers, from->text.layers, text);
    if (vision)
        memcpy(to->vision.layers, from->vision.layers, vision);
    return 0;
}

int placement_open(struct placement **out, struct backend *be, const struct weights *from,
                   const struct model_config *config, struct ward_error *err)
{
    *out = NULL;
    if (!be->ops->place)
        return 0;
    struct placement *p = calloc(1, sizeof *p);
    if (!p)
        return error_no_memory(err, "the weights", sizeof *p);
    p->be = be;
    int rc = copy_layers(&p->weights, from, config, err);
    struct walk walk = {.be = be};
    const struct weights_visitor visitor = {matrix, vector, &walk};
    if (!rc) {
        weights_visit(&p->weights, config, &visitor);
        p->bytes = walk.bytes;
        rc = be->ops->alloc(be, &p->memory, p->bytes, "the weights", err);
    }
    if (!rc) {
        walk = (struct walk){.be = be, .memory = p->memory, .in_memory = &p->weights.vision.projector};
        weights_visit(&p->weights, config, &visitor);
        rc = be->ops->finish(be, err);
    }
    if (rc)
        placement_close(&p);
    *out = p;
    return rc;
}

void placement_close(struct placement **placement)
{
    struct placement *p = *placement;
    if (!p)
        return;
    p->be->ops->release(p->be, p->memory);
    free(p->weights.text.layers);
    free(p->weights.vision.layers);
    free(p);
    *placement = NULL;
}
