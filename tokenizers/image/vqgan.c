/* vqgan.c - the convolutional image codec of MaskGIT (arXiv 2202.04200), which ENAT, TiTok, MAGE,
 * RAR and others use: no attention, average pooling, GroupNorm; tensor names of the released ports
 * to PyTorch, in either spelling. Follows the released code, whose residual blocks lose the input
 * where the number of channels changes: nin(h) + h instead of nin(x) + h.
 *
 *   encoder: conv_in; per level, blocks and (but for the last) 2x2 averaging; mid; norm, conv_out
 *   decoder: conv_in; mid; per level from the coarsest, blocks and (but for the last) nearest
 *            enlargement with a convolution; norm, conv_out
 *
 * The encoder always runs in float32, so that near codes do not flip. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image.h"
#include "tokenizers/image/convnet.h"

enum { MAX_LEVELS = 8, MAX_BLOCKS = 8 };
static const float epsilon = 1e-6f;

/* Encoder or decoder. */
typedef struct {
    tt_matrix *conv_in, *conv_out;
    tt_conv_block mid[MAX_BLOCKS], level[MAX_LEVELS][MAX_BLOCKS];
    tt_matrix *up[MAX_LEVELS]; /* of the decoder, from level 1 on */
    tt_conv_norm norm_out;
    int64_t out; /* channels of norm_out */
    tt_dtype act;
} network;

typedef struct {
    tt_codec base;
    int64_t levels, blocks, mids, z;
    int64_t groups; /* of GroupNorm: 32 in released models */
    int64_t width[MAX_LEVELS]; /* channels of each level, finest first */
    network encoder, decoder;
    tt_matrix *table; /* the codes, as the decoder reads them */
    float *code;      /* device, codes x z */
    float *code_host;
    void *space; /* three buffers of pixels, tokens and distances */
    size_t space_bytes;
    uint16_t *half; /* host: pixels of a turn in bfloat16 */
    int64_t half_numbers;
} vqgan;

extern const tt_codec_def tt_codec_vqgan;

/* --- opening --- */

typedef struct {
    char text[140];
} name;

static name join(const char *a, const char *b)
{
    name n;
    snprintf(n.text, sizeof n.text, "%.100s%.30s", a, b);
    return n;
}

static tt_status bind_block(const vqgan *v, const tt_bind *b, tt_conv_block *k, const char *prefix,
                            int64_t in, int64_t out, tt_err *e)
{
    return tt_conv_bind_block(b, k, prefix, in, out, ".nin_shortcut", true, v->groups, e);
}

/* The middle at `width` channels; one port counts its blocks from 1, the other from 0. */
static tt_status bind_mid(const vqgan *v, const tt_bind *b, network *h, const char *side,
                          bool counted, tt_err *e)
{
    int64_t width = v->width[v->levels - 1];
    tt_status st = TT_OK;
    for (int i = 0; i < v->mids && !st; i++) {
        name n;
        snprintf(n.text, sizeof n.text, counted ? "%s.mid.%d" : "%s.mid.block_%d", side,
                 counted ? i : i + 1);
        st = bind_block(v, b, &h->mid[i], n.text, width, width, e);
    }
    return st;
}

static tt_status bind_ends(const vqgan *v, const tt_bind *b, network *h, const char *side,
                           int64_t in, int64_t first, bool in_bias, tt_err *e)
{
    name bias = join(side, ".conv_in.bias");
    tt_status st = tt_bind_conv3x3(b, &h->conv_in, join(side, ".conv_in.weight").text, first, in,
                                   in_bias ? bias.text : NULL, e);
    return st ? st : tt_conv_bind_norm(b, &h->norm_out, join(side, ".norm_out").text, h->out,
                                       v->groups, e);
}

