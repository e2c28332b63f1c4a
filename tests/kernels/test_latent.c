/* Operations on states that go from pass to pass: copy_rows, blend, row_products,
 * truncated_normal.
 *
 * What can go wrong: a row that is copied though one side is missing, an addend read that counts
 * for nothing, sums of rows taken together, a difference lost in the sums of squares, noise beyond
 * its limits, of another spread, or that changes with the rows around it. */
#include "tests/kernels/ops.h"

enum { ROWS = 9, DIM = 37, LD = 41 };

static void rows_are_copied_where_both_sides_are_there(tt_stream *s, const char *name)
{
    float x[3][DIM], y[3][DIM];
    tt_err e = {0};
    for (int i = 0; i < DIM; i++)
        for (int r = 0; r < 3; r++) {
            x[r][i] = (float)(100 * r + i);
            y[r][i] = -1;
        }
    tt_act *const to[] = {y[2], NULL, y[0]};
    const tt_act *const from[] = {x[0], x[1], NULL};
    test_ok(s->op.copy_rows(s, to, from, 3, DIM, &e), &e);
    assert_memory_equal(y[2], x[0], sizeof y[2]);
    for (int i = 0; i < DIM; i++)
        if (y[0][i] != -1 || y[1][i] != -1)
            fail_msg("%s: a row was written that nothing was to be copied to", name);
    test_ok(s->op.copy_rows(s, to, from, 0, DIM, &e), &e);
    assert_int_equal(s->op.copy_rows(s, to, from, 1, 0, &e), TT_EINVAL);
}

static void copy_rows_on_every_table(void **state)
{
    (void)state;
    test_each(rows_are_copied_where_both_sides_are_there);
}

static void blended(tt_stream *s, const char *name)
{
    float x[2 * LD], y[2 * LD], before[2 * LD];
    const float a[] = {0.25f, 0.9f}, b[] = {-2, 0};
    tt_err e = {0};
    for (int i = 0; i < 2 * LD; i++) {
        x[i] = i < LD ? (float)i : NAN; /* b is 0: not to be read */
        y[i] = before[i] = (float)(i % 7) - 3;
    }
    test_ok(s->op.blend(s, y, LD, x, LD, a, b, 2, DIM, &e), &e);
    for (int r = 0; r < 2; r++)
        for (int i = 0; i < LD; i++) {
            int k = r * LD + i;
            double sum = (double)a[r] * before[k] + (r ? 0 : (double)b[r] * x[k]);
            double want = i < DIM ? sum : before[k];
            if (fabs(y[k] - want) > 1e-5)
                fail_msg("%s: row %d, channel %d is %g, not %g", name, r, i, y[k], want);
        }
    assert_int_equal(s->op.blend(s, y, DIM - 1, x, LD, a, b, 1, DIM, &e), TT_EINVAL);
}

static void blend_on_every_table(void **state)
{
    (void)state;
    test_each(blended);
}

static void multiplied(tt_stream *s, const char *name)
{
    float x[ROWS * LD], y[ROWS * LD];
    tt_row_products out[ROWS], alone;
    tt_err e = {0};
    for (int i = 0; i < ROWS * LD; i++) {
        x[i] = i % LD < DIM ? 100 + test_uniform() : NAN;
        y[i] = i % LD < DIM ? x[i] + 1e-3f * (float)(i % 5) : NAN; /* a difference hard to see */
    }
    test_ok(s->op.row_products(s, out, x, LD, y, LD, ROWS, DIM, &e), &e);
    test_ok(s->op.sync(s, &e), &e);
    for (int r = 0; r < ROWS; r++) {
        double xx = 0, yy = 0, xy = 0, dd = 0;
        for (int i = r * LD; i < r * LD + DIM; i++) {
            double d = (double)x[i] - y[i];
            xx += (double)x[i] * x[i];
            yy += (double)y[i] * y[i];
            xy += (double)x[i] * y[i];
            dd += d * d;
        }
        if (fabs(out[r].xx - xx) > 1e-5 * xx || fabs(out[r].yy - yy) > 1e-5 * yy ||
            fabs(out[r].xy - xy) > 1e-5 * xx || fabs(out[r].dd - dd) > 1e-5 * dd)
            fail_msg("%s: row %d has %g %g %g %g, not %g %g %g %g", name, r, out[r].xx, out[r].yy,
                     out[r].xy, out[r].dd, xx, yy, xy, dd);
        test_ok(s->op.row_products(s, &alone, x + r * LD, LD, y + r * LD, LD, 1, DIM, &e), &e);
        test_ok(s->op.sync(s, &e), &e);
        assert_memory_equal(&alone, &out[r], sizeof alone);
    }
}

