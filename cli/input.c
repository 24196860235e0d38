#include "input.h"
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *input_read(size_t *length)
{
    char *text = NULL;
    size_t n = 0, room = 0;
    if (isatty(STDIN_FILENO))
        fputs("type the text, then Ctrl-D on a line of its own:\n", stderr);
    for (;;) {
        if (n == room) {
            room = room ? 2 * room : 1 << 16;
            text = must_realloc(text, room + 1, 1);
        }
        ssize_t got = read(STDIN_FILENO, text + n, room - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die("standard input: cannot be read: %s", strerror(errno));
        if (got == 0)
            break;
        n += (size_t)got;
        if (n > INPUT_LIMIT)
            die("standard input: is longer than %d MB", INPUT_LIMIT >> 20);
    }
    text[n] = '\0';
    *length = n;
    return text;
}
