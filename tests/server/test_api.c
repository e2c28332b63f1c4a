/* What can go wrong: members missing or of the wrong shape, choices in the wrong order, a setting
 * that does not reach the engine, text that is not the columns' text, counts that do not add up. */
#include "samplers/image.h"
#include "tests/server/api_help.h"

#define CO "/v1/completions"
#define CH "/v1/chat/completions"
#define M "\"model\":\"org/fake\","

static void same_text(const cJSON *t, const char *path, const char *want)
{
    assert_string_equal(text_at(t, path), want);
}

static void a_completion_has_openai_s_members(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":\"Hello\",\"max_tokens\":4,\"seed\":-5}");
    assert_int_equal(strncmp(text_at(t, "id"), "cmpl-", 5), 0);
    same_text(t, "object", "text_completion");
    same_text(t, "model", "org/fake");
    assert_true(number_at(t, "created") > 1.7e9);
    same_text(t, "choices.0.text", "abcd");
    same_text(t, "choices.0.finish_reason", "length");
    assert_true(cJSON_IsNull(at(t, "choices.0.logprobs")));
    assert_true(number_at(t, "usage.prompt_tokens") == 5);
    assert_true(number_at(t, "usage.completion_tokens") == 4);
    assert_true(number_at(t, "usage.total_tokens") == 9);
    assert_true(number_at(t, "tutti.nfe") == 4);
    assert_true(number_at(t, "tutti.steps") == 4);
    assert_true(number_at(t, "tutti.tokens_per_forward") == 1);
    assert_true(number_at(t, "tutti.canvas") == 9);
    assert_true(number_at(t, "tutti.seed") == -5);
    same_text(t, "tutti.sampler", "low_confidence");
    assert_true(number_at(t, "tutti.parameters.temperature") == 0);
    same_text(t, "tutti.parameters.remask", "confidence");
    assert_true(number_at(t, "tutti.time.run_ms") > 0);
    assert_int_equal(cJSON_GetArraySize(at(t, "tutti.warnings")), 0);
    cJSON_Delete(t);
    assert_true(tt_fake_engine.stop_early);
    assert_false(tt_fake_engine.ban_stops);
    assert_int_equal(tt_fake_engine.prompt, 5);
    assert_int_equal(tt_fake_engine.columns, 9);
    assert_true(tt_fake_engine.seed == (uint64_t)-5);
}

static void lengths_have_defaults(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":\"\"}");
    assert_true(number_at(t, "usage.completion_tokens") == TT_DEFAULT_COMPLETION);
    assert_true(number_at(t, "usage.prompt_tokens") == 0);
    cJSON_Delete(t);
    t = post(CH, "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}");
    assert_true(number_at(t, "usage.completion_tokens") == TT_DEFAULT_CHAT);
    cJSON_Delete(t);
    tt_buf b = {0}; /* when the context has less room than the default, what it has */
    tt_buf_puts(&b, "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 450; i++)
        tt_buf_putc(&b, 'x');
    tt_buf_puts(&b, "\"}]}");
    t = post(CH, tt_buf_text(&b));
    assert_true(number_at(t, "usage.total_tokens") == 512);
    cJSON_Delete(t);
    tt_buf_free(&b);
}

static void choices_are_ordered_by_prompt_then_sample(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":[\"A\",\"BB\"],\"n\":2,\"max_tokens\":3,\"echo\":true}");
    assert_int_equal(cJSON_GetArraySize(at(t, "choices")), 4);
    static const char *const want[] = {"Aabc", "Aabc", "BBabc", "BBabc"};
    for (int i = 0; i < 4; i++) {
        char path[32];
        snprintf(path, sizeof path, "choices.%d.text", i);
        same_text(t, path, want[i]);
        snprintf(path, sizeof path, "choices.%d.index", i);
        assert_true(number_at(t, path) == i);
    }
    assert_true(number_at(t, "usage.prompt_tokens") == 3); /* a prompt counts once */
    assert_true(number_at(t, "usage.completion_tokens") == 12);
    assert_int_equal(cJSON_GetArraySize(at(t, "tutti.warnings")), 1); /* n > 1 without noise */
    cJSON_Delete(t);
}

