/* The tensors of a checkpoint as its files hold them, whatever the container: under the names that they have within
 * their part of the model in Hugging Face's files. */
#ifndef WARD_MODEL_STORED_H
#define WARD_MODEL_STORED_H

#include "model/gguf.h"
#include "model/safetensors.h"
#include "model/tensor.h"

enum { STORED_NAME_ROOM = 64 }; /* bytes of a name that is made of another */

enum part { PART_TEXT, PART_HEAD, PART_VISION, PART_PROJECTOR };

struct stored {
    enum part part;
    const char *name; /* within its part: "layers.3.mlp.up_proj.weight" */
    const char *file, *written; /* for errors: where it lies, and its name there */
    int type;                   /* enum tensor_type, or -1: one that ward does not compute with */
    const char *type_name;
    int n_dims;
    int64_t shape[SAFETENSORS_MAX_DIMS]; /* slowest first */
    const uint8_t *data;
    size_t size; /* bytes */
    bool used;   /* has a place in the model */
};

struct stored_list {
    struct stored *at;
    size_t n;
    char *names;    /* where they are not the files' own */
    bool norms_added; /* norm weights hold 1 + w, not w */
};

/* The names and data are borrowed from the files. */
WARD_CHECKED int stored_from_safetensors(struct stored_list *out, const struct safetensors *files,
                                         struct ward_error *err);
/* vision: as for config_from_gguf. */
WARD_CHECKED int stored_from_gguf(struct stored_list *out, const struct gguf *text, const struct gguf *vision,
                                  struct ward_error *err);
/* llama.cpp's name of a tensor; false: it has none. */
bool stored_gguf_name(char out[STORED_NAME_ROOM], const struct stored *s);
/* Buffers that old versions stored and that are computed anyway, and SigLIP's pooling head, which Gemma 3 does not
 * run: no part of the model, and no fault. */
bool stored_is_harmless(const struct stored *s);
void stored_free(struct stored_list *list);

#endif
