/* trunk.c - running a pass through the trunk. */
#include "models/nn/trunk_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/kv.h"
#include "models/nn/acts.h"

/* Sizes of one pass as it is run: what is asked for, padded to few different shapes where the
 * backend records passes. Padding rows are token 0 at position 0 and belong to no sequence. */
typedef struct {
    int64_t rows, wants, states, classified;
    int64_t needed; /* rows the head needs, packed for the last layer; 0: all, not packed */
    int64_t conditions; /* modulations; 0: the body has none */
    bool guided;
    bool mixes, keeps; /* expected embeddings go in, rows of wants are kept */
    bool recorded;     /* between pass_begin and pass_end */
} shape;

static size_t take(size_t *at, size_t bytes)
{
    size_t start = *at;
    *at += (bytes + 63) & ~(size_t)63;
    return start;
}

static int64_t ints_of(const shape *n)
{
    int64_t mods = n->conditions ? n->rows + n->needed + 2 * n->wants + n->states : 0;
    return 3 * n->rows + n->needed + 3 * n->wants + n->states + mods + n->classified;
}

static int64_t mod_width(const tt_trunk *t)
{
    return (tt_trunk_slot(t->layers, 0) + 2) * t->width;
}

/* The working memory of the MLP: hidden units of a chunk, and the experts' pairs. */
static size_t mlp_units(const tt_trunk *t, size_t rows)
{
    bool glu = t->stream->op.glu && !t->ungated;
    size_t most = t->stream->op.glu ? TT_GLU_CHUNK : TT_MLP_CHUNK;
    size_t chunk = rows < most ? rows : most;
    int64_t ff = t->ff > t->shared_ff ? t->ff : t->shared_ff;
    return chunk * (size_t)ff * (glu || t->ungated ? 1 : 2);
}

/* Lays the views out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(const tt_trunk *t, const shape *n, char *base, tt_trunk_space *v)
{
    size_t at = 0, act = tt_dtype_size(t->act), r = (size_t)n->rows, w = (size_t)n->wants;
    size_t d = (size_t)t->width, q = (size_t)((t->heads + 2 * t->kv_heads) * t->head_dim);
    size_t packed = (size_t)n->needed, conditions = (size_t)n->conditions;
    size_t pairs = (r < TT_EXPERT_CHUNK ? r : TT_EXPERT_CHUNK) * (size_t)t->router.top_k;
#define AT(bytes) (void *)(base + take(&at, (bytes)))
    tt_trunk_space s;
    base = base ? base : (char *)64; /* any aligned address: only differences count */
    s.x = AT(r * d * act);
    s.h = AT(r * d * act);
    s.qkv = AT(r * q * act);
    s.att = AT(r * (size_t)(t->heads * t->head_dim) * act);
    s.mlp = AT(mlp_units(t, r) * act);
    s.last_x = AT(packed * d * act);
    s.last_q = AT(packed * (size_t)(t->heads * t->head_dim) * act);
    s.cos = AT(r * (size_t)t->half * 4);
    s.sin = AT(r * (size_t)t->half * 4);
    s.want = AT(w * d * act);
    s.uncond = AT(w * d * act);
    size_t c = (size_t)n->classified;
    s.class_x = AT(c * d * act);
    s.class_h = AT(c * d * act);
    s.class_up = AT(c * (size_t)t->classifier.hidden * act);
    s.mix = AT(n->mixes ? r * 4 : 0);
    s.iota = AT(n->keeps ? w * 4 : 0);
    s.condition = AT(conditions * (size_t)t->modulation.width * act);
    s.mod = AT(conditions * (size_t)mod_width(t) * act);
    s.pair_x = AT(pairs * d * act);
    s.pair_y = AT(pairs * 2 * (size_t)t->expert_ff * act);
    s.pair_weight = AT(pairs * 4);
    s.pair_place = AT(pairs * 4);
    s.pair_row = AT(pairs * 4);
    s.expert_begin = AT(((size_t)t->router.experts + 1) * 4);
    s.id = AT((size_t)ints_of(n) * 4);
    s.position = s.id + n->rows;
    s.column = s.position + n->rows;
    s.need_row = s.column + n->rows;
    s.want_row = s.need_row + n->needed;
    s.uncond_row = s.want_row + n->wants;
    s.cfg = (float *)(void *)(s.uncond_row + n->wants);
    s.state_row = s.uncond_row + 2 * n->wants;
    s.class_row = s.state_row + n->states;
    s.row_mod = s.class_row + n->classified;
    s.need_mod = s.row_mod + n->rows;
    s.want_mod = s.need_mod + n->needed;
    s.uncond_mod = s.want_mod + n->wants;
    s.state_mod = s.uncond_mod + n->wants;
