/* The terms under which weights were published, as far as their files tell. */
#ifndef WARD_MODEL_TERMS_H
#define WARD_MODEL_TERMS_H

#include "model/gguf.h"

#define HAI_DEF_NAME "health-ai-developer-foundations"
#define HAI_DEF_LINK "https://developers.google.com/health-ai-developer-foundations/terms"

struct terms {
    char license[64]; /* "apache-2.0", "gemma", "other", ... as a model card writes it; empty: not known */
    char name[64];    /* of a license that is "other" */
    char link[256];
    bool hai_def;     /* Google's Health AI Developer Foundations: MedGemma. No clinical use without approval */
};

/* Of a folder in Hugging Face's layout: the front matter of its README.md. Where that is missing, the folder's own name
 * or that of the model in the cache tells a MedGemma. */
void terms_of_folder(struct terms *out, const char *folder);
/* Of a GGUF file: its general.license, or its names. */
void terms_of_gguf(struct terms *out, const struct gguf *file);

#endif
