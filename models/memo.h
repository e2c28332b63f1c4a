/* memo.h - a row of `width` per column of one sequence, in device memory, that outlives a pass.
 *
 * What a pass writes there for a column whose distribution was wanted depends on the kind:
 *   hidden  the normalised hidden row, against which the next pass measures how far the
 *           distribution moved (tt_op_head_kl)
 *   mean    the embedding that the column's distribution expects (tt_op_head_mean), which the
 *           next pass may add to the mask's embedding */
#ifndef TT_MEMO_H
#define TT_MEMO_H

#include "models/model.h"

struct tt_memo {
    tt_stream *stream;
    tt_memo_kind kind;
    int32_t columns;
    int64_t width;
    void *memory; /* columns x width */
    size_t act_bytes;
    uint8_t *filled; /* per column: a pass wrote it */
};

tt_act *tt_memo_row(const tt_memo *m, int32_t column);

#endif
