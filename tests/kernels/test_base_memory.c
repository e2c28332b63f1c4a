/* Arenas, maps, and what happens when memory runs out in them and in the kernels.
 *
 * What can go wrong: sizes that overflow, memory that is not aligned or not zero, a key with a NUL
 * in it, a map that loses keys when it grows, an allocation whose failure is not noticed or leaks
 * what came before it. */
#include "tests/kernels/ops.h"

#include "kernels/base/arena.h"
#include "kernels/base/map.h"

/* Every allocation of this program passes through here; under a sanitizer they are the
 * sanitizer's own, and the tests that count are left out. */
#ifdef __SANITIZE_ADDRESS__
enum { COUNTING = 0 };
static long countdown, live;
#else
enum { COUNTING = 1 };
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);
extern void __libc_free(void *p);

static long countdown; /* 1: the next allocation fails; 0: none does */
static long live;

static bool fails(void)
{
    return countdown > 0 && --countdown == 0;
}
static void *counted(void *p)
{
    live += p != NULL;
    return p;
}
void *malloc(size_t n)
{
    return fails() ? NULL : counted(__libc_malloc(n));
}
void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__libc_calloc(n, size));
}
void *aligned_alloc(size_t alignment, size_t n)
{
    return fails() ? NULL : counted(__libc_memalign(alignment, n));
}
void *realloc(void *p, size_t n)
{
    if (fails())
        return NULL;
    void *q = __libc_realloc(p, n);
    live += q && !p;
    return q;
}
void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}
#endif

/* --- arena --- */

static void an_arena_hands_out_aligned_zeroed_memory(void **state)
{
    (void)state;
    tt_arena a;
    assert_int_equal(tt_arena_open(&a, 1000, NULL), TT_OK);
    assert_int_equal(a.size % 64, 0);
    size_t mark = tt_arena_mark(&a);
    for (int round = 0; round < 3; round++) {
        unsigned char *p = tt_arena_take(&a, 3, 7), *q = tt_arena_take(&a, 1, 65);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_int_equal((uintptr_t)q % 64, 0);
        assert_ptr_equal(q, p + 64);
        for (int i = 0; i < 65; i++)
            assert_true((i >= 21 || p[i] == 0) && q[i] == 0);
        memset(p, 0xFF, 21);
        memset(q, 0xFF, 65);
        tt_arena_rewind(&a, mark);
    }
    assert_int_equal(a.peak, 129);
    tt_arena_close(&a);
    assert_null(a.base);
}

static void an_arena_refuses_what_does_not_fit(void **state)
{
    (void)state;
    tt_arena a, none = {0};
    assert_int_equal(tt_arena_open(&a, 256, NULL), TT_OK);
    assert_null(tt_arena_take(&a, 257, 1));
    assert_null(tt_arena_take(&a, SIZE_MAX / 2, 4));
    assert_null(tt_arena_take(&a, 4, SIZE_MAX / 2));
    assert_null(tt_arena_take(&a, SIZE_MAX, 1));
    assert_non_null(tt_arena_take(&a, 192, 1));
    assert_non_null(tt_arena_take(&a, 64, 1));
    assert_null(tt_arena_take(&a, 1, 1));
    assert_null(tt_arena_take(&none, 1, 1));
    assert_null(tt_arena_take(&none, 0, 8));
    tt_err e = {0};
    assert_int_equal(tt_arena_open(&none, SIZE_MAX - 3, &e), TT_ENOMEM);
    if (COUNTING) /* a sanitizer stops the program at such a size */
        assert_int_equal(tt_arena_open(&none, SIZE_MAX / 4, &e), TT_ENOMEM);
    assert_int_equal(tt_arena_open(&none, 0, &e), TT_OK);
    tt_arena_close(&a);
    tt_arena_close(&none);
    tt_arena_close(NULL);
}

/* A larger arena each time until all of a little program fits: the nth take fails, none before. */
static void an_arena_fails_at_the_first_take_that_does_not_fit(void **state)
{
    (void)state;
    static const size_t take[] = {1, 64, 65, 300, 0, 7};
    for (size_t bytes = 0; bytes <= 1024; bytes += 64) {
        tt_arena a;
        assert_int_equal(tt_arena_open(&a, bytes, NULL), TT_OK);
        size_t need = 0;
        for (int i = 0; i < 6; i++) {
            need = (need + 63) / 64 * 64;
            bool fits = bytes && need + take[i] <= bytes;
            assert_int_equal(tt_arena_take(&a, take[i], 1) != NULL, fits);
            if (!fits)
                break;
            need += take[i];
        }
        tt_arena_close(&a);
    }
}

/* --- map --- */

