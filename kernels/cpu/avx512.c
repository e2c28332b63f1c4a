/* avx512.c - sixteen floats at a time: AVX-512 F, BW, VL, DQ. */
#define LEVEL(name) tt_avx512_##name
#define VECS        4 /* 6 x 4 sums, 4 columns and 1 row fit 32 registers */
#include "kernels/cpu/vec_avx512.h"
#include "kernels/cpu/wide_exp.h"
#include "kernels/cpu/operand_f32.h"
#include "kernels/cpu/wide.h"
#include "kernels/cpu/wide_head.h"
#include "kernels/cpu/attend.h"

static void round_row(void *out, const float *x, int64_t k)
{
    for (int64_t i = 0; i < k; i += LANES)
        op_store((operand *)out + i, v_load_part(x + i, k - i), true, k - i);
}

static const tt_cpu_gemm gemm = {
    .panel = PANEL,
    .depth = DEPTH,
    .operand = sizeof(operand),
    .convert = round_row,
    .product = panel_product,
};

tt_status LEVEL(matrix_open)(tt_stream *s, tt_matrix **out, const tt_weight *part, int parts,
                             const float *bias, tt_compute compute, unsigned flags, tt_err *e)
{
    return tt_cpu_matrix_open_as(&gemm, s, out, part, parts, bias, compute, flags, e);
}

tt_status LEVEL(attention)(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q, int64_t ldq,
                           const tt_span *span, int64_t spans, int64_t heads, int64_t kv_heads,
                           int64_t head_dim, float scale, tt_compute compute, tt_err *e)
{
    return attend(s, out, ldo, q, ldq, span, spans, heads, kv_heads, head_dim, scale,
                  compute == TT_COMPUTE_BF16, e);
}

tt_status LEVEL(attention_biased)(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                  int64_t ldq, const tt_biased_span *span, int64_t spans,
                                  int64_t heads, int64_t head_dim, float scale, tt_compute compute,
                                  tt_err *e)
{
    return attend_biased(s, out, ldo, q, ldq, span, spans, heads, head_dim, scale,
                         compute == TT_COMPUTE_BF16, e);
}
