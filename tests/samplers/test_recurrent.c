/* Samplers of recurrent depth, on the small trained model of the reference vectors.
 *
 * What can go wrong: a text that depends on how it is decoded, on the batch, or on the wave's
 * limits; a frozen token that changes; a wave that never ends, or feeds what nobody asked for;
 * given columns written over; states taken from the wrong column once the wave is longer than what
 * is kept; parameters that cannot be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "server/batcher.h"

static const char folder[] = "tests/golden/recurrent-depth/model";
static tt_stream *stream;
static tt_model *model;
static tt_weights *weights;
static tt_config *config;

static int open_model(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    if (tt_stream_open(&stream, "cpu", 1, &e) ||
        tt_model_open(&model, &weights, &config, stream, folder, TT_WEIGHTS_F32, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    tt_model_close(model);
    tt_weights_close(weights);
    tt_config_close(config);
    tt_stream_close(stream);
    return 0;
}

enum { COLUMNS = 40, PROMPT = 6 };

typedef struct {
    tt_params params;
    int32_t id[COLUMNS];
    uint8_t open[COLUMNS];
    tt_run run;
} request;

/* Sequences the model was trained to go on with: steps a and b in turns, modulo 64. */
static request *ask(const char *sampler, int first, int a, int b, const char *const *set)
{
    request *r = calloc(1, sizeof *r);
    tt_err e = {0};
    tt_params_default(&r->params);
    r->params.recurrence = 16;
    for (; set && *set; set += 2)
        if (tt_params_set_text(&r->params, tt_param_find(set[0]), set[1], &e))
            fail_msg("%s", e.text);
    for (int i = 0; i < COLUMNS; i++) {
        r->id[i] = first % 64;
        first += i % 2 ? b : a;
        r->open[i] = i >= PROMPT;
    }
    tt_run_spec spec = {.sampler = tt_sampler_find(sampler), .model = model,
                        .params = &r->params, .id = r->id, .open = r->open, .columns = COLUMNS,
                        .prompt = PROMPT, .vocab = 64, .log = true,
                        .noise = {.kind = TT_NOISE_PHILOX, .seed = 11}};
    if (tt_run_open(&r->run, &spec, &e))
        fail_msg("%s", e.text);
    return r;
}

static void drop(request *r)
{
    tt_run_close(&r->run);
    free(r);
}

static void step(request *const *list, int n)
{
    static tt_batch batch;
    tt_run *run[16];
    int64_t runs = 0;
    tt_err e = {0};
    for (int i = 0; i < n; i++) {
        if (list[i]->run.done)
            continue;
        tt_run_plan(&list[i]->run);
        if (list[i]->run.failed)
            fail_msg("%s", list[i]->run.error.text);
        run[runs++] = &list[i]->run;
    }
    if (runs && tt_batch_step(&batch, run, runs, &e))
        fail_msg("%s", e.text);
    tt_batch_free(&batch);
}

/* Runs it to its end; no more than so many passes. */
static request *finish(request *r, int most)
{
    int n = 0;
    for (; !r->run.done && n < most; n++)
        step(&r, 1);
    if (!r->run.done)
        fail_msg("'%s' has not ended after %d passes", r->run.sampler->name, most);
    for (int c = 0; c < COLUMNS; c++)
        assert_in_range(r->run.seq.id[c], 0, 63);
    return r;
}

static void same_text(const request *a, const request *b)
{
    for (int c = 0; c < COLUMNS; c++)
        if (a->run.seq.id[c] != b->run.seq.id[c])
            fail_msg("column %d is %d by '%s' and %d by '%s'", c, a->run.seq.id[c],
                     a->run.sampler->name, b->run.seq.id[c], b->run.sampler->name);
}

#define SET(...) ((const char *const[]){__VA_ARGS__, NULL})

static const int starts[][3] = {{24, 3, 4}, {10, 3, 3}, {53, 2, 2}, {34, 1, 2}, {41, 3, 3}};
enum { STARTS = sizeof starts / sizeof *starts };

static void a_wave_writes_what_one_token_after_the_other_does(void **state)
{
    (void)state;
    for (int i = 0; i < STARTS; i++) {
        const int *s = starts[i];
        request *plain = finish(ask("recurrent", s[0], s[1], s[2], SET("kv_entries", "1")), 100);
        request *wave = finish(ask("forcing", s[0], s[1], s[2], NULL), 100);
        same_text(plain, wave);
        assert_true(2 * wave->run.seq.depth.core_passes < plain->run.seq.depth.core_passes);
        drop(plain);
        drop(wave);
    }
}

