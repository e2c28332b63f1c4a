/* Planners and orders of images, without a model: statistics are made up here.
 *
 * What can go wrong: a schedule off by one, a given token that changes, a step that reveals nothing
 * although tokens were given, ties, guidance at the wrong step, noise that depends on other images,
 * a fixed sequence that meets a cell twice, levels in pieces. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "samplers/image.h"

enum { CODES = 50 };

typedef struct {
    tt_params params;
    tt_arena arena, step;
    tt_image_seq q;
    tt_image_plan plan;
    tt_row_stats *stats;
} picture;

static tt_layout grid(int32_t side)
{
    return (tt_layout){.kind = TT_LAYOUT_GRID, .tokens = side * side, .rows = side, .columns = side,
                       .levels = 1, .level = {side * side}, .codes = CODES};
}

static picture *picture_of(tt_layout layout, const char *planner)
{
    picture *p = calloc(1, sizeof *p);
    const tt_planner *by = tt_planner_find(planner);
    assert_non_null(by);
    tt_params_default(&p->params);
    assert_int_equal(tt_arena_open(&p->arena, tt_image_seq_bytes(by, layout.tokens), NULL), TT_OK);
    assert_int_equal(tt_arena_open(&p->step, tt_image_step_bytes(layout.tokens), NULL), TT_OK);
    p->stats = calloc((size_t)layout.tokens, sizeof *p->stats);
    p->q = (tt_image_seq){.planner = by, .params = &p->params, .layout = layout, .mask_id = CODES,
                          .seed = 7, .arena = &p->arena};
    return p;
}

static void drop(picture *p)
{
    tt_arena_close(&p->arena);
    tt_arena_close(&p->step);
    free(p->stats);
    free(p);
}

static void begin(picture *p, const int32_t *id)
{
    tt_err e = {0};
    if (tt_image_begin(&p->q, id, &e))
        fail_msg("%s", e.text);
}

static void plan(picture *p)
{
    tt_err e = {0};
    tt_arena_rewind(&p->step, 0);
    p->plan = (tt_image_plan){.arena = &p->step};
    if (tt_image_plan_step(&p->q, &p->plan, &e))
        fail_msg("%s", e.text);
}

/* Token slot % CODES for every slot, the surer the higher the slot. */
static void answer(picture *p)
{
    tt_err e = {0};
    for (int32_t i = 0; i < p->plan.wants; i++) {
        int32_t slot = p->plan.slot[i], id = slot % CODES;
        p->stats[i] = (tt_row_stats){.argmax = id, .drawn = id,
                                     .logprob = -1 / (float)(slot + 1)};
    }
    if (tt_image_apply(&p->q, &p->plan, p->stats, &e))
        fail_msg("%s", e.text);
}

static void schedule_is(int32_t side, int32_t steps, tt_order_choice order, const int32_t *hidden,
                        int n)
{
    picture *p = picture_of(grid(side), "masked");
    p->params.steps = steps;
    p->params.order = order;
    begin(p, NULL);
    for (int i = 0; i < n; i++) {
        assert_false(tt_image_done(&p->q));
        plan(p);
        answer(p);
        assert_int_equal(p->q.hidden, hidden[i]);
    }
    assert_true(tt_image_done(&p->q));
    for (int32_t i = 0; i < side * side; i++)
        assert_int_equal(p->q.id[i], i % CODES);
    drop(p);
}

static void schedules_are_the_published_ones(void **state)
{
    (void)state;
    static const int32_t enat8[] = {251, 236, 212, 181, 142, 97, 49, 0};
    static const int32_t enat4[] = {236, 181, 97, 0};
    static const int32_t large[] = {1004, 946, 851, 724, 568, 391, 199, 0}, one[] = {0};
    schedule_is(16, 8, TT_ORDER_ENAT, enat8, 8);
    schedule_is(16, 4, TT_ORDER_ENAT, enat4, 4);
    schedule_is(32, 8, TT_ORDER_ENAT, large, 8);
    schedule_is(4, 1, TT_ORDER_ENAT, one, 1);
    schedule_is(16, 8, TT_ORDER_MASKGIT, enat8, 8);
    schedule_is(4, 1, TT_ORDER_MASKGIT, one, 1);
    /* 16 (1 - acos(r) / (pi / 2)) = 2.57, 5.33, 8.64: at least t + 1 */
    static const int32_t halton[] = {14, 11, 8, 0};
    schedule_is(4, 4, TT_ORDER_HALTON, halton, 4);
}

