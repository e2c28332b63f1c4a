/* text_search.c - see text_search.h. */
#include "server/api/text_search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "samplers/rules.h"
#include "server/api/search.h"

typedef enum { BY_LIKELIHOOD, BY_REGEX, BY_LENGTH, BY_JSON, BY_PROGRAM } means;

typedef struct {
    char name[64];
    means by;
    double weight;
    tt_grammar *regex;
    int64_t min, max;
    const tt_scorer *program;
    float *score; /* of every choice */
} member;

struct tt_text_search {
    member list[TT_MAX_JURY];
    int members;
    tt_mix_rule mix;
    float *score; /* of every choice */
    int at, first; /* member that scores, and the first choice of the prompt it is at */
    tt_scoring *asked;
    bool done;
    int64_t began_ns;
    double ms;
};

/* --- reading --- */

static const struct {
    const char *name;
    means by;
} rules[] = {{"likelihood", BY_LIKELIHOOD},
             {"regex", BY_REGEX},
             {"length", BY_LENGTH},
             {"json", BY_JSON}};

static tt_status find_means(const tt_gen *g, member *m, const char *path, tt_err *e)
{
    const tt_served *served = tt_engine_find(g->api->engine, m->name);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strcmp(rules[i].name, m->name)) {
            m->by = rules[i].by;
            return TT_OK;
        }
    m->by = BY_PROGRAM;
    for (int i = 0; i < g->api->scorers && !m->program; i++)
        if (!strcmp(g->api->scorer[i].name, m->name))
            m->program = &g->api->scorer[i];
    if (m->program)
        return TT_OK;
    if (served && served->verifier)
        return tt_fail_param(e, path, "unsupported_value",
                             "verifier '%.60s' looks at pictures, not at texts", m->name);
    return tt_fail_param(e, path, "model_not_found",
                         "there is no verifier '%.60s' of texts: likelihood, regex, length, json, "
                         "or a program given to the server with --verifier-http",
                         m->name);
}

static tt_status read_pattern(member *m, const cJSON *node, const char *path, tt_err *e)
{
    const char *text;
    tt_err why = {0};
    tt_status s = tt_json_text(node, path, &text, e);
    if (s || !tt_rule_regex_open(&m->regex, text, strlen(text), &why))
        return s;
    return why.status == TT_EINVAL || why.status == TT_EUNSUP
               ? tt_fail_param(e, path, "invalid_value", "'%s': %s", path, why.text)
               : tt_fail(e, why.status, "%s", why.text);
}

static tt_status read_member_field(member *m, const cJSON *node, const char *parent, tt_err *e)
{
    tt_json_path path = tt_json_member(parent, node->string);
    if (!strcmp(node->string, "weight"))
        return tt_json_number(node, path.text, 0, 1e6, &m->weight, e);
    if (!strcmp(node->string, "pattern") && m->by == BY_REGEX)
        return read_pattern(m, node, path.text, e);
    bool min = !strcmp(node->string, "min");
    if ((min || !strcmp(node->string, "max")) && m->by == BY_LENGTH)
        return tt_json_int(node, path.text, 0, INT32_MAX, min ? &m->min : &m->max, e);
    return strcmp(node->string, "name")
               ? tt_fail_param(e, path.text, "unknown_parameter", "unknown parameter '%s'",
                               path.text)
               : TT_OK;
}

static tt_status read_member(tt_gen *g, const cJSON *node, const char *path, tt_err *e)
{
    member *m = &g->search->list[g->search->members++];
    const cJSON *child, *object = cJSON_IsObject(node) ? node : NULL;
    const cJSON *name = object ? tt_json_get(object, "name") : node;
    *m = (member){.weight = 1, .max = INT32_MAX};
    if (!cJSON_IsString(name) || strlen(name->valuestring) >= sizeof m->name)
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' must be the name of a verifier, or {\"name\", \"weight\"}",
                             path);
    snprintf(m->name, sizeof m->name, "%s", name->valuestring);
    tt_status s = find_means(g, m, path, e);
    cJSON_ArrayForEach(child, object)
    {
        if (!s)
            s = read_member_field(m, child, path, e);
    }
    if (!s && m->by == BY_REGEX && !m->regex)
        return tt_fail_param(e, path, "missing_required_parameter",
                             "'%s' needs a 'pattern': the regular expression", path);
    return s;
}

