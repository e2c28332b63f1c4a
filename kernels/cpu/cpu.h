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
#undef TT_CPU_DECLARE

/* --- checks every operation begins with --- */

static inline bool tt_cpu_bad_shape(int64_t rows, int64_t width, int64_t ld)
{
    return rows < 0 || width < 1 || ld < width;
}

/* TT_EINVAL with "name: rows x width, stride ld". */
tt_status tt_cpu_shape_error(const char *name, int64_t rows, int64_t width, int64_t ld, tt_err *e);

/* How many of a span's keys its q-th query row sees; they are always the first ones. */
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

/* Scratch of at least bytes, not zeroed, valid until the next call on this stream. Grows to the
 * largest size ever asked for and stays there. */
tt_status tt_cpu_scratch(tt_stream *s, void **out, size_t bytes, tt_err *e);

/* --- weights --- */

/* value[j * k + i] is what the product multiplies with: float32, or a bfloat16 value or integer
 * widened to float32. */
struct tt_matrix {
    int64_t n, k;
    tt_compute compute;
    unsigned flags;
    float *value;    /* NULL unless TT_MATRIX_LINEAR */
    float *bias;     /* n, or NULL */
    float *scale;    /* n, or NULL: applied to the float32 sum */
    tt_weight *part; /* the mapped originals, for embed */
    int parts;
    size_t bytes;
};

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
    /* Index of the largest fmaf(temperature, tt_gumbel(at index), l); lowest on a tie. The row
     * has at least one finite entry. Same bits in every version. */
    int32_t (*gumbel)(const float *row, int64_t n, float temperature, tt_rng_address a);
} tt_cpu_rows;

tt_status tt_cpu_head_with(const tt_cpu_rows *rows_of, tt_stream *s, tt_row_stats *stats,
                           tt_id_value *top, int32_t n_top, float *logits, const tt_act *x,
                           int64_t ldx, int64_t rows, const tt_matrix *w, const tt_draw *draw,
                           tt_err *e);

/* The twin's passes. */
extern const tt_cpu_rows tt_cpu_rows_plain;

#endif
