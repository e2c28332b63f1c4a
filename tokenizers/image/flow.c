/* flow.c - see flow.h. */
#include "tokenizers/image/flow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/rng.h"

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

/* --- a picture --- */

tt_status tt_flow_open(tt_flow *f, const tt_painting *how, int64_t n, tt_err *e)
{
    size_t bytes = (size_t)n * sizeof(float);
    *f = (tt_flow){.how = *how, .n = n, .calls = tt_flow_calls(how->solver, how->steps),
                   .guided = how->guidance != 0 && how->guidance != 1};
    f->x = malloc(bytes);
    f->probe = malloc(bytes);
    f->v = malloc(bytes);
    f->along = calloc(1, bytes);
    f->u = f->guided ? malloc(bytes) : NULL;
    f->running = f->guided ? calloc(1, bytes) : NULL;
    if (!f->x || !f->probe || !f->v || !f->along || (f->guided && (!f->u || !f->running)))
        return tt_fail(e, TT_ENOMEM, "no memory to paint a picture");
    if (how->noise)
        memcpy(f->x, how->noise, bytes);
    else
        tt_flow_noise(f->x, n, how->seed, how->sample, 0);
    f->how.noise = NULL;
    return TT_OK;
}

void tt_flow_close(tt_flow *f)
{
    float *all[] = {f->x, f->probe, f->v, f->u, f->along, f->running};
    for (int i = 0; i < 6; i++)
        free(all[i]);
    *f = (tt_flow){.n = 0};
}

double tt_flow_now(const tt_flow *f)
{
    return tt_flow_time(f->how.solver, f->how.steps, f->call);
}

void tt_flow_begin(tt_flow *f)
{
    tt_flow_probe(f->how.solver, f->how.steps, f->call, f->probe, f->x, f->along, f->n);
}

void tt_flow_end(tt_flow *f)
{
    tt_apg apg = {f->running, f->how.guidance, f->how.momentum, 2.5};
    memcpy(f->along, f->v, (size_t)f->n * sizeof *f->v);
    if (f->guided && !f->how.plain)
        tt_apg_guide(&apg, f->along, f->u, f->n);
    for (int64_t i = 0; i < f->n && f->guided && f->how.plain; i++)
        f->along[i] = f->u[i] + (float)f->how.guidance * (f->v[i] - f->u[i]);
    tt_flow_move(f->how.solver, f->how.steps, f->call, f->x, f->along, f->n);
    f->call++;
}

/* By Box and Muller. */
void tt_flow_noise(float *out, int64_t n, uint64_t seed, uint32_t sample, uint32_t step)
{
    tt_rng_address at = {.seed = seed, .sample = sample, .step = step};
    for (int64_t i = 0; i < n; i += 4) {
        tt_rng_block b = tt_rng_at(at, (uint32_t)(i / 4));
        for (int k = 0; k < 4 && i + k < n; k += 2) {
            double r = sqrt(-2 * log((b.v[k] + 0.5) * 0x1p-32));
            double angle = 6.283185307179586 * (b.v[k + 1] + 0.5) * 0x1p-32;
            out[i + k] = (float)(r * cos(angle));
            if (i + k + 1 < n)
                out[i + k + 1] = (float)(r * sin(angle));
        }
    }
}
