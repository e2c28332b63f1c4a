/* What can go wrong with codecs that look at crops and paint from noise, as requests see them: a
 * message that does not come with its place, crops that are not the ones asked for, events that
 * leave out a message, pictures that depend on their company or on nothing, tokens mixed or edited
 * into others than they should, options that are ignored in silence. */
#include "tests/server/image_help.h"

#include "tests/tokenizers/comit_tensors.h"

enum { MESSAGE = C_TOKENS, LEVELS = C_CODES, CROPS = 9 };

static char folder[64];

static void put_file(const char *name, const void *data, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* "msg": a codec alone, small, of random numbers large enough that everything shows; "pic": the
 * image model that is shipped. */
static int open_codecs(void **state)
{
    (void)state;
    static checkpoint c;
    tt_err e = {0};
    tt_engine_options o = {.device = "plain", .threads = 1, .max_queue = 64,
                           .max_running = RUNNING};
    tt_log_set_level(TT_LOG_ERROR);
    snprintf(folder, sizeof folder, "/tmp/test_codecs.%d", (int)getpid());
    mkdir(folder, 0777);
    add_comit(&c);
    if (checkpoint_open(&c, NULL, 0.4f, &e))
        return -1;
    put_file("model.safetensors", c.bytes, c.size);
    put_file("config.json", comit_config, sizeof comit_config - 1);
    checkpoint_close(&c);
    api = (tt_api){.version = "test", .max_samples = 64};
    if (tt_metrics_open(&api.metrics, true, &e) || tt_engine_open(&api.engine, &o, &e) ||
        tt_engine_add_model(api.engine, "pic", "models/demo/tutti-image", TT_WEIGHTS_AUTO, NULL,
                            NULL, &e) ||
        tt_engine_add_model(api.engine, "msg", folder, TT_WEIGHTS_AUTO, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    api.state = TT_API_READY;
    return 0;
}

static int close_codecs(void **state)
{
    (void)state;
    char path[128];
    tt_engine_stats s;
    tt_engine_get_stats(api.engine, &s);
    tt_engine_close(api.engine);
    tt_metrics_close(api.metrics);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    remove(path);
    snprintf(path, sizeof path, "%s/config.json", folder);
    remove(path);
    rmdir(folder);
    return s.bytes_used ? -1 : 0;
}

/* --- helpers --- */

/* A PNG of the model's size in base64. */
static const char *picture(int shade)
{
    static char text[2][8192];
    uint8_t rgb[SIDE * SIDE * 3];
    tt_buf file = {0}, base64 = {0};
    for (int i = 0; i < SIDE * SIDE; i++) {
        rgb[3 * i] = (uint8_t)(i % SIDE * 7);
        rgb[3 * i + 1] = (uint8_t)(i / SIDE * 7);
        rgb[3 * i + 2] = (uint8_t)shade;
    }
    assert_int_equal(tt_png_encode(&file, rgb, SIDE, SIDE, 3, TT_PNG_FAST, NULL, 0, NULL), TT_OK);
    tt_base64_put(&base64, file.data, file.size);
    snprintf(text[shade != 0], sizeof text[0], "%s", tt_buf_text(&base64));
    tt_buf_free(&file);
    tt_buf_free(&base64);
    return text[shade != 0];
}

static cJSON *tokenize(const char *crops)
{
    char body[9000];
    snprintf(body, sizeof body, "{\"model\": \"msg\", \"image\": \"%s\", \"tutti\": {%s}}",
             picture(0), crops);
    return ask("/v1/images/tokenize", body);
}

static void refuses(const char *path, const char *body, const char *param, const char *says)
{
    int status;
    cJSON *t = ask_as(path, NULL, body, strlen(body), &status);
    const cJSON *p = cJSON_GetObjectItem(at(t, "error"), "param");
    const char *message = at(t, "error.message")->valuestring;
    const char *got = cJSON_IsString(p) ? p->valuestring : "";
    if (status != 400 || strcmp(got, param) || !strstr(message, says))
        fail_msg("%.200s: %d '%s' '%s', should name '%s' and say '%s'", body, status, got, message,
                 param, says);
    cJSON_Delete(t);
}

static void list_is(const cJSON *list, int n, const int *want)
{
    assert_int_equal(cJSON_GetArraySize(list), n);
    for (int i = 0; i < n; i++)
        assert_int_equal(cJSON_GetArrayItem(list, i)->valueint, want[i]);
}

static bool same(const cJSON *a, const char *path, const cJSON *b, const char *other)
{
    return cJSON_Compare(at(a, path), at(b, other), 1);
}

/* --- reading --- */

static void a_message_comes_with_its_place(void **state)
{
    (void)state;
    cJSON *t = tokenize("");
    assert_int_equal(at(t, "count")->valueint, MESSAGE);
    assert_int_equal(at(t, "codes")->valueint, LEVELS);
    list_is(at(t, "data.0.crops"), CROPS, (int[]){0, 1, 2, 3, 4, 5, 6, 7, 8});
    for (int i = 0; i < 2; i++) /* the last crop's middle is at 24 of 32 */
        assert_float_equal(cJSON_GetArrayItem(at(t, "data.0.decode_offset"), i)->valuedouble, -0.5,
                           1e-6);
    for (int i = 0; i < MESSAGE; i++)
        assert_in_range(cJSON_GetArrayItem(at(t, "data.0.tokens"), i)->valueint, 0, LEVELS - 1);
    cJSON_Delete(t);
}

static void crops_are_those_asked_for(void **state)
{
    (void)state;
    cJSON *t = tokenize("\"crops\": {\"order\": [5, 1, 5], \"num_crops\": 2}");
    list_is(at(t, "data.0.crops"), 2, (int[]){5, 1});
    assert_float_equal(cJSON_GetArrayItem(at(t, "data.0.decode_offset"), 0)->valuedouble, 0, 1e-6);
    assert_float_equal(cJSON_GetArrayItem(at(t, "data.0.decode_offset"), 1)->valuedouble, 0.5,
                       1e-6);
    cJSON_Delete(t);
    t = tokenize("\"crops\": {\"global_crop\": true, \"num_crops\": 1}");
    list_is(at(t, "data.0.crops"), 1, (int[]){0});
    cJSON_Delete(t);
    cJSON *a = tokenize("\"crops\": {\"policy\": \"random\", \"seed\": 1}");
    cJSON *b = tokenize("\"crops\": {\"policy\": \"random\", \"seed\": 2}");
    assert_int_equal(cJSON_GetArraySize(at(a, "data.0.crops")), CROPS);
    assert_false(same(a, "data.0.crops", b, "data.0.crops"));
    cJSON_Delete(a);
    cJSON_Delete(b);
    t = tokenize("\"crops\": {\"policy\": \"adaptive\", \"num_crops\": 4, \"seed\": 3}");
    const cJSON *crops = at(t, "data.0.crops");
    assert_int_equal(cJSON_GetArraySize(crops), 4);
    assert_int_equal(cJSON_GetArrayItem(crops, 0)->valueint, 4);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            assert_int_not_equal(cJSON_GetArrayItem(crops, i)->valueint,
                                 cJSON_GetArrayItem(crops, k)->valueint);
    cJSON_Delete(t);
}

static void latents_are_drawn_only_when_asked(void **state)
{
    (void)state;
    cJSON *mean = tokenize(""), *again = tokenize("\"crops\": {\"seed\": 9}");
    cJSON *a = tokenize("\"crops\": {\"sample_latents\": true, \"seed\": 9}");
    cJSON *b = tokenize("\"crops\": {\"sample_latents\": true, \"seed\": 9}");
    assert_true(same(mean, "data.0.tokens", again, "data.0.tokens"));
    assert_true(same(a, "data.0.tokens", b, "data.0.tokens"));
    assert_false(same(a, "data.0.tokens", mean, "data.0.tokens"));
    cJSON_Delete(mean);
    cJSON_Delete(again);
    cJSON_Delete(a);
    cJSON_Delete(b);
}

/* All events of a streamed request. */
static void stream(const char *body, tt_buf *out)
{
    tt_reply r = {0};
    tt_work *w = NULL;
    if (start_work(&w, "/v1/images/tokenize", NULL, body, strlen(body), &r))
        fail_msg("%s", tt_buf_text(&r.body));
    for (bool over = false; !over;) {
        int64_t again;
        over = w->def->frames(w, 0, out, &again);
        nap_ms(1);
    }
    tt_work_free(w);
    tt_buf_free(&r.body);
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

static void every_crop_has_an_event(void **state)
{
    (void)state;
    char body[9000];
    tt_buf out = {0};
    snprintf(body, sizeof body,
             "{\"model\": \"msg\", \"image\": \"%s\", \"stream\": true,"
             " \"tutti\": {\"crops\": {\"num_crops\": 5, \"preview\": true}}}",
             picture(0));
    stream(body, &out);
    const char *text = tt_buf_text(&out);
    assert_int_equal(count(text, "event: image_tokens.crop\n"), 5);
    assert_in_range(count(text, "event: image_tokens.partial_image\n"), 1, 5);
    assert_int_equal(count(text, "event: image_tokens.completed\n"), 1);
    assert_non_null(strstr(text, "data: [DONE]"));
    assert_non_null(strstr(text, "\"crops\":[0,1,2,3,4]"));
    /* The last crop's message is the result. */
    const char *last = text, *done = strstr(text, "image_tokens.completed");
    for (const char *p = text; (p = strstr(p, "event: image_tokens.crop\n")); p++)
        last = p;
    const char *a = strstr(last, "\"tokens\":["), *b = strstr(done, "\"tokens\":[");
    size_t n = strcspn(a, "]");
    assert_int_equal(strncmp(a, b, n), 0);
    cJSON *whole = tokenize("\"crops\": {\"num_crops\": 5}");
    char *ids = cJSON_PrintUnformatted(at(whole, "data.0.tokens"));
    assert_non_null(strstr(done, ids));
    cJSON_free(ids);
    cJSON_Delete(whole);
    tt_buf_free(&out);
}

static void wrong_crops_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *crops, *param, *says;
    } bad[] = {
        {"{\"order\": [9]}", "tutti.crops", "crop 9"},
        {"{\"order\": []}", "tutti.crops", "1 to 64"},
        {"{\"order\": [1, -1]}", "tutti.crops.order[1]", "must be"},
        {"{\"policy\": \"list\"}", "tutti.crops.order", "go together"},
        {"{\"policy\": \"spiral\"}", "tutti.crops.policy", "spiral"},
        {"{\"policy\": \"adaptive\"}", "tutti.crops", "how many"},
        {"{\"num_crops\": 10}", "tutti.crops", "10 crops"},
        {"{\"num_crops\": 0}", "tutti.crops.num_crops", "must be"},
        {"{\"preview\": true}", "tutti.crops.preview", "stream"},
        {"{\"colour\": 1}", "tutti.crops.colour", "unknown"},
    };
    char body[9000];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(body, sizeof body,
                 "{\"model\": \"msg\", \"image\": \"%s\", \"tutti\": {\"crops\": %s}}", picture(0),
                 bad[i].crops);
        refuses("/v1/images/tokenize", body, bad[i].param, bad[i].says);
    }
    snprintf(body, sizeof body,
             "{\"model\": \"pic\", \"image\": \"%s\", \"tutti\": {\"crops\": {\"seed\": 1}}}",
             picture(0));
    refuses("/v1/images/tokenize", body, "tutti.crops", "at once");
}

/* --- painting --- */

#define TOKENS_JSON "[3, 100, 199, 0, 57, 8]"

static cJSON *paint(const char *more)
{
    char body[600];
    snprintf(body, sizeof body, "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", %s}", more);
    return ask("/v1/images/detokenize", body);
}

static void a_picture_is_the_same_in_any_company(void **state)
{
    (void)state;
    enum { OTHERS = 5 };
    const char *more = "\"seed\": 4, \"n\": 2, \"decode_offset\": [-0.5, 0],"
                       " \"tutti\": {\"paint\": {\"steps\": 3, \"guidance\": 4}}";
    cJSON *alone = paint(more);
    tt_work *other[OTHERS];
    for (int i = 0; i < OTHERS; i++) {
        char body[9000];
        tt_reply r = {0};
        if (i % 2)
            snprintf(body, sizeof body,
                     "{\"model\": \"msg\", \"image\": \"%s\", \"tutti\": {\"crops\":"
                     " {\"policy\": \"adaptive\", \"num_crops\": %d}}}", picture(i), 2 + i);
        else
            snprintf(body, sizeof body,
                     "{\"model\": \"msg\", \"tokens\": [%d, 1, 2, 3, 4, 5], \"seed\": 1,"
                     " \"tutti\": {\"paint\": {\"steps\": %d, \"solver\": \"midpoint\"}}}", i,
                     2 + i);
        const char *path = i % 2 ? "/v1/images/tokenize" : "/v1/images/detokenize";
        assert_int_equal(start_work(&other[i], path, NULL, body, strlen(body), &r), TT_OK);
    }
    cJSON *mixed = paint(more);
    assert_true(same(alone, "data", mixed, "data"));
    assert_false(same(alone, "data.0", alone, "data.1"));
    for (int i = 0; i < OTHERS; i++) {
        tt_reply r = {0};
        while (!tt_work_poll(other[i]))
            nap_ms(1);
        tt_work_answer(other[i], &r);
        assert_int_equal(r.status, 200);
        tt_buf_free(&r.body);
        tt_work_free(other[i]);
    }
    cJSON_Delete(alone);
    cJSON_Delete(mixed);
}

static void every_option_of_painting_matters(void **state)
{
    (void)state;
    static const char *const ways[] = {
        "\"seed\": 1",
        "\"seed\": 2",
        "\"seed\": 1, \"decode_offset\": [0.25, 0]",
        "\"seed\": 1, \"tutti\": {\"paint\": {\"steps\": 3}}",
        "\"seed\": 1, \"tutti\": {\"paint\": {\"solver\": \"midpoint\"}}",
        "\"seed\": 1, \"tutti\": {\"paint\": {\"guidance\": 0}}",
        "\"seed\": 1, \"tutti\": {\"paint\": {\"guidance_form\": \"plain\"}}",
        "\"seed\": 1, \"tutti\": {\"paint\": {\"momentum\": 0.5}}",
    };
    enum { WAYS = sizeof ways / sizeof *ways };
    cJSON *t[WAYS];
    for (int i = 0; i < WAYS; i++) {
        t[i] = paint(ways[i]);
        tt_picture p = picture_at(t[i], "data.0.b64_json");
        tt_picture_free(&p);
        for (int k = 0; k < i; k++)
            if (same(t[i], "data.0.b64_json", t[k], "data.0.b64_json"))
                fail_msg("%s paints what %s does", ways[i], ways[k]);
    }
    assert_int_equal(at(t[0], "tutti.seed")->valueint, 1);
    assert_int_equal(at(t[3], "tutti.paint.steps")->valueint, 3);
    for (int i = 0; i < WAYS; i++)
        cJSON_Delete(t[i]);
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"tutti\": {\"paint\": {\"steps\":"
            " 0}}}", "tutti.paint.steps", "must be");
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"decode_offset\": [1]}",
            "decode_offset", "two numbers");
    refuses("/v1/images/detokenize", "{\"model\": \"msg\", \"tokens\": [1, 2]}", "tokens",
            "the 6 tokens");
}

