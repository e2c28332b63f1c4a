/* bench.c - see bench.h. */
#include "tests/golden/bench.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tt_weights_mode bench_weights = TT_WEIGHTS_F32;
double bench_tolerance = 1e-5;

bool bench_open(bench *b, const char *device)
{
    tt_err e;
    tt_status s = tt_stream_open(&b->stream, device, 1, &e);
    if (!s)
        s = tt_model_open(&b->model, &b->weights, &b->config, b->stream,
                          b->model_dir ? b->model_dir : b->dir, bench_weights, NULL, NULL, &e);
    if (s)
        report(b, "model", false, e.text);
    return !s;
}

bool bench_expect(bench *b)
{
    char path[4096];
    tt_err e;
    snprintf(path, sizeof path, "%s/expected.safetensors", b->dir);
    tt_status s = tt_weights_open_file(&b->expected, path, &e);
    if (s)
        report(b, "expected.safetensors", false, e.text);
    return !s;
}

void bench_close(bench *b)
{
    tt_model_close(b->model);
    tt_weights_close(b->expected);
    tt_weights_close(b->weights);
    tt_config_close(b->config);
    tt_stream_close(b->stream);
}

void report(bench *b, const char *name, bool ok, const char *why)
{
    if (ok) {
        b->passed++;
    } else {
        b->failed++;
        printf("FAIL %s/%s: %s\n", b->dir, name, why);
    }
}

static double relative_l2(const float *have, const float *want, int64_t n)
{
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)have[i] - want[i];
        diff += isfinite(d) ? d * d : INFINITY;
        norm += (double)want[i] * want[i];
    }
    return sqrt(diff / norm);
}

const float *expect(bench *b, const char *name, int64_t *n)
{
    tt_tensor t = {0};
    const char *have;
    for (size_t i = 0; (have = tt_weights_name(b->expected, i, &t)); i++)
        if (!strcmp(have, name))
            break;
    if (!have)
        return NULL;
    *n = tt_tensor_count(&t);
    return t.data;
}

void compare(bench *b, const char *name, const float *have)
{
    int64_t n = 0;
    const float *want = expect(b, name, &n);
    char why[100] = "is missing in expected.safetensors";
    double error = want ? relative_l2(have, want, n) : INFINITY;
    double allowed = bench_tolerance * (b->routes && bench_weights == TT_WEIGHTS_BF16 ? 3 : 1);
    if (want)
        snprintf(why, sizeof why, "relative L2 error %.3g, allowed %g", error, allowed);
    report(b, name, error < allowed, why);
}

const int64_t *integers(bench *b, const char *name, int64_t *n)
{
    return (const int64_t *)(const void *)expect(b, name, n);
}

tt_status forward(bench *b, const forward_spec *f, float *logits, float *hidden, tt_err *e)
{
    int32_t n = f->end - f->begin;
    int32_t *id = calloc((size_t)n * 3, sizeof *id), *column = id + n, *position = column + n;
    tt_want *want = calloc((size_t)n, sizeof *want);
    tt_row_stats *stats = calloc((size_t)n, sizeof *stats);
    for (int32_t i = 0; i < n; i++) {
        id[i] = (int32_t)f->ids[f->begin + i];
        column[i] = f->begin + i;
        position[i] = f->position ? (int32_t)f->position[f->begin + i] : column[i];
        want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.target = -1}};
    }
    tt_pass_seq seq = {.rows = n, .see_begin = f->see_begin, .see_end = f->see_end, .see = f->see,
                       .block = f->block, .sigma = f->sigma, .kv = f->kv};
    tt_pass pass = {.rows = n, .id = id, .position = position, .column = column, .seqs = 1,
                    .seq = &seq, .wants = n, .want = want, .stats = stats, .logits = logits,
                    .hidden = hidden};
    tt_status s = tt_model_run(b->model, &pass, e);
    free(id);
    free(want);
    free(stats);
    return s;
}

void full_tensors(bench *b) { full_block_tensors(b, 0); }

void full_block_tensors(bench *b, int32_t block)
{
    int64_t n = 0;
    tt_err e;
    const int64_t *ids = integers(b, "full.input_ids", &n);
    const tt_model_info *m = &b->model->info;
    if (!ids) {
        report(b, "full.input_ids", false, "is missing in expected.safetensors");
        return;
    }
    float *logits = calloc((size_t)(n * m->vocab), sizeof *logits);
    forward_spec f = {.ids = ids, .end = (int32_t)n, .see_end = (int32_t)n,
                      .see = block ? TT_SEE_BLOCK : TT_SEE_ALL, .block = block};
    float *hidden = calloc((size_t)((m->layers + 1) * n * m->width), sizeof *hidden);
    if (forward(b, &f, logits, hidden, &e)) {
        report(b, "full", false, e.text);
    } else {
        compare(b, "full.logits", logits);
        for (int64_t i = 0; i <= m->layers; i++) {
            char name[40];
            snprintf(name, sizeof name, "full.hidden.%lld", (long long)i);
            compare(b, name, hidden + i * n * m->width);
        }
    }
    free(logits);
    free(hidden);
}

void cache_tensors(bench *b, void (*filled)(bench *b, const tt_kv *kv))
{
    int64_t n = 0, m = 0, two = 0;
    tt_err e;
    const int64_t *ids = integers(b, "full.input_ids", &n);
    const int64_t *edited = integers(b, "cache.edited_ids", &m);
    const int64_t *block = integers(b, "cache.block", &two);
    if (!ids || !edited || !block || n != m || two != 2) {
        report(b, "cache", false, "inputs are missing in expected.safetensors");
        return;
    }
    float *logits = calloc((size_t)(n * b->model->info.vocab), sizeof *logits);
    for (int dual = 0; dual < 2; dual++) {
        tt_kv *kv;
        const char *name = dual ? "cache.dual_logits" : "cache.prefix_logits";
        forward_spec all = {.ids = ids, .end = (int32_t)n, .see_end = (int32_t)n};
        forward_spec part = {.ids = edited, .begin = (int32_t)block[0],
                             .end = dual ? (int32_t)block[1] : (int32_t)n, .see_end = (int32_t)n};
        tt_status s = tt_kv_open(&kv, b->model, (int32_t)n, &e);
        all.kv = part.kv = kv;
        if (!s)
            s = forward(b, &all, logits, NULL, &e);
        if (!s && !dual && filled)
            filled(b, kv);
        if (!s)
            s = forward(b, &part, logits, NULL, &e);
        if (s)
            report(b, name, false, e.text);
        else
            compare(b, name, logits);
        tt_kv_close(kv);
    }
    free(logits);
}

cJSON *read_json(const bench *b, const char *file)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", b->dir, file);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = calloc((size_t)size + 1, 1);
    size_t n = fread(text, 1, (size_t)size, f);
    fclose(f);
    cJSON *root = n == (size_t)size ? cJSON_Parse(text) : NULL;
    free(text);
    return root;
}
