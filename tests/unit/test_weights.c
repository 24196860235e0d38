/* The weights of a tiny checkpoint, under every naming and type, and every mismatch with its sentence. */
#include "base/half.h"
#include "model/weights.h"

#include "folder.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { D = 8, I = 12, LAYERS = 2, H = 2, K = 1, C = 4, V = 10, E = 6, F = 10, EYE_LAYERS = 2, P = 4, N = 4 };

static struct model_config make_config(void)
{
    return (struct model_config){
        .text = {.hidden_size = D,
                 .intermediate_size = I,
                 .n_layers = LAYERS,
                 .n_heads = H,
                 .n_kv_heads = K,
                 .head_dim = C,
                 .vocab_size = V,
                 .tied_embeddings = true},
        .vision = {.hidden_size = E,
                   .intermediate_size = F,
                   .n_layers = EYE_LAYERS,
                   .n_heads = 2,
                   .image_size = 2 * P,
                   .patch_size = P,
                   .n_channels = 3},
        .image_tokens = N,
    };
}

/* ---- a checkpoint being written ---------------------------------------------------------------------------------- */

/* How the parts are called on disk. */
struct naming {
    const char *text, *head, *vision, *projector;
};

static const struct naming google = {"language_model.model.", "language_model.lm_head.", "vision_tower.vision_model.",
                                     "multi_modal_projector."};

/* One change to the checkpoint, at the tensor whose full name is `at`. */
struct change {
    enum { NONE, DROP, RENAME, DTYPE, ADD } what;
    const char *at, *value; /* value: the new name or dtype; ADD: the name of another tensor of that shape */
    int shape0;             /* not 0: the first dimension of it */
};

struct writer {
    char header[32768];
    uint8_t data[65536];
    size_t n_header, n_data;
    const struct naming *naming;
    const struct change *change;
    const char *dtype;
    bool found; /* the change was applied */
};

/* Element i of a tensor: small, and exact in every type. Depends on the part of the name that no naming changes: from
 * "layers." on, else the last two words. */
static float value_of(const char *name, int i)
{
    const char *key = strstr(name, "layers.");
    if (!key) {
        key = strrchr(name, '.');
        while (key && key > name && key[-1] != '.')
            key--;
    }
    unsigned hash = 0;
    for (key = key ? key : name; *key; key++)
        hash = hash * 31 + (unsigned char)*key;
    return (float)((hash + (unsigned)i * 5) % 61) / 8 - 3;
}

