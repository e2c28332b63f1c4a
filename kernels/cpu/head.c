/* head.c - hidden rows to the few numbers a sampler needs, a tile of logits at a time.
 *
 * A tile is as many rows as fit a fixed budget, over the whole vocabulary; the stream's own
 * `linear` fills it, then every row is reduced in place by one thread. What a row does not ask
 * for is not computed. The three passes over a row that take the time come from a tt_cpu_rows, so
 * that faster versions share everything else; the plain ones at the end of the passes are the
 * definition.
 *
 * Order of the filters: temperature, top_k, top_p over what top_k kept (renormalised), min_p. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

/* Words of scratch in all, and rows of a tile: enough that the weights, read once per tile, cost
 * little; no more, so that the logits are reduced from the cache they were written to. */
enum { BUDGET = 15 << 20, TILE = 96 };

/* --- the plain passes --- */

static tt_row_peak peak(float *row, int64_t n)
{
    tt_row_peak p = {-INFINITY, -INFINITY, -1};
    for (int64_t i = 0; i < n; i++) {
        if (isnan(row[i]))
            row[i] = -INFINITY;
        if (row[i] > 0x1.fffffep127f)
            row[i] = 0x1.fffffep127f;
        if (row[i] > p.max) {
            p.second = p.max;
            p.max = row[i];
            p.at = (int32_t)i;
        } else if (row[i] > p.second) {
            p.second = row[i];
        }
    }
    return p;
}

static void mass(double *sum, double *moment, const float *row, int64_t n, float max)
{
    *sum = *moment = 0;
    for (int64_t i = 0; i < n; i++) {
        if (row[i] == -INFINITY)
            continue;
        double d = (double)row[i] - max, p = exp(d);
        *sum += p;
        *moment += p * d;
    }
}

static int32_t gumbel(const float *row, int64_t n, float temperature, tt_rng_address a,
                      int32_t argmax)
{
    (void)argmax;
    int32_t best = -1;
    float most = -INFINITY;
    for (int64_t i = 0; i < n; i += 4) {
        tt_rng_block b = tt_rng_at(a, (uint32_t)(i / 4));
        for (int64_t j = i; j < i + 4 && j < n; j++) {
            float score = fmaf(temperature, tt_gumbel(b.v[j - i]), row[j]);
            if (score > most) {
                most = score;
                best = (int32_t)j;
            }
        }
    }
    return best;
}

static int descending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Of the ids kept, only the value of the last is needed, and how many equal ones stay. */
static void filter(float *row, int64_t n, const tt_draw *d, float max, float *spare)
{
    double temperature = d->temperature > 0 ? d->temperature : 1.0;
    int64_t kept = 0, ties = n;
    for (int64_t i = 0; i < n; i++)
        if (row[i] > -INFINITY)
            spare[kept++] = row[i];
    qsort(spare, (size_t)kept, sizeof *spare, descending);
    if (d->top_k > 0)
        while (kept > d->top_k && spare[kept - 1] < spare[d->top_k - 1])
            kept--;
    if (d->top_p < 1) {
        double total = 0, before = 0;
        for (int64_t i = 0; i < kept; i++)
            total += exp(((double)spare[i] - max) / temperature);
        int64_t keep = 0;
        while (keep < kept && (keep == 0 || before <= d->top_p * total))
            before += exp(((double)spare[keep++] - max) / temperature);
        if (d->top_p_within && keep > 1 && before > d->top_p * total)
            keep--;
        kept = keep;
        for (ties = 0; ties < kept && spare[kept - 1 - ties] == spare[kept - 1];)
            ties++;
    }
    float least = spare[kept - 1];
    double depth = d->min_p > 0 ? log(d->min_p) * temperature : -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        bool keep = row[i] > least || (row[i] == least && ties-- > 0);
        if (!keep || (double)row[i] - max < depth)
            row[i] = -INFINITY;
    }
}

const tt_cpu_rows tt_cpu_rows_plain = {peak, mass, gumbel, filter};

/* --- the draw --- */

