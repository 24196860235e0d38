/* ward - MedGemma (Gemma 3 text decoder + SigLIP vision encoder) on one machine, offline.
 *
 * The only public header. A program opens a model (immutable, shared by any number of sessions and threads), opens a
 * session on it (one conversation: KV cache, random state; one thread at a time), and asks.
 *
 * Every function that can fail returns 0 or a negative enum ward_status, and describes the failure in the caller's
 * struct ward_error (may be NULL). An out parameter is NULL after a failure; every close sets its pointer to NULL.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef WARD_H
#define WARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WARD_VERSION "0.1.0"

#if defined(__GNUC__)
#define WARD_API __attribute__((visibility("default")))
#define WARD_CHECKED __attribute__((warn_unused_result))
#else
#define WARD_API
#define WARD_CHECKED
#endif

enum ward_status {
    WARD_OK = 0,
    WARD_EINVAL = -1,    /* the caller's arguments make no sense */
    WARD_EIO = -2,       /* a file could not be read or written */
    WARD_EFORMAT = -3,   /* a file is damaged or not what it should be */
    WARD_EUNSUPPORTED = -4, /* a file is sound, but asks for what ward does not do */
    WARD_ENOMEM = -5,
    WARD_ECONTEXT = -6,  /* the prompt does not fit the context */
    WARD_ECANCELLED = -7, /* a callback asked to stop */
};

struct ward_error {
    int code;        /* enum ward_status */
    char text[1024]; /* one sentence, UTF-8, no newline; it never holds text, pixels or file names of patients
                        other than the path that the caller gave */
};

typedef struct ward_model ward_model;
typedef struct ward_session ward_session;
typedef struct ward_image ward_image;

/* ---- model ------------------------------------------------------------------------------------------------------ */

struct ward_model_options {
    int threads;          /* 0: the processors this process may use */
    const char *cpu_mask; /* the highest instruction set allowed: "none", "avx2", "avx512", "amx"; NULL: the best there
                             is. "none" is the oracle: plain C, float32 throughout */
    const char *device;   /* "auto" (NULL): a card that can be used, unless a cpu_mask is given; else the processor. "cpu",
                             "cuda" (the first card that can be used), "cuda:N" */
    const char *mmproj;   /* GGUF: the file of the image encoder, "none" for none, or NULL: the one beside the text */
};

/* Brings the driver's code that a device needs into the process, for one that is about to give up the right to load code
 * (as ward's own program does, which then reads the model). No device is opened, no thread is started. *driver: there is one.
 * Opening a model without this does the same. */
WARD_API WARD_CHECKED int ward_device_prepare(const char *device, bool *driver, struct ward_error *err);

/* Opens a checkpoint: a folder in Hugging Face's layout, a GGUF file, ORG/NAME to be found in Hugging Face's local
 * cache or NAME[:TAG] in Ollama's store (never downloaded). Weights are mapped, not read. `options` may be NULL. */
WARD_API WARD_CHECKED int ward_model_open(ward_model **out, const char *path, const struct ward_model_options *options,
                                          struct ward_error *err);
WARD_API void ward_model_close(ward_model **model);

struct ward_model_info {
    const char *path;    /* the folder or file that was opened (a name resolved); valid until the model is closed */
    const char *mmproj;  /* the GGUF file of the image encoder; NULL: it is in `path`, or there is none */
    bool mmproj_guessed; /* other files beside `path` would have done as well */
    const char *type;    /* of most of the text weights: "bf16", "f16", "f32", "q8_0", "q4_0", "q4_k", ... */
    const char *device;      /* "cpu", "cuda" */
    const char *device_name; /* of a card: "NVIDIA GeForce RTX 3090"; NULL: the processor */
    const char *device_note; /* a sentence: "auto" did not take a card that is there, or not its best
                              * kernels, and why; NULL: nothing to tell */
    const char *kernels; /* the instruction set in use: "none", "avx2", "avx512", ...; of a card "sm_86", ... */
    int threads;
    int vocab_size;      /* rows of the output head: logits per position */
    int hidden_size;
    int context_limit;   /* max_position_embeddings of the checkpoint */
    int image_tokens;    /* tokens that one image takes; 0: the checkpoint has no vision encoder */
    int image_size;      /* side in pixels of the encoder's input */
    bool has_chat_template; /* false for a pretrained (-pt) checkpoint: the prompt is continued as it stands */
    bool not_for_clinical_use; /* the weights' terms ask to say so: Google's Health AI Developer Foundations */
    bool random_weights; /* of `ward synth`, for measuring: what the model says means nothing */
};
/* What ward has of a card's memory, now and at most so far, in bytes: weights, caches, work buffers of all models of this
 * process on that card, not what the driver takes for itself. 0 on the processor. */
WARD_API void ward_model_device_memory(const ward_model *model, size_t *now, size_t *peak);
WARD_API void ward_model_get_info(const ward_model *model, struct ward_model_info *info);

/* ---- text and tokens -------------------------------------------------------------------------------------------- */

/* Text to token ids, as Hugging Face's tokenizer does with add_special_tokens=False. With `parse_special` the special
 * tokens written in the text become control tokens; without it they stay text. *ids is allocated (ward_free), *n its
 * length. */
WARD_API WARD_CHECKED int ward_tokenize(const ward_model *model, const char *text, size_t length, bool parse_special,
                                        int32_t **ids, size_t *n, struct ward_error *err);
/* Token ids to UTF-8 text, special tokens included when `special`. *text is NUL-terminated; ward_free it. */
WARD_API WARD_CHECKED int ward_detokenize(const ward_model *model, const int32_t *ids, size_t n, bool special,
                                          char **text, size_t *length, struct ward_error *err);
