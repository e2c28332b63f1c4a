/* attention.c - softmax(q k^T * scale) v, plain: all scores of a row, then its softmax, then the
 * weighted sum. In bfloat16 the softmax weights exp(s - max) are rounded before they multiply v;
 * the sum they are divided by is not. A score that is not finite makes the row NaN, as the
 * formula says. */
#include <math.h>

#include "kernels/cpu/cpu.h"

typedef struct {
    float *out;
    const float *q;
    int64_t ldo, ldq;
    const tt_span *span;
    int64_t heads, group, dim; /* group: query heads per key/value head */
    float scale;
    tt_compute compute;
    double *scratch; /* per_thread each */
    int64_t per_thread;
} attention_job;

static double operand(float f, tt_compute compute)
{
    return compute == TT_COMPUTE_BF16 ? tt_bf16_to_f32(tt_f32_to_bf16(f)) : f;
}

void tt_cpu_attend_row(float *out, const float *q, const tt_span *p, int64_t row, int64_t kv_head,
                       int64_t head_dim, float scale, tt_compute compute, double *scratch)
{
    const float *k = (const float *)p->k + kv_head * head_dim;
    const float *v = (const float *)p->v + kv_head * head_dim;
    int64_t keys = tt_cpu_visible(p, row), hole = tt_cpu_hole(p, row);
    double *sum = scratch, *score = scratch + head_dim, max = -INFINITY, total = 0;
    for (int64_t j = 0; j < keys; j++) {
        if (j == hole)
            continue;
        score[j] = 0;
        for (int64_t c = 0; c < head_dim; c++)
            score[j] += operand(q[c], compute) * operand(k[j * p->ld_kv + c], compute);
        score[j] *= scale;
        max = score[j] > max ? score[j] : max;
    }
    for (int64_t c = 0; c < head_dim; c++)
        sum[c] = 0;
    for (int64_t j = 0; j < keys; j++) {
        if (j == hole)
            continue;
        double weight = exp(score[j] - max);
        total += weight;
        weight = compute == TT_COMPUTE_BF16 ? operand((float)weight, compute) : weight;
        for (int64_t c = 0; c < head_dim; c++)
            sum[c] += weight * operand(v[j * p->ld_kv + c], compute);
    }
    for (int64_t c = 0; c < head_dim; c++)
        out[c] = keys > (hole >= 0) ? (float)(sum[c] / total) : 0.0f;
}

static void attend(void *arg, int64_t i, int thread)
{
    const attention_job *job = arg;
    const tt_span *p = job->span;
    int64_t row = i / job->heads, head = i % job->heads, dim = job->dim;
    tt_cpu_attend_row(job->out + (p->query_row + row) * job->ldo + head * dim,
                      job->q + (p->query_row + row) * job->ldq + head * dim, p, row,
                      head / job->group, dim, job->scale, job->compute,
                      job->scratch + thread * job->per_thread);
}

tt_status tt_cpu_attention_check(int64_t ldo, int64_t ldq, const tt_span *span, int64_t spans,
                                 int64_t heads, int64_t kv_heads, int64_t head_dim, tt_err *e)
{
    if (spans < 0 || heads < 1 || kv_heads < 1 || heads % kv_heads || head_dim < 1)
        return tt_fail(e, TT_EINVAL, "attention: %lld spans, %lld heads over %lld of %lld",
                       (long long)spans, (long long)heads, (long long)kv_heads,
                       (long long)head_dim);
    if (ldo < heads * head_dim || ldq < heads * head_dim)
        return tt_cpu_shape_error("attention", 0, heads * head_dim, ldo < ldq ? ldo : ldq, e);
    for (int64_t i = 0; i < spans; i++) {
        const tt_span *p = &span[i];
        if (p->query_rows < 0 || p->query_row < 0 || p->keys < 0 ||
            (p->keys && p->ld_kv < kv_heads * head_dim) ||
            (p->see == TT_SEE_BLOCK && (p->block < 1 || p->query_column < 0)) || p->hole < 0 ||
            (p->hole && p->see != TT_SEE_ALL))
            return tt_fail(
                e, TT_EINVAL, "attention: span %lld has %lld query rows, %lld keys, stride %lld",
                (long long)i, (long long)p->query_rows, (long long)p->keys, (long long)p->ld_kv);
    }
    return TT_OK;
}

tt_status tt_cpu_attention(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q, int64_t ldq,
                           const tt_span *span, int64_t spans, int64_t heads, int64_t kv_heads,
                           int64_t head_dim, float scale, tt_compute compute, tt_err *e)
{
    tt_status st = tt_cpu_attention_check(ldo, ldq, span, spans, heads, kv_heads, head_dim, e);
    if (st)
        return st;
    attention_job job = {out,      q,     ldo,     ldq,  NULL,    heads, heads / kv_heads,
                         head_dim, scale, compute, NULL, head_dim};
    for (int64_t i = 0; i < spans; i++)
        if (job.per_thread < head_dim + span[i].keys)
            job.per_thread = head_dim + span[i].keys;
    void *scratch;
    st = tt_cpu_scratch(&s->scratch, &scratch,
                        (size_t)(job.per_thread * tt_pool_threads(s->pool)) * sizeof(double), e);
    if (st)
        return tt_context(e, st, "attention");
    job.scratch = scratch;
    for (int64_t i = 0; i < spans; i++) {
        job.span = &span[i];
        tt_pool_run(s->pool, span[i].query_rows * heads, attend, &job);
    }
    return TT_OK;
}
