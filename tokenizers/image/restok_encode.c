/* restok_encode.c - pictures to tokens. The convolutions give one row per cell; latents begin as
 * means of what coarser ones leave over; on the way through the blocks the cells merge to coarser
 * grids, which stand before the finer ones and are read by all that follows. */
#include <stdlib.h>
#include <string.h>

#include "tokenizers/image/restok.h"

/* --- pixels to rows --- */

/* Pictures in the convolutions. */
typedef struct {
    tt_conv_flow f;
    void *memory[3];
} pixels_job;

static tt_status pixels_open(pixels_job *j, tt_restok *r, int64_t images, tt_err *e)
{
    tt_stream *s = r->base.stream;
    int64_t side = r->base.info.width;
    tt_dtype type = r->in.vit.type;
    tt_status st = TT_OK;
    *j = (pixels_job){0};
    s->act = type;
    for (int i = 0; i < 3 && !st; i++)
        st = s->op.alloc(s, &j->memory[i],
                         (size_t)(images * tt_restok_most_numbers(r)) * tt_dtype_size(type), e);
    j->f = (tt_conv_flow){.stream = s, .x = j->memory[0], .h = j->memory[1], .t = j->memory[2],
                          .images = images, .height = side, .width = side, .groups = r->groups,
                          .eps = 1e-6f};
    return st;
}

static void pixels_close(pixels_job *j, tt_stream *s)
{
    for (int i = 0; i < 3; i++)
        s->op.release(s, j->memory[i]);
}

/* Pixels to the transformer's image rows, on the host. */
static tt_status image_rows(tt_restok *r, float *rows, const float *pixels, int64_t images,
                            tt_err *e)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, deviation[] = {0.229f, 0.224f, 0.225f};
    tt_stream *s = r->base.stream;
    int64_t side = r->base.info.width, n = images * side * side * 3, d = r->in.vit.width;
    int64_t cells = images * tt_restok_cells(r);
    pixels_job j;
    void *device = NULL;
    float *shifted = malloc((size_t)n * sizeof *shifted);
    tt_status st = shifted ? pixels_open(&j, r, images, e)
                           : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    for (int64_t i = 0; i < n && !st; i++)
        shifted[i] = (pixels[i] - mean[i % 3]) / deviation[i % 3];
    if (!st)
        st = tt_vit_put(&r->in.vit, j.f.h, shifted, n, e);
    if (!st)
        st = s->op.sync(s, e);
    if (!st)
        st = s->op.alloc(s, &device, (size_t)(cells * d) * tt_dtype_size(r->in.vit.type), e);
    if (!st)
        st = tt_restok_encode_pixels(r, &j.f, device, e);
    if (!st)
        st = tt_vit_get(&r->in.vit, rows, device, cells * d, e);
    if (shifted)
        pixels_close(&j, s);
    s->op.release(s, device);
    free(shifted);
    return st;
}

/* --- where latents begin --- */

static const int64_t grid_rows[] = {1, 1, 2, 2, 4, 4, 8, 8, 16};
static const int64_t grid_columns[] = {1, 2, 2, 4, 4, 8, 8, 16, 16};

static int exponent(int64_t n)
{
    int k = 0;
    while (1 << k < n)
        k++;
    return k;
}

/* Latents of one picture: means over the cells of each level's grid of what the levels before left
 * over. rest (side^2 x d) is used up. */
static void pool_residuals(const tt_restok *r, float *latent, float *rest)
{
    int64_t d = r->in.vit.width, side = r->side;
    const tt_layout *l = &r->base.info.layout;
    for (int32_t i = 0; i < l->levels; i++) {
        int k = exponent(l->level[i]);
        int64_t rows = grid_rows[k], columns = grid_columns[k];
        int64_t high = side / rows, wide = side / columns;
        for (int64_t cell = 0; cell < rows * columns; cell++, latent += d)
            for (int64_t c = 0; c < d; c++) {
                double sum = 0;
                for (int64_t p = 0; p < high * wide; p++)
                    sum += rest[((cell / columns * high + p / wide) * side +
                                 cell % columns * wide + p % wide) * d + c];
                latent[c] = (float)(sum / (double)(high * wide));
                for (int64_t p = 0; p < high * wide; p++)
                    rest[((cell / columns * high + p / wide) * side + cell % columns * wide +
                          p % wide) * d + c] -= latent[c];
            }
    }
}

