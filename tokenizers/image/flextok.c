/* flextok.c - see flextok.h. Follows the released code; a step of a painting is a call of the
 * network (two at once where it is guided), and in the end the autoencoder. */
#include "tokenizers/image/flextok.h"

#include <stdlib.h>
#include <string.h>

extern const tt_codec_def tt_codec_flextok;

/* --- opening --- */

/* The autoencoder's sizes must be given: releases keep them with it, converting puts them here. */
static tt_status open_vae(tt_flextok_codec *c, const tt_weights *w, tt_config *all,
                          tt_weights_mode mode, tt_err *e)
{
    static const char key[] = "tutti_local_autoencoder_config";
    tt_config *v = NULL, *own = NULL;
    tt_status s = tt_config_member(&v, all, "vae", e);
    if (!s)
        s = tt_config_member(&own, v, tt_config_has(v, key) ? key : "config", e);
    if (!s)
        s = tt_vae_open(&c->vae, c->base.stream, w, own, "vae.vae.", mode, e);
    tt_config_close(own);
    tt_config_close(v);
    return s;
}

static tt_status open_parts(tt_flextok_codec *c, const tt_weights *w, tt_config *all,
                            tt_weights_mode mode, tt_err *e)
{
    static const char *const unread[] = {"flow_matching_noise_module", "pipeline", NULL};
    tt_config *regularizer = NULL;
    tt_config_ignore(all, unread);
    tt_status s = tt_config_member(&regularizer, all, "regularizer", e);
    if (!s)
        s = tt_fsq_read(&c->fsq, regularizer, "levels", e);
    tt_config_close(regularizer);
    if (!s)
        s = tt_flextok_open(&c->net, c->base.stream, w, all, e);
    if (!s)
        s = open_vae(c, w, all, mode, e);
    if (s)
        return s;
    const tt_flextok_info *net = tt_flextok_about(c->net);
    const tt_vae_info *vae = tt_vae_about(c->vae);
    return net->dims == c->fsq.dims && net->channels == vae->channels &&
                   (int64_t)net->side * vae->factor <= 1 << 13
               ? TT_OK
               : tt_fail(e, TT_EFORMAT, "tokens of %d numbers for %d levels, latents of %d and %d "
                         "channels", net->dims, c->fsq.dims, net->channels, vae->channels);
}

static void describe(tt_flextok_codec *c)
{
    const tt_flextok_info *net = tt_flextok_about(c->net);
    int32_t side = net->side * tt_vae_about(c->vae)->factor;
    double pixels = (double)side * side;
    c->base.info = (tt_codec_info){.family = "FlexTok",
                                   .architecture = "FlexTok",
                                   .width = side,
                                   .height = side,
                                   .layout = {.kind = TT_LAYOUT_SEQUENCE,
                                              .tokens = net->tokens,
                                              .levels = 1,
                                              .level = {net->tokens},
                                              .codes = c->fsq.codes},
                                   .prefix_decodable = true,
                                   .mixes = true,
                                   .painting = {.steps = 20, .guidance = 7.5, .momentum = -0.5},
                                   .latent = c->fsq.dims,
                                   .encode_macs = tt_flextok_macs(c->net, false) +
                                                  tt_vae_macs(c->vae, pixels, false),
                                   .decode_macs = tt_vae_macs(c->vae, pixels, true),
                                   .latent_macs = tt_flextok_macs(c->net, true),
                                   .products = TT_COMPUTE_F32,
                                   .parameters = net->parameters,
                                   .weight_bytes = net->weight_bytes,
                                   .compute = net->compute};
}

static void flextok_close(tt_codec *base)
{
    tt_flextok_codec *c = (tt_flextok_codec *)base;
    tt_flextok_close(c->net);
    tt_vae_close(c->vae);
    free(c);
}

static tt_status flextok_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *config,
                              tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    tt_flextok_codec *c = calloc(1, sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a codec");
    c->base.def = &tt_codec_flextok;
    c->base.stream = s;
    tt_status st = open_parts(c, w, config, mode, e);
    if (st) {
        flextok_close(&c->base);
        return tt_context(e, st, "FlexTok");
    }
    describe(c);
    *out = &c->base;
    return TT_OK;
}

/* --- small things --- */

static int64_t latent_numbers(const tt_flextok_codec *c)
{
    const tt_flextok_info *net = tt_flextok_about(c->net);
    return (int64_t)net->channels * net->side * net->side;
}

static int64_t pixels_of(const tt_flextok_codec *c)
{
    return (int64_t)c->base.info.width * c->base.info.height;
}

/* --- encoding: one pass --- */

