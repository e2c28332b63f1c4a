/* batcher.c - see batcher.h. */
#include "server/batcher.h"

#include <stdlib.h>
#include <string.h>

#include "server/run_rows.h"

/* --- room --- */

typedef struct {
    void *list; /* address of a pointer to its entries */
    size_t size; /* of an entry */
} array;

/* Makes arrays of the same length so long. */
static tt_status grow(const array *a, size_t arrays, int64_t *room, int64_t need, tt_err *e)
{
    if (need <= *room)
        return TT_OK;
    int64_t n = *room ? *room : 256;
    while (n < need)
        n *= 2;
    for (size_t i = 0; i < arrays; i++) {
        void *p;
        memcpy(&p, a[i].list, sizeof p);
        p = realloc(p, (size_t)n * a[i].size);
        if (!p)
            return tt_fail(e, TT_ENOMEM, "no memory for a pass of %lld entries", (long long)need);
        memcpy(a[i].list, &p, sizeof p);
    }
    *room = n;
    return TT_OK;
}

/* What n runs want of a pass. */
typedef struct {
    int64_t rows, wants, states, classified;
    int32_t n_top; /* the longest list of alternatives */
} demand;

static demand demand_of(tt_run *const *run, int64_t n)
{
    demand d = {0};
    for (int64_t i = 0; i < n; i++) {
        const tt_plan *p = &run[i]->plan;
        d.rows += tt_run_rows(run[i]);
        d.wants += p->asks;
        d.states += p->states;
        d.classified += p->classify;
        d.n_top = p->n_top > d.n_top ? p->n_top : d.n_top;
    }
    return d;
}

#define ARRAY(member) {&b->member, sizeof *b->member}
#define GROW(arrays, room, need) grow(arrays, sizeof arrays / sizeof *arrays, &b->room, need, e)

static tt_status reserve(tt_batch *b, const tt_model_info *info, const demand *d, int64_t n,
                         tt_err *e)
{
    const array rows[] = {ARRAY(id), ARRAY(position), ARRAY(column), ARRAY(mix)};
    const array wants[] = {ARRAY(want), ARRAY(kl), ARRAY(stats)};
    const array seq[] = {ARRAY(seq)}, top[] = {ARRAY(top)};
    const array state_row[] = {ARRAY(state_row)}, state[] = {ARRAY(state)};
    const array class_row[] = {ARRAY(class_row)}, classes[] = {ARRAY(classes)};
    tt_status s = GROW(rows, row_room, d->rows);
    if (!s)
        s = GROW(wants, want_room, d->wants);
    if (!s)
        s = GROW(seq, seq_room, 3 * n); /* its rows, its twin's, shadows */
    if (!s)
        s = GROW(state_row, state_room, d->states);
    if (!s)
        s = GROW(state, float_room, d->states * info->width);
    if (!s)
        s = GROW(class_row, class_room, d->classified);
    if (!s)
        s = GROW(classes, class_float_room, d->classified * info->classes);
    return s ? s : GROW(top, top_room, d->wants * d->n_top);
}

/* --- building the pass --- */

/* The token fed at a column. Open columns behind the last one asked for show their draft: they are
 * decided later. */
static int32_t token_at(const tt_run *r, int32_t c)
{
    const tt_plan *p = &r->plan;
    const tt_seq *q = &r->seq;
    if (p->row_id)
        return p->row_id[c];
    bool later = !p->asks || c > p->ask[p->asks - 1].column;
    bool drafted = q->draft && !r->sampler->reads && later && c < q->columns && q->draft[c] >= 0;
    return drafted && tt_seq_open_at(q, c) ? q->draft[c] : q->id[c];
}

static void open_seq(tt_batch *b, tt_run *r, bool twin, int64_t rows)
{
    const tt_plan *p = &r->plan;
    bool moved = twin && r->negatives;
    b->seq[b->seqs++] =
        (tt_pass_seq){.row = b->rows,
                      .rows = rows,
                      .see_begin = moved ? tt_run_twin_column(r, p->see_begin) : p->see_begin,
                      .see_end = moved ? tt_run_twin_column(r, p->see_end) : p->see_end,
                      .see = p->see,
                      .block = p->block,
                      .memo = r->memo,
                      .sigma = p->sigma,
                      .depth = twin ? NULL : p->depth,
                      .kv = p->keep ? *tt_run_store(r, twin) : NULL};
}

