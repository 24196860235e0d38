/* ward run: one answer, or a chat. */
#include "answer.h"
#include "chat.h"
#include "input.h"
#include "lock.h"
#include "messages.h"
#include "model_pin.h"
#include "options.h"
#include "output.h"
#include "output_json.h"
#include "progress.h"
#include "use.h"

#include "base/clock.h"
#include "engine/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run(int argc, char **argv);

const struct command command_run = {
    .name = "run",
    .summary = "answer a question about images, or chat",
    .usage = "run -m MODEL [-i IMAGE]... [options] [PROMPT]",
    .help =
        "Examples:\n"
        "  ward run -m ./models -i xray.png \"Describe this X-ray.\"\n"
        "  ward run -m google/medgemma-4b-it -i a.png -i b.png \"Prior: <image> Current: <image> What changed?\"\n"
        "  ward run -m ./models -i xray.png - < question.txt      keep the question out of the process list\n"
        "  ward run -m ./models --messages chat.json --json\n"
        "  ward run -m ./models                                   on a terminal: a chat; /help inside\n"
        "\n"
        "PROMPT: the question; - or none with a piped standard input: it is read from there.\n"
        "Images come before the text, in the order given, unless PROMPT holds <image> marks, one for each image.\n"
        "\n"
        "  -m, --model MODEL          folder of the checkpoint, a GGUF file, ORG/NAME in the local Hugging Face\n"
        "                             cache, or NAME[:TAG] in Ollama's store\n"
        "      --mmproj FILE|none     GGUF file of the image encoder (the one beside the model's)\n"
        "      --model-hash SHA256    refuse a model whose hash ('ward hash MODEL') is another\n"
        "  -i, --image FILE           JPEG or PNG; may be repeated\n"
        "      --pad                  pad images to a black square instead of stretching them\n"
        "      --system TEXT          instructions before the first question\n"
        "      --messages FILE.json   a conversation in OpenAI's format, instead of PROMPT, -i, --system\n"
        "  -n, --max-tokens N         longest answer (200)\n"
        "      --ignore-eos           go on to N tokens, whatever the model says\n"
        "      --temp T               0 takes the likeliest token each time (0)\n"
        "      --top-k K, --top-p P, --min-p P    limit what is drawn from; 0: off (0)\n"
        "      --seed S               same seed, same text (0)\n"
        "      --thinking show|hide   the thinking of MedGemma 1.5 (hide)\n"
        "      --ctx N                tokens of conversation to hold (8192, or the model's limit if less)\n"
        "      --draft-max N          guess at most N tokens ahead, 0 to 7 (where it pays); the answer stays the same\n"
        "  -t, --threads N            (all processors)\n"
        "      --device auto|cpu|cuda|cuda:N    auto: an NVIDIA card that can be used, else the processor (auto)\n"
        "      --cpu-mask NAME        highest instruction set allowed: none, avx2, avx512, amx (the best there is)\n"
        "      --json                 one JSON object instead of text\n"
        "      --logprobs K           with --json: the K likeliest tokens at each step\n"
        "      --timings              speed, on stderr after the answer\n",
    .run = run,
    .audited = true,
};

struct run_options {
    const char *model_path, *system, *messages, *prompt;
    const char **images;
    size_t n_images;
    struct ward_model_options model;
    struct ward_image_options image;
    struct ward_session_options session;
    struct answer_options answer;
    struct model_pin pin;
    bool json, timings;
};

