/* Attention.
 *
 * What can go wrong: key counts around a block or panel, head sizes that fill no vector, grouped
 * heads reading the wrong keys, a mask off by one, a query that sees nothing, and a row that
 * changes with the rows, keys or spans it does not see - even when those hold NaN. */
#include "tests/kernels/ops.h"

typedef struct {
    int64_t rows, keys, heads, kv_heads, dim;
    tt_see see;
    int32_t block; /* with TT_SEE_ALL: the hole */
    int64_t query_column, key_column;
} layout;

/* One span after another in q and out, every span with its own keys. */
typedef struct {
    layout l;
    float *q, *k, *v;
    int64_t ldq, ld_kv;
    tt_span span;
} problem;

static problem random_problem(layout l)
{
    problem p = {.l = l, .ldq = l.heads * l.dim + 3, .ld_kv = l.kv_heads * l.dim + 5};
    p.q = test_rows(l.rows, l.heads * l.dim, p.ldq, 1);
    p.k = test_rows(l.keys, l.kv_heads * l.dim, p.ld_kv, 1);
    p.v = test_rows(l.keys, l.kv_heads * l.dim, p.ld_kv, 1);
    p.span = (tt_span){.query_rows = l.rows,
                       .query_column = l.query_column,
                       .k = p.k,
                       .v = p.v,
                       .ld_kv = p.ld_kv,
                       .keys = l.keys,
                       .key_column = l.key_column,
                       .see = l.see,
                       .block = l.block,
                       .hole = l.see == TT_SEE_ALL ? l.block : 0};
    return p;
}
static void free_problem(problem *p)
{
    free(p->q);
    free(p->k);
    free(p->v);
}

static void run(tt_stream *s, const problem *p, float *out, tt_compute compute)
{
    tt_err e = {0};
    const layout *l = &p->l;
    test_ok(s->op.attention(s, out, p->ldq, p->q, p->ldq, &p->span, 1, l->heads, l->kv_heads,
                            l->dim, 1 / sqrtf((float)l->dim), compute, &e),
            &e);
}

static const layout layouts[] = {
    {1, 1, 1, 1, 1, TT_SEE_ALL, 0, 0, 0},       {3, 0, 2, 1, 8, TT_SEE_ALL, 0, 0, 0},
    {0, 5, 2, 1, 8, TT_SEE_ALL, 0, 0, 0},       {7, 63, 2, 2, 64, TT_SEE_ALL, 0, 0, 0},
    {6, 64, 4, 2, 32, TT_SEE_ALL, 0, 0, 0},     {13, 65, 3, 1, 17, TT_SEE_ALL, 0, 0, 0},
    {5, 255, 2, 1, 80, TT_SEE_ALL, 0, 0, 0},    {12, 256, 2, 2, 16, TT_SEE_ALL, 0, 0, 0},
    {8, 257, 2, 1, 128, TT_SEE_ALL, 0, 0, 0},   {2, 1000, 1, 1, 33, TT_SEE_ALL, 0, 0, 0},
    {20, 20, 2, 1, 24, TT_SEE_CAUSAL, 0, 0, 0}, {300, 300, 1, 1, 16, TT_SEE_CAUSAL, 0, 0, 0},
    {9, 40, 2, 2, 20, TT_SEE_CAUSAL, 0, 31, 0}, /* a tail after a cached prefix */
    {9, 30, 2, 2, 20, TT_SEE_CAUSAL, 0, 4, 7},  /* the first rows see nothing */
    {70, 70, 2, 1, 16, TT_SEE_BLOCK, 8, 0, 0},  {70, 330, 1, 1, 16, TT_SEE_BLOCK, 32, 260, 0},
    {5, 12, 1, 1, 8, TT_SEE_BLOCK, 1, 3, 2},
    {9, 40, 2, 1, 16, TT_SEE_ALL, 22, 0, 0},    /* shadow rows, their columns in the middle */
    {30, 1040, 1, 1, 16, TT_SEE_ALL, 500, 0, 0}, /* and across blocks of keys */
    {3, 2, 1, 1, 8, TT_SEE_ALL, 1, 0, 0},       /* the last row's is beyond the keys */
    {2, 1, 1, 1, 8, TT_SEE_ALL, 1, 0, 0},       /* the first sees nothing */
    {4, 9, 1, 1, 8, TT_SEE_ALL, 10, 0, 7},      /* keys that do not begin at column 0 */
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

static void agrees_on(tt_stream *s, const char *name)
{
    tt_stream *twin = test_open(&test_devices[0], 1);
    for (int i = 0; i < LAYOUTS; i++)
        for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
            problem p = random_problem(layouts[i]);
            int64_t width = p.l.heads * p.l.dim;
            float *want = test_blank(p.l.rows, p.ldq), *have = test_blank(p.l.rows, p.ldq);
            char what[96];
            snprintf(what, sizeof what, "attention %d %s on %s", i, compute ? "bf16" : "f32", name);
            run(twin, &p, want, (tt_compute)compute);
            run(s, &p, have, (tt_compute)compute);
            test_close(what, have, want, p.l.rows, width, p.ldq, compute ? 3e-3 : 2e-6);
            test_padding_untouched(what, have, p.l.rows, width, p.ldq);
            free_problem(&p);
            free(want);
            free(have);
        }
    tt_stream_close(twin);
}
static void every_version_agrees_with_the_twin(void **state)
{
    (void)state;
    test_each(agrees_on);
}

