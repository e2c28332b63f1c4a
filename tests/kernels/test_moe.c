/* Mixtures of experts: route, linear_grouped, combine.
 *
 * What can go wrong: a tie or NaN that chooses no or the same expert twice, a group limit that is
 * passed over, pairs sorted into the wrong place, experts without rows, a row whose choice or bits
 * depend on its neighbours. */
#include "tests/kernels/ops.h"

enum { ROWS = 37, WIDTH = 24, EXPERTS = 12, MOST = EXPERTS };

typedef struct {
    float weight[ROWS * MOST];
    int32_t place[ROWS * MOST], row[ROWS * MOST], begin[EXPERTS + 1];
} routes;

static tt_matrix *open_matrix(tt_stream *s, const float *w, int64_t n, int64_t k)
{
    tt_matrix *m;
    tt_err e = {0};
    tt_weight part = test_weight(w, TT_F32, n, k);
    test_ok(s->op.matrix_open(s, &m, &part, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR, &e), &e);
    return m;
}

static int32_t expert_of(const routes *r, int32_t pair)
{
    int32_t e = 0;
    while (r->begin[e + 1] <= r->place[pair])
        e++;
    return e;
}

/* The definition, straight from the logits and in double. */
static void plain_choice(const double *l, const tt_router *how, int32_t *choice, double *weight)
{
    double score[EXPERTS], rank[EXPERTS], max = -1e300, sum = 0, total = 1e-20;
    bool open[EXPERTS], taken_group[EXPERTS] = {false};
    for (int i = 0; i < how->experts; i++)
        max = l[i] > max ? l[i] : max;
    for (int i = 0; i < how->experts; i++)
        sum += exp(l[i] - max);
    for (int i = 0; i < how->experts; i++) {
        score[i] = how->sigmoid ? 1 / (1 + exp(-l[i])) : exp(l[i] - max) / sum;
        rank[i] = score[i] + (how->bias ? how->bias[i] : 0);
        open[i] = false;
    }
    int size = how->experts / how->groups;
    for (int g = 0; g < how->top_groups; g++) {
        int best = -1;
        double most = 0;
        for (int k = 0; k < how->groups; k++) {
            double a = -1e300, b = -1e300;
            for (int i = k * size; i < (k + 1) * size; i++)
                if (rank[i] > a) {
                    b = a;
                    a = rank[i];
                } else if (rank[i] > b) {
                    b = rank[i];
                }
            double value = size > 1 ? a + b : a;
            if (!taken_group[k] && (best < 0 || value > most)) {
                best = k;
                most = value;
            }
        }
        taken_group[best] = true;
        for (int i = best * size; i < (best + 1) * size; i++)
            open[i] = true;
    }
    for (int j = 0; j < how->top_k; j++) {
        int best = -1;
        for (int i = 0; i < how->experts; i++)
            if (open[i] && (best < 0 || rank[i] > rank[best]))
                best = i;
        open[best] = false;
        choice[j] = best;
        weight[j] = score[best];
        total += score[best];
    }
    for (int j = 0; j < how->top_k; j++)
        weight[j] = (how->normalise ? weight[j] / total : weight[j]) * how->scale;
}

static const float bias[EXPERTS] = {0.1f, -0.2f, 0, 0.3f, 0, 0, -0.1f, 0.2f, 0, 0.05f, 0, -0.3f};
static const tt_router routers[] = {
    {.experts = EXPERTS, .top_k = 1, .groups = 1, .top_groups = 1, .scale = 1},
    {.experts = EXPERTS, .top_k = 3, .groups = 1, .top_groups = 1, .scale = 1},
    {.experts = EXPERTS, .top_k = EXPERTS, .groups = 1, .top_groups = 1, .scale = 1},
    {.experts = EXPERTS,
     .top_k = 4,
     .sigmoid = true,
     .bias = bias,
     .groups = 4,
     .top_groups = 2,
     .normalise = true,
     .scale = 2.5f},
    {.experts = EXPERTS,
     .top_k = 2,
     .sigmoid = true,
     .bias = bias,
     .groups = EXPERTS,
     .top_groups = 5,
     .normalise = true,
     .scale = 1},
};
enum { ROUTERS = sizeof routers / sizeof *routers };

