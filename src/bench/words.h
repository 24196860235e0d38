/* A text that becomes a prompt of so many tokens. */
#ifndef WARD_BENCH_WORDS_H
#define WARD_BENCH_WORDS_H

#include "engine/model.h"

/* Plain words in an order that does not repeat itself, so many that the whole prompt (chat template and image included,
 * if `image`) has `tokens` tokens, or as close below as the tokenizer lets it come; the least is one word. free()
 * *text. *n: tokens of the prompt. */
WARD_CHECKED int words_for_tokens(char **text, int *n, const struct ward_model *model, const ward_image *image,
                                  int tokens, struct ward_error *err);

#endif
