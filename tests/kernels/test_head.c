/* The head: logits to statistics and draws.
 *
 * What can go wrong: ties, NaN and infinities, rows where nothing is possible, lists at the edges,
 * a filter that keeps one too many, noise that differs between versions or does not follow the
 * softmax, a row that depends on its tile, memory that grows.
 *
 * Most tests choose the logits: the weight has one input per row and x is the identity, so that
 * the product is exact and every version reduces the same bits. */
#include "tests/kernels/ops.h"

#include "kernels/base/rng.h"

/* Runs the head over given logits [rows][n] (finite ones: they are multiplied by zero too). */
static void reduce(tt_stream *s, const float *logits, int64_t rows, int64_t n, const tt_draw *draw,
                   tt_row_stats *stats, tt_id_value *top, int32_t n_top, float *back)
{
    float *w = calloc((size_t)(n * rows), sizeof *w), *x = calloc((size_t)(rows * rows), sizeof *x);
    assert_non_null(w);
    assert_non_null(x);
    for (int64_t r = 0; r < rows; r++) {
        x[r * rows + r] = 1;
        for (int64_t i = 0; i < n; i++)
            w[i * rows + r] = logits[r * n + i];
    }
    tt_weight part = test_weight(w, TT_F32, n, rows);
    tt_matrix *m = NULL;
    tt_err e = {0};
    test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR, &e), &e);
    test_ok(s->op.head(s, stats, top, n_top, back, x, rows, rows, m, draw, &e), &e);
    test_ok(s->op.sync(s, &e), &e);
    s->op.matrix_close(s, m);
    free(w);
    free(x);
}

static tt_draw plain_draw(void)
{
    return (tt_draw){.top_p = 1, .target = -1};
}

/* --- the definition, in double and without haste --- */

static bool listed(const int32_t *id, int32_t n, int64_t i)
{
    for (int32_t j = 0; j < n; j++)
        if (id[j] == i)
            return true;
    return false;
}

/* l of one row: bias, allow, limit, NaN, infinity. */
static void constrain(double *l, const float *logits, int64_t n, const tt_draw *d)
{
    for (int64_t i = 0; i < n; i++) {
        float f = isnan(logits[i]) ? -INFINITY : logits[i];
        for (int32_t b = 0; b < d->n_bias; b++)
            if (d->bias[b].id == i)
                f = f == -INFINITY || d->bias[b].value == -INFINITY ? -INFINITY
                                                                    : f + d->bias[b].value;
        f = f > 0x1.fffffep127f ? 0x1.fffffep127f : f;
        bool banned =
            (d->limit > 0 && i >= d->limit) || (d->allow && !listed(d->allow, d->n_allow, i));
        l[i] = banned ? -INFINITY : f;
    }
}

/* Largest and the first place of it; -1 if all are -inf. */
static int64_t argmax_of(const double *l, int64_t n)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++)
        if (l[i] > -INFINITY && (best < 0 || l[i] > l[best]))
            best = i;
    return best;
}

/* ln of a probability is l - max - log_sum; the parts are kept apart because logits may be 1e38. */
typedef struct {
    double max, log_sum;
} norm;

static norm norm_of(const double *l, int64_t n)
{
    int64_t at = argmax_of(l, n);
    double sum = 0;
    for (int64_t i = 0; i < n && at >= 0; i++)
        sum += exp(l[i] - l[at]);
    return at < 0 ? (norm){-INFINITY, 0} : (norm){l[at], log(sum)};
}
static double logprob(norm z, double l)
{
    return l - z.max - z.log_sum;
}

/* Ids by falling value, lower ids first; the caller frees them. */
static const double *sorting;
static int by_value(const void *a, const void *b)
{
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    if (sorting[i] != sorting[j])
        return sorting[i] < sorting[j] ? 1 : -1;
    return i < j ? -1 : i > j;
}
static int64_t *order_of(const double *l, int64_t n)
{
    int64_t *id = malloc((size_t)n * sizeof *id);
    for (int64_t i = 0; i < n; i++)
        id[i] = i;
    sorting = l;
    qsort(id, (size_t)n, sizeof *id, by_value);
    return id;
}

