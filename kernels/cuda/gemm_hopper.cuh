/* gemm_hopper.cuh - matrix products on Hopper: y = x w^T, all outputs of a tile summed over K in
 * order by one warpgroup, so that neither tile size nor row count changes a bit. Few outputs of
 * long sums, and e4m3, take sums of sums: see hopper_sum and kPromote.
 *
 * A block holds TM rows of x by TN rows of w. One warp feeds: bulk tensor copies of 128 bytes of K
 * at a time into a ring of stages; TM / 64 warpgroups multiply. Blocks are persistent and take
 * tiles in turn, all row tiles of a weight tile one after the other, so that weights come from
 * memory once. With few rows the time is that of reading the weights: TN is chosen so that the
 * tiles fill the multiprocessors, and the ring is filled with weights while the kernel before
 * still runs. Included by one .cu per element type, to be compiled side by side. */
#ifndef TT_GEMM_HOPPER_CUH
#define TT_GEMM_HOPPER_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/head.cuh"
#include "kernels/cuda/hopper.cuh"

enum hopper_out {
    OUT_ACT,  /* bfloat16 */
    OUT_GLU,  /* bfloat16, silu(even groups of 8 columns) * odd groups */
    OUT_WIDE, /* float32 */
    OUT_HEAD, /* statistics of rows of logits */
};

/* Long sums over few outputs are made of the sums of the quarters of K, in order, always: with few
 * rows four blocks then share a tile, each reading a quarter of the rows too. */
enum hopper_sum {
    WHOLE,       /* one sum */
    QUARTERS,    /* one block takes the four sums of a tile */
    ONE_QUARTER, /* a block takes one; the last to finish adds them up */
};

struct hopper_args {
    int64_t rows, n; /* n: rows of the weight as stored */
    int row_tiles, tiles, slabs; /* tiles times four and slabs of a quarter for ONE_QUARTER */
    void *y;
    int64_t ldy;
    int64_t width; /* columns of y */
    const float *scale, *bias, *x_scale;
    bool add, gelu, vector; /* vector: y takes 16-byte accesses */
    float *part;      /* of ONE_QUARTER: sums of the quarters, and how many are done */
    uint32_t *done;
    head_tile_args head;
};

