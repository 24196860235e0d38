#include "use.h"
#include "answer.h"
#include "settings.h"
#include "lock.h"
#include "progress.h"

#include "audit/writer.h"
#include "base/json.h"
#include "base/mapping.h"
#include "base/sha256.h"
#include "image/image.h"
#include "model/chat.h"
#include "model/gguf.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { HEX = SHA256_HEX, NAME_LIMIT = 256, HEAD_LIMIT = 1 << 16 };

struct picture {
    const ward_image *image;
    char pixels[HEX + 1], file[HEX + 1];
};

static struct {
    const struct command *command;
    const char *stated; /* --user */
    bool text;          /* --audit-text, or configured */
    struct {
        const char *kind, *uid;
    } *uids;
    size_t n_uids;

    char *dir; /* NULL: there is no log */
    struct audit_writer *writer;
    enum { IDLE, OPENED, BEGUN } state;
    uint64_t begin; /* the number of the record of the beginning */

    char user[NAME_LIMIT], host[NAME_LIMIT];
    struct picture *pictures;
    size_t n_pictures;
    char model_hash[HEX + 1], model_path[HEX + 1], model_config[HEX + 1], model_template[HEX + 1], model_type[32];
    char device[16], device_name[128];
    bool has_template;
    struct measured {
        char path[HEX + 1], hash[HEX + 1];
    } *measured;
    size_t n_measured;
} use;

/* ---- what is known before anything is opened --------------------------------------------------------------------- */

void use_command(const struct command *command)
{
    use.command = command;
}

void use_set_user(const char *name)
{
    use.stated = name;
}

void use_set_text(void)
{
    use.text = true;
}

void use_add_uid(const char *kind, const char *uid)
{
    use.uids = must_realloc(use.uids, use.n_uids + 1, sizeof *use.uids);
    use.uids[use.n_uids].kind = kind;
    use.uids[use.n_uids++].uid = uid;
}

/* From the file alone: the C library's own way may ask a daemon, through a socket. */
static void find_user(void)
{
    struct utsname machine;
    const uid_t uid = getuid();
    snprintf(use.user, sizeof use.user, "%lu", (unsigned long)uid);
    FILE *file = fopen("/etc/passwd", "re");
    for (struct passwd *entry; file && (entry = fgetpwent(file));)
        if (entry->pw_uid == uid) {
            snprintf(use.user, sizeof use.user, "%s", entry->pw_name);
            break;
        }
    if (file)
        fclose(file);
    if (uname(&machine) == 0)
        snprintf(use.host, sizeof use.host, "%s", machine.nodename);
}

static void hash_hex(char out[HEX + 1], const void *data, size_t size)
{
    uint8_t hash[SHA256_BYTES];
    sha256_of(hash, data, size);
    sha256_hex(out, hash);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static void write_hash(struct json_writer *w, const char *key, const char hash[HEX + 1])
{
    if (*hash)
        json_write_text(w, key, hash);
}

static void write_who(struct json_writer *w)
{
    char login[32] = "";
    FILE *file = fopen("/proc/self/loginuid", "re"); /* who logged in, whatever su and sudo did since */
    if (file) {
        if (!fgets(login, sizeof login, file))
            *login = '\0';
        fclose(file);
    }
    json_write_text(w, "command", use.command->name);
    json_write_text(w, "program", "ward " WARD_VERSION);
    json_write_text(w, "host", use.host);
    json_write_integer(w, "pid", getpid());
    json_write_open(w, "user", '{');
    json_write_text(w, "name", use.user);
    json_write_integer(w, "uid", (int64_t)getuid());
    if (*login && strtoul(login, NULL, 10) != UINT32_MAX)
        json_write_integer(w, "login_uid", (int64_t)strtoul(login, NULL, 10));
    if (use.stated)
        json_write_text(w, "stated", use.stated);
    json_write_close(w, '}');
    lock_write_json(w);
}

static void write_uids(struct json_writer *w)
{
    static const char *const kinds[] = {"study", "series", "instance"};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        size_t n = 0;
        for (size_t i = 0; i < use.n_uids; i++) {
            if (strcmp(use.uids[i].kind, kinds[k]) != 0)
                continue;
            if (!n++)
                json_write_open(w, kinds[k], '[');
            json_write_text(w, NULL, use.uids[i].uid);
        }
        if (n)
            json_write_close(w, ']');
    }
}

