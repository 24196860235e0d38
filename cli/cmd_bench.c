/* ward bench: the page's protocol on this machine, against its targets. */
#include "bench_compare.h"
#include "bench_report.h"
#include "bench_view.h"
#include "input.h"
#include "interrupt.h"
#include "lock.h"
#include "model_pin.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "use.h"

#include "base/new_file.h"
#include "bench/document.h"
#include "engine/device.h"
#include "model/checkpoint.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int run(int argc, char **argv);

const struct command command_bench = {
    .name = "bench",
    .summary = "measure latency, memory, disk and energy against targets",
    .usage = "bench -m MODEL [-i IMAGE] [options] [PROMPT]",
    .help =
        "Examples:\n"
        "  ward bench -m ./models                                 3 warm-ups, 10 runs of a drawn film and a question\n"
        "  ward bench -m ./models -i xray.png --fixed -o json > this-machine.json\n"
        "  ward bench -m medgemma-int4.gguf -m medgemma-int8.gguf -t 1,2,4 -r 3\n"
        "  ward bench -m ./models -p 512,2048 -n 0                prefill only, as llama-bench has it\n"
        "  ward bench --from this-machine.json --report this-machine.html\n"
        "  ward bench --compare before.json after.json\n"
        "\n"
        "PROMPT: the question (\"Describe this X-ray.\"); -: it is read from standard input. Neither it nor the name\n"
        "of the image is written anywhere: results name them by SHA-256.\n"
        "\n"
        "  -m, --model MODEL          as for run; may be repeated\n"
        "      --mmproj FILE|none     GGUF file of the image encoder (the one beside the model's)\n"
        "      --model-hash SHA256    measure this model only (ward hash); of several, once for each -m\n"
        "  -i, --image FILE|none      JPEG or PNG (a drawn film, where the model has an encoder)\n"
        "      --pad                  pad the image to a black square instead of stretching it\n"
        "  -n, --max-tokens N,...     longest answer (200); 0: prefill only\n"
        "  -p, --prompt-tokens N,...  no image unless -i gives one, and words up to a prompt of N tokens\n"
        "  -t, --threads N,...        (all processors)\n"
        "      --device NAME,...      auto, cpu, cuda, cuda:N (auto)\n"
        "                             Lists, ranges (1-8, 1-8+2, 1-8*2) and repeated options are swept: every\n"
        "                             combination is a result\n"
        "  -r, --runs N               timed runs (10)\n"
        "      --warmups N            runs before them (3)\n"
        "      --warmup-tokens N      longest answer of those (100)\n"
        "      --fixed                go on to N tokens, whatever the model says\n"
        "      --target-ms MS         PASS when the mean is within it (5000 for an image on a CPU)\n"
        "      --draft-max N|auto     tokens guessed ahead (0: none); auto: as run does\n"
        "      --limits               also measure what the machine can do at most, and each stage's share of it\n"
        "      --keep-caches          keep what the session and the model remember from run to run\n"
        "      --no-cold              leave the page cache as it is: no cold start is measured\n"
        "      --ctx N                tokens of prompt and answer (8192, or what the prompt needs)\n"
        "      --cpu-mask NAME        highest instruction set allowed: none, avx2, avx512, amx (the best there is)\n"
        "  -o, --output FORMAT        table, md, json, jsonl, csv (table)\n"
        "      --report FILE.html     also one page with plots, which needs nothing beside it\n"
        "      --from FILE.json       show a saved result instead of measuring\n"
        "      --compare A.json B.json    what changed from A to B, the noise considered\n",
    .run = run,
    .audited = true,
};

struct ints {
    int *at;
    size_t n;
};

struct bench_command {
    const char **models, **devices;
    struct model_pin *pins; /* of each model */
    size_t n_models, n_pins, n_devices;
    struct ints threads, prompts, answers;
    struct bench_settings settings; /* the common ones */
    const char *image, *prompt, *from, *report, *before, *after;
    bool compare, limits;
    double target_ms; /* negative: not given */
    int format;
};

