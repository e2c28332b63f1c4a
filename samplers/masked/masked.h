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

/* Length of blocks: tt_block_columns of the sequence. */
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
    tt_cache_kind kind;
    bool filled;         /* the store holds every column */
    bool half;           /* the last pass fed all columns; the block's own pass is due */
    int32_t turn;        /* dInfer's iterations, or dkv's steps of the block */
    int32_t now;         /* turn of the pass planned last */
    int32_t first;       /* where the first block began */
    int32_t block;       /* 1 + begin of the last pass's block */
    int32_t fresh_block; /* 1 + begin of the block for which the store was refreshed last */
} tt_cache;

/* Checks the cache parameters; in open(). */
tt_status tt_cache_begin(tt_cache *c, const tt_seq *q, tt_err *e);
/* As tt_ask_open for the open columns up to the block's end and up to `reach` columns right of it
 * that are fed, with rows and store as the `cache` parameter says. */
tt_status tt_cache_ask(tt_cache *c, const tt_seq *q, const tt_rules *rules, const tt_block *b,
                       int32_t reach, tt_plan *plan, tt_err *e);

/* Parameters that caches and smoothing read. */
#define TT_CACHE_PARAMS "cache", "cache_refresh", "cache_before", "cache_after", "cache_warmup"
#define TT_SMOOTHING_PARAMS "smoothing", "smoothing_start", "smoothing_growth", "threshold_decay"
/* Values of `cache` that work wherever tt_cache_ask is used. */
enum {
    TT_ALL_CACHES = 1 << TT_CACHE_NONE | 1 << TT_CACHE_PREFIX | 1 << TT_CACHE_DUAL |
                    1 << TT_CACHE_FREE | 1 << TT_CACHE_DKV | 1 << TT_CACHE_VICINITY
};

/* --- samplers that commit block by block (masked/blocks.c) --- */

/* Put first in the sampler's state: the functions take that. Zero is the start state. */
typedef struct {
    tt_rules rules;
    tt_cache cache;
    tt_block block;
    int32_t reach; /* columns right of the block that are asked for too; set before plan() */
    bool smooths;
    float *weight;    /* per column, with smoothing: how much of its expected embedding is fed */
    double threshold; /* of the present step */
} tt_blocks;

#define TT_BLOCKS_PARAMS TT_MASKED_PARAMS, TT_CACHE_PARAMS, "early_stop"

/* A sampler's open() and plan(), or their beginning. */
tt_status tt_blocks_open(tt_seq *q, void *blocks, tt_err *e);
tt_status tt_blocks_plan(tt_seq *q, void *blocks, tt_plan *plan, tt_err *e);
/* The answers for columns left of the block's end, which may be committed. part: written, and
 * what the result points to. */
tt_result tt_blocks_part(const tt_blocks *b, const tt_result *r, tt_plan *part);
/* Moves on to the next block; *done when there is none. next: only if the block is full. */
void tt_blocks_leave(tt_blocks *b, tt_seq *q, bool *done);
void tt_blocks_next(tt_blocks *b, tt_seq *q, bool *done);

/* Fills the open columns from `from` on with the end token. */
void tt_fill_with_end(tt_seq *q, int32_t from);

/* *open: columns to fill right of the prompt; *steps: the parameter, at most one per column.
 * Refuses fewer steps than blocks. */
tt_status tt_steps_of(const tt_seq *q, int32_t *open, int32_t *steps, tt_err *e);

/* How many commits each of S steps gets: n / S, the first n % S one more. */
typedef struct {
    int32_t steps_left, extra, share;
} tt_quota;

/* Steps for `open` of `total` columns out of `steps` for all of them. */
tt_quota tt_quota_begin(int32_t open, int32_t total, int32_t steps);
/* Of the next step; at least 1 once all steps are used up. */
int32_t tt_quota_next(tt_quota *q);

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

/* All asks, best first, in the plan's arena. */
typedef struct {
    int32_t n;
    int32_t *order; /* indexes of asks */
    float *score;   /* in that order */
} tt_ranking;

/* score: of ask i; higher is better. */
tt_status tt_rank(tt_ranking *out, const tt_seq *q, const tt_result *r,
                  float (*score)(const tt_seq *q, const tt_result *r, int32_t i), tt_err *e);
/* A score: the drawn token's probability. */
float tt_score_prob(const tt_seq *q, const tt_result *r, int32_t i);
/* How many are at least `threshold`; the first one always counts. */
int32_t tt_threshold_count(const tt_ranking *k, double threshold);
/* Commits the first n, but for those that do not go together under a grammar; how many. */
int32_t tt_commit_best(tt_seq *q, const tt_result *r, const tt_ranking *k, int32_t n);

#endif