#undef AT
    if (v)
        *v = s;
    return at;
}

/* --- norms and residuals, modulated or not --- */

/* bias: NULL unless the norm is a LayerNorm. w NULL, for the final norm alone: there is none, and y
 * is x. */
static tt_status normalise(tt_trunk *t, const tt_trunk_space *v, tt_act *y, const tt_act *x,
                           const float *w, const float *bias, int64_t rows, const int32_t *mod,
                           int64_t slot, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    if (!w)
        return TT_OK;
    if (bias)
        return s->op.layernorm(s, y, d, x, d, w, bias, rows, d, t->eps, e);
    if (!t->modulation.width)
        return s->op.rmsnorm(s, y, d, x, d, w, rows, d, t->eps, e);
    return s->op.adaln(s, y, d, x, d, w, tt_trunk_at(t, v->mod, slot * d),
                       tt_trunk_at(t, v->mod, (slot + 1) * d), mod_width(t), mod, rows, d, t->eps,
                       e);
}

tt_status tt_trunk_add_product(tt_trunk *t, const tt_trunk_space *v, tt_act *x, const tt_act *in,
                               int64_t ld, int64_t rows, const tt_matrix *w, tt_act *spare,
                               const int32_t *mod, int64_t slot, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    if (!t->modulation.width)
        return s->op.linear(s, x, d, in, ld, rows, w, true, e);
    tt_status st = s->op.linear(s, spare, d, in, ld, rows, w, false, e);
    return st ? st
              : s->op.gate_add(s, x, d, spare, d, tt_trunk_at(t, v->mod, (slot + 2) * d),
                               mod_width(t), mod, rows, d, e);
}

size_t tt_trunk_pass_bytes(const tt_trunk *t, int64_t rows, int64_t wants)
{
    const tt_stream *s = t->stream;
    int64_t r = s->op.bucket ? s->op.bucket(s, rows) : rows;
    int64_t w = s->op.bucket ? s->op.bucket(s, wants) : wants;
    shape n = {.rows = r, .wants = w, .states = r, .needed = r, .mixes = true, .keeps = true,
               .classified = t->classifier.classes ? r : 0};
    if (t->modulation.width)
        n.conditions = t->modulation.timed ? r : 1;
    return lay_out(t, &n, NULL, NULL);
}

static tt_status reserve(tt_trunk *t, const shape *n, tt_trunk_space *v, tt_err *e)
{
    size_t need = lay_out(t, n, NULL, NULL);
    if (need > t->space_bytes) {
        t->stream->op.release(t->stream, t->space);
        t->space = NULL;
        t->space_bytes = 0;
        tt_status s = t->stream->op.alloc(t->stream, &t->space, need, e);
        if (s)
            return tt_context(e, s, "working memory of %lld rows", (long long)n->rows);
        t->space_bytes = need;
    }
    lay_out(t, n, t->space, v);
    return TT_OK;
}

int64_t tt_trunk_packed_range(const tt_pass_seq *q, const int32_t *map, int64_t *first)
{
    int64_t n = 0;
    *first = 0;
    for (int64_t r = q->row; r < q->row + q->rows; r++)
        if (map[r] >= 0 && n++ == 0)
            *first = map[r];
    return n;
}

