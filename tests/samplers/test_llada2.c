/* Samplers of block-causal models. What can go wrong: a block's stale keys taken for final, a
 * canvas that does not end with a block, a threshold or a share that commits nothing, edits of the
 * prompt or without end, an end token passed over, memory counted for the canvas alone. A scripted
 * model answers each ask from the column and how often it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/batcher.h"

enum { MASK = 999, EOS = 998, MAX = 2048 };

typedef struct {
    tt_seq q;
    tt_arena life, step;
    tt_params params;
    const tt_sampler *sampler;
    void *state;
    tt_plan plan;
    int32_t asked[MAX]; /* per column */
    int passes;
    bool done;
} game;

/* The script: token and probability of a column at its n-th ask. */
static int32_t (*token)(int32_t column, int32_t n);
static float (*sure)(int32_t column, int32_t n);

static int32_t own(int32_t c, int32_t n)
{
    (void)n;
    return c % 900;
}
static float never(int32_t c, int32_t n)
{
    (void)n;
    return 0.3f + (float)(c % 8) * 0.01f; /* right ones are surer */
}
static float always(int32_t c, int32_t n)
{
    (void)c;
    (void)n;
    return 0.99f;
}

static tt_status begin_with(game *g, const char *sampler, int32_t columns, const uint8_t *open,
                            tt_err *e)
{
    static int32_t id[MAX];
    g->sampler = tt_sampler_find(sampler);
    int32_t room = tt_run_columns(g->sampler, &g->params, columns);
    assert_int_equal(tt_arena_open(&g->life, tt_seq_bytes(g->sampler, room, 0, 0), e), TT_OK);
    assert_int_equal(tt_arena_open(&g->step, tt_seq_step_bytes(g->sampler, room, 0), e), TT_OK);
    for (int32_t c = 0; c < columns; c++)
        id[c] = c % 7;
    g->q = (tt_seq){.columns = columns,
                    .params = &g->params,
                    .mask_id = MASK,
                    .eos_id = EOS,
                    .eot_id = -1,
                    .vocab = 1000,
                    .arena = &g->life};
    assert_int_equal(tt_seq_begin(&g->q, id, open, NULL, e), TT_OK);
    g->state = tt_arena_take(&g->life, 1, g->sampler->state_size);
    return g->sampler->open(&g->q, g->state, e);
}

static tt_status begin(game *g, const char *sampler, int32_t columns, int32_t prompt, tt_err *e)
{
    static uint8_t open[MAX];
    for (int32_t c = 0; c < columns; c++)
        open[c] = c >= prompt;
    return begin_with(g, sampler, columns, open, e);
}

static void play_step(game *g)
{
    tt_err e = {0};
    static tt_row_stats stats[MAX];
    tt_arena_rewind(&g->step, 0);
    g->plan = (tt_plan){.arena = &g->step};
    if (g->sampler->plan(&g->q, g->state, &g->plan, &e))
        fail_msg("%s", e.text);
    assert_true(g->plan.keep && g->plan.see == TT_SEE_BLOCK);
    assert_int_equal(g->plan.row_end % g->params.block_length, 0);
    assert_int_equal(g->plan.see_end, g->plan.row_end);
    for (int32_t i = 0; i < g->plan.asks; i++) {
        int32_t c = g->plan.ask[i].column, n = g->asked[c]++;
        float p = sure(c, n);
        stats[i] = (tt_row_stats){
            .argmax = token(c, n), .drawn = token(c, n), .prob = p, .prob_argmax = p};
    }
    tt_result r = {.plan = &g->plan, .stats = stats};
    assert_int_equal(g->sampler->apply(&g->q, g->state, &r, &g->done, &e), TT_OK);
    g->q.step++;
    g->passes++;
    assert_true(g->passes < 4 * MAX);
}

static void play(game *g)
{
    while (!g->done)
        play_step(g);
}

static void end(game *g)
{
    tt_arena_close(&g->life);
    tt_arena_close(&g->step);
}

static game new_game(int32_t block)
{
    game g = {0};
    tt_params_default(&g.params);
    g.params.block_length = block;
    return g;
}

