/* workers.c - see workers.h. A ring of tasks under one lock. */
#include "server/http/workers.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct {
    void (*fn)(void *arg);
    void *arg;
} task;

struct tt_workers {
    pthread_mutex_t lock;
    pthread_cond_t work, idle;
    pthread_t *thread;
    int threads;
    task *ring;
    int size, first, count, running;
    bool stop;
};

static void *run(void *arg)
{
    tt_workers *w = arg;
    pthread_setname_np(pthread_self(), "tutti-worker");
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->count && !w->stop)
            pthread_cond_wait(&w->work, &w->lock);
        if (!w->count)
            break;
        task t = w->ring[w->first];
        w->first = (w->first + 1) % w->size;
        w->count--;
        w->running++;
        pthread_mutex_unlock(&w->lock);
        t.fn(t.arg);
        pthread_mutex_lock(&w->lock);
        w->running--;
        if (!w->running && !w->count)
            pthread_cond_broadcast(&w->idle);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

tt_status tt_workers_open(tt_workers **out, int threads, int queue, tt_err *e)
{
    tt_workers *w = *out = calloc(1, sizeof *w);
    if (!w)
        return tt_fail(e, TT_ENOMEM, "no memory for worker threads");
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_cond_init(&w->idle, NULL);
    w->size = queue;
    w->ring = calloc((size_t)queue, sizeof *w->ring);
    w->thread = calloc((size_t)threads, sizeof *w->thread);
    while (w->ring && w->thread && w->threads < threads &&
           !pthread_create(&w->thread[w->threads], NULL, run, w))
        w->threads++;
    if (w->threads == threads)
        return TT_OK;
    tt_workers_close(w);
    *out = NULL;
    return tt_fail(e, TT_ENOMEM, "cannot start %d worker threads", threads);
}

void tt_workers_close(tt_workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->work);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->threads; i++)
        pthread_join(w->thread[i], NULL);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->idle);
    pthread_mutex_destroy(&w->lock);
    free(w->thread);
    free(w->ring);
    free(w);
}

bool tt_workers_add(tt_workers *w, void (*fn)(void *arg), void *arg)
{
    pthread_mutex_lock(&w->lock);
    bool room = w->count < w->size;
    if (room) {
        w->ring[(w->first + w->count++) % w->size] = (task){fn, arg};
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    return room;
}

void tt_workers_wait(tt_workers *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->count || w->running)
        pthread_cond_wait(&w->idle, &w->lock);
    pthread_mutex_unlock(&w->lock);
}
