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

#include "models/nn/bind.h"
#include "tokenizers/image.h"

enum { MAX_LEVELS = 8, MAX_BLOCKS = 8 };
static const float epsilon = 1e-6f;

typedef struct {
    float *weight, *bias;
} norm;

typedef struct {
    int64_t in, out;
    norm norm1, norm2;
    tt_matrix *conv1, *conv2, *shortcut; /* shortcut: NULL where in is out */
} block;

/* Encoder or decoder. */
typedef struct {
    tt_matrix *conv_in, *conv_out;
    block mid[MAX_BLOCKS], level[MAX_LEVELS][MAX_BLOCKS];
    tt_matrix *up[MAX_LEVELS]; /* of the decoder, from level 1 on */
    norm norm_out;
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

static tt_status bind_norm(const tt_bind *b, norm *out, const char *prefix, int64_t n, tt_err *e)
{
    tt_status st = tt_bind_vector(b, &out->weight, join(prefix, ".weight").text, n, e);
    return st ? st : tt_bind_vector(b, &out->bias, join(prefix, ".bias").text, n, e);
}

static tt_status bind_block(const tt_bind *b, block *k, const char *prefix, int64_t in, int64_t out,
                            tt_err *e)
{
    k->in = in;
    k->out = out;
    tt_status st = bind_norm(b, &k->norm1, join(prefix, ".norm1").text, in, e);
    if (!st)
        st = tt_bind_conv3x3(b, &k->conv1, join(prefix, ".conv1.weight").text, out, in, NULL, e);
    if (!st)
        st = bind_norm(b, &k->norm2, join(prefix, ".norm2").text, out, e);
    if (!st)
        st = tt_bind_conv3x3(b, &k->conv2, join(prefix, ".conv2.weight").text, out, out, NULL, e);
    if (st || in == out)
        return st;
    name shortcut = join(prefix, ".nin_shortcut.weight");
    return tt_bind_matrix(b, &k->shortcut, &(tt_bind_part){shortcut.text, out, NULL}, 1, out,
                          TT_MATRIX_LINEAR, e);
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
        st = bind_block(b, &h->mid[i], n.text, width, width, e);
    }
    return st;
}

static tt_status bind_ends(const tt_bind *b, network *h, const char *side, int64_t in,
                           int64_t first, bool in_bias, tt_err *e)
{
    name bias = join(side, ".conv_in.bias");
    tt_status st = tt_bind_conv3x3(b, &h->conv_in, join(side, ".conv_in.weight").text, first, in,
                                   in_bias ? bias.text : NULL, e);
    return st ? st : bind_norm(b, &h->norm_out, join(side, ".norm_out").text, h->out, e);
}

