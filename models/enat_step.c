/* enat_step.c - one step of many images through ENAT.
 *
 * A lane is one image in one branch of guidance. All lanes' rows lie in one buffer, in three
 * regions: tokens known before the last step (old), tokens revealed by it (fresh), hidden tokens.
 *
 *   old    = z + mlp(LN z), z their features of the last step
 *   fresh  pass the encoder blocks beside the old ones, hidden pass the decoder blocks beside both
 *
 * so a block's context is always what lies in front of the rows it updates. Keys and values of a
 * lane are put side by side, context first. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/enat.h"

enum { SPANS = 256 }; /* handed to an operation at a time */

typedef struct {
    const tt_generator_call *call;
    tt_enat_state *state;
    int branch; /* 0: with the class, 1: without */
    int64_t old, fresh, hidden;             /* rows */
    int64_t old_at, fresh_at, hidden_at;    /* the first of them in its region */
    int64_t encoder_at, decoder_at;         /* the lane's first key in encoder and decoder blocks */
    int64_t want_at;                        /* the first of its call's wants */
} lane;

/* Host lists of a step. What stands from old_row on is uploaded in one piece. */
typedef struct {
    lane *lanes;
    int64_t n_lanes;
    int64_t old, fresh, hidden, rows; /* of all lanes; rows: their sum */
    int64_t wants, head_rows;         /* head_rows: twice the wants where guidance needs both */
    bool guided;
    int32_t *old_row;       /* old: rows of the features */
    int32_t *id, *place;    /* fresh + hidden */
    int32_t *modulation;    /* rows */
    int32_t *encoder_place; /* old + fresh: where their keys go */
    int32_t *decoder_place; /* rows */
    int32_t *keep_row;      /* old + fresh: where their features go */
    int32_t *zero;          /* the larger of rows and head_rows */
    int32_t *head_row;      /* head_rows: of wants with the class, then without */
    float *cfg;             /* wants */
    int64_t ints;           /* in all */
    tt_draw *draw;          /* wants */
    tt_row_stats *stats;
    float *logits; /* wants x codes, or NULL */
} lists;

/* Device views; the lists' numbers come first. */
typedef struct {
    int32_t *ints;
    tt_act *x, *h; /* rows x width: the tokens, a normalised copy */
    tt_act *wide;  /* rows x 3 width: queries, keys, values */
    tt_act *kv;    /* rows x 2 width: keys and values, lane by lane */
    tt_act *att;   /* rows x width */
    tt_act *mlp;   /* chunk x ff */
    tt_act *head, *head_out; /* head_rows x width */
} space;

/* The MLP runs in chunks: on a CPU its hidden units then stay in the cache. */
static int64_t chunk_of(const tt_enat *g)
{
    return g->base.stream->op.flags & TT_BACKEND_HOST ? 512 : 1 << 14;
}

/* Rows that the head takes at a time: see tt_op_head_key. */
static int64_t head_chunk_of(const tt_enat *g)
{
    return g->base.stream->op.flags & TT_BACKEND_HOST ? 256 : 2048;
}

static size_t take(size_t *at, size_t bytes)
{
    size_t start = *at;
    *at += (bytes + 255) & ~(size_t)255;
    return start;
}

/* Lays the views out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(const tt_enat *g, int64_t rows, int64_t head_rows, int64_t ints, char *base,
                      space *v)
{
    size_t at = 0, act = tt_dtype_size(g->base.info.act), d = (size_t)g->width, r = (size_t)rows;
    int64_t chunk = rows < chunk_of(g) ? rows : chunk_of(g);
    base = base ? base : (char *)256; /* any aligned address: only differences count */
#define AT(bytes) (void *)(base + take(&at, (bytes)))
    space s;
    s.ints = AT((size_t)ints * 4);
    s.x = AT(r * d * act);
    s.h = AT(r * d * act);
    s.wide = AT(r * 3 * d * act);
    s.kv = AT(r * 2 * d * act);
    s.att = AT(r * d * act);
    s.mlp = AT((size_t)(chunk * g->ff) * act);
    s.head = AT((size_t)head_rows * d * act);
    s.head_out = AT((size_t)head_rows * d * act);
