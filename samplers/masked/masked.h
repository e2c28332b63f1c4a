/* masked.h - what the samplers of masked diffusion LMs share: blocks, asking, ordering. */
#ifndef TT_MASKED_H
#define TT_MASKED_H

#include "samplers/sampler.h"

/* The block being denoised: columns [begin, end). */
typedef struct {
    int32_t begin, end;
} tt_block;

/* Parameters every masked sampler reads; to be put first in a sampler's list. */
#define TT_MASKED_PARAMS                                                                           \
    "temperature", "top_p", "top_k", "min_p", "block_length", "cfg_scale", "logits_eos_inf",       \
        "confidence_eos_eot_inf"

/* Length of blocks: the parameter, or the rest of the canvas when it is 0. */
int32_t tt_block_length(const tt_seq *q);
/* Moves *b to the first block at or after column `from` that has open columns; false when none
 * has. Blocks partition the canvas from q->prompt on. */
bool tt_block_find(const tt_seq *q, int32_t from, tt_block *b);
/* Blocks that have open columns. */
int32_t tt_block_count(const tt_seq *q);
/* Open columns in [begin, end). */
int32_t tt_count_open(const tt_seq *q, int32_t begin, int32_t end);

/* End-token rules of the sequence, set up once in open(). */
typedef struct {
    const tt_id_value *bias; /* the sequence's biases and what the parameters add */
    int32_t n_bias;
    int32_t unsure[2]; /* drawn freely, but never with confidence */
    int32_t n_unsure;
} tt_rules;

tt_status tt_rules_begin(tt_rules *r, tt_seq *q, tt_err *e);

/* How the token of a column is drawn in the present step. */
tt_draw tt_draw_at(const tt_seq *q, const tt_rules *rules, int32_t column);

/* Plans a pass over the whole canvas, without a store, that asks for every open column of
 * [begin, end). */
tt_status tt_ask_open(const tt_seq *q, const tt_rules *rules, int32_t begin, int32_t end,
                      tt_plan *plan, tt_err *e);

/* Which rows a step feeds (masked/cache.c). Zero is the start state. */
typedef struct {
    bool filled;         /* the store holds every column */
    int32_t fresh_block; /* 1 + begin of the block for which it was refreshed last */
} tt_cache;

/* As tt_ask_open for the open columns up to the block's end, with rows and store as the `cache`
 * parameter says. */
tt_status tt_cache_ask(tt_cache *c, const tt_seq *q, const tt_rules *rules, const tt_block *b,
                       tt_plan *plan, tt_err *e);

/* The k-th output, k = 1, 2, ..., of the splitmix64 stream that replayed reference traces draw
 * from. */
uint64_t tt_splitmix(uint64_t seed, uint64_t k);

/* Refuses remask = origin, which orders nothing. */
tt_status tt_no_origin(const tt_seq *q, tt_err *e);

/* What orders commits: the answer's confidence under q->params->remask. Higher commits first. */
float tt_confidence(const tt_seq *q, const tt_result *r, int32_t i);

/* Dream's time schedule: the share 1 - t_{i+1} / t_i of step i, t = linspace(1, eps, steps + 1) in
 * float32; 1 past the end. */
float tt_time_share(float eps, int32_t steps, int32_t i);

/* Order of all asks by descending score, lowest column first on a tie. order: plan->asks
 * entries, written. Scratch comes from the plan's arena. */
tt_status tt_order_asks(const tt_result *r, const float *score, int32_t *order, tt_err *e);

#endif
