/* Feeds files to a fuzz target, for compilers without libFuzzer and for `make test`: PROGRAM FILE|FOLDER... prints one
 * TAP result. Each file is named before it is tried: when the program dies, the last one named is at fault. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TIME_LIMIT = 30,          /* seconds for one file, sanitizers included */
    MEMORY_LIMIT = 1000 << 20 /* bytes at once; the largest image takes 512 MB */
};

static size_t n_files;

#ifndef __SANITIZE_ADDRESS__ /* which has a malloc of its own */
extern void *__libc_malloc(size_t size);

void *malloc(size_t size) __attribute__((visibility("default")));

/* In place of the C library's, also for the libraries: a small file must not get much memory, touched or not. */
void *malloc(size_t size)
{
    REQUIRE(size <= MEMORY_LIMIT);
    return __libc_malloc(size);
}
#endif

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st)) {
        perror(path);
        exit(1);
    }
    const size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size ? size : 1);
    if (!data || (size && fread(data, size, 1, file) != 1)) {
        perror(path);
        exit(1);
    }
    fclose(file);
    printf("# %s\n", path);
    fflush(stdout);
    alarm(TIME_LIMIT);
    LLVMFuzzerTestOneInput(data, size);
    alarm(0);
    free(data);
    n_files++;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void replay(const char *path)
{
    struct dirent **entries;
    const int n = scandir(path, &entries, is_visible, alphasort);
    if (n < 0)
        replay_file(path);
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, entries[i]->d_name);
        replay(inner);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
}

int main(int argc, char **argv)
{
    printf("1..1\n");
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    if (!n_files) {
        printf("not ok 1 - there is nothing to replay\n");
        return 1;
    }
    printf("ok 1 - %zu inputs\n", n_files);
    return 0;
}
