/* restok.c - ResTok (arXiv 2601.03955): pictures as tokens in levels, coarse to fine. A
 * convolutional encoder and a vision transformer whose image tokens are merged on the way to
 * coarser grids; latents that begin as pooled residuals; a code per latent by angle; the same
 * backwards. Any prefix of levels decodes. Follows the released code where the paper says
 * otherwise: merging takes every second token, and the latents' buffer is re-read with rows and
 * columns exchanged. Small folders of our own say in_place: then every token comes of its own
 * latent, and image tokens begin with a vector for each place instead of one for all. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/vit.h"
#include "tokenizers/image.h"
#include "tokenizers/image/convnet.h"

enum { MAX_SCALES = 8, MAX_BLOCKS = 8, STAGES = 16 };
enum { PICTURES = 8 }; /* in the networks at once */

/* Convolutions between pixels and latents; the encoder or the decoder. */
typedef struct {
    tt_matrix *conv_in, *conv_out, *up[MAX_SCALES];
    tt_conv_block level[MAX_SCALES][MAX_BLOCKS], mid[MAX_BLOCKS];
    tt_conv_norm norm_out;
} pixels_net;

/* The transformer of either side. */
typedef struct {
    tt_vit vit;
    int64_t layers;
    tt_vit_block *block;
    tt_vit_norm pre, post;
    tt_matrix *embed; /* z to width, or width to z */
} tower;

/* An affine map of one level, on the host. */
typedef struct {
    float *weight, *bias;
} affine;

/* Cosines and sines of the rows of PICTURES pictures; device. */
typedef struct {
    void *cos, *sin;
} turning;

typedef struct {
    tt_codec base;
    /* of the convolutions, finest first; groups of a norm */
    int64_t scales, blocks, z, channel[MAX_SCALES], groups;
    pixels_net encoder, decoder;
    tower in, out;
    int64_t side;   /* image tokens along a side */
    int64_t dims;   /* of a code */
    int64_t stages; /* grids in the end */
    bool in_place;  /* see above */
    double theta;
    affine down[TT_MAX_LEVELS];
    tt_matrix *up[TT_MAX_LEVELS]; /* float32; their biases place the level too */
    float *stage_place[STAGES], *level_in[TT_MAX_LEVELS];
    float *code, *unit, *nothing, *blank; /* codes; of length 1; for dropped tokens; image tokens */
    turning turn_in[STAGES], turn_out;    /* made when they are needed; in: by merges so far */
    void *space;                          /* of decoding; grown to the largest call */
    size_t space_bytes;
} restok;

extern const tt_codec_def tt_codec_restok;

/* --- opening --- */

typedef struct {
    char text[160];
} name;

static name named(const char *format, const char *a, int i)
{
    name n;
    snprintf(n.text, sizeof n.text, format, a, i);
    return n;
}

static name join(const char *a, const char *b)
{
    name n;
    snprintf(n.text, sizeof n.text, "%.100s%.50s", a, b);
    return n;
}

static tt_status host(const tt_weights *w, float **out, const char *called, int64_t n, tt_err *e)
{
    *out = malloc((size_t)n * sizeof **out);
    return *out ? tt_bind_host(w, *out, called, n, e)
                : tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", called);
}

static tt_status bind_blocks(const tt_bind *b, tt_conv_block *list, const char *prefix, int64_t n,
                             int64_t *in, int64_t out, int64_t groups, tt_err *e)
{
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++) {
        s = tt_conv_bind_block(b, &list[i], named("%s.%d", prefix, (int)i).text, *in, out,
                               ".nin_shortcut", true, groups, e);
        *in = out;
    }
    return s;
}

static tt_status bind_pixel_encoder(restok *r, const tt_bind *b, tt_err *e)
{
    pixels_net *n = &r->encoder;
    int64_t in = r->channel[0];
    tt_status s = tt_conv_bind(b, &n->conv_in, "pixel_encoder.conv_in", in, 3, e);
    for (int i = 0; i < r->scales && !s; i++)
        s = bind_blocks(b, n->level[i], named("%s.down.%d.block", "pixel_encoder", i).text,
                        r->blocks, &in, r->channel[i], r->groups, e);
    if (!s)
        s = bind_blocks(b, n->mid, "pixel_encoder.mid", r->blocks, &in, in, r->groups, e);
    if (!s)
        s = tt_conv_bind_norm(b, &n->norm_out, "pixel_encoder.norm_out", in, r->groups, e);
    return s ? s : tt_conv_bind_point(b, &n->conv_out, "pixel_encoder.conv_out", r->z, in, e);
}

static tt_status bind_pixel_decoder(restok *r, const tt_bind *b, tt_err *e)
{
    pixels_net *n = &r->decoder;
    int64_t in = r->channel[r->scales - 1];
    tt_status s = tt_conv_bind(b, &n->conv_in, "pixel_decoder.conv_in", in, r->z, e);
    if (!s)
        s = bind_blocks(b, n->mid, "pixel_decoder.mid", r->blocks, &in, in, r->groups, e);
    for (int i = (int)r->scales - 1; i >= 0 && !s; i--) {
        s = bind_blocks(b, n->level[i], named("%s.up.%d.block", "pixel_decoder", i).text,
                        r->blocks, &in, r->channel[i], r->groups, e);
        if (!s && i)
            s = tt_conv_bind(b, &n->up[i], named("%s.up.%d.upsample_conv", "pixel_decoder", i).text,
                             in, in, e);
    }
    if (!s)
        s = tt_conv_bind_norm(b, &n->norm_out, "pixel_decoder.norm_out", in, r->groups, e);
    return s ? s : tt_conv_bind(b, &n->conv_out, "pixel_decoder.conv_out", 3, in, e);
}

/* The row of a head that becomes row c: neighbouring channels rotate together, the operation wants
 * them half a head apart. */
