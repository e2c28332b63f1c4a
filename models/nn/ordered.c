/* ordered.c - see ordered.h. */
#include "models/nn/ordered.h"

#include <stdlib.h>
#include <string.h>

#include "models/kv.h"
#include "models/memo.h"
#include "models/nn/acts.h"

/* --- levels --- */

int32_t tt_ordered_level_end(const tt_ordered *g, int32_t p)
{
    if (p < g->ahead || !g->ahead)
        return p + 1;
    int32_t end = 2 * g->ahead;
    while (end <= p)
        end *= 2;
    return end;
}

/* The row of the table that position p reads, given the tokens before its level. */
static int32_t input(const tt_ordered *g, const tt_ordered_state *st, int32_t p, bool conditional)
{
    int32_t codes = g->base.info.layout.codes;
    if (p == 0 && g->text)
        return codes;
    if (p == 0)
        return codes + g->specials + (conditional ? st->label[0] : g->classes);
    if (p < g->ahead || !g->ahead)
        return st->base.id[p - 1];
    int32_t begin = tt_ordered_level_end(g, p) / 2, i = p - begin; /* of the level; place in it */
    int32_t before = begin == g->ahead ? 1 : begin / 2; /* tokens of the level before */
    return i < before ? st->base.id[begin - before + i] : codes + i - 1;
}

/* --- labels --- */

/* The first label's row comes from the table; the others' sum is kept to be added to it. */
static tt_status sum_labels(tt_ordered *g, tt_ordered_state *st, tt_err *e)
{
    int64_t d = g->body->info.width;
    if (st->labels < 2)
        return TT_OK;
    float *sum = calloc((size_t)d, sizeof *sum);
    tt_status s = sum ? tt_memo_open(&st->more, g->body, TT_MEMO_MEAN, 1, e)
                      : tt_fail(e, TT_ENOMEM, "no memory for labels");
    for (int32_t i = 1; i < st->labels && !s; i++)
        for (int64_t j = 0; j < d; j++)
            sum[j] += g->label_row[st->label[i] * d + j];
    if (!s)
        s = tt_acts_put(g->base.stream, g->base.info.act, tt_memo_row(st->more, 0), sum, d, e);
    if (!s)
        st->more->filled[0] = 1;
    free(sum);
    return s;
}

static tt_status read_labels(tt_ordered *g, tt_ordered_state *st, const tt_condition *c, tt_err *e)
{
    const tt_generator_info *info = &g->base.info;
    for (int32_t i = 0, first = 0; i < info->groups; first += info->group[i++])
        if (c->label[i] >= 0)
            st->label[st->labels++] = first + c->label[i];
    if (!st->labels)
        st->label[0] = g->classes;
    return sum_labels(g, st, e);
}

/* --- states --- */

static tt_status one_text(tt_ordered *g, tt_trunk_context **out, const float *text, int32_t rows,
                          tt_err *e)
{
    tt_trunk *t = &((tt_trunk_model *)g->body)->trunk;
    if (rows < 1 || rows > 4096)
        return tt_fail(e, TT_EINVAL, "a text of %d rows", rows);
    float *seen = malloc((size_t)(rows * t->seen_width) * sizeof *seen);
    tt_status s = seen ? g->project(g, seen, text, rows, e)
                       : tt_fail(e, TT_ENOMEM, "no memory for a text of %d rows", rows);
    if (!s)
        s = tt_trunk_context_open(out, t, seen, rows, e);
    free(seen);
    return s;
}

/* What both branches attend to. */
static tt_status read_text(tt_ordered *g, tt_ordered_state *st, const tt_condition *c, tt_err *e)
{
    if (!c->text)
        return tt_fail(e, TT_EINVAL, "%s needs a text", g->base.info.family);
    tt_status s = one_text(g, &st->branch[0].text, c->text, c->text_rows, e);
    if (!s && c->no_text)
        s = one_text(g, &st->branch[1].text, c->no_text, c->no_text_rows, e);
    return s;
}

