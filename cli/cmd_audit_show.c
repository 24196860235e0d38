/* ward audit show, search, export: what was recorded, for those who have an auditor's key. */
#include "cmd_audit.h"
#include "options.h"
#include "output.h"

#include "audit/export.h"
#include "audit/uses.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int run_show(int argc, char **argv);
static int run_search(int argc, char **argv);
static int run_export(int argc, char **argv);

#define READ_OPTIONS \
    "      --log DIR              the folder of the log (the configured one)\n" \
    "      --key KEYFILE          the auditor's key file\n" \
    "      --anchor KEY           the first public key (the one in KEYFILE)\n"

#define FILTER_OPTIONS \
    "      --user NAME            of the system, or as --user of ward run gave it\n" \
    "      --command NAME         run, quantize, ...\n" \
    "      --outcome NAME         stop, length, cancelled, failed, refused, or none: it did not end\n" \
    "      --since, --until TIME  2026-01-31 or 2026-01-31T12:00:00, UTC\n" \
    "      --study UID            a study, series or instance\n" \
    "      --hash HEX             the hash of an image, a question, an answer or a model, or how it begins\n"

const struct command command_audit_show = {
    .name = "audit show",
    .summary = "print records",
    .usage = "audit show --log DIR --key KEYFILE [--json]",
    .help =
        "Examples:\n"
        "  ward audit show --log DIR --key auditor.key\n"
        "  ward audit show --log DIR --key auditor.key --json | jq .\n"
        "\n"
        "All records in order; what is wrong with the log ends it with status 1.\n"
        "\n"
        READ_OPTIONS
        "      --json                 a JSON object per line, with all that was recorded\n",
    .run = run_show,
};

const struct command command_audit_search = {
    .name = "audit search",
    .summary = "print uses that match",
    .usage = "audit search --log DIR --key KEYFILE [filters] [TEXT]",
    .help =
        "Examples:\n"
        "  ward audit search --key auditor.key --user alice --since 2026-01-01\n"
        "  ward audit search --key auditor.key --hash $(sha256sum < xray.png | cut -c1-64)    who asked about it?\n"
        "  ward audit search --key auditor.key pneumothorax                                  with --audit-text\n"
        "\n"
        "TEXT: is looked for in all that was recorded, capitals or not.\n"
        "\n"
        READ_OPTIONS
        FILTER_OPTIONS
        "      --json                 a JSON object per line, with all that was recorded\n",
    .run = run_search,
};

const struct command command_audit_export = {
    .name = "audit export",
    .summary = "all uses in a form that others read",
    .usage = "audit export --log DIR --key KEYFILE --format jsonl|fhir|atna [filters]",
    .help =
        "Examples:\n"
        "  ward audit export --key auditor.key --format fhir > audit.json     a Bundle of FHIR R4 AuditEvents\n"
        "  ward audit export --key auditor.key --format atna > audit.xml      an AuditMessage (DICOM) per line\n"
        "  ward audit export --key auditor.key --format jsonl --since 2026-01-01\n"
        "\n"
        READ_OPTIONS
        FILTER_OPTIONS
        "      --format jsonl|fhir|atna\n",
    .run = run_export,
};

enum {
    OPT_LOG = 256, OPT_KEY, OPT_ANCHOR, OPT_JSON, OPT_FORMAT, OPT_USER, OPT_COMMAND, OPT_OUTCOME, OPT_SINCE, OPT_UNTIL,
    OPT_STUDY, OPT_HASH,
};
enum format { FORMAT_JSONL, FORMAT_FHIR, FORMAT_ATNA, FORMAT_TEXT };

