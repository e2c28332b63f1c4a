/* acts.c - see acts.h. */
#include "models/nn/acts.h"

#include <stdlib.h>
#include <string.h>

tt_status tt_acts_put(tt_stream *s, tt_dtype type, tt_act *to, const float *host, int64_t n,
                      tt_err *e)
{
    if (type == TT_F32)
        return s->op.upload(s, to, host, (size_t)n * sizeof *host, e);
    uint16_t *narrow = malloc((size_t)n * sizeof *narrow);
    if (!narrow)
        return tt_fail(e, TT_ENOMEM, "no memory to narrow %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++)
        narrow[i] = tt_f32_to_bf16(host[i]);
    tt_status st = s->op.upload(s, to, narrow, (size_t)n * sizeof *narrow, e);
    free(narrow);
    return st;
}

tt_status tt_acts_upload(tt_stream *s, tt_dtype type, tt_act **out, const float *host, int64_t n,
                         tt_err *e)
{
    void *p = NULL;
    tt_status st = s->op.alloc(s, &p, (size_t)n * tt_dtype_size(type), e);
    *out = p;
    if (!st)
        st = tt_acts_put(s, type, p, host, n, e);
    return st ? st : s->op.sync(s, e);
}

void tt_acts_widen(float *host, tt_dtype type, int64_t n)
{
    for (int64_t i = n; type == TT_BF16 && i-- > 0;) { /* from the end: none is overwritten */
        uint16_t half;
        memcpy(&half, (char *)host + i * (int64_t)sizeof half, sizeof half);
        host[i] = tt_bf16_to_f32(half);
    }
}
