/* The tables of `ward bench`, out of its JSON. */
#include "bench_view.h"
#include "cli.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ----------------------------------------------------------------------------------------------------- */

const struct json *at(const struct json *object, const char *path)
{
    char key[64];
    while (object && *path) {
        const size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        object = json_get(object, key);
        path += n + (path[n] == '.');
    }
    return object;
}

double number_at(const struct json *object, const char *path)
{
    double value;
    return json_number(at(object, path), &value) ? value : NAN;
}

const char *text_at(const struct json *object, const char *path)
{
    const struct json *value = at(object, path);
    return value && value->type == JSON_STRING ? value->text : "-";
}

bool true_at(const struct json *object, const char *path)
{
    const struct json *value = at(object, path);
    return value && value->type == JSON_TRUE;
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

const char *show_number(char out[VIEW_TEXT], double value)
{
    const double size = fabs(value);
    if (isnan(value))
        return "-";
    snprintf(out, VIEW_TEXT, "%.*f", size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 || size <= 0 ? 2 : 3, value);
    return out;
}

const char *show_bytes(char out[VIEW_TEXT], double bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB"};
    int unit = 0;
    if (isnan(bytes))
        return "-";
    if (bytes < 1)
        return "0";
    for (bytes /= 1024; bytes >= 1000 && unit < 2; unit++)
        bytes /= 1024;
    snprintf(out, VIEW_TEXT, "%.*f %s", bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2, bytes, units[unit]);
    return out;
}

const char *show_test(char out[VIEW_TEXT], const struct json *result)
{
    char in[VIEW_TEXT];
    const double most = number_at(result, "test.max_tokens"), prompt = number_at(result, "test.prompt_tokens");
    int n = snprintf(out, VIEW_TEXT, "%s%.20s in", true_at(result, "test.image") ? "image, " : "",
                     isnan(prompt) ? "?" : (snprintf(in, sizeof in, "%.0f", prompt), in));
    if (most > 0 && n < VIEW_TEXT)
        snprintf(out + n, (size_t)(VIEW_TEXT - n), ", %s%.0f out", true_at(result, "test.fixed") ? "" : "up to ", most);
    return out;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

struct table *tables_add(struct tables *tables, const char *title, const char *const *heads)
{
    tables->at = must_realloc(tables->at, tables->n + 1, sizeof *tables->at);
    struct table *t = &tables->at[tables->n++];
    *t = (struct table){.title = must_strndup(title, strlen(title))};
    for (; heads[t->n_heads]; t->n_heads++) {
        t->heads = must_realloc(t->heads, t->n_heads + 1, sizeof *t->heads);
        t->heads[t->n_heads] = must_strndup(heads[t->n_heads], strlen(heads[t->n_heads]));
    }
    return t;
}

void table_cell(struct table *t, const char *text)
{
    t->cells = must_realloc(t->cells, t->n_cells + 1, sizeof *t->cells);
    t->cells[t->n_cells++] = must_strndup(text, strlen(text));
}

void table_cellf(struct table *t, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    table_cell(t, text);
}

void table_note(struct table *t, const char *text)
{
    t->note = must_strndup(text, strlen(text));
}

static void number_cell(struct table *t, const struct json *object, const char *path)
{
    char out[VIEW_TEXT];
    table_cell(t, show_number(out, number_at(object, path)));
}

static void bytes_cell(struct table *t, const struct json *object, const char *path)
{
    char out[VIEW_TEXT];
    table_cell(t, show_bytes(out, number_at(object, path)));
}

static void mean_cell(struct table *t, const struct json *stats)
{
    char mean[VIEW_TEXT], std[VIEW_TEXT];
    const double value = number_at(stats, "mean");
    if (isnan(value))
        table_cell(t, "-");
    else
        table_cellf(t, "%s ± %s", show_number(mean, value), show_number(std, number_at(stats, "std")));
}

static void verdict_cell(struct table *t, const struct json *row)
{
    const struct json *pass = at(row, "pass");
    table_cell(t, !pass ? "-" : pass->type == JSON_TRUE ? "PASS" : "FAIL");
}

void tables_free(struct tables *tables)
{
    for (size_t i = 0; i < tables->n; i++) {
        struct table *t = &tables->at[i];
        for (size_t k = 0; k < t->n_heads; k++)
            free(t->heads[k]);
        for (size_t k = 0; k < t->n_cells; k++)
            free(t->cells[k]);
        free(t->heads);
        free(t->cells);
        free(t->title);
        free(t->note);
    }
    free(tables->at);
    *tables = (struct tables){0};
}

bool table_is_numeric(const struct table *t, size_t column)
{
    bool any = false;
    for (size_t i = column; i < t->n_cells; i += t->n_heads) {
        const char c = t->cells[i][0];
        if (strcmp(t->cells[i], "-") == 0)
            continue;
        if (c < '0' || c > '9')
            return false;
        any = true;
    }
    return any;
}

/* ---- what is in them --------------------------------------------------------------------------------------------- */

#define HEADS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct json *first_result(const struct json *document)
{
    const struct json *results = json_get(document, "results");
    return results ? results->first : NULL;
}

static void integer_cell(struct table *t, const struct json *object, const char *path)
{
    const double value = number_at(object, path);
    if (isnan(value))
        table_cell(t, "-");
    else
        table_cellf(t, "%.0f", value);
}

static void add_measured(struct tables *tables, const struct json *document)
{
    struct table *t = tables_add(
        tables, "Measured", HEADS("#", "model", "weights", "size", "device", "kernels", "threads", "test", "runs"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        char out[VIEW_TEXT];
        const struct json *runs = at(r, "latency_ms.runs");
        table_cellf(t, "%d", i);
        table_cellf(t, "%s%s", text_at(r, "model.name"), true_at(r, "model.random_weights") ? " (random weights)" : "");
        table_cell(t, text_at(r, "model.type"));
        bytes_cell(t, r, "model.bytes");
        table_cell(t, text_at(r, "device"));
        table_cell(t, text_at(r, "kernels"));
        integer_cell(t, r, "threads");
        table_cell(t, show_test(out, r));
        table_cellf(t, "%zu%s", runs ? runs->n : 0, true_at(r, "complete") ? "" : ", interrupted");
    }
}

static void add_latency(struct tables *tables, const struct json *document)
{
    struct table *t = tables_add(
        tables, "Latency of a whole answer, ms",
        HEADS("#", "mean ± std", "P50", "P95", "min", "max", "tokens out", "target", "verdict"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        static const char *const figures[] = {"p50", "p95", "min", "max"};
        const double stopped = number_at(r, "tokens.stopped");
        table_cellf(t, "%d", i);
        mean_cell(t, at(r, "latency_ms"));
        for (size_t k = 0; k < 4; k++)
            number_cell(t, at(r, "latency_ms"), figures[k]);
        if (number_at(r, "tokens.min") < number_at(r, "tokens.max"))
            table_cellf(t, "%.0f to %.0f", number_at(r, "tokens.min"), number_at(r, "tokens.max"));
        else
            integer_cell(t, r, "tokens.max");
        if (stopped > 0) {
            char *last = t->cells[t->n_cells - 1], with[96];
            snprintf(with, sizeof with, "%.60s, %.0f ended", last, stopped);
            free(last);
            t->cells[t->n_cells - 1] = must_strndup(with, strlen(with));
        }
        integer_cell(t, r, "target.ms");
        verdict_cell(t, at(r, "target"));
    }
    table_note(t, "From handing in the image's file and the question to the last token. Mean, standard deviation (of the "
                  "values, not of a sample) and percentiles as numpy computes them by default.");
}

static void add_stages(struct tables *tables, const struct json *document)
{
    static const char *const stages[] = {"image", "vision", "prefill", "first_token", "decode"};
    struct table *t = tables_add(tables, "Stages, ms",
                                 HEADS("#", "open, cold", "open, warm", "image", "vision", "prefill", "first token",
                                       "further tokens", "sum of the whole"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        const double share = number_at(r, "stages.sum_share");
        table_cellf(t, "%d", i);
        number_cell(t, r, "stages.open.cold_ms");
        number_cell(t, r, "stages.open.warm_ms.mean");
        for (size_t k = 0; k < sizeof stages / sizeof *stages; k++)
            mean_cell(t, at(at(r, "stages"), stages[k]));
        if (isnan(share))
            table_cell(t, "-");
        else
            table_cellf(t, "%.2f %%", 100 * share);
    }
    table_note(t, "Image: decoding, resizing, normalising. First token: making the prompt, drawing the token and handing "
                  "it out.");
}

static void add_tokens(struct tables *tables, const struct json *document)
{
    struct table *t = tables_add(tables, "Tokens",
                                 HEADS("#", "to first token, ms", "cold, ms", "prefill, tokens/s", "decode, tokens/s",
                                       "a token, ms", "P50", "P95", "P99", "drafted", "accepted"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        table_cellf(t, "%d", i);
        mean_cell(t, at(r, "ttft_ms"));
        number_cell(t, r, "stages.open.cold_first_token_ms");
        number_cell(t, r, "throughput.prefill_tps");
        number_cell(t, r, "throughput.decode_tps");
        mean_cell(t, at(r, "stages.token"));
        number_cell(t, r, "stages.token.p50");
        number_cell(t, r, "stages.token.p95");
        number_cell(t, r, "stages.token.p99");
        integer_cell(t, r, "tokens.drafted");
        integer_cell(t, r, "tokens.accepted");
    }
    table_note(t, "To first token: from handing in to the first token with text; cold: from opening the model on, its "
                  "files not in memory.");
}

/* The page's row of this name, or NULL. */
static const struct json *row_named(const struct json *result, const char *name)
{
    const struct json *rows = json_get(result, "rows");
    for (const struct json *row = rows ? rows->first : NULL; row; row = row->next)
        if (strcmp(text_at(row, "name"), name) == 0)
            return row;
    return NULL;
}

static void page_cells(struct table *t, const struct json *row)
{
    const double limit = number_at(row, "limit");
    if (isnan(limit))
        table_cell(t, "-");
    else
        table_cellf(t, "%g %s", limit, text_at(row, "unit"));
    verdict_cell(t, row);
}

static void add_memory(struct tables *tables, const struct json *document)
{
    static const struct {
        const char *key, *name, *row;
    } phases[] = {{"load_peak", "loading", "RAM, loading"},
                  {"steady", "inference", "RAM, inference"},
                  {"with_image", "with an image", "RAM, with an image"}};
    struct table *t = tables_add(tables, "Memory", HEADS("#", "phase", "resident", "private", "mapped files", "shared",
                                                        "proportional", "device", "page", "verdict"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++)
        for (size_t k = 0; k < 3; k++) {
            const struct json *phase = at(at(r, "memory"), phases[k].key);
            table_cellf(t, "%d", i);
            table_cell(t, phases[k].name);
            bytes_cell(t, phase, "resident");
            bytes_cell(t, phase, "anonymous");
            bytes_cell(t, phase, "mapped");
            bytes_cell(t, phase, "shared");
            bytes_cell(t, phase, "proportional");
            if (number_at(phase, "device") > 0)
                bytes_cell(t, phase, "device");
            else
                table_cell(t, "none");
            page_cells(t, row_named(r, phases[k].row));
        }
    table_note(t, "The largest resident set of each phase. Loading: from opening to the first token of the first answer, "
                  "when every weight has been read. Mapped files are shared with other processes and can be taken back "
                  "by the system.");
}

static void add_buffers(struct tables *tables, const struct json *document)
{
    struct table *t = tables_add(
        tables, "Buffers",
        HEADS("#", "context", "KV cache", "of it touched", "decoder", "encoder", "session, seen", "encoder, seen"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        table_cellf(t, "%d", i);
        integer_cell(t, r, "test.context");
        bytes_cell(t, r, "memory.kv_cache.computed");
        bytes_cell(t, r, "memory.kv_cache.computed_touched");
        bytes_cell(t, r, "memory.work.decoder_computed");
        bytes_cell(t, r, "memory.work.encoder_computed");
        bytes_cell(t, r, "memory.work.session_seen");
        bytes_cell(t, r, "memory.work.encoder_seen");
    }
    table_note(t, "Computed from the model's shapes; seen: private memory that the session and the encoder added.");
}

static void add_disk(struct tables *tables, const struct json *document)
{
    static const struct {
        const char *path, *name, *row;
    } lines[] = {{"disk.weights", "weights", "disk, weights"},
                 {"disk.tokenizer_config", "tokenizer and config", "disk, tokenizer and config"},
                 {"disk.program", "program", NULL},
                 {"disk.libraries", "its shared libraries", NULL},
                 {"disk.container", "container image", "disk, container image"}};
    struct table *t = tables_add(tables, "Disk", HEADS("#", "what", "size", "page", "verdict"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        const struct json *types = at(r, "disk.by_type");
        for (size_t k = 0; k < sizeof lines / sizeof *lines; k++) {
            char size[VIEW_TEXT];
            table_cellf(t, "%d", i);
            table_cell(t, lines[k].name);
            bytes_cell(t, r, lines[k].path);
            page_cells(t, lines[k].row ? row_named(r, lines[k].row) : NULL);
            for (const struct json *type = k == 0 && types ? types->first : NULL; type; type = type->next) {
                double bytes;
                table_cellf(t, "%d", i);
                table_cellf(t, "  of them %s", type->key);
                table_cell(t, json_number(type, &bytes) ? show_bytes(size, bytes) : "-");
                table_cell(t, "-");
                table_cell(t, "-");
            }
        }
    }
}

static void add_energy(struct tables *tables, const struct json *document)
{
    const char *reason = NULL;
    struct table *t =
        tables_add(tables, "Energy", HEADS("#", "meter", "idle, W", "J an answer", "J an image", "J a token"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        const struct json *energy = at(r, "energy");
        table_cellf(t, "%d", i);
        table_cell(t, energy ? text_at(energy, "source") : "none");
        number_cell(t, energy, "idle_watts");
        number_cell(t, energy, "joules_run");
        number_cell(t, energy, "joules_image");
        number_cell(t, energy, "joules_token");
        if (!energy)
            reason = text_at(r, "energy_reason");
    }
    if (reason) {
        char text[256];
        snprintf(text, sizeof text, "Not measured: %.200s.", reason);
        table_note(t, text);
    } else {
        table_note(t, "Above what the idle machine takes.");
    }
}

static void add_limits(struct tables *tables, const struct json *document)
{
    static const char *const kinds[] = {"f32", "bf16", "int16", "int8"};
    static const char *const stages[] = {"vision", "prefill", "decode"};
    struct table *t = NULL;
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++) {
        const struct json *l = at(r, "limits");
        if (!l)
            continue;
        if (!t)
            t = tables_add(tables, "Share of the machine's limits",
                           HEADS("#", "memory, GB/s", "f32, Gop/s", "bf16, Gop/s", "int16, Gop/s", "int8, Gop/s",
                                 "vision", "prefill", "further tokens"));
        table_cellf(t, "%d", i);
        number_cell(t, l, at(l, "measured.copy_gbs") ? "measured.copy_gbs" : "measured.read_gbs");
        for (size_t k = 0; k < 4; k++)
            number_cell(t, at(l, "measured.multiply_gops"), kinds[k]);
        for (size_t k = 0; k < 3; k++) {
            char path[32];
            snprintf(path, sizeof path, "%s_share", stages[k]);
            if (isnan(number_at(l, path)))
                table_cell(t, "-");
            else
                table_cellf(t, "%.0f %%", 100 * number_at(l, path));
        }
    }
    if (t)
        table_note(t, "Limits measured on registers and by reading memory, with as many threads; a card's by copying in "
                      "its memory. Vision and prefill as shares of the multiply that products with these weights are "
                      "made of, further tokens of reading the weights.");
}

static void add_state(struct tables *tables, const struct json *document)
{
    static const char *const moments[] = {"before", "after"};
    struct table *t = tables_add(tables, "The machine during the runs",
                                HEADS("#", "when", "clock, MHz", "governor", "power", "temperature, °C", "load",
                                      "others' share"));
    int i = 1;
    for (const struct json *r = first_result(document); r; r = r->next, i++)
        for (int k = 0; k < 2; k++) {
            const struct json *state = at(at(r, "machine"), moments[k]);
            const double others = number_at(r, "machine.others_busy");
            table_cellf(t, "%d", i);
            table_cell(t, moments[k]);
            integer_cell(t, state, "mhz");
            table_cell(t, text_at(state, "governor"));
            table_cell(t, text_at(state, "power_mode"));
            integer_cell(t, state, "celsius");
            number_cell(t, state, "load");
            if (k == 0 || isnan(others))
                table_cell(t, "-");
            else
                table_cellf(t, "%.1f %%", 100 * others);
        }
}

void tables_make(struct tables *out, const struct json *document)
{
    *out = (struct tables){0};
    add_measured(out, document);
    add_latency(out, document);
    add_stages(out, document);
    add_tokens(out, document);
    add_memory(out, document);
    add_buffers(out, document);
    add_disk(out, document);
    add_limits(out, document);
    add_energy(out, document);
    add_state(out, document);
}

/* ---- sentences --------------------------------------------------------------------------------------------------- */

bool view_notice(char out[200], const struct json *document, size_t wanted)
{
    size_t i = 0;
    bool random = false;
    for (const struct json *r = first_result(document); r; r = r->next)
        random |= true_at(r, "model.random_weights");
    if (!true_at(document, "complete") && i++ == wanted) {
        snprintf(out, 200, "Not complete: it was interrupted. What is here was measured until then.");
        return true;
    }
    if (random && i++ == wanted) {
        snprintf(out, 200, "Random weights: speed and memory are those of a real checkpoint of this shape; answers and "
                           "their lengths are not.");
        return true;
    }
    int number = 1;
    for (const struct json *r = first_result(document); r; r = r->next, number++) {
        const struct json *warnings = json_get(r, "warnings");
        for (const struct json *w = warnings ? warnings->first : NULL; w; w = w->next)
            if (w->type == JSON_STRING && i++ == wanted) {
                snprintf(out, 200, "%d: %.180s", number, w->text);
                return true;
            }
    }
    return false;
}

void view_machine(char out[512], const struct json *document)
{
    const struct json *e = json_get(document, "environment");
    char memory[VIEW_TEXT];
    snprintf(out, 512, "%.120s (family %.0f, model %.0f), %.0f processors, %s RAM, %.80s%s", text_at(e, "cpu"),
             number_at(e, "cpu_family"), number_at(e, "cpu_model"), number_at(e, "cpus_usable"),
             show_bytes(memory, number_at(e, "memory_bytes")), text_at(e, "system"),
             true_at(e, "virtual_machine") ? ", in a virtual machine" : "");
}

void view_protocol(char out[512], const struct json *document)
{
    const struct json *p = json_get(document, "protocol");
    const double draft = number_at(p, "draft_max");
    char drafts[48] = "no drafts";
    if (isnan(draft))
        snprintf(drafts, sizeof drafts, "drafts where they pay");
    else if (draft > 0)
        snprintf(drafts, sizeof drafts, "drafts of up to %.0f", draft);
    snprintf(out, 512, "%.0f warm-up%s of up to %.0f tokens, %.0f timed run%s; caches %s, %s", number_at(p, "warmups"),
             number_at(p, "warmups") > 1 ? "s" : "", number_at(p, "warmup_tokens"), number_at(p, "runs"),
             number_at(p, "runs") > 1 ? "s" : "", true_at(p, "caches_kept") ? "kept" : "off", drafts);
}