static void equal_scores_average_the_visible_values_on(tt_stream *s, const char *name)
{
    (void)name;
    enum { KEYS = 10 };
    float q[4] = {0}, k[KEYS * 2] = {0}, v[KEYS * 2], out[8];
    for (int i = 0; i < KEYS; i++) {
        v[2 * i] = (float)i;
        v[2 * i + 1] = (float)(i * 2);
    }
    /* Query heads 0, 1 share key head 0 (channel 0), heads 2, 3 share key head 1 (channel 1). */
    tt_span span = {.query_rows = 1, .query_column = 4, .k = k, .v = v, .ld_kv = 2, .keys = KEYS};
    static const struct {
        tt_see see;
        int32_t block;
        float last;
    } c[] = {{TT_SEE_ALL, 0, 9}, {TT_SEE_CAUSAL, 0, 4}, {TT_SEE_BLOCK, 3, 5}, {TT_SEE_BLOCK, 7, 6}};
    for (int i = 0; i < 4; i++) {
        span.see = c[i].see;
        span.block = c[i].block;
        tt_err e = {0};
        test_ok(s->op.attention(s, out, 4, q, 4, &span, 1, 4, 2, 1, 1, TT_COMPUTE_F32, &e), &e);
        for (int h = 0; h < 4; h++)
            assert_float_equal(out[h], c[i].last / 2 * (float)(1 + h / 2), 1e-6);
    }
}
static void equal_scores_average_the_visible_values(void **state)
{
    (void)state;
    test_each(equal_scores_average_the_visible_values_on);
}

/* A hole leaves exactly its key out, whatever that holds. */
static void a_hole_hides_one_key_on(tt_stream *s, const char *name)
{
    enum { ROWS = 5, KEYS = 30, AT = 11 };
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++)
        for (int hostile = 0; hostile < 2; hostile++) {
            problem p = random_problem((layout){ROWS, KEYS, 2, 1, 20, TT_SEE_ALL, 0, 0, 0});
            problem with = p;
            float *y = test_blank(ROWS, p.ldq), *want = test_blank(ROWS, p.ldq);
            with.span.hole = AT + 1;
            if (hostile)
                p.k[AT * p.ld_kv] = p.v[AT * p.ld_kv + 1] = NAN;
            run(s, &with, y, (tt_compute)compute);
            /* Row 0 without its key: the last key takes its place. */
            memcpy(p.k + AT * p.ld_kv, p.k + (KEYS - 1) * p.ld_kv, 20 * sizeof(float));
            memcpy(p.v + AT * p.ld_kv, p.v + (KEYS - 1) * p.ld_kv, 20 * sizeof(float));
            p.span.keys = KEYS - 1;
            run(s, &p, want, (tt_compute)compute);
            test_close(name, y, want, 1, 40, p.ldq, compute ? 3e-3 : 2e-6);
            free_problem(&p);
            free(y);
            free(want);
        }
}
static void a_hole_hides_one_key(void **state)
{
    (void)state;
    test_each(a_hole_hides_one_key_on);
}

