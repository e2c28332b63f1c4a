/* attend.h - attention in register tiles, for any vector width and operand.
 *
 * The keys and values of one (span, key/value head) are packed into panels once: keys transposed,
 * values as they are. Then six query rows at a time walk over blocks of KEYS keys: scores = q k^T,
 * the softmax continued from the blocks before (Milakov and Gimelshein, arXiv 1805.02867), sums +=
 * weights v. Work per score is two products of head_dim and one exponential; packing is paid once
 * for all query rows and heads that share it.
 *
 * Purity of rows: blocks start at multiples of KEYS from the span's first key whatever the rows,
 * and a key that a row does not see gets weight zero, which adds zero. A value that is not finite
 * would spoil that (0 * inf), so such values are packed as zero, and rows that do see one, or are
 * not finite themselves, are computed by the twin.
 *
 * With a bias (attention_biased) every row sees every key, a bias of minus infinity being a score
 * so low that its weight is zero beside any other. */
#ifndef TT_CPU_ATTEND_H
#define TT_CPU_ATTEND_H

#include <math.h>
#include <string.h>

#include "kernels/cpu/tile.h"

enum { KEYS = 512 }; /* a tile's scores and weights fit a first-level cache */

typedef struct {
    float *out;
    const float *q;
    int64_t ldo, ldq;
    const tt_span *span;
    const tt_biased_span *biased; /* with a bias: what the spans are made of, else NULL */
    int64_t heads, kv_heads, group, dim;
    int64_t steps;  /* of DEPTH channels */
    int64_t panels; /* of PANEL value channels */
    float scale;
    bool round;
    unsigned char *pack, *work; /* one pack per (span, kv head) when shared, else per thread */
    size_t pack_bytes;
    bool shared;
    int64_t most_keys, cuts;
} attend_job;

/* One (span, kv head), packed. */
typedef struct {
    operand *k, *v;
    int64_t padded; /* keys, rounded up to whole panels */
    int64_t sound;  /* keys before the first with a value that is not finite */
} packed;

static size_t round64(size_t bytes)
{
    return (bytes + 63) & ~(size_t)63;
}
static int64_t panels_of(int64_t n)
{
    return (n + PANEL - 1) / PANEL;
}

static packed pack_at(const attend_job *job, unsigned char *at, int64_t keys)
{
    packed p = {.padded = panels_of(keys) * PANEL, .sound = keys};
    at += 64; /* room for `sound` */
    p.k = (operand *)at;
    p.v = (operand *)(at + round64((size_t)(p.padded * job->steps * DEPTH) * sizeof(operand)));
    return p;
}

static size_t pack_size(const attend_job *job, int64_t keys)
{
    size_t padded = (size_t)(panels_of(keys) * PANEL);
    return 64 + round64(padded * (size_t)(job->steps * DEPTH) * sizeof(operand)) +
           round64(padded * (size_t)(job->panels * PANEL) * sizeof(operand));
}

/* Rows of a head lie far apart: bring the next ones while these are being worked on. */
static void prefetch_rows(const float *x, int64_t ld, int64_t rows, int64_t dim)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < dim; i += 16)
            __builtin_prefetch(x + r * ld + i);
}

/* Whether all n are finite and stay so when rounded to bfloat16. */
static bool sound(const float *x, int64_t n)
{
    vm bad = v_gt(v_set(0), v_set(0));
    for (int64_t i = 0; i < n; i += LANES) {
        vi bits = v_andi(v_as_int(v_load_part(x + i, n - i)), v_seti(0x7FFFFFFF));
        bad = v_or(bad, v_gti(bits, v_seti(0x7F7F7FFF)));
    }
    return !v_any(bad);
}

