/* Finite scalar quantisation and the steps of flow matching, by themselves.
 *
 * What can go wrong: a code that is none for numbers far out, not numbers, or many levels; a code
 * that does not come back; half a midpoint step counted as a whole one; guidance that follows the
 * velocity itself, has no limit or forgets; noise that is not normal. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizers/image/flow.h"
#include "tokenizers/image/fsq.h"

static void codes_come_back(void **state)
{
    (void)state;
    const int32_t level[] = {8, 5, 2, 3};
    tt_fsq f;
    tt_err e = {0};
    assert_int_equal(tt_fsq_open(&f, level, 4, &e), TT_OK);
    assert_int_equal(f.codes, 240);
    for (int32_t code = 0; code < f.codes; code++) {
        float number[4], z[4];
        tt_fsq_lookup(&f, number, code);
        for (int i = 0; i < 4;
             i++) { /* tanh(z + shift) half - off is the level, but for the ends */
            double wanted = (number[i] * (level[i] / 2) + f.off[i]) / f.half[i];
            assert_true(number[i] >= -1 && number[i] <= 1);
            z[i] = (float)(atanh(fmin(fmax(wanted, -0.9995), 0.9995)) - f.shift[i]);
        }
        assert_int_equal(tt_fsq_code(&f, z), code);
    }
}

static void no_number_leads_beyond_the_codes(void **state)
{
    (void)state;
    const float far[] = {-INFINITY, -1e30f, -100, 0, 100, 1e30f, INFINITY, NAN};
    tt_err e = {0};
    for (int32_t levels = 2; levels <= TT_FSQ_LEVELS; levels++) {
        tt_fsq f;
        int32_t lowest = levels, highest = -1;
        assert_int_equal(tt_fsq_open(&f, &levels, 1, &e), TT_OK);
        for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
            int32_t code = tt_fsq_code(&f, &far[i]);
            lowest = code < lowest ? code : lowest;
            highest = code > highest ? code : highest;
        }
        assert_int_equal(lowest, 0);
        assert_int_equal(highest, levels - 1);
    }
}

static void quantisers_that_are_none(void **state)
{
    (void)state;
    static const int32_t bad[][4] = {
        {8, 1}, {8, 0}, {8, -3}, {8, TT_FSQ_LEVELS + 1}, {1000, 1000, 1000, 1000}};
    tt_fsq f;
    tt_err e = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tt_fsq_open(&f, bad[i], i < 4 ? 2 : 4, &e), TT_EFORMAT);
    assert_int_equal(tt_fsq_open(&f, bad[0], 0, &e), TT_EFORMAT);
    assert_int_equal(tt_fsq_open(&f, bad[0], TT_FSQ_DIMS + 1, &e), TT_EFORMAT);
}

/* dx/dt = -2 x + t from x = 1. */
static float solved(tt_flow_solver solver, int32_t steps)
{
    float x = 1, probe, v = 0;
    for (int32_t c = 0; c < tt_flow_calls(solver, steps); c++) {
        tt_flow_probe(solver, steps, c, &probe, &x, &v, 1);
        v = -2 * probe + (float)tt_flow_time(solver, steps, c);
        tt_flow_move(solver, steps, c, &x, &v, 1);
    }
    return x;
}

static void steps_follow_the_field(void **state)
{
    (void)state;
    assert_int_equal(tt_flow_calls(TT_FLOW_EULER, 5), 5);
    assert_int_equal(tt_flow_calls(TT_FLOW_MIDPOINT, 5), 10);
    for (int32_t n = 1; n <= 8; n++) {
        double euler = 1, middle = 1, h = 1.0 / n;
        for (int32_t i = 0; i < n; i++) {
            double t = i * h, half = middle + h / 2 * (-2 * middle + t);
            euler += h * (-2 * euler + t);
            middle += h * (-2 * half + t + h / 2);
        }
        assert_true(fabs(solved(TT_FLOW_EULER, n) - euler) < 1e-6);
        assert_true(fabs(solved(TT_FLOW_MIDPOINT, n) - middle) < 1e-6);
    }
    double exact = 1.25 * exp(-2) + 0.25; /* at t = 1; the midpoint is of second order */
    double coarse = fabs(solved(TT_FLOW_MIDPOINT, 16) - exact);
    double fine = fabs(solved(TT_FLOW_MIDPOINT, 32) - exact);
    assert_true(coarse > 3.5 * fine && coarse < 4.6 * fine);
}

static double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static void guidance_is_projected_and_limited(void **state)
{
    (void)state;
    enum { N = 3 };
    const float with[N] = {1, 2, 2}, without[N] = {0.5f, 2.5f, 1};
    float v[N], moved[N], running[N] = {0};
    tt_apg g = {.running = running, .scale = 1, .momentum = 0.5, .longest = 2.5};
    memcpy(v, with, sizeof v);
    tt_apg_guide(&g, v, without, N);
    assert_memory_equal(v, with, sizeof v); /* scale 1 is none */

    g.scale = 3;
    tt_apg_guide(&g, v, without, N);
    double along = (0.5 * 1 - 0.5 * 2 + 1 * 2) / 9; /* of the difference along the velocity */
    for (int i = 0; i < N; i++) {
        double wanted = with[i] + 2 * (with[i] - without[i] - along * with[i]);
        assert_true(fabs(v[i] - wanted) < 1e-5);
        moved[i] = v[i] - with[i];
    }
    assert_true(fabs(dot(moved, with, N)) < 1e-5);

    memcpy(v, with, sizeof v); /* half of the difference before is remembered */
    tt_apg_guide(&g, v, without, N);
    for (int i = 0; i < N; i++)
        assert_true(fabs(v[i] - with[i] - 1.5 * moved[i]) < 1e-5);

    const float opposite[N] = {-400, 100, 300};
    memcpy(v, with, sizeof v);
    tt_apg_guide(&g, v, opposite, N);
    for (int i = 0; i < N; i++)
        moved[i] = v[i] - with[i];
    assert_true(sqrt(dot(moved, moved, N)) <= 2 * 2.5 + 1e-4);
    assert_true(sqrt(dot(moved, moved, N)) > 2);
}

static void noise_is_normal(void **state)
{
    (void)state;
    enum { N = 20001 }; /* odd: the last number has no partner */
    static float x[N], other[N];
    double sum = 0, square = 0, within = 0;
    tt_flow_noise(x, N, 7, 0, 0);
    for (int i = 0; i < N; i++) {
        sum += (double)x[i];
        square += (double)x[i] * (double)x[i];
        within += fabsf(x[i]) < 1;
    }
    assert_true(fabs(sum / N) < 0.03);
    assert_true(fabs(square / N - 1) < 0.04);
    assert_true(fabs(within / N - 0.6827) < 0.015);
    for (uint32_t i = 0; i < 3; i++) {
        tt_flow_noise(other, N, i == 0 ? 8 : 7, i == 1, i == 2);
        assert_memory_not_equal(x, other, sizeof x);
    }
    tt_flow_noise(other, 9, 7, 0, 0);
    assert_memory_equal(x, other, 9 * sizeof *x); /* a longer list begins as a shorter one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise_is_normal),
        cmocka_unit_test(codes_come_back),
        cmocka_unit_test(no_number_leads_beyond_the_codes),
        cmocka_unit_test(quantisers_that_are_none),
        cmocka_unit_test(steps_follow_the_field),
        cmocka_unit_test(guidance_is_projected_and_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
