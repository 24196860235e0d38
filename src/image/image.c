/* Images as the rest of ward sees them: sniffing, limits, hashing, padding, normalising, and the public calls. */
#include "image/image.h"

#include "base/mapping.h"
#include "base/new_file.h"
#include "base/private.h"
#include "image/formats.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIXELS UINT64_C(178956970) /* where Pillow raises DecompressionBombError: 512 MB of RGB */
#define MAX_FILE ((size_t)1 << 30)

/* ---- sniffing ---------------------------------------------------------------------------------------------------- */

static bool has(const uint8_t *bytes, size_t length, size_t at, const char *magic, size_t n)
{
    return length >= n && at <= length - n && !memcmp(bytes + at, magic, n);
}

/* The name of a format that ward does not read, or NULL. */
static const char *foreign_format(const uint8_t *bytes, size_t length)
{
    static const struct {
        size_t at;
        const char *magic;
        size_t n;
        const char *format;
    } FORMATS[] = {
        {128, "DICM", 4, "a DICOM file"},
        {0, "II*\0", 4, "a TIFF image"},
        {0, "MM\0*", 4, "a TIFF image"},
        {0, "II+\0", 4, "a BigTIFF image"},
        {0, "MM\0+", 4, "a BigTIFF image"},
        {0, "GIF87a", 6, "a GIF image"},
        {0, "GIF89a", 6, "a GIF image"},
        {0, "BM", 2, "a BMP image"},
        {8, "WEBP", 4, "a WebP image"},
        {4, "ftypavif", 8, "an AVIF image"},
        {4, "ftyphei", 7, "a HEIC image"},
        {4, "ftyphev", 7, "a HEIC image"},
        {4, "ftypmif1", 8, "a HEIC image"},
        {0, "\0\0\0\fjP  ", 8, "a JPEG 2000 image"},
        {0, "\xff\x4f\xff\x51", 4, "a JPEG 2000 image"},
        {0, "\0\0\0\fJXL ", 8, "a JPEG XL image"},
        {0, "\xff\x0a", 2, "a JPEG XL image"},
        {0, "%PDF-", 5, "a PDF document"},
        {0, "PK\x03\x04", 4, "a ZIP archive"},
        {0, "\x1f\x8b", 2, "a gzip archive"},
    };
    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++)
        if (has(bytes, length, FORMATS[i].at, FORMATS[i].magic, FORMATS[i].n))
            return FORMATS[i].format;
    return NULL;
}

static int refuse_format(const uint8_t *bytes, size_t length, const char *name, struct ward_error *err)
{
    if (!length)
        return error_set(err, WARD_EFORMAT, "%s: is empty; expected a JPEG or PNG image", name);
    const char *format = foreign_format(bytes, length);
    if (format)
        return error_set(err, WARD_EUNSUPPORTED, "%s: is %s; expected JPEG or PNG", name, format);
    return error_set(err, WARD_EFORMAT, "%s: is not an image (first byte %02x); expected JPEG or PNG", name, bytes[0]);
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

int image_allocate(struct ward_image *out, uint64_t width, uint64_t height, const char *format, const char *name,
                   struct ward_error *err)
{
    if (!width || !height)
        return error_set(err, WARD_EFORMAT, "%s: is a %s of %llu x %llu pixels; at least one each way is expected",
                         name, format, (unsigned long long)width, (unsigned long long)height);
    if (width > INT32_MAX || height > INT32_MAX || width * height > MAX_PIXELS)
        return error_set(err, WARD_EFORMAT, "%s: claims to be a %s of %llu x %llu pixels; at most %llu pixels are read",
                         name, format, (unsigned long long)width, (unsigned long long)height,
                         (unsigned long long)MAX_PIXELS);
    const size_t size = (size_t)(width * height * 3);
    out->rgb = malloc(size);
    if (!out->rgb)
        return error_no_memory(err, "an image", size);
    memory_keep_private(out->rgb, size);
    out->width = (int)width;
    out->height = (int)height;
    return 0;
}

static uint64_t rotate_left(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static uint64_t avalanche(uint64_t x)
{
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 29) * UINT64_C(0x9e3779b97f4a7c15);
    return x ^ x >> 32;
}

/* Two independent streams over the size and the pixels. Every step is a bijection of the state for a given word and of
 * the word for a given state, so images that differ in one word never collide; others do by a chance of 2^-128. */
static void hash_pixels(struct ward_image *image)
{
    const size_t n = (size_t)image->width * (size_t)image->height * 3;
    uint64_t a = (uint64_t)image->width * UINT64_C(0xff51afd7ed558ccd);
    uint64_t b = (uint64_t)image->height ^ UINT64_C(0x510e527fade682d1);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, image->rgb + i, n - i < 8 ? n - i : 8);
        a = rotate_left(a ^ word, 29) * UINT64_C(0x9fb21c651e98df25);
        b = rotate_left(b + word * UINT64_C(0xc2b2ae3d27d4eb4f), 31) * UINT64_C(0x9e3779b185ebca87);
    }
    image->hash[0] = avalanche(a ^ (uint64_t)image->height);
    image->hash[1] = avalanche(b ^ (uint64_t)image->width);
}

