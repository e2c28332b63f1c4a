/* restok.c - ResTok (arXiv 2601.03955): pictures as tokens in levels, coarse to fine. A
 * convolutional encoder and a vision transformer whose image tokens are merged on the way to
 * coarser grids; latents that begin as pooled residuals; a code per latent by angle; the same
 * backwards. Any prefix of levels decodes. Follows the released code where the paper says
 * otherwise: merging takes every second token, and the latents' buffer is re-read with rows and
 * columns exchanged. Small folders of our own say in_place: then every token comes of its own
 * latent, and image tokens begin with a vector for each place instead of one for all. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image/restok.h"

extern const tt_codec_def tt_codec_restok;

/* --- tensors --- */

tt_restok_name tt_restok_named(const char *format, const char *a, int i)
{
    tt_restok_name n;
    snprintf(n.text, sizeof n.text, format, a, i);
    return n;
}

tt_restok_name tt_restok_join(const char *a, const char *b)
{
    tt_restok_name n;
    snprintf(n.text, sizeof n.text, "%.100s%.50s", a, b);
    return n;
}

tt_status tt_restok_host(const tt_weights *w, float **out, const char *called, int64_t n, tt_err *e)
{
    *out = malloc((size_t)n * sizeof **out);
    return *out ? tt_bind_host(w, *out, called, n, e)
                : tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", called);
}

/* --- opening --- */

static void restok_close(tt_codec *base)
{
    tt_restok *r = (tt_restok *)base;
    tt_stream *s = base->stream;
    tt_restok_close_net(&r->encoder, s);
    tt_restok_close_net(&r->decoder, s);
    tt_restok_close_tower(&r->in, s);
    tt_restok_close_tower(&r->out, s);
    tt_restok_close_codes(r);
    for (int i = 0; i < TT_RESTOK_STAGES; i++)
        tt_restok_turning_close(&r->turn_in[i], s);
    tt_restok_turning_close(&r->turn_out, s);
    s->op.release(s, r->space);
    free(r);
}

static tt_status need_operations(const tt_stream *s, tt_err *e)
{
    tt_status st = TT_BIND_NEED(s, conv3x3, e);
    if (!st)
        st = TT_BIND_NEED(s, layernorm, e);
    if (!st)
        st = TT_BIND_NEED(s, gelu_erf, e);
    return st ? st : TT_BIND_NEED(s, layernorm_heads, e);
}

/* What comes before the codes is read exactly: a code must not change with the arithmetic. */
static tt_status bind_all(tt_restok *r, tt_stream *s, const tt_weights *w, tt_weights_mode mode,
                          tt_err *e)
{
    static const char *const sample = "decoder.blocks.0.attn.qkv.weight";
    tt_bind exact = {.stream = s, .weights = w, .compute = tt_bind_exact(s)}, quick = exact;
    tt_status st = tt_bind_choose(&quick.compute, s, w, sample, mode, e);
    tt_restok_tower *t[] = {&r->in, &r->out};
    const tt_compute compute[] = {exact.compute, quick.compute};
    for (int i = 0; i < 2; i++) {
        t[i]->vit.stream = s;
        t[i]->vit.compute = compute[i];
        t[i]->vit.type = s->op.act_type ? s->op.act_type(s, compute[i]) : TT_F32;
    }
    if (!st)
        st = need_operations(s, e);
    if (!st)
        st = tt_restok_bind_encoder(r, &exact, e);
    if (!st)
        st = tt_restok_bind_tower(&r->in, &exact, "encoder", e);
    if (!st)
        st = tt_conv_bind_point(&exact, &r->in.embed, "encoder.patch_embed", r->in.vit.width, r->z,
                                e);
    if (!st)
        st = tt_restok_bind_tower(&r->out, &quick, "decoder", e);
    if (!st)
        st = tt_conv_bind_point(&quick, &r->out.embed, "decoder.ffn", r->z, r->out.vit.width, e);
    if (!st)
        st = tt_restok_bind_decoder(r, &quick, e);
    r->base.info.compute = tt_bind_text(w, sample, quick.compute);
    r->base.info.reading = exact.compute;
    return st ? st : tt_restok_bind_codes(r, w, e);
}

