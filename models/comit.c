/* comit.c - see comit.h. A call's rows are [ c | x | r | q ]: where it lies, the latent's patches,
 * the message, and as many queries whose rows become the new message.
 *
 *   S = LN(c), LN(x) modulated by t, LN(r) and LN(q) modulated by t in another way
 *   rows += gate * attention(S);  rows += gate * mlp(S')          (c without modulation or gate)
 *
 * Scores have 1 added for all columns but the queries', which only queries before them add 1 to: a
 * table meant as a mask that the released code hands to an attention which adds it. */
#include <stdlib.h>

#include "models/comit_net.h"
#include "models/nn/acts.h"

enum { MOST_ROWS = 16384 }; /* of the calls that run at once */

/* The row of zeros is the first thing there. */
static tt_status reserve(tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    size_t need = tt_comit_lay_out(c, j, NULL);
    tt_status st = TT_OK;
    if (need > c->space_bytes) {
        float *zero = calloc((size_t)c->info.width, sizeof *zero);
        s->op.release(s, c->space);
        c->space = NULL;
        c->space_bytes = 0;
        st = zero ? s->op.alloc(s, &c->space, need, e)
                  : tt_fail(e, TT_ENOMEM, "no memory for a row");
        if (!st)
            st = tt_acts_put(s, c->type, c->space, zero, c->info.width, e);
        free(zero);
        if (st)
            return st;
        c->space_bytes = need;
    }
    tt_comit_lay_out(c, j, c->space);
    return TT_OK;
}

/* What the run needs and must not be made while it is recorded. */
static tt_status prepare(tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_status s = TT_OK;
    for (int64_t i = 0; i < j->times && !s; i++)
        s = tt_comit_slot(c, &j->slot[i], j->t[i], j->wide, e);
    return s;
}

static tt_status run_some(tt_comit *c, tt_comit_job *j, tt_err *e)
{
    c->stream->act = c->type;
    tt_status s = tt_comit_open_lists(c, j, e);
    if (!s)
        s = reserve(c, j, e);
    if (!s)
        s = prepare(c, j, e);
    if (!s) {
        tt_comit_fill_lists(c, j);
        tt_comit_lay_out(c, j, c->space);
        s = tt_comit_run_layers(c, j, e);
    }
    if (!s)
        s = c->stream->op.sync(c->stream, e);
    if (!s)
        tt_comit_give_results(c, j);
    return s;
}

static tt_status check(const tt_comit *c, const tt_comit_call *k, int64_t i, tt_err *e)
{
    int32_t p = c->info.patch, side = c->info.side;
    if (k->h < 1 || k->w < 1 || k->h > side || k->w > side || k->h % p || k->w % p)
        return tt_fail(e, TT_EINVAL, "call %lld: a latent of %d x %d; sides are multiples of %d up "
                       "to %d", (long long)i, k->h, k->w, p, side);
    return k->t >= 0 && k->t <= 1 ? TT_OK
                                  : tt_fail(e, TT_EINVAL, "call %lld: time %g is not in [0, 1]",
                                            (long long)i, (double)k->t);
}

/* Takes a call into the job unless memory or times would become too many. */
static bool take(const tt_comit *c, tt_comit_job *j, const tt_comit_call *k)
{
    int64_t rows = tt_comit_rows(c, k), patches = tt_comit_patches(c, k), t = 0;
    while (t < j->times && j->t[t] != k->t)
        t++;
    bool many = j->calls && j->rows + rows > MOST_ROWS;
    if (j->calls == TT_COMIT_CALLS || t == TT_COMIT_TIMES || many)
        return false;
    j->t[t] = k->t;
    j->times += t == j->times;
    j->rows += rows;
    j->patches += patches;
    j->velocities |= k->velocity != NULL;
    j->messages |= k->renewed != NULL;
    j->calls++;
    return true;
}

tt_status tt_comit_run(tt_comit *c, const tt_comit_call *call, int64_t calls, tt_err *e)
{
    for (int64_t i = 0; i < calls; i++) {
        tt_status s = check(c, &call[i], i, e);
        if (s)
            return s;
    }
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s;) {
        tt_comit_job j = {.call = call + i};
        while (i < calls && take(c, &j, &call[i]))
            i++;
        s = run_some(c, &j, e);
        tt_comit_close_lists(&j);
    }
    return s;
}

size_t tt_comit_bytes(const tt_comit *c, int64_t calls)
{
    int64_t cells = c->grid * c->grid, one = 1 + cells + 2 * c->info.tokens;
    int64_t most = MOST_ROWS > one ? MOST_ROWS / one : 1;
    most = most < TT_COMIT_CALLS ? most : TT_COMIT_CALLS;
    tt_comit_job j = {.calls = calls < most ? calls : most};
    j.rows = j.calls * one;
    j.patches = j.calls * cells;
    return tt_comit_lay_out(c, &j, NULL);
}

double tt_comit_macs(const tt_comit *c, int64_t h, int64_t w)
{
    double d = (double)c->info.width, ff = (double)c->ff, p = c->info.patch;
    double rows = 1 + (double)(h * w) / (p * p) + 2 * c->info.tokens;
    return (double)c->info.layers * rows * (4 * d * d + 2 * d * ff + 2 * d * rows);
}
