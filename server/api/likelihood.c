/* likelihood.c - POST /v1/likelihood: how probable texts are under a model.
 *
 * A masked model gives a bound of ln p by random masks with its standard error (the usual figure
 * of such models), or ln p of generating from left to right; a causal model the exact value. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/read.h"

/* MAX_VALUES: log-probabilities a request may have to keep, over all texts and samples. */
enum { DEFAULT_SAMPLES = 128, MAX_CHAIN = 1024, MAX_VALUES = 1 << 24 };

typedef struct {
    tt_score_method method;
    int32_t samples;
    const cJSON *prompt;
    const char *suffix;
} options;

static tt_status refuse_method(const tt_gen *g, const char *name, tt_err *e)
{
    return tt_fail_param(e, "method", "unsupported_value", "model '%s' has no method '%.40s'",
                         g->model->id, name);
}

static tt_status read_options(const tt_gen *g, const cJSON *body, options *o, tt_err *e)
{
    bool masked = g->model->info.kinds & TT_KIND_BIDIRECTIONAL;
    bool blocks = g->model->info.kinds & TT_KIND_BLOCKS;
    bool causal = g->model->info.kinds & TT_KIND_CAUSAL;
    tt_score_method usual = masked   ? TT_SCORE_MONTE_CARLO
                            : blocks ? TT_SCORE_LEFT_TO_RIGHT
                                     : TT_SCORE_EXACT;
    const char *name = tt_field_text(body, "method", tt_score_name(usual));
    int m = 0;
    while (m <= TT_SCORE_EXACT && strcmp(tt_score_name((tt_score_method)m), name))
        m++;
    if (m > TT_SCORE_EXACT)
        return tt_fail_param(e, "method", "invalid_value",
                             "'method' is '%.40s', must be monte_carlo, left_to_right or exact",
                             name);
    o->method = (tt_score_method)m;
    bool has[] = {masked, masked || blocks, causal};
    if (!has[o->method])
        return refuse_method(g, name, e);
    if (o->method != TT_SCORE_MONTE_CARLO && tt_json_get(body, "samples"))
        return tt_fail_param(e, "samples", "unsupported_parameter",
                             "method '%s' takes no samples: nothing is random", name);
    o->samples = (int32_t)tt_field_int(body, "samples", DEFAULT_SAMPLES);
    o->prompt = tt_json_get(body, "prompt");
    o->suffix = tt_field_text(body, "suffix", "");
    if (*o->suffix && !masked)
        return tt_fail_param(e, "suffix", "unsupported_parameter",
                             "model '%s' cannot see a suffix", g->model->id);
    return TT_OK;
}

static tt_status add_prompt(const tt_gen *g, tt_canvas *c, const cJSON *prompt, tt_err *e)
{
    const char *text = "";
    tt_ids ids = {0};
    tt_status s = prompt ? tt_read_text_or_ids(g, prompt, "prompt", &text, &ids, e) : TT_OK;
    if (!s && text && (g->model->tok || *text))
        s = tt_canvas_add_text(g, c, text, TT_TOK_ADD_SPECIAL, "prompt", e);
    else if (!s && !text)
        s = tt_canvas_add_ids(g, c, ids.id, ids.count, "prompt", e);
    tt_ids_free(&ids);
    return s;
}

/* Texts follow the special tokens that begin one; ids are taken as they are. */
static tt_status add_target(tt_gen *g, const options *o, const cJSON *node, const char *path,
                            tt_err *e)
{
    const char *text;
    tt_ids ids = {0};
    tt_canvas *c = tt_gen_add_canvas(g, e);
    tt_status s = c ? tt_read_text_or_ids(g, node, path, &text, &ids, e) : e->status;
    if (!s && text && !g->model->tok)
        s = tt_fail_param(e, path, "unsupported_value",
                          "model '%s' has no tokenizer; send token ids", g->model->id);
    if (!s && text)
        s = tt_tok_encode(g->model->tok, text, strlen(text),
                          g->special_tokens ? TT_TOK_PARSE_SPECIAL : 0, &ids, e);
    if (!s && (o->prompt || text))
        s = add_prompt(g, c, o->prompt, e);
    if (!s)
        s = tt_canvas_add_target(g, c, ids.id, ids.count, path, e);
    if (!s && *o->suffix)
        s = tt_canvas_add_text(g, c, o->suffix, 0, "suffix", e);
    tt_ids_free(&ids);
    if (s)
        return s;
    int32_t targets = tt_canvas_targets(c);
    if (!targets)
        return tt_fail_param(e, path, "invalid_value", "'%s' has no token that could be scored",
                             path);
    if (o->method == TT_SCORE_LEFT_TO_RIGHT && targets > MAX_CHAIN)
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' has %d tokens; method left_to_right takes at most %d", path,
                             targets, MAX_CHAIN);
    tt_canvas_score(g, c, o->method, o->samples);
    g->reading.values += (int64_t)c->samples * (int64_t)c->ids.count;
    return g->reading.values <= MAX_VALUES
               ? TT_OK
               : tt_fail_param(e, path, "invalid_value",
                               "samples times tokens, over all texts, are more than %d",
                               MAX_VALUES);
}

