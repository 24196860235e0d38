/* ward bundle: what an air-gapped machine needs, in one signed folder. docs/airgap.md */
#include "cmd_bundle.h"
#include "interrupt.h"
#include "lock.h"
#include "options.h"
#include "output.h"
#include "progress.h"
#include "use.h"

#include "base/json.h"
#include "base/mapping.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int run(int argc, char **argv), run_verify(int argc, char **argv), run_install(int argc, char **argv),
    run_rollback(int argc, char **argv);

const struct command command_bundle = {
    .name = "bundle",
    .summary = "ward and a model for a machine without a network: make, verify, install",
    .usage = "bundle keygen|create|verify|install|rollback [options]",
    .help =
        "Examples:\n"
        "  ward bundle keygen --out release                           release.key and release.pub, once\n"
        "  ward bundle create /media/usb/ward.tar --model ./models --key release.key\n"
        "  ward bundle verify /media/usb/ward.tar --key release.pub   on the other side: every byte\n"
        "  ward bundle install /media/usb/ward.tar --key release.pub --prefix /opt/ward\n"
        "  ward bundle rollback --prefix /opt/ward                    back to the version before\n"
        "\n"
        "A bundle is a folder or a tar file: the program and its libraries, the model, licences and an install.sh,\n"
        "with a list of SHA-256 (sha256sum -c reads it) that is signed as minisign signs. The public key has to\n"
        "travel by another way than the bundle. docs/airgap.md\n"
        "\n"
        "  keygen      make a pair of keys\n"
        "  create      make a bundle, signed\n"
        "  verify      check signature, list and every byte\n"
        "  install     verify, copy, and make it the current version in one step\n"
        "  rollback    make the version before the current one\n"
        "\n"
        "'ward bundle create --help' and the like explain each.\n",
    .run = run,
};

const struct command command_bundle_verify = {
    .name = "bundle verify",
    .summary = "check signature, list and every byte",
    .usage = "bundle verify BUNDLE --key FILE|KEY [--json]",
    .help =
        "Examples:\n"
        "  ward bundle verify /media/usb/ward.tar --key release.pub\n"
        "  ward bundle verify /media/usb/ward --key RWQfLHKDzbhRW2/5qbMuM7+Hixtcc1bP/uWQwyy/EzMt1495EaR+fTnb\n"
        "\n"
        "BUNDLE: a folder, or a tar file. Exactly the files of the list have to be there, without links, each as it\n"
        "was signed. Nothing is written.\n"
        "\n"
        "      --key FILE|KEY         the public key: its file, or the line in it; it came apart from the bundle\n"
        "      --json                 one JSON object instead of text\n"
        "  -t, --threads N            (all processors)\n",
    .run = run_verify,
};

const struct command command_bundle_install = {
    .name = "bundle install",
    .summary = "verify, copy, and make it the current version",
    .usage = "bundle install BUNDLE --key FILE|KEY [--prefix DIR]",
    .help =
        "Examples:\n"
        "  ward bundle install /media/usb/ward.tar --key release.pub\n"
        "  /opt/ward/current/bin/ward run -m /opt/ward/current/models -i xray.png \"Describe this X-ray.\"\n"
        "\n"
        "What is copied is verified while it is copied. The new version lies beside the others, in DIR/versions, and\n"
        "DIR/current links to it once it is complete and on disk; DIR/previous to the one before. Old versions are\n"
        "yours to remove.\n"
        "\n"
        "      --key FILE|KEY         the public key: its file, or the line in it; it came apart from the bundle\n"
        "      --prefix DIR           (/opt/ward)\n"
        "  -t, --threads N            (all processors)\n",
    .run = run_install,
};

const struct command command_bundle_rollback = {
    .name = "bundle rollback",
    .summary = "make the version before the current one",
    .usage = "bundle rollback [--prefix DIR]",
    .help =
        "Example:\n"
        "  ward bundle rollback --prefix /opt/ward\n"
        "\n"
        "DIR/current and DIR/previous change places; doing it twice changes nothing.\n"
        "\n"
        "      --prefix DIR           (/opt/ward)\n",
    .run = run_rollback,
};