/* Columns of keys beyond the last are left as they are: no score is taken from them. */
static void pack_keys(const attend_job *job, packed *to, const float *k, int64_t ld, int64_t keys)
{
    int64_t width = job->steps * DEPTH;
    for (int64_t j = 0; j < keys; j += LANES) {
        for (int64_t r = j; r < keys && r < j + LANES && to->sound == keys; r++)
            if (!sound(k + r * ld, job->dim))
                to->sound = r;
        operand *panel = to->k + j / PANEL * PANEL * width + j % PANEL * DEPTH;
        int64_t after = keys - j - LANES;
        prefetch_rows(k + (j + LANES) * ld, ld, after < LANES ? after : LANES, job->dim);
        for (int64_t p = 0; p < job->steps; p += LANES) {
            vi word[LANES];
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++)
                word[r] = j + r < keys ? op_words(k + (j + r) * ld + p * DEPTH,
                                                  job->dim - p * DEPTH, job->round)
                                       : v_seti(0);
            v_transpose(word);
#pragma GCC unroll 16
            for (int r = 0; r < LANES; r++)
                if (p + r < job->steps)
                    memcpy(panel + (p + r) * PANEL * DEPTH, &word[r], sizeof word[r]);
        }
    }
}

static void pack_values(const attend_job *job, packed *to, const float *v, int64_t ld, int64_t keys)
{
    static const float zeros[PANEL];
    for (int64_t p = 0; p < job->panels; p++) {
        int64_t from = p * PANEL, n = job->dim - from < PANEL ? job->dim - from : PANEL;
        for (int64_t j = 0; j < keys; j += DEPTH) {
            const float *row[DEPTH];
            int64_t after = keys - j - 16 * DEPTH;
            prefetch_rows(v + (j + 16 * DEPTH) * ld + from, ld, after < DEPTH ? after : DEPTH, n);
            for (int64_t d = 0; d < DEPTH; d++) {
                row[d] = j + d < keys ? v + (j + d) * ld + from : zeros;
                if (sound(row[d], n))
                    continue;
                to->sound = j + d < to->sound ? j + d : to->sound;
                row[d] = zeros;
            }
            op_weave(to->v + (p * to->padded + j) * PANEL, row, n, job->round);
        }
    }
}

static packed pack(const attend_job *job, unsigned char *at, const tt_span *p, int64_t kv_head)
{
    packed to = pack_at(job, at, p->keys);
    pack_keys(job, &to, (const float *)p->k + kv_head * job->dim, p->ld_kv, p->keys);
    pack_values(job, &to, (const float *)p->v + kv_head * job->dim, p->ld_kv, p->keys);
    memcpy(at, &to.sound, sizeof to.sound);
    return to;
}

/* A thread's workspace; offsets in bytes from its start. */
typedef struct {
    size_t q, weight;  /* operands: TILE_ROWS x (steps * DEPTH), TILE_ROWS x KEYS */
    size_t score, sum; /* floats: TILE_ROWS x KEYS, TILE_ROWS x (panels * PANEL) */
    size_t plain;      /* doubles, for the twin */
    size_t bytes;
} places;

static places place_all(const attend_job *job)
{
    places p = {.q = 0};
    p.weight = p.q + round64((size_t)(TILE_ROWS * job->steps * DEPTH) * sizeof(operand));
    p.score = p.weight + round64(TILE_ROWS * KEYS * sizeof(operand));
    p.sum = p.score + round64(TILE_ROWS * KEYS * sizeof(float));
    p.plain = p.sum + round64((size_t)(TILE_ROWS * job->panels * PANEL) * sizeof(float));
    p.bytes = p.plain + round64((size_t)(job->dim + job->most_keys) * sizeof(double));
    return p;
}

typedef struct {
    operand *q, *weight;
    float *score, *sum;
    double *plain;
} workspace;

static workspace work_at(const attend_job *job, int thread)
{
    places p = place_all(job);
    unsigned char *at = job->work + (size_t)thread * p.bytes;
    return (workspace){(operand *)(at + p.q), (operand *)(at + p.weight), (float *)(at + p.score),
                       (float *)(at + p.sum), (double *)(at + p.plain)};
}

/* The softmax of one row, continued over blocks; base 2 throughout. */
typedef struct {
    float max, total;
} running;

/* Weights of n scores; zero from there to `to`. Returns what earlier sums must be multiplied
 * with. */
