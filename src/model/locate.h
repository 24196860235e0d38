/* From what the user wrote after -m to the files of a checkpoint. */
#ifndef WARD_MODEL_LOCATE_H
#define WARD_MODEL_LOCATE_H

#include "base/error.h"

struct model_place {
    char *path;   /* a folder in Hugging Face's layout, or a GGUF file: the text model */
    char *mmproj; /* the GGUF file of its image encoder; NULL: none, or none but what `path` itself holds */
    char *found_by; /* in a store: the folder of the repository, or the manifest, that led to `path`; NULL */
    bool is_gguf;
    bool text_only; /* no image encoder was asked for */
    bool guessed; /* other files than `mmproj` beside `path` would have done as well */
};

/* `name` is a folder, a GGUF file, ORG/NAME in Hugging Face's local cache (HF_HUB_CACHE, HF_HOME/hub, XDG_CACHE_HOME or
 * ~/.cache: the snapshot that refs/main names, else the newest), or NAME[:TAG] in Ollama's store (OLLAMA_MODELS or
 * ~/.ollama/models). A folder or file of that name wins, then Hugging Face's cache. A folder without weights in Hugging
 * Face's layout but with one GGUF file of a text model is that file.
 *
 * `mmproj` is the GGUF file of the image encoder, "none" for none, or NULL: the one beside the text's file.
 *
 * Nothing is downloaded: when it is not there the error says the one command that does. */
WARD_CHECKED int model_locate(struct model_place *out, const char *name, const char *mmproj, struct ward_error *err);
void model_place_free(struct model_place *place);

/* ---- its parts --------------------------------------------------------------------------------------------------- */

/* Whether the folder is to be opened by its GGUF files. */
bool folder_is_gguf(const char *folder);
/* The one text model among the folder's GGUF files. *path is malloc'ed. */
WARD_CHECKED int find_text_gguf(char **path, const char *folder, struct ward_error *err);
/* The image encoder that goes with a text model's file: beside it, with "mmproj" in its name. The one whose name shares
 * most with the text's, then BF16, F16, F32, Q8_0. *path is malloc'ed, NULL when there is none. */
WARD_CHECKED int find_mmproj(char **path, bool *guessed, const char *text, struct ward_error *err);
/* The files of a model in Ollama's store; out->path stays NULL when it is not there. */
WARD_CHECKED int find_in_ollama(struct model_place *out, const char *name, struct ward_error *err);

#endif
