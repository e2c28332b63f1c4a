/* operand_bf16.h - tile.h's operand: a bfloat16, multiplied in pairs by AVX512-BF16. The
 * instruction treats subnormal numbers as zero. */
#ifndef TT_CPU_OPERAND_BF16_H
#define TT_CPU_OPERAND_BF16_H

#include <string.h>

enum { DEPTH = 2 };
typedef uint16_t operand;
typedef __m512bh op_vec;

static inline op_vec op_load(const operand *p)
{
    return (op_vec)_mm512_loadu_si512(p);
}
static inline op_vec op_spread(const operand *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (op_vec)_mm512_set1_epi32(pair);
}
static inline vf op_mac(vf sum, op_vec a, op_vec b)
{
    return _mm512_dpbf16_ps(sum, a, b);
}

static inline void op_store(operand *out, vf a, bool round, int64_t n)
{
    (void)round;
    __m256i b = (__m256i)_mm512_cvtneps_pbh(a);
    if (n >= LANES)
        _mm256_storeu_si256((__m256i *)out, b);
    else
        _mm256_mask_storeu_epi16(out, v_first(n), b);
}

static inline void op_store2(operand *out, vf a, vf b, bool round)
{
    (void)round;
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(b, a));
}

/* 2^x to 1e-4 of its value, for the result is rounded to 8 bits next: a cubic in the fraction
 * above floor(x). */
static inline vf op_exp2(vf x)
{
    vf f = v_fraction(x);
    vf p = v_fma(v_set(0x1.3f987ep-4f), f, v_set(0x1.cefb26p-3f));
    p = v_fma(p, f, v_set(0x1.644460p-1f));
    return v_scale_floor(v_fma(p, f, v_set(0x1.fff632p-1f)), x);
}

static inline vi op_words(const float *x, int64_t n, bool round)
{
    (void)round;
    return (vi)_mm512_cvtne2ps_pbh(v_load_part(x + LANES, n - LANES), v_load_part(x, n));
}

static inline void op_weave(operand *out, const float *const row[DEPTH], int64_t n, bool round)
{
    (void)round;
    for (int64_t i = 0; i < n; i += LANES) {
        __m256i a = (__m256i)_mm512_cvtneps_pbh(v_load_part(row[0] + i, n - i));
        __m256i b = (__m256i)_mm512_cvtneps_pbh(v_load_part(row[1] + i, n - i));
        __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(a),
                                        _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
        if (n - i >= LANES)
            _mm512_storeu_si512(out + DEPTH * i, pairs);
        else
            _mm512_mask_storeu_epi32(out + DEPTH * i, v_first(n - i), pairs);
    }
}

#endif
