/* bench_kernels.c - the operations against their floors.
 *
 *   bench_kernels [--device NAME] [--threads N] [--seconds S] [--hot]
 *
 * Each case is run for S seconds (0.2) and the best time counts. Floor = the longer of its
 * arithmetic at the measured peak and its memory traffic at the measured bandwidth; weights are
 * walked through as a model does, 64 MB of them, unless --hot. JSON lines go to stdout, a table to
 * stderr. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/log.h"
#include "tests/bench/peaks.h"

static tt_peaks peaks;
static tt_stream *s;
static double seconds = 0.2;
static bool hot;
static const char *device = "cpu";

static void stop(const tt_err *e)
{
    fprintf(stderr, "bench_kernels: %s\n", e->text);
    exit(1);
}

static void *memory(size_t count, size_t size)
{
    void *p = aligned_alloc(64, (count * size + 127) & ~(size_t)63);
    if (!p) {
        fprintf(stderr, "bench_kernels: no memory\n");
        exit(1);
    }
    return p;
}

static float *numbers(int64_t n, float spread)
{
    float *x = memory((size_t)n, sizeof *x);
    uint32_t state = 12345;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525 + 1013904223;
        x[i] = spread * ((float)(state >> 8) * 0x1p-23f - 1);
    }
    return x;
}

static void row(const char *what, const char *type, tt_compute compute, int64_t rows, double flops,
                double bytes, double time)
{
    double least = tt_peaks_floor(&peaks, compute, flops, bytes);
    printf("{\"op\":\"%s\",\"type\":\"%s\",\"device\":\"%s\",\"threads\":%d,\"rows\":%lld,"
           "\"seconds\":%.4g,\"flops\":%.4g,\"bytes\":%.4g,\"floor\":%.4g,\"ratio\":%.3f}\n",
           what, type, device, peaks.threads, (long long)rows, time, flops, bytes, least,
           time / least);
    fprintf(stderr, "%-26s %-5s %6lld %10.1f us %8.1f GFLOP/s %8.1f GB/s  floor %9.1f us  x%.2f\n",
            what, type, (long long)rows, time * 1e6, flops / time * 1e-9, bytes / time * 1e-9,
            least * 1e6, time / least);
    fflush(stdout);
}

static const char *type_of(tt_compute c)
{
    return c == TT_COMPUTE_BF16 ? "bf16" : "f32";
}

/* --- linear --- */

typedef struct {
    tt_matrix **w;
    int copies, next;
    float *x, *y;
    int64_t rows, n, k;
} linear_case;

static void linear(void *arg)
{
    linear_case *c = arg;
    s->op.linear(s, c->y, c->n, c->x, c->k, c->rows, c->w[c->next], false, NULL);
    c->next = (c->next + 1) % c->copies;
}

static void bench_linear(int64_t n, int64_t k, tt_compute compute, const int64_t *rows, int count)
{
    size_t bytes = (size_t)(n * k) * (compute == TT_COMPUTE_BF16 ? 2 : 4);
    linear_case c = {.copies = hot ? 1 : 1 + (int)(((size_t)64 << 20) / bytes), .n = n, .k = k};
    tt_err e = {0};
    c.w = memory((size_t)c.copies, sizeof *c.w);
    float *data = numbers(n * k, 0.05f);
    tt_weight w = {.data = {.data = data, .dim = {n, k}, .rank = 2, .dtype = TT_F32}};
    for (int i = 0; i < c.copies; i++)
        if (s->op.matrix_open(s, &c.w[i], &w, 1, NULL, compute, TT_MATRIX_LINEAR, &e))
            stop(&e);
    c.x = numbers(512 * k, 1);
    c.y = memory((size_t)(512 * n), sizeof *c.y);
    for (int i = 0; i < count; i++) {
        c.rows = rows[i];
        char what[40];
        snprintf(what, sizeof what, "linear %lld x %lld", (long long)n, (long long)k);
        row(what, type_of(compute), compute, c.rows, 2.0 * (double)(c.rows * n * k),
            (double)bytes + 4.0 * (double)(c.rows * (n + k)), tt_bench_best(seconds, linear, &c));
    }
    for (int i = 0; i < c.copies; i++)
        s->op.matrix_close(s, c.w[i]);
    free(c.w);
    free(data);
    free(c.x);
    free(c.y);
}

