/* recur_run.c - a pass through a recurrent-depth body: see recur.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/recur.h"

tt_depth tt_recur_depth(const tt_recur_pass *r, int64_t seq)
{
    const tt_depth *d = r->p->seq[seq].depth;
    return d ? *d : (tt_depth){.recurrences = r->m->base.info.recurrence, .init_scale = 1};
}

/* --- memory of a pass --- */

static size_t take(size_t *at, size_t bytes)
{
    size_t start = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return start;
}

/* Lays the lists out from base and returns the bytes they take. */
static size_t lay_lists(int64_t rows, int64_t wants, int64_t states, char *base, tt_recur_lists *l)
{
    size_t at = 0, r = (size_t)rows;
#define LIST(member, n) l->member = (void *)(base + take(&at, (size_t)(n) * sizeof *l->member))
    LIST(fresh, r), LIST(noise, r);
    LIST(s_row, r), LIST(x_row, r), LIST(h_row, r);
    LIST(state_from, r), LIST(embed_from, r), LIST(against, r), LIST(before, r);
    LIST(keep_from, r), LIST(past_from, r), LIST(state_to, r), LIST(embed_to, r);
    LIST(past_to, r);
    LIST(id, r), LIST(position, r), LIST(column, r), LIST(iota, r);
    LIST(want_row, wants), LIST(state_row, states);
    LIST(packed_position, r), LIST(packed_column, r), LIST(packed_from, r);
    LIST(scale, r), LIST(zero, r), LIST(one, r), LIST(minus, r);
    LIST(embed_new, r), LIST(embed_old, r), LIST(noise_keep, r), LIST(noise_add, r);
    LIST(fresh_scale, r), LIST(noise_scale, r);
#undef LIST
    return at;
}

/* Sizes of a pass as it is run. Padding rows are token 0 at position 0 and belong to no sequence.
 */
typedef struct {
    int64_t rows, wants, states, keys;
    bool recorded; /* between pass_begin and pass_end */
} shape;

enum { SPANS = 256, HEAD_CHUNK = 256 };

/* Lays device memory out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(const tt_recur *m, const shape *n, bool moves, bool sights, char *base,
                      tt_recur_pass *r)
{
    const tt_trunk *t = &m->trunk;
    size_t at = 0, act = tt_dtype_size(t->act), rows = (size_t)n->rows, d = (size_t)t->width;
    size_t chunk = t->stream->op.glu ? TT_GLU_CHUNK : TT_MLP_CHUNK;
    size_t units = (rows < chunk ? rows : chunk) * (size_t)t->ff * (t->stream->op.glu ? 1 : 2);
    size_t half = (size_t)t->half;
    base = base ? base : (char *)64; /* any aligned address: only differences count */
#define AT(bytes) (void *)(base + take(&at, (bytes)))
    r->x = AT(rows * d * act);
    r->h = AT(rows * d * act);
    r->we = AT(rows * d * act);
    r->other_we = AT(rows * d * act);
    r->s = AT(rows * d * act);
    r->spare = AT(rows * d * act);
    r->done = AT(rows * d * act);
    r->begin = AT(moves ? rows * d * act : 0);
    r->check = AT(sights ? rows * d * act : 0);
    r->qkv = AT(rows * 3 * d * act);
    r->att = AT(rows * d * act);
    r->mlp = AT(units * act);
    r->want = AT((size_t)n->wants * d * act);
    r->cos = AT(rows * half * 4);
    r->sin = AT(rows * half * 4);
    r->packed_cos = AT(rows * half * 4);
    r->packed_sin = AT(rows * half * 4);
    r->key_row = AT((size_t)n->keys * 4);
    tt_recur_lists lists;
    r->lists = AT(r->lists_bytes = lay_lists(n->rows, n->wants, n->states, base, &lists));
#undef AT
    return at;
}

size_t tt_recur_pass_bytes(const tt_model *m, int64_t rows, int64_t wants)
{
    shape n = {.rows = rows, .wants = wants, .states = rows};
    tt_recur_pass r;
    return lay_out((const tt_recur *)m, &n, true, true, NULL, &r);
}

