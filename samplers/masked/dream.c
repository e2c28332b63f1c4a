/* dream.c - Dream's sampler (diffusion_generate of the released Dream-v0-7B code): the number of
 * commits of a step follows a linear time schedule, their order a confidence.
 *
 * With n columns open and times t_0 = 1 > ... > t_S = eps, step i commits int(n (1 - t_{i+1} /
 * t_i)) columns, the last step the rest; `origin` instead commits each open column with that
 * probability. Times and products are float32, as in the released code, because truncation
 * makes the last bit count. Confidence is that of the distribution the token is drawn from:
 * after temperature, top_p and top_k.
 *
 * With a block length, steps are shared out evenly and commits stay inside the block, as FreeCache
 * (arXiv 2505.21467) runs it; n then counts the later blocks too. Its early stop: when the last
 * token of the canvas so far ends early_stop_consecutive end tokens and nothing before it is open,
 * the rest is filled with end tokens. */
#include <math.h>
#include <stdlib.h>

#include "kernels/base/rng.h"
#include "samplers/masked/masked.h"

typedef struct {
    tt_rules rules;
    tt_cache cache;
    tt_block block;
    int32_t steps, block_steps; /* in all, and per block */
    int32_t last;               /* index of the block's last step */
    uint64_t used;              /* values of the reference stream consumed so far */
} state;

static tt_status dr_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (!st)
        st = tt_cache_begin(&s->cache, q, e);
    if (!st && q->params->early_stop_consecutive && q->eos_id < 0)
        st = tt_fail_param(e, "early_stop_consecutive", "unsupported_parameter",
                           "the model has no end token");
    if (st)
        return st;
    if (!tt_block_find(q, 0, &s->block))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    int32_t open = tt_count_open(q, 0, q->columns), blocks = tt_block_count(q);
    s->steps = q->params->steps ? q->params->steps : open;
    s->block_steps = s->steps / blocks;
    if (s->block_steps < 1 || (blocks > 1 && s->block_steps < 2))
        return tt_fail_param(e, "steps", "invalid_value",
                             "'steps' is %d; %d blocks need at least two each", s->steps, blocks);
    s->last = s->block_steps - 1;
    q->expected = s->block_steps * blocks;
    return TT_OK;
}

/* Adapts an ask to the way Dream scores: confidence of what is drawn, and for replayed traces one
 * uniform number per row. */
static tt_status dr_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_cache_ask(&s->cache, q, &s->rules, &s->block, 0, plan, e);
    if (st)
        return st;
    bool origin = q->params->remask == TT_REMASK_ORIGIN;
    uint64_t at = s->used + (origin ? (uint64_t)plan->asks : 0);
    for (int32_t i = 0; i < plan->asks; i++) {
        tt_draw *d = &plan->ask[i].draw;
        d->confidence_of_kept = true;
        if (d->noise == TT_NOISE_SPLITMIX) {
            d->noise = TT_NOISE_CUMULATIVE;
            d->base = at++;
        }
    }
    return TT_OK;
}

/* Philox index of column choices; token draws use the indexes below, the random order the next. */
enum { CHOICE_BLOCK = 0x7FFFFFFE };

static uint32_t choice_noise(const tt_seq *q, int32_t column, int lane)
{
    tt_rng_address a = {.seed = q->noise.seed, .sample = q->noise.sample,
                        .step = (uint32_t)q->step, .position = (uint32_t)column};
    return tt_rng_at(a, CHOICE_BLOCK).v[lane];
}

/* origin: every open column by itself. */
static void commit_by_chance(tt_seq *q, state *s, const tt_result *r, float chance, bool last)
{
    for (int32_t i = 0; i < r->plan->asks; i++) {
        float u = q->noise.kind == TT_NOISE_SPLITMIX
                      ? (float)(tt_splitmix(q->noise.seed, s->used + (uint64_t)i + 1) >> 40) *
                            0x1p-24f
                      : tt_uniform(choice_noise(q, r->plan->ask[i].column, 0));
        if (last || u < chance)
            tt_seq_commit(q, r, i);
    }
}

