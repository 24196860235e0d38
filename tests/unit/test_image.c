/* Images: pixels equal to Pillow's for files of every kind, the resize to the byte, and what is refused with which
 * sentence. The expected values come from tools/make_image_vectors.py. Run from the root of the repository. */
#include "image/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define VECTORS "tests/vectors/images/"

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static uint32_t crc32_of(uint32_t crc, const void *bytes, size_t n)
{
    const uint8_t *byte = bytes;
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= byte[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static uint8_t *load(const char *name, size_t *length)
{
    char path[256];
    snprintf(path, sizeof path, "%s%s", VECTORS, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s cannot be read: run from the root of the repository", path);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *length = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*length);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *length, file), *length);
    fclose(file);
    return bytes;
}

static struct ward_image decode(const char *name)
{
    size_t length;
    uint8_t *bytes = load(name, &length);
    struct ward_image image;
    struct ward_error err = {0};
    if (image_decode(&image, bytes, length, name, NULL, &err))
        fail_msg("%s", err.text);
    free(bytes);
    return image;
}

/* Expects a refusal with this code, whose sentence begins with the name and holds `text`. */
static void refuse(const uint8_t *bytes, size_t length, int code, const char *text)
{
    struct ward_image image;
    struct ward_error err = {0};
    char warning[256] = "left over";
    assert_int_equal(image_decode(&image, bytes, length, "film", warning, &err), code);
    assert_int_equal(err.code, code);
    assert_null(image.rgb);
    assert_string_equal(warning, "");
    if (strncmp(err.text, "film: ", 6) != 0 || !strstr(err.text, text))
        fail_msg("expected \"%s\" in: %s", text, err.text);
    assert_int_equal(image_decode(&image, bytes, length, "film", NULL, NULL), code);
}

/* As noise() of make_image_vectors.py. */
static void fill_noise(uint8_t *out, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v = ((uint32_t)i + seed * 7919u) * 2654435761u;
        v = (v ^ v >> 15) * 2246822519u;
        out[i] = (uint8_t)(v >> 24);
    }
}

static void put_big_endian(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
}

static size_t put_chunk(uint8_t *out, const char *kind, const void *data, uint32_t n)
{
    put_big_endian(out, n);
    memcpy(out + 4, kind, 4);
    if (n)
        memcpy(out + 8, data, n);
    put_big_endian(out + 8 + n, crc32_of(0, out + 4, n + 4));
    return n + 12;
}

/* A PNG that claims this size and holds next to nothing. */
static size_t put_png_claim(uint8_t *out, uint32_t width, uint32_t height)
{
    uint8_t header[13] = {[8] = 8, [9] = 2};
    size_t n = 8;
    put_big_endian(header, width);
    put_big_endian(header + 4, height);
    memcpy(out, "\x89PNG\r\n\x1a\n", 8);
    n += put_chunk(out + n, "IHDR", header, sizeof header);
    n += put_chunk(out + n, "IDAT", "\x78\x9c\x03\0\0\0\0\1", 8);
    return n + put_chunk(out + n, "IEND", NULL, 0);
}

/* ---- equal to Pillow and transformers ---------------------------------------------------------------------------- */

static void test_decode(void **state)
{
    (void)state;
    FILE *table = fopen(VECTORS "decode.txt", "r");
    assert_non_null(table);
    char line[256], name[128], warns[16];
    int width, height, n = 0;
    unsigned crc;
    while (fgets(line, sizeof line, table)) {
        const int fields = sscanf(line, "%127s %d %d %x %15s", name, &width, &height, &crc, warns);
        assert_true(fields >= 4);
        size_t length;
        uint8_t *bytes = load(name, &length);
        struct ward_image image;
        struct ward_error err = {0};
        char warning[256] = "left over";
        if (image_decode(&image, bytes, length, name, warning, &err))
            fail_msg("%s", err.text);
        if (image.width != width || image.height != height ||
            crc32_of(0, image.rgb, (size_t)width * (size_t)height * 3) != crc)
            fail_msg("%s: the pixels differ from Pillow's", name);
        if ((fields == 5) != (warning[0] != '\0'))
            fail_msg("%s: warning \"%s\"", name, warning);
        image_clear(&image);
        assert_null(image.rgb);
        free(bytes);
        n++;
    }
    fclose(table);
    assert_true(n >= 80);
}

static void test_resize(void **state)
{
    (void)state;
    FILE *table = fopen(VECTORS "resize.txt", "r");
    assert_non_null(table);
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 3, NULL), 0);
    unsigned seed, crc;
    int width, height, out_width, out_height, n = 0;
    while (fscanf(table, "%u %d %d %d %d %x", &seed, &width, &height, &out_width, &out_height, &crc) == 6) {
        const size_t in_size = (size_t)width * (size_t)height * 3;
        const size_t out_size = (size_t)out_width * (size_t)out_height * 3;
        struct ward_image image = {.width = width, .height = height, .rgb = malloc(in_size)};
        uint8_t *out = malloc(out_size);
        assert_true(image.rgb && out);
        fill_noise(image.rgb, in_size, seed);
        assert_int_equal(image_resize(&image, out_width, out_height, out, n % 2 ? pool : NULL, NULL), 0);
        if (crc32_of(0, out, out_size) != crc)
            fail_msg("%d x %d -> %d x %d: differs from Pillow", width, height, out_width, out_height);
        free(out);
        image_clear(&image);
        n++;
    }
    fclose(table);
    pool_close(&pool);
    assert_true(n >= 200);
}

