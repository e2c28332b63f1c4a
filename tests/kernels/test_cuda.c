/* The CUDA plug-in against the twins, over odd sizes and hostile values, and against itself: a row
 * has the same bits whatever shares the call. Without a GPU every test is skipped and counted.
 *
 * What can go wrong: tails of tiles in rows, outputs and inputs, padding that holds NaN, a scale or
 * bias on the wrong column, the gate taken for the up projection, a key tile read past its span,
 * parts merged out of order, a tile of logits that is reduced differently, and bits that change
 * with the tile size that the number of rows chose. */
#include "tests/kernels/cuda.h"

/* --- products --- */

typedef struct {
    int64_t n, k, rows, more; /* more: stride beyond the width */
} product;

static const product products[] = {
    {1, 1, 1, 0},         {3, 2, 5, 3},        {17, 5, 2, 1},        {64, 64, 16, 0},
    {63, 65, 33, 2},      {80, 128, 64, 8},    {129, 320, 65, 0},    {320, 40, 130, 16},
    {1000, 256, 31, 0},   {520, 2056, 7, 8},   {96, 72, 257, 0},     {4096, 512, 32, 0},
    {4096, 1024, 300, 0}, {12288, 256, 48, 0}, {2048, 4096, 129, 0}, {200, 8, 640, 0},
    {2048, 4224, 256, 0}, {2048, 4104, 100, 8}, {6144, 320, 700, 0},
    {1320, 512, 16, 8},   {5280, 256, 40, 0},  {2176, 2048, 100, 0}, {1920, 2048, 250, 0},
    {5280, 128, 330, 0},  {1024, 2048, 250, 0}, {1000, 2048, 121, 8},
};
enum { PRODUCTS = sizeof products / sizeof *products };

/* y = (y +) x w^T on both, and rows of the middle alone on the GPU: the same bits. */
static void one_product(const product *p, tt_dtype type, bool add, bool with_bias)
{
    tt_weight w = weight_of(type, p->n, p->k);
    float *bias = with_bias ? test_rows(1, p->n, p->n, 1) : NULL;
    int64_t ldx = p->k + p->more, ldy = p->n + p->more, rows = p->rows;
    float *x = test_rows(rows, p->k, ldx, 1), *want = test_rows(rows, p->n, ldy, 1);
    void *dx = acts(x, rows * ldx), *dy = acts(want, rows * ldy);
    tt_matrix *a = open_on(twin, &w, 1, bias, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, &w, 1, bias, compute_of(), TT_MATRIX_LINEAR);
    tt_err e = {0};
    float *before = floats(dy, rows * ldy);
    test_ok(twin->op.linear(twin, want, ldy, x, ldx, rows, a, add, &e), &e);
    test_ok(gpu->op.linear(gpu, dy, ldy, dx, ldx, rows, b, add, &e), &e);
    float *have = floats(dy, rows * ldy);
    char what[120];
    snprintf(what, sizeof what, "linear %s weights, %s, %lld x %lld x %lld%s", tt_dtype_name(type),
             kind(), (long long)rows, (long long)p->n, (long long)p->k, add ? ", add" : "");
    test_close(what, have, want, rows, p->n, ldy, tolerance());
    for (int64_t r = 0; r < rows; r++)
        test_same_bits("padding", have + r * ldy + p->n, before + r * ldy + p->n, ldy - p->n);
    for (int64_t n = 1; n < rows && !add; n = n * 3 + 1) {
        int64_t first = rows / 2 - n / 2 < 0 ? 0 : rows / 2 - n / 2;
        size_t act = tt_dtype_size(gpu->act);
        n = first + n > rows ? rows - first : n;
        float *in = malloc((size_t)(n * ldx) * 4);
        memcpy(in, x + first * ldx, (size_t)(n * ldx) * 4);
        void *dn = acts(in, n * ldx), *out = device((size_t)(n * ldy) * act);
        test_ok(gpu->op.linear(gpu, out, ldy, dn, ldx, n, b, false, &e), &e);
        float *alone = floats(out, n * ldy);
        for (int64_t r = 0; r < n; r++)
            test_same_bits(what, have + (first + r) * ldy, alone + r * ldy, p->n);
        free(in);
        free(alone);
        gpu->op.release(gpu, dn);
        gpu->op.release(gpu, out);
    }
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    gpu->op.release(gpu, dx);
    gpu->op.release(gpu, dy);
    free(before);
    free(have);
    free(want);
    free(x);
    free(bias);
    free_weight(&w);
}
static void products_agree(void)
{
    static const tt_dtype type[] = {TT_F32, TT_BF16, TT_F16, TT_I8};
    for (int i = 0; i < PRODUCTS; i++)
        for (int t = 0; t < 4; t++)
            if (t == 1 || products[i].n * products[i].k < 400000)
                for (int add = 0; add < 2; add++)
                    one_product(&products[i], type[t], add, t % 2);
}
static void linear_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(products_agree());
}

static void products_agree_in_thirds(void)
{
    static const product more[] = {{1024, 1024, 549, 0}, {3072, 1024, 769, 8}, {70, 200, 1, 1}};
    products_agree();
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        one_product(&more[i], TT_F32, i > 0, true);
}
static void linear_in_thirds_agrees_with_the_twin(void **state)
{
    (void)state;
    IN_THIRDS(products_agree_in_thirds());
}

