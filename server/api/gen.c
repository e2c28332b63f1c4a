/* gen.c - the life of a generation request: see gen.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "server/api/text_search.h"
#include "server/api/gen_parts.h"

static const tt_work_def work_def;

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

static const tt_served *first_text(const tt_engine *g, size_t models)
{
    for (size_t i = 0; i < models; i++)
        if (!tt_engine_model(g, i)->image && !tt_engine_model(g, i)->verifier)
            return tt_engine_model(g, i);
    return NULL;
}

tt_status tt_api_find_model(const tt_api *api, const char *id, bool needed, const tt_served **out,
                            tt_err *e)
{
    bool loading = atomic_load(&api->state) == TT_API_LOADING;
    size_t models = api->engine ? tt_engine_models(api->engine) : 0;
    *out = id ? models ? tt_engine_find(api->engine, id) : NULL
              : !needed ? first_text(api->engine, models) : NULL;
    if (*out && (*out)->verifier)
        return tt_fail_param(e, "model", "unsupported_value",
                             "model '%.80s' is a verifier: it scores what others make, in searches",
                             id);
    if (*out)
        return TT_OK;
    if (!id && needed)
        return tt_fail_param(e, "model", "missing_required_parameter", "'model' is missing");
    if (loading)
        return tt_fail_param(e, "model", "model_loading", "the models are still being loaded");
    return tt_fail_param(e, "model", "model_not_found",
                         "the model '%.80s' does not exist; GET /v1/models lists those that do",
                         id ? id : "");
}

/* Text comes before this hole, so a leading blank of its first token belongs to the text. */
static bool continues(const tt_gen *g, const tt_part *hole)
{
    return hole->begin > 0 && g->endpoint->on != TT_ON_CHAT;
}

static tt_status open_choice(tt_gen *g, tt_choice *c, tt_err *e)
{
    if (!c->canvas->holes)
        return TT_OK;
    c->out = calloc((size_t)c->canvas->holes, sizeof *c->out);
    if (!c->out)
        return tt_fail(e, TT_ENOMEM, "no memory for the answer");
    int k = 0;
    for (int i = 0; i < c->canvas->parts; i++) {
        const tt_part *p = &c->canvas->part[i];
        if (!p->hole)
            continue;
        c->out[k++] = (tt_text_out){
            .tok = g->model->tok,
            .begin = p->begin,
            .end = p->end,
            .continues = continues(g, p),
            .stop_id = g->model->stop_id,
            .stop_ids = g->stop_early ? g->model->stop_ids : 0,
            .stop = g->stop,
            .stops = g->stops,
        };
    }
    return TT_OK;
}

static int32_t samples_of(const tt_gen *g, const tt_canvas *c)
{
    return c->samples ? c->samples : g->made;
}

tt_status tt_gen_open_choices(tt_gen *g, tt_err *e)
{
    int total = 0;
    for (int i = 0; i < g->canvases; i++)
        total += samples_of(g, &g->canvas[i]);
    g->choice = calloc((size_t)total, sizeof *g->choice);
    if (!g->choice)
        return tt_fail(e, TT_ENOMEM, "no memory for the answer");
    for (int i = 0; i < g->canvases; i++)
        for (int32_t k = 0; k < samples_of(g, &g->canvas[i]); k++) {
            tt_choice *c = &g->choice[g->choices];
            c->canvas = &g->canvas[i];
            c->sample = k;
            c->index = g->choices++;
            tt_status s = open_choice(g, c, e);
            if (s)
                return s;
        }
    return TT_OK;
}

static tt_status read_body(tt_gen *g, const char *text, size_t bytes, tt_err *e)
{
    cJSON *body;
    tt_status s = tt_json_parse(&body, text, bytes, e);
    if (!s)
        s = tt_fields_check(body, g->endpoint->on, g->api->strict, e);
    bool needed = g->endpoint->on != TT_ON_LLAMA;
    if (!s)
        s = tt_api_find_model(g->api, tt_field_text(body, "model", NULL), needed, &g->model, e);
    if (!s && g->model->image)
        s = tt_fail_param(e, "model", "unsupported_value",
                          "model '%s' makes images: POST /v1/images/generations", g->model->id);
    if (!s)
        s = g->endpoint->reads ? tt_gen_read_reading(g, body, e) : tt_gen_read_common(g, body, e);
    if (!s)
        s = g->endpoint->read(g, body, e);
    if (!s && !tt_fit_pending(g))
        s = tt_gen_open_choices(g, e);
    cJSON_Delete(body);
    return s;
}

