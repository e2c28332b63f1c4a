/* labels.c - see labels.h. */
#include "server/labels.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/map.h"
#include "server/beside.h"
#include "server/json_read.h"

enum { MAX_FILE = 8 << 20, MAX_LABEL = 200, NEAR = 6 };

struct tt_labels {
    cJSON *tree; /* owns the names */
    int32_t groups, count[TT_MAX_LABEL_GROUPS];
    const char *group[TT_MAX_LABEL_GROUPS];
    const char **name[TT_MAX_LABEL_GROUPS];
    tt_map *index[TT_MAX_LABEL_GROUPS]; /* name in lower case -> label */
};

/* --- reading the file --- */

static tt_status read_file(const char *path, tt_buf *out, bool *there, tt_err *e)
{
    FILE *f = fopen(path, "rb");
    char piece[16384];
    *there = f != NULL;
    if (!f)
        return errno == ENOENT ? TT_OK : tt_fail(e, TT_EIO, "'%.150s': %s", path, strerror(errno));
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0 && out->size <= MAX_FILE;)
        tt_buf_add(out, piece, n);
    bool bad = ferror(f) || out->failed;
    fclose(f);
    if (bad || out->size > MAX_FILE)
        return tt_fail(e, TT_EIO, "'%.150s' cannot be read or is too large", path);
    return TT_OK;
}

static size_t lower(char *to, const char *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)tolower((unsigned char)from[i]);
    return n;
}

static tt_status read_label(tt_labels *l, int32_t g, int32_t i, const cJSON *node, tt_err *e)
{
    const char *text = cJSON_IsString(node) ? node->valuestring : "";
    size_t n = strlen(text);
    char key[MAX_LABEL];
    int32_t old = -1;
    if (!n || n > MAX_LABEL)
        return tt_fail(e, TT_EFORMAT, "label %d of group %d is no text of 1 to %d bytes", i, g,
                       MAX_LABEL);
    l->name[g][i] = text;
    tt_status s = tt_map_put(l->index[g], key, lower(key, text, n), i, &old, e);
    if (!s && old >= 0)
        return tt_fail(e, TT_EFORMAT, "group %d has two labels '%.60s'", g, text);
    return s;
}

static tt_status read_group(tt_labels *l, int32_t g, const cJSON *node, int32_t want, tt_err *e)
{
    const cJSON *m, *list = tt_json_get(node, "labels"), *name = tt_json_get(node, "name");
    int32_t i = 0, n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (!cJSON_IsString(name) || n != want)
        return tt_fail(e, TT_EFORMAT, "group %d needs a name and %d labels", g, want);
    l->group[g] = name->valuestring;
    l->count[g] = n;
    l->name[g] = calloc((size_t)n + 1, sizeof *l->name[g]);
    if (!l->name[g])
        return tt_fail(e, TT_ENOMEM, "no memory for labels");
    tt_status s = tt_map_open(&l->index[g], (size_t)n, e);
    cJSON_ArrayForEach(m, list)
    {
        if (!s)
            s = read_label(l, g, i++, m, e);
    }
    return s;
}

static tt_status read_groups(tt_labels *l, const tt_generator_info *info, tt_err *e)
{
    const cJSON *m, *list = tt_json_get(l->tree, "groups");
    tt_status s = TT_OK;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != info->groups)
        return tt_fail(e, TT_EFORMAT, "'groups' must be %d groups, as the model has", info->groups);
    cJSON_ArrayForEach(m, list)
    {
        if (!s)
            s = read_group(l, l->groups, m, info->group[l->groups], e);
        l->groups++;
    }
    return s;
}

tt_status tt_labels_open(tt_labels **out, const char *folder, const char *name,
                         const tt_generator_info *info, tt_err *e)
{
    char path[4200];
    tt_buf text = {0};
    bool there = false;
    *out = NULL;
    tt_status s = tt_beside(path, sizeof path, folder, "labels", name, e);
    if (!s)
        s = read_file(path, &text, &there, e);
    if (s || !there) {
        tt_buf_free(&text);
        return s;
    }
    tt_labels *l = calloc(1, sizeof *l);
    s = l ? tt_json_parse(&l->tree, tt_buf_text(&text), text.size, e)
          : tt_fail(e, TT_ENOMEM, "no memory for labels");
    tt_buf_free(&text);
    if (!s)
        s = read_groups(l, info, e);
    if (s) {
        tt_labels_close(l);
        return tt_context(e, s == TT_EINVAL ? TT_EFORMAT : s, "'%.150s'", path);
    }
    *out = l;
    return TT_OK;
}

void tt_labels_close(tt_labels *l)
{
    if (!l)
        return;
    for (int32_t g = 0; g < TT_MAX_LABEL_GROUPS; g++) {
        free(l->name[g]);
        tt_map_close(l->index[g]);
    }
    cJSON_Delete(l->tree);
    free(l);
}

const char *tt_labels_group(const tt_labels *l, int32_t group)
{
    return l->group[group];
}

int32_t tt_labels_count(const tt_labels *l, int32_t group)
{
    return l->count[group];
}

const char *tt_labels_name(const tt_labels *l, int32_t group, int32_t label)
{
    return l->name[group][label];
}

/* --- prompts --- */

typedef struct {
    const char *at;
    size_t n;
} span;

