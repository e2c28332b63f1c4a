/* chain.h - a chain of linear layers without anything between them, folded into one: what some
 * released scoring heads are. */
#ifndef TT_CHAIN_H
#define TT_CHAIN_H

#include "models/weights.h"

/* One number from width: score = sum_i weight[i] x[i] + bias. weight is the caller's, [width].
 * The chain's layers are called PREFIX + index[i] + ".weight" and ".bias", of growing index until
 * `layers`; the last has one output. Folded in double. TT_EFORMAT naming the tensor. */
tt_status tt_chain_fold(double *weight, double *bias, int64_t width, const tt_weights *w,
                        const char *prefix, const int *index, int layers, tt_err *e);

#endif
