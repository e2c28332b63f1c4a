/* image.h - images to tokens and back.
 *
 * A codec is a network on a device stream: its calls belong to the stream's thread (the engine's)
 * and return when the result is there. It alone knows pixel normalisation, image size and kind of
 * quantiser. A family is a const tt_codec_def in tokenizers/image/table.c, found by config.json's
 * "architectures", or "model_type" where there is none.
 *
 * Some codecs take many passes for a picture: they read it crop by crop, or paint it from noise
 * step by step. tt_codec_work is such a picture on its way; one pass is one step of it.
 *
 * Pixels are float32 in [0, 1], interleaved RGB, row by row from the top left: images x height x
 * width x 3. What an image gets does not depend on the images beside it. */
#ifndef TT_IMAGE_H
#define TT_IMAGE_H

#include "models/generator.h"

typedef struct tt_codec tt_codec;
typedef struct tt_codec_work tt_codec_work;

/* --- how pictures are read and painted, where there is something to choose --- */

typedef enum { TT_CROPS_RASTER, TT_CROPS_RANDOM, TT_CROPS_LIST, TT_CROPS_ADAPTIVE } tt_crop_order;

enum { TT_MAX_CROPS = 64 };

/* Which crops of a picture are looked at, in what order. Crops are numbered in raster order, behind
 * the whole picture if it is looked at too. All zero: every crop once, in raster order. */
typedef struct {
    tt_crop_order order; /* adaptive: next is what a quick painting gets most wrong */
    bool whole;          /* the whole picture is a crop too, number 0, and comes first */
    int32_t crops;       /* so many; 0: all (of a list: all of it) */
    int32_t list[TT_MAX_CROPS], listed; /* TT_CROPS_LIST */
    uint64_t seed;       /* of all that is random */
    bool sampled;        /* latents are drawn from the autoencoder's answer; else its mean */
    const float *noise;  /* replay: the noise adaptive paintings begin from, or NULL */
} tt_crop_policy;

typedef enum { TT_FLOW_EULER, TT_FLOW_MIDPOINT } tt_flow_solver;

/* How a picture is painted from noise. */
typedef struct {
    int32_t steps; /* 1 to TT_MAX_PAINTING_STEPS */
    tt_flow_solver solver;
    double guidance; /* 0: none, and 1 is the same */
    double momentum; /* of adaptive projected guidance (flow.h), in (-1, 1) */
    bool plain;      /* classifier-free guidance instead */
    uint64_t seed;   /* noise comes from (seed, sample) */
    uint32_t sample;
    float offset[2];    /* COMiT: where the message lies, in half pictures */
    const float *noise; /* replay: the noise itself, or NULL */
} tt_painting;

enum { TT_MAX_PAINTING_STEPS = 1000 };

typedef struct {
    const char *family;       /* "VQGAN" */
    const char *architecture; /* as in config.json */
    int32_t width, height;    /* pixels of every image */
    tt_layout layout;
    bool spatial;             /* a token owns a window of pixels: masks and edits by pixels work */
    bool prefix_decodable;    /* the first n tokens (whole levels) are an image too */
    bool mixes;               /* tt_codec_mix() */
    int32_t crops;            /* places a picture is looked at; 0: tt_crop_policy has no effect */
    tt_painting painting;     /* usual; steps 0: decoding has nothing to choose */
    int32_t latent;           /* numbers per token of tt_codec_embed */
    double encode_macs, decode_macs; /* multiply-adds, per image; of a codec that works in steps:
                                        of reading all crops, of a painting's end */
    double latent_macs; /* of decode_macs, before pixels begin; of a painting: of one call */
    tt_compute products, reading;    /* of decoding and of encoding */
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
    const char *key; /* by which configs that name no architecture are known; or NULL */

    tt_status (*open)(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                      tt_weights_mode mode, tt_err *e);
    void (*close)(tt_codec *c);
    /* In one pass, or NULL: in works. */
    tt_status (*encode)(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                        const float *pixels, int64_t images, tt_err *e);
    tt_status (*decode)(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                        int64_t images, tt_err *e);
    tt_status (*embed)(tt_codec *c, float *latent, const int32_t *id, int64_t images, tt_err *e);
    size_t (*bytes)(const tt_codec *c, int64_t images);

    /* Codecs that work in steps. read and paint fill in what the family has of its own in a work
     * that is otherwise set up; after a failure drop follows. step: reading and painting mixed. */
    tt_status (*read)(tt_codec_work *w, const tt_crop_policy *how, tt_err *e);
    tt_status (*paint)(tt_codec_work *w, const tt_painting *how, tt_err *e);
    tt_status (*step)(tt_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e);
    void (*drop)(tt_codec_work *w);
    size_t read_size, paint_size; /* of the family's works, which begin with a tt_codec_work */
    /* Optional: host only. */
    int32_t (*mix)(const tt_codec *c, int32_t a, int32_t b, double share);
    tt_code_distance (*gap)(const tt_codec *c, const float *latent);
} tt_codec_def;

