/* The audit log's readers. The first byte says of what the rest is: S a segment as it is; M frames whose numbers,
 * hashes and signatures are made to fit, each after a byte that says what is not; K a key file; C a checkpoint;
 * F ward.conf; E two records, as both exports have them. */
#include "fuzz.h"

#include "../../cli/settings.h"

#include "audit/export.h"
#include "audit/reader.h"

#include <stdlib.h>
#include <string.h>

enum { OTHER_SEQ = 2, OTHER_SIGNATURE = 4, OTHER_HASH = 8, OWN_HEADER = 16 };

/* ---- segments ---------------------------------------------------------------------------------------------------- */

static int on_entry(void *user, const struct audit_entry *entry, struct ward_error *err)
{
    uint64_t *n = user;
    uint8_t hash[AUDIT_HASH];
    (void)err;
    REQUIRE(entry->frame->seq == *n);
    REQUIRE(entry->header->n_auditors >= 1 && entry->header->n_auditors <= AUDIT_MAX_AUDITORS);
    if (entry->body) {
        audit_hash(hash, entry->body, entry->frame->length);
        REQUIRE(!memcmp(hash, entry->frame->body_hash, AUDIT_HASH));
    } else {
        REQUIRE(audit_type_is_encrypted(entry->frame->type));
    }
    ++*n;
    return 0;
}

static void read_segment(const uint8_t *bytes, size_t size)
{
    struct ward_error err = {0};
    uint64_t n = 0;
    struct audit_reader reader = {.on_entry = on_entry, .user = &n};
    int rc = audit_read_segment(&reader, bytes, size, "segment", &err);
    fuzz_check_result(rc, &err);
    REQUIRE(reader.summary.tree.n == n && reader.summary.open_uses <= reader.summary.by_type[AUDIT_BEGIN]);
    if (!rc)
        fuzz_check_result(audit_read_end(&reader, "log", &err), &err);
    audit_reader_clear(&reader);
}

static char *header_text(const struct audit_ratchet *signing, size_t *length)
{
    struct audit_header header = {.n_auditors = 1};
    struct audit_ratchet content = {{1}};
    struct ward_error err;
    char *text;
    memset(header.auditors[0].public_key, 9, AUDIT_KEY);
    audit_ratchet_public(signing, header.key);
    REQUIRE(audit_header_seal(&header, &content));
    REQUIRE(!audit_header_text(&text, length, &header, &err));
    return text;
}

/* One frame from the input, appended to the segment; how much of the input it took. */
static size_t mend_frame(const uint8_t *in, size_t size, uint8_t *out, size_t *n_out, struct audit_frame *last,
                         struct audit_ratchet *signing)
{
    const uint8_t flags = in[0];
    const struct audit_ratchet content = {{1}};
    struct audit_frame frame = {
        .type = in[1] % (AUDIT_TYPES - 1) + 1, .seq = last->seq + 1, .of = in[3], .segment = 1,
        .utc_ms = in[4] * 100000u, .uptime_ms = in[5] * 100000u,
    };
    size_t length = in[2], n_made, n_text = 0;
    uint8_t *made;
    struct ward_error err;
    length = length > size - 6 ? size - 6 : length;
    char *text = frame.type == AUDIT_HEADER && !(flags & OWN_HEADER) ? header_text(signing, &n_text) : NULL;
    memcpy(frame.prev, last->prev, AUDIT_HASH);
    frame.seq += (flags & OTHER_SEQ) != 0;
    REQUIRE(!audit_frame_make(&frame, text ? text : (const char *)in + 6, text ? n_text : length, &content, signing,
                              &made, &n_made, &err));
    if (flags & OTHER_SIGNATURE)
        made[200] ^= 1;
    if (flags & OTHER_HASH && n_made > AUDIT_HEAD)
        made[AUDIT_HEAD] ^= 1;
    memcpy(out + *n_out, made, n_made);
    *n_out += n_made;
    last->seq = frame.seq;
    audit_leaf(last->prev, made);
    audit_ratchet_step(signing, audit_for_signing);
    free(made);
    free(text);
    return 6 + length;
}

