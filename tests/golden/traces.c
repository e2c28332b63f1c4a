/* traces.c - sampler traces of masked diffusion models: every case row alone, and all of a file in
 * one mixed batch that they join at different steps. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/batcher.h"
#include "tests/golden/bench.h"

enum { STRANGERS = 3, MAX_TRIALS = 1024 };

/* One row of one case being replayed. */
typedef struct {
    char name[96];
    tt_params params;
    tt_run_spec spec;
    int32_t *id;
    uint8_t *open;
    int32_t eos_id, eot_id;
    int32_t **want; /* canvases after each step */
    int wants;
    bool turns; /* the trace has an entry per change, not per pass */
    bool stop_early; /* the reference ends at an end token with nothing open before it */
    int join; /* step at which it enters the mixed batch */

    tt_run run;
    int at; /* steps compared */
    int32_t committed; /* by then */
    bool bad;
    char why[256];
} trial;

static double number(const cJSON *o, const char *key, double fallback)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(j) ? j->valuedouble : cJSON_IsTrue(j) ? 1 : cJSON_IsFalse(j) ? 0
                                                                                     : fallback;
}

static bool has(const cJSON *o, const char *key)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(o, key);
    return j && !cJSON_IsNull(j);
}

/* Every parameter of a case must be one that the mapping below understands. */
static bool known_parameters(const cJSON *params, char *why, size_t size)
{
    static const char *const known[] = {
        "mask_id", "eos_id", "eot_id", "temperature", "cfg_scale", "remasking", "steps",
        "gen_length", "block_length", "logits_eos_inf", "confidence_eos_eot_inf", "threshold",
        "factor", "block_size", "max_new_tokens", "alg", "alg_temp", "eps", "top_p", "top_k",
        "pad_id", "dual_cache", "strategy", "verify_chunk", "acceptance_top_k", "cache",
        "decoder", "maximum_unroll", "early_stop", "credit_alpha", "boost_gamma", "decay_beta",
        "low_threshold", "vicinity", "freq", "smooth", "cont_weight", "cont_weight_init",
        "cont_weight_growth", "threshold_decay", "conf_threshold", "kl_threshold",
        "kl_history_length", "threshold_back", "cycle_length_stability_window",
        "cycle_length_stability_std_dev_threshold", "k_exploration_steps",
        "cycle_len_confidence_threshold", "high_confidence_threshold", "refresh",
        "early_stop_consecutive",
        "editing_threshold", "max_post_steps", "num_to_transfer", "minimal_topk",
        "eos_early_stop", "batch", "length", "time_conditioning", "noise", "noise_eps",
        "noise_removal", NULL};
    const cJSON *j;
    cJSON_ArrayForEach(j, params)
    {
        const char *const *k = known;
        while (*k && strcmp(*k, j->string))
            k++;
        if (!*k && !cJSON_IsNull(j)) {
            snprintf(why, size, "parameter '%s' is not known", j->string);
            return false;
        }
    }
    return true;
}

/* What the samplers of MDLM have no parameter for. */
static bool fixed_schedule(const cJSON *params)
{
    const cJSON *noise = cJSON_GetObjectItemCaseSensitive(params, "noise");
    return cJSON_IsString(noise) && !strcmp(noise->valuestring, "loglinear") &&
           number(params, "eps", 0) == 1e-5 && number(params, "noise_eps", 0) == 1e-3 &&
           number(params, "noise_removal", 0) == 1;
}

