#include "chat.h"
#include "cli.h"
#include "interrupt.h"
#include "output.h"
#include "use.h"

#include <errno.h>
#include <histedit.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct state {
    const struct chat *chat;
    struct conversation conversation;
    struct pictures pictures; /* for the next question */
    bool has_template;
    EditLine *edit;
    History *history;
};

static const char help[] =
    "/image PATH   a JPEG or PNG for the next question; may be repeated\n"
    "/clear        forget the conversation\n"
    "/exit         or Ctrl-D: leave\n"
    "Ctrl-C ends an answer, or drops the line being typed. A line that ends with \\ goes on in the next one; pasted\n"
    "text may have several lines. <image> marks in a question place its images; without marks they come before it.\n";

/* ---- line editing ------------------------------------------------------------------------------------------------ */

static char *prompt(EditLine *edit)
{
    static char text[] = ">>> ", more[] = "... ";
    bool *continued;
    el_get(edit, EL_CLIENTDATA, &continued);
    return *continued ? more : text;
}

/* Waits until there is something to read; false when Ctrl-C came, however shortly before the wait. */
static bool wait_for_input(void)
{
    sigset_t interrupt, before;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = 0;
    while (ready <= 0 && !interrupt_pending()) {
        sigprocmask(SIG_BLOCK, &interrupt, &before);
        if (!interrupt_pending())
            ready = ppoll(&input, 1, NULL, &before);
        sigprocmask(SIG_SETMASK, &before, NULL);
        if (ready < 0 && errno != EINTR)
            break; /* reading will tell */
    }
    return !interrupt_pending();
}

/* A character for the line editor: 1, 0 at the end, -1 when Ctrl-C came. libedit's own goes on after a signal. */
static int read_character(EditLine *edit, wchar_t *out)
{
    (void)edit;
    mbstate_t state = {0};
    for (;;) {
        if (!wait_for_input())
            return -1;
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return (int)n;
        size_t length = mbrtowc(out, &byte, 1, &state);
        if (length == (size_t)-1) {
            *out = L'\ufffd';
            return 1;
        }
        if (length != (size_t)-2)
            return 1;
    }
}

/* Bracketed paste: the terminal sends ESC[200~, the text, ESC[201~. Newlines in it belong to the text. */
static unsigned char insert_paste(EditLine *edit, int key)
{
    (void)key;
    static const wchar_t end[] = L"\033[201~";
    size_t n = 0, room = 0, n_end = wcslen(end);
    wchar_t *text = NULL;
    for (;;) {
        if (n + 1 >= room) {
            room = room ? 2 * room : 256;
            text = must_realloc(text, room, sizeof *text);
        }
        if (read_character(edit, &text[n]) <= 0)
            break;
        if (text[n] == L'\r')
            text[n] = L'\n';
        n++;
        if (n >= n_end && wmemcmp(text + n - n_end, end, n_end) == 0) {
            n -= n_end;
            break;
        }
    }
    text[n] = L'\0';
    int rc = n ? el_winsertstr(edit, text) : 0;
    free(text);
    return rc ? CC_ERROR : CC_REFRESH;
}

