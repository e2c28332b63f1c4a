/* gemm.c - weights, the plain matrix product, and the frame of the packed ones: cutting the work
 * into tasks. What a task multiplies with comes from tile.h through a tt_cpu_gemm. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static tt_status check_part(const tt_weight *p, int64_t k, tt_err *e)
{
    const tt_tensor *t = &p->data;
    if (t->rank != 2 || t->dim[0] < 1 || t->dim[1] != k || k < 1)
        return tt_fail(e, TT_EINVAL, "matrix_open: parts of %lld and %lld inputs",
                       (long long)(t->rank == 2 ? t->dim[1] : -1), (long long)k);
    if (t->dtype != TT_F32 && t->dtype != TT_BF16 && t->dtype != TT_F16 && t->dtype != TT_I8)
        return tt_fail(e, TT_EUNSUP, "matrix_open: weights of type %s", tt_dtype_name(t->dtype));
    if (t->dtype == TT_I8 && (!p->scale.data || tt_tensor_count(&p->scale) != t->dim[0]))
        return tt_fail(e, TT_EINVAL, "matrix_open: I8 weights need one scale a row");
    return TT_OK;
}

/* Row i of a part; its factor for the sum in *scale, 1 when it is multiplied in already. */
static tt_status read_row(float *out, float *scale, const tt_weight *p, int64_t i,
                          tt_compute compute, tt_err *e)
{
    int64_t k = p->data.dim[1];
    *scale = 1.0f;
    tt_status st = tt_to_f32(out, &p->data, i * k, k, e);
    if (!st && p->data.dtype == TT_I8)
        st = tt_to_f32(scale, &p->scale, i, 1, e);
    if (st)
        return tt_context(e, st, "matrix_open");
    if (compute == TT_COMPUTE_F32 && p->data.dtype == TT_I8) {
        for (int64_t c = 0; c < k; c++)
            out[c] *= *scale;
        *scale = 1.0f;
    }
    return TT_OK;
}

/* Column j of a panel from a row of the weight, as the product multiplies with it: rounded to
 * bfloat16 if it is to be (integers up to 127 stay as they are). */
static void put_row(void *panel, const tt_cpu_gemm *g, int64_t j, const float *row, int64_t k,
                    tt_compute compute)
{
    if (g->operand == sizeof(uint16_t)) {
        uint16_t *to = (uint16_t *)panel + j * g->depth;
        for (int64_t c = 0; c < k; c += g->depth, to += g->panel * g->depth)
            for (int64_t d = 0; d < g->depth && c + d < k; d++)
                to[d] = tt_f32_to_bf16(row[c + d]);
        return;
    }
    float *to = (float *)panel + j;
    for (int64_t c = 0; c < k; c++, to += g->panel)
        *to = compute == TT_COMPUTE_BF16 ? tt_bf16_to_f32(tt_f32_to_bf16(row[c])) : row[c];
}

static tt_status take(tt_stream *s, void **out, size_t n, size_t size, tt_matrix *m, tt_err *e)
{
    if (n > (SIZE_MAX - 64) / size)
        return tt_fail(e, TT_ENOMEM, "matrix_open: %zu values", n);
    tt_status st = tt_cpu_alloc(s, out, n * size, e);
    if (!st)
        m->bytes += n * size;
    return st;
}

/* The twin's layout is panels of one row. */
static const tt_cpu_gemm rows_alone = {.panel = 1, .depth = 1, .operand = sizeof(float)};

static const tt_cpu_gemm *layout(const tt_matrix *m)
{
    return m->gemm ? m->gemm : &rows_alone;
}

static int64_t steps_of(const tt_matrix *m)
{
    return (m->k + layout(m)->depth - 1) / layout(m)->depth;
}

typedef struct {
    tt_matrix *m;
    float *row; /* k per thread */
} pack_job;

static const tt_weight *part_of(const tt_matrix *m, int64_t *row)
{
    const tt_weight *p = m->part;
    while (*row >= p->data.dim[0])
        *row -= p++->data.dim[0];
    return p;
}