namespace hopper {

constexpr int kSlab = 128; /* bytes of K a stage */

template <int TM> __host__ __device__ constexpr int threads() { return TM == 64 ? 160 : 384; }

template <int TM, int TN> constexpr int stages()
{
    return 216 * 1024 / ((TM + TN) * kSlab) < 16 ? 216 * 1024 / ((TM + TN) * kSlab) : 16;
}
template <int TM, int TN> constexpr size_t shared_bytes()
{
    return 1024 + (size_t)stages<TM, TN>() * ((TM + TN) * kSlab + 16);
}

template <int TM, int TN> struct ring {
    static constexpr int STAGES = stages<TM, TN>();
    char *x, *w; /* [stage][rows][128 bytes] */
    uint64_t *full, *empty;
    int stage, parity;

    __device__ ring(char *raw) : stage(0), parity(0)
    {
        char *base = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        x = base;
        w = base + STAGES * TM * kSlab;
        full = (uint64_t *)(w + STAGES * TN * kSlab);
        empty = full + STAGES;
    }
    __device__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* What a block does next. */
struct job {
    int n0, m0, slab0; /* first output, row, slab of K */
};
template <int TM, int TN, hopper_sum SUM> __device__ job job_of(int i, const hopper_args &a)
{
    int tile = SUM == ONE_QUARTER ? i / 4 : i;
    return {tile / a.row_tiles * TN, tile % a.row_tiles * TM,
            SUM == ONE_QUARTER ? i % 4 * a.slabs : 0};
}

/* The feeding thread. Weights of the first stages are fetched before the kernel before is done. */
template <int TM, int TN, bool FP8, hopper_sum SUM>
__device__ void feed(ring<TM, TN> r, const CUtensorMap *mx, const CUtensorMap *mw,
                     const hopper_args &a)
{
    constexpr int S = ring<TM, TN>::STAGES, UNIT = FP8 ? kSlab : kSlab / 2;
    constexpr int BYTES = (TM + TN) * kSlab;
    int tile = blockIdx.x, early = a.slabs < S ? a.slabs : S;
    if (tile >= a.tiles) {
        wait_for_previous();
        return;
    }
    job j = job_of<TM, TN, SUM>(tile, a);
    for (int i = 0; i < early; i++) {
        barrier_expect(&r.full[i], BYTES);
        copy_box(r.w + i * TN * kSlab, mw, &r.full[i], (j.slab0 + i) * UNIT, j.n0, kEvictFirst);
    }
    wait_for_previous();
    for (int done = 0; tile < a.tiles; tile += gridDim.x) {
        j = job_of<TM, TN, SUM>(tile, a);
        for (int i = 0; i < a.slabs; i++, r.next()) {
            int k = (j.slab0 + i) * UNIT;
            bool has_weights = done < early;
            if (!has_weights) {
                barrier_wait(&r.empty[r.stage], r.parity ^ 1);
                barrier_expect(&r.full[r.stage], BYTES);
            }
            copy_box(r.x + r.stage * TM * kSlab, mx, &r.full[r.stage], k, j.m0, kEvictLast);
            if (!has_weights)
                copy_box(r.w + r.stage * TN * kSlab, mw, &r.full[r.stage], k, j.n0, kEvictFirst);
            done++;
        }
    }
}

/* --- epilogues --- */

/* Scales, bias and activation of the thread's columns. n0: first column of the tile in the weight.
 */
template <int TN>
__device__ void finish(float (&d)[TN / 2], const hopper_args &a, int64_t m0, int n0)
{
    int lane = threadIdx.x % 32;
    float by[2] = {1, 1};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int64_t row = m0 + lane / 4 + 8 * h;
        if (a.x_scale && row < a.rows)
            by[h] = a.x_scale[row];
    }
    if (!a.scale && !a.bias && !a.x_scale && !a.gelu)
        return;
#pragma unroll
    for (int g = 0; g < TN / 8; g++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            int64_t col = n0 + 8 * g + 2 * (lane % 4) + c;
            float s = a.scale && col < a.n ? a.scale[col] : 1.0f;
            float b = a.bias && col < a.n ? a.bias[col] : 0.0f;
            d[4 * g + c] = d[4 * g + c] * by[0] * s + b;
            d[4 * g + 2 + c] = d[4 * g + 2 + c] * by[1] * s + b;
        }
    if (a.gelu)
#pragma unroll
        for (int i = 0; i < TN / 2; i++)
            d[i] = gelu_tanh(d[i]);
}

/* 32 columns of one row: v[2 j + c] is column 8 j + 2 (lane % 4) + c. */
__device__ inline void store_row(const float (&v)[8], bool valid, int64_t row, int64_t col,
                                 const hopper_args &a)
{
    int t = threadIdx.x % 4;
    bf16 *y = (bf16 *)a.y + row * a.ldy;
    if (!a.vector) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int64_t at = col + i / 2 * 8 + 2 * t + i % 2;
            if (valid && at < a.width)
                put(&y[at], a.add ? v[i] + get(y[at]) : v[i]);
        }
        return;
    }
    int64_t mine = col + 8 * t;
    bool in = valid && mine < a.width; /* widths are multiples of 8 here */
    uint32_t p[4] = {0, 0, 0, 0};
    if (a.add) {
        if (in) {
            uint4 old = *reinterpret_cast<const uint4 *>(y + mine);
            p[0] = old.x, p[1] = old.y, p[2] = old.z, p[3] = old.w;
        }
        transpose_quad(p);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 old = unpack2(p[j]);
        p[j] = pack2(v[2 * j] + old.x, v[2 * j + 1] + old.y);
    }
    transpose_quad(p);
    if (in)
        *reinterpret_cast<uint4 *>(y + mine) = make_uint4(p[0], p[1], p[2], p[3]);
}

