/* schema.c - a JSON schema as a regular expression: see constrain.h. */
#include <stdio.h>
#include <string.h>

#include "server/api/constrain.h"

enum { MAX_DEPTH = 16, MAX_OPTIONAL = 16, ANY_DEPTH = 3, MAX_BYTES = 1 << 20 };

/* Of one schema document. */
typedef struct {
    const cJSON *root;
    tt_buf *out;
    int depth;
    tt_err *e;
} writer;

#define STRING_CHAR "([^\"\\\\\\x00-\\x1f]|\\\\[\"\\\\/bfnrt]|\\\\u00[01][0-9a-f])"
#define INTEGER "(0|[1-9][0-9]*)"
#define FRACTION "(\\.[0-9]+)?([eE][+-]?[0-9]+)?"
#define COMMA ", ?"
#define COLON ": ?"

static const char string[] = "\"" STRING_CHAR "*\"", number[] = "-?" INTEGER FRACTION;

static tt_status write(writer *w, const cJSON *s, const char *path);

static tt_status unsupported(const writer *w, const char *path, const char *name, const char *why)
{
    tt_json_path at = name ? tt_json_member(path, name) : tt_json_member("", path);
    return tt_fail_param(w->e, at.text, "unsupported_value", "'%s' %s", at.text, why);
}

/* --- values --- */

/* Text that stands for itself. */
static void put_literal(tt_buf *out, const char *text)
{
    for (; *text; text++) {
        bool plain = (*text >= '0' && *text <= '9') || (*text >= 'a' && *text <= 'z') ||
                     (*text >= 'A' && *text <= 'Z') || (*text & 0x80) || *text == ' ';
        if (!plain)
            tt_buf_putc(out, '\\');
        tt_buf_putc(out, *text);
    }
}

static tt_status put_value(writer *w, const cJSON *value)
{
    char *text = cJSON_PrintUnformatted(value);
    if (!text)
        return tt_fail(w->e, TT_ENOMEM, "no memory for a schema");
    put_literal(w->out, text);
    cJSON_free(text);
    return TT_OK;
}

/* A property's name, as the JSON text has it. */
static tt_status put_name(writer *w, const char *name)
{
    cJSON *text = cJSON_CreateString(name);
    tt_status s = text ? put_value(w, text) : tt_fail(w->e, TT_ENOMEM, "no memory for a schema");
    cJSON_Delete(text);
    tt_buf_puts(w->out, COLON);
    return s;
}

static void put_object_of(tt_buf *out, int depth);

static void put_any(tt_buf *out, int depth)
{
    tt_buf_printf(out, "(%s|%s|true|false|null", string, number);
    if (depth > 0) {
        tt_buf_puts(out, "|\\[(");
        put_any(out, depth - 1);
        tt_buf_puts(out, "(" COMMA);
        put_any(out, depth - 1);
        tt_buf_puts(out, ")*)?\\]|");
        put_object_of(out, depth - 1);
    }
    tt_buf_putc(out, ')');
}

/* An object whose values are nested `depth` deep. */
static void put_object_of(tt_buf *out, int depth)
{
    tt_buf_printf(out, "\\{(%s" COLON, string);
    put_any(out, depth);
    tt_buf_printf(out, "(" COMMA "%s" COLON, string);
    put_any(out, depth);
    tt_buf_puts(out, ")*)?\\}");
}

void tt_schema_any_object(tt_buf *out) { put_object_of(out, ANY_DEPTH - 1); }

/* --- bounds --- */

/* A whole number of at least 0; `fallback` when absent. */
static tt_status read_bound(const writer *w, const cJSON *s, const char *path, const char *name,
                            int64_t fallback, int64_t *out)
{
    const cJSON *m = tt_json_get(s, name);
    *out = fallback;
    return m ? tt_json_int(m, tt_json_member(path, name).text, 0, 1000, out, w->e) : TT_OK;
}

static tt_status read_bounds(const writer *w, const cJSON *s, const char *path, const char *least,
                             const char *most, int64_t bound[2])
{
    tt_status st = read_bound(w, s, path, least, 0, &bound[0]);
    if (!st)
        st = read_bound(w, s, path, most, -1, &bound[1]);
    if (!st && bound[1] >= 0 && bound[1] < bound[0])
        st = tt_fail_param(w->e, tt_json_member(path, most).text, "invalid_value",
                           "'%s' is below '%s'", tt_json_member(path, most).text, least);
    return st;
}

