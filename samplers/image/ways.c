/* ways.c - one of several ways to go on from the same image: draws without replacement.
 *
 * The Gumbel noise of a row is the same for all ways; the way-th largest sum of logit and noise is
 * what drawing without replacement gives (Kool et al., arXiv 1903.06059), and the largest is the
 * ordinary draw. Tokens that the filters leave out come behind all others: they are reached only
 * where there are more ways than tokens that are left. */
#include <math.h>
#include <stdlib.h>

#include "kernels/base/rng.h"
#include "samplers/image.h"

typedef struct {
    float logit, key;
    int32_t id;
    bool kept;
} lot;

static int by_logit(const void *a, const void *b)
{
    const lot *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int by_key(const void *a, const void *b)
{
    const lot *x = a, *y = b;
    if (x->kept != y->kept)
        return x->kept ? -1 : 1;
    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Marks what top_k, top_p and min_p keep, as tt_op_head does. list: by falling logit. */
static void filter(lot *list, int32_t n, const tt_draw *d)
{
    double t = d->temperature > 0 ? d->temperature : 1, sum = 0, before = 0;
    int32_t kept = n;
    if (d->top_k > 0 && d->top_k < n) {
        kept = d->top_k;
        while (kept < n && list[kept].logit == list[d->top_k - 1].logit)
            kept++;
    }
    for (int32_t i = 0; i < kept; i++)
        sum += exp(((double)list[i].logit - list[0].logit) / t);
    for (int32_t i = 0; i < kept; i++) {
        double p = exp(((double)list[i].logit - list[0].logit) / t) / sum;
        bool within = d->top_p >= 1 || before <= d->top_p;
        list[i].kept = i == 0 || (within && p * sum >= d->min_p); /* p / p_max = p * sum */
        before += p;
    }
}

static double log_sum(const float *logit, int32_t n, float most)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)logit[i] - most);
    return most + log(sum);
}

tt_status tt_image_take_way(const tt_image_seq *q, const tt_image_plan *plan, tt_row_stats *stats,
                            const float *logit, int32_t way, tt_err *e)
{
    int32_t n = q->layout.codes;
    const tt_draw *d = &plan->draw[0];
    lot *list = malloc((size_t)n * sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for a draw among %d tokens", n);
    for (int32_t i = 0; i < n; i++) {
        tt_rng_address a = {d->seed, d->sample, d->step, d->position};
        float noise = d->temperature > 0 ? tt_gumbel(tt_rng_at(a, (uint32_t)i / 4).v[i % 4]) : 0;
        float l = isnan(logit[i]) ? -INFINITY : logit[i];
        list[i] = (lot){l, fmaf(d->temperature, noise, l), i, false};
    }
    qsort(list, (size_t)n, sizeof *list, by_logit);
    float most = list[0].logit;
    filter(list, n, d);
    qsort(list, (size_t)n, sizeof *list, by_key);
    lot taken = list[way < n ? way : n - 1];
    free(list);
    stats[0].drawn = taken.id;
    stats[0].logprob = (float)((double)taken.logit - log_sum(logit, n, most));
    stats[0].prob = expf(stats[0].logprob);
    return TT_OK;
}
