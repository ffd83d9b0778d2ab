/* The photo decoders of edgetl/web/: libjpeg-turbo, libpng and libwebp behind one small interface.
 *
 * JavaScript calls `open_picture` with a file's bytes, looks at `width` and `height`, then calls
 * `next_row` once a row, top to bottom, for RGB composited on white. Whatever is wrong is told to
 * `failed`, which throws in JavaScript: the instance is of no use after that, and is dropped.
 * scripts/web_codecs builds this file.
 */
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/decode.h>
#include <webp/demux.h>
#include <zlib.h>

#define EXPORT(name) __attribute__((export_name(#name))) name
#define IMPORT(name) __attribute__((import_module("env"), import_name(#name)))

/* JavaScript's side. `metadata` gets what may hold the orientation: "exif" or "xmp". */
IMPORT(failed) _Noreturn void failed(const char *reason, size_t length);
IMPORT(metadata) void metadata(const char *kind, const uint8_t *data, size_t size);

enum { MAX_SCANS = 500 };  /* of a JPEG: more would take minutes, and no encoder writes so many */

static uint32_t columns, rows, rows_read;
static uint8_t *rgb;                /* one row */
static uint8_t *(*read_row)(void);  /* of the open file's format */

static _Noreturn void fail(const char *reason) { failed(reason, strlen(reason)); }

static void *memory(size_t size) {
    void *found = malloc(size);
    if (!found) fail("there is not enough memory to decode it");
    return found;
}

void *EXPORT(allocate)(size_t size) { return memory(size); }
uint32_t EXPORT(width)(void) { return columns; }
uint32_t EXPORT(height)(void) { return rows; }

static uint32_t divided_by_255(uint32_t value) {  /* rounded to nearest, as Pillow does */
    value += 128;
    return ((value >> 8) + value) >> 8;
}

static uint8_t on_white(uint32_t value, uint32_t alpha) {
    return (uint8_t)divided_by_255(255 * (255 - alpha) + value * alpha);
}

/* ---- JPEG ---- */

static struct {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    uint8_t *cmyk;  /* one row; NULL: the file has other colours */
    uint8_t flip;   /* 255: the ink values are inverted */
} jpeg;

static void jpeg_failed(j_common_ptr info) {
    static char reason[JMSG_LENGTH_MAX];
    info->err->format_message(info, reason);
    fail(reason);
}

static void jpeg_message(j_common_ptr info, int level) { (void)info, (void)level; }
static void jpeg_nothing(j_decompress_ptr info) { (void)info; }

/* There is no more: libjpeg then suspends, while its own sources would go on with gray. */
static boolean jpeg_no_more(j_decompress_ptr info) { return (void)info, FALSE; }

static void jpeg_skip(j_decompress_ptr info, long count) {
    if (count <= 0) return;
    size_t left = info->src->bytes_in_buffer, skipped = (size_t)count < left ? (size_t)count : left;
    info->src->next_input_byte += skipped;
    info->src->bytes_in_buffer -= skipped;
}

static void jpeg_limit_scans(j_common_ptr info) {
    if (((j_decompress_ptr)info)->input_scan_number > MAX_SCANS) fail("it has too many scans");
}

static uint8_t *jpeg_row(void) {
    uint8_t *row = jpeg.cmyk ? jpeg.cmyk : rgb, *ink = jpeg.cmyk, *out = rgb;
    if (jpeg_read_scanlines(&jpeg.info, &row, 1) != 1) fail("it is cut short");
    for (uint32_t x = 0; jpeg.cmyk && x < columns; ++x, ink += 4, out += 3) {
        uint32_t white = 255 - (uint32_t)(ink[3] ^ jpeg.flip);
        for (int c = 0; c < 3; ++c)
            out[c] = (uint8_t)(white - divided_by_255((ink[c] ^ jpeg.flip) * white));
    }
    /* Looks at what follows the pixels; the end marker itself may be missing. */
    if (rows_read == rows - 1) jpeg_finish_decompress(&jpeg.info);
    return rgb;
}

