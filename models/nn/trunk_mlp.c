/* trunk_mlp.c - the second half of a layer: a gated or plain MLP, a mixture of experts, or experts
 * beside an MLP that every row goes through. */
#include "models/nn/trunk_run.h"

/* Hidden units of n rows: silu(gate h) * up h, or gelu(up h) or relu(up h) of ungated bodies. */
static tt_status hidden_units(tt_trunk *t, const tt_trunk_layer *l, const tt_trunk_space *v,
                              const tt_act *h, int64_t n, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, ff = l->ff;
    if (t->ungated) {
        tt_status st = s->op.linear(s, v->mlp, ff, h, d, n, l->gate_up, false, e);
        if (!st && t->relu)
            return s->op.unit(s, v->mlp, ff, v->mlp, ff, n, ff, TT_UNIT_RELU, e);
        return st ? st : s->op.gelu(s, v->mlp, ff, v->mlp, ff, n, ff, e);
    }
    if (s->op.glu)
        return s->op.glu(s, v->mlp, ff, h, d, n, l->gate_up, e);
    tt_status st = s->op.linear(s, v->mlp, 2 * ff, h, d, n, l->gate_up, false, e);
    const tt_act *up = tt_trunk_at(t, v->mlp, ff);
    return st ? st : s->op.swiglu(s, v->mlp, 2 * ff, v->mlp, up, 2 * ff, n, ff, e);
}

static tt_status dense(tt_trunk *t, int64_t layer, const tt_trunk_rows *rows,
                       const tt_trunk_space *v, tt_err *e)
{
    const tt_trunk_layer *l = &t->layer[layer];
    bool narrow = t->ungated || t->stream->op.glu;
    int64_t d = t->width, chunk = t->stream->op.glu ? TT_GLU_CHUNK : TT_MLP_CHUNK;
    for (int64_t r = 0; r < rows->rows; r += chunk) {
        int64_t n = rows->rows - r < chunk ? rows->rows - r : chunk;
        tt_act *h = tt_trunk_at(t, v->h, r * d);
        tt_status st = hidden_units(t, l, v, h, n, e);
        if (!st)
            st = tt_trunk_add_product(t, v, tt_trunk_at(t, rows->x, r * d), v->mlp,
                                      narrow ? l->ff : 2 * l->ff, n, l->down, h,
                                      rows->mod ? rows->mod + r : NULL, tt_trunk_slot(layer, 1), e);
        if (st)
            return st;
    }
    return TT_OK;
}

/* Every row's pairs with its experts are sorted by expert, so that each expert's matrices are read
 * once for all rows of the chunk, whichever sequences they belong to. */
static tt_status experts(tt_trunk *t, const tt_trunk_layer *l, const tt_trunk_rows *rows,
                         const tt_trunk_space *v, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, ff = t->expert_ff, k = t->router.top_k, groups = t->router.experts;
    tt_router how = t->router;
    how.bias = l->router_bias;
    for (int64_t r = 0; r < rows->rows; r += TT_EXPERT_CHUNK) {
        int64_t n = rows->rows - r < TT_EXPERT_CHUNK ? rows->rows - r : TT_EXPERT_CHUNK;
        const tt_act *h = tt_trunk_at(t, v->h, r * d);
        tt_status st = s->op.route(s, v->pair_weight, v->pair_place, v->pair_row, v->expert_begin,
                                   h, d, n, l->router, &how, e);
        if (!st)
            st = s->op.gather(s, v->pair_x, d, h, d, v->pair_row, n * k, d, e);
        if (!st)
            st = s->op.linear_grouped(s, v->pair_y, 2 * ff, v->pair_x, d, n * k,
                                      (const tt_matrix *const *)l->expert_gate_up, groups,
                                      v->expert_begin, e);
        if (!st)
            st = s->op.swiglu(s, v->pair_y, 2 * ff, v->pair_y, tt_trunk_at(t, v->pair_y, ff),
                              2 * ff, n * k, ff, e);
        if (!st)
            st = s->op.linear_grouped(s, v->pair_x, d, v->pair_y, 2 * ff, n * k,
                                      (const tt_matrix *const *)l->expert_down, groups,
                                      v->expert_begin, e);
        if (!st)
            st = s->op.combine(s, tt_trunk_at(t, rows->x, r * d), d, v->pair_x, d, v->pair_weight,
                               v->pair_place, n, k, d, e);
        if (st)
            return st;
    }
    return TT_OK;
}

tt_status tt_trunk_mlp(tt_trunk *t, int64_t layer, const tt_trunk_rows *rows,
                       const tt_trunk_space *v, tt_err *e)
{
    const tt_trunk_layer *l = &t->layer[layer];
    tt_status st = l->ff ? dense(t, layer, rows, v, e) : TT_OK;
    return st || !l->routed ? st : experts(t, l, rows, v, e);
}