static void choices_are_those_of_the_definition_on(tt_stream *s, const char *name)
{
    float *x = test_rows(ROWS, WIDTH, WIDTH, 1), *w = test_rows(EXPERTS, WIDTH, WIDTH, 1);
    tt_matrix *gate = open_matrix(s, w, EXPERTS, WIDTH);
    static routes have, alone;
    for (int k = 0; k < ROUTERS; k++) {
        const tt_router *how = &routers[k];
        int32_t top = how->top_k;
        tt_err e = {0};
        test_ok(s->op.route(s, have.weight, have.place, have.row, have.begin, x, WIDTH, ROWS, gate,
                            how, &e),
                &e);
        assert_int_equal(have.begin[0], 0);
        assert_int_equal(have.begin[EXPERTS], ROWS * top);
        for (int r = 0; r < ROWS; r++) {
            double l[EXPERTS], weight[EXPERTS];
            int32_t choice[EXPERTS];
            for (int i = 0; i < EXPERTS; i++) {
                l[i] = 0;
                for (int c = 0; c < WIDTH; c++)
                    l[i] += (double)x[r * WIDTH + c] * w[i * WIDTH + c];
            }
            plain_choice(l, how, choice, weight);
            test_ok(s->op.route(s, alone.weight, alone.place, alone.row, alone.begin, x + r * WIDTH,
                                WIDTH, 1, gate, how, &e),
                    &e);
            for (int j = 0; j < top; j++) {
                int pair = r * top + j;
                if (expert_of(&have, pair) != choice[j] ||
                    fabs((double)have.weight[pair] - weight[j]) > 1e-5)
                    fail_msg("%s: router %d, row %d: expert %d weight %g, not %d weight %g", name,
                             k, r, expert_of(&have, pair), (double)have.weight[pair], choice[j],
                             weight[j]);
                assert_int_equal(have.row[have.place[pair]], r);
                assert_int_equal(expert_of(&alone, j), choice[j]);
                assert_memory_equal(&alone.weight[j], &have.weight[pair], sizeof(float));
            }
        }
        for (int i = 1; i < ROWS * top; i++) { /* sorted by expert, then row */
            bool border = false;
            for (int g = 1; g < EXPERTS; g++)
                border |= have.begin[g] == i;
            assert_true(border || have.row[i] > have.row[i - 1]);
        }
    }
    s->op.matrix_close(s, gate);
    free(x);
    free(w);
}
static void choices_are_those_of_the_definition(void **state)
{
    (void)state;
    test_each(choices_are_those_of_the_definition_on);
}

/* Logits are the input itself: the gate is the identity. */
static void ties_and_nan_still_choose_different_experts_on(tt_stream *s, const char *name)
{
    (void)name;
    float w[4 * 4] = {0},
                x[4][4] = {
                    {1, 1, 1, 1}, {NAN, 0, 0, 0}, {2, NAN, NAN, NAN}, {-INFINITY, 5, 5, -INFINITY}};
    for (int i = 0; i < 4; i++)
        w[i * 5] = 1;
    tt_matrix *gate = open_matrix(s, w, 4, 4);
    tt_router how = {.experts = 4,
                     .top_k = 2,
                     .sigmoid = true,
                     .groups = 1,
                     .top_groups = 1,
                     .normalise = true,
                     .scale = 1};
    static routes r;
    tt_err e = {0};
    test_ok(s->op.route(s, r.weight, r.place, r.row, r.begin, x, 4, 4, gate, &how, &e), &e);
    assert_int_equal(expert_of(&r, 0), 0);
    assert_int_equal(expert_of(&r, 1), 1);
    for (int i = 0; i < 4; i++) /* a NaN reaches every logit of its row */
        assert_int_not_equal(expert_of(&r, 2 * i), expert_of(&r, 2 * i + 1));
    s->op.matrix_close(s, gate);
}
static void ties_and_nan_still_choose_different_experts(void **state)
{
    (void)state;
    test_each(ties_and_nan_still_choose_different_experts_on);
}

static void grouped_products_are_plain_products_on(tt_stream *s, const char *name)
{
    enum { GROUPS = 5, N = 19, LDY = 23, PAIRS = 41 };
    static const int32_t begin[GROUPS + 1] = {0, 0, 1, 30, 30, PAIRS};
    tt_matrix *m[GROUPS];
    float *w[GROUPS], *x = test_rows(PAIRS, WIDTH, WIDTH, 1);
    float *have = test_blank(PAIRS, LDY), *want = test_blank(PAIRS, LDY);
    tt_err e = {0};
    for (int g = 0; g < GROUPS; g++) {
        w[g] = test_rows(N, WIDTH, WIDTH, 1);
        m[g] = open_matrix(s, w[g], N, WIDTH);
    }
    test_ok(s->op.linear_grouped(s, have, LDY, x, WIDTH, PAIRS, (const tt_matrix *const *)m, GROUPS,
                                 begin, &e),
            &e);
    test_padding_untouched(name, have, PAIRS, N, LDY);
    for (int g = 0; g < GROUPS; g++)
        for (int r = begin[g]; r < begin[g + 1]; r++) {
            test_ok(s->op.linear(s, want + r * LDY, LDY, x + r * WIDTH, WIDTH, 1, m[g], false, &e),
                    &e);
            test_same_bits(name, have + r * LDY, want + r * LDY, N);
        }
    for (int g = 0; g < GROUPS; g++) {
        s->op.matrix_close(s, m[g]);
        free(w[g]);
    }
    free(x);
    free(have);
    free(want);
}
static void grouped_products_are_plain_products(void **state)
{
    (void)state;
    test_each(grouped_products_are_plain_products_on);
}

