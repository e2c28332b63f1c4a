/* image_source.c - pictures that requests bring along: where they are in a body, and what becomes
 * of them on the way to the codec. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/image_parts.h"
#include "server/base64.h"
#include "server/png.h"

/* --- in the body --- */

static tt_status no_text(const char *path, tt_err *e)
{
    return tt_fail_param(
        e, path, "invalid_value",
        "'%s' must be a PNG file of a form, or a string or {\"image_url\": string} "
        "that holds one in base64 or as a data URL",
        path);
}

/* The text of an image in JSON: itself, or in an object as newer interfaces have it. */
static tt_status text_of(const cJSON *node, const char *path, const char **out, tt_err *e)
{
    const cJSON *url = tt_json_get(node, "image_url"), *inner = tt_json_get(url, "url");
    if (cJSON_IsObject(node) && tt_json_get(node, "file_id"))
        return tt_fail_param(e, path, "unsupported_value",
                             "'%s' names a file; this server keeps none: send the image itself",
                             path);
    const cJSON *text = cJSON_IsObject(url) ? inner : cJSON_IsObject(node) ? url : node;
    if (!cJSON_IsString(text))
        return no_text(path, e);
    *out = text->valuestring;
    if (!strncmp(*out, "http:", 5) || !strncmp(*out, "https:", 6))
        return tt_fail_param(e, path, "unsupported_value",
                             "'%s' is an address; this server fetches nothing: send a data URL",
                             path);
    return TT_OK;
}

static tt_status decode_text(const char *text, const char *path, tt_picture *out, tt_err *e)
{
    tt_buf file = {0};
    const char *comma = strncmp(text, "data:", 5) ? NULL : strchr(text, ',');
    if (!strncmp(text, "data:", 5) &&
        (!comma || comma - text < 7 || strncmp(comma - 7, ";base64", 7)))
        return no_text(path, e);
    text = comma ? comma + 1 : text;
    tt_status s = TT_OK;
    if (!tt_base64_take(&file, text, strlen(text)))
        s = tt_fail_param(e, path, "invalid_value", "'%s' is not base64", path);
    if (!s)
        s = tt_png_decode(out, file.data, file.size, TT_PNG_MAX_SIDE, path, e);
    tt_buf_free(&file);
    return s;
}

/* The node of the i-th image; path becomes its place. */
static const cJSON *node_of(const cJSON *body, const char *name, int i, tt_json_path *path)
{
    const cJSON *one = tt_json_get(body, name);
    const cJSON *many = strcmp(name, "image") ? NULL : tt_json_get(body, "images");
    *path = tt_json_member("", name);
    if (one && !cJSON_IsArray(one) && i-- == 0)
        return one;
    many = cJSON_IsArray(one) ? one : many;
    if (!many || i >= cJSON_GetArraySize(many))
        return NULL;
    *path = tt_json_element(cJSON_IsArray(one) ? name : "images", i);
    return cJSON_GetArrayItem(many, i);
}

tt_status tt_source_picture(const tt_form *f, const char *name, int i, tt_picture *out, bool *there,
                            tt_err *e)
{
    *out = (tt_picture){0};
    const tt_part_of_form *file = tt_form_file(f, name, i);
    *there = true;
    if (file)
        return tt_png_decode(out, file->data, file->bytes, TT_PNG_MAX_SIDE, name, e);
    for (int before = 0; tt_form_file(f, name, before); before++)
        i--;
    tt_json_path path;
    const char *text = NULL;
    const cJSON *node = i < 0 ? NULL : node_of(f->tree, name, i, &path);
    *there = node != NULL;
    if (!node)
        return TT_OK;
    tt_status s = text_of(node, path.text, &text, e);
    return s ? s : decode_text(text, path.text, out, e);
}

/* --- to the codec's size --- */

static void size_of(const tt_imaging *g, int32_t *width, int32_t *height)
{
    *width = g->model->image->codec->info.width;
    *height = g->model->image->codec->info.height;
}

/* Of the model's size; what cannot become that is the image's fault. */
static tt_status fit(const tt_imaging *g, float *out, const uint8_t *rgb, const tt_picture *p,
                     tt_err *e)
{
    tt_err why = {0};
    const tt_codec_info *c = &g->model->image->codec->info;
    tt_status s = tt_image_fit(out, c->width, c->height, rgb, p->width, p->height, &why);
    if (s == TT_EINVAL)
        return tt_fail_param(e, "image", "invalid_image", "'image': %s", why.text);
    return s ? tt_fail(e, s, "%s", why.text) : TT_OK;
}