static const char *sampler_name(const char *upstream, const cJSON *params)
{
    if (!strcmp(upstream, "llada"))
        return "low_confidence";
    if (!strcmp(upstream, "freecache_llada"))
        return "low_confidence";
    if (!strcmp(upstream, "dream") || !strcmp(upstream, "freecache_dream"))
        return "dream";
    if (!strcmp(upstream, "guided"))
        return "guided";
    if (!strcmp(upstream, "fastdllm_dream") || !strcmp(upstream, "fastdllm_dream_block"))
        return "dream_fast";
    if (!strncmp(upstream, "fastdllm_", 9))
        return has(params, "threshold") ? "threshold" : has(params, "factor") ? "factor"
                                                                              : "low_confidence";
    if (!strcmp(upstream, "dllm_infill") || !strcmp(upstream, "dllm_sample"))
        return "infill";
    if (!strcmp(upstream, "ddpm") || !strcmp(upstream, "ddpm_cache"))
        return fixed_schedule(params) ? "ddpm" : NULL;
    if (!strcmp(upstream, "analytic"))
        return fixed_schedule(params) ? "analytic" : NULL;
    if (!strcmp(upstream, "llada2_block") || !strcmp(upstream, "llada21_block_edit"))
        return upstream;
    if (!strcmp(upstream, "dkv_decode"))
        return "low_confidence";
    static const char *const same[] = {"klass", "wino", "slowfast", "threshold", "credit",
                                       "hierarchy", NULL};
    const cJSON *decoder = cJSON_GetObjectItemCaseSensitive(params, "decoder");
    const char *name = cJSON_IsString(decoder) ? decoder->valuestring : upstream;
    for (const char *const *s = same; *s; s++)
        if (!strcmp(*s, name))
            return *s;
    return NULL;
}

static int32_t order_of(const cJSON *params)
{
    static const struct {
        const char *name;
        tt_remask order;
    } known[] = {{"random", TT_REMASK_RANDOM}, {"topk_margin", TT_REMASK_MARGIN},
                 {"entropy", TT_REMASK_ENTROPY}, {"origin", TT_REMASK_ORIGIN}};
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(params, "alg");
    if (!cJSON_IsString(j))
        j = cJSON_GetObjectItemCaseSensitive(params, "remasking");
    for (size_t i = 0; cJSON_IsString(j) && i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, j->valuestring))
            return known[i].order;
    return TT_REMASK_CONFIDENCE;
}

/* In the reference the ratio of topk_relative travels as top_p. */
static void set_guide_rule(tt_params *p, const cJSON *params)
{
    const cJSON *rule = cJSON_GetObjectItemCaseSensitive(params, "strategy");
    for (int32_t i = 0; cJSON_IsString(rule) && tt_guide_names[i]; i++)
        if (!strcmp(tt_guide_names[i], rule->valuestring)) {
            p->guide_rule = i;
            p->guide_ratio = p->top_p < 1 ? p->top_p : p->guide_ratio;
            p->top_p = 1;
        }
    p->guide_k = (int32_t)number(params, "acceptance_top_k", p->guide_k);
    p->guide_chunk = (int32_t)number(params, "verify_chunk", p->guide_chunk);
}

/* Parameters of dInfer's decoders and caches. */
static void set_dinfer(tt_params *p, const cJSON *params)
{
    p->early_stop = number(params, "early_stop", 0) != 0;
    p->cache_refresh = (int32_t)number(params, "refresh", number(params, "freq", 0));
    p->low_threshold = number(params, "low_threshold", p->low_threshold);
    p->credit_weight = number(params, "credit_alpha", p->credit_weight);
    p->credit_power = number(params, "boost_gamma", p->credit_power);
    p->credit_decay = number(params, "decay_beta", p->credit_decay);
    if (number(params, "smooth", 0) != 0)
        p->smoothing = number(params, "cont_weight", 0);
    p->smoothing_start = number(params, "cont_weight_init", p->smoothing_start);
    p->smoothing_growth = number(params, "cont_weight_growth", p->smoothing_growth);
    p->threshold_decay = number(params, "threshold_decay", p->threshold_decay);
    const cJSON *near = cJSON_GetObjectItemCaseSensitive(params, "vicinity");
    if (cJSON_IsArray(near)) {
        p->cache = TT_CACHE_VICINITY;
        p->cache_before = (int32_t)cJSON_GetArrayItem(near, 0)->valuedouble;
        p->cache_after = (int32_t)cJSON_GetArrayItem(near, 1)->valuedouble;
        p->cache_warmup = (int32_t)cJSON_GetArrayItem(near, 2)->valuedouble;
    }
}

