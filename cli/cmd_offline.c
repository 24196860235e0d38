/* ward offline: the lock, tried out on this machine. */
#include "options.h"
#include "output.h"

#include "base/json.h"
#include "offline/probe.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>

static int run(int argc, char **argv);

const struct command command_offline = {
    .name = "offline",
    .summary = "try to get out of the lock: what this machine's kernel refuses",
    .usage = "offline [--json]",
    .help =
        "Examples:\n"
        "  ward offline                      a table\n"
        "  ward offline --json > proof.json  for an auditor's file\n"
        "\n"
        "Tries to reach the network, other programs and other files, once from inside the lock that every command puts\n"
        "on itself and once without it, against listeners of its own on this machine: nothing leaves it. What the\n"
        "lock refuses has to go well without it, or the proof is void. The status is 0 only if the lock holds.\n"
        "\n"
        "      --json                 one JSON object instead of the table\n",
    .run = run,
};

enum { OPT_JSON = 256 };

static const struct option options[] = {
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, 'h'},
    {0},
};

/* "EPERM", "allowed" */
static const char *answer_of(int error)
{
    const char *name = error ? strerrorname_np(error) : "allowed";
    return name ? name : "refused";
}

/* What the kernel gives beyond the filter of system calls, which refuses the same: a wall behind the wall. */
static const struct {
    int abi;
    const char *name, *what;
} layers[] = {
    {1, "files", "files are read and written only where the policy says"},
    {2, "renames", "files are not moved or linked between folders of different rights"},
    {3, "truncation", "files are not emptied by their name"},
    {4, "tcp", "no TCP port is bound or connected to"},
    {5, "devices", "devices take no commands"},
    {6, "scopes", "no abstract Unix socket and no signal reaches a process outside"},
};
enum { N_LAYERS = sizeof layers / sizeof *layers };

/* Bytes of memory that this user may keep out of swap; -1: any number. */
static long long lockable_bytes(void)
{
    struct rlimit limit = {0};
    return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? (long long)limit.rlim_cur : -1;
}

static void print_json(const struct proof *proof, const char *kernel)
{
    struct json_writer *w = json_writer_new(true);
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_boolean(w, "enforced", proof->enforced);
    json_write_text(w, "kernel", kernel);
    json_write_text(w, "ward", WARD_VERSION);
    json_write_boolean(w, "seccomp", proof->state.seccomp);
    json_write_integer(w, "landlock", proof->state.landlock);
    json_write_text(w, "missing", *proof->state.missing ? proof->state.missing : NULL);
    json_write_open(w, "guarantees", '{');
    for (int i = 0; i < N_LAYERS; i++)
        json_write_boolean(w, layers[i].name, proof->state.landlock >= layers[i].abi);
    json_write_boolean(w, "system_calls", proof->state.seccomp);
    if (lockable_bytes() < 0)
        json_write_null(w, "lockable_bytes");
    else
        json_write_integer(w, "lockable_bytes", lockable_bytes());
    json_write_close(w, '}');
    json_write_open(w, "probes", '[');
    for (int i = 0; i < proof->n; i++) {
        const struct probe *p = &proof->at[i];
        json_write_open(w, NULL, '{');
        json_write_text(w, "name", p->name);
        json_write_text(w, "locked", p->locked ? "denied" : "allowed");
        json_write_text(w, "unlocked", p->unlocked ? "denied" : "allowed");
        json_write_integer(w, "errno", p->locked);
        json_write_text(w, "error", p->locked ? answer_of(p->locked) : NULL);
        json_write_integer(w, "unlocked_errno", p->unlocked);
        json_write_boolean(w, "needed", p->needed);
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
    json_write_close(w, '}');
    output_json_line(&w);
}

static void print_table(const struct proof *proof, const char *kernel)
{
    char line[256];
    snprintf(line, sizeof line, "Linux %s: Landlock %d, seccomp %s\n\n%-50s %-12s %s\n", kernel, proof->state.landlock,
             proof->state.seccomp ? "yes" : "no", "tried", "locked", "not locked");
    output_text(line);
    for (int i = 0; i < proof->n; i++) {
        const struct probe *p = &proof->at[i];
        snprintf(line, sizeof line, "%-50s %-12s %s%s\n", p->what, answer_of(p->locked), answer_of(p->unlocked),
                 p->locked && !(p->needed && p->unlocked) ? "" : "   <-");
        output_text(line);
    }
    output_text("\nLandlock of this kernel:\n");
    for (int i = 0; i < N_LAYERS; i++) {
        snprintf(line, sizeof line, "  %-3s %s\n", proof->state.landlock >= layers[i].abi ? "yes" : "no",
                 layers[i].what);
        output_text(line);
    }
}

/* The first reason why the lock is not proven. */
static void print_fault(const struct proof *proof)
{
    if (*proof->state.missing) {
        print_error("not enforced: %s", proof->state.missing);
        return;
    }
    for (int i = 0; i < proof->n; i++) {
        const struct probe *p = &proof->at[i];
        if (!p->locked)
            print_error("not enforced: the lock let ward %s", p->what);
        else if (p->needed && p->unlocked)
            print_error("nothing is proven: without the lock, too, ward could not %s (%s)", p->what,
                        strerror(p->unlocked));
        else
            continue;
        return;
    }
}

static int run(int argc, char **argv)
{
    bool json = false;
    int c;
    while ((c = options_next(&command_offline, argc, argv, options)) != -1)
        json = json || c == OPT_JSON;
    if (optind < argc)
        die_usage(&command_offline, "offline: takes no operand, but '%s' was given", argv[optind]);
    struct proof proof;
    struct ward_error err;
    struct utsname system;
    if (probe_all(&proof, &err))
        die_error(&err);
    if (uname(&system))
        snprintf(system.release, sizeof system.release, "unknown");
    if (json)
        print_json(&proof, system.release);
    else
        print_table(&proof, system.release);
    output_flush();
    if (!proof.enforced)
        print_fault(&proof);
    return proof.enforced ? 0 : EXIT_FAILED;
}
