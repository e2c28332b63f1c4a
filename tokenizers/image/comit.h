/* comit.h - COMiT as a codec, to be looked into: a picture becomes a message of tokens that is
 * rewritten with every crop that is looked at; the same network paints it back from noise by flow
 * matching. A message only decodes where it was told to lie: the offset belongs to it.
 *
 * A step of a reading is a crop; of a painting a call of the network (two at once where it is
 * guided), and in the end the autoencoder. */
#ifndef TT_IMAGE_COMIT_H
#define TT_IMAGE_COMIT_H

#include "models/comit.h"
#include "tokenizers/image/crops.h"
#include "tokenizers/image/flow.h"
#include "tokenizers/image/fsq.h"
#include "tokenizers/image/vae.h"

typedef struct {
    tt_codec base;
    tt_comit *net;     /* float32: what it reads is quantised, and codes must not flip */
    tt_comit *painter; /* the same network in the arithmetic of the weights mode; may be net */
    tt_vae *vae;
    tt_fsq fsq;
    tt_crop_grid grid;
    int32_t *prior; /* ids of the message that says nothing */
} tt_comit_codec;

/* strict: see tt_comit_open(). */
tt_status tt_comit_codec_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                              tt_weights_mode mode, bool strict, tt_err *e);

typedef struct {
    tt_codec_work base;
    tt_crop_policy how;
    int32_t chosen[TT_MAX_CROPS + 1];
    bool used[TT_MAX_CROPS + 1];
    float last[2];  /* where the last crop lies */
    float *planes;  /* the picture in [-1, 1] */
    float *latents; /* of all crops looked at so far, and of those known beforehand */
    const float *latent; /* of the last crop */
    float *message; /* tokens x numbers */
    float score[TT_MAX_CROPS]; /* adaptive: how badly each crop was painted before the last step */
    tt_comit_call call;        /* of the last step */
} tt_comit_reading;

typedef struct {
    tt_codec_work base;
    tt_flow flow;
    float *message;
    tt_comit_call call[2]; /* with and without the message */
} tt_comit_painting;

#endif
