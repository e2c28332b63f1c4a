/* What can go wrong with requests about images: a picture that depends on its company, an edit that
 * touches what it must not, hostile files, names that lead to the wrong label, events that do not
 * add up, a form that means something else than the same JSON, jobs that are lost. */
#include "tests/server/image_help.h"

/* --- pictures to send --- */

/* A PNG of w x h pixels in base64 or as bytes; transparent where hole says so. */
static tt_buf png_of(int w, int h, bool (*hole)(int x, int y))
{
    uint8_t *rgba = malloc((size_t)(w * h) * 4);
    tt_buf file = {0};
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *p = rgba + 4 * (y * w + x);
            p[0] = (uint8_t)(x * 255 / w);
            p[1] = (uint8_t)(y * 255 / h);
            p[2] = (uint8_t)((x / 3 + y / 5) % 2 * 200);
            p[3] = hole && hole(x, y) ? 0 : 255;
        }
    assert_int_equal(tt_png_encode(&file, rgba, w, h, 4, TT_PNG_FAST, NULL, 0, NULL), TT_OK);
    free(rgba);
    return file;
}

static tt_buf base64_of(tt_buf file)
{
    tt_buf text = {0};
    tt_base64_put(&text, file.data, file.size);
    tt_buf_free(&file);
    return text;
}

static bool middle(int x, int y)
{
    return x >= 9 && x < 20 && y >= 12 && y < 16;
}

static void add_part(tt_buf *b, const char *name, const char *file, const void *data, size_t n)
{
    tt_buf_printf(b, "--BB\r\nContent-Disposition: form-data; name=\"%s\"", name);
    if (file)
        tt_buf_printf(b, "; filename=\"%s\"\r\nContent-Type: image/png", file);
    tt_buf_puts(b, "\r\n\r\n");
    tt_buf_add(b, data, n);
    tt_buf_puts(b, "\r\n");
}

static void add_field(tt_buf *b, const char *name, const char *text)
{
    add_part(b, name, NULL, text, strlen(text));
}

#define FORM "multipart/form-data; boundary=BB"

/* Says whether an answer refuses the request for this field, with these words. */
static void refuses_as(const char *path, const char *type, const char *data, size_t n, int want,
                       const char *param, const char *says)
{
    int status;
    cJSON *t = ask_as(path, type, data, n, &status);
    const cJSON *p = cJSON_GetObjectItem(at(t, "error"), "param");
    const char *message = at(t, "error.message")->valuestring;
    const char *got = cJSON_IsString(p) ? p->valuestring : "";
    if (status != want || strcmp(got, param) || !strstr(message, says))
        fail_msg("%.200s: %d '%s' '%s', should be %d '%s' '%s'", data, status, got, message, want,
                 param, says);
    cJSON_Delete(t);
}

static void refuses(const char *path, const char *body, const char *param, const char *says)
{
    refuses_as(path, NULL, body, strlen(body), 400, param, says);
}

/* --- making --- */

static void an_answer_has_openais_members(void **state)
{
    (void)state;
    cJSON *t = ask("/v1/images/generations",
                   "{\"model\": \"pic\", \"prompt\": \"A red apple, flat style\", \"n\": 2,"
                   " \"seed\": 5, \"size\": \"auto\", \"response_format\": \"b64_json\","
                   " \"tutti\": {\"return_tokens\": true}}");
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 2);
    assert_string_equal(at(t, "size")->valuestring, "32x32");
    assert_string_equal(at(t, "output_format")->valuestring, "png");
    assert_int_equal(at(t, "usage.output_tokens")->valuedouble, 2 * TOKENS);
    assert_int_equal(at(t, "usage.input_tokens_details.text_tokens")->valuedouble, 2);
    assert_string_equal(at(t, "tutti.labels.concept")->valuestring, "red apple");
    assert_string_equal(at(t, "tutti.labels.style")->valuestring, "flat");
    assert_int_equal(at(t, "tutti.steps")->valuedouble, 6);
    assert_int_equal(at(t, "tutti.nfe")->valuedouble, 12);
    int32_t a[TOKENS], b[TOKENS];
    tokens_at(t, "data.0.tutti.tokens", a);
    tokens_at(t, "data.1.tutti.tokens", b);
    assert_memory_not_equal(a, b, sizeof a);
    for (int i = 0; i < TOKENS; i++)
        assert_in_range(a[i], 0, CODES - 1);
    tt_picture p = picture_at(t, "data.1.b64_json");
    assert_false(p.transparent);
    tt_picture_free(&p);
    cJSON_Delete(t);
}