static tt_status reserve_device(tt_recur_pass *r, const shape *n, tt_err *e)
{
    tt_recur *m = r->m;
    tt_stream *s = m->base.stream;
    size_t need = lay_out(m, n, r->moves != 0, r->sights, NULL, r);
    if (need > m->space_bytes) {
        s->op.release(s, m->space);
        m->space = NULL;
        m->space_bytes = 0;
        tt_status st = s->op.alloc(s, &m->space, need, e);
        if (st)
            return tt_context(e, st, "working memory of %lld rows", (long long)n->rows);
        m->space_bytes = need;
    }
    lay_out(m, n, r->moves != 0, r->sights, m->space, r);
    lay_lists(n->rows, n->wants, n->states, r->lists, &r->device);
    return TT_OK;
}

static tt_status reserve_host(tt_recur_pass *r, const shape *n, tt_err *e)
{
    tt_recur *m = r->m;
    size_t at = r->lists_bytes, seqs = (size_t)r->p->seqs;
    size_t seq = take(&at, seqs * sizeof *r->seq);
    size_t all = take(&at, seqs * sizeof *r->all_part);
    size_t live = take(&at, seqs * sizeof *r->live_part);
    size_t key = take(&at, (size_t)n->keys * sizeof *r->key_list);
    size_t products = take(&at, (TT_MOVE_CURVATURE + 1) * (size_t)n->rows * sizeof *r->products);
    if (at > m->host_bytes) {
        free(m->host);
        m->host_bytes = 0;
        m->host = aligned_alloc(64, at);
        if (!m->host)
            return tt_fail(e, TT_ENOMEM, "no memory for a pass of %lld rows", (long long)n->rows);
        m->host_bytes = at;
    }
    memset(m->host, 0, at);
    lay_lists(n->rows, n->wants, n->states, m->host, &r->host);
    r->seq = (void *)(m->host + seq);
    r->all_part = (void *)(m->host + all);
    r->live_part = (void *)(m->host + live);
    r->key_list = (void *)(m->host + key);
    r->products = (void *)(m->host + products);
    return TT_OK;
}

/* --- checks and lists --- */

static tt_status check_seq(const tt_recur_pass *r, int64_t i, tt_err *e)
{
    const tt_pass_seq *q = &r->p->seq[i];
    const tt_depth *d = q->depth;
    if (!d)
        return TT_OK;
    if (d->recurrences < 1 || d->recurrences > TT_MAX_RECURRENCE)
        return tt_fail(e, TT_EINVAL, "pass: sequence %lld asks for %d recurrences, of 1..%d",
                       (long long)i, d->recurrences, TT_MAX_RECURRENCE);
    if (d->exit && d->exit->needs & TT_EXIT_LATENT && !r->m->decider)
        return tt_fail(e, TT_EUNSUP, "pass: exit rule '%s' needs a checkpoint with an exit decider",
                       d->exit->name);
    if ((d->exit && (d->exit_every < 1 || d->exit_first < 0)) || (d->move && !d->moved))
        return tt_fail(e, TT_EINVAL, "pass: sequence %lld checks every %d recurrences",
                       (long long)i, d->exit_every);
    for (int64_t k = 0; d->row && k < q->rows; k++)
        if ((d->row[k].from >= 0 && !d->latents) || d->row[k].against >= q->rows)
            return tt_fail(e, TT_EINVAL, "pass: row %lld of sequence %lld begins with a state that "
                           "is not kept", (long long)k, (long long)i);
    return TT_OK;
}

/* Every recurrence finds its own entry of every column. */
static bool keys_stand(const tt_recur_pass *r, const tt_pass_seq *q, int32_t recurrences)
{
    const tt_kv *kv = q->kv;
    if (!kv || kv->sharing.entries == 1 || !q->rows)
        return true;
    int32_t first = r->p->column[q->row];
    int32_t need = recurrences < kv->sharing.entries ? recurrences : kv->sharing.entries;
    for (int32_t c = q->see_begin; c < q->see_end && c < first; c++)
        if (kv->depth[c] < need)
            return false;
    return q->see_end <= first + q->rows;
}

/* Passes of one number of recurrences that return statistics alone are recorded where the backend
 * can: they always do the same. */
