/* Sessions through the public interface, on the small random checkpoints under tests/vectors: what is kept between
 * questions, what is computed again, and that neither changes the answer. Run from the root of the repository. */
#include "ward.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MODELS "tests/vectors/models/"
#define FILMS "tests/vectors/films/"

enum { STEPS = 12, MAX_TOKENS = 64 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define COUNT_ALLOCATIONS 0
#else
#define COUNT_ALLOCATIONS 1
static int allocations;
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    return __libc_realloc(old, size);
}
#endif

/* What a run left behind. */
struct answer {
    int32_t ids[MAX_TOKENS];
    float logprobs[MAX_TOKENS];
    int n, cached, computed, cached_images;
    double vision_ms;
    char text[4096];
};

static int record(void *user, const struct ward_token *token)
{
    struct answer *a = user;
    a->ids[a->n] = token->id;
    a->logprobs[a->n++] = token->logprob;
    return 0;
}

/* WARD_TEST_DEVICE=cuda runs the same on a card, or the emulated one; a mask of instructions asks for the processor. */
static const char *device(void)
{
    const char *given = getenv("WARD_TEST_DEVICE");
    return given ? given : "cpu";
}

static bool on_a_card(void)
{
    return strcmp(device(), "cpu") != 0;
}

/* For tests that ask for the processor by a mask. */
static void skip_on_a_card(void)
{
    if (on_a_card()) {
        print_message("# the processor's\n");
        skip();
    }
}

static ward_model *open_model(const char *name, const char *mask, int threads)
{
    char path[256];
    snprintf(path, sizeof path, MODELS "%s", name);
    struct ward_error err = {0};
    ward_model *model;
    const struct ward_model_options options = {
        .threads = threads, .cpu_mask = mask, .device = mask ? "cpu" : device()};
    if (ward_model_open(&model, path, &options, &err))
        fail_msg("%s", err.text);
    return model;
}

static ward_session *open_session(const ward_model *model, int context)
{
    ward_session *session;
    struct ward_error err = {0};
    const struct ward_session_options options = {.context = context};
    if (ward_session_open(&session, model, &options, &err))
        fail_msg("%s", err.text);
    return session;
}

static ward_image *open_film(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, FILMS "%s", name);
    struct ward_error err = {0};
    ward_image *image;
    if (ward_image_open(&image, path, NULL, NULL, &err))
        fail_msg("%s", err.text);
    return image;
}

