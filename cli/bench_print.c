/* The results of `ward bench` on standard output: tables for people, Markdown, CSV, a line of JSON for each result. */
#include "bench_view.h"
#include "cli.h"
#include "output.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void line(const char *text)
{
    output_untrusted(text, strlen(text));
    output_text("\n");
}

/* Columns that a text takes on a terminal: a character of Latin takes one. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void pad(size_t n)
{
    while (n--)
        output_text(" ");
}

static void print_cell(const char *text, size_t width, bool right, bool last)
{
    const size_t space = width - width_of(text);
    const bool pass = strcmp(text, "PASS") == 0, verdict = pass || strcmp(text, "FAIL") == 0;
    if (right)
        pad(space);
    if (verdict && output_is_terminal())
        output_text(pass ? "\033[32m" : "\033[1;31m");
    output_untrusted(text, strlen(text));
    if (verdict && output_is_terminal())
        output_text("\033[0m");
    if (!last)
        pad((right ? 0 : space) + 2);
}

void table_print_text(const struct table *t)
{
    size_t widths[16] = {0};
    const size_t n = t->n_heads < 16 ? t->n_heads : 16;
    output_text("\n");
    line(t->title);
    for (size_t c = 0; c < n; c++) {
        widths[c] = width_of(t->heads[c]);
        for (size_t i = c; i < t->n_cells; i += t->n_heads)
            widths[c] = width_of(t->cells[i]) > widths[c] ? width_of(t->cells[i]) : widths[c];
    }
    output_text("  ");
    for (size_t c = 0; c < n; c++)
        print_cell(t->heads[c], widths[c], table_is_numeric(t, c), c + 1 == n);
    output_text("\n");
    for (size_t i = 0; i + n <= t->n_cells; i += n) {
        output_text("  ");
        for (size_t c = 0; c < n; c++)
            print_cell(t->cells[i + c], widths[c], table_is_numeric(t, c), c + 1 == n);
        output_text("\n");
    }
}

void bench_print_text(const struct json *document)
{
    struct tables tables;
    char text[512], notice[200];
    snprintf(text, sizeof text, "ward %s, %s", text_at(document, "ward"), text_at(document, "started"));
    line(text);
    view_machine(text, document);
    line(text);
    view_protocol(text, document);
    line(text);
    tables_make(&tables, document);
    for (size_t i = 0; i < tables.n; i++)
        table_print_text(&tables.at[i]);
    tables_free(&tables);
    for (size_t i = 0; view_notice(notice, document, i); i++) {
        if (i == 0)
            output_text("\n");
        line(notice);
    }
}

/* ---- Markdown ---------------------------------------------------------------------------------------------------- */

/* A cell, in which nothing is markup. */
static void markdown_cell(const char *text)
{
    for (; *text; text++) {
        if (strchr("|\\`*_<>[]#", *text))
            output_text("\\");
        if ((unsigned char)*text >= 0x20)
            output_bytes(text, 1);
    }
}

void table_print_markdown(const struct table *t)
{
    output_text("\n## ");
    output_text(t->title);
    output_text("\n\n|");
    for (size_t c = 0; c < t->n_heads; c++) {
        output_text(" ");
        markdown_cell(t->heads[c]);
        output_text(" |");
    }
    output_text("\n|");
    for (size_t c = 0; c < t->n_heads; c++)
        output_text(table_is_numeric(t, c) ? "--:|" : "---|");
    for (size_t i = 0; i < t->n_cells; i++) {
        output_text(i % t->n_heads ? " " : "\n| ");
        markdown_cell(t->cells[i]);
        output_text(" |");
    }
    output_text("\n");
    if (t->note) {
        output_text("\n");
        output_text(t->note);
        output_text("\n");
    }
}

