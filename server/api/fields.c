/* fields.c - see fields.h: the code that walks the tables. */
#include "server/api/fields.h"

#include <stdio.h>
#include <string.h>

/* --- checking --- */

static const tt_field *find_field(const char *name, unsigned endpoint)
{
    for (const tt_field *f = tt_fields(); f->name; f++)
        if ((f->on & endpoint) && !strcmp(f->name, name))
            return f;
    return NULL;
}

static tt_status unknown(const char *path, const char *hint, tt_err *e)
{
    return tt_fail_param(e, path, "unknown_parameter", "unknown parameter '%s'%s", path, hint);
}

/* A string or an array of strings, none empty. */
static tt_status check_texts(const cJSON *node, const tt_field *f, const char *path, tt_err *e)
{
    const char *text;
    if (!cJSON_IsArray(node))
        return tt_json_text(node, path, &text, e);
    if (f->max > 0 && cJSON_GetArraySize(node) > (int)f->max)
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' has %d elements, at most %g are allowed", path,
                             cJSON_GetArraySize(node), f->max);
    int i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, node)
    {
        tt_status s = tt_json_text(m, tt_json_element(path, i++).text, &text, e);
        if (s)
            return s;
    }
    return TT_OK;
}

static tt_status check_prompt(const cJSON *node, const char *path, tt_err *e)
{
    if (cJSON_IsString(node) || cJSON_IsArray(node))
        return TT_OK; /* elements are looked at when read: they need the vocabulary */
    return tt_fail_param(e, path, "invalid_value", "'%s' is %s, must be a string or an array",
                         path, tt_json_kind(node));
}

tt_status tt_field_check(const cJSON *node, const tt_field *f, const char *path, tt_err *e)
{
    const char *text;
    int64_t whole;
    double number;
    bool truth;
    switch (f->type) {
    case TT_FIELD_TEXT:
        return tt_json_text(node, path, &text, e);
    case TT_FIELD_INT:
        return tt_json_int(node, path, (int64_t)f->min, (int64_t)f->max, &whole, e);
    case TT_FIELD_NUMBER:
        return tt_json_number(node, path, f->min, f->max, &number, e);
    case TT_FIELD_BOOL:
        return tt_json_bool(node, path, &truth, e);
    case TT_FIELD_ARRAY:
        return tt_json_is_array(node, path, e);
    case TT_FIELD_OBJECT:
        return tt_json_is_object(node, path, e);
    case TT_FIELD_TEXTS:
        return check_texts(node, f, path, e);
    case TT_FIELD_PROMPT:
        return check_prompt(node, path, e);
    case TT_FIELD_ANY:
        return TT_OK;
    }
    return TT_OK;
}

/* True when the node equals one of the values of the list. */
static bool is_neutral(const cJSON *node, const char *values)
{
    while (*values) {
        size_t n = strcspn(values, "|");
        cJSON *same = cJSON_ParseWithLength(values, n);
        bool equal = same && cJSON_Compare(same, node, 1);
        cJSON_Delete(same);
        if (equal)
            return true;
        values += n + (values[n] == '|');
    }
    return false;
}

static tt_status check_member(const cJSON *node, unsigned endpoint, bool strict, tt_err *e)
{
    const tt_field *f = find_field(node->string, endpoint);
    if (!f)
        return unknown(node->string, "", e);
    if (f->use == TT_FIELD_TOLERATED)
        return strict ? unknown(node->string, " (strict mode)", e) : TT_OK;
    if (cJSON_IsNull(node))
        return TT_OK;
    if (f->use == TT_FIELD_NEUTRAL)
        return is_neutral(node, f->neutral)
                   ? TT_OK
                   : tt_fail_param(e, f->name, "unsupported_parameter",
                                   "'%s' is not supported by this server", f->name);
    return tt_field_check(node, f, f->name, e);
}

