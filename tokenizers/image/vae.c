/* vae.c - see vae.h.
 *
 *   encoder: conv_in; per level, resnets and (but for the last) a halving: zeros right and below, a
 *            3x3 convolution of stride 2; middle; norm, conv_out; quant_conv to mean and variance
 *   decoder: post_quant_conv, conv_in; middle; per level from the coarsest, one resnet more and
 *            (but for the last) nearest enlargement with a convolution; norm, conv_out
 *   middle:  resnet, attention of one head, resnet */
#include "tokenizers/image/vae.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image/convnet.h"

enum { LEVELS = 8, BLOCKS = 8 };

typedef struct {
    tt_conv_norm norm;
    tt_matrix *qkv, *out;
} attention;

/* Encoder, always float32 (what is quantised after it must not flip), or decoder. */
typedef struct {
    tt_compute compute;
    tt_dtype type; /* of activations */
    tt_matrix *conv_in, *conv_out, *point; /* point: quant_conv or post_quant_conv */
    tt_conv_block level[LEVELS][BLOCKS], mid[2];
    tt_matrix *resize[LEVELS]; /* halving after, enlarging after a level; NULL after the last */
    attention attention;
    tt_conv_norm norm_out;
} half;

struct tt_vae {
    tt_stream *stream;
    tt_vae_info info;
    int64_t levels, blocks, groups, width[LEVELS];
    half encoder, decoder;
};

/* --- opening --- */

typedef struct {
    char text[200];
} name;

/* Where tensors are looked for. */
typedef struct {
    tt_vae *v;
    tt_bind bind;
    const char *prefix;
} place;

#define NAME(p, ...) name_of((p)->prefix, __VA_ARGS__)
static name name_of(const char *prefix, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static name name_of(const char *prefix, const char *format, ...)
{
    name n;
    va_list list;
    int at = snprintf(n.text, sizeof n.text, "%.60s", prefix);
    va_start(list, format);
    vsnprintf(n.text + at, sizeof n.text - (size_t)at, format, list);
    va_end(list);
    return n;
}

/* Old files say query, key, value, proj_attn. */
static tt_status open_attention(const place *p, attention *a, const char *side, int64_t width,
                                tt_err *e)
{
    static const char *const now[] = {"to_q", "to_k", "to_v", "to_out.0"};
    static const char *const old[] = {"query", "key", "value", "proj_attn"};
    name at = NAME(p, "%s.mid_block.attentions.0", side), weight[4], bias[4];
    tt_bind_part part[4];
    bool aged = !tt_weights_has(p->bind.weights, name_of(at.text, ".to_q.weight").text);
    for (int i = 0; i < 4; i++) {
        weight[i] = name_of(at.text, ".%s.weight", aged ? old[i] : now[i]);
        bias[i] = name_of(at.text, ".%s.bias", aged ? old[i] : now[i]);
        part[i] = (tt_bind_part){weight[i].text, width, bias[i].text};
    }
    tt_status s = tt_conv_bind_norm(&p->bind, &a->norm, name_of(at.text, ".group_norm").text, width,
                                    p->v->groups, e);
    if (!s)
        s = tt_bind_matrix(&p->bind, &a->qkv, part, 3, width, TT_MATRIX_LINEAR, e);
    return s ? s : tt_bind_matrix(&p->bind, &a->out, part + 3, 1, width, TT_MATRIX_LINEAR, e);
}

static tt_status open_middle(const place *p, half *h, const char *side, tt_err *e)
{
    int64_t width = p->v->width[p->v->levels - 1];
    tt_status s = open_attention(p, &h->attention, side, width, e);
    for (int i = 0; i < 2 && !s; i++)
        s = tt_conv_bind_block(&p->bind, &h->mid[i],
                               NAME(p, "%s.mid_block.resnets.%d", side, i).text, width, width, "",
                               false, p->v->groups, e);
    return s;
}

/* A level's resnets; *in becomes what it gives on. */
static tt_status open_level(const place *p, tt_conv_block *list, int64_t n, const char *at,
                            int64_t *in, int64_t out, tt_err *e)
{
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++) {
        s = tt_conv_bind_block(&p->bind, &list[i], NAME(p, "%s.resnets.%d", at, (int)i).text, *in,
                               out, ".conv_shortcut", false, p->v->groups, e);
        *in = out;
    }
    return s;
}

