/* Image codecs: the VQGAN against plain loops over the same tensors, masks, pictures of other
 * sizes.
 *
 * What can go wrong: a shortcut from the wrong side, levels in the wrong order, either spelling of
 * tensor names, a neighbour image that shows, a mask's windows off by one at the border, a picture
 * that is stretched, hostile sizes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "tests/models/checkpoint.h"
#include "tokenizers/image.h"

enum { SIDE = 8, GRID = 4, TOKENS = 16, CH = 32, Z = 5, CODES = 9, LEVELS = 2 };
static const int width_of[LEVELS] = {CH, 2 * CH};

static const char config_text[] =
    "{\"architectures\":[\"VQGAN\"],\"n_embed\":9,\"embed_dim\":5,\"ddconfig\":{\"ch\":32,"
    "\"ch_mult\":[1,2],\"num_res_blocks\":1,\"z_channels\":5,\"resolution\":8,\"in_channels\":3,"
    "\"out_ch\":3,\"attn_resolutions\":[16],\"dropout\":0.0,\"double_z\":false}}";

/* --- tensors --- */

static void add(checkpoint *c, const char *a, const char *b, int rank, int n, int k, int side)
{
    char text[80];
    snprintf(text, sizeof text, "%s%s", a, b);
    checkpoint_add(c, text, rank, n, k, side, side);
}
static void add_block(checkpoint *c, const char *name, int in, int out)
{
    add(c, name, ".norm1.weight", 1, in, 0, 0);
    add(c, name, ".norm1.bias", 1, in, 0, 0);
    add(c, name, ".norm2.weight", 1, out, 0, 0);
    add(c, name, ".norm2.bias", 1, out, 0, 0);
    add(c, name, ".conv1.weight", 4, out, in, 3);
    add(c, name, ".conv2.weight", 4, out, out, 3);
    if (in != out)
        add(c, name, ".nin_shortcut.weight", 4, out, out, 1);
}

/* counted: the port that numbers its middle from 0. */
static void list_tensors(checkpoint *c, bool counted)
{
    const char *first = counted ? "mid.0" : "mid.block_1", *second = counted ? NULL : "mid.block_2";
    char text[60];
    for (int side = 0; side < 2; side++) {
        const char *name = side ? "decoder" : "encoder";
        snprintf(text, sizeof text, "%s.%s", name, first);
        add_block(c, text, 2 * CH, 2 * CH);
        snprintf(text, sizeof text, "%s.%s", name, second ? second : first);
        if (second)
            add_block(c, text, 2 * CH, 2 * CH);
        int out = side ? CH : 2 * CH;
        add(c, name, ".norm_out.weight", 1, out, 0, 0);
        add(c, name, ".norm_out.bias", 1, out, 0, 0);
    }
    add(c, "encoder.conv_in.weight", "", 4, CH, 3, 3);
    add(c, "encoder.conv_out.weight", "", 4, Z, 2 * CH, 1);
    add(c, "encoder.conv_out.bias", "", 1, Z, 0, 0);
    add_block(c, "encoder.down.0.block.0", CH, CH);
    add_block(c, "encoder.down.1.block.0", CH, 2 * CH);
    add(c, "decoder.conv_in.weight", "", 4, 2 * CH, Z, 3);
    add(c, "decoder.conv_in.bias", "", 1, 2 * CH, 0, 0);
    add(c, "decoder.conv_out.weight", "", 4, 3, CH, 3);
    add(c, "decoder.conv_out.bias", "", 1, 3, 0, 0);
    add_block(c, "decoder.up.1.block.0", 2 * CH, 2 * CH);
    add_block(c, "decoder.up.0.block.0", 2 * CH, CH);
    const char *up = counted ? "decoder.up.1.upsample_conv" : "decoder.up.1.upsample.conv";
    add(c, up, ".weight", 4, 2 * CH, 2 * CH, 3);
    add(c, up, ".bias", 1, 2 * CH, 0, 0);
    add(c, "quantize.embedding.weight", "", 2, CODES, Z, 0);
}

/* --- the codec by plain loops, one image: x[channel][row][column] --- */

typedef struct {
    int c, side;
    double x[2 * CH][SIDE][SIDE];
} map;

static const checkpoint *tensors;
static bool counted_names;
static int groups = 32;