static tt_status bind_encoder(vqgan *v, const tt_bind *b, bool counted, tt_err *e)
{
    network *h = &v->encoder;
    int64_t in = v->width[0];
    h->out = v->width[v->levels - 1];
    tt_status st = bind_ends(v, b, h, "encoder", 3, in, false, e);
    for (int l = 0; l < v->levels; l++)
        for (int i = 0; i < v->blocks && !st; i++) {
            name n;
            snprintf(n.text, sizeof n.text, "encoder.down.%d.block.%d", l, i);
            st = bind_block(v, b, &h->level[l][i], n.text, in, v->width[l], e);
            in = v->width[l];
        }
    if (!st)
        st = bind_mid(v, b, h, "encoder", counted, e);
    tt_bind_part out = {"encoder.conv_out.weight", v->z, "encoder.conv_out.bias"};
    return st ? st : tt_bind_matrix(b, &h->conv_out, &out, 1, h->out, TT_MATRIX_LINEAR, e);
}

static tt_status bind_decoder(vqgan *v, const tt_bind *b, bool counted, tt_err *e)
{
    network *h = &v->decoder;
    int64_t in = v->width[v->levels - 1];
    h->out = v->width[0];
    tt_status st = bind_ends(v, b, h, "decoder", v->z, in, true, e);
    if (!st)
        st = bind_mid(v, b, h, "decoder", counted, e);
    for (int l = (int)v->levels - 1; l >= 0; l--) {
        name n;
        for (int i = 0; i < v->blocks && !st; i++) {
            snprintf(n.text, sizeof n.text, "decoder.up.%d.block.%d", l, i);
            st = bind_block(v, b, &h->level[l][i], n.text, in, v->width[l], e);
            in = v->width[l];
        }
        snprintf(n.text, sizeof n.text, "decoder.up.%d.upsample%cconv", l, counted ? '_' : '.');
        if (l && !st)
            st = tt_bind_conv3x3(b, &h->up[l], join(n.text, ".weight").text, in, in,
                                 join(n.text, ".bias").text, e);
    }
    return st ? st
              : tt_bind_conv3x3(b, &h->conv_out, "decoder.conv_out.weight", 3, h->out,
                                "decoder.conv_out.bias", e);
}

/* The codes: on the host for tt_codec_embed, on the device to compare with, as a table. */
static tt_status bind_codes(vqgan *v, const tt_bind *b, tt_err *e)
{
    static const char *const key = "quantize.embedding.weight";
    int64_t codes = v->base.info.layout.codes;
    tt_weight w;
    tt_status st = tt_weights_matrix(b->weights, key, codes, v->z, &w, e);
    if (st)
        return st;
    v->code_host = malloc((size_t)(codes * v->z) * sizeof *v->code_host);
    if (!v->code_host)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld codes", (long long)codes);
    st = tt_to_f32(v->code_host, &w.data, 0, codes * v->z, e);
    for (int64_t r = 0; r < codes && !st && w.scale.data; r++) {
        float scale = 1;
        st = tt_to_f32(&scale, &w.scale, r, 1, e);
        for (int64_t i = 0; i < v->z; i++)
            v->code_host[r * v->z + i] *= scale;
    }
    if (!st)
        st = tt_bind_floats(b->stream, &v->code, v->code_host, codes * v->z, e);
    return st ? st
              : tt_bind_matrix(b, &v->table, &(tt_bind_part){key, codes, NULL}, 1, v->z,
                               TT_MATRIX_TABLE, e);
}

static const char *const no_effect[] = {"model_type", "embed_dim", "quantization", "pixel_range",
                                        "torch_dtype", "dtype", NULL};

