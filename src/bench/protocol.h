/* The page's protocol: warm-ups, then timed runs of an image and a question, every stage apart. One measurement is of
 * one model in one setting; a sweep is many of them. */
#ifndef WARD_BENCH_PROTOCOL_H
#define WARD_BENCH_PROTOCOL_H

#include "bench/card_facts.h"
#include "bench/card_limits.h"
#include "bench/energy.h"
#include "bench/footprint.h"
#include "bench/limits.h"
#include "bench/machine.h"
#include "bench/watch.h"

#include "base/sha256.h"

/* The parts of an answer, in their order; together they are the whole. */
enum bench_stage {
    BENCH_IMAGE,       /* decoding the file, resizing, normalising */
    BENCH_VISION,      /* the encoder */
    BENCH_PREFILL,     /* the decoder over the prompt */
    BENCH_FIRST_TOKEN, /* making the prompt, drawing the first token and handing it out */
    BENCH_DECODE,      /* every further token */
    BENCH_STAGES,
};
extern const char *const bench_stage_names[BENCH_STAGES]; /* "image", "vision", ... */

struct bench_image {
    uint8_t *bytes; /* of the file */
    size_t length;
    char sha256[SHA256_HEX + 1];
    int width, height;
    bool drawn; /* by film_draw, for want of another */
};
/* path NULL: a drawn film. The file is decoded once, so that what is no image is refused. `warning` as in
 * ward_image_open. */
WARD_CHECKED int bench_image_open(struct bench_image *out, const char *path, const struct ward_image_options *options,
                                  char warning[256], struct ward_error *err);
void bench_image_clear(struct bench_image *image);

struct bench_settings {
    const char *model_path;
    const char *model_sha256; /* `ward hash`; NULL: not known */
    struct ward_model_options model;
    const char *prompt;      /* the question, where prompt_tokens is 0 */
    int prompt_tokens;       /* words instead, for a prompt of so many tokens, the image's included */
    const struct bench_image *image; /* NULL: none. Left out where the model has no encoder */
    struct ward_image_options image_options;
    int max_tokens;          /* of an answer; 0: the prompt alone */
    int warmups, warmup_tokens, runs;
    int context;             /* 0: as ward_session_options, or more where the prompt needs it */
    int draft_max;           /* as ward_generate_options: -1 none */
    bool fixed;              /* go on after a stop token, to max_tokens */
    bool keep_caches;        /* the session goes on from run to run, features of images are kept */
    bool cold;               /* the files are dropped from the page cache first */
    const struct limits *limits; /* of this machine with as many threads; NULL: not measured */
    const struct card_limits *card_limits; /* of the card that may compute; NULL: not measured */
    double idle_watts;       /* of the machine, taken off what a run has used; negative: not measured */
    double card_idle_watts;  /* of the card, if one computes */
};

struct bench_run {
    double ms[BENCH_STAGES];
    double latency_ms;    /* from handing in the image's file to the whole answer */
    double ttft_ms;       /* to the first token with text; NAN: there was none */
    double start, first, end; /* clock_ms: of the run, its first token, its last */
    double looked;        /* when memory was looked at after it */
    double vision_from, vision_to;
    int tokens;           /* that came out */
    int prompt_tokens, prefilled, drafted, accepted;
    bool stopped;         /* by the model, before max_tokens */
    size_t first_gap, n_gaps; /* of bench_result.gaps: its tokens after the first */
};

struct bench_phase {
    uint64_t resident, anonymous, mapped, shared; /* bytes when the resident set was largest */
    uint64_t device;                              /* of a card, at most in the phase */
    bool known;
};

enum { BENCH_WARNINGS = 12, BENCH_SERIES = 300, BENCH_WARM_OPENS = 3 };

struct bench_result {
    struct bench_settings settings;
    char *model_name;         /* the last part of its path */
    struct ward_model_info info; /* its texts are copies, or NULL: path, mmproj */
    char type[16], device[16], kernels[16];
    char device_name[128];    /* of a card */
    bool complete;            /* false: it was interrupted; what is here was measured */
    bool random_weights;
    int context;

    struct bench_run *runs;   /* [n_runs] */
    size_t n_runs;
    double *gaps;             /* ms from a token to the next, run after run */
    size_t n_gaps;

    double cold_open_ms;        /* NAN: not measured */
    double cold_first_token_ms; /* from opening to the first token of the first answer */
    double cold_resident;     /* share of the files that was still in memory: 0 is a cold start; negative: not told */
    double warm_open_ms[BENCH_WARM_OPENS];
    size_t n_warm_opens;

    struct bench_phase load, with_image, steady;
    struct memory_now end;    /* after the last run, the session still open */
    struct buffer_sizes buffers;
    struct model_work work;
    uint64_t session_seen, encoder_seen; /* private memory that they added */
    struct watch_sample series[BENCH_SERIES]; /* ms from the start of the measurement */
    size_t n_series;
    struct watch_cost watch;
    struct footprint footprint;

    const char *energy_source, *energy_reason; /* as struct energy */
    double idle_watts;        /* that were taken off; NAN: not known */
    double joules_token, joules_image, joules_run; /* means, idle taken off where it is known; NAN: not known */
    struct machine_state before, after; /* the timed runs */
    struct card_facts card;   /* that computed; all zeros: the processor */
    struct nvml_state card_before, card_after; /* if it has a meter */
    double others_busy;       /* share of the machine's processors that other programs used; NAN: too short to tell */

    char warnings[BENCH_WARNINGS][200];
    int n_warnings;
};

struct bench_hooks {
    /* What is being done: "opening", "warm-up" or "run", done of total. */
    void (*progress)(void *user, const char *what, int done, int total);
    bool (*stop)(void *user); /* whether to end with what there is */
    void *user;
};

/* The mean power while nothing is computed, over `ms`, of the machine and of a card (-1: none); negative where there is no
 * meter. */
void bench_idle(double ms, int card, double *watts, double *card_watts);
/* Measures. Interrupted by hooks->stop, it returns 0 with what was measured and complete false. *out is to be cleared
 * in any case. */
WARD_CHECKED int bench_measure(struct bench_result *out, const struct bench_settings *settings,
                               const struct bench_hooks *hooks, struct ward_error *err);
void bench_result_clear(struct bench_result *result);

#endif
