/* replay_search.c - reference vectors of test-time search: aggregation of scores, spatial
 * relations, schedules; and whole searches, whose orders are compared with the recorded events and
 * answered from them. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/clip.h"
#include "models/generator.h"
#include "models/image_reward.h"
#include "models/chain.h"
#include "models/t5.h"
#include "samplers/search.h"
#include "samplers/mix.h"
#include "tokenizers/resize.h"
#include "tokenizers/text.h"
#include "tests/golden/bench.h"
#include "tests/golden/replay.h"

static const cJSON *member(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

static int integer(const cJSON *o, const char *key, int fallback)
{
    const cJSON *j = member(o, key);
    return cJSON_IsNumber(j) ? j->valueint : fallback;
}

static double number(const cJSON *o, const char *key, double fallback)
{
    const cJSON *j = member(o, key);
    return cJSON_IsNumber(j) ? j->valuedouble : fallback;
}

/* --- schedules --- */

static bool schedule_of(const cJSON *o, tt_schedule *s, int32_t list[64])
{
    const cJSON *kind = member(o, "token_schedule");
    *s = (tt_schedule){.base = number(o, "geometric_base", 2),
                       .per_step = integer(o, "tokens_per_step", 32),
                       .steps = integer(o, "max_steps", 9)};
    if (cJSON_IsArray(kind)) {
        s->steps = cJSON_GetArraySize(kind);
        for (int i = 0; i < s->steps && i < 64; i++)
            list[i] = cJSON_GetArrayItem(kind, i)->valueint;
        s->list = list;
        return s->steps <= 64;
    }
    static const char *const names[] = {"geometric", "linear", "fixed"};
    for (int i = 0; i < 3; i++)
        if (cJSON_IsString(kind) && !strcmp(kind->valuestring, names[i])) {
            s->kind = (tt_schedule_kind)i;
            return true;
        }
    return false;
}

static void schedules(bench *b, const cJSON *list)
{
    const cJSON *o;
    int at = 0;
    cJSON_ArrayForEach(o, list)
    {
        char name[64];
        int32_t count[TT_MAX_SEARCH_STEPS], given[64];
        tt_schedule s;
        tt_err e = {0};
        const cJSON *want = member(o, "result");
        snprintf(name, sizeof name, "schedule.%d", at++);
        bool ok = schedule_of(o, &s, given) &&
                  !tt_schedule_counts(count, &s, integer(o, "max_tokens", 0), &e) &&
                  cJSON_GetArraySize(want) == s.steps;
        for (int i = 0; ok && i < s.steps; i++)
            ok = count[i] == cJSON_GetArrayItem(want, i)->valueint;
        report(b, name, ok, e.text);
    }
}

/* --- aggregation --- */

/* Upstream pairs weights with members by position after dropping those without a say, which its
 * own description calls a defect: these cases hold its numbers, not the ones wanted. */
static bool pairs_by_position(const char *name)
{
    return !strncmp(name, "zero_first", 10) || !strcmp(name, "failed_first");
}

static void ensembles(bench *b, const cJSON *list)
{
    int64_t all = 0, n;
    const float *score = expect(b, "ensemble/scores", &all);
    const cJSON *o;
    cJSON_ArrayForEach(o, list)
    {
        const char *called = member(o, "name")->valuestring;
        const cJSON *pair, *rows = member(o, "rows_and_weights");
        char name[96];
        float have[64];
        tt_mix_part part[8];
        int parts = 0;
        bool slip = pairs_by_position(called);
        tt_err e = {0};
        snprintf(name, sizeof name, "ensemble/%s", called);
        const float *want = expect(b, name, &n);
        cJSON_ArrayForEach(pair, rows)
        {
            const cJSON *row = cJSON_GetArrayItem(pair, 0);
            double weight = cJSON_GetArrayItem(pair, 1)->valuedouble;
            bool has_say = cJSON_IsNumber(row) && weight > 0;
            if (slip && !has_say)
                continue;
            if (slip) /* the weight that stands at this place of the whole list */
                weight = cJSON_GetArrayItem(cJSON_GetArrayItem(rows, parts), 1)->valuedouble;
            part[parts++] = (tt_mix_part){has_say ? score + row->valueint * n : NULL, weight};
        }
        const char *rule = member(o, "aggregation")->valuestring;
        bool ok = want && n <= 64 &&
                  !tt_mix(have, part, parts, (int32_t)n,
                          strcmp(rule, "rank") ? TT_MIX_WEIGHTED : TT_MIX_RANK, &e);
        for (int64_t i = 0; ok && i < n; i++)
            ok = fabsf(have[i] - want[i]) <= 1e-6f * fmaxf(1, fabsf(want[i]));
        report(b, name, ok, e.text);
    }
}

