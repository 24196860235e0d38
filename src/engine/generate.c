/* The loop that turns a conversation into an answer, token by token. */
#include "base/clock.h"
#include "engine/session.h"

#include <stdlib.h>
#include <string.h>

/* The answer as it is streamed. MedGemma 1.5 thinks between two tokens, under the heading "thought" and a newline,
 * which is not part of the thought. */
struct answer {
    const struct ward_model *model;
    struct decoder decoder;
    const char *piece; /* the text that the last token completed */
    size_t length;     /* of piece */
    bool thinking;     /* inside the block */
    bool of_thinking;  /* the piece belongs into the block; a mark completes what came before it */
};

static const char THOUGHT_HEADING[] = "thought\n";

/* A token that begins or ends thinking. */
static bool is_mark(const struct chat_template *chat, int32_t id)
{
    return chat->thinking && (id == chat->thinking_start || id == chat->thinking_end);
}

/* Takes a token; with the last one comes what the decoder still holds back. */
static void answer_push(struct answer *a, int32_t id, bool last)
{
    a->of_thinking = a->thinking;
    if (is_mark(&a->model->checkpoint.chat, id)) {
        a->piece = decoder_finish(&a->decoder, &a->length);
        a->thinking = id == a->model->checkpoint.chat.thinking_start;
    } else {
        a->piece = decoder_push(&a->decoder, id, &a->length);
    }
    if (last && a->length == 0)
        a->piece = decoder_finish(&a->decoder, &a->length);
}

/* The text of the generated tokens inside or outside of thinking; NULL for thinking that there was none of. */
static int answer_text(const struct ward_model *m, const struct ward_result *result, bool thoughts, char **text,
                       size_t *length, struct ward_error *err)
{
    int32_t *ids = malloc((result->n_ids + 1) * sizeof *ids);
    if (!ids)
        return error_no_memory(err, "the answer", (result->n_ids + 1) * sizeof *ids);
    size_t n = 0;
    bool thinking = false, found = !thoughts;
    for (size_t i = 0; i < result->n_ids; i++) {
        if (is_mark(&m->checkpoint.chat, result->ids[i])) {
            thinking = result->ids[i] == m->checkpoint.chat.thinking_start;
            found |= thinking;
        } else if (thinking == thoughts) {
            ids[n++] = result->ids[i];
        }
    }
    const int rc = found ? tokenizer_decode(m->checkpoint.tokenizer, ids, n, false, text, length, err) : 0;
    const size_t heading = sizeof THOUGHT_HEADING - 1;
    if (!rc && found && thoughts && *length >= heading && memcmp(*text, THOUGHT_HEADING, heading) == 0) {
        *length -= heading;
        memmove(*text, *text + heading, *length + 1);
    }
    free(ids);
    return rc;
}

static bool is_stop(const struct model_config *config, int32_t id)
{
    for (int i = 0; i < config->n_eos; i++)
        if (config->eos[i] == id)
            return true;
    return false;
}

/* The next token. */
static int32_t choose(struct ward_session *s)
{
    if (s->choice.id < 0)
        return sample_token(&s->sampler, s->logits, &s->sampling);
    if (s->sampling.temperature > 0)
        sample_advance(&s->sampler);
    return s->choice.id;
}

/* Tells the caller of a token and what it adds; returns nonzero when the caller wants to stop. */
static int tell(struct ward_session *s, const struct answer *a, const struct ward_generate_options *o, int32_t id)
{
    if (!o->on_token)
        return 0;
    const bool chosen = s->choice.id >= 0;
    const double log_sum =
        chosen ? s->choice.log_sum : sample_log_sum(s->logits, s->model->checkpoint.config.text.vocab_size);
    if (o->logprobs)
        sample_top(&s->sampler, s->logits, log_sum, o->logprobs, s->top);
    const struct ward_token token = {
        .id = id,
        .text = a->piece,
        .length = a->length,
        .thinking = a->of_thinking,
        .logprob = (float)((double)(chosen ? s->choice.logit : s->logits[id]) - log_sum),
        .top = s->top,
        .n_top = o->logprobs,
    };
    return o->on_token(o->user, &token);
}

/* Generates until a stop token, max_tokens, the end of the context, or the caller's wish. */
static int decode(struct ward_session *s, struct answer *a, const struct ward_generate_options *o,
                  struct ward_result *result, int max_tokens, double start, struct ward_error *err)
{
    /* An observer sees each position once. Random weights go round in circles, where every guess is right: they would
     * be measured faster than the weights that they stand for. */
    const bool wanted = o->draft_max > 0 || (o->draft_max == 0 && !s->model->checkpoint.config.random_weights);
    const int draft_most = !wanted || s->observer.fn ? 0 : o->draft_max ? o->draft_max : DRAFT_MOST;
    double first = 0;
    for (;;) {
        const int32_t id = choose(s);
        result->ids[result->n_ids++] = id;
        const bool stop = !o->ignore_eos && is_stop(&s->model->checkpoint.config, id);
        const bool last = stop || result->n_ids == (size_t)max_tokens || s->n_held == s->context;
        answer_push(a, id, last);
        const int cancelled = tell(s, a, o, id);
        if (result->n_ids == 1) {
            first = clock_ms();
            result->first_token_ms = first - start;
        }
        if (last || cancelled) {
            result->finish = cancelled ? WARD_FINISH_CANCELLED : stop ? WARD_FINISH_STOP : WARD_FINISH_LENGTH;
            break;
        }
        const int room = max_tokens - (int)result->n_ids - 1;
        int drafted;
        const int rc = session_step(s, id, room < draft_most ? room : draft_most, o->draft_max > 0, &drafted, err);
        if (rc)
            return rc;
        result->drafted_tokens += drafted;
        result->accepted_tokens += s->row > 0;
    }
    result->decode_tokens = (int)result->n_ids - 1;
    result->decode_ms = clock_ms() - first;
    return 0;
}

