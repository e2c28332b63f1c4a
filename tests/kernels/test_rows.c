/* Row-wise operations: rmsnorm (of rows and heads), gather, cfg_mix, swiglu, gelu, rope, adaln,
 * gate_add, add, add_scaled, gelu_erf, gate_adaln.
 *
 * What can go wrong: widths that are no multiple of a vector, strides with something else in the
 * padding, numbers whose squares or exponentials leave float32, in-place use, a row that changes
 * with its neighbours or with the threads. */
#include "tests/kernels/ops.h"

static const int64_t widths[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 320, 1000};
enum { WIDTHS = sizeof widths / sizeof *widths };
static const int64_t row_counts[] = {0, 1, 3, 17, 200};
enum { COUNTS = sizeof row_counts / sizeof *row_counts };

/* One operation over one set of inputs, so that the tests below are written once. in[] are rows x
 * width with stride ld, out likewise. */
typedef struct {
    const char *name;
    tt_status (*run)(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                     int64_t width, tt_err *e);
    double tolerance;
} operation;

static tt_status run_rmsnorm(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                             int64_t width, tt_err *e)
{
    static float w[1024];
    for (int i = 0; i < 1024; i++)
        w[i] = 0.5f + (float)(i % 7);
    return s->op.rmsnorm(s, out, ld, in[0], ld, w, rows, width, 1e-5f, e);
}
static tt_status run_swiglu(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                            int64_t width, tt_err *e)
{
    return s->op.swiglu(s, out, ld, in[0], in[1], ld, rows, width, e);
}
static tt_status run_cfg_mix(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                             int64_t width, tt_err *e)
{
    float scale[256];
    for (int i = 0; i < 256; i++)
        scale[i] = 1.5f;
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * ld, in[0] + r * ld, (size_t)width * sizeof *out);
    return s->op.cfg_mix(s, out, ld, in[1], ld, scale, rows, width, e);
}
static tt_status run_rope(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                          int64_t width, tt_err *e)
{
    if (width < 2) { /* nothing can rotate */
        for (int64_t r = 0; r < rows; r++)
            out[r * ld] = in[0][r * ld];
        return TT_OK;
    }
    int64_t heads = width % 4 == 0 ? 2 : 1, dim = width / heads, half = dim / 2;
    float *c = malloc((size_t)(rows * half + 1) * sizeof *c);
    float *d = malloc((size_t)(rows * half + 1) * sizeof *d);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < half; i++) {
            c[r * half + i] = cosf(in[2][r * ld] * (float)(i + 1));
            d[r * half + i] = sinf(in[2][r * ld] * (float)(i + 1));
        }
        memcpy(out + r * ld, in[0] + r * ld, (size_t)width * sizeof *out);
    }
    tt_status st = s->op.rope(s, out, ld, c, d, rows, heads, dim, half, e);
    free(c);
    free(d);
    return st;
}
static tt_status run_gather(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                            int64_t width, tt_err *e)
{
    int32_t index[256];
    for (int64_t r = 0; r < rows; r++)
        index[r] = (int32_t)r;
    return s->op.gather(s, out, ld, in[0], ld, index, rows, width, e);
}
static tt_status run_add(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                         int64_t width, tt_err *e)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * ld, in[1] + r * ld, (size_t)width * sizeof *out);
    return s->op.add(s, out, ld, in[0], ld, rows, width, e);
}

