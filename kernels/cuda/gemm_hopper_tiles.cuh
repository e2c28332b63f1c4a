/* gemm_hopper_tiles.cuh - which tiles a product of gemm_hopper.cuh is cut into. Whatever is chosen,
 * the sums are the same; only the time is not. */
#ifndef TT_GEMM_HOPPER_TILES_CUH
#define TT_GEMM_HOPPER_TILES_CUH

#include "kernels/cuda/gemm_hopper_ring.cuh"

namespace hopper {

inline int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* Rows of x that a stage holds. */
inline int rows_fetched(int64_t rows, int tm)
{
    return rows >= tm ? tm : (int)(parts_of(rows, 16) * 16);
}

/* Row tiles that go in pairs share weights. Of an odd number, each shares its rows with itself, two
 * column tiles at a time. */
inline hopper_pair pair_of(int64_t rows, int tm)
{
    if (tm == 64)
        return SHARE_NOTHING;
    return parts_of(rows, tm) % 2 ? SHARE_ROWS : SHARE_WEIGHTS;
}

/* Numbers of tiles; of columns even where two make a pair. */
struct tiling {
    int64_t rows, columns;
};
inline tiling tiles_of(int64_t rows, int64_t n, int tm, int tn, hopper_pair pair)
{
    tiling t = {parts_of(rows, tm), parts_of(n, tn)};
    if (pair == SHARE_ROWS)
        t.columns = (t.columns + 1) / 2 * 2;
    return t;
}

/* What bounds a tile, in bytes a cycle: of one multiprocessor, and of all of them together. */
constexpr double kMemoryOne = 26, kMemoryAll = 2400, kCacheOne = 55, kCacheAll = 4750;

/* Bytes of a row of the operands, and how often each is multiplied: in thirds six products are made
 * of three parts. */
struct depth {
    double bytes, times;
};
inline depth depth_of(const tt_matrix *m)
{
    if (m->thirds)
        return {2.0 * (double)m->kp, 2};
    return {(double)m->k * (m->fp8 ? 1 : 2), 1};
}

/* Cycles of a tile while `active` of them are computed, roughly: the longest of its products, its
 * share of the weights out of memory and what it takes out of the L2, something of the two others,
 * and what starting and ending one costs. */
inline double tile_cycles(int64_t rows, int64_t row_tiles, depth of, int tm, int tn,
                          hopper_pair pair, double active)
{
    double memory = kMemoryAll / active < kMemoryOne ? kMemoryAll / active : kMemoryOne;
    double cache = kCacheAll / active < kCacheOne ? kCacheAll / active : kCacheOne;
    double x = rows_fetched(rows, tm), k = of.bytes;
    double part[3] = {of.times * k / 32 * (tm / 64) * tn / 2 * 1.05,
                      k * tn / (double)row_tiles / memory,
                      k * (pair == SHARE_WEIGHTS ? tn / 2 + x : pair == SHARE_ROWS ? tn + x / 2
                                                                                   : tn + x) /
                          cache};
    double sum = part[0] + part[1] + part[2], most = part[0] > part[1] ? part[0] : part[1];
    most = most > part[2] ? most : part[2];
    return most + (sum - most) / 4 + 800 + 4.0 * tn;
}

/* Of all tiles: full rounds of the multiprocessors, and the rest. */
inline double cycles(const cuda *c, int64_t rows, int64_t n, depth k, int tm, int tn)
{
    hopper_pair pair = pair_of(rows, tm);
    tiling t = tiles_of(rows, n, tm, tn, pair);
    int64_t tiles = t.rows * t.columns, sms = pair == SHARE_NOTHING ? c->sms : c->sms / 2 * 2;
    int64_t rest = tiles % sms;
    double full = tile_cycles(rows, t.rows, k, tm, tn, pair, (double)sms);
    double last = rest ? tile_cycles(rows, t.rows, k, tm, tn, pair, (double)rest) : 0;
    return (double)(tiles / sms) * full + last;
}

/* Rows of a tile: as many as there are up to 64, else 128. */
inline int tall(int64_t rows) { return rows <= 64 ? 64 : 128; }

/* The width, out of `count`, that takes the least time. */
inline int choose(const cuda *c, const cuda_gemm *g, int64_t n, const int *widths, int count)
{
    int best = 0;
    double least = 0;
    for (int i = 0; i < count; i++) {
        double now = cycles(c, g->rows, n, depth_of(g->w), tall(g->rows), widths[i]);
        if (!best || now < least) {
            best = widths[i];
            least = now;
        }
    }
    return best;
}

} // namespace hopper

#endif