static void the_surest_stand_and_ties_go_from_left(void **state)
{
    (void)state;
    picture *p = picture_of(grid(4), "masked");
    tt_err e = {0};
    p->params.steps = 2;
    p->params.order_temperature = 0;
    begin(p, NULL);
    plan(p);
    assert_int_equal(p->plan.wants, 16);
    for (int32_t i = 0; i < 16; i++)
        p->stats[i] = (tt_row_stats){.argmax = 3, .drawn = 4, .logprob = i == 5 ? -2 : -1};
    assert_int_equal(tt_image_apply(&p->q, &p->plan, p->stats, &e), TT_OK);
    /* floor(16 cos(pi / 4)) = 11 stay hidden: the least sure, then the first ones */
    assert_int_equal(p->q.hidden, 11);
    assert_int_equal(p->q.commits, 5);
    for (int32_t i = 0; i < 16; i++)
        assert_int_equal(p->q.id[i], i < 11 ? CODES : 4);
    assert_int_equal(p->q.step_of[15], 1);
    int32_t preview[16];
    tt_image_preview(&p->q, preview);
    assert_int_equal(preview[0], 3);
    assert_int_equal(preview[15], 4);
    drop(p);
}

static void given_tokens_stay_and_every_step_reveals_one(void **state)
{
    (void)state;
    for (int order = 0; order < 3; order++) {
        int32_t id[64];
        picture *p = picture_of(grid(8), "masked");
        p->params.steps = 20;
        p->params.order = order;
        for (int32_t i = 0; i < 64; i++)
            id[i] = i % 5 ? 49 - i % 7 : CODES;
        begin(p, id);
        assert_int_equal(p->q.hidden, 13);
        for (int step = 0; !tt_image_done(&p->q); step++) {
            int32_t before = p->q.hidden;
            assert_true(step < 20);
            plan(p);
            for (int32_t i = 0; i < p->plan.wants; i++)
                assert_int_equal(p->plan.slot[i] % 5, 0);
            answer(p);
            assert_true(p->q.hidden < before);
        }
        for (int32_t i = 0; i < 64; i++)
            assert_int_equal(p->q.id[i], i % 5 ? id[i] : i % CODES);
        drop(p);
    }
}

static void nothing_hidden_is_done(void **state)
{
    (void)state;
    static const int32_t id[4] = {1, 2, 3, 4};
    picture *p = picture_of(grid(2), "masked");
    begin(p, id);
    assert_true(tt_image_done(&p->q));
    drop(p);
}

static void guidance_comes_in_over_the_steps(void **state)
{
    (void)state;
    static const double want[3][4] = {{0, 1, 2, 3}, {4, 4, 4, 4}, {0, 0.585786, 2, 3.414214}};
    for (int ramp = 0; ramp < 3; ramp++) {
        picture *p = picture_of(grid(8), "masked");
        p->params.steps = 4;
        p->params.cfg_scale = 4;
        p->params.guidance_ramp = ramp;
        p->params.temperature = 2;
        begin(p, NULL);
        for (int t = 0; t < 4; t++) {
            plan(p);
            assert_float_equal(p->plan.cfg_scale, want[ramp][t], 1e-5);
            assert_true(p->plan.guided && p->plan.reuse);
            assert_float_equal(p->plan.draw[0].temperature, fmax(2 - (t + 1) / 2.0, 1e-3), 1e-6);
            assert_int_equal(p->plan.draw[0].position, p->plan.slot[0]);
            assert_int_equal(p->plan.draw[0].step, t);
            answer(p);
        }
        drop(p);
    }
}

