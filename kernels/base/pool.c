/* pool.c - see pool.h. */
#include "kernels/base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    tt_pool *pool;
    pthread_t thread;
    int number;
} worker;

struct tt_pool {
    int threads;
    worker *workers; /* threads - 1 of them */
    int started;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    uint64_t turn; /* number of the loop being run; workers wait for it to change */
    int busy;      /* workers still inside the current loop */
    bool quit;
    void (*fn)(void *, int64_t, int);
    void *arg;
    int64_t n;
    _Atomic int64_t next;
};

static void work(tt_pool *p, int number)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (i >= p->n)
            return;
        p->fn(p->arg, i, number);
    }
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    tt_pool *p = w->pool;
    char name[16];
    snprintf(name, sizeof name, "tutti-op-%d", w->number % 1000);
    pthread_setname_np(pthread_self(), name);
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->turn == seen && !p->quit)
            pthread_cond_wait(&p->wake, &p->lock);
        if (p->quit)
            break;
        seen = p->turn;
        pthread_mutex_unlock(&p->lock);
        work(p, w->number);
        pthread_mutex_lock(&p->lock);
        if (--p->busy == 0)
            pthread_cond_signal(&p->idle);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
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

void tt_pool_run(tt_pool *p, int64_t n, void (*fn)(void *, int64_t, int), void *arg)
{
    if (!p || p->threads == 1 || n <= 1) {
        for (int64_t i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    p->next = 0;
    p->busy = p->threads - 1;
    p->turn++;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    work(p, 0);
    pthread_mutex_lock(&p->lock);
    while (p->busy)
        pthread_cond_wait(&p->idle, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