/* Sets what the filters drop to -inf. */
static void filter(double *l, int64_t n, const tt_draw *d)
{
    double t = d->temperature > 0 ? d->temperature : 1, total = 0, before = 0;
    int64_t *id = order_of(l, n);
    double top = l[id[0]], kth = d->top_k > 0 && d->top_k < n ? l[id[d->top_k - 1]] : -INFINITY;
    for (int64_t r = 0; r < n && l[id[r]] >= kth; r++)
        total += exp((l[id[r]] - top) / t);
    for (int64_t r = 0; r < n; r++) {
        double weight = exp((l[id[r]] - top) / t);
        double sum = before + (d->top_p_within ? weight : 0);
        bool keep = l[id[r]] >= kth && (r == 0 || d->top_p >= 1 || sum <= d->top_p * total);
        keep = keep && (d->min_p <= 0 || weight >= d->min_p);
        before += weight;
        if (!keep)
            l[id[r]] = -INFINITY;
    }
    free(id);
}

static int64_t kept_with(const double *l, int64_t n, tt_draw d, float top_p)
{
    double *p = malloc((size_t)n * sizeof *p);
    int64_t count = 0;
    memcpy(p, l, (size_t)n * sizeof *p);
    d.top_p = top_p;
    filter(p, n, &d);
    for (int64_t i = 0; i < n; i++)
        count += p[i] > -INFINITY;
    free(p);
    return count;
}

/* Whether the sum at which top_p cuts is so near to it that rounding may decide. */
static bool on_edge(const double *l, int64_t n, const tt_draw *d)
{
    return d->top_p < 1 && d->top_p > 0 &&
           kept_with(l, n, *d, d->top_p * 0.999999f) != kept_with(l, n, *d, d->top_p * 1.000001f);
}

