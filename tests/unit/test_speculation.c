/* Speculation by prompt lookup: several rows in one step give what each gives alone, answers do not depend on drafts,
 * and drafts that fail cost little. Run from the root of the repository. */
#include "engine/session.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODELS "tests/vectors/models/"
#define FILM "tests/vectors/films/square56.png"

enum { MAX_TOKENS = 200, TOP = 3 };

static ward_model *open_model(const char *name, const char *mask)
{
    char path[256];
    snprintf(path, sizeof path, MODELS "%s", name);
    struct ward_error err = {0};
    ward_model *model;
    const struct ward_model_options options = {.threads = 2, .cpu_mask = mask, .device = "cpu"};
    if (ward_model_open(&model, path, &options, &err))
        fail_msg("%s", err.text);
    return model;
}

static ward_session *open_session(const ward_model *model, int context)
{
    ward_session *session;
    struct ward_error err = {0};
    if (ward_session_open(&session, model, &(struct ward_session_options){.context = context}, &err))
        fail_msg("%s", err.text);
    return session;
}

static ward_image *open_film(void)
{
    struct ward_error err = {0};
    ward_image *image;
    if (ward_image_open(&image, FILM, NULL, NULL, &err))
        fail_msg("%s", err.text);
    return image;
}

struct answer {
    struct ward_logprob tokens[MAX_TOKENS], top[MAX_TOKENS][TOP];
    int n, stop_after;
    struct ward_result result;
};

static int record(void *user, const struct ward_token *token)
{
    struct answer *a = user;
    a->tokens[a->n] = (struct ward_logprob){token->id, token->logprob};
    memcpy(a->top[a->n++], token->top, sizeof a->top[0]);
    return a->n == a->stop_after;
}

static void ask(ward_session *session, const struct ward_part *parts, size_t n_parts, struct ward_generate_options o,
                struct answer *out)
{
    struct ward_error err = {0};
    *out = (struct answer){.stop_after = out->stop_after};
    o.max_tokens = o.max_tokens ? o.max_tokens : MAX_TOKENS;
    o.logprobs = TOP;
    o.on_token = record;
    o.user = out;
    if (ward_generate(session, &(struct ward_message){"user", parts, n_parts}, 1, &o, &out->result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(out->result.n_ids, out->n);
    assert_true(out->result.accepted_tokens <= out->result.drafted_tokens);
    ward_result_clear(&(struct ward_result){.text = out->result.text,
                                            .thinking = out->result.thinking,
                                            .prompt_ids = out->result.prompt_ids,
                                            .ids = out->result.ids});
}

static void assert_same(const struct answer *a, const struct answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->result.finish, b->result.finish);
    assert_int_equal(a->result.cached_tokens, b->result.cached_tokens);
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->top, b->top, sizeof a->top);
}

