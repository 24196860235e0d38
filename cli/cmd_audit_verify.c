/* ward audit verify, checkpoint, status: what needs no secret of the auditor's. */
#include "cmd_audit.h"
#include "options.h"
#include "output.h"

#include "audit/export.h"
#include "audit/writer.h"
#include "base/json.h"
#include "base/mapping.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run_verify(int argc, char **argv);
static int run_checkpoint(int argc, char **argv);
static int run_status(int argc, char **argv);

const struct command command_audit_verify = {
    .name = "audit verify",
    .summary = "check every record",
    .usage = "audit verify --log DIR [--anchor KEY] [--checkpoint FILE] [options]",
    .help =
        "Examples:\n"
        "  ward audit verify --log DIR --anchor 8ac4... --checkpoint last-month.txt\n"
        "  ward audit verify --log DIR --anchor auditor.key\n"
        "  ward audit verify --log DIR                 self-consistent only: a log written anew would pass\n"
        "\n"
        "Needs no secret. Exit status 1 and the first bad place when a record was changed, removed, repeated, moved,\n"
        "taken from another log, or signed with a later key, or when the clock was set back. What was cut off at the\n"
        "end shows with a checkpoint that is later than the cut.\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n"
        "      --anchor KEY           the first public key, as ward audit init printed it, or a key file\n"
        "      --checkpoint FILE      what ward audit checkpoint printed once\n"
        "      --allow-clock-steps    tell of a clock that was set back, but do not fail for it\n"
        "      --json                 one JSON object instead of text\n",
    .run = run_verify,
};

const struct command command_audit_checkpoint = {
    .name = "audit checkpoint",
    .summary = "a signed line to keep elsewhere",
    .usage = "audit checkpoint --log DIR",
    .help =
        "Examples:\n"
        "  ward audit checkpoint --log DIR > /media/usb/ward-$(date +%F).txt\n"
        "  ward audit checkpoint --log DIR | qrencode -t ansiutf8      on paper\n"
        "  ward audit checkpoint --log DIR | logger -t ward-audit      to a syslog server\n"
        "\n"
        "Checks the log, then prints its tree head (RFC 6962) as a signed note (C2SP tlog-checkpoint). Kept where\n"
        "this machine cannot reach, it makes every loss of a record before it visible to verify --checkpoint.\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n",
    .run = run_checkpoint,
};

const struct command command_audit_status = {
    .name = "audit status",
    .summary = "what is there",
    .usage = "audit status --log DIR [--json]",
    .help =
        "Example:\n"
        "  ward audit status\n"
        "\n"
        "The log that is configured, its size, its auditors and the key that checkpoints are signed with; whether it\n"
        "can be written to, and whether it verifies by itself.\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n"
        "      --json                 one JSON object instead of text\n",
    .run = run_status,
};

enum { OPT_LOG = 256, OPT_ANCHOR, OPT_CHECKPOINT, OPT_CLOCK, OPT_JSON };

struct verify_options {
    const char *log, *checkpoint;
    const uint8_t *anchor;
    uint8_t anchor_key[AUDIT_KEY];
    bool allow_clock, json;
};

static void parse(struct verify_options *o, const struct command *command, const struct option *options, int argc,
                  char **argv)
{
    const char *anchor = NULL;
    int c;
    while ((c = options_next(command, argc, argv, options)) != -1) {
        switch (c) {
        case OPT_LOG: o->log = optarg; break;
        case OPT_ANCHOR: anchor = optarg; break;
        case OPT_CHECKPOINT: o->checkpoint = optarg; break;
        case OPT_CLOCK: o->allow_clock = true; break;
        case OPT_JSON: o->json = true; break;
        }
    }
    if (optind < argc)
        die_usage(command, "%s: '%s' is not an option", command->name, argv[optind]);
    o->log = audit_command_log(command, o->log);
    o->anchor = audit_command_anchor(o->anchor_key, anchor);
}

/* ---- a checkpoint on the way ------------------------------------------------------------------------------------- */

struct compared {
    struct audit_reader *reader;
    char *text;
    size_t length;
    struct audit_checkpoint checkpoint;
    bool reached, same_root, is_signed;
};

