/* head.cu - hidden rows to the few numbers a sampler needs.
 *
 * Two paths, chosen row by row and never by what else is in the call, so that a row's bits are its
 * own: plain rows are reduced inside the product (head.cuh); rows with filters, allowed lists,
 * alternatives or replayed noise get their logits in a tile of at most CUDA_TILE bytes, where one
 * block a row does what kernels/cpu/head.c defines. */
#include <stddef.h>

#include "kernels/cuda/head_rows.cuh"

tt_status cuda_gemm_hopper_head(cuda *c, const cuda_gemm *g, const head_tile_args *head, tt_err *e);

namespace {

bool is_plain(const cuda *c, const tt_matrix *w, const tt_draw *d)
{
    return c->hopper && w->compute == TT_COMPUTE_BF16 && d->top_k <= 0 && d->top_p >= 1 &&
           d->min_p <= 0 && !d->allow && !d->n_unsure && !d->confidence_of_kept &&
           d->n_bias <= kPlainBias &&
           (d->noise == TT_NOISE_NONE || d->noise == TT_NOISE_PHILOX || !(d->temperature > 0));
}

bool sorted_ids(const int32_t *id, int stride, int32_t count, int64_t n)
{
    int64_t last = -1;
    for (int32_t i = 0; i < count; i++, id += stride) {
        if (*id <= last || *id >= n)
            return false;
        last = *id;
    }
    return true;
}

int64_t list_ints(const tt_draw *d, int64_t n)
{
    return 2 * (int64_t)d->n_bias + (d->allow ? d->n_allow : 0) + d->n_unsure +
           (d->noise == TT_NOISE_GIVEN ? n : 0);
}

head_row device_row(const tt_draw *d)
{
    head_row q = {};
    q.temperature = d->temperature;
    q.top_p = d->top_p;
    q.min_p = d->min_p;
    q.top_k = d->top_k;
    q.noise = d->noise;
    q.seed = d->seed;
    q.base = d->base;
    q.sample = d->sample;
    q.step = d->step;
    q.position = d->position;
    q.limit = d->limit;
    q.target = d->target;
    q.confidence_of_kept = d->confidence_of_kept;
    q.top_p_within = d->top_p_within;
    q.allow = -1;
    q.n_bias = d->n_bias;
    return q;
}

/* The call as it is split up. */
struct head_call {
    cuda *c;
    const tt_matrix *w;
    const char *x;
    int64_t ldx;
    tt_dtype act;
    tt_row_stats *stats;
    tt_id_value *top;
    int32_t n_top;
    float *logits;
    const tt_draw *draw;
};

/* Scratch of one call: statistics, alternatives and gathered rows, then the tile. */
struct scratch {
    tt_row_stats *stats;
    tt_id_value *top;
    char *x;
    head_part *part;
    float *target, *tile;
};

size_t lay_out(const head_call &h, int64_t rows, bool plain, char *base, scratch *s)
{
    size_t at = 0, act = tt_dtype_size(h.act);
    int64_t tiles = (h.w->n + kHeadTile - 1) / kHeadTile;
    auto take = [&](size_t bytes) {
        char *p = base + at;
        at += (bytes + 255) & ~(size_t)255;
        return p;
    };
    s->stats = (tt_row_stats *)take((size_t)rows * sizeof *s->stats);
    s->top = (tt_id_value *)take((size_t)(rows * h.n_top) * sizeof *s->top);
    s->x = take((size_t)(rows * h.w->k) * act);
    s->part = (head_part *)take(plain ? (size_t)(rows * tiles) * sizeof *s->part : 0);
    s->target = (float *)take(plain ? (size_t)rows * 4 : 0);
    s->tile = (float *)take(plain ? 0 : (size_t)(rows * h.w->n) * 4);
    return at;
}

/* Hidden rows by index, one after the other. */
__global__ void pick_rows(char *to, const char *x, int64_t bytes, int64_t stride,
                          const int32_t *index)
{
    begin();
    const char *from = x + index[blockIdx.x] * stride;
    for (int64_t i = threadIdx.x * 2; i < bytes; i += blockDim.x * 2)
        *reinterpret_cast<uint16_t *>(to + blockIdx.x * bytes + i) =
            *reinterpret_cast<const uint16_t *>(from + i);
}

/* Rows `index` of the call (all in order when NULL): one path, at most one tile. */
struct group {
    const int32_t *index; /* host */
    int64_t rows;
    bool plain;
    int64_t of(int64_t i) const { return index ? index[i] : i; }
};

tt_status send_rows(const head_call &h, const group &g, const head_row **rows,
                    const int32_t **lists, tt_err *e)
{
    int64_t ints = 0;
    for (int64_t i = 0; i < g.rows; i++)
        ints += list_ints(&h.draw[g.of(i)], h.w->n);
    int64_t room = g.plain ? 2 * kPlainBias * g.rows : cuda_list_room(ints);
    void *host, *dev;
    size_t head = (size_t)g.rows * sizeof(head_row);
    tt_status st = cuda_arg_room(h.c, &host, &dev, head + (size_t)room * 4, e);
    if (st)
        return st;
    head_row *q = (head_row *)host;
    int32_t *list = (int32_t *)((char *)host + head), at = 0;
    for (int64_t i = 0; i < g.rows; i++) {
        const tt_draw *d = &h.draw[g.of(i)];
        q[i] = device_row(d);
        if (g.plain)
            at = (int32_t)(2 * kPlainBias * i);
        q[i].bias = at;
        for (int32_t b = 0; b < d->n_bias; b++, at += 2)
            memcpy(&list[at], &d->bias[b], 8);
        if (g.plain)
            continue;
        q[i].allow = d->allow ? at : -1;
        q[i].n_allow = d->allow ? d->n_allow : 0;
        for (int32_t a = 0; a < q[i].n_allow; a++)
            list[at++] = d->allow[a];
        q[i].unsure = at;
        q[i].n_unsure = d->n_unsure;
        for (int32_t u = 0; u < d->n_unsure; u++)
            list[at++] = d->unsure[u];
        q[i].gumbel = at;
        if (d->noise == TT_NOISE_GIVEN) {
            memcpy(&list[at], d->gumbel, (size_t)h.w->n * 4);
            at += (int32_t)h.w->n;
        }
    }
    *rows = (const head_row *)dev;
    *lists = (const int32_t *)((char *)dev + head);
    return cuda_arg_send(h.c, host, head + (size_t)room * 4, e);
}

tt_status run_plain(const head_call &h, const cuda_gemm &product, const scratch &s,
                    const head_row *rows, const int32_t *lists, tt_err *e)
{
    head_tile_args t = {};
    t.row = rows;
    t.bias = (const tt_id_value *)lists;
    t.part = s.part;
    t.target = s.target;
    t.tiles = (int)((h.w->n + kHeadTile - 1) / kHeadTile);
    tt_status st = cuda_gemm_hopper_head(h.c, &product, &t, e);
    return st ? st
              : launch(h.c, "head", merge_parts, (unsigned)product.rows, kThreads, 0, e, s.stats,
                       s.part, s.target, rows, t.tiles);
}

/* Logits to product.y, then what the draws forbid. */
tt_status constrained(cuda *c, cuda_gemm product, const head_row *rows, const int32_t *lists,
                      tt_err *e)
{
    int64_t n = product.w->n;
    product.ldy = n;
    product.wide = true;
    tt_status st = cuda_gemm_run(c, &product, e);
    return st ? st
              : launch(c, "head", constrain_rows, (unsigned)product.rows, kThreads, 0, e,
                       (float *)product.y, n, rows, lists);
}

tt_status run_general(const head_call &h, cuda_gemm product, const group &g, const scratch &s,
                      const head_row *rows, const int32_t *lists, tt_err *e)
{
    cuda *c = h.c;
    int64_t n = h.w->n;
    product.y = s.tile;
    tt_status st = constrained(c, product, rows, lists, e);
    for (int64_t i = 0; i < g.rows && h.logits && !st; i++)
        st = cuda_result(c, h.logits + g.of(i) * n, s.tile + i * n, (size_t)n * 4, e);
    static uint64_t allowed;
    size_t kept = n <= kMostKept ? (size_t)n * 4 : 0;
    if (!st)
        st = allow_shared(c, &allowed, reduce_rows, kMostKept * 4, "head", e);
    if (!st)
        st = launch(c, "head", reduce_rows, (unsigned)g.rows, kThreads, kept, e, s.stats,
                    h.n_top ? s.top : (tt_id_value *)nullptr, (int)h.n_top, s.tile, n, rows, lists);
    return st;
}

tt_status run_group(const head_call &h, const group &g, tt_err *e)
{
    cuda *c = h.c;
    scratch s;
    const head_row *rows;
    const int32_t *lists;
    tt_status st = cuda_reserve(c, &c->tile, &c->tile_bytes, lay_out(h, g.rows, g.plain, NULL, &s),
                                e);
    if (st)
        return st;
    lay_out(h, g.rows, g.plain, (char *)c->tile, &s);
    st = send_rows(h, g, &rows, &lists, e);
    if (st)
        return st;
    cuda_gemm product = {};
    product.x = h.x;
    product.ldx = h.ldx;
    product.rows = g.rows;
    product.w = h.w;
    if (g.index) {
        void *index;
        int64_t act = (int64_t)tt_dtype_size(h.act);
        st = cuda_arg(c, &index, g.index, (size_t)g.rows * 4, (size_t)g.rows * 4, e);
        if (!st)
            st = launch(c, "head", pick_rows, (unsigned)g.rows, 256, 0, e, s.x, h.x, h.w->k * act,
                        h.ldx * act, (const int32_t *)index);
        product.x = s.x;
        product.ldx = h.w->k;
    }
    if (!st)
        st = g.plain ? run_plain(h, product, s, rows, lists, e)
                     : run_general(h, product, g, s, rows, lists, e);
    for (int64_t i = 0, run; i < g.rows && !st; i += run) {
        for (run = 1; i + run < g.rows && g.of(i + run) == g.of(i) + run;)
            run++;
        st = cuda_result(c, h.stats + g.of(i), s.stats + i, (size_t)run * sizeof *s.stats, e);
        if (!st && h.n_top)
            st = cuda_result(c, h.top + g.of(i) * h.n_top, s.top + i * h.n_top,
                             (size_t)(run * h.n_top) * sizeof *s.top, e);
    }
    return st;
}

/* Most plain rows at a time: enough to fill the GPU where the head is small, and parts of a few
 * megabytes. */
int64_t plain_rows(int64_t n)
{
    int64_t parts = (n + kHeadTile - 1) / kHeadTile;
    int64_t most = ((int64_t)8 << 20) / (parts * (int64_t)sizeof(head_part));
    return most < 256 ? 256 : most > 2048 ? 2048 : most / 128 * 128;
}

/* Most rows of a tile. */
int64_t tile_rows(int64_t n)
{
    int64_t most = CUDA_TILE / (n * 4);
    return most < 1 ? 1 : most > 128 ? 128 : most;
}

} // namespace