static void a_finished_block_is_fed_once_more_and_then_never_again(void **state)
{
    (void)state;
    game g = new_game(8);
    tt_err e;
    token = own;
    sure = never;
    assert_int_equal(begin(&g, "llada2_block", 32, 12, &e), TT_OK);
    int32_t fed[32] = {0}, begin_of[32] = {0};
    for (int i = 0; !g.done; i++) {
        play_step(&g);
        begin_of[i] = g.plan.row_begin;
        for (int32_t c = g.plan.row_begin; c < g.plan.row_end; c++)
            fed[c]++;
        for (int32_t k = 0; k < g.plan.asks; k++)
            assert_true(g.plan.ask[k].column >= 12);
    }
    assert_int_equal(g.passes, 4 + 8 + 8); /* one a column, the block's prompt columns left out */
    assert_int_equal(begin_of[0], 0);      /* the prompt, with the first step */
    assert_int_equal(begin_of[1], 8);
    assert_int_equal(begin_of[4], 8); /* the block that 12 was in, with its last commit */
    assert_int_equal(begin_of[5], 16);
    assert_int_equal(fed[3], 1);
    assert_int_equal(fed[12], 5);
    assert_int_equal(fed[31], 8);
    end(&g);
}

static void a_threshold_takes_all_that_pass_it(void **state)
{
    (void)state;
    game g = new_game(8);
    tt_err e;
    token = own;
    sure = always;
    assert_int_equal(begin(&g, "llada2_block", 32, 12, &e), TT_OK);
    play(&g);
    assert_int_equal(g.passes, 3);
    end(&g);
}

static int32_t sure_pair(int32_t c, int32_t n)
{
    return own(c, n);
}
static float pair(int32_t c, int32_t n)
{
    (void)n;
    return c % 8 < 2 ? 0.95f : 0.5f + 0.01f * (float)(c % 8);
}

static void fewer_than_the_share_are_made_up_by_the_best(void **state)
{
    (void)state;
    game g = new_game(8);
    tt_err e;
    token = sure_pair;
    sure = pair;
    g.params.steps = 2; /* four a step */
    assert_int_equal(begin(&g, "llada2_block", 16, 8, &e), TT_OK);
    play_step(&g);
    for (int32_t c = 8; c < 16; c++) /* two pass, so the two surest of the others join */
        assert_int_equal(g.q.id[c] != MASK, c < 10 || c >= 14);
    play(&g);
    assert_int_equal(g.passes, 2);
    end(&g);
}

static void a_canvas_need_not_end_with_a_block(void **state)
{
    (void)state;
    static const struct {
        int32_t columns, prompt, block;
    } odd[] = {{11, 3, 32}, {1, 0, 1024}, {33, 31, 32}, {17, 16, 8}, {5, 4, 1}};
    token = own;
    sure = never;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        game g = new_game(odd[i].block);
        tt_err e = {0};
        if (begin(&g, "llada2_block", odd[i].columns, odd[i].prompt, &e))
            fail_msg("%s", e.text);
        play(&g);
        for (int32_t c = odd[i].prompt; c < odd[i].columns; c++)
            assert_int_equal(g.q.id[c], c);
        end(&g);
    }
}

static void a_long_prompt_is_fed_in_whole_blocks(void **state)
{
    (void)state;
    game g = new_game(32);
    tt_err e;
    token = own;
    sure = always;
    assert_int_equal(begin(&g, "llada2_block", 1800, 1700, &e), TT_OK);
    int32_t at = 0;
    while (!g.done) {
        play_step(&g);
        assert_true(g.plan.row_begin <= at);
        assert_true(g.plan.row_end - g.plan.row_begin <= 512 + 32);
        at = g.plan.row_end;
    }
    assert_int_equal(at, 1824);
    assert_int_equal(g.passes, 3 + 4); /* 1536 columns alone, the rest with the first block */
    end(&g);
}

static int32_t ends_at_twenty(int32_t c, int32_t n)
{
    return c == 20 ? EOS : own(c, n);
}

static void the_block_with_an_end_token_is_the_last(void **state)
{
    (void)state;
    game g = new_game(8);
    tt_err e;
    token = ends_at_twenty;
    sure = always;
    assert_int_equal(begin(&g, "llada2_block", 64, 10, &e), TT_OK);
    play(&g);
    assert_int_equal(g.passes, 2);
    assert_int_equal(g.q.id[20], EOS);
    assert_int_equal(g.q.id[24], MASK);
    end(&g);
}

/* Columns want another token at every ask until the fourth. */
static int32_t restless(int32_t c, int32_t n)
{
    return c % 100 + 100 * (n < 3 ? n : 3);
}
static int32_t never_content(int32_t c, int32_t n)
{
    return c % 100 + 100 * (n % 9);
}