static void ask(ward_session *session, const struct ward_message *messages, size_t n, struct answer *out)
{
    *out = (struct answer){0};
    const struct ward_generate_options options = {
        .max_tokens = STEPS, .ignore_eos = true, .on_token = record, .user = out};
    struct ward_result result;
    struct ward_error err = {0};
    if (ward_generate(session, messages, n, &options, &result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(out->n, STEPS);
    out->cached = result.cached_tokens;
    out->computed = result.prefill_tokens;
    out->cached_images = result.cached_images;
    out->vision_ms = result.vision_ms;
    assert_int_equal(out->cached + out->computed, result.n_prompt_ids);
    snprintf(out->text, sizeof out->text, "%s", result.text);
    ward_result_clear(&result);
    assert_null(result.text);
}

static void assert_same(const struct answer *a, const struct answer *b, float tolerance)
{
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        assert_true(fabsf(a->logprobs[i] - b->logprobs[i]) <= tolerance);
    }
}

/* A second question after the same image, in a session and afresh. */
static void second_question_keeps_image(void **state)
{
    (void)state;
    skip_on_a_card();
    ward_model *model = open_model("flat", "none", 2);
    ward_image *film = open_film("square56.png"), *other = open_film("wide.png");
    const struct ward_part first[] = {{.image = film}, {.text = "Where is the line?"}};
    const struct ward_part second[] = {{.image = film}, {.text = "Are the angles sharp?"}};
    const struct ward_part third[] = {{.image = other}, {.text = "Are the angles sharp?"}};
    ward_session *session = open_session(model, 0);
    struct answer a, kept, fresh;
    ask(session, &(struct ward_message){"user", first, 2}, 1, &a);
    assert_int_equal(a.cached, 0);
    ask(session, &(struct ward_message){"user", second, 2}, 1, &kept);
    struct ward_model_info info;
    ward_model_get_info(model, &info);
    assert_true(kept.cached > info.image_tokens);
    ward_session *anew = open_session(model, 0);
    ask(anew, &(struct ward_message){"user", second, 2}, 1, &fresh);
    assert_int_equal(fresh.cached, 0);
    assert_same(&kept, &fresh, 1e-4f);

    /* the same question about another image: nothing of the image is kept */
    ask(session, &(struct ward_message){"user", third, 2}, 1, &kept);
    assert_true(kept.cached < 10);
    ward_session_close(&anew);
    anew = open_session(model, 0);
    ask(anew, &(struct ward_message){"user", third, 2}, 1, &fresh);
    assert_same(&kept, &fresh, 1e-4f);

    ward_session_close(&anew);
    ward_session_close(&session);
    ward_image_close(&film);
    ward_image_close(&other);
    ward_model_close(&model);
    assert_null(model);
}

/* A conversation of three turns: each turn computes only what is new. */
static void turns_extend_the_cache(void **state)
{
    (void)state;
    skip_on_a_card();
    ward_model *model = open_model("window", "none", 1); /* windows far shorter than the conversation */
    ward_image *film = open_film("square56.png");
    const struct ward_part question[] = {{.image = film}, {.text = "Where is the line?"}};
    const struct ward_part more = {.text = "Compare with the prior film."}, last = {.text = "What is most likely?"};
    const struct ward_part said = {.text = "The line ends above the carina."}, said2 = {.text = "No change."};
    const struct ward_message talk[] = {{"user", question, 2}, {"assistant", &said, 1}, {"user", &more, 1},
                                        {"assistant", &said2, 1}, {"user", &last, 1}};
    ward_session *session = open_session(model, 0);
    struct answer kept, fresh;
    int before = 0;
    for (size_t n = 1; n <= 5; n += 2) {
        ask(session, talk, n, &kept);
        ward_session *anew = open_session(model, 0);
        ask(anew, talk, n, &fresh);
        ward_session_close(&anew);
        assert_same(&kept, &fresh, 1e-4f);
        if (n > 1)
            assert_true(kept.cached >= before - 4);
        before = kept.cached + kept.computed;
    }
    /* back to the first question: what the rings have lost is computed again, with the same result */
    ask(session, talk, 1, &kept);
    ward_session *anew = open_session(model, 0);
    ask(anew, talk, 1, &fresh);
    assert_same(&kept, &fresh, 1e-4f);
    ward_session_close(&anew);
    ward_session_close(&session);
    ward_image_close(&film);
    ward_model_close(&model);
}

/* Far beyond the rings: a long prompt, then a short one that shares only its beginning. */
static void rewinding_past_the_ring_starts_over(void **state)
{
    (void)state;
    skip_on_a_card();
    ward_model *model = open_model("window", "none", 2);
    char *text = malloc(8000);
    text[0] = '\0';
    for (int i = 0; i < 250; i++)
        strcat(text, "The lungs are clear. ");
    const struct ward_part long_part = {.text = text};
    const struct ward_part short_part = {.text = "The lungs are clear. The lungs are not clear."};
    ward_session *session = open_session(model, 0), *anew = open_session(model, 0);
    struct answer kept, fresh;
    ask(session, &(struct ward_message){"user", &long_part, 1}, 1, &kept);
    assert_true(kept.computed > 1500);
    ask(session, &(struct ward_message){"user", &short_part, 1}, 1, &kept);
    assert_int_equal(kept.cached, 0);
    ask(anew, &(struct ward_message){"user", &short_part, 1}, 1, &fresh);
    assert_same(&kept, &fresh, 1e-5f);
    /* the long one again is divided into chunks at the same places: the same to the last bit */
    ward_session_close(&anew);
    ask(session, &(struct ward_message){"user", &long_part, 1}, 1, &kept);
    anew = open_session(model, 0);
    ask(anew, &(struct ward_message){"user", &long_part, 1}, 1, &fresh);
    assert_same(&kept, &fresh, 1e-4f);
    ward_session_close(&session);
    ward_session_close(&anew);
    ward_model_close(&model);
    free(text);
}

/* Another session, or the image at another place: its features are the same, and the encoder does not run. */
static void features_of_an_image_are_kept(void **state)
{
    (void)state;
    ward_model *model = open_model("flat", NULL, 2);
    ward_image *film = open_film("square56.png"), *again = open_film("square56.png"), *other = open_film("wide.png");
    const struct ward_part question[] = {{.image = film}, {.text = "Where is the line?"}};
    const struct ward_part two[] = {{.image = other}, {.image = again}, {.text = "Which is newer?"}};
    struct answer fresh, kept;
    ward_session *session = open_session(model, 0);
    ask(session, &(struct ward_message){"user", question, 2}, 1, &fresh);
    assert_int_equal(fresh.cached_images, 0);
    assert_true(fresh.vision_ms > 0);

    ward_session *second = open_session(model, 0);
    ask(second, &(struct ward_message){"user", question, 2}, 1, &kept);
    assert_int_equal(kept.cached, 0);
    assert_int_equal(kept.cached_images, 1);
    assert_true(kept.vision_ms == 0);
    assert_same(&fresh, &kept, 0);

    ward_session_close(&second);
    second = open_session(model, 0);
    ask(second, &(struct ward_message){"user", two, 3}, 1, &kept);
    assert_int_equal(kept.cached_images, 1);
    ward_session_close(&second);
    struct ward_error err;
    const struct ward_session_options always = {.encode_always = true};
    assert_int_equal(ward_session_open(&second, model, &always, &err), 0);
    ask(second, &(struct ward_message){"user", two, 3}, 1, &fresh);
    assert_int_equal(fresh.cached_images, 0);
    assert_same(&fresh, &kept, 0);

    ward_session_close(&session);
    ward_session_close(&second);
    ward_image_close(&film);
    ward_image_close(&again);
    ward_image_close(&other);
    ward_model_close(&model);
}

/* Back a little, on a little, back further: what the rings lost on the first way is lost on the third, too. */
static void rewinding_twice_remembers_what_is_lost(void **state)
{
    (void)state;
    skip_on_a_card();
    enum { SENTENCES = 120 };
    ward_model *model = open_model("window", "none", 2);
    char text[SENTENCES * 32] = "";
    size_t ends[SENTENCES];
    for (int i = 0; i < SENTENCES; i++) {
        sprintf(text + strlen(text), "The lungs are clear. ");
        ends[i] = strlen(text);
    }
    ward_session *session = open_session(model, 0);
    struct answer kept, fresh;
    const struct ward_part whole = {.text = text};
    ask(session, &(struct ward_message){"user", &whole, 1}, 1, &kept);
    const int all = kept.computed;
    for (int sentences = SENTENCES; sentences > 4; sentences -= 9) {
        char shorter[sizeof text];
        snprintf(shorter, sizeof shorter, "%.*sNo.", (int)ends[sentences - 1], text);
        const struct ward_part part = {.text = shorter};
        ask(session, &(struct ward_message){"user", &part, 1}, 1, &kept);
        ward_session *anew = open_session(model, 0);
        ask(anew, &(struct ward_message){"user", &part, 1}, 1, &fresh);
        ward_session_close(&anew);
        assert_same(&kept, &fresh, 1e-4f);
        if (sentences > SENTENCES - 20)
            assert_true(kept.cached > all / 2); /* inside the rings nothing is computed again */
    }
    ward_session_close(&session);
    ward_model_close(&model);
}

static void threads_do_not_change_results(void **state)
{
    (void)state;
    static const char *const names[] = {"flat", "hybrid", "f16", "untied"};
    ward_image *film = open_film("tall.png");
    const struct ward_part parts[] = {{.image = film}, {.text = "Where is the line?"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct answer answers[3];
        for (int threads = 1; threads <= 3; threads++) {
            ward_model *model = open_model(names[i], NULL, threads);
            ward_session *session = open_session(model, 0);
            ask(session, &(struct ward_message){"user", parts, 2}, 1, &answers[threads - 1]);
            ward_session_close(&session);
            ward_model_close(&model);
        }
        assert_same(&answers[0], &answers[1], 0);
        assert_same(&answers[0], &answers[2], 0);
    }
    ward_image_close(&film);
}

static void context_is_a_limit(void **state)
{
    (void)state;
    ward_model *model = open_model("flat", NULL, 1);
    const struct ward_part part = {.text = "Where is the line? Compare with the prior film."};
    const struct ward_message message = {"user", &part, 1};
    struct ward_error err = {0};
    struct ward_result result;
    ward_session *session = open_session(model, 16);
    assert_int_equal(ward_generate(session, &message, 1, NULL, &result, &err), WARD_ECONTEXT);
    assert_non_null(strstr(err.text, "context of 16"));
    ward_session_close(&session);

    session = open_session(model, 64);
    const struct ward_generate_options options = {.max_tokens = 1000, .ignore_eos = true};
    assert_int_equal(ward_generate(session, &message, 1, &options, &result, &err), 0);
    assert_int_equal(result.finish, WARD_FINISH_LENGTH);
    assert_int_equal(result.n_prompt_ids + result.n_ids, 64 + 1); /* the last token is not fed back */
    ward_result_clear(&result);
    ward_session_close(&session);

    assert_int_equal(ward_session_open(&session, model, &(struct ward_session_options){.context = -1}, &err),
                     WARD_EINVAL);
    assert_null(session);
    ward_model_close(&model);
}

struct stopper {
    int after, seen;
};

static int stop_after(void *user, const struct ward_token *token)
{
    (void)token;
    struct stopper *s = user;
    return ++s->seen >= s->after;
}

static int refuse_progress(void *user, const char *stage, int done, int total)
{
    (void)user;
    (void)stage;
    (void)done;
    (void)total;
    return 1;
}

static void callbacks_can_stop(void **state)
{
    (void)state;
    ward_model *model = open_model("flat", NULL, 1);
    ward_session *session = open_session(model, 0);
    const struct ward_part part = {.text = "Where is the line?"};
    const struct ward_message message = {"user", &part, 1};
    struct stopper stopper = {.after = 3};
    struct ward_generate_options options = {
        .max_tokens = 20, .ignore_eos = true, .on_token = stop_after, .user = &stopper};
    struct ward_result result;
    struct ward_error err = {0};
    assert_int_equal(ward_generate(session, &message, 1, &options, &result, &err), 0);
    assert_int_equal(result.finish, WARD_FINISH_CANCELLED);
    assert_int_equal(result.n_ids, 3);
    ward_result_clear(&result);
    options = (struct ward_generate_options){.on_progress = refuse_progress};
    const struct ward_part other = {.text = "Another question."};
    assert_int_equal(ward_generate(session, &(struct ward_message){"user", &other, 1}, 1, &options, &result, &err),
                     WARD_ECANCELLED);
    assert_null(result.text);
    struct answer a; /* the session goes on */
    ask(session, &message, 1, &a);
    ward_session_close(&session);
    ward_model_close(&model);
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    struct ward_error err = {0};
    ward_model *model = NULL;
    assert_int_equal(ward_model_open(&model, MODELS "flat", &(struct ward_model_options){.cpu_mask = "mmx"}, &err),
                     WARD_EINVAL);
    assert_null(model);
    assert_int_equal(ward_model_open(&model, MODELS "flat", &(struct ward_model_options){.device = "abacus"}, &err),
                     WARD_EINVAL);
    assert_int_equal(ward_model_open(&model, MODELS "flat", &(struct ward_model_options){.device = "cuda:x"}, &err),
                     WARD_EINVAL);
    assert_int_equal(ward_model_open(&model, MODELS "absent", NULL, &err), WARD_EIO);
    model = open_model("text", NULL, 1);
    ward_session *session = open_session(model, 0);
    ward_image *film = open_film("tiny.png");
    const struct ward_part part = {.image = film};
    struct ward_result result;
    assert_int_equal(ward_generate(session, &(struct ward_message){"user", &part, 1}, 1, NULL, &result, &err),
                     WARD_EUNSUPPORTED);
    const struct ward_part text = {.text = "Hello"};
    const struct ward_generate_options hot = {.temperature = NAN}, wide = {.top_p = 2};
    assert_int_equal(ward_generate(session, &(struct ward_message){"user", &text, 1}, 1, &hot, &result, &err),
                     WARD_EINVAL);
    assert_int_equal(ward_generate(session, &(struct ward_message){"user", &text, 1}, 1, &wide, &result, &err),
                     WARD_EINVAL);
    ward_image_close(&film);
    ward_session_close(&session);
    ward_model_close(&model);
}

#if COUNT_ALLOCATIONS
struct allocation_log {
    int first, last, tokens;
};

static int note_allocations(void *user, const struct ward_token *token)
{
    (void)token;
    struct allocation_log *log = user;
    log->last = __atomic_load_n(&allocations, __ATOMIC_RELAXED);
    if (log->tokens++ == 0)
        log->first = log->last;
    return 0;
}
#endif

static void token_loop_allocates_nothing(void **state)
{
    (void)state;
#if COUNT_ALLOCATIONS
    if (on_a_card()) {
        print_message("# a driver's allocations are its own\n");
        skip();
    }
    ward_model *model = open_model("flat", NULL, 2);
    ward_session *session = open_session(model, 0);
    const struct ward_part part = {.text = "Where is the line?"};
    struct allocation_log log = {0};
    const struct ward_generate_options options = {.max_tokens = 50,
                                                  .ignore_eos = true,
                                                  .temperature = 1,
                                                  .top_p = 0.9f,
                                                  .logprobs = 5,
                                                  .on_token = note_allocations,
                                                  .user = &log};
    struct ward_result result;
    assert_int_equal(ward_generate(session, &(struct ward_message){"user", &part, 1}, 1, &options, &result, NULL), 0);
    assert_int_equal(log.tokens, 50);
    assert_true(log.first > 0);
    assert_int_equal(log.last, log.first);
    ward_result_clear(&result);
    ward_session_close(&session);
    ward_model_close(&model);
#else
    print_message("# a sanitizer's allocator cannot be counted\n");
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_question_keeps_image), cmocka_unit_test(turns_extend_the_cache),
        cmocka_unit_test(rewinding_past_the_ring_starts_over),
        cmocka_unit_test(rewinding_twice_remembers_what_is_lost), cmocka_unit_test(features_of_an_image_are_kept),
        cmocka_unit_test(threads_do_not_change_results),
        cmocka_unit_test(context_is_a_limit), cmocka_unit_test(callbacks_can_stop),
        cmocka_unit_test(bad_options_are_refused), cmocka_unit_test(token_loop_allocates_nothing),
    };
    return cmocka_run_group_tests_name("session", tests, NULL, NULL);
}