static void a_map_keeps_every_key_while_it_grows(void **state)
{
    (void)state;
    enum { N = 50000 };
    tt_map *m;
    assert_int_equal(tt_map_open(&m, 0, NULL), TT_OK);
    assert_int_equal(tt_map_get(m, "x", 1), -1);
    for (int32_t i = 0; i < N; i++) {
        char key[32];
        int32_t old = 0;
        int n = snprintf(key, sizeof key, "key %d", i);
        assert_int_equal(tt_map_put(m, key, (size_t)n, i, &old, NULL), TT_OK);
        assert_int_equal(old, -1);
        memset(key, 0, sizeof key); /* the map has its own copy */
    }
    assert_int_equal(tt_map_count(m), N);
    for (int32_t i = 0; i < N; i++) {
        char key[32];
        int n = snprintf(key, sizeof key, "key %d", i);
        assert_int_equal(tt_map_get(m, key, (size_t)n), i);
        assert_int_equal(tt_map_get(m, key, (size_t)n - 1), i < 10 ? -1 : i / 10);
    }
    tt_map_close(m);
    tt_map_close(NULL);
}

static void map_keys_are_bytes_and_values_replace(void **state)
{
    (void)state;
    tt_map *m;
    int32_t old;
    assert_int_equal(tt_map_open(&m, 100, NULL), TT_OK);
    assert_int_equal(tt_map_put(m, "", 0, 1, &old, NULL), TT_OK);
    assert_int_equal(tt_map_put(m, "\0", 1, 2, NULL, NULL), TT_OK);
    assert_int_equal(tt_map_put(m, "\0\0", 2, 3, NULL, NULL), TT_OK);
    assert_int_equal(tt_map_put(m, "a\0b", 3, 4, NULL, NULL), TT_OK);
    assert_int_equal(tt_map_put(m, "a\0c", 3, 5, NULL, NULL), TT_OK);
    assert_int_equal(tt_map_put(m, "\0", 1, 6, &old, NULL), TT_OK);
    assert_int_equal(old, 2);
    assert_int_equal(tt_map_count(m), 5);
    assert_int_equal(tt_map_get(m, "", 0), 1);
    assert_int_equal(tt_map_get(m, "\0", 1), 6);
    assert_int_equal(tt_map_get(m, "\0\0", 2), 3);
    assert_int_equal(tt_map_get(m, "a\0b", 3), 4);
    assert_int_equal(tt_map_get(m, "a\0c", 3), 5);
    assert_int_equal(tt_map_get(m, "a", 1), -1);
    assert_int_equal(tt_map_put(m, "n", 1, -1, NULL, NULL), TT_EINVAL);
    tt_map_close(m);
}

/* --- running out --- */

/* Lets the first, second, third ... allocation of fn fail until it gets through; each time it must
 * say TT_ENOMEM and leave nothing behind. */
static void fail_each(tt_status (*fn)(void *arg, tt_err *e), void *arg)
{
    for (long at = 1; at < 5000; at++) {
        tt_err e = {0};
        long before = live;
        countdown = at;
        tt_status st = fn(arg, &e);
        bool reached = countdown == 0;
        countdown = 0;
        if (!reached) {
            assert_int_equal(st, TT_OK);
            return;
        }
        if (st != TT_ENOMEM || live != before)
            fail_msg("allocation %ld: status %d '%s', %ld blocks left behind", at, st, e.text,
                     live - before);
    }
    fail_msg("no end of allocations");
}

static tt_status build_a_map(void *arg, tt_err *e)
{
    (void)arg;
    tt_map *m;
    tt_status st = tt_map_open(&m, 4, e);
    for (int32_t i = 0; i < 2000 && !st; i++)
        st = tt_map_put(m, &i, sizeof i, i, NULL, e);
    if (m)
        tt_map_close(m);
    return st;
}

static tt_status build_a_buffer(void *arg, tt_err *e)
{
    (void)arg;
    tt_buf b = {0};
    for (int i = 0; i < 100; i++)
        tt_buf_printf(&b, "%d some text to make it grow", i);
    bool failed = b.failed;
    tt_buf_free(&b);
    return failed ? tt_fail(e, TT_ENOMEM, "buffer") : TT_OK;
}

static tt_status open_an_arena(void *arg, tt_err *e)
{
    (void)arg;
    tt_arena a;
    tt_status st = tt_arena_open(&a, 4096, e);
    tt_arena_close(&a);
    return st;
}