static void the_same_request_gives_the_same_bytes_in_any_company(void **state)
{
    (void)state;
    enum { OTHERS = 6 };
    const char *body = "{\"model\": \"pic\", \"prompt\": \"tree\", \"seed\": 11, \"n\": 3,"
                       " \"tutti\": {\"steps\": 5, \"return_tokens\": true}}";
    cJSON *alone = ask("/v1/images/generations", body);
    tt_work *other[OTHERS];
    for (int i = 0; i < OTHERS; i++) {
        char text[300];
        tt_reply r = {0};
        if (i % 3 == 2)
            snprintf(text, sizeof text,
                     "{\"model\": \"text\", \"prompt\": [%d, 4], \"max_tokens\": "
                     "40, \"seed\": 1}",
                     3 + i);
        else
            snprintf(text, sizeof text,
                     "{\"model\": \"pic\", \"prompt\": \"red apple\", \"seed\": %d, \"n\": %d, "
                     "\"tutti\": {\"steps\": %d, \"cfg_scale\": %d}}",
                     i, i + 1, 3 + i, i % 2);
        const char *path = i % 3 == 2 ? "/v1/completions" : "/v1/images/generations";
        if (start_work(&other[i], path, NULL, text, strlen(text), &r))
            fail_msg("%s", tt_buf_text(&r.body));
    }
    cJSON *mixed = ask("/v1/images/generations", body);
    for (int i = 0; i < OTHERS; i++)
        tt_work_free(other[i]);
    for (int i = 0; i < 3; i++) {
        char path[40];
        snprintf(path, sizeof path, "data.%d.b64_json", i);
        assert_string_equal(at(alone, path)->valuestring, at(mixed, path)->valuestring);
    }
    cJSON_Delete(alone);
    cJSON_Delete(mixed);
}

static void prompts_mean_labels(void **state)
{
    (void)state;
    static const struct {
        const char *body, *concept, *style; /* NULL: none */
    } good[] = {
        {"\"prompt\": \"whale, blue\"", "whale, blue", NULL},
        {"\"prompt\": \"round, the WHALE, BLUE\"", "whale, blue", "round"},
        {"\"prompt\": \" tree ,flat style \"", "Tree", "flat"},
        {"\"prompt\": \"2\"", "whale, blue", NULL},
        {"\"prompt\": \"\"", NULL, NULL},
        {"\"prompt\": \"round\"", NULL, "round"},
        {"\"prompt\": \"anything\", \"tutti\": {\"class_id\": 1}", "Tree", NULL},
        {"\"prompt\": \"\", \"tutti\": {\"labels\": {\"style\": \"Flat\", \"concept\": 0}}",
         "red apple", "flat"},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char body[300];
        snprintf(body, sizeof body, "{%s}", good[i].body);
        cJSON *t = ask("/v1/images/generations", body);
        const cJSON *labels = at(t, "tutti.labels");
        const cJSON *concept = cJSON_GetObjectItem(labels, "concept");
        const cJSON *style = cJSON_GetObjectItem(labels, "style");
        assert_int_equal(concept != NULL, good[i].concept != NULL);
        assert_int_equal(style != NULL, good[i].style != NULL);
        if (concept)
            assert_string_equal(concept->valuestring, good[i].concept);
        if (style)
            assert_string_equal(style->valuestring, good[i].style);
        cJSON_Delete(t);
    }
    const char *path = "/v1/images/generations";
    refuses(path, "{\"prompt\": \"green apple\"}", "prompt", "it knows 'red apple'");
    refuses(path, "{\"prompt\": \"tree, tree\"}", "prompt", "'tree'");
    refuses(path, "{\"prompt\": \"3\"}", "prompt", "does not know '3'");
    refuses(path, "{}", "prompt", "missing");
    refuses(path, "{\"prompt\": \"\", \"tutti\": {\"class_id\": 3}}", "tutti.class_id", "0..2");
    refuses(path, "{\"prompt\": \"\", \"tutti\": {\"labels\": {\"mood\": 1}}}", "tutti.labels.mood",
            "no labels of a group");
    refuses(path, "{\"prompt\": \"\", \"tutti\": {\"labels\": {\"style\": \"x\"}}}",
            "tutti.labels.style", "no label 'x'");
}

