/* cache.c - which rows a step feeds when keys and values of other columns are kept.
 *
 *   prefix, dual  Fast-dLLM (arXiv 2505.22618): a pass over all columns when a block begins, which
 *                 also counts as its first step; after it only [block, end of canvas) or only the
 *                 block
 *   free          FreeCache (arXiv 2505.21467): one pass over all columns, after it only [block,
 *                 end of canvas); what lies before is never refreshed, so a finished block keeps
 *                 the keys and values of its last step, in which its last commits were still masks
 *
 * In a bidirectional model every cache is an approximation: stale columns were computed when
 * others still were masks. */
#include "samplers/masked/masked.h"

tt_status tt_cache_ask(tt_cache *c, const tt_seq *q, const tt_rules *rules, const tt_block *b,
                       tt_plan *plan, tt_err *e)
{
    tt_cache_kind kind = (tt_cache_kind)q->params->cache;
    bool all = kind == TT_CACHE_NONE || !c->filled ||
               (kind != TT_CACHE_FREE && c->fresh_block != b->begin + 1);
    /* Masks left of the block can only be filled by a step that feeds them. */
    bool left = all && kind != TT_CACHE_FREE;
    tt_status s = tt_ask_open(q, rules, left ? 0 : b->begin, b->end, plan, e);
    if (s || kind == TT_CACHE_NONE)
        return s;
    plan->keep = true;
    if (!all) {
        /* FreeCache also refreshes the column whose row predicts the block's first one. */
        int32_t left_rows = kind == TT_CACHE_FREE ? q->row_shift : 0;
        plan->row_begin = b->begin > left_rows ? b->begin - left_rows : 0;
        plan->row_end = kind == TT_CACHE_DUAL ? b->end : q->columns;
    }
    c->filled = true;
    c->fresh_block = b->begin + 1;
    return TT_OK;
}
