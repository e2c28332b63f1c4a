/* Operations on images of the CUDA plug-in, against the twins and against themselves: convolution,
 * GroupNorm, pooling, vector quantisation, scatter, exact GELU, products with GELU, products with
 * scattered outputs, residuals with the next norm.
 *
 * What can go wrong: tiles that end inside an image, a tap over an image's border, channels that
 * are no multiple of 8 or of what is read at a time, fewer outputs than a tile, tiles of another
 * size for another number of images, more tiles than run at once, shares of a sum that are not of
 * one length or added up in another order, statistics put together in another order when images
 * share a launch, ties between codes found by different warps. */
#include "tests/kernels/cuda.h"

static void drop(void *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gpu->op.release(gpu, list[i]);
}
#define DROP(...) \
    drop((void *const[]){__VA_ARGS__}, sizeof((void *[]){__VA_ARGS__}) / sizeof(void *))

static void *at(void *p, int64_t elements)
{
    return (char *)p + (size_t)elements * tt_dtype_size(gpu->act);
}

/* --- convolution --- */

typedef struct {
    tt_image_shape shape;
    int64_t out, pad; /* pad: beyond a row */
    tt_dtype stored;
    bool bias, add;
} conv_case;

static const conv_case convs[] = {
    {{1, 1, 1, 1, false}, 1, 0, TT_F32, false, false},
    {{2, 3, 5, 3, false}, 4, 3, TT_F32, true, false},
    {{3, 8, 8, 32, false}, 64, 8, TT_BF16, true, true},
    {{2, 16, 16, 64, true}, 96, 0, TT_F32, true, false},
    {{2, 16, 16, 64, false}, 3, 0, TT_F32, true, false},
    {{5, 11, 13, 40, false}, 130, 0, TT_F32, false, true},
    {{1, 6, 4, 24, true}, 9, 5, TT_I8, true, false},
    {{1, 32, 32, 256, false}, 256, 0, TT_BF16, true, false},
    {{6, 16, 16, 128, false}, 512, 0, TT_BF16, true, true},
    {{2, 34, 26, 72, false}, 136, 8, TT_I8, true, true},
    {{3, 22, 38, 200, true}, 72, 0, TT_BF16, true, false},
    {{4, 6, 10, 8, true}, 40, 8, TT_F32, false, true},
    {{3, 112, 120, 24, false}, 72, 0, TT_BF16, false, false}, /* more tiles than blocks */
    /* Small maps and long sums, which are made of shares: by clusters, of tiles of one width for
     * one image and of others for several. */
    {{9, 16, 16, 256, false}, 264, 0, TT_BF16, true, true},
    {{2, 32, 32, 256, true}, 128, 0, TT_BF16, true, false},
    {{3, 20, 16, 320, false}, 64, 8, TT_F32, true, false},
    {{2, 13, 27, 328, false}, 70, 0, TT_I8, true, true},
    {{20, 8, 9, 512, false}, 250, 0, TT_BF16, false, false},
    /* Large maps, by two warpgroups with weights in common: more tiles than blocks, and fewer. */
    {{4, 122, 125, 72, false}, 120, 8, TT_BF16, true, true},
    {{2, 128, 122, 24, true}, 128, 0, TT_BF16, true, false},
    {{2, 120, 122, 128, false}, 64, 0, TT_BF16, true, false},
    {{0, 4, 4, 8, false}, 8, 0, TT_F32, true, false},
};
enum { CONVS = sizeof convs / sizeof *convs };