static void what_cannot_be_given_is_refused_by_name(void **state)
{
    (void)state;
    const char *path = "/v1/images/generations";
    refuses(path, "{\"prompt\": \"\", \"size\": \"1024x1024\"}", "size", "32x32 or auto");
    refuses(path, "{\"prompt\": \"\", \"response_format\": \"url\"}", "response_format",
            "b64_json");
    refuses(path, "{\"prompt\": \"\", \"output_format\": \"webp\"}", "output_format", "png");
    refuses(path, "{\"prompt\": \"\", \"background\": \"transparent\"}", "background", "opaque");
    refuses(path, "{\"prompt\": \"\", \"quality\": \"best\"}", "quality", "one of auto");
    refuses(path, "{\"prompt\": \"\", \"n\": 0}", "n", "1..128");
    refuses(path, "{\"prompt\": \"\", \"n\": 65}", "n", "at most 64");
    refuses(path, "{\"prompt\": \"\", \"partial_images\": 2}", "partial_images", "stream");
    refuses(path, "{\"prompt\": \"\", \"tutti\": {\"threshold\": 0.5}}", "tutti.threshold",
            "does not read");
    refuses(path, "{\"prompt\": \"\", \"tutti\": {\"stepz\": 5}}", "tutti.stepz", "unknown");
    refuses(path, "{\"prompt\": \"\", \"tutti\": {\"steps\": 5}, \"num_inference_steps\": 6}",
            "num_inference_steps", "different");
    refuses(path, "{\"prompt\": \"\", \"model\": \"text\"}", "model", "makes texts");
    refuses("/v1/completions", "{\"prompt\": \"\", \"model\": \"pic\"}", "model", "makes images");
    const char *unknown = "{\"prompt\": \"\", \"model\": \"dall-e-2\"}";
    refuses_as(path, NULL, unknown, strlen(unknown), 404, "model", "dall-e");
}

static void quality_chooses_the_steps(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        int steps;
    } asked[] = {{"{\"prompt\": \"\", \"quality\": \"low\"}", 3},
                 {"{\"prompt\": \"\", \"quality\": \"hd\"}", 12},
                 {"{\"prompt\": \"\", \"quality\": \"high\", \"tutti\": {\"steps\": 2}}", 2},
                 {"{\"prompt\": \"\", \"num_inference_steps\": 1}", 1}};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        cJSON *t = ask("/v1/images/generations", asked[i].body);
        assert_int_equal(at(t, "tutti.steps")->valuedouble, asked[i].steps);
        cJSON_Delete(t);
    }
}

/* --- edits --- */

/* What an edit may change: tokens under the mask, and pixels of their windows. */
static void check_edit(const cJSON *edit, const cJSON *before, const bool *masked,
                       const tt_picture *source)
{
    int32_t old[TOKENS], new[TOKENS];
    int changed = 0;
    tokens_at(before, "data.0.tokens", old);
    tokens_at(edit, "data.0.tutti.tokens", new);
    for (int i = 0; i < TOKENS; i++) {
        if (!masked[i] && old[i] != new[i])
            fail_msg("token %d is %d, was %d and not in the mask", i, new[i], old[i]);
        changed += old[i] != new[i];
    }
    assert_true(changed > 0);
    tt_picture p = picture_at(edit, "data.0.b64_json");
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            const uint8_t *a = p.rgba + 4 * (y * SIDE + x), *b = source->rgba + 4 * (y * SIDE + x);
            if (!masked[y / WINDOW * GRID + x / WINDOW] && memcmp(a, b, 3))
                fail_msg("pixel %d,%d is not that of the image", x, y);
        }
    tt_picture_free(&p);
}

