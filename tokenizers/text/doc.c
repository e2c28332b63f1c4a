/* doc.c - see doc.h. */
#include "tokenizers/text/doc.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"

/* Offset of an escaped U+0000, or n. A backslash pairs with what follows it, so an escaped
 * backslash in front of "u0000" is not one. */
static size_t escaped_nul(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        const char *p = memchr(s + i, '\\', n - i);
        if (!p)
            return n;
        i = (size_t)(p - s);
        if (n - i >= 6 && !memcmp(p, "\\u0000", 6))
            return i;
        i += 2;
    }
    return n;
}

static tt_status at_place(const char *json, size_t at, tt_status st, tt_err *e, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        column++;
        if (json[i] == '\n') {
            line++;
            column = 1;
        }
    }
    return tt_fail(e, st, "line %zu, column %zu: %s", line, column, what);
}

tt_status tt_doc_parse(cJSON **root, const char *json, size_t bytes, tt_err *e)
{
    *root = NULL;
    size_t good = tt_utf8_valid(json, bytes);
    if (good < bytes)
        return at_place(json, good, TT_EFORMAT, e, "this is not UTF-8");
    const char *nul = memchr(json, 0, bytes);
    if (nul)
        return at_place(json, (size_t)(nul - json), TT_EFORMAT, e, "a NUL byte in JSON");
    size_t at = escaped_nul(json, bytes);
    if (at < bytes)
        return at_place(json, at, TT_EUNSUP, e, "\\u0000 is not supported in this file");

    char *copy = bytes < SIZE_MAX ? malloc(bytes + 1) : NULL;
    if (!copy)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu bytes of JSON", bytes);
    memcpy(copy, json, bytes);
    copy[bytes] = '\0';
    const char *end = copy;
    *root = cJSON_ParseWithLengthOpts(copy, bytes + 1, &end, 1);
    tt_status st = TT_OK;
    if (!*root)
        st = at_place(copy, end >= copy && end <= copy + bytes ? (size_t)(end - copy) : bytes,
                      TT_EFORMAT, e, "this is not valid JSON");
    free(copy);
    return st;
}

/* What does not fit is cut at the end. */
static size_t put_path(const tt_doc *d, char *out, size_t size)
{
    if (!d->up)
        return 0;
    size_t n = put_path(d->up, out, size);
    int k;
    if (d->key)
        k = snprintf(out + n, size - n, "%s%s", n ? "." : "", d->key);
    else
        k = snprintf(out + n, size - n, "[%d]", d->index);
    if (k < 0)
        return n;
    return (size_t)k < size - n ? n + (size_t)k : size - 1;
}

char *tt_doc_path(const tt_doc *d, char *out, size_t size)
{
    out[0] = '\0';
    if (!put_path(d, out, size))
        snprintf(out, size, "the document");
    return out;
}