/* Of rows x n sums, against double. */
static double error_of(tt_compute compute, const tt_weight *w, const float *x, int64_t rows)
{
    int64_t n = w->data.dim[0], k = w->data.dim[1];
    const float *weight = w->data.data;
    tt_err e = {0};
    tt_matrix *m = open_on(gpu, w, 1, NULL, compute, TT_MATRIX_LINEAR);
    void *dx = to_device(x, (size_t)(rows * k) * 4), *dy = device((size_t)(rows * n) * 4);
    test_ok(gpu->op.linear(gpu, dy, n, dx, k, rows, m, false, &e), &e);
    float *have = floats(dy, rows * n);
    double off = 0, norm = 0;
    for (int64_t i = 0; i < rows * n; i++) {
        double want = 0;
        for (int64_t j = 0; j < k; j++)
            want += (double)x[i / n * k + j] * weight[i % n * k + j];
        off += (have[i] - want) * (have[i] - want);
        norm += want * want;
    }
    gpu->op.matrix_close(gpu, m);
    gpu->op.release(gpu, dx);
    gpu->op.release(gpu, dy);
    free(have);
    return sqrt(off / norm);
}

/* Sums of numbers of one sign are the worst for a multiplier that cuts bits off: every error has
 * the sum's sign. The plain kernel adds K numbers one after the other, each time rounding; thirds
 * must not be worse than that where codes are found with them. */
static void thirds_are_as_near_as_float32(void **state)
{
    (void)state;
    need_gpu();
    if (!gpu->op.has_compute(gpu, TT_COMPUTE_THIRDS))
        skip();
    enum { ROWS = 40, N = 72 };
    gpu->act = TT_F32;
    for (int64_t k = 64; k <= 4096; k *= 4)
        for (int sign = 0; sign < 2; sign++) {
            float *x = test_rows(ROWS, k, k, 1), *v = test_rows(N, k, k, 1);
            for (int64_t i = 0; i < ROWS * k && sign; i++)
                x[i] = fabsf(x[i]);
            for (int64_t i = 0; i < N * k && sign; i++)
                v[i] = fabsf(v[i]);
            tt_weight w = test_weight(v, TT_F32, N, k);
            double plain = error_of(TT_COMPUTE_F32, &w, x, ROWS);
            double thirds = error_of(TT_COMPUTE_THIRDS, &w, x, ROWS);
            print_message("%lld inputs%s: error %.2e plain, %.2e in thirds\n", (long long)k,
                          sign ? " of one sign" : "", plain, thirds);
            assert_true(thirds < 1e-6 && thirds < 2 * plain + 3e-7);
            free(x);
            free(v);
        }
}

static void one_glu(const product *p, tt_dtype type)
{
    int64_t n = p->n, rows = p->rows, ldx = p->k + p->more, ldy = n + p->more;
    tt_weight w[2] = {weight_of(type, n, p->k), weight_of(type, n, p->k)};
    float *x = test_rows(rows, p->k, ldx, 1), *both = test_blank(rows, 2 * n);
    void *dx = acts(x, rows * ldx), *dy = device((size_t)(rows * ldy) * 4);
    tt_matrix *a = open_on(twin, w, 2, NULL, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, w, 2, NULL, compute_of(), TT_MATRIX_LINEAR | TT_MATRIX_GLU);
    tt_err e = {0};
    test_ok(twin->op.linear(twin, both, 2 * n, x, ldx, rows, a, false, &e), &e);
    test_ok(twin->op.swiglu(twin, both, 2 * n, both, both + n, 2 * n, rows, n, &e), &e);
    test_ok(gpu->op.glu(gpu, dy, ldy, dx, ldx, rows, b, &e), &e);
    float *have = floats(dy, rows * ldy), *want = malloc((size_t)(rows * ldy) * 4);
    for (int64_t r = 0; r < rows; r++)
        memcpy(want + r * ldy, both + r * 2 * n, (size_t)n * 4);
    char what[96];
    snprintf(what, sizeof what, "glu %s %s %lld x %lld x %lld", tt_dtype_name(type), kind(),
             (long long)rows, (long long)n, (long long)p->k);
    test_close(what, have, want, rows, n, ldy, tolerance());
    assert_int_not_equal(gpu->op.linear(gpu, dy, 2 * n, dx, ldx, rows, b, false, &e), TT_OK);
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    gpu->op.release(gpu, dx);
    gpu->op.release(gpu, dy);
    free(have);
    free(want);
    free(both);
    free(x);
    free_weight(&w[0]);
    free_weight(&w[1]);
}
static void glus_agree(void)
{
    for (int i = 0; i < PRODUCTS; i++)
        if (products[i].n * products[i].k < 2000000)
            one_glu(&products[i], i % 3 ? TT_BF16 : TT_I8);
}
static void glu_agrees_with_linear_and_swiglu(void **state)
{
    (void)state;
    BOTH_TYPES(glus_agree());
}

