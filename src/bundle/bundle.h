/* A bundle: ward, its libraries and a model, in a folder or a tar file, with a signed list of every file's hash.
 * docs/airgap.md describes the layout and what is checked. */
#ifndef WARD_BUNDLE_BUNDLE_H
#define WARD_BUNDLE_BUNDLE_H

#include "base/hash_files.h"
#include "bundle/manifest.h"
#include "bundle/minisign.h"

#define BUNDLE_FACTS "bundle.json"
#define BUNDLE_LIBRARIES "lib/ward/"
#define BUNDLE_PREFIX "ward-bundle/" /* of the names in a tar file */

struct bundle_progress {
    hash_progress_fn *progress; /* may be NULL */
    void *user;
    int threads; /* 0: as many as this process may use */
};

/* ---- making one -------------------------------------------------------------------------------------------------- */

/* What goes in: a path in the bundle and where it comes from. */
struct bundle_item {
    char *path;
    char *source;     /* a file, or NULL: `data` */
    char *data;
    size_t size;      /* of data */
    bool executable;
    char *counted;    /* its name in the list of the model's hash; NULL: it does not count */
};

struct bundle_items {
    struct bundle_item *at;
    size_t n;
};

/* Each takes a copy of what it is given. */
WARD_CHECKED int bundle_add_file(struct bundle_items *items, const char *path, const char *source, bool executable,
                                 struct ward_error *err);
WARD_CHECKED int bundle_add_text(struct bundle_items *items, const char *path, const char *text, bool executable,
                                 struct ward_error *err);
void bundle_items_free(struct bundle_items *items);

/* The program that runs, and the libraries that the dynamic loader found for it, but for the C library's own: bin/ward
 * and lib/ward/. */
WARD_CHECKED int bundle_add_program(struct bundle_items *items, struct ward_error *err);
/* Their licences, licenses/PACKAGE.txt, where the distribution tells. */
WARD_CHECKED int bundle_add_licenses(struct bundle_items *items, struct ward_error *err);
/* The model's files under models/: those that its hash covers, and what a folder has of licences and notices. name,
 * mmproj: as for model_locate. Opens no file of it. */
WARD_CHECKED int bundle_add_model(struct bundle_items *items, const char *name, const char *mmproj,
                                  struct ward_error *err);
/* Reads of a model whether it is under Google's terms: its model card, or its GGUF keys. */
WARD_CHECKED int bundle_model_terms(bool *hai_def, const char *name, const char *mmproj, struct ward_error *err);

/* What a bundle says of itself, bundle.json. */
struct bundle_facts {
    char ward[32], machine[66], libc[32], created[32], model_sha256[SHA256_HEX + 1];
};

/* Writes everything, with bundle.json, the list and its signature, to a folder that is not there yet, or to a tar file if
 * `out` ends in .tar. `seconds` since 1970: what is said of its making. facts: filled but for created and model_sha256.
 * A failure leaves nothing behind. */
WARD_CHECKED int bundle_create(const char *out, struct bundle_items *items, struct bundle_facts *facts,
                               const struct minisign_secret *key, int64_t seconds,
                               const struct bundle_progress *progress, struct ward_error *err);

/* ---- reading one ------------------------------------------------------------------------------------------------- */

struct bundle_file {
    char *path;      /* in the bundle */
    uint64_t offset, size;
    bool executable;
};

struct bundle {
    char *name;      /* as given */
    bool is_tar;
    int fd;          /* the folder, or the tar file */
    struct bundle_file *files; /* [n], in the order of the list: what the list says and what is there agree */
    size_t n;
    uint64_t bytes;
    struct manifest manifest;
    uint8_t list_sha256[SHA256_BYTES]; /* of the list itself */
    char comment[MINISIGN_COMMENT];
    char *list, *signature;  /* the two files */
    size_t list_size, signature_size;
    struct bundle_facts facts;
};

/* Opens a folder or tar file and checks all that needs no reading of large files: the signature by `key`, the list, and
 * that exactly its files are there, as regular files, without links. Ended with bundle_close, also after an error. */
WARD_CHECKED int bundle_open(struct bundle *out, const char *name, const struct minisign_public *key,
                             struct ward_error *err);
/* Reads every byte and compares. */
WARD_CHECKED int bundle_verify(const struct bundle *bundle, const struct bundle_progress *progress,
                               struct ward_error *err);
/* As bundle_verify, into a folder that is not there yet, which holds the same afterwards, on disk. A failure leaves
 * nothing behind. */
WARD_CHECKED int bundle_copy(const struct bundle *bundle, const char *folder, const struct bundle_progress *progress,
                             struct ward_error *err);
void bundle_close(struct bundle *bundle);

/* ---- in place ---------------------------------------------------------------------------------------------------- */

/* DIR/versions/ID for each that is installed, DIR/current and DIR/previous link to two of them. `id`: of the version that
 * is current afterwards. */
enum { BUNDLE_ID = 96 };
WARD_CHECKED int bundle_install(const struct bundle *bundle, const char *dir, const struct minisign_public *key,
                                char id[BUNDLE_ID], const struct bundle_progress *progress, struct ward_error *err);
/* The previous version becomes the current one, and the other way round. */
WARD_CHECKED int bundle_rollback(const char *dir, char id[BUNDLE_ID], struct ward_error *err);

/* ---- its parts --------------------------------------------------------------------------------------------------- */

/* All files below a folder, as bundle_file with offset 0, unsorted; anything but regular files and folders with files in
 * them is refused. *files: [*n], freed with bundle_files_free. */
WARD_CHECKED int bundle_list_folder(struct bundle_file **files, size_t *n, int folder, const char *name,
                                    struct ward_error *err);
void bundle_files_free(struct bundle_file **files, size_t *n);
/* Removes a folder and what is below; follows no link. */
void bundle_remove(const char *folder);
/* Hands the names in a folder to the disk; where it cannot be done, it is let be. */
void bundle_sync_folder(const char *folder);
/* Makes the folders on the way to `path` below a folder. 0 or errno. */
int bundle_make_folders(int folder, const char *path);

/* bundle.json, to text and back. */
WARD_CHECKED int bundle_facts_write(char **text, const struct bundle_facts *facts, struct ward_error *err);
WARD_CHECKED int bundle_facts_parse(struct bundle_facts *out, const char *text, size_t length, const char *name,
                                    struct ward_error *err);

#endif