tt_status tt_ordered_begin(tt_generator *base, tt_generator_state *state, const tt_condition *c,
                           tt_err *e)
{
    tt_ordered *g = (tt_ordered *)base;
    tt_ordered_state *st = (tt_ordered_state *)state;
    int32_t p = 0; /* tokens are known level by level, from the first on */
    while (p < g->base.info.layout.tokens && state->id[p] != g->base.info.mask_id)
        p++;
    if (p < state->known)
        return tt_fail(e, TT_EINVAL, "token %d is hidden, but later ones are given: %s makes them "
                       "in order", p, g->base.info.family);
    int32_t end = 0;
    while (end < p)
        end = tt_ordered_level_end(g, end);
    if (end != p)
        return tt_fail(e, TT_EINVAL, "%d tokens are given; a level ends at %d", p, end);
    tt_status s = tt_kv_open(&st->branch[0].kv, g->body, g->base.info.layout.tokens, e);
    if (!s)
        s = g->text ? read_text(g, st, c, e) : read_labels(g, st, c, e);
    if (s)
        tt_ordered_drop(state);
    return s;
}

void tt_ordered_drop(tt_generator_state *state)
{
    tt_ordered_state *st = (tt_ordered_state *)state;
    for (int i = 0; i < 2; i++) {
        tt_kv_close(st->branch[i].kv);
        tt_trunk_context_close(st->branch[i].text);
    }
    tt_memo_close(st->more);
}

/* Texts are shared; keys and values go their own way. */
static tt_status copy_store(tt_ordered *g, tt_ordered_branch *to, const tt_ordered_branch *from,
                            tt_err *e)
{
    to->text = tt_trunk_context_share(from->text);
    if (!from->kv)
        return TT_OK;
    tt_status s = tt_kv_open(&to->kv, g->body, g->base.info.layout.tokens, e);
    if (!s)
        s = tt_kv_copy(to->kv, from->kv, from->fed, e);
    to->fed = from->fed;
    return s;
}

tt_status tt_ordered_fork(tt_generator_state *to, const tt_generator_state *from, tt_err *e)
{
    tt_ordered *g = (tt_ordered *)from->generator;
    tt_ordered_state *t = (tt_ordered_state *)to;
    const tt_ordered_state *f = (const tt_ordered_state *)from;
    memcpy(t->label, f->label, sizeof t->label);
    t->labels = f->labels;
    tt_status s = copy_store(g, &t->branch[0], &f->branch[0], e);
    if (!s && !f->branch[0].fed)
        s = sum_labels(g, t, e);
    return s ? s : copy_store(g, &t->branch[1], &f->branch[1], e);
}

/* --- a step --- */

/* Lists of one pass. */
typedef struct {
    int32_t *id, *place;
    float *mix;  /* of each row: 1 where more labels are added */
    bool mixes;
    tt_pass_seq *seq;
    tt_want *want;
    tt_row_stats *stats;
    float *logits;
    int64_t rows, seqs, wants;
} lists;

static void lists_close(lists *l)
{
    free(l->id);
    free(l->place);
    free(l->mix);
    free(l->seq);
    free(l->want);
    free(l->stats);
    free(l->logits);
}

static tt_status lists_open(lists *l, const tt_ordered *g, int64_t calls, int64_t wants,
                            bool logits, tt_err *e)
{
    size_t rows = (size_t)calls * 2 * (size_t)g->base.info.layout.tokens;
    *l = (lists){.id = malloc(rows * sizeof *l->id),
                 .place = malloc(rows * sizeof *l->place),
                 .mix = malloc(rows * sizeof *l->mix),
                 .seq = calloc((size_t)calls * 2, sizeof *l->seq),
                 .want = calloc((size_t)wants + 1, sizeof *l->want),
                 .stats = calloc((size_t)wants + 1, sizeof *l->stats)};
    if (logits)
        l->logits = malloc((size_t)(wants * g->base.info.layout.codes) * sizeof *l->logits);
    if (l->id && l->place && l->mix && l->seq && l->want && l->stats && (l->logits || !logits))
        return TT_OK;
    lists_close(l);
    return tt_fail(e, TT_ENOMEM, "no memory for a step of %lld images", (long long)calls);
}