static void pack_panel(void *arg, int64_t i, int thread)
{
    const pack_job *job = arg;
    tt_matrix *m = job->m;
    const tt_cpu_gemm *g = layout(m);
    float *row = job->row + thread * m->k;
    size_t bytes = (size_t)(steps_of(m) * g->panel * g->depth) * g->operand;
    unsigned char *panel = (unsigned char *)m->panels + (size_t)i * bytes;
    memset(panel, 0, bytes);
    for (int64_t j = 0; j < g->panel && i * g->panel + j < m->n; j++) {
        int64_t at = i * g->panel + j;
        float scale;
        const tt_weight *p = part_of(m, &at);
        if (read_row(row, &scale, p, at, m->compute, NULL))
            continue; /* check_part has accepted the type: this cannot happen */
        if (m->scale)
            m->scale[i * g->panel + j] = scale;
        put_row(panel, g, j, row, m->k, m->compute);
    }
}

static tt_status fill(tt_stream *s, tt_matrix *m, const float *bias, tt_err *e)
{
    tt_status st = TT_OK;
    bool scaled = false;
    for (int p = 0; p < m->parts; p++)
        scaled |= m->part[p].data.dtype == TT_I8 && m->compute == TT_COMPUTE_BF16;
    if (bias && (st = take(s, (void **)&m->bias, (size_t)m->n, sizeof(float), m, e)))
        return st;
    if (bias)
        memcpy(m->bias, bias, (size_t)m->n * sizeof(float));
    if (!(m->flags & TT_MATRIX_LINEAR))
        return TT_OK;
    if (scaled && (st = take(s, (void **)&m->scale, (size_t)m->n, sizeof(float), m, e)))
        return st;
    const tt_cpu_gemm *g = layout(m);
    int64_t panels = (m->n + g->panel - 1) / g->panel, wide = steps_of(m) * g->depth;
    if (wide > INT64_MAX / (panels * g->panel))
        return tt_fail(e, TT_ENOMEM, "matrix_open: %lld x %lld", (long long)m->n, (long long)m->k);
    st = take(s, &m->panels, (size_t)(panels * g->panel * wide), g->operand, m, e);
    void *row = NULL;
    if (!st)
        st = tt_cpu_scratch(&s->scratch, &row,
                            (size_t)(m->k * tt_pool_threads(s->pool)) * sizeof(float), e);
    if (st)
        return st;
    tt_pool_run(s->pool, panels, pack_panel, &(pack_job){.m = m, .row = row});
    return TT_OK;
}

tt_status tt_cpu_matrix_open_as(const tt_cpu_gemm *gemm, tt_stream *s, tt_matrix **out,
                                const tt_weight *part, int parts, const float *bias,
                                tt_compute compute, unsigned flags, tt_err *e)
{
    *out = NULL;
    if (parts < 1)
        return tt_fail(e, TT_EINVAL, "matrix_open: %d parts", parts);
    if (compute == TT_COMPUTE_FP8)
        return tt_fail(e, TT_EUNSUP, "matrix_open: no 8-bit float products on a CPU");
    tt_matrix *m = calloc(1, sizeof *m);
    if (m)
        m->part = calloc((size_t)parts, sizeof *m->part);
    if (!m || !m->part) {
        free(m);
        return tt_fail(e, TT_ENOMEM, "matrix_open: no memory for %d parts", parts);
    }
    memcpy(m->part, part, (size_t)parts * sizeof *part);
    m->gemm = gemm;
    m->parts = parts;
    m->k = part[0].data.dim[1];
    m->compute = compute == TT_COMPUTE_THIRDS ? TT_COMPUTE_F32 : compute;
    m->flags = flags;
    tt_status st = TT_OK;
    for (int p = 0; p < parts && !st; p++) {
        st = check_part(&part[p], m->k, e);
        m->n += part[p].data.dim[0];
    }
    if (!st)
        st = fill(s, m, bias, e);
    if (st) {
        tt_cpu_matrix_close(s, m);
        return st;
    }
    *out = m;
    return TT_OK;
}

