/* png.h - pictures in and out as PNG, through libpng.
 *
 * Files come from strangers. Whatever their form (1 to 16 bits, grey, palette, interlaced, with or
 * without transparency) they become 8-bit RGBA or are refused with the reason. The size is checked
 * against the limit before anything is allocated for it; so memory is at most 4 bytes per pixel of
 * the limit and what libpng needs for a few rows, and time at most that of inflating 8 bytes per
 * pixel (7 passes when interlaced). Text, colour profiles and whatever follows the last row are
 * not read. Gamma and profiles are not applied: samples are taken as sRGB. */
#ifndef TT_PNG_H
#define TT_PNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

enum { TT_PNG_MAX_SIDE = 4096 };

typedef struct {
    int32_t width, height;
    uint8_t *rgba;    /* height x width x 4, alpha not multiplied in; the caller frees it */
    bool transparent; /* some pixel is not opaque */
} tt_picture;

/* Decodes a file held in memory. path: the request field it came from, named in errors, which are
 * TT_EINVAL with code invalid_image, or TT_ENOMEM. */
tt_status tt_png_decode(tt_picture *out, const void *data, size_t bytes, int32_t max_side,
                        const char *path, tt_err *e);
void tt_picture_free(tt_picture *p); /* zeroed or NULL is fine */

/* An entry of the file's text chunks. The key is Latin-1 of 1 to 79 characters, the text UTF-8. */
typedef struct {
    const char *key, *text;
} tt_png_text;

enum {
    TT_PNG_FAST = 1, /* zlib levels: answers */
    TT_PNG_SMALL = 6 /* files that are kept */
};

/* Appends a file. pixels: height x width x channels, 3 (RGB) or 4 (RGBA). The same pixels, level
 * and texts always give the same bytes. */
tt_status tt_png_encode(tt_buf *out, const uint8_t *pixels, int32_t width, int32_t height,
                        int channels, int level, const tt_png_text *text, int texts, tt_err *e);

#endif