static tt_status run_rmsnorm_heads(tt_stream *s, float *out, float *const in[3], int64_t ld,
                                   int64_t rows, int64_t width, tt_err *e)
{
    float w[1024];
    int64_t heads = width % 4 == 0 ? 4 : 1;
    for (int i = 0; i < 1024; i++)
        w[i] = 0.5f + (float)(i % 5);
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * ld, in[0] + r * ld, (size_t)width * sizeof *out);
    return s->op.rmsnorm_heads(s, out, ld, w, rows, heads, width / heads, 1e-6f, e);
}
static tt_status run_gelu(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                          int64_t width, tt_err *e)
{
    return s->op.gelu(s, out, ld, in[0], ld, rows, width, e);
}
static tt_status run_gelu_erf(tt_stream *s, float *out, float *const in[3], int64_t ld,
                              int64_t rows, int64_t width, tt_err *e)
{
    return s->op.gelu_erf(s, out, ld, in[0], ld, rows, width, e);
}
/* Every row has its own modulation, so that a row alone has the same. */
static tt_status run_adaln(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                           int64_t width, tt_err *e)
{
    float w[1024];
    int32_t index[256];
    for (int i = 0; i < 1024; i++)
        w[i] = 0.5f + (float)(i % 7);
    for (int i = 0; i < 256; i++)
        index[i] = i;
    return s->op.adaln(s, out, ld, in[0], ld, w, in[1], in[2], ld, index, rows, width, 1e-5f, e);
}
static tt_status run_gate_add(tt_stream *s, float *out, float *const in[3], int64_t ld,
                              int64_t rows, int64_t width, tt_err *e)
{
    int32_t index[256];
    for (int i = 0; i < 256; i++)
        index[i] = i;
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * ld, in[0] + r * ld, (size_t)width * sizeof *out);
    return s->op.gate_add(s, out, ld, in[1], ld, in[2], ld, index, rows, width, e);
}

/* Residual in[0], added in[1], gate, shift and scale in[2] in turns. */
static tt_status run_gate_adaln(tt_stream *s, float *out, float *const in[3], int64_t ld,
                                int64_t rows, int64_t width, tt_err *e)
{
    float w[1024], *x = malloc((size_t)(rows * ld + 1) * sizeof *x);
    int32_t index[256];
    for (int i = 0; i < 1024; i++)
        w[i] = 0.5f + (float)(i % 7);
    for (int i = 0; i < 256; i++)
        index[i] = i;
    for (int64_t r = 0; r < rows; r++)
        memcpy(x + r * ld, in[0] + r * ld, (size_t)width * sizeof *x);
    tt_status st = s->op.gate_adaln(s, out, ld, x, ld, in[1], ld, w, in[2], in[1], in[2], ld, index,
                                    rows, width, 1e-5f, e);
    free(x);
    return st;
}

/* Half of the rows have scale 0: their addend, which is not to be read, is NaN. */
static tt_status run_add_scaled(tt_stream *s, float *out, float *const in[3], int64_t ld,
                                int64_t rows, int64_t width, tt_err *e)
{
    float scale[256], *x = malloc((size_t)(rows * ld + 1) * sizeof *x);
    for (int64_t r = 0; r < rows; r++) {
        scale[r] = in[2][r * ld] > 0 ? 0.25f : 0;
        memcpy(out + r * ld, in[0] + r * ld, (size_t)width * sizeof *out);
        for (int64_t i = 0; i < width; i++)
            x[r * ld + i] = scale[r] != 0 ? in[1][r * ld + i] : NAN;
    }
    tt_status st = s->op.add_scaled(s, out, ld, x, ld, scale, rows, width, e);
    free(x);
    return st;
}

static tt_status run_layernorm(tt_stream *s, float *out, float *const in[3], int64_t ld,
                               int64_t rows, int64_t width, tt_err *e)
{
    float w[1024], b[1024];
    for (int i = 0; i < 1024; i++) {
        w[i] = 0.5f + (float)(i % 7);
        b[i] = (float)(i % 3) - 1;
    }
    return s->op.layernorm(s, out, ld, in[0], ld, w, b, rows, width, 1e-5f, e);
}
/* By the norm of whole rows, a head at a time. */
static tt_status run_layernorm_heads(tt_stream *s, float *out, float *const in[3], int64_t ld,
                                     int64_t rows, int64_t width, tt_err *e)
{
    float w[1024], b[1024];
    int64_t heads = width % 4 == 0 ? 4 : 1;
    for (int i = 0; i < 1024; i++) {
        w[i] = 0.5f + (float)(i % 7);
        b[i] = (float)(i % 3) - 1;
    }
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * ld, in[0] + r * ld, (size_t)width * sizeof *out);
    return s->op.layernorm_heads(s, out, ld, w, b, rows, heads, width / heads, 1e-5f, e);
}
static tt_status run_unit(tt_stream *s, float *out, float *const in[3], int64_t ld, int64_t rows,
                          int64_t width, tt_err *e)
{
    tt_unit unit = width % 2 ? TT_UNIT_RELU : TT_UNIT_TANH;
    return s->op.unit(s, out, ld, in[0], ld, rows, width, unit, e);
}