static float continue_softmax(running *run, operand *weight, const float *score, int64_t n,
                              int64_t to, vf scale, bool round)
{
    vf top = v_set(-INFINITY), other = top;
    int64_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        top = v_max(top, v_load(score + i));
        other = v_max(other, v_load(score + i + LANES));
    }
    for (; i < n; i += LANES) {
        vm in = v_gt(v_set((float)(n - i)), v_count());
        top = v_max(top, v_pick(in, v_load_part(score + i, n - i), top));
    }
    float max = v_top(v_mul(v_max(top, other), scale)); /* scale > 0 keeps the order */
    max = max > run->max ? max : run->max;
    vf minus = v_set(-max), total = v_set(0), more = v_set(0);
    for (i = 0; i + 2 * LANES <= n; i += 2 * LANES) {
        vf a = op_exp2(v_fma(v_load(score + i), scale, minus));
        vf b = op_exp2(v_fma(v_load(score + i + LANES), scale, minus));
        total = v_add(total, a);
        more = v_add(more, b);
        op_store2(weight + i, a, b, round);
    }
    total = v_add(total, more);
    for (; i < n; i += LANES) {
        vm in = v_gt(v_set((float)(n - i)), v_count());
        vf a = op_exp2(v_fma(v_load_part(score + i, n - i), scale, minus));
        a = v_pick(in, a, v_set(0));
        total = v_add(total, a);
        op_store(weight + i, a, round, LANES);
    }
    for (; i < to; i += LANES)
        op_store(weight + i, v_set(0), round, LANES);
    float earlier = 0;
    if (run->max > -INFINITY)
        v_store_part(&earlier, v_exp2(v_set(run->max - max)), 1);
    run->total = run->total * earlier + v_sum(total);
    run->max = max;
    return earlier;
}

/* Up to TILE_ROWS query rows of one head. */
static void attend_tile(const attend_job *job, const workspace *w, const tt_span *p,
                        const packed *kv, int64_t head, int64_t row, int rows)
{
    int64_t width = job->steps * DEPTH, ld_sum = job->panels * PANEL, last = 0;
    int64_t sees[TILE_ROWS], hole[TILE_ROWS];
    bool plain[TILE_ROWS];
    running run[TILE_ROWS];
    vf scale = v_set(job->scale * 1.44269504f);
    for (int r = 0; r < rows; r++) {
        const float *q = job->q + (p->query_row + row + r) * job->ldq + head * job->dim;
        for (int64_t i = 0; i < width; i += LANES)
            op_store(w->q + r * width + i, v_load_part(q + i, job->dim - i), job->round, width - i);
        sees[r] = tt_cpu_visible(p, row + r);
        hole[r] = tt_cpu_hole(p, row + r);
        plain[r] = sees[r] > kv->sound || !sound(q, job->dim) || !(job->scale > 0);
        last = sees[r] > last ? sees[r] : last;
        run[r] = (running){-INFINITY, 0};
    }
    memset(w->sum, 0, (size_t)(rows * ld_sum) * sizeof(float));
    int64_t after = p->query_rows - row - rows;
    prefetch_rows(job->q + (p->query_row + row + rows) * job->ldq + head * job->dim, job->ldq,
                  after < TILE_ROWS ? after : TILE_ROWS, job->dim);

    for (int64_t from = 0; from < last; from += KEYS) {
        int64_t n = last - from < KEYS ? last - from : KEYS;
        for (int64_t c = 0; c < n; c += PANEL)
            panel_product(w->score + c, KEYS, w->q, width, rows, kv->k + (from + c) * width,
                          job->steps, n - c < PANEL ? n - c : PANEL, NULL, NULL, false);
        for (int r = 0; r < rows; r++) {
            int64_t seen = sees[r] - from < n ? sees[r] - from : n;
            operand *weight = w->weight + r * KEYS;
            if (seen <= 0) {
                memset(weight, 0, KEYS * sizeof(operand));
                continue;
            }
            if (hole[r] >= from && hole[r] < from + seen) /* no weight beside any other score */
                w->score[r * KEYS + hole[r] - from] = -0x1.fffffep127f;
            vf factor = v_set(
                continue_softmax(&run[r], weight, w->score + r * KEYS, seen, n, scale, job->round));
            for (int64_t c = 0; c < ld_sum && from; c += LANES)
                v_store(w->sum + r * ld_sum + c, v_mul(v_load(w->sum + r * ld_sum + c), factor));
        }
        for (int64_t c = 0; c < job->dim; c += PANEL)
            panel_product(w->sum + c, ld_sum, w->weight, KEYS, rows,
                          kv->v + c * kv->padded + from * PANEL, (n + DEPTH - 1) / DEPTH,
                          job->dim - c < PANEL ? job->dim - c : PANEL, NULL, NULL, true);
    }
    for (int r = 0; r < rows; r++) {
        float *out = job->out + (p->query_row + row + r) * job->ldo + head * job->dim;
        vf inverse = v_set(sees[r] ? 1.0f / run[r].total : 0.0f);
        /* The largest score's weight is 1. If it is not, or a sum is not finite, scores were too
         * large for float32; the twin's double may still hold them. */
        bool held = run[r].total > 0.5f && run[r].total < INFINITY && run[r].max < INFINITY;
        if (sees[r] && (!held || (hole[r] >= 0 && !(run[r].max > -1e30f)))) /* or only the hole */
            plain[r] = true;
        for (int64_t i = 0; i < job->dim && !plain[r]; i += LANES) /* + 0: no negative zero */
            v_store_part(out + i, v_fma(v_load(w->sum + r * ld_sum + i), inverse, v_set(0)),
                         job->dim - i);
        if (plain[r])
            tt_cpu_attend_row(out, job->q + (p->query_row + row + r) * job->ldq + head * job->dim,
                              p, row + r, head / job->group, job->dim, job->scale,
                              job->round ? TT_COMPUTE_BF16 : TT_COMPUTE_F32, w->plain);
    }
}

