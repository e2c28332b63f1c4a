/* What some families need of the CUDA plug-in, against the twins and against itself: norms of
 * heads, modulation, mixtures of experts, rows kept between passes; what it says about the device.
 *
 * What can go wrong: a row that takes its neighbour's modulation, a choice that a rounded score or
 * a tie turned, pairs in the wrong place, experts without rows or with more than a tile, a product
 * with the weights of the next expert, other bits than a plain product has, a replayed pass that
 * still uses the routes of the one before. */
#include <pthread.h>

#include "tests/kernels/cuda.h"

static void drop(void *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gpu->op.release(gpu, list[i]);
}
#define DROP(...) \
    drop((void *const[]){__VA_ARGS__}, sizeof((void *[]){__VA_ARGS__}) / sizeof(void *))

static void *at(void *p, int64_t elements)
{
    return (char *)p + (size_t)elements * tt_dtype_size(gpu->act);
}

/* --- rows --- */

static void heads_of(int64_t rows, int64_t heads, int64_t dim)
{
    int64_t width = heads * dim, ld = width + 3, n = rows * ld;
    float *x = test_rows(rows, width, ld, 3), *w = test_rows(1, dim, dim, 1);
    void *dx = acts(x, n), *again = acts(x, n), *dw = to_device(w, (size_t)dim * 4);
    tt_err e = {0};
    char what[64];
    snprintf(what, sizeof what, "%s, %lld heads of %lld", kind(), (long long)heads, (long long)dim);
    test_ok(twin->op.rmsnorm_heads(twin, x, ld, w, rows, heads, dim, 1e-5f, &e), &e);
    test_ok(gpu->op.rmsnorm_heads(gpu, dx, ld, dw, rows, heads, dim, 1e-5f, &e), &e);
    test_ok(gpu->op.rmsnorm_heads(gpu, at(again, (rows - 1) * ld), ld, dw, 1, heads, dim, 1e-5f,
                                  &e), &e);
    float *have = floats(dx, n), *alone = floats(again, n);
    test_close(what, have, x, rows, width, ld, tolerance());
    test_same_bits(what, have + (rows - 1) * ld, alone + (rows - 1) * ld, width);
    DROP(dx, again, dw);
    free(have);
    free(alone);
    free(x);
    free(w);
}
/* Each head has a weight and a bias of its own. */
static void centred_heads(int64_t rows, int64_t heads, int64_t dim)
{
    int64_t width = heads * dim, ld = width + 5, n = rows * ld;
    float *x = test_rows(rows, width, ld, 3), *w = test_rows(1, 2 * width, 2 * width, 1);
    void *dx = acts(x, n), *again = acts(x, n), *dw = to_device(w, (size_t)(2 * width) * 4);
    const float *b = (const float *)dw + width;
    tt_err e = {0};
    char what[64];
    snprintf(what, sizeof what, "%s, %lld heads of %lld", kind(), (long long)heads, (long long)dim);
    test_ok(twin->op.layernorm_heads(twin, x, ld, w, w + width, rows, heads, dim, 1e-5f, &e), &e);
    test_ok(gpu->op.layernorm_heads(gpu, dx, ld, dw, b, rows, heads, dim, 1e-5f, &e), &e);
    test_ok(gpu->op.layernorm_heads(gpu, at(again, (rows - 1) * ld), ld, dw, b, 1, heads, dim,
                                    1e-5f, &e), &e);
    float *have = floats(dx, n), *alone = floats(again, n);
    test_close(what, have, x, rows, width, ld, tolerance());
    test_same_bits(what, have + (rows - 1) * ld, alone + (rows - 1) * ld, width);
    DROP(dx, again, dw);
    free(have);
    free(alone);
    free(x);
    free(w);
}
static void each_heads(void)
{
    centred_heads(9, 32, 64);
    centred_heads(3, 5, 33);
    heads_of(9, 5, 128);
    heads_of(3, 1, 1);
    heads_of(7, 12, 65);
    heads_of(2, 3, 300);
}
static void heads_are_normalised_by_themselves(void **state)
{
    (void)state;
    BOTH_TYPES(each_heads());
}

typedef struct {
    int64_t d, ld;
    float *x, *y, *w, *mod;
    void *dx, *dy, *dw, *dmod, *index;
} modulated;

enum { ROWS = 9, CONDITIONS = 4 };
static const int32_t condition[ROWS] = {3, 0, 1, 1, 2, 0, 3, 2, 1};

/* Vectors of a sequence: shift, scale and gate, one after the other. */
static modulated open_modulated(int64_t d)
{
    modulated m = {.d = d, .ld = d + (d % 2 ? 3 : 8)};
    m.x = test_rows(ROWS, d, m.ld, 2);
    m.y = test_rows(ROWS, d, m.ld, 1);
    m.w = test_rows(1, d, d, 1);
    m.mod = test_rows(CONDITIONS, 3 * d, 3 * d, 1);
    m.dx = acts(m.x, ROWS * m.ld);
    m.dy = acts(m.y, ROWS * m.ld);
    m.dmod = acts(m.mod, CONDITIONS * 3 * d);
    m.dw = to_device(m.w, (size_t)d * 4);
    m.index = to_device(condition, sizeof condition);
    return m;
}
static void close_modulated(modulated *m)
{
    DROP(m->dx, m->dy, m->dw, m->dmod, m->index);
    free(m->x);
    free(m->y);
    free(m->w);
    free(m->mod);
}

static tt_status run_adaln(tt_stream *s, const modulated *m, void *y, const void *x, const void *w,
                           void *mod, const void *index, int64_t rows, tt_err *e)
{
    bool on_gpu = s == gpu;
    void *scale = on_gpu ? at(mod, m->d) : (float *)mod + m->d;
    return s->op.adaln(s, y, m->ld, x, m->ld, w, mod, scale, 3 * m->d, index, rows, m->d, 1e-5f, e);
}

static void modulation_of(int64_t d)
{
    modulated m = open_modulated(d);
    int64_t n = ROWS * m.ld, last = (ROWS - 1) * m.ld;
    const int32_t *index = (const int32_t *)m.index;
    tt_err e = {0};
    char what[64];
    snprintf(what, sizeof what, "modulation %s of %lld", kind(), (long long)d);
    test_ok(twin->op.gate_add(twin, m.y, m.ld, m.x, m.ld, m.mod + 2 * d, 3 * d, condition, ROWS, d,
                              &e), &e);
    test_ok(gpu->op.gate_add(gpu, m.dy, m.ld, m.dx, m.ld, at(m.dmod, 2 * d), 3 * d, index, ROWS, d,
                             &e), &e);
    float *have = floats(m.dy, n);
    test_close(what, have, m.y, ROWS, d, m.ld, tolerance());
    free(have);
    test_ok(twin->op.gelu(twin, m.y, m.ld, m.x, m.ld, ROWS, d, &e), &e);
    test_ok(gpu->op.gelu(gpu, m.dy, m.ld, m.dx, m.ld, ROWS, d, &e), &e);
    have = floats(m.dy, n);
    test_close(what, have, m.y, ROWS, d, m.ld, tolerance());
    free(have);
    for (int unit = TT_UNIT_RELU; unit <= TT_UNIT_QUICK_GELU; unit++) {
        test_ok(twin->op.unit(twin, m.y, m.ld, m.x, m.ld, ROWS, d, (tt_unit)unit, &e), &e);
        test_ok(gpu->op.unit(gpu, m.dy, m.ld, m.dx, m.ld, ROWS, d, (tt_unit)unit, &e), &e);
        have = floats(m.dy, n);
        test_close(what, have, m.y, ROWS, d, m.ld, tolerance());
        free(have);
    }
    void *bias = to_device(m.mod, (size_t)d * 4);
    test_ok(twin->op.layernorm(twin, m.y, m.ld, m.x, m.ld, m.w, m.mod, ROWS, d, 1e-5f, &e), &e);
    test_ok(gpu->op.layernorm(gpu, m.dy, m.ld, m.dx, m.ld, (const float *)m.dw,
                              (const float *)bias, ROWS, d, 1e-5f, &e), &e);
    have = floats(m.dy, n);
    test_close(what, have, m.y, ROWS, d, m.ld, 2 * tolerance());
    free(have);
    DROP(bias);
    test_ok(run_adaln(gpu, &m, m.dy, at(m.dx, last), m.dw, m.dmod, index + ROWS - 1, 1, &e), &e);
    float *alone = floats(m.dy, d);
    test_ok(run_adaln(twin, &m, m.x, m.x, m.w, m.mod, condition, ROWS, &e), &e);
    test_ok(run_adaln(gpu, &m, m.dx, m.dx, m.dw, m.dmod, index, ROWS, &e), &e);
    have = floats(m.dx, n);
    test_close(what, have, m.x, ROWS, d, m.ld, 2 * tolerance());
    test_same_bits(what, have + last, alone, d);
    free(have);
    free(alone);
    close_modulated(&m);
}
static void each_modulation(void)
{
    static const int64_t dims[] = {1, 7, 64, 100, 257, 1024, 4100};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        modulation_of(dims[i]);
}
static void modulation_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_modulation());
}

