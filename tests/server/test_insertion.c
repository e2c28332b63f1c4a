/* An insertion model behind the API. What can go wrong: insertions that do not add up to the text,
 * committed text that moves afterwards, holes beyond their lengths, an answer that depends on its
 * company, a demand that cannot be met, a request that only makes sense where tokens stay. */
#include "tests/server/api_ask.h"

#include <unistd.h>

#define GOLDEN "tests/golden/insertion-lm/model_stopping"
#define CO "/v1/completions"
#define IN "/v1/infill"
#define M "\"model\":\"ilm\","

static char folder[2][64];

/* The golden model, whose tokens are numbers; the second one without its classifier. */
static void make_folder(int i)
{
    char path[160], target[300], here[200], text[2048];
    snprintf(folder[i], sizeof folder[i], "/tmp/tutti-insertion-XXXXXX");
    assert_non_null(mkdtemp(folder[i]));
    assert_non_null(getcwd(here, sizeof here));
    for (int k = 0; k < 2; k++) {
        const char *file = k ? "tokenizer.json" : "model.safetensors";
        snprintf(path, sizeof path, "%s/%s", folder[i], file);
        snprintf(target, sizeof target, "%s/%s/%s", here, GOLDEN, file);
        assert_int_equal(symlink(target, path), 0);
    }
    FILE *f = fopen(GOLDEN "/config.json", "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    if (i) {
        char *head = strstr(text, "\"head\": \"stopping\"");
        memcpy(head, "\"head\": \"none\"    ", 18);
    }
    snprintf(path, sizeof path, "%s/config.json", folder[i]);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    (void)state;
    tt_err e = {0};
    tt_engine_options o = {.device = "plain"};
    static const char *const id[] = {"ilm", "headless"};
    api = (tt_api){.version = "test", .max_samples = 16};
    if (tt_metrics_open(&api.metrics, true, &e) || tt_engine_open(&api.engine, &o, &e))
        return -1;
    for (int i = 0; i < 2; i++) {
        make_folder(i);
        if (tt_engine_add_model(api.engine, id[i], folder[i], TT_WEIGHTS_F32, NULL, NULL, &e)) {
            print_error("%s\n", e.text);
            return -1;
        }
    }
    api.state = TT_API_READY;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const file[] = {"model.safetensors", "config.json", "tokenizer.json"};
    tt_engine_close(api.engine);
    tt_metrics_close(api.metrics);
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 3; k++) {
            char path[160];
            snprintf(path, sizeof path, "%s/%s", folder[i], file[k]);
            unlink(path);
        }
        rmdir(folder[i]);
    }
    return 0;
}

/* Row uncond_two_step of the released predictor's traces. */
static void a_completion_is_the_references(void **state)
{
    (void)state;
    cJSON *a = post(CO, "{" M "\"prompt\":\"\",\"max_tokens\":12,"
                        "\"tutti\":{\"stopping_threshold\":0.9999}}");
    assert_string_equal(text_at(a, "choices.0.text"), "4 6 8 10 12 14 16 18 4 16 18 18");
    assert_string_equal(text_at(a, "choices.0.finish_reason"), "length");
    assert_true(number_at(a, "usage.completion_tokens") == 12);
    assert_true(number_at(a, "tutti.nfe") == 12);
    cJSON_Delete(a);
}

static void the_classifier_ends_the_text(void **state)
{
    (void)state;
    cJSON *a = post(CO, "{" M "\"prompt\":\"5 0 0 1 8 0 3 0 0 12 0 6 5 12\",\"max_tokens\":20,"
                        "\"tutti\":{\"stopping_threshold\":0.7659}}");
    assert_string_equal(text_at(a, "choices.0.text"), " 0 3 0 0 0 0");
    assert_string_equal(text_at(a, "choices.0.finish_reason"), "stop");
    assert_true(number_at(a, "tutti.nfe") == 7); /* the last one says that it is complete */
    cJSON_Delete(a);
}

/* The words of a list, joined by blanks. */
static void join(char words[64][16], int n, char *out)
{
    *out = '\0';
    for (int i = 0; i < n; i++)
        strcat(out, words[i]);
}

