/* resize.h - 8-bit pictures scaled and cropped exactly as the released image models were fed.
 *
 * The filter is the bicubic one of the Python Imaging Library (a = -0.5, widened when shrinking):
 * a horizontal pass, then a vertical one, each in fixed point of 22 bits and rounded to 8 bits.
 * Scores of picture verifiers move when a pixel does, so this is exact, not merely close. Pictures
 * are rows of pixels of `channels` interleaved bytes without padding. */
#ifndef TT_IMAGE_RESIZE_H
#define TT_IMAGE_RESIZE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { TT_MAX_SIDE = 1 << 14 }; /* of a picture, in pixels */

/* out: to_height x to_width. A side that keeps its length is left alone. TT_EINVAL for sides
 * outside [1, TT_MAX_SIDE] or channels outside [1, 4], TT_ENOMEM. */
tt_status tt_resize_bicubic(uint8_t *out, int32_t to_width, int32_t to_height, const uint8_t *in,
                            int32_t width, int32_t height, int32_t channels, tt_err *e);

/* The shorter side to `side` pixels, the longer to floor(side * long / short), then the middle
 * side x side pixels: what CLIP sees. out: side x side x 3, from 3 channels. */
tt_status tt_resize_crop(uint8_t *out, int32_t side, const uint8_t *in, int32_t width,
                         int32_t height, tt_err *e);

/* Planes for a network: out[c][y][x] = (in / 255 - mean[c]) / deviation[c]; 3 channels. */
void tt_image_normalise(float *out, const uint8_t *in, int64_t pixels, const float mean[3],
                        const float deviation[3]);

#endif
