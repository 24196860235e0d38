#include "model/terms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { CARD_LIMIT = 4 << 20 };

static void copy_text(char *out, size_t room, const char *text, size_t length)
{
    snprintf(out, room, "%.*s", (int)(length < room ? length : room - 1), text);
}

/* Whatever file it is, a MedGemma is under Google's terms. */
static void finish(struct terms *out, bool is_medgemma)
{
    out->hai_def = is_medgemma || strcasestr(out->name, "health-ai-developer") ||
                   strcasestr(out->license, "health-ai-developer") || strcasestr(out->link, "health-ai-developer");
    if (!out->hai_def)
        return;
    snprintf(out->license, sizeof out->license, "other");
    snprintf(out->name, sizeof out->name, "%s", HAI_DEF_NAME);
    snprintf(out->link, sizeof out->link, "%s", HAI_DEF_LINK);
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

/* "license_name: x" of the front matter; quotes and what follows a blank are left out. */
static void read_line(const char *line, size_t length, const char *key, char *out, size_t room)
{
    const size_t n = strlen(key);
    if (length <= n || strncmp(line, key, n) || line[n] != ':')
        return;
    const char *at = line + n + 1, *end = line + length;
    at += strspn(at, " '\"");
    copy_text(out, room, at, at < end ? strcspn(at, " '\"\r\n") : 0);
}

/* YAML between two lines of dashes at the top. */
static void read_card(struct terms *out, const char *card)
{
    if (strncmp(card, "---\n", 4) && strncmp(card, "---\r\n", 5))
        return;
    for (const char *line = strchr(card, '\n') + 1; *line && strncmp(line, "---", 3);) {
        const size_t length = strcspn(line, "\n");
        read_line(line, length, "license", out->license, sizeof out->license);
        read_line(line, length, "license_name", out->name, sizeof out->name);
        read_line(line, length, "license_link", out->link, sizeof out->link);
        line += length + (line[length] == '\n');
    }
}

void terms_of_folder(struct terms *out, const char *folder)
{
    struct ward_error ignored; /* a card that cannot be read tells nothing */
    char *path = NULL, *card = NULL, *place = realpath(folder, NULL);
    size_t length;
    *out = (struct terms){0};
    if (asprintf(&path, "%s/README.md", folder) < 0)
        path = NULL;
    if (path && file_exists(path) && file_read(&card, &length, path, CARD_LIMIT, &ignored) == 0)
        read_card(out, card);
    finish(out, !*out->license && place && strcasestr(place, "medgemma"));
    free(place);
    free(path);
    free(card);
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

static void read_key(const struct gguf *file, const char *key, char *out, size_t room)
{
    const struct gguf_value *value = gguf_value(file, key);
    const char *text;
    size_t at = 0, length;
    if (value && value->type == GGUF_STRING && gguf_next_string(value, &at, &text, &length))
        copy_text(out, room, text, length);
}

void terms_of_gguf(struct terms *out, const struct gguf *file)
{
    static const char *const names[] = {"general.name", "general.basename", "general.base_model.0.name",
                                        "general.base_model.0.repo_url", "general.source.url"};
    bool is_medgemma = false;
    *out = (struct terms){0};
    read_key(file, "general.license", out->license, sizeof out->license);
    read_key(file, "general.license.name", out->name, sizeof out->name);
    read_key(file, "general.license.link", out->link, sizeof out->link);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[256] = "";
        read_key(file, names[i], text, sizeof text);
        is_medgemma = is_medgemma || strcasestr(text, "medgemma");
    }
    finish(out, is_medgemma);
}
