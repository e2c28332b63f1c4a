/* extend.c - orders to extend, as a search over images carries them out.
 *
 * Where candidates of one parent differ in the last step alone, the steps before it are made once
 * (trunks), then the last one for each (rows). Of models that give one token at a time that step is
 * one token, drawn for all of them without replacement: they share the number that the eldest's
 * random numbers come from. Tokens of a uniform draw need no generator, so no piece. */
#include <math.h>
#include <stdlib.h>

#include "server/search/parts.h"

/* One step of a uniform draw. stats: room for every token. */
static tt_status draw_step(tt_picture_run *r, uint32_t sample, tt_row_stats *stats, tt_err *e)
{
    tt_image_seq *q = &r->seq;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_image_plan){.arena = &r->step};
    tt_status st = tt_image_plan_step(q, &r->plan, e);
    for (int32_t i = 0; i < r->plan.wants && !st; i++) {
        tt_rng_address a = {q->seed, sample, (uint32_t)q->step, (uint32_t)r->plan.slot[i]};
        uint64_t draw = tt_rng_at(a, 0).v[0];
        stats[i].drawn = (int32_t)(draw * (uint64_t)q->layout.codes >> 32);
        stats[i].logprob = -logf((float)q->layout.codes);
    }
    return st ? st : tt_image_apply(q, &r->plan, stats, e);
}

static tt_status draw_uniform(tt_picture_search *s, const tt_search_piece *p, tt_err *e)
{
    tt_picture_run r;
    tt_picture_run_spec spec = tt_ps_piece_spec(s, p);
    tt_status st = tt_picture_run_open(&r, &spec, e);
    if (st)
        return st;
    tt_row_stats *stats = calloc((size_t)r.seq.layout.tokens, sizeof *stats);
    if (!stats)
        st = tt_fail(e, TT_ENOMEM, "no memory for a candidate");
    for (int32_t k = 0; k < p->steps && !st; k++)
        st = draw_step(&r, p->sample, stats, e);
    free(stats);
    r.state = NULL;
    if (st)
        tt_picture_run_close(&r);
    else
        tt_node_put(s->nodes.list[p->node], &r);
    return st;
}

/* A piece, or what would come of it. */
static tt_status grow(tt_picture_search *s, const tt_search_work *o, tt_search_piece p, tt_err *e)
{
    if (s->spec.uniform && !o->rollout)
        return draw_uniform(s, &p, e);
    return tt_ps_piece_add(s, p, e);
}

tt_status tt_ps_make_trunks(tt_picture_search *s, const tt_search_work *o, tt_err *e)
{
    tt_status st = TT_OK;
    tt_ps_no_pieces(s);
    s->trunk = s->nodes.n;
    for (int32_t i = 0; i < o->sequences && !st; i++) {
        int32_t parent = tt_ps_held(&o->sequence[i]), n = 0;
        st = tt_nodes_add(&s->nodes, parent, &n, e);
        tt_search_piece p = {.node = n,
                             .from = parent,
                             .steps = o->add - 1,
                             .greedy = !o->sample,
                             .sample = (uint32_t)n};
        if (!st)
            st = grow(s, o, p, e);
    }
    s->phase = TT_PS_TRUNK;
    return st;
}

/* Candidate w of parent i. eldest: the number of its first one. */
static tt_status make_row(tt_picture_search *s, const tt_search_work *o, int32_t i, int32_t w,
                          int32_t eldest, tt_err *e)
{
    const tt_candidate *c = &o->sequence[i];
    int32_t parent = o->rollout ? tt_ps_shown(c) : tt_ps_held(c), n = 0;
    bool split = tt_ps_splits(s, o);
    tt_status st = tt_nodes_add(&s->nodes, parent, &n, e);
    if (st)
        return st;
    s->made[i * o->each + w] = n;
    tt_search_piece p = {.node = n,
                         .from = split ? s->trunk + i : parent,
                         .steps = split ? 1 : o->add,
                         .way = w,
                         .ways = o->each,
                         .greedy = !o->sample,
                         .sample = (uint32_t)(tt_ps_single(s) ? eldest : n)};
    return grow(s, o, p, e);
}

tt_status tt_ps_make_rows(tt_picture_search *s, const tt_search_work *o, tt_err *e)
{
    tt_status st = TT_OK;
    tt_ps_no_pieces(s);
    for (int32_t i = 0; i < o->sequences && !st; i++) {
        int32_t eldest = s->nodes.n;
        for (int32_t w = 0; w < o->each && !st; w++)
            st = make_row(s, o, i, w, eldest, e);
    }
    tt_ps_count(s, &s->report.candidates, o->rollout ? 0 : (int64_t)o->sequences * o->each);
    s->phase = TT_PS_GROW;
    return st;
}

/* Every token of a row is the number of its node: all that the rules need to know. */
tt_status tt_ps_answer_rows(tt_picture_search *s, tt_err *e)
{
    const tt_search_work *o = tt_search_order(s->rules);
    int32_t rows = o->sequences * o->each;
    int32_t *token = malloc((size_t)rows * (size_t)o->add * sizeof *token);
    float *logprob = malloc((size_t)rows * sizeof *logprob);
    tt_status st = token && logprob ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a search");
    for (int32_t i = 0; i < rows && !st; i++) {
        for (int32_t k = 0; k < o->add; k++)
            token[(int64_t)i * o->add + k] = s->made[i];
        logprob[i] = tt_node_logprob(s->nodes.list[s->made[i]]);
    }
    if (!st)
        st = tt_search_extended(s->rules, token, logprob, e);
    free(token);
    free(logprob);
    s->phase = TT_PS_ORDER;
    return st;
}
