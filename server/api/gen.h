/* gen.h - one generation request from its body to its answer or its stream.
 *
 *     tt_gen_read    body -> checked request with its canvases (may take long for long texts)
 *     tt_gen_submit  hands one job per prompt to the engine
 *     then, whenever woken:
 *       tt_gen_poll + tt_gen_answer   one JSON answer, or
 *       tt_gen_frames                 what a stream has to send now
 *     tt_gen_free
 *
 * One thread at a time uses a tt_gen; only tt_gen_cancel() may be called from another one,
 * between submit and free. */
#ifndef TT_GEN_H
#define TT_GEN_H

#include "server/api/work.h"

typedef struct tt_gen tt_gen;

/* The endpoints there are. */
extern const tt_endpoint tt_endpoint_completions, tt_endpoint_chat, tt_endpoint_infill,
    tt_endpoint_fim, tt_endpoint_llama_infill, tt_endpoint_likelihood, tt_endpoint_embeddings,
    tt_endpoint_rerank, tt_endpoint_score;

/* arrived_ns: when the request came (tt_now_ns()). Fails with an error fit for tt_reply_error(). */
tt_status tt_gen_read(tt_gen **out, tt_api *api, const tt_endpoint *endpoint, const char *body,
                      size_t bytes, int64_t arrived_ns, tt_err *e);
void tt_gen_free(tt_gen *g); /* cancels what runs; NULL is fine */
/* The request as work of any kind. */
tt_work *tt_gen_work(tt_gen *g);

bool tt_gen_streams(const tt_gen *g);

/* wake(arg) is called on the engine's thread, as in tt_job_spec. TT_EBUSY sets *retry_after_ms. */
tt_status tt_gen_submit(tt_gen *g, void (*wake)(void *arg), void *arg, int64_t *retry_after_ms,
                        tt_err *e);

/* Looks at the jobs; true when the answer is complete or the request has failed. */
bool tt_gen_poll(tt_gen *g);
/* The answer or the error; after tt_gen_poll() said true. */
void tt_gen_answer(tt_gen *g, tt_reply *r);

/* Appends the frames that are due at now_ms (tt_now_ms()). True when the stream is over.
 * *again_ms: when to call again even if nothing wakes; 0: no need. */
bool tt_gen_frames(tt_gen *g, int64_t now_ms, tt_buf *out, int64_t *again_ms);

/* Makes the request fail with this error from now on (first one counts), and cancels it. */
void tt_gen_fail(tt_gen *g, const tt_err *e);
void tt_gen_cancel(tt_gen *g);

/* For metrics and the log, once it is over. */
void tt_gen_record(const tt_gen *g, tt_request_record *r);

#endif
