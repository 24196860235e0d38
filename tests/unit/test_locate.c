/* From what the user writes to the folder of a checkpoint. */
#include "model/locate.h"

#include "folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>

static struct folder root;

static int setup(void **state)
{
    (void)state;
    static const char *const variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME",
                                            "HOME"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    folder_open(&root);
    return chdir(root.path);
}

static int teardown(void **state)
{
    (void)state;
    if (chdir("/"))
        return -1;
    folder_close(&root);
    return 0;
}

/* Gives the variable a path below the root. */
static void set(const char *variable, const char *below)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root.path, below);
    setenv(variable, path, 1);
}

/* `expected`: below the root, or the name itself when it starts with a '!'. */
static void expect_found(const char *name, const char *expected)
{
    char *folder;
    struct ward_error err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root.path, expected);
    if (model_locate(&folder, name, &err))
        fail_msg("%s: %s", name, err.text);
    assert_string_equal(folder, *expected == '!' ? expected + 1 : path);
    free(folder);
}

static void expect_refusal(const char *name, const char *expected)
{
    char *folder = root.path;
    struct ward_error err = {0};
    const int rc = model_locate(&folder, name, &err);
    if (!rc || folder || !strstr(err.text, expected))
        fail_msg("%s: %d, said \"%s\", expected \"%s\"", name, rc, err.text, expected);
    assert_int_equal(model_locate(&folder, name, NULL), rc);
}

static void test_folders(void **state)
{
    (void)state;
    folder_write_text(&root, "models/config.json", "{}");
    folder_write_text(&root, "a/b/c/config.json", "{}");
    folder_write_text(&root, "empty/file", "");
    expect_found("models", "!models");
    expect_found("./models", "!./models");
    expect_found("models/", "!models/");
    expect_found("a/b/c", "!a/b/c");
    expect_refusal("empty", "empty: has no config.json; a checkpoint folder in Hugging Face's layout was expected");
    expect_refusal("empty/file", "empty/file: is a file");
    expect_refusal("nowhere", "nowhere: there is no such folder; expected a checkpoint folder, or ORG/NAME");
    expect_refusal("", "there is no such folder");
}

#define MAIN "/models--google--medgemma-4b-it/"

static void add_snapshot(const char *cache, const char *hash, time_t modified)
{
    char path[512], name[512];
    snprintf(name, sizeof name, "%s" MAIN "snapshots/%s/config.json", cache, hash);
    folder_write_text(&root, name, "{}");
    snprintf(path, sizeof path, "%s/%s" MAIN "snapshots/%s", root.path, cache, hash);
    const struct timeval times[2] = {{modified, 0}, {modified, 0}};
    assert_int_equal(utimes(path, times), 0);
}

static void test_cache_variables(void **state)
{
    (void)state;
    static const struct {
        const char *variable, *value, *cache;
    } cases[] = {
        /* each has precedence over those before it */
        {"HOME", "home", "home/.cache/huggingface/hub"},
        {"XDG_CACHE_HOME", "xdg", "xdg/huggingface/hub"},
        {"HF_HOME", "hf", "hf/hub"},
        {"HUGGINGFACE_HUB_CACHE", "old", "old"},
        {"HF_HUB_CACHE", "hub", "hub"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char expected[256];
        set(cases[i].variable, cases[i].value);
        expect_refusal("google/medgemma-4b-it", cases[i].cache);
        add_snapshot(cases[i].cache, "abc", 1000);
        snprintf(expected, sizeof expected, "%s" MAIN "snapshots/abc", cases[i].cache);
        expect_found("google/medgemma-4b-it", expected);
    }
    setenv("HF_HUB_CACHE", "", 1); /* empty is unset */
    expect_found("google/medgemma-4b-it", "old" MAIN "snapshots/abc");
}

static void test_snapshots(void **state)
{
    (void)state;
    set("HF_HUB_CACHE", "hub");
    add_snapshot("hub", "aaa", 3000);
    add_snapshot("hub", "bbb", 5000);
    add_snapshot("hub", "ccc", 4000);
    expect_found("google/medgemma-4b-it", "hub" MAIN "snapshots/bbb");
    folder_write_text(&root, "hub" MAIN "refs/main", "aaa");
    expect_found("google/medgemma-4b-it", "hub" MAIN "snapshots/aaa");
    folder_write_text(&root, "hub" MAIN "refs/main", "ccc\n");
    expect_found("google/medgemma-4b-it", "hub" MAIN "snapshots/ccc");
    static const char *const bad[] = {"ddd", "", "..", "../snapshots/aaa", "\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        folder_write_text(&root, "hub" MAIN "refs/main", bad[i]);
        expect_found("google/medgemma-4b-it", "hub" MAIN "snapshots/bbb");
    }
    /* equally old: the same one every time */
    static const char *const equals[] = {"e", "bb", "d", "aab", "c", "f", "ab", "bbc"};
    for (size_t i = 0; i < sizeof equals / sizeof *equals; i++)
        add_snapshot("hub", equals[i], 5000);
    expect_found("google/medgemma-4b-it", "hub" MAIN "snapshots/aab");
    /* a folder of that name wins */
    folder_write_text(&root, "google/medgemma-4b-it/config.json", "{}");
    expect_found("google/medgemma-4b-it", "!google/medgemma-4b-it");
}

static void test_cache_refusals(void **state)
{
    (void)state;
    set("HF_HUB_CACHE", "hub");
    expect_refusal("google/medgemma-4b-it",
                   "google/medgemma-4b-it: is neither a folder nor in the Hugging Face cache ");
    expect_refusal("google/medgemma-4b-it", "huggingface-cli download google/medgemma-4b-it --local-dir ./models");
    folder_write_text(&root, "hub" MAIN "snapshots/file", "");
    expect_refusal("google/medgemma-4b-it", "is neither a folder nor in the Hugging Face cache");
    folder_write_text(&root, "hub" MAIN "snapshots/aaa/tokenizer.json", "");
    expect_refusal("google/medgemma-4b-it", "/snapshots/aaa: has no config.json");
    /* paths only: the cache is not asked */
    static const char *const paths[] = {"/google/medgemma", "./google",  "../google/x", "~/medgemma",      "a/b/c",
                                        "google/",          "google/..", "google/.x",   "google//medgemma"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        expect_refusal(paths[i], "there is no such folder");
    expect_refusal("/", "has no config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_variables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_snapshots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_refusals, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