/* Rounding both operands to 3 bits of fraction: errors of random sign, 2 to 3 % of a product. */
static void fp8_products_are_near(void **state)
{
    (void)state;
    need_gpu();
    if (!gpu->op.has_compute(gpu, TT_COMPUTE_FP8))
        skip();
    gpu->act = TT_BF16;
    for (int i = 3; i < PRODUCTS; i++) {
        const product *p = &products[i];
        tt_weight w = weight_of(TT_BF16, p->n, p->k);
        float *x = test_rows(p->rows, p->k, p->k, 1), *want = test_blank(p->rows, p->n);
        void *dx = acts(x, p->rows * p->k), *dy = device((size_t)(p->rows * p->n) * 2);
        tt_matrix *a = open_on(twin, &w, 1, NULL, TT_COMPUTE_BF16, TT_MATRIX_LINEAR);
        tt_matrix *b = open_on(gpu, &w, 1, NULL, TT_COMPUTE_FP8, TT_MATRIX_LINEAR);
        tt_err e = {0};
        test_ok(twin->op.linear(twin, want, p->n, x, p->k, p->rows, a, false, &e), &e);
        test_ok(gpu->op.linear(gpu, dy, p->n, dx, p->k, p->rows, b, false, &e), &e);
        float *have = floats(dy, p->rows * p->n);
        test_close("fp8", have, want, p->rows, p->n, p->n, 0.06);
        if (p->rows > 1) {
            test_ok(gpu->op.linear(gpu, dy, p->n, dx, p->k, 1, b, false, &e), &e);
            float *alone = floats(dy, p->n);
            test_same_bits("fp8", have, alone, p->n);
            free(alone);
        }
        twin->op.matrix_close(twin, a);
        gpu->op.matrix_close(gpu, b);
        gpu->op.release(gpu, dx);
        gpu->op.release(gpu, dy);
        free(have);
        free(want);
        free(x);
        free_weight(&w);
    }
}

/* --- rows --- */

static void rows_agree(void)
{
    static const int64_t dims[] = {1, 7, 64, 100, 257, 1024, 4096, 4100, 5280};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        int64_t d = dims[i], rows = 9, ld = d + (i % 2 ? 3 : 8), n = rows * ld;
        float *x = test_rows(rows, d, ld, 3), *w = test_rows(1, d, d, 1);
        float *y = test_rows(rows, d, ld, 1), *up = test_rows(rows, d, ld, 1);
        float scale[9] = {0, 1, 2, -1, 0.5f, 0, 3, 1, 1};
        int32_t index[9] = {8, 0, 3, 3, 1, 7, 2, 0, 5};
        void *dx = acts(x, n), *dy = acts(y, n), *du = acts(up, n);
        void *dw = to_device(w, (size_t)d * 4), *ds = to_device(scale, sizeof scale);
        void *di = to_device(index, sizeof index), *dv = to_device(up, (size_t)d * 4);
        tt_err e = {0};
        char what[64];
        snprintf(what, sizeof what, "%s rows of %lld", kind(), (long long)d);
        test_ok(twin->op.cfg_mix(twin, y, ld, x, ld, scale, rows, d, &e), &e);
        test_ok(gpu->op.cfg_mix(gpu, dy, ld, dx, ld, ds, rows, d, &e), &e);
        float *have = floats(dy, n);
        test_close(what, have, y, rows, d, ld, tolerance());
        free(have);
        test_ok(twin->op.swiglu(twin, y, ld, x, up, ld, rows, d, &e), &e);
        test_ok(gpu->op.swiglu(gpu, dy, ld, dx, du, ld, rows, d, &e), &e);
        have = floats(dy, n);
        test_close(what, have, y, rows, d, ld, tolerance());
        free(have);
        test_ok(twin->op.gather(twin, y, ld, x, ld, index, rows, d, &e), &e);
        test_ok(gpu->op.gather(gpu, dy, ld, dx, ld, di, rows, d, &e), &e);
        have = floats(dy, n);
        test_close(what, have, y, rows, d, ld, 0);
        free(have);
        test_ok(twin->op.rmsnorm(twin, x, ld, x, ld, w, rows, d, 1e-5f, &e), &e);
        test_ok(gpu->op.rmsnorm(gpu, dx, ld, dx, ld, dw, rows, d, 1e-5f, &e), &e);
        have = floats(dx, n);
        test_close(what, have, x, rows, d, ld, tolerance());
        free(have);
        test_ok(gpu->op.rmsnorm(gpu, dy, ld, dx, ld, dw, rows, d, 1e-5f, &e), &e);
        test_ok(gpu->op.rmsnorm(gpu, du, ld, dy, ld, dv, rows, d, 1e-5f, &e), &e);
        float *first = floats(dy, n), *second = floats(du, n);
        test_ok(gpu->op.rmsnorm_twice(gpu, du, ld, dv, dx, ld, dx, ld, dw, rows, d, 1e-5f, &e), &e);
        have = floats(dx, n);
        for (int64_t r = 0; r < rows; r++)
            test_same_bits(what, have + r * ld, first + r * ld, d);
        free(have);
        have = floats(du, n);
        for (int64_t r = 0; r < rows; r++)
            test_same_bits(what, have + r * ld, second + r * ld, d);
        free(have);
        free(first);
        free(second);
        void *const used[] = {dx, dy, du, dw, ds, di, dv};
        for (size_t k = 0; k < sizeof used / sizeof *used; k++)
            gpu->op.release(gpu, used[k]);
        free(x);
        free(w);
        free(y);
        free(up);
    }
}
static void row_operations_agree(void **state)
{
    (void)state;
    BOTH_TYPES(rows_agree());
}