/* A string, ids, or a list of either. */
static tt_status add_texts(tt_gen *g, const options *o, const cJSON *node, tt_err *e)
{
    const cJSON *m;
    int i = 0;
    if (cJSON_IsString(node) || cJSON_IsNumber(node->child))
        return add_target(g, o, node, "text", e);
    if (!node->child)
        return tt_fail_param(e, "text", "invalid_value", "'text' is empty");
    cJSON_ArrayForEach(m, node)
    {
        tt_status s = add_target(g, o, m, tt_json_element("text", i++).text, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status add_choices(tt_gen *g, const options *o, const cJSON *list, tt_err *e)
{
    const cJSON *m;
    int i = 0;
    if (!list->child)
        return tt_fail_param(e, "choices", "invalid_value", "'choices' is empty");
    cJSON_ArrayForEach(m, list)
    {
        tt_status s = add_target(g, o, m, tt_json_element("choices", i++).text, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status read_likelihood(tt_gen *g, const cJSON *body, tt_err *e)
{
    static const char *const one_of[] = {"text", "continuation", "choices"};
    const cJSON *given[3];
    options o;
    int n = 0;
    for (int i = 0; i < 3; i++) {
        given[i] = tt_json_get(body, one_of[i]);
        n += given[i] != NULL;
    }
    if (n != 1)
        return tt_fail_param(e, n ? given[0] ? "text" : "continuation" : "text",
                             n ? "invalid_value" : "missing_required_parameter",
                             "exactly one of 'text', 'continuation' and 'choices' must be given");
    tt_status s = read_options(g, body, &o, e);
    if (s)
        return s;
    if (given[0] && o.prompt)
        return tt_fail_param(e, "prompt", "invalid_value",
                             "'text' is scored whole; behind a prompt, send a 'continuation'");
    g->reading.method = o.method;
    g->reading.choices = given[2] != NULL;
    return given[0]   ? add_texts(g, &o, given[0], e)
           : given[1] ? add_target(g, &o, given[1], "continuation", e)
                      : add_choices(g, &o, given[2], e);
}

/* --- writing --- */

static void write_tokens(const tt_gen *g, const tt_canvas *c, const tt_score *x, tt_json *w)
{
    tt_json_open_member(w, "tokens", '[');
    for (size_t i = 0; i < c->ids.count; i++) {
        size_t n = 0;
        const char *p = g->model->tok ? tt_tok_piece(g->model->tok, c->ids.id[i], &n) : NULL;
        if (c->open.data[i])
            tt_json_put_bytes(w, p ? p : "", p ? n : 0);
    }
    tt_json_close(w, ']');
    tt_json_open_member(w, "token_ids", '[');
    for (size_t i = 0; i < c->ids.count; i++)
        if (c->open.data[i])
            tt_json_put_int(w, c->ids.id[i]);
    tt_json_close(w, ']');
    tt_json_open_member(w, "token_logprobs", '[');
    for (int32_t i = 0; i < x->tokens; i++)
        tt_json_put_float(w, x->token[i]);
    tt_json_close(w, ']');
}

static void write_score(const tt_gen *g, int index, const tt_score *x, double share, tt_json *w)
{
    tt_json_open(w, '{');
    tt_json_int_member(w, "index", index);
    tt_json_text_member(w, "object", "likelihood.score");
    tt_json_float_member(w, "logprob", x->logprob);
    tt_json_float_member(w, "standard_error", x->standard_error);
    tt_json_int_member(w, "token_count", x->tokens);
    tt_json_float_member(w, "logprob_per_token", x->logprob / x->tokens);
    tt_json_float_member(w, "perplexity", exp(-x->logprob / x->tokens));
    if (g->reading.choices)
        tt_json_float_member(w, "probability", share);
    write_tokens(g, &g->canvas[index], x, w);
    tt_json_close(w, '}');
}

static void write_all(const tt_gen *g, const tt_score *x, tt_json *w)
{
    double *logprob = calloc((size_t)g->canvases, sizeof *logprob);
    double *share = calloc((size_t)g->canvases, sizeof *share);
    int best = 0;
    for (int i = 0; i < g->canvases && logprob && share; i++) {
        logprob[i] = x[i].logprob;
        best = logprob[i] > logprob[best] ? i : best;
    }
    if (logprob && share)
        tt_score_share(logprob, g->canvases, share);
    tt_json_text_member(w, "method", tt_score_name(g->reading.method));
    if (g->reading.choices)
        tt_json_int_member(w, "best", best);
    tt_json_open_member(w, "data", '[');
    for (int i = 0; i < g->canvases; i++)
        write_score(g, i, &x[i], share ? share[i] : NAN, w);
    tt_json_close(w, ']');
    free(logprob);
    free(share);
}

static void likelihood_answer(const tt_gen *g, tt_json *w)
{
    tt_score *x = calloc((size_t)g->canvases, sizeof *x);
    const tt_choice *sample = g->choice;
    tt_err e = {0};
    tt_status s = x ? TT_OK : TT_ENOMEM;
    for (int i = 0; i < g->canvases && !s; sample += g->canvas[i++].samples)
        s = tt_score_sum(g, &g->canvas[i], sample, g->reading.method, &x[i], &e);
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", g->id);
    tt_json_text_member(w, "object", "likelihood");
    tt_json_int_member(w, "created", g->created);
    tt_json_text_member(w, "model", g->model->id);
    if (!s)
        write_all(g, x, w);
    tt_read_write_end(g, w);
    tt_json_close(w, '}');
    if (s)
        w->out->failed = true;
    for (int i = 0; x && i < g->canvases; i++)
        free(x[i].token);
    free(x);
}

const tt_endpoint tt_endpoint_likelihood = {
    .on = TT_ON_LIKELIHOOD,
    .reads = true,
    .id_prefix = "like-",
    .object = "likelihood",
    .read = read_likelihood,
    .answer = likelihood_answer,
};