#undef AT
    if (v)
        *v = s;
    return at;
}

size_t tt_enat_step_bytes(const tt_generator *base, int64_t calls)
{
    const tt_enat *g = (const tt_enat *)base;
    int64_t rows = 2 * calls * g->tokens;
    return lay_out(g, rows, rows, 10 * rows, NULL, NULL);
}

/* --- which rows a step has --- */

static bool is_kept(const lane *l, int64_t token)
{
    return l->call->reuse && l->state->kept[l->branch][token];
}

static void count(const tt_enat *g, lane *l, lists *n)
{
    l->old_at = n->old;
    l->fresh_at = n->fresh;
    l->hidden_at = n->hidden;
    l->encoder_at = n->old + n->fresh;
    l->decoder_at = n->rows;
    for (int64_t i = 0; i < g->tokens; i++) {
        bool known = l->state->base.id[i] != g->base.info.mask_id;
        l->hidden += !known;
        l->old += known && is_kept(l, i);
        l->fresh += known && !is_kept(l, i);
    }
    n->old += l->old;
    n->fresh += l->fresh;
    n->hidden += l->hidden;
    n->rows = n->old + n->fresh + n->hidden;
}

/* The second branch is not needed while its logits are not and nothing known would leave features
 * behind. */
static bool needs_second(const tt_generator_call *c)
{
    return c->guided && (c->cfg_scale != 0 || c->state->known > 0);
}

static void count_lanes(const tt_enat *g, const tt_generator_call *call, int64_t calls, lists *n)
{
    for (int64_t i = 0; i < calls; i++)
        for (int branch = 0; branch < 1 + needs_second(&call[i]); branch++) {
            lane *l = &n->lanes[n->n_lanes++];
            *l = (lane){.call = &call[i], .state = (tt_enat_state *)call[i].state,
                        .branch = branch, .want_at = n->wants};
            count(g, l, n);
            n->wants += branch ? 0 : call[i].wants;
            n->guided |= call[i].wants && call[i].cfg_scale != 0;
        }
    n->head_rows = n->guided ? 2 * n->wants : n->wants;
}

static int32_t *next_list(int32_t **at, int64_t n)
{
    int32_t *list = *at;
    *at += n;
    return list;
}

static int64_t zeros_of(const lists *n)
{
    return n->rows > n->head_rows ? n->rows : n->head_rows;
}

static tt_status reserve_lists(tt_enat *g, int64_t calls, bool logits, lists *n, tt_err *e)
{
    int64_t known = n->old + n->fresh;
    n->ints = n->old + 2 * (n->fresh + n->hidden) + 2 * n->rows + 2 * known + zeros_of(n) +
              n->head_rows + n->wants;
    size_t codes = logits ? (size_t)g->base.info.layout.codes : 0;
    size_t bytes = (size_t)(2 * calls) * sizeof(lane) + (size_t)n->ints * 4 +
                   (size_t)n->wants * (sizeof(tt_draw) + sizeof(tt_row_stats) + codes * 4) + 512;
    if (bytes > g->lists.size) { /* the lanes are in it */
        tt_arena grown = {0};
        tt_status st = tt_arena_open(&grown, 2 * bytes, e);
        if (st)
            return st;
        lane *lanes = TT_TAKE(&grown, 2 * calls, lane);
        memcpy(lanes, n->lanes, (size_t)n->n_lanes * sizeof *lanes);
        n->lanes = lanes;
        tt_arena_close(&g->lists);
        g->lists = grown;
    }
    int32_t *at = TT_TAKE(&g->lists, n->ints, int32_t);
    n->draw = TT_TAKE(&g->lists, n->wants, tt_draw);
    n->stats = TT_TAKE(&g->lists, n->wants, tt_row_stats);
    n->logits = logits ? TT_TAKE(&g->lists, (size_t)n->wants * codes, float) : NULL;
    n->old_row = next_list(&at, n->old);
    n->id = next_list(&at, n->fresh + n->hidden);
    n->place = next_list(&at, n->fresh + n->hidden);
    n->modulation = next_list(&at, n->rows);
    n->encoder_place = next_list(&at, known);
    n->decoder_place = next_list(&at, n->rows);
    n->keep_row = next_list(&at, known);
    n->zero = next_list(&at, zeros_of(n));
    n->head_row = next_list(&at, n->head_rows);
    n->cfg = (float *)(void *)next_list(&at, n->wants);
    return TT_OK;
}

