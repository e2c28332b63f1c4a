/* What can go wrong: a job's tokens depend on its company; a lost client keeps the device; a full
 * queue blocks; a bad request reaches the device; stop ids, deadlines, priorities are ignored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/engine.h"

#define FOLDER "tests/golden/masked-diffusion/llada"

enum { PROMPT = 9, FRESH = 16, COLUMNS = PROMPT + FRESH };

typedef struct {
    tt_engine *engine;
    const tt_served *model;
} world;

static int setup_with(void **state, tt_engine_options o)
{
    static world w;
    tt_err e;
    o.device = "plain";
    if (tt_engine_open(&w.engine, &o, &e) ||
        tt_engine_add_model(w.engine, "tiny", FOLDER, TT_WEIGHTS_F32, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    w.model = tt_engine_find(w.engine, "tiny");
    *state = &w;
    return 0;
}

static int setup(void **state) { return setup_with(state, (tt_engine_options){0}); }

static int setup_small(void **state)
{
    return setup_with(state, (tt_engine_options){.max_queue = 1, .max_running = 1});
}

static int teardown(void **state)
{
    tt_engine_close(((world *)*state)->engine);
    return 0;
}

static int32_t ids[512];
static uint8_t holes[512];

/* A canvas of `columns` whose first PROMPT columns are given; kind shifts its tokens. */
static tt_job_spec spec_of(const world *w, int kind, int32_t columns)
{
    for (int32_t c = 0; c < columns; c++) {
        holes[c] = c >= PROMPT;
        ids[c] = (c * 31 + kind * 7) % 290;
    }
    tt_job_spec s = {.model = w->model, .params = w->model->defaults, .id = ids, .open = holes,
                     .columns = columns, .prompt = PROMPT, .samples = 1, .seed = 7};
    s.params.block_length = 8;
    return s;
}

static tt_job *submit(const world *w, const tt_job_spec *s)
{
    tt_job *j;
    tt_err e = {0};
    if (tt_engine_submit(w->engine, s, &j, NULL, &e))
        print_error("%s\n", e.text);
    assert_non_null(j);
    return j;
}

static void wait_end(tt_job *j, int samples)
{
    uint64_t seen[8] = {0};
    tt_view v = {0};
    while (!tt_job_finished(j)) {
        for (int i = 0; i < samples; i++) {
            tt_job_view(j, i, &v);
            seen[i] = v.version;
            v.version = 0;
        }
        tt_job_wait(j, seen, 1000);
    }
    tt_view_free(&v);
}

static void result(tt_job *j, int sample, int32_t *out, int32_t columns)
{
    tt_view v = {0};
    assert_true(tt_job_view(j, sample, &v));
    assert_true(v.finish == TT_FINISH_LENGTH || v.finish == TT_FINISH_STOP);
    memcpy(out, v.id, (size_t)columns * sizeof *out);
    tt_view_free(&v);
}

static void tokens_do_not_depend_on_company(void **state)
{
    const world *w = *state;
    int32_t alone[COLUMNS], beside[COLUMNS];
    tt_job_spec s = spec_of(w, 0, COLUMNS);
    s.params.temperature = 0.8;
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    result(j, 0, alone, COLUMNS);
    tt_job_release(j);

    tt_job *other[16];
    for (int i = 0; i < 16; i++) {
        tt_job_spec o = spec_of(w, i + 1, COLUMNS + 5 * i);
        o.params.temperature = 0.1 * i;
        o.params.cfg_scale = i % 3 ? 0 : 1.5;
        o.seed = (uint64_t)i;
        other[i] = submit(w, &o);
    }
    s = spec_of(w, 0, COLUMNS);
    s.params.temperature = 0.8;
    j = submit(w, &s);
    wait_end(j, 1);
    result(j, 0, beside, COLUMNS);
    tt_job_release(j);
    for (int i = 0; i < 16; i++)
        tt_job_release(other[i]);
    assert_memory_equal(alone, beside, sizeof alone);
}

