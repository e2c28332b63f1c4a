/* metrics.h - what the server counts, as Prometheus text (exposition format 0.0.4).
 *
 * Two kinds of numbers: those of the engine, read when asked, and those of requests, added here
 * when a request ends. Every request metric has a tutti_ name; those for which vLLM has a name
 * carry that as well, so that its dashboards work. Thread-safe. */
#ifndef TT_METRICS_H
#define TT_METRICS_H

#include "kernels/base/buf.h"
#include "server/engine.h"

typedef struct tt_metrics tt_metrics;

/* vllm_names: also write the names of vLLM. */
tt_status tt_metrics_open(tt_metrics **out, bool vllm_names, tt_err *e);
void tt_metrics_close(tt_metrics *m); /* NULL is fine */

/* One finished generation request. Times in seconds since it arrived; negative: did not happen. */
typedef struct {
    const char *model;
    double first_draft, first_text, end_to_end, queue, run;
    int64_t prompt_tokens, generation_tokens, nfe;
    int64_t candidates; /* of its search */
    int64_t finished[TT_FINISH_ERROR + 1]; /* choices by how they ended */
} tt_request_record;

void tt_metrics_request(tt_metrics *m, const tt_request_record *r);
/* Committed text was sent `seconds` after the one before it, with so many tokens. */
void tt_metrics_emission(tt_metrics *m, const char *model, double seconds, int64_t tokens);
/* An answer left; handler is the route's path. */
void tt_metrics_http(tt_metrics *m, const char *handler, const char *method, int status,
                     double seconds);
/* reason: "client", "deadline", "shutdown". */
void tt_metrics_cancelled(tt_metrics *m, const char *reason);

/* Everything as text. The engine may be NULL. */
void tt_metrics_write(tt_metrics *m, tt_engine *g, const char *version, tt_buf *out);

#endif
