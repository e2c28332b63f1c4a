/* json_read.c - see json_read.h. scan() walks the text once before cJSON sees it and refuses what
 * cJSON would let through; unique() walks the tree afterwards for duplicate keys. */
#include "server/json_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"

static tt_status bad_json(const char *text, size_t at, const char *why, tt_err *e)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        bool newline = text[i] == '\n';
        line += newline;
        if (newline)
            column = 1;
        else
            column += ((unsigned char)text[i] & 0xC0) != 0x80; /* count characters, not bytes */
    }
    return tt_fail_param(e, "", "invalid_json",
                         "the body is not valid JSON: line %zu, column %zu: %s", line, column, why);
}

/* --- before cJSON --- */

typedef struct {
    const char *text;
    size_t at, bytes;
    int depth;
    int64_t values;
    const char *why; /* what is wrong at `at`; NULL while all is well */
} scanner;

static bool refuse(scanner *s, const char *why)
{
    s->why = why;
    return false;
}

static char peek(const scanner *s) { return s->at < s->bytes ? s->text[s->at] : '\0'; }

static bool digits(scanner *s)
{
    size_t from = s->at;
    while (peek(s) >= '0' && peek(s) <= '9')
        s->at++;
    return s->at > from;
}

/* RFC 8259: -? (0 | [1-9] digits) (. digits)? ([eE] [+-]? digits)? */
static bool scan_number(scanner *s)
{
    const char *from = s->text + s->at;
    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0')
        s->at++;
    else if (!digits(s))
        return refuse(s, "a digit is expected");
    if (peek(s) >= '0' && peek(s) <= '9')
        return refuse(s, "a number cannot begin with 0");
    if (peek(s) == '.') {
        s->at++;
        if (!digits(s))
            return refuse(s, "a digit is expected after the decimal point");
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (!digits(s))
            return refuse(s, "a digit is expected in the exponent");
    }
    if (s->text + s->at - from > 60) /* cJSON cuts numbers at 63 characters */
        return refuse(s, "the number has too many digits");
    return isfinite(strtod(from, NULL)) || refuse(s, "the number is too large");
}

static bool scan_escape(scanner *s)
{
    s->at++;
    char c = peek(s);
    if (!c || !strchr("\"\\/bfnrtu", c))
        return refuse(s, "unknown escape in a string");
    s->at++;
    if (c != 'u')
        return true;
    if (s->bytes - s->at < 4 || strspn(s->text + s->at, "0123456789abcdefABCDEF") < 4)
        return refuse(s, "four hexadecimal digits are expected after \\u");
    if (!memcmp(s->text + s->at, "0000", 4))
        return refuse(s, "U+0000 is not allowed");
    s->at += 4;
    return true;
}

static bool scan_string(scanner *s)
{
    for (s->at++; s->at < s->bytes; ) {
        unsigned char c = (unsigned char)s->text[s->at];
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c < 0x20)
            return refuse(s, "a control character in a string must be escaped");
        if (c != '\\')
            s->at++;
        else if (!scan_escape(s))
            return false;
    }
    return refuse(s, "the string does not end");
}

