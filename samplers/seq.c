/* seq.c - the bookkeeping of one sequence. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/constraint.h"
#include "samplers/sampler.h"

enum { ALIGN = 64, LISTS = 16 }; /* every list may lose up to ALIGN bytes to alignment */

size_t tt_seq_bytes(const tt_sampler *s, int32_t columns, int32_t n_top, int32_t n_bias)
{
    size_t c = (size_t)columns;
    size_t per_column = 4 + 1 + 4 + 4 + 2 * (size_t)n_top * sizeof(tt_id_value) + 8 +
                        s->column_size + (s->needs & TT_KIND_RECURRENT ? 4 : 0);
    return LISTS * ALIGN + s->state_size + c * per_column +
           2 * ((size_t)n_bias + 4 + TT_MAX_NEVER) * sizeof(tt_id_value);
}

size_t tt_seq_step_bytes(const tt_sampler *s, int32_t columns, int32_t n_bias)
{
    size_t bias = s->biases_columns ? ((size_t)n_bias + 1) * sizeof(tt_id_value) : 0;
    return (size_t)columns * (sizeof(tt_ask) + 32 + s->step_column_size + bias) + LISTS * ALIGN;
}

int32_t tt_block_columns(const tt_params *p, int32_t columns, int32_t prompt)
{
    int32_t rest = columns - prompt;
    return p->block_length > 0 && p->block_length < rest ? p->block_length : rest;
}

size_t tt_features_bytes(const tt_features *f)
{
    size_t floats = (size_t)f->vectors * ((size_t)f->width + (size_t)f->terms);
    return floats * sizeof(float) + 2 * ALIGN;
}

