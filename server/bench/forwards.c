/* forwards.c - single passes: rows without a store, and a block over stored columns.
 *
 * Each is timed three times: as it is, without the head (no row's statistics wanted), and with
 * every row attending to one column alone; the differences are what head and attention take.
 * Times are the caller's, inputs from and statistics to host memory included. */
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "server/bench/bench.h"

enum { MAX_RUNS = 512, LEAST_RUNS = 3, WARM_RUNS = 2, FEED = 256 };

typedef struct {
    double median, least; /* seconds */
    int runs;
} timing;

/* `batch` sequences of `rows` columns each, which stand behind `cached` stored ones. */
typedef struct {
    int64_t batch, rows, cached;
    tt_kv **kv; /* per sequence; NULL: none */
    int32_t *id, *position, *column;
    tt_pass_seq *seq;
    tt_want *want;
    tt_row_stats *stats;
    tt_pass pass;
} forward;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static tt_status time_pass(const tt_bench *b, const tt_pass *p, timing *out, tt_err *e)
{
    double t[MAX_RUNS];
    int64_t begin = tt_now_ns(), budget = (int64_t)(b->sizes.seconds * 1e9);
    for (int i = 0; i < WARM_RUNS && (i == 0 || tt_now_ns() - begin < budget); i++) {
        tt_status s = tt_model_run(b->model, p, e);
        if (s)
            return s;
    }
    begin = tt_now_ns();
    int n = 0;
    while (n < LEAST_RUNS || (n < MAX_RUNS && tt_now_ns() - begin < budget)) {
        int64_t start = tt_now_ns();
        tt_status s = tt_model_run(b->model, p, e);
        if (s)
            return s;
        t[n++] = (double)(tt_now_ns() - start) * 1e-9;
    }
    qsort(t, (size_t)n, sizeof *t, ascending);
    *out = (timing){.median = (t[(n - 1) / 2] + t[n / 2]) / 2, .least = t[0], .runs = n};
    return TT_OK;
}

/* --- making one --- */

static void close_forward(forward *f)
{
    for (int64_t i = 0; f->kv && i < f->batch; i++)
        tt_kv_close(f->kv[i]);
    free(f->kv);
    free(f->id);
    free(f->seq);
    free(f->want);
    free(f->stats);
    *f = (forward){0};
}

/* Feeds the columns of one store in pieces, so that filling needs no more memory than running. */
static tt_status fill_store(tt_model *m, tt_kv *kv, int64_t columns, tt_err *e)
{
    int32_t id[FEED], column[FEED];
    tt_status s = TT_OK;
    for (int64_t from = 0; from < columns && !s; from += FEED) {
        int64_t n = columns - from < FEED ? columns - from : FEED;
        for (int64_t i = 0; i < n; i++) {
            column[i] = (int32_t)(from + i);
            id[i] = (int32_t)((from + i) * 7919 % m->info.vocab);
        }
        tt_pass_seq seq = {.rows = n, .see_end = (int32_t)(from + n), .kv = kv};
        tt_pass p = {
            .rows = n, .id = id, .position = column, .column = column, .seqs = 1, .seq = &seq};
        s = tt_model_run(m, &p, e);
    }
    return s;
}