/* Which keys each sequence of the pass attends to in this layer. */
static void fill_span(const tt_trunk *t, const tt_pass *p, const tt_pass_seq *q,
                      const tt_trunk_space *v, const tt_trunk_rows *rows, int64_t layer,
                      tt_span *out)
{
    int64_t ld = (t->heads + 2 * t->kv_heads) * t->head_dim, width = t->kv_heads * t->head_dim;
    *out = (tt_span){.query_row = q->row,
                     .query_rows = q->rows,
                     .query_column = q->rows ? p->column[q->row] : 0,
                     .keys = q->see_end - q->see_begin,
                     .key_column = q->see_begin,
                     .see = q->see,
                     .block = q->block,
                     .hole = q->hole};
    if (rows->map)
        out->query_rows = tt_trunk_packed_range(q, rows->map, &out->query_row);
    if (q->kv) {
        out->k = tt_kv_key(q->kv, layer, q->see_begin);
        out->v = tt_kv_value(q->kv, layer, q->see_begin);
        out->ld_kv = width;
    } else {
        out->k = tt_trunk_at(t, v->qkv, (q->row + q->see_begin) * ld + t->heads * t->head_dim);
        out->v = tt_trunk_at(t, out->k, width);
        out->ld_kv = ld;
    }
}

enum { SPANS = 256 }; /* handed to the operation in groups, so that no list is allocated */