/* The bias of n keys from `from` on, side by side: in place, or written to `room`. */
static const float *bias_of(const tt_biased_span *b, int64_t head, int64_t row, int64_t from,
                            int64_t n, float *room)
{
    if (b->by_order) {
        for (int64_t j = 0; j < n; j++)
            room[j] = from + j >= b->from && from + j > row ? b->later : 0;
        return room;
    }
    const float *bias =
        b->bias + head * b->bias_head + row * b->bias_query + from * b->bias_key;
    for (int64_t j = 0; j < n && b->bias_key != 1; j++)
        room[j] = bias[j * b->bias_key];
    return b->bias_key == 1 ? bias : room;
}

/* score * scale + bias of n keys, hidden ones as HIDDEN. Whether all can be told apart from it in
 * float32. */
#define HIDDEN (-1e38f)
static bool add_bias(float *score, int64_t n, vf scale, const float *by)
{
    vm bad = v_gt(v_set(0), v_set(0));
    for (int64_t i = 0; i < n; i += LANES) {
        vf s = v_fma(v_load_part(score + i, n - i), scale, v_load_part(by + i, n - i));
        bad = v_or(bad, v_or(v_differs(s, s), v_gt(s, v_set(0x1.fffffep127f))));
        v_store_part(score + i, v_max(s, v_set(HIDDEN)), n - i);
    }
    return !v_any(bad);
}