static const operation operations[] = {
    {"rmsnorm", run_rmsnorm, 1e-6},   {"swiglu", run_swiglu, 1e-6},
    {"cfg_mix", run_cfg_mix, 1e-6},   {"rope", run_rope, 1e-6},
    {"gather", run_gather, 0},        {"rmsnorm_heads", run_rmsnorm_heads, 1e-6},
    {"gelu", run_gelu, 1e-6},         {"adaln", run_adaln, 1e-6},
    {"gate_add", run_gate_add, 1e-6}, {"add", run_add, 0},
    {"add_scaled", run_add_scaled, 1e-6}, {"gelu_erf", run_gelu_erf, 1e-6},
    {"layernorm", run_layernorm, 1e-6}, {"unit", run_unit, 1e-6},
    {"gate_adaln", run_gate_adaln, 1e-6}, {"layernorm_heads", run_layernorm_heads, 1e-6},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static void compare_with_twin(tt_stream *s, const char *name, float spread)
{
    tt_stream *twin = test_open(&test_devices[0], 1);
    for (int o = 0; o < OPERATIONS; o++)
        for (int w = 0; w < WIDTHS; w++)
            for (int c = 0; c < COUNTS; c++) {
                const operation *op = &operations[o];
                int64_t width = widths[w], rows = row_counts[c], ld = width + w % 3 * 5;
                char what[96];
                snprintf(what, sizeof what, "%s on %s", op->name, name);
                float *in[3];
                for (int i = 0; i < 3; i++)
                    in[i] = test_rows(rows, width, ld, spread);
                float *want = test_blank(rows, ld), *have = test_blank(rows, ld);
                tt_err e = {0};
                test_ok(op->run(twin, want, in, ld, rows, width, &e), &e);
                test_ok(op->run(s, have, in, ld, rows, width, &e), &e);
                test_close(what, have, want, rows, width, ld, op->tolerance);
                test_padding_untouched(what, have, rows, width, ld);
                for (int i = 0; i < 3; i++)
                    free(in[i]);
                free(want);
                free(have);
            }
    tt_stream_close(twin);
}

static void agrees(tt_stream *s, const char *name)
{
    compare_with_twin(s, name, 2.0f);
}
static void agrees_when_large(tt_stream *s, const char *name)
{
    compare_with_twin(s, name, 1e18f); /* squares beyond float32 */
}
static void agrees_when_tiny(tt_stream *s, const char *name)
{
    compare_with_twin(s, name, 1e-30f);
}

static void every_version_agrees_with_the_twin(void **state)
{
    (void)state;
    test_each(agrees);
}
static void huge_and_tiny_numbers_agree_too(void **state)
{
    (void)state;
    test_each(agrees_when_large);
    test_each(agrees_when_tiny);
}

static void nan_and_infinity_stay_in_their_row_on(tt_stream *s, const char *name)
{
    static const float hostile[] = {NAN, INFINITY, -INFINITY, 3.4e38f, -3.4e38f, 1e-45f, 0, -0.0f};
    enum { ROWS = 9, WIDTH = 37 };
    tt_stream *twin = test_open(&test_devices[0], 1);
    for (int o = 0; o < OPERATIONS; o++) {
        float *in[3];
        for (int i = 0; i < 3; i++)
            in[i] = test_rows(ROWS, WIDTH, WIDTH, 1);
        for (int r = 0; r < 8; r++)
            in[0][r * WIDTH + 4 * r] = hostile[r];
        float *want = test_blank(ROWS, WIDTH), *have = test_blank(ROWS, WIDTH);
        tt_err e = {0};
        char what[96];
        snprintf(what, sizeof what, "%s on %s", operations[o].name, name);
        test_ok(operations[o].run(twin, want, in, WIDTH, ROWS, WIDTH, &e), &e);
        test_ok(operations[o].run(s, have, in, WIDTH, ROWS, WIDTH, &e), &e);
        for (int r = 0; r < ROWS; r++)
            test_close(what, have + r * WIDTH, want + r * WIDTH, 1, WIDTH, WIDTH, 1e-6);
        for (int i = 0; i < 3; i++)
            free(in[i]);
        free(want);
        free(have);
    }
    tt_stream_close(twin);
}
static void nan_and_infinity_stay_in_their_row(void **state)
{
    (void)state;
    test_each(nan_and_infinity_stay_in_their_row_on);
}

static void a_row_is_the_same_alone_on(tt_stream *s, const char *name)
{
    static const int batch[] = {1, 2, 3, 5, 8, 16, 17, 32, 100, 128};
    enum { WIDTH = 333, LD = 340 };
    for (int o = 0; o < OPERATIONS; o++)
        for (size_t b = 0; b < sizeof batch / sizeof *batch; b++) {
            int rows = batch[b];
            float *in[3], *row[3];
            for (int i = 0; i < 3; i++)
                in[i] = test_rows(rows, WIDTH, LD, 1);
            float *all = test_blank(rows, LD), *alone = test_blank(1, LD);
            tt_err e = {0};
            test_ok(operations[o].run(s, all, in, LD, rows, WIDTH, &e), &e);
            for (int r = 0; r < rows; r++) {
                for (int i = 0; i < 3; i++)
                    row[i] = in[i] + r * LD;
                test_ok(operations[o].run(s, alone, row, LD, 1, WIDTH, &e), &e);
                char what[96];
                snprintf(what, sizeof what, "%s on %s, row %d of %d", operations[o].name, name, r,
                         rows);
                test_same_bits(what, all + r * LD, alone, WIDTH);
            }
            for (int i = 0; i < 3; i++)
                free(in[i]);
            free(all);
            free(alone);
        }
}
static void a_row_is_the_same_alone_and_in_any_batch(void **state)
{
    (void)state;
    test_each(a_row_is_the_same_alone_on);
}

static void in_place_gives_the_same_on(tt_stream *s, const char *name)
{
    enum { ROWS = 5, WIDTH = 101 };
    float *x = test_rows(ROWS, WIDTH, WIDTH, 1), *up = test_rows(ROWS, WIDTH, WIDTH, 1);
    float *y = test_blank(ROWS, WIDTH), w[WIDTH];
    for (int i = 0; i < WIDTH; i++)
        w[i] = (float)i;
    s->op.rmsnorm(s, y, WIDTH, x, WIDTH, w, ROWS, WIDTH, 1e-6f, NULL);
    float *z = test_blank(ROWS, WIDTH);
    memcpy(z, x, ROWS * WIDTH * sizeof *z);
    s->op.rmsnorm(s, z, WIDTH, z, WIDTH, w, ROWS, WIDTH, 1e-6f, NULL);
    test_same_bits(name, y, z, ROWS * WIDTH);
    s->op.swiglu(s, y, WIDTH, x, up, WIDTH, ROWS, WIDTH, NULL);
    s->op.swiglu(s, x, WIDTH, x, up, WIDTH, ROWS, WIDTH, NULL);
    test_same_bits(name, y, x, ROWS * WIDTH);
    free(x);
    free(up);
    free(y);
    free(z);
}
static void in_place_gives_the_same(void **state)
{
    (void)state;
    test_each(in_place_gives_the_same_on);
}

static void gather_picks_and_repeats_rows_on(tt_stream *s, const char *name)
{
    (void)name;
    float x[4][3] = {{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9, 10, 11}}, y[3][5];
    static const int32_t index[3] = {3, 0, 3};
    assert_int_equal(s->op.gather(s, y, 5, x, 3, index, 3, 3, NULL), TT_OK);
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < 3; i++)
            assert_true(y[r][i] == x[index[r]][i]);
}
static void gather_picks_and_repeats_rows(void **state)
{
    (void)state;
    test_each(gather_picks_and_repeats_rows_on);
}