static int on_entry(void *user, const struct audit_entry *entry, struct ward_error *err)
{
    struct compared *c = user;
    uint8_t root[AUDIT_HASH];
    (void)err;
    if (entry->frame->seq + 1 == c->checkpoint.size) {
        audit_tree_root(&c->reader->summary.tree, root);
        c->reached = true;
        c->same_root = !memcmp(root, c->checkpoint.root, AUDIT_HASH);
        c->is_signed = audit_checkpoint_is_signed(&c->checkpoint, c->text, c->length, entry->header->note_key);
    }
    return 0;
}

static int judge_checkpoint(const struct compared *c, const char *name, struct ward_error *err)
{
    const struct audit_summary *s = &c->reader->summary;
    char origin[AUDIT_ORIGIN];
    audit_checkpoint_origin(origin, s->anchor);
    if (strcmp(origin, c->checkpoint.origin) != 0)
        return error_set(err, WARD_EFORMAT, "%s: is of the log %s; this one is %s", name, c->checkpoint.origin, origin);
    if (!c->reached)
        return error_set(err, WARD_EFORMAT, "%s: knows of %llu records, but the log holds %llu: the last are missing",
                         name, (unsigned long long)c->checkpoint.size, (unsigned long long)s->tree.n);
    if (!c->same_root)
        return error_set(err, WARD_EFORMAT, "%s: the log's first %llu records are not those that it was made of", name,
                         (unsigned long long)c->checkpoint.size);
    if (!c->is_signed)
        return error_set(err, WARD_EFORMAT, "%s: is not signed by the key of its segment", name);
    return 0;
}

/* ---- verify ------------------------------------------------------------------------------------------------------ */

static int judge_clock(const struct audit_summary *s, const char *log, struct ward_error *err)
{
    if (!s->set_back)
        return 0;
    return error_set(err, WARD_EFORMAT, "%s: the clock was set back by %llu s after record %llu%s: what the records "
                     "say of the time is not to be relied on", log, (unsigned long long)(s->set_back_ms / 1000),
                     (unsigned long long)s->set_back_seq, s->set_back > 1 ? ", and again later" : "");
}

static int verify(struct audit_reader *reader, const struct verify_options *o, struct ward_error *err)
{
    struct compared compared = {.reader = reader};
    int rc = 0;
    *reader = (struct audit_reader){.anchor = o->anchor};
    if (o->checkpoint) {
        rc = file_read(&compared.text, &compared.length, o->checkpoint, AUDIT_CHECKPOINT_LIMIT, err);
        if (!rc)
            rc = audit_checkpoint_parse(&compared.checkpoint, compared.text, compared.length, o->checkpoint, err);
        reader->on_entry = on_entry;
        reader->user = &compared;
    }
    if (!rc)
        rc = audit_read_log(reader, o->log, err);
    if (!rc && o->checkpoint)
        rc = judge_checkpoint(&compared, o->checkpoint, err);
    if (!rc && !o->allow_clock)
        rc = judge_clock(&reader->summary, o->log, err);
    free(compared.text);
    audit_reader_clear(reader);
    return rc;
}

static void print_counts(const struct audit_summary *s)
{
    char line[512], first[AUDIT_ISO_TIME], last[AUDIT_ISO_TIME];
    audit_iso_time(first, s->utc_ms[0]);
    audit_iso_time(last, s->utc_ms[1]);
    snprintf(line, sizeof line, "%llu records in %llu segment%s, %s to %s\n", (unsigned long long)s->tree.n,
             (unsigned long long)s->segments, s->segments == 1 ? "" : "s", first, last);
    output_text(line);
    snprintf(line, sizeof line, "%llu uses, %llu of them without an end (killed, power cut, or going on); %llu notes\n",
             (unsigned long long)s->by_type[AUDIT_BEGIN], (unsigned long long)s->open_uses,
             (unsigned long long)s->by_type[AUDIT_NOTE]);
    output_text(line);
    if (s->by_type[AUDIT_RECOVERY]) {
        snprintf(line, sizeof line, "%llu times a write that a crash interrupted was cut off\n",
                 (unsigned long long)s->by_type[AUDIT_RECOVERY]);
        output_text(line);
    }
    if (s->pruned) {
        snprintf(line, sizeof line, "the content of the first %llu segments was removed by retention\n",
                 (unsigned long long)s->pruned);
        output_text(line);
    }
    if (s->set_back) {
        snprintf(line, sizeof line, "the clock was set back %llu times, first after record %llu by %llu s\n",
                 (unsigned long long)s->set_back, (unsigned long long)s->set_back_seq,
                 (unsigned long long)(s->set_back_ms / 1000));
        output_text(line);
    }
    if (s->set_forward) {
        snprintf(line, sizeof line, "the clock was set forward %llu times\n", (unsigned long long)s->set_forward);
        output_text(line);
    }
}

