/* The lock that every command puts on itself before it opens a model or an image (src/offline/, docs/offline.md):
 *
 *     struct offline_policy policy = {0};
 *     offline_allow(&policy, OFFLINE_READ, image_path);
 *     offline_allow(&policy, OFFLINE_OUTPUT, out_path);
 *     rc = lock_allow_model(&policy, model_name, mmproj, &err);
 *     lock_enforce(&policy);
 */
#ifndef WARD_CLI_LOCK_H
#define WARD_CLI_LOCK_H

#include "offline/offline.h"

/* What opening the model reads: `name` and `mmproj` as model_locate takes them. Fails as that does. */
WARD_CHECKED int lock_allow_model(struct offline_policy *policy, const char *name, const char *mmproj,
                                  struct ward_error *err);
/* What computing on a device (--device, NULL: auto) needs, if its driver is there: its code now, later the use of it. */
void lock_allow_device(struct offline_policy *policy, const char *device);
/* Locks the program and frees the policy. Where the system cannot: ends it, or after --allow-unlocked warns and locks
 * what can be. */
void lock_enforce(struct offline_policy *policy);

struct json_writer;
/* "offline": {"enforced", "landlock", "seccomp", "missing"}, from offline_state. */
void lock_write_json(struct json_writer *w);

#endif