static tt_status open_encoder(const place *p, tt_err *e)
{
    tt_vae *v = p->v;
    half *h = &v->encoder;
    int64_t in = v->width[0], latents = 2 * v->info.channels;
    tt_status s = tt_conv_bind(&p->bind, &h->conv_in, NAME(p, "encoder.conv_in").text, in, 3, e);
    for (int i = 0; i < v->levels && !s; i++) {
        char at[40];
        snprintf(at, sizeof at, "encoder.down_blocks.%d", i);
        s = open_level(p, h->level[i], v->blocks, at, &in, v->width[i], e);
        if (!s && i < v->levels - 1)
            s = tt_conv_bind(&p->bind, &h->resize[i], NAME(p, "%s.downsamplers.0.conv", at).text,
                             in, in, e);
    }
    if (!s)
        s = open_middle(p, h, "encoder", e);
    if (!s)
        s = tt_conv_bind_norm(&p->bind, &h->norm_out, NAME(p, "encoder.conv_norm_out").text, in,
                              v->groups, e);
    if (!s)
        s = tt_conv_bind(&p->bind, &h->conv_out, NAME(p, "encoder.conv_out").text, latents, in, e);
    return s ? s : tt_conv_bind_point(&p->bind, &h->point, NAME(p, "quant_conv").text, latents,
                                      latents, e);
}

static tt_status open_decoder(const place *p, tt_err *e)
{
    tt_vae *v = p->v;
    half *h = &v->decoder;
    int64_t in = v->width[v->levels - 1], latents = v->info.channels;
    tt_status s = tt_conv_bind_point(&p->bind, &h->point, NAME(p, "post_quant_conv").text, latents,
                                     latents, e);
    if (!s)
        s = tt_conv_bind(&p->bind, &h->conv_in, NAME(p, "decoder.conv_in").text, in, latents, e);
    if (!s)
        s = open_middle(p, h, "decoder", e);
    for (int i = 0; i < v->levels && !s; i++) {
        char at[40];
        snprintf(at, sizeof at, "decoder.up_blocks.%d", i);
        s = open_level(p, h->level[i], v->blocks + 1, at, &in, v->width[v->levels - 1 - i], e);
        if (!s && i < v->levels - 1)
            s = tt_conv_bind(&p->bind, &h->resize[i], NAME(p, "%s.upsamplers.0.conv", at).text, in,
                             in, e);
    }
    if (!s)
        s = tt_conv_bind_norm(&p->bind, &h->norm_out, NAME(p, "decoder.conv_norm_out").text, in,
                              v->groups, e);
    return s ? s : tt_conv_bind(&p->bind, &h->conv_out, NAME(p, "decoder.conv_out").text, 3, in, e);
}

static tt_status read_config(tt_vae *v, tt_config *c, tt_err *e)
{
    v->blocks = tt_config_int(c, "layers_per_block", 2, 1, BLOCKS - 1);
    v->groups = tt_config_int(c, "norm_num_groups", 32, 1, 1 << 10);
    v->info.channels = (int32_t)tt_config_int(c, "latent_channels", 4, 1, 1 << 10);
    v->info.scale = (float)tt_config_float(c, "scaling_factor", 0.18215, 1e-6, 1e6);
    while (v->levels < LEVELS) {
        int64_t width = tt_config_int_at(c, "block_out_channels", v->levels, 0, 0, 1 << 14);
        if (!width)
            break;
        v->width[v->levels++] = width;
    }
    v->info.factor = 1 << (v->levels - 1);
    tt_status s = tt_config_status(c, e);
    if (!s && (!v->levels || tt_config_int_at(c, "block_out_channels", LEVELS, 0, 0, 1 << 14)))
        s = tt_fail(e, TT_EFORMAT, "config key 'block_out_channels': 1 to %d levels are possible",
                    LEVELS);
    if (!s && strcmp(tt_config_text(c, "act_fn", "silu"), "silu"))
        s = tt_fail(e, TT_EUNSUP, "config key 'act_fn': only 'silu' is supported");
    return s;
}

