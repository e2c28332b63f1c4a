/* timestep.c - see timestep.h. */
#include "models/nn/timestep.h"

#include <math.h>

void tt_timestep_embedding(float *out, float t, int64_t dim)
{
    int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float angle = t * (float)exp(-log(10000) * (double)i / (double)half);
        out[i] = (float)cos((double)angle);
        out[half + i] = (float)sin((double)angle);
    }
}