static span trimmed(const char *at, size_t n)
{
    while (n && isspace((unsigned char)*at)) {
        at++;
        n--;
    }
    while (n && isspace((unsigned char)at[n - 1]))
        n--;
    return (span){at, n};
}

static bool cut_front(span *s, const char *word)
{
    size_t n = strlen(word);
    if (s->n <= n || strncasecmp(s->at, word, n))
        return false;
    *s = trimmed(s->at + n, s->n - n);
    return true;
}

static bool cut_back(span *s, const char *word)
{
    size_t n = strlen(word);
    if (s->n <= n || strncasecmp(s->at + s->n - n, word, n))
        return false;
    *s = trimmed(s->at, s->n - n);
    return true;
}

static int32_t look_up(const tt_labels *l, int32_t g, span s)
{
    char key[MAX_LABEL];
    if (!s.n || s.n > sizeof key)
        return -1;
    return tt_map_get(l->index[g], key, lower(key, s.at, s.n));
}

int32_t tt_labels_find(const tt_labels *l, int32_t group, const char *name, size_t bytes)
{
    span s = trimmed(name, bytes);
    int32_t i = look_up(l, group, s);
    if (i < 0 && (cut_front(&s, "a ") || cut_front(&s, "an ") || cut_front(&s, "the ")))
        i = look_up(l, group, s);
    if (i < 0 && cut_back(&s, " style"))
        i = look_up(l, group, s);
    return i;
}

/* Takes the longest piece up to a comma that is a label of a group that has none yet. */
static size_t take_piece(const tt_labels *l, span s, tt_condition *c)
{
    for (size_t n = s.n; n; n--) {
        if (n < s.n && s.at[n] != ',')
            continue;
        for (int32_t g = 0; g < l->groups; g++) {
            int32_t i = c->label[g] < 0 ? tt_labels_find(l, g, s.at, n) : -1;
            if (i >= 0) {
                c->label[g] = i;
                return n;
            }
        }
    }
    return 0;
}

/* Returns what could not be read of the prompt. */
static span take_labels(const tt_labels *l, span s, tt_condition *c)
{
    while (s.n) {
        size_t n = take_piece(l, s, c);
        if (!n)
            break;
        s = trimmed(s.at + n, s.n - n);
        if (s.n && *s.at == ',')
            s = trimmed(s.at + 1, s.n - 1);
    }
    return s;
}

static bool shares_word(const char *name, span s)
{
    size_t from = 0;
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && isalnum((unsigned char)s.at[i]))
            continue;
        char word[64];
        size_t n = i - from;
        if (n > 2 && n < sizeof word) {
            memcpy(word, s.at + from, n);
            word[n] = '\0';
            if (strcasestr(name, word))
                return true;
        }
        from = i + 1;
    }
    return false;
}

/* Some labels: those with a word of the text, or the first ones. */
static void list_some(const tt_labels *l, span s, char *out, size_t size)
{
    int found = 0;
    for (int like = 1; like >= 0 && !found; like--)
        for (int32_t i = 0; i < l->count[0] && found < NEAR; i++) {
            const char *name = l->name[0][i];
            if (strlen(out) + strlen(name) + 5 > size || (like && !shares_word(name, s)))
                continue;
            strcat(strcat(out, found++ ? ", '" : "'"), name);
            strcat(out, "'");
        }
}

static bool read_number(const tt_generator_info *info, span s, tt_condition *c)
{
    int64_t v = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (!isdigit((unsigned char)s.at[i]) || v > info->group[0])
            return false;
        v = v * 10 + s.at[i] - '0';
    }
    if (!s.n || v >= info->group[0])
        return false;
    c->label[0] = (int32_t)v;
    return true;
}

tt_status tt_labels_prompt(const tt_labels *l, const tt_generator_info *info, const char *prompt,
                           const char *path, tt_condition *out, tt_err *e)
{
    span s = trimmed(prompt, strlen(prompt)), left = s;
    char some[120] = "";
    for (int32_t g = 0; g < TT_MAX_LABEL_GROUPS; g++)
        out->label[g] = -1;
    if (l)
        left = take_labels(l, s, out);
    if (!left.n || (left.n == s.n && info->groups && read_number(info, s, out)))
        return TT_OK;
    if (!info->groups)
        return tt_fail_param(e, path, "unsupported_value",
                             "this model makes images of one kind; '%s' must be empty", path);
    if (!l)
        return tt_fail_param(e, path, "invalid_value", "'%s' must be the number of a class, 0..%d",
                             path, info->group[0] - 1);
    list_some(l, left, some, sizeof some);
    return tt_fail_param(e, path, "invalid_value",
                         "the model does not know '%.40s'; it knows %s, ...; "
                         "GET /v1/images/labels lists all",
                         left.at, some);
}

void tt_labels_caption(const tt_labels *l, const tt_generator_info *info, const tt_condition *c,
                       tt_buf *out)
{
    size_t before = out->size;
    for (int32_t g = 0; g < info->groups; g++) {
        if (c->label[g] < 0)
            continue;
        if (out->size > before)
            tt_buf_puts(out, ", ");
        if (l)
            tt_buf_puts(out, tt_labels_name(l, g, c->label[g]));
        else
            tt_buf_printf(out, "%d", c->label[g]);
    }
}
