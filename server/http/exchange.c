/* exchange.c - the course of a request: headers, body, work, answer. See exchange.h. */
#include "server/http/exchange.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/api/jobs.h"

enum {
    INLINE_BODY = 64 * 1024, /* longer bodies are read by a worker */
    MAX_UPLOADS = 32,        /* bodies of the largest size held at the same time */
};

static const char *header(const tt_exchange *x, const char *name)
{
    return MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, name);
}

/* The client's id when it is harmless, else a new one. */
static void choose_id(tt_exchange *x)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    const char *given = header(x, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    if (n >= 1 && n < sizeof x->id && strspn(given, allowed) == n) {
        memcpy(x->id, given, n + 1);
        return;
    }
    unsigned char r[12] = {0};
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r)
        memcpy(r, &x->arrived_ns, sizeof x->arrived_ns);
    int at = snprintf(x->id, sizeof x->id, "req_");
    for (size_t i = 0; i < sizeof r; i++)
        at += snprintf(x->id + at, sizeof x->id - (size_t)at, "%02x", r[i]);
}

/* Labels of metrics must be few and must not come from the client. */
static const char *known_method(const char *method)
{
    static const char *const known[] = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i], method))
            return known[i];
    return "other";
}

tt_exchange *tt_exchange_open(tt_server *s, struct MHD_Connection *c, const char *method,
                              const char *path)
{
    tt_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    char allow[64];
    const char *tail;
    x->server = s;
    x->connection = c;
    x->references = 1;
    x->ticket = -1;
    x->arrived_ns = tt_now_ns();
    x->method = known_method(method);
    x->route = tt_route_find(method, path, &tail, allow);
    x->handler = x->route ? x->route->path : "other";
    x->tail = strdup(x->route ? tail : "");
    pthread_mutex_init(&x->lock, NULL);
    choose_id(x);
    if (!x->tail) {
        tt_exchange_release(x);
        return NULL;
    }
    return x;
}

static void free_body(tt_exchange *x)
{
    atomic_fetch_sub(&x->server->held, x->held);
    x->held = 0;
    tt_buf_free(&x->body);
}

void tt_exchange_release(tt_exchange *x)
{
    if (atomic_fetch_sub(&x->references, 1) > 1)
        return;
    free_body(x);
    pthread_mutex_destroy(&x->lock);
    tt_buf_free(&x->out);
    tt_buf_free(&x->reply.body);
    free(x->tail);
    free(x);
}

/* --- refusing early --- */

static void refuse_method(tt_exchange *x, const char *path)
{
    static const char *const lists[] = {"GET", "POST", "GET, POST", "GET, DELETE"};
    char allow[64];
    const char *tail;
    tt_route_find(x->method, path, &tail, allow);
    if (!*allow) {
        tt_reply_fail(&x->reply, 404, "invalid_request_error", "not_found", NULL,
                      "there is nothing at %.100s; GET /openapi.json lists what there is", path);
        return;
    }
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (!strcmp(lists[i], allow))
            x->reply.allow = lists[i];
    tt_reply_fail(&x->reply, 405, "invalid_request_error", "method_not_allowed", NULL,
                  "%.100s answers %s only", path, allow);
}

static bool needs_key(const tt_exchange *x)
{
    if (x->route->flags & TT_ROUTE_OPEN)
        return false;
    return !(x->route->flags & TT_ROUTE_METRICS && x->server->o.open_metrics);
}

/* Whether the media type is this one, whatever its parameters are. */
static bool is_type(const char *type, const char *name)
{
    size_t n = strcspn(type, "; \t");
    return n == strlen(name) && !strncasecmp(type, name, n);
}

static bool readable(const tt_exchange *x, const char *type)
{
    return !type || is_type(type, "application/json") ||
           (x->route->flags & TT_ROUTE_FORM && is_type(type, "multipart/form-data"));
}

static size_t max_body(const tt_exchange *x)
{
    bool pictures = x->route && x->route->flags & TT_ROUTE_UPLOAD;
    return pictures ? x->server->o.max_upload : x->server->o.max_body;
}

