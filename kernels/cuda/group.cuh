/* group.cuh - tiles of a product whose rows lie in groups, each with a matrix of its own. How many
 * rows a group has is known on the device alone, so grids hold the most tiles there can be and
 * every block looks up which is its. */
#ifndef TT_GROUP_CUH
#define TT_GROUP_CUH

#include "kernels/cuda/cuda.h"

struct group_tile {
    int group;        /* -1: there is no such tile */
    int64_t row, end; /* the tile's first row; the group's rows end here */
    int column;       /* number of the tile along the outputs */
};

/* Tile number `tile`, by a whole warp. Tiles hold `rows` rows; each group has `columns` of them
 * side by side. Row tiles of one column follow each other, so that weights are read once. */
__device__ inline group_tile find_tile(const int32_t *begin, int groups, int rows, int columns,
                                       int tile)
{
    int lane = threadIdx.x % 32;
    for (int g0 = 0; g0 < groups; g0 += 32) {
        int g = g0 + lane, first = g < groups ? begin[g] : 0, end = g < groups ? begin[g + 1] : 0;
        int row_tiles = (end - first + rows - 1) / rows, mine = row_tiles * columns, sum = mine;
        for (int d = 1; d < 32; d *= 2) {
            int below = __shfl_up_sync(~0u, sum, d);
            sum += lane >= d ? below : 0;
        }
        unsigned reached = __ballot_sync(~0u, sum > tile);
        if (!reached) {
            tile -= __shfl_sync(~0u, sum, 31);
            continue;
        }
        int at = __ffs(reached) - 1;
        tile -= __shfl_sync(~0u, sum - mine, at);
        row_tiles = __shfl_sync(~0u, row_tiles, at);
        first = __shfl_sync(~0u, first, at);
        return {g0 + at, first + (int64_t)(tile % row_tiles) * rows, __shfl_sync(~0u, end, at),
                tile / row_tiles};
    }
    return {-1, 0, 0, 0};
}

/* The most tiles there can be: every group may end in the middle of one. */
static inline tt_status most_tiles(int *tiles, const cuda_gemm *g, int rows, int columns, tt_err *e)
{
    int64_t most = g->rows / rows + g->groups;
    most = (most < g->rows ? most : g->rows) * columns;
    *tiles = (int)most;
    return most <= 1 << 30 ? TT_OK
                           : tt_fail(e, TT_EINVAL, "linear_grouped: %lld rows in %d groups",
                                     (long long)g->rows, g->groups);
}

#endif
