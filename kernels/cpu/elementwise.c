/* elementwise.c - operations that see one element at a time: gather, guidance, activations, sum of
 * two. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

tt_status tt_cpu_gather(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                        const int32_t *index, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("gather", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++)
        memcpy((float *)y + r * ldy, (const float *)x + index[r] * ldx,
               (size_t)dim * sizeof(float));
    return TT_OK;
}

tt_status tt_cpu_cfg_mix(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *u, int64_t ldu,
                         const float *scale, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldy) || ldu < dim)
        return tt_cpu_shape_error("cfg_mix", rows, dim, ldy < ldu ? ldy : ldu, e);
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)y + r * ldy;
        const float *base = (const float *)u + r * ldu;
        double factor = (double)scale[r] + 1.0;
        for (int64_t i = 0; i < dim; i++)
            out[i] = (float)(base[i] + factor * ((double)out[i] - base[i]));
    }
    return TT_OK;
}

tt_status tt_cpu_swiglu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *gate, const tt_act *up,
                        int64_t ld, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ld) || ldy < dim)
        return tt_cpu_shape_error("swiglu", rows, dim, ld < ldy ? ld : ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        const float *a = (const float *)gate + r * ld, *b = (const float *)up + r * ld;
        float *out = (float *)y + r * ldy;
        for (int64_t i = 0; i < dim; i++)
            out[i] = (float)(a[i] / (1.0 + exp(-(double)a[i])) * b[i]);
    }
    return TT_OK;
}

tt_status tt_cpu_add_scaled(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                            const float *scale, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("add_scaled", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)y + r * ldy;
        const float *in = (const float *)x + r * ldx;
        for (int64_t i = 0; i < dim && scale[r] != 0; i++)
            out[i] = (float)(out[i] + (double)scale[r] * in[i]);
    }
    return TT_OK;
}

tt_status tt_cpu_gelu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                      int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("gelu", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        const float *in = (const float *)x + r * ldx;
        float *out = (float *)y + r * ldy;
        for (int64_t i = 0; i < dim; i++) {
            double v = in[i], u = 0.7978845608028654 * (v + 0.044715 * v * v * v);
            out[i] = (float)(v / (1.0 + exp(-2 * u)));
        }
    }
    return TT_OK;
}

static float unit_of(float x, tt_unit unit)
{
    switch (unit) {
    case TT_UNIT_RELU:
        return x > 0 ? x : 0;
    case TT_UNIT_TANH:
        return (float)tanh((double)x);
    case TT_UNIT_SILU:
        return (float)(x / (1 + exp(-(double)x)));
    case TT_UNIT_QUICK_GELU:
        return (float)(x / (1 + exp(-1.702 * (double)x)));
    }
    return x;
}

tt_status tt_cpu_unit(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                      int64_t rows, int64_t dim, tt_unit unit, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("unit", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        const float *in = (const float *)x + r * ldx;
        float *out = (float *)y + r * ldy;
        for (int64_t i = 0; i < dim; i++)
            out[i] = unit_of(in[i], unit);
    }
    return TT_OK;
}

tt_status tt_cpu_gelu_erf(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                          int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("gelu_erf", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < dim; i++) {
            double v = ((const float *)x)[r * ldx + i];
            ((float *)y)[r * ldy + i] = (float)(0.5 * v * erfc(-v * 0.7071067811865476));
        }
    return TT_OK;
}

tt_status tt_cpu_scatter(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                         const int32_t *index, int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("scatter", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++)
        memcpy((float *)y + index[r] * ldy, (const float *)x + r * ldx,
               (size_t)dim * sizeof(float));
    return TT_OK;
}

tt_status tt_cpu_multiply(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                          int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("multiply", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < dim; i++)
            ((float *)y)[r * ldy + i] *= ((const float *)x)[r * ldx + i];
    return TT_OK;
}

tt_status tt_cpu_add(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                     int64_t rows, int64_t dim, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("add", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < dim; i++)
            ((float *)y)[r * ldy + i] += ((const float *)x)[r * ldx + i];
    return TT_OK;
}

/* By the table's own product and activation. */
tt_status tt_cpu_linear_gelu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                             int64_t rows, const tt_matrix *w, tt_err *e)
{
    int64_t n;
    s->op.matrix_size(w, &n, NULL, NULL);
    tt_status st = s->op.linear(s, y, ldy, x, ldx, rows, w, false, e);
    return st ? st : s->op.gelu(s, y, ldy, y, ldy, rows, n, e);
}

/* By the table's own product and scatter. */
tt_status tt_cpu_linear_split(tt_stream *s, tt_act *y, int64_t ldy, int64_t split, tt_act *z,
                              int64_t ldz, const int32_t *index, const tt_act *x, int64_t ldx,
                              int64_t rows, const tt_matrix *w, tt_err *e)
{
    int64_t n;
    s->op.matrix_size(w, &n, NULL, NULL);
    if (split < 0 || split >= n || ldz < n - split)
        return tt_fail(e, TT_EINVAL, "linear_split: outputs from %lld on of %lld, stride %lld",
                       (long long)split, (long long)n, (long long)ldz);
    tt_status st = s->op.linear(s, y, ldy, x, ldx, rows, w, false, e);
    return st ? st
              : s->op.scatter(s, z, ldz, (const float *)y + split, ldy, index, rows, n - split, e);
}