/* Positions after a prompt with an image, in steps of one row and of several, over the end of the rings. */
static void rows_together_are_rows_alone(void **state)
{
    (void)state;
    static const char *const names[] = {"window", "flat", "hybrid", "f16", "f32"};
    static const char *const masks[] = {"none", "avx2", NULL};
    ward_image *film = open_film();
    char text[8192] = "";
    for (int i = 0; i < 120; i++)
        strcat(text, "The lungs are clear. ");
    const struct ward_part parts[] = {{.image = film}, {.text = text}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t m = 0; m < sizeof masks / sizeof *masks; m++) {
            ward_model *model = open_model(names[i], masks[m]);
            const size_t width = (size_t)model->checkpoint.config.text.hidden_size, vocab = (size_t)model->checkpoint.config.text.vocab_size;
            struct answer answer = {0};
            ward_session *alone = open_session(model, 0), *together = open_session(model, 0);
            ask(alone, parts, 2, (struct ward_generate_options){.max_tokens = 1}, &answer);
            ask(together, parts, 2, (struct ward_generate_options){.max_tokens = 1}, &answer);
            assert_int_equal(alone->n_held, together->n_held);
            float *hidden = malloc(GEMV_MAX_N * width * sizeof *hidden);
            float *logits = malloc(GEMV_MAX_N * vocab * sizeof *logits);
            int position = alone->n_held;
            for (int rows = 2; rows <= GEMV_MAX_N; position += rows++) {
                const int32_t *ids = alone->held + 20 + 7 * rows;
                for (int r = 0; r < rows; r++) {
                    text_forward(&alone->text, &alone->kv, ids + r, position + r, 1, NULL, 0, &alone->observer);
                    memcpy(hidden + (size_t)r * width, alone->text.b.hidden, width * sizeof *hidden);
                    text_logits(&alone->text, 0, 1, position + r, &alone->observer);
                    memcpy(logits + (size_t)r * vocab, alone->text.b.logits, vocab * sizeof *logits);
                }
                text_forward(&together->text, &together->kv, ids, position, rows, NULL, 0, &together->observer);
                assert_memory_equal(hidden, together->text.b.hidden, (size_t)rows * width * sizeof *hidden);
                text_logits(&together->text, 0, rows, position, &together->observer);
                assert_memory_equal(logits, together->text.b.logits, (size_t)rows * vocab * sizeof *logits);
            }
            if (i == 0) /* else nothing wrapped */
                assert_true(position > 2 * alone->kv.layers[0].capacity);
            free(hidden);
            free(logits);
            ward_session_close(&alone);
            ward_session_close(&together);
            ward_model_close(&model);
        }
    ward_image_close(&film);
}

/* Greedy and drawn answers, with the next question on top of what refused drafts left in the cache. */
static void drafts_do_not_change_answers(void **state)
{
    (void)state;
    static const char *const names[] = {"window", "flat", "untied", "f16"};
    ward_image *film = open_film();
    const struct ward_part parts[] = {{.image = film}, {.text = "Where is the line? The lungs are clear."}};
    const struct ward_part more[] = {{.image = film}, {.text = "Where is the line? The lungs are not clear."}};
    int drafted = 0, accepted = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ward_model *model = open_model(names[i], NULL);
        for (int draw = 0; draw < 3; draw++) {
            struct ward_generate_options o = {.ignore_eos = true,
                                              .temperature = 0.02f * (float)draw,
                                              .top_p = draw == 2 ? 0.9f : 0,
                                              .seed = 7};
            static const int most[] = {-1, 0, 1, 3, 7};
            static struct answer plain[2], other;
            for (size_t m = 0; m < sizeof most / sizeof *most; m++) {
                ward_session *session = open_session(model, 0);
                o.draft_max = most[m];
                struct answer *first = m ? &other : &plain[0];
                ask(session, parts, 2, o, first);
                if (m) {
                    assert_same(&plain[0], &other);
                    drafted += other.result.drafted_tokens;
                    accepted += other.result.accepted_tokens;
                } else {
                    assert_int_equal(plain[0].result.drafted_tokens, 0);
                }
                ask(session, more, 2, o, m ? &other : &plain[1]);
                if (m)
                    assert_same(&plain[1], &other);
                ward_session_close(&session);
            }
        }
        ward_model_close(&model);
    }
    ward_image_close(&film);
    assert_true(accepted > 100);
    assert_true(drafted > accepted);
}