enum { FORMAT_TABLE, FORMAT_MD, FORMAT_JSON, FORMAT_JSONL, FORMAT_CSV };
enum {
    OPT_MMPROJ = 256, OPT_PAD, OPT_DEVICE, OPT_WARMUPS, OPT_WARMUP_TOKENS, OPT_FIXED, OPT_TARGET_MS, OPT_DRAFT_MAX,
    OPT_KEEP_CACHES, OPT_NO_COLD, OPT_CTX, OPT_CPU_MASK, OPT_FROM, OPT_REPORT,
    OPT_COMPARE, OPT_LIMITS, OPT_MODEL_HASH,
};

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"mmproj", required_argument, NULL, OPT_MMPROJ},
    {"model-hash", required_argument, NULL, OPT_MODEL_HASH},
    {"image", required_argument, NULL, 'i'},
    {"pad", no_argument, NULL, OPT_PAD},
    {"max-tokens", required_argument, NULL, 'n'},
    {"prompt-tokens", required_argument, NULL, 'p'},
    {"threads", required_argument, NULL, 't'},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"runs", required_argument, NULL, 'r'},
    {"warmups", required_argument, NULL, OPT_WARMUPS},
    {"warmup-tokens", required_argument, NULL, OPT_WARMUP_TOKENS},
    {"fixed", no_argument, NULL, OPT_FIXED},
    {"target-ms", required_argument, NULL, OPT_TARGET_MS},
    {"draft-max", required_argument, NULL, OPT_DRAFT_MAX},
    {"limits", no_argument, NULL, OPT_LIMITS},
    {"keep-caches", no_argument, NULL, OPT_KEEP_CACHES},
    {"no-cold", no_argument, NULL, OPT_NO_COLD},
    {"ctx", required_argument, NULL, OPT_CTX},
    {"cpu-mask", required_argument, NULL, OPT_CPU_MASK},
    {"output", required_argument, NULL, 'o'},
    {"from", required_argument, NULL, OPT_FROM},
    {"report", required_argument, NULL, OPT_REPORT},
    {"compare", no_argument, NULL, OPT_COMPARE},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

static int whole(const char *name, const char *text, int low, int high)
{
    return (int)option_integer(&command_bench, name, text, low, high);
}

static void add_int(struct ints *list, int value)
{
    list->at = must_realloc(list->at, list->n + 1, sizeof *list->at);
    list->at[list->n++] = value;
}

/* "4", "1-8", "1-8+2", "1-8*2": as llama-bench has them. */
static void add_range(struct ints *list, const char *name, const char *text, int low, int high)
{
    enum { MOST = 1000 };
    char first[16], last[16];
    const char *dash = strchr(text, '-');
    if (!dash || dash == text) {
        add_int(list, whole(name, text, low, high));
        return;
    }
    const size_t length = strcspn(dash + 1, "+*");
    snprintf(first, sizeof first, "%.*s", (int)(dash - text), text);
    snprintf(last, sizeof last, "%.*s", (int)length, dash + 1);
    const int from = whole(name, first, low, high), to = whole(name, last, from, high);
    const char *step = dash + 1 + length;
    const bool multiply = *step == '*';
    const int by = *step ? whole(name, step + 1, multiply ? 2 : 1, high) : 1;
    if (multiply && from == 0)
        die_usage(&command_bench, "bench: option %s: a range that is multiplied begins at 1 or more, not '%s'", name,
                  text);
    for (long long value = from; value <= to && list->n < MOST; value = multiply ? value * by : value + by)
        add_int(list, (int)value);
}

static void add_ints(struct ints *list, const char *name, char *text, int low, int high)
{
    char *rest = text, *item;
    while ((item = strsep(&rest, ",")))
        add_range(list, name, item, low, high);
}

static void add_text(const char ***list, size_t *n, const char *text)
{
    *list = must_realloc(*list, *n + 1, sizeof **list);
    (*list)[(*n)++] = text;
}

static void add_devices(struct bench_command *b, char *text)
{
    char *rest = text, *item;
    while ((item = strsep(&rest, ",")))
        add_text(&b->devices, &b->n_devices, option_device(&command_bench, item));
}

static void add_pin(struct bench_command *b, const char *text)
{
    struct model_pin pin = {0};
    model_pin_option(&pin, &command_bench, text);
    b->pins = must_realloc(b->pins, b->n_pins + 1, sizeof *b->pins);
    b->pins[b->n_pins++] = pin;
}