static int64_t source_row(int64_t c, int64_t head_dim)
{
    int64_t head = c / head_dim * head_dim, i = c % head_dim, half = head_dim / 2;
    return head + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* Queries, keys and values in our order; keys have no bias. */
static tt_status bind_qkv(const tower *t, tt_matrix **out, const tt_weights *w, const char *at,
                          tt_compute compute, tt_err *e)
{
    int64_t d = t->vit.width, hd = d / t->vit.heads;
    float *raw = NULL, *rows = malloc((size_t)(3 * d * d) * sizeof *rows);
    float *bias = calloc((size_t)(3 * d), sizeof *bias), *given = NULL;
    tt_status s = rows && bias ? host(w, &raw, join(at, ".attn.qkv.weight").text,
                                      3 * d * d, e)
                               : tt_fail(e, TT_ENOMEM, "no memory for '%.80s'", at);
    for (int64_t r = 0; r < 3 * d && !s; r++)
        memcpy(rows + r * d, raw + (r < 2 * d ? r / d * d + source_row(r % d, hd) : r) * d,
               (size_t)d * sizeof *rows);
    if (!s)
        s = host(w, &given, join(at, ".attn.q_bias").text, d, e);
    for (int64_t r = 0; r < d && !s; r++)
        bias[r] = given[source_row(r, hd)];
    if (!s)
        s = tt_bind_host(w, bias + 2 * d, join(at, ".attn.v_bias").text, d, e);
    tt_weight part = {.data = {.data = rows, .rank = 2, .dim = {3 * d, d}, .dtype = TT_F32}};
    if (!s)
        s = t->vit.stream->op.matrix_open(t->vit.stream, out, &part, 1, bias, compute,
                                          TT_MATRIX_LINEAR, e);
    free(raw);
    free(rows);
    free(bias);
    free(given);
    return s;
}

/* Weights or biases of the norms of all q heads, then all k heads, their channels in our order. */
static tt_status bind_head_norms(const tower *t, float **out, const tt_weights *w, const char *at,
                                 const char *suffix, tt_err *e)
{
    static const char *const side[] = {".attn.q_norm", ".attn.k_norm"};
    int64_t d = t->vit.width, hd = d / t->vit.heads;
    float *all = malloc((size_t)(2 * d) * sizeof *all);
    tt_status s = all ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for '%.80s'", at);
    for (int i = 0; i < 2 && !s; i++) {
        float *raw = NULL;
        s = host(w, &raw, join(join(at, side[i]).text, suffix).text, hd, e);
        for (int64_t c = 0; c < d && !s; c++)
            all[i * d + c] = raw[source_row(c % hd, hd)];
        free(raw);
    }
    if (!s)
        s = tt_bind_floats(t->vit.stream, out, all, 2 * d, e);
    free(all);
    return s;
}

/* A linear map whose outputs are scaled by channel before they are added. */
static tt_status bind_scaled(const tower *t, tt_matrix **out, const tt_bind *b, const char *at,
                             const char *part, const char *gamma, int64_t k, tt_err *e)
{
    int64_t d = t->vit.width;
    float *weight = NULL, *bias = NULL, *scale = NULL;
    tt_status s = host(b->weights, &scale, join(at, gamma).text, d, e);
    if (!s)
        s = host(b->weights, &weight, join(join(at, part).text, ".weight").text, d * k, e);
    if (!s)
        s = host(b->weights, &bias, join(join(at, part).text, ".bias").text, d, e);
    for (int64_t r = 0; r < d && !s; r++) {
        bias[r] *= scale[r];
        for (int64_t i = 0; i < k; i++)
            weight[r * k + i] *= scale[r];
    }
    tt_weight one = {.data = {.data = weight, .rank = 2, .dim = {d, k}, .dtype = TT_F32}};
    if (!s)
        s = b->stream->op.matrix_open(b->stream, out, &one, 1, bias, b->compute, TT_MATRIX_LINEAR,
                                      e);
    free(weight);
    free(bias);
    free(scale);
    return s;
}

static tt_status linear(const tt_bind *b, tt_matrix **out, const char *called, int64_t n, int64_t k,
                        tt_err *e)
{
    return tt_conv_bind_point(b, out, called, n, k, e);
}

static tt_status bind_block(tower *t, const tt_bind *b, const char *side, int64_t i, tt_err *e)
{
    tt_vit_block *k = &t->block[i];
    int64_t d = t->vit.width, ff = t->vit.ff;
    name at = named("%s.blocks.%d", side, (int)i);
    tt_status s = bind_qkv(t, &k->qkv, b->weights, at.text, b->compute, e);
    if (!s)
        s = tt_vit_bind_norm(&k->norm1, b, join(at.text, ".norm1").text, d, e);
    if (!s)
        s = tt_vit_bind_norm(&k->norm2, b, join(at.text, ".norm2").text, d, e);
    if (!s)
        s = bind_head_norms(t, &k->heads.w, b->weights, at.text, ".weight", e);
    if (!s)
        s = bind_head_norms(t, &k->heads.b, b->weights, at.text, ".bias", e);
    if (!s)
        s = bind_scaled(t, &k->out, b, at.text, ".attn.proj", ".gamma_1", d, e);
    if (!s)
        s = linear(b, &k->fc1, join(at.text, ".mlp.fc1").text, ff, d, e);
    return s ? s : bind_scaled(t, &k->fc2, b, at.text, ".mlp.fc2", ".gamma_2", ff, e);
}

static tt_status bind_tower(tower *t, const tt_bind *b, const char *side, tt_err *e)
{
    int64_t d = t->vit.width;
    t->block = calloc((size_t)t->layers, sizeof *t->block);
    if (!t->block)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->layers);
    tt_status s = tt_vit_bind_norm(&t->pre, b, join(side, ".ln_pre").text, d, e);
    if (!s)
        s = tt_vit_bind_norm(&t->post, b, join(side, ".ln_post").text, d, e);
    for (int64_t i = 0; i < t->layers && !s; i++)
        s = bind_block(t, b, side, i, e);
    return s;
}

/* From a code to the width, and to its level's place. */
static tt_status bind_up(restok *r, const tt_weights *w, int level, tt_err *e)
{
    int64_t d = r->out.vit.width, c = r->dims;
    tt_stream *st = r->base.stream;
    float *weight = NULL, *bias = NULL, *place = NULL;
    tt_status s = host(w, &weight, named("%s.decoder_embed.%d.weight", "decoder", level).text,
                       c * d, e);
    if (!s)
        s = host(w, &bias, named("%s.decoder_embed.%d.bias", "decoder", level).text, d, e);
    if (!s)
        s = host(w, &place, named("%s.latent_token_level_embedding.%d", "decoder", level).text, d,
                 e);
    for (int64_t i = 0; i < d && !s; i++)
        bias[i] += place[i];
    tt_weight one = {.data = {.data = weight, .rank = 2, .dim = {d, c}, .dtype = TT_F32}};
    if (!s)
        s = st->op.matrix_open(st, &r->up[level], &one, 1, bias, TT_COMPUTE_F32, TT_MATRIX_LINEAR,
                               e);
    free(weight);
    free(bias);
    free(place);
    return s;
}

static int64_t cells_of(const restok *r)
{
    return r->side * r->side;
}

/* Kinds of blank image tokens. */
static int64_t blanks_of(const restok *r)
{
    return r->in_place ? cells_of(r) : 1;
}

static tt_status bind_levels(restok *r, const tt_weights *w, tt_err *e)
{
    int64_t d = r->in.vit.width, c = r->dims;
    tt_status s = TT_OK;
    for (int i = 0; i < r->base.info.layout.levels && !s; i++) {
        s = host(w, &r->down[i].weight, named("%s.conv_out.%d.weight", "encoder", i).text, c * d,
                 e);
        if (!s)
            s = host(w, &r->down[i].bias, named("%s.conv_out.%d.bias", "encoder", i).text, c, e);
        if (!s)
            s = bind_up(r, w, i, e);
        if (!s)
            s = host(w, &r->level_in[i],
                     named("%s.latent_token_level_embedding.%d", "encoder", i).text, d, e);
    }
    for (int i = 0; i < r->stages && !s; i++)
        s = host(w, &r->stage_place[i], named("%s.level_embedding.%d", "encoder", i).text, d, e);
    if (!s)
        s = host(w, &r->nothing, "decoder.latent_mask_token", c, e);
    return s ? s : host(w, &r->blank, "decoder.mask_token", blanks_of(r) * d, e);
}

static void to_length_1(float *out, const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double by = 1 / fmax(sqrt(sum), 1e-12);
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(x[i] * by);
}