static void an_edit_changes_only_what_is_under_the_mask(void **state)
{
    (void)state;
    tt_buf image = png_of(SIDE, SIDE, NULL), mask = png_of(SIDE, SIDE, middle), form = {0};
    bool masked[TOKENS] = {false};
    for (int i = 0; i < SIDE * SIDE; i++)
        if (middle(i % SIDE, i / SIDE))
            masked[i / SIDE / WINDOW * GRID + i % SIDE / WINDOW] = true;
    tt_picture source;
    assert_int_equal(tt_png_decode(&source, image.data, image.size, SIDE, "", NULL), TT_OK);

    add_part(&form, "image", "a.png", image.data, image.size);
    tt_buf whole = {0};
    tt_buf_add(&whole, form.data, form.size);
    tt_buf_puts(&whole, "--BB--\r\n");
    cJSON *before = ask_as("/v1/images/tokenize", FORM, whole.data, whole.size, NULL);
    tt_buf_free(&whole);

    add_part(&form, "mask", "m.png", mask.data, mask.size);
    add_field(&form, "prompt", "tree");
    add_field(&form, "seed", "3");
    add_field(&form, "tutti[steps]", "4");
    add_field(&form, "tutti[temperature]", "5");
    add_field(&form, "tutti[return_tokens]", "true");
    add_field(&form, "tutti[labels][style]", "round");
    tt_buf_puts(&form, "--BB--\r\n");
    cJSON *edit = ask_as("/v1/images/edits", FORM, form.data, form.size, NULL);
    check_edit(edit, before, masked, &source);
    assert_string_equal(at(edit, "tutti.labels.style")->valuestring, "round");
    assert_int_equal(at(edit, "tutti.tokens_made_anew")->valuedouble, 3);
    assert_int_equal(at(edit, "usage.input_tokens_details.image_tokens")->valuedouble, TOKENS);

    /* the same as JSON gives the same bytes */
    tt_buf a = base64_of(image), m = base64_of(mask), json = {0};
    tt_buf_printf(&json,
                  "{\"images\": [{\"image_url\": \"data:image/png;base64,%s\"}], \"mask\": "
                  "\"%s\", \"prompt\": \"tree\", \"seed\": 3, \"tutti\": {\"steps\": 4, "
                  "\"temperature\": 5, \"return_tokens\": true, \"labels\": {\"style\": "
                  "\"round\"}}}",
                  tt_buf_text(&a), tt_buf_text(&m));
    cJSON *same = ask("/v1/images/edits", tt_buf_text(&json));
    assert_string_equal(at(edit, "data.0.b64_json")->valuestring,
                        at(same, "data.0.b64_json")->valuestring);
    cJSON_Delete(before);
    cJSON_Delete(edit);
    cJSON_Delete(same);
    tt_picture_free(&source);
    tt_buf_free(&a);
    tt_buf_free(&m);
    tt_buf_free(&json);
    tt_buf_free(&form);
}

static bool corner(int x, int y)
{
    return x < 9 && y < 4;
}

static int anew(const char *options)
{
    tt_buf image = base64_of(png_of(SIDE, SIDE, corner)), json = {0};
    tt_buf_printf(&json, "{\"image\": \"%s\", \"tutti\": {\"steps\": 1, %s}}", tt_buf_text(&image),
                  options);
    cJSON *t = ask("/v1/images/edits", tt_buf_text(&json));
    int n = (int)at(t, "tutti.tokens_made_anew")->valuedouble;
    cJSON_Delete(t);
    tt_buf_free(&image);
    tt_buf_free(&json);
    return n;
}

static void masks_become_tokens_by_their_rule(void **state)
{
    (void)state;
    assert_int_equal(anew("\"mask_rule\": \"any\""), 3); /* 4 + 4 + 1 pixels wide */
    assert_int_equal(anew("\"mask_rule\": \"majority\""), 2);
    assert_int_equal(anew("\"mask_rule\": \"all\""), 2);
    assert_int_equal(anew("\"mask_grow\": true"), 8); /* and neighbours: 4 wide, 2 high */
    assert_true(
        anew("\"outpaint\": {\"left\": 0.25, \"top\": 0.25, \"right\": 0.25, \"bottom\": 0.25}") >=
        TOKENS * 3 / 4);
}