/* Samples 0 .. 4 have -0.25, -1.75, -0.75, -2.25, -1.25 a token. */
static void best_of_gives_the_likeliest(void **state)
{
    (void)state;
    static const double want[] = {-0.25, -0.75, -1.25};
    atomic_store(&tt_fake_engine.uneven, true);
    cJSON *t = post(CO, "{" M "\"prompt\":[\"A\",\"B\"],\"n\":3,\"best_of\":5,\"max_tokens\":3,"
                        "\"temperature\":1}");
    atomic_store(&tt_fake_engine.uneven, false);
    assert_int_equal(cJSON_GetArraySize(at(t, "choices")), 6);
    for (int i = 0; i < 6; i++) {
        char path[40];
        snprintf(path, sizeof path, "choices.%d.tutti.score", i);
        assert_true(number_at(t, path) == want[i % 3]);
        snprintf(path, sizeof path, "choices.%d.index", i);
        assert_true(number_at(t, path) == i);
    }
    assert_true(number_at(t, "usage.completion_tokens") == 30); /* all that were made */
    cJSON_Delete(t);
}

static void prompts_may_be_ids(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":[72,105,256],\"max_tokens\":2,\"echo\":true}");
    same_text(t, "choices.0.text", "Hiab"); /* the mask id is a token like any other, unseen */
    assert_true(number_at(t, "usage.prompt_tokens") == 3);
    cJSON_Delete(t);
    t = post(CO, "{" M "\"prompt\":[[72],[105,105]],\"max_tokens\":1,\"echo\":true}");
    same_text(t, "choices.0.text", "Ha");
    same_text(t, "choices.1.text", "iia");
    cJSON_Delete(t);
    t = post(CO, "{\"model\":\"no-tok\",\"prompt\":[5,6],\"max_tokens\":3}");
    same_text(t, "choices.0.text", ""); /* no tokenizer: tokens are counted */
    assert_true(number_at(t, "usage.completion_tokens") == 3);
    cJSON_Delete(t);
}

static void a_suffix_makes_a_gap(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":\"<\",\"suffix\":\">>\",\"max_tokens\":3}");
    same_text(t, "choices.0.text", "abc");
    same_text(t, "tutti.sampler", "infill");
    assert_true(number_at(t, "usage.prompt_tokens") == 3);
    cJSON_Delete(t);
    assert_int_equal(tt_fake_engine.prompt, 0);
    assert_int_equal(tt_fake_engine.columns, 6);
    assert_true(tt_fake_engine.ban_stops);
    assert_false(tt_fake_engine.stop_early);
}

static void a_stop_id_ends_an_answer_and_not_a_gap(void **state)
{
    (void)state;
    tt_fake_engine.script = "ab\x01zz";
    cJSON *t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":5}");
    same_text(t, "choices.0.text", "ab");
    same_text(t, "choices.0.finish_reason", "stop");
    assert_true(number_at(t, "usage.completion_tokens") == 2);
    cJSON_Delete(t);
    t = post(CO, "{" M "\"prompt\":\"x\",\"suffix\":\"y\",\"max_tokens\":5}");
    same_text(t, "choices.0.text", "abzz");
    same_text(t, "choices.0.finish_reason", "length");
    cJSON_Delete(t);
}

static void a_stop_string_ends_an_answer_and_the_job(void **state)
{
    (void)state;
    int before = tt_fake_engine.stopped;
    cJSON *t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":400,\"stop\":[\"zzz\",\"de\"]}");
    same_text(t, "choices.0.text", "abc");
    same_text(t, "choices.0.finish_reason", "stop");
    cJSON_Delete(t);
    assert_int_equal(tt_fake_engine.stopped, before + 1);
}