template <int TN> __device__ void store_act(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                            int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < TN / 8; g += 4)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] = d[4 * (g + i / 2) + 2 * h + i % 2];
            int64_t row = m0 + lane / 4 + 8 * h;
            store_row(v, row < a.rows, row, n0 + 8 * g, a);
        }
}

template <int TN> __device__ void store_glu(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                            int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < TN / 8; g += 8)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float gate = d[4 * (g + i / 2 * 2) + 2 * h + i % 2];
                float up = d[4 * (g + i / 2 * 2 + 1) + 2 * h + i % 2];
                v[i] = gate / (1.0f + __expf(-gate)) * up;
            }
            int64_t row = m0 + lane / 4 + 8 * h;
            store_row(v, row < a.rows, row, n0 / 2 + 4 * g, a);
        }
}

template <int TN> __device__ void store_wide(float (&d)[TN / 2], const hopper_args &a, int64_t m0,
                                             int n0)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < TN / 2; i++) {
        int64_t row = m0 + lane / 4 + i / 2 % 2 * 8;
        int64_t col = n0 + i / 4 * 8 + 2 * (lane % 4) + i % 2;
        if (row < a.rows && col < a.width) {
            float *y = (float *)a.y + row * a.ldy + col;
            *y = a.add ? *y + d[i] : d[i];
        }
    }
}

/* --- the kernel --- */

/* Sums of e4m3 products are kept in float32 outside the multiplier, which holds fewer bits, every
 * so many slabs. */
constexpr int kPromote = 4;

