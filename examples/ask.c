/* Asks a model about an image:  cc ask.c $(pkg-config --cflags --libs ward) -o ask && ./ask MODEL IMAGE QUESTION */
#include <stdio.h>
#include <ward.h>

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: ask MODEL IMAGE QUESTION\n"), 2;
    ward_model *model = NULL;
    ward_session *session = NULL;
    ward_image *image = NULL;
    struct ward_result result = {0};
    struct ward_error err;
    int rc = ward_model_open(&model, argv[1], NULL, &err);
    if (!rc)
        rc = ward_session_open(&session, model, NULL, &err);
    if (!rc)
        rc = ward_image_open(&image, argv[2], NULL, NULL, &err);
    const struct ward_part parts[] = {{.image = image}, {.text = argv[3]}};
    const struct ward_message question = {.role = "user", .parts = parts, .n_parts = 2};
    if (!rc)
        rc = ward_generate(session, &question, 1, NULL, &result, &err);
    if (rc)
        fprintf(stderr, "ask: %s\n", err.text);
    else
        puts(result.text);
    ward_result_clear(&result);
    ward_image_close(&image);
    ward_session_close(&session);
    ward_model_close(&model);
    return rc != 0;
}