static uint64_t splitmix_word(uint64_t seed, uint64_t k)
{
    uint64_t z = seed + k * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static int64_t draw_of(const double *kept, int64_t n, const tt_draw *d)
{
    int64_t best = argmax_of(kept, n);
    if (d->temperature == 0 || d->noise == TT_NOISE_NONE)
        return best;
    if (d->noise == TT_NOISE_CUMULATIVE) {
        double u = (double)(splitmix_word(d->seed, d->base + 1) >> 11) * 0x1p-53, sum = 0,
               total = 0;
        for (int64_t i = 0; i < n; i++)
            total += exp((kept[i] - kept[best]) / d->temperature);
        for (int64_t i = 0; i < n; i++) {
            sum += exp((kept[i] - kept[best]) / d->temperature);
            if (sum > u * total)
                return i;
        }
    }
    long double most = -INFINITY;
    int64_t at = -1;
    for (int64_t i = 0; i < n; i++) {
        if (kept[i] == -INFINITY)
            continue;
        long double score;
        if (d->noise == TT_NOISE_PHILOX) {
            tt_rng_address a = {d->seed, d->sample, d->step, d->position};
            float g = tt_gumbel(tt_rng_at(a, (uint32_t)(i / 4)).v[i % 4]);
            score = (long double)fmaf(d->temperature, g, (float)kept[i]);
        } else { /* literally exp(l) / (-ln u)^T; logits here are small enough */
            long double u =
                (long double)(splitmix_word(d->seed, d->base + (uint64_t)i + 1) >> 11) * 0x1p-53L;
            score = expl((long double)kept[i]) / powl(-logl(u), (long double)d->temperature);
        }
        if (at < 0 || score > most) {
            most = score;
            at = i;
        }
    }
    return at;
}

static void near(const char *what, double have, double want, double tolerance)
{
    if (have == want) /* infinities */
        return;
    if (!(fabs(have - want) <= tolerance * fmax(1, fabs(want))))
        fail_msg("%s is %.9g, not %.9g", what, have, want);
}

/* All numbers of one row against the definition. */
static void check_row(const char *name, const float *logits, int64_t n, const tt_draw *d,
                      const tt_row_stats *have, const tt_id_value *top, int32_t n_top)
{
    double *l = malloc((size_t)n * sizeof *l), *p = malloc((size_t)n * sizeof *p);
    char what[128];
#define WHAT(field) (snprintf(what, sizeof what, "%s, n %lld: " field, name, (long long)n), what)
    constrain(l, logits, n, d);
    int64_t best = argmax_of(l, n);
    assert_int_equal(have->argmax, best);
    if (best < 0) {
        static const tt_row_stats nothing = {.argmax = -1, .drawn = -1};
        assert_memory_equal(have, &nothing, sizeof nothing);
        for (int32_t i = 0; i < n_top; i++)
            assert_true(top[i].id == -1 && top[i].value == 0);
        free(l);
        free(p);
        return;
    }
    norm z = norm_of(l, n);
    near(WHAT("lse"), have->lse, z.max + z.log_sum, 2e-6);
    near(WHAT("max"), have->max_logit, l[best], 0);
    if (d->target >= 0)
        near(WHAT("target"), have->target_logprob, logprob(z, l[d->target]), 2e-6);
    else
        assert_true(have->target_logprob == 0);
    double second = -INFINITY;
    for (int64_t i = 0; i < n; i++)
        if (i != best && l[i] > second)
            second = l[i];
    near(WHAT("gap"), have->gap, l[best] - second, 1e-6);
    int64_t *order = order_of(l, n);
    for (int32_t t = 0; t < n_top; t++) {
        int64_t at = t < n && l[order[t]] > -INFINITY ? order[t] : -1;
        assert_int_equal(top[t].id, at);
        near(WHAT("top"), top[t].value, at < 0 ? 0 : logprob(z, l[at]), 2e-6);
    }
    free(order);
    if (on_edge(l, n, d)) {
        free(l);
        free(p);
        return;
    }
    memcpy(p, l, (size_t)n * sizeof *p);
    filter(p, n, d);
    int64_t drawn = draw_of(p, n, d);
    if (have->drawn != drawn)
        fail_msg("%s: drew %d, not %lld", WHAT("draw"), have->drawn, (long long)drawn);
    near(WHAT("logprob"), have->logprob, logprob(z, l[drawn]), 2e-6);
    if (!d->confidence_of_kept)
        memcpy(p, l, (size_t)n * sizeof *p);
    for (int64_t i = 0; i < n; i++) {
        if (listed(d->unsure, d->n_unsure, i))
            p[i] = -INFINITY;
        if (d->confidence_of_kept && d->temperature > 0)
            p[i] /= d->temperature;
    }
    z = norm_of(p, n);
    bool possible = z.max > -INFINITY;
    double first = 0, next = 0, entropy = 0;
    for (int64_t i = 0; i < n; i++) {
        double q = possible ? exp(logprob(z, p[i])) : 0;
        entropy -= q > 0 ? q * log(q) : 0;
        next = q > first ? first : q > next ? q : next;
        first = q > first ? q : first;
    }
    near(WHAT("prob"), have->prob, possible ? exp(logprob(z, p[drawn])) : 0, 2e-6);
    near(WHAT("prob_argmax"), have->prob_argmax, possible ? exp(logprob(z, p[best])) : 0, 2e-6);
    near(WHAT("margin"), have->margin, first - next, 2e-6);
    near(WHAT("entropy"), have->entropy, entropy, 1e-5);
#undef WHAT
    free(l);
    free(p);
}

/* --- tests --- */

enum { MOST_LIST = 24 };
typedef struct {
    tt_id_value bias[MOST_LIST];
    int32_t allow[MOST_LIST], unsure[MOST_LIST];
} lists;

/* Some sorted ids below n. */
static int32_t some_ids(int32_t *id, int64_t n)
{
    int32_t count = 0;
    for (int64_t i = (int64_t)(test_word() % 3); i < n && count < MOST_LIST;
         i += 1 + (int64_t)(test_word() % (uint64_t)(n / 8 + 2)))
        id[count++] = (int32_t)i;
    return count;
}

static tt_draw random_draw(int64_t n, lists *l, int kind)
{
    tt_draw d = plain_draw();
    static const float temperature[] = {0, 0.2f, 0.7f, 1, 3};
    d.temperature = temperature[test_word() % 5];
    d.noise = (tt_noise_kind)(test_word() % 4);
    d.seed = test_word();
    d.sample = (uint32_t)test_word() % 5;
    d.step = (uint32_t)test_word() % 100;
    d.position = (uint32_t)test_word() % 4000;
    d.base = test_word() % 100000;
    if (kind & 1)
        d.top_k = 1 + (int32_t)(test_word() % 40);
    if (kind & 2) {
        d.top_p = test_uniform();
        d.top_p_within = test_word() % 2;
    }
    if (kind & 4)
        d.min_p = test_uniform() * 0.3f;
    if (kind & 8) {
        d.n_unsure = some_ids(l->unsure, n);
        d.unsure = l->unsure;
    }
    if (kind & 16) {
        d.n_allow = some_ids(l->allow, n);
        d.allow = l->allow;
    }
    if (kind & 32) {
        int32_t id[MOST_LIST];
        d.n_bias = some_ids(id, n);
        for (int32_t i = 0; i < d.n_bias; i++)
            l->bias[i] = (tt_id_value){id[i], i % 4 ? test_normal() * 3 : -INFINITY};
        d.bias = l->bias;
    }
    if (kind & 64)
        d.limit = 1 + (int32_t)(test_word() % (uint64_t)n);
    if (kind & 128)
        d.confidence_of_kept = true;
    if (kind & 256)
        d.target = (int32_t)(test_word() % (uint64_t)n);
    return d;
}

static void statistics_and_draws_on(tt_stream *s, const char *name)
{
    static const int64_t size[] = {1, 2, 3, 17, 63, 64, 65, 320, 1000};
    enum { ROWS = 48 };
    for (size_t z = 0; z < sizeof size / sizeof *size; z++)
        for (int round = 0; round < 6; round++) {
            int64_t n = size[z];
            float *logits = test_rows(ROWS, n, n, round % 2 ? 4 : 1);
            static lists l[ROWS];
            tt_draw d[ROWS];
            tt_row_stats stats[ROWS];
            tt_id_value top[ROWS * 5];
            for (int r = 0; r < ROWS; r++) {
                d[r] = random_draw(n, &l[r], (int)(test_word() % 512) & (round < 3 ? 511 : 264));
                for (int64_t i = 0; i < n && r % 4 == 0; i++) /* many ties */
                    logits[r * n + i] = roundf(logits[r * n + i]);
            }
            float *back = test_blank(ROWS, n);
            reduce(s, logits, ROWS, n, d, stats, top, 5, back);
            for (int r = 0; r < ROWS; r++) {
                check_row(name, logits + r * n, n, &d[r], &stats[r], top + r * 5, 5);
                double *want = malloc((size_t)n * sizeof *want);
                constrain(want, logits + r * n, n, &d[r]);
                for (int64_t i = 0; i < n; i++)
                    assert_true(back[r * n + i] == (float)want[i]);
                free(want);
            }
            free(logits);
            free(back);
        }
}
static void statistics_and_draws_are_as_defined(void **state)
{
    (void)state;
    test_each(statistics_and_draws_on);
}

/* NaN and infinities come from the weights here: one input, so nothing is multiplied by zero. */
static void hostile_logits_on(tt_stream *s, const char *name)
{
    enum { N = 70 };
    static float w[N];
    const float row[][6] = {{NAN, 1, NAN, 0, 2, 2},
                            {-INFINITY, NAN, -INFINITY, NAN, -INFINITY, NAN},
                            {INFINITY, 1, INFINITY, 3.4e38f, 0, 1},
                            {-3.4e38f, -3.4e38f, -INFINITY, -3.4e38f, -INFINITY, NAN},
                            {3.4e38f, -3.4e38f, 0, 1e-45f, -1e-45f, 0}};
    for (int h = 0; h < 5; h++)
        for (int place = 0; place + 6 <= N; place += 32) {
            for (int i = 0; i < N; i++)
                w[i] = -INFINITY;
            memcpy(w + place, row[h], sizeof row[h]);
            tt_weight part = test_weight(w, TT_F32, N, 1);
            tt_matrix *m = NULL;
            tt_err e = {0};
            test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_F32, 1, &e), &e);
            for (int noise = TT_NOISE_NONE; noise <= TT_NOISE_PHILOX; noise++) {
                tt_draw d = plain_draw();
                d.temperature = 1;
                d.noise = (tt_noise_kind)noise;
                tt_row_stats stats;
                tt_id_value top[4];
                const float one = 1;
                test_ok(s->op.head(s, &stats, top, 4, NULL, &one, 1, 1, m, &d, &e), &e);
                check_row(name, w, N, &d, &stats, top, 4);
            }
            s->op.matrix_close(s, m);
        }
}
static void nan_counts_as_impossible_and_infinity_as_large(void **state)
{
    (void)state;
    test_each(hostile_logits_on);
}

