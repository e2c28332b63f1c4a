/* ops.h - the operations a backend provides, each with its contract.
 *
 * One entry of TT_OPS is one operation; `tt_op_NAME` is its function type and the plain C twin
 * tt_cpu_NAME (kernels/cpu) is its definition. Unless a parameter is marked "host", pointers are
 * device memory of the stream's backend (host memory on the CPU). Activations (tt_act) have the
 * element type stream->act, which whoever calls sets first: always F32 on the CPU.
 * TT_SOME_OPS are used by some families or samplers only: a device without one of them cannot run
 * those.
 * TT_OPTIONAL_OPS are those a backend may lack: their callers do without.
 *
 * Common rules: rows are independent - the bits of an output row depend on that row's inputs only,
 * never on the number or content of other rows, nor on the thread count. Accumulation is in
 * float32 or wider, in an order fixed per operation and backend. Zero rows is a no-op. Sizes that
 * cannot be (negative, stride below width) are TT_EINVAL; the sentence starts with the operation's
 * name. Between backends results agree within the tolerance named; ids agree exactly unless two
 * candidates are closer than that tolerance. */
#ifndef TT_OPS_H
#define TT_OPS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"
#include "kernels/base/rng.h"
#include "kernels/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tt_stream tt_stream;
typedef struct tt_matrix tt_matrix; /* a weight in the backend's own packed form */
typedef void tt_act;

/* Arithmetic of a matrix product or attention: element type of the multiplied values. Sums are
 * float32 in either. */
typedef enum {
    TT_COMPUTE_F32,
    TT_COMPUTE_BF16, /* both operands rounded to bfloat16 (nearest even) before multiplying */
    TT_COMPUTE_FP8,  /* matrix products alone: both operands rounded to e4m3, each row divided by a
                        float32 scale that makes its largest magnitude 448; else as BF16 */
    /* F32 by matrix units. Both operands are cut into three bfloat16 parts, x = x1 + x2 + x3,
     * exactly below 3.39e38, and six products of parts are added: x1 w1, x1 w2, x2 w1, x2 w2,
     * x1 w3, x3 w1. What is left out is below 2^-25 of a product. Agreement as F32, in other bits;
     * a row with a value that is not finite may become NaN where F32 has an infinity. Activations
     * are F32. Backends without such units, and tables, take F32. */
    TT_COMPUTE_THIRDS,
} tt_compute;

/* --- memory --- */

typedef tt_status tt_op_alloc(tt_stream *s, void **out, size_t bytes,
                              tt_err *e);          /* 64-byte aligned */
typedef void tt_op_release(tt_stream *s, void *p); /* NULL is fine */
typedef tt_status tt_op_upload(tt_stream *s, void *dst, const void *host_src, size_t bytes,
                               tt_err *e); /* host_src is the caller's again when it returns */
typedef tt_status tt_op_download(tt_stream *s, void *host_dst, const void *src, size_t bytes,
                                 tt_err *e); /* host_dst is valid after sync */
typedef tt_status tt_op_sync(tt_stream *s, tt_err *e);

/* --- weights --- */

/* One tensor [n, k] of a weight, in host memory (a view into a mapped checkpoint): F32, BF16, F16,
 * or I8 with scale[n] (F32, BF16 or F16): value = integer * scale of its row. */
typedef struct {
    tt_tensor data;
    tt_tensor scale; /* data NULL unless data is I8 */
} tt_weight;

enum {
    TT_MATRIX_LINEAR = 1 << 0, /* will be multiplied with */
    TT_MATRIX_TABLE = 1 << 1,  /* rows will be looked up (embedding); both for tied weights */
    TT_MATRIX_GLU = 1 << 2,    /* two parts of n rows, gate and up, multiplied by `glu` alone where
                                  the backend has it */
};

/* Stacks parts (same k) by rows into one matrix of sum(n) outputs: fused q/k/v, gate/up.
 * compute: F32 widens everything to float32; BF16 rounds float weights to bfloat16, keeps I8
 * integers as they are (exact in bfloat16) and applies the row scale to the float32 sum.
 * bias: host, F32 [sum n] or NULL. The parts must stay mapped until matrix_close if
 * TT_MATRIX_TABLE is set; otherwise they may go once this returns. */
