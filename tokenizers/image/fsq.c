/* fsq.c - see fsq.h. */
#include "tokenizers/image/fsq.h"

#include <math.h>

tt_status tt_fsq_open(tt_fsq *f, const int32_t *level, int32_t dims, tt_err *e)
{
    if (dims < 1 || dims > TT_FSQ_DIMS)
        return tt_fail(e, TT_EFORMAT, "%d levels; 1 to %d are possible", dims, TT_FSQ_DIMS);
    *f = (tt_fsq){.dims = dims, .codes = 1};
    for (int32_t i = 0; i < dims; i++) {
        if (level[i] < 2 || level[i] > TT_FSQ_LEVELS ||
            __builtin_mul_overflow(f->codes, level[i], &f->codes))
            return tt_fail(e, TT_EFORMAT, "level %d is %d: no finite scalar quantiser", i,
                           level[i]);
        f->level[i] = level[i];
        f->half[i] = (level[i] - 1) * 1.001 / 2;
        f->off[i] = level[i] % 2 ? 0 : 0.5;
        f->shift[i] = atanh(f->off[i] / f->half[i]);
    }
    return TT_OK;
}

void tt_fsq_bound(const tt_fsq *f, float *bounded, const float *z)
{
    for (int32_t i = 0; i < f->dims; i++)
        bounded[i] = (float)(tanh(z[i] + f->shift[i]) * f->half[i] - f->off[i]);
}

int32_t tt_fsq_code(const tt_fsq *f, const float *z)
{
    float bounded[TT_FSQ_DIMS];
    int32_t code = 0, basis = 1;
    tt_fsq_bound(f, bounded, z);
    for (int32_t i = 0; i < f->dims; i++) {
        /* NaN cannot be rounded; it counts as the middle. */
        int32_t step = isnan(bounded[i]) ? 0 : (int32_t)nearbyintf(bounded[i]);
        code += (step + f->level[i] / 2) * basis;
        basis *= f->level[i];
    }
    return code;
}

void tt_fsq_lookup(const tt_fsq *f, float *out, int32_t code)
{
    for (int32_t i = 0; i < f->dims; i++) {
        int32_t half = f->level[i] / 2;
        out[i] = (float)(code % f->level[i] - half) / (float)half;
        code /= f->level[i];
    }
}

tt_status tt_fsq_read(tt_fsq *f, tt_config *c, const char *key, tt_err *e)
{
    int32_t level[TT_FSQ_DIMS + 1], n = 0;
    while (n <= TT_FSQ_DIMS) {
        int64_t l = tt_config_int_at(c, key, n, 0, 0, 1 << 16);
        if (!l)
            break;
        level[n++] = (int32_t)l;
    }
    tt_status s = tt_config_status(c, e);
    if (!s)
        s = tt_fsq_open(f, level, n, e);
    return s ? tt_context(e, s, "config key '%.40s'", key) : TT_OK;
}

int32_t tt_fsq_mix(const tt_fsq *f, int32_t a, int32_t b, double share)
{
    int32_t code = 0, basis = 1;
    for (int32_t i = 0; i < f->dims; i++) {
        int32_t l = f->level[i], from = a % l, to = b % l;
        code += (int32_t)floor(from + share * (to - from) + 0.5) * basis;
        basis *= l;
        a /= l;
        b /= l;
    }
    return code;
}

void tt_fsq_gap(const tt_fsq *f, float *nearest, float *second, const float *z)
{
    float bounded[TT_FSQ_DIMS];
    double here = 0, least = INFINITY;
    tt_fsq_bound(f, bounded, z);
    for (int32_t i = 0; i < f->dims; i++) {
        double off = fabs(bounded[i] - nearbyintf(bounded[i]));
        here += off * off;
        least = fmin(least, 1 - 2 * off); /* (1 - off)^2 - off^2 */
    }
    *nearest = (float)here;
    *second = (float)(here + least);
}
