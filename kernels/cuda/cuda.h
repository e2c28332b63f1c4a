/* cuda.h - what the files of the CUDA plug-in share.
 *
 * One stream, used by one thread. Small host inputs of an operation (spans, draws, indexes) are
 * "arguments": copied into pinned memory and from there to a device mirror, in call order. Between
 * pass_begin and pass_end the kernels of a pass are recorded once into a CUDA graph and replayed
 * for every later pass of the same shape; a replay only refills the pinned arguments, which the
 * graph's first node copies over in one go (memory.c). Kernels never depend on argument values in
 * their launch parameters, or the key of the pass must tell. */
#ifndef TT_CUDA_H
#define TT_CUDA_H

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    CUDA_LIVE,    /* operations launch at once */
    CUDA_CAPTURE, /* operations are recorded; the pass runs at its end */
    CUDA_REPLAY,  /* operations only refill their arguments */
} cuda_mode;

typedef struct cuda_graph cuda_graph;
typedef struct cuda_pending cuda_pending;

typedef struct {
    int device, sms;
    bool hopper; /* compute capability 9.0: wgmma and bulk tensor copies */
    bool early;  /* kernels may start while the one before drains */
    size_t total;     /* bytes of device memory */
    bool ranges; /* passes and launches are marked for profilers (nvtx.c) */
    char name[64];
    cudaStream_t q;
    cuda_mode mode;
    bool in_pass;

    char *args_host, *args; /* pinned, and its device mirror */
    size_t args_used;
    char *results_host; /* pinned: what downloads of a pass land in until sync */
    size_t results_used;
    cuda_pending *pending;
    int pendings;

    char *stage[2]; /* pinned: weights on their way to the device */
    cudaEvent_t stage_free[2];
    int stage_next;

    void *tile; /* the head's statistics and logits */
    size_t tile_bytes;
    void *split; /* parts of attention over few rows and many keys */
    size_t split_bytes;
    void *quarters; /* Hopper: counters, then sums of quarters (gemm_hopper.cuh) */
    void *fp8; /* activations rounded to 8 bits and their row scales */
    size_t fp8_bytes;
    void *thirds; /* activations cut into parts */
    size_t thirds_bytes;
    void *groups; /* parts of group_norm's statistics */
    size_t groups_bytes;

    cuda_graph *graph; /* of recent pass shapes */
    cuda_graph *current;
    uint64_t clock;
    PFN_cuTensorMapEncodeTiled_v12000 encode; /* the driver's, on Hopper */
    const void **shares_most; /* CUDA_KERNELS places of a hash table: cuda_share_most */
} cuda;

enum {
    CUDA_ARGS = 16 << 20,    /* bytes of arguments of one pass */
    CUDA_RESULTS = 4 << 20,  /* bytes of results of one pass */
    CUDA_TILE = 64 << 20,    /* bytes of logits at a time */
    CUDA_QUARTERS_N = 4224,  /* outputs of matrices whose sums are made of quarters, at most */
    CUDA_QUARTERS_DONE = 1 << 10,
    CUDA_QUARTERS_ROWS = 256, /* up to which different blocks take the quarters */
    CUDA_QUARTERS = /* bytes; a column of 128 more, as there may be one beyond the outputs */
        CUDA_QUARTERS_DONE + 4 * CUDA_QUARTERS_ROWS * (CUDA_QUARTERS_N + 128) * 4,
    CUDA_COUNTERS = 4 << 20, /* bytes of counters of split attention */
    CUDA_KERNELS = 4096, /* some times as many as there are */
};

/* What a product over groups of rows, each with a matrix of its own, reads of one; device. */
typedef struct {
    CUtensorMap map; /* on Hopper: boxes of CUDA_CARD_ROWS rows of bfloat16 or e4m3 */
    const void *data;
    const float *scale;
} cuda_card;
enum { CUDA_CARD_ROWS = 128 };

struct tt_matrix {
    int64_t n, k, kp; /* outputs, inputs, elements of a row: a multiple of 16 bytes, or thirds */
    tt_compute compute;
    unsigned flags;
    bool fp8;     /* elements are e4m3, scaled per row */
    bool thirds;  /* compute is F32, each element three bfloat16: see CUDA_THIRD */
    void *data;   /* device, [n][kp]: float, bfloat16 or e4m3; GLU: gate and up rows in turns */
    float *scale; /* device [n] or NULL */
    float *bias;  /* device [n] or NULL */
    cuda_card *card; /* device; NULL unless opened for `linear` */
    size_t bytes;
};

enum { CUDA_SPLIT_RUN = 8 }; /* columns that are stored together */

/* Rows in thirds (TT_COMPUTE_THIRDS): of 64 inputs first the smallest parts, then the middle ones,
 * then the largest, then the next 64; zeros behind the last input. */
enum { CUDA_THIRD = 64 };
static inline int64_t cuda_thirds_width(int64_t k)
{
    return (k + CUDA_THIRD - 1) / CUDA_THIRD * 3 * CUDA_THIRD;
}

