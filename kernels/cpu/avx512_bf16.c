/* avx512_bf16.c - matrix products and attention in bfloat16 pairs: AVX512-BF16. */
#define VECS 4
#include "kernels/cpu/vec_avx512.h"
#include "kernels/cpu/wide_exp.h"
#include "kernels/cpu/operand_bf16.h"
#include "kernels/cpu/attend.h"

static void convert_row(void *out, const float *x, int64_t k)
{
    operand *to = out;
    int64_t i = 0, width = (k + DEPTH - 1) / DEPTH * DEPTH;
    for (; i + 2 * LANES <= k; i += 2 * LANES)
        op_store2(to + i, v_load(x + i), v_load(x + i + LANES), true);
    for (; i < width; i += LANES)
        op_store(to + i, v_load_part(x + i, k - i), true, width - i);
}

static const tt_cpu_gemm gemm = {
    .panel = PANEL,
    .depth = DEPTH,
    .operand = sizeof(operand),
    .convert = convert_row,
    .product = panel_product,
};

tt_status tt_avx512_bf16_matrix_open(tt_stream *s, tt_matrix **out, const tt_weight *part,
                                     int parts, const float *bias, tt_compute compute,
                                     unsigned flags, tt_err *e)
{
    if (compute != TT_COMPUTE_BF16)
        return tt_avx512_matrix_open(s, out, part, parts, bias, compute, flags, e);
    return tt_cpu_matrix_open_as(&gemm, s, out, part, parts, bias, compute, flags, e);
}

tt_status tt_avx512_bf16_attention(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                   int64_t ldq, const tt_span *span, int64_t spans, int64_t heads,
                                   int64_t kv_heads, int64_t head_dim, float scale,
                                   tt_compute compute, tt_err *e)
{
    if (compute != TT_COMPUTE_BF16)
        return tt_avx512_attention(s, out, ldo, q, ldq, span, spans, heads, kv_heads, head_dim,
                                   scale, compute, e);
    return attend(s, out, ldo, q, ldq, span, spans, heads, kv_heads, head_dim, scale, true, e);
}

tt_status tt_avx512_bf16_attention_biased(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                          int64_t ldq, const tt_biased_span *span, int64_t spans,
                                          int64_t heads, int64_t head_dim, float scale,
                                          tt_compute compute, tt_err *e)
{
    if (compute != TT_COMPUTE_BF16)
        return tt_avx512_attention_biased(s, out, ldo, q, ldq, span, spans, heads, head_dim, scale,
                                          compute, e);
    return attend_biased(s, out, ldo, q, ldq, span, spans, heads, head_dim, scale, true, e);
}
