/* tensor.c - see tensor.h. */
#include "kernels/tensor.h"

static const struct {
    const char *name;
    uint8_t size;
} dtypes[TT_DTYPES] = {
    [TT_F32] = {"F32", 4},   [TT_BF16] = {"BF16", 2},      [TT_F16] = {"F16", 2},
    [TT_F64] = {"F64", 8},   [TT_I8] = {"I8", 1},          [TT_U8] = {"U8", 1},
    [TT_I16] = {"I16", 2},   [TT_I32] = {"I32", 4},        [TT_I64] = {"I64", 8},
    [TT_BOOL] = {"BOOL", 1}, [TT_F8E4M3] = {"F8_E4M3", 1},
};

size_t tt_dtype_size(tt_dtype d)
{
    return dtypes[d].size;
}
const char *tt_dtype_name(tt_dtype d)
{
    return dtypes[d].name;
}

bool tt_dtype_find(const char *name, tt_dtype *out)
{
    for (int i = 0; i < TT_DTYPES; i++)
        if (!strcmp(dtypes[i].name, name)) {
            *out = (tt_dtype)i;
            return true;
        }
    return false;
}

int64_t tt_tensor_count(const tt_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->dim[i];
    return n;
}

float tt_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 0x1F, frac = h & 0x3FF, bits;
    if (exp == 31) {
        bits = sign | 0x7F800000u | frac << 13;
    } else if (exp) {
        bits = sign | (exp + 112) << 23 | frac << 13;
    } else { /* subnormal: exact in float */
        float f = (float)frac * 0x1p-24f;
        memcpy(&bits, &f, 4);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

tt_status tt_to_f32(float *out, const tt_tensor *t, int64_t at, int64_t n, tt_err *e)
{
    switch (t->dtype) {
    case TT_F32:
        memcpy(out, (const float *)t->data + at, (size_t)n * 4);
        return TT_OK;
    case TT_BF16:
        for (int64_t i = 0; i < n; i++)
            out[i] = tt_bf16_to_f32(((const uint16_t *)t->data)[at + i]);
        return TT_OK;
    case TT_F16:
        for (int64_t i = 0; i < n; i++)
            out[i] = tt_f16_to_f32(((const uint16_t *)t->data)[at + i]);
        return TT_OK;
    case TT_F64:
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((const double *)t->data)[at + i];
        return TT_OK;
    case TT_I8:
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((const int8_t *)t->data)[at + i];
        return TT_OK;
    case TT_U8:
        for (int64_t i = 0; i < n; i++)
            out[i] = (float)((const uint8_t *)t->data)[at + i];
        return TT_OK;
    default:
        return tt_fail(e, TT_EUNSUP, "no float32 reading of %s tensors", tt_dtype_name(t->dtype));
    }
}
