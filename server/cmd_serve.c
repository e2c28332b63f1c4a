/* cmd_serve.c - `tutti serve`: engine, models and HTTP server in one process.
 *
 * The server answers from the start (health says 503, model_loading) while a thread loads the
 * models; the main thread does nothing but wait for signals. */
#include <argp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/log.h"
#include "server/api/jobs.h"
#include "server/cmd.h"
#include "server/http/server.h"
#include "server/options.h"

enum { MAX_LIST = 64 };

typedef struct {
    tt_engine_args engine;
    tt_engine_options limits;
    tt_server_options server;
    const char *model[MAX_LIST];
    int models;
    const char *key[MAX_LIST + 1], *cors[MAX_LIST + 1]; /* NULL-terminated */
    int keys, origins;
    const char *program[MAX_LIST];
    int programs, verifier_ms;
    int drain_seconds, max_jobs;
    bool strict, own_metrics_only;
} serve_args;

enum {
    KEY_MODEL = 0x200, KEY_HOST, KEY_PORT, KEY_API_KEY, KEY_API_KEY_FILE, KEY_CORS, KEY_STRICT,
    KEY_OPEN_METRICS, KEY_OWN_METRICS, KEY_MAX_QUEUE, KEY_MAX_RUNNING, KEY_MAX_ROWS, KEY_MAX_BODY,
    KEY_MAX_UPLOAD, KEY_MAX_JOBS, KEY_MAX_CONNECTIONS, KEY_WORKERS, KEY_IDLE, KEY_DRAIN,
    KEY_HEARTBEAT, KEY_VERIFIER_HTTP, KEY_VERIFIER_MS,
};

static const struct argp_option options[] = {
    {"model", KEY_MODEL, "MODEL", 0,
     "a model to serve: the id of one that comes with the program, a folder, or ID=FOLDER; may be "
     "repeated. Default: all that come with the program", 1},
    {"host", KEY_HOST, "ADDRESS", 0, "where to listen; default 127.0.0.1 (TUTTI_HOST)", 2},
    {"port", KEY_PORT, "N", 0, "default 8080; 0: any free port (TUTTI_PORT)", 2},
    {"api-key", KEY_API_KEY, "KEY", 0, "requests must carry this key; may be repeated", 3},
    {"api-key-file", KEY_API_KEY_FILE, "FILE", 0, "keys, one a line; read again on SIGHUP", 3},
    {"open-metrics", KEY_OPEN_METRICS, NULL, 0, "/metrics needs no key", 3},
    {"cors", KEY_CORS, "ORIGIN", 0,
     "a web origin that may call from a browser, or *; may be repeated", 3},
    {"verifier-http", KEY_VERIFIER_HTTP, "NAME=URL", 0,
     "a program that scores candidates of searches, asked over HTTP under this name; may be "
     "repeated", 4},
    {"verifier-ms", KEY_VERIFIER_MS, "N", 0, "its time for an answer; default 10000", 4},
    {"strict", KEY_STRICT, NULL, 0,
     "refuse request fields that are otherwise accepted without effect", 4},
    {"own-metrics", KEY_OWN_METRICS, NULL, 0, "leave vLLM's names out of /metrics", 4},
    {"max-queue", KEY_MAX_QUEUE, "N", 0,
     "waiting requests before new ones get 429; default 256", 5},
    {"max-running", KEY_MAX_RUNNING, "N", 0, "sequences in one step; default 64", 5},
    {"max-rows", KEY_MAX_ROWS, "N", 0, "token rows in one forward pass; default 4096", 5},
    {"max-body", KEY_MAX_BODY, "BYTES", 0, "largest request body; default 4194304", 5},
    {"max-upload", KEY_MAX_UPLOAD, "BYTES", 0,
     "the same where bodies hold pictures; default 29360128", 5},
    {"max-jobs", KEY_MAX_JOBS, "N", 0, "requests made as jobs, finished ones included; default 256",
     5},
    {"max-connections", KEY_MAX_CONNECTIONS, "N", 0, "default 4096", 5},
    {"workers", KEY_WORKERS, "N", 0, "threads that read long requests; default 2", 5},
    {"idle-seconds", KEY_IDLE, "N", 0, "close a connection on which nothing moves; default 60", 6},
    {"heartbeat-ms", KEY_HEARTBEAT, "N", 0,
     "between comments of a quiet stream; default 15000", 6},
    {"drain-seconds", KEY_DRAIN, "N", 0,
     "after SIGTERM, time for running requests to finish; default 30", 6},
    {0},
};