static bool scan_one(scanner *s)
{
    char c = s->text[s->at];
    if (c == '"')
        return scan_string(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return scan_number(s);
    if (((unsigned char)c < 0x20 && !strchr("\t\n\r", c)) || c == '\0')
        return refuse(s, "a control character is not allowed here");
    if ((c == '{' || c == '[') && ++s->depth > TT_JSON_MAX_DEPTH)
        return refuse(s, "nested too deeply");
    if ((c == '{' || c == '[' || c == ',') && ++s->values > TT_JSON_MAX_VALUES)
        return refuse(s, "too many values");
    s->depth -= c == '}' || c == ']';
    s->at++;
    return true;
}

static tt_status scan(const char *text, size_t bytes, tt_err *e)
{
    size_t good = tt_utf8_valid(text, bytes);
    if (good < bytes)
        return bad_json(text, good, "ill-formed UTF-8", e);
    scanner s = {.text = text, .bytes = bytes};
    while (s.at < s.bytes)
        if (!scan_one(&s))
            return bad_json(text, s.at, s.why, e);
    return TT_OK;
}

/* --- after cJSON --- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static tt_status twice(const char *key, tt_err *e)
{
    return tt_fail_param(e, key, "invalid_json", "the key '%.60s' appears twice in one object",
                         key);
}

/* Duplicate keys of one object. Sorting keeps a hostile object of many keys cheap. */
static tt_status unique_keys(const cJSON *object, tt_err *e)
{
    size_t n = 0, i = 0;
    const cJSON *m;
    cJSON_ArrayForEach(m, object) n++;
    if (n < 2)
        return TT_OK;
    const char **name = malloc(n * sizeof *name);
    if (!name)
        return tt_fail(e, TT_ENOMEM, "no memory to check an object of %zu keys", n);
    cJSON_ArrayForEach(m, object) name[i++] = m->string;
    qsort(name, n, sizeof *name, by_name);
    tt_status s = TT_OK;
    for (i = 1; i < n && !s; i++)
        if (!strcmp(name[i - 1], name[i]))
            s = twice(name[i], e);
    free(name);
    return s;
}

/* Recursion is bounded by TT_JSON_MAX_DEPTH. */
static tt_status unique(const cJSON *node, tt_err *e)
{
    tt_status s = cJSON_IsObject(node) ? unique_keys(node, e) : TT_OK;
    const cJSON *m;
    if (!cJSON_IsObject(node) && !cJSON_IsArray(node))
        return TT_OK;
    cJSON_ArrayForEach(m, node)
    {
        if (!s)
            s = unique(m, e);
    }
    return s;
}

tt_status tt_json_parse(cJSON **out, const char *text, size_t bytes, tt_err *e)
{
    *out = NULL;
    char *copy = malloc(bytes + 1); /* cJSON wants a NUL, and so does strtod in scan() */
    if (!copy)
        return tt_fail(e, TT_ENOMEM, "no memory for a body of %zu bytes", bytes);
    if (bytes)
        memcpy(copy, text, bytes);
    copy[bytes] = '\0';

    const char *end = copy;
    tt_status s = scan(copy, bytes, e);
    cJSON *tree = s ? NULL : cJSON_ParseWithLengthOpts(copy, bytes + 1, &end, 1);
    if (!s && !tree) {
        size_t at = end < copy + bytes ? (size_t)(end - copy) : bytes;
        s = bad_json(copy, at, bytes ? "unexpected text or end" : "the body is empty", e);
    }
    if (!s)
        s = unique(tree, e);
    if (s)
        cJSON_Delete(tree);
    else
        *out = tree;
    free(copy);
    return s;
}

/* --- paths --- */

tt_json_path tt_json_member(const char *parent, const char *key)
{
    tt_json_path p;
    snprintf(p.text, sizeof p.text, "%.60s%s%.32s", parent, *parent ? "." : "", key);
    return p;
}

tt_json_path tt_json_element(const char *parent, int index)
{
    tt_json_path p;
    snprintf(p.text, sizeof p.text, "%.80s[%d]", parent, index);
    return p;
}

/* --- reading --- */

const cJSON *tt_json_get(const cJSON *object, const char *key)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, key);
    return m && !cJSON_IsNull(m) ? m : NULL;
}

const char *tt_json_kind(const cJSON *node)
{
    return !node || cJSON_IsNull(node) ? "null"
           : cJSON_IsString(node)      ? "a string"
           : cJSON_IsNumber(node)      ? "a number"
           : cJSON_IsBool(node)        ? "a boolean"
           : cJSON_IsArray(node)       ? "an array"
                                       : "an object";
}

static tt_status wrong_kind(const cJSON *node, const char *path, const char *want, tt_err *e)
{
    return tt_fail_param(e, path, "invalid_value", "'%s' is %s, must be %s", path,
                         tt_json_kind(node), want);
}

tt_status tt_json_text(const cJSON *node, const char *path, const char **out, tt_err *e)
{
    if (!cJSON_IsString(node))
        return wrong_kind(node, path, "a string", e);
    *out = node->valuestring;
    return TT_OK;
}

tt_status tt_json_int(const cJSON *node, const char *path, int64_t min, int64_t max, int64_t *out,
                      tt_err *e)
{
    if (!cJSON_IsNumber(node))
        return wrong_kind(node, path, "an integer", e);
    double v = node->valuedouble;
    if (v != floor(v) || fabs(v) > (double)TT_JSON_MAX_INT)
        return tt_fail_param(e, path, "invalid_value", "'%s' is %.17g, must be an integer", path,
                             v);
    if (v < (double)min || v > (double)max)
        return tt_fail_param(e, path, "invalid_value", "'%s' is %lld, must be in %lld..%lld", path,
                             (long long)v, (long long)min, (long long)max);
    *out = (int64_t)v;
    return TT_OK;
}

tt_status tt_json_number(const cJSON *node, const char *path, double min, double max, double *out,
                         tt_err *e)
{
    if (!cJSON_IsNumber(node))
        return wrong_kind(node, path, "a number", e);
    double v = node->valuedouble;
    if (!(v >= min && v <= max))
        return tt_fail_param(e, path, "invalid_value", "'%s' is %g, must be in %g..%g", path, v,
                             min, max);
    *out = v;
    return TT_OK;
}

tt_status tt_json_bool(const cJSON *node, const char *path, bool *out, tt_err *e)
{
    if (!cJSON_IsBool(node))
        return wrong_kind(node, path, "true or false", e);
    *out = cJSON_IsTrue(node);
    return TT_OK;
}

tt_status tt_json_is_object(const cJSON *node, const char *path, tt_err *e)
{
    return cJSON_IsObject(node) ? TT_OK : wrong_kind(node, path, "an object", e);
}

tt_status tt_json_is_array(const cJSON *node, const char *path, tt_err *e)
{
    return cJSON_IsArray(node) ? TT_OK : wrong_kind(node, path, "an array", e);
}
