/* config.json and its companions: every layout they have been written in, and every refusal with its sentence. */
#include "model/config.h"

#include "folder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int parse(struct model_config *out, const char *config, const char *generation, const char *preprocessor,
                 const char *processor, struct ward_error *err)
{
    const char *const texts[] = {config, generation, preprocessor, processor};
    static const char *const names[] = {"config.json", "generation_config.json", "preprocessor_config.json",
                                        "processor_config.json"};
    struct config_files files;
    struct config_file *const slots[] = {&files.config, &files.generation, &files.preprocessor, &files.processor};
    for (int i = 0; i < 4; i++)
        *slots[i] = (struct config_file){names[i], texts[i], texts[i] ? strlen(texts[i]) : 0};
    return config_parse(out, &files, err);
}

static struct model_config parse_good(const char *config, const char *generation, const char *preprocessor,
                                      const char *processor)
{
    struct model_config out;
    struct ward_error err = {0};
    if (parse(&out, config, generation, preprocessor, processor, &err))
        fail_msg("%s: %s", config, err.text);
    return out;
}

/* ---- layouts ----------------------------------------------------------------------------------------------------- */

#define BOLD "\"hidden_size\":2560,\"intermediate_size\":10240,\"num_hidden_layers\":34,\"sliding_window\":1024"
#define VISION                                                                                                         \
    "\"vision_config\":{\"hidden_size\":1152,\"image_size\":896,\"intermediate_size\":4304,"                           \
    "\"model_type\":\"siglip_vision_model\",\"num_attention_heads\":16,\"num_hidden_layers\":27,"                      \
    "\"patch_size\":14,\"vision_use_head\":false}"
#define TOP                                                                                                            \
    "\"architectures\":[\"Gemma3ForConditionalGeneration\"],\"boi_token_index\":255999,"                               \
    "\"eoi_token_index\":256000,\"image_token_index\":262144,\"mm_tokens_per_image\":256,"                             \
    "\"model_type\":\"gemma3\",\"eos_token_id\":[1,106],"
#define LINEAR "{\"factor\":8.0,\"rope_type\":\"linear\"}"
#define S5                                                                                                             \
    "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\","
#define G "\"full_attention\","
#define LAYERS                                                                                                         \
    "\"layer_types\":[" S5 G S5 G S5 G S5 G S5 G                                                                       \
    "\"sliding_attention\",\"sliding_attention\",\"sliding_attention\",\"sliding_attention\"]"

/* The 4B in the layouts of its time. */
static const char *const layouts[] = {
    /* short, as Gemma 3 4B was published */
    "{" TOP "\"initializer_range\":0.02,\"text_config\":{" BOLD ",\"model_type\":\"gemma3_text\","
    "\"rope_scaling\":" LINEAR "}," VISION ",\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.50.0.dev0\"}",
    /* flat, 4.51 */
    "{" TOP "\"text_config\":{" BOLD ",\"attention_bias\":false,\"attn_logit_softcapping\":null,"
    "\"final_logit_softcapping\":null,\"head_dim\":256,\"hidden_activation\":\"gelu_pytorch_tanh\","
    "\"max_position_embeddings\":131072,\"num_attention_heads\":8,\"num_key_value_heads\":4,"
    "\"query_pre_attn_scalar\":256,\"rms_norm_eps\":1e-06,\"rope_local_base_freq\":10000,\"rope_theta\":1000000,"
    "\"rope_scaling\":" LINEAR ",\"sliding_window_pattern\":6,\"use_cache\":true,\"vocab_size\":262208}," VISION "}",
    /* flat, 4.53 and later, with layer_types and the pattern under a private name; the older key of the type */
    "{" TOP "\"text_config\":{" BOLD ",\"_sliding_window_pattern\":6," LAYERS ",\"rope_local_base_freq\":10000.0,"
    "\"rope_theta\":1000000.0,\"rope_scaling\":{\"factor\":8,\"type\":\"linear\"}}," VISION ",\"dtype\":\"bfloat16\"}",
    /* hybrid, 4.57: nested types, flat frequencies */
    "{" TOP "\"text_config\":{" BOLD "," LAYERS ",\"rope_local_base_freq\":10000.0,\"rope_theta\":1000000.0,"
    "\"rope_scaling\":null,\"rope_parameters\":{\"full_attention\":" LINEAR ",\"sliding_attention\":"
    "{\"rope_type\":\"default\"}}}," VISION "}",
    /* transformers 5: everything nested, the pattern a leftover that layer_types overrides */
    "{" TOP "\"tie_word_embeddings\":true,\"text_config\":{" BOLD "," LAYERS ",\"_sliding_window_pattern\":7,"
    "\"sliding_window_pattern\":7,\"bos_token_id\":2,\"eos_token_id\":1,\"use_bidirectional_attention\":false,"
    "\"tie_word_embeddings\":true,\"rope_parameters\":{\"full_attention\":{\"factor\":8.0,\"rope_theta\":1000000,"
    "\"rope_type\":\"linear\"},\"sliding_attention\":{\"rope_theta\":10000,\"rope_type\":\"default\"}}}," VISION "}",
    /* token ids by their other names */
    "{\"model_type\":\"gemma3\",\"boi_token_id\":255999,\"eoi_token_id\":256000,\"image_token_id\":262144,"
    "\"eos_token_id\":[1,106],\"text_config\":{" BOLD ",\"rope_scaling\":" LINEAR "}," VISION "}",
};

