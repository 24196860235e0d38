/* The emulated card: runs the blocks of a launch one after the other on the processor. */
#ifndef WARD_TESTS_CUDA_MACHINE_H
#define WARD_TESTS_CUDA_MACHINE_H

#include <functional>

struct emulated_launch {
    unsigned grid[3], threads, shared_bytes;
    std::function<void()> kernel; /* one thread of it */
    void (*hide)(bool);           /* the card's memory from whoever touches it; NULL: is not asked to */
    bool (*has)(const void *);    /* whether the card has memory there */
};

/* False, with a sentence on stderr, for a kernel that waits where not all threads come. */
bool emulated_run(const emulated_launch &launch);

#endif
