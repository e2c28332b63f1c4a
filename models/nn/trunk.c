/* trunk.c - running a pass through the trunk. */
#include "models/nn/trunk.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/kv.h"

/* The MLP is row-wise, so it runs in chunks: its wide intermediate stays in cache and the working
 * memory does not grow with it. */
enum { MLP_CHUNK = 512 };

/* Views into the working memory for one pass. */
typedef struct {
    tt_act *x, *h;        /* rows x width: residual stream, normalised copy */
    tt_act *qkv;          /* rows x (heads + 2 kv_heads) * head_dim */
    tt_act *att;          /* rows x heads * head_dim */
    tt_act *mlp;          /* MLP_CHUNK x 2 ff */
    tt_act *last_x, *last_q; /* needed rows alone, for the last layer: width, heads * head_dim */
    float *cos, *sin;     /* rows x half */
    int32_t *id, *position, *iota;
    tt_act *want, *uncond; /* wants x width */
    int32_t *need_row;     /* rows the head needs, ascending */
    int32_t *want_row, *uncond_row;
    float *cfg;
} space;

static size_t take(size_t *at, size_t bytes)
{
    size_t start = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return start;
}

/* Lays the views out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(const tt_trunk *t, int64_t rows, int64_t wants, char *base, space *v)
{
    size_t at = 0, act = tt_dtype_size(t->stream->act), r = (size_t)rows, n = (size_t)wants;
    size_t d = (size_t)t->width, q = (size_t)((t->heads + 2 * t->kv_heads) * t->head_dim);
    size_t chunk = r < MLP_CHUNK ? r : MLP_CHUNK, needed = r < 2 * n ? r : 2 * n;
#define AT(bytes) (void *)(base + take(&at, (bytes)))
    space s;
    base = base ? base : (char *)64; /* any aligned address: only differences count */
    s.x = AT(r * d * act);
    s.h = AT(r * d * act);
    s.qkv = AT(r * q * act);
    s.att = AT(r * (size_t)(t->heads * t->head_dim) * act);
    s.mlp = AT(chunk * 2 * (size_t)t->ff * act);
    s.last_x = AT(needed * d * act);
    s.last_q = AT(needed * (size_t)(t->heads * t->head_dim) * act);
    s.cos = AT(r * (size_t)t->half * 4);
    s.sin = AT(r * (size_t)t->half * 4);
    s.id = AT(r * 4);
    s.position = AT(r * 4);
    s.iota = AT(r * 4);
    s.want = AT(n * d * act);
    s.uncond = AT(n * d * act);
    s.need_row = AT(needed * 4);
    s.want_row = AT(n * 4);
    s.uncond_row = AT(n * 4);
    s.cfg = AT(n * 4);
#undef AT
    if (v)
        *v = s;
    return at;
}

size_t tt_trunk_pass_bytes(const tt_trunk *t, int64_t rows, int64_t wants)
{
    return lay_out(t, rows, wants, NULL, NULL);
}

static tt_status reserve(tt_trunk *t, const tt_pass *p, space *v, tt_err *e)
{
    size_t need = lay_out(t, p->rows, p->wants, NULL, NULL);
    if (need > t->space_bytes) {
        t->stream->op.release(t->stream, t->space);
        t->space = NULL;
        t->space_bytes = 0;
        tt_status s = t->stream->op.alloc(t->stream, &t->space, need, e);
        if (s)
            return tt_context(e, s, "working memory of %lld rows", (long long)p->rows);
        t->space_bytes = need;
    }
    lay_out(t, p->rows, p->wants, t->space, v);
    return TT_OK;
}

static tt_act *shift(const tt_trunk *t, const tt_act *p, int64_t elements)
{
    return (char *)(uintptr_t)p + elements * (int64_t)tt_dtype_size(t->stream->act);
}

/* Copies this pass's keys and values of one sequence into its store. */
static tt_status store_rows(tt_trunk *t, const tt_pass *p, const tt_pass_seq *q, const space *v,
                            int64_t layer, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t width = t->kv_heads * t->head_dim, ld = (t->heads + 2 * t->kv_heads) * t->head_dim;
    for (int64_t r = q->row, run; r < q->row + q->rows; r += run) {
        for (run = 1; r + run < q->row + q->rows && p->column[r + run] == p->column[r] + run;)
            run++;
        const tt_act *k = shift(t, v->qkv, r * ld + t->heads * t->head_dim);
        tt_status st = s->op.gather(s, tt_kv_key(q->kv, layer, p->column[r]), width, k, ld,
                                    v->iota, run, width, e);
        if (!st)
            st = s->op.gather(s, tt_kv_value(q->kv, layer, p->column[r]), width,
                              shift(t, k, width), ld, v->iota, run, width, e);
        if (st)
            return st;
    }
    return TT_OK;
}

