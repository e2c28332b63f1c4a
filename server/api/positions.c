/* positions.c - tokens that are forced, banned or alone allowed at places of an answer: see
 * fit.h. */
#include <stdlib.h>
#include <string.h>

#include "server/api/fit.h"

static tt_status no_memory(tt_err *e) { return tt_fail(e, TT_ENOMEM, "no memory for the request"); }

/* An id, or a text that is one token. */
static tt_status read_token(const tt_gen *g, const cJSON *m, const char *path, int32_t *out,
                            tt_err *e)
{
    int64_t id;
    const char *text;
    if (!cJSON_IsString(m)) {
        tt_status s = tt_json_int(m, path, 0, g->model->info.vocab - 1, &id, e);
        *out = s ? -1 : (int32_t)id;
        if (!s && *out == g->model->info.mask_id)
            s = tt_fail_param(e, path, "invalid_value", "'%s' is the mask token", path);
        return s;
    }
    tt_ids ids = {0};
    tt_status s = tt_json_text(m, path, &text, e);
    if (!s && !g->model->tok)
        s = tt_fail_param(e, path, "unsupported_value", "model '%s' has no tokenizer; send ids",
                          g->model->id);
    if (!s)
        s = tt_tok_encode(g->model->tok, text, strlen(text),
                          g->special_tokens ? TT_TOK_PARSE_SPECIAL : 0, &ids, e);
    if (!s && ids.count != 1)
        s = tt_fail_param(e, path, "invalid_value", "'%s' is %zu tokens, must be one", path,
                          ids.count);
    *out = s ? -1 : ids.id[0];
    tt_ids_free(&ids);
    return s;
}

static tt_status read_position(const cJSON *m, const char *path, int64_t tokens, int32_t *out,
                               tt_err *e)
{
    char *end;
    long at = strtol(m->string, &end, 10);
    if (m->string[0] < '0' || m->string[0] > '9' || *end || at >= tokens)
        return tt_fail_param(e, path, "invalid_value",
                             "'%.40s' is not a position of the answer (0..%lld)", m->string,
                             (long long)tokens - 1);
    *out = (int32_t)at;
    return TT_OK;
}

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The tokens of one position, ascending, none twice; kept for the life of the request. */
static tt_status read_tokens(tt_gen *g, const cJSON *m, const char *path, const int32_t **out,
                             int32_t *n, tt_err *e)
{
    bool list = cJSON_IsArray(m);
    int count = list ? cJSON_GetArraySize(m) : 1, i = 0;
    if (!count)
        return tt_fail_param(e, path, "invalid_value", "'%s' is empty", path);
    int32_t *id = calloc((size_t)count, sizeof *id);
    if (!id)
        return no_memory(e);
    tt_status s = list ? TT_OK : read_token(g, m, path, id, e);
    const cJSON *one;
    if (list)
        cJSON_ArrayForEach(one, m)
        {
            if (!s)
                s = read_token(g, one, tt_json_element(path, i).text, &id[i], e);
            i++;
        }
    qsort(id, (size_t)count, sizeof *id, ascending);
    *n = 0;
    for (i = 0; i < count; i++)
        if (!*n || id[i] != id[*n - 1])
            id[(*n)++] = id[i];
    *out = s ? NULL : (const int32_t *)(void *)tt_gen_keep(g, (const char *)id,
                                                           (size_t)*n * sizeof *id);
    free(id);
    return s ? s : *out ? TT_OK : no_memory(e);
}

static tt_status read_rules(tt_gen *g, const cJSON *map, const char *path, int64_t tokens,
                            bool allow, tt_positions *p, tt_err *e)
{
    const cJSON *m;
    tt_status s = map ? tt_json_is_object(map, path, e) : TT_OK;
    if (s || !map)
        return s;
    size_t room = (size_t)(p->rules + cJSON_GetArraySize(map));
    tt_column_rule *more = realloc(p->rule, room * sizeof *more + 1);
    if (!more)
        return no_memory(e);
    p->rule = more;
    cJSON_ArrayForEach(m, map)
    {
        tt_json_path at = tt_json_member(path, m->string);
        tt_column_rule r = {.allow = allow};
        s = read_position(m, at.text, tokens, &r.begin, e);
        if (!s)
            s = read_tokens(g, m, at.text, &r.id, &r.n, e);
        if (s)
            return s;
        r.end = r.begin + 1;
        p->rule[p->rules++] = r;
    }
    return TT_OK;
}