static void set_option(struct bench_command *b, int c)
{
    static const char *const formats[] = {"table", "md", "json", "jsonl", "csv", NULL};
    struct bench_settings *s = &b->settings;
    switch (c) {
    case 'm': add_text(&b->models, &b->n_models, optarg); break;
    case OPT_MMPROJ: s->model.mmproj = optarg; break;
    case OPT_MODEL_HASH: add_pin(b, optarg); break;
    case 'i': b->image = optarg; break;
    case OPT_PAD: s->image_options.pad = true; break;
    case 'n': add_ints(&b->answers, "--max-tokens", optarg, 0, 1 << 20); break;
    case 'p': add_ints(&b->prompts, "--prompt-tokens", optarg, 0, 1 << 20); break;
    case 't': add_ints(&b->threads, "--threads", optarg, 1, 1024); break;
    case OPT_DEVICE: add_devices(b, optarg); break;
    case 'r': s->runs = whole("--runs", optarg, 1, 100000); break;
    case OPT_WARMUPS: s->warmups = whole("--warmups", optarg, 0, 1000); break;
    case OPT_WARMUP_TOKENS: s->warmup_tokens = whole("--warmup-tokens", optarg, 1, 1 << 20); break;
    case OPT_FIXED: s->fixed = true; break;
    case OPT_TARGET_MS: b->target_ms = option_number(&command_bench, "--target-ms", optarg, 1e-3, 1e9); break;
    case OPT_DRAFT_MAX:
        s->draft_max = strcmp(optarg, "auto") == 0 ? 0 : whole("--draft-max", optarg, 0, 7);
        if (s->draft_max == 0 && strcmp(optarg, "auto") != 0)
            s->draft_max = -1;
        break;
    case OPT_LIMITS: b->limits = true; break;
    case OPT_KEEP_CACHES: s->keep_caches = true; break;
    case OPT_NO_COLD: s->cold = false; break;
    case OPT_CTX: s->context = whole("--ctx", optarg, 1, 1 << 24); break;
    case OPT_CPU_MASK: s->model.cpu_mask = optarg; break;
    case 'o': b->format = option_choice(&command_bench, "--output", optarg, formats); break;
    case OPT_FROM: b->from = optarg; break;
    case OPT_REPORT: b->report = optarg; break;
    case OPT_COMPARE: b->compare = true; break;
    }
}

