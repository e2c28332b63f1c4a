/* Operations on images, against loops written out here: convolution, GroupNorm, pooling, vector
 * quantisation, scatter.
 *
 * What can go wrong: a border that takes its neighbour's pixels or the next image's, taps or
 * channels in the wrong order, enlargement off by one, strides with something in the padding,
 * large means that swallow a variance, groups mixed up, ties between codes, an image that changes
 * with its neighbours or the threads. */
#include "tests/kernels/ops.h"

static void shape_is_refused(tt_status st, const tt_err *e, const char *op)
{
    assert_int_equal(st, TT_EINVAL);
    assert_int_equal(strncmp(e->text, op, strlen(op)), 0);
}

/* --- convolution --- */

typedef struct {
    tt_image_shape shape;
    int64_t out;
    bool bias, add;
} conv_case;

static const conv_case convs[] = {
    {{1, 1, 1, 1, false}, 1, false, false},   {{2, 3, 5, 3, false}, 4, true, false},
    {{3, 4, 4, 7, false}, 33, false, true},   {{2, 8, 8, 32, false}, 65, true, true},
    {{2, 4, 6, 5, true}, 9, true, false},     {{1, 2, 2, 16, true}, 16, false, true},
    {{1, 24, 20, 33, false}, 17, true, false}, {{0, 4, 4, 8, false}, 8, true, false},
};
enum { CONVS = sizeof convs / sizeof *convs };

static void convolve(float *y, int64_t ldy, const float *x, int64_t ldx, const conv_case *c,
                     const float *w, const float *bias)
{
    const tt_image_shape *p = &c->shape;
    int64_t up = p->up ? 2 : 1;
    for (int64_t i = 0; i < p->images * p->height * p->width; i++)
        for (int64_t j = 0; j < c->out; j++) {
            double sum = c->add ? y[i * ldy + j] : 0;
            sum += bias ? bias[j] : 0;
            for (int tap = 0; tap < 9; tap++) {
                int64_t row = i / p->width % p->height + tap / 3 - 1;
                int64_t col = i % p->width + tap % 3 - 1;
                if (row < 0 || row >= p->height || col < 0 || col >= p->width)
                    continue;
                int64_t from = i / (p->width * p->height) * (p->height / up) + row / up;
                const float *pixel = x + (from * (p->width / up) + col / up) * ldx;
                for (int64_t h = 0; h < p->channels; h++)
                    sum += (double)pixel[h] * w[(j * 9 + tap) * p->channels + h];
            }
            y[i * ldy + j] = (float)sum;
        }
}

static void convolution_of(tt_stream *s, const char *name, const conv_case *c)
{
    const tt_image_shape *p = &c->shape;
    int64_t rows = p->images * p->height * p->width, k = 9 * p->channels;
    int64_t ldx = p->channels + 3, ldy = c->out + 5, from = p->up ? rows / 4 : rows;
    float *x = test_rows(from, p->channels, ldx, 1), *w = test_rows(c->out, k, k, 0.2f);
    float *bias = test_rows(1, c->out, c->out, 1), *want = test_rows(rows, c->out, ldy, 1);
    float *have = test_blank(rows, ldy), *alone = test_blank(rows, ldy);
    for (int64_t r = 0; r < rows; r++) {
        memcpy(have + r * ldy, want + r * ldy, (size_t)c->out * sizeof *have);
        memcpy(alone + r * ldy, want + r * ldy, (size_t)c->out * sizeof *have);
    }
    tt_weight weight = test_weight(w, TT_F32, c->out, k);
    tt_matrix *m;
    tt_err e = {0};
    test_ok(s->op.matrix_open(s, &m, &weight, 1, c->bias ? bias : NULL, TT_COMPUTE_F32,
                              TT_MATRIX_LINEAR, &e), &e);
    test_ok(s->op.conv3x3(s, have, ldy, x, ldx, p, m, c->add, &e), &e);
    convolve(want, ldy, x, ldx, c, w, c->bias ? bias : NULL);
    test_close(name, have, want, rows, c->out, ldy, 1e-5);
    test_padding_untouched(name, have, rows, c->out, ldy);
    if (p->images) { /* the last image by itself */
        tt_image_shape one = *p;
        int64_t last = rows - rows / p->images;
        one.images = 1;
        test_ok(s->op.conv3x3(s, alone + last * ldy, ldy, x + (from - from / p->images) * ldx, ldx,
                              &one, m, c->add, &e), &e);
        for (int64_t r = last; r < rows; r++)
            test_same_bits(name, have + r * ldy, alone + r * ldy, c->out);
    }
    s->op.matrix_close(s, m);
    free(x);
    free(w);
    free(bias);
    free(want);
    free(have);
    free(alone);
}

