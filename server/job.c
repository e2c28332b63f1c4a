/* job.c - see job.h and the jobs part of engine.h. */
#include "server/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/copy.h"
#include "server/served.h"

/* --- copying the spec --- */

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

/* The rules and, in one block behind them, their ids. */
static tt_status copy_rules(tt_job *j, const tt_job_spec *s)
{
    size_t ids = 0, head = (size_t)s->rules * sizeof *j->rule;
    for (int32_t i = 0; i < s->rules; i++)
        ids += (size_t)s->rule[i].n;
    j->rule = malloc(head + ids * sizeof(int32_t) + 1);
    if (!j->rule)
        return TT_ENOMEM;
    int32_t *id = (int32_t *)(void *)((char *)j->rule + head);
    for (int32_t i = 0; i < s->rules; i++) {
        j->rule[i] = s->rule[i];
        j->rule[i].id = memcpy(id, s->rule[i].id, (size_t)s->rule[i].n * sizeof *id);
        id += s->rule[i].n;
    }
    j->spec.rule = j->rule;
    return TT_OK;
}

static tt_status copy_extras(tt_job *j, const tt_job_spec *s)
{
    j->draft = s->draft ? tt_copy_of(s->draft, (size_t)s->columns * sizeof *j->draft) : NULL;
    j->negative = tt_copy_of(s->negative, (size_t)s->negatives * sizeof *j->negative);
    j->term = tt_copy_of(s->encoding.term, (size_t)s->encoding.terms * sizeof *j->term);
    if ((s->draft && !j->draft) || !j->negative || !j->term)
        return TT_ENOMEM;
    j->constraint = tt_copy_of(s->constraint, (size_t)s->constraints * sizeof *j->constraint);
    j->spec.constraint = j->constraint;
    j->spec.constraints = j->constraint ? s->constraints : 0;
    for (int32_t i = 0; i < j->spec.constraints; i++)
        tt_grammar_share(j->constraint[i].grammar);
    if (!j->constraint)
        return TT_ENOMEM;
    j->spec.draft = j->draft;
    j->spec.negative = j->negative;
    j->spec.encoding.term = j->term;
    return copy_rules(j, s);
}

/* Everything the spec leads to. */
static tt_status copy_spec(tt_job *j, const tt_job_spec *s)
{
    j->id = tt_copy_of(s->id, (size_t)s->columns * sizeof *j->id);
    j->open = tt_copy_of(s->open, (size_t)s->columns);
    j->sample = calloc((size_t)s->samples, sizeof *j->sample);
    if (!j->id || !j->open || !j->sample || copy_bias(j, s) || copy_extras(j, s))
        return TT_ENOMEM;
    if (s->picture && tt_job_copy_picture(j, s))
        return TT_ENOMEM;
    j->spec.id = j->id;
    j->spec.open = j->open;
    for (int32_t i = 0; i < s->samples; i++)
        if (!tt_job_begin_view(&j->sample[i].seen, s))
            return TT_ENOMEM;
    return TT_OK;
}

/* --- how it is run --- */

tt_run_spec tt_job_run_spec(const tt_job *j, int32_t i)
{
    const tt_job_spec *p = &j->spec;
    const tt_model_info *info = &p->model->info;
    int32_t tokens = p->model->tok ? tt_tok_vocab(p->model->tok) : (int32_t)info->vocab;
    return (tt_run_spec){.sampler = p->sampler,
                         .model = tt_served_model(p->model),
                         .guide = p->guide ? tt_served_model(p->guide) : NULL,
                         .params = &p->params,
                         .id = p->id,
                         .open = p->open,
                         .columns = p->columns,
                         .prompt = p->prompt,
                         .vocab = tokens < info->vocab ? tokens : (int32_t)info->vocab,
                         .noise = {.kind = TT_NOISE_PHILOX, .seed = p->seed,
                                   .sample = (uint32_t)i},
                         .bias = p->bias,
                         .n_bias = p->n_bias,
                         .n_top = p->n_top,
                         .samples = p->samples,
                         .draft = p->draft,
                         .encoding = p->sampler->reads && !p->draft ? &p->encoding : NULL,
                         .rule = p->rule,
                         .rules = p->rules,
                         .constraint = p->constraint,
                         .constraints = p->constraints,
                         .negative = p->negative,
                         .negatives = p->negatives,
                         .log = p->log};
}