static void ropes_agree(void)
{
    static const int64_t shapes[][4] = {
        {4, 2, 64, 32}, {3, 1, 10, 4}, {8, 8, 128, 64}, {2, 1, 16, 4}};
    enum { ROWS = 23, COLUMNS = 40 };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int64_t h = shapes[i][0], kv = shapes[i][1], hd = shapes[i][2], half = shapes[i][3];
        int64_t ld = (h + 2 * kv) * hd + (i == 1 ? 1 : 0), width = kv * hd, n = ROWS * ld;
        float *x = test_rows(ROWS, ld, ld, 1), inv[64], *cs = malloc(ROWS * 64 * 4);
        float *sn = malloc(ROWS * 64 * 4);
        int32_t position[ROWS], column[ROWS];
        for (int r = 0; r < ROWS; r++) {
            position[r] = r * 171;
            column[r] = (r * 7 + 3) % COLUMNS;
        }
        for (int64_t j = 0; j < half; j++)
            inv[j] = powf(10000, -(float)j / (float)half);
        size_t act = tt_dtype_size(gpu->act), slab = (size_t)(COLUMNS * width);
        float *k[2], *v[2];
        void *dk[2], *dv[2], *dx = acts(x, n), *dc = device(ROWS * 64 * 4);
        void *dn = device(ROWS * 64 * 4), *dp = to_device(position, sizeof position);
        void *di = to_device(inv, sizeof inv), *dcol = to_device(column, sizeof column);
        for (int s = 0; s < 2; s++) {
            k[s] = calloc(slab, 4);
            v[s] = calloc(slab, 4);
            dk[s] = to_device(k[s], slab * act);
            dv[s] = to_device(v[s], slab * act);
        }
        tt_store host[2] = {{2, 5, k[0], v[0]}, {10, 13, k[1], v[1]}};
        tt_store dev[2] = {{2, 5, dk[0], dv[0]}, {10, 13, dk[1], dv[1]}};
        tt_err e = {0};
        test_ok(twin->op.rope_table(twin, cs, sn, position, inv, ROWS, half, &e), &e);
        test_ok(gpu->op.rope_table(gpu, dc, dn, dp, di, ROWS, half, &e), &e);
        test_ok(twin->op.rope_store(twin, x, ld, cs, sn, ROWS, h, kv, hd, half, host, 2, column,
                                    &e), &e);
        test_ok(gpu->op.rope_store(gpu, dx, ld, dc, dn, ROWS, h, kv, hd, half, dev, 2, dcol, &e),
                &e);
        float *have = floats(dx, n);
        test_close("rope", have, x, ROWS, (h + 2 * kv) * hd, ld, tolerance());
        free(have);
        for (int s = 0; s < 2; s++) {
            have = floats(dk[s], (int64_t)slab);
            test_close("keys", have, k[s], COLUMNS, width, width, tolerance());
            free(have);
            have = floats(dv[s], (int64_t)slab);
            test_close("values", have, v[s], COLUMNS, width, width, tolerance());
            free(have);
            free(k[s]);
            free(v[s]);
            gpu->op.release(gpu, dk[s]);
            gpu->op.release(gpu, dv[s]);
        }
        void *const used[] = {dx, dc, dn, dp, di, dcol};
        for (size_t j = 0; j < sizeof used / sizeof *used; j++)
            gpu->op.release(gpu, used[j]);
        free(x);
        free(cs);
        free(sn);
    }
}
static void rope_rotates_and_stores(void **state)
{
    (void)state;
    BOTH_TYPES(ropes_agree());
}

static void embeds_agree(void)
{
    static const tt_dtype type[] = {TT_F32, TT_BF16, TT_I8};
    for (int t = 0; t < 6; t++) {
        enum { N = 50, ROWS = 7 };
        int64_t k = t < 3 ? 36 : 2056; /* the latter takes 16 bytes at a time */
        int32_t id[ROWS] = {0, 49, 3, 3, 17, 1, 48};
        tt_weight w = weight_of(type[t % 3], N, k);
        tt_matrix *a = open_on(twin, &w, 1, NULL, compute_of(), TT_MATRIX_TABLE);
        tt_matrix *b = open_on(gpu, &w, 1, NULL, compute_of(), TT_MATRIX_TABLE | TT_MATRIX_LINEAR);
        float *want = test_blank(ROWS, k);
        void *di = to_device(id, sizeof id), *dy = device((size_t)(ROWS * k) * 4);
        tt_err e = {0};
        test_ok(twin->op.embed(twin, want, k, a, id, ROWS, &e), &e);
        test_ok(gpu->op.embed(gpu, dy, k, b, di, ROWS, &e), &e);
        float *have = floats(dy, ROWS * k);
        test_close("embed", have, want, ROWS, k, k, tolerance());
        twin->op.matrix_close(twin, a);
        gpu->op.matrix_close(gpu, b);
        gpu->op.release(gpu, di);
        gpu->op.release(gpu, dy);
        free(have);
        free(want);
        free_weight(&w);
    }
}
static void embed_looks_rows_up(void **state)
{
    (void)state;
    BOTH_TYPES(embeds_agree());
}

/* --- attention --- */

typedef struct {
    int64_t rows, keys;
    tt_see see;
    int32_t block;
    int64_t query_column, key_column, hole;
} part;

static const part parts[] = {
    {1, 1, TT_SEE_ALL, 0, 0, 0, 0},        {7, 63, TT_SEE_ALL, 0, 0, 0, 0},
    {64, 64, TT_SEE_ALL, 0, 0, 0, 0},      {65, 257, TT_SEE_ALL, 0, 0, 0, 0},
    {32, 256, TT_SEE_ALL, 0, 0, 0, 0},     {32, 1056, TT_SEE_ALL, 0, 0, 0, 0},
    {3, 0, TT_SEE_ALL, 0, 0, 0, 0},        {0, 9, TT_SEE_ALL, 0, 0, 0, 0},
    {130, 130, TT_SEE_CAUSAL, 0, 0, 0, 0}, {9, 400, TT_SEE_CAUSAL, 0, 391, 0, 0},
    {9, 30, TT_SEE_CAUSAL, 0, 4, 7, 0},    {70, 70, TT_SEE_BLOCK, 8, 0, 0, 0},
    {40, 330, TT_SEE_BLOCK, 32, 260, 0, 0}, {5, 12, TT_SEE_BLOCK, 1, 3, 2, 0},
    /* holes: in several parts, on the way out of the keys, before the first, the only key */
    {64, 500, TT_SEE_ALL, 0, 0, 5, 150}, {9, 70, TT_SEE_ALL, 0, 0, 5, 68},
    {9, 70, TT_SEE_ALL, 0, 0, 5, 3},     {1, 1, TT_SEE_ALL, 0, 0, 0, 1},
    {200, 300, TT_SEE_ALL, 0, 0, 0, 50}, {130, 130, TT_SEE_ALL, 0, 0, 0, 1},
};
enum { PARTS = sizeof parts / sizeof *parts };

