/* gemm_hopper_ring.cuh - how tiles of the products of gemm_hopper.cuh are shared out and fed.
 *
 * A block has a ring of stages in shared memory, each with 128 bytes of K of a tile's rows of x and
 * of its rows of w. Two neighbouring blocks may work as a pair (a cluster of two): their tiles have
 * the weights or the rows in common, and each block fetches half of what is common for both. That
 * is for the L2, which cannot hand every multiprocessor all it multiplies at full speed; no sum
 * changes. */
#ifndef TT_GEMM_HOPPER_RING_CUH
#define TT_GEMM_HOPPER_RING_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/head.cuh"
#include "kernels/cuda/hopper.cuh"

/* Long sums over few outputs are made of the sums of the quarters of K, in order, always: with few
 * rows four blocks then share a tile, each reading a quarter of the rows too. */
enum hopper_sum {
    WHOLE,       /* one sum */
    QUARTERS,    /* one block takes the four sums of a tile */
    ONE_QUARTER, /* a block takes one, then adds up the four of a quarter of the columns */
};

/* What the tiles 2 i and 2 i + 1 have in common. */
enum hopper_pair {
    SHARE_WEIGHTS, /* columns: they are row tiles one below the other */
    SHARE_ROWS,    /* rows: they are column tiles side by side */
};

struct hopper_args {
    int64_t rows, n; /* n: rows of the weight as stored */
    hopper_pair pair;
    int row_tiles, tiles, slabs; /* ONE_QUARTER: tiles times four, slabs of a quarter. The last tile
                                    may lie beyond the outputs, to make a pair */
    int x_rows, stages;          /* of a stage: rows of x, as many as there are, in 16s */
    void *y;
    int64_t ldy;
    int64_t width; /* columns of y */
    const float *scale, *bias, *x_scale;
    bool add, gelu, vector; /* vector: y and z take 16-byte accesses */
    const int32_t *index; /* as in cuda_gemm */
    void *z;
    int64_t ldz, split;
    float *part;      /* of ONE_QUARTER: sums of the quarters, and how many were ever done */
    uint32_t *done;
    head_tile_args head;
};