tt_status cuda_check_draw(const char *op, const tt_draw *d, int64_t row, int64_t n, tt_err *e)
{
    long long r = (long long)row;
    if (!(d->temperature >= 0 && d->temperature <= 1e30f) || isnan(d->top_p) || isnan(d->min_p) ||
        d->min_p > 1)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: temperature %g, top_p %g, min_p %g", op, r,
                       (double)d->temperature, (double)d->top_p, (double)d->min_p);
    if (d->limit > n || d->target >= n)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: limit %d, target %d of %lld ids", op, r,
                       d->limit, d->target, (long long)n);
    if (d->noise == TT_NOISE_GIVEN && !d->gumbel)
        return tt_fail(e, TT_EINVAL, "%s: row %lld: the noise to be given is missing", op, r);
    if (!sorted_ids(d->n_bias ? &d->bias->id : NULL, sizeof *d->bias / 4, d->n_bias, n) ||
        !sorted_ids(d->allow, 1, d->allow ? d->n_allow : 0, n) ||
        !sorted_ids(d->unsure, 1, d->n_unsure, n))
        return tt_fail(e, TT_EINVAL, "%s: row %lld: a list is not sorted or has an id >= %lld", op,
                       r, (long long)n);
    return TT_OK;
}

tt_status cuda_check_head(const char *op, const tt_stream *s, const tt_matrix *w, int64_t ldx,
                          int64_t rows, tt_err *e)
{
    if (bad_shape(rows, w->k, ldx))
        return shape_error(op, rows, w->k, ldx, e);
    if (!(w->flags & TT_MATRIX_LINEAR) || w->flags & TT_MATRIX_GLU ||
        (w->compute == TT_COMPUTE_BF16) != (s->act == TT_BF16))
        return tt_fail(e, TT_EINVAL, "%s: matrix flags %u, %s activations", op, w->flags,
                       tt_dtype_name(s->act));
    return TT_OK;
}

