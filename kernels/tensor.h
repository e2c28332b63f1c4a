/* tensor.h - element types, views, and conversions between float widths.
 *
 * A tt_tensor is a view: it never owns its data. Row-major, contiguous. */
#ifndef TT_TENSOR_H
#define TT_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TT_MAX_RANK = 8 };

typedef enum {
    TT_F32,
    TT_BF16,
    TT_F16,
    TT_F64,
    TT_I8,
    TT_U8,
    TT_I16,
    TT_I32,
    TT_I64,
    TT_BOOL,
    TT_F8E4M3,
    TT_DTYPES
} tt_dtype;

typedef struct {
    const void *data;
    int64_t dim[TT_MAX_RANK];
    int rank;
    tt_dtype dtype;
} tt_tensor;

size_t tt_dtype_size(tt_dtype d);      /* bytes of one element */
const char *tt_dtype_name(tt_dtype d); /* as in safetensors: "F32", "BF16", ... */
bool tt_dtype_find(const char *name, tt_dtype *out);
int64_t tt_tensor_count(const tt_tensor *t); /* elements; 1 for rank 0 */

/* Widen or round n elements of the tensor, starting at element `at`, to float32.
 * TT_EUNSUP for integer types other than I8/U8. */
tt_status tt_to_f32(float *out, const tt_tensor *t, int64_t at, int64_t n, tt_err *e);

static inline float tt_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t tt_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

float tt_f16_to_f32(uint16_t h);

#ifdef __cplusplus
}
#endif

#endif
