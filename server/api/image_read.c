/* image_read.c - what requests about images say. Field names, types and ranges were checked before
 * (fields.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "kernels/base/clock.h"
#include "server/api/image_parts.h"
#include "server/png.h"

static const cJSON *tutti(const tt_form *f)
{
    return tt_json_get(f->tree, "tutti");
}

/* --- what to show --- */

static tt_status read_label(tt_imaging *g, const cJSON *m, tt_err *e)
{
    const tt_generator_info *info = g->model->image->generator;
    const tt_labels *l = g->model->image->labels;
    tt_json_path path = tt_json_member("tutti.labels", m->string);
    int32_t k = 0;
    int64_t number;
    while (l && k < info->groups && strcmp(tt_labels_group(l, k), m->string))
        k++;
    if (!l || k == info->groups)
        return tt_fail_param(e, path.text, "unknown_parameter",
                             "model '%s' has no labels of a group '%.40s'", g->model->id,
                             m->string);
    if (cJSON_IsString(m)) {
        g->condition.label[k] = tt_labels_find(l, k, m->valuestring, strlen(m->valuestring));
        if (g->condition.label[k] < 0)
            return tt_fail_param(e, path.text, "invalid_value",
                                 "group '%.40s' has no label '%.60s'; GET /v1/images/labels lists "
                                 "all",
                                 m->string, m->valuestring);
        return TT_OK;
    }
    tt_status s = tt_json_int(m, path.text, 0, info->group[k] - 1, &number, e);
    g->condition.label[k] = s ? -1 : (int32_t)number;
    return s;
}

/* Any text, for models that read one. */
static tt_status read_text(tt_imaging *g, const tt_form *f, const char *prompt, bool needed,
                           tt_err *e)
{
    const cJSON *labels = tt_json_get(tutti(f), "labels");
    if (labels || tt_json_get(tutti(f), "class_id"))
        return tt_fail_param(e, labels ? "tutti.labels" : "tutti.class_id", "unsupported_value",
                             "model '%s' knows no labels: it reads the prompt", g->model->id);
    return prompt || !needed
               ? tt_prompt_read(&g->text, g->model->image->text, prompt ? prompt : "", e)
               : tt_fail_param(e, "prompt", "missing_required_parameter",
                               "'prompt' is missing");
}

static tt_status read_condition(tt_imaging *g, const tt_form *f, bool needed, tt_err *e)
{
    const tt_generator_info *info = g->model->image->generator;
    const char *prompt = tt_field_text(f->tree, "prompt", NULL);
    const cJSON *m, *labels = tt_json_get(tutti(f), "labels");
    int64_t id = tt_field_int(tutti(f), "class_id", -1);
    for (int i = 0; i < TT_MAX_LABEL_GROUPS; i++)
        g->condition.label[i] = -1;
    if (g->model->image->text)
        return read_text(g, f, prompt, needed, e);
    if (id >= 0 && (!info->groups || id >= info->group[0]))
        return tt_fail_param(e, "tutti.class_id", "invalid_value",
                             "'tutti.class_id' is %lld; model '%s' has classes 0..%d",
                             (long long)id, g->model->id, info->groups ? info->group[0] - 1 : -1);
    if (id >= 0)
        g->condition.label[0] = (int32_t)id;
    cJSON_ArrayForEach(m, labels)
    {
        tt_status s = read_label(g, m, e);
        if (s)
            return s;
    }
    if (id >= 0 || labels)
        return TT_OK;
    if (!prompt && needed && info->groups)
        return tt_fail_param(e, "prompt", "missing_required_parameter", "'prompt' is missing");
    if (prompt && strlen(prompt) > 1000)
        return tt_fail_param(e, "prompt", "invalid_value",
                             "'prompt' has %zu bytes; names of labels are shorter than 1000",
                             strlen(prompt));
    return tt_labels_prompt(g->model->image->labels, info, prompt ? prompt : "", "prompt",
                            &g->condition, e);
}

/* --- how --- */

/* 53 random bits, so that the number survives any JSON reader. */
static int64_t random_seed(void)
{
    uint64_t bits = 0;
    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        bits = (uint64_t)tt_now_ns();
    return (int64_t)(bits >> 11);
}

