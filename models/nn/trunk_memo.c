/* trunk_memo.c - rows a pass keeps for the next one, and those it mixes in: see models/memo.h. */
#include <math.h>
#include <string.h>

#include "models/memo.h"
#include "models/nn/trunk_run.h"

/* Copies n rows between a memo, from the want's column on, and packed rows. */
static tt_status copy_memo(tt_trunk *t, const tt_trunk_space *v, const tt_want *w, int64_t n,
                           tt_act *rows, bool to_memo, tt_err *e)
{
    int64_t d = t->width;
    tt_act *memo = tt_memo_row(w->memo, w->memo_column);
    return t->stream->op.gather(t->stream, to_memo ? memo : rows, d, to_memo ? rows : memo, d,
                                v->iota, n, d, e);
}

/* How many wants from r on, before `end`, lie side by side in one memo, all filled or all not. */
static int64_t memo_run(const tt_pass *p, int64_t r, int64_t end)
{
    const tt_want *first = &p->want[r];
    bool filled = tt_memo_has(first->memo, first->memo_column);
    int64_t n = 1;
    while (r + n < end && p->want[r + n].memo == first->memo &&
           p->want[r + n].memo_column == first->memo_column + n &&
           tt_memo_has(first->memo, first->memo_column + (int32_t)n) == filled)
        n++;
    return n;
}

/* Puts rows [from, end) of `rows`, which begin with want 0, where they are kept. */
static tt_status put_kept(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, int64_t from,
                          int64_t end, tt_act *rows, tt_err *e)
{
    tt_status st = TT_OK;
    for (int64_t r = from, run; r < end && !st; r += run) {
        const tt_want *w = &p->want[r];
        run = memo_run(p, r, end);
        st = copy_memo(t, v, w, run, tt_trunk_at(t, rows, r * t->width), true, e);
        memset(w->memo->filled + w->memo_column, 1, (size_t)run);
    }
    return st;
}

/* Wants [from, end), which keep hidden rows: how far they moved since. A row that was not kept
 * before stands in for itself. */
static tt_status compare_rows(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, int64_t from,
                              int64_t end, const tt_draw *draw, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, n = end - from;
    tt_act *now = tt_trunk_at(t, v->want, from * d), *then = tt_trunk_at(t, v->uncond, from * d);
    tt_status st = s->op.gather(s, then, d, now, d, v->iota, n, d, e);
    for (int64_t r = from, run; r < end && !st; r += run) {
        run = memo_run(p, r, end);
        if (tt_memo_has(p->want[r].memo, p->want[r].memo_column))
            st = copy_memo(t, v, &p->want[r], run, tt_trunk_at(t, v->uncond, r * d), false, e);
    }
    if (!st)
        st = s->op.head_kl(s, p->kl + from, now, d, then, d, n, t->head, draw, e);
    if (!st)
        st = s->op.sync(s, e); /* kl is there */
    for (int64_t i = from; i < end && !st; i++)
        if (!tt_memo_has(p->want[i].memo, p->want[i].memo_column))
            p->kl[i] = INFINITY;
    return st ? st : put_kept(t, p, v, from, end, v->want, e);
}

/* Wants [from, end), which keep the embedding they expect. */
static tt_status keep_means(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, int64_t from,
                            int64_t end, const tt_draw *draw, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    tt_act *mean = tt_trunk_at(t, v->uncond, from * d), *want = tt_trunk_at(t, v->want, from * d);
    tt_status st = s->op.head_mean(s, mean, d, want, d, end - from, t->head, t->table, draw, e);
    return st ? st : put_kept(t, p, v, from, end, v->uncond, e);
}

static tt_status upload_iota(tt_trunk *t, const tt_trunk_space *v, int64_t n, tt_err *e)
{
    int32_t part[256];
    tt_status st = TT_OK;
    for (int64_t r = 0; r < n && !st; r += 256) {
        int64_t m = n - r < 256 ? n - r : 256;
        for (int64_t i = 0; i < m; i++)
            part[i] = (int32_t)(r + i);
        st = t->stream->op.upload(t->stream, v->iota + r, part, (size_t)m * sizeof *part, e);
    }
    return st;
}

static tt_memo_kind memo_kind(const tt_want *w)
{
    return w->memo ? w->memo->kind : TT_MEMO_NONE;
}

/* In groups of one kind. Guidance is over: uncond is free. */
tt_status tt_trunk_keep(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, int64_t from,
                        int64_t n, const tt_draw *draw, tt_err *e)
{
    tt_status st = upload_iota(t, v, n, e);
    for (int64_t r = from, end; r < from + n && !st; r = end) {
        tt_memo_kind kind = memo_kind(&p->want[r]);
        for (end = r + 1; end < from + n && memo_kind(&p->want[end]) == kind;)
            end++;
        if (kind == TT_MEMO_HIDDEN)
            st = compare_rows(t, p, v, r, end, draw + (r - from), e);
        else if (kind == TT_MEMO_MEAN)
            st = keep_means(t, p, v, r, end, draw + (r - from), e);
    }
    return st;
}

tt_status tt_trunk_mix(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    tt_status st = s->op.upload(s, v->mix, p->mix, (size_t)p->rows * sizeof *p->mix, e);
    for (int64_t i = 0; i < p->seqs && !st; i++) {
        const tt_pass_seq *q = &p->seq[i];
        int64_t end = q->row + q->rows;
        for (int64_t r = q->row, run; r < end && !st; r += run) {
            bool in = p->mix[r] != 0;
            for (run = 1; r + run < end && (p->mix[r + run] != 0) == in &&
                          p->column[r + run] == p->column[r] + run;)
                run++;
            if (in)
                st = s->op.add_scaled(s, tt_trunk_at(t, v->x, r * d), d,
                                      tt_memo_row(q->memo, p->column[r]), d, v->mix + r, run, d,
                                      e);
        }
    }
    return st;
}
