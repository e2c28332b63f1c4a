/* recur_block.c - a sandwich block of a recurrent-depth body, and where its attention finds keys
 * when columns were run to different depths. */
#include <math.h>

#include "models/nn/recur.h"

enum { SPANS = 256 }; /* handed to operations in groups, so that no list is allocated */

/* --- which entries of the core's keys and values are read --- */

/* The entry that recurrence entry `entry` reads of a column, or -1. */
static int32_t entry_read(const tt_kv *kv, int32_t column, int32_t entry, uint64_t seed)
{
    int32_t have = kv->depth[column];
    switch (kv->sharing.lookup) {
    case TT_LOOKUP_LATEST:
        return have > entry ? entry : have - 1;
    case TT_LOOKUP_PRESENT:
        return have > entry ? entry : -1;
    case TT_LOOKUP_LAST:
        return have - 1;
    case TT_LOOKUP_RANDOM:
        break;
    }
    int32_t n = have > entry ? entry + 1 : have;
    tt_rng_block b = tt_philox(seed, (uint32_t)entry, (uint32_t)column, 0, UINT32_MAX);
    return n ? (int32_t)((uint64_t)b.v[0] * (uint64_t)n >> 32) : -1;
}

/* Lists a sequence's keys as rows of its store, counted from a core layer's first entry on. */
static void list_keys(const tt_recur_pass *r, const tt_pass_seq *q, int32_t entry, uint64_t seed,
                      tt_recur_seq *at)
{
    const tt_kv *kv = q->kv;
    int32_t *list = r->key_list + at->key_at;
    at->keys = at->earlier = 0;
    for (int32_t c = q->see_begin; c < q->see_end; c++) {
        int32_t from = entry_read(kv, c, entry, seed);
        if (from < 0)
            continue;
        list[at->keys++] = (int32_t)(2 * from * kv->core * kv->columns + c);
        at->earlier += c < r->p->column[q->row];
    }
}

static bool all_have(const tt_kv *kv, const tt_pass_seq *q, int32_t entry)
{
    for (int32_t c = q->see_begin; c < q->see_end; c++)
        if (kv->depth[c] <= entry)
            return false;
    return true;
}

/* Room for n gathered keys and as many values. */
static tt_status reserve_keys(tt_recur_pass *r, int64_t n, tt_err *e)
{
    tt_recur *m = r->m;
    tt_stream *s = m->base.stream;
    size_t bytes = 2 * (size_t)(n * m->trunk.width) * tt_dtype_size(m->trunk.act);
    if (bytes <= m->keys_bytes)
        return TT_OK;
    s->op.release(s, m->keys);
    m->keys = NULL;
    m->keys_bytes = 0;
    tt_status st = s->op.alloc(s, &m->keys, bytes, e);
    m->keys_bytes = st ? 0 : bytes;
    return st ? tt_context(e, st, "keys of %lld columns", (long long)n) : TT_OK;
}

tt_status tt_recur_choose_keys(tt_recur_pass *r, const tt_recur_group *g, int32_t recurrence,
                               tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    int64_t keys = 0;
    r->recurrence = recurrence;
    for (int64_t i = 0; i < g->parts; i++) {
        const tt_pass_seq *q = &r->p->seq[g->part[i].seq];
        tt_recur_seq *at = &r->seq[g->part[i].seq];
        at->keys = 0;
        if (!q->kv)
            continue;
        int32_t entry = tt_kv_entry(q->kv, recurrence);
        for (int64_t row = q->row; row < q->row + q->rows; row++) {
            uint16_t *depth = &q->kv->depth[r->p->column[row]];
            *depth = *depth > entry ? *depth : (uint16_t)(entry + 1);
        }
        at->key_at = keys;
        if (!all_have(q->kv, q, entry))
            list_keys(r, q, entry, tt_recur_depth(r, g->part[i].seq).seed, at);
        keys += at->keys;
    }
    tt_status st = keys ? reserve_keys(r, keys, e) : TT_OK;
    if (!st && keys)
        st = s->op.upload(s, r->key_row, r->key_list, (size_t)keys * sizeof *r->key_list, e);
    r->keys = keys;
    return st;
}

/* --- attention --- */

static int64_t slot_of(const tt_recur_pass *r, const tt_kv *kv, int64_t layer)
{
    return tt_kv_slot(kv, layer, r->recurrence < 0 ? 0 : tt_kv_entry(kv, r->recurrence));
}

/* Copies of a sequence's keys and values in this layer, one after the other. */
static tt_status gather_keys(tt_recur_pass *r, const tt_pass_seq *q, const tt_recur_seq *at,
                             int64_t layer, tt_act *k, tt_act *v, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    int64_t d = q->kv->width, slot = tt_kv_slot(q->kv, layer, 0);
    const int32_t *row = r->key_row + at->key_at;
    tt_status st = s->op.gather(s, k, d, tt_kv_key(q->kv, slot, 0), d, row, at->keys, d, e);
    return st ? st
              : s->op.gather(s, v, d, tt_kv_value(q->kv, slot, 0), d, row, at->keys, d, e);
}