static void samples_differ_and_the_seed_decides(void **state)
{
    const world *w = *state;
    int32_t got[3][COLUMNS], again[COLUMNS];
    tt_job_spec s = spec_of(w, 3, COLUMNS);
    s.params.temperature = 1;
    s.samples = 3;
    tt_job *j = submit(w, &s);
    wait_end(j, 3);
    for (int i = 0; i < 3; i++)
        result(j, i, got[i], COLUMNS);
    tt_job_release(j);
    assert_memory_not_equal(got[0], got[1], sizeof again);
    assert_memory_not_equal(got[1], got[2], sizeof again);
    s.samples = 1;
    j = submit(w, &s);
    wait_end(j, 1);
    result(j, 0, again, COLUMNS);
    tt_job_release(j);
    assert_memory_equal(got[0], again, sizeof again);
}

static void fixed_columns_never_change(void **state)
{
    const world *w = *state;
    int32_t got[COLUMNS], given[COLUMNS];
    tt_job_spec s = spec_of(w, 5, COLUMNS);
    for (int c = 0; c < COLUMNS; c++)
        holes[c] = c % 3 == 1;
    s.prompt = 0;
    memcpy(given, ids, sizeof given);
    s.sampler = tt_sampler_find("infill");
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    result(j, 0, got, COLUMNS);
    tt_job_release(j);
    for (int c = 0; c < COLUMNS; c++) {
        if (c % 3 != 1)
            assert_int_equal(got[c], given[c]);
        assert_int_not_equal(got[c], w->model->info.mask_id);
    }
}

/* Biases every column towards one id. */
static void a_stop_id_ends_the_answer_early(void **state)
{
    const world *w = *state;
    tt_job_spec s = spec_of(w, 0, COLUMNS);
    tt_id_value push = {w->model->info.eos_id, 1e6f};
    s.bias = &push;
    s.n_bias = 1;
    s.stop_early = true;
    s.params.steps = FRESH;
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    tt_view v = {0};
    assert_true(tt_job_view(j, 0, &v));
    assert_int_equal(v.finish, TT_FINISH_STOP);
    assert_int_equal(v.end, PROMPT);
    assert_true(v.nfe < FRESH);
    tt_view_free(&v);
    tt_job_release(j);
}

static void a_hole_never_holds_a_stop_id(void **state)
{
    const world *w = *state;
    int32_t got[COLUMNS];
    tt_job_spec s = spec_of(w, 0, COLUMNS);
    tt_id_value push = {w->model->info.eos_id, 1e6f};
    s.bias = &push;
    s.n_bias = 1;
    s.ban_stops = true;
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    result(j, 0, got, COLUMNS);
    tt_job_release(j);
    for (int c = PROMPT; c < COLUMNS; c++)
        assert_int_not_equal(got[c], w->model->info.eos_id);
}

static void alternatives_are_sorted_and_hold_the_token(void **state)
{
    const world *w = *state;
    tt_job_spec s = spec_of(w, 2, COLUMNS);
    s.n_top = 4;
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    tt_view v = {0};
    assert_true(tt_job_view(j, 0, &v));
    for (int c = PROMPT; c < COLUMNS; c++) {
        assert_int_equal(v.top[c * 4].id, v.id[c]); /* temperature 0: the best one */
        assert_true(v.top[c * 4].value == v.logprob[c]);
        for (int k = 1; k < 4; k++)
            assert_true(v.top[c * 4 + k].value <= v.top[c * 4 + k - 1].value);
    }
    tt_view_free(&v);
    tt_job_release(j);
}

