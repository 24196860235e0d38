/* ward audit init, keygen, rekey: who can read. */
#include "cmd_audit.h"
#include "options.h"
#include "output.h"
#include "passphrase.h"

#include "audit/writer.h"
#include "base/mapping.h"
#include "base/new_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run_init(int argc, char **argv);
static int run_keygen(int argc, char **argv);
static int run_rekey(int argc, char **argv);

#define KEY_OPTIONS \
    "      --out FILE             a new key pair's file, encrypted with a passphrase; - prints it once. May be\n" \
    "                             repeated: a second, recovery auditor\n" \
    "      --auditor PUBLIC       the public key of a pair made elsewhere with ward audit keygen; may be repeated\n" \
    "      --no-passphrase        the files are not encrypted: for tests, and for files that live on a token\n"

const struct command command_audit_init = {
    .name = "audit init",
    .summary = "make a log and an auditor's key",
    .usage = "audit init --log DIR --out KEYFILE [--out KEYFILE2] [options]",
    .help =
        "Examples:\n"
        "  ward audit init --log /var/lib/ward/audit --out auditor.key\n"
        "  ward audit init --log DIR --out auditor.key --out recovery.key     two who can read\n"
        "  ward audit init --log DIR --auditor 5bf1fd92...                    no secret ever was on this machine\n"
        "\n"
        "DIR is made. It holds nothing that opens what is written to it: take KEYFILE to the auditor and remove it\n"
        "here. The anchor that is printed, and stands in KEYFILE, is what ward audit verify compares the log with.\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n"
        KEY_OPTIONS,
    .run = run_init,
};

const struct command command_audit_keygen = {
    .name = "audit keygen",
    .summary = "a key pair for another auditor",
    .usage = "audit keygen --out KEYFILE [--no-passphrase]",
    .help =
        "Example:\n"
        "  ward audit keygen --out recovery.key      on the auditor's machine; prints the public key for --auditor\n"
        "\n"
        "      --out FILE             the key pair's file, encrypted with a passphrase\n"
        "      --no-passphrase        it is not encrypted\n",
    .run = run_keygen,
};

const struct command command_audit_rekey = {
    .name = "audit rekey",
    .summary = "new auditors from now on",
    .usage = "audit rekey --log DIR (--out KEYFILE | --auditor PUBLIC)... [--keep] [options]",
    .help =
        "Examples:\n"
        "  ward audit rekey --log DIR --out new.key                  the old key reads the past alone\n"
        "  ward audit rekey --log DIR --keep --auditor 5bf1fd92...   a second auditor beside the first\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n"
        "      --keep                 the present auditors go on to read\n"
        KEY_OPTIONS,
    .run = run_rekey,
};

enum { OPT_LOG = 256, OPT_OUT, OPT_AUDITOR, OPT_NO_PASSPHRASE, OPT_KEEP };

struct key_options {
    const char *log;
    struct {
        const char *path;
        struct audit_auditor pair;
    } made[AUDIT_MAX_AUDITORS]; /* by --out */
    int n_made;
    struct audit_header header; /* all of them; --auditor's as they are given, those of --out once made */
    bool no_passphrase, keep;
};

static bool is_output(const char *path)
{
    return strcmp(path, "-") == 0;
}

static void add_auditor(struct audit_header *header, const uint8_t key[AUDIT_KEY])
{
    for (int i = 0; i < header->n_auditors; i++)
        if (!memcmp(header->auditors[i].public_key, key, AUDIT_KEY))
            return;
    if (header->n_auditors == AUDIT_MAX_AUDITORS)
        die("a log has at most %d auditors", AUDIT_MAX_AUDITORS);
    memcpy(header->auditors[header->n_auditors++].public_key, key, AUDIT_KEY);
}

static void parse(struct key_options *o, const struct command *command, int argc, char **argv)
{
    static const struct option options[] = {
        {"log", required_argument, NULL, OPT_LOG},
        {"out", required_argument, NULL, OPT_OUT},
        {"auditor", required_argument, NULL, OPT_AUDITOR},
        {"no-passphrase", no_argument, NULL, OPT_NO_PASSPHRASE},
        {"keep", no_argument, NULL, OPT_KEEP},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    uint8_t key[AUDIT_KEY];
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_LOG: o->log = optarg; break;
        case OPT_OUT:
            if (o->n_made == AUDIT_MAX_AUDITORS)
                die("a log has at most %d auditors", AUDIT_MAX_AUDITORS);
            o->made[o->n_made++].path = optarg;
            break;
        case OPT_AUDITOR:
            if (!audit_unhex(key, AUDIT_KEY, optarg, strlen(optarg)))
                die_usage(command, "%s: --auditor takes a public key, 64 hexadecimal digits", command->name);
            add_auditor(&o->header, key);
            break;
        case OPT_NO_PASSPHRASE: o->no_passphrase = true; break;
        case OPT_KEEP: o->keep = true; break;
        }
    }
    if (optind < argc)
        die_usage(command, "%s: '%s' is not an option", command->name, argv[optind]);
    if (command == &command_audit_keygen ? o->n_made != 1 || o->header.n_auditors : !o->n_made && !o->header.n_auditors)
        die_usage(command, "%s: who can read? --out names the file for a new key", command->name);
    for (int i = 0; i < o->n_made; i++) {
        audit_auditor_make(&o->made[i].pair);
        add_auditor(&o->header, o->made[i].pair.public_key);
        if (!is_output(o->made[i].path) && file_exists(o->made[i].path))
            die("%s: exists; a key is not written over another", o->made[i].path);
    }
}