tt_status tt_vae_open(tt_vae **out, tt_stream *stream, const tt_weights *w, tt_config *c,
                      const char *prefix, tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    tt_vae *v = calloc(1, sizeof *v);
    if (!v)
        return tt_fail(e, TT_ENOMEM, "no memory for an autoencoder");
    place p = {v, {.stream = stream, .weights = w}, prefix};
    v->stream = stream;
    tt_status s = read_config(v, c, e);
    if (!s)
        s = TT_BIND_NEED(stream, conv3x3, e);
    if (!s)
        s = TT_BIND_NEED(stream, group_norm, e);
    p.bind.compute = tt_bind_exact(stream);
    v->encoder.compute = p.bind.compute;
    v->encoder.type = TT_F32;
    if (!s)
        s = open_encoder(&p, e);
    if (!s)
        s = tt_bind_choose(&p.bind.compute, stream, w, NAME(&p, "decoder.conv_in.weight").text,
                           mode, e);
    v->decoder.compute = p.bind.compute;
    v->decoder.type = stream->op.act_type ? stream->op.act_type(stream, p.bind.compute) : TT_F32;
    if (!s)
        s = open_decoder(&p, e);
    if (s) {
        tt_vae_close(v);
        return tt_context(e, s, "autoencoder");
    }
    *out = v;
    return TT_OK;
}

static void close_half(half *h, tt_stream *s)
{
    tt_matrix *m[] = {h->conv_in, h->conv_out, h->point, h->attention.qkv, h->attention.out};
    for (int i = 0; i < 5; i++)
        s->op.matrix_close(s, m[i]);
    for (int i = 0; i < LEVELS; i++) {
        s->op.matrix_close(s, h->resize[i]);
        for (int j = 0; j < BLOCKS; j++)
            tt_conv_block_close(&h->level[i][j], s);
    }
    tt_conv_block_close(&h->mid[0], s);
    tt_conv_block_close(&h->mid[1], s);
    tt_conv_norm_close(&h->attention.norm, s);
    tt_conv_norm_close(&h->norm_out, s);
}

void tt_vae_close(tt_vae *v)
{
    if (!v)
        return;
    close_half(&v->encoder, v->stream);
    close_half(&v->decoder, v->stream);
    free(v);
}

const tt_vae_info *tt_vae_about(const tt_vae *v)
{
    return &v->info;
}

/* --- running --- */

/* Pictures on their way, and what else the middle needs. */
typedef struct {
    tt_vae *v;
    const half *net;
    tt_conv_flow f;
    void *memory[3], *qkv;
} job;

/* x += out(attention(norm x)), every picture's cells among themselves, one head. */
static tt_status attend(job *j, const attention *a, tt_err *e)
{
    tt_conv_flow *f = &j->f;
    tt_stream *s = f->stream;
    int64_t d = f->channels, cells = f->height * f->width, size = (int64_t)tt_dtype_size(s->act);
    tt_status st = tt_conv_normalise(f, &a->norm, false, e);
    if (!st)
        st = s->op.linear(s, j->qkv, 3 * d, f->h, d, tt_conv_pixels(f), a->qkv, false, e);
    for (int64_t i = 0; i < f->images && !st;) {
        tt_span list[64];
        int64_t n = 0;
        for (; n < 64 && i < f->images; n++, i++) {
            char *k = (char *)j->qkv + (i * cells * 3 + 1) * d * size;
            list[n] = (tt_span){.query_row = i * cells, .query_rows = cells, .k = k,
                                .v = k + d * size, .ld_kv = 3 * d, .keys = cells,
                                .see = TT_SEE_ALL};
        }
        st = s->op.attention(s, f->h, d, j->qkv, 3 * d, list, n, 1, 1, d,
                             (float)(1 / sqrt((double)d)), j->net->compute, e);
    }
    return st ? st : s->op.linear(s, f->x, d, f->h, d, tt_conv_pixels(f), a->out, true, e);
}

static tt_status middle(job *j, const half *h, tt_err *e)
{
    tt_status s = tt_conv_run_block(&j->f, &h->mid[0], e);
    if (!s)
        s = attend(j, &h->attention, e);
    return s ? s : tt_conv_run_block(&j->f, &h->mid[1], e);
}