static void write_tensor(struct writer *w, const char *name, const char *dtype, const int *shape, int n_dims)
{
    char dims[64] = "";
    int n = 1;
    for (int i = 0; i < n_dims; i++) {
        snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%d", i ? "," : "", shape[i]);
        n *= shape[i];
    }
    const size_t begin = w->n_data;
    for (int i = 0; i < n; i++) {
        const float value = value_of(name, i);
        const uint16_t half = !strcmp(dtype, "F16") ? f16_from_float(value) : bf16_from_float(value);
        const size_t size = !strcmp(dtype, "F32") ? 4 : 2;
        memcpy(w->data + w->n_data, size == 4 ? (const void *)&value : (const void *)&half, size);
        w->n_data += size;
    }
    assert_true(w->n_data < sizeof w->data - 4096);
    w->n_header += (size_t)snprintf(w->header + w->n_header, sizeof w->header - w->n_header,
                                    "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                    w->n_header ? ',' : '{', name, dtype, dims, begin, w->n_data);
    assert_true(w->n_header < sizeof w->header - 1024);
}

static void add(struct writer *w, const char *prefix, const char *name, const int *shape, int n_dims)
{
    char full[256];
    int sizes[4] = {0};
    snprintf(full, sizeof full, "%s%s", prefix, name);
    memcpy(sizes, shape, (size_t)n_dims * sizeof *sizes);
    if (!w->change || strcmp(w->change->at, full)) {
        write_tensor(w, full, w->dtype, sizes, n_dims);
        return;
    }
    const struct change *c = w->change;
    w->found = true;
    if (c->shape0)
        sizes[0] = c->shape0;
    if (c->what != DROP)
        write_tensor(w, c->what == RENAME ? c->value : full, c->what == DTYPE ? c->value : w->dtype, sizes, n_dims);
    if (c->what == ADD)
        write_tensor(w, c->value, w->dtype, sizes, n_dims);
}

#define ADD1(w, prefix, name, a) add(w, prefix, name, (const int[]){a}, 1)
#define ADD2(w, prefix, name, a, b) add(w, prefix, name, (const int[]){a, b}, 2)

static void add_text(struct writer *w)
{
    const char *text = w->naming->text;
    ADD2(w, text, "embed_tokens.weight", V, D);
    ADD1(w, text, "norm.weight", D);
    for (int i = 0; i < LAYERS; i++) {
        char layer[128];
        snprintf(layer, sizeof layer, "%slayers.%d.", text, i);
        ADD1(w, layer, "input_layernorm.weight", D);
        ADD1(w, layer, "post_attention_layernorm.weight", D);
        ADD1(w, layer, "pre_feedforward_layernorm.weight", D);
        ADD1(w, layer, "post_feedforward_layernorm.weight", D);
        ADD1(w, layer, "self_attn.q_norm.weight", C);
        ADD1(w, layer, "self_attn.k_norm.weight", C);
        ADD2(w, layer, "self_attn.q_proj.weight", H * C, D);
        ADD2(w, layer, "self_attn.k_proj.weight", K * C, D);
        ADD2(w, layer, "self_attn.v_proj.weight", K * C, D);
        ADD2(w, layer, "self_attn.o_proj.weight", D, H * C);
        ADD2(w, layer, "mlp.gate_proj.weight", I, D);
        ADD2(w, layer, "mlp.up_proj.weight", I, D);
        ADD2(w, layer, "mlp.down_proj.weight", D, I);
    }
}

static void add_linear(struct writer *w, const char *prefix, const char *name, int rows, int cols)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    ADD2(w, prefix, full, rows, cols);
    snprintf(full, sizeof full, "%s.bias", name);
    ADD1(w, prefix, full, rows);
}

static void add_norm(struct writer *w, const char *prefix, const char *name)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    ADD1(w, prefix, full, E);
    snprintf(full, sizeof full, "%s.bias", name);
    ADD1(w, prefix, full, E);
}

static void add_vision(struct writer *w)
{
    const char *eye = w->naming->vision, *projector = w->naming->projector;
    add(w, eye, "embeddings.patch_embedding.weight", (const int[]){E, 3, P, P}, 4);
    ADD1(w, eye, "embeddings.patch_embedding.bias", E);
    ADD2(w, eye, "embeddings.position_embedding.weight", N, E);
    add_norm(w, eye, "post_layernorm");
    for (int i = 0; i < EYE_LAYERS; i++) {
        char layer[128];
        snprintf(layer, sizeof layer, "%sencoder.layers.%d.", eye, i);
        add_norm(w, layer, "layer_norm1");
        add_norm(w, layer, "layer_norm2");
        add_linear(w, layer, "self_attn.q_proj", E, E);
        add_linear(w, layer, "self_attn.k_proj", E, E);
        add_linear(w, layer, "self_attn.v_proj", E, E);
        add_linear(w, layer, "self_attn.out_proj", E, E);
        add_linear(w, layer, "mlp.fc1", F, E);
        add_linear(w, layer, "mlp.fc2", E, F);
    }
    ADD1(w, projector, "mm_soft_emb_norm.weight", E);
    ADD2(w, projector, "mm_input_projection_weight", E, D);
}