static void print_verdict(const struct verify_options *o, const struct audit_summary *s)
{
    print_counts(s);
    output_text(o->anchor ? "begins with the anchor\n"
                          : "self-consistent only: without --anchor a log that was written anew looks the same\n");
    if (o->checkpoint)
        output_text("holds all that the checkpoint knows of\n");
    output_text(s->closed ? "the last segment is closed: records after it would be in another\n"
                          : "the last segment is open: a cut at its end shows only with a later checkpoint\n");
    output_text("good\n");
}

static void write_key(struct json_writer *w, const char *name, const uint8_t key[AUDIT_KEY])
{
    char digits[2 * AUDIT_KEY + 1];
    audit_hex(digits, key, AUDIT_KEY);
    json_write_string(w, name, digits, 2 * AUDIT_KEY);
}

static void write_summary(struct json_writer *w, const struct audit_summary *s)
{
    char time[AUDIT_ISO_TIME];
    json_write_integer(w, "records", (int64_t)s->tree.n);
    json_write_integer(w, "segments", (int64_t)s->segments);
    json_write_integer(w, "pruned_segments", (int64_t)s->pruned);
    json_write_integer(w, "uses", (int64_t)s->by_type[AUDIT_BEGIN]);
    json_write_integer(w, "uses_without_end", (int64_t)s->open_uses);
    json_write_integer(w, "notes", (int64_t)s->by_type[AUDIT_NOTE]);
    json_write_integer(w, "recoveries", (int64_t)s->by_type[AUDIT_RECOVERY]);
    json_write_integer(w, "clock_set_back", (int64_t)s->set_back);
    json_write_integer(w, "clock_set_forward", (int64_t)s->set_forward);
    json_write_boolean(w, "closed", s->closed);
    if (!s->tree.n)
        return;
    for (int i = 0; i < 2; i++) {
        audit_iso_time(time, s->utc_ms[i]);
        json_write_string(w, i ? "last" : "first", time, strlen(time));
    }
    write_key(w, "anchor", s->anchor);
    json_write_open(w, "auditors", '[');
    for (int i = 0; i < s->header.n_auditors; i++)
        write_key(w, NULL, s->header.auditors[i].public_key);
    json_write_close(w, ']');
}

static void write_json(const struct audit_summary *s, const struct verify_options *o, int rc,
                       const struct ward_error *err, bool *writable)
{
    struct json_writer *w = json_writer_new(true);
    char origin[AUDIT_ORIGIN], verifier[AUDIT_VERIFIER_ROOM];
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_boolean(w, "good", rc == 0);
    if (rc)
        json_write_string(w, "error", err->text, strlen(err->text));
    if (writable) {
        json_write_string(w, "log", o->log, strlen(o->log));
        json_write_boolean(w, "writable", *writable);
    } else {
        json_write_boolean(w, "anchored", o->anchor != NULL);
        json_write_boolean(w, "checkpoint", o->checkpoint != NULL);
    }
    write_summary(w, s);
    if (s->tree.n) {
        audit_checkpoint_origin(origin, s->anchor);
        audit_checkpoint_verifier(verifier, origin, s->header.note_key);
        json_write_string(w, "checkpoint_key", verifier, strlen(verifier));
    }
    json_write_close(w, '}');
    output_json_line(&w);
}

