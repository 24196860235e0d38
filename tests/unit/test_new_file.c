/* Files that appear under their names whole, or not at all. */
#include "base/mapping.h"
#include "base/new_file.h"
#include "folder.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int files_in(const char *folder)
{
    DIR *dir = opendir(folder);
    int n = 0;
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2;
}

static void assert_holds(const char *path, const char *text)
{
    char *bytes;
    size_t length;
    assert_int_equal(file_read(&bytes, &length, path, 1 << 20, NULL), 0);
    assert_string_equal(bytes, text);
    free(bytes);
}

static void test_commit(void **state)
{
    struct folder *f = *state;
    struct new_file file;
    char path[4200];
    snprintf(path, sizeof path, "%s/report", f->path);
    assert_int_equal(new_file_put(path, "first", 5, NULL), 0);
    assert_int_equal(new_file_open(&file, path, NULL), 0);
    assert_int_equal(new_file_write(&file, "seco", 4, NULL), 0);
    assert_int_equal(new_file_write_at(&file, "nd", 2, 4), 0);
    assert_holds(path, "first");
    assert_int_equal(files_in(f->path), 2);
    assert_int_equal(new_file_sync(&file, NULL), 0);
    assert_int_equal(new_file_commit(&file, NULL), 0);
    assert_holds(path, "second");
    assert_int_equal(files_in(f->path), 1);
    new_file_discard(&file);
    assert_int_equal(files_in(f->path), 1);
}

static void test_discard(void **state)
{
    struct folder *f = *state;
    struct new_file file;
    char path[4200];
    snprintf(path, sizeof path, "%s/report", f->path);
    assert_int_equal(new_file_open(&file, path, NULL), 0);
    assert_int_equal(new_file_write(&file, "half", 4, NULL), 0);
    new_file_discard(&file);
    assert_int_equal(files_in(f->path), 0);
}

/* A limit on the size of files stands for a full disk. */
static void test_full_disk(void **state)
{
    struct folder *f = *state;
    struct ward_error err = {0};
    struct rlimit before, limit;
    char path[4200];
    static const char bytes[8192];
    snprintf(path, sizeof path, "%s/report", f->path);
    assert_int_equal(new_file_put(path, "before", 6, NULL), 0);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){4096, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    const int rc = new_file_put(path, bytes, sizeof bytes, &err);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(rc, WARD_EIO);
    assert_non_null(strstr(err.text, path));
    assert_holds(path, "before");
    assert_int_equal(files_in(f->path), 1);
}

static void test_no_folder(void **state)
{
    struct folder *f = *state;
    struct ward_error err = {0};
    struct new_file file;
    char path[4200];
    snprintf(path, sizeof path, "%s/none/report", f->path);
    assert_int_equal(new_file_open(&file, path, &err), WARD_EIO);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(new_file_put(f->path, "", 0, &err), WARD_EIO);
    assert_non_null(strstr(err.text, f->path));
}

static void test_device(void **state)
{
    (void)state;
    struct stat st;
    struct ward_error err = {0};
    assert_int_equal(new_file_put("/dev/null", "text", 4, NULL), 0);
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    assert_int_equal(new_file_put("/dev/full", "text", 4, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "/dev/full"));
}

static int set_up(void **state)
{
    static struct folder folder;
    folder_open(&folder);
    *state = &folder;
    return 0;
}

static int tear_down(void **state)
{
    folder_close(*state);
    return 0;
}

#define IN_A_FOLDER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(test_commit),    IN_A_FOLDER(test_discard), IN_A_FOLDER(test_full_disk),
        IN_A_FOLDER(test_no_folder), IN_A_FOLDER(test_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
