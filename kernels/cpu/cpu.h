/* cpu.h - the operations of kernels/ops.h on the CPU, one plain C twin each.
 *
 * A twin (tt_cpu_NAME) is the definition of its operation: straight loops, double precision where
 * the order of a sum matters. Faster versions live in avx2.c, avx512.c and avx512_bf16.c and are
 * put into the table by table.c. All of them use the stream's pool and scratch only, never
 * s->impl, because other host backends borrow them. Activations are float32. */
#ifndef TT_CPU_CPU_H
#define TT_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/base/rng.h"

#define TT_CPU_DECLARE(name) tt_op_##name tt_cpu_##name;
TT_OPS(TT_CPU_DECLARE)
TT_SOME_OPS(TT_CPU_DECLARE)
#undef TT_CPU_DECLARE

tt_op_ceilings tt_cpu_ceilings;
tt_op_memory tt_cpu_memory;

/* --- checks every operation begins with --- */

static inline bool tt_cpu_bad_shape(int64_t rows, int64_t width, int64_t ld)
{
    return rows < 0 || width < 1 || ld < width;
}

/* TT_EINVAL with "name: rows x width, stride ld". */
tt_status tt_cpu_shape_error(const char *name, int64_t rows, int64_t width, int64_t ld, tt_err *e);

/* The key that the q-th query row of a span does not see, or -1. */
static inline int64_t tt_cpu_hole(const tt_span *p, int64_t q)
{
    int64_t at = p->hole > 0 ? p->hole - 1 + q - p->key_column : -1;
    return at < p->keys ? at : -1;
}

/* How many of a span's keys its q-th query row sees, the hole counted; always the first ones. */
static inline int64_t tt_cpu_visible(const tt_span *p, int64_t q)
{
    if (p->see == TT_SEE_ALL)
        return p->keys;
    int64_t column = p->query_column + q;
    if (p->see == TT_SEE_BLOCK)
        column = (column / p->block + 1) * p->block - 1;
    int64_t n = column - p->key_column + 1;
    return n < 0 ? 0 : n > p->keys ? p->keys : n;
}

/* TT_EINVAL when a head or span cannot be. */
tt_status tt_cpu_attention_check(int64_t ldo, int64_t ldq, const tt_span *span, int64_t spans,
                                 int64_t heads, int64_t kv_heads, int64_t head_dim, tt_err *e);
tt_status tt_cpu_attention_biased_check(int64_t ldo, int64_t ldq, const tt_biased_span *span,
                                        int64_t spans, int64_t heads, int64_t head_dim, tt_err *e);
tt_status tt_cpu_rope_check(int64_t ld, int64_t rows, int64_t heads, int64_t head_dim, int64_t half,
                            tt_err *e);

tt_status tt_cpu_group_norm_check(int64_t ldy, int64_t ldx, int64_t images, int64_t pixels,
                                  int64_t channels, int64_t groups, tt_err *e);

/* --- scratch and threads --- */

/* At least bytes of the stream's scratch or tile, 64-byte aligned, not zeroed, valid until the
 * next call on the same one. Grows to the largest size ever asked for and stays there. */
tt_status tt_cpu_scratch(tt_arena *a, void **out, size_t bytes, tt_err *e);

/* Calls fn(job, first, count) for runs of rows that cover them all; on the pool when rows x width
 * elements are worth waking it. */
void tt_cpu_over_rows(tt_stream *s, int64_t rows, int64_t width,
                      void (*fn)(void *job, int64_t first, int64_t count), void *job);

/* --- the twins of one row, which faster versions fall back to for numbers they cannot hold --- */

void tt_cpu_rmsnorm_row(float *y, const float *x, const float *w, int64_t dim, float eps);
/* scratch: head_dim + keys of the span. */
void tt_cpu_attend_row(float *out, const float *q, const tt_span *p, int64_t row, int64_t kv_head,
                       int64_t head_dim, float scale, tt_compute compute, double *scratch);
/* scratch: keys of the span + head_dim. */
void tt_cpu_attend_biased_row(float *out, const float *q, const tt_biased_span *p, int64_t row,
                              int64_t head, int64_t head_dim, float scale, tt_compute compute,
                              double *scratch);

/* --- weights --- */

/* How a matrix is packed and multiplied. The right-hand side lies in panels of `panel` rows of
 * the weight: [k / depth][panel][depth] operands, padded with zeros. */