static tt_status read_members(tt_gen *g, const cJSON *node, tt_err *e)
{
    const char *path = "tutti.search.verifier";
    const cJSON *list = tt_json_get(node, "verifier");
    bool several = cJSON_IsArray(list);
    int n = several ? cJSON_GetArraySize(list) : 1;
    double sum = 0;
    if (!list)
        return tt_fail_param(e, path, "missing_required_parameter",
                             "'%s' is missing: who scores the answers", path);
    if (n < 1 || n > TT_MAX_JURY)
        return tt_fail_param(e, path, "invalid_value", "'%s' has %d members, must have 1 to %d",
                             path, n, TT_MAX_JURY);
    for (int i = 0; i < n; i++) {
        tt_json_path one = tt_json_element(path, i);
        tt_status s = read_member(g, several ? cJSON_GetArrayItem(list, i) : list,
                                  several ? one.text : path, e);
        for (int k = 0; k < i && !s; k++)
            if (!strcmp(g->search->list[k].name, g->search->list[i].name))
                s = tt_fail_param(e, one.text, "invalid_value", "'%s' names '%.60s' again",
                                  one.text, g->search->list[i].name);
        if (s)
            return s;
        sum += g->search->list[i].weight;
    }
    return sum > 0 ? TT_OK
                   : tt_fail_param(e, path, "invalid_value", "'%s' has no weight above 0", path);
}

/* Texts have no prefixes worth scoring, so only whole answers compete. */
static tt_status check_algorithm(const cJSON *node, tt_err *e)
{
    const char *name = tt_field_text(node, "algorithm", "best_of");
    const tt_search_def *a = tt_search_find(name);
    if (!a)
        return tt_fail_param(e, "tutti.search.algorithm", "invalid_value",
                             "'tutti.search.algorithm' is '%.40s', must be best_of", name);
    if (a->by_steps)
        return tt_fail_param(e, "tutti.search.algorithm", "unsupported_value",
                             "%s prunes by pictures of unfinished candidates; unfinished texts "
                             "cannot be scored: use best_of",
                             name);
    return TT_OK;
}

static tt_status read_numbers(tt_gen *g, const cJSON *body, const cJSON *node, tt_err *e)
{
    int64_t results = tt_field_int(node, "results", g->n);
    bool best_of = tt_json_get(body, "best_of") != NULL;
    int64_t samples = tt_field_int(node, "samples", best_of ? g->made : g->n > 8 ? g->n : 8);
    if (tt_json_get(body, "n") && results != g->n)
        return tt_fail_param(e, "tutti.search.results", "invalid_value",
                             "'tutti.search.results' is %lld, 'n' is %d: they mean the same",
                             (long long)results, g->n);
    if (best_of && samples != g->made)
        return tt_fail_param(e, "tutti.search.samples", "invalid_value",
                             "'tutti.search.samples' is %lld, 'best_of' is %d: they mean the same",
                             (long long)samples, g->made);
    if (samples > 128 || results > samples)
        return tt_fail_param(e, "tutti.search.samples", "invalid_value",
                             "'tutti.search.samples' is %lld, must be in %lld..128",
                             (long long)samples, (long long)results);
    g->n = (int32_t)results;
    g->made = (int32_t)samples;
    return TT_OK;
}

tt_status tt_text_search_read(tt_gen *g, const cJSON *body, tt_err *e)
{
    const cJSON *node = tt_json_get(tt_json_get(body, "tutti"), "search");
    if (!node)
        return TT_OK;
    g->search = calloc(1, sizeof *g->search);
    if (!g->search)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    tt_status s = tt_search_check(node, TT_ON_COMPLETIONS, e);
    if (!s)
        s = check_algorithm(node, e);
    if (!s)
        s = tt_search_read_mode(node, &g->search->mix, e);
    if (!s)
        s = read_members(g, node, e);
    if (!s)
        s = read_numbers(g, body, node, e);
    if (!s && g->stream)
        s = tt_fail_param(e, "tutti.search", "unsupported_parameter",
                          "which answers are best shows at the end: no 'stream'");
    return s;
}

