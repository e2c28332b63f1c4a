/* work.h - a request that takes time, whatever it is about: texts (gen.h) or images (images.h).
 *
 *     tt_work_read    body -> checked request (may take long)
 *     tt_work_submit  hands its first jobs to the engine
 *     then, whenever woken:
 *       tt_work_poll + tt_work_answer   one answer, or
 *       tt_work_frames                  what a stream has to send now
 *     tt_work_free
 *
 * One thread at a time uses a tt_work; only tt_work_cancel() may be called from another one,
 * between submit and free. What the functions do in detail is told in gen.h. */
#ifndef TT_WORK_H
#define TT_WORK_H

#include "server/api/api.h"

/* How far it is, for those who look from outside. */
typedef struct {
    bool running;        /* some of it has begun */
    int32_t ahead;       /* jobs in front of it while it waits */
    int32_t step, steps; /* of all its images or texts together */
} tt_progress;

typedef struct {
    void (*free)(tt_work *w);
    bool (*streams)(const tt_work *w);
    tt_status (*submit)(tt_work *w, void (*wake)(void *arg), void *arg, int64_t *retry_after_ms,
                        tt_err *e);
    bool (*poll)(tt_work *w);
    void (*answer)(tt_work *w, tt_reply *r);
    bool (*frames)(tt_work *w, int64_t now_ms, tt_buf *out, int64_t *again_ms);
    void (*abandon)(tt_work *w, const tt_err *e);
    void (*cancel)(tt_work *w);
    void (*record)(const tt_work *w, tt_request_record *r);
    void (*progress)(tt_work *w, tt_progress *p); /* NULL: cannot become a job of /v1/jobs */
} tt_work_def;

/* Every kind of work begins with this. */
struct tt_work {
    const tt_work_def *def;
    bool detached; /* asked for as a job: answered with 202 at once (jobs.h) */
};

/* The body of a request as it came. */
typedef struct {
    const char *type; /* content type; NULL: JSON */
    const char *data;
    size_t bytes;
    int64_t arrived_ns; /* tt_now_ns() */
} tt_body;

/* For a route with an endpoint. Fails with an error fit for tt_reply_error(). */
tt_status tt_work_read(tt_work **out, tt_api *api, const tt_route *route, const tt_body *body,
                       tt_err *e);

/* Why a job that ended without an answer did. */
void tt_work_failure(tt_err *out, const tt_view *v, int64_t deadline_ms);

static inline void tt_work_free(tt_work *w) /* cancels what runs; NULL is fine */
{
    if (w)
        w->def->free(w);
}
static inline bool tt_work_streams(const tt_work *w) { return w->def->streams(w); }
static inline tt_status tt_work_submit(tt_work *w, void (*wake)(void *arg), void *arg,
                                       int64_t *retry_after_ms, tt_err *e)
{
    return w->def->submit(w, wake, arg, retry_after_ms, e);
}
static inline bool tt_work_poll(tt_work *w) { return w->def->poll(w); }
static inline void tt_work_answer(tt_work *w, tt_reply *r) { w->def->answer(w, r); }
static inline bool tt_work_frames(tt_work *w, int64_t now_ms, tt_buf *out, int64_t *again_ms)
{
    return w->def->frames(w, now_ms, out, again_ms);
}
static inline void tt_work_fail(tt_work *w, const tt_err *e) { w->def->abandon(w, e); }
static inline void tt_work_cancel(tt_work *w) { w->def->cancel(w); }
static inline void tt_work_record(const tt_work *w, tt_request_record *r) { w->def->record(w, r); }

#endif