static int run_verify(int argc, char **argv)
{
    static const struct option options[] = {
        {"log", required_argument, NULL, OPT_LOG},
        {"anchor", required_argument, NULL, OPT_ANCHOR},
        {"checkpoint", required_argument, NULL, OPT_CHECKPOINT},
        {"allow-clock-steps", no_argument, NULL, OPT_CLOCK},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct verify_options o = {0};
    struct offline_policy policy = {0};
    struct audit_reader reader;
    struct ward_error err;
    parse(&o, &command_audit_verify, options, argc, argv);
    offline_allow(&policy, OFFLINE_READ, o.checkpoint);
    audit_command_lock(&policy, o.log, false);
    const int rc = verify(&reader, &o, &err);
    if (o.json)
        write_json(&reader.summary, &o, rc, &err, NULL);
    else if (!rc)
        print_verdict(&o, &reader.summary);
    output_flush();
    if (rc)
        print_error("%s", err.text);
    return rc ? EXIT_FAILED : 0;
}

/* ---- checkpoint -------------------------------------------------------------------------------------------------- */

static int run_checkpoint(int argc, char **argv)
{
    static const struct option options[] = {
        {"log", required_argument, NULL, OPT_LOG},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct verify_options o = {0};
    struct offline_policy policy = {0};
    struct audit_reader reader;
    struct audit_writer *writer;
    struct audit_checkpoint checkpoint;
    struct ward_error err;
    uint8_t seed[AUDIT_KEY];
    char text[AUDIT_CHECKPOINT_ROOM];
    bool current;
    parse(&o, &command_audit_checkpoint, options, argc, argv);
    audit_command_lock(&policy, o.log, true);
    if (audit_writer_open(&writer, o.log, &err))
        die_error(&err);
    do { /* again when a new segment began meanwhile: its key is another */
        reader = (struct audit_reader){0};
        if (audit_read_log(&reader, o.log, &err) ||
            audit_note_seed(writer, reader.summary.segments, seed, &current, &err))
            die_error(&err);
        audit_reader_clear(&reader);
    } while (!current);
    audit_writer_close(&writer);
    checkpoint.size = reader.summary.tree.n;
    audit_checkpoint_origin(checkpoint.origin, reader.summary.anchor);
    audit_tree_root(&reader.summary.tree, checkpoint.root);
    audit_checkpoint_sign(text, &checkpoint, seed);
    explicit_bzero(seed, sizeof seed);
    output_text(text);
    return 0;
}

/* ---- status ------------------------------------------------------------------------------------------------------ */

static int run_status(int argc, char **argv)
{
    static const struct option options[] = {
        {"log", required_argument, NULL, OPT_LOG},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct verify_options o = {.allow_clock = true};
    struct offline_policy policy = {0};
    struct audit_reader reader;
    struct audit_writer *writer;
    struct ward_error err, not_writable;
    parse(&o, &command_audit_status, options, argc, argv);
    audit_command_lock(&policy, o.log, true);
    bool writable = audit_writer_open(&writer, o.log, &not_writable) == 0;
    audit_writer_close(&writer);
    const int rc = verify(&reader, &o, &err);
    const struct audit_summary *s = &reader.summary;
    if (o.json) {
        write_json(s, &o, rc, &err, &writable);
    } else {
        char line[256], origin[AUDIT_ORIGIN], verifier[AUDIT_VERIFIER_ROOM], digits[2 * AUDIT_KEY + 1];
        output_text(o.log);
        output_text("\n");
        print_counts(s);
        for (int i = 0; i < s->header.n_auditors; i++) {
            audit_hex(digits, s->header.auditors[i].public_key, AUDIT_KEY);
            snprintf(line, sizeof line, "can be read by %s\n", digits);
            output_text(line);
        }
        if (s->tree.n) {
            audit_checkpoint_origin(origin, s->anchor);
            audit_checkpoint_verifier(verifier, origin, s->header.note_key);
            snprintf(line, sizeof line, "checkpoints are signed by %s\n", verifier);
            output_text(line);
        }
        output_text(writable ? "can be written to\n" : "cannot be written to\n");
        if (!rc)
            output_text("verifies by itself; ward audit verify --anchor says more\n");
    }
    output_flush();
    if (!writable)
        print_error("%s", not_writable.text);
    if (rc)
        print_error("%s", err.text);
    return rc || !writable ? EXIT_FAILED : 0;
}
