/* Machines that one may think of buying, by what their makers publish of them. */
#ifndef WARD_BENCH_DEVICES_H
#define WARD_BENCH_DEVICES_H

#include "bench/machine.h"

struct device {
    const char *name;
    enum machine_class class;
    double memory_gb; /* of the card; of Apple's and Jetson's, which share it with the processor, the most there is */
    double read_gbs;  /* bandwidth of its memory */
    double tflops;    /* dense products of 16-bit floats, summed in 32 bits */
    bool shared;      /* memory is the machine's own */
};

/* By name, as people write it: case, spaces, "NVIDIA", "GeForce" and "Apple" do not matter. NULL: not known. */
const struct device *device_find(const char *name);
const struct device *device_at(int i); /* NULL after the last */

#endif
