/* Weights and the matrix product: matrix_open, linear, embed.
 *
 * What can go wrong: sizes that fill no tile, parts of different types, a scale or bias on the
 * wrong column, rounding in the wrong place, an addend lost between pieces of a long row, writing
 * past a row, and above all bits that change with the number of rows. */
#include "tests/kernels/ops.h"

/* A random weight of one type; the caller frees data and scale. */
static tt_weight random_weight(tt_dtype type, int64_t n, int64_t k)
{
    size_t count = (size_t)(n * k);
    void *data = malloc(count * tt_dtype_size(type) + 1);
    assert_non_null(data);
    for (size_t i = 0; i < count; i++) {
        float f = test_normal() * 0.5f;
        if (type == TT_F32)
            ((float *)data)[i] = f;
        else if (type == TT_BF16)
            ((uint16_t *)data)[i] = tt_f32_to_bf16(f);
        else if (type == TT_F16) /* sign, an exponent near zero, any fraction */
            ((uint16_t *)data)[i] = (uint16_t)((test_word() & 0x83FF) | 0x3000);
        else
            ((int8_t *)data)[i] = (int8_t)(test_word() % 255 - 127);
    }
    tt_weight w = test_weight(data, type, n, k);
    if (type == TT_I8) {
        float *scale = malloc((size_t)n * sizeof *scale);
        assert_non_null(scale);
        for (int64_t i = 0; i < n; i++)
            scale[i] = (0.5f + test_uniform()) / 127;
        w.scale = (tt_tensor){.data = scale, .dim = {n}, .rank = 1, .dtype = TT_F32};
    }
    return w;
}
static void free_weight(tt_weight *w)
{
    free((void *)(uintptr_t)w->data.data);
    free((void *)(uintptr_t)w->scale.data);
}

static tt_matrix *open_matrix(tt_stream *s, const tt_weight *part, int parts, const float *bias,
                              tt_compute compute, unsigned flags)
{
    tt_err e = {0};
    tt_matrix *m = NULL;
    test_ok(s->op.matrix_open(s, &m, part, parts, bias, compute, flags, &e), &e);
    return m;
}

static void linear_by_hand_on(tt_stream *s, const char *name)
{
    (void)name;
    static const float a[2][3] = {{1, 2, 3}, {0, -1, 4}};
    static const int8_t b[1][3] = {{10, 0, -20}};
    static const float b_scale[1] = {0.5f}, bias[3] = {100, 200, 300};
    static const float x[2][4] = {{1, 1, 1, NAN}, {2, 0, -1, NAN}};
    static const float want[2][3] = {{106, 203, 295}, {99, 196, 320}};
    tt_weight part[2] = {test_weight(a, TT_F32, 2, 3), test_weight(b, TT_I8, 1, 3)};
    part[1].scale = (tt_tensor){.data = b_scale, .dim = {1}, .rank = 1, .dtype = TT_F32};
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        tt_matrix *m = open_matrix(s, part, 2, bias, (tt_compute)compute, TT_MATRIX_LINEAR);
        int64_t n, k;
        size_t bytes;
        s->op.matrix_size(m, &n, &k, &bytes);
        assert_int_equal(n, 3);
        assert_int_equal(k, 3);
        assert_true(bytes >= 9 * 2);
        float y[2][3];
        for (int add = 0; add <= 1; add++) {
            tt_err e = {0};
            test_ok(s->op.linear(s, y, 3, x, 4, 2, m, add, &e), &e);
            for (int r = 0; r < 2; r++)
                for (int j = 0; j < 3; j++)
                    assert_true(y[r][j] == want[r][j] * (float)(add + 1));
        }
        s->op.matrix_close(s, m);
    }
}
static void linear_by_hand(void **state)
{
    (void)state;
    test_each(linear_by_hand_on);
}

