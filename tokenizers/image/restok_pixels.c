/* restok_pixels.c - ResTok's convolutions: residual blocks between pixels and the rows of z numbers
 * that its transformers read or write; coarser by averages of 2 x 2, finer by enlarging. */
#include "tokenizers/image/restok.h"

/* --- opening --- */

static tt_status bind_blocks(const tt_bind *b, tt_conv_block *list, const char *prefix, int64_t n,
                             int64_t *in, int64_t out, int64_t groups, tt_err *e)
{
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++) {
        s = tt_conv_bind_block(b, &list[i], tt_restok_named("%s.%d", prefix, (int)i).text, *in, out,
                               ".nin_shortcut", true, groups, e);
        *in = out;
    }
    return s;
}

tt_status tt_restok_bind_encoder(tt_restok *r, const tt_bind *b, tt_err *e)
{
    tt_restok_net *n = &r->encoder;
    int64_t in = r->channel[0];
    tt_status s = tt_conv_bind(b, &n->conv_in, "pixel_encoder.conv_in", in, 3, e);
    for (int i = 0; i < r->scales && !s; i++)
        s = bind_blocks(b, n->level[i],
                        tt_restok_named("%s.down.%d.block", "pixel_encoder", i).text, r->blocks,
                        &in, r->channel[i], r->groups, e);
    if (!s)
        s = bind_blocks(b, n->mid, "pixel_encoder.mid", r->blocks, &in, in, r->groups, e);
    if (!s)
        s = tt_conv_bind_norm(b, &n->norm_out, "pixel_encoder.norm_out", in, r->groups, e);
    return s ? s : tt_conv_bind_point(b, &n->conv_out, "pixel_encoder.conv_out", r->z, in, e);
}

tt_status tt_restok_bind_decoder(tt_restok *r, const tt_bind *b, tt_err *e)
{
    tt_restok_net *n = &r->decoder;
    int64_t in = r->channel[r->scales - 1];
    tt_status s = tt_conv_bind(b, &n->conv_in, "pixel_decoder.conv_in", in, r->z, e);
    if (!s)
        s = bind_blocks(b, n->mid, "pixel_decoder.mid", r->blocks, &in, in, r->groups, e);
    for (int i = (int)r->scales - 1; i >= 0 && !s; i--) {
        s = bind_blocks(b, n->level[i], tt_restok_named("%s.up.%d.block", "pixel_decoder", i).text,
                        r->blocks, &in, r->channel[i], r->groups, e);
        if (!s && i)
            s = tt_conv_bind(b, &n->up[i],
                             tt_restok_named("%s.up.%d.upsample_conv", "pixel_decoder", i).text,
                             in, in, e);
    }
    if (!s)
        s = tt_conv_bind_norm(b, &n->norm_out, "pixel_decoder.norm_out", in, r->groups, e);
    return s ? s : tt_conv_bind(b, &n->conv_out, "pixel_decoder.conv_out", 3, in, e);
}

void tt_restok_close_net(tt_restok_net *n, tt_stream *s)
{
    s->op.matrix_close(s, n->conv_in);
    s->op.matrix_close(s, n->conv_out);
    tt_conv_norm_close(&n->norm_out, s);
    for (int i = 0; i < TT_RESTOK_SCALES; i++) {
        s->op.matrix_close(s, n->up[i]);
        for (int k = 0; k < TT_RESTOK_BLOCKS; k++)
            tt_conv_block_close(&n->level[i][k], s);
    }
    for (int k = 0; k < TT_RESTOK_BLOCKS; k++)
        tt_conv_block_close(&n->mid[k], s);
}

/* --- running --- */

int64_t tt_restok_most_numbers(const tt_restok *r)
{
    int64_t most = 0;
    for (int64_t i = 0; i < r->scales; i++) {
        int64_t side = r->side << (r->scales - 1 - i), wide = r->channel[i];
        if (i + 1 < r->scales && r->channel[i + 1] > wide)
            wide = r->channel[i + 1];
        if (i && r->channel[i - 1] > wide)
            wide = r->channel[i - 1];
        wide = wide > 3 ? wide : 3;
        wide = i == r->scales - 1 && r->z > wide ? r->z : wide;
        most = side * side * wide > most ? side * side * wide : most;
    }
    return most;
}

static tt_status run_blocks(tt_conv_flow *f, const tt_conv_block *list, int64_t n, tt_err *e)
{
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++)
        s = tt_conv_run_block(f, &list[i], e);
    return s;
}

tt_status tt_restok_encode_pixels(tt_restok *r, tt_conv_flow *f, tt_act *rows, tt_err *e)
{
    tt_stream *s = f->stream;
    const tt_restok_net *n = &r->encoder;
    tt_status st = tt_conv_run(f, n->conv_in, 3, r->channel[0], e);
    for (int64_t i = 0; i < r->scales && !st; i++) {
        st = run_blocks(f, n->level[i], r->blocks, e);
        tt_image_shape shape = {f->images, f->height, f->width, f->channels, false};
        if (st || i == r->scales - 1)
            continue;
        st = s->op.average_pool(s, f->h, f->channels, f->x, f->channels, &shape, e);
        f->height /= 2;
        f->width /= 2;
        tt_conv_swap(f);
    }
    if (!st)
        st = run_blocks(f, n->mid, r->blocks, e);
    if (!st)
        st = tt_conv_normalise(f, &n->norm_out, true, e);
    if (!st)
        st = s->op.linear(s, f->t, r->z, f->h, f->channels, tt_conv_pixels(f), n->conv_out, false,
                          e);
    return st ? st : s->op.linear(s, rows, r->in.vit.width, f->t, r->z, tt_conv_pixels(f),
                                  r->in.embed, false, e);
}

tt_status tt_restok_decode_pixels(tt_restok *r, tt_conv_flow *f, tt_err *e)
{
    const tt_restok_net *n = &r->decoder;
    tt_status s = tt_conv_run(f, n->conv_in, r->z, r->channel[r->scales - 1], e);
    if (!s)
        s = run_blocks(f, n->mid, r->blocks, e);
    for (int64_t i = r->scales - 1; i >= 0 && !s; i--) {
        s = run_blocks(f, n->level[i], r->blocks, e);
        if (!s && i)
            s = tt_conv_enlarge(f, n->up[i], e);
    }
    int64_t wide = f->channels;
    if (!s)
        s = tt_conv_normalise(f, &n->norm_out, true, e);
    return s ? s : tt_conv_run(f, n->conv_out, wide, 3, e);
}

double tt_restok_pixel_macs(const tt_restok *r)
{
    double pixels = (double)tt_restok_cells(r);
    double macs = pixels * 9 * (double)(r->z * r->channel[r->scales - 1]);
    for (int64_t i = 0; i < r->blocks; i++)
        macs += pixels * tt_conv_block_macs(&r->decoder.mid[i]);
    for (int64_t l = r->scales - 1; l >= 0; l--, pixels *= 4) {
        double wide = (double)r->channel[l];
        for (int64_t i = 0; i < r->blocks; i++)
            macs += pixels * tt_conv_block_macs(&r->decoder.level[l][i]);
        macs += l ? 4 * pixels * 9 * wide * wide : pixels * 27 * wide;
    }
    return macs;
}
