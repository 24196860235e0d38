/* ward quantize: a checkpoint as GGUF files of fewer bits. */
#include "interrupt.h"
#include "lock.h"
#include "model_pin.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "use.h"

#include "base/json.h"
#include "model/checkpoint.h"
#include "quant/quantize.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int run(int argc, char **argv);

const struct command command_quantize = {
    .name = "quantize",
    .summary = "make a checkpoint smaller: INT8 or INT4, as GGUF files",
    .usage = "quantize IN OUT.gguf [--type TYPE] [--mmproj OUT2.gguf] [options]",
    .help =
        "Examples:\n"
        "  ward quantize ./models medgemma-int4.gguf         text; mmproj-medgemma-int4.gguf beside it\n"
        "  ward quantize google/medgemma-4b-it medgemma-int8.gguf --type int8\n"
        "  ward quantize medgemma-BF16.gguf out/medgemma-Q4_0.gguf --type q4_0 --mmproj out/mmproj.gguf\n"
        "  ward run -m medgemma-int4.gguf -i xray.png \"Describe this X-ray.\"\n"
        "\n"
        "IN: folder of a checkpoint, a GGUF file of floats, ORG/NAME in the local Hugging Face cache, or\n"
        "NAME[:TAG] in Ollama's store. OUT.gguf: the text model. The image encoder goes to a file of its own, as\n"
        "llama.cpp has it. Files appear when they are complete, or not at all.\n"
        "\n"
        "      --type TYPE            int4 = q4_k_m, q4_0, int8 = q8_0, bf16, f16, f32 (int4)\n"
        "                             int4: 4.5 bits a weight, 6.6 for the embedding, 5.5 for the values of\n"
        "                             attention; the image encoder stays at 8.5\n"
        "      --mmproj FILE|none     where the image encoder goes; none: text alone (mmproj-OUT.gguf, beside it)\n"
        "      --source-mmproj FILE   the image encoder of IN, if that is a GGUF file (the one beside it)\n"
        "      --name TEXT            the model's name in the files (that of IN)\n"
        "      --allow-requantize     take weights that are quantized already\n"
        "      --model-hash SHA256    refuse IN if its hash ('ward hash') is another\n"
        "      --force                replace files that exist\n"
        "      --json                 one JSON object instead of text\n"
        "  -t, --threads N            (all processors)\n",
    .run = run,
    .audited = true,
};

struct quantize_command {
    const char *in, *source_mmproj;
    struct quantize_options options;
    char *vision_path, *notice_path; /* where they are not given */
    struct model_pin pin;
    bool force, json;
};

enum { OPT_TYPE = 256, OPT_MMPROJ, OPT_SOURCE_MMPROJ, OPT_NAME, OPT_REQUANTIZE, OPT_FORCE, OPT_JSON, OPT_MODEL_HASH };

