/* replay_insertion.c - tensors and traces of insertion language models: every row of a case alone,
 * and all rows of the file in one mixed batch that they join at different steps. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/batcher.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

enum { MAX_TRIALS = 256, MAX_ROWS = 4096 };

typedef struct {
    bench with_stopping, with_length;
    tt_model *headless; /* the first one's weights without its classifier */
    tt_config *headless_config;
    tt_weights *uniforms;
} folder;

/* A row of a case. */
typedef struct {
    char name[96];
    tt_params params;
    tt_run_spec spec;
    tt_run run;
    int32_t *id;
    uint8_t *open;
    const cJSON *steps, *final;
    int row, at, join;
    bool bad;
    char why[280];
    /* Recorded noise: how many uniform tensors a step takes, and where the step's begin. */
    const cJSON *tensors;
    tt_weights *uniforms;
    int per_step;
    int32_t given;   /* tokens stored before the first step */
    float *noise[2]; /* of the present step's places and tokens */
} trial;

static const cJSON *member(const cJSON *o, const char *name)
{
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

static double number(const cJSON *o, const char *name, double fallback)
{
    const cJSON *j = member(o, name);
    return cJSON_IsNumber(j) ? j->valuedouble : cJSON_IsTrue(j) ? 1 : fallback;
}

static const char *text(const cJSON *o, const char *name)
{
    const cJSON *j = member(o, name);
    return cJSON_IsString(j) ? j->valuestring : "";
}

/* --- tensors --- */

static const float *tensor(const tt_weights *w, const char *prefix, const char *name, int64_t *n)
{
    tt_tensor t;
    char full[80];
    const char *have;
    snprintf(full, sizeof full, "%s%s%s", prefix, *prefix ? "." : "", name);
    for (size_t i = 0; (have = tt_weights_name(w, i, &t)); i++)
        if (!strcmp(have, full)) {
            *n = tt_tensor_count(&t);
            return t.data;
        }
    return NULL;
}

static bool near(float have, float want) { return fabs(have - want) <= 2e-4 + 1e-4 * fabs(want); }

/* The batch in reading order, rows without padding one after the other. */
typedef struct {
    int32_t id[MAX_ROWS], position[MAX_ROWS], source[MAX_ROWS]; /* source: place in the file */
    tt_pass_seq seq[64];
    int64_t class_row[64];
    int64_t rows, seqs;
} inputs;

static void read_inputs(const tt_weights *w, inputs *in)
{
    int64_t n = 0;
    tt_tensor t = {0};
    const int64_t *id = (const void *)tensor(w, "", "input_ids", &n);
    const int64_t *mask = (const void *)tensor(w, "", "attention_mask", &n);
    const int64_t *position = (const void *)tensor(w, "", "positions", &n);
    const char *name;
    for (size_t i = 0; (name = tt_weights_name(w, i, &t)); i++)
        if (!strcmp(name, "input_ids"))
            break;
    int64_t width = t.dim[1];
    for (int64_t r = 0; r < t.dim[0]; r++) {
        int64_t rows = 0, first = in->rows;
        for (int64_t c = 0; c < width; c++)
            rows += mask[r * width + c] != 0;
        for (int64_t c = 0; c < width; c++) {
            int64_t at = r * width + c, to = first + position[at];
            if (!mask[at])
                continue;
            in->id[to] = (int32_t)id[at];
            in->position[to] = (int32_t)position[at];
            in->source[to] = (int32_t)at;
        }
        in->class_row[in->seqs] = first;
        in->seq[in->seqs++] = (tt_pass_seq){.row = first, .rows = rows, .see_end = (int32_t)rows};
        in->rows += rows;
    }
}

static bool compare_rows(const inputs *in, const float *have, const float *want, int64_t dim,
                         bool of_sequences, char why[120])
{
    int64_t n = of_sequences ? in->seqs : in->rows;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < dim; i++) {
            int64_t from = of_sequences ? r : in->source[r];
            if (near(have[r * dim + i], want[from * dim + i]))
                continue;
            snprintf(why, 120, "row %lld, element %lld: %g, expected %g", (long long)r,
                     (long long)i, (double)have[r * dim + i], (double)want[from * dim + i]);
            return false;
        }
    return true;
}