/* Parameters of KLASS, WINO, SlowFast. */
static void set_others(tt_params *p, const cJSON *params, const char *sampler)
{
    p->kl_threshold = number(params, "kl_threshold", p->kl_threshold);
    p->kl_history = (int32_t)number(params, "kl_history_length", p->kl_history);
    p->threshold = number(params, "conf_threshold", p->threshold);
    p->verify_threshold = number(params, "threshold_back", p->verify_threshold);
    if (!strcmp(sampler, "wino"))
        p->draft_threshold = p->threshold;
    p->explore_window = (int32_t)number(params, "cycle_length_stability_window",
                                        p->explore_window);
    p->explore_spread = number(params, "cycle_length_stability_std_dev_threshold",
                               p->explore_spread);
    p->explore_steps = (int32_t)number(params, "k_exploration_steps", p->explore_steps);
    p->explore_threshold = number(params, "cycle_len_confidence_threshold", p->explore_threshold);
    p->fill_threshold = number(params, "high_confidence_threshold", p->fill_threshold);
    p->early_stop_consecutive = (int32_t)number(params, "early_stop_consecutive", 0);
}

/* cache: the part of the upstream sampler's name that says so, or NULL. */
static void set_params(trial *t, const cJSON *params, const char *cache, const char *sampler)
{
    tt_params *p = &t->params;
    tt_params_default(p);
    p->temperature = number(params, "temperature", has(params, "noise") ? 1 : 0);
    p->cfg_scale = number(params, "cfg_scale", 0);
    p->steps = (int32_t)number(params, "steps", 0);
    int32_t most = (int32_t)(number(params, "gen_length", 0) / number(params, "minimal_topk", 1));
    if (has(params, "minimal_topk") && p->steps > most)
        p->steps = most;
    p->block_length = (int32_t)number(params, "block_length", number(params, "block_size", 0));
    p->threshold = number(params, "threshold", p->threshold);
    p->factor = number(params, "factor", p->factor);
    p->factor_compat = true;
    p->logits_eos_inf = number(params, "logits_eos_inf", 0) != 0;
    p->confidence_eos_eot_inf = number(params, "confidence_eos_eot_inf", 0) != 0;
    for (int32_t i = 0; cache && tt_cache_names[i]; i++)
        if (!strcmp(tt_cache_names[i], cache))
            p->cache = i;
    p->editing_threshold = number(params, "editing_threshold", p->editing_threshold);
    p->max_post_steps = (int32_t)number(params, "max_post_steps", p->max_post_steps);
    p->num_to_transfer = (int32_t)number(params, "num_to_transfer", p->num_to_transfer);
    p->top_p = number(params, "top_p", 1);
    p->top_k = (int32_t)number(params, "top_k", 0);
    p->eps = number(params, "eps", p->eps);
    p->remask_temperature = number(params, "alg_temp", 0);
    p->remask = order_of(params);
    set_guide_rule(p, params);
    set_dinfer(p, params);
    set_others(p, params, sampler);
}

/* Columns of left padding in the batch's canvases; we run rows without padding. */
static int32_t left_padding(const cJSON *c, int row)
{
    const cJSON *mask = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(c, "attention_mask"),
                                           row);
    const cJSON *j;
    int32_t n = 0;
    cJSON_ArrayForEach(j, mask)
    {
        if (j->valuedouble != 0)
            break;
        n++;
    }
    return n;
}

/* The reference draws rows x columns x vocab values a step, row-major over the batch, and for a
 * random order rows x columns more. */
static void set_noise(bench *b, trial *t, const cJSON *c, int row, int rows)
{
    if (!has(c, "noise_seed"))
        return;
    uint64_t padding = (uint64_t)left_padding(c, row), vocab = (uint64_t)b->model->info.vocab;
    uint64_t columns = (uint64_t)t->spec.columns + padding;
    uint64_t draws = t->params.temperature > 0 ? (uint64_t)rows * columns * vocab : 0;
    bool random = t->params.remask == TT_REMASK_RANDOM;
    t->spec.noise = (tt_noise){.kind = TT_NOISE_SPLITMIX,
                               .seed = (uint64_t)number(c, "noise_seed", 0),
                               .draw_base = ((uint64_t)row * columns + padding) * vocab,
                               .conf_base = draws + (uint64_t)row * columns + padding,
                               .stride = draws + (random ? (uint64_t)rows * columns : 0)};
}

/* The row's columns from `skip` on. */
static int32_t *canvas(const cJSON *row, int32_t skip, int32_t columns)
{
    int32_t *id = calloc((size_t)columns, sizeof *id), i = -skip;
    const cJSON *j;
    cJSON_ArrayForEach(j, row)
    {
        if (i >= 0 && i < columns)
            id[i] = (int32_t)j->valuedouble;
        i++;
    }
    return id;
}