static tt_status bind_codes(restok *r, const tt_weights *w, tt_err *e)
{
    int64_t codes = r->base.info.layout.codes, c = r->dims;
    tt_status s = host(w, &r->code, "quantize.embedding.weight", codes * c, e);
    r->unit = malloc((size_t)(codes * c) * sizeof *r->unit);
    if (!s && !r->unit)
        s = tt_fail(e, TT_ENOMEM, "no memory for %lld codes", (long long)codes);
    for (int64_t k = 0; k < codes && !s; k++)
        to_length_1(r->unit + k * c, r->code + k * c, c);
    return s;
}

/* --- config --- */

static void sizes_of(tower *t, const char *size)
{
    bool small = !strcmp(size, "small"), base = !strcmp(size, "base");
    t->vit.width = small ? 512 : base ? 768 : 1024;
    t->layers = small ? 6 : base ? 12 : 24;
    t->vit.heads = small ? 8 : base ? 12 : 16;
}

/* Settings of models nobody released. */
static tt_status check_variant(tt_config *m, tt_err *e)
{
    static const struct {
        const char *key;
        bool released;
    } key[] = {{"merge_tokens", true},          {"residual_image_tokens", true},
               {"residual_latent_tokens", true}, {"learnable_latent_tokens", false},
               {"learnable_dec_image_tokens", true}, {"multi_quant", true},
               {"vae_encoder", true},           {"latent_hierarchy", true},
               {"use_l2_norm", true},           {"is_legacy", true}};
    for (size_t i = 0; i < sizeof key / sizeof *key; i++)
        if (tt_config_bool(m, key[i].key, key[i].released) != key[i].released)
            return tt_fail(e, TT_EUNSUP, "config key '%s': %s is not supported", key[i].key,
                           key[i].released ? "false" : "true");
    if (tt_config_float(m, "reduction_ratio", 0.5, 0, 1) != 0.5)
        return tt_fail(e, TT_EUNSUP, "config key 'reduction_ratio': only 0.5 is supported");
    return TT_OK;
}

/* Sizes that double from 1, 1, 2, ... to n. */
static tt_status read_levels(restok *r, int32_t tokens, tt_err *e)
{
    tt_layout *l = &r->base.info.layout;
    if (tokens < 4 || tokens > 256 || tokens & (tokens - 1))
        return tt_fail(e, TT_EFORMAT, "config key 'num_latent_tokens': %d is not a power of two in "
                       "4..256", tokens);
    l->kind = TT_LAYOUT_LEVELS;
    l->tokens = tokens;
    l->level[l->levels++] = 1;
    for (int32_t n = 1; n < tokens; n *= 2)
        l->level[l->levels++] = n;
    return TT_OK;
}

static void read_pixels(restok *r, tt_config *p)
{
    static const int64_t usual[] = {1, 1, 2, 2, 4};
    int64_t ch = p ? tt_config_int(p, "hidden_channels", 128, 1, 1 << 12) : 128;
    r->blocks = p ? tt_config_int(p, "num_res_blocks", 2, 1, MAX_BLOCKS) : 2;
    r->z = p ? tt_config_int(p, "z_channels", 256, 1, 1 << 14) : 256;
    r->groups = p ? tt_config_int(p, "norm_groups", 32, 1, 1 << 10) : 32;
    while (r->scales < MAX_SCALES) {
        int64_t by = r->scales < 5 ? usual[r->scales] : 0;
        if (p)
            by = tt_config_int_at(p, "channel_mult", r->scales, 0, 0, 64);
        if (!by)
            break;
        r->channel[r->scales++] = ch * by;
    }
}

static tt_status read_model(restok *r, tt_config *m, tt_config *tiny, int64_t pixels, tt_err *e)
{
    tt_config *p = NULL;
    tower *t[] = {&r->in, &r->out};
    static const char *const size[] = {"vit_enc_model_size", "vit_dec_model_size"};
    tt_status s = check_variant(m, e);
    if (!s && tiny)
        s = tt_config_member(&p, tiny, "pixel", e);
    if (s)
        return s;
    read_pixels(r, p);
    for (int i = 0; i < 2; i++) {
        sizes_of(t[i], tt_config_text(m, size[i], "large"));
        if (tiny) {
            t[i]->vit.width = tt_config_need_int(tiny, "width", 4, 1 << 14);
            t[i]->layers = tt_config_need_int(tiny, "num_layers", 1, 1024);
            t[i]->vit.heads = tt_config_need_int(tiny, "num_heads", 1, 1024);
            r->in_place = tt_config_bool(tiny, "in_place", false);
        }
        t[i]->vit.ff = 4 * t[i]->vit.width;
        t[i]->vit.eps = 1e-5f;
        t[i]->vit.act = TT_VIT_GELU_ERF;
    }
    r->dims = tt_config_need_int(m, "token_size", 1, 256);
    r->base.info.layout.codes = (int32_t)tt_config_need_int(m, "codebook_size", 2, 1 << 24);
    r->theta = tt_config_float(m, "rope_base_len", 10000, 1, 1e9);
    r->stages = tt_config_int(m, "hierarchy_stages", 4, 1, STAGES);
    int32_t tokens = (int32_t)tt_config_need_int(m, "num_latent_tokens", 4, 256);
    s = tt_config_status(m, e);
    if (!s && tiny)
        s = tt_config_status(tiny, e);
    if (!s && p)
        s = tt_config_status(p, e);
    tt_config_close(p);
    if (!s)
        s = read_levels(r, tokens, e);
    r->side = r->scales ? pixels >> (r->scales - 1) : 0;
    int64_t hd = s ? 4 : r->in.vit.width / r->in.vit.heads;
    if (!s && (!r->scales || r->side << (r->scales - 1) != pixels || r->side < 1 ||
               (r->side & (r->side - 1)) || (r->side >> (r->stages - 1)) < 1 || hd % 4 ||
               hd > 512 || r->in.vit.width % r->in.vit.heads))
        s = tt_fail(e, TT_EFORMAT, "config key 'crop_size': %lld pixels in %lld scales, heads of "
                    "%lld", (long long)pixels, (long long)r->scales, (long long)hd);
    return s;
}

static const char *const unread[] = {"model_type", "quantization", NULL};

static tt_status read_config(restok *r, tt_config *c, tt_err *e)
{
    tt_config *model = NULL, *vq = NULL, *data = NULL, *prep = NULL, *tiny = NULL;
    tt_status s = tt_config_member(&model, c, "model", e);
    if (!s)
        s = tt_config_member(&vq, model, "vq_model", e);
    if (!s)
        s = tt_config_member(&data, c, "dataset", e);
    if (!s)
        s = tt_config_member(&prep, data, "preprocessing", e);
    if (!s && tt_config_has(c, "tiny_overrides"))
        s = tt_config_member(&tiny, c, "tiny_overrides", e);
    int64_t pixels = s ? 0 : tt_config_need_int(prep, "crop_size", 4, 1 << 12);
    if (!s)
        s = tt_config_status(prep, e);
    tt_config_ignore(c, unread);
    if (!s)
        s = read_model(r, vq, tiny, pixels, e);
    r->base.info.width = r->base.info.height = (int32_t)pixels;
    tt_config_close(tiny);
    tt_config_close(prep);
    tt_config_close(data);
    tt_config_close(vq);
    tt_config_close(model);
    return s;
}