static void rope_table_holds_cosines_and_rope_turns_by_them_on(tt_stream *s, const char *name)
{
    (void)name;
    enum { ROWS = 3, HALF = 9 };
    static const int32_t position[ROWS] = {0, 1, 40000};
    float inv[HALF], c[ROWS * HALF], d[ROWS * HALF];
    for (int i = 0; i < HALF; i++)
        inv[i] = powf(10000, -(float)i / HALF);
    assert_int_equal(s->op.rope_table(s, c, d, position, inv, ROWS, HALF, NULL), TT_OK);
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < HALF; i++) {
            float angle = (float)position[r] * inv[i];
            assert_float_equal(c[r * HALF + i], cos((double)angle), 1e-7);
            assert_float_equal(d[r * HALF + i], sin((double)angle), 1e-7);
        }
    /* One head of 20 channels: 18 turn, 2 pass through; a quarter turn takes (a, b) to (-b, a). */
    float x[20], quarter_cos[HALF] = {0}, quarter_sin[HALF];
    for (int i = 0; i < 20; i++)
        x[i] = (float)i + 1;
    for (int i = 0; i < HALF; i++)
        quarter_sin[i] = 1;
    assert_int_equal(s->op.rope(s, x, 20, quarter_cos, quarter_sin, 1, 1, 20, HALF, NULL), TT_OK);
    for (int i = 0; i < HALF; i++) {
        assert_true(x[i] == -(float)(i + 1 + HALF));
        assert_true(x[i + HALF] == (float)(i + 1));
    }
    assert_true(x[18] == 19 && x[19] == 20);
}
static void rope_table_holds_cosines_and_rope_turns_by_them(void **state)
{
    (void)state;
    test_each(rope_table_holds_cosines_and_rope_turns_by_them_on);
}