static void check_tensor(bench *b, const tt_weights *w, const inputs *in, const char *prefix,
                         const char *what, const float *have, int64_t dim, bool of_sequences)
{
    int64_t n = 0;
    char name[80], why[120] = "is missing in forward.safetensors";
    const float *want = tensor(w, prefix, what, &n);
    bool good = want && compare_rows(in, have, want, dim, of_sequences, why);
    snprintf(name, sizeof name, "%s.%s", prefix, what);
    report(b, name, good, why);
}

/* Hidden states make the last layer run on all rows; without them its rows are packed. */
static void forward_tensors(bench *b, const tt_weights *w, const inputs *in, const char *prefix,
                            bool packed)
{
    const tt_model_info *info = &b->model->info;
    size_t rows = (size_t)in->rows;
    tt_want *want = calloc(rows, sizeof *want);
    tt_row_stats *stats = calloc(rows, sizeof *stats);
    float *logits = calloc(rows * (size_t)info->vocab, sizeof *logits);
    float *hidden = calloc((size_t)(info->layers + 1) * rows * (size_t)info->width, sizeof *hidden);
    float *classes = calloc((size_t)in->seqs * (size_t)info->classes, sizeof *classes);
    for (size_t r = 0; r < rows; r++)
        want[r] = (tt_want){.row = (int64_t)r, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
    tt_pass pass = {.rows = in->rows,
                    .id = in->id,
                    .position = in->position,
                    .column = in->position,
                    .seqs = in->seqs,
                    .seq = in->seq,
                    .wants = in->rows,
                    .want = want,
                    .stats = stats,
                    .logits = logits,
                    .hidden = packed ? NULL : hidden,
                    .classified = in->seqs,
                    .class_row = in->class_row,
                    .classes = classes};
    tt_err e = {0};
    int64_t n = 0;
    if (tt_model_run(b->model, &pass, &e)) {
        report(b, prefix, false, e.text);
    } else {
        check_tensor(b, w, in, prefix, "vocab_logits", logits, info->vocab, false);
        check_tensor(b, w, in, prefix, "class_logits", classes, info->classes, true);
        if (!packed && tensor(w, prefix, "hidden", &n))
            check_tensor(b, w, in, prefix, "hidden",
                         hidden + info->layers * in->rows * info->width, info->width, false);
    }
    free(want);
    free(stats);
    free(logits);
    free(hidden);
    free(classes);
}

static void replay_tensors(folder *f, const char *dir)
{
    char path[4096];
    tt_err e = {0};
    tt_weights *w;
    inputs *in = calloc(1, sizeof *in);
    snprintf(path, sizeof path, "%s/forward.safetensors", dir);
    if (tt_weights_open_file(&w, path, &e)) {
        report(&f->with_stopping, "forward.safetensors", false, e.text);
        free(in);
        return;
    }
    read_inputs(w, in);
    for (int packed = 0; packed < 2; packed++) {
        forward_tensors(&f->with_stopping, w, in, "stopping", packed);
        forward_tensors(&f->with_length, w, in, "length", packed);
    }
    tt_weights_close(w);
    free(in);
}

/* --- recorded noise --- */

static float gumbel(float u)
{
    return -logf(-logf(u + 1e-10f) + 1e-10f);
}

/* The row's part of the k-th uniform tensor of a step. */
static const float *uniforms(const trial *t, int32_t step, int k, int64_t *n)
{
    tt_tensor d = {0};
    const cJSON *name = cJSON_GetArrayItem(t->tensors, step * t->per_step + k);
    const char *have;
    for (size_t i = 0; name && (have = tt_weights_name(t->uniforms, i, &d)); i++)
        if (!strcmp(have, name->valuestring)) {
            *n = d.dim[1];
            return (const float *)d.data + t->row * d.dim[1];
        }
    return NULL;
}

/* Where the token of a reading position is stored upstream: those given first, in order, then the
 * inserted ones in the order of their insertion. */
static int32_t stored_at(const trial *t, int32_t row)
{
    int32_t place[MAX_ROWS], n = t->given;
    for (int32_t i = 0; i < n; i++)
        place[i] = i;
    for (int s = 0; s < t->at; s++) {
        const cJSON *e = cJSON_GetArrayItem(cJSON_GetArrayItem(t->steps, s), t->row);
        int32_t after = (int32_t)number(e, "insert_after_position", -1);
        memmove(place + after + 2, place + after + 1, (size_t)(n - after - 1) * sizeof *place);
        place[after + 1] = n++;
    }
    return row < n ? place[row] : 0;
}

static const float *given(const void *arg, int32_t step, tt_given draw, int32_t row)
{
    trial *t = (trial *)(uintptr_t)arg;
    bool tokens = draw == TT_GIVEN_TOKEN, joint = t->params.selection == TT_SELECT_JOINT;
    int64_t n = 0, vocab = t->spec.model->info.vocab, from = 0, count;
    const float *u = uniforms(t, step, tokens && !joint ? 1 : 0, &n);
    float *out = t->noise[tokens];
    bool ranks = (tokens ? t->params.top_k : t->params.position_top_k) > 0;
    if (joint && !ranks)
        from = stored_at(t, row) * vocab;
    count = joint && !ranks ? vocab : n;
    for (int64_t i = 0; i < count && u; i++) {
        int64_t at = !tokens && !ranks ? stored_at(t, (int32_t)i) : from + i;
        out[i] = gumbel(u[at]);
    }
    if (!u) {
        t->bad = true;
        snprintf(t->why, sizeof t->why, "step %d: no uniform numbers", step + 1);
    }
    return out;
}

/* --- cases --- */

static bool known(const cJSON *params, char *why, size_t size)
{
    static const char *const names[] = {
        "max_steps", "max_length", "stopping_threshold", "sampling_method", "top", "p",
        "second_sampling_method", "second_top", "second_p", "force_predict_first_step",
        "oracle_length", "stopping_temperature", NULL};
    const cJSON *j;
    cJSON_ArrayForEach(j, params)
    {
        int i = 0;
        while (names[i] && strcmp(names[i], j->string))
            i++;
        if (!names[i] && !cJSON_IsNull(j)) {
            snprintf(why, size, "parameter '%s' is not known", j->string);
            return false;
        }
    }
    return true;
}

/* One of the released methods as temperature, top_k and top_p; one best is greedy. */
static bool set_method(const char *method, int32_t top, double p, double *temperature,
                       int32_t *top_k, double *top_p)
{
    *temperature = 1;
    *top_k = 0;
    *top_p = 1;
    if (!strcmp(method, "sample_top_k")) {
        *temperature = top == 1 ? 0 : 1;
        *top_k = top;
    } else if (!strcmp(method, "sample_top_p")) {
        *top_p = p;
    } else {
        return !strcmp(method, "sample");
    }
    return true;
}

static bool set_params(trial *t, const cJSON *c)
{
    const cJSON *params = member(c, "params");
    tt_params *p = &t->params;
    tt_params_default(p);
    if (!known(params, t->why, sizeof t->why))
        return false;
    const char *second = text(params, "second_sampling_method");
    bool good = set_method(text(params, "sampling_method"), (int32_t)number(params, "top", 0),
                           number(params, "p", 1), &p->temperature, &p->top_k, &p->top_p);
    p->selection = *second ? TT_SELECT_TWO_STEP : TT_SELECT_JOINT;
    if (*second)
        good &= set_method(second, (int32_t)number(params, "second_top", 0),
                           number(params, "second_p", 1), &p->position_temperature,
                           &p->position_top_k, &p->position_top_p);
    if (!good)
        snprintf(t->why, sizeof t->why, "a sampling method is not known");
    p->stopping_threshold = number(params, "stopping_threshold",
                                   t->spec.model->info.stopping_threshold);
    p->stopping_temperature = number(params, "stopping_temperature", 1);
    p->max_steps = (int32_t)number(params, "max_steps", 0);
    p->force_predict_first_step = number(params, "force_predict_first_step", 0) != 0;
    p->oracle_length = (int32_t)number(params, "oracle_length", 0);
    t->per_step = *second ? 2 : 1;
    return good;
}

static int int_at(const cJSON *list, int i)
{
    return (int)cJSON_GetArrayItem(list, i)->valuedouble;
}

/* The tokens of the row, each followed by as much room as it may ever get where something may be
 * inserted. The tokens include [CLS] and [BOS]. */
static bool make_canvas(trial *t, const cJSON *c, const cJSON *params)
{
    const cJSON *in = member(c, "input");
    const cJSON *ids = cJSON_GetArrayItem(member(in, "input_ids"), t->row);
    const cJSON *mask = cJSON_GetArrayItem(member(in, "attention_mask"), t->row);
    const cJSON *types = cJSON_GetArrayItem(member(in, "token_type_ids"), t->row);
    const cJSON *closed = cJSON_GetArrayItem(member(in, "constraint"), t->row);
    int n = cJSON_GetArraySize(ids), tokens = 0;
    for (int i = 0; i < n; i++)
        tokens += int_at(mask, i) != 0;
    double most = number(params, "max_length", 1e6) - tokens;
    int room = (int)fmin(most, number(params, "max_steps", 0));
    if (room < 1)
        return false;
    t->given = n;
    t->id = calloc((size_t)(n * (room + 1)), sizeof *t->id);
    t->open = calloc((size_t)(n * (room + 1)), 1);
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (!int_at(mask, i))
            continue;
        t->id[at++] = int_at(ids, i);
        bool shut = closed ? int_at(closed, i) != 0 : int_at(types, i) == 0;
        for (int k = 0; k < room && !shut; k++)
            t->open[at++] = 1;
    }
    t->spec.id = t->id;
    t->spec.open = t->open;
    t->spec.columns = at;
    t->spec.prompt = 0;
    while (t->spec.prompt < at && !t->open[t->spec.prompt])
        t->spec.prompt++;
    return true;
}

