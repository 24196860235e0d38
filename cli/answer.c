#include "answer.h"
#include "cli.h"
#include "interrupt.h"
#include "output.h"
#include "progress.h"
#include "use.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct stream {
    const struct answer_options *options;
    struct answer *answer;
    bool in_thinking; /* the thinking block is being shown */
    size_t n_text;    /* bytes of the answer written so far */
};

static void end_thinking(struct stream *s)
{
    if (!s->in_thinking)
        return;
    s->in_thinking = false;
    output_text(output_is_terminal() ? "\033[0m\n\n" : "\n\n");
}

static void write_token(struct stream *s, const struct ward_token *token)
{
    if (token->thinking && !s->options->show_thinking) {
        if (!s->n_text) /* else the line holds a part of the answer */
            progress_show("thinking", 0, 0);
        return;
    }
    if (!token->length)
        return;
    progress_clear();
    if (token->thinking && !s->in_thinking) {
        s->in_thinking = true;
        if (output_is_terminal())
            output_text("\033[2m");
    }
    if (!token->thinking) {
        end_thinking(s);
        s->n_text += token->length;
    }
    output_untrusted(token->text, token->length);
    output_flush();
}

static void keep_step(struct answer *answer, const struct ward_token *token)
{
    /* Grows by doubling: at every power of two. */
    if ((answer->n_steps & (answer->n_steps - 1)) == 0)
        answer->steps = must_realloc(answer->steps, answer->n_steps ? 2 * answer->n_steps : 1, sizeof *answer->steps);
    struct answer_step *step = &answer->steps[answer->n_steps++];
    *step = (struct answer_step){.token = {token->id, token->logprob}, .n_top = token->n_top};
    if (token->n_top) {
        step->top = must_realloc(NULL, (size_t)token->n_top, sizeof *step->top);
        memcpy(step->top, token->top, (size_t)token->n_top * sizeof *step->top);
    }
}

static int on_token(void *user, const struct ward_token *token)
{
    struct stream *s = user;
    if (s->options->stream)
        write_token(s, token);
    else
        keep_step(s->answer, token);
    return interrupt_pending();
}

static int on_progress(void *user, const char *stage, int done, int total)
{
    (void)user;
    progress_show(stage, strcmp(stage, "image") == 0 ? done + 1 : done, total);
    return interrupt_pending();
}

int answer_generate(ward_session *session, const struct conversation *conversation,
                    const struct answer_options *options, struct answer *out, struct ward_error *err)
{
    *out = (struct answer){0};
    struct stream stream = {.options = options, .answer = out};
    struct ward_generate_options generate = options->generate;
    generate.on_token = on_token;
    generate.on_progress = on_progress;
    generate.user = &stream;
    interrupt_catch(SIGINT);
    use_begin_answer(conversation, &generate);
    int rc = ward_generate(session, conversation->messages, conversation->n, &generate, &out->result, err);
    progress_clear();
    end_thinking(&stream);
    use_end_answer(rc ? NULL : &out->result, rc);
    if (rc) {
        answer_clear(out);
        return rc;
    }
    if (options->stream) {
        /* An answer cut short within a character ends with what no token completed. */
        if (out->result.finish == WARD_FINISH_CANCELLED && stream.n_text < out->result.text_length)
            output_untrusted(out->result.text + stream.n_text, out->result.text_length - stream.n_text);
        output_text("\n");
        output_flush();
    }
    return 0;
}

const char *answer_finish_name(enum ward_finish finish)
{
    switch (finish) {
    case WARD_FINISH_STOP: return "stop";
    case WARD_FINISH_LENGTH: return "length";
    case WARD_FINISH_CANCELLED: break;
    }
    return "cancelled";
}

void answer_clear(struct answer *answer)
{
    ward_result_clear(&answer->result);
    for (size_t i = 0; i < answer->n_steps; i++)
        free(answer->steps[i].top);
    free(answer->steps);
    *answer = (struct answer){0};
}

static double per_second(int tokens, double ms)
{
    return ms > 0 ? tokens * 1000.0 / ms : 0;
}

void answer_print_timings(const struct ward_result *r, double load_ms, double decode_ms)
{
    fprintf(stderr,
            "load %.0f ms | images %.0f ms, vision %.0f ms | prompt %d tokens (%d cached), %.0f ms, %.1f tokens/s | "
            "answer %zu tokens, %.0f ms, %.1f tokens/s\n",
            load_ms, decode_ms + r->image_ms, r->vision_ms, r->prefill_tokens, r->cached_tokens, r->prefill_ms,
            per_second(r->prefill_tokens, r->prefill_ms), r->n_ids, r->decode_ms,
            per_second(r->decode_tokens, r->decode_ms));
}
