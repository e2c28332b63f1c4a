/* image_codec.c - what requests say about how pictures are read and painted, and about tokens:
 * `tutti.crops`, `tutti.paint`, tokens to be edited, swapped or mixed. */
#include <stdlib.h>
#include <string.h>

#include "server/api/image_parts.h"

static const tt_codec *codec_of(const tt_imaging *g)
{
    return g->model->image->codec;
}

static const cJSON *option(const tt_form *f, const char *name)
{
    return tt_json_get(tt_json_get(f->tree, "tutti"), name);
}

/* What the codec says against an option, under the option's name. */
static tt_status blame(const char *path, tt_status s, const tt_err *why, tt_err *e)
{
    return tt_fail_param(e, path, s == TT_EUNSUP ? "unsupported_value" : "invalid_value",
                         "'%s': %s", path, why->text);
}

/* A member of an options object: each has a name, a range and a place. */
typedef struct {
    const char *name;
    char kind; /* i(nteger), n(umber), b(ool), c(hoice), l(ist of integers) */
    double min, max;
    void *out;
    const char *const *choice; /* NULL-terminated */
} member;

static tt_status read_choice(const cJSON *node, const char *path, const member *m, tt_err *e)
{
    const char *text;
    tt_status s = tt_json_text(node, path, &text, e);
    for (int i = 0; !s && m->choice[i]; i++)
        if (!strcmp(text, m->choice[i])) {
            *(int *)m->out = i;
            return TT_OK;
        }
    return s ? s : tt_fail_param(e, path, "invalid_value", "'%s' is '%.40s', which is none of its "
                                 "values", path, text);
}

static tt_status read_member(const cJSON *node, const char *path, const member *m, tt_err *e)
{
    switch (m->kind) {
    case 'i':
        return tt_json_int(node, path, (int64_t)m->min, (int64_t)m->max, m->out, e);
    case 'n':
        return tt_json_number(node, path, m->min, m->max, m->out, e);
    case 'b':
        return tt_json_bool(node, path, m->out, e);
    case 'c':
        return read_choice(node, path, m, e);
    default:
        *(const cJSON **)m->out = node;
        return tt_json_is_array(node, path, e);
    }
}