static tt_status check_unread(const tt_imaging *g, const tt_form *f, tt_err *e)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    const tt_planner *p = g->model->image->planner;
    for (size_t i = 0; i < n; i++) {
        if (!tt_params_given_at(&g->params, i) || (p && tt_planner_reads(p, &all[i])))
            continue;
        const cJSON *node;
        tt_json_path path = {0};
        tt_status s = tt_extension_find(f->tree, all[i].name, &node, &path, e);
        return s ? s
                 : tt_fail_param(e, path.text, "unsupported_parameter",
                                 "image model '%s' does not read '%s'", g->model->id, all[i].name);
    }
    return TT_OK;
}

/* The steps a quality stands for, in halves of the model's own number. */
static tt_status read_quality(tt_imaging *g, const tt_form *f, tt_err *e)
{
    static const struct {
        const char *name;
        int halves;
    } known[] = {{"auto", 2}, {"standard", 2}, {"medium", 2}, {"low", 1},
                 {"high", 4}, {"hd", 4},       {"xhigh", 6},  {"max", 8}};
    const char *name = tt_field_text(f->tree, "quality", "auto");
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i].name, name))
        i++;
    if (i == sizeof known / sizeof *known)
        return tt_fail_param(e, "quality", "invalid_value",
                             "'quality' is '%.40s', must be one of auto, low, medium, high, xhigh, "
                             "max, standard, hd",
                             name);
    snprintf(g->quality, sizeof g->quality, "%s", name);
    if (tt_params_given(&g->params, "steps"))
        return TT_OK;
    int32_t own = g->params.steps ? g->params.steps : 8;
    int32_t steps = own * known[i].halves / 2;
    g->params.steps = steps ? steps : 1;
    return TT_OK;
}

static tt_status read_params(tt_imaging *g, const tt_form *f, tt_err *e)
{
    g->params = g->model->defaults;
    memset(g->params.given, 0, sizeof g->params.given);
    tt_status s = tt_params_read(f->tree, &g->params, e);
    if (!s)
        s = check_unread(g, f, e);
    return s ? s : read_quality(g, f, e);
}

static tt_status check_choice(const tt_form *f, const char *name, const char *good,
                              const char *other, tt_err *e)
{
    const char *v = tt_field_text(f->tree, name, good);
    if (!strcmp(v, good) || (other && !strcmp(v, other)))
        return TT_OK;
    return tt_fail_param(e, name, "unsupported_value", "'%s' is '%.40s'; this server gives %s%s%s",
                         name, v, good, other ? " or " : "", other ? other : "");
}

/* What OpenAI's interface lets one choose and we have one of. */
static tt_status check_output(const tt_imaging *g, const tt_form *f, tt_err *e)
{
    char size[32];
    const tt_codec_info *c = &g->model->image->codec->info;
    snprintf(size, sizeof size, "%dx%d", c->width, c->height);
    tt_status s = check_choice(f, "response_format", "b64_json", NULL, e);
    if (!s)
        s = check_choice(f, "output_format", "png", NULL, e);
    if (!s)
        s = check_choice(f, "background", "opaque", "auto", e);
    return s ? s : check_choice(f, "size", size, "auto", e);
}

static tt_status read_stream(tt_imaging *g, const tt_form *f, tt_err *e)
{
    const char *mode = tt_field_text(tutti(f), "stream_mode", NULL);
    int64_t partial = tt_field_int(f->tree, "partial_images", 0);
    g->stream = tt_field_bool(f->tree, "stream", false);
    g->delta = mode && !strcmp(mode, "delta");
    g->previews = (int32_t)tt_field_int(tutti(f), "previews", partial);
    if (mode && !g->delta)
        return tt_fail_param(e, "tutti.stream_mode", "invalid_value",
                             "'tutti.stream_mode' is '%.40s'; images stream partial pictures, and "
                             "with 'delta' their tokens",
                             mode);
    if (partial && !g->stream)
        return tt_fail_param(e, "partial_images", "invalid_value",
                             "'partial_images' needs 'stream' to be true");
    if (g->stream && g->work.detached)
        return tt_fail_param(e, "tutti.async", "invalid_value",
                             "a job is asked for how far it is; it does not stream");
    if (g->previews && g->tokens_only)
        return tt_fail_param(e, "tutti.tokens_only", "invalid_value",
                             "'tutti.tokens_only' and previews exclude each other");
    return TT_OK;
}

