/* ceilings.cuh - between the files that measure what the device reaches. */
#ifndef TT_CEILINGS_CUH
#define TT_CEILINGS_CUH

#include "kernels/cuda/cuda.h"

/* A product y = x w^T of n x n matrices on the device, row-major, without gaps. */
struct square {
    int64_t n;
    tt_compute type; /* of x and w; y is float32 for F32, else bfloat16 */
    void *x, *w, *y;
};

/* Median time of fn in seconds, by the device's clock, over about `seconds`; three runs at least,
 * after one that is not counted. */
tt_status cuda_median(cuda *c, double *time, double seconds, tt_status (*fn)(void *, tt_err *),
                      void *arg, tt_err *e);

/* Of cuBLASLt; 0 where it is not installed or does not take the product. */
double cuda_cublas_seconds(cuda *c, const square &q, double seconds);

#endif
