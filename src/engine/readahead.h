/* Reading the weights into the page cache ahead of their use, from a thread of its own, so that a first answer waits for
 * the disk once, not layer by layer. It only asks: nothing is mapped, no memory is taken that could not be taken back. */
#ifndef WARD_ENGINE_READAHEAD_H
#define WARD_ENGINE_READAHEAD_H

#include "model/config.h"
#include "model/weights.h"

struct readahead;

/* Starts asking for the weights in the order of their use, those of the image encoder first. Nothing is done (NULL)
 * where the machine has not the memory to keep them, or no thread can be had. */
struct readahead *readahead_open(struct weights *weights, const struct model_config *config);
/* Ends it, done or not. */
void readahead_close(struct readahead **readahead);

#endif