/* --- attention --- */

typedef struct {
    float *q, *kv, *out;
    tt_span *span;
    int64_t spans, heads, kv_heads, dim;
    tt_compute compute;
} attention_case;

static void attention(void *arg)
{
    attention_case *c = arg;
    int64_t width = c->heads * c->dim;
    s->op.attention(s, c->out, width, c->q, width, c->span, c->spans, c->heads, c->kv_heads, c->dim,
                    1 / sqrtf((float)c->dim), c->compute, NULL);
}

static void bench_attention(int64_t spans, int64_t length, int64_t heads, int64_t kv_heads,
                            int64_t dim, tt_compute compute)
{
    int64_t rows = spans * length, width = heads * dim, kv = kv_heads * dim;
    attention_case c = {.q = numbers(rows * width, 1),
                        .kv = numbers(2 * rows * kv, 1),
                        .out = memory((size_t)(rows * width), sizeof(float)),
                        .span = memory((size_t)spans, sizeof(tt_span)),
                        .spans = spans,
                        .heads = heads,
                        .kv_heads = kv_heads,
                        .dim = dim,
                        .compute = compute};
    for (int64_t i = 0; i < spans; i++)
        c.span[i] = (tt_span){.query_row = i * length,
                              .query_rows = length,
                              .k = c.kv + 2 * i * length * kv,
                              .v = c.kv + 2 * i * length * kv + kv,
                              .ld_kv = 2 * kv,
                              .keys = length};
    char what[48];
    snprintf(what, sizeof what, "attention %lldx%lld/%lldx%lld", (long long)spans, (long long)heads,
             (long long)kv_heads, (long long)dim);
    row(what, type_of(compute), compute, rows, 4.0 * (double)(rows * width * length),
        4.0 * (double)(rows * (2 * width + 2 * kv)), tt_bench_best(seconds, attention, &c));
    free(c.q);
    free(c.kv);
    free(c.out);
    free(c.span);
}

/* --- the head --- */

typedef struct {
    tt_matrix *w;
    float *x;
    tt_draw *draw;
    tt_row_stats *stats;
    int64_t rows, k;
} head_case;

static void head(void *arg)
{
    head_case *c = arg;
    s->op.head(s, c->stats, NULL, 0, NULL, c->x, c->k, c->rows, c->w, c->draw, NULL);
}

static void bench_head(int64_t n, int64_t k, tt_compute compute, const int64_t *rows, int count)
{
    static const struct {
        const char *name;
        float temperature, top_p;
        int32_t top_k;
    } kind[] = {
        {"argmax", 0, 1, 0}, {"gumbel", 1, 1, 0}, {"top_p", 1, 0.95f, 0}, {"top_k", 1, 1, 50}};
    tt_err e = {0};
    float *data = numbers(n * k, 0.1f);
    tt_weight w = {.data = {.data = data, .dim = {n, k}, .rank = 2, .dtype = TT_F32}};
    head_case c = {.k = k, .x = numbers(512 * k, 2)};
    c.draw = memory(512, sizeof *c.draw);
    c.stats = memory(512, sizeof *c.stats);
    if (s->op.matrix_open(s, &c.w, &w, 1, NULL, compute, TT_MATRIX_LINEAR, &e))
        stop(&e);
    for (int i = 0; i < count; i++)
        for (int t = 0; t < 4; t++) {
            c.rows = rows[i];
            for (int r = 0; r < 512; r++)
                c.draw[r] = (tt_draw){.temperature = kind[t].temperature,
                                      .top_p = kind[t].top_p,
                                      .top_k = kind[t].top_k,
                                      .noise = TT_NOISE_PHILOX,
                                      .seed = 7,
                                      .position = (uint32_t)r,
                                      .target = -1};
            char what[48];
            snprintf(what, sizeof what, "head %lld x %lld %s", (long long)n, (long long)k,
                     kind[t].name);
            row(what, type_of(compute), compute, c.rows, 2.0 * (double)(c.rows * n * k),
                (double)(n * k) * (compute == TT_COMPUTE_BF16 ? 2 : 4) + 4.0 * (double)(c.rows * k),
                tt_bench_best(seconds, head, &c));
        }
    s->op.matrix_close(s, c.w);
    free(data);
    free(c.x);
    free(c.draw);
    free(c.stats);
}

