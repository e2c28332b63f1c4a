/* recur_states.c - latent states of a recurrent-depth pass: where they begin, what is mixed into
 * them, how far they moved, what is kept for the next pass. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/recur.h"

/* A fresh state's standard deviation before it is cut off at three of them: sqrt(width) times the
 * initialisation's sqrt(2 / (5 width)). */
static const float kDeviation = 0.632455532f;

/* States use numbers of their own: token draws count samples from 0. */
static tt_rng_address address(const tt_depth *d, uint32_t step, int32_t column)
{
    return (tt_rng_address){.seed = d->seed, .sample = ~d->sample, .step = step,
                            .position = (uint32_t)column};
}

/* --- lists --- */

/* Where the sequence's row i begins and what is mixed into it. */
static void list_beginning(tt_recur_pass *r, const tt_depth *d, int64_t row,
                           const tt_depth_row *of)
{
    tt_recur_lists *l = &r->host;
    int32_t column = r->p->column[row];
    bool kept = of && of->from >= 0;
    l->fresh[row] = address(d, 0, column);
    l->fresh_scale[row] = kept || d->draw ? 0 : d->init_scale * kDeviation;
    l->state_from[row] = kept ? tt_latent_row(d->latents, TT_LATENT_STATE, of->from) : NULL;
    l->noise[row] = address(d, d->step, column);
    l->noise_keep[row] = of ? of->noise_keep : 1;
    l->noise_add[row] = of ? of->noise : 0;
    l->noise_scale[row] = l->noise_add[row] != 0 && !d->draw ? d->init_scale * kDeviation : 0;
    l->embed_new[row] = of ? of->embed_new : 1;
    l->embed_old[row] = of ? of->embed_old : 0;
    l->embed_from[row] = tt_latent_row(d->latents, TT_LATENT_EMBED, column);
    if (l->embed_old[row] == 0 || !l->embed_from[row]) {
        l->embed_from[row] = NULL;
        l->embed_old[row] = 0;
    }
    r->noise |= l->noise_add[row] != 0 || l->noise_keep[row] != 1;
    r->blends |= l->embed_old[row] != 0 || l->embed_new[row] != 1;
}

/* What its state is compared with, and where what is kept of it goes. Of a sequence with more rows
 * than places, the last ones are kept. */
static void list_end(tt_recur_pass *r, const tt_depth *d, const tt_pass_seq *q, int64_t row,
                     const tt_depth_row *of)
{
    tt_recur_lists *l = &r->host;
    int32_t column = r->p->column[row];
    bool kept = row >= q->row + q->rows - tt_latents_columns(d->latents);
    int32_t against = d->move && of ? of->against : -1, before = d->move && of ? of->before : -1;
    l->against[row] = against >= 0 ? tt_recur_at(r, r->begin, q->row + against) : NULL;
    l->before[row] = before >= 0 ? tt_latent_row(d->latents, TT_LATENT_PAST, before) : NULL;
    l->keep_from[row] = tt_recur_at(r, d->keep_normed ? r->x : r->done, row);
    l->state_to[row] = kept ? tt_latent_row(d->latents, TT_LATENT_STATE, column) : NULL;
    l->embed_to[row] = kept ? tt_latent_row(d->latents, TT_LATENT_EMBED, column) : NULL;
    l->past_to[row] = kept && d->move ? tt_latent_row(d->latents, TT_LATENT_PAST, column) : NULL;
    l->past_from[row] = tt_recur_at(r, d->move == TT_MOVE_CURVATURE ? r->begin : r->att, row);
}

void tt_recur_list_states(tt_recur_pass *r, int64_t seq)
{
    const tt_pass_seq *q = &r->p->seq[seq];
    tt_depth d = tt_recur_depth(r, seq);
    for (int64_t i = 0; i < q->rows; i++) {
        const tt_depth_row *of = d.row ? &d.row[i] : NULL;
        list_beginning(r, &d, q->row + i, of);
        list_end(r, &d, q, q->row + i, of);
    }
}

/* --- beginning --- */

/* Host floats to rows of activations. */
static tt_status upload_rows(tt_recur_pass *r, tt_act *to, float *from, int64_t rows, tt_err *e)
{
    const tt_trunk *t = &r->m->trunk;
    size_t n = (size_t)(rows * t->width);
    for (size_t i = 0; i < n && t->act == TT_BF16; i++) { /* in place, from the front */
        uint16_t narrow = tt_f32_to_bf16(from[i]);
        memcpy((char *)from + i * sizeof narrow, &narrow, sizeof narrow);
    }
    tt_status st = t->stream->op.upload(t->stream, to, from, n * tt_dtype_size(t->act), e);
    return st ? st : t->stream->op.sync(t->stream, e); /* from may go */
}

static bool wants_draw(const tt_recur_pass *r, tt_draw_purpose purpose, int64_t row)
{
    return purpose == TT_DRAW_NOISE ? r->host.noise_add[row] != 0 : !r->host.state_from[row];
}

/* Rows that the sequence's own source draws, run by run. */
static tt_status draw_rows(tt_recur_pass *r, const tt_depth *d, const tt_pass_seq *q,
                           tt_draw_purpose purpose, tt_act *to, tt_err *e)
{
    int64_t width = r->m->trunk.width, end = q->row + q->rows;
    float *rows = malloc((size_t)(q->rows * width) * sizeof *rows + 1);
    tt_status st = rows ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for drawn states");
    for (int64_t row = q->row, n; row < end && !st; row += n) {
        bool wanted = wants_draw(r, purpose, row);
        for (n = 1; row + n < end && wants_draw(r, purpose, row + n) == wanted;)
            n++;
        if (!wanted)
            continue;
        d->draw(d->draw_arg, purpose, r->p->column[row], n, rows);
        st = upload_rows(r, tt_recur_at(r, to, row), rows, n, e);
    }
    free(rows);
    return st;
}

