/* scorer.h - verifiers that are programs of the operator's, asked over HTTP.
 *
 * Only addresses named when the server starts are ever called (--verifier-http NAME=URL). The
 * question is a POST of JSON, {"prompt", "candidates": [{"b64_json" or "text", "tokens",
 * "logprob"}]}; the answer {"scores": [number or null, ...]}, one per candidate. Every question has
 * a thread of its own and one time limit for all of it, so a slow program delays its own request
 * alone. */
#ifndef TT_SCORER_H
#define TT_SCORER_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

typedef struct {
    char name[64], host[256], path[512];
    struct sockaddr_storage address; /* resolved when it was opened */
    socklen_t address_bytes;
    int timeout_ms;
} tt_scorer;

/* text: NAME=http://HOST[:PORT][/PATH]. TT_EINVAL saying what is wrong, TT_EIO when the host has
 * no address. */
tt_status tt_scorer_open(tt_scorer *out, const char *text, int timeout_ms, tt_err *e);

typedef struct tt_scoring tt_scoring;

/* What is asked: write() appends the JSON, on the question's thread; drop() frees arg. */
typedef struct {
    void (*write)(const void *arg, tt_buf *out);
    void (*drop)(void *arg);
    void *arg;
} tt_question;

/* Takes the question over, also when it fails. n: candidates. wake(arg), which may be NULL, is
 * called on another thread when the answer is there. */
tt_status tt_scoring_begin(tt_scoring **out, const tt_scorer *s, const tt_question *q, int32_t n,
                           void (*wake)(void *arg), void *arg, tt_err *e);
bool tt_scoring_done(tt_scoring *s);
/* After that: n scores, NaN for null. TT_EIO, code "verifier_failed". */
tt_status tt_scoring_take(tt_scoring *s, float *score, tt_err *e);
/* Gives up waiting if need be; wake is not called afterwards. NULL is fine. */
void tt_scoring_end(tt_scoring *s);

#endif