/* --- where things stand --- */

static void relations(bench *b, const cJSON *list)
{
    const uint8_t *mask;
    tt_tensor t;
    tt_err e = {0};
    if (tt_weights_get(b->expected, "spatial/masks_u8", 3, (int64_t[]){-1, -1, -1}, &t, &e)) {
        report(b, "relations", false, e.text);
        return;
    }
    mask = t.data;
    int64_t size = t.dim[1] * t.dim[2];
    const cJSON *o;
    int at = 0;
    cJSON_ArrayForEach(o, list)
    {
        char name[64];
        tt_relation r;
        snprintf(name, sizeof name, "relation.%d", at++);
        bool ok = tt_relation_find(member(o, "relation")->valuestring, &r);
        float have = ok ? tt_relation_score(mask + integer(o, "a", 0) * size,
                                            mask + integer(o, "b", 0) * size, (int32_t)t.dim[2],
                                            (int32_t)t.dim[1], r)
                        : -1;
        report(b, name, ok && fabs(have - number(o, "pse", -1)) < 1e-6, "another score");
    }
}

static void boxes(bench *b, const cJSON *list)
{
    int64_t n, kept;
    const float *corner = expect(b, "spatial/boxes", &n);
    const float *want = expect(b, "spatial/kept_boxes", &kept);
    tt_box box[64];
    bool keep[64];
    n /= 4;
    for (int64_t i = 0; i < n && i < 64; i++)
        memcpy(&box[i], corner + 4 * i, sizeof *box);
    tt_prune_boxes(keep, box, (int32_t)n, 0.7f);
    bool ok = true;
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++)
        if (keep[i]) {
            ok &= 4 * at < kept && !memcmp(want + 4 * at, &box[i], sizeof *box);
            at++;
        }
    report(b, "kept_boxes", ok && 4 * at == kept, "others are kept");
    const cJSON *o;
    int count = 0;
    cJSON_ArrayForEach(o, list)
    {
        char name[64];
        tt_relation r;
        snprintf(name, sizeof name, "box.%d", count++);
        ok = tt_relation_find(member(o, "relation")->valuestring, &r) &&
             tt_relation_holds(&box[integer(o, "a", 0)], &box[integer(o, "b", 0)], r) ==
                 (bool)cJSON_IsTrue(member(o, "holds"));
        report(b, name, ok, "another answer");
    }
}

int tt_replay_verifiers(const char *dir, const char *case_glob, const char *device, int *passed,
                        int *failed)
{
    (void)device;
    bench b = {.dir = dir, .glob = case_glob};
    cJSON *trace = read_json(&b, "trace.json");
    if (!trace || !bench_expect(&b)) {
        cJSON_Delete(trace);
        ++*failed;
        return -1;
    }
    schedules(&b, member(trace, "schedules"));
    ensembles(&b, member(trace, "ensemble"));
    relations(&b, member(trace, "relations"));
    boxes(&b, member(trace, "boxes"));
    cJSON_Delete(trace);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return 0;
}

/* --- whole searches --- */

/* A recorded run being followed. */
typedef struct {
    bench *b;
    const char *name;
    const cJSON *events;
    int at; /* event */
    int32_t *token; /* answers */
    float *logprob, *score;
    char why[320];
} run;

static const cJSON *event(const run *r, int at)
{
    return cJSON_GetArrayItem(r->events, at);
}

static bool is(const cJSON *e, const char *kind)
{
    const cJSON *k = member(e, "event");
    return cJSON_IsString(k) && !strcmp(k->valuestring, kind);
}

/* The recorded tensor EVENT/what; n: how many. */
static const void *recorded(run *r, const cJSON *e, const char *what, bool ints, int64_t *n)
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s", member(e, "key")->valuestring, what);
    *n = 0;
    return ints ? (const void *)integers(r->b, name, n) : (const void *)expect(r->b, name, n);
}

static bool differs(run *r, const char *what)
{
    snprintf(r->why, sizeof r->why, "event %d: %s", r->at, what);
    return false;
}

/* The sequences of the order from `first` on against rows of recorded tokens. */
static bool same_rows(const tt_search_work *o, int32_t first, const int64_t *want, int64_t rows,
                      int64_t length, bool shown)
{
    for (int64_t i = 0; i < rows; i++) {
        const tt_candidate *c = &o->sequence[first + i];
        const int32_t *have = shown ? c->shown : c->token;
        if ((shown ? c->showns : c->tokens) != length)
            return false;
        for (int64_t j = 0; j < length; j++)
            if (have[j] != want[i * length + j])
                return false;
    }
    return true;
}