typedef struct {
    int panel, depth;
    size_t operand; /* bytes: 4 float32, 2 bfloat16 */
    /* x as operands, depth-padded; NULL: x as it is. */
    void (*convert)(void *out, const float *x, int64_t k);
    /* y[rows x cols] = (x panel) * scale + bias (+ y), cols <= panel, over `steps` of depth; x is
     * operands with stride ldx. */
    void (*product)(float *y, int64_t ldy, const void *x, int64_t ldx, int64_t rows,
                    const void *panel, int64_t steps, int64_t cols, const float *scale,
                    const float *bias, bool add);
} tt_cpu_gemm;

struct tt_matrix {
    int64_t n, k;
    tt_compute compute;
    unsigned flags;
    const tt_cpu_gemm *gemm; /* NULL: the twin, float32 rows as they come */
    void *panels;            /* NULL unless TT_MATRIX_LINEAR */
    float *bias;             /* n, or NULL */
    float *scale;            /* n, or NULL: applied to the float32 sum */
    tt_weight *part;         /* the mapped originals, for embed */
    int parts;
    size_t bytes;
};

tt_status tt_cpu_matrix_open_as(const tt_cpu_gemm *gemm, tt_stream *s, tt_matrix **out,
                                const tt_weight *part, int parts, const float *bias,
                                tt_compute compute, unsigned flags, tt_err *e);
tt_op_linear tt_cpu_linear_packed; /* for matrices opened with a tt_cpu_gemm */

/* --- the head's passes over a row of logits --- */

typedef struct {
    float max, second; /* second: of the others, so equal to max on a tie; -inf if none */
    int32_t at;        /* lowest index of max; -1 if all are -inf */
} tt_row_peak;

typedef struct {
    /* Replaces NaN by -inf and +inf by the largest float, then finds the peak. */
    tt_row_peak (*peak)(float *row, int64_t n);
    /* *sum = sum exp(l - max), *moment = sum exp(l - max) * (l - max). max is finite. */
    void (*mass)(double *sum, double *moment, const float *row, int64_t n, float max);
    /* Index of the largest fmaf(temperature, tt_gumbel(word at the index), l); lowest on a tie.
     * argmax: of the row, finite. Same index in every version. */
    int32_t (*gumbel)(const float *row, int64_t n, float temperature, tt_rng_address a,
                      int32_t argmax);
    /* Sets the logits that d's filters drop to -inf. max: of the row; it is always kept. spare:
     * room for n. */
    void (*filter)(float *row, int64_t n, const tt_draw *d, float max, float *spare);
} tt_cpu_rows;

extern const tt_cpu_rows tt_cpu_rows_plain;

tt_status tt_cpu_head_with(const tt_cpu_rows *rows_of, tt_stream *s, tt_row_stats *stats,
                           tt_id_value *top, int32_t n_top, float *logits, const tt_act *x,
                           int64_t ldx, int64_t rows, const tt_matrix *w, const tt_draw *draw,
                           tt_err *e);

/* Applies bias, allow and limit to a row of n logits. */
void tt_cpu_constrain(float *row, int64_t n, const tt_draw *d);
/* TT_EINVAL, beginning with name, when a draw over n ids cannot be. */
tt_status tt_cpu_check_draw(const char *name, const tt_draw *d, int64_t row, int64_t n, tt_err *e);

/* --- faster versions --- */

#define TT_CPU_LEVEL(level)                               \
    tt_op_matrix_open tt_##level##_matrix_open;           \
    tt_op_rmsnorm tt_##level##_rmsnorm;                   \
    tt_op_cfg_mix tt_##level##_cfg_mix;                   \
    tt_op_swiglu tt_##level##_swiglu;                     \
    tt_op_gelu tt_##level##_gelu;                         \
    tt_op_group_norm tt_##level##_group_norm;             \
    tt_op_rope tt_##level##_rope;                         \
    tt_op_attention tt_##level##_attention;               \
    tt_op_attention_biased tt_##level##_attention_biased; \
    tt_op_head tt_##level##_head;                         \
    extern const tt_cpu_rows tt_##level##_rows;
TT_CPU_LEVEL(avx2)
TT_CPU_LEVEL(avx512)
#undef TT_CPU_LEVEL
/* The three that AVX512-BF16 makes faster when TT_COMPUTE_BF16 is asked for. */
tt_op_matrix_open tt_avx512_bf16_matrix_open;
tt_op_attention tt_avx512_bf16_attention;
tt_op_attention_biased tt_avx512_bf16_attention_biased;

#endif
