/* From what the user wrote after -m to the folder of a checkpoint. */
#ifndef WARD_MODEL_LOCATE_H
#define WARD_MODEL_LOCATE_H

#include "base/error.h"

/* `name` is a folder, or ORG/NAME in Hugging Face's local cache (HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME or
 * ~/.cache): the snapshot that refs/main names, else the newest. A folder of that name wins. Nothing is downloaded:
 * when it is not there the error says the one command that does. *folder is malloc'ed. */
WARD_CHECKED int model_locate(char **folder, const char *name, struct ward_error *err);

#endif
