/* comit.h - the transformer of COMiT, an image tokenizer that looks at one crop after another. One
 * network does both: given a crop's latent at t = 1 it rewrites the message; given noise at t < 1
 * it says in what direction the picture lies (flow matching).
 *
 * Calls belong to the stream's thread and return when the result is there; what a call gets does
 * not depend on those beside it. */
#ifndef TT_COMIT_H
#define TT_COMIT_H

#include "models/model.h"

typedef struct tt_comit tt_comit;

typedef struct {
    int32_t side;     /* of latents at most, in cells */
    int32_t patch;    /* cells of a patch's side */
    int32_t channels; /* of latents */
    int32_t tokens, dims; /* of a message, and numbers of each */
    int64_t width, layers, heads, parameters;
    int64_t weight_bytes;
    const char *compute;
    tt_compute products;
    bool exact; /* activations are float32 */
} tt_comit_info;

typedef struct {
    const float *latent; /* channels x h x w */
    int32_t h, w;        /* at most side, multiples of patch */
    const float *message; /* tokens x dims */
    float t;             /* in [0, 1] */
    float offset[2];     /* x, y: where the latent lies, in half pictures */
    float *velocity;     /* out: channels x h x w, or NULL */
    float *renewed;      /* out: tokens x dims, before quantisation, or NULL */
} tt_comit_call;

/* Arithmetic of the products for a weights mode, as tt_bind_choose(). */
tt_status tt_comit_compute(tt_compute *out, tt_stream *s, const tt_weights *w, tt_weights_mode mode,
                           tt_err *e);
/* predictor: the config's object of that name. strict: query tokens are hidden where the released
 * code's table holds 0; otherwise, as its fused attention does it, their scores are merely lower by
 * one. TT_EFORMAT naming tensor or key. The weights stay mapped for its life. */
tt_status tt_comit_open(tt_comit **out, tt_stream *s, const tt_weights *w, tt_config *predictor,
                        tt_compute compute, bool strict, tt_err *e);
void tt_comit_close(tt_comit *c); /* NULL is fine */
const tt_comit_info *tt_comit_about(const tt_comit *c);

/* TT_EINVAL for a size that does not fit, TT_ENOMEM. */
tt_status tt_comit_run(tt_comit *c, const tt_comit_call *call, int64_t calls, tt_err *e);
/* Multiply-adds of a call. */
double tt_comit_macs(const tt_comit *c, int64_t h, int64_t w);
size_t tt_comit_bytes(const tt_comit *c, int64_t calls);

#endif
