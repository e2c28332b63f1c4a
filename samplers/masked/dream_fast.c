/* dream_fast.c - Fast-dLLM's decoding of Dream (arXiv 2505.22618, released code), three rules:
 *
 *   no cache       a budget: a step considers its share of the columns plus what earlier steps
 *                  carried over, commits the best and all at least `threshold` probable; what the
 *                  last step leaves is carried on, one more step each time
 *   prefix, dual   block by block: the full pass at a block's start commits its first column
 *                  alone, whatever its probability; then the best and all at least `threshold`
 *   ... with remask = entropy: the number comes from Dream's time schedule over the block's steps,
 *                  whose first entry the block's start uses up */
#include "samplers/masked/masked.h"

typedef struct {
    tt_rules rules;
    tt_cache cache;
    tt_block block;
    int32_t steps; /* in all without a cache, per block with one */
    int32_t i;     /* of the block */
    int32_t rate, carry;
} state;

static tt_status df_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (!st)
        st = tt_cache_begin(&s->cache, q, e);
    if (st)
        return st;
    if (!tt_block_find(q, 0, &s->block))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    int32_t open = tt_count_open(q, 0, q->columns), blocks = tt_block_count(q);
    bool cached = s->cache.kind != TT_CACHE_NONE;
    if (q->params->remask != TT_REMASK_CONFIDENCE && q->params->remask != TT_REMASK_ENTROPY)
        return tt_fail_param(e, "remask", "unsupported_value",
                             "sampler 'dream_fast' has 'confidence' and 'entropy'");
    s->steps = q->params->steps ? q->params->steps : open;
    q->expected = s->steps;
    if (!cached) {
        s->block = (tt_block){0, q->columns};
        s->rate = open / s->steps;
        if (s->rate * s->steps != open)
            return tt_fail_param(e, "steps", "invalid_value",
                                 "'steps' is %d and must divide the %d columns to fill", s->steps,
                                 open);
        return TT_OK;
    }
    s->steps /= blocks;
    if (s->steps < 2)
        return tt_fail_param(e, "steps", "invalid_value",
                             "'steps' is %d; %d blocks need at least two each", s->steps, blocks);
    return TT_OK;
}

static tt_status df_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_cache_ask(&s->cache, q, &s->rules, &s->block, 0, plan, e);
    for (int32_t i = 0; i < plan->asks && !st; i++)
        plan->ask[i].draw.confidence_of_kept = true;
    if (!st && s->cache.kind != TT_CACHE_NONE && s->i == 0)
        plan->asks = 1; /* the block's first open column */
    return st;
}

/* How many of the confidences, sorted descending, are committed. */
static int32_t budget_count(state *s, const float *c, int32_t n, float threshold)
{
    int32_t most = s->rate * (s->i < s->steps) + s->carry, k = 1;
    most = most < 1 ? 1 : most < n ? most : n;
    while (k < most && c[k] >= threshold)
        k++;
    s->carry = most - k;
    return k;
}

static int32_t block_count(const tt_seq *q, const state *s, const float *c, int32_t n)
{
    if (s->i == 0)
        return 1;
    if (q->params->remask == TT_REMASK_ENTROPY) {
        float eps = (float)q->params->eps;
        if (s->i >= s->steps - 1)
            return n;
        float share = tt_time_share(eps, s->steps, s->i);
        return (int32_t)((float)n * share);
    }
    int32_t k = 1;
    while (k < n && c[k] >= (float)q->params->threshold)
        k++;
    return k;
}

static tt_status df_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, tt_confidence, e);
    if (st)
        return st;
    tt_commit_best(q, r, &k, s->cache.kind ? block_count(q, s, k.score, k.n)
                                           : budget_count(s, k.score, k.n,
                                                          (float)q->params->threshold));
    s->i++;
    if (tt_count_open(q, s->block.begin, s->block.end))
        return TT_OK;
    *done = !tt_block_find(q, s->block.end, &s->block);
    s->i = 0;
    return TT_OK;
}

static const char *const params[] = {TT_MASKED_PARAMS, "steps", "threshold", "remask", "eps",
                                     "cache", NULL};

extern const tt_sampler tt_sampler_dream_fast;
const tt_sampler tt_sampler_dream_fast = {
    .name = "dream_fast",
    .summary = "Dream's tokens by threshold under a budget, or block by block with a cache",
    .source = "Fast-dLLM, arXiv 2505.22618, released code for Dream",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = 1 << TT_CACHE_NONE | 1 << TT_CACHE_PREFIX | 1 << TT_CACHE_DUAL,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(state),
    .params = params,
    .open = df_open,
    .plan = df_plan,
    .apply = df_apply,
};