/* The ends of an answer fall where they fall without drafts: max_tokens, the context, a stop token, the caller. */
static void drafts_end_where_the_answer_ends(void **state)
{
    (void)state;
    ward_model *model = open_model("flat", NULL);
    const struct ward_part part = {.text = "Where is the line? Compare with the prior film."};
    for (int tokens = 1; tokens < 40; tokens += 3) {
        static struct answer plain, drafting;
        for (int context = 0; context <= 64; context += 64) {
            ward_session *a = open_session(model, context), *b = open_session(model, context);
            const int most = context ? MAX_TOKENS : tokens;
            plain.stop_after = drafting.stop_after = context ? 0 : tokens % 2 ? tokens / 2 : 0;
            struct ward_generate_options o = {.max_tokens = most, .ignore_eos = context, .draft_max = -1};
            ask(a, &part, 1, o, &plain);
            o.draft_max = 7;
            ask(b, &part, 1, o, &drafting);
            assert_same(&plain, &drafting);
            assert_int_equal(a->n_held, b->n_held);
            ward_session_close(&a);
            ward_session_close(&b);
        }
    }
    struct ward_result result;
    ward_session *session = open_session(model, 0);
    assert_int_equal(ward_generate(session, &(struct ward_message){"user", &part, 1}, 1,
                                   &(struct ward_generate_options){.draft_max = 8}, &result, NULL), WARD_EINVAL);
    ward_session_close(&session);
    ward_model_close(&model);
}

/* Drafts follow the latest occurrence of three tokens, else of two, never hold the forbidden one, and may run into
 * themselves. */
static void drafts_repeat_what_was_said(void **state)
{
    (void)state;
    struct speculator s;
    speculator_init(&s);
    int32_t ids[32] = {5, 1, 2, 3, 7, 8, 9, 2, 3, 4, 6, 1, 2, 3};
    assert_int_equal(speculator_draft(&s, ids, 14, 3, true, 99), 3);
    assert_int_equal(ids[14], 7);
    assert_int_equal(ids[16], 9);
    assert_int_equal(speculator_draft(&s, ids, 14, 7, true, 9), 2);
    ids[11] = 5; /* 5 2 3 was not said, 2 3 was, and went on with 4 */
    assert_int_equal(speculator_draft(&s, ids, 14, 2, true, 99), 2);
    assert_int_equal(ids[14], 4);
    int32_t loop[32] = {1, 2, 1, 2};
    assert_int_equal(speculator_draft(&s, loop, 4, 6, true, 99), 6);
    assert_int_equal(loop[9], 2);
    int32_t fresh[16] = {1, 2, 3, 4, 5};
    assert_int_equal(speculator_draft(&s, fresh, 5, 7, true, 99), 0);
    assert_int_equal(speculator_draft(&s, fresh, 1, 7, true, 99), 0);
}

/* A clock that tells what a row costs, and drafts that are right with some luck: the time, in steps of one row, of an
 * answer of 400 tokens. */
static double simulate(double row_cost, double luck)
{
    enum { TOKENS = 400 };
    struct speculator s;
    speculator_init(&s);
    speculator_begin(&s);
    srand(1);
    double time = 0;
    for (int tokens = 0; tokens < TOKENS;) {
        int32_t ids[16] = {1, 2, 3, 1, 2, 3};
        const int n = speculator_draft(&s, ids, 6, DRAFT_MOST, false, 99);
        const double ms = 1 + n * row_cost;
        speculator_note_step(&s, ms);
        int hits = 0;
        while (hits < n && rand() < luck * RAND_MAX)
            hits++;
        speculator_note_hits(&s, hits);
        tokens += 1 + hits;
        time += ms;
    }
    return time / TOKENS;
}

static void drafts_in_vain_cost_little(void **state)
{
    (void)state;
    for (double row_cost = 0.02; row_cost < 1; row_cost *= 1.5) {
        assert_true(simulate(row_cost, 0) <= 1.02);
        assert_true(simulate(row_cost, 0.1) <= 1.02);
    }
    assert_true(simulate(1, 0.9) <= 1.02);
    assert_true(simulate(0.1, 1) < 0.35);
    assert_true(simulate(0.1, 0.7) < 0.65);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_together_are_rows_alone),     cmocka_unit_test(drafts_do_not_change_answers),
        cmocka_unit_test(drafts_end_where_the_answer_ends), cmocka_unit_test(drafts_repeat_what_was_said),
        cmocka_unit_test(drafts_in_vain_cost_little),
    };
    return cmocka_run_group_tests_name("speculation", tests, NULL, NULL);
}