static void write_model(struct json_writer *w)
{
    if (!*use.model_path)
        return;
    json_write_open(w, "model", '{');
    json_write_text(w, "type", use.model_type);
    json_write_text(w, "device", use.device);
    if (*use.device_name)
        json_write_text(w, "device_name", use.device_name);
    write_hash(w, "sha256", use.model_hash);
    write_hash(w, "path_sha256", use.model_path);
    write_hash(w, "config_sha256", use.model_config);
    json_write_text(w, "template", use.has_template ? "gemma" : "none");
    write_hash(w, "template_sha256", use.model_template);
    json_write_close(w, '}');
}

static void write_measured(struct json_writer *w)
{
    if (!use.n_measured)
        return;
    json_write_open(w, "models", '[');
    for (size_t i = 0; i < use.n_measured; i++) {
        json_write_open(w, NULL, '{');
        write_hash(w, "sha256", use.measured[i].hash);
        write_hash(w, "path_sha256", use.measured[i].path);
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
}

static const struct picture *find_picture(const ward_image *image)
{
    for (size_t i = use.n_pictures; i > 0; i--)
        if (use.pictures[i - 1].image == image)
            return &use.pictures[i - 1];
    return NULL;
}

/* The last message's texts; free() it. */
static char *question_of(const struct conversation *c, size_t *length)
{
    const struct ward_message *last = &c->messages[c->n - 1];
    char *text = must_strndup("", 0);
    *length = 0;
    for (size_t i = 0; i < last->n_parts; i++) {
        if (!last->parts[i].text)
            continue;
        const size_t n = strlen(last->parts[i].text);
        text = must_realloc(text, *length + n + 1, 1);
        memcpy(text + *length, last->parts[i].text, n + 1);
        *length += n;
    }
    return text;
}

static void write_inputs(struct json_writer *w, const struct conversation *c)
{
    char hash[HEX + 1];
    size_t length;
    char *question = question_of(c, &length);
    hash_hex(hash, question, length);
    json_write_open(w, "inputs", '{');
    json_write_integer(w, "messages", (int64_t)c->n);
    write_hash(w, "question_sha256", hash);
    json_write_open(w, "images", '[');
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->messages[i].n_parts; k++) {
            const ward_image *image = c->messages[i].parts[k].image;
            const struct picture *picture = image ? find_picture(image) : NULL;
            if (!picture)
                continue;
            json_write_open(w, NULL, '{');
            json_write_integer(w, "width", image->width);
            json_write_integer(w, "height", image->height);
            write_hash(w, "pixels_sha256", picture->pixels);
            write_hash(w, "file_sha256", picture->file);
            json_write_close(w, '}');
        }
    json_write_close(w, ']');
    json_write_close(w, '}');
    if (use.text)
        json_write_string(w, "question", question, length);
    explicit_bzero(question, length);
    free(question);
}

static int tokens_asked(const struct ward_generate_options *o)
{
    return o->max_tokens ? o->max_tokens : 200; /* as ward.h has it */
}

static void write_parameters(struct json_writer *w, const struct ward_generate_options *o)
{
    json_write_open(w, "parameters", '{');
    json_write_integer(w, "max_tokens", tokens_asked(o));
    json_write_number(w, "temperature", o->temperature, 4);
    json_write_integer(w, "top_k", o->top_k);
    json_write_number(w, "top_p", o->top_p, 4);
    json_write_number(w, "min_p", o->min_p, 4);
    char seed[24];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
    json_write_text(w, "seed", seed); /* 64 bits: not every reader of JSON has such numbers */
    json_write_boolean(w, "ignore_eos", o->ignore_eos);
    json_write_close(w, '}');
}

static struct json_writer *begin_record(void)
{
    struct json_writer *w = json_writer_new(false);
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    return w;
}