static void open_editor(struct state *s, bool *continued)
{
    s->edit = el_init("ward", stdin, stdout, stderr);
    s->history = history_init();
    if (!s->edit || !s->history)
        die("the terminal cannot be used for a chat");
    HistEvent event;
    history(s->history, &event, H_SETSIZE, 1000);
    el_set(s->edit, EL_CLIENTDATA, continued);
    el_set(s->edit, EL_PROMPT, prompt);
    el_set(s->edit, EL_EDITOR, "emacs");
    el_set(s->edit, EL_HIST, history, s->history);
    el_set(s->edit, EL_SIGNAL, 1); /* window size, stop and continue */
    el_set(s->edit, EL_GETCFN, read_character);
    /* The wide form: el_set copies the names and loses the copies. */
    el_wset(s->edit, EL_ADDFN, L"ward-paste", L"insert pasted text", insert_paste);
    el_set(s->edit, EL_BIND, "\\e[200~", "ward-paste", NULL);
    el_set(s->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
}

static void close_editor(struct state *s)
{
    history_end(s->history);
    el_end(s->edit);
}

/* A question, its continued lines joined; NULL at the end of input. "" after Ctrl-C. free() it. */
static char *read_question(struct state *s, bool *continued)
{
    char *question = NULL;
    size_t length = 0;
    *continued = false;
    for (;;) {
        int count = 0;
        interrupt_take(); /* one that came while nothing listened */
        output_text("\033[?2004h"); /* the terminal marks what is pasted */
        output_flush();
        const char *line = el_gets(s->edit, &count);
        output_text("\033[?2004l");
        output_flush();
        if (!line || count <= 0) {
            bool interrupted = interrupt_take();
            output_text("\n");
            free(question);
            return interrupted ? must_strndup("", 0) : NULL;
        }
        size_t n = strlen(line);
        n -= n && line[n - 1] == '\n';
        *continued = n && line[n - 1] == '\\';
        n -= *continued;
        question = must_realloc(question, length + n + 2, 1);
        memcpy(question + length, line, n);
        length += n;
        if (!*continued)
            break;
        question[length++] = '\n';
    }
    question[length] = '\0';
    if (question[strspn(question, " \t\n")]) {
        HistEvent event;
        history(s->history, &event, H_ENTER, question);
    }
    return question;
}

/* ---- the chat ---------------------------------------------------------------------------------------------------- */

static void start_over(struct state *s)
{
    conversation_truncate(&s->conversation, 0);
    if (s->chat->system) {
        conversation_add_message(&s->conversation, "system");
        conversation_add_text(&s->conversation, s->chat->system, strlen(s->chat->system));
    }
}

static void add_picture(struct state *s, char *path)
{
    struct ward_error err;
    size_t n = strlen(path);
    while (n && path[n - 1] == ' ')
        path[--n] = '\0';
    /* A file dragged onto the terminal comes in quotes. */
    if (n >= 2 && (*path == '\'' || *path == '"') && path[n - 1] == *path) {
        path[n - 1] = '\0';
        path++;
    }
    double decode_ms = 0;
    if (pictures_add(&s->pictures, path, s->chat->image, &decode_ms, &err)) {
        print_error("%s", err.text);
        use_refused();
    }
    s->conversation.decode_ms += decode_ms;
}

static void ask(struct state *s, const char *question)
{
    struct ward_error err;
    struct answer answer;
    size_t before = s->conversation.n;
    if (conversation_add_question(&s->conversation, question, strlen(question), &s->pictures, &err)) {
        print_error("%s", err.text);
        return;
    }
    int rc = answer_generate(s->chat->session, &s->conversation, s->chat->answer, &answer, &err);
    interrupt_take();
    if (rc) {
        if (rc != WARD_ECANCELLED)
            print_error("%s%s", err.text, rc == WARD_ECONTEXT ? " (/clear starts over)" : "");
        conversation_truncate(&s->conversation, before);
        return;
    }
    if (s->chat->timings)
        answer_print_timings(&answer.result, s->chat->load_ms, s->conversation.decode_ms);
    s->conversation.decode_ms = 0;
    conversation_add_message(&s->conversation, "assistant");
    conversation_add_text(&s->conversation, answer.result.text, strlen(answer.result.text));
    answer_clear(&answer);
    if (!s->has_template)
        start_over(s); /* a pretrained checkpoint continues one text: it knows no turns */
}

/* False: leave. */
static bool handle_line(struct state *s, char *line)
{
    char *text = line + strspn(line, " \t\n");
    if (!*text)
        return true;
    if (strcmp(text, "/exit") == 0)
        return false;
    if (strcmp(text, "/help") == 0)
        output_text(help);
    else if (strcmp(text, "/clear") == 0)
        start_over(s);
    else if (strncmp(text, "/image ", 7) == 0)
        add_picture(s, text + 7 + strspn(text + 7, " "));
    else if (*text == '/' && !strchr(text, '\n') && !strchr(text, ' '))
        print_error("there is no command %s; /help lists them", text);
    else
        ask(s, line);
    return true;
}

int chat_run(const struct chat *chat)
{
    struct ward_model_info info;
    ward_model_get_info(chat->model, &info);
    struct state s = {.chat = chat, .pictures = *chat->pictures, .has_template = info.has_chat_template};
    *chat->pictures = (struct pictures){0};
    s.conversation.decode_ms = chat->decode_ms;
    bool continued;
    open_editor(&s, &continued);
    start_over(&s);
    interrupt_catch(SIGINT);

    char line[160];
    snprintf(line, sizeof line, "%s weights on %s (%s), %d thread%s. /help lists commands, Ctrl-D leaves.\n", info.type,
             info.device, info.kernels, info.threads, info.threads == 1 ? "" : "s");
    output_text(line);
    bool more = true;
    while (more) {
        char *question = read_question(&s, &continued);
        more = question && handle_line(&s, question);
        output_flush();
        free(question);
    }
    close_editor(&s);
    conversation_truncate(&s.conversation, 0);
    pictures_clear(&s.pictures);
    return 0;
}