static void row_products_on_every_table(void **state)
{
    (void)state;
    test_each(multiplied);
}

static void drawn(tt_stream *s, const char *name)
{
    enum { N = 4, WIDE = 50001 };
    static float y[N * WIDE], alone[WIDE];
    tt_rng_address at[N] = {{7, 0, 0, 5}, {7, 0, 0, 6}, {7, 0, 1, 5}, {7, 0, 0, 5}};
    const float scale[N] = {1, 1, 1, 0};
    tt_err e = {0};
    test_ok(s->op.truncated_normal(s, y, WIDE, at, scale, N, WIDE, &e), &e);
    for (int r = 0; r < 3; r++) {
        double sum = 0, squares = 0, most = 0;
        for (int i = 0; i < WIDE; i++) {
            float v = y[r * WIDE + i];
            sum += v;
            squares += (double)v * v;
            most = fabsf(v) > most ? fabsf(v) : most;
        }
        /* A normal cut off at 3 has variance 1 - 6 phi(3) / (2 Phi(3) - 1) = 0.97334. */
        double spread = squares / WIDE;
        if (fabs(sum / WIDE) > 0.02 || fabs(spread - 0.97334) > 0.02 || most > 3.0001 || most < 2.9)
            fail_msg("%s: row %d has mean %g, variance %g, greatest %g", name, r, sum / WIDE,
                     spread, most);
        test_ok(s->op.truncated_normal(s, alone, WIDE, &at[r], &scale[r], 1, WIDE, &e), &e);
        assert_memory_equal(alone, y + r * WIDE, sizeof alone);
    }
    assert_memory_not_equal(y, y + WIDE, WIDE * 4);
    assert_memory_not_equal(y, y + 2 * WIDE, WIDE * 4);
    for (int i = 0; i < WIDE; i++)
        assert_true(y[3 * WIDE + i] == 0);
}

static void truncated_normal_on_every_table(void **state)
{
    (void)state;
    test_each(drawn);
}

/* The number at a word is the quantile of the word: its error function gives the word back. */
static void noise_is_the_inverse_of_the_distribution(void **state)
{
    (void)state;
    float before = -4;
    for (uint64_t k = 0; k <= 4096; k++) {
        uint32_t word = (uint32_t)(k << 20 > UINT32_MAX ? UINT32_MAX : k << 20);
        float v = tt_truncated_normal(word);
        double want = (2 * (word + 0.5) / 4294967296.0 - 1) * 0.9973002039367398;
        if (fabs(erf(v / sqrt(2)) - want) > 1e-6)
            fail_msg("word %u: %.9g has erf %.9g, not %.9g", word, v, erf(v / sqrt(2)), want);
        assert_true(v > before);
        before = v;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy_rows_on_every_table),
        cmocka_unit_test(blend_on_every_table),
        cmocka_unit_test(row_products_on_every_table),
        cmocka_unit_test(truncated_normal_on_every_table),
        cmocka_unit_test(noise_is_the_inverse_of_the_distribution),
    };
    return cmocka_run_group_tests_name("latent", tests, NULL, NULL);
}