enum {
    OPT_PAD = 256, OPT_SYSTEM, OPT_MESSAGES, OPT_IGNORE_EOS, OPT_TEMP, OPT_TOP_K, OPT_TOP_P, OPT_MIN_P, OPT_SEED,
    OPT_THINKING, OPT_CTX, OPT_DEVICE, OPT_CPU_MASK, OPT_JSON, OPT_LOGPROBS, OPT_TIMINGS,
    OPT_DRAFT_MAX, OPT_MMPROJ, OPT_MODEL_HASH,
};

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"image", required_argument, NULL, 'i'},
    {"max-tokens", required_argument, NULL, 'n'},
    {"threads", required_argument, NULL, 't'},
    {"help", no_argument, NULL, 'h'},
    {"pad", no_argument, NULL, OPT_PAD},
    {"system", required_argument, NULL, OPT_SYSTEM},
    {"messages", required_argument, NULL, OPT_MESSAGES},
    {"ignore-eos", no_argument, NULL, OPT_IGNORE_EOS},
    {"temp", required_argument, NULL, OPT_TEMP},
    {"top-k", required_argument, NULL, OPT_TOP_K},
    {"top-p", required_argument, NULL, OPT_TOP_P},
    {"min-p", required_argument, NULL, OPT_MIN_P},
    {"seed", required_argument, NULL, OPT_SEED},
    {"thinking", required_argument, NULL, OPT_THINKING},
    {"ctx", required_argument, NULL, OPT_CTX},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"cpu-mask", required_argument, NULL, OPT_CPU_MASK},
    {"json", no_argument, NULL, OPT_JSON},
    {"logprobs", required_argument, NULL, OPT_LOGPROBS},
    {"timings", no_argument, NULL, OPT_TIMINGS},
    {"draft-max", required_argument, NULL, OPT_DRAFT_MAX},
    {"mmproj", required_argument, NULL, OPT_MMPROJ},
    {"model-hash", required_argument, NULL, OPT_MODEL_HASH},
    {0},
};

static int whole(const char *name, int low, int high)
{
    return (int)option_integer(&command_run, name, optarg, low, high);
}

static float fraction(const char *name, double high)
{
    return (float)option_number(&command_run, name, optarg, 0, high);
}

static void set_option(struct run_options *o, int c)
{
    static const char *const thinking[] = {"hide", "show", NULL};
    struct ward_generate_options *generate = &o->answer.generate;
    switch (c) {
    case 'm': o->model_path = optarg; break;
    case 'i':
        o->images = must_realloc(o->images, o->n_images + 1, sizeof *o->images);
        o->images[o->n_images++] = optarg;
        break;
    case 'n': generate->max_tokens = whole("--max-tokens", 1, 1 << 24); break;
    case 't': o->model.threads = whole("--threads", 1, 1024); break;
    case OPT_PAD: o->image.pad = true; break;
    case OPT_SYSTEM: o->system = optarg; break;
    case OPT_MESSAGES: o->messages = optarg; break;
    case OPT_IGNORE_EOS: generate->ignore_eos = true; break;
    case OPT_TEMP: generate->temperature = fraction("--temp", 100); break;
    case OPT_TOP_K: generate->top_k = whole("--top-k", 0, 1 << 24); break;
    case OPT_TOP_P: generate->top_p = fraction("--top-p", 1); break;
    case OPT_MIN_P: generate->min_p = fraction("--min-p", 1); break;
    case OPT_SEED: generate->seed = option_unsigned(&command_run, "--seed", optarg); break;
    case OPT_THINKING:
        o->answer.show_thinking = option_choice(&command_run, "--thinking", optarg, thinking) == 1;
        break;
    case OPT_CTX: o->session.context = whole("--ctx", 1, 1 << 24); break;
    case OPT_DRAFT_MAX:
        generate->draft_max = whole("--draft-max", 0, 7);
        generate->draft_max = generate->draft_max ? generate->draft_max : -1;
        break;
    case OPT_DEVICE: o->model.device = option_device(&command_run, optarg); break;
    case OPT_MMPROJ: o->model.mmproj = optarg; break;
    case OPT_MODEL_HASH: model_pin_option(&o->pin, &command_run, optarg); break;
    case OPT_CPU_MASK: o->model.cpu_mask = optarg; break;
    case OPT_JSON: o->json = true; break;
    case OPT_LOGPROBS: generate->logprobs = whole("--logprobs", 0, 1000); break;
    case OPT_TIMINGS: o->timings = true; break;
    }
}

