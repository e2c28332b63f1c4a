/* What can go wrong: steps that do not add up, a rule that commits nothing, ties broken by luck,
 * columns outside the block, noise that repeats. A scripted model stands in for the network: it
 * answers each ask from the column alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "samplers/masked/masked.h"

enum { MASK = 99, MAX = 64 };

typedef struct {
    tt_seq q;
    tt_arena life, step;
    tt_params params;
    const tt_sampler *sampler;
    void *state;
    int32_t order[MAX], commits[MAX]; /* columns in the order committed; how many per step */
    int steps;
} game;

/* confidence of a column; its token is the column number */
static float (*sure)(int32_t column);

static float falling(int32_t c) { return 1.0f / (float)(c + 2); }
static float rising(int32_t c) { return 1 - 1.0f / (float)(c + 2); }
static float equal(int32_t c)
{
    (void)c;
    return 0.5f;
}

static tt_status begin(game *g, const char *sampler, int32_t columns, int32_t prompt,
                       const uint8_t *open, tt_err *e)
{
    int32_t id[MAX];
    uint8_t rest[MAX];
    for (int32_t c = 0; c < columns; c++) {
        id[c] = c;
        rest[c] = open ? open[c] : c >= prompt;
    }
    g->sampler = tt_sampler_find(sampler);
    assert_int_equal(tt_arena_open(&g->life, tt_seq_bytes(g->sampler, columns, 0, 0), e), TT_OK);
    assert_int_equal(tt_arena_open(&g->step, tt_seq_step_bytes(columns), e), TT_OK);
    g->q = (tt_seq){.columns = columns, .prompt = prompt, .params = &g->params, .mask_id = MASK,
                    .eos_id = 90, .eot_id = -1, .vocab = 100, .arena = &g->life,
                    .noise = {.kind = TT_NOISE_PHILOX, .seed = 5}};
    assert_int_equal(tt_seq_begin(&g->q, id, rest, NULL, e), TT_OK);
    g->state = tt_arena_take(&g->life, 1, g->sampler->state_size);
    return g->sampler->open(&g->q, g->state, e);
}

static bool play_step(game *g)
{
    tt_err e;
    bool done = false;
    tt_row_stats stats[MAX];
    tt_arena_rewind(&g->step, 0);
    tt_plan plan = {.arena = &g->step};
    assert_int_equal(g->sampler->plan(&g->q, g->state, &plan, &e), TT_OK);
    assert_true(plan.asks > 0);
    for (int32_t i = 0; i < plan.asks; i++) {
        int32_t c = plan.ask[i].column;
        stats[i] = (tt_row_stats){.argmax = c, .drawn = c, .prob = sure(c), .margin = sure(c),
                                  .entropy = -sure(c)};
    }
    int32_t before[MAX], n = 0;
    memcpy(before, g->q.id, (size_t)g->q.columns * sizeof *before);
    tt_result r = {.plan = &plan, .stats = stats};
    assert_int_equal(g->sampler->apply(&g->q, g->state, &r, &done, &e), TT_OK);
    for (int32_t c = 0; c < g->q.columns; c++)
        if (before[c] == MASK && g->q.id[c] != MASK) {
            assert_int_equal(g->q.id[c], c);
            g->order[g->q.committed - 1] = c;
            n++;
        }
    g->commits[g->steps++] = n;
    g->q.step++;
    return done;
}

static void play(game *g)
{
    while (!play_step(g))
        assert_true(g->steps < MAX);
    for (int32_t c = 0; c < g->q.columns; c++)
        assert_int_not_equal(g->q.id[c], MASK);
}

static void end(game *g)
{
    tt_arena_close(&g->life);
    tt_arena_close(&g->step);
}

static game new_game(void)
{
    game g = {0};
    tt_params_default(&g.params);
    return g;
}

static void uneven_steps_put_the_remainder_first(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling;
    g.params.steps = 5;
    assert_int_equal(begin(&g, "low_confidence", 16, 0, NULL, &e), TT_OK);
    play(&g);
    const int32_t want[] = {4, 3, 3, 3, 3};
    assert_int_equal(g.steps, 5);
    assert_memory_equal(g.commits, want, sizeof want);
    end(&g);
}