static const float *tensor(const char *a, const char *b)
{
    char text[100];
    snprintf(text, sizeof text, "%s%s", a, b);
    return checkpoint_at(tensors, text);
}

static map conv(const map *m, const char *name, int out, int kernel, bool bias)
{
    static map y;
    const float *w = tensor(name, ".weight"), *b = bias ? tensor(name, ".bias") : NULL;
    int half = kernel / 2;
    y.c = out;
    y.side = m->side;
    for (int j = 0; j < out; j++)
        for (int r = 0; r < m->side; r++)
            for (int k = 0; k < m->side; k++) {
                double sum = b ? b[j] : 0;
                for (int i = 0; i < m->c; i++)
                    for (int u = 0; u < kernel; u++)
                        for (int v = 0; v < kernel; v++) {
                            int rr = r + u - half, kk = k + v - half;
                            if (rr >= 0 && rr < m->side && kk >= 0 && kk < m->side)
                                sum += m->x[i][rr][kk] *
                                       w[((j * m->c + i) * kernel + u) * kernel + v];
                        }
                y.x[j][r][k] = sum;
            }
    return y;
}

static map norm(const map *m, const char *name)
{
    map y = *m;
    const float *w = tensor(name, ".weight"), *b = tensor(name, ".bias");
    int wide = m->c / groups, area = m->side * m->side;
    for (int g = 0; g < groups; g++) {
        double mean = 0, var = 0, n = wide * area;
        for (int i = 0; i < wide * area; i++)
            mean += m->x[g * wide + i / area][i % area / m->side][i % m->side] / n;
        for (int i = 0; i < wide * area; i++)
            var += pow(m->x[g * wide + i / area][i % area / m->side][i % m->side] - mean, 2) / n;
        for (int i = 0; i < wide * area; i++) {
            int h = g * wide + i / area;
            double *v = &y.x[h][i % area / m->side][i % m->side];
            *v = (*v - mean) / sqrt(var + 1e-6) * w[h] + b[h];
            *v /= 1 + exp(-*v);
        }
    }
    return y;
}

static map sum(const map *a, const map *b)
{
    map y = *a;
    for (int i = 0; i < a->c; i++)
        for (int r = 0; r < a->side; r++)
            for (int k = 0; k < a->side; k++)
                y.x[i][r][k] += b->x[i][r][k];
    return y;
}

static map block(const map *m, const char *name, int out)
{
    char part[4][80];
    static const char *const end[] = {".norm1", ".conv1", ".norm2", ".conv2"};
    for (int i = 0; i < 4; i++)
        snprintf(part[i], sizeof part[i], "%s%s", name, end[i]);
    map h = norm(m, part[0]);
    h = conv(&h, part[1], out, 3, false);
    h = norm(&h, part[2]);
    h = conv(&h, part[3], out, 3, false);
    if (m->c == out)
        return sum(m, &h);
    snprintf(part[0], sizeof part[0], "%s.nin_shortcut", name);
    map s = conv(&h, part[0], out, 1, false);
    return sum(&s, &h);
}

static map middle(map m, const char *side)
{
    char text[60];
    for (int i = 0; i < (counted_names ? 1 : 2); i++) {
        if (counted_names)
            snprintf(text, sizeof text, "%s.mid.%d", side, i);
        else
            snprintf(text, sizeof text, "%s.mid.block_%d", side, i + 1);
        m = block(&m, text, m.c);
    }
    return m;
}

static map encode(const float *rgb)
{
    map m = {.c = 3, .side = SIDE};
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        m.x[i % 3][i / 3 / SIDE][i / 3 % SIDE] = rgb[i];
    m = conv(&m, "encoder.conv_in", CH, 3, false);
    m = block(&m, "encoder.down.0.block.0", CH);
    map half = {.c = m.c, .side = SIDE / 2};
    for (int i = 0; i < m.c; i++)
        for (int r = 0; r < half.side; r++)
            for (int k = 0; k < half.side; k++)
                half.x[i][r][k] = (m.x[i][2 * r][2 * k] + m.x[i][2 * r][2 * k + 1] +
                                   m.x[i][2 * r + 1][2 * k] + m.x[i][2 * r + 1][2 * k + 1]) / 4;
    m = block(&half, "encoder.down.1.block.0", 2 * CH);
    m = middle(m, "encoder");
    m = norm(&m, "encoder.norm_out");
    return conv(&m, "encoder.conv_out", Z, 1, true);
}

