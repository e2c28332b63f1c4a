/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel Random Numbers:
 * As Easy as 1, 2, 3", SC 2011), and the Gumbel noise the samplers draw from it.
 *
 * A number is a pure function of its address: (seed, sample, step, position, index). It does not
 * depend on which other numbers were drawn, so a request gives the same tokens whatever shares
 * its batch. key = seed; counter = {index / 4, position, step, sample}; lane = index % 4.
 * Shared by C and CUDA: everything is integer arithmetic or explicit fused multiply-adds, so
 * every backend gets the same bits. */
#ifndef TT_RNG_H
#define TT_RNG_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define TT_RNG_FN static inline __host__ __device__
#else
#define TT_RNG_FN static inline
#endif

typedef struct {
    uint64_t seed;
    uint32_t sample;   /* which of the n completions of a request */
    uint32_t step;     /* sampler step */
    uint32_t position; /* canvas column */
} tt_rng_address;

typedef struct {
    uint32_t v[4];
} tt_rng_block;

TT_RNG_FN tt_rng_block tt_philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    tt_rng_block b = {{c0, c1, c2, c3}};
    return b;
}

/* The four numbers at indexes 4*block .. 4*block+3 of an address. */
TT_RNG_FN tt_rng_block tt_rng_at(tt_rng_address a, uint32_t block)
{
    return tt_philox(a.seed, block, a.position, a.step, a.sample);
}

/* 24-bit uniform in [0,1). */
TT_RNG_FN float tt_uniform(uint32_t x) { return (float)(x >> 8) * 0x1p-24f; }

/* Natural logarithm of a positive normal float, by a degree-8 polynomial after reduction to
 * [sqrt(1/2), sqrt(2)); relative error below 2e-7. Fixed order of fused operations. */
TT_RNG_FN float tt_logf_fixed(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t shifted = bits - 0x3F3504F3u; /* bits of sqrt(1/2) */
    int32_t e = (int32_t)shifted >> 23;
    bits = (shifted & 0x007FFFFFu) + 0x3F3504F3u;
    float m;
    memcpy(&m, &bits, 4);
    float f = m - 1.0f, p = 7.0376836292e-2f;
    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    float f2 = f * f, r = p * f * f2;
    float fe = (float)e;
    r = fmaf(fe, -2.12194440e-4f, r);
    r = fmaf(-0.5f, f2, r);
    r = r + f;
    return fmaf(fe, 0.693359375f, r);
}

/* Standard Gumbel noise -ln(-ln u), u = (x + 1/2) / 2^32 strictly inside (0,1).
 * Near u = 1, -ln u is taken as (1 - u) + (1 - u)^2 / 2, so that the upper tail (which decides
 * draws) keeps its resolution. */
TT_RNG_FN float tt_gumbel(uint32_t x)
{
    float minus_log_u;
    if (x >= 0xFFF00000u) { /* 1 - u < 2^-12: the next term is below 2^-36 / 3 */
        float d = ((float)(0xFFFFFFFFu - x) + 0.5f) * 0x1p-32f;
        minus_log_u = fmaf(0.5f * d, d, d);
    } else {
        minus_log_u = -tt_logf_fixed(((float)x + 0.5f) * 0x1p-32f);
    }
    return -tt_logf_fixed(minus_log_u);
}

#endif
