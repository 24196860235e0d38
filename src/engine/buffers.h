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

/* What they take together. */
static inline size_t buffers_bytes(const struct buffer_request *wanted, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += buffer_step(wanted[i].bytes);
    return sum;
}

/* Buffers that are used in turn: the first of each list lies at the same place. */
struct buffer_turn {
    const struct buffer_request *wanted;
    size_t n;
};

static inline size_t turns_bytes(const struct buffer_turn *turns, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t bytes = buffers_bytes(turns[i].wanted, turns[i].n);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static inline void buffers_place(void *memory, const struct buffer_request *wanted, size_t n)
{
    uint8_t *at = memory;
    for (size_t i = 0; i < n; i++) {
        *wanted[i].at = at;
        at += buffer_step(wanted[i].bytes);
    }
}

#endif