static bool make_trial(folder *f, trial *t, const cJSON *c, int row)
{
    bool length = strstr(text(c, "model"), "model_length") != NULL;
    tt_model *m = !strcmp(text(c, "predictor"), "ILMPredictor") ? f->headless
                  : length ? f->with_length.model : f->with_stopping.model;
    snprintf(t->name, sizeof t->name, "%s[%d]", text(c, "name"), row);
    t->row = row;
    t->spec = (tt_run_spec){.sampler = tt_sampler_find("insertion"), .model = m,
                            .params = &t->params, .vocab = (int32_t)m->info.vocab};
    t->steps = member(c, "steps");
    t->final = cJSON_GetArrayItem(member(c, "final_sequences"), row);
    t->tensors = member(c, "uniform_tensors");
    t->uniforms = f->uniforms;
    if (!set_params(t, c))
        return false;
    if (t->tensors) {
        t->spec.noise = (tt_noise){.kind = TT_NOISE_GIVEN, .given = given, .given_arg = t};
        for (int i = 0; i < 2; i++)
            t->noise[i] = calloc(MAX_ROWS, sizeof(float));
    }
    if (make_canvas(t, c, member(c, "params")))
        return true;
    snprintf(t->why, sizeof t->why, "the row has no room");
    return false;
}

