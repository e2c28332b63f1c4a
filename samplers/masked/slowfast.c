/* slowfast.c - SlowFast sampling ("Accelerating Diffusion Large Language Models with SlowFast
 * Sampling", arXiv 2506.10848; without its feature cache). A block is filled in cycles. A cycle
 *   explores   explore_steps slow steps over all that is left of the block; each looks for the
 *              last column at least explore_threshold sure, where the cycle may end. When the
 *              last explore_window looks agree, the newest is final; else their mean counts
 *   fills      fast steps up to that end; all but the first see no column beyond it
 * Every step commits all tokens at least fill_threshold probable if there are two, else the best
 * one. The paper's parameters are the defaults; its code has 6, 0.3 and 0.9. */
#include <math.h>

#include "samplers/masked/masked.h"

enum { MOST = 16 }; /* the largest explore_window */

typedef struct {
    tt_rules rules;
    tt_block block;
    int32_t begin, end; /* of the cycle, columns */
    int32_t step;       /* of the phase */
    bool fast, agreed;
    int32_t looks, look[MOST]; /* the last ones, oldest first */
} state;

static void begin_cycle(state *s, int32_t begin)
{
    s->begin = begin;
    s->step = 0;
    s->looks = 0;
    s->fast = s->agreed = false;
}

static tt_status sf_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (st)
        return st;
    if (!tt_block_find(q, 0, &s->block))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    begin_cycle(s, s->block.begin);
    q->expected = tt_count_open(q, q->prompt, q->columns);
    return TT_OK;
}

static tt_status sf_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    int32_t end = s->fast ? s->end : s->block.end;
    tt_status st = tt_ask_open(q, &s->rules, s->begin, end, plan, e);
    if (s->fast && s->step > 0)
        plan->row_end = plan->see_end = s->end;
    return st;
}

/* One look at where the cycle may end, in columns from its beginning. */
static int32_t look_ahead(const tt_seq *q, const state *s, const tt_result *r)
{
    int32_t last = s->begin - 1;
    for (int32_t i = 0; i < r->plan->asks; i++)
        if (r->stats[i].prob >= q->params->explore_threshold)
            last = r->plan->ask[i].column;
    return last < s->begin ? 1 : last - s->begin + 1;
}

static void explore(const tt_seq *q, state *s, const tt_result *r)
{
    if (s->agreed)
        return;
    int32_t window = q->params->explore_window;
    if (s->looks == window)
        for (int32_t i = 1; i < s->looks--; i++)
            s->look[i - 1] = s->look[i];
    s->look[s->looks++] = look_ahead(q, s, r);
    double mean = 0, spread = 0;
    for (int32_t i = 0; i < s->looks; i++)
        mean += (double)s->look[i] / s->looks;
    for (int32_t i = 0; i < s->looks; i++)
        spread += (s->look[i] - mean) * (s->look[i] - mean) / s->looks;
    s->agreed = s->looks == window && sqrt(spread) < q->params->explore_spread;
    s->end = s->begin + (s->agreed ? s->look[s->looks - 1] : (int32_t)mean);
}

static tt_status fill(tt_seq *q, const tt_result *r, tt_err *e)
{
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, tt_score_prob, e);
    if (!st)
        tt_commit_best(q, r, &k, tt_threshold_count(&k, q->params->fill_threshold));
    return st;
}

static tt_status sf_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    if (!s->fast)
        explore(q, s, r);
    tt_status st = fill(q, r, e);
    if (st)
        return st;
    s->step++;
    if (!s->fast && s->step == q->params->explore_steps) {
        s->fast = true;
        s->step = 0;
    }
    if (!tt_count_open(q, s->block.begin, s->block.end)) {
        *done = !tt_block_find(q, s->block.end, &s->block);
        begin_cycle(s, s->block.begin);
    } else if (s->fast && !tt_count_open(q, s->begin, s->end)) {
        begin_cycle(s, s->end);
    }
    return TT_OK;
}

static const char *const params[] = {TT_MASKED_PARAMS, "explore_steps", "explore_threshold",
                                     "explore_window", "explore_spread", "fill_threshold", NULL};

extern const tt_sampler tt_sampler_slowfast;
const tt_sampler tt_sampler_slowfast = {
    .name = "slowfast",
    .summary = "slow steps find how far the block is sure, fast ones fill it up to there",
    .source = "SlowFast sampling, arXiv 2506.10848, released code",
    .needs = TT_KIND_BIDIRECTIONAL,
    .state_size = sizeof(state),
    .params = params,
    .open = sf_open,
    .plan = sf_plan,
    .apply = sf_apply,
};