/* {least,most} of what came before. */
static void put_repeat(tt_buf *out, int64_t least, int64_t most)
{
    if (most < 0)
        tt_buf_printf(out, "{%lld,}", (long long)least);
    else
        tt_buf_printf(out, "{%lld,%lld}", (long long)least, (long long)most);
}

/* --- types --- */

static tt_status put_string(writer *w, const cJSON *s, const char *path)
{
#define DATE "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
#define TIME "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-][01][0-9]:[0-5][0-9])"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    static const struct {
        const char *name, *regex;
    } formats[] = {
        {"date", DATE},
        {"time", TIME},
        {"date-time", DATE "T" TIME},
        {"uuid", "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"},
        {"ipv4", BYTE "(\\." BYTE "){3}"},
    };
    const cJSON *format = tt_json_get(s, "format");
    int64_t bound[2];
    tt_status st = read_bounds(w, s, path, "minLength", "maxLength", bound);
    if (st)
        return st;
    if (!format) {
        tt_buf_puts(w->out, "\"" STRING_CHAR);
        put_repeat(w->out, bound[0], bound[1]);
        tt_buf_putc(w->out, '"');
        return TT_OK;
    }
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (cJSON_IsString(format) && !strcmp(format->valuestring, formats[i].name)) {
            if (bound[0] || bound[1] >= 0)
                return unsupported(w, path, "format", "and lengths exclude each other here");
            tt_buf_printf(w->out, "\"%s\"", formats[i].regex);
            return TT_OK;
        }
    return unsupported(w, path, "format",
                       "must be date, time, date-time, uuid or ipv4 on this server");
}

static tt_status put_number(writer *w, const cJSON *s, const char *path, bool whole)
{
    const cJSON *least = tt_json_get(s, "minimum");
    if (least && !(cJSON_IsNumber(least) && least->valuedouble == 0))
        return unsupported(w, path, "minimum", "can only be 0 on this server");
    tt_buf_puts(w->out, least ? INTEGER : "-?" INTEGER);
    tt_buf_puts(w->out, whole ? "" : FRACTION);
    return TT_OK;
}

static tt_status put_array(writer *w, const cJSON *s, const char *path)
{
    const cJSON *items = tt_json_get(s, "items");
    tt_json_path at = tt_json_member(path, "items");
    int64_t bound[2];
    tt_status st = read_bounds(w, s, path, "minItems", "maxItems", bound);
    if (st)
        return st;
    tt_buf_puts(w->out, "\\[");
    if (bound[1] != 0) {
        tt_buf_putc(w->out, '(');
        st = write(w, items, at.text);
        tt_buf_puts(w->out, "(" COMMA);
        if (!st)
            st = write(w, items, at.text);
        tt_buf_putc(w->out, ')');
        put_repeat(w->out, bound[0] > 1 ? bound[0] - 1 : 0, bound[1] < 0 ? -1 : bound[1] - 1);
        tt_buf_puts(w->out, bound[0] ? ")" : ")?");
    }
    tt_buf_puts(w->out, "\\]");
    return st;
}

static bool is_required(const cJSON *s, const char *name)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, tt_json_get(s, "required"))
    {
        if (cJSON_IsString(m) && !strcmp(m->valuestring, name))
            return true;
    }
    return false;
}

static tt_status put_property(writer *w, const cJSON *p, const char *path)
{
    tt_status s = put_name(w, p->string);
    return s ? s : write(w, p, tt_json_member(path, p->string).text);
}

/* All properties from p on, each with its comma before it. */
static tt_status put_more(writer *w, const cJSON *s, const cJSON *p, const char *path)
{
    tt_status st = TT_OK;
    for (; p && !st; p = p->next) {
        bool needed = is_required(s, p->string);
        tt_buf_puts(w->out, needed ? COMMA : "(" COMMA);
        st = put_property(w, p, path);
        tt_buf_puts(w->out, needed ? "" : ")?");
    }
    return st;
}

/* Properties in the schema's order. Before the first that must be there, each optional one brings
 * the comma behind it; where none must be, any may be the first. */
