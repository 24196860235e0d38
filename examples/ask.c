/* Asks a model about an image:  cc ask.c $(pkg-config --cflags --libs ward) -o ask && ./ask MODEL IMAGE QUESTION */
#include <stdio.h>
#include <ward.h>

static int print_token(void *user, const struct ward_token *token)
{
    (void)user;
    return token->thinking ? 0 : printf("%s", token->text) < 0 || fflush(stdout) != 0;
}

int main(int argc, char **argv)
{
    ward_model *model = NULL;
    ward_session *session = NULL;
    ward_image *image = NULL;
    struct ward_error err;
    struct ward_result result = {0};
    const struct ward_generate_options options = {.on_token = print_token};
    int failed = argc != 4;
    if (failed)
        snprintf(err.text, sizeof err.text, "usage: ask MODEL IMAGE QUESTION");
    if (!failed)
        failed = ward_model_open(&model, argv[1], NULL, &err) || ward_session_open(&session, model, NULL, &err) ||
                 ward_image_open(&image, argv[2], NULL, NULL, &err);
    if (!failed) {
        const struct ward_part parts[] = {{.image = image}, {.text = argv[3]}};
        const struct ward_message question = {.role = "user", .parts = parts, .n_parts = 2};
        failed = ward_generate(session, &question, 1, &options, &result, &err);
    }
    if (failed)
        fprintf(stderr, "ask: %s\n", err.text);
    else
        printf("\n(%zu tokens)\n", result.n_ids);
    ward_result_clear(&result);
    ward_image_close(&image);
    ward_session_close(&session);
    ward_model_close(&model);
    return failed != 0;
}