/* Few rows are spread over more threads than many: the same bits. */
static void modulation_of_many(int64_t d)
{
    enum { MANY = 8 * 160 + 3, FEW = 5 };
    int64_t n = MANY * d, last = (MANY - FEW) * d;
    float *x = test_rows(MANY, d, d, 1), *mod = test_rows(CONDITIONS, 3 * d, 3 * d, 1);
    float *w = test_rows(1, d, d, 1);
    int32_t which[MANY];
    for (int i = 0; i < MANY; i++)
        which[i] = i % CONDITIONS;
    void *dx = acts(x, n), *dy = acts(x, n), *dmod = acts(mod, CONDITIONS * 3 * d);
    void *few = acts(x, n), *dw = to_device(w, (size_t)d * 4);
    void *index = to_device(which, sizeof which);
    tt_err e = {0};
    for (int rows = MANY; rows >= FEW; rows -= MANY - FEW) {
        int64_t from = rows == FEW ? last : 0;
        void *y = rows == FEW ? few : dy;
        test_ok(gpu->op.adaln(gpu, at(y, from), d, at(dx, from), d, (const float *)dw, dmod,
                              at(dmod, d), 3 * d, (const int32_t *)index + from / d, rows, d,
                              1e-5f, &e), &e);
    }
    float *have = floats(few, n), *want = floats(dy, n);
    test_same_bits("adaln of few rows", have + last, want + last, FEW * d);
    DROP(dx, dy, dmod, few, dw, index);
    free(have);
    free(want);
    free(x);
    free(mod);
    free(w);
}
static void each_modulation_of_many(void)
{
    static const int64_t dims[] = {32, 264, 512, 1000, 1024};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        modulation_of_many(dims[i]);
}
static void few_modulated_rows_are_those_of_many(void **state)
{
    (void)state;
    BOTH_TYPES(each_modulation_of_many());
}

/* --- routes --- */

enum { MOST_ROWS = 300, MOST_EXPERTS = 96, MOST_TOP = 12 };

typedef struct {
    float weight[MOST_ROWS * MOST_TOP];
    int32_t place[MOST_ROWS * MOST_TOP], row[MOST_ROWS * MOST_TOP], begin[MOST_EXPERTS + 1];
} routes;

typedef struct {
    void *weight, *place, *row, *begin;
} device_routes;

static device_routes room_for_routes(void)
{
    const routes *r = NULL;
    return (device_routes){device(sizeof r->weight), device(sizeof r->place), device(sizeof r->row),
                           device(sizeof r->begin)};
}
static void take_routes(routes *to, const device_routes *d, int64_t pairs, int experts)
{
    from_device(to->weight, d->weight, (size_t)pairs * 4);
    from_device(to->place, d->place, (size_t)pairs * 4);
    from_device(to->row, d->row, (size_t)pairs * 4);
    from_device(to->begin, d->begin, (size_t)(experts + 1) * 4);
}

static int expert_of(const routes *r, int64_t pair)
{
    int e = 0;
    while (r->begin[e + 1] <= r->place[pair])
        e++;
    return e;
}

static void same_routes(const char *what, const routes *have, const routes *want, int64_t rows,
                        const tt_router *how)
{
    int64_t pairs = rows * how->top_k;
    for (int g = 0; g <= how->experts; g++)
        if (have->begin[g] != want->begin[g])
            fail_msg("%s: expert %d begins at %d, not %d", what, g, have->begin[g], want->begin[g]);
    for (int64_t i = 0; i < pairs; i++) {
        if (have->place[i] != want->place[i] || have->row[i] != want->row[i])
            fail_msg("%s: pair %lld at %d, row %d there; not %d, %d", what, (long long)i,
                     have->place[i], have->row[i], want->place[i], want->row[i]);
        if (!(fabsf(have->weight[i] - want->weight[i]) <= 2e-5f) &&
            !(isnan(have->weight[i]) && isnan(want->weight[i])))
            fail_msg("%s: pair %lld weighs %g, not %g", what, (long long)i,
                     (double)have->weight[i], (double)want->weight[i]);
    }
}

static tt_router router_on(const tt_router *host, void *bias)
{
    tt_router how = *host;
    how.bias = host->bias ? bias : NULL;
    return how;
}

/* Few bits, so that every sum is exact in any order: the same ties as the twin has. NaN stays. */
static void make_exact(float *x, int64_t n, float unit)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = isnan(x[i]) ? x[i] : (float)((int)(test_word() % 17) - 8) * unit;
}

static void routes_of(const tt_router *how, int64_t rows, int64_t k)
{
    static routes have, want, alone;
    int64_t ld = k + (k % 8 ? 1 : 8);
    float *x = test_rows(rows, k, ld, 1), *gate = test_rows(how->experts, k, k, 1);
    make_exact(x, rows * ld, 0.25f);
    make_exact(gate, how->experts * k, 0.0625f);
    tt_weight w = test_weight(gate, TT_F32, how->experts, k);
    void *dx = acts(x, rows * ld), *bias = NULL;
    if (how->bias)
        bias = to_device(how->bias, (size_t)how->experts * 4);
    tt_router on = router_on(how, bias);
    tt_matrix *a = open_on(twin, &w, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, &w, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    device_routes d = room_for_routes();
    tt_err e = {0};
    char what[96];
    snprintf(what, sizeof what, "%s: %d of %d experts, %lld rows of %lld", kind(), how->top_k,
             how->experts, (long long)rows, (long long)k);
    test_ok(twin->op.route(twin, want.weight, want.place, want.row, want.begin, x, ld, rows, a, how,
                           &e), &e);
    test_ok(gpu->op.route(gpu, d.weight, d.place, d.row, d.begin, dx, ld, rows, b, &on, &e), &e);
    take_routes(&have, &d, rows * how->top_k, how->experts);
    same_routes(what, &have, &want, rows, how);
    for (int64_t r = 0; r < rows; r += 7) {
        test_ok(gpu->op.route(gpu, d.weight, d.place, d.row, d.begin, at(dx, r * ld), ld, 1, b, &on,
                              &e), &e);
        take_routes(&alone, &d, how->top_k, how->experts);
        for (int j = 0; j < how->top_k; j++)
            assert_int_equal(expert_of(&alone, j), expert_of(&have, r * how->top_k + j));
        test_same_bits(what, have.weight + r * how->top_k, alone.weight, how->top_k);
    }
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    DROP(dx, bias, d.weight, d.place, d.row, d.begin);
    free(x);
    free(gate);
}
static void each_routes(void)
{
    static float bias[MOST_EXPERTS];
    for (int i = 0; i < MOST_EXPERTS; i++)
        bias[i] = 0.1f * test_normal();
    static const tt_router routers[] = {
        {.experts = 1, .top_k = 1, .groups = 1, .top_groups = 1, .scale = 1},
        {.experts = 12, .top_k = 12, .groups = 1, .top_groups = 1, .scale = 1},
        {.experts = 64, .top_k = 8, .groups = 1, .top_groups = 1, .scale = 1},
        {.experts = 96, .top_k = 6, .sigmoid = true, .bias = bias, .groups = 8, .top_groups = 3,
         .normalise = true, .scale = 2.5f},
        {.experts = 35, .top_k = 4, .sigmoid = true, .bias = bias, .groups = 35, .top_groups = 9,
         .normalise = true, .scale = 1},
    };
    for (size_t i = 0; i < sizeof routers / sizeof *routers; i++) {
        routes_of(&routers[i], 1, 24);
        routes_of(&routers[i], 37, 129);
        routes_of(&routers[i], MOST_ROWS, 2048);
    }
}
static void routes_agree_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_routes());
}