static void combine_adds_the_weighted_rows_on(tt_stream *s, const char *name)
{
    enum { N = 3, TOP = 2, D = 5, LD = 7 };
    static const float weight[N * TOP] = {0.5f, 0.25f, 1, 0, -1, 2};
    static const int32_t place[N * TOP] = {5, 0, 1, 2, 3, 4};
    float *x = test_rows(N * TOP, D, LD, 1), *y = test_rows(N, D, LD, 1), want[N][D];
    for (int r = 0; r < N; r++)
        for (int i = 0; i < D; i++)
            want[r][i] = y[r * LD + i] + weight[r * TOP] * x[place[r * TOP] * LD + i] +
                         weight[r * TOP + 1] * x[place[r * TOP + 1] * LD + i];
    tt_err e = {0};
    test_ok(s->op.combine(s, y, LD, x, LD, weight, place, N, TOP, D, &e), &e);
    for (int r = 0; r < N; r++)
        test_close(name, y + r * LD, want[r], 1, D, D, 1e-6);
    free(x);
    free(y);
}
static void combine_adds_the_weighted_rows(void **state)
{
    (void)state;
    test_each(combine_adds_the_weighted_rows_on);
}

static void what_cannot_be_is_refused_on(tt_stream *s, const char *name)
{
    (void)name;
    float w[4 * 4] = {0}, x[16] = {0};
    static routes r;
    tt_matrix *gate = open_matrix(s, w, 4, 4);
    tt_err e = {0};
    const tt_router good = {.experts = 4, .top_k = 2, .groups = 2, .top_groups = 1, .scale = 1};
#define REFUSED(change)                                                                 \
    do {                                                                                \
        tt_router how = good;                                                           \
        change;                                                                         \
        assert_int_equal(                                                               \
            s->op.route(s, r.weight, r.place, r.row, r.begin, x, 4, 1, gate, &how, &e), \
            TT_EINVAL);                                                                 \
        assert_non_null(strstr(e.text, "route"));                                       \
    } while (0)
    REFUSED(how.top_k = 3); /* a group has only two */
    REFUSED(how.top_k = 0);
    REFUSED(how.top_k = TT_MAX_ROUTES + 1);
    REFUSED(how.groups = 3);
    REFUSED(how.groups = 0);
    REFUSED(how.top_groups = 3);
    REFUSED(how.top_groups = 0);
    REFUSED(how.experts = 3);
#undef REFUSED
    static const int32_t open_end[3] = {0, 1, 1}, backward[3] = {0, 2, 1}, late[3] = {1, 1, 2};
    const tt_matrix *two[2] = {gate, gate};
    assert_int_equal(s->op.linear_grouped(s, x, 4, x, 4, 2, two, 2, open_end, &e), TT_EINVAL);
    assert_int_equal(s->op.linear_grouped(s, x, 4, x, 4, 1, two, 2, backward, &e), TT_EINVAL);
    assert_int_equal(s->op.linear_grouped(s, x, 4, x, 4, 2, two, 2, late, &e), TT_EINVAL);
    assert_int_equal(s->op.combine(s, x, 4, x, 4, x, r.place, 1, 0, 4, &e), TT_EINVAL);
    assert_int_equal(s->op.combine(s, x, 3, x, 4, x, r.place, 1, 1, 4, &e), TT_EINVAL);
    s->op.matrix_close(s, gate);
}
static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    test_each(what_cannot_be_is_refused_on);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_are_those_of_the_definition),
        cmocka_unit_test(ties_and_nan_still_choose_different_experts),
        cmocka_unit_test(grouped_products_are_plain_products),
        cmocka_unit_test(combine_adds_the_weighted_rows),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests_name("moe", tests, NULL, NULL);
}