/* --- row-wise operations, in the cache: their floor is what DRAM would allow --- */

typedef struct {
    float *x, *y, *w;
    int64_t rows, width;
} rows_case;

static void norm(void *arg)
{
    rows_case *c = arg;
    s->op.rmsnorm(s, c->y, c->width, c->x, c->width, c->w, c->rows, c->width, 1e-5f, NULL);
}
static void swiglu(void *arg)
{
    rows_case *c = arg;
    s->op.swiglu(s, c->y, c->width, c->x, c->x + c->width / 2, c->width, c->rows, c->width / 2,
                 NULL);
}
static void rope(void *arg)
{
    rows_case *c = arg; /* heads of 64 */
    s->op.rope(s, c->x, c->width, c->w, c->w + 32 * c->rows, c->rows, c->width / 64, 64, 32, NULL);
}

static void bench_rows(int64_t rows, int64_t width)
{
    rows_case c = {numbers(rows * width, 1), numbers(rows * width, 1),
                   numbers(64 * rows + width, 0.5f), rows, width};
    double bytes = 4.0 * (double)(rows * width);
    row("rmsnorm", "f32", TT_COMPUTE_F32, rows, 0, 2 * bytes, tt_bench_best(seconds, norm, &c));
    row("rope", "f32", TT_COMPUTE_F32, rows, 0, 2 * bytes, tt_bench_best(seconds, rope, &c));
    row("swiglu", "f32", TT_COMPUTE_F32, rows, 0, 1.5 * bytes, tt_bench_best(seconds, swiglu, &c));
    free(c.x);
    free(c.y);
    free(c.w);
}

/* --- every operation of a forward pass: 10 layers, width 320, ffn 704, vocabulary 8192 --- */

enum { LAYERS = 10, WIDTH = 320, FFN = 704, VOCAB = 8192, HEAD = 64, HEADS = WIDTH / HEAD };

typedef struct {
    tt_matrix *qkv[LAYERS], *out[LAYERS], *up[LAYERS], *down[LAYERS], *table;
    float *h, *norm, *a, *b, *gain, *cos, *sin, *inv;
    int32_t *id, *position;
    tt_draw *draw;
    tt_row_stats *stats;
    tt_span span[64];
    int64_t rows, spans;
    tt_compute compute;
} stack;

static void must(tt_status st, const tt_err *e)
{
    if (st)
        stop(e);
}

static tt_matrix *weight(int64_t n, int64_t k, tt_compute compute, unsigned flags,
                         const float *data)
{
    tt_weight w = {.data = {.data = data, .dim = {n, k}, .rank = 2, .dtype = TT_F32}};
    tt_matrix *m = NULL;
    tt_err e = {0};
    must(s->op.matrix_open(s, &m, &w, 1, NULL, compute, flags, &e), &e);
    return m;
}

