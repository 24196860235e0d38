/* The keys of the files that `ward quantize` writes: those of llama.cpp's converter for Gemma 3. */
#ifndef WARD_QUANT_METADATA_H
#define WARD_QUANT_METADATA_H

#include "model/checkpoint.h"
#include "quant/gguf_write.h"

struct metadata {
    const struct checkpoint *source;
    const char *name;  /* general.name; NULL: the source's, where it has one */
    int file_type;     /* general.file_type, as llama.cpp numbers them */
    const char *type;  /* the same in words, for the notice of change */
    int vision_inner;  /* width of the encoder's MLP as it is written */
};

/* Of a source in GGUF all that is not replaced is kept, its tokenizer byte for byte. */
WARD_CHECKED int metadata_put_text(struct gguf_head *head, const struct metadata *m, struct ward_error *err);
void metadata_put_vision(struct gguf_head *head, const struct metadata *m);

/* What Google's terms ask of who passes changed weights on, as text for a file beside them; NULL where the terms are
 * others. The caller frees it. */
char *metadata_notice(const struct metadata *m);

#endif
