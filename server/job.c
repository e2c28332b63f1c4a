/* job.c - see job.h and the jobs part of engine.h. */
#include "server/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/batcher.h"
#include "server/guide.h"

/* --- checking --- */

enum { MAX_SAMPLES = 128, MAX_BIAS = 1 << 20 };

static tt_status check_canvas(const tt_job_spec *s, int64_t max_rows, tt_err *e)
{
    const tt_served *m = s->model;
    int32_t open = 0;
    int32_t columns = tt_run_columns(s->sampler, &s->params, s->columns);
    if (s->columns < 1 || columns > m->info.context)
        return tt_fail_param(e, "max_tokens", "context_length_exceeded",
                             "the canvas has %d columns; model '%s' has a context of %lld",
                             columns, m->id, (long long)m->info.context);
    int64_t rows = s->params.cfg_scale > 0 ? 2 * (int64_t)s->columns : s->columns;
    if (s->sampler->needs & TT_KIND_BLOCKS)
        rows = 0; /* fed in pieces */
    if (rows > max_rows)
        return tt_fail_param(e, "max_tokens", "context_length_exceeded",
                             "the canvas needs %lld rows per pass; this server takes %lld",
                             (long long)rows, (long long)max_rows);
    if (s->prompt < 0 || s->prompt >= s->columns)
        return tt_fail_param(e, "prompt", "invalid_value", "%d prompt columns of %d", s->prompt,
                             s->columns);
    for (int32_t c = 0; c < s->columns; c++) {
        open += s->open[c] != 0;
        if (!s->open[c] && (s->id[c] < 0 || s->id[c] >= m->info.vocab))
            return tt_fail_param(e, "prompt", "invalid_value",
                                 "token %d at column %d is outside the vocabulary of %lld",
                                 s->id[c], c, (long long)m->info.vocab);
        if (!s->open[c] && s->id[c] == m->info.mask_id)
            return tt_fail_param(e, "prompt", "invalid_value",
                                 "column %d is the mask token; holes must be declared as such", c);
    }
    if (!open)
        return tt_fail_param(e, "max_tokens", "invalid_value", "nothing is to be filled");
    return TT_OK;
}

static tt_status check_guide(const tt_job_spec *s, tt_err *e)
{
    if (s->guide->info.context < s->columns)
        return tt_fail_param(e, "guide", "context_length_exceeded",
                             "guide '%.60s' has a context of %lld, the canvas %d columns",
                             s->guide->id, (long long)s->guide->info.context, s->columns);
    return tt_guide_check(s->model, s->guide, e);
}

static tt_status check_spec(const tt_job_spec *s, int64_t max_rows, tt_err *e)
{
    if (s->samples < 1 || s->samples > MAX_SAMPLES)
        return tt_fail_param(e, "n", "invalid_value", "'n' is %d, must be in 1..%d", s->samples,
                             MAX_SAMPLES);
    if (s->n_top < 0 || s->n_top > TT_MAX_TOP)
        return tt_fail_param(e, "logprobs", "invalid_value", "%d alternatives, at most %d",
                             s->n_top, TT_MAX_TOP);
    if (s->n_bias < 0 || s->n_bias > MAX_BIAS)
        return tt_fail_param(e, "logit_bias", "invalid_value", "%d entries", s->n_bias);
    for (int32_t i = 0; i < s->n_bias; i++)
        if (s->bias[i].id < 0 || s->bias[i].id >= s->model->info.vocab)
            return tt_fail_param(e, "logit_bias", "invalid_value", "token %d is not in the model",
                                 s->bias[i].id);
    size_t count;
    const tt_param *all = tt_param_all(&count);
    for (size_t i = 0; i < count; i++)
        if (s->params.given >> i & 1 && !tt_sampler_reads(s->sampler, &all[i]))
            return tt_fail_param(e, all[i].name, "unsupported_parameter",
                                 "sampler '%s' does not read '%s'", s->sampler->name, all[i].name);
    if (s->guide) {
        tt_status st = check_guide(s, e);
        if (st)
            return st;
    }
    return check_canvas(s, max_rows, e);
}

/* --- life --- */

static tt_status sample_arrays(tt_view *v, const tt_job_spec *s)
{
    size_t n = (size_t)s->columns;
    *v = (tt_view){.columns = s->columns, .n_top = s->n_top, .end = s->columns, .version = 1,
                   .capacity = s->columns};
    v->id = calloc(n, sizeof *v->id);
    v->step = calloc(n, sizeof *v->step);
    v->logprob = calloc(n, sizeof *v->logprob);
    v->top = s->n_top ? calloc(n * (size_t)s->n_top, sizeof *v->top) : NULL;
    if (!v->id || !v->step || !v->logprob || (s->n_top && !v->top))
        return TT_ENOMEM;
    for (size_t c = 0; c < n; c++)
        v->id[c] = s->open[c] ? -1 : s->id[c];
    return TT_OK;
}

