/* fake_engine.c - see fake_engine.h. */
#include "tests/server/fake_engine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "samplers/read.h"
#include "tests/server/tiny_tok.h"

tt_fake tt_fake_engine;

enum { MAX_MODELS = 4, MAX_JOBS = 4096, CONTEXT = 512, WIDTH = 4 };

typedef struct {
    int32_t *id, *step;
    float *logprob;
    tt_change change[CONTEXT];
    size_t changes;
    int32_t now;
    uint64_t version;
    tt_finish finish;
    bool stop;
} sample;

struct tt_job {
    tt_engine *g;
    tt_job_spec spec;
    uint8_t *open;
    int32_t *id, *draft;
    float *vector, *logit; /* of an encoding job */
    tt_features features;
    sample *sample;
    int32_t to_fill;
    int64_t submitted_ns;
    double queue_ms, run_ms;
    bool cancel, released;
};

struct tt_engine {
    pthread_mutex_t lock;   /* of everything */
    pthread_mutex_t waking; /* held while wake functions run */
    pthread_t thread;
    bool stop;
    tt_tok *tok;
    tt_served served[MAX_MODELS];
    char id[MAX_MODELS][64];
    atomic_size_t models;
    tt_job *job[MAX_JOBS];
    int jobs;
    tt_engine_stats stats;
};

/* --- steps; the lock is held --- */

static int32_t next_open(const tt_job *j, const sample *s)
{
    int32_t n = j->spec.columns;
    for (int32_t i = 0; i < n; i++) {
        int32_t c = atomic_load(&tt_fake_engine.backwards) ? n - 1 - i : i;
        if (j->open[c] && s->id[c] < 0)
            return c;
    }
    return -1;
}

static int32_t script_id(const tt_job *j, int32_t column)
{
    const char *text = atomic_load(&tt_fake_engine.script);
    text = text ? text : "abcdefghij";
    int32_t nth = 0;
    for (int32_t c = 0; c < column; c++)
        nth += j->open[c];
    unsigned char byte = (unsigned char)text[(size_t)nth % strlen(text)];
    return byte == 1 ? TINY_STOP : byte;
}

/* A stop id was committed and no open column lies before it. */
static bool stopped_early(const tt_job *j, const sample *s)
{
    for (int32_t c = 0; j->spec.stop_early && c < j->spec.columns; c++) {
        if (s->id[c] < 0)
            return false;
        if (j->open[c] && s->id[c] == TINY_STOP)
            return true;
    }
    return false;
}

/* Every token to score has log-probability -0.5, if the sampler's sample covers it. */
static void score(const tt_job *j, sample *s)
{
    int32_t i = (int32_t)(s - j->sample), targets = 0, nth = 0;
    for (int32_t c = 0; c < j->spec.columns; c++)
        targets += j->open[c] && j->draft[c] >= 0;
    int32_t masked = j->spec.sampler == &tt_score_bound
                         ? tt_score_masked(j->spec.seed, i, j->spec.samples, targets)
                         : targets;
    for (int32_t c = 0; c < j->spec.columns; c++) {
        if (!j->open[c] || j->draft[c] < 0)
            continue;
        bool asked = j->spec.sampler == &tt_score_chain ? nth == i : nth < masked;
        s->id[c] = j->draft[c];
        s->step[c] = asked;
        s->logprob[c] = asked ? -0.5f : 0;
        nth++;
    }
}

/* Vector k holds the length of the text, its first id, k and 1; the logit of a term is its id. */
static void encode(tt_job *j, sample *s)
{
    tt_features *f = &j->features;
    int32_t open = 0;
    for (int32_t c = 0; c < j->spec.columns; c++) {
        if (!j->open[c])
            continue;
        s->id[c] = open == 2 ? TINY_STOP : 'w';
        open++;
    }
    f->vectors = j->spec.encoding.pool == TT_POOL_OPEN ? open : 1;
    f->width = WIDTH;
    f->terms = j->spec.encoding.terms;
    f->vector = j->vector = calloc((size_t)f->vectors * WIDTH, sizeof *f->vector);
    f->logit = j->logit = calloc((size_t)(f->vectors * f->terms) + 1, sizeof *f->logit);
    for (int32_t k = 0; k < f->vectors; k++) {
        float v[WIDTH] = {(float)j->spec.columns, (float)j->id[0], (float)k, 1};
        memcpy(f->vector + k * WIDTH, v, sizeof v);
        for (int32_t t = 0; t < f->terms; t++)
            f->logit[k * f->terms + t] = (float)j->spec.encoding.term[t];
    }
}

static void read_text(tt_job *j, sample *s)
{
    s->now = 1;
    if (j->draft)
        score(j, s);
    else
        encode(j, s);
    s->finish = TT_FINISH_LENGTH;
}