/* Best of N is recorded in batches: each is a part of one order here. */
static bool answer_extension(run *r, const tt_search_work *o)
{
    int32_t rows = 0, from = 0, total = o->sequences * o->each;
    for (int batch = r->at; rows < total; batch++) {
        while (event(r, batch) && !is(event(r, batch), "generate"))
            batch++;
        const cJSON *e = event(r, batch);
        int64_t n, m, p;
        if (!e)
            return differs(r, "tokens are asked for that were not generated");
        const int64_t *in = recorded(r, e, "in", true, &m);
        const int64_t *out = recorded(r, e, "out", true, &n);
        const float *lp = recorded(r, e, "log_probs", false, &p);
        if (integer(e, "num_new_tokens", -1) != o->add || integer(e, "num_samples", -1) != o->each)
            return differs(r, "another extension");
        int64_t have = o->rollout ? o->sequence[from].showns : o->sequence[from].tokens;
        int64_t length = have + o->add, made = n / length, parents = made / o->each;
        if (have && (m != parents * have || !same_rows(o, from, in, parents, have, o->rollout)))
            return differs(r, "other sequences are extended");
        for (int64_t i = 0; i < made; i++) {
            for (int32_t j = 0; j < o->add; j++)
                r->token[(rows + i) * o->add + j] = (int32_t)out[i * length + have + j];
            r->logprob[rows + i] = p > i ? lp[i] : 0;
        }
        rows += (int32_t)made;
        from += (int32_t)parents;
    }
    r->at++; /* to what follows the first batch; later ones are passed over with its scores */
    return true;
}

/* Decodings and scores, which alternate where they come in batches. */
static bool answer_scores(run *r, const tt_search_work *o)
{
    int32_t decoded = 0, scored = 0;
    bool drawn = false;
    for (; scored < o->sequences; r->at++) {
        const cJSON *e = event(r, r->at);
        int64_t n;
        if (!e)
            return differs(r, "scores are asked for that were not given");
        if (is(e, "decode")) {
            const int64_t *want = recorded(r, e, "tokens", true, &n);
            int64_t rows = cJSON_GetArrayItem(member(e, "tokens"), 0)->valueint;
            if (rows > o->sequences - decoded ||
                !same_rows(o, decoded, want, rows, n / rows, true))
                return differs(r, "other sequences are scored");
            if ((bool)cJSON_IsTrue(member(e, "same_noise")) == o->own_noise)
                return differs(r, "decoded with other noise");
            decoded += (int32_t)rows;
            drawn = true;
        } else if (is(e, "score")) {
            const float *have = recorded(r, e, "scores", false, &n);
            memcpy(r->score + scored, have, (size_t)n * sizeof *have);
            scored += (int32_t)n;
        }
    }
    return !drawn || decoded == o->sequences || differs(r, "not all are scored");
}

static bool follow(run *r, tt_search *s)
{
    tt_err e = {0};
    for (;;) {
        const tt_search_work *o = tt_search_order(s);
        tt_status st = TT_OK;
        if (o->kind == TT_ORDER_DONE)
            return true;
        if (o->kind == TT_ORDER_EXTEND) {
            if (!answer_extension(r, o))
                return false;
            st = tt_search_extended(s, r->token, r->logprob, &e);
        } else {
            if (!answer_scores(r, o))
                return false;
            st = tt_search_scored(s, r->score, &e);
        }
        if (st)
            return differs(r, e.text);
    }
}

/* The recorded result: scores, and the tokens shown. */
static bool same_result(run *r, const tt_search *s, bool resorted)
{
    char name[128];
    int64_t n, m;
    const tt_candidate *best;
    int32_t results = tt_search_results(s, &best);
    snprintf(name, sizeof name, "%s/result/scores", r->name);
    const float *score = expect(r->b, name, &n);
    snprintf(name, sizeof name, "%s/result/display_tokens", r->name);
    const int64_t *token = integers(r->b, name, &m);
    if (!token) {
        snprintf(name, sizeof name, "%s/result/tokens", r->name);
        token = integers(r->b, name, &m);
    }
    if (!score || !token || results != n)
        return differs(r, "another number of results");
    for (int32_t i = 0; i < results; i++) {
        int32_t k = 0; /* after completion the released code leaves the order of before */
        while (resorted && k < results && score[k] != best[i].score)
            k++;
        k = resorted ? k : i;
        if (k == results || best[i].score != score[k])
            return differs(r, "other scores in the end");
        for (int64_t j = 0; j < m / n; j++)
            if (best[i].shown[j] != token[k * (m / n) + j])
                return differs(r, "other tokens in the end");
    }
    return true;
}

