/* replay_raven.c - forwards and traces of recurrent-depth models. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/depth.h"
#include "server/batcher.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

/* True when n numbers agree within absolute + relative * |want|; else why says where not. */
static bool agree(const float *have, const float *want, int64_t n, double absolute,
                  double relative, const char *what, char *why, size_t size)
{
    for (int64_t i = 0; i < n; i++) {
        double off = fabs((double)have[i] - want[i]);
        if (!(off <= absolute + relative * fabs((double)want[i]))) {
            snprintf(why, size, "%.30s: number %lld is %.8g, expected %.8g", what, (long long)i,
                     have[i], want[i]);
            return false;
        }
    }
    return true;
}

typedef struct {
    const float *rows;
    int64_t width;
} recorded;

static void feed(void *arg, tt_draw_purpose purpose, int32_t column, int64_t rows, float *out)
{
    const recorded *r = arg;
    (void)purpose;
    memcpy(out, r->rows + column * r->width, (size_t)(rows * r->width) * sizeof *out);
}

/* One pass over all ids without a store, as often as steps says; a second sequence of another
 * depth goes along where mixed. */
static tt_status run_forward(bench *b, const int32_t *ids, int32_t n, const recorded *initial,
                             int32_t steps, bool mixed, float *logits, float *hidden, tt_err *e)
{
    int32_t extra = mixed ? n - 2 : 0, rows = n + extra;
    int32_t *id = calloc((size_t)rows * 2, sizeof *id), *column = id + rows;
    tt_want *want = calloc((size_t)n, sizeof *want);
    tt_row_stats *stats = calloc((size_t)n, sizeof *stats);
    tt_depth depth[2] = {{.recurrences = 3, .init_scale = 1, .seed = 7},
                         {.recurrences = steps, .draw = initial ? feed : NULL,
                          .draw_arg = (void *)(uintptr_t)initial}};
    tt_pass_seq seq[2] = {{.rows = extra, .see_end = extra, .see = TT_SEE_CAUSAL,
                           .depth = &depth[0]},
                          {.row = extra, .rows = n, .see_end = n, .see = TT_SEE_CAUSAL,
                           .depth = &depth[1]}};
    for (int32_t i = 0; i < rows; i++) {
        id[i] = i < extra ? ids[i] : ids[i - extra];
        column[i] = i < extra ? i : i - extra;
    }
    for (int32_t i = 0; i < n; i++)
        want[i] = (tt_want){.row = extra + i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    tt_pass pass = {.rows = rows, .id = id, .position = column, .column = column,
                    .seqs = mixed ? 2 : 1, .seq = mixed ? seq : seq + 1, .wants = n, .want = want,
                    .stats = stats, .logits = logits, .hidden = mixed ? NULL : hidden};
    tt_status s = tt_model_run(b->model, &pass, e);
    free(id);
    free(want);
    free(stats);
    return s;
}

static void forward_depth(bench *b, const int32_t *ids, int32_t n, int32_t steps, bool zero)
{
    const tt_model_info *m = &b->model->info;
    char name[64], why[256] = "";
    int64_t count = 0;
    tt_err e = {0};
    int64_t logit_count = n * m->vocab, width = n * m->width;
    float *logits = calloc((size_t)logit_count, sizeof *logits), *mixed = calloc(
        (size_t)logit_count, sizeof *mixed);
    float *hidden = calloc((size_t)(4 * width), sizeof *hidden);
    recorded initial = {expect(b, "forward.initial_state", &count), m->width};
    const recorded *from = zero ? NULL : &initial;
    snprintf(name, sizeof name, "forward.%sr%02d.logits", zero ? "zero." : "", steps);
    const float *want = expect(b, name, &count);
    bool ok = want && count == logit_count;
    if (!ok)
        snprintf(why, sizeof why, "is missing in tensors.safetensors");
    if (ok && (run_forward(b, ids, n, from, steps, false, logits, hidden, &e) ||
               run_forward(b, ids, n, from, steps, true, mixed, NULL, &e))) {
        ok = false;
        snprintf(why, sizeof why, "%s", e.text);
    }
    ok = ok && agree(logits, want, logit_count, 2e-4, 1e-4, "logits", why, sizeof why);
    if (ok && memcmp(logits, mixed, (size_t)logit_count * sizeof *logits)) {
        ok = false;
        snprintf(why, sizeof why, "logits differ when another sequence is in the pass");
    }
    const float *prelude = expect(b, "forward.prelude_output", &count);
    ok = ok && agree(hidden, prelude, width, 5e-5, 0, "embedding", why, sizeof why);
    snprintf(name, sizeof name, "forward.r%02d.normed_latent", steps);
    const float *latent = expect(b, name, &count);
    ok = ok && (zero || agree(hidden + 3 * width, latent, width, 5e-5, 0, "normed latent", why,
                              sizeof why));
    snprintf(name, sizeof name, "forward%s.r%02d", zero ? ".zero" : "", steps);
    report(b, name, ok, why);
    free(logits);
    free(mixed);
    free(hidden);
}

static void replay_forward(bench *b, const cJSON *root)
{
    int32_t ids[64], n = 0;
    const cJSON *j, *list = cJSON_GetObjectItemCaseSensitive(root, "input_ids");
    cJSON_ArrayForEach(j, list)
        if (n < 64)
            ids[n++] = j->valueint;
    cJSON_ArrayForEach(j, cJSON_GetObjectItemCaseSensitive(root, "num_steps")) {
        forward_depth(b, ids, n, j->valueint, false);
        if (j->valueint <= 8)
            forward_depth(b, ids, n, j->valueint, true);
    }
}

/* --- traces --- */

enum { STRANGERS = 3, MAX_TRIALS = 64 };

typedef struct {
    char name[96];
    bench *b;
    const cJSON *record;
    tt_params params;
    tt_run_spec spec;
    int32_t *id;
    uint8_t *open;
    int32_t eos_id, prompt;
    bool forcing, sequential, ends_early;
    tt_source source;
    int join; /* step at which it enters the mixed batch */

    tt_run run;
    int at;           /* passes done */
    int32_t wave_end; /* of the wave before */
    bool bad;
    char why[256];
} trial;

static double number(const cJSON *o, const char *key, double fallback)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(j) ? j->valuedouble : cJSON_IsTrue(j) ? 1 : cJSON_IsFalse(j) ? 0
                                                                                     : fallback;
}