static void forward(void *arg)
{
    stack *c = arg;
    const tt_backend *op = &s->op;
    int64_t rows = c->rows;
    tt_err e = {0};
    must(op->embed(s, c->h, WIDTH, c->table, c->id, rows, &e), &e);
    must(op->rope_table(s, c->cos, c->sin, c->position, c->inv, rows, HEAD / 2, &e), &e);
    for (int l = 0; l < LAYERS; l++) {
        must(op->rmsnorm(s, c->norm, WIDTH, c->h, WIDTH, c->gain, rows, WIDTH, 1e-5f, &e), &e);
        must(op->linear(s, c->a, 3 * WIDTH, c->norm, WIDTH, rows, c->qkv[l], false, &e), &e);
        must(op->rope(s, c->a, 3 * WIDTH, c->cos, c->sin, rows, 2 * HEADS, HEAD, HEAD / 2, &e), &e);
        must(op->attention(s, c->norm, WIDTH, c->a, 3 * WIDTH, c->span, c->spans, HEADS, HEADS,
                           HEAD, 0.125f, c->compute, &e),
             &e);
        must(op->linear(s, c->h, WIDTH, c->norm, WIDTH, rows, c->out[l], true, &e), &e);
        must(op->rmsnorm(s, c->norm, WIDTH, c->h, WIDTH, c->gain, rows, WIDTH, 1e-5f, &e), &e);
        must(op->linear(s, c->a, 2 * FFN, c->norm, WIDTH, rows, c->up[l], false, &e), &e);
        must(op->swiglu(s, c->b, FFN, c->a, c->a + FFN, 2 * FFN, rows, FFN, &e), &e);
        must(op->linear(s, c->h, WIDTH, c->b, FFN, rows, c->down[l], true, &e), &e);
    }
    must(op->rmsnorm(s, c->norm, WIDTH, c->h, WIDTH, c->gain, rows, WIDTH, 1e-5f, &e), &e);
    must(op->head(s, c->stats, NULL, 0, NULL, c->norm, WIDTH, rows, c->table, c->draw, &e), &e);
}

static void bench_stack(tt_compute compute)
{
    enum { MOST = 2048 };
    static const struct {
        int64_t spans, length;
    } batch[] = {{1, 32}, {1, 128}, {4, 128}, {1, 512}, {4, 512}};
    stack *c = memory(1, sizeof *c);
    memset(c, 0, sizeof *c);
    float *data = numbers(VOCAB * WIDTH, 0.05f);
    c->compute = compute;
    for (int l = 0; l < LAYERS; l++) {
        c->qkv[l] = weight(3 * WIDTH, WIDTH, compute, TT_MATRIX_LINEAR, data);
        c->out[l] = weight(WIDTH, WIDTH, compute, TT_MATRIX_LINEAR, data + 7 * l);
        c->up[l] = weight(2 * FFN, WIDTH, compute, TT_MATRIX_LINEAR, data + 9 * l);
        c->down[l] = weight(WIDTH, FFN, compute, TT_MATRIX_LINEAR, data + 11 * l);
    }
    c->table = weight(VOCAB, WIDTH, compute, TT_MATRIX_LINEAR | TT_MATRIX_TABLE, data);
    c->h = numbers(MOST * WIDTH, 1);
    c->norm = numbers(MOST * WIDTH, 1);
    c->a = numbers(MOST * 2 * FFN, 1);
    c->b = numbers(MOST * FFN, 1);
    c->gain = numbers(WIDTH, 1);
    c->cos = numbers(MOST * HEAD / 2, 1);
    c->sin = numbers(MOST * HEAD / 2, 1);
    c->inv = numbers(HEAD / 2, 1);
    c->id = memory(MOST, sizeof *c->id);
    c->position = memory(MOST, sizeof *c->position);
    c->draw = memory(MOST, sizeof *c->draw);
    c->stats = memory(MOST, sizeof *c->stats);
    for (int i = 0; i < MOST; i++) {
        c->id[i] = i * 37 % VOCAB;
        c->position[i] = i % 512;
        c->draw[i] = (tt_draw){.top_p = 1,
                               .target = -1,
                               .position = (uint32_t)i,
                               .temperature = 0.7f,
                               .noise = TT_NOISE_PHILOX};
    }
    for (size_t b = 0; b < sizeof batch / sizeof *batch; b++) {
        int64_t length = batch[b].length;
        c->spans = batch[b].spans;
        c->rows = c->spans * length;
        for (int64_t i = 0; i < c->spans; i++)
            c->span[i] = (tt_span){.query_row = i * length,
                                   .query_rows = length,
                                   .k = c->a + i * length * 3 * WIDTH + WIDTH,
                                   .v = c->a + i * length * 3 * WIDTH + 2 * WIDTH,
                                   .ld_kv = 3 * WIDTH,
                                   .keys = length};
        double weights = LAYERS * (4.0 * WIDTH * WIDTH + 3.0 * WIDTH * FFN) + (double)VOCAB * WIDTH;
        double flops = (double)c->rows * (2 * weights + 4.0 * LAYERS * WIDTH * (double)length);
        char what[40];
        snprintf(what, sizeof what, "forward %lld x %lld", (long long)c->spans, (long long)length);
        row(what, type_of(compute), compute, c->rows, flops,
            weights * (compute == TT_COMPUTE_BF16 ? 2 : 4), tt_bench_best(seconds * 3, forward, c));
    }
    for (int l = 0; l < LAYERS; l++) {
        s->op.matrix_close(s, c->qkv[l]);
        s->op.matrix_close(s, c->out[l]);
        s->op.matrix_close(s, c->up[l]);
        s->op.matrix_close(s, c->down[l]);
    }
    s->op.matrix_close(s, c->table);
    free(data), free(c->h), free(c->norm), free(c->a), free(c->b), free(c->gain), free(c->cos);
    free(c->sin), free(c->inv), free(c->id), free(c->position), free(c->draw), free(c->stats);
    free(c);
}

