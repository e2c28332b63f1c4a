/* trunk_class.c - the head that classifies single rows: see tt_classifier. */
#include "models/nn/trunk_run.h"

enum { CHUNK = 256 };

/* Logits by the operation that makes those of the vocabulary: float32 wherever they are made. */
static tt_status class_logits(tt_trunk *t, const tt_act *z, int64_t rows, float *logits,
                              tt_row_stats *stats, tt_err *e)
{
    tt_stream *s = t->stream;
    const tt_classifier *c = &t->classifier;
    tt_draw draw[CHUNK];
    for (int64_t r = 0; r < rows; r += CHUNK) {
        int64_t n = rows - r < CHUNK ? rows - r : CHUNK;
        for (int64_t i = 0; i < n; i++)
            draw[i] = (tt_draw){.top_p = 1, .target = -1};
        tt_status st = s->op.head(s, stats + r, NULL, 0, logits + r * c->classes,
                                  tt_trunk_at(t, z, r * t->width), t->width, n, c->out, draw, e);
        if (st)
            return st;
    }
    return TT_OK;
}

tt_status tt_trunk_classify(tt_trunk *t, const tt_trunk_space *v, const tt_act *x, int64_t rows,
                            float *logits, tt_row_stats *stats, tt_err *e)
{
    tt_stream *s = t->stream;
    const tt_classifier *c = &t->classifier;
    int64_t d = t->width, hidden = c->hidden;
    tt_status st = s->op.gather(s, v->class_x, d, x, d, v->class_row, rows, d, e);
    if (!st)
        st = s->op.layernorm(s, v->class_h, d, v->class_x, d, c->norm, c->norm_bias, rows, d,
                             t->eps, e);
    if (!st)
        st = s->op.linear(s, v->class_up, hidden, v->class_h, d, rows, c->up, false, e);
    if (!st)
        st = s->op.unit(s, v->class_up, hidden, v->class_up, hidden, rows, hidden, TT_UNIT_TANH, e);
    if (!st)
        st = s->op.linear(s, v->class_x, d, v->class_up, hidden, rows, c->down, true, e);
    return st ? st : class_logits(t, v->class_x, rows, logits, stats, e);
}