/* Writes model.safetensors into the folder. */
static void write_checkpoint(const struct folder *folder, const struct naming *naming, const char *dtype,
                             const struct change *change)
{
    struct writer *w = calloc(1, sizeof *w);
    w->naming = naming;
    w->dtype = dtype;
    w->change = change;
    add_text(w);
    if (naming->vision)
        add_vision(w);
    if (change && !w->found)
        fail_msg("there is no %s", change->at);
    w->header[w->n_header++] = '}';
    uint8_t *file = malloc(8 + w->n_header + w->n_data);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)w->n_header >> (8 * i));
    memcpy(file + 8, w->header, w->n_header);
    memcpy(file + 8 + w->n_header, w->data, w->n_data);
    folder_write(folder, "model.safetensors", file, 8 + w->n_header + w->n_data);
    free(file);
    free(w);
}

/* ---- what is read ------------------------------------------------------------------------------------------------ */

static float element(const struct tensor *t, int row, int col)
{
    const uint8_t *at = (const uint8_t *)tensor_row(t, row) + (size_t)col * tensor_bytes(t->type, 1);
    float value;
    uint16_t half;
    memcpy(&value, at, t->type == TENSOR_F32 ? 4 : 0);
    memcpy(&half, at, 2);
    return t->type == TENSOR_F32 ? value : t->type == TENSOR_F16 ? f16_to_float(half) : bf16_to_float(half);
}

static void check_matrix(const struct tensor *t, const char *name, int rows, int cols)
{
    assert_int_equal(t->rows, rows);
    assert_int_equal(t->cols, cols);
    for (int row = 0; row < rows; row++)
        for (int col = 0; col < cols; col++)
            assert_true(element(t, row, col) == value_of(name, row * cols + col));
}

static void check_vector(const float *vector, const char *name, int n, float add_on)
{
    for (int i = 0; i < n; i++)
        assert_true(vector[i] == value_of(name, i) + add_on);
}

static const char *layer_name(int layer, const char *name)
{
    static char full[128];
    snprintf(full, sizeof full, "layers.%d.%s.weight", layer, name);
    return full;
}

static void check_text(const struct text_weights *t)
{
    check_matrix(&t->embed, "language_model.model.embed_tokens.weight", V, D);
    check_vector(t->norm, "language_model.model.norm.weight", D, 1);
    for (int i = 0; i < LAYERS; i++) {
        const struct text_layer *l = &t->layers[i];
        check_vector(l->input_norm, layer_name(i, "input_layernorm"), D, 1);
        check_vector(l->post_attention_norm, layer_name(i, "post_attention_layernorm"), D, 1);
        check_vector(l->pre_feedforward_norm, layer_name(i, "pre_feedforward_layernorm"), D, 1);
        check_vector(l->post_feedforward_norm, layer_name(i, "post_feedforward_layernorm"), D, 1);
        check_vector(l->q_norm, layer_name(i, "self_attn.q_norm"), C, 1);
        check_vector(l->k_norm, layer_name(i, "self_attn.k_norm"), C, 1);
        check_matrix(&l->q, layer_name(i, "self_attn.q_proj"), H * C, D);
        check_matrix(&l->k, layer_name(i, "self_attn.k_proj"), K * C, D);
        check_matrix(&l->v, layer_name(i, "self_attn.v_proj"), K * C, D);
        check_matrix(&l->o, layer_name(i, "self_attn.o_proj"), D, H * C);
        check_matrix(&l->gate, layer_name(i, "mlp.gate_proj"), I, D);
        check_matrix(&l->up, layer_name(i, "mlp.up_proj"), I, D);
        check_matrix(&l->down, layer_name(i, "mlp.down_proj"), D, I);
    }
}

static void check_linear(const struct tensor *t, const float *bias, int layer, const char *name, int rows, int cols)
{
    char full[128];
    check_matrix(t, layer_name(layer, name), rows, cols);
    snprintf(full, sizeof full, "layers.%d.%s.bias", layer, name);
    check_vector(bias, full, rows, 0);
}