static void step_sample(tt_job *j, sample *s)
{
    tt_fake *f = &tt_fake_engine;
    int64_t waited = (tt_now_ns() - j->submitted_ns) / 1000000;
    if (s->finish)
        return;
    s->version++;
    if (j->cancel)
        s->finish = TT_FINISH_CANCELLED;
    else if (s->stop)
        s->finish = TT_FINISH_STOP;
    else if (j->spec.deadline_ms && waited >= j->spec.deadline_ms)
        s->finish = TT_FINISH_DEADLINE;
    else if (atomic_load(&f->fail))
        s->finish = TT_FINISH_ERROR;
    if (s->finish || atomic_load(&f->paused)) {
        s->version -= !s->finish;
        return;
    }
    if (j->spec.sampler && j->spec.sampler->reads) {
        read_text(j, s);
        return;
    }
    int32_t c = next_open(j, s);
    s->id[c] = script_id(j, c);
    s->step[c] = ++s->now;
    s->logprob[c] = -0.25f - 0.5f * (float)((s - j->sample) * 3 % 5) * atomic_load(&f->uneven);
    if (j->spec.log)
        s->change[s->changes++] = (tt_change){.step = s->now, .column = c, .id = s->id[c],
                                              .logprob = -0.25f};
    j->g->stats.committed++;
    if (stopped_early(j, s))
        s->finish = TT_FINISH_STOP;
    else if (next_open(j, s) < 0)
        s->finish = TT_FINISH_LENGTH;
}

static bool finished(const tt_job *j)
{
    for (int32_t i = 0; i < j->spec.samples; i++)
        if (!j->sample[i].finish)
            return false;
    return true;
}

/* True when something changed that the job's owner wants to hear about. */
static bool step_job(tt_job *j)
{
    bool was = finished(j);
    uint64_t before = 0, after = 0;
    if (was)
        return false;
    if (j->queue_ms == 0)
        j->queue_ms = (double)(tt_now_ns() - j->submitted_ns) * 1e-6;
    for (int32_t i = 0; i < j->spec.samples; i++) {
        before += j->sample[i].version;
        step_sample(j, &j->sample[i]);
        after += j->sample[i].version;
    }
    j->run_ms = (double)(tt_now_ns() - j->submitted_ns) * 1e-6 - j->queue_ms;
    return finished(j) || (j->spec.wake_steps && after != before);
}

static void wake_all(tt_engine *g, tt_job **news, int n)
{
    (void)g;
    for (int i = 0; i < n; i++)
        if (!news[i]->released && news[i]->spec.wake)
            news[i]->spec.wake(news[i]->spec.wake_arg);
}

static void *run(void *arg)
{
    tt_engine *g = arg;
    static tt_job *news[MAX_JOBS];
    for (;;) {
        int us = atomic_load(&tt_fake_engine.step_us);
        nanosleep(&(struct timespec){.tv_nsec = 1000L * (us ? us : 200)}, NULL);
        pthread_mutex_lock(&g->waking);
        pthread_mutex_lock(&g->lock);
        int n = 0;
        for (int i = 0; i < g->jobs; i++)
            if (step_job(g->job[i]))
                news[n++] = g->job[i];
        g->stats.passes += g->jobs > 0;
        bool stop = g->stop;
        pthread_mutex_unlock(&g->lock);
        wake_all(g, news, n);
        pthread_mutex_unlock(&g->waking);
        if (stop)
            return NULL;
    }
}

/* --- engine.h --- */