static void add(struct argp_state *state, const char **list, int *n, const char *what, char *arg)
{
    if (*n == MAX_LIST)
        argp_error(state, "too many --%s", what);
    list[(*n)++] = arg;
}

static error_t parse_number(int key, char *arg, struct argp_state *state)
{
    serve_args *a = state->input;
    switch (key) {
    case KEY_PORT:
        a->server.port = (int)tt_option_int(state, "port", arg, 0, 65535);
        return 0;
    case KEY_MAX_QUEUE:
        a->limits.max_queue = (int)tt_option_int(state, "max-queue", arg, 1, 1000000);
        return 0;
    case KEY_MAX_RUNNING:
        a->limits.max_running = (int)tt_option_int(state, "max-running", arg, 1, 65536);
        return 0;
    case KEY_MAX_ROWS:
        a->limits.max_rows = tt_option_int(state, "max-rows", arg, 1, 1 << 24);
        return 0;
    case KEY_MAX_BODY:
        a->server.max_body = (size_t)tt_option_int(state, "max-body", arg, 1, 1 << 30);
        return 0;
    case KEY_MAX_UPLOAD:
        a->server.max_upload = (size_t)tt_option_int(state, "max-upload", arg, 1, 1 << 30);
        return 0;
    case KEY_MAX_JOBS:
        a->max_jobs = (int)tt_option_int(state, "max-jobs", arg, 1, 100000);
        return 0;
    case KEY_MAX_CONNECTIONS:
        a->server.max_connections = (int)tt_option_int(state, "max-connections", arg, 1, 1 << 20);
        return 0;
    case KEY_WORKERS:
        a->server.workers = (int)tt_option_int(state, "workers", arg, 1, 64);
        return 0;
    case KEY_IDLE:
        a->server.idle_seconds = (int)tt_option_int(state, "idle-seconds", arg, 1, 86400);
        return 0;
    case KEY_HEARTBEAT:
        a->server.heartbeat_ms = (int)tt_option_int(state, "heartbeat-ms", arg, 10, 3600000);
        return 0;
    case KEY_VERIFIER_MS:
        a->verifier_ms = (int)tt_option_int(state, "verifier-ms", arg, 1, 3600000);
        return 0;
    case KEY_DRAIN:
        a->drain_seconds = (int)tt_option_int(state, "drain-seconds", arg, 0, 86400);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    serve_args *a = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &a->engine;
        return 0;
    case KEY_MODEL:
    case ARGP_KEY_ARG:
        add(state, a->model, &a->models, "model", arg);
        return 0;
    case KEY_HOST:
        a->server.host = arg;
        return 0;
    case KEY_API_KEY:
        add(state, a->key, &a->keys, "api-key", arg);
        return 0;
    case KEY_API_KEY_FILE:
        a->server.key_file = arg;
        return 0;
    case KEY_CORS:
        add(state, a->cors, &a->origins, "cors", arg);
        return 0;
    case KEY_VERIFIER_HTTP:
        add(state, a->program, &a->programs, "verifier-http", arg);
        return 0;
    case KEY_STRICT:
        a->strict = true;
        return 0;
    case KEY_OPEN_METRICS:
        a->server.open_metrics = true;
        return 0;
    case KEY_OWN_METRICS:
        a->own_metrics_only = true;
        return 0;
    default:
        return parse_number(key, arg, state);
    }
}

static const struct argp_child children[] = {{&tt_engine_argp, 0, NULL, 0}, {0}};
static const struct argp serve_argp = {
    options, parse, "[MODEL...]",
    "Answer HTTP requests in the form of OpenAI's REST interface, and show the demo page.\v"
    "GET /openapi.json describes the interface. SIGTERM and SIGINT let running requests finish; a "
    "second one does not. SIGHUP reads the key file again.",
    children, NULL, NULL};

/* --- models --- */

