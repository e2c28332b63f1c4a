/* local.c - see local.h. */
#include "server/local.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "server/cmd.h"

enum { MAX_SAMPLES = 1024 };

tt_status tt_local_open(tt_local *l, const tt_model_place *place, const tt_model_place *guide,
                        const tt_engine_args *a, tt_err *e)
{
    memset(l, 0, sizeof *l);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->woken, &monotonic);
    pthread_condattr_destroy(&monotonic);

    tt_status s = tt_open_served(&l->engine, &l->served, place, a, e);
    if (!s && guide)
        s = tt_load_model(l->engine, guide, a, e);
    if (!s)
        s = tt_metrics_open(&l->metrics, false, e);
    if (s)
        return s;
    l->api.engine = l->engine;
    l->api.metrics = l->metrics;
    l->api.version = TT_VERSION;
    l->api.max_samples = MAX_SAMPLES;
    atomic_store(&l->api.state, TT_API_READY);
    return TT_OK;
}

void tt_local_close(tt_local *l)
{
    tt_engine_close(l->engine);
    tt_metrics_close(l->metrics);
    pthread_cond_destroy(&l->woken);
    pthread_mutex_destroy(&l->lock);
}

void tt_local_wake(void *arg)
{
    tt_local *l = arg;
    pthread_mutex_lock(&l->lock);
    l->wakes++;
    pthread_cond_signal(&l->woken);
    pthread_mutex_unlock(&l->lock);
}

void tt_local_wait(tt_local *l, uint64_t *seen, int64_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&l->lock);
    int rc = 0;
    while (l->wakes == *seen && rc == 0)
        rc = timeout_ms < 0 ? pthread_cond_wait(&l->woken, &l->lock)
                            : pthread_cond_timedwait(&l->woken, &l->lock, &until);
    *seen = l->wakes;
    pthread_mutex_unlock(&l->lock);
}