/* --- the transformer --- */

/* Pictures in the encoder's transformer. */
typedef struct {
    tt_restok *r;
    int64_t images, rows; /* rows of one picture now */
    int merges;
    tt_act *x, *spare;    /* images x most rows x width */
    void *memory[2], *index, *scale;
} encoding;

/* What each group sees: itself and the groups before it. */
static int64_t spans_of(const encoding *n, tt_vit_span *span)
{
    const tt_restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    int64_t count = 0;
    for (int64_t i = 0; i < n->images; i++) {
        int64_t first = i * n->rows, row = first;
        for (int g = n->merges; g >= 0; g--) {
            int64_t rows = tt_restok_grid(r, g);
            span[count++] = (tt_vit_span){row, rows, TT_SEE_ALL, first, row + rows - first};
            row += rows;
        }
        for (int32_t v = 0; v < l->levels; v++) {
            int64_t rows = l->level[v];
            span[count++] = (tt_vit_span){row, rows, TT_SEE_ALL, first, row + rows - first};
            row += rows;
        }
    }
    return count;
}

/* The lists of a merge on the device. Of each row to come: where it is now; which row is taken from
 * it, and how many times (-1: it is subtracted). all: rows to come of all pictures. */
static tt_status list_merge(const encoding *n, int64_t all, tt_err *e)
{
    tt_stream *s = n->r->base.stream;
    int64_t group = tt_restok_grid(n->r, n->merges), half = group / 2, rows = n->rows + half;
    int32_t *index = malloc((size_t)(2 * all) * sizeof *index);
    float *scale = calloc((size_t)all, sizeof *scale);
    tt_status st = index && scale ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory to merge");
    for (int64_t i = 0; i < n->images && !st; i++)
        for (int64_t k = 0; k < rows; k++) {
            int64_t at = i * rows + k, old = i * n->rows;
            bool of_group = k >= half && k < half + group;
            index[at] = (int32_t)(old + (k < half ? 2 * k : k - half));
            index[all + at] = (int32_t)(of_group ? old + (k - half) / 2 * 2 : old);
            scale[at] = of_group ? -1 : 0;
        }
    if (!st)
        st = s->op.upload(s, n->index, index, (size_t)(2 * all) * sizeof *index, e);
    if (!st)
        st = s->op.upload(s, n->scale, scale, (size_t)all * sizeof *scale, e);
    free(index);
    free(scale);
    return st;
}

/* Every second row of the coarsest grid goes in front, and is taken from its two. */
static tt_status merge(encoding *n, tt_err *e)
{
    tt_restok *r = n->r;
    tt_stream *s = r->base.stream;
    int64_t d = r->in.vit.width, rows = n->rows + tt_restok_grid(r, n->merges) / 2;
    int64_t all = n->images * rows;
    tt_status st = list_merge(n, all, e);
    if (!st)
        st = s->op.gather(s, n->spare, d, n->x, d, n->index, all, d, e);
    void *kept = NULL; /* the second list needs room of its own */
    if (!st)
        st = s->op.alloc(s, &kept, (size_t)(all * d) * tt_dtype_size(r->in.vit.type), e);
    if (!st)
        st = s->op.gather(s, kept, d, n->x, d, (const int32_t *)n->index + all, all, d, e);
    if (!st)
        st = s->op.add_scaled(s, n->spare, d, kept, d, n->scale, all, d, e);
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, kept);
    tt_act *before = n->x;
    n->x = n->spare;
    n->spare = before;
    n->rows = rows;
    n->merges++;
    return st;
}