static uint8_t *jpeg_first_row(void) {  /* the size is known to be allowed only now */
    if (jpeg.info.num_components == 4) {
        jpeg.info.out_color_space = JCS_CMYK;
        jpeg.cmyk = memory(4 * (size_t)columns);
    } else {
        jpeg.info.out_color_space = JCS_RGB;
    }
    if (!jpeg_start_decompress(&jpeg.info)) fail("it is cut short");
    read_row = jpeg_row;
    return jpeg_row();
}

static void open_jpeg(const uint8_t *bytes, size_t size) {
    jpeg.info.err = jpeg_std_error(&jpeg.errors);
    jpeg.errors.error_exit = jpeg_failed;
    jpeg.errors.emit_message = jpeg_message;
    jpeg_create_decompress(&jpeg.info);
    jpeg.progress.progress_monitor = jpeg_limit_scans;
    jpeg.info.progress = &jpeg.progress;
    jpeg.source.next_input_byte = bytes;
    jpeg.source.bytes_in_buffer = size;
    jpeg.source.init_source = jpeg.source.term_source = jpeg_nothing;
    jpeg.source.fill_input_buffer = jpeg_no_more;
    jpeg.source.skip_input_data = jpeg_skip;
    jpeg.source.resync_to_restart = jpeg_resync_to_restart;
    jpeg.info.src = &jpeg.source;
    jpeg_save_markers(&jpeg.info, JPEG_APP0 + 1, 0xFFFF);   /* EXIF, XMP */
    jpeg_save_markers(&jpeg.info, JPEG_APP0 + 14, 0xFFFF);  /* Adobe */
    if (jpeg_read_header(&jpeg.info, TRUE) != JPEG_HEADER_OK) fail("it is cut short");
    int channels = jpeg.info.num_components;
    if (channels != 1 && channels != 3 && channels != 4)
        fail("it has another number of channels than 1, 3 or 4");
    static const char exif[] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/";
    for (jpeg_saved_marker_ptr at = jpeg.info.marker_list; at; at = at->next) {
        if (at->marker == JPEG_APP0 + 14) {
            if (at->data_length >= 5 && !memcmp(at->data, "Adobe", 5)) jpeg.flip = 255;
        } else if (at->data_length >= sizeof exif && !memcmp(at->data, exif, sizeof exif)) {
            metadata("exif", at->data, at->data_length);
        } else if (at->data_length >= sizeof xmp && !memcmp(at->data, xmp, sizeof xmp)) {
            metadata("xmp", at->data + sizeof xmp, at->data_length - sizeof xmp);
        }
    }
    columns = jpeg.info.image_width, rows = jpeg.info.image_height;
    read_row = jpeg_first_row;
}

/* ---- PNG ---- */

static struct {
    png_structp file;
    png_infop info;
    const uint8_t *rest, *start;
    size_t left, size;
    int depth, type, channels, passes;
    png_color_16p clear;      /* the transparent colour */
    uint8_t palette[256][4];  /* RGBA; an entry that is missing is black, as in Pillow */
    uint8_t *raw;             /* one row, or the whole interlaced picture */
} png;

static void png_failed(png_structp file, png_const_charp reason) { (void)file, fail(reason); }
static void png_warned(png_structp file, png_const_charp reason) { (void)file, (void)reason; }

static void png_more(png_structp file, png_bytep target, size_t size) {
    (void)file;
    if (png.left < size) fail("it is cut short");
    memcpy(target, png.rest, size);
    png.rest += size, png.left -= size;
}

