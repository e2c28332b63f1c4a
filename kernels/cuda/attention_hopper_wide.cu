/* attention_hopper_wide.cu - attention of bfloat16 heads of 257 to 512 channels, as autoencoders of
 * pictures have in their middle: one head, some hundred positions.
 *
 * A block takes 64 query rows of a head and goes over the keys in tiles of 64; queries, a tile of
 * keys and one of values fill a multiprocessor's shared memory. Eight warps: two have the same 16
 * rows, in the scores half of the tile's keys each, which they exchange, in the sums half of the
 * channels. The next keys come while weights are applied, the next values while keys are scored.
 * What bounds it is the reading of operands from shared memory: a warp takes 160 times 512 bytes of
 * them for 64 keys, which is 5,120 cycles of the multiprocessor for a block; 1,024 keys take 45 us
 * at least. */
#include "kernels/cuda/attention_mma.cuh"

namespace {

constexpr int kDim = kWideDim, kWide = 2 * kThreads; /* threads */
constexpr int kRowBytes = kDim * 2;
constexpr int kOwn = kDim / 2;                  /* channels of a warp's sums */
constexpr size_t kBytes = 1024 + (size_t)(kRows + 2 * kKeys) * kRowBytes +
                          exchange_floats(kKeys) * sizeof(float); /* and to align the tiles */

/* Address of 16 bytes of a tile, which begins at a multiple of 1,024; those `part` parts further,
 * an even number, lie at address ^ 16 part. */
__device__ uint32_t spot(const bf16 *tile, int row, int part)
{
    return shared_address(tile + place<kDim>(row, part));
}

/* Scores of the warp's 16 rows and 32 keys from key0. */
__device__ void score(float (&w)[kKeys / 16][4], const bf16 *q, const bf16 *k, int row0, int key0)
{
    int lane = threadIdx.x % 32;
    uint32_t qs = spot(q, row0 + lane % 16, lane / 16);
    uint32_t ks = spot(k, key0 + lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll 8
    for (int d = 0; d < kDim / 16; d++) {
        uint32_t a[4], b[2][4];
        load_matrix(a, qs ^ 32 * d);
        load_matrix(b[0], ks ^ 32 * d);
        load_matrix(b[1], (ks ^ 32 * d) + 16 * kRowBytes);
#pragma unroll
        for (int n = 0; n < 4; n++)
            mma(w[n], a, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
}

/* sum = sum * keep + weights v, of the channels from `channel` on. */
__device__ void add_values(float (&sum)[kOwn / 8][4], const float (&keep)[2],
                           const float (&w)[kKeys / 8][4], const bf16 *v, int channel)
{
    int lane = threadIdx.x % 32;
    uint32_t vs = spot(v, lane % 16, channel / 8 + lane / 16);
#pragma unroll
    for (int d = 0; d < kOwn / 8; d++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[d][i] *= keep[i / 2];
#pragma unroll
    for (int k = 0; k < kKeys / 16; k++) {
        uint32_t a[4] = {pack2(w[2 * k][0], w[2 * k][1]), pack2(w[2 * k][2], w[2 * k][3]),
                         pack2(w[2 * k + 1][0], w[2 * k + 1][1]),
                         pack2(w[2 * k + 1][2], w[2 * k + 1][3])};
#pragma unroll
        for (int d = 0; d < kOwn / 8; d += 2) {
            uint32_t b[4];
            load_transposed(b, (vs ^ 16 * d) + 16 * k * kRowBytes);
            mma(sum[d], a, b[0], b[1]);
            mma(sum[d + 1], a, b[2], b[3]);
        }
    }
}

__device__ void store(bf16 *out, int64_t ldo, const float (&sum)[kOwn / 8][4],
                      const float (&mass)[2], int row0, int rows, int channel, int dim)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int row = row0 + lane / 4 + 8 * h;
        float all = quad_sum(mass[h]), by = all > 0 ? 1.0f / all : 0.0f;
        if (row >= rows)
            continue;
        bf16 *y = out + row * ldo + channel + 2 * (lane % 4);
#pragma unroll
        for (int d = 0; d < kOwn / 8; d++)
            if (channel + 8 * d < dim)
                *reinterpret_cast<uint32_t *>(y + 8 * d) =
                    pack2(sum[d][2 * h] * by, sum[d][2 * h + 1] * by);
    }
}

/* One tile of query rows of one head. */
__device__ void attend(bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, const span &s,
                       int64_t first, int64_t kv_channel, const heads &n, char *room)
{
    bf16 *qt = (bf16 *)room, *kt = qt + kRows * kDim, *vt = kt + kKeys * kDim;
    float *scores = (float *)(vt + kKeys * kDim);
    const bf16 *k = (const bf16 *)s.k + kv_channel, *v = (const bf16 *)s.v + kv_channel;
    int rows = s.query_rows - first < kRows ? (int)(s.query_rows - first) : kRows;
    int seen = (int)visible(s, first + rows - 1);
    int row0 = threadIdx.x / 32 % 4 * 16, half = threadIdx.x / 128;
    bool idle = row0 >= rows;
    float sum[kOwn / 8][4] = {}, max[2] = {-INFINITY, -INFINITY}, mass[2] = {};
    load_tile<kDim, kWide>(qt, q, ldq, 0, rows, n.dim);
    load_tile<kDim, kWide>(kt, k, s.ld_kv, 0, seen, n.dim);
    copies_end();
    load_tile<kDim, kWide>(vt, v, s.ld_kv, 0, seen, n.dim);
    copies_end();
    for (int at = 0; at < seen; at += kKeys) {
        float part[kKeys / 16][4] = {}, w[kKeys / 8][4], keep[2];
        copies_wait<1>();
        __syncthreads();
        if (!idle)
            score(part, qt, kt, row0, half * (kKeys / 2));
        exchange(w, part, scores, row0, half * (kKeys / 2));
        if (at + kKeys < seen) /* all warps are done with these keys */
            load_tile<kDim, kWide>(kt, k, s.ld_kv, at + kKeys, seen, n.dim);
        copies_end();
        apply(w, span_rule{&s, n.scale * kLog2e}, first, row0, rows - 1, at, seen - at);
        soften<false>(w, max, mass, keep);
        copies_wait<1>();
        __syncthreads();
        if (!idle)
            add_values(sum, keep, w, vt, half * kOwn);
        __syncthreads();
        if (at + kKeys < seen)
            load_tile<kDim, kWide>(vt, v, s.ld_kv, at + kKeys, seen, n.dim);
        copies_end();
    }
    copies_wait<0>();
    store(out, ldo, sum, mass, row0, rows, half * kOwn, n.dim);
    __syncthreads();
}

__global__ void __launch_bounds__(kWide)
    attend_wide(bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq, const call *c, heads n)
{
    extern __shared__ char raw[];
    char *room = (char *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
    begin();
    for (int64_t item = blockIdx.x; item < c->items; item += gridDim.x) {
        const span &s = *span_of(c, item);
        int64_t first = (item - s.item) * kRows, row = s.query_row + first;
        int64_t head = blockIdx.y * (int64_t)n.dim;
        attend(out + row * ldo + head, ldo, q + row * ldq + head, ldq, s, first,
               blockIdx.y / (n.heads / n.kv_heads) * (int64_t)n.dim, n, room);
    }
}

} // namespace

tt_status cuda_attend_wide(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                           const call *spans, const heads &n, unsigned grid, tt_err *e)
{
    static uint64_t allowed;
    tt_status st = allow_shared(c, &allowed, attend_wide, kBytes, "attention", e);
    return st ? st
              : launch(c, "attention", attend_wide, dim3(grid, (unsigned)n.heads), kWide, kBytes, e,
                       out, ldo, q, ldq, spans, n);
}