static tt_status read_force(tt_gen *g, const cJSON *map, const char *path, int64_t tokens,
                            tt_positions *p, tt_err *e)
{
    const cJSON *m;
    tt_status s = map ? tt_json_is_object(map, path, e) : TT_OK;
    if (s || !map)
        return s;
    p->force = calloc(2 * (size_t)cJSON_GetArraySize(map) + 1, sizeof *p->force);
    if (!p->force)
        return no_memory(e);
    cJSON_ArrayForEach(m, map)
    {
        tt_json_path at = tt_json_member(path, m->string);
        int32_t *pair = p->force + 2 * (size_t)p->forces;
        s = read_position(m, at.text, tokens, &pair[0], e);
        if (!s)
            s = read_token(g, m, at.text, &pair[1], e);
        if (s)
            return s;
        p->forces++;
    }
    if (p->forces == tokens)
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' names every position: nothing is left to fill", path);
    return TT_OK;
}

/* Where tokens move, a position says nothing. */
static tt_status refuse_where_tokens_move(const tt_gen *g, const cJSON *object, const char *path,
                                          tt_err *e)
{
    static const char *const names[] = {"force", "ban", "allow"};
    for (int i = 0; i < 3 && g->sampler->inserts; i++) {
        tt_json_path at = tt_json_member(path, names[i]);
        if (tt_json_get(object, names[i]))
            return tt_fail_param(e, at.text, "unsupported_parameter",
                                 "'%s' names positions, and tokens move while sampler '%s' runs; "
                                 "'logit_bias' bans tokens everywhere", at.text, g->sampler->name);
    }
    return TT_OK;
}

tt_status tt_positions_read(tt_gen *g, const cJSON *object, const char *path, int64_t tokens,
                            tt_positions *out, tt_err *e)
{
    tt_status s = refuse_where_tokens_move(g, object, path, e);
    if (s)
        return s;
    s = read_force(g, tt_json_get(object, "force"), tt_json_member(path, "force").text,
                             tokens, out, e);
    if (!s)
        s = read_rules(g, tt_json_get(object, "ban"), tt_json_member(path, "ban").text, tokens,
                       false, out, e);
    return s ? s : read_rules(g, tt_json_get(object, "allow"), tt_json_member(path, "allow").text,
                              tokens, true, out, e);
}

void tt_positions_free(tt_positions *p)
{
    free(p->rule);
    free(p->force);
    *p = (tt_positions){0};
}

static tt_status add_rule(tt_canvas *c, const tt_column_rule *r, tt_err *e)
{
    tt_column_rule *more = realloc(c->rule, (size_t)(c->rules + 1) * sizeof *more);
    if (!more)
        return no_memory(e);
    c->rule = more;
    c->rule[c->rules++] = *r;
    return TT_OK;
}

tt_status tt_canvas_ban(tt_canvas *c, int32_t begin, int32_t end, const int32_t *id, int32_t n,
                        tt_err *e)
{
    tt_column_rule r = {.begin = begin, .end = end, .id = id, .n = n};
    return begin < end && n ? add_rule(c, &r, e) : TT_OK;
}

tt_status tt_positions_apply(const tt_positions *p, tt_canvas *c, int32_t begin, int32_t tokens,
                             tt_err *e)
{
    for (int32_t i = 0; i < p->rules; i++) {
        tt_column_rule r = p->rule[i];
        r.begin += begin;
        r.end += begin;
        tt_status s = p->rule[i].begin < tokens ? add_rule(c, &r, e) : TT_OK;
        if (s)
            return s;
    }
    for (int32_t i = 0; i < p->forces; i++)
        if (p->force[2 * i] < tokens) {
            int32_t column = begin + p->force[2 * i];
            c->ids.id[column] = p->force[2 * i + 1];
            c->open.data[column] = 0;
        }
    return TT_OK;
}
