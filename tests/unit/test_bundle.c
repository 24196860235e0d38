/* The formats of a bundle: list, tar headers, signatures. tests/cli/test_bundle.py holds them against minisign and
 * Python's tarfile. */
#include "bundle/bundle.h"
#include "bundle/tar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_paths(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a/b", "models/config.json", "lib/ward/lib.so.1", "a b", "\xc3\xa4", "a.b/c-d_e+f"};
    static const char *const bad[] = {"", "/a", "a/", "a//b", ".", "..", "./a", "a/..", "a/../b", ".a", "a/.b", "a\\b", "a\nb",
                                      "\xff", "a\x7f", "SHA256SUMS", "SHA256SUMS.minisig"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(manifest_path_ok(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(manifest_path_ok(bad[i]));
}

#define HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static int parse(struct manifest *m, const char *text)
{
    struct ward_error err;
    return manifest_parse(m, text, strlen(text), "list", &err);
}

static void test_list(void **state)
{
    (void)state;
    struct manifest m;
    assert_int_equal(parse(&m, HASH "  a\n" HASH "  b.c\n" HASH "  b/d\n"), 0);
    assert_int_equal(m.n, 3);
    assert_string_equal(manifest_find(&m, "b.c")->path, "b.c");
    assert_null(manifest_find(&m, "b"));
    manifest_free(&m);
    static const char *const bad[] = {"", "\n", HASH "  a", HASH " a\n", HASH " *a\n", HASH "  b\n" HASH "  a\n",
                                      HASH "  a\n" HASH "  a\n", HASH "  b\n" HASH "  b.c\n" HASH "  b/d\n",
                                      HASH "  a\r\n", HASH "0  a\n", HASH "  ../a\n", "E" HASH "  a\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse(&m, bad[i]), WARD_EFORMAT);
}

struct file {
    const uint8_t *data;
    uint64_t hole; /* bytes that are zeros, after the first block */
    size_t size;
};

static int read_file(void *user, void *out, size_t size, uint64_t offset)
{
    const struct file *f = user;
    for (size_t i = 0; i < size; i++) {
        const uint64_t at = offset + i;
        ((uint8_t *)out)[i] = at < TAR_BLOCK ? f->data[at] : at < TAR_BLOCK + f->hole ? 0 : f->data[at - f->hole];
    }
    return 0;
}

/* A size beyond eight gigabytes takes the binary form. */
static void test_tar_of_large_files(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, 512, 077777777777, 0100000000000, UINT64_C(20) << 30};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t data[3 * TAR_BLOCK] = {0};
        struct tar_index index;
        struct ward_error err;
        assert_true(tar_header(data, "ward-bundle/models/m.gguf", sizes[i], i % 2, 1700000000));
        struct file file = {data, tar_size(sizes[i]) - TAR_BLOCK, sizeof data};
        assert_int_equal(tar_read_index(&index, read_file, &file, sizeof data + file.hole, BUNDLE_PREFIX, 9, "t", &err), 0);
        assert_int_equal(index.n, 1);
        assert_string_equal(index.entries[0].path, "models/m.gguf");
        assert_true(index.entries[0].size == sizes[i] && index.entries[0].offset == TAR_BLOCK);
        assert_int_equal(index.entries[0].executable, i % 2);
        tar_index_free(&index);
        if (sizes[i]) /* one block short */
            assert_int_equal(tar_read_index(&index, read_file, &file, 2 * TAR_BLOCK + file.hole - TAR_BLOCK, BUNDLE_PREFIX,
                                            9, "t", &err), WARD_EFORMAT);
    }
}

static void test_tar_names(void **state)
{
    (void)state;
    char path[300];
    uint8_t header[TAR_BLOCK];
    for (size_t length = 1; length < sizeof path; length++) {
        memset(path, 'a', length);
        path[length] = '\0';
        assert_int_equal(tar_header(header, path, 0, false, 0), length <= 100);
        if (length < 60)
            continue;
        path[length - 50] = '/';
        assert_int_equal(tar_header(header, path, 0, false, 0), length - 50 <= 155 || length <= 100);
    }
}

static void test_signatures(void **state)
{
    (void)state;
    static const char message[] = "a list of files";
    char *public_text, *secret_text, *signature, comment[MINISIGN_COMMENT];
    struct minisign_public public;
    struct minisign_secret secret;
    struct ward_error err;
    bool locked;
    assert_int_equal(minisign_generate(&public_text, &secret_text, NULL, &err), 0);
    assert_int_equal(minisign_public_parse(&public, public_text, strlen(public_text), "p", &err), 0);
    assert_int_equal(minisign_secret_parse(&secret, &locked, secret_text, strlen(secret_text), "s", NULL, &err), 0);
    assert_false(locked);
    assert_int_equal(minisign_sign(&signature, &secret, message, sizeof message, "when\tand what", &err), 0);
    const size_t n = strlen(signature), first = strcspn(signature, "\n");
    assert_int_equal(minisign_verify(&public, signature, n, "g", message, sizeof message, comment, &err), 0);
    assert_string_equal(comment, "when\tand what");
    assert_int_equal(minisign_verify(&public, signature, n, "g", message, sizeof message - 1, comment, &err), WARD_EFORMAT);
    for (size_t bit = 8 * (first + 1); bit < 8 * (n - 1); bit++) { /* every bit but those of the untrusted comment */
        signature[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_not_equal(minisign_verify(&public, signature, n, "g", message, sizeof message, comment, &err), 0);
        signature[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(signature);
    free(public_text);
    free(secret_text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),   cmocka_unit_test(test_list),       cmocka_unit_test(test_tar_of_large_files),
        cmocka_unit_test(test_tar_names), cmocka_unit_test(test_signatures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