typedef tt_status tt_op_matrix_open(tt_stream *s, tt_matrix **out, const tt_weight *part, int parts,
                                    const float *bias, tt_compute compute, unsigned flags,
                                    tt_err *e);
typedef void tt_op_matrix_close(tt_stream *s, tt_matrix *m); /* NULL is fine */
/* Outputs n, inputs k, and bytes held beyond the mapped file (any pointer may be NULL). */
typedef void tt_op_matrix_size(const tt_matrix *m, int64_t *n, int64_t *k, size_t *bytes);

/* y[r][j] = sum_i x[r][i] * W[j][i] + bias[j]  (+ y[r][j] when add).
 * x: rows x k, stride ldx; y: rows x n, stride ldy. Agreement: 1e-5 (F32), 2e-2 (BF16) relative
 * L2 against the twin in double. */
typedef tt_status tt_op_linear(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                               int64_t rows, const tt_matrix *w, bool add, tt_err *e);

/* y[r] = row id[r] of the table (I8 rows dequantised). id in [0, n): checked by the caller. */
typedef tt_status tt_op_embed(tt_stream *s, tt_act *y, int64_t ldy, const tt_matrix *table,
                              const int32_t *id, int64_t rows, tt_err *e);

/* --- row-wise --- */

/* y = w * (x * rsqrt(mean(x^2) + eps)), mean in float32 or wider. y may be x. */
typedef tt_status tt_op_rmsnorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                const float *w, int64_t rows, int64_t dim, float eps, tt_err *e);

/* y[r] = x[index[r]]. */
typedef tt_status tt_op_gather(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                               const int32_t *index, int64_t rows, int64_t dim, tt_err *e);

/* Classifier-free guidance on (normalised) hidden rows: y = u + (scale[r] + 1) * (y - u). The head
 * is linear, so mixing its inputs mixes the logits. */
typedef tt_status tt_op_cfg_mix(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *u, int64_t ldu,
                                const float *scale, int64_t rows, int64_t dim, tt_err *e);

/* y = silu(gate) * up, silu(a) = a / (1 + exp(-a)). y may be gate. */
typedef tt_status tt_op_swiglu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *gate,
                               const tt_act *up, int64_t ld, int64_t rows, int64_t dim, tt_err *e);

/* --- rotary position embedding (RoFormer, arXiv 2104.09864), half-rotate layout --- */

/* cos[r][i], sin[r][i] of position[r] * inv_freq[i] (product in float32), i in [0, half). */
typedef tt_status tt_op_rope_table(tt_stream *s, float *cos, float *sin, const int32_t *position,
                                   const float *inv_freq, int64_t rows, int64_t half, tt_err *e);
/* In place on `heads` heads of head_dim channels, head h at x + h * head_dim; the first 2 * half
 * channels of each rotate: (a, b) -> (a cos - b sin, b cos + a sin), b half channels after a. */
typedef tt_status tt_op_rope(tt_stream *s, tt_act *x, int64_t ld, const float *cos,
                             const float *sin, int64_t rows, int64_t heads, int64_t head_dim,
                             int64_t half, tt_err *e);

/* Where the keys and values of one sequence go: row j of the pass, j in [row, row + rows), to
 * column[j] of a store whose columns are kv_heads * head_dim apart. Host struct, device pointers.
 */
typedef struct {
    int64_t row, rows;
    tt_act *k, *v; /* column 0 */
} tt_store;

/* rope on the query and key heads of x, whose rows are `heads` query heads, kv_heads key heads and
 * kv_heads value heads; then the keys and values of the rows that have a store are copied there.
 * store: host, ascending rows. column: per row of the pass. */
typedef tt_status tt_op_rope_store(tt_stream *s, tt_act *x, int64_t ld, const float *cos,
                                   const float *sin, int64_t rows, int64_t heads, int64_t kv_heads,
                                   int64_t head_dim, int64_t half, const tt_store *store,
                                   int64_t stores, const int32_t *column, tt_err *e);

/* --- attention --- */