static void legacy_logprobs_line_up_with_the_text(void **state)
{
    (void)state;
    tt_fake_engine.script = "a\xC3\xA9z";
    cJSON *t = post(CO, "{" M "\"prompt\":\"Hi\",\"max_tokens\":4,\"logprobs\":2,\"echo\":true}");
    same_text(t, "choices.0.text", "Hia\xC3\xA9z");
    same_text(t, "choices.0.logprobs.tokens.0", "a");
    same_text(t, "choices.0.logprobs.tokens.1", "bytes:\\xc3");
    same_text(t, "choices.0.logprobs.tokens.2", "bytes:\\xa9");
    assert_true(number_at(t, "choices.0.logprobs.token_logprobs.3") == -0.25);
    assert_true(number_at(t, "choices.0.logprobs.text_offset.0") == 2);
    assert_true(number_at(t, "choices.0.logprobs.text_offset.3") == 5);
    assert_int_equal(cJSON_GetArraySize(at(t, "choices.0.logprobs.top_logprobs")), 4);
    assert_true(number_at(t, "choices.0.logprobs.top_logprobs.0.a") == -0.25);
    assert_true(number_at(t, "choices.0.logprobs.top_logprobs.0.b") == -1.25);
    cJSON_Delete(t);
    t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":1,\"logprobs\":0}");
    assert_int_equal(cJSON_GetArraySize(at(t, "choices.0.logprobs.top_logprobs.0")), 1);
    cJSON_Delete(t);
}

static void chat_has_openai_s_members(void **state)
{
    (void)state;
    cJSON *t = post(CH, "{" M "\"messages\":[{\"role\":\"system\",\"content\":\"S\"},"
                        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"U\"},"
                        "{\"type\":\"text\",\"text\":\"V\"}],\"name\":\"me\"}],"
                        "\"max_tokens\":9,\"max_completion_tokens\":2,"
                        "\"logprobs\":true,\"top_logprobs\":1}");
    assert_int_equal(strncmp(text_at(t, "id"), "chatcmpl-", 9), 0);
    same_text(t, "object", "chat.completion");
    same_text(t, "choices.0.message.role", "assistant");
    same_text(t, "choices.0.message.content", "ab");
    assert_true(cJSON_IsNull(at(t, "choices.0.message.refusal")));
    same_text(t, "choices.0.logprobs.content.1.token", "b");
    assert_true(number_at(t, "choices.0.logprobs.content.1.bytes.0") == 'b');
    assert_true(number_at(t, "choices.0.logprobs.content.1.top_logprobs.0.logprob") == -0.25);
    assert_true(number_at(t, "usage.completion_tokens") == 2);
    cJSON_Delete(t);
    assert_int_equal(tt_fake_engine.prompt, tt_fake_engine.columns - 2);
}

static void infill_fills_every_hole(void **state)
{
    (void)state;
    cJSON *t = post("/v1/infill",
                    "{" M "\"segments\":[{\"text\":\"<\"},{\"hole\":{\"max\":2,\"id\":\"x\"}},"
                    "{\"text\":\"|\"},{\"hole\":{\"tokens\":3,\"min\":3}},{\"text\":\">\"}],"
                    "\"n\":2}");
    same_text(t, "object", "infill");
    same_text(t, "choices.1.text", "<ab|cde>");
    same_text(t, "choices.0.holes.x.text", "ab");
    same_text(t, "choices.0.holes.1.text", "cde"); /* without an id: its number */
    assert_true(number_at(t, "choices.0.holes.1.tokens") == 3);
    assert_true(number_at(t, "choices.0.holes.1.logprob") == -0.75);
    assert_true(number_at(t, "usage.prompt_tokens") == 3);
    assert_true(number_at(t, "usage.completion_tokens") == 10);
    same_text(t, "tutti.sampler", "infill");
    cJSON_Delete(t);
    assert_int_equal(tt_fake_engine.prompt, 0);
    assert_true(tt_fake_engine.ban_stops);
}