/* attend_tile with a bias. */
static void biased_tile(const attend_job *job, const workspace *w, const tt_span *p,
                        const packed *kv, int64_t head, int64_t row, int rows)
{
    const tt_biased_span *b = &job->biased[p - job->span];
    int64_t width = job->steps * DEPTH, ld_sum = job->panels * PANEL;
    const float *q = job->q + (p->query_row + row) * job->ldq + head * job->dim;
    bool plain[TILE_ROWS];
    running run[TILE_ROWS];
    for (int r = 0; r < rows; r++) {
        for (int64_t i = 0; i < width; i += LANES)
            op_store(w->q + r * width + i, v_load_part(q + r * job->ldq + i, job->dim - i),
                     job->round, width - i);
        plain[r] = kv->sound < p->keys || !sound(q + r * job->ldq, job->dim);
        run[r] = (running){-INFINITY, 0};
    }
    memset(w->sum, 0, (size_t)(rows * ld_sum) * sizeof(float));
    for (int64_t from = 0; from < p->keys; from += KEYS) {
        int64_t n = p->keys - from < KEYS ? p->keys - from : KEYS;
        for (int64_t c = 0; c < n; c += PANEL)
            panel_product(w->score + c, KEYS, w->q, width, rows, kv->k + (from + c) * width,
                          job->steps, n - c < PANEL ? n - c : PANEL, NULL, NULL, false);
        for (int r = 0; r < rows; r++) {
            float *score = w->score + r * KEYS;
            float room[KEYS];
            plain[r] |= !add_bias(score, n, v_set(job->scale),
                                  bias_of(b, head, row + r, from, n, room));
            vf factor = v_set(continue_softmax(&run[r], w->weight + r * KEYS, score, n, n,
                                               v_set(1.44269504f), job->round));
            for (int64_t c = 0; c < ld_sum && from; c += LANES)
                v_store(w->sum + r * ld_sum + c, v_mul(v_load(w->sum + r * ld_sum + c), factor));
        }
        for (int64_t c = 0; c < job->dim; c += PANEL)
            panel_product(w->sum + c, ld_sum, w->weight, KEYS, rows,
                          kv->v + c * kv->padded + from * PANEL, (n + DEPTH - 1) / DEPTH,
                          job->dim - c < PANEL ? job->dim - c : PANEL, NULL, NULL, true);
    }
    for (int r = 0; r < rows; r++) {
        float *out = job->out + (p->query_row + row + r) * job->ldo + head * job->dim;
        vf inverse = v_set(1.0f / run[r].total);
        /* Else nothing is seen, or scores are too large for float32; the twin knows. */
        plain[r] |= !(run[r].max > 0.5f * HIDDEN && run[r].total > 0.5f && run[r].total < INFINITY);
        for (int64_t i = 0; i < job->dim && !plain[r]; i += LANES)
            v_store_part(out + i, v_fma(v_load(w->sum + r * ld_sum + i), inverse, v_set(0)),
                         job->dim - i);
        if (plain[r])
            tt_cpu_attend_biased_row(out, q + r * job->ldq, b, row + r, head, job->dim, job->scale,
                                     job->round ? TT_COMPUTE_BF16 : TT_COMPUTE_F32, w->plain);
    }
}

static void attend_rows(const attend_job *job, int thread, const tt_span *p, const packed *kv,
                        int64_t head, int64_t from, int64_t to)
{
    workspace w = work_at(job, thread);
    for (int64_t row = from; row < to; row += TILE_ROWS) {
        int rows = to - row < TILE_ROWS ? (int)(to - row) : TILE_ROWS;
        if (job->biased)
            biased_tile(job, &w, p, kv, head, row, rows);
        else
            attend_tile(job, &w, p, kv, head, row, rows);
    }
}

static void pack_task(void *arg, int64_t i, int thread)
{
    (void)thread;
    const attend_job *job = arg;
    pack(job, job->pack + (size_t)i * job->pack_bytes, &job->span[i / job->kv_heads],
         i % job->kv_heads);
}

