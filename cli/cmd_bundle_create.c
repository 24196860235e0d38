/* ward bundle keygen and create: the side that has a network. */
#include "cmd_bundle.h"
#include "lock.h"
#include "options.h"
#include "output.h"
#include "passphrase.h"
#include "progress.h"
#include "use.h"

#include "base/mapping.h"
#include "base/new_file.h"
#include "bundle/embedded.h"
#include "model/terms.h"

#include <gnu/libc-version.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static int run_keygen(int argc, char **argv), run_create(int argc, char **argv);

const struct command command_bundle_keygen = {
    .name = "bundle keygen",
    .summary = "make a pair of keys",
    .usage = "bundle keygen --out NAME [-W]",
    .help =
        "Example:\n"
        "  ward bundle keygen --out release      release.key, the secret one, and release.pub\n"
        "\n"
        "The keys are minisign's: either program reads the other's. The secret key is encrypted with a passphrase,\n"
        "which is asked for (without a terminal: two lines of standard input). The public one goes to whoever\n"
        "verifies, by another way than the bundles.\n"
        "\n"
        "      --out NAME             NAME.key and NAME.pub; files that exist are kept\n"
        "  -W, --no-passphrase        do not encrypt the secret key: for tests, or a medium that is locked away\n",
    .run = run_keygen,
};

const struct command command_bundle_create = {
    .name = "bundle create",
    .summary = "make a bundle, signed",
    .usage = "bundle create OUT --model MODEL --key FILE.key [options]",
    .help =
        "Examples:\n"
        "  ward bundle create /media/usb/ward --model ./models --key release.key       a folder\n"
        "  ward bundle create /media/usb/ward.tar --model medgemma-int4.gguf --key release.key\n"
        "\n"
        "OUT: a folder to be made, or a tar file if the name ends in .tar. In it goes this program with the libraries\n"
        "that it runs with (the C library is that of the other machine, of the same version as here or later), the\n"
        "model with what it has of licences and notices, and an install.sh. It appears when it is complete.\n"
        "\n"
        "      --model MODEL          as for 'ward run -m'\n"
        "      --mmproj FILE|none     GGUF file of the image encoder (the one beside the model's)\n"
        "      --key FILE.key         secret key of 'ward bundle keygen' or 'minisign -G'; its passphrase is asked for\n"
        "  -t, --threads N            (all processors)\n"
        "\n"
        "SOURCE_DATE_EPOCH sets the time that is written into it; two bundles of the same files are then the same.\n",
    .run = run_create,
};

enum { OPT_OUT = 256, OPT_MODEL, OPT_MMPROJ, OPT_KEY };

/* ---- keygen ------------------------------------------------------------------------------------------------------ */

static char *with_ending(const char *name, const char *ending)
{
    char *path;
    if (asprintf(&path, "%s%s", name, ending) < 0)
        die("out of memory");
    return path;
}

