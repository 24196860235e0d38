/* ward tokenize: text to token ids and back, with the tokenizer of a checkpoint alone. */
#include "input.h"
#include "lock.h"
#include "options.h"
#include "output.h"
#include "use.h"

#include "base/json.h"
#include "model/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct command command_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back; needs no weights",
    .usage = "tokenize -m MODEL [--json] [--plain] [--bos] [--decode] [TEXT]",
    .help =
        "Examples:\n"
        "  ward tokenize -m ./models \"Describe this X-ray.\"        ids, separated by spaces\n"
        "  ward tokenize -m ./models --decode \"82858 672 1684\"     the text of ids\n"
        "  ward tokenize -m ./models --json < strings.jsonl        a JSON string per line in, a list of ids out\n"
        "\n"
        "TEXT: without it standard input is read: whole (its last newline is text, too) or, with --json, by lines.\n"
        "\n"
        "  -m, --model DIR|ORG/NAME   folder of the checkpoint (tokenizer.json or tokenizer.model), or its name in\n"
        "                             the local Hugging Face cache\n"
        "      --json                 ids as a JSON list; lines of JSON on standard input\n"
        "      --plain                special tokens in TEXT are text; else they are read as Hugging Face does\n"
        "      --bos                  put <bos> first (Hugging Face's add_special_tokens=True)\n"
        "      --decode               the reverse: ids in, text out, special tokens written out\n",
    .run = run,
    .audited = true,
};

enum { OPT_JSON = 256, OPT_PLAIN, OPT_BOS, OPT_DECODE };

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"help", no_argument, NULL, 'h'},
    {"json", no_argument, NULL, OPT_JSON},
    {"plain", no_argument, NULL, OPT_PLAIN},
    {"bos", no_argument, NULL, OPT_BOS},
    {"decode", no_argument, NULL, OPT_DECODE},
    {0},
};

struct job {
    struct tokenizer *tokenizer;
    bool json, decode;
    enum tokenize_mode mode;
    int32_t bos; /* put first; -1: nothing is */
    struct ids ids; /* of the text at hand; reused */
};

/* ---- text to ids ------------------------------------------------------------------------------------------------- */

static void write_ids(const struct job *job)
{
    const char *separator = job->json ? ", " : " ";
    if (job->json)
        output_text("[");
    for (size_t i = 0; i < job->ids.n; i++) {
        char number[32];
        int n = snprintf(number, sizeof number, "%s%d", i ? separator : "", (int)job->ids.at[i]);
        output_bytes(number, (size_t)n);
    }
    output_text(job->json ? "]\n" : "\n");
}

static int encode(struct job *job, const char *text, size_t length, struct ward_error *err)
{
    job->ids.n = 0;
    int rc = job->bos < 0 ? 0 : ids_append(&job->ids, job->bos, err);
    if (rc == 0)
        rc = tokenizer_encode(job->tokenizer, text, length, job->mode, &job->ids, err);
    if (rc == 0)
        write_ids(job);
    return rc;
}

/* ---- ids to text ------------------------------------------------------------------------------------------------- */

static int add_id(struct job *job, long long id, struct ward_error *err)
{
    if (id < 0 || id >= tokenizer_size(job->tokenizer))
        return error_set(err, WARD_EINVAL, "%lld is not the id of a token: ids run from 0 to %d", id,
                         (int)tokenizer_size(job->tokenizer) - 1);
    return ids_append(&job->ids, (int32_t)id, err);
}

/* Writes the text of job->ids: as it is, or as a JSON string on a line. */
static int write_text(const struct job *job, struct ward_error *err)
{
    char *text;
    size_t length;
    int rc = tokenizer_decode(job->tokenizer, job->ids.at, job->ids.n, true, &text, &length, err);
    if (rc)
        return rc;
    if (!job->json) {
        output_bytes(text, length);
    } else {
        struct json_writer *w = json_writer_new(false);
        if (w)
            json_write_string(w, NULL, text, length);
        output_json_line(&w);
    }
    free(text);
    return 0;
}

