/* device.cuh - small things every kernel uses: element types, vectors, reductions, launches.
 *
 * Kernels are launched with programmatic dependence where the GPU knows it: a kernel may start
 * while the one before it drains. So every kernel calls begin() before it touches anything another
 * kernel writes or reads; weights, which nobody writes, may be fetched before. */
#ifndef TT_DEVICE_CUH
#define TT_DEVICE_CUH

#include <cuda_bf16.h>

#include "kernels/cuda/cuda.h"

typedef __nv_bfloat16 bf16;

__device__ inline void wait_for_previous()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ inline void begin()
{
    let_next_start();
    wait_for_previous();
}

__device__ inline float get(float x) { return x; }
__device__ inline float get(bf16 x) { return __bfloat162float(x); }
__device__ inline void put(float *y, float x) { *y = x; }
__device__ inline void put(bf16 *y, float x) { *y = __float2bfloat16_rn(x); }
/* Rounded to the element type and back. */
__device__ inline float rounded(const float *, float x) { return x; }
__device__ inline float rounded(const bf16 *, float x)
{
    return __bfloat162float(__float2bfloat16_rn(x));
}

/* An element of rows in thirds (CUDA_THIRD). */
struct third {
    bf16 v;
};

/* x in three parts, smallest first. What rounds to an infinity has no rest. */
__device__ inline void cut(bf16 (&part)[3], float x)
{
    part[2] = __float2bfloat16_rn(x);
    float rest = isfinite(__bfloat162float(part[2])) ? x - __bfloat162float(part[2]) : 0.0f;
    part[1] = __float2bfloat16_rn(rest);
    part[0] = __float2bfloat16_rn(rest - __bfloat162float(part[1]));
}

/* Weight i of the row that begins at `row`. */
template <typename W> __device__ float weight_at(const W *w, int64_t row, int64_t i)
{
    return get(w[row + i]);
}
__device__ inline float weight_at(const third *w, int64_t row, int64_t i)
{
    const third *p = w + row + i / CUDA_THIRD * 3 * CUDA_THIRD + i % CUDA_THIRD;
    return get(p[0].v) + get(p[CUDA_THIRD].v) + get(p[2 * CUDA_THIRD].v);
}

/* x / (1 + exp(-y)), good to some 2^-21 of it: a rounded division and exponential take a multiple
 * of the instructions, and those of a tile's outputs are not hidden behind products. */
__device__ inline float gated(float x, float y) { return __fdividef(x, 1.0f + __expf(-y)); }
__device__ inline float silu(float x) { return gated(x, x); }

/* GELU in its tanh form: x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
__device__ inline float gelu_tanh(float x)
{
    return gated(x, 2.0f * 0.79788456f * fmaf(0.044715f * x * x, x, x));
}

/* 16 bytes as elements. */
template <typename T> struct pack {
    static constexpr int N = 16 / sizeof(T);
    union {
        uint4 raw;
        T v[N];
    };
};

template <typename T> __device__ inline pack<T> load16(const T *p)
{
    pack<T> v;
    v.raw = *reinterpret_cast<const uint4 *>(p);
    return v;
}
template <typename T> __device__ inline void store16(T *p, const pack<T> &v)
{
    *reinterpret_cast<uint4 *>(p) = v.raw;
}

__host__ __device__ inline bool aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }

template <typename T> __device__ inline T warp_sum(T x)
{
    for (int d = 16; d; d >>= 1)
        x += __shfl_xor_sync(~0u, x, d);
    return x;
}

/* The sum over a block of whole warps, in an order that depends on the block's size alone. */
template <typename T> __device__ inline T block_sum(T x)
{
    __shared__ T part[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0)
        part[warp] = x;
    __syncthreads();
    return warp_sum(lane < warps ? part[lane] : T(0));
}

/* Launches k on the stream unless only arguments are wanted, in clusters of so many blocks. All
 * kernels ask for the same division of a multiprocessor's memory, the most that can be shared: to
 * change it the multiprocessor must be idle, and kernels could not follow each other closely. */
template <typename... P, typename... A>
static tt_status launch_clusters(const cuda *c, const char *what, void (*k)(P...), dim3 grid,
                                 dim3 block, size_t shared, unsigned cluster, tt_err *e, A... a)
{
    if (!cuda_runs(c))
        return TT_OK;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = c->q;
    cudaLaunchAttribute attr[2] = {};
    attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[0].val.programmaticStreamSerializationAllowed = 1;
    attr[1].id = cudaLaunchAttributeClusterDimension;
    attr[1].val.clusterDim.x = cluster;
    attr[1].val.clusterDim.y = attr[1].val.clusterDim.z = 1;
    config.attrs = attr;
    config.numAttrs = c->early ? cluster > 1 ? 2 : 1 : 0;
    cuda_range_begin(c, what);
    tt_status st = c->early ? cuda_share_most(c, (const void *)k, what, e) : TT_OK;
    if (!st)
        st = cuda_check(cudaLaunchKernelEx(&config, k, P(a)...), what, e);
    cuda_range_end(c);
    return st;
}

template <typename... P, typename... A>
static tt_status launch(const cuda *c, const char *what, void (*k)(P...), dim3 grid, dim3 block,
                        size_t shared, tt_err *e, A... a)
{
    return launch_clusters(c, what, k, grid, block, shared, 1, e, a...);
}

/* Runs `call` with T as the stream's activation type. */
#define BY_TYPE(call)            \
    do {                         \
        if (s->act == TT_BF16) { \
            typedef bf16 T;      \
            return call;         \
        }                        \
        typedef float T;         \
        return call;             \
    } while (0)

/* Lets a kernel take so many bytes of shared memory; the setting is the kernel's on that device
 * for good, so it is made once for each: `devices` is a static of the caller, one bit a device. */
template <typename... P>
static tt_status allow_shared(const cuda *c, uint64_t *devices, void (*k)(P...), size_t bytes,
                              const char *what, tt_err *e)
{
    uint64_t mine = (uint64_t)1 << c->device % 64;
    if (c->device < 64 && __atomic_load_n(devices, __ATOMIC_RELAXED) & mine)
        return TT_OK;
    tt_status st = cuda_check(
        cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), what, e);
    if (!st)
        __atomic_fetch_or(devices, mine, __ATOMIC_RELAXED);
    return st;
}

/* Blocks for so many items, never more than a grid may have. */
static inline unsigned blocks(int64_t items, int64_t per_block)
{
    int64_t n = (items + per_block - 1) / per_block;
    return (unsigned)(n < 1 ? 1 : n > (1 << 30) ? 1 << 30 : n);
}

static inline tt_status shape_error(const char *op, int64_t rows, int64_t width, int64_t ld,
                                    tt_err *e)
{
    return tt_fail(e, TT_EINVAL, "%s: %lld rows of %lld, stride %lld", op, (long long)rows,
                   (long long)width, (long long)ld);
}
static inline bool bad_shape(int64_t rows, int64_t width, int64_t ld)
{
    return rows < 0 || width < 1 || ld < width || rows > INT32_MAX || width > INT32_MAX;
}

#endif
