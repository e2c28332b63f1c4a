/* kv.h - keys and values of one sequence, by layer and column, in device memory.
 *
 * Replace-range, not append-only: a pass overwrites the columns it feeds and reads whatever the
 * others hold, stale or not; which columns may be stale is the sampler's choice. A column that
 * was never written cannot be read: tt_model_run() refuses such a pass. Models of recurrent depth
 * keep several entries per core layer (tt_kv_sharing). */
#ifndef TT_KV_H
#define TT_KV_H

#include "models/depth.h"

struct tt_kv {
    tt_stream *stream;
    int32_t columns;
    int64_t layers;
    int64_t width; /* kv_heads * head_dim */
    void *memory;  /* slots x {k, v} x columns x width; a slot is a layer, or of recurrent depth
                      one entry of a core layer (tt_kv_slot) */
    size_t act_bytes;
    uint8_t *filled; /* per column */
    /* Of recurrent depth: */
    int64_t prelude, core; /* layers */
    tt_kv_sharing sharing;
    uint16_t *depth; /* per column: entries of the core layers it has, always the first ones */
};

/* The first columns of one store into another of the same model. */
tt_status tt_kv_copy(tt_kv *to, const tt_kv *from, int32_t columns, tt_err *e);

tt_act *tt_kv_key(const tt_kv *kv, int64_t slot, int32_t column);
tt_act *tt_kv_value(const tt_kv *kv, int64_t slot, int32_t column);

/* The entry recurrence t writes. */
int32_t tt_kv_entry(const tt_kv *kv, int32_t recurrence);
/* Slot of a layer; of a core layer, its slot of this entry. Layers count through prelude, core and
 * coda. */
int64_t tt_kv_slot(const tt_kv *kv, int64_t layer, int32_t entry);

#endif
