/* config.c - see config.h. */
#include "models/config.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/utf8.h"

enum { MAX_BYTES = 4 << 20 };

struct tt_config {
    cJSON *root;
    tt_err first; /* the first value refused */
};

tt_status tt_config_open_text(tt_config **out, const char *json, size_t bytes, tt_err *e)
{
    *out = NULL;
    if (bytes > MAX_BYTES)
        return tt_fail(e, TT_EFORMAT, "config of %zu bytes", bytes);
    if (tt_utf8_valid(json, bytes) != bytes)
        return tt_fail(e, TT_EFORMAT, "config is not UTF-8");
    char *text = malloc(bytes + 1);
    tt_config *c = calloc(1, sizeof *c);
    tt_status s = TT_OK;
    if (!text || !c) {
        s = tt_fail(e, TT_ENOMEM, "no memory for a config");
        goto done;
    }
    if (bytes)
        memcpy(text, json, bytes);
    text[bytes] = '\0';
    const char *end = text;
    c->root = cJSON_ParseWithLengthOpts(text, bytes + 1, &end, 1);
    if (!c->root) {
        int line = 1, column = 1;
        for (const char *p = text; p < end; p++)
            column = *p == '\n' ? (line++, 1) : column + 1;
        s = tt_fail(e, TT_EFORMAT, "not JSON: line %d, column %d", line, column);
    } else if (!cJSON_IsObject(c->root)) {
        s = tt_fail(e, TT_EFORMAT, "not a JSON object");
    }
done:
    free(text);
    if (s)
        tt_config_close(c);
    else
        *out = c;
    return s;
}

tt_status tt_config_open(tt_config **out, const char *folder, tt_err *e)
{
    return tt_config_open_file(out, folder, "config.json", e);
}

tt_status tt_config_open_file(tt_config **out, const char *folder, const char *file, tt_err *e)
{
    char path[4096];
    *out = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, file) >= sizeof path)
        return tt_fail(e, TT_EIO, "path '%.80s...' is too long", folder);
    FILE *f = fopen(path, "rb");
    if (!f)
        return tt_fail(e, TT_EIO, "cannot open '%.160s': %s", path, strerror(errno));
    char *text = malloc(MAX_BYTES + 1);
    size_t n = text ? fread(text, 1, MAX_BYTES + 1, f) : 0;
    bool bad = ferror(f);
    fclose(f);
    tt_status s;
    if (!text)
        s = tt_fail(e, TT_ENOMEM, "no memory for a config");
    else if (bad)
        s = tt_fail(e, TT_EIO, "cannot read '%.160s'", path);
    else if ((s = tt_config_open_text(out, text, n, e)))
        tt_context(e, s, "'%.160s'", path);
    free(text);
    return s;
}

void tt_config_close(tt_config *c)
{
    if (!c)
        return;
    cJSON_Delete(c->root);
    free(c);
}

/* A key once read is marked through cJSON's type flags, whose upper bits are free. */
enum { READ = 1 << 20 };

static cJSON *take(tt_config *c, const char *key)
{
    cJSON *j = cJSON_GetObjectItemCaseSensitive(c->root, key);
    if (!j)
        return NULL;
    bool null = cJSON_IsNull(j);
    j->type |= READ;
    return null ? NULL : j;
}

static bool is_type(const cJSON *j, int type) { return (j->type & 0xFF) == type; }

static void refuse(tt_config *c, const char *key, const char *want)
{
    if (!c->first.status)
        tt_fail(&c->first, TT_EFORMAT, "config key '%s' must be %s", key, want);
}

static int64_t int_of(tt_config *c, const cJSON *j, const char *key, int64_t fallback, int64_t min,
                      int64_t max)
{
    if (!j)
        return fallback;
    double v = j->valuedouble;
    if (!is_type(j, cJSON_Number) || v != floor(v) || !(v >= (double)min && v <= (double)max)) {
        char want[80];
        snprintf(want, sizeof want, "an integer in %lld..%lld", (long long)min, (long long)max);
        refuse(c, key, want);
        return fallback;
    }
    return (int64_t)v;
}

int64_t tt_config_int(tt_config *c, const char *key, int64_t fallback, int64_t min, int64_t max)
{
    return int_of(c, take(c, key), key, fallback, min, max);
}

int64_t tt_config_first_int(tt_config *c, const char *key, int64_t fallback, int64_t min,
                            int64_t max)
{
    const cJSON *j = take(c, key);
    return int_of(c, j && is_type(j, cJSON_Array) ? j->child : j, key, fallback, min, max);
}

/* Entry i of a list, or NULL. */
static const cJSON *entry_of(tt_config *c, const char *key, int64_t i)
{
    const cJSON *j = take(c, key);
    if (j && !is_type(j, cJSON_Array)) {
        refuse(c, key, "a list");
        return NULL;
    }
    for (j = j ? j->child : NULL; j && i > 0; i--)
        j = j->next;
    return j;
}

int64_t tt_config_int_at(tt_config *c, const char *key, int64_t i, int64_t fallback, int64_t min,
                         int64_t max)
{
    return int_of(c, entry_of(c, key, i), key, fallback, min, max);
}

