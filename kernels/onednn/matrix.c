/* matrix.c - weights packed for oneDNN, and the product with them. */
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/onednn.h"

/* oneDNN's run time may have been told of more threads by the environment; a team of one is what
 * this plug-in is built on. Weak: not every build of oneDNN brings OpenMP. */
extern void omp_set_num_threads(int n) __attribute__((weak));
static void alone(void)
{
    if (omp_set_num_threads)
        omp_set_num_threads(1);
}

static tt_status no_memory(size_t bytes, tt_err *e)
{
    return tt_fail(e, TT_ENOMEM, "matrix_open: no memory for %zu bytes", bytes);
}

static void *block(size_t bytes)
{
    return aligned_alloc(64, (bytes + 127) & ~(size_t)63);
}

/* --- opening --- */

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

static const tt_weight *part_of(const tt_matrix *m, int64_t *row)
{
    const tt_weight *p = m->part;
    while (*row >= p->data.dim[0])
        *row -= p++->data.dim[0];
    return p;
}

/* Row of the weight as it is multiplied with, and the factor of its sum. */
static tt_status read_row(const tt_matrix *m, int64_t row, float *out, float *factor, tt_err *e)
{
    const tt_weight *p = part_of(m, &row);
    *factor = 1;
    tt_status st = tt_to_f32(out, &p->data, row * m->k, m->k, e);
    if (!st && p->data.dtype == TT_I8)
        st = tt_to_f32(factor, &p->scale, row, 1, e);
    if (st)
        return tt_context(e, st, "matrix_open");
    if (m->compute == TT_COMPUTE_BF16) {
        for (int64_t i = 0; i < m->k; i++) /* integers up to 127 stay as they are */
            out[i] = tt_bf16_to_f32(tt_f32_to_bf16(out[i]));
        return TT_OK;
    }
    for (int64_t i = 0; i < m->k && p->data.dtype == TT_I8; i++)
        out[i] *= *factor;
    *factor = 1;
    return TT_OK;
}

/* [n, k] operands, row after row, to oneDNN's packed form. */
static tt_status reorder(onednn *d, const void *rows, piece *to, dnnl_data_type_t type, int64_t k,
                         const dnnl_memory_desc_t *packed, tt_err *e)
{
    dnnl_memory_desc_t desc;
    dnnl_memory_t from = NULL;
    dnnl_primitive_desc_t p = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_status_t st =
        dnnl_memory_desc_init_by_tag(&desc, 2, (dnnl_dims_t){k, to->n}, type, dnnl_ba);
    if (!st)
        st = dnnl_memory_create(&from, &desc, d->engine, (void *)(uintptr_t)rows);
    if (!st)
        st = dnnl_memory_create(&to->packed, packed, d->engine, to->data);
    if (!st)
        st = dnnl_reorder_primitive_desc_create(&p, &desc, d->engine, packed, d->engine, NULL);
    if (!st)
        st = dnnl_primitive_create(&primitive, p);
    dnnl_exec_arg_t arg[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to->packed}};
    if (!st)
        st = dnnl_primitive_execute(primitive, d->stream[0], 2, arg);
    if (!st)
        st = dnnl_stream_wait(d->stream[0]);
    if (primitive)
        dnnl_primitive_destroy(primitive);
    if (p)
        dnnl_primitive_desc_destroy(p);
    if (from)
        dnnl_memory_destroy(from);
    return tt_onednn_check(st, "pack a weight", e);
}

static tt_status pack(onednn *d, tt_matrix *m, piece *to, tt_err *e)
{
    dnnl_memory_desc_t packed;
    tt_status st = tt_onednn_layout(d, m->type, to->n, m->k, &packed, NULL, e);
    if (st)
        return st;
    size_t bytes = dnnl_memory_desc_get_size(&packed);
    size_t size = m->type == dnnl_bf16 ? 2 : 4, count = (size_t)(to->n * m->k);
    float *row = malloc((size_t)m->k * sizeof *row);
    void *rows = block(count * size);
    to->data = block(bytes);
    if (!row || !rows || !to->data)
        st = no_memory(bytes, e);
    else
        m->bytes += bytes;
    for (int64_t j = 0; j < to->n && !st; j++) {
        float factor;
        st = read_row(m, to->at + j, row, &factor, e);
        if (m->scale)
            m->scale[to->at + j] = factor;
        for (int64_t i = 0; i < m->k && m->type == dnnl_bf16; i++)
            ((uint16_t *)rows)[j * m->k + i] = tt_f32_to_bf16(row[i]);
        if (m->type == dnnl_f32)
            memcpy((float *)rows + j * m->k, row, (size_t)m->k * sizeof *row);
    }
    if (!st)
        st = reorder(d, rows, to, m->type, m->k, &packed, e);
    free(row);
    free(rows);
    return st;
}