static map decode(const int32_t *id)
{
    map m = {.c = Z, .side = GRID};
    const float *code = tensor("quantize.embedding.weight", "");
    for (int i = 0; i < TOKENS * Z; i++)
        m.x[i % Z][i / Z / GRID][i / Z % GRID] = code[id[i / Z] * Z + i % Z];
    m = conv(&m, "decoder.conv_in", 2 * CH, 3, true);
    m = middle(m, "decoder");
    m = block(&m, "decoder.up.1.block.0", width_of[1]);
    map big = {.c = m.c, .side = SIDE};
    for (int i = 0; i < m.c; i++)
        for (int r = 0; r < SIDE; r++)
            for (int k = 0; k < SIDE; k++)
                big.x[i][r][k] = m.x[i][r / 2][k / 2];
    m = conv(&big, counted_names ? "decoder.up.1.upsample_conv" : "decoder.up.1.upsample.conv",
             2 * CH, 3, true);
    m = block(&m, "decoder.up.0.block.0", width_of[0]);
    m = norm(&m, "decoder.norm_out");
    return conv(&m, "decoder.conv_out", 3, 3, true);
}

/* --- the codec under test --- */

static tt_stream *stream;

typedef struct {
    checkpoint tensors;
    tt_config *config;
    tt_codec *codec;
} opened;

static tt_status open_codec(opened *o, const char *text, bool counted, const char *without,
                            tt_err *e)
{
    memset(o, 0, sizeof *o);
    list_tensors(&o->tensors, counted);
    tensors = &o->tensors;
    counted_names = counted;
    tt_status st = checkpoint_open(&o->tensors, without, 0.25f, e);
    if (!st)
        st = tt_config_open_text(&o->config, text, strlen(text), e);
    return st ? st
              : tt_codec_find("VQGAN")->open(&o->codec, stream, o->tensors.weights, o->config,
                                             TT_WEIGHTS_F32, e);
}
static void close_codec(opened *o)
{
    tt_codec_close(o->codec);
    tt_config_close(o->config);
    checkpoint_close(&o->tensors);
}

static void fill(float *rgb, int n, unsigned seed)
{
    for (int i = 0; i < n; i++)
        rgb[i] = (float)((seed = seed * 1103515245u + 12345u) >> 8 & 0xFFFF) / 65535.0f;
}

static void follows_plain_loops(const char *config, bool counted)
{
    enum { IMAGES = 3, NUMBERS = SIDE * SIDE * 3 };
    static opened o;
    static float rgb[IMAGES * NUMBERS], out[IMAGES * NUMBERS], one[NUMBERS];
    float latent[IMAGES * TOKENS * Z], alone[TOKENS * Z], code[TOKENS * Z];
    int32_t id[IMAGES * TOKENS], again[TOKENS];
    tt_code_distance distance[IMAGES * TOKENS];
    tt_err e = {0};
    if (open_codec(&o, config, counted, NULL, &e))
        fail_msg("%s", e.text);
    assert_int_equal(o.codec->info.width, SIDE);
    assert_int_equal(o.codec->info.layout.tokens, TOKENS);
    fill(rgb, IMAGES * NUMBERS, 5);
    assert_int_equal(tt_codec_encode(o.codec, id, latent, distance, rgb, IMAGES, &e), TT_OK);
    const float *table = checkpoint_at(&o.tensors, "quantize.embedding.weight");
    for (int i = 0; i < IMAGES; i++) {
        map want = encode(rgb + i * NUMBERS);
        for (int t = 0; t < TOKENS; t++) {
            double best = INFINITY;
            int at = -1;
            for (int k = 0; k < CODES; k++) {
                double d = 0;
                for (int z = 0; z < Z; z++)
                    d += pow(want.x[z][t / GRID][t % GRID] - table[k * Z + z], 2);
                at = d < best ? k : at;
                best = d < best ? d : best;
            }
            for (int z = 0; z < Z; z++)
                assert_float_equal(latent[(i * TOKENS + t) * Z + z], want.x[z][t / GRID][t % GRID],
                                   2e-4);
            assert_int_equal(id[i * TOKENS + t], at);
            assert_float_equal(distance[i * TOKENS + t].nearest, best, 1e-3 * best + 1e-5);
            assert_true(distance[i * TOKENS + t].second >= distance[i * TOKENS + t].nearest);
        }
        assert_int_equal(tt_codec_encode(o.codec, again, alone, NULL, rgb + i * NUMBERS, 1, &e), 0);
        assert_memory_equal(alone, latent + i * TOKENS * Z, sizeof alone);
    }
    for (int i = 0; i < IMAGES * TOKENS; i++)
        id[i] = i * 7 % CODES;
    assert_int_equal(tt_codec_decode(o.codec, out, id, NULL, IMAGES, &e), TT_OK);
    for (int i = 0; i < IMAGES; i++) {
        map want = decode(id + i * TOKENS);
        for (int p = 0; p < NUMBERS; p++) {
            double v = want.x[p % 3][p / 3 / SIDE][p / 3 % SIDE];
            assert_float_equal(out[i * NUMBERS + p], v < 0 ? 0 : v > 1 ? 1 : v, 2e-4);
        }
        assert_int_equal(tt_codec_decode(o.codec, one, id + i * TOKENS, NULL, 1, &e), TT_OK);
        assert_memory_equal(one, out + i * NUMBERS, sizeof one);
    }
    assert_int_equal(tt_codec_embed(o.codec, code, id, 1, &e), TT_OK);
    assert_memory_equal(code + Z, table + 7 * Z, Z * sizeof *code);
    close_codec(&o);
}