static void blocks_go_left_to_right(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = rising; /* the last column is the surest: blocks must hold it back */
    g.params.block_length = 4;
    assert_int_equal(begin(&g, "low_confidence", 11, 3, NULL, &e), TT_OK);
    play(&g);
    const int32_t want[] = {6, 5, 4, 3, 10, 9, 8, 7};
    assert_int_equal(g.steps, 8);
    assert_memory_equal(g.order, want, sizeof want);
    end(&g);
}

static void equal_confidence_commits_the_lowest_column(void **state)
{
    (void)state;
    static const char *const samplers[] = {"low_confidence", "infill"};
    for (int i = 0; i < 2; i++) {
        game g = new_game();
        tt_err e;
        sure = equal;
        assert_int_equal(begin(&g, samplers[i], 9, 1, NULL, &e), TT_OK);
        play(&g);
        for (int32_t c = 0; c < 8; c++)
            assert_int_equal(g.order[c], c + 1);
        end(&g);
    }
}

static void short_last_block_gets_its_share_of_steps(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling;
    g.params.block_length = 8;
    g.params.steps = 10; /* 20 columns: blocks of 8, 8, 4 get 4, 4, 2 */
    assert_int_equal(begin(&g, "low_confidence", 20, 0, NULL, &e), TT_OK);
    play(&g);
    assert_int_equal(g.steps, 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(g.commits[i], 2);
    end(&g);
}

static void threshold_commits_the_best_when_none_is_sure(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = equal;
    g.params.threshold = 0.9;
    assert_int_equal(begin(&g, "threshold", 6, 2, NULL, &e), TT_OK);
    play(&g);
    assert_int_equal(g.steps, 4);
    end(&g);
}

static void threshold_commits_all_that_are_sure(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = equal;
    g.params.threshold = 0.5; /* >=, not > */
    assert_int_equal(begin(&g, "threshold", 6, 2, NULL, &e), TT_OK);
    play(&g);
    assert_int_equal(g.steps, 1);
    end(&g);
}

static float one_weak(int32_t c) { return c == 3 ? 0.1f : 0.99f; }

static void factor_compat_commits_a_failing_last_one(void **state)
{
    (void)state;
    tt_err e;
    sure = one_weak;
    for (int compat = 0; compat < 2; compat++) {
        game g = new_game();
        g.params.factor_compat = compat;
        assert_int_equal(begin(&g, "factor", 4, 0, NULL, &e), TT_OK);
        play(&g);
        assert_int_equal(g.steps, compat ? 1 : 2);
        end(&g);
    }
}

static void infill_paces_like_the_linear_schedule(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    uint8_t open[12] = {1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1, 1}; /* 8 holes */
    sure = falling;
    g.params.steps = 4;
    assert_int_equal(begin(&g, "infill", 12, 0, open, &e), TT_OK);
    play(&g);
    const int32_t want[] = {2, 2, 2, 2};
    assert_int_equal(g.steps, 4);
    assert_memory_equal(g.commits, want, sizeof want);
    end(&g);
}

static void infill_skips_blocks_without_holes(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    uint8_t open[16] = {[1] = 1, [14] = 1};
    sure = falling;
    g.params.block_length = 4;
    g.params.steps = 8;
    assert_int_equal(begin(&g, "infill", 16, 0, open, &e), TT_OK);
    play(&g);
    assert_int_equal(g.steps, 2); /* steps that would commit nothing are left out */
    end(&g);
}

static void too_few_steps_name_the_parameter(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    g.params.steps = 2;
    g.params.block_length = 4;
    assert_int_equal(begin(&g, "low_confidence", 12, 0, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "steps");
    end(&g);
}

static void the_random_order_depends_on_seed_and_sample_alone(void **state)
{
    (void)state;
    int32_t order[3][12];
    tt_err e;
    sure = equal;
    for (int i = 0; i < 3; i++) {
        game g = new_game();
        g.params.remask = TT_REMASK_RANDOM;
        assert_int_equal(begin(&g, "low_confidence", 12, 0, NULL, &e), TT_OK);
        g.q.noise.sample = i == 2;
        play(&g);
        memcpy(order[i], g.order, sizeof order[i]);
        end(&g);
    }
    assert_memory_equal(order[0], order[1], sizeof order[0]);
    assert_memory_not_equal(order[0], order[2], sizeof order[0]);
}

static void every_ask_bans_the_mask_and_has_its_own_noise(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    g.params.temperature = 1;
    g.params.logits_eos_inf = true;
    assert_int_equal(begin(&g, "low_confidence", 8, 0, NULL, &e), TT_OK);
    tt_plan plan = {.arena = &g.step};
    g.q.step = 3;
    assert_int_equal(g.sampler->plan(&g.q, g.state, &plan, &e), TT_OK);
    for (int32_t i = 0; i < plan.asks; i++) {
        const tt_draw *d = &plan.ask[i].draw;
        assert_int_equal(d->n_bias, 2);
        assert_int_equal(d->bias[0].id, 90);
        assert_int_equal(d->bias[1].id, MASK);
        assert_true(isinf(d->bias[0].value) && isinf(d->bias[1].value));
        assert_int_equal(d->position, (uint32_t)plan.ask[i].column);
        assert_int_equal(d->step, 3);
    }
    end(&g);
}

static void the_table_is_whole(void **state)
{
    (void)state;
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++) {
        assert_ptr_equal(tt_sampler_find((*s)->name), *s);
        for (const char *const *p = (*s)->params; *p; p++)
            assert_non_null(tt_param_find(*p));
    }
    assert_null(tt_sampler_find("nonsense"));
}

static void parameters_are_checked(void **state)
{
    (void)state;
    tt_params p;
    tt_err e;
    tt_params_default(&p);
    assert_true(p.threshold == 0.9 && p.top_p == 1 && !p.given);
    assert_int_equal(tt_params_set(&p, tt_param_find("steps"), 2.5, &e), TT_EINVAL);
    assert_int_equal(tt_params_set(&p, tt_param_find("steps"), -1, &e), TT_EINVAL);
    assert_int_equal(tt_params_set(&p, tt_param_find("top_p"), NAN, &e), TT_EINVAL);
    assert_int_equal(tt_params_set(&p, tt_param_find("top_p"), INFINITY, &e), TT_EINVAL);
    assert_string_equal(e.param, "top_p");
    assert_int_equal(tt_params_set_text(&p, tt_param_find("remask"), "sideways", &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "confidence, margin, entropy, random"));
    assert_int_equal(tt_params_set_text(&p, tt_param_find("remask"), "margin", &e), TT_OK);
    assert_int_equal(p.remask, TT_REMASK_MARGIN);
    assert_int_equal(tt_params_set_text(&p, tt_param_find("temperature"), "1x", &e), TT_EINVAL);
    assert_int_equal(tt_params_set_text(&p, tt_param_find("logits_eos_inf"), "true", &e), TT_OK);
    assert_true(p.logits_eos_inf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uneven_steps_put_the_remainder_first),
        cmocka_unit_test(blocks_go_left_to_right),
        cmocka_unit_test(equal_confidence_commits_the_lowest_column),
        cmocka_unit_test(short_last_block_gets_its_share_of_steps),
        cmocka_unit_test(threshold_commits_the_best_when_none_is_sure),
        cmocka_unit_test(threshold_commits_all_that_are_sure),
        cmocka_unit_test(factor_compat_commits_a_failing_last_one),
        cmocka_unit_test(infill_paces_like_the_linear_schedule),
        cmocka_unit_test(infill_skips_blocks_without_holes),
        cmocka_unit_test(too_few_steps_name_the_parameter),
        cmocka_unit_test(the_random_order_depends_on_seed_and_sample_alone),
        cmocka_unit_test(every_ask_bans_the_mask_and_has_its_own_noise),
        cmocka_unit_test(the_table_is_whole),
        cmocka_unit_test(parameters_are_checked),
    };
    return cmocka_run_group_tests_name("masked samplers", tests, NULL, NULL);
}