static void ties_go_to_the_lowest_id_on(tt_stream *s, const char *name)
{
    enum { N = 200 };
    static float l[N];
    (void)name;
    for (int a = 0; a < N - 1; a += 13)
        for (int b = a + 1; b < N; b += 17) {
            for (int i = 0; i < N; i++)
                l[i] = -1;
            l[a] = l[b] = 2;
            tt_draw d = plain_draw();
            tt_row_stats stats;
            tt_id_value top[3];
            reduce(s, l, 1, N, &d, &stats, top, 3, NULL);
            assert_int_equal(stats.argmax, a);
            assert_int_equal(stats.drawn, a);
            assert_true(stats.margin == 0 && stats.gap == 0);
            assert_int_equal(top[0].id, a);
            assert_int_equal(top[1].id, b);
            assert_int_equal(top[2].id, a == 0 ? (b == 1 ? 2 : 1) : 0);
        }
}
static void ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    test_each(ties_go_to_the_lowest_id_on);
}

/* Long rows, where the fast versions skip what cannot win: every draw must still be the one of
 * the definition, which computes all noise. */
static void skipping_never_changes_a_draw_on(tt_stream *s, const char *name)
{
    enum { N = 12007, ROWS = 6 };
    static const float temperature[] = {1e-30f, 1e-3f, 0.3f, 1, 20, 1e30f};
    static const float spread[] = {0, 0.1f, 3, 1e5f};
    for (int t = 0; t < 6; t++)
        for (int p = 0; p < 4; p++) {
            float *l = test_rows(ROWS, N, N, spread[p]);
            tt_draw d[ROWS];
            tt_row_stats stats[ROWS];
            for (int r = 0; r < ROWS; r++) {
                d[r] = plain_draw();
                d[r].temperature = temperature[t];
                d[r].noise = TT_NOISE_PHILOX;
                d[r].seed = test_word();
                d[r].position = (uint32_t)r;
                if (r == 0) /* one id far above the rest, at the end */
                    l[N - 1] = 100;
            }
            reduce(s, l, ROWS, N, d, stats, NULL, 0, NULL);
            for (int r = 0; r < ROWS; r++) {
                double *want = malloc(N * sizeof *want);
                for (int64_t i = 0; i < N; i++)
                    want[i] = l[r * N + i];
                int64_t drawn = draw_of(want, N, &d[r]);
                if (stats[r].drawn != drawn)
                    fail_msg("%s: temperature %g, spread %g: drew %d, not %lld", name,
                             (double)temperature[t], (double)spread[p], stats[r].drawn,
                             (long long)drawn);
                free(want);
            }
            free(l);
        }
}
static void skipping_never_changes_a_draw(void **state)
{
    (void)state;
    test_each(skipping_never_changes_a_draw_on);
}

