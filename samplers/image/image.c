/* image.c - every planner, once; and the bookkeeping of one image. */
#include "samplers/image.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/rng.h"

#define TT_PLANNERS(X) X(masked) X(levels) X(next)

#define DECLARE(id) extern const tt_planner tt_planner_##id;
TT_PLANNERS(DECLARE)

#define ENTRY(id) &tt_planner_##id,
static const tt_planner *const table[] = {TT_PLANNERS(ENTRY) NULL};

const tt_planner *const *tt_planner_all(void) { return table; }

const tt_planner *tt_planner_find(const char *name)
{
    for (const tt_planner *const *p = table; *p; p++)
        if (!strcmp((*p)->name, name))
            return *p;
    return NULL;
}

const tt_planner *tt_planner_for(tt_generator_kind kind)
{
    for (const tt_planner *const *p = table; *p; p++)
        if ((*p)->kind == kind)
            return *p;
    return NULL;
}

bool tt_planner_reads(const tt_planner *p, const tt_param *param)
{
    for (const char *const *name = p->params; *name; name++)
        if (!strcmp(*name, param->name))
            return true;
    return false;
}

enum { ALIGN = 64, LISTS = 10 }; /* every list may lose up to ALIGN bytes to alignment */

size_t tt_image_seq_bytes(const tt_planner *p, int32_t tokens)
{
    return (size_t)tokens * (5 * 4 + 1 + p->slot_size) + p->state_size + LISTS * ALIGN;
}

size_t tt_image_step_bytes(int32_t tokens)
{
    return (size_t)tokens * (sizeof(tt_draw) + 5 * 4) + LISTS * ALIGN;
}

tt_status tt_image_begin(tt_image_seq *q, const int32_t *id, tt_err *e)
{
    int32_t n = q->layout.tokens;
    q->id = TT_TAKE(q->arena, n, int32_t);
    q->guess = TT_TAKE(q->arena, n, int32_t);
    q->step_of = TT_TAKE(q->arena, n, int32_t);
    q->commit = TT_TAKE(q->arena, n, int32_t);
    q->logprob = TT_TAKE(q->arena, n, float);
    q->fixed = TT_TAKE(q->arena, n, uint8_t);
    q->state = tt_arena_take(q->arena, 1, q->planner->state_size + 1);
    if (!q->id || !q->guess || !q->step_of || !q->commit || !q->logprob || !q->fixed || !q->state)
        return tt_fail(e, TT_ENOMEM, "no memory for an image of %d tokens", n);
    for (int32_t i = 0; i < n; i++) {
        q->id[i] = id ? id[i] : q->mask_id;
        q->fixed[i] = q->id[i] != q->mask_id;
        q->hidden += !q->fixed[i];
        q->guess[i] = -1;
    }
    q->free = q->hidden;
    return q->planner->open(q, q->state, e);
}

tt_status tt_image_plan_step(tt_image_seq *q, tt_image_plan *plan, tt_err *e)
{
    int32_t n = q->layout.tokens;
    plan->slot = TT_TAKE(plan->arena, n, int32_t);
    plan->draw = TT_TAKE(plan->arena, n, tt_draw);
    plan->wants = 0;
    if (!plan->slot || !plan->draw)
        return tt_fail(e, TT_ENOMEM, "no memory for a step of %d tokens", n);
    return q->planner->plan(q, q->state, plan, e);
}

tt_status tt_image_apply(tt_image_seq *q, const tt_image_plan *plan, const tt_row_stats *stats,
                         tt_err *e)
{
    q->commits = 0;
    for (int32_t i = 0; i < plan->wants; i++)
        if (stats[i].drawn < 0 || stats[i].drawn >= q->layout.codes)
            return tt_fail(e, TT_EINVAL, "no token is possible at %d", plan->slot[i]);
    tt_status st = q->planner->apply(q, q->state, plan, stats, e);
    q->step++;
    return st;
}

void tt_image_fork(tt_image_seq *to, const tt_image_seq *from)
{
    size_t n = (size_t)from->layout.tokens;
    memcpy(to->id, from->id, n * sizeof *to->id);
    memcpy(to->guess, from->guess, n * sizeof *to->guess);
    memcpy(to->step_of, from->step_of, n * sizeof *to->step_of);
    memcpy(to->logprob, from->logprob, n * sizeof *to->logprob);
    to->hidden = from->hidden;
    to->step = from->step;
    to->steps = from->steps;
    if (to->planner->fork)
        to->planner->fork(to, to->state, from->state);
    else
        memcpy(to->state, from->state, to->planner->state_size);
}

void tt_image_preview(const tt_image_seq *q, int32_t *out)
{
    for (int32_t i = 0; i < q->layout.tokens; i++)
        out[i] = q->id[i] != q->mask_id ? q->id[i] : q->guess[i] > 0 ? q->guess[i] : 0;
}

/* --- image to image --- */

typedef struct {
    uint32_t key;
    int32_t slot;
} lot;

static int by_key(const void *a, const void *b)
{
    const lot *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key)
                            : (x->slot > y->slot) - (x->slot < y->slot);
}

tt_status tt_image_hide(int32_t *id, const tt_layout *layout, int32_t mask_id, const uint8_t *mask,
                        double strength, uint64_t seed, uint32_t sample, tt_err *e)
{
    if (!(strength > 0 && strength <= 1))
        return tt_fail_param(e, "strength", "invalid_value",
                             "'strength' is %g, must be above 0, at most 1", strength);
    lot *lots = malloc((size_t)layout->tokens * sizeof *lots);
    int32_t n = 0;
    if (!lots)
        return tt_fail(e, TT_ENOMEM, "no memory for %d tokens", layout->tokens);
    for (int32_t i = 0; i < layout->tokens; i++) {
        tt_rng_address a = {seed, sample, UINT32_MAX, (uint32_t)i}; /* no step has this number */
        if (!mask || mask[i])
            lots[n++] = (lot){tt_rng_at(a, 0).v[0], i};
    }
    qsort(lots, (size_t)n, sizeof *lots, by_key);
    int32_t hide = (int32_t)(strength * n + 0.5);
    hide = hide < 1 && n ? 1 : hide;
    for (int32_t i = 0; i < hide; i++)
        id[lots[i].slot] = mask_id;
    free(lots);
    return TT_OK;
}
