/* plan.c - see plan.h. */
#include "samplers/image/plan.h"

#include <math.h>

#include "kernels/base/rng.h"

void tt_image_guide(const tt_image_seq *q, tt_image_plan *plan)
{
    double w = q->params->cfg_scale, r = (double)q->step / q->steps;
    if (q->params->guidance_ramp == TT_RAMP_LINEAR)
        w *= r;
    else if (q->params->guidance_ramp == TT_RAMP_COSINE)
        w *= (1 - cos(3.14159265358979323846 * r)) / 2;
    plan->cfg_scale = (float)w;
    plan->guided = q->params->cfg_scale > 0;
    plan->reuse = q->params->feature_reuse;
}

void tt_image_ask(const tt_image_seq *q, tt_image_plan *plan, int32_t slot, double temperature)
{
    const tt_params *p = q->params;
    plan->slot[plan->wants] = slot;
    plan->draw[plan->wants++] = (tt_draw){.temperature = (float)temperature,
                                          .top_p = (float)p->top_p,
                                          .top_k = p->top_k,
                                          .min_p = (float)p->min_p,
                                          .noise = TT_NOISE_PHILOX,
                                          .seed = q->seed,
                                          .sample = q->sample,
                                          .step = (uint32_t)q->step,
                                          .position = (uint32_t)slot,
                                          .target = -1};
}

void tt_image_put(tt_image_seq *q, const tt_image_plan *plan, const tt_row_stats *stats, int32_t i)
{
    int32_t slot = plan->slot[i];
    q->id[slot] = stats[i].drawn;
    q->logprob[slot] = stats[i].logprob;
    q->step_of[slot] = q->step + 1;
    q->commit[q->commits++] = slot;
    q->hidden--;
}

float tt_image_noise(const tt_image_seq *q, int32_t slot)
{
    /* Draws use the blocks from 0 on, a quarter of the codes at most. */
    enum { ORDER_BLOCK = 1 << 30 };
    tt_rng_address a = {q->seed, q->sample, (uint32_t)q->step, (uint32_t)slot};
    return q->order_noise ? q->order_noise[slot] : tt_gumbel(tt_rng_at(a, ORDER_BLOCK).v[0]);
}
