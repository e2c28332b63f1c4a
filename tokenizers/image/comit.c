/* comit.c - see comit.h. Follows the released code but that a crop's latent is the autoencoder's
 * mean unless asked otherwise, and that messages are carried on instead of being made anew from the
 * first crop: without noise that is the same. */
#include "tokenizers/image/comit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/bind.h"

extern const tt_codec_def tt_codec_comit;

/* --- opening --- */

/* The autoencoder's sizes: given, or those of Stable Diffusion. */
static tt_status open_vae(tt_comit_codec *c, const tt_weights *w, tt_config *v,
                          tt_weights_mode mode, tt_err *e)
{
    static const char usual[] = "{\"block_out_channels\":[128,256,512,512]}";
    tt_config *own = NULL;
    tt_status s = tt_config_has(v, "tutti_local_autoencoder_config")
                      ? tt_config_member(&own, v, "tutti_local_autoencoder_config", e)
                      : tt_config_open_text(&own, usual, sizeof usual - 1, e);
    if (!s)
        s = tt_vae_open(&c->vae, c->base.stream, w, own, "vae.vae.", mode, e);
    tt_config_close(own);
    return s;
}

static tt_status check_sizes(const tt_comit_codec *c, tt_err *e)
{
    const tt_comit_info *net = tt_comit_about(c->net);
    const tt_vae_info *vae = tt_vae_about(c->vae);
    int32_t unit = vae->factor * net->patch;
    if (net->dims != c->fsq.dims || net->channels != vae->channels)
        return tt_fail(e, TT_EFORMAT, "messages of %d numbers for %d levels, latents of %d and %d "
                       "channels", net->dims, c->fsq.dims, net->channels, vae->channels);
    if (c->grid.picture != net->side * vae->factor || c->grid.crop % unit)
        return tt_fail(e, TT_EUNSUP, "pictures of %d pixels and crops of %d, of latents of %d "
                       "cells: 'tutti_geometry' must say other sizes than 256 and 96",
                       c->grid.picture, c->grid.crop, net->side);
    return TT_OK;
}

static tt_status open_networks(tt_comit_codec *c, const tt_weights *w, tt_config *predictor,
                               tt_weights_mode mode, bool strict, tt_err *e)
{
    tt_stream *s = c->base.stream;
    tt_compute compute;
    tt_status st = tt_comit_compute(&compute, s, w, mode, e);
    if (!st)
        st = tt_comit_open(&c->painter, s, w, predictor, compute, strict, e);
    if (st)
        return st;
    if (compute == TT_COMPUTE_F32) {
        c->net = c->painter;
        return TT_OK;
    }
    return tt_comit_open(&c->net, s, w, predictor, tt_bind_exact(s), strict, e);
}

static tt_status open_parts(tt_comit_codec *c, const tt_weights *w, tt_config *all,
                            tt_weights_mode mode, bool strict, tt_err *e)
{
    static const char *const unread[] = {"model_type", "quantization", NULL};
    tt_config *inner = NULL, *part[3] = {NULL};
    static const char *const key[] = {"predictor", "quantizer", "vae"};
    tt_status s = tt_config_has(all, "config") ? tt_config_member(&inner, all, "config", e) : TT_OK;
    tt_config_ignore(all, unread);
    for (int i = 0; i < 3 && !s; i++)
        s = tt_config_member(&part[i], inner ? inner : all, key[i], e);
    if (!s)
        s = tt_fsq_read(&c->fsq, part[1], "levels", e);
    if (!s)
        s = tt_crops_open(&c->grid, all, e);
    if (!s)
        s = open_networks(c, w, part[0], mode, strict, e);
    if (!s)
        s = open_vae(c, w, part[2], mode, e);
    for (int i = 0; i < 3; i++)
        tt_config_close(part[i]);
    tt_config_close(inner);
    return s ? s : check_sizes(c, e);
}

static int32_t cells_of(const tt_comit_codec *c)
{
    return c->grid.picture / tt_vae_about(c->vae)->factor;
}

/* Of all crops in their order. */
static double reading_macs(const tt_comit_codec *c)
{
    const tt_crop_policy usual = {.order = TT_CROPS_RASTER};
    int32_t side = tt_crop_side(&c->grid, &usual, 0), cells = side / tt_vae_about(c->vae)->factor;
    return c->grid.grid * c->grid.grid *
           (tt_comit_macs(c->net, cells, cells) +
            tt_vae_macs(c->vae, (double)side * side, false));
}