/* Where token i of a lane stands: its row of the buffer, and the number among its kind. */
static void list_token(const tt_enat *g, const lane *l, int64_t i, int64_t number[3], lists *n)
{
    int32_t id = l->state->base.id[i];
    int kind = id == g->base.info.mask_id ? 2 : is_kept(l, i) ? 0 : 1;
    const int64_t region[] = {0, n->old, n->old + n->fresh};
    const int64_t first[] = {l->old_at, l->fresh_at, l->hidden_at};
    const int64_t before[] = {0, l->old, l->old + l->fresh}; /* in the lane's keys */
    int64_t k = number[kind]++, row = region[kind] + first[kind] + k;
    int64_t feature = (2 * l->state->slot + l->branch) * g->tokens + i;
    n->modulation[row] = (int32_t)(l->branch ? 0 : 1 + l->state->slot);
    n->decoder_place[row] = (int32_t)(l->decoder_at + before[kind] + k);
    if (kind == 0)
        n->old_row[row] = (int32_t)feature;
    if (kind != 0) {
        n->id[row - n->old] = id;
        n->place[row - n->old] = (int32_t)i;
    }
    if (kind != 2) {
        n->encoder_place[row] = (int32_t)(l->encoder_at + before[kind] + k);
        n->keep_row[row] = (int32_t)feature;
    }
}

/* The hidden rows a lane's wants are read from. */
static void list_head(const tt_enat *g, const lane *l, const lists *n, int32_t *head_row)
{
    int64_t row = n->old + n->fresh + l->hidden_at;
    int32_t want = 0;
    for (int64_t i = 0; i < g->tokens && want < l->call->wants; i++) {
        if (l->call->slot[want] == i)
            head_row[want++] = (int32_t)row;
        row += l->state->base.id[i] == g->base.info.mask_id;
    }
}

typedef struct {
    const tt_enat *g;
    lists *n;
} list_job;

static void list_lane(void *arg, int64_t j, int thread)
{
    const tt_enat *g = ((list_job *)arg)->g;
    lists *n = ((list_job *)arg)->n;
    const lane *l = &n->lanes[j];
    int64_t number[3] = {0, 0, 0}, want = l->want_at;
    (void)thread;
    for (int64_t i = 0; i < g->tokens; i++)
        list_token(g, l, i, number, n);
    if (l->branch)
        return;
    /* Rows without guidance are mixed with themselves, which leaves their bits alone. */
    const lane *other = j + 1 < n->n_lanes && l[1].branch ? l + 1 : l;
    list_head(g, l, n, n->head_row + want);
    if (n->guided)
        list_head(g, other, n, n->head_row + n->wants + want);
    for (int32_t i = 0; i < l->call->wants; i++) {
        n->cfg[want + i] = other == l ? 0 : l->call->cfg_scale;
        n->draw[want + i] = l->call->draw[i];
    }
}

/* --- the network --- */

typedef struct {
    tt_enat *g;
    tt_stream *s;
    const lists *n;
    space v;
    /* Device copies of the lists. */
    const int32_t *old_row, *id, *place, *modulation, *encoder_place, *decoder_place, *keep_row;
    const int32_t *zero, *head_row;
    const float *cfg;
} run;

