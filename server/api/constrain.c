/* constrain.c - what an answer or a hole must match, from a request to its columns. */
#include "server/api/constrain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the model's tokens --- */

/* An id that cannot be chosen anyway is none of the grammar's tokens, so that every text it thinks
 * possible is. */
static const char *piece(const void *arg, int32_t id, size_t *bytes)
{
    const tt_gen *g = arg;
    int32_t low = 0, high = g->n_bias;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (g->bias[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    bool banned = low < g->n_bias && g->bias[low].id == id && isinf(g->bias[low].value);
    if (banned || id == g->model->info.mask_id || tt_tok_is_special(g->model->tok, id))
        return NULL;
    return tt_tok_piece(g->model->tok, id, bytes);
}

static tt_status open_grammar(tt_gen *g, const char *regex, size_t bytes, const char *path,
                              tt_grammar **out, tt_err *e)
{
    const tt_served *m = g->model;
    if (!m->tok)
        return tt_fail_param(e, path, "unsupported_value", "model '%s' has no tokenizer", m->id);
    if (!tt_tok_concatenates(m->tok))
        return tt_fail_param(e, path, "unsupported_value",
                             "the tokenizer of model '%s' (%s) writes tokens otherwise at the ends "
                             "of a text; constraints cannot follow it", m->id, tt_tok_kind(m->tok));
    int64_t vocab = tt_tok_vocab(m->tok);
    vocab = vocab < m->info.vocab ? vocab : m->info.vocab;
    tt_alphabet a = {.vocab = (int32_t)vocab, .piece = piece, .arg = g, .stop = m->stop_id,
                     .stops = m->stop_ids};
    tt_status s = tt_grammar_open(out, regex, bytes, &a, e);
    if (s != TT_EINVAL)
        return s;
    tt_err why = *e;
    return tt_fail_param(e, path, "invalid_value", "'%s': %s", path, why.text);
}

/* --- fields --- */

static tt_status read_regex(tt_gen *g, const cJSON *m, const char *path, tt_grammar **out,
                            tt_err *e)
{
    const char *text;
    tt_status s = tt_json_text(m, path, &text, e);
    return s ? s : open_grammar(g, text, strlen(text), path, out, e);
}

/* blank: one may stand in front, as tokens of text behind a prompt often begin with it. schema
 * NULL: any object. */
static tt_status read_schema(tt_gen *g, const cJSON *schema, const char *path, bool blank,
                             tt_grammar **out, tt_err *e)
{
    tt_buf regex = {0};
    tt_buf_puts(&regex, blank ? " ?" : "");
    tt_status s = TT_OK;
    if (schema)
        s = tt_schema_regex(schema, path, &regex, e);
    else
        tt_schema_any_object(&regex);
    if (!s && regex.failed)
        s = tt_fail(e, TT_ENOMEM, "no memory for a schema");
    if (!s)
        s = open_grammar(g, tt_buf_text(&regex), regex.size, path, out, e);
    tt_buf_free(&regex);
    return s;
}

static tt_status read_wrapped_schema(tt_gen *g, const cJSON *format, bool blank, tt_grammar **out,
                                     tt_err *e)
{
    static const char path[] = "response_format.json_schema";
    static const char *const known[] = {"name", "description", "strict", "schema"};
    const cJSON *m, *wrap = tt_json_get(format, "json_schema");
    if (!wrap)
        return tt_fail_param(e, path, "missing_required_parameter", "'%s' is missing", path);
    tt_status s = tt_json_is_object(wrap, path, e);
    if (s)
        return s;
    cJSON_ArrayForEach(m, wrap)
    {
        int i = 0;
        while (i < 4 && strcmp(known[i], m->string))
            i++;
        if (i == 4)
            return tt_fail_param(e, tt_json_member(path, m->string).text, "unknown_parameter",
                                 "unknown parameter '%s.%.40s'", path, m->string);
    }
    tt_json_path at = tt_json_member(path, "schema");
    const cJSON *schema = tt_json_get(wrap, "schema");
    if (!schema)
        return tt_fail_param(e, at.text, "missing_required_parameter", "'%s' is missing", at.text);
    return read_schema(g, schema, at.text, blank, out, e);
}

static tt_status read_response_format(tt_gen *g, const cJSON *format, bool blank,
                                      tt_grammar **out, tt_err *e)
{
    const char *type;
    const cJSON *node = tt_json_get(format, "type");
    if (!node)
        return tt_fail_param(e, "response_format.type", "missing_required_parameter",
                             "'response_format.type' is missing");
    tt_status s = tt_json_text(node, "response_format.type", &type, e);
    if (s || !strcmp(type, "text"))
        return s;
    if (!strcmp(type, "json_object"))
        return read_schema(g, NULL, "response_format", blank, out, e);
    if (!strcmp(type, "json_schema"))
        return read_wrapped_schema(g, format, blank, out, e);
    return tt_fail_param(e, "response_format.type", "unsupported_value",
                         "'response_format.type' is '%.40s', must be text, json_object or "
                         "json_schema", type);
}

static tt_status keep_path(tt_gen *g, const char *path, const char **out, tt_err *e)
{
    *out = tt_gen_keep(g, path, strlen(path));
    return *out ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the request");
}

/* What a caller may say about tokens at positions does not go with a form of the whole. */
static tt_status refuse_steering(const cJSON *object, const char *path, const char *of, tt_err *e)
{
    static const char *const names[] = {"force", "ban", "allow"};
    for (int i = 0; i < 3; i++)
        if (tt_json_get(object, names[i])) {
            tt_json_path at = tt_json_member(path, names[i]);
            return tt_fail_param(e, at.text, "unsupported_parameter",
                                 "'%s' and '%s' exclude each other", at.text, of);
        }
    return TT_OK;
}

static tt_status read_form(tt_gen *g, const cJSON *body, tt_err *e)
{
    static const char *const members[] = {"regex", "json_schema"};
    const cJSON *format = tt_json_get(body, "response_format"), *node[2];
    bool blank = g->endpoint->on == TT_ON_COMPLETIONS;
    tt_json_path at[2];
    tt_status s = TT_OK;
    for (int i = 0; i < 2 && !s; i++)
        s = tt_extension_find(body, members[i], &node[i], &at[i], e);
    if (s)
        return s;
    if (node[0] && node[1])
        return tt_fail_param(e, at[1].text, "invalid_value", "'%s' and '%s' exclude each other",
                             at[1].text, at[0].text);
    int given = node[0] ? 0 : node[1] ? 1 : -1;
    if (format)
        s = read_response_format(g, format, blank, &g->form, e);
    if (!s && g->form && given >= 0)
        s = tt_fail_param(e, at[given].text, "invalid_value",
                          "'%s' and 'response_format' exclude each other", at[given].text);
    if (!s && node[0])
        s = read_regex(g, node[0], at[0].text, &g->form, e);
    if (!s && node[1])
        s = read_schema(g, node[1], at[1].text, blank, &g->form, e);
    return s || !g->form
               ? s
               : keep_path(g, given < 0 ? "response_format" : at[given].text, &g->form_path, e);
}

tt_status tt_gen_read_format(tt_gen *g, const cJSON *body, tt_err *e)
{
    if (g->form_read)
        return TT_OK;
    g->form_read = true;
    tt_status s = read_form(g, body, e);
    if (!s && g->form)
        s = refuse_steering(tt_json_get(body, "tutti"), "tutti", g->form_path, e);
    if (!s && g->form && tt_json_get(body, "min_tokens"))
        s = tt_fail_param(e, "min_tokens", "unsupported_parameter",
                          "'min_tokens' and '%s' exclude each other", g->form_path);
    return s;
}

tt_status tt_hole_read_format(tt_gen *g, const cJSON *hole, const char *path, tt_grammar **out,
                              const char **at, tt_err *e)
{
    const cJSON *regex = tt_json_get(hole, "regex"), *schema = tt_json_get(hole, "json_schema");
    tt_json_path field = tt_json_member(path, schema ? "json_schema" : "regex");
    if (!regex && !schema)
        return TT_OK;
    if (regex && schema)
        return tt_fail_param(e, field.text, "invalid_value", "'%s' and 'regex' exclude each other",
                             field.text);
    tt_status s = refuse_steering(hole, path, schema ? "json_schema" : "regex", e);
    if (!s)
        s = keep_path(g, field.text, at, e);
    if (s)
        return s;
    return regex ? read_regex(g, regex, field.text, out, e)
                 : read_schema(g, schema, field.text, true, out, e);
}

/* --- columns --- */

tt_status tt_constrain_check(const tt_grammar *g, int64_t least, int64_t most, const char *path,
                             tt_err *e)
{
    for (int64_t n = least; n <= most; n++)
        if (tt_grammar_fits(g, (int32_t)n, false))
            return TT_OK;
    char range[64] = "";
    if (least < most)
        snprintf(range, sizeof range, "%lld to ", (long long)least);
    return tt_fail_param(e, path, "constraint_unsatisfiable",
                         "no text of %s%lld tokens matches '%s'", range, (long long)most, path);
}

tt_status tt_canvas_constrain(tt_canvas *c, tt_grammar *g, int32_t begin, int32_t end, bool ends,
                              const char *path, tt_err *e)
{
    if (!tt_grammar_fits(g, end - begin, ends))
        return tt_fail_param(e, path, "constraint_unsatisfiable",
                             "no text of %s%d tokens matches '%s'", ends ? "at most " : "",
                             end - begin, path);
    tt_constraint *more = realloc(c->constraint, ((size_t)c->constraints + 1) * sizeof *more);
    if (!more)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    c->constraint = more;
    more[c->constraints++] = (tt_constraint){begin, end, tt_grammar_share(g), ends};
    return TT_OK;
}
