/* infill.c - fills holes anywhere: within each block, the most confident tokens first, at the
 * pace of the linear noise schedule (the rules of the dllm library's samplers).
 *
 * With m columns of the block open and i of its S steps left (t = i / S, s = (i - 1) / S), a step
 * commits k = round(m (1 - s / t)), halves to even; steps with k = 0 are skipped. */
#include <math.h>

#include "samplers/masked/masked.h"

typedef struct {
    tt_rules rules;
    tt_block block;
    int32_t steps;     /* per block */
    int32_t i;         /* steps left in the block, the present one included */
    int32_t quota;     /* of the present step */
} state;

/* Float32, in the order of the reference code. */
static int32_t pace(int32_t open, int32_t i, int32_t steps)
{
    float t = (float)i / (float)steps, s = (float)(i - 1) / (float)steps;
    float share = 1.0f - (1.0f - (1.0f - s)) / (1.0f - (1.0f - t));
    return (int32_t)rintf((float)open * share);
}

/* Advances to the next step that commits something; false when the canvas is full. */
static bool next_step(const tt_seq *q, state *s)
{
    for (;;) {
        int32_t open = tt_count_open(q, s->block.begin, s->block.end);
        while (open && --s->i >= 1) {
            s->quota = pace(open, s->i, s->steps);
            if (s->quota > 0)
                return true;
        }
        if (open && q->reach) { /* not all that the last step chose went together */
            s->quota = open;
            return true;
        }
        if (!tt_block_find(q, s->block.end, &s->block))
            return false;
        s->i = s->steps + 1;
    }
}

/* Blocks of the canvas, whether they have open columns or not. */
static int32_t all_blocks(const tt_seq *q)
{
    int32_t length = tt_block_length(q);
    return (q->columns - q->prompt + length - 1) / length;
}

static tt_status in_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_rules_begin(&s->rules, q, e);
    if (!st)
        st = tt_no_origin(q, e);
    if (st)
        return st;
    int32_t open = tt_count_open(q, q->prompt, q->columns), blocks = all_blocks(q);
    int32_t steps = q->params->steps ? q->params->steps : open;
    s->steps = (steps + blocks - 1) / blocks;
    s->i = 0;
    if (!next_step(q, s))
        return tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    q->expected = s->steps * tt_block_count(q);
    return TT_OK;
}

static tt_status in_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    state *s = memory;
    return tt_ask_open(q, &s->rules, s->block.begin, s->block.end, plan, e);
}

static tt_status in_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    tt_ranking k;
    tt_status st = tt_rank(&k, q, r, tt_confidence, e);
    if (st)
        return st;
    tt_commit_best(q, r, &k, s->quota);
    *done = !next_step(q, s);
    return TT_OK;
}

static const char *const params[] = {TT_MASKED_PARAMS, "steps", "remask", NULL};

extern const tt_sampler tt_sampler_infill;
const tt_sampler tt_sampler_infill = {
    .name = "infill",
    .summary = "fill holes anywhere, most confident first, at the pace of the noise schedule",
    .source = "dllm library, infilling and sampling rules (linear schedule)",
    .needs = TT_KIND_BIDIRECTIONAL,
    .short_block = true,
    .state_size = sizeof(state),
    .params = params,
    .open = in_open,
    .plan = in_plan,
    .apply = in_apply,
};