/* Logits are the input itself: the gate is the identity. */
static void ties_and_nan_choose(void)
{
    static routes have, want;
    float one[36] = {0}, x[4 * 6] = {1, 1, 1, 1, 1, 1,   NAN, 0, 0, 0, 0, 0,
                                     0, 2, 2, -1, 2, 0,  -8, -8, 5, 5, -8, -8};
    for (int i = 0; i < 6; i++)
        one[i * 7] = 1;
    tt_weight w = test_weight(one, TT_F32, 6, 6);
    tt_matrix *a = open_on(twin, &w, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, &w, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    void *dx = acts(x, 24);
    device_routes d = room_for_routes();
    tt_err e = {0};
    for (int kind_of = 0; kind_of < 4; kind_of++) {
        tt_router how = {.experts = 6, .top_k = 2, .sigmoid = kind_of % 2, .normalise = true,
                         .groups = kind_of < 2 ? 1 : 3, .top_groups = 1, .scale = 1};
        test_ok(twin->op.route(twin, want.weight, want.place, want.row, want.begin, x, 6, 4, a,
                               &how, &e), &e);
        test_ok(gpu->op.route(gpu, d.weight, d.place, d.row, d.begin, dx, 6, 4, b, &how, &e), &e);
        take_routes(&have, &d, 8, 6);
        same_routes("ties", &have, &want, 4, &how);
    }
    tt_router wrong = {.experts = 6, .top_k = 3, .groups = 3, .top_groups = 1, .scale = 1};
    assert_int_equal(gpu->op.route(gpu, d.weight, d.place, d.row, d.begin, dx, 6, 4, b, &wrong, &e),
                     TT_EINVAL);
    assert_non_null(strstr(e.text, "route"));
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    DROP(dx, d.weight, d.place, d.row, d.begin);
}
static void ties_and_nan_choose_as_the_twin_does(void **state)
{
    (void)state;
    BOTH_TYPES(ties_and_nan_choose());
}

/* --- products of groups --- */

enum { GROUPS = 40 };

typedef struct {
    int64_t n, k, more; /* more: stride beyond the width */
} shape;

/* Sizes of groups: many empty ones, single rows, whole tiles, more than a tile. */
static int64_t group_sizes(int32_t *begin, int large)
{
    static const int size[] = {0, 1, 0, 3, 64, 0, 2, 17, 0, 1};
    begin[0] = 0;
    for (int g = 0; g < GROUPS; g++)
        begin[g + 1] = begin[g] + size[g * 7 % 10] + (large && g % 9 == 4 ? 150 : 0);
    return begin[GROUPS];
}

static void grouped_of(const shape *p, tt_dtype type, tt_compute compute, int large, double eps)
{
    int32_t begin[GROUPS + 1];
    int64_t rows = group_sizes(begin, large), ldx = p->k + p->more, ldy = p->n + p->more;
    tt_weight w[GROUPS];
    tt_matrix *a[GROUPS], *b[GROUPS];
    tt_compute plain = compute == TT_COMPUTE_FP8 ? TT_COMPUTE_BF16 : compute;
    for (int g = 0; g < GROUPS; g++) {
        w[g] = weight_of(type, p->n, p->k);
        a[g] = open_on(twin, &w[g], 1, NULL, plain, TT_MATRIX_LINEAR);
        b[g] = open_on(gpu, &w[g], 1, NULL, compute, TT_MATRIX_LINEAR);
    }
    float *x = test_rows(rows, p->k, ldx, 1), *want = test_rows(rows, p->n, ldy, 1);
    void *dx = acts(x, rows * ldx), *dy = acts(want, rows * ldy), *one = acts(want, rows * ldy);
    void *first = to_device(begin, sizeof begin);
    tt_err e = {0};
    char what[96];
    snprintf(what, sizeof what, "groups, %s %s %lld x %lld x %lld", tt_dtype_name(type), kind(),
             (long long)rows, (long long)p->n, (long long)p->k);
    test_ok(twin->op.linear_grouped(twin, want, ldy, x, ldx, rows, (const tt_matrix *const *)a,
                                    GROUPS, begin, &e), &e);
    test_ok(gpu->op.linear_grouped(gpu, dy, ldy, dx, ldx, rows, (const tt_matrix *const *)b, GROUPS,
                                   first, &e), &e);
    for (int g = 0; g < GROUPS; g++)
        test_ok(gpu->op.linear(gpu, at(one, begin[g] * ldy), ldy, at(dx, begin[g] * ldx), ldx,
                               begin[g + 1] - begin[g], b[g], false, &e), &e);
    float *have = floats(dy, rows * ldy), *alone = floats(one, rows * ldy);
    test_close(what, have, want, rows, p->n, ldy, eps);
    test_same_bits(what, have, alone, rows * ldy); /* what lies between rows is left alone too */
    for (int g = 0; g < GROUPS; g++) {
        twin->op.matrix_close(twin, a[g]);
        gpu->op.matrix_close(gpu, b[g]);
        free_weight(&w[g]);
    }
    DROP(dx, dy, one, first);
    free(have);
    free(alone);
    free(want);
    free(x);
}
static const shape shapes[] = {{1, 1, 0},    {19, 24, 4},   {130, 65, 3}, {64, 128, 0},
                               {200, 72, 8}, {256, 520, 8}, {129, 328, 16}};
static void each_grouped(void)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int large = 0; large < 2; large++) {
            grouped_of(&shapes[i], TT_BF16, compute_of(), large, tolerance());
            grouped_of(&shapes[i], TT_I8, compute_of(), large, tolerance());
        }
}
static void grouped_products_are_plain_products(void **state)
{
    (void)state;
    BOTH_TYPES(each_grouped());
}
static void grouped_products_take_8_bits(void **state)
{
    (void)state;
    need_gpu();
    if (!gpu->op.has_compute(gpu, TT_COMPUTE_FP8))
        skip();
    gpu->act = TT_BF16;
    for (size_t i = 3; i < sizeof shapes / sizeof *shapes; i++)
        for (int large = 0; large < 2; large++)
            grouped_of(&shapes[i], TT_BF16, TT_COMPUTE_FP8, large, 0.06);
}