static void close_pixels(pixels_net *n, tt_stream *s)
{
    s->op.matrix_close(s, n->conv_in);
    s->op.matrix_close(s, n->conv_out);
    tt_conv_norm_close(&n->norm_out, s);
    for (int i = 0; i < MAX_SCALES; i++) {
        s->op.matrix_close(s, n->up[i]);
        for (int k = 0; k < MAX_BLOCKS; k++)
            tt_conv_block_close(&n->level[i][k], s);
    }
    for (int k = 0; k < MAX_BLOCKS; k++)
        tt_conv_block_close(&n->mid[k], s);
}

static void close_tower(tower *t, tt_stream *s)
{
    for (int64_t i = 0; t->block && i < t->layers; i++)
        tt_vit_block_close(&t->block[i], s);
    free(t->block);
    tt_vit_norm_close(&t->pre, s);
    tt_vit_norm_close(&t->post, s);
    s->op.matrix_close(s, t->embed);
    tt_vit_close(&t->vit);
}

static void turning_close(turning *t, tt_stream *s)
{
    s->op.release(s, t->cos);
    s->op.release(s, t->sin);
    *t = (turning){0};
}

static void restok_close(tt_codec *base)
{
    restok *r = (restok *)base;
    tt_stream *s = base->stream;
    close_pixels(&r->encoder, s);
    close_pixels(&r->decoder, s);
    close_tower(&r->in, s);
    close_tower(&r->out, s);
    for (int i = 0; i < TT_MAX_LEVELS; i++) {
        free(r->down[i].weight);
        free(r->down[i].bias);
        s->op.matrix_close(s, r->up[i]);
        free(r->level_in[i]);
    }
    for (int i = 0; i < STAGES; i++) {
        free(r->stage_place[i]);
        turning_close(&r->turn_in[i], s);
    }
    turning_close(&r->turn_out, s);
    s->op.release(s, r->space);
    free(r->code);
    free(r->unit);
    free(r->nothing);
    free(r->blank);
    free(r);
}

static tt_status bind_all(restok *r, tt_stream *s, const tt_weights *w, tt_weights_mode mode,
                          tt_err *e)
{
    static const char *const sample = "decoder.blocks.0.attn.qkv.weight";
    tt_bind exact = {.stream = s, .weights = w, .compute = TT_COMPUTE_F32}, quick = exact;
    tt_status st = tt_bind_choose(&quick.compute, s, w, sample, mode, e);
    tower *t[] = {&r->in, &r->out};
    const tt_compute compute[] = {TT_COMPUTE_F32, quick.compute};
    for (int i = 0; i < 2; i++) {
        t[i]->vit.stream = s;
        t[i]->vit.compute = compute[i];
        t[i]->vit.type = s->op.act_type ? s->op.act_type(s, compute[i]) : TT_F32;
    }
    if (!st)
        st = TT_BIND_NEED(s, conv3x3, e);
    if (!st)
        st = TT_BIND_NEED(s, layernorm, e);
    if (!st)
        st = TT_BIND_NEED(s, gelu_erf, e);
    if (!st)
        st = TT_BIND_NEED(s, layernorm_heads, e);
    if (!st)
        st = bind_pixel_encoder(r, &exact, e);
    if (!st)
        st = bind_tower(&r->in, &exact, "encoder", e);
    if (!st)
        st = linear(&exact, &r->in.embed, "encoder.patch_embed", r->in.vit.width, r->z, e);
    if (!st)
        st = bind_tower(&r->out, &quick, "decoder", e);
    if (!st)
        st = linear(&quick, &r->out.embed, "decoder.ffn", r->z, r->out.vit.width, e);
    if (!st)
        st = bind_pixel_decoder(r, &quick, e);
    if (!st)
        st = bind_levels(r, w, e);
    r->base.info.compute = tt_bind_text(w, sample, quick.compute);
    return st ? st : bind_codes(r, w, e);
}

static double tower_macs(const tower *t, double rows)
{
    double d = (double)t->vit.width, ff = (double)t->vit.ff;
    return (double)t->layers * rows * (4 * d * d + 2 * d * ff + 2 * d * rows);
}

/* Of decoding: up to the first convolution, and all. */
static void count_macs(restok *r)
{
    tt_codec_info *info = &r->base.info;
    double cells = (double)(r->side * r->side), z = (double)r->z, d = (double)r->out.vit.width;
    double coarse = (double)r->channel[r->scales - 1], pixels = cells;
    info->latent_macs = tower_macs(&r->out, cells + info->layout.tokens) + cells * d * z;
    info->decode_macs = info->latent_macs + cells * 9 * z * coarse;
    for (int64_t i = 0; i < r->blocks; i++)
        info->decode_macs += cells * tt_conv_block_macs(&r->decoder.mid[i]);
    for (int64_t l = r->scales - 1; l >= 0; l--, pixels *= 4) {
        double wide = (double)r->channel[l];
        for (int64_t i = 0; i < r->blocks; i++)
            info->decode_macs += pixels * tt_conv_block_macs(&r->decoder.level[l][i]);
        info->decode_macs += l ? 4 * pixels * 9 * wide * wide : pixels * 27 * wide;
    }
}