/* Of decoding: up to the first convolution, and all. */
static void count_macs(tt_restok *r)
{
    tt_codec_info *info = &r->base.info;
    int64_t cells = tt_restok_cells(r);
    info->latent_macs = tt_restok_tower_macs(&r->out, cells + tt_restok_tokens(r)) +
                        (double)(cells * r->z) * (double)r->out.vit.width;
    info->decode_macs = info->latent_macs + tt_restok_pixel_macs(r);
}

static tt_status restok_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                             tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    tt_restok *r = calloc(1, sizeof *r);
    if (!r)
        return tt_fail(e, TT_ENOMEM, "no memory for a codec");
    r->base.def = &tt_codec_restok;
    r->base.stream = s;
    tt_status st = tt_restok_read_config(r, c, e);
    if (!st)
        st = bind_all(r, s, w, mode, e);
    if (st) {
        restok_close(&r->base);
        return st;
    }
    tt_codec_info *info = &r->base.info;
    info->family = info->architecture = "ResTok";
    info->prefix_decodable = true;
    info->latent = (int32_t)r->dims;
    info->parameters = tt_weights_elements(w);
    info->weight_bytes = tt_weights_bytes(w);
    info->products = r->out.vit.compute;
    count_macs(r);
    *out = &r->base;
    return TT_OK;
}

int64_t tt_restok_most_rows(const tt_restok *r)
{
    int64_t rows = tt_restok_tokens(r);
    for (int g = 0; g < r->stages; g++)
        rows += tt_restok_grid(r, g);
    return rows;
}

/* --- running --- */

/* A call's pictures go through the networks so many at a time. */
static int64_t at_once(int64_t images)
{
    return images < TT_RESTOK_PICTURES ? images : TT_RESTOK_PICTURES;
}

static tt_status restok_encode(tt_codec *base, int32_t *id, float *latent,
                               tt_code_distance *distance, const float *pixels, int64_t images,
                               tt_err *e)
{
    tt_restok *r = (tt_restok *)base;
    int64_t tokens = tt_restok_tokens(r), n = 3 * (int64_t)base->info.width * base->info.width;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += TT_RESTOK_PICTURES)
        s = tt_restok_encode(r, id + i * tokens, latent ? latent + i * tokens * r->dims : NULL,
                             distance ? distance + i * tokens : NULL, pixels + i * n,
                             at_once(images - i), e);
    return s;
}

static tt_status restok_decode(tt_codec *base, float *pixels, const int32_t *id,
                               const int32_t *keep, int64_t images, tt_err *e)
{
    tt_restok *r = (tt_restok *)base;
    tt_stream *st = base->stream;
    int64_t tokens = tt_restok_tokens(r), n = 3 * (int64_t)base->info.width * base->info.width;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += TT_RESTOK_PICTURES)
        s = tt_restok_decode(r, pixels + i * n, id + i * tokens, keep ? keep + i : NULL,
                             at_once(images - i), e);
    if (!st->op.pass_begin) { /* nobody remembers where it was */
        st->op.release(st, r->space);
        r->space = NULL;
        r->space_bytes = 0;
    }
    return s;
}

static tt_status restok_embed(tt_codec *base, float *latent, const int32_t *id, int64_t images,
                              tt_err *e)
{
    const tt_restok *r = (const tt_restok *)base;
    (void)e;
    for (int64_t i = 0; i < images * tt_restok_tokens(r); i++)
        memcpy(latent + i * r->dims, r->unit + (int64_t)id[i] * r->dims,
               (size_t)r->dims * sizeof *latent);
    return TT_OK;
}

static size_t restok_bytes(const tt_codec *base, int64_t images)
{
    const tt_restok *r = (const tt_restok *)base;
    int64_t n = at_once(images), rows = n * tt_restok_most_rows(r), d = r->in.vit.width;
    size_t pixels = (size_t)(3 * n * tt_restok_most_numbers(r)) * 4;
    return pixels + (size_t)(rows * (3 * d + 2)) * 4 + tt_vit_bytes(&r->in.vit, rows);
}

static const char *const architectures[] = {"ResTok", NULL};

const tt_codec_def tt_codec_restok = {
    .family = "ResTok",
    .summary = "pictures as tokens in levels, coarse to fine",
    .source = "arXiv 2601.03955 and the released code",
    .architectures = architectures,
    .open = restok_open,
    .close = restok_close,
    .encode = restok_encode,
    .decode = restok_decode,
    .embed = restok_embed,
    .bytes = restok_bytes,
};
