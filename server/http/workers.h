/* workers.h - a few threads for work too long for the HTTP thread: reading and tokenizing large
 * bodies. First come, first served. */
#ifndef TT_WORKERS_H
#define TT_WORKERS_H

#include <stdbool.h>

#include "kernels/base/err.h"

typedef struct tt_workers tt_workers;

/* queue: tasks that may wait. */
tt_status tt_workers_open(tt_workers **out, int threads, int queue, tt_err *e);
void tt_workers_close(tt_workers *w); /* finishes what waits; NULL is fine */

/* False when the queue is full: then fn will not be called. */
bool tt_workers_add(tt_workers *w, void (*fn)(void *arg), void *arg);
/* Returns when nothing waits or runs. */
void tt_workers_wait(tt_workers *w);

#endif