static void bad_specs_are_refused_with_the_field(void **state)
{
    const world *w = *state;
    tt_job *j;
    tt_err e;
    tt_job_spec s = spec_of(w, 0, COLUMNS);
#define REFUSED(param_)                                                                            \
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);                    \
    assert_string_equal(e.param, param_)
    s.columns = 100000;
    REFUSED("max_tokens");
    s = spec_of(w, 0, COLUMNS);
    ids[2] = 5000;
    REFUSED("prompt");
    s = spec_of(w, 0, COLUMNS);
    ids[2] = w->model->info.mask_id; /* user tokens may not smuggle a hole in */
    REFUSED("prompt");
    s = spec_of(w, 0, COLUMNS);
    memset(holes, 0, sizeof holes);
    REFUSED("max_tokens");
    s = spec_of(w, 0, COLUMNS);
    s.samples = 0;
    REFUSED("n");
    s = spec_of(w, 0, COLUMNS);
    s.params.steps = 1; /* two blocks need two steps */
    REFUSED("steps");
    s = spec_of(w, 0, COLUMNS);
    assert_int_equal(tt_params_set(&s.params, tt_param_find("factor"), 2, &e), TT_OK);
    REFUSED("factor"); /* low_confidence does not read it */
    s = spec_of(w, 0, COLUMNS);
    assert_int_equal(tt_params_set(&s.params, tt_param_find("block_length"), 5, &e), TT_OK);
    REFUSED("block_length"); /* 5 does not divide the answer */
    s.sampler = tt_sampler_find("infill"); /* which may have a short last block */
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_OK);
    tt_job_release(j);
    s = spec_of(w, 0, COLUMNS);
    tt_id_value twice[2] = {{3, 1}, {3, 2}};
    s.bias = twice;
    s.n_bias = 2;
    REFUSED("logit_bias");
#undef REFUSED
}

static void all_tokens_banned_is_an_error_of_that_job_alone(void **state)
{
    const world *w = *state;
    static tt_id_value all[320];
    tt_job_spec s = spec_of(w, 0, COLUMNS);
    for (int i = 0; i < 320; i++)
        all[i] = (tt_id_value){i, -__builtin_inff()};
    s.bias = all;
    s.n_bias = 320;
    tt_job *bad = submit(w, &s);
    s = spec_of(w, 1, COLUMNS);
    tt_job *good = submit(w, &s);
    wait_end(bad, 1);
    wait_end(good, 1);
    tt_view v = {0};
    assert_true(tt_job_view(bad, 0, &v));
    assert_int_equal(v.finish, TT_FINISH_ERROR);
    assert_string_equal(v.error.param, "logit_bias");
    v.version = 0;
    assert_true(tt_job_view(good, 0, &v));
    assert_int_equal(v.finish, TT_FINISH_LENGTH);
    tt_view_free(&v);
    tt_job_release(bad);
    tt_job_release(good);
}

static void a_cancelled_job_frees_its_place(void **state)
{
    const world *w = *state;
    tt_job_spec s = spec_of(w, 0, 200);
    s.params.block_length = 1; /* one column a step: long */
    tt_job *j = submit(w, &s);
    tt_job_cancel(j);
    wait_end(j, 1);
    tt_view v = {0};
    assert_true(tt_job_view(j, 0, &v));
    assert_int_equal(v.finish, TT_FINISH_CANCELLED);
    assert_true(v.nfe < 191);
    tt_view_free(&v);
    tt_job_release(j);
    tt_engine_stats stats;
    do
        tt_engine_get_stats(w->engine, &stats);
    while (stats.running);
    assert_int_equal(stats.bytes_used, 0);
}

static void a_deadline_ends_a_job(void **state)
{
    const world *w = *state;
    tt_job_spec s = spec_of(w, 0, 250);
    s.params.block_length = 1;
    s.deadline_ms = 1;
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    tt_view v = {0};
    assert_true(tt_job_view(j, 0, &v));
    assert_int_equal(v.finish, TT_FINISH_DEADLINE);
    tt_view_free(&v);
    tt_job_release(j);
}

static void a_full_queue_says_when_to_come_back(void **state)
{
    const world *w = *state;
    tt_job *j[8];
    int n = 0;
    tt_err e;
    int64_t retry = 0;
    tt_status s = TT_OK;
    while (n < 8) {
        tt_job_spec spec = spec_of(w, n, 250);
        spec.params.block_length = 1;
        if ((s = tt_engine_submit(w->engine, &spec, &j[n], &retry, &e)))
            break;
        n++;
    }
    assert_int_equal(s, TT_EBUSY);
    assert_true(n >= 1 && n <= 3);
    assert_true(retry > 0);
    for (int i = 0; i < n; i++)
        tt_job_release(j[i]);
}