/* Weights have the error of their scores, which grows with these; sums of weights and values, much
 * smaller than their terms, that of the terms. */
static double attention_tolerance(void) { return in_thirds ? 3e-6 : tolerance(); }

static void attention_of(int64_t heads, int64_t kv_heads, int64_t dim)
{
    int64_t width = heads * dim, kv = kv_heads * dim, rows = 0, keys = 0, row = 0, key = 0;
    int64_t pad = dim % 4 ? 3 : dim % 8 ? 4 : 8, ldq = width + pad, ld_kv = kv + pad;
    for (int i = 0; i < PARTS; i++) {
        rows += parts[i].rows;
        keys += parts[i].keys;
    }
    float *q = test_rows(rows, width, ldq, 1), *k = test_rows(keys, kv, ld_kv, 1);
    float *v = test_rows(keys, kv, ld_kv, 1), *want = test_blank(rows, ldq);
    void *dq = acts(q, rows * ldq), *dk = acts(k, keys * ld_kv), *dv = acts(v, keys * ld_kv);
    size_t act = tt_dtype_size(gpu->act);
    void *dy = device((size_t)(rows * ldq) * act);
    tt_span host[PARTS], dev[PARTS];
    for (int i = 0; i < PARTS; i++) {
        const part *p = &parts[i];
        host[i] = (tt_span){.query_row = row, .query_rows = p->rows, .k = k + key * ld_kv,
                            .v = v + key * ld_kv, .ld_kv = ld_kv, .keys = p->keys, .see = p->see,
                            .block = p->block, .query_column = p->query_column,
                            .key_column = p->key_column, .hole = p->hole};
        dev[i] = host[i];
        dev[i].k = (char *)dk + (size_t)(key * ld_kv) * act;
        dev[i].v = (char *)dv + (size_t)(key * ld_kv) * act;
        row += p->rows;
        key += p->keys;
    }
    tt_err e = {0};
    float scale = 1 / sqrtf((float)dim);
    char what[64];
    snprintf(what, sizeof what, "attention %s %lld/%lld x %lld", kind(), (long long)heads,
             (long long)kv_heads, (long long)dim);
    test_ok(twin->op.attention(twin, want, ldq, q, ldq, host, PARTS, heads, kv_heads, dim, scale,
                               compute_of(), &e), &e);
    for (int again = 0; again < 2; again++) /* counters of split spans must be back at zero */
        test_ok(gpu->op.attention(gpu, dy, ldq, dq, ldq, dev, PARTS, heads, kv_heads, dim, scale,
                                  compute_of(), &e), &e);
    float *have = floats(dy, rows * ldq);
    test_close(what, have, want, rows, width, ldq, attention_tolerance());
    for (int i = 0; i < PARTS; i++) {
        test_ok(gpu->op.attention(gpu, dy, ldq, dq, ldq, &dev[i], 1, heads, kv_heads, dim, scale,
                                  compute_of(), &e), &e);
        float *alone = floats(dy, rows * ldq);
        for (int64_t r = host[i].query_row; r < host[i].query_row + host[i].query_rows; r++)
            test_same_bits(what, have + r * ldq, alone + r * ldq, width);
        free(alone);
    }
    void *const used[] = {dq, dk, dv, dy};
    for (size_t j = 0; j < sizeof used / sizeof *used; j++)
        gpu->op.release(gpu, used[j]);
    free(have);
    free(want);
    free(q);
    free(k);
    free(v);
}
static void attention_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES({
        attention_of(2, 2, 128);
        attention_of(4, 2, 64);
        attention_of(4, 1, 16);
        attention_of(2, 1, 80);
        attention_of(5, 5, 96);
        attention_of(3, 1, 17);
        attention_of(2, 2, 256);
        attention_of(2, 1, 264);
        attention_of(1, 1, 392);
        attention_of(2, 2, 512);
    });
}
static void attention_in_thirds_agrees_with_the_twin(void **state)
{
    (void)state;
    IN_THIRDS({
        attention_of(4, 2, 64);
        attention_of(4, 1, 16);
        attention_of(5, 5, 44);
        attention_of(2, 1, 80);
        attention_of(2, 2, 128);
        attention_of(2, 1, 260);
        attention_of(2, 2, 512);
        attention_of(3, 1, 17); /* not in whole 16 bytes: by fused multiply-adds */
    });
}

