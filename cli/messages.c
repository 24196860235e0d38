#include "messages.h"
#include "cli.h"
#include "progress.h"
#include "use.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MESSAGES_LIMIT = 1 << 30 }; /* bytes of the file, images in data: URLs included */

struct reader {
    struct conversation *out;
    const char *path;
    const struct ward_image_options *options;
    size_t message; /* number of the one being read, from 1 */
};

static int wrong(const struct reader *r, struct ward_error *err, const char *what)
{
    return error_set(err, WARD_EFORMAT, "%s: message %zu: %s", r->path, r->message, what);
}

/* ---- base64 and percent encoding --------------------------------------------------------------------------------- */

static int base64_digit(unsigned char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* out has room for length / 4 * 3 + 3 bytes. False: not base64 (RFC 4648; padding may be left out). */
static bool base64_decode(const char *text, size_t length, uint8_t *out, size_t *n)
{
    while (length && text[length - 1] == '=')
        length--;
    if (length % 4 == 1)
        return false;
    *n = 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < length; i++) {
        int digit = base64_digit((unsigned char)text[i]);
        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0)
            out[(*n)++] = (uint8_t)(bits >> (6 - i % 4 * 2));
    }
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. False: a '%' without two hexadecimal digits, or an encoded NUL. */
static bool percent_decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || high * 16 + low == 0)
            return false;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return true;
}

/* ---- images ------------------------------------------------------------------------------------------------------ */

static int add_data_url(struct reader *r, const char *url, size_t length, struct ward_error *err)
{
    const char *comma = memchr(url, ',', length);
    if (!comma || comma - url < 7 || strncasecmp(comma - 7, ";base64", 7) != 0)
        return wrong(r, err, "a data: URL is not of the form data:image/png;base64,...");
    size_t n_text = length - (size_t)(comma + 1 - url), n;
    uint8_t *bytes = must_realloc(NULL, n_text / 4 * 3 + 3, 1);
    if (!base64_decode(comma + 1, n_text, bytes, &n)) {
        free(bytes);
        return wrong(r, err, "a data: URL holds what is not base64");
    }
    char warning[256] = "", name[64];
    snprintf(name, sizeof name, "the data: URL in message %zu", r->message);
    ward_image *image;
    double start = clock_ms();
    int rc = ward_image_read(&image, bytes, n, name, r->options, warning, err);
    r->out->decode_ms += clock_ms() - start;
    if (!rc)
        use_image(image, bytes, n);
    free(bytes);
    if (rc)
        return rc;
    if (*warning) {
        progress_clear();
        print_warning("%s: %s", name, warning);
    }
    conversation_add_image(r->out, image);
    return 0;
}

/* Relative to the folder of the file that names it. */
static char *beside(const struct reader *r, const char *path)
{
    const char *slash = strrchr(r->path, '/');
    size_t folder = slash && *path != '/' ? (size_t)(slash + 1 - r->path) : 0;
    char *full = must_realloc(NULL, folder + strlen(path) + 1, 1);
    memcpy(full, r->path, folder);
    strcpy(full + folder, path);
    return full;
}

static int path_of_file_url(const struct reader *r, char **path, const char *url, struct ward_error *err)
{
    const char *at = url + strlen("file:");
    if (strncmp(at, "//", 2) == 0) {
        at += 2;
        if (strncasecmp(at, "localhost/", 10) == 0)
            at += 9;
    }
    if (*at != '/')
        return wrong(r, err, "a file: URL does not name a file of this machine (file:///folder/image.png)");
    *path = must_strndup(at, strlen(at));
    if (percent_decode(*path))
        return 0;
    free(*path);
    *path = NULL;
    return wrong(r, err, "a file: URL has a damaged % escape");
}

static bool is_data_url(const struct json *source)
{
    return strncasecmp(source->text, "data:", 5) == 0;
}

/* The file that a path or a URL names; NULL when a data: URL holds the image itself. free() it. */
static int path_of(const struct reader *r, char **path, const struct json *source, struct ward_error *err)
{
    *path = NULL;
    if (!source || source->type != JSON_STRING || source->length == 0)
        return wrong(r, err, "an image part holds no path or URL");
    const char *url = source->text;
    if (strlen(url) != source->length)
        return wrong(r, err, "an image's path holds a NUL character");
    if (strncasecmp(url, "http:", 5) == 0 || strncasecmp(url, "https:", 6) == 0)
        return wrong(r, err, "an image is on a network, and ward never opens a network connection: save the image and "
                             "give its path");
    if (is_data_url(source))
        return 0;
    if (strncasecmp(url, "file:", 5) == 0)
        return path_of_file_url(r, path, url, err);
    if (strstr(url, "://"))
        return wrong(r, err, "an image's URL is neither a path, nor a file: or data: URL");
    *path = beside(r, url);
    return 0;
}

