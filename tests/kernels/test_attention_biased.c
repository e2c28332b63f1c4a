/* What can go wrong: a bias taken of another head, query or key, steps that are zero or negative,
 * an order counted from elsewhere, two forms of bias in one call, a query that sees nothing, a bias
 * of minus infinity that still lets NaN through; and where keys come in blocks: a first block of
 * which nothing is seen, tails of tiles, bits that change with the queries beside a query. */
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

/* A bias by order is its table, and every place of `from` another one. */
static void an_order_is_its_table_on(tt_stream *s, const char *name)
{
    (void)name;
    problem p;
    float table[ROWS * KEYS], have[ROWS * LD], want[ROWS * LD];
    tt_err e = {0};
    fill(&p);
    for (int from = 0; from <= KEYS; from++) {
        tt_biased_span span = {.query_rows = ROWS, .k = p.k, .v = p.v, .ld_kv = LD, .keys = KEYS,
                               .by_order = true, .from = from,
                               .later = from % 2 ? -INFINITY : -1.25f};
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < KEYS; j++)
                table[r * KEYS + j] = j >= from && j > r ? span.later : 0;
        memset(have, 0, sizeof have);
        memset(want, 0, sizeof want);
        test_ok(s->op.attention_biased(s, have, LD, p.q, LD, &span, 1, HEADS, DIM, 0.7f,
                                       TT_COMPUTE_F32, &e), &e);
        run(s, &p, want, table, 0, KEYS, 1);
        assert_memory_equal(have, want, sizeof have);
    }
}
static void an_order_is_its_table(void **state)
{
    (void)state;
    test_each(an_order_is_its_table_on);
}