static void each_convolution(tt_stream *s, const char *name)
{
    for (int i = 0; i < CONVS; i++)
        convolution_of(s, name, &convs[i]);
}
static void convolution_is_that_of_its_definition(void **state)
{
    (void)state;
    test_each(each_convolution);
}

static void bad_convolutions(tt_stream *s, const char *name)
{
    static float w[9 * 4 * 2], x[64], y[64];
    tt_weight weight = test_weight(w, TT_F32, 2, 36);
    tt_image_shape good = {1, 2, 2, 4, false}, odd = {1, 3, 2, 4, true}, deep = {1, 2, 2, 5, false};
    tt_image_shape huge = {1 << 20, 1 << 20, 1 << 20, 4, false};
    tt_matrix *m;
    tt_err e = {0};
    (void)name;
    test_ok(s->op.matrix_open(s, &m, &weight, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR, &e), &e);
    shape_is_refused(s->op.conv3x3(s, y, 2, x, 3, &good, m, false, &e), &e, "conv3x3");
    shape_is_refused(s->op.conv3x3(s, y, 1, x, 4, &good, m, false, &e), &e, "conv3x3");
    shape_is_refused(s->op.conv3x3(s, y, 2, x, 4, &odd, m, false, &e), &e, "conv3x3");
    shape_is_refused(s->op.conv3x3(s, y, 2, x, 5, &deep, m, false, &e), &e, "conv3x3");
    shape_is_refused(s->op.conv3x3(s, y, 2, x, 4, &huge, m, false, &e), &e, "conv3x3");
    s->op.matrix_close(s, m);
}
static void convolutions_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(bad_convolutions);
}

/* --- GroupNorm --- */

static void normalise(float *y, const float *x, int64_t ld, int64_t images, int64_t pixels,
                      int64_t channels, int64_t groups, const float *w, const float *b, bool silu)
{
    int64_t wide = channels / groups;
    for (int64_t i = 0; i < images * groups; i++) {
        const float *from = x + i / groups * pixels * ld + i % groups * wide;
        double mean = 0, var = 0, n = (double)(pixels * wide);
        for (int64_t t = 0; t < pixels * wide; t++)
            mean += from[t / wide * ld + t % wide] / n;
        for (int64_t t = 0; t < pixels * wide; t++)
            var += pow(from[t / wide * ld + t % wide] - mean, 2) / n;
        for (int64_t t = 0; t < pixels * wide; t++) {
            int64_t h = i % groups * wide + t % wide, at = i / groups * pixels + t / wide;
            double v = (from[t / wide * ld + t % wide] - mean) / sqrt(var + 1e-6) * w[h] + b[h];
            y[at * ld + h] = (float)(silu ? v / (1 + exp(-v)) : v);
        }
    }
}

