/* cuda.h - what the tests of the CUDA plug-in share: a stream on the GPU and one of the twins,
 * copies between them in either type of activations, random weights. */
#ifndef TT_TEST_CUDA_H
#define TT_TEST_CUDA_H

#include "tests/kernels/ops.h"

static tt_stream *gpu, *twin;

static inline int open_streams(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_log_set_level(TT_LOG_WARN);
    tt_status s = tt_stream_open(&gpu, "cuda", 2, &e);
    if (s)
        printf("no GPU: %s\n", e.text);
    return tt_stream_open(&twin, "twin", 2, &e) ? -1 : 0;
}
static inline int close_streams(void **state)
{
    (void)state;
    tt_stream_close(gpu);
    tt_stream_close(twin);
    return 0;
}

/* --- device copies --- */

/* Zeros: what lies between the rows of a result is downloaded too. */
static inline void *device(size_t bytes)
{
    tt_err e = {0};
    void *p, *zeros = calloc(1, bytes + 64);
    test_ok(gpu->op.alloc(gpu, &p, bytes + 64, &e), &e);
    test_ok(gpu->op.upload(gpu, p, zeros, bytes + 64, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    free(zeros);
    return p;
}
static inline void *to_device(const void *host, size_t bytes)
{
    tt_err e = {0};
    void *p = device(bytes);
    test_ok(gpu->op.upload(gpu, p, host, bytes, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
    return p;
}
static inline void from_device(void *host, const void *p, size_t bytes)
{
    tt_err e = {0};
    test_ok(gpu->op.download(gpu, host, p, bytes, &e), &e);
    test_ok(gpu->op.sync(gpu, &e), &e);
}
/* Activations: float32 or rounded to bfloat16, as gpu->act says; the host copy is rounded too. */
static inline void *acts(float *x, int64_t n)
{
    if (gpu->act == TT_F32)
        return to_device(x, (size_t)n * 4);
    uint16_t *half = malloc((size_t)n * 2 + 2);
    for (int64_t i = 0; i < n; i++) {
        half[i] = tt_f32_to_bf16(x[i]);
        x[i] = tt_bf16_to_f32(half[i]);
    }
    void *p = to_device(half, (size_t)n * 2);
    free(half);
    return p;
}
static inline float *floats(const void *p, int64_t n)
{
    float *x = malloc((size_t)n * 4 + 4);
    if (gpu->act == TT_F32) {
        from_device(x, p, (size_t)n * 4);
        return x;
    }
    uint16_t *half = malloc((size_t)n * 2 + 2);
    from_device(half, p, (size_t)n * 2);
    for (int64_t i = 0; i < n; i++)
        x[i] = tt_bf16_to_f32(half[i]);
    free(half);
    return x;
}
static bool in_thirds; /* float32 products are TT_COMPUTE_THIRDS */

/* In thirds: a product is short of 2^-26 of itself; the multiplier cuts off at 2^-23 of a sum,
 * 2^-24 on average, at each of four steps (twelve of a convolution) that add the largest parts of
 * one sum of sums; and these are added by rounding, some 2^-25 sqrt(K / 64). Together 5e-7 at 4,096
 * inputs. */
static inline double tolerance(void)
{
    return gpu->act != TT_F32 ? 4e-3 : in_thirds ? 1e-6 : 1e-5;
}
static inline const char *kind(void)
{
    return gpu->act != TT_F32 ? "bf16" : in_thirds ? "f32 in thirds" : "f32";
}

static inline void need_gpu(void)
{
    if (!gpu)
        skip();
    in_thirds = false; /* whatever the test before came to */
}
#define BOTH_TYPES(body)                             \
    do {                                             \
        need_gpu();                                  \
        for (int t = 0; t < 2; t++) {                \
            gpu->act = t ? TT_BF16 : TT_F32;         \
            body;                                    \
        }                                            \
    } while (0)

#define IN_THIRDS(body)                                      \
    do {                                                     \
        need_gpu();                                          \
        if (!gpu->op.has_compute(gpu, TT_COMPUTE_THIRDS))    \
            skip();                                          \
        gpu->act = TT_F32;                                   \
        in_thirds = true;                                    \
        body;                                                \
        in_thirds = false;                                   \
    } while (0)

/* --- weights --- */

static inline tt_weight weight_of(tt_dtype type, int64_t n, int64_t k)
{
    size_t count = (size_t)(n * k);
    void *data = malloc(count * tt_dtype_size(type) + 1);
    for (size_t i = 0; i < count; i++) {
        float f = (float)((int)(test_word() % 2001) - 1000) * 5e-4f;
        if (type == TT_F32)
            ((float *)data)[i] = f;
        else if (type == TT_BF16)
            ((uint16_t *)data)[i] = tt_f32_to_bf16(f);
        else if (type == TT_F16)
            ((uint16_t *)data)[i] = (uint16_t)((test_word() & 0x83FF) | 0x3000);
        else
            ((int8_t *)data)[i] = (int8_t)(test_word() % 255 - 127);
    }
    tt_weight w = test_weight(data, type, n, k);
    if (type == TT_I8) {
        float *scale = malloc((size_t)n * 4);
        for (int64_t i = 0; i < n; i++)
            scale[i] = (0.5f + test_uniform()) / 127;
        w.scale = (tt_tensor){.data = scale, .dim = {n}, .rank = 1, .dtype = TT_F32};
    }
    return w;
}
static inline void free_weight(tt_weight *w)
{
    free((void *)(uintptr_t)w->data.data);
    free((void *)(uintptr_t)w->scale.data);
}
static inline tt_compute compute_of(void)
{
    if (gpu->act == TT_BF16)
        return TT_COMPUTE_BF16;
    return in_thirds ? TT_COMPUTE_THIRDS : TT_COMPUTE_F32;
}

static inline tt_matrix *open_on(tt_stream *s, const tt_weight *part, int parts, const float *bias,
                          tt_compute compute, unsigned flags)
{
    tt_err e = {0};
    tt_matrix *m = NULL;
    test_ok(s->op.matrix_open(s, &m, part, parts, bias, compute, flags, &e), &e);
    return m;
}

#endif