static void bind_ints(run *r)
{
    const lists *n = r->n;
#define HERE(list) r->list = r->v.ints + (n->list - n->old_row)
    HERE(old_row);
    HERE(id);
    HERE(place);
    HERE(modulation);
    HERE(encoder_place);
    HERE(decoder_place);
    HERE(keep_row);
    HERE(zero);
    HERE(head_row);
#undef HERE
    r->cfg = (const float *)(const void *)(r->v.ints +
                                           ((const int32_t *)(const void *)n->cfg - n->old_row));
}

static tt_status layer_norm(const run *r, tt_act *y, const tt_act *x, const tt_enat_norm *norm,
                            int64_t rows, tt_err *e)
{
    int64_t d = r->g->width;
    return r->s->op.adaln(r->s, y, d, x, d, norm->weight, norm->bias, r->g->zeros, d, r->zero,
                          rows, d, norm->eps, e);
}

/* y = LN(x) (1 + scale) + shift, by vectors `shift` and `shift` + 1 of block b. */
static tt_status modulated(const run *r, int64_t b, int shift, int64_t first, int64_t rows,
                           tt_err *e)
{
    const tt_enat *g = r->g;
    int64_t d = g->width, at = (b * TT_ENAT_VECTORS + shift) * d;
    return r->s->op.adaln(r->s, tt_enat_at(g, r->v.h, first * d), d,
                          tt_enat_at(g, r->v.x, first * d), d, g->ones,
                          tt_enat_at(g, g->modulations, at), tt_enat_at(g, g->modulations, at + d),
                          g->blocks * TT_ENAT_VECTORS * d, r->modulation + first, rows, d, 1e-6f,
                          e);
}

/* x += gate * y, by vector `gate` of block b. */
static tt_status gated(const run *r, int64_t b, int gate, const tt_act *y, int64_t first,
                       int64_t rows, tt_err *e)
{
    const tt_enat *g = r->g;
    int64_t d = g->width, at = (b * TT_ENAT_VECTORS + gate) * d;
    return r->s->op.gate_add(r->s, tt_enat_at(g, r->v.x, first * d), d, y, d,
                             tt_enat_at(g, g->modulations, at), g->blocks * TT_ENAT_VECTORS * d,
                             r->modulation + first, rows, d, e);
}

/* The same and then y = LN(x) (1 + scale) + shift, by vectors `shift` and `shift` + 1 of block
 * next, in place of y. */
static tt_status gated_modulated(const run *r, int64_t b, int gate, int64_t next, int shift,
                                 tt_act *y, int64_t first, int64_t rows, tt_err *e)
{
    const tt_enat *g = r->g;
    int64_t d = g->width, at = (next * TT_ENAT_VECTORS + shift) * d;
    return r->s->op.gate_adaln(r->s, y, d, tt_enat_at(g, r->v.x, first * d), d, y, d, g->ones,
                               tt_enat_at(g, g->modulations, (b * TT_ENAT_VECTORS + gate) * d),
                               tt_enat_at(g, g->modulations, at),
                               tt_enat_at(g, g->modulations, at + d),
                               g->blocks * TT_ENAT_VECTORS * d, r->modulation + first, rows, d,
                               1e-6f, e);
}

/* y = down(gelu(up x)), or y += that. y may be x. */
static tt_status mlp(const run *r, const tt_matrix *up, const tt_matrix *down, tt_act *y,
                     const tt_act *x, int64_t rows, bool add, tt_err *e)
{
    tt_stream *s = r->s;
    int64_t d = r->g->width, ff = r->g->ff, chunk = chunk_of(r->g);
    tt_status st = TT_OK;
    for (int64_t at = 0; at < rows && !st; at += chunk) {
        int64_t n = rows - at < chunk ? rows - at : chunk;
        st = s->op.linear_gelu(s, r->v.mlp, ff, tt_enat_at(r->g, x, at * d), d, n, up, e);
        if (!st)
            st = s->op.linear(s, tt_enat_at(r->g, y, at * d), d, r->v.mlp, ff, n, down, add, e);
    }
    return st;
}

enum { SHIFT, SCALE, SHIFT_CONTEXT, SCALE_CONTEXT, GATE, SHIFT2, SCALE2, GATE2 };

