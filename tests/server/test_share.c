/* What can go wrong: a model with long passes keeps others out, one with short passes is never let
 * in, one that was idle claims the time it did not use, or pays for time nobody wanted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/share.h"

static int a, b, c; /* models: their addresses */

/* One turn in which these wait; the one whose turn it is takes so long per model. */
static const void *turn(tt_share *s, const void *const *waits, double cost_a, double cost_b)
{
    tt_share_begin(s);
    for (int i = 0; waits[i]; i++)
        tt_share_waits(s, waits[i]);
    const void *next = tt_share_next(s);
    if (next)
        tt_share_took(s, next, next == &a ? cost_a : cost_b);
    return next;
}

static void time_is_shared_not_passes(void **state)
{
    (void)state;
    tt_share s = {0};
    double used[2] = {0};
    const void *const both[] = {&a, &b, NULL};
    for (int i = 0; i < 1000; i++) {
        const void *next = turn(&s, both, 0.01, 0.17);
        used[next == &b] += next == &b ? 0.17 : 0.01;
        double apart = used[1] - used[0];
        assert_true(apart < 0.1701 && apart > -0.1701); /* never more than the longest pass */
    }
}

static void nobody_claims_time_it_did_not_ask_for(void **state)
{
    (void)state;
    tt_share s = {0};
    const void *const first[] = {&a, NULL}, *const both[] = {&a, &b, NULL};
    for (int i = 0; i < 1000; i++)
        assert_ptr_equal(turn(&s, first, 1, 1), &a);
    int of_b = 0;
    for (int i = 0; i < 100; i++)
        of_b += turn(&s, both, 1, 1) == &b;
    assert_in_range(of_b, 49, 51);
}

/* It ran alone for long, left, and comes back while another runs: neither waits for long. */
static void time_that_nobody_wanted_costs_nothing(void **state)
{
    (void)state;
    tt_share s = {0};
    const void *const first[] = {&a, NULL}, *const second[] = {&b, NULL};
    const void *const both[] = {&a, &b, NULL}, *const none[] = {NULL};
    for (int i = 0; i < 1000; i++)
        turn(&s, first, 1, 1);
    assert_null(turn(&s, none, 1, 1));
    assert_ptr_equal(turn(&s, second, 1, 1), &b);
    int of_a = 0;
    for (int i = 0; i < 100; i++)
        of_a += turn(&s, both, 1, 1) == &a;
    assert_in_range(of_a, 49, 51);
}

static void more_models_than_lanes_still_run(void **state)
{
    (void)state;
    static char many[TT_MAX_LANES + 10];
    tt_share s = {0};
    for (int i = 0; i < (int)sizeof many; i++) {
        const void *const one[] = {&many[i], NULL};
        assert_non_null(turn(&s, one, 1, 1));
    }
    tt_share_begin(&s);
    assert_int_equal(tt_share_waiting(&s), 0);
    tt_share_waits(&s, &c);
    tt_share_waits(&s, &c);
    assert_int_equal(tt_share_waiting(&s), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_is_shared_not_passes),
        cmocka_unit_test(nobody_claims_time_it_did_not_ask_for),
        cmocka_unit_test(time_that_nobody_wanted_costs_nothing),
        cmocka_unit_test(more_models_than_lanes_still_run),
    };
    return cmocka_run_group_tests_name("share", tests, NULL, NULL);
}