static bool spec_of(bench *b, const cJSON *o, int32_t length, tt_search_spec *p, int32_t list[64],
                    int32_t given[256])
{
    const cJSON *config = member(o, "config"), *call = member(o, "call");
    const char *algorithm = member(o, "algorithm")->valuestring;
    const cJSON *begin = member(call, "initial_tokens"), *sample = member(config, "sample");
    *p = (tt_search_spec){
        .algorithm = tt_search_find(strcmp(algorithm, "best_of_n") ? algorithm : "best_of"),
        .length = length,
        .samples = integer(config, "n_samples", 0),
        .beams = integer(config, "beam_width", 5),
        .candidates = integer(config, "candidates_per_beam", 10),
        .fill_first = cJSON_IsTrue(member(config, "scale_first_step")),
        .ahead = integer(config, "lookahead_number", -1),
        .ahead_steps = integer(config, "max_lookahead_step", -1),
        .results = integer(call, "num_results", 1),
        .complete = cJSON_IsTrue(member(config, "complete_after_search")),
        .sample = cJSON_IsTrue(sample),
    };
    if (cJSON_IsString(begin)) { /* "rows 0..1 of beam/result/beam_after_step1" */
        int first, last;
        char name[96];
        int64_t n;
        if (sscanf(begin->valuestring, "rows %d..%d of %95s", &first, &last, name) != 3)
            return false;
        const int64_t *rows = integers(b, name, &n);
        p->givens = 2; /* tokens after that step */
        p->given_rows = last - first + 1;
        for (int i = 0; rows && i < p->givens * p->given_rows; i++)
            given[i] = (int32_t)rows[first * p->givens + i];
        p->given = given;
    }
    return p->algorithm && (!p->algorithm->by_steps || schedule_of(config, &p->schedule, list));
}

static void one_search(bench *b, const cJSON *o, int32_t length)
{
    char name[96];
    int32_t list[64], given[256], token[4096];
    float logprob[256], score[256];
    tt_search_spec spec;
    tt_search *s = NULL;
    tt_err e = {0};
    run r = {b, o->string, member(o, "events"), 0, token, logprob, score, ""};
    snprintf(name, sizeof name, "search.%s", o->string);
    if (fnmatch(b->glob, name, 0))
        return;
    bool ok = spec_of(b, o, length, &spec, list, given) && !tt_search_open(&s, &spec, &e);
    ok = ok && follow(&r, s) && same_result(&r, s, spec.complete);
    report(b, name, ok, *r.why ? r.why : e.text);
    tt_search_close(s);
}

/* --- FlexAR --- */

typedef struct {
    bench *b;
    tt_t5 *t5;
    tt_weights *t5_weights, *weights;
    tt_config *config;
    tt_generator *g;
    float *row[8]; /* of each prompt: what the text encoder makes of its own ids */
    int32_t rows[8];
    int prompts; /* the last one is empty */
} writer;

/* The encoder's rows of all prompts, padding included, against the record. */
static void read_texts(writer *x)
{
    int64_t n, m, width = tt_t5_about(x->t5)->width;
    tt_err e = {0};
    const int64_t *ids = integers(x->b, "text/ids", &n);
    const int64_t *mask = integers(x->b, "text/attention_mask", &m);
    const float *want = expect(x->b, "text/t5_output", &m);
    if (!ids || !mask || !want) {
        report(x->b, "text/t5_output", false, "missing");
        return;
    }
    int64_t columns = m / width / x->prompts;
    int32_t id[256], length[8], seen[8] = {0};
    float *row = malloc((size_t)m * sizeof *row);
    for (int64_t i = 0; i < n; i++)
        id[i] = (int32_t)ids[i];
    for (int i = 0; i < x->prompts; i++) {
        length[i] = (int32_t)columns;
        for (int64_t k = 0; k < columns; k++)
            seen[i] += mask[i * columns + k] != 0;
    }
    if (tt_t5_encode(x->t5, row, id, length, seen, x->prompts, &e))
        report(x->b, "text/t5_output", false, e.text);
    else
        compare(x->b, "text/t5_output", row);
    for (int i = 0; i < x->prompts; i++) {
        x->rows[i] = seen[i];
        x->row[i] = malloc((size_t)(seen[i] * width) * sizeof **x->row);
        bool ok = !tt_t5_encode(x->t5, x->row[i], id + i * columns, &seen[i], NULL, 1, &e) &&
                  !memcmp(x->row[i], row + i * columns * width,
                          (size_t)(seen[i] * width) * sizeof *row);
        char name[48];
        snprintf(name, sizeof name, "text/t5_output (alone %d)", i);
        report(x->b, name, ok, "a text alone, without padding, has other rows");
    }
    free(row);
}

