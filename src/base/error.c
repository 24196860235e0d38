#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

int error_set(struct ward_error *err, int code, const char *format, ...)
{
    if (err) {
        err->code = code;
        va_list args;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        /* One sentence on one line, whatever a file put into a name that is quoted in it. */
        for (char *c = err->text; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                *c = '?';
    }
    return code;
}

int error_no_memory(struct ward_error *err, const char *what, size_t bytes)
{
    return error_set(err, WARD_ENOMEM, "out of memory: %s needs %.1f MB", what, (double)bytes / 1e6);
}
