/* active.c - the sequences in flight, texts and images alike. */
#include <stdlib.h>

#include "server/scheduler/parts.h"

const tt_err *tt_active_failure(const tt_active *a)
{
    if (tt_active_is_picture(a))
        return a->picture.failed ? &a->picture.error : NULL;
    return a->run.failed ? &a->run.error : NULL;
}

/* What runs its next pass. */
static const void *runs_on(const tt_active *a)
{
    return tt_active_is_picture(a) ? tt_picture_run_model(&a->picture)
                                   : (void *)tt_run_model(&a->run);
}

bool tt_active_same_pass(const tt_active *a, const tt_active *b)
{
    if (runs_on(a) != runs_on(b))
        return false;
    return tt_active_is_picture(a) ? a->picture.pass == b->picture.pass
                                   : tt_run_recurrences(&a->run) == tt_run_recurrences(&b->run);
}

int64_t tt_active_rows(const tt_active *a)
{
    return tt_active_is_picture(a) ? tt_picture_run_rows(&a->picture) : tt_run_rows(&a->run);
}

/* --- the list of them --- */

bool tt_sched_make_room(tt_scheduler *s)
{
    if (s->running < s->room)
        return true;
    tt_active **more = realloc(s->list, (size_t)s->room * 2 * sizeof *more);
    if (!more)
        return false;
    s->list = more;
    s->room *= 2;
    return true;
}

static void count_running(tt_scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->stats.running = s->running;
    pthread_mutex_unlock(&s->lock);
}

void tt_sched_join(tt_scheduler *s, tt_active *a)
{
    s->list[s->running++] = a;
    a->job->running++;
    count_running(s);
}

void tt_sched_leave(tt_scheduler *s, const tt_active *a)
{
    int i = 0;
    while (s->list[i] != a)
        i++;
    s->list[i] = s->list[--s->running];
    a->job->running--;
    count_running(s);
}
