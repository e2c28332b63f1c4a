/* replay_search.c - reference vectors of test-time search: aggregation of scores, spatial
 * relations, schedules; and whole searches, whose orders are compared with the recorded events and
 * answered from them. */
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "samplers/search/search.h"
#include "samplers/verify/mix.h"
#include "tokenizers/image/resize.h"
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
static bool same_rows(const tt_order *o, int32_t first, const int64_t *want, int64_t rows,
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
static bool answer_extension(run *r, const tt_order *o)
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
static bool answer_scores(run *r, const tt_order *o)
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
        const tt_order *o = tt_search_order(s);
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

int tt_replay_flexar(const char *dir, const char *case_glob, const char *device, int *passed,
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
    const cJSON *o;
    cJSON_ArrayForEach(o, member(trace, "runs"))
    {
        one_search(&b, o, integer(trace, "num_tokens", 0));
    }
    cJSON_Delete(trace);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return 0;
}

/* --- CLIP --- */

static void clip_tokens(bench *b, const cJSON *list)
{
    tt_tok *tok = NULL;
    tt_err e = {0};
    const cJSON *o;
    int at = 0;
    tt_status s = tt_tok_open(&tok, b->dir, &e);
    cJSON_ArrayForEach(o, list)
    {
        char name[64], why[96];
        tt_ids ids = {0};
        const char *text = member(o, "text")->valuestring;
        const cJSON *want = member(o, "tiny_ids");
        int n = cJSON_GetArraySize(want);
        snprintf(name, sizeof name, "tokens.%d", at++);
        if (!s)
            s = tt_tok_encode(tok, text, strlen(text), TT_TOK_ADD_SPECIAL, &ids, &e);
        bool ok = !s;
        snprintf(why, sizeof why, "%.90s", e.text);
        for (int i = 0; i < n && ok; i++) {
            int have = (size_t)i < ids.count ? ids.id[i] : 0; /* zeros behind the end */
            ok = have == cJSON_GetArrayItem(want, i)->valueint;
            snprintf(why, sizeof why, "id %d is %d", i, have);
        }
        report(b, name, ok, why);
        tt_ids_free(&ids);
    }
    tt_tok_close(tok);
}

/* The pictures as the network sees them. */
static void clip_pictures(bench *b)
{
    static const float mean[] = {0.48145466f, 0.4578275f, 0.40821073f};
    static const float deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
    enum { SIDE = 32 };
    for (int i = 0; i < 4; i++) {
        char name[64];
        tt_tensor t;
        tt_err e = {0};
        uint8_t small[SIDE * SIDE * 3];
        float planes[3 * SIDE * SIDE];
        snprintf(name, sizeof name, "image%d/u8", i);
        tt_status s = tt_weights_get(b->expected, name, 3, (int64_t[]){-1, -1, 3}, &t, &e);
        if (!s)
            s = tt_resize_crop(small, SIDE, t.data, (int32_t)t.dim[1], (int32_t)t.dim[0], &e);
        snprintf(name, sizeof name, "image%d/preprocessed", i);
        if (s) {
            report(b, name, false, e.text);
            continue;
        }
        tt_image_normalise(planes, small, SIDE * SIDE, mean, deviation);
        compare(b, name, planes);
    }
}

int tt_replay_clip(const char *dir, const char *case_glob, const char *device, int *passed,
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
    clip_tokens(&b, member(trace, "tiny_tokenizer"));
    clip_pictures(&b);
    cJSON_Delete(trace);
    bench_close(&b);
    *passed += b.passed;
    *failed += b.failed;
    return 0;
}
