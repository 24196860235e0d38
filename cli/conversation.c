#include "conversation.h"
#include "cli.h"
#include "progress.h"
#include "use.h"

#include "base/clock.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>

static const char mark[] = "<image>";
enum { MARK_LENGTH = sizeof mark - 1 };

void conversation_add_message(struct conversation *c, const char *role)
{
    c->messages = must_realloc(c->messages, c->n + 1, sizeof *c->messages);
    c->messages[c->n++] = (struct ward_message){.role = role};
}

static void add_part(struct conversation *c, struct ward_part part)
{
    struct ward_message *message = &c->messages[c->n - 1];
    /* The parts were allocated here; they are const only for who reads the message. */
    struct ward_part *parts = must_realloc((void *)(uintptr_t)message->parts, message->n_parts + 1, sizeof *parts);
    parts[message->n_parts++] = part;
    message->parts = parts;
}

void conversation_add_text(struct conversation *c, const char *text, size_t length)
{
    add_part(c, (struct ward_part){.text = must_strndup(text, length)});
}

void conversation_add_image(struct conversation *c, ward_image *image)
{
    add_part(c, (struct ward_part){.image = image});
}

int conversation_add_question(struct conversation *c, const char *text, size_t length, struct pictures *pictures,
                              struct ward_error *err)
{
    if (memchr(text, '\0', length))
        return error_set(err, WARD_EINVAL, "the question holds a NUL character");
    size_t marks = 0;
    for (const char *at = strstr(text, mark); at; at = strstr(at + MARK_LENGTH, mark))
        marks++;
    if (marks && marks != pictures->n)
        return error_set(err, WARD_EINVAL, "the question holds %zu <image> mark%s, but %zu image%s given: each needs "
                         "one mark, or leave the marks out to have the images before the text", marks,
                         marks == 1 ? "" : "s", pictures->n, pictures->n == 1 ? " is" : "s are");

    conversation_add_message(c, "user");
    if (!marks)
        for (size_t i = 0; i < pictures->n; i++)
            conversation_add_image(c, pictures->at[i]);
    const char *from = text;
    for (size_t i = 0; i < marks; i++) {
        const char *at = strstr(from, mark);
        if (at > from)
            conversation_add_text(c, from, (size_t)(at - from));
        conversation_add_image(c, pictures->at[i]);
        from = at + MARK_LENGTH;
    }
    if (*from)
        conversation_add_text(c, from, strlen(from));
    free(pictures->at);
    *pictures = (struct pictures){0};
    return 0;
}

void conversation_truncate(struct conversation *c, size_t n)
{
    while (c->n > n) {
        struct ward_message *message = &c->messages[--c->n];
        for (size_t i = 0; i < message->n_parts; i++) {
            ward_image *image = (ward_image *)(uintptr_t)message->parts[i].image;
            ward_image_close(&image);
            free((void *)(uintptr_t)message->parts[i].text);
        }
        free((void *)(uintptr_t)message->parts);
    }
    if (n == 0) {
        free(c->messages);
        c->messages = NULL;
    }
}

int pictures_add(struct pictures *pictures, const char *path, const struct ward_image_options *options,
                 double *decode_ms, struct ward_error *err)
{
    char warning[256] = "";
    ward_image *image;
    double start = clock_ms();
    int rc = ward_image_open(&image, path, options, warning, err);
    if (rc)
        return rc;
    *decode_ms += clock_ms() - start;
    if (*warning) {
        progress_clear();
        print_warning("%s: %s", path, warning);
    }
    use_image_file(image, path);
    pictures->at = must_realloc(pictures->at, pictures->n + 1, sizeof *pictures->at);
    pictures->at[pictures->n++] = image;
    return 0;
}

void pictures_clear(struct pictures *pictures)
{
    for (size_t i = 0; i < pictures->n; i++)
        ward_image_close(&pictures->at[i]);
    free(pictures->at);
    *pictures = (struct pictures){0};
}