/* The part of a block that sees other rows: queries of the updated rows against all keys. */
static tt_status attend(const run *r, bool encoder, tt_err *e)
{
    const tt_enat *g = r->g;
    tt_span span[SPANS];
    int64_t d = g->width, spans = 0;
    float scale = (float)(1.0 / sqrt((double)g->head_dim));
    tt_status st = TT_OK;
    for (int64_t j = 0; j < r->n->n_lanes && !st; j++) {
        const lane *l = &r->n->lanes[j];
        int64_t key = encoder ? l->encoder_at : l->decoder_at;
        if (encoder ? l->fresh : l->hidden)
            span[spans++] = (tt_span){
                .query_row = encoder ? l->fresh_at : l->hidden_at,
                .query_rows = encoder ? l->fresh : l->hidden,
                .k = tt_enat_at(g, r->v.kv, key * 2 * d),
                .v = tt_enat_at(g, r->v.kv, key * 2 * d + d),
                .ld_kv = 2 * d,
                .keys = l->old + l->fresh + (encoder ? 0 : l->hidden),
                .see = TT_SEE_ALL};
        if (spans == SPANS || (j == r->n->n_lanes - 1 && spans)) {
            st = r->s->op.attention(r->s, r->v.att, d, r->v.wide, 3 * d, span, spans, g->heads,
                                    g->heads, g->head_dim, scale, g->compute, e);
            spans = 0;
        }
    }
    return st;
}

/* Block b updates `rows` rows behind the `context` rows in front of them. The updated rows come
 * normalised for it; they leave normalised for the next block unless this is the last. */
static tt_status run_block(const run *r, int64_t b, int64_t context, int64_t rows, bool encoder,
                           bool last, tt_err *e)
{
    const tt_enat *g = r->g;
    const tt_enat_block *k = &g->block[b];
    const int32_t *place = encoder ? r->encoder_place : r->decoder_place;
    tt_stream *s = r->s;
    int64_t d = g->width;
    tt_act *h = tt_enat_at(g, r->v.h, context * d);
    tt_status st = modulated(r, b, SHIFT_CONTEXT, 0, context, e);
    if (!st)
        st = s->op.linear_split(s, r->v.wide, 2 * d, 0, r->v.kv, 2 * d, place, r->v.h, d, context,
                                k->context, e);
    if (!st)
        st = s->op.linear_split(s, r->v.wide, 3 * d, d, r->v.kv, 2 * d, place + context, h, d, rows,
                                k->own, e);
    if (!st)
        st = attend(r, encoder, e);
    if (!st)
        st = s->op.linear(s, h, d, r->v.att, d, rows, k->out, false, e);
    if (!st)
        st = gated_modulated(r, b, GATE, b, SHIFT2, h, context, rows, e);
    if (!st)
        st = mlp(r, k->up, k->down, h, h, rows, false, e);
    if (st)
        return st;
    return last ? gated(r, b, GATE2, h, context, rows, e)
                : gated_modulated(r, b, GATE2, b + 1, SHIFT, h, context, rows, e);
}

static tt_status run_blocks(const run *r, int64_t first, int64_t end, int64_t context, int64_t rows,
                            bool encoder, tt_err *e)
{
    tt_status st = rows && first < end ? modulated(r, first, SHIFT, context, rows, e) : TT_OK;
    for (int64_t b = first; b < end && rows && !st; b++)
        st = run_block(r, b, context, rows, encoder, b == end - 1, e);
    return st;
}

/* Rows as they enter the blocks. */
static tt_status enter(const run *r, tt_err *e)
{
    tt_enat *g = r->g;
    tt_stream *s = r->s;
    int64_t d = g->width, old = r->n->old, rest = r->n->fresh + r->n->hidden;
    tt_act *x = tt_enat_at(g, r->v.x, old * d), *h = tt_enat_at(g, r->v.h, old * d);
    tt_status st = s->op.embed(s, x, d, g->words, r->id, rest, e);
    if (!st)
        st = s->op.embed(s, h, d, g->places, r->place, rest, e);
    if (!st)
        st = s->op.add(s, x, d, h, d, rest, d, e);
    if (!st)
        st = layer_norm(r, x, x, &g->embed_norm, rest, e);
    if (st || !old)
        return st;
    st = s->op.gather(s, r->v.x, d, g->features, d, r->old_row, old, d, e);
    if (!st)
        st = layer_norm(r, r->v.h, r->v.x, &g->again_norm, old, e);
    return st ? st : mlp(r, g->again_up, g->again_down, r->v.x, r->v.h, old, true, e);
}

