/* What can go wrong: sums, shares and orders; base64 that clients cannot read; a large request that
 * takes the queue; holes that are fitted to the wrong length, or forget what was found. In the
 * fake engine every token has log-probability -0.5 and a vector is (tokens, first id, number, 1).
 */
#include <math.h>

#include "tests/server/api_help.h"

#define LK "/v1/likelihood"
#define EM "/v1/embeddings"
#define IN "/v1/infill"
#define M  "\"model\":\"org/fake\","

static void near(const cJSON *t, const char *path, double want)
{
    double got = number_at(t, path);
    if (fabs(got - want) > 1e-6)
        fail_msg("%s is %.9g, expected %.9g", path, got, want);
}

/* --- likelihood --- */

static void a_text_is_scored_by_token(void **state)
{
    (void)state;
    cJSON *t = post(LK, "{" M "\"text\":\"abc\",\"samples\":7,\"seed\":5}");
    assert_string_equal(text_at(t, "object"), "likelihood");
    assert_string_equal(text_at(t, "method"), "monte_carlo");
    assert_int_equal(tt_fake_engine.samples, 7);
    near(t, "data.0.logprob", -1.5); /* every sample's estimate, whatever it masks */
    near(t, "data.0.standard_error", 0);
    near(t, "data.0.token_count", 3);
    near(t, "data.0.logprob_per_token", -0.5);
    near(t, "data.0.perplexity", exp(0.5));
    assert_string_equal(text_at(t, "data.0.tokens.2"), "c");
    near(t, "data.0.token_ids.0", 'a');
    double sum = 0;
    for (int i = 0; i < 3; i++)
        sum += cJSON_GetArrayItem(at(t, "data.0.token_logprobs"), i)->valuedouble;
    assert_true(fabs(sum + 1.5) < 1e-6);
    near(t, "usage.prompt_tokens", 3);
    near(t, "tutti.seed", 5);
    near(t, "tutti.nfe", 7);
    assert_null(cJSON_GetObjectItem(t, "best"));
    cJSON_Delete(t);
}

static void samples_default_to_128(void **state)
{
    (void)state;
    cJSON_Delete(post(LK, "{" M "\"text\":\"abc\"}"));
    assert_int_equal(tt_fake_engine.samples, 128);
}

static void one_sample_tells_no_error(void **state)
{
    (void)state;
    cJSON *t = post(LK, "{" M "\"text\":\"abc\",\"samples\":1}");
    assert_true(cJSON_IsNull(at(t, "data.0.standard_error")));
    cJSON_Delete(t);
}

static void choices_get_shares(void **state)
{
    (void)state;
    cJSON *t = post(LK, "{" M "\"prompt\":\"x\",\"choices\":[\"abc\",\"a\",\"ab\"],"
                        "\"method\":\"left_to_right\"}");
    double all = exp(-1.5) + exp(-0.5) + exp(-1);
    near(t, "best", 1);
    near(t, "data.0.probability", exp(-1.5) / all);
    near(t, "data.1.probability", exp(-0.5) / all);
    near(t, "data.2.logprob", -1);
    near(t, "data.2.standard_error", 0);
    near(t, "data.2.token_logprobs.1", -0.5);
    assert_string_equal(text_at(t, "method"), "left_to_right");
    near(t, "usage.prompt_tokens", 4 + 2 + 3);
    cJSON_Delete(t);
}

static void ids_and_suffixes_are_taken_as_they_are(void **state)
{
    (void)state;
    cJSON *t = post(LK, "{" M "\"prompt\":[65,66],\"continuation\":[67],\"suffix\":\"zz\"}");
    assert_int_equal(tt_fake_engine.columns, 5);
    near(t, "data.0.token_count", 1);
    near(t, "data.0.token_ids.0", 67);
    cJSON_Delete(t);
    t = post(LK, "{" M "\"text\":[[65,66],[67]]}");
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 2);
    cJSON_Delete(t);
}

/* --- embeddings --- */

