/* comit.h - COMiT: a picture becomes a message of tokens that is rewritten with every crop that is
 * looked at; the same network paints it back from noise by flow matching.
 *
 * Crops are numbered: 96 x 96 pixels on a 3 x 3 grid in raster order, behind the whole picture if
 * it is looked at too. A message only decodes where it was told to lie: the offset belongs to it.
 *
 * Calls belong to the stream's thread and return when the result is there; what a picture gets does
 * not depend on those beside it. */
#ifndef TT_IMAGE_COMIT_H
#define TT_IMAGE_COMIT_H

#include "models/comit.h"
#include "tokenizers/image/flow.h"
#include "tokenizers/image/fsq.h"
#include "tokenizers/image/vae.h"

typedef struct {
    tt_stream *stream;
    tt_weights *weights;
    tt_comit *net;
    tt_vae *vae;
    tt_fsq fsq;
    int32_t side;   /* pixels of a picture */
    int32_t tokens, dims;
    int32_t *prior; /* ids of the message that says nothing */
} tt_comit_codec;

/* strict: see tt_comit_open(). */
tt_status tt_comit_codec_open(tt_comit_codec **out, tt_stream *s, const char *folder,
                              tt_weights_mode mode, bool strict, tt_err *e);
void tt_comit_codec_close(tt_comit_codec *c); /* NULL is fine */

typedef enum { TT_CROPS_RASTER, TT_CROPS_RANDOM, TT_CROPS_LIST, TT_CROPS_ADAPTIVE } tt_crop_order;

enum { TT_MAX_CROPS = 64 };

/* Which crops of a picture are looked at, in what order. */
typedef struct {
    tt_crop_order order;
    bool whole;     /* the whole picture is a crop too, number 0, and comes first */
    int32_t crops;  /* so many; 0: all (of a list: all of it) */
    const int32_t *list; /* TT_CROPS_LIST: their numbers, `listed` of them */
    int32_t listed;
    uint64_t seed;  /* random order; adaptive: of the noise that pictures are painted from */
    const float *noise; /* replay: that noise (channels x cells), or NULL */
} tt_crop_policy;

/* What happened with a crop. Arrays are the callee's, valid during the call. */
typedef struct {
    int64_t image;
    int32_t step, crop;
    const float *latent; /* of the crop: channels x cells x cells */
    int32_t cells;
    float offset[2];
    const float *renewed; /* tokens x dims, before quantisation */
    const int32_t *id;    /* the message now */
    const float *score;   /* adaptive: how badly each of nine crops is painted yet; else NULL */
} tt_crop_event;

/* id: images x tokens; offset: images x 2. planes: images x 3 x side x side in [-1, 1]. policy: one
 * per image. event may be NULL. TT_EINVAL naming what is wrong with a policy. */
tt_status tt_comit_encode(tt_comit_codec *c, int32_t *id, float *offset, const float *planes,
                          const tt_crop_policy *policy, int64_t images,
                          void (*event)(void *arg, const tt_crop_event *what), void *arg,
                          tt_err *e);

/* How pictures are painted. */
typedef struct {
    int32_t steps; /* at least 1 */
    tt_flow_solver solver;
    double guidance; /* 0: none, and 1 is the same; else by tt_apg */
    double momentum;
} tt_comit_painting;

/* latent: images x channels x cells x cells at the end of the flow, from the noise it holds at
 * first. call sees every network evaluation (tests); NULL. */
tt_status tt_comit_paint(tt_comit_codec *c, float *latent, const int32_t *id, const float *offset,
                         const tt_comit_painting *how, int64_t images,
                         void (*call)(void *arg, int64_t image, int32_t call, bool guided,
                                      const float *x, const float *velocity),
                         void *arg, tt_err *e);
/* planes: images x 3 x side x side in about [-1, 1], from painted latents. */
tt_status tt_comit_show(tt_comit_codec *c, float *planes, const float *latent, int64_t images,
                        tt_err *e);
/* Standard normal noise of one picture: channels x cells x cells. */
void tt_comit_noise(const tt_comit_codec *c, float *noise, uint64_t seed, uint32_t sample);

#endif
