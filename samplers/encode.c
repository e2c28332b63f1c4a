/* encode.c - vectors of a text from one pass: see read.h.
 *
 * Pooled: the mean of all columns' final hidden states, or the last column's. Or several vectors
 * (DiffRetriever, arXiv 2605.07210): open columns stand behind the text, and each gives its hidden
 * state, its most likely token and, for given terms, its logits. All come from the column's own
 * row, also in models whose rows predict the next column. */
#include <string.h>

#include "samplers/read.h"

static tt_status encode_open(tt_seq *q, void *memory, tt_err *e)
{
    (void)memory;
    const tt_encoding *n = q->encoding;
    int32_t open = 0;
    for (int32_t c = 0; c < q->columns; c++)
        open += tt_seq_open_at(q, c);
    int32_t want = !n ? 0 : n->pool == TT_POOL_OPEN ? open : 1;
    if (!want || q->features.vectors != want)
        return tt_fail(e, TT_EINVAL, "%d vectors are asked for, the canvas gives %d",
                       q->features.vectors, want);
    q->expected = 1;
    return TT_OK;
}

/* One ask per open column for its most likely token, then the terms in portions of what one ask
 * can return. */
static tt_status ask_columns(const tt_seq *q, tt_plan *plan, tt_err *e)
{
    const tt_encoding *n = q->encoding;
    int32_t parts = 1 + (n->terms + TT_MAX_TOP - 1) / TT_MAX_TOP;
    plan->ask = TT_TAKE(plan->arena, plan->states * parts, tt_ask);
    if (!plan->ask)
        return tt_fail(e, TT_ENOMEM, "no memory for the logits of %d terms", n->terms);
    plan->n_top = n->terms ? TT_MAX_TOP : 0;
    for (int32_t i = 0; i < plan->states; i++)
        plan->ask[plan->asks++] = (tt_ask){.column = plan->state[i],
                                           .own_row = true,
                                           .draw = {.top_p = 1,
                                                    .bias = q->bias,
                                                    .n_bias = q->n_bias,
                                                    .limit = q->vocab,
                                                    .target = -1}};
    for (int32_t i = 0; i < plan->states; i++)
        for (int32_t at = 0; at < n->terms; at += TT_MAX_TOP) {
            int32_t some = n->terms - at < TT_MAX_TOP ? n->terms - at : TT_MAX_TOP;
            plan->ask[plan->asks++] = (tt_ask){.column = plan->state[i],
                                               .own_row = true,
                                               .draw = {.top_p = 1,
                                                        .allow = n->term + at,
                                                        .n_allow = some,
                                                        .target = -1}};
        }
    return TT_OK;
}

static tt_status plan_states(tt_seq *q, tt_see see, tt_plan *plan, tt_err *e)
{
    const tt_encoding *n = q->encoding;
    plan->row_end = plan->see_end = q->columns;
    plan->see = see;
    plan->state = TT_TAKE(plan->arena, q->columns, int32_t);
    if (!plan->state)
        return tt_fail(e, TT_ENOMEM, "no memory for the states of %d columns", q->columns);
    for (int32_t c = 0; c < q->columns; c++)
        if (n->pool == TT_POOL_MEAN || (n->pool == TT_POOL_LAST && c == q->columns - 1) ||
            (n->pool == TT_POOL_OPEN && tt_seq_open_at(q, c)))
            plan->state[plan->states++] = c;
    return n->pool == TT_POOL_OPEN ? ask_columns(q, plan, e) : TT_OK;
}

static tt_status encode_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    (void)memory;
    plan->sigma = tt_canvas_sigma(q);
    return plan_states(q, TT_SEE_ALL, plan, e);
}

static tt_status blocks_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    (void)memory;
    plan->block = q->params->block_length > 0 ? q->params->block_length : 1;
    return plan_states(q, TT_SEE_BLOCK, plan, e);
}

static tt_status causal_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    (void)memory;
    return plan_states(q, TT_SEE_CAUSAL, plan, e);
}

/* Sums in double, columns in order. */
static void pool_mean(tt_features *f, const tt_result *r)
{
    int32_t n = r->plan->states;
    for (int64_t i = 0; i < f->width; i++) {
        double sum = 0;
        for (int32_t c = 0; c < n; c++)
            sum += (double)r->state[c * f->width + i];
        f->vector[i] = (float)(sum / n);
    }
}

static int32_t place_of(const tt_encoding *n, int32_t id)
{
    int32_t low = 0, high = n->terms;
    while (high - low > 1) {
        int32_t mid = low + (high - low) / 2;
        if (n->term[mid] <= id)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* An answer's list holds log-probabilities among the portion; its lse turns them back. */
static void keep_logits(const tt_seq *q, const tt_result *r)
{
    const tt_encoding *n = q->encoding;
    int32_t parts = (n->terms + TT_MAX_TOP - 1) / TT_MAX_TOP;
    int32_t first = q->features.vectors; /* before them: the most likely tokens */
    for (int32_t i = first; i < r->plan->asks; i++) {
        const tt_id_value *top = r->top + (size_t)i * TT_MAX_TOP;
        float *logit = q->features.logit + (size_t)((i - first) / parts) * (size_t)n->terms;
        for (int k = 0; k < TT_MAX_TOP; k++)
            if (top[k].id >= 0)
                logit[place_of(n, top[k].id)] = top[k].value + r->stats[i].lse;
    }
}

static tt_status encode_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    (void)memory;
    (void)e;
    tt_features *f = &q->features;
    if (q->encoding->pool == TT_POOL_MEAN)
        pool_mean(f, r);
    else
        memcpy(f->vector, r->state, (size_t)f->vectors * (size_t)f->width * sizeof *f->vector);
    for (int32_t i = 0; i < f->vectors && q->encoding->pool == TT_POOL_OPEN; i++) {
        q->id[r->plan->state[i]] = r->stats[i].argmax;
        q->logprob[r->plan->state[i]] = r->stats[i].logprob;
        q->step_of[r->plan->state[i]] = 1;
    }
    if (q->encoding->terms)
        keep_logits(q, r);
    *done = true;
    return TT_OK;
}

static const char *const params[] = {NULL};

const tt_sampler tt_encode = {
    .name = "encode",
    .summary = "hidden states of a text, pooled, or of open columns behind it",
    .source = "DiffRetriever, arXiv 2605.07210, for several vectors",
    .needs = TT_KIND_BIDIRECTIONAL,
    .timed = true,
    .reads = true,
    .params = params,
    .open = encode_open,
    .plan = encode_plan,
    .apply = encode_apply,
};
const tt_sampler tt_encode_blocks = {
    .name = "encode_blocks",
    .summary = "as encode, under a block-causal model",
    .source = "DiffRetriever, arXiv 2605.07210, for several vectors",
    .needs = TT_KIND_BLOCKS,
    .reads = true,
    .params = params,
    .open = encode_open,
    .plan = blocks_plan,
    .apply = encode_apply,
};
const tt_sampler tt_encode_causal = {
    .name = "encode_causal",
    .summary = "hidden states of a text under a causal model, pooled",
    .source = "usual practice",
    .needs = TT_KIND_CAUSAL,
    .reads = true,
    .params = params,
    .open = encode_open,
    .plan = causal_plan,
    .apply = encode_apply,
};

const tt_sampler *tt_encode_for(uint32_t kinds)
{
    return kinds & TT_KIND_BIDIRECTIONAL ? &tt_encode
           : kinds & TT_KIND_BLOCKS      ? &tt_encode_blocks
                                         : &tt_encode_causal;
}
