/* pool.c - see pool.h.
 *
 * A loop is a turn. Its number and the next index to hand out share one atomic word, so that a
 * worker that comes late, from a turn long over, cannot take an index of the present one for the
 * old function. A turn is over when all its indexes are done, not when all workers have looked
 * in: one that the system has not let run yet is not waited for. */
#include "kernels/base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/clock.h"

typedef struct {
    tt_pool *pool;
    pthread_t thread;
    int number;
} worker;

typedef struct {
    void (*fn)(void *, int64_t, int);
    void *arg;
    int64_t first; /* what index 0 of the turn stands for */
    uint32_t n, turn;
} loop;

struct tt_pool {
    int threads;
    worker *workers; /* threads - 1 of them */
    int started;
    pthread_mutex_t lock; /* of now, quit and the conditions */
    pthread_cond_t wake, idle;
    loop now;
    bool quit;
    _Atomic uint64_t state; /* turn << 32 | next index */
    _Atomic uint32_t left;  /* indexes of the turn that are not done */
    _Atomic int sleeping;   /* workers that need to be woken */
};

/* Nanoseconds a thread looks for work before it sleeps: about what sleeping and waking costs, so
 * that small loops in a row stay fast and an idle pool costs nothing. */
enum { PATIENCE = 10000 };

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Runs what is left of the turn. */
static void work(tt_pool *p, const loop *l, int number)
{
    uint64_t s = atomic_load_explicit(&p->state, memory_order_relaxed);
    while (s >> 32 == l->turn && (uint32_t)s < l->n) {
        if (!atomic_compare_exchange_weak_explicit(&p->state, &s, s + 1, memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        l->fn(l->arg, l->first + (uint32_t)s, number);
        if (atomic_fetch_sub_explicit(&p->left, 1, memory_order_acq_rel) == 1 && number) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->idle);
            pthread_mutex_unlock(&p->lock);
        }
        s = atomic_load_explicit(&p->state, memory_order_relaxed);
    }
}

static bool new_turn(const tt_pool *p, uint32_t seen)
{
    return atomic_load_explicit(&p->state, memory_order_relaxed) >> 32 != seen;
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    tt_pool *p = w->pool;
    char name[16];
    snprintf(name, sizeof name, "tutti-op-%d", w->number % 1000);
    pthread_setname_np(pthread_self(), name);
    loop l = {0};
    for (;;) {
        int64_t until = tt_now_ns() + PATIENCE;
        while (!new_turn(p, l.turn) && tt_now_ns() < until)
            relax();
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add_explicit(&p->sleeping, 1, memory_order_relaxed);
        while (p->now.turn == l.turn && !p->quit)
            pthread_cond_wait(&p->wake, &p->lock);
        atomic_fetch_sub_explicit(&p->sleeping, 1, memory_order_relaxed);
        bool quit = p->quit;
        l = p->now;
        pthread_mutex_unlock(&p->lock);
        if (quit)
            return NULL;
        work(p, &l, w->number);
    }
}

tt_status tt_pool_open(tt_pool **out, int threads, tt_err *e)
{
    *out = NULL;
    if (threads < 1 || threads > 1024)
        return tt_fail(e, TT_EINVAL, "thread count %d is not in 1..1024", threads);
    tt_pool *p = calloc(1, sizeof *p);
    if (p)
        p->workers = calloc((size_t)threads, sizeof *p->workers);
    if (!p || !p->workers) {
        free(p);
        return tt_fail(e, TT_ENOMEM, "no memory for %d threads", threads);
    }
    p->threads = threads;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->idle, NULL);
    for (int i = 0; i < threads - 1; i++) {
        p->workers[i] = (worker){.pool = p, .number = i + 1};
        if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i])) {
            tt_pool_close(p);
            return tt_fail(e, TT_ENOMEM, "cannot start worker thread %d of %d", i + 1, threads);
        }
        p->started++;
    }
    *out = p;
    return TT_OK;
}

void tt_pool_close(tt_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->quit = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->idle);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int tt_pool_threads(const tt_pool *p) { return p ? p->threads : 1; }

static void run_turn(tt_pool *p, const loop *l)
{
    pthread_mutex_lock(&p->lock);
    uint32_t turn = p->now.turn + 1;
    p->now = *l;
    p->now.turn = turn;
    loop mine = p->now;
    atomic_store_explicit(&p->left, mine.n, memory_order_relaxed);
    atomic_store_explicit(&p->state, (uint64_t)mine.turn << 32, memory_order_relaxed);
    if (atomic_load_explicit(&p->sleeping, memory_order_relaxed))
        pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    work(p, &mine, 0);

    int64_t until = tt_now_ns() + PATIENCE;
    while (atomic_load_explicit(&p->left, memory_order_acquire)) {
        if (tt_now_ns() < until) {
            relax();
            continue;
        }
        pthread_mutex_lock(&p->lock);
        while (atomic_load_explicit(&p->left, memory_order_acquire))
            pthread_cond_wait(&p->idle, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}

void tt_pool_run(tt_pool *p, int64_t n, void (*fn)(void *, int64_t, int), void *arg)
{
    if (!p || p->threads == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    enum { MOST = 1 << 30 }; /* indexes of a turn */
    for (int64_t first = 0; first < n; first += MOST) {
        int64_t left = n - first;
        run_turn(p, &(loop){fn, arg, first, (uint32_t)(left < MOST ? left : MOST), 0});
    }
}