static const struct command *const commands[] = {&command_bundle_keygen, &command_bundle_create, &command_bundle_verify,
                                                 &command_bundle_install, &command_bundle_rollback};

static int run(int argc, char **argv)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    if (argc < 2)
        die_usage(&command_bundle, "bundle: what is to be done?");
    if (*argv[1] == '-')
        (void)options_next(&command_bundle, argc, argv, options);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i]->name + strlen("bundle ")) == 0) {
            use_command(commands[i]);
            return commands[i]->run(argc - 1, argv + 1);
        }
    die_usage(&command_bundle, "bundle: there is nothing called '%s' to be done with a bundle", argv[1]);
}

/* ---- shared ------------------------------------------------------------------------------------------------------ */

static const char *progress_word;

static int on_progress(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    progress_bar(progress_word, (double)done, (double)total);
    return interrupt_pending();
}

struct bundle_progress bundle_command_progress(const char *what, int threads)
{
    progress_word = what;
    interrupt_catch(SIGINT);
    interrupt_catch(SIGTERM);
    interrupt_catch(SIGHUP);
    return (struct bundle_progress){.progress = on_progress, .threads = threads};
}

static _Noreturn void die_result(int rc, const struct ward_error *err)
{
    if (rc == WARD_ECANCELLED)
        exit(EXIT_INTERRUPTED);
    die_error(err);
}

struct bundle_options {
    const char *bundle, *key, *prefix;
    bool json;
    int threads;
};

enum { OPT_KEY = 256, OPT_PREFIX, OPT_JSON };

static const struct option verify_options[] = {
    {"key", required_argument, NULL, OPT_KEY},
    {"json", no_argument, NULL, OPT_JSON},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};
static const struct option install_options[] = {
    {"key", required_argument, NULL, OPT_KEY},
    {"prefix", required_argument, NULL, OPT_PREFIX},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {0},
};
static const struct option rollback_options[] = {
    {"prefix", required_argument, NULL, OPT_PREFIX},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static struct bundle_options parse(const struct command *command, int argc, char **argv, const struct option *options,
                                   int operands)
{
    struct bundle_options o = {.prefix = "/opt/ward"};
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_KEY: o.key = optarg; break;
        case OPT_PREFIX: o.prefix = optarg; break;
        case OPT_JSON: o.json = true; break;
        case 't': o.threads = (int)option_integer(command, "--threads", optarg, 1, 1024); break;
        }
    }
    if (argc - optind != operands)
        die_usage(command, "%s: %s expected, %d given", command->name, operands ? "one bundle is" : "no operand is",
                  argc - optind);
    o.bundle = operands ? argv[optind] : NULL;
    if (operands && !o.key)
        die_usage(command, "%s: whose bundle may it be? give the public key with --key", command->name);
    return o;
}

/* A file, or what stands in one. */
static void read_public_key(struct minisign_public *out, const char *given)
{
    struct ward_error err;
    char *text = NULL;
    size_t length = strlen(given);
    const bool is_file = file_exists(given);
    if (is_file && file_read(&text, &length, given, MINISIGN_FILE, &err))
        die_error(&err);
    if (minisign_public_parse(out, is_file ? text : given, length, is_file ? given : "--key", &err))
        die("%s; the file that 'ward bundle keygen' or 'minisign -G' made, or the line in it, is expected", err.text);
    free(text);
}

static void open_bundle(struct bundle *bundle, const char *name, const struct minisign_public *key)
{
    struct ward_error err;
    const int rc = bundle_open(bundle, name, key, &err);
    if (rc)
        die_result(rc, &err);
}

/* ---- verify ------------------------------------------------------------------------------------------------------ */