static tt_condition of_prompt(const writer *x, int prompt)
{
    return (tt_condition){.label = {-1, -1, -1, -1},
                          .text = x->row[prompt],
                          .no_text = x->row[x->prompts - 1],
                          .text_rows = x->rows[prompt],
                          .no_text_rows = x->rows[x->prompts - 1]};
}

/* Logits of the first n positions of every prompt, tokens given. */
static void write_forced(writer *x, int32_t n, const char *name)
{
    const tt_layout *l = &x->g->info.layout;
    int64_t count, one = (int64_t)n * l->codes;
    const int64_t *token = integers(x->b, "forward/tokens", &count);
    float *logits = malloc((size_t)(x->prompts * one) * sizeof *logits);
    tt_err e = {0};
    tt_status s = token ? TT_OK : tt_fail(&e, TT_EFORMAT, "missing");
    for (int i = 0; i < x->prompts && !s; i++) {
        tt_condition c = of_prompt(x, i);
        tt_generator_state *st = NULL;
        s = tt_generator_begin(&st, x->g, &c, NULL, &e);
        for (int32_t p = 0; p < n && !s; p++) {
            tt_draw draw = {.top_p = 1, .target = -1};
            tt_row_stats stats;
            int32_t id = (int32_t)token[i * l->tokens + p];
            tt_generator_call call = {.state = st, .wants = 1, .slot = &p, .draw = &draw,
                                      .stats = &stats,
                                      .logits = logits + i * one + (int64_t)p * l->codes};
            s = tt_generator_step(x->g, &call, 1, &e);
            if (!s)
                s = tt_generator_commit(st, &p, &id, 1, &e);
        }
        tt_generator_drop(st);
    }
    if (s)
        report(x->b, name, false, e.text);
    else
        compare(x->b, name, logits);
    free(logits);
}

/* Greedy tokens of the first two prompts in one batch. */
static void write_greedy(writer *x, const char *name, double guidance)
{
    int64_t count;
    char full[64];
    tt_err e = {0};
    snprintf(full, sizeof full, "greedy/%s/tokens", name);
    const int64_t *want = integers(x->b, full, &count);
    int32_t tokens = x->g->info.layout.tokens;
    tt_generator_state *st[2] = {NULL};
    tt_status s = want ? TT_OK : tt_fail(&e, TT_EFORMAT, "missing");
    for (int i = 0; i < 2 && !s; i++) {
        tt_condition c = of_prompt(x, i);
        s = tt_generator_begin(&st[i], x->g, &c, NULL, &e);
    }
    bool same = true;
    for (int32_t p = 0; p < tokens && !s && same; p++) {
        tt_draw draw = {.top_p = 1, .target = -1};
        tt_row_stats stats[2];
        tt_generator_call call[2];
        for (int i = 0; i < 2; i++)
            call[i] = (tt_generator_call){.state = st[i], .cfg_scale = (float)(guidance - 1),
                                          .guided = guidance != 1, .wants = 1, .slot = &p,
                                          .draw = &draw, .stats = &stats[i]};
        s = tt_generator_step(x->g, call, 2, &e);
        for (int i = 0; i < 2 && !s; i++) {
            same &= stats[i].drawn == want[i * tokens + p];
            s = tt_generator_commit(st[i], &p, &stats[i].drawn, 1, &e);
        }
    }
    report(x->b, full, !s && same, s ? e.text : "another token");
    tt_generator_drop(st[0]);
    tt_generator_drop(st[1]);
}

static bool writer_open(writer *x, const char *device, tt_err *e)
{
    extern const tt_generator_def tt_generator_flexar;
    char folder[4096];
    tt_config *t5 = NULL;
    tt_status s = tt_stream_open(&x->b->stream, device, 1, e);
    if (!s)
        s = tt_config_open(&x->config, x->b->dir, e);
    if (!s)
        s = tt_weights_open(&x->weights, x->b->dir, e);
    if (!s)
        s = tt_generator_flexar.open(&x->g, x->b->stream, x->weights, x->config, TT_WEIGHTS_F32, e);
    snprintf(folder, sizeof folder, "%s/t5", x->b->dir);
    if (!s)
        s = tt_weights_open(&x->t5_weights, folder, e);
    if (!s)
        s = tt_config_member(&t5, x->config, "tutti_t5_config", e);
    if (!s)
        s = tt_t5_open(&x->t5, x->b->stream, x->t5_weights, t5, TT_WEIGHTS_F32, e);
    tt_config_close(t5);
    return !s;
}