static int by_id(const void *a, const void *b)
{
    const tt_id_value *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool is_never(const tt_seq *q, int32_t id)
{
    bool never = id == q->mask_id;
    for (int32_t i = 0; q->info && i < q->info->nevers; i++)
        never |= q->info->never[i] == id;
    return never;
}

static tt_status copy_bias(tt_seq *q, const tt_id_value *bias, tt_err *e)
{
    tt_id_value *list = TT_TAKE(q->arena, q->n_bias + 1 + TT_MAX_NEVER, tt_id_value);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for %d logit biases", q->n_bias);
    int32_t n = 0;
    for (int32_t i = 0; i < q->n_bias; i++)
        if (!is_never(q, bias[i].id))
            list[n++] = bias[i];
    if (q->mask_id >= 0) /* no sampler ever emits the mask */
        list[n++] = (tt_id_value){q->mask_id, -INFINITY};
    for (int32_t i = 0; q->info && i < q->info->nevers; i++)
        if (q->info->never[i] != q->mask_id)
            list[n++] = (tt_id_value){q->info->never[i], -INFINITY};
    qsort(list, (size_t)n, sizeof *list, by_id);
    for (int32_t i = 1; i < n; i++)
        if (list[i].id == list[i - 1].id)
            return tt_fail_param(e, "logit_bias", "invalid_value", "token %d is given twice",
                                 list[i].id);
    q->bias = list;
    q->n_bias = n;
    return TT_OK;
}

tt_status tt_seq_begin(tt_seq *q, const int32_t *id, const uint8_t *open, const tt_id_value *bias,
                       tt_err *e)
{
    size_t n = (size_t)q->columns;
    q->id = TT_TAKE(q->arena, n, int32_t);
    uint8_t *fixed = TT_TAKE(q->arena, n, uint8_t);
    q->step_of = TT_TAKE(q->arena, n, int32_t);
    q->logprob = TT_TAKE(q->arena, n, float);
    q->top = q->n_top ? TT_TAKE(q->arena, n * (size_t)q->n_top, tt_id_value) : NULL;
    bool recurs = q->sampler && q->sampler->needs & TT_KIND_RECURRENT;
    q->recurrences = recurs ? TT_TAKE(q->arena, n, int32_t) : NULL;
    if (!q->id || !fixed || !q->step_of || !q->logprob || (q->n_top && !q->top) ||
        (recurs && !q->recurrences))
        return tt_fail(e, TT_ENOMEM, "no memory for a canvas of %d columns", q->columns);
    for (size_t c = 0; c < n; c++) {
        fixed[c] = !open[c];
        q->id[c] = open[c] ? q->mask_id : id[c];
    }
    q->fixed = fixed;
    tt_features *f = &q->features;
    f->vector = f->vectors ? TT_TAKE(q->arena, f->vectors * f->width, float) : NULL;
    f->logit = f->terms ? TT_TAKE(q->arena, f->vectors * f->terms, float) : NULL;
    if ((f->vectors && !f->vector) || (f->terms && !f->logit))
        return tt_fail(e, TT_ENOMEM, "no memory for %d vectors", f->vectors);
    return copy_bias(q, bias, e);
}

static void log_change(tt_seq *q, tt_change change)
{
    change.step = q->step + 1;
    if (q->log)
        tt_buf_add(q->log, (const char *)&change, sizeof change);
}

static bool put(tt_seq *q, int32_t c, int32_t id, float logprob, const tt_id_value *top,
                bool draft)
{
    if (q->reach && !tt_reach_admits(q, c, id))
        return false;
    if (q->id[c] == q->mask_id)
        q->committed++;
    else if (q->id[c] != id)
        q->revised++;
    q->id[c] = id;
    q->step_of[c] = q->step + 1;
    q->logprob[c] = logprob;
    log_change(q, (tt_change){.column = c, .id = id, .logprob = logprob, .draft = draft});
    if (q->top && top)
        memcpy(q->top + (size_t)c * (size_t)q->n_top, top, (size_t)q->n_top * sizeof *q->top);
    if (q->reach)
        tt_reach_update(q, c);
    return true;
}

bool tt_seq_put(tt_seq *q, int32_t c, int32_t id, float logprob, const tt_id_value *top)
{
    return put(q, c, id, logprob, top, false);
}

void tt_seq_insert(tt_seq *q, int32_t c, int32_t id, float logprob, const tt_id_value *top)
{
    int32_t end = c;
    while (!tt_seq_open_at(q, end))
        end++;
    size_t n = (size_t)(end - c), k = (size_t)q->n_top;
    memmove(q->id + c + 1, q->id + c, n * sizeof *q->id);
    memmove(q->step_of + c + 1, q->step_of + c, n * sizeof *q->step_of);
    memmove(q->logprob + c + 1, q->logprob + c, n * sizeof *q->logprob);
    if (q->top)
        memmove(q->top + ((size_t)c + 1) * k, q->top + (size_t)c * k, n * k * sizeof *q->top);
    if (q->top && top)
        memcpy(q->top + (size_t)c * k, top, k * sizeof *q->top);
    q->id[c] = id;
    q->step_of[c] = q->step + 1;
    q->logprob[c] = logprob;
    q->committed++;
    log_change(q, (tt_change){.column = c, .id = id, .logprob = logprob, .insert = true});
}

void tt_seq_draft(tt_seq *q, int32_t c, int32_t id, float logprob, const tt_id_value *top)
{
    put(q, c, id, logprob, top, true);
}

void tt_seq_remask(tt_seq *q, int32_t c)
{
    q->revised++;
    q->id[c] = q->mask_id;
    q->step_of[c] = 0;
    q->logprob[c] = 0;
    log_change(q, (tt_change){.column = c, .id = q->mask_id});
    if (q->reach)
        tt_reach_update(q, c);
}

bool tt_seq_commit(tt_seq *q, const tt_result *r, int32_t i)
{
    const tt_row_stats *st = &r->stats[i];
    return tt_seq_put(q, r->plan->ask[i].column, st->drawn, st->logprob,
                      r->top ? r->top + (size_t)i * (size_t)q->n_top : NULL);
}