static bool recordable(const tt_recur_pass *r)
{
    const tt_pass *p = r->p;
    bool same = r->m->base.stream->op.pass_begin && !r->sights && !p->hidden && !p->logits &&
                !p->top && !p->states && p->seqs <= SPANS;
    for (int64_t i = 0; i < p->seqs && same; i++) {
        tt_depth d = tt_recur_depth(r, i);
        same = d.recurrences == tt_recur_depth(r, 0).recurrences && !d.draw &&
               keys_stand(r, &p->seq[i], d.recurrences);
    }
    return same;
}

static tt_status look(tt_recur_pass *r, shape *n, tt_err *e)
{
    const tt_pass *p = r->p;
    *n = (shape){.rows = p->rows, .wants = p->wants, .states = p->states};
    for (int64_t i = 0; i < p->seqs; i++) {
        const tt_pass_seq *q = &p->seq[i];
        tt_status st = check_seq(r, i, e);
        if (st)
            return st;
        if (q->kv && q->kv->sharing.entries > 1)
            n->keys += q->see_end - q->see_begin;
        r->moves |= q->depth && q->depth->move ? 1u << q->depth->move : 0;
        r->sights |= q->depth && q->depth->exit && q->depth->exit->value;
    }
    for (int64_t i = 0; i < p->wants; i++)
        if (p->want[i].uncond >= 0)
            return tt_fail(e, TT_EUNSUP, "pass: the %s family knows no guidance",
                           r->m->base.info.family);
    /* One want per sequence is room for its exit rule's row. */
    n->wants = r->sights && n->wants < p->seqs ? p->seqs : n->wants;
    n->recorded = recordable(r);
    const tt_stream *s = r->m->base.stream;
    if (n->recorded) {
        n->keys = 0;
        n->rows = s->op.bucket ? s->op.bucket(s, n->rows) : n->rows;
        n->wants = n->wants && s->op.bucket ? s->op.bucket(s, n->wants) : n->wants;
    }
    r->rows = n->rows;
    r->wants = n->recorded ? n->wants : p->wants;
    return TT_OK;
}

static void fill_lists(tt_recur_pass *r)
{
    const tt_pass *p = r->p;
    tt_recur_lists *l = &r->host;
    size_t ints = (size_t)p->rows * sizeof *l->id;
    memcpy(l->id, p->id, ints);
    memcpy(l->position, p->position, ints);
    memcpy(l->column, p->column, ints);
    for (int64_t i = 0; i < r->rows; i++) {
        l->iota[i] = (int32_t)i;
        l->scale[i] = sqrtf((float)r->m->trunk.width);
        l->one[i] = 1;
        l->minus[i] = -1;
        l->s_row[i] = tt_recur_at(r, r->s, i);
        l->x_row[i] = tt_recur_at(r, r->x, i);
        l->h_row[i] = tt_recur_at(r, r->h, i);
    }
    for (int64_t i = 0; i < p->seqs; i++) {
        r->all_part[i] = (tt_recur_part){.seq = i, .row = p->seq[i].row, .rows = p->seq[i].rows};
        tt_recur_list_states(r, i);
        /* What a column fed again had before is gone. */
        for (int64_t row = p->seq[i].row; p->seq[i].kv && row < p->seq[i].row + p->seq[i].rows;
             row++)
            p->seq[i].kv->depth[p->column[row]] = 0;
    }
    for (int64_t i = 0; i < p->wants; i++)
        l->want_row[i] = (int32_t)p->want[i].row;
    for (int64_t i = 0; i < p->states; i++)
        l->state_row[i] = (int32_t)p->state_row[i];
}

/* --- prelude --- */

static tt_status prelude(tt_recur_pass *r, const tt_recur_group *all, tt_err *e)
{
    tt_recur *m = r->m;
    tt_trunk *t = &m->trunk;
    tt_stream *s = t->stream;
    const tt_recur_lists *l = &r->device;
    int64_t d = t->width, n = all->rows;
    tt_status st = s->op.embed(s, r->x, d, t->table, l->id, n, e);
    if (!st)
        st = s->op.blend(s, r->x, d, r->x, d, l->scale, l->zero, n, d, e);
    if (!st)
        st = s->op.rope_table(s, r->cos, r->sin, l->position, t->inv_freq, n, t->half, e);
    if (!st)
        st = tt_recur_blocks(r, all, 0, m->prelude, r->x, e);
    if (!st && r->blends) {
        st = s->op.copy_rows(s, l->h_row, (const tt_act *const *)l->embed_from, n, d, e);
        if (!st)
            st = s->op.blend(s, r->x, d, r->h, d, l->embed_new, l->embed_old, n, d, e);
    }
    if (!st)
        st = s->op.copy_rows(s, l->embed_to, (const tt_act *const *)l->x_row, n, d, e);
    return st ? st : s->op.linear(s, r->we, d, r->x, d, n, m->read_embed, false, e);
}

