/* head_between.c - what is kept of a hidden row between passes: how far its distribution moved
 * (head_kl), the embedding it expects (head_mean). Both need whole softmaxes, so both make a tile
 * of logits as head.c does and reduce it from the cache. Everything is plain: few rows ask. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* Words of a tile in all, its rows at most, and table rows widened at a time. */
enum { BUDGET = 12 << 20, TILE = 96, IDS = 64 };

/* p[i] = softmax(row)[i] in place, constrained; false if nothing is possible. */
static bool softmax_in_place(float *row, int64_t n, const tt_draw *d)
{
    tt_cpu_constrain(row, n, d);
    tt_row_peak peak = tt_cpu_rows_plain.peak(row, n);
    if (peak.at < 0)
        return false;
    double sum = 0, moment;
    tt_cpu_rows_plain.mass(&sum, &moment, row, n, peak.max);
    for (int64_t i = 0; i < n; i++)
        row[i] = row[i] == -INFINITY ? 0.0f : (float)(exp((double)row[i] - peak.max) / sum);
    return true;
}

static tt_status check(const char *name, tt_stream *s, int64_t ldx, int64_t rows,
                       const tt_matrix *w, const tt_draw *draw, int64_t *n, tt_err *e)
{
    int64_t k;
    s->op.matrix_size(w, n, &k, NULL);
    if (tt_cpu_bad_shape(rows, k, ldx))
        return tt_cpu_shape_error(name, rows, k, ldx, e);
    for (int64_t r = 0; r < rows; r++) {
        tt_status st = tt_cpu_check_draw(name, &draw[r], r, *n, e);
        if (st)
            return st;
    }
    return TT_OK;
}

/* Rows of a tile whose rows take `words` each, plus `fixed` words. */
static int64_t tile_rows(int64_t rows, int64_t words, int64_t fixed)
{
    int64_t fit = (BUDGET - fixed) / words;
    fit = fit < 1 ? 1 : fit > TILE ? TILE : fit;
    return fit < rows ? fit : rows;
}

/* --- head_kl --- */

typedef struct {
    float *kl, *now, *before;
    const tt_draw *draw;
    int64_t n;
} kl_job;

static void kl_row(void *arg, int64_t r, int thread)
{
    (void)thread;
    const kl_job *job = arg;
    float *p = job->now + r * job->n, *q = job->before + r * job->n;
    double sum = 0;
    bool possible = softmax_in_place(p, job->n, &job->draw[r]) &&
                    softmax_in_place(q, job->n, &job->draw[r]);
    for (int64_t i = 0; i < job->n && possible; i++)
        if (p[i] > 0)
            sum += p[i] * (log(p[i] + 1e-12) - log(q[i] + 1e-12));
    job->kl[r] = (float)sum;
}

tt_status tt_cpu_head_kl(tt_stream *s, float *kl, const tt_act *x, int64_t ldx,
                         const tt_act *before, int64_t ldb, int64_t rows, const tt_matrix *w,
                         const tt_draw *draw, tt_err *e)
{
    int64_t n;
    tt_status st = check("head_kl", s, ldx < ldb ? ldx : ldb, rows, w, draw, &n, e);
    if (st || !rows)
        return st;
    int64_t tile = tile_rows(rows, 2 * n, 0);
    void *scratch;
    st = tt_cpu_scratch(&s->tile, &scratch, (size_t)(2 * tile * n) * sizeof(float), e);
    kl_job job = {.n = n, .now = scratch};
    for (int64_t r = 0; r < rows && !st; r += tile) {
        int64_t m = rows - r < tile ? rows - r : tile;
        job.before = job.now + m * n;
        job.kl = kl + r;
        job.draw = draw + r;
        st = s->op.linear(s, job.now, n, (const float *)x + r * ldx, ldx, m, w, false, e);
        if (!st)
            st = s->op.linear(s, job.before, n, (const float *)before + r * ldb, ldb, m, w, false,
                              e);
        if (!st)
            tt_pool_run(s->pool, m, kl_row, &job);
    }
    return st ? tt_context(e, st, "head_kl") : TT_OK;
}

