/* FlexTok, all of it, against plain loops on random weights.
 *
 * What can go wrong: a register that sees a later one, a patch out of order, a modulation taken for
 * another, a token that still counts when it was dropped, a time that runs backwards, prefixes that
 * depend on what was cut off, works that depend on each other, configs of other networks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/tokenizers/flextok_tensors.h"
#include "tests/tokenizers/plain_vae.h"
#include "tokenizers/image.h"

enum { PATCHES = F_GRID * F_GRID, ROWS = PATCHES + F_TOKENS, LATENT = 4 * F_CELLS * F_CELLS,
       NUMBERS = 3 * F_SIDE * F_SIDE };

/* --- by plain loops --- */

static bool causal;

static double sees(int i, int j)
{
    bool register_sees = j < PATCHES || j <= i;
    bool may = i < PATCHES ? j < PATCHES : register_sees;
    return may || !causal ? 0 : -INFINITY;
}

/* mods: shift, scale, gate by row kind (0 patches, 1 registers); NULL: none. */
static void block(double (*x)[PLAIN_WIDTH], const char *at, double (*mods)[6 * F_WIDTH])
{
    static double q[3][PLAIN_ROWS][PLAIN_WIDTH], out[PLAIN_ROWS][PLAIN_WIDTH];
    static const char *const part[] = {"attn.wq", "attn.wk", "attn.wv"};
    for (int half = 0; half < 2; half++) {
        static double h[PLAIN_ROWS][PLAIN_WIDTH];
        for (int r = 0; r < ROWS; r++) {
            const double *m = mods ? mods[r >= PATCHES] : NULL;
            normal(h[r], x[r], F_WIDTH, 1e-5);
            for (int c = 0; c < F_WIDTH && m; c++)
                h[r][c] = h[r][c] * (1 + m[(half ? 5 : 3) * F_WIDTH + c]) +
                          m[(half ? 4 : 2) * F_WIDTH + c];
        }
        for (int r = 0; r < ROWS && !half; r++)
            for (int p = 0; p < 3; p++) {
                linear(q[p][r], F_WIDTH, h[r], F_WIDTH, at, part[p]);
                for (int c = 0; c < F_WIDTH && p < 2; c += F_HEAD)
                    normal(q[p][r] + c, q[p][r] + c, F_HEAD, 1e-5);
            }
        for (int c = 0; c < F_WIDTH && !half; c += F_HEAD)
            attend(out, q[0], q[1], q[2], ROWS, c, F_HEAD, 8.0 / F_HEAD, sees);
        for (int r = 0; r < ROWS; r++) {
            double y[F_WIDTH], a[F_FF], b[F_FF];
            if (!half) {
                linear(y, F_WIDTH, out[r], F_WIDTH, at, "attn.proj");
            } else {
                linear(a, F_FF, h[r], F_WIDTH, at, "mlp.fc1");
                linear(b, F_FF, h[r], F_WIDTH, at, "mlp.fc3");
                for (int c = 0; c < F_FF; c++)
                    a[c] = silu(a[c]) * b[c];
                linear(y, F_WIDTH, a, F_FF, at, "mlp.fc2");
            }
            for (int c = 0; c < F_WIDTH; c++)
                x[r][c] += (mods ? mods[r >= PATCHES][half * F_WIDTH + c] : 1) * y[c];
        }
    }
}

/* Rows of patches with their places. */
static void begin_patches(double (*x)[PLAIN_WIDTH], const double *latent, const char *at,
                          const char *embed, const char *place)
{
    const float *table = tensor(at, place, ".posembs");
    for (int p = 0; p < PATCHES; p++) {
        double in[4 * F_PATCH * F_PATCH];
        for (int k = 0; k < 4 * F_PATCH * F_PATCH; k++) {
            int r = p / F_GRID * F_PATCH + k / 4 / F_PATCH;
            int c = p % F_GRID * F_PATCH + k / 4 % F_PATCH;
            in[k] = latent[(k % 4 * F_CELLS + r) * F_CELLS + c];
        }
        linear(x[p], F_WIDTH, in, 4 * F_PATCH * F_PATCH, at, embed);
        for (int c = 0; c < F_WIDTH; c++)
            x[p][c] += table[c * PATCHES + p];
    }
}

static const char enc[] = "encoder.module_dict.", dec[] = "decoder.module_dict.";

