/* attention.cuh - spans as the attention kernels see them. */
#ifndef TT_ATTENTION_CUH
#define TT_ATTENTION_CUH

#include "kernels/cuda/device.cuh"

constexpr int kLongRows = 128;                /* query rows of a tile of long spans */
constexpr int kWideDim = 512;                 /* channels of heads that fit shared memory */
constexpr int kMostChunks = 32;               /* that the keys of a span are cut into */
constexpr int kFoldBytes = kMostChunks * 64 * 8; /* two factors a chunk and row */
constexpr float kLog2e = 1.4426950408889634f;

constexpr int64_t kNoHole = INT64_MIN / 2;

struct span {
    int64_t query_row, query_rows, query_column, ld_kv, keys, key_column;
    int64_t hole; /* the key that row 0 does not see, row 1 the next one; kNoHole */
    const void *k, *v;
    int32_t see, block;
    int32_t tiles, chunks;   /* of query rows, of keys */
    int64_t chunk;           /* keys of a chunk */
    int64_t item;            /* number of the first (tile, chunk) of the span */
    int64_t part;            /* first part of the span, per head: tile-major, then chunk */
    int64_t counter;         /* first counter of the span, per head */
};

/* One argument: this, then the spans. */
struct call {
    int64_t spans, items, parts, counters;
    float *part_sum;  /* [heads][parts][rows of a tile][head] unnormalised sums */
    float2 *part_max; /* [heads][parts][rows of a tile] maximum (base 2), sum of weights */
    uint32_t *counter; /* [heads][counters], zero between calls */
    span at[];
};

struct heads {
    int heads, kv_heads, dim;
    float scale;
};

__device__ inline const span *span_of(const call *c, int64_t item)
{
    int64_t low = 0, high = c->spans - 1;
    while (low < high) {
        int64_t mid = (low + high + 1) / 2;
        if (c->at[mid].item <= item)
            low = mid;
        else
            high = mid - 1;
    }
    return &c->at[low];
}

/* How many of the span's keys, from the first, a query row may see. */
__device__ inline int64_t visible(const span &s, int64_t row)
{
    int64_t column = s.query_column + row, end = s.keys;
    if (s.see == TT_SEE_CAUSAL)
        end = column + 1 - s.key_column;
    else if (s.see == TT_SEE_BLOCK)
        end = (column / s.block + 1) * s.block - s.key_column;
    return end < 0 ? 0 : end < s.keys ? end : s.keys;
}

/* What a row of the span sees: score(key, q k) is the scaled score, or minus infinity. */
struct span_rule {
    const span *s;
    float scale;
    struct row {
        int seen, hole;
        float scale;
        __device__ float score(int key, float dot) const
        {
            return key < seen && key != hole ? dot * scale : -INFINITY;
        }
    };
    __device__ row of(int64_t i) const
    {
        int64_t seen = visible(*s, i), hole = s->hole + i;
        return {(int)seen, hole >= 0 && hole < seen ? (int)hole : -1, scale};
    }
};

/* Where the row's hole lies in the tile of `keys` keys from `at` on; that of eight rows further is
 * eight keys further. kFarHole if neither is in the tile. */
constexpr int kFarHole = -64;
__device__ inline int hole_in(const span &s, int64_t row, int64_t at, int keys)
{
    int64_t hole = s.hole + row - at;
    return hole >= -8 && hole < keys ? (int)hole : kFarHole;
}

/* Long spans of heads of 64 or 128 channels on Hopper; grid: blocks a head. */
tt_status cuda_attend_long(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                           const call *spans, const heads &n, unsigned grid, tt_err *e);
/* Likewise spans of at most 64 query rows. */
tt_status cuda_attend_short(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                            const call *spans, const heads &n, tt_err *e);
/* Likewise any spans of heads of 257 to 512 channels in tiles of 64 query rows; grid: blocks a
 * head. */
tt_status cuda_attend_wide(const cuda *c, bf16 *out, int64_t ldo, const bf16 *q, int64_t ldq,
                           const call *spans, const heads &n, unsigned grid, tt_err *e);

/* Float32 in thirds, of any spans in tiles of 64 query rows that fit: rows, keys and values in
 * whole 16 bytes, heads of at most 512 channels. grid: blocks a head. */
bool cuda_thirds_fit(const void *out, int64_t ldo, const void *q, int64_t ldq, int64_t dim);
tt_status cuda_attend_thirds(const cuda *c, float *out, int64_t ldo, const float *q, int64_t ldq,
                             const call *spans, const heads &n, unsigned grid, tt_err *e);

#endif