/* Ends the record and puts it into the log; its number. */
static uint64_t add(struct json_writer **w, enum audit_type type, size_t room)
{
    struct ward_error err;
    size_t length;
    uint64_t seq;
    json_write_close(*w, '}');
    const char *text = json_writer_text(*w, &length);
    if (!text)
        die("out of memory");
    if (audit_add(use.writer, type, type == AUDIT_END ? use.begin : 0, text, length, room, &seq, &err)) {
        use.state = IDLE; /* do not try again at the end */
        progress_clear();
        die("%s; nothing is done that is not recorded", err.text);
    }
    json_writer_free(w);
    return seq;
}

/* ---- the course of a use ----------------------------------------------------------------------------------------- */

static void on_exit_of_program(int status, void *unused)
{
    (void)unused;
    if (use.state == IDLE || (use.state == OPENED && status == 0))
        return;
    struct json_writer *w = begin_record();
    const bool begun = use.state == BEGUN;
    use.state = IDLE;
    if (!begun)
        write_who(w);
    json_write_text(w, "outcome", status == 0 ? "done" : status == EXIT_INTERRUPTED ? "cancelled" :
                                  begun ? "failed" : "refused");
    json_write_integer(w, "status", status);
    struct ward_error err;
    size_t length;
    uint64_t seq;
    json_write_close(w, '}');
    const char *text = json_writer_text(w, &length);
    const enum audit_type type = begun ? AUDIT_END : AUDIT_NOTE;
    if (!text || audit_add(use.writer, type, begun ? use.begin : 0, text, length, 0, &seq, &err)) {
        print_error("%s", text ? err.text : "out of memory");
        _exit(EXIT_FAILED);
    }
    json_writer_free(&w);
}

void use_open(void)
{
    struct settings settings;
    struct ward_error err;
    if (settings_read(&settings, &err))
        die_error(&err);
    if (!settings.audit)
        return;
    use.dir = settings.audit;
    use.text = use.text || settings.audit_text;
    find_user();
    if (audit_start(&err) || audit_writer_open(&use.writer, use.dir, &err))
        die("%s; nothing is done that is not recorded", err.text);
    use.state = OPENED;
    on_exit(on_exit_of_program, NULL);
}

bool use_is_recorded(void)
{
    return use.dir != NULL;
}

void use_allow(struct offline_policy *policy)
{
    offline_allow(policy, OFFLINE_FOLDER, use.dir);
}

void use_image(const ward_image *image, const void *bytes, size_t length)
{
    if (!use.dir)
        return;
    use.pictures = must_realloc(use.pictures, use.n_pictures + 1, sizeof *use.pictures);
    struct picture *picture = &use.pictures[use.n_pictures++];
    picture->image = image;
    hash_hex(picture->pixels, image->rgb, (size_t)image->width * (size_t)image->height * 3);
    hash_hex(picture->file, bytes, length);
}

void use_image_file(const ward_image *image, const char *path)
{
    struct mapping map;
    struct ward_error err;
    if (!use.dir)
        return;
    if (mapping_open(&map, path, &err))
        die_error(&err);
    use_image(image, map.data, map.size);
    mapping_close(&map);
}

/* The model is open already: what is wrong with its template was said. */
static char *read_template(const char *path, bool folder)
{
    char *text = NULL;
    struct gguf *file = NULL;
    struct ward_error err;
    int rc = folder ? chat_template_read(&text, path, &err) : gguf_open(&file, path, &err);
    if (!folder && !rc)
        rc = chat_template_read_gguf(&text, file, &err);
    gguf_close(&file);
    return rc ? NULL : text;
}

/* Of a folder its config.json, of a GGUF file its first 64 KiB: what tells models apart without reading all of it. */
static void hash_config(const char *path)
{
    char name[4096], head[HEAD_LIMIT];
    struct stat st;
    const bool folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(name, sizeof name, "%s%s", path, folder ? "/config.json" : "");
    FILE *file = fopen(name, "re");
    if (!file)
        return;
    const size_t n = fread(head, 1, sizeof head, file);
    fclose(file);
    hash_hex(use.model_config, head, n);
    char *text = read_template(path, folder);
    if (text)
        hash_hex(use.model_template, text, strlen(text));
    free(text);
}