/* Rebuilds every hole from the insertions of a stream. */
static void rebuild(const stream *s, int holes, char text[][256])
{
    static char word[4][64][16];
    int n[4] = {0};
    for (int f = 0; f < s->frames; f++) {
        const cJSON *x, *tutti = cJSON_GetObjectItem(s->frame[f], "tutti");
        cJSON_ArrayForEach(x, cJSON_GetObjectItem(tutti, "events"))
        {
            int k = (int)number_at(x, "hole"), p = (int)number_at(x, "position");
            assert_string_equal(text_at(x, "op"), "insert");
            assert_true(p <= n[k]);
            memmove(word[k][p + 1], word[k][p], (size_t)(n[k]++ - p) * sizeof *word[k]);
            snprintf(word[k][p], sizeof word[k][p], "%s", text_at(x, "text"));
        }
    }
    for (int k = 0; k < holes; k++)
        join(word[k], n[k], text[k]);
}

#define HOLES                                                                               \
    "\"segments\":[{\"text\":\"14 3 0\"},{\"hole\":{\"max\":5}},{\"text\":\" 2 3 11\"},"     \
    "{\"hole\":{\"min\":2,\"max\":4}}]"

static void insertions_add_up_to_the_text(void **state)
{
    (void)state;
    for (int pause = 0; pause < 3; pause++) { /* a slow reader misses none */
        char text[4][256], all[600];
        stream s = follow(IN, "{" M "\"stream\":true,\"seed\":3,\"temperature\":1," HOLES
                              ",\"tutti\":{\"stream_mode\":\"delta\",\"position_temperature\":1}}",
                          pause * 3);
        const cJSON *last = s.frame[s.frames - 1];
        rebuild(&s, 2, text);
        assert_true(s.done);
        snprintf(all, sizeof all, "14 3 0%s 2 3 11%s", text[0], text[1]);
        assert_string_equal(text_at(last, "tutti.text"), all);
        assert_true(cJSON_IsTrue(at(s.frame[0], "tutti.grows")));
        stream_free(&s);
    }
}

/* Plain clients get text from left to right that never changes. */
static void committed_text_is_the_answers(void **state)
{
    (void)state;
    stream s = follow(IN, "{" M "\"stream\":true,\"seed\":3,\"temperature\":1," HOLES
                          ",\"tutti\":{\"position_temperature\":1}}", 0);
    cJSON *a = post(IN, "{" M "\"seed\":3,\"temperature\":1," HOLES
                        ",\"tutti\":{\"position_temperature\":1}}");
    char text[600] = "";
    for (int i = 0; i < s.frames; i++)
        strcat(text, text_at(s.frame[i], "choices.0.text"));
    assert_string_equal(text, text_at(a, "choices.0.text"));
    assert_string_equal(text_at(s.frame[0], "choices.0.text"), "14 3 0");
    cJSON_Delete(a);
    stream_free(&s);
}

static void snapshots_show_no_room(void **state)
{
    (void)state;
    stream s = follow(CO, "{" M "\"prompt\":\"1 2\",\"max_tokens\":9,\"stream\":true,"
                          "\"diffusing\":true}", 0);
    for (int i = 0; i < s.frames - 1; i++)
        assert_null(strstr(text_at(s.frame[i], "choices.0.text"), "\xE2\x96\x91"));
    stream_free(&s);
}

static void holes_keep_their_lengths(void **state)
{
    (void)state;
    static const struct {
        const char *hole;
        int least, most;
    } c[] = {{"\"max\":4", 0, 4},
             {"\"min\":3,\"max\":5", 3, 5},
             {"\"tokens\":6", 6, 6},
             {"\"min\":0,\"max\":2", 0, 2},
             {"\"min\":1,\"max\":1", 1, 1}};
    bool varied = false;
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        for (int seed = 0, first = -1; seed < 12; seed++) {
            char body[400];
            snprintf(body, sizeof body,
                     "{" M "\"seed\":%d,\"temperature\":1,\"segments\":[{\"hole\":{%s}},{\"text\":"
                     "\"2 3 11\"},{\"hole\":{\"max\":3}},{\"text\":\"4 5\"}],\"tutti\":{"
                     "\"position_temperature\":1,\"selection\":\"two_step\","
                     "\"stopping_threshold\":0.8}}", seed, c[i].hole);
            cJSON *a = post(IN, body);
            int n = (int)number_at(a, "choices.0.holes.0.tokens");
            if (n < c[i].least || n > c[i].most)
                fail_msg("hole {%s}: %d tokens", c[i].hole, n);
            assert_true(number_at(a, "choices.0.holes.1.tokens") <= 3);
            varied |= first >= 0 && n != first;
            first = n;
            cJSON_Delete(a);
        }
    assert_true(varied);
}