/* Rows alone, in any number and place, among other spans: always the same bits. */
static void a_row_is_the_same_in_any_batch_on(tt_stream *s, const char *name)
{
    static const int64_t batch[] = {1, 2, 3, 5, 8, 16, 17, 32, 100, 128};
    static const layout base[] = {{128, 300, 2, 1, 40, TT_SEE_ALL, 0, 0, 0},
                                  {128, 300, 2, 1, 40, TT_SEE_CAUSAL, 0, 150, 0},
                                  {128, 300, 2, 1, 40, TT_SEE_BLOCK, 24, 150, 0}};
    for (int i = 0; i < 3; i++)
        for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
            problem p = random_problem(base[i]);
            int64_t width = p.l.heads * p.l.dim;
            float *alone = test_blank(128, p.ldq), *y = test_blank(128, p.ldq);
            tt_span one = p.span;
            tt_err e = {0};
            one.query_rows = 1;
            for (int64_t r = 0; r < 128; r++) {
                one.query_row = r;
                one.query_column = p.span.query_column + r;
                test_ok(s->op.attention(s, alone, p.ldq, p.q, p.ldq, &one, 1, 2, 1, 40, 0.2f,
                                        (tt_compute)compute, &e),
                        &e);
            }
            for (size_t b = 0; b < sizeof batch / sizeof *batch; b++) {
                /* As one span of batch[b] rows, then cut into two spans at an odd place. */
                for (int cut = 0; cut <= 1 && cut < batch[b]; cut++) {
                    int64_t rows = batch[b], from = (128 - rows) / 3, first = cut ? rows / 3 : rows;
                    tt_span two[2] = {p.span, p.span};
                    two[0].query_row = from;
                    two[0].query_rows = first;
                    two[1].query_row = from + first;
                    two[1].query_rows = rows - first;
                    for (int t = 0; t < 2; t++)
                        two[t].query_column = p.span.query_column + two[t].query_row;
                    test_ok(s->op.attention(s, y, p.ldq, p.q, p.ldq, two, 1 + cut, 2, 1, 40, 0.2f,
                                            (tt_compute)compute, &e),
                            &e);
                    char what[96];
                    snprintf(what, sizeof what, "attention %d %s on %s, %lld rows", i,
                             compute ? "bf16" : "f32", name, (long long)rows);
                    for (int64_t r = from; r < from + rows; r++)
                        test_same_bits(what, y + r * p.ldq, alone + r * p.ldq, width);
                }
            }
            free_problem(&p);
            free(alone);
            free(y);
        }
}
static void a_row_is_the_same_in_any_batch(void **state)
{
    (void)state;
    test_each(a_row_is_the_same_in_any_batch_on);
}

static void unseen_keys_change_no_bit_on(tt_stream *s, const char *name)
{
    static const float hostile[] = {NAN, INFINITY, -INFINITY, 3.4e38f, 1e10f};
    enum { FIRST = 31 }; /* seen from row 31 on */
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++)
        for (int h = 0; h < 5; h++)
            for (int which = 1; which <= 3; which++) { /* in keys, in values, in both */
                problem p = random_problem((layout){70, 70, 2, 1, 20, TT_SEE_CAUSAL, 0, 0, 0});
                float *clean = test_blank(70, p.ldq), *y = test_blank(70, p.ldq);
                run(s, &p, clean, (tt_compute)compute);
                for (int64_t j = FIRST; j < 70; j++) {
                    if (which & 1)
                        p.k[j * p.ld_kv + 3] = hostile[h];
                    if (which & 2)
                        p.v[j * p.ld_kv + 5] = hostile[h];
                }
                run(s, &p, y, (tt_compute)compute);
                for (int r = 0; r < FIRST; r++)
                    test_same_bits(name, y + r * p.ldq, clean + r * p.ldq, 40);
                for (int r = FIRST; r < 70 && h == 0; r++)
                    assert_false(isfinite(y[r * p.ldq + 5]));
                free_problem(&p);
                free(clean);
                free(y);
            }
}
static void unseen_keys_change_no_bit(void **state)
{
    (void)state;
    test_each(unseen_keys_change_no_bit_on);
}

static void a_hostile_query_spoils_only_its_own_row_on(tt_stream *s, const char *name)
{
    static const float hostile[] = {NAN, INFINITY, -INFINITY, 1e38f};
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++)
        for (int h = 0; h < 4; h++) {
            problem p = random_problem((layout){20, 50, 1, 1, 32, TT_SEE_ALL, 0, 0, 0});
            float *clean = test_blank(20, p.ldq), *y = test_blank(20, p.ldq);
            run(s, &p, clean, (tt_compute)compute);
            p.q[9 * p.ldq + 1] = hostile[h];
            run(s, &p, y, (tt_compute)compute);
            for (int r = 0; r < 20; r++)
                if (r != 9)
                    test_same_bits(name, y + r * p.ldq, clean + r * p.ldq, 32);
            if ((isfinite(y[9 * p.ldq + 1]) != 0) != (h == 3)) /* 1e38 is held by the twin */
                fail_msg("%s: %g gives %g", name, (double)hostile[h], (double)y[9 * p.ldq + 1]);
            free_problem(&p);
            free(clean);
            free(y);
        }
}
static void a_hostile_query_spoils_only_its_own_row(void **state)
{
    (void)state;
    test_each(a_hostile_query_spoils_only_its_own_row_on);
}

