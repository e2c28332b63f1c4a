/* head_kl and head_mean: what is kept of a hidden row between passes.
 *
 * What can go wrong: bans that reach one of the two softmaxes only, a row where nothing is
 * possible, tables of another type or width than the head, rows that depend on their batch, a tile
 * border. */
#include "tests/kernels/ops.h"

enum { N = 301, K = 40, D = 24, ROWS = 130 };

static tt_id_value bias[2] = {{3, -INFINITY}, {17, 1.5f}};
static int32_t allow[3] = {2, 17, 200};

/* Every fourth row is free, biased, allowed few ids, or nothing at all. */
static void draws(tt_draw *d, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        d[r] = (tt_draw){.top_p = 1, .target = -1};
        if (r % 4 == 1) {
            d[r].bias = bias;
            d[r].n_bias = 2;
            d[r].limit = N - 9;
        } else if (r % 4 == 2) {
            d[r].allow = allow;
            d[r].n_allow = 3;
        } else if (r % 4 == 3 && r % 8 == 3) {
            d[r].allow = allow;
        }
    }
}

/* The definition in double: p of one row; false if nothing is possible. */
static bool softmax_of(double *p, const float *x, const float *w, const tt_draw *d)
{
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < N; i++) {
        p[i] = 0;
        for (int c = 0; c < K; c++)
            p[i] += (double)x[c] * w[i * K + c];
        for (int b = 0; b < d->n_bias; b++)
            if (d->bias[b].id == i)
                p[i] += d->bias[b].value;
        bool possible = !d->limit || i < d->limit, listed = false;
        for (int a = 0; a < d->n_allow; a++)
            listed |= d->allow[a] == i;
        if (!possible || (d->allow && !listed))
            p[i] = -INFINITY;
        max = p[i] > max ? p[i] : max;
    }
    for (int i = 0; i < N; i++) {
        p[i] = p[i] == -INFINITY ? 0 : exp(p[i] - max);
        sum += p[i];
    }
    for (int i = 0; i < N && sum > 0; i++)
        p[i] /= sum;
    return sum > 0;
}

typedef struct {
    float *w, *e, *x, *before;
    uint16_t *half; /* e in bfloat16 */
    tt_matrix *head, *table, *narrow;
    tt_draw d[ROWS];
} problem;

static problem open_problem(tt_stream *s)
{
    problem p = {.w = test_rows(N, K, K, 0.4f), .e = test_rows(N, D, D, 1),
                 .x = test_rows(ROWS, K, K + 3, 1), .before = test_rows(ROWS, K, K + 1, 1)};
    tt_err e = {0};
    p.half = malloc(N * D * sizeof *p.half);
    for (int i = 0; i < N * D; i++) {
        p.half[i] = tt_f32_to_bf16(p.e[i]);
        p.e[i] = tt_bf16_to_f32(p.half[i]);
    }
    for (int i = 0; i < N * K; i++)
        p.w[i] = tt_bf16_to_f32(tt_f32_to_bf16(p.w[i]));
    tt_weight head = test_weight(p.w, TT_F32, N, K), table = test_weight(p.half, TT_BF16, N, D);
    tt_weight narrow = test_weight(p.half, TT_BF16, N - 1, D);
    test_ok(s->op.matrix_open(s, &p.head, &head, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR, &e),
            &e);
    test_ok(s->op.matrix_open(s, &p.table, &table, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_TABLE, &e),
            &e);
    test_ok(s->op.matrix_open(s, &p.narrow, &narrow, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_TABLE, &e),
            &e);
    draws(p.d, ROWS);
    return p;
}

static void close_problem(tt_stream *s, problem *p)
{
    s->op.matrix_close(s, p->head);
    s->op.matrix_close(s, p->table);
    s->op.matrix_close(s, p->narrow);
    free(p->w);
    free(p->e);
    free(p->half);
    free(p->x);
    free(p->before);
}

