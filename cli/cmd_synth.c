/* ward synth: a checkpoint of random weights. */
#include "interrupt.h"
#include "lock.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "use.h"

#include "base/clock.h"
#include "base/json.h"
#include "synth/synth.h"
#include "synth/texts.h"

#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run(int argc, char **argv);

const struct command command_synth = {
    .name = "synth",
    .summary = "make a checkpoint of random weights, to measure a machine with",
    .usage = "synth --preset PRESET OUT [options]",
    .help =
        "Examples:\n"
        "  ward synth --preset medgemma-4b ./random-4b        8.6 GB, in the layout of google/medgemma-4b-it\n"
        "  ward run -m ./random-4b -i xray.png -n 200 --ignore-eos --timings \"Describe this X-ray.\"\n"
        "  ward quantize ./random-4b random-int4.gguf         as the real one\n"
        "  ward synth --preset my/config.json ./mine --tokenizer ./gemma\n"
        "  ward synth --preset tiny ./random-tiny             a small one, for tests\n"
        "\n"
        "OUT: the folder to be made. It appears when it is complete, or not at all. What the weights answer means\n"
        "nothing; everything else, from sizes to speed, is that of the model whose shape they have. Wherever they\n"
        "are used ward says that they are random.\n"
        "\n"
        "      --preset NAME|FILE     medgemma-4b, medgemma-27b, tiny, or a file in the form of config.json\n"
        "      --seed N               the same seed, the same bytes on every machine (0)\n"
        "      --tokenizer DIR|FILE   a checkpoint's folder, tokenizer.json or tokenizer.model (one whose tokens are\n"
        "                             bytes)\n"
        "      --force                replace OUT, if ward synth made it\n"
        "      --json                 one JSON object instead of text\n"
        "  -t, --threads N            (all processors)\n",
    .run = run,
};

enum { OPT_PRESET = 256, OPT_SEED, OPT_TOKENIZER, OPT_FORCE, OPT_JSON };

static const struct option options[] = {
    {"preset", required_argument, NULL, OPT_PRESET},
    {"seed", required_argument, NULL, OPT_SEED},
    {"tokenizer", required_argument, NULL, OPT_TOKENIZER},
    {"force", no_argument, NULL, OPT_FORCE},
    {"json", no_argument, NULL, OPT_JSON},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* A preset by its name, or a file that is there. */
static const char *preset_option(const char *text)
{
    char names[128] = "";
    for (int i = 0; synth_presets[i]; i++) {
        const size_t n = strlen(names);
        if (strcmp(text, synth_presets[i]) == 0)
            return text;
        snprintf(names + n, sizeof names - n, "%s, ", synth_presets[i]);
    }
    if (!strchr(text, '/') && access(text, F_OK))
        die_usage(&command_synth, "synth: option --preset takes %sor a file in the form of config.json, not '%s'", names,
                  text);
    return text;
}

static void parse(struct synth_options *o, bool *json, int argc, char **argv)
{
    const struct command *command = &command_synth;
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_PRESET: o->preset = preset_option(optarg); break;
        case OPT_SEED: o->seed = option_unsigned(command, "--seed", optarg); break;
        case OPT_TOKENIZER: o->tokenizer = optarg; break;
        case OPT_FORCE: o->force = true; break;
        case OPT_JSON: *json = true; break;
        case 't': o->threads = (int)option_integer(command, "--threads", optarg, 1, 1024); break;
        }
    }
    if (!o->preset)
        die_usage(command, "synth: which shape? --preset names it");
    if (argc - optind != 1)
        die_usage(command, "synth: the name of one folder is expected, %d given", argc - optind);
    o->out = argv[optind];
}

static int on_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    progress_bar("writing", (double)done, (double)total);
    return interrupt_pending();
}

static void print_text(const struct synth_options *o, const struct synth_result *r, double ms)
{
    char line[256], size[24];
    output_text(o->out);
    snprintf(line, sizeof line,
             ": %s in %d file%s, %.1f M random weights, seed %" PRIu64 "; %.1f s, %.2f GB/s\n"
             "What they answer means nothing; their speed and size are the model's.\n",
             output_size(size, r->bytes), r->n_files, r->n_files == 1 ? "" : "s", (double)r->weights / 1e6, o->seed,
             ms / 1e3, (double)r->bytes / 1e6 / ms);
    output_text(line);
}

static void print_json(const struct synth_options *o, const struct synth_result *r, double ms)
{
    struct json_writer *w = json_writer_new(true);
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_text(w, "path", o->out);
    json_write_text(w, "preset", o->preset);
    json_write_boolean(w, "random_weights", true);
    json_write_integer(w, "seed", (int64_t)o->seed);
    json_write_integer(w, "weights", (int64_t)r->weights);
    json_write_integer(w, "bytes", (int64_t)r->bytes);
    json_write_integer(w, "files", r->n_files);
    json_write_number(w, "ms", ms, 1);
    lock_write_json(w);
    json_write_close(w, '}');
    output_json_line(&w);
}

/* A folder and its temporary names are made in the one around it. */
static void lock_in(const struct synth_options *o)
{
    struct offline_policy policy = {0};
    char *copy = must_strndup(o->out, strlen(o->out));
    offline_allow(&policy, OFFLINE_FOLDER, dirname(copy));
    offline_allow(&policy, OFFLINE_READ, o->preset);
    offline_allow(&policy, OFFLINE_READ, o->tokenizer);
    lock_enforce(&policy);
    free(copy);
}

static int run(int argc, char **argv)
{
    struct synth_options o = {.progress = on_progress};
    struct synth_result result;
    struct ward_error err;
    bool json = false;
    parse(&o, &json, argc, argv);
    use_open();
    lock_in(&o);
    use_begin();
    interrupt_catch(SIGINT);
    interrupt_catch(SIGTERM);
    interrupt_catch(SIGHUP);
    const double start = clock_ms();
    const int rc = synth_checkpoint(&o, &result, &err);
    const double ms = clock_ms() - start;
    progress_clear();
    if (rc == WARD_ECANCELLED)
        exit(EXIT_INTERRUPTED);
    if (rc)
        die_error(&err);
    if (json)
        print_json(&o, &result, ms);
    else
        print_text(&o, &result, ms);
    return 0;
}
