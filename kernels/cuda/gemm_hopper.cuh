/* gemm_hopper.cuh - matrix products on Hopper: y = x w^T, all outputs of a tile summed over K in
 * order by one warpgroup, so that neither tile size nor row count changes a bit. Few outputs of
 * long sums, and e4m3, take sums of sums: see hopper_sum and kPromote.
 *
 * A block holds TM rows of x by TN rows of w. Two threads feed: bulk tensor copies of 128 bytes of
 * K at a time into a ring of stages (gemm_hopper_ring.cuh); TM / 64 warpgroups multiply. Blocks are
 * persistent and take tiles in turn, all row tiles of a weight tile one after the other, so that
 * weights come from memory once. With few rows the time is that of reading the weights: TN is
 * chosen so that the tiles fill the multiprocessors (gemm_hopper_tiles.cuh), and the ring is filled
 * with weights while the kernel before still runs. Included by one .cu per element type, to be
 * compiled side by side. */
#ifndef TT_GEMM_HOPPER_CUH
#define TT_GEMM_HOPPER_CUH

#include "kernels/cuda/gemm_hopper_store.cuh"
#include "kernels/cuda/gemm_hopper_tiles.cuh"

enum hopper_out {
    OUT_ACT,  /* bfloat16 */
    OUT_GLU,  /* bfloat16, silu(even groups of 8 columns) * odd groups */
    OUT_WIDE, /* float32 */
    OUT_HEAD, /* statistics of rows of logits */
};