static void check_4b_text(const struct text_config *t)
{
    assert_int_equal(t->hidden_size, 2560);
    assert_int_equal(t->intermediate_size, 10240);
    assert_int_equal(t->n_layers, 34);
    assert_int_equal(t->n_heads, 8);
    assert_int_equal(t->n_kv_heads, 4);
    assert_int_equal(t->head_dim, 256);
    assert_int_equal(t->vocab_size, 262208);
    assert_int_equal(t->sliding_window, 1024);
    assert_int_equal(t->max_positions, 131072);
    assert_true(t->query_pre_attn_scalar == 256);
    assert_true(t->rms_norm_eps == 1e-6);
    assert_true(t->final_softcap == 0);
    assert_true(t->tied_embeddings);
    assert_true(t->rope_global.theta == 1e6 && t->rope_global.factor == 8);
    assert_true(t->rope_sliding.theta == 1e4 && t->rope_sliding.factor == 1);
    for (int i = 0; i < 34; i++)
        assert_int_equal(t->global[i], i % 6 == 5);
}

static void test_layouts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const struct model_config c = parse_good(layouts[i], NULL, NULL, NULL);
        check_4b_text(&c.text);
        assert_int_equal(c.vision.hidden_size, 1152);
        assert_int_equal(c.vision.intermediate_size, 4304);
        assert_int_equal(c.vision.n_layers, 27);
        assert_int_equal(c.vision.n_heads, 16);
        assert_int_equal(c.vision.image_size, 896);
        assert_int_equal(c.vision.patch_size, 14);
        assert_int_equal(c.vision.n_channels, 3);
        assert_true(c.vision.layer_norm_eps == 1e-6);
        assert_int_equal(c.image_tokens, 256);
        assert_int_equal(c.image_token, 262144);
        assert_int_equal(c.n_eos, 2);
        assert_int_equal(c.eos[0], 1);
        assert_int_equal(c.eos[1], 106);
        for (int k = 0; k < 3; k++)
            assert_true(c.image.mean[k] == 0.5 && c.image.std[k] == 0.5);
        assert_true(c.image.rescale_factor == 1.0 / 255);
        assert_true(c.image.resize && c.image.rescale && c.image.normalize);
    }
}

static void test_text_only(void **state)
{
    (void)state;
    const struct model_config c =
        parse_good("{\"architectures\":[\"Gemma3ForCausalLM\"],\"model_type\":\"gemma3_text\"," BOLD
                   ",\"rope_scaling\":" LINEAR ",\"final_logit_softcapping\":30.0}",
                   NULL, "{\"resample\":3}", NULL);
    assert_int_equal(c.text.hidden_size, 2560);
    assert_int_equal(c.vision.n_layers, 0);
    assert_int_equal(c.image_tokens, 0);
    assert_int_equal(c.image_token, -1);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 1);
    assert_true(c.text.final_softcap == 30);
    assert_true(c.text.rope_global.factor == 8);
}

