/* A folder that appears whole under its name, or not at all: it is filled under a temporary name beside it. */
#ifndef WARD_SYNTH_FOLDER_H
#define WARD_SYNTH_FOLDER_H

#include "base/error.h"

struct synth_folder {
    char *path, *temporary; /* temporary NULL: committed, or never made */
    bool replaces;          /* there is one of that name, which goes when this one comes */
};

/* force: a checkpoint of synth's that has the name may be replaced. Nothing else is: what holds other files, or weights
 * that are not marked as random, stays. Ended by synth_folder_close, also after an error. */
WARD_CHECKED int synth_folder_open(struct synth_folder *out, const char *path, bool force, struct ward_error *err);
/* A whole file in it. */
WARD_CHECKED int synth_folder_write(const struct synth_folder *folder, const char *name, const void *data, size_t size,
                                    struct ward_error *err);
/* Hands all files to the disk, and gives the folder its name. */
WARD_CHECKED int synth_folder_commit(struct synth_folder *folder, struct ward_error *err);
/* Removes what was not committed. */
void synth_folder_close(struct synth_folder *folder);

#endif
