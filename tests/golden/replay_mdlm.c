/* replay_mdlm.c - tensors and traces of MDLM, with and without time conditioning. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/timestep.h"
#include "models/nn/trunk_model.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

/* The checkpoint once more with time_conditioning set the other way. */
static bool open_timed(bench *b, tt_config **config)
{
    tt_err e = {0};
    cJSON *root = read_json(b, "config.json");
    cJSON_DeleteItemFromObject(root, "time_conditioning");
    cJSON_AddTrueToObject(root, "time_conditioning");
    char *text = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    tt_status s = text ? tt_config_open_text(config, text, strlen(text), &e)
                       : tt_fail(&e, TT_EFORMAT, "config.json cannot be read");
    free(text);
    if (!s)
        s = b->model->def->open(&b->timed, b->stream, b->weights, *config, TT_WEIGHTS_F32, NULL,
                                NULL, &e);
    if (s)
        report(b, "time conditioned model", false, e.text);
    return !s;
}

/* Both sequences in one pass, each at its own noise level. */
static tt_status run_two(tt_model *m, const int64_t *ids, const float *sigma, int32_t n,
                         float *logits, float *hidden, tt_err *e)
{
    int32_t *id = calloc((size_t)n * 4, sizeof *id), *column = id + 2 * n;
    tt_want *want = calloc((size_t)n * 2, sizeof *want);
    tt_row_stats *stats = calloc((size_t)n * 2, sizeof *stats);
    tt_pass_seq seq[2];
    for (int32_t i = 0; i < 2 * n; i++) {
        id[i] = (int32_t)ids[i];
        column[i] = i % n;
        want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    }
    for (int i = 0; i < 2; i++)
        seq[i] = (tt_pass_seq){.row = i * n, .rows = n, .see_end = n, .sigma = sigma[i]};
    tt_pass pass = {.rows = 2 * n,
                    .id = id,
                    .position = column,
                    .column = column,
                    .seqs = 2,
                    .seq = seq,
                    .wants = 2 * n,
                    .want = want,
                    .stats = stats,
                    .logits = logits,
                    .hidden = hidden};
    tt_status s = tt_model_run(m, &pass, e);
    free(id);
    free(want);
    free(stats);
    return s;
}

/* PREFIX.logits and PREFIX.hidden.N. The reference's last hidden state is taken before the final
 * norm and shows in the logits alone. */
static void level_tensors(bench *b, tt_model *m, const char *prefix)
{
    char name[40];
    int64_t n = 0, two = 0;
    tt_err e = {0};
    const int64_t *ids = integers(b, "input_ids", &n);
    snprintf(name, sizeof name, "%s.sigma", prefix);
    const float *sigma = expect(b, name, &two);
    if (!ids || !sigma || two != 2) {
        report(b, name, false, "is missing in expected.safetensors");
        return;
    }
    const tt_model_info *info = &m->info;
    float *logits = calloc((size_t)(n * info->vocab), sizeof *logits);
    float *hidden = calloc((size_t)((info->layers + 1) * n * info->width), sizeof *hidden);
    /* A pass that keeps hidden states does not pack the last layer's rows; one without does. */
    for (int packed = 0; packed < 2; packed++) {
        snprintf(name, sizeof name, "%s.logits", prefix);
        if (run_two(m, ids, sigma, (int32_t)(n / 2), logits, packed ? NULL : hidden, &e))
            report(b, name, false, e.text);
        else
            compare(b, name, logits);
    }
    for (int64_t i = 1; i < info->layers; i++) {
        snprintf(name, sizeof name, "%s.hidden.%lld", prefix, (long long)i);
        compare(b, name, hidden + i * n * info->width);
    }
    free(logits);
    free(hidden);
}

/* log_probs of the substitution parameterisation at noise level 0, from the model's logits: the
 * mask's is lowered by a million, known columns are certain. */
static void subs_tensors(bench *b)
{
    int64_t n = 0, vocab = b->model->info.vocab, mask = b->model->info.mask_id;
    tt_err e = {0};
    const int64_t *ids = integers(b, "input_ids", &n);
    float *logits = calloc((size_t)(n * vocab), sizeof *logits);
    const float zero[2] = {0, 0};
    if (!ids || run_two(b->model, ids, zero, (int32_t)(n / 2), logits, NULL, &e)) {
        report(b, "subs.log_probs", false, ids ? e.text : "inputs are missing");
        free(logits);
        return;
    }
    for (int64_t r = 0; r < n; r++) {
        float *l = logits + r * vocab;
        double sum = 0;
        for (int64_t i = 0; i < vocab; i++)
            sum += i == mask ? 0 : exp((double)l[i]);
        l[mask] -= 1e6f;
        for (int64_t i = 0; i < vocab; i++)
            l[i] = ids[r] == mask ? (float)(l[i] - log(sum)) : i == ids[r] ? 0 : -1e6f;
    }
    compare(b, "subs.log_probs", logits);
    free(logits);
}

/* The embedding of two noise levels, and the condition of three: the reference's sigma_map ends
 * before the last silu. */
static void condition_tensors(bench *b)
{
    static const float embedded[2] = {0.35f, 2.7f}, mapped[3] = {0, 0.35f, 2.7f};
    const tt_modulation *m = &((tt_trunk_model *)b->timed)->trunk.modulation;
    float time[2 * 256], *have = calloc((size_t)(3 * m->width), sizeof *have);
    int64_t n = 0;
    const float *want = expect(b, "sigma_map", &n);
    for (int i = 0; i < 2; i++)
        tt_timestep_embedding(time + i * 256, embedded[i], 256);
    compare(b, "timestep_embedding", time);
    double off = 0, norm = 0;
    for (int i = 0; i < 3; i++)
        m->condition(m->arg, mapped[i], have + i * m->width);
    for (int64_t i = 0; i < n && n == 3 * m->width; i++) {
        double silu = want[i] / (1 + exp(-(double)want[i]));
        off += (have[i] - silu) * (have[i] - silu);
        norm += silu * silu;
    }
    report(b, "sigma_map", norm > 0 && sqrt(off / norm) < 1e-5, "the condition differs");
    free(have);
}

int tt_replay_mdlm(const char *dir, const char *case_glob, const char *device, int *passed,
                   int *failed)
{
    bench b = {.dir = dir, .glob = case_glob};
    tt_config *config = NULL;
    bool open = bench_open(&b, device) && open_timed(&b, &config);
    if (open && !fnmatch(case_glob, "tensors", 0) && bench_expect(&b)) {
        level_tensors(&b, b.model, "sigma0");
        level_tensors(&b, b.timed, "sigma");
        subs_tensors(&b);
        condition_tensors(&b);
    }
    if (open)
        replay_traces(&b, "traces.json", true);
    tt_model_close(b.timed);
    tt_config_close(config);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
