/* images.c - the life of a request about images: see images.h and work.h. */
#include "server/api/images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "server/api/image_parts.h"

static const tt_work_def work_def;

const tt_image_endpoint tt_image_generations = {.on = TT_ON_IMAGES,
                                                .id_prefix = "img-",
                                                .event = "image_generation",
                                                .read = tt_imaging_read_generations};
const tt_image_endpoint tt_image_edits = {
    .on = TT_ON_EDITS, .id_prefix = "img-", .event = "image_edit", .read = tt_imaging_read_edits};
const tt_image_endpoint tt_image_variations = {.on = TT_ON_VARIATIONS,
                                               .id_prefix = "img-",
                                               .event = "image_variation",
                                               .read = tt_imaging_read_variations};
const tt_image_endpoint tt_image_tokenize = {
    .on = TT_ON_IMAGE_TOKENS,
    .id_prefix = "imgtok-",
    .event = "image_tokens",
    .read = tt_imaging_read_tokenize};
const tt_image_endpoint tt_image_detokenize = {
    .on = TT_ON_TOKEN_IMAGES, .id_prefix = "img-", .read = tt_imaging_read_detokenize};

/* --- reading --- */

static void make_id(char *out, size_t size, const char *prefix)
{
    unsigned char r[12] = {0};
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r) {
        int64_t now = tt_now_ns();
        memcpy(r, &now, sizeof now);
    }
    int n = snprintf(out, size, "%s", prefix);
    for (size_t i = 0; i < sizeof r; i++)
        n += snprintf(out + n, size - (size_t)n, "%02x", r[i]);
}

/* Of models that are a codec alone only some endpoints can make use. */
static bool serves(const tt_imaging *g, const tt_served *m)
{
    return m->image && (m->image->planner || !(g->endpoint->on & (TT_ON_IMAGES | TT_ON_EDITS)));
}

/* The model named, or the first that can do it. */
static tt_status find_model(tt_imaging *g, const tt_form *f, tt_err *e)
{
    const char *id = tt_field_text(f->tree, "model", NULL);
    const tt_engine *engine = g->api->engine;
    for (size_t i = 0; !id && engine && i < tt_engine_models(engine); i++)
        if (serves(g, tt_engine_model(engine, i)))
            id = tt_engine_model(engine, i)->id;
    tt_status s = tt_api_find_model(g->api, id ? id : "", true, &g->model, e);
    if (s && !id && !strcmp(e->code, "model_not_found"))
        return tt_fail_param(e, "model", "model_not_found", "no image model is open");
    if (s || g->model->image)
        return s;
    return tt_fail_param(e, "model", "unsupported_value",
                         "model '%s' makes texts, not images; GET /v1/models lists what each can",
                         g->model->id);
}

static tt_status read_body(tt_imaging *g, const tt_body *body, tt_err *e)
{
    tt_form f;
    const cJSON *priority;
    tt_json_path path;
    tt_status s = tt_form_read(&f, body, g->endpoint->on, g->api->strict, e);
    const cJSON *tutti = s ? NULL : tt_json_get(f.tree, "tutti");
    if (!s)
        s = find_model(g, &f, e);
    if (!s)
        s = tt_extension_find(f.tree, "priority", &priority, &path, e);
    if (!s) {
        g->priority = priority ? (int32_t)priority->valuedouble : 0;
        g->deadline_ms = tt_field_int(tutti, "deadline_ms", 0);
        g->work.detached = tt_field_bool(tutti, "async", false);
        s = g->endpoint->read(g, &f, e);
    }
    tt_form_free(&f);
    return s;
}

static tt_status open_shots(tt_imaging *g, tt_err *e)
{
    for (int i = 0; i < g->units; i++)
        g->shots += g->unit[i].samples;
    g->shot = calloc((size_t)g->shots, sizeof *g->shot);
    if (!g->shot)
        return tt_fail(e, TT_ENOMEM, "no memory for the answer");
    for (int i = 0, k = 0; i < g->units; i++)
        for (int32_t n = 0; n < g->unit[i].samples; n++)
            g->shot[k++] = (tt_shot){.unit = i, .sample = n};
    return TT_OK;
}

tt_status tt_imaging_read(tt_work **out, tt_api *api, const tt_image_endpoint *endpoint,
                          const tt_body *body, tt_err *e)
{
    tt_err local = {0};
    e = e ? e : &local;
    *out = NULL;
    if (atomic_load(&api->state) == TT_API_DRAINING)
        return tt_fail_param(e, "", "draining", "the server is shutting down");
    tt_imaging *g = calloc(1, sizeof *g);
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    g->work.def = &work_def;
    g->api = api;
    g->endpoint = endpoint;
    g->arrived_ns = body->arrived_ns;
    g->created = (int64_t)time(NULL);
    g->first_draft = -1;
    pthread_mutex_init(&g->lock, NULL);
    make_id(g->id, sizeof g->id, endpoint->id_prefix);
    tt_status s = read_body(g, body, e);
    if (!s)
        s = open_shots(g, e);
    if (!s && g->work.detached && !api->jobs)
        s = tt_fail_param(e, "tutti.async", "unsupported_parameter", "no jobs can be kept here");
    g->read_ns = tt_now_ns();
    if (s)
        tt_work_free(&g->work);
    else
        *out = &g->work;
    return s;
}

