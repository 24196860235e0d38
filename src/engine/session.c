#include "engine/session.h"

#include "base/clock.h"
#include "base/private.h"
#include "image/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of a prefill step: enough to read the weights seldom, few enough for small buffers. An image is never divided.
 * Where memory is scarce an image and its question are one step, and what a long conversation computes at once is less:
 * the rings of its windows are made for that. */
enum { DEFAULT_CONTEXT = 8192, CHUNK = 512, SCARCE_CHUNK = 384, SCARCE_ROOM = 256 };

static int at_once(const struct ward_model *model, int rows, int context)
{
    const int image = model->checkpoint.config.image_tokens, chunk = rows > image ? rows : image;
    return chunk < context ? chunk : context;
}

int session_chunk(const struct ward_model *model, int context)
{
    return at_once(model, model->backend->keeps_work ? SCARCE_CHUNK : CHUNK, context);
}

int session_room(const struct ward_model *model, int context)
{
    return at_once(model, model->backend->keeps_work ? SCARCE_ROOM : CHUNK, context);
}

static int allocate_host(struct ward_session *s, struct ward_error *err)
{
    const struct model_config *c = &s->model->checkpoint.config;
    const size_t pixels = 3 * (size_t)c->vision.image_size * (size_t)c->vision.image_size;
    const size_t images = c->image_tokens ? (size_t)(s->context / c->image_tokens) : 0;
    s->held = calloc((size_t)s->context, sizeof *s->held);
    s->held_images = calloc(images + 1, sizeof *s->held_images);
    s->logits = calloc((size_t)c->text.vocab_size, sizeof *s->logits);
    s->pixels = malloc(pixels + 1);
    s->patches = malloc((pixels + 1) * sizeof *s->patches);
    memory_keep_private(s->pixels, pixels);
    memory_keep_private(s->patches, pixels * sizeof *s->patches);
    if (!s->held || !s->held_images || !s->logits || !s->pixels || !s->patches)
        return error_no_memory(err, "the session", (size_t)s->context * sizeof *s->held + pixels * 5);
    return 0;
}

int ward_session_open(ward_session **out, const ward_model *model, const struct ward_session_options *options,
                      struct ward_error *err)
{
    *out = NULL;
    const struct model_config *c = &model->checkpoint.config;
    const int limit = c->text.max_positions;
    const int wanted = options ? options->context : 0;
    if (wanted < 0 || wanted > limit)
        return error_set(err, WARD_EINVAL, "a context of %d tokens was asked for; this checkpoint takes 1 to %d",
                         wanted, limit);
    struct ward_session *s = calloc(1, sizeof *s);
    if (!s)
        return error_no_memory(err, "the session", sizeof *s);
    s->model = model;
    speculator_init(&s->speculator);
    s->encode_always = options && options->encode_always;
    s->context = wanted ? wanted : limit < DEFAULT_CONTEXT ? limit : DEFAULT_CONTEXT;
    const int chunk = session_chunk(model, s->context);
    struct backend *be = model->backend;
    int rc = kv_open(&s->kv, be, &c->text, s->context, session_room(model, s->context), err);
    if (!rc)
        rc = text_open(&s->text, be, &c->text, &model->weights->text, chunk,
                       be->keeps_work ? vision_work_bytes(be, c) : 0, err);
    if (!rc)
        rc = sampler_open(&s->sampler, c->text.vocab_size, err);
    if (!rc && c->image_tokens) {
        void *features;
        rc = be->ops->alloc(be, &features, (size_t)c->image_tokens * (size_t)c->text.hidden_size * sizeof(float),
                            "image features", err);
        s->features = features;
    }
    if (!rc)
        rc = allocate_host(s, err);
    if (rc)
        ward_session_close(&s);
    *out = s;
    return rc;
}

void ward_session_close(ward_session **session)
{
    struct ward_session *s = *session;
    if (!s)
        return;
    struct backend *be = s->model->backend;
    be->ops->release(be, s->features);
    text_close(&s->text);
    kv_close(&s->kv, be);
    sampler_close(&s->sampler);
    free(s->held);
    free(s->held_images);
    free(s->pixels);
    free(s->patches);
    free(s->logits);
    free(s->top);
    free(s);
    *session = NULL;
}

void ward_session_observe(ward_session *s, ward_observe_fn *fn, void *user)
{
    s->observer = (struct observer){fn, user};
}

/* How many tokens of the prompt the cache can keep: the common beginning, whole images only, and always less than the
 * whole prompt, whose last token gives the logits. */