static void edits_that_cannot_work_are_refused(void **state)
{
    (void)state;
    const char *path = "/v1/images/edits";
    tt_buf whole = base64_of(png_of(SIDE, SIDE, NULL)), small = base64_of(png_of(8, 8, corner));
    tt_buf b = {0};
    refuses(path, "{}", "image", "missing");
    tt_buf_printf(&b, "{\"image\": \"%s\"}", tt_buf_text(&whole));
    refuses(path, tt_buf_text(&b), "image", "no transparent place");
    tt_buf_clear(&b);
    tt_buf_printf(&b, "{\"image\": \"%s\", \"mask\": \"%s\"}", tt_buf_text(&whole),
                  tt_buf_text(&small));
    refuses(path, tt_buf_text(&b), "mask", "8 x 8 pixels, the image 32 x 32");
    tt_buf_clear(&b);
    tt_buf_printf(&b, "{\"images\": [\"%s\", \"%s\"]}", tt_buf_text(&small), tt_buf_text(&small));
    refuses(path, tt_buf_text(&b), "image", "only one image");
    tt_buf_clear(&b);
    tt_buf_printf(&b, "{\"image\": \"%s\", \"tutti\": {\"mask_rule\": \"most\"}}",
                  tt_buf_text(&small));
    refuses(path, tt_buf_text(&b), "tutti.mask_rule", "any, majority, all");
    refuses(path, "{\"image\": {\"file_id\": \"file-1\"}}", "image", "keeps none");
    refuses(path, "{\"image\": \"http://127.0.0.1/x.png\"}", "image", "fetches nothing");
    refuses(path, "{\"image\": \"data:image/png,x\"}", "image", "base64");
    refuses(path, "{\"image\": \"!!\"}", "image", "not base64");
    refuses(path, "{\"image\": \"/9j/4AAQ\"}", "image", "JPEG");
    refuses(path, "{\"image\": 5}", "image", "must be a PNG");
    tt_buf_clear(&b);
    add_part(&b, "picture", "a.png", "x", 1);
    tt_buf_puts(&b, "--BB--\r\n");
    refuses_as(path, FORM, b.data, b.size, 400, "picture", "takes no file");
    refuses_as(path, FORM, "--BB\r\n", 6, 400, "", "form cannot be read");
    tt_buf_free(&b);
    tt_buf_free(&whole);
    tt_buf_free(&small);
}

/* --- variations, tokens --- */

static void a_variation_keeps_what_strength_leaves(void **state)
{
    (void)state;
    tt_buf image = base64_of(png_of(50, 40, NULL)), b = {0};
    tt_buf_printf(&b, "{\"image\": \"%s\"}", tt_buf_text(&image));
    cJSON *before = ask("/v1/images/tokenize", tt_buf_text(&b));
    int32_t old[TOKENS], new[TOKENS];
    tokens_at(before, "data.0.tokens", old);
    tt_buf_clear(&b);
    tt_buf_printf(&b,
                  "{\"image\": \"%s\", \"seed\": 2, \"n\": 2, \"tutti\": {\"strength\": 0.25, "
                  "\"return_tokens\": true}}",
                  tt_buf_text(&image));
    cJSON *t = ask("/v1/images/variations", tt_buf_text(&b));
    for (int k = 0; k < 2; k++) {
        char path[40];
        int made = 0;
        snprintf(path, sizeof path, "data.%d.tutti.steps", k);
        const cJSON *steps = at(t, path);
        snprintf(path, sizeof path, "data.%d.tutti.tokens", k);
        tokens_at(t, path, new);
        for (int i = 0; i < TOKENS; i++) {
            bool anew_here = cJSON_GetArrayItem(steps, i)->valuedouble > 0;
            made += anew_here;
            assert_true(anew_here || old[i] == new[i]);
        }
        assert_int_equal(made, TOKENS / 4);
    }
    cJSON_Delete(before);
    cJSON_Delete(t);
    tt_buf_free(&b);
    tt_buf_free(&image);
}

static void tokens_and_images_go_back_and_forth(void **state)
{
    (void)state;
    cJSON *t = ask("/v1/images/generations", "{\"prompt\": \"tree\", \"seed\": 1, \"tutti\": "
                                             "{\"return_tokens\": true, \"steps\": 2}}");
    char *list = cJSON_PrintUnformatted(at(t, "data.0.tutti.tokens"));
    tt_buf b = {0};
    tt_buf_printf(&b, "{\"tokens\": [%s, %s]}", list, list);
    cJSON *back = ask("/v1/images/detokenize", tt_buf_text(&b));
    tt_picture made = picture_at(t, "data.0.b64_json");
    for (int i = 0; i < 2; i++) {
        tt_picture p = picture_at(back, i ? "data.1.b64_json" : "data.0.b64_json");
        assert_memory_equal(p.rgba, made.rgba, SIDE * SIDE * 4);
        tt_picture_free(&p);
    }
    tt_picture_free(&made);
    cJSON_Delete(t);
    cJSON_Delete(back);
    cJSON_free(list);
    tt_buf_free(&b);
    refuses("/v1/images/detokenize", "{\"tokens\": [1, 2]}", "tokens", "64 tokens");
    refuses("/v1/images/detokenize", "{}", "tokens", "missing");
    t = ask("/v1/images/generations",
            "{\"prompt\": \"\", \"tutti\": {\"tokens_only\": true, \"steps\": 1}}");
    assert_null(cJSON_GetObjectItem(at(t, "data.0"), "b64_json"));
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.tutti.tokens")), TOKENS);
    cJSON_Delete(t);
}

