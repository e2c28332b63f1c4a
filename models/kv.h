/* kv.h - keys and values of one sequence, by layer and column, in device memory.
 *
 * Replace-range, not append-only: a pass overwrites the columns it feeds and reads whatever the
 * others hold, stale or not; which columns may be stale is the sampler's choice. A column that
 * was never written cannot be read: tt_model_run() refuses such a pass. */
#ifndef TT_KV_H
#define TT_KV_H

#include "models/model.h"

struct tt_kv {
    tt_stream *stream;
    int32_t columns;
    int64_t layers;
    int64_t width; /* kv_heads * head_dim */
    void *memory;  /* layers x {k, v} x columns x width */
    size_t act_bytes;
    uint8_t *filled; /* per column */
};

/* The first columns of one store into another of the same model. */
tt_status tt_kv_copy(tt_kv *to, const tt_kv *from, int32_t columns, tt_err *e);

tt_act *tt_kv_key(const tt_kv *kv, int64_t layer, int32_t column);
tt_act *tt_kv_value(const tt_kv *kv, int64_t layer, int32_t column);

#endif