static void what_does_not_group_is_refused(void **state)
{
    (void)state;
    need_gpu();
    gpu->act = TT_F32;
    tt_weight w[2] = {weight_of(TT_F32, 4, 4), weight_of(TT_F32, 5, 4)};
    float bias[4] = {0};
    tt_matrix *m[3] = {open_on(gpu, &w[0], 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR),
                       open_on(gpu, &w[1], 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR),
                       open_on(gpu, &w[0], 1, bias, TT_COMPUTE_F32, TT_MATRIX_LINEAR)};
    tt_err e = {0};
    for (int i = 1; i < 3; i++) {
        const tt_matrix *two[2] = {m[0], m[i]};
        assert_int_equal(gpu->op.linear_grouped(gpu, NULL, 8, NULL, 4, 2, two, 2, NULL, &e),
                         TT_EINVAL);
        assert_non_null(strstr(e.text, "linear_grouped"));
    }
    const tt_matrix *same[1] = {m[0]};
    assert_int_equal(gpu->op.linear_grouped(gpu, NULL, 4, NULL, 3, 2, same, 1, NULL, &e),
                     TT_EINVAL);
    assert_int_equal(gpu->op.linear_grouped(gpu, NULL, 4, NULL, 4, 2, same, 0, NULL, &e),
                     TT_EINVAL);
    assert_int_equal(gpu->op.linear_grouped(gpu, NULL, 4, NULL, 4, 0, same, 1, NULL, &e), TT_OK);
    assert_int_equal(gpu->op.combine(gpu, NULL, 4, NULL, 4, NULL, NULL, 1, 0, 4, &e), TT_EINVAL);
    assert_int_equal(gpu->op.combine(gpu, NULL, 3, NULL, 4, NULL, NULL, 1, 1, 4, &e), TT_EINVAL);
    for (int i = 0; i < 3; i++)
        gpu->op.matrix_close(gpu, m[i]);
    free_weight(&w[0]);
    free_weight(&w[1]);
}

/* --- a whole layer, recorded and replayed with other rows --- */

enum { LAYER_ROWS = 48, D = 64, EXPERTS = 16, TOP = 3 };

typedef struct {
    tt_matrix *gate, *w[EXPERTS];
    void *x, *y, *pairs, *out;
    device_routes r;
} layer;

static const tt_router layer_router = {.experts = EXPERTS, .top_k = TOP, .groups = 1,
                                       .top_groups = 1, .normalise = true, .scale = 1};

static tt_status run_layer(tt_stream *s, const layer *l, const void *x, tt_err *e)
{
    int64_t n = LAYER_ROWS * TOP;
    size_t bytes = LAYER_ROWS * D * tt_dtype_size(s->act);
    tt_status st = s->op.upload(s, l->x, x, bytes, e);
    if (!st)
        st = s->op.upload(s, l->y, x, bytes, e);
    if (!st)
        st = s->op.route(s, l->r.weight, l->r.place, l->r.row, l->r.begin, l->x, D, LAYER_ROWS,
                         l->gate, &layer_router, e);
    if (!st)
        st = s->op.gather(s, l->pairs, D, l->x, D, l->r.row, n, D, e);
    if (!st)
        st = s->op.linear_grouped(s, l->out, D, l->pairs, D, n, (const tt_matrix *const *)l->w,
                                  EXPERTS, l->r.begin, e);
    return st ? st
              : s->op.combine(s, l->y, D, l->out, D, l->r.weight, l->r.place, LAYER_ROWS, TOP, D,
                              e);
}