void image_clear(struct ward_image *image)
{
    free(image->rgb);
    *image = (struct ward_image){0};
}

int image_decode(struct ward_image *out, const uint8_t *bytes, size_t length, const char *name, char warning[256],
                 struct ward_error *err)
{
    *out = (struct ward_image){0};
    if (warning)
        warning[0] = '\0';
    struct image_source source = {.bytes = bytes, .length = length, .name = name};
    int rc;
    if (has(bytes, length, 0, "\xff\xd8\xff", 3))
        rc = image_decode_jpeg(out, &source, err);
    else if (has(bytes, length, 0, "\x89PNG\r\n\x1a\n", 8))
        rc = image_decode_png(out, &source, err);
    else
        rc = refuse_format(bytes, length, name, err);
    if (!rc)
        rc = image_orient(out, source.orientation, err);
    if (rc) {
        image_clear(out);
        return rc;
    }
    hash_pixels(out);
    if (warning)
        memcpy(warning, source.warning, sizeof source.warning);
    return 0;
}

int image_pad(struct ward_image *image, const char *name, struct ward_error *err)
{
    const size_t w = (size_t)image->width, h = (size_t)image->height, side = w > h ? w : h;
    if (w == h)
        return 0;
    if ((uint64_t)side * side > MAX_PIXELS)
        return error_set(err, WARD_EINVAL, "%s: %zu x %zu pixels cannot be padded: the square may have %llu", name, w,
                         h, (unsigned long long)MAX_PIXELS);
    uint8_t *square = calloc(side * side, 3);
    if (!square)
        return error_no_memory(err, "padding an image", side * side * 3);
    memory_keep_private(square, side * side * 3);
    const size_t left = (side - w) / 2, top = (side - h) / 2;
    for (size_t y = 0; y < h; y++)
        memcpy(square + ((top + y) * side + left) * 3, image->rgb + y * w * 3, w * 3);
    free(image->rgb);
    image->rgb = square;
    image->width = image->height = (int)side;
    hash_pixels(image);
    return 0;
}

struct patches {
    const uint8_t *in;
    int size, patch;
    float levels[3][256]; /* a pixel has only so many values */
    float *out;
};

/* A row of patches. */
static void fill_patches(void *arg, int task, int thread)
{
    const struct patches *p = arg;
    const int patch = p->patch, across = p->size / patch;
    float *out = p->out + (size_t)task * (size_t)across * 3 * (size_t)patch * (size_t)patch;
    (void)thread;
    for (int left = 0; left < across * patch; left += patch)
        for (int c = 0; c < 3; c++)
            for (int y = task * patch; y < (task + 1) * patch; y++) {
                const uint8_t *in = p->in + ((size_t)y * (size_t)p->size + (size_t)left) * 3;
                for (int x = 0; x < patch; x++)
                    *out++ = p->levels[c][in[3 * x + c]];
            }
}

void image_patches(const uint8_t *in, int size, int patch, double rescale, const double mean[3], const double std[3],
                   float *out, struct pool *pool)
{
    struct patches p = {.in = in, .size = size, .patch = patch, .out = out};
    for (int c = 0; c < 3; c++)
        for (int x = 0; x < 256; x++)
            p.levels[c][x] = ((float)(x * rescale) - (float)mean[c]) / (float)std[c];
    pool_run(pool, fill_patches, &p, size / patch);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

int image_write_ppm(const char *path, const uint8_t *rgb, int width, int height, struct ward_error *err)
{
    struct new_file file;
    char head[64];
    const int n = snprintf(head, sizeof head, "P6\n%d %d\n255\n", width, height);
    int rc = new_file_open(&file, path, err);
    if (rc)
        return rc;
    rc = new_file_write(&file, head, (size_t)n, err);
    if (!rc)
        rc = new_file_write(&file, rgb, (size_t)width * (size_t)height * 3, err);
    if (!rc)
        return new_file_commit(&file, err);
    new_file_discard(&file);
    return rc;
}

/* ---- the public calls -------------------------------------------------------------------------------------------- */

int ward_image_read(ward_image **out, const void *bytes, size_t length, const char *name,
                    const struct ward_image_options *options, char warning[256], struct ward_error *err)
{
    *out = NULL;
    ward_image *image = malloc(sizeof *image);
    if (!image)
        return error_no_memory(err, "an image", sizeof *image);
    if (!name)
        name = "image";
    int rc = image_decode(image, bytes, length, name, warning, err);
    if (!rc && options && options->pad)
        rc = image_pad(image, name, err);
    if (rc) {
        ward_image_close(&image);
        return rc;
    }
    *out = image;
    return 0;
}

int ward_image_open(ward_image **out, const char *path, const struct ward_image_options *options, char warning[256],
                    struct ward_error *err)
{
    *out = NULL;
    char *bytes;
    size_t length;
    /* Read, not mapped: a file that shrinks on a network share while it is decoded must not kill the process. */
    int rc = file_read(&bytes, &length, path, MAX_FILE, err);
    if (!rc)
        rc = ward_image_read(out, bytes, length, path, options, warning, err);
    free(bytes);
    return rc;
}

void ward_image_close(ward_image **image)
{
    if (!*image)
        return;
    image_clear(*image);
    free(*image);
    *image = NULL;
}