static void set_wants(trial *t, const cJSON *steps, int row, int32_t padding, bool distinct)
{
    const cJSON *s;
    t->want = calloc((size_t)cJSON_GetArraySize(steps) + 1, sizeof *t->want);
    const int32_t *before = t->id;
    cJSON_ArrayForEach(s, steps)
    {
        int32_t *c = canvas(cJSON_GetArrayItem(s, row), padding, t->spec.columns);
        /* These samplers advance a batch in lockstep: a row that has nothing to do waits. */
        if (distinct && !memcmp(c, before, (size_t)t->spec.columns * sizeof *c)) {
            free(c);
            continue;
        }
        before = t->want[t->wants++] = c;
    }
}

/* Upstream samplers whose traces have entries in which nothing happens: a batch in lockstep, a
 * pass over a block that is full already, a canvas before and after it is filled up. */
static bool repeats(const char *upstream)
{
    return !strncmp(upstream, "dllm_", 5) || !strcmp(upstream, "dinfer") ||
           !strcmp(upstream, "slowfast");
}

/* The cache an upstream sampler uses, by our name; NULL: none. */
static const char *cache_of(const char *upstream, const cJSON *params)
{
    const cJSON *cache = cJSON_GetObjectItemCaseSensitive(params, "cache");
    if (!strncmp(upstream, "freecache_", 10) ||
        (cJSON_IsString(cache) && !strcmp(cache->valuestring, "prompt_frozen")))
        return "free";
    if (!strcmp(upstream, "dkv_decode"))
        return "dkv";
    if (cJSON_IsString(cache))
        return cache->valuestring;
    if (!strcmp(upstream, "fastdllm_dream_block"))
        return number(params, "dual_cache", 0) != 0 ? "dual" : "prefix";
    return !strncmp(upstream, "fastdllm_", 9) ? upstream + 9 : NULL;
}

static bool make_trial(bench *b, trial *t, const cJSON *c, int row, int rows)
{
    const cJSON *params = cJSON_GetObjectItemCaseSensitive(c, "params");
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(c, "name");
    const cJSON *upstream = cJSON_GetObjectItemCaseSensitive(c, "sampler");
    const cJSON *prompt = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(c, "prompt"), row);
    snprintf(t->name, sizeof t->name, "%s[%d]", name->valuestring, row);
    const char *sampler = sampler_name(upstream->valuestring, params);
    if (!sampler) {
        snprintf(t->why, sizeof t->why, "sampler '%s' is not known", upstream->valuestring);
        return false;
    }
    if (!known_parameters(params, t->why, sizeof t->why))
        return false;
    set_params(t, params, cache_of(upstream->valuestring, params), sampler);
    int32_t given = cJSON_GetArraySize(prompt);
    int32_t fresh = (int32_t)number(params, "gen_length", number(params, "max_new_tokens", 0));
    fresh = (int32_t)number(params, "length", fresh);
    bool timed = number(params, "time_conditioning", 0) != 0;
    t->spec = (tt_run_spec){.sampler = tt_sampler_find(sampler),
                            .model = timed ? b->timed : b->model,
                            .guide = b->guide, .params = &t->params, .columns = given + fresh,
                            .prompt = fresh ? given : 0, .vocab = (int32_t)b->model->info.vocab};
    t->id = canvas(prompt, 0, t->spec.columns);
    t->open = calloc((size_t)t->spec.columns, 1);
    for (int32_t i = 0; i < t->spec.columns; i++) {
        t->id[i] = i < given ? t->id[i] : b->model->info.mask_id;
        t->open[i] = t->id[i] == b->model->info.mask_id;
    }
    t->spec.id = t->id;
    t->spec.open = t->open;
    /* A reference of MDLM writes an entry per step of time, most of which change nothing. */
    bool distinct = repeats(upstream->valuestring) || has(params, "noise");
    t->turns = !strcmp(sampler, "guided") || has(params, "noise");
    t->stop_early = number(params, "eos_early_stop", 0) != 0;
    t->eos_id = (int32_t)number(params, "eos_id", b->model->info.eos_id);
    t->eot_id = (int32_t)number(params, "eot_id", b->model->info.eot_id);
    set_noise(b, t, c, row, rows);
    set_wants(t, cJSON_GetObjectItemCaseSensitive(c, "steps"), row, left_padding(c, row),
              distinct);
    /* One entry more than passes: the canvas filled up, which belongs to the last pass. */
    if (t->params.early_stop_consecutive && t->wants == (int)number(c, "nfe", 0) + 1) {
        free(t->want[t->wants - 2]);
        t->want[t->wants - 2] = t->want[t->wants - 1];
        t->wants--;
    }
    return true;
}