/* The golden pair of a diffusion model and its guide. */
static void a_guide_judges_what_is_drafted(void **state)
{
    const world *w = *state;
    tt_err e;
    tt_job *j;
    static const char *const folder[] = {"tests/golden/masked-diffusion/guided/dlm",
                                         "tests/golden/masked-diffusion/guided/guide"};
    for (int i = 0; i < 2; i++)
        assert_int_equal(tt_engine_add_model(w->engine, i ? "guide" : "dlm", folder[i],
                                             TT_WEIGHTS_F32, NULL, NULL, &e), TT_OK);
    int32_t prompt[27] = {40, 51, 20};
    uint8_t open[27] = {0, 0, 0};
    memset(open + 3, 1, 24);
    tt_job_spec s = {.model = tt_engine_find(w->engine, "dlm"), .id = prompt, .open = open,
                     .columns = 27, .prompt = 3, .samples = 1,
                     .sampler = tt_sampler_find("guided")};
    s.params = s.model->defaults;
    s.params.guide_rule = TT_GUIDE_DETERMINISTIC;
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "guide");
    s.guide = w->model;
    assert_int_equal(tt_engine_submit(w->engine, &s, &j, NULL, &e), TT_EINVAL);
    assert_string_equal(e.param, "guide"); /* not causal */
    s.guide = tt_engine_find(w->engine, "guide");
    tt_job_spec beside = spec_of(w, 1, COLUMNS); /* another model's job in between */
    tt_job *other = submit(w, &beside);
    j = submit(w, &s);
    wait_end(j, 1);
    static const int32_t want[27] = {40, 51, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                     0,  1,  2,  3,  4,  5,  6,  7,  8,  90, 90, 90, 90};
    int32_t got[27];
    result(j, 0, got, 27);
    assert_memory_equal(got, want, sizeof want);
    tt_job_release(j);
    tt_job_release(other);
}

static void count_wake(void *arg) { (*(_Atomic int *)arg)++; }

static void wake_comes_per_step_only_when_asked(void **state)
{
    const world *w = *state;
    static _Atomic int calls;
    tt_job_spec s = spec_of(w, 0, COLUMNS);
    s.wake = count_wake;
    s.wake_arg = (void *)&calls;
    tt_job *j = submit(w, &s);
    wait_end(j, 1);
    while (!calls) /* wakes come after what they announce is published */
        usleep(100);
    tt_job_release(j);
    assert_int_equal(calls, 1);
    calls = 0;
    s.wake_steps = true;
    j = submit(w, &s);
    wait_end(j, 1);
    for (int ms = 0; calls < FRESH && ms < 1000; ms++)
        usleep(1000);
    tt_job_release(j);
    assert_int_equal(calls, FRESH);
}

static void closing_cancels_what_runs(void **state)
{
    const world *w = *state;
    tt_job_spec s = spec_of(w, 0, 250);
    s.params.block_length = 1;
    tt_job *a = submit(w, &s), *b = submit(w, &s);
    tt_engine_close(w->engine);
    tt_view v = {0};
    assert_true(tt_job_finished(a) && tt_job_finished(b));
    assert_true(tt_job_view(b, 0, &v));
    assert_int_equal(v.finish, TT_FINISH_CANCELLED);
    tt_view_free(&v);
    tt_job_release(a);
    tt_job_release(b);
}

int main(void)
{
#define WITH(test, setup_) cmocka_unit_test_setup_teardown(test, setup_, teardown)
    const struct CMUnitTest tests[] = {
        WITH(tokens_do_not_depend_on_company, setup),
        WITH(samples_differ_and_the_seed_decides, setup),
        WITH(fixed_columns_never_change, setup),
        WITH(a_stop_id_ends_the_answer_early, setup),
        WITH(a_hole_never_holds_a_stop_id, setup),
        WITH(alternatives_are_sorted_and_hold_the_token, setup),
        WITH(bad_specs_are_refused_with_the_field, setup),
        WITH(all_tokens_banned_is_an_error_of_that_job_alone, setup),
        WITH(a_cancelled_job_frees_its_place, setup),
        WITH(a_deadline_ends_a_job, setup),
        WITH(a_full_queue_says_when_to_come_back, setup_small),
        WITH(a_guide_judges_what_is_drafted, setup),
        WITH(wake_comes_per_step_only_when_asked, setup),
        cmocka_unit_test_setup(closing_cancels_what_runs, setup),
    };
    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