typedef enum {
    TT_SEE_ALL,    /* every key of the span */
    TT_SEE_CAUSAL, /* key columns <= the query's column */
    TT_SEE_BLOCK,  /* key columns whose block floor(c / block) <= the query's */
} tt_see;

/* One sequence's share of an attention call. Keys and values are rows of kv_heads * head_dim,
 * row j being column key_column + j. Host struct, device pointers inside. */
typedef struct {
    int64_t query_row, query_rows; /* rows of q and out; consecutive columns unless TT_SEE_ALL */
    int64_t query_column;          /* column of the first query row (causal and block) */
    const tt_act *k, *v;
    int64_t ld_kv;
    int64_t keys, key_column;
    tt_see see;
    int32_t block; /* for TT_SEE_BLOCK, >= 1 */
    int64_t hole;  /* > 0 (TT_SEE_ALL alone): query row i of the span does not see key column
                      hole - 1 + i. Shadow rows use it: each judges what stands in its own column
                      from everything else */
} tt_span;

/* softmax(q k^T * scale) v per span and head; query head h uses key/value head
 * h / (heads / kv_heads). A query that sees no key yields zeros. Values are finite, also those that
 * only other rows of the span see: a backend may count what a row does not see with weight 0.
 * span: host. */
typedef tt_status tt_op_attention(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                  int64_t ldq, const tt_span *span, int64_t spans, int64_t heads,
                                  int64_t kv_heads, int64_t head_dim, float scale,
                                  tt_compute compute, tt_err *e);

/* --- the head: logits reduced in place to what samplers need --- */

typedef struct {
    int32_t id;
    float value; /* meaning given by the list it is in */
} tt_id_value;

typedef enum {
    TT_NOISE_NONE,       /* draw = argmax */
    TT_NOISE_PHILOX,     /* tt_gumbel at (seed, sample, step, position), index = id */
    TT_NOISE_SPLITMIX,   /* replay of reference traces: u is the (base + id + 1)-th float64 of the
                            splitmix64 stream of seed; draw = argmax of exp(l) / (-ln u)^T */
    TT_NOISE_CUMULATIVE, /* replay: one u, the (base + 1)-th of that stream; draw = the first id
                            whose cumulative probability (kept ids, temperature applied) exceeds
                            u times the total */
    TT_NOISE_GIVEN,      /* replay: as Philox, but the noise of an id is gumbel[id] */
} tt_noise_kind;

/* How one row is reduced. All lists are host memory and sorted by id without repeats. The filters
 * see probabilities after division by the temperature (by 1 when it is 0) and apply in the order
 * top_k, top_p, min_p; top_p counts over what top_k kept, renormalised. */
typedef struct {
    float temperature; /* 0: the draw is the argmax; at most 1e30 */
    float top_p;       /* nucleus: by falling probability (lower id first on a tie), drop an entry
                          if the probability before it exceeds top_p; >= 1: off */
    int32_t top_k;     /* keep logits not below the k-th largest; 0: off */
    float min_p;       /* keep p >= min_p * p_max; 0: off */
    tt_noise_kind noise;
    uint64_t seed;
    uint32_t sample, step, position;
    uint64_t base;           /* splitmix only */
    const tt_id_value *bias; /* added to the logits before everything; -inf bans the id */
    int32_t n_bias;
    const int32_t *allow; /* when not NULL only these ids are possible */
    int32_t n_allow;
    const int32_t *unsure; /* ids whose logit is -inf for prob/entropy/margin but may be drawn
                              (LLaDA's confidence_eos_eot_inf) */
    int32_t n_unsure;
    int32_t limit;           /* ids >= limit are banned (padding rows of the table); 0: none */
    int32_t target;          /* id whose log-probability is wanted, or -1 */
    bool confidence_of_kept; /* p below is softmax(l / T) over the kept ids, what the draw is made
                                from (Dream), instead of softmax(l) */
    bool top_p_within;   /* top_p drops the entry with which the sum passes it, too, unless it is
                            the first (insertion models) */
    const float *gumbel; /* host, one per id; for TT_NOISE_GIVEN */
} tt_draw;

/* Statistics of one row. Let l be the logits after bias, allow and limit; p = softmax(l) with the
 * unsure ids removed. Ties: the lowest id. NaN counts as -inf, +inf as the largest float, a ban
 * wins over any bias. If nothing is possible, ids are -1 and the rest 0. */
