/* batcher.c - see batcher.h. */
#include "server/batcher.h"

#include <stdlib.h>
#include <string.h>

int32_t tt_run_columns(const tt_sampler *s, const tt_params *p, int32_t columns)
{
    int64_t block = s->needs & TT_KIND_BLOCKS && p->block_length > 0 ? p->block_length : 1;
    int64_t n = (columns + block - 1) / block * block;
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

size_t tt_run_bytes(const tt_sampler *s, int32_t columns, int32_t n_top, int32_t n_bias)
{
    return tt_seq_bytes(s, columns, n_top, n_bias) + tt_seq_step_bytes(columns);
}

tt_status tt_run_open(tt_run *r, const tt_run_spec *spec, tt_err *e)
{
    const tt_sampler *s = spec->sampler;
    const tt_model_info *info = &spec->model->info;
    *r = (tt_run){.sampler = s, .model = spec->model, .guide = spec->guide};
    if (!tt_sampler_fits(s, info->kinds))
        return tt_fail_param(e, "sampler", "unsupported_value",
                             "sampler '%s' does not fit the %s family", s->name, info->family);
    int32_t room = tt_run_columns(s, spec->params, spec->columns);
    tt_status st = tt_arena_open(&r->life, tt_seq_bytes(s, room, spec->n_top, spec->n_bias), e);
    if (!st)
        st = tt_arena_open(&r->step, tt_seq_step_bytes(room), e);
    r->seq = (tt_seq){.columns = spec->columns,
                      .prompt = spec->prompt,
                      .params = spec->params,
                      .noise = spec->noise,
                      .mask_id = info->mask_id,
                      .eos_id = info->eos_id,
                      .eot_id = info->eot_id,
                      .vocab = spec->vocab,
                      .row_shift = info->row_shift,
                      .guide_vocab = spec->guide ? (int32_t)spec->guide->info.vocab : 0,
                      .n_bias = spec->n_bias,
                      .n_top = spec->n_top,
                      .arena = &r->life};
    if (!st)
        st = tt_seq_begin(&r->seq, spec->id, spec->open, spec->bias, e);
    if (!st) {
        r->state = tt_arena_take(&r->life, 1, s->state_size);
        st = r->state ? s->open(&r->seq, r->state, e)
                      : tt_fail(e, TT_ENOMEM, "no memory for sampler '%s'", s->name);
    }
    if (st)
        tt_run_close(r);
    return st;
}

void tt_run_close(tt_run *r)
{
    for (size_t i = 0; i < sizeof r->kv / sizeof *r->kv; i++) {
        tt_kv_close(r->kv[i]);
        r->kv[i] = NULL;
    }
    tt_arena_close(&r->life);
    tt_arena_close(&r->step);
}

tt_model *tt_run_model(const tt_run *r) { return r->plan.guide ? r->guide : r->model; }

static tt_kv **store_of(tt_run *r, bool twin) { return &r->kv[r->plan.guide ? 2 : twin]; }

/* Where a column's distribution comes from: its own row, or the one before it. Column 0 of a
 * shifted model has no row before it and takes its own. */
static int32_t source_column(const tt_run *r, int32_t column)
{
    int32_t shift = r->plan.guide ? 1 : r->seq.row_shift;
    return column >= shift ? column - shift : column;
}

/* A shifted model needs the row left of the first column asked for. */
static void feed_left_neighbour(tt_run *r)
{
    tt_plan *p = &r->plan;
    for (int32_t i = 0; i < p->asks; i++) {
        int32_t c = source_column(r, p->ask[i].column);
        if (c < p->row_begin)
            p->row_begin = c;
    }
}

void tt_run_plan(tt_run *r)
{
    if (r->planned || r->done || r->failed)
        return;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_plan){.arena = &r->step, .n_top = r->seq.n_top};
    r->failed = r->sampler->plan(&r->seq, r->state, &r->plan, &r->error);
    int32_t columns = tt_run_columns(r->sampler, r->seq.params, r->seq.columns);
    for (int twin = 0; twin <= (r->plan.cfg_scale > 0) && r->plan.keep && !r->failed; twin++) {
        tt_kv **kv = store_of(r, twin);
        if (!*kv)
            r->failed = tt_kv_open(kv, tt_run_model(r), columns, &r->error);
    }
    feed_left_neighbour(r);
    r->planned = !r->failed;
}

int64_t tt_run_rows(const tt_run *r)
{
    int64_t rows = r->plan.row_end - r->plan.row_begin;
    return r->plan.cfg_scale > 0 ? 2 * rows : rows;
}

/* --- building the pass --- */

/* list: address of a pointer to entries of this size. */
static tt_status grow(void *list, int64_t *room, int64_t need, size_t size, tt_err *e)
{
    if (need <= *room)
        return TT_OK;
    int64_t n = *room ? *room : 256;
    while (n < need)
        n *= 2;
    void *p;
    memcpy(&p, list, sizeof p);
    p = realloc(p, (size_t)n * size);
    if (!p)
        return tt_fail(e, TT_ENOMEM, "no memory for a pass of %lld entries", (long long)need);
    memcpy(list, &p, sizeof p);
    *room = n;
    return TT_OK;
}