static void fail(trial *t, const char *what, double have, double want)
{
    if (!t->bad)
        snprintf(t->why, sizeof t->why, "pass %d: %s is %.9g, expected %.9g", t->at, what, have,
                 want);
    t->bad = true;
}

static void same(trial *t, const char *what, double have, double want, double tolerance)
{
    if (!(fabs(have - want) <= tolerance))
        fail(t, what, have, want);
}

/* --- parameters --- */

static bool set_number(trial *t, const char *name, double v)
{
    tt_err e;
    if (!tt_params_set(&t->params, tt_param_find(name), v, &e))
        return true;
    snprintf(t->why, sizeof t->why, "%s", e.text);
    return false;
}

static bool set_text(trial *t, const char *name, const char *v)
{
    tt_err e;
    if (!tt_params_set_text(&t->params, tt_param_find(name), v, &e))
        return true;
    snprintf(t->why, sizeof t->why, "%s", e.text);
    return false;
}

/* "latest-m4-compress-s8": the look-up, and how many entries of 4 layers are kept. */
static bool set_strategy(trial *t, const char *text)
{
    static const char *const lookup[][2] = {{"full", "full"}, {"skip", "full"},
                                            {"latest-m4", "latest"}, {"available-m4", "latest"},
                                            {"always-last-m4", "last"},
                                            {"randomized", "randomized"}};
    const char *compress = strstr(text, "-compress-s");
    size_t length = compress ? (size_t)(compress - text) : strlen(text);
    for (size_t i = 0; i < sizeof lookup / sizeof *lookup; i++)
        if (strlen(lookup[i][0]) == length && !strncmp(lookup[i][0], text, length))
            return set_text(t, "kv_lookup", lookup[i][1]) &&
                   set_number(t, "kv_entries",
                              compress ? atof(compress + strlen("-compress-s")) / 4 : 512);
    snprintf(t->why, sizeof t->why, "cache strategy '%s' is not known", text);
    return false;
}

