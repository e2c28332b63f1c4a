/* comit_times.c - what COMiT makes of times alone: the modulations of every layer. */
#include <math.h>
#include <stdlib.h>

#include "models/comit_net.h"
#include "models/nn/acts.h"

/* Rows of a layer's modulations: none, then two of every time. */
enum { MOD_ROWS = 1 + 2 * TT_COMIT_TIMES };

static tt_act *mods_of(const tt_comit *c, int64_t block, int64_t row)
{
    return tt_comit_at(c, tt_comit_mods(c, block, 0), row * TT_COMIT_MODS * c->info.width);
}

tt_act *tt_comit_mods(const tt_comit *c, int64_t block, int64_t chunk)
{
    int64_t vectors = block * MOD_ROWS * TT_COMIT_MODS + chunk;
    return tt_comit_at(c, c->times.mods, vectors * c->info.width);
}

static tt_status open_times(tt_comit *c, tt_err *e)
{
    tt_stream *s = c->stream;
    tt_comit_times *k = &c->times;
    int64_t d = c->info.width, layers = c->info.layers, ld = TT_COMIT_MODS * d;
    int64_t most = 2 * d > TT_COMIT_WAVES ? 2 * d : TT_COMIT_WAVES;
    size_t size = tt_dtype_size(c->type);
    float *none = calloc((size_t)ld, sizeof *none);
    tt_status st = none ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a modulation");
    for (int64_t i = 0; i < d && !st; i++)
        none[2 * d + i] = none[5 * d + i] = 1;
    if (!st)
        st = s->op.alloc(s, &k->mods, (size_t)(layers * MOD_ROWS * ld) * size, e);
    if (!st)
        st = s->op.alloc(s, &k->last, (size_t)(TT_COMIT_TIMES * 2 * d) * size, e);
    if (!st)
        st = s->op.alloc(s, &k->time, (size_t)most * size, e);
    for (int64_t i = 0; i < layers && !st; i++)
        st = tt_acts_put(s, c->type, mods_of(c, i, 0), none, ld, e);
    if (!st)
        st = s->op.sync(s, e);
    free(none);
    return st;
}

/* cos and sin of 1000 t at falling frequencies. */
static void make_waves(float waves[TT_COMIT_WAVES], float t)
{
    for (int k = 0; k < TT_COMIT_WAVES / 2; k++) {
        double angle = (double)(1000 * t) * exp(-log(10000.0) * k / (TT_COMIT_WAVES / 2));
        waves[k] = (float)cos(angle);
        waves[TT_COMIT_WAVES / 2 + k] = (float)sin(angle);
    }
}

/* silu(second(silu(first(waves)))) in times.time. hidden: room for a row. */
static tt_status embed_time(tt_comit *c, float t, tt_act *hidden, tt_err *e)
{
    tt_stream *s = c->stream;
    tt_act *time = c->times.time;
    int64_t d = c->info.width;
    float waves[TT_COMIT_WAVES];
    make_waves(waves, t);
    tt_status st = tt_acts_put(s, c->type, time, waves, TT_COMIT_WAVES, e);
    if (!st)
        st = s->op.linear(s, hidden, d, time, TT_COMIT_WAVES, 1, c->time[0], false, e);
    if (!st)
        st = s->op.unit(s, hidden, d, hidden, d, 1, d, TT_UNIT_SILU, e);
    if (!st)
        st = s->op.linear(s, time, d, hidden, d, 1, c->time[1], false, e);
    return st ? st : s->op.unit(s, time, d, time, d, 1, d, TT_UNIT_SILU, e);
}

/* All layers' modulations at t. */
static tt_status fill_time(tt_comit *c, int slot, float t, tt_act *hidden, tt_err *e)
{
    tt_stream *s = c->stream;
    tt_comit_times *k = &c->times;
    int64_t d = c->info.width, ld = TT_COMIT_MODS * d;
    tt_status st = embed_time(c, t, hidden, e);
    if (!st)
        st = s->op.linear(s, tt_comit_at(c, k->last, slot * 2 * d), 2 * d, k->time, d, 1,
                          c->last_mod, false, e);
    for (int64_t i = 0; i < c->info.layers && !st; i++) {
        const tt_comit_layer *l = &c->layer[i];
        st = s->op.linear(s, mods_of(c, i, 1 + 2 * slot), ld, k->time, d, 1, l->x_mod, false, e);
        if (!st)
            st = s->op.linear(s, mods_of(c, i, 2 + 2 * slot), ld, k->time, d, 1, l->r_mod, false,
                              e);
    }
    k->t[slot] = t;
    k->used[slot] = st ? 0 : ++k->clock;
    return st;
}

tt_status tt_comit_slot(tt_comit *c, int *slot, float t, tt_act *hidden, tt_err *e)
{
    tt_comit_times *k = &c->times;
    tt_status s = k->mods ? TT_OK : open_times(c, e);
    int oldest = 0;
    for (int i = 0; i < TT_COMIT_TIMES && !s; i++) {
        if (k->used[i] && k->t[i] == t) {
            k->used[i] = ++k->clock;
            *slot = i;
            return TT_OK;
        }
        if (k->used[i] < k->used[oldest])
            oldest = i;
    }
    *slot = oldest;
    return s ? s : fill_time(c, oldest, t, hidden, e);
}
