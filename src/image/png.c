/* PNG through libpng, to the pixels that Pillow's convert("RGB") gives, except 16-bit grayscale (docs/images.md). */
#include "image/formats.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

enum {
    MAX_SIDE = 1000000,      /* libpng's own limit: it allocates whole rows before it has seen any data */
    MAX_CHUNK = 8 << 20,     /* bytes of one text or EXIF chunk, decompressed */
    MAX_CHUNKS_KEPT = 1000,
    MAX_MEMORY = 128 << 20,  /* bytes that libpng may take in all; its rows need 24 MB at most */
};

struct png {
    png_structp png;
    png_infop info, end;     /* what came before the pixels, and after */
    const uint8_t *next;
    size_t left;
    size_t taken;            /* bytes of memory, without what was freed */
    struct image_source *source;
    struct ward_error *err;
    int rc;                  /* what was put into err before escaping */
    size_t sample;           /* bytes of a pixel as libpng hands it over: 1 gray or index, 2 gray of 16 bits, 3 RGB */
    uint8_t *exif;           /* decoded from a hexadecimal text chunk */
};

/* ---- libpng's callbacks ------------------------------------------------------------------------------------------ */

static void fail(png_structp p, png_const_charp text)
{
    struct png *png = png_get_error_ptr(p);
    if (!png->rc) /* else the sentence is already there */
        png->rc = error_set(png->err, WARD_EFORMAT, "%s: is a damaged PNG file: %s", png->source->name, text);
    png_longjmp(p, 1);
}

static void ignore_warning(png_structp p, png_const_charp text)
{
    (void)p;
    (void)text;
}

/* libpng keeps every text decompressed, and takes memory for an eXIf chunk of any size before it has seen its data. */
static png_voidp take_memory(png_structp p, png_alloc_size_t n)
{
    struct png *png = png_get_mem_ptr(p);
    if (n > MAX_MEMORY - png->taken) {
        png->rc = error_set(png->err, WARD_EFORMAT, "%s: is a PNG file with more than %d MB of text and EXIF data",
                            png->source->name, MAX_MEMORY >> 20);
        png_error(p, "memory");
    }
    png->taken += n;
    return malloc(n);
}

static void free_memory(png_structp p, png_voidp memory)
{
    (void)p;
    free(memory);
}

static void read_input(png_structp p, png_bytep out, size_t n)
{
    struct png *png = png_get_io_ptr(p);
    if (n > png->left) {
        png->rc = error_set(png->err, WARD_EFORMAT, "%s: is a truncated PNG file: its data ends after %zu bytes",
                            png->source->name, png->source->length);
        png_error(p, "truncated");
    }
    memcpy(out, png->next, n);
    png->next += n;
    png->left -= n;
}

/* ---- orientation ------------------------------------------------------------------------------------------------- */

/* ImageMagick's "Raw profile type exif": three lines of heading, then hexadecimal digits. */
static int orientation_from_raw_profile(struct png *png, const char *text)
{
    for (int line = 0; line < 3; line++) {
        text = strchr(text, '\n');
        if (!text)
            return 0;
        text++;
    }
    free(png->exif);
    png->exif = malloc(strlen(text) / 2 + 1);
    if (!png->exif)
        return 0;
    size_t digits = 0;
    uint8_t byte = 0;
    for (; *text; text++) {
        static const char HEX[] = "0123456789abcdef";
        if (strchr(" \t\r\n\v\f", *text))
            continue;
        const char *digit = strchr(HEX, *text >= 'A' && *text <= 'F' ? *text + ('a' - 'A') : *text);
        if (!digit)
            return 0;
        byte = (uint8_t)(byte << 4 | (digit - HEX));
        if (digits++ & 1)
            png->exif[digits / 2 - 1] = byte;
    }
    return image_exif_orientation(png->exif, digits / 2);
}

/* The last text chunk with this key, before or after the pixels. */
static const char *find_text(struct png *png, const char *key)
{
    const png_infop infos[2] = {png->end, png->info};
    for (int i = 0; i < 2; i++) {
        png_textp texts;
        const int n = png_get_text(png->png, infos[i], &texts, NULL);
        for (int j = n - 1; j >= 0; j--)
            if (texts[j].key && texts[j].text && !strcmp(texts[j].key, key))
                return texts[j].text;
    }
    return NULL;
}

