/* moe.c - mixtures of experts: who computes which row, one product per expert, the weighted sum. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

typedef struct {
    float *weight;
    int32_t *choice; /* rows x top_k experts */
    const float *logits;
    const tt_router *how;
} route_job;

/* Scores of all experts from their logits. */
static void score(float *out, const float *l, const tt_router *how)
{
    double sum = 0, max = -INFINITY;
    for (int32_t i = 0; i < how->experts; i++)
        max = l[i] > max ? l[i] : max;
    for (int32_t i = 0; i < how->experts && !how->sigmoid; i++)
        sum += exp(l[i] - max);
    for (int32_t i = 0; i < how->experts; i++)
        out[i] = (float)(how->sigmoid ? 1.0 / (1.0 + exp(-(double)l[i])) : exp(l[i] - max) / sum);
}

/* The greatest of n that is not yet taken; the first of them when all are -inf. */
static int32_t best(const float *rank, const bool *taken, int32_t n)
{
    int32_t at = -1;
    for (int32_t i = 0; i < n; i++)
        if (!taken[i] && (at < 0 || rank[i] > rank[at]))
            at = i;
    return at;
}

/* Takes all experts of the groups that are not among the best. */
static void close_groups(bool *taken, const float *rank, const tt_router *how)
{
    float value[TT_MAX_EXPERTS];
    bool chosen[TT_MAX_EXPERTS] = {false};
    int32_t size = how->experts / how->groups;
    for (int32_t g = 0; g < how->groups; g++) {
        float first = -INFINITY, second = -INFINITY;
        for (int32_t i = g * size; i < (g + 1) * size; i++)
            if (rank[i] > first) {
                second = first;
                first = rank[i];
            } else if (rank[i] > second) {
                second = rank[i];
            }
        value[g] = size > 1 ? first + second : first;
    }
    for (int32_t i = 0; i < how->top_groups; i++)
        chosen[best(value, chosen, how->groups)] = true;
    for (int32_t i = 0; i < how->experts; i++)
        taken[i] = !chosen[i / size];
}

static void choose_row(void *arg, int64_t r, int thread)
{
    (void)thread;
    const route_job *job = arg;
    const tt_router *how = job->how;
    float scores[TT_MAX_EXPERTS], rank[TT_MAX_EXPERTS], *weight = job->weight + r * how->top_k;
    int32_t *choice = job->choice + r * how->top_k;
    bool taken[TT_MAX_EXPERTS] = {false};
    score(scores, job->logits + r * how->experts, how);
    for (int32_t i = 0; i < how->experts; i++) {
        rank[i] = scores[i] + (how->bias ? how->bias[i] : 0);
        rank[i] = isnan(rank[i]) ? -INFINITY : rank[i];
    }
    if (how->groups > 1)
        close_groups(taken, rank, how);
    double sum = 1e-20;
    for (int32_t j = 0; j < how->top_k; j++) {
        choice[j] = best(rank, taken, how->experts);
        taken[choice[j]] = true;
        weight[j] = scores[choice[j]];
        sum += weight[j];
    }
    for (int32_t j = 0; j < how->top_k; j++)
        weight[j] = (float)((how->normalise ? weight[j] / sum : weight[j]) * how->scale);
}

/* Counting sort of the pairs by expert; a row has an expert at most once, so rows stay in order. */
static void sort(int32_t *place, int32_t *row, int32_t *begin, const int32_t *choice, int64_t rows,
                 const tt_router *how)
{
    int32_t next[TT_MAX_EXPERTS];
    int64_t pairs = rows * how->top_k;
    memset(begin, 0, (size_t)(how->experts + 1) * sizeof *begin);
    for (int64_t i = 0; i < pairs; i++)
        begin[choice[i] + 1]++;
    for (int32_t g = 0; g < how->experts; g++) {
        next[g] = begin[g];
        begin[g + 1] += begin[g];
    }
    for (int64_t i = 0; i < pairs; i++) {
        place[i] = next[choice[i]]++;
        row[place[i]] = (int32_t)(i / how->top_k);
    }
}

