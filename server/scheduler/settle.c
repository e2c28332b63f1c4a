/* settle.c - what a pass made of a sequence: readers get to see it, and it may be over.
 *
 * A text ends at its first stop id, but only where nothing before it is open or may be revised: the
 * model fills columns in any order. */
#include "server/scheduler/parts.h"

static bool is_stop(const tt_job *j, int32_t id)
{
    for (int k = 0; k < j->spec.model->stop_ids; k++)
        if (j->spec.model->stop_id[k] == id)
            return true;
    return false;
}

/* The column of the first generated stop id, if nothing before it is open or may be revised; else
 * -1. */
static int32_t stop_column(const tt_active *a)
{
    const tt_seq *q = &a->run.seq;
    for (int32_t c = 0; c < q->columns - q->unsettled; c++) {
        if (q->fixed[c])
            continue;
        if (tt_seq_open_at(q, c))
            return -1;
        if (is_stop(a->job, q->id[c]))
            return c;
    }
    return -1;
}

/* Whether columns behind a stop id may be left out of passes. Guided and block-causal samplers end
 * by themselves; nothing is cut that may be revised. */
static bool may_cut(const tt_active *a)
{
    const tt_job_spec *p = &a->job->spec;
    const tt_run *r = &a->run;
    return p->stop_early && p->shrink && tt_sampler_shares(r->sampler, &p->params) &&
           !(r->sampler->needs & TT_KIND_BLOCKS) && !r->seq.unsettled;
}

/* The answer ends at its first stop id at the latest, wherever columns before it are still open. */
static void cut_behind_stop(tt_active *a)
{
    const tt_seq *q = &a->run.seq;
    for (int32_t c = 0; c + 1 < a->run.live; c++)
        if (!q->fixed[c] && !tt_seq_open_at(q, c) && is_stop(a->job, q->id[c]))
            tt_run_cut(&a->run, c + 1);
}

static bool settle_text(tt_active *a, tt_finish *why, int32_t *end)
{
    tt_job *j = a->job;
    tt_run *r = &a->run;
    if (may_cut(a))
        cut_behind_stop(a);
    tt_job_publish(j, a->sample, r);
    if (r->done && r->seq.complete) {
        *why = TT_FINISH_STOP;
        return true;
    }
    int32_t stop = j->spec.ban_stops ? -1 : stop_column(a);
    if (stop >= 0 && (j->spec.stop_early || r->done)) {
        *why = TT_FINISH_STOP;
        *end = stop;
        return true;
    }
    return r->done;
}

bool tt_sched_settle(tt_active *a, tt_finish *why, int32_t *end)
{
    *end = a->job->spec.columns;
    *why = TT_FINISH_LENGTH;
    if (!tt_active_is_picture(a))
        return settle_text(a, why, end);
    if (!a->job->search) /* of a search the results are published */
        tt_job_publish_picture(a->job, a->sample, &a->picture);
    return a->picture.done;
}
