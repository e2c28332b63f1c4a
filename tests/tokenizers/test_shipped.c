/* What can go wrong: a shipped codec that has collapsed, so that every picture is the same blot;
 * prefixes of its tokens that do not come nearer to the picture with every level. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizers/image.h"

enum { SIDE = 64, PIXELS = SIDE * SIDE * 3, KINDS = 3 };

/* A red disc, a blue square, a green bar, each on white. */
static void draw(float *rgb, int kind)
{
    for (int i = 0; i < SIDE * SIDE; i++) {
        int y = i / SIDE - SIDE / 2, x = i % SIDE - SIDE / 2;
        bool in = kind == 0   ? x * x + y * y < 24 * 24
                  : kind == 1 ? abs(x) < 22 && abs(y) < 22
                              : abs(x) < 9 && abs(y) < 26;
        for (int c = 0; c < 3; c++)
            rgb[3 * i + c] = !in ? 1.0f : c == (kind == 0 ? 0 : kind == 1 ? 2 : 1) ? 0.8f : 0.15f;
    }
}

static double distance(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < PIXELS; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(sum / PIXELS);
}

/* Root mean square errors by tokens kept, over the three pictures. */
static void pictures_come_back(const char *folder, const int32_t *keeps, int n, double most)
{
    tt_err e = {0};
    tt_stream *s;
    tt_codec *c;
    tt_weights *w;
    tt_config *config;
    float rgb[KINDS * PIXELS], out[KINDS * PIXELS];
    double last = INFINITY;
    assert_int_equal(tt_stream_open(&s, "cpu", 2, &e), TT_OK);
    if (tt_codec_open(&c, &w, &config, s, folder, TT_WEIGHTS_AUTO, false, &e))
        fail_msg("%s: %s", folder, e.text);
    int32_t *id = calloc((size_t)KINDS * (size_t)c->info.layout.tokens, sizeof *id);
    for (int i = 0; i < KINDS; i++)
        draw(rgb + i * PIXELS, i);
    assert_int_equal(tt_codec_encode(c, id, NULL, NULL, rgb, KINDS, &e), TT_OK);
    for (int k = 0; k < n; k++) {
        int32_t keep[KINDS] = {keeps[k], keeps[k], keeps[k]};
        double sum = 0;
        assert_int_equal(tt_codec_decode(c, out, id, keep, KINDS, &e), TT_OK);
        for (int i = 0; i < KINDS; i++)
            sum += distance(out + i * PIXELS, rgb + i * PIXELS) / KINDS;
        print_message("%s, %d tokens: error %.3f\n", folder, keeps[k], sum);
        assert_true(sum < last);
        last = sum;
    }
    assert_true(last < most);
    for (int i = 0; i < KINDS; i++) /* nearer to its own picture than to the others */
        for (int j = 0; j < KINDS; j++)
            assert_true(i == j || distance(out + i * PIXELS, rgb + i * PIXELS) <
                                      distance(out + i * PIXELS, rgb + j * PIXELS));
    free(id);
    tt_codec_close(c);
    tt_config_close(config);
    tt_weights_close(w);
    tt_stream_close(s);
}

static void levels_come_nearer(void **state)
{
    (void)state;
    static const int32_t keeps[] = {1, 8, 64};
    pictures_come_back("models/demo/tutti-image-levels/restok", keeps, 3, 0.08);
}

static void a_grid_comes_back(void **state)
{
    (void)state;
    static const int32_t all[] = {64};
    pictures_come_back("models/demo/tutti-image/vqgan", all, 1, 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_come_nearer),
        cmocka_unit_test(a_grid_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
