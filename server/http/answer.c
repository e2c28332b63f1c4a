/* answer.c - queueing answers: headers, bodies, streams, files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/http/page.h"
#include "server/http/exchange.h"

/* --- headers --- */

#define CORS_HEADERS                                                                               \
    "authorization, content-type, openai-organization, openai-project, x-request-id, "            \
    "idempotency-key, x-stainless-lang, x-stainless-package-version, x-stainless-os, "            \
    "x-stainless-arch, x-stainless-runtime, x-stainless-runtime-version, "                        \
    "x-stainless-retry-count, x-stainless-timeout, x-stainless-helper-method"

/* The value of Access-Control-Allow-Origin; NULL when this origin may not call. */
static const char *allowed_origin(const tt_exchange *x)
{
    const char *origin = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Origin");
    for (int i = 0; origin && x->server->o.cors && x->server->o.cors[i]; i++) {
        if (!strcmp(x->server->o.cors[i], "*"))
            return "*";
        if (!strcmp(x->server->o.cors[i], origin))
            return origin;
    }
    return NULL;
}

static void add_cors(const tt_exchange *x, struct MHD_Response *r)
{
    if (!x->server->o.cors || !x->server->o.cors[0])
        return;
    MHD_add_response_header(r, "Vary", "Origin");
    const char *origin = allowed_origin(x);
    if (!origin)
        return;
    MHD_add_response_header(r, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(r, "Access-Control-Expose-Headers",
                            "x-request-id, openai-processing-ms, retry-after, retry-after-ms");
}

static void add_number(struct MHD_Response *r, const char *name, int64_t v)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)v);
    MHD_add_response_header(r, name, text);
}

static void add_common(const tt_exchange *x, struct MHD_Response *r, const char *type)
{
    MHD_add_response_header(r, "x-request-id", x->id);
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (type)
        MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    add_cors(x, r);
}

/* --- whole answers --- */

static enum MHD_Result queue(tt_exchange *x, int status, struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    x->status = status;
    if (x->phase != TT_X_STREAMING)
        x->phase = TT_X_DONE;
    enum MHD_Result result = MHD_queue_response(x->connection, (unsigned)status, r);
    MHD_destroy_response(r);
    return result;
}

enum MHD_Result tt_exchange_send(tt_exchange *x)
{
    tt_reply *a = &x->reply;
    if (a->body.failed)
        return MHD_NO;
    struct MHD_Response *r =
        MHD_create_response_from_buffer(a->body.size, a->body.data, MHD_RESPMEM_MUST_FREE);
    if (!r)
        return MHD_NO;
    a->body = (tt_buf){0}; /* the response frees the bytes */
    add_common(x, r, a->type ? a->type : "application/json");
    add_number(r, "openai-processing-ms", (tt_now_ns() - x->arrived_ns) / 1000000);
    if (a->retry_after_ms > 0) {
        add_number(r, "Retry-After", (a->retry_after_ms + 999) / 1000);
        add_number(r, "retry-after-ms", a->retry_after_ms);
    }
    if (a->no_retry)
        MHD_add_response_header(r, "x-should-retry", "false");
    if (a->allow)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, a->allow);
    if (a->status == 401)
        MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    return queue(x, a->status, r);
}

enum MHD_Result tt_exchange_preflight(tt_exchange *x)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    x->handler = "preflight";
    add_common(x, r, NULL);
    MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, POST, DELETE, OPTIONS");
    if (allowed_origin(x)) {
        MHD_add_response_header(r, "Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS");
        MHD_add_response_header(r, "Access-Control-Allow-Headers", CORS_HEADERS);
        MHD_add_response_header(r, "Access-Control-Max-Age", "600");
    }
    return queue(x, 204, r);
}

/* --- files --- */

bool tt_exchange_asset(tt_exchange *x, const char *path, enum MHD_Result *result)
{
    tt_asset a;
    if (!tt_asset_find(path, &a))
        return false;
    const char *known =
        MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "If-None-Match");
    bool same = known && strstr(known, a.etag);
    x->handler = "page";
    struct MHD_Response *r = MHD_create_response_from_buffer(same ? 0 : a.bytes, (void *)a.data,
                                                             MHD_RESPMEM_PERSISTENT);
    if (!r) {
        *result = MHD_NO;
        return true;
    }
    add_common(x, r, same ? NULL : a.type);
    MHD_add_response_header(r, "ETag", a.etag);
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "Content-Security-Policy",
                            "default-src 'self'; style-src 'self' 'unsafe-inline'; "
                            "base-uri 'none'; frame-ancestors 'none'");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    *result = queue(x, same ? 304 : 200, r);
    return true;
}

/* --- streams --- */

static size_t take(tt_exchange *x, char *buf, size_t max)
{
    size_t left = x->out.size - x->out_at, n = left < max ? left : max;
    memcpy(buf, x->out.data + x->out_at, n);
    x->out_at += n;
    if (x->out_at == x->out.size) {
        tt_buf_clear(&x->out);
        x->out_at = 0;
    }
    return n;
}

/* Makes the frames that are due, or a comment line when nothing was sent for long; then asks to
 * be called at the next time something will be. */
static void fill(tt_exchange *x)
{
    int64_t now = tt_now_ms(), again;
    if (atomic_load(&x->server->closing)) {
        tt_err e = {0};
        tt_fail_param(&e, "", "shutting_down", "the server is shutting down");
        tt_work_fail(x->work, &e);
    }
    x->over = tt_work_frames(x->work, now, &x->out, &again);
    if (!x->out.size && now - x->sent_ms >= x->server->o.heartbeat_ms)
        tt_buf_puts(&x->out, ": ping\n\n");
    if (x->out.size)
        x->sent_ms = now;
    int64_t ping = x->sent_ms + x->server->o.heartbeat_ms;
    tt_watch_at(x->server->watch, x->ticket, again && again < ping ? again : ping);
}

static ssize_t read_stream(void *arg, uint64_t at, char *buf, size_t max)
{
    tt_exchange *x = arg;
    (void)at;
    for (;;) {
        if (x->out.size)
            return (ssize_t)take(x, buf, max);
        if (x->over)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (atomic_load(&x->lost))
            return MHD_CONTENT_READER_END_WITH_ERROR;
        fill(x);
        if (x->out.failed)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (!x->out.size && !x->over && tt_exchange_park(x))
            return 0;
    }
}

enum MHD_Result tt_exchange_stream(tt_exchange *x)
{
    struct MHD_Response *r =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1024, read_stream, x, NULL);
    if (!r)
        return MHD_NO;
    x->sent_ms = tt_now_ms();
    add_common(x, r, "text/event-stream; charset=utf-8");
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    return queue(x, 200, r);
}