static tt_status read_shape(vqgan *v, tt_config *c, tt_err *e)
{
    int64_t ch = tt_config_need_int(c, "ch", 1, 1 << 14);
    int64_t resolution = tt_config_need_int(c, "resolution", 1, 1 << 13);
    int64_t in = tt_config_int(c, "in_channels", 3, 1, 1 << 14);
    int64_t out = tt_config_int(c, "out_ch", 3, 1, 1 << 14);
    v->blocks = tt_config_need_int(c, "num_res_blocks", 1, MAX_BLOCKS);
    v->z = tt_config_need_int(c, "z_channels", 1, 1 << 14);
    v->groups = tt_config_int(c, "norm_groups", 32, 1, 1 << 14);
    bool twice = tt_config_bool(c, "double_z", false);
    for (int i = 0; i <= MAX_LEVELS; i++) {
        int64_t factor = tt_config_int_at(c, "ch_mult", i, 0, 1, 1 << 10);
        if (!factor)
            break;
        if (i == MAX_LEVELS)
            return tt_fail(e, TT_EUNSUP, "config key 'ch_mult' has more than %d entries",
                           MAX_LEVELS);
        v->width[v->levels++] = ch * factor;
    }
    tt_status st = tt_config_status(c, e);
    if (st)
        return st;
    if (in != 3 || out != 3 || twice)
        return tt_fail(e, TT_EUNSUP, "images of %lld and %lld channels%s", (long long)in,
                       (long long)out, twice ? ", double_z" : "");
    for (int64_t l = 0; l < v->levels; l++)
        if (v->width[l] % v->groups)
            return tt_fail(e, TT_EFORMAT, "config key 'norm_groups': %lld groups of level %lld's "
                           "%lld channels", (long long)v->groups, (long long)l,
                           (long long)v->width[l]);
    if (!v->levels || resolution % ((int64_t)1 << (v->levels - 1)))
        return tt_fail(e, TT_EFORMAT, "config key 'resolution': %lld pixels cannot be halved %lld "
                       "times", (long long)resolution, (long long)v->levels - 1);
    v->base.info.width = v->base.info.height = (int32_t)resolution;
    return TT_OK;
}

static tt_status read_config(vqgan *v, tt_config *c, tt_err *e)
{
    tt_codec_info *info = &v->base.info;
    tt_config *shape;
    int64_t codes = tt_config_need_int(c, "n_embed", 1, 1 << 24);
    tt_config_ignore(c, no_effect);
    tt_status st = tt_config_status(c, e);
    if (!st)
        st = tt_config_member(&shape, c, "ddconfig", e);
    if (st)
        return st;
    st = read_shape(v, shape, e);
    tt_config_close(shape);
    if (st)
        return tt_context(e, st, "config key 'ddconfig'");
    int32_t side = info->width >> (v->levels - 1);
    info->layout = (tt_layout){.kind = TT_LAYOUT_GRID, .tokens = side * side, .rows = side,
                               .columns = side, .levels = 1, .level = {side * side},
                               .codes = (int32_t)codes};
    info->family = tt_codec_vqgan.family;
    info->architecture = tt_codec_vqgan.architectures[0];
    info->spatial = true;
    info->latent = (int32_t)v->z;
    return TT_OK;
}

static void close_half(tt_stream *s, network *h)
{
    s->op.matrix_close(s, h->conv_in);
    s->op.matrix_close(s, h->conv_out);
    tt_conv_norm_close(&h->norm_out, s);
    for (int i = 0; i < MAX_BLOCKS; i++)
        tt_conv_block_close(&h->mid[i], s);
    for (int l = 0; l < MAX_LEVELS; l++) {
        s->op.matrix_close(s, h->up[l]);
        for (int i = 0; i < MAX_BLOCKS; i++)
            tt_conv_block_close(&h->level[l][i], s);
    }
}

static void vqgan_close(tt_codec *c)
{
    vqgan *v = (vqgan *)c;
    tt_stream *s = c->stream;
    close_half(s, &v->encoder);
    close_half(s, &v->decoder);
    s->op.matrix_close(s, v->table);
    s->op.release(s, v->code);
    s->op.release(s, v->space);
    free(v->code_host);
    free(v->half);
    free(v);
}

