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
static inline void v_store_part(float *p, vf a, int64_t n)
{
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

/* High and low words of the products of unsigned lanes. */
static inline void v_mul_wide(vi a, vi b, vi *high, vi *low)
{
    vi even = _mm512_mul_epu32(a, b);
    vi odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
    *high = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
    *low = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}

/* For interleave(): lane i of the four inputs holds block number v_lane_block[i]. */
static inline vi v_lane_block(void)
{
    return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}
/* v[w] holds word w of the blocks; afterwards v[0], v[1], ... hold all words in block order. */
static inline void v_interleave(vi v[4])
{
    vi a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    vi c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(a, c);
    v[1] = _mm512_unpackhi_epi64(a, c);
    v[2] = _mm512_unpacklo_epi64(b, d);
    v[3] = _mm512_unpackhi_epi64(b, d);
}

#endif