/* --- recurrences --- */

/* Takes the states of the live sequences that are done to where all ends. */
static tt_status store_done(tt_recur_pass *r, const tt_recur_group *live, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    int64_t d = r->m->trunk.width;
    tt_status st = TT_OK;
    bool all = live->parts == r->p->seqs; /* so none was packed either */
    for (int64_t i = 0; i < live->parts; i++)
        all &= r->seq[live->part[i].seq].done;
    if (all)
        return s->op.gather(s, r->done, d, r->s, d, r->device.iota, live->rows, d, e);
    for (int64_t i = 0; i < live->parts && !st; i++) {
        const tt_recur_part *a = &live->part[i];
        if (r->seq[a->seq].done)
            st = s->op.gather(s, tt_recur_at(r, r->done, r->p->seq[a->seq].row), d,
                              tt_recur_at(r, r->s, a->row), d, r->device.iota, a->rows, d, e);
    }
    return st;
}

static void swap(tt_act **a, tt_act **b)
{
    tt_act *c = *a;
    *a = *b;
    *b = c;
}

/* Moves the rows of those that go on together. */
static tt_status pack(tt_recur_pass *r, tt_recur_group *live, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    const tt_trunk *t = &r->m->trunk;
    tt_recur_lists *l = &r->host;
    int64_t d = t->width, n = 0, parts = 0;
    for (int64_t i = 0; i < live->parts; i++) {
        tt_recur_part a = live->part[i];
        if (r->seq[a.seq].done)
            continue;
        for (int64_t k = 0; k < a.rows; k++) {
            int64_t row = r->p->seq[a.seq].row + k;
            l->packed_from[n + k] = (int32_t)(a.row + k);
            l->packed_position[n + k] = r->p->position[row];
            l->packed_column[n + k] = r->p->column[row];
        }
        r->live_part[parts++] = (tt_recur_part){.seq = a.seq, .row = n, .rows = a.rows};
        n += a.rows;
    }
    *live = (tt_recur_group){.rows = n, .parts = parts, .part = r->live_part,
                             .cos = r->packed_cos, .sin = r->packed_sin,
                             .column = r->device.packed_column};
    if (!n)
        return TT_OK;
    size_t ints = (size_t)n * sizeof *l->packed_from;
    tt_status st = s->op.upload(s, r->device.packed_from, l->packed_from, ints, e);
    if (!st)
        st = s->op.upload(s, r->device.packed_position, l->packed_position, ints, e);
    if (!st)
        st = s->op.upload(s, r->device.packed_column, l->packed_column, ints, e);
    if (!st)
        st = s->op.rope_table(s, r->packed_cos, r->packed_sin, r->device.packed_position,
                              t->inv_freq, n, t->half, e);
    if (!st)
        st = s->op.gather(s, r->spare, d, r->s, d, r->device.packed_from, n, d, e);
    if (!st)
        st = s->op.gather(s, r->other_we, d, r->we, d, r->device.packed_from, n, d, e);
    swap(&r->s, &r->spare);
    swap(&r->we, &r->other_we);
    return st ? st : s->op.sync(s, e); /* the host lists may change */
}

static tt_status recur_once(tt_recur_pass *r, const tt_recur_group *live, int32_t t, tt_err *e)
{
    tt_recur *m = r->m;
    tt_stream *s = m->base.stream;
    int64_t d = m->trunk.width, n = live->rows;
    tt_status st = tt_recur_choose_keys(r, live, t, e);
    if (!st)
        st = s->op.linear(s, r->spare, d, r->s, d, n, m->read_state, false, e);
    if (!st)
        st = s->op.add(s, r->spare, d, r->we, d, n, d, e);
    if (!st)
        st = tt_recur_blocks(r, live, m->prelude, m->core, r->spare, e);
    swap(&r->s, &r->spare);
    r->recurrence = -1;
    return st;
}