/* GLU matrices hold eight gate rows, then the eight up rows that belong to them, and so on. */
enum { CUDA_GLU_RUN = 8 };

/* Rows as stored: the last runs of a gated pair may be short, the rest of them is zero. */
static inline int64_t cuda_matrix_rows(const tt_matrix *m)
{
    if (!(m->flags & TT_MATRIX_GLU))
        return m->n;
    return (m->n / 2 + CUDA_GLU_RUN - 1) / CUDA_GLU_RUN * 2 * CUDA_GLU_RUN;
}

/* Makes a device current on the calling thread. */
void cuda_use_device(int device);

/* Every operation begins with this: the current device is a thread's, and the stream may have been
 * opened by another one. */
static inline cuda *cuda_of(const tt_stream *s)
{
    cuda *c = (cuda *)s->impl;
    cuda_use_device(c->device);
    return c;
}

/* Turns a CUDA error into a status and a sentence that starts with what. */
tt_status cuda_check(cudaError_t code, const char *what, tt_err *e);
/* After a launch. */
tt_status cuda_launched(const cuda *c, const char *what, tt_err *e);
/* Are kernels to be launched (or recorded), or are only arguments wanted? */
static inline bool cuda_runs(const cuda *c) { return c->mode != CUDA_REPLAY; }

/* Copies n host bytes to the device as an argument; *out is their device address. room: bytes the
 * argument takes at most in any pass of the same key (the same on every call). */
tt_status cuda_arg(cuda *c, void **out, const void *host, size_t n, size_t room, tt_err *e);
/* Room for an argument to be filled by the caller before the next call of any cuda_ function,
 * then sent with cuda_arg_send(). */
tt_status cuda_arg_room(cuda *c, void **host, void **out, size_t room, tt_err *e);
tt_status cuda_arg_send(cuda *c, const void *host, size_t n, tt_err *e);
/* Entries to make room for in a list of n: passes of one key have lists of one power of two. */
static inline int64_t cuda_list_room(int64_t n)
{
    int64_t room = 1;
    while (room < n)
        room *= 2;
    return room;
}
/* Copies device memory to *host after the next sync; within a pass also on every replay. */
tt_status cuda_result(cuda *c, void *host, const void *src, size_t n, tt_err *e);
/* Drops all recorded passes, which hold addresses of memory that is about to go: while nothing is
 * under way, to be recorded again under the same keys; or when it is done, and the keys as well. */
void cuda_drop_passes(cuda *c);
void cuda_forget_passes(cuda *c);
/* The pass under way, if any, cannot be recorded. */
void cuda_refuse_pass(cuda *c);
/* Grows a device buffer of the stream. Within a pass the size must follow from its key, except for
 * c->split, whose address kernels learn from an argument. */
tt_status cuda_reserve(cuda *c, void **p, size_t *have, size_t need, tt_err *e);
/* Asks for the most shared memory a multiprocessor can have while the kernel runs; once for each
 * kernel, as the driver remembers it and asking is host time. */
tt_status cuda_share_most(const cuda *c, const void *kernel, const char *what, tt_err *e);

/* Named ranges for profilers, when asked for. */
void cuda_range_begin(const cuda *c, const char *name);
void cuda_range_end(const cuda *c);

tt_status cuda_memory_open(cuda *c, tt_err *e);
void cuda_memory_close(cuda *c);
tt_status cuda_passes_open(cuda *c, tt_err *e);
void cuda_passes_close(cuda *c);

tt_op_alloc tt_cuda_alloc;
tt_op_release tt_cuda_release;
tt_op_upload tt_cuda_upload;
tt_op_download tt_cuda_download;
tt_op_sync tt_cuda_sync;
tt_op_pass_begin tt_cuda_pass_begin;
tt_op_pass_end tt_cuda_pass_end;
tt_op_bucket tt_cuda_bucket;
tt_op_matrix_open tt_cuda_matrix_open;
tt_op_matrix_close tt_cuda_matrix_close;
tt_op_matrix_size tt_cuda_matrix_size;
tt_op_linear tt_cuda_linear;
tt_op_glu tt_cuda_glu;
tt_op_embed tt_cuda_embed;
tt_op_rmsnorm tt_cuda_rmsnorm;
tt_op_rmsnorm_twice tt_cuda_rmsnorm_twice;
tt_op_gather tt_cuda_gather;
tt_op_cfg_mix tt_cuda_cfg_mix;
tt_op_swiglu tt_cuda_swiglu;
tt_op_add tt_cuda_add;
tt_op_rmsnorm_heads tt_cuda_rmsnorm_heads;
tt_op_adaln tt_cuda_adaln;
tt_op_gate_add tt_cuda_gate_add;
tt_op_gelu tt_cuda_gelu;
tt_op_route tt_cuda_route;
tt_op_linear_grouped tt_cuda_linear_grouped;
tt_op_combine tt_cuda_combine;
tt_op_ceilings tt_cuda_ceilings;
tt_op_memory tt_cuda_memory;
tt_op_rope_table tt_cuda_rope_table;
tt_op_rope tt_cuda_rope;
tt_op_rope_store tt_cuda_rope_store;
tt_op_attention tt_cuda_attention;
tt_op_head tt_cuda_head;
tt_op_head_key tt_cuda_head_key;
tt_op_head_kl tt_cuda_head_kl;
tt_op_head_mean tt_cuda_head_mean;
tt_op_add_scaled tt_cuda_add_scaled;
tt_op_attention_biased tt_cuda_attention_biased;
tt_op_multiply tt_cuda_multiply;
tt_op_layernorm tt_cuda_layernorm;
tt_op_layernorm_heads tt_cuda_layernorm_heads;
tt_op_unit tt_cuda_unit;
tt_op_gelu_erf tt_cuda_gelu_erf;
tt_op_linear_gelu tt_cuda_linear_gelu;
tt_op_linear_split tt_cuda_linear_split;
tt_op_gate_adaln tt_cuda_gate_adaln;
tt_op_scatter tt_cuda_scatter;
tt_op_conv3x3 tt_cuda_conv3x3;
tt_op_group_norm tt_cuda_group_norm;
tt_op_average_pool tt_cuda_average_pool;
tt_op_nearest tt_cuda_nearest;
tt_op_copy_rows tt_cuda_copy_rows;
tt_op_blend tt_cuda_blend;
tt_op_row_products tt_cuda_row_products;
tt_op_truncated_normal tt_cuda_truncated_normal;
tt_op_span_key tt_cuda_span_key;