static void test_resize_refuses(void **state)
{
    (void)state;
    uint8_t pixel[3] = {1, 2, 3}, out[3];
    const struct ward_image image = {.width = 1, .height = 1, .rgb = pixel};
    struct ward_error err = {0};
    assert_int_equal(image_resize(&image, 0, 5, out, NULL, &err), WARD_EINVAL);
    assert_non_null(strstr(err.text, "0 x 5"));
    assert_int_equal(image_resize(&image, 5, -1, out, NULL, NULL), WARD_EINVAL);
}

static void test_normalize(void **state)
{
    (void)state;
    FILE *table = fopen(VECTORS "normalize.txt", "r");
    assert_non_null(table);
    uint8_t ramp[16 * 16 * 3];
    for (size_t i = 0; i < sizeof ramp; i++)
        ramp[i] = (uint8_t)(i / 3);
    double rescale, mean[3], std[3];
    unsigned crc;
    int n = 0;
    while (fscanf(table, "%lf %lf %lf %lf %lf %lf %lf %x", &rescale, &mean[0], &mean[1], &mean[2], &std[0], &std[1],
                  &std[2], &crc) == 8) {
        float out[3 * 16 * 16];
        image_patches(ramp, 16, 16, rescale, mean, std, out, NULL); /* one patch: its planes */
        assert_int_equal(crc32_of(0, out, sizeof out), crc);
        n++;
    }
    fclose(table);
    assert_int_equal(n, 3);
}

/* Patches in rows, each in planes. */
static void test_patches(void **state)
{
    (void)state;
    enum { SIZE = 12, PATCH = 4, ACROSS = SIZE / PATCH };
    static const double zeros[3], ones[3] = {1, 1, 1};
    uint8_t rgb[SIZE * SIZE * 3];
    float out[SIZE * SIZE * 3];
    struct pool *pool;
    assert_int_equal(pool_open(&pool, 2, NULL), 0);
    fill_noise(rgb, sizeof rgb, 3);
    image_patches(rgb, SIZE, PATCH, 1, zeros, ones, out, pool);
    for (int y = 0; y < SIZE; y++)
        for (int x = 0; x < SIZE; x++)
            for (int c = 0; c < 3; c++) {
                const int patch = y / PATCH * ACROSS + x / PATCH, in = (c * PATCH + y % PATCH) * PATCH + x % PATCH;
                assert_true(out[patch * 3 * PATCH * PATCH + in] == (float)rgb[(y * SIZE + x) * 3 + c]);
            }
    pool_close(&pool);
}