static void test_27b(void **state)
{
    (void)state;
    const struct model_config c = parse_good(
        "{" TOP "\"text_config\":{\"head_dim\":128,\"hidden_size\":5376,\"intermediate_size\":21504,"
        "\"model_type\":\"gemma3_text\",\"num_attention_heads\":32,\"num_hidden_layers\":62,\"num_key_value_heads\":16,"
        "\"query_pre_attn_scalar\":168,\"rope_scaling\":" LINEAR ",\"sliding_window\":1024}," VISION "}",
        NULL, NULL, NULL);
    assert_int_equal(c.text.n_heads, 32);
    assert_int_equal(c.text.n_kv_heads, 16);
    assert_int_equal(c.text.head_dim, 128);
    assert_true(c.text.query_pre_attn_scalar == 168);
    assert_true(c.text.global[59] && !c.text.global[61]);
}

/* ---- a small model, varied --------------------------------------------------------------------------------------- */

#define TEXT                                                                                                           \
    "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":4,\"sliding_window\":8,\"vocab_size\":300"
#define EYE                                                                                                            \
    "\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":2,\"num_attention_heads\":2,"                   \
    "\"image_size\":32,\"patch_size\":4"
#define HEAD "\"model_type\":\"gemma3\",\"image_token_index\":9,\"boi_token_index\":7,\"eoi_token_index\":8"
#define SMALL(head, text, eye)                                                                                         \
    "{" HEAD ",\"mm_tokens_per_image\":16" head ",\"text_config\":{" TEXT text "},"                                    \
    "\"vision_config\":{" EYE eye "}}"

static void check_pattern(const char *config, const char *expected)
{
    const struct model_config c = parse_good(config, NULL, NULL, NULL);
    for (int i = 0; i < 4; i++)
        assert_int_equal(c.text.global[i], expected[i] == 'g');
}

static void test_patterns(void **state)
{
    (void)state;
    check_pattern(SMALL("", "", ""), "ssss");
    check_pattern(SMALL("", ",\"sliding_window_pattern\":2", ""), "sgsg");
    check_pattern(SMALL("", ",\"_sliding_window_pattern\":3", ""), "ssgs");
    check_pattern(SMALL("", ",\"sliding_window_pattern\":4,\"_sliding_window_pattern\":6", ""), "sssg");
    check_pattern(SMALL("", ",\"sliding_window_pattern\":1", ""), "gggg");
    check_pattern(SMALL("", ",\"sliding_window_pattern\":null", ""), "ssss");
    check_pattern(SMALL("",
                        ",\"_sliding_window_pattern\":2,\"layer_types\":[\"full_attention\",\"sliding_attention\","
                        "\"sliding_attention\",\"full_attention\"]",
                        ""),
                  "gssg");
}

static void check_rope(const char *config, double theta, double factor, double local_theta, double local_factor)
{
    const struct model_config c = parse_good(config, NULL, NULL, NULL);
    assert_true(c.text.rope_global.theta == theta);
    assert_true(c.text.rope_global.factor == factor);
    assert_true(c.text.rope_sliding.theta == local_theta);
    assert_true(c.text.rope_sliding.factor == local_factor);
}