/* --- streams --- */

/* Follows a stream; seen[] takes the type of each event, tokens the ids that were set. */
static int follow(const char *body, char seen[][40], int room, int32_t *tokens, tt_buf *raw)
{
    tt_reply r = {0};
    tt_work *w;
    int64_t again;
    int n = 0;
    if (start_work(&w, "/v1/images/generations", NULL, body, strlen(body), &r))
        fail_msg("%s", tt_buf_text(&r.body));
    assert_true(tt_work_streams(w));
    while (!tt_work_frames(w, tt_now_ms(), raw, &again))
        nap_ms(1);
    tt_work_free(w);
    for (const char *p = tt_buf_text(raw); *p;) {
        const char *end = strstr(p, "\n\n"), *data = strstr(p, "data: ");
        assert_non_null(end);
        if (!strncmp(data, "data: [DONE]", 12)) {
            assert_string_equal(data, "data: [DONE]\n\n");
            return n;
        }
        cJSON *t;
        assert_int_equal(tt_json_parse(&t, data + 6, (size_t)(end - data - 6), NULL), TT_OK);
        assert_true(n < room);
        snprintf(seen[n++], 40, "%s", at(t, "type")->valuestring);
        const cJSON *m, *set = cJSON_GetObjectItem(t, "set");
        cJSON_ArrayForEach(m, set)
        {
            int place = (int)cJSON_GetArrayItem(m, 0)->valuedouble;
            assert_int_equal(tokens[place], -1); /* told once */
            tokens[place] = (int32_t)cJSON_GetArrayItem(m, 1)->valuedouble;
        }
        cJSON_Delete(t);
        p = end + 2;
    }
    fail_msg("the stream does not end with [DONE]");
    return 0;
}

static void a_stream_tells_tokens_pictures_and_the_end(void **state)
{
    (void)state;
    char seen[64][40];
    int32_t told[TOKENS], tokens[TOKENS];
    tt_buf raw = {0};
    memset(told, -1, sizeof told);
    const char *body =
        "{\"prompt\": \"tree\", \"seed\": 4, \"stream\": true, \"partial_images\": 2,"
        " \"tutti\": {\"stream_mode\": \"delta\", \"return_tokens\": true}}";
    int n = follow(body, seen, 64, told, &raw);
    assert_string_equal(seen[n - 1], "image_generation.completed");
    int partial = 0, steps = 0;
    for (int i = 0; i < n; i++) {
        partial += !strcmp(seen[i], "image_generation.partial_image");
        steps += !strcmp(seen[i], "tutti.step");
    }
    assert_in_range(partial, 0, 2); /* a slow reader gets the newest only */
    assert_in_range(steps, 1, 6);
    cJSON *t = ask("/v1/images/generations", "{\"prompt\": \"tree\", \"seed\": 4, \"tutti\": "
                                             "{\"return_tokens\": true}}");
    tokens_at(t, "data.0.tutti.tokens", tokens);
    assert_memory_equal(told, tokens, sizeof told);
    assert_non_null(strstr(tt_buf_text(&raw), at(t, "data.0.b64_json")->valuestring));
    cJSON_Delete(t);
    tt_buf_free(&raw);
}

/* --- the scheduler --- */

static bool ended(const cJSON *t)
{
    const char *s = at(t, "status")->valuestring;
    return strcmp(s, "queued") && strcmp(s, "generating");
}

static cJSON *start_job(const char *body, char path[64])
{
    int status;
    cJSON *t = ask_as("/v1/images/generations", NULL, body, strlen(body), &status);
    assert_int_equal(status, 202);
    snprintf(path, 64, "%s", at(t, "poll_url")->valuestring);
    return t;
}