/* Fresh states of all rows that have a scale, zeros elsewhere; then what sequences draw
 * themselves. */
static tt_status fresh_rows(tt_recur_pass *r, tt_draw_purpose purpose, tt_act *to, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    const tt_recur_lists *l = &r->device;
    bool noise = purpose == TT_DRAW_NOISE;
    int64_t width = r->m->trunk.width;
    tt_status st = s->op.truncated_normal(s, to, width, noise ? l->noise : l->fresh,
                                          noise ? l->noise_scale : l->fresh_scale, r->rows, width,
                                          e);
    for (int64_t i = 0; i < r->p->seqs && !st; i++) {
        const tt_depth *d = r->p->seq[i].depth;
        if (d && d->draw)
            st = draw_rows(r, d, &r->p->seq[i], purpose, to, e);
    }
    return st;
}

tt_status tt_recur_begin_states(tt_recur_pass *r, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    const tt_recur_lists *l = &r->device;
    int64_t d = r->m->trunk.width, n = r->rows;
    tt_status st = fresh_rows(r, TT_DRAW_INITIAL, r->s, e);
    if (!st)
        st = s->op.copy_rows(s, l->s_row, (const tt_act *const *)l->state_from, n, d, e);
    if (!st && r->moves)
        st = s->op.gather(s, r->begin, d, r->s, d, l->iota, n, d, e);
    if (!st && r->noise)
        st = fresh_rows(r, TT_DRAW_NOISE, r->h, e);
    if (!st && r->noise)
        st = s->op.blend(s, r->s, d, r->h, d, l->noise_keep, l->noise_add, n, d, e);
    return st;
}

/* --- end --- */

/* Products of the rows moved by a kind of move, and of the states themselves. */
static tt_row_products *products_of(const tt_recur_pass *r, tt_move move)
{
    return r->products + move * r->rows;
}

/* Writes into att what moved, into h what it is compared with, and multiplies them. */
static tt_status measure_one(tt_recur_pass *r, tt_move move, tt_err *e)
{
    tt_stream *s = r->m->base.stream;
    const tt_recur_lists *l = &r->device;
    int64_t d = r->m->trunk.width, n = r->rows;
    tt_status st = s->op.copy_rows(s, l->h_row, (const tt_act *const *)l->against, n, d, e);
    if (!st)
        st = s->op.row_products(s, products_of(r, TT_MOVE_NONE), r->done, d, r->h, d, n, d, e);
    if (st || move == TT_MOVE_STATE)
        return st;
    st = s->op.gather(s, r->att, d, r->done, d, l->iota, n, d, e);
    if (!st)
        st = s->op.blend(s, r->att, d, r->h, d, l->one, l->minus, n, d, e);
    if (!st && move == TT_MOVE_ACCELERATION)
        st = s->op.copy_rows(s, l->h_row, (const tt_act *const *)l->before, n, d, e);
    if (!st && move == TT_MOVE_CURVATURE) {
        st = s->op.copy_rows(s, l->x_row, (const tt_act *const *)l->before, n, d, e);
        if (!st)
            st = s->op.blend(s, r->h, d, r->x, d, l->one, l->minus, n, d, e);
    }
    return st ? st
              : s->op.row_products(s, products_of(r, move), r->att, d, r->h, d, n, d, e);
}

/* The differences in att are kept last: the other kind of past was read and made before. */
tt_status tt_recur_measure(tt_recur_pass *r, tt_err *e)
{
    static const tt_move order[] = {TT_MOVE_STATE, TT_MOVE_CURVATURE, TT_MOVE_ACCELERATION};
    tt_stream *s = r->m->base.stream;
    tt_status st = TT_OK;
    for (size_t i = 0; i < sizeof order / sizeof *order && !st; i++)
        if (r->moves >> order[i] & 1)
            st = measure_one(r, order[i], e);
    if (st || !(r->moves & (1u << TT_MOVE_CURVATURE | 1u << TT_MOVE_ACCELERATION)))
        return st;
    return s->op.copy_rows(s, r->device.past_to, (const tt_act *const *)r->device.past_from,
                           r->rows, r->m->trunk.width, e);
}

static float moved(const tt_recur_pass *r, tt_move move, int64_t row)
{
    const tt_row_products *state = products_of(r, TT_MOVE_NONE) + row;
    const tt_row_products *p = move == TT_MOVE_STATE ? state : products_of(r, move) + row;
    double norm = sqrt((double)state->xx), by = sqrt((double)p->dd);
    if (!r->host.against[row] || (move != TT_MOVE_STATE && !r->host.before[row]))
        return INFINITY;
    return (float)(move == TT_MOVE_CURVATURE ? by / (norm + 1e-6) : by / norm);
}

void tt_recur_publish(const tt_recur_pass *r)
{
    for (int64_t i = 0; i < r->p->seqs; i++) {
        const tt_pass_seq *q = &r->p->seq[i];
        for (int64_t k = 0; q->depth && q->depth->move && k < q->rows; k++)
            q->depth->moved[k] = moved(r, q->depth->move, q->row + k);
    }
}