/* --- between the GEMM's files --- */

/* y = x w^T with what the epilogue adds. */
typedef struct {
    void *y;
    int64_t ldy;
    const void *x;
    int64_t ldx, rows;
    const tt_matrix *w;
    bool add;       /* y += */
    bool glu;       /* y = silu(even runs) * odd runs */
    bool gelu;      /* of the sum with its bias */
    bool narrow;    /* x and y are bfloat16 though the weights are float32 */
    bool wide;      /* y is float32 whatever the activations are (logits) */
    const void *x8; /* e4m3 activations and their scales instead of x */
    const float *x8_scale;
    /* index not NULL: columns from `split` on go to row index[r] of z instead; device. Products of
     * bfloat16 on Hopper alone. */
    const int32_t *index;
    void *z;
    int64_t ldz, split; /* split: a multiple of CUDA_SPLIT_RUN */
    /* Not NULL: rows [begin[i], begin[i + 1]) take the matrix of card[i] instead of w, which then
     * tells the shape of all of them alone. Device. */
    const cuda_card *const *card;
    const int32_t *begin;
    int groups;
} cuda_gemm;

/* By whichever kernel takes the shape. Fills in x8 for e4m3 weights. */
tt_status cuda_gemm_run(cuda *c, cuda_gemm *g, tt_err *e);
/* bfloat16 by mma.sync, compute capability 8.0 and later; false if it cannot take this shape. */
bool cuda_gemm_mma_fits(const cuda_gemm *g);
tt_status cuda_gemm_mma(cuda *c, const cuda_gemm *g, tt_err *e);
/* bfloat16 and e4m3 by wgmma on compute capability 9.0. */
bool cuda_gemm_hopper_fits(const cuda_gemm *g);
tt_status cuda_gemm_hopper(cuda *c, const cuda_gemm *g, tt_err *e);
tt_status cuda_gemm_hopper_grouped(cuda *c, const cuda_gemm *g, tt_err *e);
/* Float32 by wgmma on compute capability 9.0; weights in thirds. */
tt_status cuda_gemm_hopper_thirds(cuda *c, const cuda_gemm *g, tt_err *e);
/* rows x k float32 numbers, k a multiple of 4 where x takes 16-byte accesses, in thirds; *out is
 * the stream's until the next call. */
tt_status cuda_cut_thirds(cuda *c, const void **out, const float *x, int64_t ldx, int64_t rows,
                          int64_t k, tt_err *e);
/* Of rows of k inputs, how many to cut at a time, so that their parts take little memory. */
int64_t cuda_thirds_at_once(int64_t k);
/* The map of a matrix's card. */
tt_status cuda_gemm_hopper_map(const cuda *c, CUtensorMap *map, const tt_matrix *m, tt_err *e);

/* --- between the convolution's files --- */

/* y = x convolved with w, as tt_op_conv3x3; sizes already checked. */
typedef struct {
    void *y;
    int64_t ldy;
    const void *x;
    int64_t ldx;
    const tt_image_shape *shape;
    const tt_matrix *w;
    bool add; /* y += */
} cuda_conv;

/* bfloat16 by wgmma on compute capability 9.0. */
bool cuda_conv_hopper_fits(const cuda_conv *v);
tt_status cuda_conv_hopper(cuda *c, const cuda_conv *v, tt_err *e);
/* Float32, weights in thirds, channels in multiples of CUDA_THIRD. */
tt_status cuda_conv_hopper_thirds(cuda *c, const cuda_conv *v, tt_err *e);

#ifdef __cplusplus
}
#endif

#endif
