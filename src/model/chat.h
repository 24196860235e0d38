/* The chat template of Gemma 3 and MedGemma, and the prompt as the processor of transformers makes it of it: turns,
 * system text folded into the first user turn, images expanded to their tokens. A user's text cannot forge control
 * tokens. */
#ifndef WARD_MODEL_CHAT_H
#define WARD_MODEL_CHAT_H

#include "model/config.h"
#include "model/tokenizer.h"

struct chat_template {
    bool present; /* the checkpoint has a chat template; without one the text of the user's message is continued */
    bool thinking; /* has the tokens of MedGemma 1.5's thinking block */
    int32_t bos, start_of_turn, end_of_turn, image, boi, eoi; /* -1: absent */
    int32_t thinking_start, thinking_end;
};

/* The text of the one template that there is, in Jinja. */
extern const char chat_gemma_template[];

/* Finds the template of a checkpoint: chat_template.jinja, chat_template.json or tokenizer_config.json's. One that is
 * not Gemma 3's is refused. */
WARD_CHECKED int chat_template_open(struct chat_template *out, const char *folder, const struct model_config *config,
                                    const struct tokenizer *tokenizer, struct ward_error *err);
/* Its text, malloc'ed; NULL where there is none. */
WARD_CHECKED int chat_template_read(char **text, const char *folder, struct ward_error *err);

struct gguf;
/* That of a GGUF file, "" included; NULL where there is none. */
WARD_CHECKED int chat_template_read_gguf(char **text, const struct gguf *file, struct ward_error *err);
/* The template of a GGUF file. Its publishers mend the template: one that writes Gemma's turns is taken as Gemma's, as is
 * one that is not there (Ollama's files have none) where the vocabulary has turns. An empty one says that there is
 * none. */
WARD_CHECKED int chat_template_from_gguf(struct chat_template *out, const struct gguf *file,
                                         const struct model_config *config, const struct tokenizer *tokenizer,
                                         struct ward_error *err);

/* The token ids of a conversation, with bos and, when the template is present, the opening of the answer's turn. Each
 * image becomes two newlines, boi, config->image_tokens image tokens, eoi, two newlines, merged with the text around it
 * before it is tokenized. Parts are given in order; the text of images is not read. */
WARD_CHECKED int chat_encode(const struct chat_template *chat, const struct model_config *config,
                             const struct tokenizer *tokenizer, const struct ward_message *messages, size_t n_messages,
                             struct ids *out, struct ward_error *err);

#endif
