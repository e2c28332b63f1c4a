/* orders.c - how many tokens of a masked image stand after each step, and which come first. */
#include <math.h>

#include "samplers/image.h"

static const double half_pi = 1.57079632679489661923;

static double ratio(const tt_image_seq *q)
{
    return (double)(q->step + 1) / q->steps;
}

/* The same at every step. */
static double constant(const tt_image_seq *q, double given)
{
    (void)q;
    return given;
}

/* --- ENAT --- */

/* With all tokens hidden at first as in the released code; with some known at first a step always
 * reveals one. */
static int32_t enat_remain(const tt_image_seq *q)
{
    int32_t n = (int32_t)floor(q->free * cos(ratio(q) * 3.14159265358979323846 * 0.5));
    int32_t most = q->free == q->layout.tokens ? q->hidden : q->hidden - 1;
    return n < most ? n : most;
}

static double enat_temperature(const tt_image_seq *q, double given)
{
    return given > 0 ? fmax(given * (1 - ratio(q)), 1e-3) : 0;
}

static const tt_order enat = {
    .name = "enat",
    .summary = "the surest first, on a cosine schedule; draws get sharper from step to step",
    .source = "arXiv 2411.06959 and its released code",
    .remain = enat_remain,
    .temperature = enat_temperature,
};

/* --- MaskGIT --- */

static int32_t maskgit_remain(const tt_image_seq *q)
{
    int32_t n = (int32_t)floor(q->free * cos(ratio(q) * half_pi));
    n = n < q->hidden - 1 ? n : q->hidden - 1;
    return n > 1 ? n : q->hidden > 1 ? 1 : 0;
}

static const tt_order maskgit = {
    .name = "maskgit",
    .summary = "the surest first, on a cosine schedule; draws at one temperature",
    .source = "arXiv 2202.04200 and its released code",
    .remain = maskgit_remain,
    .temperature = constant,
};

/* --- Halton --- */

static double radical_inverse(uint32_t i, uint32_t base)
{
    double v = 0, digit = 1;
    for (; i; i /= base) {
        digit /= base;
        v += digit * (i % base);
    }
    return v;
}

/* Cells in the order in which the two-dimensional Halton sequence (bases 2 and 3) first comes to
 * them; cells it has not met after the sequence's first points (none on usual grids) come last. */
static void halton_arrange(const tt_image_seq *q, int32_t *rank)
{
    enum { POINTS = 10000, PER_CELL = 40 };
    int32_t n = q->layout.tokens, rows = q->layout.rows, columns = q->layout.columns, next = 0;
    int64_t points = (int64_t)n * PER_CELL > POINTS ? (int64_t)n * PER_CELL : POINTS;
    for (int32_t i = 0; i < n; i++)
        rank[i] = -1;
    for (int64_t i = 1; i <= points && next < n; i++) {
        int32_t row = (int32_t)(radical_inverse((uint32_t)i, 2) * rows);
        int32_t column = (int32_t)(radical_inverse((uint32_t)i, 3) * columns);
        if (rank[row * columns + column] < 0)
            rank[row * columns + column] = next++;
    }
    for (int32_t i = 0; i < n; i++)
        if (rank[i] < 0)
            rank[i] = next++;
}

static int32_t halton_remain(const tt_image_seq *q)
{
    int32_t shown = (int32_t)(q->free * (1 - acos(ratio(q)) / half_pi));
    shown = shown > q->step + 1 ? shown : q->step + 1;
    return shown < q->free ? q->free - shown : 0;
}

static const tt_order halton = {
    .name = "halton",
    .summary = "a fixed sequence that spreads each step's tokens over the image",
    .source = "arXiv 2503.17076 and its released code",
    .remain = halton_remain,
    .temperature = constant,
    .arrange = halton_arrange,
};

const tt_order *const tt_orders[] = {
    [TT_ORDER_ENAT] = &enat,
    [TT_ORDER_MASKGIT] = &maskgit,
    [TT_ORDER_HALTON] = &halton,
    NULL,
};