/* Keys and values of one sample, its unconditional twin and its guide included, and the rows it
 * keeps between passes. */
static size_t store_bytes(const tt_job_spec *s)
{
    int32_t columns = tt_run_columns(s->sampler, &s->params, s->columns);
    columns = tt_sampler_store(s->sampler, &s->params, columns, s->prompt);
    tt_kv_sharing sharing = tt_sampler_sharing(s->sampler, &s->params);
    size_t one = (size_t)columns * tt_kv_column_bytes(&s->model->info, sharing.entries);
    tt_latent_size latents = tt_sampler_latents(s->sampler, &s->params, columns);
    if (latents.columns)
        one += tt_latents_bytes(tt_served_model(s->model), &latents);
    size_t memo = tt_sampler_memo(s->sampler, &s->params)
                      ? tt_memo_bytes(tt_served_model(s->model), s->columns)
                      : 0;
    size_t guide = s->guide ? (size_t)s->columns * s->guide->info.kv_bytes_per_column : 0;
    size_t more = s->negatives > s->prompt ? (size_t)(s->negatives - s->prompt) : 0;
    size_t twin = one ? one + more * s->model->info.kv_bytes_per_column : 0;
    return guide + memo + (s->params.cfg_scale > 0 ? one + twin : one);
}

static size_t sample_bytes(const tt_job *j)
{
    if (j->spec.picture) {
        tt_picture_run_spec picture = tt_job_picture_spec(j, 0);
        return tt_picture_run_bytes(&picture);
    }
    tt_run_spec run = tt_job_run_spec(j, 0);
    return tt_run_bytes(&run) + store_bytes(&j->spec);
}

/* Host and device memory while it runs. */
static size_t job_bytes(const tt_job *j, int max_running)
{
    int32_t most = j->search ? tt_picture_search_widest(j->search) : j->units;
    int32_t at_once = most < max_running ? most : max_running;
    size_t bytes = (size_t)at_once * sample_bytes(j);
    if (j->search)
        bytes += tt_picture_search_bytes(j->search);
    if (j->spec.picture) /* finished samples keep theirs until the job is released */
        bytes += (size_t)j->spec.samples * (tt_job_picture_bytes(j) + tt_job_trail_bytes(j));
    if (j->prompt.by) /* its rows */
        bytes += (size_t)j->prompt.ids * (size_t)j->prompt.by->width * sizeof(float);
    return bytes;
}

/* --- life --- */

static tt_job *job_new(const tt_job_spec *s)
{
    tt_job *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->wake_lock, NULL);
    pthread_cond_init(&j->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    j->spec = *s;
    j->owners = 2;
    j->units = j->unfinished = s->samples;
    j->wake = s->wake;
    j->submitted_ns = tt_now_ns();
    return j;
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
    free(j->draft);
    free(j->negative);
    free(j->term);
    free(j->rule);
    for (int32_t i = 0; j->constraint && i < j->spec.constraints; i++)
        tt_grammar_close(j->constraint[i].grammar);
    free(j->constraint);
    tt_prompt_free(&j->prompt);
    tt_picture_search_close(j->search);
    free(j->pixels);
    free(j->mask);
    free(j);
}

tt_status tt_job_open(tt_job **out, const tt_job_spec *spec, int64_t max_rows, int max_running,
                      tt_err *e)
{
    *out = NULL;
    tt_job_spec s = *spec;
    if (!s.sampler)
        s.sampler = s.model->sampler;
    tt_status st = tt_job_check(&s, max_rows, e);
    if (st)
        return st;
    tt_job *j = job_new(&s);
    if (!j)
        return tt_fail(e, TT_ENOMEM, "no memory for a job");
    if (copy_spec(j, &s))
        st = tt_fail(e, TT_ENOMEM, "no memory for a job of %d columns", s.columns);
    if (!st && s.search)
        st = tt_job_open_search(j, e);
    if (st) {
        job_free(j);
        return st;
    }
    j->bytes = job_bytes(j, max_running);
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

bool tt_job_search(tt_job *j, tt_search_report *out)
{
    return j->search && tt_picture_search_report(j->search, out);
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
