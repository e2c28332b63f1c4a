/* flow.c - see flow.h. */
#include "tokenizers/image/flow.h"

#include <math.h>
#include <string.h>

void tt_apg_guide(tt_apg *g, float *v, const float *u, int64_t n)
{
    double length = 0, velocity = 0, along = 0;
    if (g->scale == 1)
        return;
    for (int64_t i = 0; i < n; i++) {
        g->running[i] = (float)((v[i] - u[i]) + g->momentum * g->running[i]);
        length += (double)g->running[i] * g->running[i];
        velocity += (double)v[i] * v[i];
    }
    double limit = length > 0 ? fmin(1, g->longest / sqrt(length)) : 1;
    double unit = 1 / fmax(sqrt(velocity), 1e-12);
    for (int64_t i = 0; i < n; i++)
        along += (double)(float)(g->running[i] * limit) * (v[i] * unit);
    for (int64_t i = 0; i < n; i++)
        v[i] += (float)((g->scale - 1) *
                        ((double)(float)(g->running[i] * limit) - along * (v[i] * unit)));
}

int32_t tt_flow_calls(tt_flow_solver solver, int32_t steps)
{
    return solver == TT_FLOW_MIDPOINT ? 2 * steps : steps;
}

double tt_flow_time(tt_flow_solver solver, int32_t steps, int32_t call)
{
    return call / (double)tt_flow_calls(solver, steps);
}

void tt_flow_probe(tt_flow_solver solver, int32_t steps, int32_t call, float *out, const float *x,
                   const float *v, int64_t n)
{
    memcpy(out, x, (size_t)n * sizeof *x);
    if (solver == TT_FLOW_MIDPOINT && call % 2)
        for (int64_t i = 0; i < n; i++)
            out[i] += v[i] * (float)(0.5 / steps);
}

void tt_flow_move(tt_flow_solver solver, int32_t steps, int32_t call, float *x, const float *v,
                  int64_t n)
{
    if (solver == TT_FLOW_MIDPOINT && call % 2 == 0)
        return;
    for (int64_t i = 0; i < n; i++)
        x[i] += v[i] * (float)(1.0 / steps);
}