static tt_status attend(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v,
                        const tt_trunk_rows *rows, int64_t layer, tt_err *e)
{
    tt_span span[SPANS];
    int64_t ldo = t->heads * t->head_dim;
    float scale = (float)(1.0 / sqrt((double)t->head_dim));
    for (int64_t i = 0; i < p->seqs; i += SPANS) {
        int64_t n = p->seqs - i < SPANS ? p->seqs - i : SPANS;
        for (int64_t j = 0; j < n; j++)
            fill_span(t, p, &p->seq[i + j], v, rows, layer, &span[j]);
        tt_status s = t->stream->op.attention(t->stream, v->att, ldo, rows->q, rows->ldq, span, n,
                                              t->heads, t->kv_heads, t->head_dim, scale,
                                              t->compute, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* Rotates queries and keys, and keeps the keys and values of sequences that have a store. */
static tt_status rotate(tt_trunk *t, const tt_pass *p, const shape *n, const tt_trunk_space *v,
                        int64_t layer, tt_err *e)
{
    tt_store store[SPANS];
    int64_t ld = (t->heads + 2 * t->kv_heads) * t->head_dim, i = 0;
    tt_status st = TT_OK;
    do {
        int64_t stores = 0, row = i < p->seqs ? p->seq[i].row : 0, first = i;
        for (; i < p->seqs && i - first < SPANS; i++)
            if (p->seq[i].kv)
                store[stores++] = (tt_store){.row = p->seq[i].row - row,
                                             .rows = p->seq[i].rows,
                                             .k = tt_kv_key(p->seq[i].kv, layer, 0),
                                             .v = tt_kv_value(p->seq[i].kv, layer, 0)};
        int64_t rows = (i < p->seqs ? p->seq[i].row : n->rows) - row;
        st = t->stream->op.rope_store(t->stream, tt_trunk_at(t, v->qkv, row * ld), ld,
                                      v->cos + row * t->half, v->sin + row * t->half, rows,
                                      t->heads, t->kv_heads, t->head_dim, t->half, store, stores,
                                      v->column + row, e);
    } while (i < p->seqs && !st);
    return st;
}

/* Queries, keys and values of all rows. */
static tt_status project(tt_trunk *t, const tt_pass *p, const shape *n, const tt_trunk_space *v,
                         int64_t layer, tt_err *e)
{
    tt_stream *s = t->stream;
    const tt_trunk_layer *l = &t->layer[layer];
    int64_t d = t->width, ld = (t->heads + 2 * t->kv_heads) * t->head_dim;
    tt_status st = normalise(t, v, v->h, v->x, l->norm1, l->norm1_bias, n->rows, v->row_mod,
                             tt_trunk_slot(layer, 0), e);
    if (!st)
        st = s->op.linear(s, v->qkv, ld, v->h, d, n->rows, l->qkv, false, e);
    if (!st && l->q_norm)
        st = s->op.rmsnorm_heads(s, v->qkv, ld, l->q_norm, n->rows, t->heads, t->head_dim, t->eps,
                                 e);
    if (!st && l->k_norm)
        st = s->op.rmsnorm_heads(s, tt_trunk_at(t, v->qkv, t->heads * t->head_dim), ld, l->k_norm,
                                 n->rows, t->kv_heads, t->head_dim, t->eps, e);
    return st ? st : rotate(t, p, n, v, layer, e);
}

/* Attention, its projection and the MLP on the query rows. */
static tt_status advance(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v,
                         const tt_trunk_rows *rows, int64_t layer, tt_err *e)
{
    const tt_trunk_layer *l = &t->layer[layer];
    int64_t n = rows->rows;
    tt_status st = attend(t, p, v, rows, layer, e);
    if (!st)
        st = tt_trunk_add_product(t, v, rows->x, v->att, t->heads * t->head_dim, n, l->out, v->h,
                                  rows->mod, tt_trunk_slot(layer, 0), e);
    if (!st && t->seen_width)
        st = tt_trunk_cross(t, p, v, rows, layer, e);
    if (!st)
        st = normalise(t, v, v->h, rows->x, l->norm2, l->norm2_bias, n, rows->mod,
                       tt_trunk_slot(layer, 1), e);
    return st ? st : tt_trunk_mlp(t, layer, rows, v, e);
}

/* --- what a pass uploads --- */

/* Numbers the rows the head needs in t->map. 0 when packing them is not worth it or not possible
 * (rules by column and holes need consecutive query rows; hidden states want every row). */
static int64_t map_needed(tt_trunk *t, const tt_pass *p)
{
    bool all = p->hidden || !(p->wants || p->states || p->classified);
    for (int64_t i = 0; i < p->seqs; i++)
        all |= p->seq[i].see != TT_SEE_ALL || p->seq[i].hole;
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
    for (int64_t i = 0; i < p->states; i++)
        t->map[p->state_row[i]] = 0;
    for (int64_t i = 0; i < p->classified; i++)
        t->map[p->class_row[i]] = 0;
    for (int64_t r = 0; r < p->rows; r++)
        if (t->map[r] >= 0)
            t->map[r] = (int32_t)n++;
    return n < p->rows ? n : 0;
}

/* Passes that only return statistics are recorded where the backend can. */
static shape shape_of(tt_trunk *t, const tt_pass *p)
{
    const tt_stream *s = t->stream;
    shape n = {.rows = p->rows, .wants = p->wants, .states = p->states,
               .classified = p->classified, .needed = map_needed(t, p), .mixes = p->mix};
    if (t->modulation.width)
        n.conditions = t->modulation.timed ? p->seqs : 1;
    for (int64_t i = 0; i < p->wants; i++) {
        n.guided |= p->want[i].uncond >= 0;
        n.keeps |= p->want[i].memo != NULL;
    }
    n.recorded = s->op.pass_begin && !p->hidden && !p->logits && !p->top && !p->states &&
                 p->seqs <= SPANS && !n.mixes && !n.keeps;
    if (n.recorded && s->op.bucket) {
        n.rows = s->op.bucket(s, n.rows);
        n.wants = s->op.bucket(s, n.wants);
        n.classified = n.classified ? s->op.bucket(s, n.classified) : 0;
        n.needed = n.needed ? s->op.bucket(s, n.needed) : 0;
        n.conditions = n.conditions > 1 ? s->op.bucket(s, n.conditions) : n.conditions;
        if (n.needed >= n.rows)
            n.needed = 0;
    }
    return n;
}

/* Row indexes and guidance scales of the wanted rows. A row without guidance is mixed with itself,
 * which leaves its bits alone. */
static void list_wants(const tt_trunk *t, const tt_pass *p, const shape *n, int32_t *row,
                       int32_t *uncond, float *cfg)
{
    const int32_t *map = n->needed ? t->map : NULL;
    for (int64_t i = 0; i < n->wants; i++) {
        bool real = i < p->wants;
        int64_t at = real ? p->want[i].row : 0;
        int64_t from = real && p->want[i].uncond >= 0 ? p->want[i].uncond : at;
        row[i] = real && map ? map[at] : (int32_t)at;
        uncond[i] = real && map ? map[from] : (int32_t)from;
        cfg[i] = real && from != at ? p->want[i].cfg_scale : 0;
    }
}

/* Which modulation the rows, the needed rows and the wants have: that of their sequence. Padding
 * has the first one. */
static void list_mods(const tt_trunk *t, const tt_pass *p, const shape *n, int32_t *row)
{
    int32_t *need = row + n->rows, *want = need + n->needed, *uncond = want + n->wants;
    for (int64_t i = 0; i < p->seqs && t->modulation.timed; i++)
        for (int64_t r = p->seq[i].row; r < p->seq[i].row + p->seq[i].rows; r++)
            row[r] = (int32_t)i;
    for (int64_t r = 0; r < p->rows && n->needed; r++)
        if (t->map[r] >= 0)
            *need++ = row[r];
    for (int64_t i = 0; i < p->wants; i++) {
        want[i] = row[p->want[i].row];
        uncond[i] = p->want[i].uncond >= 0 ? row[p->want[i].uncond] : want[i];
    }
    int32_t *state = uncond + n->wants;
    for (int64_t i = 0; i < p->states; i++)
        state[i] = row[p->state_row[i]];
}

static tt_status upload_inputs(tt_trunk *t, const tt_pass *p, const shape *n,
                               const tt_trunk_space *v, tt_err *e)
{
    int64_t ints = ints_of(n);
    if (ints > t->ints_room) {
        int32_t *list = realloc(t->ints, (size_t)ints * sizeof *list);
        if (!list)
            return tt_fail(e, TT_ENOMEM, "no memory for a pass of %lld rows", (long long)n->rows);
        t->ints = list;
        t->ints_room = ints;
    }
    memset(t->ints, 0, (size_t)ints * sizeof *t->ints);
    int32_t *position = t->ints + n->rows, *column = position + n->rows;
    int32_t *need = column + n->rows, *want = need + n->needed;
    memcpy(t->ints, p->id, (size_t)p->rows * sizeof *t->ints);
    memcpy(position, p->position, (size_t)p->rows * sizeof *t->ints);
    memcpy(column, p->column, (size_t)p->rows * sizeof *t->ints);
    for (int64_t r = 0; r < p->rows && n->needed; r++)
        if (t->map[r] >= 0)
            *need++ = (int32_t)r;
    list_wants(t, p, n, want, want + n->wants, (float *)(void *)(want + 2 * n->wants));
    for (int64_t i = 0; i < n->states; i++) {
        int64_t row = p->state_row[i];
        want[3 * n->wants + i] = n->needed ? t->map[row] : (int32_t)row;
    }
    int32_t *rest = want + 3 * n->wants + n->states;
    for (int64_t i = 0; i < p->classified; i++)
        rest[i] = n->needed ? t->map[p->class_row[i]] : (int32_t)p->class_row[i];
    if (n->conditions)
        list_mods(t, p, n, rest + n->classified);
    return t->stream->op.upload(t->stream, v->id, t->ints, (size_t)ints * sizeof *t->ints, e);
}

/* Makes the modulations of the pass: conditions on the host, where they are a small product, the
 * vectors they turn into on the device. */
static tt_status modulate(tt_trunk *t, const tt_pass *p, const shape *n, const tt_trunk_space *v,
                          tt_err *e)
{
    tt_stream *s = t->stream;
    const tt_modulation *m = &t->modulation;
    int64_t numbers = n->conditions * m->width;
    if (numbers > t->conditions_room) {
        float *list = realloc(t->conditions, (size_t)numbers * sizeof *list);
        if (!list)
            return tt_fail(e, TT_ENOMEM, "no memory for %lld conditions", (long long)n->conditions);
        t->conditions = list;
        t->conditions_room = numbers;
    }
    for (int64_t i = 0; i < n->conditions; i++)
        m->condition(m->arg, m->timed && i < p->seqs ? p->seq[i].sigma : 0,
                     t->conditions + i * m->width);
    for (int64_t i = 0; i < numbers && t->act == TT_BF16; i++) { /* in place, from the front */
        uint16_t narrow = tt_f32_to_bf16(t->conditions[i]);
        memcpy((char *)t->conditions + (size_t)i * sizeof narrow, &narrow, sizeof narrow);
    }
    tt_status st = s->op.upload(s, v->condition, t->conditions,
                                (size_t)numbers * tt_dtype_size(t->act), e);
    return st ? st
              : s->op.linear(s, v->mod, mod_width(t), v->condition, m->width, n->conditions,
                             m->table, false, e);
}

/* Packs residual stream and queries of the needed rows for the last layer. */
static tt_status pack_needed(tt_trunk *t, const shape *n, const tt_trunk_space *v,
                             tt_trunk_rows *rows, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, q = t->heads * t->head_dim;
    tt_status st = s->op.gather(s, v->last_x, d, v->x, d, v->need_row, n->needed, d, e);
    if (!st)
        st = s->op.gather(s, v->last_q, q, v->qkv, rows->ldq, v->need_row, n->needed, q, e);
    *rows = (tt_trunk_rows){.rows = n->needed, .x = v->last_x, .q = v->last_q, .ldq = q,
                            .map = t->map, .mod = n->conditions ? v->need_mod : NULL};
    return st;
}

/* Activations to host float32. Narrow ones land in the first half of out and are widened there. */
tt_status tt_trunk_download(tt_trunk *t, const tt_act *x, int64_t rows, float *out, tt_err *e)
{
    tt_stream *s = t->stream;
    size_t n = (size_t)(rows * t->width);
    if (t->act != TT_F32 && t->act != TT_BF16)
        return tt_fail(e, TT_EUNSUP, "hidden states of %s activations", tt_dtype_name(t->act));
    tt_status st = s->op.download(s, out, x, n * tt_dtype_size(t->act), e);
    if (!st)
        st = s->op.sync(s, e);
    if (!st)
        tt_acts_widen(out, t->act, (int64_t)n);
    return st;
}

/* The final hidden states of the rows asked for, normalised. They are gathered into h, which no
 * layer needs any more. */
static tt_status save_states(tt_trunk *t, const tt_pass *p, const tt_trunk_space *v,
                             const tt_trunk_rows *rows, tt_err *e)
{
    int64_t d = t->width, n = p->states;
    tt_status st = t->stream->op.gather(t->stream, v->h, d, rows->x, d, v->state_row, n, d, e);
    if (!st)
        st = normalise(t, v, v->h, v->h, t->norm, t->norm_bias, n, v->state_mod,
                       tt_trunk_slot(t->layers, 0), e);
    return st ? st : tt_trunk_download(t, v->h, n, p->state, e);
}

/* --- the head --- */

enum { HEAD_CHUNK = 256 };

/* The normalised hidden rows of the wants, guidance mixed in. */
static tt_status collect_wants(tt_trunk *t, const shape *n, const tt_trunk_space *v,
                               const tt_trunk_rows *rows, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width, w = n->wants, last = tt_trunk_slot(t->layers, 0);
    tt_status st = s->op.gather(s, v->want, d, rows->x, d, v->want_row, w, d, e);
    if (!st)
        st = normalise(t, v, v->want, v->want, t->norm, t->norm_bias, w, v->want_mod, last, e);
    if (st || !n->guided)
        return st;
    st = s->op.gather(s, v->uncond, d, rows->x, d, v->uncond_row, w, d, e);
    if (!st)
        st = normalise(t, v, v->uncond, v->uncond, t->norm, t->norm_bias, w, v->uncond_mod, last,
                       e);
    if (!st)
        st = s->op.cfg_mix(s, v->want, d, v->uncond, d, v->cfg, w, d, e);
    return st;
}

/* The draws of the chunk that starts at r, padding included; returns how many. */
static int64_t fill_draws(const tt_pass *p, const shape *n, int64_t r, tt_draw draw[HEAD_CHUNK])
{
    int64_t m = n->wants - r < HEAD_CHUNK ? n->wants - r : HEAD_CHUNK;
    for (int64_t i = 0; i < m; i++)
        draw[i] = r + i < p->wants ? p->want[r + i].draw : (tt_draw){.top_p = 1, .target = -1};
    return m;
}

static int64_t head_key(const tt_trunk *t, const tt_pass *p, const shape *n)
{
    const tt_stream *s = t->stream;
    tt_draw draw[HEAD_CHUNK];
    uint64_t key = 0;
    for (int64_t r = 0; r < n->wants && s->op.head_key; r += HEAD_CHUNK) {
        int64_t m = fill_draws(p, n, r, draw);
        key = key * 1099511628211u + (uint64_t)s->op.head_key(s, t->head, draw, m);
    }
    return (int64_t)(key >> 1);
}

/* Statistics of chunk after chunk; those of padding wants go to spare. */
static tt_status run_head(tt_trunk *t, const tt_pass *p, const shape *n, const tt_trunk_space *v,
                          tt_row_stats *spare, tt_err *e)
{
    tt_stream *s = t->stream;
    tt_draw draw[HEAD_CHUNK];
    tt_status st = TT_OK;
    for (int64_t r = 0; r < n->wants && !st; r += HEAD_CHUNK) {
        int64_t m = fill_draws(p, n, r, draw);
        st = s->op.head(s, (spare ? spare : p->stats) + r, p->top ? p->top + r * p->n_top : NULL,
                        p->top ? p->n_top : 0, p->logits ? p->logits + r * t->vocab : NULL,
                        tt_trunk_at(t, v->want, r * t->width), t->width, m, t->head, draw, e);
        if (!st && n->keeps)
            st = tt_trunk_keep(t, p, v, r, p->wants - r < m ? p->wants - r : m, draw, e);
    }
    return st;
}

/* --- a pass --- */

static tt_status check_places(const tt_trunk *t, const tt_pass *p, tt_err *e)
{
    for (int64_t r = 0; r < p->rows && t->places; r++)
        if (p->position[r] < 0 || p->position[r] >= t->places)
            return tt_fail(e, TT_EINVAL, "pass: row %lld has position %d of %lld", (long long)r,
                           p->position[r], (long long)t->places);
    return TT_OK;
}

/* The residual stream's beginning, and the angles of the rotation. */
static tt_status embed(tt_trunk *t, const shape *n, const tt_trunk_space *v, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->width;
    tt_status st = s->op.embed(s, v->x, d, t->table, v->id, n->rows, e);
    if (!st && t->places)
        st = s->op.embed(s, v->h, d, t->place_table, v->position, n->rows, e);
    if (!st && t->places)
        st = s->op.add(s, v->x, d, v->h, d, n->rows, d, e);
    return st ? st : s->op.rope_table(s, v->cos, v->sin, v->position, t->inv_freq, n->rows,
                                      t->half, e);
}

static tt_status run_layers(tt_trunk *t, const tt_pass *p, const shape *n, const tt_trunk_space *v,
                            tt_trunk_rows *rows, tt_err *e)
{
    tt_status st = TT_OK;
    for (int64_t i = 0; i < t->layers && !st; i++) {
        st = project(t, p, n, v, i, e);
        if (!st && n->needed && i == t->layers - 1)
            st = pack_needed(t, n, v, rows, e);
        if (!st)
            st = advance(t, p, v, rows, i, e);
        if (!st && p->hidden && i < t->layers - 1)
            st = tt_trunk_download(t, v->x, p->rows, p->hidden + (i + 1) * p->rows * t->width, e);
    }
    return st;
}

/* Where results go before padding is left out; NULL where nothing is padded. */
typedef struct {
    tt_row_stats *stats, *class_stats;
    float *classes;
} outputs;

static tt_status make_outputs(outputs *o, const tt_trunk *t, const tt_pass *p, const shape *n,
                              tt_err *e)
{
    size_t rows = (size_t)n->classified, classes = (size_t)t->classifier.classes;
    if (n->wants > p->wants && !(o->stats = malloc((size_t)n->wants * sizeof *o->stats)))
        return tt_fail(e, TT_ENOMEM, "no memory for %lld statistics", (long long)n->wants);
    if (!rows)
        return TT_OK;
    o->class_stats = malloc(rows * sizeof *o->class_stats);
    o->classes = malloc(rows * classes * sizeof *o->classes);
    return o->class_stats && o->classes
               ? TT_OK
               : tt_fail(e, TT_ENOMEM, "no memory for %zu classes of %zu rows", classes, rows);
}

static void take_outputs(outputs *o, const tt_trunk *t, const tt_pass *p, bool good)
{
    if (good && o->stats)
        memcpy(p->stats, o->stats, (size_t)p->wants * sizeof *o->stats);
    if (good && o->classes)
        memcpy(p->classes, o->classes,
               (size_t)p->classified * (size_t)t->classifier.classes * sizeof *o->classes);
    free(o->stats);
    free(o->class_stats);
    free(o->classes);
}

static tt_status run_body(tt_trunk *t, const tt_pass *p, const shape *n, const tt_trunk_space *v,
                          const outputs *out, tt_err *e)
{
    int64_t d = t->width;
    tt_status st = upload_inputs(t, p, n, v, e);
    if (!st)
        st = embed(t, n, v, e);
    if (!st && n->mixes)
        st = tt_trunk_mix(t, p, v, e);
    if (!st && p->hidden)
        st = tt_trunk_download(t, v->x, p->rows, p->hidden, e);
    if (!st && n->conditions)
        st = modulate(t, p, n, v, e);
    tt_trunk_rows rows = {.rows = n->rows, .x = v->x, .q = v->qkv,
                          .ldq = (t->heads + 2 * t->kv_heads) * t->head_dim,
                          .mod = n->conditions ? v->row_mod : NULL};
    if (!st)
        st = run_layers(t, p, n, v, &rows, e);
    if (!st && p->hidden) {
        st = normalise(t, v, v->h, v->x, t->norm, t->norm_bias, p->rows, v->row_mod,
                       tt_trunk_slot(t->layers, 0), e);
        if (!st)
            st = tt_trunk_download(t, t->norm ? v->h : v->x, p->rows,
                                   p->hidden + t->layers * p->rows * d, e);
    }
    if (!st && p->states)
        st = save_states(t, p, v, &rows, e);
    if (!st && n->classified)
        st = tt_trunk_classify(t, v, rows.x, n->classified, out->classes, out->class_stats, e);
    if (!st && p->wants)
        st = collect_wants(t, n, v, &rows, e);
    return st || !p->wants ? st : run_head(t, p, n, v, out->stats, e);
}

/* The kinds of all spans, in the first layers and in the last, whose queries may be packed. */
static int64_t span_key(const tt_trunk *t, const tt_pass *p, const shape *n)
{
    const tt_stream *s = t->stream;
    int64_t key = 0;
    for (int64_t i = 0; i < p->seqs && s->op.span_key; i++) {
        int64_t first, rows = p->seq[i].rows;
        key |= s->op.span_key(s, rows, t->head_dim);
        if (n->needed)
            key |= s->op.span_key(s, tt_trunk_packed_range(&p->seq[i], t->map, &first), t->head_dim)
                   << 32;
    }
    return key;
}

/* The power of two at or above n, as far as keys of passes tell lists of spans and stores apart. */
static int64_t power_above(int64_t n)
{
    int64_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

tt_status tt_trunk_run(tt_trunk *t, const tt_pass *p, tt_err *e)
{
    tt_trunk_space v;
    tt_stream *s = t->stream;
    shape n = shape_of(t, p);
    outputs out = {0};
    tt_status st = check_places(t, p, e);
    if (!st)
        st = reserve(t, &n, &v, e);
    if (!st)
        st = make_outputs(&out, t, p, &n, e);
    if (!st && n.recorded) {
        int64_t stores = 0;
        for (int64_t i = 0; i < p->seqs; i++)
            stores += p->seq[i].kv != NULL;
        const int64_t key[] = {(int64_t)(intptr_t)t, (int64_t)(intptr_t)t->space, n.rows, n.needed,
                               n.wants, n.guided, power_above(p->seqs), power_above(stores),
                               n.conditions, head_key(t, p, &n), span_key(t, p, &n),
                               n.classified};
        st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
        if (!st) {
            st = run_body(t, p, &n, &v, &out, e);
            st = s->op.pass_end(s, st, e);
        }
    } else if (!st) {
        st = run_body(t, p, &n, &v, &out, e);
    }
    if (!st)
        st = s->op.sync(s, e);
    take_outputs(&out, t, p, !st);
    return st;
}