/* Long rows take other ways through the filters: runs, bins, pruned tails. */
static void filters_of_long_rows_on(tt_stream *s, const char *name)
{
    static const int64_t size[] = {300, 4097, 17003};
    static const float spread[] = {0, 0.05f, 1, 8};
    static lists none;
    enum { ROWS = 4 };
    for (int z = 0; z < 3; z++)
        for (int p = 0; p < 4; p++)
            for (int kind = 1; kind < 8; kind++) {
                int64_t n = size[z];
                float *l = test_rows(ROWS, n, n, spread[p]);
                tt_draw d[ROWS];
                tt_row_stats stats[ROWS];
                for (int r = 0; r < ROWS; r++) {
                    d[r] = random_draw(n, &none, kind);
                    d[r].confidence_of_kept = true; /* a wrong set shows in the entropy */
                    if (d[r].top_k)
                        d[r].top_k = 1 + (int32_t)(test_word() % (r % 2 ? 60 : (uint64_t)n));
                    if (kind & 2 && r % 3 == 0)
                        d[r].top_p = 0.9f + 0.1f * test_uniform();
                    for (int64_t i = 0; i < n && r % 4 == 0; i++)
                        l[r * n + i] = roundf(l[r * n + i] * 2);
                }
                reduce(s, l, ROWS, n, d, stats, NULL, 0, NULL);
                for (int r = 0; r < ROWS; r++)
                    check_row(name, l + r * n, n, &d[r], &stats[r], NULL, 0);
                free(l);
            }
}
static void filters_of_long_rows_are_as_defined(void **state)
{
    (void)state;
    test_each(filters_of_long_rows_on);
}