static void writer_close(writer *x)
{
    for (int i = 0; i < x->prompts; i++)
        free(x->row[i]);
    tt_generator_close(x->g);
    tt_t5_close(x->t5);
    tt_weights_close(x->weights);
    tt_weights_close(x->t5_weights);
    tt_config_close(x->config);
}

static void write_images(bench *b, const cJSON *trace, const char *device)
{
    writer x = {.b = b, .prompts = cJSON_GetArraySize(member(trace, "prompts"))};
    tt_err e = {0};
    if (writer_open(&x, device, &e)) {
        read_texts(&x);
        write_forced(&x, 1, "forward/prefix0/logits");
        write_forced(&x, 4, "forward/prefix3/logits");
        write_forced(&x, 16, "forward/prefix15/logits");
        write_greedy(&x, "nocfg", 1);
        write_greedy(&x, "cfg", 3);
    } else {
        report(b, "model", false, e.text);
    }
    writer_close(&x);
}

int tt_replay_flexar(const char *dir, const char *case_glob, const char *device, int *passed,
                     int *failed)
{
    bench b = {.dir = dir, .glob = case_glob};
    cJSON *trace = read_json(&b, "trace.json");
    if (!trace || !bench_expect(&b)) {
        cJSON_Delete(trace);
        ++*failed;
        return -1;
    }
    const cJSON *o;
    cJSON_ArrayForEach(o, member(trace, "runs"))
    {
        one_search(&b, o, integer(trace, "num_tokens", 0));
    }
    if (!fnmatch(case_glob, "generator", 0))
        write_images(&b, trace, device);
    if (!fnmatch(case_glob, "pictures", 0))
        tt_replay_search_pictures(&b, trace, device);
    cJSON_Delete(trace);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return 0;
}

/* --- CLIP --- */

typedef struct {
    bench b;
    tt_clip *clip;
    const tt_clip_info *about;
    tt_tok *tok;
    float *planes[8]; /* of each picture, as the network sees it */
    int pictures;
} sight;

static void tokens_case(sight *x, const cJSON *o, int at)
{
    char name[64], why[96];
    tt_ids ids = {0};
    tt_err e = {0};
    const char *text = member(o, "text")->valuestring;
    const cJSON *want = member(o, "tiny_ids");
    int n = cJSON_GetArraySize(want);
    snprintf(name, sizeof name, "tokens.%d", at);
    bool ok = !tt_tok_encode(x->tok, text, strlen(text), TT_TOK_ADD_SPECIAL, &ids, &e);
    int32_t have = ok ? tt_clip_cut(x->about, ids.id, (int64_t)ids.count) : 0;
    snprintf(why, sizeof why, "%.90s", e.text);
    for (int i = 0; i < n && ok; i++) {
        int id = i < have ? ids.id[i] : 0; /* zeros behind the end */
        ok = id == cJSON_GetArrayItem(want, i)->valueint;
        snprintf(why, sizeof why, "id %d is %d", i, id);
    }
    report(&x->b, name, ok, why);
    tt_ids_free(&ids);
}

/* A recorded picture as the network sees it; to be freed. */
static float *see_picture(bench *b, const char *name, int32_t side, const float mean[3],
                          const float deviation[3])
{
    tt_tensor t;
    tt_err e = {0};
    uint8_t *small = malloc((size_t)side * (size_t)side * 3);
    float *planes = malloc((size_t)side * (size_t)side * 3 * sizeof *planes);
    tt_status s = tt_weights_get(b->expected, name, 3, (int64_t[]){-1, -1, 3}, &t, &e);
    if (!s)
        s = tt_resize_crop(small, side, t.data, (int32_t)t.dim[1], (int32_t)t.dim[0], &e);
    if (s)
        report(b, name, false, e.text);
    else
        tt_image_normalise(planes, small, (int64_t)side * side, mean, deviation);
    free(small);
    if (s) {
        free(planes);
        return NULL;
    }
    return planes;
}