/* The float64 uniform number at place k = 1, 2, ... of the splitmix64 stream of seed. */
static double splitmix(uint64_t seed, uint64_t k)
{
    uint64_t z = seed + k * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

/* argmax of exp(l) / (-ln u)^T by its logarithm, which cannot overflow. u = 0 is noise of
 * -ln(+inf): such an id loses to every other. */
static int32_t draw_splitmix(const float *row, int64_t n, const tt_draw *d)
{
    int32_t best = -1;
    double most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (row[i] == -INFINITY)
            continue;
        double u = splitmix(d->seed, d->base + (uint64_t)i + 1);
        double score = row[i] - (double)d->temperature * log(-log(u));
        if (score > most || best < 0) {
            most = score;
            best = (int32_t)i;
        }
    }
    return best;
}

static int32_t draw_cumulative(const float *row, int64_t n, const tt_draw *d, float max)
{
    double u = splitmix(d->seed, d->base + 1), total = 0, sum = 0;
    int32_t last = -1;
    for (int64_t i = 0; i < n; i++)
        total += exp(((double)row[i] - max) / d->temperature);
    for (int64_t i = 0; i < n; i++) {
        double p = exp(((double)row[i] - max) / d->temperature);
        sum += p;
        if (p > 0)
            last = (int32_t)i;
        if (sum > u * total)
            return (int32_t)i;
    }
    return last; /* only if u * total rounds up to total */
}

static int32_t draw_given(const float *row, int64_t n, const tt_draw *d)
{
    int32_t best = -1;
    float most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        float score = fmaf(d->temperature, d->gumbel[i], row[i]);
        if (score > most) {
            most = score;
            best = (int32_t)i;
        }
    }
    return best;
}

static bool is_filtered(const tt_draw *d)
{
    return d->top_k > 0 || d->top_p < 1 || d->min_p > 0;
}

/* --- one row --- */

typedef struct {
    const tt_cpu_rows *rows_of;
    tt_row_stats *stats;
    tt_id_value *top;
    int32_t n_top;
    float *logits;
    const tt_draw *draw;
    float *tile;
    int64_t n;
    float *spare; /* spare_size per thread */
    int64_t spare_size;
} head_job;

void tt_cpu_constrain(float *row, int64_t n, const tt_draw *d)
{
    for (int32_t i = 0; i < d->n_bias; i++) {
        float *l = &row[d->bias[i].id];
        bool banned = *l == -INFINITY || d->bias[i].value == -INFINITY;
        *l = banned ? -INFINITY : *l + d->bias[i].value;
    }
    for (int64_t i = d->limit > 0 ? d->limit : n; i < n; i++)
        row[i] = -INFINITY;
    int64_t at = 0;
    for (int32_t i = 0; d->allow && i <= d->n_allow; i++) {
        int64_t next = i < d->n_allow ? d->allow[i] : n;
        for (; at < next; at++)
            row[at] = -INFINITY;
        at++;
    }
}

/* The n_top best by insertion; a later equal never passes an earlier one. */
static void best(tt_id_value *top, int32_t n_top, const float *row, int64_t n, double max,
                 double log_sum)
{
    int32_t have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (row[i] == -INFINITY || (have == n_top && row[i] <= top[have - 1].value))
            continue;
        int32_t at = have < n_top ? have++ : have - 1;
        for (; at > 0 && top[at - 1].value < row[i]; at--)
            top[at] = top[at - 1];
        top[at] = (tt_id_value){(int32_t)i, row[i]};
    }
    for (int32_t i = 0; i < have; i++)
        top[i].value = (float)(top[i].value - max - log_sum);
    for (int32_t i = have; i < n_top; i++)
        top[i] = (tt_id_value){-1, 0};
}

/* A softmax: its peak, sum exp(l - max) and sum exp(l - max) (l - max). */
typedef struct {
    tt_row_peak peak;
    double sum, moment;
} softmax;

static softmax softmax_of(const tt_cpu_rows *k, float *row, int64_t n)
{
    softmax p = {.peak = k->peak(row, n)};
    if (p.peak.at >= 0)
        k->mass(&p.sum, &p.moment, row, n, p.peak.max);
    return p;
}

