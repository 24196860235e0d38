#include "bench_compare.h"
#include "cli.h"

#include "bench/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double P_MOST = 0.01, LEAST = 0.03, LEAST_OF_WHOLE = 0.005, BUSY = 0.05, LEAST_BUSY = 1;

struct values {
    double *at;
    size_t n;
};

static struct values values_of(const struct json *result, const char *path)
{
    const struct json *list = at(result, path);
    struct values v = {0};
    if (!list || list->type != JSON_ARRAY)
        return v;
    v.at = must_realloc(NULL, list->n, sizeof *v.at);
    for (const struct json *value = list->first; value; value = value->next)
        v.n += json_number(value, &v.at[v.n]);
    return v;
}

/* Whether so few runs could reach P_MOST at all: the most uneven of all orders has p = 2 / (n over n_a). */
static bool too_few(size_t a, size_t b)
{
    double p = 2;
    for (size_t i = 1; i <= a; i++)
        p *= (double)i / (double)(b + i);
    return p > P_MOST;
}

/* whole: the median of the whole answer, ms. */
static const char *judge(const struct values *a, const struct values *b, double whole, bool busy, double *change,
                         double *p)
{
    const struct stats x = stats_of(a->at, a->n), y = stats_of(b->at, b->n);
    const double difference = y.p50 - x.p50, size = fabs(difference);
    *change = x.p50 > 0 ? difference / x.p50 : NAN;
    *p = stats_mann_whitney(a->at, a->n, b->at, b->n);
    if (!a->n || !b->n)
        return "not in both";
    if (too_few(a->n, b->n))
        return "too few runs";
    const double spread = x.p75 - x.p25 + y.p75 - y.p25, part = size / fmin(x.p50, y.p50);
    if (*p >= P_MOST || !(part > LEAST) || size <= spread || size <= LEAST_OF_WHOLE * whole)
        return "no difference";
    if (busy && part <= LEAST_BUSY)
        return "unsure: busy";
    return difference > 0 ? "slower" : "faster";
}

static void add_figure(struct table *t, const struct json *a, const struct json *b, const char *name, const char *path,
                       double whole, bool busy)
{
    char text[VIEW_TEXT], runs[96];
    double change, p;
    snprintf(runs, sizeof runs, "%s.runs", path);
    struct values x = values_of(a, runs), y = values_of(b, runs);
    if (x.n || y.n) {
        const char *verdict = judge(&x, &y, whole, busy, &change, &p);
        table_cell(t, name);
        table_cell(t, show_number(text, number_at(at(a, path), "p50")));
        table_cell(t, show_number(text, number_at(at(b, path), "p50")));
        if (isnan(change))
            table_cell(t, "-");
        else
            table_cellf(t, "%+.1f %%", 100 * change);
        table_cellf(t, p < 0.0001 ? "< 0.0001" : "%.4f", p);
        table_cell(t, verdict);
    }
    free(x.at);
    free(y.at);
}

/* Memory does not scatter: what grew by more than a page cache's whim is told. */
static void add_memory(struct table *t, const struct json *a, const struct json *b, const char *name, const char *path)
{
    enum { LEAST_BYTES = 16 << 20 };
    const double x = number_at(a, path), y = number_at(b, path);
    if (isnan(x) || isnan(y))
        return;
    const bool differs = fabs(y - x) > LEAST * x && fabs(y - x) > LEAST_BYTES;
    table_cell(t, name);
    table_cellf(t, "%.1f", x / (1 << 20));
    table_cellf(t, "%.1f", y / (1 << 20));
    table_cellf(t, "%+.1f %%", x > 0 ? 100 * (y - x) / x : 0);
    table_cell(t, "-");
    table_cell(t, differs ? y > x ? "more" : "less" : "no difference");
}

/* Whether other programs used the machine while either was measured, or it was too short to tell. */
static bool was_busy(const struct json *a, const struct json *b)
{
    return !(number_at(a, "machine.others_busy") <= BUSY && number_at(b, "machine.others_busy") <= BUSY);
}

static bool same_number(const struct json *a, const struct json *b, const char *path)
{
    const double x = number_at(a, path), y = number_at(b, path);
    return (isnan(x) && isnan(y)) || fabs(x - y) < 0.5;
}