int64_t tt_config_need_int(tt_config *c, const char *key, int64_t min, int64_t max)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(c->root, key);
    if ((!j || is_type(j, cJSON_NULL)) && !c->first.status)
        tt_fail(&c->first, TT_EFORMAT, "config key '%s' is missing", key);
    return tt_config_int(c, key, min, min, max);
}

static double float_of(tt_config *c, const cJSON *j, const char *key, double fallback, double min,
                       double max)
{
    if (!j)
        return fallback;
    if (!is_type(j, cJSON_Number) || !(j->valuedouble >= min && j->valuedouble <= max)) {
        char want[80];
        snprintf(want, sizeof want, "a number in %g..%g", min, max);
        refuse(c, key, want);
        return fallback;
    }
    return j->valuedouble;
}

double tt_config_float(tt_config *c, const char *key, double fallback, double min, double max)
{
    return float_of(c, take(c, key), key, fallback, min, max);
}

double tt_config_float_at(tt_config *c, const char *key, int64_t i, double fallback, double min,
                          double max)
{
    return float_of(c, entry_of(c, key, i), key, fallback, min, max);
}

bool tt_config_bool(tt_config *c, const char *key, bool fallback)
{
    const cJSON *j = take(c, key);
    if (!j)
        return fallback;
    if (!is_type(j, cJSON_True) && !is_type(j, cJSON_False)) {
        refuse(c, key, "true or false");
        return fallback;
    }
    return is_type(j, cJSON_True);
}

const char *tt_config_text(tt_config *c, const char *key, const char *fallback)
{
    const cJSON *j = take(c, key);
    if (!j)
        return fallback;
    if (!is_type(j, cJSON_String)) {
        refuse(c, key, "a string");
        return fallback;
    }
    return j->valuestring;
}

/* The member of an object, or NULL; path then names it for messages. */
static const cJSON *member_of(tt_config *c, const char *key, const char *member, char path[120])
{
    const cJSON *j = take(c, key);
    snprintf(path, 120, "%.50s.%.60s", key, member);
    if (!j)
        return NULL;
    if (!is_type(j, cJSON_Object)) {
        refuse(c, key, "an object");
        return NULL;
    }
    j = cJSON_GetObjectItemCaseSensitive(j, member);
    return j && !cJSON_IsNull(j) ? j : NULL;
}

double tt_config_member_float(tt_config *c, const char *key, const char *member, double min,
                              double max)
{
    char path[120], want[80];
    const cJSON *j = member_of(c, key, member, path);
    if (j && is_type(j, cJSON_Number) && j->valuedouble >= min && j->valuedouble <= max)
        return j->valuedouble;
    snprintf(want, sizeof want, "a number in %g..%g", min, max);
    refuse(c, path, want);
    return min;
}

const char *tt_config_member_text(tt_config *c, const char *key, const char *member,
                                  const char *fallback)
{
    char path[120];
    const cJSON *j = member_of(c, key, member, path);
    if (j && !is_type(j, cJSON_String))
        refuse(c, path, "a string");
    return j && is_type(j, cJSON_String) ? j->valuestring : fallback;
}

tt_status tt_config_member(tt_config **out, tt_config *c, const char *key, tt_err *e)
{
    const cJSON *j = take(c, key);
    *out = NULL;
    if (!j || !is_type(j, cJSON_Object))
        return tt_fail(e, TT_EFORMAT, "config key '%s' must be an object", key);
    tt_config *m = calloc(1, sizeof *m);
    if (m)
        m->root = cJSON_Duplicate(j, 1);
    if (!m || !m->root) {
        tt_config_close(m);
        return tt_fail(e, TT_ENOMEM, "no memory for a config");
    }
    *out = m;
    return TT_OK;
}

const char *tt_config_key(const tt_config *c, int i)
{
    const cJSON *j = cJSON_GetArrayItem(c->root, i);
    return j ? j->string : NULL;
}

bool tt_config_has(const tt_config *c, const char *key)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(c->root, key);
    return j && !cJSON_IsNull(j);
}

const char *tt_config_architecture(tt_config *c)
{
    const cJSON *j = take(c, "architectures");
    if (!j)
        return tt_config_text(c, "architecture", "");
    if (!is_type(j, cJSON_Array) || !j->child || !cJSON_IsString(j->child)) {
        refuse(c, "architectures", "a list of names");
        return "";
    }
    return j->child->valuestring;
}

const char *tt_config_family(tt_config *c)
{
    const char *name = tt_config_architecture(c);
    return *name ? name : tt_config_text(c, "model_type", "");
}

void tt_config_ignore(tt_config *c, const char *const *keys)
{
    for (; *keys; keys++)
        take(c, *keys);
}

tt_status tt_config_status(const tt_config *c, tt_err *e)
{
    if (c->first.status && e)
        *e = c->first;
    return c->first.status;
}

int tt_config_unread(const tt_config *c, tt_buf *out)
{
    int n = 0;
    const cJSON *j;
    cJSON_ArrayForEach(j, c->root)
    {
        if (j->type & READ)
            continue;
        tt_buf_printf(out, "%s%s", n ? ", " : "", j->string);
        n++;
    }
    return n;
}
