/* masked.c - planner of masked images: some hidden tokens come to stand at every step, until none
 * is left (MaskGIT, arXiv 2202.04200). Which ones is the order's business. */
#include <math.h>

#include "samplers/image/plan.h"

enum { STEPS = 8 };

typedef struct {
    const tt_order *order;
    int32_t *rank; /* of every slot, for orders that choose ahead */
} masked;

static tt_status masked_open(tt_image_seq *q, void *state, tt_err *e)
{
    masked *m = state;
    m->order = tt_orders[q->params->order];
    q->steps = q->params->steps ? q->params->steps : STEPS;
    if (!m->order->arrange)
        return TT_OK;
    if (!q->layout.rows)
        return tt_fail_param(e, "order", "unsupported_value", "'order' is '%s', which is for grids",
                             m->order->name);
    m->rank = TT_TAKE(q->arena, q->layout.tokens, int32_t);
    if (!m->rank)
        return tt_fail(e, TT_ENOMEM, "no memory for an image of %d tokens", q->layout.tokens);
    m->order->arrange(q, m->rank);
    return TT_OK;
}

static int32_t remain(const tt_image_seq *q, const masked *m)
{
    return q->step >= q->steps - 1 ? 0 : m->order->remain(q);
}

/* The rank below which so many hidden slots lie. */
static int32_t rank_limit(const tt_image_seq *q, const masked *m, int32_t count, int32_t *scratch)
{
    for (int32_t i = 0; i < q->layout.tokens; i++)
        scratch[m->rank[i]] = i;
    for (int32_t r = 0; r < q->layout.tokens; r++)
        if (q->id[scratch[r]] == q->mask_id && count-- == 0)
            return r;
    return q->layout.tokens;
}

static tt_status masked_plan(tt_image_seq *q, void *state, tt_image_plan *plan, tt_err *e)
{
    const masked *m = state;
    double temperature = m->order->temperature(q, q->params->temperature);
    int32_t limit = 0;
    if (m->rank) {
        int32_t *scratch = TT_TAKE(plan->arena, q->layout.tokens, int32_t);
        if (!scratch)
            return tt_fail(e, TT_ENOMEM, "no memory for a step of %d tokens", q->layout.tokens);
        limit = rank_limit(q, m, q->hidden - remain(q, m), scratch);
    }
    tt_image_guide(q, plan);
    for (int32_t i = 0; i < q->layout.tokens; i++)
        if (q->id[i] == q->mask_id && (!m->rank || m->rank[i] < limit))
            tt_image_ask(q, plan, i, temperature);
    return TT_OK;
}

typedef struct {
    float sure;
    int32_t want;
} candidate;

static bool before(candidate a, candidate b)
{
    return a.sure != b.sure ? a.sure < b.sure : a.want < b.want;
}

/* The k-th of n candidates from the least sure on, counted from 0; ties from left (Hoare's
 * selection). list is left in another order. */
static candidate select_nth(candidate *list, int32_t n, int32_t k)
{
    int32_t low = 0, high = n - 1;
    while (low < high) {
        candidate pivot = list[low + (high - low) / 2];
        int32_t i = low, j = high;
        while (i <= j) {
            while (before(list[i], pivot))
                i++;
            while (before(pivot, list[j]))
                j--;
            if (i <= j) {
                candidate c = list[i];
                list[i++] = list[j];
                list[j--] = c;
            }
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return list[k];
}

static tt_status masked_apply(tt_image_seq *q, void *state, const tt_image_plan *plan,
                              const tt_row_stats *stats, tt_err *e)
{
    const masked *m = state;
    int32_t hide = m->rank ? 0 : remain(q, m);
    candidate *list = TT_TAKE(plan->arena, plan->wants, candidate);
    float *sure = TT_TAKE(plan->arena, plan->wants, float);
    if (!list || !sure)
        return tt_fail(e, TT_ENOMEM, "no memory for a step of %d tokens", plan->wants);
    double left = 1 - (double)(q->step + 1) / q->steps;
    double noise = left > 0 ? q->params->order_temperature * left : 0;
    for (int32_t i = 0; i < plan->wants; i++) {
        list[i] = (candidate){stats[i].logprob, i};
        if (noise > 0)
            list[i].sure += (float)(noise * tt_image_noise(q, plan->slot[i]));
        sure[i] = list[i].sure;
    }
    /* The least sure stay hidden, and are asked for again. */
    candidate first = {-INFINITY, -1};
    if (hide > 0 && hide < plan->wants)
        first = select_nth(list, plan->wants, hide);
    for (int32_t i = 0; i < plan->wants; i++) {
        if (hide == plan->wants || before((candidate){sure[i], i}, first))
            q->guess[plan->slot[i]] = stats[i].argmax;
        else
            tt_image_put(q, plan, stats, i);
    }
    return TT_OK;
}

/* The order a slot's turn comes in was settled when the image began. */
static void masked_fork(const tt_image_seq *q, void *state, const void *from)
{
    masked *to = state;
    const masked *m = from;
    for (int32_t i = 0; to->rank && i < q->layout.tokens; i++)
        to->rank[i] = m->rank[i];
}

static const char *const params[] = {"steps", "temperature", "top_p", "top_k", "min_p",
                                     "cfg_scale", "guidance_ramp", "order", "order_temperature",
                                     "feature_reuse", NULL};

const tt_planner tt_planner_masked = {
    .name = "masked",
    .summary = "some hidden tokens at every step, until none is left",
    .source = "MaskGIT, arXiv 2202.04200; orders name theirs",
    .kind = TT_GENERATES_MASKED,
    .params = params,
    .state_size = sizeof(masked),
    .slot_size = sizeof(int32_t),
    .open = masked_open,
    .plan = masked_plan,
    .apply = masked_apply,
    .fork = masked_fork,
};