static void a_mask_written_in_a_text_is_a_hole(void **state)
{
    (void)state;
    cJSON *t = post("/v1/infill",
                    "{" M "\"segments\":[{\"text\":\"<<|mask|><|mask|>|<|mask|>\"},"
                    "{\"text\":\">\"}],\"tutti\":{\"special_tokens\":true}}");
    same_text(t, "choices.0.text", "<ab|c>");
    same_text(t, "choices.0.holes.0.text", "ab");
    same_text(t, "choices.0.holes.1.text", "c");
    cJSON_Delete(t);
    /* Unless special tokens are read, the text says nothing but itself: there is no hole. */
    int status;
    cJSON_Delete(ask("POST", "/v1/infill",
                     "{" M "\"segments\":[{\"text\":\"<<|mask|>>\"}]}", &status));
    assert_int_equal(status, 400);
}

static void editors_get_their_shapes(void **state)
{
    (void)state;
    cJSON *t = post("/infill", "{\"input_prefix\":\"a(\",\"input_suffix\":\")\",\"prompt\":\"x\","
                               "\"n_predict\":2,\"cache_prompt\":true,\"samplers\":[\"top_k\"],"
                               "\"input_extra\":[{\"filename\":\"f\",\"text\":\"t\"}]}");
    same_text(t, "content", "ab");
    same_text(t, "stop_type", "limit");
    assert_true(number_at(t, "tokens_predicted") == 2);
    assert_true(number_at(t, "tokens_evaluated") == 4);
    assert_int_equal(cJSON_GetArraySize(at(t, "tutti.warnings")), 1); /* input_extra */
    cJSON_Delete(t);
    t = post("/v1/fim/completions", "{" M "\"prompt\":\"a(\",\"suffix\":\")\",\"max_tokens\":2}");
    same_text(t, "choices.0.text", "ab");
    same_text(t, "choices.0.message.content", "ab");
    cJSON_Delete(t);
}

static void parameters_reach_the_sampler_by_any_name(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":1,\"temperature\":0.5,"
                        "\"num_denoising_steps\":3,\"block_length\":8,\"guidance_scale\":2,"
                        "\"confidence_metric\":\"entropy_inverse\",\"top_k\":7,"
                        "\"tutti\":{\"steps\":3,\"min_p\":0.1,\"logits_eos_inf\":true}}");
    assert_true(number_at(t, "tutti.parameters.temperature") == 0.5);
    assert_true(number_at(t, "tutti.parameters.steps") == 3);
    assert_true(number_at(t, "tutti.parameters.block_length") == 8);
    assert_true(number_at(t, "tutti.parameters.cfg_scale") == 2);
    assert_true(number_at(t, "tutti.parameters.top_k") == 7);
    assert_true(number_at(t, "tutti.parameters.min_p") == 0.1);
    assert_true(cJSON_IsTrue(at(t, "tutti.parameters.logits_eos_inf")));
    same_text(t, "tutti.parameters.remask", "entropy");
    cJSON_Delete(t);
    t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":1,\"tutti\":{\"sampler\":\"threshold\","
                 "\"threshold\":0.8}}");
    same_text(t, "tutti.sampler", "threshold");
    assert_true(number_at(t, "tutti.parameters.threshold") == 0.8);
    same_text(t, "tutti.parameters.cache", "none");
    cJSON_Delete(t);
    t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":1,\"tutti\":{\"sampler\":\"factor\","
                 "\"cache\":\"auto\"}}");
    same_text(t, "tutti.parameters.cache", "dual"); /* what auto is here */
    cJSON_Delete(t);
}

