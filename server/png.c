/* png.c - see png.h. libpng reports errors by longjmp: the functions with setjmp in them are
 * short, keep their state in a struct, and everything is freed by their callers. */
#include "server/png.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_error(png_structp png, png_const_charp text)
{
    char *reason = png_get_error_ptr(png);
    snprintf(reason, 100, "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png;
    (void)text;
}

/* --- reading --- */

typedef struct {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t left;
    int32_t max_side;
    tt_picture *out;
    png_bytep *row;
    bool memory; /* ran out of it */
    char reason[100];
} reader;

static void read_bytes(png_structp png, png_bytep to, size_t n)
{
    reader *r = png_get_io_ptr(png);
    if (n > r->left)
        png_error(png, "the file ends too early");
    memcpy(to, r->data, n);
    r->data += n;
    r->left -= n;
}

/* Everything that libpng shall turn into 8-bit RGBA. */
static void set_transforms(reader *r)
{
    png_set_expand(r->png); /* palette, fewer than 8 bits, colour keys */
    png_set_scale_16(r->png);
    png_set_gray_to_rgb(r->png);
    png_set_add_alpha(r->png, 255, PNG_FILLER_AFTER);
    png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
}

static void read_header(reader *r)
{
    png_set_read_fn(r->png, r, read_bytes);
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_chunk_malloc_max(r->png, 1 << 20);
    png_read_info(r->png, r->info);
}

static void read_rows(reader *r)
{
    tt_picture *p = r->out;
    size_t stride = (size_t)p->width * 4;
    set_transforms(r);
    if (png_get_rowbytes(r->png, r->info) != stride)
        png_error(r->png, "its pixels cannot be turned into RGBA");
    p->rgba = malloc(stride * (size_t)p->height);
    r->row = malloc((size_t)p->height * sizeof *r->row);
    r->memory = !p->rgba || !r->row;
    if (r->memory)
        png_error(r->png, "no memory");
    for (int32_t y = 0; y < p->height; y++)
        r->row[y] = p->rgba + stride * (size_t)y;
    png_read_image(r->png, r->row);
}

/* libpng's own limits end with a sentence that does not say what they are. */
static void check_size(reader *r)
{
    uint32_t w = png_get_image_width(r->png, r->info), h = png_get_image_height(r->png, r->info);
    char text[100];
    if (w > (uint32_t)r->max_side || h > (uint32_t)r->max_side) {
        snprintf(text, sizeof text, "it has %u x %u pixels, at most %d x %d are read", w, h,
                 r->max_side, r->max_side);
        png_error(r->png, text);
    }
    r->out->width = (int32_t)w;
    r->out->height = (int32_t)h;
}

static bool read_all(reader *r)
{
    if (setjmp(png_jmpbuf(r->png)))
        return false;
    read_header(r);
    check_size(r);
    read_rows(r);
    return true;
}

static bool starts(const uint8_t *data, size_t bytes, const char *with, size_t n)
{
    return bytes >= n && !memcmp(data, with, n);
}

/* What a file is that is no PNG. */
static const char *kind_of(const uint8_t *data, size_t bytes)
{
    if (!bytes)
        return "is empty";
    if (starts(data, bytes, "\xFF\xD8\xFF", 3))
        return "is a JPEG file; only PNG is read";
    if (starts(data, bytes, "GIF8", 4))
        return "is a GIF file; only PNG is read";
    if (starts(data, bytes, "RIFF", 4) && bytes >= 12 && !memcmp(data + 8, "WEBP", 4))
        return "is a WebP file; only PNG is read";
    if (starts(data, bytes, "BM", 2))
        return "is a BMP file; only PNG is read";
    return "is not a PNG file";
}

static bool is_transparent(const tt_picture *p)
{
    size_t n = (size_t)p->width * (size_t)p->height;
    for (size_t i = 0; i < n; i++)
        if (p->rgba[4 * i + 3] != 255)
            return true;
    return false;
}

tt_status tt_png_decode(tt_picture *out, const void *data, size_t bytes, int32_t max_side,
                        const char *path, tt_err *e)
{
    *out = (tt_picture){0};
    if (bytes < 8 || png_sig_cmp(data, 0, 8))
        return tt_fail_param(e, path, "invalid_image", "'%s' %s", path, kind_of(data, bytes));
    reader r = {.data = data, .left = bytes, .max_side = max_side, .out = out};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, r.reason, on_error, on_warning);
    r.info = r.png ? png_create_info_struct(r.png) : NULL;
    r.memory = !r.info;
    bool ok = r.info && read_all(&r);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    free(r.row);
    if (ok) {
        out->transparent = is_transparent(out);
        return TT_OK;
    }
    tt_picture_free(out);
    if (r.memory)
        return tt_fail(e, TT_ENOMEM, "no memory for the picture '%s'", path);
    return tt_fail_param(e, path, "invalid_image", "'%s' is not a usable PNG file: %s", path,
                         r.reason);
}