static void check_vision(const struct vision_weights *v)
{
    check_matrix(&v->patch, "embeddings.patch_embedding.weight", E, 3 * P * P);
    check_vector(v->patch_bias, "embeddings.patch_embedding.bias", E, 0);
    check_matrix(&v->position, "embeddings.position_embedding.weight", N, E);
    check_vector(v->post_norm, "vision_model.post_layernorm.weight", E, 0);
    check_vector(v->post_norm_bias, "vision_model.post_layernorm.bias", E, 0);
    for (int i = 0; i < EYE_LAYERS; i++) {
        const struct vision_layer *l = &v->layers[i];
        check_vector(l->norm1, layer_name(i, "layer_norm1"), E, 0);
        check_vector(l->norm1_bias, i ? "layers.1.layer_norm1.bias" : "layers.0.layer_norm1.bias", E, 0);
        check_vector(l->norm2, layer_name(i, "layer_norm2"), E, 0);
        check_vector(l->norm2_bias, i ? "layers.1.layer_norm2.bias" : "layers.0.layer_norm2.bias", E, 0);
        check_linear(&l->q, l->q_bias, i, "self_attn.q_proj", E, E);
        check_linear(&l->k, l->k_bias, i, "self_attn.k_proj", E, E);
        check_linear(&l->v, l->v_bias, i, "self_attn.v_proj", E, E);
        check_linear(&l->out, l->out_bias, i, "self_attn.out_proj", E, E);
        check_linear(&l->fc1, l->fc1_bias, i, "mlp.fc1", F, E);
        check_linear(&l->fc2, l->fc2_bias, i, "mlp.fc2", E, F);
    }
    check_vector(v->projector_norm, "multi_modal_projector.mm_soft_emb_norm.weight", E, 1);
    assert_int_equal(v->projector.rows, D);
    assert_int_equal(v->projector.cols, E);
    for (int row = 0; row < D; row++)
        for (int col = 0; col < E; col++)
            assert_true(element(&v->projector, row, col) ==
                        value_of("multi_modal_projector.mm_input_projection_weight", col * D + row));
}

static struct weights *open_good(const struct folder *folder, const struct model_config *config)
{
    struct weights *w;
    struct ward_error err = {0};
    if (weights_open(&w, folder->path, config, &err))
        fail_msg("%s", err.text);
    return w;
}

static void test_namings(void **state)
{
    (void)state;
    static const struct naming namings[] = {
        {"language_model.model.", NULL, "vision_tower.vision_model.", "multi_modal_projector."},
        {"model.language_model.", NULL, "model.vision_tower.vision_model.", "model.multi_modal_projector."},
        {"model.language_model.", NULL, "model.vision_tower.", "model.multi_modal_projector."},
        {"language_model.model.", NULL, "vision_tower.", "multi_modal_projector."},
        {"model.", NULL, NULL, NULL},
        {"language_model.model.", NULL, NULL, NULL},
        {"", NULL, NULL, NULL},
    };
    for (size_t i = 0; i < sizeof namings / sizeof *namings; i++) {
        struct folder folder;
        struct model_config config = make_config();
        folder_open(&folder);
        write_checkpoint(&folder, &namings[i], "BF16", NULL);
        if (!namings[i].vision)
            config.vision = (struct vision_config){0};
        struct weights *w = open_good(&folder, &config);
        check_text(&w->text);
        assert_ptr_equal(w->text.head.data, w->text.embed.data);
        if (namings[i].vision)
            check_vision(&w->vision);
        else
            assert_null(w->vision.layers);
        weights_close(&w);
        assert_null(w);
        folder_close(&folder);
    }
}