int main(int argc, char **argv)
{
    static const int64_t rows[] = {1, 8, 32, 128, 512};
    int threads = 1;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--hot"))
            hot = true;
        else if (!strcmp(argv[i], "--device") && i + 1 < argc)
            device = argv[++i];
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc)
            threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
            seconds = atof(argv[++i]);
        else {
            fprintf(stderr, "usage: %s [--device NAME] [--threads N] [--seconds S] [--hot]\n",
                    argv[0]);
            return 2;
        }
    }
    tt_err e = {0};
    char machine[256], text[160];
    tt_log_set_level(TT_LOG_WARN);
    must(tt_peaks_measure(&peaks, threads, 10 * seconds, &e), &e);
    must(tt_stream_open(&s, device, threads, &e), &e);
    tt_bench_machine(machine, sizeof machine, threads);
    s->op.describe(s, text, sizeof text);
    printf("{\"machine\":\"%s\",\"device\":\"%s\",\"backend\":\"%s\",\"f32_peak\":%.4g,"
           "\"bf16_peak\":%.4g,\"read\":%.4g}\n",
           machine, device, text, peaks.f32, peaks.bf16, peaks.read);
    fprintf(stderr,
            "%s\n%s: %s\npeaks: f32 %.1f GFLOP/s (%s), bf16 %.1f GFLOP/s (%s), read %.1f GB/s\n",
            machine, device, text, peaks.f32 * 1e-9, peaks.f32_by, peaks.bf16 * 1e-9, peaks.bf16_by,
            peaks.read * 1e-9);
    bench_stack(TT_COMPUTE_BF16);
    for (int compute = TT_COMPUTE_BF16; compute >= TT_COMPUTE_F32; compute--) {
        bench_linear(320, 320, (tt_compute)compute, rows, 5);
        bench_linear(512, 512, (tt_compute)compute, rows, 5);
        bench_linear(1024, 1024, (tt_compute)compute, rows, 5);
        for (int i = 2; i < 5; i++)
            bench_attention(1, rows[i], 5, 5, 64, (tt_compute)compute);
        bench_attention(8, 128, 8, 2, 128, (tt_compute)compute);
        bench_head(8192, 320, (tt_compute)compute, rows, 5);
    }
    for (int i = 3; i < 5; i++)
        bench_rows(rows[i], 320);
    bench_stack(TT_COMPUTE_F32);
    tt_stream_close(s);
    return 0;
}