static void both_ports_are_those_of_plain_loops(void **state)
{
    (void)state;
    follows_plain_loops(config_text, false);
    follows_plain_loops(config_text, true);
}

static void fewer_groups_are_those_of_plain_loops(void **state)
{
    (void)state;
    char text[sizeof config_text + 40];
    size_t n = sizeof config_text - 3; /* before both braces */
    snprintf(text, sizeof text, "%.*s,\"norm_groups\":8}}", (int)n, config_text);
    groups = 8;
    follows_plain_loops(text, false);
    groups = 32;
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    static opened o;
    static float rgb[SIDE * SIDE * 3];
    int32_t id[TOKENS] = {0}, keep = 4;
    tt_err e = {0};
    if (open_codec(&o, config_text, false, NULL, &e))
        fail_msg("%s", e.text);
    rgb[100] = 1.001f;
    assert_int_equal(tt_codec_encode(o.codec, id, NULL, NULL, rgb, 1, &e), TT_EINVAL);
    rgb[100] = NAN;
    assert_int_equal(tt_codec_encode(o.codec, id, NULL, NULL, rgb, 1, &e), TT_EINVAL);
    id[3] = CODES;
    assert_int_equal(tt_codec_decode(o.codec, rgb, id, NULL, 1, &e), TT_EINVAL);
    id[3] = -1;
    assert_int_equal(tt_codec_embed(o.codec, rgb, id, 1, &e), TT_EINVAL);
    id[3] = 0;
    assert_int_equal(tt_codec_decode(o.codec, rgb, id, &keep, 1, &e), TT_EUNSUP);
    keep = TOKENS;
    assert_int_equal(tt_codec_decode(o.codec, rgb, id, &keep, 1, &e), TT_OK);
    assert_int_equal(tt_codec_decode(o.codec, rgb, id, NULL, -1, &e), TT_EINVAL);
    assert_int_equal(tt_codec_decode(o.codec, rgb, id, NULL, 0, &e), TT_OK);
    assert_int_equal(tt_codec_decode(o.codec, rgb, id, NULL, INT64_MAX / 2, &e), TT_EINVAL);
    close_codec(&o);
}

static void broken(const char *text, const char *without, tt_status want, const char *word)
{
    static opened o;
    tt_err e = {0};
    assert_int_equal(open_codec(&o, text, false, without, &e), want);
    assert_null(o.codec);
    if (!strstr(e.text, word))
        fail_msg("'%s' does not name %s", e.text, word);
    close_codec(&o);
}

