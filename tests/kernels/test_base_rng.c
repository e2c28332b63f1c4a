/* Random numbers.
 *
 * What can go wrong: a wrong constant or word order in Philox, addresses that share numbers, a
 * logarithm that is off near 1 or at the ends, Gumbel noise that is infinite, coarse in its upper
 * tail or not monotone in the word it comes from - the head skips candidates by that order. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/base/rng.h"

/* Known answers of philox4x32-10 as published with Random123. */
static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}},
        {{0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF},
         {0xFFFFFFFF, 0xFFFFFFFF},
         {0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}},
        {{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344},
         {0xA4093822, 0x299F31D0},
         {0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1}},
    };
    for (int i = 0; i < 3; i++) {
        uint64_t key = (uint64_t)kat[i].key[1] << 32 | kat[i].key[0];
        const uint32_t *c = kat[i].counter;
        tt_rng_block b = tt_philox(key, c[0], c[1], c[2], c[3]);
        for (int j = 0; j < 4; j++)
            assert_int_equal(b.v[j], kat[i].want[j]);
    }
}

static void every_part_of_an_address_counts(void **state)
{
    (void)state;
    tt_rng_address a = {.seed = 1, .sample = 2, .step = 3, .position = 4};
    tt_rng_address other[5] = {a, a, a, a, a};
    other[0].seed = 1 + (1ull << 32);
    other[1].sample++;
    other[2].step++;
    other[3].position++;
    tt_rng_block b = tt_rng_at(a, 9);
    for (int i = 0; i < 5; i++) {
        tt_rng_block c = tt_rng_at(other[i], i == 4 ? 10 : 9);
        assert_memory_not_equal(&b, &c, sizeof b);
    }
    tt_rng_block same = tt_rng_at(a, 9), plain = tt_philox(1, 9, 4, 3, 2);
    assert_memory_equal(&b, &same, sizeof b);
    assert_memory_equal(&b, &plain, sizeof b); /* the documented order of the counter */
}

static void uniform_lies_in_the_half_open_interval(void **state)
{
    (void)state;
    assert_true(tt_uniform(0) == 0);
    assert_true(tt_uniform(0xFFFFFFFFu) < 1);
    assert_true(tt_uniform(0x80000000u) == 0.5f);
}

static void the_logarithm_is_good_over_all_normal_floats(void **state)
{
    (void)state;
    double worst = 0;
    for (uint32_t bits = 0x00800000; bits < 0x7F800000; bits += 1009) {
        float x;
        memcpy(&x, &bits, 4);
        long double want = logl((long double)x);
        if (want != 0)
            worst = fmax(worst, (double)fabsl((tt_logf_fixed(x) - want) / want));
    }
    assert_true(worst < 2e-7);
    assert_true(tt_logf_fixed(1) == 0);
    /* On both sides of 1, where a result of e ln 2 + ln m would cancel. */
    for (int i = 1; i < 200000; i++) {
        float above = 1 + (float)i * 0x1p-23f, below = 1 - (float)i * 0x1p-24f;
        assert_true(fabsl(tt_logf_fixed(above) / logl((long double)above) - 1) < 2e-7);
        assert_true(fabsl(tt_logf_fixed(below) / logl((long double)below) - 1) < 2e-7);
    }
}

/* -ln(-ln((x + 1/2) / 2^32)), through 1 - u where u is near 1. */
static long double gumbel_of(uint32_t x)
{
    if (x < 0x80000000u)
        return -logl(-logl(((long double)x + 0.5L) * 0x1p-32L));
    return -logl(-log1pl(-((long double)(0xFFFFFFFFu - x) + 0.5L) * 0x1p-32L));
}

static void gumbel_is_exact_monotone_and_finite(void **state)
{
    (void)state;
    /* Every word near the ends and near where the formulas change, then steps over the rest. */
    static const uint64_t dense[] = {0,          0x3504F334, 0x5A827999, 0x80000000,
                                     0xB504F334, 0xC0000000, 0xFFF00000, 0xFFFFFFFF};
    float last = -INFINITY;
    for (uint64_t x = 0; x <= 0xFFFFFFFFu;) {
        float g = tt_gumbel((uint32_t)x);
        assert_true(isfinite(g));
        assert_true(fabsl(g - gumbel_of((uint32_t)x)) < 1.2e-6L);
        assert_true(g >= last);
        last = g;
        uint64_t step = 20011;
        for (size_t i = 0; i < sizeof dense / sizeof *dense; i++)
            if (x + 40000 > dense[i] && x < dense[i] + 20000)
                step = 1;
        x = x == 0xFFFFFFFFu ? x + 1 : x + step > 0xFFFFFFFFu ? 0xFFFFFFFFu : x + step;
    }
    assert_true(tt_gumbel(0) > -3.2f && tt_gumbel(0) < -3.1f);
    assert_true(tt_gumbel(0xFFFFFFFFu) > 22.8f && tt_gumbel(0xFFFFFFFFu) < 22.9f);
    /* The tail has no steps: neighbouring words give different noise. */
    for (uint32_t x = 0xFFFFFF00u; x < 0xFFFFFFFFu; x++)
        assert_true(tt_gumbel(x + 1) > tt_gumbel(x));
}

static void gumbel_has_the_right_mean_and_spread(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < N / 4; i++) {
        tt_rng_block b = tt_rng_at((tt_rng_address){.seed = 7, .position = 3}, i);
        for (int j = 0; j < 4; j++) {
            double g = tt_gumbel(b.v[j]);
            sum += g;
            squares += g * g;
        }
    }
    double mean = sum / N, variance = squares / N - mean * mean;
    assert_float_equal(mean, 0.57721566, 5e-3);     /* Euler's constant; 4 sigma is 5e-3 */
    assert_float_equal(variance, 1.64493407, 2e-2); /* pi^2 / 6 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(every_part_of_an_address_counts),
        cmocka_unit_test(uniform_lies_in_the_half_open_interval),
        cmocka_unit_test(the_logarithm_is_good_over_all_normal_floats),
        cmocka_unit_test(gumbel_is_exact_monotone_and_finite),
        cmocka_unit_test(gumbel_has_the_right_mean_and_spread),
    };
    return cmocka_run_group_tests_name("base rng", tests, NULL, NULL);
}
