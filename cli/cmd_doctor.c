/* ward doctor: whether a machine will do, before anything is downloaded or bought. */
#include "doctor.h"
#include "lock.h"
#include "options.h"
#include "progress.h"
#include "settings.h"

#include "audit/state.h"
#include "base/disk.h"
#include "base/json.h"
#include "model/checkpoint.h"
#include "synth/texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static int run(int argc, char **argv);

const struct command command_doctor = {
    .name = "doctor",
    .summary = "say whether this machine will do, and how fast it will be",
    .usage = "doctor [-m MODEL] [--device NAME] [options]",
    .help =
        "Examples:\n"
        "  ward doctor                                this machine, for MedGemma 4B\n"
        "  ward doctor -m ./models                    for a model that is here\n"
        "  ward doctor --preset medgemma-27b          for one that is not\n"
        "  ward doctor --device \"Jetson AGX Orin\"     a machine not yet bought\n"
        "  ward doctor --target-ms 5000 && echo yes   will one image and its answer take no more?\n"
        "\n"
        "Holds the machine against the minimum (processor, RAM, disk, driver) and against what each type of the\n"
        "model takes, and predicts from some seconds of measuring, of an NVIDIA card where there is one that can be\n"
        "used, what one image, a question and 200 tokens of answer will take. Then: what keeps what patients are\n"
        "asked about on this machine.\n"
        "Exit status 0: it will do. 1: it will not.\n"
        "\n"
        "  -m, --model MODEL          folder of the checkpoint, a GGUF file, or a name, as for ward run\n"
        "      --mmproj FILE|none     GGUF file of the image encoder (the one beside the model's)\n"
        "      --preset NAME|FILE     medgemma-4b, medgemma-27b, or a config.json (medgemma-4b)\n"
        "      --device NAME          a machine of the table instead of this one; 'list' prints the table\n"
        "      --memory GB            of that machine, if it shares its memory with its GPU (the most that is sold)\n"
        "      --shares FILE.json     of that machine's limits, as ward reached them on another card: what\n"
        "                             tools/card_report.py has written\n"
        "      --target-ms MS         the machine will only do if one type is predicted to answer in this time\n"
        "      --json                 one JSON object instead of text\n"
        "  -t, --threads N            (all processors)\n",
    .run = run,
};

struct doctor_options {
    const char *model, *mmproj, *preset, *device, *shares;
    double memory_gb, target_ms;
    int threads;
    bool json;
};

enum { OPT_MMPROJ = 256, OPT_PRESET, OPT_DEVICE, OPT_MEMORY, OPT_SHARES, OPT_TARGET, OPT_JSON };

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"mmproj", required_argument, NULL, OPT_MMPROJ},
    {"preset", required_argument, NULL, OPT_PRESET},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"shares", required_argument, NULL, OPT_SHARES},
    {"target-ms", required_argument, NULL, OPT_TARGET},
    {"json", no_argument, NULL, OPT_JSON},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

static void parse(struct doctor_options *o, int argc, char **argv)
{
    const struct command *command = &command_doctor;
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case 'm': o->model = optarg; break;
        case OPT_MMPROJ: o->mmproj = optarg; break;
        case OPT_PRESET: o->preset = optarg; break;
        case OPT_DEVICE: o->device = optarg; break;
        case OPT_MEMORY: o->memory_gb = option_number(command, "--memory", optarg, 1, 1e6); break;
        case OPT_SHARES: o->shares = optarg; break;
        case OPT_TARGET: o->target_ms = option_number(command, "--target-ms", optarg, 1, 1e9); break;
        case OPT_JSON: o->json = true; break;
        case 't': o->threads = (int)option_integer(command, "--threads", optarg, 1, 1024); break;
        }
    }
    if (argc - optind)
        die_usage(command, "doctor: no operands are expected, %d given", argc - optind);
    if (o->model && o->preset)
        die_usage(command, "doctor: -m and --preset both name a model");
    if (o->memory_gb > 0 && !o->device)
        die_usage(command, "doctor: --memory belongs to --device; this machine's own is known");
    if (o->shares && !o->device)
        die_usage(command, "doctor: --shares belongs to --device; this machine's card is measured");
}