/* Few rows leave only columns to share out among threads; whole cache lines of them. */
static tt_status cut(onednn *d, tt_matrix *m, tt_err *e)
{
    int64_t wanted = d->threads > 1 ? 2 * d->threads : 1;
    int64_t width = ((m->n + wanted - 1) / wanted + 63) / 64 * 64;
    m->n_pieces = (int)((m->n + width - 1) / width);
    m->pieces = calloc((size_t)m->n_pieces, sizeof *m->pieces);
    if (!m->pieces)
        return no_memory((size_t)m->n_pieces * sizeof *m->pieces, e);
    for (int i = 0; i < m->n_pieces; i++) {
        int64_t left = m->n - i * width;
        m->pieces[i] = (piece){.at = i * width, .n = left < width ? left : width};
    }
    return TT_OK;
}

static tt_status fill(onednn *d, tt_matrix *m, const float *bias, tt_err *e)
{
    if (!(m->flags & TT_MATRIX_LINEAR))
        return TT_OK;
    bool scaled = false;
    for (int p = 0; p < m->parts; p++)
        scaled |= m->part[p].data.dtype == TT_I8 && m->compute == TT_COMPUTE_BF16;
    size_t bytes = (size_t)m->n * sizeof(float);
    if (bias && !(m->bias = malloc(bytes)))
        return no_memory(bytes, e);
    if (scaled && !(m->scale = malloc(bytes)))
        return no_memory(bytes, e);
    if (bias)
        memcpy(m->bias, bias, bytes);
    m->bytes += (bias ? bytes : 0) + (scaled ? bytes : 0);
    tt_status st = cut(d, m, e);
    for (int i = 0; i < m->n_pieces && !st; i++)
        st = pack(d, m, &m->pieces[i], e);
    return st;
}

tt_status tt_onednn_matrix_open(tt_stream *s, tt_matrix **out, const tt_weight *part, int parts,
                                const float *bias, tt_compute compute, unsigned flags, tt_err *e)
{
    onednn *d = s->impl;
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
        return no_memory((size_t)parts * sizeof *part, e);
    }
    memcpy(m->part, part, (size_t)parts * sizeof *part);
    m->parts = parts;
    m->k = part[0].data.dim[1];
    m->compute = compute == TT_COMPUTE_THIRDS ? TT_COMPUTE_F32 : compute;
    m->flags = flags;
    m->type = compute == TT_COMPUTE_BF16 && d->bf16 ? dnnl_bf16 : dnnl_f32;
    tt_status st = TT_OK;
    for (int p = 0; p < parts && !st; p++) {
        st = check_part(&part[p], m->k, e);
        m->n += part[p].data.dim[0];
    }
    alone();
    if (!st)
        st = fill(d, m, bias, e);
    if (st) {
        tt_onednn_matrix_close(s, m);
        return st;
    }
    *out = m;
    return TT_OK;
}

void tt_onednn_matrix_close(tt_stream *s, tt_matrix *m)
{
    (void)s;
    if (!m)
        return;
    for (int i = 0; i < m->n_pieces && m->pieces; i++) {
        if (m->pieces[i].packed)
            dnnl_memory_destroy(m->pieces[i].packed);
        free(m->pieces[i].data);
    }
    free(m->pieces);
    free(m->bias);
    free(m->scale);
    free(m->part);
    free(m);
}

void tt_onednn_matrix_size(const tt_matrix *m, int64_t *n, int64_t *k, size_t *bytes)
{
    if (n)
        *n = m->n;
    if (k)
        *k = m->k;
    if (bytes)
        *bytes = m->bytes;
}

