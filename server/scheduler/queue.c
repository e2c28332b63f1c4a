/* queue.c - jobs that wait to begin, by priority, then by arrival; and who is turned away. */
#include "server/scheduler/parts.h"

static void count_ahead(tt_scheduler *s)
{
    int n = 0;
    for (tt_job *j = s->queue; j; j = j->next)
        j->ahead = n++;
    s->stats.waiting = n;
}

static bool before(const tt_job *a, const tt_job *b)
{
    return a->spec.priority != b->spec.priority ? a->spec.priority < b->spec.priority
                                                : a->number < b->number;
}

void tt_sched_enqueue(tt_scheduler *s, tt_job *j)
{
    j->number = s->numbers++;
    tt_job **at = &s->queue;
    while (*at && before(*at, j))
        at = &(*at)->next;
    j->next = *at;
    *at = j;
    count_ahead(s);
}

void tt_sched_dequeue(tt_scheduler *s, tt_job *j)
{
    tt_job **at = &s->queue;
    while (*at && *at != j)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = j->next;
    j->next = NULL;
    j->ahead = 0;
    count_ahead(s);
}

/* A guess from what passes cost so far: every queued job runs once through the batch. */
static int64_t guess_wait_ms(const tt_scheduler *s)
{
    int64_t jobs = 0;
    for (int i = 0; i <= TT_FINISH_ERROR; i++)
        jobs += s->stats.finished[i];
    double per_job = jobs ? s->stats.pass_seconds * 1000 / (double)jobs : 100;
    double ms = per_job * (double)(s->stats.waiting + 1);
    return ms < 50 ? 50 : ms > 60000 ? 60000 : (int64_t)ms;
}

/* What can start at the next turn does not count as waiting. */
static bool is_full(const tt_scheduler *s)
{
    const tt_engine_stats *now = &s->stats;
    return (now->waiting >= s->o.max_queue && now->running >= s->o.max_running) ||
           now->waiting >= s->o.max_queue + s->o.max_running;
}

tt_status tt_scheduler_submit(tt_scheduler *s, tt_job *j, int64_t *retry_after_ms, tt_err *e)
{
    tt_status st = TT_OK;
    if (j->bytes > s->o.max_bytes)
        return tt_fail(e, TT_ENOMEM, "the job needs %zu MiB; this server gives jobs %zu",
                       j->bytes >> 20, s->o.max_bytes >> 20);
    pthread_mutex_lock(&s->lock);
    if (s->quit)
        st = tt_fail(e, TT_ECANCEL, "the server is shutting down");
    else if (is_full(s) && !j->spec.continues)
        st = tt_fail(e, TT_EBUSY, "%d jobs are waiting already", (int)s->stats.waiting);
    if (st == TT_EBUSY && retry_after_ms)
        *retry_after_ms = guess_wait_ms(s);
    if (!st) {
        tt_sched_enqueue(s, j);
        pthread_cond_signal(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}
