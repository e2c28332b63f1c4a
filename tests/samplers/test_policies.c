/* Every sampler with every cache it has, over small models of both kinds of rows.
 *
 * What can go wrong: a column a cache never fed, memory that was counted too small, a canvas that
 * stays open, a token that changes after it was said to be final, tokens that depend on who shares
 * the batch, a combination that is refused late, without a name, or not at all. */
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
#include "server/text_out.h"

enum { COLUMNS = 37, PROMPT = 9, MOST = 512 };

typedef struct {
    tt_stream *stream;
    tt_model *model[2];
    tt_weights *weights[2];
    tt_config *config[2];
} world;

static int setup(void **state)
{
    static const char *const folder[] = {"tests/golden/masked-diffusion/llada",
                                         "tests/golden/masked-diffusion/dream"};
    static world w;
    tt_err e;
    tt_log_set_level(TT_LOG_WARN);
    tt_status st = tt_stream_open(&w.stream, "plain", 2, &e);
    for (int m = 0; m < 2 && !st; m++)
        st = tt_model_open(&w.model[m], &w.weights[m], &w.config[m], w.stream, folder[m],
                           TT_WEIGHTS_F32, NULL, NULL, &e);
    if (st)
        print_error("%s\n", e.text);
    *state = &w;
    return st ? -1 : 0;
}

static int teardown(void **state)
{
    world *w = *state;
    for (int m = 0; m < 2; m++) {
        tt_model_close(w->model[m]);
        tt_weights_close(w->weights[m]);
        tt_config_close(w->config[m]);
    }
    tt_stream_close(w->stream);
    return 0;
}

/* One run: a combination, and what came of it. */
typedef struct {
    char name[100];
    tt_params params;
    tt_run_spec spec;
    tt_run run;
    int join;
    int32_t id[COLUMNS], alone[COLUMNS], before[COLUMNS];
    uint8_t open[COLUMNS];
} trial;

static void fill_spec(trial *t, const world *w, int model, const tt_sampler *s, bool holes)
{
    const tt_model_info *info = &w->model[model]->info;
    t->spec = (tt_run_spec){.sampler = s, .model = w->model[model], .params = &t->params,
                            .id = t->id, .open = t->open, .columns = COLUMNS,
                            .prompt = holes ? 0 : PROMPT, .vocab = (int32_t)info->vocab,
                            .noise = {.kind = TT_NOISE_PHILOX, .seed = 11}};
    for (int32_t c = 0; c < COLUMNS; c++) {
        t->id[c] = (c * 37 + 5) % 290;
        t->open[c] = holes ? c % 7 > 1 && c > 1 : c >= PROMPT;
    }
}

static void set(trial *t, const char *name, double value)
{
    tt_err e;
    if (tt_params_set(&t->params, tt_param_find(name), value, &e))
        fail_msg("%s", e.text);
}

/* All combinations that are to work. */
static int list_trials(const world *w, trial *list)
{
    int n = 0;
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++)
        for (int model = 0; model < 2; model++)
            for (int cache = 0; tt_cache_names[cache]; cache++)
                for (int holes = 0; holes < 2; holes++) {
                    const tt_model_info *info = &w->model[model]->info;
                    bool fits = ((*s)->needs & info->kinds) == (*s)->needs && !(*s)->needs_guide;
                    uint32_t caches = (*s)->caches | (*s)->caches << TT_CACHE_AUTO;
                    bool works = caches ? caches >> cache & 1 : cache == 0;
                    if (!fits || !works)
                        continue;
                    trial *t = &list[n];
                    tt_params_default(&t->params);
                    fill_spec(t, w, model, *s, holes);
                    if ((*s)->caches)
                        set(t, "cache", cache);
                    t->params.temperature = holes ? 0 : 0.8;
                    t->params.top_p = holes ? 1 : 0.9;
                    t->params.block_length = strcmp((*s)->name, "dream_fast") || cache ? 8 : 0;
                    t->params.threshold = 0.5;
                    bool smooths = tt_sampler_reads(*s, tt_param_find("smoothing"));
                    if (smooths && holes && cache != TT_CACHE_DKV && cache != TT_CACHE_FREE)
                        t->params.smoothing = 0.3;
                    else if (holes && tt_sampler_reads(*s, tt_param_find("cfg_scale")))
                        t->params.cfg_scale = 0.5;
                    t->join = n % 7;
                    snprintf(t->name, sizeof t->name, "%s, cache %s, %s%s", (*s)->name,
                             tt_cache_names[cache], info->family, holes ? ", holes" : "");
                    assert_true(++n < MOST);
                }
    return n;
}

