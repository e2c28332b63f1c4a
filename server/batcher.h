/* batcher.h - one step of many sequences in flight as a single pass.
 *
 * Rows of a pass never influence each other, so a run's tokens do not depend on its company. Owned
 * by one thread. */
#ifndef TT_BATCHER_H
#define TT_BATCHER_H

#include "server/run.h"

/* Arrays of a pass, reused from step to step. Zero is the start state. */
typedef struct {
    int64_t rows, row_room, wants, want_room, top_room, seqs, seq_room;
    int64_t states, state_room, float_room;
    int32_t *id, *position, *column;
    tt_pass_seq *seq;
    tt_want *want;
    tt_row_stats *stats;
    float *mix, *kl;
    bool mixes; /* a mix of this pass is not 0 */
    tt_id_value *top;
    int64_t *state_row;
    float *state;
    int64_t classified, class_room, class_float_room;
    int64_t *class_row;
    float *classes;
} tt_batch;

void tt_batch_free(tt_batch *b);
/* Runs the pending plans of n runs of one model as one pass and lets each sampler apply its part.
 * A run's own failure (r->failed) leaves the others untouched; the status returned is the pass's:
 * when it is not TT_OK no run was applied. */
tt_status tt_batch_step(tt_batch *b, tt_run *const *run, int64_t n, tt_err *e);

#endif
