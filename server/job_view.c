/* job_view.c - the state of a sample that readers see: the engine writes it after every pass,
 * readers copy what is new, both under the job's lock. */
#include <stdlib.h>
#include <string.h>

#include "server/copy.h"
#include "server/job.h"

/* --- arrays --- */

/* Those that are there from the start. False without memory. */
static bool take_arrays(tt_view *v, int32_t columns, int32_t n_top, bool recurs)
{
    size_t n = (size_t)columns;
    v->id = calloc(n, sizeof *v->id);
    v->step = calloc(n, sizeof *v->step);
    v->logprob = calloc(n, sizeof *v->logprob);
    v->top = n_top ? calloc(n * (size_t)n_top, sizeof *v->top) : NULL;
    v->recurrences = recurs ? calloc(n, sizeof *v->recurrences) : NULL;
    v->capacity = columns;
    return v->id && v->step && v->logprob && (!n_top || v->top) && (!recurs || v->recurrences);
}

void tt_view_free(tt_view *v)
{
    free(v->id);
    free(v->step);
    free(v->logprob);
    free(v->recurrences);
    free(v->top);
    free(v->change);
    free(v->picture);
    free(v->trail);
    free(v->features.vector);
    free(v->features.logit);
    *v = (tt_view){0};
}

/* Arrays that grow or appear late. Without memory the view shows fewer changes or no
 * vectors; who needs them sees that they are not there. */
static void copy_changes(tt_view *v, const tt_change *from, size_t n)
{
    if (n > v->change_room) {
        tt_change *more = realloc(v->change, 2 * n * sizeof *more);
        if (more) {
            v->change = more;
            v->change_room = 2 * n;
        }
    }
    size_t room = n < v->change_room ? n : v->change_room;
    if (room > v->changes)
        memcpy(v->change + v->changes, from + v->changes, (room - v->changes) * sizeof *from);
    v->changes = room;
}

static void copy_features(tt_features *to, const tt_features *from)
{
    size_t vectors = (size_t)from->vectors * (size_t)from->width * sizeof *from->vector;
    size_t logits = (size_t)from->vectors * (size_t)from->terms * sizeof *from->logit;
    if (to->vector || !from->vector)
        return;
    *to = *from;
    to->vector = tt_copy_of(from->vector, vectors);
    to->logit = from->logit ? tt_copy_of(from->logit, logits) : NULL;
    if (!to->vector || (from->logit && !to->logit))
        to->vectors = 0;
}

/* --- the engine's side --- */

bool tt_job_begin_view(tt_view *v, const tt_job_spec *s)
{
    bool recurs = s->sampler && s->sampler->needs & TT_KIND_RECURRENT; /* an image has none */
    *v = (tt_view){.columns = s->columns, .n_top = s->n_top, .end = s->columns, .version = 1};
    if (!take_arrays(v, s->columns, s->n_top, recurs))
        return false;
    for (int32_t c = 0; c < s->columns; c++)
        v->id[c] = s->open[c] ? -1 : s->id[c];
    return true;
}

void tt_job_publish(tt_job *j, int32_t i, const tt_run *r)
{
    const tt_seq *q = &r->seq;
    tt_view *v = &j->sample[i].seen;
    size_t n = (size_t)q->columns;
    pthread_mutex_lock(&j->lock);
    for (size_t c = 0; c < n; c++)
        v->id[c] = tt_seq_open_at(q, (int32_t)c) || (int32_t)c >= r->live ? -1 : q->id[c];
    if (q->log && !q->log->failed)
        copy_changes(v, (const tt_change *)(const void *)q->log->data,
                     q->log->size / sizeof(tt_change));
    if (r->done)
        copy_features(&v->features, &q->features);
    memcpy(v->step, q->step_of, n * sizeof *v->step);
    memcpy(v->logprob, q->logprob, n * sizeof *v->logprob);
    if (v->top)
        memcpy(v->top, q->top, n * (size_t)q->n_top * sizeof *v->top);
    if (v->recurrences && q->recurrences)
        memcpy(v->recurrences, q->recurrences, n * sizeof *v->recurrences);
    v->depth = q->depth;
    v->now = q->step;
    v->of = q->expected > q->step ? q->expected : q->step;
    v->nfe = r->nfe;
    v->unsettled = q->unsettled;
    v->version++;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

/* --- the reader's side --- */

static bool reserve(tt_view *v, const tt_view *from)
{
    if (v->capacity >= from->columns && v->n_top == from->n_top &&
        !v->recurrences == !from->recurrences && v->picture_bytes == from->picture_bytes &&
        v->trail_bytes == from->trail_bytes)
        return true;
    tt_view_free(v);
    v->picture = from->picture ? malloc(from->picture_bytes) : NULL;
    v->trail = from->trail ? malloc(from->trail_bytes) : NULL;
    if (!take_arrays(v, from->columns, from->n_top, from->recurrences) ||
        (from->picture && !v->picture) || (from->trail && !v->trail)) {
        tt_view_free(v);
        return false;
    }
    v->picture_bytes = from->picture_bytes;
    v->trail_bytes = from->trail_bytes;
    return true;
}

/* Everything of `from` into the arrays that *v has. */
static void copy_view(tt_view *v, const tt_view *from)
{
    size_t n = (size_t)from->columns;
    tt_view own = *v;
    copy_changes(&own, from->change, from->changes);
    copy_features(&own.features, &from->features);
    memcpy(own.id, from->id, n * sizeof *own.id);
    memcpy(own.step, from->step, n * sizeof *own.step);
    memcpy(own.logprob, from->logprob, n * sizeof *own.logprob);
    if (from->top)
        memcpy(own.top, from->top, n * (size_t)from->n_top * sizeof *own.top);
    if (from->recurrences)
        memcpy(own.recurrences, from->recurrences, n * sizeof *own.recurrences);
    if (from->trail)
        memcpy(own.trail, from->trail, (size_t)from->looks * n * sizeof *own.trail);
    if (from->pictures > own.pictures)
        memcpy(own.picture, from->picture, from->picture_bytes);
    *v = *from;
    v->id = own.id;
    v->step = own.step;
    v->logprob = own.logprob;
    v->top = own.top;
    v->recurrences = own.recurrences;
    v->trail = own.trail;
    v->picture = own.picture;
    v->features = own.features;
    v->change = own.change;
    v->changes = own.changes;
    v->change_room = own.change_room;
    v->capacity = own.capacity;
}

bool tt_job_view(tt_job *j, int32_t sample, tt_view *v)
{
    const tt_view *from = &j->sample[sample].seen;
    pthread_mutex_lock(&j->lock);
    bool news = from->version != v->version && reserve(v, from);
    if (news)
        copy_view(v, from);
    pthread_mutex_unlock(&j->lock);
    return news;
}
