/* The files of weights: noise, made by all threads and written as fast as the disk takes it. */
#ifndef WARD_SYNTH_SHARDS_H
#define WARD_SYNTH_SHARDS_H

#include "synth/folder.h"
#include "synth/plan.h"
#include "synth/synth.h"

WARD_CHECKED int synth_write_shards(const struct synth_plan *plan, const struct synth_folder *folder,
                                    const struct synth_options *options, struct ward_error *err);

#endif