/* Adds the stage's vector to the rows of the freshest grid. */
static tt_status place_stage(encoding *n, tt_err *e)
{
    tt_restok *r = n->r;
    tt_stream *s = r->base.stream;
    int64_t d = r->in.vit.width, group = tt_restok_grid(r, n->merges);
    float *rows = malloc((size_t)(group * d) * sizeof *rows);
    tt_act *device = NULL;
    tt_status st = rows ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    for (int64_t i = 0; i < group * d && !st; i++)
        rows[i] = r->stage_place[n->merges][i % d];
    if (!st)
        st = tt_vit_upload(&r->in.vit, &device, rows, group * d, e);
    for (int64_t i = 0; i < n->images && !st; i++) {
        tt_act *x = (char *)n->x + (size_t)(i * n->rows * d) * tt_dtype_size(r->in.vit.type);
        st = s->op.add(s, x, d, device, d, group, d, e);
    }
    if (!st)
        st = s->op.sync(s, e);
    s->op.release(s, device);
    free(rows);
    return st;
}

static bool merges_here(const tt_restok *r, int64_t block)
{
    for (int64_t i = 1; i < r->stages; i++)
        if (block == (int64_t)((double)i / (double)r->stages * (double)r->in.layers) - 1)
            return true;
    return false;
}

static tt_status run_encoder(encoding *n, tt_err *e)
{
    tt_restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    size_t spans = (size_t)n->images * (size_t)(r->stages + l->levels + 1);
    tt_vit_span *span = malloc(spans * sizeof *span);
    tt_status s = span ? tt_restok_turn_in(r, n->merges, e)
                       : tt_fail(e, TT_ENOMEM, "no memory for spans");
    for (int64_t i = 0; i < r->in.layers && !s; i++) {
        const tt_vit_block *b = &r->in.block[i];
        bool merges = merges_here(r, i);
        s = tt_vit_attend(&r->in.vit, b, n->x, n->images * n->rows, span, spans_of(n, span),
                          r->turn_in[n->merges].cos, r->turn_in[n->merges].sin, e);
        if (!s && merges)
            s = merge(n, e);
        if (!s)
            s = tt_vit_mlp(&r->in.vit, b, n->x, n->images * n->rows, e);
        if (!s && merges)
            s = place_stage(n, e);
        if (!s && merges)
            s = tt_restok_turn_in(r, n->merges, e);
    }
    free(span);
    return s;
}

/* Image tokens and latents of all pictures in order, from the rows of the convolutions. */
static tt_status begin_rows(encoding *n, const float *image_rows, tt_err *e)
{
    tt_restok *r = n->r;
    const tt_layout *l = &r->base.info.layout;
    int64_t d = r->in.vit.width, cells = tt_restok_cells(r);
    float *rest = malloc((size_t)(cells * d) * sizeof *rest);
    float *rows = malloc((size_t)(n->images * n->rows * d) * sizeof *rows);
    tt_status s = rest && rows ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for %lld pictures",
                                                 (long long)n->images);
    for (int64_t i = 0; i < n->images && !s; i++) {
        float *mine = rows + i * n->rows * d, *latent = mine + cells * d;
        memcpy(rest, image_rows + i * cells * d, (size_t)(cells * d) * sizeof *rest);
        pool_residuals(r, latent, rest);
        for (int64_t k = 0; k < cells * d; k++)
            mine[k] = image_rows[i * cells * d + k] + r->stage_place[0][k % d];
        for (int32_t v = 0; v < l->levels; v++)
            for (int64_t k = 0; k < l->level[v] * d; k++)
                *latent++ += r->level_in[v][k % d];
    }
    if (!s)
        s = tt_vit_put(&r->in.vit, n->x, rows, n->images * n->rows * d, e);
    if (!s)
        s = r->base.stream->op.sync(r->base.stream, e);
    free(rest);
    free(rows);
    return s ? s : r->base.stream->op.layernorm(r->base.stream, n->x, d, n->x, d, r->in.pre.w,
                                                r->in.pre.b, n->images * n->rows, d,
                                                r->in.vit.eps, e);
}