WARD_API void ward_free(void *allocated);

/* ---- images ----------------------------------------------------------------------------------------------------- */

/* Decodes a JPEG or PNG to RGB, turned as its EXIF says, alpha dropped. With `warning` (may be NULL) non-empty
 * afterwards the pixels had to be interpreted (for example 16-bit values scaled by their own largest). */
struct ward_image_options {
    bool pad; /* pad with black to a centred square, as Google's own server does, instead of stretching */
};
WARD_API WARD_CHECKED int ward_image_open(ward_image **out, const char *path, const struct ward_image_options *options,
                                          char warning[256], struct ward_error *err);
WARD_API WARD_CHECKED int ward_image_read(ward_image **out, const void *bytes, size_t length, const char *name,
                                          const struct ward_image_options *options, char warning[256],
                                          struct ward_error *err);
WARD_API void ward_image_close(ward_image **image);

/* ---- asking ----------------------------------------------------------------------------------------------------- */

/* A piece of a message: exactly one of text and image. Both are borrowed until the call returns. */
struct ward_part {
    const char *text;
    const ward_image *image;
};

struct ward_message {
    const char *role; /* "system" (first only), "user", "assistant" */
    const struct ward_part *parts;
    size_t n_parts;
};

struct ward_session_options {
    int context; /* tokens of prompt and answer together; 0: 8192, or the checkpoint's own limit if less */
    bool encode_always; /* run the encoder on every image, also on one whose features the model still holds */
};
/* The session borrows the model, which must outlive it. */
WARD_API WARD_CHECKED int ward_session_open(ward_session **out, const ward_model *model,
                                            const struct ward_session_options *options, struct ward_error *err);
WARD_API void ward_session_close(ward_session **session);

struct ward_logprob {
    int32_t id;
    float logprob; /* natural logarithm, of the model's distribution before temperature and filters */
};

struct ward_token {
    int32_t id;
    const char *text;    /* whole UTF-8 characters that this token completed, NUL-terminated, may be empty */
    size_t length;       /* bytes of text, which may hold NUL */
    bool thinking;       /* inside MedGemma 1.5's thinking block: not part of the answer */
    float logprob;
    const struct ward_logprob *top; /* [n_top], most likely first */
    int n_top;
};

/* Called for every generated token, a final stop token included (its text is empty). Returning nonzero ends the answer
 * cleanly: finish is then WARD_FINISH_CANCELLED. */
typedef int ward_token_fn(void *user, const struct ward_token *token);
/* Progress of work before the first token. stage: "image" (done of total images), "prefill" (done of total tokens). */
typedef int ward_progress_fn(void *user, const char *stage, int done, int total);

struct ward_generate_options {
    int max_tokens;    /* 0: 200 */
    float temperature; /* 0: greedy */
    int top_k;         /* 0: off */
    float top_p;       /* 0 or 1: off */
    float min_p;       /* 0: off */
    uint64_t seed;
    bool ignore_eos;   /* go on after a stop token, to max_tokens */
    int logprobs;      /* how many of the likeliest tokens to report at each step */
    int draft_max;     /* tokens guessed ahead from what was said before and checked in one step: up to so many (7 at
                          most) wherever a guess is found; 0: where it is expected to pay, and never with random
                          weights, whose answers go round in circles; -1: none. The answer is the same, to the last
                          bit */
    ward_token_fn *on_token;
    ward_progress_fn *on_progress;
    void *user;        /* handed to both */
};

enum ward_finish { WARD_FINISH_STOP, WARD_FINISH_LENGTH, WARD_FINISH_CANCELLED };

struct ward_result {
    char *text;         /* the answer, special tokens and thinking left out; owned by the result */
    char *thinking;     /* or NULL */
    size_t text_length, thinking_length; /* bytes of each, which may hold NUL */
    int32_t *prompt_ids; /* after the chat template, images expanded */
    int32_t *ids;       /* every generated token */
    size_t n_prompt_ids, n_ids;
    enum ward_finish finish;
    int cached_tokens;  /* prompt tokens that the session still held and did not compute again */
    double image_ms;    /* resizing and normalising (decoding is the caller's) */
    double vision_ms, prefill_ms, decode_ms, first_token_ms, total_ms;
    int prefill_tokens; /* computed, image tokens counted */
    int decode_tokens;  /* n_ids - 1: the first token comes out of the prefill */
    int drafted_tokens, accepted_tokens; /* guessed ahead, and of them those that the model chose */
    int cached_images;  /* whose features the model still held: neither resized nor encoded again */
};

/* Answers a conversation (the last message is the user's). What the session holds of the same conversation is not
 * computed again. `options` may be NULL. On success the caller frees the result with ward_result_clear. */
WARD_API WARD_CHECKED int ward_generate(ward_session *session, const struct ward_message *messages, size_t n_messages,
                                        const struct ward_generate_options *options, struct ward_result *result,
                                        struct ward_error *err);
WARD_API void ward_result_clear(struct ward_result *result);

/* Observes the activations of later ward_generate calls, for comparing with another implementation. Called on the
 * calling thread with float32 rows [rows][cols], valid during the call. Names: "vision.embeddings", "vision.layer.N",
 * "vision.output", "image.features", "text.embeddings", "text.layer.N", "text.norm", "text.logits". first: position of
 * the first row (text) or index of the image (vision). NULL ends it. */
typedef void ward_observe_fn(void *user, const char *name, int first, int rows, int cols, const float *data);
WARD_API void ward_session_observe(ward_session *session, ward_observe_fn *observe, void *user);

#ifdef __cplusplus
}
#endif
#endif
