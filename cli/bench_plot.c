#include "bench_plot.h"
#include "cli.h"

#include <math.h>
#include <stdlib.h>

const char *const plot_stages[PLOT_STAGES] = {"image", "vision", "prefill", "first_token", "decode"};
const char *const plot_stage_names[PLOT_STAGES] = {
    "image", "vision encoder", "prefill", "first token", "further tokens"};

/* The area of a plot within its picture, and the figures that its borders stand for; every axis begins at `low`. */
enum { WIDTH = 480, HEIGHT = 250, LEFT = 58, RIGHT = 14, TOP = 26, BOTTOM = 40 };
struct axes {
    double x_low, x_high, y_high;
};

static double place_x(const struct axes *a, double x)
{
    return LEFT + (x - a->x_low) / (a->x_high - a->x_low) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct axes *a, double y)
{
    return HEIGHT - BOTTOM - y / a->y_high * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2 or 5 times a power of ten, so that there are about `most` steps. */
static double nice_step(double range, int most)
{
    const double raw = range / most, power = pow(10, floor(log10(raw))), lead = raw / power;
    return power * (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10);
}

static void begin(FILE *out, const char *title, const char *description)
{
    fprintf(out, "<figure><figcaption>%s</figcaption>\n", title);
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", WIDTH, HEIGHT, description);
}

static void end(FILE *out)
{
    fputs("</svg></figure>\n", out);
}

/* Lines across, figures beside and below them. */
static void draw_axes(FILE *out, struct axes *a, const char *x_name, const char *y_name, double x_step)
{
    char text[VIEW_TEXT];
    const double step = nice_step(a->y_high, 5);
    a->y_high = ceil(a->y_high / step) * step;
    for (double y = 0; y <= a->y_high * 1.0001; y += step) {
        snprintf(text, sizeof text, "%.10g", y);
        fprintf(out, "<path class=\"%s\" d=\"M%d %.1fH%d\"/><text class=\"n\" x=\"%d\" y=\"%.1f\">%s</text>\n",
                y > 0 ? "grid" : "axis", LEFT, place_y(a, y), WIDTH - RIGHT, LEFT - 7, place_y(a, y) + 4, text);
    }
    for (double x = ceil(a->x_low / x_step) * x_step; x <= a->x_high * 1.0001; x += x_step)
        fprintf(out, "<text class=\"m\" x=\"%.1f\" y=\"%d\">%.10g</text>\n", place_x(a, x), HEIGHT - BOTTOM + 16, x);
    fprintf(out, "<text class=\"m u\" x=\"%d\" y=\"%d\">%s</text><text class=\"u\" x=\"4\" y=\"11\">%s</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_name, y_name);
}

/* The numbers of an array; *n of them. free() it. */
static double *numbers(const struct json *object, const char *path, size_t *n)
{
    const struct json *list = at(object, path);
    *n = 0;
    if (!list || list->type != JSON_ARRAY || !list->n)
        return NULL;
    double *out = must_realloc(NULL, list->n, sizeof *out);
    for (const struct json *value = list->first; value; value = value->next)
        if (json_number(value, &out[*n]))
            ++*n;
    return out;
}

void plot_runs(FILE *out, const struct json *result)
{
    double *parts[PLOT_STAGES], *whole;
    size_t n, n_parts[PLOT_STAGES];
    const double target = number_at(result, "target.ms");
    whole = numbers(result, "latency_ms.runs", &n);
    if (!n) {
        free(whole);
        return;
    }
    struct axes a = {0.5, (double)n + 0.5, 0};
    for (size_t i = 0; i < n; i++)
        a.y_high = fmax(a.y_high, whole[i]);
    const bool near = target > 0 && target < 3 * a.y_high;
    a.y_high = fmax(1e-3, near ? fmax(a.y_high, target) : a.y_high);
    begin(out, "Latency of each run", "latency of each run, divided into stages");
    draw_axes(out, &a, "run", "ms", n <= 15 ? 1 : nice_step((double)n, 8));
    const double wide = fmin(34, (WIDTH - LEFT - RIGHT) / (double)n * 0.72);
    for (int s = 0; s < PLOT_STAGES; s++) {
        char path[64];
        snprintf(path, sizeof path, "stages.%s.runs", plot_stages[s]);
        parts[s] = numbers(result, path, &n_parts[s]);
    }
    for (size_t i = 0; i < n; i++) {
        double below = 0;
        for (int s = 0; s < PLOT_STAGES; s++) {
            const double part = i < n_parts[s] ? parts[s][i] : 0, top = place_y(&a, below + part);
            if (part > 0)
                fprintf(out, "<rect class=\"s%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", s,
                        place_x(&a, (double)(i + 1)) - wide / 2, top, wide, place_y(&a, below) - top);
            below += part;
        }
        fputs("\n", out);
    }
    if (near)
        fprintf(out, "<path class=\"target\" d=\"M%d %.1fH%d\"/>"
                     "<text class=\"n target\" x=\"%d\" y=\"%.1f\">target</text>\n",
                LEFT, place_y(&a, target), WIDTH - RIGHT, WIDTH - RIGHT, place_y(&a, target) - 4);
    end(out);
    for (int s = 0; s < PLOT_STAGES; s++)
        free(parts[s]);
    free(whole);
}

void plot_stage_bar(FILE *out, const struct json *result)
{
    double parts[PLOT_STAGES], sum = 0;
    for (int s = 0; s < PLOT_STAGES; s++) {
        char path[64];
        snprintf(path, sizeof path, "stages.%s.mean", plot_stages[s]);
        parts[s] = number_at(result, path);
        sum += parts[s] > 0 ? parts[s] : 0;
    }
    if (!(sum > 0))
        return;
    fputs("<figure><figcaption>Where the time goes, mean</figcaption>\n"
          "<svg viewBox=\"0 0 480 36\" role=\"img\" aria-label=\"the stages of an answer as parts of a bar\">\n", out);
    double at_x = 0;
    for (int s = 0; s < PLOT_STAGES; s++) {
        const double wide = parts[s] > 0 ? parts[s] / sum * WIDTH : 0;
        if (wide > 0)
            fprintf(out, "<rect class=\"s%d\" x=\"%.2f\" y=\"4\" width=\"%.2f\" height=\"28\"/>", s, at_x, wide);
        at_x += wide;
    }
    fputs("\n</svg>\n<ul class=\"legend\">\n", out);
    for (int s = 0; s < PLOT_STAGES; s++) {
        char ms[VIEW_TEXT];
        if (parts[s] > 0)
            fprintf(out, "<li><i class=\"b%d\"></i>%s <b>%s ms</b> <span>%.1f %%</span></li>\n", s, plot_stage_names[s],
                    show_number(ms, parts[s]), 100 * parts[s] / sum);
    }
    fputs("</ul></figure>\n", out);
}

/* The area from 0 to a line of points. */
static void draw_area(FILE *out, const struct axes *a, const double *x, const double *y, size_t n, const char *class)
{
    fprintf(out, "<path class=\"%s\" d=\"M%.1f %.1f", class, place_x(a, x[0]), place_y(a, 0));
    for (size_t i = 0; i < n; i++)
        fprintf(out, "L%.1f %.1f", place_x(a, x[i]), place_y(a, y[i]));
    fprintf(out, "V%.1fZ\"/>\n", place_y(a, 0));
}

void plot_memory(FILE *out, const struct json *result)
{
    size_t n, n_resident, n_private;
    double *ms = numbers(result, "memory.series.ms", &n);
    double *resident = numbers(result, "memory.series.resident", &n_resident);
    double *private = numbers(result, "memory.series.anonymous", &n_private);
    if (n > 1 && n == n_resident && n == n_private && ms[n - 1] > ms[0]) {
        double most = 0;
        for (size_t i = 0; i < n; i++)
            most = fmax(most, resident[i]);
        const bool large = most >= 1e9;
        const double unit = large ? 1 << 30 : 1 << 20;
        for (size_t i = 0; i < n; i++) {
            ms[i] /= 1e3;
            resident[i] /= unit;
            private[i] /= unit;
        }
        struct axes a = {ms[0], ms[n - 1], fmax(most / unit, 1e-3)};
        begin(out, "Memory over time", "resident memory over time: private, and mapped files above it");
        draw_axes(out, &a, "seconds since opening", large ? "GiB" : "MiB", nice_step(a.x_high - a.x_low, 7));
        draw_area(out, &a, ms, resident, n, "mapped");
        draw_area(out, &a, ms, private, n, "private");
        end(out);
        fputs("<ul class=\"legend\"><li><i class=\"bm\"></i>mapped files</li>"
              "<li><i class=\"bp\"></i>private</li></ul>\n", out);
    }
    free(ms);
    free(resident);
    free(private);
}

void plot_decode(FILE *out, const struct json *result)
{
    const struct json *curve = at(result, "decode_curve"), *point = curve ? curve->first : NULL;
    if (!point || curve->n < 2)
        return;
    struct axes a = {number_at(point, "context"), 0, 0};
    for (; point; point = point->next) {
        a.x_high = fmax(a.x_high, number_at(point, "context"));
        a.y_high = fmax(a.y_high, number_at(point, "tps"));
    }
    if (!(a.x_high > a.x_low) || !(a.y_high > 0))
        return;
    begin(out, "Decoding as the conversation grows", "tokens a second over the length of the conversation");
    draw_axes(out, &a, "tokens in the conversation", "tokens/s", nice_step(a.x_high - a.x_low, 7));
    fputs("<polyline class=\"line\" points=\"", out);
    for (point = curve->first; point; point = point->next)
        if (!isnan(number_at(point, "tps")))
            fprintf(out, "%.1f,%.1f ", place_x(&a, number_at(point, "context")), place_y(&a, number_at(point, "tps")));
    fputs("\"/>\n", out);
    end(out);
}