void tt_picture_free(tt_picture *p)
{
    if (!p)
        return;
    free(p->rgba);
    *p = (tt_picture){0};
}

/* --- writing --- */

typedef struct {
    png_structp png;
    png_infop info;
    tt_buf *out;
    const uint8_t *pixels;
    int32_t width, height;
    int channels, level;
    png_text *text;
    int texts;
    char reason[100];
} writer;

static void write_bytes(png_structp png, png_bytep from, size_t n)
{
    tt_buf *out = png_get_io_ptr(png);
    tt_buf_add(out, from, n);
    if (out->failed)
        png_error(png, "no memory");
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static bool write_all(writer *w)
{
    if (setjmp(png_jmpbuf(w->png)))
        return false;
    png_set_write_fn(w->png, w->out, write_bytes, flush_bytes);
    png_set_compression_level(w->png, w->level);
    png_set_filter(w->png, PNG_FILTER_TYPE_BASE,
                   w->level <= TT_PNG_FAST ? PNG_FILTER_SUB : PNG_ALL_FILTERS);
    png_set_IHDR(w->png, w->info, (png_uint_32)w->width, (png_uint_32)w->height, 8,
                 w->channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (w->texts)
        png_set_text(w->png, w->info, w->text, w->texts);
    png_write_info(w->png, w->info);
    for (int32_t y = 0; y < w->height; y++)
        png_write_row(w->png, w->pixels + (size_t)y * (size_t)w->width * (size_t)w->channels);
    png_write_end(w->png, w->info);
    return true;
}

static bool is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 128)
            return false;
    return true;
}

/* libpng's records take pointers that are not const, and only read what they lead to. */
static void set_texts(writer *w, const tt_png_text *text)
{
    for (int i = 0; i < w->texts; i++)
        w->text[i] = (png_text){
            .compression =
                is_ascii(text[i].text) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE,
            .key = (char *)(uintptr_t)text[i].key,
            .text = (char *)(uintptr_t)text[i].text,
            .text_length = strlen(text[i].text),
        };
}

tt_status tt_png_encode(tt_buf *out, const uint8_t *pixels, int32_t width, int32_t height,
                        int channels, int level, const tt_png_text *text, int texts, tt_err *e)
{
    enum { MOST = 8 };
    png_text record[MOST];
    if (width < 1 || height < 1 || (channels != 3 && channels != 4) || texts < 0 || texts > MOST)
        return tt_fail(e, TT_EINVAL, "png: %d x %d pixels of %d channels, %d texts", width, height,
                       channels, texts);
    writer w = {.out = out,
                .pixels = pixels,
                .width = width,
                .height = height,
                .channels = channels,
                .level = level,
                .text = record,
                .texts = texts};
    set_texts(&w, text);
    w.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, w.reason, on_error, on_warning);
    w.info = w.png ? png_create_info_struct(w.png) : NULL;
    bool ok = w.info && write_all(&w);
    png_destroy_write_struct(&w.png, &w.info);
    if (ok)
        return TT_OK;
    return tt_fail(e, TT_ENOMEM, "a PNG file was not written: %s",
                   *w.reason ? w.reason : "no memory");
}