static void a_job_is_followed_and_fetched(void **state)
{
    (void)state;
    int status;
    char path[64];
    cJSON *t = start_job("{\"prompt\": \"tree\", \"seed\": 4, \"tutti\": {\"async\": true}}", path);
    assert_string_equal(at(t, "object")->valuestring, "job");
    while (!ended(t)) {
        assert_in_range(at(t, "progress.step")->valuedouble, 0, 6);
        assert_int_equal(at(t, "progress.of")->valuedouble, 6);
        cJSON_Delete(t);
        nap_ms(1);
        t = call("GET", path, &status);
        assert_int_equal(status, 200);
    }
    assert_string_equal(at(t, "status")->valuestring, "completed");
    cJSON *direct = ask("/v1/images/generations", "{\"prompt\": \"tree\", \"seed\": 4}");
    assert_string_equal(at(t, "result.data.0.b64_json")->valuestring,
                        at(direct, "data.0.b64_json")->valuestring);
    cJSON_Delete(direct);
    cJSON_Delete(t);
    t = call("GET", "/v1/jobs", &status);
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 1);
    cJSON_Delete(t);
    cJSON_Delete(call("DELETE", path, &status));
    assert_int_equal(status, 200);
    cJSON_Delete(call("GET", path, &status));
    assert_int_equal(status, 404);
    refuses("/v1/images/generations",
            "{\"prompt\": \"\", \"stream\": true, \"tutti\": {\"async\": "
            "true}}",
            "tutti.async", "does not stream");
}

static void a_cancelled_job_frees_its_memory_at_once(void **state)
{
    (void)state;
    int status;
    char path[64], cancel[80];
    tt_engine_stats s;
    cJSON_Delete(start_job("{\"prompt\": \"tree\", \"n\": 64, \"tutti\": {\"async\": true, "
                           "\"steps\": 64, \"cfg_scale\": 2}}",
                           path));
    snprintf(cancel, sizeof cancel, "%s/cancel", path);
    do
        tt_engine_get_stats(api.engine, &s);
    while (s.bytes_used == 0);
    cJSON_Delete(call("POST", cancel, &status));
    assert_int_equal(status, 200);
    cJSON *t = call("GET", path, &status);
    while (!ended(t)) {
        cJSON_Delete(t);
        nap_ms(1);
        t = call("GET", path, &status);
    }
    assert_string_equal(at(t, "status")->valuestring, "cancelled");
    assert_string_equal(at(t, "error.code")->valuestring, "cancelled");
    tt_engine_get_stats(api.engine, &s);
    assert_int_equal(s.bytes_used, 0);
    assert_int_equal(s.running, 0);
    cJSON_Delete(t);
    cJSON_Delete(call("POST", cancel, &status));
    assert_int_equal(status, 409);
    cJSON_Delete(call("POST", "/v1/jobs/nothing/cancel", &status));
    assert_int_equal(status, 404);
}

static void a_job_is_there_for_its_key_alone(void **state)
{
    (void)state;
    int status;
    char path[64], cancel[80];
    who = 1;
    cJSON_Delete(start_job("{\"prompt\": \"tree\", \"n\": 64, \"tutti\": {\"async\": true, "
                           "\"steps\": 64}}", path));
    snprintf(cancel, sizeof cancel, "%s/cancel", path);
    const char *const ask_for[][2] = {{"GET", path}, {"POST", cancel}, {"DELETE", path}};
    for (who = 0; who < 3; who += 2)
        for (size_t i = 0; i < 3; i++) {
            cJSON *t = call(ask_for[i][0], ask_for[i][1], &status);
            assert_int_equal(status, 404);
            assert_string_equal(at(t, "error.code")->valuestring, "not_found");
            cJSON_Delete(t);
        }
    for (who = 0; who < 3; who++) {
        cJSON *t = call("GET", "/v1/jobs", &status), *job;
        int seen = 0;
        cJSON_ArrayForEach(job, at(t, "data"))
            seen += !strcmp(at(job, "poll_url")->valuestring, path);
        assert_int_equal(seen, who == 1);
        cJSON_Delete(t);
    }
    who = 1; /* neither cancelled nor forgotten by the others */
    cJSON_Delete(call("POST", cancel, &status));
    assert_int_equal(status, 200);
    cJSON_Delete(call("DELETE", path, &status));
    assert_int_equal(status, 200);
    who = 0;
}

static void a_deadline_ends_an_image(void **state)
{
    (void)state;
    const char *body = "{\"prompt\": \"\", \"n\": 64, \"tutti\": {\"steps\": 64, \"cfg_scale\": 2, "
                       "\"deadline_ms\": 20}}";
    refuses_as("/v1/images/generations", NULL, body, strlen(body), 504, "tutti.deadline_ms",
               "20 ms passed");
}