static tt_status reserve(tt_batch *b, tt_run *const *run, int64_t n, int32_t *n_top, tt_err *e)
{
    int64_t rows = 0, wants = 0;
    *n_top = 0;
    for (int64_t i = 0; i < n; i++) {
        rows += tt_run_rows(run[i]);
        wants += run[i]->plan.asks;
        *n_top = run[i]->plan.n_top > *n_top ? run[i]->plan.n_top : *n_top;
    }
    int64_t room[3] = {b->row_room, b->row_room, b->row_room}, want_room = b->want_room;
    tt_status s = grow(&b->id, &room[0], rows, sizeof *b->id, e);
    if (!s)
        s = grow(&b->position, &room[1], rows, sizeof *b->position, e);
    if (!s)
        s = grow(&b->column, &room[2], rows, sizeof *b->column, e);
    b->row_room = s ? b->row_room : room[0];
    if (!s)
        s = grow(&b->want, &want_room, wants, sizeof *b->want, e);
    if (!s)
        s = grow(&b->stats, &b->want_room, wants, sizeof *b->stats, e);
    if (!s)
        s = grow(&b->seq, &b->seq_room, 2 * n, sizeof *b->seq, e);
    if (!s && *n_top)
        s = grow(&b->top, &b->top_room, wants * *n_top, sizeof *b->top, e);
    return s;
}

/* The rows of one run, or of its unconditional twin, in which the given columns are masked. */
static void add_rows(tt_batch *b, tt_run *r, bool twin)
{
    const tt_plan *p = &r->plan;
    const tt_seq *q = &r->seq;
    int64_t rows = p->row_end - p->row_begin;
    b->seq[b->seqs++] = (tt_pass_seq){.row = b->rows,
                                      .rows = rows,
                                      .see_begin = p->see_begin,
                                      .see_end = p->see_end,
                                      .see = p->see,
                                      .block = p->block,
                                      .sigma = p->sigma,
                                      .kv = p->keep ? *store_of(r, twin) : NULL};
    for (int32_t c = p->row_begin; c < p->row_end; c++, b->rows++) {
        int32_t id = p->row_id ? p->row_id[c] : q->id[c];
        b->id[b->rows] = twin && q->fixed[c] ? q->mask_id : id;
        b->position[b->rows] = b->column[b->rows] = c;
    }
}

static void add_wants(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    int64_t rows = p->row_end - p->row_begin;
    r->want = b->wants;
    for (int32_t i = 0; i < p->asks; i++) {
        int64_t row = r->row + source_column(r, p->ask[i].column) - p->row_begin;
        b->want[b->wants++] = (tt_want){.row = row,
                                        .uncond = p->cfg_scale > 0 ? row + rows : -1,
                                        .cfg_scale = p->cfg_scale,
                                        .draw = p->ask[i].draw};
    }
}

/* The pass computes the longest list of alternatives anybody wants; each run keeps its part. */
static void narrow_top(tt_batch *b, const tt_run *r, int32_t n_top)
{
    int32_t keep = r->plan.n_top;
    for (int64_t i = 0; keep && keep < n_top && i < r->plan.asks; i++)
        memmove(b->top + r->want * n_top + i * keep, b->top + (r->want + i) * n_top,
                (size_t)keep * sizeof *b->top);
}

static void apply(tt_batch *b, tt_run *r, int32_t n_top)
{
    narrow_top(b, r, n_top);
    tt_result result = {.plan = &r->plan,
                        .stats = b->stats + r->want,
                        .top = r->plan.n_top ? b->top + r->want * n_top : NULL};
    r->planned = false;
    r->nfe++;
    for (int32_t i = 0; i < r->plan.asks && !r->failed; i++)
        if (result.stats[i].drawn < 0)
            r->failed = tt_fail_param(&r->error, "logit_bias", "constraint_unsatisfiable",
                                      "no token is possible at column %d",
                                      r->plan.ask[i].column);
    if (!r->failed)
        r->failed = r->sampler->apply(&r->seq, r->state, &result, &r->done, &r->error);
    r->seq.step++;
}

tt_status tt_batch_step(tt_batch *b, tt_run *const *run, int64_t n, tt_err *e)
{
    int32_t n_top;
    for (int64_t i = 1; i < n; i++)
        if (tt_run_model(run[i]) != tt_run_model(run[0]))
            return tt_fail(e, TT_EINVAL, "a step of runs of different models");
    tt_status s = n ? reserve(b, run, n, &n_top, e) : TT_OK;
    if (s || !n)
        return s;
    b->rows = b->wants = b->seqs = 0;
    for (int64_t i = 0; i < n; i++) {
        run[i]->row = b->rows;
        add_rows(b, run[i], false);
        if (run[i]->plan.cfg_scale > 0)
            add_rows(b, run[i], true);
        add_wants(b, run[i]);
    }
    tt_pass pass = {.rows = b->rows,
                    .id = b->id,
                    .position = b->position,
                    .column = b->column,
                    .seqs = b->seqs,
                    .seq = b->seq,
                    .wants = b->wants,
                    .want = b->want,
                    .n_top = n_top,
                    .stats = b->stats,
                    .top = n_top ? b->top : NULL};
    s = tt_model_run(tt_run_model(run[0]), &pass, e);
    for (int64_t i = 0; i < n && !s; i++)
        apply(b, run[i], n_top);
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
    free(b->top);
    *b = (tt_batch){0};
}
