/* model.h - what a model provides, and the batch of rows it runs.
 *
 * A model maps token rows to statistics of its output distribution. It knows no requests, no
 * text and no samplers: the engine hands it a pass (ragged rows of many sequences, one after the
 * other, no padding) and reads back reduced statistics for the rows it wanted.
 * A family is a const tt_model_def in models/table.c, found by config.json's "architectures". */
#ifndef TT_MODEL_H
#define TT_MODEL_H

#include "kernels/backend.h"
#include "models/config.h"
#include "models/weights.h"

typedef struct tt_model tt_model;
typedef struct tt_kv tt_kv;
typedef struct tt_memo tt_memo;
typedef struct tt_trunk_context tt_trunk_context;
typedef struct tt_depth tt_depth; /* models/depth.h */

enum { /* what a family can do; samplers say which of these they need */
    TT_KIND_BIDIRECTIONAL = 1 << 0, /* masked LM: every row may see every column */
    TT_KIND_CAUSAL = 1 << 1,
    TT_KIND_INSERTION = 1 << 2,
    TT_KIND_BLOCKS = 1 << 3, /* masked LM: a row sees columns up to the end of its own block */
    TT_KIND_TIMED = 1 << 4,  /* rows are conditioned on the noise level of their sequence */
    TT_KIND_RECURRENT = 1 << 6, /* recurrent depth (models/depth.h) */
    /* Not what it is but what more it can; cleared where the device cannot. */
    TT_KIND_MEMO = 1 << 8,    /* keep rows between passes (tt_want.memo, tt_pass.mix) */
    TT_KIND_SHADOWS = 1 << 9, /* shadow rows (tt_pass_seq.hole), which predict their own column */
    TT_KIND_DECIDES = 1 << 10, /* the checkpoint has a learned exit rule */
};

/* --- a pass --- */

/* One sequence's part of a pass. */
typedef struct {
    int64_t row, rows;             /* its rows in the pass */
    int32_t see_begin, see_end;    /* columns its rows may attend to */
    tt_see see;                    /* further rule inside that range */
    int32_t block;                 /* for TT_SEE_BLOCK */
    float sigma;                   /* noise level, for models with TT_KIND_TIMED */
    tt_kv *kv; /* store of keys and values by column; NULL: the rows are columns 0..rows-1 and
                  nothing is kept after the pass */
    int32_t hole; /* > 0 (TT_SEE_ALL alone): its i-th row does not see column hole - 1 + i */
    tt_trunk_context *context; /* what its rows attend to besides; models of text alone */
    const tt_memo *memo; /* of expected embeddings, where tt_pass.mix is not 0; or NULL */
    tt_depth *depth; /* for models with TT_KIND_RECURRENT; NULL: their default recurrences, from
                        fresh states of seed 0 */
} tt_pass_seq;

/* A row whose output distribution is wanted. */
typedef struct {
    int64_t row;     /* of the pass */
    int64_t uncond;  /* row of the unconditional twin for guidance, or -1 */
    float cfg_scale; /* logits = uncond + (cfg_scale + 1) * (row - uncond) */
    tt_draw draw;
    tt_memo *memo; /* what is kept of the row for the next pass, at memo_column; or NULL */
    int32_t memo_column;
} tt_want;

/* Inputs and outputs are host memory, owned by the caller. */
typedef struct {
    int64_t rows;
    const int32_t *id;       /* token of each row, in [0, vocab) */
    const int32_t *position; /* for rotary embedding */
    const int32_t *column;   /* of the canvas: where keys and values go in the store */
    const float *mix; /* of each row: times its column's row of the sequence's memo is added to the
                         token's embedding; 0: nothing. NULL: nothing anywhere */
    int64_t seqs;
    const tt_pass_seq *seq; /* consecutive, covering all rows */
    int64_t wants;
    const tt_want *want;
    int32_t n_top; /* entries per want in top, at most TT_MAX_TOP */

    tt_row_stats *stats; /* out: per want */
    tt_id_value *top;    /* out: wants x n_top, or NULL */
    float *kl;           /* out: per want with a memo of hidden rows, tt_op_head_kl from the row
                            kept to this one, +inf if none was kept; else untouched. May be NULL if
                            there is no such want */
    float *logits;       /* out: wants x vocab, or NULL (tests and scoring of few rows only) */
    float *hidden;       /* out: (layers + 1) x rows x width, the residual stream after the
                            embedding and after each layer, the last one normalised; or NULL.
                            For tests: embeddings ask for `state`. Of recurrent depth 4 x rows x
                            width: what the core reads beside the state, the states before the
                            first and after the last recurrence, and the last normalised */
    int64_t states;           /* rows whose final hidden state is wanted */
    const int64_t *state_row; /* which, ascending, none twice */
    float *state;             /* out: states x width, normalised: what the head reads */
    int64_t classified;       /* rows to be classified, by models that have classes */
    const int64_t *class_row; /* which, ascending, none twice */
    float *classes;           /* out: classified x info.classes, logits */
} tt_pass;

/* --- a model --- */

typedef enum {
    TT_WEIGHTS_AUTO, /* as stored; narrow types compute in bfloat16 where that is fast */
    TT_WEIGHTS_F32,
    TT_WEIGHTS_BF16,
    TT_WEIGHTS_INT8, /* float weights are rounded per row to 8 bits while loading */
    TT_WEIGHTS_FP8,  /* products of the layers by 8-bit floats (TT_COMPUTE_FP8) */
} tt_weights_mode;

