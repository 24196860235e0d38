#include "progress.h"

#include "base/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool shown;
static double shown_at;
static char shown_what[16];

void progress_show(const char *what, int done, int total)
{
    if (!isatty(STDERR_FILENO))
        return;
    double now = clock_ms();
    if (shown && strcmp(what, shown_what) == 0 && done < total && now - shown_at < 50)
        return;
    snprintf(shown_what, sizeof shown_what, "%s", what);
    shown = true;
    shown_at = now;
    if (total)
        fprintf(stderr, "\r\033[K%s %d/%d", what, done, total);
    else
        fprintf(stderr, "\r\033[K%s", what);
    fflush(stderr);
}

void progress_bar(const char *what, double done, double total)
{
    static const char full[] = "########################################";
    static double started_at;
    enum { WIDTH = sizeof full - 1 };
    if (!isatty(STDERR_FILENO))
        return;
    const double now = clock_ms(), part = total > 0 ? done / total : 1;
    if (!shown)
        started_at = now;
    if (shown && part < 1 && now - shown_at < 200)
        return;
    shown = true;
    shown_at = now;
    fprintf(stderr, "\r\033[K%s [%-*.*s] %3.0f %%", what, WIDTH, (int)(part * WIDTH), full, 100 * part);
    if (part > 0.02 && now - started_at > 1000)
        fprintf(stderr, ", %.0f s left", (now - started_at) / 1e3 * (1 - part) / part);
    fflush(stderr);
}

void progress_clear(void)
{
    if (!shown)
        return;
    shown = false;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}