static void special_tokens_are_text_unless_asked_for(void **state)
{
    (void)state;
    cJSON *t = post(CO, "{" M "\"prompt\":\"<|mask|>\",\"max_tokens\":1}");
    assert_true(number_at(t, "usage.prompt_tokens") == 8);
    cJSON_Delete(t);
    t = post(CO, "{" M "\"prompt\":\"<|mask|>\",\"max_tokens\":1,"
                 "\"tutti\":{\"special_tokens\":true}}");
    assert_true(number_at(t, "usage.prompt_tokens") == 1);
    cJSON_Delete(t);
}

static void a_trace_has_every_change_in_order(void **state)
{
    (void)state;
    tt_fake_engine.backwards = true;
    cJSON *t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":3,\"tutti\":{\"trace\":true}}");
    assert_int_equal(cJSON_GetArraySize(at(t, "choices.0.tutti.trace")), 3);
    assert_true(number_at(t, "choices.0.tutti.trace.0.pos") == 2);
    assert_true(number_at(t, "choices.0.tutti.trace.0.step") == 1);
    assert_true(number_at(t, "choices.0.tutti.trace.0.id") == 'c');
    assert_true(number_at(t, "choices.0.tutti.trace.0.logprob") == -0.25);
    same_text(t, "choices.0.tutti.trace.0.op", "set");
    same_text(t, "choices.0.tutti.trace.0.text", "c");
    assert_true(number_at(t, "choices.0.tutti.trace.2.pos") == 0);
    assert_true(number_at(t, "choices.0.tutti.trace.2.step") == 3);
    cJSON_Delete(t);
}

static void biases_arrive(void **state)
{
    (void)state;
    cJSON_Delete(post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":1,"
                          "\"logit_bias\":{\"65\":-100,\"3\":1.5}}"));
    assert_int_equal(tt_fake_engine.n_bias, 2);
}

static void seeds_are_made_up_when_none_is_given(void **state)
{
    (void)state;
    double seed[2];
    for (int i = 0; i < 2; i++) {
        cJSON *t = post(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":1}");
        seed[i] = number_at(t, "tutti.seed");
        assert_true(seed[i] >= 0 && seed[i] < 9007199254740992.0);
        cJSON_Delete(t);
    }
    assert_true(seed[0] != seed[1]);
}

static void failures_of_the_engine_have_their_status(void **state)
{
    (void)state;
    int status;
    const char *body = "{" M "\"prompt\":[\"x\",\"y\"],\"max_tokens\":4}";
    tt_fake_engine.busy = 1;
    cJSON *t = ask("POST", CO, body, &status);
    assert_int_equal(status, 429);
    same_text(t, "error.code", "queue_full");
    same_text(t, "error.type", "rate_limit_error");
    cJSON_Delete(t);
    tt_fake_engine.busy = 0;
    tt_fake_engine.fail = true;
    t = ask("POST", CO, body, &status);
    assert_int_equal(status, 500);
    same_text(t, "error.code", "internal_error");
    same_text(t, "error.message", "the fake device is gone");
    cJSON_Delete(t);
    tt_fake_engine.fail = false;
    tt_fake_engine.paused = true;
    t = ask("POST", CO, "{" M "\"prompt\":\"x\",\"tutti\":{\"deadline_ms\":20}}", &status);
    assert_int_equal(status, 504);
    same_text(t, "error.code", "deadline_exceeded");
    cJSON_Delete(t);
}

/* --- the other routes --- */

