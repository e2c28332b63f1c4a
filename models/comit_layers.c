/* comit_layers.c - COMiT's network on the device. Rows begin as embedded patches, messages and
 * places; velocities are read from the patches' rows, new messages from the queries'. */
#include <math.h>

#include "models/comit_net.h"
#include "models/nn/acts.h"

/* out = second(silu(first(in))), rows of k numbers. */
static tt_status embed(const tt_comit *c, tt_comit_job *j, tt_act *out, const tt_act *in,
                       int64_t rows, int64_t k, tt_matrix *const two[2], tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    tt_status st = s->op.linear(s, j->wide, d, in, k, rows, two[0], false, e);
    if (!st)
        st = s->op.unit(s, j->wide, d, j->wide, d, rows, d, TT_UNIT_SILU, e);
    return st ? st : s->op.linear(s, out, d, j->wide, d, rows, two[1], false, e);
}

static tt_status begin_rows(const tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, m = c->info.tokens, in = tt_comit_patch_numbers(c);
    int64_t messages = 1 + j->patches, places = messages + j->calls * m;
    const tt_act *message = tt_comit_at(c, j->numbers, tt_comit_messages_at(c, j));
    const tt_act *place = tt_comit_at(c, j->numbers, tt_comit_places_at(c, j));
    tt_status st = tt_acts_put(s, c->type, j->numbers, j->input, tt_comit_numbers(c, j), e);
    if (!st)
        st = s->op.upload(s, j->part, j->index, (size_t)tt_comit_ints(c, j) * sizeof *j->index, e);
    if (!st)
        st = s->op.linear(s, tt_comit_at(c, j->parts, d), d, j->numbers, in, j->patches,
                          c->patches, false, e);
    if (!st)
        st = embed(c, j, tt_comit_at(c, j->parts, messages * d), message, j->calls * m,
                   c->info.dims, c->message, e);
    if (!st)
        st = embed(c, j, tt_comit_at(c, j->parts, places * d), place, j->calls, 2, c->place, e);
    if (!st)
        st = s->op.gather(s, j->x, d, j->parts, d, j->part, j->rows, d, e);
    if (!st)
        st = s->op.gather(s, j->h, d, c->places, d, j->place, j->rows, d, e);
    return st ? st : s->op.add(s, j->x, d, j->h, d, j->rows, d, e);
}

/* The released bias is 1 where a key is not a later query, 0 (here: strictly unseen) where it is.
 * One less for all of a row's keys is the same softmax. */
static tt_status attend(tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, hd = d / c->info.heads, row = 0;
    tt_biased_span list[TT_COMIT_CALLS];
    for (int64_t i = 0; i < j->calls; i++) {
        int64_t rows = tt_comit_rows(c, &j->call[i]);
        list[i] = (tt_biased_span){.query_row = row,
                                   .query_rows = rows,
                                   .k = tt_comit_at(c, j->wide, row * 3 * d + d),
                                   .v = tt_comit_at(c, j->wide, row * 3 * d + 2 * d),
                                   .ld_kv = 3 * d,
                                   .keys = rows,
                                   .by_order = true,
                                   .from = rows - c->info.tokens,
                                   .later = c->strict ? -INFINITY : -1};
        row += rows;
    }
    return s->op.attention_biased(s, j->h, d, j->wide, 3 * d, list, j->calls, c->info.heads, hd,
                                  (float)(1 / sqrt((double)hd)), c->compute, e);
}

/* The norm before attention (half 0) or the MLP (half 1), modulated by row. */
static tt_status normalise(const tt_comit *c, tt_comit_job *j, int64_t block, int half, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    return s->op.adaln(s, j->h, d, j->x, d, c->ones, tt_comit_mods(c, block, 3 * half),
                       tt_comit_mods(c, block, 3 * half + 1), TT_COMIT_MODS * d, j->mod, j->rows,
                       d, 1e-6f, e);
}