/* All pictures in one call, and one of them alone: the same numbers. */
static void image_vectors(sight *x, float *vector)
{
    int64_t p = x->about->projection, pixels = 3 * (int64_t)x->about->side * x->about->side;
    int64_t n = 0;
    tt_err e = {0};
    expect(&x->b, "vision/layer0", &n);
    float *all = malloc((size_t)(x->pictures * pixels) * sizeof *all), alone[1024];
    float *hidden = malloc((size_t)(2 * n) * sizeof *hidden);
    for (int i = 0; i < x->pictures; i++)
        memcpy(all + i * pixels, x->planes[i], (size_t)pixels * sizeof *all);
    if (tt_clip_images(x->clip, vector, all, x->pictures, hidden, &e)) {
        report(&x->b, "image_embeds", false, e.text);
    } else {
        compare(&x->b, "vision/layer0", hidden);
        compare(&x->b, "vision/layer1", hidden + n);
        compare(&x->b, "image_embeds", vector);
        bool same = !tt_clip_images(x->clip, alone, x->planes[1], 1, NULL, &e) &&
                    !memcmp(alone, vector + p, (size_t)p * sizeof *alone);
        report(&x->b, "image_embeds (alone)", same, "a picture alone has another vector");
    }
    free(hidden);
    free(all);
}

static void text_vectors(sight *x, float *vector)
{
    int64_t n, hidden_n = 0, context = x->about->context;
    const int64_t *want = integers(&x->b, "text_ids", &n);
    int32_t *id = malloc((size_t)n * sizeof *id), length[64];
    int64_t texts = n / context;
    tt_err e = {0};
    for (int64_t i = 0; i < n; i++)
        id[i] = (int32_t)want[i];
    for (int64_t i = 0; i < texts; i++)
        length[i] = (int32_t)context;
    expect(&x->b, "text/layer0", &hidden_n);
    float *hidden = malloc((size_t)(2 * hidden_n) * sizeof *hidden);
    if (tt_clip_texts(x->clip, vector, id, length, 2, hidden, &e)) {
        report(&x->b, "text/layer0", false, e.text);
    } else {
        compare(&x->b, "text/layer0", hidden);
        compare(&x->b, "text/layer1", hidden + hidden_n);
    }
    /* Nothing behind the end matters. */
    int64_t at = 0;
    for (int64_t i = 0; i < texts; i++) {
        int32_t k = 0;
        do
            id[at++] = (int32_t)want[i * context + k];
        while (want[i * context + k++] != x->about->end_id);
        length[i] = k;
    }
    if (tt_clip_texts(x->clip, vector, id, length, texts, NULL, &e))
        report(&x->b, "text_embeds", false, e.text);
    else
        compare(&x->b, "text_embeds", vector);
    free(hidden);
    free(id);
}

static void scores(sight *x, const float *image, const float *text)
{
    int64_t p = x->about->projection, n = 0;
    expect(&x->b, "logits_per_image", &n);
    int64_t texts = n / x->pictures;
    float have[256];
    for (int i = 0; i < x->pictures; i++)
        for (int64_t j = 0; j < texts; j++) {
            double dot = 0, a = 0, b = 0;
            for (int64_t k = 0; k < p; k++) {
                dot += (double)image[i * p + k] * text[j * p + k];
                a += (double)image[i * p + k] * image[i * p + k];
                b += (double)text[j * p + k] * text[j * p + k];
            }
            have[i * texts + j] = (float)(x->about->logit_scale * dot / sqrt(a * b));
        }
    compare(&x->b, "logits_per_image", have);
    for (int j = 0; j < 2; j++) {
        char name[48];
        snprintf(name, sizeof name, "clip_verifier/prompt%d", j);
        for (int i = 0; i < x->pictures; i++)
            have[i] = tt_clip_score(image + i * p, text + j * p, p);
        compare(&x->b, name, have);
    }
}

static void aesthetics(sight *x, const float *image)
{
    static const int index[] = {0, 2, 4, 6, 7};
    char path[4096];
    double weight[1024], bias;
    float have[8];
    int64_t p = x->about->projection;
    tt_weights *w = NULL;
    tt_err e = {0};
    snprintf(path, sizeof path, "%s/aesthetic.safetensors", x->b.dir);
    tt_status s = tt_weights_open_file(&w, path, &e);
    if (!s)
        s = tt_chain_fold(weight, &bias, p, w, "layers.", index, 5, &e);
    tt_weights_close(w);
    if (s) {
        report(&x->b, "aesthetic/score", false, e.text);
        return;
    }
    for (int i = 0; i < x->pictures; i++) {
        double sum = bias, length = 0;
        for (int64_t k = 0; k < p; k++)
            length += (double)image[i * p + k] * image[i * p + k];
        for (int64_t k = 0; k < p; k++)
            sum += weight[k] * image[i * p + k] / sqrt(length);
        have[i] = (float)sum;
    }
    compare(&x->b, "aesthetic/score", have);
}