tt_status tt_source_fit(tt_imaging *g, const tt_picture *p, tt_err *e)
{
    int32_t width, height;
    size_of(g, &width, &height);
    size_t n = (size_t)p->width * (size_t)p->height, numbers = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(n * 3);
    g->source.pixels = malloc(numbers * sizeof *g->source.pixels);
    g->source_rgb = malloc(numbers);
    if (!rgb || !g->source.pixels || !g->source_rgb) {
        free(rgb);
        return tt_fail(e, TT_ENOMEM, "no memory for the picture");
    }
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < 3; c++) {
            unsigned a = p->rgba[4 * i + 3], v = p->rgba[4 * i + (size_t)c];
            rgb[3 * i + (size_t)c] = (uint8_t)((v * a + 255 * (255 - a) + 127) / 255);
        }
    tt_status s = fit(g, g->source.pixels, rgb, p, e);
    free(rgb);
    if (!s)
        tt_image_to_bytes(g->source_rgb, g->source.pixels, numbers);
    return s;
}

/* --- masks --- */

static tt_status read_rule(const cJSON *body, tt_mask_rule *rule, tt_err *e)
{
    static const char *const names[] = {"any", "majority", "all"};
    const char *name = tt_field_text(tt_json_get(body, "tutti"), "mask_rule", "any");
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *rule = (tt_mask_rule)i;
            return TT_OK;
        }
    return tt_fail_param(e, "tutti.mask_rule", "invalid_value",
                         "'tutti.mask_rule' is '%.40s', must be one of any, majority, all", name);
}

/* A byte per pixel of the model's size: 1 where the picture, fitted alike, is transparent. */
static tt_status fit_mask(const tt_imaging *g, const tt_picture *p, uint8_t *out, tt_err *e)
{
    int32_t width, height;
    size_of(g, &width, &height);
    size_t n = (size_t)p->width * (size_t)p->height, pixels = (size_t)width * (size_t)height;
    uint8_t *rgb = malloc(n * 3);
    float *fitted = malloc(pixels * 3 * sizeof *fitted);
    tt_status s = rgb && fitted ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the mask");
    for (size_t i = 0; !s && i < n; i++)
        memset(rgb + 3 * i, p->rgba[4 * i + 3] < 128 ? 255 : 0, 3);
    if (!s)
        s = fit(g, fitted, rgb, p, e);
    for (size_t i = 0; !s && i < pixels; i++)
        out[i] = fitted[3 * i] > 0.02f; /* what resampling leaves of an edge is no pixel of it */
    free(rgb);
    free(fitted);
    return s;
}

/* Of each window of a grid: is the share of its pixels in the mask large enough? */
static tt_status by_share(const tt_imaging *g, const uint8_t *mask, tt_mask_rule rule, tt_err *e)
{
    int32_t width, height;
    size_of(g, &width, &height);
    const tt_layout *l = &g->model->image->codec->info.layout;
    if (l->kind != TT_LAYOUT_GRID)
        return tt_fail_param(e, "tutti.mask_rule", "unsupported_value",
                             "tokens of model '%s' are no grid: only 'any' works", g->model->id);
    int32_t w = width / l->columns, h = height / l->rows;
    for (int32_t t = 0; t < l->tokens; t++) {
        int32_t in = 0, x0 = t % l->columns * w, y0 = t / l->columns * h;
        for (int32_t y = y0; y < y0 + h; y++)
            for (int32_t x = x0; x < x0 + w; x++)
                in += mask[y * width + x];
        g->remade[t] = rule == TT_MASK_ALL ? in == w * h : 2 * in > w * h;
    }
    return TT_OK;
}

static tt_status to_tokens(tt_imaging *g, const cJSON *body, const uint8_t *mask, tt_err *e)
{
    tt_mask_rule rule = TT_MASK_ANY;
    bool grow = tt_field_bool(tt_json_get(body, "tutti"), "mask_grow", false);
    tt_status s = read_rule(body, &rule, e);
    if (s)
        return s;
    if (rule == TT_MASK_ANY)
        return tt_codec_mask(g->model->image->codec, g->remade, mask, grow, e);
    return grow ? tt_fail_param(e, "tutti.mask_grow", "invalid_value",
                                "'tutti.mask_grow' goes with mask_rule 'any' alone")
                : by_share(g, mask, rule, e);
}