/* In Pillow's order: the eXIf chunk, else the raw profile; XMP only where that was silent. */
static void find_orientation(struct png *png)
{
    png_uint_32 length;
    png_bytep exif;
    const char *text;
    int orientation = 0;
    if (png_get_eXIf_1(png->png, png->info, &length, &exif) || png_get_eXIf_1(png->png, png->end, &length, &exif))
        orientation = image_exif_orientation(exif, length);
    else if ((text = find_text(png, "Raw profile type exif")) != NULL)
        orientation = orientation_from_raw_profile(png, text);
    if (!orientation && (text = find_text(png, "XML:com.adobe.xmp")) != NULL)
        orientation = image_xmp_orientation(text, strlen(text));
    png->source->orientation = orientation;
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

/* Raw pixels lie at the end of the RGB buffer, so that they can be spread out in place, front to back. */
static uint8_t *raw_pixels(const struct ward_image *out, size_t sample)
{
    return out->rgb + (size_t)out->width * (size_t)out->height * (3 - sample);
}

static void spread_gray(struct ward_image *out)
{
    const size_t n = (size_t)out->width * (size_t)out->height;
    const uint8_t *raw = raw_pixels(out, 1);
    for (size_t i = 0; i < n; i++) {
        const uint8_t value = raw[i];
        out->rgb[3 * i] = out->rgb[3 * i + 1] = out->rgb[3 * i + 2] = value;
    }
}

static int spread_palette(struct ward_image *out, struct png *png)
{
    png_colorp palette = NULL;
    int entries = 0;
    png_get_PLTE(png->png, png->info, &palette, &entries);
    const size_t n = (size_t)out->width * (size_t)out->height;
    const uint8_t *raw = raw_pixels(out, 1);
    for (size_t i = 0; i < n; i++) {
        const int index = raw[i];
        if (index >= entries)
            return error_set(png->err, WARD_EFORMAT,
                             "%s: is a damaged PNG file: a pixel has colour %d of a palette of %d colours",
                             png->source->name, index, entries);
        out->rgb[3 * i] = palette[index].red;
        out->rgb[3 * i + 1] = palette[index].green;
        out->rgb[3 * i + 2] = palette[index].blue;
    }
    return 0;
}

/* Which value of 16-bit samples is white, and how far to shift them right first. By the PNG specification a sample of
 * fewer significant bits (sBIT) fills the high bits, the low ones being zero or a repetition. Exporters that leave it
 * in the low bits are told apart: then no sample reaches above them, and some sample has bits where the specification's
 * dark image has none. Without sBIT the largest value is white. */
static unsigned white_of_16_bits(const uint8_t *raw, size_t n, int significant, int *shift)
{
    unsigned all = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned value = (unsigned)raw[2 * i] << 8 | raw[2 * i + 1];
        all |= value;
        if (value > largest)
            largest = value;
    }
    *shift = 0;
    if (!significant)
        return largest;
    const unsigned white = (1u << significant) - 1, low = (1u << (16 - significant)) - 1;
    if (all > white || !(all & low))
        *shift = 16 - significant;
    return white;
}