/* As far as the settings go; the models may differ. */
static bool same_test(const struct json *a, const struct json *b)
{
    return true_at(a, "test.image") == true_at(b, "test.image") && same_number(a, b, "test.prompt_tokens_asked") &&
           same_number(a, b, "test.max_tokens") && true_at(a, "test.fixed") == true_at(b, "test.fixed") &&
           same_number(a, b, "threads") && strcmp(text_at(a, "device"), text_at(b, "device")) == 0;
}

static bool same_model(const struct json *a, const struct json *b)
{
    return strcmp(text_at(a, "model.name"), text_at(b, "model.name")) == 0 &&
           strcmp(text_at(a, "model.type"), text_at(b, "model.type")) == 0;
}

/* What makes the comparison one of other things than the program. */
static void explain(char *out, size_t room, const struct json *a, const struct json *b, const struct json *ra,
                    const struct json *rb)
{
    size_t n = 0;
    out[0] = '\0';
    static const struct {
        const char *path, *what;
    } texts[] = {{"environment.cpu", "processors"}, {"protocol.image.sha256", "images"},
                 {"protocol.prompt.sha256", "questions"}, {"ward", "versions of ward"}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(text_at(a, texts[i].path), text_at(b, texts[i].path)) != 0 && n < room)
            n += (size_t)snprintf(out + n, room - n, "The %s differ. ", texts[i].what);
    if (!same_model(ra, rb) && n < room)
        n += (size_t)snprintf(out + n, room - n, "The models differ. ");
    if (strcmp(text_at(ra, "kernels"), text_at(rb, "kernels")) != 0 && n < room)
        n += (size_t)snprintf(out + n, room - n, "The kernels differ. ");
    if (fabs(number_at(ra, "tokens.mean") - number_at(rb, "tokens.mean")) > 0.5 && n < room)
        n += (size_t)snprintf(out + n, room - n, "The answers differ in length: %.1f and %.1f tokens. ",
                              number_at(ra, "tokens.mean"), number_at(rb, "tokens.mean"));
    if (was_busy(ra, rb) && n < room)
        n += (size_t)snprintf(out + n, room - n, "The machine was busy: differences may be other programs'. ");
    if (n && n < room)
        out[n - 1] = '\0';
}

static void add_pair(struct tables *out, const struct json *a, const struct json *b, const struct json *ra,
                     const struct json *rb)
{
    static const struct {
        const char *name, *path;
    } figures[] = {
        {"whole answer, ms", "latency_ms"},      {"to first token, ms", "ttft_ms"},
        {"open, warm, ms", "stages.open.warm_ms"}, {"image, ms", "stages.image"},
        {"vision, ms", "stages.vision"},         {"prefill, ms", "stages.prefill"},
        {"first token, ms", "stages.first_token"}, {"further tokens, ms", "stages.decode"},
    };
    char test[VIEW_TEXT], title[256], text[512];
    snprintf(title, sizeof title, "%.60s %s against %.60s %s: %s", text_at(ra, "model.name"), text_at(ra, "model.type"),
             text_at(rb, "model.name"), text_at(rb, "model.type"), show_test(test, ra));
    struct table *t =
        tables_add(out, title, (const char *const[]){"figure", "A, P50", "B, P50", "change", "p", "verdict", NULL});
    const double whole = fmin(number_at(ra, "latency_ms.p50"), number_at(rb, "latency_ms.p50"));
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        add_figure(t, ra, rb, figures[i].name, figures[i].path, whole, was_busy(ra, rb));
    add_memory(t, ra, rb, "memory, inference, MiB", "memory.steady.resident");
    add_memory(t, ra, rb, "memory, private, MiB", "memory.steady.anonymous");
    explain(text, sizeof text, a, b, ra, rb);
    if (*text)
        table_note(t, text);
}

void bench_compare(struct tables *out, const struct json *a, const struct json *b)
{
    const struct json *list_a = json_get(a, "results"), *list_b = json_get(b, "results");
    *out = (struct tables){0};
    for (const struct json *ra = list_a ? list_a->first : NULL; ra; ra = ra->next) {
        const struct json *match = NULL;
        for (const struct json *rb = list_b ? list_b->first : NULL; rb && !match; rb = rb->next)
            if (same_test(ra, rb) && same_model(ra, rb))
                match = rb;
        if (!match && list_a->n == 1 && list_b && list_b->n == 1 && same_test(ra, list_b->first))
            match = list_b->first;
        if (match)
            add_pair(out, a, b, ra, match);
    }
}
