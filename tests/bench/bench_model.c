/* bench_model.c - forwards of whole models against their floors on this machine.
 *
 *   bench_model [--device D] [--threads N] [--seconds S] [FOLDER...]
 *
 * Runs the given model folders (the embedded text model when there are none) and a random model
 * of 170 M parameters.
 * Floor of a forward = max(operations / peak, weight bytes / bandwidth). Peaks are measured here,
 * in the same run: the best of several large products of the same arithmetic, and a streaming
 * read. Prints a table and one JSON line per figure. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "tests/bench/random_model.h"

typedef struct {
    tt_stream *stream;
    double seconds; /* per figure */
    double gflops[2]; /* by tt_compute */
    double gbytes;
} machine;

static double now(void) { return (double)tt_now_ns() * 1e-9; }

static void die(const char *what, const tt_err *e)
{
    fprintf(stderr, "bench_model: %s: %s\n", what, e->text);
    exit(1);
}

/* --- peaks --- */

static double product_gflops(machine *m, tt_compute compute, int64_t rows, int64_t n)
{
    tt_err e;
    tt_stream *s = m->stream;
    float *w = malloc((size_t)(n * n) * sizeof *w);
    void *x, *y;
    tt_matrix *matrix;
    for (int64_t i = 0; i < n * n; i++)
        w[i] = (float)((i * 2654435761u >> 8) % 1000) * 1e-3f - 0.5f;
    tt_weight part = {.data = {.data = w, .rank = 2, .dim = {n, n}, .dtype = TT_F32}};
    if (s->op.matrix_open(s, &matrix, &part, 1, NULL, compute, TT_MATRIX_LINEAR, &e) ||
        s->op.alloc(s, &x, (size_t)(rows * n) * 4, &e) ||
        s->op.alloc(s, &y, (size_t)(rows * n) * 4, &e) ||
        s->op.upload(s, x, w, (size_t)((rows < n ? rows : n) * n) * 4, &e))
        die("peak", &e);
    double best = INFINITY, end = now() + m->seconds;
    while (now() < end || best == INFINITY) {
        double t = now();
        s->op.linear(s, y, n, x, n, rows, matrix, false, &e);
        s->op.sync(s, &e);
        best = fmin(best, now() - t);
    }
    s->op.release(s, x);
    s->op.release(s, y);
    s->op.matrix_close(s, matrix);
    free(w);
    return 2e-9 * (double)rows * (double)n * (double)n / best;
}

static double read_gbytes(double seconds)
{
    size_t n = (size_t)1 << 25; /* 256 MB: beyond every cache here */
    uint64_t *p = malloc(n * sizeof *p), sum = 0;
    memset(p, 1, n * sizeof *p);
    double best = INFINITY, end = now() + seconds;
    while (now() < end) {
        double t = now();
        uint64_t a = 0, b = 0, c = 0, d = 0;
        for (size_t i = 0; i < n; i += 4) {
            a ^= p[i];
            b ^= p[i + 1];
            c ^= p[i + 2];
            d ^= p[i + 3];
        }
        sum += a ^ b ^ c ^ d;
        best = fmin(best, now() - t);
    }
    free(p);
    return sum == 1 ? 0 : (double)n * 8e-9 / best; /* keeps the loop alive */
}

static void measure_peaks(machine *m)
{
    for (int c = 0; c < 2; c++)
        for (int64_t n = 512; n <= 1024; n *= 2)
            m->gflops[c] = fmax(m->gflops[c], product_gflops(m, (tt_compute)c, 512, n));
    m->gbytes = read_gbytes(m->seconds);
    printf("peak: f32 %.0f GFLOP/s, bf16 %.0f GFLOP/s, read %.1f GB/s\n", m->gflops[0],
           m->gflops[1], m->gbytes);
    printf("{\"bench\":\"peak\",\"f32_gflops\":%.1f,\"bf16_gflops\":%.1f,\"read_gbs\":%.2f}\n",
           m->gflops[0], m->gflops[1], m->gbytes);
}

/* --- forwards --- */

static double forward_seconds(const machine *m, tt_model *model, int32_t rows)
{
    tt_err e;
    int32_t *id = malloc((size_t)rows * 2 * sizeof *id), *column = id + rows;
    tt_want *want = calloc((size_t)rows, sizeof *want);
    tt_row_stats *stats = calloc((size_t)rows, sizeof *stats);
    for (int32_t i = 0; i < rows; i++) {
        id[i] = (int32_t)((i * 7919) % model->info.vocab);
        column[i] = i;
        want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.target = -1}};
    }
    tt_pass_seq seq = {.rows = rows, .see_end = rows};
    tt_pass pass = {.rows = rows, .id = id, .position = column, .column = column, .seqs = 1,
                    .seq = &seq, .wants = rows, .want = want, .stats = stats};
    double best = INFINITY, end = now() + m->seconds;
    if (tt_model_run(model, &pass, &e))
        die("forward", &e);
    while (now() < end || best == INFINITY) {
        double t = now();
        if (tt_model_run(model, &pass, &e))
            die("forward", &e);
        best = fmin(best, now() - t);
    }
    free(id);
    free(want);
    free(stats);
    return best;
}