/* Appends the names in the table that begin with so many letters of a name. */
static void list_devices(char *out, size_t room, const char *name, size_t letters)
{
    const struct device *known;
    for (int i = 0; (known = device_at(i)); i++) {
        const size_t n = strlen(out);
        if (strncasecmp(known->name, name, letters) == 0)
            snprintf(out + n, room - n, "%s%s", n ? ", " : "", known->name);
    }
}

static const struct device *device_option(const char *name)
{
    char names[1024] = "";
    const struct device *device = device_find(name);
    if (device)
        return device;
    list_devices(names, sizeof names, name, 2); /* those that begin alike, or all */
    if (!*names)
        list_devices(names, sizeof names, name, 0);
    die_usage(&command_doctor, "doctor: there is no '%s' in the table of devices, which has %s", name, names);
}

/* ---- what is looked at ------------------------------------------------------------------------------------------- */

static uint64_t file_bytes(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
}

/* The disk that a model lies on, and what it takes there; without one the folder that ward was started in. */
static void look_at_disk(struct doctor_report *r, const struct doctor_options *o)
{
    struct model_place place;
    struct ward_error ignored;
    const char *where = ".";
    uint64_t bytes;
    bool found = o->model && model_locate(&place, o->model, o->mmproj, &ignored) == 0;
    if (found && place.is_gguf)
        r->facts.disk_held = file_bytes(place.path) + file_bytes(place.mmproj);
    else if (found) /* of a folder of bf16, as it was published */
        r->facts.disk_held = r->types[PREDICT_BF16].need.text_bytes + r->types[PREDICT_BF16].need.vision_bytes;
    if (found)
        where = place.path;
    if (disk_free(where, &bytes) == 0)
        r->facts.disk_free = bytes;
    if (found)
        model_place_free(&place);
}

static void read_config(struct doctor_report *r, const struct doctor_options *o)
{
    struct ward_error err;
    struct synth_source source;
    int rc;
    if (o->model) {
        r->model = o->model;
        rc = checkpoint_read_config(&r->config, o->model, o->mmproj, &err);
    } else {
        r->model = o->preset ? o->preset : "medgemma-4b";
        rc = synth_source_open(&source, r->model, &err);
        if (!rc) {
            r->config = source.config;
            r->config.random_weights = false; /* the shape alone is meant */
            synth_source_close(&source);
        }
    }
    if (rc)
        die_error(&err);
}

/* Before the lock, which changes it for ward itself. */
static void look_at_dumps(struct doctor_report *r)
{
    struct rlimit limit;
    r->dumps_limited = getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0;
}

/* Before the lock, too: ward's own files lie behind it. */
static void look_at_log(struct doctor_report *r)
{
    struct settings settings;
    int fd = -1;
    if (settings_read(&settings, &r->log_fault))
        return;
    r->has_log = settings.audit != NULL;
    if (r->has_log && !audit_state_open(&fd, settings.audit, true, &r->log_fault)) {
        r->log_fault.text[0] = '\0';
        close(fd);
    }
    free(settings.audit);
}

/* What doctor reads is named before it locks itself in; a system that cannot lock is a finding, not an error. *driver:
 * there is one for NVIDIA cards. */
static void lock_in(const struct doctor_options *o, bool *driver)
{
    struct offline_policy policy = {.partial = true};
    struct ward_error err;
    if (o->model && lock_allow_model(&policy, o->model, o->mmproj, &err))
        die_error(&err);
    offline_allow(&policy, OFFLINE_READ, o->preset);
    offline_allow(&policy, OFFLINE_READ, o->shares);
    if (!o->device)
        lock_allow_device(&policy, "auto");
    *driver = policy.card;
    offline_allow(&policy, OFFLINE_LIST, ".");
    if (offline_lock(&policy, &err))
        die_error(&err);
    offline_policy_free(&policy);
}