typedef struct {
    int32_t argmax;       /* of l */
    int32_t drawn;        /* argmax of l + T * Gumbel over the kept ids; argmax when T is 0 */
    float prob_argmax;    /* p[argmax] */
    float prob;           /* p[drawn] */
    float margin;         /* largest minus second largest value of p */
    float entropy;        /* -sum p ln p, nats */
    float max_logit;      /* l[argmax] */
    float lse;            /* ln sum exp(l), unsure ids included */
    float logprob;        /* l[drawn] - lse */
    float target_logprob; /* l[target] - lse; 0 when no target */
    float gap;            /* l of argmax minus l of the runner-up; +inf if there is none */
} tt_row_stats;

enum { TT_MAX_TOP = 20 };

/* x: rows of hidden states (already normalised), stride ldx. draw, stats, top, logits: host;
 * top: rows x n_top best (id, log-probability l - lse), or NULL; logits: rows x n of l, or NULL -
 * for tests and small uses, samplers never ask for it. The full logits of all rows never exist:
 * working memory stays below 64 MiB whatever rows and n are. Valid after sync. */
typedef tt_status tt_op_head(tt_stream *s, tt_row_stats *stats, tt_id_value *top, int32_t n_top,
                             float *logits, const tt_act *x, int64_t ldx, int64_t rows,
                             const tt_matrix *w, const tt_draw *draw, tt_err *e);

/* --- further row-wise operations --- */

/* y += x, element by element. */
typedef tt_status tt_op_add(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                            int64_t rows, int64_t dim, tt_err *e);

#define TT_OPS(X)   \
    X(alloc)        \
    X(release)      \
    X(upload)       \
    X(download)     \
    X(sync)         \
    X(matrix_open)  \
    X(matrix_close) \
    X(matrix_size)  \
    X(linear)       \
    X(embed)        \
    X(rmsnorm)      \
    X(gather)       \
    X(cfg_mix)      \
    X(swiglu)       \
    X(rope_table)   \
    X(rope)         \
    X(attention)    \
    X(head)         \
    X(rope_store)   \
    X(add)

/* --- of some families: heads, mixtures of experts, modulation --- */

/* rmsnorm of each of `heads` heads of head_dim channels by itself, in place; head h at
 * x + h * head_dim, w: [head_dim], the same for all of them. */
typedef tt_status tt_op_rmsnorm_heads(tt_stream *s, tt_act *x, int64_t ld, const float *w,
                                      int64_t rows, int64_t heads, int64_t head_dim, float eps,
                                      tt_err *e);

enum { TT_MAX_EXPERTS = 1024, TT_MAX_ROUTES = 32 };

/* How a mixture-of-experts layer chooses. With l = gate x: score = softmax(l) over all experts, or
 * sigmoid(l); rank = score + bias. Host struct. */
typedef struct {
    int32_t experts; /* at most TT_MAX_EXPERTS */
    int32_t top_k;   /* experts of a row, at most TT_MAX_ROUTES */
    bool sigmoid;
    const float *bias;  /* device, [experts], or NULL */
    int32_t groups;     /* equal runs of experts, each ranked by the sum of its two best; */
    int32_t top_groups; /* only experts of so many best groups can be chosen. 1, 1: all */
    bool normalise;     /* weights (the scores) are divided by (their sum + 1e-20) */
    float scale;        /* then multiplied by this */
} tt_router;

/* The top_k experts of highest rank of every row, best first (ties: the lower expert; NaN ranks
 * last), and all pairs (row, expert) sorted by expert, then row:
 *   weight[r * top_k + j]  of row r's j-th expert
 *   place[r * top_k + j]   where that pair stands among all pairs
 *   row[p]                 the row of the pair at place p
 *   begin[e]               place of expert e's first pair; begin[experts] = rows * top_k
 * gate: matrix of `experts` outputs opened in F32; its product stays float32 even where
 * activations are narrower, because a rounded score can change the choice. */
typedef tt_status tt_op_route(tt_stream *s, float *weight, int32_t *place, int32_t *row,
                              int32_t *begin, const tt_act *x, int64_t ldx, int64_t rows,
                              const tt_matrix *gate, const tt_router *how, tt_err *e);