namespace hopper {

/* --- the kernel --- */

/* Sums of e4m3 products are kept in float32 outside the multiplier, which holds fewer bits, every
 * so many slabs. */
constexpr int kPromote = 4;

/* The four blocks of a tile share out its columns: each leaves its sums of a quarter of K for the
 * others and adds up, in order, all four of its columns. out: those of tile columns
 * [TN / 4 quarter, + TN / 4). A block waits for the others here. All four take the tile in the same
 * turn, as the blocks of a grid are a multiple of four (of eight where tiles make pairs), and there
 * are no more of them than multiprocessors, so they run or are the next to run. */
template <int TM, int TN>
__device__ void join(float (&out)[TN / 8], const float (&d)[TN / 2], const hopper_args &a, int tile,
                     int mine, bool any_row)
{
    /* multiplying threads; float4s of one, and of one that are its own block's */
    constexpr int SIZE = TM / 64 * 128, FOURS = TN / 8, OWN = FOURS / 4;
    int group = threadIdx.x / 128;
    float4 *part = (float4 *)a.part + (int64_t)tile * 4 * SIZE * FOURS + threadIdx.x;
#pragma unroll
    for (int k = 0; k < FOURS; k++) {
        if (k / OWN == mine) {
#pragma unroll
            for (int j = 0; j < 4; j++)
                out[k % OWN * 4 + j] = d[4 * k + j];
        } else if (any_row) {
            __stcg(&part[(mine * FOURS + k) * SIZE],
                   make_float4(d[4 * k], d[4 * k + 1], d[4 * k + 2], d[4 * k + 3]));
        }
    }
    __threadfence();
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    if (threadIdx.x % 128 == 0) {
        uint32_t *done = &a.done[tile * (TM / 64) + group];
        uint32_t all = (atomicAdd(done, 1) / 4 + 1) * 4, now;
        do
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(done) : "memory");
        while ((int32_t)(now - all) < 0);
    }
    asm volatile("bar.sync %0, 128;" ::"r"(1 + group) : "memory");
    if (!any_row)
        return;
    float4 q[OWN][4];
#pragma unroll
    for (int k = 0; k < OWN; k++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            q[k][j] = j == mine ? make_float4(out[4 * k], out[4 * k + 1], out[4 * k + 2],
                                              out[4 * k + 3])
                                : __ldcg(&part[(j * FOURS + OWN * mine + k) * SIZE]);
#pragma unroll
    for (int k = 0; k < OWN; k++) {
        out[4 * k] = q[k][0].x + q[k][1].x + q[k][2].x + q[k][3].x;
        out[4 * k + 1] = q[k][0].y + q[k][1].y + q[k][2].y + q[k][3].y;
        out[4 * k + 2] = q[k][0].z + q[k][1].z + q[k][2].z + q[k][3].z;
        out[4 * k + 3] = q[k][0].w + q[k][1].w + q[k][2].w + q[k][3].w;
    }
}

/* The second warpgroup of a block begins so many stages after the first, and stays behind: where
 * sums are short, one multiplies while the other stores. */
constexpr int kBehind = 2, kBehindMost = 32; /* stages; of a tile's stages, at most */
__device__ inline void let_second_begin() { asm volatile("bar.arrive 3, 256;" ::: "memory"); }
__device__ inline void wait_for_first() { asm volatile("bar.sync 3, 256;" ::: "memory"); }

/* One tile, or a part of one: the products of the next `slabs` stages. TOTALS: a sum of the sums of
 * `run` stages each. leads: the second warpgroup waits for this one. */
template <bool TOTALS, bool FP8, int TM, int TN>
__device__ void sum_tile(ring<TM, TN> &r, int slabs, int run, float (&d)[TN / 2],
                         bool leads = false)
{
    int group = threadIdx.x / 128, last = -1, at = 0;
    float total[TOTALS ? TN / 2 : 1];
    for (int k = 0; k < slabs; k++, r.next()) {
        barrier_wait(&r.full[r.stage], r.parity);
        uint64_t x = r.x_part(group), w = r.w_part();
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
                r.release(last);
        }
        last = r.stage;
        at++;
        if (leads && k == kBehind - 1)
            let_second_begin();
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
        r.release(last);
    if (TOTALS)
#pragma unroll
        for (int j = 0; j < TN / 2; j++)
            d[j] = total[TOTALS ? j : 0];
}

/* One tile of operands in thirds, `sets` times three stages: of 64 inputs the six products of parts
 * are added up, smallest first, and then to those before. The multiplier cuts off bits where it
 * adds, the more often the longer the sum; the sum of sums is rounded to the nearest. The stage of
 * the smallest parts is done with first, and is the next to be filled. */
template <int TM, int TN>
__device__ void sum_thirds(ring<TM, TN> &r, int sets, float (&d)[TN / 2])
{
    constexpr int X[6] = {0, 2, 1, 1, 2, 2}, W[6] = {2, 0, 1, 2, 1, 2};
    int group = threadIdx.x / 128;
    bool speaks = threadIdx.x % 128 == 0;
    float sum[TN / 2];
    for (int k = 0; k < sets; k++) {
        uint64_t x[3], w[3];
        int stage[3];
#pragma unroll
        for (int p = 0; p < 3; p++, r.next()) {
            barrier_wait(&r.full[r.stage], r.parity);
            x[p] = r.x_part(group);
            w[p] = r.w_part();
            stage[p] = r.stage;
        }
        fence_registers(sum);
        multiply_begin();
#pragma unroll
        for (int q = 0; q < 6; q++) {
#pragma unroll
            for (int step = 0; step < 4; step++)
                wgmma<TN, false>::run(sum, x[X[q]] + 2 * step, w[W[q]] + 2 * step,
                                      q > 0 || step > 0);
            if (q == 1 || q == 4 || q == 5)
                multiply_commit();
        }
        fence_registers(sum);
        multiply_wait<2>();
        if (speaks)
            r.release(stage[0]);
        multiply_wait<1>();
        if (speaks)
            r.release(stage[1]);
        multiply_wait<0>();
        fence_registers(sum);
        if (speaks)
            r.release(stage[2]);
#pragma unroll
        for (int j = 0; j < TN / 2; j++)
            d[j] = k ? d[j] + sum[j] : sum[j];
    }
}

template <int TM, int TN, hopper_out OUT, bool FP8, hopper_sum SUM>
__device__ void multiply(ring<TM, TN> r, const hopper_args &a)
{
    int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
    int run = FP8 ? kPromote : SUM == QUARTERS ? a.slabs / 4 : a.slabs;
    if (a.staggered && group == 1)
        wait_for_first();
    for (int i = blockIdx.x; i < a.tiles; i += gridDim.x) {
        float d[TN / 2];
        if constexpr (SUM == THIRDS)
            sum_thirds(r, a.slabs / 3, d);
        else
            sum_tile<FP8 || SUM == QUARTERS, FP8>(r, a.slabs, run, d,
                                                  a.staggered && group == 0 && i == blockIdx.x);
        job t = job_of<TM, TN, SUM>(i, a);
        int64_t m0 = t.m0 + group * 64 + warp * 16;
        if constexpr (SUM == ONE_QUARTER) {
            constexpr int OWN = TN / 4; /* columns */
            float quarter[OWN / 2];
            uint4 old[(OWN + 31) / 32][2];
            int mine = quarter_of<TM, SUM>(i), n0 = t.n0 + OWN * mine;
            load_added(old, a, m0, n0, tile_end<OWN>(a, n0));
            join<TM, TN>(quarter, d, a, tile_of<TM, SUM>(i), mine, m0 < a.rows);
            finish<OWN>(quarter, a, m0, n0);
            int64_t row = m0 + threadIdx.x % 32 / 4;
            stored_row to[2] = {stored_row(row, a), stored_row(row + 8, a)};
            store_groups(quarter, old, 0, to, a, n0);
            continue;
        }
        finish<TN>(d, a, m0, t.n0);
        if constexpr (OUT == OUT_ACT)
            store_act<TN>(d, a, m0, t.n0);
        else if constexpr (OUT == OUT_GLU)
            store_glu<TN>(d, a, m0, t.n0);
        else if constexpr (OUT == OUT_WIDE)
            store_wide<TN>(d, a, m0, t.n0);
        else
            store_head<TN>(d, a, m0, t.n0);
    }
}

template <int TM, int TN, hopper_out OUT, bool FP8, hopper_sum SUM>
__global__ void __launch_bounds__(threads<TM>(), 1)
    gemm(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
         const __grid_constant__ hopper_args a)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ char raw[];
    constexpr int MULTIPLYING = TM / 64 * 128;
    ring<TM, TN> r(raw, a.stages, a.x_rows, in_pairs<TM>() ? (int)blockIdx.x % 2 ^ 1 : -1);
    let_next_start();
    if (threadIdx.x == 0)
        r.init();
    if (threadIdx.x == MULTIPLYING)
        prefetch_map(&mw);
    if (in_pairs<TM>())
        cluster_sync();
    else
        __syncthreads();
    if (threadIdx.x >= MULTIPLYING) {
        if (TM > 64)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == MULTIPLYING)
            feed_weights<TM, TN, FP8, SUM>(r, &mw, a);
        else if (threadIdx.x == MULTIPLYING + 32)
            feed_rows<TM, TN, FP8, SUM>(r, &mx, a);
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
    a.pair = pair_of(g->rows, TM);
    tiling t = tiles_of(g->rows, a.n, TM, TN, a.pair);
    a.row_tiles = (int)t.rows;
    a.tiles = (int)(t.rows * t.columns);
    int64_t k = SUM == THIRDS ? m->kp : m->k;
    a.slabs = (int)((k * (FP8 ? 1 : 2) + kSlab - 1) / kSlab);
    if (SUM == ONE_QUARTER) {
        a.tiles *= 4;
        a.slabs /= 4;
        a.done = (uint32_t *)c->quarters;
        a.part = (float *)((char *)c->quarters + CUDA_QUARTERS_DONE);
    }
    a.x_rows = rows_fetched(g->rows, TM);
    int turn = (SUM == ONE_QUARTER ? 4 : 1) * (in_pairs<TM>() ? 2 : 1); /* blocks go together */
    int most = c->sms / turn * turn, grid = a.tiles < most ? a.tiles : most;
    a.stages = stages_of(ring_bytes<TM>(), a.x_rows, TN, parts_of(a.tiles, grid) * a.slabs);
    a.staggered = TM > 64 && SUM == WHOLE && a.tiles > grid && a.slabs > kBehind &&
                  a.slabs <= kBehindMost && a.stages > kBehind + 1;
    size_t shared = kBeside + (size_t)a.stages * (a.x_rows + TN) * kSlab;
    int x_box = a.pair == SHARE_ROWS ? a.x_rows / 2 : a.x_rows;
    int w_box = a.pair == SHARE_WEIGHTS ? TN / 2 : TN;
    CUtensorMap mx, mw;
    tt_status st = FP8 ? encode(c, &mx, g->x8, true, g->rows, m->kp, m->kp, x_box, false, e)
                       : encode(c, &mx, g->x, false, g->rows, k, g->ldx, x_box, false, e);
    if (!st)
        st = encode(c, &mw, m->data, FP8, a.n, m->kp, m->kp, w_box, true, e);
    if (st)
        return st;
    auto kernel = gemm<TM, TN, OUT, FP8, SUM>;
    static uint64_t allowed;
    st = allow_shared(c, &allowed, kernel, shared_bytes<TM>(), "linear", e);
    if (st)
        return st;
    return launch_clusters(c, "linear", kernel, (unsigned)grid, threads<TM>(), shared,
                           in_pairs<TM>() ? 2 : 1, e, mx, mw, a);
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
    a.vector = aligned16(g->y) && g->ldy % 8 == 0 && a.width % 8 == 0 && aligned16(g->z) &&
               g->ldz % 8 == 0;
    a.index = g->index;
    a.z = g->z;
    a.ldz = g->ldz;
    a.split = g->split;
    return a;
}