tt_status tt_cpu_matrix_open(tt_stream *s, tt_matrix **out, const tt_weight *part, int parts,
                             const float *bias, tt_compute compute, unsigned flags, tt_err *e)
{
    return tt_cpu_matrix_open_as(NULL, s, out, part, parts, bias, compute, flags, e);
}

void tt_cpu_matrix_close(tt_stream *s, tt_matrix *m)
{
    if (!m)
        return;
    tt_cpu_release(s, m->panels);
    tt_cpu_release(s, m->bias);
    tt_cpu_release(s, m->scale);
    free(m->part);
    free(m);
}

void tt_cpu_matrix_size(const tt_matrix *m, int64_t *n, int64_t *k, size_t *bytes)
{
    if (n)
        *n = m->n;
    if (k)
        *k = m->k;
    if (bytes)
        *bytes = m->bytes;
}

typedef struct {
    float *y;
    const float *x;
    int64_t ldy, ldx;
    const tt_matrix *w;
    bool add;
} linear_job;

static void linear_row(void *arg, int64_t r, int thread)
{
    (void)thread;
    const linear_job *job = arg;
    const tt_matrix *w = job->w;
    const float *x = job->x + r * job->ldx;
    float *y = job->y + r * job->ldy;
    bool bf16 = w->compute == TT_COMPUTE_BF16;
    for (int64_t j = 0; j < w->n; j++) {
        const float *row = (const float *)w->panels + j * w->k;
        double sum = 0;
        for (int64_t i = 0; i < w->k; i++) {
            float v = bf16 ? tt_bf16_to_f32(tt_f32_to_bf16(x[i])) : x[i];
            sum += (double)v * row[i];
        }
        if (w->scale)
            sum *= w->scale[j];
        if (w->bias)
            sum += w->bias[j];
        if (job->add)
            sum += y[j];
        y[j] = (float)sum;
    }
}

static tt_status check_linear(int64_t ldy, int64_t ldx, int64_t rows, const tt_matrix *w, tt_err *e)
{
    if (tt_cpu_bad_shape(rows, w->k, ldx))
        return tt_cpu_shape_error("linear", rows, w->k, ldx, e);
    if (ldy < w->n)
        return tt_cpu_shape_error("linear", rows, w->n, ldy, e);
    if (!w->panels)
        return tt_fail(e, TT_EINVAL, "linear: the matrix was opened as a table only");
    return TT_OK;
}

tt_status tt_cpu_linear(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                        int64_t rows, const tt_matrix *w, bool add, tt_err *e)
{
    tt_status st = check_linear(ldy, ldx, rows, w, e);
    if (st)
        return st;
    linear_job job = {y, x, ldy, ldx, w, add};
    tt_pool_run(s->pool, rows, linear_row, &job);
    return TT_OK;
}

/* --- the packed product --- */

typedef struct {
    linear_job in;
    int64_t rows, block;    /* rows in all and of a task */
    int64_t groups, panels; /* the panels are cut into groups, a task takes one */
    int64_t chunk;          /* steps walked at a time, so that a panel stays in the cache */
    unsigned char *x;       /* operands, x_bytes a thread; x_bytes 0: x as it is */
    size_t x_bytes;
} packed_job;

