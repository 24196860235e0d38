/* ward audit rotate, prune: files that are full, records that are old. */
#include "cmd_audit.h"
#include "options.h"
#include "output.h"

#include "audit/writer.h"

#include <stdio.h>
#include <time.h>

static int run_rotate(int argc, char **argv);
static int run_prune(int argc, char **argv);

const struct command command_audit_rotate = {
    .name = "audit rotate",
    .summary = "close the file that is written to and begin the next",
    .usage = "audit rotate --log DIR",
    .help =
        "Example:\n"
        "  ward audit rotate                 once a month, by cron: content is removed by whole segments\n"
        "\n"
        "Nothing has to stop for it. A segment that has grown to 16 MB is closed without being told.\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n",
    .run = run_rotate,
};

const struct command command_audit_prune = {
    .name = "audit prune",
    .summary = "remove the content of old records",
    .usage = "audit prune --log DIR --older-than DAYS",
    .help =
        "Example:\n"
        "  ward audit prune --older-than 2192      six years\n"
        "\n"
        "Removes what the records of closed segments say once all of a segment is older. When each was written, and\n"
        "what proves that none is missing, stays: the log verifies against its anchor and every checkpoint as\n"
        "before. That it was done becomes a record.\n"
        "\n"
        "      --log DIR              the folder of the log (the configured one)\n"
        "      --older-than DAYS\n",
    .run = run_prune,
};

enum { OPT_LOG = 256, OPT_OLDER };

static const struct option options[] = {
    {"older-than", required_argument, NULL, OPT_OLDER}, /* prune's alone */
    {"log", required_argument, NULL, OPT_LOG},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static const char *parse(const struct command *command, const struct option *from, long long *days, int argc,
                         char **argv)
{
    const char *log = NULL;
    int c;
    while ((c = options_next(command, argc, argv, from)) != -1) {
        switch (c) {
        case OPT_LOG: log = optarg; break;
        case OPT_OLDER: *days = option_integer(command, "--older-than", optarg, 0, 100000); break;
        }
    }
    if (optind < argc)
        die_usage(command, "%s: '%s' is not an option", command->name, argv[optind]);
    log = audit_command_log(command, log);
    audit_command_lock(&(struct offline_policy){0}, log, true);
    return log;
}

static int run_rotate(int argc, char **argv)
{
    struct audit_writer *writer;
    struct ward_error err;
    const char *log = parse(&command_audit_rotate, options + 1, NULL, argc, argv);
    if (audit_writer_open(&writer, log, &err) || audit_rotate(writer, NULL, &err))
        die_error(&err);
    audit_writer_close(&writer);
    return 0;
}

struct age {
    uint64_t before;  /* UTC in ms */
    uint64_t through; /* the last segment of those that are closed and older */
    bool ended;       /* a younger record has come */
};

static int on_entry(void *user, const struct audit_entry *entry, struct ward_error *err)
{
    struct age *age = user;
    (void)err;
    age->ended = age->ended || entry->frame->utc_ms >= age->before;
    if (!age->ended && entry->frame->type == AUDIT_CLOSE)
        age->through = entry->frame->segment;
    return 0;
}

static int run_prune(int argc, char **argv)
{
    long long days = -1;
    char line[96];
    struct audit_writer *writer;
    struct ward_error err;
    const char *log = parse(&command_audit_prune, options, &days, argc, argv);
    if (days < 0)
        die_usage(&command_audit_prune, "audit prune: how old? --older-than DAYS");
    struct age age = {.before = (uint64_t)time(NULL) * 1000 - (uint64_t)days * 86400000};
    struct audit_reader reader = {.on_entry = on_entry, .user = &age};
    if (audit_writer_open(&writer, log, &err) || audit_read_log(&reader, log, &err))
        die_error(&err);
    audit_reader_clear(&reader);
    if (age.through > reader.summary.pruned && audit_prune(writer, age.through, &err))
        die_error(&err);
    audit_writer_close(&writer);
    snprintf(line, sizeof line, "the content of %llu of %llu segments is removed\n",
             (unsigned long long)(age.through > reader.summary.pruned ? age.through : reader.summary.pruned),
             (unsigned long long)reader.summary.segments);
    output_text(line);
    return 0;
}
