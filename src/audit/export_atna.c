/* AuditMessage of DICOM PS3.15 A.5.1: Application Activity (A.5.3.1), with the objects that took part. */
#include "audit/export.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- XML --------------------------------------------------------------------------------------------------------- */

/* ` NAME="text"`; characters that XML 1.0 has no place for become U+FFFD. Records hold valid UTF-8. */
static void put_attribute(FILE *out, const char *name, const char *text)
{
    fprintf(out, " %s=\"", name);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        switch (*c) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\t': case '\n': case '\r': fputc(' ', out); break;
        default:
            if (*c < 0x20)
                fputs("\xef\xbf\xbd", out);
            else if (c[0] == 0xef && c[1] == 0xbf && c[2] >= 0xbe) { /* U+FFFE, U+FFFF */
                fputs("\xef\xbf\xbd", out);
                c += 2;
            } else
                fputc(*c, out);
        }
    }
    fputc('"', out);
}

static void put_coded(FILE *out, const char *element, const char *code, const char *system, const char *meaning)
{
    fprintf(out, "<%s", element);
    put_attribute(out, "csd-code", code);
    put_attribute(out, "codeSystemName", system);
    put_attribute(out, "originalText", meaning);
    fputs("/>", out);
}

/* ---- the message ------------------------------------------------------------------------------------------------- */

static void put_event(FILE *out, const struct audit_facts *f)
{
    fputs("<EventIdentification EventActionCode=\"E\"", out);
    put_attribute(out, "EventDateTime", f->begin);
    put_attribute(out, "EventOutcomeIndicator", f->code);
    fputs(">", out);
    put_coded(out, "EventID", "110100", "DCM", "Application Activity");
    put_coded(out, "EventTypeCode", "110120", "DCM", "Application Start");
    put_coded(out, "EventTypeCode", f->command, "ward", f->command);
    fputs("<EventOutcomeDescription>", out);
    for (const char *c = f->outcome; *c; c++) /* a word of ward's own, or of who could write the log */
        if (strchr("abcdefghijklmnopqrstuvwxyz ", *c))
            fputc(*c, out);
    fputs("</EventOutcomeDescription></EventIdentification>", out);
}

static void put_participants(FILE *out, const struct audit_facts *f)
{
    fputs("<ActiveParticipant", out);
    put_attribute(out, "UserID", f->program);
    if (*f->pid)
        put_attribute(out, "AlternativeUserID", f->pid);
    fputs(" UserIsRequestor=\"false\"", out);
    put_attribute(out, "NetworkAccessPointID", f->host);
    fputs(" NetworkAccessPointTypeCode=\"1\">", out);
    put_coded(out, "RoleIDCode", "110150", "DCM", "Application");
    fputs("</ActiveParticipant><ActiveParticipant", out);
    put_attribute(out, "UserID", *f->stated ? f->stated : f->user);
    put_attribute(out, "AlternativeUserID", f->user);
    fputs(" UserIsRequestor=\"true\">", out);
    put_coded(out, "RoleIDCode", "110151", "DCM", "Application Launcher");
    fputs("</ActiveParticipant><AuditSourceIdentification", out);
    put_attribute(out, "AuditSourceID", f->host);
    fputs("><AuditSourceTypeCode csd-code=\"4\"/></AuditSourceIdentification>", out);
}

static size_t count_of(const struct audit_facts *f, enum audit_object_kind kind)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n_objects; i++)
        n += f->objects[i].kind == kind;
    return n;
}

/* The instances of a study as A.5.1 has them, inside of it. Their SOP class is not known to the log. */
static void put_instances(FILE *out, const struct audit_facts *f)
{
    const size_t n = count_of(f, AUDIT_INSTANCE);
    if (!n)
        return;
    fprintf(out, "<SOPClass NumberOfInstances=\"%zu\">", n);
    for (size_t i = 0; i < f->n_objects; i++) {
        if (f->objects[i].kind != AUDIT_INSTANCE)
            continue;
        fputs("<Instance", out);
        put_attribute(out, "UID", f->objects[i].id);
        fputs("/>", out);
    }
    fputs("</SOPClass>", out);
}

static void put_object(FILE *out, const struct audit_facts *f, const struct audit_object *o, bool instances)
{
    static const char *const roles[] = {"26", "4", "24", "3", "3", "3", "3"}; /* by kind; A.5.1.2.2 */
    char encoded[sodium_base64_ENCODED_LEN(128, sodium_base64_VARIANT_ORIGINAL)] = "";
    fputs("<ParticipantObjectIdentification", out);
    put_attribute(out, "ParticipantObjectID", o->id);
    fputs(" ParticipantObjectTypeCode=\"2\"", out);
    put_attribute(out, "ParticipantObjectTypeCodeRole", roles[o->kind]);
    fputs(">", out);
    if (o->kind == AUDIT_STUDY)
        put_coded(out, "ParticipantObjectIDTypeCode", "110180", "DCM", "Study Instance UID");
    else if (o->kind == AUDIT_SERIES)
        put_coded(out, "ParticipantObjectIDTypeCode", "112002", "DCM", "Series Instance UID");
    else if (o->kind == AUDIT_INSTANCE) /* DCM has a code for the UID of the class only (110181) */
        put_coded(out, "ParticipantObjectIDTypeCode", "sop-instance-uid", "ward", "SOP Instance UID");
    else
        put_coded(out, "ParticipantObjectIDTypeCode", "sha256", "ward", "SHA-256");
    fprintf(out, "<ParticipantObjectName>%s</ParticipantObjectName>", o->name);
    if (strlen(o->id) <= 128) {
        sodium_bin2base64(encoded, sizeof encoded, (const uint8_t *)o->id, strlen(o->id),
                          sodium_base64_VARIANT_ORIGINAL);
        fprintf(out, "<ParticipantObjectDetail type=\"%s\" value=\"%s\"/>", o->name, encoded);
    }
    if (instances)
        put_instances(out, f);
    fputs("</ParticipantObjectIdentification>", out);
}

/* Where one study is known its instances are told in it; of several, which is whose is not, and each stands alone. */
static void put_objects(FILE *out, const struct audit_facts *f)
{
    const bool one_study = count_of(f, AUDIT_STUDY) == 1;
    for (size_t i = 0; i < f->n_objects; i++) {
        const struct audit_object *o = &f->objects[i];
        if (!(one_study && o->kind == AUDIT_INSTANCE))
            put_object(out, f, o, one_study && o->kind == AUDIT_STUDY);
    }
}

char *audit_export_atna(const struct audit_use *use)
{
    struct audit_facts *f = malloc(sizeof *f);
    char *text = NULL;
    size_t length;
    FILE *out = f ? open_memstream(&text, &length) : NULL;
    if (out) {
        audit_facts_of(f, use);
        fputs("<AuditMessage>", out);
        put_event(out, f);
        put_participants(out, f);
        put_objects(out, f);
        fputs("</AuditMessage>", out);
        const bool failed = ferror(out);
        if (fclose(out) || failed) {
            free(text);
            text = NULL;
        }
    }
    free(f);
    return text;
}