static void broken_folders_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const missing[] = {"encoder.conv_in.weight",
                                          "decoder.up.1.upsample.conv.bias",
                                          "encoder.down.1.block.0.nin_shortcut.weight",
                                          "decoder.mid.block_2.norm1.weight",
                                          "quantize.embedding.weight", NULL};
    for (const char *const *name = missing; *name; name++)
        broken(config_text, *name, TT_EFORMAT, *name);
    broken("{\"n_embed\":9}", NULL, TT_EFORMAT, "ddconfig");
    broken("{\"ddconfig\":{}}", NULL, TT_EFORMAT, "n_embed");
    broken("{\"n_embed\":9,\"ddconfig\":{\"ch\":32,\"ch_mult\":[1,2],\"num_res_blocks\":1,"
           "\"z_channels\":5,\"resolution\":9}}", NULL, TT_EFORMAT, "resolution");
    broken("{\"n_embed\":9,\"ddconfig\":{\"ch\":48,\"ch_mult\":[1,2],\"num_res_blocks\":1,"
           "\"z_channels\":5,\"resolution\":8}}", NULL, TT_EFORMAT, "norm_groups");
    broken("{\"n_embed\":9,\"ddconfig\":{\"ch\":32,\"ch_mult\":[1,2],\"num_res_blocks\":1,"
           "\"z_channels\":5,\"resolution\":8,\"in_channels\":4}}", NULL, TT_EUNSUP, "4");
    broken("{\"n_embed\":9,\"ddconfig\":{\"ch\":32,\"ch_mult\":[1,2],\"num_res_blocks\":2,"
           "\"z_channels\":5,\"resolution\":8}}", NULL, TT_EFORMAT, "block.1");
}

static void masks_cover_the_windows_they_touch(void **state)
{
    (void)state;
    static opened o;
    uint8_t mask[SIDE * SIDE] = {0}, token[TOKENS];
    tt_err e = {0};
    if (open_codec(&o, config_text, false, NULL, &e))
        fail_msg("%s", e.text);
    mask[1 * SIDE + 7] = 255; /* last column of the first row of windows */
    mask[4 * SIDE + 2] = 1;
    assert_int_equal(tt_codec_mask(o.codec, token, mask, false, &e), TT_OK);
    for (int i = 0; i < TOKENS; i++)
        assert_int_equal(token[i], i == 3 || i == 2 * GRID + 1);
    assert_int_equal(tt_codec_mask(o.codec, token, mask, true, &e), TT_OK);
    static const uint8_t grown[TOKENS] = {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 0};
    assert_memory_equal(token, grown, TOKENS);
    o.codec->info.spatial = false;
    assert_int_equal(tt_codec_mask(o.codec, token, mask, true, &e), TT_EUNSUP);
    close_codec(&o);
}

/* --- pictures --- */

static void pictures_are_covered_and_cut(void **state)
{
    (void)state;
    enum { W = 37, H = 20 };
    uint8_t rgb[W * H * 3];
    float out[8 * 8 * 3];
    tt_err e = {0};
    for (int i = 0; i < W * H; i++) /* red grows to the right, green is one colour */
        rgb[3 * i] = (uint8_t)(i % W * 6), rgb[3 * i + 1] = 51, rgb[3 * i + 2] = 255;
    assert_int_equal(tt_image_fit(out, 8, 8, rgb, W, H, &e), TT_OK);
    for (int i = 0; i < 64; i++) {
        assert_float_equal(out[3 * i + 1], 0.2, 1e-6);
        assert_float_equal(out[3 * i + 2], 1, 1e-6);
        /* 37 x 20 is halved to 18 x 10, becomes 14 x 8; the middle 8 of 14 columns are kept */
        double at = (i % 8 + 0.5 + 3) * W / 14.0 - 0.5;
        assert_float_equal(out[3 * i], at * 6 / 255, 0.03);
    }
    assert_int_equal(tt_image_fit(out, 4, 5, rgb, 4, 5, &e), TT_OK); /* as it is */
    for (int i = 0; i < 4 * 5 * 3; i++)
        assert_float_equal(out[i], rgb[i] / 255.0, 1e-7);
    assert_int_equal(tt_image_fit(out, 8, 8, rgb, 1, 1, &e), TT_OK); /* a pixel becomes all */
    for (int i = 0; i < 64; i++)
        assert_float_equal(out[3 * i + 1], 0.2, 1e-6);
}