static void add_row(tt_batch *b, int32_t id, int32_t position, int32_t column, float mix)
{
    b->id[b->rows] = id;
    b->position[b->rows] = position;
    b->column[b->rows] = column;
    b->mix[b->rows] = mix;
    b->mixes |= mix != 0;
    b->rows++;
}

static void add_rows(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    int64_t rows = tt_run_real_rows(p);
    r->row = b->rows;
    open_seq(b, r, false, rows);
    for (int64_t i = 0; i < rows; i++) {
        if (p->token) {
            add_row(b, p->token[i], (int32_t)i, (int32_t)i, 0);
            continue;
        }
        int32_t c = tt_run_fed_column(p, i);
        bool mixed = p->mix && tt_seq_open_at(&r->seq, c);
        add_row(b, token_at(r, c), c, c, mixed ? p->mix[c] : 0);
    }
}

/* The twin has the negative prompt in place of the prompt, or masks where columns were given. */
static void add_twin(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    const tt_seq *q = &r->seq;
    int64_t rows = tt_run_twin_rows(r), left_out = tt_run_twin_leaves_out(r);
    r->twin_row = b->rows;
    open_seq(b, r, true, rows);
    for (int64_t i = 0; i < rows; i++) {
        int32_t t = p->feed ? tt_run_twin_column(r, p->feed[left_out + i])
                            : tt_run_twin_column(r, p->row_begin) + (int32_t)i;
        int32_t c = r->negatives ? t - r->negatives + q->prompt : t, id;
        if (r->negatives)
            id = t < r->negatives ? r->negative[t] : token_at(r, c);
        else
            id = q->fixed[c] ? q->mask_id : token_at(r, c);
        add_row(b, id, t, t, 0);
    }
}

/* The shadow columns, masks that lie behind the canvas in the store. */
static void add_shadows(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    int32_t n = p->shadow_end - p->shadow_begin;
    if (!n)
        return;
    b->seq[b->seqs++] = (tt_pass_seq){.row = b->rows,
                                      .rows = n,
                                      .see_begin = p->see_begin,
                                      .see_end = r->seq.columns + n,
                                      .see = TT_SEE_ALL,
                                      .hole = p->shadow_begin + 1,
                                      .kv = r->kv[0]};
    for (int32_t i = 0; i < n; i++)
        add_row(b, r->seq.mask_id, p->shadow_begin + i, r->seq.columns + i, 0);
}

static void add_states(tt_batch *b, tt_run *r)
{
    r->first_state = b->states;
    for (int32_t i = 0; i < r->plan.states; i++)
        b->state_row[b->states++] = r->row + tt_run_place_of(&r->plan, r->plan.state[i]);
}

static void add_class(tt_batch *b, tt_run *r)
{
    r->class_row = b->classified;
    if (r->plan.classify)
        b->class_row[b->classified++] = r->row;
}

static void add_wants(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    r->want = b->wants;
    for (int32_t i = 0; i < p->asks; i++) {
        const tt_ask *a = &p->ask[i];
        b->want[b->wants++] = (tt_want){.row = tt_run_row_of(r, a),
                                        .uncond = p->cfg_scale > 0 ? tt_run_twin_row_of(r, a) : -1,
                                        .cfg_scale = p->cfg_scale,
                                        .draw = a->draw,
                                        .memo = p->memo && i < p->memos ? r->memo : NULL,
                                        .memo_column = a->column};
    }
}

/* --- what came of it --- */

/* The pass computes the longest list of alternatives anybody wants; each run keeps its part. */
static void narrow_top(tt_batch *b, const tt_run *r, int32_t n_top)
{
    int32_t keep = r->plan.n_top;
    for (int64_t i = 0; keep && keep < n_top && i < r->plan.asks; i++)
        memmove(b->top + r->want * n_top + i * keep, b->top + (r->want + i) * n_top,
                (size_t)keep * sizeof *b->top);
}