/* A stream, a matrix, and one call of everything that takes scratch memory. */
static tt_status use_a_stream(void *arg, tt_err *e)
{
    enum { N = 70, K = 20, ROWS = 4 };
    static float w[N * K], x[ROWS * K], y[ROWS * N];
    static float scale[N];
    static int8_t q[N * K];
    tt_stream *s = NULL;
    tt_matrix *m[2] = {NULL, NULL};
    tt_weight part[2] = {test_weight(w, TT_F32, N, K), test_weight(q, TT_I8, N, K)};
    part[1].scale = (tt_tensor){.data = scale, .dim = {N}, .rank = 1, .dtype = TT_F32};
    tt_draw draw[ROWS] = {{.target = -1}, {.target = -1}, {.target = -1}, {.target = -1}};
    tt_row_stats stats[ROWS];
    tt_span span = {.query_rows = ROWS, .k = x, .v = x, .ld_kv = K, .keys = ROWS};
    tt_status st = tt_stream_open(&s, arg, 1, e);
    for (int i = 0; i < 2 && !st; i++)
        st = s->op.matrix_open(s, &m[i], &part[i], 1, scale, TT_COMPUTE_BF16, 3, e);
    if (!st)
        st = s->op.linear(s, y, N, x, K, ROWS, m[1], false, e);
    if (!st)
        st = s->op.head(s, stats, NULL, 0, NULL, x, K, ROWS, m[0], draw, e);
    if (!st)
        st = s->op.attention(s, y, K, x, K, &span, 1, 2, 2, K / 2, 1, TT_COMPUTE_BF16, e);
    for (int i = 0; i < 2 && s; i++)
        s->op.matrix_close(s, m[i]);
    tt_stream_close(s);
    return st;
}

static void running_out_of_memory_is_a_status(void **state)
{
    (void)state;
    if (!COUNTING)
        skip();
    tt_log_set_level(TT_LOG_ERROR);
    fail_each(build_a_map, NULL);
    fail_each(build_a_buffer, NULL);
    fail_each(open_an_arena, NULL);
    fail_each(use_a_stream, "twin");
    fail_each(use_a_stream, "plain");
}

static void a_working_stream_allocates_nothing(void **state)
{
    (void)state;
    if (!COUNTING)
        skip();
    enum { N = 300, K = 64, ROWS = 40 };
    static float w[N * K], x[ROWS * K], y[ROWS * N];
    static tt_draw draw[ROWS];
    static tt_row_stats stats[ROWS];
    static tt_id_value top[ROWS * 5];
    tt_weight part = test_weight(w, TT_F32, N, K);
    for (int device = 1; device < TEST_DEVICES - 1; device++) { /* oneDNN keeps its own books */
        tt_stream *s = test_open(&test_devices[device], 2);
        if (!s)
            continue;
        for (int compute = TT_COMPUTE_F32; compute <= TT_COMPUTE_BF16; compute++) {
            tt_matrix *m = NULL;
            assert_int_equal(s->op.matrix_open(s, &m, &part, 1, NULL, (tt_compute)compute, 1, NULL),
                             TT_OK);
            tt_span span = {.query_rows = ROWS, .k = x, .v = x, .ld_kv = K, .keys = ROWS};
            for (int r = 0; r < ROWS; r++)
                draw[r] = (tt_draw){.temperature = 1,
                                    .top_p = 0.9f,
                                    .top_k = 20,
                                    .min_p = 0.01f,
                                    .noise = TT_NOISE_PHILOX,
                                    .target = -1};
            for (int round = 0; round < 3; round++) {
                if (round == 2)
                    countdown = 1; /* whatever is allocated now fails */
                tt_status st = s->op.linear(s, y, N, x, K, ROWS - round, m, false, NULL);
                if (!st)
                    st = s->op.head(s, stats, top, 5, NULL, x, K, ROWS - round, m, draw, NULL);
                if (!st)
                    st = s->op.attention(s, y, K, x, K, &span, 1, 4, 2, K / 4, 1,
                                         (tt_compute)compute, NULL);
                bool untouched = round < 2 || countdown == 1;
                countdown = 0;
                assert_int_equal(st, TT_OK);
                assert_true(untouched);
            }
            s->op.matrix_close(s, m);
        }
        tt_stream_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_arena_hands_out_aligned_zeroed_memory),
        cmocka_unit_test(an_arena_refuses_what_does_not_fit),
        cmocka_unit_test(an_arena_fails_at_the_first_take_that_does_not_fit),
        cmocka_unit_test(a_map_keeps_every_key_while_it_grows),
        cmocka_unit_test(map_keys_are_bytes_and_values_replace),
        cmocka_unit_test(running_out_of_memory_is_a_status),
        cmocka_unit_test(a_working_stream_allocates_nothing),
    };
    return cmocka_run_group_tests_name("base memory", tests, NULL, NULL);
}
