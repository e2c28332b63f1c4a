/* sampler.h - what a sampler must provide to be scheduled.
 *
 * A sampler turns one sequence's canvas (token ids, some open) into a finished one by steps. It
 * never calls a model: plan() says which rows the next pass feeds and which columns' statistics
 * it needs, the scheduler runs many sequences' plans as one pass, apply() reads this sequence's
 * results and commits tokens. A step depends only on the canvas, the parameters and the
 * sequence's own noise - never on what shares the batch. */
#ifndef TT_SAMPLER_H
#define TT_SAMPLER_H

#include "kernels/base/arena.h"
#include "models/depth.h"
#include "models/model.h"
#include "samplers/params.h"

typedef enum { TT_GIVEN_PLACE, TT_GIVEN_TOKEN } tt_given;

/* Where a sequence's random numbers come from. All kinds but the first replay reference traces. */
typedef struct {
    tt_noise_kind kind; /* TT_NOISE_PHILOX, TT_NOISE_SPLITMIX or TT_NOISE_GIVEN */
    uint64_t seed;
    uint32_t sample;
    /* splitmix only: index of the first value of column 0 at step 0 and values per step, for
     * token draws and for random confidences */
    uint64_t draw_base, conf_base, stride;
    /* given only: Gumbel noise of a step's draw, one number per candidate: rows or ids (of a joint
     * draw the ids of this row), or ranks where top_k sorts them. The list is the callee's. */
    const float *(*given)(const void *arg, int32_t step, tt_given draw, int32_t row);
    const void *given_arg;
} tt_noise;

/* Takes the place of random numbers other than token draws, to replay reference traces. */
typedef struct {
    tt_draw_state *state;
    int32_t (*filler)(void *arg, int32_t i); /* the i-th random token of a step */
    void *arg;
} tt_source;

/* What recurrent depth cost so far. */
typedef struct {
    int64_t core_passes; /* recurrences this sequence took part in */
    int64_t core_rows;   /* tokens in them */
    int64_t cleared;     /* positions computed and not kept */
    int64_t standing;    /* steps whose wave was as long as it may be */
} tt_depth_counts;

struct tt_sampler;

/* Ids that alone are possible, or that are impossible, at columns [begin, end). */
typedef struct {
    int32_t begin, end;
    const int32_t *id; /* ascending, none twice */
    int32_t n;
    bool allow;
} tt_column_rule;

/* A change of the canvas: a token committed, or replaced. id: mask_id where it was taken back. */
typedef struct {
    int32_t step, column, id; /* step counts from 1 */
    float logprob;            /* 0 where taken back */
    bool insert; /* tokens there and right of it, up to the next open column, moved by one */
    bool draft;  /* a guess that is shown; a change that is none follows */
} tt_change;

/* What an encoding pass reads off the model (samplers/read.h). */
typedef enum {
    TT_POOL_MEAN, /* one vector: the mean over all columns */
    TT_POOL_LAST, /* one vector: the last column's */
    TT_POOL_OPEN, /* one vector per open column, left to right */
} tt_pooling;
typedef struct {
    tt_pooling pool;
    const int32_t *term; /* ids whose logits at the open columns are wanted, ascending, or NULL */
    int32_t terms;
} tt_encoding;

/* Its result. */
typedef struct {
    float *vector; /* vectors x width: hidden states as the head reads them, pooled */
    int32_t vectors;
    int64_t width;
    float *logit; /* vectors x terms, or NULL */
    int32_t terms;
} tt_features;

/* One sequence being generated. The engine (or a test) fills it; samplers change id, step and the
 * published bookkeeping through tt_seq_commit() alone. */
typedef struct tt_seq {
    int32_t columns;
    int32_t *id;          /* mask_id where open */
    const uint8_t *fixed; /* 1: given, never changed */
    const uint8_t *must;  /* per column, of sequences whose sampler may leave open columns open: 2
                             where it may not, or NULL */
    int32_t prompt;       /* blocks begin here */
    const struct tt_sampler *sampler;
    const tt_params *params;
    tt_noise noise;
    uint32_t kinds; /* TT_KIND_* of the model */
    int32_t mask_id, eos_id, eot_id, vocab;
    const tt_model_info *info; /* of the model; may be NULL unless it inserts */
    int32_t guide_vocab; /* ids the guide model knows; 0: there is no guide */
    int32_t row_shift; /* of the model: row c - row_shift predicts column c */
    const tt_id_value *bias; /* sorted by id; holds the mask id at -inf and the request's biases */
    int32_t n_bias;
    const int32_t *draft; /* per column: the token the request suggests, or wants scored, where it
                             is open; -1: none. NULL: none anywhere */
    int32_t samples;      /* of the job: noise.sample is one of them */
    const tt_encoding *encoding; /* for encoding passes */
    tt_features features;        /* their result; arrays are the arena's */
    struct tt_reach *reach; /* holes under a grammar (samplers/constraint.h), or NULL */
    tt_buf *log; /* of tt_change, in order of commits; NULL: not kept */
    tt_arena *arena; /* memory of the sequence's life */

    int32_t step;      /* steps done */
    int32_t expected;  /* steps in all, an estimate */
    int32_t *step_of;  /* per column: step of the last commit, 1-based; 0: given or open */
    float *logprob;    /* per column */
    tt_id_value *top;  /* columns x n_top, or NULL */
    int32_t n_top;
    int32_t committed, revised; /* counts */
    int32_t *recurrences; /* per column: of its state, so far; NULL but for recurrent depth */
    tt_depth_counts depth;
    const tt_source *source; /* NULL: Philox */
    int32_t unsettled; /* so many columns at the end may still be revised once committed */
    bool complete;     /* the model itself ended the text: columns still open are no part of it */
} tt_seq;