static void parse(struct run_options *o, int argc, char **argv)
{
    int c;
    while ((c = options_next(&command_run, argc, argv, options)) != -1)
        set_option(o, c);
    if (argc - optind > 1)
        die_usage(&command_run, "run: one PROMPT is expected, %d were given: put it in quotes", argc - optind);
    o->prompt = optind < argc ? argv[optind] : NULL;
    if (!o->model_path)
        die_usage(&command_run, "run: which model? give its folder with -m");
    if (o->messages && (o->prompt || o->system || o->n_images))
        die_usage(&command_run, "run: --messages holds the whole conversation: leave PROMPT, -i and --system out");
    if (o->answer.generate.logprobs && !o->json)
        die_usage(&command_run, "run: --logprobs needs --json");
    o->answer.stream = !o->json;
}

static _Noreturn void die_model(int rc, const struct ward_error *err)
{
    print_error("%s", err->text);
    exit(rc == WARD_EINVAL ? EXIT_USAGE : EXIT_FAILED); /* an option's value that only the model can judge */
}

/* ---- the lock ---------------------------------------------------------------------------------------------------- */

struct lock {
    const struct run_options *o;
    struct offline_policy policy;
};

static void allow_image(void *lock, const char *path)
{
    offline_allow(&((struct lock *)lock)->policy, OFFLINE_READ, path);
}

/* A mask of the processor's instructions asks for the processor. */
static void allow_device(struct lock *lock)
{
    const struct ward_model_options *model = &lock->o->model;
    lock_allow_device(&lock->policy, model->cpu_mask && !model->device ? "cpu" : model->device);
}

/* The model, what is in the policy already, and nothing else. */
static void lock_in(void *user)
{
    struct lock *lock = user;
    struct ward_error err;
    const int rc = lock_allow_model(&lock->policy, lock->o->model_path, lock->o->model.mmproj, &err);
    if (rc)
        die_model(rc, &err);
    lock_enforce(&lock->policy);
}

/* A chat's /image names files that nobody knows yet; --messages a file that names them: until it is read, all may be
 * read, and nothing written or sent. */
static void lock_first(const struct run_options *o, bool interactive, bool hashing)
{
    struct lock lock = {.o = o, .policy = {.read_anywhere = interactive || o->messages}};
    allow_device(&lock);
    for (size_t i = 0; i < o->n_images; i++)
        allow_image(&lock, o->images[i]);
    if (hashing)
        model_pin_allow(&lock.policy);
    if (o->messages)
        lock_enforce(&lock.policy);
    else
        lock_in(&lock);
}

/* ---- one answer -------------------------------------------------------------------------------------------------- */

/* The conversation of a single answer, as the options describe it. */
static void build_conversation(const struct run_options *o, struct pictures *pictures, struct conversation *c)
{
    struct ward_error err;
    if (o->messages) {
        struct lock lock = {.o = o};
        allow_device(&lock);
        const struct messages_watch watch = {.named = allow_image, .ready = lock_in, .user = &lock};
        if (messages_read(c, o->messages, &o->image, &watch, &err))
            die_error(&err);
        return;
    }
    size_t length;
    char *question;
    if (o->prompt && strcmp(o->prompt, "-") != 0) {
        length = strlen(o->prompt);
        question = must_strndup(o->prompt, length);
    } else {
        question = input_read(&length);
        if (length && question[length - 1] == '\n')
            length -= 1 + (length > 1 && question[length - 2] == '\r');
        question[length] = '\0';
    }
    if (strspn(question, " \t\r\n") == length)
        die("the question is empty%s", o->prompt ? "" : ": give it as PROMPT or on standard input");
    if (o->system) {
        conversation_add_message(c, "system");
        conversation_add_text(c, o->system, strlen(o->system));
    }
    if (conversation_add_question(c, question, length, pictures, &err))
        die_error(&err);
    free(question);
}

/* What the card has taken since its driver was loaded; NAN where it does not tell. */
static double joules_of(const struct card_facts *card)
{
    struct nvml_state state = {.joules = -1};
    if (card->meter)
        nvml_read(card->meter, &state);
    return state.joules < 0 ? NAN : state.joules;
}