int tt_replay_clip(const char *dir, const char *case_glob, const char *device, int *passed,
                   int *failed)
{
    sight x = {.b = {.dir = dir, .glob = case_glob}};
    tt_err e = {0};
    cJSON *trace = read_json(&x.b, "trace.json");
    bool open = trace && bench_expect(&x.b) && !tt_stream_open(&x.b.stream, device, 1, &e) &&
                !tt_clip_open(&x.clip, x.b.stream, dir, TT_WEIGHTS_F32, &e) &&
                !tt_tok_open(&x.tok, dir, &e);
    if (open) {
        float *image = malloc(8 * 1024 * sizeof *image), *text = malloc(64 * 1024 * sizeof *text);
        const cJSON *o;
        int at = 0;
        x.about = tt_clip_about(x.clip);
        cJSON_ArrayForEach(o, member(trace, "tiny_tokenizer"))
        {
            tokens_case(&x, o, at++);
        }
        for (; x.pictures < 4; x.pictures++) {
            char name[48];
            snprintf(name, sizeof name, "image%d/u8", x.pictures);
            x.planes[x.pictures] = see_picture(&x.b, name, x.about->side, x.about->mean,
                                               x.about->deviation);
            snprintf(name, sizeof name, "image%d/preprocessed", x.pictures);
            compare(&x.b, name, x.planes[x.pictures]);
        }
        image_vectors(&x, image);
        text_vectors(&x, text);
        scores(&x, image, text);
        aesthetics(&x, image);
        free(image);
        free(text);
    } else {
        report(&x.b, "model", false, *e.text ? e.text : "trace.json cannot be read");
    }
    for (int i = 0; i < x.pictures; i++)
        free(x.planes[i]);
    tt_clip_close(x.clip);
    tt_tok_close(x.tok);
    cJSON_Delete(trace);
    bench_close(&x.b);
    *passed += x.b.passed;
    *failed += x.b.failed;
    return open ? 0 : -1;
}

/* --- ImageReward --- */

int tt_replay_imagereward(const char *dir, const char *case_glob, const char *device, int *passed,
                          int *failed)
{
    static const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
    static const float deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
    enum { PICTURES = 3, PROMPTS = 2 };
    bench b = {.dir = dir, .glob = case_glob};
    tt_reward *r = NULL;
    tt_err e = {0};
    bool open = bench_expect(&b) && !tt_stream_open(&b.stream, device, 1, &e) &&
                !tt_reward_open(&r, b.stream, dir, TT_WEIGHTS_F32, &e);
    const tt_reward_info *about = open ? tt_reward_about(r) : NULL;
    int64_t pixels = open ? 3 * (int64_t)about->side * about->side : 0;
    float *all = malloc((size_t)(PICTURES * pixels) * sizeof *all + 1);
    for (int i = 0; open && i < PICTURES; i++) {
        char name[48];
        snprintf(name, sizeof name, "image%d/u8", i);
        float *one = see_picture(&b, name, about->side, mean, deviation);
        open = one != NULL;
        if (open)
            memcpy(all + i * pixels, one, (size_t)pixels * sizeof *one);
        free(one);
    }
    if (!open)
        report(&b, "model", false, e.text);
    for (int j = 0; open && j < PROMPTS; j++) {
        char name[64];
        int64_t n, m;
        float score[PICTURES], alone, vision[PICTURES * 4096], first[PICTURES * 1024];
        int32_t id[256], length = 0;
        snprintf(name, sizeof name, "prompt%d/ids", j);
        const int64_t *ids = integers(&b, name, &n);
        snprintf(name, sizeof name, "prompt%d/mask", j);
        const int64_t *mask = integers(&b, name, &m);
        for (int64_t i = 0; ids && mask && i < n; i++)
            if (mask[i])
                id[length++] = (int32_t)ids[i];
        snprintf(name, sizeof name, "prompt%d/rewards", j);
        if (tt_reward_score(r, score, all, PICTURES, id, length, vision, first, &e)) {
            report(&b, name, false, e.text);
            continue;
        }
        compare(&b, name, score);
        for (int i = 0; i < PICTURES; i++) {
            snprintf(name, sizeof name, "prompt%d/image%d/text_out_row0", j, i);
            compare(&b, name, first + i * about->text_width);
            snprintf(name, sizeof name, "image%d/vision_out", i);
            if (!j)
                compare(&b, name, vision + i * about->vision_rows * about->vision_width);
        }
        snprintf(name, sizeof name, "prompt%d/rewards (alone)", j);
        report(&b, name, !tt_reward_score(r, &alone, all + pixels, 1, id, length, NULL, NULL, &e) &&
                             alone == score[1], "a picture alone has another score");
    }
    free(all);
    tt_reward_close(r);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return open ? 0 : -1;
}