/* One branch's next level, or when tokens come one by one all that are known; returns the row of
 * position `first`. */
static int64_t feed(lists *l, const tt_ordered *g, tt_ordered_state *st, int which, int32_t first)
{
    tt_ordered_branch *b = &st->branch[which];
    int64_t row = l->rows;
    int32_t begin = b->fed, end = tt_ordered_level_end(g, g->ahead ? begin : first);
    for (int32_t p = begin; p < end; p++) {
        bool more = p == 0 && which == 0 && st->more;
        l->id[l->rows] = input(g, st, p, which == 0);
        l->mix[l->rows] = more;
        l->mixes |= more;
        l->place[l->rows++] = p;
    }
    l->seq[l->seqs++] = (tt_pass_seq){.row = row, .rows = end - begin, .see_end = end,
                                      .see = g->ahead ? TT_SEE_ALL : TT_SEE_CAUSAL,
                                      .kv = b->kv, .context = b->text,
                                      .memo = which == 0 ? st->more : NULL};
    b->fed = end;
    return row + first - begin;
}

static tt_status run(tt_ordered *g, lists *l, tt_err *e)
{
    tt_pass p = {.rows = l->rows,
                 .id = l->id,
                 .position = l->place,
                 .column = l->place,
                 .mix = l->mixes ? l->mix : NULL,
                 .seqs = l->seqs,
                 .seq = l->seq,
                 .wants = l->wants,
                 .want = l->want,
                 .stats = l->stats,
                 .logits = l->logits};
    tt_status s = l->rows ? tt_model_run(g->body, &p, e) : TT_OK;
    l->rows = l->seqs = 0;
    l->mixes = false;
    return s;
}

static int branches(const tt_generator_call *c)
{
    return c->guided || c->cfg_scale != 0 ? 2 : 1;
}

/* Levels that are known but not fed yet, one of each branch at a time: none but where an image
 * began with given tokens, or its second branch begins late. */
static tt_status catch_up(tt_ordered *g, const tt_generator_call *call, int64_t calls, lists *l,
                          tt_err *e)
{
    tt_status s;
    int64_t fed;
    do {
        fed = 0;
        for (int64_t i = 0; i < calls; i++) {
            tt_ordered_state *st = (tt_ordered_state *)call[i].state;
            for (int b = 0; b < branches(&call[i]); b++)
                if (g->ahead && st->branch[b].fed < st->base.known) {
                    feed(l, g, st, b, st->branch[b].fed);
                    fed++;
                }
        }
        s = run(g, l, e);
    } while (fed && !s);
    return s;
}

static tt_status add_call(tt_ordered *g, lists *l, const tt_generator_call *c, tt_err *e)
{
    tt_ordered_state *st = (tt_ordered_state *)c->state;
    int32_t begin = st->base.known, end = tt_ordered_level_end(g, begin);
    for (int32_t i = 0; i < c->wants; i++)
        if (c->slot[i] < begin || c->slot[i] >= end)
            return tt_fail(e, TT_EINVAL, "token %d is wanted; the next level is %d to %d",
                           c->slot[i], begin, end - 1);
    int64_t with = feed(l, g, st, 0, begin), without = -1;
    if (branches(c) == 2)
        without = feed(l, g, st, 1, begin);
    for (int32_t i = 0; i < c->wants; i++)
        l->want[l->wants++] = (tt_want){.row = with + c->slot[i] - begin,
                                        .uncond = c->cfg_scale != 0
                                                      ? without + c->slot[i] - begin
                                                      : -1,
                                        .cfg_scale = c->cfg_scale,
                                        .draw = c->draw[i]};
    return TT_OK;
}

