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
    return tt_seq_bytes(s, columns, n_top, n_bias) + tt_seq_step_bytes(s, columns, n_bias);
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
        st = tt_arena_open(&r->step, tt_seq_step_bytes(s, room, spec->n_bias), e);
    r->seq = (tt_seq){.columns = spec->columns,
                      .prompt = spec->prompt,
                      .sampler = s,
                      .params = spec->params,
                      .kinds = info->kinds,
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
    tt_memo_close(r->memo);
    r->memo = NULL;
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
    if (p->feed)
        return;
    for (int32_t i = 0; i < p->asks; i++) {
        int32_t c = source_column(r, p->ask[i].column);
        if (c < p->row_begin)
            p->row_begin = c;
    }
}

/* Stores and rows that the plan needs and the run does not have yet. */
static void open_stores(tt_run *r)
{
    const tt_params *p = r->seq.params;
    int32_t columns = tt_run_columns(r->sampler, p, r->seq.columns);
    if (!r->plan.guide)
        columns = tt_sampler_store(r->sampler, p, columns, r->seq.prompt);
    for (int twin = 0; twin <= (r->plan.cfg_scale > 0) && r->plan.keep && !r->failed; twin++) {
        tt_kv **kv = store_of(r, twin);
        if (!*kv)
            r->failed = tt_kv_open(kv, tt_run_model(r), columns, &r->error);
    }
    if (r->plan.memo && !r->memo && !r->failed)
        r->failed = tt_memo_open(&r->memo, r->model, r->plan.memo, r->seq.columns, &r->error);
}

void tt_run_plan(tt_run *r)
{
    if (r->planned || r->done || r->failed)
        return;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_plan){.arena = &r->step, .n_top = r->seq.n_top};
    r->failed = r->sampler->plan(&r->seq, r->state, &r->plan, &r->error);
    if (!r->failed)
        open_stores(r);
    feed_left_neighbour(r);
    r->planned = !r->failed;
}

/* Rows of the canvas that the plan feeds, and columns of it. */
static int64_t real_rows(const tt_plan *p)
{
    return p->feed ? p->feeds : p->row_end - p->row_begin;
}

static int32_t fed_column(const tt_plan *p, int64_t i)
{
    return p->feed ? p->feed[i] : p->row_begin + (int32_t)i;
}

int64_t tt_run_rows(const tt_run *r)
{
    int64_t rows = real_rows(&r->plan);
    int64_t shadows = r->plan.shadow_end - r->plan.shadow_begin;
    return (r->plan.cfg_scale > 0 ? 2 * rows : rows) + shadows;
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
    int64_t room[4] = {b->row_room, b->row_room, b->row_room, b->row_room};
    int64_t want_room[2] = {b->want_room, b->want_room};
    tt_status s = grow(&b->id, &room[0], rows, sizeof *b->id, e);
    if (!s)
        s = grow(&b->position, &room[1], rows, sizeof *b->position, e);
    if (!s)
        s = grow(&b->column, &room[2], rows, sizeof *b->column, e);
    if (!s)
        s = grow(&b->mix, &room[3], rows, sizeof *b->mix, e);
    b->row_room = s ? b->row_room : room[0];
    if (!s)
        s = grow(&b->want, &want_room[0], wants, sizeof *b->want, e);
    if (!s)
        s = grow(&b->kl, &want_room[1], wants, sizeof *b->kl, e);
    if (!s)
        s = grow(&b->stats, &b->want_room, wants, sizeof *b->stats, e);
    if (!s)
        s = grow(&b->seq, &b->seq_room, 3 * n, sizeof *b->seq, e);
    if (!s && *n_top)
        s = grow(&b->top, &b->top_room, wants * *n_top, sizeof *b->top, e);
    return s;
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

/* The rows of one run, or of its unconditional twin, in which the given columns are masked. */
static void add_rows(tt_batch *b, tt_run *r, bool twin)
{
    const tt_plan *p = &r->plan;
    const tt_seq *q = &r->seq;
    int64_t rows = real_rows(p);
    b->seq[b->seqs++] = (tt_pass_seq){.row = b->rows,
                                      .rows = rows,
                                      .see_begin = p->see_begin,
                                      .see_end = p->see_end,
                                      .see = p->see,
                                      .block = p->block,
                                      .memo = r->memo,
                                      .sigma = p->sigma,
                                      .kv = p->keep ? *store_of(r, twin) : NULL};
    for (int64_t i = 0; i < rows; i++) {
        int32_t c = fed_column(p, i), id = p->row_id ? p->row_id[c] : q->id[c];
        bool mixed = p->mix && tt_seq_open_at(q, c);
        add_row(b, twin && q->fixed[c] ? q->mask_id : id, c, c, mixed ? p->mix[c] : 0);
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

/* The row of the pass that holds an asked column's distribution. */
static int64_t row_of(const tt_run *r, int32_t column)
{
    const tt_plan *p = &r->plan;
    int32_t shadows = p->shadow_end - p->shadow_begin;
    if (shadows && column >= r->seq.columns)
        return r->row + tt_run_rows(r) - shadows + column - r->seq.columns;
    int32_t source = source_column(r, column), low = 0, high = p->feeds - 1;
    if (!p->feed)
        return r->row + source - p->row_begin;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (p->feed[middle] < source)
            low = middle + 1;
        else
            high = middle;
    }
    return r->row + low;
}

static void add_wants(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    r->want = b->wants;
    for (int32_t i = 0; i < p->asks; i++) {
        int64_t row = row_of(r, p->ask[i].column);
        b->want[b->wants++] = (tt_want){.row = row,
                                        .uncond = p->cfg_scale > 0 ? row + real_rows(p) : -1,
                                        .cfg_scale = p->cfg_scale,
                                        .draw = p->ask[i].draw,
                                        .memo = p->memo && i < p->memos ? r->memo : NULL,
                                        .memo_column = p->ask[i].column};
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
                        .top = r->plan.n_top ? b->top + r->want * n_top : NULL,
                        .kl = b->kl + r->want};
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
    b->mixes = false;
    for (int64_t i = 0; i < n; i++) {
        run[i]->row = b->rows;
        add_rows(b, run[i], false);
        if (run[i]->plan.cfg_scale > 0)
            add_rows(b, run[i], true);
        add_shadows(b, run[i]);
        add_wants(b, run[i]);
    }
    tt_pass pass = {.rows = b->rows,
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
    free(b->mix);
    free(b->kl);
    free(b->top);
    *b = (tt_batch){0};
}