void tt_unit_free(tt_image_unit *u)
{
    tt_job_release(u->job);
    free(u->id);
    free(u->open);
    free(u->pixels);
}

static void imaging_free(tt_work *w)
{
    tt_imaging *g = (tt_imaging *)w;
    for (int i = 0; i < g->units; i++)
        tt_unit_free(&g->unit[i]);
    tt_unit_free(&g->source);
    for (int i = 0; g->shot && i < g->shots; i++)
        tt_view_free(&g->shot[i].view);
    free(g->unit);
    free(g->shot);
    tt_prompt_free(&g->text);
    tt_search_report_free(&g->report);
    free(g->prompt);
    free(g->source_rgb);
    free(g->remade);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* --- jobs --- */

/* The engine names a parameter; the caller wrote it into the extension object, unless it is one of
 * OpenAI's own. */
static void name_the_field(tt_err *e)
{
    bool inner =
        tt_param_find(e->param) || !strcmp(e->param, "class_id") ||
        !strcmp(e->param, "strength") || !strncmp(e->param, "search", 6);
    if (e->status != TT_EINVAL || !inner)
        return;
    char name[sizeof e->param];
    snprintf(name, sizeof name, "tutti.%.80s", e->param);
    memcpy(e->param, name, sizeof name);
}

/* What a request's deadline leaves to a job that goes on with it. */
static int64_t deadline_left(const tt_imaging *g, bool continues)
{
    int64_t past = (tt_now_ns() - g->read_ns) / 1000000;
    if (!continues || !g->deadline_ms)
        return g->deadline_ms;
    return past < g->deadline_ms ? g->deadline_ms - past : 1;
}

static tt_status submit(tt_imaging *g, tt_image_unit *u, bool continues, int64_t *retry_after_ms,
                        tt_err *e)
{
    tt_job *job = NULL;
    tt_job_spec spec = {
        .model = g->model,
        .params = g->params,
        .id = u->id,
        .open = u->open,
        .columns = g->model->image->codec->info.layout.tokens,
        .samples = u->samples,
        .seed = (uint64_t)g->seed,
        .picture = &u->picture,
        .search = tt_imaging_searches(g) ? &g->search : NULL,
        .continues = continues,
        .deadline_ms = deadline_left(g, continues),
        .priority = g->priority,
        .wake = g->wake,
        .wake_arg = g->wake_arg,
        .wake_steps = g->stream,
    };
    tt_status s = tt_engine_submit(g->api->engine, &spec, &job, retry_after_ms, e);
    if (s) {
        name_the_field(e);
        return s;
    }
    pthread_mutex_lock(&g->lock);
    u->job = job;
    if (g->cancelled)
        tt_job_cancel(job);
    pthread_mutex_unlock(&g->lock);
    return TT_OK;
}

static tt_status submit_units(tt_imaging *g, int64_t *retry_after_ms, tt_err *e)
{
    while (g->submitted < g->units) {
        bool continues = g->submitted || g->source.job;
        tt_status s = submit(g, &g->unit[g->submitted], continues, retry_after_ms, e);
        if (s) {
            tt_work_cancel(&g->work);
            return s;
        }
        g->submitted++;
    }
    return TT_OK;
}

static tt_status imaging_submit(tt_work *w, void (*wake)(void *), void *arg,
                                int64_t *retry_after_ms, tt_err *e)
{
    tt_imaging *g = (tt_imaging *)w;
    g->wake = wake;
    g->wake_arg = arg;
    return g->source.pixels ? submit(g, &g->source, false, retry_after_ms, e)
                            : submit_units(g, retry_after_ms, e);
}

static void imaging_cancel(tt_work *w)
{
    tt_imaging *g = (tt_imaging *)w;
    pthread_mutex_lock(&g->lock);
    g->cancelled = true;
    if (g->source.job)
        tt_job_cancel(g->source.job);
    for (int i = 0; i < g->units; i++)
        if (g->unit[i].job)
            tt_job_cancel(g->unit[i].job);
    pthread_mutex_unlock(&g->lock);
}

void tt_imaging_fail(tt_imaging *g, const tt_err *e)
{
    if (g->failure.status)
        return;
    g->failure = *e;
    g->ended_ns = tt_now_ns();
    tt_work_cancel(&g->work);
}

static void imaging_fail(tt_work *w, const tt_err *e)
{
    tt_imaging_fail((tt_imaging *)w, e);
}

/* --- following the jobs --- */

static void fail_by(tt_imaging *g, const tt_view *v)
{
    tt_err e;
    tt_work_failure(&e, v, g->deadline_ms);
    tt_imaging_fail(g, &e);
}

bool tt_shot_update(tt_imaging *g, tt_shot *s)
{
    tt_job *job = g->unit[s->unit].job;
    if (job)
        tt_job_view(job, s->sample, &s->view);
    if (s->view.finish > TT_FINISH_LENGTH)
        fail_by(g, &s->view);
    if (job && tt_imaging_searches(g))
        tt_job_search(job, &g->report);
    if (g->first_draft < 0 && s->view.pictures)
        g->first_draft = (double)(tt_now_ns() - g->arrived_ns) * 1e-9;
    return !g->failure.status && s->view.finish;
}

/* The tokens of the source are known: they go where nothing is made anew. */
static void take_source(tt_imaging *g, const tt_view *v)
{
    tt_err e = {0};
    if (v->looks)
        memcpy(g->unit[0].picture.painting.offset, v->offset[v->looks - 1], sizeof v->offset[0]);
    memcpy(g->unit[0].id, v->id, (size_t)v->columns * sizeof *v->id);
    if (submit_units(g, NULL, &e))
        tt_imaging_fail(g, &e);
}

void tt_imaging_advance(tt_imaging *g)
{
    if (g->failure.status || g->submitted == g->units || !g->source.job)
        return;
    tt_view v = {0};
    tt_job_view(g->source.job, 0, &v);
    if (v.finish > TT_FINISH_LENGTH)
        fail_by(g, &v);
    else if (v.finish)
        take_source(g, &v);
    tt_view_free(&v);
}

static bool imaging_poll(tt_work *w)
{
    tt_imaging *g = (tt_imaging *)w;
    bool over = true;
    tt_imaging_advance(g);
    for (int i = 0; i < g->shots; i++)
        over &= tt_shot_update(g, &g->shot[i]);
    over |= g->failure.status != TT_OK;
    if (over && !g->ended_ns)
        g->ended_ns = tt_now_ns();
    return over;
}

/* --- the rest of what work can do --- */

static bool imaging_streams(const tt_work *w)
{
    return ((const tt_imaging *)w)->stream;
}

static void imaging_answer(tt_work *w, tt_reply *r)
{
    tt_imaging_answer((tt_imaging *)w, r);
}

static bool imaging_frames(tt_work *w, int64_t now_ms, tt_buf *out, int64_t *again_ms)
{
    return tt_imaging_frames((tt_imaging *)w, now_ms, out, again_ms);
}

static void imaging_record(const tt_work *w, tt_request_record *r)
{
    const tt_imaging *g = (const tt_imaging *)w;
    int64_t end = g->ended_ns ? g->ended_ns : tt_now_ns();
    *r = (tt_request_record){.model = g->model->id,
                             .first_draft = g->first_draft,
                             .first_text = -1,
                             .queue = -1,
                             .run = -1,
                             .end_to_end = (double)(end - g->arrived_ns) * 1e-9};
    int32_t tokens = g->model->image->codec->info.layout.tokens;
    r->prompt_tokens = g->source.job ? tokens - g->remade_tokens : 0;
    for (int i = 0; i < g->submitted; i++) {
        tt_job_times t = tt_job_get_times(g->unit[i].job);
        r->queue = t.queue_ms * 1e-3 > r->queue ? t.queue_ms * 1e-3 : r->queue;
        r->run = t.run_ms * 1e-3 > r->run ? t.run_ms * 1e-3 : r->run;
    }
    r->candidates = g->report.candidates;
    for (int i = 0; i < g->shots; i++) {
        const tt_view *v = &g->shot[i].view;
        bool open = v->finish == TT_FINISH_NONE || v->finish == TT_FINISH_CANCELLED;
        r->nfe += v->nfe;
        for (int32_t c = 0; c < v->columns; c++)
            r->generation_tokens += v->step[c] > 0;
        r->finished[open && g->failure.status && g->failure.status != TT_ECANCEL ? TT_FINISH_ERROR
                    : open ? TT_FINISH_CANCELLED
                           : v->finish]++;
    }
}

static void imaging_progress(tt_work *w, tt_progress *p)
{
    tt_imaging *g = (tt_imaging *)w;
    *p = (tt_progress){.running = false};
    tt_job *first = g->submitted ? g->unit[0].job : g->source.job;
    p->ahead = first ? tt_job_ahead(first) : 0;
    for (int i = 0; i < g->shots; i++) {
        const tt_view *v = &g->shot[i].view;
        p->step += v->now;
        p->steps += v->of ? v->of : g->params.steps;
        p->running |= v->now > 0;
    }
    p->running |= first && tt_job_get_times(first).run_ms > 0;
}

static const tt_work_def work_def = {
    .free = imaging_free,
    .streams = imaging_streams,
    .submit = imaging_submit,
    .poll = imaging_poll,
    .answer = imaging_answer,
    .frames = imaging_frames,
    .abandon = imaging_fail,
    .cancel = imaging_cancel,
    .record = imaging_record,
    .progress = imaging_progress,
};