static void *copy(const void *from, size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    return p && bytes ? memcpy(p, from, bytes) : p;
}

/* Stop ids inside holes are banned by bias. */
static tt_status copy_bias(tt_job *j, const tt_job_spec *s)
{
    int32_t extra = s->ban_stops ? s->model->stop_ids : 0, n = 0;
    j->bias = malloc(((size_t)s->n_bias + (size_t)extra + 1) * sizeof *j->bias);
    if (!j->bias)
        return TT_ENOMEM;
    for (int32_t i = 0; i < s->n_bias; i++) {
        bool stop = false;
        for (int32_t k = 0; k < extra; k++)
            stop |= s->bias[i].id == s->model->stop_id[k];
        if (!stop)
            j->bias[n++] = s->bias[i];
    }
    for (int32_t k = 0; k < extra; k++)
        j->bias[n++] = (tt_id_value){s->model->stop_id[k], -__builtin_inff()};
    j->spec.bias = j->bias;
    j->spec.n_bias = n;
    return TT_OK;
}

static void job_free(tt_job *j)
{
    for (int32_t i = 0; j->sample && i < j->spec.samples; i++)
        tt_view_free(&j->sample[i].seen);
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->wake_lock);
    pthread_cond_destroy(&j->changed);
    free(j->sample);
    free(j->id);
    free(j->open);
    free(j->bias);
    free(j);
}

/* Keys and values of one sample, its unconditional twin and its guide included, and the rows it
 * keeps between passes. */
static size_t store_bytes(const tt_job_spec *s)
{
    int32_t columns = tt_run_columns(s->sampler, &s->params, s->columns);
    columns = tt_sampler_store(s->sampler, &s->params, columns, s->prompt);
    size_t one = (size_t)columns * s->model->info.kv_bytes_per_column;
    size_t memo = tt_sampler_memo(s->sampler, &s->params)
                      ? tt_memo_bytes(tt_served_model(s->model), s->columns)
                      : 0;
    size_t guide = s->guide ? (size_t)s->columns * s->guide->info.kv_bytes_per_column : 0;
    return guide + memo + (s->params.cfg_scale > 0 ? 2 * one : one);
}

tt_status tt_job_open(tt_job **out, const tt_job_spec *spec, int64_t max_rows, tt_err *e)
{
    *out = NULL;
    tt_job_spec s = *spec;
    if (!s.sampler)
        s.sampler = s.model->sampler;
    tt_status st = check_spec(&s, max_rows, e);
    if (st)
        return st;
    tt_job *j = calloc(1, sizeof *j);
    if (!j)
        return tt_fail(e, TT_ENOMEM, "no memory for a job");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->wake_lock, NULL);
    pthread_cond_init(&j->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    j->spec = s;
    j->owners = 2;
    j->unfinished = s.samples;
    j->wake = s.wake;
    j->submitted_ns = tt_now_ns();
    j->id = copy(s.id, (size_t)s.columns * sizeof *j->id);
    j->open = copy(s.open, (size_t)s.columns);
    j->sample = calloc((size_t)s.samples, sizeof *j->sample);
    bool bad = !j->id || !j->open || !j->sample || copy_bias(j, &s);
    for (int32_t i = 0; i < s.samples && !bad; i++)
        bad = sample_arrays(&j->sample[i].seen, &s) != TT_OK;
    if (bad) {
        job_free(j);
        return tt_fail(e, TT_ENOMEM, "no memory for a job of %d columns", s.columns);
    }
    j->spec.id = j->id;
    j->spec.open = j->open;
    int32_t room = tt_run_columns(s.sampler, &s.params, s.columns);
    j->bytes = (size_t)s.samples * (tt_run_bytes(s.sampler, room, s.n_top, j->spec.n_bias) +
                                    store_bytes(&s));
    *out = j;
    return TT_OK;
}

void tt_job_drop(tt_job *j)
{
    pthread_mutex_lock(&j->lock);
    bool last = --j->owners == 0;
    pthread_mutex_unlock(&j->lock);
    if (last)
        job_free(j);
}

/* --- the engine's side --- */

