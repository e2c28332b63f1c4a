/* recurrent.h - what the samplers of recurrent-depth models share.
 *
 * Tokens are drawn with the same noise whenever a column is drawn again, and a column's state
 * begins with the same noise, whatever decodes it: so drafts of a column agree as soon as its
 * distribution does, and all of these samplers draw the same text wherever they compute the same
 * distributions. */
#ifndef TT_RECURRENT_H
#define TT_RECURRENT_H

#include "samplers/sampler.h"

/* Parameters that all of them read; to be put first in a sampler's list. */
#define TT_RECURRENT_PARAMS                                                                        \
    "temperature", "top_p", "top_k", "min_p", "recurrence", "kv_entries", "kv_anchor",             \
        "kv_lookup", "init_scale"

/* TT_EINVAL naming the parameter when the canvas begins with an open column: a token is predicted
 * from the one before it. */
tt_status tt_recurrent_check(const tt_seq *q, tt_err *e);
/* How the token of a column is drawn; step 0 but where tokens are to be drawn anew every step. */
tt_draw tt_recurrent_draw(const tt_seq *q, int32_t column, uint32_t step);
/* Plans a causal pass over columns [begin, end) with a store, of so many recurrences, asking for
 * columns [first, first + asks). depth becomes the plan's; it lives in the sampler's state. */
tt_status tt_recurrent_plan(const tt_seq *q, tt_depth *depth, int32_t begin, int32_t end,
                            int32_t recurrences, int32_t first, int32_t asks, tt_plan *plan,
                            tt_err *e);
/* Counts what a pass cost. */
void tt_recurrent_count(tt_seq *q, const tt_result *r);
/* Entries of the store by the parameters: `usual` unless kv_entries says otherwise. */
tt_kv_sharing tt_recurrent_sharing(const tt_params *p, int32_t usual);

#endif