/* A convolution of stride 2 whose window begins at the pixel itself is the odd rows and columns of
 * the one of stride 1. */
static tt_status halve(tt_conv_flow *f, const tt_matrix *m, tt_err *e)
{
    tt_stream *s = f->stream;
    int64_t d = f->channels, h = f->height / 2, w = f->width / 2, n = f->images * h * w;
    void *list = NULL;
    int32_t *index = malloc((size_t)n * sizeof *index);
    tt_status st = index ? s->op.alloc(s, &list, (size_t)n * sizeof *index, e)
                         : tt_fail(e, TT_ENOMEM, "no memory to halve pictures");
    for (int64_t i = 0; i < n && !st; i++)
        index[i] = (int32_t)((i / (h * w) * f->height + 2 * (i / w % h) + 1) * f->width +
                             2 * (i % w) + 1);
    if (!st)
        st = s->op.upload(s, list, index, (size_t)n * sizeof *index, e);
    tt_image_shape shape = {f->images, f->height, f->width, d, false};
    if (!st)
        st = s->op.conv3x3(s, f->h, d, f->x, d, &shape, m, false, e);
    if (!st)
        st = s->op.gather(s, f->x, d, f->h, d, list, n, d, e);
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, list);
    free(index);
    f->height = h;
    f->width = w;
    return st;
}

/* From pixels in h to moments in x. */
static tt_status run_encoder(job *j, tt_err *e)
{
    tt_conv_flow *f = &j->f;
    const half *h = j->net;
    int64_t latents = 2 * j->v->info.channels;
    tt_status s = tt_conv_run(f, h->conv_in, 3, j->v->width[0], e);
    for (int i = 0; i < j->v->levels && !s; i++) {
        for (int k = 0; k < j->v->blocks && !s; k++)
            s = tt_conv_run_block(f, &h->level[i][k], e);
        if (!s && h->resize[i])
            s = halve(f, h->resize[i], e);
    }
    if (!s)
        s = middle(j, h, e);
    int64_t width = f->channels;
    if (!s)
        s = tt_conv_normalise(f, &h->norm_out, true, e);
    if (!s)
        s = tt_conv_run(f, h->conv_out, width, latents, e);
    if (!s)
        s = f->stream->op.linear(f->stream, f->h, latents, f->x, latents, tt_conv_pixels(f),
                                 h->point, false, e);
    tt_conv_swap(f);
    return s;
}

/* From latents in x to pixels in x. */
static tt_status run_decoder(job *j, tt_err *e)
{
    tt_conv_flow *f = &j->f;
    const half *h = j->net;
    int64_t latents = j->v->info.channels, width = j->v->width[j->v->levels - 1];
    tt_status s = f->stream->op.linear(f->stream, f->h, latents, f->x, latents, tt_conv_pixels(f),
                                       h->point, false, e);
    if (!s)
        s = tt_conv_run(f, h->conv_in, latents, width, e);
    if (!s)
        s = middle(j, h, e);
    for (int i = 0; i < j->v->levels && !s; i++) {
        for (int k = 0; k <= j->v->blocks && !s; k++)
            s = tt_conv_run_block(f, &h->level[i][k], e);
        if (!s && h->resize[i])
            s = tt_conv_enlarge(f, h->resize[i], e);
    }
    width = f->channels;
    if (!s)
        s = tt_conv_normalise(f, &h->norm_out, true, e);
    return s ? s : tt_conv_run(f, h->conv_out, width, 3, e);
}

/* Numbers of a buffer: the most any stage of a picture of h x w cells has. */
static int64_t most_numbers(const tt_vae *v, int64_t h, int64_t w)
{
    int64_t most = h * w * 2 * v->info.channels;
    for (int64_t i = 0; i < v->levels; i++) {
        int64_t scale = (int64_t)1 << (v->levels - 1 - i), wide = v->width[i];
        if (i && v->width[i - 1] > wide)
            wide = v->width[i - 1];
        if (i + 1 < v->levels && v->width[i + 1] > wide) /* enlarged before it narrows */
            wide = v->width[i + 1];
        wide = wide > 3 ? wide : 3;
        int64_t n = h * scale * w * scale * wide;
        most = n > most ? n : most;
    }
    return most;
}