/* Which slots stand after the first step, by noise alone. */
static void first_slots(uint64_t seed, uint32_t sample, uint8_t stands[64])
{
    picture *p = picture_of(grid(8), "masked");
    p->q.seed = seed;
    p->q.sample = sample;
    p->params.order_temperature = 1000;
    begin(p, NULL);
    plan(p);
    answer(p);
    for (int32_t i = 0; i < 64; i++)
        stands[i] = p->q.id[i] != CODES;
    drop(p);
}

static void noise_is_that_of_seed_and_sample(void **state)
{
    (void)state;
    uint8_t a[64], b[64];
    first_slots(1, 0, a);
    first_slots(1, 0, b);
    assert_memory_equal(a, b, 64);
    first_slots(2, 0, b);
    assert_memory_not_equal(a, b, 64);
    first_slots(1, 1, b);
    assert_memory_not_equal(a, b, 64);
}

static void halton_meets_every_cell_once_and_spreads(void **state)
{
    (void)state;
    int32_t rank[256], seen[256] = {0};
    tt_image_seq q = {.layout = grid(16)};
    tt_orders[TT_ORDER_HALTON]->arrange(&q, rank);
    for (int i = 0; i < 256; i++) {
        assert_in_range(rank[i], 0, 255);
        assert_int_equal(seen[rank[i]]++, 0);
    }
    /* (1/2, 1/3), (1/4, 2/3), (3/4, 1/9) */
    assert_int_equal(rank[8 * 16 + 5], 0);
    assert_int_equal(rank[4 * 16 + 10], 1);
    assert_int_equal(rank[12 * 16 + 1], 2);
    int quarter[4] = {0};
    for (int i = 0; i < 256; i++)
        if (rank[i] < 64)
            quarter[i / 128 * 2 + i % 16 / 8]++;
    for (int i = 0; i < 4; i++)
        assert_in_range(quarter[i], 14, 18);
}

static void halton_asks_for_no_other_slots(void **state)
{
    (void)state;
    picture *p = picture_of(grid(16), "masked");
    p->params.order = TT_ORDER_HALTON;
    p->params.steps = 32;
    begin(p, NULL);
    while (!tt_image_done(&p->q)) {
        int32_t before = p->q.hidden;
        plan(p);
        answer(p);
        assert_int_equal(before - p->q.hidden, p->plan.wants);
    }
    assert_int_equal(p->q.step, 32);
    drop(p);
}