tt_status tt_engine_open(tt_engine **out, const tt_engine_options *o, tt_err *e)
{
    (void)o;
    tt_engine *g = *out = calloc(1, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_mutex_init(&g->waking, NULL);
    tt_status s = tiny_tok_open(&g->tok, e);
    if (s)
        return s;
    g->stats.bytes_limit = 1 << 20;
    return pthread_create(&g->thread, NULL, run, g) ? TT_ENOMEM : TT_OK;
}

void tt_engine_close(tt_engine *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_mutex_unlock(&g->lock);
    pthread_join(g->thread, NULL);
    tt_tok_close(g->tok);
    pthread_mutex_destroy(&g->lock);
    pthread_mutex_destroy(&g->waking);
    free(g);
}

/* "no-tok" and "no-chat" in the id make a model without. */
tt_status tt_engine_add_model(tt_engine *g, const char *id, const char *folder,
                              tt_weights_mode mode, void (*progress)(void *arg, double done),
                              void *arg, tt_err *e)
{
    (void)mode;
    (void)progress;
    (void)arg;
    size_t n = g->models;
    tt_served *m = &g->served[n];
    snprintf(g->id[n], sizeof g->id[n], "%s", id);
    *m = (tt_served){.id = g->id[n],
                     .folder = folder,
                     .info = {.family = "fake",
                              .architecture = "FakeModel",
                              .kinds = TT_KIND_BIDIRECTIONAL,
                              .vocab = TINY_VOCAB,
                              .width = WIDTH,
                              .context = CONTEXT,
                              .mask_id = TINY_MASK,
                              .eos_id = TINY_STOP,
                              .eot_id = -1,
                              .compute = "none"},
                     .tok = strstr(id, "no-tok") ? NULL : g->tok,
                     .why_no_chat = "made so",
                     .sampler = tt_sampler_all()[0],
                     .stop_id = {TINY_STOP},
                     .stop_ids = 1,
                     .created = 1700000000,
                     .digest = "00000000000000000000000000000000"};
    tt_params_default(&m->defaults);
    if (m->tok && !strstr(id, "no-chat")) {
        tt_status s = tt_chat_find(&m->chat, g->tok, "chatml", e);
        if (s)
            return s;
    }
    g->models = n + 1;
    return TT_OK;
}

const tt_served *tt_engine_find(const tt_engine *g, const char *id)
{
    for (size_t i = 0; i < g->models; i++)
        if (!strcmp(g->served[i].id, id))
            return &g->served[i];
    return NULL;
}

size_t tt_engine_models(const tt_engine *g) { return g->models; }
const tt_served *tt_engine_model(const tt_engine *g, size_t i) { return &g->served[i]; }

void tt_engine_describe(const tt_engine *g, char *text, size_t size)
{
    (void)g;
    snprintf(text, size, "fake");
}

static void open_sample(tt_job *j, sample *s)
{
    size_t n = (size_t)j->spec.columns;
    s->id = malloc(n * sizeof *s->id);
    s->step = calloc(n, sizeof *s->step);
    s->logprob = calloc(n, sizeof *s->logprob);
    for (size_t c = 0; c < n; c++)
        s->id[c] = j->open[c] ? -1 : j->id[c];
    s->version = 1;
}

tt_status tt_engine_submit(tt_engine *g, const tt_job_spec *spec, tt_job **out,
                           int64_t *retry_after_ms, tt_err *e)
{
    tt_fake *f = &tt_fake_engine;
    if (atomic_load(&f->busy) > 0) {
        atomic_fetch_sub(&f->busy, 1);
        if (retry_after_ms)
            *retry_after_ms = 50;
        return tt_fail(e, TT_EBUSY, "the queue is full");
    }
    tt_job *j = *out = calloc(1, sizeof *j);
    size_t n = (size_t)spec->columns;
    j->g = g;
    j->spec = *spec;
    j->open = malloc(n);
    j->id = malloc(n * sizeof *j->id);
    j->sample = calloc((size_t)spec->samples, sizeof *j->sample);
    memcpy(j->open, spec->open, n);
    memcpy(j->id, spec->id, n * sizeof *j->id);
    if (spec->draft) {
        j->draft = malloc(n * sizeof *j->draft);
        memcpy(j->draft, spec->draft, n * sizeof *j->draft);
    }
    j->submitted_ns = tt_now_ns();
    for (int32_t i = 0; i < spec->samples; i++)
        open_sample(j, &j->sample[i]);
    for (size_t c = 0; c < n; c++)
        j->to_fill += j->open[c];
    atomic_fetch_add(&f->jobs, 1);
    atomic_fetch_add(&f->live, 1);
    pthread_mutex_lock(&g->lock);
    f->prompt = spec->prompt;
    f->columns = spec->columns;
    f->stop_early = spec->stop_early;
    f->ban_stops = spec->ban_stops;
    f->n_bias = spec->n_bias;
    f->samples = spec->samples;
    f->rules = spec->rules;
    f->negatives = spec->negatives;
    f->shrink = spec->shrink;
    f->continued += spec->continues;
    f->seed = spec->seed;
    g->job[g->jobs++] = j;
    pthread_mutex_unlock(&g->lock);
    return TT_OK;
}

static void grow_view(tt_view *v, int32_t columns)
{
    if (v->capacity >= columns)
        return;
    v->id = realloc(v->id, (size_t)columns * sizeof *v->id);
    v->step = realloc(v->step, (size_t)columns * sizeof *v->step);
    v->logprob = realloc(v->logprob, (size_t)columns * sizeof *v->logprob);
    v->top = realloc(v->top, (size_t)columns * TT_MAX_TOP * sizeof *v->top);
    v->capacity = columns;
}

/* Alternatives: the token itself, then its successors. */
static void fill_top(const tt_job *j, tt_view *v)
{
    v->n_top = j->spec.n_top;
    for (int32_t c = 0; c < v->columns; c++)
        for (int32_t k = 0; k < v->n_top; k++)
            v->top[c * v->n_top + k] = (tt_id_value){.id = v->id[c] < 0 ? -1 : (v->id[c] + k) % 256,
                                                     .value = -0.25f - (float)k};
}

bool tt_job_search(tt_job *j, tt_search_report *out)
{
    (void)j;
    (void)out;
    return false;
}

bool tt_job_view(tt_job *j, int32_t i, tt_view *v)
{
    pthread_mutex_lock(&j->g->lock);
    const sample *s = &j->sample[i];
    bool news = v->version != s->version;
    if (news) {
        size_t n = (size_t)j->spec.columns;
        grow_view(v, j->spec.columns);
        v->columns = v->end = j->spec.columns;
        memcpy(v->id, s->id, n * sizeof *v->id);
        memcpy(v->step, s->step, n * sizeof *v->step);
        memcpy(v->logprob, s->logprob, n * sizeof *v->logprob);
        fill_top(j, v);
        v->change = realloc(v->change, sizeof s->change);
        memcpy(v->change, s->change, sizeof s->change);
        v->changes = s->changes;
        if (j->features.vectors && !v->features.vector) {
            v->features = j->features;
            size_t bytes = (size_t)(j->features.vectors * WIDTH) * sizeof(float);
            v->features.vector = memcpy(malloc(bytes), j->vector, bytes);
            bytes = (size_t)(j->features.vectors * j->features.terms) * sizeof(float);
            v->features.logit = memcpy(malloc(bytes + 1), j->logit, bytes);
        }
        v->now = v->nfe = s->now;
        v->of = j->to_fill;
        v->version = s->version;
        v->finish = s->finish;
        if (s->finish == TT_FINISH_ERROR)
            tt_fail(&v->error, TT_ENODEV, "the fake device is gone");
    }
    pthread_mutex_unlock(&j->g->lock);
    return news;
}

void tt_view_free(tt_view *v)
{
    free(v->id);
    free(v->step);
    free(v->logprob);
    free(v->top);
    free(v->change);
    free(v->features.vector);
    free(v->features.logit);
    *v = (tt_view){0};
}

bool tt_job_wait(tt_job *j, const uint64_t *seen, int timeout_ms)
{
    for (int ms = 0; timeout_ms < 0 || ms < timeout_ms; ms++) {
        pthread_mutex_lock(&j->g->lock);
        bool news = finished(j);
        for (int32_t i = 0; i < j->spec.samples; i++)
            news |= j->sample[i].version != seen[i];
        pthread_mutex_unlock(&j->g->lock);
        if (news)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

bool tt_job_finished(tt_job *j)
{
    pthread_mutex_lock(&j->g->lock);
    bool f = finished(j);
    pthread_mutex_unlock(&j->g->lock);
    return f;
}

void tt_job_stop(tt_job *j, int32_t i)
{
    pthread_mutex_lock(&j->g->lock);
    atomic_fetch_add(&tt_fake_engine.stopped, !j->sample[i].stop);
    j->sample[i].stop = true;
    pthread_mutex_unlock(&j->g->lock);
}

void tt_job_cancel(tt_job *j)
{
    pthread_mutex_lock(&j->g->lock);
    if (!j->cancel && !finished(j))
        atomic_fetch_add(&tt_fake_engine.cancelled, 1);
    j->cancel = true;
    pthread_mutex_unlock(&j->g->lock);
}

static void forget(tt_job *j)
{
    pthread_mutex_lock(&j->g->lock);
    j->released = true;
    for (int i = 0; i < j->g->jobs; i++)
        if (j->g->job[i] == j)
            j->g->job[i] = j->g->job[--j->g->jobs];
    pthread_mutex_unlock(&j->g->lock);
}

void tt_job_release(tt_job *j)
{
    tt_job_cancel(j);
    pthread_mutex_lock(&j->g->waking); /* waits for wake functions in progress */
    forget(j);
    pthread_mutex_unlock(&j->g->waking);
    for (int32_t i = 0; i < j->spec.samples; i++) {
        free(j->sample[i].id);
        free(j->sample[i].step);
        free(j->sample[i].logprob);
    }
    free(j->sample);
    free(j->open);
    free(j->id);
    free(j->draft);
    free(j->vector);
    free(j->logit);
    free(j);
    atomic_fetch_sub(&tt_fake_engine.live, 1);
}

tt_job_times tt_job_get_times(tt_job *j)
{
    pthread_mutex_lock(&j->g->lock);
    tt_job_times t = {j->queue_ms, j->run_ms};
    pthread_mutex_unlock(&j->g->lock);
    return t;
}

int32_t tt_job_ahead(tt_job *j)
{
    (void)j;
    return 0;
}

void tt_engine_get_stats(tt_engine *g, tt_engine_stats *out)
{
    pthread_mutex_lock(&g->lock);
    *out = g->stats;
    out->running = g->jobs;
    pthread_mutex_unlock(&g->lock);
}
