/* flextok.h - FlexTok as a codec, to be looked into: a picture becomes an ordered list of tokens,
 * of which any number of the first ones is painted by flow matching. */
#ifndef TT_IMAGE_FLEXTOK_H
#define TT_IMAGE_FLEXTOK_H

#include "models/flextok.h"
#include "tokenizers/image/flow.h"
#include "tokenizers/image/fsq.h"
#include "tokenizers/image/vae.h"

typedef struct {
    tt_codec base;
    tt_flextok *net;
    tt_vae *vae;
    tt_fsq fsq;
} tt_flextok_codec;

typedef struct {
    tt_codec_work base;
    tt_flow flow; /* of the way towards the picture: velocities are the network's, negated */
    float *code;
} tt_flextok_painting;

#endif