/* k columns without replacement from softmax(confidence / T), as one draw after the other. */
static void order_by_reference(const tt_seq *q, uint64_t at, float *score, int32_t n, int32_t k,
                               int32_t *order)
{
    double t = q->params->remask_temperature, max = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        max = fmax(max, score[i]);
    for (int32_t i = 0; i < n; i++)
        score[i] = (float)exp(((double)score[i] - max) / t);
    for (int32_t j = 0; j < k; j++) {
        double u = (double)(tt_splitmix(q->noise.seed, at + (uint64_t)j + 1) >> 11) * 0x1p-53;
        double total = 0, below = 0;
        int32_t pick = -1;
        for (int32_t i = 0; i < n; i++)
            total += score[i];
        for (int32_t i = 0; i < n; i++) {
            below += score[i];
            if (score[i] > 0)
                pick = i;
            if (below > u * total)
                break;
        }
        order[j] = pick;
        score[pick] = 0;
    }
}

/* Adds Gumbel noise: the k greatest are then such a draw of k columns. */
static void perturb(const tt_seq *q, const tt_result *r, float *score)
{
    float t = (float)q->params->remask_temperature;
    for (int32_t i = 0; i < r->plan->asks; i++)
        score[i] = score[i] / t + tt_gumbel(choice_noise(q, r->plan->ask[i].column, 1));
}

static tt_status commit_best(tt_seq *q, state *s, const tt_result *r, int32_t k, tt_err *e)
{
    int32_t asks = r->plan->asks;
    float *score = TT_TAKE(r->plan->arena, asks, float);
    int32_t *order = TT_TAKE(r->plan->arena, asks, int32_t);
    if (!score || !order)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", asks);
    for (int32_t i = 0; i < asks; i++)
        score[i] = tt_confidence(q, r, i);
    tt_status st = TT_OK;
    bool replay = q->noise.kind == TT_NOISE_SPLITMIX, soft = q->params->remask_temperature > 0;
    uint64_t at = s->used + (q->params->temperature > 0 ? (uint64_t)asks : 0);
    k = k < asks ? k : asks;
    if (soft && replay) {
        order_by_reference(q, at, score, asks, k, order);
        s->used += (uint64_t)k;
    } else {
        if (soft)
            perturb(q, r, score);
        st = tt_order_asks(r, score, order, e);
    }
    for (int32_t j = 0; j < k && !st; j++)
        tt_seq_commit(q, r, order[j]);
    return st;
}

/* Whether what is committed is a text without gaps whose last n tokens are end tokens. */
static bool ends(const tt_seq *q, int32_t n)
{
    int32_t c = q->columns - 1;
    while (c >= 0 && tt_seq_open_at(q, c))
        c--;
    if (tt_count_open(q, 0, c + 1))
        return false;
    int32_t run = 0;
    for (; c >= 0 && !q->fixed[c] && q->id[c] == q->eos_id; c--)
        run++;
    return run >= n;
}

static tt_status dr_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    int32_t i = q->step, asks = r->plan->asks;
    float eps = (float)q->params->eps;
    float share = tt_time_share(eps, s->steps, i);
    bool last = i >= s->last, origin = q->params->remask == TT_REMASK_ORIGIN;
    tt_status st = TT_OK;
    if (origin) {
        commit_by_chance(q, s, r, share, last);
        s->used += (uint64_t)asks;
    } else {
        float n = (float)(asks + tt_count_open(q, s->block.end, q->columns));
        st = commit_best(q, s, r, last ? asks : (int32_t)(n * share), e);
    }
    if (q->params->temperature > 0)
        s->used += (uint64_t)asks;
    if (q->params->early_stop_consecutive && ends(q, q->params->early_stop_consecutive))
        tt_fill_with_end(q, 0);
    if ((!last || q->reach) && tt_count_open(q, 0, s->block.end))
        return st;
    *done = !tt_block_find(q, s->block.end, &s->block);
    s->last += s->block_steps;
    return st;
}

static const char *const params[] = {"temperature", "top_p", "top_k", "min_p", "block_length",
                                     "cfg_scale", "steps", "eps", "remask", "remask_temperature",
                                     "logits_eos_inf", TT_CACHE_PARAMS,
                                     "early_stop_consecutive", NULL};

extern const tt_sampler tt_sampler_dream;
const tt_sampler tt_sampler_dream = {
    .name = "dream",
    .summary = "commit by a time schedule, ordered by confidence, margin or entropy, or by chance",
    .source = "Dream 7B, arXiv 2508.15487, released diffusion_generate()",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_FREE,
    .state_size = sizeof(state),
    .params = params,
    .open = dr_open,
    .plan = dr_plan,
    .apply = dr_apply,
};