static void bench_rows(const machine *m, const char *name, const char *mode, tt_compute compute,
                       double weight_bytes, tt_model *model, double body)
{
    const tt_model_info *i = &model->info;
    double head = (double)i->vocab * (double)i->width;
    for (int32_t rows = 1; rows <= 512 && rows <= i->context; rows *= rows == 1 ? 32 : 4) {
        double flops = 2 * (body + head) * rows +
                       4.0 * (double)(i->layers * i->heads * i->head_dim) * rows * rows;
        double bytes = (body + head) * weight_bytes;
        double floor = fmax(flops / m->gflops[compute], bytes / m->gbytes) * 1e-9;
        double t = forward_seconds(m, model, rows);
        printf("%-12s %-5s %4d rows  %9.2f ms  floor %9.2f ms  ratio %.2f\n", name, mode, rows,
               t * 1e3, floor * 1e3, t / floor);
        printf("{\"bench\":\"forward\",\"model\":\"%s\",\"weights\":\"%s\",\"rows\":%d,"
               "\"ms\":%.3f,\"floor_ms\":%.3f,\"ratio\":%.3f}\n",
               name, mode, rows, t * 1e3, floor * 1e3, t / floor);
    }
}

static const struct {
    const char *name;
    tt_weights_mode mode;
    tt_compute compute;
    double bytes; /* per weight as multiplied: int8 integers are kept as bf16 on the CPU */
} modes[] = {{"f32", TT_WEIGHTS_F32, TT_COMPUTE_F32, 4},
             {"bf16", TT_WEIGHTS_BF16, TT_COMPUTE_BF16, 2},
             {"int8", TT_WEIGHTS_INT8, TT_COMPUTE_BF16, 2}};
enum { MODES = sizeof modes / sizeof *modes };

/* Weights of the layers: everything two-dimensional but the token table and the head. */
static double body_weights(const tt_weights *w, const tt_model_info *i)
{
    double n = 0;
    tt_tensor t;
    for (size_t k = 0; tt_weights_name(w, k, &t); k++)
        if (t.rank == 2 && t.dim[0] != i->vocab)
            n += (double)tt_tensor_count(&t);
    return n;
}

static void bench_folder(const machine *m, const char *folder)
{
    const char *name = strrchr(folder, '/') ? strrchr(folder, '/') + 1 : folder;
    for (int k = 0; k < MODES; k++) {
        tt_model *model;
        tt_weights *w;
        tt_config *c;
        tt_err e;
        if (tt_model_open(&model, &w, &c, m->stream, folder, modes[k].mode, NULL, NULL, &e))
            die(folder, &e);
        bench_rows(m, name, modes[k].name, modes[k].compute, modes[k].bytes, model,
                   body_weights(w, &model->info));
        tt_model_close(model);
        tt_weights_close(w);
        tt_config_close(c);
    }
}

static void bench_random(const machine *m)
{
    tt_random_shape shape = {.layers = 14, .width = 768, .heads = 12, .ff = 3072, .vocab = 50304,
                             .context = 512};
    for (int k = 0; k < MODES; k++) {
        tt_random_model r;
        tt_err e;
        if (tt_random_model_open(&r, m->stream, shape, modes[k].mode, &e))
            die("random model", &e);
        bench_rows(m, "random-170M", modes[k].name, modes[k].compute, modes[k].bytes, r.model,
                   body_weights(r.weights, &r.model->info));
        tt_random_model_close(&r);
    }
}

int main(int argc, char **argv)
{
    const char *device = "cpu", *folder[16];
    int threads = 1, folders = 0;
    machine m = {.seconds = 1};
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--device") && more) {
            device = argv[++i];
        } else if (!strcmp(argv[i], "--threads") && more) {
            threads = atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--seconds") && more) {
            m.seconds = atof(argv[++i]);
        } else if (argv[i][0] != '-' && folders < 16) {
            folder[folders++] = argv[i];
        } else {
            fprintf(stderr, "usage: bench_model [--device D] [--threads N] [--seconds S] "
                            "[FOLDER...]\n");
            return 2;
        }
    }
    if (!folders)
        folder[folders++] = "models/demo/tutti-text";
    tt_err e;
    char text[200];
    if (tt_stream_open(&m.stream, device, threads, &e))
        die(device, &e);
    m.stream->op.describe(m.stream, text, sizeof text);
    printf("device: %s: %s\n", m.stream->op.name, text);
    measure_peaks(&m);
    for (int i = 0; i < folders; i++)
        bench_folder(&m, folder[i]);
    bench_random(&m);
    tt_stream_close(m.stream);
    return 0;
}