static void print_facts(const struct bundle *b)
{
    const struct bundle_facts *f = &b->facts;
    char text[MINISIGN_COMMENT + 512], hex[SHA256_HEX + 1];
    sha256_hex(hex, b->list_sha256);
    snprintf(text, sizeof text,
             "verified: %zu files, %.3f GB\n"
             "  ward %s for %s, C library %s or later, made %s\n"
             "  model %s\n"
             "  list  %s\n"
             "  signed \"%s\"\n",
             b->n, (double)b->bytes / 1e9, f->ward, f->machine, f->libc, f->created, f->model_sha256, hex, b->comment);
    output_untrusted(text, strlen(text));
}

static void print_json(const struct bundle *b)
{
    const struct bundle_facts *f = &b->facts;
    char hex[SHA256_HEX + 1];
    struct json_writer *w = json_writer_new(true);
    if (!w)
        die("out of memory");
    sha256_hex(hex, b->list_sha256);
    json_write_open(w, NULL, '{');
    json_write_boolean(w, "verified", true);
    json_write_integer(w, "files", (int64_t)b->n);
    json_write_integer(w, "bytes", (int64_t)b->bytes);
    json_write_text(w, "ward", f->ward);
    json_write_text(w, "machine", f->machine);
    json_write_text(w, "libc", f->libc);
    json_write_text(w, "created", f->created);
    json_write_text(w, "model_sha256", f->model_sha256);
    json_write_text(w, "list_sha256", hex);
    json_write_text(w, "comment", b->comment);
    json_write_close(w, '}');
    output_json_line(&w);
}

static int run_verify(int argc, char **argv)
{
    const struct bundle_options o = parse(&command_bundle_verify, argc, argv, verify_options, 1);
    struct minisign_public key;
    struct offline_policy policy = {0};
    struct bundle bundle;
    struct ward_error err;
    read_public_key(&key, o.key);
    offline_allow(&policy, OFFLINE_READ, o.bundle);
    use_open();
    lock_enforce(&policy);
    use_begin();
    const struct bundle_progress progress = bundle_command_progress("verifying", o.threads);
    open_bundle(&bundle, o.bundle, &key);
    const int rc = bundle_verify(&bundle, &progress, &err);
    progress_clear();
    if (rc)
        die_result(rc, &err);
    if (o.json)
        print_json(&bundle);
    else
        print_facts(&bundle);
    bundle_close(&bundle);
    return 0;
}

/* ---- install and rollback ---------------------------------------------------------------------------------------- */

/* The lock holds for a folder that is there. */
static void lock_to_prefix(const char *bundle, const char *prefix)
{
    struct offline_policy policy = {0};
    if (bundle && mkdir(prefix, 0777) && errno != EEXIST)
        die("%s: cannot be made: %s", prefix, strerror(errno));
    offline_allow(&policy, OFFLINE_READ, bundle);
    offline_allow(&policy, OFFLINE_LINKS, prefix);
    use_open();
    lock_enforce(&policy);
    use_begin();
}

static void print_version(const char *prefix, const char *id)
{
    char text[BUNDLE_ID + 32];
    output_untrusted(prefix, strlen(prefix));
    snprintf(text, sizeof text, "/current: %s\n", id);
    output_text(text);
}

static int run_install(int argc, char **argv)
{
    const struct bundle_options o = parse(&command_bundle_install, argc, argv, install_options, 1);
    struct minisign_public key;
    struct bundle bundle;
    struct ward_error err;
    char id[BUNDLE_ID];
    read_public_key(&key, o.key);
    lock_to_prefix(o.bundle, o.prefix);
    const struct bundle_progress progress = bundle_command_progress("installing", o.threads);
    open_bundle(&bundle, o.bundle, &key);
    const int rc = bundle_install(&bundle, o.prefix, &key, id, &progress, &err);
    progress_clear();
    if (rc)
        die_result(rc, &err);
    print_version(o.prefix, id);
    bundle_close(&bundle);
    return 0;
}

static int run_rollback(int argc, char **argv)
{
    const struct bundle_options o = parse(&command_bundle_rollback, argc, argv, rollback_options, 0);
    struct ward_error err;
    char id[BUNDLE_ID];
    lock_to_prefix(NULL, o.prefix);
    if (bundle_rollback(o.prefix, id, &err))
        die_error(&err);
    print_version(o.prefix, id);
    return 0;
}
