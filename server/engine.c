/* engine.c - see engine.h: models and the way in. */
#include "server/engine.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "server/job.h"
#include "server/scheduler.h"
#include "server/served.h"
#include "server/share.h"

enum { MAX_MODELS = 64 };
_Static_assert((int)MAX_MODELS <= (int)TT_MAX_LANES, "every model has a lane of its own");

struct tt_engine {
    tt_engine_options o;
    tt_stream *stream;
    pthread_mutex_t device; /* the stream belongs to whoever holds this */
    tt_scheduler *scheduler;
    tt_served *model[MAX_MODELS];
    atomic_size_t models; /* entries below are complete and never change */
};

static size_t half_of_memory(void)
{
    struct sysinfo info;
    return sysinfo(&info) ? (size_t)1 << 30 : (size_t)info.totalram * info.mem_unit / 2;
}

static tt_status take_options(tt_engine *g, const tt_engine_options *o, tt_err *e)
{
    g->o = o ? *o : (tt_engine_options){0};
    if (g->o.max_queue < 0 || g->o.max_running < 0 || g->o.max_rows < 0 ||
        g->o.max_running > 65536)
        return tt_fail(e, TT_EINVAL, "engine limits: queue %d, sequences %d, rows %lld",
                       g->o.max_queue, g->o.max_running, (long long)g->o.max_rows);
    g->o.device = g->o.device ? g->o.device : "auto";
    g->o.max_queue = g->o.max_queue ? g->o.max_queue : 256;
    g->o.max_running = g->o.max_running ? g->o.max_running : 64;
    g->o.max_rows = g->o.max_rows ? g->o.max_rows : 4096;
    g->o.max_bytes = g->o.max_bytes ? g->o.max_bytes : half_of_memory();
    return TT_OK;
}

tt_status tt_engine_open(tt_engine **out, const tt_engine_options *o, tt_err *e)
{
    *out = NULL;
    tt_engine *g = calloc(1, sizeof *g);
    if (!g)
        return tt_fail(e, TT_ENOMEM, "no memory for an engine");
    pthread_mutex_init(&g->device, NULL);
    tt_status s = take_options(g, o, e);
    if (!s)
        s = tt_stream_open(&g->stream, g->o.device, g->o.threads, e);
    if (!s) {
        tt_scheduler_options so = {.max_queue = g->o.max_queue, .max_running = g->o.max_running,
                                   .max_rows = g->o.max_rows, .max_bytes = g->o.max_bytes,
                                   .device = &g->device};
        s = tt_scheduler_open(&g->scheduler, &so, e);
    }
    if (s)
        tt_engine_close(g);
    else
        *out = g;
    return s;
}

void tt_engine_close(tt_engine *g)
{
    if (!g)
        return;
    tt_scheduler_close(g->scheduler);
    for (size_t i = 0; i < g->models; i++)
        tt_served_close(g->model[i]);
    tt_stream_close(g->stream);
    pthread_mutex_destroy(&g->device);
    free(g);
}

/* --- models --- */

tt_status tt_engine_add_model(tt_engine *g, const char *id, const char *folder,
                              tt_weights_mode mode, void (*progress)(void *arg, double done),
                              void *arg, tt_err *e)
{
    if (!*id || strlen(id) > 200)
        return tt_fail(e, TT_EINVAL, "model id of %zu characters", strlen(id));
    if (tt_engine_find(g, id))
        return tt_fail(e, TT_EINVAL, "a model '%.100s' is open already", id);
    if (g->models == MAX_MODELS)
        return tt_fail(e, TT_EUNSUP, "more than %d models", MAX_MODELS);
    tt_loading how = {.stream = g->stream,
                      .device = &g->device,
                      .random = g->o.random_weights,
                      .mode = mode,
                      .progress = progress,
                      .arg = arg};
    tt_status s = tt_served_open(&g->model[g->models], id, folder, &how, e);
    if (!s)
        g->models++;
    return s;
}

const tt_served *tt_engine_find(const tt_engine *g, const char *id)
{
    for (size_t i = 0; i < g->models; i++)
        if (!strcmp(g->model[i]->id, id))
            return g->model[i];
    return NULL;
}

size_t tt_engine_models(const tt_engine *g) { return g->models; }

const tt_served *tt_engine_model(const tt_engine *g, size_t i)
{
    return i < g->models ? g->model[i] : NULL;
}

void tt_engine_describe(const tt_engine *g, char *text, size_t size)
{
    char device[200];
    g->stream->op.describe(g->stream, device, sizeof device);
    snprintf(text, size, "%s: %s", g->stream->op.name, device);
}

/* --- jobs --- */

/* Opens a run and closes it again, so that a parameter the sampler refuses is answered at once
 * instead of from the queue. */
static tt_status try_sampler(const tt_job *j, tt_err *e)
{
    tt_run run;
    if (j->spec.picture) {
        tt_picture_run picture;
        tt_picture_run_spec ps = tt_job_picture_spec(j, 0);
        tt_status ok = tt_picture_run_open(&picture, &ps, e);
        if (!ok)
            tt_picture_run_close(&picture);
        return ok;
    }
    tt_run_spec spec = tt_job_run_spec(j, 0);
    tt_status s = tt_run_open(&run, &spec, e);
    if (!s)
        tt_run_close(&run);
    return s;
}

tt_status tt_engine_submit(tt_engine *g, const tt_job_spec *spec, tt_job **out,
                           int64_t *retry_after_ms, tt_err *e)
{
    *out = NULL;
    tt_job *j;
    tt_status s = tt_job_open(&j, spec, g->o.max_rows, g->o.max_running, e);
    if (s)
        return s;
    s = try_sampler(j, e);
    if (!s)
        s = tt_scheduler_submit(g->scheduler, j, retry_after_ms, e);
    if (s) {
        j->wake = NULL;
        tt_job_drop(j);
        tt_job_drop(j);
        return s;
    }
    *out = j;
    return TT_OK;
}

void tt_engine_get_stats(tt_engine *g, tt_engine_stats *out)
{
    tt_scheduler_stats(g->scheduler, out);
}