static void vectors_have_length_one(void **state)
{
    (void)state;
    cJSON *t = post(EM, "{" M "\"input\":[\"abc\",\"b\"]}");
    double length = sqrt(3.0 * 3 + 'a' * 'a' + 1);
    assert_string_equal(text_at(t, "object"), "list");
    assert_string_equal(text_at(t, "data.1.object"), "embedding");
    near(t, "data.1.index", 1);
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.embedding")), 4);
    near(t, "data.0.embedding.0", 3 / length);
    near(t, "data.0.embedding.3", 1 / length);
    near(t, "usage.prompt_tokens", 4);
    near(t, "usage.total_tokens", 4);
    cJSON_Delete(t);
    t = post(EM, "{" M "\"input\":\"abc\",\"tutti\":{\"normalize\":false}}");
    near(t, "data.0.embedding.1", 'a');
    cJSON_Delete(t);
    t = post(EM, "{" M "\"input\":\"abc\",\"dimensions\":1}"); /* shortened, then of length one */
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.embedding")), 1);
    near(t, "data.0.embedding.0", 1);
    cJSON_Delete(t);
}

static void base64_is_little_endian_float32(void **state)
{
    (void)state;
    cJSON *t = post(EM, "{" M "\"input\":\"abc\",\"encoding_format\":\"base64\","
                        "\"tutti\":{\"normalize\":false}}");
    /* 3, 97, 0, 1 */
    assert_string_equal(text_at(t, "data.0.embedding"), "AABAQAAAwkIAAAAAAACAPw==");
    cJSON_Delete(t);
    t = post(EM, "{" M "\"input\":\"abc\",\"encoding_format\":\"base64\",\"dimensions\":3,"
                 "\"tutti\":{\"normalize\":false}}");
    assert_string_equal(text_at(t, "data.0.embedding"), "AABAQAAAwkIAAAAA");
    cJSON_Delete(t);
    t = post(EM, "{" M "\"input\":\"abc\",\"encoding_format\":\"base64\",\"dimensions\":2,"
                 "\"tutti\":{\"normalize\":false}}");
    assert_string_equal(text_at(t, "data.0.embedding"), "AABAQAAAwkI=");
    cJSON_Delete(t);
}

static void an_end_token_may_be_pooled(void **state)
{
    (void)state;
    cJSON_Delete(post(EM, "{" M "\"input\":\"abc\",\"tutti\":{\"pooling\":\"eos\"}}"));
    assert_int_equal(tt_fake_engine.columns, 4);
    cJSON_Delete(post(EM, "{" M "\"input\":[97,98],\"tutti\":{\"pooling\":\"last\"}}"));
    assert_int_equal(tt_fake_engine.columns, 2);
}

/* The third word of the fake model is its end token, so two of four count. */
static void several_vectors_end_at_a_special_token(void **state)
{
    (void)state;
    cJSON *t = post(EM, "{" M "\"input\":\"The Cat, the cat!\",\"tutti\":{\"k\":4,"
                        "\"outputs\":[\"dense\",\"sparse\"],\"sparse_top\":2}}");
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.tutti.dense")), 2);
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.tutti.words")), 2);
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.embedding")), 4);
    /* of the bytes c, a, t the two heaviest; a stop word and signs give none */
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.tutti.sparse.1.ids")), 2);
    near(t, "data.0.tutti.sparse.1.ids.0", 't');
    near(t, "data.0.tutti.sparse.1.ids.1", 'c');
    near(t, "data.0.tutti.sparse.1.weights.0", floor(100 * log(1 + 't')));
    cJSON_Delete(t);
    t = post(EM, "{" M "\"input\":\"cat\",\"tutti\":{\"k\":1}}");
    assert_null(cJSON_GetObjectItem(at(t, "data.0.tutti"), "sparse"));
    assert_int_equal(cJSON_GetArraySize(at(t, "data.0.tutti.dense")), 1);
    cJSON_Delete(t);
}

/* Only so many jobs of a request are with the engine at once; the rest does not queue anew. */
static void many_texts_go_in_portions(void **state)
{
    (void)state;
    tt_buf b = {0};
    int before = tt_fake_engine.continued;
    tt_buf_puts(&b, "{" M "\"input\":[");
    for (int i = 0; i < 300; i++)
        tt_buf_printf(&b, "%s\"%c%d\"", i ? "," : "", 'a' + i % 26, i);
    tt_buf_puts(&b, "]}");
    cJSON *t = post(EM, tt_buf_text(&b));
    assert_int_equal(cJSON_GetArraySize(at(t, "data")), 300);
    near(t, "data.299.index", 299);
    assert_int_equal(tt_fake_engine.continued - before, 299);
    double length = sqrt(4.0 * 4 + 'n' * 'n' + 1);
    near(t, "data.299.embedding.1", 'n' / length);
    cJSON_Delete(t);
    tt_buf_free(&b);
}

/* --- rerank and score --- */