static tt_status restok_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                             tt_weights_mode mode, tt_err *e)
{
    *out = NULL;
    restok *r = calloc(1, sizeof *r);
    if (!r)
        return tt_fail(e, TT_ENOMEM, "no memory for a codec");
    r->base.def = &tt_codec_restok;
    r->base.stream = s;
    tt_status st = read_config(r, c, e);
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

/* --- pixels and latents --- */

/* Pictures in the convolutions. */
typedef struct {
    tt_conv_flow f;
    void *memory[3];
} pixels_job;

static int64_t most_numbers(const restok *r)
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

static tt_status pixels_open(pixels_job *j, restok *r, tt_dtype type, int64_t images, int64_t side,
                             tt_err *e)
{
    tt_stream *s = r->base.stream;
    tt_status st = TT_OK;
    *j = (pixels_job){0};
    s->act = type;
    for (int i = 0; i < 3 && !st; i++)
        st = s->op.alloc(s, &j->memory[i],
                         (size_t)(images * most_numbers(r)) * tt_dtype_size(type), e);
    j->f = (tt_conv_flow){.stream = s, .x = j->memory[0], .h = j->memory[1], .t = j->memory[2],
                          .images = images, .height = side, .width = side, .groups = r->groups,
                          .eps = 1e-6f};
    return st;
}

static void pixels_close(pixels_job *j, tt_stream *s)
{
    for (int i = 0; i < 3; i++)
        s->op.release(s, j->memory[i]);
}

static tt_status run_blocks(tt_conv_flow *f, const tt_conv_block *list, int64_t n, tt_err *e)
{
    tt_status s = TT_OK;
    for (int64_t i = 0; i < n && !s; i++)
        s = tt_conv_run_block(f, &list[i], e);
    return s;
}

/* From pixels in h to latents of the transformer in t: rows of its width. */
static tt_status encode_pixels(restok *r, tt_conv_flow *f, tt_act *rows, tt_err *e)
{
    tt_stream *s = f->stream;
    const pixels_net *n = &r->encoder;
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

/* From rows of z in h to pixels in x. */
static tt_status decode_pixels(restok *r, tt_conv_flow *f, tt_err *e)
{
    const pixels_net *n = &r->decoder;
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

/* --- places --- */

/* Angles of a row at (y, x): the first half of the pairs turns with y, the second with x. */
static void angles(const restok *r, float *cosines, float *sines, int64_t head_dim, double y,
                   double x)
{
    int64_t quarter = head_dim / 4;
    for (int64_t i = 0; i < 2 * quarter; i++) {
        double f = pow(r->theta, -2.0 * (double)(i % quarter) / ((double)head_dim / 2));
        double a = (i < quarter ? y : x) * f;
        cosines[i] = (float)cos(a);
        sines[i] = (float)sin(a);
    }
}

/* Of one picture in the encoder after `merges` merges: grids coarsest first, then the latents.
 * Returns how many rows it has. */
static int64_t encoder_angles(const restok *r, float *c, float *s, int merges)
{
    int64_t hd = r->in.vit.width / r->in.vit.heads, half = hd / 2, row = 0, offset = 0;
    for (int g = merges; g >= 0; g--) {
        int64_t columns = r->side >> g, cells = r->side * columns;
        for (int64_t i = 0; i < cells; i++, row++)
            angles(r, c + row * half, s + row * half, hd, (double)(i / columns + offset),
                   (double)(i % columns + offset));
        offset += cells;
    }
    for (int64_t j = 0; j < r->base.info.layout.tokens; j++, row++)
        angles(r, c + row * half, s + row * half, hd, (double)(offset + j), (double)(offset + j));
    return row;
}

/* One picture's angles, for all pictures. */
static tt_status upload_angles(tt_stream *s, turning *t, const float *c, const float *si,
                               int64_t numbers, tt_err *e)
{
    const float *from[] = {c, si};
    void **to[] = {&t->cos, &t->sin};
    size_t one = (size_t)numbers * sizeof *c;
    char *all = malloc(one * PICTURES);
    tt_status st = all ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    for (int k = 0; k < 2 && !st; k++) {
        for (size_t i = 0; i < PICTURES; i++)
            memcpy(all + i * one, from[k], one);
        st = s->op.alloc(s, to[k], one * PICTURES, e);
        if (!st)
            st = s->op.upload(s, *to[k], all, one * PICTURES, e);
        if (!st)
            st = s->op.sync(s, e);
    }
    free(all);
    if (st)
        turning_close(t, s);
    return st;
}

/* --- encoding --- */

static const int64_t grid_rows[] = {1, 1, 2, 2, 4, 4, 8, 8, 16};
static const int64_t grid_columns[] = {1, 2, 2, 4, 4, 8, 8, 16, 16};

static int exponent(int64_t n)
{
    int k = 0;
    while (1 << k < n)
        k++;
    return k;
}

/* Latents of one picture: means over the cells of each level's grid of what the levels before left
 * over. rest (side^2 x d) is used up. */
static void pool_residuals(const restok *r, float *latent, float *rest)
{
    int64_t d = r->in.vit.width, side = r->side;
    const tt_layout *l = &r->base.info.layout;
    for (int32_t i = 0; i < l->levels; i++) {
        int k = exponent(l->level[i]);
        int64_t rows = grid_rows[k], columns = grid_columns[k];
        int64_t high = side / rows, wide = side / columns;
        for (int64_t cell = 0; cell < rows * columns; cell++, latent += d)
            for (int64_t c = 0; c < d; c++) {
                double sum = 0;
                for (int64_t p = 0; p < high * wide; p++)
                    sum += rest[((cell / columns * high + p / wide) * side +
                                 cell % columns * wide + p % wide) * d + c];
                latent[c] = (float)(sum / (double)(high * wide));
                for (int64_t p = 0; p < high * wide; p++)
                    rest[((cell / columns * high + p / wide) * side + cell % columns * wide +
                          p % wide) * d + c] -= latent[c];
            }
    }
}

/* Pictures in the encoder's transformer. */
typedef struct {
    restok *r;
    int64_t images, rows; /* rows of one picture now */
    int merges;
    tt_act *x, *spare;    /* images x most rows x width */
    void *memory[2], *index, *scale;
} encoding;

static int64_t most_rows(const restok *r)
{
    int64_t rows = r->base.info.layout.tokens;
    for (int g = 0; g < r->stages; g++)
        rows += r->side * (r->side >> g);
    return rows;
}

/* Those of the merges so far. */
static tt_status set_angles(const encoding *n, tt_err *e)
{
    restok *r = n->r;
    int64_t half = r->in.vit.width / r->in.vit.heads / 2;
    size_t room = (size_t)(most_rows(r) * half) * sizeof(float);
    turning *t = &r->turn_in[n->merges];
    if (t->cos)
        return TT_OK;
    float *c = malloc(room), *s = malloc(room);
    tt_status st = c && s ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    if (!st) {
        int64_t rows = encoder_angles(r, c, s, n->merges);
        st = upload_angles(r->base.stream, t, c, s, rows * half, e);
    }
    free(c);
    free(s);
    return st;
}

/* What each group sees: itself and the groups before it. */
static int64_t spans_of(const encoding *n, tt_vit_span *span)
{
    const restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    int64_t count = 0;
    for (int64_t i = 0; i < n->images; i++) {
        int64_t first = i * n->rows, row = first;
        for (int g = n->merges; g >= 0; g--) {
            int64_t rows = r->side * (r->side >> g);
            span[count++] = (tt_vit_span){row, rows, TT_SEE_ALL, first, row + rows - first};
            row += rows;
        }
        for (int32_t v = 0; v < l->levels; v++) {
            int64_t rows = l->level[v];
            span[count++] = (tt_vit_span){row, rows, TT_SEE_ALL, first, row + rows - first};
            row += rows;
        }
    }
    return count;
}

/* Every second row of the coarsest grid goes in front, and is taken from its two. */
static tt_status merge(encoding *n, tt_err *e)
{
    restok *r = n->r;
    tt_stream *s = r->base.stream;
    int64_t d = r->in.vit.width, group = r->side * (r->side >> n->merges), half = group / 2;
    int64_t rows = n->rows + half, all = n->images * rows;
    int32_t *index = malloc((size_t)(2 * all) * sizeof *index);
    float *scale = calloc((size_t)all, sizeof *scale);
    tt_status st = index && scale ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory to merge");
    for (int64_t i = 0; i < n->images && !st; i++)
        for (int64_t k = 0; k < rows; k++) {
            int64_t at = i * rows + k, old = i * n->rows;
            bool of_group = k >= half && k < half + group;
            index[at] = (int32_t)(old + (k < half ? 2 * k : k - half));
            index[all + at] = (int32_t)(of_group ? old + (k - half) / 2 * 2 : old);
            scale[at] = of_group ? -1 : 0;
        }
    if (!st)
        st = s->op.upload(s, n->index, index, (size_t)(2 * all) * sizeof *index, e);
    if (!st)
        st = s->op.upload(s, n->scale, scale, (size_t)all * sizeof *scale, e);
    if (!st)
        st = s->op.gather(s, n->spare, d, n->x, d, n->index, all, d, e);
    void *kept = NULL; /* the second list needs room of its own */
    if (!st)
        st = s->op.alloc(s, &kept, (size_t)(all * d) * tt_dtype_size(r->in.vit.type), e);
    if (!st)
        st = s->op.gather(s, kept, d, n->x, d, (const int32_t *)n->index + all, all, d, e);
    if (!st)
        st = s->op.add_scaled(s, n->spare, d, kept, d, n->scale, all, d, e);
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, kept);
    free(index);
    free(scale);
    tt_act *before = n->x;
    n->x = n->spare;
    n->spare = before;
    n->rows = rows;
    n->merges++;
    return st;
}

/* Adds the stage's vector to the rows of the freshest grid. */
static tt_status place_stage(encoding *n, tt_err *e)
{
    restok *r = n->r;
    tt_stream *s = r->base.stream;
    int64_t d = r->in.vit.width, group = r->side * (r->side >> n->merges);
    float *rows = malloc((size_t)(group * d) * sizeof *rows);
    tt_act *device = NULL;
    tt_status st = rows ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    for (int64_t i = 0; i < group * d && !st; i++)
        rows[i] = r->stage_place[n->merges][i % d];
    if (!st)
        st = tt_vit_upload(&r->in.vit, &device, rows, group * d, e);
    for (int64_t i = 0; i < n->images && !st; i++) {
        tt_act *x = (char *)n->x + (size_t)(i * n->rows * d) * tt_dtype_size(r->in.vit.type);
        st = s->op.add(s, x, d, device, d, group, d, e);
    }
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, device);
    free(rows);
    return st;
}

static bool merges_here(const restok *r, int64_t block)
{
    for (int64_t i = 1; i < r->stages; i++)
        if (block == (int64_t)((double)i / (double)r->stages * (double)r->in.layers) - 1)
            return true;
    return false;
}

static tt_status run_encoder(encoding *n, tt_err *e)
{
    restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    size_t spans = (size_t)n->images * (size_t)(r->stages + l->levels + 1);
    tt_vit_span *span = malloc(spans * sizeof *span);
    tt_status s = span ? set_angles(n, e) : tt_fail(e, TT_ENOMEM, "no memory for spans");
    for (int64_t i = 0; i < r->in.layers && !s; i++) {
        const tt_vit_block *b = &r->in.block[i];
        bool merges = merges_here(r, i);
        s = tt_vit_attend(&r->in.vit, b, n->x, n->images * n->rows, span, spans_of(n, span),
                          r->turn_in[n->merges].cos, r->turn_in[n->merges].sin, e);
        if (!s && merges)
            s = merge(n, e);
        if (!s)
            s = tt_vit_mlp(&r->in.vit, b, n->x, n->images * n->rows, e);
        if (!s && merges)
            s = place_stage(n, e);
        if (!s && merges)
            s = set_angles(n, e);
    }
    free(span);
    return s;
}

/* Image tokens and latents of all pictures in order, from the rows of the convolutions. */
static tt_status begin_rows(encoding *n, const float *image_rows, tt_err *e)
{
    restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    int64_t d = r->in.vit.width, cells = r->side * r->side;
    float *rest = malloc((size_t)(cells * d) * sizeof *rest);
    float *rows = malloc((size_t)(n->images * n->rows * d) * sizeof *rows);
    tt_status s = rest && rows ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %lld pictures",
                                                 (long long)n->images);
    for (int64_t i = 0; i < n->images && !s; i++) {
        float *mine = rows + i * n->rows * d, *latent = mine + cells * d;
        memcpy(rest, image_rows + i * cells * d, (size_t)(cells * d) * sizeof *rest);
        pool_residuals(r, latent, rest);
        for (int64_t k = 0; k < cells * d; k++)
            mine[k] = image_rows[i * cells * d + k] + r->stage_place[0][k % d];
        for (int32_t v = 0; v < l->levels; v++)
            for (int64_t k = 0; k < l->level[v] * d; k++)
                *latent++ += r->level_in[v][k % d];
    }
    if (!s)
        s = tt_vit_put(&r->in.vit, n->x, rows, n->images * n->rows * d, e);
    if (!s)
        s = r->base.stream->op.sync(r->base.stream, e);
    free(rest);
    free(rows);
    return s ? s : r->base.stream->op.layernorm(r->base.stream, n->x, d, n->x, d, r->in.pre.w,
                                                r->in.pre.b, n->images * n->rows, d,
                                                r->in.vit.eps, e);
}