static void modulation_is_layer_norm_with_the_sequences_vectors_on(tt_stream *s, const char *name)
{
    (void)name;
    static const float x[2][4] = {{1, 2, 3, 6}, {1, 2, 3, 6}}, w[4] = {1, 2, 1, 1};
    static const float shift[2][4] = {{0, 0, 0, 0}, {10, 20, 30, 40}};
    static const float scale[2][4] = {{0, 0, 0, 0}, {1, 1, 1, -1}};
    static const int32_t index[2] = {0, 1}, swapped[2] = {1, 1};
    float y[2][4], inv = 1 / sqrtf(3.5f); /* mean 3, variance 3.5 */
    assert_int_equal(s->op.adaln(s, y, 4, x, 4, w, shift, scale, 4, index, 2, 4, 0, NULL), TT_OK);
    for (int i = 0; i < 4; i++) {
        float plain = (x[0][i] - 3) * inv * w[i];
        assert_float_equal(y[0][i], plain, 1e-6);
        assert_float_equal(y[1][i], plain * (1 + scale[1][i]) + shift[1][i], 1e-5);
    }
    float sum[2][4] = {{1, 1, 1, 1}, {2, 2, 2, 2}};
    assert_int_equal(s->op.gate_add(s, sum, 4, x, 4, shift, 4, swapped, 2, 4, NULL), TT_OK);
    for (int i = 0; i < 4; i++) {
        assert_float_equal(sum[0][i], 1 + shift[1][i] * x[0][i], 1e-5);
        assert_float_equal(sum[1][i], 2 + shift[1][i] * x[1][i], 1e-5);
    }
}
static void modulation_is_layer_norm_with_the_sequences_vectors(void **state)
{
    (void)state;
    test_each(modulation_is_layer_norm_with_the_sequences_vectors_on);
}

