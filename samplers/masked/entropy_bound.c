/* entropy_bound.c - EB-Sampler ("Accelerated Sampling from Masked Diffusion Models via Entropy
 * Bounded Unmasking", arXiv 2505.24857): tokens sampled together are wrong by at most their joint
 * dependence, which is bounded by entropies. Of the columns sorted by rising entropy H the largest
 * k with H_1 + ... + H_k - max(H_1 .. H_k) <= entropy_bound are committed; the first one always
 * fits. */
#include "samplers/masked/masked.h"

static float sureness(const tt_seq *q, const tt_result *r, int32_t i)
{
    (void)q;
    return -r->stats[i].entropy;
}

static tt_status eb_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, sureness, e);
    if (st)
        return st;
    double sum = 0; /* of all but the last, which is the largest */
    int32_t n = 1;
    while (n < k.n && sum - (double)k.score[n - 1] <= q->params->entropy_bound)
        sum -= (double)k.score[n++ - 1];
    tt_commit_best(q, r, &k, n);
    tt_blocks_next(memory, q, done);
    return TT_OK;
}

static const char *const params[] = {TT_BLOCKS_PARAMS, "entropy_bound", NULL};

extern const tt_sampler tt_sampler_entropy_bound;
const tt_sampler tt_sampler_entropy_bound = {
    .name = "entropy_bound",
    .summary = "commit as many tokens as keep the sum of their entropies bounded, block by block",
    .source = "EB-Sampler, arXiv 2505.24857",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(tt_blocks),
    .params = params,
    .open = tt_blocks_open,
    .plan = tt_blocks_plan,
    .apply = eb_apply,
};
