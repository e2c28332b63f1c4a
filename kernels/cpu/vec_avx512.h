/* vec_avx512.h - the words wide.h is written in, sixteen floats at a time.
 *
 * "part" versions touch only the first n lanes (all of them when n >= LANES); loads put zero into
 * the others. */
#ifndef TT_CPU_VEC_AVX512_H
#define TT_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANES = 16 };

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vm v_first(int64_t n)
{
    return n >= LANES ? (vm)-1 : n <= 0 ? 0 : (vm)((1u << n) - 1);
}

static inline vf v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline vf v_load_part(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(v_first(n), p);
}
static inline void v_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
/* Masked stores are slow on some processors even with a full mask. */
static inline void v_store_part(float *p, vf a, int64_t n)
{
    if (n >= LANES)
        _mm512_storeu_ps(p, a);
    else
        _mm512_mask_storeu_ps(p, v_first(n), a);
}

static inline vf v_count(void) /* 0, 1, 2, ... */
{
    return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline vf v_set(float a)
{
    return _mm512_set1_ps(a);
}
static inline vf v_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf v_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf v_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf v_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* b when either is NaN. */
static inline vf v_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf v_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf v_round(vf a)
{
    return _mm512_roundscale_ps(a, 8);
}
/* a 2^n, n integral; overflows to infinity, underflows gradually */
static inline vf v_scale2(vf a, vf n)
{
    return _mm512_scalef_ps(a, n);
}

/* a - floor(a), and p 2^floor(a): together 2^a for a p near 2^fraction. */
static inline vf v_fraction(vf a)
{
    return _mm512_reduce_ps(a, 9);
}
static inline vf v_scale_floor(vf p, vf a)
{
    return _mm512_scalef_ps(p, a);
}

static inline vm v_gt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline vm v_ge(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vm v_differs(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ);
}
static inline bool v_any(vm m)
{
    return m != 0;
}
static inline unsigned v_bits(vm m)
{
    return m;
}
static inline vm v_or(vm a, vm b)
{
    return (vm)(a | b);
}
static inline vf v_pick(vm m, vf yes, vf no)
{
    return _mm512_mask_mov_ps(no, m, yes);
}
static inline vi v_picki(vm m, vi yes, vi no)
{
    return _mm512_mask_mov_epi32(no, m, yes);
}

static inline vi v_seti(int32_t a)
{
    return _mm512_set1_epi32(a);
}
static inline vi v_addi(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}
static inline vi v_subi(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}
static inline vi v_andi(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}
static inline vi v_xori(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}
#define v_shr(a, n) _mm512_srli_epi32((a), (n)) /* shifts in zeros */
#define v_sar(a, n) _mm512_srai_epi32((a), (n)) /* shifts in the sign */
#define v_shl(a, n) _mm512_slli_epi32((a), (n))
static inline vm v_gti(vi a, vi b)
{
    return _mm512_cmpgt_epi32_mask(a, b);
}
static inline vf v_float(vi a)
{
    return _mm512_cvtepi32_ps(a);
}
static inline vf v_floatu(vi a)
{
    return _mm512_cvtepu32_ps(a);
}
static inline vi v_int(vf a)
{
    return _mm512_cvttps_epi32(a);
}
static inline vf v_as_float(vi a)
{
    return _mm512_castsi512_ps(a);
}
static inline vi v_as_int(vf a)
{
    return _mm512_castps_si512(a);
}
static inline void v_storei(int32_t *p, vi a)
{
    _mm512_storeu_si512(p, a);
}

/* Sums and maxima over the lanes, always in the same order. */
static inline float v_sum(vf a)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float v_top(vf a)
{
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

/* --- for random numbers: 64-bit lanes, of which only the low words count --- */

static inline vi v_mul_low(vi a, vi b)
{
    return _mm512_mul_epu32(a, b);
} /* 64-bit products */
static inline vi v_high(vi a)
{
    return _mm512_srli_epi64(a, 32);
}
static inline vi v_xor3(vi a, vi b, vi c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0x96);
}
/* The low word of c, which numbers a block, in the order v_join wants. */
static inline vi v_block_numbers(void)
{
    return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
}
/* Words 0 to 3 of LANES / 2 blocks become 2 * LANES words in block order. */
static inline void v_join(const vi word[4], vi out[2])
{
    vi a = _mm512_mask_blend_epi32(0xAAAA, word[0], _mm512_slli_epi64(word[1], 32));
    vi b = _mm512_mask_blend_epi32(0xAAAA, word[2], _mm512_slli_epi64(word[3], 32));
    out[0] = _mm512_unpacklo_epi64(a, b);
    out[1] = _mm512_unpackhi_epi64(a, b);
}
static inline vm v_ge_unsigned(vi a, uint32_t b)
{
    return _mm512_cmpge_epu32_mask(a, _mm512_set1_epi32((int32_t)b));
}

/* Lane j of r[i] becomes lane i of r[j]. */
static inline void v_transpose(vi r[LANES])
{
    vi t[LANES];
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
        /* r[4g + c] now holds column c of every quarter for the rows of group g. */
#pragma GCC unroll 8
    for (int c = 0; c < 4; c++) {
        vi a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
        vi b = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        vi d = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xDD);
        vi e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xDD);
        t[c] = _mm512_shuffle_i32x4(a, b, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, b, 0xDD);
        t[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(d, e, 0xDD);
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        r[i] = t[i];
}

#endif