static tt_status bind_encoder(vqgan *v, const tt_bind *b, bool counted, tt_err *e)
{
    network *h = &v->encoder;
    int64_t in = v->width[0];
    h->out = v->width[v->levels - 1];
    tt_status st = bind_ends(b, h, "encoder", 3, in, false, e);
    for (int l = 0; l < v->levels; l++)
        for (int i = 0; i < v->blocks && !st; i++) {
            name n;
            snprintf(n.text, sizeof n.text, "encoder.down.%d.block.%d", l, i);
            st = bind_block(b, &h->level[l][i], n.text, in, v->width[l], e);
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
    tt_status st = bind_ends(b, h, "decoder", v->z, in, true, e);
    if (!st)
        st = bind_mid(v, b, h, "decoder", counted, e);
    for (int l = (int)v->levels - 1; l >= 0; l--) {
        name n;
        for (int i = 0; i < v->blocks && !st; i++) {
            snprintf(n.text, sizeof n.text, "decoder.up.%d.block.%d", l, i);
            st = bind_block(b, &h->level[l][i], n.text, in, v->width[l], e);
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

static void close_block(tt_stream *s, const block *k)
{
    float *const numbers[] = {k->norm1.weight, k->norm1.bias, k->norm2.weight, k->norm2.bias};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        s->op.release(s, numbers[i]);
    s->op.matrix_close(s, k->conv1);
    s->op.matrix_close(s, k->conv2);
    s->op.matrix_close(s, k->shortcut);
}

static void close_half(tt_stream *s, const network *h)
{
    s->op.matrix_close(s, h->conv_in);
    s->op.matrix_close(s, h->conv_out);
    s->op.release(s, h->norm_out.weight);
    s->op.release(s, h->norm_out.bias);
    for (int i = 0; i < MAX_BLOCKS; i++)
        close_block(s, &h->mid[i]);
    for (int l = 0; l < MAX_LEVELS; l++) {
        s->op.matrix_close(s, h->up[l]);
        for (int i = 0; i < MAX_BLOCKS; i++)
            close_block(s, &h->level[l][i]);
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
    tt_bind b = {s, w, TT_COMPUTE_F32};
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

/* Multiply-adds per pixel of a block. */
static double block_macs(const block *k)
{
    double in = (double)k->in, out = (double)k->out;
    return 9 * out * (in + out) + (k->shortcut ? out * out : 0);
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
            info->encode_macs += area * block_macs(&v->encoder.level[l][i]);
            info->decode_macs += area * block_macs(&v->decoder.level[l][i]);
        }
        info->decode_macs += l ? 4 * area * 9 * wide * wide : 0; /* enlarging */
    }
    for (int64_t i = 0; i < v->mids; i++) {
        info->encode_macs += tokens * block_macs(&v->encoder.mid[i]);
        info->decode_macs += tokens * block_macs(&v->decoder.mid[i]);
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

/* Images on their way through: x holds `channels` numbers per pixel, h and t are spare. */
typedef struct {
    vqgan *v;
    tt_stream *s;
    tt_act *x, *h, *t;
    int64_t images, side, channels; /* side: pixels now */
} flow;

static int64_t pixels_of(const flow *f)
{
    return f->images * f->side * f->side;
}

static void swap(tt_act **a, tt_act **b)
{
    tt_act *c = *a;
    *a = *b;
    *b = c;
}

static tt_status convolve(const flow *f, tt_act *y, int64_t out, const tt_act *x, int64_t in,
                          const tt_matrix *w, bool up, bool add, tt_err *e)
{
    int64_t side = up ? 2 * f->side : f->side;
    tt_image_shape shape = {f->images, side, side, in, up};
    return f->s->op.conv3x3(f->s, y, out, x, in, &shape, w, add, e);
}

static tt_status normalise(const flow *f, tt_act *y, const tt_act *x, const norm *n,
                           int64_t channels, tt_err *e)
{
    return f->s->op.group_norm(f->s, y, channels, x, channels, n->weight, n->bias, f->images,
                               f->side * f->side, channels, f->v->groups, epsilon, true, e);
}

static tt_status run_block(flow *f, const block *k, tt_err *e)
{
    tt_status st = normalise(f, f->h, f->x, &k->norm1, k->in, e);
    if (!st)
        st = convolve(f, f->t, k->out, f->h, k->in, k->conv1, false, false, e);
    if (!st)
        st = normalise(f, f->t, f->t, &k->norm2, k->out, e);
    if (st)
        return st;
    if (!k->shortcut)
        return convolve(f, f->x, k->out, f->t, k->out, k->conv2, false, true, e);
    int64_t n = pixels_of(f);
    f->channels = k->out;
    st = convolve(f, f->h, k->out, f->t, k->out, k->conv2, false, false, e);
    if (!st)
        st = f->s->op.linear(f->s, f->x, k->out, f->h, k->out, n, k->shortcut, false, e);
    return st ? st : f->s->op.add(f->s, f->x, k->out, f->h, k->out, n, k->out, e);
}

static tt_status run_blocks(flow *f, const block *list, int64_t n, tt_err *e)
{
    tt_status st = TT_OK;
    for (int64_t i = 0; i < n && !st; i++)
        st = run_block(f, &list[i], e);
    return st;
}

static tt_status pool(flow *f, tt_err *e)
{
    tt_image_shape shape = {f->images, f->side, f->side, f->channels, false};
    tt_status st = f->s->op.average_pool(f->s, f->h, f->channels, f->x, f->channels, &shape, e);
    f->side /= 2;
    swap(&f->x, &f->h);
    return st;
}

static tt_status enlarge(flow *f, const tt_matrix *w, tt_err *e)
{
    tt_status st = convolve(f, f->h, f->channels, f->x, f->channels, w, true, false, e);
    f->side *= 2;
    swap(&f->x, &f->h);
    return st;
}

/* From pixels in h to latents in t. */
static tt_status run_encoder(flow *f, tt_err *e)
{
    const vqgan *v = f->v;
    const network *h = &v->encoder;
    f->channels = v->width[0];
    tt_status st = convolve(f, f->x, f->channels, f->h, 3, h->conv_in, false, false, e);
    for (int64_t l = 0; l < v->levels && !st; l++) {
        st = run_blocks(f, h->level[l], v->blocks, e);
        f->channels = v->width[l];
        if (!st && l < v->levels - 1)
            st = pool(f, e);
    }
    if (!st)
        st = run_blocks(f, h->mid, v->mids, e);
    if (!st)
        st = normalise(f, f->h, f->x, &h->norm_out, h->out, e);
    return st ? st
              : f->s->op.linear(f->s, f->t, v->z, f->h, h->out, pixels_of(f), h->conv_out, false,
                                e);
}

/* From latents in h to pixels in t. */
static tt_status run_decoder(flow *f, tt_err *e)
{
    const vqgan *v = f->v;
    const network *h = &v->decoder;
    f->channels = v->width[v->levels - 1];
    tt_status st = convolve(f, f->x, f->channels, f->h, v->z, h->conv_in, false, false, e);
    if (!st)
        st = run_blocks(f, h->mid, v->mids, e);
    for (int64_t l = v->levels - 1; l >= 0 && !st; l--) {
        st = run_blocks(f, h->level[l], v->blocks, e);
        f->channels = v->width[l];
        if (!st && l)
            st = enlarge(f, h->up[l], e);
    }
    if (!st)
        st = normalise(f, f->h, f->x, &h->norm_out, h->out, e);
    return st ? st : convolve(f, f->t, 3, f->h, h->out, h->conv_out, false, false, e);
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
    flow f;
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
    out->f = (flow){v, s, at, at + buffer, at + 2 * buffer, images, side, 0};
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
        st = s->op.upload(s, t.f.h, pixels, (size_t)(pixels_of(&t.f) * 3) * sizeof *pixels, e);
    if (!st)
        st = run_encoder(&t.f, e);
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

static tt_status decode_turn(vqgan *v, float *pixels, const int32_t *id, int64_t images, tt_err *e)
{
    turn t;
    tt_stream *s = v->base.stream;
    int64_t rows = images * v->base.info.layout.tokens;
    tt_status st = reserve(v, images, v->base.info.width >> (v->levels - 1), &t, e);
    if (!st)
        st = s->op.upload(s, t.id, id, (size_t)rows * sizeof *id, e);
    if (!st)
        st = s->op.embed(s, t.f.h, v->z, v->table, t.id, rows, e);
    if (!st)
        st = run_decoder(&t.f, e);
    int64_t numbers = pixels_of(&t.f) * 3;
    bool narrow = v->decoder.act == TT_BF16;
    uint16_t *half = narrow ? malloc((size_t)numbers * sizeof *half) : NULL;
    if (!st && narrow && !half)
        st = tt_fail(e, TT_ENOMEM, "no memory for %lld images", (long long)images);
    if (!st)
        st = s->op.download(s, narrow ? (void *)half : pixels, t.f.t,
                            (size_t)numbers * tt_dtype_size(v->decoder.act), e);
    if (!st)
        st = s->op.sync(s, e);
    widen_job job = {pixels, half, numbers, 1 << 14};
    if (!st && narrow)
        tt_pool_run(s->pool, (numbers + job.run - 1) / job.run, widen_run, &job);
    free(half);
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