tt_status tt_doc_fail(const tt_doc *d, tt_status s, tt_err *e, const char *fmt, ...)
{
    char path[128], text[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return tt_fail(e, s, "%s: %s", tt_doc_path(d, path, sizeof path), text);
}

static const char *kind(const cJSON *item)
{
    if (!item || cJSON_IsNull(item))
        return "null";
    if (cJSON_IsObject(item))
        return "an object";
    if (cJSON_IsArray(item))
        return "an array";
    if (cJSON_IsString(item))
        return "a string";
    if (cJSON_IsNumber(item))
        return "a number";
    return "a boolean";
}

static tt_status wrong(const tt_doc *d, tt_err *e, const char *want)
{
    return tt_doc_fail(d, TT_EFORMAT, e, "must be %s, is %s", want, kind(d->item));
}

tt_status tt_doc_find(const tt_doc *d, const char *key, tt_doc *out, tt_err *e)
{
    *out = (tt_doc){.up = d, .key = key};
    tt_status st = tt_doc_is_object(d, e);
    if (st)
        return st;
    const cJSON *found = NULL;
    for (const cJSON *c = d->item->child; c; c = c->next) {
        if (strcmp(c->string, key))
            continue;
        if (found)
            return tt_doc_fail(out, TT_EFORMAT, e, "is there twice");
        found = c;
    }
    out->item = found && !cJSON_IsNull(found) ? found : NULL;
    return TT_OK;
}

tt_status tt_doc_need(const tt_doc *d, const char *key, tt_doc *out, tt_err *e)
{
    tt_status st = tt_doc_find(d, key, out, e);
    if (st)
        return st;
    return out->item ? TT_OK : tt_doc_fail(out, TT_EFORMAT, e, "is missing");
}

tt_status tt_doc_is_array(const tt_doc *d, tt_err *e)
{
    return cJSON_IsArray(d->item) ? TT_OK : wrong(d, e, "an array");
}

tt_status tt_doc_is_object(const tt_doc *d, tt_err *e)
{
    return cJSON_IsObject(d->item) ? TT_OK : wrong(d, e, "an object");
}

tt_status tt_doc_text(const tt_doc *d, const char **text, size_t *bytes, tt_err *e)
{
    if (!cJSON_IsString(d->item))
        return wrong(d, e, "a string");
    *text = d->item->valuestring;
    *bytes = strlen(*text);
    return TT_OK;
}

tt_status tt_doc_number(const tt_doc *d, double *out, tt_err *e)
{
    if (!cJSON_IsNumber(d->item) || !isfinite(d->item->valuedouble))
        return wrong(d, e, "a finite number");
    *out = d->item->valuedouble;
    return TT_OK;
}

tt_status tt_doc_int(const tt_doc *d, int64_t lo, int64_t hi, int64_t *out, tt_err *e)
{
    double v = 0;
    tt_status st = tt_doc_number(d, &v, e);
    if (st)
        return st;
    if (floor(v) != v || v < (double)lo || v > (double)hi)
        return tt_doc_fail(d, TT_EFORMAT, e, "%g is not an integer from %lld to %lld", v,
                           (long long)lo, (long long)hi);
    *out = (int64_t)v;
    return TT_OK;
}

tt_status tt_doc_get_bool(const tt_doc *d, const char *key, bool *value, tt_err *e)
{
    tt_doc m;
    tt_status st = tt_doc_find(d, key, &m, e);
    if (st || !m.item)
        return st;
    if (!cJSON_IsBool(m.item))
        return wrong(&m, e, "a boolean");
    *value = cJSON_IsTrue(m.item);
    return TT_OK;
}

tt_status tt_doc_get_int(const tt_doc *d, const char *key, int64_t lo, int64_t hi, int64_t *value,
                         tt_err *e)
{
    tt_doc m;
    tt_status st = tt_doc_find(d, key, &m, e);
    return st || !m.item ? st : tt_doc_int(&m, lo, hi, value, e);
}

tt_status tt_doc_get_text(const tt_doc *d, const char *key, const char **text, size_t *bytes,
                          tt_err *e)
{
    tt_doc m;
    tt_status st = tt_doc_find(d, key, &m, e);
    return st || !m.item ? st : tt_doc_text(&m, text, bytes, e);
}

tt_status tt_doc_type(const tt_doc *d, const char **type, tt_err *e)
{
    tt_doc m;
    size_t n;
    tt_status st = tt_doc_need(d, "type", &m, e);
    return st ? st : tt_doc_text(&m, type, &n, e);
}

static tt_doc element(const tt_doc *list, const cJSON *item, int index)
{
    return (tt_doc){.item = item,
                    .up = list,
                    .key = item && cJSON_IsObject(list->item) ? item->string : NULL,
                    .index = index};
}

tt_doc tt_doc_first(const tt_doc *list)
{
    return element(list, list->item ? list->item->child : NULL, 0);
}

tt_doc tt_doc_next(const tt_doc *d)
{
    return element(d->up, d->item->next, d->index + 1);
}