static tt_status job_open(job *j, tt_vae *v, const half *net, int64_t images, int64_t h, int64_t w,
                          tt_err *e)
{
    tt_stream *s = v->stream;
    size_t size = tt_dtype_size(net->type);
    *j = (job){.v = v, .net = net};
    s->act = net->type;
    tt_status st = TT_OK;
    for (int i = 0; i < 3 && !st; i++)
        st = s->op.alloc(s, &j->memory[i], (size_t)(images * most_numbers(v, h, w)) * size, e);
    if (!st)
        st = s->op.alloc(s, &j->qkv,
                         (size_t)(images * h * w * 3 * v->width[v->levels - 1]) * size, e);
    j->f = (tt_conv_flow){.stream = s, .x = j->memory[0], .h = j->memory[1], .t = j->memory[2],
                          .images = images, .groups = v->groups, .eps = 1e-6f};
    return st;
}

static void job_close(job *j)
{
    for (int i = 0; i < 3; i++)
        j->v->stream->op.release(j->v->stream, j->memory[i]);
    j->v->stream->op.release(j->v->stream, j->qkv);
}

/* Planes to rows of channels on the device, and back. */
static tt_status put(const job *j, tt_act *to, const float *planes, int64_t channels,
                     int64_t pixels, tt_err *e)
{
    tt_stream *s = j->v->stream;
    int64_t n = j->f.images * channels * pixels;
    size_t size = tt_dtype_size(j->net->type);
    char *rows = malloc((size_t)n * size);
    if (!rows)
        return tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < j->f.images; i++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < pixels; p++) {
                const float *from = planes + (i * channels + c) * pixels + p;
                uint16_t narrow = tt_f32_to_bf16(*from);
                memcpy(rows + (size_t)((i * pixels + p) * channels + c) * size,
                       j->net->type == TT_F32 ? (const void *)from : &narrow, size);
            }
    tt_status st = s->op.upload(s, to, rows, (size_t)n * size, e);
    if (!st)
        st = s->op.sync(s, e);
    free(rows);
    return st;
}

/* Channels [first, first + channels) of rows of `all`. */
static void get(const job *j, float *planes, const char *rows, int64_t all, int64_t first,
                int64_t channels, int64_t pixels)
{
    size_t size = tt_dtype_size(j->net->type);
    for (int64_t i = 0; i < j->f.images; i++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < pixels; p++) {
                const char *from = rows + (size_t)((i * pixels + p) * all + first + c) * size;
                float *to = planes + (i * channels + c) * pixels + p;
                uint16_t narrow;
                if (j->net->type == TT_F32) {
                    memcpy(to, from, sizeof *to);
                } else {
                    memcpy(&narrow, from, sizeof narrow);
                    *to = tt_bf16_to_f32(narrow);
                }
            }
}

static tt_status fetch(const job *j, char **rows, int64_t n, tt_err *e)
{
    tt_stream *s = j->v->stream;
    size_t bytes = (size_t)n * tt_dtype_size(j->net->type);
    *rows = malloc(bytes);
    tt_status st = *rows ? s->op.download(s, *rows, j->f.x, bytes, e)
                         : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    return st ? st : s->op.sync(s, e);
}

/* As many at a time as eight pictures of 256 x 256 take. */
static int64_t at_once(int64_t height, int64_t width)
{
    int64_t n = 8 * 256 * 256 / (height * width);
    return n > 1 ? n : 1;
}

static tt_status encode_some(tt_vae *v, float *mean, float *logvar, const float *planes, int64_t n,
                             int32_t height, int32_t width, tt_err *e)
{
    job j;
    char *rows = NULL;
    int64_t h = height / v->info.factor, w = width / v->info.factor, c = v->info.channels;
    tt_status s = job_open(&j, v, &v->encoder, n, h, w, e);
    j.f.height = height;
    j.f.width = width;
    if (!s)
        s = put(&j, j.f.h, planes, 3, (int64_t)height * width, e);
    if (!s)
        s = run_encoder(&j, e);
    if (!s)
        s = fetch(&j, &rows, n * h * w * 2 * c, e);
    if (!s)
        get(&j, mean, rows, 2 * c, 0, c, h * w);
    if (!s && logvar) {
        get(&j, logvar, rows, 2 * c, c, c, h * w);
        for (int64_t i = 0; i < n * c * h * w; i++)
            logvar[i] = fminf(fmaxf(logvar[i], -30), 20);
    }
    free(rows);
    job_close(&j);
    return s;
}

