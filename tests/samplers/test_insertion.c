/* The insertion sampler against what its rules say, worked out from whole distributions.
 *
 * What can go wrong: a draw that does not follow the distribution it claims to follow, top_p that
 * keeps the entry too many, places where nothing may stand, a least or greatest length that is not
 * kept, noise that depends on how many passes a draw took. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/log.h"
#include "server/batcher.h"

enum { VOCAB = 28, COLUMNS = 12, CELLS = 4 * VOCAB };

typedef struct {
    tt_stream *stream;
    tt_model *model;
    tt_weights *weights;
    tt_config *config;
} world;

static int setup(void **state)
{
    static world w;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    if (tt_stream_open(&w.stream, "plain", 2, &e) ||
        tt_model_open(&w.model, &w.weights, &w.config, w.stream,
                      "tests/golden/insertion-lm/model_stopping", TT_WEIGHTS_F32, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;
    tt_model_close(w->model);
    tt_weights_close(w->weights);
    tt_config_close(w->config);
    tt_stream_close(w->stream);
    return 0;
}

/* "14 3 [gap] 0 2 [gap]": insertions may go after 3 and after 2, rows 3 and 5 of the input. */
static const int32_t canvas_id[COLUMNS] = {14, 3, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0};
static const uint8_t canvas_open[COLUMNS] = {0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1};

typedef struct {
    const world *w;
    tt_params params;
    const uint8_t *open;
    uint64_t seed;
    int32_t steps; /* 0: to the end */
    int32_t id[COLUMNS];
    tt_change change[COLUMNS];
    int changes, passes;
    bool complete;
} trial;

static tt_params defaults(void)
{
    tt_params p;
    tt_params_default(&p);
    p.stopping_threshold = 1;
    return p;
}

static tt_status run_trial(trial *t, tt_err *e)
{
    tt_run r;
    tt_batch b = {0};
    tt_run_spec spec = {.sampler = tt_sampler_find("insertion"), .model = t->w->model,
                        .params = &t->params, .id = canvas_id,
                        .open = t->open ? t->open : canvas_open, .columns = COLUMNS,
                        .vocab = VOCAB, .log = true,
                        .noise = {.kind = TT_NOISE_PHILOX, .seed = t->seed}};
    tt_run *list = &r;
    tt_status s = tt_run_open(&r, &spec, e);
    if (s)
        return s;
    while (!s && !r.done && (!t->steps || r.seq.committed < t->steps)) {
        tt_run_plan(&r);
        s = r.failed ? r.failed : tt_batch_step(&b, &list, 1, e);
        t->passes = r.nfe;
    }
    memcpy(t->id, r.seq.id, sizeof t->id);
    t->changes = (int)(r.log.size / sizeof(tt_change));
    if (t->changes)
        memcpy(t->change, r.log.data, r.log.size);
    t->complete = r.seq.complete;
    tt_run_close(&r);
    tt_batch_free(&b);
    return s;
}