/* Leaves a quarter's sums; true for the warpgroup that came last, with all four added up. */
template <int TM, int TN>
__device__ bool join(float (&d)[TN / 2], const hopper_args &a, int i, bool any_row)
{
    constexpr int SIZE = TM / 64 * 128, FOURS = TN / 8; /* multiplying threads; float4s of one */
    __shared__ bool last[TM / 64];
    int group = threadIdx.x / 128, thread = threadIdx.x;
    float4 *first = (float4 *)a.part + (int64_t)(i / 4) * 4 * SIZE * FOURS + thread;
    float4 *mine = first + (int64_t)(i % 4) * SIZE * FOURS;
#pragma unroll
    for (int k = 0; k < FOURS; k++)
        if (any_row)
            __stcg(&mine[k * SIZE],
                   make_float4(d[4 * k], d[4 * k + 1], d[4 * k + 2], d[4 * k + 3]));
    __threadfence();
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    if (thread % 128 == 0) {
        uint32_t *done = &a.done[i / 4 * (TM / 64) + group];
        last[group] = atomicAdd(done, 1) == 3;
        if (last[group])
            *done = 0;
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    if (!last[group])
        return false;
    __threadfence();
    if (!any_row)
        return true;
#pragma unroll
    for (int k = 0; k < FOURS; k++) {
        float4 q[4];
#pragma unroll
        for (int j = 0; j < 4; j++)
            q[j] = __ldcg(&first[(j * FOURS + k) * SIZE]);
        d[4 * k] = q[0].x + q[1].x + q[2].x + q[3].x;
        d[4 * k + 1] = q[0].y + q[1].y + q[2].y + q[3].y;
        d[4 * k + 2] = q[0].z + q[1].z + q[2].z + q[3].z;
        d[4 * k + 3] = q[0].w + q[1].w + q[2].w + q[3].w;
    }
    return true;
}

/* One tile, or a part of one: the products of the next `slabs` stages. TOTALS: a sum of the sums of
 * `run` stages each. */
template <bool TOTALS, bool FP8, int TM, int TN>
__device__ void sum_tile(ring<TM, TN> &r, int slabs, int run, float (&d)[TN / 2])
{
    int group = threadIdx.x / 128, last = -1, at = 0;
    float total[TOTALS ? TN / 2 : 1];
    for (int k = 0; k < slabs; k++, r.next()) {
        barrier_wait(&r.full[r.stage], r.parity);
        uint64_t x = describe(r.x + (r.stage * TM + group * 64) * kSlab);
        uint64_t w = describe(r.w + r.stage * TN * kSlab);
        fence_registers(d);
        multiply_begin();
#pragma unroll
        for (int step = 0; step < 4; step++) /* 32 bytes are 2 units of a descriptor */
            wgmma<TN, FP8>::run(d, x + 2 * step, w + 2 * step, at > 0 || step > 0);
        multiply_commit();
        fence_registers(d);
        if (last >= 0) {
            multiply_wait<1>(); /* the one before is done: its stage is free */
            if (threadIdx.x % 128 == 0)
                barrier_arrive(&r.empty[last]);
        }
        last = r.stage;
        at++;
        if (TOTALS && (at == run || k == slabs - 1)) {
            multiply_wait<0>();
            fence_registers(d);
#pragma unroll
            for (int j = 0; j < TN / 2; j++)
                total[TOTALS ? j : 0] = k < run ? d[j] : total[TOTALS ? j : 0] + d[j];
            at = 0;
        }
    }
    multiply_wait<0>();
    fence_registers(d);
    if (threadIdx.x % 128 == 0)
        barrier_arrive(&r.empty[last]);
    if (TOTALS)
#pragma unroll
        for (int j = 0; j < TN / 2; j++)
            d[j] = total[TOTALS ? j : 0];
}

template <int TM, int TN, hopper_out OUT, bool FP8, hopper_sum SUM>
__device__ void multiply(ring<TM, TN> r, const hopper_args &a)
{
    int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
    int run = FP8 ? kPromote : SUM == QUARTERS ? a.slabs / 4 : a.slabs;
    for (int i = blockIdx.x; i < a.tiles; i += gridDim.x) {
        float d[TN / 2];
        sum_tile<FP8 || SUM == QUARTERS, FP8>(r, a.slabs, run, d);
        job t = job_of<TM, TN, SUM>(i, a);
        int64_t m0 = t.m0 + group * 64 + warp * 16;
        if (SUM == ONE_QUARTER && !join<TM, TN>(d, a, i, m0 < a.rows))
            continue;
        finish<TN>(d, a, m0, t.n0);
        if (OUT == OUT_ACT)
            store_act<TN>(d, a, m0, t.n0);
        else if (OUT == OUT_GLU)
            store_glu<TN>(d, a, m0, t.n0);
        else if (OUT == OUT_WIDE)
            store_wide<TN>(d, a, m0, t.n0);
        else
            head_tile<TN>(d, a.head, a.rows, a.n, m0, t.n0, t.n0 / TN);
    }
}

template <int TM, int TN, hopper_out OUT, bool FP8, hopper_sum SUM>
__global__ void __launch_bounds__(threads<TM>(), 1)
    gemm(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
         const __grid_constant__ hopper_args a)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    ring<TM, TN> r(raw);
    constexpr int S = ring<TM, TN>::STAGES;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S; i++) {
            barrier_init(&r.full[i], 1);
            barrier_init(&r.empty[i], TM / 64);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    let_next_start();
    if (threadIdx.x >= TM / 64 * 128) {
        if (TM > 64)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == TM / 64 * 128)
            feed<TM, TN, FP8, SUM>(r, &mx, &mw, a);
    } else {
        if (TM > 64)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        wait_for_previous();
        multiply<TM, TN, OUT, FP8, SUM>(r, a);
    }
#endif
}

/* --- launching --- */

inline tt_status encode(const cuda *c, CUtensorMap *map, const void *data, bool fp8, int64_t rows,
                        int64_t k, int64_t ld, int box, bool weights, tt_err *e)
{
    int size = fp8 ? 1 : 2;
    cuuint64_t dim[2] = {(cuuint64_t)k, (cuuint64_t)rows}, stride[1] = {(cuuint64_t)(ld * size)};
    cuuint32_t boxes[2] = {(cuuint32_t)(kSlab / size), (cuuint32_t)box}, step[2] = {1, 1};
    CUresult code = c->encode(
        map, fp8 ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2,
        (void *)(uintptr_t)data, dim, stride, boxes, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B,
        weights ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS)
        return tt_fail(e, TT_EINVAL, "linear: no tensor map of %lld x %lld, stride %lld (%d)",
                       (long long)rows, (long long)k, (long long)ld, (int)code);
    return TT_OK;
}