static tt_status put_properties(writer *w, const cJSON *s, const cJSON *first, const char *path)
{
    tt_status st = TT_OK;
    const cJSON *p = first;
    while (p && !is_required(s, p->string))
        p = p->next;
    if (p) {
        for (const cJSON *o = first; o != p && !st; o = o->next) {
            tt_buf_putc(w->out, '(');
            st = put_property(w, o, path);
            tt_buf_puts(w->out, COMMA ")?");
        }
        if (!st)
            st = put_property(w, p, path);
        return st ? st : put_more(w, s, p->next, path);
    }
    int n = 0;
    tt_buf_putc(w->out, '(');
    for (const cJSON *o = first; o && !st; o = o->next) {
        if (++n > MAX_OPTIONAL)
            return unsupported(w, path, NULL, "has more than 16 properties and requires none");
        st = put_property(w, o, path);
        if (!st)
            st = put_more(w, s, o->next, path);
        tt_buf_putc(w->out, '|'); /* the last alternative: none of them */
    }
    tt_buf_putc(w->out, ')');
    return st;
}

static tt_status check_required(const writer *w, const cJSON *s, const char *path)
{
    const cJSON *m, *all = tt_json_get(s, "properties");
    tt_json_path at = tt_json_member(path, "required");
    cJSON_ArrayForEach(m, tt_json_get(s, "required"))
    {
        if (!cJSON_IsString(m) || !cJSON_GetObjectItemCaseSensitive(all, m->valuestring))
            return unsupported(w, path, "required", "names what is not in 'properties'");
    }
    const cJSON *required = tt_json_get(s, "required");
    return required ? tt_json_is_array(required, at.text, w->e) : TT_OK;
}

static tt_status put_object(writer *w, const cJSON *s, const char *path)
{
    const cJSON *all = tt_json_get(s, "properties"), *more = tt_json_get(s, "additionalProperties");
    tt_json_path at = tt_json_member(path, "properties");
    if (more && !cJSON_IsBool(more))
        return unsupported(w, path, "additionalProperties", "can only be true or false");
    tt_status st = all ? tt_json_is_object(all, at.text, w->e) : TT_OK;
    if (!st)
        st = check_required(w, s, path);
    if (st)
        return st;
    if (!all && !cJSON_IsFalse(more)) {
        put_object_of(w->out, ANY_DEPTH - 1);
        return TT_OK;
    }
    tt_buf_puts(w->out, "\\{");
    if (all && all->child)
        st = put_properties(w, s, all->child, at.text);
    tt_buf_puts(w->out, "\\}");
    return st;
}

/* --- one schema --- */

/* Members of a schema: which types read them ('*': any), or none when they change no text. */
static const struct {
    const char *name, *types;
} members[] = {
    {"type", "*"},         {"enum", "*"},
    {"const", "*"},        {"anyOf", "*"},
    {"oneOf", "*"},        {"allOf", "*"},
    {"$ref", "*"},         {"properties", "object"},
    {"required", "object"}, {"additionalProperties", "object"},
    {"items", "array"},    {"minItems", "array"},
    {"maxItems", "array"}, {"minLength", "string"},
    {"maxLength", "string"}, {"format", "string"},
    {"minimum", "number integer"}, {"title", ""},
    {"description", ""},   {"default", ""},
    {"examples", ""},      {"$schema", ""},
    {"$id", ""},           {"$comment", ""},
    {"$defs", ""},         {"definitions", ""},
    {"deprecated", ""},    {"readOnly", ""},
    {"writeOnly", ""},
};

static tt_status check_members(const writer *w, const cJSON *s, const char *path)
{
    const cJSON *m;
    cJSON_ArrayForEach(m, s)
    {
        size_t i = 0, n = sizeof members / sizeof *members;
        while (i < n && strcmp(members[i].name, m->string))
            i++;
        if (i == n)
            return unsupported(w, path, m->string, "is not supported in schemas by this server");
    }
    return TT_OK;
}

static tt_status put_type(writer *w, const cJSON *s, const char *type, const char *path)
{
    if (!strcmp(type, "object"))
        return put_object(w, s, path);
    if (!strcmp(type, "array"))
        return put_array(w, s, path);
    if (!strcmp(type, "string"))
        return put_string(w, s, path);
    if (!strcmp(type, "number") || !strcmp(type, "integer"))
        return put_number(w, s, path, *type == 'i');
    if (!strcmp(type, "boolean"))
        tt_buf_puts(w->out, "(true|false)");
    else if (!strcmp(type, "null"))
        tt_buf_puts(w->out, "null");
    else
        return unsupported(w, path, "type", "names no type of JSON");
    return TT_OK;
}

