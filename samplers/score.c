/* score.c - log-probabilities of given tokens: see read.h. */
#include <math.h>
#include <stdlib.h>

#include "kernels/base/rng.h"
#include "samplers/read.h"

float tt_canvas_sigma(const tt_seq *q)
{
    int32_t open = 0;
    for (int32_t c = 0; c < q->columns; c++)
        open += tt_seq_open_at(q, c);
    return -log1pf(-(1 - 1e-3f) * (float)open / (float)q->columns);
}

typedef struct {
    int32_t *target; /* columns with a token to score, ascending */
    int32_t targets;
    int32_t *ask; /* those scored in this sample */
    int32_t asks;
    int32_t *feed; /* tokens to run the model on, by column; NULL: the canvas as it is */
} state;

static tt_status no_memory(const tt_seq *q, tt_err *e)
{
    return tt_fail(e, TT_ENOMEM, "no memory for scoring %d columns", q->columns);
}

static tt_status find_targets(tt_seq *q, state *s, tt_err *e)
{
    s->target = TT_TAKE(q->arena, q->columns, int32_t);
    s->ask = TT_TAKE(q->arena, q->columns, int32_t);
    if (!s->target || !s->ask)
        return no_memory(q, e);
    for (int32_t c = 0; c < q->columns; c++)
        if (!q->fixed[c] && q->draft && q->draft[c] >= 0)
            s->target[s->targets++] = c;
    if (!s->targets)
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to score");
    q->expected = 1;
    return TT_OK;
}

/* Puts the token of a column there, as if it had been given. */
static void show(tt_seq *q, int32_t column) { q->id[column] = q->draft[column]; }

/* --- the bound --- */

int32_t tt_score_masked(uint64_t seed, int32_t sample, int32_t samples, int32_t targets)
{
    tt_rng_address a = {.seed = seed};
    double u = tt_uniform(tt_rng_at(a, 0).v[0]);
    int32_t l = 1 + (int32_t)(((double)sample + u) * targets / samples);
    return l < targets ? l : targets;
}

typedef struct {
    uint64_t key;
    int32_t column;
} shuffled;

static int by_key(const void *a, const void *b)
{
    const shuffled *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return (x->column > y->column) - (x->column < y->column);
}

static int by_column(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static tt_status bound_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = find_targets(q, s, e);
    shuffled *order = st ? NULL : TT_TAKE(q->arena, s->targets, shuffled);
    if (!order)
        return st ? st : no_memory(q, e);
    for (int32_t i = 0; i < s->targets; i++) {
        tt_rng_address a = {.seed = q->noise.seed, .sample = q->noise.sample, .step = 1,
                            .position = (uint32_t)s->target[i]};
        tt_rng_block r = tt_rng_at(a, 0);
        order[i] = (shuffled){(uint64_t)r.v[0] << 32 | r.v[1], s->target[i]};
    }
    qsort(order, (size_t)s->targets, sizeof *order, by_key);
    s->asks = tt_score_masked(q->noise.seed, (int32_t)q->noise.sample, q->samples, s->targets);
    for (int32_t i = 0; i < s->targets; i++)
        if (i < s->asks)
            s->ask[i] = order[i].column;
        else
            show(q, order[i].column);
    qsort(s->ask, (size_t)s->asks, sizeof *s->ask, by_column);
    return TT_OK;
}

/* --- the chain rule --- */

static tt_status chain_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = find_targets(q, s, e);
    if (st)
        return st;
    int32_t i = (int32_t)q->noise.sample;
    if (q->samples != s->targets)
        return tt_fail(e, TT_EINVAL, "%d samples for %d columns to score", q->samples, s->targets);
    for (int32_t k = 0; k < i; k++)
        show(q, s->target[k]);
    s->ask[s->asks++] = s->target[i];
    return TT_OK;
}

/* --- causal models --- */

