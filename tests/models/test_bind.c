/* Int8 rows wherever image networks need numbers: on the host, in matrices, in kernels of
 * convolutions.
 *
 * What can go wrong: a scale of another row, rows counted along another dimension than the first, a
 * scale that is missing or too few, int8 without rows taken for numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "models/nn/bind.h"

enum { MATRIX = 12, PLACES = 6, KERNEL = 72, ALONE = 5, ROWS = 3 + 2 + 4 };

/* m: 3 x 4; p: 2 x 1 x 3; k: 4 x 2 x 3 x 3; v: 5 numbers; n: 3 x 4 without scales; f: with one. */
static const char header[] =
    "{\"m\":{\"dtype\":\"I8\",\"shape\":[3,4],\"data_offsets\":[0,12]},"
    "\"p\":{\"dtype\":\"I8\",\"shape\":[2,1,3],\"data_offsets\":[12,18]},"
    "\"k\":{\"dtype\":\"I8\",\"shape\":[4,2,3,3],\"data_offsets\":[18,90]},"
    "\"v\":{\"dtype\":\"I8\",\"shape\":[5],\"data_offsets\":[90,95]},"
    "\"n\":{\"dtype\":\"I8\",\"shape\":[3,4],\"data_offsets\":[95,107]},"
    "\"f\":{\"dtype\":\"I8\",\"shape\":[3,4],\"data_offsets\":[107,119]},"
    "\"pad\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[119,120]},"
    "\"m_scale\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[120,126]},"
    "\"p_scale\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[126,130]},"
    "\"k_scale\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[130,138]},"
    "\"f_scale\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[138,140]}}";

static unsigned char *file;
static int8_t *number; /* of m, p, k, ... */
static float scale[ROWS];
static tt_weights *weights;
static tt_stream *stream;

static int open_all(void **state)
{
    (void)state;
    size_t text = (sizeof header - 1 + 7) / 8 * 8;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    file = calloc(1, 8 + text + 140);
    file[0] = (unsigned char)text;
    file[1] = (unsigned char)(text >> 8);
    memset(file + 8, ' ', text);
    memcpy(file + 8, header, sizeof header - 1);
    number = (int8_t *)file + 8 + text;
    for (int i = 0; i < 120; i++)
        number[i] = (int8_t)(i * 37 % 255 - 127);
    for (int i = 0; i < 10; i++) {
        uint16_t s = tt_f32_to_bf16(0.01f * (float)(1 + i * i));
        memcpy(number + 120 + 2 * i, &s, 2);
        if (i < ROWS)
            scale[i] = tt_bf16_to_f32(s);
    }
    return tt_weights_open_memory(&weights, file, 8 + text + 140, &e) ||
                   tt_stream_open(&stream, "cpu", 1, &e)
               ? -1
               : 0;
}

static int close_all(void **state)
{
    (void)state;
    tt_stream_close(stream);
    tt_weights_close(weights);
    free(file);
    return 0;
}

static void rows_are_numbers_on_the_host(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n, rows, first, row;
    } tensor[] = {{"m", MATRIX, 3, 0, 0},
                  {"p", PLACES, 2, MATRIX, 3},
                  {"k", KERNEL, 4, MATRIX + PLACES, 5}};
    for (int i = 0; i < 3; i++) {
        float have[KERNEL];
        tt_err e = {0};
        int n = tensor[i].n, each = n / tensor[i].rows;
        assert_int_equal(tt_bind_host(weights, have, tensor[i].name, n, &e), TT_OK);
        for (int j = 0; j < n; j++)
            assert_true(have[j] ==
                        (float)number[tensor[i].first + j] * scale[tensor[i].row + j / each]);
    }
}

/* A product with a vector that is 1 at one place gives that column. */
static void columns_are(const tt_matrix *m, const char *name, int n, int k)
{
    float want[KERNEL], one[KERNEL] = {0}, have[KERNEL];
    tt_err e = {0};
    assert_int_equal(tt_bind_host(weights, want, name, (int64_t)n * k, &e), TT_OK);
    stream->act = TT_F32;
    for (int j = 0; j < k; j++) {
        one[j] = 1;
        assert_int_equal(stream->op.linear(stream, have, n, one, k, 1, m, false, &e), TT_OK);
        one[j] = 0;
        for (int i = 0; i < n; i++)
            if (have[i] != want[i * k + j])
                fail_msg("%s: [%d, %d] is %g, not %g", name, i, j, have[i], want[i * k + j]);
    }
}

static void matrices_and_kernels_are_the_same_numbers(void **state)
{
    (void)state;
    tt_bind b = {.stream = stream, .weights = weights, .compute = TT_COMPUTE_F32};
    tt_matrix *m = NULL;
    tt_err e = {0};
    assert_int_equal(tt_bind_matrix(&b, &m, &(tt_bind_part){"m", 3, NULL}, 1, 4, TT_MATRIX_LINEAR,
                                    &e), TT_OK);
    columns_are(m, "m", 3, 4);
    stream->op.matrix_close(stream, m);
    assert_int_equal(tt_bind_patches(&b, &m, "k", 4, 2, 3, NULL, &e), TT_OK);
    columns_are(m, "k", 4, 18);
    stream->op.matrix_close(stream, m);
}

static void what_has_no_scales_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *named;
        int n;
    } bad[] = {{"v", "rows", ALONE}, {"n", "n_scale", MATRIX}, {"f", "f_scale", MATRIX}};
    for (int i = 0; i < 3; i++) {
        float have[MATRIX];
        tt_err e = {0};
        assert_int_equal(tt_bind_host(weights, have, bad[i].name, bad[i].n, &e), TT_EFORMAT);
        if (!strstr(e.text, bad[i].named))
            fail_msg("'%s' does not name %s", e.text, bad[i].named);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_numbers_on_the_host),
        cmocka_unit_test(matrices_and_kernels_are_the_same_numbers),
        cmocka_unit_test(what_has_no_scales_is_refused),
    };
    return cmocka_run_group_tests_name("bind", tests, open_all, close_all);
}
