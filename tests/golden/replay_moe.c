/* replay_moe.c - tensors and traces of the families with mixtures of experts. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/trunk_model.h"
#include "models/nn/trunk_run.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

/* Device memory of a layer's MLP run by itself. */
typedef struct {
    tt_trunk_space v;
    tt_act *out; /* rows x width */
    void *all;
} bed;

static tt_status make_bed(bench *b, const tt_trunk *t, const float *in, int64_t rows, bed *d)
{
    tt_stream *s = b->stream;
    size_t n = (size_t)rows, w = (size_t)t->width, k = (size_t)t->router.top_k, at = 0;
    size_t shared = (size_t)t->shared_ff, ff = (size_t)t->expert_ff;
    size_t size[] = {n * w,     n * w,          n * 2 * shared,
                     n * k * w, n * k * 2 * ff, n * k,
                     n * k,     n * k,          (size_t)t->router.experts + 1};
    enum { PIECES = sizeof size / sizeof *size };
    size_t total = 0;
    void *piece[PIECES];
    for (int i = 0; i < PIECES; i++)
        total += (size[i] + 15) / 16 * 64;
    tt_status st = s->op.alloc(s, &d->all, total, NULL);
    if (st)
        return st;
    for (int i = 0; i < PIECES; at += (size[i++] + 15) / 16 * 64)
        piece[i] = (char *)d->all + at;
    d->v = (tt_trunk_space){.h = piece[1],
                            .mlp = piece[2],
                            .pair_x = piece[3],
                            .pair_y = piece[4],
                            .pair_weight = piece[5],
                            .pair_place = piece[6],
                            .pair_row = piece[7],
                            .expert_begin = piece[8]};
    d->out = piece[0];
    float *zeros = calloc(n * w, sizeof *zeros);
    st = s->op.upload(s, d->v.h, in, n * w * sizeof *in, NULL);
    if (!st)
        st = s->op.upload(s, d->out, zeros, n * w * sizeof *zeros, NULL);
    st = st ? st : s->op.sync(s, NULL);
    free(zeros);
    return st;
}

static void download(bench *b, void *host, const void *from, size_t bytes)
{
    b->stream->op.download(b->stream, host, from, bytes, NULL);
    b->stream->op.sync(b->stream, NULL);
}

/* The weight of every expert in every row; zero where it was not chosen. */
static void spread_ours(bench *b, const tt_trunk *t, const bed *d, int64_t rows, float *out)
{
    int64_t k = t->router.top_k, experts = t->router.experts;
    float *weight = calloc((size_t)(rows * k), sizeof *weight);
    int32_t *place = calloc((size_t)(rows * k), sizeof *place);
    int32_t *begin = calloc((size_t)experts + 1, sizeof *begin);
    download(b, weight, d->v.pair_weight, (size_t)(rows * k) * 4);
    download(b, place, d->v.pair_place, (size_t)(rows * k) * 4);
    download(b, begin, d->v.expert_begin, (size_t)(experts + 1) * 4);
    for (int64_t i = 0; i < rows * k; i++) {
        int64_t e = 0;
        while (begin[e + 1] <= place[i])
            e++;
        out[i / k * experts + e] = weight[i];
    }
    free(weight);
    free(place);
    free(begin);
}

/* Cases PREFIX.experts and PREFIX.weights (one comparison of the spread weights answers both) and
 * PREFIX.out, of the MLP of one layer by itself, in float32. */
static void layer_tensors(bench *b, int64_t layer, const char *in_name, const char *out_name,
                          const char *experts_name, const char *weights_name)
{
    if (bench_weights != TT_WEIGHTS_F32)
        return;
    tt_trunk *t = &((tt_trunk_model *)b->model)->trunk;
    int64_t n = 0, pairs = 0, same = 0;
    const float *in = expect(b, in_name, &n), *weights = expect(b, weights_name, &pairs);
    const int64_t *chosen = integers(b, experts_name, &same);
    if (!in || !weights || !chosen || pairs != same) {
        report(b, in_name, false, "is missing in expected.safetensors");
        return;
    }
    int64_t rows = n / t->width, k = t->router.top_k, experts = t->router.experts;
    bed d = {0};
    tt_err e = {0};
    float *have = calloc((size_t)(rows * experts), sizeof *have);
    float *want = calloc((size_t)(rows * experts), sizeof *want);
    float *out = calloc((size_t)n, sizeof *out);
    tt_status st = make_bed(b, t, in, rows, &d);
    tt_trunk_rows q = {.rows = rows, .x = d.out};
    b->stream->act = t->act;
    if (!st)
        st = tt_trunk_mlp(t, layer, &q, &d.v, &e);
    if (st) {
        report(b, out_name, false, e.text);
    } else {
        download(b, out, d.out, (size_t)n * sizeof *out);
        compare(b, out_name, out);
        spread_ours(b, t, &d, rows, have);
        double off = 0;
        for (int64_t i = 0; i < rows * k; i++)
            want[i / k * experts + chosen[i]] = weights[i];
        for (int64_t i = 0; i < rows * experts; i++)
            off = fmax(off, fabs((double)have[i] - want[i]));
        char why[60];
        snprintf(why, sizeof why, "a router weight is off by %.3g", off);
        report(b, weights_name, off < 1e-5, why);
    }
    b->stream->op.release(b->stream, d.all);
    free(have);
    free(want);
    free(out);
}

int tt_replay_llada_moe(const char *dir, const char *case_glob, const char *device, int *passed,
                        int *failed)
{
    bench b = {.dir = dir, .glob = case_glob, .routes = true};
    bool open = bench_open(&b, device);
    if (open && !fnmatch(case_glob, "tensors", 0) && bench_expect(&b)) {
        full_tensors(&b);
        layer_tensors(&b, 0, "layer0.mlp.in", "layer0.mlp.out", "layer0.router.experts",
                      "layer0.router.weights");
    }
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}

/* The released config names no mask; the traces do. */
static void take_mask(bench *b)
{
    cJSON *root = read_json(b, "traces.json");
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(root, "mask_id");
    if (b->model->info.mask_id < 0 && cJSON_IsNumber(id))
        b->model->info.mask_id = id->valueint;
    cJSON_Delete(root);
}

int tt_replay_llada2_moe(const char *dir, const char *case_glob, const char *device, int *passed,
                         int *failed)
{
    bench b = {.dir = dir, .glob = case_glob, .routes = true};
    bool open = bench_open(&b, device);
    if (open && !fnmatch(case_glob, "tensors", 0) && bench_expect(&b)) {
        int64_t n = 0;
        const int64_t *block = integers(&b, "full.block_length", &n);
        if (block)
            full_block_tensors(&b, (int32_t)*block);
        else
            report(&b, "full.block_length", false, "is missing in expected.safetensors");
        layer_tensors(&b, 1, "moe.in", "moe.out", "moe.experts", "moe.weights");
    }
    if (open) {
        take_mask(&b);
        replay_traces(&b, "traces.json", true);
    }
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
