/* work.c - see work.h. */
#include "server/api/work.h"

#include "server/api/gen.h"
#include "server/api/images.h"

tt_status tt_work_read(tt_work **out, tt_api *api, const tt_route *route, const tt_body *body,
                       tt_err *e)
{
    *out = NULL;
    if (route->image)
        return tt_imaging_read(out, api, route->image, body, e);
    tt_gen *g;
    tt_status s =
        tt_gen_read(&g, api, route->endpoint, body->data, body->bytes, body->arrived_ns, e);
    *out = s ? NULL : tt_gen_work(g);
    return s;
}

void tt_work_failure(tt_err *out, const tt_view *v, int64_t deadline_ms)
{
    *out = (tt_err){0};
    if (v->finish == TT_FINISH_ERROR)
        *out = v->error;
    else if (v->finish == TT_FINISH_DEADLINE)
        tt_fail_param(out, "tutti.deadline_ms", "deadline_exceeded",
                      "the deadline of %lld ms passed before the answer was complete",
                      (long long)deadline_ms);
    else
        tt_fail(out, TT_ECANCEL, "the request was cancelled");
    if (!out->status)
        tt_fail(out, TT_EFORMAT, "generation failed");
}