tt_status cuda_head_logits(cuda *c, float *logits, const void *x, int64_t ldx, int64_t rows,
                           const tt_matrix *w, const tt_draw *draw, tt_err *e)
{
    head_call h = {};
    h.c = c;
    h.w = w;
    h.draw = draw;
    const head_row *row;
    const int32_t *lists;
    tt_status st = send_rows(h, group{NULL, rows, false}, &row, &lists, e);
    cuda_gemm product = {};
    product.x = x;
    product.ldx = ldx;
    product.rows = rows;
    product.w = w;
    product.y = logits;
    return st ? st : constrained(c, product, row, lists, e);
}

/* Few numbers that the arguments and launches of a head follow from. */
extern "C" int64_t tt_cuda_head_key(const tt_stream *s, const tt_matrix *w, const tt_draw *draw,
                                    int64_t rows)
{
    const cuda *c = cuda_of(s);
    int64_t key = 0, run_of = -1;
    uint64_t hash = 14695981039346656037u;
    int64_t most = tile_rows(w->n), ints = 0, in_tile = 0;
    for (int64_t i = 0; i < rows; i++) {
        bool plain = is_plain(c, w, &draw[i]);
        if (plain != run_of)
            hash = (hash ^ (uint64_t)(2 * i + plain)) * 1099511628211u;
        run_of = plain;
        if (plain)
            continue;
        ints += list_ints(&draw[i], w->n);
        if (++in_tile == most) {
            hash = (hash ^ (uint64_t)cuda_list_room(ints)) * 1099511628211u;
            ints = in_tile = 0;
        }
    }
    hash = (hash ^ (uint64_t)cuda_list_room(ints)) * 1099511628211u;
    memcpy(&key, &hash, 8);
    return key;
}