static tt_status check_device(tt_stream *s, tt_err *e)
{
    tt_status st = TT_BIND_NEED(s, conv3x3, e);
    if (!st)
        st = TT_BIND_NEED(s, group_norm, e);
    if (!st)
        st = TT_BIND_NEED(s, average_pool, e);
    return st ? st : TT_BIND_NEED(s, nearest, e);
}

static tt_status bind_all(vqgan *v, tt_stream *s, const tt_weights *w, tt_weights_mode mode,
                          tt_err *e)
{
    static const char *const sample = "decoder.mid.block_1.conv1.weight";
    static const char *const other = "decoder.mid.0.conv1.weight";
    bool counted = tt_weights_has(w, other);
    tt_bind b = {s, w, tt_bind_exact(s)};
    v->base.info.reading = b.compute;
    v->mids = counted ? v->blocks : 2;
    v->encoder.act = TT_F32;
    s->act = TT_F32;
    tt_status st = bind_encoder(v, &b, counted, e);
    if (!st)
        st = tt_bind_choose(&b.compute, s, w, counted ? other : sample, mode, e);
    if (st)
        return st;
    v->decoder.act = s->op.act_type ? s->op.act_type(s, b.compute) : TT_F32;
    st = bind_decoder(v, &b, counted, e);
    v->base.info.products = b.compute;
    v->base.info.compute = tt_bind_text(w, counted ? other : sample, b.compute);
    return st ? st : bind_codes(v, &b, e);
}

static void count_macs(vqgan *v)
{
    tt_codec_info *info = &v->base.info;
    double z = (double)v->z, coarse = (double)v->width[v->levels - 1];
    double pixels = (double)info->width * info->height, tokens = info->layout.tokens;
    info->encode_macs = pixels * 27 * (double)v->width[0] + tokens * coarse * z;
    info->decode_macs = tokens * 9 * z * coarse + pixels * 27 * (double)v->width[0];
    for (int64_t l = 0; l < v->levels; l++) {
        double area = pixels / (double)((int64_t)1 << 2 * l), wide = (double)v->width[l];
        for (int64_t i = 0; i < v->blocks; i++) {
            info->encode_macs += area * tt_conv_block_macs(&v->encoder.level[l][i]);
            info->decode_macs += area * tt_conv_block_macs(&v->decoder.level[l][i]);
        }
        info->decode_macs += l ? 4 * area * 9 * wide * wide : 0; /* enlarging */
    }
    for (int64_t i = 0; i < v->mids; i++) {
        info->encode_macs += tokens * tt_conv_block_macs(&v->encoder.mid[i]);
        info->decode_macs += tokens * tt_conv_block_macs(&v->decoder.mid[i]);
    }
}

static tt_status vqgan_open(tt_codec **out, tt_stream *s, const tt_weights *w, tt_config *c,
                            tt_weights_mode mode, tt_err *e)
{
    vqgan *v = calloc(1, sizeof *v);
    *out = NULL;
    if (!v)
        return tt_fail(e, TT_ENOMEM, "no memory for a codec");
    v->base = (tt_codec){.def = &tt_codec_vqgan, .stream = s};
    tt_status st = check_device(s, e);
    if (!st)
        st = read_config(v, c, e);
    if (!st)
        st = bind_all(v, s, w, mode, e);
    if (st) {
        vqgan_close(&v->base);
        return st;
    }
    count_macs(v);
    v->base.info.parameters = tt_weights_elements(w);
    v->base.info.weight_bytes = tt_weights_bytes(w);
    *out = &v->base;
    return TT_OK;
}

/* --- running --- */

static tt_status run_blocks(tt_conv_flow *f, const tt_conv_block *list, int64_t n, tt_err *e)
{
    tt_status st = TT_OK;
    for (int64_t i = 0; i < n && !st; i++)
        st = tt_conv_run_block(f, &list[i], e);
    return st;
}