static void many_spans_of_all_kinds_in_one_call_on(tt_stream *s, const char *name)
{
    enum { SPANS = 40, LD = 64 };
    problem p[SPANS];
    tt_span span[SPANS];
    int64_t rows = 0;
    for (int i = 0; i < SPANS; i++) {
        p[i] = random_problem(
            (layout){i % 9, (i * 7) % 40, 4, 2, 16, (tt_see)(i % 3), 1 + i % 5, i % 3, i % 2});
        span[i] = p[i].span;
        span[i].query_row = rows;
        rows += p[i].l.rows;
    }
    float *q = test_blank(rows, LD), *out = test_blank(rows, LD);
    for (int i = 0; i < SPANS; i++)
        for (int64_t r = 0; r < p[i].l.rows; r++)
            memcpy(q + (span[i].query_row + r) * LD, p[i].q + r * p[i].ldq, LD * sizeof *q);
    for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
        tt_err e = {0};
        test_ok(s->op.attention(s, out, LD, q, LD, span, SPANS, 4, 2, 16, 0.25f,
                                (tt_compute)compute, &e),
                &e);
        for (int i = 0; i < SPANS; i++) {
            float *y = test_blank(p[i].l.rows, p[i].ldq);
            run(s, &p[i], y, (tt_compute)compute);
            for (int64_t r = 0; r < p[i].l.rows; r++)
                test_same_bits(name, out + (span[i].query_row + r) * LD, y + r * p[i].ldq, LD);
            free(y);
        }
    }
    for (int i = 0; i < SPANS; i++)
        free_problem(&p[i]);
    free(q);
    free(out);
}
static void many_spans_of_all_kinds_in_one_call(void **state)
{
    (void)state;
    test_each(many_spans_of_all_kinds_in_one_call_on);
}

static void shapes_that_cannot_be_are_refused_on(tt_stream *s, const char *name)
{
    (void)name;
    float x[64] = {0};
    tt_err e = {0};
    tt_span p = {.query_rows = 1, .k = x, .v = x, .ld_kv = 8, .keys = 2};
#define CALL(span, heads, kv, dim, ld) \
    s->op.attention(s, x, ld, x, ld, &(span), 1, heads, kv, dim, 1, TT_COMPUTE_F32, &e)
    assert_int_equal(CALL(p, 3, 2, 4, 12), TT_EINVAL);
    assert_non_null(strstr(e.text, "attention"));
    assert_int_equal(CALL(p, 2, 2, 0, 8), TT_EINVAL);
    assert_int_equal(CALL(p, 2, 2, 4, 7), TT_EINVAL);
    tt_span bad = p;
    bad.ld_kv = 7;
    assert_int_equal(CALL(bad, 2, 2, 4, 8), TT_EINVAL);
    bad = p;
    bad.keys = -1;
    assert_int_equal(CALL(bad, 2, 2, 4, 8), TT_EINVAL);
    bad = p;
    bad.see = TT_SEE_BLOCK; /* block is 0 */
    assert_int_equal(CALL(bad, 2, 2, 4, 8), TT_EINVAL);
    bad = p;
    bad.see = TT_SEE_CAUSAL;
    bad.hole = 1; /* would need another rule */
    assert_int_equal(CALL(bad, 2, 2, 4, 8), TT_EINVAL);
#undef CALL
}
static void shapes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    test_each(shapes_that_cannot_be_are_refused_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_version_agrees_with_the_twin),
        cmocka_unit_test(equal_scores_average_the_visible_values),
        cmocka_unit_test(a_hole_hides_one_key),
        cmocka_unit_test(a_row_is_the_same_in_any_batch),
        cmocka_unit_test(unseen_keys_change_no_bit),
        cmocka_unit_test(a_hostile_query_spoils_only_its_own_row),
        cmocka_unit_test(many_spans_of_all_kinds_in_one_call),
        cmocka_unit_test(shapes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