/* How many, from which noise, how painted. */
static tt_status read_number(tt_imaging *g, const tt_form *f, tt_err *e)
{
    g->n = (int32_t)tt_field_int(f->tree, "n", 1);
    g->seed = tt_json_get(f->tree, "seed") ? tt_field_int(f->tree, "seed", 0) : random_seed();
    if (g->n > g->api->max_samples)
        return tt_fail_param(e, "n", "invalid_value", "'n' is %d, at most %d are allowed", g->n,
                             g->api->max_samples);
    return tt_imaging_read_paint(g, f, e);
}

/* What all that make images have in common. */
static tt_status read_making(tt_imaging *g, const tt_form *f, tt_err *e)
{
    const cJSON *t = tutti(f);
    g->tokens_only = tt_field_bool(t, "tokens_only", false);
    g->return_tokens = g->tokens_only || tt_field_bool(t, "return_tokens", false);
    g->paste = tt_field_bool(t, "paste", true);
    tt_status s = read_number(g, f, e);
    if (!s)
        s = read_params(g, f, e);
    if (!s)
        s = check_output(g, f, e);
    return s ? s : read_stream(g, f, e);
}

/* --- units --- */

tt_status tt_unit_open(const tt_imaging *g, tt_image_unit *u, tt_err *e)
{
    size_t n = (size_t)g->model->image->codec->info.layout.tokens;
    u->samples = 1;
    u->id = calloc(n, sizeof *u->id);
    u->open = calloc(n, 1);
    return u->id && u->open ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the request");
}

