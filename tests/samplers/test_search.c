/* What can go wrong: a search that scores other sequences than it keeps, ties that depend on the
 * sort, a score that is not a number winning, sizes that overflow, results that are lost when the
 * search is stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/search.h"
#include "samplers/mix.h"

static tt_search_spec beam_of(int32_t beams, int32_t candidates, const int32_t *list, int32_t steps)
{
    return (tt_search_spec){.algorithm = tt_search_find("beam"),
                            .length = 8,
                            .beams = beams,
                            .candidates = candidates,
                            .schedule = {.list = list, .steps = steps},
                            .ahead = -1,
                            .ahead_steps = -1,
                            .results = 1,
                            .sample = true};
}

static tt_search *open_ok(const tt_search_spec *spec)
{
    tt_search *s;
    tt_err e = {0};
    if (tt_search_open(&s, spec, &e))
        fail_msg("%s", e.text);
    return s;
}

/* A made-up prior: the token is a number of its place in the order. */
static void extend(tt_search *s)
{
    const tt_search_work *o = tt_search_order(s);
    assert_int_equal(o->kind, TT_ORDER_EXTEND);
    int32_t token[4096];
    float logprob[1024];
    int32_t rows = o->sequences * o->each;
    for (int32_t i = 0; i < rows; i++) {
        logprob[i] = -(float)i;
        for (int32_t j = 0; j < o->add; j++)
            token[i * o->add + j] = o->rollout ? 900 : 10 * o->step + i;
    }
    assert_int_equal(tt_search_extended(s, token, logprob, NULL), TT_OK);
}

/* A made-up verifier: the sum of what is shown, or one score for all. */
static void score(tt_search *s, bool same)
{
    const tt_search_work *o = tt_search_order(s);
    float value[1024] = {0};
    assert_int_equal(o->kind, TT_ORDER_SCORE);
    for (int32_t i = 0; i < o->sequences && !same; i++)
        for (int32_t j = 0; j < o->sequence[i].showns; j++)
            value[i] += (float)o->sequence[i].shown[j];
    assert_int_equal(tt_search_scored(s, value, NULL), TT_OK);
}

static void beams_keep_the_best(void **state)
{
    (void)state;
    const int32_t list[] = {1, 3};
    tt_search_spec spec = beam_of(2, 3, list, 2);
    tt_search *s = open_ok(&spec);
    extend(s);
    score(s, false);
    const tt_search_work *o = tt_search_order(s);
    assert_int_equal(o->sequences, 2);
    assert_int_equal(o->add, 2);
    assert_int_equal(o->sequence[0].token[0], 2); /* of 0, 1, 2 */
    assert_int_equal(o->sequence[1].token[0], 1);
    extend(s);
    assert_int_equal(tt_search_order(s)->sequences, 6);
    score(s, false);
    assert_int_equal(tt_search_order(s)->kind, TT_ORDER_DONE);
    const tt_candidate *best;
    assert_int_equal(tt_search_results(s, &best), 1);
    assert_int_equal(best->tokens, 3);
    assert_int_equal(best->token[0], 1); /* 1 + 15 + 15 is more than 2 + 12 + 12 */
    assert_int_equal(best->token[2], 15);
    assert_true(best->score == 31);
    tt_search_close(s);
}

static void equal_scores_keep_their_order(void **state)
{
    (void)state;
    const int32_t list[] = {1, 2};
    tt_search_spec spec = beam_of(3, 64, list, 2);
    spec.results = 3;
    tt_search *s = open_ok(&spec);
    extend(s);
    score(s, true);
    extend(s);
    score(s, true);
    const tt_candidate *best;
    assert_int_equal(tt_search_results(s, &best), 3);
    for (int32_t i = 0; i < 3; i++) {
        assert_int_equal(best[i].token[0], 0);
        assert_int_equal(best[i].token[1], 10 + i);
    }
    tt_search_close(s);
}

static void what_is_no_number_loses(void **state)
{
    (void)state;
    tt_search_spec spec = {.algorithm = tt_search_find("best_of"), .length = 2, .samples = 3,
                           .results = 3, .sample = true};
    tt_search *s = open_ok(&spec);
    assert_int_equal(tt_search_order(s)->sequences, 3);
    extend(s);
    assert_true(tt_search_order(s)->own_noise);
    assert_int_equal(tt_search_scored(s, (float[]){NAN, -1e30f, NAN}, NULL), TT_OK);
    const tt_candidate *best;
    assert_int_equal(tt_search_results(s, &best), 3);
    assert_int_equal(best[0].token[0], 1);
    assert_int_equal(best[1].token[0], 0);
    tt_search_close(s);
}

static void lookahead_scores_more_than_it_keeps(void **state)
{
    (void)state;
    const int32_t list[] = {1, 7};
    tt_search_spec spec = beam_of(1, 2, list, 2);
    spec.algorithm = tt_search_find("lookahead");
    spec.ahead = 4;
    tt_search *s = open_ok(&spec);
    extend(s);
    const tt_search_work *o = tt_search_order(s);
    assert_true(o->rollout && !o->sample);
    assert_int_equal(o->add, 4);
    assert_int_equal(o->each, 1);
    extend(s);
    o = tt_search_order(s);
    assert_int_equal(o->sequence[0].tokens, 1);
    assert_int_equal(o->sequence[0].showns, 5);
    score(s, false);
    extend(s); /* to 7 of 8 */
    assert_int_equal(tt_search_order(s)->add, 1); /* no more than there is room for */
    extend(s);
    score(s, false);
    const tt_candidate *best;
    tt_search_results(s, &best);
    assert_int_equal(best->tokens, 7);
    assert_int_equal(best->showns, 8);
    tt_search_close(s);
}

