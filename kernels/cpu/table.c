/* table.c - the two built-in backends: the twins alone, and the best version of each operation
 * for this processor. */
#include <stdio.h>

#include "kernels/base/cpu.h"
#include "kernels/cpu/cpu.h"

static tt_status probe(int *devices, tt_err *e)
{
    (void)e;
    *devices = 1;
    return TT_OK;
}

static tt_status open_stream(tt_stream *s, int device, tt_err *e)
{
    (void)s;
    return device ? tt_fail(e, TT_ENODEV, "there is one CPU device, not number %d", device) : TT_OK;
}

static void close_stream(tt_stream *s)
{
    (void)s;
}

static void describe_twin(const tt_stream *s, char *text, size_t size)
{
    snprintf(text, size, "plain C, %d threads", tt_pool_threads(s->pool));
}

static bool only_f32(const tt_stream *s, tt_compute c)
{
    (void)s;
    return c == TT_COMPUTE_F32;
}

static bool f32_and_bf16(const tt_stream *s, tt_compute c)
{
    (void)s;
    return c == TT_COMPUTE_F32 || c == TT_COMPUTE_BF16;
}

static void describe_cpu(const tt_stream *s, char *text, size_t size)
{
    snprintf(text, size, "%s, %d threads", tt_cpu_level_name(tt_cpu_level_get()),
             tt_pool_threads(s->pool));
}

#define TWIN(op) .op = tt_cpu_##op,
#define FRAME(id, line, describe_fn, has)                                                       \
    .abi = TT_BACKEND_ABI, .size = sizeof(tt_backend), .name = id, .summary = line,             \
    .flags = TT_BACKEND_HOST | TT_BACKEND_HOLES, .probe = probe, .open = open_stream,           \
    .close = close_stream, .describe = describe_fn, .has_compute = has,                         \
    .ceilings = tt_cpu_ceilings, .memory = tt_cpu_memory, TT_OPS(TWIN) TT_SOME_OPS(TWIN)
#define FASTER(level, products)                                                            \
    .matrix_open = tt_##products##_matrix_open, .attention = tt_##products##_attention,    \
    .attention_biased = tt_##products##_attention_biased, .linear = tt_cpu_linear_packed,  \
    .rmsnorm = tt_##level##_rmsnorm, .cfg_mix = tt_##level##_cfg_mix,                      \
    .swiglu = tt_##level##_swiglu, .rope = tt_##level##_rope, .head = tt_##level##_head,   \
    .gelu = tt_##level##_gelu, .group_norm = tt_##level##_group_norm

/* A later initialiser of a member replaces an earlier one: the twins first, then what is faster. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"

static const tt_backend twin = {
    FRAME("twin", "plain C definitions, for tests", describe_twin, only_f32)};

static const tt_backend scalar = {FRAME("cpu", "built-in, plain C", describe_cpu, only_f32)};

#if defined(__x86_64__)
static const tt_backend avx2 = {FRAME("cpu", "built-in, AVX2", describe_cpu, only_f32)
                                    FASTER(avx2, avx2)};

static const tt_backend avx512 = {FRAME("cpu", "built-in, AVX-512", describe_cpu, only_f32)
                                      FASTER(avx512, avx512)};

static const tt_backend avx512_bf16 = {
    FRAME("cpu", "built-in, AVX-512 with bfloat16", describe_cpu, f32_and_bf16)
        FASTER(avx512, avx512_bf16)};
#endif

#pragma GCC diagnostic pop

const tt_backend *tt_backend_twin(void)
{
    return &twin;
}

const tt_backend *tt_backend_cpu(void)
{
    static const tt_backend *const of_level[TT_CPU_LEVELS] = {
        [TT_CPU_SCALAR] = &scalar,
#if defined(__x86_64__)
        [TT_CPU_AVX2] = &avx2,
        [TT_CPU_AVX512] = &avx512,
        [TT_CPU_AVX512_BF16] = &avx512_bf16,
#endif
    };
    return of_level[tt_cpu_level_get()];
}
