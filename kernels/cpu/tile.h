/* tile.h - the register tile all matrix products here are made of; included by a file that has
 * said what an operand is:
 *
 *   operand      type of a multiplied value
 *   DEPTH        how many of them one step multiplies and adds per lane
 *   VECS         vectors of columns in a tile, so that TILE_ROWS * VECS sums stay in registers
 *   op_vec       LANES * DEPTH operands
 *   op_load(p), op_spread(p)   a vector; DEPTH operands in every lane
 *   op_mac(sum, a, b)
 *
 * The right-hand side comes in panels: [depth step][column][DEPTH], PANEL columns wide, so that
 * it is read front to back. A sum always runs over the depth steps from first to last, whatever
 * the rows around it: that is why a row's bits do not depend on the batch. */
#ifndef TT_CPU_TILE_H
#define TT_CPU_TILE_H

#include "kernels/cpu/cpu.h"

enum { TILE_ROWS = 6, PANEL = VECS * LANES };

#define TILE_ARGS                                                                              \
    float *y, int64_t ldy, const operand *x, int64_t ldx, const operand *panel, int64_t steps, \
        int64_t cols, const float *scale, const float *bias, bool add

/* y[rows x cols] = sums * scale + bias (+ y). rows and vecs are constants after inlining. */
static inline __attribute__((always_inline)) void tile(TILE_ARGS, const int rows, const int vecs)
{
    vf sum[TILE_ROWS][VECS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int j = 0; j < vecs; j++)
            sum[i][j] = v_set(0);
    for (int64_t p = 0; p < steps; p++) {
        op_vec b[VECS];
#pragma GCC unroll 8
        for (int j = 0; j < vecs; j++)
            b[j] = op_load(panel + (p * PANEL + j * LANES) * DEPTH);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            op_vec a = op_spread(x + i * ldx + p * DEPTH);
#pragma GCC unroll 8
            for (int j = 0; j < vecs; j++)
                sum[i][j] = op_mac(sum[i][j], a, b[j]);
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < vecs; j++) {
        int64_t left = cols - j * LANES;
        vf s = scale ? v_load_part(scale + j * LANES, left) : v_set(1);
        vf t = bias ? v_load_part(bias + j * LANES, left) : v_set(0);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            float *out = y + i * ldy + j * LANES;
            vf v = scale ? v_mul(sum[i][j], s) : sum[i][j];
            if (bias)
                v = v_add(v, t);
            if (add)
                v = v_add(v, v_load_part(out, left));
            v_store_part(out, v, left);
        }
    }
}

#define TILE_PASS y, ldy, x, ldx, panel, steps, cols, scale, bias, add
#define TILE(rows, vecs)                                                  \
    static __attribute__((noinline)) void tile_##rows##_##vecs(TILE_ARGS) \
    {                                                                     \
        tile(TILE_PASS, rows, vecs);                                      \
    }
#define TILES(vecs) \
    TILE(1, vecs) TILE(2, vecs) TILE(3, vecs) TILE(4, vecs) TILE(5, vecs) TILE(6, vecs)
#define ROW_OF(vecs)                                                                             \
    {                                                                                            \
        tile_1_##vecs, tile_2_##vecs, tile_3_##vecs, tile_4_##vecs, tile_5_##vecs, tile_6_##vecs \
    }

typedef void tile_fn(TILE_ARGS);

TILES(1)
TILES(2)
#if VECS == 4
TILES(3)
TILES(4)
static tile_fn *const tile_of[VECS][TILE_ROWS] = {ROW_OF(1), ROW_OF(2), ROW_OF(3), ROW_OF(4)};
#else
static tile_fn *const tile_of[VECS][TILE_ROWS] = {ROW_OF(1), ROW_OF(2)};
#endif

/* Any number of rows by one panel. */
static void panel_product(float *y, int64_t ldy, const void *x, int64_t ldx, int64_t rows,
                          const void *panel, int64_t steps, int64_t cols, const float *scale,
                          const float *bias, bool add)
{
    tile_fn *const *by_rows = tile_of[(cols + LANES - 1) / LANES - 1];
    const operand *in = x;
    for (; rows > 0; rows -= TILE_ROWS, y += TILE_ROWS * ldy, in += TILE_ROWS * ldx)
        by_rows[rows < TILE_ROWS ? rows - 1 : TILE_ROWS - 1](y, ldy, in, ldx, panel, steps, cols,
                                                             scale, bias, add);
}

#endif
