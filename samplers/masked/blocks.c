/* blocks.c - what all samplers do that commit block by block: find the block, plan its step
 * through the cache, smooth, move on.
 *
 * Smoothing (iteration smoothing of dInfer, arXiv 2510.08666): an open column is fed the mask's
 * embedding plus w times the embedding that its last distribution expects. w is of the step that
 * left the distribution; it grows from step to step, while the threshold falls from 1. */
#include <math.h>
#include <string.h>

#include "samplers/masked/masked.h"

static tt_status check_smoothing(const tt_seq *q, tt_cache_kind cache, tt_err *e)
{
    if (tt_sampler_memo(q->sampler, q->params) != TT_MEMO_MEAN) {
        static const char *const idle[] = {"smoothing_start", "smoothing_growth",
                                           "threshold_decay"};
        for (int i = 0; i < 3; i++)
            if (tt_params_given(q->params, idle[i]))
                return tt_fail_param(e, idle[i], "unsupported_value",
                                     "'%s' needs 'smoothing' above 0", idle[i]);
        return TT_OK;
    }
    if (!(q->kinds & TT_KIND_MEMO))
        return tt_fail_param(e, "smoothing", "unsupported_value",
                             "the model cannot mix embeddings");
    if (q->params->cfg_scale > 0)
        return tt_fail_param(e, "smoothing", "unsupported_value",
                             "'smoothing' does not go with 'cfg_scale'");
    if (cache == TT_CACHE_DKV || cache == TT_CACHE_FREE)
        return tt_fail_param(e, "smoothing", "unsupported_value",
                             "'smoothing' does not go with cache '%s'", tt_cache_names[cache]);
    return TT_OK;
}

tt_status tt_blocks_open(tt_seq *q, void *blocks, tt_err *e)
{
    tt_blocks *b = blocks;
    tt_status s = tt_rules_begin(&b->rules, q, e);
    if (!s)
        s = tt_cache_begin(&b->cache, q, e);
    if (!s)
        s = check_smoothing(q, b->cache.kind, e);
    if (s)
        return s;
    if (q->params->early_stop && q->eos_id < 0)
        return tt_fail_param(e, "early_stop", "unsupported_parameter",
                             "the model has no end token");
    if (!tt_block_find(q, 0, &b->block))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    b->smooths = tt_sampler_memo(q->sampler, q->params) == TT_MEMO_MEAN;
    b->weight = b->smooths ? TT_TAKE(q->arena, q->columns, float) : NULL;
    if (b->smooths && !b->weight)
        return tt_fail(e, TT_ENOMEM, "no memory for %d columns", q->columns);
    for (int32_t c = 0; b->smooths && c < q->columns; c++)
        b->weight[c] = 0;
    q->expected = tt_count_open(q, q->prompt, q->columns);
    return TT_OK;
}

/* Feeds what earlier passes left; w of this pass goes with the embeddings it leaves. */
static tt_status smooth(tt_blocks *b, const tt_seq *q, tt_plan *plan, tt_err *e)
{
    const tt_params *p = q->params;
    int32_t now = b->cache.now;
    float w = (float)fmin(p->smoothing, p->smoothing_start + p->smoothing_growth * now);
    float *mix = TT_TAKE(plan->arena, q->columns, float);
    if (!mix)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", q->columns);
    memcpy(mix, b->weight, (size_t)q->columns * sizeof *mix);
    for (int32_t i = 0; i < plan->asks; i++)
        b->weight[plan->ask[i].column] = w;
    plan->mix = mix;
    plan->memo = TT_MEMO_MEAN;
    b->threshold = fmax(1 - p->threshold_decay * now, p->threshold);
    return TT_OK;
}

tt_status tt_blocks_plan(tt_seq *q, void *blocks, tt_plan *plan, tt_err *e)
{
    tt_blocks *b = blocks;
    const tt_params *p = q->params;
    int32_t reach = b->smooths ? q->columns : b->reach;
    tt_status s = tt_cache_ask(&b->cache, q, &b->rules, &b->block, reach, plan, e);
    b->threshold = p->threshold;
    plan->memos = plan->asks;
    if (!b->smooths)
        return s;
    return s ? s : smooth(b, q, plan, e);
}

tt_result tt_blocks_part(const tt_blocks *b, const tt_result *r, tt_plan *part)
{
    tt_result in = *r;
    *part = *r->plan;
    in.plan = part;
    part->asks = 0;
    while (part->asks < r->plan->asks && r->plan->ask[part->asks].column < b->block.end)
        part->asks++;
    return in;
}

static bool holds_end(const tt_seq *q, const tt_block *b)
{
    for (int32_t c = b->begin; c < b->end; c++)
        if (!q->fixed[c] && q->id[c] == q->eos_id)
            return true;
    return false;
}

void tt_fill_with_end(tt_seq *q, int32_t from)
{
    for (int32_t c = from; c < q->columns; c++)
        if (tt_seq_open_at(q, c))
            tt_seq_put(q, c, q->eos_id, 0, NULL);
}

void tt_blocks_leave(tt_blocks *b, tt_seq *q, bool *done)
{
    if (q->params->early_stop && holds_end(q, &b->block))
        tt_fill_with_end(q, b->block.end);
    *done = !tt_block_find(q, b->block.end, &b->block);
}

void tt_blocks_next(tt_blocks *b, tt_seq *q, bool *done)
{
    if (!tt_count_open(q, b->block.begin, b->block.end))
        tt_blocks_leave(b, q, done);
}