static layer open_layer(const tt_weight *gate, const tt_weight *w)
{
    size_t row = D * tt_dtype_size(gpu->act);
    layer l = {.x = device(LAYER_ROWS * row), .y = device(LAYER_ROWS * row),
               .pairs = device(LAYER_ROWS * TOP * row), .out = device(LAYER_ROWS * TOP * row),
               .r = room_for_routes()};
    l.gate = open_on(gpu, gate, 1, NULL, TT_COMPUTE_F32, TT_MATRIX_LINEAR);
    for (int g = 0; g < EXPERTS; g++)
        l.w[g] = open_on(gpu, &w[g], 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    return l;
}
static void close_layer(layer *l)
{
    gpu->op.matrix_close(gpu, l->gate);
    for (int g = 0; g < EXPERTS; g++)
        gpu->op.matrix_close(gpu, l->w[g]);
    DROP(l->x, l->y, l->pairs, l->out, l->r.weight, l->r.place, l->r.row, l->r.begin);
}

static void layers_replay(void)
{
    tt_weight gate = weight_of(TT_F32, EXPERTS, D), w[EXPERTS];
    for (int g = 0; g < EXPERTS; g++)
        w[g] = weight_of(TT_BF16, D, D);
    layer l = open_layer(&gate, w);
    int64_t key[3] = {77, gpu->act, LAYER_ROWS}, n = LAYER_ROWS * D;
    tt_err e = {0};
    for (int turn = 0; turn < 5; turn++) { /* live, recorded, replayed */
        float *x = test_rows(LAYER_ROWS, D, D, 2);
        void *dx = acts(x, n), *host = malloc((size_t)n * 4);
        from_device(host, dx, (size_t)n * tt_dtype_size(gpu->act));
        test_ok(gpu->op.pass_begin(gpu, key, 3, &e), &e);
        test_ok(gpu->op.pass_end(gpu, run_layer(gpu, &l, host, &e), &e), &e);
        float *have = floats(l.y, n);
        test_ok(run_layer(gpu, &l, host, &e), &e);
        float *want = floats(l.y, n);
        test_same_bits("a replayed layer", have, want, n);
        DROP(dx);
        free(host);
        free(have);
        free(want);
        free(x);
    }
    close_layer(&l);
    free_weight(&gate);
    for (int g = 0; g < EXPERTS; g++)
        free_weight(&w[g]);
}
static void a_recorded_layer_takes_new_routes(void **state)
{
    (void)state;
    BOTH_TYPES(layers_replay());
}

/* Two models one after the other, whose passes have one key: the second one's matrix lies where
 * the first one's was, and has more inputs. */
static void passes_of_two_matrices(void)
{
    enum { MANY = 20, N = 72, MOST = 192 };
    float *x = test_rows(MANY, MOST, MOST, 1);
    void *dx = acts(x, MANY * MOST), *dy = device((size_t)MANY * N * 4);
    int64_t key[3] = {79, gpu->act + 2 * in_thirds, MANY};
    tt_err e = {0};
    for (int64_t k = 128; k <= MOST; k += 64) {
        tt_weight w = weight_of(TT_F32, N, k);
        tt_matrix *m = open_on(gpu, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
        test_ok(gpu->op.linear(gpu, dy, N, dx, MOST, MANY, m, false, &e), &e);
        float *want = floats(dy, MANY * N);
        for (int turn = 0; turn < 4; turn++) {
            test_ok(gpu->op.linear(gpu, dy, N, dx, MOST, 1, m, true, &e), &e); /* spoils y */
            test_ok(gpu->op.pass_begin(gpu, key, 3, &e), &e);
            tt_status st = gpu->op.linear(gpu, dy, N, dx, MOST, MANY, m, false, &e);
            test_ok(gpu->op.pass_end(gpu, st, &e), &e);
            float *have = floats(dy, MANY * N);
            test_same_bits("a pass of a matrix", have, want, MANY * N);
            free(have);
        }
        gpu->op.matrix_close(gpu, m);
        free_weight(&w);
        free(want);
    }
    DROP(dx, dy);
    free(x);
}
static void passes_go_with_their_matrices(void **state)
{
    (void)state;
    BOTH_TYPES(passes_of_two_matrices());
    IN_THIRDS(passes_of_two_matrices());
}

static void combines_agree(void)
{
    enum { N = 23, TOP_K = 5, WIDE = 77, LD = 80 };
    float weight[N * TOP_K];
    int32_t place[N * TOP_K];
    for (int i = 0; i < N * TOP_K; i++) {
        weight[i] = test_normal();
        place[i] = i * 31 % (N * TOP_K);
    }
    float *x = test_rows(N * TOP_K, WIDE, LD, 1), *y = test_rows(N, WIDE, LD, 1);
    void *dx = acts(x, N * TOP_K * LD), *dy = acts(y, N * LD), *again = acts(y, N * LD);
    void *dw = to_device(weight, sizeof weight), *dp = to_device(place, sizeof place);
    const float *last_w = (const float *)dw + (N - 1) * TOP_K;
    const int32_t *last_p = (const int32_t *)dp + (N - 1) * TOP_K;
    tt_err e = {0};
    test_ok(twin->op.combine(twin, y, LD, x, LD, weight, place, N, TOP_K, WIDE, &e), &e);
    test_ok(gpu->op.combine(gpu, dy, LD, dx, LD, dw, dp, N, TOP_K, WIDE, &e), &e);
    test_ok(gpu->op.combine(gpu, at(again, (N - 1) * LD), LD, dx, LD, last_w, last_p, 1, TOP_K,
                            WIDE, &e), &e);
    float *have = floats(dy, N * LD), *alone = floats(again, N * LD);
    test_close("combine", have, y, N, WIDE, LD, tolerance());
    test_same_bits("combine", have + (N - 1) * LD, alone + (N - 1) * LD, WIDE);
    DROP(dx, dy, dw, dp, again);
    free(have);
    free(alone);
    free(x);
    free(y);
}
static void combine_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(combines_agree());
}

/* --- rows kept between passes --- */

enum { IDS = 4500, INNER = 48, OUTER = 37, KEPT = 141, LDX = INNER + 8 };

/* Every fourth row is free, biased, allowed few ids, or nothing at all. */
static void kept_draws(tt_draw *d)
{
    static const tt_id_value bias[] = {{3, -INFINITY}, {17, 1.5f}};
    static const int32_t allow[] = {2, 17, 4200};
    for (int r = 0; r < KEPT; r++) {
        d[r] = (tt_draw){.top_p = 1, .target = -1};
        if (r % 4 == 1) {
            d[r].bias = bias;
            d[r].n_bias = 2;
            d[r].limit = IDS - 9;
        } else if (r % 4 >= 2) {
            d[r].allow = allow;
            d[r].n_allow = r % 4 == 2 ? 3 : 0;
        }
    }
}

typedef struct {
    tt_matrix *head[2], *table[2], *narrow; /* of the twin, of the GPU */
    tt_weight mapped; /* what the twin's table reads */
    float *x, *before;
    void *dx, *dbefore;
    tt_draw d[KEPT];
} kept;

static kept open_kept(tt_dtype type)
{
    kept p = {.x = test_rows(KEPT, INNER, LDX, 2), .before = test_rows(KEPT, INNER, LDX, 2)};
    tt_weight head = weight_of(TT_BF16, IDS, INNER), table = weight_of(type, IDS, OUTER);
    tt_weight narrow = weight_of(TT_F32, IDS - 1, OUTER);
    tt_stream *const s[2] = {twin, gpu};
    for (int i = 0; i < 2; i++) {
        p.head[i] = open_on(s[i], &head, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
        p.table[i] = open_on(s[i], &table, 1, NULL, compute_of(), TT_MATRIX_TABLE);
    }
    p.narrow = open_on(gpu, &narrow, 1, NULL, compute_of(), TT_MATRIX_TABLE);
    p.dx = acts(p.x, KEPT * LDX);
    p.dbefore = acts(p.before, KEPT * LDX);
    kept_draws(p.d);
    p.mapped = table;
    free_weight(&head);
    free_weight(&narrow);
    return p;
}
static void close_kept(kept *p)
{
    for (int i = 0; i < 2; i++) {
        (i ? gpu : twin)->op.matrix_close(i ? gpu : twin, p->head[i]);
        (i ? gpu : twin)->op.matrix_close(i ? gpu : twin, p->table[i]);
    }
    gpu->op.matrix_close(gpu, p->narrow);
    DROP(p->dx, p->dbefore);
    free_weight(&p->mapped);
    free(p->x);
    free(p->before);
}

static void rows_moved(const kept *p)
{
    static float want[KEPT], have[KEPT], alone;
    tt_err e = {0};
    test_ok(twin->op.head_kl(twin, want, p->x, LDX, p->before, LDX, KEPT, p->head[0], p->d, &e),
            &e);
    test_ok(gpu->op.head_kl(gpu, have, p->dx, LDX, p->dbefore, LDX, KEPT, p->head[1], p->d, &e),
            &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    for (int r = 0; r < KEPT; r++)
        if (!(fabsf(have[r] - want[r]) <= 1e-4f * (1 + fabsf(want[r]))))
            fail_msg("%s: row %d moved by %g, not %g", kind(), r, (double)have[r],
                     (double)want[r]);
    for (int r = 0; r < KEPT; r += 10) {
        test_ok(gpu->op.head_kl(gpu, &alone, at(p->dx, r * LDX), LDX, at(p->dbefore, r * LDX), LDX,
                                1, p->head[1], p->d + r, &e), &e);
        test_ok(gpu->op.sync(gpu, &e), &e);
        test_same_bits("head_kl", &have[r], &alone, 1);
    }
    test_ok(gpu->op.head_kl(gpu, have, p->dx, LDX, p->dx, LDX, KEPT, p->head[1], p->d, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    for (int r = 0; r < KEPT; r++)
        if (have[r] != 0)
            fail_msg("%s: row %d moved by %g from itself", kind(), r, (double)have[r]);
}

static void rows_expect(const kept *p)
{
    enum { LDY = OUTER + 3 };
    float *want = test_blank(KEPT, LDY);
    void *dy = device(KEPT * LDY * 4), *one = device(LDY * 4);
    tt_err e = {0};
    test_ok(twin->op.head_mean(twin, want, LDY, p->x, LDX, KEPT, p->head[0], p->table[0], p->d,
                               &e), &e);
    test_ok(gpu->op.head_mean(gpu, dy, LDY, p->dx, LDX, KEPT, p->head[1], p->table[1], p->d, &e),
            &e);
    float *have = floats(dy, KEPT * LDY);
    test_close("head_mean", have, want, KEPT, OUTER, LDY, gpu->act == TT_F32 ? 1e-4 : 4e-3);
    for (int r = 0; r < KEPT; r += 10) {
        test_ok(gpu->op.head_mean(gpu, one, LDY, at(p->dx, r * LDX), LDX, 1, p->head[1],
                                  p->table[1], p->d + r, &e), &e);
        float *alone = floats(one, OUTER);
        test_same_bits("head_mean", have + r * LDY, alone, OUTER);
        free(alone);
    }
    assert_int_equal(gpu->op.head_mean(gpu, dy, OUTER - 1, p->dx, LDX, 1, p->head[1], p->table[1],
                                       p->d, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "head_mean"));
    assert_int_equal(gpu->op.head_mean(gpu, dy, LDY, p->dx, LDX, 1, p->head[1], p->narrow, p->d,
                                       &e), TT_EINVAL);
    assert_int_equal(gpu->op.head_kl(gpu, want, p->dx, LDX, p->dx, INNER - 1, 1, p->head[1], p->d,
                                     &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "head_kl"));
    DROP(dy, one);
    free(have);
    free(want);
}
static void kept_rows(void)
{
    static const tt_dtype type[] = {TT_BF16, TT_I8};
    for (int t = 0; t < 2; t++) {
        kept p = open_kept(type[t]);
        rows_moved(&p);
        rows_expect(&p);
        close_kept(&p);
    }
}
static void kept_rows_agree_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(kept_rows());
}

/* Rows of scale 0 are left alone: their addend, which is not to be read, is NaN. */
static void scaled_rows(void)
{
    enum { N = 6, LD = 91, WIDE = 83 };
    static const float scale[N] = {0.25f, 0, -2, 1, 0, 0.5f};
    float *x = test_rows(N, WIDE, LD, 1), *y = test_rows(N, WIDE, LD, 1);
    for (int i = 0; i < N * LD; i++)
        x[i] = scale[i / LD] != 0 ? x[i] : NAN;
    void *dx = acts(x, N * LD), *dy = acts(y, N * LD), *ds = to_device(scale, sizeof scale);
    void *again = acts(y, N * LD);
    tt_err e = {0};
    test_ok(twin->op.add_scaled(twin, y, LD, x, LD, scale, N, WIDE, &e), &e);
    test_ok(gpu->op.add_scaled(gpu, dy, LD, dx, LD, ds, N, WIDE, &e), &e);
    test_ok(gpu->op.add_scaled(gpu, at(again, 5 * LD), LD, at(dx, 5 * LD), LD, (float *)ds + 5, 1,
                               WIDE, &e), &e);
    float *have = floats(dy, N * LD), *alone = floats(again, N * LD);
    test_close("add_scaled", have, y, N, WIDE, LD, tolerance());
    test_same_bits("add_scaled", have + 5 * LD, alone + 5 * LD, WIDE);
    DROP(dx, dy, ds, again);
    free(have);
    free(alone);
    free(x);
    free(y);
}
static void add_scaled_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(scaled_rows());
}

/* --- attention with a bias --- */

/* Two spans of odd sizes; a bias by head, query and key with hidden keys, then one by distance. The
 * second span alone gives the same bits. */
static void biased_attention(int64_t dim, bool by_distance)
{
    enum { HEADS = 3, FIRST = 13, SECOND = 150, ALL = FIRST + SECOND, TABLE = HEADS * ALL * ALL };
    int64_t wide = HEADS * dim, ld = 3 * wide + 4;
    float *x = test_rows(ALL, 3 * wide, ld, 1), *y = test_rows(ALL, wide, wide, 1);
    float *bias = test_rows(1, TABLE, TABLE, 3);
    for (int i = 0; i < TABLE && !by_distance; i += 7)
        bias[i] = -INFINITY;
    void *dx = acts(x, ALL * ld), *dy = acts(y, ALL * wide), *db = to_device(bias, TABLE * 4);
    void *alone = acts(y, ALL * wide);
    tt_err e = {0};
    tt_biased_span host[2], device_span[2];
    for (int i = 0; i < 2; i++) {
        int64_t row = i ? FIRST : 0, n = i ? SECOND : FIRST;
        host[i] = (tt_biased_span){.query_row = row, .query_rows = n, .k = x + row * ld + wide,
                                   .v = x + row * ld + 2 * wide, .ld_kv = ld, .keys = n,
                                   .bias = bias, .bias_head = n * n, .bias_query = n,
                                   .bias_key = 1};
        if (by_distance) {
            host[i].bias = bias + n;
            host[i].bias_head = 2 * n;
            host[i].bias_query = -1;
        }
        device_span[i] = host[i];
        device_span[i].k = at(dx, row * ld + wide);
        device_span[i].v = at(dx, row * ld + 2 * wide);
        device_span[i].bias = (float *)db + (host[i].bias - bias);
    }
    tt_compute compute = compute_of();
    test_ok(twin->op.attention_biased(twin, y, wide, x, ld, host, 2, HEADS, dim, 0.3f, compute,
                                      &e), &e);
    test_ok(gpu->op.attention_biased(gpu, dy, wide, dx, ld, device_span, 2, HEADS, dim, 0.3f,
                                     compute, &e), &e);
    test_ok(gpu->op.attention_biased(gpu, alone, wide, dx, ld, device_span + 1, 1, HEADS, dim, 0.3f,
                                     compute, &e), &e);
    float *have = floats(dy, ALL * wide), *again = floats(alone, ALL * wide);
    test_close("attention_biased", have, y, ALL, wide, wide, 3 * tolerance());
    test_same_bits("attention_biased", have + FIRST * wide, again + FIRST * wide, SECOND * wide);
    DROP(dx, dy, db, alone);
    free(have);
    free(again);
    free(x);
    free(y);
    free(bias);
}
static void biased_attention_agrees_with_the_twin(void **state)
{
    (void)state;
    static const int64_t dims[] = {6, 12, 32, 64, 72, 128, 200, 256};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (int by_distance = 0; by_distance < 2; by_distance++)
            BOTH_TYPES(biased_attention(dims[i], by_distance));
}
static void biased_attention_in_thirds_agrees_with_the_twin(void **state)
{
    (void)state;
    static const int64_t dims[] = {6, 12, 44, 64, 72, 128, 260, 512};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (int by_distance = 0; by_distance < 2; by_distance++)
            IN_THIRDS(biased_attention(dims[i], by_distance));
}

/* Three spans by order, whose rows end in the first and the second half of a tile of the device,
 * and whose keys need one tile or many. The last span alone gives the same bits. */
static void ordered_attention(int64_t dim, int64_t heads, float later)
{
    enum { SPANS = 3, ALL = 5 + 113 + 461 };
    static const int64_t rows[SPANS] = {5, 113, 461}, keys[SPANS] = {5, 100, 461};
    static const int64_t from[SPANS] = {2, 40, 301};
    int64_t wide = heads * dim, ld = 3 * wide + 8, row = 0;
    float *x = test_rows(ALL, 3 * wide, ld, 1), *y = test_rows(ALL, wide, wide, 1);
    void *dx = acts(x, ALL * ld), *dy = acts(y, ALL * wide), *alone = acts(y, ALL * wide);
    tt_err e = {0};
    tt_biased_span host[SPANS], device_span[SPANS];
    for (int i = 0; i < SPANS; i++) {
        host[i] = (tt_biased_span){.query_row = row, .query_rows = rows[i],
                                   .k = x + row * ld + wide, .v = x + row * ld + 2 * wide,
                                   .ld_kv = ld, .keys = keys[i], .by_order = true, .from = from[i],
                                   .later = later};
        device_span[i] = host[i];
        device_span[i].k = at(dx, row * ld + wide);
        device_span[i].v = at(dx, row * ld + 2 * wide);
        row += rows[i];
    }
    tt_compute compute = compute_of();
    test_ok(twin->op.attention_biased(twin, y, wide, x, ld, host, SPANS, heads, dim, 0.3f, compute,
                                      &e), &e);
    test_ok(gpu->op.attention_biased(gpu, dy, wide, dx, ld, device_span, SPANS, heads, dim, 0.3f,
                                     compute, &e), &e);
    test_ok(gpu->op.attention_biased(gpu, alone, wide, dx, ld, device_span + 2, 1, heads, dim, 0.3f,
                                     compute, &e), &e);
    float *have = floats(dy, ALL * wide), *again = floats(alone, ALL * wide);
    int64_t last = (ALL - rows[2]) * wide;
    test_close("attention_biased", have, y, ALL, wide, wide, 3 * tolerance());
    test_same_bits("attention_biased", have + last, again + last, rows[2] * wide);
    DROP(dx, dy, alone);
    free(have);
    free(again);
    free(x);
    free(y);
}
static void ordered_attention_agrees_with_the_twin(void **state)
{
    (void)state;
    static const int64_t dims[] = {12, 64, 72, 128};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        BOTH_TYPES(ordered_attention(dims[i], 3, -1));
        BOTH_TYPES(ordered_attention(dims[i], 3, -INFINITY));
    }
    BOTH_TYPES(ordered_attention(64, 30, -1)); /* more tiles than multiprocessors */
}
static void ordered_attention_in_thirds_agrees_with_the_twin(void **state)
{
    (void)state;
    static const int64_t dims[] = {12, 64, 72, 512};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
        IN_THIRDS(ordered_attention(dims[i], 3, -1));
        IN_THIRDS(ordered_attention(dims[i], 3, -INFINITY));
    }
    IN_THIRDS(ordered_attention(64, 60, -1)); /* more blocks than fit at once */
}

/* Sums and products, element by element; what lies between the rows stays. */
static void combined_rows(int64_t wide, int64_t ld, bool product)
{
    enum { N = 5 };
    float *x = test_rows(N, wide, ld, 1), *y = test_rows(N, wide, ld, 1);
    void *dx = acts(x, N * ld), *dy = acts(y, N * ld);
    float *before = floats(dy, N * ld);
    tt_err e = {0};
    test_ok((product ? twin->op.multiply : twin->op.add)(twin, y, ld, x, ld, N, wide, &e), &e);
    test_ok((product ? gpu->op.multiply : gpu->op.add)(gpu, dy, ld, dx, ld, N, wide, &e), &e);
    float *have = floats(dy, N * ld);
    test_close(product ? "multiply" : "add", have, y, N, wide, ld, tolerance());
    for (int64_t r = 0; r < N; r++)
        test_same_bits("padding", have + r * ld + wide, before + r * ld + wide, ld - wide);
    DROP(dx, dy);
    free(before);
    free(have);
    free(x);
    free(y);
}
static void sums_and_products_agree_with_the_twin(void **state)
{
    (void)state;
    for (int product = 0; product < 2; product++)
        BOTH_TYPES(combined_rows(83, 91, product); combined_rows(8, 8, product);
                   combined_rows(5280, 5288, product));
}

/* --- states that go from pass to pass --- */

static void scattered_rows(void)
{
    enum { N = 5, WIDE = 96, ODD = 83 };
    static const int64_t wide[] = {WIDE, ODD};
    for (int w = 0; w < 2; w++) {
        float *x = test_rows(2 * N, WIDE, WIDE, 1);
        void *dx = acts(x, 2 * N * WIDE);
        tt_err e = {0};
        /* Rows 0..3 come from the second half, in reverse; row 4 from nowhere. */
        tt_act *to[N], *from[N];
        for (int r = 0; r < N; r++) {
            to[r] = at(dx, r * WIDE);
            from[r] = r == N - 1 ? NULL : at(dx, (2 * N - 1 - r) * WIDE);
        }
        void *dto = to_device(to, sizeof to), *dfrom = to_device(from, sizeof from);
        test_ok(gpu->op.copy_rows(gpu, dto, dfrom, N, wide[w], &e), &e);
        float *have = floats(dx, 2 * N * WIDE);
        for (int r = 0; r < 2 * N; r++)
            for (int i = 0; i < WIDE; i++) {
                int row = r < N - 1 && i < wide[w] ? 2 * N - 1 - r : r;
                if (have[r * WIDE + i] != x[row * WIDE + i])
                    fail_msg("copy_rows %s: row %d, channel %d", kind(), r, i);
            }
        DROP(dx, dto, dfrom);
        free(have);
        free(x);
    }
}
static void copy_rows_copies_where_both_sides_are_there(void **state)
{
    (void)state;
    BOTH_TYPES(scattered_rows());
}

/* Where the second factor is 0 the addend, which is not to be read, is NaN. */
static void blended_rows(void)
{
    enum { N = 6, LD = 91, WIDE = 83 };
    static const float a[N] = {1, 0.9f, 0, 8.5f, 1, -1}, b[N] = {-1, 0.1f, 2, 0, 0, 0.5f};
    float *x = test_rows(N, WIDE, LD, 1), *y = test_rows(N, WIDE, LD, 1);
    for (int i = 0; i < N * LD; i++)
        x[i] = b[i / LD] != 0 ? x[i] : NAN;
    void *dx = acts(x, N * LD), *dy = acts(y, N * LD), *again = acts(y, N * LD);
    void *da = to_device(a, sizeof a), *db = to_device(b, sizeof b);
    tt_err e = {0};
    test_ok(twin->op.blend(twin, y, LD, x, LD, a, b, N, WIDE, &e), &e);
    test_ok(gpu->op.blend(gpu, dy, LD, dx, LD, da, db, N, WIDE, &e), &e);
    test_ok(gpu->op.blend(gpu, at(again, 5 * LD), LD, at(dx, 5 * LD), LD, (float *)da + 5,
                          (float *)db + 5, 1, WIDE, &e), &e);
    float *have = floats(dy, N * LD), *alone = floats(again, N * LD);
    test_close("blend", have, y, N, WIDE, LD, tolerance());
    test_same_bits("blend", have + 5 * LD, alone + 5 * LD, WIDE);
    DROP(dx, dy, da, db, again);
    free(have);
    free(alone);
    free(x);
    free(y);
}
static void blend_agrees_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(blended_rows());
}