static void plain_encode(double (*z)[F_DIMS], const float *pixels)
{
    static double planes[NUMBERS], latent[LATENT], x[PLAIN_ROWS][PLAIN_WIDTH];
    for (int i = 0; i < NUMBERS; i++)
        planes[i] = 2.0 * pixels[i % (F_SIDE * F_SIDE) * 3 + i / (F_SIDE * F_SIDE)] - 1;
    vae_encode(latent, planes, F_SIDE);
    begin_patches(x, latent, enc, "enc_patch_emb.patch_proj", "enc_posemb_module");
    for (int i = 0; i < F_TOKENS * F_WIDTH; i++)
        x[PATCHES + i / F_WIDTH][i % F_WIDTH] =
            tensor(enc, "enc_register_module", ".registers")[i];
    causal = true;
    for (int i = 0; i < F_LAYERS; i++) {
        char at[80];
        snprintf(at, sizeof at, "%senc_transformer.blocks.%d.", enc, i);
        block(x, at, NULL);
    }
    for (int t = 0; t < F_TOKENS; t++) {
        double h[F_WIDTH];
        normal(h, x[PATCHES + t], F_WIDTH, 1e-5);
        linear(z[t], F_DIMS, h, F_WIDTH, enc, "enc_to_latents.proj");
    }
}

/* keep -1: no token counts. */
static void plain_velocity(double *v, const double *latent, const int32_t *id, int keep, double t)
{
    static double x[PLAIN_ROWS][PLAIN_WIDTH], temb[F_WIDTH], wave[F_WAVES], two[2 * F_WIDTH];
    const float *place = tensor(dec, "dec_registers_posemb_module", ".posembs");
    const float *mask = tensor(dec, "dec_nested_dropout", ".dropout_mask_token");
    const float *null = tensor(dec, "dec_latent_dropout", ".nullcond");
    begin_patches(x, latent, dec, "dec_noise_patch_emb.patch_proj", "dec_patches_posemb_module");
    for (int r = 0; r < F_TOKENS; r++) {
        double code[F_DIMS];
        look_up(code, id[r]);
        linear(x[PATCHES + r], F_WIDTH, code, F_DIMS, dec, "dec_from_latents.proj");
        for (int c = 0; c < F_WIDTH; c++)
            x[PATCHES + r][c] = keep < 0    ? (double)null[c]
                                : r >= keep ? (double)mask[c]
                                            : x[PATCHES + r][c] + place[c * F_TOKENS + r];
    }
    for (int k = 0; k < F_WAVES / 2; k++) {
        double f = 1000 * exp(-log(256.0) * k / (F_WAVES / 2));
        wave[k] = cos(t * f);
        wave[F_WAVES / 2 + k] = sin(t * f);
    }
    linear(two, F_WIDTH, wave, F_WAVES, dec, "dec_time_embedder.mlp.0");
    silu_all(two, F_WIDTH);
    linear(temb, F_WIDTH, two, F_WIDTH, dec, "dec_time_embedder.mlp.2");
    silu_all(temb, F_WIDTH);
    causal = false;
    for (int i = 0; i < F_LAYERS; i++) {
        static double mods[2][6 * F_WIDTH];
        char at[80];
        snprintf(at, sizeof at, "%sdec_transformer.blocks.%d.", dec, i);
        linear(mods[0], 12 * F_WIDTH, temb, F_WIDTH, at, "adaLN_modulation.1");
        block(x, at, mods);
    }
    linear(two, 2 * F_WIDTH, temb, F_WIDTH, dec, "dec_to_patches.adaLN_modulation.1");
    for (int p = 0; p < PATCHES; p++) {
        double h[F_WIDTH], y[4 * F_PATCH * F_PATCH];
        normal(h, x[p], F_WIDTH, 1e-5);
        for (int c = 0; c < F_WIDTH; c++)
            h[c] = h[c] * (1 + two[F_WIDTH + c]) + two[c];
        linear(y, 4 * F_PATCH * F_PATCH, h, F_WIDTH, dec, "dec_to_patches.proj");
        for (int k = 0; k < 4 * F_PATCH * F_PATCH; k++) {
            int r = p / F_GRID * F_PATCH + k / 4 / F_PATCH;
            int c = p % F_GRID * F_PATCH + k / 4 % F_PATCH;
            v[(k % 4 * F_CELLS + r) * F_CELLS + c] = y[k];
        }
    }
}

/* Classifier-free guidance, in two steps. */
static void plain_paint(double *pixels, const float *noise, const int32_t *id, int keep, double w)
{
    static double x[LATENT], v[LATENT], u[LATENT], planes[NUMBERS];
    for (int i = 0; i < LATENT; i++)
        x[i] = noise[i];
    for (int step = 2; step > 0; step--) {
        plain_velocity(v, x, id, keep, step / 2.0);
        plain_velocity(u, x, id, -1, step / 2.0);
        for (int i = 0; i < LATENT; i++)
            x[i] -= (u[i] + w * (v[i] - u[i])) / 2;
    }
    vae_decode(planes, x, F_CELLS);
    for (int i = 0; i < NUMBERS; i++)
        pixels[i % (F_SIDE * F_SIDE) * 3 + i / (F_SIDE * F_SIDE)] =
            fmin(fmax(0.5 * planes[i] + 0.5, 0), 1);
}