static bool set_parameter(trial *t, const cJSON *p)
{
    static const char *const as[][2] = {
        {"num_steps", "recurrence"}, {"init_scale", "init_scale"},
        {"continuous_compute", "continuous_compute"}, {"inner_recurrence", "inner_recurrence"},
        {"state_noise_mixing", "state_noise_mixing"}, {"ema_embeds", "ema_embeds"},
        {"dampened_state_mixer", "dampened_state_mixer"}, {"sqrt_mixer", "sqrt_mixer"},
        {"headway", "headway"}, {"max_wavefront", "max_wavefront"}, {"exit_t", "exit_threshold"},
        {"full_prefill", "full_prefill"}, {"min_steps", "exit_first"},
        {"check_criterion_every_n_steps", "exit_every"}, {"draft_steps", "draft_recurrence"},
        {"lookahead_for_draft", "draft_length"}, {"verification_threshold", "accept_ratio"}};
    double v = cJSON_IsTrue(p) ? 1 : cJSON_IsNumber(p) ? p->valuedouble : 0;
    if (!strcmp(p->string, "cache_lookup_strategy"))
        return set_strategy(t, p->valuestring);
    if (!strcmp(p->string, "freeze_strategy"))
        return set_text(t, "freeze_strategy", p->valuestring);
    if (!strcmp(p->string, "do_not_exit_in_prefill"))
        return set_number(t, "exit_in_prompt", !v);
    for (size_t i = 0; i < sizeof as / sizeof *as; i++)
        if (!strcmp(as[i][0], p->string))
            return set_number(t, as[i][1], v);
    snprintf(t->why, sizeof t->why, "parameter '%s' is not known", p->string);
    return false;
}

static bool set_parameters(trial *t)
{
    const cJSON *p, *j = t->record;
    const cJSON *criterion = cJSON_GetObjectItemCaseSensitive(j, "criterion");
    tt_params_default(&t->params);
    bool ok = true;
    if (t->forcing)
        ok = set_text(t, "semantics", "upstream") && set_number(t, "state_noise_mixing", 0.5);
    if (ok && criterion)
        ok = set_text(t, "exit_criterion", criterion->valuestring) &&
             set_number(t, "exit_threshold", number(j, "threshold", 0));
    cJSON_ArrayForEach(p, cJSON_GetObjectItemCaseSensitive(j, "params"))
        ok = ok && set_parameter(t, p);
    return ok;
}

/* --- recorded randomness --- */

/* The drawn states are numbered as upstream draws them: the prompt's, the first position's, then
 * of each step the noise, if any, and the new positions'. */
static int draw_number(const trial *t, tt_draw_purpose purpose)
{
    int prefill = t->params.full_prefill, step = t->at - prefill;
    int mixes = t->params.state_noise_mixing > 0;
    if (!t->forcing || step < 0)
        return t->at;
    if (purpose == TT_DRAW_NOISE)
        return prefill + 1 + step * (mixes + 1);
    return step ? prefill + 1 + (step - 1) * (mixes + 1) + mixes : prefill;
}

static void draw_recorded(void *arg, tt_draw_purpose purpose, int32_t column, int64_t rows,
                          float *out)
{
    trial *t = arg;
    char name[128];
    int64_t n = 0, width = t->b->model->info.width;
    int step = t->at - t->params.full_prefill;
    int32_t first = t->run.plan.row_begin;
    if (t->forcing && step > 0 && purpose == TT_DRAW_INITIAL)
        first = t->wave_end;
    snprintf(name, sizeof name, "%s.init%03d", t->name, draw_number(t, purpose));
    const float *from = expect(t->b, name, &n);
    memset(out, 0, (size_t)(rows * width) * sizeof *out);
    if (!from || (column - first + rows) * width > n)
        fail(t, name, column - first + (double)rows, (double)(n / width));
    else
        memcpy(out, from + (column - first) * width, (size_t)(rows * width) * sizeof *out);
}

static int32_t filler_recorded(void *arg, int32_t i)
{
    const trial *t = arg;
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(t->record, "steps");
    const cJSON *step = cJSON_GetArrayItem(steps, t->at - t->params.full_prefill);
    const cJSON *id = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(step, "extra_tokens"), i);
    return id ? id->valueint : 0;
}

/* --- what a pass computes, seen through the model's definition --- */