static void free_trial(trial *t)
{
    free(t->id);
    free(t->open);
    free(t->noise[0]);
    free(t->noise[1]);
}

/* --- running --- */

static int32_t sequence(const tt_seq *q, int32_t *out)
{
    int32_t n = 0;
    for (int32_t c = 0; c < q->columns; c++)
        if (!tt_seq_open_at(q, c))
            out[n++] = q->id[c];
    return n;
}

static bool same(const trial *t, const cJSON *want)
{
    int32_t have[MAX_ROWS], n = sequence(&t->run.seq, have);
    bool good = cJSON_GetArraySize(want) == n;
    for (int32_t i = 0; good && i < n; i++)
        good = int_at(want, i) == have[i];
    return good;
}

static void fail_at(trial *t, const char *what)
{
    t->bad = true;
    snprintf(t->why, sizeof t->why, "step %d: %s", t->at + 1, what);
}

/* The trace's entry of this step, if the row still predicts then. */
static const cJSON *expected(const trial *t)
{
    const cJSON *e = cJSON_GetArrayItem(cJSON_GetArrayItem(t->steps, t->at), t->row);
    return e && cJSON_IsTrue(member(e, "predict")) ? e : NULL;
}

static void start(trial *t)
{
    tt_err e = {0};
    t->at = 0;
    t->bad = false;
    if (tt_run_open(&t->run, &t->spec, &e)) {
        t->bad = true;
        snprintf(t->why, sizeof t->why, "%s", e.text);
    }
}