/* Rows of the head: normalised, guidance mixed in. */
static tt_status enter_head(const run *r, tt_err *e)
{
    tt_enat *g = r->g;
    tt_stream *s = r->s;
    int64_t d = g->width, n = r->n->head_rows, wants = r->n->wants;
    tt_act *x = r->v.head, *y = r->v.head_out;
    tt_status st = s->op.gather(s, x, d, r->v.x, d, r->head_row, n, d, e);
    if (!st)
        st = layer_norm(r, x, x, &g->last_norm, n, e);
    if (!st)
        st = s->op.linear(s, y, d, x, d, n, g->head_fc, false, e);
    if (!st)
        st = s->op.gelu_erf(s, y, d, y, d, n, d, e);
    if (!st)
        st = layer_norm(r, y, y, &g->head_norm, n, e);
    if (st || !r->n->guided)
        return st;
    return s->op.cfg_mix(s, y, d, tt_enat_at(g, y, wants * d), d, r->cfg, wants, d, e);
}

static tt_status run_head(const run *r, tt_err *e)
{
    tt_enat *g = r->g;
    const lists *n = r->n;
    int64_t chunk = head_chunk_of(g);
    tt_status st = n->wants ? enter_head(r, e) : TT_OK;
    for (int64_t at = 0; at < n->wants && !st; at += chunk) {
        int64_t m = n->wants - at < chunk ? n->wants - at : chunk;
        st = r->s->op.head(r->s, n->stats + at, NULL, 0,
                           n->logits ? n->logits + at * g->base.info.layout.codes : NULL,
                           tt_enat_at(g, r->v.head_out, at * g->width), g->width, m, g->head,
                           n->draw + at, e);
    }
    return st;
}

static tt_status run_body(const run *r, tt_err *e)
{
    tt_enat *g = r->g;
    const lists *n = r->n;
    int64_t d = g->width, known = n->old + n->fresh;
    tt_status st = r->s->op.upload(r->s, r->v.ints, n->old_row, (size_t)n->ints * 4, e);
    if (!st)
        st = enter(r, e);
    if (!st)
        st = run_blocks(r, 0, g->encoders, n->old, n->fresh, true, e);
    if (!st)
        st = run_blocks(r, g->encoders, g->blocks, known, n->hidden, false, e);
    if (!st)
        st = r->s->op.scatter(r->s, g->features, d, r->v.x, d, r->keep_row, known, d, e);
    return st ? st : run_head(r, e);
}

/* --- recorded passes --- */

static int64_t power_above(int64_t n)
{
    int64_t p = 1;
    while (p < n)
        p *= 2;
    return p;
}

/* The kinds of all spans: of encoder blocks, and of decoder blocks above them. */
static int64_t span_key(const run *r)
{
    int64_t key = 0;
    for (int64_t j = 0; j < r->n->n_lanes && r->s->op.span_key; j++) {
        const lane *l = &r->n->lanes[j];
        key |= r->s->op.span_key(r->s, l->fresh, r->g->head_dim);
        key |= r->s->op.span_key(r->s, l->hidden, r->g->head_dim) << 32;
    }
    return key;
}

static int64_t spans_key(const run *r)
{
    int64_t encoder = 0, decoder = 0;
    for (int64_t j = 0; j < r->n->n_lanes; j++) {
        encoder += r->n->lanes[j].fresh > 0;
        decoder += r->n->lanes[j].hidden > 0;
    }
    return power_above(encoder) << 32 | power_above(decoder);
}

