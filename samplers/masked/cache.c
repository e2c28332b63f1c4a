/* cache.c - which rows a step feeds when keys and values of other columns are kept.
 *
 *   prefix, dual  Fast-dLLM (arXiv 2505.22618): a pass over all columns when a block begins, which
 *                 also counts as its first step; after it only [block, end of canvas) or only the
 *                 block. With cache_refresh also every so many steps, as in dInfer (arXiv
 *                 2510.08666), whose decoder likewise runs on either pass
 *   free          FreeCache (arXiv 2505.21467): one pass over all columns, after it only [block,
 *                 end of canvas); what lies before is never refreshed, so a finished block keeps
 *                 the keys and values of its last step, in which its last commits were still masks
 *   dkv           dKV-Cache-Decode (arXiv 2505.15781): a token's keys and values are kept from the
 *                 step after its commit on. The first two steps of a block and every
 *                 cache_refresh-th feed all columns, the others the open ones and the last commits
 *   vicinity      dInfer: steps without a store first, then a pass over all columns when a block
 *                 begins and otherwise the block with some columns on both sides
 *
 * In a bidirectional model every cache is an approximation: stale columns were computed when
 * others still were masks. */
#include "samplers/masked/masked.h"

enum { DKV_REFRESH = 8 };

static tt_status only_with(const tt_seq *q, const char *param, bool fits, const char *caches,
                           tt_err *e)
{
    if (fits || !tt_params_given(q->params, param))
        return TT_OK;
    return tt_fail_param(e, param, "unsupported_value", "'%s' needs 'cache' to be %s", param,
                         caches);
}

tt_status tt_cache_begin(tt_cache *c, const tt_seq *q, tt_err *e)
{
    tt_status s = tt_sampler_check(q->sampler, q->params, e);
    c->kind = tt_sampler_cache(q->sampler, q->params);
    bool near = c->kind == TT_CACHE_VICINITY;
    bool again = c->kind == TT_CACHE_PREFIX || c->kind == TT_CACHE_DUAL || c->kind == TT_CACHE_DKV;
    if (!s)
        s = only_with(q, "cache_refresh", again, "prefix, dual or dkv", e);
    static const char *const sides[] = {"cache_before", "cache_after", "cache_warmup"};
    for (int i = 0; i < 3 && !s; i++)
        s = only_with(q, sides[i], near, "vicinity", e);
    return s;
}

/* Whether the step feeds all columns. `turn` counts dInfer's iterations: a pass over all columns
 * and the pass over the block after it are one, but with smoothing or vicinity two. */
static bool refresh_dual(tt_cache *c, const tt_seq *q, int32_t block)
{
    bool doubled = tt_sampler_memo(q->sampler, q->params) == TT_MEMO_MEAN;
    int32_t again = q->params->cache_refresh;
    bool all = !c->half && (c->fresh_block != block || (again && c->turn % again == 0));
    c->turn += !all || doubled;
    c->half = all;
    c->fresh_block = block;
    return all;
}

/* The first fill is not remembered as the block's, so that a warm-up longer than the first block
 * is followed by one more. */
static bool refresh_vicinity(tt_cache *c, const tt_block *b, int32_t block)
{
    bool stale = b->begin != c->first && c->fresh_block != block;
    bool all = !c->half && (!c->filled || stale);
    if (all && c->filled)
        c->fresh_block = block;
    c->turn++;
    c->half = all;
    return all;
}

static bool refresh_dkv(tt_cache *c, const tt_seq *q, int32_t block)
{
    int32_t every = q->params->cache_refresh ? q->params->cache_refresh : DKV_REFRESH;
    c->turn = c->block == block ? c->turn + 1 : 0;
    return c->turn < 2 || c->turn % every == 0;
}

/* The columns that dkv feeds, in a list: open ones, with those whose rows predict them, and what
 * the step before committed. */
static tt_status feed_unsettled(const tt_seq *q, tt_plan *plan, tt_err *e)
{
    int32_t *list = TT_TAKE(plan->arena, q->columns, int32_t), n = 0;
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", q->columns);
    for (int32_t c = 0; c < q->columns; c++) {
        int32_t next = c + q->row_shift;
        bool predicts = next < q->columns && tt_seq_open_at(q, next);
        if (predicts || tt_seq_open_at(q, c) || (q->step_of[c] && q->step_of[c] == q->step))
            list[n++] = c;
    }
    plan->feed = list;
    plan->feeds = n;
    return TT_OK;
}

static void feed_part(const tt_cache *c, const tt_seq *q, const tt_block *b, tt_plan *plan)
{
    /* FreeCache also refreshes the column whose row predicts the block's first one. */
    int32_t left = c->kind == TT_CACHE_VICINITY ? q->params->cache_before
                   : c->kind == TT_CACHE_FREE   ? q->row_shift
                                                : 0;
    int32_t right = c->kind == TT_CACHE_VICINITY ? q->params->cache_after
                    : c->kind == TT_CACHE_DUAL   ? 0
                                                 : q->columns;
    plan->row_begin = b->begin > left ? b->begin - left : 0;
    plan->row_end = right < q->columns - b->end ? b->end + right : q->columns;
}

static bool refresh(tt_cache *c, const tt_seq *q, const tt_block *b, int32_t block)
{
    switch (c->kind) {
    case TT_CACHE_FREE:
        return !c->filled;
    case TT_CACHE_DKV:
        return refresh_dkv(c, q, block);
    case TT_CACHE_VICINITY:
        return refresh_vicinity(c, b, block);
    default:
        return refresh_dual(c, q, block);
    }
}

tt_status tt_cache_ask(tt_cache *c, const tt_seq *q, const tt_rules *rules, const tt_block *b,
                       int32_t reach, tt_plan *plan, tt_err *e)
{
    int32_t block = b->begin + 1;
    c->first = c->block ? c->first : b->begin;
    if (c->half && c->block != block) { /* the block was full before its second pass */
        c->half = false;
        c->turn++;
    }
    c->now = c->turn;
    bool store = c->kind != TT_CACHE_NONE &&
                 (c->kind != TT_CACHE_VICINITY || c->turn >= q->params->cache_warmup);
    bool all = true;
    if (store)
        all = refresh(c, q, b, block);
    else
        c->turn++;
    c->block = block;
    /* Masks left of the block can only be filled by a step that feeds them. */
    bool left = all && c->kind != TT_CACHE_FREE;
    tt_plan part = {.row_end = q->columns};
    if (!all)
        feed_part(c, q, b, &part);
    int32_t end = reach < part.row_end - b->end ? b->end + reach : part.row_end;
    tt_status s = tt_ask_open(q, rules, left ? 0 : b->begin, end < b->end ? b->end : end, plan, e);
    if (s || !store)
        return s;
    plan->keep = true;
    c->filled = true;
    if (!all && c->kind == TT_CACHE_DKV)
        return feed_unsettled(q, plan, e);
    plan->row_begin = part.row_begin;
    plan->row_end = part.row_end;
    return TT_OK;
}
