/* job.c - see job.h and the jobs part of engine.h. */
#include "server/job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/guide.h"

/* --- checking --- */

enum { MAX_SAMPLES = 128, MAX_READS = 1024, MAX_BIAS = 1 << 20 };

static tt_status check_canvas(const tt_job_spec *s, int64_t max_rows, tt_err *e)
{
    const tt_served *m = s->model;
    int32_t open = 0;
    int32_t columns = tt_run_columns(s->sampler, &s->params, s->columns);
    if (s->columns < 1 || columns > m->info.context)
        return tt_fail_param(e, "max_tokens", "context_length_exceeded",
                             "the canvas has %d columns; model '%s' has a context of %lld",
                             columns, m->id, (long long)m->info.context);
    int64_t twin = (int64_t)s->columns + (s->negatives ? s->negatives - s->prompt : 0);
    int64_t rows = s->params.cfg_scale > 0 ? twin + s->columns : s->columns;
    if (s->sampler->needs & TT_KIND_BLOCKS && !s->sampler->reads)
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
    if (!open && !s->sampler->reads)
        return tt_fail_param(e, "max_tokens", "invalid_value", "nothing is to be filled");
    return s->sampler->reads ? TT_OK
                             : tt_block_check(s->sampler, &s->params, s->columns, s->prompt, e);
}

static tt_status check_ids(const tt_job_spec *s, const int32_t *id, int32_t n, const char *param,
                           tt_err *e)
{
    for (int32_t i = 0; i < n; i++)
        if (id[i] < 0 || id[i] >= s->model->info.vocab || id[i] == s->model->info.mask_id)
            return tt_fail_param(e, param, "invalid_value", "token %d cannot stand there", id[i]);
    return TT_OK;
}

static tt_status check_rules(const tt_job_spec *s, tt_err *e)
{
    if (s->rules && s->sampler->inserts)
        return tt_fail_param(e, "rules", "unsupported_parameter",
                             "rules of columns, and tokens move while sampler '%s' runs",
                             s->sampler->name);
    for (int32_t i = 0; i < s->rules; i++) {
        const tt_column_rule *r = &s->rule[i];
        if (r->begin < 0 || r->end > s->columns || r->begin >= r->end || r->n < 1)
            return tt_fail_param(e, "rules", "invalid_value", "rule %d is of columns %d..%d", i,
                                 r->begin, r->end);
        tt_status st = check_ids(s, r->id, r->n, "rules", e);
        if (st)
            return st;
    }
    return TT_OK;
}

static tt_status check_constraints(const tt_job_spec *s, tt_err *e)
{
    for (int32_t i = 0; i < s->constraints; i++) {
        const tt_constraint *p = &s->constraint[i];
        if (p->begin < 0 || p->end > s->columns || p->begin >= p->end)
            return tt_fail_param(e, "regex", "invalid_value", "constraint %d is of columns %d..%d",
                                 i, p->begin, p->end);
        if (p->ends && s->params.logits_eos_inf)
            return tt_fail_param(e, "logits_eos_inf", "unsupported_value",
                                 "'logits_eos_inf' leaves a constrained answer no end");
    }
    return TT_OK;
}