/* The last rows of every picture, normalised, on the host. */
static tt_status last_rows(encoding *n, float *rows, tt_err *e)
{
    tt_restok *r = n->r;
    tt_stream *s = r->base.stream;
    int64_t d = r->in.vit.width, tokens = tt_restok_tokens(r), all = n->images * tokens;
    int32_t *index = malloc((size_t)all * sizeof *index);
    tt_status st = index ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for tokens");
    for (int64_t i = 0; i < all && !st; i++)
        index[i] = (int32_t)((i / tokens + 1) * n->rows - tokens + i % tokens);
    if (!st)
        st = s->op.upload(s, n->index, index, (size_t)all * sizeof *index, e);
    if (!st)
        st = s->op.gather(s, n->spare, d, n->x, d, n->index, all, d, e);
    if (!st)
        st = s->op.layernorm(s, n->spare, d, n->spare, d, r->in.post.w, r->in.post.b, all, d,
                             r->in.vit.eps, e);
    if (!st)
        st = tt_vit_get(&r->in.vit, rows, n->spare, all * d, e);
    free(index);
    return st;
}

static tt_status encoding_open(encoding *n, tt_restok *r, int64_t images, tt_err *e)
{
    tt_stream *s = r->base.stream;
    int64_t most = images * tt_restok_most_rows(r);
    size_t row = (size_t)r->in.vit.width * tt_dtype_size(r->in.vit.type);
    *n = (encoding){.r = r, .images = images,
                    .rows = tt_restok_cells(r) + tt_restok_tokens(r)};
    tt_status st = TT_OK;
    for (int i = 0; i < 2 && !st; i++)
        st = s->op.alloc(s, &n->memory[i], (size_t)most * row, e);
    if (!st)
        st = s->op.alloc(s, &n->index, (size_t)(2 * most) * sizeof(int32_t), e);
    if (!st)
        st = s->op.alloc(s, &n->scale, (size_t)most * sizeof(float), e);
    n->x = n->memory[0];
    n->spare = n->memory[1];
    s->act = r->in.vit.type;
    return st;
}

static void encoding_close(encoding *n)
{
    tt_stream *s = n->r->base.stream;
    s->op.release(s, n->memory[0]);
    s->op.release(s, n->memory[1]);
    s->op.release(s, n->index);
    s->op.release(s, n->scale);
}

tt_status tt_restok_encode(tt_restok *r, int32_t *id, float *latent, tt_code_distance *distance,
                           const float *pixels, int64_t images, tt_err *e)
{
    encoding n;
    int64_t tokens = tt_restok_tokens(r), d = r->in.vit.width, cells = tt_restok_cells(r);
    int64_t most = cells > tokens ? cells : tokens;
    float *rows = malloc((size_t)(images * most * d) * sizeof *rows);
    float *z = malloc((size_t)(tokens * r->dims) * sizeof *z);
    tt_status s = rows && z ? image_rows(r, rows, pixels, images, e)
                            : tt_fail(e, TT_ENOMEM, "no memory for pictures");
    bool open = !s;
    if (!s)
        s = encoding_open(&n, r, images, e);
    if (!s)
        s = begin_rows(&n, rows, e);
    if (!s)
        s = run_encoder(&n, e);
    if (!s)
        s = last_rows(&n, rows, e);
    for (int64_t i = 0; i < images && !s; i++) {
        tt_restok_project(r, z, rows + i * tokens * d);
        for (int64_t j = 0; j < tokens; j++)
            id[i * tokens + j] = tt_restok_nearest(r, z + j * r->dims,
                                                   distance ? &distance[i * tokens + j] : NULL);
        if (latent)
            memcpy(latent + i * tokens * r->dims, z, (size_t)(tokens * r->dims) * sizeof *z);
    }
    if (open)
        encoding_close(&n);
    free(rows);
    free(z);
    return s;
}