/* The numbers of every token before quantisation: tokens x dims. row: tokens x width. */
static void project(const restok *r, float *z, const float *row)
{
    const tt_layout *l = &r->base.info.layout;
    int64_t d = r->in.vit.width, c = r->dims, tokens = l->tokens, j = 0;
    int64_t step = r->in_place ? 1 : tokens; /* the buffer re-read as width x tokens */
    for (int32_t v = 0; v < l->levels; v++)
        for (int32_t k = 0; k < l->level[v]; k++, j++)
            for (int64_t i = 0; i < c; i++) {
                const float *first = row + (r->in_place ? j * d : j);
                double sum = r->down[v].bias[i];
                for (int64_t a = 0; a < d; a++)
                    sum += (double)r->down[v].weight[i * d + a] * first[a * step];
                z[j * c + i] = (float)sum;
            }
}

static int32_t nearest(const restok *r, const float *z, tt_code_distance *distance)
{
    float unit[256];
    int64_t c = r->dims;
    int32_t best = 0;
    tt_code_distance found = {INFINITY, INFINITY};
    to_length_1(unit, z, c);
    for (int32_t k = 0; k < r->base.info.layout.codes; k++) {
        float sum = 0;
        for (int64_t i = 0; i < c; i++) {
            float gap = unit[i] - r->unit[k * c + i];
            sum += gap * gap;
        }
        if (sum < found.nearest) {
            found.second = found.nearest;
            found.nearest = sum;
            best = k;
        } else if (sum < found.second) {
            found.second = sum;
        }
    }
    if (distance)
        *distance = found;
    return best;
}

/* The last rows of every picture, normalised, on the host. */
static tt_status last_rows(encoding *n, float *rows, tt_err *e)
{
    restok *r = n->r;
    tt_stream *s = r->base.stream;
    int64_t d = r->in.vit.width, tokens = r->base.info.layout.tokens, all = n->images * tokens;
    int32_t *index = malloc((size_t)all * sizeof *index);
    tt_status st = index ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for tokens");
    for (int64_t i = 0; i < all && !st; i++)
        index[i] = (int32_t)((i / tokens + 1) * n->rows - tokens + i % tokens);
    if (!st)
        st = s->op.upload(s, n->index, index, (size_t)all * sizeof *index, e);
    if (!st)
        st = s->op.gather(s, n->spare, d, n->x, d, n->index, all, d, e);
    if (!st)
        st = s->op.layernorm(s, n->spare, d, n->spare, d, r->in.post.w, r->in.post.b, all, d,
                             r->in.vit.eps, e);
    if (!st)
        st = tt_vit_get(&r->in.vit, rows, n->spare, all * d, e);
    free(index);
    return st;
}