/* A column whose statistics are wanted. Samplers of block-causal models also feed and ask for
 * columns behind the canvas, which complete its last block; the batcher has room for them. */
typedef struct tt_ask {
    int32_t column;
    tt_draw draw;
    bool own_row; /* from the column's own row, whatever the model's shift */
} tt_ask;

/* What the next pass must do for one sequence. Lists live in the step arena. */
typedef struct {
    tt_arena *arena;           /* of the step; rewound after apply */
    int32_t row_begin, row_end; /* columns fed */
    int32_t see_begin, see_end; /* columns visible */
    tt_see see;
    int32_t block;
    float sigma; /* noise level, for models with TT_KIND_TIMED */
    bool keep; /* write keys and values into the sequence's store (and read the rest from it) */
    float cfg_scale; /* > 0: also run the twin whose given columns are masked */
    tt_ask *ask;
    int32_t asks;
    int32_t n_top; /* alternatives per ask; the batcher sets the sequence's before plan() */
    bool guide;    /* run the guide model instead, with a store of its own; its rows predict the
                      next column */
    int32_t *row_id; /* tokens to feed, by column, instead of the canvas; or NULL */
    const int32_t *feed; /* columns fed, ascending, instead of [row_begin, row_end); or NULL. Needs
                            keep */
    int32_t feeds;
    /* Columns with a shadow: a masked copy at the same position, fed beside the rows as column
     * columns + (c - shadow_begin) of the store. Rows never see shadows; a shadow sees all that
     * rows see but column c, and all shadows. Asks may name shadow columns. Needs keep. */
    int32_t shadow_begin, shadow_end;
    tt_memo_kind memo; /* what is kept for the next pass */
    int32_t memos;     /* of the columns of the first so many asks */
    const float *mix;  /* per column: times what is kept of it (TT_MEMO_MEAN) is added to its
                          embedding while it is open; or NULL */
    int32_t *state;  /* columns fed whose final hidden state is wanted, ascending */
    int32_t states;
    /* Insertion: tokens fed at positions 0, 1, 2, ... instead of columns; asks name their rows. */
    const int32_t *token;
    int32_t tokens;
    bool classify; /* the first row's classes are wanted */
    tt_depth *depth; /* of models with TT_KIND_RECURRENT, else NULL; the batcher puts in the states
                        that the sequence keeps; results are read there in apply() */
} tt_plan;

/* Answers in the order of the plan's asks. */
typedef struct {
    const tt_plan *plan;
    const tt_row_stats *stats;
    const tt_id_value *top; /* asks x plan->n_top, or NULL */
    const float *kl; /* per ask of the first memos, with TT_MEMO_HIDDEN: how far the distribution
                        moved since the column was asked for last; +inf the first time */
    const float *state;     /* plan->states x width of the model, or NULL */
    const float *classes;   /* info.classes logits, with plan->classify */
} tt_result;

typedef struct tt_sampler {
    const char *name;    /* as in the request: "low_confidence"; never renamed */
    const char *summary; /* one line for listings and GET /v1/models */
    const char *source;  /* paper or released code whose behaviour is the reference */
    uint32_t needs;      /* TT_KIND_* the model must have */
    bool needs_guide;    /* a second, causal model must be given */
    bool timed;          /* plans the noise level that models with TT_KIND_TIMED need */
    bool keeps;          /* uses a store whatever the `cache` parameter says */
    bool reads;          /* fills nothing: scores or encodes a canvas (samplers/read.h) */
    uint32_t caches;     /* 1 << TT_CACHE_*: values of `cache` it works with; 0: no cache */
    tt_cache_kind best_cache; /* what `auto` chooses */
    bool short_block;    /* is defined for a last block shorter than the others */
    bool revises;        /* committed tokens may change or be masked again (tt_seq.unsettled) */
    bool shadows;        /* plans shadow columns, at most a block of them */
    bool compares;       /* plans TT_MEMO_HIDDEN */
    bool inserts; /* tokens move while it runs: open columns are room, filled from their left */
    /* Of recurrent depth: what it keeps of a sequence between passes; else NULL. */
    void (*keeps_depth)(const tt_params *p, tt_kv_sharing *kv, tt_latent_size *latents);
    /* Columns behind the canvas that it may feed; NULL: none. */
    int32_t (*overrun)(const tt_params *p);
    size_t state_size;   /* bytes of zeroed state, taken from the sequence's arena */
    size_t column_size, step_column_size; /* bytes of arena and step arena per column beyond
                                             the usual */
    bool biases_columns; /* takes a list of biases of its own per column in the step arena */
    const char *const *params; /* names of the parameters it reads, NULL-terminated */

    /* Checks parameters against the canvas and sets up state. TT_EINVAL names the parameter. */
    tt_status (*open)(tt_seq *q, void *state, tt_err *e);
    tt_status (*plan)(tt_seq *q, void *state, tt_plan *plan, tt_err *e);
    /* Commits tokens; sets *done after the last step. */
    tt_status (*apply)(tt_seq *q, void *state, const tt_result *r, bool *done, tt_err *e);
} tt_sampler;