static void group_norm_of(tt_stream *s, const char *name, int64_t images, int64_t pixels,
                          int64_t channels, int64_t groups, float shift, bool silu)
{
    int64_t rows = images * pixels, ld = channels + (channels % 4 ? 1 : 4);
    float *x = test_rows(rows, channels, ld, 2), *w = test_rows(1, channels, channels, 1);
    float *b = test_rows(1, channels, channels, 1), *want = test_blank(rows, ld);
    float *have = test_blank(rows, ld), *alone = test_blank(rows, ld);
    tt_err e = {0};
    for (int64_t i = 0; i < rows; i++)
        for (int64_t h = 0; h < channels; h++)
            x[i * ld + h] += shift;
    normalise(want, x, ld, images, pixels, channels, groups, w, b, silu);
    test_ok(s->op.group_norm(s, have, ld, x, ld, w, b, images, pixels, channels, groups, 1e-6f,
                             silu, &e), &e);
    test_close(name, have, want, rows, channels, ld, shift != 0 ? 1e-3 : 1e-5);
    test_padding_untouched(name, have, rows, channels, ld);
    int64_t last = (images - 1) * pixels;
    test_ok(s->op.group_norm(s, alone, ld, x + last * ld, ld, w, b, 1, pixels, channels, groups,
                             1e-6f, silu, &e), &e);
    test_ok(s->op.group_norm(s, x, ld, x, ld, w, b, images, pixels, channels, groups, 1e-6f, silu,
                             &e), &e); /* in place */
    for (int64_t r = 0; r < rows; r++)
        test_same_bits(name, x + r * ld, have + r * ld, channels);
    for (int64_t r = 0; r < pixels; r++)
        test_same_bits(name, have + (last + r) * ld, alone + r * ld, channels);
    free(x);
    free(w);
    free(b);
    free(want);
    free(have);
    free(alone);
}

static void each_group_norm(tt_stream *s, const char *name)
{
    group_norm_of(s, name, 2, 9, 32, 32, 0, true);
    group_norm_of(s, name, 3, 64, 64, 32, 0, false);
    group_norm_of(s, name, 1, 1, 3, 1, 0, true);
    group_norm_of(s, name, 2, 300, 96, 32, 0, true);
    group_norm_of(s, name, 1, 1024, 128, 32, 0, true);
    group_norm_of(s, name, 2, 33, 21, 3, 0, true);
    group_norm_of(s, name, 2, 16, 512, 32, 0, true);
    group_norm_of(s, name, 1, 400, 64, 32, 1000, true);
}
static void group_norm_is_that_of_its_definition(void **state)
{
    (void)state;
    test_each(each_group_norm);
}

static void bad_group_norms(tt_stream *s, const char *name)
{
    static float x[64], w[8];
    tt_err e = {0};
    (void)name;
    shape_is_refused(s->op.group_norm(s, x, 8, x, 8, w, w, 1, 2, 8, 3, 1e-6f, true, &e), &e,
                     "group_norm");
    shape_is_refused(s->op.group_norm(s, x, 7, x, 8, w, w, 1, 2, 8, 2, 1e-6f, true, &e), &e,
                     "group_norm");
    shape_is_refused(s->op.group_norm(s, x, 8, x, 8, w, w, -1, 2, 8, 2, 1e-6f, true, &e), &e,
                     "group_norm");
}
static void group_norms_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(bad_group_norms);
}

/* --- pooling --- */

static void pooling_of(tt_stream *s, const char *name)
{
    enum { IMAGES = 3, HEIGHT = 4, WIDTH = 6, CHANNELS = 5, LD = 7 };
    int64_t rows = IMAGES * HEIGHT * WIDTH;
    float *x = test_rows(rows, CHANNELS, LD, 1), *y = test_blank(rows / 4, LD);
    tt_image_shape shape = {IMAGES, HEIGHT, WIDTH, CHANNELS, false};
    tt_err e = {0};
    test_ok(s->op.average_pool(s, y, LD, x, LD, &shape, &e), &e);
    for (int64_t i = 0; i < rows / 4; i++)
        for (int64_t h = 0; h < CHANNELS; h++) {
            int64_t line = i / (WIDTH / 2) * 2, col = i % (WIDTH / 2) * 2;
            const float *a = x + (line * WIDTH + col) * LD + h, *b = a + WIDTH * LD;
            double want = ((double)a[0] + a[LD] + b[0] + b[LD]) / 4;
            assert_float_equal(y[i * LD + h], want, 1e-6);
        }
    test_padding_untouched(name, y, rows / 4, CHANNELS, LD);
    shape.width = 5;
    shape_is_refused(s->op.average_pool(s, y, LD, x, LD, &shape, &e), &e, "average_pool");
    free(x);
    free(y);
}
static void pooling_takes_means_of_four_pixels(void **state)
{
    (void)state;
    test_each(pooling_of);
}

