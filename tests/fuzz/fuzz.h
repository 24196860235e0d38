/* What the fuzz targets share. Each target is one file, fuzz_NAME.c, with libFuzzer's entry point; without libFuzzer it
 * is linked with replay.c, which feeds it files. docs/fuzzing.md */
#ifndef WARD_TESTS_FUZZ_H
#define WARD_TESTS_FUZZ_H

#include "model/config.h"
#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the program, as a crash would: what the parser promises does not hold. */
void fuzz_fail(const char *file, int line, const char *what) __attribute__((noreturn));
#define REQUIRE(condition) ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition))

/* What every parser promises of its result: 0, or a negative code that stands in `err` too, with a sentence. */
void fuzz_check_result(int rc, const struct ward_error *err);

/* What config.h promises of a configuration, once its tokens are known. */
void fuzz_check_config(const struct model_config *c);

/* An input that stands for several files is cut at these lines. Each part is a copy of exactly its size, so that the
 * sanitizer sees a read beyond its end. A part of no bytes stands for a file that is not there. */
#define FUZZ_SEPARATOR "\n--8<--\n"
enum { FUZZ_MAX_PARTS = 6 };
struct fuzz_parts {
    uint8_t *data[FUZZ_MAX_PARTS];
    size_t size[FUZZ_MAX_PARTS];
};
void fuzz_split(struct fuzz_parts *parts, const uint8_t *data, size_t size);
void fuzz_parts_free(struct fuzz_parts *parts);

/* A folder that lasts as long as the program. A file of no bytes is removed. Both return the path, valid for good. */
const char *fuzz_folder(void);
void fuzz_folder_put(const char *name, const void *data, size_t size);

/* A small tokenizer with Gemma's kinds of tokens. */
const struct tokenizer *fuzz_tokenizer(void);
/* Encodes the text in both ways, decodes the ids in both ways, and checks what holds for every tokenizer and text. */
void fuzz_use_tokenizer(const struct tokenizer *t, const uint8_t *text, size_t size);

#endif