static int answer_once(const struct run_options *o, const ward_model *model, ward_session *session,
                       const struct conversation *c, double load_ms)
{
    struct ward_error err;
    struct answer answer;
    struct card_facts card = {.driver = NULL};
    const bool on_card = o->json && model->backend->card >= 0 && !card_facts_read(&card, model->backend->card, NULL);
    const double joules = joules_of(&card);
    int rc = answer_generate(session, c, &o->answer, &answer, &err);
    if (rc == WARD_ECANCELLED)
        return EXIT_INTERRUPTED;
    if (rc == WARD_ECONTEXT)
        die("%s (--ctx N sets it)", err.text);
    if (rc)
        die_error(&err);
    if (o->json) {
        struct output_json_facts facts = {.model_path = o->model_path, .model_sha256 = model_pin_hex(&o->pin),
                                          .load_ms = load_ms, .decode_ms = c->decode_ms,
                                          .card = on_card ? &card : NULL, .card_joules = joules_of(&card) - joules};
        output_json(&answer, model, &facts);
        output_flush();
    }
    if (o->timings)
        answer_print_timings(&answer.result, load_ms, c->decode_ms);
    bool cancelled = answer.result.finish == WARD_FINISH_CANCELLED;
    answer_clear(&answer);
    return cancelled ? EXIT_INTERRUPTED : 0;
}

static int run(int argc, char **argv)
{
    struct run_options o = {0};
    struct ward_error err;
    parse(&o, argc, argv);
    bool interactive = !o.prompt && !o.messages && !o.json && isatty(STDIN_FILENO) && output_is_terminal();

    use_open();
    if (o.pin.given) {
        lock_first(&o, interactive, true);
        model_pin_check(&o.pin, o.model_path, o.model.mmproj, o.model.threads);
    } else if (o.json || use_is_recorded()) {
        model_pin_look_up(&o.pin, o.model_path, o.model.mmproj);
    }
    lock_first(&o, interactive, false);

    /* The question and the images first: what is wrong with them shows before a model is opened. */
    struct pictures pictures = {0};
    struct conversation conversation = {0};
    for (size_t i = 0; i < o.n_images; i++)
        if (pictures_add(&pictures, o.images[i], &o.image, &conversation.decode_ms, &err))
            die_error(&err);
    if (!interactive)
        build_conversation(&o, &pictures, &conversation);

    ward_model *model;
    ward_session *session;
    progress_show("loading", 0, 0);
    double start = clock_ms();
    int rc = ward_model_open(&model, o.model_path, &o.model, &err);
    if (rc == 0) {
        rc = ward_session_open(&session, model, &o.session, &err);
        if (rc)
            ward_model_close(&model);
    }
    double load_ms = clock_ms() - start;
    progress_clear();
    if (rc)
        die_model(rc, &err);
    model_pin_recheck(&o.pin);
    struct ward_model_info info;
    ward_model_get_info(model, &info);
    use_model(&info, model_pin_hex(&o.pin));
    if (info.device_note)
        print_warning("%s", info.device_note);
    if (info.mmproj_guessed)
        print_warning("%s is taken as the image encoder; others beside it would do: --mmproj chooses", info.mmproj);
    if (info.not_for_clinical_use)
        print_warning("not for clinical use: the terms of the weights (Health AI Developer Foundations) ask to say so");
    if (info.random_weights)
        print_warning("random weights, made by ward synth for measuring: what they answer means nothing");

    int status;
    if (interactive) {
        struct chat chat = {
            .model = model, .session = session, .answer = &o.answer, .image = &o.image, .system = o.system,
            .pictures = &pictures, .timings = o.timings, .load_ms = load_ms, .decode_ms = conversation.decode_ms,
        };
        status = chat_run(&chat);
    } else {
        status = answer_once(&o, model, session, &conversation, load_ms);
    }
    ward_session_close(&session);
    ward_model_close(&model);
    conversation_truncate(&conversation, 0);
    pictures_clear(&pictures);
    model_pin_free(&o.pin);
    free(o.images);
    return status;
}