tt_status tt_onednn_embed(tt_stream *s, tt_act *y, int64_t ldy, const tt_matrix *table,
                          const int32_t *id, int64_t rows, tt_err *e)
{
    (void)s;
    if (rows < 0 || ldy < table->k)
        return tt_fail(e, TT_EINVAL, "embed: %lld rows of %lld, stride %lld", (long long)rows,
                       (long long)table->k, (long long)ldy);
    if (!(table->flags & TT_MATRIX_TABLE))
        return tt_fail(e, TT_EINVAL, "embed: the matrix was not opened as a table");
    for (int64_t r = 0; r < rows; r++) {
        float *out = (float *)y + r * ldy, scale = 1;
        int64_t row = id[r];
        const tt_weight *p = part_of(table, &row);
        tt_status st = tt_to_f32(out, &p->data, row * table->k, table->k, e);
        if (!st && p->data.dtype == TT_I8)
            st = tt_to_f32(&scale, &p->scale, row, 1, e);
        if (st)
            return tt_context(e, st, "embed");
        for (int64_t i = 0; i < table->k && p->data.dtype == TT_I8; i++)
            out[i] *= scale;
    }
    return TT_OK;
}

/* --- the product --- */

/* Sizes a number of rows is a sum of; the index is what a step is looked up by. */
static const int64_t sizes[] = {MOST_ROWS, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1};
enum { SIZES = sizeof sizes / sizeof *sizes };

static int size_of(int64_t left)
{
    int i = 0;
    while (sizes[i] > left)
        i++;
    return i;
}

typedef struct {
    onednn *d;
    float *y;
    const float *x;
    int64_t ldy, ldx, rows;
    const tt_matrix *w;
    bool add;
    step *product[2][SIZES];      /* of the first piece's width, of the last's */
    step *convert[SIZES];         /* to bfloat16; NULL: none needed */
    size_t result_at, scratch_at; /* in a thread's work area, after the operands */
    _Atomic int failed;           /* a dnnl_status_t */
} job;

/* Four or eight lanes, as the compiler likes; separate roundings, as in the twin. */
typedef float lanes __attribute__((vector_size(16)));

/* y = t * scale + bias (+ y) for n columns. */
static void finish(float *y, const float *t, const float *scale, const float *bias, bool add,
                   int64_t n)
{
    const lanes one = {1, 1, 1, 1}, zero = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        lanes v, f = one, b = zero, old = zero;
        memcpy(&v, t + i, sizeof v);
        if (scale)
            memcpy(&f, scale + i, sizeof f);
        if (bias)
            memcpy(&b, bias + i, sizeof b);
        if (add)
            memcpy(&old, y + i, sizeof old);
        v = v * f + b + old;
        memcpy(y + i, &v, sizeof v);
    }
    for (; i < n; i++)
        y[i] = t[i] * (scale ? scale[i] : 1) + (bias ? bias[i] : 0) + (add ? y[i] : 0);
}

static dnnl_status_t execute(const onednn *d, const step *s, int thread, const void *from,
                             dnnl_memory_t weights, void *to, void *scratch)
{
    dnnl_status_t st = dnnl_memory_set_data_handle(s->from[thread], (void *)(uintptr_t)from);
    if (!st)
        st = dnnl_memory_set_data_handle(s->to[thread], to);
    dnnl_exec_arg_t arg[4] = {{DNNL_ARG_SRC, s->from[thread]}, {DNNL_ARG_DST, s->to[thread]}};
    int n = 2;
    if (weights)
        arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, weights};
    if (s->scratch_bytes) {
        if (!st)
            st = dnnl_memory_set_data_handle(s->scratch[thread], scratch);
        arg[n++] = (dnnl_exec_arg_t){DNNL_ARG_SCRATCHPAD, s->scratch[thread]};
    }
    if (!st)
        st = dnnl_primitive_execute(s->primitive, d->stream[thread], n, arg);
    return st ? st : dnnl_stream_wait(d->stream[thread]);
}

/* Rows [from, from + sizes[size]) of x as contiguous operands. */
static const void *operands(job *j, int64_t from, int size, int thread, unsigned char *work)
{
    const tt_matrix *w = j->w;
    const float *x = j->x + from * j->ldx;
    if (j->convert[size]) {
        dnnl_status_t st = execute(j->d, j->convert[size], thread, x, NULL, work, NULL);
        if (st)
            j->failed = (int)st;
        return work;
    }
    bool round = w->compute == TT_COMPUTE_BF16;
    if (j->ldx == w->k && !round)
        return x;
    float *to = (float *)work;
    for (int64_t r = 0; r < sizes[size]; r++)
        for (int64_t i = 0; i < w->k; i++) {
            float f = x[r * j->ldx + i];
            to[r * w->k + i] = round ? tt_bf16_to_f32(tt_f32_to_bf16(f)) : f;
        }
    return to;
}