struct tt_codec {
    const tt_codec_def *def;
    tt_stream *stream;
    tt_codec_info info;
};

/* A picture on its way. */
struct tt_codec_work {
    tt_codec *codec;
    bool paints; /* tokens to pixels; else pixels to tokens */
    bool done;
    int32_t now, of;     /* steps done and in all */
    const float *given;  /* reading: the pixels */
    float *pixels;       /* painting: height x width x 3 in [0, 1], once done */
    int32_t *id;         /* tokens; of a reading: so far */
    int32_t keep;        /* painting: so many leading tokens */
    float *latent;       /* reading: tokens x latent before quantisation, once now > 0; or NULL */
    int32_t crop;        /* reading: that the last step looked at */
    float offset[2];     /* reading: tt_painting.offset for these tokens */
};

const tt_codec_def *const *tt_codec_all(void); /* NULL-terminated */
const tt_codec_def *tt_codec_find(const char *name);
/* The family of a folder's config.json, or NULL. */
const tt_codec_def *tt_codec_in(const char *folder);

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
/* Begins reading a picture: pixels (checked as for tt_codec_encode) must outlive the work. how:
 * NULL for the usual. TT_EINVAL naming what is wrong with it. Host only, as dropping. */
tt_status tt_codec_read(tt_codec_work **out, tt_codec *c, const float *pixels,
                        const tt_crop_policy *how, tt_err *e);
/* Begins painting the first `keep` (0: all) of the tokens. how: NULL for the usual. */
tt_status tt_codec_paint(tt_codec_work **out, tt_codec *c, const int32_t *id, int32_t keep,
                         const tt_painting *how, tt_err *e);
/* One step of n works of this codec that are not done; its thread. */
tt_status tt_codec_step(tt_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e);
void tt_codec_drop(tt_codec_work *w); /* NULL is fine */

/* What is wrong with such options for this codec, before any work. */
tt_status tt_codec_check_reading(const tt_codec *c, const tt_crop_policy *how, tt_err *e);
tt_status tt_codec_check_keep(const tt_codec *c, int32_t keep, tt_err *e);
tt_status tt_codec_check_painting(const tt_codec *c, const tt_painting *how, tt_err *e);

/* The message between two, share in [0, 1] of the way from a to b: the numbers of every token's
 * code are mixed and rounded to a code. Any thread. TT_EUNSUP unless info.mixes; TT_EINVAL for a
 * token outside the codes. */
tt_status tt_codec_mix(const tt_codec *c, int32_t *out, const int32_t *a, const int32_t *b,
                       double share, tt_err *e);

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
 * rgb: h x w x 3, read once from the first row to the last. out: height x width x 3. Memory: some
 * rows of each size on the way. TT_EINVAL when a side is 0 or above 65,536, or one is more than 64
 * times the other; TT_ENOMEM. */
tt_status tt_image_fit(float *out, int32_t width, int32_t height, const uint8_t *rgb, int32_t w,
                       int32_t h, tt_err *e);
/* [0, 1] to 8 bits, nearest. n: numbers, not pixels. */
void tt_image_to_bytes(uint8_t *out, const float *pixels, size_t n);

#endif