static tt_status check_router(const tt_router *h, int64_t outputs, tt_err *e)
{
    bool good = h->experts >= 1 && h->experts <= TT_MAX_EXPERTS && h->experts == outputs &&
                h->top_k >= 1 && h->top_k <= TT_MAX_ROUTES && h->groups >= 1 &&
                h->groups <= h->experts && h->experts % h->groups == 0 && h->top_groups >= 1 &&
                h->top_groups <= h->groups && h->top_k <= h->experts / h->groups * h->top_groups;
    return good ? TT_OK
                : tt_fail(e, TT_EINVAL, "route: %d of %d experts (%lld outputs), %d of %d groups",
                          h->top_k, h->experts, (long long)outputs, h->top_groups, h->groups);
}

tt_status tt_cpu_route(tt_stream *s, float *weight, int32_t *place, int32_t *row, int32_t *begin,
                       const tt_act *x, int64_t ldx, int64_t rows, const tt_matrix *gate,
                       const tt_router *how, tt_err *e)
{
    int64_t n, k;
    s->op.matrix_size(gate, &n, &k, NULL);
    if (tt_cpu_bad_shape(rows, k, ldx) || rows > INT32_MAX / TT_MAX_ROUTES)
        return tt_cpu_shape_error("route", rows, k, ldx, e);
    tt_status st = check_router(how, n, e);
    if (st)
        return st;
    void *scratch;
    st = tt_cpu_scratch(&s->tile, &scratch, (size_t)(rows * (n + how->top_k) + 1) * sizeof(float),
                        e);
    if (st)
        return tt_context(e, st, "route");
    float *logits = scratch;
    route_job job = {weight, (int32_t *)(void *)(logits + rows * n), logits, how};
    st = s->op.linear(s, logits, n, x, ldx, rows, gate, false, e);
    if (st)
        return tt_context(e, st, "route");
    tt_pool_run(s->pool, rows, choose_row, &job);
    sort(place, row, begin, job.choice, rows, how);
    return TT_OK;
}

tt_status tt_cpu_linear_grouped(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                int64_t rows, const tt_matrix *const *w, int64_t groups,
                                const int32_t *begin, tt_err *e)
{
    if (groups < 1 || groups > TT_MAX_EXPERTS || rows < 0 || begin[0] != 0 || begin[groups] != rows)
        return tt_fail(e, TT_EINVAL, "linear_grouped: %lld rows in %lld groups", (long long)rows,
                       (long long)groups);
    for (int64_t g = 0; g < groups; g++) {
        if (begin[g + 1] < begin[g])
            return tt_fail(e, TT_EINVAL, "linear_grouped: group %lld ends before it begins",
                           (long long)g);
        if (begin[g + 1] == begin[g])
            continue;
        tt_status st =
            s->op.linear(s, (float *)y + begin[g] * ldy, ldy, (const float *)x + begin[g] * ldx,
                         ldx, begin[g + 1] - begin[g], w[g], false, e);
        if (st)
            return tt_context(e, st, "linear_grouped");
    }
    return TT_OK;
}

typedef struct {
    float *y;
    const float *x, *weight;
    const int32_t *place;
    int64_t ldy, ldx, top_k, dim;
} combine_job;

static void combine_rows(void *arg, int64_t first, int64_t count)
{
    const combine_job *job = arg;
    for (int64_t r = first; r < first + count; r++) {
        const float *weight = job->weight + r * job->top_k;
        const int32_t *place = job->place + r * job->top_k;
        float *y = job->y + r * job->ldy;
        for (int64_t i = 0; i < job->dim; i++) {
            double sum = 0;
            for (int64_t j = 0; j < job->top_k; j++)
                sum += (double)weight[j] * job->x[place[j] * job->ldx + i];
            y[i] = (float)(y[i] + sum);
        }
    }
}

tt_status tt_cpu_combine(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                         const float *weight, const int32_t *place, int64_t rows, int64_t top_k,
                         int64_t dim, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, dim, ldx) || ldy < dim)
        return tt_cpu_shape_error("combine", rows, dim, ldx < ldy ? ldx : ldy, e);
    if (top_k < 1 || top_k > TT_MAX_ROUTES)
        return tt_fail(e, TT_EINVAL, "combine: %lld experts a row", (long long)top_k);
    combine_job job = {y, x, weight, place, ldy, ldx, top_k, dim};
    tt_cpu_over_rows(s, rows, top_k * dim, combine_rows, &job);
    return TT_OK;
}