static void start(trial *t)
{
    tt_err e;
    if (tt_run_open(&t->run, &t->spec, &e))
        fail_msg("%s: %s", t->name, e.text);
    memcpy(t->before, t->run.seq.id, sizeof t->before);
}

/* What was final stays. */
static void check(trial *t)
{
    const tt_seq *q = &t->run.seq;
    if (t->run.failed)
        fail_msg("%s: %s", t->name, t->run.error.text);
    for (int32_t c = 0; c < COLUMNS; c++) {
        if (t->before[c] != q->mask_id && t->before[c] != q->id[c])
            fail_msg("%s: column %d changes after it was final", t->name, c);
        bool final = c < COLUMNS - q->unsettled;
        t->before[c] = final ? q->id[c] : q->mask_id;
    }
    if (q->step > 40 * COLUMNS)
        fail_msg("%s: does not come to an end", t->name);
}

static void finish(trial *t)
{
    for (int32_t c = 0; c < COLUMNS; c++)
        if (t->run.seq.id[c] == t->run.seq.mask_id)
            fail_msg("%s: column %d stays open", t->name, c);
    assert_int_equal(t->run.seq.unsettled, 0);
    memcpy(t->id, t->run.seq.id, sizeof t->id);
    tt_run_close(&t->run);
}

/* Runs trials of one model together; each enters at its own step. */
static void run_together(trial **list, int n, bool stagger)
{
    tt_batch batch = {0};
    tt_run **run = calloc((size_t)n, sizeof *run);
    trial **in = calloc((size_t)n, sizeof *in);
    tt_err e;
    for (int step = 0, left = n; left; step++) {
        int64_t k = 0;
        for (int i = 0; i < n; i++) {
            trial *t = list[i];
            if (step == (stagger ? t->join : 0))
                start(t);
            if (step < (stagger ? t->join : 0) || !t->run.sampler)
                continue;
            tt_run_plan(&t->run);
            check(t);
            in[k] = t;
            run[k++] = &t->run;
        }
        if (tt_batch_step(&batch, run, k, &e))
            fail_msg("%s", e.text);
        for (int64_t i = 0; i < k; i++) {
            check(in[i]);
            if (!in[i]->run.done)
                continue;
            finish(in[i]);
            in[i]->run.sampler = NULL;
            left--;
        }
    }
    tt_batch_free(&batch);
    free(run);
    free(in);
}

static void all_fill_the_canvas_the_same_alone_and_in_a_batch(void **state)
{
    const world *w = *state;
    trial *all = calloc(MOST, sizeof *all), **list = calloc(MOST, sizeof *list);
    int n = list_trials(w, all);
    assert_true(n > 100);
    for (int i = 0; i < n; i++) {
        int32_t given[COLUMNS];
        memcpy(given, all[i].id, sizeof given);
        list[0] = &all[i];
        run_together(list, 1, false);
        memcpy(all[i].alone, all[i].id, sizeof given);
        memcpy(all[i].id, given, sizeof given);
    }
    for (int model = 0; model < 2; model++) {
        int k = 0;
        for (int i = 0; i < n; i++)
            if (all[i].spec.model == w->model[model])
                list[k++] = &all[i];
        run_together(list, k, true);
    }
    for (int i = 0; i < n; i++)
        if (memcmp(all[i].alone, all[i].id, sizeof all[i].id))
            fail_msg("%s: other tokens in a batch than alone", all[i].name);
    free(all);
    free(list);
}

