#include "audit/uses.h"

#include <stdlib.h>
#include <string.h>

static int emit(struct audit_uses *uses, struct audit_use *use, struct ward_error *err)
{
    const int rc = uses->on_use(uses->user, use, err);
    json_close(&use->begin.document);
    json_close(&use->end.document);
    return rc;
}

int audit_uses_add(struct audit_uses *uses, struct audit_record *record, struct ward_error *err)
{
    const struct audit_frame *frame = record->frame;
    struct audit_part part = {.frame = *frame, .document = record->document, .sealed = record->sealed};
    if (!audit_type_is_encrypted(frame->type))
        return 0;
    if (frame->type == AUDIT_BEGIN && uses->n == uses->room) {
        const size_t room = uses->room ? 2 * uses->room : 16;
        struct audit_part *open = reallocarray(uses->open, room, sizeof *open);
        if (!open)
            return error_no_memory(err, "the uses of a log", room * sizeof *open);
        uses->open = open;
        uses->room = room;
    }
    record->document = NULL;
    if (frame->type == AUDIT_BEGIN) {
        uses->open[uses->n++] = part;
        return 0;
    }
    if (frame->type == AUDIT_NOTE)
        return emit(uses, &(struct audit_use){.begin = part}, err);
    size_t i = 0;
    while (uses->open[i].frame.seq != frame->of) /* the reader has seen to it that it is there */
        i++;
    struct audit_use use = {.begin = uses->open[i], .end = part};
    memmove(uses->open + i, uses->open + i + 1, (--uses->n - i) * sizeof *uses->open);
    return emit(uses, &use, err);
}

int audit_uses_finish(struct audit_uses *uses, struct ward_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < uses->n && !rc; i++) {
        rc = emit(uses, &(struct audit_use){.begin = uses->open[i]}, err);
        uses->open[i].document = NULL;
    }
    return rc;
}

void audit_uses_clear(struct audit_uses *uses)
{
    for (size_t i = 0; i < uses->n; i++)
        json_close(&uses->open[i].document);
    free(uses->open);
    uses->open = NULL;
    uses->n = 0;
}

const struct json *audit_part_get(const struct audit_part *part, const char *path)
{
    const struct json *value = part->document ? json_root(part->document) : NULL;
    char key[64];
    while (value && *path) {
        const size_t n = strcspn(path, ".");
        if (n >= sizeof key)
            return NULL;
        memcpy(key, path, n);
        key[n] = '\0';
        value = json_get(value, key);
        path += n + (path[n] == '.');
    }
    return value;
}