/* --- head_mean --- */

typedef struct {
    float *y, *logits, *table; /* table: IDS rows, widened */
    double *sum;               /* rows x dim */
    const tt_draw *draw;
    int64_t ldy, n, dim, first, ids;
} mean_job;

static void mean_begin(void *arg, int64_t r, int thread)
{
    (void)thread;
    const mean_job *job = arg;
    float *p = job->logits + r * job->n;
    memset(job->sum + r * job->dim, 0, (size_t)job->dim * sizeof *job->sum);
    if (!softmax_in_place(p, job->n, &job->draw[r]))
        memset(p, 0, (size_t)job->n * sizeof *p);
}

static void mean_add(void *arg, int64_t r, int thread)
{
    (void)thread;
    const mean_job *job = arg;
    const float *p = job->logits + r * job->n + job->first;
    double *sum = job->sum + r * job->dim;
    for (int64_t j = 0; j < job->ids; j++) {
        const float *row = job->table + j * job->dim;
        if (p[j] != 0)
            for (int64_t i = 0; i < job->dim; i++)
                sum[i] += (double)p[j] * row[i];
    }
}

static void mean_end(void *arg, int64_t r, int thread)
{
    (void)thread;
    const mean_job *job = arg;
    for (int64_t i = 0; i < job->dim; i++)
        job->y[r * job->ldy + i] = (float)job->sum[r * job->dim + i];
}

/* One tile whose logits are there: the table is widened once for all its rows. */
static tt_status mean_tile(tt_stream *s, mean_job *job, int64_t rows, const tt_matrix *table,
                           tt_err *e)
{
    tt_pool_run(s->pool, rows, mean_begin, job);
    for (job->first = 0; job->first < job->n; job->first += IDS) {
        int32_t id[IDS];
        job->ids = job->n - job->first < IDS ? job->n - job->first : IDS;
        for (int64_t j = 0; j < job->ids; j++)
            id[j] = (int32_t)(job->first + j);
        tt_status st = s->op.embed(s, job->table, job->dim, table, id, job->ids, e);
        if (st)
            return st;
        tt_pool_run(s->pool, rows, mean_add, job);
    }
    tt_pool_run(s->pool, rows, mean_end, job);
    return TT_OK;
}

tt_status tt_cpu_head_mean(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                           int64_t rows, const tt_matrix *w, const tt_matrix *table,
                           const tt_draw *draw, tt_err *e)
{
    int64_t n, ids, dim;
    tt_status st = check("head_mean", s, ldx, rows, w, draw, &n, e);
    if (st)
        return st;
    s->op.matrix_size(table, &ids, &dim, NULL);
    if (ids != n || ldy < dim)
        return tt_fail(e, TT_EINVAL, "head_mean: %lld logits over a table of %lld rows of %lld, "
                       "stride %lld", (long long)n, (long long)ids, (long long)dim,
                       (long long)ldy);
    if (!rows)
        return TT_OK;
    int64_t tile = tile_rows(rows, n + 2 * dim, IDS * dim);
    void *scratch;
    st = tt_cpu_scratch(&s->tile, &scratch,
                        (size_t)(tile * (n + 2 * dim) + IDS * dim) * sizeof(float), e);
    mean_job job = {.n = n, .dim = dim, .ldy = ldy, .sum = scratch};
    job.table = (float *)(job.sum + tile * dim);
    job.logits = job.table + IDS * dim;
    for (int64_t r = 0; r < rows && !st; r += tile) {
        int64_t m = rows - r < tile ? rows - r : tile;
        job.y = (float *)y + r * ldy;
        job.draw = draw + r;
        st = s->op.linear(s, job.logits, n, (const float *)x + r * ldx, ldx, m, w, false, e);
        if (!st)
            st = mean_tile(s, &job, m, table, e);
    }
    return st ? tt_context(e, st, "head_mean") : TT_OK;
}