static void they_are_as_defined_on(tt_stream *s, const char *name)
{
    problem p = open_problem(s);
    static float kl[ROWS], y[ROWS * (D + 2)];
    static double now[N], then[N];
    tt_err e = {0};
    test_ok(s->op.head_kl(s, kl, p.x, K + 3, p.before, K + 1, ROWS, p.head, p.d, &e), &e);
    test_ok(s->op.head_mean(s, y, D + 2, p.x, K + 3, ROWS, p.head, p.table, p.d, &e), &e);
    test_ok(s->op.sync(s, &e), &e);
    for (int64_t r = 0; r < ROWS; r++) {
        bool possible = softmax_of(now, p.x + r * (K + 3), p.w, &p.d[r]);
        softmax_of(then, p.before + r * (K + 1), p.w, &p.d[r]);
        double want = 0, off = 0, norm = 0;
        for (int i = 0; i < N && possible; i++)
            want += now[i] * (log(now[i] + 1e-12) - log(then[i] + 1e-12));
        if (fabs(kl[r] - want) > 1e-4 * (1 + want))
            fail_msg("%s: row %lld: kl %g, expected %g", name, (long long)r, (double)kl[r], want);
        for (int c = 0; c < D; c++) {
            double mean = 0;
            for (int i = 0; i < N && possible; i++)
                mean += now[i] * p.e[i * D + c];
            double d = y[r * (D + 2) + c] - mean;
            off += d * d;
            norm += mean * mean;
        }
        if (sqrt(off) > 1e-4 * sqrt(norm))
            fail_msg("%s: row %lld: mean embedding is %.3g off", name, (long long)r, sqrt(off));
    }
    close_problem(s, &p);
}
static void they_are_as_defined(void **state)
{
    (void)state;
    test_each(they_are_as_defined_on);
}

static void a_row_is_the_same_alone_on(tt_stream *s, const char *name)
{
    problem p = open_problem(s);
    static float kl[ROWS], y[ROWS * D], one[D], one_kl;
    tt_err e = {0};
    test_ok(s->op.head_kl(s, kl, p.x, K + 3, p.before, K + 1, ROWS, p.head, p.d, &e), &e);
    test_ok(s->op.head_mean(s, y, D, p.x, K + 3, ROWS, p.head, p.table, p.d, &e), &e);
    for (int64_t r = 0; r < ROWS; r++) {
        const float *x = p.x + r * (K + 3), *before = p.before + r * (K + 1);
        test_ok(s->op.head_kl(s, &one_kl, x, K + 3, before, K + 1, 1, p.head, p.d + r, &e), &e);
        test_ok(s->op.head_mean(s, one, D, x, K + 3, 1, p.head, p.table, p.d + r, &e), &e);
        test_same_bits(name, &kl[r], &one_kl, 1);
        test_same_bits(name, y + r * D, one, D);
    }
    close_problem(s, &p);
}
static void a_row_is_the_same_alone(void **state)
{
    (void)state;
    test_each(a_row_is_the_same_alone_on);
}

static void a_row_that_did_not_move_is_at_zero_on(tt_stream *s, const char *name)
{
    problem p = open_problem(s);
    static float kl[ROWS];
    tt_err e = {0};
    test_ok(s->op.head_kl(s, kl, p.x, K + 3, p.x, K + 3, ROWS, p.head, p.d, &e), &e);
    for (int r = 0; r < ROWS; r++)
        if (kl[r] != 0)
            fail_msg("%s: row %d moved by %g from itself", name, r, (double)kl[r]);
    close_problem(s, &p);
}
static void a_row_that_did_not_move_is_at_zero(void **state)
{
    (void)state;
    test_each(a_row_that_did_not_move_is_at_zero_on);
}

static void shapes_that_cannot_be_are_refused_on(tt_stream *s, const char *name)
{
    (void)name;
    problem p = open_problem(s);
    static float y[ROWS * D], kl[ROWS];
    tt_err e = {0};
    assert_int_equal(s->op.head_mean(s, y, D - 1, p.x, K, 1, p.head, p.table, p.d, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "head_mean"));
    assert_int_equal(s->op.head_mean(s, y, D, p.x, K, 1, p.head, p.narrow, p.d, &e), TT_EINVAL);
    assert_int_equal(s->op.head_mean(s, y, D, p.x, K - 1, 1, p.head, p.table, p.d, &e), TT_EINVAL);
    assert_int_equal(s->op.head_kl(s, kl, p.x, K, p.x, K - 1, 1, p.head, p.d, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "head_kl"));
    p.d[0].limit = N + 1;
    assert_int_equal(s->op.head_kl(s, kl, p.x, K, p.x, K, 1, p.head, p.d, &e), TT_EINVAL);
    assert_int_equal(s->op.head_kl(s, kl, p.x, K, p.x, K, 0, p.head, p.d, &e), TT_OK);
    assert_int_equal(s->op.head_mean(s, y, D, p.x, K, 0, p.head, p.table, p.d, &e), TT_OK);
    close_problem(s, &p);
}
static void shapes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(shapes_that_cannot_be_are_refused_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_as_defined),
        cmocka_unit_test(a_row_is_the_same_alone),
        cmocka_unit_test(a_row_that_did_not_move_is_at_zero),
        cmocka_unit_test(shapes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("rows kept between passes", tests, NULL, NULL);
}