static tt_status encode_some(tt_flextok_codec *c, float *number, const float *pixels,
                             int64_t images, tt_err *e)
{
    int64_t n = pixels_of(c), latents = images * latent_numbers(c);
    int32_t side = c->base.info.width;
    float *planes = malloc((size_t)(images * 3 * n) * sizeof *planes);
    float *latent = malloc((size_t)latents * sizeof *latent);
    tt_status s = planes && latent ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < images * 3 * n && !s; i++) {
        const float *mine = pixels + i / (3 * n) * 3 * n;
        planes[i] = 2 * mine[i % n * 3 + i / n % 3] - 1;
    }
    if (!s)
        s = tt_vae_encode(c->vae, latent, NULL, planes, images, side, side, e);
    for (int64_t i = 0; i < latents && !s; i++)
        latent[i] *= tt_vae_about(c->vae)->scale;
    if (!s)
        s = tt_flextok_encode(c->net, number, latent, images, e);
    free(planes);
    free(latent);
    return s;
}

enum { IMAGES = 16 };

static tt_status flextok_encode(tt_codec *base, int32_t *id, float *latent,
                                tt_code_distance *distance, const float *pixels, int64_t images,
                                tt_err *e)
{
    tt_flextok_codec *c = (tt_flextok_codec *)base;
    int64_t one = base->info.layout.tokens, dims = c->fsq.dims, all = images * one;
    float *number = malloc((size_t)(all * dims + 1) * sizeof *number);
    tt_status s = number ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for tokens");
    for (int64_t i = 0; i < images && !s; i += IMAGES)
        s = encode_some(c, number + i * one * dims, pixels + i * 3 * pixels_of(c),
                        images - i < IMAGES ? images - i : IMAGES, e);
    for (int64_t i = 0; i < all && !s; i++) {
        const float *z = number + i * dims;
        id[i] = tt_fsq_code(&c->fsq, z);
        if (distance)
            tt_fsq_gap(&c->fsq, &distance[i].nearest, &distance[i].second, z);
    }
    if (latent && !s)
        memcpy(latent, number, (size_t)(all * dims) * sizeof *latent);
    free(number);
    return s;
}

static tt_status encode_works(tt_flextok_codec *c, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    int64_t one = 3 * pixels_of(c), tokens = c->base.info.layout.tokens;
    float *pixels = malloc((size_t)(n * one) * sizeof *pixels);
    int32_t *id = malloc((size_t)(n * tokens) * sizeof *id);
    float *latent = malloc((size_t)(n * tokens * c->fsq.dims) * sizeof *latent);
    tt_status s = pixels && id && latent ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < n && !s; i++)
        memcpy(pixels + i * one, w[i]->given, (size_t)one * sizeof *pixels);
    if (!s)
        s = flextok_encode(&c->base, id, latent, NULL, pixels, n, e);
    for (int64_t i = 0; i < n && !s; i++) {
        memcpy(w[i]->id, id + i * tokens, (size_t)tokens * sizeof *id);
        memcpy(w[i]->latent, latent + i * tokens * c->fsq.dims,
               (size_t)(tokens * c->fsq.dims) * sizeof *latent);
        w[i]->done = true;
    }
    free(pixels);
    free(id);
    free(latent);
    return s;
}

/* --- painting --- */

static tt_status flextok_paint(tt_codec_work *w, const tt_painting *how, tt_err *e)
{
    const tt_flextok_codec *c = (const tt_flextok_codec *)w->codec;
    tt_flextok_painting *p = (tt_flextok_painting *)w;
    int32_t tokens = c->base.info.layout.tokens, dims = c->fsq.dims;
    tt_status s = tt_flow_open(&p->flow, how, latent_numbers(c), e);
    p->code = malloc((size_t)(tokens * dims) * sizeof *p->code);
    if (!s && !p->code)
        s = tt_fail(e, TT_ENOMEM, "no memory for tokens");
    for (int32_t t = 0; t < tokens && !s; t++)
        tt_fsq_lookup(&c->fsq, p->code + t * dims, w->id[t]);
    w->of = p->flow.calls + 1;
    return s;
}

/* Of those that have come to the end of the flow. */
static tt_status finish(tt_flextok_codec *c, tt_flextok_painting *const *p, int64_t n, tt_err *e)
{
    int64_t numbers = latent_numbers(c), pixels = pixels_of(c);
    int32_t side = tt_flextok_about(c->net)->side;
    float *latent = calloc((size_t)(n * numbers), sizeof *latent);
    float *planes = malloc((size_t)(n * 3 * pixels) * sizeof *planes);
    tt_status s = latent && planes ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < n * numbers && !s; i++)
        latent[i] = p[i / numbers]->flow.x[i % numbers] / tt_vae_about(c->vae)->scale;
    if (!s)
        s = tt_vae_decode(c->vae, planes, latent, n, side, side, e);
    for (int64_t i = 0; i < n && !s; i++) {
        const float *mine = planes + i * 3 * pixels;
        for (int64_t k = 0; k < 3 * pixels; k++)
            p[i]->base.pixels[k] = 0.5f * mine[k % 3 * pixels + k / 3] + 0.5f;
        p[i]->base.done = true;
    }
    free(latent);
    free(planes);
    return s;
}