static void convolution_of(const conv_case *c)
{
    const tt_image_shape *p = &c->shape;
    int64_t rows = p->images * p->height * p->width, k = 9 * p->channels;
    int64_t ldx = p->channels + c->pad, ldy = c->out + c->pad, from = p->up ? rows / 4 : rows;
    float *x = test_rows(from, p->channels, ldx, 1), *y = test_rows(rows, c->out, ldy, 1);
    float *bias = test_rows(1, c->out, c->out, 1);
    tt_weight w = weight_of(c->stored, c->out, k);
    const float *shift = c->bias ? bias : NULL;
    tt_matrix *on_gpu = open_on(gpu, &w, 1, shift, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *on_twin = open_on(twin, &w, 1, shift, compute_of(), TT_MATRIX_LINEAR);
    void *dx = acts(x, from * ldx), *dy = acts(y, rows * ldy), *alone = acts(y, rows * ldy);
    char what[80];
    tt_err e = {0};
    /* Other channels than whole runs of 64 are added up one by one. */
    double allowed = in_thirds && p->channels % 64 ? 1e-5 : tolerance();
    snprintf(what, sizeof what, "%s convolution of %lld x %lld, %lld to %lld channels", kind(),
             (long long)p->height, (long long)p->width, (long long)p->channels, (long long)c->out);
    test_ok(twin->op.conv3x3(twin, y, ldy, x, ldx, p, on_twin, c->add, &e), &e);
    test_ok(gpu->op.conv3x3(gpu, dy, ldy, dx, ldx, p, on_gpu, c->add, &e), &e);
    float *have = floats(dy, rows * ldy);
    test_close(what, have, y, rows, c->out, ldy, allowed);
    if (p->images) {
        tt_image_shape one = *p;
        int64_t last = rows - rows / p->images;
        one.images = 1;
        test_ok(gpu->op.conv3x3(gpu, at(alone, last * ldy), ldy,
                                at(dx, (from - from / p->images) * ldx), ldx, &one, on_gpu, c->add,
                                &e), &e);
        float *bits = floats(alone, rows * ldy);
        for (int64_t r = last; r < rows; r++)
            test_same_bits(what, have + r * ldy, bits + r * ldy, c->out);
        free(bits);
    }
    gpu->op.matrix_close(gpu, on_gpu);
    twin->op.matrix_close(twin, on_twin);
    DROP(dx, dy, alone);
    free_weight(&w);
    free(x);
    free(y);
    free(bias);
    free(have);
}
static void each_convolution(void)
{
    for (int i = 0; i < CONVS; i++)
        convolution_of(&convs[i]);
}
static void convolution_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_convolution());
}
static void convolution_in_thirds_agrees_with_the_twin(void **state)
{
    (void)state;
    IN_THIRDS(each_convolution());
}

/* --- GroupNorm --- */

static void group_norm_of(int64_t images, int64_t pixels, int64_t channels, int64_t groups,
                          float shift, bool silu)
{
    int64_t rows = images * pixels, ld = channels + (channels % 4 ? 1 : 4), n = rows * ld;
    float *x = test_rows(rows, channels, ld, 2), *w = test_rows(1, channels, channels, 1);
    float *b = test_rows(1, channels, channels, 1);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t h = 0; h < channels; h++)
            x[i * ld + h] += shift;
    void *dx = acts(x, n), *dy = acts(x, n), *alone = acts(x, n);
    void *dw = to_device(w, (size_t)channels * 4), *db = to_device(b, (size_t)channels * 4);
    int64_t last = (images - 1) * pixels;
    char what[80];
    tt_err e = {0};
    snprintf(what, sizeof what, "%s group_norm of %lld x %lld", kind(), (long long)pixels,
             (long long)channels);
    test_ok(gpu->op.group_norm(gpu, dy, ld, dx, ld, dw, db, images, pixels, channels, groups,
                               1e-6f, silu, &e), &e);
    test_ok(gpu->op.group_norm(gpu, at(alone, last * ld), ld, at(dx, last * ld), ld, dw, db, 1,
                               pixels, channels, groups, 1e-6f, silu, &e), &e);
    test_ok(twin->op.group_norm(twin, x, ld, x, ld, w, b, images, pixels, channels, groups, 1e-6f,
                                silu, &e), &e);
    float *have = floats(dy, n), *bits = floats(alone, n);
    test_close(what, have, x, rows, channels, ld, shift != 0 ? 1e-3 : tolerance());
    for (int64_t r = last; r < rows; r++)
        test_same_bits(what, have + r * ld, bits + r * ld, channels);
    DROP(dx, dy, alone, dw, db);
    free(have);
    free(bits);
    free(x);
    free(w);
    free(b);
}
static void each_group_norm(void)
{
    group_norm_of(2, 9, 32, 32, 0, true);
    group_norm_of(3, 64, 64, 32, 0, false);
    group_norm_of(1, 1, 3, 1, 0, true);
    group_norm_of(2, 1000, 128, 32, 0, true);
    group_norm_of(2, 33, 21, 3, 0, true);
    group_norm_of(2, 4096, 512, 32, 0, true);
    group_norm_of(1, 100, 4096, 32, 0, true);
    group_norm_of(1, 400, 384, 32, 0, true);
    group_norm_of(40, 1000, 128, 32, 0, false); /* few blocks an image */
    group_norm_of(600, 20, 96, 32, 0, true);    /* more images than blocks at a time */
    group_norm_of(2, 20000, 64, 32, 0, true);
    group_norm_of(1, 400, 128, 32, gpu->act == TT_F32 ? 1000 : 0, true);
}
static void group_norm_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_group_norm());
}