static void read_mended(const uint8_t *data, size_t size)
{
    struct audit_ratchet signing = {{2}};
    struct audit_frame last = {.seq = UINT64_MAX};
    uint8_t *out = malloc(AUDIT_MAGIC + (size / 6 + 1) * (AUDIT_HEAD + 1024));
    size_t n_out = AUDIT_MAGIC;
    REQUIRE(out);
    memcpy(out, size && data[0] & 1 ? audit_magic_pruned : audit_magic_whole, AUDIT_MAGIC);
    for (size_t at = 1; at + 6 <= size && last.seq + 1 < 64;)
        at += mend_frame(data + at, size - at, out, &n_out, &last, &signing);
    uint8_t *exact = malloc(n_out); /* so that a read beyond the end is seen */
    REQUIRE(exact);
    memcpy(exact, out, n_out);
    read_segment(exact, n_out);
    free(exact);
    free(out);
}

/* ---- small files ------------------------------------------------------------------------------------------------- */

static int no_passphrase(char out[AUDIT_PASSPHRASE_LIMIT], const char *name, struct ward_error *err)
{
    (void)name;
    *out = '\0';
    err->code = WARD_ECANCELLED;
    strcpy(err->text, "no passphrase here: Argon2id is slow by intent");
    return WARD_ECANCELLED;
}

static void read_key(const char *text, size_t length)
{
    struct audit_auditor key, public_part;
    struct ward_error err = {0};
    const int rc = audit_key_parse(&key, text, length, "key", no_passphrase, &err);
    fuzz_check_result(rc, &err);
    if (!rc) {
        REQUIRE(!audit_key_parse_public(&public_part, text, length, "key", &err));
        REQUIRE(!memcmp(public_part.public_key, key.public_key, AUDIT_KEY));
    }
}

static void read_checkpoint(const char *text, size_t length)
{
    static const uint8_t key[AUDIT_KEY] = {3};
    struct audit_checkpoint checkpoint;
    struct ward_error err = {0};
    const int rc = audit_checkpoint_parse(&checkpoint, text, length, "note", &err);
    fuzz_check_result(rc, &err);
    if (!rc)
        REQUIRE(!audit_checkpoint_is_signed(&checkpoint, text, length, key)); /* nobody has its secret */
}

static void read_settings(const char *text, size_t length)
{
    struct settings settings = {0};
    struct ward_error err = {0};
    const int rc = settings_parse(&settings, text, length, "ward.conf", &err);
    fuzz_check_result(rc, &err);
    REQUIRE(!settings.audit || *settings.audit == '/');
    free(settings.audit);
}

static void export_records(const char *text, size_t length)
{
    const char *cut = memchr(text, '\n', length);
    const size_t n_first = cut ? (size_t)(cut - text) : length;
    struct ward_error err;
    struct audit_use use = {.begin.frame.type = AUDIT_BEGIN};
    if (json_parse(&use.begin.document, text, n_first, "begin", &err))
        return;
    if (cut && !json_parse(&use.end.document, cut + 1, length - n_first - 1, "end", &err))
        use.end.frame.type = AUDIT_END;
    char *fhir = audit_export_fhir(&use), *atna = audit_export_atna(&use);
    struct json_document *document;
    REQUIRE(fhir && atna);
    REQUIRE(!json_parse(&document, fhir, strlen(fhir), "fhir", &err));
    json_close(&document);
    REQUIRE(!strpbrk(atna, "\n\r\t") && !memcmp(atna, "<AuditMessage>", 14));
    for (const char *c = atna; *c; c++) /* "&" begins one of four escapes */
        REQUIRE(*c != '&' || !strncmp(c, "&lt;", 4) || !strncmp(c, "&gt;", 4) || !strncmp(c, "&amp;", 5) ||
                !strncmp(c, "&quot;", 6));
    free(fhir);
    free(atna);
    json_close(&use.begin.document);
    json_close(&use.end.document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ward_error err;
    if (size < 1 || audit_start(&err))
        return 0;
    char *text = malloc(size); /* a copy of exactly its size */
    REQUIRE(text);
    memcpy(text, data + 1, size - 1);
    switch (data[0]) {
    case 'S': read_segment((const uint8_t *)text, size - 1); break;
    case 'M': read_mended((const uint8_t *)text, size - 1); break;
    case 'K': read_key(text, size - 1); break;
    case 'C': read_checkpoint(text, size - 1); break;
    case 'F': read_settings(text, size - 1); break;
    case 'E': export_records(text, size - 1); break;
    }
    free(text);
    return 0;
}
