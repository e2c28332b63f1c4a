/* server.c - libmicrohttpd: starting, handing requests to exchanges, stopping. */
#include "server/http/server.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/log.h"
#include "server/http/exchange.h"

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *path,
                                  const char *method, const char *version, const char *data,
                                  size_t *bytes, void **state)
{
    (void)version;
    tt_exchange *x = *state;
    if (!x) {
        *state = x = tt_exchange_open(cls, c, method, path);
        return x ? tt_exchange_headers(x, path) : MHD_NO;
    }
    if (!*bytes)
        return tt_exchange_go(x);
    enum MHD_Result result = tt_exchange_body(x, data, *bytes);
    *bytes = 0;
    return result;
}

static void on_completed(void *cls, struct MHD_Connection *c, void **state,
                         enum MHD_RequestTerminationCode why)
{
    (void)cls;
    (void)c;
    if (*state)
        tt_exchange_close(*state, why);
    *state = NULL;
}

static void on_log(void *cls, const char *fmt, va_list ap)
{
    (void)cls;
    char text[300];
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\r\n")] = '\0';
    tt_log(TT_LOG_DEBUG, "http", "text=\"%s\"", text);
}

static void on_panic(void *cls, const char *file, unsigned line, const char *why)
{
    (void)cls;
    tt_log(TT_LOG_ERROR, "panic", "in=libmicrohttpd file=%s line=%u why=\"%s\"", file, line,
           why ? why : "");
    abort();
}

/* --- starting --- */

static void take_options(tt_server *s, const tt_server_options *o)
{
    s->o = *o;
    if (!s->o.host)
        s->o.host = "127.0.0.1";
    if (!s->o.max_body)
        s->o.max_body = 4 << 20;
    if (!s->o.max_upload)
        s->o.max_upload = 28 << 20;
    if (s->o.max_upload < s->o.max_body)
        s->o.max_upload = s->o.max_body;
    if (!s->o.idle_seconds)
        s->o.idle_seconds = 60;
    if (!s->o.max_connections)
        s->o.max_connections = 4096;
    if (!s->o.workers)
        s->o.workers = 2;
    if (!s->o.heartbeat_ms)
        s->o.heartbeat_ms = 15000;
}

/* Memory of one connection: its headers must fit into half of it. The library clears that half
 * when a request has been read, so a waiting stream costs as much: 46 MB for a thousand, with all
 * the rest. */
enum { CONNECTION_MEMORY = 64 * 1024 };

static tt_status find_address(const tt_server *s, struct addrinfo **out, tt_err *e)
{
    char port[16];
    struct addrinfo want = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_PASSIVE};
    snprintf(port, sizeof port, "%d", s->o.port);
    int rc = getaddrinfo(s->o.host, port, &want, out);
    return rc ? tt_fail(e, TT_EINVAL, "cannot listen at '%s': %s", s->o.host, gai_strerror(rc))
              : TT_OK;
}

static tt_status start(tt_server *s, tt_err *e)
{
    struct addrinfo *at;
    tt_status status = find_address(s, &at, e);
    if (status)
        return status;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    if (at->ai_family == AF_INET6)
        flags |= MHD_USE_IPv6;
    MHD_set_panic_func(on_panic, NULL);
    s->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
        MHD_OPTION_SOCK_ADDR, at->ai_addr, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.max_connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->o.idle_seconds,
        MHD_OPTION_LISTEN_BACKLOG_SIZE, 1024u,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    freeaddrinfo(at);
    if (!s->daemon)
        return tt_fail(e, TT_EIO, "cannot listen at %s port %d: is it in use?", s->o.host,
                       s->o.port);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    s->port = info ? info->port : s->o.port;
    return TT_OK;
}

tt_status tt_server_open(tt_server **out, tt_api *api, const tt_server_options *o, tt_err *e)
{
    *out = NULL;
    tt_server *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for the server");
    s->api = api;
    take_options(s, o);
    tt_status status = tt_auth_open(&s->auth, o->keys, o->key_file, e);
    if (!status)
        status = tt_watch_open(&s->watch, e);
    if (!status)
        status = tt_workers_open(&s->workers, s->o.workers, 256, e);
    if (!status) {
        api->keys_needed = tt_auth_needed(s->auth);
        status = start(s, e);
    }
    if (status)
        tt_server_close(s);
    else
        *out = s;
    return status;
}

int tt_server_port(const tt_server *s) { return s->port; }

tt_status tt_server_reload(tt_server *s, tt_err *e) { return tt_auth_reload(s->auth, e); }

int tt_server_active(const tt_server *s) { return atomic_load(&s->active); }

/* --- stopping --- */

static void nap(void) { nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); }

/* A suspended connection makes MHD_stop_daemon() abort the process, so: accept nothing more, make
 * every exchange fail and leave its place, and stop only when none is parked. */
static void stop(tt_server *s)
{
    atomic_store(&s->api->state, TT_API_DRAINING);
    MHD_socket listener = MHD_quiesce_daemon(s->daemon);
    if (listener != MHD_INVALID_SOCKET)
        shutdown(listener, SHUT_RDWR); /* the backlog is refused, not left hanging */
    tt_workers_wait(s->workers);
    atomic_store(&s->closing, true);
    for (int ms = 0; atomic_load(&s->parked) || (atomic_load(&s->active) && ms < 2000); ms++) {
        tt_watch_rouse(s->watch);
        nap();
        tt_workers_wait(s->workers);
    }
    MHD_stop_daemon(s->daemon);
    if (listener != MHD_INVALID_SOCKET)
        close(listener);
}

void tt_server_close(tt_server *s)
{
    if (!s)
        return;
    if (s->daemon)
        stop(s);
    tt_workers_close(s->workers);
    tt_watch_close(s->watch);
    tt_auth_close(s->auth);
    free(s);
}