/* Chi-square with 9 degrees of freedom; 33.7 is passed by one in 10 000, and the seed is fixed. */
static void draws_follow_the_softmax_on(tt_stream *s, const char *name)
{
    enum { N = 10, DRAWS = 20000, BATCH = 500 };
    static const float logit[N] = {0, 1, -1, 0.5f, 2, -2, 1.5f, 0.1f, -0.3f, 0.7f};
    static const float temperature[] = {0.6f, 1, 2.5f};
    static float l[BATCH * N];
    static tt_draw d[BATCH];
    static tt_row_stats stats[BATCH];
    for (int t = 0; t < 3; t++) {
        double count[N] = {0}, p[N], total = 0, chi = 0;
        for (int i = 0; i < N; i++)
            total += p[i] = exp((double)logit[i] / temperature[t]);
        for (int from = 0; from < DRAWS; from += BATCH) {
            for (int r = 0; r < BATCH; r++) {
                memcpy(l + r * N, logit, sizeof logit);
                d[r] = plain_draw();
                d[r].noise = TT_NOISE_PHILOX;
                d[r].temperature = temperature[t];
                d[r].seed = 42;
                d[r].step = (uint32_t)from;
                d[r].position = (uint32_t)r;
            }
            reduce(s, l, BATCH, N, d, stats, NULL, 0, NULL);
            for (int r = 0; r < BATCH; r++)
                count[stats[r].drawn]++;
        }
        for (int i = 0; i < N; i++) {
            double want = DRAWS * p[i] / total;
            chi += (count[i] - want) * (count[i] - want) / want;
        }
        if (chi > 33.7)
            fail_msg("%s: chi-square %.1f at temperature %g", name, chi, (double)temperature[t]);
    }
}
static void draws_follow_the_softmax(void **state)
{
    (void)state;
    test_each(draws_follow_the_softmax_on);
}