void tt_text_search_free(tt_text_search *s)
{
    if (!s)
        return;
    tt_scoring_end(s->asked);
    for (int i = 0; i < s->members; i++) {
        tt_grammar_close(s->list[i].regex);
        free(s->list[i].score);
    }
    free(s->score);
    free(s);
}

/* --- scoring --- */

/* The answer's text, without the prompt that `echo` puts in front. */
static void answer_of(const tt_choice *c, tt_buf *out)
{
    for (int k = 0; k < c->canvas->holes; k++)
        if (c->out[k].ready)
            tt_buf_add(out, c->out[k].text.data, c->out[k].ready);
}

static float by_rule(const member *m, const tt_choice *c)
{
    tt_buf text = {0};
    float score = 0;
    cJSON *tree = NULL;
    if (m->by == BY_LIKELIHOOD)
        return (float)tt_choice_likelihood(c);
    answer_of(c, &text);
    if (m->by == BY_REGEX)
        score = tt_rule_regex(m->regex, tt_buf_text(&text), text.size);
    else if (m->by == BY_LENGTH)
        score = tt_rule_length(tt_buf_text(&text), text.size, m->min, m->max);
    else
        score = !tt_json_parse(&tree, tt_buf_text(&text), text.size, NULL);
    cJSON_Delete(tree);
    tt_buf_free(&text);
    return score;
}

/* A question is written whole before it is asked: the answers do not change any more, but the
 * request may go. */
static void write_question(const void *arg, tt_buf *out)
{
    const tt_buf *b = arg;
    tt_buf_add(out, b->data, b->size);
}

static void drop_question(void *arg)
{
    tt_buf_free(arg);
    free(arg);
}

static void put_candidate(const tt_choice *c, tt_json *w)
{
    tt_buf text = {0};
    answer_of(c, &text);
    tt_json_open(w, '{');
    tt_json_key(w, "text");
    tt_json_put_bytes(w, tt_buf_text(&text), text.size);
    tt_json_open_member(w, "tokens", '[');
    for (int k = 0; k < c->canvas->holes; k++)
        for (int32_t i = c->out[k].begin; i < c->out[k].end && i < c->view.end; i++)
            tt_json_put_int(w, c->view.id[i]);
    tt_json_close(w, ']');
    tt_json_float_member(w, "logprob", tt_choice_likelihood(c));
    tt_json_close(w, '}');
    tt_buf_free(&text);
}

static void put_question(const tt_gen *g, int first, tt_buf *out)
{
    const tt_canvas *c = g->choice[first].canvas;
    tt_json w = {.out = out};
    tt_buf prompt = {0};
    int32_t begin = c->holes ? g->choice[first].out[0].begin : 0;
    tt_json_open(&w, '{');
    tt_json_key(&w, "prompt");
    const tt_tok *tok = g->model->tok;
    if (tok && !tt_tok_decode(tok, c->ids.id, (size_t)begin, true, &prompt, NULL))
        tt_json_put_bytes(&w, tt_buf_text(&prompt), prompt.size);
    else
        tt_json_put_null(&w);
    tt_json_open_member(&w, "candidates", '[');
    for (int i = 0; i < g->made; i++)
        put_candidate(&g->choice[first + i], &w);
    tt_json_close(&w, ']');
    tt_json_close(&w, '}');
    tt_buf_free(&prompt);
}

static tt_status ask(tt_gen *g, const member *m, tt_err *e)
{
    tt_text_search *s = g->search;
    tt_buf *b = calloc(1, sizeof *b);
    if (!b)
        return tt_fail(e, TT_ENOMEM, "no memory for the answers");
    put_question(g, s->first, b);
    tt_question q = {write_question, drop_question, b};
    return tt_scoring_begin(&s->asked, m->program, &q, g->made, g->wake, g->wake_arg, e);
}