static void messages_are_mixed_number_by_number(void **state)
{
    (void)state;
    /* Levels 8, 5, 5: 0 is (0, 0, 0); 3 + 8 * 2 + 40 * 4 = 179 is (3, 2, 4). */
    cJSON *t = ask("/v1/images/detokenize",
                   "{\"model\": \"msg\", \"tokens\": [0, 0, 0, 0, 0, 5], \"seed\": 1,"
                   " \"decode_offset\": [0, 0], \"tutti\": {\"return_tokens\": true,"
                   " \"interpolate\": {\"tokens\": [179, 0, 0, 0, 0, 5], \"points\": 3,"
                   " \"decode_offset\": [1, -1]}}}");
    static const int want[] = {0, 2 + 8 * 1 + 40 * 2, 179};
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 3);
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "data.%d.tutti.tokens", i);
        list_is(at(t, path), MESSAGE, (int[]){want[i], 0, 0, 0, 0, 5});
        snprintf(path, sizeof path, "data.%d.tutti.decode_offset", i);
        assert_float_equal(cJSON_GetArrayItem(at(t, path), 1)->valuedouble, -0.5 * i, 1e-6);
    }
    cJSON *end = ask("/v1/images/detokenize",
                     "{\"model\": \"msg\", \"tokens\": [179, 0, 0, 0, 0, 5], \"seed\": 1,"
                     " \"decode_offset\": [1, -1]}");
    assert_true(same(t, "data.2.b64_json", end, "data.0.b64_json"));
    cJSON_Delete(end);
    cJSON_Delete(t);
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"tutti\": {\"interpolate\":"
            " {\"tokens\": " TOKENS_JSON ", \"at\": [0, 2]}}}", "tutti.interpolate.at[1]",
            "must be");
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"n\": 64, \"tutti\":"
            " {\"interpolate\": {\"tokens\": " TOKENS_JSON "}}}", "n", "128");
}

