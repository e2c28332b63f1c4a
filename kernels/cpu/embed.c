/* embed.c - looking up rows of a table, read in place from the mapped checkpoint. */
#include "kernels/cpu/cpu.h"

tt_status tt_cpu_embed(tt_stream *s, tt_act *y, int64_t ldy, const tt_matrix *table,
                       const int32_t *id, int64_t rows, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, table->k, ldy))
        return tt_cpu_shape_error("embed", rows, table->k, ldy, e);
    if (!(table->flags & TT_MATRIX_TABLE))
        return tt_fail(e, TT_EINVAL, "embed: the matrix was not opened as a table");
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)y + r * ldy;
        const tt_weight *p = table->part;
        int64_t row = id[r];
        while (row >= p->data.dim[0])
            row -= p++->data.dim[0];
        tt_status st = tt_to_f32(out, &p->data, row * table->k, table->k, e);
        float scale = 1.0f;
        if (!st && p->data.dtype == TT_I8)
            st = tt_to_f32(&scale, &p->scale, row, 1, e);
        if (st)
            return tt_context(e, st, "embed");
        for (int64_t i = 0; i < table->k && p->data.dtype == TT_I8; i++)
            out[i] *= scale;
    }
    return TT_OK;
}