static struct {
    tt_model_def def;
    const tt_model_def *real;
    bool look; /* a run goes alone: its numbers are compared */
    float *logits, *hidden;
    int64_t rows;
    int32_t id[256];
} spy;

static tt_status spy_run(tt_model *m, const tt_pass *p, tt_err *e)
{
    tt_pass pass = *p;
    if (!spy.look)
        return spy.real->run(m, p, e);
    free(spy.logits);
    free(spy.hidden);
    spy.rows = p->rows;
    for (int64_t i = 0; i < p->rows && i < 256; i++)
        spy.id[i] = p->id[i];
    pass.logits = spy.logits = calloc((size_t)(p->wants * m->info.vocab), sizeof *spy.logits);
    pass.hidden = spy.hidden = calloc((size_t)(4 * p->rows * m->info.width), sizeof *spy.hidden);
    return spy.real->run(m, &pass, e);
}

static void compare_tensor(trial *t, const char *suffix, const float *have, int64_t skip, int64_t n,
                           double absolute, double relative)
{
    char name[128], why[128];
    int64_t count = 0;
    snprintf(name, sizeof name, "%s.%s", t->name, suffix);
    const float *want = expect(t->b, name, &count);
    if (!want || t->bad)
        return;
    if (count != skip + n)
        fail(t, name, (double)n, (double)(count - skip));
    else if (!agree(have, want + skip, n, absolute, relative, name, why, sizeof why)) {
        snprintf(t->why, sizeof t->why, "pass %d: %s", t->at, why);
        t->bad = true;
    }
}

/* --- comparing --- */

static void compare_list(trial *t, const char *what, const int32_t *have, int64_t n,
                         const cJSON *list)
{
    if (cJSON_GetArraySize(list) != n) {
        fail(t, what, (double)n, cJSON_GetArraySize(list));
        return;
    }
    int64_t i = 0;
    const cJSON *j;
    cJSON_ArrayForEach(j, list) {
        if (have[i] != j->valueint)
            fail(t, what, have[i], j->valueint);
        i++;
    }
}

static void compare_checks(trial *t)
{
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(t->record, "core_steps_per_token");
    const cJSON *lists = cJSON_GetObjectItemCaseSensitive(t->record, "checks_per_token");
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(t->record, "criterion");
    const cJSON *list = cJSON_GetArrayItem(lists, t->at), *j;
    const tt_depth *d = t->run.plan.depth;
    bool distribution = name && (strstr(name->valuestring, "kl") ||
                                 strstr(name->valuestring, "entropy"));
    if (!steps)
        return;
    same(t, "recurrences", d->ran, cJSON_GetArrayItem(steps, t->at)->valueint, 0);
    same(t, "number of checks", d->checks, cJSON_GetArraySize(list), 0);
    int32_t i = 0;
    cJSON_ArrayForEach(j, list) {
        if (t->bad)
            return;
        same(t, "criterion", d->check[i].value, cJSON_GetArrayItem(j, 0)->valuedouble,
             distribution ? 2e-4 : 5e-5);
        same(t, "exit", d->check[i].exited, cJSON_IsTrue(cJSON_GetArrayItem(j, 1)), 0);
        i++;
    }
}

static void compare_criterion(trial *t, const cJSON *step, int32_t rows)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(step, "criterion"), *j;
    const tt_depth *d = t->run.plan.depth;
    int32_t i = 0;
    if (!cJSON_IsArray(list)) {
        same(t, "criterion's kind", d->move, TT_MOVE_NONE, 0);
        return;
    }
    cJSON_ArrayForEach(j, list) {
        if (i < rows && cJSON_IsNumber(j))
            same(t, "criterion", d->moved[i], j->valuedouble, 5e-5);
        i++;
    }
    for (; i < rows; i++)
        if (isfinite(d->moved[i]))
            fail(t, "criterion of a row with nothing to compare", d->moved[i], INFINITY);
}

