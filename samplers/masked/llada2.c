/* llada2.c - block diffusion with a block-causal model (released LLaDA2.0 and LLaDA2.1 code):
 *
 *   llada2_block       in each step of a block all tokens more probable than the threshold are
 *                      committed, if they are at least the step's share of the block, else the
 *                      share's number of the most probable ones
 *   llada21_block_edit the same with a fixed share; and a token of the block that the model by now
 *                      thinks wrong (another one is more probable than editing_threshold) is
 *                      replaced. A full block is read again until nothing changes, at most
 *                      max_post_steps times
 *
 * Blocks are counted from column 0, so that the first one may begin with columns of the prompt.
 * Rows never see a later block: keys and values of a finished block are final, and a step feeds
 * the block alone. They must be those of its final tokens, so the first step of a block feeds the
 * one before once more. A block that holds an end token is the last one.
 *
 * Where the canvas does not end with a block, the columns missing take part as in the released
 * code; they are the sampler's own and dropped in the end. */
#include <string.h>

#include "samplers/masked/masked.h"

enum { PREFILL = 512 }; /* rows of the prompt fed at a time, whole blocks */

typedef struct {
    tt_rules rules;
    tt_block block;
    int32_t known; /* columns whose keys and values are final */
    int32_t fed;   /* columns the pass planned last has fed: < block.begin while prefilling */
    int32_t length, steps; /* of a block */
    int32_t i;             /* steps done in the block */
    int32_t post;          /* steps since it was full */
    int32_t *tail;         /* ids of the columns behind the canvas that complete its last block */
    bool edits;
} state;

static int32_t *id_at(const tt_seq *q, const state *s, int32_t c)
{
    return c < q->columns ? &q->id[c] : &s->tail[c - q->columns];
}

static bool open_at(const tt_seq *q, const state *s, int32_t c)
{
    return c < q->columns ? tt_seq_open_at(q, c) : *id_at(q, s, c) == q->mask_id;
}

static bool ours(const tt_seq *q, int32_t c)
{
    return c >= q->columns || !q->fixed[c];
}

static void enter(tt_seq *q, state *s, int32_t begin)
{
    s->block = (tt_block){begin, begin + s->length};
    s->i = s->post = 0;
    q->unsettled = s->edits && begin < q->columns ? q->columns - begin : 0;
}

static tt_status open_blocks(tt_seq *q, state *s, tt_err *e)
{
    tt_status st = tt_rules_begin(&s->rules, q, e);
    int32_t first = 0;
    while (first < q->columns && !tt_seq_open_at(q, first))
        first++;
    if (!st && first < q->columns && tt_count_open(q, first, q->columns) != q->columns - first)
        st = tt_fail_param(e, "sampler", "unsupported_value",
                           "a block-causal model continues a prompt; it cannot fill holes");
    if (!st && first == q->columns)
        st = tt_fail(e, TT_EINVAL, "the canvas has nothing to fill");
    s->length = q->params->block_length;
    if (!st && s->length < 1)
        st = tt_fail_param(e, "block_length", "invalid_value",
                           "'block_length' is %d; a block-causal model needs that of its training",
                           s->length);
    if (st)
        return st;
    int32_t begin = first / s->length * s->length, rest = q->columns - begin;
    int32_t missing = (s->length - rest % s->length) % s->length;
    s->tail = missing ? TT_TAKE(q->arena, missing, int32_t) : NULL;
    if (missing && !s->tail)
        return tt_fail(e, TT_ENOMEM, "no memory for a block of %d columns", s->length);
    for (int32_t i = 0; i < missing; i++)
        s->tail[i] = q->mask_id;
    int32_t fresh = q->columns - first;
    s->steps = q->params->steps ? q->params->steps : s->length;
    s->steps = s->steps < s->length ? s->steps : s->length;
    s->steps = s->steps < fresh ? s->steps : fresh;
    q->expected = (rest + missing) / s->length * s->steps;
    enter(q, s, begin);
    return TT_OK;
}

static tt_status block_open(tt_seq *q, void *memory, tt_err *e)
{
    return open_blocks(q, memory, e);
}

static tt_status edit_open(tt_seq *q, void *memory, tt_err *e)
{
    state *s = memory;
    s->edits = true;
    return open_blocks(q, s, e);
}

static tt_status plan(tt_seq *q, void *memory, tt_plan *p, tt_err *e)
{
    state *s = memory;
    int32_t ahead = s->block.begin - s->known, whole = PREFILL / s->length * s->length;
    whole = whole ? whole : s->length;
    bool prefill = ahead > whole;
    s->fed = prefill ? s->known + whole : s->block.end;
    p->keep = true;
    p->see = TT_SEE_BLOCK;
    p->block = s->length;
    p->row_begin = s->known;
    p->row_end = p->see_end = s->fed;
    p->row_id = TT_TAKE(p->arena, s->fed, int32_t);
    p->ask = prefill ? NULL : TT_TAKE(p->arena, s->length, tt_ask);
    if (!p->row_id || (!prefill && !p->ask))
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", s->fed);
    for (int32_t c = s->known; c < s->fed; c++)
        p->row_id[c] = *id_at(q, s, c);
    for (int32_t c = s->block.begin; c < s->block.end && !prefill; c++)
        if (open_at(q, s, c) || (s->edits && ours(q, c)))
            p->ask[p->asks++] = (tt_ask){.column = c, .draw = tt_draw_at(q, &s->rules, c)};
    return TT_OK;
}

