/* The hash of a model: one SHA-256 that stands for every byte that ward may read of it.
 *
 * It is the SHA-256 of a list as sha256sum prints it, "HASH  NAME\n" for each file, sorted by the bytes of NAME. Files
 * of a folder in Hugging Face's layout: those directly in it that end in .json, .jinja, .model or .safetensors and do
 * not begin with a dot. Of GGUF: the text's as "model.gguf", the image encoder's, if one is used, as "mmproj.gguf",
 * whatever they are called. docs/model-hash.md shows how to compute it without ward. */
#ifndef WARD_MODEL_MODEL_HASH_H
#define WARD_MODEL_MODEL_HASH_H

#include "base/hash_files.h"

struct model_hash_file {
    char *path, *name; /* name: in the list */
};

struct model_hash {
    uint8_t sha256[SHA256_BYTES];
    char hex[SHA256_HEX + 1];
    bool complete;      /* false only with known_only: some file's hash is not remembered */
    bool remembered;    /* nothing had to be read */
    uint64_t bytes;     /* of all files */
    char *folder;       /* that the files lie in; NULL: GGUF */
    size_t n;
    struct model_hash_file *names; /* [n], sorted by name */
    struct hashed_file *files;     /* [n], in the same order */
};

struct model_hash_options {
    bool known_only; /* only look up what is remembered: nothing is read, nothing is written */
    int threads;     /* 0: as many as this process may use */
    hash_progress_fn *progress; /* may be NULL */
    void *user;
};

/* name, mmproj: as for model_locate. Ended with model_hash_free, also after an error. */
WARD_CHECKED int model_hash_open(struct model_hash *out, const char *name, const char *mmproj,
                                 const struct model_hash_options *options, struct ward_error *err);
/* Only which files it covers: `names` is filled, `files` NULL. */
WARD_CHECKED int model_hash_list(struct model_hash *out, const char *name, const char *mmproj, struct ward_error *err);
/* A line of the list, hashed: for a list of files that are in no folder yet. Names have to ascend. */
void model_hash_line(struct sha256_ctx *context, const char *name, const uint8_t sha256[SHA256_BYTES]);
/* To be asked once the model is open: whether its files are still those that were hashed. */
WARD_CHECKED int model_hash_recheck(const struct model_hash *hash, struct ward_error *err);
void model_hash_free(struct model_hash *hash);

#endif
