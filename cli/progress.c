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

void progress_clear(void)
{
    if (!shown)
        return;
    shown = false;
    fputs("\r\033[K", stderr);
    fflush(stderr);
}
