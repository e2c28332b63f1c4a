/* masked.c - see masked.h. */
#include "samplers/masked/masked.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/rng.h"

int32_t tt_block_length(const tt_seq *q)
{
    return tt_block_columns(q->params, q->columns, q->prompt);
}

int32_t tt_count_open(const tt_seq *q, int32_t begin, int32_t end)
{
    int32_t n = 0;
    for (int32_t c = begin; c < end; c++)
        n += tt_seq_open_at(q, c);
    return n;
}

bool tt_block_find(const tt_seq *q, int32_t from, tt_block *b)
{
    int32_t length = tt_block_length(q);
    for (int32_t c = from > q->prompt ? from : q->prompt; c < q->columns; c++)
        if (tt_seq_open_at(q, c)) {
            b->begin = q->prompt + (c - q->prompt) / length * length;
            b->end = b->begin + length < q->columns ? b->begin + length : q->columns;
            return true;
        }
    return false;
}

int32_t tt_block_count(const tt_seq *q)
{
    tt_block b = {0};
    int32_t n = 0;
    while (tt_block_find(q, b.end, &b))
        n++;
    return n;
}

tt_status tt_no_origin(const tt_seq *q, tt_err *e)
{
    if (q->params->remask != TT_REMASK_ORIGIN)
        return TT_OK;
    return tt_fail_param(e, "remask", "unsupported_value",
                         "'remask' is 'origin', which only sampler 'dream' has");
}

/* Bans an id in a sorted list that has room for one more. */
static int32_t ban(tt_id_value *list, int32_t n, int32_t id)
{
    int32_t at = 0;
    while (at < n && list[at].id < id)
        at++;
    if (at == n || list[at].id != id) {
        for (int32_t i = n; i > at; i--)
            list[i] = list[i - 1];
        n++;
    }
    list[at] = (tt_id_value){id, -INFINITY};
    return n;
}

tt_status tt_rules_begin(tt_rules *r, tt_seq *q, tt_err *e)
{
    r->bias = q->bias;
    r->n_bias = q->n_bias;
    if ((q->params->logits_eos_inf || q->params->confidence_eos_eot_inf) && q->eos_id < 0)
        return tt_fail_param(e, q->params->logits_eos_inf ? "logits_eos_inf"
                                                          : "confidence_eos_eot_inf",
                             "unsupported_parameter", "the model has no end token");
    if (q->params->logits_eos_inf) {
        tt_id_value *list = TT_TAKE(q->arena, q->n_bias + 1, tt_id_value);
        if (!list)
            return tt_fail(e, TT_ENOMEM, "no memory for %d logit biases", q->n_bias);
        for (int32_t i = 0; i < q->n_bias; i++)
            list[i] = q->bias[i];
        r->n_bias = ban(list, q->n_bias, q->eos_id);
        r->bias = list;
    }
    if (q->params->confidence_eos_eot_inf) {
        int32_t a = q->eos_id, b = q->eot_id;
        bool two = b >= 0 && b != a;
        r->unsure[0] = two && b < a ? b : a;
        r->unsure[1] = two && b < a ? a : b;
        r->n_unsure = two ? 2 : 1;
    }
    return TT_OK;
}

tt_draw tt_draw_at(const tt_seq *q, const tt_rules *rules, int32_t column)
{
    const tt_params *p = q->params;
    const tt_noise *n = &q->noise;
    tt_draw d = {.temperature = (float)p->temperature,
                 .top_p = (float)p->top_p,
                 .top_k = p->top_k,
                 .min_p = (float)p->min_p,
                 .noise = p->temperature > 0 ? n->kind : TT_NOISE_NONE,
                 .seed = n->seed,
                 .sample = n->sample,
                 .step = (uint32_t)q->step,
                 .position = (uint32_t)column,
                 .bias = rules->bias,
                 .n_bias = rules->n_bias,
                 .unsure = rules->n_unsure ? rules->unsure : NULL,
                 .n_unsure = rules->n_unsure,
                 .limit = q->vocab,
                 .target = -1};
    d.base = n->draw_base + (uint64_t)q->step * n->stride + (uint64_t)column * (uint64_t)q->vocab;
    return d;
}

tt_status tt_ask_open(const tt_seq *q, const tt_rules *rules, int32_t begin, int32_t end,
                      tt_plan *plan, tt_err *e)
{
    plan->row_end = plan->see_end = q->columns;
    plan->row_begin = plan->see_begin = 0;
    plan->see = TT_SEE_ALL;
    plan->cfg_scale = (float)q->params->cfg_scale;
    plan->asks = 0;
    plan->ask = TT_TAKE(plan->arena, tt_count_open(q, begin, end), tt_ask);
    if (!plan->ask)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", end - begin);
    for (int32_t c = begin; c < end; c++)
        if (tt_seq_open_at(q, c))
            plan->ask[plan->asks++] = (tt_ask){.column = c, .draw = tt_draw_at(q, rules, c)};
    return TT_OK;
}

