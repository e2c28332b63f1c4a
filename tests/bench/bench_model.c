/* bench_model.c - forwards of whole models against their floors on this machine.
 *
 *   bench_model [--device D] [--threads N] [--seconds S] [FOLDER...]
 *
 * Runs the given model folders (the embedded text model when there are none) and a random model
 * of 170 M parameters.
 * Floor of a forward = max(operations / peak, weight bytes / bandwidth), with peaks measured in
 * the same run (peaks.h). Prints a table and one JSON line per figure. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/peaks.h"
#include "tests/bench/random_model.h"

typedef struct {
    tt_stream *stream;
    double seconds; /* per figure */
    tt_peaks peaks;
} machine;

static void die(const char *what, const tt_err *e)
{
    fprintf(stderr, "bench_model: %s: %s\n", what, e->text);
    exit(1);
}

/* --- forwards --- */

typedef struct {
    tt_model *model;
    tt_pass pass;
} forward;

static void run_forward(void *arg)
{
    forward *f = arg;
    tt_err e;
    if (tt_model_run(f->model, &f->pass, &e))
        die("forward", &e);
}

static double forward_seconds(const machine *m, tt_model *model, int32_t rows)
{
    int32_t *id = malloc((size_t)rows * 2 * sizeof *id), *column = id + rows;
    tt_want *want = calloc((size_t)rows, sizeof *want);
    tt_row_stats *stats = calloc((size_t)rows, sizeof *stats);
    for (int32_t i = 0; i < rows; i++) {
        id[i] = (int32_t)((i * 7919) % model->info.vocab);
        column[i] = i;
        want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.target = -1}};
    }
    tt_pass_seq seq = {.rows = rows, .see_end = rows};
    forward f = {.model = model,
                 .pass = {.rows = rows, .id = id, .position = column, .column = column, .seqs = 1,
                          .seq = &seq, .wants = rows, .want = want, .stats = stats}};
    double best = tt_bench_best(m->seconds, run_forward, &f);
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
        double floor = tt_peaks_floor(&m->peaks, compute, flops, bytes);
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
    if (tt_peaks_measure(&m.peaks, threads, 3 * m.seconds, &e))
        die("peaks", &e);
    printf("peaks: f32 %.0f GFLOP/s (%s), bf16 %.0f GFLOP/s (%s), read %.1f GB/s\n",
           m.peaks.f32 * 1e-9, m.peaks.f32_by, m.peaks.bf16 * 1e-9, m.peaks.bf16_by,
           m.peaks.read * 1e-9);
    for (int i = 0; i < folders; i++)
        bench_folder(&m, folder[i]);
    bench_random(&m);
    tt_stream_close(m.stream);
    return 0;
}