/* The calls of a painting's next step; how many. */
static int64_t list_calls(tt_flextok_painting *p, tt_flextok_call *call)
{
    tt_flow_begin(&p->flow);
    double left = 1 - tt_flow_now(&p->flow);
    for (int i = 0; i < (p->flow.guided ? 2 : 1); i++)
        call[i] = (tt_flextok_call){.x = p->flow.probe, .code = p->code, .keep = p->base.keep,
                                    .unguided = i, .t = (float)left,
                                    .velocity = i ? p->flow.u : p->flow.v};
    return p->flow.guided ? 2 : 1;
}

static tt_status paint_works(tt_flextok_codec *c, tt_flextok_painting *const *p, int64_t n,
                             tt_err *e)
{
    tt_flextok_call *call = calloc((size_t)(2 * n), sizeof *call);
    tt_flextok_painting **ended = calloc((size_t)n, sizeof(tt_flextok_painting *));
    int64_t calls = 0, ends = 0;
    tt_status s = call && ended ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a step");
    for (int64_t i = 0; i < n && !s; i++) {
        if (p[i]->flow.call == p[i]->flow.calls)
            ended[ends++] = p[i];
        else
            calls += list_calls(p[i], call + calls);
    }
    if (!s)
        s = tt_flextok_run(c->net, call, calls, e);
    for (int64_t i = 0; i < calls && !s; i++)
        for (int64_t k = 0; k < latent_numbers(c); k++)
            call[i].velocity[k] = -call[i].velocity[k];
    for (int64_t i = 0; i < n && !s; i++)
        if (p[i]->flow.call < p[i]->flow.calls)
            tt_flow_end(&p[i]->flow);
    if (!s && ends)
        s = finish(c, ended, ends, e);
    free(call);
    free(ended);
    return s;
}

static tt_status flextok_step(tt_codec *base, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    tt_flextok_codec *c = (tt_flextok_codec *)base;
    tt_codec_work **read = calloc((size_t)n, sizeof(tt_codec_work *));
    tt_flextok_painting **paint = calloc((size_t)n, sizeof(tt_flextok_painting *));
    int64_t reads = 0, paints = 0;
    tt_status s = read && paint ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a step");
    for (int64_t i = 0; i < n && !s; i++) {
        if (w[i]->paints)
            paint[paints++] = (tt_flextok_painting *)w[i];
        else
            read[reads++] = w[i];
    }
    if (!s && reads)
        s = encode_works(c, read, reads, e);
    if (!s && paints)
        s = paint_works(c, paint, paints, e);
    free(read);
    free(paint);
    return s;
}

static void flextok_drop(tt_codec_work *w)
{
    tt_flextok_painting *p = (tt_flextok_painting *)w;
    if (!w->paints)
        return;
    tt_flow_close(&p->flow);
    free(p->code);
}

/* --- the rest --- */

static tt_status flextok_embed(tt_codec *base, float *latent, const int32_t *id, int64_t images,
                               tt_err *e)
{
    const tt_flextok_codec *c = (const tt_flextok_codec *)base;
    (void)e;
    for (int64_t i = 0; i < images * base->info.layout.tokens; i++)
        tt_fsq_lookup(&c->fsq, latent + i * c->fsq.dims, id[i]);
    return TT_OK;
}

static int32_t flextok_mix(const tt_codec *base, int32_t a, int32_t b, double share)
{
    return tt_fsq_mix(&((const tt_flextok_codec *)base)->fsq, a, b, share);
}

static size_t flextok_bytes(const tt_codec *base, int64_t images)
{
    const tt_flextok_codec *c = (const tt_flextok_codec *)base;
    return tt_flextok_bytes(c->net, 2 * images) +
           tt_vae_bytes(c->vae, images, tt_flextok_about(c->net)->side);
}

static const char *const architectures[] = {"FlexTok", "flextok", NULL};

const tt_codec_def tt_codec_flextok = {
    .family = "FlexTok",
    .summary = "pictures as an ordered list of tokens, any number of which is a picture",
    .source = "arXiv 2502.13967 and the released code",
    .architectures = architectures,
    .key = "flow_matching_noise_module",
    .open = flextok_open,
    .close = flextok_close,
    .encode = flextok_encode,
    .embed = flextok_embed,
    .bytes = flextok_bytes,
    .paint = flextok_paint,
    .step = flextok_step,
    .drop = flextok_drop,
    .paint_size = sizeof(tt_flextok_painting),
    .mix = flextok_mix,
};
