/* run.h - a sequence in flight: a canvas, its sampler, and what it keeps between passes.
 *
 * Planning and applying concern one run alone; batcher.h puts the plans of many together into a
 * pass. Images have the counterpart picture_run.h. Owned by one thread. */
#ifndef TT_RUN_H
#define TT_RUN_H

#include "samplers/constraint.h"
#include "samplers/sampler.h"

typedef struct {
    const tt_sampler *sampler;
    tt_model *model;
    tt_model *guide;         /* for samplers that use one, or NULL */
    const tt_params *params; /* must outlive the run */
    const int32_t *id;
    const uint8_t *open;
    int32_t columns, prompt;
    int32_t vocab; /* ids from here on are banned */
    tt_noise noise;
    const tt_id_value *bias;
    int32_t n_bias, n_top;
    /* The rest may be left out; what pointers lead to must outlive the run. */
    int32_t samples;      /* of the job; 0: 1 */
    const int32_t *draft; /* as in tt_seq. Unless the sampler reads: see tt_job_spec.draft */
    const tt_encoding *encoding;
    const tt_column_rule *rule;
    int32_t rules;
    const int32_t *negative; /* prompt of the guidance twin, in place of a masked one */
    int32_t negatives;
    const tt_constraint *constraint; /* holes under a grammar */
    int32_t constraints;
    bool log; /* keep seq.log */
    const tt_source *source; /* as in tt_seq */
} tt_run_spec;

typedef struct {
    const tt_sampler *sampler;
    tt_model *model, *guide;
    tt_seq seq;
    void *state;
    tt_arena life, step; /* memory of the run, and of one step */
    tt_plan plan;
    bool planned, done;
    tt_status failed; /* of plan or apply; error has the sentence */
    tt_err error;
    /* Stores of the rows, of their unconditional twin, of the guide; opened when asked for. */
    tt_kv *kv[3];
    tt_memo *memo;    /* rows kept between passes; opened when asked for */
    tt_latents *latents; /* states of recurrent depth, likewise */
    int32_t nfe;      /* passes taken part in */
    /* Where its part of the present pass begins. */
    int64_t row, twin_row, want, first_state, class_row;
    int32_t live;                       /* columns that are still fed: see tt_run_cut */
    const int32_t *negative;
    int32_t negatives;
    const tt_column_rule *rule;
    int32_t rules;
    tt_buf log;
} tt_run;

/* Columns a run needs room for: block-causal samplers complete the last block of a canvas, others
 * open positions behind it. */
int32_t tt_run_columns(const tt_sampler *s, const tt_params *p, int32_t columns);
/* Host memory a run takes. */
size_t tt_run_bytes(const tt_run_spec *spec);
tt_status tt_run_open(tt_run *r, const tt_run_spec *spec, tt_err *e);
void tt_run_close(tt_run *r); /* a zeroed run is fine */

/* The answer ends before column `end`: what is open from there on counts as end-of-text padding,
 * and passes leave those columns out. */
void tt_run_cut(tt_run *r, int32_t end);

/* Asks the sampler for its next pass unless that is pending. A failure is kept in r->failed. */
void tt_run_plan(tt_run *r);
/* The model the pending plan wants to run. */
tt_model *tt_run_model(const tt_run *r);
/* Recurrences the pending plan wants of a model of recurrent depth; else 0. Runs that want the same
 * number go well together: none waits for another. */
int32_t tt_run_recurrences(const tt_run *r);
/* Rows the pending plan adds to a pass. */
int64_t tt_run_rows(const tt_run *r);

#endif