static void top_p_cuts_where_it_should_on(tt_stream *s, const char *name)
{
    (void)name;
    /* Probabilities 1/2, 1/4, 1/8, 1/8 at ids 2, 0, 1, 3: exact in binary. */
    const float ln2 = 0.69314718f;
    const float l[4] = {-2 * ln2, -3 * ln2, -ln2, -3 * ln2};
    static const struct {
        float top_p;
        unsigned kept; /* bit per id */
        bool within;
    } c[] = {{0, 4, false},     {0.49f, 4, false}, {0.51f, 5, false},  {0.74f, 5, false},
             {0.76f, 7, false}, {0.86f, 7, false}, {0.89f, 15, false}, {1, 15, false},
             {0, 4, true},      {0.51f, 4, true},  {0.74f, 4, true},   {0.76f, 5, true},
             {0.86f, 5, true},  {0.89f, 7, true},  {0.99f, 7, true},   {1, 15, true}};
    for (int i = 0; i < 16; i++) {
        unsigned seen = 0;
        for (uint64_t seed = 0; seed < 200; seed++) {
            tt_draw d = plain_draw();
            d.top_p = c[i].top_p;
            d.top_p_within = c[i].within;
            d.temperature = 1;
            d.noise = TT_NOISE_PHILOX;
            d.seed = seed;
            tt_row_stats stats;
            reduce(s, l, 1, 4, &d, &stats, NULL, 0, NULL);
            seen |= 1u << stats.drawn;
        }
        assert_int_equal(seen, c[i].kept);
    }
    /* Four equal ones: the sum before the third is exactly 1/2, which does not exceed 1/2. */
    static const float equal[4] = {1, 1, 1, 1};
    tt_draw d = plain_draw();
    d.top_p = 0.5f;
    d.confidence_of_kept = true;
    tt_row_stats stats;
    reduce(s, equal, 1, 4, &d, &stats, NULL, 0, NULL);
    assert_float_equal(stats.prob, 1.0 / 3, 1e-6);
}
static void given_noise_decides_on(tt_stream *s, const char *name)
{
    (void)name;
    const float l[4] = {0, 1, 2, 3}, noise[4] = {2.9f, 2.2f, 0, 0};
    tt_draw d = plain_draw();
    tt_row_stats stats;
    d.temperature = 1;
    d.noise = TT_NOISE_GIVEN;
    d.gumbel = noise;
    reduce(s, l, 1, 4, &d, &stats, NULL, 0, NULL);
    assert_int_equal(stats.drawn, 1);
    d.temperature = 2;
    reduce(s, l, 1, 4, &d, &stats, NULL, 0, NULL);
    assert_int_equal(stats.drawn, 0);
    d.top_k = 3;
    reduce(s, l, 1, 4, &d, &stats, NULL, 0, NULL);
    assert_int_equal(stats.drawn, 1);
}
static void given_noise_decides(void **state)
{
    (void)state;
    test_each(given_noise_decides_on);
}

static void top_p_cuts_where_it_should(void **state)
{
    (void)state;
    test_each(top_p_cuts_where_it_should_on);
}

static void a_row_is_the_same_in_any_batch_on(tt_stream *s, const char *name)
{
    static const int64_t batch[] = {1, 2, 3, 5, 8, 16, 17, 32, 100, 128};
    enum { N = 777, K = 48, MOST = 128 };
    float *w = test_rows(N, K, K, 0.5f), *x = test_rows(MOST, K, K, 1);
    static lists l[MOST];
    static tt_draw d[MOST];
    static tt_row_stats alone[MOST], stats[MOST];
    static tt_id_value top_alone[MOST * 3], top[MOST * 3];
    tt_weight part = test_weight(w, TT_F32, N, K);
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        tt_matrix *m = NULL;
        tt_err e = {0};
        test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, (tt_compute)compute, 1, &e), &e);
        for (int r = 0; r < MOST; r++) {
            d[r] = random_draw(N, &l[r], r % 3 ? r : 0);
            test_ok(
                s->op.head(s, &alone[r], top_alone + 3 * r, 3, NULL, x + r * K, K, 1, m, &d[r], &e),
                &e);
        }
        for (size_t b = 0; b < sizeof batch / sizeof *batch; b++) {
            int64_t from = (MOST - batch[b]) / 2;
            test_ok(s->op.head(s, stats, top, 3, NULL, x + from * K, K, batch[b], m, d + from, &e),
                    &e);
            if (memcmp(stats, alone + from, (size_t)batch[b] * sizeof *stats) ||
                memcmp(top, top_alone + 3 * from, (size_t)batch[b] * 3 * sizeof *top))
                fail_msg("%s: %lld rows differ from the same rows alone", name,
                         (long long)batch[b]);
        }
        s->op.matrix_close(s, m);
    }
    free(w);
    free(x);
}
static void a_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    test_each(a_row_is_the_same_in_any_batch_on);
}