static tt_status check_extension(const cJSON *tutti, unsigned endpoint, tt_err *e)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, tutti)
    {
        tt_json_path path = tt_json_member("tutti", m->string);
        const tt_field *f = tt_extension_fields();
        while (f->name && (!(f->on & endpoint) || strcmp(f->name, m->string)))
            f++;
        bool sampling = (endpoint & (TT_ON_GENERATE | TT_ON_MAKE)) && tt_param_find(m->string);
        if (!f->name && !sampling)
            return unknown(path.text, "", e);
        if (f->name && !cJSON_IsNull(m)) {
            tt_status s = tt_field_check(m, f, path.text, e);
            if (s)
                return s;
        }
    }
    return TT_OK;
}

tt_status tt_fields_check(const cJSON *body, unsigned endpoint, bool strict, tt_err *e)
{
    if (!cJSON_IsObject(body))
        return tt_fail_param(e, "", "invalid_json", "the body is %s, must be an object",
                             tt_json_kind(body));
    const cJSON *m;
    cJSON_ArrayForEach(m, body)
    {
        tt_status s = check_member(m, endpoint, strict, e);
        if (s)
            return s;
    }
    return check_extension(tt_json_get(body, "tutti"), endpoint, e);
}

/* --- the extension object and its aliases --- */

tt_status tt_extension_find(const cJSON *body, const char *member, const cJSON **node,
                            tt_json_path *path, tt_err *e)
{
    *node = tt_json_get(tt_json_get(body, "tutti"), member);
    if (*node)
        *path = tt_json_member("tutti", member);
    for (const tt_alias *a = tt_aliases(); a->alias; a++) {
        const cJSON *other = strcmp(a->member, member) ? NULL : tt_json_get(body, a->alias);
        if (!other)
            continue;
        if (*node && !cJSON_Compare(*node, other, 1))
            return tt_fail_param(e, a->alias, "invalid_value",
                                 "'%s' and '%s' mean the same and have different values", a->alias,
                                 path->text);
        if (!*node) {
            *node = other;
            *path = tt_json_member("", a->alias);
        }
    }
    return TT_OK;
}

/* dlmserve's names of the orders. */
static const char *remask_name(const char *given)
{
    return !strcmp(given, "top1_prob")         ? "confidence"
           : !strcmp(given, "entropy_inverse") ? "entropy"
                                               : given;
}

static tt_status set_param(tt_params *p, const tt_param *param, const cJSON *node,
                           const char *path, tt_err *e)
{
    tt_status s;
    const char *text;
    double number;
    bool truth;
    if (param->type == TT_PARAM_CHOICE) {
        s = tt_json_text(node, path, &text, e);
        if (!s)
            s = tt_params_set_text(p, param, remask_name(text), e);
    } else if (param->type == TT_PARAM_BOOL) {
        s = tt_json_bool(node, path, &truth, e);
        if (!s)
            s = tt_params_set(p, param, truth, e);
    } else {
        s = tt_json_number(node, path, -1e308, 1e308, &number, e);
        if (!s)
            s = tt_params_set(p, param, number, e);
    }
    if (s && e)
        snprintf(e->param, sizeof e->param, "%s", path);
    return s;
}

tt_status tt_params_read(const cJSON *body, tt_params *p, tt_err *e)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    for (size_t i = 0; i < n; i++) {
        const cJSON *node;
        tt_json_path path;
        tt_status s = tt_extension_find(body, all[i].name, &node, &path, e);
        if (!s && node)
            s = set_param(p, &all[i], node, path.text, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* --- getters --- */

const char *tt_field_text(const cJSON *body, const char *name, const char *fallback)
{
    const cJSON *m = tt_json_get(body, name);
    return m ? m->valuestring : fallback;
}

int64_t tt_field_int(const cJSON *body, const char *name, int64_t fallback)
{
    const cJSON *m = tt_json_get(body, name);
    return m ? (int64_t)m->valuedouble : fallback;
}

bool tt_field_bool(const cJSON *body, const char *name, bool fallback)
{
    const cJSON *m = tt_json_get(body, name);
    return m ? cJSON_IsTrue(m) : fallback;
}