/* y[r] = W_g x[r] for the group g with begin[g] <= r < begin[g + 1]: one product per expert. w:
 * host list of `groups` matrices of one shape (at most TT_MAX_EXPERTS), without bias; it and they
 * stay where they are as long as the model lives. begin: device, begin[0] = 0 and begin[groups] =
 * rows. A row's bits are those `linear` gives. */
typedef tt_status tt_op_linear_grouped(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                       int64_t ldx, int64_t rows, const tt_matrix *const *w,
                                       int64_t groups, const int32_t *begin, tt_err *e);

/* y[r] += sum_j weight[r * top_k + j] * x[place[r * top_k + j]], in the order of j. */
typedef tt_status tt_op_combine(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                const float *weight, const int32_t *place, int64_t rows,
                                int64_t top_k, int64_t dim, tt_err *e);

/* LayerNorm with a weight and no bias, then modulation by the vectors of the row's sequence
 * (adaLN, arXiv 2212.09748): y = (x - mean) * rsqrt(var + eps) * w * (1 + scale[m]) + shift[m],
 * m = index[r]; shift, scale: rows of dim, stride ld. Mean and variance in float32 or wider. y may
 * be x. */
typedef tt_status tt_op_adaln(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                              const float *w, const tt_act *shift, const tt_act *scale, int64_t ld,
                              const int32_t *index, int64_t rows, int64_t dim, float eps,
                              tt_err *e);

/* y[r] += gate[index[r]] * x[r], channel by channel; gate: rows of dim, stride ldg. */
typedef tt_status tt_op_gate_add(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                 const tt_act *gate, int64_t ldg, const int32_t *index,
                                 int64_t rows, int64_t dim, tt_err *e);

/* y = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3): GELU in its tanh form. y may be
 * x. */
typedef tt_status tt_op_gelu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                             int64_t rows, int64_t dim, tt_err *e);

/* --- between passes: what a sequence keeps of a row for the next one --- */

/* How far a row's distribution moved: kl[r] = sum_i p_i (ln(p_i + 1e-12) - ln(q_i + 1e-12)) in
 * nats, p = softmax of the logits of x[r], q = softmax of those of before[r], both after bias,
 * allow and limit of draw[r] (the rest of it plays no part). 0 if nothing is possible.
 * x, before: rows of hidden states (already normalised). kl, draw: host. As for the head, the full
 * logits of all rows never exist. Valid after sync. Agreement: 1e-4 absolute plus relative. */
typedef tt_status tt_op_head_kl(tt_stream *s, float *kl, const tt_act *x, int64_t ldx,
                                const tt_act *before, int64_t ldb, int64_t rows,
                                const tt_matrix *w, const tt_draw *draw, tt_err *e);

/* The embedding a row expects: y[r] = sum_i p_i table[i], p = softmax of the logits of x[r] after
 * bias, allow and limit of draw[r]. Zeros if nothing is possible. table: opened with
 * TT_MATRIX_TABLE, as many rows as w; may be w. y: rows x table width, stride ldy; not x. draw:
 * host. Agreement: 1e-4 relative L2. */
typedef tt_status tt_op_head_mean(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                  int64_t ldx, int64_t rows, const tt_matrix *w,
                                  const tt_matrix *table, const tt_draw *draw, tt_err *e);

/* y[r] += scale[r] * x[r]; a row of scale 0 is left alone and its x not read. scale: device. */
typedef tt_status tt_op_add_scaled(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                   int64_t ldx, const float *scale, int64_t rows, int64_t dim,
                                   tt_err *e);

/* y = x / 2 (1 + erf(x / sqrt(2))): GELU in its exact form. y may be x. */
typedef tt_status tt_op_gelu_erf(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                 int64_t rows, int64_t dim, tt_err *e);

/* y = gelu(x W^T + bias), gelu as above in its tanh form; y: rows x n. w not GLU. Agreement: as
 * `linear`. */
typedef tt_status tt_op_linear_gelu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                    int64_t ldx, int64_t rows, const tt_matrix *w, tt_err *e);