static void agrees_on(tt_stream *s, const char *name)
{
    static const int64_t shape[][2] = {{1, 1},    {3, 2},     {17, 5},   {16, 16}, {63, 64},
                                       {64, 63},  {65, 1},    {1, 65},   {80, 31}, {129, 320},
                                       {320, 33}, {33, 1000}, {70, 2500}};
    static const int64_t rows_of[] = {0, 1, 2, 5, 6, 7, 13, 40};
    static const tt_dtype type[] = {TT_F32, TT_BF16, TT_F16, TT_I8};
    tt_stream *twin = test_open(&test_devices[0], 1);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int t = 0; t < 4; t++)
            for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
                int64_t n = shape[i][0], k = shape[i][1], ldx = k + t, ldy = n + 3 * t;
                tt_weight w = random_weight(type[t], n, k);
                float *bias = t % 2 ? test_rows(1, n, n, 1) : NULL;
                tt_matrix *a = open_matrix(twin, &w, 1, bias, (tt_compute)compute, 1);
                tt_matrix *b = open_matrix(s, &w, 1, bias, (tt_compute)compute, 1);
                for (size_t r = 0; r < sizeof rows_of / sizeof *rows_of; r++) {
                    int64_t rows = rows_of[r];
                    float *x = test_rows(rows, k, ldx, 1);
                    float *want = test_blank(rows, ldy), *have = test_blank(rows, ldy);
                    char what[96];
                    snprintf(what, sizeof what, "linear %s %s on %s", tt_dtype_name(type[t]),
                             compute ? "bf16" : "f32", name);
                    for (int add = 0; add <= 1; add++) {
                        tt_err e = {0};
                        test_ok(twin->op.linear(twin, want, ldy, x, ldx, rows, a, add, &e), &e);
                        test_ok(s->op.linear(s, have, ldy, x, ldx, rows, b, add, &e), &e);
                        test_close(what, have, want, rows, n, ldy, 3e-6);
                        test_padding_untouched(what, have, rows, n, ldy);
                    }
                    free(x);
                    free(want);
                    free(have);
                }
                twin->op.matrix_close(twin, a);
                s->op.matrix_close(s, b);
                free_weight(&w);
                free(bias);
            }
    tt_stream_close(twin);
}
static void every_version_agrees_with_the_twin(void **state)
{
    (void)state;
    test_each(agrees_on);
}

static void gelu_of_a_product_on(tt_stream *s, const char *name)
{
    enum { ROWS = 5, N = 19, K = 33, LDX = 35, LDY = 21 };
    float *x = test_rows(ROWS, K, LDX, 1), *w = test_rows(N, K, K, 0.3f);
    float *bias = test_rows(1, N, N, 1), *y = test_blank(ROWS, LDY);
    tt_weight weight = test_weight(w, TT_F32, N, K);
    tt_matrix *m;
    tt_err e = {0};
    test_ok(s->op.matrix_open(s, &m, &weight, 1, bias, TT_COMPUTE_F32, TT_MATRIX_LINEAR, &e), &e);
    test_ok(s->op.linear_gelu(s, y, LDY, x, LDX, ROWS, m, &e), &e);
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < N; j++) {
            double v = bias[j];
            for (int i = 0; i < K; i++)
                v += (double)x[r * LDX + i] * w[j * K + i];
            v *= 0.5 * (1 + tanh(sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v)));
            assert_float_equal(y[r * LDY + j], v, 1e-5);
        }
    test_padding_untouched(name, y, ROWS, N, LDY);
    s->op.matrix_close(s, m);
    free(x);
    free(w);
    free(bias);
    free(y);
}
static void gelu_of_a_product(void **state)
{
    (void)state;
    test_each(gelu_of_a_product_on);
}