static void drawn_tokens_agree_as_well(void **state)
{
    (void)state;
    const char *const *set = SET("temperature", "0.8", "exit_threshold", "0.002");
    request *plain = finish(ask("recurrent", 24, 3, 4, SET("temperature", "0.8", "kv_entries",
                                                           "1", "recurrence", "32")), 100);
    request *greedy = finish(ask("recurrent", 24, 3, 4, NULL), 100);
    request *wave = finish(ask("forcing", 24, 3, 4, set), 200);
    same_text(plain, wave);
    assert_memory_not_equal(plain->run.seq.id, greedy->run.seq.id, COLUMNS * 4);
    drop(plain);
    drop(greedy);
    drop(wave);
}

static void speculation_changes_nothing_but_the_cost(void **state)
{
    (void)state;
    static const char *const temperature[] = {"0", "0.9"};
    for (int i = 0; i < 2; i++) {
        const char *t = temperature[i];
        request *plain = finish(ask("recurrent", 10, 3, 3, SET("temperature", t)), 100);
        request *fast = finish(ask("self_speculative", 10, 3, 3,
                                   SET("temperature", t, "draft_recurrence", "2", "draft_length",
                                       "5")), 200);
        same_text(plain, fast);
        drop(plain);
        drop(fast);
    }
}

static void company_changes_nothing(void **state)
{
    (void)state;
    const char *const sampler[] = {"forcing", "recurrent", "self_speculative", "recurrent",
                                   "forcing"};
    const char *const *set[] = {
        SET("temperature", "0.7", "state_noise_mixing", "0.2"),
        SET("exit_criterion", "latent-diff", "exit_threshold", "0.05"),
        SET("temperature", "0.7", "draft_length", "3"),
        SET("exit_criterion", "kl", "kv_lookup", "randomized", "temperature", "1"),
        SET("max_wavefront", "5", "headway", "2", "freeze_strategy", "latent-acceleration-1")};
    request *together[5], *alone;
    for (int i = 0; i < 5; i++)
        together[i] = ask(sampler[i], 7 + i, 3, 2, set[i]);
    for (int turn = 0; turn < 400; turn++) /* they join one after the other */
        step(together, turn < 4 ? turn + 1 : 5);
    for (int i = 0; i < 5; i++) {
        alone = finish(ask(sampler[i], 7 + i, 3, 2, set[i]), 400);
        assert_true(together[i]->run.done);
        same_text(alone, together[i]);
        assert_memory_equal(alone->run.seq.logprob, together[i]->run.seq.logprob,
                            COLUMNS * sizeof(float));
        assert_memory_equal(alone->run.seq.recurrences, together[i]->run.seq.recurrences,
                            COLUMNS * sizeof(int32_t));
        drop(alone);
        drop(together[i]);
    }
}

/* Once a change that is no draft was told, the column stays as it is. */
static void check_log(const request *r)
{
    int32_t stands[COLUMNS];
    const tt_change *x = (const tt_change *)(const void *)r->run.log.data;
    size_t n = r->run.log.size / sizeof *x;
    memset(stands, 0xFF, sizeof stands);
    for (size_t i = 0; i < n; i++) {
        if (stands[x[i].column] >= 0)
            fail_msg("column %d changes after it was frozen", x[i].column);
        if (!x[i].draft)
            stands[x[i].column] = x[i].id;
    }
    for (int c = PROMPT; c < COLUMNS; c++)
        assert_int_equal(stands[c], r->run.seq.id[c]);
}