/* --- all of it --- */

static tt_status recur(tt_recur_pass *r, const tt_recur_group *all, tt_err *e)
{
    tt_recur_group live = *all;
    tt_status st = TT_OK;
    for (int32_t t = 0; live.rows && !st; t++) {
        st = recur_once(r, &live, t, e);
        if (!st)
            st = tt_recur_check_exits(r, &live, t, e);
        bool ends = false;
        for (int64_t i = 0; i < live.parts; i++) {
            int64_t seq = live.part[i].seq;
            tt_recur_seq *at = &r->seq[seq];
            at->done |= t + 1 >= tt_recur_depth(r, seq).recurrences;
            ends |= at->done;
            if (r->p->seq[seq].depth)
                r->p->seq[seq].depth->ran = t + 1;
        }
        if (!st && ends)
            st = store_done(r, &live, e);
        if (!st && ends)
            st = pack(r, &live, e);
    }
    return st;
}

static tt_status coda(tt_recur_pass *r, const tt_recur_group *all, tt_err *e)
{
    tt_recur *m = r->m;
    tt_trunk *t = &m->trunk;
    tt_stream *s = t->stream;
    int64_t d = t->width, n = all->rows;
    const tt_recur_lists *l = &r->device;
    tt_status st = s->op.rmsnorm(s, r->x, d, r->done, d, t->norm, n, d, t->eps, e);
    if (!st)
        st = s->op.copy_rows(s, l->state_to, (const tt_act *const *)l->keep_from, n, d, e);
    if (!st && r->p->hidden)
        st = tt_trunk_download(t, r->x, n, r->p->hidden + 3 * n * d, e);
    return st ? st : tt_recur_blocks(r, all, m->prelude + m->core, m->coda, r->x, e);
}

/* The draws of the chunk that starts at want i, padding included; returns how many. */
static int64_t fill_draws(const tt_recur_pass *r, int64_t i, tt_draw draw[HEAD_CHUNK])
{
    int64_t n = r->wants - i < HEAD_CHUNK ? r->wants - i : HEAD_CHUNK;
    for (int64_t k = 0; k < n; k++)
        draw[k] = i + k < r->p->wants ? r->p->want[i + k].draw
                                      : (tt_draw){.top_p = 1, .target = -1};
    return n;
}

/* stats: room for all wants as they are run. */
static tt_status head(tt_recur_pass *r, tt_row_stats *stats, tt_err *e)
{
    tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    const tt_pass *p = r->p;
    int64_t d = t->width, w = r->wants;
    tt_status st = s->op.gather(s, r->want, d, r->x, d, r->device.want_row, w, d, e);
    if (!st)
        st = s->op.rmsnorm(s, r->want, d, r->want, d, t->norm, w, d, t->eps, e);
    for (int64_t i = 0; i < w && !st; i += HEAD_CHUNK) {
        tt_draw draw[HEAD_CHUNK];
        int64_t n = fill_draws(r, i, draw);
        st = s->op.head(s, stats + i, p->top ? p->top + i * p->n_top : NULL,
                        p->top ? p->n_top : 0, p->logits ? p->logits + i * t->vocab : NULL,
                        tt_recur_at(r, r->want, i), d, n, t->head, draw, e);
    }
    return st;
}

/* Final hidden states of the rows asked for, as the head reads them. */
static tt_status save_states(tt_recur_pass *r, tt_err *e)
{
    tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    int64_t d = t->width, n = r->p->states;
    tt_status st = s->op.gather(s, r->h, d, r->x, d, r->device.state_row, n, d, e);
    if (!st)
        st = s->op.rmsnorm(s, r->h, d, r->h, d, t->norm, n, d, t->eps, e);
    return st ? st : tt_trunk_download(t, r->h, n, r->p->state, e);
}