static void multiplied_rows(int64_t wide)
{
    enum { N = 7 };
    int64_t ld = wide + 5;
    float *x = test_rows(N, wide, ld, 1), *y = test_rows(N, wide, ld, 1);
    for (int64_t i = 0; i < N * ld; i++)
        y[i] = x[i] + 0.01f * y[i];
    void *dx = acts(x, N * ld), *dy = acts(y, N * ld);
    tt_row_products want[N], have[N], alone;
    tt_err e = {0};
    test_ok(twin->op.row_products(twin, want, x, ld, y, ld, N, wide, &e), &e);
    test_ok(gpu->op.row_products(gpu, have, dx, ld, dy, ld, N, wide, &e), &e);
    test_ok(gpu->op.row_products(gpu, &alone, at(dx, 3 * ld), ld, at(dy, 3 * ld), ld, 1, wide, &e),
            &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    assert_memory_equal(&alone, &have[3], sizeof alone);
    for (int r = 0; r < N; r++) {
        double scale = sqrt((double)want[r].xx * want[r].yy);
        if (fabs(have[r].xx - want[r].xx) > 1e-5 * want[r].xx ||
            fabs(have[r].yy - want[r].yy) > 1e-5 * want[r].yy ||
            fabs(have[r].xy - want[r].xy) > 1e-5 * scale ||
            fabs(have[r].dd - want[r].dd) > 1e-5 * want[r].dd)
            fail_msg("row_products %s of %lld: row %d has %g %g %g %g, not %g %g %g %g", kind(),
                     (long long)wide, r, have[r].xx, have[r].yy, have[r].xy, have[r].dd,
                     want[r].xx, want[r].yy, want[r].xy, want[r].dd);
    }
    DROP(dx, dy);
    free(x);
    free(y);
}
static void row_products_agree_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(multiplied_rows(83); multiplied_rows(5280));
}

