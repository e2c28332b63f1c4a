/* ending.c - samples and jobs end: over, failed, cancelled, out of time, or with the server. */
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "server/scheduler/parts.h"

tt_finish tt_sched_overdue(const tt_job *j, int64_t now_ns)
{
    if (j->cancel)
        return TT_FINISH_CANCELLED;
    if (j->spec.deadline_ms > 0 && now_ns - j->submitted_ns > j->spec.deadline_ms * 1000000)
        return TT_FINISH_DEADLINE;
    return TT_FINISH_NONE;
}

/* --- what did not run any more --- */

/* Counts first, so that whoever sees the job finished sees its memory free. */
void tt_sched_end_sample(tt_scheduler *s, tt_job *j, int32_t i, tt_finish why, int32_t end,
                         const tt_err *error)
{
    bool last = j->unfinished == 1; /* only this thread changes it */
    pthread_mutex_lock(&s->lock);
    s->stats.finished[why]++;
    s->stats.bytes_used -= last && j->started_ns ? (int64_t)j->bytes : 0;
    pthread_mutex_unlock(&s->lock);
    tt_job_finish(j, i, why, end, error);
    if (last || j->spec.wake_steps)
        tt_job_wake(j);
    if (last)
        tt_job_drop(j);
}

void tt_sched_end_samples(tt_scheduler *s, tt_job *j, int32_t first, tt_finish why,
                          const tt_err *error)
{
    int32_t n = j->spec.samples, end = j->spec.columns; /* the last may free the job */
    for (int32_t k = first; k < n; k++)
        tt_sched_end_sample(s, j, k, why, end, error);
}

void tt_sched_end_queued(tt_scheduler *s, tt_job *j, tt_finish why)
{
    if (j->search)
        tt_sched_end_search(s, j, why, NULL);
    else
        tt_sched_end_samples(s, j, j->to_start, why, NULL);
}

/* --- what did --- */

/* A piece of a search has come to its end: the search takes what came of it. */
static void end_piece(tt_active *a, tt_finish why, const tt_err *error)
{
    if (why == TT_FINISH_ERROR)
        tt_picture_search_fail(a->job->search, error);
    else
        tt_picture_search_take(a->job->search, a->sample, &a->picture);
}

void tt_sched_end_active(tt_scheduler *s, tt_active *a, tt_finish why, int32_t end,
                         const tt_err *error)
{
    tt_sched_leave(s, a);
    pthread_mutex_lock(s->o.device);
    if (a->job->search && why != TT_FINISH_CANCELLED)
        end_piece(a, why, error);
    tt_run_close(&a->run);
    tt_picture_run_close(&a->picture);
    pthread_mutex_unlock(s->o.device);
    if (!a->job->search)
        tt_sched_end_sample(s, a->job, a->sample, why, end, error);
    free(a);
}

/* Pieces end with their search, or by themselves. */
static tt_finish ends_now(const tt_active *a, int64_t now)
{
    if (a->job->search)
        return TT_FINISH_NONE;
    tt_finish why = tt_sched_overdue(a->job, now);
    return !why && a->job->sample[a->sample].stop ? TT_FINISH_STOP : why;
}

void tt_sched_drop_ended(tt_scheduler *s)
{
    int64_t now = tt_now_ns();
    for (int i = 0; i < s->running;) {
        tt_active *a = s->list[i];
        tt_finish why = ends_now(a, now);
        if (why)
            tt_sched_end_active(s, a, why, a->job->spec.columns, NULL);
        else
            i++;
    }
}

void tt_sched_cancel_all(tt_scheduler *s)
{
    while (s->searches)
        tt_sched_end_search(s, s->searches, TT_FINISH_CANCELLED, NULL);
    while (s->running) {
        tt_active *a = s->list[0];
        tt_sched_end_active(s, a, TT_FINISH_CANCELLED, a->job->spec.columns, NULL);
    }
    for (;;) {
        pthread_mutex_lock(&s->lock);
        tt_job *j = s->queue;
        if (j)
            tt_sched_dequeue(s, j);
        pthread_mutex_unlock(&s->lock);
        if (!j)
            return;
        tt_sched_end_queued(s, j, TT_FINISH_CANCELLED);
    }
}