struct show_options {
    const char *log, *key;
    const uint8_t *anchor;
    uint8_t anchor_key[AUDIT_KEY];
    enum format format;
    const char *user, *command, *outcome, *study, *hash, *text; /* filters, or NULL */
    uint64_t since, until;
    uint64_t shown;
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

static uint64_t time_option(const struct command *command, const char *name, const char *text)
{
    struct tm utc = {0};
    const char *end = strptime(text, "%Y-%m-%d", &utc);
    if (end && *end)
        end = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
    if (!end || (*end && strcmp(end, "Z") != 0))
        die_usage(command, "%s: option %s takes a time as 2026-01-31 or 2026-01-31T12:00:00, not '%s'", command->name,
                  name, text);
    const time_t seconds = timegm(&utc);
    return seconds < 0 ? 0 : (uint64_t)seconds * 1000;
}

static void parse(struct show_options *o, const struct command *command, int argc, char **argv)
{
    static const struct option options[] = {
        {"log", required_argument, NULL, OPT_LOG},
        {"key", required_argument, NULL, OPT_KEY},
        {"anchor", required_argument, NULL, OPT_ANCHOR},
        {"json", no_argument, NULL, OPT_JSON},
        {"format", required_argument, NULL, OPT_FORMAT},
        {"user", required_argument, NULL, OPT_USER},
        {"command", required_argument, NULL, OPT_COMMAND},
        {"outcome", required_argument, NULL, OPT_OUTCOME},
        {"since", required_argument, NULL, OPT_SINCE},
        {"until", required_argument, NULL, OPT_UNTIL},
        {"study", required_argument, NULL, OPT_STUDY},
        {"hash", required_argument, NULL, OPT_HASH},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    static const char *const formats[] = {"jsonl", "fhir", "atna", NULL};
    const char *anchor = NULL;
    int c, format = -1;
    *o = (struct show_options){.format = FORMAT_TEXT, .until = UINT64_MAX};
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_LOG: o->log = optarg; break;
        case OPT_KEY: o->key = optarg; break;
        case OPT_ANCHOR: anchor = optarg; break;
        case OPT_JSON: o->format = FORMAT_JSONL; break;
        case OPT_FORMAT: format = option_choice(command, "--format", optarg, formats); break;
        case OPT_USER: o->user = optarg; break;
        case OPT_COMMAND: o->command = optarg; break;
        case OPT_OUTCOME: o->outcome = optarg; break;
        case OPT_SINCE: o->since = time_option(command, "--since", optarg); break;
        case OPT_UNTIL: o->until = time_option(command, "--until", optarg); break;
        case OPT_STUDY: o->study = optarg; break;
        case OPT_HASH: o->hash = optarg; break;
        }
    }
    if (command == &command_audit_search && optind < argc)
        o->text = argv[optind++];
    if (optind < argc)
        die_usage(command, "%s: '%s' is not an option", command->name, argv[optind]);
    if (command == &command_audit_export && format < 0)
        die_usage(command, "%s: in which form? --format jsonl, fhir or atna", command->name);
    if (format >= 0)
        o->format = (enum format)format;
    if (!o->key)
        die_usage(command, "%s: whose key? --key KEYFILE", command->name);
    o->log = audit_command_log(command, o->log);
    o->anchor = audit_command_anchor(o->anchor_key, anchor);
}

/* ---- filters ----------------------------------------------------------------------------------------------------- */

static bool same_text(const struct json *value, const char *text)
{
    return json_string_is(value, text);
}

static bool contains(const char *text, size_t length, const char *what)
{
    const size_t n = strlen(what);
    for (size_t i = 0; i + n <= length; i++)
        if (strncasecmp(text + i, what, n) == 0)
            return true;
    return false;
}

typedef bool test_fn(const struct json *value, const char *what);

static bool is_hash_of(const struct json *value, const char *what)
{
    const size_t n = strlen(what);
    return value->key && strstr(value->key, "sha256") && value->length >= n && n >= 4 &&
           strncasecmp(value->text, what, n) == 0;
}

static bool holds_text(const struct json *value, const char *what)
{
    return contains(value->text, value->length, what);
}

static bool equals_text(const struct json *value, const char *what)
{
    return same_text(value, what);
}