template <int TM, int TN, hopper_out OUT, bool FP8, hopper_sum SUM = WHOLE>
tt_status run(cuda *c, const cuda_gemm *g, hopper_args a, tt_err *e)
{
    if (!cuda_runs(c))
        return TT_OK;
    const tt_matrix *m = g->w;
    CUtensorMap mx, mw;
    a.row_tiles = (int)((g->rows + TM - 1) / TM);
    a.tiles = a.row_tiles * (int)((a.n + TN - 1) / TN);
    a.slabs = (int)((m->k * (FP8 ? 1 : 2) + kSlab - 1) / kSlab);
    if (SUM == ONE_QUARTER) {
        a.tiles *= 4;
        a.slabs /= 4;
        a.done = (uint32_t *)c->quarters;
        a.part = (float *)((char *)c->quarters + CUDA_QUARTERS_DONE);
    }
    tt_status st = FP8 ? encode(c, &mx, g->x8, true, g->rows, m->kp, m->kp, TM, false, e)
                       : encode(c, &mx, g->x, false, g->rows, m->k, g->ldx, TM, false, e);
    if (!st)
        st = encode(c, &mw, m->data, FP8, a.n, m->kp, m->kp, TN, true, e);
    if (st)
        return st;
    auto kernel = gemm<TM, TN, OUT, FP8, SUM>;
    static uint64_t allowed;
    st = allow_shared(c, &allowed, kernel, shared_bytes<TM, TN>(), "linear", e);
    if (st)
        return st;
    unsigned grid = (unsigned)(a.tiles < c->sms ? a.tiles : c->sms);
    return launch(c, "linear", kernel, grid, threads<TM>(), shared_bytes<TM, TN>(), e, mx, mw, a);
}

/* Time of a tile shape in cycles, roughly: waves of tiles, each as long as its products or its
 * reading, whichever is longer, and what starting and ending one costs. */
inline double cost(const cuda *c, int64_t rows, int64_t n, int64_t k_bytes, int tm, int tn)
{
    double row_tiles = (double)((rows + tm - 1) / tm);
    double tiles = row_tiles * (double)((n + tn - 1) / tn);
    double waves = (double)(((int64_t)tiles + c->sms - 1) / c->sms);
    double products = (double)k_bytes / 32 * (tm / 64) * tn / 2 * 1.1;
    double fetched = tn + (double)(rows < tm ? rows : tm);
    double reading = (double)k_bytes * (tn / row_tiles / 18.0 + fetched / 45.0);
    return waves * ((products > reading ? products : reading) + 800 + 4.0 * tn);
}

struct choice {
    int tm, tn;
};

inline choice choose(const cuda *c, const cuda_gemm *g, int64_t n, const int *widths, int count)
{
    choice best = {0, 0};
    double least = 0;
    int64_t k_bytes = g->w->k * (g->w->fp8 ? 1 : 2);
    for (int tm = 64; tm <= 128; tm += 64)
        for (int i = 0; i < count; i++) {
            if (tm == 64 ? g->rows > 64 : g->w->fp8 && widths[i] > 128)
                continue; /* too many registers for sums of sums */
            double now = cost(c, g->rows, n, k_bytes, tm, widths[i]);
            if (!best.tm || now < least) {
                best = {tm, widths[i]};
                least = now;
            }
        }
    return best;
}

