/* flextok.h - the two transformers of FlexTok (arXiv 2502.13967): latents of a picture to an
 * ordered list of tokens, and from any number of the first of them, and noise, towards a picture
 * (flow matching).
 *
 * Calls belong to the stream's thread and return when the result is there; what a call gets does
 * not depend on those beside it. */
#ifndef TT_FLEXTOK_H
#define TT_FLEXTOK_H

#include "models/model.h"

typedef struct tt_flextok tt_flextok;

typedef struct {
    int32_t side;         /* of latents, in cells */
    int32_t channels;     /* of latents */
    int32_t tokens, dims; /* registers, and numbers of each */
    int64_t parameters;
    size_t weight_bytes;
    const char *compute;
} tt_flextok_info;

/* c: config.json, whose "encoder" and "decoder" are lists of modules. They are told by class; a
 * class that is not known is TT_EUNSUP, naming the module. The weights stay mapped for its life. */
tt_status tt_flextok_open(tt_flextok **out, tt_stream *s, const tt_weights *w, tt_config *c,
                          tt_err *e);
void tt_flextok_close(tt_flextok *f); /* NULL is fine */
const tt_flextok_info *tt_flextok_about(const tt_flextok *f);

/* number: images x tokens x dims, before quantisation. latent: images x channels x side x side,
 * scaled. */
tt_status tt_flextok_encode(tt_flextok *f, float *number, const float *latent, int64_t images,
                            tt_err *e);

typedef struct {
    const float *x;    /* channels x side x side */
    const float *code; /* tokens x dims, quantised */
    int32_t keep;      /* tokens that count: the first so many */
    bool unguided;     /* none of them does */
    float t;           /* 1: noise, 0: picture */
    float *velocity;   /* out: channels x side x side, from the picture towards the noise */
} tt_flextok_call;

tt_status tt_flextok_run(tt_flextok *f, const tt_flextok_call *call, int64_t calls, tt_err *e);
/* Multiply-adds of encoding a picture, or of one call. */
double tt_flextok_macs(const tt_flextok *f, bool decode);
/* Device memory of a run of so many calls, or of encoding as many pictures. */
size_t tt_flextok_bytes(const tt_flextok *f, int64_t calls);

#endif
