/* The worker pool.
 *
 * What can go wrong: an index run twice or never, a worker that comes late and runs an old loop's
 * function on a new loop's index, a result not yet visible when the loop returns, a thread number
 * out of range, a pool that does not end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernels/base/pool.h"

typedef struct {
    int64_t turn, n;
    int threads;
    unsigned char *count; /* each index belongs to one thread: plain writes */
    int64_t *mark;
    _Atomic int wrong;
} loop;

static void touch(void *arg, int64_t i, int thread)
{
    loop *l = arg;
    if (i < 0 || i >= l->n || thread < 0 || thread >= l->threads) {
        l->wrong = 1;
        return;
    }
    l->count[i]++;
    l->mark[i] = l->turn;
}

static void every_index_runs_once_in_every_loop(void **state)
{
    (void)state;
    enum { MOST = 300, TURNS = 3000 };
    unsigned char count[MOST];
    int64_t mark[MOST];
    for (int threads = 1; threads <= 8; threads += 1 + threads / 3) {
        tt_pool *p;
        assert_int_equal(tt_pool_open(&p, threads, NULL), TT_OK);
        assert_int_equal(tt_pool_threads(p), threads);
        for (int turn = 0; turn < TURNS; turn++) {
            loop l = {turn, turn % MOST, threads, count, mark, 0};
            memset(count, 0, sizeof count);
            tt_pool_run(p, l.n, touch, &l);
            assert_false(l.wrong);
            for (int i = 0; i < MOST; i++) {
                assert_int_equal(count[i], i < l.n);
                if (i < l.n)
                    assert_int_equal(mark[i], turn);
            }
        }
        tt_pool_close(p);
    }
}

static void pause_a_little(void *arg, int64_t i, int thread)
{
    struct timespec t = {0, 20000 * (i % 3)};
    nanosleep(&t, NULL);
    touch(arg, i, thread);
}

static void loops_with_pauses_wake_sleeping_workers(void **state)
{
    (void)state;
    enum { N = 9, TURNS = 200 };
    tt_pool *p;
    assert_int_equal(tt_pool_open(&p, 4, NULL), TT_OK);
    for (int turn = 0; turn < TURNS; turn++) {
        unsigned char count[N] = {0};
        int64_t mark[N];
        loop l = {turn, N, 4, count, mark, 0};
        tt_pool_run(p, N, pause_a_little, &l);
        for (int i = 0; i < N; i++)
            assert_int_equal(count[i], 1);
        struct timespec t = {0, turn % 4 * 30000L}; /* sometimes long enough to fall asleep */
        nanosleep(&t, NULL);
    }
    tt_pool_close(p);
}

static void no_pool_is_a_plain_loop(void **state)
{
    (void)state;
    unsigned char count[5] = {0};
    int64_t mark[5];
    loop l = {1, 5, 1, count, mark, 0};
    tt_pool_run(NULL, 5, touch, &l);
    tt_pool_run(NULL, 0, touch, &l);
    tt_pool_run(NULL, -3, touch, &l);
    for (int i = 0; i < 5; i++)
        assert_int_equal(count[i], 1);
    assert_int_equal(tt_pool_threads(NULL), 1);
    tt_pool_close(NULL);
}

static void opening_and_closing_at_once_ends(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        tt_pool *p;
        assert_int_equal(tt_pool_open(&p, 1 + i % 5, NULL), TT_OK);
        tt_pool_close(p);
    }
}

static void thread_counts_that_cannot_be_are_refused(void **state)
{
    (void)state;
    static const int bad[] = {0, -1, 1025};
    for (int i = 0; i < 3; i++) {
        tt_err e = {0};
        tt_pool *p = (tt_pool *)&e;
        assert_int_equal(tt_pool_open(&p, bad[i], &e), TT_EINVAL);
        assert_null(p);
        assert_non_null(strstr(e.text, "1..1024"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_runs_once_in_every_loop),
        cmocka_unit_test(loops_with_pauses_wake_sleeping_workers),
        cmocka_unit_test(no_pool_is_a_plain_loop),
        cmocka_unit_test(opening_and_closing_at_once_ends),
        cmocka_unit_test(thread_counts_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests_name("base pool", tests, NULL, NULL);
}