static bool too_large(tt_exchange *x, unsigned long long bytes)
{
    if (bytes <= max_body(x))
        return false;
    tt_reply_fail(&x->reply, 413, "invalid_request_error", "request_too_large", NULL,
                  "the body has more than the %zu bytes allowed", max_body(x));
    return true;
}

/* Sets x->reply when the request cannot succeed whatever its body is. */
static void check_headers(tt_exchange *x, const char *path)
{
    const char *length = header(x, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *type = header(x, MHD_HTTP_HEADER_CONTENT_TYPE);
    if (!x->route) {
        refuse_method(x, path);
        return;
    }
    if (needs_key(x) && !tt_auth_allows(x->server->auth, header(x, "Authorization"), &x->who)) {
        tt_reply_fail(&x->reply, 401, "invalid_request_error", "invalid_api_key", NULL,
                      "the API key is missing or wrong (Authorization: Bearer KEY)");
        return;
    }
    snprintf(x->content_type, sizeof x->content_type, "%s", type ? type : "");
    if (x->route->fields && !readable(x, type))
        tt_reply_fail(&x->reply, 415, "invalid_request_error", "unsupported_media_type", NULL,
                      "the body must be application/json%s",
                      x->route->flags & TT_ROUTE_FORM ? " or multipart/form-data" : "");
    else if (length)
        too_large(x, strtoull(length, NULL, 10));
}

enum MHD_Result tt_exchange_headers(tt_exchange *x, const char *path)
{
    enum MHD_Result result;
    if (!strcmp(x->method, "OPTIONS"))
        return tt_exchange_preflight(x);
    if (!x->route && (!strcmp(x->method, "GET") || !strcmp(x->method, "HEAD")) &&
        tt_exchange_asset(x, path, &result))
        return result;
    check_headers(x, path);
    if (!x->reply.status)
        return MHD_YES;
    /* Answering now spares the client the upload; a small body is swallowed instead, so that the
     * connection can be used again. */
    if (header(x, MHD_HTTP_HEADER_EXPECT) || x->reply.status == 413)
        return tt_exchange_send(x);
    x->drop = true;
    return MHD_YES;
}

static void overloaded(tt_exchange *x, const char *by)
{
    tt_reply_fail(&x->reply, 503, "server_error", "overloaded", NULL, "too many %s", by);
    x->reply.retry_after_ms = 1000;
}

/* Pictures of all requests together have a limit, too. */
static bool no_room(tt_exchange *x, size_t bytes)
{
    if (!(x->route->flags & TT_ROUTE_UPLOAD))
        return false;
    x->held += bytes;
    size_t all = atomic_fetch_add(&x->server->held, bytes) + bytes;
    if (all <= MAX_UPLOADS * x->server->o.max_upload)
        return false;
    overloaded(x, "pictures are being sent");
    return true;
}

enum MHD_Result tt_exchange_body(tt_exchange *x, const char *data, size_t bytes)
{
    x->received += bytes;
    if (!x->drop && too_large(x, x->received)) {
        x->drop = true;
        free_body(x);
    }
    if (x->received > 2 * max_body(x) + INLINE_BODY)
        return MHD_NO; /* enough swallowed: a chunked upload without end */
    if (!x->drop && no_room(x, bytes)) {
        x->drop = true;
        free_body(x);
    }
    if (!x->drop)
        tt_buf_add(&x->body, data, bytes);
    return x->body.failed ? MHD_NO : MHD_YES;
}

/* --- waiting --- */

void tt_exchange_wake(void *arg)
{
    tt_exchange *x = arg;
    pthread_mutex_lock(&x->lock);
    x->woken = true;
    if (x->waiting) {
        x->waiting = false;
        atomic_fetch_sub(&x->server->parked, 1);
        MHD_resume_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
}

static bool with_worker(const tt_exchange *x)
{
    return x->phase == TT_X_WORKING || x->phase == TT_X_WRITING;
}

bool tt_exchange_park(tt_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool stay = !x->woken && (with_worker(x) || !atomic_load(&x->server->closing));
    x->woken = false;
    if (stay) {
        x->waiting = true;
        atomic_fetch_add(&x->server->parked, 1);
        MHD_suspend_connection(x->connection);
    }
    pthread_mutex_unlock(&x->lock);
    return stay;
}

/* The client went away: on the watch's thread. */
static void on_lost(void *arg)
{
    tt_exchange *x = arg;
    pthread_mutex_lock(&x->lock);
    atomic_store(&x->lost, true);
    tt_work *w = x->cancelable;
    pthread_mutex_unlock(&x->lock);
    if (w)
        tt_work_cancel(w); /* freed only after the watch has let go of x */
    tt_exchange_wake(x);
}

static void start_watching(tt_exchange *x)
{
    static const tt_watch_calls calls = {.lost = on_lost, .due = tt_exchange_wake};
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info)
        x->ticket = tt_watch_add(x->server->watch, info->connect_fd, &calls, x);
}

/* --- work --- */

/* Reads and submits what the request asks for, or leaves the reason in x->reply. Any thread. */
static void prepare(tt_exchange *x)
{
    tt_err e = {0};
    int64_t retry_ms = 0;
    tt_work *w = NULL;
    tt_body body = {.type = x->content_type, .data = tt_buf_text(&x->body),
                    .bytes = x->body.size, .arrived_ns = x->arrived_ns};
    tt_status s = tt_work_read(&w, x->server->api, x->route, &body, &e);
    free_body(x);
    if (!s && w->detached) {
        tt_jobs_take(x->server->api->jobs, w, x->who, &x->reply);
        return;
    }
    if (!s)
        s = tt_work_submit(w, tt_exchange_wake, x, &retry_ms, &e);
    if (s) {
        tt_work_free(w);
        x->reply.retry_after_ms = retry_ms;
        tt_reply_error(&x->reply, &e);
        return;
    }
    pthread_mutex_lock(&x->lock);
    x->work = x->cancelable = w;
    pthread_mutex_unlock(&x->lock);
    if (atomic_load(&x->lost))
        tt_work_cancel(w);
}

static void answer_now(tt_exchange *x)
{
    tt_call call = {.api = x->server->api, .route = x->route, .tail = x->tail,
                    .body = tt_buf_text(&x->body), .body_bytes = x->body.size, .who = x->who};
    x->route->answer(&call, &x->reply);
    tt_buf_free(&x->body);
}

static bool takes_time(const tt_exchange *x) { return !x->route->answer; }

static void do_work(tt_exchange *x)
{
    if (takes_time(x))
        prepare(x);
    else
        answer_now(x);
}

static void on_worker(void *arg)
{
    tt_exchange *x = arg;
    if (x->phase == TT_X_WRITING)
        tt_work_answer(x->work, &x->reply);
    else
        do_work(x);
    pthread_mutex_lock(&x->lock);
    atomic_store(&x->worked, true);
    bool abandoned = x->abandoned;
    pthread_mutex_unlock(&x->lock);
    if (abandoned)
        tt_work_free(x->work);
    else
        tt_exchange_wake(x);
    tt_exchange_release(x);
}

/* False when no worker has time. */
static bool hand_over(tt_exchange *x, tt_exchange_phase phase)
{
    tt_exchange_phase before = x->phase;
    x->phase = phase;
    atomic_store(&x->worked, false);
    atomic_fetch_add(&x->references, 1);
    if (tt_workers_add(x->server->workers, on_worker, x))
        return true;
    tt_exchange_release(x);
    x->phase = before;
    return false;
}

/* The body is complete. True when a worker has taken over. */
static bool begin_work(tt_exchange *x)
{
    if (takes_time(x)) {
        x->counted = true;
        atomic_fetch_add(&x->server->active, 1);
        start_watching(x);
    }
    bool pictures = x->route->flags & TT_ROUTE_UPLOAD;
    if (!pictures && x->body.size <= INLINE_BODY) {
        do_work(x);
        return false;
    }
    if (hand_over(x, TT_X_WORKING))
        return true;
    overloaded(x, "long requests are waiting to be read");
    return false;
}

static void fail_if_closing(tt_exchange *x)
{
    tt_err e = {0};
    if (!atomic_load(&x->server->closing))
        return;
    tt_fail_param(&e, "", "shutting_down", "the server is shutting down");
    tt_work_fail(x->work, &e);
}

/* Waits until the answer is complete; false when the connection was parked. */
static bool wait_for_answer(tt_exchange *x)
{
    for (;;) {
        fail_if_closing(x);
        if (tt_work_poll(x->work))
            return true;
        if (tt_exchange_park(x))
            return false;
    }
}

/* True when the worker has finished; false when the connection was parked again. */
static bool worker_done(tt_exchange *x)
{
    while (!atomic_load(&x->worked))
        if (tt_exchange_park(x))
            return false;
    return true;
}

/* The answer is known. Pictures are compressed by a worker, unless none has time. */
static enum MHD_Result write_answer(tt_exchange *x)
{
    if (x->route->image && hand_over(x, TT_X_WRITING))
        return worker_done(x) ? tt_exchange_send(x) : MHD_YES;
    tt_work_answer(x->work, &x->reply);
    return tt_exchange_send(x);
}

/* What follows once a request was read: by this thread or by a worker. */
static enum MHD_Result after_work(tt_exchange *x)
{
    if (atomic_load(&x->lost))
        return MHD_NO;
    if (x->reply.status)
        return tt_exchange_send(x);
    if (tt_work_streams(x->work)) {
        x->phase = TT_X_STREAMING;
        return tt_exchange_stream(x);
    }
    x->phase = TT_X_RUNNING;
    return wait_for_answer(x) ? write_answer(x) : MHD_YES;
}

enum MHD_Result tt_exchange_go(tt_exchange *x)
{
    if (atomic_load(&x->lost) && !with_worker(x)) /* a worker may still hold x */
        return MHD_NO;
    switch (x->phase) {
    case TT_X_BODY:
        if (x->reply.status)
            return tt_exchange_send(x);
        if (!begin_work(x))
            return after_work(x);
        return worker_done(x) ? after_work(x) : MHD_YES;
    case TT_X_WORKING:
        return worker_done(x) ? after_work(x) : MHD_YES;
    case TT_X_RUNNING:
        return after_work(x);
    case TT_X_WRITING:
        return worker_done(x) ? tt_exchange_send(x) : MHD_YES;
    case TT_X_STREAMING:
    case TT_X_DONE:
        break;
    }
    return MHD_YES;
}

/* --- the end --- */

static void record(tt_exchange *x)
{
    tt_request_record r;
    tt_metrics *m = x->server->api->metrics;
    tt_work_record(x->work, &r);
    tt_metrics_request(m, &r);
    if (atomic_load(&x->lost))
        tt_metrics_cancelled(m, "client");
    else if (r.finished[TT_FINISH_DEADLINE])
        tt_metrics_cancelled(m, "deadline");
    else if (r.finished[TT_FINISH_CANCELLED])
        tt_metrics_cancelled(m, atomic_load(&x->server->closing) ? "shutdown" : "other");
}

/* True when a worker still reads this request: then what it makes is its own to free. */
static bool leave_to_worker(tt_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->abandoned = with_worker(x) && !atomic_load(&x->worked);
    bool busy = x->abandoned;
    pthread_mutex_unlock(&x->lock);
    return busy;
}

void tt_exchange_close(tt_exchange *x, enum MHD_RequestTerminationCode why)
{
    bool mine = !leave_to_worker(x);
    bool left = atomic_load(&x->lost) || why != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    int status = left && (!mine || x->work || !x->status) ? 499 : x->status;
    double seconds = (double)(tt_now_ns() - x->arrived_ns) * 1e-9;
    tt_watch_remove(x->server->watch, x->ticket);
    if (left)
        atomic_store(&x->lost, true);
    if (mine && x->work) {
        record(x);
        tt_work_free(x->work);
        x->work = NULL;
    }
    if (x->counted)
        atomic_fetch_sub(&x->server->active, 1);
    tt_metrics_http(x->server->api->metrics, x->handler, x->method, status, seconds);
    bool quiet = x->route && (x->route->flags & (TT_ROUTE_OPEN | TT_ROUTE_METRICS));
    tt_log(quiet ? TT_LOG_DEBUG : TT_LOG_INFO, "request",
           "id=%s method=%s route=%s status=%d ms=%.1f", x->id, x->method, x->handler, status,
           seconds * 1e3);
    tt_exchange_release(x);
}