tt_status tt_gen_read(tt_gen **out, tt_api *api, const tt_endpoint *endpoint, const char *body,
                      size_t bytes, int64_t arrived_ns, tt_err *e)
{
    tt_err local = {0};
    e = e ? e : &local;
    *out = NULL;
    if (atomic_load(&api->state) == TT_API_DRAINING)
        return tt_fail_param(e, "", "draining", "the server is shutting down");
    tt_gen *g = calloc(1, sizeof *g);
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    g->work.def = &work_def;
    g->api = api;
    g->endpoint = endpoint;
    g->arrived_ns = arrived_ns;
    g->created = (int64_t)time(NULL);
    g->first_draft = g->first_text = -1;
    pthread_mutex_init(&g->lock, NULL);
    make_id(g->id, sizeof g->id, endpoint->id_prefix);
    tt_status s = read_body(g, body, bytes, e);
    g->read_ns = tt_now_ns();
    if (s)
        tt_gen_free(g);
    else
        *out = g;
    return s;
}

void tt_gen_free(tt_gen *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->choices; i++) {
        tt_choice *c = &g->choice[i];
        for (int k = 0; c->out && k < c->canvas->holes; k++)
            tt_text_out_free(&c->out[k]);
        free(c->out);
        free(c->shown);
        tt_view_free(&c->view);
    }
    for (int i = 0; i < g->canvases; i++)
        tt_canvas_free(&g->canvas[i]);
    tt_grammar_close(g->form);
    free(g->canvas);
    free(g->choice);
    free(g->bias);
    free(g->reading.text);
    tt_fit_free(g->fit);
    tt_text_search_free(g->search);
    tt_ids_free(&g->negative);
    pthread_mutex_destroy(&g->lock);
    tt_gen_owned_free(g);
    free(g);
}

bool tt_gen_streams(const tt_gen *g) { return g->stream; }

/* --- running --- */

void tt_gen_fail(tt_gen *g, const tt_err *e)
{
    if (g->failure.status)
        return;
    g->failure = *e;
    g->ended_ns = tt_now_ns();
    tt_gen_cancel(g);
}

/* --- following the jobs --- */

void tt_gen_fail_by(tt_gen *g, const tt_view *v)
{
    tt_err e;
    tt_work_failure(&e, v, g->deadline_ms);
    tt_gen_fail(g, &e);
}

/* The choice is complete when all its holes are; how it ended is how the first unusual one did. */
static void close_choice(tt_gen *g, tt_choice *c)
{
    tt_finish finish = TT_FINISH_LENGTH;
    if (!c->canvas->holes) {
        if (c->view.finish > TT_FINISH_LENGTH)
            tt_gen_fail_by(g, &c->view);
        else
            c->finish = c->view.finish;
        return;
    }
    for (int k = 0; k < c->canvas->holes; k++) {
        const tt_text_out *o = &c->out[k];
        if (!o->finish)
            return;
        if (o->finish > TT_FINISH_LENGTH) {
            tt_gen_fail_by(g, &c->view);
            return;
        }
        if (o->finish == TT_FINISH_STOP)
            finish = TT_FINISH_STOP;
    }
    for (int32_t i = 0; i < c->canvas->constraints; i++)
        if (c->canvas->constraint[i].ends) /* complete, also where it fills all columns */
            finish = TT_FINISH_STOP;
    c->finish = finish;
}

static bool anything_committed(const tt_choice *c)
{
    for (int32_t i = 0; i < c->view.columns; i++)
        if (c->view.step[i] > 0)
            return true;
    return false;
}

static double since_arrival(const tt_gen *g)
{
    return (double)(tt_now_ns() - g->arrived_ns) * 1e-9;
}

void tt_choice_update(tt_gen *g, tt_choice *c)
{
    if (c->finish || g->failure.status || !c->canvas->job ||
        !tt_job_view(c->canvas->job, c->sample, &c->view))
        return;
    if (g->first_draft < 0 && anything_committed(c))
        g->first_draft = since_arrival(g);
    for (int k = 0; k < c->canvas->holes; k++) {
        tt_err e = {0};
        if (tt_text_out_feed(&c->out[k], &c->view, &e)) {
            tt_gen_fail(g, &e);
            return;
        }
        if (c->out[k].hit_stop)
            tt_job_stop(c->canvas->job, c->sample); /* harmless when repeated */
    }
    close_choice(g, c);
}