/* `linear`, then z[index[r]] = the outputs of row r from `split` on; no index twice, the other rows
 * of z stay. y: rows x n, stride ldy; what it holds from column split on is not defined. z: rows of
 * n - split, stride ldz; not y or x. index: device. The bits are those of linear and scatter. */
typedef tt_status tt_op_linear_split(tt_stream *s, tt_act *y, int64_t ldy, int64_t split, tt_act *z,
                                     int64_t ldz, const int32_t *index, const tt_act *x,
                                     int64_t ldx, int64_t rows, const tt_matrix *w, tt_err *e);

/* Where one residual branch ends and the next begins: x[r] += gate[m] * a[r], then y[r] as `adaln`
 * makes it of x[r]; m = index[r]. gate, shift, scale: rows of dim, stride ld. y may be a. The bits
 * are those of gate_add and adaln. */
typedef tt_status tt_op_gate_adaln(tt_stream *s, tt_act *y, int64_t ldy, tt_act *x, int64_t ldx,
                                   const tt_act *a, int64_t lda, const float *w, const tt_act *gate,
                                   const tt_act *shift, const tt_act *scale, int64_t ld,
                                   const int32_t *index, int64_t rows, int64_t dim, float eps,
                                   tt_err *e);

/* y[index[r]] = x[r]; no index twice. The other rows of y stay. */
typedef tt_status tt_op_scatter(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                const int32_t *index, int64_t rows, int64_t dim, tt_err *e);

/* --- of images: a pixel is a row of channels, row (image * height + y) * width + x --- */

/* Host struct. Sizes of y; with `up` x has half of both (which are then even) and is enlarged to
 * them first, every pixel becoming four. */
typedef struct {
    int64_t images, height, width;
    int64_t channels; /* of x */
    bool up;
} tt_image_shape;

/* 3x3 convolution of stride 1 with zeros outside the image (so sizes stay):
 *   y[i, r, c][j] = bias[j] + sum x[i, r + u - 1, c + v - 1][h] W[j][(3 u + v) channels + h]
 * over u, v in 0..2 and h, plus y itself when add. w: 9 * channels inputs, not GLU. y is not x.
 * Agreement: as `linear`. A 1x1 convolution is `linear`. */
typedef tt_status tt_op_conv3x3(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                const tt_image_shape *shape, const tt_matrix *w, bool add,
                                tt_err *e);

/* GroupNorm (Wu and He, arXiv 1803.08494): y = (x - mean) * rsqrt(var + eps) * w[h] + b[h], mean
 * and variance over the pixels of an image and the channels of channel h's group, one of `groups`
 * equal runs; then, when silu, y / (1 + exp(-y)). Mean and variance are taken of differences from
 * the mean or in a way as exact. y may be x. Agreement: 1e-5 relative L2, bfloat16 aside. */
typedef tt_status tt_op_group_norm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                   int64_t ldx, const float *w, const float *b, int64_t images,
                                   int64_t pixels, int64_t channels, int64_t groups, float eps,
                                   bool silu, tt_err *e);

/* Means of 2 x 2 pixels. shape: of x, height and width even, up false. y is not x. */
typedef tt_status tt_op_average_pool(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                     int64_t ldx, const tt_image_shape *shape, tt_err *e);

/* Vector quantisation: id[r] = the code k whose sum_i (x[r][i] - code[k][i])^2 is least, the lowest
 * on a tie; distance[2 r] that sum, distance[2 r + 1] the least one among the others (+inf if
 * there is one code). code: codes x dim, float32. distance may be NULL. Agreement: ids exactly
 * unless the two distances are within 1e-5 relative. */
typedef tt_status tt_op_nearest(tt_stream *s, int32_t *id, float *distance, const tt_act *x,
                                int64_t ldx, int64_t rows, const float *code, int64_t codes,
                                int64_t dim, tt_err *e);


/* --- of insertion models --- */

/* y = (x - mean) * rsqrt(var + eps) * w + b, mean and variance in float32 or wider. y may be x. */
typedef tt_status tt_op_layernorm(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                  int64_t ldx, const float *w, const float *b, int64_t rows,
                                  int64_t dim, float eps, tt_err *e);

