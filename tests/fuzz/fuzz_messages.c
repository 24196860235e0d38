/* --messages: a conversation with its paths, URLs and base64. film.png lies beside the file. */
#include "fuzz.h"

#include "../../cli/cli.h"
#include "../../cli/messages.h"
#include "../../cli/use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What cli/main.c gives the rest of cli/. */
void *must_realloc(void *old, size_t n, size_t size)
{
    void *memory = reallocarray(old, n ? n : 1, size);
    REQUIRE(memory);
    return memory;
}

char *must_strndup(const char *text, size_t length)
{
    char *copy = must_realloc(NULL, length + 1, 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

void print_warning(const char *format, ...)
{
    (void)format;
}

void use_image(const ward_image *image, const void *bytes, size_t length)
{
    (void)image, (void)bytes, (void)length;
}

void use_image_file(const ward_image *image, const char *path)
{
    (void)image, (void)path;
}

/* One gray pixel. */
static const uint8_t film[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00,
    0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b, 0x55, 0x00, 0x00, 0x00,
    0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x68, 0x00, 0x00, 0x00, 0x82, 0x00, 0x81, 0xda, 0x45, 0x08,
    0x3b, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
};

static void check_conversation(const struct conversation *c)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct ward_message *message = &c->messages[i];
        REQUIRE(message->role);
        for (size_t k = 0; k < message->n_parts; k++)
            REQUIRE(!message->parts[k].text != !message->parts[k].image);
    }
}

static void check_name(void *user, const char *path)
{
    REQUIRE(*path && !*(const bool *)user); /* all are named before */
}

static void note_ready(void *user)
{
    REQUIRE(!*(bool *)user);
    *(bool *)user = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[512];
    if (!path[0]) {
        fuzz_folder_put("film.png", film, sizeof film);
        snprintf(path, sizeof path, "%s/messages.json", fuzz_folder());
    }
    struct conversation conversation = {0};
    struct ward_error err = {0};
    fuzz_folder_put("messages.json", data, size);
    bool ready = false;
    const struct messages_watch watch = {.named = check_name, .ready = note_ready, .user = &ready};
    const int rc = messages_read(&conversation, path, NULL, &watch, &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!rc == (conversation.n > 0) && (rc || ready));
    check_conversation(&conversation);
    conversation_truncate(&conversation, 0);
    return 0;
}