static void describe(tt_comit_codec *c)
{
    const tt_comit_info *net = tt_comit_about(c->painter);
    tt_codec_info *i = &c->base.info;
    const tt_crop_policy usual = {.order = TT_CROPS_RASTER};
    float last[2];
    double pixels = (double)c->grid.picture * c->grid.picture;
    tt_crop_location(&c->grid, &usual, c->grid.grid * c->grid.grid - 1, last);
    *i = (tt_codec_info){.family = "COMiT",
                         .architecture = "COMiT",
                         .width = c->grid.picture,
                         .height = c->grid.picture,
                         .layout = {.kind = TT_LAYOUT_SEQUENCE,
                                    .tokens = net->tokens,
                                    .levels = 1,
                                    .level = {net->tokens},
                                    .codes = c->fsq.codes},
                         .mixes = true,
                         .crops = c->grid.grid * c->grid.grid,
                         .painting = {.steps = 10, .guidance = 6, .momentum = -0.5,
                                      .offset = {0 - last[0], 0 - last[1]}},
                         .latent = c->fsq.dims,
                         .encode_macs = reading_macs(c),
                         .decode_macs = tt_vae_macs(c->vae, pixels, true),
                         .latent_macs = tt_comit_macs(c->painter, cells_of(c), cells_of(c)),
                         .products = net->products,
                         .reading = tt_comit_about(c->net)->products,
                         .parameters = net->parameters,
                         .weight_bytes = (size_t)net->weight_bytes,
                         .compute = net->compute};
}

static void comit_close(tt_codec *base)
{
    tt_comit_codec *c = (tt_comit_codec *)base;
    if (c->painter != c->net)
        tt_comit_close(c->painter);
    tt_comit_close(c->net);
    tt_vae_close(c->vae);
    free(c->prior);
    free(c);
}

tt_status tt_comit_codec_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *config,
                              tt_weights_mode mode, bool strict, tt_err *e)
{
    *out = NULL;
    tt_comit_codec *c = calloc(1, sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a codec");
    c->base.def = &tt_codec_comit;
    c->base.stream = s;
    tt_status st = open_parts(c, w, config, mode, strict, e);
    if (!st)
        describe(c);
    int32_t tokens = c->base.info.layout.tokens;
    if (!st && !(c->prior = malloc((size_t)tokens * sizeof *c->prior)))
        st = tt_fail(e, TT_ENOMEM, "no memory for a message");
    for (int32_t i = 0; i < tokens && !st; i++)
        c->prior[i] = c->fsq.codes / 2;
    if (st) {
        comit_close(&c->base);
        return tt_context(e, st, "COMiT");
    }
    *out = &c->base;
    return TT_OK;
}

static tt_status comit_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                            tt_weights_mode mode, tt_err *e)
{
    return tt_comit_codec_open(out, s, w, c, mode, false, e);
}

/* --- small things --- */

static int64_t latent_numbers(const tt_comit_codec *c)
{
    return (int64_t)tt_vae_about(c->vae)->channels * cells_of(c) * cells_of(c);
}

static void message_of(const tt_comit_codec *c, float *out, const int32_t *id)
{
    for (int32_t i = 0; i < c->base.info.layout.tokens; i++)
        tt_fsq_lookup(&c->fsq, out + i * c->fsq.dims, id[i]);
}

static size_t message_bytes(const tt_comit_codec *c)
{
    return (size_t)(c->base.info.layout.tokens * c->fsq.dims) * sizeof(float);
}

/* planes: 3 x side x side in about [-1, 1], from painted latents. */
static tt_status show(tt_comit_codec *c, float *planes, const float *latent, int64_t images,
                      tt_err *e)
{
    int64_t n = images * latent_numbers(c);
    float *scaled = malloc((size_t)n * sizeof *scaled);
    if (!scaled)
        return tt_fail(e, TT_ENOMEM, "no memory for a picture");
    for (int64_t i = 0; i < n; i++)
        scaled[i] = latent[i] / tt_vae_about(c->vae)->scale;
    tt_status s = tt_vae_decode(c->vae, planes, scaled, images, cells_of(c), cells_of(c), e);
    free(scaled);
    return s;
}

/* --- reading --- */

