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
static void expect_place(const char *name, const char *mmproj, const char *expected, const char *expected_mmproj)
{
    struct model_place place;
    struct ward_error err = {0};
    char path[512];
    if (model_locate(&place, name, mmproj, &err))
        fail_msg("%s: %s", name, err.text);
    const char *const pairs[][2] = {{place.path, expected}, {place.mmproj, expected_mmproj}};
    for (int i = 0; i < 2; i++) {
        if (!pairs[i][1]) {
            assert_null(pairs[i][0]);
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", root.path, pairs[i][1]);
        assert_non_null(pairs[i][0]);
        assert_string_equal(pairs[i][0], *pairs[i][1] == '!' ? pairs[i][1] + 1 : path);
    }
    model_place_free(&place);
}

static void expect_found(const char *name, const char *expected)
{
    expect_place(name, NULL, expected, NULL);
}

static void expect_refusal_with(const char *name, const char *mmproj, const char *expected)
{
    struct model_place place;
    struct ward_error err = {0};
    const int rc = model_locate(&place, name, mmproj, &err);
    if (!rc || place.path || place.mmproj || !strstr(err.text, expected))
        fail_msg("%s: %d, said \"%s\", expected \"%s\"", name, rc, err.text, expected);
    assert_int_equal(model_locate(&place, name, mmproj, NULL), rc);
}

static void expect_refusal(const char *name, const char *expected)
{
    expect_refusal_with(name, NULL, expected);
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
    expect_refusal("empty", "empty: has no config.json and no GGUF file; a checkpoint folder in Hugging Face's layout");
    expect_refusal("nowhere", "nowhere: there is no such folder or file; expected a checkpoint folder, a GGUF file, ");
    expect_refusal("", "there is no such folder or file");
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

/* A file, or a folder with one text model; the encoder beside it whose name fits best. */
static void test_gguf(void **state)
{
    (void)state;
    folder_write_text(&root, "one/model.gguf", "");
    folder_write_text(&root, "one/config.json", "{}");
    expect_found("one", "!one/model.gguf");
    expect_found("one/model.gguf", "!one/model.gguf");
    folder_write_text(&root, "one/mmproj.gguf", "");
    expect_place("one", NULL, "!one/model.gguf", "!one/mmproj.gguf");
    expect_place("one", "none", "!one/model.gguf", NULL);
    expect_place("one", "elsewhere.gguf", "!one/model.gguf", "!elsewhere.gguf");
    folder_write_text(&root, "one/model.safetensors", "");
    expect_found("one", "!one");
    expect_refusal_with("one", "one/mmproj.gguf", "one: is no GGUF file: the image encoder one/mmproj.gguf");

    folder_write_text(&root, "many/medgemma-4b-it-Q4_K_M.gguf", "");
    folder_write_text(&root, "many/medgemma-27b-it-Q8_0.gguf", "");
    folder_write_text(&root, "many/mmproj-medgemma-27b-it-F16.gguf", "");
    folder_write_text(&root, "many/mmproj-medgemma-4b-it-Q8_0.gguf", "");
    folder_write_text(&root, "many/mmproj-medgemma-4b-it-F16.gguf", "");
    expect_refusal("many", "many: holds 2 GGUF files, name the one to open: medgemma-27b-it-Q8_0.gguf, medgemma-4b-it");
    expect_place("many/medgemma-4b-it-Q4_K_M.gguf", NULL, "!many/medgemma-4b-it-Q4_K_M.gguf",
                 "!many/mmproj-medgemma-4b-it-F16.gguf");
    expect_place("many/medgemma-27b-it-Q8_0.gguf", NULL, "!many/medgemma-27b-it-Q8_0.gguf",
                 "!many/mmproj-medgemma-27b-it-F16.gguf");
}

#define DIGEST(c) "sha256:" c c c c c c c c c c c c c c c c
#define BLOB(c) "ollama/blobs/sha256-" c c c c c c c c c c c c c c c c

static void write_manifest(const char *name, const char *kind, const char *digest)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"layers\": [{\"mediaType\": \"application/vnd.ollama.image.license\", \"digest\": \"%s\"},"
             "{\"mediaType\": \"application/vnd.ollama.image.%s\", \"digest\": \"%s\"},"
             "{\"mediaType\": \"application/vnd.ollama.image.projector\", \"digest\": \"" DIGEST("ef01") "\"}]}",
             DIGEST("0000"), kind, digest);
    folder_write_text(&root, name, text);
}

static void test_ollama(void **state)
{
    (void)state;
    set("OLLAMA_MODELS", "ollama");
    write_manifest("ollama/manifests/registry.ollama.ai/library/gemma3/4b", "model", DIGEST("abcd"));
    write_manifest("ollama/manifests/registry.ollama.ai/someone/medgemma/latest", "model", DIGEST("1234"));
    write_manifest("ollama/manifests/registry.ollama.ai/library/broken/latest", "model", "sha256:../../../etc/passwd");
    write_manifest("ollama/manifests/registry.ollama.ai/library/other/latest", "adapter", DIGEST("abcd"));
    expect_place("gemma3:4b", NULL, BLOB("abcd"), BLOB("ef01"));
    expect_place("someone/medgemma", NULL, BLOB("1234"), BLOB("ef01"));
    expect_refusal("gemma3", "gemma3: there is no such folder or file");
    expect_refusal("broken", "the digest of a layer is not \"sha256:\" and 64 hex digits");
    expect_refusal("other", "names no layer of the kind application/vnd.ollama.image.model");
    expect_refusal("../gemma3:4b", "../gemma3:4b: ");
    unsetenv("OLLAMA_MODELS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_variables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_snapshots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gguf, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ollama, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
