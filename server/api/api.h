/* api.h - the REST interface without the network: what a route is, what it gets and gives.
 *
 * A route either answers at once (`answer`), or describes work (`endpoint`, see gen.h, or `image`,
 * see images.h) whose answer comes later or in pieces. Nothing here knows sockets: server/http
 * feeds it, tests and the batch command call it directly. */
#ifndef TT_API_H
#define TT_API_H

#include <stdatomic.h>

#include "kernels/base/buf.h"
#include "server/engine.h"
#include "server/metrics.h"

typedef struct tt_jobs tt_jobs; /* jobs.h */

typedef enum { TT_API_LOADING, TT_API_READY, TT_API_DRAINING } tt_api_state;

/* What requests share. Everything but state is set before the first call and then read only. */
typedef struct {
    tt_engine *engine;
    tt_metrics *metrics;
    const char *version;
    bool strict;         /* refuse top-level fields that are merely tolerated */
    int32_t max_samples; /* answers of one request: prompts times n */
    const tt_scorer *scorer; /* programs that score, by name */
    int scorers;
    tt_jobs *jobs;       /* what was asked for as a job; NULL: nothing can be */
    bool keys_needed;    /* for the API document */
    _Atomic tt_api_state state;
    /* Why a model did not load, when loading is over and none could be served; else "". */
    char load_error[240];
} tt_api;

typedef struct tt_endpoint tt_endpoint;             /* gen.h */
typedef struct tt_image_endpoint tt_image_endpoint; /* images.h */
typedef struct tt_work tt_work;                     /* work.h */
typedef struct tt_route tt_route;

/* A request, complete. */
typedef struct {
    tt_api *api;
    const tt_route *route;
    const char *tail; /* what the path has in place of {id}, decoded; "" without */
    const char *body;
    size_t body_bytes;
    uint64_t who; /* stands for the key it came with (server/http/auth.h) */
} tt_call;

/* An answer. Zero is not valid: a handler sets status and body. */
typedef struct {
    int status;
    const char *type; /* content type; NULL: JSON */
    tt_buf body;
    int64_t retry_after_ms; /* > 0: when to try again */
    bool no_retry;          /* tell the client that trying again is pointless */
    const char *allow;      /* for 405 */
} tt_reply;

enum {
    TT_ROUTE_OPEN = 1 << 0,    /* needs no key */
    TT_ROUTE_METRICS = 1 << 1, /* needs a key unless metrics are public */
    TT_ROUTE_FORM = 1 << 2,    /* takes multipart/form-data, too */
    TT_ROUTE_UPLOAD = 1 << 3,  /* bodies hold pictures: large, and long to read */
};

struct tt_route {
    const char *method, *path; /* a path may end in {id}, which takes the rest */
    const char *alias;         /* another path for the same, or NULL */
    unsigned flags;
    void (*answer)(const tt_call *c, tt_reply *r);
    const tt_endpoint *endpoint; /* when answer is NULL, or */
    const tt_image_endpoint *image;
    const char *tag, *summary;   /* for the API document */
    unsigned fields;             /* TT_ON_*: which body fields it knows; 0: no body */
};

/* All routes, ended by a NULL method. */
const tt_route *tt_routes(void);
/* The route, and through *tail what stands for {id}. When the path is known but not the method,
 * NULL with *allow = the methods it has ("GET, POST"); allow is "" when the path is unknown. */
const tt_route *tt_route_find(const char *method, const char *path, const char **tail,
                              char allow[64]);

/* --- answers of the simple kind (each in its file) --- */

void tt_api_models(const tt_call *c, tt_reply *r);
void tt_api_model(const tt_call *c, tt_reply *r);
void tt_api_tokenize(const tt_call *c, tt_reply *r);
void tt_api_detokenize(const tt_call *c, tt_reply *r);
void tt_api_image_labels(const tt_call *c, tt_reply *r);
void tt_api_jobs(const tt_call *c, tt_reply *r);
void tt_api_job(const tt_call *c, tt_reply *r);
void tt_api_job_cancel(const tt_call *c, tt_reply *r); /* tail: ID/cancel */
void tt_api_job_delete(const tt_call *c, tt_reply *r);
void tt_api_health(const tt_call *c, tt_reply *r);
void tt_api_live(const tt_call *c, tt_reply *r);
void tt_api_ready(const tt_call *c, tt_reply *r);
void tt_api_metrics(const tt_call *c, tt_reply *r);
void tt_api_version(const tt_call *c, tt_reply *r);
void tt_api_openapi(const tt_call *c, tt_reply *r);

/* --- shared --- */

/* The model a body names. Without the member, the first text model if `needed` is false. Fails with
 * code model_not_found, model_loading or missing_required_parameter. */
tt_status tt_api_find_model(const tt_api *api, const char *id, bool needed, const tt_served **out,
                            tt_err *e);
/* The default answer length when a request names none: what the context has left, at most this. */
enum { TT_DEFAULT_COMPLETION = 16, TT_DEFAULT_CHAT = 64, TT_DEFAULT_FIM = 32 };

/* --- errors --- */

/* An error as HTTP: status and the body of OpenAI's form. */
void tt_reply_error(tt_reply *r, const tt_err *e);
/* The same with explicit parts; param may be NULL. */
void tt_reply_fail(tt_reply *r, int status, const char *type, const char *code, const char *param,
                   const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* Appends {"error":{...}} alone, for streams. */
void tt_error_json(tt_buf *out, const tt_err *e);
int tt_error_status(const tt_err *e);

#endif