static void gelu_is_the_tanh_form_on(tt_stream *s, const char *name)
{
    (void)name;
    enum { N = 400 };
    float x[N], y[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * 0.05f;
    assert_int_equal(s->op.gelu(s, y, N, x, N, 1, N, NULL), TT_OK);
    for (int i = 0; i < N; i++) {
        double v = x[i], u = sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v);
        assert_float_equal(y[i], 0.5 * v * (1 + tanh(u)), 2e-6);
    }
}
/* Against gate_add and adaln, bit for bit, in place of what is added. */
static void gate_adaln_is_both_on(tt_stream *s, const char *name)
{
    enum { ROWS = 5, DIM = 37, LD = 40, MODS = 3 };
    static const int32_t index[ROWS] = {2, 0, 1, 2, 0};
    float *x = test_rows(ROWS, DIM, LD, 2), *a = test_rows(ROWS, DIM, LD, 1);
    float *mod = test_rows(MODS, 3 * DIM, 3 * DIM, 1), *w = test_rows(1, DIM, DIM, 1);
    float *one_x = test_blank(ROWS, LD), *one_y = test_blank(ROWS, LD);
    tt_err e = {0};
    for (int r = 0; r < ROWS; r++)
        memcpy(one_x + r * LD, x + r * LD, DIM * sizeof *x);
    test_ok(s->op.gate_add(s, one_x, LD, a, LD, mod, 3 * DIM, index, ROWS, DIM, &e), &e);
    test_ok(s->op.adaln(s, one_y, LD, one_x, LD, w, mod + DIM, mod + 2 * DIM, 3 * DIM, index, ROWS,
                        DIM, 1e-6f, &e), &e);
    test_ok(s->op.gate_adaln(s, a, LD, x, LD, a, LD, w, mod, mod + DIM, mod + 2 * DIM, 3 * DIM,
                             index, ROWS, DIM, 1e-6f, &e), &e);
    for (int r = 0; r < ROWS; r++) {
        test_same_bits(name, x + r * LD, one_x + r * LD, DIM);
        test_same_bits(name, a + r * LD, one_y + r * LD, DIM);
    }
    assert_int_equal(s->op.gate_adaln(s, a, LD, x, LD, a, DIM - 1, w, mod, mod, mod, LD, index,
                                      ROWS, DIM, 1e-6f, &e), TT_EINVAL);
    free(x);
    free(a);
    free(mod);
    free(w);
    free(one_x);
    free(one_y);
}
static void gate_adaln_is_gate_add_and_adaln(void **state)
{
    (void)state;
    test_each(gate_adaln_is_both_on);
}

static void gelu_erf_is_the_exact_form_on(tt_stream *s, const char *name)
{
    (void)name;
    enum { N = 400 };
    float x[N], y[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)(i - N / 2) * 0.05f;
    assert_int_equal(s->op.gelu_erf(s, y, N, x, N, 1, N, NULL), TT_OK);
    for (int i = 0; i < N; i++)
        assert_float_equal(y[i], x[i] * (0.5 + 0.5 * erf(x[i] / sqrt(2))), 2e-6);
}
static void gelu_erf_is_the_exact_form(void **state)
{
    (void)state;
    test_each(gelu_erf_is_the_exact_form_on);
}
static void gelu_is_the_tanh_form(void **state)
{
    (void)state;
    test_each(gelu_is_the_tanh_form_on);
}