static tt_status comit_read(tt_codec_work *w, const tt_crop_policy *how, tt_err *e)
{
    const tt_comit_codec *c = (const tt_comit_codec *)w->codec;
    tt_comit_reading *r = (tt_comit_reading *)w;
    int64_t pixels = (int64_t)c->grid.picture * c->grid.picture;
    r->how = *how;
    r->planes = malloc((size_t)(3 * pixels) * sizeof *r->planes);
    w->of = tt_crops_plan(&c->grid, how, r->chosen);
    r->latents = malloc((size_t)(w->of * latent_numbers(c)) * sizeof *r->latents);
    r->message = malloc(message_bytes(c));
    if (!r->planes || !r->latents || !r->message)
        return tt_fail(e, TT_ENOMEM, "no memory for a picture");
    for (int64_t i = 0; i < 3 * pixels; i++)
        r->planes[i] = 2 * w->given[i % pixels * 3 + i / pixels] - 1;
    memcpy(w->id, c->prior, (size_t)c->base.info.layout.tokens * sizeof *w->id);
    return TT_OK;
}

static void cut_out(const tt_comit_codec *c, const tt_comit_reading *r, int32_t crop, float *cut)
{
    int32_t at[2], side = tt_crop_side(&c->grid, &r->how, crop);
    tt_crop_corner(&c->grid, &r->how, crop, at);
    for (int32_t line = 0; line < 3 * side; line++)
        memcpy(cut + (int64_t)line * side,
               r->planes + ((int64_t)(line / side) * c->grid.picture + at[1] + line % side) *
                               c->grid.picture + at[0],
               (size_t)side * sizeof *cut);
}

/* Latents of the crops of n steps from `step` on, scaled. They have one side. */
static tt_status look(tt_comit_codec *c, tt_comit_reading *r, int32_t step, int32_t n, tt_err *e)
{
    const tt_vae_info *vae = tt_vae_about(c->vae);
    int32_t side = tt_crop_side(&c->grid, &r->how, r->chosen[step]), cells = side / vae->factor;
    int64_t numbers = (int64_t)vae->channels * cells * cells, pixels = 3 * (int64_t)side * side;
    float *cut = malloc((size_t)(n * pixels) * sizeof *cut);
    float *mean = malloc((size_t)(n * numbers) * sizeof *mean);
    float *spread = malloc((size_t)(n * numbers) * sizeof *spread);
    float *noise = calloc((size_t)numbers, sizeof *noise);
    tt_status s = cut && mean && spread && noise ? TT_OK
                                                 : tt_fail(e, TT_ENOMEM, "no memory for a crop");
    for (int32_t i = 0; i < n && !s; i++)
        cut_out(c, r, r->chosen[step + i], cut + i * pixels);
    if (!s)
        s = tt_vae_encode(c->vae, mean, spread, cut, n, side, side, e);
    for (int32_t i = 0; i < n && !s; i++) {
        float *to = r->latents + (step + i) * latent_numbers(c);
        if (r->how.sampled)
            tt_flow_noise(noise, numbers, r->how.seed, 0, 1 + (uint32_t)(step + i));
        for (int64_t k = 0; k < numbers; k++) {
            float drawn = r->how.sampled ? expf(0.5f * spread[i * numbers + k]) * noise[k] : 0;
            to[k] = (mean[i * numbers + k] + drawn) * vae->scale;
        }
    }
    free(cut);
    free(mean);
    free(spread);
    free(noise);
    return s;
}

/* The next crop; at the first, all that are known beforehand: what they are does not depend on the
 * message, and together they keep a device busy. */
static tt_status look_ahead(tt_comit_codec *c, tt_comit_reading *r, tt_err *e)
{
    int32_t step = r->base.now, end = r->how.order == TT_CROPS_ADAPTIVE ? step + 1 : r->base.of;
    tt_status s = TT_OK;
    if (step && r->how.order != TT_CROPS_ADAPTIVE)
        return TT_OK;
    for (int32_t n; step < end && !s; step += n) {
        int32_t side = tt_crop_side(&c->grid, &r->how, r->chosen[step]);
        n = 1;
        while (step + n < end && tt_crop_side(&c->grid, &r->how, r->chosen[step + n]) == side)
            n++;
        s = look(c, r, step, n, e);
    }
    return s;
}

/* A painting in one step from the message so far. */
static tt_status paint_quickly(tt_comit_codec *c, tt_comit_reading *r, float *planes, tt_err *e)
{
    const tt_painting quick = {.steps = 1, .seed = r->how.seed, .noise = r->how.noise};
    tt_flow f;
    tt_status s = tt_flow_open(&f, &quick, latent_numbers(c), e);
    if (!s) {
        message_of(c, r->message, r->base.id);
        tt_flow_begin(&f);
        tt_comit_call call = {.latent = f.probe, .h = cells_of(c), .w = cells_of(c),
                              .message = r->message, .velocity = f.v,
                              .offset = {r->base.offset[0], r->base.offset[1]}};
        s = tt_comit_run(c->painter, &call, 1, e);
    }
    if (!s) {
        tt_flow_end(&f);
        s = show(c, planes, f.x, 1, e);
    }
    tt_flow_close(&f);
    return s;
}