inline hopper_args arguments(const cuda_gemm *g)
{
    const tt_matrix *m = g->w;
    hopper_args a = {};
    a.rows = g->rows;
    a.n = cuda_matrix_rows(m);
    a.y = g->y;
    a.ldy = g->ldy;
    a.width = g->glu ? m->n / 2 : m->n;
    a.scale = m->scale;
    a.bias = m->bias;
    a.x_scale = g->x8_scale;
    a.add = g->add;
    a.gelu = g->gelu;
    a.vector = aligned16(g->y) && g->ldy % 8 == 0 && a.width % 8 == 0;
    return a;
}

#define TT_HOPPER_CASE(tn_, out_)                                     \
    case tn_:                                                         \
        return t.tm == 64 ? run<64, tn_, out_, FP8>(c, g, a, e)       \
                          : run<(FP8 && tn_ > 128) ? 64 : 128, tn_, out_, FP8>(c, g, a, e);

/* Whether sums are made of quarters: a property of the matrix. Then 128 outputs a tile and four
 * blocks a tile fill the GPU. */
inline bool quartered(const tt_matrix *m)
{
    return !m->fp8 && !(m->flags & TT_MATRIX_GLU) && m->n <= CUDA_QUARTERS_N && m->k >= 2048 &&
           m->k % (4 * kSlab / 2) == 0;
}

inline tt_status act_of_quarters(cuda *c, const cuda_gemm *g, tt_err *e)
{
    static const int widths[] = {32, 64, 96, 128, 160};
    hopper_args a = arguments(g);
    if (g->rows <= 64)
        return run<64, 128, OUT_ACT, false, ONE_QUARTER>(c, g, a, e);
    if (g->rows <= 128)
        return run<128, 128, OUT_ACT, false, ONE_QUARTER>(c, g, a, e);
    switch (choose(c, g, a.n, widths, 5).tn) {
    case 32: return run<128, 32, OUT_ACT, false, QUARTERS>(c, g, a, e);
    case 64: return run<128, 64, OUT_ACT, false, QUARTERS>(c, g, a, e);
    case 96: return run<128, 96, OUT_ACT, false, QUARTERS>(c, g, a, e);
    case 128: return run<128, 128, OUT_ACT, false, QUARTERS>(c, g, a, e);
    default: return run<128, 160, OUT_ACT, false, QUARTERS>(c, g, a, e);
    }
}

template <bool FP8> tt_status act(cuda *c, const cuda_gemm *g, tt_err *e)
{
    if constexpr (!FP8)
        if (quartered(g->w))
            return act_of_quarters(c, g, e);
    static const int widths[] = {32, 64, 96, 128, 192, 160, 256};
    hopper_args a = arguments(g);
    choice t = choose(c, g, a.n, widths, FP8 ? 5 : 7);
    switch (t.tn) {
        TT_HOPPER_CASE(32, OUT_ACT)
        TT_HOPPER_CASE(64, OUT_ACT)
        TT_HOPPER_CASE(96, OUT_ACT)
        TT_HOPPER_CASE(128, OUT_ACT)
        TT_HOPPER_CASE(192, OUT_ACT)
    default:
        if constexpr (!FP8)
            switch (t.tn) {
                TT_HOPPER_CASE(160, OUT_ACT)
                TT_HOPPER_CASE(256, OUT_ACT)
            }
        return tt_fail(e, TT_EINVAL, "linear: no tile");
    }
}

template <bool FP8> tt_status glu(cuda *c, const cuda_gemm *g, tt_err *e)
{
    static const int widths[] = {64, 128, 192, 256};
    hopper_args a = arguments(g);
    choice t = choose(c, g, a.n, widths, FP8 ? 3 : 4);
    switch (t.tn) {
        TT_HOPPER_CASE(64, OUT_GLU)
        TT_HOPPER_CASE(128, OUT_GLU)
        TT_HOPPER_CASE(192, OUT_GLU)
    default:
        if constexpr (!FP8)
            switch (t.tn) {
                TT_HOPPER_CASE(256, OUT_GLU)
            }
        return tt_fail(e, TT_EINVAL, "glu: no tile");
    }
}

} // namespace hopper

#endif