/* Logits of the first step's two places: [0] after row 3, [1] after row 5. */
static void first_logits(const world *w, double l[2][VOCAB])
{
    static const int32_t id[6] = {20, 21, 14, 3, 0, 2}, position[6] = {0, 1, 2, 3, 4, 5};
    float logits[2 * VOCAB];
    tt_want want[2];
    tt_row_stats stats[2];
    tt_pass_seq seq = {.rows = 6, .see_end = 6};
    tt_err e = {0};
    for (int i = 0; i < 2; i++)
        want[i] = (tt_want){.row = 3 + 2 * i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    tt_pass p = {.rows = 6, .id = id, .position = position, .column = position, .seqs = 1,
                 .seq = &seq, .wants = 2, .want = want, .stats = stats, .logits = logits};
    assert_int_equal(tt_model_run(w->model, &p, &e), TT_OK);
    for (int i = 0; i < 2; i++)
        for (int v = 0; v < VOCAB; v++)
            l[i][v] = logits[i * VOCAB + v];
    for (int k = 0; k < w->model->info.nevers; k++)
        l[0][w->model->info.never[k]] = l[1][w->model->info.never[k]] = -INFINITY;
}

/* Turns scores into probabilities under the filters; what they drop gets 0. */
static void filter(const double *z, int n, double t, int top_k, double top_p, double *p)
{
    int order[CELLS], keep = 0;
    double max = -INFINITY, total = 0, sum = 0;
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && z[order[at - 1]] < z[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
        max = fmax(max, z[i]);
        p[i] = 0;
    }
    int most = top_k > 0 && top_k < n ? top_k : n;
    for (int k = 0; k < most; k++)
        total += exp((z[order[k]] - max) / t);
    for (; keep < most; keep++) {
        sum += exp((z[order[keep]] - max) / t) / total;
        if (keep && top_p < 1 && sum > top_p)
            break;
    }
    total = 0;
    for (int k = 0; k < keep; k++)
        total += p[order[k]] = exp((z[order[k]] - max) / t);
    for (int k = 0; k < keep; k++)
        p[order[k]] /= total;
}

/* What the first insertion should be: probabilities of (place, id). */
static void expected(const world *w, const tt_params *p, double out[2 * VOCAB])
{
    double l[2][VOCAB], lse[2], place[2];
    first_logits(w, l);
    if (p->selection == TT_SELECT_JOINT) {
        filter(l[0], 2 * VOCAB, p->temperature, p->top_k, p->top_p, out);
        return;
    }
    for (int i = 0; i < 2; i++) {
        lse[i] = 0;
        for (int v = 0; v < VOCAB; v++)
            lse[i] += exp(l[i][v]);
        lse[i] = log(lse[i]);
    }
    filter(lse, 2, p->position_temperature, p->position_top_k, p->position_top_p, place);
    for (int i = 0; i < 2; i++) {
        filter(l[i], VOCAB, p->temperature, p->top_k, p->top_p, out + i * VOCAB);
        for (int v = 0; v < VOCAB; v++)
            out[i * VOCAB + v] *= place[i];
    }
}

static void first_insertions_follow_their_distribution(void **state)
{
    const world *w = *state;
    enum { DRAWS = 3000 };
    static const struct {
        const char *name;
        tt_selection selection;
        double temperature, top_p;
        int32_t top_k;
        double position_top_p;
        int32_t position_top_k;
    } c[] = {
        {"two steps", TT_SELECT_TWO_STEP, 1, 1, 0, 1, 0},
        {"two steps, top_p", TT_SELECT_TWO_STEP, 1, 0.8, 0, 1, 0},
        {"two steps, top_k by list", TT_SELECT_TWO_STEP, 1, 1, 6, 1, 0},
        {"two steps, long top_k", TT_SELECT_TWO_STEP, 1.5, 0.97, 22, 1, 0},
        {"two steps, one place", TT_SELECT_TWO_STEP, 1, 1, 0, 1, 1},
        {"two steps, places within", TT_SELECT_TWO_STEP, 1, 1, 0, 0.3, 0},
        {"joint", TT_SELECT_JOINT, 1, 1, 0, 1, 0},
        {"joint, warm", TT_SELECT_JOINT, 1.7, 1, 0, 1, 0},
        {"joint, top_k", TT_SELECT_JOINT, 1, 1, 9, 1, 0},
        {"joint, top_k and top_p", TT_SELECT_JOINT, 1.3, 0.7, 12, 1, 0},
        {"joint, top_p", TT_SELECT_JOINT, 1, 0.9, 0, 1, 0},
        {"joint, small top_p", TT_SELECT_JOINT, 1, 0.3, 0, 1, 0},
        {"joint, top_p, warm", TT_SELECT_JOINT, 2, 0.75, 0, 1, 0},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        double want[2 * VOCAB];
        int seen[2 * VOCAB] = {0};
        trial t = {.w = w, .params = defaults(), .steps = 1};
        t.params.selection = c[i].selection;
        t.params.temperature = c[i].temperature;
        t.params.top_p = c[i].top_p;
        t.params.top_k = c[i].top_k;
        t.params.position_temperature = 1;
        t.params.position_top_p = c[i].position_top_p;
        t.params.position_top_k = c[i].position_top_k;
        expected(w, &t.params, want);
        for (int k = 0; k < DRAWS; k++) {
            tt_err e = {0};
            t.seed = (uint64_t)k;
            if (run_trial(&t, &e))
                fail_msg("%s: %s", c[i].name, e.text);
            seen[(t.change[0].column > 6) * VOCAB + t.change[0].id]++;
        }
        double chi = 0, rest = 0, rest_seen = 0;
        int cells = 0;
        for (int k = 0; k < 2 * VOCAB; k++) {
            if (want[k] == 0 && seen[k])
                fail_msg("%s: place %d, token %d should not be possible", c[i].name, k / VOCAB,
                         k % VOCAB);
            if (want[k] * DRAWS < 8) {
                rest += want[k] * DRAWS;
                rest_seen += seen[k];
                continue;
            }
            chi += pow(seen[k] - want[k] * DRAWS, 2) / (want[k] * DRAWS);
            cells++;
        }
        if (rest >= 8) {
            chi += pow(rest_seen - rest, 2) / rest;
            cells++;
        }
        /* Beyond this by chance less than once in ten thousand. */
        double most = cells - 1 + 4.5 * sqrt(2.0 * (cells - 1)) + 6;
        if (chi > most)
            fail_msg("%s: chi-square %.1f of %d cells", c[i].name, chi, cells);
    }
}

/* Logarithm of the first insertion's probability, among all places and tokens. */
static void log_probabilities_are_the_models(void **state)
{
    const world *w = *state;
    double l[2][VOCAB], total = 0;
    tt_err e = {0};
    first_logits(w, l);
    for (int k = 0; k < 2 * VOCAB; k++)
        total += exp(l[k / VOCAB][k % VOCAB]);
    for (int joint = 0; joint < 2; joint++) {
        trial t = {.w = w, .params = defaults(), .steps = 1, .seed = 5};
        t.params.selection = joint;
        t.params.temperature = 1;
        t.params.top_p = 0.8;
        assert_int_equal(run_trial(&t, &e), TT_OK);
        double want = l[t.change[0].column > 6][t.change[0].id] - log(total);
        assert_float_equal(t.change[0].logprob, want, 1e-5);
    }
}

static void given_tokens_stay_and_gaps_keep_their_room(void **state)
{
    const world *w = *state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        trial t = {.w = w, .params = defaults(), .seed = seed};
        tt_err e = {0};
        t.params.temperature = t.params.position_temperature = 1;
        t.params.selection = seed % 2;
        assert_int_equal(run_trial(&t, &e), TT_OK);
        for (int c = 0; c < COLUMNS; c++) {
            assert_true(t.id[c] >= 0 && t.id[c] < 20); /* all filled, nothing suppressed */
            if (!canvas_open[c])
                assert_int_equal(t.id[c], canvas_id[c]);
        }
        assert_int_equal(t.changes, 8);
        assert_int_equal(t.passes, 8); /* nothing is asked of a canvas that is full */
    }
}

