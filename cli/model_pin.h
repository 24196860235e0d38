/* --model-hash: the model that is opened is the one that was meant, or there is no answer. */
#ifndef WARD_CLI_MODEL_PIN_H
#define WARD_CLI_MODEL_PIN_H

#include "cli.h"

#include "model/model_hash.h"
#include "offline/offline.h"

struct model_pin {
    bool given;
    uint8_t sha256[SHA256_BYTES]; /* expected */
    struct model_hash hash;       /* found */
};

/* The value of --model-hash: 64 hexadecimal digits, "sha256:" before them or not. */
void model_pin_option(struct model_pin *pin, const struct command *command, const char *text);
/* For the lock: the files in which hashes are remembered. To be given up once the model is checked: who can write them can
 * have another model taken for this one. */
void model_pin_allow(struct offline_policy *policy);
/* Hashes the model, with progress on a terminal, where a pin was given; ends the program if it is another. To be called
 * before anything of the model is opened. */
void model_pin_check(struct model_pin *pin, const char *model, const char *mmproj, int threads);
/* The hash if it is remembered, for the report of a run without a pin. */
void model_pin_look_up(struct model_pin *pin, const char *model, const char *mmproj);
/* Once the model is open: ends the program if its files are not those that were hashed. */
void model_pin_recheck(const struct model_pin *pin);
/* NULL: not known. */
const char *model_pin_hex(const struct model_pin *pin);
void model_pin_free(struct model_pin *pin);

/* For hash_files: a bar on a terminal. */
int model_pin_progress(void *user, uint64_t done, uint64_t total);

#endif
