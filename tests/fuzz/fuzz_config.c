/* config.json, generation_config.json, preprocessor_config.json and processor_config.json. */
#include "fuzz.h"

#include "model/config.h"

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
    if (!rc) {
        fuzz_check_config(&config);
        REQUIRE(config.n_eos > 0);
    }
    fuzz_parts_free(&parts);
    return 0;
}
