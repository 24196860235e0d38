#include "output.h"
#include "cli.h"

#include "base/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[1 << 16];
static size_t buffered;

void output_flush(void)
{
    size_t done = 0, length = buffered;
    buffered = 0; /* first, so that a flush at exit does not try again */
    while (done < length) {
        ssize_t n = write(STDOUT_FILENO, buffer + done, length - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EPIPE)
            exit(EXIT_FAILED);
        else if (errno != EINTR)
            die("standard output: cannot be written: %s", strerror(errno));
    }
}

void output_bytes(const void *bytes, size_t length)
{
    const char *from = bytes;
    while (length) {
        if (buffered == sizeof buffer)
            output_flush();
        size_t n = sizeof buffer - buffered < length ? sizeof buffer - buffered : length;
        memcpy(buffer + buffered, from, n);
        buffered += n;
        from += n;
        length -= n;
    }
}

void output_text(const char *text)
{
    output_bytes(text, strlen(text));
}

const char *output_size(char out[24], uint64_t bytes)
{
    snprintf(out, 24, bytes < 100000000 ? "%.2f MB" : "%.3f GB", (double)bytes / (bytes < 100000000 ? 1e6 : 1e9));
    return out;
}

void output_untrusted(const char *text, size_t length)
{
    if (!output_is_terminal()) {
        output_bytes(text, length);
        return;
    }
    const unsigned char *end = (const unsigned char *)text + length;
    for (const unsigned char *c = (const unsigned char *)text; c < end; c++) {
        /* C0, DEL, and C1, which is C2 80 to C2 9F in UTF-8. */
        if ((*c < 0x20 && *c != '\n' && *c != '\t') || *c == 0x7f) {
            output_bytes("?", 1);
        } else if (c[0] == 0xc2 && c + 1 < end && c[1] >= 0x80 && c[1] < 0xa0) {
            output_bytes("?", 1);
            c++;
        } else {
            output_bytes(c, 1);
        }
    }
}

void output_json_line(struct json_writer **writer)
{
    size_t length = 0;
    const char *text = *writer ? json_writer_text(*writer, &length) : NULL;
    if (!text)
        die("out of memory");
    output_bytes(text, length);
    output_text("\n");
    json_writer_free(writer);
}

bool output_is_terminal(void)
{
    static int known = -1;
    if (known < 0)
        known = isatty(STDOUT_FILENO);
    return known;
}
