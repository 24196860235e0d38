/* A checkpoint, whatever its container: a folder in Hugging Face's layout, or GGUF files. */
#ifndef WARD_MODEL_CHECKPOINT_H
#define WARD_MODEL_CHECKPOINT_H

#include "model/chat.h"
#include "model/gguf.h"
#include "model/locate.h"
#include "model/terms.h"
#include "model/weights.h"

struct checkpoint {
    struct model_place place;
    struct model_config config;
    struct tokenizer *tokenizer;
    struct chat_template chat;
    struct weights *weights;
    struct terms terms;
    struct gguf *text, *vision; /* what weights lie in, for a GGUF checkpoint */
};

/* Opens all of it; closed with checkpoint_close, also after an error. name, mmproj: as for model_locate. */
WARD_CHECKED int checkpoint_open(struct checkpoint *out, const char *name, const char *mmproj, struct ward_error *err);
void checkpoint_close(struct checkpoint *checkpoint);

/* The GGUF file that holds the image encoder; NULL: none does. */
const struct gguf *checkpoint_vision_file(const struct checkpoint *checkpoint);

/* One part of a checkpoint alone. */
WARD_CHECKED int checkpoint_read_config(struct model_config *out, const char *name, const char *mmproj,
                                        struct ward_error *err);
/* A folder need hold nothing but a tokenizer. */
WARD_CHECKED int checkpoint_open_tokenizer(struct tokenizer **out, const char *name, struct ward_error *err);

#endif
