/* pool.h - worker threads for parallel loops inside one operation.
 *
 * The calling thread takes part, so a pool of 1 has no thread of its own. Between loops workers
 * look for the next one for some microseconds, then sleep. One loop at a time per pool; the owner
 * is the engine thread. How a loop is cut never changes a result: operations give every row to
 * exactly one task. */
#ifndef TT_POOL_H
#define TT_POOL_H

#include <stdint.h>

#include "kernels/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tt_pool tt_pool;

/* threads: at least 1, the caller included. */
tt_status tt_pool_open(tt_pool **out, int threads, tt_err *e);
void tt_pool_close(tt_pool *p); /* NULL is fine */
int tt_pool_threads(const tt_pool *p); /* NULL counts as 1 */

/* Calls fn(arg, i, thread) for every i in [0, n), spread over the threads; returns when all are
 * done. thread is in [0, tt_pool_threads) and tells scratch areas apart. p may be NULL: plain
 * loop. */
void tt_pool_run(tt_pool *p, int64_t n, void (*fn)(void *arg, int64_t i, int thread), void *arg);

#ifdef __cplusplus
}
#endif

#endif
