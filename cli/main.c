/* ward: the command line. */
#include "cli.h"
#include "output.h"
#include "use.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <langinfo.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command *const commands[] = {&command_run, &command_doctor, &command_tokenize, &command_preprocess,
                                                 &command_quantize, &command_hash, &command_synth, &command_bench,
                                                 &command_bundle, &command_offline, &command_audit};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_sentence(const char *kind, const char *format, va_list args)
{
    char text[2048];
    vsnprintf(text, sizeof text, format, args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    fprintf(stderr, "ward: %s%s\n", kind, text);
}

void print_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_sentence("", format, args);
    va_end(args);
}

void print_warning(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_sentence("warning: ", format, args);
    va_end(args);
}

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_sentence("", format, args);
    va_end(args);
    exit(EXIT_FAILED);
}

void die_error(const struct ward_error *err)
{
    die("%s", err->text);
}

void die_usage(const struct command *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_sentence("", format, args);
    va_end(args);
    fprintf(stderr, "usage: ward %s\n       'ward %s --help' explains, with examples\n", command->usage, command->name);
    exit(EXIT_USAGE);
}

void *must_realloc(void *old, size_t n, size_t size)
{
    void *memory = reallocarray(old, n ? n : 1, size);
    if (!memory)
        die("out of memory");
    return memory;
}

char *must_strndup(const char *text, size_t length)
{
    char *copy = must_realloc(NULL, length + 1, 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

static void print_help(void)
{
    output_text("ward " WARD_VERSION ": MedGemma on this machine, offline. Not a medical device.\n\n"
                "  ward run -m ./models -i xray.png \"Describe this X-ray.\"     one answer, streamed\n"
                "  ward run -m ./models                                        a chat; /help inside\n"
                "  ward run -m ./models -i xray.png --json - < question.txt    question from a file, answer as JSON\n\n"
                "commands:\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        char line[160];
        snprintf(line, sizeof line, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
        output_text(line);
    }
    output_text("\n'ward COMMAND --help' explains each. 'ward --version' prints the version.\n"
                "Exit status: 0 done, 1 it could not be done (one sentence on stderr says why), 2 wrong usage,\n"
                "130 ended by Ctrl-C.\n");
    output_flush();
}

/* A descriptor that the parent closed would otherwise be given to the first file opened, and receive our output. */
static void reserve_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            exit(EXIT_FAILED);
}

int main(int argc, char **argv)
{
    reserve_standard_descriptors();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the write */
    /* Line editing and getopt read characters by the locale; everything here is UTF-8. Numbers stay in the C locale. */
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");

    if (argc < 2) {
        fprintf(stderr, "usage: ward COMMAND ...\n       'ward --help' lists the commands\n");
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help();
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        output_text("ward " WARD_VERSION "\n");
        output_flush();
        return 0;
    }
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) {
            use_command(commands[i]);
            int status = commands[i]->run(argc - 1, argv + 1);
            output_flush();
            return status;
        }
    }
    print_error("there is no command '%s'; 'ward --help' lists them", argv[1]);
    return EXIT_USAGE;
}