uint64_t tt_splitmix(uint64_t seed, uint64_t k)
{
    uint64_t z = seed + k * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Philox index of the random order; token draws use the indexes below. */
enum { ORDER_BLOCK = 0x7FFFFFFF };

static float random_order(const tt_seq *q, int32_t column)
{
    const tt_noise *n = &q->noise;
    if (n->kind == TT_NOISE_SPLITMIX)
        return (float)(tt_splitmix(n->seed, n->conf_base + (uint64_t)q->step * n->stride +
                                                (uint64_t)column + 1) >> 40) * 0x1p-24f;
    tt_rng_address a = {.seed = n->seed, .sample = n->sample, .step = (uint32_t)q->step,
                        .position = (uint32_t)column};
    return tt_uniform(tt_rng_at(a, ORDER_BLOCK).v[0]);
}

float tt_confidence(const tt_seq *q, const tt_result *r, int32_t i)
{
    const tt_row_stats *s = &r->stats[i];
    switch ((tt_remask)q->params->remask) {
    case TT_REMASK_MARGIN:
        return s->margin;
    case TT_REMASK_ENTROPY:
        return -s->entropy;
    case TT_REMASK_RANDOM:
        return random_order(q, r->plan->ask[i].column);
    case TT_REMASK_CONFIDENCE:
    case TT_REMASK_ORIGIN:
        break;
    }
    return s->prob;
}

/* Entry j of linspace(1, eps, steps + 1) in float32, computed from both ends. */
static float time_at(float eps, int32_t steps, int32_t j)
{
    float step = (eps - 1.0f) / (float)steps;
    return j < (steps + 1) / 2 ? 1.0f + (float)j * step : eps - (float)(steps - j) * step;
}

float tt_time_share(float eps, int32_t steps, int32_t i)
{
    return i < steps ? 1.0f - time_at(eps, steps, i + 1) / time_at(eps, steps, i) : 1.0f;
}

typedef struct {
    float score;
    int32_t ask;
} ranked;

static int by_score(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->ask > y->ask) - (x->ask < y->ask); /* asks are in column order */
}

tt_status tt_order_asks(const tt_result *r, const float *score, int32_t *order, tt_err *e)
{
    int32_t n = r->plan->asks;
    ranked *list = TT_TAKE(r->plan->arena, n, ranked);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", n);
    for (int32_t i = 0; i < n; i++)
        list[i] = (ranked){isnan(score[i]) ? -INFINITY : score[i], i};
    qsort(list, (size_t)n, sizeof *list, by_score);
    for (int32_t i = 0; i < n; i++)
        order[i] = list[i].ask;
    return TT_OK;
}

tt_status tt_rank(tt_ranking *out, const tt_seq *q, const tt_result *r,
                  float (*score)(const tt_seq *q, const tt_result *r, int32_t i), tt_err *e)
{
    int32_t n = r->plan->asks;
    float *by_ask = TT_TAKE(r->plan->arena, n, float);
    *out = (tt_ranking){.n = n, .order = TT_TAKE(r->plan->arena, n, int32_t),
                        .score = TT_TAKE(r->plan->arena, n, float)};
    if (!by_ask || !out->order || !out->score)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", n);
    for (int32_t i = 0; i < n; i++)
        by_ask[i] = score(q, r, i);
    tt_status s = tt_order_asks(r, by_ask, out->order, e);
    for (int32_t i = 0; i < n && !s; i++)
        out->score[i] = by_ask[out->order[i]];
    return s;
}

float tt_score_prob(const tt_seq *q, const tt_result *r, int32_t i)
{
    (void)q;
    return r->stats[i].prob;
}

int32_t tt_threshold_count(const tt_ranking *k, double threshold)
{
    int32_t n = 1;
    while (n < k->n && k->score[n] >= (float)threshold)
        n++;
    return n;
}

int32_t tt_commit_best(tt_seq *q, const tt_result *r, const tt_ranking *k, int32_t n)
{
    int32_t committed = 0;
    for (int32_t i = 0; i < n && i < k->n; i++)
        committed += tt_seq_commit(q, r, k->order[i]);
    return committed;
}

tt_status tt_steps_of(const tt_seq *q, int32_t *open, int32_t *steps, tt_err *e)
{
    *open = tt_count_open(q, q->prompt, q->columns);
    /* A step that commits nothing would change nothing: more steps than columns are left out. */
    bool fewer = q->params->steps && q->params->steps < *open;
    *steps = fewer ? q->params->steps : *open;
    int32_t blocks = tt_block_count(q);
    if (*steps >= blocks)
        return TT_OK;
    return tt_fail_param(e, "steps", "invalid_value",
                         "'steps' is %d, but the canvas has %d blocks of %d columns", *steps,
                         blocks, tt_block_length(q));
}

tt_quota tt_quota_begin(int32_t open, int32_t total, int32_t steps)
{
    int64_t own = ((int64_t)steps * open + total / 2) / total;
    tt_quota q = {.steps_left = own < 1 ? 1 : (int32_t)own};
    q.share = open / q.steps_left;
    q.extra = open % q.steps_left;
    return q;
}

int32_t tt_quota_next(tt_quota *q)
{
    int32_t n = q->share + (q->extra > 0);
    q->extra -= q->extra > 0;
    q->steps_left--;
    return n < 1 ? 1 : n;
}
