/* fake_engine.h - a double of the engine for tests of the API and the HTTP server.
 *
 * Implements server/engine.h without a model: a thread fills the open columns of every job with
 * the bytes of a script, one column per sample and step, in a chosen order. Tests link it instead
 * of engine.o. The tokenizer is tiny_tok.h's: an id is a byte. */
#ifndef TT_FAKE_ENGINE_H
#define TT_FAKE_ENGINE_H

#include <stdatomic.h>

#include "server/engine.h"

typedef struct {
    _Atomic(const char *) script; /* written over and over; byte \x01 stands for the stop id */
    atomic_int step_us;           /* pause between steps */
    atomic_bool backwards;        /* last column first */
    atomic_bool paused;           /* no steps; cancelling still works */
    atomic_int busy;              /* so many submits answer TT_EBUSY */
    atomic_bool fail;             /* jobs end as TT_FINISH_ERROR */
    atomic_bool uneven;           /* of five samples the likeliest are 0, 2, 4, 1, 3 */
    atomic_int jobs, cancelled, stopped; /* counted */
    atomic_int live;              /* jobs not yet released */
    int32_t prompt, columns;      /* of the last job submitted */
    bool stop_early, ban_stops;
    bool shrink;
    int32_t n_bias, samples, rules, negatives;
    int continued; /* jobs that went on with a request */
    uint64_t seed;
} tt_fake;

extern tt_fake tt_fake_engine;

#endif