static void noisy_rows(void)
{
    enum { N = 4, WIDE = 5283 };
    const tt_rng_address address[N] = {
        {9, 1, 0, 3}, {9, 1, 7, 3}, {1ull << 40, 0, 0, 9}, {1, 2, 3, 4}};
    const float scale[N] = {0.63f, 0.1f, 2, 0};
    float *y = test_rows(N, WIDE, WIDE, 1);
    void *dy = acts(y, N * WIDE), *da = to_device(address, sizeof address);
    void *ds = to_device(scale, sizeof scale);
    tt_err e = {0};
    test_ok(twin->op.truncated_normal(twin, y, WIDE, address, scale, N, WIDE, &e), &e);
    test_ok(gpu->op.truncated_normal(gpu, dy, WIDE, da, ds, N, WIDE, &e), &e);
    float *have = floats(dy, N * WIDE);
    for (int i = 0; i < N * WIDE; i++) {
        float want = gpu->act == TT_F32 ? y[i] : tt_bf16_to_f32(tt_f32_to_bf16(y[i]));
        if (have[i] != want)
            fail_msg("truncated_normal %s: number %d is %.9g, not %.9g", kind(), i, have[i], want);
    }
    DROP(dy, da, ds);
    free(have);
    free(y);
}
static void truncated_normal_gives_the_same_bits(void **state)
{
    (void)state;
    BOTH_TYPES(noisy_rows());
}

/* --- the device --- */