/* In thirds: the same bits where there are no units for it. */
static void thirds_are_float32_on(tt_stream *s, const char *name)
{
    (void)name;
    problem p;
    float bias[ROWS * KEYS], have[ROWS * LD], want[ROWS * LD];
    tt_err e = {0};
    if (s->op.has_compute(s, TT_COMPUTE_THIRDS))
        return;
    fill(&p);
    for (int i = 0; i < ROWS * KEYS; i++)
        bias[i] = test_uniform();
    tt_biased_span biased = {.query_rows = ROWS, .k = p.k, .v = p.v, .ld_kv = LD, .keys = KEYS,
                             .bias = bias, .bias_query = KEYS, .bias_key = 1};
    tt_span span = {.query_rows = ROWS, .k = p.k, .v = p.v, .ld_kv = LD, .keys = KEYS,
                    .see = TT_SEE_ALL};
    for (int with = 0; with < 2; with++) {
        for (int thirds = 0; thirds < 2; thirds++) {
            tt_compute compute = thirds ? TT_COMPUTE_THIRDS : TT_COMPUTE_F32;
            float *out = thirds ? have : want;
            memset(out, 0, sizeof have);
            test_ok(with ? s->op.attention_biased(s, out, LD, p.q, LD, &biased, 1, HEADS, DIM,
                                                  0.7f, compute, &e)
                         : s->op.attention(s, out, LD, p.q, LD, &span, 1, HEADS, HEADS, DIM, 0.7f,
                                           compute, &e), &e);
        }
        assert_memory_equal(have, want, sizeof have);
    }
}
static void thirds_are_float32(void **state)
{
    (void)state;
    test_each(thirds_are_float32_on);
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

/* Two spans, the first of MANY keys read backwards: more than are taken at a time. */
enum { MANY = 700, FEW = 45, WIDE = 36, ALL = 41, FIRST = 23, MORE = 3 * WIDE + 5 };

static void large_bias(float *bias)
{
    for (int i = 0; i < 3 * FIRST * MANY; i++) {
        int row = i / MANY % FIRST, key = MANY - 1 - i % MANY;
        bias[i] = test_uniform() < 0.2f ? -INFINITY : test_normal();
        if (row == 3 || (row == 4 && key < 600) || (row == 5 && key != 650))
            bias[i] = -INFINITY;
    }
}

static void large_run(tt_stream *s, float *out, const float *q, const float *kv, const float *bias,
                      int first, int rows, tt_compute compute)
{
    tt_err e = {0};
    tt_biased_span span[] = {
        {.query_row = first, .query_rows = rows, .k = kv, .v = kv + MANY * MORE, .ld_kv = MORE,
         .keys = MANY, .bias = bias + MANY - 1 + first * MANY, .bias_head = FIRST * MANY,
         .bias_query = MANY, .bias_key = -1},
        {.query_row = FIRST, .query_rows = ALL - FIRST, .k = kv + 7 * MORE, .v = kv, .ld_kv = MORE,
         .keys = FEW, .bias = bias, .bias_query = 1, .bias_key = 1}};
    test_ok(s->op.attention_biased(s, out, MORE, q, MORE, span, rows < FIRST ? 1 : 2, 3, WIDE, 0.4f,
                                   compute, &e), &e);
}

static void many_keys_agree_with_the_twin_on(tt_stream *s, const char *name)
{
    float *q = test_rows(ALL, 3 * WIDE, MORE, 1), *kv = test_rows(2 * MANY, 3 * WIDE, MORE, 1);
    float *bias = malloc(3 * FIRST * MANY * sizeof *bias);
    tt_stream *twin = test_open(&test_devices[0], 1);
    large_bias(bias);
    q[2 * MORE] = 1e30f; /* scores beyond float32 */
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        float *want = test_blank(ALL, MORE), *have = test_blank(ALL, MORE);
        float *alone = test_blank(ALL, MORE);
        large_run(twin, want, q, kv, bias, 0, FIRST, (tt_compute)compute);
        large_run(s, have, q, kv, bias, 0, FIRST, (tt_compute)compute);
        test_close(name, have, want, ALL, 3 * WIDE, MORE, compute ? 2e-3 : 2e-6);
        test_padding_untouched(name, have, ALL, 3 * WIDE, MORE);
        large_run(s, alone, q, kv, bias, 4, 6, (tt_compute)compute);
        for (int r = 4; r < 10; r++)
            test_same_bits(name, have + r * MORE, alone + r * MORE, 3 * WIDE);
        free(want);
        free(have);
        free(alone);
        kv[(MANY + 100) * MORE + 5] = INFINITY; /* a value that nobody sees */
        for (int i = 0; i < 3 * FIRST; i++)
            bias[i * MANY + MANY - 1 - 100] = -INFINITY;
    }
    tt_stream_close(twin);
    free(bias);
    free(kv);
    free(q);
}
static void many_keys_agree_with_the_twin(void **state)
{
    (void)state;
    test_each(many_keys_agree_with_the_twin_on);
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
    tt_biased_span order = {.query_rows = 1, .k = p.k, .v = p.v, .ld_kv = LD, .keys = 2,
                            .by_order = true, .later = NAN};
    assert_int_equal(s->op.attention_biased(s, out, LD, p.q, LD, &order, 1, HEADS, DIM, 1,
                                            TT_COMPUTE_F32, &e), TT_EINVAL);
    order.later = -1;
    order.from = -1;
    assert_int_equal(s->op.attention_biased(s, out, LD, p.q, LD, &order, 1, HEADS, DIM, 1,
                                            TT_COMPUTE_F32, &e), TT_EINVAL);
    order.from = 0;
    order.bias = out;
    assert_int_equal(s->op.attention_biased(s, out, LD, p.q, LD, &order, 1, HEADS, DIM, 1,
                                            TT_COMPUTE_F32, &e), TT_EINVAL);
    order.bias = NULL;
    tt_biased_span both[] = {order, span};
    both[1].bias = out;
    assert_int_equal(s->op.attention_biased(s, out, LD, p.q, LD, both, 2, HEADS, DIM, 1,
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
        cmocka_unit_test(an_order_is_its_table),
        cmocka_unit_test(thirds_are_float32),
        cmocka_unit_test(nothing_seen_is_zero_and_nan_stays_hidden),
        cmocka_unit_test(many_keys_agree_with_the_twin),
        cmocka_unit_test(bad_shapes_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