/* The query rows of a layer: all rows of the pass, or in the last layer those that the head
 * needs, packed. */
typedef struct {
    int64_t rows;
    tt_act *x;       /* residual stream of these rows */
    const tt_act *q; /* their queries */
    int64_t ldq;
    const int32_t *map; /* row of the pass -> row here; NULL: the same */
} queries;

/* Query rows of one sequence among the packed ones: [*first, *first + count). */
static int64_t packed_range(const tt_pass_seq *q, const int32_t *map, int64_t *first)
{
    int64_t n = 0;
    *first = 0;
    for (int64_t r = q->row; r < q->row + q->rows; r++)
        if (map[r] >= 0 && n++ == 0)
            *first = map[r];
    return n;
}

/* Which keys each sequence of the pass attends to in this layer. */
static void fill_span(const tt_trunk *t, const tt_pass *p, const tt_pass_seq *q, const space *v,
                      const queries *rows, int64_t layer, tt_span *out)
{
    int64_t ld = (t->heads + 2 * t->kv_heads) * t->head_dim, width = t->kv_heads * t->head_dim;
    *out = (tt_span){.query_row = q->row,
                     .query_rows = q->rows,
                     .query_column = q->rows ? p->column[q->row] : 0,
                     .keys = q->see_end - q->see_begin,
                     .key_column = q->see_begin,
                     .see = q->see,
                     .block = q->block};
    if (rows->map)
        out->query_rows = packed_range(q, rows->map, &out->query_row);
    if (q->kv) {
        out->k = tt_kv_key(q->kv, layer, q->see_begin);
        out->v = tt_kv_value(q->kv, layer, q->see_begin);
        out->ld_kv = width;
    } else {
        out->k = shift(t, v->qkv, (q->row + q->see_begin) * ld + t->heads * t->head_dim);
        out->v = shift(t, out->k, width);
        out->ld_kv = ld;
    }
}

enum { SPANS = 64 }; /* handed to the operation in groups, so that no list is allocated */

