/* pictures.h - 8-bit pictures as the networks of verifiers see them. */
#ifndef TT_VERIFY_PICTURES_H
#define TT_VERIFY_PICTURES_H

#include "samplers/verifier.h"

/* n x 3 x side x side: the shorter side scaled, the middle cut out, normalised. To be freed; NULL
 * with the reason in *e. */
float *tt_verify_planes(const tt_exhibit *x, int32_t n, int32_t side, const float mean[3],
                        const float deviation[3], tt_err *e);

#endif