static softmax softmax_without(const tt_cpu_rows *k, float *row, int64_t n, const int32_t *id,
                               int32_t n_id, float *spare)
{
    for (int32_t i = 0; i < n_id; i++) {
        spare[i] = row[id[i]];
        row[id[i]] = -INFINITY;
    }
    softmax p = softmax_of(k, row, n);
    for (int32_t i = 0; i < n_id; i++)
        row[id[i]] = spare[i];
    return p;
}

static float prob_of(const softmax *p, const tt_draw *d, int32_t id, float logit)
{
    for (int32_t i = 0; i < d->n_unsure; i++)
        if (d->unsure[i] == id)
            return 0;
    return (float)(exp((double)logit - p->peak.max) / p->sum);
}

static void reduce(void *arg, int64_t r, int thread)
{
    const head_job *job = arg;
    const tt_cpu_rows *k = job->rows_of;
    const tt_draw *d = &job->draw[r];
    int64_t n = job->n;
    float *row = job->tile + r * n, *spare = job->spare + thread * job->spare_size;
    tt_row_stats *st = &job->stats[r];
    tt_id_value *top = job->top ? job->top + r * job->n_top : NULL;

    tt_cpu_constrain(row, n, d);
    softmax all = softmax_of(k, row, n);
    *st = (tt_row_stats){.argmax = all.peak.at, .drawn = all.peak.at};
    if (job->logits)
        memcpy(job->logits + r * n, row, (size_t)n * sizeof *row);
    if (all.peak.at < 0) {
        for (int32_t i = 0; top && i < job->n_top; i++)
            top[i] = (tt_id_value){-1, 0};
        return;
    }
    /* lse = max + log_sum, but a log-probability is (l - max) - log_sum: exact at any size. */
    double max = all.peak.max, log_sum = log(all.sum);
    st->max_logit = all.peak.max;
    st->lse = (float)(max + log_sum);
    st->gap = all.peak.second == -INFINITY ? INFINITY : all.peak.max - all.peak.second;
    if (d->target >= 0)
        st->target_logprob = (float)(row[d->target] - max - log_sum);
    if (top)
        best(top, job->n_top, row, n, max, log_sum);

    softmax p = all;
    if (d->n_unsure && !d->confidence_of_kept)
        p = softmax_without(k, row, n, d->unsure, d->n_unsure, spare);

    /* From here on the row may be changed: filters drop, the temperature divides. */
    bool random = d->temperature > 0 && d->noise != TT_NOISE_NONE;
    if (is_filtered(d) && (random || d->confidence_of_kept))
        k->filter(row, n, d, all.peak.max, spare);
    if (random && d->noise == TT_NOISE_PHILOX) {
        tt_rng_address a = {d->seed, d->sample, d->step, d->position};
        st->drawn = k->gumbel(row, n, d->temperature, a, all.peak.at);
    } else if (random) {
        st->drawn = d->noise == TT_NOISE_SPLITMIX ? draw_splitmix(row, n, d)
                    : d->noise == TT_NOISE_GIVEN  ? draw_given(row, n, d)
                                                  : draw_cumulative(row, n, d, all.peak.max);
    }
    st->logprob = (float)(row[st->drawn] - max - log_sum);
    if (d->confidence_of_kept) {
        for (int64_t i = 0; i < n && d->temperature > 0; i++)
            row[i] = (row[i] - all.peak.max) / d->temperature;
        p = softmax_without(k, row, n, d->unsure, d->n_unsure, spare);
    }
    if (p.peak.at < 0)
        return; /* only unsure ids are possible */
    st->prob_argmax = prob_of(&p, d, st->argmax, row[st->argmax]);
    st->prob = prob_of(&p, d, st->drawn, row[st->drawn]);
    st->margin = (float)((1.0 - exp((double)p.peak.second - p.peak.max)) / p.sum);
    st->entropy = (float)(log(p.sum) - p.moment / p.sum);
}

/* --- all rows --- */

static bool sorted_ids(const int32_t *id, size_t stride, int32_t count, int64_t n)
{
    int64_t last = -1;
    for (int32_t i = 0; i < count; i++, id = (const int32_t *)((const char *)id + stride)) {
        if (*id <= last || *id >= n)
            return false;
        last = *id;
    }
    return true;
}