/* Whether sums are made of quarters: a property of the matrix. Then four blocks a tile fill the
 * GPU. */
inline bool quartered(const tt_matrix *m)
{
    return !m->fp8 && !(m->flags & TT_MATRIX_GLU) && m->n <= CUDA_QUARTERS_N && m->k >= 2048 &&
           m->k % (4 * kSlab / 2) == 0;
}

#define TT_HOPPER_CASE(tm_, tn_, out_, sum_) \
    case tn_:                                \
        return run<tm_, tn_, out_, FP8, sum_>(c, g, a, e);

inline tt_status act_of_quarters(cuda *c, const cuda_gemm *g, tt_err *e)
{
    constexpr bool FP8 = false;
    static const int widths[] = {64, 96, 128, 160};
    hopper_args a = arguments(g);
    if (g->rows <= 64)
        return a.n <= 1056   ? run<64, 32, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e)
               : a.n <= 2112 ? run<64, 64, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e)
                             : run<64, 128, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e);
    if (g->rows <= CUDA_QUARTERS_ROWS) {
        int64_t n = parts_of(g->rows, 128) * a.n;
        return n <= 1024   ? run<128, 32, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e)
               : n <= 2048 ? run<128, 64, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e)
               : n <= 4096 ? run<128, 128, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e)
                           : run<128, 256, OUT_ACT, FP8, ONE_QUARTER>(c, g, a, e);
    }
    switch (choose(c, g, a.n, widths, 4)) {
        TT_HOPPER_CASE(128, 64, OUT_ACT, QUARTERS)
        TT_HOPPER_CASE(128, 96, OUT_ACT, QUARTERS)
        TT_HOPPER_CASE(128, 128, OUT_ACT, QUARTERS)
    default: return run<128, 160, OUT_ACT, FP8, QUARTERS>(c, g, a, e);
    }
}