/* x += gate * branch, then the norm before the next half, of this layer or the one after it. */
static tt_status next_half(const tt_comit *c, tt_comit_job *j, const tt_act *branch, int64_t block,
                           int half, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, ld = TT_COMIT_MODS * d, next = block + half;
    tt_act *gate = tt_comit_mods(c, block, 3 * half + 2);
    if (next == c->info.layers)
        return s->op.gate_add(s, j->x, d, branch, d, gate, ld, j->mod, j->rows, d, e);
    int chunk = half ? 0 : 3;
    return s->op.gate_adaln(s, j->h, d, j->x, d, branch, d, c->ones, gate,
                            tt_comit_mods(c, next, chunk), tt_comit_mods(c, next, chunk + 1), ld,
                            j->mod, j->rows, d, 1e-6f, e);
}

/* From the normalised rows in h to those of the next layer. */
static tt_status run_layer(tt_comit *c, tt_comit_job *j, int64_t i, tt_err *e)
{
    tt_stream *s = c->stream;
    const tt_comit_layer *l = &c->layer[i];
    int64_t d = c->info.width;
    tt_status st = s->op.linear(s, j->wide, 3 * d, j->h, d, j->rows, l->qkv, false, e);
    if (!st)
        st = attend(c, j, e);
    if (!st)
        st = s->op.linear(s, j->wide, d, j->h, d, j->rows, l->out, false, e);
    if (!st)
        st = next_half(c, j, j->wide, i, 0, e);
    if (!st)
        st = s->op.linear_gelu(s, j->wide, c->ff, j->h, d, j->rows, l->up, e);
    if (!st)
        st = s->op.linear(s, j->h, d, j->wide, c->ff, j->rows, l->down, false, e);
    return st ? st : next_half(c, j, j->h, i, 1, e);
}

static tt_status give_velocities(const tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, in = tt_comit_patch_numbers(c);
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->patch_row, j->patches, d, e);
    if (!st)
        st = s->op.adaln(s, j->h, d, j->h, d, c->ones, c->times.last,
                         tt_comit_at(c, c->times.last, d), 2 * d, j->patch_time, j->patches, d,
                         1e-6f, e);
    if (!st)
        st = s->op.linear(s, j->wide, in, j->h, d, j->patches, c->velocity, false, e);
    return st ? st
              : s->op.download(s, j->velocity, j->wide,
                               (size_t)(j->patches * in) * tt_dtype_size(c->type), e);
}

static tt_status give_messages(const tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, rows = j->calls * c->info.tokens, dims = c->info.dims;
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->query_row, rows, d, e);
    if (!st)
        st = s->op.adaln(s, j->h, d, j->h, d, c->ones, tt_comit_mods(c, 0, 0),
                         tt_comit_mods(c, 0, 1), TT_COMIT_MODS * d, j->query_mod, rows, d, 1e-6f,
                         e);
    if (!st)
        st = s->op.linear(s, j->wide, dims, j->h, d, rows, c->renewed, false, e);
    return st ? st
              : s->op.download(s, j->renewed, j->wide,
                               (size_t)(rows * dims) * tt_dtype_size(c->type), e);
}

static tt_status run_body(tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_status s = begin_rows(c, j, e);
    if (!s)
        s = normalise(c, j, 0, 0, e);
    for (int64_t i = 0; i < c->info.layers && !s; i++)
        s = run_layer(c, j, i, e);
    if (!s && j->velocities)
        s = give_velocities(c, j, e);
    return s || !j->messages ? s : give_messages(c, j, e);
}

tt_status tt_comit_run_layers(tt_comit *c, tt_comit_job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    if (!s->op.pass_begin)
        return run_body(c, j, e);
    const int64_t key[] = {(int64_t)(intptr_t)c, (int64_t)(intptr_t)c->space, j->rows, j->calls,
                           j->patches, j->velocities, j->messages};
    tt_status st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
    if (st)
        return st;
    st = run_body(c, j, e);
    return s->op.pass_end(s, st, e);
}
