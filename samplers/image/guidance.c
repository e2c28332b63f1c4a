/* guidance.c - see guidance.h. The small constants are the released code's. */
#include "samplers/image/guidance.h"

#include <math.h>

/* The released code adds this to ramps, and takes 1.0001 for a least scale of 1, so that its
 * second branch is never left out. */
static const double trace = 1e-4, pi = 3.14159265358979323846;

double tt_guidance_at(const tt_guidance *s, double g, double ratio)
{
    double least = s->least == 1 ? 1 + trace : s->least;
    switch (s->kind) {
    case TT_GUIDE_CONSTANT:
        return g;
    case TT_GUIDE_LINEAR:
        return 1 + (g - 1) * ratio + trace;
    case TT_GUIDE_LINEAR_DOWN:
        return 1 + (g - 1) * (1 - ratio) + trace;
    case TT_GUIDE_LINEAR_CONSTANT:
        return ratio < s->peak ? 1 + (g - 1) * ratio / s->peak : g;
    case TT_GUIDE_TRIANGULAR:
        return 1 + (g - 1) * (ratio < s->peak ? ratio / s->peak : (1 - ratio) / (1 - s->peak)) +
               trace;
    case TT_GUIDE_RECTANGULAR:
        return ratio >= s->begin && ratio <= s->end ? g : least;
    case TT_GUIDE_STEP:
        return ratio >= s->begin ? g : least;
    case TT_GUIDE_COSINE:
        return 1 + (g - 1) * (1 - cos(pi * ratio)) / 2;
    case TT_GUIDE_COSINE_DOWN:
        return 1 + (g - 1) * (1 + cos(pi * ratio)) / 2;
    }
    return g;
}
