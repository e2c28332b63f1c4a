/* kv.c - see kv.h. */
#include "models/kv.h"

#include <stdlib.h>
#include <string.h>

tt_status tt_kv_open(tt_kv **out, tt_model *m, int32_t columns, tt_err *e)
{
    return tt_kv_open_shared(out, m, columns, &(tt_kv_sharing){.entries = 1}, e);
}

tt_status tt_kv_open_shared(tt_kv **out, tt_model *m, int32_t columns,
                            const tt_kv_sharing *sharing, tt_err *e)
{
    *out = NULL;
    if (sharing->entries < 1 || sharing->entries > TT_MAX_RECURRENCE)
        return tt_fail(e, TT_EINVAL, "%d entries per core layer", sharing->entries);
    /* Gathered keys are counted in 32 bits. */
    if (2 * sharing->entries * m->info.core_layers * (int64_t)columns > INT32_MAX)
        return tt_fail(e, TT_EINVAL, "a store of %d columns with %d entries of %lld layers",
                       columns, sharing->entries, (long long)m->info.core_layers);
    if (columns < 1 || columns > 2 * m->info.context)
        return tt_fail(e, TT_EINVAL, "a store of %d columns; the model has %lld", columns,
                       (long long)m->info.context);
    tt_kv *kv = calloc(1, sizeof *kv);
    if (!kv)
        return tt_fail(e, TT_ENOMEM, "no memory for a key/value store");
    *kv = (tt_kv){.stream = m->stream,
                  .columns = columns,
                  .layers = m->info.layers,
                  .width = m->info.kv_heads * m->info.head_dim,
                  .act_bytes = tt_dtype_size(m->info.act),
                  .prelude = m->info.prelude_layers,
                  .core = m->info.core_layers,
                  .sharing = *sharing};
    kv->filled = calloc((size_t)columns, 1);
    kv->depth = calloc((size_t)columns, sizeof *kv->depth);
    tt_status s = kv->filled && kv->depth
                      ? TT_OK
                      : tt_fail(e, TT_ENOMEM, "no memory for a key/value store");
    if (!s)
        s = m->stream->op.alloc(m->stream, &kv->memory,
                                (size_t)columns * tt_kv_column_bytes(&m->info, sharing->entries),
                                e);
    if (s) {
        tt_kv_close(kv);
        return tt_context(e, s, "key/value store of %d columns", columns);
    }
    *out = kv;
    return TT_OK;
}

void tt_kv_close(tt_kv *kv)
{
    if (!kv)
        return;
    if (kv->memory)
        kv->stream->op.release(kv->stream, kv->memory);
    free(kv->filled);
    free(kv->depth);
    free(kv);
}

size_t tt_kv_column_bytes(const tt_model_info *info, int32_t entries)
{
    int64_t width = info->kv_heads * info->head_dim;
    size_t core = (size_t)(2 * info->core_layers * width) * tt_dtype_size(info->act);
    return info->kv_bytes_per_column + (size_t)(entries - 1) * core;
}

int32_t tt_kv_entry(const tt_kv *kv, int32_t recurrence)
{
    int32_t n = kv->sharing.entries;
    if (recurrence < n)
        return recurrence;
    return kv->sharing.anchored ? n - 1 : recurrence % n;
}

int64_t tt_kv_slot(const tt_kv *kv, int64_t layer, int32_t entry)
{
    if (layer < kv->prelude)
        return layer;
    bool coda = layer >= kv->prelude + kv->core;
    return layer + kv->core * (coda ? kv->sharing.entries - 1 : entry);
}

static tt_act *at(const tt_kv *kv, int64_t slab, int32_t column)
{
    return (char *)kv->memory +
           (size_t)((slab * kv->columns + column) * kv->width) * kv->act_bytes;
}

tt_act *tt_kv_key(const tt_kv *kv, int64_t slot, int32_t column)
{
    return at(kv, slot * 2, column);
}

tt_act *tt_kv_value(const tt_kv *kv, int64_t slot, int32_t column)
{
    return at(kv, slot * 2 + 1, column);
}

tt_status tt_kv_copy(tt_kv *to, const tt_kv *from, int32_t columns, tt_err *e)
{
    const tt_backend *op = &from->stream->op;
    int64_t n = columns;
    int32_t *index = malloc((size_t)(n ? n : 1) * sizeof *index);
    void *list = NULL;
    if (!index)
        return tt_fail(e, TT_ENOMEM, "no memory to copy %d columns", columns);
    for (int32_t i = 0; i < columns; i++)
        index[i] = i;
    tt_status s = op->alloc(from->stream, &list, (size_t)(n ? n : 1) * sizeof *index, e);
    if (!s)
        s = op->upload(from->stream, list, index, (size_t)n * sizeof *index, e);
    for (int64_t slab = 0; slab < 2 * from->layers && !s; slab++)
        s = op->gather(from->stream, at(to, slab, 0), to->width, at(from, slab, 0), from->width,
                       list, n, from->width, e);
    if (!s)
        s = op->sync(from->stream, e);
    if (!s)
        memcpy(to->filled, from->filled, (size_t)n);
    op->release(from->stream, list);
    free(index);
    return s;
}