static void memory_counts_what_is_taken(void **state)
{
    (void)state;
    need_gpu();
    enum { BYTES = 64 << 20 };
    tt_memory before, with, after;
    tt_err e = {0};
    void *p = device(BYTES);
    gpu->op.release(gpu, p);
    test_ok(gpu->op.sync(gpu, &e), &e);
    test_ok(gpu->op.memory(gpu, &before, &e), &e);
    p = device(BYTES);
    test_ok(gpu->op.memory(gpu, &with, &e), &e);
    gpu->op.release(gpu, p);
    test_ok(gpu->op.sync(gpu, &e), &e);
    test_ok(gpu->op.memory(gpu, &after, &e), &e);
    assert_true(with.used >= before.used + BYTES);
    assert_true(with.peak >= with.used && with.peak <= with.total);
    assert_true(after.used == before.used && after.peak >= with.used);
    test_ok(gpu->op.memory(gpu, &after, &e), &e);
    assert_true(after.peak < with.used); /* the call before began anew */
}

/* Wide bounds: less than a processor's, or more than any GPU's, is a mistake in counting. */
static void ceilings_are_those_of_a_gpu(void **state)
{
    (void)state;
    need_gpu();
    tt_ceilings c;
    tt_memory before, after;
    tt_err e = {0};
    test_ok(gpu->op.memory(gpu, &before, &e), &e);
    test_ok(gpu->op.ceilings(gpu, 0.5, &c, &e), &e);
    test_ok(gpu->op.memory(gpu, &after, &e), &e);
    printf("memory %.0f GB/s, f32 %.1f, bf16 %.1f, fp8 %.1f TFLOP/s\n", c.bytes_per_s * 1e-9,
           c.flops_f32 * 1e-12, c.flops_bf16 * 1e-12, c.flops_fp8 * 1e-12);
    assert_true(c.bytes_per_s > 5e10 && c.bytes_per_s < 5e13);
    assert_true(c.flops_f32 > 1e12 && c.flops_f32 < 1e15);
    assert_true(c.flops_bf16 > c.flops_f32 && c.flops_bf16 < 1e16);
    bool narrow = gpu->op.has_compute(gpu, TT_COMPUTE_FP8);
    assert_true(narrow ? c.flops_fp8 > c.flops_bf16 : c.flops_fp8 == 0);
    assert_true(after.used == before.used);
}

typedef struct {
    tt_status st;
    tt_err e;
} elsewhere;

/* A thread that has never seen a device. */
static void *work_elsewhere(void *arg)
{
    elsewhere *w = arg;
    float x[32] = {1};
    void *p = NULL;
    w->st = gpu->op.alloc(gpu, &p, sizeof x, &w->e);
    if (!w->st)
        w->st = gpu->op.upload(gpu, p, x, sizeof x, &w->e);
    if (!w->st)
        w->st = gpu->op.add(gpu, p, 32, p, 32, 1, 32, &w->e);
    if (!w->st)
        w->st = gpu->op.download(gpu, x, p, sizeof x, &w->e);
    if (!w->st)
        w->st = gpu->op.sync(gpu, &w->e);
    gpu->op.release(gpu, p);
    if (!w->st && x[0] != 2)
        w->st = tt_fail(&w->e, TT_EIO, "1 + 1 is %g", (double)x[0]);
    return NULL;
}
static void another_thread_may_go_on(void **state)
{
    (void)state;
    need_gpu();
    gpu->act = TT_F32;
    elsewhere w = {0};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, work_elsewhere, &w), 0);
    pthread_join(t, NULL);
    test_ok(w.st, &w.e);
}

/* --- classifiers: heads of few outputs, whose logits are wanted --- */

static void classes_of(int64_t classes)
{
    enum { SOME = 5, WIDTH = 96 };
    tt_weight w = weight_of(TT_F32, classes, WIDTH);
    float *x = test_rows(SOME, WIDTH, WIDTH, 1);
    void *dx = acts(x, SOME * WIDTH);
    tt_matrix *a = open_on(twin, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    tt_matrix *b = open_on(gpu, &w, 1, NULL, compute_of(), TT_MATRIX_LINEAR);
    float *want = calloc((size_t)(SOME * classes), sizeof *want);
    float *have = calloc((size_t)(SOME * classes), sizeof *have);
    float *alone = calloc((size_t)classes, sizeof *alone);
    tt_row_stats stats[SOME], one;
    tt_draw draw[SOME];
    tt_err e = {0};
    char what[64];
    for (int r = 0; r < SOME; r++)
        draw[r] = (tt_draw){.top_p = 1, .target = -1};
    snprintf(what, sizeof what, "%s, %lld classes", kind(), (long long)classes);
    test_ok(twin->op.head(twin, stats, NULL, 0, want, x, WIDTH, SOME, a, draw, &e), &e);
    for (int again = 0; again < 3; again++) { /* live, recorded, replayed */
        const int64_t key[] = {7, classes, SOME, gpu->act};
        memset(have, 0, (size_t)(SOME * classes) * sizeof *have);
        if (again)
            test_ok(gpu->op.pass_begin(gpu, key, 4, &e), &e);
        tt_status s = gpu->op.head(gpu, stats, NULL, 0, have, dx, WIDTH, SOME, b, draw, &e);
        if (again)
            s = gpu->op.pass_end(gpu, s, &e);
        test_ok(s, &e);
        test_ok(gpu->op.sync(gpu, &e), &e);
        test_close(what, have, want, SOME, classes, classes, 2 * tolerance());
    }
    test_ok(gpu->op.head(gpu, &one, NULL, 0, alone, at(dx, 2 * WIDTH), WIDTH, 1, b, draw, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    test_same_bits(what, have + 2 * classes, alone, classes);
    twin->op.matrix_close(twin, a);
    gpu->op.matrix_close(gpu, b);
    DROP(dx);
    free(want);
    free(have);
    free(alone);
    free(x);
    free_weight(&w);
}
static void each_classes(void)
{
    classes_of(2);
    classes_of(12);
    classes_of(1024);
}
static void few_classes_agree_with_the_twin(void **state)
{
    (void)state;
    BOTH_TYPES(each_classes());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_normalised_by_themselves),
        cmocka_unit_test(modulation_agrees_with_the_twin),
        cmocka_unit_test(few_modulated_rows_are_those_of_many),
        cmocka_unit_test(routes_agree_with_the_twin),
        cmocka_unit_test(ties_and_nan_choose_as_the_twin_does),
        cmocka_unit_test(grouped_products_are_plain_products),
        cmocka_unit_test(grouped_products_take_8_bits),
        cmocka_unit_test(what_does_not_group_is_refused),
        cmocka_unit_test(a_recorded_layer_takes_new_routes),
        cmocka_unit_test(passes_go_with_their_matrices),
        cmocka_unit_test(combine_agrees_with_the_twin),
        cmocka_unit_test(kept_rows_agree_with_the_twin),
        cmocka_unit_test(add_scaled_agrees_with_the_twin),
        cmocka_unit_test(biased_attention_agrees_with_the_twin),
        cmocka_unit_test(biased_attention_in_thirds_agrees_with_the_twin),
        cmocka_unit_test(ordered_attention_agrees_with_the_twin),
        cmocka_unit_test(ordered_attention_in_thirds_agrees_with_the_twin),
        cmocka_unit_test(sums_and_products_agree_with_the_twin),
        cmocka_unit_test(copy_rows_copies_where_both_sides_are_there),
        cmocka_unit_test(blend_agrees_with_the_twin),
        cmocka_unit_test(row_products_agree_with_the_twin),
        cmocka_unit_test(truncated_normal_gives_the_same_bits),
        cmocka_unit_test(few_classes_agree_with_the_twin),
        cmocka_unit_test(memory_counts_what_is_taken),
        cmocka_unit_test(ceilings_are_those_of_a_gpu),
        cmocka_unit_test(another_thread_may_go_on),
    };
    return cmocka_run_group_tests(tests, open_streams, close_streams);
}
