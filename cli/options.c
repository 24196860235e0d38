#include "options.h"
#include "output.h"
#include "use.h"

#include "engine/device.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Edits (insert, delete, replace) from a to b; both shorter than 32, else 32. */
static int edit_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    if (la >= 32 || lb >= 32)
        return 32;
    int row[33];
    for (size_t j = 0; j <= lb; j++)
        row[j] = (int)j;
    for (size_t i = 1; i <= la; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= lb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

static _Noreturn void die_unknown(const struct command *command, const char *given, const struct option *options)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(given, "="), given);
    const char *best = NULL;
    int best_distance = 3;
    for (const struct option *o = options; o->name && strncmp(name, "--", 2) == 0; o++) {
        int distance = edit_distance(name + 2, o->name);
        if (distance < best_distance) {
            best_distance = distance;
            best = o->name;
        }
    }
    if (best)
        die_usage(command, "%s: there is no option %s; did you mean --%s?", command->name, name, best);
    die_usage(command, "%s: there is no option %s", command->name, name);
}

enum { OPT_ALLOW_UNLOCKED = 10000, OPT_USER, OPT_AUDIT_TEXT, OPT_STUDY, OPT_SERIES, OPT_INSTANCE, MOST_OPTIONS = 64 };
static const struct option of_every_command[] = {
    {"allow-unlocked", no_argument, NULL, OPT_ALLOW_UNLOCKED},
    {0},
};
static const struct option of_audited_commands[] = {
    {"user", required_argument, NULL, OPT_USER},
    {"audit-text", no_argument, NULL, OPT_AUDIT_TEXT},
    {"study", required_argument, NULL, OPT_STUDY},
    {"series", required_argument, NULL, OPT_SERIES},
    {"instance", required_argument, NULL, OPT_INSTANCE},
    {0},
};
static bool allow_unlocked;

bool options_allow_unlocked(void)
{
    return allow_unlocked;
}

static _Noreturn void print_help_of(const struct command *command)
{
    output_text("usage: ward ");
    output_text(command->usage);
    output_text("\n\n");
    output_text(command->help);
    output_text("      --allow-unlocked       go on where the system cannot lock ward in (docs/offline.md)\n");
    if (command->audited)
        output_text("\nFor the audit log, if one is configured (docs/audit-log.md):\n"
                    "      --user NAME            who asks, beside the user of the system\n"
                    "      --study UID, --series UID, --instance UID    what the images are of; each may be repeated\n"
                    "      --audit-text           the question and the answer themselves go into it\n");
    output_flush();
    exit(0);
}

static size_t append(struct option all[MOST_OPTIONS], size_t n, const struct option *options)
{
    for (; options->name; options++) {
        assert(n + 1 < MOST_OPTIONS);
        all[n++] = *options;
    }
    all[n] = (struct option){0};
    return n;
}

/* Whether the option is one of those that are not a single command's. */
static bool take_common(int c)
{
    switch (c) {
    case OPT_ALLOW_UNLOCKED: allow_unlocked = true; break;
    case OPT_USER: use_set_user(optarg); break;
    case OPT_AUDIT_TEXT: use_set_text(); break;
    case OPT_STUDY: use_add_uid("study", optarg); break;
    case OPT_SERIES: use_add_uid("series", optarg); break;
    case OPT_INSTANCE: use_add_uid("instance", optarg); break;
    default: return false;
    }
    return true;
}

int options_next(const struct command *command, int argc, char **argv, const struct option *options)
{
    char letters[64] = ":h";
    size_t n = 2;
    for (const struct option *o = options; o->name && n + 3 < sizeof letters; o++) {
        if (o->val > 0 && o->val < 128 && isalpha(o->val)) {
            letters[n++] = (char)o->val;
            if (o->has_arg == required_argument)
                letters[n++] = ':';
        }
    }
    letters[n] = '\0';
    opterr = 0;
    struct option all[MOST_OPTIONS];
    size_t n_all = append(all, append(all, 0, options), of_every_command);
    if (command->audited)
        append(all, n_all, of_audited_commands);
    int c;
    do
        c = getopt_long(argc, argv, letters, all, NULL);
    while (take_common(c));
    if (c == 'h')
        print_help_of(command);
    if (c == ':')
        die_usage(command, "%s: option %s needs a value", command->name, argv[optind - 1]);
    if (c == '?') {
        char letter[3] = {'-', (char)optopt, '\0'};
        if (optopt == 0) /* a long option unknown, or short for more than one */
            die_unknown(command, argv[optind - 1], all);
        for (const struct option *o = all; o->name; o++)
            if (o->val == optopt && o->has_arg == no_argument && strncmp(argv[optind - 1], "--", 2) == 0)
                die_usage(command, "%s: option --%s takes no value", command->name, o->name);
        die_unknown(command, letter, all);
    }
    return c;
}

long long option_integer(const struct command *command, const char *name, const char *text, long long low,
                         long long high)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || isspace((unsigned char)*text) || errno || value < low || value > high)
        die_usage(command, "%s: option %s takes a whole number from %lld to %lld, not '%s'", command->name, name, low,
                  high, text);
    return value;
}

unsigned long long option_unsigned(const struct command *command, const char *name, const char *text)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno)
        die_usage(command, "%s: option %s takes a whole number from 0 to %llu, not '%s'", command->name, name,
                  (unsigned long long)UINT64_MAX, text);
    return value;
}

double option_number(const struct command *command, const char *name, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || !(value >= low && value <= high))
        die_usage(command, "%s: option %s takes a number from %g to %g, not '%s'", command->name, name, low, high,
                  text);
    return value;
}

int option_choice(const struct command *command, const char *name, const char *text, const char *const *choices)
{
    char list[128] = "";
    for (int i = 0; choices[i]; i++) {
        if (strcmp(text, choices[i]) == 0)
            return i;
        size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", choices[i]);
    }
    die_usage(command, "%s: option %s takes one of %s, not '%s'", command->name, name, list, text);
}

const char *option_device(const struct command *command, const char *text)
{
    int device;
    if (!device_parse(text, &device))
        die_usage(command, "%s: option --device takes auto, cpu, cuda or cuda:N, not '%s'", command->name, text);
    return text;
}