/* Writes the files of the new pairs, with the anchor of the log that they are for. Passphrases are asked for first. */
static void write_keys(struct key_options *o, const uint8_t *anchor)
{
    char passphrase[PASSPHRASE_LIMIT], *texts[AUDIT_MAX_AUDITORS];
    struct ward_error err;
    for (int i = 0; i < o->n_made; i++) {
        struct audit_auditor *pair = &o->made[i].pair;
        const char *name = is_output(o->made[i].path) ? "the auditor's key" : o->made[i].path;
        pair->has_anchor = anchor != NULL;
        if (anchor)
            memcpy(pair->anchor, anchor, AUDIT_KEY);
        if ((!o->no_passphrase && passphrase_new(passphrase, name, &err)) ||
            audit_key_text(&texts[i], pair, o->no_passphrase ? NULL : passphrase, &err))
            die_error(&err);
        audit_auditor_forget(pair);
    }
    explicit_bzero(passphrase, sizeof passphrase);
    for (int i = 0; i < o->n_made; i++) {
        if (is_output(o->made[i].path))
            output_text(texts[i]);
        else if (new_file_put_secret(o->made[i].path, texts[i], strlen(texts[i]), &err))
            die_error(&err);
        explicit_bzero(texts[i], strlen(texts[i]));
        free(texts[i]);
    }
}

static void print_key(const char *what, const uint8_t key[AUDIT_KEY])
{
    char line[128], digits[2 * AUDIT_KEY + 1];
    audit_hex(digits, key, AUDIT_KEY);
    snprintf(line, sizeof line, "%s: %s\n", what, digits);
    output_text(line);
}

static void print_auditors(const struct audit_header *header)
{
    for (int i = 0; i < header->n_auditors; i++)
        print_key("auditor", header->auditors[i].public_key);
}

static int run_keygen(int argc, char **argv)
{
    struct key_options o = {0};
    parse(&o, &command_audit_keygen, argc, argv);
    write_keys(&o, NULL);
    print_key("public", o.header.auditors[0].public_key);
    return 0;
}

static int run_init(int argc, char **argv)
{
    struct key_options o = {0};
    struct ward_error err;
    struct audit_ratchet signing;
    uint8_t anchor[AUDIT_KEY];
    parse(&o, &command_audit_init, argc, argv);
    const char *log = audit_command_log(&command_audit_init, o.log);
    audit_first_key(&signing, anchor);
    write_keys(&o, anchor);
    if (audit_create(log, &signing, &o.header, &err)) {
        for (int i = 0; i < o.n_made; i++) /* keys of a log that is not there */
            if (!is_output(o.made[i].path))
                unlink(o.made[i].path);
        die_error(&err);
    }
    print_key("anchor", anchor);
    print_auditors(&o.header);
    return 0;
}

static int run_rekey(int argc, char **argv)
{
    struct key_options o = {0};
    struct audit_writer *writer;
    struct audit_reader reader = {0};
    struct ward_error err;
    parse(&o, &command_audit_rekey, argc, argv);
    const char *log = audit_command_log(&command_audit_rekey, o.log);
    struct offline_policy policy = {0};
    for (int i = 0; i < o.n_made; i++)
        if (!is_output(o.made[i].path))
            offline_allow(&policy, OFFLINE_OUTPUT, o.made[i].path);
    offline_allow(&policy, OFFLINE_OUTPUT, "/dev/tty"); /* passphrases */
    audit_command_lock(&policy, log, true);
    if (audit_writer_open(&writer, log, &err) || audit_read_log(&reader, log, &err))
        die_error(&err);
    const struct audit_header *present = &reader.summary.header;
    for (int i = 0; i < present->n_auditors && o.keep; i++)
        add_auditor(&o.header, present->auditors[i].public_key);
    audit_reader_clear(&reader);
    write_keys(&o, reader.summary.anchor); /* first: nothing may be sealed to a key that nobody has */
    if (audit_rotate(writer, &o.header, &err))
        die_error(&err);
    audit_writer_close(&writer);
    print_auditors(&o.header);
    return 0;
}
