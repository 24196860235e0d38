/* ward preprocess: the pixels that the model sees. */
#include "draw.h"
#include "options.h"
#include "output.h"

#include "base/mapping.h"
#include "image/image.h"
#include "model/config.h"
#include "model/locate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    char *folder;
    struct model_config *config = must_realloc(NULL, 1, sizeof *config);
    int rc = model_locate(&folder, o->model_path, &err);
    if (rc == 0) {
        rc = config_read(config, folder, &err);
        free(folder);
    }
    if (rc)
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

static bool write_whole(int fd, const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length) {
        ssize_t n = write(fd, at, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += n;
        length -= (size_t)n;
    }
    return true;
}

/* A failure leaves no file behind. */
static void write_ppm(const char *path, const uint8_t *rgb, int size)
{
    char header[64];
    size_t n_header = (size_t)snprintf(header, sizeof header, "P6\n%d %d\n255\n", size, size);
    size_t n_rgb = (size_t)size * (size_t)size * 3;
    if (strcmp(path, "-") == 0) {
        output_bytes(header, n_header);
        output_bytes(rgb, n_rgb);
        return;
    }
    FILE *file = fopen(path, "wbe");
    if (!file)
        die("%s: cannot be written: %s", path, strerror(errno));
    int fd = fileno(file);
    struct stat st;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    bool written = write_whole(fd, header, n_header) && write_whole(fd, rgb, n_rgb);
    int reason = errno;
    if (fclose(file) != 0 && written) {
        written = false;
        reason = errno;
    }
    if (written)
        return;
    if (regular)
        unlink(path);
    die("%s: cannot be written: %s", path, strerror(reason));
}

static void read_image(struct ward_image *image, const struct preprocess_options *o)
{
    struct ward_error err;
    struct mapping file;
    char warning[256] = "";
    int rc = mapping_open(&file, o->image_path, &err);
    if (rc == 0) {
        rc = image_decode(image, file.data, file.size, o->image_path, warning, &err);
        mapping_close(&file);
    }
    if (rc == 0 && o->pad) {
        rc = image_pad(image, o->image_path, &err);
        if (rc)
            image_clear(image);
    }
    if (rc)
        die_error(&err);
    if (*warning)
        print_warning("%s: %s", o->image_path, warning);
}

static int run(int argc, char **argv)
{
    struct preprocess_options o = {0};
    struct ward_error err;
    parse(&o, argc, argv);
    int size = square_size(&o);
    struct ward_image image;
    read_image(&image, &o);
    int rc;
    if (o.draw) {
        rc = draw_image(&image, DRAW_COLUMNS, &err);
    } else {
        uint8_t *rgb = must_realloc(NULL, (size_t)size * (size_t)size, 3);
        rc = image_resize(&image, size, size, rgb, &err);
        if (rc == 0)
            write_ppm(o.out, rgb, size);
        free(rgb);
    }
    image_clear(&image);
    if (rc)
        die_error(&err);
    return 0;
}
