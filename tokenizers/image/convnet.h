/* convnet.h - what convolutional image networks are made of: residual blocks of (GroupNorm, SiLU,
 * 3x3 convolution) twice, and changes of size, on pixels as rows of channels. */
#ifndef TT_CONVNET_H
#define TT_CONVNET_H

#include "models/nn/bind.h"

typedef struct {
    float *weight, *bias; /* device, [channels] */
} tt_conv_norm;

/* x + conv2(silu(norm2(conv1(silu(norm1 x))))); with another number of channels the sum's first
 * part goes through the shortcut. */
typedef struct {
    int64_t in, out;
    tt_conv_norm norm1, norm2;
    tt_matrix *conv1, *conv2, *shortcut; /* shortcut: 1x1; NULL where in is out */
    bool loses; /* the shortcut is of conv2's result, as a released code has it */
} tt_conv_block;

/* Images on their way through: x holds `channels` numbers of every pixel; h and t are spare, and as
 * large. */
typedef struct {
    tt_stream *stream;
    tt_act *x, *h, *t;
    int64_t images, height, width, channels;
    int64_t groups; /* of every norm */
    float eps;
} tt_conv_flow;

/* Names are PREFIX + ".norm1.weight" and so on; the shortcut's is given. Biases of convolutions are
 * read where the checkpoint has them. TT_EFORMAT naming the tensor, also for channels that the
 * groups do not divide. */
tt_status tt_conv_bind_norm(const tt_bind *b, tt_conv_norm *n, const char *name, int64_t channels,
                            int64_t groups, tt_err *e);
tt_status tt_conv_bind_block(const tt_bind *b, tt_conv_block *k, const char *prefix, int64_t in,
                             int64_t out, const char *shortcut, bool loses, int64_t groups,
                             tt_err *e);
/* NAME.weight [out, in, 3, 3] and, where it is there, NAME.bias. */
tt_status tt_conv_bind(const tt_bind *b, tt_matrix **out, const char *name, int64_t n, int64_t k,
                       tt_err *e);
/* NAME.weight [n, k] or [n, k, 1, 1] and, where it is there, NAME.bias. */
tt_status tt_conv_bind_point(const tt_bind *b, tt_matrix **out, const char *name, int64_t n,
                             int64_t k, tt_err *e);
void tt_conv_norm_close(tt_conv_norm *n, tt_stream *s);
void tt_conv_block_close(tt_conv_block *k, tt_stream *s);

/* Multiply-adds a pixel. */
static inline double tt_conv_block_macs(const tt_conv_block *k)
{
    double in = (double)k->in, out = (double)k->out;
    return 9 * out * (in + out) + (k->shortcut ? (k->loses ? out : in) * out : 0);
}

static inline int64_t tt_conv_pixels(const tt_conv_flow *f)
{
    return f->images * f->height * f->width;
}
/* x and h change places. */
static inline void tt_conv_swap(tt_conv_flow *f)
{
    tt_act *x = f->x;
    f->x = f->h;
    f->h = x;
}

/* h = silu(norm x), or the norm alone. */
tt_status tt_conv_normalise(tt_conv_flow *f, const tt_conv_norm *n, bool silu, tt_err *e);
/* x = block x. */
tt_status tt_conv_run_block(tt_conv_flow *f, const tt_conv_block *k, tt_err *e);
/* x = conv3x3 of h, which has `in` channels; f->channels becomes out. */
tt_status tt_conv_run(tt_conv_flow *f, const tt_matrix *m, int64_t in, int64_t out, tt_err *e);
/* x = conv3x3 of x enlarged to twice its sides. */
tt_status tt_conv_enlarge(tt_conv_flow *f, const tt_matrix *m, tt_err *e);

#endif
