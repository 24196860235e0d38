/* What `ward bundle` reads of others: the list, keys and signatures of minisign's format, bundle.json, tar headers. The
 * first byte chooses. */
#include "fuzz.h"

#include "bundle/bundle.h"
#include "bundle/tar.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* What a path of a bundle may never be, said in another way than manifest.c does. */
static void check_path(const char *path)
{
    char copy[MANIFEST_PATH + 2];
    REQUIRE(*path && strlen(path) <= MANIFEST_PATH && *path != '/' && path[strlen(path) - 1] != '/');
    snprintf(copy, sizeof copy, "%s", path);
    REQUIRE(!strstr(path, "//"));
    for (char *rest = copy, *part; (part = strsep(&rest, "/"));)
        REQUIRE(*part && *part != '.');
    for (const char *c = path; *c; c++)
        REQUIRE((unsigned char)*c >= 0x20 && *c != 0x7f && *c != '\\');
}

static void fuzz_list(const char *text, size_t size)
{
    struct manifest m;
    struct ward_error err = {0};
    const int rc = manifest_parse(&m, text, size, "SHA256SUMS", &err);
    fuzz_check_result(rc, &err);
    size_t spelled = 0;
    for (size_t i = 0; i < m.n; i++) {
        char hex[SHA256_HEX + 1];
        check_path(m.lines[i].path);
        REQUIRE(manifest_find(&m, m.lines[i].path) == &m.lines[i]);
        REQUIRE(!i || strcmp(m.lines[i - 1].path, m.lines[i].path) < 0);
        /* one spelling: the lines written again are the text */
        sha256_hex(hex, m.lines[i].sha256);
        REQUIRE(!memcmp(text + spelled, hex, SHA256_HEX) && !memcmp(text + spelled + SHA256_HEX, "  ", 2));
        spelled += SHA256_HEX + 2;
        REQUIRE(!memcmp(text + spelled, m.lines[i].path, strlen(m.lines[i].path)));
        spelled += strlen(m.lines[i].path) + 1;
    }
    REQUIRE(rc || (spelled == size && m.n));
    manifest_free(&m);
}

/* A key of our own, and what it signed. */
static void fuzz_signature(const char *text, size_t size)
{
    static struct minisign_secret secret;
    static struct minisign_public public;
    static const char message[] = "a list";
    static char *good;
    struct ward_error err = {0};
    char comment[MINISIGN_COMMENT];
    if (!good) {
        static const uint8_t seed[crypto_sign_SEEDBYTES] = {7};
        REQUIRE(sodium_init() >= 0);
        crypto_sign_seed_keypair(public.key, secret.key, seed);
        REQUIRE(!minisign_sign(&good, &secret, message, sizeof message, "comment", &err));
        REQUIRE(!minisign_verify(&public, good, strlen(good), "s", message, sizeof message, comment, &err));
    }
    const int rc = minisign_verify(&public, text, size, "s", message, sizeof message, comment, &err);
    fuzz_check_result(rc, &err);
    /* Nobody forges it: what passes are spellings of the one signature, whose own first line is not signed. */
    REQUIRE(rc || strcmp(comment, "comment") == 0);
}

static void fuzz_keys(const char *text, size_t size)
{
    struct minisign_public public;
    struct minisign_secret secret;
    struct ward_error err = {0};
    bool locked;
    fuzz_check_result(minisign_public_parse(&public, text, size, "k.pub", &err), &err);
    err = (struct ward_error){0};
    fuzz_check_result(minisign_secret_parse(&secret, &locked, text, size, "k.key", NULL, &err), &err);
}

static void fuzz_facts(const char *text, size_t size)
{
    struct bundle_facts facts = {0}, again = {0};
    struct ward_error err = {0};
    const int rc = bundle_facts_parse(&facts, text, size, "bundle.json", &err);
    fuzz_check_result(rc, &err);
    if (rc)
        return;
    char *written;
    REQUIRE(!strchr(facts.ward, '/') && !strchr(facts.created, '/') && *facts.ward != '.');
    REQUIRE(!bundle_facts_write(&written, &facts, &err));
    REQUIRE(!bundle_facts_parse(&again, written, strlen(written), "again", &err));
    REQUIRE(!memcmp(&facts, &again, sizeof facts));
    free(written);
}

struct memory {
    const uint8_t *data;
    size_t size;
};

static int read_memory(void *user, void *out, size_t size, uint64_t offset)
{
    const struct memory *m = user;
    REQUIRE(offset <= m->size && size <= m->size - offset); /* never asked for what is not there */
    memcpy(out, m->data + offset, size);
    return 0;
}

/* Headers with their checksums mended, so that more than the first gets through. */
static void mend(uint8_t *tar, size_t size)
{
    for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
        uint8_t *h = tar + at;
        unsigned sum = 0;
        if (memcmp(h + 257, "ustar", 6) != 0)
            continue;
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < TAR_BLOCK; i++)
            sum += h[i];
        snprintf((char *)h + 148, 8, "%06o", sum & 0777777);
        h[155] = ' ';
    }
}

static void fuzz_tar(const uint8_t *data, size_t size)
{
    struct tar_index index;
    struct ward_error err = {0};
    uint8_t *tar = malloc(size ? size : 1), header[TAR_BLOCK];
    REQUIRE(tar);
    memcpy(tar, data, size);
    mend(tar, size);
    struct memory memory = {tar, size};
    const int rc = tar_read_index(&index, read_memory, &memory, size, BUNDLE_PREFIX, 64, "b.tar", &err);
    fuzz_check_result(rc, &err);
    uint64_t end = 0;
    REQUIRE(index.n <= 64 && (!rc || !index.n));
    for (size_t i = 0; i < index.n; i++) {
        const struct tar_entry *e = &index.entries[i];
        REQUIRE(e->offset == end + TAR_BLOCK && e->size <= size - e->offset);
        end += tar_size(e->size);
        REQUIRE(end + 2 * TAR_BLOCK <= size);
        if (strlen(e->path) < 80) {
            char whole[128];
            snprintf(whole, sizeof whole, BUNDLE_PREFIX "%s", e->path);
            REQUIRE(tar_header(header, whole, e->size, e->executable, 0));
        }
    }
    tar_index_free(&index);
    free(tar);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    char *text = malloc(size); /* a block of its own, for the sanitizer */
    REQUIRE(text);
    memcpy(text, data + 1, size - 1);
    switch (data[0] % 5) {
    case 0: fuzz_list(text, size - 1); break;
    case 1: fuzz_signature(text, size - 1); break;
    case 2: fuzz_keys(text, size - 1); break;
    case 3: fuzz_facts(text, size - 1); break;
    case 4: fuzz_tar((uint8_t *)text, size - 1); break;
    }
    free(text);
    return 0;
}