/* The crop that a painting from the message so far gets most wrong. */
static tt_status choose(tt_comit_codec *c, tt_comit_reading *r, tt_err *e)
{
    size_t pixels = 3 * (size_t)c->grid.picture * (size_t)c->grid.picture;
    float *painted = malloc(pixels * sizeof *painted);
    tt_status s = painted ? paint_quickly(c, r, painted, e)
                          : tt_fail(e, TT_ENOMEM, "no memory for a painting");
    int32_t best = -1;
    if (!s)
        tt_crops_score(&c->grid, r->score, painted, r->planes);
    for (int32_t k = 0; k < c->base.info.crops && !s; k++)
        if (!r->used[k + r->how.whole] && (best < 0 || r->score[k] > r->score[best]))
            best = k;
    r->chosen[r->base.now] = best + r->how.whole;
    free(painted);
    return s;
}

static tt_status begin_reading(tt_comit_codec *c, tt_comit_reading *r, tt_err *e)
{
    tt_status s = TT_OK;
    float at[2];
    if (r->base.now && r->how.order == TT_CROPS_ADAPTIVE)
        s = choose(c, r, e);
    int32_t crop = r->chosen[r->base.now];
    if (!s)
        s = look_ahead(c, r, e);
    if (s)
        return s;
    tt_crop_location(&c->grid, &r->how, crop, at);
    message_of(c, r->message, r->base.id);
    int32_t cells = tt_crop_side(&c->grid, &r->how, crop) / tt_vae_about(c->vae)->factor;
    r->latent = r->latents + r->base.now * latent_numbers(c);
    r->call = (tt_comit_call){.latent = r->latent, .h = cells, .w = cells, .message = r->message,
                              .t = 1, .renewed = r->base.latent};
    for (int i = 0; i < 2; i++) {
        r->call.offset[i] = r->base.now ? at[i] - r->last[i] : 0;
        r->last[i] = at[i];
    }
    r->used[crop] = true;
    r->base.crop = crop;
    return TT_OK;
}

static void end_reading(const tt_comit_codec *c, tt_comit_reading *r)
{
    for (int32_t t = 0; t < c->base.info.layout.tokens; t++)
        r->base.id[t] = tt_fsq_code(&c->fsq, r->base.latent + t * c->fsq.dims);
    for (int i = 0; i < 2; i++)
        r->base.offset[i] = 0 - r->last[i];
    r->base.done = r->base.now + 1 == r->base.of;
}

/* --- painting --- */

static tt_status comit_paint(tt_codec_work *w, const tt_painting *how, tt_err *e)
{
    const tt_comit_codec *c = (const tt_comit_codec *)w->codec;
    tt_comit_painting *p = (tt_comit_painting *)w;
    size_t message = message_bytes(c);
    tt_status s = tt_flow_open(&p->flow, how, latent_numbers(c), e);
    p->message = malloc(2 * message);
    if (!s && !p->message)
        s = tt_fail(e, TT_ENOMEM, "no memory for a message");
    if (s)
        return s;
    float *prior = p->message + message / sizeof(float);
    message_of(c, p->message, w->id);
    message_of(c, prior, c->prior);
    w->of = p->flow.calls + 1;
    for (int i = 0; i < 2; i++)
        p->call[i] = (tt_comit_call){.latent = p->flow.probe, .h = cells_of(c), .w = cells_of(c),
                                     .message = i ? prior : p->message,
                                     .offset = {how->offset[0], how->offset[1]},
                                     .velocity = i ? p->flow.u : p->flow.v};
    return TT_OK;
}

/* Of those that have come to the end of the flow. */
static tt_status finish_paintings(tt_comit_codec *c, tt_comit_painting *const *p, int64_t n,
                                  tt_err *e)
{
    int64_t numbers = latent_numbers(c), pixels = (int64_t)c->grid.picture * c->grid.picture;
    float *latent = calloc((size_t)(n * numbers), sizeof *latent);
    float *planes = malloc((size_t)(n * 3 * pixels) * sizeof *planes);
    tt_status s = latent && planes ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < n && !s; i++)
        memcpy(latent + i * numbers, p[i]->flow.x, (size_t)numbers * sizeof *latent);
    if (!s)
        s = show(c, planes, latent, n, e);
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

/* --- both --- */