/* --- vector quantisation --- */

static void nearest_of(tt_stream *s, const char *name, int64_t rows, int64_t codes, int64_t dim)
{
    int64_t ld = dim + 2;
    float *x = test_rows(rows, dim, ld, 1), *code = test_rows(codes, dim, dim, 1);
    float *distance = test_blank(rows, 2);
    int32_t *id = calloc((size_t)rows, sizeof *id);
    tt_err e = {0};
    if (codes > 3) /* two codes alike: the first of them is the one */
        memcpy(code + 3 * dim, code + dim, (size_t)dim * sizeof *code);
    memcpy(x, code + dim * (codes > 1), (size_t)dim * sizeof *x);
    test_ok(s->op.nearest(s, id, distance, x, ld, rows, code, codes, dim, &e), &e);
    for (int64_t r = 0; r < rows; r++) {
        double best = INFINITY, second = INFINITY;
        int32_t at = 0;
        for (int32_t k = 0; k < codes; k++) {
            double d = 0;
            for (int64_t i = 0; i < dim; i++)
                d += pow((double)x[r * ld + i] - code[k * dim + i], 2);
            second = d < best ? best : d < second ? d : second;
            at = d < best ? k : at;
            best = d < best ? d : best;
        }
        if (id[r] != at)
            fail_msg("%s: row %lld is %d, not %d", name, (long long)r, id[r], at);
        assert_true(fabs(distance[2 * r] - best) <= 1e-5 * best + 1e-30);
        assert_true(codes == 1 ? isinf(distance[2 * r + 1])
                               : fabs(distance[2 * r + 1] - second) <= 1e-5 * second + 1e-30);
    }
    test_ok(s->op.nearest(s, id, NULL, x, ld, rows, code, codes, dim, &e), &e);
    shape_is_refused(s->op.nearest(s, id, NULL, x, ld, rows, code, 0, dim, &e), &e, "nearest");
    free(x);
    free(code);
    free(distance);
    free(id);
}
static void each_nearest(tt_stream *s, const char *name)
{
    nearest_of(s, name, 9, 1, 3);
    nearest_of(s, name, 30, 17, 33);
    nearest_of(s, name, 4, 500, 64);
}
static void the_nearest_code_wins_the_first_of_equals(void **state)
{
    (void)state;
    test_each(each_nearest);
}

/* --- scatter --- */

static void scatter_of(tt_stream *s, const char *name)
{
    enum { ROWS = 5, DIM = 7, LD = 9 };
    static const int32_t index[ROWS] = {7, 0, 3, 8, 1};
    float *x = test_rows(ROWS, DIM, LD, 1), *y = test_blank(ROWS + 4, LD);
    float *before = test_blank(ROWS + 4, LD);
    tt_err e = {0};
    test_ok(s->op.scatter(s, y, LD, x, LD, index, ROWS, DIM, &e), &e);
    for (int r = 0; r < ROWS; r++) {
        test_same_bits(name, y + index[r] * LD, x + r * LD, DIM);
        memcpy(y + index[r] * LD, before, DIM * sizeof *y);
    }
    assert_memory_equal(y, before, (ROWS + 4) * LD * sizeof *y);
    shape_is_refused(s->op.scatter(s, y, LD, x, DIM - 1, index, ROWS, DIM, &e), &e, "scatter");
    free(x);
    free(y);
    free(before);
}
static void scatter_puts_rows_where_they_belong(void **state)
{
    (void)state;
    test_each(scatter_of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_is_that_of_its_definition),
        cmocka_unit_test(convolutions_that_cannot_be_are_refused),
        cmocka_unit_test(group_norm_is_that_of_its_definition),
        cmocka_unit_test(group_norms_that_cannot_be_are_refused),
        cmocka_unit_test(pooling_takes_means_of_four_pixels),
        cmocka_unit_test(the_nearest_code_wins_the_first_of_equals),
        cmocka_unit_test(scatter_puts_rows_where_they_belong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
