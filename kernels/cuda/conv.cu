/* conv.cu - 3x3 convolution as a matrix product whose left side is gathered on the way into shared
 * memory: row r is a pixel, input (3 u + v) * channels + h is channel h of its neighbour (u, v).
 *
 * Two kernels beside Hopper's own (conv_hopper.cu): bfloat16 by mma.sync, 128 pixels by 128
 * outputs a block (the tile of gemm_mma.cu); and one for any shape and type by fused multiply-adds
 * in float32, which is how codes are found, where rounding the operands could turn one. Either sums
 * an output over the inputs in order. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/mma.cuh"

namespace {

struct args {
    int64_t ldx, ldy;
    int rows, n, k, kp;            /* pixels, outputs, inputs */
    int height, width, channels;   /* of y; channels of x */
    int up;                        /* 1: x has half of both sizes */
    const float *scale, *bias;
    bool add;
};

/* Where a pixel of y lies, found once and then moved from neighbour to neighbour. */
struct pixel {
    int image_row; /* rows of pixels of x before its image */
    int y, x;      /* y < 0: no pixel */
};

__device__ pixel find_pixel(const args &p, int r)
{
    if (r >= p.rows)
        return {0, -4, 0};
    int x = r % p.width, line = r / p.width, y = line % p.height;
    return {line / p.height * (p.height >> p.up), y, x};
}

/* Row of x of a pixel's neighbour, or -1 outside the image. tap = 3 u + v. */
__device__ int neighbour(const args &p, pixel at, int tap)
{
    int y = at.y + tap / 3 - 1, x = at.x + tap % 3 - 1;
    bool inside = y >= 0 && y < p.height && x >= 0 && x < p.width && at.y >= 0;
    return inside ? (at.image_row + (y >> p.up)) * (p.width >> p.up) + (x >> p.up) : -1;
}

__device__ float finish(const args &p, float v, int col)
{
    if (p.scale)
        v *= p.scale[col];
    return p.bias ? v + p.bias[col] : v;
}

/* --- bfloat16, tensor cores --- */

/* Thread t loads part t % 4 of rows t / 4 and t / 4 + 64 of both tiles. */
__global__ void __launch_bounds__(kThreads) conv_mma(bf16 *y, const bf16 *x, const bf16 *w, args p)
{
    extern __shared__ __align__(128) char raw[];
    bf16 *ring = (bf16 *)raw;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int m0 = blockIdx.x * kM, n0 = blockIdx.y * kN;
    int steps = (p.kp + kK - 1) / kK, part = threadIdx.x % 4, row = threadIdx.x / 4;
    const pixel at[2] = {find_pixel(p, m0 + row), find_pixel(p, m0 + row + 64)};
    float d[4][4][4] = {};
    begin();
    auto fetch = [&](int s) {
        if (s < steps) {
            bf16 *to = ring + s % kStages * kStage;
            int k = s * kK + part * 8, tap = k / p.channels, h = k - tap * p.channels;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int from = k < p.k ? neighbour(p, at[i], tap) : -1, out = n0 + row + 64 * i;
                fetch16(to + place(row + 64 * i, part), x + (from < 0 ? 0 : from * p.ldx + h),
                        from >= 0);
                bool there = out < p.n && k < p.kp;
                fetch16(to + kM * kK + place(row + 64 * i, part),
                        w + (there ? (int64_t)out * p.kp + k : 0), there);
            }
        }
        asm volatile("cp.async.commit_group;");
    };
    for (int s = 0; s < kStages - 1; s++)
        fetch(s);
    for (int s = 0; s < steps; s++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2));
        __syncthreads();
        fetch(s + kStages - 1);
        const bf16 *from = ring + s % kStages * kStage;
        step(d, from, from + kM * kK, warp, lane);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int q = 0; q < 4; q++) {
                int r = m0 + warp / 4 * 64 + 16 * i + lane / 4 + q / 2 * 8;
                int out = n0 + warp % 4 * 32 + 8 * j + 2 * (lane % 4) + q % 2;
                if (r >= p.rows || out >= p.n)
                    continue;
                float v = finish(p, d[i][j][q], out);
                bf16 *to = y + r * p.ldy + out;
                put(to, p.add ? v + get(*to) : v);
            }
}

/* --- any shape: 128 pixels by 64 outputs a block, 8 x 4 a thread --- */

constexpr int kRows = 128, kCols = 64, kDepth = 16;

