/* backend.h - the table a device provides, and how one is chosen.
 *
 * A backend is a const struct: built in (cpu) or returned by a plug-in opened at run time
 * (tutti-onednn.so, tutti-cuda.so). A stream is one opened device with its threads and scratch
 * memory; it belongs to one thread at a time (the engine's). */
#ifndef TT_BACKEND_H
#define TT_BACKEND_H

#include "kernels/base/arena.h"
#include "kernels/base/buf.h"
#include "kernels/base/pool.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TT_BACKEND_ABI = 4 };

enum {
    TT_BACKEND_HOST = 1 << 0, /* device memory is host memory: missing operations are taken from
                                 the cpu table */
    TT_BACKEND_HOLES = 1 << 1, /* attention knows tt_span.hole; without it no span has one */
};

typedef struct tt_backend {
    uint32_t abi;  /* TT_BACKEND_ABI at the time of building */
    uint32_t size; /* sizeof(tt_backend) there: new members go at the end */
    const char *name;
    const char *summary; /* one line for `tutti doctor` */
    uint32_t flags;
    /* How many devices there are; TT_ENODEV with a reason, never a crash. */
    tt_status (*probe)(int *devices, tt_err *e);
    /* Sets s->impl; s->pool is already there. */
    tt_status (*open)(tt_stream *s, int device, tt_err *e);
    void (*close)(tt_stream *s);
    /* "AMD EPYC, avx512+bf16, 2 threads, oneDNN 2.6 (brg:avx512_core_bf16)" */
    void (*describe)(const tt_stream *s, char *text, size_t size);
    bool (*has_compute)(const tt_stream *s, tt_compute c); /* fast, not merely possible */
#define TT_OP_MEMBER(name) tt_op_##name *name;
    TT_OPS(TT_OP_MEMBER)
    TT_OPTIONAL_OPS(TT_OP_MEMBER) /* may be NULL */
    TT_SOME_OPS(TT_OP_MEMBER)     /* NULL only where memory is not the host's */
#undef TT_OP_MEMBER
} tt_backend;

struct tt_stream {
    tt_backend op;    /* the chosen table, complete: missing entries filled in */
    tt_pool *pool;    /* host threads */
    tt_dtype act;     /* of activations: set by the model that runs, from act_type */
    tt_arena scratch; /* host scratch of the running operation; grows to its high-water mark */
    tt_arena tile;    /* the head's logits, which outlive the `linear` that fills them */
    void *impl;       /* the backend's own */
};

/* device: "auto" (the best that works), "cpu" (the fastest on this processor: oneDNN's matrix
 * products where they can use AMX tiles, else our own), "onednn" (the plug-in or nothing), "plain"
 * (the built-in table alone), "twin" (the plain C definitions alone: slow, for tests), "cuda" or
 * "cuda:N". threads: of the CPU; 0 = cores - 1, at least 1.
 * Fails with TT_ENODEV and the reason; "auto" falls back to the CPU and says why in the log. */
tt_status tt_stream_open(tt_stream **out, const char *device, int threads, tt_err *e);
void tt_stream_close(tt_stream *s); /* NULL is fine */

/* One line per backend for `tutti doctor`: works or not, and why not. Appends to out; returns how
 * many work. */
int tt_backend_report(tt_buf *out);

/* The built-in tables (kernels/cpu/table.c). */
const tt_backend *tt_backend_cpu(void);
const tt_backend *tt_backend_twin(void);

#ifdef __cplusplus
}
#endif

#endif
