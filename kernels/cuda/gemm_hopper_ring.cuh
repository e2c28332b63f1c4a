/* gemm_hopper_ring.cuh - how tiles of the products of gemm_hopper.cuh are shared out and fed.
 *
 * A block has a ring of stages in shared memory, each with 128 bytes of K of a tile's rows of x and
 * of its rows of w. Of tiles of 128 rows two neighbouring blocks work as a pair (a cluster of two):
 * their tiles have the weights or the rows in common, and each block fetches half of what is common
 * for both. That is for the L2, which cannot hand every multiprocessor all it multiplies at full
 * speed; no sum changes. Tiles of few rows have nothing large in common, and a cluster takes longer
 * to start. */
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
    THIRDS,      /* operands in thirds: a sum of the sums of 64 inputs */
};

/* What the tiles 2 i and 2 i + 1 have in common. */
enum hopper_pair {
    SHARE_NOTHING, /* and are not a pair */
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
    bool staggered;         /* the second warpgroup begins later */
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

template <int TM> __host__ __device__ constexpr int threads() { return TM == 64 ? 192 : 384; }
template <int TM> __host__ __device__ constexpr bool in_pairs() { return TM > 64; }

/* Bytes of a ring. Room is left on the multiprocessor for the small kernels between two products,
 * so that they are there, waiting, when the first one ends, and the second one's weights are on
 * their way while they run. */
template <int TM> __host__ __device__ constexpr int ring_bytes()
{
    return (TM == 64 ? 160 : 200) << 10;
}
/* What aligning it takes, and its barriers. */
constexpr size_t kBeside = 2048;
template <int TM> constexpr size_t shared_bytes() { return kBeside + ring_bytes<TM>(); }
static_assert(kMostStages * 16 <= 1024, "barriers do not fit");
static_assert(shared_bytes<128>() <= kWholeShared, "the ring does not fit");

inline int stages_of(int ring, int x_rows, int tn)
{
    int n = ring / ((x_rows + tn) * kSlab);
    return n < kMostStages ? n : kMostStages;
}

/* Of blocks that go through so many slabs in all: no more than those, so that the blocks of the
 * product that follows find room beside them. Some are always there: a warpgroup holds up to three
 * at once, and reads on where rows of x are missing. */
inline int stages_of(int ring, int x_rows, int tn, int64_t slabs)
{
    constexpr int LEAST = 6;
    int n = stages_of(ring, x_rows, tn);
    return slabs >= n || n <= LEAST ? n : slabs < LEAST ? LEAST : (int)slabs;
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
 * of K. There four follow each other, or eight: the quarters of two tiles that make a pair. */
template <int TM, hopper_sum SUM> __device__ int tile_of(int i)
{
    if (SUM != ONE_QUARTER)
        return i;
    return in_pairs<TM>() ? i / 8 * 2 + i % 2 : i / 4;
}
template <int TM, hopper_sum SUM> __device__ int quarter_of(int i)
{
    if (SUM != ONE_QUARTER)
        return 0;
    return in_pairs<TM>() ? i / 2 % 4 : i % 4;
}

/* Where it begins: output, row, slab of K. */
struct job {
    int n0, m0, slab0;
};
template <int TM, int TN, hopper_sum SUM> __device__ job job_of(int i, const hopper_args &a)
{
    int tile = tile_of<TM, SUM>(i), slab0 = quarter_of<TM, SUM>(i) * a.slabs;
    if (a.pair == SHARE_ROWS)
        return {(tile / 2 / a.row_tiles * 2 + tile % 2) * TN, tile / 2 % a.row_tiles * TM, slab0};
    return {tile / a.row_tiles * TN, tile % a.row_tiles * TM, slab0};
}

/* Copies `rows` rows of one of the operands to a stage; of what a pair shares, half of them to both
 * blocks. Half is a multiple of eight rows, which swizzling takes together. */
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

/* The thread that feeds weights. It also says how many bytes a stage waits for, the rows of x among
 * them: those may come before that is said. The kernel before may still run: nobody writes weights.
 * At the end all stages are free, so that no block of a pair is gone while the other one still
 * frees a stage there. */
template <int TM, int TN, bool FP8, hopper_sum SUM>
__device__ void feed_weights(ring<TM, TN> r, const CUtensorMap *mw, const hopper_args &a)
{
    constexpr int UNIT = FP8 ? kSlab : kSlab / 2;
    int bytes = (a.x_rows + TN) * kSlab;
    bool shared = in_pairs<TM>() && a.pair == SHARE_WEIGHTS;
    for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
        job j = job_of<TM, TN, SUM>(tile, a);
        for (int i = 0; i < a.slabs; i++, r.next()) {
            barrier_wait(&r.empty[r.stage], r.parity ^ 1);
            barrier_expect(&r.full[r.stage], bytes);
            fetch(r.w + r.stage * TN * kSlab, mw, &r.full[r.stage], (j.slab0 + i) * UNIT, j.n0, TN,
                  shared, kEvictFirst);
        }
    }
    if (in_pairs<TM>())
        for (int i = 0; i < r.stages; i++, r.next())
            barrier_wait(&r.empty[r.stage], r.parity ^ 1);
}

/* The thread that feeds rows of x, which the kernel before may have written. */
template <int TM, int TN, bool FP8, hopper_sum SUM>
__device__ void feed_rows(ring<TM, TN> r, const CUtensorMap *mx, const hopper_args &a)
{
    constexpr int UNIT = FP8 ? kSlab : kSlab / 2;
    bool shared = in_pairs<TM>() && a.pair == SHARE_ROWS;
    prefetch_map(mx);
    wait_for_previous();
    for (int tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
        job j = job_of<TM, TN, SUM>(tile, a);
        for (int i = 0; i < a.slabs; i++, r.next()) {
            barrier_wait(&r.empty[r.stage], r.parity ^ 1);
            fetch(r.x + r.stage * r.x_bytes, mx, &r.full[r.stage], (j.slab0 + i) * UNIT, j.m0,
                  a.x_rows, shared, kEvictLast);
        }
    }
}

} // namespace hopper

#endif
