/* How texts begin and end. */
#ifndef WARD_BASE_TEXT_H
#define WARD_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool starts_with(const char *text, const char *start)
{
    return !strncmp(text, start, strlen(start));
}

static inline bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text), tail = strlen(end);
    return length >= tail && !strcmp(text + length - tail, end);
}

#endif