static tt_status find_models(const serve_args *a, tt_model_place **out, size_t *n, tt_err *e)
{
    if (!a->models) {
        tt_status s = tt_models_dir_list(out, n, e);
        return s || *n ? s : tt_fail(e, TT_EIO, "no model comes with this program; name one");
    }
    *n = (size_t)a->models;
    *out = calloc(*n, sizeof **out);
    if (!*out)
        return tt_fail(e, TT_ENOMEM, "no memory for the list of models");
    for (size_t i = 0; i < *n; i++) {
        tt_status s = tt_models_dir_find(a->model[i], &(*out)[i], e);
        if (s)
            return s;
    }
    return TT_OK;
}

typedef struct {
    tt_api *api;
    const serve_args *args;
    tt_model_place *place;
    size_t places;
    const char *url;
} loader;

/* A request that works, for whoever reads the terminal. */
static void print_example(const tt_api *api, const char *url)
{
    const tt_served *m = tt_engine_model(api->engine, 0);
    bool codec = m->image && !m->image->planner;
    const char *path = codec ? "images/tokenize" : m->image ? "images/generations" : "completions";
    const char *rest = codec      ? "\"image\": \"PNG in base64\""
                       : m->image ? "\"prompt\": \"\""
                                  : "\"prompt\": \"The \", \"max_tokens\": 24";
    printf("ready: open %s in a browser, or\n\n"
           "  curl %sv1/%s -H 'Content-Type: application/json'%s \\\n"
           "    -d '{\"model\": \"%s\", %s}'\n\n",
           url, url, path, api->keys_needed ? " -H 'Authorization: Bearer KEY'" : "", m->id, rest);
    fflush(stdout);
}

static void *load_all(void *arg)
{
    loader *l = arg;
    pthread_setname_np(pthread_self(), "tutti-loader");
    for (size_t i = 0; i < l->places && atomic_load(&l->api->state) == TT_API_LOADING; i++) {
        tt_err e = {0};
        const tt_model_place *p = &l->place[i];
        if (tt_engine_add_model(l->api->engine, p->id, p->folder, l->args->engine.weights, NULL,
                                NULL, &e)) {
            tt_log(TT_LOG_ERROR, "model", "id=%s folder=%s error=\"%s\"", p->id, p->folder, e.text);
            snprintf(l->api->load_error, sizeof l->api->load_error, "%s", e.text);
        } else {
            tt_log(TT_LOG_INFO, "model", "id=%s folder=%s", p->id, p->folder);
        }
    }
    tt_api_state loading = TT_API_LOADING;
    bool ready = atomic_compare_exchange_strong(&l->api->state, &loading, TT_API_READY);
    if (!tt_engine_models(l->api->engine))
        kill(getpid(), SIGTERM); /* nothing to serve: main reports and ends */
    else if (ready)
        print_example(l->api, l->url);
    return NULL;
}

/* --- signals --- */

static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static void reload(tt_server *s)
{
    tt_err e = {0};
    if (tt_server_reload(s, &e))
        tt_log(TT_LOG_ERROR, "reload", "error=\"%s\"", e.text);
    else
        tt_log(TT_LOG_INFO, "reload", "keys=read");
}

/* Until SIGTERM or SIGINT. */
static void wait_for_end(const sigset_t *set, tt_server *s)
{
    int got;
    do {
        got = 0;
        sigwait(set, &got);
        if (got == SIGHUP)
            reload(s);
    } while (got != SIGTERM && got != SIGINT);
}

static int unfinished(const tt_api *api, tt_server *s)
{
    return tt_server_active(s) + tt_jobs_active(api->jobs);
}

/* Lets running requests finish, until none is left, time is up, or a second signal comes. */
static void drain(const sigset_t *set, tt_api *api, tt_server *s, int seconds)
{
    atomic_store(&api->state, TT_API_DRAINING);
    tt_log(TT_LOG_INFO, "drain", "active=%d seconds=%d", unfinished(api, s), seconds);
    struct timespec tick = {.tv_nsec = 20 * 1000000};
    for (int64_t i = 0; i < (int64_t)seconds * 50 && unfinished(api, s); i++) {
        int got = sigtimedwait(set, NULL, &tick);
        if (got == SIGTERM || got == SIGINT)
            return;
    }
}

