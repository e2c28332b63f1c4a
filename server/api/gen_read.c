/* gen_read.c - what all generation requests have in common: model, sampler, parameters, seed,
 * stops, streaming. Field names and ranges were checked before (fields.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "kernels/base/clock.h"
#include "server/api/text_search.h"

struct tt_owned {
    tt_owned *next;
    char bytes[];
};

char *tt_gen_keep(tt_gen *g, const char *bytes, size_t n)
{
    tt_owned *o = malloc(sizeof *o + n + 1);
    if (!o)
        return NULL;
    o->next = g->owned;
    g->owned = o;
    if (n)
        memcpy(o->bytes, bytes, n);
    o->bytes[n] = '\0';
    return o->bytes;
}

void tt_gen_owned_free(tt_gen *g)
{
    while (g->owned) {
        tt_owned *next = g->owned->next;
        free(g->owned);
        g->owned = next;
    }
}

void tt_gen_warn(tt_gen *g, const char *text)
{
    if (g->warnings < (int)(sizeof g->warning / sizeof *g->warning))
        g->warning[g->warnings++] = text;
}

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for the request"); }

/* --- sampler and its parameters --- */

/* Whether text follows the columns to fill. */
static bool fills_gaps(const tt_gen *g, const cJSON *body)
{
    const char *member = g->endpoint->on == TT_ON_LLAMA ? "input_suffix" : "suffix";
    return g->endpoint->on == TT_ON_INFILL || *tt_field_text(body, member, "");
}

/* When the request names none: the model's own, but for gaps the one made for them, unless the
 * family has a sampler of its own. */
static const tt_sampler *default_sampler(const tt_gen *g, const cJSON *body)
{
    const tt_sampler *gaps = fills_gaps(g, body) ? tt_sampler_find("infill") : NULL;
    const tt_model_info *info = &g->model->info;
    return gaps && !info->sampler && tt_sampler_fits(gaps, info->kinds) ? gaps : g->model->sampler;
}

static tt_status read_sampler(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *node = tt_json_get(tt_json_get(body, "tutti"), "sampler");
    g->sampler = node ? tt_sampler_find(node->valuestring) : default_sampler(g, body);
    if (!g->sampler)
        return tt_fail_param(e, "tutti.sampler", "invalid_value",
                             "there is no sampler '%.60s'; GET /v1/models lists them",
                             node ? node->valuestring : "");
    if (!tt_sampler_fits(g->sampler, g->model->info.kinds))
        return tt_fail_param(e, node ? "tutti.sampler" : "model", "unsupported_value",
                             "sampler '%s' cannot run on model '%s' (family %s)", g->sampler->name,
                             g->model->id, g->model->info.family);
    return TT_OK;
}

static tt_status read_guide(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *node = tt_json_get(tt_json_get(body, "tutti"), "guide");
    if (!node && g->sampler->needs_guide)
        return tt_fail_param(e, "tutti.guide", "missing_required_parameter",
                             "sampler '%s' needs a guide: the id of a causal model",
                             g->sampler->name);
    if (!node)
        return TT_OK;
    if (!g->sampler->needs_guide)
        return tt_fail_param(e, "tutti.guide", "unsupported_parameter",
                             "sampler '%s' takes no guide", g->sampler->name);
    g->guide = tt_engine_find(g->api->engine, node->valuestring);
    return g->guide ? TT_OK
                    : tt_fail_param(e, "tutti.guide", "model_not_found",
                                    "there is no model '%.80s'", node->valuestring);
}

/* A parameter that was set and that the sampler does not read is an error, never ignored. */
static tt_status check_unread(const tt_gen *g, const cJSON *body, tt_err *e)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    for (size_t i = 0; i < n; i++) {
        bool given = tt_params_given_at(&g->params, i);
        if (!given || tt_sampler_reads(g->sampler, &all[i]))
            continue;
        const cJSON *node;
        tt_json_path path = {0};
        tt_status s = tt_extension_find(body, all[i].name, &node, &path, e);
        return s ? s
                 : tt_fail_param(e, path.text, "unsupported_parameter",
                                 "sampler '%s' does not read '%s'", g->sampler->name, all[i].name);
    }
    return TT_OK;
}

static tt_status read_params(tt_gen *g, const cJSON *body, tt_err *e)
{
    g->params = g->model->defaults;
    memset(g->params.given, 0, sizeof g->params.given);
    tt_status s = tt_params_read(body, &g->params, e);
    if (!s)
        s = check_unread(g, body, e);
    return s;
}

/* --- numbers --- */

