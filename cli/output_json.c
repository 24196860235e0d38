#include "output_json.h"
#include "cli.h"
#include "lock.h"
#include "output.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

static void write_ids(struct json_writer *w, const char *key, const int32_t *ids, size_t n)
{
    json_write_open(w, key, '[');
    for (size_t i = 0; i < n; i++)
        json_write_integer(w, NULL, ids[i]);
    json_write_close(w, ']');
}

/* Leaves the object open when there is more to follow. */
static void open_logprob(struct json_writer *w, const struct ward_logprob *p)
{
    json_write_open(w, NULL, '{');
    json_write_integer(w, "id", p->id);
    json_write_number(w, "logprob", p->logprob, 6);
}

static void write_steps(struct json_writer *w, const struct answer *answer)
{
    json_write_open(w, "logprobs", '[');
    for (size_t i = 0; i < answer->n_steps; i++) {
        const struct answer_step *step = &answer->steps[i];
        open_logprob(w, &step->token);
        json_write_open(w, "top", '[');
        for (int k = 0; k < step->n_top; k++) {
            open_logprob(w, &step->top[k]);
            json_write_close(w, '}');
        }
        json_write_close(w, ']');
        json_write_close(w, '}');
    }
    json_write_close(w, ']');
}

static void write_timings(struct json_writer *w, const struct ward_result *r, const struct output_json_facts *facts)
{
    json_write_open(w, "timings", '{');
    json_write_number(w, "load_ms", facts->load_ms, 3);
    json_write_number(w, "image_ms", facts->decode_ms + r->image_ms, 3);
    json_write_number(w, "vision_ms", r->vision_ms, 3);
    json_write_integer(w, "cached_images", r->cached_images);
    json_write_integer(w, "prefill_tokens", r->prefill_tokens);
    json_write_number(w, "prefill_ms", r->prefill_ms, 3);
    json_write_integer(w, "decode_tokens", r->decode_tokens);
    json_write_number(w, "decode_ms", r->decode_ms, 3);
    json_write_integer(w, "drafted_tokens", r->drafted_tokens);
    json_write_integer(w, "accepted_tokens", r->accepted_tokens);
    json_write_number(w, "first_token_ms", facts->decode_ms + r->first_token_ms, 3);
    json_write_number(w, "total_ms", facts->load_ms + facts->decode_ms + r->total_ms, 3);
    json_write_close(w, '}');
}

/* The figures of /proc/self/status, in bytes; 0 where the kernel does not tell. */
static void write_memory(struct json_writer *w, const ward_model *model)
{
    static const struct { const char *line, *key; } figures[] = {
        {"VmHWM:", "peak_rss_bytes"}, {"RssAnon:", "anonymous_bytes"}, {"RssFile:", "mapped_bytes"},
    };
    enum { N = sizeof figures / sizeof figures[0] };
    long long kilobytes[N] = {0};
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    while (status && fgets(line, sizeof line, status))
        for (int i = 0; i < N; i++)
            if (strncmp(line, figures[i].line, strlen(figures[i].line)) == 0)
                sscanf(line + strlen(figures[i].line), "%lld", &kilobytes[i]);
    if (status)
        fclose(status);
    json_write_open(w, "memory", '{');
    for (int i = 0; i < N; i++)
        json_write_integer(w, figures[i].key, kilobytes[i] * 1024);
    size_t now, peak;
    ward_model_device_memory(model, &now, &peak);
    json_write_integer(w, "device_bytes", (int64_t)peak);
    json_write_close(w, '}');
}

static void write_card(struct json_writer *w, const struct output_json_facts *facts)
{
    struct nvml_state state;
    if (facts->card->meter)
        nvml_read(facts->card->meter, &state);
    card_facts_write_json(w, "card", facts->card);
    card_state_write_json(w, "card_state", facts->card->meter ? &state : NULL);
    json_write_number(w, "card_joules", facts->card_joules, 3);
}

void output_json(const struct answer *answer, const ward_model *model, const struct output_json_facts *facts)
{
    const struct ward_result *r = &answer->result;
    struct ward_model_info info;
    ward_model_get_info(model, &info);

    struct json_writer *w = json_writer_new(false);
    if (!w)
        die("out of memory");
    json_write_open(w, NULL, '{');
    json_write_string(w, "text", r->text, r->text_length);
    if (r->thinking)
        json_write_string(w, "thinking", r->thinking, r->thinking_length);
    else
        json_write_null(w, "thinking");
    write_ids(w, "prompt_ids", r->prompt_ids, r->n_prompt_ids);
    write_ids(w, "ids", r->ids, r->n_ids);
    json_write_text(w, "finish_reason", answer_finish_name(r->finish));
    write_steps(w, answer);
    write_timings(w, r, facts);
    write_memory(w, model);
    json_write_open(w, "model", '{');
    json_write_text(w, "path", facts->model_path);
    json_write_text(w, "type", info.type);
    json_write_text(w, "sha256", facts->model_sha256);
    if (info.not_for_clinical_use)
        json_write_boolean(w, "not_for_clinical_use", true);
    if (info.random_weights)
        json_write_boolean(w, "random_weights", true);
    json_write_close(w, '}');
    json_write_text(w, "device", info.device);
    if (info.device_name)
        json_write_text(w, "device_name", info.device_name);
    json_write_text(w, "kernels", info.kernels);
    if (facts->card)
        write_card(w, facts);
    lock_write_json(w);
    json_write_close(w, '}');
    output_json_line(&w);
}
