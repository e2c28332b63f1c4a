/* COMiT, all of it, against plain loops on random weights.
 *
 * What can go wrong: a crop taken from elsewhere, or told to lie elsewhere; a message that is not
 * carried on; scores that lack what is added to them; one of the six modulations taken for another;
 * guidance that forgets; noise that is shared; works that depend on each other; geometries that do
 * not fit the network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/tokenizers/plain_vae.h"
#include "tokenizers/image.h"

enum { NUMBERS = 3 * C_SIDE * C_SIDE, PATCH_NUMBERS = C_CHANNELS * C_PATCH * C_PATCH,
       LATENT = C_CHANNELS * C_CELLS * C_CELLS };

/* --- by plain loops --- */

static int rows_now;

/* Added to scores: 1 for all columns but queries', and for a query's own and earlier ones. */
static double added(int i, int j)
{
    int first = rows_now - C_TOKENS;
    return j < first || (i >= first && i >= j) ? 1 : 0;
}

static double gelu(double x)
{
    return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void two(double *y, const double *x, int k, const char *a, const char *b)
{
    double h[C_WIDTH];
    linear(h, C_WIDTH, x, k, "predictor.", a);
    silu_all(h, C_WIDTH);
    linear(y, C_WIDTH, h, C_WIDTH, "predictor.", b);
}

/* [ place | patches | message | queries ] */
static int begin_rows(double (*x)[PLAIN_WIDTH], const double *latent, int cells,
                      double (*message)[C_DIMS], const float offset[2])
{
    static const char p[] = "predictor.";
    const float *w = tensor(p, "x_embedder.proj", ".weight");
    const float *b = tensor(p, "x_embedder.proj", ".bias"), *place = tensor(p, "pos_embed", "");
    int across = cells / C_PATCH, patches = across * across, row = 1;
    double at[2] = {offset[0], offset[1]};
    two(x[0], at, 2, "c_embedder.0", "c_embedder.2");
    for (int c = 0; c < C_WIDTH; c++)
        x[0][c] += tensor(p, "c_pos_embed", "")[c];
    for (int i = 0; i < patches; i++, row++)
        for (int c = 0; c < C_WIDTH; c++) {
            x[row][c] = (double)b[c] +
                        place[(i / across * C_GRID + i % across) * C_WIDTH + c];
            for (int k = 0; k < PATCH_NUMBERS; k++) {
                int r = i / across * C_PATCH + k / C_PATCH % C_PATCH;
                int col = i % across * C_PATCH + k % C_PATCH, ch = k / C_PATCH / C_PATCH;
                x[row][c] += w[c * PATCH_NUMBERS + k] * latent[(ch * cells + r) * cells + col];
            }
        }
    for (int i = 0; i < C_TOKENS; i++, row++) {
        two(x[row], message[i], C_DIMS, "r_embedder.0", "r_embedder.2");
        for (int c = 0; c < C_WIDTH; c++)
            x[row][c] += tensor(p, "r_pos_embed", "")[i * C_WIDTH + c];
    }
    for (int i = 0; i < C_TOKENS; i++, row++)
        for (int c = 0; c < C_WIDTH; c++)
            x[row][c] = (double)tensor(p, "r_to_token", "")[c] +
                        tensor(p, "r_to_pos_embed", "")[i * C_WIDTH + c];
    return row;
}

static void half_block(double (*x)[PLAIN_WIDTH], int rows, int patches, const char *at, int half,
                       double (*mods)[6 * C_WIDTH])
{
    static double h[PLAIN_ROWS][PLAIN_WIDTH], q[3][PLAIN_ROWS][PLAIN_WIDTH];
    static double out[PLAIN_ROWS][PLAIN_WIDTH];
    for (int r = 0; r < rows; r++) {
        const double *m = r ? mods[r > patches] + 3 * half * C_WIDTH : NULL;
        normal(h[r], x[r], C_WIDTH, 1e-6);
        for (int c = 0; c < C_WIDTH && m; c++)
            h[r][c] = h[r][c] * (1 + m[C_WIDTH + c]) + m[c];
        double all[3 * C_WIDTH];
        if (half)
            continue;
        linear(all, 3 * C_WIDTH, h[r], C_WIDTH, at, "attn.qkv");
        for (int i = 0; i < 3 * C_WIDTH; i++)
            q[i / C_WIDTH][r][i % C_WIDTH] = all[i];
    }
    rows_now = rows;
    for (int c = 0, hd = C_WIDTH / C_HEADS; c < C_WIDTH && !half; c += hd)
        attend(out, q[0], q[1], q[2], rows, c, hd, 1 / sqrt(hd), added);
    for (int r = 0; r < rows; r++) {
        double y[C_WIDTH], wide[C_FF];
        if (half) {
            linear(wide, C_FF, h[r], C_WIDTH, at, "mlp.fc1");
            for (int c = 0; c < C_FF; c++)
                wide[c] = gelu(wide[c]);
            linear(y, C_WIDTH, wide, C_FF, at, "mlp.fc2");
        } else {
            linear(y, C_WIDTH, out[r], C_WIDTH, at, "attn.proj");
        }
        for (int c = 0; c < C_WIDTH; c++)
            x[r][c] += (r ? mods[r > patches][(3 * half + 2) * C_WIDTH + c] : 1) * y[c];
    }
}

/* velocity or renewed may be NULL. */
static void plain_call(double *velocity, double (*renewed)[C_DIMS], const double *latent,
                       int cells, double (*message)[C_DIMS], double t, const float offset[2])
{
    static double x[PLAIN_ROWS][PLAIN_WIDTH], wave[256], e[C_WIDTH], last[2 * C_WIDTH];
    int rows = begin_rows(x, latent, cells, message, offset), across = cells / C_PATCH;
    for (int k = 0; k < 128; k++) {
        double angle = 1000 * t * exp(-log(10000.0) * k / 128);
        wave[k] = cos(angle);
        wave[128 + k] = sin(angle);
    }
    two(e, wave, 256, "t_embedder.mlp.0", "t_embedder.mlp.2");
    silu_all(e, C_WIDTH);
    for (int i = 0; i < C_LAYERS; i++) {
        static double mods[2][6 * C_WIDTH];
        char at[64];
        snprintf(at, sizeof at, "predictor.blocks.%d.", i);
        linear(mods[0], 6 * C_WIDTH, e, C_WIDTH, at, "x_adaLN_modulation.1");
        linear(mods[1], 6 * C_WIDTH, e, C_WIDTH, at, "r_adaLN_modulation.1");
        for (int half = 0; half < 2; half++)
            half_block(x, rows, across * across, at, half, mods);
    }
    linear(last, 2 * C_WIDTH, e, C_WIDTH, "predictor.", "final_layer.adaLN_modulation.1");
    for (int i = 0; i < across * across && velocity; i++) {
        double h[C_WIDTH], y[PATCH_NUMBERS];
        normal(h, x[1 + i], C_WIDTH, 1e-6);
        for (int c = 0; c < C_WIDTH; c++)
            h[c] = h[c] * (1 + last[C_WIDTH + c]) + last[c];
        linear(y, PATCH_NUMBERS, h, C_WIDTH, "predictor.", "final_layer.linear");
        for (int k = 0; k < PATCH_NUMBERS; k++) {
            int r = i / across * C_PATCH + k / C_CHANNELS / C_PATCH;
            int col = i % across * C_PATCH + k / C_CHANNELS % C_PATCH;
            velocity[(k % C_CHANNELS * cells + r) * cells + col] = y[k];
        }
    }
    for (int i = 0; i < C_TOKENS && renewed; i++) {
        double h[C_WIDTH];
        normal(h, x[rows - C_TOKENS + i], C_WIDTH, 1e-6);
        linear(renewed[i], C_DIMS, h, C_WIDTH, "predictor.", "r_final_layer.linear");
    }
}

static void message_of(double (*out)[C_DIMS], const int32_t *id)
{
    for (int i = 0; i < C_TOKENS; i++)
        look_up(out[i], id ? id[i] : C_CODES / 2);
}

/* Looks at a crop (-1: the whole picture); id: of the message before, then after. */
static void plain_look(int32_t *id, double (*renewed)[C_DIMS], const float *pixels, int crop,
                       const float offset[2], double *margin)
{
    static double planes[NUMBERS], latent[LATENT];
    double message[C_TOKENS][C_DIMS];
    int side = crop < 0 ? C_SIDE : C_CROP, left = crop < 0 ? 0 : crop % 3 * C_STRIDE;
    int top = crop < 0 ? 0 : crop / 3 * C_STRIDE;
    for (int i = 0; i < 3 * side * side; i++) {
        int r = top + i / side % side, c = left + i % side;
        planes[i] = 2.0 * pixels[(r * C_SIDE + c) * 3 + i / side / side] - 1;
    }
    vae_encode(latent, planes, side);
    message_of(message, id);
    plain_call(NULL, renewed, latent, side / 2, message, 1, offset);
    for (int i = 0; i < C_TOKENS; i++)
        id[i] = quantise(renewed[i], margin);
}

/* Adaptive projected guidance, Euler steps. */
static void plain_paint(double *pixels, const float *noise, const int32_t *id,
                        const float offset[2], int steps, double w, double momentum)
{
    static double x[LATENT], v[LATENT], u[LATENT], run[LATENT], planes[NUMBERS];
    double message[2][C_TOKENS][C_DIMS];
    message_of(message[0], id);
    message_of(message[1], NULL);
    memset(run, 0, sizeof run);
    for (int i = 0; i < LATENT; i++)
        x[i] = noise[i];
    for (int step = 0; step < steps; step++) {
        double length = 0, speed = 0, along = 0;
        plain_call(v, NULL, x, C_CELLS, message[0], step / (double)steps, offset);
        plain_call(u, NULL, x, C_CELLS, message[1], step / (double)steps, offset);
        for (int i = 0; i < LATENT; i++) {
            run[i] = v[i] - u[i] + momentum * run[i];
            length += run[i] * run[i];
            speed += v[i] * v[i];
        }
        double limit = fmin(1, 2.5 / sqrt(length));
        for (int i = 0; i < LATENT; i++)
            along += run[i] * limit * v[i] / sqrt(speed);
        for (int i = 0; i < LATENT; i++)
            x[i] += (v[i] + (w - 1) * (run[i] * limit - along * v[i] / sqrt(speed))) / steps;
    }
    vae_decode(planes, x, C_CELLS);
    for (int i = 0; i < NUMBERS; i++)
        pixels[i % (C_SIDE * C_SIDE) * 3 + i / (C_SIDE * C_SIDE)] =
            fmin(fmax(0.5 * planes[i] + 0.5, 0), 1);
}

/* --- the codec --- */

static tt_stream *stream;
static tt_config *config;
static tt_codec *codec;

static tt_status open_as(const char *text, tt_err *e)
{
    static checkpoint c;
    memset(&c, 0, sizeof c);
    add_comit(&c);
    tensors = &c;
    tt_status s = checkpoint_open(&c, NULL, 0.2f, e);
    if (!s)
        s = tt_config_open_text(&config, text, strlen(text), e);
    return s ? s : tt_codec_find("COMiT")->open(&codec, stream, c.weights, config, TT_WEIGHTS_F32,
                                                e);
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
    if (tt_stream_open(&stream, "plain", 1, &e) || open_as(comit_config, &e)) {
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

/* The whole, a corner, the middle: what each step says, and where the next is told to lie. */
static void reading_follows_plain_loops(void **state)
{
    (void)state;
    const tt_crop_policy how = {.order = TT_CROPS_LIST, .whole = true, .list = {0, 3, 5},
                                .listed = 3};
    static const int crop[] = {-1, 2, 4};
    static const float offset[][2] = {{0, 0}, {0.5f, -0.5f}, {-0.5f, 0.5f}};
    float pixels[NUMBERS];
    double renewed[C_TOKENS][C_DIMS], margin = 1;
    int32_t id[C_TOKENS];
    tt_codec_work *w;
    tt_err e = {0};
    fill(pixels, NUMBERS, 9, 0, 1);
    for (int i = 0; i < C_TOKENS; i++)
        id[i] = C_CODES / 2;
    assert_int_equal(tt_codec_read(&w, codec, pixels, &how, &e), TT_OK);
    assert_int_equal(w->of, 3);
    for (int step = 0; step < 3; step++) {
        assert_false(w->done);
        assert_int_equal(tt_codec_step(codec, &w, 1, &e), TT_OK);
        plain_look(id, renewed, pixels, crop[step], offset[step], &margin);
        assert_int_equal(w->crop, how.list[step]);
        for (int i = 0; i < C_TOKENS * C_DIMS; i++)
            assert_float_equal(w->latent[i], renewed[i / C_DIMS][i % C_DIMS], 5e-5);
        assert_true(margin > 1e-4); /* so that the codes must agree */
        assert_memory_equal(w->id, id, sizeof id);
    }
    assert_true(w->done);
    assert_float_equal(w->offset[0], 0, 0);
    assert_float_equal(w->offset[1], 0, 0);
    tt_codec_drop(w);
}

static void painting_follows_plain_loops(void **state)
{
    (void)state;
    static const int32_t id[C_TOKENS] = {3, 77, 199, 0, 120, 41};
    static double want[NUMBERS];
    float noise[LATENT];
    tt_codec_work *w;
    tt_err e = {0};
    fill(noise, LATENT, 5, -2, 2);
    const tt_painting how = {.steps = 2, .guidance = 4, .momentum = -0.5, .offset = {-0.5f, 0.25f},
                             .noise = noise};
    plain_paint(want, noise, id, how.offset, 2, 4, -0.5);
    assert_int_equal(tt_codec_paint(&w, codec, id, 0, &how, &e), TT_OK);
    while (!w->done)
        assert_int_equal(tt_codec_step(codec, &w, 1, &e), TT_OK);
    for (int k = 0; k < NUMBERS; k++)
        assert_float_equal(w->pixels[k], want[k], 2e-4);
    tt_codec_drop(w);
}

/* The crop looked at next is the one that a painting in one step gets most wrong. */
static void adaptive_orders_follow_the_worst(void **state)
{
    (void)state;
    static double painted[NUMBERS];
    float pixels[NUMBERS], noise[LATENT];
    double renewed[C_TOKENS][C_DIMS], margin = 1, score[9] = {0};
    const float start[2] = {0, 0};
    int32_t id[C_TOKENS];
    int worst = -1;
    tt_codec_work *w;
    tt_err e = {0};
    fill(pixels, NUMBERS, 11, 0, 1);
    fill(noise, LATENT, 6, -2, 2);
    for (int i = 0; i < C_TOKENS; i++)
        id[i] = C_CODES / 2;
    plain_look(id, renewed, pixels, 4, start, &margin);
    plain_paint(painted, noise, id, start, 1, 1, 0);
    for (int k = 0; k < 9; k++) {
        for (int i = 0; i < C_CROP * C_CROP * 3; i++) {
            int r = k / 3 * C_STRIDE + i / 3 / C_CROP, c = k % 3 * C_STRIDE + i / 3 % C_CROP;
            double d = painted[(r * C_SIDE + c) * 3 + i % 3] - pixels[(r * C_SIDE + c) * 3 + i % 3];
            score[k] += d * d;
        }
        if (k != 4 && (worst < 0 || score[k] > score[worst]))
            worst = k;
    }
    const tt_crop_policy how = {.order = TT_CROPS_ADAPTIVE, .crops = 2, .noise = noise};
    assert_int_equal(tt_codec_read(&w, codec, pixels, &how, &e), TT_OK);
    assert_int_equal(tt_codec_step(codec, &w, 1, &e), TT_OK);
    assert_int_equal(w->crop, 4);
    assert_int_equal(tt_codec_step(codec, &w, 1, &e), TT_OK);
    assert_int_equal(w->crop, worst);
    tt_codec_drop(w);
}

/* All at once is what works do one by one, in any company. */
static void works_do_not_depend_on_each_other(void **state)
{
    (void)state;
    enum { N = 3 };
    static float pixels[N * NUMBERS], out[N * NUMBERS], one[NUMBERS];
    int32_t id[N * C_TOKENS], alone[C_TOKENS];
    tt_code_distance distance[N * C_TOKENS];
    tt_err e = {0};
    fill(pixels, N * NUMBERS, 2, 0, 1);
    assert_int_equal(tt_codec_encode(codec, id, NULL, distance, pixels, N, &e), TT_OK);
    assert_int_equal(tt_codec_decode(codec, out, id, NULL, N, &e), TT_OK);
    for (int i = 0; i < N; i++) {
        assert_int_equal(tt_codec_encode(codec, alone, NULL, NULL, pixels + i * NUMBERS, 1, &e), 0);
        assert_memory_equal(alone, id + i * C_TOKENS, sizeof alone);
        assert_int_equal(tt_codec_decode(codec, one, alone, NULL, 1, &e), TT_OK);
        assert_memory_equal(one, out + i * NUMBERS, sizeof one);
    }
    assert_int_equal(tt_codec_decode(codec, one, id, &(int32_t){2}, 1, &e), TT_EUNSUP);
}

static void every_picture_has_noise_of_its_own(void **state)
{
    (void)state;
    static const int32_t id[C_TOKENS] = {0};
    static float a[NUMBERS], b[NUMBERS];
    const uint64_t seed[] = {1, 1, 2};
    const uint32_t sample[] = {0, 1, 0};
    tt_err e = {0};
    for (int i = 0; i < 3; i++) {
        tt_painting how = {.steps = 1, .seed = seed[i], .sample = sample[i]};
        tt_codec_work *w;
        assert_int_equal(tt_codec_paint(&w, codec, id, 0, &how, &e), TT_OK);
        while (!w->done)
            assert_int_equal(tt_codec_step(codec, &w, 1, &e), TT_OK);
        memcpy(i ? b : a, w->pixels, sizeof a);
        tt_codec_drop(w);
        if (i)
            assert_memory_not_equal(a, b, sizeof a);
    }
}

static void policies_out_of_range_are_refused(void **state)
{
    (void)state;
    static const tt_crop_policy bad[] = {
        {.crops = -1},
        {.crops = 10},
        {.order = TT_CROPS_ADAPTIVE},
        {.order = TT_CROPS_LIST},
        {.order = TT_CROPS_LIST, .listed = TT_MAX_CROPS + 1},
        {.order = TT_CROPS_LIST, .list = {9}, .listed = 1},
        {.order = TT_CROPS_LIST, .list = {-1}, .listed = 1},
    };
    static const float pixels[NUMBERS];
    tt_codec_work *w;
    tt_err e = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tt_codec_read(&w, codec, pixels, &bad[i], &e), TT_EINVAL);
    assert_int_equal(tt_codec_read(&w, codec, pixels, &(tt_crop_policy){.whole = true, .crops = 10},
                                   &e), TT_OK);
    tt_codec_drop(w);
}

static void mixtures_are_made_number_by_number(void **state)
{
    (void)state;
    const int32_t a[C_TOKENS] = {0, 7, 199, 40, 8, 1}, b[C_TOKENS] = {199, 0, 199, 0, 16, 2};
    int32_t out[C_TOKENS], back[C_TOKENS];
    tt_err e = {0};
    assert_int_equal(tt_codec_mix(codec, out, a, b, 0, &e), TT_OK);
    assert_memory_equal(out, a, sizeof a);
    assert_int_equal(tt_codec_mix(codec, out, a, b, 1, &e), TT_OK);
    assert_memory_equal(out, b, sizeof b);
    assert_int_equal(tt_codec_mix(codec, out, a, b, 0.5, &e), TT_OK);
    assert_int_equal(tt_codec_mix(codec, back, b, a, 0.5, &e), TT_OK);
    assert_memory_equal(out, back, sizeof out);
    assert_int_equal(out[0], 4 + 8 * 2 + 40 * 2); /* of (0, 0, 0) and (7, 4, 4) */
    assert_int_equal(out[2], 199);
    assert_int_equal(tt_codec_mix(codec, out, a, b, 1.5, &e), TT_EINVAL);
    assert_int_equal(tt_codec_mix(codec, out, a, (int32_t[C_TOKENS]){200}, 0, &e), TT_EINVAL);
}

static void geometries_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *to, *says;
    } bad[] = {{"\"picture\": 32, \"crop\": 16, \"stride\": 7", "every 7"},
               {"\"picture\": 32, \"crop\": 48, \"stride\": 8", "crops of 48"},
               {"\"picture\": 64, \"crop\": 16, \"stride\": 8", "pictures of 64"},
               {"\"picture\": 32, \"crop\": 12, \"stride\": 10", "crops of 12"},
               {"\"picture\": 32, \"crop\": 8, \"stride\": 1", "every 1"},
               {"\"picture\": 32, \"crop\": 16", "stride"}};
    static const char was[] = "\"picture\": 32, \"crop\": 16, \"stride\": 8";
    const char *at = strstr(comit_config, was);
    close_it();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[2 * sizeof comit_config];
        tt_err e = {0};
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - comit_config), comit_config, bad[i].to,
                 at + sizeof was - 1);
        assert_int_not_equal(open_as(text, &e), TT_OK);
        if (!strstr(e.text, bad[i].says))
            fail_msg("'%s' does not say '%s'", e.text, bad[i].says);
        close_it();
    }
    tt_err e = {0};
    assert_int_equal(open_as(comit_config, &e), TT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_follows_plain_loops),
        cmocka_unit_test(painting_follows_plain_loops),
        cmocka_unit_test(adaptive_orders_follow_the_worst),
        cmocka_unit_test(works_do_not_depend_on_each_other),
        cmocka_unit_test(every_picture_has_noise_of_its_own),
        cmocka_unit_test(policies_out_of_range_are_refused),
        cmocka_unit_test(mixtures_are_made_number_by_number),
        cmocka_unit_test(geometries_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests_name("COMiT", tests, open_all, close_all);
}
