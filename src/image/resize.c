/* Pillow's antialiased bilinear resize in its fixed-point arithmetic (libImaging/Resample.c), so that every byte is
 * equal: a weighted sum along one axis, rounded to bytes, then along the other. */
#include "image/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_BITS = 22 };

/* Where each output pixel of one axis reads. */
struct taps {
    int *first;      /* [n] */
    int *count;      /* [n], at most `stride` */
    int32_t *weight; /* [n][stride], fixed point; they sum to about 1 << WEIGHT_BITS */
    int stride;
};

static void taps_free(struct taps *taps)
{
    free(taps->first);
    free(taps->count);
    free(taps->weight);
}

/* precompute_coeffs and normalize_coeffs_8bpc, step for step: rounding in another order moves single bytes. */
static int taps_make(struct taps *taps, int in, int out, struct ward_error *err)
{
    *taps = (struct taps){0};
    const double scale = (double)in / out;
    const double support = scale < 1.0 ? 1.0 : scale;
    taps->stride = (int)ceil(support) * 2 + 1; /* in is below 2^30 */
    size_t size;
    double *exact = NULL;
    if (!size_multiply((size_t)out, (size_t)taps->stride, &size) || !size_multiply(size, sizeof *taps->weight, &size))
        return error_set(err, WARD_EINVAL, "an image cannot be resized from %d to %d pixels a side", in, out);
    taps->first = malloc((size_t)out * sizeof *taps->first);
    taps->count = malloc((size_t)out * sizeof *taps->count);
    taps->weight = malloc(size);
    exact = malloc((size_t)taps->stride * sizeof *exact);
    if (!taps->first || !taps->count || !taps->weight || !exact) {
        taps_free(taps);
        free(exact);
        return error_no_memory(err, "resizing an image", size);
    }
    const double narrow = 1.0 / support;
    for (int o = 0; o < out; o++) {
        const double center = (o + 0.5) * scale;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        double sum = 0.0;
        for (int i = first; i < end; i++) {
            const double distance = fabs((i - center + 0.5) * narrow);
            exact[i - first] = distance < 1.0 ? 1.0 - distance : 0.0;
            sum += exact[i - first];
        }
        taps->first[o] = first;
        taps->count[o] = end - first;
        int32_t *weight = taps->weight + (size_t)o * (size_t)taps->stride;
        for (int i = 0; i < end - first; i++)
            weight[i] = (int32_t)(0.5 + (sum != 0.0 ? exact[i] / sum : exact[i]) * (1 << WEIGHT_BITS));
    }
    free(exact);
    return 0;
}