static void least_tokens_are_met(void **state)
{
    (void)state;
    cJSON *a = post(CO, "{" M "\"prompt\":\"1\",\"suffix\":\"5 6\",\"max_tokens\":8,"
                        "\"min_tokens\":5,\"tutti\":{\"stopping_threshold\":0}}");
    assert_true(number_at(a, "usage.completion_tokens") == 5);
    cJSON_Delete(a);
    a = post(CO, "{" M "\"prompt\":\"1\",\"suffix\":\"5 6\",\"max_tokens\":8,"
                 "\"tutti\":{\"stopping_threshold\":0}}");
    assert_true(number_at(a, "usage.completion_tokens") == 0);
    assert_string_equal(text_at(a, "choices.0.finish_reason"), "stop");
    cJSON_Delete(a);
    a = post(CO, "{" M "\"prompt\":\"1\",\"max_tokens\":8,"
                 "\"tutti\":{\"stopping_threshold\":0,\"force_predict_first_step\":true}}");
    assert_true(number_at(a, "usage.completion_tokens") == 1);
    cJSON_Delete(a);
}

/* The same request alone and beside fifteen others of other lengths. */
static void company_changes_nothing(void **state)
{
    (void)state;
    static const char *const how[] = {
        "\"position_temperature\":1",
        "\"selection\":\"joint\"",
        "\"selection\":\"joint\",\"top_k\":7",
        "\"position_temperature\":1,\"position_top_p\":0.8,\"top_k\":25",
    };
    for (size_t i = 0; i < sizeof how / sizeof *how; i++)
        for (int p = 0; p < 2; p++) {
            char body[400];
            snprintf(body, sizeof body, "{" M "\"prompt\":\"3 1\",\"max_tokens\":14,\"seed\":9,"
                     "\"temperature\":1,\"top_p\":%s,\"n\":%%d,\"tutti\":{%s}}", p ? "0.8" : "1",
                     how[i]);
            char alone[500], many[500];
            snprintf(alone, sizeof alone, body, 1);
            snprintf(many, sizeof many, body, 16);
            cJSON *a = post(CO, alone), *b = post(CO, many);
            assert_string_equal(text_at(a, "choices.0.text"), text_at(b, "choices.0.text"));
            int same = 0;
            for (int k = 1; k < 16; k++) {
                char path[32];
                snprintf(path, sizeof path, "choices.%d.text", k);
                same += !strcmp(text_at(b, path), text_at(a, "choices.0.text"));
            }
            assert_true(same < 15);
            cJSON_Delete(a);
            cJSON_Delete(b);
        }
}

static void a_trace_tells_every_insertion(void **state)
{
    (void)state;
    cJSON *a = post(CO, "{" M "\"prompt\":\"\",\"max_tokens\":5,\"tutti\":{\"trace\":true}}");
    const cJSON *trace = at(a, "choices.0.tutti.trace");
    assert_int_equal(cJSON_GetArraySize(trace), 5);
    assert_string_equal(text_at(trace, "0.op"), "insert");
    assert_true(number_at(trace, "0.id") == 16 && number_at(trace, "0.position") == 0);
    assert_true(number_at(trace, "4.step") == 5 && number_at(trace, "4.logprob") < 0);
    cJSON_Delete(a);
}

