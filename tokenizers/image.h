/* image.h - images to tokens and back.
 *
 * A codec is a network on a device stream: its calls belong to the stream's thread (the engine's)
 * and return when the result is there. It alone knows pixel normalisation, image size and kind of
 * quantiser. A family is a const tt_codec_def in tokenizers/image/table.c, found by config.json's
 * "architectures", or "model_type" where there is none.
 *
 * Pixels are float32 in [0, 1], interleaved RGB, row by row from the top left: images x height x
 * width x 3. What an image gets does not depend on the images beside it. */
#ifndef TT_IMAGE_H
#define TT_IMAGE_H

#include "models/generator.h"

typedef struct tt_codec tt_codec;

typedef struct {
    const char *family;       /* "VQGAN" */
    const char *architecture; /* as in config.json */
    int32_t width, height;    /* pixels of every image */
    tt_layout layout;
    bool spatial;             /* a token owns a window of pixels: masks and edits by pixels work */
    bool prefix_decodable;    /* the first n tokens (whole levels) are an image too */
    int32_t latent;           /* numbers per token of tt_codec_embed */
    double encode_macs, decode_macs; /* multiply-adds of convolutions, per image */
    tt_compute products;             /* of decoding */
    int64_t parameters;
    size_t weight_bytes;
    const char *compute;      /* of decoding; encoding is always float32: codes must not flip */
} tt_codec_info;

/* Of an encoded token: squared distances to the nearest and the second nearest code. */
typedef struct {
    float nearest, second;
} tt_code_distance;

typedef struct {
    const char *family;
    const char *summary;
    const char *source;
    const char *const *architectures; /* NULL-terminated; "model_type" values too */

    tt_status (*open)(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                      tt_weights_mode mode, tt_err *e);
    void (*close)(tt_codec *c);
    tt_status (*encode)(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                        const float *pixels, int64_t images, tt_err *e);
    tt_status (*decode)(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                        int64_t images, tt_err *e);
    tt_status (*embed)(tt_codec *c, float *latent, const int32_t *id, int64_t images, tt_err *e);
    size_t (*bytes)(const tt_codec *c, int64_t images);
} tt_codec_def;

struct tt_codec {
    const tt_codec_def *def;
    tt_stream *stream;
    tt_codec_info info;
};

const tt_codec_def *const *tt_codec_all(void); /* NULL-terminated */
const tt_codec_def *tt_codec_find(const char *name);

/* Opens weights, config and codec of a folder; *weights and *config are closed after it. random:
 * config.json alone, with random weights. */
tt_status tt_codec_open(tt_codec **out, tt_weights **weights, tt_config **config, tt_stream *s,
                        const char *folder, tt_weights_mode mode, bool random, tt_err *e);
void tt_codec_close(tt_codec *c); /* NULL is fine */

/* id: images x tokens. latent (images x tokens x latent, before quantisation) and distance
 * (images x tokens) may be NULL. Pixels outside [0, 1] or NaN are TT_EINVAL. */
tt_status tt_codec_encode(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                          const float *pixels, int64_t images, tt_err *e);
/* pixels: clamped to [0, 1]. keep: of each image the first so many tokens, whole levels, or NULL:
 * all; less than all is TT_EUNSUP unless prefix_decodable, TT_EINVAL unless a level ends there.
 * A token outside the codes is TT_EINVAL. */
tt_status tt_codec_decode(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                          int64_t images, tt_err *e);
/* latent: images x tokens x info.latent, what the decoder reads. */
tt_status tt_codec_embed(tt_codec *c, float *latent, const int32_t *id, int64_t images,
                         tt_err *e);
/* token[t] = 1 where a pixel of t's window is not 0 in mask (height x width bytes); grow: and their
 * eight neighbours. TT_EUNSUP unless spatial. */
tt_status tt_codec_mask(const tt_codec *c, uint8_t *token, const uint8_t *mask, bool grow,
                        tt_err *e);
/* Device memory that encoding or decoding so many images needs at most: beyond a number of them
 * they are taken in turns. */
size_t tt_codec_bytes(const tt_codec *c, int64_t images);

/* --- pictures of other sizes (tokenizers/image/prep.c) --- */

/* As released evaluation code prepares photographs: while the short side is at least twice the
 * target it is halved by a box filter; bicubic to the target; middle cut out; divided by 255.
 * rgb: h x w x 3. out: height x width x 3. Memory: three times the larger of picture and target in
 * bytes. TT_EINVAL when a side is 0 or above 65,536, or one is more than 64 times the other;
 * TT_ENOMEM. */
tt_status tt_image_fit(float *out, int32_t width, int32_t height, const uint8_t *rgb, int32_t w,
                       int32_t h, tt_err *e);
/* [0, 1] to 8 bits, nearest. n: numbers, not pixels. */
void tt_image_to_bytes(uint8_t *out, const float *pixels, size_t n);

#endif
