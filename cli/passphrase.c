#include "passphrase.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/* A line without its newline, read byte by byte: what follows is somebody else's. */
static int read_line(int fd, char out[PASSPHRASE_LIMIT], const char *name, struct ward_error *err)
{
    size_t n = 0;
    for (;;) {
        char c;
        const ssize_t got = read(fd, &c, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set(err, WARD_EIO, "%s: its passphrase cannot be read: %s", name, strerror(errno));
        if (got == 0 || c == '\n')
            break;
        if (n + 1 == PASSPHRASE_LIMIT)
            return error_set(err, WARD_EINVAL, "%s: a passphrase has at most %d bytes", name, PASSPHRASE_LIMIT - 1);
        out[n++] = c;
    }
    out[n] = '\0';
    return 0;
}

/* True: nothing to echo, or the echo is off; *before is to be restored if *changed. */
static void silence(int fd, struct termios *before, bool *changed)
{
    struct termios quiet;
    *changed = tcgetattr(fd, before) == 0;
    if (!*changed)
        return;
    quiet = *before;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    quiet.c_lflag |= ECHONL;
    tcsetattr(fd, TCSAFLUSH, &quiet);
}

static int ask(char out[PASSPHRASE_LIMIT], const char *prompt, const char *name, struct ward_error *err)
{
    struct termios before;
    bool changed;
    const int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC), fd = terminal >= 0 ? terminal : STDIN_FILENO;
    if (terminal >= 0)
        dprintf(terminal, "%s %s: ", prompt, name);
    silence(fd, &before, &changed);
    const int rc = read_line(fd, out, name, err);
    if (changed)
        tcsetattr(fd, TCSAFLUSH, &before);
    if (terminal >= 0)
        close(terminal);
    return rc;
}

int passphrase_ask(char out[PASSPHRASE_LIMIT], const char *name, struct ward_error *err)
{
    return ask(out, "passphrase of", name, err);
}

int passphrase_new(char out[PASSPHRASE_LIMIT], const char *name, struct ward_error *err)
{
    char again[PASSPHRASE_LIMIT];
    int rc = ask(out, "new passphrase for", name, err);
    if (!rc && !*out)
        rc = error_set(err, WARD_EINVAL, "%s: a passphrase is expected; --no-passphrase does without", name);
    if (!rc)
        rc = ask(again, "the same again for", name, err);
    if (!rc && strcmp(out, again) != 0)
        rc = error_set(err, WARD_EINVAL, "%s: the two passphrases differ", name);
    explicit_bzero(again, sizeof again);
    return rc;
}
