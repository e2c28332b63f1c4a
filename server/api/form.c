/* form.c - see form.h. */
#include "server/api/form.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"

static bool wants(const tt_field *list, unsigned endpoint, const char *name, tt_field_type type)
{
    for (const tt_field *f = list; f->name; f++)
        if ((f->on & endpoint) && !strcmp(f->name, name) && f->type == type)
            return true;
    return false;
}

/* Depth of a member: 0 in the body, 1 in `tutti`, 2 further in. */
static const tt_field *table(int depth)
{
    return depth ? tt_extension_fields() : tt_fields();
}

static bool wants_number(int depth, unsigned endpoint, const char *name)
{
    const tt_param *p = depth ? tt_param_find(name) : NULL;
    return depth > 1 || wants(table(depth), endpoint, name, TT_FIELD_INT) ||
           wants(table(depth), endpoint, name, TT_FIELD_NUMBER) ||
           (p && (p->type == TT_PARAM_INT || p->type == TT_PARAM_FLOAT));
}

static bool wants_bool(int depth, unsigned endpoint, const char *name)
{
    const tt_param *p = depth ? tt_param_find(name) : NULL;
    return wants(table(depth), endpoint, name, TT_FIELD_BOOL) || (p && p->type == TT_PARAM_BOOL);
}

static bool wants_json(int depth, unsigned endpoint, const char *name)
{
    return wants(table(depth), endpoint, name, TT_FIELD_ANY) ||
           wants(table(depth), endpoint, name, TT_FIELD_ARRAY) ||
           wants(table(depth), endpoint, name, TT_FIELD_OBJECT);
}

/* The text as the type the member has; what does not look like it stays text and is refused when
 * types are checked. Members of any type take objects and arrays written as JSON. */
static cJSON *typed(const char *text, int depth, unsigned endpoint, const char *name)
{
    cJSON *v = NULL;
    bool number = wants_number(depth, endpoint, name);
    bool json = strchr("{[", *text) && *text && wants_json(depth, endpoint, name);
    if (number || json)
        tt_json_parse(&v, text, strlen(text), NULL);
    if (v && !json && !cJSON_IsNumber(v)) {
        cJSON_Delete(v);
        v = NULL;
    }
    if (!v && wants_bool(depth, endpoint, name) &&
        (!strcmp(text, "true") || !strcmp(text, "false")))
        v = cJSON_CreateBool(*text == 't');
    return v ? v : cJSON_CreateString(text);
}

/* Adds at `name`, or at the end of the array called so. */
static bool add(cJSON *to, const char *name, bool element, cJSON *v)
{
    cJSON *old = cJSON_GetObjectItemCaseSensitive(to, name);
    if (element) {
        old = old ? old : cJSON_AddArrayToObject(to, name);
        if (cJSON_IsArray(old) && v && cJSON_AddItemToArray(old, v))
            return true;
    } else if (!old && v && cJSON_AddItemToObject(to, name, v)) {
        return true;
    }
    cJSON_Delete(v);
    return false;
}

/* The object at `name` of another one, made if it is not there; NULL when something else is. */
static cJSON *inside(cJSON *at, const char *name)
{
    cJSON *to = cJSON_GetObjectItemCaseSensitive(at, name);
    to = to ? to : cJSON_AddObjectToObject(at, name);
    return cJSON_IsObject(to) ? to : NULL;
}

/* Puts a value at name, name[], name[member], name[member][] or name[member][member]. */
static bool put_field(cJSON *tree, char *name, const char *text, unsigned endpoint)
{
    cJSON *to = tree;
    size_t n = strlen(name);
    int depth = 0;
    bool element = n > 2 && !strcmp(name + n - 2, "[]");
    if (element)
        name[n -= 2] = '\0';
    if (strchr(name, '[') && name[n - 1] != ']')
        return false;
    for (char *open; (open = strchr(name, '[')); name = open + 1, depth++) {
        char *close = strchr(open, ']');
        if (open == name || depth == 2 || !close || close == open + 1 ||
            (close[1] && close[1] != '['))
            return false;
        *open = '\0';
        to = inside(to, name);
        if (!to)
            return false;
        *close = '\0'; /* the next bracket follows at once: move it up */
        if (close[1])
            memmove(close, close + 1, strlen(close + 1) + 1);
    }
    return *name && add(to, name, element, typed(text, depth, endpoint, name));
}

static tt_status add_field(cJSON *tree, const tt_part_of_form *p, unsigned endpoint, tt_err *e)
{
    char name[sizeof p->name];
    char *text = malloc(p->bytes + 1);
    if (!text)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    memcpy(text, p->data, p->bytes);
    text[p->bytes] = '\0';
    memcpy(name, p->name, sizeof name);
    bool good = strlen(text) == p->bytes && tt_utf8_valid(text, p->bytes) == p->bytes &&
                put_field(tree, name, text, endpoint);
    free(text);
    return good ? TT_OK
                : tt_fail_param(e, p->name, "invalid_value",
                                "form field '%.80s' is given twice or not well-formed", p->name);
}

static tt_status read_parts(tt_form *f, unsigned endpoint, tt_err *e)
{
    tt_status s = TT_OK;
    f->tree = cJSON_CreateObject();
    if (!f->tree)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    for (int i = 0; !s && i < f->form.parts; i++)
        if (!f->form.part[i].file)
            s = add_field(f->tree, &f->form.part[i], endpoint, e);
    return s;
}

/* Files nobody asks for are refused as unknown fields are. */
static tt_status check_files(const tt_form *f, unsigned endpoint, tt_err *e)
{
    for (int i = 0; i < f->form.parts; i++) {
        const tt_part_of_form *p = &f->form.part[i];
        size_t n = strlen(p->name);
        char name[sizeof p->name];
        memcpy(name, p->name, n + 1);
        if (n > 2 && !strcmp(name + n - 2, "[]"))
            name[n - 2] = '\0';
        if (p->file && !wants(tt_fields(), endpoint, name, TT_FIELD_ANY))
            return tt_fail_param(e, p->name, "unknown_parameter", "'%.80s' takes no file", p->name);
    }
    return TT_OK;
}

tt_status tt_form_read(tt_form *out, const tt_body *body, unsigned endpoint, bool strict, tt_err *e)
{
    *out = (tt_form){.tree = NULL};
    tt_status s;
    if (!tt_is_multipart(body->type)) {
        s = tt_json_parse(&out->tree, body->data, body->bytes, e);
    } else {
        s = tt_multipart_read(&out->form, body->type, body->data, body->bytes, e);
        if (!s)
            s = read_parts(out, endpoint, e);
        if (!s)
            s = check_files(out, endpoint, e);
    }
    return s ? s : tt_fields_check(out->tree, endpoint, strict, e);
}

void tt_form_free(tt_form *f)
{
    cJSON_Delete(f->tree);
    f->tree = NULL;
}

const tt_part_of_form *tt_form_file(const tt_form *f, const char *name, int i)
{
    size_t n = strlen(name);
    for (int k = 0; k < f->form.parts; k++) {
        const tt_part_of_form *p = &f->form.part[k];
        bool same = !strncmp(p->name, name, n) && (!p->name[n] || !strcmp(p->name + n, "[]"));
        if (p->file && same && i-- == 0)
            return p;
    }
    return NULL;
}
