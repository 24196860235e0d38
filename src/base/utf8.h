/* UTF-8 as Unicode defines it (table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef WARD_BASE_UTF8_H
#define WARD_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the well-formed character at text, or 0; length is at least 1. *skip is then the length of the longest
 * start of one, at least 1: what Unicode recommends to replace by one U+FFFD. */
static inline size_t utf8_character(const uint8_t *text, size_t length, size_t *skip)
{
    const uint8_t lead = text[0];
    *skip = 1;
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    const size_t n = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < n; i++) {
        if (i >= length || text[i] < (i == 1 ? low : 0x80) || text[i] > (i == 1 ? high : 0xbf))
            return 0;
        *skip = i + 1;
    }
    return n;
}

static inline size_t utf8_length(const uint8_t *text, size_t length)
{
    size_t skip;
    return utf8_character(text, length, &skip);
}

/* Offset of the first byte that is not UTF-8, or length. */
static inline size_t utf8_valid(const uint8_t *text, size_t length)
{
    size_t i = 0;
    while (i < length) {
        const size_t n = utf8_length(text + i, length - i);
        if (!n)
            break;
        i += n;
    }
    return i;
}

#endif
