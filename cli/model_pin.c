#include "model_pin.h"
#include "progress.h"

#include "base/hash_cache.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

void model_pin_option(struct model_pin *pin, const struct command *command, const char *text)
{
    static const char prefix[] = "sha256:";
    const char *hex = starts_with(text, prefix) ? text + strlen(prefix) : text;
    if (strlen(hex) != SHA256_HEX || !sha256_from_hex(pin->sha256, hex))
        die_usage(command, "%s: option --model-hash takes the 64 hexadecimal digits that 'ward hash MODEL' prints, "
                  "not '%s'", command->name, text);
    pin->given = true;
}

void model_pin_allow(struct offline_policy *policy)
{
    char *paths[2];
    hash_cache_paths(paths);
    for (int i = 0; i < 2; i++) {
        offline_allow(policy, OFFLINE_OUTPUT, paths[i]);
        free(paths[i]);
    }
}

int model_pin_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    progress_bar("hashing", (double)done, (double)total);
    return 0;
}

void model_pin_check(struct model_pin *pin, const char *model, const char *mmproj, int threads)
{
    struct ward_error err;
    char expected[SHA256_HEX + 1];
    if (!pin->given)
        return;
    const struct model_hash_options options = {.threads = threads, .progress = model_pin_progress};
    const int rc = model_hash_open(&pin->hash, model, mmproj, &options, &err);
    progress_clear();
    if (rc)
        die_error(&err);
    sha256_hex(expected, pin->sha256);
    if (memcmp(pin->hash.sha256, pin->sha256, SHA256_BYTES) != 0)
        die("%s: is not the model that was pinned: its hash is %s, --model-hash says %s", model, pin->hash.hex,
            expected);
}

void model_pin_look_up(struct model_pin *pin, const char *model, const char *mmproj)
{
    const struct model_hash_options options = {.known_only = true};
    struct ward_error ignored; /* opening the model says what is wrong with it */
    if (model_hash_open(&pin->hash, model, mmproj, &options, &ignored) || !pin->hash.complete)
        model_hash_free(&pin->hash);
}

void model_pin_recheck(const struct model_pin *pin)
{
    struct ward_error err;
    if (pin->hash.complete && model_hash_recheck(&pin->hash, &err))
        die_error(&err);
}

const char *model_pin_hex(const struct model_pin *pin)
{
    return pin->hash.complete ? pin->hash.hex : NULL;
}

void model_pin_free(struct model_pin *pin)
{
    model_hash_free(&pin->hash);
}