/* Pixels to the transformer's image rows, on the host. */
static tt_status image_rows(restok *r, float *rows, const float *pixels, int64_t images, tt_err *e)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};
    tt_stream *s = r->base.stream;
    int64_t side = r->base.info.width, n = images * side * side * 3, d = r->in.vit.width;
    int64_t cells = images * r->side * r->side;
    pixels_job j;
    void *device = NULL;
    float *shifted = malloc((size_t)n * sizeof *shifted);
    tt_status st = shifted ? pixels_open(&j, r, r->in.vit.type, images, side, e)
                           : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < n && !st; i++)
        shifted[i] = (pixels[i] - mean[i % 3]) / deviation[i % 3];
    if (!st)
        st = tt_vit_put(&r->in.vit, j.f.h, shifted, n, e);
    if (!st)
        st = s->op.sync(s, e);
    if (!st)
        st = s->op.alloc(s, &device, (size_t)(cells * d) * tt_dtype_size(r->in.vit.type), e);
    if (!st)
        st = encode_pixels(r, &j.f, device, e);
    if (!st)
        st = tt_vit_get(&r->in.vit, rows, device, cells * d, e);
    if (shifted)
        pixels_close(&j, s);
    s->op.release(s, device);
    free(shifted);
    return st;
}

static tt_status encoding_open(encoding *n, restok *r, int64_t images, tt_err *e)
{
    tt_stream *s = r->base.stream;
    int64_t most = images * most_rows(r);
    size_t row = (size_t)r->in.vit.width * tt_dtype_size(r->in.vit.type);
    *n = (encoding){.r = r, .images = images,
                    .rows = r->side * r->side + r->base.info.layout.tokens};
    tt_status st = TT_OK;
    for (int i = 0; i < 2 && !st; i++)
        st = s->op.alloc(s, &n->memory[i], (size_t)most * row, e);
    if (!st)
        st = s->op.alloc(s, &n->index, (size_t)(2 * most) * sizeof(int32_t), e);
    if (!st)
        st = s->op.alloc(s, &n->scale, (size_t)most * sizeof(float), e);
    n->x = n->memory[0];
    n->spare = n->memory[1];
    s->act = r->in.vit.type;
    return st;
}

static void encoding_close(encoding *n)
{
    tt_stream *s = n->r->base.stream;
    s->op.release(s, n->memory[0]);
    s->op.release(s, n->memory[1]);
    s->op.release(s, n->index);
    s->op.release(s, n->scale);
}

static tt_status encode_some(restok *r, int32_t *id, float *latent, tt_code_distance *distance,
                             const float *pixels, int64_t images, tt_err *e)
{
    encoding n;
    int64_t tokens = r->base.info.layout.tokens, d = r->in.vit.width, cells = r->side * r->side;
    int64_t most = cells > tokens ? cells : tokens;
    float *rows = malloc((size_t)(images * most * d) * sizeof *rows);
    float *z = malloc((size_t)(tokens * r->dims) * sizeof *z);
    tt_status s = rows && z ? image_rows(r, rows, pixels, images, e)
                            : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    bool open = !s;
    if (!s)
        s = encoding_open(&n, r, images, e);
    if (!s)
        s = begin_rows(&n, rows, e);
    if (!s)
        s = run_encoder(&n, e);
    if (!s)
        s = last_rows(&n, rows, e);
    for (int64_t i = 0; i < images && !s; i++) {
        project(r, z, rows + i * tokens * d);
        for (int64_t j = 0; j < tokens; j++)
            id[i * tokens + j] = nearest(r, z + j * r->dims,
                                         distance ? &distance[i * tokens + j] : NULL);
        if (latent)
            memcpy(latent + i * tokens * r->dims, z, (size_t)(tokens * r->dims) * sizeof *z);
    }
    if (open)
        encoding_close(&n);
    free(rows);
    free(z);
    return s;
}

static tt_status restok_encode(tt_codec *base, int32_t *id, float *latent,
                               tt_code_distance *distance, const float *pixels, int64_t images,
                               tt_err *e)
{
    restok *r = (restok *)base;
    int64_t tokens = base->info.layout.tokens, n = 3 * (int64_t)base->info.width * base->info.width;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += PICTURES)
        s = encode_some(r, id + i * tokens, latent ? latent + i * tokens * r->dims : NULL,
                        distance ? distance + i * tokens : NULL, pixels + i * n,
                        images - i < PICTURES ? images - i : PICTURES, e);
    return s;
}

/* --- decoding --- */

/* Some pictures, and views into the working memory. */
typedef struct {
    restok *r;
    int64_t images, rows; /* rows of one picture */
    float *code;          /* host: of every token, by level, then picture */
    int32_t *index;       /* host: the part of each row, then the rows that become pixels */
    /* parts: what blank image tokens are, then the latents as `code` has them */
    tt_act *parts, *codes, *x, *last, *pixels[3];
    int32_t *part, *cell;
} decoding;

static int64_t tokens_of(const restok *r)
{
    return r->base.info.layout.tokens;
}

/* Lays the views out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(decoding *n, char *base)
{
    const restok *r = n->r;
    size_t size = tt_dtype_size(r->out.vit.type), d = (size_t)r->out.vit.width, used = 0;
    size_t images = (size_t)n->images, tokens = images * (size_t)tokens_of(r);
    size_t cells = images * (size_t)cells_of(r), pixels = images * (size_t)most_numbers(r);
    size_t parts = (size_t)blanks_of(r) + tokens;
    const size_t part[] = {parts * d * size, tokens * (size_t)r->dims * size,
                           (tokens + cells) * d * size, cells * d * size, pixels * size,
                           pixels * size, pixels * size, (tokens + 2 * cells) * sizeof(int32_t)};
    void *p[8] = {NULL};
    for (int i = 0; i < 8; i++) {
        p[i] = base ? base + used : NULL;
        used += (part[i] + 255) & ~(size_t)255;
    }
    if (!base)
        return used;
    n->parts = p[0];
    n->codes = p[1];
    n->x = p[2];
    n->last = p[3];
    for (int i = 0; i < 3; i++)
        n->pixels[i] = p[4 + i];
    n->part = p[7];
    n->cell = n->part + tokens + cells;
    return used;
}

/* Blank tokens are the first thing there. */
static tt_status reserve(decoding *n, tt_err *e)
{
    restok *r = n->r;
    tt_stream *s = r->base.stream;
    size_t need = lay_out(n, NULL);
    if (need > r->space_bytes) {
        s->op.release(s, r->space);
        r->space = NULL;
        r->space_bytes = 0;
        tt_status st = s->op.alloc(s, &r->space, need, e);
        if (!st)
            st = tt_vit_put(&r->out.vit, r->space, r->blank, blanks_of(r) * r->out.vit.width, e);
        if (st)
            return st;
        r->space_bytes = need;
    }
    lay_out(n, r->space);
    return tt_vit_reserve(&r->out.vit, n->images * n->rows, e);
}

