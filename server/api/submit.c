/* submit.c - canvases become jobs. */
#include <stdio.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/api/fit.h"

/* Jobs of one request that reads which are with the engine at the same time. */
enum { WINDOW = 64 };

/* The engine names a parameter; the caller wrote it into the extension object, unless it is one
 * of OpenAI's own. */
static void name_the_field(tt_err *e)
{
    bool openai = e && (!strcmp(e->param, "temperature") || !strcmp(e->param, "top_p"));
    if (!e || e->status != TT_EINVAL || openai ||
        (strcmp(e->param, "guide") && !tt_param_find(e->param)))
        return;
    char name[sizeof e->param];
    snprintf(name, sizeof name, "tutti.%.80s", e->param);
    memcpy(e->param, name, sizeof name);
}

/* What a request's deadline leaves to a job that goes on with it. */
static int64_t deadline_left(const tt_gen *g, bool continues)
{
    int64_t past = (tt_now_ns() - g->read_ns) / 1000000;
    if (!continues || !g->deadline_ms)
        return g->deadline_ms;
    return past < g->deadline_ms ? g->deadline_ms - past : 1;
}

static tt_job_spec spec_of(const tt_gen *g, const tt_canvas *c)
{
    bool reads = c->sampler && c->sampler->reads;
    tt_job_spec s = {
        .model = g->model,
        .sampler = c->sampler ? c->sampler : g->sampler,
        .id = c->ids.id,
        .open = (const uint8_t *)c->open.data,
        .columns = (int32_t)c->ids.count,
        .prompt = c->prompt,
        .samples = c->samples ? c->samples : g->made,
        .seed = (uint64_t)g->seed,
        .draft = c->draft.size ? (const int32_t *)(const void *)c->draft.data : NULL,
        .encoding = c->encoding,
        .priority = g->priority,
        .wake = g->wake,
        .wake_arg = g->wake_arg,
    };
    if (reads) {
        s.params = g->model->defaults; /* the block length is among them */
        s.params.cfg_scale = 0;
        s.params.cache = TT_CACHE_NONE;
        return s;
    }
    s.guide = g->guide;
    s.params = g->params;
    s.bias = g->bias;
    s.n_bias = g->n_bias;
    s.stop_early = g->stop_early;
    s.ban_stops = g->ban_stops;
    s.shrink = g->shrink;
    s.rule = c->rule;
    s.rules = c->rules;
    s.constraint = c->constraint;
    s.constraints = c->constraints;
    s.negative = g->negative.id;
    s.negatives = (int32_t)g->negative.count;
    s.n_top = g->n_top;
    s.log = g->trace || (g->sampler->inserts && g->stream && g->mode == TT_STREAM_DELTA);
    s.wake_steps = g->stream || g->stops > 0;
    return s;
}

tt_status tt_canvas_submit(tt_gen *g, tt_canvas *c, bool continues, int64_t *retry_after_ms,
                           tt_err *e)
{
    tt_job_spec spec = spec_of(g, c);
    tt_job *job = NULL;
    spec.continues = continues;
    spec.deadline_ms = deadline_left(g, continues);
    tt_status s = tt_engine_submit(g->api->engine, &spec, &job, retry_after_ms, e);
    if (s) {
        name_the_field(e);
        return s;
    }
    pthread_mutex_lock(&g->lock);
    c->job = job;
    if (g->cancelled)
        tt_job_cancel(job);
    pthread_mutex_unlock(&g->lock);
    return TT_OK;
}

static int running(const tt_gen *g)
{
    int n = 0;
    for (int i = 0; i < g->submitted; i++)
        n += !tt_job_finished(g->canvas[i].job);
    return n;
}

tt_status tt_gen_submit_more(tt_gen *g, int64_t *retry_after_ms, tt_err *e)
{
    if (g->submitted == g->canvases)
        return TT_OK;
    int room = g->endpoint->reads ? WINDOW - running(g) : g->canvases;
    while (g->submitted < g->canvases && room-- > 0) {
        bool continues = tt_fit_nfe(g) || (g->endpoint->reads && g->submitted);
        tt_status s = tt_canvas_submit(g, &g->canvas[g->submitted], continues, retry_after_ms, e);
        if (s) {
            tt_gen_cancel(g);
            return s;
        }
        g->submitted++;
    }
    return TT_OK;
}

tt_status tt_gen_submit(tt_gen *g, void (*wake)(void *arg), void *arg, int64_t *retry_after_ms,
                        tt_err *e)
{
    g->wake = wake;
    g->wake_arg = arg;
    return tt_fit_pending(g) ? tt_fit_submit(g, retry_after_ms, e)
                             : tt_gen_submit_more(g, retry_after_ms, e);
}

void tt_gen_cancel(tt_gen *g)
{
    pthread_mutex_lock(&g->lock);
    g->cancelled = true;
    for (int i = 0; i < g->canvases; i++)
        if (g->canvas[i].job)
            tt_job_cancel(g->canvas[i].job);
    tt_fit_cancel(g->fit);
    pthread_mutex_unlock(&g->lock);
}
