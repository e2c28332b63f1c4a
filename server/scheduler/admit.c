/* admit.c - which queued jobs begin a sample at this turn: the most urgent, then those with the
 * fewest in flight, while their model has places and memory is left. */
#include <stdlib.h>

#include "kernels/base/clock.h"
#include "server/scheduler/parts.h"

/* --- whose turn it is --- */

/* True when the model's sequences are as many as a step may have. Models do not take each other's
 * places: what is made of one waits for its own kind alone. */
static bool is_full(const tt_scheduler *s, const tt_served *model)
{
    int n = 0;
    for (int i = 0; i < s->running; i++)
        n += s->list[i]->job->spec.model == model;
    return n >= s->o.max_running;
}

/* Whether memory is left for a job that has not begun; those that have keep theirs. */
static bool fits(const tt_scheduler *s, const tt_job *j)
{
    return j->started_ns || s->stats.bytes_used + (int64_t)j->bytes <= (int64_t)s->o.max_bytes;
}

/* Of the most urgent jobs that find a place the one with the fewest samples in the batch: a job of
 * many samples leaves room for those behind it. One that finds no memory keeps those behind it from
 * beginning, but not from going on: what they give back is what it waits for. */
static tt_job *next_in_line(const tt_scheduler *s)
{
    tt_job *best = NULL;
    const tt_served *known = NULL; /* the model of `full`: neighbours are often alike */
    bool full = false, blocked = false;
    for (tt_job *j = s->queue; j; j = j->next) {
        if (best && j->spec.priority != best->spec.priority)
            break;
        blocked |= !fits(s, j);
        if (blocked && !j->started_ns)
            continue;
        if (j->spec.model != known) {
            known = j->spec.model;
            full = is_full(s, known);
        }
        if (!full && (!best || j->running < best->running))
            best = j;
    }
    return best;
}

/* The next sample to start, or NULL when the batch, memory or the queue is at its end. */
static tt_job *take_next(tt_scheduler *s, int32_t *sample)
{
    tt_job *j = next_in_line(s);
    if (!j || !tt_sched_make_room(s))
        return NULL;
    if (!j->started_ns) {
        s->stats.bytes_used += (int64_t)j->bytes;
        pthread_mutex_lock(&j->lock);
        j->started_ns = tt_now_ns();
        pthread_mutex_unlock(&j->lock);
        if (j->search)
            tt_sched_begin_search(s, j);
    }
    *sample = j->to_start++;
    if (j->to_start == j->units)
        tt_sched_dequeue(s, j);
    return j;
}

static tt_job *take_overdue(tt_scheduler *s, int64_t now, tt_finish *why)
{
    for (tt_job *j = s->queue; j; j = j->next)
        if ((*why = tt_sched_overdue(j, now))) {
            tt_sched_dequeue(s, j);
            return j;
        }
    return NULL;
}

/* --- beginning --- */

static tt_status open_run(tt_active *a, tt_job *j, int32_t i, tt_err *e)
{
    if (j->search)
        return tt_picture_search_start(j->search, i, &a->picture, e);
    if (j->spec.picture) {
        tt_picture_run_spec picture = tt_job_picture_spec(j, i);
        tt_status s = tt_job_picture_room(j, i, e);
        return s ? s : tt_picture_run_open(&a->picture, &picture, e);
    }
    tt_run_spec spec = tt_job_run_spec(j, i);
    return tt_run_open(&a->run, &spec, e);
}

static void start_sample(tt_scheduler *s, tt_job *j, int32_t i)
{
    tt_err e = {0};
    tt_active *a = calloc(1, sizeof *a);
    tt_status st = a ? open_run(a, j, i, &e) : tt_fail(&e, TT_ENOMEM, "no memory");
    if (st) {
        free(a);
        if (j->search)
            tt_picture_search_fail(j->search, &e);
        else
            tt_sched_end_sample(s, j, i, TT_FINISH_ERROR, j->spec.columns, &e);
        return;
    }
    a->job = j;
    a->sample = i;
    a->turn = s->turn; /* not older than those that wait already */
    tt_sched_join(s, a);
}

void tt_sched_admit(tt_scheduler *s)
{
    for (;;) {
        tt_finish why = TT_FINISH_NONE;
        int32_t i = 0;
        pthread_mutex_lock(&s->lock);
        tt_job *late = take_overdue(s, tt_now_ns(), &why);
        tt_job *j = late ? NULL : take_next(s, &i);
        pthread_mutex_unlock(&s->lock);
        if (!late && !j)
            return;
        if (late)
            tt_sched_end_queued(s, late, why);
        else
            start_sample(s, j, i);
    }
}