static void parse(struct bench_command *b, int argc, char **argv)
{
    int c;
    while ((c = options_next(&command_bench, argc, argv, options)) != -1)
        set_option(b, c);
    if (b->compare) {
        if (argc - optind != 2 || b->n_models || b->from || b->report || b->format > FORMAT_MD)
            die_usage(&command_bench, "bench: --compare takes two saved results, and -o table or md");
        b->before = argv[optind];
        b->after = argv[optind + 1];
        return;
    }
    if (argc - optind > 1)
        die_usage(&command_bench, "bench: one PROMPT is expected, %d were given: put it in quotes", argc - optind);
    b->prompt = optind < argc ? argv[optind] : NULL;
    if (b->from && (b->n_models || b->prompt))
        die_usage(&command_bench, "bench: --from shows what was measured: leave -m and PROMPT out");
    if (!b->from && !b->n_models)
        die_usage(&command_bench, "bench: which model? give its folder with -m");
    if (b->n_pins && b->n_pins != b->n_models)
        die_usage(&command_bench, "bench: %zu models and %zu times --model-hash were given: one for each is expected",
                  b->n_models, b->n_pins);
    if (b->prompts.n && b->prompt)
        die_usage(&command_bench, "bench: -p makes a prompt of words: leave PROMPT out");
    if (!b->answers.n)
        add_int(&b->answers, 200);
    if (!b->threads.n)
        add_int(&b->threads, 0);
    if (!b->n_devices)
        add_text(&b->devices, &b->n_devices, "auto");
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

struct sweep {
    const struct bench_command *command;
    struct bench_image image;
    struct bench_result *results;
    size_t n, total;
    bool complete;
    struct limits *limits; /* [threads.n] of the command; zeros: not measured yet */
    struct card_limits *card_limits; /* [n_devices] */
};

static void on_progress(void *user, const char *what, int done, int total)
{
    const struct sweep *sweep = user;
    char text[32];
    snprintf(text, sizeof text, sweep->total > 1 ? "%zu/%zu %s" : "%.0zu%.0zu%s", sweep->total > 1 ? sweep->n + 1 : 0,
             sweep->total > 1 ? sweep->total : 0, what);
    progress_show(text, done, total);
}

static bool on_stop(void *user)
{
    (void)user;
    return interrupt_pending();
}

/* Whether each model can be opened, before anything is measured, and has an encoder for the image. */
static bool any_sees(const struct bench_command *b)
{
    bool any = false;
    for (size_t i = 0; i < b->n_models; i++) {
        struct model_config config;
        struct ward_error err;
        if (checkpoint_read_config(&config, b->models[i], b->settings.model.mmproj, &err))
            die_error(&err);
        if (!config.image_tokens && b->image && strcmp(b->image, "none") != 0)
            die("%s: has no image encoder; leave -i out, or give its file by --mmproj", b->models[i]);
        any |= config.image_tokens > 0;
    }
    return any;
}

static bool sees(const struct bench_command *b, const char *model)
{
    struct model_config config;
    struct ward_error err;
    if (checkpoint_read_config(&config, model, b->settings.model.mmproj, &err))
        die_error(&err);
    return config.image_tokens > 0;
}

static void prepare_image(struct sweep *sweep)
{
    const struct bench_command *b = sweep->command;
    const bool wanted = b->image ? strcmp(b->image, "none") != 0 : !b->prompts.n;
    char warning[256];
    struct ward_error err;
    if (!any_sees(b) || !wanted)
        return;
    if (bench_image_open(&sweep->image, b->image, &b->settings.image_options, warning, &err))
        die_error(&err);
    if (*warning)
        print_warning("%s", warning);
}

/* The number of the card that a device names; -1: none, or none is here. A mask of instructions asks for the
 * processor. */
static int card_of(const struct bench_command *b, const char *name)
{
    bool driver = false;
    int device = -1;
    if (!device_parse(name, &device) || device >= 0)
        return device;
    const bool wanted = device == DEVICE_FIRST_CARD || !b->settings.model.cpu_mask;
    return wanted && ward_device_prepare(name, &driver, NULL) == 0 && driver ? 0 : -1;
}

/* Of the processor with so many threads, and of the card. Measured before and after each result, the best of all: what
 * else a machine does only slows. */
static const struct limits *limits_with(struct sweep *sweep, size_t threads)
{
    const int isa = isa_parse(sweep->command->settings.model.cpu_mask);
    struct limits *best = &sweep->limits[threads], now;
    struct ward_error err;
    if (isa < 0)
        return NULL;
    if (limits_measure(&now, sweep->command->threads.at[threads], (enum isa)isa, &err))
        die_error(&err);
    now.read_bytes = fmax(now.read_bytes, best->read_bytes);
    now.read_bytes_one = fmax(now.read_bytes_one, best->read_bytes_one);
    for (int kind = 0; kind < LIMITS_MULTIPLIES; kind++)
        now.multiply[kind] = fmax(now.multiply[kind], best->multiply[kind]);
    *best = now;
    return best;
}

static const struct card_limits *limits_of_card(struct sweep *sweep, size_t device, int card)
{
    struct card_limits now;
    struct ward_error err;
    if (!card_limits_measure(&now, card, &err)) {
        card_limits_keep_best(&sweep->card_limits[device], &now);
        return &sweep->card_limits[device];
    }
    if (strcmp(sweep->command->devices[device], "auto") != 0)
        die_error(&err);
    return NULL; /* the processor will compute */
}

static void look_at_limits(struct sweep *sweep, struct bench_settings *s, size_t device, size_t threads)
{
    const char *name = sweep->command->devices[device];
    const int card = card_of(sweep->command, name);
    s->limits = NULL;
    s->card_limits = NULL;
    if (!sweep->command->limits)
        return;
    progress_show("limits", 0, 0);
    if (card >= 0)
        s->card_limits = limits_of_card(sweep, device, card);
    if (strncmp(name, "cuda", 4) != 0)
        s->limits = limits_with(sweep, threads);
    progress_clear();
}

/* One result; false: it failed, or the user wants no more. */
static bool measure(struct sweep *sweep, const struct bench_settings *settings)
{
    const struct bench_hooks hooks = {on_progress, on_stop, sweep};
    struct ward_error err;
    sweep->results = must_realloc(sweep->results, sweep->n + 1, sizeof *sweep->results);
    struct bench_result *r = &sweep->results[sweep->n];
    const int rc = bench_measure(r, settings, &hooks, &err);
    progress_clear();
    if (rc) {
        bench_result_clear(r);
        if (!sweep->n) {
            print_error("%s", err.text);
            exit(rc == WARD_EINVAL ? EXIT_USAGE : EXIT_FAILED);
        }
        print_error("%s", err.text);
        return false;
    }
    sweep->n++;
    return r->complete;
}

static bool measure_model(struct sweep *sweep, struct bench_settings *s)
{
    const struct bench_command *b = sweep->command;
    const struct ints page = {(int[]){0}, 1}, *prompts = b->prompts.n ? &b->prompts : &page;
    const bool cold = s->cold;
    for (size_t d = 0; d < b->n_devices; d++)
        for (size_t t = 0; t < b->threads.n; t++)
            for (size_t p = 0; p < prompts->n; p++)
                for (size_t n = 0; n < b->answers.n; n++) {
                    s->model.device = b->devices[d];
                    s->model.threads = b->threads.at[t];
                    s->prompt_tokens = b->prompts.n && !prompts->at[p] ? 1 : prompts->at[p];
                    s->max_tokens = b->answers.at[n];
                    look_at_limits(sweep, s, d, t);
                    const bool done = measure(sweep, s);
                    look_at_limits(sweep, s, d, t);
                    if (!done)
                        return false;
                    s->cold = false; /* once for a model: it is the disk's */
                }
    s->cold = cold;
    return true;
}

/* The number of the card that the sweep computes on, if any: its idle power is measured first. -1: none. */
static int first_card(const struct bench_command *b)
{
    int card = -1;
    for (size_t i = 0; i < b->n_devices && card < 0; i++)
        card = card_of(b, b->devices[i]);
    return card;
}

static void measure_all(struct sweep *sweep)
{
    const struct bench_command *b = sweep->command;
    struct bench_settings s = b->settings;
    sweep->total = b->n_models * b->n_devices * b->threads.n * (b->prompts.n ? b->prompts.n : 1) * b->answers.n;
    sweep->limits = must_realloc(NULL, b->threads.n, sizeof *sweep->limits);
    memset(sweep->limits, 0, b->threads.n * sizeof *sweep->limits);
    sweep->card_limits = must_realloc(NULL, b->n_devices, sizeof *sweep->card_limits);
    memset(sweep->card_limits, 0, b->n_devices * sizeof *sweep->card_limits);
    prepare_image(sweep);
    progress_show("idle", 0, 0);
    bench_idle(2000, first_card(b), &s.idle_watts, &s.card_idle_watts);
    interrupt_catch(SIGINT);
    interrupt_catch(SIGTERM);
    sweep->complete = true;
    for (size_t m = 0; m < b->n_models && sweep->complete; m++) {
        s.model_path = b->models[m];
        s.model_sha256 = model_pin_hex(&b->pins[m]);
        s.image = sweep->image.bytes && sees(b, b->models[m]) ? &sweep->image : NULL;
        s.cold = b->settings.cold;
        sweep->complete = measure_model(sweep, &s);
        model_pin_recheck(&b->pins[m]);
    }
}

/* ---- the outcome ------------------------------------------------------------------------------------------------- */

static struct json_document *make_document(struct sweep *sweep, const char *prompt, const char *started)
{
    const struct bench_command *b = sweep->command;
    struct bench_settings protocol = b->settings;
    struct machine machine;
    struct json_document *document;
    struct ward_error err;
    char hash[SHA256_HEX + 1];
    uint8_t digest[SHA256_BYTES];
    size_t length;
    machine_read(&machine, "");
    if (sweep->image.bytes)
        protocol.image = &sweep->image;
    sha256_of(digest, prompt, strlen(prompt));
    sha256_hex(hash, digest);
    struct bench_document d = {
        .protocol = &protocol, .machine = &machine, .started = started, .prompt_sha256 = b->prompts.n ? NULL : hash,
        .prompt_given = b->prompt != NULL, .complete = sweep->complete,
    };
    /* The page's targets are for an image and a question; that of a desktop's GPU is for what it computed. */
    bool on_card = sweep->n > 0;
    for (size_t i = 0; i < sweep->n; i++)
        on_card &= strcmp(sweep->results[i].device, "cuda") == 0;
    if (b->target_ms > 0) {
        d.target_ms = b->target_ms;
        d.target_from = "option";
    } else if (!b->prompts.n && sweep->image.bytes) {
        const enum machine_class class =
            machine.class == MACHINE_DESKTOP_GPU && !on_card ? MACHINE_DESKTOP : machine.class;
        d.target_ms = machine_target_ms(class);
        d.target_from = machine_class_name(class);
    }
    struct json_writer *w = json_writer_new(true);
    if (!w)
        die("out of memory");
    bench_write_document(w, &d, sweep->results, sweep->n);
    const char *text = json_writer_text(w, &length);
    if (!text)
        die("out of memory");
    if (json_parse(&document, text, length, "the results", &err))
        die_error(&err);
    json_writer_free(&w);
    return document;
}

static struct json_document *read_document(const char *path)
{
    enum { LIMIT = 256 << 20 };
    struct json_document *document;
    struct ward_error err;
    int64_t version;
    if (json_read(&document, path, LIMIT, &err))
        die_error(&err);
    const struct json *root = json_root(document);
    if (!json_string_is(json_get(root, "format"), BENCH_FORMAT))
        die("%s: is no result of ward bench: \"format\": \"" BENCH_FORMAT "\" is expected", path);
    if (!json_integer(json_get(root, "version"), BENCH_VERSION, BENCH_VERSION, &version))
        die("%s: is of another version of the format; %d is expected", path, BENCH_VERSION);
    return document;
}

static void show(const struct bench_command *b, const struct json *document)
{
    struct json_writer *w;
    switch (b->format) {
    case FORMAT_TABLE: bench_print_text(document); break;
    case FORMAT_MD: bench_print_markdown(document); break;
    case FORMAT_CSV: bench_print_csv(document); break;
    case FORMAT_JSONL: bench_print_lines(document); break;
    case FORMAT_JSON:
        w = json_writer_new(true);
        if (w)
            json_write_value(w, NULL, document);
        output_json_line(&w);
        break;
    }
    output_flush();
}

static int compare(const struct bench_command *b)
{
    struct json_document *before = read_document(b->before), *after = read_document(b->after);
    struct tables tables;
    bench_compare(&tables, json_root(before), json_root(after));
    if (!tables.n)
        die("%s and %s: have no test in common: none with the same image, tokens, threads and device", b->before,
            b->after);
    for (size_t i = 0; i < tables.n; i++)
        (b->format == FORMAT_MD ? table_print_markdown : table_print_text)(&tables.at[i]);
    output_flush();
    tables_free(&tables);
    json_close(&before);
    json_close(&after);
    return 0;
}

/* Where models are pinned they are hashed; else what is remembered is looked up, before the lock: it lies in the user's
 * cache. */
static void hash_models(struct bench_command *b)
{
    const char *mmproj = b->settings.model.mmproj;
    if (!b->n_pins) {
        b->pins = must_realloc(NULL, b->n_models, sizeof *b->pins);
        memset(b->pins, 0, b->n_models * sizeof *b->pins);
    }
    for (size_t i = 0; i < b->n_models; i++) {
        if (b->n_pins)
            model_pin_check(&b->pins[i], b->models[i], mmproj, 0);
        else
            model_pin_look_up(&b->pins[i], b->models[i], mmproj);
    }
}

/* What measuring reads: the models, the image, and what the kernel tells of the machine. */
static void lock_in(const struct bench_command *b, bool hashing)
{
    static const char *const machine[] = {"/proc/cpuinfo", "/proc/loadavg", "/proc/meminfo",   "/proc/stat",
                                          "/proc/swaps",   "/sys",          "/etc/os-release", "/var/lib/nvpmodel",
                                          "/etc/nvpmodel.conf",
                                          "/etc/localtime", "/proc/driver/nvidia", "/proc/sys/kernel/osrelease"};
    struct offline_policy policy = {0};
    struct ward_error err;
    for (size_t i = 0; i < sizeof machine / sizeof *machine; i++)
        offline_allow(&policy, OFFLINE_READ, machine[i]);
    if (b->image && strcmp(b->image, "none") != 0)
        offline_allow(&policy, OFFLINE_READ, b->image);
    offline_allow(&policy, OFFLINE_READ, b->from);
    offline_allow(&policy, OFFLINE_READ, b->before);
    offline_allow(&policy, OFFLINE_READ, b->after);
    offline_allow(&policy, OFFLINE_OUTPUT, b->report);
    if (hashing)
        model_pin_allow(&policy);
    for (size_t i = 0; i < b->n_models; i++)
        if (lock_allow_model(&policy, b->models[i], b->settings.model.mmproj, &err))
            die_error(&err);
    for (size_t i = 0; i < b->n_devices && b->n_models; i++)
        lock_allow_device(&policy, b->devices[i]);
    lock_enforce(&policy);
}

/* Tried before anything is measured: where no file can be made, nobody waits in vain. */
static void try_report(const char *path)
{
    struct new_file file;
    struct ward_error err;
    if (new_file_open(&file, path, &err))
        die_error(&err);
    new_file_discard(&file);
}

static void write_report(const char *path, const struct json *document)
{
    size_t length;
    struct ward_error err;
    char *page = bench_report(document, &length);
    if (new_file_put(path, page, length, &err))
        die_error(&err);
    free(page);
}

static void release(struct bench_command *b, struct sweep *sweep)
{
    for (size_t i = 0; i < sweep->n; i++)
        bench_result_clear(&sweep->results[i]);
    free(sweep->results);
    free(sweep->limits);
    free(sweep->card_limits);
    bench_image_clear(&sweep->image);
    for (size_t i = 0; b->pins && i < b->n_models; i++)
        model_pin_free(&b->pins[i]);
    free(b->pins);
    free(b->models);
    free(b->devices);
    free(b->threads.at);
    free(b->prompts.at);
    free(b->answers.at);
}

static int run(int argc, char **argv)
{
    struct bench_command b = {
        .settings = {.warmups = 3, .warmup_tokens = 100, .runs = 10, .draft_max = -1, .cold = true}, .target_ms = -1,
    };
    struct sweep sweep = {.command = &b, .complete = true};
    struct json_document *document;
    char *typed = NULL, started[32];
    bool failed = false;
    parse(&b, argc, argv);
    use_open();
    if (b.n_pins)
        lock_in(&b, true);
    hash_models(&b);
    lock_in(&b, false);
    if (b.compare) {
        release(&b, &sweep);
        return compare(&b);
    }
    if (b.from) {
        document = read_document(b.from);
    } else {
        const time_t now = time(NULL);
        struct tm utc;
        size_t length;
        strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
        if (b.prompt && strcmp(b.prompt, "-") == 0)
            typed = input_read(&length);
        b.settings.prompt = typed ? typed : b.prompt ? b.prompt : "Describe this X-ray.";
    }
    if (b.report)
        try_report(b.report);
    if (!b.from) {
        for (size_t i = 0; i < b.n_models; i++)
            use_add_measured(b.models[i], model_pin_hex(&b.pins[i]));
        use_begin();
        measure_all(&sweep);
        document = make_document(&sweep, b.settings.prompt, started);
        failed = !sweep.complete && !interrupt_pending();
    }
    show(&b, json_root(document));
    if (b.report)
        write_report(b.report, json_root(document));
    json_close(&document);
    release(&b, &sweep);
    free(typed);
    return sweep.complete ? 0 : failed ? EXIT_FAILED : EXIT_INTERRUPTED;
}