static void the_same_seed_gives_the_same_tokens_and_another_others(void **state)
{
    const world *w = *state;
    static trial t[3];
    trial *list[1];
    for (int i = 0; i < 3; i++) {
        tt_params_default(&t[i].params);
        t[i].params.temperature = 2;
        fill_spec(&t[i], w, 0, tt_sampler_find("wino"), false);
        t[i].spec.noise.seed = i == 2 ? 12 : 11;
        list[0] = &t[i];
        run_together(list, 1, false);
    }
    assert_memory_equal(t[0].id, t[1].id, sizeof t[0].id);
    assert_memory_not_equal(t[0].id, t[2].id, sizeof t[0].id);
}

/* What a reader of the stream has seen of a run so far. */
typedef struct {
    tt_text_out out;
    int32_t seen[COLUMNS];
} reader;

static void show(reader *r, const trial *t, bool done)
{
    int32_t id[COLUMNS];
    tt_err e;
    const tt_seq *q = &t->run.seq;
    for (int32_t c = 0; c < COLUMNS; c++)
        id[c] = q->id[c] == q->mask_id ? -1 : q->id[c];
    tt_view v = {.columns = COLUMNS, .id = id, .end = COLUMNS, .unsettled = q->unsettled,
                 .finish = done ? TT_FINISH_LENGTH : TT_FINISH_NONE};
    int32_t had = r->out.tokens;
    assert_int_equal(tt_text_out_feed(&r->out, &v, &e), TT_OK);
    for (int32_t c = had; c < r->out.tokens; c++)
        r->seen[PROMPT + c] = id[PROMPT + c];
}

/* The test would prove nothing if no token were taken back, or if all text came at the end. */
static void what_is_streamed_is_never_taken_back(void **state)
{
    const world *w = *state;
    static trial t;
    tt_batch batch = {0};
    tt_err e;
    int back = 0, early = 0;
    tt_params_default(&t.params);
    t.params.draft_threshold = 0.2;
    t.params.block_length = 8;
    fill_spec(&t, w, 0, tt_sampler_find("wino"), false);
    start(&t);
    assert_int_equal(t.run.seq.unsettled, COLUMNS - PROMPT);
    reader r = {.out = {.begin = PROMPT, .end = COLUMNS}};
    while (!t.run.done) {
        int32_t before[COLUMNS];
        memcpy(before, t.run.seq.id, sizeof before);
        tt_run *run = &t.run;
        tt_run_plan(run);
        assert_int_equal(tt_batch_step(&batch, &run, 1, &e), TT_OK);
        show(&r, &t, run->done);
        early += r.out.tokens > 0 && !run->done;
        for (int32_t c = 0; c < COLUMNS; c++)
            back += before[c] != run->seq.mask_id && run->seq.id[c] == run->seq.mask_id;
    }
    assert_true(back > 0 && early > 0);
    assert_int_equal(r.out.tokens, COLUMNS - PROMPT);
    assert_memory_equal(r.seen + PROMPT, t.run.seq.id + PROMPT,
                        (COLUMNS - PROMPT) * sizeof *r.seen);
    tt_text_out_free(&r.out);
    tt_batch_free(&batch);
    tt_run_close(&t.run);
}

/* Refusals: sampler, parameters given, and the one the error names. */
typedef struct {
    const char *sampler;
    struct {
        const char *name;
        double value;
    } set[3];
    const char *param;
    int model; /* 1: rows that predict the next column */
} refusal;

