/* scheduler.c - the step loop and the thread it runs on; see scheduler.h, and scheduler/parts.h for
 * what a turn of it does. */
#include "server/scheduler.h"

#include <stdlib.h>

#include "server/scheduler/parts.h"

/* Nothing to run: the next look at who waits comes a little later, or when there is a new job. */
static void doze(tt_scheduler *s)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&s->lock);
    if (!s->quit && !s->queue)
        pthread_cond_timedwait(&s->work, &s->lock, &until);
    pthread_mutex_unlock(&s->lock);
}

/* Sleeps while there is nothing at all to do; false when it is over. */
static bool wait_for_work(tt_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->quit && !s->queue && !s->running && !s->searches)
        pthread_cond_wait(&s->work, &s->lock);
    bool goes_on = !s->quit;
    pthread_mutex_unlock(&s->lock);
    return goes_on;
}

static void *thread_main(void *arg)
{
    tt_scheduler *s = arg;
    pthread_setname_np(pthread_self(), "tutti-engine");
    while (wait_for_work(s)) {
        tt_sched_drop_ended(s);
        tt_sched_advance_searches(s);
        tt_sched_admit(s);
        tt_sched_plan(s);
        tt_sched_run_pass(s);
        if (s->waits && !s->running)
            doze(s);
    }
    tt_sched_cancel_all(s);
    return NULL;
}

static void scheduler_free(tt_scheduler *s)
{
    tt_batch_free(&s->batch);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    free(s->list);
    free(s->pick);
    free(s->pictures);
    free(s->picked);
    free(s);
}

tt_status tt_scheduler_open(tt_scheduler **out, const tt_scheduler_options *o, tt_err *e)
{
    *out = NULL;
    tt_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a scheduler");
    s->o = *o;
    s->stats.bytes_limit = (int64_t)o->max_bytes;
    size_t n = (size_t)o->max_running;
    s->room = o->max_running;
    s->list = calloc(n, sizeof *s->list);
    s->pick = calloc(n, sizeof *s->pick);
    s->pictures = calloc(n, sizeof *s->pictures);
    s->picked = calloc(n, sizeof *s->picked);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    if (!s->list || !s->pick || !s->pictures || !s->picked ||
        pthread_create(&s->thread, NULL, thread_main, s)) {
        scheduler_free(s);
        return tt_fail(e, TT_ENOMEM, "cannot start the engine's thread");
    }
    *out = s;
    return TT_OK;
}

void tt_scheduler_close(tt_scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    scheduler_free(s);
}

void tt_scheduler_stats(tt_scheduler *s, tt_engine_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}