static bool all_closed(const tt_gen *g)
{
    for (int i = 0; i < g->choices; i++)
        if (!g->choice[i].finish)
            return false;
    return true;
}

void tt_gen_advance(tt_gen *g)
{
    tt_err e = {0};
    if (!g->failure.status && tt_fit_pending(g))
        tt_fit_advance(g);
    else if (!g->failure.status && tt_gen_submit_more(g, NULL, &e))
        tt_gen_fail(g, &e);
}

bool tt_gen_poll(tt_gen *g)
{
    tt_gen_advance(g);
    for (int i = 0; i < g->choices; i++)
        tt_choice_update(g, &g->choice[i]);
    bool over = g->failure.status || (!tt_fit_pending(g) && all_closed(g));
    if (over && g->search && !g->failure.status)
        over = tt_text_search_advance(g);
    if (over && !g->ended_ns)
        g->ended_ns = tt_now_ns();
    return over;
}

void tt_gen_answer(tt_gen *g, tt_reply *r)
{
    if (g->failure.status) {
        tt_reply_error(r, &g->failure);
        return;
    }
    if (g->first_text < 0)
        g->first_text = since_arrival(g);
    tt_json w = {.out = &r->body};
    tt_gen_write_answer(g, &w);
    r->status = 200;
}

void tt_gen_record(const tt_gen *g, tt_request_record *r)
{
    *r = (tt_request_record){.model = g->model->id,
                             .first_draft = g->first_draft,
                             .first_text = g->first_text,
                             .queue = -1,
                             .run = -1};
    int64_t end = g->ended_ns ? g->ended_ns : tt_now_ns();
    r->end_to_end = (double)(end - g->arrived_ns) * 1e-9;
    for (int i = 0; i < g->canvases; i++) {
        r->prompt_tokens += g->canvas[i].given;
        if (!g->canvas[i].job)
            continue;
        tt_job_times t = tt_job_get_times(g->canvas[i].job);
        r->queue = t.queue_ms * 1e-3 > r->queue ? t.queue_ms * 1e-3 : r->queue;
        r->run = t.run_ms * 1e-3 > r->run ? t.run_ms * 1e-3 : r->run;
    }
    r->candidates = g->search ? g->choices : 0;
    for (int i = 0; i < g->choices; i++) {
        const tt_choice *c = &g->choice[i];
        r->nfe += c->view.nfe;
        for (int k = 0; k < c->canvas->holes; k++)
            r->generation_tokens += c->out[k].tokens;
        tt_finish f = c->finish              ? c->finish
                      : g->failure.status == TT_OK || g->failure.status == TT_ECANCEL
                          ? TT_FINISH_CANCELLED
                      : c->view.finish == TT_FINISH_DEADLINE ? TT_FINISH_DEADLINE
                                                             : TT_FINISH_ERROR;
        r->finished[f]++;
    }
}

/* --- as work of any kind --- */

tt_work *tt_gen_work(tt_gen *g) { return &g->work; }

static tt_gen *of(const tt_work *w) { return (tt_gen *)(uintptr_t)w; }

static void work_free(tt_work *w) { tt_gen_free(of(w)); }
static bool work_streams(const tt_work *w) { return tt_gen_streams(of(w)); }
static tt_status work_submit(tt_work *w, void (*wake)(void *), void *arg, int64_t *retry_after_ms,
                             tt_err *e)
{
    return tt_gen_submit(of(w), wake, arg, retry_after_ms, e);
}
static bool work_poll(tt_work *w) { return tt_gen_poll(of(w)); }
static void work_answer(tt_work *w, tt_reply *r) { tt_gen_answer(of(w), r); }
static bool work_frames(tt_work *w, int64_t now_ms, tt_buf *out, int64_t *again_ms)
{
    return tt_gen_frames(of(w), now_ms, out, again_ms);
}
static void work_fail(tt_work *w, const tt_err *e) { tt_gen_fail(of(w), e); }
static void work_cancel(tt_work *w) { tt_gen_cancel(of(w)); }
static void work_record(const tt_work *w, tt_request_record *r) { tt_gen_record(of(w), r); }

static const tt_work_def work_def = {
    .free = work_free,
    .streams = work_streams,
    .submit = work_submit,
    .poll = work_poll,
    .answer = work_answer,
    .frames = work_frames,
    .abandon = work_fail,
    .cancel = work_cancel,
    .record = work_record,
};