static void a_split_product_is_linear_and_scatter_on(tt_stream *s, const char *name)
{
    enum { ROWS = 4, N = 19, K = 33, SPLIT = 7, REST = N - SPLIT, LDY = 21, LDZ = 14, ALL = 9 };
    static const int32_t index[ROWS] = {8, 1, 0, 5};
    float *x = test_rows(ROWS, K, K, 1), *w = test_rows(N, K, K, 0.3f);
    float *y = test_blank(ROWS, LDY), *z = test_blank(ALL, LDZ);
    float *all = test_blank(ROWS, LDY), *want = test_blank(ALL, LDZ);
    tt_weight weight = test_weight(w, TT_F32, N, K);
    tt_matrix *m = open_matrix(s, &weight, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    tt_err e = {0};
    test_ok(s->op.linear(s, all, LDY, x, K, ROWS, m, false, &e), &e);
    test_ok(s->op.scatter(s, want, LDZ, all + SPLIT, LDY, index, ROWS, REST, &e), &e);
    test_ok(s->op.linear_split(s, y, LDY, SPLIT, z, LDZ, index, x, K, ROWS, m, &e), &e);
    for (int r = 0; r < ROWS; r++)
        test_same_bits(name, y + r * LDY, all + r * LDY, SPLIT);
    assert_memory_equal(z, want, sizeof(float[ALL][LDZ]));
    test_padding_untouched(name, z, ALL, REST, LDZ);
    assert_int_equal(s->op.linear_split(s, y, LDY, N, z, LDZ, index, x, K, ROWS, m, &e), TT_EINVAL);
    assert_int_equal(s->op.linear_split(s, y, LDY, SPLIT, z, REST - 1, index, x, K, ROWS, m, &e),
                     TT_EINVAL);
    s->op.matrix_close(s, m);
    free(x);
    free(w);
    free(y);
    free(z);
    free(all);
    free(want);
}
static void a_split_product_is_linear_and_scatter(void **state)
{
    (void)state;
    test_each(a_split_product_is_linear_and_scatter_on);
}

static void stacked_parts_are_one_matrix_on(tt_stream *s, const char *name)
{
    enum { K = 37 };
    static const int64_t n[3] = {40, 1, 90};
    static const tt_dtype type[3] = {TT_I8, TT_F32, TT_BF16};
    tt_weight part[3];
    float *x = test_rows(4, K, K, 1), *all = test_blank(4, 131);
    for (int i = 0; i < 3; i++)
        part[i] = random_weight(type[i], n[i], K);
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        tt_err e = {0};
        tt_matrix *m = open_matrix(s, part, 3, NULL, (tt_compute)compute, TT_MATRIX_LINEAR);
        test_ok(s->op.linear(s, all, 131, x, K, 4, m, false, &e), &e);
        s->op.matrix_close(s, m);
        int64_t column = 0;
        for (int i = 0; i < 3; i++) {
            float *one = test_blank(4, n[i]);
            m = open_matrix(s, &part[i], 1, NULL, (tt_compute)compute, TT_MATRIX_LINEAR);
            test_ok(s->op.linear(s, one, n[i], x, K, 4, m, false, &e), &e);
            for (int r = 0; r < 4; r++)
                test_close(name, all + r * 131 + column, one + r * n[i], 1, n[i], n[i], 1e-6);
            s->op.matrix_close(s, m);
            free(one);
            column += n[i];
        }
    }
    for (int i = 0; i < 3; i++)
        free_weight(&part[i]);
    free(x);
    free(all);
}
static void stacked_parts_are_one_matrix(void **state)
{
    (void)state;
    test_each(stacked_parts_are_one_matrix_on);
}

/* The promise the whole server rests on. */
static void a_row_is_the_same_in_any_batch_on(tt_stream *s, const char *name)
{
    static const int64_t batch[] = {1, 2, 3, 5, 8, 16, 17, 32, 100, 128};
    static const int64_t shape[][2] = {{320, 320}, {130, 67}, {64, 2500}};
    static const tt_dtype type[] = {TT_F32, TT_BF16, TT_I8};
    enum { MOST = 128 };
    for (int i = 0; i < 3; i++)
        for (int t = 0; t < 3; t++)
            for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
                int64_t n = shape[i][0], k = shape[i][1];
                if (!strcmp(s->op.name, "twin") && i)
                    continue; /* slow, and one row at a time by construction */
                tt_weight w = random_weight(type[t], n, k);
                float *bias = test_rows(1, n, n, 1);
                tt_matrix *m = open_matrix(s, &w, 1, bias, (tt_compute)compute, 1);
                float *x = test_rows(MOST, k, k, 1), *y = test_blank(MOST, n);
                float *alone = test_blank(MOST, n);
                tt_err e = {0};
                for (int64_t r = 0; r < MOST; r++)
                    test_ok(s->op.linear(s, alone + r * n, n, x + r * k, k, 1, m, false, &e), &e);
                for (size_t b = 0; b < sizeof batch / sizeof *batch; b++)
                    for (int64_t from = 0; from + batch[b] <= MOST; from += 31) {
                        char what[128];
                        snprintf(what, sizeof what,
                                 "linear %s %s %lldx%lld on %s, %lld rows from %lld",
                                 tt_dtype_name(type[t]), compute ? "bf16" : "f32", (long long)n,
                                 (long long)k, name, (long long)batch[b], (long long)from);
                        test_ok(s->op.linear(s, y, n, x + from * k, k, batch[b], m, false, &e), &e);
                        test_same_bits(what, y, alone + from * n, batch[b] * n);
                    }
                s->op.matrix_close(s, m);
                free_weight(&w);
                free(bias);
                free(x);
                free(y);
                free(alone);
            }
}
static void a_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    test_each(a_row_is_the_same_in_any_batch_on);
}