static void orders_of_grids_need_one(void **state)
{
    (void)state;
    tt_layout line = {.kind = TT_LAYOUT_SEQUENCE, .tokens = 9, .levels = 1, .level = {9},
                      .codes = CODES};
    picture *p = picture_of(line, "masked");
    tt_err e = {0};
    p->params.order = TT_ORDER_HALTON;
    assert_int_equal(tt_image_begin(&p->q, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "order");
    drop(p);
}

static void an_impossible_token_is_an_error(void **state)
{
    (void)state;
    picture *p = picture_of(grid(2), "masked");
    tt_err e = {0};
    begin(p, NULL);
    plan(p);
    for (int i = 0; i < 4; i++)
        p->stats[i] = (tt_row_stats){.argmax = -1, .drawn = -1};
    assert_int_equal(tt_image_apply(&p->q, &p->plan, p->stats, &e), TT_EINVAL);
    drop(p);
}

static void levels_come_whole_and_given_ones_take_no_step(void **state)
{
    (void)state;
    tt_layout l = {.kind = TT_LAYOUT_LEVELS, .tokens = 10, .levels = 4, .level = {1, 2, 3, 4},
                   .codes = CODES};
    int32_t id[10] = {CODES, 5, 6, CODES, 7, CODES, CODES, CODES, CODES, CODES};
    static const int32_t wants[] = {1, 2, 4};
    picture *p = picture_of(l, "levels");
    begin(p, id);
    assert_int_equal(p->q.steps, 3);
    for (int t = 0; t < 3; t++) {
        plan(p);
        assert_int_equal(p->plan.wants, wants[t]);
        answer(p);
    }
    assert_true(tt_image_done(&p->q));
    assert_int_equal(p->q.id[4], 7);
    drop(p);
}

static void next_tokens_come_one_by_one(void **state)
{
    (void)state;
    picture *p = picture_of(grid(3), "next");
    begin(p, NULL);
    assert_int_equal(p->q.steps, 9);
    for (int32_t t = 0; t < 9; t++) {
        plan(p);
        assert_int_equal(p->plan.wants, 1);
        assert_int_equal(p->plan.slot[0], t);
        answer(p);
    }
    assert_true(tt_image_done(&p->q));
    drop(p);
}

static void hiding_takes_its_share_of_the_mask(void **state)
{
    (void)state;
    tt_layout l = grid(8);
    uint8_t mask[64];
    int32_t id[64], again[64], hidden = 0;
    tt_err e = {0};
    for (int i = 0; i < 64; i++) {
        mask[i] = i % 4 == 0;
        id[i] = again[i] = i % CODES;
    }
    assert_int_equal(tt_image_hide(id, &l, CODES, mask, 0.5, 3, 0, &e), TT_OK);
    for (int i = 0; i < 64; i++) {
        hidden += id[i] == CODES;
        assert_true(mask[i] || id[i] == i % CODES);
    }
    assert_int_equal(hidden, 8);
    assert_int_equal(tt_image_hide(again, &l, CODES, mask, 0.5, 3, 0, &e), TT_OK);
    assert_memory_equal(id, again, sizeof id);
    assert_int_equal(tt_image_hide(again, &l, CODES, NULL, 1e-9, 3, 0, &e), TT_OK);
    assert_int_equal(tt_image_hide(again, &l, CODES, NULL, 0, 3, 0, &e), TT_EINVAL);
    assert_string_equal(e.param, "strength");
    assert_int_equal(tt_image_hide(again, &l, CODES, NULL, NAN, 3, 0, &e), TT_EINVAL);
}

static void every_kind_has_a_planner(void **state)
{
    (void)state;
    assert_string_equal(tt_planner_for(TT_GENERATES_MASKED)->name, "masked");
    assert_string_equal(tt_planner_for(TT_GENERATES_LEVELS)->name, "levels");
    assert_string_equal(tt_planner_for(TT_GENERATES_NEXT)->name, "next");
    assert_null(tt_planner_find("none"));
    for (const tt_planner *const *p = tt_planner_all(); *p; p++)
        for (const char *const *name = (*p)->params; *name; name++)
            assert_non_null(tt_param_find(*name));
    assert_true(tt_planner_reads(tt_planner_find("masked"), tt_param_find("order")));
    assert_false(tt_planner_reads(tt_planner_find("next"), tt_param_find("order")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_are_the_published_ones),
        cmocka_unit_test(the_surest_stand_and_ties_go_from_left),
        cmocka_unit_test(given_tokens_stay_and_every_step_reveals_one),
        cmocka_unit_test(nothing_hidden_is_done),
        cmocka_unit_test(guidance_comes_in_over_the_steps),
        cmocka_unit_test(noise_is_that_of_seed_and_sample),
        cmocka_unit_test(halton_meets_every_cell_once_and_spreads),
        cmocka_unit_test(halton_asks_for_no_other_slots),
        cmocka_unit_test(orders_of_grids_need_one),
        cmocka_unit_test(an_impossible_token_is_an_error),
        cmocka_unit_test(levels_come_whole_and_given_ones_take_no_step),
        cmocka_unit_test(next_tokens_come_one_by_one),
        cmocka_unit_test(hiding_takes_its_share_of_the_mask),
        cmocka_unit_test(every_kind_has_a_planner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