static void demanded_tokens_come_first(void **state)
{
    const world *w = *state;
    uint8_t open[COLUMNS];
    memcpy(open, canvas_open, sizeof open);
    open[8] = open[9] = open[10] = 2;
    trial t = {.w = w, .params = defaults(), .open = open};
    tt_err e = {0};
    t.params.stopping_threshold = 0; /* complete from the start */
    assert_int_equal(run_trial(&t, &e), TT_OK);
    assert_int_equal(t.changes, 3);
    for (int i = 0; i < 3; i++)
        assert_true(t.change[i].column >= 8 && t.change[i].insert);
    assert_true(t.complete);
    t.params.max_steps = 2;
    assert_int_equal(run_trial(&t, &e), TT_EINVAL);
    assert_string_equal(e.param, "max_steps");
    t.params.max_steps = 0;
    t.params.oracle_length = 8;
    assert_int_equal(run_trial(&t, &e), TT_EINVAL);
    assert_string_equal(e.param, "oracle_length");
    t.params.oracle_length = 9;
    assert_int_equal(run_trial(&t, &e), TT_OK);
    assert_int_equal(t.changes, 3);
}

static void an_oracle_ends_at_its_length(void **state)
{
    const world *w = *state;
    trial t = {.w = w, .params = defaults()};
    tt_err e = {0};
    t.params.oracle_length = 10; /* six are there: [CLS], [BOS] and four tokens */
    assert_int_equal(run_trial(&t, &e), TT_OK);
    assert_int_equal(t.changes, 4);
    t.params.max_steps = 3;
    assert_int_equal(run_trial(&t, &e), TT_OK);
    assert_int_equal(t.changes, 3);
}