/* 53 random bits, so that the number survives any JSON reader. */
static int64_t random_seed(void)
{
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        bits = (uint64_t)tt_now_ns();
    return (int64_t)(bits >> 11);
}

static int by_id(const void *a, const void *b)
{
    int32_t x = ((const tt_id_value *)a)->id, y = ((const tt_id_value *)b)->id;
    return (x > y) - (x < y);
}

/* One entry of logit_bias. -100 bans the token, as in OpenAI's interface. */
static tt_status read_bias_entry(const tt_gen *g, const cJSON *m, tt_id_value *out, tt_err *e)
{
    tt_json_path path = tt_json_member("logit_bias", m->string);
    char *end;
    long id = strtol(m->string, &end, 10);
    if (m->string[0] < '0' || m->string[0] > '9' || *end || id >= g->model->info.vocab)
        return tt_fail_param(e, path.text, "invalid_value",
                             "'%.40s' is not a token id of this model (0..%lld)", m->string,
                             (long long)g->model->info.vocab - 1);
    double v;
    tt_status s = tt_json_number(m, path.text, -100, 100, &v, e);
    *out = (tt_id_value){.id = (int32_t)id, .value = v <= -100 ? -INFINITY : (float)v};
    return s;
}

static tt_status read_bias(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *m, *map = tt_json_get(body, "logit_bias");
    int n = cJSON_GetArraySize(map);
    if (!map || !n)
        return TT_OK;
    g->bias = calloc((size_t)n, sizeof *g->bias);
    if (!g->bias)
        return no_memory(e);
    cJSON_ArrayForEach(m, map)
    {
        tt_status s = read_bias_entry(g, m, &g->bias[g->n_bias++], e);
        if (s)
            return s;
    }
    qsort(g->bias, (size_t)n, sizeof *g->bias, by_id);
    for (int i = 1; i < n; i++) /* "7" and "07" */
        if (g->bias[i].id == g->bias[i - 1].id)
            return tt_fail_param(e, "logit_bias", "invalid_value", "token %d is biased twice",
                                 g->bias[i].id);
    return TT_OK;
}

static tt_status read_logprobs(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *node = tt_json_get(body, "logprobs");
    if (g->endpoint->on != TT_ON_CHAT) {
        g->logprobs = node != NULL;
        g->n_top = (int32_t)tt_field_int(body, "logprobs", 0);
        return TT_OK;
    }
    g->logprobs = tt_field_bool(body, "logprobs", false);
    g->n_top = (int32_t)tt_field_int(body, "top_logprobs", 0);
    if (g->n_top && !g->logprobs)
        return tt_fail_param(e, "top_logprobs", "invalid_value",
                             "'top_logprobs' needs 'logprobs' to be true");
    return TT_OK;
}

/* --- stop strings --- */

static tt_status add_stop(tt_gen *g, const char *text, const char *path, tt_err *e)
{
    if (!*text)
        return tt_fail_param(e, path, "invalid_value", "'%s' is empty", path);
    if (!g->model->tok)
        return tt_fail_param(e, path, "unsupported_parameter",
                             "model '%s' has no tokenizer: its answers are not text",
                             g->model->id);
    g->stop[g->stops] = tt_gen_keep(g, text, strlen(text));
    return g->stop[g->stops++] ? TT_OK : no_memory(e);
}

static tt_status read_stops(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *m, *stop = tt_json_get(body, "stop");
    if (cJSON_IsString(stop))
        return add_stop(g, stop->valuestring, "stop", e);
    int i = 0;
    tt_status s = TT_OK;
    cJSON_ArrayForEach(m, stop)
    {
        if (!s)
            s = add_stop(g, m->valuestring, tt_json_element("stop", i++).text, e);
    }
    return s;
}

/* --- streaming --- */

static tt_status read_mode(tt_gen *g, const cJSON *body, tt_err *e)
{
    static const char *const names[] = {"committed", "snapshot", "delta"};
    const cJSON *node;
    tt_json_path path;
    tt_status s = tt_extension_find(body, "stream_mode", &node, &path, e);
    if (s)
        return s;
    bool diffusing = tt_field_bool(body, "diffusing", false);
    if (diffusing)
        g->mode = TT_STREAM_SNAPSHOT;
    if (!node)
        return TT_OK;
    for (int i = 0; i < 3; i++) {
        if (strcmp(node->valuestring, names[i]))
            continue;
        if (diffusing && i != TT_STREAM_SNAPSHOT)
            return tt_fail_param(e, "diffusing", "invalid_value",
                                 "'diffusing' and '%s' ask for different streams", path.text);
        g->mode = (tt_stream_mode)i;
        return TT_OK;
    }
    return tt_fail_param(e, path.text, "invalid_value",
                         "'%s' is '%.40s', must be one of committed, snapshot, delta", path.text,
                         node->valuestring);
}

