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
    tt_plan plan[MAX];                /* of each step; its lists are gone */
    int32_t first_fed[MAX];           /* of the step's list of columns, if it had one */
    int steps;
} game;

/* confidence of a column; its token is the column number */
static float (*sure)(int32_t column);

/* how far every distribution moves */
static float moved;

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
    assert_int_equal(tt_arena_open(&g->step, tt_seq_step_bytes(g->sampler, columns, 0),
                                   e), TT_OK);
    g->q = (tt_seq){.columns = columns, .prompt = prompt, .params = &g->params, .mask_id = MASK,
                    .sampler = g->sampler, .kinds = TT_KIND_BIDIRECTIONAL | TT_KIND_MEMO,
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
    tt_row_stats stats[2 * MAX];
    float kl[2 * MAX];
    tt_arena_rewind(&g->step, 0);
    tt_plan plan = {.arena = &g->step};
    assert_int_equal(g->sampler->plan(&g->q, g->state, &plan, &e), TT_OK);
    assert_true(plan.asks > 0);
    for (int32_t i = 0; i < plan.asks; i++) {
        int32_t c = plan.ask[i].column;
        kl[i] = moved;
        stats[i] = (tt_row_stats){.argmax = c, .drawn = c, .prob = sure(c), .margin = sure(c),
                                  .entropy = -sure(c)};
    }
    int32_t before[MAX], n = 0;
    memcpy(before, g->q.id, (size_t)g->q.columns * sizeof *before);
    tt_result r = {.plan = &plan, .stats = stats, .kl = kl};
    g->plan[g->steps] = plan;
    g->first_fed[g->steps] = plan.feed ? plan.feed[0] : -1;
    assert_int_equal(g->sampler->apply(&g->q, g->state, &r, &done, &e), TT_OK);
    for (int32_t c = 0; c < g->q.columns; c++)
        if (before[c] == MASK && g->q.id[c] != MASK) {
            assert_true(g->q.id[c] == c || (g->q.params->early_stop && g->q.id[c] == g->q.eos_id));
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

static float entropies(int32_t c) { return -0.05f * (float)(c + 1); }

static void entropy_bound_leaves_the_largest_out_of_the_sum(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = entropies; /* 0.05 0.1 0.15 0.2 0.25 0.3 */
    g.params.entropy_bound = 0.16;
    assert_int_equal(begin(&g, "entropy_bound", 6, 0, NULL, &e), TT_OK);
    play(&g);
    const int32_t want[] = {3, 1, 1, 1};
    assert_int_equal(g.steps, 4);
    assert_memory_equal(g.commits, want, sizeof want);
    end(&g);
}

static float two_runs(int32_t c)
{
    static const float p[] = {0.2f, 0.45f, 0.3f, 0, 0.35f, 0.42f};
    return p[c];
}

static void hierarchy_commits_the_best_of_every_run(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    uint8_t open[6] = {1, 1, 1, 0, 1, 1};
    sure = two_runs;
    assert_int_equal(begin(&g, "hierarchy", 6, 0, open, &e), TT_OK);
    assert_false(play_step(&g));
    assert_int_equal(g.q.id[1], 1); /* the block's best, its run's best too */
    assert_int_equal(g.q.id[5], 5); /* the other run's best, above low_threshold */
    assert_int_equal(g.commits[0], 2);
    assert_false(play_step(&g)); /* three runs of one, all below low_threshold: the best alone */
    assert_int_equal(g.q.id[4], 4);
    assert_int_equal(g.commits[1], 1);
    end(&g);
}

static void klass_waits_until_distributions_stop_moving(void **state)
{
    (void)state;
    for (int calm = 0; calm < 2; calm++) {
        game g = new_game();
        tt_err e;
        sure = equal;
        moved = calm ? 0.001f : 0.5f;
        g.params.threshold = 0.4;
        g.params.block_length = 4;
        assert_int_equal(begin(&g, "klass", 8, 0, NULL, &e), TT_OK);
        play(&g);
        const int32_t want[] = {1, 3, 1, 3}; /* the first step of a block is never stable */
        assert_int_equal(g.steps, calm ? 4 : 8);
        if (calm)
            assert_memory_equal(g.commits, want, sizeof want);
        end(&g);
    }
}

static void klass_goes_on_when_its_steps_are_used_up(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling; /* columns 0, 1 pass the threshold, one per step after the first */
    moved = 0;
    g.params.threshold = 0.3;
    g.params.steps = 2;
    assert_int_equal(begin(&g, "klass", 8, 0, NULL, &e), TT_OK);
    play(&g);
    const int32_t want[] = {4, 4};
    assert_memory_equal(g.commits, want, sizeof want);
    end(&g);
    g = new_game();
    g.params.threshold = 0.1;
    g.params.steps = 3; /* 3, then a stable one instead of 3, then 2, and 2 left over */
    sure = falling;
    assert_int_equal(begin(&g, "klass", 16, 0, NULL, &e), TT_OK);
    play(&g); /* asserts that nothing stays open */
    assert_true(g.steps > 3);
    end(&g);
}

static float weak_end(int32_t c) { return c < 4 ? 0.5f : 0.05f; }

static void slowfast_ends_a_cycle_where_the_block_gets_unsure(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = weak_end;
    g.params.explore_steps = 2;
    assert_int_equal(begin(&g, "slowfast", 8, 0, NULL, &e), TT_OK);
    play(&g);
    assert_int_equal(g.steps, 8);
    /* Two slow steps and the first fast one see all; the second sees no further than the cycle. */
    const int32_t see[] = {8, 8, 8, 4};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(g.plan[i].see_end, see[i]);
        assert_int_equal(g.plan[i].row_end, see[i]);
    }
    for (int32_t c = 0; c < 8; c++)
        assert_int_equal(g.order[c], c);
    end(&g);
}

static void dkv_feeds_open_columns_and_the_last_commits(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling; /* left to right */
    g.params.cache = TT_CACHE_DKV;
    g.params.cache_refresh = 4;
    assert_int_equal(begin(&g, "low_confidence", 10, 2, NULL, &e), TT_OK);
    play(&g);
    /* Steps 0, 1, 4 feed all; the others what is open and what was committed one step before. */
    const int32_t fed[] = {-1, -1, 3, 4, -1, 6, 7, 8};
    assert_int_equal(g.steps, 8);
    for (int i = 0; i < 8; i++) {
        assert_true(g.plan[i].keep);
        assert_int_equal(g.first_fed[i], fed[i]);
        assert_int_equal(g.plan[i].feeds, fed[i] < 0 ? 0 : 10 - fed[i]);
    }
    end(&g);
}

static void vicinity_warms_up_fills_and_feeds_what_is_near(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling;
    g.params.cache = TT_CACHE_VICINITY;
    g.params.cache_before = 2;
    g.params.cache_after = 3;
    g.params.cache_warmup = 2;
    g.params.block_length = 4;
    assert_int_equal(begin(&g, "low_confidence", 16, 4, NULL, &e), TT_OK);
    play(&g);
    static const struct {
        bool keep;
        int32_t begin, end;
    } want[] = {{false, 0, 16}, {false, 0, 16}, {true, 0, 16}, {true, 2, 11}, /* block 4..7 */
                {true, 0, 16},  {true, 6, 15},  {true, 6, 15}, {true, 6, 15}, /* block 8..11 */
                {true, 0, 16},  {true, 10, 16}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(g.plan[i].keep, want[i].keep);
        assert_int_equal(g.plan[i].row_begin, want[i].begin);
        assert_int_equal(g.plan[i].row_end, want[i].end);
    }
    end(&g);
}

static void a_refreshed_dual_cache_feeds_all_again(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling;
    g.params.cache = TT_CACHE_DUAL;
    g.params.cache_refresh = 3;
    assert_int_equal(begin(&g, "low_confidence", 10, 2, NULL, &e), TT_OK);
    play(&g);
    /* A pass over all and one over the block are one turn; turns 0, 3 begin with all. */
    const int32_t begins[] = {0, 2, 2, 2, 0, 2, 2, 2};
    for (int i = 0; i < 8; i++)
        assert_int_equal(g.plan[i].row_begin, begins[i]);
    end(&g);
}

static void early_stop_fills_up_after_the_block_with_the_end(void **state)
{
    (void)state;
    game g = new_game();
    tt_err e;
    sure = falling;
    g.params.block_length = 4;
    g.params.early_stop = true;
    assert_int_equal(begin(&g, "low_confidence", 12, 0, NULL, &e), TT_OK);
    g.q.eos_id = 2; /* what column 2 will hold */
    play(&g);
    assert_int_equal(g.steps, 4);
    assert_int_equal(g.q.id[3], 3); /* the block is finished first */
    for (int32_t c = 4; c < 12; c++)
        assert_int_equal(g.q.id[c], 2);
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
    assert_true(p.threshold == 0.9 && p.top_p == 1 && !p.given[0] && !p.given[1]);
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
        cmocka_unit_test(entropy_bound_leaves_the_largest_out_of_the_sum),
        cmocka_unit_test(hierarchy_commits_the_best_of_every_run),
        cmocka_unit_test(klass_waits_until_distributions_stop_moving),
        cmocka_unit_test(klass_goes_on_when_its_steps_are_used_up),
        cmocka_unit_test(slowfast_ends_a_cycle_where_the_block_gets_unsure),
        cmocka_unit_test(dkv_feeds_open_columns_and_the_last_commits),
        cmocka_unit_test(vicinity_warms_up_fills_and_feeds_what_is_near),
        cmocka_unit_test(a_refreshed_dual_cache_feeds_all_again),
        cmocka_unit_test(early_stop_fills_up_after_the_block_with_the_end),
        cmocka_unit_test(the_table_is_whole),
        cmocka_unit_test(parameters_are_checked),
    };
    return cmocka_run_group_tests_name("masked samplers", tests, NULL, NULL);
}
