/* convnet.c - see convnet.h. */
#include "tokenizers/image/convnet.h"

#include <stdio.h>

/* --- binding --- */

typedef struct {
    char text[200];
} name;

static name join(const char *a, const char *b)
{
    name n;
    snprintf(n.text, sizeof n.text, "%.140s%.50s", a, b);
    return n;
}

tt_status tt_conv_bind_norm(const tt_bind *b, tt_conv_norm *n, const char *called,
                            int64_t channels, int64_t groups, tt_err *e)
{
    if (groups < 1 || channels % groups)
        return tt_fail(e, TT_EFORMAT, "'%.120s' has %lld channels in %lld groups", called,
                       (long long)channels, (long long)groups);
    tt_status s = tt_bind_vector(b, &n->weight, join(called, ".weight").text, channels, e);
    return s ? s : tt_bind_vector(b, &n->bias, join(called, ".bias").text, channels, e);
}

tt_status tt_conv_bind(const tt_bind *b, tt_matrix **out, const char *called, int64_t n, int64_t k,
                       tt_err *e)
{
    name bias = join(called, ".bias");
    return tt_bind_conv3x3(b, out, join(called, ".weight").text, n, k,
                           tt_weights_has(b->weights, bias.text) ? bias.text : NULL, e);
}

tt_status tt_conv_bind_point(const tt_bind *b, tt_matrix **out, const char *called, int64_t n,
                             int64_t k, tt_err *e)
{
    name weight = join(called, ".weight"), bias = join(called, ".bias");
    tt_bind_part part = {weight.text, n,
                         tt_weights_has(b->weights, bias.text) ? bias.text : NULL};
    return tt_bind_matrix(b, out, &part, 1, k, TT_MATRIX_LINEAR, e);
}

tt_status tt_conv_bind_block(const tt_bind *b, tt_conv_block *k, const char *prefix, int64_t in,
                             int64_t out, const char *shortcut, bool loses, int64_t groups,
                             tt_err *e)
{
    k->loses = loses;
    k->in = in;
    k->out = out;
    tt_status s = tt_conv_bind_norm(b, &k->norm1, join(prefix, ".norm1").text, in, groups, e);
    if (!s)
        s = tt_conv_bind(b, &k->conv1, join(prefix, ".conv1").text, out, in, e);
    if (!s)
        s = tt_conv_bind_norm(b, &k->norm2, join(prefix, ".norm2").text, out, groups, e);
    if (!s)
        s = tt_conv_bind(b, &k->conv2, join(prefix, ".conv2").text, out, out, e);
    if (s || in == out)
        return s;
    return tt_conv_bind_point(b, &k->shortcut, join(prefix, shortcut).text, out, loses ? out : in,
                              e);
}

void tt_conv_norm_close(tt_conv_norm *n, tt_stream *s)
{
    s->op.release(s, n->weight);
    s->op.release(s, n->bias);
}

void tt_conv_block_close(tt_conv_block *k, tt_stream *s)
{
    tt_conv_norm_close(&k->norm1, s);
    tt_conv_norm_close(&k->norm2, s);
    s->op.matrix_close(s, k->conv1);
    s->op.matrix_close(s, k->conv2);
    s->op.matrix_close(s, k->shortcut);
}

/* --- running --- */

static tt_status normalise(tt_conv_flow *f, tt_act *y, const tt_act *x, const tt_conv_norm *n,
                           int64_t channels, bool silu, tt_err *e)
{
    return f->stream->op.group_norm(f->stream, y, channels, x, channels, n->weight, n->bias,
                                    f->images, f->height * f->width, channels, f->groups, f->eps,
                                    silu, e);
}

static tt_status convolve(tt_conv_flow *f, tt_act *y, int64_t out, const tt_act *x, int64_t in,
                          const tt_matrix *m, bool up, bool add, tt_err *e)
{
    int64_t scale = up ? 2 : 1;
    tt_image_shape shape = {f->images, f->height * scale, f->width * scale, in, up};
    return f->stream->op.conv3x3(f->stream, y, out, x, in, &shape, m, add, e);
}

tt_status tt_conv_normalise(tt_conv_flow *f, const tt_conv_norm *n, bool silu, tt_err *e)
{
    return normalise(f, f->h, f->x, n, f->channels, silu, e);
}

/* x = shortcut h + h, h = conv2 of t: the block's input is lost. */
static tt_status lose(tt_conv_flow *f, const tt_conv_block *k, tt_err *e)
{
    int64_t n = tt_conv_pixels(f), out = k->out;
    tt_status s = convolve(f, f->h, out, f->t, out, k->conv2, false, false, e);
    if (!s)
        s = f->stream->op.linear(f->stream, f->x, out, f->h, out, n, k->shortcut, false, e);
    return s ? s : f->stream->op.add(f->stream, f->x, out, f->h, out, n, out, e);
}

tt_status tt_conv_run_block(tt_conv_flow *f, const tt_conv_block *k, tt_err *e)
{
    tt_status s = normalise(f, f->h, f->x, &k->norm1, k->in, true, e);
    if (!s)
        s = convolve(f, f->t, k->out, f->h, k->in, k->conv1, false, false, e);
    if (!s)
        s = normalise(f, f->t, f->t, &k->norm2, k->out, true, e);
    f->channels = k->out;
    if (!s && k->shortcut && k->loses)
        return lose(f, k, e);
    if (!s && k->shortcut) {
        s = f->stream->op.linear(f->stream, f->h, k->out, f->x, k->in, tt_conv_pixels(f),
                                 k->shortcut, false, e);
        tt_conv_swap(f);
    }
    return s ? s : convolve(f, f->x, k->out, f->t, k->out, k->conv2, false, true, e);
}

tt_status tt_conv_run(tt_conv_flow *f, const tt_matrix *m, int64_t in, int64_t out, tt_err *e)
{
    f->channels = out;
    return convolve(f, f->x, out, f->h, in, m, false, false, e);
}

tt_status tt_conv_enlarge(tt_conv_flow *f, const tt_matrix *m, tt_err *e)
{
    tt_status s = convolve(f, f->h, f->channels, f->x, f->channels, m, true, false, e);
    f->height *= 2;
    f->width *= 2;
    tt_conv_swap(f);
    return s;
}