static tt_status pool(tt_conv_flow *f, tt_err *e)
{
    tt_image_shape shape = {f->images, f->height, f->width, f->channels, false};
    tt_status st = f->stream->op.average_pool(f->stream, f->h, f->channels, f->x, f->channels,
                                              &shape, e);
    f->height /= 2;
    f->width /= 2;
    tt_conv_swap(f);
    return st;
}

/* From pixels in h to latents in t. */
static tt_status run_encoder(const vqgan *v, tt_conv_flow *f, tt_err *e)
{
    const network *h = &v->encoder;
    tt_status st = tt_conv_run(f, h->conv_in, 3, v->width[0], e);
    for (int64_t l = 0; l < v->levels && !st; l++) {
        st = run_blocks(f, h->level[l], v->blocks, e);
        if (!st && l < v->levels - 1)
            st = pool(f, e);
    }
    if (!st)
        st = run_blocks(f, h->mid, v->mids, e);
    if (!st)
        st = tt_conv_normalise(f, &h->norm_out, true, e);
    return st ? st
              : f->stream->op.linear(f->stream, f->t, v->z, f->h, h->out, tt_conv_pixels(f),
                                     h->conv_out, false, e);
}

/* From latents in h to pixels in x. */
static tt_status run_decoder(const vqgan *v, tt_conv_flow *f, tt_err *e)
{
    const network *h = &v->decoder;
    tt_status st = tt_conv_run(f, h->conv_in, v->z, v->width[v->levels - 1], e);
    if (!st)
        st = run_blocks(f, h->mid, v->mids, e);
    for (int64_t l = v->levels - 1; l >= 0 && !st; l--) {
        st = run_blocks(f, h->level[l], v->blocks, e);
        if (!st && l)
            st = tt_conv_enlarge(f, h->up[l], e);
    }
    if (!st)
        st = tt_conv_normalise(f, &h->norm_out, true, e);
    return st ? st : tt_conv_run(f, h->conv_out, h->out, 3, e);
}

/* --- images in turns --- */

/* Numbers of one buffer per image: the most any stage holds. */
static int64_t most_numbers(const vqgan *v)
{
    int64_t side = v->base.info.width, most = side * side * 3;
    for (int64_t l = 0; l < v->levels; l++) {
        int64_t pixels = (side >> l) * (side >> l), wide = v->width[l];
        /* A level's first block takes the channels of its neighbour; enlarged, a level has the
         * pixels of the one before. */
        if (l && v->width[l - 1] > wide)
            wide = v->width[l - 1];
        if (l + 1 < v->levels && v->width[l + 1] > wide)
            wide = v->width[l + 1];
        if (l == v->levels - 1 && v->z > wide)
            wide = v->z;
        most = pixels * wide > most ? pixels * wide : most;
    }
    return most;
}

static size_t bytes_of(const vqgan *v, int64_t images)
{
    size_t rows = (size_t)(images * v->base.info.layout.tokens);
    /* Each part begins at a multiple of 256 bytes. */
    return 3 * (((size_t)(images * most_numbers(v)) * 4 + 255) & ~(size_t)255) + rows * 12 + 1024;
}

/* Images at a time: on a CPU few, so that they stay cached. */
static int64_t turn_of(const vqgan *v, int64_t images)
{
    size_t most = v->base.stream->op.flags & TT_BACKEND_HOST ? (size_t)64 << 20 : (size_t)3 << 30;
    int64_t n = (int64_t)(most / bytes_of(v, 1));
    n = n < 1 ? 1 : n;
    return n < images ? n : images;
}

static size_t vqgan_bytes(const tt_codec *c, int64_t images)
{
    const vqgan *v = (const vqgan *)c;
    return images ? bytes_of(v, turn_of(v, images)) : 0;
}

typedef struct {
    tt_conv_flow f;
    int32_t *id;
    float *distance;
} turn;