static void fill_pass(forward *f, int64_t vocab)
{
    int64_t total = f->batch * f->rows;
    for (int64_t r = 0; r < total; r++) {
        f->column[r] = f->position[r] = (int32_t)(f->cached + r % f->rows);
        f->id[r] = (int32_t)((f->cached + r) * 7919 % vocab);
        f->want[r] = (tt_want){.row = r, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    }
    for (int64_t i = 0; i < f->batch; i++)
        f->seq[i] = (tt_pass_seq){.row = i * f->rows,
                                  .rows = f->rows,
                                  .see_end = (int32_t)(f->cached + f->rows),
                                  .kv = f->kv ? f->kv[i] : NULL};
    f->pass = (tt_pass){.rows = total,
                        .id = f->id,
                        .position = f->position,
                        .column = f->column,
                        .seqs = f->batch,
                        .seq = f->seq,
                        .wants = total,
                        .want = f->want,
                        .stats = f->stats};
}

static tt_status open_forward(forward *f, tt_model *m, tt_err *e)
{
    size_t total = (size_t)(f->batch * f->rows);
    f->id = malloc(3 * total * sizeof *f->id);
    f->position = f->id + total;
    f->column = f->position + total;
    f->seq = calloc((size_t)f->batch, sizeof *f->seq);
    f->want = calloc(total, sizeof *f->want);
    f->stats = calloc(total, sizeof *f->stats);
    f->kv = f->cached ? calloc((size_t)f->batch, sizeof *f->kv) : NULL;
    if (!f->id || !f->seq || !f->want || !f->stats || (f->cached && !f->kv))
        return tt_fail(e, TT_ENOMEM, "no memory for a pass of %zu rows", total);
    tt_status s = TT_OK;
    for (int64_t i = 0; f->kv && i < f->batch && !s; i++) {
        s = tt_kv_open(&f->kv[i], m, (int32_t)(f->cached + f->rows), e);
        if (!s)
            s = fill_store(m, f->kv[i], f->cached, e);
    }
    if (!s)
        fill_pass(f, m->info.vocab);
    return s;
}

/* --- measuring it --- */

/* Seconds of the whole pass, without the head, and with one visible column. */
typedef struct {
    timing whole, headless, blind;
} figures;

static tt_status measure(const tt_bench *b, forward *f, figures *out, tt_err *e)
{
    tt_status s = time_pass(b, &f->pass, &out->whole, e);
    int64_t wants = f->pass.wants;
    f->pass.wants = 0;
    if (!s)
        s = time_pass(b, &f->pass, &out->headless, e);
    f->pass.wants = wants;
    for (int64_t i = 0; i < f->batch; i++) {
        f->seq[i].see_begin = (int32_t)f->cached;
        f->seq[i].see_end = (int32_t)f->cached + 1;
    }
    return s ? s : time_pass(b, &f->pass, &out->blind, e);
}

static void print_head(const tt_bench *b)
{
    fprintf(b->out, "\n%-28s %10s %10s %10s %7s %6s %9s %9s %5s\n", "forward", "ms", "least",
            "floor ms", "bound", "ratio", "head ms", "attend ms", "runs");
}

static void print(tt_bench *b, const forward *f, const figures *g)
{
    int64_t seen = f->batch * f->rows * (f->cached + f->rows);
    int64_t stored = f->cached ? f->batch * (f->cached + f->rows) : 0;
    tt_bench_floor least = tt_bench_least(b, f->pass.rows, f->pass.wants, stored, seen);
    bool by_memory = least.memory > least.arithmetic;
    double floor = by_memory ? least.memory : least.arithmetic;
    const char *bound = floor > 0 ? by_memory ? "memory" : "compute" : "-";
    double ratio = floor > 0 ? g->whole.median / floor : 0;
    double head = g->whole.median - g->headless.median;
    double attention = g->whole.median - g->blind.median;
    char name[64];
    int n =
        snprintf(name, sizeof name, "%lld x %lld rows", (long long)f->batch, (long long)f->rows);
    if (f->cached)
        snprintf(name + n, sizeof name - (size_t)n, " over %lld", (long long)f->cached);
    tt_bench_say(b, NULL);
    fprintf(b->out, "%-28s %10.3f %10.3f %10.3f %7s %6.2f %9.3f %9.3f %5d\n", name,
            g->whole.median * 1e3, g->whole.least * 1e3, floor * 1e3, bound, ratio, head * 1e3,
            attention * 1e3, g->whole.runs);
    fflush(b->out);
    tt_json *w = &b->json;
    tt_json_open(w, '{');
    tt_json_text_member(w, "name", name);
    tt_json_int_member(w, "batch", f->batch);
    tt_json_int_member(w, "rows", f->rows);
    tt_json_int_member(w, "cached", f->cached);
    tt_json_float_member(w, "ms", g->whole.median * 1e3);
    tt_json_float_member(w, "least_ms", g->whole.least * 1e3);
    tt_json_float_member(w, "floor_ms", floor * 1e3);
    tt_json_text_member(w, "bound", bound);
    tt_json_float_member(w, "ratio", ratio);
    tt_json_float_member(w, "head_ms", head * 1e3);
    tt_json_float_member(w, "attention_ms", attention * 1e3);
    tt_json_int_member(w, "runs", g->whole.runs);
    tt_json_close(w, '}');
}

static tt_status one(tt_bench *b, int64_t batch, int64_t rows, int64_t cached, tt_err *e)
{
    forward f = {.batch = batch, .rows = rows, .cached = cached};
    figures g;
    tt_bench_say(b, "forward of %lld x %lld rows, %lld columns stored", (long long)batch,
                 (long long)rows, (long long)cached);
    tt_status s = open_forward(&f, b->model, e);
    if (!s)
        s = measure(b, &f, &g, e);
    if (!s)
        print(b, &f, &g);
    close_forward(&f);
    if (!s) /* the next peak begins without these stores */
        tt_bench_note_memory(b, cached ? batch * (cached + rows) : 0);
    return s ? tt_context(e, s, "forward of %lld x %lld rows", (long long)batch, (long long)rows)
             : TT_OK;
}

tt_status tt_bench_forwards(tt_bench *b, tt_err *e)
{
    const tt_bench_sizes *z = &b->sizes;
    tt_status s = TT_OK;
    print_head(b);
    tt_json_open_member(&b->json, "forwards", '[');
    for (int i = 0; i < z->rows.n && !s; i++)
        s = one(b, 1, z->rows.v[i], 0, e);
    for (int i = 0; i < z->batch.n && z->cached && !s; i++)
        s = one(b, z->batch.v[i], z->block, z->cached, e);
    tt_json_close(&b->json, ']');
    return s;
}
