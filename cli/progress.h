/* One line on stderr that says what the wait is for; nothing at all where stderr is not a terminal. */
#ifndef WARD_CLI_PROGRESS_H
#define WARD_CLI_PROGRESS_H

/* what: a word, "prefill"; total 0: without figures. */
void progress_show(const char *what, int done, int total);
/* A bar, with the time that is left, for work of many seconds. */
void progress_bar(const char *what, double done, double total);
void progress_clear(void);

#endif