static void test_rope(void **state)
{
    (void)state;
    check_rope(SMALL("", "", ""), 1e6, 1, 1e4, 1);
    check_rope(SMALL("", ",\"rope_theta\":5e5,\"rope_local_base_freq\":20000.0", ""), 5e5, 1, 2e4, 1);
    check_rope(SMALL("", ",\"rope_scaling\":{\"rope_type\":\"default\"}", ""), 1e6, 1, 1e4, 1);
    check_rope(SMALL("", ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}", ""), 1e6, 2.5, 1e4, 1);
    check_rope(SMALL("", ",\"rope_parameters\":null", ""), 1e6, 1, 1e4, 1);
    check_rope(SMALL("", ",\"rope_parameters\":{}", ""), 1e6, 1, 1e4, 1);
    check_rope(SMALL("", ",\"rope_theta\":7,\"rope_parameters\":{\"full_attention\":{\"rope_theta\":3e6}}", ""), 3e6, 1,
               1e4, 1);
    check_rope(
        SMALL("",
              ",\"rope_parameters\":{\"sliding_attention\":{\"rope_theta\":77,\"rope_type\":\"linear\",\"factor\":2},"
              "\"full_attention\":null}",
              ""),
        1e6, 1, 77, 2);
    /* rope_scaling has the last word, as in convert_rope_params_to_dict */
    check_rope(SMALL("",
                     ",\"rope_scaling\":" LINEAR ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\","
                     "\"rope_theta\":5}}",
                     ""),
               5, 8, 1e4, 1);
}

static void test_tied(void **state)
{
    (void)state;
    assert_true(parse_good(SMALL("", "", ""), NULL, NULL, NULL).text.tied_embeddings);
    assert_false(parse_good(SMALL(",\"tie_word_embeddings\":false", "", ""), NULL, NULL, NULL).text.tied_embeddings);
    assert_false(parse_good(SMALL("", ",\"tie_word_embeddings\":false", ""), NULL, NULL, NULL).text.tied_embeddings);
    assert_true(
        parse_good(SMALL(",\"tie_word_embeddings\":true", ",\"tie_word_embeddings\":false", ""), NULL, NULL, NULL)
            .text.tied_embeddings);
}

static void check_eos(const char *config, const char *generation, int n, int first, int last)
{
    const struct model_config c = parse_good(config, generation, NULL, NULL);
    assert_int_equal(c.n_eos, n);
    assert_int_equal(c.eos[0], first);
    assert_int_equal(c.eos[n - 1], last);
}

static void test_eos(void **state)
{
    (void)state;
    const char *both = SMALL(",\"eos_token_id\":5", ",\"eos_token_id\":6,\"bos_token_id\":4", "");
    check_eos(SMALL("", "", ""), NULL, 1, 1, 1);
    check_eos(SMALL("", ",\"eos_token_id\":6", ""), NULL, 1, 6, 6);
    check_eos(both, NULL, 1, 5, 5);
    check_eos(both, "{}", 1, 5, 5);
    check_eos(both, "{\"eos_token_id\":null}", 1, 5, 5);
    check_eos(both, "{\"eos_token_id\":[1,106],\"bos_token_id\":3}", 2, 1, 106);
    check_eos(both, "{\"eos_token_id\":999999}", 1, 999999, 999999);
}

static void test_preprocessor(void **state)
{
    (void)state;
    const char *small = SMALL("", "", "");
    const char *flat = "{\"do_convert_rgb\":null,\"do_normalize\":false,\"do_pan_and_scan\":null,\"do_rescale\":false,"
                       "\"do_resize\":false,\"image_mean\":[0.1,0.2,0.3],\"image_std\":[1,2,3],"
                       "\"image_processor_type\":\"Gemma3ImageProcessorFast\",\"image_seq_length\":16,\"resample\":2,"
                       "\"rescale_factor\":0.5,\"size\":{\"height\":32,\"width\":32}}";
    struct model_config c = parse_good(small, NULL, flat, "{\"image_seq_length\":16}");
    assert_false(c.image.resize || c.image.rescale || c.image.normalize);
    assert_true(c.image.mean[0] == 0.1 && c.image.mean[2] == 0.3 && c.image.std[2] == 3);
    assert_true(c.image.rescale_factor == 0.5);
    /* nested, as transformers 5 saves it: preprocessor_config.json is then not read */
    c = parse_good(small, NULL, flat,
                   "{\"image_processor\":{\"size\":{\"height\":32,\"width\":32}},\"image_seq_length\":16}");
    assert_true(c.image.resize && c.image.rescale && c.image.normalize);
    assert_true(c.image.mean[0] == 0.5);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

struct refusal {
    const char *text, *expected;
};

static void check_refusals(const struct refusal *cases, size_t n, int file)
{
    for (size_t i = 0; i < n; i++) {
        const char *texts[4] = {SMALL("", "", ""), NULL, NULL, NULL};
        texts[file] = cases[i].text;
        struct model_config out;
        struct ward_error err = {0};
        const int rc = parse(&out, texts[0], texts[1], texts[2], texts[3], &err);
        if (!rc || rc != err.code || !strstr(err.text, cases[i].expected))
            fail_msg("%s: %d, said \"%s\", expected \"%s\"", cases[i].text, rc, err.text, cases[i].expected);
        assert_int_equal(parse(&out, texts[0], texts[1], texts[2], texts[3], NULL), rc);
    }
}

#define CHECK_REFUSALS(cases, file) check_refusals(cases, sizeof(cases) / sizeof *(cases), file)

static void test_refused(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {"", "config.json: is empty"},
        {"[]", "config.json: is not a JSON object"},
        {"{", "config.json: line 1: is not valid JSON"},
        {"{}", "config.json: model_type is missing"},
        {"{\"model_type\":\"qwen2\"}",
         "config.json: model_type: found \"qwen2\", expected \"gemma3\" or \"gemma3_text\""},
        {"{\"model_type\":3}", "model_type: found 3, expected"},
        {"{\"model_type\":\"gemma3\",\"model_type\":\"gemma3\"}", "\"model_type\" is given twice"},
        {SMALL(",\"architectures\":[\"Gemma3ForSequenceClassification\"]", "", ""),
         "architectures is \"Gemma3ForSequenceClassification\", expected Gemma3ForConditionalGeneration"},
        {SMALL(",\"architectures\":\"Gemma3ForCausalLM\"", "", ""), "architectures is \"Gemma3ForCausalLM\""},
        {SMALL(",\"quantization_config\":{\"bits\":4}", "", ""),
         "config.json: quantization_config is an object, expected none"},
        {SMALL("", ",\"quantization_config\":{}", ""), "text_config.quantization_config is an object"},
        {"{" HEAD ",\"text_config\":[],\"vision_config\":{" EYE "}}", "text_config is a list, expected an object"},
        {"{" HEAD ",\"vision_config\":{" EYE "}}", "text_config.hidden_size is missing"},
        {"{" HEAD ",\"text_config\":{" TEXT "}}", "vision_config is missing"},
        {"{" HEAD ",\"text_config\":{" TEXT "},\"vision_config\":7}", "vision_config is 7, expected an object"},
        {"{\"model_type\":\"gemma3_text\"}", "config.json: hidden_size is missing"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":64}", "intermediate_size is missing"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":64,\"intermediate_size\":64}",
         "num_hidden_layers is missing"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":64,\"intermediate_size\":64,\"num_hidden_layers\":2}",
         "sliding_window is missing"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":64,\"intermediate_size\":64,\"num_hidden_layers\":2,"
         "\"sliding_window\":null}",
         "sliding_window is missing"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":\"64\"}",
         "hidden_size is \"64\", expected a whole number from 1 to 65536"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":0}", "hidden_size is 0, expected"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":64.5}", "hidden_size is 64.5, expected"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":1e400}", "hidden_size is 1e400, expected"},
        {"{\"model_type\":\"gemma3_text\",\"hidden_size\":NaN}", "is not valid JSON"},
        {SMALL("", ",\"num_attention_heads\":-1", ""), "text_config.num_attention_heads is -1, expected"},
        {SMALL("", ",\"num_attention_heads\":6", ""), "text_config.num_attention_heads is 6, expected a multiple of"},
        {SMALL("", ",\"num_key_value_heads\":3", ""), "a multiple of num_key_value_heads"},
        {SMALL("", ",\"head_dim\":15", ""), "text_config.head_dim is 15, expected an even number"},
        {SMALL("", ",\"max_position_embeddings\":0", ""), "max_position_embeddings is 0"},
        {SMALL("", ",\"query_pre_attn_scalar\":0", ""), "query_pre_attn_scalar is 0, expected a number above 0"},
        {SMALL("", ",\"rms_norm_eps\":-1e-6", ""), "rms_norm_eps is -1e-6, expected a number above 0"},
        {SMALL("", ",\"rms_norm_eps\":\"small\"", ""), "rms_norm_eps is \"small\""},
        {SMALL("", ",\"hidden_activation\":\"silu\"", ""),
         "hidden_activation is \"silu\", expected \"gelu_pytorch_tanh\""},
        {SMALL("", ",\"hidden_act\":\"gelu\"", ""), "text_config.hidden_act is \"gelu\""},
        {SMALL("", ",\"attention_bias\":true", ""), "attention_bias is true, expected false"},
        {SMALL("", ",\"use_bidirectional_attention\":true", ""), "use_bidirectional_attention is true, expected false"},
        {SMALL("", ",\"attn_logit_softcapping\":50.0", ""), "attn_logit_softcapping is 50.0, expected none"},
        {SMALL("", ",\"final_logit_softcapping\":30.0", ""), "final_logit_softcapping is 30.0, expected none"},
        {SMALL("", ",\"per_layer_config\":{}", ""), "per_layer_config is an object, expected none"},
        {SMALL("", ",\"model_type\":\"gemma3n_text\"", ""),
         "text_config.model_type is \"gemma3n_text\", expected \"gemma3_text\""},
        {SMALL("", ",\"layer_types\":[\"full_attention\"]", ""), "layer_types is a list, expected a list of 4 layers"},
        {SMALL("", ",\"layer_types\":\"full_attention\"", ""), "layer_types is \"full_attention\", expected a list"},
        {SMALL("", ",\"layer_types\":[\"full_attention\",\"chunked_attention\",1,2]", ""),
         "layer_types is \"chunked_attention\""},
        {SMALL("", ",\"layer_types\":[\"full_attention\",\"full_attention\",1,2]", ""), "layer_types is 1, expected"},
        {SMALL("", ",\"sliding_window_pattern\":0", ""), "sliding_window_pattern is 0, expected"},
        {SMALL("", ",\"sliding_window_pattern\":\"LLG\"", ""), "sliding_window_pattern is \"LLG\""},
        {SMALL("", ",\"rope_theta\":0", ""), "text_config.rope_theta is 0"},
        {SMALL("", ",\"rope_scaling\":8", ""), "text_config.rope_scaling is 8, expected an object"},
        {SMALL("", ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8}", ""),
         "text_config.rope_scaling.rope_type is \"yarn\", expected \"default\" or \"linear\""},
        {SMALL("", ",\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":8}", ""), "rope_scaling.type is \"dynamic\""},
        {SMALL("", ",\"rope_scaling\":{\"rope_type\":\"linear\"}", ""), "rope_scaling.factor is missing"},
        {SMALL("", ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}", ""), "rope_scaling.factor is 0"},
        {SMALL("", ",\"rope_scaling\":{\"factor\":8}", ""), "rope_scaling.factor is 8, expected a rope_type"},
        {SMALL("", ",\"rope_parameters\":[]", ""), "text_config.rope_parameters is a list, expected an object"},
        {SMALL("", ",\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":8}", ""),
         "text_config.rope_parameters is an object, expected full_attention and sliding_attention in it"},
        {SMALL("", ",\"rope_parameters\":{\"full_attention\":1}", ""),
         "rope_parameters.full_attention is 1, expected an object"},
        {SMALL("", ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"llama3\"}}", ""),
         "text_config.rope_parameters.full_attention.rope_type is \"llama3\""},
        {SMALL("", ",\"rope_parameters\":{\"sliding_attention\":{\"partial_rotary_factor\":0.5}}", ""),
         "rope_parameters.sliding_attention.partial_rotary_factor is 0.5, expected 1"},
        {SMALL("", ",\"partial_rotary_factor\":0.5", ""), "text_config.partial_rotary_factor is 0.5, expected 1"},
        {SMALL("", "", ",\"num_attention_heads\":5"), "num_attention_heads"},
        {SMALL("", "", ",\"num_channels\":1"), "num_channels is 1, expected a whole number from 3 to 3"},
        {SMALL("", "", ",\"hidden_act\":\"quick_gelu\""), "vision_config.hidden_act is \"quick_gelu\""},
        {SMALL("", "", ",\"model_type\":\"clip_vision_model\""), "vision_config.model_type is \"clip_vision_model\""},
        {SMALL("", "", ",\"layer_norm_eps\":null,\"quantization_config\":1"), "vision_config.quantization_config is 1"},
        {SMALL(",\"tie_word_embeddings\":1", "", ""), "tie_word_embeddings is 1, expected true or false"},
        {SMALL(",\"eos_token_id\":[]", "", ""), "config.json: eos_token_id is a list, expected a token id"},
        {SMALL(",\"eos_token_id\":\"1\"", "", ""), "eos_token_id is \"1\", expected a token id"},
        {SMALL(",\"eos_token_id\":[1,-1]", "", ""), "eos_token_id is -1, expected"},
        {SMALL(",\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "", ""), "eos_token_id is a list"},
    };
    CHECK_REFUSALS(cases, 0);
}

static void test_refused_images(void **state)
{
    (void)state;
#define IMAGE(head, eye)                                                                                               \
    "{\"model_type\":\"gemma3\"" head ",\"text_config\":{" TEXT "},\"vision_config\":{\"num_attention_heads\":4" eye   \
    "}}"
    static const struct refusal configs[] = {
        {IMAGE("", ",\"hidden_size\":33"), "vision_config: hidden_size is not a multiple of num_attention_heads"},
        {IMAGE("", ",\"image_size\":30,\"patch_size\":4"), "vision_config: image_size is not a multiple of patch_size"},
        {IMAGE("", ",\"image_size\":16384,\"patch_size\":1"), "vision_config: an image has more than 65536 patches"},
        {IMAGE("", ",\"image_size\":[32,32]"), "vision_config.image_size is a list"},
        {IMAGE(",\"image_token_index\":-1", ""),
         "image_token_index is -1, expected a whole number from 0 to 2147483647"},
        {"{" HEAD ",\"mm_tokens_per_image\":15,\"text_config\":{" TEXT "},\"vision_config\":{" EYE "}}",
         "mm_tokens_per_image is 15, expected a square whose root divides the 8 patches of a side"},
        {"{" HEAD ",\"mm_tokens_per_image\":9,\"text_config\":{" TEXT "},\"vision_config\":{" EYE "}}",
         "mm_tokens_per_image is 9, expected"},
        {"{" HEAD ",\"mm_tokens_per_image\":0,\"text_config\":{" TEXT "},\"vision_config\":{" EYE "}}",
         "mm_tokens_per_image is 0, expected"},
    };
    CHECK_REFUSALS(configs, 0);
#define SIZE "\"size\":{\"height\":32,\"width\":32}"
    static const struct refusal preprocessors[] = {
        {"{", "preprocessor_config.json: line 1: is not valid JSON"},
        {"3", "preprocessor_config.json: is not a JSON object"},
        {"{}", "preprocessor_config.json: size is not the encoder's image_size, 32 x 32"},
        {"{\"size\":{\"height\":32,\"width\":31}}", "size is not the encoder's image_size"},
        {"{\"size\":{\"shortest_edge\":32}}", "size is not the encoder's image_size"},
        {"{" SIZE ",\"resample\":3}", "resample is 3, expected 2 (bilinear)"},
        {"{" SIZE ",\"do_pan_and_scan\":true}", "do_pan_and_scan is true, expected false"},
        {"{" SIZE ",\"do_center_crop\":true}", "do_center_crop is true, expected false"},
        {"{" SIZE ",\"do_resize\":1}", "do_resize is 1, expected true or false"},
        {"{" SIZE ",\"do_convert_rgb\":\"yes\"}", "do_convert_rgb is \"yes\""},
        {"{" SIZE ",\"image_mean\":0.5}", "image_mean is 0.5, expected three numbers"},
        {"{" SIZE ",\"image_mean\":[0.5,0.5]}", "image_mean is a list, expected three numbers"},
        {"{" SIZE ",\"image_mean\":[0.5,0.5,\"x\"]}", "image_mean is a list, expected three numbers"},
        {"{" SIZE ",\"image_std\":[0.5,0,0.5]}", "image_std is a list, expected three numbers above 0"},
        {"{" SIZE ",\"rescale_factor\":0}", "rescale_factor is 0"},
        {"{" SIZE ",\"image_processor_type\":\"SiglipImageProcessor\"}",
         "image_processor_type is \"SiglipImageProcessor\""},
        {"{" SIZE ",\"image_seq_length\":256}", "preprocessor_config.json: image_seq_length is 256, expected 16"},
    };
    CHECK_REFUSALS(preprocessors, 2);
    static const struct refusal processors[] = {
        {"{\"image_seq_length\":256}", "processor_config.json: image_seq_length is 256, expected 16"},
        {"{\"image_processor\":3}", "processor_config.json: image_processor is 3, expected an object"},
        {"{\"image_processor\":{}}", "processor_config.json: image_processor.size is not the encoder's image_size"},
        {"{\"image_processor\":{" SIZE ",\"resample\":0}}", "processor_config.json: image_processor.resample is 0"},
    };
    CHECK_REFUSALS(processors, 3);
    static const struct refusal generations[] = {
        {"{\"eos_token_id\":[]}", "generation_config.json: eos_token_id is a list"},
        {"[1]", "generation_config.json: is not a JSON object"},
    };
    CHECK_REFUSALS(generations, 1);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void test_folder(void **state)
{
    (void)state;
    struct folder folder;
    struct model_config c;
    struct ward_error err = {0};
    folder_open(&folder);
    assert_int_equal(config_read(&c, folder.path, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "/config.json: cannot be opened"));
    folder_write_text(&folder, "config.json", layouts[0]);
    assert_int_equal(config_read(&c, folder.path, &err), 0);
    assert_int_equal(c.n_eos, 2);
    folder_write_text(&folder, "generation_config.json", "{\"eos_token_id\":106}");
    folder_write_text(&folder, "preprocessor_config.json",
                      "{\"size\":{\"height\":896,\"width\":896},\"do_normalize\":false}");
    folder_write_text(&folder, "processor_config.json", "{\"image_seq_length\":256}");
    assert_int_equal(config_read(&c, folder.path, &err), 0);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 106);
    assert_false(c.image.normalize);
    folder_write_text(&folder, "processor_config.json", "{\"image_seq_length\":255}");
    assert_int_equal(config_read(&c, folder.path, &err), WARD_EFORMAT);
    assert_non_null(strstr(err.text, "/processor_config.json: image_seq_length is 255"));
    folder_close(&folder);
}

/* Bytes replaced at random: refused or read, never a crash. */
static void test_mutated(void **state)
{
    (void)state;
    uint32_t random = 12345;
    for (int round = 0; round < 20000; round++) {
        char text[4096];
        strcpy(text, layouts[round % (sizeof layouts / sizeof *layouts)]);
        for (int i = 0; i < 1 + round % 3; i++) {
            random = random * 1664525 + 1013904223;
            text[(random >> 8) % strlen(text)] = "0123456789,:{}[]\"-.eEx"[random % 22];
        }
        struct model_config c;
        if (!parse(&c, text, NULL, NULL, NULL, NULL)) {
            assert_true(c.text.n_layers > 0 && c.text.n_layers <= CONFIG_MAX_LAYERS &&
                        c.text.n_heads % c.text.n_kv_heads == 0);
            assert_true(c.n_eos > 0 && c.n_eos <= CONFIG_MAX_EOS);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_text_only),
        cmocka_unit_test(test_27b),     cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_rope),    cmocka_unit_test(test_tied),
        cmocka_unit_test(test_eos),     cmocka_unit_test(test_preprocessor),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_refused_images),
        cmocka_unit_test(test_folder),  cmocka_unit_test(test_mutated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
