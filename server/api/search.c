/* search.c - see search.h. */
#include "server/api/search.h"

#include <stdio.h>
#include <string.h>

#define GI TT_ON_IMAGES
#define BOTH (TT_ON_IMAGES | TT_ON_COMPLETIONS)
#define FIELD(n, where, t, lo, hi, h)                                                              \
    {.name = n, .on = where, .type = TT_FIELD_##t, .min = lo, .max = hi, .help = h}

static const tt_field fields[] = {
    FIELD("algorithm", BOTH, TEXT, 0, 0,
          "best_of: whole samples; beam: candidates are scored along a schedule, the best go on; "
          "lookahead: beam, but what is scored is each candidate completed by likely tokens"),
    FIELD("verifier", BOTH, ANY, 0, 0,
          "who scores: the id of a verifier (GET /v1/models lists them), the name of a program "
          "given to the server with --verifier-http, 'likelihood'; of texts also 'json', "
          "{\"name\": \"regex\", \"pattern\"} and {\"name\": \"length\", \"min\", \"max\"} in "
          "characters. With a weight: {\"name\", \"weight\"}; several: a list of up to 8. One of "
          "weight 0 has no say and is asked at the end what it thinks of the results"),
    FIELD("mode", BOTH, TEXT, 0, 0,
          "scores of several become one by rank (default) or weighted sum"),
    FIELD("samples", BOTH, INT, 1, TT_MAX_CANDIDATES,
          "best_of: so many samples, default 8; of texts as best_of, up to 128"),
    FIELD("beam_width", GI, INT, 1, TT_MAX_CANDIDATES, "candidates that go on, default 5"),
    FIELD("candidates", GI, INT, 1, TT_MAX_CANDIDATES, "of each that went on, default 10"),
    FIELD("schedule", GI, ANY, 0, 0,
          "tokens a candidate has when it is scored: geometric (default), linear, fixed, a list of "
          "counts, or {\"kind\", \"base\", \"per_step\", \"steps\"}. Without steps it goes on to "
          "the whole image. Of models that unmask tokens it counts their steps; counts are rounded "
          "up to where the model can stop"),
    FIELD("lookahead", GI, INT, -1, 65536,
          "lookahead: so many further steps of the model, or -1: to the end (default)"),
    FIELD("lookahead_steps", GI, INT, -1, TT_MAX_SEARCH_STEPS,
          "look ahead at the first so many steps of the schedule alone; -1: at all (default)"),
    FIELD("fill_first", GI, BOOL, 0, 0,
          "the first step makes beam_width x candidates instead of candidates; default false"),
    FIELD("prior", GI, TEXT, 0, 0,
          "model (default), or uniform: tokens are drawn without the model, verifiers do it all"),
    FIELD("sample", GI, BOOL, 0, 0,
          "false: the most likely tokens instead of drawn ones, of models that give single tokens; "
          "default true"),
    FIELD("results", BOTH, INT, 1, 128, "images or texts in the answer, best first; default n"),
    FIELD("complete", GI, BOOL, 0, 0,
          "results that the schedule left unfinished are completed by likely tokens and scored "
          "again; default false"),
    FIELD("budget", GI, OBJECT, 0, 0,
          "{\"forwards\", \"ms\"}: steps of candidates, and time. The search ends with what it has "
          "before a step would exceed the first, or once the second has passed"),
    {.name = NULL},
};

#undef FIELD
#undef GI
#undef BOTH

const tt_field *tt_search_fields(void)
{
    return fields;
}

tt_status tt_search_check(const cJSON *node, unsigned on, tt_err *e)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, node)
    {
        tt_json_path path = tt_json_member("tutti.search", m->string);
        const tt_field *f = fields;
        while (f->name && (!(f->on & on) || strcmp(f->name, m->string)))
            f++;
        if (!f->name)
            return tt_fail_param(e, path.text, "unknown_parameter", "unknown parameter '%s'",
                                 path.text);
        tt_status s = cJSON_IsNull(m) ? TT_OK : tt_field_check(m, f, path.text, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status unknown_member(const cJSON *m, const char *parent, tt_err *e)
{
    tt_json_path path = tt_json_member(parent, m->string);
    return tt_fail_param(e, path.text, "unknown_parameter", "unknown parameter '%s'", path.text);
}

/* --- the schedule --- */

static tt_status kind_of(const cJSON *node, const char *path, tt_schedule *k, tt_err *e)
{
    static const char *const names[] = {"geometric", "linear", "fixed"};
    for (int i = 0; cJSON_IsString(node) && i < 3; i++)
        if (!strcmp(node->valuestring, names[i])) {
            k->kind = (tt_schedule_kind)i;
            return TT_OK;
        }
    return tt_fail_param(e, path, "invalid_value",
                         "'%s' must be geometric, linear, fixed, a list of counts or an object",
                         path);
}

static tt_status read_list(const cJSON *node, tt_schedule *k, int32_t *list, tt_err *e)
{
    const cJSON *m;
    int n = 0, most = TT_MAX_SEARCH_STEPS;
    if (cJSON_GetArraySize(node) < 1 || cJSON_GetArraySize(node) > most)
        return tt_fail_param(e, "tutti.search.schedule", "invalid_value",
                             "'tutti.search.schedule' has %d counts, must have 1 to %d",
                             cJSON_GetArraySize(node), most);
    cJSON_ArrayForEach(m, node)
    {
        int64_t v;
        tt_json_path path = tt_json_element("tutti.search.schedule", n);
        tt_status s = tt_json_int(m, path.text, n ? list[n - 1] : 1, INT32_MAX, &v, e);
        if (s)
            return s;
        list[n++] = (int32_t)v;
    }
    k->list = list;
    k->steps = n;
    return TT_OK;
}

static tt_status read_schedule_member(const cJSON *m, tt_schedule *k, tt_err *e)
{
    tt_json_path path = tt_json_member("tutti.search.schedule", m->string);
    int64_t v = 0;
    tt_status s;
    if (!strcmp(m->string, "kind"))
        return kind_of(m, path.text, k, e);
    if (!strcmp(m->string, "base"))
        return tt_json_number(m, path.text, 1.001, 65536, &k->base, e);
    bool per_step = !strcmp(m->string, "per_step");
    if (!per_step && strcmp(m->string, "steps"))
        return unknown_member(m, "tutti.search.schedule", e);
    s = tt_json_int(m, path.text, 1, per_step ? 65536 : TT_MAX_SEARCH_STEPS, &v, e);
    *(per_step ? &k->per_step : &k->steps) = (int32_t)v;
    return s;
}

static tt_status read_schedule(const cJSON *node, tt_schedule *k, int32_t *list, tt_err *e)
{
    const cJSON *m;
    *k = (tt_schedule){.kind = TT_SCHEDULE_GEOMETRIC, .base = 2, .per_step = 32};
    if (!node)
        return TT_OK;
    if (cJSON_IsArray(node))
        return read_list(node, k, list, e);
    if (!cJSON_IsObject(node))
        return kind_of(node, "tutti.search.schedule", k, e);
    cJSON_ArrayForEach(m, node)
    {
        tt_status s = read_schedule_member(m, k, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* --- the verifiers --- */

static tt_status find_juror(const tt_api *api, const char *name, const char *path, tt_juror *j,
                            tt_err *e)
{
    const tt_served *m = tt_engine_find(api->engine, name);
    snprintf(j->name, sizeof j->name, "%s", name);
    if (!strcmp(name, "likelihood"))
        return TT_OK;
    for (int i = 0; i < api->scorers; i++)
        if (!strcmp(api->scorer[i].name, name)) {
            j->scorer = &api->scorer[i];
            return TT_OK;
        }
    if (!m || !m->verifier)
        return tt_fail_param(e, path, m ? "unsupported_value" : "model_not_found",
                             m ? "model '%.60s' is no verifier"
                               : "there is no verifier '%.60s'; "
                                 "GET /v1/models lists those that are open",
                             name);
    j->verifier = m->verifier;
    return TT_OK;
}

static tt_status read_juror(const tt_api *api, const cJSON *node, const char *path, tt_juror *j,
                            tt_err *e)
{
    const cJSON *m, *object = cJSON_IsObject(node) ? node : NULL;
    const cJSON *name = object ? tt_json_get(object, "name") : node;
    *j = (tt_juror){.weight = 1};
    cJSON_ArrayForEach(m, object)
    {
        tt_status s = TT_OK;
        if (!strcmp(m->string, "weight"))
            s = tt_json_number(m, tt_json_member(path, "weight").text, 0, 1e6, &j->weight, e);
        else if (strcmp(m->string, "name"))
            s = unknown_member(m, path, e);
        if (s)
            return s;
    }
    if (!cJSON_IsString(name) || strlen(name->valuestring) >= sizeof j->name)
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' must be the name of a verifier, or {\"name\", \"weight\"}",
                             path);
    return find_juror(api, name->valuestring, path, j, e);
}

tt_status tt_search_read_mode(const cJSON *node, tt_mix_rule *out, tt_err *e)
{
    const char *mode = tt_field_text(node, "mode", "rank");
    if (strcmp(mode, "rank") && strcmp(mode, "weighted"))
        return tt_fail_param(e, "tutti.search.mode", "invalid_value",
                             "'tutti.search.mode' is '%.40s', must be rank or weighted", mode);
    *out = strcmp(mode, "rank") ? TT_MIX_WEIGHTED : TT_MIX_RANK;
    return TT_OK;
}

static tt_status read_jury(const tt_api *api, const cJSON *node, tt_picture_search_spec *p,
                           tt_err *e)
{
    const cJSON *list = tt_json_get(node, "verifier");
    const char *path = "tutti.search.verifier";
    bool several = cJSON_IsArray(list);
    int n = several ? cJSON_GetArraySize(list) : 1;
    double sum = 0;
    if (!list)
        return tt_fail_param(e, path, "missing_required_parameter",
                             "'%s' is missing: who scores the candidates", path);
    if (n < 1 || n > TT_MAX_JURY)
        return tt_fail_param(e, path, "invalid_value", "'%s' has %d members, must have 1 to %d",
                             path, n, TT_MAX_JURY);
    tt_status mode = tt_search_read_mode(node, &p->mix, e);
    if (mode)
        return mode;
    for (int i = 0; i < n; i++) {
        tt_json_path one = tt_json_element(path, i);
        tt_status s = read_juror(api, several ? cJSON_GetArrayItem(list, i) : list,
                                 several ? one.text : path, &p->juror[i], e);
        for (int k = 0; k < i && !s; k++)
            if (!strcmp(p->juror[k].name, p->juror[i].name))
                s = tt_fail_param(e, one.text, "invalid_value", "'%s' names '%.60s' again",
                                  one.text, p->juror[i].name);
        if (s)
            return s;
        sum += p->juror[i].weight;
    }
    p->jurors = n;
    return sum > 0 ? TT_OK
                   : tt_fail_param(e, path, "invalid_value", "'%s' has no weight above 0", path);
}

/* --- the rest --- */

static tt_status read_budget(const cJSON *node, tt_picture_search_spec *p, tt_err *e)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, node)
    {
        tt_json_path path = tt_json_member("tutti.search.budget", m->string);
        bool ms = !strcmp(m->string, "ms");
        if (!ms && strcmp(m->string, "forwards"))
            return unknown_member(m, "tutti.search.budget", e);
        tt_status s =
            tt_json_int(m, path.text, 1, (int64_t)1 << 40, ms ? &p->max_ms : &p->max_forwards, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status read_names(const cJSON *node, tt_picture_search_spec *p, tt_err *e)
{
    const char *algorithm = tt_field_text(node, "algorithm", "best_of");
    const char *prior = tt_field_text(node, "prior", "model");
    p->rules.algorithm = tt_search_find(algorithm);
    p->uniform = !strcmp(prior, "uniform");
    if (!p->rules.algorithm)
        return tt_fail_param(e, "tutti.search.algorithm", "invalid_value",
                             "'tutti.search.algorithm' is '%.40s', must be best_of, beam or "
                             "lookahead",
                             algorithm);
    if (!p->uniform && strcmp(prior, "model"))
        return tt_fail_param(e, "tutti.search.prior", "invalid_value",
                             "'tutti.search.prior' is '%.40s', must be model or uniform", prior);
    return TT_OK;
}

/* A member that another algorithm reads is an error, never ignored. */
static tt_status check_unread(const cJSON *node, const tt_search_def *a, tt_err *e)
{
    static const struct {
        const char *name;
        bool best_of, beam;
    } reads[] = {{"samples", true, false},    {"beam_width", false, true},
                 {"candidates", false, true}, {"schedule", false, true},
                 {"fill_first", false, true}, {"complete", false, true},
                 {"sample", false, true}};
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++)
        if (tt_json_get(node, reads[i].name) && !(a->by_steps ? reads[i].beam : reads[i].best_of)) {
            tt_json_path path = tt_json_member("tutti.search", reads[i].name);
            return tt_fail_param(e, path.text, "unsupported_parameter", "%s does not read '%s'",
                                 a->name, path.text);
        }
    bool ahead = tt_json_get(node, "lookahead") || tt_json_get(node, "lookahead_steps");
    if (ahead && !a->ahead)
        return tt_fail_param(e, "tutti.search.lookahead", "unsupported_parameter",
                             "%s does not look ahead", a->name);
    return TT_OK;
}

tt_status tt_search_read(const tt_api *api, const cJSON *node, int32_t n, bool n_given,
                         tt_picture_search_spec *out, int32_t list[TT_MAX_SEARCH_STEPS], tt_err *e)
{
    *out = (tt_picture_search_spec){.prompt = NULL};
    tt_status s = tt_search_check(node, TT_ON_IMAGES, e);
    if (!s)
        s = read_names(node, out, e);
    if (!s)
        s = check_unread(node, out->rules.algorithm, e);
    if (!s)
        s = read_jury(api, node, out, e);
    if (!s)
        s = read_schedule(tt_json_get(node, "schedule"), &out->rules.schedule, list, e);
    if (!s)
        s = read_budget(tt_json_get(node, "budget"), out, e);
    if (s)
        return s;
    tt_search_spec *r = &out->rules;
    r->samples = (int32_t)tt_field_int(node, "samples", 8);
    r->beams = (int32_t)tt_field_int(node, "beam_width", 5);
    r->candidates = (int32_t)tt_field_int(node, "candidates", 10);
    r->ahead = (int32_t)tt_field_int(node, "lookahead", -1);
    r->ahead_steps = (int32_t)tt_field_int(node, "lookahead_steps", -1);
    r->fill_first = tt_field_bool(node, "fill_first", false);
    r->complete = tt_field_bool(node, "complete", false);
    r->sample = tt_field_bool(node, "sample", true);
    r->results = (int32_t)tt_field_int(node, "results", n);
    if (r->ahead == 0)
        return tt_fail_param(e, "tutti.search.lookahead", "invalid_value",
                             "'tutti.search.lookahead' must be -1 or at least 1");
    if (n_given && n != r->results)
        return tt_fail_param(e, "tutti.search.results", "invalid_value",
                             "'tutti.search.results' is %d, 'n' is %d: they mean the same",
                             r->results, n);
    return TT_OK;
}

/* --- answers --- */

void tt_search_write(const tt_picture_search_spec *p, const tt_search_report *r, tt_json *w)
{
    tt_json_open_member(w, "search", '{');
    tt_json_text_member(w, "algorithm", p->rules.algorithm->name);
    tt_json_open_member(w, "verifiers", '[');
    for (int i = 0; i < p->jurors; i++)
        tt_json_put_text(w, p->juror[i].name);
    tt_json_close(w, ']');
    tt_json_int_member(w, "steps", (int64_t)r->stages);
    tt_json_int_member(w, "candidates", r->candidates);
    tt_json_int_member(w, "forwards", r->forwards);
    tt_json_int_member(w, "pictures_decoded", r->decoded);
    tt_json_int_member(w, "pictures_scored", r->scored);
    tt_json_float_member(w, "ms", r->ms);
    tt_json_text_member(w, "finish", r->budget ? "budget" : "done");
    tt_json_close(w, '}');
}

void tt_search_write_result(const tt_picture_search_spec *p, const tt_search_report *r, size_t i,
                            tt_json *w)
{
    if (i >= r->results)
        return;
    tt_json_int_member(w, "candidate", r->result[i].index);
    tt_json_float_member(w, "score", r->result[i].score);
    tt_json_open_member(w, "scores", '{');
    for (int k = 0; k < p->jurors; k++)
        tt_json_float_member(w, p->juror[k].name, r->result[i].each[k]);
    tt_json_close(w, '}');
}

void tt_search_write_stage(const tt_search_report *r, size_t i, tt_json *w)
{
    const tt_search_stage *t = &r->stage[i];
    tt_json_int_member(w, "step", t->step);
    tt_json_int_member(w, "tokens", t->tokens);
    tt_json_open_member(w, "candidates", '[');
    for (size_t k = 0; k < t->entries; k++) {
        const tt_search_entry *c = &r->entry[t->first + k];
        tt_json_open(w, '{');
        tt_json_int_member(w, "index", c->index);
        if (c->parent < 0)
            tt_json_null_member(w, "parent");
        else
            tt_json_int_member(w, "parent", c->parent);
        tt_json_float_member(w, "score", c->score);
        tt_json_bool_member(w, "kept", c->kept);
        tt_json_close(w, '}');
    }
    tt_json_close(w, ']');
}
