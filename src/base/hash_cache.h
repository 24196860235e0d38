/* The SHA-256 of files that were read before, so that a large one is read once.
 *
 * A file's hash is remembered under its stamp: device, inode, size, mtime and ctime. The list lies in
 * $XDG_CACHE_HOME/ward/hashes (~/.cache), authenticated with a key of this user's own in $XDG_STATE_HOME/ward/hashes.key
 * (~/.local/state): a list made up by somebody who cannot read the key, or brought from elsewhere, is not believed.
 * docs/model-hash.md has the format. Whatever goes wrong with either, files are only hashed again. */
#ifndef WARD_BASE_HASH_CACHE_H
#define WARD_BASE_HASH_CACHE_H

#include "base/hash_files.h"

struct hash_cache;

/* The two files, for whoever locks itself in before they are written; their folders are made. Each NULL or malloc'ed. */
void hash_cache_paths(char *paths[2]);

/* NULL when memory ran out; the functions below then do nothing. make: whether folders and key may be made where they are
 * not yet. */
struct hash_cache *hash_cache_open(bool make);
/* Whether the hash of a file with this stamp is remembered. */
bool hash_cache_find(const struct hash_cache *cache, const struct file_stamp *stamp, uint8_t sha256[SHA256_BYTES]);
/* `now`: the time in seconds at which the file was about to be read. One that changed within the two seconds before is
 * not remembered: a change right after might leave its stamp the same. */
void hash_cache_add(struct hash_cache *cache, const struct file_stamp *stamp, const uint8_t sha256[SHA256_BYTES],
                    int64_t now);
/* Writes what was added, if anything. */
void hash_cache_close(struct hash_cache **cache);

#endif