static void free_trial(trial *t)
{
    for (int i = 0; i < t->wants; i++)
        free(t->want[i]);
    free(t->want);
    free(t->id);
    free(t->open);
}

static void start(trial *t)
{
    tt_err e;
    t->at = t->committed = 0;
    t->bad = false;
    t->spec.model->info.eos_id = t->eos_id;
    t->spec.model->info.eot_id = t->eot_id;
    if (tt_run_open(&t->run, &t->spec, &e)) {
        t->bad = true;
        snprintf(t->why, sizeof t->why, "%s", e.text);
    }
}

/* As the scheduler does it. */
static bool stops(const tt_seq *q)
{
    for (int32_t c = q->prompt; c < q->columns && !tt_seq_open_at(q, c); c++)
        if (q->id[c] == q->eos_id)
            return true;
    return false;
}

static void check_step(trial *t)
{
    const tt_seq *q = &t->run.seq;
    if (!t->want && !t->run.failed)
        return; /* a stranger */
    if (t->turns && !t->run.failed && q->committed == t->committed)
        return;
    t->committed = q->committed;
    if (t->run.failed) {
        t->bad = true;
        snprintf(t->why, sizeof t->why, "%s", t->run.error.text);
    } else if (t->at >= t->wants) {
        t->bad = true;
        snprintf(t->why, sizeof t->why, "goes on after the %d steps of the trace", t->wants);
    } else {
        for (int32_t c = 0; c < q->columns && !t->bad; c++)
            if (q->id[c] != t->want[t->at][c]) {
                t->bad = true;
                snprintf(t->why, sizeof t->why, "step %d, column %d: token %d, expected %d",
                         t->at + 1, c, q->id[c], t->want[t->at][c]);
            }
        t->at++;
    }
    t->run.done |= t->stop_early && stops(q);
    if (!t->bad && t->run.done && t->at < t->wants) {
        t->bad = true;
        snprintf(t->why, sizeof t->why, "ends after %d of %d steps", t->at, t->wants);
    }
}

/* One pass for each model, of those that want it. */
static void step_models(bench *b, tt_batch *batch, tt_run **run, trial **in, int64_t n)
{
    tt_err e;
    tt_model *const models[] = {b->model, b->guide, b->timed};
    for (int m = 0; m < 3; m++) {
        tt_run *part[MAX_TRIALS + STRANGERS];
        trial *of[MAX_TRIALS + STRANGERS];
        int64_t k = 0;
        for (int64_t i = 0; i < n; i++)
            if (tt_run_model(run[i]) == models[m] && run[i]->planned) {
                of[k] = in[i];
                part[k++] = run[i];
            }
        bool broken = tt_batch_step(batch, part, k, &e) != TT_OK;
        for (int64_t i = 0; i < k; i++) {
            if (broken) {
                of[i]->bad = true;
                snprintf(of[i]->why, sizeof of[i]->why, "pass: %.200s", e.text);
            } else {
                check_step(of[i]);
            }
        }
    }
}

/* Runs the trials together until all are done; each enters at its own step. */
static void run_together(bench *b, trial **list, int n, bool stagger)
{
    tt_batch batch = {0};
    tt_run **run = calloc((size_t)n, sizeof *run);
    trial **in = calloc((size_t)n, sizeof *in);
    for (int step = 0, left = 1; left; step++) {
        int64_t k = 0;
        left = 0;
        for (int i = 0; i < n; i++) {
            trial *t = list[i];
            if (stagger && step < t->join) {
                left = 1;
                continue;
            }
            if (step == (stagger ? t->join : 0))
                start(t);
            if (t->bad || t->run.done)
                continue;
            tt_run_plan(&t->run);
            if (t->run.failed) {
                check_step(t);
                continue;
            }
            in[k] = t;
            run[k++] = &t->run;
        }
        left |= k > 0;
        step_models(b, &batch, run, in, k);
    }
    for (int i = 0; i < n; i++)
        tt_run_close(&list[i]->run);
    tt_batch_free(&batch);
    free(run);
    free(in);
}

