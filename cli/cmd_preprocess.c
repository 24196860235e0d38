/* ward preprocess: the pixels that the model sees. */
#include "draw.h"
#include "lock.h"
#include "options.h"
#include "output.h"
#include "use.h"

#include "image/image.h"
#include "model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(int argc, char **argv);

const struct command command_preprocess = {
    .name = "preprocess",
    .summary = "the pixels that the model sees; needs no weights",
    .usage = "preprocess -m MODEL -i IMAGE (--out FILE.ppm | --draw) [--size S] [--pad]",
    .help =
        "Examples:\n"
        "  ward preprocess -m ./models -i xray.png --out seen.ppm\n"
        "  ward preprocess -m ./models -i xray.png --pad --size 896 --out seen.ppm\n"
        "  ward preprocess -m ./models -i xray.png --draw       in the terminal\n"
        "\n"
        "Decodes, turns as EXIF says, drops alpha, and resizes to a square, before normalisation. The PPM holds no\n"
        "name, date or other metadata of the image.\n"
        "\n"
        "  -m, --model DIR|ORG/NAME   folder of the checkpoint (its configuration is enough), or its name in the\n"
        "                             local Hugging Face cache\n"
        "  -i, --image FILE           JPEG or PNG\n"
        "      --out FILE.ppm         where the pixels go; - is standard output\n"
        "      --size S               side of the square (what the model takes)\n"
        "      --pad                  pad to a black square instead of stretching\n"
        "      --draw                 draw the image in the terminal, undistorted\n",
    .run = run,
    .audited = true,
};

enum { OPT_OUT = 256, OPT_SIZE, OPT_PAD, OPT_DRAW, DRAW_COLUMNS = 64 };

static const struct option options[] = {
    {"model", required_argument, NULL, 'm'},
    {"image", required_argument, NULL, 'i'},
    {"help", no_argument, NULL, 'h'},
    {"out", required_argument, NULL, OPT_OUT},
    {"size", required_argument, NULL, OPT_SIZE},
    {"pad", no_argument, NULL, OPT_PAD},
    {"draw", no_argument, NULL, OPT_DRAW},
    {0},
};

struct preprocess_options {
    const char *model_path, *image_path, *out;
    int size; /* 0: the checkpoint's */
    bool pad, draw;
};

static void parse(struct preprocess_options *o, int argc, char **argv)
{
    int c;
    while ((c = options_next(&command_preprocess, argc, argv, options)) != -1) {
        switch (c) {
        case 'm': o->model_path = optarg; break;
        case 'i': o->image_path = optarg; break;
        case OPT_OUT: o->out = optarg; break;
        case OPT_SIZE: o->size = (int)option_integer(&command_preprocess, "--size", optarg, 1, 16384); break;
        case OPT_PAD: o->pad = true; break;
        case OPT_DRAW: o->draw = true; break;
        }
    }
    if (optind < argc)
        die_usage(&command_preprocess, "preprocess: '%s' is not an option; the image is given with -i", argv[optind]);
    if (!o->model_path)
        die_usage(&command_preprocess, "preprocess: which model? give its folder with -m");
    if (!o->image_path)
        die_usage(&command_preprocess, "preprocess: which image? give it with -i");
    if (!o->out == !o->draw)
        die_usage(&command_preprocess, "preprocess: one of --out and --draw is needed");
}

/* The side of the square in pixels: as asked, or the checkpoint's. */
static int square_size(const struct preprocess_options *o)
{
    struct ward_error err;
    struct model_config *config = must_realloc(NULL, 1, sizeof *config);
    if (checkpoint_read_config(config, o->model_path, NULL, &err))
        die_error(&err);
    int size = o->size ? o->size : config->vision.image_size;
    bool sees = config->vision.n_layers > 0, resizes = config->image.resize;
    free(config);
    if (!sees && !o->size)
        die("%s: is a text-only checkpoint: it sees no images", o->model_path);
    if (sees && !resizes)
        die("%s: its preprocessor does not resize images", o->model_path);
    return size;
}

static int write_pixels(const char *path, const uint8_t *rgb, int size, struct ward_error *err)
{
    if (strcmp(path, "-") != 0)
        return image_write_ppm(path, rgb, size, size, err);
    char header[64];
    output_bytes(header, (size_t)snprintf(header, sizeof header, "P6\n%d %d\n255\n", size, size));
    output_bytes(rgb, (size_t)size * (size_t)size * 3);
    return 0;
}

static int run(int argc, char **argv)
{
    struct preprocess_options o = {0};
    struct ward_error err;
    parse(&o, argc, argv);
    use_open();
    struct offline_policy policy = {0};
    offline_allow(&policy, OFFLINE_READ, o.image_path);
    offline_allow(&policy, OFFLINE_OUTPUT, o.out);
    int rc = lock_allow_model(&policy, o.model_path, NULL, &err);
    if (rc)
        die_error(&err);
    lock_enforce(&policy);
    use_begin();

    int size = square_size(&o);
    ward_image *image;
    char warning[256];
    rc = ward_image_open(&image, o.image_path, &(struct ward_image_options){.pad = o.pad}, warning, &err);
    if (rc)
        die_error(&err);
    if (*warning)
        print_warning("%s: %s", o.image_path, warning);
    if (o.draw) {
        rc = draw_image(image, DRAW_COLUMNS, &err);
    } else {
        uint8_t *rgb = must_realloc(NULL, (size_t)size * (size_t)size, 3);
        rc = image_resize(image, size, size, rgb, NULL, &err);
        if (rc == 0)
            rc = write_pixels(o.out, rgb, size, &err);
        free(rgb);
    }
    ward_image_close(&image);
    if (rc)
        die_error(&err);
    return 0;
}
