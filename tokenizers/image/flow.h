/* flow.h - decoding by flow matching: steps along a velocity field, and guidance of the velocity.
 *
 * Adaptive projected guidance (APG, arXiv 2410.02416): the difference of the guided and the
 * unguided velocity is smoothed over the calls, limited in length, and its part along the guided
 * velocity is dropped. */
#ifndef TT_FLOW_H
#define TT_FLOW_H

#include "tokenizers/image.h"

/* One sample's guidance: n numbers. */
typedef struct {
    float *running; /* n, zero at first */
    double scale;   /* 1: none */
    double momentum;
    double longest; /* length of the difference at most: 2.5 */
} tt_apg;

/* v becomes the guided velocity; u: the unguided one. */
void tt_apg_guide(tt_apg *g, float *v, const float *u, int64_t n);

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

/* A picture being painted: n numbers move from noise along velocities. Per call: tt_flow_begin()
 * fills probe, where the network is asked for v and, when guided, u (without the message);
 * tt_flow_end() moves x. */
typedef struct {
    tt_painting how;
    int64_t n;
    int32_t call, calls; /* done and in all */
    bool guided;
    float *x, *probe, *v, *u; /* n each; u NULL where not guided */
    float *along, *running;   /* the velocity followed; of guidance */
} tt_flow;

/* TT_ENOMEM; closing is then still due. */
tt_status tt_flow_open(tt_flow *f, const tt_painting *how, int64_t n, tt_err *e);
void tt_flow_close(tt_flow *f);
/* Where in time the network is asked now, in [0, 1). */
double tt_flow_now(const tt_flow *f);
void tt_flow_begin(tt_flow *f);
void tt_flow_end(tt_flow *f);

/* n standard normal numbers of a (seed, sample, step). */
void tt_flow_noise(float *out, int64_t n, uint64_t seed, uint32_t sample, uint32_t step);

#endif
