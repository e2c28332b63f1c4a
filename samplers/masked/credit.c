/* credit.c - dInfer's credit decoder (arXiv 2510.08666, released code): a token that was the most
 * likely one in earlier steps of the block is trusted more. Every step decays all credits by
 * credit_decay, credits each open column's most likely token with p^credit_power, and applies the
 * threshold rule to logits + credit_weight * ln(1 + credit).
 *
 * The credit a step gives depends on the logits it is added to. So a column is asked twice in one
 * pass, without credits and with those of the steps before; the new credit changes one logit of
 * the second distribution, which is worked out here. A temperature draws from that second
 * distribution. The CREDITS largest credits of a column are kept. */
#include <math.h>
#include <string.h>

#include "samplers/masked/masked.h"

enum { CREDITS = 32 };

typedef struct {
    tt_blocks blocks;
    tt_id_value *credit; /* columns x CREDITS, each column's sorted by id */
    int32_t *credits;    /* per column */
    int32_t block;       /* 1 + begin of the block the credits are of */
    int32_t plain;       /* asks without credits; those with them follow */
} state;

static tt_status cr_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_blocks_open(q, memory, e);
    if (st)
        return st;
    s->credit = TT_TAKE(q->arena, (size_t)q->columns * CREDITS, tt_id_value);
    s->credits = TT_TAKE(q->arena, q->columns, int32_t);
    if (!s->credit || !s->credits)
        return tt_fail(e, TT_ENOMEM, "no memory for credits of %d columns", q->columns);
    memset(s->credits, 0, (size_t)q->columns * sizeof *s->credits);
    return TT_OK;
}

static tt_id_value *list_of(const state *s, int32_t column)
{
    return s->credit + (size_t)column * CREDITS;
}

static double boost(const tt_seq *q, double credit)
{
    return q->params->credit_weight * log1p(credit);
}

/* The rules' biases and the column's credits as one sorted list. */
static tt_status add_credits(const tt_seq *q, const state *s, tt_plan *plan, tt_ask *ask, tt_err *e)
{
    const tt_rules *rules = &s->blocks.rules;
    const tt_id_value *a = rules->bias, *b = list_of(s, ask->column);
    int32_t left = rules->n_bias, more = s->credits[ask->column], n = 0;
    tt_id_value *list = TT_TAKE(plan->arena, left + more, tt_id_value);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no step memory for the biases of column %d", ask->column);
    while (left || more) {
        bool first = left && (!more || a->id <= b->id), second = more && (!left || b->id <= a->id);
        list[n] = first ? *a : (tt_id_value){b->id, 0};
        if (second)
            list[n].value += (float)boost(q, (double)b->value);
        n++;
        a += first;
        left -= first;
        b += second;
        more -= second;
    }
    ask->draw.bias = list;
    ask->draw.n_bias = n;
    return TT_OK;
}

static void decay(const tt_seq *q, const state *s)
{
    for (int32_t c = s->blocks.block.begin; c < s->blocks.block.end; c++)
        for (int32_t i = 0; i < s->credits[c]; i++)
            list_of(s, c)[i].value *= (float)q->params->credit_decay;
}

static tt_status cr_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_blocks_plan(q, memory, plan, e);
    s->plain = plan->asks;
    if (st || s->block != s->blocks.block.begin + 1) { /* a new block has no credits */
        s->block = s->blocks.block.begin + 1;
        return st;
    }
    decay(q, s);
    tt_ask *ask = TT_TAKE(plan->arena, 2 * plan->asks, tt_ask);
    if (!ask)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", q->columns);
    memcpy(ask, plan->ask, (size_t)plan->asks * sizeof *ask);
    plan->ask = ask;
    for (int32_t i = 0; i < s->plain && ask[i].column < s->blocks.block.end && !st; i++) {
        ask[plan->asks] = ask[i];
        st = add_credits(q, s, plan, &ask[plan->asks++], e);
    }
    return st;
}

static float *credit_of(const state *s, int32_t column, int32_t id)
{
    tt_id_value *list = list_of(s, column);
    for (int32_t i = 0; i < s->credits[column]; i++)
        if (list[i].id == id)
            return &list[i].value;
    return NULL;
}

