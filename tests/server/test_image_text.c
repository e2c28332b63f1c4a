/* What can go wrong with image models that read texts: prompts that do not matter, or leak from one
 * request into another; guidance that leads away from nothing; prefixes of tokens that do not
 * decode; labels asked for where there are none; a folder without its parts. */
#include "tests/server/image_help.h"
#include "tests/tokenizers/flextok_tensors.h"

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

static void put_json(const char *name, const char *text) { put_file(name, text, strlen(text)); }

static void put_tensors(const char *name, checkpoint *c, float spread)
{
    tt_err e = {0};
    assert_int_equal(checkpoint_open(c, NULL, spread, &e), TT_OK);
    put_file(name, c->bytes, c->size);
    checkpoint_close(c);
}

static void add_matrix(checkpoint *c, const char *at, const char *name, int64_t n, int64_t k)
{
    char full[120];
    snprintf(full, sizeof full, "%s%s.weight", at, name);
    checkpoint_add(c, full, 2, n, k, 0, 0);
}

static void add_generator(checkpoint *c)
{
    enum { D = 32, FF = 48 };
    static const char ar[] = "models.ar_image_model.";
    add_matrix(c, ar, "preprocessor.embedding", F_CODES, D);
    checkpoint_add(c, "models.ar_image_model.preprocessor.sos_token_embed", 3, 1, 1, D, 0);
    checkpoint_add(c, "models.ar_image_model.preprocessor.positional_embedding", 2, F_TOKENS, D, 0,
                   0);
    for (int i = 0; i < 2; i++) {
        static const char *const cross[] = {"Wq", "Wk", "Wv", "proj"};
        char at[64], name[32];
        snprintf(at, sizeof at, "models.ar_image_model.trunk.blocks.%d.", i);
        for (int k = 1; k <= 3; k++) {
            snprintf(name, sizeof name, "norm_%d", k);
            add_pair(c, at, name, 1, D, 0, 0);
        }
        add_matrix(c, at, "self_attn.qkv", 3 * D, D);
        add_matrix(c, at, "self_attn.proj", D, D);
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "cross_attn.%s", cross[k]);
            add_matrix(c, at, name, D, D);
        }
        add_matrix(c, at, "mlp.fc1", FF, D);
        add_matrix(c, at, "mlp.fc2", D, FF);
        add_matrix(c, at, "mlp.fc3", FF, D);
    }
    add_matrix(c, ar, "head.linear", F_CODES, D);
    add_matrix(c, "models.text_encoder.mlp.", "fc1", D, 24);
    add_matrix(c, "models.text_encoder.mlp.", "fc2", D, D);
}

static void add_encoder(checkpoint *c)
{
    enum { D = 24, IN = 24, FF = 40 };
    static const char at[] = "encoder.block.0.";
    checkpoint_add(c, "shared.weight", 2, 16, D, 0, 0);
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "layer.0.SelfAttention.%c", "qkv"[i]);
        add_matrix(c, at, name, IN, D);
    }
    add_matrix(c, at, "layer.0.SelfAttention.o", D, IN);
    add_matrix(c, at, "layer.0.SelfAttention.relative_attention_bias", 32, 3);
    checkpoint_add(c, "encoder.block.0.layer.0.layer_norm.weight", 1, D, 0, 0, 0);
    add_matrix(c, at, "layer.1.DenseReluDense.wi_0", FF, D);
    add_matrix(c, at, "layer.1.DenseReluDense.wi_1", FF, D);
    add_matrix(c, at, "layer.1.DenseReluDense.wo", D, FF);
    checkpoint_add(c, "encoder.block.0.layer.1.layer_norm.weight", 1, D, 0, 0, 0);
    checkpoint_add(c, "encoder.final_layer_norm.weight", 1, D, 0, 0, 0);
}

static const char generator_config[] =
    "{\"architectures\": [\"FlexAR\"], \"codec\": \"flextok\", \"model\": {\"meta_model\":"
    " {\"models\": {\"text_encoder\": {\"t5_embedder\": {\"encoder_seqlen_max\": 5}},"
    " \"ar_image_model\": {\"preprocessor\": {\"token_grid_size\": [6, 1], \"codebook_size\": 200},"
    " \"trunk\": {\"embed_dim\": 32, \"num_blocks\": 2, \"self_attn_target\":"
    " {\"num_heads\": 4}}}}}}}";

static const char tokenizer[] =
    "{\"added_tokens\": [{\"id\": 1, \"content\": \"</s>\", \"special\": true}],"
    " \"pre_tokenizer\": {\"type\": \"Whitespace\"},"
    " \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\":"
    " {\"id\": \"A\", \"type_id\": 0}}, {\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}],"
    " \"pair\": [], \"special_tokens\": {\"</s>\": {\"id\": \"</s>\", \"ids\": [1],"
    " \"tokens\": [\"</s>\"]}}},"
    " \"model\": {\"type\": \"WordLevel\", \"unk_token\": \"<unk>\", \"vocab\": {\"<pad>\": 0,"
    " \"</s>\": 1, \"<unk>\": 2, \"a\": 3, \"red\": 4, \"blue\": 5, \"cube\": 6}}}";

