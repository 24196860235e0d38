/* ward with an image encoder that takes longer by WARD_TEST_SLEEP_MS: the linker puts this before the real one, and the
 * test sees whether `ward bench --compare` finds it. */
#include "engine/vision.h"

#include <stdlib.h>
#include <time.h>

int __real_vision_encode(struct backend *be, const struct model_config *config, const struct vision_weights *weights,
                         const float *patches, float *features, void *work, int index, const struct observer *observer,
                         struct ward_error *err);
int __wrap_vision_encode(struct backend *be, const struct model_config *config, const struct vision_weights *weights,
                         const float *patches, float *features, void *work, int index, const struct observer *observer,
                         struct ward_error *err);

int __wrap_vision_encode(struct backend *be, const struct model_config *config, const struct vision_weights *weights,
                         const float *patches, float *features, void *work, int index, const struct observer *observer,
                         struct ward_error *err)
{
    const char *text = getenv("WARD_TEST_SLEEP_MS");
    const double ms = text ? strtod(text, NULL) : 0;
    const struct timespec wait = {(time_t)(ms / 1e3), (long)(ms * 1e6) % 1000000000};
    nanosleep(&wait, NULL);
    return __real_vision_encode(be, config, weights, patches, features, work, index, observer, err);
}
