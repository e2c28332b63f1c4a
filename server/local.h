/* local.h - the REST interface without the network, for commands that answer from this process.
 *
 * generate and batch build the same request bodies an HTTP client would send and hand them to
 * server/api, so a request means the same wherever it comes from. */
#ifndef TT_LOCAL_H
#define TT_LOCAL_H

#include <pthread.h>

#include "server/api/gen.h"
#include "server/options.h"

typedef struct {
    tt_engine *engine;
    tt_metrics *metrics;
    const tt_served *served; /* the first model */
    tt_api api;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    uint64_t wakes;
} tt_local;

/* Opens an engine with the model, and the guide if not NULL, and an interface to it.
 * tt_local_close() in any case. */
tt_status tt_local_open(tt_local *l, const tt_model_place *place, const tt_model_place *guide,
                        const tt_engine_args *a, tt_err *e);
void tt_local_close(tt_local *l);

/* For tt_gen_submit(): tt_local_wake(l) ends the tt_local_wait() of another thread. */
void tt_local_wake(void *l);
/* Waits until there was a wake that *seen does not count yet, or timeout_ms passed (-1: no
 * limit), and brings *seen up to date. */
void tt_local_wait(tt_local *l, uint64_t *seen, int64_t timeout_ms);

#endif
