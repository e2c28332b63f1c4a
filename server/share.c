/* share.c - see share.h. */
#include "server/share.h"

#include <stddef.h>

/* Models live as long as the engine, so lanes are never given back; beyond the table's size models
 * share the last lane. */
static tt_lane *lane_of(tt_share *s, const void *model)
{
    for (int i = 0; i < s->lanes; i++)
        if (s->lane[i].model == model)
            return &s->lane[i];
    if (s->lanes == TT_MAX_LANES)
        return &s->lane[TT_MAX_LANES - 1];
    tt_lane *l = &s->lane[s->lanes++];
    *l = (tt_lane){.model = model};
    return l;
}

void tt_share_begin(tt_share *s)
{
    for (int i = 0; i < s->lanes; i++) {
        s->lane[i].waited = s->lane[i].waits;
        s->lane[i].waits = false;
    }
}

void tt_share_waits(tt_share *s, const void *model)
{
    tt_lane *l = lane_of(s, model);
    l->waits = true;
    if (!l->waited && l->used < s->clock)
        l->used = s->clock;
}

const void *tt_share_next(tt_share *s)
{
    const tt_lane *best = NULL;
    for (int i = 0; i < s->lanes; i++)
        if (s->lane[i].waits && (!best || s->lane[i].used < best->used))
            best = &s->lane[i];
    if (!best)
        return NULL;
    if (best->used > s->clock)
        s->clock = best->used;
    return best->model;
}

int tt_share_waiting(const tt_share *s)
{
    int n = 0;
    for (int i = 0; i < s->lanes; i++)
        n += s->lane[i].waits;
    return n;
}

void tt_share_took(tt_share *s, const void *model, double seconds)
{
    lane_of(s, model)->used += seconds;
}
