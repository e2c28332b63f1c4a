/* hierarchy.c - dInfer's hierarchical decoder (arXiv 2510.08666, released code): every run of open
 * columns is cut by its own best token, so that few columns stay whose neighbours are both open.
 * A step commits
 *   the best token of every maximal run of open columns, if more probable than low_threshold
 *   every token more probable than threshold
 *   the best token of the block */
#include "samplers/masked/masked.h"

/* Ask with the best token of asks [from, to). */
static int32_t best_of(const tt_result *r, int32_t from, int32_t to)
{
    int32_t best = from;
    for (int32_t i = from + 1; i < to; i++)
        if (r->stats[i].prob > r->stats[best].prob)
            best = i;
    return best;
}

static int32_t run_end(const tt_result *r, int32_t from)
{
    int32_t i = from + 1;
    while (i < r->plan->asks && r->plan->ask[i].column == r->plan->ask[i - 1].column + 1)
        i++;
    return i;
}

static tt_status hr_apply(tt_seq *q, void *memory, const tt_result *all, bool *done, tt_err *e)
{
    (void)e;
    tt_blocks *b = memory;
    tt_plan part;
    tt_result r = tt_blocks_part(b, all, &part);
    int32_t best = best_of(&r, 0, part.asks);
    for (int32_t i = 0, to; i < part.asks; i = to) {
        to = run_end(&r, i);
        int32_t own = best_of(&r, i, to);
        for (int32_t k = i; k < to; k++) {
            double p = r.stats[k].prob;
            if (k == best || p > b->threshold || (k == own && p > q->params->low_threshold))
                tt_seq_commit(q, &r, k);
        }
    }
    tt_blocks_next(b, q, done);
    return TT_OK;
}

static const char *const params[] = {TT_BLOCKS_PARAMS, TT_SMOOTHING_PARAMS, "threshold",
                                     "low_threshold", NULL};

extern const tt_sampler tt_sampler_hierarchy;
const tt_sampler tt_sampler_hierarchy = {
    .name = "hierarchy",
    .summary = "commit what is sure, and the best of every run of open columns, block by block",
    .source = "dInfer, arXiv 2510.08666, released hierarchical decoder",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(tt_blocks),
    .params = params,
    .open = tt_blocks_open,
    .plan = tt_blocks_plan,
    .apply = hr_apply,
};