static int64_t head_key(const run *r)
{
    uint64_t key = 0;
    int64_t chunk = head_chunk_of(r->g);
    for (int64_t at = 0; at < r->n->wants && r->s->op.head_key; at += chunk) {
        int64_t m = r->n->wants - at < chunk ? r->n->wants - at : chunk;
        key = key * 1099511628211u +
              (uint64_t)r->s->op.head_key(r->s, r->g->head, r->n->draw + at, m);
    }
    return (int64_t)(key >> 1);
}

/* Images at the same step of the same schedule make passes of one shape, which are recorded. */
static tt_status run_recorded(const run *r, tt_err *e)
{
    const tt_enat *g = r->g;
    const lists *n = r->n;
    if (!r->s->op.pass_begin || n->logits || n->n_lanes > SPANS)
        return run_body(r, e);
    const int64_t key[] = {(int64_t)(intptr_t)g,
                           (int64_t)(intptr_t)g->space,
                           n->rows,
                           g->room, /* where the states are */
                           n->old,
                           n->fresh,
                           n->wants,
                           n->guided,
                           spans_key(r),
                           span_key(r),
                           head_key(r)};
    tt_status st = r->s->op.pass_begin(r->s, key, sizeof key / sizeof *key, e);
    if (st)
        return st;
    st = run_body(r, e);
    return r->s->op.pass_end(r->s, st, e);
}

/* --- results --- */

static float number_at(const tt_enat *g, const void *acts, int64_t i)
{
    return g->base.info.act == TT_F32 ? ((const float *)acts)[i]
                                      : tt_bf16_to_f32(((const uint16_t *)acts)[i]);
}

/* The rows of lanes whose features are wanted. */
static tt_status save_features(const run *r, tt_err *e)
{
    const tt_enat *g = r->g;
    const lists *n = r->n;
    int64_t d = g->width;
    bool wanted = false;
    for (int64_t j = 0; j < n->n_lanes; j++)
        wanted |= n->lanes[j].call->features != NULL;
    if (!wanted)
        return TT_OK;
    void *x = malloc((size_t)(n->rows * d) * tt_dtype_size(g->base.info.act));
    if (!x)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld features", (long long)n->rows);
    tt_status st = r->s->op.download(r->s, x, r->v.x,
                                     (size_t)(n->rows * d) * tt_dtype_size(g->base.info.act), e);
    if (!st)
        st = r->s->op.sync(r->s, e);
    for (int64_t j = 0; j < n->n_lanes && !st; j++) {
        const lane *l = &n->lanes[j];
        int64_t row[3] = {l->old_at, n->old + l->fresh_at, n->old + n->fresh + l->hidden_at};
        for (int64_t i = 0; i < g->tokens && !l->branch && l->call->features; i++) {
            bool hidden = l->state->base.id[i] == g->base.info.mask_id;
            int64_t from = row[hidden ? 2 : is_kept(l, i) ? 0 : 1]++;
            for (int64_t k = 0; k < d; k++)
                l->call->features[i * d + k] = number_at(g, x, from * d + k);
        }
    }
    free(x);
    return st;
}

static void hand_out(const tt_enat *g, const lists *n)
{
    int64_t codes = g->base.info.layout.codes;
    for (int64_t j = 0; j < n->n_lanes; j++) {
        const lane *l = &n->lanes[j];
        for (int64_t i = 0; i < g->tokens; i++)
            l->state->kept[l->branch][i] =
                l->call->reuse && l->state->base.id[i] != g->base.info.mask_id;
        if (l->branch)
            continue;
        size_t m = (size_t)l->call->wants;
        if (m)
            memcpy(l->call->stats, n->stats + l->want_at, m * sizeof *n->stats);
        if (m && l->call->logits)
            memcpy(l->call->logits, n->logits + l->want_at * codes,
                   m * (size_t)codes * sizeof(float));
    }
}