static void layer_norm_has_mean_and_deviation_of_its_weights_on(tt_stream *s, const char *name)
{
    (void)name;
    enum { N = 96 };
    float x[N], y[N], one[N], bias[N];
    double sum = 0, squares = 0;
    for (int i = 0; i < N; i++) {
        x[i] = 1000 + (float)(i * i % 31); /* a mean that would swallow the differences */
        one[i] = 1;
        bias[i] = 3;
    }
    assert_int_equal(s->op.layernorm(s, y, N, x, N, one, bias, 1, N, 0, NULL), TT_OK);
    for (int i = 0; i < N; i++) {
        sum += y[i];
        squares += (y[i] - 3.0) * (y[i] - 3.0);
    }
    assert_float_equal(sum / N, 3, 1e-4);
    assert_float_equal(squares / N, 1, 1e-3);
    for (int i = 1; i < N; i++)
        assert_true((x[i] < x[i - 1]) == (y[i] < y[i - 1]));
}
static void layer_norm_has_mean_and_deviation_of_its_weights(void **state)
{
    (void)state;
    test_each(layer_norm_has_mean_and_deviation_of_its_weights_on);
}

static void units_are_what_they_are_called_on(tt_stream *s, const char *name)
{
    (void)name;
    float x[5] = {-3, -0.5f, 0, 0.5f, 3}, y[5];
    assert_int_equal(s->op.unit(s, y, 5, x, 5, 1, 5, TT_UNIT_RELU, NULL), TT_OK);
    for (int i = 0; i < 5; i++)
        assert_float_equal(y[i], x[i] > 0 ? x[i] : 0, 0);
    assert_int_equal(s->op.unit(s, y, 5, x, 5, 1, 5, TT_UNIT_TANH, NULL), TT_OK);
    for (int i = 0; i < 5; i++)
        assert_float_equal(y[i], tanh((double)x[i]), 1e-6);
}
static void units_are_what_they_are_called(void **state)
{
    (void)state;
    test_each(units_are_what_they_are_called_on);
}