static void documents_are_ordered_by_likeness(void **state)
{
    (void)state;
    cJSON *t = post("/v1/rerank", "{" M "\"query\":\"aa\",\"documents\":[\"\\u0001aaaaaaaaaa\","
                                  "{\"text\":\"bb\"},\"aa\"],\"top_n\":2}");
    assert_int_equal(cJSON_GetArraySize(at(t, "results")), 2);
    near(t, "results.0.index", 2);
    near(t, "results.0.relevance_score", 1);
    assert_string_equal(text_at(t, "results.0.document.text"), "aa");
    near(t, "results.1.index", 1);
    cJSON_Delete(t);
    t = post("/rerank", "{" M "\"query\":\"aa\",\"documents\":[\"aa\",\"aa\"],"
                        "\"return_documents\":false,\"tutti\":{\"k_query\":2,\"k_passage\":1}}");
    assert_null(cJSON_GetObjectItem(at(t, "results.0"), "document"));
    near(t, "results.0.index", 0); /* equal ones stay in order */
    assert_true(number_at(t, "results.0.relevance_score") > 1); /* a sum over two vectors */
    cJSON_Delete(t);
}

static void pairs_are_scored_in_order(void **state)
{
    (void)state;
    cJSON *t = post("/v1/score", "{" M "\"text_1\":\"aa\",\"text_2\":[\"\\u0001\",\"aa\"]}");
    assert_string_equal(text_at(t, "data.0.object"), "score");
    assert_true(number_at(t, "data.0.score") < 0.9);
    near(t, "data.1.score", 1);
    cJSON_Delete(t);
    t = post("/score", "{" M "\"text_1\":[\"aa\",\"\\u0001\"],\"text_2\":[\"aa\",\"\\u0001\"]}");
    near(t, "data.0.score", 1);
    near(t, "data.1.score", 1);
    cJSON_Delete(t);
}

/* --- holes that are fitted --- */

static void a_choice_is_taken_by_its_likelihood(void **state)
{
    (void)state;
    cJSON *t = post(IN, "{" M "\"segments\":[{\"text\":\"x\"},{\"hole\":{\"id\":\"a\","
                        "\"choices\":[\"long\",\"s\",\"mid\"]}},{\"text\":\"y\"}]}");
    assert_string_equal(text_at(t, "choices.0.text"), "xsy");
    assert_string_equal(text_at(t, "choices.0.holes.a.text"), "s");
    assert_string_equal(text_at(t, "choices.0.finish_reason"), "stop");
    near(t, "choices.0.holes.a.logprob", -0.5);
    near(t, "choices.0.holes.a.tokens", 1);
    near(t, "choices.0.holes.a.choices.0.logprob", -2);
    near(t, "choices.0.holes.a.choices.1.probability",
         exp(-0.5) / (exp(-2) + exp(-0.5) + exp(-1.5)));
    near(t, "usage.prompt_tokens", 2);
    near(t, "usage.completion_tokens", 1);
    near(t, "tutti.nfe", 4 + 1 + 3);
    cJSON_Delete(t);
}

/* All lengths are equally likely here, so the shortest is taken; the other hole is then filled. */
static void a_length_is_tried_for_every_value(void **state)
{
    (void)state;
    cJSON *t = post(IN, "{" M "\"segments\":[{\"text\":\"x\"},{\"hole\":{\"min\":2,\"max\":4}},"
                        "{\"text\":\"yz\"},{\"hole\":{\"max\":3}}]}");
    assert_int_equal(cJSON_GetArraySize(at(t, "choices.0.holes.0.lengths")), 3);
    near(t, "choices.0.holes.0.lengths.1.tokens", 3);
    near(t, "choices.0.holes.0.lengths.1.logprob", -1);
    near(t, "choices.0.holes.0.tokens", 2);
    near(t, "choices.0.holes.1.tokens", 3);
    assert_string_equal(text_at(t, "choices.0.text"), "xabyzcde");
    assert_true(tt_fake_engine.ban_stops);
    near(t, "tutti.nfe", 3 * 2 + 5);
    cJSON_Delete(t);
}