static const char *const files[] = {"model.safetensors", "config.json", "generation_config.json",
                                    "flextok/model.safetensors", "flextok/config.json", "flextok",
                                    "t5/model.safetensors", "t5/config.json", "t5/tokenizer.json",
                                    "t5", ""};

static void make_folder(void)
{
    static checkpoint c[3];
    char path[128];
    snprintf(folder, sizeof folder, "/tmp/test_image_text.%d", (int)getpid());
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/flextok", folder);
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/t5", folder);
    mkdir(path, 0777);
    add_generator(&c[0]);
    put_tensors("model.safetensors", &c[0], 0.5f);
    put_json("config.json", generator_config);
    put_json("generation_config.json", "{\"cfg_scale\": 2, \"temperature\": 1}");
    add_flextok(&c[1]);
    put_tensors("flextok/model.safetensors", &c[1], 0.3f);
    put_json("flextok/config.json", flextok_config);
    add_encoder(&c[2]);
    put_tensors("t5/model.safetensors", &c[2], 0.5f);
    put_json("t5/config.json",
             "{\"d_model\": 24, \"d_kv\": 8, \"num_heads\": 3, \"d_ff\": 40, \"num_layers\": 1,"
             " \"vocab_size\": 16, \"feed_forward_proj\": \"gated-gelu\"}");
    put_json("t5/tokenizer.json", tokenizer);
}

static int open_text(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_engine_options o = {.device = "plain", .threads = 1, .max_queue = 64,
                           .max_running = RUNNING};
    tt_log_set_level(TT_LOG_ERROR);
    make_folder();
    api = (tt_api){.version = "test", .max_samples = 64};
    if (tt_metrics_open(&api.metrics, true, &e) || tt_engine_open(&api.engine, &o, &e) ||
        tt_engine_add_model(api.engine, "flex", folder, TT_WEIGHTS_AUTO, NULL, NULL, &e)) {
        print_error("%s\n", e.text);
        return -1;
    }
    api.state = TT_API_READY;
    return 0;
}

static int close_text(void **state)
{
    (void)state;
    tt_engine_stats s;
    tt_engine_get_stats(api.engine, &s);
    tt_engine_close(api.engine);
    tt_metrics_close(api.metrics);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        remove(path);
    }
    return s.bytes_used ? -1 : 0;
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

static bool same(const cJSON *a, const char *path, const cJSON *b, const char *other)
{
    return cJSON_Compare(at(a, path), at(b, other), 1);
}

static cJSON *make(const char *prompt, const char *more)
{
    char body[600];
    snprintf(body, sizeof body,
             "{\"model\": \"flex\", \"prompt\": \"%s\", \"seed\": 5, \"tutti\":"
             " {\"return_tokens\": true, \"paint\": {\"steps\": 2}%s}}",
             prompt, more);
    return ask("/v1/images/generations", body);
}

static void a_prompt_becomes_a_picture(void **state)
{
    (void)state;
    cJSON *red = make("a red cube", ""), *blue = make("a blue cube", ""), *none = make("", "");
    assert_int_equal(cJSON_GetArraySize(at(red, "data.0.tutti.tokens")), F_TOKENS);
    assert_string_equal(at(red, "size")->valuestring, "16x16");
    assert_int_equal(at(red, "usage.input_tokens_details.text_tokens")->valueint, 4);
    assert_int_equal(at(none, "usage.input_tokens_details.text_tokens")->valueint, 1);
    assert_false(same(red, "data.0.tutti.tokens", blue, "data.0.tutti.tokens"));
    assert_false(same(red, "data.0.tutti.tokens", none, "data.0.tutti.tokens"));
    assert_false(same(red, "data.0.b64_json", blue, "data.0.b64_json"));
    cJSON *plain = make("a red cube", ", \"cfg_scale\": 0");
    assert_false(same(red, "data.0.tutti.tokens", plain, "data.0.tutti.tokens"));
    cJSON_Delete(red);
    cJSON_Delete(blue);
    cJSON_Delete(none);
    cJSON_Delete(plain);
}