/* The answers of one prompt by one program; *waits: there is no answer yet. */
static tt_status by_program(tt_gen *g, member *m, bool *waits, tt_err *e)
{
    tt_text_search *s = g->search;
    tt_status st = s->asked ? TT_OK : ask(g, m, e);
    *waits = !st && !tt_scoring_done(s->asked);
    if (st || *waits)
        return st;
    st = tt_scoring_take(s->asked, m->score + s->first, e);
    tt_scoring_end(s->asked);
    s->asked = NULL;
    return st;
}

/* The next prompt by the next member. */
static tt_status score_next(tt_gen *g, bool *waits, tt_err *e)
{
    tt_text_search *s = g->search;
    member *m = &s->list[s->at];
    tt_status st = TT_OK;
    if (m->by == BY_PROGRAM)
        st = by_program(g, m, waits, e);
    for (int i = 0; i < g->made && m->by != BY_PROGRAM; i++)
        m->score[s->first + i] = by_rule(m, &g->choice[s->first + i]);
    if (st || *waits)
        return st;
    s->first += g->made;
    if (s->first >= g->choices) {
        s->first = 0;
        s->at++;
    }
    return TT_OK;
}

static tt_status mix_all(tt_gen *g, tt_err *e)
{
    tt_text_search *s = g->search;
    tt_status st = TT_OK;
    for (int first = 0; first < g->choices && !st; first += g->made) {
        tt_mix_part part[TT_MAX_JURY];
        for (int i = 0; i < s->members; i++)
            part[i] = (tt_mix_part){s->list[i].score + first, s->list[i].weight};
        if (s->members > 1)
            st = tt_mix(s->score + first, part, s->members, g->made, s->mix, e);
        else
            memcpy(s->score + first, s->list[0].score + first, (size_t)g->made * sizeof *s->score);
    }
    s->done = true;
    s->ms = (double)(tt_now_ns() - s->began_ns) * 1e-6;
    return st;
}

static tt_status make_room(tt_gen *g, tt_err *e)
{
    tt_text_search *s = g->search;
    size_t n = (size_t)g->choices;
    bool ok = s->score || (s->score = calloc(n, sizeof *s->score));
    for (int i = 0; i < s->members && ok; i++)
        ok = s->list[i].score || (s->list[i].score = calloc(n, sizeof *s->score));
    s->began_ns = s->began_ns ? s->began_ns : tt_now_ns();
    return ok ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the scores");
}

bool tt_text_search_advance(tt_gen *g)
{
    tt_text_search *s = g->search;
    tt_err e = {0};
    bool waits = false;
    if (s->done)
        return true;
    tt_status st = make_room(g, &e);
    while (!st && !waits && s->at < s->members)
        st = score_next(g, &waits, &e);
    if (!st && !waits)
        st = mix_all(g, &e);
    if (st)
        tt_gen_fail(g, &e);
    return st || !waits;
}

/* --- answers --- */

double tt_text_search_score(const tt_gen *g, const tt_choice *c)
{
    return (double)g->search->score[c->index];
}

void tt_text_search_write_choice(const tt_gen *g, const tt_choice *c, tt_json *w)
{
    const tt_text_search *s = g->search;
    tt_json_float_member(w, "score", (double)s->score[c->index]);
    tt_json_open_member(w, "scores", '{');
    for (int i = 0; i < s->members; i++)
        tt_json_float_member(w, s->list[i].name, (double)s->list[i].score[c->index]);
    tt_json_close(w, '}');
}

void tt_text_search_write(const tt_gen *g, tt_json *w)
{
    int64_t nfe = 0;
    for (int i = 0; i < g->choices; i++)
        nfe += g->choice[i].view.nfe;
    tt_json_open_member(w, "search", '{');
    tt_json_text_member(w, "algorithm", "best_of");
    tt_json_open_member(w, "verifiers", '[');
    for (int i = 0; i < g->search->members; i++)
        tt_json_put_text(w, g->search->list[i].name);
    tt_json_close(w, ']');
    tt_json_int_member(w, "candidates", g->choices);
    tt_json_int_member(w, "forwards", nfe);
    tt_json_float_member(w, "scoring_ms", g->search->ms);
    tt_json_text_member(w, "finish", "done");
    tt_json_close(w, '}');
}