/* A seeded neighbour of an odd length, whose own result nobody checks. */
static void make_stranger(bench *b, trial *t, int number_)
{
    static const char *const anywhere[] = {"threshold", "low_confidence", "infill"};
    static const char *const blocks[] = {"llada2_block", "llada21_block_edit", "llada2_block"};
    bool whole = b->model->info.kinds & TT_KIND_BIDIRECTIONAL;
    int32_t vocab = (int32_t)b->model->info.vocab, given = 3 + 7 * number_;
    tt_params_default(&t->params);
    t->params.temperature = 0.5 * number_;
    t->params.block_length = whole ? 0 : 5 + number_;
    snprintf(t->name, sizeof t->name, "stranger %d", number_);
    const char *sampler = (whole ? anywhere : blocks)[number_ % 3];
    t->spec = (tt_run_spec){.sampler = tt_sampler_find(sampler), .model = b->model,
                            .params = &t->params, .columns = given + 24, .prompt = given,
                            .vocab = vocab,
                            .noise = {.kind = TT_NOISE_PHILOX, .seed = (uint64_t)number_}};
    t->id = calloc((size_t)t->spec.columns, sizeof *t->id);
    t->open = calloc((size_t)t->spec.columns, 1);
    for (int32_t i = 0; i < t->spec.columns; i++) {
        t->open[i] = i >= given;
        t->id[i] = t->open[i] ? b->model->info.mask_id : (i * 37 + number_) % (vocab - 20);
    }
    t->spec.id = t->id;
    t->spec.open = t->open;
    t->eos_id = b->model->info.eos_id;
    t->eot_id = -1;
    t->join = number_;
}

static void judge(bench *b, const trial *t, const char *how)
{
    char name[140];
    snprintf(name, sizeof name, "%s (%s)", t->name, how);
    report(b, name, !t->bad, t->why);
}

static void replay_trials(bench *b, trial *all, int n)
{
    trial *list[MAX_TRIALS + STRANGERS], strangers[STRANGERS] = {0};
    for (int i = 0; i < n; i++) {
        list[i] = &all[i];
        run_together(b, &list[i], 1, false);
        judge(b, &all[i], "alone");
    }
    for (int i = 0; i < STRANGERS; i++) {
        make_stranger(b, &strangers[i], i);
        list[n + i] = &strangers[i];
    }
    if (n)
        run_together(b, list, n + STRANGERS, true);
    for (int i = 0; i < n; i++)
        judge(b, &all[i], "in a mixed batch");
    for (int i = 0; i < STRANGERS; i++) {
        if (n && strangers[i].bad)
            report(b, strangers[i].name, false, strangers[i].why);
        free_trial(&strangers[i]);
    }
}

void replay_traces(bench *b, const char *file, bool required)
{
    cJSON *root = read_json(b, file);
    if (!root) {
        if (required)
            report(b, file, false, "cannot be read");
        return;
    }
    trial *all = calloc(MAX_TRIALS, sizeof *all);
    int n = 0;
    const cJSON *c;
    cJSON_ArrayForEach(c, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        const char *name = cJSON_GetObjectItemCaseSensitive(c, "name")->valuestring;
        const cJSON *p = cJSON_GetObjectItemCaseSensitive(c, "params");
        int rows = (int)number(p, "batch", cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(
                                               c, "prompt")));
        if (fnmatch(b->glob, name, 0))
            continue;
        for (int row = 0; row < rows && n < MAX_TRIALS; row++) {
            all[n].join = n % 5;
            if (make_trial(b, &all[n], c, row, rows)) {
                n++;
                continue;
            }
            report(b, name, false, all[n].why);
            break;
        }
    }
    replay_trials(b, all, n);
    for (int i = 0; i < n; i++)
        free_trial(&all[i]);
    free(all);
    cJSON_Delete(root);
}