/* Adds to a token's credit; a full list loses its smallest. */
static void give_credit(const state *s, int32_t column, int32_t id, float value)
{
    float *old = credit_of(s, column, id);
    if (old) {
        *old += value;
        return;
    }
    tt_id_value *list = list_of(s, column);
    int32_t *n = &s->credits[column], least = 0, at = 0;
    if (*n == CREDITS) {
        for (int32_t i = 1; i < *n; i++)
            least = list[i].value < list[least].value ? i : least;
        memmove(list + least, list + least + 1, (size_t)(--*n - least) * sizeof *list);
    }
    while (at < *n && list[at].id < id)
        at++;
    memmove(list + at + 1, list + at, (size_t)((*n)++ - at) * sizeof *list);
    list[at] = (tt_id_value){id, value};
}

/* The column's statistics with all credits, this step's included. plain: without, before: with
 * those of earlier steps. */
static tt_row_stats with_credit(const tt_seq *q, const state *s, int32_t column,
                                const tt_row_stats *plain, const tt_row_stats *before)
{
    int32_t top = plain->argmax;
    const float *old = credit_of(s, column, top);
    double had = plain->max_logit + (old ? boost(q, (double)*old) : 0);
    give_credit(s, column, top,
                (float)pow((double)plain->prob_argmax, q->params->credit_power));
    double has = plain->max_logit + boost(q, (double)*credit_of(s, column, top));
    tt_row_stats out = *before;
    double logit = before->max_logit; /* of the token taken */
    if (q->params->temperature > 0)
        logit = (double)before->logprob + before->lse;
    else if (top != before->argmax && (has > logit || (has == logit && top < before->argmax)))
        out.drawn = top;
    if (out.drawn == top)
        logit = has;
    double max = fmax(has, before->max_logit);
    double sum = exp(before->lse - max) - exp(had - max) + exp(has - max);
    out.prob = (float)(exp(logit - max) / sum);
    const float *credit = credit_of(s, column, out.drawn);
    out.logprob = (float)(logit - (credit ? boost(q, (double)*credit) : 0) - plain->lse);
    return out;
}

static tt_status cr_apply(tt_seq *q, void *memory, const tt_result *all, bool *done, tt_err *e)
{
    state *s = memory;
    tt_plan part;
    tt_result r = tt_blocks_part(&s->blocks, all, &part);
    part.asks = part.asks < s->plain ? part.asks : s->plain;
    tt_row_stats *stats = TT_TAKE(part.arena, part.asks, tt_row_stats);
    if (!stats)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", part.asks);
    bool second = all->plan->asks > s->plain;
    for (int32_t i = 0; i < part.asks; i++)
        stats[i] = with_credit(q, s, part.ask[i].column, &all->stats[i],
                               &all->stats[second ? s->plain + i : i]);
    r.stats = stats;
    tt_ranking k;
    tt_status st = tt_rank(&k, q, &r, tt_score_prob, e);
    if (st)
        return st;
    tt_commit_best(q, &r, &k, tt_threshold_count(&k, s->blocks.threshold));
    tt_blocks_next(&s->blocks, q, done);
    return TT_OK;
}

static const char *const params[] = {"temperature", "top_p", "top_k", "min_p", "block_length",
                                     "cfg_scale", "logits_eos_inf", TT_CACHE_PARAMS, "early_stop",
                                     TT_SMOOTHING_PARAMS, "threshold", "credit_weight",
                                     "credit_power", "credit_decay", NULL};

extern const tt_sampler tt_sampler_credit;
const tt_sampler tt_sampler_credit = {
    .name = "credit",
    .summary = "commit by threshold, trusting tokens that were likely in earlier steps",
    .source = "dInfer, arXiv 2510.08666, released credit decoder",
    .needs = TT_KIND_BIDIRECTIONAL,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .state_size = sizeof(state),
    .column_size = CREDITS * sizeof(tt_id_value) + sizeof(int32_t),
    .step_column_size = 2 * sizeof(tt_ask) + sizeof(tt_row_stats) + 64 +
                         CREDITS * sizeof(tt_id_value),
    .biases_columns = true,
    .params = params,
    .open = cr_open,
    .plan = cr_plan,
    .apply = cr_apply,
};
