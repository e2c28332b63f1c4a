/* onednn.h - the oneDNN plug-in: matrix products of oneDNN (2.6, C interface) on Tutti's threads.
 *
 * Only weights and `linear` are here; the registry takes the other operations from the built-in
 * table. What oneDNN does well on x86 is its matmul with packed weights and contiguous matrices
 * (implementation names starting with "brg"): near peak from 8 rows on, and the same bits for a
 * row in any batch. Everything else in it - run-time sizes, strides, older processors - silently
 * takes another path whose bits do change with the batch, so this plug-in asks for that one
 * implementation by name and declines to open without it.
 *
 * Every primitive runs on one thread: the pool cuts the work, OpenMP sees a team of one. */
#ifndef TT_ONEDNN_H
#define TT_ONEDNN_H

#include <dnnl.h>
#include <stdatomic.h>

#include "kernels/backend.h"

/* Rows of one primitive. A batch is a sum of these, so that few primitives serve any batch: they
 * take 0.1 ms each to create. */
enum { MOST_ROWS = 64 };

typedef enum {
    PRODUCT, /* [m, k] x packed [k, n] -> float32 [m, n] */
    CONVERT, /* float32 [m, k] of stride n -> bfloat16 [m, k] */
} step_kind;

typedef struct {
    step_kind kind;
    dnnl_data_type_t type; /* of the operands */
    int64_t m, n, k;
} step_shape;

/* A primitive and what a call of it needs. Handles are per thread: setting their address is not
 * thread-safe. */
typedef struct step {
    step_shape shape;
    dnnl_primitive_t primitive;
    size_t scratch_bytes;
    dnnl_memory_t *from, *to, *scratch; /* one per thread */
    struct step *next;                  /* in its bucket */
} step;

enum { BUCKETS = 256 };

typedef struct {
    dnnl_engine_t engine;
    dnnl_stream_t *stream; /* one per thread */
    int threads;
    bool bf16;        /* the products of bfloat16 are of the good kind too */
    char name[2][48]; /* of the implementations, by tt_compute */
    step *bucket[BUCKETS];
    unsigned char *work; /* work_bytes per thread: operands, results, oneDNN's scratch */
    size_t work_bytes;
} onednn;

/* Columns [at, at + n) of a weight, packed. */
typedef struct {
    int64_t at, n;
    dnnl_memory_t packed;
    void *data;
} piece;

struct tt_matrix {
    int64_t n, k;
    tt_compute compute;
    unsigned flags;
    dnnl_data_type_t type; /* of the operands: float32 where bfloat16 is not fast */
    piece *pieces;
    int n_pieces;
    float *bias, *scale; /* n, or NULL */
    tt_weight *part;
    int parts;
    size_t bytes;
};

tt_status tt_onednn_check(dnnl_status_t st, const char *doing, tt_err *e);
/* The primitive of a shape, made when it is first asked for. */
tt_status tt_onednn_step(onednn *d, step_shape shape, step **out, tt_err *e);
void tt_onednn_forget_steps(onednn *d);
/* The packed form of a [k, n] weight and the implementation's name (may be NULL). */
tt_status tt_onednn_layout(onednn *d, dnnl_data_type_t type, int64_t n, int64_t k,
                           dnnl_memory_desc_t *packed, char name[48], tt_err *e);

tt_op_matrix_open tt_onednn_matrix_open;
tt_op_matrix_close tt_onednn_matrix_close;
tt_op_matrix_size tt_onednn_matrix_size;
tt_op_linear tt_onednn_linear;
tt_op_embed tt_onednn_embed;

#endif