template <typename T, typename W>
__global__ void __launch_bounds__(kThreads) conv_any(T *y, const T *x, const W *w, args p)
{
    __shared__ __align__(16) float xs[kDepth][kRows + 4], ws[kDepth][kCols + 4];
    int m0 = blockIdx.x * kRows, n0 = blockIdx.y * kCols;
    int depth = threadIdx.x % kDepth, first = threadIdx.x / kDepth; /* what this thread loads */
    int tr = threadIdx.x / 16 * 8, tj = threadIdx.x % 16 * 4;
    pixel at[kRows / 16];
#pragma unroll
    for (int i = 0; i < kRows / 16; i++)
        at[i] = find_pixel(p, m0 + first + 16 * i);
    float acc[8][4] = {};
    begin();
    for (int k0 = 0; k0 < p.k; k0 += kDepth) {
        int k = k0 + depth, tap = k / p.channels, h = k - tap * p.channels;
#pragma unroll
        for (int i = 0; i < kRows / 16; i++) {
            int from = k < p.k ? neighbour(p, at[i], tap) : -1;
            xs[depth][first + 16 * i] = from < 0 ? 0.0f : get(x[from * p.ldx + h]);
        }
#pragma unroll
        for (int i = 0; i < kCols / 16; i++) {
            int out = n0 + first + 16 * i;
            ws[depth][first + 16 * i] =
                k < p.k && out < p.n ? weight_at(w, (int64_t)out * p.kp, k) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < kDepth; d++) {
            float4 b = *reinterpret_cast<const float4 *>(&ws[d][tj]);
            const float wb[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int a = 0; a < 8; a++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    acc[a][j] = fmaf(xs[d][tr + a], wb[j], acc[a][j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int a = 0; a < 8; a++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int r = m0 + tr + a, out = n0 + tj + j;
            if (r >= p.rows || out >= p.n)
                continue;
            float v = finish(p, acc[a][j], out);
            T *to = y + r * p.ldy + out;
            put(to, p.add ? v + get(*to) : v);
        }
}

tt_status run_mma(cuda *c, bf16 *y, const bf16 *x, const tt_matrix *w, const args &p, tt_err *e)
{
    constexpr size_t bytes = sizeof(bf16) * kStage * kStages;
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, conv_mma, bytes, "conv3x3", e);
    dim3 grid(blocks(p.rows, kM), blocks(p.n, kN));
    return st ? st
              : launch(c, "conv3x3", conv_mma, grid, kThreads, bytes, e, y, x,
                       (const bf16 *)w->data, p);
}

template <typename T, typename W>
tt_status run_any(cuda *c, tt_act *y, const tt_act *x, const tt_matrix *w, const args &p, tt_err *e)
{
    dim3 grid(blocks(p.rows, kRows), blocks(p.n, kCols));
    return launch(c, "conv3x3", conv_any<T, W>, grid, kThreads, 0, e, (T *)y, (const T *)x,
                  (const W *)w->data, p);
}

bool bad(const tt_image_shape *p, const tt_matrix *w, int64_t ldx, int64_t ldy)
{
    bool sizes = p->images < 0 || p->height < 1 || p->width < 1 || p->channels < 1 ||
                 p->images > INT32_MAX || p->height > INT32_MAX || p->width > INT32_MAX ||
                 p->channels > INT32_MAX / 9 || p->height * p->width > INT32_MAX ||
                 p->images * p->height > INT32_MAX / p->width;
    return sizes || (p->up && (p->height % 2 || p->width % 2)) || w->k != 9 * p->channels ||
           ldx < p->channels || ldy < w->n;
}

} // namespace

extern "C" tt_status tt_cuda_conv3x3(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x,
                                     int64_t ldx, const tt_image_shape *shape, const tt_matrix *w,
                                     bool add, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (bad(shape, w, ldx, ldy))
        return tt_fail(e, TT_EINVAL,
                       "conv3x3: %lld images of %lld x %lld pixels, %lld channels, stride %lld, "
                       "%lld inputs",
                       (long long)shape->images, (long long)shape->height, (long long)shape->width,
                       (long long)shape->channels, (long long)ldx, (long long)w->k);
    bool narrow = s->act == TT_BF16;
    if (!(w->flags & TT_MATRIX_LINEAR) || (w->flags & TT_MATRIX_GLU) || w->fp8 ||
        (w->compute == TT_COMPUTE_BF16) != narrow)
        return tt_fail(e, TT_EINVAL, "conv3x3: matrix flags %u, %s activations", w->flags,
                       tt_dtype_name(s->act));
    args p = {ldx, ldy, (int)(shape->images * shape->height * shape->width), (int)w->n, (int)w->k,
              (int)w->kp, (int)shape->height, (int)shape->width, (int)shape->channels, shape->up,
              w->scale, w->bias, add};
    if (p.rows == 0)
        return TT_OK;
    const cuda_conv all = {y, ldy, x, ldx, shape, w, add};
    if (w->thirds)
        return p.channels % CUDA_THIRD ? run_any<float, third>(c, y, x, w, p, e)
                                       : cuda_conv_hopper_thirds(c, &all, e);
    if (!narrow)
        return run_any<float, float>(c, y, x, w, p, e);
    if (c->hopper && cuda_conv_hopper_fits(&all))
        return cuda_conv_hopper(c, &all, e);
    if (p.channels % 8 == 0 && ldx % 8 == 0 && aligned16(x))
        return run_mma(c, (bf16 *)y, (const bf16 *)x, w, p, e);
    return run_any<bf16, bf16>(c, y, x, w, p, e);
}