/* keep: NULL, or how many tokens of each picture count. */
static void fill_lists(decoding *n, const int32_t *id, const int32_t *keep)
{
    const restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    int64_t tokens = tokens_of(r), cells = cells_of(r), blanks = blanks_of(r), at = 0, begin = 0;
    for (int32_t v = 0; v < l->levels; begin += l->level[v++])
        for (int64_t i = 0; i < n->images; i++)
            for (int64_t j = begin; j < begin + l->level[v]; j++, at++) {
                const float *code = r->unit + (int64_t)id[i * tokens + j] * r->dims;
                memcpy(n->code + at * r->dims, keep && j >= keep[i] ? r->nothing : code,
                       (size_t)r->dims * sizeof *code);
                n->index[i * n->rows + j] = (int32_t)(blanks + at);
            }
    int32_t *cell = n->index + n->images * n->rows;
    for (int64_t i = 0; i < n->images; i++)
        for (int64_t j = 0; j < cells; j++) {
            n->index[i * n->rows + tokens + j] = r->in_place ? (int32_t)j : 0;
            *cell++ = (int32_t)(i * n->rows + tokens + j);
        }
}

static tt_status decoder_angles(restok *r, tt_err *e)
{
    int64_t tokens = tokens_of(r), rows = tokens + cells_of(r);
    int64_t hd = r->out.vit.width / r->out.vit.heads, half = hd / 2;
    if (r->turn_out.cos)
        return TT_OK;
    float *c = malloc((size_t)(2 * rows * half) * sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for places");
    float *s = c + rows * half;
    for (int64_t i = 0; i < rows; i++) {
        int64_t k = i - tokens;
        double y = (double)(i < tokens ? i : k / r->side + tokens);
        double x = (double)(i < tokens ? i : k % r->side + tokens);
        angles(r, c + i * half, s + i * half, hd, y, x);
    }
    tt_status st = upload_angles(r->base.stream, &r->turn_out, c, s, rows * half, e);
    free(c);
    return st;
}

/* The transformer's rows of all pictures: latents, then blank image tokens. */
static tt_status begin_decoder(const decoding *n, tt_err *e)
{
    const restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    tt_stream *s = r->base.stream;
    int64_t d = r->out.vit.width, c = r->dims, at = 0;
    size_t size = tt_dtype_size(r->out.vit.type);
    int64_t ints = n->images * (n->rows + cells_of(r));
    tt_status st = tt_vit_put(&r->out.vit, n->codes, n->code, n->images * tokens_of(r) * c, e);
    if (!st)
        st = s->op.upload(s, n->part, n->index, (size_t)ints * sizeof *n->index, e);
    for (int32_t v = 0; v < l->levels && !st; v++) {
        int64_t rows = n->images * l->level[v];
        st = s->op.linear(s, (char *)n->parts + (size_t)((blanks_of(r) + at) * d) * size, d,
                          (char *)n->codes + (size_t)(at * c) * size, c, rows, r->up[v], false, e);
        at += rows;
    }
    return st ? st
              : s->op.gather(s, n->x, d, n->parts, d, n->part, n->images * n->rows, d, e);
}

/* Up to the rows that the convolutions read. */
static tt_status run_decoder(decoding *n, tt_err *e)
{
    restok *r = n->r;
    tt_stream *s = r->base.stream;
    tt_vit *v = &r->out.vit;
    int64_t d = v->width, rows = n->images * n->rows, cells = n->images * cells_of(r);
    tt_vit_span span[PICTURES];
    for (int64_t i = 0; i < n->images; i++)
        span[i] = (tt_vit_span){.row = i * n->rows, .rows = n->rows, .see = TT_SEE_ALL};
    tt_status st = begin_decoder(n, e);
    if (!st)
        st = s->op.layernorm(s, n->x, d, n->x, d, r->out.pre.w, r->out.pre.b, rows, d, v->eps, e);
    for (int64_t i = 0; i < r->out.layers && !st; i++)
        st = tt_vit_run(v, &r->out.block[i], n->x, rows, span, n->images, r->turn_out.cos,
                        r->turn_out.sin, e);
    if (!st)
        st = s->op.gather(s, n->last, d, n->x, d, n->cell, cells, d, e);
    if (!st)
        st = s->op.layernorm(s, n->last, d, n->last, d, r->out.post.w, r->out.post.b, cells, d,
                             v->eps, e);
    return st ? st
              : s->op.linear(s, n->pixels[1], r->z, n->last, d, cells, r->out.embed, false, e);
}

/* *out: the pixels on the device. */
static tt_status decode_pass(decoding *n, tt_act **out, tt_err *e)
{
    const restok *r = n->r;
    tt_conv_flow f = {.stream = r->base.stream, .x = n->pixels[0], .h = n->pixels[1],
                      .t = n->pixels[2], .images = n->images, .height = r->side, .width = r->side,
                      .groups = r->groups, .eps = 1e-6f};
    tt_status s = run_decoder(n, e);
    if (!s)
        s = decode_pixels(n->r, &f, e);
    *out = f.x;
    return s;
}

/* Passes of as many pictures are recorded where the backend can. */
static tt_status decode_recorded(decoding *n, tt_act **out, tt_err *e)
{
    const restok *r = n->r;
    tt_stream *s = r->base.stream;
    if (!s->op.pass_begin)
        return decode_pass(n, out, e);
    const int64_t key[] = {(int64_t)(intptr_t)r, (int64_t)(intptr_t)r->space,
                           n->images * n->rows, (int64_t)(intptr_t)r->out.vit.space};
    tt_status st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
    if (st)
        return st;
    st = decode_pass(n, out, e);
    return s->op.pass_end(s, st, e);
}

static tt_status decode_some(restok *r, float *pixels, const int32_t *id, const int32_t *keep,
                             int64_t images, tt_err *e)
{
    int64_t tokens = tokens_of(r), cells = cells_of(r), side = r->base.info.width;
    decoding n = {.r = r, .images = images, .rows = tokens + cells};
    tt_act *out = NULL;
    n.code = malloc((size_t)(images * tokens * r->dims) * sizeof *n.code);
    n.index = malloc((size_t)(images * (n.rows + cells)) * sizeof *n.index);
    r->base.stream->act = r->out.vit.type;
    tt_status st = n.code && n.index ? reserve(&n, e)
                                     : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    if (!st)
        st = decoder_angles(r, e);
    if (!st) {
        fill_lists(&n, id, keep);
        st = decode_recorded(&n, &out, e);
    }
    if (!st)
        st = tt_vit_get(&r->out.vit, pixels, out, images * side * side * 3, e);
    free(n.code);
    free(n.index);
    return st;
}

static tt_status restok_decode(tt_codec *base, float *pixels, const int32_t *id,
                               const int32_t *keep, int64_t images, tt_err *e)
{
    restok *r = (restok *)base;
    tt_stream *st = base->stream;
    int64_t tokens = base->info.layout.tokens, n = 3 * (int64_t)base->info.width * base->info.width;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += PICTURES)
        s = decode_some(r, pixels + i * n, id + i * tokens, keep ? keep + i : NULL,
                        images - i < PICTURES ? images - i : PICTURES, e);
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
    const restok *r = (const restok *)base;
    (void)e;
    for (int64_t i = 0; i < images * base->info.layout.tokens; i++)
        memcpy(latent + i * r->dims, r->unit + (int64_t)id[i] * r->dims,
               (size_t)r->dims * sizeof *latent);
    return TT_OK;
}

static size_t restok_bytes(const tt_codec *base, int64_t images)
{
    const restok *r = (const restok *)base;
    int64_t n = images < PICTURES ? images : PICTURES, rows = n * most_rows(r);
    int64_t d = r->in.vit.width;
    size_t pixels = (size_t)(3 * n * most_numbers(r)) * 4;
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