/* --- the others --- */

static void pooling(void)
{
    enum { IMAGES = 3, HEIGHT = 4, WIDTH = 6, CHANNELS = 130, LD = 133 };
    int64_t rows = IMAGES * HEIGHT * WIDTH;
    tt_image_shape shape = {IMAGES, HEIGHT, WIDTH, CHANNELS, false};
    float *x = test_rows(rows, CHANNELS, LD, 1), *y = test_rows(rows / 4, CHANNELS, LD, 1);
    void *dx = acts(x, rows * LD), *dy = acts(y, rows / 4 * LD);
    tt_err e = {0};
    test_ok(twin->op.average_pool(twin, y, LD, x, LD, &shape, &e), &e);
    test_ok(gpu->op.average_pool(gpu, dy, LD, dx, LD, &shape, &e), &e);
    float *have = floats(dy, rows / 4 * LD);
    test_close("average_pool", have, y, rows / 4, CHANNELS, LD, tolerance());
    DROP(dx, dy);
    free(have);
    free(x);
    free(y);
}
static void pooling_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(pooling());
}

static void nearest_of(int64_t rows, int64_t codes, int64_t dim)
{
    int64_t ld = dim + 2;
    float *x = test_rows(rows, dim, ld, 1), *code = test_rows(codes, dim, dim, 1);
    if (codes > 9) /* alike, and found by different warps */
        memcpy(code + 9 * dim, code + dim, (size_t)dim * 4);
    memcpy(x, code + dim * (codes > 1), (size_t)dim * 4);
    void *dx = acts(x, rows * ld), *dcode = to_device(code, (size_t)(codes * dim) * 4);
    void *did = device((size_t)rows * 4), *dd = device((size_t)rows * 8);
    int32_t *want = calloc((size_t)rows, 4), *have = calloc((size_t)rows, 4);
    float *distance = calloc((size_t)rows, 8), *other = calloc((size_t)rows, 8);
    tt_err e = {0};
    test_ok(twin->op.nearest(twin, want, distance, x, ld, rows, code, codes, dim, &e), &e);
    test_ok(gpu->op.nearest(gpu, did, dd, dx, ld, rows, dcode, codes, dim, &e), &e);
    from_device(have, did, (size_t)rows * 4);
    from_device(other, dd, (size_t)rows * 8);
    for (int64_t r = 0; r < rows; r++) {
        if (have[r] != want[r])
            fail_msg("nearest: row %lld is %d, not %d", (long long)r, have[r], want[r]);
        for (int64_t i = 2 * r; i < 2 * r + 2; i++)
            assert_true(isinf(distance[i]) ? isinf(other[i])
                                           : fabsf(other[i] - distance[i]) <=
                                                 1e-4f * distance[i] + 1e-9f);
    }
    DROP(dx, dcode, did, dd);
    free(x);
    free(code);
    free(want);
    free(have);
    free(distance);
    free(other);
}
static void each_nearest(void)
{
    nearest_of(9, 1, 3);
    nearest_of(30, 17, 33);
    nearest_of(300, 1024, 256);
}
static void nearest_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_nearest());
}

static void scatter_of(int64_t dim, int64_t ld)
{
    enum { ROWS = 5, ALL = 9 };
    static const int32_t index[ROWS] = {7, 0, 3, 8, 1};
    float *x = test_rows(ROWS, dim, ld, 1), *y = test_rows(ALL, dim, ld, 1);
    void *dx = acts(x, ROWS * ld), *dy = acts(y, ALL * ld), *di = to_device(index, sizeof index);
    tt_err e = {0};
    test_ok(twin->op.scatter(twin, y, ld, x, ld, index, ROWS, dim, &e), &e);
    test_ok(gpu->op.scatter(gpu, dy, ld, dx, ld, di, ROWS, dim, &e), &e);
    float *have = floats(dy, ALL * ld);
    for (int r = 0; r < ALL; r++)
        test_same_bits("scatter", have + r * ld, y + r * ld, dim);
    test_ok(twin->op.gelu_erf(twin, y, ld, x, ld, ROWS, dim, &e), &e);
    test_ok(gpu->op.gelu_erf(gpu, dy, ld, dx, ld, ROWS, dim, &e), &e);
    free(have);
    have = floats(dy, ROWS * ld);
    test_close("gelu_erf", have, y, ROWS, dim, ld, tolerance());
    DROP(dx, dy, di);
    free(have);
    free(x);
    free(y);
}
static void each_scatter(void)
{
    scatter_of(7, 9);
    scatter_of(64, 64);
    scatter_of(2048, 3072);
}
static void scatter_and_gelu_agree_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_scatter());
}