/* Commits an answer's token: the drawn one, or the most probable one in place of another. */
static bool put(tt_seq *q, const state *s, const tt_result *r, int32_t i, bool edit)
{
    const tt_row_stats *st = &r->stats[i];
    int32_t c = r->plan->ask[i].column, id = edit ? st->argmax : st->drawn;
    const tt_id_value *top = r->top ? r->top + (size_t)i * (size_t)q->n_top : NULL;
    if (c < q->columns)
        return tt_seq_put(q, c, id, edit ? (float)(st->max_logit - st->lse) : st->logprob, top);
    *id_at(q, s, c) = id;
    return true;
}

/* The asks for open columns that are committed: all above the threshold if they are enough, else
 * the `share` best. */
static tt_status fill(tt_seq *q, const state *s, const tt_result *r, int32_t share, tt_err *e)
{
    int32_t asks = r->plan->asks, sure = 0, open = 0;
    float threshold = (float)q->params->threshold;
    float *score = TT_TAKE(r->plan->arena, asks, float);
    int32_t *order = TT_TAKE(r->plan->arena, asks, int32_t);
    if (!score || !order)
        return tt_fail(e, TT_ENOMEM, "no step memory for %d columns", asks);
    for (int32_t i = 0; i < asks; i++) {
        bool fills = open_at(q, s, r->plan->ask[i].column);
        score[i] = fills ? r->stats[i].prob : -1;
        open += fills;
        sure += fills && r->stats[i].prob > threshold;
    }
    tt_status st = tt_order_asks(r, score, order, e);
    int32_t n = sure >= share ? sure : share < open ? share : open;
    for (int32_t j = 0; j < n && !st; j++)
        put(q, s, r, order[j], false);
    return st;
}

/* Where the model now prefers another token; true when there was one. The tokens that this step
 * fills are none of them: their rows were masks. */
static bool edit(tt_seq *q, const state *s, const tt_result *r)
{
    bool any = false;
    for (int32_t i = 0; i < r->plan->asks; i++) {
        int32_t c = r->plan->ask[i].column;
        if (open_at(q, s, c) || r->stats[i].argmax == *id_at(q, s, c) ||
            !(r->stats[i].prob_argmax > (float)q->params->editing_threshold))
            continue;
        any |= put(q, s, r, i, true);
    }
    return any;
}

static bool full(const tt_seq *q, const state *s)
{
    for (int32_t c = s->block.begin; c < s->block.end; c++)
        if (open_at(q, s, c))
            return false;
    return true;
}

static bool holds_end(const tt_seq *q, const state *s)
{
    for (int32_t c = s->block.begin; c < s->block.end; c++)
        if (ours(q, c) && q->eos_id >= 0 && *id_at(q, s, c) == q->eos_id)
            return true;
    return false;
}

/* After a pass: what it fed before the block is final. True when it was one of the block's. */
static bool settle(state *s)
{
    bool step = s->fed == s->block.end;
    s->known = step ? s->block.begin : s->fed;
    return step;
}

static void next_block(tt_seq *q, state *s, bool *done)
{
    *done = s->block.end >= q->columns || holds_end(q, s);
    if (*done)
        q->unsettled = 0;
    else
        enter(q, s, s->block.end);
}

static tt_status block_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    if (!settle(s))
        return TT_OK;
    int32_t share = s->length / s->steps + (s->i < s->length % s->steps);
    tt_status st = fill(q, s, r, share, e);
    s->i++;
    if (!st && full(q, s))
        next_block(q, s, done);
    return st;
}

static tt_status edit_apply(tt_seq *q, void *memory, const tt_result *r, bool *done, tt_err *e)
{
    state *s = memory;
    if (!settle(s))
        return TT_OK;
    bool was_full = full(q, s), changed = edit(q, s, r);
    tt_status st = was_full ? TT_OK : fill(q, s, r, q->params->num_to_transfer, e);
    s->post += was_full;
    bool ends = was_full ? !changed || s->post == q->params->max_post_steps
                         : full(q, s) && !q->params->max_post_steps;
    if (!st && ends)
        next_block(q, s, done);
    return st;
}

static const char *const block_params[] = {
    "temperature", "top_p",          "top_k",
    "min_p",       "block_length",   "steps",
    "threshold",   "logits_eos_inf", "confidence_eos_eot_inf",
    NULL};
static const char *const edit_params[] = {"temperature",
                                          "top_p",
                                          "top_k",
                                          "min_p",
                                          "block_length",
                                          "threshold",
                                          "editing_threshold",
                                          "max_post_steps",
                                          "num_to_transfer",
                                          "logits_eos_inf",
                                          "confidence_eos_eot_inf",
                                          NULL};

extern const tt_sampler tt_sampler_llada2_block, tt_sampler_llada21_block_edit;
const tt_sampler tt_sampler_llada2_block = {
    .name = "llada2_block",
    .summary = "block after block, all tokens above a threshold or a share of the block; exact "
               "store; steps are those of a block",
    .source = "released LLaDA2.0 generate()",
    .needs = TT_KIND_BLOCKS,
    .keeps = true,
    .short_block = true,
    .state_size = sizeof(state),
    .params = block_params,
    .open = block_open,
    .plan = plan,
    .apply = block_apply,
};
const tt_sampler tt_sampler_llada21_block_edit = {
    .name = "llada21_block_edit",
    .summary = "block after block, replacing tokens of the block the model has come to doubt",
    .source = "released LLaDA2.1 generate()",
    .needs = TT_KIND_BLOCKS,
    .keeps = true,
    .short_block = true,
    .state_size = sizeof(state),
    .params = edit_params,
    .open = edit_open,
    .plan = plan,
    .apply = edit_apply,
};