static tt_status attend(tt_trunk *t, const tt_pass *p, const space *v, const queries *rows,
                        int64_t layer, tt_err *e)
{
    tt_span span[SPANS];
    int64_t ldo = t->heads * t->head_dim;
    float scale = (float)(1.0 / sqrt((double)t->head_dim));
    for (int64_t i = 0; i < p->seqs; i += SPANS) {
        int64_t n = p->seqs - i < SPANS ? p->seqs - i : SPANS;
        for (int64_t j = 0; j < n; j++) {
            tt_status s = p->seq[i + j].kv ? store_rows(t, p, &p->seq[i + j], v, layer, e) : TT_OK;
            if (s)
                return s;
            fill_span(t, p, &p->seq[i + j], v, rows, layer, &span[j]);
        }
        tt_status s = t->stream->op.attention(t->stream, v->att, ldo, rows->q, rows->ldq, span, n,
                                              t->heads, t->kv_heads, t->head_dim, scale,
                                              t->compute, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status mlp(tt_trunk *t, const tt_trunk_layer *l, const queries *rows, const space *v,
                     tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, ff = t->ff;
    for (int64_t r = 0; r < rows->rows; r += MLP_CHUNK) {
        int64_t n = rows->rows - r < MLP_CHUNK ? rows->rows - r : MLP_CHUNK;
        tt_act *up = shift(t, v->mlp, ff);
        tt_status st = s->op.linear(s, v->mlp, 2 * ff, shift(t, v->h, r * d), d, n, l->gate_up,
                                    false, e);
        if (!st)
            st = s->op.swiglu(s, v->mlp, 2 * ff, v->mlp, up, 2 * ff, n, ff, e);
        if (!st)
            st = s->op.linear(s, shift(t, rows->x, r * d), d, v->mlp, 2 * ff, n, l->down, true, e);
        if (st)
            return st;
    }
    return TT_OK;
}

/* Queries, keys and values of all rows. */
static tt_status project(tt_trunk *t, const tt_pass *p, const space *v, const tt_trunk_layer *l,
                         tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, ld = (t->heads + 2 * t->kv_heads) * t->head_dim;
    tt_status st = s->op.rmsnorm(s, v->h, d, v->x, d, l->norm1, p->rows, d, t->eps, e);
    if (!st)
        st = s->op.linear(s, v->qkv, ld, v->h, d, p->rows, l->qkv, false, e);
    if (!st) /* query and key heads lie side by side */
        st = s->op.rope(s, v->qkv, ld, v->cos, v->sin, p->rows, t->heads + t->kv_heads,
                        t->head_dim, t->half, e);
    return st;
}

/* Attention, its projection and the MLP on the query rows. */
static tt_status advance(tt_trunk *t, const tt_pass *p, const space *v, const queries *rows,
                         int64_t layer, tt_err *e)
{
    tt_stream *s = t->stream;
    const tt_trunk_layer *l = &t->layer[layer];
    int64_t d = t->width, n = rows->rows;
    tt_status st = attend(t, p, v, rows, layer, e);
    if (!st)
        st = s->op.linear(s, rows->x, d, v->att, t->heads * t->head_dim, n, l->out, true, e);
    if (!st)
        st = s->op.rmsnorm(s, v->h, d, rows->x, d, l->norm2, n, d, t->eps, e);
    return st ? st : mlp(t, l, rows, v, e);
}

/* Numbers the rows the head needs in t->map. 0 when packing them is not worth it or not possible
 * (rules by column need consecutive query rows; hidden states want every row). */
static int64_t map_needed(tt_trunk *t, const tt_pass *p)
{
    bool all = p->hidden || !p->wants;
    for (int64_t i = 0; i < p->seqs; i++)
        all |= p->seq[i].see != TT_SEE_ALL;
    if (!all && p->rows > t->map_rows) {
        int32_t *map = realloc(t->map, (size_t)p->rows * sizeof *map);
        all = !map; /* doing without only costs time */
        t->map = map ? map : t->map;
        t->map_rows = map ? p->rows : t->map_rows;
    }
    if (all)
        return 0;
    int64_t n = 0;
    memset(t->map, 0xFF, (size_t)p->rows * sizeof *t->map);
    for (int64_t i = 0; i < p->wants; i++) {
        t->map[p->want[i].row] = 0;
        if (p->want[i].uncond >= 0)
            t->map[p->want[i].uncond] = 0;
    }
    for (int64_t r = 0; r < p->rows; r++)
        if (t->map[r] >= 0)
            t->map[r] = (int32_t)n++;
    return n < p->rows ? n : 0;
}

/* Packs residual stream and queries of the needed rows for the last layer. */
static tt_status pack_needed(tt_trunk *t, const tt_pass *p, const space *v, queries *rows,
                             tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, q = t->heads * t->head_dim;
    int32_t part[256];
    int64_t done = 0, n = 0;
    tt_status st = TT_OK;
    for (int64_t r = 0; r < p->rows && !st; r++) {
        if (t->map[r] >= 0)
            part[n++] = (int32_t)r;
        if (n == 256 || (r == p->rows - 1 && n)) {
            st = s->op.upload(s, v->need_row + done, part, (size_t)n * sizeof *part, e);
            done += n;
            n = 0;
        }
    }
    if (!st)
        st = s->op.gather(s, v->last_x, d, v->x, d, v->need_row, done, d, e);
    if (!st)
        st = s->op.gather(s, v->last_q, q, v->qkv, rows->ldq, v->need_row, done, q, e);
    *rows = (queries){.rows = done, .x = v->last_x, .q = v->last_q, .ldq = q, .map = t->map};
    return st;
}

/* Activations to host float32, for tests and embeddings. */
static tt_status save_hidden(tt_trunk *t, const tt_act *x, int64_t rows, float *out, tt_err *e)
{
    tt_stream *s = t->stream;
    if (s->act != TT_F32)
        return tt_fail(e, TT_EUNSUP, "hidden states of %s activations", tt_dtype_name(s->act));
    tt_status st = s->op.download(s, out, x, (size_t)(rows * t->width) * sizeof *out, e);
    return st ? st : s->op.sync(s, e);
}

static tt_status upload_inputs(tt_trunk *t, const tt_pass *p, const space *v, tt_err *e)
{
    tt_stream *s = t->stream;
    size_t bytes = (size_t)p->rows * sizeof(int32_t);
    tt_status st = s->op.upload(s, v->id, p->id, bytes, e);
    if (!st)
        st = s->op.upload(s, v->position, p->position, bytes, e);
    int32_t part[256];
    for (int64_t r = 0; r < p->rows && !st; r += 256) {
        int64_t n = p->rows - r < 256 ? p->rows - r : 256;
        for (int64_t i = 0; i < n; i++)
            part[i] = (int32_t)(r + i);
        st = s->op.upload(s, v->iota + r, part, (size_t)n * sizeof *part, e);
    }
    return st;
}

/* Row indexes and guidance scales of the wanted rows; *any tells whether guidance is asked for.
 * A row without guidance is mixed with itself, which leaves its bits alone. */
static tt_status upload_wants(tt_trunk *t, const tt_pass *p, const space *v, const int32_t *map,
                              bool *any, tt_err *e)
{
    tt_stream *s = t->stream;
    tt_status st = TT_OK;
    *any = false;
    for (int64_t r = 0; r < p->wants && !st; r += 128) {
        int32_t row[128], uncond[128];
        float cfg[128];
        size_t n = (size_t)(p->wants - r < 128 ? p->wants - r : 128);
        for (size_t i = 0; i < n; i++) {
            const tt_want *w = &p->want[r + (int64_t)i];
            int64_t from = w->uncond >= 0 ? w->uncond : w->row;
            row[i] = map ? map[w->row] : (int32_t)w->row;
            uncond[i] = map ? map[from] : (int32_t)from;
            cfg[i] = w->uncond >= 0 ? w->cfg_scale : 0;
            *any |= w->uncond >= 0;
        }
        st = s->op.upload(s, v->want_row + r, row, n * 4, e);
        if (!st)
            st = s->op.upload(s, v->uncond_row + r, uncond, n * 4, e);
        if (!st)
            st = s->op.upload(s, v->cfg + r, cfg, n * 4, e);
    }
    return st;
}

enum { HEAD_CHUNK = 256 };

static tt_status run_head(tt_trunk *t, const tt_pass *p, const space *v, const queries *rows,
                          tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, n = p->wants;
    bool guided;
    tt_status st = upload_wants(t, p, v, rows->map, &guided, e);
    if (!st)
        st = s->op.gather(s, v->want, d, rows->x, d, v->want_row, n, d, e);
    if (!st)
        st = s->op.rmsnorm(s, v->want, d, v->want, d, t->norm, n, d, t->eps, e);
    if (!st && guided) {
        st = s->op.gather(s, v->uncond, d, rows->x, d, v->uncond_row, n, d, e);
        if (!st)
            st = s->op.rmsnorm(s, v->uncond, d, v->uncond, d, t->norm, n, d, t->eps, e);
        if (!st)
            st = s->op.cfg_mix(s, v->want, d, v->uncond, d, v->cfg, n, d, e);
    }
    for (int64_t r = 0; r < n && !st; r += HEAD_CHUNK) {
        int64_t m = n - r < HEAD_CHUNK ? n - r : HEAD_CHUNK;
        tt_draw draw[HEAD_CHUNK];
        for (int64_t i = 0; i < m; i++)
            draw[i] = p->want[r + i].draw;
        st = s->op.head(s, p->stats + r, p->top ? p->top + r * p->n_top : NULL,
                        p->top ? p->n_top : 0, p->logits ? p->logits + r * t->vocab : NULL,
                        shift(t, v->want, r * d), d, m, t->head, draw, e);
    }
    return st;
}

tt_status tt_trunk_run(tt_trunk *t, const tt_pass *p, tt_err *e)
{
    space v;
    tt_stream *s = t->stream;
    tt_status st = reserve(t, p, &v, e);
    if (!st)
        st = upload_inputs(t, p, &v, e);
    if (!st)
        st = s->op.embed(s, v.x, t->width, t->table, v.id, p->rows, e);
    if (!st)
        st = s->op.rope_table(s, v.cos, v.sin, v.position, t->inv_freq, p->rows, t->half, e);
    if (!st && p->hidden)
        st = save_hidden(t, v.x, p->rows, p->hidden, e);
    queries rows = {.rows = p->rows, .x = v.x, .q = v.qkv,
                    .ldq = (t->heads + 2 * t->kv_heads) * t->head_dim};
    int64_t needed = map_needed(t, p);
    for (int64_t i = 0; i < t->layers && !st; i++) {
        st = project(t, p, &v, &t->layer[i], e);
        if (!st && needed && i == t->layers - 1)
            st = pack_needed(t, p, &v, &rows, e);
        if (!st)
            st = advance(t, p, &v, &rows, i, e);
        if (!st && p->hidden && i < t->layers - 1)
            st = save_hidden(t, v.x, p->rows, p->hidden + (i + 1) * p->rows * t->width, e);
    }
    if (!st && p->hidden) {
        st = s->op.rmsnorm(s, v.h, t->width, v.x, t->width, t->norm, p->rows, t->width, t->eps, e);
        if (!st)
            st = save_hidden(t, v.h, p->rows, p->hidden + t->layers * p->rows * t->width, e);
    }
    if (!st && p->wants)
        st = run_head(t, p, &v, &rows, e);
    return st ? st : s->op.sync(s, e);
}