static tt_status fill_span(tt_recur_pass *r, const tt_recur_part *part, int64_t layer,
                           tt_span *out, tt_err *e)
{
    const tt_trunk *t = &r->m->trunk;
    const tt_pass_seq *q = &r->p->seq[part->seq];
    const tt_recur_seq *at = &r->seq[part->seq];
    int64_t ld = 3 * t->width;
    *out = (tt_span){.query_row = part->row,
                     .query_rows = part->rows,
                     .query_column = part->rows ? r->p->column[q->row] : 0,
                     .keys = q->see_end - q->see_begin,
                     .key_column = q->see_begin,
                     .see = q->see,
                     .block = q->block};
    if (!q->kv) {
        tt_act *own = tt_trunk_at(t, r->qkv, (part->row + q->see_begin) * ld + t->width);
        out->k = own;
        out->v = tt_trunk_at(t, own, t->width);
        out->ld_kv = ld;
        return TT_OK;
    }
    out->ld_kv = t->width;
    if (r->recurrence >= 0 && at->keys) {
        tt_act *k = tt_recur_at(r, r->m->keys, at->key_at);
        tt_act *v = tt_recur_at(r, r->m->keys, r->keys + at->key_at);
        out->k = k;
        out->v = v;
        out->keys = at->keys;
        out->key_column = 0;
        out->query_column = at->earlier;
        return gather_keys(r, q, at, layer, k, v, e);
    }
    out->k = tt_kv_key(q->kv, slot_of(r, q->kv, layer), q->see_begin);
    out->v = tt_kv_value(q->kv, slot_of(r, q->kv, layer), q->see_begin);
    return TT_OK;
}

static tt_status attend(tt_recur_pass *r, const tt_recur_group *g, int64_t layer, tt_err *e)
{
    const tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    tt_span span[SPANS];
    float scale = (float)(1.0 / sqrt((double)t->head_dim));
    tt_status st = TT_OK;
    for (int64_t i = 0; i < g->parts && !st; i += SPANS) {
        int64_t n = g->parts - i < SPANS ? g->parts - i : SPANS;
        for (int64_t j = 0; j < n && !st; j++)
            st = fill_span(r, &g->part[i + j], layer, &span[j], e);
        if (!st)
            st = s->op.attention(s, r->att, t->width, r->qkv, 3 * t->width, span, n, t->heads,
                                 t->heads, t->head_dim, scale, t->compute, e);
    }
    return st;
}

/* Rotates queries and keys, and keeps the keys and values of sequences that have a store. */
static tt_status rotate(tt_recur_pass *r, const tt_recur_group *g, int64_t layer, tt_err *e)
{
    const tt_trunk *t = &r->m->trunk;
    tt_store store[SPANS];
    tt_status st = TT_OK;
    for (int64_t i = 0; i < g->parts && !st;) {
        int64_t row = g->part[i].row, end = row, stores = 0;
        for (; i < g->parts && stores < SPANS; i++) {
            const tt_kv *kv = r->p->seq[g->part[i].seq].kv;
            end = i + 1 < g->parts ? g->part[i].row + g->part[i].rows : g->rows;
            if (kv)
                store[stores++] = (tt_store){.row = g->part[i].row - row,
                                             .rows = g->part[i].rows,
                                             .k = tt_kv_key(kv, slot_of(r, kv, layer), 0),
                                             .v = tt_kv_value(kv, slot_of(r, kv, layer), 0)};
        }
        st = t->stream->op.rope_store(t->stream, tt_trunk_at(t, r->qkv, row * 3 * t->width),
                                      3 * t->width, g->cos + row * t->half,
                                      g->sin + row * t->half, end - row, t->heads, t->heads,
                                      t->head_dim, t->half, store, stores, g->column + row, e);
    }
    return st;
}

/* --- the block --- */

static tt_status norm(tt_recur_pass *r, tt_act *y, const tt_act *x, const float *w, int64_t rows,
                      tt_err *e)
{
    const tt_trunk *t = &r->m->trunk;
    return t->stream->op.rmsnorm(t->stream, y, t->width, x, t->width, w, rows, t->width, t->eps,
                                 e);
}

/* x = norm(x) by w, h = norm(x) by v. */
static tt_status norm_twice(tt_recur_pass *r, tt_act *x, const float *w, const float *v,
                            int64_t rows, tt_err *e)
{
    const tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    int64_t d = t->width;
    if (s->op.rmsnorm_twice)
        return s->op.rmsnorm_twice(s, r->h, d, v, x, d, x, d, w, rows, d, t->eps, e);
    tt_status st = norm(r, x, x, w, rows, e);
    return st ? st : norm(r, r->h, x, v, rows, e);
}

/* h is norm1 of x already; next: that of the block which follows at once, or NULL. */
static tt_status block(tt_recur_pass *r, const tt_recur_group *g, int64_t layer, tt_act *x,
                       const float *next, tt_err *e)
{
    tt_trunk *t = &r->m->trunk;
    tt_stream *s = t->stream;
    const tt_trunk_layer *l = &t->layer[layer];
    int64_t d = t->width, n = g->rows;
    tt_status st = s->op.linear(s, r->qkv, 3 * d, r->h, d, n, l->qkv, false, e);
    if (!st)
        st = rotate(r, g, layer, e);
    if (!st)
        st = attend(r, g, layer, e);
    if (!st)
        st = s->op.linear(s, x, d, r->att, d, n, l->out, true, e);
    if (!st)
        st = norm_twice(r, x, l->after1, l->norm2, n, e);
    const tt_trunk_space mlp = {.h = r->h, .mlp = r->mlp};
    const tt_trunk_rows rows = {.rows = n, .x = x};
    if (!st)
        st = tt_trunk_mlp(t, layer, &rows, &mlp, e);
    if (st)
        return st;
    return next ? norm_twice(r, x, l->after2, next, n, e) : norm(r, x, x, l->after2, n, e);
}

tt_status tt_recur_blocks(tt_recur_pass *r, const tt_recur_group *g, int64_t first, int64_t count,
                          tt_act *x, tt_err *e)
{
    const tt_trunk_layer *l = &r->m->trunk.layer[first];
    tt_status st = count ? norm(r, r->h, x, l->norm1, g->rows, e) : TT_OK;
    for (int64_t i = 0; i < count && !st; i++)
        st = block(r, g, first + i, x, i + 1 < count ? l[i + 1].norm1 : NULL, e);
    return st;
}
