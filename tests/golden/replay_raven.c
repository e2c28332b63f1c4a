/* replay_raven.c - forwards and traces of recurrent-depth models. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/depth.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

/* True when n numbers agree within absolute + relative * |want|; else why says where not. */
static bool agree(const float *have, const float *want, int64_t n, double absolute,
                  double relative, const char *what, char *why, size_t size)
{
    for (int64_t i = 0; i < n; i++) {
        double off = fabs((double)have[i] - want[i]);
        if (!(off <= absolute + relative * fabs((double)want[i]))) {
            snprintf(why, size, "%s: number %lld is %.8g, expected %.8g", what, (long long)i,
                     have[i], want[i]);
            return false;
        }
    }
    return true;
}

typedef struct {
    const float *rows;
    int64_t width;
} recorded;

static void feed(void *arg, tt_draw_purpose purpose, int64_t first, int64_t rows, float *out)
{
    const recorded *r = arg;
    (void)purpose;
    memcpy(out, r->rows + first * r->width, (size_t)(rows * r->width) * sizeof *out);
}

/* One pass over all ids without a store, as often as steps says; a second sequence of another
 * depth goes along where mixed. */
static tt_status run_forward(bench *b, const int32_t *ids, int32_t n, const recorded *initial,
                             int32_t steps, bool mixed, float *logits, float *hidden, tt_err *e)
{
    int32_t extra = mixed ? n - 2 : 0, rows = n + extra;
    int32_t *id = calloc((size_t)rows * 2, sizeof *id), *column = id + rows;
    tt_want *want = calloc((size_t)n, sizeof *want);
    tt_row_stats *stats = calloc((size_t)n, sizeof *stats);
    tt_depth depth[2] = {{.recurrences = 3, .init_scale = 1, .seed = 7},
                         {.recurrences = steps, .draw = initial ? feed : NULL,
                          .draw_arg = (void *)(uintptr_t)initial}};
    tt_pass_seq seq[2] = {{.rows = extra, .see_end = extra, .see = TT_SEE_CAUSAL,
                           .depth = &depth[0]},
                          {.row = extra, .rows = n, .see_end = n, .see = TT_SEE_CAUSAL,
                           .depth = &depth[1]}};
    for (int32_t i = 0; i < rows; i++) {
        id[i] = i < extra ? ids[i] : ids[i - extra];
        column[i] = i < extra ? i : i - extra;
    }
    for (int32_t i = 0; i < n; i++)
        want[i] = (tt_want){.row = extra + i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    tt_pass pass = {.rows = rows, .id = id, .position = column, .column = column,
                    .seqs = mixed ? 2 : 1, .seq = mixed ? seq : seq + 1, .wants = n, .want = want,
                    .stats = stats, .logits = logits, .hidden = mixed ? NULL : hidden};
    tt_status s = tt_model_run(b->model, &pass, e);
    free(id);
    free(want);
    free(stats);
    return s;
}

static void forward_depth(bench *b, const int32_t *ids, int32_t n, int32_t steps, bool zero)
{
    const tt_model_info *m = &b->model->info;
    char name[64], why[256] = "";
    int64_t count = 0;
    tt_err e = {0};
    int64_t logit_count = n * m->vocab, width = n * m->width;
    float *logits = calloc((size_t)logit_count, sizeof *logits), *mixed = calloc(
        (size_t)logit_count, sizeof *mixed);
    float *hidden = calloc((size_t)(4 * width), sizeof *hidden);
    recorded initial = {expect(b, "forward.initial_state", &count), m->width};
    const recorded *from = zero ? NULL : &initial;
    snprintf(name, sizeof name, "forward.%sr%02d.logits", zero ? "zero." : "", steps);
    const float *want = expect(b, name, &count);
    bool ok = want && count == logit_count;
    if (!ok)
        snprintf(why, sizeof why, "is missing in tensors.safetensors");
    if (ok && (run_forward(b, ids, n, from, steps, false, logits, hidden, &e) ||
               run_forward(b, ids, n, from, steps, true, mixed, NULL, &e))) {
        ok = false;
        snprintf(why, sizeof why, "%s", e.text);
    }
    ok = ok && agree(logits, want, logit_count, 2e-4, 1e-4, "logits", why, sizeof why);
    if (ok && memcmp(logits, mixed, (size_t)logit_count * sizeof *logits)) {
        ok = false;
        snprintf(why, sizeof why, "logits differ when another sequence is in the pass");
    }
    const float *prelude = expect(b, "forward.prelude_output", &count);
    ok = ok && agree(hidden, prelude, width, 5e-5, 0, "embedding", why, sizeof why);
    snprintf(name, sizeof name, "forward.r%02d.normed_latent", steps);
    const float *latent = expect(b, name, &count);
    ok = ok && (zero || agree(hidden + 3 * width, latent, width, 5e-5, 0, "normed latent", why,
                              sizeof why));
    snprintf(name, sizeof name, "forward%s.r%02d", zero ? ".zero" : "", steps);
    report(b, name, ok, why);
    free(logits);
    free(mixed);
    free(hidden);
}

static void replay_forward(bench *b, const cJSON *root)
{
    int32_t ids[64], n = 0;
    const cJSON *j, *list = cJSON_GetObjectItemCaseSensitive(root, "input_ids");
    cJSON_ArrayForEach(j, list)
        if (n < 64)
            ids[n++] = j->valueint;
    cJSON_ArrayForEach(j, cJSON_GetObjectItemCaseSensitive(root, "num_steps")) {
        forward_depth(b, ids, n, j->valueint, false);
        if (j->valueint <= 8)
            forward_depth(b, ids, n, j->valueint, true);
    }
}

int tt_replay_raven(const char *dir, const char *case_glob, const char *device, int *passed,
                    int *failed)
{
    char model[4096], tensors[4096];
    snprintf(model, sizeof model, "%s/model", dir);
    snprintf(tensors, sizeof tensors, "%s/tensors.safetensors", dir);
    bench b = {.dir = dir, .glob = case_glob, .model_dir = model};
    tt_err e = {0};
    bool open = bench_open(&b, device);
    if (open && tt_weights_open_file(&b.expected, tensors, &e)) {
        report(&b, "tensors.safetensors", false, e.text);
        open = false;
    }
    cJSON *root = open ? read_json(&b, "cases.json") : NULL, *j;
    if (open && !root)
        report(&b, "cases.json", false, "cannot be read");
    cJSON_ArrayForEach(j, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        const char *name = cJSON_GetObjectItemCaseSensitive(j, "name")->valuestring;
        if (fnmatch(case_glob, name, 0))
            continue;
        if (!strcmp(name, "forward"))
            replay_forward(&b, j);
    }
    cJSON_Delete(root);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
