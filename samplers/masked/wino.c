/* wino.c - WINO, "Wide-In, Narrow-Out" (arXiv 2507.18578, released code): commit generously, take
 * back what the rest of the canvas does not support. A shadow of the block, masks at the same
 * positions that no real column sees, tells how likely each placed token is from everything but
 * itself. A step
 *   commits    open columns more probable than draft_threshold, the best one always; at most 0.7
 *              of the open ones, 5 to 20
 *   takes back if it committed more than one: of the tokens that stood before, those whose
 *              probability under the shadow is below verify_threshold; fewer than the step before
 *              committed, the least likely ones, so that it comes to an end
 * Tokens of the block are final when it is full. */
#include <math.h>

#include "samplers/masked/masked.h"

enum { FIRST_LAST = 30, LEAST = 5, MOST = 20 };

typedef struct {
    tt_blocks blocks;
    int32_t last; /* commits of the step before */
} state;

static tt_status wi_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_blocks_open(q, memory, e);
    if (st)
        return st;
    s->last = FIRST_LAST;
    q->unsettled = q->columns - s->blocks.block.begin;
    return TT_OK;
}

/* Tokens placed in the block so far. */
static bool placed(const tt_seq *q, int32_t c) { return !q->fixed[c] && q->id[c] != q->mask_id; }

static tt_status wi_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    const tt_block *b = &s->blocks.block;
    tt_status st = tt_blocks_plan(q, memory, plan, e);
    if (st)
        return st;
    tt_ask *ask = TT_TAKE(plan->arena, plan->asks + b->end - b->begin, tt_ask);
    if (!ask)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", q->columns);
    for (int32_t i = 0; i < plan->asks; i++)
        ask[i] = plan->ask[i];
    plan->ask = ask;
    for (int32_t c = b->begin; c < b->end; c++) {
        if (!placed(q, c))
            continue;
        tt_draw d = tt_draw_at(q, &s->blocks.rules, c);
        d.temperature = 0;
        d.target = q->id[c];
        plan->ask[plan->asks++] = (tt_ask){.column = q->columns + c - b->begin, .draw = d};
    }
    plan->keep = true;
    plan->shadow_begin = b->begin;
    plan->shadow_end = b->end;
    return TT_OK;
}

static tt_status draft(tt_seq *q, const tt_result *r, int32_t *committed, tt_err *e)
{
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, tt_score_prob, e);
    if (st)
        return st;
    int32_t most = (int32_t)(0.7 * k.n), n = 1;
    most = most < LEAST ? LEAST : most > MOST ? MOST : most;
    while (n < k.n && n < most && k.score[n] > q->params->draft_threshold)
        n++;
    *committed = tt_commit_best(q, r, &k, n);
    return TT_OK;
}

static float doubt(const tt_seq *q, const tt_result *r, int32_t i)
{
    (void)q;
    return -r->stats[i].target_logprob;
}

static tt_status verify(tt_seq *q, const state *s, const tt_result *shadow, tt_err *e)
{
    tt_ranking k;
    tt_status st = tt_rank(&k, q, shadow, doubt, e);
    if (st)
        return st;
    int32_t n = 0;
    while (n < k.n && exp(-(double)k.score[n]) < q->params->verify_threshold)
        n++;
    n = n < s->last ? n : s->last - 1;
    for (int32_t i = 0; i < n; i++)
        tt_seq_remask(q, shadow->plan->ask[k.order[i]].column - q->columns +
                             s->blocks.block.begin);
    return TT_OK;
}

static tt_status wi_apply(tt_seq *q, void *memory, const tt_result *all, bool *done, tt_err *e)
{
    state *s = memory;
    tt_plan real, other = *all->plan;
    tt_result r = tt_blocks_part(&s->blocks, all, &real), shadow = *all;
    other.ask += real.asks;
    other.asks -= real.asks;
    shadow.plan = &other;
    shadow.stats += real.asks;
    int32_t committed = 0;
    tt_status st = draft(q, &r, &committed, e);
    if (!st && committed > 1)
        st = verify(q, s, &shadow, e);
    s->last = committed;
    if (st || tt_count_open(q, s->blocks.block.begin, s->blocks.block.end))
        return st;
    tt_blocks_leave(&s->blocks, q, done);
    s->last = FIRST_LAST;
    q->unsettled = *done ? 0 : q->columns - s->blocks.block.begin;
    return TT_OK;
}

static const char *const params[] = {"temperature", "top_p", "top_k", "min_p", "block_length",
                                     "logits_eos_inf", "confidence_eos_eot_inf", "cache",
                                     "cache_refresh", "early_stop", "draft_threshold",
                                     "verify_threshold", NULL};

extern const tt_sampler tt_sampler_wino;
const tt_sampler tt_sampler_wino = {
    .name = "wino",
    .summary = "commit generously, take back what the other columns do not support",
    .source = "WINO, arXiv 2507.18578, released code",
    .needs = TT_KIND_BIDIRECTIONAL | TT_KIND_SHADOWS,
    .caches = 1 << TT_CACHE_NONE | 1 << TT_CACHE_PREFIX,
    .best_cache = TT_CACHE_PREFIX,
    .revises = true,
    .shadows = true,
    .state_size = sizeof(state),
    .step_column_size = 2 * sizeof(tt_ask) + 64, /* a block asked for, and asked and judged */
    .params = params,
    .open = wi_open,
    .plan = wi_plan,
    .apply = wi_apply,
};
