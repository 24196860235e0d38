/* Checkpoints of random weights, in the size and the layout of the published ones: for measuring a machine before a
 * licence is accepted and gigabytes are downloaded. */
#ifndef WARD_SYNTH_SYNTH_H
#define WARD_SYNTH_SYNTH_H

#include "base/error.h"

struct synth_options {
    const char *preset;    /* one of synth_presets (texts.h), or a file in the form of config.json */
    const char *out;       /* the folder to be made */
    const char *tokenizer; /* a folder, tokenizer.json or tokenizer.model to take it from; NULL: the one of bytes */
    uint64_t seed;         /* the same seed, the same bytes, on any machine with any number of threads */
    bool force;            /* replace `out` if it is a checkpoint of synth's */
    int threads;           /* 0: the processors this process may use */
    /* Called now and then with bytes written so far and in all; nonzero: stop, and leave nothing behind. */
    int (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
};

struct synth_result {
    uint64_t bytes, weights; /* of all files; numbers in them */
    int n_files;             /* of weights */
};

/* The folder appears when all is done and on disk, and not at all after an error. WARD_ECANCELLED when progress asked
 * to stop. */
WARD_CHECKED int synth_checkpoint(const struct synth_options *options, struct synth_result *result,
                                  struct ward_error *err);

#endif
