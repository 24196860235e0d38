/* `ward run --json`: one object on standard output (docs/cli.md describes it). */
#ifndef WARD_CLI_OUTPUT_JSON_H
#define WARD_CLI_OUTPUT_JSON_H

#include "answer.h"

struct output_json_facts {
    const char *model_path; /* as the user gave it */
    const char *model_sha256; /* NULL: not known */
    double load_ms;         /* opening the checkpoint and the session */
    double decode_ms;       /* decoding images */
};

void output_json(const struct answer *answer, const ward_model *model, const struct output_json_facts *facts);

#endif