static void prompts_do_not_mix(void **state)
{
    (void)state;
    enum { OTHERS = 6 };
    cJSON *alone = make("a red cube", "");
    tt_work *other[OTHERS];
    for (int i = 0; i < OTHERS; i++) {
        char body[300];
        tt_reply r = {0};
        snprintf(body, sizeof body,
                 "{\"model\": \"flex\", \"prompt\": \"%s\", \"seed\": %d, \"n\": 2, \"tutti\":"
                 " {\"paint\": {\"steps\": %d}, \"previews\": 2}}", i % 2 ? "blue" : "a cube a", i,
                 1 + i);
        assert_int_equal(start_work(&other[i], "/v1/images/generations", NULL, body, strlen(body),
                                    &r), TT_OK);
    }
    cJSON *mixed = make("a red cube", "");
    assert_true(same(alone, "data", mixed, "data"));
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

static void any_number_of_leading_tokens_is_a_picture(void **state)
{
    (void)state;
    cJSON *t[3];
    static const char *const tokens[] = {"[7]", "[7, 100, 3]", "[7, 100, 3, 4, 5, 6]"};
    for (int i = 0; i < 3; i++) {
        char body[200];
        snprintf(body, sizeof body, "{\"model\": \"flex\", \"tokens\": %s, \"seed\": 1}",
                 tokens[i]);
        t[i] = ask("/v1/images/detokenize", body);
        for (int k = 0; k < i; k++)
            assert_false(same(t[i], "data.0.b64_json", t[k], "data.0.b64_json"));
    }
    for (int i = 0; i < 3; i++)
        cJSON_Delete(t[i]);
    refuses("/v1/images/detokenize", "{\"model\": \"flex\", \"tokens\": []}", "tokens",
            "or the first of them");
    refuses("/v1/images/detokenize", "{\"model\": \"flex\", \"tokens\": [1, 2, 3, 4, 5, 6, 7]}",
            "tokens", "6 tokens");
}

static void a_variation_keeps_the_first_tokens(void **state)
{
    (void)state;
    uint8_t rgb[F_SIDE * F_SIDE * 3];
    char body[4096];
    tt_buf file = {0}, base64 = {0};
    for (size_t i = 0; i < sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 37);
    assert_int_equal(tt_png_encode(&file, rgb, F_SIDE, F_SIDE, 3, TT_PNG_FAST, NULL, 0, NULL), 0);
    tt_base64_put(&base64, file.data, file.size);
    snprintf(body, sizeof body, "{\"model\": \"flex\", \"image\": \"%s\"}", tt_buf_text(&base64));
    cJSON *source = ask("/v1/images/tokenize", body);
    snprintf(body, sizeof body, "{\"model\": \"flex\", \"image\": \"%s\", \"seed\": 2, \"tutti\":"
             " {\"strength\": 0.5, \"return_tokens\": true}}", tt_buf_text(&base64));
    cJSON *t = ask("/v1/images/variations", body);
    for (int i = 0; i < F_TOKENS / 2; i++)
        assert_int_equal(cJSON_GetArrayItem(at(t, "data.0.tutti.tokens"), i)->valueint,
                         cJSON_GetArrayItem(at(source, "data.0.tokens"), i)->valueint);
    assert_false(same(t, "data.0.tutti.tokens", source, "data.0.tokens"));
    cJSON_Delete(source);
    cJSON_Delete(t);
    tt_buf_free(&file);
    tt_buf_free(&base64);
}

static void what_texts_cannot_do_is_said(void **state)
{
    (void)state;
    refuses("/v1/images/generations", "{\"model\": \"flex\"}", "prompt", "missing");
    refuses("/v1/images/generations", "{\"model\": \"flex\", \"prompt\": \"a a a a a\"}", "prompt",
            "6 tokens");
    refuses("/v1/images/generations",
            "{\"model\": \"flex\", \"prompt\": \"a\", \"tutti\": {\"class_id\": 0}}",
            "tutti.class_id", "knows no labels");
    refuses("/v1/images/generations",
            "{\"model\": \"flex\", \"prompt\": \"a\", \"tutti\": {\"labels\": {\"x\": 0}}}",
            "tutti.labels", "knows no labels");
}

static void a_folder_needs_its_encoder(void **state)
{
    (void)state;
    char path[128], away[128];
    tt_err e = {0};
    snprintf(path, sizeof path, "%s/t5/model.safetensors", folder);
    snprintf(away, sizeof away, "%s/t5/away", folder);
    assert_int_equal(rename(path, away), 0);
    assert_int_not_equal(tt_engine_add_model(api.engine, "poor", folder, TT_WEIGHTS_AUTO, NULL,
                                             NULL, &e), TT_OK);
    assert_non_null(strstr(e.text, "text encoder"));
    assert_int_equal(rename(away, path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_becomes_a_picture),
        cmocka_unit_test(prompts_do_not_mix),
        cmocka_unit_test(any_number_of_leading_tokens_is_a_picture),
        cmocka_unit_test(a_variation_keeps_the_first_tokens),
        cmocka_unit_test(what_texts_cannot_do_is_said),
        cmocka_unit_test(a_folder_needs_its_encoder),
    };
    return cmocka_run_group_tests_name("images of texts", tests, open_text, close_text);
}