/* ---- what is measured -------------------------------------------------------------------------------------------- */

/* The card that ward run would take, or why it takes none. */
static void measure_card(struct doctor_report *r)
{
    int rc = card_facts_read(&r->card, -1, &r->card_fault);
    if (!rc)
        rc = card_limits_measure(&r->card_limits, r->card.info.index, &r->card_fault);
    if (rc) {
        r->facts.card_fault = r->card_fault.text;
        return;
    }
    r->facts.card = &r->card;
    if (r->card.meter)
        nvml_read(r->card.meter, &r->card_state);
}

static void measure(struct doctor_report *r, const struct doctor_options *o, bool driver)
{
    struct ward_error err;
    progress_show("measuring", 0, 0);
    const int rc = limits_measure(&r->limits, o->threads, ISA_COUNT - 1, &err);
    if (!rc && driver)
        measure_card(r);
    progress_clear();
    if (rc)
        die_error(&err);
}

static double share(const char *path, const struct json *shares, const char *name)
{
    double value = 0;
    const struct json *found = json_get(shares, name);
    if (found && (!json_number(found, &value) || !(value > 0 && value <= 1.5)))
        die("%s: the share \"%s\" is no number above 0 and up to 1.5", path, name);
    return value;
}

/* "shares": {"of": "NVIDIA H100 80GB HBM3", "vision": 0.5, "prefill": 0.4, "read": {"bf16": 0.8, ...}}: what was not
 * measured is absent, and not predicted. */
static void read_shares(struct doctor_report *r, const char *path)
{
    enum { LIMIT = 16 << 20 };
    struct ward_error err;
    if (json_read(&r->shares, path, LIMIT, &err)) /* stays: it holds the card's name */
        die_error(&err);
    const struct json *shares = json_get(json_root(r->shares), "shares"), *of = json_get(shares, "of");
    struct predict_shares *out = &r->facts.shares;
    if (!of || of->type != JSON_STRING)
        die("%s: has no \"shares\" of a card, as tools/card_report.py writes them", path);
    r->shares_of = of->text;
    out->vision = out->vision_attention = share(path, shares, "vision");
    out->prefill = share(path, shares, "prefill");
    for (int type = 0; type < PREDICT_TYPES; type++)
        out->read[type] = share(path, json_get(shares, "read"), predict_type_name((enum predict_type)type));
}

static int run(int argc, char **argv)
{
    static struct doctor_report r;
    struct doctor_options o = {0};
    bool driver;
    parse(&o, argc, argv);
    if (o.device && strcmp(o.device, "list") == 0) {
        doctor_print_devices();
        return 0;
    }
    if (o.device)
        r.facts.device = device_option(o.device);
    machine_read(&r.machine, "");
    machine_read_state(&r.state, "");
    look_at_dumps(&r);
    look_at_log(&r);
    lock_in(&o, &driver);
    r.facts.machine = &r.machine;
    if (r.facts.device)
        r.facts.memory = (uint64_t)((o.memory_gb > 0 ? o.memory_gb : r.facts.device->memory_gb) * 1e9);
    read_config(&r, &o);
    r.facts.shares = predict_assumed;
    if (o.shares)
        read_shares(&r, o.shares);
    if (!r.facts.device)
        measure(&r, &o, driver);
    for (int type = 0; type < PREDICT_TYPES; type++)
        doctor_type(&r.types[type], &r.config, (enum predict_type)type, &r.facts, &r.limits, &r.card_limits);
    look_at_disk(&r, &o);
    r.asked_ms = o.target_ms;
    doctor_judge(&r);
    if (o.json)
        doctor_print_json(&r);
    else
        doctor_print_text(&r);
    return r.will_do ? 0 : EXIT_FAILED;
}