static tt_status read_stream(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *stream = tt_json_get(body, "stream"), *m;
    const cJSON *options = tt_json_get(body, "stream_options");
    bool diffusing = tt_field_bool(body, "diffusing", false);
    if (diffusing && stream && !cJSON_IsTrue(stream))
        return tt_fail_param(e, "diffusing", "invalid_value", "'diffusing' needs 'stream'");
    g->stream = stream ? cJSON_IsTrue(stream) : diffusing;
    if (options && !g->stream)
        return tt_fail_param(e, "stream_options", "invalid_value",
                             "'stream_options' is only allowed when 'stream' is true");
    cJSON_ArrayForEach(m, options)
    {
        bool v = false, known = !strcmp(m->string, "include_usage") ||
                                !strcmp(m->string, "include_obfuscation");
        tt_json_path path = tt_json_member("stream_options", m->string);
        if (!known)
            return tt_fail_param(e, path.text, "unknown_parameter", "unknown parameter '%s'",
                                 path.text);
        tt_status s = cJSON_IsNull(m) ? TT_OK : tt_json_bool(m, path.text, &v, e);
        if (s)
            return s;
        if (!strcmp(m->string, "include_usage"))
            g->include_usage = v;
    }
    return read_mode(g, body, e);
}

/* --- the rest of the extension object --- */

static tt_status read_extension(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *tutti = tt_json_get(body, "tutti");
    const char *mark = tt_field_text(tutti, "placeholder", "\xE2\x96\x91");
    if (strlen(mark) > 64)
        return tt_fail_param(e, "tutti.placeholder", "invalid_value",
                             "'tutti.placeholder' has %zu bytes, at most 64 are allowed",
                             strlen(mark));
    g->placeholder = tt_gen_keep(g, mark, strlen(mark));
    g->interval_ms = tt_field_int(tutti, "stream_interval_ms", 0);
    g->trace = tt_field_bool(tutti, "trace", false);
    g->shrink = tt_field_bool(tutti, "shrink", true);
    return g->placeholder ? TT_OK : no_memory(e);
}

/* What generating and reading requests share. */
static tt_status read_shared(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *tutti = tt_json_get(body, "tutti"), *node;
    tt_json_path path;
    g->special_tokens = tt_field_bool(tutti, "special_tokens", false);
    g->deadline_ms = tt_field_int(tutti, "deadline_ms", 0);
    g->seed = tt_json_get(body, "seed") ? tt_field_int(body, "seed", 0) : random_seed();
    tt_status s = tt_extension_find(body, "priority", &node, &path, e);
    if (!s && node)
        g->priority = (int32_t)node->valuedouble;
    return s;
}

tt_status tt_gen_read_reading(tt_gen *g, const cJSON *body, tt_err *e)
{
    g->n = g->made = 1;
    return read_shared(g, body, e);
}

static tt_status read_counts(tt_gen *g, const cJSON *body, tt_err *e)
{
    g->n = (int32_t)tt_field_int(body, "n", 1);
    g->made = (int32_t)tt_field_int(body, "best_of", g->n);
    if (g->made < g->n)
        return tt_fail_param(e, "best_of", "invalid_value",
                             "'best_of' is %d, must be n (%d) or more", g->made, g->n);
    if (g->made > g->n && g->stream)
        return tt_fail_param(e, "best_of", "unsupported_parameter",
                             "which of 'best_of' answers is best shows at the end: no 'stream'");
    if (g->made > 1 && g->params.temperature == 0)
        tt_gen_warn(g, "temperature is 0: the n answers may all be the same");
    return TT_OK;
}

tt_status tt_gen_read_common(tt_gen *g, const cJSON *body, tt_err *e)
{
    static tt_status (*const steps[])(tt_gen *, const cJSON *, tt_err *) = {
        read_sampler, read_guide, read_params, read_bias, read_logprobs, read_stops, read_stream,
        read_extension, read_shared, tt_gen_read_negative, read_counts,
        tt_text_search_read,
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        tt_status s = steps[i](g, body, e);
        if (s)
            return s;
    }
    g->echo = tt_field_bool(body, "echo", false);
    if (g->logprobs && g->stream && g->mode != TT_STREAM_COMMITTED)
        tt_gen_warn(g, "logprobs are sent in stream_mode committed only");
    return TT_OK;
}
