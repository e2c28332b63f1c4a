/* norm.c - root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467). */
#include <math.h>

#include "kernels/cpu/cpu.h"

tt_status tt_cpu_rmsnorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                         const float *w, int64_t rows, int64_t dim, float eps, tt_err *e)
{
    (void)s;
    if (tt_cpu_bad_shape(rows, dim, ldx))
        return tt_cpu_shape_error("rmsnorm", rows, dim, ldx, e);
    if (ldy < dim)
        return tt_cpu_shape_error("rmsnorm", rows, dim, ldy, e);
    for (int64_t r = 0; r < rows; r++) {
        const float *in = (const float *)x + r * ldx;
        float *out = (float *)y + r * ldy;
        double sum = 0;
        for (int64_t i = 0; i < dim; i++)
            sum += (double)in[i] * in[i];
        double inv = 1.0 / sqrt(sum / (double)dim + eps);
        for (int64_t i = 0; i < dim; i++)
            out[i] = (float)(w[i] * (in[i] * inv));
    }
    return TT_OK;
}