static const struct option options[] = {
    {"type", required_argument, NULL, OPT_TYPE},
    {"mmproj", required_argument, NULL, OPT_MMPROJ},
    {"source-mmproj", required_argument, NULL, OPT_SOURCE_MMPROJ},
    {"name", required_argument, NULL, OPT_NAME},
    {"allow-requantize", no_argument, NULL, OPT_REQUANTIZE},
    {"model-hash", required_argument, NULL, OPT_MODEL_HASH},
    {"force", no_argument, NULL, OPT_FORCE},
    {"json", no_argument, NULL, OPT_JSON},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

static enum quant_type type_option(const char *text)
{
    static const struct {
        const char *name;
        enum quant_type type;
    } types[] = {{"int4", QUANT_Q4_K_M}, {"q4_k_m", QUANT_Q4_K_M}, {"q4_0", QUANT_Q4_0}, {"int8", QUANT_Q8_0},
                 {"q8_0", QUANT_Q8_0},   {"bf16", QUANT_BF16},     {"f16", QUANT_F16},   {"f32", QUANT_F32}};
    enum { N = sizeof types / sizeof *types };
    const char *names[N + 1] = {0};
    char lower[16];
    size_t i = 0;
    for (; text[i] && i + 1 < sizeof lower; i++)
        lower[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
    lower[i] = '\0';
    for (int k = 0; k < N; k++)
        names[k] = types[k].name;
    return types[option_choice(&command_quantize, "--type", text[i] ? text : lower, names)].type;
}

/* DIR/NAME.gguf -> DIR/PREFIX NAME SUFFIX */
static char *beside(const char *path, const char *prefix, const char *suffix, bool stem)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot = strrchr(base, '.');
    const size_t length = stem && dot ? (size_t)(dot - base) : strlen(base);
    char *out;
    if (asprintf(&out, "%.*s%s%.*s%s", (int)(base - path), path, prefix, (int)length, base, suffix) < 0)
        die("out of memory");
    return out;
}

static void parse(struct quantize_command *q, int argc, char **argv)
{
    const struct command *command = &command_quantize;
    const char *mmproj = NULL;
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_TYPE: q->options.type = type_option(optarg); break;
        case OPT_MMPROJ: mmproj = optarg; break;
        case OPT_SOURCE_MMPROJ: q->source_mmproj = optarg; break;
        case OPT_NAME: q->options.name = optarg; break;
        case OPT_REQUANTIZE: q->options.requantize = true; break;
        case OPT_MODEL_HASH: model_pin_option(&q->pin, command, optarg); break;
        case OPT_FORCE: q->force = true; break;
        case OPT_JSON: q->json = true; break;
        case 't': q->options.threads = (int)option_integer(command, "--threads", optarg, 1, 1024); break;
        }
    }
    if (argc - optind != 2)
        die_usage(command, "quantize: two names are expected, of what is there and of what is made; %d given",
                  argc - optind);
    q->in = argv[optind];
    q->options.text_path = argv[optind + 1];
    if (!mmproj)
        q->options.vision_path = q->vision_path = beside(q->options.text_path, "mmproj-", "", false);
    else if (strcmp(mmproj, "none") != 0)
        q->options.vision_path = mmproj;
    q->options.notice_path = q->notice_path = beside(q->options.text_path, "", ".NOTICE.txt", true);
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

static bool is_same_file(const char *path, const struct stat *other)
{
    struct stat st;
    return path && stat(path, &st) == 0 && st.st_dev == other->st_dev && st.st_ino == other->st_ino;
}

/* What a folder or ORG/NAME is called; a GGUF file has its name inside. */
static const char *name_of(const struct quantize_command *q, const struct checkpoint *source)
{
    if (source->text)
        return NULL;
    const char *slash = strrchr(q->in, '/'), *name = slash ? slash + 1 : q->in;
    return *name && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 ? name : NULL;
}

static void check_output(const struct quantize_command *q, const struct checkpoint *source, const char *path)
{
    struct stat st;
    if (!path || stat(path, &st))
        return;
    if (S_ISDIR(st.st_mode))
        die("%s: is a folder; the name of a file is expected", path);
    if (!S_ISREG(st.st_mode))
        die("%s: is no regular file; it would be replaced by one", path);
    if (is_same_file(source->place.path, &st) || is_same_file(source->place.mmproj, &st))
        die("%s: is what is read; another name is expected", path);
    if (!q->force)
        die("%s: exists; --force replaces it", path);
}

/* ---- while it runs ----------------------------------------------------------------------------------------------- */

static int on_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    progress_bar("quantizing", (double)done, (double)total);
    return interrupt_pending();
}

/* ---- the outcome ------------------------------------------------------------------------------------------------- */

static void print_text(const struct quantize_command *q, const struct quantize_result *r)
{
    char line[512], size[24];
    uint64_t weights = 0, bytes = 0;
    snprintf(line, sizeof line, "%s: %s\n", q->options.text_path, output_size(size, r->text_bytes));
    output_text(line);
    if (r->vision_bytes) {
        snprintf(line, sizeof line, "%s: %s, the image encoder\n", q->options.vision_path,
                 output_size(size, r->vision_bytes));
        output_text(line);
    }
    for (int type = 0; type < TENSOR_TYPES; type++) {
        weights += r->by_type[type].weights;
        bytes += r->by_type[type].bytes;
        if (!r->by_type[type].weights)
            continue;
        snprintf(line, sizeof line, "  %-5s %8.1f M weights, %s\n", tensor_type_name((enum tensor_type)type),
                 (double)r->by_type[type].weights / 1e6, output_size(size, r->by_type[type].bytes));
        output_text(line);
    }
    snprintf(line, sizeof line, "%s: %.2f bits a weight; %s before\n", quant_type_names[q->options.type],
             weights ? 8.0 * (double)bytes / (double)weights : 0, output_size(size, r->source_bytes));
    output_text(line);
    if (r->notice) {
        output_text("Terms: Health AI Developer Foundations. Not for clinical use. The notice that goes with them: ");
        output_text(q->options.notice_path);
        output_text("\n");
    }
}