static void make_job(tt_job **out, const char *model, bool image, int32_t steps)
{
    static int32_t id[81];
    static uint8_t open[81];
    tt_err e = {0};
    tt_picture_spec picture = {
        .task = TT_PICTURE_MAKE, .condition = {{-1, -1, -1, -1}}, .tokens_only = true};
    memset(open, 1, sizeof open);
    tt_job_spec spec = {.model = tt_engine_find(api.engine, model),
                        .id = id,
                        .open = open,
                        .columns = image ? TOKENS : 81,
                        .samples = 1,
                        .seed = 1,
                        .picture = image ? &picture : NULL};
    spec.params = spec.model->defaults;
    spec.params.steps = image ? steps : spec.params.steps;
    spec.sampler = image ? NULL : tt_sampler_find("low_confidence");
    if (tt_engine_submit(api.engine, &spec, out, NULL, &e))
        fail_msg("%s", e.text);
}

static int32_t steps_of(tt_job *j)
{
    tt_view v = {0};
    tt_job_view(j, 0, &v);
    int32_t now = v.now;
    tt_view_free(&v);
    return now;
}

/* While either runs, the other one gets on, too, though more images wait than there are places. */
static void texts_and_images_do_not_starve_each_other(void **state)
{
    (void)state;
    enum { IMAGES = RUNNING + 4, STEPS = 64 };
    tt_job *image[IMAGES], *text;
    for (int i = 0; i < IMAGES; i++)
        make_job(&image[i], "pic", true, STEPS);
    make_job(&text, "text", false, 0);
    while (!tt_job_finished(text) && !tt_job_finished(image[0]))
        nap_ms(1);
    assert_true(steps_of(text) > 0);
    for (int i = 0; i < RUNNING; i++)
        assert_true(steps_of(image[i]) > 0);
    uint64_t never = 0;
    tt_job_cancel(text);
    for (int i = 0; i < IMAGES; i++)
        tt_job_cancel(image[i]);
    for (int i = 0; i < IMAGES; i++) {
        while (!tt_job_finished(image[i]))
            tt_job_wait(image[i], &never, 10);
        tt_job_release(image[i]);
    }
    while (!tt_job_finished(text))
        nap_ms(1);
    tt_job_release(text);
}

static void models_and_metrics_tell_of_images(void **state)
{
    (void)state;
    int status;
    cJSON *t = call("GET", "/v1/models/pic", &status);
    assert_string_equal(at(t, "tutti.sizes.0")->valuestring, "32x32");
    assert_string_equal(at(t, "tutti.layout")->valuestring, "grid");
    assert_int_equal(at(t, "tutti.rows")->valuedouble, GRID);
    assert_non_null(at(t, "tutti.samplers.0.parameters.0.name"));
    cJSON_Delete(t);
    t = call("GET", "/v1/images/labels", &status);
    assert_string_equal(at(t, "data.0.groups.1.labels.1")->valuestring, "round");
    cJSON_Delete(t);
    tt_buf b = {0};
    tt_metrics_write(api.metrics, api.engine, "test", &b);
    const char *line = strstr(tt_buf_text(&b), "\ntutti_images_total ");
    assert_non_null(line);
    assert_true(atoi(line + 20) > 0);
    assert_non_null(strstr(tt_buf_text(&b), "tutti_image_passes_total{pass=\"decode\"} "));
    tt_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_has_openais_members),
        cmocka_unit_test(the_same_request_gives_the_same_bytes_in_any_company),
        cmocka_unit_test(prompts_mean_labels),
        cmocka_unit_test(what_cannot_be_given_is_refused_by_name),
        cmocka_unit_test(quality_chooses_the_steps),
        cmocka_unit_test(an_edit_changes_only_what_is_under_the_mask),
        cmocka_unit_test(masks_become_tokens_by_their_rule),
        cmocka_unit_test(edits_that_cannot_work_are_refused),
        cmocka_unit_test(a_variation_keeps_what_strength_leaves),
        cmocka_unit_test(tokens_and_images_go_back_and_forth),
        cmocka_unit_test(a_stream_tells_tokens_pictures_and_the_end),
        cmocka_unit_test(a_job_is_followed_and_fetched),
        cmocka_unit_test(a_cancelled_job_frees_its_memory_at_once),
        cmocka_unit_test(a_job_is_there_for_its_key_alone),
        cmocka_unit_test(a_deadline_ends_an_image),
        cmocka_unit_test(texts_and_images_do_not_starve_each_other),
        cmocka_unit_test(models_and_metrics_tell_of_images),
    };
    return cmocka_run_group_tests_name("images", tests, open_api, close_api);
}