static int add_image(struct reader *r, const struct json *source, struct ward_error *err)
{
    char *path;
    int rc = path_of(r, &path, source, err);
    if (rc)
        return rc;
    if (!path)
        return add_data_url(r, source->text, source->length, err);
    struct pictures one = {0};
    rc = pictures_add(&one, path, r->options, &r->out->decode_ms, err);
    free(path);
    if (rc)
        return rc;
    conversation_add_image(r->out, one.at[0]);
    free(one.at);
    return 0;
}

/* What names the image of a part: {"type": "image_url", "image_url": {"url"} or a string} | {"type": "image",
 * "image"|"path"|"url"}. False: the part is none. */
static bool image_source(const struct json *part, const struct json **source)
{
    *source = NULL;
    if (json_string_is(json_get(part, "type"), "image_url")) {
        const struct json *url = json_get(part, "image_url");
        *source = url && url->type == JSON_OBJECT ? json_get(url, "url") : url;
        return true;
    }
    static const char *const keys[] = {"image", "path", "url"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !*source; i++)
        *source = json_get(part, keys[i]);
    return json_string_is(json_get(part, "type"), "image");
}

/* Hands on the name of every image file; what is wrong is for the reading to say. */
static void name_images(struct reader *r, const struct json *list, void (*named)(void *user, const char *path),
                        void *user)
{
    for (const struct json *message = list->first; message; message = message->next) {
        const struct json *content = json_get(message, "content"), *source;
        for (const struct json *part = content && content->type == JSON_ARRAY ? content->first : NULL; part;
             part = part->next) {
            char *path;
            if (!image_source(part, &source) || path_of(r, &path, source, NULL))
                continue;
            if (path)
                named(user, path);
            free(path);
        }
    }
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static int add_text(struct reader *r, const struct json *text, struct ward_error *err)
{
    if (!text || text->type != JSON_STRING)
        return wrong(r, err, "a text part holds no text");
    if (memchr(text->text, '\0', text->length))
        return wrong(r, err, "a text holds a NUL character");
    conversation_add_text(r->out, text->text, text->length);
    return 0;
}

/* {"type": "text", "text"}, or an image. */
static int add_part(struct reader *r, const struct json *part, struct ward_error *err)
{
    const struct json *source;
    if (json_string_is(json_get(part, "type"), "text"))
        return add_text(r, json_get(part, "text"), err);
    if (image_source(part, &source))
        return add_image(r, source, err);
    return wrong(r, err, "a part of its content is not of type text, image_url or image");
}

static int add_message(struct reader *r, const struct json *message, struct ward_error *err)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    const struct json *given = json_get(message, "role"), *content = json_get(message, "content");
    const char *role = NULL;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        if (json_string_is(given, roles[i]))
            role = roles[i];
    if (!role)
        return wrong(r, err, "its role is not system, user or assistant");
    conversation_add_message(r->out, role);
    if (content && content->type == JSON_STRING)
        return add_text(r, content, err);
    if (!content || content->type != JSON_ARRAY)
        return wrong(r, err, "its content is neither a string nor a list of parts");
    for (const struct json *part = content->first; part; part = part->next) {
        int rc = add_part(r, part, err);
        if (rc)
            return rc;
    }
    return 0;
}

int messages_read(struct conversation *c, const char *path, const struct ward_image_options *options,
                  const struct messages_watch *watch, struct ward_error *err)
{
    struct json_document *document;
    int rc = json_read(&document, path, MESSAGES_LIMIT, err);
    if (rc)
        return rc;
    size_t before = c->n;
    const struct json *list = json_root(document);
    if (list->type == JSON_OBJECT && list->n == 1)
        list = json_get(list, "messages");
    if (!list || list->type != JSON_ARRAY || list->n == 0)
        rc = error_set(err, WARD_EFORMAT,
                       "%s: holds no list of messages: [{\"role\": \"user\", \"content\": ...}] is expected", path);
    struct reader reader = {.out = c, .path = path, .options = options};
    if (rc == 0) {
        name_images(&reader, list, watch->named, watch->user);
        watch->ready(watch->user);
    }
    for (const struct json *message = rc ? NULL : list->first; message && rc == 0; message = message->next) {
        reader.message++;
        rc = add_message(&reader, message, err);
    }
    json_close(&document);
    if (rc)
        conversation_truncate(c, before);
    return rc;
}