/* Whether a string anywhere below passes the test. */
static bool any_string(const struct json *value, test_fn *test, const char *what)
{
    if (!value)
        return false;
    if (value->type == JSON_STRING)
        return test(value, what);
    for (const struct json *child = value->first; child; child = child->next)
        if (any_string(child, test, what))
            return true;
    return false;
}

static bool in_use(const struct audit_use *use, test_fn *test, const char *what)
{
    return any_string(audit_part_get(&use->begin, ""), test, what) ||
           any_string(audit_part_get(&use->end, ""), test, what);
}

static bool matches(const struct show_options *o, const struct audit_use *use)
{
    const struct audit_part *end = use->begin.frame.type == AUDIT_NOTE ? &use->begin : &use->end;
    if (use->begin.frame.utc_ms < o->since || use->begin.frame.utc_ms >= o->until)
        return false;
    if (o->user && !same_text(audit_part_get(&use->begin, "user.name"), o->user) &&
        !same_text(audit_part_get(&use->begin, "user.stated"), o->user))
        return false;
    if (o->command && !same_text(audit_part_get(&use->begin, "command"), o->command))
        return false;
    if (o->outcome && !same_text(audit_part_get(end, "outcome"), o->outcome) &&
        !(strcmp(o->outcome, "none") == 0 && !end->frame.type))
        return false;
    if (o->study && !any_string(audit_part_get(&use->begin, "study"), equals_text, o->study) &&
        !any_string(audit_part_get(&use->begin, "series"), equals_text, o->study) &&
        !any_string(audit_part_get(&use->begin, "instance"), equals_text, o->study))
        return false;
    return (!o->hash || in_use(use, is_hash_of, o->hash)) && (!o->text || in_use(use, holds_text, o->text));
}

/* ---- forms ------------------------------------------------------------------------------------------------------- */

static void print_jsonl(const struct audit_part *part)
{
    struct json_writer *w = json_writer_new(false);
    char time[AUDIT_ISO_TIME], boot[33];
    const char *type = audit_type_name(part->frame.type);
    if (!w)
        die("out of memory");
    audit_iso_time(time, part->frame.utc_ms);
    audit_hex(boot, part->frame.boot, 16);
    json_write_open(w, NULL, '{');
    json_write_integer(w, "seq", (int64_t)part->frame.seq);
    json_write_integer(w, "segment", (int64_t)part->frame.segment);
    json_write_string(w, "type", type, strlen(type));
    if (part->frame.type == AUDIT_END)
        json_write_integer(w, "of", (int64_t)part->frame.of);
    json_write_string(w, "time", time, strlen(time));
    json_write_integer(w, "uptime_ms", (int64_t)part->frame.uptime_ms);
    json_write_string(w, "boot", boot, 32);
    if (part->document)
        json_write_value(w, "record", json_root(part->document));
    else
        json_write_null(w, "record");
    json_write_close(w, '}');
    output_json_line(&w);
}

/* " NAME value", if the record has it. */
static void print_member(const struct audit_part *part, const char *name, const char *path, size_t longest)
{
    const struct json *value = audit_part_get(part, path);
    if (value && value->type == JSON_ARRAY)
        value = value->first;
    if (!value || (value->type != JSON_STRING && value->type != JSON_NUMBER))
        return;
    output_text(*name ? "  " : " ");
    output_text(name);
    output_text(*name ? " " : "");
    output_untrusted(value->text, value->length < longest ? value->length : longest);
}

static void print_text_of(const struct audit_part *part, const char *label, const char *path)
{
    const struct json *value = audit_part_get(part, path);
    if (!value || value->type != JSON_STRING)
        return;
    output_text(label);
    output_untrusted(value->text, value->length);
    output_text("\n");
}