/* However the draws fall, the steps suffice for what is demanded. */
static void few_steps_go_where_they_are_demanded(void **state)
{
    const world *w = *state;
    uint8_t open[COLUMNS];
    memcpy(open, canvas_open, sizeof open);
    open[8] = open[9] = open[10] = 2;
    for (uint64_t seed = 0; seed < 40; seed++) {
        trial t = {.w = w, .params = defaults(), .open = open, .seed = seed};
        tt_err e = {0};
        int32_t behind = 0;
        t.params.temperature = t.params.position_temperature = 1;
        t.params.max_steps = 4;
        t.params.selection = seed % 2;
        t.params.top_p = seed % 4 == 3 ? 0.9 : 1;
        assert_int_equal(run_trial(&t, &e), TT_OK);
        assert_int_equal(t.changes, 4);
        for (int i = 0; i < 4; i++)
            behind += t.change[i].column >= 8;
        assert_true(behind >= 3);
    }
}

/* Given tokens that are [CLS] and [BOS] themselves are not repeated. */
static void the_frame_is_not_doubled(void **state)
{
    const world *w = *state;
    static const struct {
        int32_t prompt, given, id[4];
    } c[] = {{0, 0, {0}}, {0, 1, {20}}, {2, 2, {20, 21}}, {0, 2, {20, 21}}, {1, 1, {20}}};
    int32_t first[8];
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        tt_run r;
        tt_params p = defaults();
        tt_batch b = {0};
        tt_err e = {0};
        int32_t id[12] = {0};
        uint8_t open[12];
        memset(open, 1, sizeof open);
        memset(open, 0, (size_t)c[i].given);
        memcpy(id, c[i].id, sizeof c[i].id);
        tt_run_spec spec = {.sampler = tt_sampler_find("insertion"), .model = w->model,
                            .params = &p, .id = id, .open = open, .columns = c[i].given + 8,
                            .prompt = c[i].prompt, .vocab = VOCAB};
        tt_run *list = &r;
        assert_int_equal(tt_run_open(&r, &spec, &e), TT_OK);
        while (!r.done) {
            tt_run_plan(&r);
            assert_int_equal(r.plan.token[0], 20);
            assert_int_equal(r.plan.token[1], 21);
            assert_true(r.plan.tokens == 2 || r.plan.token[2] < 20);
            assert_int_equal(tt_batch_step(&b, &list, 1, &e), TT_OK);
        }
        if (i == 0)
            memcpy(first, r.seq.id, sizeof first);
        assert_memory_equal(r.seq.id + c[i].given, first, sizeof first);
        tt_run_close(&r);
        tt_batch_free(&b);
    }
}

/* A draw that took further passes leaves the next step's noise alone. */
static void passes_do_not_shift_the_noise(void **state)
{
    const world *w = *state;
    tt_err e = {0};
    int further = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        trial all = {.w = w, .params = defaults(), .seed = seed}, most = all;
        all.params.selection = most.params.selection = TT_SELECT_JOINT;
        all.params.temperature = most.params.temperature = 1;
        most.params.top_p = 0.999999; /* keeps what is ever drawn, but has to look */
        assert_int_equal(run_trial(&all, &e), TT_OK);
        assert_int_equal(run_trial(&most, &e), TT_OK);
        assert_memory_equal(all.id, most.id, sizeof all.id);
        further += most.passes - all.passes;
    }
    assert_true(further > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_insertions_follow_their_distribution),
        cmocka_unit_test(log_probabilities_are_the_models),
        cmocka_unit_test(given_tokens_stay_and_gaps_keep_their_room),
        cmocka_unit_test(demanded_tokens_come_first),
        cmocka_unit_test(an_oracle_ends_at_its_length),
        cmocka_unit_test(few_steps_go_where_they_are_demanded),
        cmocka_unit_test(the_frame_is_not_doubled),
        cmocka_unit_test(passes_do_not_shift_the_noise),
    };
    return cmocka_run_group_tests_name("insertion sampler", tests, setup, teardown);
}