static tt_status reserve_space(tt_enat *g, const lists *n, space *v, tt_err *e)
{
    size_t need = lay_out(g, n->rows, n->head_rows, n->ints, NULL, NULL);
    if (need > g->space_bytes) {
        tt_stream *s = g->base.stream;
        s->op.release(s, g->space);
        g->space = NULL;
        g->space_bytes = 0;
        void *p;
        tt_status st = s->op.alloc(s, &p, need, e);
        if (st)
            return tt_context(e, st, "working memory of %lld rows", (long long)n->rows);
        g->space = p;
        g->space_bytes = need;
    }
    lay_out(g, n->rows, n->head_rows, n->ints, g->space, v);
    return TT_OK;
}

static tt_status reserve_lanes(tt_enat *g, int64_t calls, lists *n, tt_err *e)
{
    size_t bytes = (size_t)(2 * calls) * sizeof(lane) + 64;
    tt_arena_rewind(&g->lists, 0);
    tt_status st = TT_OK;
    if (bytes > g->lists.size) {
        tt_arena_close(&g->lists);
        st = tt_arena_open(&g->lists, bytes, e);
    }
    if (!st)
        n->lanes = TT_TAKE(&g->lists, 2 * calls, lane);
    return st;
}

tt_status tt_enat_step(tt_generator *base, const tt_generator_call *call, int64_t calls, tt_err *e)
{
    tt_enat *g = (tt_enat *)base;
    lists n = {0};
    bool logits = false;
    for (int64_t i = 0; i < calls; i++)
        logits |= call[i].logits != NULL;
    tt_status st = tt_enat_modulate(g, call, calls, e);
    if (!st)
        st = reserve_lanes(g, calls, &n, e);
    if (st)
        return st;
    count_lanes(g, call, calls, &n);
    st = reserve_lists(g, calls, logits, &n, e);
    run r = {.g = g, .s = base->stream, .n = &n};
    if (!st)
        st = reserve_space(g, &n, &r.v, e);
    if (st)
        return st;
    tt_pool_run(base->stream->pool, n.n_lanes, list_lane, &(list_job){g, &n});
    bind_ints(&r);
    st = run_recorded(&r, e);
    if (!st)
        st = base->stream->op.sync(base->stream, e);
    if (!st)
        st = save_features(&r, e);
    if (!st)
        hand_out(g, &n);
    return st;
}

/* --- what a step takes --- */

/* Multiply-adds of a block: rows beside `context` rows that are not updated. */
static double block_macs(const tt_enat *g, double context, double rows)
{
    double d = (double)g->width, row = d * (4 * d + 2 * (double)g->ff);
    return context * 2 * d * d + rows * row + 2 * d * rows * (context + rows);
}

tt_status tt_enat_work(tt_generator *base, const tt_generator_call *call, int64_t calls,
                       tt_generator_work *out, tt_err *e)
{
    tt_enat *g = (tt_enat *)base;
    lists n = {0};
    tt_status st = reserve_lanes(g, calls, &n, e);
    if (st)
        return st;
    count_lanes(g, call, calls, &n);
    double d = (double)g->width, ff = (double)g->ff, codes = base->info.layout.codes;
    double encoders = (double)g->encoders, decoders = (double)(g->blocks - g->encoders);
    for (int64_t j = 0; j < n.n_lanes; j++) {
        const lane *l = &n.lanes[j];
        double old = (double)l->old, fresh = (double)l->fresh, hidden = (double)l->hidden;
        out->macs += old * 2 * d * ff + decoders * block_macs(g, old + fresh, hidden);
        out->macs += fresh > 0 ? encoders * block_macs(g, old, fresh) : 0;
    }
    out->macs += (double)n.head_rows * d * d + (double)n.wants * d * codes;
    double block = d * (6 * d + 2 * ff), weights = decoders * block + d * d + d * codes;
    weights += n.fresh ? encoders * (block - (n.old ? 0 : 2 * d * d)) : 0;
    weights += n.old ? 2 * d * ff : 0;
    out->weight_bytes = weights * (g->compute == TT_COMPUTE_F32 ? 4 : 2);
    return TT_OK;
}