static void combinations_are_refused_by_name(void **state)
{
    const world *w = *state;
    static const refusal list[] = {
        {"wino", {{"cache", TT_CACHE_DUAL}}, "cache", 0},
        {"wino", {{"cache", TT_CACHE_FREE}}, "cache", 0}, /* frozen tokens cannot be edited */
        {"wino", {{"cache", TT_CACHE_DKV}}, "cache", 0},
        {"wino", {{"cache", TT_CACHE_VICINITY}}, "cache", 0},
        {"wino", {{NULL, 0}}, "sampler", 1},
        {"dream_fast", {{"cache", TT_CACHE_FREE}}, "cache", 1},
        {"dream_fast", {{"cache", TT_CACHE_DKV}}, "cache", 1},
        {"threshold", {{"cache_refresh", 3}}, "cache_refresh", 0},
        {"threshold", {{"cache_refresh", 3}, {"cache", TT_CACHE_FREE}}, "cache_refresh", 0},
        {"threshold", {{"cache_before", 3}, {"cache", TT_CACHE_DUAL}}, "cache_before", 0},
        {"threshold", {{"cache_after", 3}}, "cache_after", 0},
        {"threshold", {{"cache_warmup", 3}, {"cache", TT_CACHE_DKV}}, "cache_warmup", 0},
        {"threshold", {{"smoothing", 0.3}, {"cfg_scale", 1}}, "smoothing", 0},
        {"threshold", {{"smoothing", 0.3}, {"cache", TT_CACHE_DKV}}, "smoothing", 0},
        {"credit", {{"smoothing", 0.3}, {"cache", TT_CACHE_FREE}}, "smoothing", 0},
        {"hierarchy", {{"smoothing_growth", 0.3}}, "smoothing_growth", 0},
        {"hierarchy", {{"threshold_decay", 0.3}}, "threshold_decay", 0},
        {"klass", {{"steps", 3}, {"block_length", 4}}, "steps", 0},
        {"klass", {{"remask", TT_REMASK_ORIGIN}}, "remask", 0},
        {"low_confidence", {{"remask", TT_REMASK_ORIGIN}}, "remask", 0},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        static trial t;
        tt_err e = {0};
        tt_params_default(&t.params);
        fill_spec(&t, w, list[i].model, tt_sampler_find(list[i].sampler), false);
        for (int k = 0; k < 3 && list[i].set[k].name; k++)
            set(&t, list[i].set[k].name, list[i].set[k].value);
        if (tt_run_open(&t.run, &t.spec, &e) != TT_EINVAL)
            fail_msg("refusal %zu of sampler %s is accepted", i, list[i].sampler);
        assert_string_equal(e.param, list[i].param);
        assert_non_null(strstr(e.text, list[i].param));
    }
}

/* A model's defaults are no request: what a sampler cannot do is left out, not refused. */
static void defaults_that_do_not_fit_are_left_out(void **state)
{
    (void)state;
    tt_params p;
    tt_params_default(&p);
    p.cache = TT_CACHE_DUAL;
    assert_int_equal(tt_sampler_cache(tt_sampler_find("wino"), &p), TT_CACHE_NONE);
    assert_int_equal(tt_sampler_cache(tt_sampler_find("slowfast"), &p), TT_CACHE_NONE);
    assert_int_equal(tt_sampler_cache(tt_sampler_find("threshold"), &p), TT_CACHE_DUAL);
}

static void auto_is_a_cache_the_sampler_has(void **state)
{
    (void)state;
    tt_params p;
    tt_err e;
    tt_params_default(&p);
    assert_int_equal(tt_params_set(&p, tt_param_find("cache"), TT_CACHE_AUTO, &e), TT_OK);
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++) {
        tt_cache_kind kind = tt_sampler_cache(*s, &p);
        assert_int_equal(tt_sampler_check(*s, &p, &e), TT_OK);
        assert_true((*s)->caches ? (*s)->caches >> kind & 1 : kind == TT_CACHE_NONE);
        assert_true(!(*s)->caches || kind != TT_CACHE_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_fill_the_canvas_the_same_alone_and_in_a_batch),
        cmocka_unit_test(the_same_seed_gives_the_same_tokens_and_another_others),
        cmocka_unit_test(what_is_streamed_is_never_taken_back),
        cmocka_unit_test(combinations_are_refused_by_name),
        cmocka_unit_test(defaults_that_do_not_fit_are_left_out),
        cmocka_unit_test(auto_is_a_cache_the_sampler_has),
    };
    return cmocka_run_group_tests_name("samplers and caches", tests, setup, teardown);
}
