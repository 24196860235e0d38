#include "bench/words.h"

#include "engine/prompt.h"

#include <stdlib.h>
#include <string.h>

static const char *const WORDS[] = {
    "the", "film", "shows", "a", "small", "opacity", "in", "right", "lower", "zone", "and", "no", "fluid", "is",
    "seen", "while", "heart", "of", "normal", "size", "line", "ends", "middle", "chest", "which", "was", "before",
    "left", "lung", "clear", "bone", "new", "old", "view", "from", "front", "side", "upper", "edge", "soft", "air",
};
enum { N_WORDS = sizeof WORDS / sizeof *WORDS, LONGEST = 9 /* with its space */ };

/* Tokens of the prompt with the first `words` words of the text. */
static int count(int *n, const struct ward_model *m, const ward_image *image, char *text, const size_t *ends,
                 size_t words, struct ward_error *err)
{
    struct prompt prompt;
    char *end = text + ends[words];
    const char kept = *end;
    *end = '\0';
    struct ward_part parts[2] = {{.image = image}, {.text = text}};
    const struct ward_message message = {.role = "user", .parts = image ? parts : parts + 1, .n_parts = image ? 2 : 1};
    const int rc = prompt_build(&prompt, m, &message, 1, err);
    if (!rc) {
        *n = (int)prompt.ids.n;
        prompt_clear(&prompt);
    }
    *end = kept;
    return rc;
}

int words_for_tokens(char **text, int *n, const struct ward_model *model, const ward_image *image, int tokens,
                     struct ward_error *err)
{
    /* A word is at least one token, and the last few are letters: where a word is one too many, a letter may fit. */
    enum { LETTERS = 16 };
    const size_t most = (size_t)tokens + 1;
    size_t *ends = malloc((most + LETTERS + 1) * sizeof *ends), length = 0;
    char *out = malloc((most + LETTERS) * LONGEST + 1);
    int rc = ends && out ? 0 : error_no_memory(err, "the prompt", most * (LONGEST + sizeof *ends));
    uint32_t state = 1;
    for (size_t i = 0; !rc && i < most; i++) {
        state = state * 1664525u + 1013904223u;
        const char *word = WORDS[(state >> 16) % N_WORDS];
        if (i)
            out[length++] = ' ';
        memcpy(out + length, word, strlen(word));
        length += strlen(word);
        ends[i + 1] = length;
    }
    size_t low = 1, high = most; /* `low` words fit, or there are no fewer */
    while (!rc && low < high) {
        const size_t middle = low + (high - low + 1) / 2;
        rc = count(n, model, image, out, ends, middle, err);
        if (!rc && *n <= tokens)
            low = middle;
        else
            high = middle - 1;
    }
    if (!rc)
        rc = count(n, model, image, out, ends, low, err);
    for (int i = 0; !rc && i < LETTERS && *n < tokens; i++) {
        memcpy(out + ends[low], " a", 3);
        ends[low + 1] = ends[low] + 2;
        int with = 0;
        rc = count(&with, model, image, out, ends, low + 1, err);
        if (rc || with > tokens)
            break;
        *n = with;
        low++;
    }
    if (rc) {
        free(out);
        out = NULL;
    } else {
        out[ends[low]] = '\0';
    }
    free(ends);
    *text = out;
    return rc;
}
