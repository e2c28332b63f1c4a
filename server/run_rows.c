/* run_rows.c - see run_rows.h. */
#include "server/run_rows.h"

int64_t tt_run_real_rows(const tt_plan *p)
{
    return p->token ? p->tokens : p->feed ? p->feeds : p->row_end - p->row_begin;
}

int32_t tt_run_fed_column(const tt_plan *p, int64_t i)
{
    return p->feed ? p->feed[i] : p->row_begin + (int32_t)i;
}

int64_t tt_run_place_of(const tt_plan *p, int32_t column)
{
    if (!p->feed || p->token)
        return column - p->row_begin;
    int32_t low = 0, high = p->feeds - 1;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (p->feed[middle] < column)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t tt_run_source_column(const tt_run *r, const tt_ask *a)
{
    bool causal = tt_run_model(r)->info.kinds & TT_KIND_CAUSAL;
    int32_t shift = a->own_row ? 0 : causal ? 1 : r->seq.row_shift;
    return a->column >= shift ? a->column - shift : a->column;
}

bool tt_run_is_shadow(const tt_run *r, const tt_ask *a)
{
    return r->plan.shadow_begin < r->plan.shadow_end && a->column >= r->seq.columns;
}

/* --- the twin of guidance: the same columns after another prompt --- */

int32_t tt_run_twin_column(const tt_run *r, int32_t column)
{
    if (!r->negatives || column <= 0)
        return column;
    int32_t c = column - r->seq.prompt + r->negatives;
    return c > 0 ? c : 0;
}

int64_t tt_run_twin_leaves_out(const tt_run *r)
{
    int64_t n = 0;
    while (r->negatives && n < r->plan.feeds && r->plan.feed[n] < r->seq.prompt - r->negatives)
        n++;
    return n;
}

int64_t tt_run_twin_rows(const tt_run *r)
{
    const tt_plan *p = &r->plan;
    return p->feed ? p->feeds - tt_run_twin_leaves_out(r)
                   : tt_run_twin_column(r, p->row_end) - tt_run_twin_column(r, p->row_begin);
}

tt_kv **tt_run_store(tt_run *r, bool twin) { return &r->kv[r->plan.guide ? 2 : twin]; }

/* --- where a pass has them --- */

/* All but the shadows. */
static int64_t fed_rows(const tt_run *r)
{
    return tt_run_real_rows(&r->plan) + (r->plan.cfg_scale > 0 ? tt_run_twin_rows(r) : 0);
}

int64_t tt_run_rows(const tt_run *r)
{
    return fed_rows(r) + r->plan.shadow_end - r->plan.shadow_begin;
}

int64_t tt_run_row_of(const tt_run *r, const tt_ask *a)
{
    const tt_plan *p = &r->plan;
    if (tt_run_is_shadow(r, a))
        return r->row + fed_rows(r) + a->column - r->seq.columns;
    return r->row + tt_run_place_of(p, tt_run_source_column(r, a));
}

int64_t tt_run_twin_row_of(const tt_run *r, const tt_ask *a)
{
    const tt_plan *p = &r->plan;
    int32_t c = tt_run_source_column(r, a);
    int64_t at = p->feed ? tt_run_place_of(p, c) - tt_run_twin_leaves_out(r)
                         : tt_run_twin_column(r, c) - tt_run_twin_column(r, p->row_begin);
    return r->twin_row + (at > 0 ? at : 0);
}
