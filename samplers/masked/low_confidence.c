/* low_confidence.c - LLaDA's sampler: block by block, a fixed number of commits per step, the
 * most confident columns first ("low-confidence remasking").
 *
 * Upstream lets masks left of the block (inside the prompt) compete for the block's quota; so do
 * we, although the server never makes such a canvas: it sends infilling with prompt = 0. */
#include "samplers/masked/masked.h"

typedef struct {
    tt_blocks blocks;
    tt_quota quota;
    int32_t total_open; /* at the start, right of the prompt */
    int32_t total_steps;
} state;

/* The block's part of the steps. */
static void begin_block(const tt_seq *q, state *s)
{
    const tt_block *b = &s->blocks.block;
    s->quota = tt_quota_begin(tt_count_open(q, b->begin, b->end), s->total_open, s->total_steps);
}

static tt_status lc_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_blocks_open(q, memory, e);
    if (!st)
        st = tt_no_origin(q, e);
    if (!st)
        st = tt_steps_of(q, &s->total_open, &s->total_steps, e);
    if (st)
        return st;
    begin_block(q, s);
    q->expected = s->total_steps;
    return TT_OK;
}

static tt_status lc_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, tt_confidence, e);
    if (st)
        return st;
    tt_commit_best(q, r, &k, tt_quota_next(&s->quota));
    /* Something else may have filled the block before its steps are used up; under a grammar they
     * may not have been enough. */
    if ((s->quota.steps_left > 0 || q->reach) && tt_count_open(q, 0, s->blocks.block.end))
        return TT_OK;
    tt_blocks_leave(&s->blocks, q, done);
    if (!*done)
        begin_block(q, s);
    return TT_OK;
}

static const char *const params[] = {TT_BLOCKS_PARAMS, "steps", "remask", NULL};

extern const tt_sampler tt_sampler_low_confidence;
const tt_sampler tt_sampler_low_confidence = {
    .name = "low_confidence",
    .summary = "commit a fixed number of the most confident tokens per step, block by block",
    .source = "LLaDA, arXiv 2502.09992, released generate()",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(state),
    .params = params,
    .open = lc_open,
    .plan = tt_blocks_plan,
    .apply = lc_apply,
};
