/* attention_biased.c - softmax(q k^T * scale + bias) v, a row and head at a time. */
#include <math.h>

#include "kernels/cpu/cpu.h"

typedef struct {
    float *out;
    const float *q;
    int64_t ldo, ldq;
    const tt_biased_span *span;
    int64_t heads, dim;
    float scale;
    tt_compute compute;
    double *scratch; /* per_thread each: keys, then head_dim */
    int64_t per_thread;
} biased_job;

static double operand(float f, tt_compute compute)
{
    return compute == TT_COMPUTE_BF16 ? tt_bf16_to_f32(tt_f32_to_bf16(f)) : f;
}

static double bias_at(const tt_biased_span *p, int64_t head, int64_t row, int64_t key)
{
    if (p->by_order)
        return key >= p->from && key > row ? p->later : 0;
    return p->bias[head * p->bias_head + row * p->bias_query + key * p->bias_key];
}

void tt_cpu_attend_biased_row(float *out, const float *q, const tt_biased_span *p, int64_t row,
                              int64_t head, int64_t dim, float scale, tt_compute compute,
                              double *score)
{
    const float *k = (const float *)p->k + head * dim, *v = (const float *)p->v + head * dim;
    double *sum = score + p->keys;
    double max = -INFINITY, total = 0;
    for (int64_t j = 0; j < p->keys; j++) {
        score[j] = 0;
        for (int64_t c = 0; c < dim; c++)
            score[j] += operand(q[c], compute) * operand(k[j * p->ld_kv + c], compute);
        score[j] = score[j] * scale + bias_at(p, head, row, j);
        max = score[j] > max ? score[j] : max;
    }
    for (int64_t c = 0; c < dim; c++)
        sum[c] = 0;
    for (int64_t j = 0; j < p->keys && max > -INFINITY; j++) {
        double weight = exp(score[j] - max);
        total += weight;
        if (compute == TT_COMPUTE_BF16)
            weight = operand((float)weight, compute);
        for (int64_t c = 0; c < dim && weight > 0; c++)
            sum[c] += weight * operand(v[j * p->ld_kv + c], compute);
    }
    for (int64_t c = 0; c < dim; c++)
        out[c] = total > 0 ? (float)(sum[c] / total) : 0;
}

static void attend(void *arg, int64_t i, int thread)
{
    const biased_job *job = arg;
    int64_t row = i / job->heads, head = i % job->heads, at = job->span->query_row + row;
    tt_cpu_attend_biased_row(job->out + at * job->ldo + head * job->dim,
                             job->q + at * job->ldq + head * job->dim, job->span, row, head,
                             job->dim, job->scale, job->compute,
                             job->scratch + thread * job->per_thread);
}

tt_status tt_cpu_attention_biased_check(int64_t ldo, int64_t ldq, const tt_biased_span *span,
                                        int64_t spans, int64_t heads, int64_t head_dim, tt_err *e)
{
    if (spans < 0 || heads < 1 || head_dim < 1 || ldo < heads * head_dim || ldq < heads * head_dim)
        return tt_fail(e, TT_EINVAL, "attention_biased: %lld spans, %lld heads of %lld",
                       (long long)spans, (long long)heads, (long long)head_dim);
    for (int64_t i = 0; i < spans; i++) {
        if (span[i].query_row < 0 || span[i].query_rows < 0 || span[i].keys < 0 ||
            (span[i].keys && span[i].ld_kv < heads * head_dim))
            return tt_fail(e, TT_EINVAL, "attention_biased: span %lld has %lld queries, %lld keys",
                           (long long)i, (long long)span[i].query_rows, (long long)span[i].keys);
        if (span[i].by_order != span[0].by_order || tt_biased_span_odd(&span[i]))
            return tt_fail(e, TT_EINVAL, "attention_biased: the bias of span %lld", (long long)i);
    }
    return TT_OK;
}

tt_status tt_cpu_attention_biased(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                  int64_t ldq, const tt_biased_span *span, int64_t spans,
                                  int64_t heads, int64_t head_dim, float scale, tt_compute compute,
                                  tt_err *e)
{
    tt_status st = tt_cpu_attention_biased_check(ldo, ldq, span, spans, heads, head_dim, e);
    if (st)
        return st;
    int64_t most = 0;
    for (int64_t i = 0; i < spans; i++)
        most = span[i].keys > most ? span[i].keys : most;
    int64_t per_thread = most + head_dim;
    void *scratch;
    st = tt_cpu_scratch(&s->scratch, &scratch, (size_t)tt_pool_threads(s->pool) *
                                  (size_t)per_thread * sizeof(double), e);
    for (int64_t i = 0; i < spans && !st; i++) {
        biased_job job = {out, q, ldo, ldq, &span[i], heads, head_dim, scale, compute, scratch,
                          per_thread};
        tt_pool_run(s->pool, span[i].query_rows * heads, attend, &job);
    }
    return st;
}