/* One head's share of rows, over packs that are there. */
static void shared_task(void *arg, int64_t i, int thread)
{
    const attend_job *job = arg;
    int64_t cut = i % job->cuts, head = i / job->cuts % job->heads;
    int64_t at = i / job->cuts / job->heads;
    const tt_span *p = &job->span[at];
    unsigned char *slot =
        job->pack + (size_t)(at * job->kv_heads + head / job->group) * job->pack_bytes;
    packed kv = pack_at(job, slot, p->keys);
    memcpy(&kv.sound, slot, sizeof kv.sound);
    int64_t share = (p->query_rows + job->cuts - 1) / job->cuts;
    share = (share + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    int64_t from = cut * share, to = from + share < p->query_rows ? from + share : p->query_rows;
    attend_rows(job, thread, p, &kv, head, from, to);
}

/* All that needs one (span, kv head): packed and used by one thread while it is in its cache. */
static void whole_task(void *arg, int64_t i, int thread)
{
    const attend_job *job = arg;
    const tt_span *p = &job->span[i / job->kv_heads];
    int64_t kv_head = i % job->kv_heads;
    packed kv = pack(job, job->pack + (size_t)thread * job->pack_bytes, p, kv_head);
    for (int64_t h = 0; h < job->group; h++)
        attend_rows(job, thread, p, &kv, kv_head * job->group + h, 0, p->query_rows);
}

static tt_status attend_all(tt_stream *s, attend_job *job, int64_t spans, tt_err *e)
{
    job->group = job->heads / job->kv_heads;
    job->steps = (job->dim + DEPTH - 1) / DEPTH;
    job->panels = panels_of(job->dim);
    for (int64_t i = 0; i < spans; i++)
        job->most_keys = job->span[i].keys > job->most_keys ? job->span[i].keys : job->most_keys;
    int64_t threads = tt_pool_threads(s->pool), tasks = spans * job->kv_heads;
    /* Few large tasks would leave threads idle: share the packs and cut the rows. */
    job->shared = threads > 1 && tasks < 4 * threads;
    job->cuts = job->shared ? (4 * threads + spans * job->heads - 1) / (spans * job->heads) : 1;
    job->pack_bytes = pack_size(job, job->most_keys);
    size_t work = place_all(job).bytes * (size_t)threads;
    void *scratch;
    size_t packs = job->pack_bytes * (size_t)(job->shared ? tasks : threads);
    tt_status st = tt_cpu_scratch(&s->scratch, &scratch, packs + work, e);
    if (st)
        return tt_context(e, st, "attention");
    job->pack = scratch;
    job->work = job->pack + packs;
    if (job->shared) {
        tt_pool_run(s->pool, tasks, pack_task, job);
        tt_pool_run(s->pool, spans * job->heads * job->cuts, shared_task, job);
    } else {
        tt_pool_run(s->pool, tasks, whole_task, job);
    }
    return TT_OK;
}

static tt_status attend(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q, int64_t ldq,
                        const tt_span *span, int64_t spans, int64_t heads, int64_t kv_heads,
                        int64_t head_dim, float scale, bool round, tt_err *e)
{
    tt_status st = tt_cpu_attention_check(ldo, ldq, span, spans, heads, kv_heads, head_dim, e);
    if (st || !spans)
        return st;
    attend_job job = {.out = out,
                      .q = q,
                      .ldo = ldo,
                      .ldq = ldq,
                      .span = span,
                      .heads = heads,
                      .kv_heads = kv_heads,
                      .dim = head_dim,
                      .scale = scale,
                      .round = round};
    return attend_all(s, &job, spans, e);
}

static tt_status attend_biased(tt_stream *s, tt_act *out, int64_t ldo, const tt_act *q, int64_t ldq,
                               const tt_biased_span *biased, int64_t spans, int64_t heads,
                               int64_t head_dim, float scale, bool round, tt_err *e)
{
    void *room;
    tt_status st = tt_cpu_attention_biased_check(ldo, ldq, biased, spans, heads, head_dim, e);
    if (!st && spans)
        st = tt_cpu_scratch(&s->tile, &room, (size_t)spans * sizeof(tt_span), e);
    if (st || !spans)
        return st;
    tt_span *span = room;
    for (int64_t i = 0; i < spans; i++)
        span[i] = (tt_span){.query_row = biased[i].query_row,
                            .query_rows = biased[i].query_rows,
                            .k = biased[i].k,
                            .v = biased[i].v,
                            .ld_kv = biased[i].ld_kv,
                            .keys = biased[i].keys};
    attend_job job = {.out = out,
                      .q = q,
                      .ldo = ldo,
                      .ldq = ldq,
                      .span = span,
                      .biased = biased,
                      .heads = heads,
                      .kv_heads = heads,
                      .dim = head_dim,
                      .scale = scale,
                      .round = round};
    return attend_all(s, &job, spans, e);
}

#endif
