/* attention_mma.cuh - tiles of keys, values and queries in shared memory, and products of them by
 * mma.sync (compute capability 8.0 and later). A tile has kKeys rows of HD channels, in 16-byte
 * parts that are swizzled against bank conflicts; blocks have kThreads threads. */
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

__device__ void load_matrix(uint32_t (&r)[4], const bf16 *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
}
__device__ void load_transposed(uint32_t (&r)[4], const bf16 *p)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
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
template <int HD>
__device__ void load_tile(bf16 *tile, const bf16 *from, int64_t ld, int64_t first, int64_t rows,
                          int dim)
{
    constexpr int PARTS = HD / 8;
    for (int t = threadIdx.x; t < kKeys * PARTS; t += kThreads) {
        int row = t / PARTS, part = t % PARTS;
        bool valid = first + row < rows && part * 8 < dim;
        const bf16 *p = from + (valid ? (first + row) * ld + part * 8 : 0);
        copy16(tile + place<HD>(row, part), p, valid);
    }
}

template <int HD> constexpr size_t tile_bytes() { return (size_t)5 * kKeys * HD * sizeof(bf16); }

inline int padded_dim(int dim)
{
    return dim <= 32 ? 32 : dim <= 64 ? 64 : dim <= 96 ? 96 : dim <= 128 ? 128 : 256;
}

} // namespace

#endif