static uint8_t to_byte(int32_t sum)
{
    const int32_t value = sum >> WEIGHT_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* One pass: in [in_rows][in_width][3] -> out [out_rows][out_width][3]. Each task makes TASK_ROWS rows of the result. */
struct pass {
    const uint8_t *in;
    size_t in_width, out_width, out_rows;
    const struct taps *taps;
    uint8_t *out;
};

enum { TASK_ROWS = 16 };

static size_t task_end(const struct pass *p, size_t first)
{
    return first + TASK_ROWS < p->out_rows ? first + TASK_ROWS : p->out_rows;
}

/* Each row for itself. */
static void resize_rows(void *arg, int task, int thread)
{
    const struct pass *p = arg;
    const struct taps *taps = p->taps;
    const size_t first = (size_t)task * TASK_ROWS, end = task_end(p, first);
    const uint8_t *in = p->in + first * p->in_width * 3;
    uint8_t *out = p->out + first * p->out_width * 3;
    (void)thread;
    for (size_t y = first; y < end; y++, in += p->in_width * 3)
        for (size_t x = 0; x < p->out_width; x++, out += 3) {
            const uint8_t *pixel = in + (size_t)taps->first[x] * 3;
            const int32_t *weight = taps->weight + x * (size_t)taps->stride;
            int32_t r = 1 << (WEIGHT_BITS - 1), g = r, b = r;
            for (int i = 0; i < taps->count[x]; i++, pixel += 3) {
                r += pixel[0] * weight[i];
                g += pixel[1] * weight[i];
                b += pixel[2] * weight[i];
            }
            out[0] = to_byte(r);
            out[1] = to_byte(g);
            out[2] = to_byte(b);
        }
}

/* Whole rows are summed, a stretch at a time that stays in L1. */
static void resize_columns(void *arg, int task, int thread)
{
    enum { STRETCH = 2048 };
    int32_t sums[STRETCH];
    const struct pass *p = arg;
    const struct taps *taps = p->taps;
    const size_t row = p->in_width * 3, first = (size_t)task * TASK_ROWS, end = task_end(p, first);
    (void)thread;
    for (size_t y = first; y < end; y++) {
        const int32_t *weight = taps->weight + y * (size_t)taps->stride;
        for (size_t start = 0; start < row; start += STRETCH) {
            const size_t n = row - start < STRETCH ? row - start : STRETCH;
            const uint8_t *source = p->in + (size_t)taps->first[y] * row + start;
            for (size_t i = 0; i < n; i++)
                sums[i] = 1 << (WEIGHT_BITS - 1);
            for (int t = 0; t < taps->count[y]; t++, source += row)
                for (size_t i = 0; i < n; i++)
                    sums[i] += source[i] * weight[t];
            for (size_t i = 0; i < n; i++)
                p->out[y * row + start + i] = to_byte(sums[i]);
        }
    }
}

static void run_pass(struct pool *pool, pool_task_fn *fn, const uint8_t *in, size_t in_width, const struct taps *taps,
                     uint8_t *out, size_t out_width, size_t out_rows)
{
    struct pass p = {
        .in = in, .in_width = in_width, .out_width = out_width, .out_rows = out_rows, .taps = taps, .out = out};
    pool_run(pool, fn, &p, (int)((out_rows + TASK_ROWS - 1) / TASK_ROWS));
}

int image_resize(const struct ward_image *in, int out_width, int out_height, uint8_t *out, struct pool *pool,
                 struct ward_error *err)
{
    if (out_width < 1 || out_height < 1)
        return error_set(err, WARD_EINVAL, "an image cannot be resized to %d x %d pixels", out_width, out_height);
    const size_t w = (size_t)in->width, h = (size_t)in->height, ow = (size_t)out_width, oh = (size_t)out_height;
    if (w == ow && h == oh) {
        memcpy(out, in->rgb, w * h * 3);
        return 0;
    }
    /* Pillow 13 (pull request 9549): vertically first when the height shrinks by over twice what the width does. */
    const bool vertical_first = h > oh && (int64_t)h - (int64_t)oh > 2 * ((int64_t)w - (int64_t)ow);
    struct taps horizontal = {0}, vertical = {0};
    uint8_t *between = NULL;
    int rc = 0;
    if (w != ow)
        rc = taps_make(&horizontal, in->width, out_width, err);
    if (!rc && h != oh)
        rc = taps_make(&vertical, in->height, out_height, err);
    size_t size = 0;
    if (!rc && w != ow && h != oh) {
        if (!size_multiply(vertical_first ? w : ow, vertical_first ? oh : h, &size) || !size_multiply(size, 3, &size))
            rc = error_set(err, WARD_EINVAL, "an image cannot be resized to %d x %d pixels", out_width, out_height);
        else if (!(between = malloc(size)))
            rc = error_no_memory(err, "resizing an image", size);
    }
    if (rc)
        goto done;
    if (h == oh) {
        run_pass(pool, resize_rows, in->rgb, w, &horizontal, out, ow, h);
    } else if (w == ow) {
        run_pass(pool, resize_columns, in->rgb, w, &vertical, out, w, oh);
    } else if (vertical_first) {
        run_pass(pool, resize_columns, in->rgb, w, &vertical, between, w, oh);
        run_pass(pool, resize_rows, between, w, &horizontal, out, ow, oh);
    } else {
        run_pass(pool, resize_rows, in->rgb, w, &horizontal, between, ow, h);
        run_pass(pool, resize_columns, between, ow, &vertical, out, ow, oh);
    }
done:
    taps_free(&horizontal);
    taps_free(&vertical);
    free(between);
    return rc;
}