static int decode_plain(struct job *job, const char *text, size_t length, struct ward_error *err)
{
    static const char separators[] = " \t\r\n,[]";
    const char *at = text, *end = text + length;
    job->ids.n = 0;
    for (;;) {
        at += strspn(at, separators);
        if (at == end)
            break;
        char *after;
        errno = 0;
        long long id = strtoll(at, &after, 10);
        if (after == at || errno || (*after && !strchr(separators, *after)))
            return error_set(err, WARD_EINVAL, "ids are whole numbers separated by spaces or commas");
        int rc = add_id(job, id, err);
        if (rc)
            return rc;
        at = after;
    }
    return write_text(job, err);
}

/* ---- JSON, a value on a line ------------------------------------------------------------------------------------- */

static int run_value(struct job *job, const struct json *value, const char *name, struct ward_error *err)
{
    if (!job->decode) {
        if (value->type != JSON_STRING)
            return error_set(err, WARD_EFORMAT, "%s: is not a JSON string", name);
        return encode(job, value->text, value->length, err);
    }
    if (value->type != JSON_ARRAY)
        return error_set(err, WARD_EFORMAT, "%s: is not a JSON list of ids", name);
    job->ids.n = 0;
    for (const struct json *item = value->first; item; item = item->next) {
        int64_t id;
        if (!json_integer(item, 0, INT32_MAX, &id))
            return error_set(err, WARD_EFORMAT, "%s: holds what is not an id", name);
        int rc = add_id(job, id, err);
        if (rc)
            return rc;
    }
    return write_text(job, err);
}

static int run_line(struct job *job, const char *line, size_t length, const char *name, struct ward_error *err)
{
    struct json_document *document;
    int rc = json_parse(&document, line, length, name, err);
    if (rc)
        return rc;
    rc = run_value(job, json_root(document), name, err);
    json_close(&document);
    return rc;
}

static int run_lines(struct job *job, struct ward_error *err)
{
    char *line = NULL, name[64];
    size_t room = 0;
    int rc = 0;
    errno = 0;
    for (long long number = 1; rc == 0; number++) {
        ssize_t n = getline(&line, &room, stdin);
        if (n < 0)
            break;
        snprintf(name, sizeof name, "standard input, line %lld", number);
        rc = run_line(job, line, (size_t)n, name, err);
        output_flush(); /* who waits for each answer before the next question is not left waiting */
    }
    if (rc == 0 && ferror(stdin))
        rc = error_set(err, WARD_EIO, "standard input: cannot be read: %s", strerror(errno));
    free(line);
    return rc;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int run_text(struct job *job, const char *given, struct ward_error *err)
{
    size_t length;
    char *text = NULL;
    if (given)
        length = strlen(given);
    else
        given = text = input_read(&length);
    int rc;
    if (!job->decode)
        rc = encode(job, given, length, err);
    else if (job->json)
        rc = run_line(job, given, length, "TEXT", err);
    else
        rc = decode_plain(job, given, length, err);
    free(text);
    return rc;
}

static int run(int argc, char **argv)
{
    const char *model_path = NULL;
    bool bos = false;
    struct job job = {.bos = -1};
    struct ward_error err;
    int c;
    while ((c = options_next(&command_tokenize, argc, argv, options)) != -1) {
        switch (c) {
        case 'm': model_path = optarg; break;
        case OPT_JSON: job.json = true; break;
        case OPT_PLAIN: job.mode = TOKENIZE_PLAIN; break;
        case OPT_BOS: bos = true; break;
        case OPT_DECODE: job.decode = true; break;
        }
    }
    if (argc - optind > 1)
        die_usage(&command_tokenize, "tokenize: one TEXT is expected, %d were given: put it in quotes", argc - optind);
    if (!model_path)
        die_usage(&command_tokenize, "tokenize: which model? give its folder with -m");

    use_open();
    struct offline_policy policy = {0};
    int rc = lock_allow_model(&policy, model_path, NULL, &err);
    if (rc)
        die_error(&err);
    lock_enforce(&policy);
    use_begin();
    rc = checkpoint_open_tokenizer(&job.tokenizer, model_path, &err);
    if (rc)
        die_error(&err);
    if (bos && (job.bos = tokenizer_id(job.tokenizer, "<bos>")) < 0)
        die("%s: its tokenizer has no <bos>", model_path);

    const char *text = optind < argc ? argv[optind] : NULL;
    rc = !text && job.json ? run_lines(&job, &err) : run_text(&job, text, &err);
    ids_free(&job.ids);
    tokenizer_close(&job.tokenizer);
    if (rc)
        die_error(&err);
    return 0;
}