/* Up to 64 rows: widths that share out the columns finely. */
template <bool FP8> tt_status act_of_few(cuda *c, const cuda_gemm *g, tt_err *e)
{
    static const int widths[] = {32, 40, 64, 96, 128, 192};
    hopper_args a = arguments(g);
    switch (choose(c, g, a.n, widths, 6)) {
        TT_HOPPER_CASE(64, 32, OUT_ACT, WHOLE)
        TT_HOPPER_CASE(64, 40, OUT_ACT, WHOLE)
        TT_HOPPER_CASE(64, 64, OUT_ACT, WHOLE)
        TT_HOPPER_CASE(64, 96, OUT_ACT, WHOLE)
        TT_HOPPER_CASE(64, 128, OUT_ACT, WHOLE)
    default: return run<64, 192, OUT_ACT, FP8>(c, g, a, e);
    }
}

/* Sums of sums, which e4m3 has, leave registers for 128 columns at most. */
template <bool FP8> tt_status act(cuda *c, const cuda_gemm *g, tt_err *e)
{
    if constexpr (!FP8)
        if (quartered(g->w))
            return act_of_quarters(c, g, e);
    if (g->rows <= 64)
        return act_of_few<FP8>(c, g, e);
    static const int widths[] = {32, 64, 96, 128, 48, 160, 192, 256};
    hopper_args a = arguments(g);
    int width = choose(c, g, a.n, widths, FP8 ? 4 : 8);
    if constexpr (!FP8)
        switch (width) {
            TT_HOPPER_CASE(128, 48, OUT_ACT, WHOLE)
            TT_HOPPER_CASE(128, 160, OUT_ACT, WHOLE)
            TT_HOPPER_CASE(128, 192, OUT_ACT, WHOLE)
            TT_HOPPER_CASE(128, 256, OUT_ACT, WHOLE)
        }
    switch (width) {
        TT_HOPPER_CASE(128, 32, OUT_ACT, WHOLE)
        TT_HOPPER_CASE(128, 64, OUT_ACT, WHOLE)
        TT_HOPPER_CASE(128, 96, OUT_ACT, WHOLE)
    default: return run<128, 128, OUT_ACT, FP8>(c, g, a, e);
    }
}

template <bool FP8> tt_status glu(cuda *c, const cuda_gemm *g, tt_err *e)
{
    static const int widths[] = {64, 96, 128, 192, 256};
    hopper_args a = arguments(g);
    int width = choose(c, g, a.n, widths, g->rows <= 64 ? 4 : FP8 ? 3 : 5);
    if (g->rows <= 64)
        switch (width) {
            TT_HOPPER_CASE(64, 64, OUT_GLU, WHOLE)
            TT_HOPPER_CASE(64, 96, OUT_GLU, WHOLE)
            TT_HOPPER_CASE(64, 128, OUT_GLU, WHOLE)
        default: return run<64, 192, OUT_GLU, FP8>(c, g, a, e);
        }
    if constexpr (!FP8)
        switch (width) {
            TT_HOPPER_CASE(128, 192, OUT_GLU, WHOLE)
            TT_HOPPER_CASE(128, 256, OUT_GLU, WHOLE)
        }
    switch (width) {
        TT_HOPPER_CASE(128, 64, OUT_GLU, WHOLE)
        TT_HOPPER_CASE(128, 96, OUT_GLU, WHOLE)
    default: return run<128, 128, OUT_GLU, FP8>(c, g, a, e);
    }
}

} // namespace hopper

#endif