static void edits_go_on_until_nothing_changes(void **state)
{
    (void)state;
    game g = new_game(8);
    tt_err e;
    token = restless;
    sure = always;
    assert_int_equal(begin(&g, "llada21_block_edit", 16, 4, &e), TT_OK);
    assert_int_equal(g.q.unsettled, 16);
    play_step(&g); /* fills */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(g.q.unsettled, 16); /* the block may still change */
        play_step(&g);                       /* three edits, then one pass that finds nothing */
    }
    assert_int_equal(g.q.unsettled, 8);
    play(&g);
    assert_int_equal(g.passes, 10);
    assert_int_equal(g.q.unsettled, 0);
    assert_int_equal(g.q.revised, 3 * 12);
    for (int32_t c = 0; c < 16; c++) /* the prompt is not edited */
        assert_int_equal(g.q.id[c], c < 4 ? c % 7 : c + 300);
    end(&g);
}

static void edits_have_an_end(void **state)
{
    (void)state;
    for (int32_t most = 0; most < 5; most++) {
        game g = new_game(8);
        tt_err e;
        token = never_content;
        sure = always;
        g.params.max_post_steps = most;
        assert_int_equal(begin(&g, "llada21_block_edit", 16, 0, &e), TT_OK);
        play(&g);
        assert_int_equal(g.passes, 2 * (1 + most));
        end(&g);
    }
}

static void doubt_below_the_threshold_edits_nothing(void **state)
{
    (void)state;
    game g = new_game(8);
    tt_err e;
    token = never_content;
    sure = never;
    g.params.num_to_transfer = 3;
    assert_int_equal(begin(&g, "llada21_block_edit", 8, 0, &e), TT_OK);
    play(&g);
    assert_int_equal(g.passes, 3 + 1); /* three a step, then one that finds nothing */
    assert_int_equal(g.q.revised, 0);
    end(&g);
}

static void canvases_and_parameters_that_cannot_be_are_refused(void **state)
{
    (void)state;
    tt_err e;
    uint8_t hole[16] = {0};
    hole[5] = hole[9] = 1;
    game g = new_game(8);
    assert_int_equal(begin_with(&g, "llada2_block", 16, hole, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "holes"));
    end(&g);
    g = new_game(0);
    assert_int_equal(begin(&g, "llada21_block_edit", 16, 4, &e), TT_EINVAL);
    assert_string_equal(e.param, "block_length");
    end(&g);
    g = new_game(8);
    g.params.logits_eos_inf = true;
    assert_int_equal(begin(&g, "llada2_block", 16, 4, &e), TT_OK);
    end(&g);
}

static void samplers_fit_the_models_they_are_made_for(void **state)
{
    (void)state;
    const tt_sampler *blocks = tt_sampler_find("llada2_block"), *ddpm = tt_sampler_find("ddpm");
    const tt_sampler *threshold = tt_sampler_find("threshold");
    assert_true(tt_sampler_fits(blocks, TT_KIND_BLOCKS));
    assert_false(tt_sampler_fits(blocks, TT_KIND_BIDIRECTIONAL));
    assert_false(tt_sampler_fits(threshold, TT_KIND_BLOCKS));
    assert_true(tt_sampler_fits(threshold, TT_KIND_BIDIRECTIONAL));
    assert_false(tt_sampler_fits(threshold, TT_KIND_BIDIRECTIONAL | TT_KIND_TIMED));
    assert_true(tt_sampler_fits(ddpm, TT_KIND_BIDIRECTIONAL | TT_KIND_TIMED));
    assert_true(tt_sampler_fits(ddpm, TT_KIND_BIDIRECTIONAL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_finished_block_is_fed_once_more_and_then_never_again),
        cmocka_unit_test(a_threshold_takes_all_that_pass_it),
        cmocka_unit_test(fewer_than_the_share_are_made_up_by_the_best),
        cmocka_unit_test(a_canvas_need_not_end_with_a_block),
        cmocka_unit_test(a_long_prompt_is_fed_in_whole_blocks),
        cmocka_unit_test(the_block_with_an_end_token_is_the_last),
        cmocka_unit_test(edits_go_on_until_nothing_changes),
        cmocka_unit_test(edits_have_an_end),
        cmocka_unit_test(doubt_below_the_threshold_edits_nothing),
        cmocka_unit_test(canvases_and_parameters_that_cannot_be_are_refused),
        cmocka_unit_test(samplers_fit_the_models_they_are_made_for),
    };
    return cmocka_run_group_tests_name("llada2", tests, NULL, NULL);
}