/* One step of the wave, after it was applied. */
static void compare_step(trial *t, const tt_batch *b, const cJSON *step)
{
    const tt_plan *p = &t->run.plan;
    const tt_seq *q = &t->run.seq;
    int32_t rows = p->row_end - p->row_begin, new_tokens[128];
    int64_t width = t->b->model->info.width, vocab = t->b->model->info.vocab;
    same(t, "cache_index", p->row_begin, number(step, "cache_index", -1), 0);
    same(t, "active", rows, number(step, "active", -1), 0);
    for (int32_t i = 0; i < p->asks && i < 128; i++)
        new_tokens[i] = b->stats[t->run.want + i].drawn;
    compare_list(t, "new_tokens", new_tokens, p->asks,
                 cJSON_GetObjectItemCaseSensitive(step, "new_tokens"));
    same(t, "frozen_len", q->columns - q->unsettled, number(step, "frozen_len", -1), 0);
    const cJSON *counts = cJSON_GetObjectItemCaseSensitive(step, "recurrence_counter");
    for (int32_t c = 0; c < p->row_end && c < q->columns; c++)
        same(t, "recurrences", q->recurrences[c], cJSON_GetArrayItem(counts, c)->valueint, 0);
    compare_criterion(t, step, rows);
    if (!spy.look || t->bad)
        return;
    char name[64];
    int32_t skip = rows - p->asks;
    int index = t->at - t->params.full_prefill;
    compare_list(t, "input_tokens", spy.id, rows,
                 cJSON_GetObjectItemCaseSensitive(step, "input_tokens"));
#define TENSOR(suffix, have, n, skip, absolute, relative)                     \
    snprintf(name, sizeof name, "step%02d." suffix, index);                   \
    compare_tensor(t, name, have, skip, n, absolute, relative)
    TENSOR("embeds", spy.hidden, rows * width, 0, 5e-5, 0);
    TENSOR("mixed_states", spy.hidden + rows * width, rows * width, 0, 5e-5, 0);
    TENSOR("states", spy.hidden + 2 * rows * width, rows * width, 0, 5e-5, 0);
    TENSOR("logits", spy.logits, p->asks * vocab, skip * vocab, 2e-4, 1e-4);
#undef TENSOR
}

/* What the next plan shows of the step before: kept columns, states, the sequence. */
static void compare_plan(trial *t)
{
    const tt_plan *p = &t->run.plan;
    int index = t->at - t->params.full_prefill - 1;
    if (!t->forcing || index < 0 || t->run.failed)
        return;
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(t->record, "steps");
    const cJSON *step = cJSON_GetArrayItem(steps, index);
    same(t, "kv_len_after", p->row_begin, number(step, "kv_len_after", -1), 0);
    same(t, "next_state_len", p->row_end - p->row_begin, number(step, "next_state_len", -1), 0);
    compare_list(t, "sequence", p->row_id, p->row_end,
                 cJSON_GetObjectItemCaseSensitive(step, "sequence"));
}

static void compare_pass(trial *t, const tt_batch *b)
{
    char name[64];
    if (t->forcing && t->at >= t->params.full_prefill) {
        const cJSON *steps = cJSON_GetObjectItemCaseSensitive(t->record, "steps");
        int index = t->at - t->params.full_prefill;
        if (index >= cJSON_GetArraySize(steps))
            fail(t, "steps", index + 1, cJSON_GetArraySize(steps));
        else
            compare_step(t, b, cJSON_GetArrayItem(steps, index));
    } else if (t->sequential) {
        compare_checks(t);
        snprintf(name, sizeof name, "logits%02d", t->at);
        if (spy.look)
            compare_tensor(t, name, spy.logits, 0, t->b->model->info.vocab, 2e-4, 1e-4);
    }
    t->wave_end = t->run.plan.row_end;
}

static void compare_end(trial *t)
{
    const cJSON *output = cJSON_GetObjectItemCaseSensitive(t->record, "output");
    const cJSON *sums = cJSON_GetObjectItemCaseSensitive(t->record, "summary");
    const tt_seq *q = &t->run.seq;
    compare_list(t, "output", q->id, q->columns - q->unsettled, output);
    if (!sums)
        return;
    /* The reference counts the prompt's recurrences as one. */
    int64_t prompt = t->params.full_prefill ? t->params.recurrence - 1 : 0;
    same(t, "core passes", (double)(q->depth.core_passes - prompt),
         number(sums, "num_core_forward_passes", -1), 0);
    same(t, "tokens forward", (double)(q->depth.core_rows - prompt * t->prompt),
         number(sums, "num_tokens_forward", -1), 0);
    same(t, "cache clears", (double)q->depth.cleared, number(sums, "num_cache_clears", -1), 0);
    same(t, "standing waves", (double)q->depth.standing, number(sums, "num_standing_waves", -1), 0);
    same(t, "steps", t->at - t->params.full_prefill,
         cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(t->record, "steps")), 0);
}