static void give_back(const tt_ordered *g, const lists *l, const tt_generator_call *call,
                      int64_t calls)
{
    size_t codes = (size_t)g->base.info.layout.codes, at = 0;
    for (int64_t i = 0; i < calls; i++) {
        size_t n = (size_t)call[i].wants;
        memcpy(call[i].stats, l->stats + at, n * sizeof *l->stats);
        if (call[i].logits)
            memcpy(call[i].logits, l->logits + at * codes, n * codes * sizeof *l->logits);
        at += n;
    }
}

tt_status tt_ordered_step(tt_generator *base, const tt_generator_call *call, int64_t calls,
                          tt_err *e)
{
    tt_ordered *g = (tt_ordered *)base;
    lists l;
    int64_t wants = 0;
    bool logits = false;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s; i++) {
        tt_ordered_state *st = (tt_ordered_state *)call[i].state;
        wants += call[i].wants;
        logits |= call[i].logits != NULL;
        if (call[i].features)
            s = tt_fail(e, TT_EUNSUP, "%s has no features to give", g->base.info.family);
        else if (branches(&call[i]) == 2 && g->text && !st->branch[1].text)
            s = tt_fail(e, TT_EINVAL, "guidance needs the text to lead away from");
        else if (branches(&call[i]) == 2 && !st->branch[1].kv)
            s = tt_kv_open(&st->branch[1].kv, g->body, g->base.info.layout.tokens, e);
    }
    if (!s)
        s = lists_open(&l, g, calls, wants, logits, e);
    if (s)
        return s;
    s = catch_up(g, call, calls, &l, e);
    for (int64_t i = 0; i < calls && !s; i++)
        s = add_call(g, &l, &call[i], e);
    if (!s)
        s = run(g, &l, e);
    if (!s)
        give_back(g, &l, call, calls);
    lists_close(&l);
    return s;
}

/* As if nothing that is known were still to be fed. */
tt_status tt_ordered_work(tt_generator *base, const tt_generator_call *call, int64_t calls,
                          tt_generator_work *out, tt_err *e)
{
    const tt_ordered *g = (const tt_ordered *)base;
    const tt_trunk *t = &((tt_trunk_model *)g->body)->trunk;
    double d = (double)t->width, q = (double)(t->heads * t->head_dim);
    double kv = (double)(t->kv_heads * t->head_dim), layers = (double)t->layers;
    double row = d * (2 * q + 2 * kv + (t->ungated ? 2 : 3) * (double)t->ff);
    double head = d * (double)t->vocab;
    (void)e;
    for (int64_t i = 0; i < calls; i++) {
        const tt_ordered_state *st = (const tt_ordered_state *)call[i].state;
        int32_t end = tt_ordered_level_end(g, st->base.known);
        double rows = branches(&call[i]) * (double)(end - st->base.known);
        out->macs += layers * rows * (row + 2 * q * end) + call[i].wants * head;
    }
    out->weight_bytes = (layers * row + head) * (t->compute == TT_COMPUTE_F32 ? 4 : 2);
    return TT_OK;
}

size_t tt_ordered_step_bytes(const tt_generator *base, int64_t calls)
{
    const tt_ordered *g = (const tt_ordered *)base;
    int64_t tokens = g->ahead ? g->base.info.layout.tokens / 2 : g->base.info.layout.tokens;
    return tt_trunk_model_pass_bytes(g->body, 2 * calls * tokens, calls * tokens);
}

void tt_ordered_close(tt_generator *base)
{
    tt_ordered *g = (tt_ordered *)base;
    tt_model_close(g->body);
    free(g->label_row);
    free(g);
}

void tt_ordered_info(tt_ordered *g)
{
    tt_generator_info *info = &g->base.info;
    const tt_model_info *b = &g->body->info;
    info->layers = b->layers;
    info->width = b->width;
    info->heads = b->heads;
    info->head_dim = b->head_dim;
    info->parameters = b->parameters;
    info->weight_bytes = b->weight_bytes;
    info->state_bytes = 2 * b->kv_bytes_per_column * (size_t)info->layout.tokens;
    info->act = b->act;
    info->compute = b->compute;
}