tt_status tt_imaging_units(tt_imaging *g, int units, tt_err *e)
{
    g->unit = calloc((size_t)units, sizeof *g->unit);
    if (!g->unit)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    for (; g->units < units; g->units++) {
        tt_status s = tt_unit_open(g, &g->unit[g->units], e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* The one job of a request that makes images. */
static tt_status making_unit(tt_imaging *g, tt_err *e)
{
    tt_status s = tt_imaging_units(g, 1, e);
    if (s)
        return s;
    tt_image_unit *u = &g->unit[0];
    u->samples = g->n;
    u->picture = (tt_picture_spec){.task = TT_PICTURE_MAKE,
                                   .condition = g->condition,
                                   .prompt = g->text.id ? &g->text : NULL,
                                   .previews = g->previews,
                                   .tokens_only = g->tokens_only,
                                   .strength = g->strength,
                                   .painting = g->painting};
    if (!g->model->image->planner) /* painted anew: no token changes */
        u->picture = (tt_picture_spec){.task = TT_PICTURE_DECODE, .painting = g->painting};
    for (int32_t i = 0; i < g->model->image->codec->info.layout.tokens; i++)
        u->open[i] = g->remade ? g->remade[i] : !g->source.pixels;
    return TT_OK;
}

/* Reading of a picture as the request wants it. */
static tt_picture_spec encoding_of(const tt_imaging *g, const float *pixels)
{
    return (tt_picture_spec){.task = TT_PICTURE_ENCODE, .pixels = pixels,
                             .by_crops = g->by_crops, .crops = g->crops};
}

static tt_status source_unit(tt_imaging *g, tt_err *e)
{
    g->source.picture = encoding_of(g, g->source.pixels);
    return tt_unit_open(g, &g->source, e);
}

/* --- endpoints --- */

static tt_status check_maker(const tt_imaging *g, tt_err *e)
{
    return g->model->image->planner
               ? TT_OK
               : tt_fail_param(e, "model", "unsupported_value",
                               "model '%s' turns images into tokens and back; it makes none",
                               g->model->id);
}

/* What verifiers read: the prompt as it came, else the names of the labels. */
static tt_status keep_prompt(tt_imaging *g, const tt_form *f, tt_err *e)
{
    tt_buf caption = {0};
    const char *prompt = tt_field_text(f->tree, "prompt", NULL);
    if (!prompt)
        tt_labels_caption(g->model->image->labels, g->model->image->generator, &g->condition,
                          &caption);
    g->prompt = strdup(prompt ? prompt : tt_buf_text(&caption));
    tt_buf_free(&caption);
    g->search.prompt = g->prompt;
    return g->prompt ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the request");
}

static tt_status read_search(tt_imaging *g, const tt_form *f, tt_err *e)
{
    const cJSON *node = tt_json_get(tutti(f), "search");
    if (!node)
        return TT_OK;
    tt_status s = tt_search_read(g->api, node, g->n, tt_json_get(f->tree, "n") != NULL, &g->search,
                                 g->counts, e);
    g->n = s ? g->n : g->search.rules.results;
    if (!s && g->delta)
        return tt_fail_param(e, "tutti.stream_mode", "unsupported_value",
                             "a search tells its steps, not the tokens of each candidate");
    if (!s && g->n > g->api->max_samples)
        return tt_fail_param(e, "tutti.search.results", "invalid_value",
                             "%d results, at most %d are allowed", g->n, g->api->max_samples);
    return s ? s : keep_prompt(g, f, e);
}

tt_status tt_imaging_read_generations(tt_imaging *g, const tt_form *f, tt_err *e)
{
    tt_status s = check_maker(g, e);
    if (!s)
        s = read_making(g, f, e);
    if (!s)
        s = read_condition(g, f, true, e);
    if (!s)
        s = read_search(g, f, e);
    return s ? s : making_unit(g, e);
}

/* The one picture that edits and variations begin with. */
static tt_status only_picture(const tt_form *f, tt_picture *out, tt_err *e)
{
    tt_picture second = {0};
    bool there, more = false;
    tt_status s = tt_source_picture(f, "image", 0, out, &there, e);
    if (!s && !there)
        s = tt_fail_param(e, "image", "missing_required_parameter", "'image' is missing");
    if (!s)
        s = tt_source_picture(f, "image", 1, &second, &more, e);
    tt_picture_free(&second);
    if (more)
        return tt_fail_param(e, "image", "unsupported_value", "only one image can be given");
    return s;
}

static tt_status read_edit(tt_imaging *g, const tt_form *f, tt_picture *p, tt_picture *mask,
                           tt_err *e)
{
    bool masked = false;
    tt_status s = only_picture(f, p, e);
    if (!s)
        s = tt_source_picture(f, "mask", 0, mask, &masked, e);
    if (!s && masked && tt_json_get(tutti(f), "outpaint"))
        s = tt_fail_param(e, "mask", "invalid_value",
                          "'mask' and 'tutti.outpaint' exclude each other");
    if (!s)
        s = tt_source_outpaint(f, p, e);
    if (!s)
        s = tt_source_mask(g, f, p, masked ? mask : NULL, e);
    return s ? s : tt_source_fit(g, p, e);
}

tt_status tt_imaging_read_edits(tt_imaging *g, const tt_form *f, tt_err *e)
{
    tt_picture p = {0}, mask = {0};
    tt_status s = g->model->image->codec->info.spatial ? check_maker(g, e) : TT_OK;
    if (!s)
        s = read_making(g, f, e);
    if (!s)
        s = read_condition(g, f, false, e);
    if (!s)
        s = read_edit(g, f, &p, &mask, e);
    tt_picture_free(&p);
    tt_picture_free(&mask);
    if (!s)
        s = source_unit(g, e);
    return s ? s : making_unit(g, e);
}

/* Where nothing makes tokens, the same message is painted from other noise. */
static tt_status check_variation(const tt_imaging *g, bool strength, tt_err *e)
{
    const tt_image_model *m = g->model->image;
    if (m->planner)
        return TT_OK;
    if (!m->codec->info.painting.steps)
        return check_maker(g, e);
    return strength ? tt_fail_param(e, "tutti.strength", "unsupported_value",
                                    "model '%s' paints the same tokens anew: 'tutti.strength' "
                                    "means nothing", g->model->id)
                    : TT_OK;
}

tt_status tt_imaging_read_variations(tt_imaging *g, const tt_form *f, tt_err *e)
{
    const cJSON *strength = tt_json_get(tutti(f), "strength");
    tt_picture p = {0};
    g->strength = strength ? strength->valuedouble : 0.6;
    if (!(g->strength > 0))
        return tt_fail_param(e, "tutti.strength", "invalid_value",
                             "'tutti.strength' must be above 0");
    tt_status s = check_variation(g, strength != NULL, e);
    if (!s)
        s = read_making(g, f, e);
    if (!s)
        s = tt_imaging_read_crops(g, f, e);
    if (!s && g->show)
        s = tt_fail_param(e, "tutti.crops.preview", "unsupported_value",
                          "'tutti.crops.preview' is for /v1/images/tokenize alone");
    if (!s)
        s = read_condition(g, f, false, e);
    if (!s)
        s = only_picture(f, &p, e);
    if (!s)
        s = tt_source_fit(g, &p, e);
    tt_picture_free(&p);
    if (!s)
        s = source_unit(g, e);
    g->paste = false; /* what is made anew is everywhere */
    return s ? s : making_unit(g, e);
}

static tt_status tokenize_one(tt_imaging *g, const tt_picture *p, tt_err *e)
{
    tt_image_unit *u = &g->unit[g->units];
    tt_status s = tt_unit_open(g, u, e);
    g->units++;
    if (!s)
        s = tt_source_fit(g, p, e);
    if (s)
        return s;
    u->pixels = g->source.pixels;
    u->picture = encoding_of(g, u->pixels);
    u->picture.show = g->show;
    free(g->source_rgb);
    g->source.pixels = NULL;
    g->source_rgb = NULL;
    return TT_OK;
}

static tt_status read_token_stream(tt_imaging *g, const tt_form *f, tt_err *e)
{
    tt_status s = tt_imaging_read_crops(g, f, e);
    g->stream = tt_field_bool(f->tree, "stream", false);
    if (!s && g->stream && g->work.detached)
        s = tt_fail_param(e, "tutti.async", "invalid_value",
                          "a job is asked for how far it is; it does not stream");
    if (!s && g->show && !g->stream)
        s = tt_fail_param(e, "tutti.crops.preview", "invalid_value",
                          "'tutti.crops.preview' needs 'stream' to be true");
    return s;
}

tt_status tt_imaging_read_tokenize(tt_imaging *g, const tt_form *f, tt_err *e)
{
    g->unit = calloc(TT_MAX_TOKEN_IMAGES, sizeof *g->unit);
    if (!g->unit)
        return tt_fail(e, TT_ENOMEM, "no memory for the request");
    tt_status first = read_token_stream(g, f, e);
    if (first)
        return first;
    for (bool there = true; there;) {
        tt_picture p;
        tt_status s = tt_source_picture(f, "image", g->units, &p, &there, e);
        if (!s && there && g->units == TT_MAX_TOKEN_IMAGES)
            s = tt_fail_param(e, "images", "invalid_value", "more than %d images",
                              TT_MAX_TOKEN_IMAGES);
        if (!s && there)
            s = tokenize_one(g, &p, e);
        tt_picture_free(&p);
        if (s)
            return s;
    }
    return g->units ? TT_OK
                    : tt_fail_param(e, "image", "missing_required_parameter", "'image' is missing");
}

tt_status tt_imaging_read_detokenize(tt_imaging *g, const tt_form *f, tt_err *e)
{
    tt_status s = check_output(g, f, e);
    if (!s)
        s = read_number(g, f, e);
    if (!s && g->n > 1 && !g->painting.steps)
        s = tt_fail_param(e, "n", "unsupported_value",
                          "tokens of model '%s' are one image: 'n' must be 1", g->model->id);
    g->return_tokens = tt_field_bool(tutti(f), "return_tokens", false);
    if (!s)
        s = tt_imaging_read_tokens(g, f, e);
    return !s && (int64_t)g->units * g->n > 128
               ? tt_fail_param(e, "n", "invalid_value", "more than 128 images")
               : s;
}
