/* trunk_cross.c - attention to a context: rows of another network's output, which every layer turns
 * into keys and values of its own. They do not change while a sequence grows, so they are made
 * once.
 */
#include <math.h>
#include <stdlib.h>

#include "models/nn/acts.h"
#include "models/nn/trunk_run.h"

struct tt_trunk_context {
    tt_stream *stream;
    int64_t rows;
    int owners;
    void *memory; /* layers x rows x (keys, values) */
};

tt_trunk_context *tt_trunk_context_share(tt_trunk_context *c)
{
    if (c)
        c->owners++;
    return c;
}

void tt_trunk_context_close(tt_trunk_context *c)
{
    if (!c || --c->owners)
        return;
    c->stream->op.release(c->stream, c->memory);
    free(c);
}

tt_status tt_trunk_upload(tt_trunk *t, void **out, const float *seen, int64_t n, tt_err *e)
{
    return tt_acts_upload(t->stream, t->act, out, seen, n, e);
}

static char *layer_at(const tt_trunk *t, const tt_trunk_context *c, int64_t layer)
{
    return (char *)c->memory + (size_t)(layer * c->rows * 2 * t->width) * tt_dtype_size(t->act);
}

tt_status tt_trunk_context_open(tt_trunk_context **out, tt_trunk *t, const float *seen,
                                int64_t rows, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    void *x = NULL;
    *out = NULL;
    if (!t->seen_width || rows < 1 || rows > 1 << 16)
        return tt_fail(e, TT_EINVAL, "a context of %lld rows", (long long)rows);
    tt_trunk_context *c = calloc(1, sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a context");
    *c = (tt_trunk_context){.stream = s, .rows = rows, .owners = 1};
    s->act = t->act;
    tt_status st = s->op.alloc(s, &c->memory, (size_t)(t->layers * rows * 2 * d) *
                               tt_dtype_size(t->act), e);
    if (!st)
        st = tt_trunk_upload(t, &x, seen, rows * t->seen_width, e);
    for (int64_t i = 0; i < t->layers && !st; i++)
        st = s->op.linear(s, layer_at(t, c, i), 2 * d, x, t->seen_width, rows,
                          t->layer[i].cross_kv, false, e);
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, x);
    if (st) {
        tt_trunk_context_close(c);
        return st;
    }
    *out = c;
    return TT_OK;
}

enum { SPANS = 256 };

static tt_status attend(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v,
                        const tt_trunk_rows *rows, int64_t layer, const tt_act *q, int64_t ldq,
                        tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < p->seqs && !st;) {
        tt_span span[SPANS];
        int64_t n = 0;
        for (; n < SPANS && i < p->seqs; n++, i++) {
            const tt_pass_seq *seq = &p->seq[i];
            const tt_trunk_context *c = seq->context;
            const char *k = c ? layer_at(t, c, layer) : NULL;
            span[n] = (tt_span){.query_row = seq->row,
                                .query_rows = seq->rows,
                                .k = k,
                                .v = k ? k + (size_t)d * tt_dtype_size(t->act) : NULL,
                                .ld_kv = 2 * d,
                                .keys = c ? c->rows : 0,
                                .see = TT_SEE_ALL};
            if (rows->map)
                span[n].query_rows = tt_trunk_packed_range(seq, rows->map, &span[n].query_row);
        }
        st = s->op.attention(s, v->att, d, q, ldq, span, n, t->heads, t->heads, t->head_dim,
                             (float)(1 / sqrt((double)t->head_dim)), t->compute, e);
    }
    return st;
}

tt_status tt_trunk_cross(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v,
                         const tt_trunk_rows *rows, int64_t layer, tt_err *e)
{
    tt_stream *s = t->stream;
    const tt_trunk_layer *l = &t->layer[layer];
    int64_t d = t->width, n = rows->rows;
    tt_act *q = v->qkv; /* the rows' own queries have been used */
    tt_status st = s->op.layernorm(s, v->h, d, rows->x, d, l->cross_norm, l->cross_norm_bias, n, d,
                                   t->eps, e);
    if (!st)
        st = s->op.linear(s, q, d, v->h, d, n, l->cross_q, false, e);
    if (!st)
        st = attend(t, p, v, rows, layer, q, d, e);
    return st ? st : s->op.linear(s, rows->x, d, v->att, d, n, l->cross_out, true, e);
}