static void check_step(trial *t, int32_t before)
{
    tt_run *r = &t->run;
    const cJSON *e = expected(t);
    int32_t have[MAX_ROWS], n = sequence(&r->seq, have);
    if (!t->steps) /* a stranger */
        return;
    if (r->failed)
        fail_at(t, r->error.text);
    else if (n == before)
        fail_at(t, e ? "ends, but the trace goes on" : "");
    else if (!e)
        fail_at(t, "inserts, but the trace does not");
    else if (!same(t, member(e, "sequence")))
        fail_at(t, "another sequence than in the trace");
    if (n == before && !e && !r->failed)
        t->bad = false; /* both end here */
    t->at += n != before;
    if (r->done && !t->bad && (expected(t) || !same(t, t->final)))
        fail_at(t, "ends, but the trace goes on");
}

static void run_together(trial **list, int n, bool stagger)
{
    tt_batch batch = {0};
    tt_run *run[MAX_TRIALS];
    trial *in[MAX_TRIALS];
    int32_t before[MAX_TRIALS], ids[MAX_ROWS];
    for (int step = 0, left = 1; left; step++) {
        int64_t k = 0;
        left = 0;
        for (int i = 0; i < n; i++) {
            trial *t = list[i];
            int join = stagger ? t->join : 0;
            left |= step < join;
            if (step == join)
                start(t);
            if (step < join || t->bad || t->run.done)
                continue;
            tt_run_plan(&t->run);
            before[k] = sequence(&t->run.seq, ids);
            in[k] = t;
            run[k++] = &t->run;
        }
        left |= k > 0;
        for (int64_t i = 0, m; i < k; i += m) { /* neighbours of one model are one pass */
            tt_err e = {0};
            for (m = 1; i + m < k && run[i + m]->model == run[i]->model;)
                m++;
            bool broken = tt_batch_step(&batch, run + i, m, &e) != TT_OK;
            for (int64_t j = i; j < i + m; j++) {
                if (broken)
                    fail_at(in[j], e.text);
                else
                    check_step(in[j], before[j]);
            }
        }
    }
    for (int i = 0; i < n; i++)
        tt_run_close(&list[i]->run);
    tt_batch_free(&batch);
}

/* A neighbour with seeded draws, whose own result nobody checks. */
static void make_stranger(folder *f, trial *t, int i)
{
    tt_model *m = (i % 2 ? &f->with_length : &f->with_stopping)->model;
    tt_params_default(&t->params);
    t->params.temperature = 1;
    t->params.top_p = 0.9;
    t->params.position_temperature = 1;
    t->params.stopping_threshold = 1;
    t->join = i;
    t->spec = (tt_run_spec){.sampler = tt_sampler_find("insertion"), .model = m,
                            .params = &t->params, .columns = 9 + 3 * i, .prompt = 2 + i,
                            .vocab = (int32_t)m->info.vocab,
                            .noise = {.kind = TT_NOISE_PHILOX, .seed = (uint64_t)i}};
    t->id = calloc((size_t)t->spec.columns, sizeof *t->id);
    t->open = calloc((size_t)t->spec.columns, 1);
    for (int c = 0; c < t->spec.columns; c++)
        t->open[c] = c >= t->spec.prompt;
    t->spec.id = t->id;
    t->spec.open = t->open;
}

static int by_model(const void *a, const void *b)
{
    const trial *x = *(trial *const *)a, *y = *(trial *const *)b;
    uintptr_t m = (uintptr_t)x->spec.model, n = (uintptr_t)y->spec.model;
    return m != n ? (m > n) - (m < n) : (x > y) - (x < y);
}

static void judge(folder *f, const trial *t, const char *how)
{
    char name[140];
    snprintf(name, sizeof name, "%s (%s)", t->name, how);
    report(&f->with_stopping, name, !t->bad, t->why);
}