static tt_status run(tt_recur_pass *r, tt_row_stats *stats, tt_err *e)
{
    const tt_pass *p = r->p;
    tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    int64_t d = t->width, n = r->rows; /* hidden states are asked for without padding */
    tt_recur_group all = {.rows = n, .parts = p->seqs, .part = r->all_part, .cos = r->cos,
                          .sin = r->sin, .column = r->device.column};
    tt_status st = s->op.upload(s, r->lists, r->m->host, r->lists_bytes, e);
    if (!st)
        st = prelude(r, &all, e);
    if (!st && p->hidden)
        st = tt_trunk_download(t, r->x, n, p->hidden, e);
    if (!st)
        st = tt_recur_begin_states(r, e);
    if (!st && r->sights)
        st = s->op.gather(s, r->check, d, r->s, d, r->device.iota, n, d, e);
    if (!st && p->hidden)
        st = tt_trunk_download(t, r->s, n, p->hidden + n * d, e);
    if (!st)
        st = recur(r, &all, e);
    if (!st && p->hidden)
        st = tt_trunk_download(t, r->done, n, p->hidden + 2 * n * d, e);
    if (!st && r->moves)
        st = tt_recur_measure(r, e);
    if (!st)
        st = coda(r, &all, e);
    if (!st && p->states)
        st = save_states(r, e);
    return st || !p->wants ? st : head(r, stats, e);
}

/* The power of two at or above n, as far as keys of passes tell lists apart. */
static int64_t power_above(int64_t n)
{
    int64_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

static int64_t head_key(const tt_recur_pass *r)
{
    const tt_stream *s = r->m->base.stream;
    tt_draw draw[HEAD_CHUNK];
    uint64_t key = 0;
    for (int64_t i = 0; i < r->wants && s->op.head_key; i += HEAD_CHUNK) {
        int64_t n = fill_draws(r, i, draw);
        key = key * 1099511628211u + (uint64_t)s->op.head_key(s, r->m->trunk.head, draw, n);
    }
    return (int64_t)(key >> 1);
}

static tt_status run_recorded(tt_recur_pass *r, tt_row_stats *stats, tt_err *e)
{
    const tt_pass *p = r->p;
    const tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    int64_t stores = 0, spans = 0;
    for (int64_t i = 0; i < p->seqs; i++) {
        stores += p->seq[i].kv != NULL;
        spans |= s->op.span_key ? s->op.span_key(s, p->seq[i].rows, t->head_dim) : 0;
    }
    const int64_t key[] = {(int64_t)(intptr_t)r->m, (int64_t)(intptr_t)r->m->space, r->rows,
                           r->wants, tt_recur_depth(r, 0).recurrences,
                           (int64_t)r->moves << 2 | r->blends << 1 | r->noise,
                           power_above(p->seqs), power_above(stores), head_key(r), spans};
    tt_status st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
    if (st)
        return st;
    st = run(r, stats, e);
    return s->op.pass_end(s, st, e);
}

/* As recorded or not; statistics of padding wants go to spare. */
static tt_status run_as(tt_recur_pass *r, const shape *n, tt_err *e)
{
    const tt_pass *p = r->p;
    tt_stream *s = r->m->base.stream;
    tt_row_stats *spare = NULL;
    if (r->wants > p->wants && !(spare = malloc((size_t)r->wants * sizeof *spare)))
        return tt_fail(e, TT_ENOMEM, "no memory for %lld statistics", (long long)r->wants);
    tt_row_stats *stats = spare ? spare : p->stats;
    tt_status st = n->recorded ? run_recorded(r, stats, e) : run(r, stats, e);
    if (!st)
        st = s->op.sync(s, e);
    if (!st && spare)
        memcpy(p->stats, spare, (size_t)p->wants * sizeof *spare);
    free(spare);
    if (!st)
        tt_recur_publish(r);
    return st;
}

tt_status tt_recur_run(tt_model *m, const tt_pass *p, tt_err *e)
{
    tt_recur_pass r = {.m = (tt_recur *)m, .p = p, .recurrence = -1};
    shape n;
    tt_status st = look(&r, &n, e);
    if (!st)
        st = reserve_device(&r, &n, e);
    if (!st)
        st = reserve_host(&r, &n, e);
    if (!st && r.sights)
        st = tt_recur_reserve_exits(&r, e);
    for (int64_t i = 0; i < p->seqs && !st; i++)
        if (p->seq[i].depth)
            p->seq[i].depth->ran = p->seq[i].depth->checks = 0;
    if (!st) {
        fill_lists(&r);
        st = run_as(&r, &n, e);
        for (int64_t i = 0; i < p->seqs; i++)
            free(r.seq[i].memory.row);
    }
    free(r.logits);
    free(r.latents);
    return st;
}