/* Their rows see no token but those before, so all columns are scored at once. */
static tt_status causal_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = find_targets(q, s, e);
    s->feed = st ? NULL : TT_TAKE(q->arena, q->columns, int32_t);
    if (!s->feed)
        return st ? st : no_memory(q, e);
    for (int32_t c = 0; c < q->columns; c++)
        s->feed[c] = q->fixed[c] ? q->id[c] : q->draft[c];
    for (int32_t i = 0; i < s->targets; i++) {
        if (s->target[i] == 0)
            return tt_fail(e, TT_EINVAL, "nothing stands before column 0 to predict it from");
        s->ask[s->asks++] = s->target[i];
    }
    for (int32_t c = 0; c < q->columns; c++)
        if (s->feed[c] < 0)
            return tt_fail(e, TT_EINVAL, "column %d is open, and a causal model has no mask", c);
    return TT_OK;
}

/* --- all three --- */

static tt_status plan_asks(tt_seq *q, state *s, tt_see see, tt_plan *plan, tt_err *e)
{
    plan->row_end = plan->see_end = q->columns;
    plan->see = see;
    plan->row_id = s->feed;
    plan->ask = TT_TAKE(plan->arena, s->asks, tt_ask);
    if (!plan->ask)
        return no_memory(q, e);
    for (int32_t i = 0; i < s->asks; i++)
        plan->ask[plan->asks++] = (tt_ask){.column = s->ask[i],
                                           .draw = {.top_p = 1,
                                                    .bias = q->bias,
                                                    .n_bias = q->n_bias,
                                                    .limit = q->vocab,
                                                    .target = q->draft[s->ask[i]]}};
    return TT_OK;
}

static tt_status masked_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    plan->sigma = tt_canvas_sigma(q);
    return plan_asks(q, memory, TT_SEE_ALL, plan, e);
}

static tt_status blocks_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    plan->block = q->params->block_length > 0 ? q->params->block_length : 1;
    return plan_asks(q, memory, TT_SEE_BLOCK, plan, e);
}

static tt_status causal_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    return plan_asks(q, memory, TT_SEE_CAUSAL, plan, e);
}

static tt_status score_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)e;
    state *s = memory;
    for (int32_t i = 0; i < s->asks; i++) {
        int32_t c = s->ask[i];
        show(q, c);
        q->logprob[c] = r->stats[i].target_logprob;
        q->step_of[c] = 1;
    }
    *done = true;
    return TT_OK;
}

static const char *const params[] = {NULL};

const tt_sampler tt_score_bound = {
    .name = "likelihood_bound",
    .summary = "one sample of the Monte-Carlo bound of a text's likelihood",
    .source = "LLaDA, arXiv 2502.09992, equation 6",
    .needs = TT_KIND_BIDIRECTIONAL,
    .timed = true,
    .reads = true,
    .state_size = sizeof(state),
    .column_size = 8 + sizeof(shuffled),
    .params = params,
    .open = bound_open,
    .plan = masked_plan,
    .apply = score_apply,
};
const tt_sampler tt_score_chain = {
    .name = "likelihood_chain",
    .summary = "one factor of a text's likelihood, tokens shown from left to right",
    .source = "chain rule",
    .needs = TT_KIND_BIDIRECTIONAL,
    .timed = true,
    .reads = true,
    .state_size = sizeof(state),
    .column_size = 8 + sizeof(shuffled),
    .params = params,
    .open = chain_open,
    .plan = masked_plan,
    .apply = score_apply,
};
const tt_sampler tt_score_chain_blocks = {
    .name = "likelihood_chain_blocks",
    .summary = "one factor of a text's likelihood under a block-causal model",
    .source = "chain rule",
    .needs = TT_KIND_BLOCKS,
    .reads = true,
    .state_size = sizeof(state),
    .column_size = 8 + sizeof(shuffled),
    .params = params,
    .open = chain_open,
    .plan = blocks_plan,
    .apply = score_apply,
};
const tt_sampler tt_score_causal = {
    .name = "likelihood_causal",
    .summary = "a text's exact likelihood under a causal model",
    .source = "chain rule",
    .needs = TT_KIND_CAUSAL,
    .reads = true,
    .state_size = sizeof(state),
    .column_size = 8 + sizeof(shuffled),
    .params = params,
    .open = causal_open,
    .plan = causal_plan,
    .apply = score_apply,
};
