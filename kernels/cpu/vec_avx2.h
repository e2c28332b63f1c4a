/* vec_avx2.h - the words wide.h is written in, eight floats at a time; see vec_avx512.h. */
#ifndef TT_CPU_VEC_AVX2_H
#define TT_CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum { LANES = 8 };

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; /* all bits of a lane set or clear */

static inline __m256i v_first(int64_t n)
{
    static const int32_t window[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
    int64_t skip = n >= LANES ? 0 : n <= 0 ? LANES : LANES - n;
    return _mm256_loadu_si256((const __m256i *)(window + skip));
}

static inline vf v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline vf v_load_part(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, v_first(n));
}
static inline void v_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
static inline void v_store_part(float *p, vf a, int64_t n)
{
    if (n >= LANES)
        _mm256_storeu_ps(p, a);
    else
        _mm256_maskstore_ps(p, v_first(n), a);
}

static inline vf v_count(void)
{
    return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7);
}
static inline vf v_set(float a)
{
    return _mm256_set1_ps(a);
}
static inline vf v_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf v_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf v_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf v_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
static inline vf v_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf v_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf v_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf v_round(vf a)
{
    return _mm256_round_ps(a, 8);
}

static inline vm v_gt(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_GT_OQ);
}
static inline vm v_ge(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_GE_OQ);
}
static inline vm v_differs(vf a, vf b)
{
    return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ);
}
static inline unsigned v_bits(vm m)
{
    return (unsigned)_mm256_movemask_ps(m);
}
static inline bool v_any(vm m)
{
    return v_bits(m) != 0;
}
static inline vm v_or(vm a, vm b)
{
    return _mm256_or_ps(a, b);
}
static inline vf v_pick(vm m, vf yes, vf no)
{
    return _mm256_blendv_ps(no, yes, m);
}
static inline vi v_picki(vm m, vi yes, vi no)
{
    return _mm256_blendv_epi8(no, yes, _mm256_castps_si256(m));
}

static inline vi v_seti(int32_t a)
{
    return _mm256_set1_epi32(a);
}
static inline vi v_addi(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}
static inline vi v_subi(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}
static inline vi v_andi(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}
static inline vi v_xori(vi a, vi b)
{
    return _mm256_xor_si256(a, b);
}
#define v_shr(a, n) _mm256_srli_epi32((a), (n))
#define v_sar(a, n) _mm256_srai_epi32((a), (n))
#define v_shl(a, n) _mm256_slli_epi32((a), (n))
static inline vm v_gti(vi a, vi b)
{
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b));
}
static inline vf v_float(vi a)
{
    return _mm256_cvtepi32_ps(a);
}
static inline vi v_int(vf a)
{
    return _mm256_cvttps_epi32(a);
}
static inline vf v_as_float(vi a)
{
    return _mm256_castsi256_ps(a);
}
static inline vi v_as_int(vf a)
{
    return _mm256_castps_si256(a);
}
static inline void v_storei(int32_t *p, vi a)
{
    _mm256_storeu_si256((__m256i *)p, a);
}

/* Unsigned lanes to float, rounded once: the halves convert exactly, the sum rounds. */
static inline vf v_floatu(vi a)
{
    vf high = v_float(v_shr(a, 16)), low = v_float(v_andi(a, v_seti(0xFFFF)));
    return v_fma(high, v_set(65536.0f), low);
}

static inline vf v_scale2(vf a, vf n)
{
    /* Two factors, so that neither leaves the range of exponents while the product does. */
    n = v_min(v_set(252), v_max(v_set(-252), n));
    vi whole = v_int(n), half = v_sar(whole, 1), rest = v_subi(whole, half);
    vf first = v_as_float(v_shl(v_addi(half, v_seti(127)), 23));
    vf second = v_as_float(v_shl(v_addi(rest, v_seti(127)), 23));
    return v_mul(v_mul(a, first), second);
}

static inline vf v_fraction(vf a)
{
    return _mm256_sub_ps(a, _mm256_floor_ps(a));
}
static inline vf v_scale_floor(vf p, vf a)
{
    return v_scale2(p, _mm256_floor_ps(a));
}

static inline float v_sum(vf a)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float v_top(vf a)
{
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

static inline vi v_mul_low(vi a, vi b)
{
    return _mm256_mul_epu32(a, b);
}
static inline vi v_high(vi a)
{
    return _mm256_srli_epi64(a, 32);
}
static inline vi v_xor3(vi a, vi b, vi c)
{
    return _mm256_xor_si256(a, _mm256_xor_si256(b, c));
}
static inline vi v_block_numbers(void)
{
    return _mm256_setr_epi64x(0, 2, 1, 3);
}
static inline void v_join(const vi word[4], vi out[2])
{
    vi a = _mm256_blend_epi32(word[0], _mm256_slli_epi64(word[1], 32), 0xAA);
    vi b = _mm256_blend_epi32(word[2], _mm256_slli_epi64(word[3], 32), 0xAA);
    out[0] = _mm256_unpacklo_epi64(a, b);
    out[1] = _mm256_unpackhi_epi64(a, b);
}
static inline vm v_ge_unsigned(vi a, uint32_t b)
{
    vi least = _mm256_set1_epi32((int32_t)b);
    return _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epu32(a, least), a));
}

static inline void v_transpose(vi r[LANES])
{
    vi t[LANES];
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < LANES; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2x128_si256(r[c], r[4 + c], 0x20);
        t[4 + c] = _mm256_permute2x128_si256(r[c], r[4 + c], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i++)
        r[i] = t[i];
}

#endif