static void print_json(const struct quantize_command *q, const struct quantize_result *r)
{
    struct json_writer *w = json_writer_new(true);
    const struct {
        const char *name, *path;
        uint64_t bytes;
    } files[] = {{"text", q->options.text_path, r->text_bytes}, {"mmproj", q->options.vision_path, r->vision_bytes}};
    const char *type = quant_type_names[q->options.type];
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_text(w, "type", type);
    for (size_t i = 0; i < 2; i++) {
        if (!files[i].bytes) {
            json_write_null(w, files[i].name);
            continue;
        }
        json_write_open(w, files[i].name, '{');
        json_write_text(w, "path", files[i].path);
        json_write_integer(w, "bytes", (int64_t)files[i].bytes);
        json_write_close(w, '}');
    }
    json_write_integer(w, "source_bytes", (int64_t)r->source_bytes);
    json_write_open(w, "weights", '{');
    for (int i = 0; i < TENSOR_TYPES; i++)
        if (r->by_type[i].weights)
            json_write_integer(w, tensor_type_name((enum tensor_type)i), (int64_t)r->by_type[i].weights);
    json_write_close(w, '}');
    json_write_text(w, "notice", r->notice ? q->options.notice_path : NULL);
    lock_write_json(w);
    json_write_close(w, '}');
    output_json_line(&w);
}

static void lock_in(const struct quantize_command *q, bool hashing)
{
    struct offline_policy policy = {0};
    struct ward_error err;
    offline_allow(&policy, OFFLINE_OUTPUT, q->options.text_path);
    offline_allow(&policy, OFFLINE_OUTPUT, q->options.vision_path);
    if (hashing)
        model_pin_allow(&policy);
    if (lock_allow_model(&policy, q->in, q->source_mmproj, &err))
        die_error(&err);
    lock_enforce(&policy);
}

static int run(int argc, char **argv)
{
    struct quantize_command q = {.options = {.type = QUANT_Q4_K_M, .progress = on_progress}};
    struct quantize_result result;
    struct checkpoint source;
    struct ward_error err;
    parse(&q, argc, argv);
    use_open();
    if (q.pin.given) {
        lock_in(&q, true);
        model_pin_check(&q.pin, q.in, q.source_mmproj, q.options.threads);
    }
    lock_in(&q, false);
    use_begin();
    if (checkpoint_open(&source, q.in, q.source_mmproj, &err))
        die_error(&err);
    if (!source.config.vision.n_layers)
        q.options.vision_path = NULL;
    if (source.place.guessed && q.options.vision_path)
        print_warning("%s is taken as the image encoder; others beside it would do: --source-mmproj chooses",
                      source.place.mmproj);
    model_pin_recheck(&q.pin);
    check_output(&q, &source, q.options.text_path);
    check_output(&q, &source, q.options.vision_path);
    if (q.options.vision_path && strcmp(q.options.text_path, q.options.vision_path) == 0)
        die("%s: is given for the text and for the image encoder", q.options.text_path);
    if (!q.options.name)
        q.options.name = name_of(&q, &source);
    interrupt_catch(SIGINT);
    interrupt_catch(SIGTERM);
    interrupt_catch(SIGHUP);
    const int rc = quantize_checkpoint(&source, &q.options, &result, &err);
    progress_clear();
    if (rc == WARD_ECANCELLED)
        exit(EXIT_INTERRUPTED);
    if (rc)
        die_error(&err);
    if (q.json)
        print_json(&q, &result);
    else
        print_text(&q, &result);
    checkpoint_close(&source);
    model_pin_free(&q.pin);
    free(q.vision_path);
    free(q.notice_path);
    return 0;
}