static void what_cannot_be_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *path, *body, *param, *code;
    } c[] = {
        {IN, "{" M "\"segments\":[{\"text\":\"1\"},{\"hole\":{\"min\":3,\"max\":5}}],"
             "\"tutti\":{\"max_steps\":2}}", "tutti.max_steps", "constraint_unsatisfiable"},
        {IN, "{" M "\"segments\":[{\"text\":\"1\"},{\"hole\":{\"min\":3,\"max\":5}}],"
             "\"tutti\":{\"oracle_length\":5}}", "tutti.oracle_length",
         "constraint_unsatisfiable"},
        {IN, "{" M "\"segments\":[{\"hole\":{\"min\":6,\"max\":5}}]}", "segments[0].hole.min",
         "invalid_value"},
        {IN, "{" M "\"segments\":[{\"hole\":{\"max\":5,\"ban\":{\"0\":[3]}}}]}",
         "segments[0].hole.ban", "unsupported_parameter"},
        {IN, "{" M "\"segments\":[{\"hole\":{\"choices\":[\"1\",\"2\"]}}]}",
         "segments[0].hole.choices", "unsupported_parameter"},
        {IN, "{" M "\"segments\":[{\"text\":\"1\"},{\"hole\":{\"max\":39}}]}",
         "segments[1].hole.max", "context_length_exceeded"},
        {CO, "{" M "\"prompt\":\"1\",\"max_tokens\":38}", "max_tokens",
         "context_length_exceeded"},
        {CO, "{" M "\"prompt\":\"1\",\"tutti\":{\"force\":{\"0\":3}}}", "tutti.force",
         "unsupported_parameter"},
        {CO, "{" M "\"prompt\":\"1\",\"prediction\":{\"type\":\"content\",\"content\":\"2\"}}",
         "prediction", "unsupported_parameter"},
        {CO, "{" M "\"prompt\":\"1\",\"tutti\":{\"sampler\":\"threshold\"}}", "tutti.sampler",
         "unsupported_value"},
        {CO, "{" M "\"prompt\":\"1\",\"tutti\":{\"steps\":4}}", "tutti.steps",
         "unsupported_parameter"},
        {CO, "{" M "\"prompt\":\"1\",\"tutti\":{\"selection\":\"both\"}}", "tutti.selection",
         "invalid_value"},
        {CO, "{" M "\"prompt\":\"1\",\"tutti\":{\"selection\":\"joint\",\"position_top_k\":2}}",
         "tutti.position_top_k", "unsupported_parameter"},
        {CO, "{" M "\"prompt\":\"1\",\"tutti\":{\"selection\":\"joint\",\"top_k\":21}}",
         "tutti.top_k", "invalid_value"},
        {CO, "{\"model\":\"headless\",\"prompt\":\"1\",\"tutti\":{\"stopping_threshold\":0.5}}",
         "tutti.stopping_threshold", "unsupported_parameter"},
        {"/v1/likelihood", "{" M "\"text\":\"1 2\"}", "method", "unsupported_value"},
        {"/v1/embeddings", "{" M "\"input\":\"1 2\"}", "model", "unsupported_value"},
        {"/v1/chat/completions", "{" M "\"messages\":[{\"role\":\"user\",\"content\":\"1\"}]}",
         "model", "unsupported_value"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        int status;
        cJSON *a = ask("POST", c[i].path, c[i].body, &status);
        if (status != 400 || strcmp(text_at(a, "error.param"), c[i].param) ||
            strcmp(text_at(a, "error.code"), c[i].code)) {
            char *text = cJSON_PrintUnformatted(a);
            fail_msg("%s: %d %s", c[i].body, status, text);
        }
        cJSON_Delete(a);
    }
}

static void without_a_classifier_the_room_is_filled(void **state)
{
    (void)state;
    cJSON *a = post(CO, "{\"model\":\"headless\",\"prompt\":\"\",\"max_tokens\":9}");
    assert_string_equal(text_at(a, "choices.0.text"), "4 6 8 10 12 14 16 18 4");
    assert_string_equal(text_at(a, "choices.0.finish_reason"), "length");
    cJSON_Delete(a);
}

static void the_listing_says_what_it_can(void **state)
{
    (void)state;
    cJSON *a = ask("GET", "/v1/models/ilm", "", NULL);
    assert_string_equal(text_at(a, "tutti.family"), "insertion");
    assert_string_equal(text_at(a, "tutti.default_sampler"), "insertion");
    assert_int_equal(cJSON_GetArraySize(at(a, "tutti.samplers")), 1);
    const cJSON *can = at(a, "tutti.capabilities");
    assert_int_equal(cJSON_GetArraySize(can), 2);
    assert_string_equal(text_at(can, "0"), "completion");
    assert_string_equal(text_at(can, "1"), "infill");
    cJSON_Delete(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completion_is_the_references),
        cmocka_unit_test(the_classifier_ends_the_text),
        cmocka_unit_test(insertions_add_up_to_the_text),
        cmocka_unit_test(committed_text_is_the_answers),
        cmocka_unit_test(snapshots_show_no_room),
        cmocka_unit_test(holes_keep_their_lengths),
        cmocka_unit_test(least_tokens_are_met),
        cmocka_unit_test(company_changes_nothing),
        cmocka_unit_test(a_trace_tells_every_insertion),
        cmocka_unit_test(what_cannot_be_is_refused_by_name),
        cmocka_unit_test(without_a_classifier_the_room_is_filled),
        cmocka_unit_test(the_listing_says_what_it_can),
    };
    return cmocka_run_group_tests_name("insertion", tests, setup, teardown);
}