/* --- running --- */

static bool prepare(trial *t, bench *b, const cJSON *j)
{
    const cJSON *prompt = cJSON_GetObjectItemCaseSensitive(j, "prompt"), *k;
    const char *kind = cJSON_GetObjectItemCaseSensitive(j, "kind")->valuestring;
    int32_t n = cJSON_GetArraySize(prompt), i = 0;
    int32_t columns = n + (int32_t)number(j, "max_new_tokens", 0);
    int32_t output = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(j, "output"));
    *t = (trial){.b = b, .record = j, .prompt = n,
                 .eos_id = (int32_t)number(j, "eos_token_id", -1)};
    snprintf(t->name, sizeof t->name, "%s",
             cJSON_GetObjectItemCaseSensitive(j, "name")->valuestring);
    t->forcing = !strcmp(kind, "generate_diffusion_style");
    bool speculative = !strcmp(kind, "generate_speculative");
    t->sequential = !t->forcing && !speculative;
    columns = output > columns ? output : columns;
    t->id = calloc((size_t)columns, sizeof *t->id);
    t->open = calloc((size_t)columns, 1);
    cJSON_ArrayForEach(k, prompt)
        t->id[i++] = k->valueint;
    memset(t->open + n, 1, (size_t)(columns - n));
    bool drawn = false;
    char name[128];
    int64_t count;
    snprintf(name, sizeof name, "%s.init000", t->name);
    drawn = expect(b, name, &count) != NULL;
    t->source = (tt_source){.state = drawn ? draw_recorded : NULL, .filler = filler_recorded,
                            .arg = t};
    t->spec = (tt_run_spec){.sampler = tt_sampler_find(t->forcing ? "forcing"
                                                       : speculative ? "self_speculative"
                                                                     : "recurrent"),
                            .model = b->model,
                            .params = &t->params,
                            .id = t->id,
                            .open = t->open,
                            .columns = columns,
                            .prompt = n,
                            .vocab = (int32_t)b->model->info.vocab,
                            .noise = {.kind = TT_NOISE_PHILOX},
                            .source = &t->source};
    return set_parameters(t);
}

static void start(trial *t)
{
    tt_err e = {0};
    t->at = 0;
    if (tt_run_open(&t->run, &t->spec, &e)) {
        snprintf(t->why, sizeof t->why, "%s", e.text);
        t->bad = true;
    }
    t->run.seq.eos_id = t->eos_id;
}

static void give_up(trial *t, const tt_err *e)
{
    snprintf(t->why, sizeof t->why, "%.250s", e->text);
    t->bad = true;
}

static void plan(trial *t)
{
    tt_run_plan(&t->run);
    const tt_err own = t->run.error;
    if (t->run.failed)
        give_up(t, &own);
    else
        compare_plan(t);
}

static void step_done(trial *t, const tt_batch *b, tt_status st, const tt_err *e)
{
    const tt_err own = t->run.error;
    if (st || t->run.failed) {
        give_up(t, st ? e : &own);
        return;
    }
    compare_pass(t, b);
    t->at++;
    if (t->run.done)
        compare_end(t);
}

static void run_alone(bench *b, trial *t)
{
    tt_batch batch = {0};
    tt_run *one = &t->run;
    tt_err e = {0};
    spy.look = true;
    start(t);
    while (!t->bad && !t->run.done) {
        plan(t);
        if (!t->bad)
            step_done(t, &batch, tt_batch_step(&batch, &one, 1, &e), &e);
    }
    spy.look = false;
    report(b, t->name, !t->bad, t->why);
    tt_batch_free(&batch);
    tt_run_close(&t->run);
}