static void halving_takes_means(void **state)
{
    (void)state;
    uint8_t rgb[8 * 8 * 3];
    float out[4 * 4 * 3];
    tt_err e = {0};
    for (int i = 0; i < 8 * 8 * 3; i++)
        rgb[i] = (uint8_t)((i / 3 % 2 + i / 24 % 2) * 100); /* 0 100 / 100 200 */
    assert_int_equal(tt_image_fit(out, 4, 4, rgb, 8, 8, &e), TT_OK);
    for (int i = 0; i < 48; i++)
        assert_float_equal(out[i], 100 / 255.0, 1e-6);
}

/* Halves one side by the definition: output o is the mean of the inputs whose centres lie in
 * (o * from / to, (o + 1) * from / to], nearest byte. Lines and steps are in bytes. */
static void mean_of_box(uint8_t *out, int to, int out_step, const uint8_t *in, int from, int step)
{
    for (int o = 0; o < to; o++) {
        int sum = 0, n = 0;
        for (int i = 0; i < from; i++)
            if ((2 * i + 1) * to > 2 * o * from && (2 * i + 1) * to <= 2 * (o + 1) * from)
                sum += in[i * step], n++;
        out[o * out_step] = (uint8_t)((2 * sum + n) / (2 * n));
    }
}

/* 39 x 23 becomes 19 x 11, then 9 x 5: means of two and of three, each side rounded by itself. */
static void halving_twice_rounds_each_side(void **state)
{
    (void)state;
    enum { W = 39, H = 23 };
    uint8_t rgb[W * H * 3], a[W * H * 3], b[W * H * 3];
    float out[9 * 5 * 3];
    tt_err e = {0};
    for (int i = 0; i < W * H * 3; i++)
        a[i] = rgb[i] = (uint8_t)((unsigned)i * 2654435761u >> 13);
    for (int w = W, h = H; w > 9; w /= 2, h /= 2) {
        for (int l = 0; l < h; l++)
            for (int c = 0; c < 3; c++)
                mean_of_box(b + l * (w / 2) * 3 + c, w / 2, 3, a + l * w * 3 + c, w, 3);
        for (int i = 0; i < w / 2 * 3; i++)
            mean_of_box(a + i, h / 2, w / 2 * 3, b + i, h, w / 2 * 3);
    }
    assert_int_equal(tt_image_fit(out, 9, 5, rgb, W, H, &e), TT_OK);
    for (int i = 0; i < 9 * 5 * 3; i++)
        assert_float_equal(out[i], a[i] / 255.0, 1e-7);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    float out[48];
    uint8_t rgb[3] = {0};
    tt_err e = {0};
    assert_int_equal(tt_image_fit(out, 4, 4, rgb, 0, 1, &e), TT_EINVAL);
    assert_int_equal(tt_image_fit(out, 4, 4, rgb, 1, -1, &e), TT_EINVAL);
    assert_int_equal(tt_image_fit(out, 4, 4, rgb, 65537, 65537, &e), TT_EINVAL);
    assert_int_equal(tt_image_fit(out, 0, 4, rgb, 1, 1, &e), TT_EINVAL);
    assert_int_equal(tt_image_fit(out, 4, 4, rgb, 65, 1, &e), TT_EINVAL);
}

static void bytes_are_the_nearest(void **state)
{
    (void)state;
    static const float in[] = {0, 1, 0.5f, 0.2f, -1, 2, 127.4f / 255, 127.6f / 255};
    static const uint8_t want[] = {0, 255, 128, 51, 0, 255, 127, 128};
    uint8_t out[8];
    tt_image_to_bytes(out, in, 8);
    assert_memory_equal(out, want, 8);
}

static int open_stream(void **state)
{
    (void)state;
    tt_log_set_level(TT_LOG_WARN);
    return tt_stream_open(&stream, "cpu", 2, NULL);
}
static int close_stream(void **state)
{
    (void)state;
    tt_stream_close(stream);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ports_are_those_of_plain_loops),
        cmocka_unit_test(fewer_groups_are_those_of_plain_loops),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(broken_folders_are_refused_by_name),
        cmocka_unit_test(masks_cover_the_windows_they_touch),
        cmocka_unit_test(pictures_are_covered_and_cut),
        cmocka_unit_test(halving_takes_means),
        cmocka_unit_test(halving_twice_rounds_each_side),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(bytes_are_the_nearest),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
