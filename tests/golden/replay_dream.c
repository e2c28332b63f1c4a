/* replay_dream.c - tensors and traces of Dream, and of its body run causally. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

/* Column c's distribution is row c - 1's; column 0 keeps its own row. */
static void shifted_logits(bench *b)
{
    int64_t n = 0, vocab = b->model->info.vocab;
    tt_err e;
    const int64_t *ids = integers(b, "full.input_ids", &n);
    float *raw = calloc((size_t)(n * vocab), sizeof *raw);
    float *moved = calloc((size_t)(n * vocab), sizeof *moved);
    forward_spec f = {.ids = ids, .end = (int32_t)n, .see_end = (int32_t)n};
    if (!ids || forward(b, &f, raw, NULL, &e)) {
        report(b, "full.shifted_logits", false, ids ? e.text : "inputs are missing");
    } else {
        for (int64_t c = 0; c < n; c++) {
            int64_t from = c >= b->model->info.row_shift ? c - b->model->info.row_shift : c;
            memcpy(moved + c * vocab, raw + from * vocab, (size_t)vocab * sizeof *raw);
        }
        compare(b, "full.shifted_logits", moved);
    }
    free(raw);
    free(moved);
}

static void model_logits(bench *b, const char *ids_name, const char *logits_name, tt_see see)
{
    int64_t n = 0;
    tt_err e;
    const int64_t *ids = integers(b, ids_name, &n);
    float *logits = calloc((size_t)(n * b->model->info.vocab + 1), sizeof *logits);
    forward_spec f = {.ids = ids, .end = (int32_t)n, .see_end = (int32_t)n,
                      .see = see};
    if (!ids || forward(b, &f, logits, NULL, &e))
        report(b, logits_name, false, ids ? e.text : "inputs are missing");
    else
        compare(b, logits_name, logits);
    free(logits);
}

/* Rows are run without their padding, at the positions given; logits of padding are zeros. */
static void padded_logits(bench *b)
{
    int64_t n = 0, masks = 0, positions = 0, vocab = b->model->info.vocab;
    tt_err e;
    const int64_t *ids = integers(b, "padded.input_ids", &n);
    const int64_t *mask = integers(b, "padded.attention_mask", &masks);
    const int64_t *position = integers(b, "padded.position_ids", &positions);
    if (!ids || !mask || !position || n != masks || n != positions) {
        report(b, "padded.logits", false, "inputs are missing in expected.safetensors");
        return;
    }
    int64_t columns = n / 2;
    float *logits = calloc((size_t)(n * vocab), sizeof *logits);
    tt_status s = TT_OK;
    for (int64_t r = 0; r < 2 && !s; r++) {
        int64_t first = 0;
        while (first < columns && !mask[r * columns + first])
            first++;
        int64_t at = r * columns + first;
        forward_spec f = {.ids = ids + at, .end = (int32_t)(columns - first),
                          .see_end = (int32_t)(columns - first), .position = position + at};
        s = forward(b, &f, logits + at * vocab, NULL, &e);
    }
    if (s)
        report(b, "padded.logits", false, e.text);
    else
        compare(b, "padded.logits", logits);
    free(logits);
}

/* PREFIX.input_ids through a model gives PREFIX.logits. */
static void prefixed_logits(bench *b, tt_model *m, const char *prefix, tt_see see)
{
    char ids[40], logits[40];
    snprintf(ids, sizeof ids, "%s.input_ids", prefix);
    snprintf(logits, sizeof logits, "%s.logits", prefix);
    tt_model *own = b->model;
    b->model = m;
    model_logits(b, ids, logits, see);
    b->model = own;
}

/* A diffusion model in dlm/, its causal guide in guide/. */
int tt_replay_guided(const char *dir, const char *case_glob, const char *device, int *passed,
                     int *failed)
{
    char model[4096], guide[4096];
    snprintf(model, sizeof model, "%s/dlm", dir);
    snprintf(guide, sizeof guide, "%s/guide", dir);
    bench b = {.dir = dir, .model_dir = model, .glob = case_glob}, g = b;
    tt_err e;
    bool open = bench_open(&b, device);
    if (open && tt_model_open(&g.model, &g.weights, &g.config, b.stream, guide, TT_WEIGHTS_F32,
                              NULL, NULL, &e)) {
        report(&b, "guide", false, e.text);
        open = false;
    }
    b.guide = g.model;
    if (open && !fnmatch(case_glob, "tensors", 0) && bench_expect(&b)) {
        prefixed_logits(&b, b.model, "dlm", TT_SEE_ALL);
        prefixed_logits(&b, g.model, "guide", TT_SEE_CAUSAL);
    }
    if (open)
        replay_traces(&b, "traces.json", true);
    tt_model_close(g.model);
    tt_weights_close(g.weights);
    tt_config_close(g.config);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}

int tt_replay_dream(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed)
{
    bench b = {.dir = dir, .glob = case_glob};
    bool open = bench_open(&b, device);
    if (open && !fnmatch(case_glob, "tensors", 0) && bench_expect(&b)) {
        full_tensors(&b);
        shifted_logits(&b);
        padded_logits(&b);
        model_logits(&b, "full.input_ids", "causal.logits", TT_SEE_CAUSAL);
        cache_tensors(&b, NULL);
    }
    if (open) {
        replay_traces(&b, "traces.json", true);
        replay_traces(&b, "freecache_traces.json", false);
    }
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
