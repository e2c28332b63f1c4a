/* klass.c - KLASS ("KL-Guided Fast Inference in Masked Diffusion Models", arXiv 2511.05664): a
 * token is safe to commit when it is likely and its distribution has stopped moving. A step
 * commits every column of the block with probability > threshold whose distribution moved less
 * than kl_threshold in each of the last kl_history steps; if there is none, the most confident
 * ones by the schedule of sampler low_confidence. Nothing is stable in a block's first step.
 *
 * The columns of the next block are asked for too, so that their first step has a last one. When
 * the schedule is used up before the block is full, one column more is committed at a time. */
#include "samplers/masked/masked.h"

typedef struct {
    tt_blocks blocks;
    tt_quota quota;
    int32_t total_open, total_steps;
    int32_t step;  /* of the block */
    int32_t *calm; /* per column: steps in a row in which it moved less */
} state;

static void begin_block(const tt_seq *q, state *s)
{
    const tt_block *b = &s->blocks.block;
    s->quota = tt_quota_begin(tt_count_open(q, b->begin, b->end), s->total_open, s->total_steps);
    s->step = 0;
}

static tt_status kl_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    tt_status st = tt_blocks_open(q, memory, e);
    if (!st)
        st = tt_no_origin(q, e);
    if (!st)
        st = tt_steps_of(q, &s->total_open, &s->total_steps, e);
    if (st)
        return st;
    s->blocks.reach = tt_block_length(q);
    s->calm = TT_TAKE(q->arena, q->columns, int32_t);
    if (!s->calm)
        return tt_fail(e, TT_ENOMEM, "no memory for %d columns", q->columns);
    for (int32_t c = 0; c < q->columns; c++)
        s->calm[c] = 0;
    begin_block(q, s);
    return TT_OK;
}

/* Commits the stable columns; how many. */
static int32_t commit_stable(tt_seq *q, const state *s, const tt_result *r)
{
    int32_t n = 0;
    for (int32_t i = 0; i < r->plan->asks && s->step > 0; i++) {
        bool calm = s->calm[r->plan->ask[i].column] >= q->params->kl_history;
        if (calm && r->stats[i].prob > q->params->threshold) {
            tt_seq_commit(q, r, i);
            n++;
        }
    }
    return n;
}

static tt_status kl_apply(tt_seq *q, void *memory, const tt_result *all, bool *done, tt_err *e)
{
    state *s = memory;
    tt_plan part;
    tt_result r = tt_blocks_part(&s->blocks, all, &part);
    for (int32_t i = 0; i < all->plan->asks; i++) {
        int32_t *calm = &s->calm[all->plan->ask[i].column];
        *calm = all->kl[i] < q->params->kl_threshold ? *calm + 1 : 0;
    }
    int32_t quota = tt_quota_next(&s->quota);
    if (!commit_stable(q, s, &r)) {
        tt_ranking k;
        tt_status st = tt_rank(&k, q, &r, tt_confidence, e);
        if (st)
            return st;
        tt_commit_best(q, &r, &k, quota);
    }
    s->step++;
    int32_t before = s->blocks.block.begin;
    tt_blocks_next(&s->blocks, q, done);
    if (!*done && s->blocks.block.begin != before)
        begin_block(q, s);
    return TT_OK;
}

static tt_status kl_plan(tt_seq *q, void *memory, tt_plan *plan, tt_err *e)
{
    plan->memo = TT_MEMO_HIDDEN;
    return tt_blocks_plan(q, memory, plan, e);
}

static const char *const params[] = {TT_BLOCKS_PARAMS, "steps", "remask", "threshold",
                                     "kl_threshold", "kl_history", NULL};

extern const tt_sampler tt_sampler_klass;
const tt_sampler tt_sampler_klass = {
    .name = "klass",
    .summary = "commit tokens that are likely and whose distribution has stopped moving",
    .source = "KLASS, arXiv 2511.05664, released code",
    .needs = TT_KIND_BIDIRECTIONAL | TT_KIND_MEMO,
    .caches = TT_ALL_CACHES,
    .best_cache = TT_CACHE_DUAL,
    .compares = true,
    .state_size = sizeof(state),
    .column_size = sizeof(int32_t),
    .params = params,
    .open = kl_open,
    .plan = kl_plan,
    .apply = kl_apply,
};
