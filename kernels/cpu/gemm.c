/* gemm.c - weights and the matrix product, plain. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static tt_status check_part(const tt_weight *p, int64_t k, tt_err *e)
{
    const tt_tensor *t = &p->data;
    if (t->rank != 2 || t->dim[0] < 1 || t->dim[1] != k || k < 1)
        return tt_fail(e, TT_EINVAL, "matrix_open: parts of %lld and %lld inputs",
                       (long long)(t->rank == 2 ? t->dim[1] : -1), (long long)k);
    if (t->dtype != TT_F32 && t->dtype != TT_BF16 && t->dtype != TT_F16 && t->dtype != TT_I8)
        return tt_fail(e, TT_EUNSUP, "matrix_open: weights of type %s", tt_dtype_name(t->dtype));
    if (t->dtype == TT_I8 && (!p->scale.data || tt_tensor_count(&p->scale) != t->dim[0]))
        return tt_fail(e, TT_EINVAL, "matrix_open: I8 weights need one scale a row");
    return TT_OK;
}

/* Row i of a part as the product multiplies with it; its factor for the sum in *scale. */
static tt_status read_row(float *out, float *scale, const tt_weight *p, int64_t i,
                          tt_compute compute, tt_err *e)
{
    int64_t k = p->data.dim[1];
    *scale = 1.0f;
    tt_status st = tt_to_f32(out, &p->data, i * k, k, e);
    if (!st && p->data.dtype == TT_I8)
        st = tt_to_f32(scale, &p->scale, i, 1, e);
    if (st)
        return tt_context(e, st, "matrix_open");
    if (compute == TT_COMPUTE_F32) {
        for (int64_t c = 0; c < k && p->data.dtype == TT_I8; c++)
            out[c] *= *scale;
        *scale = 1.0f;
    } else {
        for (int64_t c = 0; c < k; c++) /* integers up to 127 stay as they are */
            out[c] = tt_bf16_to_f32(tt_f32_to_bf16(out[c]));
    }
    return TT_OK;
}

static tt_status take(void **out, size_t n, size_t size, tt_matrix *m, tt_err *e)
{
    if (n > (SIZE_MAX - 64) / size)
        return tt_fail(e, TT_ENOMEM, "matrix_open: %zu values", n);
    tt_status st = tt_cpu_alloc(NULL, out, n * size, e);
    if (!st)
        m->bytes += n * size;
    return st;
}

static tt_status fill(tt_matrix *m, const float *bias, tt_err *e)
{
    tt_status st = TT_OK;
    bool scaled = false;
    for (int p = 0; p < m->parts; p++)
        scaled |= m->part[p].data.dtype == TT_I8 && m->compute == TT_COMPUTE_BF16;
    if (bias && (st = take((void **)&m->bias, (size_t)m->n, sizeof(float), m, e)))
        return st;
    if (bias)
        memcpy(m->bias, bias, (size_t)m->n * sizeof(float));
    if (!(m->flags & TT_MATRIX_LINEAR))
        return TT_OK;
    if (scaled && (st = take((void **)&m->scale, (size_t)m->n, sizeof(float), m, e)))
        return st;
    if (m->k > INT64_MAX / m->n)
        return tt_fail(e, TT_ENOMEM, "matrix_open: %lld x %lld", (long long)m->n, (long long)m->k);
    if ((st = take((void **)&m->value, (size_t)(m->n * m->k), sizeof(float), m, e)))
        return st;
    int64_t row = 0;
    for (int p = 0; p < m->parts; p++)
        for (int64_t i = 0; i < m->part[p].data.dim[0]; i++, row++) {
            float scale;
            st = read_row(m->value + row * m->k, &scale, &m->part[p], i, m->compute, e);
            if (st)
                return st;
            if (m->scale)
                m->scale[row] = scale;
        }
    return TT_OK;
}

tt_status tt_cpu_matrix_open(tt_stream *s, tt_matrix **out, const tt_weight *part, int parts,
                             const float *bias, tt_compute compute, unsigned flags, tt_err *e)
{
    *out = NULL;
    if (parts < 1)
        return tt_fail(e, TT_EINVAL, "matrix_open: %d parts", parts);
    tt_matrix *m = calloc(1, sizeof *m);
    if (m)
        m->part = calloc((size_t)parts, sizeof *m->part);
    if (!m || !m->part) {
        free(m);
        return tt_fail(e, TT_ENOMEM, "matrix_open: no memory for %d parts", parts);
    }
    memcpy(m->part, part, (size_t)parts * sizeof *part);
    m->parts = parts;
    m->k = part[0].data.dim[1];
    m->compute = compute;
    m->flags = flags;
    tt_status st = TT_OK;
    for (int p = 0; p < parts && !st; p++) {
        st = check_part(&part[p], m->k, e);
        m->n += part[p].data.dim[0];
    }
    if (!st)
        st = fill(m, bias, e);
    if (st) {
        tt_cpu_matrix_close(s, m);
        return st;
    }
    *out = m;
    return TT_OK;
}

void tt_cpu_matrix_close(tt_stream *s, tt_matrix *m)
{
    if (!m)
        return;
    tt_cpu_release(s, m->value);
    tt_cpu_release(s, m->bias);
    tt_cpu_release(s, m->scale);
    free(m->part);
    free(m);
}

void tt_cpu_matrix_size(const tt_matrix *m, int64_t *n, int64_t *k, size_t *bytes)
{
    if (n)
        *n = m->n;
    if (k)
        *k = m->k;
    if (bytes)
        *bytes = m->bytes;
}

typedef struct {
    float *y;
    const float *x;
    int64_t ldy, ldx;
    const tt_matrix *w;
    bool add;
} linear_job;

static void linear_row(void *arg, int64_t r, int thread)
{
    (void)thread;
    const linear_job *job = arg;
    const tt_matrix *w = job->w;
    const float *x = job->x + r * job->ldx;
    float *y = job->y + r * job->ldy;
    bool bf16 = w->compute == TT_COMPUTE_BF16;
    for (int64_t j = 0; j < w->n; j++) {
        const float *row = w->value + j * w->k;
        double sum = 0;
        for (int64_t i = 0; i < w->k; i++) {
            float v = bf16 ? tt_bf16_to_f32(tt_f32_to_bf16(x[i])) : x[i];
            sum += (double)v * row[i];
        }
        if (w->scale)
            sum *= w->scale[j];
        if (w->bias)
            sum += w->bias[j];
        if (job->add)
            sum += y[j];
        y[j] = (float)sum;
    }
}

tt_status tt_cpu_linear(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                        int64_t rows, const tt_matrix *w, bool add, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, w->k, ldx))
        return tt_cpu_shape_error("linear", rows, w->k, ldx, e);
    if (ldy < w->n)
        return tt_cpu_shape_error("linear", rows, w->n, ldy, e);
    if (!w->value)
        return tt_fail(e, TT_EINVAL, "linear: the matrix was opened as a table only");
    linear_job job = {y, x, ldy, ldx, w, add};
    tt_pool_run(s->pool, rows, linear_row, &job);
    return TT_OK;
}
