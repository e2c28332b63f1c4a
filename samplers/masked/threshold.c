/* threshold.c - Fast-dLLM's parallel decoding (arXiv 2505.22618): each step
 * commits every token that is sure enough, so easy text takes few steps. Two rules:
 *   threshold: probability >= threshold, the best one always
 *   factor:    the n best while (n + 1) (1 - probability of the n-th) < factor, at least one */
#include "samplers/masked/masked.h"

typedef struct {
    tt_rules rules;
    tt_cache cache;
    tt_block block;
} state;

static tt_status th_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (st)
        return st;
    if (!tt_block_find(q, 0, &s->block))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    q->expected = tt_count_open(q, q->prompt, q->columns);
    return TT_OK;
}

static tt_status th_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    return tt_cache_ask(&s->cache, q, &s->rules, &s->block, plan, e);
}

/* How many of the confidences, sorted descending, pass the factor rule. The released code stops
 * at the first n with c_n < 1 - factor / (n + 1), n >= 2, but takes the last index for "none
 * failed": when only the last one fails, it is committed too. */
static int32_t factor_count(const tt_seq *q, const float *c, int32_t n)
{
    double factor = q->params->factor;
    if (q->params->factor_compat) {
        int32_t k = 2;
        while (k <= n && !(c[k - 1] < 1 - factor / (k + 1)))
            k++;
        return k >= n ? n : k - 1;
    }
    int32_t best = 1;
    for (int32_t k = 1; k <= n; k++)
        if ((k + 1) * (1 - (double)c[k - 1]) < factor)
            best = k;
    return best;
}

static int32_t threshold_count(const tt_seq *q, const float *c, int32_t n)
{
    int32_t k = 1;
    while (k < n && c[k] >= (float)q->params->threshold)
        k++;
    return k;
}

static tt_status commit_sure(tt_seq *q, state *s, const tt_result *r,
                             int32_t (*count)(const tt_seq *, const float *, int32_t), bool *done,
                             tt_err *e)
{
    int32_t asks = r->plan->asks;
    float *score = TT_TAKE(r->plan->arena, asks, float), *sorted = TT_TAKE(r->plan->arena, asks,
                                                                           float);
    int32_t *order = TT_TAKE(r->plan->arena, asks, int32_t);
    if (!score || !sorted || !order)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", asks);
    for (int32_t i = 0; i < asks; i++)
        score[i] = r->stats[i].prob;
    tt_status st = tt_order_asks(r, score, order, e);
    if (st)
        return st;
    for (int32_t i = 0; i < asks; i++)
        sorted[i] = score[order[i]];
    int32_t n = count(q, sorted, asks);
    for (int32_t i = 0; i < n; i++)
        tt_seq_commit(q, r, order[i]);
    *done = !tt_block_find(q, s->block.begin, &s->block);
    return TT_OK;
}

static tt_status threshold_apply(tt_seq *q, void *memory, const tt_result *r, bool *done,
                                 tt_err *e)
{
    return commit_sure(q, memory, r, threshold_count, done, e);
}

static tt_status factor_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    return commit_sure(q, memory, r, factor_count, done, e);
}

static const char *const threshold_params[] = {TT_MASKED_PARAMS, "threshold", "cache", NULL};
static const char *const factor_params[] = {TT_MASKED_PARAMS, "factor", "factor_compat",
                                            "cache", NULL};

extern const tt_sampler tt_sampler_threshold, tt_sampler_factor;
const tt_sampler tt_sampler_threshold = {
    .name = "threshold",
    .summary = "commit every token at least this probable, block by block",
    .source = "Fast-dLLM, arXiv 2505.22618, released code",
    .needs = TT_KIND_BIDIRECTIONAL,
    .state_size = sizeof(state),
    .params = threshold_params,
    .open = th_open,
    .plan = th_plan,
    .apply = threshold_apply,
};
const tt_sampler tt_sampler_factor = {
    .name = "factor",
    .summary = "commit as many tokens as their joint certainty allows, block by block",
    .source = "Fast-dLLM, arXiv 2505.22618 (factor_compat: released code)",
    .needs = TT_KIND_BIDIRECTIONAL,
    .state_size = sizeof(state),
    .params = factor_params,
    .open = th_open,
    .plan = th_plan,
    .apply = factor_apply,
};