static void test_types(void **state)
{
    (void)state;
    static const struct {
        const char *dtype, *name;
    } types[] = {{"BF16", "bf16"}, {"F16", "f16"}, {"F32", "f32"}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct folder folder;
        const struct model_config config = make_config();
        folder_open(&folder);
        write_checkpoint(&folder, &google, types[i].dtype, NULL);
        struct weights *w = open_good(&folder, &config);
        check_text(&w->text);
        check_vision(&w->vision);
        assert_string_equal(tensor_type_name(w->type), types[i].name);
        assert_true(w->mapped_bytes > 1000);
        weights_close(&w);
        folder_close(&folder);
    }
}

/* Changes that leave a checkpoint that can be used. */
static void test_accepted_changes(void **state)
{
    (void)state;
    static const struct change changes[] = {
        {DTYPE, "language_model.model.layers.1.mlp.up_proj.weight", "F32", 0},
        {DTYPE, "language_model.model.layers.1.input_layernorm.weight", "F32", 0},
        {DTYPE, "multi_modal_projector.mm_input_projection_weight", "F16", 0},
        {RENAME, "language_model.model.norm.weight", "model.language_model.norm.weight", 0},
        {ADD, "language_model.model.norm.weight", "language_model.model.rotary_emb.inv_freq", 0},
        {ADD, "language_model.model.norm.weight", "language_model.model.layers.0.self_attn.rotary_emb.inv_freq", 0},
        {ADD, "language_model.model.norm.weight", "vision_tower.vision_model.embeddings.position_ids", 0},
        {ADD, "language_model.model.norm.weight", "vision_tower.vision_model.head.probe", 0},
        {ADD, "language_model.model.norm.weight", "vision_tower.head.attention.in_proj_weight", 0},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct folder folder;
        const struct model_config config = make_config();
        folder_open(&folder);
        write_checkpoint(&folder, &google, "BF16", &changes[i]);
        struct weights *w = open_good(&folder, &config);
        check_text(&w->text);
        check_vision(&w->vision);
        weights_close(&w);
        folder_close(&folder);
    }
}