static void thread_count_changes_no_bit(void **state)
{
    (void)state;
    enum { N = 700, K = 300, ROWS = 70 };
    for (int d = 0; d < TEST_DEVICES; d++)
        for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
            float *x = test_rows(ROWS, K, K, 1), *y[3];
            tt_weight w = random_weight(TT_BF16, N, K);
            for (int t = 0; t < 3; t++) {
                y[t] = test_blank(ROWS, N);
                tt_stream *s = test_open(&test_devices[d], 1 + 3 * t);
                if (!s)
                    continue;
                tt_matrix *m = open_matrix(s, &w, 1, NULL, (tt_compute)compute, 1);
                tt_err e = {0};
                test_ok(s->op.linear(s, y[t], N, x, K, ROWS, m, false, &e), &e);
                s->op.matrix_close(s, m);
                tt_stream_close(s);
            }
            test_same_bits(test_name(&test_devices[d]), y[1], y[0], ROWS * N);
            test_same_bits(test_name(&test_devices[d]), y[2], y[0], ROWS * N);
            for (int t = 0; t < 3; t++)
                free(y[t]);
            free(x);
            free_weight(&w);
        }
}

static void hostile_numbers_stay_in_their_row_on(tt_stream *s, const char *name)
{
    static const float hostile[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-45f};
    enum { N = 70, K = 45, ROWS = 11 };
    tt_weight w = random_weight(TT_F32, N, K);
    float *x = test_rows(ROWS, K, K, 1), *clean = test_blank(ROWS, N), *y = test_blank(ROWS, N);
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++)
        for (int h = 0; h < 5; h++) {
            tt_matrix *m = open_matrix(s, &w, 1, NULL, (tt_compute)compute, 1);
            tt_err e = {0};
            test_ok(s->op.linear(s, clean, N, x, K, ROWS, m, false, &e), &e);
            float kept = x[7 * K + 3];
            x[7 * K + 3] = hostile[h];
            test_ok(s->op.linear(s, y, N, x, K, ROWS, m, false, &e), &e);
            x[7 * K + 3] = kept;
            for (int r = 0; r < ROWS; r++)
                if (r != 7)
                    test_same_bits(name, y + r * N, clean + r * N, N);
            for (int j = 0; j < N && h < 3; j++)
                assert_false(isfinite(y[7 * N + j]));
            s->op.matrix_close(s, m);
        }
    free_weight(&w);
    free(x);
    free(clean);
    free(y);
}
static void hostile_numbers_stay_in_their_row(void **state)
{
    (void)state;
    test_each(hostile_numbers_stay_in_their_row_on);
}