static int reusable(const struct ward_session *s, const struct prompt *p)
{
    const int image_tokens = s->model->checkpoint.config.image_tokens;
    int keep = 0, image = 0;
    while (keep < s->n_held && keep + 1 < (int)p->ids.n && s->held[keep] == p->ids.at[keep]) {
        if (image < p->n_images && p->images[image].first == keep) {
            const struct held_image *held = &s->held_images[image];
            if (image >= s->n_held_images || held->first != keep || keep + image_tokens >= (int)p->ids.n ||
                memcmp(held->hash, p->images[image].image->hash, sizeof held->hash) != 0)
                break;
            keep += image_tokens;
            image++;
        } else {
            keep++;
        }
    }
    return keep <= s->n_held && kv_can_rewind(&s->kv, keep) ? keep : 0;
}

static void forget_after(struct ward_session *s, int keep)
{
    s->n_held = keep;
    while (s->n_held_images && s->held_images[s->n_held_images - 1].first >= keep)
        s->n_held_images--;
}

static int run_encoder(struct ward_session *s, const struct ward_image *image, int index, struct prefill_report *report,
                       struct ward_error *err)
{
    const struct model_config *c = &s->model->checkpoint.config;
    struct pool *const pool = s->model->backend->pool;
    const int size = c->vision.image_size;
    const double start = clock_ms();
    if (c->image.resize) {
        const int rc = image_resize(image, size, size, s->pixels, pool, err);
        if (rc)
            return rc;
    } else if (image->width == size && image->height == size) {
        memcpy(s->pixels, image->rgb, 3 * (size_t)size * (size_t)size);
    } else {
        return error_set(err, WARD_EUNSUPPORTED,
                         "the image is %d x %d pixels; this checkpoint does not resize and takes %d x %d", image->width,
                         image->height, size, size);
    }
    static const double zeros[3] = {0, 0, 0}, ones[3] = {1, 1, 1};
    image_patches(s->pixels, size, c->vision.patch_size, c->image.rescale ? c->image.rescale_factor : 1,
                  c->image.normalize ? c->image.mean : zeros, c->image.normalize ? c->image.std : ones, s->patches,
                  pool);
    const double resized = clock_ms();
    const int rc = vision_encode(s->model->backend, c, &s->model->weights->vision, s->patches, s->features,
                                 s->model->backend->keeps_work ? s->text.b.memory : NULL, index, &s->observer, err);
    vision_rest(&c->vision, &s->model->checkpoint.weights->vision);
    report->image_ms += resized - start;
    report->vision_ms += clock_ms() - resized;
    return rc;
}

/* The features of an image, into s->features. An observer wants to see how they come about. */
static int encode_image(struct ward_session *s, const struct ward_image *image, int index,
                        struct prefill_report *report, struct ward_error *err)
{
    const struct ward_model *m = s->model;
    const bool cached = !s->encode_always && !s->observer.fn;
    if (cached && image_cache_get(m->images, image->hash, m->backend, s->features)) {
        report->cached_images++;
        return 0;
    }
    const int rc = run_encoder(s, image, index, report, err);
    if (!rc && cached)
        image_cache_put(m->images, image->hash, m->backend, s->features);
    return rc;
}

static int report_progress(const struct ward_generate_options *o, const char *stage, int done, int total,
                           struct ward_error *err)
{
    if (o->on_progress && o->on_progress(o->user, stage, done, total))
        return error_set(err, WARD_ECANCELLED, "cancelled");
    return 0;
}

/* The end of the chunk that begins at `first`: at most one image, which is not divided. */
static int chunk_end(const struct ward_session *s, const struct prompt *p, int first, int next_image)
{
    const int n = (int)p->ids.n, image_tokens = s->model->checkpoint.config.image_tokens;
    const int room = kv_room(&s->kv, first), most = room < s->text.b.rows ? room : s->text.b.rows;
    int end = n - first < most ? n : first + most;
    if (next_image < p->n_images && p->images[next_image].first + image_tokens > end &&
        p->images[next_image].first < end)
        end = p->images[next_image].first;
    if (next_image + 1 < p->n_images && p->images[next_image + 1].first < end)
        end = p->images[next_image + 1].first;
    return end;
}

/* Computes the chunk at s->n_held, which holds at most the image `next_image`. */
static int prefill_chunk(struct ward_session *s, const struct prompt *p, int next_image, int end,
                         struct prefill_report *report, struct ward_error *err)
{
    const int first = s->n_held;
    struct text_image image = {0};
    const bool has_image = next_image < p->n_images && p->images[next_image].first < end;
    if (has_image) {
        const int rc = encode_image(s, p->images[next_image].image, next_image, report, err);
        if (rc)
            return rc;
        image = (struct text_image){p->images[next_image].first, s->model->checkpoint.config.image_tokens, s->features};
    }
    const double start = clock_ms();
    text_forward(&s->text, &s->kv, p->ids.at + first, first, end - first, &image, has_image, &s->observer);
    const int rc = s->model->backend->ops->finish(s->model->backend, err);
    if (rc)
        return rc;
    memcpy(s->held + first, p->ids.at + first, (size_t)(end - first) * sizeof *s->held);
    s->n_held = end;
    if (has_image) {
        struct held_image *held = &s->held_images[s->n_held_images++];
        held->first = image.first;
        memcpy(held->hash, p->images[next_image].image->hash, sizeof held->hash);
    }
    report->computed_tokens += end - first;
    report->prefill_ms += clock_ms() - start;
    return 0;
}