/* All of them in one batch, joined at different steps, with sequences nobody recorded. */
static void run_mixed(bench *b, trial *list, int n)
{
    tt_batch batch = {0};
    tt_run *run[MAX_TRIALS + STRANGERS];
    tt_params params[STRANGERS];
    trial stranger[STRANGERS] = {0};
    static const char *const sampler[STRANGERS] = {"recurrent", "forcing", "self_speculative"};
    for (int i = 0; i < STRANGERS; i++) {
        tt_params_default(&params[i]);
        params[i].recurrence = 3 + i;
        params[i].temperature = 0.5 * i;
        stranger[i].spec = list[0].spec;
        stranger[i].spec.sampler = tt_sampler_find(sampler[i]);
        stranger[i].spec.params = &params[i];
        stranger[i].spec.noise.seed = 5u + (unsigned)i;
        stranger[i].spec.source = NULL;
        start(&stranger[i]);
    }
    for (int i = 0; i < n; i++) {
        list[i].bad = false;
        start(&list[i]);
        list[i].join = i % 5;
    }
    for (int turn = 0, left = 1; left; turn++) {
        trial *in[MAX_TRIALS + STRANGERS];
        int64_t runs = 0;
        tt_err e = {0};
        left = 0;
        for (int i = 0; i < n + STRANGERS; i++) {
            trial *t = i < n ? &list[i] : &stranger[i - n];
            bool over = t->bad || t->run.done || t->run.failed;
            left += i < n && !over;
            if (over || t->join > turn)
                continue;
            if (i < n)
                plan(t);
            else
                tt_run_plan(&t->run);
            if (!t->bad && !t->run.failed) {
                in[runs] = t;
                run[runs++] = &t->run;
            }
        }
        tt_status st = runs ? tt_batch_step(&batch, run, runs, &e) : TT_OK;
        for (int64_t i = 0; i < runs; i++)
            if (in[i]->b)
                step_done(in[i], &batch, st, &e);
    }
    for (int i = 0; i < n; i++) {
        char name[120];
        snprintf(name, sizeof name, "%.95s in a mixed batch", list[i].name);
        report(b, name, !list[i].bad, list[i].why);
        tt_run_close(&list[i].run);
    }
    for (int i = 0; i < STRANGERS; i++)
        tt_run_close(&stranger[i].run);
    tt_batch_free(&batch);
}

static void replay_trials(bench *b, const cJSON *root)
{
    static trial list[MAX_TRIALS];
    int n = 0;
    const cJSON *j;
    spy.real = b->model->def;
    spy.def = *spy.real;
    spy.def.run = spy_run;
    b->model->def = &spy.def;
    cJSON_ArrayForEach(j, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        const char *name = cJSON_GetObjectItemCaseSensitive(j, "name")->valuestring;
        if (!strcmp(name, "forward") || fnmatch(b->glob, name, 0) || n == MAX_TRIALS)
            continue;
        trial *t = &list[n];
        if (!prepare(t, b, j)) {
            report(b, name, false, t->why);
            free(t->id);
            free(t->open);
            continue;
        }
        run_alone(b, t);
        n++;
    }
    if (n)
        run_mixed(b, list, n);
    for (int i = 0; i < n; i++) {
        free(list[i].id);
        free(list[i].open);
    }
    free(spy.logits);
    free(spy.hidden);
    spy.logits = spy.hidden = NULL;
    b->model->def = spy.real;
}

int tt_replay_raven(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed)
{
    char model[4096], tensors[4096];
    snprintf(model, sizeof model, "%s/model", dir);
    snprintf(tensors, sizeof tensors, "%s/tensors.safetensors", dir);
    bench b = {.dir = dir, .glob = case_glob, .model_dir = model};
    tt_err e = {0};
    bool open = bench_open(&b, device);
    if (open && tt_weights_open_file(&b.expected, tensors, &e)) {
        report(&b, "tensors.safetensors", false, e.text);
        open = false;
    }
    cJSON *root = open ? read_json(&b, "cases.json") : NULL, *j;
    if (open && !root)
        report(&b, "cases.json", false, "cannot be read");
    cJSON_ArrayForEach(j, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        const char *name = cJSON_GetObjectItemCaseSensitive(j, "name")->valuestring;
        if (!strcmp(name, "forward") && !fnmatch(case_glob, name, 0))
            replay_forward(&b, j);
    }
    if (root)
        replay_trials(&b, root);
    cJSON_Delete(root);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
