/* ward audit: the sealed log of who asked what. docs/audit-log.md */
#include "cmd_audit.h"
#include "lock.h"
#include "settings.h"
#include "options.h"
#include "output.h"
#include "passphrase.h"

#include "base/mapping.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct command command_audit = {
    .name = "audit",
    .summary = "the sealed log of every use: make, verify, read, export it",
    .usage = "audit init|verify|status|show|search|export|checkpoint|rotate|rekey|prune|keygen [options]",
    .help =
        "Examples:\n"
        "  ward audit init --log /var/lib/ward/audit --out auditor.key    once; the key file goes to the auditor\n"
        "  WARD_AUDIT=/var/lib/ward/audit ward run -m ./models ...         every use is a record from now on\n"
        "  ward audit verify --log DIR --anchor KEY                        nothing was changed or removed\n"
        "  ward audit show --log DIR --key auditor.key                     what was recorded\n"
        "\n"
        "The machine that writes the log cannot read it. docs/audit-log.md describes it to the byte.\n"
        "\n"
        "  init        make a log and an auditor's key\n"
        "  verify      check every record; with an anchor and a checkpoint, from beginning to end\n"
        "  status      what is there, without checking more than verify does\n"
        "  show        print records (auditor's key)\n"
        "  search      print uses that match (auditor's key)\n"
        "  export      all uses as JSON lines, FHIR AuditEvent or DICOM audit messages (auditor's key)\n"
        "  checkpoint  a signed line to keep elsewhere: records up to it cannot vanish unnoticed\n"
        "  rotate      close the file that is written to and begin the next\n"
        "  rekey       new auditors from now on\n"
        "  prune       remove the content of old records, and keep what proves the rest\n"
        "  keygen      a key pair for another auditor\n"
        "\n"
        "'ward audit verify --help' and the like explain each.\n",
    .run = run,
};

static const struct command *const commands[] = {
    &command_audit_init, &command_audit_verify, &command_audit_status, &command_audit_show, &command_audit_search,
    &command_audit_export, &command_audit_checkpoint, &command_audit_rotate, &command_audit_rekey, &command_audit_prune,
    &command_audit_keygen,
};

static int run(int argc, char **argv)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    struct ward_error err;
    if (argc < 2)
        die_usage(&command_audit, "audit: what is to be done with the log?");
    if (*argv[1] == '-')
        (void)options_next(&command_audit, argc, argv, options);
    if (audit_start(&err))
        die_error(&err);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i]->name + strlen("audit ")) == 0)
            return commands[i]->run(argc - 1, argv + 1);
    die_usage(&command_audit, "audit: there is nothing called '%s' to be done with a log", argv[1]);
}

const char *audit_command_log(const struct command *command, const char *given)
{
    static struct settings settings; /* its text is used until the program ends */
    struct ward_error err;
    if (given)
        return given;
    if (settings_read(&settings, &err))
        die_error(&err);
    if (!settings.audit)
        die_usage(command, "%s: which log? give its folder with --log", command->name);
    return settings.audit;
}

const uint8_t *audit_command_anchor(uint8_t out[AUDIT_KEY], const char *given)
{
    char *text;
    size_t length;
    struct ward_error err;
    if (!given || audit_unhex(out, AUDIT_KEY, given, strlen(given)))
        return given ? out : NULL;
    if (file_read(&text, &length, given, AUDIT_KEY_FILE_LIMIT, &err))
        die_error(&err);
    const size_t blank = strspn(text, " \t\r\n"), digits = strspn(text + blank, "0123456789abcdefABCDEF");
    if (text[blank] == '{') {
        struct audit_auditor key;
        if (audit_key_parse_public(&key, text, length, given, &err))
            die_error(&err);
        if (!key.has_anchor)
            die("%s: holds no anchor: it was not made with a log", given);
        memcpy(out, key.anchor, AUDIT_KEY);
    } else if (!audit_unhex(out, AUDIT_KEY, text + blank, digits)) {
        die("%s: is no anchor; 64 hexadecimal digits are expected, or the key file that ward audit init wrote", given);
    }
    free(text);
    return out;
}

void audit_command_lock(struct offline_policy *policy, const char *log, bool writes)
{
    offline_allow(policy, writes ? OFFLINE_FOLDER : OFFLINE_READ, log);
    lock_enforce(policy);
}

void audit_command_key(struct audit_auditor *out, const char *path)
{
    char *text;
    size_t length;
    struct ward_error err;
    if (file_read(&text, &length, path, AUDIT_KEY_FILE_LIMIT, &err) ||
        audit_key_parse(out, text, length, path, passphrase_ask, &err))
        die_error(&err);
    explicit_bzero(text, length);
    free(text);
}