/* --- what the generator's blocks are made of --- */

static void gelu_of_product(int64_t rows, int64_t n, int64_t k, tt_dtype stored)
{
    float *x = test_rows(rows, k, k, 1), *y = test_rows(rows, n, n, 1);
    float *bias = test_rows(1, n, n, 1);
    tt_weight w = weight_of(stored, n, k);
    tt_matrix *on_gpu = open_on(gpu, &w, 1, bias, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *on_twin = open_on(twin, &w, 1, bias, compute_of(), TT_MATRIX_LINEAR);
    void *dx = acts(x, rows * k), *dy = acts(y, rows * n), *alone = acts(y, n);
    char what[80];
    tt_err e = {0};
    snprintf(what, sizeof what, "%s gelu of %lld x %lld x %lld", kind(), (long long)rows,
             (long long)n, (long long)k);
    test_ok(twin->op.linear_gelu(twin, y, n, x, k, rows, on_twin, &e), &e);
    test_ok(gpu->op.linear_gelu(gpu, dy, n, dx, k, rows, on_gpu, &e), &e);
    test_ok(gpu->op.linear_gelu(gpu, alone, n, at(dx, (rows - 1) * k), k, 1, on_gpu, &e), &e);
    float *have = floats(dy, rows * n), *one = floats(alone, n);
    test_close(what, have, y, rows, n, n, gpu->act == TT_F32 ? 1e-5 : 2e-2);
    test_same_bits(what, have + (rows - 1) * n, one, n);
    gpu->op.matrix_close(gpu, on_gpu);
    twin->op.matrix_close(twin, on_twin);
    DROP(dx, dy, alone);
    free_weight(&w);
    free(x);
    free(y);
    free(bias);
    free(have);
    free(one);
}
static void each_gelu_of_product(void)
{
    gelu_of_product(3, 7, 5, TT_F32);
    gelu_of_product(70, 192, 48, TT_BF16);
    gelu_of_product(300, 4096, 1024, TT_BF16);
    gelu_of_product(33, 1024, 4096, TT_BF16); /* sums of quarters */
    gelu_of_product(130, 200, 61, TT_I8);
}
static void gelu_of_a_product_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_gelu_of_product());
}

/* The first outputs stay, the others go to rows of their own. */
static void split_of(int64_t rows, int64_t n, int64_t k, int64_t split)
{
    int64_t rest = n - split, ldy = n + 8, ldz = rest + 8, all = 2 * rows + 1;
    float *x = test_rows(rows, k, k, 1), *y = test_rows(rows, n, ldy, 1);
    float *z = test_rows(all, rest, ldz, 1), *bias = test_rows(1, n, n, 1);
    tt_weight w = weight_of(TT_BF16, n, k);
    tt_matrix *m = open_on(gpu, &w, 1, bias, compute_of(), TT_MATRIX_LINEAR);
    int32_t *index = calloc((size_t)rows, 4);
    for (int64_t r = 0; r < rows; r++)
        index[r] = (int32_t)(2 * ((r * 7 + 3) % rows) + 1); /* in any order where 7 allows it */
    if (rows % 7 == 0)
        for (int64_t r = 0; r < rows; r++)
            index[r] = (int32_t)(2 * (rows - 1 - r) + 1);
    void *dx = acts(x, rows * k), *dy = acts(y, rows * ldy), *dz = acts(z, all * ldz);
    void *sy = acts(y, rows * ldy), *sz = acts(z, all * ldz);
    void *di = to_device(index, (size_t)rows * 4);
    char what[80];
    tt_err e = {0};
    snprintf(what, sizeof what, "%s split at %lld of %lld x %lld x %lld", kind(), (long long)split,
             (long long)rows, (long long)n, (long long)k);
    test_ok(gpu->op.linear(gpu, sy, ldy, dx, k, rows, m, false, &e), &e);
    test_ok(gpu->op.scatter(gpu, sz, ldz, at(sy, split), ldy, di, rows, rest, &e), &e);
    test_ok(gpu->op.linear_split(gpu, dy, ldy, split, dz, ldz, di, dx, k, rows, m, &e), &e);
    float *have = floats(dy, rows * ldy), *want = floats(sy, rows * ldy);
    float *have_z = floats(dz, all * ldz), *want_z = floats(sz, all * ldz);
    for (int64_t r = 0; r < rows; r++)
        test_same_bits(what, have + r * ldy, want + r * ldy, split);
    for (int64_t r = 0; r < all; r++)
        test_same_bits(what, have_z + r * ldz, want_z + r * ldz, rest);
    assert_int_equal(gpu->op.linear_split(gpu, dy, ldy, n, dz, ldz, di, dx, k, rows, m, &e),
                     TT_EINVAL);
    gpu->op.matrix_close(gpu, m);
    DROP(dx, dy, dz, sy, sz, di);
    free_weight(&w);
    free(index);
    free(x);
    free(y);
    free(z);
    free(bias);
    free(have);
    free(want);
    free(have_z);
    free(want_z);
}
static void each_split(void)
{
    split_of(5, 24, 16, 8);
    split_of(60, 192, 64, 64);
    split_of(300, 3072, 1024, 1024);
    split_of(129, 2048, 1024, 0);
    split_of(33, 1024, 4096, 512); /* sums of quarters */
    split_of(70, 200, 64, 40);
}
static void a_split_product_is_linear_and_scatter(void **state)
{
    (void)state;
    BOTH_TYPES(each_split());
}