void bench_print_markdown(const struct json *document)
{
    struct tables tables;
    char text[512], notice[200];
    output_text("# ward bench\n\n");
    view_machine(text, document);
    markdown_cell(text);
    output_text(". ");
    view_protocol(text, document);
    markdown_cell(text);
    output_text(". ward ");
    markdown_cell(text_at(document, "ward"));
    output_text(", ");
    markdown_cell(text_at(document, "started"));
    output_text(".\n");
    for (size_t i = 0; view_notice(notice, document, i); i++) {
        output_text(i ? "- " : "\n- ");
        markdown_cell(notice);
        output_text("\n");
    }
    tables_make(&tables, document);
    for (size_t i = 0; i < tables.n; i++)
        table_print_markdown(&tables.at[i]);
    tables_free(&tables);
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

static const char *const columns[] = {
    "model.name", "model.type", "model.bytes", "model.random_weights", "device", "kernels", "threads", "test.image",
    "test.prompt_tokens", "test.max_tokens", "test.fixed", "test.context", "complete", "latency_ms.mean",
    "latency_ms.std", "latency_ms.p50", "latency_ms.p95", "latency_ms.min", "latency_ms.max", "ttft_ms.mean",
    "ttft_ms.std", "tokens.mean",
    "tokens.drafted", "tokens.accepted", "stages.open.cold_ms", "stages.open.warm_ms.mean", "stages.image.mean",
    "stages.vision.mean", "stages.prefill.mean", "stages.first_token.mean", "stages.decode.mean", "stages.token.mean",
    "stages.token.p50", "stages.token.p95", "stages.token.p99", "throughput.prefill_tps", "throughput.decode_tps",
    "memory.load_peak.resident", "memory.steady.resident", "memory.steady.anonymous", "memory.with_image.resident",
    "memory.peak", "disk.weights", "energy.joules_image", "energy.joules_token", "target.ms", "target.pass",
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static void csv_field(const char *text, size_t length)
{
    output_text("\"");
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '"')
            output_text("\"");
        output_bytes(text + i, 1);
    }
    output_text("\"");
}

void bench_print_csv(const struct json *document)
{
    const struct json *results = json_get(document, "results");
    output_text("started,ward,cpu");
    for (size_t i = 0; i < N_COLUMNS; i++) {
        char name[64];
        snprintf(name, sizeof name, ",%s", columns[i]);
        for (char *c = name; *c; c++)
            *c = *c == '.' ? '_' : *c;
        output_text(name);
    }
    output_text("\n");
    for (const struct json *r = results ? results->first : NULL; r; r = r->next) {
        const char *const common[] = {text_at(document, "started"), text_at(document, "ward"),
                                      text_at(json_get(document, "environment"), "cpu")};
        for (size_t i = 0; i < 3; i++) {
            csv_field(common[i], strlen(common[i]));
            output_text(",");
        }
        for (size_t i = 0; i < N_COLUMNS; i++) {
            const struct json *value = at(r, columns[i]);
            if (i)
                output_text(",");
            if (value && (value->type == JSON_TRUE || value->type == JSON_FALSE))
                output_text(value->type == JSON_TRUE ? "true" : "false");
            else if (value && value->type == JSON_NUMBER)
                output_text(value->text);
            else if (value && value->type == JSON_STRING)
                csv_field(value->text, value->length);
        }
        output_text("\n");
    }
}

/* ---- a line for each --------------------------------------------------------------------------------------------- */

void bench_print_lines(const struct json *document)
{
    const struct json *results = json_get(document, "results");
    for (const struct json *r = results ? results->first : NULL; r; r = r->next) {
        struct json_writer *w = json_writer_new(false);
        if (!w)
            die("out of memory");
        json_write_open(w, NULL, '{');
        for (const struct json *member = document->first; member; member = member->next) {
            if (member != results) {
                json_write_value(w, member->key, member);
                continue;
            }
            json_write_open(w, "results", '[');
            json_write_value(w, NULL, r);
            json_write_close(w, ']');
        }
        json_write_close(w, '}');
        output_json_line(&w);
    }
}
