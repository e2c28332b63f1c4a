/* wide_exp.h - exponentials in the words of vec_*.h. */
#ifndef TT_CPU_WIDE_EXP_H
#define TT_CPU_WIDE_EXP_H

/* 2^f for f in [-1/2, 1/2]: minimax of degree 6, off by less than 2e-8 of the value before
 * rounding. */
static inline vf exp2_fraction(vf f)
{
    vf p = v_set(0x1.17999cp-13f);
    p = v_fma(p, f, v_set(0x1.5ef4dcp-10f));
    p = v_fma(p, f, v_set(0x1.3b6816p-7f));
    p = v_fma(p, f, v_set(0x1.c6af9ep-5f));
    p = v_fma(p, f, v_set(0x1.ebfb94p-3f));
    p = v_fma(p, f, v_set(0x1.62e430p-1f));
    return v_fma(p, f, v_set(1));
}

/* e^x: zero below -104, infinity above 88.8, NaN stays. */
static inline vf v_exp(vf x)
{
    x = v_min(v_set(90), v_max(v_set(-104), x)); /* in this order a NaN passes */
    vf log2e = v_set(0x1.715476p+0f), rest = v_set(0x1.4ae0bep-26f);
    vf n = v_round(v_mul(x, log2e));
    vf f = v_fma(x, rest, v_fma(x, log2e, v_sub(v_set(0), n)));
    return v_scale2(exp2_fraction(f), n);
}

/* 2^x to 8e-8 of its value for x from -150 up: a polynomial of degree 5 in the fraction above
 * floor(x). */
static inline vf v_exp2_quick(vf x)
{
    vf f = v_fraction(x), p = v_set(0x1.ebaf42p-10f);
    p = v_fma(p, f, v_set(0x1.26bbd2p-7f));
    p = v_fma(p, f, v_set(0x1.c949b8p-5f));
    p = v_fma(p, f, v_set(0x1.ebd6c2p-3f));
    p = v_fma(p, f, v_set(0x1.62e4eap-1f));
    return v_scale_floor(v_fma(p, f, v_set(0x1.fffffep-1f)), x);
}

/* 2^x for x <= 0 or a little above: zero below -150. */
static inline vf v_exp2(vf x)
{
    x = v_max(v_set(-150), x);
    vf n = v_round(x);
    return v_scale2(exp2_fraction(v_sub(x, n)), n);
}

#endif