/* The logits of row `row` of the last text_logits, softcapped as the config says, to host memory; or what the backend
 * has chosen by them. */
static int fetch_logits(struct ward_session *s, int row, struct ward_error *err)
{
    const struct text_config *c = &s->model->checkpoint.config.text;
    struct backend *be = s->model->backend;
    const size_t vocab = (size_t)c->vocab_size;
    s->row = row;
    s->choice.id = -1;
    if (s->choose) {
        be->ops->read(be, &s->choice, &s->text.b.choices[row], sizeof s->choice);
        const int rc = be->ops->finish(be, err);
        if (rc || s->choice.id >= 0)
            return rc;
    }
    be->ops->read(be, s->logits, s->text.b.logits + (size_t)row * vocab, vocab * sizeof *s->logits);
    if (c->final_softcap > 0) {
        const float cap = (float)c->final_softcap;
        for (size_t i = 0; i < vocab; i++)
            s->logits[i] = cap * tanhf(s->logits[i] / cap);
    }
    return be->ops->finish(be, err);
}

/* Says how the tokens of the next step's rows are chosen. Row r is drawn by the number that comes after those of the
 * rows before it: it is asked for when they have been taken, or not at all. */
static void prepare_draws(struct ward_session *s, int rows)
{
    s->text.drawn = s->choose && s->sampling.temperature > 0;
    for (int r = 0; s->text.drawn && r < rows; r++)
        s->text.draws[r] = (struct draw){sample_number(&s->sampler, r), s->sampling};
}

int session_prefill(struct ward_session *s, const struct prompt *p, const struct ward_generate_options *options,
                    struct prefill_report *report, struct ward_error *err)
{
    *report = (struct prefill_report){0};
    if ((int)p->ids.n >= s->context)
        return error_set(err, WARD_ECONTEXT,
                         "the prompt has %zu tokens; with room for an answer a context of %d takes at most %d",
                         p->ids.n, s->context, s->context - 1);
    s->n_ahead = 0;
    prepare_draws(s, 1);
    speculator_begin(&s->speculator);
    forget_after(s, reusable(s, p));
    report->cached_tokens = s->n_held;
    int image = s->n_held_images, rows = 0;
    while (s->n_held < (int)p->ids.n) {
        int rc = report_progress(options, "prefill", s->n_held, (int)p->ids.n, err);
        const int end = chunk_end(s, p, s->n_held, image);
        rows = end - s->n_held;
        const bool has_image = image < p->n_images && p->images[image].first < end;
        if (!rc && has_image)
            rc = report_progress(options, "image", image, p->n_images, err);
        if (!rc)
            rc = prefill_chunk(s, p, image, end, report, err);
        if (rc)
            return rc;
        image += has_image;
    }
    const double start = clock_ms();
    text_logits(&s->text, rows - 1, 1, s->n_held - 1, &s->observer);
    const int rc = fetch_logits(s, 0, err);
    report->prefill_ms += clock_ms() - start;
    return rc ? rc : report_progress(options, "prefill", s->n_held, (int)p->ids.n, err);
}

int session_step(struct ward_session *s, int32_t id, int draft_most, bool always, int *drafted, struct ward_error *err)
{
    *drafted = 0;
    if (s->n_ahead && s->held[s->n_held] == id) {
        s->n_ahead--;
        s->n_held++;
        return fetch_logits(s, s->row + 1, err);
    }
    speculator_note_hits(&s->speculator, s->row);
    const double start = clock_ms();
    const int position = s->n_held, room = s->context - position - 1;
    s->held[s->n_held++] = id;
    s->n_ahead = speculator_draft(&s->speculator, s->held, s->n_held, draft_most < room ? draft_most : room, always,
                                  s->model->checkpoint.config.image_token);
    prepare_draws(s, 1 + s->n_ahead);
    text_step(&s->text, &s->kv, s->held + position, position, 1 + s->n_ahead, &s->observer);
    const int rc = fetch_logits(s, 0, err);
    speculator_note_step(&s->speculator, clock_ms() - start);
    *drafted = s->n_ahead;
    return rc;
}