/* Error of attention over one span, against double. */
static double attention_error(tt_compute compute, float *q, float *kv, int64_t rows, int64_t keys,
                              int64_t dim, float scale)
{
    tt_err e = {0};
    void *dq = acts(q, rows * dim), *dkv = acts(kv, keys * 2 * dim);
    void *dy = device((size_t)(rows * dim) * 4);
    tt_span span = {.query_rows = rows, .k = dkv, .v = (float *)dkv + dim, .ld_kv = 2 * dim,
                    .keys = keys, .see = TT_SEE_ALL};
    test_ok(gpu->op.attention(gpu, dy, dim, dq, dim, &span, 1, 1, 1, dim, scale, compute, &e), &e);
    float *have = floats(dy, rows * dim);
    double off = 0, norm = 0, *weight = malloc((size_t)keys * sizeof *weight);
    for (int64_t r = 0; r < rows; r++) {
        double most = -INFINITY, total = 0;
        for (int64_t j = 0; j < keys; j++) {
            double dot = 0;
            for (int64_t i = 0; i < dim; i++)
                dot += (double)q[r * dim + i] * kv[j * 2 * dim + i];
            weight[j] = dot * scale;
            most = fmax(most, weight[j]);
        }
        for (int64_t j = 0; j < keys; j++)
            total += weight[j] = exp(weight[j] - most);
        for (int64_t i = 0; i < dim; i++) {
            double want = 0;
            for (int64_t j = 0; j < keys; j++)
                want += weight[j] / total * kv[(j * 2 + 1) * dim + i];
            off += (have[r * dim + i] - want) * (have[r * dim + i] - want);
            norm += want * want;
        }
    }
    gpu->op.release(gpu, dq);
    gpu->op.release(gpu, dkv);
    gpu->op.release(gpu, dy);
    free(weight);
    free(have);
    return sqrt(off / norm);
}

/* As for products: thirds must not be worse than float32, also where all values have one sign, so
 * that bits cut off add up, and where few keys have all the weight. */
static void attention_in_thirds_is_as_near_as_float32(void **state)
{
    (void)state;
    need_gpu();
    if (!gpu->op.has_compute(gpu, TT_COMPUTE_THIRDS))
        skip();
    enum { ROWS = 40, KEYS = 1000 };
    static const int64_t dims[] = {32, 64, 512};
    gpu->act = TT_F32;
    for (int d = 0; d < 3; d++)
        for (int kind_of = 0; kind_of < 4; kind_of++) {
            int64_t dim = dims[d];
            float scale = (kind_of / 2 ? 4 : 1) / sqrtf((float)dim);
            float *q = test_rows(ROWS, dim, dim, 1), *kv = test_rows(KEYS, 2 * dim, 2 * dim, 1);
            for (int64_t i = 0; i < KEYS * 2 * dim && kind_of % 2; i++)
                kv[i] = fabsf(kv[i]);
            double plain = attention_error(TT_COMPUTE_F32, q, kv, ROWS, KEYS, dim, scale);
            double thirds = attention_error(TT_COMPUTE_THIRDS, q, kv, ROWS, KEYS, dim, scale);
            print_message("heads of %lld%s%s: error %.2e plain, %.2e in thirds\n", (long long)dim,
                          kind_of % 2 ? " of one sign" : "", kind_of / 2 ? ", sharp" : "", plain,
                          thirds);
            assert_true(thirds < 3e-6 && thirds < 2 * plain + 5e-7);
            free(q);
            free(kv);
        }
}

/* So many spans and heads that blocks of the GPU take several chunks of keys each, beginning and
 * ending in the middle of a head. */
static void attention_over_many_spans(int64_t heads, int64_t kv_heads, int64_t dim)
{
    enum { SPANS = 13, ROWS = 5, KEYS = 1100 };
    int64_t ld = heads * dim, kv = kv_heads * dim, rows = SPANS * ROWS;
    float *q = test_rows(rows, ld, ld, 1), *k = test_rows(KEYS, kv, kv, 1);
    float *v = test_rows(KEYS, kv, kv, 1), *want = test_blank(rows, ld);
    void *dq = acts(q, rows * ld), *dk = acts(k, KEYS * kv), *dv = acts(v, KEYS * kv);
    void *dy = device((size_t)(rows * ld) * tt_dtype_size(gpu->act));
    tt_span host[SPANS], dev[SPANS];
    for (int i = 0; i < SPANS; i++) {
        host[i] = (tt_span){.query_row = i * ROWS, .query_rows = ROWS, .k = k, .v = v, .ld_kv = kv,
                            .keys = KEYS - 60 * i, .see = TT_SEE_ALL, .hole = i == 3 ? 200 : 0};
        dev[i] = host[i];
        dev[i].k = dk;
        dev[i].v = dv;
    }
    tt_err e = {0};
    char what[64];
    snprintf(what, sizeof what, "%d spans %s %lld/%lld x %lld", SPANS, kind(), (long long)heads,
             (long long)kv_heads, (long long)dim);
    test_ok(twin->op.attention(twin, want, ld, q, ld, host, SPANS, heads, kv_heads, dim, 0.3f,
                               compute_of(), &e), &e);
    test_ok(gpu->op.attention(gpu, dy, ld, dq, ld, dev, SPANS, heads, kv_heads, dim, 0.3f,
                              compute_of(), &e), &e);
    float *have = floats(dy, rows * ld);
    test_close(what, have, want, rows, ld, ld, attention_tolerance());
    for (int first = 0; first < SPANS; first++) {
        int n = first % 4 + 1 < SPANS - first ? first % 4 + 1 : SPANS - first;
        test_ok(gpu->op.attention(gpu, dy, ld, dq, ld, dev + first, n, heads, kv_heads, dim, 0.3f,
                                  compute_of(), &e), &e);
        float *fewer = floats(dy, rows * ld);
        for (int64_t r = first * ROWS; r < (first + n) * ROWS; r++)
            test_same_bits(what, have + r * ld, fewer + r * ld, ld);
        free(fewer);
    }
    void *const used[] = {dq, dk, dv, dy};
    for (size_t j = 0; j < sizeof used / sizeof *used; j++)
        gpu->op.release(gpu, used[j]);
    free(have);
    free(want);
    free(q);
    free(k);
    free(v);
}
static void attention_of_a_span_ignores_the_others(void **state)
{
    (void)state;
    BOTH_TYPES({
        attention_over_many_spans(28, 4, 64);
        attention_over_many_spans(16, 16, 128);
        attention_over_many_spans(11, 11, 96);
        attention_over_many_spans(2, 1, 512);
    });
    IN_THIRDS({
        attention_over_many_spans(28, 4, 64);
        attention_over_many_spans(2, 2, 512);
    });
}