static tt_status reserve(vqgan *v, int64_t images, int64_t side, turn *out, tt_err *e)
{
    tt_stream *s = v->base.stream;
    size_t need = bytes_of(v, images);
    if (need > v->space_bytes) {
        s->op.release(s, v->space);
        v->space = NULL;
        v->space_bytes = 0;
        tt_status st = s->op.alloc(s, &v->space, need, e);
        if (st)
            return tt_context(e, st, "working memory of %lld images", (long long)images);
        v->space_bytes = need;
    }
    size_t buffer = ((size_t)(images * most_numbers(v)) * 4 + 255) & ~(size_t)255;
    char *at = v->space;
    int64_t rows = images * v->base.info.layout.tokens;
    out->f = (tt_conv_flow){.stream = s, .x = at, .h = at + buffer, .t = at + 2 * buffer,
                            .images = images, .height = side, .width = side, .groups = v->groups,
                            .eps = epsilon};
    out->distance = (float *)(void *)(at + 3 * buffer);
    out->id = (int32_t *)(void *)(out->distance + 2 * rows);
    return TT_OK;
}

static tt_status encode_turn(vqgan *v, int32_t *id, float *latent, tt_code_distance *distance,
                             const float *pixels, int64_t images, tt_err *e)
{
    turn t;
    tt_stream *s = v->base.stream;
    const tt_codec_info *info = &v->base.info;
    int64_t rows = images * info->layout.tokens;
    tt_status st = reserve(v, images, info->width, &t, e);
    if (!st)
        st = s->op.upload(s, t.f.h, pixels, (size_t)(tt_conv_pixels(&t.f) * 3) * sizeof *pixels, e);
    if (!st)
        st = run_encoder(v, &t.f, e);
    if (!st)
        st = s->op.nearest(s, t.id, t.distance, t.f.t, v->z, rows, v->code, info->layout.codes,
                           v->z, e);
    if (!st)
        st = s->op.download(s, id, t.id, (size_t)rows * sizeof *id, e);
    if (!st && latent)
        st = s->op.download(s, latent, t.f.t, (size_t)(rows * v->z) * sizeof *latent, e);
    if (!st && distance)
        st = s->op.download(s, distance, t.distance, (size_t)rows * sizeof *distance, e);
    return st ? st : s->op.sync(s, e);
}

static tt_status vqgan_encode(tt_codec *c, int32_t *id, float *latent, tt_code_distance *distance,
                              const float *pixels, int64_t images, tt_err *e)
{
    vqgan *v = (vqgan *)c;
    int64_t tokens = c->info.layout.tokens, numbers = (int64_t)c->info.width * c->info.height * 3;
    int64_t most = turn_of(v, images);
    tt_status st = TT_OK;
    c->stream->act = v->encoder.act;
    for (int64_t i = 0; i < images && !st; i += most) {
        int64_t n = images - i < most ? images - i : most;
        st = encode_turn(v, id + i * tokens, latent ? latent + i * tokens * v->z : NULL,
                         distance ? distance + i * tokens : NULL, pixels + i * numbers, n, e);
    }
    return st;
}

typedef struct {
    float *out;
    const uint16_t *in; /* bfloat16 */
    int64_t n, run;
} widen_job;

static void widen_run(void *arg, int64_t i, int thread)
{
    const widen_job *job = arg;
    (void)thread;
    int64_t end = (i + 1) * job->run < job->n ? (i + 1) * job->run : job->n;
    for (int64_t k = i * job->run; k < end; k++)
        job->out[k] = tt_bf16_to_f32(job->in[k]);
}

/* From ids to pixels in x. */
static tt_status run_ids(const vqgan *v, turn *t, const int32_t *id, int64_t rows, tt_err *e)
{
    tt_stream *s = t->f.stream;
    tt_status st = s->op.upload(s, t->id, id, (size_t)rows * sizeof *id, e);
    if (!st)
        st = s->op.embed(s, t->f.h, v->z, v->table, t->id, rows, e);
    return st ? st : run_decoder(v, &t->f, e);
}

