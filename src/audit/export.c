#include "audit/export.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

void audit_iso_time(char out[AUDIT_ISO_TIME], uint64_t utc_ms)
{
    const time_t seconds = (time_t)(utc_ms / 1000);
    struct tm utc;
    char text[20] = "1970-01-01T00:00:00";
    if (utc_ms < 253402300800000 && gmtime_r(&seconds, &utc)) /* the year 10000 */
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out, AUDIT_ISO_TIME, "%s.%03uZ", text, (unsigned)(utc_ms % 1000));
}

static const char *text_of(const struct json *value, const char *otherwise)
{
    return value && value->type == JSON_STRING && value->length ? value->text : otherwise;
}

static void number_of(char out[24], const struct json *value)
{
    snprintf(out, 24, "%.23s", value && value->type == JSON_NUMBER ? value->text : "");
}

static void add_object(struct audit_facts *f, enum audit_object_kind kind, const char *name, const struct json *id)
{
    if (f->n_objects < AUDIT_MAX_OBJECTS && id && id->type == JSON_STRING && id->length)
        f->objects[f->n_objects++] = (struct audit_object){.kind = kind, .name = name, .id = id->text};
}

static void add_objects(struct audit_facts *f, const struct audit_use *use)
{
    static const struct {
        enum audit_object_kind kind;
        const char *path;
    } lists[] = {{AUDIT_STUDY, "study"}, {AUDIT_SERIES, "series"}, {AUDIT_INSTANCE, "instance"}};
    const struct audit_part *begin = &use->begin, *end = &use->end;
    const struct json *model = audit_part_get(begin, "model.sha256"), *images = audit_part_get(begin, "inputs.images");
    add_object(f, AUDIT_MODEL, "model", model ? model : audit_part_get(begin, "model.config_sha256"));
    for (const struct json *image = images ? images->first : NULL; image; image = image->next) {
        const struct json *file = json_get(image, "file_sha256");
        add_object(f, AUDIT_IMAGE, "image", file ? file : json_get(image, "pixels_sha256"));
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const struct json *list = audit_part_get(begin, lists[i].path);
        for (const struct json *uid = list ? list->first : NULL; uid; uid = uid->next)
            add_object(f, lists[i].kind, lists[i].path, uid);
    }
    add_object(f, AUDIT_QUESTION, "question", audit_part_get(begin, "inputs.question_sha256"));
    add_object(f, AUDIT_ANSWER, "answer", audit_part_get(end, "output.sha256"));
}

void audit_facts_of(struct audit_facts *out, const struct audit_use *use)
{
    const struct audit_part *begin = &use->begin, *last = begin->frame.type == AUDIT_NOTE ? begin : &use->end;
    *out = (struct audit_facts){
        .host = text_of(audit_part_get(begin, "host"), "unknown"),
        .user = text_of(audit_part_get(begin, "user.name"), "unknown"),
        .stated = text_of(audit_part_get(begin, "user.stated"), ""),
        .program = text_of(audit_part_get(begin, "program"), "ward"),
        .command = text_of(audit_part_get(begin, "command"), "unknown"),
        .outcome = text_of(audit_part_get(last, "outcome"), "not ended"),
    };
    audit_iso_time(out->begin, begin->frame.utc_ms);
    if (use->end.frame.type)
        audit_iso_time(out->end, use->end.frame.utc_ms);
    number_of(out->uid, audit_part_get(begin, "user.uid"));
    number_of(out->pid, audit_part_get(begin, "pid"));
    const bool minor = !strcmp(out->outcome, "cancelled") || !strcmp(out->outcome, "refused");
    const bool failed = !strcmp(out->outcome, "failed") || !strcmp(out->outcome, "not ended");
    out->code = minor ? "4" : failed ? "8" : "0";
    add_objects(out, use);
}
