/* timestep.h - sinusoidal embedding of a time or noise level (arXiv 2006.11239), as diffusion
 * transformers use it. */
#ifndef TT_TIMESTEP_H
#define TT_TIMESTEP_H

#include <stdint.h>

/* out[i] = cos(t f_i), out[dim / 2 + i] = sin(t f_i) with f_i = 10000^(-2 i / dim), i < dim / 2;
 * dim is even. */
void tt_timestep_embedding(float *out, float t, int64_t dim);

#endif