/* Every sampler, NULL-terminated; and by name (NULL when unknown). */
const tt_sampler *const *tt_sampler_all(void);
const tt_sampler *tt_sampler_find(const char *name);
/* True when the sampler can run a model of these TT_KIND_*. */
bool tt_sampler_fits(const tt_sampler *s, uint32_t kinds);
/* True when the sampler reads this parameter. */
bool tt_sampler_reads(const tt_sampler *s, const tt_param *p);

/* Bytes of arena the features take. */
size_t tt_features_bytes(const tt_features *f);

/* Bytes of arena a sequence needs with this sampler: its lists, the sampler's state and what
 * samplers take in open(). */
size_t tt_seq_bytes(const tt_sampler *s, int32_t columns, int32_t n_top, int32_t n_bias);
/* Bytes of step arena that plan() and apply() need at most for it. */
size_t tt_seq_step_bytes(const tt_sampler *s, int32_t columns, int32_t n_bias);

/* True when the sampler takes this value of a choice: all do but those of `cache` it cannot use. */
bool tt_sampler_takes(const tt_sampler *s, const tt_param *p, int choice);
/* The cache a sequence uses: the parameter, with `auto` resolved to what suits the sampler. */
tt_cache_kind tt_sampler_cache(const tt_sampler *s, const tt_params *p);
/* TT_EINVAL naming the parameter when the sampler cannot work with the cache asked for. */
tt_status tt_sampler_check(const tt_sampler *s, const tt_params *p, tt_err *e);
/* Length of blocks: the parameter, or all that follows the prompt when it is 0 or larger. Where it
 * does not divide what follows, the last block is short. */
int32_t tt_block_columns(const tt_params *p, int32_t columns, int32_t prompt);
/* TT_EINVAL when a request asks for blocks that do not divide what follows its prompt, which the
 * released samplers refuse. A model's default may leave a short last block, as may infilling
 * (prompt = 0) and samplers that are defined for one. */
tt_status tt_block_check(const tt_sampler *s, const tt_params *p, int32_t columns, int32_t prompt,
                         tt_err *e);
/* Columns of the store it needs; 0: none. */
int32_t tt_sampler_store(const tt_sampler *s, const tt_params *p, int32_t columns, int32_t prompt);
/* Entries of core layers that its store has per column, and how they are read. */
tt_kv_sharing tt_sampler_sharing(const tt_sampler *s, const tt_params *p);
/* Latent states it keeps of a canvas of so many columns. */
tt_latent_size tt_sampler_latents(const tt_sampler *s, const tt_params *p, int32_t columns);
/* What it keeps per column between passes. */
tt_memo_kind tt_sampler_memo(const tt_sampler *s, const tt_params *p);
/* True when something else may fill columns between its steps: it looks neither at its own commits
 * again nor at what earlier passes left of a column, nor does it draft itself. */
bool tt_sampler_shares(const tt_sampler *s, const tt_params *p);

/* Takes a sequence's lists from q->arena: columns, n_top and n_bias must be set. id and fixed are
 * copied (id replaced by mask_id where open); bias is copied, sorted, and the mask id added. */
tt_status tt_seq_begin(tt_seq *q, const int32_t *id, const uint8_t *open, const tt_id_value *bias,
                       tt_err *e);

/* Commits a token; top (n_top entries) may be NULL. False, and nothing changed, where a grammar has
 * no place for it beside what was committed since the step was planned: the column stays as it is.
 * The first commit of a step never fails so. */
bool tt_seq_put(tt_seq *q, int32_t column, int32_t id, float logprob, const tt_id_value *top);
/* Puts a token at a column that is not fixed; tokens there and right of it, up to the next open
 * column, which must exist, move by one. */
void tt_seq_insert(tt_seq *q, int32_t column, int32_t id, float logprob, const tt_id_value *top);
/* Shows a guess at a column that is not decided yet. */
void tt_seq_draft(tt_seq *q, int32_t column, int32_t id, float logprob, const tt_id_value *top);
/* Takes a token back: the column is open again. */
void tt_seq_remask(tt_seq *q, int32_t column);
/* The same for the drawn token of ask i at its column (id, log-probability, step). */
bool tt_seq_commit(tt_seq *q, const tt_result *r, int32_t i);
/* True while the column is to be filled. */
static inline bool tt_seq_open_at(const tt_seq *q, int32_t c)
{
    return q->id[c] == q->mask_id && !q->fixed[c];
}

#endif
