/* replay_llada.c - tensors and traces of the LLaDA family. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

/* --- tensors --- */

/* Left-padded rows: padding columns are fed but seen by nobody. */
static void padded_tensors(bench *b)
{
    int64_t n = 0, masks = 0;
    tt_err e;
    const int64_t *ids = integers(b, "padded.input_ids", &n);
    const int64_t *mask = integers(b, "padded.attention_mask", &masks);
    if (!ids || !mask) {
        report(b, "padded", false, "inputs are missing in expected.safetensors");
        return;
    }
    int32_t columns = (int32_t)(n / 2);
    float *logits = calloc((size_t)(n * b->model->info.vocab), sizeof *logits);
    bool ok = true;
    for (int r = 0; r < 2; r++) {
        int32_t first = 0;
        while (first < columns && !mask[r * columns + first])
            first++;
        forward_spec f = {.ids = ids + r * columns, .end = columns, .see_begin = first,
                          .see_end = columns};
        ok &= !forward(b, &f, logits + r * columns * b->model->info.vocab, NULL, &e);
    }
    if (ok)
        compare(b, "padded.logits", logits);
    else
        report(b, "padded.logits", false, e.text);
    free(logits);
}

/* A row of the store, whatever type it is kept in. */
static void read_row(tt_stream *s, float *row, const void *from, int64_t n)
{
    uint16_t half;
    s->op.download(s, row, from, (size_t)n * tt_dtype_size(s->act), NULL);
    s->op.sync(s, NULL);
    for (int64_t i = n - 1; i >= 0 && s->act == TT_BF16; i--) {
        memcpy(&half, (char *)row + 2 * i, sizeof half);
        row[i] = tt_bf16_to_f32(half);
    }
}

/* Expected keys come before the rotation and by head; ours are stored after it and by column. */
static void compare_store(bench *b, const tt_kv *kv)
{
    int64_t n = 0, nv = 0, hd = b->model->info.head_dim, heads = b->model->info.kv_heads;
    const float *k0 = expect(b, "cache.k0_prerope", &n), *v0 = expect(b, "cache.v0", &nv);
    if (!k0 || !v0 || n != nv) {
        report(b, "cache.k0_prerope", false, "is missing in expected.safetensors");
        return;
    }
    int64_t columns = n / hd / heads, half = hd / 2;
    float *k = calloc((size_t)n, sizeof *k), *v = calloc((size_t)n, sizeof *v);
    double theta = tt_config_float(b->config, "rope_theta", 10000, 1, 1e12);
    tt_stream *s = b->stream;
    float *row = calloc((size_t)kv->width, sizeof *row);
    for (int64_t c = 0; c < columns; c++) {
        read_row(s, row, tt_kv_key(kv, 0, (int32_t)c), kv->width);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < half; i++) { /* rotate back */
                double a = (double)c * pow(theta, -2.0 * (double)i / (double)hd);
                double x = row[h * hd + i], y = row[h * hd + i + half];
                k[(h * columns + c) * hd + i] = (float)(x * cos(a) + y * sin(a));
                k[(h * columns + c) * hd + i + half] = (float)(y * cos(a) - x * sin(a));
            }
        read_row(s, row, tt_kv_value(kv, 0, (int32_t)c), kv->width);
        for (int64_t h = 0; h < heads; h++)
            memcpy(v + (h * columns + c) * hd, row + h * hd, (size_t)hd * 4);
    }
    compare(b, "cache.k0_prerope", k);
    compare(b, "cache.v0", v);
    free(row);
    free(k);
    free(v);
}

static void replay_tensors(bench *b)
{
    if (!bench_expect(b))
        return;
    full_tensors(b);
    padded_tensors(b);
    cache_tensors(b, compare_store);
}

int tt_replay_llada(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed)
{
    bench b = {.dir = dir, .glob = case_glob};
    bool open = bench_open(&b, device);
    if (open && !fnmatch(case_glob, "tensors", 0))
        replay_tensors(&b);
    if (open) {
        replay_traces(&b, "traces.json", true);
        replay_traces(&b, "extra_traces.json", false);
        replay_traces(&b, "freecache_traces.json", false);
    }
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