/* The same number of images makes the same pass, which is recorded. */
static tt_status run_recorded(const vqgan *v, turn *t, const int32_t *id, int64_t rows, tt_err *e)
{
    tt_stream *s = t->f.stream;
    if (!s->op.pass_begin)
        return run_ids(v, t, id, rows, e);
    const int64_t key[] = {(int64_t)(intptr_t)v, (int64_t)(intptr_t)v->space, rows};
    tt_status st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
    /* Which buffer is which changes on the way, recorded or not. */
    return st ? st : s->op.pass_end(s, run_ids(v, t, id, rows, e), e);
}

/* Host memory for pixels as the device has them. */
static tt_status reserve_half(vqgan *v, int64_t numbers, tt_err *e)
{
    if (numbers <= v->half_numbers)
        return TT_OK;
    free(v->half);
    v->half = malloc((size_t)numbers * sizeof *v->half);
    v->half_numbers = v->half ? numbers : 0;
    return v->half ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %lld numbers of pixels",
                                     (long long)numbers);
}

static tt_status decode_turn(vqgan *v, float *pixels, const int32_t *id, int64_t images, tt_err *e)
{
    turn t;
    tt_stream *s = v->base.stream;
    int64_t rows = images * v->base.info.layout.tokens;
    int64_t numbers = images * v->base.info.width * v->base.info.height * 3;
    bool narrow = v->decoder.act == TT_BF16;
    tt_status st = reserve(v, images, v->base.info.width >> (v->levels - 1), &t, e);
    if (!st && narrow)
        st = reserve_half(v, numbers, e);
    if (!st)
        st = run_recorded(v, &t, id, rows, e);
    if (!st)
        st = s->op.download(s, narrow ? (void *)v->half : pixels, t.f.x,
                            (size_t)numbers * tt_dtype_size(v->decoder.act), e);
    if (!st)
        st = s->op.sync(s, e);
    widen_job job = {pixels, v->half, numbers, 1 << 14};
    if (!st && narrow)
        tt_pool_run(s->pool, (numbers + job.run - 1) / job.run, widen_run, &job);
    return st;
}

static tt_status vqgan_decode(tt_codec *c, float *pixels, const int32_t *id, const int32_t *keep,
                              int64_t images, tt_err *e)
{
    vqgan *v = (vqgan *)c;
    int64_t tokens = c->info.layout.tokens, numbers = (int64_t)c->info.width * c->info.height * 3;
    int64_t most = turn_of(v, images);
    tt_status st = TT_OK;
    (void)keep; /* all of them: the caller has checked */
    c->stream->act = v->decoder.act;
    for (int64_t i = 0; i < images && !st; i += most) {
        int64_t n = images - i < most ? images - i : most;
        st = decode_turn(v, pixels + i * numbers, id + i * tokens, n, e);
    }
    return st;
}

static tt_status vqgan_embed(tt_codec *c, float *latent, const int32_t *id, int64_t images,
                             tt_err *e)
{
    const vqgan *v = (const vqgan *)c;
    (void)e;
    for (int64_t i = 0; i < images * c->info.layout.tokens; i++)
        memcpy(latent + i * v->z, v->code_host + id[i] * v->z, (size_t)v->z * sizeof *latent);
    return TT_OK;
}

static const char *const architectures[] = {"VQGAN", "vqgan_f_avgpool", "maskgit-vqgan", NULL};

const tt_codec_def tt_codec_vqgan = {
    .family = "VQGAN",
    .summary = "convolutional codec with one codebook, a token for every window of pixels",
    .source = "MaskGIT, arXiv 2202.04200, and its released ports",
    .architectures = architectures,
    .open = vqgan_open,
    .close = vqgan_close,
    .encode = vqgan_encode,
    .decode = vqgan_decode,
    .embed = vqgan_embed,
    .bytes = vqgan_bytes,
};
