/* Work buffers of one purpose, side by side in one piece of a backend's memory. */
#ifndef WARD_ENGINE_BUFFERS_H
#define WARD_ENGINE_BUFFERS_H

#include <stddef.h>
#include <stdint.h>

struct buffer_request {
    void **at; /* where the pointer goes */
    size_t bytes;
};

enum { BUFFER_ALIGN = 256 }; /* for every kernel there is */

static inline size_t buffer_step(size_t bytes)
{
    return (bytes + BUFFER_ALIGN - 1) / BUFFER_ALIGN * BUFFER_ALIGN;
}

struct buffer_list {
    const struct buffer_request *wanted;
    size_t n;
};

/* One after the other from `memory` on; returns how many bytes they take. NULL: nothing is placed. */
static inline size_t buffers_place(void *memory, const struct buffer_request *wanted, size_t n)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (memory)
            *wanted[i].at = (uint8_t *)memory + at;
        at += buffer_step(wanted[i].bytes);
    }
    return at;
}

/* The same, and behind them lists that are used in turn: the first buffer of each lies at the same place. */
static inline size_t buffers_place_turns(void *memory, struct buffer_list always, const struct buffer_list *turns,
                                         size_t n)
{
    const size_t first = buffers_place(memory, always.wanted, always.n);
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t bytes = buffers_place(memory ? (uint8_t *)memory + first : NULL, turns[i].wanted, turns[i].n);
        most = bytes > most ? bytes : most;
    }
    return first + most;
}

#endif