static tt_status put_types(writer *w, const cJSON *s, const cJSON *type, const char *path)
{
    const cJSON *m;
    tt_status st = TT_OK;
    if (cJSON_IsString(type))
        return put_type(w, s, type->valuestring, path);
    if (!cJSON_IsArray(type) || !type->child)
        return unsupported(w, path, "type", "must be a text or a list of texts");
    tt_buf_putc(w->out, '(');
    cJSON_ArrayForEach(m, type)
    {
        if (m != type->child)
            tt_buf_putc(w->out, '|');
        if (!st)
            st = cJSON_IsString(m) ? put_type(w, s, m->valuestring, path)
                                   : unsupported(w, path, "type", "must be a list of texts");
    }
    tt_buf_putc(w->out, ')');
    return st;
}

/* Alternatives: schemas, or values of an enum. */
static tt_status put_each(writer *w, const cJSON *list, const char *path, bool schemas)
{
    const cJSON *m;
    int i = 0;
    tt_status s = tt_json_is_array(list, path, w->e);
    if (!s && !list->child)
        s = unsupported(w, path, NULL, "is empty");
    tt_buf_putc(w->out, '(');
    cJSON_ArrayForEach(m, list)
    {
        if (i)
            tt_buf_putc(w->out, '|');
        tt_json_path at = tt_json_element(path, i++);
        if (!s)
            s = schemas ? write(w, m, at.text) : put_value(w, m);
    }
    tt_buf_putc(w->out, ')');
    return s;
}

/* "#/$defs/name". */
static tt_status put_reference(writer *w, const cJSON *ref, const char *path)
{
    const cJSON *at = w->root;
    const char *p = cJSON_IsString(ref) ? ref->valuestring : "";
    if (*p != '#')
        return unsupported(w, path, "$ref", "must point into the schema: \"#/...\"");
    for (p++; at && *p == '/';) {
        char name[128];
        size_t n = strcspn(++p, "/");
        snprintf(name, sizeof name, "%.*s", (int)(n < 127 ? n : 127), p);
        at = cJSON_GetObjectItemCaseSensitive(at, name);
        p += n;
    }
    if (!at)
        return unsupported(w, path, "$ref", "points to nothing");
    return write(w, at, tt_json_member(path, "$ref").text);
}

static tt_status put_schema(writer *w, const cJSON *s, const char *path)
{
    const cJSON *m;
    tt_status st = check_members(w, s, path);
    if (st)
        return st;
    if ((m = tt_json_get(s, "$ref")))
        return put_reference(w, m, path);
    if (cJSON_HasObjectItem(s, "const"))
        return put_value(w, cJSON_GetObjectItemCaseSensitive(s, "const"));
    if ((m = tt_json_get(s, "enum")))
        return put_each(w, m, tt_json_member(path, "enum").text, false);
    if ((m = tt_json_get(s, "anyOf")) || (m = tt_json_get(s, "oneOf")))
        return put_each(w, m, tt_json_member(path, m->string).text, true);
    if ((m = tt_json_get(s, "allOf"))) {
        if (cJSON_GetArraySize(m) != 1)
            return unsupported(w, path, "allOf", "can only be of one schema on this server");
        return write(w, m->child, tt_json_member(path, "allOf").text);
    }
    if ((m = tt_json_get(s, "type")))
        return put_types(w, s, m, path);
    if (tt_json_get(s, "properties"))
        return put_object(w, s, path);
    if (tt_json_get(s, "items"))
        return put_array(w, s, path);
    put_any(w->out, ANY_DEPTH);
    return TT_OK;
}

/* s NULL: anything. */
static tt_status write(writer *w, const cJSON *s, const char *path)
{
    if (!s || cJSON_IsTrue(s)) {
        put_any(w->out, ANY_DEPTH - 1);
        return TT_OK;
    }
    tt_status st = tt_json_is_object(s, path, w->e);
    if (st)
        return st;
    if (++w->depth > MAX_DEPTH)
        return unsupported(w, path, NULL, "is nested too deeply, or refers to itself");
    if (w->out->size > MAX_BYTES)
        return unsupported(w, path, NULL, "makes the schema too large");
    st = put_schema(w, s, path);
    w->depth--;
    return st;
}

tt_status tt_schema_regex(const cJSON *schema, const char *path, tt_buf *out, tt_err *e)
{
    writer w = {.root = schema, .out = out, .e = e};
    tt_status s = write(&w, schema, path);
    return !s && out->failed ? tt_fail(e, TT_ENOMEM, "no memory for a schema") : s;
}