tt_status tt_vae_encode(tt_vae *v, float *mean, float *logvar, const float *planes, int64_t images,
                        int32_t height, int32_t width, tt_err *e)
{
    int32_t f = v->info.factor;
    if (height < f || width < f || height % f || width % f || height > 1 << 13 || width > 1 << 13)
        return tt_fail(e, TT_EINVAL, "pictures of %d x %d: sides are multiples of %d", height,
                       width, f);
    int64_t pixels = 3 * (int64_t)height * width;
    int64_t cells = (int64_t)v->info.channels * (height / f) * (width / f);
    int64_t most = at_once(height, width);
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += most)
        s = encode_some(v, mean + i * cells, logvar ? logvar + i * cells : NULL,
                        planes + i * pixels, images - i < most ? images - i : most, height, width,
                        e);
    return s;
}

static tt_status decode_some(tt_vae *v, float *planes, const float *latent, int64_t n, int32_t h,
                             int32_t w, tt_err *e)
{
    job j;
    char *rows = NULL;
    int64_t pixels = (int64_t)h * w * v->info.factor * v->info.factor;
    tt_status s = job_open(&j, v, &v->decoder, n, h, w, e);
    j.f.height = h;
    j.f.width = w;
    if (!s)
        s = put(&j, j.f.x, latent, v->info.channels, (int64_t)h * w, e);
    if (!s)
        s = run_decoder(&j, e);
    if (!s)
        s = fetch(&j, &rows, n * pixels * 3, e);
    if (!s)
        get(&j, planes, rows, 3, 0, 3, pixels);
    free(rows);
    job_close(&j);
    return s;
}

tt_status tt_vae_decode(tt_vae *v, float *planes, const float *latent, int64_t images, int32_t h,
                        int32_t w, tt_err *e)
{
    if (h < 1 || w < 1 || h > 1 << 10 || w > 1 << 10)
        return tt_fail(e, TT_EINVAL, "latents of %d x %d", h, w);
    int64_t cells = (int64_t)v->info.channels * h * w;
    int64_t pixels = 3 * (int64_t)h * w * v->info.factor * v->info.factor;
    int64_t most = at_once((int64_t)h * v->info.factor, (int64_t)w * v->info.factor);
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += most)
        s = decode_some(v, planes + i * pixels, latent + i * cells,
                        images - i < most ? images - i : most, h, w, e);
    return s;
}

size_t tt_vae_bytes(const tt_vae *v, int64_t images, int32_t cells)
{
    int64_t side = (int64_t)cells * v->info.factor, most = at_once(side, side);
    int64_t n = images < most ? images : most, square = (int64_t)cells * cells;
    return (size_t)(n * (3 * most_numbers(v, cells, cells) +
                         square * 3 * v->width[v->levels - 1])) * sizeof(float);
}

double tt_vae_macs(const tt_vae *v, double pixels, bool decode)
{
    const half *h = decode ? &v->decoder : &v->encoder;
    double z = (double)v->info.channels * (decode ? 1 : 2);
    double coarse = (double)v->width[v->levels - 1];
    double cells = pixels / ((double)v->info.factor * v->info.factor);
    double macs = pixels * 27 * (double)v->width[0] + cells * z * (9 * coarse + z);
    macs += cells * (4 * coarse * coarse + 2 * cells * coarse);
    for (int i = 0; i < 2; i++)
        macs += cells * tt_conv_block_macs(&h->mid[i]);
    for (int64_t i = 0; i < v->levels; i++) {
        int64_t scale = decode ? v->levels - 1 - i : i; /* halvings of the level */
        double area = pixels / (double)((int64_t)1 << 2 * scale), wide = (double)v->width[scale];
        for (int64_t k = 0; k < v->blocks + decode; k++)
            macs += area * tt_conv_block_macs(&h->level[i][k]);
        if (h->resize[i])
            macs += (decode ? 4 : 0.25) * area * 9 * wide * wide;
    }
    return macs;
}
