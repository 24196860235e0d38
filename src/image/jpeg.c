/* JPEG through libjpeg-turbo, to the pixels that Pillow gives: exact integer DCT, smooth chroma upsampling. */
#include "image/formats.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

/* A small progressive file can ask for millions of passes over a large image. The second limit leaves 22 to the largest
 * image and all 500 to one of 8 megapixels; a progressive JPEG has about 10. */
enum { MAX_SCANS = 500 };
#define MAX_SCANNED_PIXELS UINT64_C(4000000000)

struct jpeg {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr input;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    struct image_source *source;
    struct ward_error *err;
    int rc;         /* what was put into err before escaping */
    uint8_t *row;   /* CMYK only: [width][4] */
    uint8_t *exif;  /* EXIF segments, joined */
    size_t exif_length;
};

/* ---- libjpeg's callbacks ----------------------------------------------------------------------------------------- */

static void warn(struct jpeg *jpeg, const char *text)
{
    snprintf(jpeg->source->warning, sizeof jpeg->source->warning, "%s", text);
}

static void fail(j_common_ptr cinfo)
{
    struct jpeg *jpeg = cinfo->client_data;
    const char *name = jpeg->source->name;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    switch (cinfo->err->msg_code) {
    case JERR_SOF_UNSUPPORTED:
    case JERR_BAD_PRECISION:
    case JERR_ARITH_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
        jpeg->rc = error_set(jpeg->err, WARD_EUNSUPPORTED,
                             "%s: is a JPEG of a kind that is not read (%s); expected 8-bit baseline or progressive",
                             name, text);
        break;
    case JERR_OUT_OF_MEMORY:
        jpeg->rc = error_set(jpeg->err, WARD_ENOMEM, "out of memory while decoding %s", name);
        break;
    default:
        jpeg->rc = error_set(jpeg->err, WARD_EFORMAT, "%s: is a damaged JPEG file: %s", name, text);
    }
    longjmp(jpeg->escape, 1);
}

/* Level -1 is a warning. libjpeg goes on with invented pixels after most of them: no good for an image to be judged. */
static void on_message(j_common_ptr cinfo, int level)
{
    if (level >= 0)
        return;
    struct jpeg *jpeg = cinfo->client_data;
    switch (cinfo->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_BOGUS_ICC:
        break;
    case JWRN_EXTRANEOUS_DATA: /* some cameras pad between markers; the pixels around it decoded */
        warn(jpeg, "the JPEG holds stray bytes between its parts; they were skipped");
        break;
    default:
        fail(cinfo);
    }
}

