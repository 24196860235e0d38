/* The results of `ward bench` as people read them: made from their JSON alone, so that a saved file gives the same
 * tables and reports as the run that wrote it. */
#ifndef WARD_CLI_BENCH_VIEW_H
#define WARD_CLI_BENCH_VIEW_H

#include "base/json.h"

/* A member by its path, "latency_ms.mean"; NULL: it is not there. A number that is not there is NAN, a text is "-". */
const struct json *at(const struct json *object, const char *path);
double number_at(const struct json *object, const char *path);
const char *text_at(const struct json *object, const char *path);
bool true_at(const struct json *object, const char *path);

enum { VIEW_TEXT = 64 };
/* A number with three significant digits or all before its point; "-" for NAN. */
const char *show_number(char out[VIEW_TEXT], double value);
/* "2.74 GiB", "12.1 MiB"; "-" for NAN. */
const char *show_bytes(char out[VIEW_TEXT], double bytes);
/* "image, 280 in, 200 out", as the JSON of a result has it. */
const char *show_test(char out[VIEW_TEXT], const struct json *result);

/* A table: cells row after row. */
struct table {
    char *title, *note; /* note: a sentence under it, or NULL */
    char **heads, **cells;
    size_t n_heads, n_cells;
};
struct tables {
    struct table *at;
    size_t n;
};
struct table *tables_add(struct tables *tables, const char *title, const char *const *heads); /* NULL ends them */
void table_cell(struct table *table, const char *text);
void table_cellf(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_note(struct table *table, const char *text);
/* All tables of a document; its first names what was measured by a number that the others use. */
void tables_make(struct tables *out, const struct json *document);
void tables_free(struct tables *tables);
/* Whether a cell holds figures, and is set to the right. */
bool table_is_numeric(const struct table *table, size_t column);
/* The machine, and how it was measured: a line each. */
void view_machine(char out[512], const struct json *document);
void view_protocol(char out[512], const struct json *document);
/* What holds for all that was measured, to be said before anything else: random weights, an interruption. Sentence `i`
 * into out; false: there are no more. */
bool view_notice(char out[200], const struct json *document, size_t i);

/* To standard output. */
void table_print_text(const struct table *table);
void table_print_markdown(const struct table *table);
void bench_print_text(const struct json *document);
void bench_print_markdown(const struct json *document);
void bench_print_csv(const struct json *document);
/* A line for each result: a whole document that holds it alone. */
void bench_print_lines(const struct json *document);

#endif
