/* config.json, generation_config.json, preprocessor_config.json and processor_config.json. */
#include "fuzz.h"

#include "model/config.h"

static bool within(int64_t value, int64_t low, int64_t high)
{
    return value >= low && value <= high;
}

/* What config.h promises. */
static void check_config(const struct model_config *c)
{
    const struct text_config *t = &c->text;
    const struct vision_config *v = &c->vision;
    REQUIRE(t->hidden_size > 0 && t->intermediate_size > 0 && t->sliding_window > 0 && t->max_positions > 0);
    REQUIRE(within(t->n_layers, 1, CONFIG_MAX_LAYERS) && t->n_heads > 0 && t->n_kv_heads > 0 && t->vocab_size > 0);
    REQUIRE(t->n_heads % t->n_kv_heads == 0 && t->head_dim > 0 && t->head_dim % 2 == 0);
    REQUIRE(t->query_pre_attn_scalar > 0 && t->rms_norm_eps > 0 && t->final_softcap >= 0);
    REQUIRE(t->rope_global.theta > 1 && t->rope_global.factor > 0);
    REQUIRE(t->rope_sliding.theta > 1 && t->rope_sliding.factor > 0);
    REQUIRE(within(c->n_eos, 1, CONFIG_MAX_EOS));
    if (!v->n_layers) {
        REQUIRE(c->image_tokens == 0 && c->image_token == -1);
        return;
    }
    REQUIRE(within(v->n_layers, 1, CONFIG_MAX_LAYERS) && v->hidden_size > 0 && v->intermediate_size > 0);
    REQUIRE(v->n_heads > 0 && v->hidden_size % v->n_heads == 0 && v->n_channels == 3);
    REQUIRE(v->patch_size > 0 && v->image_size > 0 && v->image_size % v->patch_size == 0);
    const int side = v->image_size / v->patch_size;
    int root = 0;
    while (root * root < c->image_tokens)
        root++;
    REQUIRE(root > 0 && root * root == c->image_tokens && side % root == 0);
    REQUIRE(c->image_token >= 0);
    for (int i = 0; i < 3; i++)
        REQUIRE(c->image.std[i] > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"config.json", "generation_config.json", "preprocessor_config.json",
                                        "processor_config.json"};
    struct fuzz_parts parts;
    struct config_files files;
    struct config_file *const slots[] = {&files.config, &files.generation, &files.preprocessor, &files.processor};
    fuzz_split(&parts, data, size);
    for (int i = 0; i < 4; i++)
        *slots[i] = (struct config_file){names[i], (const char *)parts.data[i], parts.size[i]};
    struct model_config config;
    struct ward_error err = {0};
    const int rc = config_parse(&config, &files, &err);
    fuzz_check_result(rc, &err);
    if (!rc)
        check_config(&config);
    fuzz_parts_free(&parts);
    return 0;
}
