/* threshold.c - Fast-dLLM's parallel decoding (arXiv 2505.22618), also the first of dInfer's
 * decoders (arXiv 2510.08666): each step commits every token that is sure enough, so easy text
 * takes few steps. Two rules:
 *   threshold: probability >= threshold, the best one always
 *   factor:    the n best while (n + 1) (1 - probability of the n-th) < factor, at least one */
#include "samplers/masked/masked.h"

/* How many of the confidences, sorted descending, pass the factor rule. The released code stops
 * at the first n with c_n < 1 - factor / (n + 1), n >= 2, but takes the last index for "none
 * failed": when only the last one fails, it is committed too. */
static int32_t factor_count(const tt_params *p, const float *c, int32_t n)
{
    double factor = p->factor;
    if (p->factor_compat) {
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

static tt_status threshold_apply(tt_seq *q, void *memory, const tt_result *all, bool *done,
                                 tt_err *e)
{
    tt_blocks *b = memory;
    tt_plan part;
    tt_result r = tt_blocks_part(b, all, &part);
    tt_ranking k;
    tt_status st = tt_rank(&k, q, &r, tt_score_prob, e);
    if (st)
        return st;
    tt_commit_best(q, &r, &k, tt_threshold_count(&k, b->threshold));
    tt_blocks_next(b, q, done);
    return TT_OK;
}

static tt_status factor_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, tt_score_prob, e);
    if (st)
        return st;
    tt_commit_best(q, r, &k, factor_count(q->params, k.score, k.n));
    tt_blocks_next(memory, q, done);
    return TT_OK;
}

static const char *const threshold_params[] = {TT_BLOCKS_PARAMS, TT_SMOOTHING_PARAMS, "threshold",
                                               NULL};
static const char *const factor_params[] = {TT_BLOCKS_PARAMS, "factor", "factor_compat", NULL};

extern const tt_sampler tt_sampler_threshold, tt_sampler_factor;
const tt_sampler tt_sampler_threshold = {
    .name = "threshold",
    .summary = "commit every token at least this probable, block by block",
    .source = "Fast-dLLM, arXiv 2505.22618, and dInfer, arXiv 2510.08666, released code",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(tt_blocks),
    .params = threshold_params,
    .open = tt_blocks_open,
    .plan = tt_blocks_plan,
    .apply = threshold_apply,
};
const tt_sampler tt_sampler_factor = {
    .name = "factor",
    .summary = "commit as many tokens as their joint certainty allows, block by block",
    .source = "Fast-dLLM, arXiv 2505.22618 (factor_compat: released code)",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(tt_blocks),
    .params = factor_params,
    .open = tt_blocks_open,
    .plan = tt_blocks_plan,
    .apply = factor_apply,
};