static void gate_adaln_of(int64_t dim, int64_t ld)
{
    enum { ROWS = 5, MODS = 3 };
    static const int32_t index[ROWS] = {2, 0, 1, 2, 0};
    int64_t n = ROWS * ld;
    float *x = test_rows(ROWS, dim, ld, 2), *a = test_rows(ROWS, dim, ld, 1);
    float *mod = test_rows(MODS, 3 * dim, 3 * dim, 1), *w = test_rows(1, dim, dim, 1);
    void *dx = acts(x, n), *da = acts(a, n), *dm = acts(mod, MODS * 3 * dim);
    void *sx = acts(x, n), *sy = acts(a, n), *dw = to_device(w, (size_t)dim * 4);
    void *di = to_device(index, sizeof index);
    tt_err e = {0};
    test_ok(gpu->op.gate_add(gpu, sx, ld, da, ld, dm, 3 * dim, di, ROWS, dim, &e), &e);
    test_ok(gpu->op.adaln(gpu, sy, ld, sx, ld, dw, at(dm, dim), at(dm, 2 * dim), 3 * dim, di, ROWS,
                          dim, 1e-6f, &e), &e);
    test_ok(gpu->op.gate_adaln(gpu, da, ld, dx, ld, da, ld, dw, dm, at(dm, dim), at(dm, 2 * dim),
                               3 * dim, di, ROWS, dim, 1e-6f, &e), &e);
    float *have = floats(da, n), *want = floats(sy, n), *have_x = floats(dx, n);
    float *want_x = floats(sx, n);
    for (int r = 0; r < ROWS; r++) {
        test_same_bits("gate_adaln", have + r * ld, want + r * ld, dim);
        test_same_bits("gate_adaln's sum", have_x + r * ld, want_x + r * ld, dim);
    }
    test_ok(twin->op.gate_adaln(twin, a, ld, x, ld, a, ld, w, mod, mod + dim, mod + 2 * dim,
                                3 * dim, index, ROWS, dim, 1e-6f, &e), &e);
    test_close("gate_adaln", have, a, ROWS, dim, ld, tolerance());
    DROP(dx, da, dm, sx, sy, dw, di);
    free(x);
    free(a);
    free(mod);
    free(w);
    free(have);
    free(want);
    free(have_x);
    free(want_x);
}
static void each_gate_adaln(void)
{
    gate_adaln_of(7, 9);
    gate_adaln_of(300, 304);
    gate_adaln_of(488, 496);
    gate_adaln_of(1024, 1024);
}
static void gate_adaln_is_the_twin_and_both_in_one(void **state)
{
    (void)state;
    BOTH_TYPES(each_gate_adaln());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_agrees_with_the_twin),
        cmocka_unit_test(convolution_in_thirds_agrees_with_the_twin),
        cmocka_unit_test(group_norm_agrees_with_the_twin),
        cmocka_unit_test(pooling_agrees_with_the_twin),
        cmocka_unit_test(nearest_agrees_with_the_twin),
        cmocka_unit_test(scatter_and_gelu_agree_with_the_twin),
        cmocka_unit_test(gelu_of_a_product_agrees_with_the_twin),
        cmocka_unit_test(a_split_product_is_linear_and_scatter),
        cmocka_unit_test(gate_adaln_is_the_twin_and_both_in_one),
    };
    return cmocka_run_group_tests(tests, open_streams, close_streams);
}