static void test_head(void **state)
{
    (void)state;
    static const char *const names[] = {"lm_head.weight", "language_model.lm_head.weight"};
    for (size_t i = 0; i < 4; i++) {
        struct folder folder;
        struct model_config config = make_config();
        config.text.tied_embeddings = i & 1;
        folder_open(&folder);
        const struct change change = {ADD, "language_model.model.embed_tokens.weight", names[i / 2], 0};
        write_checkpoint(&folder, &google, "BF16", &change);
        struct weights *w = open_good(&folder, &config);
        check_matrix(&w->text.head, names[i / 2], V, D);
        assert_ptr_not_equal(w->text.head.data, w->text.embed.data);
        weights_close(&w);
        folder_close(&folder);
    }
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void expect_refusal(const struct change *change, const struct model_config *config, const char *expected)
{
    struct folder folder;
    struct weights *w;
    struct ward_error err = {0};
    folder_open(&folder);
    write_checkpoint(&folder, &google, "BF16", change);
    const int rc = weights_open(&w, folder.path, config, &err);
    if (!rc || rc != err.code || w || strncmp(err.text, folder.path, strlen(folder.path)) ||
        !strstr(err.text, expected))
        fail_msg("%s: %d, said \"%s\", expected \"%s\"", change ? change->at : "config", rc, err.text, expected);
    assert_int_equal(weights_open(&w, folder.path, config, NULL), rc);
    folder_close(&folder);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        struct change change;
        const char *expected;
    } cases[] = {
        {{DROP, "language_model.model.embed_tokens.weight", NULL, 0},
         ": tensor language_model.model.embed_tokens.weight is missing"},
        {{DROP, "language_model.model.layers.1.mlp.down_proj.weight", NULL, 0},
         ": tensor language_model.model.layers.1.mlp.down_proj.weight is missing"},
        {{DROP, "language_model.model.norm.weight", NULL, 0}, "norm.weight is missing"},
        {{DROP, "vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias", NULL, 0},
         ": tensor vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias is missing"},
        {{DROP, "multi_modal_projector.mm_input_projection_weight", NULL, 0},
         ": tensor multi_modal_projector.mm_input_projection_weight is missing"},
        {{RENAME, "language_model.model.norm.weight", "language_model.model.normal.weight", 0},
         "norm.weight is missing"},
        {{NONE, "language_model.model.embed_tokens.weight", NULL, V + 1},
         "/model.safetensors: tensor language_model.model.embed_tokens.weight has shape [11, 8], expected [10, 8]"},
        {{NONE, "language_model.model.layers.0.self_attn.q_norm.weight", NULL, 8},
         "self_attn.q_norm.weight has shape [8], expected [4]"},
        {{NONE, "vision_tower.vision_model.embeddings.patch_embedding.weight", NULL, 3},
         "patch_embedding.weight has shape [3, 3, 4, 4], expected [6, 3, 4, 4]"},
        {{NONE, "vision_tower.vision_model.embeddings.position_embedding.weight", NULL, 16},
         "has shape [16, 6], expected [4, 6]"},
        {{NONE, "multi_modal_projector.mm_input_projection_weight", NULL, 8}, "has shape [8, 8], expected [6, 8]"},
        {{DTYPE, "language_model.model.layers.0.mlp.up_proj.weight", "I16", 0},
         "/model.safetensors: tensor language_model.model.layers.0.mlp.up_proj.weight has dtype I16, expected BF16, "
         "F16 or F32"},
        {{DTYPE, "language_model.model.norm.weight", "U16", 0}, "has dtype U16, expected"},
        {{ADD, "language_model.model.norm.weight", "language_model.model.layers.2.input_layernorm.weight", 0},
         "tensor language_model.model.layers.2.input_layernorm.weight is not part of the model that config.json "
         "describes"},
        {{ADD, "language_model.model.norm.weight", "language_model.model.layers.0.mlp.up_proj.weight_scale", 0},
         "up_proj.weight_scale is not part of the model"},
        {{ADD, "language_model.model.norm.weight", "audio_tower.x", 0}, "audio_tower.x is not part of the model"},
        {{ADD, "language_model.model.norm.weight", "lm_head.bias", 0}, "lm_head.bias is not part of the model"},
        {{ADD, "language_model.model.norm.weight", "model.norm.weight", 0},
         "tensor model.norm.weight is the same as language_model.model.norm.weight"},
        {{ADD, "language_model.model.norm.weight", "lm_head.weight", 0},
         "tensor lm_head.weight has shape [8], expected [10, 8]"},
    };
    const struct model_config config = make_config();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal(&cases[i].change, &config, cases[i].expected);
}

/* A config that describes another model than the tensors. */
static void test_other_config(void **state)
{
    (void)state;
    struct model_config config = make_config();
    config.text.n_layers = 3;
    expect_refusal(NULL, &config, "layers.2.input_layernorm.weight is missing");
    config.text.n_layers = 1;
    expect_refusal(NULL, &config, "layers.1.input_layernorm.weight is not part of the model");
    config = make_config();
    config.text.tied_embeddings = false;
    expect_refusal(NULL, &config, "tensor lm_head.weight is missing");
    config = make_config();
    config.vision = (struct vision_config){0};
    expect_refusal(NULL, &config, "is not part of the model that config.json describes");
    config = make_config();
    config.text.n_kv_heads = 2;
    expect_refusal(NULL, &config, "self_attn.k_proj.weight has shape [4, 8], expected [8, 8]");
    struct weights *w;
    struct ward_error err = {0};
    assert_int_equal(weights_open(&w, "/nowhere", &config, &err), WARD_EIO);
    assert_null(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_namings), cmocka_unit_test(test_types),   cmocka_unit_test(test_accepted_changes),
        cmocka_unit_test(test_head),    cmocka_unit_test(test_refused), cmocka_unit_test(test_other_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
