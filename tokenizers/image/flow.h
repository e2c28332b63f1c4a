/* flow.h - decoding by flow matching: steps along a velocity field, and guidance of the velocity.
 *
 * Adaptive projected guidance (APG, arXiv 2410.02416): the difference of the guided and the
 * unguided velocity is smoothed over the calls, limited in length, and its part along the guided
 * velocity is dropped. */
#ifndef TT_FLOW_H
#define TT_FLOW_H

#include <stddef.h>
#include <stdint.h>

/* One sample's guidance: n numbers. */
typedef struct {
    float *running; /* n, zero at first */
    double scale;   /* 1: none */
    double momentum;
    double longest; /* length of the difference at most: 2.5 */
} tt_apg;

/* v becomes the guided velocity; u: the unguided one. */
void tt_apg_guide(tt_apg *g, float *v, const float *u, int64_t n);

typedef enum { TT_FLOW_EULER, TT_FLOW_MIDPOINT } tt_flow_solver;

/* Where call `call` of `steps` steps is evaluated, in [0, 1]; a midpoint step has two. */
double tt_flow_time(tt_flow_solver solver, int32_t steps, int32_t call);
/* Network evaluations in all. */
int32_t tt_flow_calls(tt_flow_solver solver, int32_t steps);
/* Where the network is evaluated: at x, or for the second half of a midpoint step at
 * x + v dt / 2, v the velocity of the first. out: n. */
void tt_flow_probe(tt_flow_solver solver, int32_t steps, int32_t call, float *out, const float *x,
                   const float *v, int64_t n);
/* x after a call whose velocity is v: moved by v dt where a step ends. */
void tt_flow_move(tt_flow_solver solver, int32_t steps, int32_t call, float *x, const float *v,
                  int64_t n);

#endif
