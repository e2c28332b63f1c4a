/* jobs.h - work whose answer is fetched later: /v1/jobs.
 *
 * A request with tutti.async is answered 202 at once. A thread of the table follows the work and
 * keeps the answer until it is deleted, ten minutes have passed, or newer answers need the room.
 * A job is seen, listed and cancelled by the key that asked for it; to others there is none.
 * States: queued, generating, completed, failed, cancelled. Thread-safe. */
#ifndef TT_API_JOBS_H
#define TT_API_JOBS_H

#include "server/api/work.h"

typedef struct {
    tt_metrics *metrics;
    int max_jobs;      /* waiting, running and kept; 0: 256 */
    size_t max_bytes;  /* of kept answers; 0: 64 MiB */
    int keep_seconds;  /* a finished job is kept so long; 0: 600 */
} tt_jobs_options;

tt_status tt_jobs_open(tt_jobs **out, const tt_jobs_options *o, tt_err *e);
/* Cancels what runs. Before the engine closes. NULL is fine. */
void tt_jobs_close(tt_jobs *j);

/* Submits the work and answers with its state, or refuses it. The work is the table's from here on,
 * whatever happens. who: whose job it is, see tt_call. */
void tt_jobs_take(tt_jobs *j, tt_work *w, uint64_t who, tt_reply *r);
/* Jobs that have not finished. */
int tt_jobs_active(tt_jobs *j);

#endif