/* What a step runs. */
typedef struct {
    tt_comit_call *call, *paint; /* of readings, of paintings */
    int64_t calls, paints;
    tt_comit_painting **ended;
    int64_t ends;
} batch;

static tt_status gather(tt_comit_codec *c, batch *b, tt_codec_work *w, tt_err *e)
{
    tt_comit_painting *p = (tt_comit_painting *)w;
    if (!w->paints) {
        tt_status s = begin_reading(c, (tt_comit_reading *)w, e);
        if (!s)
            b->call[b->calls++] = ((tt_comit_reading *)w)->call;
        return s;
    }
    if (p->flow.call == p->flow.calls) {
        b->ended[b->ends++] = p;
        return TT_OK;
    }
    tt_flow_begin(&p->flow);
    for (int i = 0; i < (p->flow.guided ? 2 : 1); i++) {
        p->call[i].t = (float)tt_flow_now(&p->flow);
        b->paint[b->paints++] = p->call[i];
    }
    return TT_OK;
}

static tt_status comit_step(tt_codec *base, tt_codec_work *const *w, int64_t n, tt_err *e)
{
    tt_comit_codec *c = (tt_comit_codec *)base;
    batch b = {.call = calloc((size_t)n, sizeof *b.call),
               .paint = calloc((size_t)(2 * n), sizeof *b.paint),
               .ended = calloc((size_t)n, sizeof(tt_comit_painting *))};
    tt_status s = b.call && b.paint && b.ended ? TT_OK
                                               : tt_fail(e, TT_ENOMEM, "no memory for a step");
    for (int64_t i = 0; i < n && !s; i++)
        s = gather(c, &b, w[i], e);
    if (!s)
        s = tt_comit_run(c->net, b.call, b.calls, e);
    if (!s)
        s = tt_comit_run(c->painter, b.paint, b.paints, e);
    for (int64_t i = 0; i < n && !s; i++) {
        tt_comit_painting *p = (tt_comit_painting *)w[i];
        if (!w[i]->paints)
            end_reading(c, (tt_comit_reading *)w[i]);
        else if (p->flow.call < p->flow.calls)
            tt_flow_end(&p->flow);
    }
    if (!s && b.ends)
        s = finish_paintings(c, b.ended, b.ends, e);
    free(b.call);
    free(b.paint);
    free(b.ended);
    return s;
}

static void comit_drop(tt_codec_work *w)
{
    tt_comit_reading *r = (tt_comit_reading *)w;
    tt_comit_painting *p = (tt_comit_painting *)w;
    if (w->paints) {
        tt_flow_close(&p->flow);
        free(p->message);
        return;
    }
    free(r->planes);
    free(r->latents);
    free(r->message);
}

/* --- the rest --- */

static tt_status comit_embed(tt_codec *base, float *latent, const int32_t *id, int64_t images,
                             tt_err *e)
{
    const tt_comit_codec *c = (const tt_comit_codec *)base;
    (void)e;
    for (int64_t i = 0; i < images * base->info.layout.tokens; i++)
        tt_fsq_lookup(&c->fsq, latent + i * c->fsq.dims, id[i]);
    return TT_OK;
}

static int32_t comit_mix(const tt_codec *base, int32_t a, int32_t b, double share)
{
    return tt_fsq_mix(&((const tt_comit_codec *)base)->fsq, a, b, share);
}

static tt_code_distance comit_gap(const tt_codec *base, const float *latent)
{
    tt_code_distance d;
    tt_fsq_gap(&((const tt_comit_codec *)base)->fsq, &d.nearest, &d.second, latent);
    return d;
}

static size_t comit_bytes(const tt_codec *base, int64_t images)
{
    const tt_comit_codec *c = (const tt_comit_codec *)base;
    return tt_comit_bytes(c->painter, 2 * images) + tt_vae_bytes(c->vae, images, cells_of(c));
}

static const char *const architectures[] = {"COMiT", "comit", NULL};

const tt_codec_def tt_codec_comit = {
    .family = "COMiT",
    .summary = "pictures as a message, rewritten with every crop that is looked at",
    .source = "the released code of COMiT (2026)",
    .architectures = architectures,
    .key = "predictor",
    .open = comit_open,
    .close = comit_close,
    .embed = comit_embed,
    .bytes = comit_bytes,
    .read = comit_read,
    .paint = comit_paint,
    .step = comit_step,
    .drop = comit_drop,
    .read_size = sizeof(tt_comit_reading),
    .paint_size = sizeof(tt_comit_painting),
    .mix = comit_mix,
    .gap = comit_gap,
};