static int run_keygen(int argc, char **argv)
{
    static const struct option options[] = {
        {"out", required_argument, NULL, OPT_OUT},
        {"no-passphrase", no_argument, NULL, 'W'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const struct command *command = &command_bundle_keygen;
    const char *out = NULL;
    bool open = false;
    char passphrase[PASSPHRASE_LIMIT], *public_text, *secret_text;
    struct offline_policy policy = {0};
    struct ward_error err;
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        out = c == OPT_OUT ? optarg : out;
        open = open || c == 'W';
    }
    if (argc != optind)
        die_usage(command, "bundle keygen: no operand is expected, %d given", argc - optind);
    if (!out)
        die_usage(command, "bundle keygen: where do the keys go? give a name with --out");
    char *secret_path = with_ending(out, ".key"), *public_path = with_ending(out, ".pub");
    if (file_exists(secret_path) || file_exists(public_path))
        die("%s: exists; another name is expected", file_exists(secret_path) ? secret_path : public_path);
    if (!open && passphrase_new(passphrase, secret_path, &err))
        die_error(&err);
    offline_allow(&policy, OFFLINE_OUTPUT, secret_path);
    use_open();
    lock_enforce(&policy);
    use_begin();
    if (minisign_generate(&public_text, &secret_text, open ? NULL : passphrase, &err))
        die_error(&err);
    explicit_bzero(passphrase, sizeof passphrase);
    if (new_file_put_secret(secret_path, secret_text, strlen(secret_text), &err))
        die_error(&err);
    if (new_file_put(public_path, public_text, strlen(public_text), &err)) {
        unlink(secret_path); /* a key without its other half is of no use */
        die_error(&err);
    }
    explicit_bzero(secret_text, strlen(secret_text));
    output_text(public_text);
    free(public_text);
    free(secret_text);
    free(public_path);
    free(secret_path);
    return 0;
}

/* ---- create ------------------------------------------------------------------------------------------------------ */

struct create {
    const char *out, *model, *mmproj, *key;
    int threads;
};

static struct create parse_create(int argc, char **argv)
{
    static const struct option options[] = {
        {"model", required_argument, NULL, OPT_MODEL},
        {"mmproj", required_argument, NULL, OPT_MMPROJ},
        {"key", required_argument, NULL, OPT_KEY},
        {"threads", required_argument, NULL, 't'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    const struct command *command = &command_bundle_create;
    struct create o = {0};
    int ch;
    while ((ch = options_next(command, argc, argv, options)) != -1) {
        switch (ch) {
        case OPT_MODEL: o.model = optarg; break;
        case OPT_MMPROJ: o.mmproj = optarg; break;
        case OPT_KEY: o.key = optarg; break;
        case 't': o.threads = (int)option_integer(command, "--threads", optarg, 1, 1024); break;
        }
    }
    if (argc - optind != 1)
        die_usage(command, "bundle create: one name is expected, of what is made; %d given", argc - optind);
    o.out = argv[optind];
    if (!o.model)
        die_usage(command, "bundle create: which model? give its folder with --model");
    if (!o.key)
        die_usage(command, "bundle create: who signs it? give a secret key with --key");
    return o;
}

static void read_secret_key(struct minisign_secret *key, const char *path)
{
    struct ward_error err;
    char *text, passphrase[PASSPHRASE_LIMIT];
    size_t length;
    bool locked;
    if (file_read(&text, &length, path, MINISIGN_FILE, &err) ||
        minisign_secret_parse(key, &locked, text, length, path, NULL, &err))
        die_error(&err);
    if (locked && (passphrase_ask(passphrase, path, &err) ||
                   minisign_secret_parse(key, &locked, text, length, path, passphrase, &err)))
        die_error(&err);
    explicit_bzero(passphrase, sizeof passphrase);
    explicit_bzero(text, length);
    free(text);
}

/* What reproducible-builds.org calls it: a whole number of seconds. */
static int64_t time_of_making(void)
{
    const char *given = getenv("SOURCE_DATE_EPOCH");
    char *end;
    if (!given || !*given)
        return (int64_t)time(NULL);
    const long long seconds = strtoll(given, &end, 10);
    if (*end || seconds < 0)
        die("SOURCE_DATE_EPOCH: is no whole number of seconds: '%s'", given);
    return seconds;
}

#define NOTICE                                                                                                         \
    "ward " WARD_VERSION ", Apache License 2.0 (LICENSE). It is no medical device.\n"                                  \
    "\n"                                                                                                               \
    "lib/ward/ holds shared libraries as the distribution built them, each under its own licence (of the kinds MIT,\n" \
    "BSD, ISC, zlib and LGPL): licenses/, or /usr/share/doc/PACKAGE/copyright where the bundle was made.\n"
#define NOTICE_HAI_DEF                                                                                                 \
    "\n"                                                                                                               \
    "models/: HAI-DEF is provided under and subject to the Health AI Developer Foundations Terms of Use found at\n"    \
    HAI_DEF_LINK "\n"                                                                                                  \
    "Not for clinical use.\n"
#define NOTICE_OTHER                                                                                                   \
    "\n"                                                                                                               \
    "models/: under the terms of whoever published it; see the files there.\n"

static const char readme[] =
    "A bundle of ward: the program, its libraries and a model, for a machine without a network.\n"
    "\n"
    "Verify it before anything in it runs, with the public key that came by another way:\n"
    "\n"
    "  ward bundle verify . --key release.pub                             with a ward that is trusted already\n"
    "  minisign -V -m SHA256SUMS -p release.pub && sha256sum --strict -c SHA256SUMS\n"
    "\n"
    "Then, as whoever may write to /opt (no network is used, --help has the options):\n"
    "\n"
    "  sh install.sh --key release.pub\n"
    "  /opt/ward/current/bin/ward run -m /opt/ward/current/models -i xray.png \"Describe this X-ray.\"\n"
    "\n"
    "A newer bundle is installed the same way; sh install.sh --rollback goes back. Not for clinical use.\n";

static int add_texts(struct bundle_items *items, const struct create *o, struct ward_error *err)
{
    bool hai_def = false;
    int rc = bundle_model_terms(&hai_def, o->model, o->mmproj, err);
    if (!rc)
        rc = bundle_add_text(items, "NOTICE.txt", hai_def ? NOTICE NOTICE_HAI_DEF : NOTICE NOTICE_OTHER, false, err);
    if (!rc)
        rc = bundle_add_text(items, "LICENSE", embedded_license, false, err);
    if (!rc)
        rc = bundle_add_text(items, "README.txt", readme, false, err);
    return rc ? rc : bundle_add_text(items, "install.sh", embedded_install_sh, true, err);
}

static int run_create(int argc, char **argv)
{
    const struct create o = parse_create(argc, argv);
    struct bundle_facts facts = {.ward = WARD_VERSION};
    struct bundle_items items = {0};
    struct minisign_secret key;
    struct offline_policy policy = {0};
    struct utsname machine;
    struct ward_error err;
    const int64_t seconds = time_of_making();
    use_open();
    read_secret_key(&key, o.key);
    if (uname(&machine))
        die("this machine does not say what it is");
    snprintf(facts.machine, sizeof facts.machine, "%s", machine.machine);
    snprintf(facts.libc, sizeof facts.libc, "%s", gnu_get_libc_version());
    if (bundle_add_program(&items, &err) || bundle_add_licenses(&items, &err) ||
        bundle_add_model(&items, o.model, o.mmproj, &err) ||
        lock_allow_model(&policy, o.model, o.mmproj, &err))
        die_error(&err);
    for (size_t i = 0; i < items.n; i++)
        offline_allow(&policy, OFFLINE_READ, items.at[i].source);
    offline_allow(&policy, OFFLINE_OUTPUT, o.out);
    lock_enforce(&policy);
    use_begin();
    if (add_texts(&items, &o, &err))
        die_error(&err);
    const struct bundle_progress progress = bundle_command_progress("bundling", o.threads);
    const int rc = bundle_create(o.out, &items, &facts, &key, seconds, &progress, &err);
    explicit_bzero(&key, sizeof key);
    progress_clear();
    if (rc == WARD_ECANCELLED)
        exit(EXIT_INTERRUPTED);
    if (rc)
        die_error(&err);
    output_untrusted(o.out, strlen(o.out));
    output_text(": signed; model ");
    output_text(facts.model_sha256);
    output_text("\n");
    bundle_items_free(&items);
    return 0;
}