static void no_output(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void start_input(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

/* All bytes were there from the start: asking for more means that the file is truncated (libjpeg suspends). */
static boolean no_more_input(j_decompress_ptr cinfo)
{
    (void)cinfo;
    return FALSE;
}

static void skip_input(j_decompress_ptr cinfo, long n)
{
    struct jpeg_source_mgr *input = cinfo->src;
    const size_t skipped = n <= 0 ? 0 : (size_t)n < input->bytes_in_buffer ? (size_t)n : input->bytes_in_buffer;
    input->next_input_byte += skipped;
    input->bytes_in_buffer -= skipped;
}

static void on_progress(j_common_ptr common)
{
    struct jpeg *jpeg = common->client_data;
    const struct jpeg_decompress_struct *cinfo = &jpeg->cinfo;
    const uint64_t scans = (uint64_t)cinfo->input_scan_number;
    const uint64_t pixels = (uint64_t)cinfo->image_width * cinfo->image_height;
    if (scans > MAX_SCANS || scans * pixels > MAX_SCANNED_PIXELS) {
        jpeg->rc = error_set(jpeg->err, WARD_EFORMAT,
                             "%s: is a JPEG with %d scans or more of %u x %u pixels; at most %d scans are read, and "
                             "%llu pixels in all of them",
                             jpeg->source->name, cinfo->input_scan_number, cinfo->image_width, cinfo->image_height,
                             MAX_SCANS, (unsigned long long)MAX_SCANNED_PIXELS);
        longjmp(jpeg->escape, 1);
    }
}

/* ---- orientation ------------------------------------------------------------------------------------------------- */

/* As Pillow's APP handler: EXIF segments are joined, the last XMP packet counts, and only where EXIF is silent. */
static void find_orientation(struct jpeg *jpeg)
{
    static const char XMP[] = "http://ns.adobe.com/xap/1.0/"; /* its NUL belongs to it */
    jpeg_saved_marker_ptr marker, xmp = NULL;
    size_t total = 0;
    for (marker = jpeg->cinfo.marker_list; marker; marker = marker->next) {
        if (marker->data_length >= 6 && !memcmp(marker->data, "Exif\0", 6))
            total += marker->data_length;
        else if (marker->data_length >= sizeof XMP && !memcmp(marker->data, XMP, sizeof XMP))
            xmp = marker;
    }
    if (total && (jpeg->exif = malloc(total)) != NULL) {
        for (marker = jpeg->cinfo.marker_list; marker; marker = marker->next) {
            if (marker->data_length < 6 || memcmp(marker->data, "Exif\0", 6))
                continue;
            const size_t skip = jpeg->exif_length ? 6 : 0;
            memcpy(jpeg->exif + jpeg->exif_length, marker->data + skip, marker->data_length - skip);
            jpeg->exif_length += marker->data_length - skip;
        }
        jpeg->source->orientation = image_exif_orientation(jpeg->exif, jpeg->exif_length);
    }
    if (!jpeg->source->orientation && xmp)
        jpeg->source->orientation =
            image_xmp_orientation((const char *)xmp->data + sizeof XMP, xmp->data_length - sizeof XMP);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

static void truncated(struct jpeg *jpeg)
{
    jpeg->rc = error_set(jpeg->err, WARD_EFORMAT, "%s: is a truncated JPEG file: its data ends after %zu bytes",
                         jpeg->source->name, jpeg->source->length);
    longjmp(jpeg->escape, 1);
}

/* round(a * b / 255) */
static int multiply_255(int a, int b)
{
    const int product = a * b + 128;
    return ((product >> 8) + product) >> 8;
}

/* Stored inverted, as Adobe does and Pillow always assumes; then Pillow's cmyk2rgb: 255 - k less its share of ink. */
static void row_from_cmyk(uint8_t *rgb, const uint8_t *inverted, int width)
{
    for (int x = 0; x < width; x++) {
        const int light = inverted[4 * x + 3];
        for (int c = 0; c < 3; c++)
            rgb[3 * x + c] = (uint8_t)(light - multiply_255(255 - inverted[4 * x + c], light));
    }
}

static void row_from_gray(uint8_t *rgb, int width)
{
    for (int x = width - 1; x >= 0; x--) /* in place: the gray row lies at the start */
        rgb[3 * x] = rgb[3 * x + 1] = rgb[3 * x + 2] = rgb[x];
}

static void read_rows(struct jpeg *jpeg, struct ward_image *out)
{
    j_decompress_ptr cinfo = &jpeg->cinfo;
    const int width = out->width;
    for (int y = 0; y < out->height; y++) {
        uint8_t *rgb = out->rgb + (size_t)y * (size_t)width * 3;
        JSAMPROW row = jpeg->row ? jpeg->row : rgb;
        if (jpeg_read_scanlines(cinfo, &row, 1) != 1)
            truncated(jpeg);
        if (jpeg->row)
            row_from_cmyk(rgb, jpeg->row, width);
        else if (cinfo->output_components == 1)
            row_from_gray(rgb, width);
    }
}

/* Whether a progressive file ends before it has said every bit of every coefficient. */
static bool lacks_scans(const struct jpeg_decompress_struct *cinfo)
{
    if (!cinfo->progressive_mode || !cinfo->coef_bits)
        return false;
    for (int c = 0; c < cinfo->num_components; c++)
        for (int k = 0; k < DCTSIZE2; k++)
            if (cinfo->coef_bits[c][k] != 0)
                return true;
    return false;
}

/* Escapes by longjmp on every failure. */
static void decode(struct jpeg *jpeg, struct ward_image *out)
{
    j_decompress_ptr cinfo = &jpeg->cinfo;
    const char *name = jpeg->source->name;
    jpeg_save_markers(cinfo, JPEG_APP0 + 1, 0xffff);
    if (jpeg_read_header(cinfo, TRUE) == JPEG_SUSPENDED)
        truncated(jpeg);
    find_orientation(jpeg);
    switch (cinfo->num_components) {
    case 1: cinfo->out_color_space = JCS_GRAYSCALE; break;
    case 3: cinfo->out_color_space = JCS_RGB; break;
    case 4: cinfo->out_color_space = JCS_CMYK; break;
    default:
        jpeg->rc = error_set(jpeg->err, WARD_EUNSUPPORTED, "%s: is a JPEG of %d components; expected 1, 3 or 4", name,
                             cinfo->num_components);
        longjmp(jpeg->escape, 1);
    }
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->do_fancy_upsampling = TRUE;
    jpeg->rc = image_allocate(out, cinfo->image_width, cinfo->image_height, "JPEG", name, jpeg->err);
    if (!jpeg->rc && cinfo->num_components == 4 && !(jpeg->row = malloc((size_t)out->width * 4)))
        jpeg->rc = error_no_memory(jpeg->err, "a row of a CMYK image", (size_t)out->width * 4);
    if (jpeg->rc)
        longjmp(jpeg->escape, 1);
    if (!jpeg_start_decompress(cinfo))
        truncated(jpeg);
    if (lacks_scans(cinfo))
        warn(jpeg, "the JPEG lacks its last progressive scans; it was decoded less sharp than it was meant");
    read_rows(jpeg, out);
    /* A missing end marker is forgiven, as Pillow does: every row is there. */
    jpeg_finish_decompress(cinfo);
}

int image_decode_jpeg(struct ward_image *out, struct image_source *source, struct ward_error *err)
{
    struct jpeg *jpeg = calloc(1, sizeof *jpeg);
    if (!jpeg)
        return error_no_memory(err, "a JPEG decoder", sizeof *jpeg);
    jpeg->source = source;
    jpeg->err = err;
    jpeg->cinfo.err = jpeg_std_error(&jpeg->errors);
    jpeg->cinfo.client_data = jpeg;
    jpeg->errors.error_exit = fail;
    jpeg->errors.emit_message = on_message;
    jpeg->errors.output_message = no_output;
    if (!setjmp(jpeg->escape)) {
        jpeg_create_decompress(&jpeg->cinfo);
        jpeg->input = (struct jpeg_source_mgr){
            .next_input_byte = source->bytes,
            .bytes_in_buffer = source->length,
            .init_source = start_input,
            .fill_input_buffer = no_more_input,
            .skip_input_data = skip_input,
            .resync_to_restart = jpeg_resync_to_restart,
            .term_source = start_input,
        };
        jpeg->cinfo.src = &jpeg->input;
        jpeg->progress.progress_monitor = on_progress;
        jpeg->cinfo.progress = &jpeg->progress;
        decode(jpeg, out);
    }
    const int rc = jpeg->rc;
    jpeg_destroy_decompress(&jpeg->cinfo);
    free(jpeg->exif);
    free(jpeg->row);
    free(jpeg);
    return rc;
}