tt_status tt_cpu_check_draw(const char *name, const tt_draw *d, int64_t row, int64_t n, tt_err *e)
{
    long long r = (long long)row;
    if (!(d->temperature >= 0 && d->temperature <= 1e30f) || isnan(d->top_p) || isnan(d->min_p) ||
        d->min_p > 1)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: temperature %g, top_p %g, min_p %g", name, r,
                       (double)d->temperature, (double)d->top_p, (double)d->min_p);
    if (d->limit > n || d->target >= n)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: limit %d, target %d of %lld ids", name, r,
                       d->limit, d->target, (long long)n);
    if (d->noise == TT_NOISE_GIVEN && !d->gumbel)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: the noise to be given is missing", name, r);
    const int32_t *biased = d->n_bias ? &d->bias->id : NULL;
    if (!sorted_ids(biased, sizeof *d->bias, d->n_bias, n) ||
        !sorted_ids(d->allow, sizeof *d->allow, d->allow ? d->n_allow : 0, n) ||
        !sorted_ids(d->unsure, sizeof *d->unsure, d->n_unsure, n))
        return tt_fail(e, TT_EINVAL, "%s: row %lld: a list is not sorted or has an id >= %lld",
                       name, r, (long long)n);
    return TT_OK;
}

tt_status tt_cpu_head_with(const tt_cpu_rows *rows_of, tt_stream *s, tt_row_stats *stats,
                           tt_id_value *top, int32_t n_top, float *logits, const tt_act *x,
                           int64_t ldx, int64_t rows, const tt_matrix *w, const tt_draw *draw,
                           tt_err *e)
{
    int64_t n, k;
    s->op.matrix_size(w, &n, &k, NULL);
    if (tt_cpu_bad_shape(rows, k, ldx))
        return tt_cpu_shape_error("head", rows, k, ldx, e);
    if (n_top < 0 || n_top > TT_MAX_TOP || n > INT32_MAX)
        return tt_fail(e, TT_EINVAL, "head: %d best of %lld", n_top, (long long)n);
    int64_t spare = 0; /* words per thread, kept apart by whole cache lines */
    for (int64_t r = 0; r < rows; r++) {
        tt_status st = tt_cpu_check_draw("head", &draw[r], r, n, e);
        if (st)
            return st;
        int64_t want = is_filtered(&draw[r]) ? n : draw[r].n_unsure;
        spare = want > spare ? want : spare;
    }
    spare = (spare + 15) / 16 * 16;
    int64_t threads = tt_pool_threads(s->pool);
    int64_t room = (BUDGET - threads * spare) / n, per_tile = room < TILE ? room : TILE;
    per_tile = per_tile < 1 ? 1 : per_tile;
    int64_t tiles = (rows + per_tile - 1) / per_tile;
    per_tile = tiles ? (rows + tiles - 1) / tiles : 0; /* all alike */
    void *scratch;
    tt_status st = tt_cpu_scratch(&s->tile, &scratch,
                                  (size_t)(per_tile * n + threads * spare + 16) * sizeof(float), e);
    if (st)
        return tt_context(e, st, "head");
    head_job job = {.rows_of = rows_of, .n_top = n_top, .n = n, .spare_size = spare};
    job.spare = scratch;
    job.tile = job.spare + threads * spare;
    for (int64_t r = 0; r < rows; r += per_tile) {
        int64_t count = rows - r < per_tile ? rows - r : per_tile;
        st = s->op.linear(s, job.tile, n, (const float *)x + r * ldx, ldx, count, w, false, e);
        if (st)
            return tt_context(e, st, "head");
        job.stats = stats + r;
        job.top = top && n_top ? top + r * n_top : NULL;
        job.logits = logits ? logits + r * n : NULL;
        job.draw = draw + r;
        tt_pool_run(s->pool, count, reduce, &job);
    }
    return TT_OK;
}

tt_status tt_cpu_head(tt_stream *s, tt_row_stats *stats, tt_id_value *top, int32_t n_top,
                      float *logits, const tt_act *x, int64_t ldx, int64_t rows, const tt_matrix *w,
                      const tt_draw *draw, tt_err *e)
{
    return tt_cpu_head_with(&tt_cpu_rows_plain, s, stats, top, n_top, logits, x, ldx, rows, w, draw,
                            e);
}
