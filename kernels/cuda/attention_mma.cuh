/* attention_mma.cuh - tiles of keys, values and queries in shared memory, and products of them by
 * mma.sync (compute capability 8.0 and later). A tile has kKeys rows of HD channels, in 16-byte
 * parts that are swizzled against bank conflicts; blocks have kThreads threads unless they say
 * otherwise. */
#ifndef TT_ATTENTION_MMA_CUH
#define TT_ATTENTION_MMA_CUH

#include "kernels/cuda/attention.cuh"

namespace {

constexpr int kRows = 64, kKeys = 64, kThreads = 128;

__device__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* Place of 16 bytes `part` of a row in a tile of HD channels; swizzled against bank conflicts: so
 * that eight rows have a part in different banks. Rows of 96 channels begin in two of the banks'
 * halves in turns. */
template <int HD> __device__ int place(int row, int part)
{
    constexpr int PARTS = HD / 8, MASK = PARTS < 8 ? PARTS - 1 : 7;
    int by = HD == 96 ? row / 2 & 3 : row & MASK;
    return (row * PARTS + (part ^ by)) * 8;
}

__device__ void copy16(bf16 *to, const bf16 *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(valid ? 16 : 0));
}
__device__ void copies_end() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> __device__ void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT));
}

__device__ void load_matrix(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}
__device__ inline void load_matrix(uint32_t (&r)[4], const bf16 *p)
{
    load_matrix(r, shared_address(p));
}
__device__ void load_transposed(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from));
}
__device__ inline void load_transposed(uint32_t (&r)[4], const bf16 *p)
{
    load_transposed(r, shared_address(p));
}
__device__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ uint32_t pack2(float a, float b)
{
    __nv_bfloat162 p = __floats2bfloat162_rn(a, b);
    uint32_t w;
    memcpy(&w, &p, 4);
    return w;
}

/* Rows [first, first + n) of a matrix of `dim` channels, `rows` valid, into a tile. */
template <int HD, int THREADS = kThreads>
__device__ void load_tile(bf16 *tile, const bf16 *from, int64_t ld, int64_t first, int64_t rows,
                          int dim)
{
    constexpr int PARTS = HD / 8;
    for (int t = threadIdx.x; t < kKeys * PARTS; t += THREADS) {
        int row = t / PARTS, part = t % PARTS;
        bool valid = first + row < rows && part * 8 < dim;
        const bf16 *p = from + (valid ? (first + row) * ld + part * 8 : 0);
        copy16(tile + place<HD>(row, part), p, valid);
    }
}

/* Scores of a tile of 8 N keys, minus infinity where a key is not seen, become weights relative to
 * the two rows' new maximum. mass: the thread's share of their sums; keep: what is left of earlier
 * weights. Scores are logarithms of base e or 2; __expf errs by 2^-24 of its argument too, which is
 * nothing beside the greatest weight, 1. */
template <bool NATURAL, int N>
__device__ void soften(float (&w)[N][4], float (&max)[2], float (&mass)[2], float (&keep)[2])
{
    auto power = [](float x) { return NATURAL ? __expf(x) : exp2f(x); };
    float most[2] = {max[0], max[1]};
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            most[i / 2] = fmaxf(most[i / 2], w[n][i]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 1));
        most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 2));
        keep[h] = max[h] == -INFINITY ? 0.0f : power(max[h] - most[h]);
        max[h] = most[h];
        mass[h] *= keep[h];
    }
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float m = max[i / 2];
            w[n][i] = m == -INFINITY ? 0.0f : power(w[n][i] - m);
            mass[i / 2] += w[n][i];
        }
}

/* What a warp has of its sixteen rows, one of HD channels each. */
template <int HD> struct state {
    float sum[HD / 8][4]; /* of weight times value */
    float max[2], mass[2];
};

/* w: products of the rows with 8 N keys of a tile, from `first`. */
template <int HD, int N>
__device__ void score_keys(float (&w)[N][4], const uint32_t (&q)[HD / 16][4], const bf16 *k,
                           int first)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            w[n][i] = 0;
#pragma unroll
    for (int d = 0; d < HD / 16; d++)
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t b[4]; /* keys 8 n.., channels 16 d..: two tiles of 8 keys, two of 8 channels */
            load_matrix(b, k + place<HD>(first + 8 * n + lane % 8 + lane / 16 * 8,
                                         2 * d + lane / 8 % 2));
            mma(w[n], q[d], b[0], b[1]);
            mma(w[n + 1], q[d], b[2], b[3]);
        }
}

/* Goes on with scores of base 2 and the values of their keys. */
template <int HD, int N>
__device__ void add_values(state<HD> &s, float (&w)[N][4], const bf16 *v, int first)
{
    int lane = threadIdx.x % 32;
    float keep[2];
    soften<false>(w, s.max, s.mass, keep);
#pragma unroll
    for (int d = 0; d < HD / 8; d++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            s.sum[d][i] *= keep[i / 2];
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
        uint32_t a[4] = {pack2(w[2 * n][0], w[2 * n][1]), pack2(w[2 * n][2], w[2 * n][3]),
                         pack2(w[2 * n + 1][0], w[2 * n + 1][1]),
                         pack2(w[2 * n + 1][2], w[2 * n + 1][3])};
#pragma unroll
        for (int d = 0; d < HD / 8; d += 2) {
            uint32_t b[4]; /* keys 16 n.., channels 8 d..: transposed on the way */
            load_transposed(b, v + place<HD>(first + 16 * n + lane % 16, d + lane / 16));
            mma(s.sum[d], a, b[0], b[1]);
            mma(s.sum[d + 1], a, b[2], b[3]);
        }
    }
}

/* Room for the scores of kRows rows and `keys` keys, rows eight banks apart. */
constexpr int exchange_floats(int keys) { return kRows * (keys + 8); }

/* Warps that share 16 rows from row0 have scored 8 N keys each, from key0; then all of them get the
 * whole tile's. */
template <int ALL, int N>
__device__ void exchange(float (&all)[ALL][4], const float (&mine)[N][4], float *room, int row0,
                         int key0)
{
    constexpr int LINE = 8 * ALL + 8;
    int lane = threadIdx.x % 32;
    float *line = room + (row0 + lane / 4) * LINE + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            *reinterpret_cast<float2 *>(line + 8 * h * LINE + key0 + 8 * n) =
                make_float2(mine[n][2 * h], mine[n][2 * h + 1]);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < ALL; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float2 two = *reinterpret_cast<float2 *>(line + 8 * h * LINE + 8 * n);
            all[n][2 * h] = two.x, all[n][2 * h + 1] = two.y;
        }
}

/* Scores as a rule has them (span_rule, bias_rule): of the warp's rows from row0, none beyond
 * `last`, which the rule knows `first` further; keys from `at` on, `left` of them there. */
template <int N, typename RULE>
__device__ void apply(float (&w)[N][4], const RULE &rule, int64_t first, int row0, int last, int at,
                      int left)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int mine = row0 + lane / 4 + 8 * h;
        auto row = rule.of(first + (mine < last ? mine : last));
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                int key = 8 * n + 2 * (lane % 4) + i % 2;
                w[n][i] = key < left ? row.score(at + key, w[n][i]) : -INFINITY;
            }
    }
}

/* Over the four threads that share a row. */
__device__ inline float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

template <int HD> constexpr size_t tile_bytes() { return (size_t)5 * kKeys * HD * sizeof(bf16); }

inline int padded_dim(int dim)
{
    return dim <= 32 ? 32 : dim <= 64 ? 64 : dim <= 96 ? 96 : dim <= 128 ? 128 : 256;
}

} // namespace

#endif
