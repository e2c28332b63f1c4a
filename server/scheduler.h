/* scheduler.h - the step loop of one device; the engine's thread runs it.
 *
 * Every turn: drop what was cancelled or ran out of time, admit queued jobs while sequences and
 * memory allow, plan, pick the model whose turn it is (share.h) and of its runs those that waited
 * longest until the row budget of a pass is full, run them as one pass, publish. So a job joins or
 * leaves at any step, and none starves: a run left out of a pass is older than those that were in
 * it. A pass is one of a text model, of an image generator, or of an image codec. */
#ifndef TT_SCHEDULER_H
#define TT_SCHEDULER_H

#include "server/batcher.h"
#include "server/job.h"

typedef struct tt_scheduler tt_scheduler;

typedef struct {
    int max_queue, max_running;
    int64_t max_rows;
    size_t max_bytes;
    pthread_mutex_t *device; /* held while the device is used */
} tt_scheduler_options;

tt_status tt_scheduler_open(tt_scheduler **out, const tt_scheduler_options *o, tt_err *e);
/* Cancels everything, ends the thread. */
void tt_scheduler_close(tt_scheduler *s);
/* Takes over the engine's reference to the job. TT_EBUSY or TT_ENOMEM leave it to the caller. */
tt_status tt_scheduler_submit(tt_scheduler *s, tt_job *j, int64_t *retry_after_ms, tt_err *e);
void tt_scheduler_stats(tt_scheduler *s, tt_engine_stats *out);

#endif
