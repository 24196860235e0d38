/* SHA-256, files hashed side by side, and what is remembered of them. */
#include "folder.h"

#include "base/hash_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct folder home;

static int set_up(void **state)
{
    (void)state;
    folder_open(&home);
    setenv("HOME", home.path, 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("XDG_STATE_HOME");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    folder_close(&home);
    return 0;
}

static char *below(char path[512], const char *name)
{
    snprintf(path, 512, "%s/%s", home.path, name);
    return path;
}

static void assert_sha256(const uint8_t *hash, const char *expected)
{
    char hex[SHA256_HEX + 1];
    sha256_hex(hex, hash);
    assert_string_equal(hex, expected);
}

/* FIPS 180-4's examples. */
static void test_vectors(void **state)
{
    (void)state;
    static char million[1000000];
    uint8_t hash[SHA256_BYTES], again[SHA256_BYTES];
    sha256_of(hash, "", 0);
    assert_sha256(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_of(hash, "abc", 3);
    assert_sha256(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    memset(million, 'a', sizeof million);
    sha256_of(hash, million, sizeof million);
    assert_sha256(hash, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");

    assert_true(sha256_from_hex(again, "CDC76E5C9914FB9281A1C7E284D73E67F1809A48A497200E046D39CCC7112CD0 and more"));
    assert_memory_equal(again, hash, sizeof hash);
    assert_false(sha256_from_hex(again, "cdc76e5c"));
    assert_false(sha256_from_hex(again, "gdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
    assert_false(sha256_from_hex(again, ""));
}

enum { N_FILES = 40 };

static void test_files(void **state)
{
    (void)state;
    static uint8_t data[700000];
    char paths[N_FILES][512], name[32];
    struct ward_error err;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int threads = 0; threads < 9; threads += 3) {
        struct hashed_file files[N_FILES] = {0};
        for (size_t i = 0; i < N_FILES; i++) {
            snprintf(name, sizeof name, "f%zu", i);
            files[i].path = below(paths[i], name);
            if (!threads)
                folder_write(&home, name, data + i, i * i * 400);
        }
        files[7].known = true;
        const struct hash_options options = {.threads = threads};
        assert_int_equal(hash_files(files, N_FILES, &options, &err), 0);
        for (size_t i = 0; i < N_FILES; i++) {
            uint8_t expected[SHA256_BYTES] = {0};
            if (i != 7) {
                sha256_of(expected, data + i, i * i * 400);
                assert_int_equal(files[i].stamp.size, i * i * 400);
            }
            assert_memory_equal(files[i].sha256, expected, sizeof expected);
        }
    }
}

static int stop_at_once(void *user, uint64_t done, uint64_t total)
{
    assert_true(done <= total);
    ++*(int *)user;
    return 1;
}

static void test_failures(void **state)
{
    (void)state;
    char paths[4][512];
    struct ward_error err;
    folder_write_text(&home, "file", "text");
    struct hashed_file files[2] = {{.path = below(paths[0], "file")}, {.path = below(paths[1], "nothing")}};
    assert_int_equal(hash_files(files, 2, NULL, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "nothing: cannot be opened"));
    files[1].path = home.path;
    assert_int_equal(hash_files(files, 2, NULL, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "is not a regular file"));

    const struct hash_options no_links = {.no_links = true};
    assert_int_equal(symlink("file", below(paths[2], "link")), 0);
    files[1].path = paths[2];
    assert_int_equal(hash_files(files, 2, NULL, &err), 0);
    assert_memory_equal(files[0].sha256, files[1].sha256, SHA256_BYTES);
    assert_int_equal(hash_files(files, 2, &no_links, &err), WARD_EIO);

    /* A sparse file that takes seconds. */
    int calls = 0;
    const struct hash_options stops = {.progress = stop_at_once, .user = &calls};
    folder_write_text(&home, "large", "");
    assert_int_equal(truncate(below(paths[3], "large"), (off_t)16 << 30), 0);
    files[1].path = paths[3];
    assert_int_equal(hash_files(files, 2, &stops, &err), WARD_ECANCELLED);
    assert_int_equal(calls, 1);
    unlink(paths[3]);
}

static const struct file_stamp old_stamp = {.device = 1, .inode = 2, .size = 3, .mtime_s = -4, .mtime_ns = 5,
                                            .ctime_s = 6, .ctime_ns = 999999999};
static const uint8_t some_hash[SHA256_BYTES] = {1, 2, 3, 255};

static void remember(void)
{
    struct hash_cache *cache = hash_cache_open(true);
    assert_non_null(cache);
    hash_cache_add(cache, &old_stamp, some_hash, 1000);
    hash_cache_close(&cache);
}

static bool is_remembered(const struct file_stamp *stamp)
{
    uint8_t hash[SHA256_BYTES];
    struct hash_cache *cache = hash_cache_open(false);
    const bool found = hash_cache_find(cache, stamp, hash);
    hash_cache_close(&cache);
    return found && memcmp(hash, some_hash, sizeof hash) == 0;
}

static void test_cache(void **state)
{
    (void)state;
    char path[512];
    struct stat st;
    assert_false(is_remembered(&old_stamp));
    assert_int_not_equal(access(below(path, ".local"), F_OK), 0); /* looking up makes nothing */
    remember();
    assert_true(is_remembered(&old_stamp));
    for (int field = 0; field < 7; field++) {
        struct file_stamp other = old_stamp;
        switch (field) {
        case 0: other.device++; break;
        case 1: other.inode++; break;
        case 2: other.size++; break;
        case 3: other.mtime_s++; break;
        case 4: other.mtime_ns++; break;
        case 5: other.ctime_s++; break;
        case 6: other.ctime_ns--; break;
        }
        assert_false(is_remembered(&other));
    }
    assert_int_equal(stat(below(path, ".local/state/ward/hashes.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, 32);
    assert_int_equal(chmod(path, 0640), 0); /* a key that others can read is none */
    assert_false(is_remembered(&old_stamp));
}

/* Two seconds have to lie between a change and what is remembered. */
static void test_unsettled(void **state)
{
    (void)state;
    struct file_stamp stamp = old_stamp;
    struct hash_cache *cache = hash_cache_open(true);
    stamp.ctime_s = 1000;
    hash_cache_add(cache, &stamp, some_hash, 1002);
    uint8_t hash[SHA256_BYTES];
    assert_false(hash_cache_find(cache, &stamp, hash));
    hash_cache_add(cache, &stamp, some_hash, 1003);
    assert_true(hash_cache_find(cache, &stamp, hash));
    stamp.mtime_s = 5000; /* a clock that was set back */
    hash_cache_add(cache, &stamp, some_hash, 1003);
    assert_false(hash_cache_find(cache, &stamp, hash));
    /* It holds a thousand; the oldest make room, and a file has one hash. */
    stamp = old_stamp;
    for (uint64_t i = 0; i < 3000; i++) {
        stamp.inode = 100 + i;
        hash_cache_add(cache, &stamp, some_hash, 1000);
    }
    hash_cache_close(&cache);
    assert_true(is_remembered(&stamp));
    stamp.inode = 100;
    assert_false(is_remembered(&stamp));
}

/* Every bit of the list, and every length. */
static void test_forged(void **state)
{
    (void)state;
    char path[512], text[4096];
    remember();
    FILE *file = fopen(below(path, ".cache/ward/hashes"), "rb");
    assert_non_null(file);
    const size_t n = fread(text, 1, sizeof text, file);
    fclose(file);
    assert_true(n > 100 && n < sizeof text);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        text[bit / 8] ^= (char)(1 << bit % 8);
        folder_write(&home, ".cache/ward/hashes", text, n);
        /* the newline at the end and the case of the authenticator's letters say nothing */
        const bool harmless = bit / 8 == n - 1 || (bit % 8 == 5 && bit / 8 > n - 66 && text[bit / 8] >= 'A');
        assert_int_equal(is_remembered(&old_stamp), harmless);
        text[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t length = 0; length < n; length++) {
        folder_write(&home, ".cache/ward/hashes", text, length);
        assert_false(is_remembered(&old_stamp));
    }
    folder_write(&home, ".cache/ward/hashes", text, n);
    assert_true(is_remembered(&old_stamp));
    unlink(below(path, ".local/state/ward/hashes.key")); /* of another user, or another machine */
    struct hash_cache *cache = hash_cache_open(true);
    hash_cache_close(&cache);
    assert_false(is_remembered(&old_stamp));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vectors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cache, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unsettled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forged, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
