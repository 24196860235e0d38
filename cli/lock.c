#include "lock.h"
#include "options.h"
#include "use.h"

#include "base/json.h"
#include "model/locate.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int lock_allow_model(struct offline_policy *policy, const char *name, const char *mmproj, struct ward_error *err)
{
    if (mmproj && strcmp(mmproj, "none") != 0)
        offline_allow(policy, OFFLINE_READ, mmproj);
    if (is_folder(name)) { /* all that it holds is the model; what that is, opening it finds out */
        offline_allow(policy, OFFLINE_READ, name);
        return 0;
    }
    struct model_place place;
    int rc = model_locate(&place, name, mmproj, err);
    if (rc)
        return rc;
    offline_allow(policy, OFFLINE_READ, place.path);
    offline_allow(policy, OFFLINE_READ, place.mmproj);
    offline_allow(policy, OFFLINE_READ, place.found_by);
    if (place.is_gguf) /* an image encoder is looked for beside it */
        offline_allow(policy, OFFLINE_LIST, dirname(place.path));
    model_place_free(&place);
    return 0;
}

void lock_allow_device(struct offline_policy *policy, const char *device)
{
    bool driver;
    if (ward_device_prepare(device, &driver, NULL) == 0 && driver)
        policy->card = true;
}

void lock_enforce(struct offline_policy *policy)
{
    struct ward_error err;
    policy->partial = options_allow_unlocked();
    use_allow(policy);
    if (offline_lock(policy, &err))
        die("%s; --allow-unlocked goes on without (docs/offline.md)", err.text);
    if (!offline_state()->enforced)
        print_warning("not locked: %s", offline_state()->missing);
    offline_policy_free(policy);
}

void lock_write_json(struct json_writer *w)
{
    const struct offline_state *state = offline_state();
    json_write_open(w, "offline", '{');
    json_write_boolean(w, "enforced", state->enforced);
    json_write_integer(w, "landlock", state->landlock);
    json_write_boolean(w, "seccomp", state->seccomp);
    json_write_text(w, "missing", *state->missing ? state->missing : NULL);
    json_write_close(w, '}');
}
