/* low_confidence.c - LLaDA's sampler: block by block, a fixed number of commits per step, the
 * most confident columns first ("low-confidence remasking").
 *
 * Upstream lets masks left of the block (inside the prompt) compete for the block's quota; so do
 * we, although the server never makes such a canvas: it sends infilling with prompt = 0. */
#include "samplers/masked/masked.h"

typedef struct {
    tt_rules rules;
    tt_cache cache;
    tt_block block;
    int32_t steps_left;   /* of the block */
    int32_t extra;        /* steps that still get one more */
    int32_t share;        /* commits of every step */
    int32_t total_open;   /* at the start, right of the prompt */
    int32_t total_steps;
} state;

/* Starts the block found by tt_block_find: its part of the steps, spread evenly, the remainder on
 * the first ones. */
static void begin_block(const tt_seq *q, state *s)
{
    int32_t open = tt_count_open(q, s->block.begin, s->block.end);
    int64_t steps = ((int64_t)s->total_steps * open + s->total_open / 2) / s->total_open;
    s->steps_left = steps < 1 ? 1 : (int32_t)steps;
    s->share = open / s->steps_left;
    s->extra = open % s->steps_left;
}

static tt_status lc_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (!st)
        st = tt_no_origin(q, e);
    if (st)
        return st;
    if (!tt_block_find(q, 0, &s->block))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    s->total_open = tt_count_open(q, q->prompt, q->columns);
    /* A step that commits nothing would change nothing: more steps than columns are left out. */
    bool fewer = q->params->steps && q->params->steps < s->total_open;
    s->total_steps = fewer ? q->params->steps : s->total_open;
    int32_t blocks = tt_block_count(q);
    if (s->total_steps < blocks)
        return tt_fail_param(e, "steps", "invalid_value",
                             "'steps' is %d, but the canvas has %d blocks of %d columns",
                             s->total_steps, blocks, tt_block_length(q));
    begin_block(q, s);
    q->expected = s->total_steps;
    return TT_OK;
}

static tt_status lc_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    return tt_cache_ask(&s->cache, q, &s->rules, &s->block, plan, e);
}

static tt_status lc_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    int32_t asks = r->plan->asks, quota = s->share + (s->extra > 0);
    float *score = TT_TAKE(r->plan->arena, asks, float);
    int32_t *order = TT_TAKE(r->plan->arena, asks, int32_t);
    if (!score || !order)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", asks);
    for (int32_t i = 0; i < asks; i++)
        score[i] = tt_confidence(q, r, i);
    tt_status st = tt_order_asks(r, score, order, e);
    for (int32_t i = 0; i < quota && i < asks && !st; i++)
        tt_seq_commit(q, r, order[i]);
    s->extra -= s->extra > 0;
    /* Something else may have filled the block before its steps are used up. */
    if (--s->steps_left > 0 && tt_count_open(q, 0, s->block.end))
        return st;
    *done = !tt_block_find(q, s->block.end, &s->block);
    if (!*done)
        begin_block(q, s);
    return st;
}

static const char *const params[] = {TT_MASKED_PARAMS, "steps", "remask", "cache", NULL};

extern const tt_sampler tt_sampler_low_confidence;
const tt_sampler tt_sampler_low_confidence = {
    .name = "low_confidence",
    .summary = "commit a fixed number of the most confident tokens per step, block by block",
    .source = "LLaDA, arXiv 2502.09992, released generate()",
    .needs = TT_KIND_BIDIRECTIONAL,
    .state_size = sizeof(state),
    .params = params,
    .open = lc_open,
    .plan = lc_plan,
    .apply = lc_apply,
};