tt_status tt_source_mask(tt_imaging *g, const tt_form *f, const tt_picture *p,
                         const tt_picture *mask, tt_err *e)
{
    const char *path = mask ? "mask" : "image";
    const tt_codec_info *c = &g->model->image->codec->info;
    if (!c->spatial)
        return tt_fail_param(e, "model", "unsupported_value",
                             "tokens of model '%s' have no place in the image: it cannot be edited "
                             "by a mask",
                             g->model->id);
    if (mask && (mask->width != p->width || mask->height != p->height))
        return tt_fail_param(e, "mask", "invalid_value",
                             "'mask' has %d x %d pixels, the image %d x %d", mask->width,
                             mask->height, p->width, p->height);
    uint8_t *pixels = calloc((size_t)c->width, (size_t)c->height);
    g->remade = calloc((size_t)c->layout.tokens, 1);
    tt_status s = pixels && g->remade ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for the mask");
    if (!s && (mask ? mask : p)->transparent) /* else there is nothing to look for */
        s = fit_mask(g, mask ? mask : p, pixels, e);
    if (!s)
        s = to_tokens(g, f->tree, pixels, e);
    free(pixels);
    for (int32_t t = 0; !s && t < c->layout.tokens; t++)
        g->remade_tokens += g->remade[t] != 0;
    if (!s && !g->remade_tokens)
        s = tt_fail_param(e, path, "invalid_value",
                          "'%s' has no transparent place (alpha below 128) that covers a token; "
                          "what is transparent is made anew",
                          path);
    return s;
}

/* --- outpainting --- */

static tt_status read_shares(const cJSON *node, double share[4], tt_err *e)
{
    static const char *const names[] = {"left", "top", "right", "bottom"};
    const cJSON *m;
    cJSON_ArrayForEach(m, node)
    {
        tt_json_path path = tt_json_member("tutti.outpaint", m->string);
        int i = 0;
        while (i < 4 && strcmp(names[i], m->string))
            i++;
        if (i == 4)
            return tt_fail_param(e, path.text, "unknown_parameter", "unknown parameter '%s'",
                                 path.text);
        tt_status s = tt_json_number(m, path.text, 0, 0.9, &share[i], e);
        if (s)
            return s;
    }
    return TT_OK;
}

tt_status tt_source_outpaint(const tt_form *f, tt_picture *p, tt_err *e)
{
    const cJSON *node = tt_json_get(tt_json_get(f->tree, "tutti"), "outpaint");
    double share[4] = {0};
    tt_status s = node ? read_shares(node, share, e) : TT_OK;
    if (s || !node)
        return s;
    /* The image keeps its shape and lies in the middle of what the shares leave. */
    double across = 1 - share[0] - share[2], down = 1 - share[1] - share[3];
    double scale = fmin(across, down);
    if (scale < 0.1 || scale > 1)
        return tt_fail_param(e, "tutti.outpaint", "invalid_value",
                             "'tutti.outpaint' leaves less than a tenth of the picture");
    int32_t w = (int32_t)lround(p->width / scale), h = (int32_t)lround(p->height / scale);
    if (w > TT_PNG_MAX_SIDE || h > TT_PNG_MAX_SIDE)
        return tt_fail_param(e, "image", "invalid_value",
                             "with its new surroundings 'image' has %d x %d pixels, at most %d a "
                             "side are possible",
                             w, h, TT_PNG_MAX_SIDE);
    tt_picture big = {.width = w, .height = h, .transparent = true};
    big.rgba = calloc((size_t)w * (size_t)h, 4);
    if (!big.rgba)
        return tt_fail(e, TT_ENOMEM, "no memory for the picture");
    int32_t x0 = (int32_t)lround((share[0] + (across - scale) / 2) * w);
    int32_t y0 = (int32_t)lround((share[1] + (down - scale) / 2) * h);
    x0 = x0 + p->width > w ? w - p->width : x0;
    y0 = y0 + p->height > h ? h - p->height : y0;
    for (int32_t y = 0; y < p->height; y++)
        memcpy(big.rgba + 4 * ((size_t)(y0 + y) * (size_t)w + (size_t)x0),
               p->rgba + 4 * (size_t)y * (size_t)p->width, 4 * (size_t)p->width);
    tt_picture_free(p);
    *p = big;
    return TT_OK;
}
