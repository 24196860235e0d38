/* AuditEvent of FHIR R4: https://hl7.org/fhir/R4/auditevent.html */
#include "audit/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char audit_export_fhir_head[] = "{\"resourceType\":\"Bundle\",\"type\":\"collection\",\"entry\":[\n";
const char audit_export_fhir_tail[] = "\n]}\n";

static const char dicom[] = "http://dicom.nema.org/resources/ontology/DCM";
static const char entity_type[] = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
static const char object_role[] = "http://terminology.hl7.org/CodeSystem/object-role";

static void put(struct json_writer *w, const char *key, const char *text)
{
    json_write_string(w, key, text, strlen(text));
}

static void put_coding(struct json_writer *w, const char *key, const char *system, const char *code,
                       const char *display)
{
    json_write_open(w, key, '{');
    put(w, "system", system);
    put(w, "code", code);
    put(w, "display", display);
    json_write_close(w, '}');
}

static void put_identifier(struct json_writer *w, const char *key, const char *system, const char *value)
{
    json_write_open(w, key, '{');
    json_write_open(w, "identifier", '{');
    if (system)
        put(w, "system", system);
    put(w, "value", value);
    json_write_close(w, '}');
    json_write_close(w, '}');
}

static void put_role(struct json_writer *w, const char *code, const char *display)
{
    json_write_open(w, "type", '{');
    json_write_open(w, "coding", '[');
    put_coding(w, NULL, dicom, code, display);
    json_write_close(w, ']');
    json_write_close(w, '}');
}

static void put_agents(struct json_writer *w, const struct audit_facts *f)
{
    json_write_open(w, "agent", '[');
    json_write_open(w, NULL, '{');
    put_role(w, "110151", "Application Launcher");
    put_identifier(w, "who", NULL, *f->stated ? f->stated : f->user);
    put(w, "altId", f->user);
    json_write_boolean(w, "requestor", true);
    json_write_close(w, '}');
    json_write_open(w, NULL, '{');
    put_role(w, "110150", "Application");
    put_identifier(w, "who", NULL, f->program);
    if (*f->pid)
        put(w, "altId", f->pid);
    json_write_boolean(w, "requestor", false);
    json_write_open(w, "network", '{');
    put(w, "address", f->host);
    put(w, "type", "1");
    json_write_close(w, '}');
    json_write_close(w, '}');
    json_write_close(w, ']');
}

static void put_entity(struct json_writer *w, const struct audit_object *o)
{
    const bool has_uid = o->kind == AUDIT_STUDY || o->kind == AUDIT_SERIES || o->kind == AUDIT_INSTANCE;
    char value[128];
    json_write_open(w, NULL, '{');
    snprintf(value, sizeof value, "urn:oid:%s", o->id);
    put_identifier(w, "what", has_uid ? "urn:dicom:uid" : "urn:ward:sha256", has_uid ? value : o->id);
    put_coding(w, "type", entity_type, "2", "System Object");
    if (o->kind == AUDIT_QUESTION)
        put_coding(w, "role", object_role, "24", "Query");
    else if (o->kind == AUDIT_ANSWER || has_uid)
        put_coding(w, "role", object_role, "3", "Report");
    else
        put_coding(w, "role", object_role, "4", "Domain Resource");
    put(w, "name", o->name);
    json_write_close(w, '}');
}

char *audit_export_fhir(const struct audit_use *use)
{
    struct json_writer *w = json_writer_new(false);
    struct audit_facts *f = malloc(sizeof *f);
    char *out = NULL;
    if (w && f) {
        audit_facts_of(f, use);
        json_write_open(w, NULL, '{');
        json_write_open(w, "resource", '{');
        put(w, "resourceType", "AuditEvent");
        put_coding(w, "type", dicom, "110100", "Application Activity");
        json_write_open(w, "subtype", '[');
        put_coding(w, NULL, "urn:ward:command", f->command, f->command);
        json_write_close(w, ']');
        put(w, "action", "E");
        json_write_open(w, "period", '{');
        put(w, "start", f->begin);
        if (*f->end)
            put(w, "end", f->end);
        json_write_close(w, '}');
        put(w, "recorded", f->begin);
        put(w, "outcome", f->code);
        put(w, "outcomeDesc", f->outcome);
        put_agents(w, f);
        json_write_open(w, "source", '{');
        put_identifier(w, "observer", NULL, f->host);
        json_write_close(w, '}');
        if (f->n_objects) {
            json_write_open(w, "entity", '[');
            for (size_t i = 0; i < f->n_objects; i++)
                put_entity(w, &f->objects[i]);
            json_write_close(w, ']');
        }
        json_write_close(w, '}');
        json_write_close(w, '}');
        const char *text = json_writer_text(w, NULL);
        out = text ? strdup(text) : NULL;
    }
    json_writer_free(&w);
    free(f);
    return out;
}