static void replay_cases(folder *f, trial *all, int n)
{
    enum { STRANGERS = 4 };
    trial *list[MAX_TRIALS], strangers[STRANGERS] = {0};
    for (int i = 0; i < n; i++) {
        list[i] = &all[i];
        run_together(&list[i], 1, false);
        judge(f, &all[i], "alone");
    }
    for (int i = 0; i < STRANGERS; i++) {
        make_stranger(f, &strangers[i], i);
        list[n + i] = &strangers[i];
    }
    qsort(list, (size_t)(n + STRANGERS), sizeof *list, by_model);
    if (n)
        run_together(list, n + STRANGERS, true);
    for (int i = 0; i < n; i++)
        judge(f, &all[i], "in a mixed batch");
    for (int i = 0; i < STRANGERS; i++) {
        if (n && strangers[i].bad)
            report(&f->with_stopping, "stranger", false, strangers[i].why);
        free_trial(&strangers[i]);
    }
}

static void replay_file(folder *f, const char *glob)
{
    cJSON *root = read_json(&f->with_stopping, "traces.json");
    if (!root) {
        report(&f->with_stopping, "traces.json", false, "cannot be read");
        return;
    }
    trial *all = calloc(MAX_TRIALS, sizeof *all);
    int n = 0;
    const cJSON *c;
    cJSON_ArrayForEach(c, member(root, "cases"))
    {
        int rows = cJSON_GetArraySize(member(member(c, "input"), "input_ids"));
        for (int row = 0; !fnmatch(glob, text(c, "name"), 0) && row < rows; row++) {
            all[n].join = n % 5;
            bool good = make_trial(f, &all[n], c, row);
            if (!good)
                report(&f->with_stopping, all[n].name, false, all[n].why);
            n += good;
        }
    }
    replay_cases(f, all, n);
    for (int i = 0; i < n; i++)
        free_trial(&all[i]);
    free(all);
    cJSON_Delete(root);
}

static bool open_headless(folder *f)
{
    bench *b = &f->with_stopping;
    tt_err e = {0};
    cJSON *root = read_json(b, "model_stopping/config.json");
    cJSON_DeleteItemFromObject(root, "head");
    cJSON_AddStringToObject(root, "head", "none");
    char *config = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    tt_status s = config ? tt_config_open_text(&f->headless_config, config, strlen(config), &e)
                         : tt_fail(&e, TT_EFORMAT, "config.json cannot be read");
    free(config);
    if (!s)
        s = b->model->def->open(&f->headless, b->stream, b->weights, f->headless_config,
                                TT_WEIGHTS_F32, NULL, NULL, &e);
    if (s)
        report(b, "model without a classifier", false, e.text);
    return !s;
}

int tt_replay_insertion(const char *dir, const char *case_glob, const char *device, int *passed,
                        int *failed)
{
    char path[4096], stopping[4096], length[4096];
    tt_err e = {0};
    folder f = {0};
    snprintf(stopping, sizeof stopping, "%s/model_stopping", dir);
    snprintf(length, sizeof length, "%s/model_length", dir);
    f.with_stopping = (bench){.dir = dir, .glob = case_glob, .model_dir = stopping};
    f.with_length = (bench){.dir = dir, .glob = case_glob, .model_dir = length};
    bool open = bench_open(&f.with_stopping, device) && bench_open(&f.with_length, device) &&
                open_headless(&f);
    snprintf(path, sizeof path, "%s/uniforms.safetensors", dir);
    if (open && tt_weights_open_file(&f.uniforms, path, &e)) {
        report(&f.with_stopping, "uniforms.safetensors", false, e.text);
        open = false;
    }
    if (open && !fnmatch(case_glob, "tensors", 0))
        replay_tensors(&f, dir);
    if (open)
        replay_file(&f, case_glob);
    tt_model_close(f.headless);
    tt_config_close(f.headless_config);
    tt_weights_close(f.uniforms);
    bench_close(&f.with_stopping);
    bench_close(&f.with_length);
    *passed += f.with_stopping.passed + f.with_length.passed;
    *failed += f.with_stopping.failed + f.with_length.failed;
    return open ? 0 : -1;
}