static void tokens_there_and_back(void **state)
{
    (void)state;
    cJSON *t = post("/v1/tokenize", "{\"content\":\"h\xC3\xA9\",\"with_pieces\":true}");
    assert_true(number_at(t, "count") == 3);
    assert_true(number_at(t, "max_model_len") == 512);
    same_text(t, "tokens.0.piece", "h");
    assert_true(number_at(t, "tokens.1.piece.0") == 0xC3);
    cJSON_Delete(t);
    t = post("/tokenize", "{" M "\"prompt\":\"h<|end|>\",\"return_token_strs\":true}");
    assert_true(number_at(t, "count") == 8);
    same_text(t, "token_strs.0", "h");
    cJSON_Delete(t);
    t = post("/tokenize", "{" M "\"prompt\":\"<|end|>\",\"parse_special\":true}");
    assert_true(number_at(t, "tokens.0") == TINY_END);
    cJSON_Delete(t);
    t = post("/tokenize", "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_true(number_at(t, "tokens.0") == TINY_START);
    cJSON_Delete(t);
    t = post("/v1/detokenize", "{\"tokens\":[104,195,169,257]}");
    same_text(t, "content", "h\xC3\xA9<|end|>");
    same_text(t, "prompt", "h\xC3\xA9<|end|>");
    cJSON_Delete(t);
    t = post("/detokenize", "{\"tokens\":[104,257],\"skip_special_tokens\":true}");
    same_text(t, "content", "h");
    cJSON_Delete(t);
}

static void models_say_what_can_be_asked(void **state)
{
    (void)state;
    int status;
    cJSON *t = ask("GET", "/v1/models", "", &status);
    same_text(t, "object", "list");
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 3);
    same_text(t, "data.0.id", "org/fake");
    same_text(t, "data.0.object", "model");
    same_text(t, "data.0.tutti.capabilities.1", "chat");
    assert_int_equal(cJSON_GetArraySize(at(t, "data.1.tutti.capabilities")), 4);
    same_text(t, "data.0.tutti.samplers.0.parameters.0.name", "temperature");
    cJSON_Delete(t);
    t = ask("GET", "/v1/models/org/fake", "", &status);
    assert_int_equal(status, 200);
    same_text(t, "id", "org/fake");
    cJSON_Delete(t);
    t = ask("GET", "/v1/models/nope", "", &status);
    assert_int_equal(status, 404);
    same_text(t, "error.code", "model_not_found");
    cJSON_Delete(t);
}

static void routes_are_found_and_missed(void **state)
{
    (void)state;
    const char *tail;
    char allow[64];
    assert_non_null(tt_route_find("HEAD", "/health", &tail, allow));
    assert_non_null(tt_route_find("GET", "/v1/health", &tail, allow));
    assert_null(tt_route_find("GET", "/v1/completions", &tail, allow));
    assert_string_equal(allow, "POST");
    assert_null(tt_route_find("DELETE", "/v1/models", &tail, allow));
    assert_string_equal(allow, "GET");
    assert_non_null(tt_route_find("POST", "/v1/jobs/job-1/cancel", &tail, allow));
    assert_int_equal(strncmp(tail, "job-1", 5), 0);
    assert_non_null(tt_route_find("DELETE", "/v1/jobs/job-1", &tail, allow));
    assert_null(tt_route_find("POST", "/v1/jobs/job-1", &tail, allow));
    assert_string_equal(allow, "GET, DELETE");
    assert_null(tt_route_find("POST", "/v1/jobs//cancel", &tail, allow));
    assert_null(tt_route_find("POST", "/v1/jobs/a/b/cancel", &tail, allow));
    assert_null(tt_route_find("GET", "/v1/models/", &tail, allow));
    assert_string_equal(allow, "");
    assert_null(tt_route_find("GET", "/v1/completion", &tail, allow));
    assert_null(tt_route_find("GET", "", &tail, allow));
}