enum { TT_MAX_NEVER = 16 };

typedef struct {
    const char *family;       /* "LLaDA" */
    const char *architecture; /* as in config.json */
    uint32_t kinds;
    int64_t layers, width, heads, kv_heads, head_dim, vocab, context; /* context: columns at most */
    int64_t parameters;
    int64_t layer_weights; /* elements of the matrices that every row is multiplied with, the head's
                              vocab x width left out; 0: not a fixed number */
    tt_compute products;   /* arithmetic of the matrix products */
    int32_t bytes_per_weight; /* of a matrix element as it is read for a product, at least */
    int64_t table_rows; /* ids that can be fed, where more than vocab: some are never predicted */
    int32_t classes; /* of the rows that are classified: insertion models' first one. Class 0:
                        nothing is missing. 0: the model has no classifier */
    int32_t cls_id, bos_id; /* insertion models: begin a sequence, and what is inserted; else 0 */
    int32_t never[TT_MAX_NEVER]; /* ids that no sampler may produce, besides the mask */
    int32_t nevers;
    int32_t mask_id, eos_id, eot_id; /* -1: none; checkpoints of masked models whose config names no
                                        mask get theirs from the tokenizer, by who opens both */
    int32_t row_shift; /* the head's row i predicts token i + row_shift: 1 for models adapted from
                          autoregressive ones, else 0 */
    int32_t block_length;            /* default of the block_length parameter */
    double temperature;              /* default of the temperature parameter */
    double stopping_threshold;       /* default of that parameter */
    const char *sampler;             /* default sampler; NULL: low_confidence */
    size_t weight_bytes;             /* as loaded */
    size_t kv_bytes_per_column;
    /* Of recurrent depth, else 0: layers before and in the core (the rest follows it), default
     * number of recurrences, elements of the matrices of one recurrence. */
    int64_t prelude_layers, core_layers;
    int32_t recurrence;
    int64_t core_weights;
    tt_dtype act;        /* of activations, keys and values */
    const char *compute; /* "f32", "bf16", "int8 weights, bf16 products" */
} tt_model_info;

typedef struct {
    const char *family;
    const char *summary;
    const char *source;               /* paper or released code followed */
    const char *const *architectures; /* NULL-terminated */
    uint32_t kinds;

    /* Binds and packs weights on the stream. The weights stay mapped for the model's life. Fails
     * with TT_EFORMAT/TT_EUNSUP naming the tensor or config key. progress may be NULL. */
    tt_status (*open)(tt_model **out, tt_stream *s, const tt_weights *w, tt_config *c,
                      tt_weights_mode mode, void (*progress)(void *arg, double done), void *arg,
                      tt_err *e);
    void (*close)(tt_model *m);
    /* Runs one pass to completion. Fails with TT_ENOMEM; results are then undefined. */
    tt_status (*run)(tt_model *m, const tt_pass *p, tt_err *e);
    /* Device memory a pass of so many rows and wants needs at most. */
    size_t (*pass_bytes)(const tt_model *m, int64_t rows, int64_t wants);
} tt_model_def;

struct tt_model {
    const tt_model_def *def;
    tt_stream *stream;
    tt_model_info info;
};

/* Every family, NULL-terminated; and by architecture name (NULL when unknown). */
const tt_model_def *const *tt_model_all(void);
const tt_model_def *tt_model_find(const char *architecture);

/* Opens weights, config and model of a folder in one go. *weights and *config belong to the
 * caller, to be closed after the model. */
tt_status tt_model_open(tt_model **out, tt_weights **weights, tt_config **config, tt_stream *s,
                        const char *folder, tt_weights_mode mode,
                        void (*progress)(void *arg, double done), void *arg, tt_err *e);
/* The same from config.json alone, with random weights (tt_weights_open_random). */
tt_status tt_model_open_random(tt_model **out, tt_weights **weights, tt_config **config,
                               tt_stream *s, const char *folder, tt_weights_mode mode,
                               void (*progress)(void *arg, double done), void *arg, tt_err *e);
void tt_model_close(tt_model *m); /* NULL is fine */

/* Checks the pass (ranges, coverage, ids) and runs it. */
tt_status tt_model_run(tt_model *m, const tt_pass *p, tt_err *e);

/* --- key/value store of one sequence (models/kv.c) --- */

/* Room for `columns` columns of every layer. More than the context are possible: shadow columns
 * repeat positions. */
tt_status tt_kv_open(tt_kv **out, tt_model *m, int32_t columns, tt_err *e);
void tt_kv_close(tt_kv *kv); /* NULL is fine */
/* Bytes of a column, `entries` of them for each core layer of recurrent depth. */
size_t tt_kv_column_bytes(const tt_model_info *info, int32_t entries);

/* --- rows of one sequence kept between passes (models/memo.h) --- */

typedef enum { TT_MEMO_NONE, TT_MEMO_HIDDEN, TT_MEMO_MEAN } tt_memo_kind;

tt_status tt_memo_open(tt_memo **out, tt_model *m, tt_memo_kind kind, int32_t columns, tt_err *e);
void tt_memo_close(tt_memo *m); /* NULL is fine */
size_t tt_memo_bytes(const tt_model *m, int32_t columns);
/* True when a pass kept a row for the column. */
bool tt_memo_has(const tt_memo *m, int32_t column);

#endif
