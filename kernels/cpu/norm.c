/* norm.c - root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467), of rows and of
 * heads, and LayerNorm with bias or modulation. */
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

typedef struct {
    float *x;
    const float *w;
    int64_t ld, heads, head_dim;
    float eps;
} heads_job;

static void heads_rows(void *arg, int64_t first, int64_t count)
{
    const heads_job *job = arg;
    for (int64_t r = first; r < first + count; r++)
        for (int64_t h = 0; h < job->heads; h++) {
            float *x = job->x + r * job->ld + h * job->head_dim;
            tt_cpu_rmsnorm_row(x, x, job->w, job->head_dim, job->eps);
        }
}

tt_status tt_cpu_rmsnorm_heads(tt_stream *s, tt_act *x, int64_t ld, const float *w, int64_t rows,
                               int64_t heads, int64_t head_dim, float eps, tt_err *e)
{
    if (heads < 1 || head_dim < 1 || tt_cpu_bad_shape(rows, heads * head_dim, ld))
        return tt_cpu_shape_error("rmsnorm_heads", rows, heads * head_dim, ld, e);
    heads_job job = {x, w, ld, heads, head_dim, eps};
    tt_cpu_over_rows(s, rows, heads * head_dim, heads_rows, &job);
    return TT_OK;
}

typedef struct {
    float *y;
    const float *x, *w, *b;
    int64_t ldy, ldx, dim;
    float eps;
} layernorm_job;

static void layernorm_rows(void *arg, int64_t first, int64_t count)
{
    const layernorm_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        const float *x = job->x + r * job->ldx;
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < job->dim; i++)
            sum += x[i];
        double mean = sum / (double)job->dim;
        for (int64_t i = 0; i < job->dim; i++)
            squares += (x[i] - mean) * (x[i] - mean);
        double inv = 1.0 / sqrt(squares / (double)job->dim + job->eps);
        for (int64_t i = 0; i < job->dim; i++)
            job->y[r * job->ldy + i] = (float)((x[i] - mean) * inv * job->w[i] + job->b[i]);
    }
}

tt_status tt_cpu_layernorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                           const float *w, const float *b, int64_t rows, int64_t dim, float eps,
                           tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("layernorm", rows, dim, ldx < ldy ? ldx : ldy, e);
    layernorm_job job = {y, x, w, b, ldy, ldx, dim, eps};
    tt_cpu_over_rows(s, rows, 3 * dim, layernorm_rows, &job);
    return TT_OK;
}

tt_status tt_cpu_layernorm_heads(tt_stream *s, tt_act *x, int64_t ld, const float *w,
                                 const float *b, int64_t rows, int64_t heads, int64_t head_dim,
                                 float eps, tt_err *e)
{
    if (heads < 1 || head_dim < 1 || tt_cpu_bad_shape(rows, heads * head_dim, ld))
        return tt_cpu_shape_error("layernorm_heads", rows, heads * head_dim, ld, e);
    for (int64_t h = 0; h < heads; h++) {
        tt_act *head = (float *)x + h * head_dim;
        tt_status st = tt_cpu_layernorm(s, head, ld, head, ld, w + h * head_dim, b + h * head_dim,
                                        rows, head_dim, eps, e);
        if (st)
            return st;
    }
    return TT_OK;
}

/* --- adaLN (Peebles and Xie, arXiv 2212.09748) --- */

typedef struct {
    float *y;
    const float *x, *w, *shift, *scale;
    const int32_t *index;
    int64_t ldy, ldx, ld, dim;
    float eps;
} adaln_job;

static void adaln_rows(void *arg, int64_t first, int64_t count)
{
    const adaln_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        const float *x = job->x + r * job->ldx;
        const float *shift = job->shift + job->index[r] * job->ld;
        const float *scale = job->scale + job->index[r] * job->ld;
        float *y = job->y + r * job->ldy;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < job->dim; i++)
            mean += x[i];
        mean /= (double)job->dim;
        for (int64_t i = 0; i < job->dim; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        double inv = 1.0 / sqrt(variance / (double)job->dim + job->eps);
        for (int64_t i = 0; i < job->dim; i++)
            y[i] = (float)((x[i] - mean) * inv * job->w[i] * (1.0 + scale[i]) + shift[i]);
    }
}

tt_status tt_cpu_adaln(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                       const float *w, const tt_act *shift, const tt_act *scale, int64_t ld,
                       const int32_t *index, int64_t rows, int64_t dim, float eps, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim || ld < dim)
        return tt_cpu_shape_error("adaln", rows, dim, ld < dim ? ld : ldx < ldy ? ldx : ldy, e);
    adaln_job job = {y, x, w, shift, scale, index, ldy, ldx, ld, dim, eps};
    tt_cpu_over_rows(s, rows, 3 * dim, adaln_rows, &job);
    return TT_OK;
}

typedef struct {
    float *y;
    const float *x, *gate;
    const int32_t *index;
    int64_t ldy, ldx, ldg, dim;
} gate_job;

static void gate_rows(void *arg, int64_t first, int64_t count)
{
    const gate_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        const float *x = job->x + r * job->ldx, *g = job->gate + job->index[r] * job->ldg;
        float *y = job->y + r * job->ldy;
        for (int64_t i = 0; i < job->dim; i++)
            y[i] = (float)(y[i] + (double)g[i] * x[i]);
    }
}

tt_status tt_cpu_gate_add(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                          const tt_act *gate, int64_t ldg, const int32_t *index, int64_t rows,
                          int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim || ldg < dim)
        return tt_cpu_shape_error("gate_add", rows, dim, ldg < dim ? ldg : ldx < ldy ? ldx : ldy,
                                  e);
    gate_job job = {y, x, gate, index, ldy, ldx, ldg, dim};
    tt_cpu_over_rows(s, rows, dim, gate_rows, &job);
    return TT_OK;
}

tt_status tt_cpu_gate_adaln(tt_stream *s, tt_act *y, int64_t ldy, tt_act *x, int64_t ldx,
                            const tt_act *a, int64_t lda, const float *w, const tt_act *gate,
                            const tt_act *shift, const tt_act *scale, int64_t ld,
                            const int32_t *index, int64_t rows, int64_t dim, float eps, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim || lda < dim || ld < dim)
        return tt_cpu_shape_error("gate_adaln", rows, dim, ld < dim ? ld : ldx < ldy ? ldx : ldy,
                                  e);
    tt_status st = tt_cpu_gate_add(s, x, ldx, a, lda, gate, ld, index, rows, dim, e);
    return st ? st : tt_cpu_adaln(s, y, ldy, x, ldx, w, shift, scale, ld, index, rows, dim, eps, e);
}