static void whatever_the_settings_the_text_ends_and_stands(void **state)
{
    (void)state;
    static const char *const strategy[] = {"latent-diff", "latent-acceleration-1",
                                           "latent-acceleration-2", "token-stability", "fixed"};
    static const char *const more[][4] = {
        {"headway", "3", "max_wavefront", "7"},    {"max_wavefront", "2", "ema_embeds", "0"},
        {"continuous_compute", "true", "headway", "2"},
        {"full_prefill", "false", "headway", "1"},
        {"state_noise_mixing", "0.3", "sqrt_mixer", "true"},
        {"init_scale", "0", "max_wavefront", "0"},
        {"inner_recurrence", "1", "kv_entries", "3"},   {"semantics", "upstream", "headway", "2"},
        {"freeze_prefix", "false", "freeze_unchanged", "false"}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        for (int k = 0; k < 5; k++) {
            const char *const set[] = {"freeze_strategy", strategy[k], "max_diffusion_steps",
                                       "200", more[i][0], more[i][1], more[i][2], more[i][3],
                                       NULL};
            request *r = ask("forcing", 24, 3, 4, set);
            int n = 0;
            for (; !r->run.done && n < 400; n++)
                step(&r, 1);
            if (!r->run.done)
                fail_msg("%s, %s %s: no end", strategy[k], more[i][0], more[i][1]);
            if (r->params.semantics == TT_SEMANTICS_FIXED)
                check_log(r);
            drop(r);
        }
}

/* A threshold nothing passes: after so many steps a position is frozen in each. */
static void what_never_settles_ends_all_the_same(void **state)
{
    (void)state;
    request *r = ask("forcing", 24, 3, 4, SET("exit_threshold", "1e-30", "max_diffusion_steps",
                                              "5"));
    finish(r, 5 + COLUMNS);
    drop(r);
}

static void the_wave_stays_on_the_canvas(void **state)
{
    (void)state;
    request *r = ask("forcing", 24, 3, 4, SET("headway", "4"));
    while (!r->run.done) {
        tt_run_plan(&r->run);
        assert_in_range(r->run.plan.row_end, PROMPT, COLUMNS);
        for (int32_t i = 0; i < r->run.plan.asks; i++)
            assert_in_range(r->run.plan.ask[i].column, PROMPT, COLUMNS - 1);
        step(&r, 1);
    }
    drop(r);
}

static void given_columns_stay(void **state)
{
    (void)state;
    static const char *const sampler[] = {"forcing", "recurrent", "self_speculative"};
    for (int i = 0; i < 3; i++) {
        request *r = calloc(1, sizeof *r);
        tt_err e = {0};
        tt_params_default(&r->params);
        for (int c = 0; c < COLUMNS; c++) {
            r->id[c] = 3 * c % 64;
            r->open[c] = c >= PROMPT && c % 7 != 3;
        }
        tt_run_spec spec = {.sampler = tt_sampler_find(sampler[i]), .model = model,
                            .params = &r->params, .id = r->id, .open = r->open,
                            .columns = COLUMNS, .prompt = PROMPT, .vocab = 64,
                            .noise = {.kind = TT_NOISE_PHILOX}};
        assert_int_equal(tt_run_open(&r->run, &spec, &e), TT_OK);
        finish(r, 400);
        for (int c = 0; c < COLUMNS; c++)
            if (!r->open[c])
                assert_int_equal(r->run.seq.id[c], r->id[c]);
        drop(r);
    }
}

static void rules_of_columns_hold(void **state)
{
    (void)state;
    static const int32_t banned[] = {45, 48};
    const tt_column_rule rule = {.begin = PROMPT, .end = COLUMNS, .id = banned, .n = 2};
    request *r = ask("forcing", 24, 3, 4, NULL);
    tt_err e = {0};
    tt_run_close(&r->run); /* once more, with rules */
    tt_run_spec spec = {.sampler = tt_sampler_find("forcing"), .model = model,
                        .params = &r->params, .id = r->id, .open = r->open, .columns = COLUMNS,
                        .prompt = PROMPT, .vocab = 64, .rule = &rule, .rules = 1,
                        .noise = {.kind = TT_NOISE_PHILOX}};
    assert_int_equal(tt_run_open(&r->run, &spec, &e), TT_OK);
    finish(r, 400);
    for (int c = PROMPT; c < COLUMNS; c++)
        assert_true(r->run.seq.id[c] != 45 && r->run.seq.id[c] != 48);
    drop(r);
}

/* What a backend that records passes has, but for recording. */
static int passes;
static int64_t round_up(const tt_stream *s, int64_t rows)
{
    (void)s;
    return (rows + 7) / 8 * 8;
}
static tt_status begin_pass(tt_stream *s, const int64_t *key, int n, tt_err *e)
{
    (void)s, (void)key, (void)n, (void)e;
    passes++;
    return TT_OK;
}
static tt_status end_pass(tt_stream *s, tt_status so_far, tt_err *e)
{
    (void)s, (void)e;
    return so_far;
}

static void padding_changes_nothing(void **state)
{
    (void)state;
    const char *const sampler[] = {"forcing", "recurrent", "self_speculative", "forcing"};
    const char *const *set[] = {SET("state_noise_mixing", "0.2"), SET("recurrence", "4"),
                                SET("draft_recurrence", "4"),
                                SET("freeze_strategy", "latent-acceleration-2", "headway", "2")};
    request *plain[4], *padded[4];
    for (int i = 0; i < 4; i++)
        finish(plain[i] = ask(sampler[i], 3 + i, 3, 4, set[i]), 400);
    stream->op.bucket = round_up;
    stream->op.pass_begin = begin_pass;
    stream->op.pass_end = end_pass;
    for (int i = 0; i < 4; i++)
        padded[i] = ask(sampler[i], 3 + i, 3, 4, set[i]);
    for (int turn = 0; turn < 400; turn++)
        for (int i = 0; i < 4; i += 2) /* two and two of a kind or not */
            step(padded + i, 2);
    stream->op.bucket = NULL;
    stream->op.pass_begin = NULL;
    stream->op.pass_end = NULL;
    assert_true(passes > 40);
    for (int i = 0; i < 4; i++) {
        same_text(plain[i], padded[i]);
        assert_memory_equal(plain[i]->run.seq.logprob, padded[i]->run.seq.logprob,
                            COLUMNS * sizeof(float));
        assert_memory_equal(plain[i]->run.seq.recurrences, padded[i]->run.seq.recurrences,
                            COLUMNS * sizeof(int32_t));
        drop(plain[i]);
        drop(padded[i]);
    }
}

static void recurrences_are_counted(void **state)
{
    (void)state;
    request *r = finish(ask("recurrent", 10, 3, 3, SET("recurrence", "5")), 100);
    for (int c = 0; c < COLUMNS - 1; c++)
        assert_int_equal(r->run.seq.recurrences[c], 5);
    assert_int_equal(r->run.seq.depth.core_passes, 5 * (COLUMNS - PROMPT));
    drop(r);
    r = finish(ask("recurrent", 10, 3, 3, SET("exit_criterion", "latent-diff", "exit_threshold",
                                              "0.1")), 100);
    assert_true(r->run.seq.depth.core_passes < 16 * (COLUMNS - PROMPT));
    drop(r);
}

static void refuse(const char *sampler, const char *const *set, int32_t prompt, const char *param)
{
    request r = {0};
    tt_err e = {0};
    tt_params_default(&r.params);
    for (; set && *set; set += 2)
        if (tt_params_set_text(&r.params, tt_param_find(set[0]), set[1], &e)) {
            assert_string_equal(e.param, param);
            return;
        }
    for (int c = prompt; c < COLUMNS; c++)
        r.open[c] = 1;
    tt_run_spec spec = {.sampler = tt_sampler_find(sampler), .model = model, .params = &r.params,
                        .id = r.id, .open = r.open, .columns = COLUMNS, .prompt = prompt,
                        .vocab = 64, .noise = {.kind = TT_NOISE_PHILOX}};
    assert_int_not_equal(tt_run_open(&r.run, &spec, &e), TT_OK);
    assert_string_equal(e.param, param);
}

static void the_parameter_names_every_exit_rule(void **state)
{
    (void)state;
    const tt_exit_rule *const *rule = tt_exit_all();
    int n = 0;
    for (; rule[n]; n++) {
        assert_string_equal(tt_exit_names[n], rule[n]->name);
        assert_ptr_equal(tt_exit_find(rule[n]->name), rule[n]);
    }
    assert_null(tt_exit_names[n]);
    assert_null(tt_exit_find("boredom"));
    assert_true(tt_param_find("exit_criterion")->max == n - 1);
}

static void what_cannot_be_is_refused_by_name(void **state)
{
    (void)state;
    refuse("recurrent", SET("recurrence", "0"), 1, "recurrence");
    refuse("forcing", SET("recurrence", "1000000"), 1, "recurrence");
    refuse("recurrent", SET("exit_criterion", "boredom"), 1, "exit_criterion");
    refuse("forcing", SET("freeze_strategy", "never"), 1, "freeze_strategy");
    refuse("forcing", SET("semantics", "loose"), 1, "semantics");
    refuse("recurrent", SET("exit_criterion", "learned"), 1, "exit_criterion");
    refuse("recurrent", NULL, 0, "prompt");
    refuse("forcing", NULL, 0, "prompt");
    refuse("self_speculative", NULL, 0, "prompt");
    refuse("forcing", SET("full_prefill", "false", "max_wavefront", "4"), 5, "full_prefill");
    assert_false(tt_sampler_fits(tt_sampler_find("forcing"), TT_KIND_CAUSAL));
    assert_false(tt_sampler_fits(tt_sampler_find("threshold"), model->info.kinds));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wave_writes_what_one_token_after_the_other_does),
        cmocka_unit_test(drawn_tokens_agree_as_well),
        cmocka_unit_test(speculation_changes_nothing_but_the_cost),
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(whatever_the_settings_the_text_ends_and_stands),
        cmocka_unit_test(what_never_settles_ends_all_the_same),
        cmocka_unit_test(the_wave_stays_on_the_canvas),
        cmocka_unit_test(given_columns_stay),
        cmocka_unit_test(rules_of_columns_hold),
        cmocka_unit_test(padding_changes_nothing),
        cmocka_unit_test(recurrences_are_counted),
        cmocka_unit_test(the_parameter_names_every_exit_rule),
        cmocka_unit_test(what_cannot_be_is_refused_by_name),
    };
    return cmocka_run_group_tests_name("recurrent", tests, open_model, close_model);
}
