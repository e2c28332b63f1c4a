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

/* ln(1 + f) + e ln 2 for f in [sqrt(1/2) - 1, sqrt(2) - 1]: f - f^2/2 + f^3 p(f), p the minimax
 * polynomial of degree 8 (its part of the relative error is below 2e-8). Fixed order of fused
 * operations. */
TT_RNG_FN float tt_log1p_fixed(float f, float e)
{
    float p = 0x1.a957e6p-5f;
    p = fmaf(p, f, -0x1.bc3970p-4f);
    p = fmaf(p, f, 0x1.f00b74p-4f);
    p = fmaf(p, f, -0x1.0110cap-3f);
    p = fmaf(p, f, 0x1.2302f8p-3f);
    p = fmaf(p, f, -0x1.552f04p-3f);
    p = fmaf(p, f, 0x1.99a542p-3f);
    p = fmaf(p, f, -0x1.000070p-2f);
    p = fmaf(p, f, 0x1.555548p-2f);
    float f2 = f * f, r = p * f;
    r = fmaf(r, f2, e * -2.12194440e-4f); /* ln 2 in two parts, the larger exact in 9 bits */
    r = fmaf(-0.5f, f2, r);
    r = r + f;
    return fmaf(e, 0.693359375f, r);
}

/* Natural logarithm of a positive normal float; relative error below 2e-7. */
TT_RNG_FN float tt_logf_fixed(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t shifted = bits - 0x3F3504F3u; /* bits of sqrt(1/2) */
    int32_t e = (int32_t)shifted >> 23;
    bits = (shifted & 0x007FFFFFu) + 0x3F3504F3u;
    float m;
    memcpy(&m, &bits, 4);
    return tt_log1p_fixed(m - 1.0f, (float)e);
}

/* Standard Gumbel noise -ln(-ln u), u = (x + 1/2) / 2^32 strictly inside (0,1); from -3.14 to
 * 22.88. Above sqrt(1/2), ln u is taken from 1 - u, which is known exactly while u is not: the
 * upper tail decides draws. */
TT_RNG_FN float tt_gumbel(uint32_t x)
{
    float minus_log_u;
    if (x >= 0xB504F334u)
        minus_log_u = -tt_log1p_fixed(((float)(0xFFFFFFFFu - x) + 0.5f) * -0x1p-32f, 0.0f);
    else
        minus_log_u = -tt_logf_fixed(((float)x + 0.5f) * 0x1p-32f);
    return -tt_logf_fixed(minus_log_u);
}

/* Standard normal noise cut off at three standard deviations, by inversion: sqrt(2) erfinv(v) with
 * v uniform in +-erf(3 / sqrt 2). erfinv as M. Giles approximates it in single precision
 * ("Approximating the erfinv function", GPU Computing Gems 2, 2012; relative error below 4e-7); the
 * square root is correctly rounded everywhere, so the bits are too. */
TT_RNG_FN float tt_truncated_normal(uint32_t x)
{
    float v = ((float)(int32_t)(x ^ 0x80000000u) + 0.5f) * (0x1p-31f * 0.9973002f);
    float w = -tt_logf_fixed((1.0f - v) * (1.0f + v)), p;
    if (w < 5.0f) {
        w = w - 2.5f;
        p = 2.81022636e-08f;
        p = fmaf(p, w, 3.43273939e-07f);
        p = fmaf(p, w, -3.5233877e-06f);
        p = fmaf(p, w, -4.39150654e-06f);
        p = fmaf(p, w, 2.1858087e-04f);
        p = fmaf(p, w, -1.25372503e-03f);
        p = fmaf(p, w, -4.17768164e-03f);
        p = fmaf(p, w, 2.46640727e-01f);
        p = fmaf(p, w, 1.50140941f);
    } else {
        w = sqrtf(w) - 3.0f;
        p = -2.00214257e-04f;
        p = fmaf(p, w, 1.00950558e-04f);
        p = fmaf(p, w, 1.34934322e-03f);
        p = fmaf(p, w, -3.67342844e-03f);
        p = fmaf(p, w, 5.73950773e-03f);
        p = fmaf(p, w, -7.6224613e-03f);
        p = fmaf(p, w, 9.43887047e-03f);
        p = fmaf(p, w, 1.00167406f);
        p = fmaf(p, w, 2.83297682f);
    }
    return p * v * 1.41421354f;
}

#endif
