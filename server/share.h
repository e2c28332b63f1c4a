/* share.h - whose turn it is on the device: models share its time, not its passes.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights: of the models that wait,
 * the one that has used least time goes next; a model that was idle begins level with the others
 * and has no claim on time it did not ask for. So a pass of many images does not hold up texts for
 * longer than itself, and streams of short passes do not keep a long one out. One thread. */
#ifndef TT_SHARE_H
#define TT_SHARE_H

#include <stdbool.h>

enum { TT_MAX_LANES = 64 };

typedef struct {
    const void *model;
    double used;        /* seconds, on the clock below */
    bool waits, waited; /* this turn, and the turn before */
} tt_lane;

/* Zero is the start state. */
typedef struct {
    tt_lane lane[TT_MAX_LANES];
    int lanes;
    double clock; /* where the lane that was served last began */
} tt_share;

void tt_share_begin(tt_share *s);                     /* a new turn: nobody waits */
void tt_share_waits(tt_share *s, const void *model);  /* this one does; may be said often */
const void *tt_share_next(tt_share *s);               /* whose turn it is; NULL when nobody waits */
int tt_share_waiting(const tt_share *s);              /* models that wait */
void tt_share_took(tt_share *s, const void *model, double seconds);

#endif