static void packed_task(void *arg, int64_t i, int thread)
{
    const packed_job *job = arg;
    const tt_matrix *w = job->in.w;
    const tt_cpu_gemm *g = w->gemm;
    int64_t steps = steps_of(w), group = i % job->groups, first = i / job->groups * job->block;
    int64_t rows = job->rows - first < job->block ? job->rows - first : job->block;
    int64_t ldx = job->in.ldx, ldy = job->in.ldy;
    const float *x = job->in.x + first * ldx;
    const unsigned char *in = (const unsigned char *)x;
    if (job->x_bytes) {
        size_t row_bytes = (size_t)(steps * g->depth) * g->operand;
        unsigned char *to = job->x + (size_t)thread * job->x_bytes;
        for (int64_t r = 0; r < rows; r++)
            g->convert(to + (size_t)r * row_bytes, x + r * ldx, w->k);
        in = to;
        ldx = steps * g->depth;
    }
    int64_t from = group * job->panels / job->groups, to = (group + 1) * job->panels / job->groups;
    for (int64_t p = from; p < to; p++) {
        int64_t column = p * g->panel, left = w->n - column;
        float *y = job->in.y + first * ldy + column;
        for (int64_t at = 0; at < steps; at += job->chunk) {
            int64_t n = steps - at < job->chunk ? steps - at : job->chunk;
            const unsigned char *panel = w->panels;
            panel += (size_t)((p * steps + at) * g->panel * g->depth) * g->operand;
            g->product(y, ldy, in + (size_t)(at * g->depth) * g->operand, ldx, rows, panel, n,
                       left < g->panel ? left : g->panel, w->scale ? w->scale + column : NULL,
                       w->bias && !at ? w->bias + column : NULL, job->in.add || at);
        }
    }
}

/* Bounds that keep a block of x and a piece of a panel in a second-level cache together. Rows of
 * many inputs do not stay there: LEAST_ROWS of them share each walk through the weights, which come
 * from farther away. */
enum { BLOCK_BYTES = 384 << 10, PIECE_BYTES = 256 << 10, TILE_ROWS = 6, LEAST_ROWS = 96 };

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Cuts the work into tasks of like size: the rows among the threads, then the panels into groups,
 * so that threads that are slowed down by others even out; no task so small that fetching it
 * shows. */
static void cut(packed_job *job, int threads)
{
    const tt_matrix *w = job->in.w;
    const tt_cpu_gemm *g = w->gemm;
    int64_t row_bytes = steps_of(w) * g->depth * (int64_t)g->operand;
    int64_t most = BLOCK_BYTES / row_bytes / TILE_ROWS * TILE_ROWS;
    most = most < LEAST_ROWS ? LEAST_ROWS : most;
    job->panels = (w->n + g->panel - 1) / g->panel;
    job->chunk = PIECE_BYTES / (g->panel * g->depth * (int64_t)g->operand);
    int64_t tasks = threads > 1 ? 4 * threads : 1;
    double worth = (double)job->rows * (double)w->n * (double)w->k / 1e6; /* 10 microseconds each */
    tasks = worth < 1 ? 1 : worth < (double)tasks ? (int64_t)worth : tasks;
    int64_t by_rows = (job->rows + 2 * TILE_ROWS - 1) / (2 * TILE_ROWS);
    by_rows = by_rows > threads ? threads : by_rows > tasks ? tasks : by_rows;
    job->block = round_up((job->rows + by_rows - 1) / by_rows, TILE_ROWS);
    job->block = job->block < most ? job->block : most;
    int64_t blocks = (job->rows + job->block - 1) / job->block;
    job->groups = (tasks + blocks - 1) / blocks;
    if (job->groups > 1 && job->panels < 2 * job->groups)
        job->groups = job->panels;
}

tt_status tt_cpu_linear_packed(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                               int64_t rows, const tt_matrix *w, bool add, tt_err *e)
{
    tt_status st = check_linear(ldy, ldx, rows, w, e);
    if (st || !rows)
        return st;
    packed_job job = {.in = {y, x, ldy, ldx, w, add}, .rows = rows};
    int threads = tt_pool_threads(s->pool);
    cut(&job, threads);
    if (w->compute == TT_COMPUTE_BF16) {
        size_t row_bytes = (size_t)(steps_of(w) * w->gemm->depth) * w->gemm->operand;
        job.x_bytes = ((size_t)job.block * row_bytes + 63) & ~(size_t)63;
        void *scratch;
        st = tt_cpu_scratch(&s->scratch, &scratch, job.x_bytes * (size_t)threads, e);
        if (st)
            return tt_context(e, st, "linear");
        job.x = scratch;
    }
    tt_pool_run(s->pool, (rows + job.block - 1) / job.block * job.groups, packed_task, &job);
    return TT_OK;
}