void tt_job_publish(tt_job *j, int32_t i, const tt_seq *q, int32_t nfe)
{
    tt_view *v = &j->sample[i].seen;
    size_t n = (size_t)q->columns;
    pthread_mutex_lock(&j->lock);
    for (size_t c = 0; c < n; c++)
        v->id[c] = tt_seq_open_at(q, (int32_t)c) ? -1 : q->id[c];
    memcpy(v->step, q->step_of, n * sizeof *v->step);
    memcpy(v->logprob, q->logprob, n * sizeof *v->logprob);
    if (v->top)
        memcpy(v->top, q->top, n * (size_t)q->n_top * sizeof *v->top);
    v->now = q->step;
    v->of = q->expected > q->step ? q->expected : q->step;
    v->nfe = nfe;
    v->unsettled = q->unsettled;
    v->version++;
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

void tt_job_finish(tt_job *j, int32_t i, tt_finish why, int32_t end, const tt_err *error)
{
    tt_view *v = &j->sample[i].seen;
    pthread_mutex_lock(&j->lock);
    if (v->finish == TT_FINISH_NONE) {
        v->finish = why;
        v->end = end;
        if (error)
            v->error = *error;
        if (why == TT_FINISH_STOP || why == TT_FINISH_LENGTH)
            v->of = v->now;
        v->version++;
        if (--j->unfinished == 0)
            j->ended_ns = tt_now_ns();
    }
    pthread_cond_broadcast(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

void tt_job_wake(tt_job *j)
{
    pthread_mutex_lock(&j->wake_lock);
    if (j->wake)
        j->wake(j->spec.wake_arg);
    pthread_mutex_unlock(&j->wake_lock);
}

/* --- the reader's side --- */

void tt_view_free(tt_view *v)
{
    free(v->id);
    free(v->step);
    free(v->logprob);
    free(v->top);
    *v = (tt_view){0};
}

static bool view_reserve(tt_view *v, const tt_view *from)
{
    size_t n = (size_t)from->columns;
    if (v->capacity >= from->columns && v->n_top == from->n_top)
        return true;
    tt_view_free(v);
    v->id = malloc(n * sizeof *v->id);
    v->step = malloc(n * sizeof *v->step);
    v->logprob = malloc(n * sizeof *v->logprob);
    v->top = from->n_top ? malloc(n * (size_t)from->n_top * sizeof *v->top) : NULL;
    if (!v->id || !v->step || !v->logprob || (from->n_top && !v->top)) {
        tt_view_free(v);
        return false;
    }
    v->capacity = from->columns;
    return true;
}

bool tt_job_view(tt_job *j, int32_t sample, tt_view *v)
{
    const tt_view *from = &j->sample[sample].seen;
    pthread_mutex_lock(&j->lock);
    bool news = from->version != v->version && view_reserve(v, from);
    if (news) {
        size_t n = (size_t)from->columns;
        tt_view arrays = *v;
        *v = *from;
        v->id = memcpy(arrays.id, from->id, n * sizeof *v->id);
        v->step = memcpy(arrays.step, from->step, n * sizeof *v->step);
        v->logprob = memcpy(arrays.logprob, from->logprob, n * sizeof *v->logprob);
        v->top = from->top ? memcpy(arrays.top, from->top,
                                    n * (size_t)from->n_top * sizeof *v->top)
                           : NULL;
        v->capacity = arrays.capacity;
    }
    pthread_mutex_unlock(&j->lock);
    return news;
}

static bool differs(const tt_job *j, const uint64_t *seen)
{
    for (int32_t i = 0; i < j->spec.samples; i++)
        if (j->sample[i].seen.version != seen[i])
            return true;
    return false;
}

bool tt_job_wait(tt_job *j, const uint64_t *seen, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    int64_t ns = until.tv_nsec + (int64_t)timeout_ms * 1000000;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    pthread_mutex_lock(&j->lock);
    int rc = 0;
    while (!differs(j, seen) && j->unfinished && rc != ETIMEDOUT)
        rc = timeout_ms < 0 ? pthread_cond_wait(&j->changed, &j->lock)
                            : pthread_cond_timedwait(&j->changed, &j->lock, &until);
    bool news = differs(j, seen);
    pthread_mutex_unlock(&j->lock);
    return news;
}

bool tt_job_finished(tt_job *j)
{
    pthread_mutex_lock(&j->lock);
    bool done = j->unfinished == 0;
    pthread_mutex_unlock(&j->lock);
    return done;
}

void tt_job_stop(tt_job *j, int32_t sample) { j->sample[sample].stop = true; }

void tt_job_cancel(tt_job *j) { j->cancel = true; }

void tt_job_release(tt_job *j)
{
    if (!j)
        return;
    j->cancel = true; /* of no effect once finished */
    pthread_mutex_lock(&j->wake_lock);
    j->wake = NULL;
    pthread_mutex_unlock(&j->wake_lock);
    tt_job_drop(j);
}

tt_job_times tt_job_get_times(tt_job *j)
{
    pthread_mutex_lock(&j->lock);
    int64_t now = j->ended_ns ? j->ended_ns : tt_now_ns();
    int64_t start = j->started_ns ? j->started_ns : now;
    tt_job_times t = {.queue_ms = (double)(start - j->submitted_ns) / 1e6,
                      .run_ms = (double)(now - start) / 1e6};
    pthread_mutex_unlock(&j->lock);
    return t;
}

int32_t tt_job_ahead(tt_job *j) { return j->ahead; }