static void messages_are_edited(void **state)
{
    (void)state;
    cJSON *t = paint("\"seed\": 1, \"tutti\": {\"return_tokens\": true, \"paint\": {\"steps\": 1},"
                     " \"edit\": [{\"index\": 0, \"id\": 7}, {\"index\": 5, \"id\": 11}],"
                     " \"swap\": {\"from\": 1, \"to\": 3, \"tokens\": [90, 91, 92, 93, 94, 95]}}");
    list_is(at(t, "data.0.tutti.tokens"), MESSAGE, (int[]){7, 91, 92, 0, 57, 11});
    cJSON_Delete(t);
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"tutti\": {\"edit\":"
            " [{\"index\": 6, \"id\": 0}]}}", "tutti.edit[0].index", "must be");
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"tutti\": {\"edit\":"
            " [{\"id\": 0}]}}",
            "tutti.edit[0]", "needs an index");
    refuses("/v1/images/detokenize",
            "{\"model\": \"msg\", \"tokens\": " TOKENS_JSON ", \"tutti\": {\"swap\": {\"from\": 3,"
            " \"to\": 3, \"tokens\": " TOKENS_JSON "}}}", "tutti.swap", "not empty");
}

/* --- a codec alone is a model --- */

static void a_variation_is_painted_from_other_noise(void **state)
{
    (void)state;
    char body[9000];
    snprintf(body, sizeof body, "{\"model\": \"msg\", \"image\": \"%s\", \"seed\": 3, \"n\": 2,"
             " \"tutti\": {\"return_tokens\": true}}", picture(0));
    cJSON *t = ask("/v1/images/variations", body), *message = tokenize("");
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 2);
    assert_false(same(t, "data.0.b64_json", t, "data.1.b64_json"));
    assert_true(same(t, "data.0.tutti.tokens", message, "data.0.tokens"));
    cJSON_Delete(t);
    cJSON_Delete(message);
    snprintf(body, sizeof body, "{\"model\": \"msg\", \"image\": \"%s\", \"tutti\":"
             " {\"strength\": 0.5}}", picture(0));
    refuses("/v1/images/variations", body, "tutti.strength", "means nothing");
}