/* --- the codec --- */

static tt_stream *stream;
static tt_config *config;
static tt_codec *codec;

static tt_status open_as(const char *text, const char *without, tt_err *e)
{
    static checkpoint c;
    memset(&c, 0, sizeof c);
    add_flextok(&c);
    tensors = &c;
    tt_status s = checkpoint_open(&c, without, 0.2f, e);
    if (!s)
        s = tt_config_open_text(&config, text, strlen(text), e);
    return s ? s : tt_codec_find("FlexTok")->open(&codec, stream, c.weights, config,
                                                  TT_WEIGHTS_F32, e);
}

static void close_it(void)
{
    tt_codec_close(codec);
    tt_config_close(config);
    checkpoint_close(tensors);
    codec = NULL;
    config = NULL;
}

static int open_all(void **state)
{
    (void)state;
    tt_err e = {0};
    if (tt_stream_open(&stream, "plain", 1, &e) || open_as(flextok_config, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    close_it();
    tt_stream_close(stream);
    return 0;
}

static void fill(float *x, int n, unsigned seed, float low, float high)
{
    for (int i = 0; i < n; i++)
        x[i] = low + (high - low) * (float)((seed = seed * 1103515245u + 12345u) >> 8 & 0xFFFF) /
                         65535.0f;
}

static void reading_follows_plain_loops(void **state)
{
    (void)state;
    float pixels[2 * NUMBERS], latent[2 * F_TOKENS * F_DIMS];
    int32_t id[2 * F_TOKENS], again[F_TOKENS];
    tt_code_distance distance[2 * F_TOKENS];
    double z[F_TOKENS][F_DIMS];
    tt_err e = {0};
    fill(pixels, 2 * NUMBERS, 7, 0, 1);
    assert_int_equal(tt_codec_encode(codec, id, latent, distance, pixels, 2, &e), TT_OK);
    for (int i = 0; i < 2; i++) {
        plain_encode(z, pixels + i * NUMBERS);
        for (int t = 0; t < F_TOKENS; t++) {
            double margin = 1;
            int code = quantise(z[t], &margin);
            for (int k = 0; k < F_DIMS; k++)
                assert_float_equal(latent[(i * F_TOKENS + t) * F_DIMS + k], z[t][k], 2e-5);
            if (margin > 1e-4)
                assert_int_equal(id[i * F_TOKENS + t], code);
            assert_true(distance[i * F_TOKENS + t].nearest <= distance[i * F_TOKENS + t].second);
        }
        assert_int_equal(tt_codec_encode(codec, again, NULL, NULL, pixels + i * NUMBERS, 1, &e), 0);
        assert_memory_equal(again, id + i * F_TOKENS, sizeof again);
    }
}

static void painting_follows_plain_loops(void **state)
{
    (void)state;
    static const int32_t id[F_TOKENS] = {3, 77, 199, 0, 120, 41};
    static const int keep[] = {1, 4, F_TOKENS};
    float noise[LATENT];
    static double want[NUMBERS];
    tt_err e = {0};
    fill(noise, LATENT, 5, -2, 2);
    tt_painting how = {.steps = 2, .guidance = 3, .plain = true, .noise = noise};
    for (int i = 0; i < 3; i++) {
        tt_codec_work *w = NULL;
        plain_paint(want, noise, id, keep[i], 3);
        assert_int_equal(tt_codec_paint(&w, codec, id, keep[i], &how, &e), TT_OK);
        while (!w->done)
            assert_int_equal(tt_codec_step(codec, &w, 1, &e), TT_OK);
        assert_int_equal(w->now, w->of);
        for (int k = 0; k < NUMBERS; k++)
            assert_float_equal(w->pixels[k], want[k], 1e-4);
        tt_codec_drop(w);
    }
}

/* Works of all kinds side by side, each with the bits it has alone. */
static void works_do_not_depend_on_each_other(void **state)
{
    (void)state;
    enum { WORKS = 4 };
    static const int32_t id[2 * F_TOKENS] = {1, 2, 3, 4, 5, 6, 60, 50, 40, 30, 20, 10};
    float pixels[NUMBERS], alone[WORKS][NUMBERS];
    tt_err e = {0};
    fill(pixels, NUMBERS, 3, 0, 1);
    tt_painting how[WORKS] = {{.steps = 1, .seed = 1},
                              {.steps = 3, .seed = 2, .guidance = 7, .momentum = -0.5},
                              {.steps = 2, .solver = TT_FLOW_MIDPOINT, .guidance = 2, .seed = 3}};
    for (int round = 0; round < 2; round++) {
        tt_codec_work *w[WORKS], *left[WORKS];
        for (int i = 0; i < WORKS - 1; i++)
            assert_int_equal(tt_codec_paint(&w[i], codec, id + i % 2 * F_TOKENS, i + 1, &how[i],
                                            &e), TT_OK);
        assert_int_equal(tt_codec_read(&w[WORKS - 1], codec, pixels, NULL, &e), TT_OK);
        for (int64_t n = 1; n;) {
            n = 0;
            for (int i = 0; i < WORKS; i++)
                if (!w[i]->done && (round || !n))
                    left[n++] = w[i];
            assert_int_equal(tt_codec_step(codec, left, n, &e), TT_OK);
        }
        for (int i = 0; i < WORKS - 1; i++) {
            if (round)
                assert_memory_equal(w[i]->pixels, alone[i], sizeof alone[i]);
            memcpy(alone[i], w[i]->pixels, sizeof alone[i]);
        }
        for (int i = 0; i < WORKS; i++)
            tt_codec_drop(w[i]);
    }
}

static void what_was_cut_off_does_not_matter(void **state)
{
    (void)state;
    int32_t id[2 * F_TOKENS] = {9, 8, 7, 6, 5, 4, 9, 8, 0, 1, 2, 3}, keep[] = {2, 2};
    static float out[2 * NUMBERS];
    tt_err e = {0};
    assert_int_equal(tt_codec_decode(codec, out, id, keep, 2, &e), TT_OK);
    assert_memory_equal(out, out + NUMBERS, NUMBERS * sizeof *out);
    keep[1] = 3;
    assert_int_equal(tt_codec_decode(codec, out, id, keep, 2, &e), TT_OK);
    assert_memory_not_equal(out, out + NUMBERS, NUMBERS * sizeof *out);
    keep[1] = F_TOKENS + 1;
    assert_int_equal(tt_codec_decode(codec, out, id, keep, 2, &e), TT_EINVAL);
    keep[1] = 0;
    assert_int_equal(tt_codec_decode(codec, out, id, keep, 2, &e), TT_EINVAL);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    static const int32_t id[F_TOKENS] = {0};
    static const tt_painting bad[] = {{.steps = 0},
                                      {.steps = TT_MAX_PAINTING_STEPS + 1},
                                      {.steps = 1, .guidance = -1},
                                      {.steps = 1, .guidance = NAN},
                                      {.steps = 1, .momentum = 1},
                                      {.steps = 1, .offset = {9, 0}}};
    tt_codec_work *w;
    tt_err e = {0};
    float pixels[NUMBERS] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tt_codec_paint(&w, codec, id, 0, &bad[i], &e), TT_EINVAL);
    assert_int_equal(tt_codec_read(&w, codec, pixels, &(tt_crop_policy){.crops = 1}, &e),
                     TT_EUNSUP);
    pixels[5] = NAN;
    assert_int_equal(tt_codec_read(&w, codec, pixels, NULL, &e), TT_EINVAL);
}

static void broken_folders_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *without, *says;
    } bad[] = {
        {"f.LinearHead", "f.Surprise", NULL, "Surprise"},
        {"\"n_max\": 6", "\"n_max\": 7", NULL, "registers"},
        {"\"dim_in\": 3", "\"dim_in\": 2", NULL, "dec_from_latents"},
        {"\"enc_transformer\"", "\"enc_other\"", NULL, "enc_other"},
        {"f.TimestepEmbedder", "f.PerSampleOp", NULL, "missing"},
        {"[8, 5, 5]", "[8, 5]", NULL, "levels"},
        {NULL, NULL, "decoder.module_dict.dec_nested_dropout.dropout_mask_token",
         "dropout_mask_token"},
        {NULL, NULL, "encoder.module_dict.enc_transformer.blocks.1.attn.wk.weight", "attn.wk"},
    };
    close_it();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[2 * sizeof flextok_config + 64];
        tt_err e = {0};
        const char *at = bad[i].from ? strstr(flextok_config, bad[i].from) : flextok_config;
        size_t skip = bad[i].from ? strlen(bad[i].from) : 0;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - flextok_config), flextok_config,
                 bad[i].to ? bad[i].to : "", at + skip);
        assert_int_not_equal(open_as(text, bad[i].without, &e), TT_OK);
        if (!strstr(e.text, bad[i].says))
            fail_msg("case %zu: '%s' does not say '%s'", i, e.text, bad[i].says);
        close_it();
    }
    tt_err e = {0};
    assert_int_equal(open_as(flextok_config, NULL, &e), TT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_follows_plain_loops),
        cmocka_unit_test(painting_follows_plain_loops),
        cmocka_unit_test(works_do_not_depend_on_each_other),
        cmocka_unit_test(what_was_cut_off_does_not_matter),
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(broken_folders_are_refused_by_name),
    };
    return cmocka_run_group_tests_name("FlexTok", tests, open_all, close_all);
}