static void spread_16_bits(struct ward_image *out, struct png *png)
{
    const size_t n = (size_t)out->width * (size_t)out->height;
    const uint8_t *raw = raw_pixels(out, 2);
    png_color_8p bits = NULL;
    int significant = png_get_sBIT(png->png, png->info, &bits) ? bits->gray : 0;
    if (significant < 1 || significant > 16)
        significant = 0;
    int shift;
    const unsigned white = white_of_16_bits(raw, n, significant, &shift);
    for (size_t i = 0; i < n; i++) {
        const unsigned value = ((unsigned)raw[2 * i] << 8 | raw[2 * i + 1]) >> shift;
        const uint8_t scaled = white ? (uint8_t)((value * 255 + white / 2) / white) : 0;
        out->rgb[3 * i] = out->rgb[3 * i + 1] = out->rgb[3 * i + 2] = scaled;
    }
    if (!significant)
        snprintf(png->source->warning, sizeof png->source->warning,
                 "16-bit grayscale that does not say its depth (sBIT): scaled so that its largest value is white");
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* Asks libpng for indices as they are, gray of 8 or 16 bits, or RGB of 8 bits: alpha and low bytes are dropped. */
static void set_transforms(struct png *png, int depth, int type)
{
    png_structp p = png->png;
    png->sample = type & PNG_COLOR_MASK_PALETTE || !(type & PNG_COLOR_MASK_COLOR) ? 1 : 3;
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_packing(p);
    else if (type == PNG_COLOR_TYPE_GRAY && depth < 8)
        png_set_expand_gray_1_2_4_to_8(p);
    if (type & PNG_COLOR_MASK_ALPHA)
        png_set_strip_alpha(p);
    if (depth == 16 && type & PNG_COLOR_MASK_COLOR)
        png_set_strip_16(p);
    else if (depth == 16)
        png->sample = 2;
}

/* Escapes by longjmp on every failure. */
static void decode(struct png *png, struct ward_image *out)
{
    png_structp p = png->png;
    /* Nothing of these changes a pixel in Pillow: skip them unread, so that a hostile profile costs nothing. */
    static const png_byte SKIPPED[] = "bKGD\0cHRM\0gAMA\0hIST\0iCCP\0oFFs\0pCAL\0pHYs\0sCAL\0sPLT\0sRGB\0sTER\0tIME\0"
                                      "tRNS";
    png_set_keep_unknown_chunks(p, PNG_HANDLE_CHUNK_NEVER, SKIPPED, sizeof SKIPPED / 5);
    png_set_crc_action(p, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(p, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_malloc_max(p, MAX_CHUNK);
    png_set_chunk_cache_max(p, MAX_CHUNKS_KEPT);
    png_set_read_fn(p, png, read_input);
    png_read_info(p, png->info);

    png_uint_32 width, height;
    int depth, type;
    png_get_IHDR(p, png->info, &width, &height, &depth, &type, NULL, NULL, NULL);
    if (width > MAX_SIDE || height > MAX_SIDE)
        png->rc = error_set(png->err, WARD_EFORMAT,
                            "%s: claims to be a PNG of %u x %u pixels; at most %d a side are read", png->source->name,
                            (unsigned)width, (unsigned)height, (int)MAX_SIDE);
    else
        png->rc = image_allocate(out, width, height, "PNG", png->source->name, png->err);
    if (png->rc)
        png_error(p, "size");
    set_transforms(png, depth, type);
    const int passes = png_set_interlace_handling(p);
    png_read_update_info(p, png->info);
    const size_t stride = (size_t)width * png->sample;
    if (png_get_rowbytes(p, png->info) != stride)
        png_error(p, "rows of an unexpected length");

    uint8_t *raw = raw_pixels(out, png->sample);
    for (int pass = 0; pass < passes; pass++)
        for (size_t y = 0; y < height; y++)
            png_read_row(p, raw + y * stride, NULL);
    png_read_end(p, png->end);

    find_orientation(png);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png->rc = spread_palette(out, png);
    else if (png->sample == 1)
        spread_gray(out);
    else if (png->sample == 2)
        spread_16_bits(out, png);
}

int image_decode_png(struct ward_image *out, struct image_source *source, struct ward_error *err)
{
    struct png *png = calloc(1, sizeof *png);
    if (!png)
        return error_no_memory(err, "a PNG decoder", sizeof *png);
    png->source = source;
    png->err = err;
    png->next = source->bytes;
    png->left = source->length;
    png->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, png, fail, ignore_warning, png, take_memory,
                                        free_memory);
    png->info = png->png ? png_create_info_struct(png->png) : NULL;
    png->end = png->info ? png_create_info_struct(png->png) : NULL;
    if (!png->end)
        png->rc = error_no_memory(err, "a PNG decoder", sizeof *png);
    else if (!setjmp(png_jmpbuf(png->png)))
        decode(png, out);
    const int rc = png->rc;
    if (png->png)
        png_destroy_read_struct(&png->png, &png->info, &png->end);
    free(png->exif);
    free(png);
    return rc;
}