/* list ends with a NULL name. */
static tt_status read_object(const cJSON *object, const char *path, const member *list, tt_err *e)
{
    const cJSON *node;
    cJSON_ArrayForEach(node, object)
    {
        tt_json_path at = tt_json_member(path, node->string);
        const member *m = list;
        while (m->name && strcmp(m->name, node->string))
            m++;
        if (!m->name)
            return tt_fail_param(e, at.text, "unknown_parameter", "unknown parameter '%s'",
                                 at.text);
        tt_status s = cJSON_IsNull(node) ? TT_OK : read_member(node, at.text, m, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* --- crops --- */

static tt_status read_order(tt_crop_policy *p, const cJSON *order, tt_err *e)
{
    const cJSON *node;
    if (cJSON_GetArraySize(order) > TT_MAX_CROPS)
        return tt_fail_param(e, "tutti.crops.order", "invalid_value",
                             "'tutti.crops.order' has more than %d crops", TT_MAX_CROPS);
    cJSON_ArrayForEach(node, order)
    {
        int64_t crop;
        tt_status s = tt_json_int(node, tt_json_element("tutti.crops.order", p->listed).text, 0,
                                  TT_MAX_CROPS, &crop, e);
        if (s)
            return s;
        p->list[p->listed++] = (int32_t)crop;
    }
    return TT_OK;
}

tt_status tt_imaging_read_crops(tt_imaging *g, const tt_form *f, tt_err *e)
{
    static const char *const policies[] = {"raster", "random", "list", "adaptive", NULL};
    const cJSON *object = option(f, "crops"), *order = NULL;
    int64_t crops = 0, seed = 0;
    int policy = TT_CROPS_RASTER;
    tt_crop_policy *p = &g->crops;
    tt_err why = {0};
    if (!object)
        return TT_OK;
    const member list[] = {{"policy", 'c', .out = &policy, .choice = policies},
                           {"order", 'l', .out = &order},
                           {"global_crop", 'b', .out = &p->whole},
                           {"num_crops", 'i', 1, TT_MAX_CROPS + 1, &crops, NULL},
                           {"seed", 'i', 0, (double)TT_JSON_MAX_INT, &seed, NULL},
                           {"sample_latents", 'b', .out = &p->sampled},
                           {"preview", 'b', .out = &g->show},
                           {.name = NULL}};
    tt_status s = read_object(object, "tutti.crops", list, e);
    if (s)
        return s;
    p->order = order ? TT_CROPS_LIST : (tt_crop_order)policy;
    p->crops = (int32_t)crops;
    p->seed = (uint64_t)seed;
    g->by_crops = true;
    if (tt_json_get(object, "policy") && (policy == TT_CROPS_LIST) != (order != NULL))
        return tt_fail_param(e, "tutti.crops.order", "invalid_value",
                             "'tutti.crops.order' and policy 'list' go together");
    s = order ? read_order(p, order, e) : TT_OK;
    if (s)
        return s;
    s = tt_codec_check_reading(codec_of(g), p, &why);
    return s ? blame("tutti.crops", s, &why, e) : TT_OK;
}

/* --- painting --- */

tt_status tt_imaging_read_paint(tt_imaging *g, const tt_form *f, tt_err *e)
{
    static const char *const solvers[] = {"euler", "midpoint", NULL};
    static const char *const forms[] = {"projected", "plain", NULL};
    const cJSON *object = option(f, "paint");
    tt_painting *p = &g->painting;
    *p = codec_of(g)->info.painting;
    int64_t steps = p->steps;
    int solver = p->solver, form = p->plain;
    tt_err why = {0};
    if (!object)
        return TT_OK;
    const member list[] = {{"steps", 'i', 1, TT_MAX_PAINTING_STEPS, &steps, NULL},
                           {"solver", 'c', .out = &solver, .choice = solvers},
                           {"guidance", 'n', 0, 100, &p->guidance, NULL},
                           {"guidance_form", 'c', .out = &form, .choice = forms},
                           {"momentum", 'n', -0.999, 0.999, &p->momentum, NULL},
                           {.name = NULL}};
    tt_status s = read_object(object, "tutti.paint", list, e);
    if (s)
        return s;
    p->steps = (int32_t)steps;
    p->solver = (tt_flow_solver)solver;
    p->plain = form;
    s = tt_codec_check_painting(codec_of(g), p, &why);
    return s ? blame("tutti.paint", s, &why, e) : TT_OK;
}

/* Two numbers. */
static tt_status read_offset(const tt_imaging *g, float out[2], const cJSON *node,
                             const char *path, tt_err *e)
{
    if (!codec_of(g)->info.crops)
        return tt_fail_param(e, path, "unsupported_value",
                             "'%s': tokens of model '%s' lie nowhere", path, g->model->id);
    if (!cJSON_IsArray(node) || cJSON_GetArraySize(node) != 2)
        return tt_fail_param(e, path, "invalid_value", "'%s' must be two numbers", path);
    for (int i = 0; i < 2; i++) {
        double v;
        tt_status s = tt_json_number(cJSON_GetArrayItem(node, i), tt_json_element(path, i).text, -4,
                                     4, &v, e);
        if (s)
            return s;
        out[i] = (float)v;
    }
    return TT_OK;
}

/* --- tokens --- */

/* kept: how many there are; NULL: it must be all. */
static tt_status read_ids(const tt_imaging *g, int32_t *id, int32_t *kept, const cJSON *list,
                          const char *path, tt_err *e)
{
    const tt_codec_info *c = &codec_of(g)->info;
    const tt_layout *l = &c->layout;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    const cJSON *m;
    bool fewer = kept && c->prefix_decodable && n > 0 && n < l->tokens;
    if (n != l->tokens && !fewer)
        return tt_fail_param(e, path, "invalid_value",
                             "'%s' must be the %d tokens of an image of model '%s'%s", path,
                             l->tokens, g->model->id,
                             kept && c->prefix_decodable ? ", or the first of them" : "");
    n = 0;
    cJSON_ArrayForEach(m, list)
    {
        int64_t v;
        tt_status s = tt_json_int(m, tt_json_element(path, n).text, 0, l->codes - 1, &v, e);
        if (s)
            return s;
        id[n++] = (int32_t)v;
    }
    if (kept)
        *kept = n == l->tokens ? 0 : n;
    return kept && *kept && l->kind != TT_LAYOUT_SEQUENCE ? tt_codec_check_keep(codec_of(g), n, e)
                                                          : TT_OK;
}

static tt_status edit(tt_imaging *g, tt_image_unit *u, const cJSON *list, tt_err *e)
{
    const tt_layout *l = &codec_of(g)->info.layout;
    const cJSON *m;
    int i = 0;
    cJSON_ArrayForEach(m, list)
    {
        int64_t index = -1, id = -1;
        tt_json_path path = tt_json_element("tutti.edit", i++);
        const member both[] = {{"index", 'i', 0, l->tokens - 1, &index, NULL},
                               {"id", 'i', 0, l->codes - 1, &id, NULL},
                               {.name = NULL}};
        tt_status s = tt_json_is_object(m, path.text, e);
        if (!s)
            s = read_object(m, path.text, both, e);
        if (!s && (index < 0 || id < 0))
            s = tt_fail_param(e, path.text, "missing_required_parameter",
                              "'%s' needs an index and an id", path.text);
        if (s)
            return s;
        u->id[index] = (int32_t)id;
    }
    return TT_OK;
}

static tt_status swap(tt_imaging *g, tt_image_unit *u, const cJSON *object, tt_err *e)
{
    int32_t tokens = codec_of(g)->info.layout.tokens;
    int64_t from = 0, to = tokens;
    const cJSON *list = NULL;
    const member all[] = {{"from", 'i', 0, tokens, &from, NULL},
                          {"to", 'i', 0, tokens, &to, NULL},
                          {"tokens", 'l', .out = &list},
                          {.name = NULL}};
    tt_image_unit other = {0};
    tt_status s = object ? read_object(object, "tutti.swap", all, e) : TT_OK;
    if (s || !object)
        return s;
    if (!list || from >= to)
        return tt_fail_param(e, "tutti.swap", "invalid_value",
                             "'tutti.swap' needs tokens and a range that is not empty");
    s = tt_unit_open(g, &other, e);
    if (!s)
        s = read_ids(g, other.id, NULL, list, "tutti.swap.tokens", e);
    if (!s)
        memcpy(u->id + from, other.id + from, (size_t)(to - from) * sizeof *u->id);
    tt_unit_free(&other);
    return s;
}

/* What stands between two messages. */
typedef struct {
    int points;
    double share[TT_MAX_TOKEN_IMAGES];
    float offset[2];
    tt_image_unit end;
} between;

static tt_status read_shares(between *b, const cJSON *at, int64_t points, tt_err *e)
{
    const cJSON *node;
    if (!at) {
        for (b->points = 0; b->points < points; b->points++)
            b->share[b->points] = points > 1 ? b->points / (double)(points - 1) : 0.5;
        return TT_OK;
    }
    if (cJSON_GetArraySize(at) < 1 || cJSON_GetArraySize(at) > TT_MAX_TOKEN_IMAGES)
        return tt_fail_param(e, "tutti.interpolate.at", "invalid_value",
                             "'tutti.interpolate.at' must be 1 to %d shares", TT_MAX_TOKEN_IMAGES);
    cJSON_ArrayForEach(node, at)
    {
        tt_json_path path = tt_json_element("tutti.interpolate.at", b->points);
        tt_status s = tt_json_number(node, path.text, 0, 1, &b->share[b->points], e);
        if (s)
            return s;
        b->points++;
    }
    return TT_OK;
}

static tt_status read_between(tt_imaging *g, between *b, const cJSON *object, tt_err *e)
{
    int64_t points = 5;
    const cJSON *list = NULL, *at = NULL, *offset = NULL;
    const member all[] = {{"tokens", 'l', .out = &list},
                          {"at", 'l', .out = &at},
                          {"points", 'i', 1, TT_MAX_TOKEN_IMAGES, &points, NULL},
                          {"decode_offset", 'l', .out = &offset},
                          {.name = NULL}};
    if (!codec_of(g)->info.mixes)
        return tt_fail_param(e, "tutti.interpolate", "unsupported_value",
                             "tokens of model '%s' have nothing between them", g->model->id);
    tt_status s = read_object(object, "tutti.interpolate", all, e);
    if (!s && !list)
        s = tt_fail_param(e, "tutti.interpolate.tokens", "missing_required_parameter",
                          "'tutti.interpolate.tokens' is missing");
    if (!s)
        s = read_shares(b, at, points, e);
    if (!s)
        s = tt_unit_open(g, &b->end, e);
    if (!s)
        s = read_ids(g, b->end.id, NULL, list, "tutti.interpolate.tokens", e);
    return s || !offset
               ? s
               : read_offset(g, b->offset, offset, "tutti.interpolate.decode_offset", e);
}

/* The first unit's tokens and the other's: a unit for every share. */
static tt_status interpolate(tt_imaging *g, const cJSON *object, tt_err *e)
{
    tt_image_unit start = g->unit[0];
    between b = {.offset = {start.picture.painting.offset[0], start.picture.painting.offset[1]}};
    tt_status s = read_between(g, &b, object, e);
    if (!s) {
        tt_image_unit *old = g->unit;
        g->unit = NULL;
        g->units = 0;
        s = tt_imaging_units(g, b.points, e);
        free(old);
    } else {
        g->unit[0] = (tt_image_unit){.job = NULL};
    }
    for (int i = 0; i < b.points && !s; i++) {
        tt_image_unit *u = &g->unit[i];
        s = tt_codec_mix(codec_of(g), u->id, start.id, b.end.id, b.share[i], e);
        u->picture = start.picture;
        u->samples = start.samples;
        for (int k = 0; k < 2; k++)
            u->picture.painting.offset[k] +=
                (float)b.share[i] * (b.offset[k] - start.picture.painting.offset[k]);
    }
    tt_unit_free(&start);
    tt_unit_free(&b.end);
    return s;
}

/* --- the whole --- */

static tt_status read_unit(tt_imaging *g, const tt_form *f, int i, const cJSON *list,
                           const char *path, tt_err *e)
{
    const cJSON *offset = tt_json_get(f->tree, "decode_offset");
    bool several = offset && cJSON_IsArray(offset->child);
    tt_json_path name = several ? tt_json_element("decode_offset", i)
                                : tt_json_member("", "decode_offset");
    tt_image_unit *u = &g->unit[i];
    u->samples = g->n;
    u->picture = (tt_picture_spec){.task = TT_PICTURE_DECODE, .painting = g->painting};
    tt_status s = read_ids(g, u->id, &u->picture.keep, list, path, e);
    const cJSON *mine = several ? cJSON_GetArrayItem(offset, i) : offset;
    if (!s && offset && !mine)
        s = tt_fail_param(e, "decode_offset", "invalid_value",
                          "'decode_offset' has fewer entries than 'tokens'");
    if (!s && mine)
        s = read_offset(g, u->picture.painting.offset, mine, name.text, e);
    if (!s)
        s = swap(g, u, option(f, "swap"), e);
    return s ? s : edit(g, u, option(f, "edit"), e);
}

tt_status tt_imaging_read_tokens(tt_imaging *g, const tt_form *f, tt_err *e)
{
    const cJSON *m, *list = tt_json_get(f->tree, "tokens"), *way = option(f, "interpolate");
    bool several = list && cJSON_IsArray(list->child);
    int n = several ? cJSON_GetArraySize(list) : 1, i = 0;
    if (!list)
        return tt_fail_param(e, "tokens", "missing_required_parameter", "'tokens' is missing");
    if (n > TT_MAX_TOKEN_IMAGES)
        return tt_fail_param(e, "tokens", "invalid_value", "more than %d images",
                             TT_MAX_TOKEN_IMAGES);
    if (n > 1 && way)
        return tt_fail_param(e, "tutti.interpolate", "invalid_value",
                             "'tutti.interpolate' begins with the tokens of one image");
    tt_status s = tt_imaging_units(g, n, e);
    if (!s && !several)
        s = read_unit(g, f, 0, list, "tokens", e);
    for (m = several ? list->child : NULL; m && !s; m = m->next, i++)
        s = read_unit(g, f, i, m, tt_json_element("tokens", i).text, e);
    if (!s && way && g->unit[0].picture.keep)
        s = tt_fail_param(e, "tokens", "invalid_value",
                          "'tutti.interpolate' needs all tokens of the image");
    return s || !way ? s : interpolate(g, way, e);
}
