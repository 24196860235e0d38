/* One NVIDIA card: its context, its memory, ward's kernels in it, and a queue of work in order.
 *
 * A card is opened once in a process and stays open. What fails is remembered and told by card_finish; what is asked
 * for after a failure is not done. */
#ifndef WARD_CUDA_CARD_H
#define WARD_CUDA_CARD_H

#include "base/error.h"
#include "cuda/kernel_names.h"

#include <stdbool.h>

struct card;

struct card_info {
    int index;
    char name[128];   /* "NVIDIA GeForce RTX 3090" */
    char kernels[16]; /* "sm_86": what the kernels in use were compiled for; "ptx": by the driver, for this card */
    bool wgmma;       /* Hopper's kernels are among them */
    int multiprocessors;
    int shared_bytes; /* that a block can have */
    size_t memory;    /* in all */
    size_t cache;     /* its last cache; 0: not told */
    int cuda;         /* what its driver speaks: 12080 is CUDA 12.8 */
};

/* The card of that index, in the driver's order; -1: the first that can be used. NULL with a sentence: no driver, one
 * that is too old, no such card, a build without kernels. */
struct card *card_open(int index, struct ward_error *err);
/* As cu_driver_load of cuda/driver.h; its meters' library as well (cuda/nvml.h). */
bool card_load_driver(void);
const struct card_info *card_info(const struct card *card);

/* Several threads take turns: between card_lock and card_unlock (which nest) what one asks for is not mixed with what
 * others do, and a recording holds one's own. All that follows takes the lock itself. */
void card_lock(struct card *card);
void card_unlock(struct card *card);

/* Memory of the card, zeroed; the error tells what is free. */
WARD_CHECKED int card_alloc(struct card *card, void **out, size_t bytes, const char *what, struct ward_error *err);
void card_release(struct card *card, void *memory);
/* Bytes that ward has of it, now and at most since it last had none but what every card takes. */
void card_used(struct card *card, size_t *now, size_t *peak);
/* Bytes that nobody has. */
size_t card_free(struct card *card);

/* The copy is under way when it returns, and `from` has been read. */
void card_write(struct card *card, void *to, const void *from, size_t bytes);
/* The same into a room of the card's own, for the kernel that is asked for next; at most CARD_PIECE bytes. */
enum { CARD_PIECE = 2 << 20 };
void *card_piece(struct card *card, const void *from, size_t bytes);
void card_read(struct card *card, void *to, const void *from, size_t bytes); /* waits for it */
void card_copy(struct card *card, void *to, const void *from, size_t bytes);
WARD_CHECKED int card_finish(struct card *card, struct ward_error *err);

struct card_grid {
    unsigned x, y, z;
};
void card_launch(struct card *card, enum card_kernel kernel, struct card_grid grid, unsigned threads,
                 unsigned shared_bytes, void **arguments);

/* As begin, end and forget of engine/backend.h. */
bool card_begin(struct card *card, void **recording);
void card_end(struct card *card, void **recording);
void card_forget(struct card *card, void **recording);

#endif