typedef enum {
    TT_UNIT_RELU,       /* max(x, 0) */
    TT_UNIT_TANH,
    TT_UNIT_SILU,       /* x / (1 + exp(-x)) */
    TT_UNIT_QUICK_GELU, /* x / (1 + exp(-1.702 x)) */
} tt_unit;

/* Element by element. y may be x. */
typedef tt_status tt_op_unit(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                             int64_t rows, int64_t dim, tt_unit unit, tt_err *e);

/* --- latent states: rows that go from pass to pass --- */

/* to[r][0..dim) = from[r][0..dim); rows where either is NULL are left alone. to, from: device
 * lists of device pointers. No row is written that another one reads. */
typedef tt_status tt_op_copy_rows(tt_stream *s, tt_act *const *to, const tt_act *const *from,
                                  int64_t rows, int64_t dim, tt_err *e);

/* y[r] = a[r] * y[r] + b[r] * x[r]; where b[r] is 0, x[r] is not read. a, b: device. Agreement:
 * 1e-6 relative L2 (F32). */
typedef tt_status tt_op_blend(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                              const float *a, const float *b, int64_t rows, int64_t dim, tt_err *e);

/* Sums over the channels of a row. */
typedef struct {
    float xx, yy, xy; /* x^2, y^2, x y */
    float dd;         /* (x - y)^2 */
} tt_row_products;

/* out: host, rows; valid after sync. Agreement: 1e-5 relative to sqrt(xx yy), of dd to itself. */
typedef tt_status tt_op_row_products(tt_stream *s, tt_row_products *out, const tt_act *x,
                                     int64_t ldx, const tt_act *y, int64_t ldy, int64_t rows,
                                     int64_t dim, tt_err *e);

/* y[r][i] = scale[r] * tt_truncated_normal(number i at the address at[r]). at, scale: device. The
 * same float32 on every backend, rounded to the type of y; a row of scale 0 becomes zeros. */
typedef tt_status tt_op_truncated_normal(tt_stream *s, tt_act *y, int64_t ldy,
                                         const tt_rng_address *at, const float *scale, int64_t rows,
                                         int64_t dim, tt_err *e);

/* --- attention with a bias --- */

/* One sequence's share. Keys and values are rows of heads * head_dim. Host struct, device pointers
 * inside. */
typedef struct {
    int64_t query_row, query_rows; /* rows of q and out */
    const tt_act *k, *v;
    int64_t ld_kv, keys;
    const float *bias; /* of head 0, query row 0, key 0; -inf: the key is not seen */
    int64_t bias_head, bias_query, bias_key; /* steps between its numbers; may be 0 or negative */
    /* A bias by order alone, with bias NULL: `later` for every key j >= from, j > i of query row i
     * of the span, 0 for all others. later: finite, or -inf as above. */
    bool by_order;
    int64_t from;
    float later;
} tt_biased_span;

/* No bias, or two, or one that is no number. */
static inline bool tt_biased_span_odd(const tt_biased_span *p)
{
    if (p->by_order)
        return p->bias || p->from < 0 || !(p->later < INFINITY);
    return p->keys && !p->bias;
}

/* softmax(q k^T * scale + bias) v per span and head: relative positions (T5), soft masks (COMiT). A
 * query that sees no key yields zeros. The spans of a call have their bias in one form. Agreement:
 * as `attention`. span: host. */
typedef tt_status tt_op_attention_biased(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q,
                                         int64_t ldq, const tt_biased_span *span, int64_t spans,
                                         int64_t heads, int64_t head_dim, float scale,
                                         tt_compute compute, tt_err *e);

/* y *= x, element by element. */
typedef tt_status tt_op_multiply(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                 int64_t rows, int64_t dim, tt_err *e);

/* layernorm of each of `heads` heads of head_dim channels by itself, in place; head h at
 * x + h * head_dim; w, b: [heads x head_dim], each head its own. */
typedef tt_status tt_op_layernorm_heads(tt_stream *s, tt_act *x, int64_t ld, const float *w,
                                        const float *b, int64_t rows, int64_t heads,
                                        int64_t head_dim, float eps, tt_err *e);