/* Every route and every member of every table must be in the document. */
static void the_document_covers_the_tables(void **state)
{
    (void)state;
    int status;
    cJSON *t = ask("GET", "/openapi.json", "", &status);
    same_text(t, "openapi", "3.1.0");
    for (const tt_route *r = tt_routes(); r->method; r++) {
        const cJSON *path =
            cJSON_GetObjectItemCaseSensitive(at(t, "paths"), r->path);
        assert_non_null(path);
        assert_non_null(cJSON_GetObjectItem(path, r->method)); /* "get" for "GET" */
    }
    const cJSON *chat = at(t, "components.schemas.Bodyv1chatcompletions.properties");
    for (const tt_field *f = tt_fields(); f->name; f++) {
        bool on = false; /* one name may stand for different things at different places */
        for (const tt_field *o = tt_fields(); o->name; o++)
            on |= !strcmp(o->name, f->name) && (o->on & TT_ON_CHAT);
        assert_int_equal(cJSON_GetObjectItemCaseSensitive(chat, f->name) != NULL, on);
    }
    size_t n;
    const tt_param *all = tt_param_all(&n);
    const cJSON *options = at(t, "components.schemas.TuttiOptions.properties");
    const cJSON *images = at(t, "components.schemas.TuttiImageOptions.properties");
    for (size_t i = 0; i < n; i++) { /* where something reads it, and only there */
        bool text = false, image = false;
        for (const tt_sampler *const *s = tt_sampler_all(); *s; s++)
            text |= tt_sampler_reads(*s, &all[i]);
        for (const tt_planner *const *p = tt_planner_all(); *p; p++)
            image |= tt_planner_reads(*p, &all[i]);
        assert_true(text || image);
        assert_int_equal(cJSON_GetObjectItemCaseSensitive(options, all[i].name) != NULL, text);
        assert_int_equal(cJSON_GetObjectItemCaseSensitive(images, all[i].name) != NULL, image);
    }
    options = at(t, "components.schemas.TuttiReadOptions.properties");
    assert_non_null(cJSON_GetObjectItemCaseSensitive(options, "pooling"));
    assert_null(cJSON_GetObjectItemCaseSensitive(options, "steps"));
    same_text(t, "components.schemas.Bodyv1embeddings.properties.tutti.$ref",
              "#/components/schemas/TuttiReadOptions");
    same_text(t, "components.schemas.Bodyv1completions.properties.tutti.$ref",
              "#/components/schemas/TuttiOptions");
    cJSON_Delete(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_completion_has_openai_s_members, fresh),
        cmocka_unit_test_setup(lengths_have_defaults, fresh),
        cmocka_unit_test_setup(choices_are_ordered_by_prompt_then_sample, fresh),
        cmocka_unit_test_setup(best_of_gives_the_likeliest, fresh),
        cmocka_unit_test_setup(prompts_may_be_ids, fresh),
        cmocka_unit_test_setup(a_suffix_makes_a_gap, fresh),
        cmocka_unit_test_setup(a_stop_id_ends_an_answer_and_not_a_gap, fresh),
        cmocka_unit_test_setup(a_stop_string_ends_an_answer_and_the_job, fresh),
        cmocka_unit_test_setup(legacy_logprobs_line_up_with_the_text, fresh),
        cmocka_unit_test_setup(chat_has_openai_s_members, fresh),
        cmocka_unit_test_setup(infill_fills_every_hole, fresh),
        cmocka_unit_test_setup(a_mask_written_in_a_text_is_a_hole, fresh),
        cmocka_unit_test_setup(editors_get_their_shapes, fresh),
        cmocka_unit_test_setup(parameters_reach_the_sampler_by_any_name, fresh),
        cmocka_unit_test_setup(special_tokens_are_text_unless_asked_for, fresh),
        cmocka_unit_test_setup(a_trace_has_every_change_in_order, fresh),
        cmocka_unit_test_setup(biases_arrive, fresh),
        cmocka_unit_test_setup(seeds_are_made_up_when_none_is_given, fresh),
        cmocka_unit_test_setup(failures_of_the_engine_have_their_status, fresh),
        cmocka_unit_test_setup(tokens_there_and_back, fresh),
        cmocka_unit_test_setup(models_say_what_can_be_asked, fresh),
        cmocka_unit_test_setup(routes_are_found_and_missed, fresh),
        cmocka_unit_test_setup(the_document_covers_the_tables, fresh),
    };
    return cmocka_run_group_tests_name("api", tests, open_api, close_api);
}