void use_model(const struct ward_model_info *info, const char *sha256)
{
    if (!use.dir)
        return;
    char *full = realpath(info->path, NULL);
    hash_hex(use.model_path, full ? full : info->path, strlen(full ? full : info->path));
    free(full);
    snprintf(use.model_type, sizeof use.model_type, "%s", info->type);
    snprintf(use.model_hash, sizeof use.model_hash, "%s", sha256 ? sha256 : "");
    snprintf(use.device, sizeof use.device, "%s", info->device);
    snprintf(use.device_name, sizeof use.device_name, "%s", info->device_name ? info->device_name : "");
    use.has_template = info->has_chat_template;
    hash_config(info->path);
}

void use_add_measured(const char *path, const char *sha256)
{
    if (!use.dir)
        return;
    char *full = realpath(path, NULL);
    use.measured = must_realloc(use.measured, use.n_measured + 1, sizeof *use.measured);
    struct measured *m = &use.measured[use.n_measured++];
    hash_hex(m->path, full ? full : path, strlen(full ? full : path));
    snprintf(m->hash, sizeof m->hash, "%s", sha256 ? sha256 : "");
    free(full);
}

void use_refused(void)
{
    if (!use.dir)
        return;
    struct json_writer *w = begin_record();
    write_who(w);
    json_write_text(w, "outcome", "refused");
    add(&w, AUDIT_NOTE, 0);
}

void use_begin(void)
{
    if (!use.dir)
        return;
    struct json_writer *w = begin_record();
    write_who(w);
    write_model(w);
    write_measured(w);
    write_uids(w);
    use.begin = add(&w, AUDIT_BEGIN, 0);
    use.state = BEGUN;
}

void use_begin_answer(const struct conversation *conversation, const struct ward_generate_options *options)
{
    if (!use.dir)
        return;
    struct json_writer *w = begin_record();
    write_who(w);
    write_model(w);
    write_parameters(w, options);
    write_uids(w);
    write_inputs(w, conversation);
    /* A token is seldom longer than 16 bytes. */
    use.begin = add(&w, AUDIT_BEGIN, use.text ? 16 * (size_t)tokens_asked(options) : 0);
    use.state = BEGUN;
}

static void write_result(struct json_writer *w, const struct ward_result *r)
{
    char hash[HEX + 1];
    json_write_text(w, "outcome", answer_finish_name(r->finish));
    json_write_open(w, "output", '{');
    hash_hex(hash, r->text, r->text_length);
    write_hash(w, "sha256", hash);
    json_write_integer(w, "bytes", (int64_t)r->text_length);
    json_write_close(w, '}');
    hash_hex(hash, r->prompt_ids, r->n_prompt_ids * sizeof *r->prompt_ids);
    write_hash(w, "prompt_ids_sha256", hash);
    json_write_open(w, "tokens", '{');
    json_write_integer(w, "prompt", (int64_t)r->n_prompt_ids);
    json_write_integer(w, "generated", (int64_t)r->n_ids);
    json_write_close(w, '}');
    json_write_open(w, "timings", '{');
    json_write_number(w, "vision_ms", r->vision_ms, 3);
    json_write_number(w, "prefill_ms", r->prefill_ms, 3);
    json_write_number(w, "decode_ms", r->decode_ms, 3);
    json_write_number(w, "total_ms", r->total_ms, 3);
    json_write_close(w, '}');
    if (use.text)
        json_write_string(w, "answer", r->text, r->text_length);
}

void use_end_answer(const struct ward_result *result, int rc)
{
    if (!use.dir)
        return;
    struct json_writer *w = begin_record();
    if (result)
        write_result(w, result);
    else
        json_write_text(w, "outcome", rc == WARD_ECANCELLED ? "cancelled" : rc == WARD_ECONTEXT ? "refused" : "failed");
    if (rc)
        json_write_integer(w, "code", rc);
    add(&w, AUDIT_END, 0);
    use.state = IDLE;
}
