/* searches.c - jobs that are searches over images: their orders go through the queue as any job,
 * and between orders they score, one search a turn. */
#include "kernels/base/clock.h"
#include "server/scheduler/parts.h"

/* --- the list of those that have begun --- */

void tt_sched_begin_search(tt_scheduler *s, tt_job *j)
{
    j->search_next = s->searches;
    s->searches = j;
}

/* Of no effect on one that has not begun. */
static void unlink_search(tt_scheduler *s, const tt_job *j)
{
    tt_job **at = &s->searches;
    while (*at && *at != j)
        at = &(*at)->search_next;
    if (*at)
        *at = j->search_next;
}

static void put_last(tt_scheduler *s, tt_job *j)
{
    unlink_search(s, j);
    tt_job **at = &s->searches;
    while (*at)
        at = &(*at)->search_next;
    *at = j;
    j->search_next = NULL;
}

/* --- going on --- */

/* The next order of a search, in the queue as any job: others of its priority come first. */
static void put_pieces(tt_scheduler *s, tt_job *j)
{
    pthread_mutex_lock(&s->lock);
    j->to_start = 0;
    j->units = tt_picture_search_pieces(j->search);
    tt_sched_enqueue(s, j);
    pthread_mutex_unlock(&s->lock);
}

/* True when it used the device, so that others come first now. */
static bool advance(tt_scheduler *s, tt_job *j)
{
    tt_search_next next = TT_SEARCH_AGAIN;
    tt_err e = {0};
    pthread_mutex_lock(s->o.device);
    tt_status st = tt_picture_search_next(j->search, &next, &e);
    pthread_mutex_unlock(s->o.device);
    if (!st && next == TT_SEARCH_OVER)
        st = tt_job_publish_search(j, &e);
    if (st || next == TT_SEARCH_OVER) {
        tt_sched_end_search(s, j, st ? TT_FINISH_ERROR : TT_FINISH_LENGTH, st ? &e : NULL);
        return true;
    }
    if (next == TT_SEARCH_WAITS) {
        s->waits = true;
        return false;
    }
    if (next == TT_SEARCH_PIECES) {
        put_pieces(s, j);
        if (j->spec.wake_steps)
            tt_job_wake(j);
    }
    put_last(s, j);
    return true;
}

/* Of best of n no more samples begin once its time is over. */
static void curtail(tt_scheduler *s, tt_job *j)
{
    if (!tt_picture_search_curtail(j->search, j->to_start))
        return;
    pthread_mutex_lock(&s->lock);
    j->units = j->to_start;
    tt_sched_dequeue(s, j);
    pthread_mutex_unlock(&s->lock);
}

void tt_sched_advance_searches(tt_scheduler *s)
{
    int64_t now = tt_now_ns();
    s->waits = false;
    for (tt_job *j = s->searches, *next; j; j = next) {
        next = j->search_next;
        tt_finish why = tt_sched_overdue(j, now);
        if (why)
            tt_sched_end_search(s, j, why, NULL);
        else
            curtail(s, j);
    }
    for (tt_job *j = s->searches, *next; j; j = next) {
        next = j->search_next;
        if (tt_picture_search_idle(j->search) && advance(s, j))
            return;
    }
}

void tt_sched_end_search(tt_scheduler *s, tt_job *j, tt_finish why, const tt_err *error)
{
    for (int i = s->running - 1; i >= 0; i--)
        if (s->list[i]->job == j)
            tt_sched_end_active(s, s->list[i], TT_FINISH_CANCELLED, 0, NULL);
    pthread_mutex_lock(&s->lock);
    tt_sched_dequeue(s, j);
    pthread_mutex_unlock(&s->lock);
    unlink_search(s, j);
    pthread_mutex_lock(s->o.device);
    tt_picture_search_clear(j->search);
    pthread_mutex_unlock(s->o.device);
    tt_sched_end_samples(s, j, 0, why, error);
}