static void the_last_hole_ends_itself(void **state)
{
    (void)state;
    tt_fake_engine.script = "ab\x01zzzzzzz";
    cJSON *t = post(IN, "{" M "\"segments\":[{\"text\":\"x\"},{\"hole\":{\"min\":1,\"max\":9}}]}");
    assert_string_equal(text_at(t, "choices.0.text"), "xab");
    assert_string_equal(text_at(t, "choices.0.finish_reason"), "stop");
    assert_true(tt_fake_engine.stop_early);
    assert_true(tt_fake_engine.shrink);
    assert_false(tt_fake_engine.ban_stops);
    assert_int_equal(tt_fake_engine.rules, 1); /* not before min */
    assert_null(cJSON_GetObjectItem(at(t, "choices.0.holes.0"), "lengths"));
    cJSON_Delete(t);
}

static void a_gap_may_be_fitted(void **state)
{
    (void)state;
    cJSON *t = post("/v1/completions", "{" M "\"prompt\":\"x\",\"suffix\":\"yz\",\"echo\":true,"
                                       "\"min_tokens\":3,\"max_tokens\":5}");
    assert_string_equal(text_at(t, "choices.0.text"), "xabc");
    near(t, "usage.prompt_tokens", 3);
    cJSON_Delete(t);
}

static void a_fitted_text_streams(void **state)
{
    (void)state;
    stream s = follow(IN, "{" M "\"stream\":true,\"segments\":[{\"text\":\"x\"},{\"hole\":"
                          "{\"min\":2,\"max\":4}},{\"text\":\"yz\"},{\"hole\":{\"choices\":"
                          "[\"no\",\"y\"]}}],\"tutti\":{\"stream_mode\":\"delta\"}}", 1);
    assert_true(s.done);
    near(s.frame[0], "tutti.canvas", 2);
    near(s.frame[0], "tutti.holes.0.tokens", 2);
    assert_string_equal(text_at(s.frame[0], "tutti.holes.1.text"), "y");
    assert_string_equal(text_at(s.frame[s.frames - 1], "tutti.text"), "xabyzy");
    stream_free(&s);
}

static void the_wording_may_be_the_callers(void **state)
{
    (void)state;
    const char *plain = "{" M "\"input\":\"cat\",\"tutti\":{\"k\":2}}";
    cJSON_Delete(post(EM, plain));
    int32_t usual = tt_fake_engine.columns;
    cJSON_Delete(post(EM, "{" M "\"input\":\"cat\",\"tutti\":{\"k\":2,\"wording\":{\"query\":"
                          "\"Query: \\\"{text}\\\". Use a few words to represent the query in a "
                          "retrieval task. Make sure your words are in lowercase.\"}}}"));
    assert_int_equal(tt_fake_engine.columns, usual); /* its own words, told */
    cJSON_Delete(post(EM, "{" M "\"input\":\"{k}{text}\",\"tutti\":{\"k\":12,\"wording\":{"
                          "\"system\":\"S\",\"query\":\"{k}:{text}\",\"start\":\"A\"}}}"));
    int32_t shortest = tt_fake_engine.columns;
    cJSON_Delete(post(EM, "{" M "\"input\":\"{k}{text}\",\"tutti\":{\"k\":12,\"wording\":{"
                          "\"system\":\"S\",\"query\":\"12:{text}!\",\"start\":\"A\"}}}"));
    assert_int_equal(tt_fake_engine.columns, shortest + 1); /* {k} is two bytes; texts are kept */
}

/* --- steering reaches the engine --- */

static void holes_have_predictions(void **state)
{
    (void)state;
    cJSON *t = post(IN, "{" M "\"segments\":[{\"hole\":{\"max\":2,\"prediction\":\"aX\"}},"
                        "{\"text\":\"-\"},{\"hole\":{\"max\":3}},{\"text\":\"-\"},"
                        "{\"hole\":{\"max\":2,\"prediction\":\"abc\"}}]}");
    near(t, "usage.completion_tokens_details.accepted_prediction_tokens", 1);
    near(t, "usage.completion_tokens_details.rejected_prediction_tokens", 4);
    cJSON_Delete(t);
}

static void predictions_are_counted(void **state)
{
    (void)state;
    cJSON *t = post("/v1/chat/completions",
                    "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":5,"
                    "\"prediction\":{\"type\":\"content\",\"content\":[{\"type\":\"text\","
                    "\"text\":\"abXdefgh\"}]}}");
    near(t, "usage.completion_tokens_details.accepted_prediction_tokens", 4);
    near(t, "usage.completion_tokens_details.rejected_prediction_tokens", 4);
    cJSON_Delete(t);
}