static void shapes_that_cannot_be_are_refused_on(tt_stream *s, const char *name)
{
    (void)name;
    float x[64] = {0};
    int32_t id[1] = {0};
    tt_err e = {0};
    assert_int_equal(s->op.rmsnorm(s, x, 8, x, 8, x, -1, 8, 0, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "rmsnorm"));
    assert_int_equal(s->op.rmsnorm(s, x, 8, x, 7, x, 1, 8, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.rmsnorm(s, x, 7, x, 8, x, 1, 8, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.swiglu(s, x, 8, x, x, 7, 1, 8, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "swiglu"));
    assert_int_equal(s->op.cfg_mix(s, x, 8, x, 7, x, 1, 8, &e), TT_EINVAL);
    assert_int_equal(s->op.gather(s, x, 8, x, 8, id, 1, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.add(s, x, 7, x, 8, 1, 8, &e), TT_EINVAL);
    assert_int_equal(s->op.add(s, x, 8, x, 7, 1, 8, &e), TT_EINVAL);
    assert_int_equal(s->op.rope(s, x, 8, x, x, 1, 1, 8, 5, &e), TT_EINVAL);
    assert_int_equal(s->op.rope(s, x, 7, x, x, 1, 1, 8, 4, &e), TT_EINVAL);
    assert_int_equal(s->op.rope_table(s, x, x, id, x, 1, 0, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "rope_table"));
    assert_int_equal(s->op.rmsnorm_heads(s, x, 7, x, 1, 2, 4, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.rmsnorm_heads(s, x, 8, x, 1, 0, 4, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.layernorm_heads(s, x, 7, x, x, 1, 2, 4, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.gelu(s, x, 7, x, 8, 1, 8, &e), TT_EINVAL);
    assert_int_equal(s->op.adaln(s, x, 8, x, 8, x, x, x, 7, id, 1, 8, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.layernorm(s, x, 7, x, 8, x, x, 1, 8, 0, &e), TT_EINVAL);
    assert_int_equal(s->op.unit(s, x, 8, x, 7, 1, 8, TT_UNIT_RELU, &e), TT_EINVAL);
    assert_int_equal(s->op.gate_add(s, x, 8, x, 8, x, 7, id, 1, 8, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "gate_add"));
}
static void shapes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(shapes_that_cannot_be_are_refused_on);
}

/* rope_store is rope on queries and keys, and copies of the rows that have a store. */
static void keys_and_values_reach_their_columns_on(tt_stream *s, const char *name)
{
    enum { ROWS = 9, HEADS = 4, KV = 2, DIM = 6, HALF = 2, COLUMNS = 12, WIDTH = KV * DIM };
    enum { Q = HEADS * DIM, LD = Q + 2 * WIDTH + 1 };
    static const int32_t column[ROWS] = {0, 7, 3, 11, 4, 5, 6, 1, 2};
    float *x = test_rows(ROWS, LD - 1, LD, 1), *want = test_blank(ROWS, LD);
    float *cs = test_rows(ROWS, HALF, HALF, 1), *sn = test_rows(ROWS, HALF, HALF, 1);
    float *k[2], *v[2];
    tt_err e = {0};
    memcpy(want, x, ROWS * LD * sizeof *x);
    for (int i = 0; i < 2; i++) {
        k[i] = test_blank(COLUMNS, WIDTH);
        v[i] = test_blank(COLUMNS, WIDTH);
    }
    const tt_store store[2] = {{1, 3, k[0], v[0]}, {6, 3, k[1], v[1]}};
    test_ok(s->op.rope(s, want, LD, cs, sn, ROWS, HEADS + KV, DIM, HALF, &e), &e);
    test_ok(s->op.rope_store(s, x, LD, cs, sn, ROWS, HEADS, KV, DIM, HALF, store, 2, column, &e),
            &e);
    for (int r = 0; r < ROWS; r++)
        test_same_bits(name, x + r * LD, want + r * LD, LD - 1);
    for (int i = 0; i < 2; i++) {
        float *keys = test_blank(COLUMNS, WIDTH), *values = test_blank(COLUMNS, WIDTH);
        for (int64_t r = store[i].row; r < store[i].row + store[i].rows; r++) {
            memcpy(keys + column[r] * WIDTH, want + r * LD + Q, WIDTH * sizeof *x);
            memcpy(values + column[r] * WIDTH, want + r * LD + Q + WIDTH, WIDTH * sizeof *x);
        }
        test_same_bits(name, k[i], keys, COLUMNS * WIDTH);
        test_same_bits(name, v[i], values, COLUMNS * WIDTH);
        free(keys);
        free(values);
        free(k[i]);
        free(v[i]);
    }
    free(x);
    free(want);
    free(cs);
    free(sn);
}
static void keys_and_values_reach_their_columns(void **state)
{
    (void)state;
    test_each(keys_and_values_reach_their_columns_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_values_reach_their_columns),
        cmocka_unit_test(every_version_agrees_with_the_twin),
        cmocka_unit_test(huge_and_tiny_numbers_agree_too),
        cmocka_unit_test(nan_and_infinity_stay_in_their_row),
        cmocka_unit_test(a_row_is_the_same_alone_and_in_any_batch),
        cmocka_unit_test(in_place_gives_the_same),
        cmocka_unit_test(gather_picks_and_repeats_rows),
        cmocka_unit_test(rope_table_holds_cosines_and_rope_turns_by_them),
        cmocka_unit_test(modulation_is_layer_norm_with_the_sequences_vectors),
        cmocka_unit_test(gelu_is_the_tanh_form),
        cmocka_unit_test(layer_norm_has_mean_and_deviation_of_its_weights),
        cmocka_unit_test(units_are_what_they_are_called),
        cmocka_unit_test(gelu_erf_is_the_exact_form),
        cmocka_unit_test(gate_adaln_is_gate_add_and_adaln),
        cmocka_unit_test(shapes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
