/* What can go wrong: a bias taken of another head, query or key, steps that are zero or negative, a
 * query that sees nothing, a bias of minus infinity that still lets NaN through. */
#include "tests/kernels/ops.h"

enum { ROWS = 5, KEYS = 7, HEADS = 3, DIM = 4, LD = HEADS * DIM + 1 };

typedef struct {
    float q[ROWS * LD], k[KEYS * LD], v[KEYS * LD];
} problem;

static void fill(problem *p)
{
    for (int i = 0; i < ROWS * LD; i++)
        p->q[i] = test_uniform() * 2 - 1;
    for (int i = 0; i < KEYS * LD; i++) {
        p->k[i] = test_uniform() * 2 - 1;
        p->v[i] = test_uniform() * 2 - 1;
    }
}

static void run(tt_stream *s, problem *p, float *out, const float *bias, int64_t head,
                int64_t query, int64_t key)
{
    tt_err e = {0};
    tt_biased_span span = {.query_rows = ROWS, .k = p->k, .v = p->v, .ld_kv = LD, .keys = KEYS,
                           .bias = bias, .bias_head = head, .bias_query = query, .bias_key = key};
    test_ok(s->op.attention_biased(s, out, LD, p->q, LD, &span, 1, HEADS, DIM, 0.7f,
                                   TT_COMPUTE_F32, &e), &e);
}

/* Against the formula, over all three steps. */
static void follows_the_formula_on(tt_stream *s, const char *name)
{
    problem p;
    float bias[HEADS * ROWS * KEYS], out[ROWS * LD];
    fill(&p);
    for (int i = 0; i < HEADS * ROWS * KEYS; i++)
        bias[i] = test_uniform() < 0.2 ? -INFINITY : test_uniform() * 3;
    run(s, &p, out, bias, ROWS * KEYS, KEYS, 1);
    for (int r = 0; r < ROWS; r++)
        for (int h = 0; h < HEADS; h++) {
            double w[KEYS], total = 0;
            for (int j = 0; j < KEYS; j++) {
                double dot = 0;
                for (int c = 0; c < DIM; c++)
                    dot += (double)p.q[r * LD + h * DIM + c] * p.k[j * LD + h * DIM + c];
                total += w[j] = exp(dot * 0.7f + bias[(h * ROWS + r) * KEYS + j]);
            }
            for (int c = 0; c < DIM; c++) {
                double sum = 0;
                for (int j = 0; j < KEYS; j++)
                    sum += w[j] * p.v[j * LD + h * DIM + c];
                double want = total > 0 ? sum / total : 0;
                if (fabs(out[r * LD + h * DIM + c] - want) > 1e-5)
                    fail_msg("%s: row %d head %d channel %d: %g, want %g", name, r, h, c,
                             (double)out[r * LD + h * DIM + c], want);
            }
        }
}
static void follows_the_formula(void **state)
{
    (void)state;
    test_each(follows_the_formula_on);
}

/* A bias by distance, read backwards along the queries, is the table written out. */
static void steps_may_be_negative_on(tt_stream *s, const char *name)
{
    (void)name;
    problem p;
    float by_distance[ROWS + KEYS], table[ROWS * KEYS], have[ROWS * LD], want[ROWS * LD];
    fill(&p);
    for (int i = 0; i < ROWS + KEYS; i++)
        by_distance[i] = test_uniform();
    for (int r = 0; r < ROWS; r++)
        for (int j = 0; j < KEYS; j++)
            table[r * KEYS + j] = by_distance[j - r + ROWS - 1];
    memset(have, 0, sizeof have);
    memset(want, 0, sizeof want);
    run(s, &p, have, by_distance + ROWS - 1, 0, -1, 1);
    run(s, &p, want, table, 0, KEYS, 1);
    assert_memory_equal(have, want, sizeof have);
}
static void steps_may_be_negative(void **state)
{
    (void)state;
    test_each(steps_may_be_negative_on);
}

static void nothing_seen_is_zero_and_nan_stays_hidden_on(tt_stream *s, const char *name)
{
    (void)name;
    problem p;
    float bias[ROWS * KEYS], out[ROWS * LD];
    fill(&p);
    for (int i = 0; i < ROWS * KEYS; i++)
        bias[i] = i % KEYS == 2 || i < KEYS ? -INFINITY : 0;
    for (int c = 0; c < HEADS * DIM; c++)
        p.v[2 * LD + c] = NAN; /* a key nobody sees */
    run(s, &p, out, bias, 0, KEYS, 1);
    for (int c = 0; c < HEADS * DIM; c++) {
        assert_true(out[c] == 0);
        for (int r = 1; r < ROWS; r++)
            assert_true(isfinite(out[r * LD + c]));
    }
}
static void nothing_seen_is_zero_and_nan_stays_hidden(void **state)
{
    (void)state;
    test_each(nothing_seen_is_zero_and_nan_stays_hidden_on);
}

static void bad_shapes_are_named_on(tt_stream *s, const char *name)
{
    (void)name;
    problem p = {0};
    float out[ROWS * LD];
    tt_err e = {0};
    tt_biased_span span = {.query_rows = 1, .k = p.k, .v = p.v, .ld_kv = 1, .keys = 2, .bias = out};
    assert_int_equal(s->op.attention_biased(s, out, LD, p.q, LD, &span, 1, HEADS, DIM, 1,
                                            TT_COMPUTE_F32, &e), TT_EINVAL);
    span.ld_kv = LD;
    span.bias = NULL;
    assert_int_equal(s->op.attention_biased(s, out, LD, p.q, LD, &span, 1, HEADS, DIM, 1,
                                            TT_COMPUTE_F32, &e), TT_EINVAL);
    assert_int_equal(s->op.attention_biased(s, out, 1, p.q, LD, &span, 0, HEADS, DIM, 1,
                                            TT_COMPUTE_F32, &e), TT_EINVAL);
}
static void bad_shapes_are_named(void **state)
{
    (void)state;
    test_each(bad_shapes_are_named_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_formula),
        cmocka_unit_test(steps_may_be_negative),
        cmocka_unit_test(nothing_seen_is_zero_and_nan_stays_hidden),
        cmocka_unit_test(bad_shapes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
