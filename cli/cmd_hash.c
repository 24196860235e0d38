/* ward hash: the hash of a model, for --model-hash. */
#include "lock.h"
#include "model_pin.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "use.h"

#include "base/json.h"

#include <string.h>

static int run(int argc, char **argv);

const struct command command_hash = {
    .name = "hash",
    .summary = "the SHA-256 that a model is pinned by",
    .usage = "hash MODEL [--mmproj FILE|none] [--json]",
    .help =
        "Examples:\n"
        "  ward hash ./models\n"
        "  ward hash ./models --json                          with the hash of every file\n"
        "  ward run -m ./models --model-hash \"$(ward hash ./models | cut -d ' ' -f 1)\" -i xray.png - < question.txt\n"
        "\n"
        "One SHA-256 for all that ward may read of a model; docs/model-hash.md says of which files, and how to compute\n"
        "it without ward. The files' hashes are remembered (XDG_CACHE_HOME, ~/.cache), so that a model is read once.\n"
        "\n"
        "      --mmproj FILE|none     GGUF file of the image encoder (the one beside the model's)\n"
        "      --json                 one JSON object instead of a line\n"
        "  -t, --threads N            (all processors)\n",
    .run = run,
};

enum { OPT_MMPROJ = 256, OPT_JSON };

static const struct option options[] = {
    {"mmproj", required_argument, NULL, OPT_MMPROJ},
    {"json", no_argument, NULL, OPT_JSON},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static void print_json(const struct model_hash *h, const char *model)
{
    struct json_writer *w = json_writer_new(true);
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_string(w, "path", model, strlen(model));
    json_write_string(w, "sha256", h->hex, SHA256_HEX);
    json_write_integer(w, "bytes", (int64_t)h->bytes);
    json_write_boolean(w, "remembered", h->remembered);
    json_write_open(w, "files", '[');
    for (size_t i = 0; i < h->n; i++) {
        char hex[SHA256_HEX + 1];
        sha256_hex(hex, h->files[i].sha256);
        json_write_open(w, NULL, '{');
        json_write_string(w, "name", h->names[i].name, strlen(h->names[i].name));
        json_write_integer(w, "bytes", (int64_t)h->files[i].stamp.size);
        json_write_string(w, "sha256", hex, SHA256_HEX);
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
    json_write_close(w, '}');
    output_json_line(&w);
}

/* Nothing but the model is read, and nothing but what is remembered of it written. */
static void lock_in(const char *model, const char *mmproj)
{
    struct offline_policy policy = {0};
    struct ward_error err;
    model_pin_allow(&policy);
    if (lock_allow_model(&policy, model, mmproj, &err))
        die_error(&err);
    lock_enforce(&policy);
}

static int run(int argc, char **argv)
{
    const char *mmproj = NULL;
    bool json = false;
    struct model_hash_options how = {.progress = model_pin_progress};
    struct model_hash hash;
    struct ward_error err;
    int c;
    while ((c = options_next(&command_hash, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_MMPROJ: mmproj = optarg; break;
        case OPT_JSON: json = true; break;
        case 't': how.threads = (int)option_integer(&command_hash, "--threads", optarg, 1, 1024); break;
        }
    }
    if (argc - optind != 1)
        die_usage(&command_hash, "hash: one model is expected, %d were given", argc - optind);
    use_open();
    lock_in(argv[optind], mmproj);
    use_begin();
    const int rc = model_hash_open(&hash, argv[optind], mmproj, &how, &err);
    progress_clear();
    if (rc)
        die_error(&err);
    if (json) {
        print_json(&hash, argv[optind]);
    } else {
        output_text(hash.hex);
        output_text("  ");
        output_untrusted(argv[optind], strlen(argv[optind]));
        output_text("\n");
    }
    model_hash_free(&hash);
    return 0;
}