/* --- the head --- */

enum { VOCAB = 3001, WIDTH = 96, HEAD_ROWS = 70 };

static const float *given_noise(void)
{
    static float noise[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        noise[i] = (float)(i * 7919 % 1000) * 0.006f;
    return noise;
}

static tt_draw draw_of(int64_t r, int kind_of)
{
    static const int32_t allow[] = {5, 9, 77, 1500, 2999}, unsure[] = {3, 2000};
    static const tt_id_value bias[] = {{4, -INFINITY}, {130, 2.5f}, {2999, -1}};
    static const tt_id_value many[] = {{1, 1},   {2, 1},   {3, -INFINITY},
                                       {127, 2}, {128, 1}, {900, 3}};
    tt_draw d = {.top_p = 1, .target = (int32_t)(r * 31 % VOCAB), .seed = 11 + (uint64_t)r,
                 .sample = 1, .step = 3, .position = (uint32_t)r, .limit = VOCAB - 40};
    d.bias = bias;
    d.n_bias = 3;
    switch (kind_of) {
    case 0: break;
    case 1: d.temperature = 0.8f, d.noise = TT_NOISE_PHILOX; break;
    case 2: d.temperature = 1, d.noise = TT_NOISE_PHILOX, d.top_k = 40; break;
    case 3: d.temperature = 0.7f, d.noise = TT_NOISE_PHILOX, d.top_p = 0.9f; break;
    case 4: d.temperature = 1.2f, d.noise = TT_NOISE_PHILOX, d.min_p = 0.05f, d.top_p = 0.8f,
            d.top_k = 300; break;
    case 5: d.bias = NULL, d.n_bias = 0, d.allow = allow, d.n_allow = 5, d.target = -1; break;
    case 6: d.unsure = unsure, d.n_unsure = 2; break;
    case 7: d.temperature = 0.5f, d.noise = TT_NOISE_SPLITMIX, d.base = 1000; break;
    case 8: d.temperature = 0.9f, d.noise = TT_NOISE_CUMULATIVE, d.top_p = 0.95f,
            d.confidence_of_kept = true; break;
    case 9: d.confidence_of_kept = true, d.top_k = 5; break;
    case 10: d.bias = many, d.n_bias = 6; break;
    case 11: d.temperature = 1, d.noise = TT_NOISE_PHILOX, d.top_p = 0.6f + 0.005f * (float)r,
             d.top_p_within = true; break;
    default: d.temperature = 1, d.noise = TT_NOISE_GIVEN, d.gumbel = given_noise(); break;
    }
    return d;
}
enum { DRAWS = 13 };

static void same_stats(const char *what, const tt_row_stats *a, const tt_row_stats *b, double eps)
{
    if (a->argmax != b->argmax || a->drawn != b->drawn)
        fail_msg("%s: argmax %d drawn %d, not %d and %d", what, a->argmax, a->drawn, b->argmax,
                 b->drawn);
    const float have[] = {a->prob_argmax, a->prob, a->margin, a->entropy, a->max_logit, a->lse,
                          a->logprob, a->target_logprob, a->gap};
    const float want[] = {b->prob_argmax, b->prob, b->margin, b->entropy, b->max_logit, b->lse,
                          b->logprob, b->target_logprob, b->gap};
    for (int i = 0; i < 9; i++)
        if (!(fabsf(have[i] - want[i]) <= eps * (1 + fabsf(want[i]))) && have[i] != want[i])
            fail_msg("%s: statistic %d is %g, not %g", what, i, (double)have[i], (double)want[i]);
}

static void heads_agree(void)
{
    tt_weight w = weight_of(TT_BF16, VOCAB, WIDTH);
    float *x = test_rows(HEAD_ROWS, WIDTH, WIDTH, 1);
    void *dx = acts(x, HEAD_ROWS * WIDTH);
    tt_matrix *a = open_on(twin, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    static tt_draw draw[HEAD_ROWS];
    static tt_row_stats want[HEAD_ROWS], have[HEAD_ROWS], alone;
    static tt_id_value top_want[HEAD_ROWS * 7], top_have[HEAD_ROWS * 7];
    static float l_want[HEAD_ROWS * VOCAB], l_have[HEAD_ROWS * VOCAB];
    tt_err e = {0};
    for (int mixed = 0; mixed < DRAWS + 1; mixed++) { /* one kind of draw, then all side by side */
        char what[64];
        snprintf(what, sizeof what, "head %s, draws %d", kind(), mixed);
        for (int r = 0; r < HEAD_ROWS; r++)
            draw[r] = draw_of(r, mixed < DRAWS ? mixed : r % DRAWS);
        test_ok(twin->op.head(twin, want, NULL, 0, NULL, x, WIDTH, HEAD_ROWS, a, draw, &e), &e);
        test_ok(gpu->op.head(gpu, have, NULL, 0, NULL, dx, WIDTH, HEAD_ROWS, b, draw, &e), &e);
        test_ok(gpu->op.sync(gpu, &e), &e);
        for (int r = 0; r < HEAD_ROWS; r++)
            same_stats(what, &have[r], &want[r], 2e-5);
        for (int r = 0; r < HEAD_ROWS; r += 23) {
            const char *row = (char *)dx + (size_t)r * WIDTH * tt_dtype_size(gpu->act);
            test_ok(gpu->op.head(gpu, &alone, NULL, 0, NULL, row, WIDTH, 1, b, &draw[r], &e), &e);
            test_ok(gpu->op.sync(gpu, &e), &e);
            if (memcmp(&alone, &have[r], sizeof alone))
                fail_msg("%s: row %d has other bits alone", what, r);
        }
    }
    test_ok(twin->op.head(twin, want, top_want, 7, l_want, x, WIDTH, HEAD_ROWS, a, draw, &e), &e);
    test_ok(gpu->op.head(gpu, have, top_have, 7, l_have, dx, WIDTH, HEAD_ROWS, b, draw, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    test_close("logits", l_have, l_want, HEAD_ROWS, VOCAB, VOCAB, 1e-5);
    for (int i = 0; i < HEAD_ROWS * 7; i++)
        if (top_have[i].id != top_want[i].id ||
            fabsf(top_have[i].value - top_want[i].value) > 1e-4f * (1 + fabsf(top_want[i].value)))
            fail_msg("best %d: id %d value %g, not %d and %g", i, top_have[i].id,
                     (double)top_have[i].value, top_want[i].id, (double)top_want[i].value);
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    gpu->op.release(gpu, dx);
    free(x);
    free_weight(&w);
}
/* Rows and columns enough for tiles of two times kHeadTile columns, the last of which is half
 * empty. */
static void wide_heads_agree(void)
{
    enum { N = 17001, K = 64, ROWS = 300 };
    tt_weight w = weight_of(TT_BF16, N, K);
    float *x = test_rows(ROWS, K, K, 1);
    void *dx = acts(x, ROWS * K);
    tt_matrix *a = open_on(twin, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    static tt_draw draw[ROWS];
    static tt_row_stats want[ROWS], have[ROWS], alone;
    tt_err e = {0};
    for (int r = 0; r < ROWS; r++) {
        draw[r] = draw_of(r, r % 2);
        draw[r].limit = r % 3 ? 0 : N - 150;
        draw[r].target = r * 997 % N;
    }
    test_ok(twin->op.head(twin, want, NULL, 0, NULL, x, K, ROWS, a, draw, &e), &e);
    test_ok(gpu->op.head(gpu, have, NULL, 0, NULL, dx, K, ROWS, b, draw, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    for (int r = 0; r < ROWS; r++)
        same_stats("wide head", &have[r], &want[r], 2e-5);
    for (int r = 0; r < ROWS; r += 37) {
        const char *row = (char *)dx + (size_t)r * K * tt_dtype_size(gpu->act);
        test_ok(gpu->op.head(gpu, &alone, NULL, 0, NULL, row, K, 1, b, &draw[r], &e), &e);
        test_ok(gpu->op.sync(gpu, &e), &e);
        if (memcmp(&alone, &have[r], sizeof alone))
            fail_msg("wide head: row %d has other bits alone", r);
    }
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    gpu->op.release(gpu, dx);
    free(x);
    free_weight(&w);
}
static void head_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(heads_agree(); wide_heads_agree());
}

/* --- refusals --- */

static void nonsense_is_refused(void **state)
{
    (void)state;
    need_gpu();
    gpu->act = TT_F32;
    tt_err e = {0};
    void *p;
    assert_int_equal(gpu->op.alloc(gpu, &p, (size_t)1 << 50, &e), TT_ENOMEM);
    assert_non_null(strstr(e.text, "alloc"));
    tt_weight w = weight_of(TT_F32, 4, 4);
    tt_matrix *m = open_on(gpu, &w, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    assert_int_equal(gpu->op.linear(gpu, NULL, 4, NULL, 3, 2, m, false, &e), TT_EINVAL);
    assert_int_equal(gpu->op.linear(gpu, NULL, 3, NULL, 4, 2, m, false, &e), TT_EINVAL);
    assert_int_equal(gpu->op.linear(gpu, NULL, 4, NULL, 4, -1, m, false, &e), TT_EINVAL);
    assert_int_equal(gpu->op.linear(gpu, NULL, 4, NULL, 4, 0, m, false, &e), TT_OK);
    assert_int_equal(gpu->op.embed(gpu, NULL, 4, m, NULL, 1, &e), TT_EINVAL);
    gpu->op.matrix_close(gpu, m);
    m = open_on(gpu, &w, 1, NULL, TT_COMPUTE_BF16, TT_MATRIX_LINEAR);
    assert_int_equal(gpu->op.linear(gpu, NULL, 4, NULL, 4, 1, m, false, &e), TT_EINVAL);
    gpu->op.matrix_close(gpu, m);
    free_weight(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(row_operations_agree),
        cmocka_unit_test(rope_rotates_and_stores),
        cmocka_unit_test(embed_looks_rows_up),
        cmocka_unit_test(linear_agrees_with_the_twin),
        cmocka_unit_test(linear_in_thirds_agrees_with_the_twin),
        cmocka_unit_test(thirds_are_as_near_as_float32),
        cmocka_unit_test(glu_agrees_with_linear_and_swiglu),
        cmocka_unit_test(fp8_products_are_near),
        cmocka_unit_test(attention_agrees_with_the_twin),
        cmocka_unit_test(attention_in_thirds_agrees_with_the_twin),
        cmocka_unit_test(attention_in_thirds_is_as_near_as_float32),
        cmocka_unit_test(attention_of_a_span_ignores_the_others),
        cmocka_unit_test(head_agrees_with_the_twin),
    };
    return cmocka_run_group_tests(tests, open_streams, close_streams);
}