extern "C" tt_status tt_cuda_head(tt_stream *s, tt_row_stats *stats, tt_id_value *top,
                                  int32_t n_top, float *logits, const tt_act *x, int64_t ldx,
                                  int64_t rows, const tt_matrix *w, const tt_draw *draw, tt_err *e)
{
    cuda *c = cuda_of(s);
    tt_status bad = cuda_check_head("head", s, w, ldx, rows, e);
    if (bad)
        return bad;
    if (n_top < 0 || n_top > TT_MAX_TOP)
        return tt_fail(e, TT_EINVAL, "head: %d best, %d at most", n_top, TT_MAX_TOP);
    enum { MOST = 2048 };
    int32_t list[2][MOST];
    head_call h = {c, w, (const char *)x, ldx, s->act, stats, top, top ? n_top : 0, logits, draw};
    for (int64_t r = 0; r < rows; r++) {
        tt_status st = cuda_check_draw("head", &draw[r], r, w->n, e);
        if (st)
            return st;
    }
    int64_t tile = tile_rows(w->n);
    for (int64_t r0 = 0; r0 < rows; r0 += MOST) {
        int64_t count = rows - r0 < MOST ? rows - r0 : (int64_t)MOST, n[2] = {0, 0};
        for (int64_t i = r0; i < r0 + count; i++) {
            bool plain = is_plain(c, w, &draw[i]) && !h.n_top && !logits;
            list[plain][n[plain]++] = (int32_t)i;
        }
        for (int plain = 1; plain >= 0; plain--)
            for (int64_t i = 0; i < n[plain];) {
                int64_t most = plain ? plain_rows(w->n) : tile, left = n[plain] - i;
                int64_t run = left < most ? left : most;
                group g = {list[plain] + i, run, plain == 1};
                head_call part = h;
                if (list[plain][i + run - 1] - list[plain][i] == run - 1) { /* side by side */
                    int64_t first = list[plain][i];
                    g.index = NULL;
                    part.x += first * ldx * (int64_t)tt_dtype_size(s->act);
                    part.stats += first;
                    part.draw += first;
                    part.top = part.top ? part.top + first * n_top : NULL;
                    part.logits = logits ? logits + first * w->n : NULL;
                }
                tt_status st = run_group(part, g, e);
                if (st)
                    return st;
                i += run;
            }
    }
    return TT_OK;
}
