/* levels.c - planners of generators that fill fixed slots at every call: a level at a time, or the
 * next token. Given tokens are not asked for; a level of given tokens takes no call. */
#include "samplers/image/plan.h"

typedef struct {
    int32_t begin; /* first slot of the level planned next */
    int32_t level;
} levels;

static int32_t level_size(const tt_image_seq *q, const levels *l)
{
    return q->planner->kind == TT_GENERATES_NEXT ? 1 : q->layout.level[l->level];
}

static int32_t count_hidden(const tt_image_seq *q, int32_t begin, int32_t n)
{
    int32_t hidden = 0;
    for (int32_t i = begin; i < begin + n; i++)
        hidden += q->id[i] == q->mask_id;
    return hidden;
}

static void step_over_given(const tt_image_seq *q, levels *l)
{
    while (l->begin < q->layout.tokens && !count_hidden(q, l->begin, level_size(q, l)))
        l->begin += level_size(q, l), l->level++;
}

static tt_status levels_open(tt_image_seq *q, void *state, tt_err *e)
{
    levels l = {0, 0};
    int64_t sum = 0;
    for (int32_t i = 0; i < q->layout.levels; i++)
        sum += q->layout.level[i];
    if (q->planner->kind == TT_GENERATES_LEVELS && sum != q->layout.tokens)
        return tt_fail(e, TT_EINVAL, "levels of %lld tokens in all, an image has %d",
                       (long long)sum, q->layout.tokens);
    for (; l.begin < q->layout.tokens; l.begin += level_size(q, &l), l.level++)
        q->steps += count_hidden(q, l.begin, level_size(q, &l)) > 0;
    step_over_given(q, state);
    return TT_OK;
}

static tt_status levels_plan(tt_image_seq *q, void *state, tt_image_plan *plan, tt_err *e)
{
    const levels *l = state;
    (void)e;
    tt_image_guide(q, plan);
    for (int32_t i = l->begin; i < l->begin + level_size(q, l); i++)
        if (q->id[i] == q->mask_id)
            tt_image_ask(q, plan, i, q->params->temperature);
    return TT_OK;
}

static tt_status levels_apply(tt_image_seq *q, void *state, const tt_image_plan *plan,
                              const tt_row_stats *stats, tt_err *e)
{
    (void)e;
    for (int32_t i = 0; i < plan->wants; i++)
        tt_image_put(q, plan, stats, i);
    step_over_given(q, state);
    return TT_OK;
}

static const char *const params[] = {"temperature", "top_p", "top_k", "min_p",
                                     "cfg_scale", "guidance_ramp", NULL};

const tt_planner tt_planner_levels = {
    .name = "levels",
    .summary = "a level of tokens at every step, coarse to fine",
    .source = "VAR, arXiv 2404.02905",
    .kind = TT_GENERATES_LEVELS,
    .params = params,
    .state_size = sizeof(levels),
    .open = levels_open,
    .plan = levels_plan,
    .apply = levels_apply,
};

const tt_planner tt_planner_next = {
    .name = "next",
    .summary = "one token at every step, in raster order",
    .source = "LlamaGen, arXiv 2406.06525",
    .kind = TT_GENERATES_NEXT,
    .params = params,
    .state_size = sizeof(levels),
    .open = levels_open,
    .plan = levels_plan,
    .apply = levels_apply,
};