static int check_options(const struct ward_generate_options *o, int vocab, struct ward_error *err)
{
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return error_set(err, WARD_EINVAL, "a temperature of %g was asked for; expected 0 to 100",
                         (double)o->temperature);
    if (o->max_tokens < 0 || o->top_k < 0 || !(o->top_p >= 0 && o->top_p <= 1) || !(o->min_p >= 0 && o->min_p <= 1))
        return error_set(err, WARD_EINVAL,
                         "max_tokens and top_k must not be negative, top_p and min_p lie between 0 and 1");
    if (o->draft_max < -1 || o->draft_max > DRAFT_MOST)
        return error_set(err, WARD_EINVAL, "drafts of %d tokens were asked for; expected -1 to %d", o->draft_max,
                         DRAFT_MOST);
    if (o->logprobs < 0 || o->logprobs > vocab)
        return error_set(err, WARD_EINVAL, "%d log-probabilities were asked for; expected 0 to %d", o->logprobs, vocab);
    return 0;
}

static int reserve(struct ward_session *s, const struct ward_generate_options *o, struct answer *a,
                   struct ward_result *result, int max_tokens, struct ward_error *err)
{
    const int rc = decoder_open(&a->decoder, s->model->checkpoint.tokenizer, (size_t)max_tokens, false, err);
    if (rc)
        return rc;
    result->ids = malloc((size_t)max_tokens * sizeof *result->ids);
    if (o->logprobs > s->top_capacity) {
        free(s->top);
        s->top = malloc((size_t)o->logprobs * sizeof *s->top);
        s->top_capacity = s->top ? o->logprobs : 0;
    }
    if (!result->ids || (o->logprobs && !s->top))
        return error_no_memory(err, "the answer", (size_t)max_tokens * sizeof *result->ids);
    return 0;
}

int ward_generate(ward_session *s, const struct ward_message *messages, size_t n_messages,
                  const struct ward_generate_options *options, struct ward_result *result, struct ward_error *err)
{
    enum { DEFAULT_MAX_TOKENS = 200 };
    static const struct ward_generate_options defaults;
    const struct ward_generate_options *o = options ? options : &defaults;
    const double start = clock_ms();
    *result = (struct ward_result){0};
    int rc = check_options(o, s->model->checkpoint.config.text.vocab_size, err);
    if (rc)
        return rc;
    struct prompt prompt;
    rc = prompt_build(&prompt, s->model, messages, n_messages, err);
    if (rc)
        return rc;

    struct answer answer = {.model = s->model};
    int max_tokens = o->max_tokens ? o->max_tokens : DEFAULT_MAX_TOKENS;
    max_tokens = max_tokens < s->context ? max_tokens : s->context;
    rc = reserve(s, o, &answer, result, max_tokens, err);
    struct prefill_report report;
    s->choose = s->model->backend->ops->choose && o->logprobs == 0;
    s->sampling = (struct sampler_options){o->temperature, o->top_k, o->top_p, o->min_p};
    sampler_seed(&s->sampler, o->seed);
    if (!rc)
        rc = session_prefill(s, &prompt, o, &report, err);
    if (!rc) {
        result->prefill_tokens = report.computed_tokens;
        result->cached_tokens = report.cached_tokens;
        result->cached_images = report.cached_images;
        result->image_ms = report.image_ms;
        result->vision_ms = report.vision_ms;
        result->prefill_ms = report.prefill_ms;
        rc = decode(s, &answer, o, result, max_tokens, start, err);
    }
    if (!rc) {
        result->prompt_ids = prompt.ids.at;
        result->n_prompt_ids = prompt.ids.n;
        prompt.ids = (struct ids){0};
        result->total_ms = clock_ms() - start;
        rc = answer_text(s->model, result, false, &result->text, &result->text_length, err);
    }
    if (!rc)
        rc = answer_text(s->model, result, true, &result->thinking, &result->thinking_length, err);
    prompt_clear(&prompt);
    decoder_close(&answer.decoder);
    if (rc)
        ward_result_clear(result);
    return rc;
}

void ward_result_clear(struct ward_result *result)
{
    free(result->text);
    free(result->thinking);
    free(result->prompt_ids);
    free(result->ids);
    *result = (struct ward_result){0};
}
