/* random.h - numbers for models without a checkpoint: views into one shared block.
 *
 * A model of 16 GB then needs host memory for its largest tensor alone. What a name reads is a
 * function of name and length only, whatever was asked for before. */
#ifndef TT_RANDOM_H
#define TT_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct tt_random tt_random;

tt_status tt_random_open(tt_random **out, tt_err *e);
void tt_random_close(tt_random *r); /* NULL is fine; ends all views */

/* count bfloat16 numbers, 64-byte aligned: uniform with a standard deviation of 0.02, as initial
 * weights have it; near_one: around 1 instead, for gains of norms. Names differ in where their
 * view begins. TT_ENOMEM. */
tt_status tt_random_view(tt_random *r, const uint16_t **out, const char *name, int64_t count,
                         bool near_one, tt_err *e);

#endif