static void what_a_codec_cannot_do_is_said(void **state)
{
    (void)state;
    char body[9000];
    int status;
    refuses("/v1/images/generations", "{\"model\": \"msg\", \"prompt\": \"tree\"}", "model",
            "makes none");
    snprintf(body, sizeof body, "{\"model\": \"msg\", \"image\": \"%s\", \"mask\": \"%s\"}",
             picture(0), picture(0));
    refuses("/v1/images/edits", body, "model", "no place in the image");
    refuses("/v1/images/detokenize", "{\"model\": \"pic\", \"tokens\": [1], \"n\": 2}", "n",
            "must be 1");
    cJSON *t = call("GET", "/v1/models/msg", &status);
    assert_int_equal(status, 200);
    assert_int_equal(at(t, "tutti.crops")->valueint, CROPS);
    assert_int_equal(at(t, "tutti.paint.steps")->valueint, 10);
    cJSON_Delete(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_comes_with_its_place),
        cmocka_unit_test(crops_are_those_asked_for),
        cmocka_unit_test(latents_are_drawn_only_when_asked),
        cmocka_unit_test(every_crop_has_an_event),
        cmocka_unit_test(wrong_crops_are_refused_by_name),
        cmocka_unit_test(a_picture_is_the_same_in_any_company),
        cmocka_unit_test(every_option_of_painting_matters),
        cmocka_unit_test(messages_are_mixed_number_by_number),
        cmocka_unit_test(messages_are_edited),
        cmocka_unit_test(a_variation_is_painted_from_other_noise),
        cmocka_unit_test(what_a_codec_cannot_do_is_said),
    };
    return cmocka_run_group_tests_name("image codecs", tests, open_codecs, close_codecs);
}
