/* The plots of the report of `ward bench`, as SVG within its page: colours and fonts are the page's style sheet's. */
#ifndef WARD_CLI_BENCH_PLOT_H
#define WARD_CLI_BENCH_PLOT_H

#include "bench_view.h"

#include <stdio.h>

enum { PLOT_STAGES = 5 };
extern const char *const plot_stages[PLOT_STAGES];      /* their keys in the JSON: "image", "vision", ... */
extern const char *const plot_stage_names[PLOT_STAGES]; /* as they are shown */

/* Each draws one result's; nothing where it has no such figures. */
void plot_runs(FILE *out, const struct json *result);   /* latency of each run, by stages */
void plot_stage_bar(FILE *out, const struct json *result); /* the mean, by stages */
void plot_memory(FILE *out, const struct json *result);
void plot_decode(FILE *out, const struct json *result);

#endif