/* ---- padding and hashes ------------------------------------------------------------------------------------------ */

static void test_pad(void **state)
{
    (void)state;
    static const struct {
        int width, height, left, top;
    } cases[] = {{5, 2, 0, 1}, {2, 5, 1, 0}, {4, 4, 0, 0}, {1, 4, 1, 0}, {6, 1, 0, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int w = cases[i].width, h = cases[i].height, side = w > h ? w : h;
        struct ward_image image = {.width = w, .height = h, .rgb = malloc((size_t)(w * h * 3))};
        assert_non_null(image.rgb);
        memset(image.rgb, 200, (size_t)(w * h * 3));
        assert_int_equal(image_pad(&image, "film", NULL), 0);
        assert_int_equal(image.width, side);
        assert_int_equal(image.height, side);
        for (int y = 0; y < side; y++)
            for (int x = 0; x < side; x++) {
                const int in_x = x - cases[i].left, in_y = y - cases[i].top;
                const bool inside = in_x >= 0 && in_x < w && in_y >= 0 && in_y < h;
                for (int c = 0; c < 3; c++)
                    assert_int_equal(image.rgb[(y * side + x) * 3 + c], inside ? 200 : 0);
            }
        image_clear(&image);
    }
}

static void test_pad_refuses(void **state)
{
    (void)state;
    uint8_t *row = calloc(100000, 3);
    struct ward_image image = {.width = 100000, .height = 1, .rgb = row};
    struct ward_error err = {0};
    assert_int_equal(image_pad(&image, "film", &err), WARD_EINVAL);
    assert_non_null(strstr(err.text, "film: 100000 x 1 pixels"));
    assert_ptr_equal(image.rgb, row);
    assert_int_equal(image.width, 100000);
    free(row);
}

static void test_hash(void **state)
{
    (void)state;
    struct ward_image a = decode("rgb8.png"), b = decode("rgb8-interlaced.png"), c = decode("gray8.png");
    assert_memory_equal(a.hash, b.hash, sizeof a.hash); /* other bytes, same pixels */
    assert_true(a.hash[0] != c.hash[0] && a.hash[1] != c.hash[1]);
    const uint64_t before[2] = {a.hash[0], a.hash[1]};
    assert_int_equal(image_pad(&a, "film", NULL), 0);
    assert_true(a.hash[0] != before[0] && a.hash[1] != before[1]);
    image_clear(&a);
    image_clear(&b);
    image_clear(&c);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void test_other_formats(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        int code;
        const char *text;
    } cases[] = {
        {"", 0, WARD_EFORMAT, "is empty; expected a JPEG or PNG"},
        {"\xff\xd8", 2, WARD_EFORMAT, "expected JPEG or PNG"},
        {"hello, doctor", 13, WARD_EFORMAT, "is not an image (first byte 68); expected JPEG or PNG"},
        {"II*\0\x08\0\0\0", 8, WARD_EUNSUPPORTED, "is a TIFF image; expected JPEG or PNG"},
        {"MM\0*\0\0\0\x08", 8, WARD_EUNSUPPORTED, "is a TIFF image"},
        {"GIF89a\1\0\1\0", 10, WARD_EUNSUPPORTED, "is a GIF image"},
        {"BM\1\2\3\4", 6, WARD_EUNSUPPORTED, "is a BMP image"},
        {"RIFF\1\2\3\4WEBPVP8 ", 16, WARD_EUNSUPPORTED, "is a WebP image"},
        {"\0\0\0\x18" "ftypheic\0\0\0\0", 16, WARD_EUNSUPPORTED, "is a HEIC image"},
        {"\0\0\0\x18" "ftypavif\0\0\0\0", 16, WARD_EUNSUPPORTED, "is an AVIF image"},
        {"%PDF-1.7\n", 9, WARD_EUNSUPPORTED, "is a PDF document"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse((const uint8_t *)cases[i].bytes, cases[i].length, cases[i].code, cases[i].text);
    uint8_t dicom[200] = {0};
    memcpy(dicom + 128, "DICM", 4);
    refuse(dicom, sizeof dicom, WARD_EUNSUPPORTED, "is a DICOM file; expected JPEG or PNG");
    refuse(dicom, 131, WARD_EFORMAT, "first byte 00");
}

static void test_sizes(void **state)
{
    (void)state;
    uint8_t png[128];
    static const struct {
        uint32_t width, height;
        const char *text;
    } cases[] = {
        {100000, 100000, "100000 x 100000 pixels; at most 178956970 pixels"},
        {13378, 13377, "13378 x 13377 pixels; at most 178956970 pixels"},
        {1000001, 1, "1000001 x 1 pixels; at most 1000000 a side"},
        {1, 0x7fffffff, "1 x 2147483647 pixels; at most 1000000 a side"},
        {0, 10, "damaged PNG"},
        {10, 0, "damaged PNG"},
        {0x80000000, 10, "damaged PNG"},
        {13377, 13377, "damaged PNG"}, /* allowed, but the pixels are missing */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(png, put_png_claim(png, cases[i].width, cases[i].height), WARD_EFORMAT, cases[i].text);

    const size_t whole = put_png_claim(png, 8, 8);
    put_big_endian(png + 33, 0x20000000); /* the length of the second chunk */
    memcpy(png + 37, "eXIf", 4);
    refuse(png, whole, WARD_EFORMAT, "more than 128 MB of text and EXIF data");

    size_t length;
    uint8_t *jpeg = load("gray.jpg", &length);
    uint8_t *frame = memmem(jpeg, length, "\xff\xc0", 2);
    assert_non_null(frame);
    memset(frame + 5, 0xfd, 4); /* 65021 x 65021 */
    refuse(jpeg, length, WARD_EFORMAT, "65021 x 65021 pixels; at most 178956970 pixels");
    memset(frame + 5, 0, 2);
    refuse(jpeg, length, WARD_EFORMAT, "damaged JPEG");
    free(jpeg);
}

static size_t put(uint8_t *out, const char *bytes, size_t n)
{
    memcpy(out, bytes, n);
    return n;
}
#define PUT(out, text) put(out, text, sizeof(text) - 1)

/* A gray progressive JPEG of arithmetic code that ends at once: libjpeg reads zeros on, so each scan of 12 bytes goes
 * over the whole image. */
static size_t put_jpeg_scans(uint8_t *out, int side, int scans)
{
    size_t n = PUT(out, "\xff\xd8\xff\xdb\0\x43\0");
    memset(out + n, 1, 64);
    n += 64;
    n += PUT(out + n, "\xff\xca\0\x0b\x08");
    for (int i = 0; i < 4; i++)
        out[n++] = (uint8_t)(side >> (i % 2 ? 0 : 8));
    n += PUT(out + n, "\1\1\x11\0");
    for (int i = 0; i < scans; i++) {
        /* the sum of the pixels of a block, then the single frequencies, each with its low bits left out at first */
        const uint8_t band = (uint8_t)(i / 14), low = (uint8_t)(13 - i % 14);
        n += PUT(out + n, "\xff\xda\0\x08\1\1\0");
        out[n++] = band;
        out[n++] = band;
        out[n++] = (uint8_t)(i % 14 ? (low + 1) << 4 | low : low);
        n += PUT(out + n, "\0\0");
    }
    return n + PUT(out + n, "\xff\xd9");
}

/* A few hundred bytes must not keep the decoder busy for minutes. */
static void test_jpeg_scans(void **state)
{
    (void)state;
    static uint8_t jpeg[8192];
    refuse(jpeg, put_jpeg_scans(jpeg, 8, 501), WARD_EFORMAT, "501 scans or more of 8 x 8 pixels; at most 500");
    refuse(jpeg, put_jpeg_scans(jpeg, 13377, 30), WARD_EFORMAT, "23 scans or more of 13377 x 13377 pixels");
    struct ward_image image;
    assert_int_equal(image_decode(&image, jpeg, put_jpeg_scans(jpeg, 8, 500), "film", NULL, NULL), 0);
    image_clear(&image);
}

static void test_jpeg_kinds(void **state)
{
    (void)state;
    size_t length;
    uint8_t *jpeg = load("gray.jpg", &length);
    uint8_t *frame = memmem(jpeg, length, "\xff\xc0", 2);
    assert_non_null(frame);
    frame[4] = 12;
    refuse(jpeg, length, WARD_EUNSUPPORTED, "expected 8-bit baseline or progressive");
    frame[4] = 8;
    frame[1] = 0xc7; /* differential lossless */
    refuse(jpeg, length, WARD_EUNSUPPORTED, "expected 8-bit baseline or progressive");
    free(jpeg);
}

static void test_palette_index(void **state)
{
    (void)state;
    uint8_t png[128], header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 3, 0, 0, 0};
    /* One pixel of colour 3, stored uncompressed: filter byte, index. */
    const uint8_t data[] = {0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 3, 0, 5, 0, 4};
    size_t n = 8;
    memcpy(png, "\x89PNG\r\n\x1a\n", 8);
    n += put_chunk(png + n, "IHDR", header, sizeof header);
    n += put_chunk(png + n, "PLTE", "\1\2\3\4\5\6", 6);
    n += put_chunk(png + n, "IDAT", data, sizeof data);
    n += put_chunk(png + n, "IEND", NULL, 0);
    refuse(png, n, WARD_EFORMAT, "colour 3 of a palette of 2");
}

/* ---- damage ------------------------------------------------------------------------------------------------------ */

static const char *const DAMAGED[] = {
    "gray1-interlaced.png", "palette4.png",       "rgba16-interlaced.png", "gray16-alpha.png",
    "exif-raw-profile.png", "xmp-compressed.png", "profile-bomb.png",      "animated.png",
    "exif3.png",            "ycc420-restart.jpg", "arithmetic.jpg",        "ycc420-progressive.jpg",
    "ycck.jpg",             "exif6.jpg",          "exif-split.jpg",        "xmp.jpg",
    "gray.jpg",
};

/* Decodes damaged bytes: they give an image or one sentence, and both outputs are consistent. */
static int decode_damaged(const uint8_t *bytes, size_t length, uint64_t hash[2])
{
    /* An exact copy, so that a sanitizer sees a read past its end. */
    uint8_t *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    if (length)
        memcpy(copy, bytes, length);
    struct ward_image image;
    struct ward_error err = {0};
    char warning[256];
    const int rc = image_decode(&image, copy, length, "film", warning, &err);
    if (rc) {
        assert_int_equal(err.code, rc);
        assert_int_equal(strncmp(err.text, "film: ", 6), 0);
        assert_null(image.rgb);
    } else {
        assert_true(image.width > 0 && image.height > 0 && image.rgb);
        memcpy(hash, image.hash, sizeof image.hash);
    }
    image_clear(&image);
    free(copy);
    return rc;
}

static void test_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof DAMAGED / sizeof *DAMAGED; i++) {
        size_t length, lost = 0;
        uint8_t *bytes = load(DAMAGED[i], &length);
        uint64_t whole[2], part[2];
        assert_int_equal(decode_damaged(bytes, length, whole), 0);
        for (size_t n = 0; n < length; n++)
            if (decode_damaged(bytes, n, part) == 0) {
                /* Only the end marker of a JPEG may be missing: then every pixel is there. */
                lost = length - n > lost ? length - n : lost;
                assert_memory_equal(part, whole, sizeof whole);
            }
        if (lost > (strstr(DAMAGED[i], ".jpg") ? 3u : 0u))
            fail_msg("%s: decodes without its last %zu bytes", DAMAGED[i], lost);
        free(bytes);
    }
}

static uint32_t random_next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static uint32_t read_big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Makes the checksums of a PNG's chunks right again, so that the damage reaches what reads them. */
static void mend_checksums(uint8_t *png, size_t length)
{
    for (size_t at = 8; length >= 12 && at <= length - 12;) {
        const uint32_t n = read_big_endian(png + at);
        if (n > length - 12 - at)
            return;
        put_big_endian(png + at + 8 + n, crc32_of(0, png + at + 4, (size_t)n + 4));
        at += (size_t)n + 12;
    }
}

static void test_flipped(void **state)
{
    (void)state;
    uint32_t seed = 20;
    int refused = 0, tried = 0;
    for (size_t i = 0; i < sizeof DAMAGED / sizeof *DAMAGED; i++) {
        size_t length;
        uint8_t *bytes = load(DAMAGED[i], &length);
        uint8_t *damaged = malloc(length);
        assert_non_null(damaged);
        for (int round = 0; round < 400; round++, tried++) {
            memcpy(damaged, bytes, length);
            for (uint32_t flips = 1 + random_next(&seed) % 4; flips; flips--)
                damaged[random_next(&seed) % length] ^= (uint8_t)(1u << random_next(&seed) % 8);
            if (round & 1 && strstr(DAMAGED[i], ".png"))
                mend_checksums(damaged, length);
            uint64_t hash[2];
            refused += decode_damaged(damaged, length, hash) != 0;
        }
        free(damaged);
        free(bytes);
    }
    assert_true(refused > tried / 3 && refused < tried);
}

/* Every single flipped bit of a PNG is noticed: all its bytes are under a checksum, or structure. */
static void test_png_checksums(void **state)
{
    (void)state;
    size_t length;
    uint8_t *bytes = load("one-pixel.png", &length);
    for (size_t i = 0; i < length * 8; i++) {
        uint64_t hash[2];
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_true(decode_damaged(bytes, length, hash) != 0);
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    free(bytes);
}

/* A JPEG whose entropy-coded data is damaged is refused, though libjpeg would invent the rest of the pixels. */
static void test_jpeg_data(void **state)
{
    (void)state;
    size_t length;
    uint8_t *bytes = load("ycc420-restart.jpg", &length);
    uint8_t *scan = memmem(bytes, length, "\xff\xda", 2);
    assert_non_null(scan);
    memset(scan + 40, 0xff, 30);
    refuse(bytes, length, WARD_EFORMAT, "damaged JPEG");
    free(bytes);
}

/* What decodes, but not as it was meant, comes with a warning. */
static void test_jpeg_warnings(void **state)
{
    (void)state;
    size_t length;
    uint8_t *bytes = load("ycc420-progressive.jpg", &length), *cut = bytes;
    const uint8_t *end = bytes + length;
    for (uint8_t *scan = bytes; (scan = memmem(scan, (size_t)(end - scan), "\xff\xc4", 2)) != NULL; scan += 2)
        cut = scan; /* the tables of the last scan */
    memcpy(cut, "\xff\xd9", 2);
    struct ward_image image;
    char warning[256];
    assert_int_equal(image_decode(&image, bytes, (size_t)(cut - bytes) + 2, "film", warning, NULL), 0);
    assert_non_null(strstr(warning, "lacks its last progressive scans"));
    image_clear(&image);
    free(bytes);

    bytes = load("gray.jpg", &length);
    uint8_t *padded = malloc(length + 3);
    assert_non_null(padded);
    const size_t first = 4 + bytes[5]; /* SOI and a short first segment */
    memcpy(padded, bytes, first);
    memset(padded + first, 0x11, 3);
    memcpy(padded + first + 3, bytes + first, length - first);
    assert_int_equal(image_decode(&image, padded, length + 3, "film", warning, NULL), 0);
    assert_non_null(strstr(warning, "stray bytes"));
    image_clear(&image);
    free(padded);
    free(bytes);
}

/* ---- files and the public calls ---------------------------------------------------------------------------------- */

static void test_public(void **state)
{
    (void)state;
    ward_image *image, *same, *padded;
    struct ward_error err = {0};
    char warning[256] = "left over";
    assert_int_equal(ward_image_open(&image, VECTORS "rgb8.png", NULL, warning, &err), 0);
    assert_string_equal(warning, "");
    assert_int_equal(image->width, 37);
    assert_int_equal(image->height, 23);

    size_t length;
    uint8_t *bytes = load("rgb8.png", &length);
    assert_int_equal(ward_image_read(&same, bytes, length, NULL, NULL, NULL, NULL), 0);
    assert_memory_equal(image->hash, same->hash, sizeof image->hash);
    const struct ward_image_options options = {.pad = true};
    assert_int_equal(ward_image_read(&padded, bytes, length, "x", &options, NULL, NULL), 0);
    assert_int_equal(padded->width, 37);
    assert_int_equal(padded->height, 37);
    free(bytes);
    ward_image_close(&image);
    ward_image_close(&same);
    ward_image_close(&padded);
    assert_null(image);
    ward_image_close(&image);

    assert_int_equal(ward_image_open(&image, VECTORS "gray16.png", NULL, warning, &err), 0);
    assert_non_null(strstr(warning, "16-bit grayscale"));
    ward_image_close(&image);
}

static void test_public_refuses(void **state)
{
    (void)state;
    ward_image *image = (ward_image *)16;
    struct ward_error err = {0};
    assert_int_equal(ward_image_open(&image, VECTORS "absent.png", NULL, NULL, &err), WARD_EIO);
    assert_null(image);
    assert_non_null(strstr(err.text, VECTORS "absent.png: "));
    image = (ward_image *)16;
    assert_int_equal(ward_image_open(&image, VECTORS, NULL, NULL, &err), WARD_EIO);
    assert_null(image);
    image = (ward_image *)16;
    assert_int_equal(ward_image_open(&image, VECTORS "decode.txt", NULL, NULL, &err), WARD_EFORMAT);
    assert_null(image);
    assert_non_null(strstr(err.text, VECTORS "decode.txt: is not an image"));
    image = (ward_image *)16;
    assert_int_equal(ward_image_read(&image, "abc", 3, NULL, NULL, NULL, &err), WARD_EFORMAT);
    assert_null(image);
    assert_non_null(strstr(err.text, "image: is not an image"));
}

static void test_ppm(void **state)
{
    (void)state;
    char folder[] = "/tmp/ward-test-image-XXXXXX", path[128], got[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/film.ppm", folder);
    const uint8_t rgb[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};
    static const char expected[] = "P6\n2 3\n255\n\1\2\3\4\5\6\7\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12";
    for (int again = 0; again < 2; again++) { /* the second replaces the first */
        assert_int_equal(image_write_ppm(path, rgb, 2, 3, NULL), 0);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        assert_int_equal(fread(got, 1, sizeof got, file), sizeof expected - 1);
        assert_memory_equal(got, expected, sizeof expected - 1);
        fclose(file);
    }
    struct ward_error err = {0};
    assert_int_equal(image_write_ppm("/dev/null", rgb, 2, 3, &err), 0);
    struct stat st;
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode)); /* written to, not replaced */
    assert_int_equal(image_write_ppm("/dev/full", rgb, 2, 3, &err), WARD_EIO);
    assert_non_null(strstr(err.text, "/dev/full: "));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing else was left in it */
    assert_int_equal(image_write_ppm(path, rgb, 2, 3, &err), WARD_EIO);
    assert_non_null(strstr(err.text, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),         cmocka_unit_test(test_resize),
        cmocka_unit_test(test_resize_refuses), cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_patches),
        cmocka_unit_test(test_pad),            cmocka_unit_test(test_pad_refuses),
        cmocka_unit_test(test_hash),           cmocka_unit_test(test_other_formats),
        cmocka_unit_test(test_sizes),          cmocka_unit_test(test_jpeg_kinds),
        cmocka_unit_test(test_palette_index),  cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_flipped),        cmocka_unit_test(test_png_checksums),
        cmocka_unit_test(test_jpeg_data),      cmocka_unit_test(test_jpeg_warnings),
        cmocka_unit_test(test_public),         cmocka_unit_test(test_public_refuses),
        cmocka_unit_test(test_ppm),            cmocka_unit_test(test_jpeg_scans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