/* --- all of it --- */

static tt_status serve(const serve_args *a, const sigset_t *set, tt_api *api, tt_model_place *place,
                       size_t places, tt_err *e)
{
    tt_server *server;
    tt_status s = tt_server_open(&server, api, &a->server, e);
    if (s)
        return s;
    char url[300];
    const char *host = a->server.host ? a->server.host : "127.0.0.1";
    snprintf(url, sizeof url, strchr(host, ':') ? "http://[%s]:%d/" : "http://%s:%d/", host,
             tt_server_port(server));
    printf("tutti %s listens at %s, loading %zu model%s\n", api->version, url, places,
           places == 1 ? "" : "s");
    fflush(stdout);
    loader l = {.api = api, .args = a, .place = place, .places = places, .url = url};
    pthread_t thread;
    if (pthread_create(&thread, NULL, load_all, &l)) {
        tt_server_close(server);
        return tt_fail(e, TT_ENOMEM, "cannot start the loader thread");
    }
    wait_for_end(set, server);
    drain(set, api, server, a->drain_seconds);
    pthread_join(thread, NULL);
    tt_server_close(server);
    return tt_engine_models(api->engine) ? TT_OK : tt_fail(e, TT_EIO, "%s", api->load_error);
}

static tt_status open_scorers(const serve_args *a, tt_scorer *list, tt_api *api, tt_err *e)
{
    tt_status s = TT_OK;
    for (int i = 0; i < a->programs && !s; i++)
        s = tt_scorer_open(&list[i], a->program[i], a->verifier_ms ? a->verifier_ms : 10000, e);
    api->scorer = list;
    api->scorers = a->programs;
    return s;
}

static tt_status run(serve_args *a, const sigset_t *set, tt_err *e)
{
    tt_model_place *place = NULL;
    size_t places = 0;
    tt_api api = {.version = TT_VERSION, .strict = a->strict, .max_samples = 256};
    a->limits.device = a->engine.device;
    a->limits.threads = a->engine.threads;
    a->server.keys = a->key;
    a->server.cors = a->cors;
    tt_scorer *scorer = calloc(MAX_LIST, sizeof *scorer);
    tt_status s = scorer ? open_scorers(a, scorer, &api, e)
                         : tt_fail(e, TT_ENOMEM, "no memory for the list of verifiers");
    if (!s)
        s = find_models(a, &place, &places, e);
    if (!s)
        s = tt_metrics_open(&api.metrics, !a->own_metrics_only, e);
    if (!s)
        s = tt_engine_open(&api.engine, &a->limits, e);
    tt_jobs_options jobs = {.metrics = api.metrics, .max_jobs = a->max_jobs};
    if (!s)
        s = tt_jobs_open(&api.jobs, &jobs, e);
    if (!s)
        s = serve(a, set, &api, place, places, e);
    tt_jobs_close(api.jobs);
    tt_engine_close(api.engine);
    tt_metrics_close(api.metrics);
    free(place);
    free(scorer);
    return s;
}

static tt_status take_environment(serve_args *a, tt_err *e)
{
    const char *host = getenv("TUTTI_HOST"), *port = getenv("TUTTI_PORT");
    a->server.host = host && *host ? host : NULL;
    a->server.port = 8080;
    a->drain_seconds = 30;
    if (port && *port) {
        char *end;
        long n = strtol(port, &end, 10);
        if (*end || n < 0 || n > 65535)
            return tt_fail(e, TT_EINVAL, "TUTTI_PORT is '%.40s', must be in 0..65535", port);
        a->server.port = (int)n;
    }
    return tt_engine_args_init(&a->engine, e);
}

int tt_cmd_serve(int argc, char **argv)
{
    serve_args args = {0};
    sigset_t set;
    tt_err e = {0};
    tt_status s = take_environment(&args, &e);
    if (!s) {
        argp_err_exit_status = 64;
        argp_parse(&serve_argp, argc, argv, 0, NULL, &args);
        block_signals(&set);
        s = run(&args, &set, &e);
    }
    if (s)
        fprintf(stderr, "tutti serve: %s\n", e.text);
    return s ? 1 : 0;
}
