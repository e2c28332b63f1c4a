/* exchange.h - one request and its answer on one connection.
 *
 * Runs on libmicrohttpd's thread, except where a function says otherwise. An exchange waits by
 * suspending its connection ("parking"); whoever has news wakes it. */
#ifndef TT_EXCHANGE_H
#define TT_EXCHANGE_H

#include <microhttpd.h>
#include <pthread.h>

#include "server/api/work.h"
#include "server/http/auth.h"
#include "server/http/server.h"
#include "server/http/watch.h"
#include "server/http/workers.h"

struct tt_server {
    tt_api *api;
    tt_server_options o;
    struct MHD_Daemon *daemon;
    int port;
    tt_auth *auth;
    tt_watch *watch;
    tt_workers *workers;
    atomic_int active;  /* generation requests in flight */
    atomic_int parked;  /* suspended connections */
    atomic_size_t held; /* bytes of bodies that have pictures */
    atomic_bool closing;
};

typedef enum {
    TT_X_BODY,      /* receiving */
    TT_X_WORKING,   /* a worker reads and submits */
    TT_X_RUNNING,   /* submitted, one answer to come */
    TT_X_WRITING,   /* a worker writes the answer: pictures become files */
    TT_X_STREAMING, /* the body is being sent piece by piece */
    TT_X_DONE,      /* the answer is queued */
} tt_exchange_phase;

typedef struct {
    tt_server *server;
    struct MHD_Connection *connection;
    atomic_int references;
    char id[129];       /* x-request-id */
    const char *method; /* static text */
    const tt_route *route;
    const char *handler; /* the route's path for logs and metrics; static text */
    char *tail;          /* of the path */
    char content_type[200];
    uint64_t who; /* the key it came with; 0: no keys are needed */
    int64_t arrived_ns;
    tt_buf body;
    size_t received; /* bytes of body, also those dropped */
    size_t held;     /* of them, those counted in server->held */
    bool drop;       /* the answer is known: the body is swallowed */
    tt_exchange_phase phase;
    tt_reply reply;
    int status;
    bool counted; /* in server->active */
    tt_work *work;
    tt_err failure; /* of a worker */

    atomic_bool worked; /* the worker has finished: work or reply are set */
    atomic_bool lost;   /* the client went away */

    pthread_mutex_t lock; /* of what follows */
    bool waiting, woken;
    bool abandoned; /* the connection closed while the worker was busy: it cleans up */
    tt_work *cancelable; /* work once its jobs exist */

    int ticket; /* of the watch; -1 */
    tt_buf out; /* frames not yet taken */
    size_t out_at;
    int64_t sent_ms;
    bool over;
} tt_exchange;

/* NULL when memory is out. */
tt_exchange *tt_exchange_open(tt_server *s, struct MHD_Connection *c, const char *method,
                              const char *path);
/* The headers are known: decides what can be refused at once. */
enum MHD_Result tt_exchange_headers(tt_exchange *x, const char *path);
/* A piece of the body. */
enum MHD_Result tt_exchange_body(tt_exchange *x, const char *data, size_t bytes);
/* The body is complete, or the exchange was woken. */
enum MHD_Result tt_exchange_go(tt_exchange *x);
/* The connection is done with it: logs, counts, frees. */
void tt_exchange_close(tt_exchange *x, enum MHD_RequestTerminationCode why);

/* Any thread: there is news. */
void tt_exchange_wake(void *x);
/* Suspends the connection until the next wake; false when there was one already. While the server
 * closes, only what waits for a worker may park. */
bool tt_exchange_park(tt_exchange *x);
void tt_exchange_release(tt_exchange *x);

/* --- answer.c: queueing answers --- */

enum MHD_Result tt_exchange_send(tt_exchange *x); /* x->reply, consumed */
enum MHD_Result tt_exchange_stream(tt_exchange *x);
/* Answers with a file of web/; false when there is none of that name. */
bool tt_exchange_asset(tt_exchange *x, const char *path, enum MHD_Result *result);
/* The answer to a preflight. */
enum MHD_Result tt_exchange_preflight(tt_exchange *x);

#endif