/* A drafted token that is the model's own choice for its column is taken, whatever the sampler
 * would have waited for. */
static void accept_drafts(tt_run *r, const tt_result *result)
{
    const tt_plan *p = &r->plan;
    tt_seq *q = &r->seq;
    for (int32_t i = 0; i < p->asks; i++) {
        int32_t c = p->ask[i].column;
        if (c < q->columns && tt_seq_open_at(q, c) && result->stats[i].drawn == q->draft[c])
            tt_seq_commit(q, result, i);
    }
}

static void apply(tt_batch *b, tt_run *r, int32_t n_top)
{
    narrow_top(b, r, n_top);
    tt_result result = {.plan = &r->plan,
                        .stats = b->stats + r->want,
                        .top = r->plan.n_top ? b->top + r->want * n_top : NULL,
                        .kl = b->kl + r->want,
                        .state = b->state + r->first_state * tt_run_model(r)->info.width,
                        .classes = b->classes + r->class_row * tt_run_model(r)->info.classes};
    r->planned = false;
    r->nfe++;
    for (int32_t i = 0; i < r->plan.asks && !r->failed; i++)
        if (result.stats[i].drawn < 0)
            r->failed = tt_fail_param(&r->error, "logit_bias", "constraint_unsatisfiable",
                                      "no token is possible at column %d",
                                      r->plan.ask[i].column);
    if (!r->failed && r->seq.draft && !r->sampler->reads && !r->plan.guide)
        accept_drafts(r, &result);
    if (!r->failed)
        r->failed = r->sampler->apply(&r->seq, r->state, &result, &r->done, &r->error);
    r->seq.step++;
}

static void add_run(tt_batch *b, tt_run *r)
{
    add_rows(b, r);
    if (r->plan.cfg_scale > 0)
        add_twin(b, r);
    add_shadows(b, r);
    add_wants(b, r);
    add_states(b, r);
    add_class(b, r);
}

static tt_pass pass_of(const tt_batch *b, int32_t n_top)
{
    return (tt_pass){.rows = b->rows,
                     .id = b->id,
                     .position = b->position,
                     .column = b->column,
                     .mix = b->mixes ? b->mix : NULL,
                     .kl = b->kl,
                     .seqs = b->seqs,
                     .seq = b->seq,
                     .wants = b->wants,
                     .want = b->want,
                     .n_top = n_top,
                     .stats = b->stats,
                     .top = n_top ? b->top : NULL,
                     .states = b->states,
                     .state_row = b->state_row,
                     .state = b->state,
                     .classified = b->classified,
                     .class_row = b->class_row,
                     .classes = b->classes};
}

tt_status tt_batch_step(tt_batch *b, tt_run *const *run, int64_t n, tt_err *e)
{
    if (!n)
        return TT_OK;
    tt_model *m = tt_run_model(run[0]);
    for (int64_t i = 1; i < n; i++)
        if (tt_run_model(run[i]) != m)
            return tt_fail(e, TT_EINVAL, "a step of runs of different models");
    demand d = demand_of(run, n);
    tt_status s = reserve(b, &m->info, &d, n, e);
    if (s)
        return s;
    b->rows = b->wants = b->seqs = b->states = b->classified = 0;
    b->mixes = false;
    for (int64_t i = 0; i < n; i++)
        add_run(b, run[i]);
    tt_pass pass = pass_of(b, d.n_top);
    s = tt_model_run(m, &pass, e);
    for (int64_t i = 0; i < n && !s; i++)
        apply(b, run[i], d.n_top);
    return s;
}

void tt_batch_free(tt_batch *b)
{
    free(b->id);
    free(b->position);
    free(b->column);
    free(b->seq);
    free(b->want);
    free(b->stats);
    free(b->mix);
    free(b->kl);
    free(b->top);
    free(b->state_row);
    free(b->state);
    free(b->class_row);
    free(b->classes);
    *b = (tt_batch){0};
}