static void memory_stays_below_64_mib(void **state)
{
    (void)state;
    enum { N = 152064, K = 2, ROWS = 150 };
    for (int device = 1; device < TEST_DEVICES; device++) {
        tt_stream *s = test_open(&test_devices[device], 2);
        if (!s)
            continue;
        float *w = test_rows(N, K, K, 1), *x = test_rows(ROWS, K, K, 1);
        static tt_draw d[ROWS];
        static tt_row_stats stats[ROWS];
        tt_weight part = test_weight(w, TT_F32, N, K);
        tt_matrix *m = NULL;
        tt_err e = {0};
        for (int r = 0; r < ROWS; r++) {
            d[r] = plain_draw();
            d[r].top_p = 0.9f;
        }
        test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_F32, 1, &e), &e);
        test_ok(s->op.head(s, stats, NULL, 0, NULL, x, K, ROWS, m, d, &e), &e);
        size_t used = s->tile.size + s->scratch.size;
        assert_true(used <= (size_t)64 << 20);
        const void *tile = s->tile.base;
        test_ok(s->op.head(s, stats, NULL, 0, NULL, x, K, ROWS - 7, m, d, &e), &e);
        assert_ptr_equal(tile, s->tile.base); /* nothing was allocated again */
        s->op.matrix_close(s, m);
        tt_stream_close(s);
        free(w);
        free(x);
    }
}

static void requests_that_cannot_be_are_refused_on(tt_stream *s, const char *name)
{
    (void)name;
    static const int32_t unsorted[2] = {3, 2}, far[1] = {4}, negative[1] = {-1};
    static const tt_id_value far_bias[1] = {{4, 1}};
    float w[8] = {0}, x[2] = {0};
    tt_weight part = test_weight(w, TT_F32, 4, 2);
    tt_matrix *m = NULL;
    tt_err e = {0};
    test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_F32, 1, &e), &e);
    tt_draw bad[10];
    for (int i = 0; i < 10; i++)
        bad[i] = plain_draw();
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].temperature = 1e31f;
    bad[3].top_p = NAN;
    bad[4].min_p = 1.5f;
    bad[5].target = 4;
    bad[6].limit = 5;
    bad[7].allow = unsorted;
    bad[7].n_allow = 2;
    bad[8].unsure = far;
    bad[8].n_unsure = 1;
    bad[9].bias = far_bias;
    bad[9].n_bias = 1;
    tt_row_stats stats;
    tt_id_value top[TT_MAX_TOP + 1];
    for (int i = 0; i < 10; i++)
        assert_int_equal(s->op.head(s, &stats, NULL, 0, NULL, x, 2, 1, m, &bad[i], &e), TT_EINVAL);
    tt_draw d = plain_draw();
    d.allow = negative;
    d.n_allow = 1;
    assert_int_equal(s->op.head(s, &stats, NULL, 0, NULL, x, 2, 1, m, &d, &e), TT_EINVAL);
    d = plain_draw();
    assert_int_equal(s->op.head(s, &stats, top, TT_MAX_TOP + 1, NULL, x, 2, 1, m, &d, &e),
                     TT_EINVAL);
    assert_int_equal(s->op.head(s, &stats, NULL, 0, NULL, x, 1, 1, m, &d, &e), TT_EINVAL);
    assert_int_equal(s->op.head(s, &stats, NULL, 0, NULL, x, 2, -1, m, &d, &e), TT_EINVAL);
    assert_int_equal(s->op.head(s, &stats, NULL, 0, NULL, x, 2, 0, m, &d, &e), TT_OK);
    s->op.matrix_close(s, m);
}
static void requests_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(requests_that_cannot_be_are_refused_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_and_draws_are_as_defined),
        cmocka_unit_test(nan_counts_as_impossible_and_infinity_as_large),
        cmocka_unit_test(ties_go_to_the_lowest_id),
        cmocka_unit_test(skipping_never_changes_a_draw),
        cmocka_unit_test(filters_of_long_rows_are_as_defined),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(top_p_cuts_where_it_should),
        cmocka_unit_test(given_noise_decides),
        cmocka_unit_test(a_row_is_the_same_in_any_batch),
        cmocka_unit_test(memory_stays_below_64_mib),
        cmocka_unit_test(requests_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("head", tests, NULL, NULL);
}
