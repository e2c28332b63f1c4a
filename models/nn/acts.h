/* acts.h - numbers in the device's type of activations, from float32 of the host and back. */
#ifndef TT_ACTS_H
#define TT_ACTS_H

#include "kernels/backend.h"

/* to: n numbers of `type` (F32 or BF16). host may go at once. TT_ENOMEM. */
tt_status tt_acts_put(tt_stream *s, tt_dtype type, tt_act *to, const float *host, int64_t n,
                      tt_err *e);
/* The same in memory of their own, to be released also after a failure. Waits for it. */
tt_status tt_acts_upload(tt_stream *s, tt_dtype type, tt_act **out, const float *host, int64_t n,
                         tt_err *e);
/* In place: n numbers of `type` that begin where host does become float32. */
void tt_acts_widen(float *host, tt_dtype type, int64_t n);

#endif