static uint32_t big_endian(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Of a palette's colours; libpng drops a chunk that is too long. */
static void png_alpha(void) {
    for (int i = 0; i < 256; ++i) png.palette[i][3] = 255;
    for (size_t at = 8; at + 12 <= png.size;) {
        uint32_t size = big_endian(png.start + at);
        uint64_t end = at + 12 + (uint64_t)size;
        if (!memcmp(png.start + at + 4, "tRNS", 4) && end <= png.size)
            for (uint32_t i = 0; i < size && i < 256; ++i)
                png.palette[i][3] = png.start[at + 8 + i];
        if (end > png.size) break;
        at = (size_t)end;
    }
}

static int png_sample(const uint8_t *raw, uint32_t index) {  /* the high byte of 16 bits */
    if (png.depth == 16) return raw[2 * index];
    if (png.depth == 8) return raw[index];
    uint32_t bit = index * (uint32_t)png.depth;
    return raw[bit / 8] >> (8 - png.depth - (int)(bit % 8)) & ((1 << png.depth) - 1);
}

/* As Pillow compares the transparent colour: by its low byte, unscaled, unless gray of 16 bits. */
static int png_is_clear(const uint8_t *raw, uint32_t x, const uint8_t *value) {
    if (!png.clear) return 0;
    if (png.type & PNG_COLOR_MASK_COLOR)
        return value[0] == (png.clear->red & 255) && value[1] == (png.clear->green & 255) &&
               value[2] == (png.clear->blue & 255);
    if (png.depth == 16) return (raw[2 * x] << 8 | raw[2 * x + 1]) == png.clear->gray;
    return value[0] == (png.depth == 1 ? (png.clear->gray ? 255 : 0) : png.clear->gray & 255);
}

static void png_row_to_rgb(const uint8_t *raw) {
    const int maximum = png.depth < 8 ? (1 << png.depth) - 1 : 255;
    const uint32_t channels = (uint32_t)png.channels;
    const int colour = png.type & PNG_COLOR_MASK_COLOR, alpha = png.type & PNG_COLOR_MASK_ALPHA;
    uint8_t *out = rgb;
    for (uint32_t x = 0; x < columns; ++x, out += 3) {
        uint8_t value[4];
        if (png.type == PNG_COLOR_TYPE_PALETTE) {
            memcpy(value, png.palette[png_sample(raw, x)], 4);
        } else {
            for (uint32_t c = 0; c < 3; ++c)
                value[c] = (uint8_t)(png_sample(raw, x * channels + (colour ? c : 0)) * 255 /
                                     maximum);
            value[3] = alpha ? (uint8_t)png_sample(raw, x * channels + channels - 1)
                             : png_is_clear(raw, x, value) ? 0 : 255;
        }
        for (int c = 0; c < 3; ++c) out[c] = on_white(value[c], value[3]);
    }
}

static uint8_t *png_row(void) {
    uint8_t *row = png.raw;
    if (png.passes > 1)
        row += rows_read * png_get_rowbytes(png.file, png.info);
    else
        png_read_row(png.file, row, NULL);
    png_row_to_rgb(row);
    if (rows_read == rows - 1) png_read_end(png.file, NULL);  /* verifies the pixels' checksum */
    return rgb;
}

static uint8_t *png_first_row(void) {
    size_t stride = png_get_rowbytes(png.file, png.info);
    png_start_read_image(png.file);
    if (png.passes > 1 && (uint64_t)stride * rows > UINT32_MAX) fail("it is too large");
    png.raw = memory(png.passes > 1 ? stride * rows : stride);
    for (int pass = 0; png.passes > 1 && pass < png.passes; ++pass)
        for (uint32_t y = 0; y < rows; ++y) png_read_row(png.file, png.raw + y * stride, NULL);
    read_row = png_row;
    return png_row();
}

static void open_png(const uint8_t *bytes, size_t size) {
    png.rest = png.start = bytes, png.left = png.size = size;
    png.file = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, png_failed, png_warned);
    png.info = png.file ? png_create_info_struct(png.file) : NULL;
    if (!png.info) fail("there is not enough memory to decode it");
    png_set_read_fn(png.file, NULL, png_more);
    png_set_user_limits(png.file, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  /* JavaScript has the limit */
    png_set_crc_action(png.file, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(png.file, png.info);
    png_get_IHDR(png.file, png.info, &columns, &rows, &png.depth, &png.type, NULL, NULL, NULL);
    png_get_tRNS(png.file, png.info, NULL, NULL, &png.clear);
    if (!png_get_valid(png.file, png.info, PNG_INFO_tRNS)) png.clear = NULL;
    png_alpha();
    png_colorp colours;
    int count = 0;
    if (png_get_PLTE(png.file, png.info, &colours, &count))
        for (int i = 0; i < count; ++i) memcpy(png.palette[i], &colours[i], 3);
    png.channels = png_get_channels(png.file, png.info);
    png.passes = png_set_interlace_handling(png.file);
    read_row = png_first_row;
}

/* Inflate at most `capacity` bytes; returns their number, 0 if they are more or damaged. */
size_t EXPORT(inflate_text)(const uint8_t *data, size_t size, uint8_t *target, size_t capacity) {
    uLongf found = capacity;
    return uncompress(target, &found, data, size) == Z_OK ? found : 0;
}

/* ---- WebP: the first frame, on its canvas ---- */

static struct {
    WebPData data;
    WebPAnimDecoder *decoder;
    uint8_t *canvas;  /* RGBA */
    int has_alpha;
} webp;

static uint8_t *webp_row(void) {
    const uint8_t *in = webp.canvas + 4 * (size_t)columns * rows_read;
    uint8_t *out = rgb;
    for (uint32_t x = 0; x < columns; ++x, in += 4, out += 3)
        for (int c = 0; c < 3; ++c) out[c] = webp.has_alpha ? on_white(in[c], in[3]) : in[c];
    return rgb;
}

static uint8_t *webp_first_row(void) {
    int time;
    webp.decoder = WebPAnimDecoderNew(&webp.data, NULL);
    if (!webp.decoder) fail("it can't be decoded");
    if (!WebPAnimDecoderGetNext(webp.decoder, &webp.canvas, &time)) fail("its pixels are damaged");
    read_row = webp_row;
    return webp_row();
}

static void webp_chunk(const WebPDemuxer *file, const char *kind, const char *name) {
    WebPChunkIterator found;
    if (WebPDemuxGetChunk(file, name, 1, &found) && found.chunk.size)
        metadata(kind, found.chunk.bytes, found.chunk.size);
    WebPDemuxReleaseChunkIterator(&found);
}

static void open_webp(const uint8_t *bytes, size_t size) {
    webp.data.bytes = bytes, webp.data.size = size;
    WebPDemuxer *file = WebPDemux(&webp.data);
    if (!file) fail("it is cut short, or not what it claims to be");
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(bytes, size, &features) != VP8_STATUS_OK) fail("its header is damaged");
    webp.has_alpha = features.has_alpha;
    columns = WebPDemuxGetI(file, WEBP_FF_CANVAS_WIDTH);
    rows = WebPDemuxGetI(file, WEBP_FF_CANVAS_HEIGHT);
    webp_chunk(file, "exif", "EXIF");
    webp_chunk(file, "xmp", "XMP ");
    WebPDemuxDelete(file);
    read_row = webp_first_row;
}

/* ---- The interface ---- */

/* `bytes` must stay where they are until the last row is read, or `close_picture` is called. */
void EXPORT(open_picture)(const uint8_t *bytes, size_t size) {
    if (!memcmp(bytes, "\xFF\xD8\xFF", 3))
        open_jpeg(bytes, size);
    else if (!memcmp(bytes, "\x89PNG", 4))
        open_png(bytes, size);
    else
        open_webp(bytes, size);
}

/* The next row, `width` × 3 bytes; valid until the next call. */
uint8_t *EXPORT(next_row)(void) {
    if (!rgb) rgb = memory(3 * (size_t)columns);
    uint8_t *row = read_row();
    ++rows_read;
    return row;
}

void EXPORT(close_picture)(uint8_t *bytes) {
    jpeg_destroy_decompress(&jpeg.info);
    if (png.file) png_destroy_read_struct(&png.file, &png.info, NULL);
    if (webp.decoder) WebPAnimDecoderDelete(webp.decoder);
    free(jpeg.cmyk), free(png.raw), free(rgb), free(bytes);
    memset(&jpeg, 0, sizeof jpeg), memset(&png, 0, sizeof png), memset(&webp, 0, sizeof webp);
    rgb = NULL;
    columns = rows = rows_read = 0;
}
