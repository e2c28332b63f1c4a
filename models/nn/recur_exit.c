/* recur_exit.c - exit rules in a recurrent-depth pass: what they see after a recurrence. */
#include <math.h>
#include <stdlib.h>

#include "models/nn/recur.h"

enum { HEAD_CHUNK = 256 };

tt_status tt_recur_reserve_exits(tt_recur_pass *r, tt_err *e)
{
    size_t seqs = (size_t)r->p->seqs;
    r->logits = malloc(seqs * (size_t)r->m->trunk.vocab * sizeof *r->logits);
    r->latents = malloc(seqs * (size_t)r->m->trunk.width * sizeof *r->latents);
    return r->logits && r->latents ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for exit rules");
}

static const tt_exit_rule *rule_now(const tt_recur_pass *r, int64_t seq, int32_t t)
{
    const tt_depth *d = r->p->seq[seq].depth;
    bool due = d && d->exit && d->exit->value && t >= d->exit_first &&
               (t - d->exit_first) % d->exit_every == 0;
    return due ? d->exit : NULL;
}

static uint32_t needs_now(const tt_recur_pass *r, const tt_recur_group *live, int32_t t)
{
    uint32_t needs = 0;
    for (int64_t i = 0; i < live->parts; i++) {
        const tt_exit_rule *rule = rule_now(r, live->part[i].seq, t);
        needs |= rule ? rule->needs : 0;
    }
    return needs;
}

/* How far the states of all live rows moved since their last check, which this one replaces. */
static tt_status sight_states(tt_recur_pass *r, const tt_recur_group *live, int32_t t, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    int64_t d = r->m->trunk.width;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < live->parts && !st; i++) {
        const tt_recur_part *a = &live->part[i];
        const tt_exit_rule *rule = rule_now(r, a->seq, t);
        if (!rule || !(rule->needs & TT_EXIT_STATES))
            continue;
        tt_act *before = tt_recur_at(r, r->check, r->p->seq[a->seq].row);
        tt_act *now = tt_recur_at(r, r->s, a->row);
        st = s->op.row_products(s, r->products + a->row, now, d, before, d, a->rows, d, e);
        if (!st)
            st = s->op.gather(s, before, d, now, d, r->device.iota, a->rows, d, e);
    }
    return st ? st : s->op.sync(s, e);
}

/* Logits of the last row of every live sequence: the coda runs on all live rows, as it does in the
 * end. Row i of r->logits and r->latents is that of live part i. */
static tt_status sight_logits(tt_recur_pass *r, const tt_recur_group *live, tt_err *e)
{
    const tt_recur *body = r->m;
    tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    int64_t d = t->width, rows = live->rows, parts = live->parts;
    for (int64_t i = 0; i < parts; i++)
        r->host.packed_from[i] = (int32_t)(live->part[i].row + live->part[i].rows - 1);
    tt_status st = s->op.upload(s, r->device.packed_from, r->host.packed_from,
                                (size_t)parts * sizeof *r->host.packed_from, e);
    if (!st)
        st = s->op.rmsnorm(s, r->spare, d, r->s, d, t->norm, rows, d, t->eps, e);
    if (!st)
        st = s->op.gather(s, r->want, d, r->spare, d, r->device.packed_from, parts, d, e);
    if (!st)
        st = tt_trunk_download(t, r->want, parts, r->latents, e);
    if (!st)
        st = tt_recur_blocks(r, live, body->prelude + body->core, body->coda, r->spare, e);
    if (!st)
        st = s->op.gather(s, r->want, d, r->spare, d, r->device.packed_from, parts, d, e);
    if (!st)
        st = s->op.rmsnorm(s, r->want, d, r->want, d, t->norm, parts, d, t->eps, e);
    tt_row_stats stats[HEAD_CHUNK];
    tt_draw draw[HEAD_CHUNK];
    for (int64_t i = 0; i < HEAD_CHUNK; i++)
        draw[i] = (tt_draw){.top_p = 1, .target = -1};
    for (int64_t i = 0; i < parts && !st; i += HEAD_CHUNK) {
        int64_t m = parts - i < HEAD_CHUNK ? parts - i : HEAD_CHUNK;
        st = s->op.head(s, stats, NULL, 0, r->logits + i * t->vocab, tt_recur_at(r, r->want, i), d,
                        m, t->head, draw, e);
        if (!st)
            st = s->op.sync(s, e);
    }
    return st;
}

/* What the rule of live part i sees. */
static tt_exit_sight sight_of(const tt_recur_pass *r, const tt_recur_part *a, int64_t i)
{
    int64_t vocab = r->m->trunk.vocab;
    tt_exit_sight sight = {.vocab = vocab,
                           .decider = r->m->decider,
                           .logits = r->logits ? r->logits + i * vocab : NULL,
                           .latent = r->latents ? r->latents + i * r->m->trunk.width : NULL};
    double moved = 0, cosine = 0;
    for (int64_t k = 0; k < a->rows; k++) {
        const tt_row_products *p = &r->products[a->row + k];
        double norms = sqrt((double)p->xx) * sqrt((double)p->yy);
        moved += sqrt((double)p->dd / (double)p->xx) / (double)a->rows;
        cosine += norms > 0 ? (double)p->xy / norms / (double)a->rows : 0;
    }
    sight.moved = moved;
    sight.turned = 1 - cosine;
    return sight;
}

tt_status tt_recur_check_exits(tt_recur_pass *r, const tt_recur_group *live, int32_t t, tt_err *e)
{
    uint32_t needs = needs_now(r, live, t);
    tt_status st = needs & TT_EXIT_STATES ? sight_states(r, live, t, e) : TT_OK;
    if (!st && needs & (TT_EXIT_LOGITS | TT_EXIT_LATENT))
        st = sight_logits(r, live, e);
    for (int64_t i = 0; i < live->parts && !st; i++) {
        const tt_recur_part *a = &live->part[i];
        const tt_exit_rule *rule = rule_now(r, a->seq, t);
        if (!rule)
            continue;
        tt_depth *d = r->p->seq[a->seq].depth;
        tt_exit_memory *memory = &r->seq[a->seq].memory;
        if (rule->needs & TT_EXIT_LOGITS && !memory->row &&
            !(memory->row = calloc((size_t)r->m->trunk.vocab, sizeof *memory->row)))
            return tt_fail(e, TT_ENOMEM, "no memory for an exit rule");
        tt_exit_sight sight = sight_of(r, a, i);
        double value = rule->value(memory, &sight);
        bool exits = rule->rising ? value >= d->exit_threshold : value < d->exit_threshold;
        memory->checks++;
        if (d->check)
            d->check[d->checks] = (tt_exit_check){value, exits};
        d->checks++;
        r->seq[a->seq].done = exits;
    }
    return st;
}
