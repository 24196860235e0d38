/* `ward run --json`: one object on standard output (docs/cli.md describes it). */
#ifndef WARD_CLI_OUTPUT_JSON_H
#define WARD_CLI_OUTPUT_JSON_H

#include "answer.h"

#include "bench/card_facts.h"

struct output_json_facts {
    const char *model_path; /* as the user gave it */
    const char *model_sha256; /* NULL: not known */
    double load_ms;         /* opening the checkpoint and the session */
    double decode_ms;       /* decoding images */
    const struct card_facts *card; /* that computed; NULL: the processor */
    double card_joules;     /* that it took for the answer; NAN: not told */
};

void output_json(const struct answer *answer, const ward_model *model, const struct output_json_facts *facts);

#endif