static void print_text(const struct audit_part *part)
{
    char line[96], time[AUDIT_ISO_TIME];
    audit_iso_time(time, part->frame.utc_ms);
    snprintf(line, sizeof line, "%6llu  %s  %-8s", (unsigned long long)part->frame.seq, time,
             audit_type_name(part->frame.type));
    output_text(line);
    if (part->frame.type == AUDIT_END) {
        snprintf(line, sizeof line, " of %llu", (unsigned long long)part->frame.of);
        output_text(line);
    }
    if (!part->document)
        output_text(part->sealed ? "  sealed to another auditor" : "  content removed by retention");
    print_member(part, "", "command", 32);
    print_member(part, "user", "user.name", 64);
    print_member(part, "as", "user.stated", 64);
    print_member(part, "model", "model.sha256", 12);
    print_member(part, "question", "inputs.question_sha256", 12);
    print_member(part, "study", "study", 64);
    print_member(part, "", "outcome", 32);
    print_member(part, "tokens", "tokens.generated", 12);
    print_member(part, "ms", "timings.total_ms", 12);
    print_member(part, "output", "output.sha256", 12);
    print_member(part, "cut", "cut", 12);
    output_text("\n");
    print_text_of(part, "        Q: ", "question");
    print_text_of(part, "        A: ", "answer");
}

static void print_part(const struct show_options *o, const struct audit_part *part)
{
    if (o->format == FORMAT_JSONL)
        print_jsonl(part);
    else
        print_text(part);
}

static int on_use(void *user, const struct audit_use *use, struct ward_error *err)
{
    struct show_options *o = user;
    (void)err;
    if (!matches(o, use))
        return 0;
    if (o->format == FORMAT_FHIR || o->format == FORMAT_ATNA) {
        char *text = o->format == FORMAT_FHIR ? audit_export_fhir(use) : audit_export_atna(use);
        if (!text)
            die("out of memory");
        output_text(o->format == FORMAT_FHIR && o->shown ? ",\n" : "");
        output_text(text);
        output_text(o->format == FORMAT_ATNA ? "\n" : "");
        free(text);
    } else {
        print_part(o, &use->begin);
        if (use->end.frame.type)
            print_part(o, &use->end);
    }
    o->shown++;
    return 0;
}

/* ---- the commands ------------------------------------------------------------------------------------------------ */

struct shower {
    struct show_options *o;
    struct audit_uses uses; /* on_use NULL: records as they come */
};

static int on_record(void *user, struct audit_record *record, struct ward_error *err)
{
    struct shower *s = user;
    if (s->uses.on_use)
        return audit_uses_add(&s->uses, record, err);
    print_part(s->o, &(struct audit_part){*record->frame, record->document, record->sealed});
    return 0;
}

static int read_log(struct show_options *o, bool by_use)
{
    struct shower s = {.o = o, .uses = {.on_use = by_use ? on_use : NULL, .user = o}};
    struct audit_auditor key;
    struct audit_summary summary;
    struct ward_error err;
    struct offline_policy policy = {0};
    audit_command_key(&key, o->key);
    audit_command_lock(&policy, o->log, false);
    if (!o->anchor && key.has_anchor)
        o->anchor = memcpy(o->anchor_key, key.anchor, AUDIT_KEY);
    int rc = audit_read_records(o->log, o->anchor, &key, on_record, &s, &summary, &err);
    if (by_use && !rc)
        rc = audit_uses_finish(&s.uses, &err);
    audit_uses_clear(&s.uses);
    audit_auditor_forget(&key);
    if (rc) {
        output_flush();
        die_error(&err);
    }
    return 0;
}

static int run_show(int argc, char **argv)
{
    struct show_options o;
    parse(&o, &command_audit_show, argc, argv);
    return read_log(&o, false);
}

static int run_search(int argc, char **argv)
{
    struct show_options o;
    parse(&o, &command_audit_search, argc, argv);
    return read_log(&o, true);
}

static int run_export(int argc, char **argv)
{
    struct show_options o;
    parse(&o, &command_audit_export, argc, argv);
    if (o.format == FORMAT_FHIR)
        output_text(audit_export_fhir_head);
    const int status = read_log(&o, true);
    if (o.format == FORMAT_FHIR)
        output_text(audit_export_fhir_tail);
    return status;
}
