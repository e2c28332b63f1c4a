/* fsq.h - finite scalar quantisation (arXiv 2309.15505): every number of a token is rounded to one
 * of a few levels; together they are a code. No weights. */
#ifndef TT_FSQ_H
#define TT_FSQ_H

#include <stdint.h>

#include "models/config.h"

/* With more levels the bound's factor of 1.001 would reach one that is not there. */
enum { TT_FSQ_DIMS = 16, TT_FSQ_LEVELS = 1000 };

typedef struct {
    int32_t dims, level[TT_FSQ_DIMS];
    int32_t codes;               /* product of the levels */
    double half[TT_FSQ_DIMS], off[TT_FSQ_DIMS], shift[TT_FSQ_DIMS];
} tt_fsq;

/* TT_EFORMAT for levels outside 2..TT_FSQ_LEVELS, none or too many of them, or more than 2^31
 * codes. */
tt_status tt_fsq_open(tt_fsq *f, const int32_t *level, int32_t dims, tt_err *e);

/* tanh(z + shift) half - off: what is rounded. bounded: dims. */
void tt_fsq_bound(const tt_fsq *f, float *bounded, const float *z);
/* The code of z: dims numbers. */
int32_t tt_fsq_code(const tt_fsq *f, const float *z);
/* The numbers of a code, in [-1, 1]. out: dims. */
void tt_fsq_lookup(const tt_fsq *f, float *out, int32_t code);

/* From the list of levels under a key of a config. TT_EFORMAT naming it. */
tt_status tt_fsq_read(tt_fsq *f, tt_config *c, const char *key, tt_err *e);
/* The code `share` in [0, 1] of the way from a to b, dimension by dimension; halves go up. */
int32_t tt_fsq_mix(const tt_fsq *f, int32_t a, int32_t b, double share);
/* Squared distances, before rounding and in levels, to the code of z and to the one that would be
 * next. */
void tt_fsq_gap(const tt_fsq *f, float *nearest, float *second, const float *z);

#endif
