#include "progress.h"

#include "base/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static bool shown;
static double shown_at;

void progress_show(const char *what, int done, int total)
{
    if (!isatty(STDERR_FILENO))
        return;
    double now = clock_ms();
    if (shown && done < total && now - shown_at < 50)
        return;
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
