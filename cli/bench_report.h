/* The results of `ward bench` as one page: no network, no script, nothing beside it. */
#ifndef WARD_CLI_BENCH_REPORT_H
#define WARD_CLI_BENCH_REPORT_H

#include "base/json.h"

/* The page, NUL-terminated; free() it. */
char *bench_report(const struct json *document, size_t *length);

#endif
