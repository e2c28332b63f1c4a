/* Ancestral sampling. What can go wrong: columns that open at the wrong rate or in a fixed order,
 * passes that change nothing, a column left masked, noise shared between samples, a noise level
 * that rises. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "samplers/sampler.h"

enum { MASK = 99, MAX = 1024 };

typedef struct {
    tt_seq q;
    tt_arena life, step;
    tt_params params;
    const tt_sampler *sampler;
    void *state;
    int32_t opened[MAX]; /* per column: the pass */
    float sigma[MAX];    /* per pass */
    bool drawn[MAX];     /* per pass: at a temperature */
    int passes;
    bool done;
} game;

static game begin(const char *sampler, int32_t columns, int32_t given, int32_t steps, uint64_t seed,
                  uint32_t sample)
{
    static int32_t id[MAX];
    static uint8_t open[MAX];
    game g = {.sampler = tt_sampler_find(sampler)};
    tt_err e = {0};
    tt_params_default(&g.params);
    g.params.steps = steps;
    g.params.temperature = 1;
    assert_int_equal(tt_arena_open(&g.life, tt_seq_bytes(g.sampler, columns, 0, 0), &e), TT_OK);
    assert_int_equal(tt_arena_open(&g.step, tt_seq_step_bytes(g.sampler, columns, 0), &e), TT_OK);
    for (int32_t c = 0; c < columns; c++) {
        id[c] = c % 90;
        open[c] = c >= given;
    }
    g.q = (tt_seq){.columns = columns, .mask_id = MASK, .eos_id = 90, .eot_id = -1, .vocab = 100,
                   .sampler = g.sampler, .arena = &g.life,
                   .noise = {.kind = TT_NOISE_PHILOX, .seed = seed, .sample = sample}};
    g.q.params = &g.params;
    assert_int_equal(tt_seq_begin(&g.q, id, open, NULL, &e), TT_OK);
    g.state = tt_arena_take(&g.life, 1, g.sampler->state_size);
    return g;
}

static void play(game *g)
{
    static tt_row_stats stats[MAX];
    tt_err e = {0};
    g->q.params = &g->params;
    g->q.arena = &g->life;
    if (g->sampler->open(&g->q, g->state, &e))
        fail_msg("%s", e.text);
    while (!g->done) {
        tt_arena_rewind(&g->step, 0);
        tt_plan p = {.arena = &g->step};
        assert_int_equal(g->sampler->plan(&g->q, g->state, &p, &e), TT_OK);
        assert_true(p.asks > 0); /* a pass without an answer to read would be for nothing */
        assert_true(p.row_begin == 0 && p.row_end == g->q.columns);
        for (int32_t i = 0; i < p.asks; i++) {
            stats[i] = (tt_row_stats){.drawn = 7, .argmax = 7};
            g->opened[p.ask[i].column] = g->passes;
            g->drawn[g->passes] = p.ask[i].draw.temperature > 0;
        }
        g->sigma[g->passes] = p.sigma;
        tt_result r = {.plan = &p, .stats = stats};
        int32_t before = g->q.committed;
        assert_int_equal(g->sampler->apply(&g->q, g->state, &r, &g->done, &e), TT_OK);
        assert_int_equal(g->q.committed - before, p.asks);
        g->q.step++;
        g->passes++;
        assert_true(g->passes <= g->q.columns);
    }
    for (int32_t c = 0; c < g->q.columns; c++)
        assert_int_not_equal(g->q.id[c], MASK);
}

static void end(game *g)
{
    tt_arena_close(&g->life);
    tt_arena_close(&g->step);
}

static void every_pass_opens_something_and_the_noise_falls(void **state)
{
    (void)state;
    for (int32_t steps = 0; steps <= 4096; steps = steps ? steps * 4 : 1) {
        game g = begin("ddpm", 200, 20, steps, 3, 0);
        play(&g);
        for (int32_t c = 0; c < 20; c++)
            assert_int_equal(g.q.id[c], c);
        for (int i = 1; i < g.passes; i++)
            assert_true(g.sigma[i] < g.sigma[i - 1]);
        assert_true(g.sigma[0] <= (float)-log(1e-3) * 1.001f);
        if (steps)
            assert_true(g.passes <= steps + 1);
        end(&g);
    }
}

/* In a step of S, each of n columns opens with probability 1 / S: binomial counts. */
static void columns_open_at_an_even_rate(void **state)
{
    (void)state;
    enum { S = 8, SEEDS = 50, N = 1000 };
    double count[S] = {0};
    for (int seed = 0; seed < SEEDS; seed++) {
        game g = begin("ddpm", N, 0, S, (uint64_t)seed, 0);
        play(&g);
        assert_int_equal(g.passes, S);
        for (int32_t c = 0; c < N; c++)
            count[g.opened[c]]++;
        end(&g);
    }
    double mean = (double)SEEDS * N / S, sd = sqrt(mean * (1 - 1.0 / S));
    for (int i = 0; i < S; i++)
        assert_true(fabs(count[i] - mean) < 4.5 * sd);
}

static void the_order_is_the_seeds_and_the_samples(void **state)
{
    (void)state;
    game a = begin("ddpm", 64, 0, 0, 5, 0), b = begin("ddpm", 64, 0, 0, 5, 0);
    game c = begin("ddpm", 64, 0, 0, 5, 1), d = begin("ddpm", 64, 0, 0, 6, 0);
    play(&a);
    play(&b);
    play(&c);
    play(&d);
    assert_memory_equal(a.opened, b.opened, 64 * sizeof *a.opened);
    assert_memory_not_equal(a.opened, c.opened, 64 * sizeof *a.opened);
    assert_memory_not_equal(a.opened, d.opened, 64 * sizeof *a.opened);
    end(&a);
    end(&b);
    end(&c);
    end(&d);
}

/* With a single step about one column in 1e5 is left for the end. */
static void what_is_left_takes_the_best_token_or_a_drawn_one(void **state)
{
    (void)state;
    for (int analytic = 0; analytic < 2; analytic++) {
        bool seen = false;
        for (uint64_t seed = 0; seed < 2000 && !seen; seed++) {
            game g = begin(analytic ? "analytic" : "ddpm", MAX, 0, 1, seed, 0);
            play(&g);
            assert_true(g.drawn[0]);
            if (g.passes == 2) {
                seen = true;
                assert_true(g.drawn[1] == analytic);
            }
            end(&g);
        }
        assert_true(seen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pass_opens_something_and_the_noise_falls),
        cmocka_unit_test(columns_open_at_an_even_rate),
        cmocka_unit_test(the_order_is_the_seeds_and_the_samples),
        cmocka_unit_test(what_is_left_takes_the_best_token_or_a_drawn_one),
    };
    return cmocka_run_group_tests_name("ddpm", tests, NULL, NULL);
}