/* What only some jobs have. */
static tt_status check_extras(const tt_job_spec *s, tt_err *e)
{
    for (int32_t c = 0; s->draft && c < s->columns; c++) {
        tt_status st = s->draft[c] >= 0 ? check_ids(s, &s->draft[c], 1, "prediction", e) : TT_OK;
        if (st)
            return st;
    }
    if (s->draft && !tt_sampler_shares(s->sampler, &s->params))
        return tt_fail_param(e, "prediction", "unsupported_parameter",
                             "sampler '%s' takes no prediction%s", s->sampler->name,
                             s->sampler->needs_guide ? ": its guide makes one"
                                                     : " with these parameters");
    if (!s->negatives)
        return check_rules(s, e);
    if (s->params.cfg_scale <= 0)
        return tt_fail_param(e, "negative_prompt", "invalid_value",
                             "'negative_prompt' needs 'cfg_scale' above 0");
    if (s->prompt < 1)
        return tt_fail_param(e, "negative_prompt", "unsupported_parameter",
                             "a negative prompt needs a prompt that it can stand for");
    int64_t twin = (int64_t)s->columns - s->prompt + s->negatives;
    if (twin > s->model->info.context)
        return tt_fail_param(e, "negative_prompt", "context_length_exceeded",
                             "the negative prompt and the answer have %lld columns; model '%s' has "
                             "a context of %lld", (long long)twin, s->model->id,
                             (long long)s->model->info.context);
    tt_status st = check_ids(s, s->negative, s->negatives, "negative_prompt", e);
    return st ? st : check_rules(s, e);
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
    if (s->picture)
        return tt_job_check_picture(s, e);
    if (s->model->image)
        return tt_fail_param(e, "model", "unsupported_value", "model '%.80s' makes images",
                             s->model->id);
    int32_t most = s->sampler->reads ? MAX_READS : MAX_SAMPLES;
    if (s->samples < 1 || s->samples > most)
        return tt_fail_param(e, "n", "invalid_value", "'n' is %d, must be in 1..%d", s->samples,
                             most);
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
        if (tt_params_given_at(&s->params, i) && !tt_sampler_reads(s->sampler, &all[i]))
            return tt_fail_param(e, all[i].name, "unsupported_parameter",
                                 "sampler '%s' does not read '%s'", s->sampler->name, all[i].name);
    if (s->guide) {
        tt_status st = check_guide(s, e);
        if (st)
            return st;
    }
    tt_status st = check_canvas(s, max_rows, e);
    if (!st)
        st = check_constraints(s, e);
    return st ? st : check_extras(s, e);
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
    bool recurs = s->sampler && s->sampler->needs & TT_KIND_RECURRENT; /* an image has none */
    v->recurrences = recurs ? calloc(n, sizeof *v->recurrences) : NULL;
    if (!v->id || !v->step || !v->logprob || (s->n_top && !v->top) || (recurs && !v->recurrences))
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
    j->draft = s->draft ? copy(s->draft, (size_t)s->columns * sizeof *j->draft) : NULL;
    j->negative = copy(s->negative, (size_t)s->negatives * sizeof *j->negative);
    j->term = copy(s->encoding.term, (size_t)s->encoding.terms * sizeof *j->term);
    if ((s->draft && !j->draft) || !j->negative || !j->term)
        return TT_ENOMEM;
    j->constraint = copy(s->constraint, (size_t)s->constraints * sizeof *j->constraint);
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

tt_status tt_job_open(tt_job **out, const tt_job_spec *spec, int64_t max_rows, int max_running,
                      tt_err *e)
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
    bool bad = !j->id || !j->open || !j->sample || copy_bias(j, &s) || copy_extras(j, &s);
    if (s.picture)
        bad = bad || tt_job_copy_picture(j, &s);
    for (int32_t i = 0; i < s.samples && !bad; i++)
        bad = sample_arrays(&j->sample[i].seen, &s) != TT_OK;
    if (bad) {
        job_free(j);
        return tt_fail(e, TT_ENOMEM, "no memory for a job of %d columns", s.columns);
    }
    j->spec.id = j->id;
    j->spec.open = j->open;
    j->units = s.samples;
    st = s.search ? tt_job_open_search(j, e) : TT_OK;
    if (st) {
        job_free(j);
        return st;
    }
    int32_t most = s.search ? tt_picture_search_widest(j->search) : j->units;
    int32_t at_once = most < max_running ? most : max_running;
    j->bytes = (size_t)at_once * sample_bytes(j);
    if (s.search)
        j->bytes += tt_picture_search_bytes(j->search);
    if (s.picture) /* finished samples keep theirs until the job is released */
        j->bytes += (size_t)s.samples * (tt_job_picture_bytes(j) + tt_job_trail_bytes(j));
    if (j->prompt.by) /* its rows */
        j->bytes += (size_t)j->prompt.ids * (size_t)j->prompt.by->width * sizeof(float);
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

/* Arrays of a view that grow or appear late. Without memory the view shows fewer changes or no
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
    to->vector = copy(from->vector, vectors);
    to->logit = from->logit ? copy(from->logit, logits) : NULL;
    if (!to->vector || (from->logit && !to->logit))
        to->vectors = 0;
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
    free(v->recurrences);
    free(v->top);
    free(v->change);
    free(v->picture);
    free(v->trail);
    free(v->features.vector);
    free(v->features.logit);
    *v = (tt_view){0};
}

static bool view_reserve(tt_view *v, const tt_view *from)
{
    size_t n = (size_t)from->columns;
    if (v->capacity >= from->columns && v->n_top == from->n_top &&
        !v->recurrences == !from->recurrences && v->picture_bytes == from->picture_bytes &&
        v->trail_bytes == from->trail_bytes)
        return true;
    tt_view_free(v);
    v->id = malloc(n * sizeof *v->id);
    v->step = malloc(n * sizeof *v->step);
    v->logprob = malloc(n * sizeof *v->logprob);
    v->top = from->n_top ? malloc(n * (size_t)from->n_top * sizeof *v->top) : NULL;
    v->recurrences = from->recurrences ? malloc(n * sizeof *v->recurrences) : NULL;
    v->picture = from->picture ? malloc(from->picture_bytes) : NULL;
    v->trail = from->trail ? malloc(from->trail_bytes) : NULL;
    if (!v->id || !v->step || !v->logprob || (from->n_top && !v->top) ||
        (from->recurrences && !v->recurrences) || (from->picture && !v->picture) ||
        (from->trail && !v->trail)) {
        tt_view_free(v);
        return false;
    }
    v->capacity = from->columns;
    v->picture_bytes = from->picture_bytes;
    v->trail_bytes = from->trail_bytes;
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
        copy_changes(&arrays, from->change, from->changes);
        copy_features(&arrays.features, &from->features);
        *v = *from;
        v->change = arrays.change;
        v->changes = arrays.changes;
        v->change_room = arrays.change_room;
        v->features = arrays.features;
        v->id = memcpy(arrays.id, from->id, n * sizeof *v->id);
        v->step = memcpy(arrays.step, from->step, n * sizeof *v->step);
        v->logprob = memcpy(arrays.logprob, from->logprob, n * sizeof *v->logprob);
        v->top = from->top ? memcpy(arrays.top, from->top,
                                    n * (size_t)from->n_top * sizeof *v->top)
                           : NULL;
        v->recurrences = from->recurrences ? memcpy(arrays.recurrences, from->recurrences,
                                                    n * sizeof *v->recurrences)
                                           : NULL;
        v->capacity = arrays.capacity;
        v->picture = arrays.picture;
        v->trail = from->trail ? memcpy(arrays.trail, from->trail,
                                        (size_t)from->looks * n * sizeof *v->trail)
                               : NULL;
        if (from->pictures > arrays.pictures)
            memcpy(v->picture, from->picture, from->picture_bytes);
    }
    pthread_mutex_unlock(&j->lock);
    return news;
}

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
