/* operand_f32.h - tile.h's operand: a float32, multiplied one at a time. Rounded to bfloat16
 * first where a processor without such products is asked for them. */
#ifndef TT_CPU_OPERAND_F32_H
#define TT_CPU_OPERAND_F32_H

enum { DEPTH = 1 };
typedef float operand;
typedef vf op_vec;

static inline op_vec op_load(const operand *p)
{
    return v_load(p);
}
static inline op_vec op_spread(const operand *p)
{
    return v_set(*p);
}
static inline vf op_mac(vf sum, op_vec a, op_vec b)
{
    return v_fma(a, b, sum);
}

/* tt_f32_to_bf16 and back; NaN stays NaN. */
static inline vf op_round(vf a)
{
    vi bits = v_as_int(a), odd = v_andi(v_shr(bits, 16), v_seti(1));
    vi up = v_addi(v_addi(bits, v_seti(0x7FFF)), odd);
    vf rounded = v_as_float(v_andi(up, v_seti((int32_t)0xFFFF0000)));
    return v_pick(v_differs(a, a), a, rounded);
}

static inline void op_store(operand *out, vf a, bool round, int64_t n)
{
    v_store_part(out, round ? op_round(a) : a, n);
}

/* Two vectors of softmax weights, whole. */
static inline void op_store2(operand *out, vf a, vf b, bool round)
{
    v_store(out, round ? op_round(a) : a);
    v_store(out + LANES, round ? op_round(b) : b);
}

static inline vf op_exp2(vf x)
{
    return v_exp2(x);
}

/* LANES * DEPTH numbers, n of them there, as the operands of LANES steps: a word each. */
static inline vi op_words(const float *x, int64_t n, bool round)
{
    vf a = v_load_part(x, n);
    return v_as_int(round ? op_round(a) : a);
}

/* One step's row of a panel from the DEPTH rows it holds. */
static inline void op_weave(operand *out, const float *const row[DEPTH], int64_t n, bool round)
{
    for (int64_t i = 0; i < n; i += LANES)
        op_store(out + i, v_load_part(row[0] + i, n - i), round, n - i);
}

#endif