#define TT_SOME_OPS(X) \
    X(rmsnorm_heads)   \
    X(route)           \
    X(linear_grouped)  \
    X(combine)         \
    X(adaln)           \
    X(gate_add)        \
    X(gelu)            \
    X(head_kl)         \
    X(head_mean)       \
    X(add_scaled)      \
    X(layernorm)       \
    X(unit)            \
    X(copy_rows)       \
    X(blend)           \
    X(row_products)    \
    X(truncated_normal) \
    X(attention_biased) \
    X(multiply) \
    X(gelu_erf)        \
    X(linear_gelu)     \
    X(gate_adaln)      \
    X(scatter)         \
    X(conv3x3)         \
    X(group_norm)      \
    X(average_pool)    \
    X(nearest)         \
    X(layernorm_heads) \
    X(linear_split)

/* --- optional --- */

/* Element type of activations for products of this kind; without it F32. */
typedef tt_dtype tt_op_act_type(const tt_stream *s, tt_compute compute);

/* y = silu(x gate^T) * (x up^T), w opened with TT_MATRIX_GLU; y: rows x n / 2, stride ldy. Else
 * `linear` and `swiglu`. */
typedef tt_status tt_op_glu(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                            int64_t rows, const tt_matrix *w, tt_err *e);

/* Rows a pass of so many is to be padded to (at least rows), so that few shapes occur. */
typedef int64_t tt_op_bucket(const tt_stream *s, int64_t rows);
/* Passes whose calls of `head` (on at most 2,048 rows) differ in this number are different
 * shapes. */
typedef int64_t tt_op_head_key(const tt_stream *s, const tt_matrix *w, const tt_draw *draw,
                               int64_t rows);
/* Passes whose spans differ in this number, all bits of all spans together, are different shapes.
 */
typedef int64_t tt_op_span_key(const tt_stream *s, int64_t query_rows, int64_t head_dim);
/* What is called between these two is one pass. Passes of the same key call the same operations
 * with the same sizes and pointers; only the contents of host arguments (uploads, spans, stores,
 * draws and where results go) may differ, and the lengths of lists within one power of two.
 * Every begun pass is ended, with the status so far; its results are valid after sync. */
typedef tt_status tt_op_pass_begin(tt_stream *s, const int64_t *key, int n, tt_err *e);
typedef tt_status tt_op_pass_end(tt_stream *s, tt_status so_far, tt_err *e);

/* What a device reaches at most: the measure of every other time. 0: not by this device. */
typedef struct {
    double bytes_per_s; /* between memory and processor: the better of reading a block that fits no
                           cache and of copying one, bytes read and written counted */
    double flops_f32, flops_bf16, flops_fp8; /* operations/s of large matrix products, by type of
                                                the operands; sums in float32 */
} tt_ceilings;
/* Measures for about so many seconds, between passes; what it allocates it gives back. A HOST
 * backend without it gets the cpu's. */
typedef tt_status tt_op_ceilings(tt_stream *s, double seconds, tt_ceilings *out, tt_err *e);

typedef struct {
    size_t used;  /* device memory of this process now, packed weights and scratch included */
    size_t peak;  /* the most since the call before, or since the stream was opened */
    size_t total; /* of the device */
} tt_memory;
/* Quick, between passes. A HOST backend without it gets the cpu's. */
typedef tt_status tt_op_memory(tt_stream *s, tt_memory *out, tt_err *e);

/* y = rmsnorm(x, w), then z = rmsnorm(y, v), to the bit: where one part of a network ends with a
 * norm and the next begins with one. y may be x; z is neither. Else `rmsnorm` twice. */
typedef tt_status tt_op_rmsnorm_twice(tt_stream *s, tt_act *z, int64_t ldz, const float *v,
                                      tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                                      const float *w, int64_t rows, int64_t dim, float eps,
                                      tt_err *e);

#define TT_OPTIONAL_OPS(X) \
    X(act_type)            \
    X(glu)                 \
    X(bucket)              \
    X(head_key)            \
    X(span_key)            \
    X(pass_begin)          \
    X(pass_end)            \
    X(ceilings)            \
    X(memory)              \
    X(rmsnorm_twice)

#ifdef __cplusplus
}
#endif

#endif