static void a_canvas_has_room_for_its_prediction(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_buf_puts(&b, "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"prediction\":"
                    "{\"type\":\"content\",\"content\":\"");
    for (int i = 0; i < 100; i++)
        tt_buf_putc(&b, 'q');
    tt_buf_puts(&b, "\"}}");
    cJSON *t = post("/v1/chat/completions", tt_buf_text(&b));
    assert_true(number_at(t, "usage.completion_tokens") >= 100);
    cJSON_Delete(t);
    tt_buf_free(&b);
}

static void positions_become_rules(void **state)
{
    (void)state;
    cJSON *t = post("/v1/completions",
                    "{" M "\"prompt\":\"x\",\"max_tokens\":4,\"min_tokens\":2,\"tutti\":{"
                    "\"force\":{\"1\":\"Z\"},\"ban\":{\"0\":[\"q\",113,5]},\"allow\":{\"3\":7}}}");
    assert_string_equal(text_at(t, "choices.0.text"), "aZbc");
    assert_int_equal(tt_fake_engine.rules, 3);
    cJSON_Delete(t);
}

static void a_negative_prompt_reaches_the_engine(void **state)
{
    (void)state;
    cJSON_Delete(post("/v1/completions", "{" M "\"prompt\":\"x\",\"negative_prompt\":\"abc\","
                                         "\"max_tokens\":1,\"guidance_scale\":1}"));
    assert_int_equal(tt_fake_engine.negatives, 3);
    cJSON_Delete(post("/v1/completions", "{" M "\"prompt\":\"x\",\"negative_prompt\":\"\","
                                         "\"max_tokens\":1}"));
    assert_int_equal(tt_fake_engine.negatives, 0);
}

static void a_trace_streams_without_gaps(void **state)
{
    (void)state;
    tt_fake_engine.backwards = true;
    stream s = follow("/v1/completions",
                      "{" M "\"prompt\":\"x\",\"max_tokens\":9,\"stream\":true,\"tutti\":{"
                      "\"trace\":true,\"stream_mode\":\"delta\"}}", 40);
    int next = 8, step = 1;
    for (int i = 0; i < s.frames; i++) {
        const cJSON *m, *events = cJSON_GetObjectItem(cJSON_GetObjectItem(s.frame[i], "tutti"),
                                                      "events");
        cJSON_ArrayForEach(m, events)
        {
            near(m, "pos", next--);
            near(m, "step", step++);
        }
    }
    assert_int_equal(next, -1);
    near(s.frame[s.frames - 1], "tutti.trace.8.step", 9);
    stream_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_text_is_scored_by_token, fresh),
        cmocka_unit_test_setup(samples_default_to_128, fresh),
        cmocka_unit_test_setup(one_sample_tells_no_error, fresh),
        cmocka_unit_test_setup(choices_get_shares, fresh),
        cmocka_unit_test_setup(ids_and_suffixes_are_taken_as_they_are, fresh),
        cmocka_unit_test_setup(vectors_have_length_one, fresh),
        cmocka_unit_test_setup(base64_is_little_endian_float32, fresh),
        cmocka_unit_test_setup(an_end_token_may_be_pooled, fresh),
        cmocka_unit_test_setup(several_vectors_end_at_a_special_token, fresh),
        cmocka_unit_test_setup(many_texts_go_in_portions, fresh),
        cmocka_unit_test_setup(documents_are_ordered_by_likeness, fresh),
        cmocka_unit_test_setup(pairs_are_scored_in_order, fresh),
        cmocka_unit_test_setup(a_choice_is_taken_by_its_likelihood, fresh),
        cmocka_unit_test_setup(a_length_is_tried_for_every_value, fresh),
        cmocka_unit_test_setup(the_last_hole_ends_itself, fresh),
        cmocka_unit_test_setup(a_gap_may_be_fitted, fresh),
        cmocka_unit_test_setup(a_fitted_text_streams, fresh),
        cmocka_unit_test_setup(predictions_are_counted, fresh),
        cmocka_unit_test_setup(holes_have_predictions, fresh),
        cmocka_unit_test_setup(the_wording_may_be_the_callers, fresh),
        cmocka_unit_test_setup(a_canvas_has_room_for_its_prediction, fresh),
        cmocka_unit_test_setup(positions_become_rules, fresh),
        cmocka_unit_test_setup(a_negative_prompt_reaches_the_engine, fresh),
        cmocka_unit_test_setup(a_trace_streams_without_gaps, fresh),
    };
    return cmocka_run_group_tests_name("api_read", tests, open_api, close_api);
}