static void completed_results_are_ordered_anew(void **state)
{
    (void)state;
    const int32_t list[] = {1};
    tt_search_spec spec = beam_of(2, 2, list, 1);
    spec.complete = true;
    spec.results = 2;
    tt_search *s = open_ok(&spec);
    extend(s);
    score(s, false);
    assert_int_equal(tt_search_order(s)->add, 7);
    extend(s);
    assert_int_equal(tt_search_scored(s, (float[]){1, 2}, NULL), TT_OK);
    const tt_candidate *best;
    assert_int_equal(tt_search_results(s, &best), 2);
    assert_int_equal(best[0].shown[0], 0); /* was second */
    assert_int_equal(best[0].showns, 8);
    assert_int_equal(best[0].tokens, 1);
    tt_search_close(s);
}

static void a_stopped_search_has_what_was_scored(void **state)
{
    (void)state;
    const int32_t list[] = {1, 2, 4};
    tt_search_spec spec = beam_of(2, 2, list, 3);
    tt_search *s = open_ok(&spec);
    const tt_candidate *best;
    assert_int_equal(tt_search_results(s, &best), 0);
    extend(s);
    score(s, false);
    extend(s);
    tt_search_stop(s);
    assert_int_equal(tt_search_order(s)->kind, TT_ORDER_DONE);
    assert_int_equal(tt_search_results(s, &best), 1);
    assert_int_equal(best->tokens, 1);
    assert_int_equal(tt_search_scored(s, (float[]){0}, NULL), TT_EINVAL);
    tt_search_close(s);
}

static void the_first_step_can_fill_the_beams(void **state)
{
    (void)state;
    const int32_t list[] = {1};
    tt_search_spec spec = beam_of(5, 4, list, 1);
    spec.fill_first = true;
    tt_search *s = open_ok(&spec);
    assert_int_equal(tt_search_order(s)->each, 20);
    tt_search_close(s);
}

static void refuse(tt_search_spec spec, const char *named)
{
    tt_search *s;
    tt_err e = {0};
    assert_int_equal(tt_search_open(&s, &spec, &e), TT_EINVAL);
    assert_null(s);
    assert_non_null(strstr(e.text, named));
}

static void bad_sizes_are_named(void **state)
{
    (void)state;
    const int32_t list[] = {1, 2}, falling[] = {3, 2};
    tt_search_spec spec = beam_of(2, 2, list, 2), bad;
    bad = spec;
    bad.beams = 0;
    refuse(bad, "beam_width");
    bad = spec;
    bad.candidates = INT32_MAX;
    refuse(bad, "candidates");
    bad.candidates = bad.beams = 60000;
    refuse(bad, "too many");
    bad = spec;
    bad.results = 0;
    refuse(bad, "results");
    bad = spec;
    bad.schedule.list = falling;
    refuse(bad, "schedule");
    bad = spec;
    bad.schedule = (tt_schedule){.kind = TT_SCHEDULE_GEOMETRIC, .base = NAN, .steps = 3};
    refuse(bad, "base");
    bad = spec;
    bad.schedule.steps = TT_MAX_SEARCH_STEPS + 1;
    refuse(bad, "steps");
    bad = spec;
    bad.algorithm = tt_search_find("lookahead");
    bad.ahead = 0;
    refuse(bad, "ahead");
    bad = (tt_search_spec){.algorithm = tt_search_find("best_of"), .length = 4, .results = 1};
    refuse(bad, "search.n");
    assert_null(tt_search_find("greedy"));
}

/* --- aggregation --- */

static void a_failed_verifier_takes_its_weight_along(void **state)
{
    (void)state;
    const float score[] = {1, 3, 2};
    tt_mix_part part[] = {{NULL, 100}, {score, 1}};
    float out[3];
    assert_int_equal(tt_mix(out, part, 2, 3, TT_MIX_RANK, NULL), TT_OK);
    assert_true(out[0] == 0 && out[1] == 1 && out[2] == 0.5f);
    assert_int_equal(tt_mix(out, part, 1, 3, TT_MIX_RANK, NULL), TT_EINVAL);
    part[1].weight = -1;
    assert_int_equal(tt_mix(out, part, 2, 3, TT_MIX_RANK, NULL), TT_EINVAL);
    part[1].weight = NAN;
    assert_int_equal(tt_mix(out, part, 2, 3, TT_MIX_WEIGHTED, NULL), TT_EINVAL);
}

static void one_candidate_and_equal_scores_divide_nothing(void **state)
{
    (void)state;
    const float same[] = {2, 2};
    tt_mix_part part = {same, 1};
    float out[2];
    assert_int_equal(tt_mix(out, &part, 1, 1, TT_MIX_RANK, NULL), TT_OK);
    assert_true(out[0] == 1);
    assert_int_equal(tt_mix(out, &part, 1, 2, TT_MIX_WEIGHTED, NULL), TT_OK);
    assert_true(out[0] == 0 && out[1] == 0);
    assert_int_equal(tt_mix(out, &part, 1, 2, TT_MIX_RANK, NULL), TT_OK);
    assert_true(out[0] > out[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beams_keep_the_best),
        cmocka_unit_test(equal_scores_keep_their_order),
        cmocka_unit_test(what_is_no_number_loses),
        cmocka_unit_test(lookahead_scores_more_than_it_keeps),
        cmocka_unit_test(completed_results_are_ordered_anew),
        cmocka_unit_test(a_stopped_search_has_what_was_scored),
        cmocka_unit_test(the_first_step_can_fill_the_beams),
        cmocka_unit_test(bad_sizes_are_named),
        cmocka_unit_test(a_failed_verifier_takes_its_weight_along),
        cmocka_unit_test(one_candidate_and_equal_scores_divide_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
