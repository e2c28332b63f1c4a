/* norm.c - root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467). */
#include <math.h>

#include "kernels/cpu/cpu.h"

void tt_cpu_rmsnorm_row(float *y, const float *x, const float *w, int64_t dim, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < dim; i++)
        sum += (double)x[i] * x[i];
    double inv = 1.0 / sqrt(sum / (double)dim + eps);
    for (int64_t i = 0; i < dim; i++)
        y[i] = (float)(w[i] * (x[i] * inv));
}

tt_status tt_cpu_rmsnorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                         const float *w, int64_t rows, int64_t dim, float eps, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("rmsnorm", rows, dim, ldx < ldy ? ldx : ldy, e);
    for (int64_t r = 0; r < rows; r++)
        tt_cpu_rmsnorm_row((float *)y + r * ldy, (const float *)x + r * ldx, w, dim, eps);
    return TT_OK;
}
