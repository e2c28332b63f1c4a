/* ddpm.c - ancestral sampling of masked diffusion (MDLM, arXiv 2406.07524; released samplers ddpm,
 * ddpm_cache and analytic, loglinear noise).
 *
 * Time runs from 1 to EPS in steps of dt. In the step from t to t - dt a masked column opens with
 * probability dt / t, whatever the model thinks, and then takes a token drawn from the model's
 * distribution at noise level sigma(t) = -ln(1 - (1 - 1e-3) t). So a column opens in the first step
 * that ends at or below a uniform number of its own: the steps at which anything happens are known
 * beforehand, and only they cost a pass. That is what ddpm_cache saves for models without time
 * input, and it is right for those with one as well. What is masked in the end takes the most
 * probable token (ddpm) or a drawn one (analytic, otherwise the same).
 *
 * Replaying a reference stream, each step draws for all masked columns as the released code does:
 * the token's share p[v] dt and the mask's share t - dt race, each divided by an exponential
 * variate of its own. */
#include <math.h>

#include "kernels/base/rng.h"
#include "samplers/masked/masked.h"

static const double EPS = 1e-5;
enum { STEPS = 1024 };

typedef struct {
    tt_rules rules;
    int32_t steps;
    int32_t i;     /* the step planned; `steps`: the last one, which leaves no mask */
    int32_t *when; /* per column: the step in which it opens */
    bool draws_last;
} state;

/* Philox index of opening times; the samplers' others are above, token draws below. */
enum { TIME_BLOCK = 0x7FFFFFFD };

static int32_t opening_step(const tt_seq *q, const state *s, int32_t column)
{
    tt_rng_address a = {
        .seed = q->noise.seed, .sample = q->noise.sample, .position = (uint32_t)column};
    double u = (double)tt_uniform(tt_rng_at(a, TIME_BLOCK).v[0]);
    double step = floor((1 - u) * s->steps / (1 - EPS));
    return step < s->steps ? (int32_t)step : s->steps;
}

static tt_status begin(tt_seq *q, state *s, tt_err *e)
{
    tt_status st = tt_rules_begin(&s->rules, q, e);
    int32_t open = tt_count_open(q, 0, q->columns);
    if (!st && !open)
        st = tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    if (st)
        return st;
    s->steps = q->params->steps ? q->params->steps : STEPS;
    s->when = TT_TAKE(q->arena, q->columns, int32_t);
    if (!s->when)
        return tt_fail(e, TT_ENOMEM, "no memory for the times of %d columns", q->columns);
    for (int32_t c = 0; c < q->columns; c++)
        s->when[c] = q->noise.kind == TT_NOISE_SPLITMIX ? 0 : opening_step(q, s, c);
    q->expected = open < s->steps ? open : s->steps + 1;
    return TT_OK;
}

static tt_status ddpm_open(tt_seq *q, void *memory, tt_err *e)
{
    return begin(q, memory, e);
}

static tt_status analytic_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    s->draws_last = true;
    return begin(q, s, e);
}

/* Entry i of linspace(1, EPS, steps + 1) in float32, computed from both ends. */
static float time_of(const state *s, int32_t i)
{
    float step = ((float)EPS - 1.0f) / (float)s->steps;
    return i < (s->steps + 1) / 2 ? 1.0f + (float)i * step
                                  : (float)EPS - (float)(s->steps - i) * step;
}

static tt_status plan(tt_seq *q, void *memory, tt_plan *p, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_ask_open(q, &s->rules, 0, q->columns, p, e);
    bool replay = q->noise.kind == TT_NOISE_SPLITMIX;
    s->i = replay && q->step < s->steps ? q->step : s->steps;
    for (int32_t i = 0; i < p->asks && !replay && !st; i++)
        s->i = s->when[p->ask[i].column] < s->i ? s->when[p->ask[i].column] : s->i;
    int32_t n = 0;
    for (int32_t i = 0; i < p->asks && !st; i++) {
        if (!replay && s->when[p->ask[i].column] != s->i)
            continue;
        p->ask[n] = p->ask[i];
        if (s->i == s->steps && !s->draws_last)
            p->ask[n].draw.temperature = 0;
        n++;
    }
    p->asks = st ? p->asks : n;
    p->sigma = -log1pf(-(1 - 1e-3f) * time_of(s, s->i));
    return st;
}

/* What a share of probability is divided by in the reference's race. */
static float variate(uint64_t seed, uint64_t k)
{
    float u = (float)(tt_splitmix(seed, k) >> 40) * 0x1p-24f;
    return 1e-10f - logf(u + 1e-10f);
}

/* Does the drawn token win against staying masked? */
static bool opens(const tt_seq *q, const state *s, const tt_result *r, int32_t i)
{
    const tt_draw *d = &r->plan->ask[i].draw;
    const tt_row_stats *st = &r->stats[i];
    if (d->noise != TT_NOISE_SPLITMIX || s->i == s->steps)
        return true;
    float t = time_of(s, s->i), dt = (float)((1 - EPS) / s->steps);
    float token = st->prob * dt / variate(d->seed, d->base + (uint64_t)st->drawn + 1);
    float mask = (t - dt) / variate(d->seed, d->base + (uint64_t)q->mask_id + 1);
    return token > mask || (token == mask && st->drawn < q->mask_id);
}

static tt_status apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    for (int32_t i = 0; i < r->plan->asks; i++)
        if (opens(q, s, r, i))
            tt_seq_commit(q, r, i);
    *done = !tt_count_open(q, 0, q->columns);
    return TT_OK;
}

static const char *const params[] = {"temperature", "top_p", "top_k",          "min_p",
                                     "cfg_scale",   "steps", "logits_eos_inf", NULL};

extern const tt_sampler tt_sampler_ddpm, tt_sampler_analytic;
const tt_sampler tt_sampler_ddpm = {
    .name = "ddpm",
    .summary = "ancestral sampling: columns open in random order, tokens are drawn; 1024 steps "
               "unless told, only those that change something cost a pass",
    .source = "MDLM, arXiv 2406.07524, released ddpm and ddpm_cache",
    .needs = TT_KIND_BIDIRECTIONAL,
    .timed = true,
    .state_size = sizeof(state),
    .params = params,
    .open = ddpm_open,
    .plan = plan,
    .apply = apply,
};
const tt_sampler tt_sampler_analytic = {
    .name = "analytic",
    .summary = "as ddpm, but what is masked in the end is drawn too",
    .source = "SEDD, arXiv 2310.16834, as in MDLM's released analytic sampler",
    .needs = TT_KIND_BIDIRECTIONAL,
    .timed = true,
    .state_size = sizeof(state),
    .params = params,
    .open = analytic_open,
    .plan = plan,
    .apply = apply,
};
