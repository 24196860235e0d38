/* The SigLIP vision encoder and Gemma 3's projector. Reference: transformers' modeling_siglip SiglipVisionTransformer
 * and modeling_gemma3 Gemma3MultiModalProjector. */
#ifndef WARD_ENGINE_VISION_H
#define WARD_ENGINE_VISION_H

#include "engine/observe.h"
#include "model/weights.h"

/* Encodes one image: its patches [N][channels][patch_size][patch_size] (image_patches, in host memory) to features
 * [config->image_tokens][text hidden_size] in the backend's memory. work: vision_work_bytes of the backend's memory, or
 * NULL: they are held only during the call. `index` numbers the image for the observer. */
WARD_CHECKED int vision_encode(struct backend *be, const struct model_config *config,
                               const struct vision_weights *weights, const float *patches, float *features, void *work,
                               int index, const struct observer *observer, struct ward_error *err);

size_t vision_work_bytes(struct backend *be, const struct model_config *config);

/* Lets go of the encoder's resident pages: a text answer does not need them, and an image later reads them again from
 * the page cache in milliseconds. So the encoder and the decoder need not be in memory at once. */
void vision_rest(const struct vision_config *config, const struct vision_weights *weights);

#endif