static void embed_reads_rows_of_every_part_and_type_on(tt_stream *s, const char *name)
{
    enum { K = 19 };
    static const tt_dtype type[] = {TT_F32, TT_BF16, TT_F16, TT_I8};
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++)
        for (unsigned flags = TT_MATRIX_TABLE; flags <= 3; flags++) {
            tt_weight part[4];
            for (int i = 0; i < 4; i++)
                part[i] = random_weight(type[i], 3, K);
            tt_matrix *m = open_matrix(s, part, 4, NULL, (tt_compute)compute, flags);
            static const int32_t id[] = {0, 11, 5, 2, 3, 8, 6, 5};
            float *y = test_blank(8, K + 2), want[K];
            tt_err e = {0};
            test_ok(s->op.embed(s, y, K + 2, m, id, 8, &e), &e);
            for (int r = 0; r < 8; r++) {
                const tt_weight *p = &part[id[r] / 3];
                tt_to_f32(want, &p->data, id[r] % 3 * K, K, NULL);
                for (int i = 0; i < K && p->scale.data; i++)
                    want[i] *= ((const float *)p->scale.data)[id[r] % 3];
                test_same_bits(name, y + r * (K + 2), want, K);
            }
            test_padding_untouched(name, y, 8, K, K + 2);
            if (flags == TT_MATRIX_TABLE)
                assert_int_equal(s->op.linear(s, y, 12, y, K, 1, m, false, &e), TT_EINVAL);
            s->op.matrix_close(s, m);
            for (int i = 0; i < 4; i++)
                free_weight(&part[i]);
            free(y);
        }
}
static void embed_reads_rows_of_every_part_and_type(void **state)
{
    (void)state;
    test_each(embed_reads_rows_of_every_part_and_type_on);
}

static void weights_that_cannot_be_are_refused_on(tt_stream *s, const char *name)
{
    (void)name;
    float a[12] = {0};
    tt_err e = {0};
    tt_matrix *m;
    tt_weight part[2] = {test_weight(a, TT_F32, 2, 3), test_weight(a, TT_F32, 2, 4)};
    assert_int_equal(s->op.matrix_open(s, &m, part, 2, NULL, TT_COMPUTE_F32, 1, &e), TT_EINVAL);
    assert_null(m);
    assert_int_equal(s->op.matrix_open(s, &m, part, 0, NULL, TT_COMPUTE_F32, 1, &e), TT_EINVAL);
    part[0].data.rank = 1;
    assert_int_equal(s->op.matrix_open(s, &m, part, 1, NULL, TT_COMPUTE_F32, 1, &e), TT_EINVAL);
    part[0] = test_weight(a, TT_I64, 1, 2);
    assert_int_equal(s->op.matrix_open(s, &m, part, 1, NULL, TT_COMPUTE_F32, 1, &e), TT_EUNSUP);
    assert_non_null(strstr(e.text, "I64"));
    part[0] = test_weight(a, TT_I8, 2, 3); /* no scale */
    assert_int_equal(s->op.matrix_open(s, &m, part, 1, NULL, TT_COMPUTE_F32, 1, &e), TT_EINVAL);
    part[0] = test_weight(a, TT_F32, 2, 3);
    m = open_matrix(s, part, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    float x[8] = {0}, y[8];
    assert_int_equal(s->op.linear(s, y, 2, x, 2, 1, m, false, &e), TT_EINVAL);
    assert_int_equal(s->op.linear(s, y, 1, x, 3, 1, m, false, &e), TT_EINVAL);
    assert_int_equal(s->op.linear(s, y, 2, x, 3, -1, m, false, &e), TT_EINVAL);
    assert_int_equal(s->op.embed(s, y, 3, m, &(int32_t){0}, 1, &e), TT_EINVAL);
    s->op.matrix_close(s, m);
    s->op.matrix_close(s, NULL);
}
static void weights_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(weights_that_cannot_be_are_refused_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_by_hand),
        cmocka_unit_test(every_version_agrees_with_the_twin),
        cmocka_unit_test(gelu_of_a_product),
        cmocka_unit_test(a_split_product_is_linear_and_scatter),
        cmocka_unit_test(stacked_parts_are_one_matrix),
        cmocka_unit_test(a_row_is_the_same_in_any_batch),
        cmocka_unit_test(thread_count_changes_no_bit),
        cmocka_unit_test(hostile_numbers_stay_in_their_row),
        cmocka_unit_test(embed_reads_rows_of_every_part_and_type),
        cmocka_unit_test(weights_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
