/* memo.c - see memo.h. */
#include "models/memo.h"

#include <stdlib.h>

tt_status tt_memo_open(tt_memo **out, tt_model *m, tt_memo_kind kind, int32_t columns, tt_err *e)
{
    *out = NULL;
    tt_memo *memo = calloc(1, sizeof *memo);
    if (!memo)
        return tt_fail(e, TT_ENOMEM, "no memory for rows between passes");
    *memo = (tt_memo){.stream = m->stream,
                      .kind = kind,
                      .columns = columns,
                      .width = m->info.width,
                      .act_bytes = tt_dtype_size(m->info.act)};
    memo->filled = calloc((size_t)columns, 1);
    tt_status s = memo->filled ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for rows between passes");
    if (!s)
        s = m->stream->op.alloc(m->stream, &memo->memory, tt_memo_bytes(m, columns), e);
    if (s) {
        tt_memo_close(memo);
        return tt_context(e, s, "rows between passes of %d columns", columns);
    }
    *out = memo;
    return TT_OK;
}

void tt_memo_close(tt_memo *m)
{
    if (!m)
        return;
    if (m->memory)
        m->stream->op.release(m->stream, m->memory);
    free(m->filled);
    free(m);
}

size_t tt_memo_bytes(const tt_model *m, int32_t columns)
{
    return (size_t)columns * (size_t)m->info.width * tt_dtype_size(m->info.act);
}

bool tt_memo_has(const tt_memo *m, int32_t column)
{
    return m && m->filled[column];
}

tt_act *tt_memo_row(const tt_memo *m, int32_t column)
{
    return (char *)m->memory + (size_t)(column * m->width) * m->act_bytes;
}