static void run(void *arg, int64_t i, int thread)
{
    job *j = arg;
    const tt_matrix *w = j->w;
    const piece *p = &w->pieces[i % w->n_pieces];
    unsigned char *work = j->d->work + (size_t)thread * j->d->work_bytes;
    float *result = (float *)(work + j->result_at);
    int64_t from = i / w->n_pieces * MOST_ROWS;
    int64_t to = from + MOST_ROWS < j->rows ? from + MOST_ROWS : j->rows;
    bool raw = !w->scale && !w->bias && !j->add && j->ldy == p->n; /* as the product leaves it */
    alone();
    while (from < to && !j->failed) {
        int size = size_of(to - from);
        const void *x = operands(j, from, size, thread, work);
        const step *s = j->product[p->n != w->pieces[0].n][size];
        float *y = j->y + from * j->ldy + p->at;
        dnnl_status_t st =
            execute(j->d, s, thread, x, p->packed, raw ? y : result, work + j->scratch_at);
        if (st)
            j->failed = (int)st;
        for (int64_t r = 0; r < sizes[size] && !raw; r++)
            finish(y + r * j->ldy, result + r * p->n, w->scale ? w->scale + p->at : NULL,
                   w->bias ? w->bias + p->at : NULL, j->add, p->n);
        from += sizes[size];
    }
}

/* Looks up every step the rows need and makes room for a thread's operands, results, scratch. */
static tt_status prepare(job *j, tt_err *e)
{
    onednn *d = j->d;
    const tt_matrix *w = j->w;
    const piece *first = &w->pieces[0], *last = &w->pieces[w->n_pieces - 1];
    size_t scratch = 0;
    tt_status st = TT_OK;
    for (int64_t left = j->rows; left > 0 && !st;) {
        int i = size_of(left);
        bool again = left - sizes[i] >= sizes[i]; /* only the largest comes more than once */
        left = again ? left % sizes[i] + sizes[i] : left - sizes[i];
        step_shape shape = {PRODUCT, w->type, sizes[i], first->n, w->k};
        st = tt_onednn_step(d, shape, &j->product[0][i], e);
        shape.n = last->n;
        if (!st && last->n != first->n)
            st = tt_onednn_step(d, shape, &j->product[1][i], e);
        for (int t = 0; t < 2 && !st; t++)
            if (j->product[t][i] && j->product[t][i]->scratch_bytes > scratch)
                scratch = j->product[t][i]->scratch_bytes;
        if (!st && w->type == dnnl_bf16)
            st = tt_onednn_step(d, (step_shape){CONVERT, dnnl_bf16, sizes[i], j->ldx, w->k},
                                &j->convert[i], e);
    }
    if (st)
        return st;
    j->result_at = ((size_t)(MOST_ROWS * w->k) * sizeof(float) + 63) & ~(size_t)63;
    j->scratch_at =
        j->result_at + (((size_t)(MOST_ROWS * first->n) * sizeof(float) + 63) & ~(size_t)63);
    size_t bytes = (j->scratch_at + scratch + 63) & ~(size_t)63;
    if (bytes <= d->work_bytes)
        return TT_OK;
    free(d->work);
    d->work_bytes = 0;
    d->work = block(bytes * (size_t)d->threads);
    if (!d->work)
        return tt_fail(e, TT_ENOMEM, "linear: no memory for %zu bytes", bytes);
    d->work_bytes = bytes;
    return TT_OK;
}

tt_status tt_onednn_linear(tt_stream *s, tt_act *y, int64_t ldy, const tt_act *x, int64_t ldx,
                           int64_t rows, const tt_matrix *w, bool add, tt_err *e)
{
    if (rows < 0 || ldx < w->k || ldy < w->n)
        return tt_fail(e, TT_EINVAL, "linear: %lld rows of %lld to %lld, strides %lld and %lld",
                       (long long)rows, (long long)w->k, (long long)w->n, (long long)ldx,
                       (long long)ldy);
    if (!w->pieces)
        return tt_fail(e, TT_EINVAL, "linear: the matrix was opened as a table only");
    if (!rows)
        return TT_OK;
    job j = {
        .d = s->impl, .y = y, .x = x, .ldy = ldy, .ldx = ldx, .rows = rows, .w = w, .add = add};
    alone();
    tt_status st = prepare(&j, e);
    if (st)
        return tt_context(e, st, "linear");
    tt_pool_run(s->pool, (rows + MOST_ROWS - 1) / MOST_ROWS * w->n_pieces, run, &j);
    return tt_onednn_check((dnnl_status_t)j.failed, "multiply", e);
}