namespace hopper {

constexpr int kSlab = 128; /* bytes of K a stage */
constexpr int kMostStages = 32;

template <int TM> __host__ __device__ constexpr int threads() { return TM == 64 ? 160 : 384; }

/* Bytes of a ring. Room is left on the multiprocessor for the small kernels between two products,
 * so that they are there, waiting, when the first one ends, and the second one's weights are on
 * their way while they run. */
template <int TM> __host__ __device__ constexpr int ring_bytes()
{
    return (TM == 64 ? 160 : 200) << 10;
}
/* And what aligning it takes, and its barriers. */
template <int TM> constexpr size_t shared_bytes() { return 2048 + ring_bytes<TM>(); }
static_assert(kMostStages * 16 <= 1024, "barriers do not fit");
static_assert(shared_bytes<128>() <= kWholeShared, "the ring does not fit");

inline int stages_of(int ring, int x_rows, int tn)
{
    int n = ring / ((x_rows + tn) * kSlab);
    return n < kMostStages ? n : kMostStages;
}

template <int TM, int TN> struct ring {
    char *x, *w; /* [stage][rows][128 bytes] */
    uint64_t *full, *empty;
    int stages, x_bytes; /* x_bytes: of a stage */
    int peer;            /* the other block of the pair, or -1 */
    int stage, parity;

    __device__ ring(char *raw, int n, int x_rows, int with)
        : stages(n), x_bytes(x_rows * kSlab), peer(with), stage(0), parity(0)
    {
        full = (uint64_t *)(((uintptr_t)raw + 1023) & ~(uintptr_t)1023);
        empty = full + kMostStages;
        x = (char *)full + 1024;
        w = x + n * x_bytes;
    }
    __device__ void init()
    {
        for (int i = 0; i < stages; i++) {
            barrier_init(&full[i], 1);
            barrier_init(&empty[i], peer < 0 ? TM / 64 : TM / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __device__ void next()
    {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
    /* By one thread of each multiplying warpgroup, done with a stage. */
    __device__ void release(int i)
    {
        barrier_arrive(&empty[i]);
        if (peer >= 0)
            barrier_arrive_at(&empty[i], peer);
    }
    /* Warpgroups multiply 64 rows: where x has fewer they read on into what lies behind, and what
     * comes of it is not stored. */
    __device__ uint64_t x_part(int group) const
    {
        return describe(x + stage * x_bytes + group * 64 * kSlab);
    }
    __device__ uint64_t w_part() const { return describe(w + stage * TN * kSlab); }
};

/* Of the i-th piece of work, which blocks take in turns: its tile and, of ONE_QUARTER, its quarter
 * of K. There eight follow each other: the quarters of two tiles that make a pair. */
template <hopper_sum SUM> __device__ int tile_of(int i)
{
    return SUM == ONE_QUARTER ? i / 8 * 2 + i % 2 : i;
}
template <hopper_sum SUM> __device__ int quarter_of(int i)
{
    return SUM == ONE_QUARTER ? i / 2 % 4 : 0;
}

/* Where it begins: output, row, slab of K. */
struct job {
    int n0, m0, slab0;
};
template <int TM, int TN, hopper_sum SUM> __device__ job job_of(int i, const hopper_args &a)
{
    int tile = tile_of<SUM>(i), slab0 = quarter_of<SUM>(i) * a.slabs;
    if (a.pair == SHARE_ROWS)
        return {(tile / 2 / a.row_tiles * 2 + tile % 2) * TN, tile / 2 % a.row_tiles * TM, slab0};
    return {tile / a.row_tiles * TN, tile % a.row_tiles * TM, slab0};
}

/* Copies `rows` rows of one of the operands to a stage; of what a pair shares, half of them to both
 * blocks. */
__device__ inline void fetch(char *to, const CUtensorMap *map, uint64_t *full, int k, int row,
                             int rows, bool shared, uint64_t policy)
{
    if (!shared) {
        copy_box(to, map, full, k, row, policy);
        return;
    }
    int half = blockIdx.x % 2 * (rows / 2);
    copy_box_to_both(to + half * kSlab, map, full, k, row + half, policy);
}

/* The feeding thread. Weights of the first stages are fetched before the kernel before is done. */
template <int TM, int TN, bool FP8, hopper_sum SUM>
__device__ void feed(ring<TM, TN> r, const CUtensorMap *mx, const CUtensorMap *mw,
                     const hopper_args &a)
{
    constexpr int UNIT = FP8 ? kSlab : kSlab / 2;
    int bytes = (a.x_rows + TN) * kSlab;
    int tile = blockIdx.x, early = a.slabs < r.stages ? a.slabs : r.stages;
    if (tile >= a.tiles) {
        wait_for_previous();
        return;
    }
    job j = job_of<TM, TN, SUM>(tile, a);
    prefetch_map(mw);
    prefetch_map(mx);
    for (int i = 0; i < early; i++) {
        barrier_expect(&r.full[i], bytes);
        fetch(r.w + i * TN * kSlab, mw, &r.full[i], (j.slab0 + i) * UNIT, j.n0, TN,
              a.pair == SHARE_WEIGHTS, kEvictFirst);
    }
    wait_for_previous();
    for (int done = 0; tile < a.tiles; tile += gridDim.x) {
        j = job_of<TM, TN, SUM>(tile, a);
        for (int i = 0; i < a.slabs; i++, r.next()) {
            int k = (j.slab0 + i) * UNIT;
            uint64_t *full = &r.full[r.stage];
            bool has_weights = done < early;
            if (!has_weights) {
                barrier_wait(&r.empty[r.stage], r.parity ^ 1);
                barrier_expect(full, bytes);
            }
            fetch(r.x + r.stage * r.x_bytes, mx, full, k, j.m0, a.x_rows, a.pair == SHARE_ROWS,
                  kEvictLast);
            if (!has_weights)
                fetch(r.w + r.stage * TN * kSlab, mw, full, k, j.n0, TN,
                      a.pair == SHARE_WEIGHTS, kEvictFirst);
            done++;
        }
    }
}

} // namespace hopper

#endif
