/* What can go wrong with searches over images: results that depend on the company, that are not
 * those of the best scores, a budget that is passed, candidates that stay behind when a request
 * ends early, siblings that are the same, a tree whose branches hang in the air, fields that are
 * ignored.
 */
#include "tests/server/search_help.h"

#define SEARCH(model, prompt, n, more)                                                       \
    "{\"model\":\"" model "\",\"prompt\":\"" prompt "\",\"seed\":7,\"n\":" #n ",\"tutti\":{" \
    "\"return_tokens\":true,\"search\":{" more "}}}"

static double number(const cJSON *t, const char *path)
{
    return at(t, path)->valuedouble;
}

static char *text_of(const cJSON *t, const char *path)
{
    return cJSON_PrintUnformatted(at(t, path));
}

/* --- what comes out --- */

static void best_of_n_is_the_best_of_the_n_images(void **state)
{
    (void)state;
    enum { N = 6 };
    cJSON *plain = ask("/v1/images/generations",
                       "{\"model\":\"pic\",\"prompt\":\"tree\",\"seed\":7,\"n\":6,\"tutti\":{"
                       "\"return_tokens\":true}}");
    cJSON *t = ask("/v1/images/generations",
                   SEARCH("pic", "tree", 6, "\"verifier\":\"clip\",\"samples\":6"));
    bool seen[N] = {false};
    for (int i = 0; i < N; i++) {
        char path[64], other[64];
        snprintf(path, sizeof path, "data.%d.tutti.candidate", i);
        int k = (int)number(t, path);
        assert_in_range(k, 0, N - 1);
        assert_false(seen[k]);
        seen[k] = true;
        snprintf(path, sizeof path, "data.%d.b64_json", i);
        snprintf(other, sizeof other, "data.%d.tutti.tokens", i);
        char *mine = text_of(t, other), from[64];
        snprintf(from, sizeof from, "data.%d.tutti.tokens", k);
        char *theirs = text_of(plain, from);
        assert_string_equal(mine, theirs);
        free(mine);
        free(theirs);
        tt_picture a = picture_at(t, path);
        snprintf(from, sizeof from, "data.%d.b64_json", k);
        tt_picture b = picture_at(plain, from);
        assert_memory_equal(a.rgba, b.rgba, (size_t)SIDE * SIDE * 4);
        tt_picture_free(&a);
        tt_picture_free(&b);
        snprintf(path, sizeof path, "data.%d.tutti.score", i);
        snprintf(other, sizeof other, "data.%d.tutti.score", i ? i - 1 : 0);
        assert_true(number(t, path) <= number(t, other));
    }
    assert_true(number(t, "data.0.tutti.score") > number(t, "data.5.tutti.score"));
    assert_int_equal(number(t, "tutti.search.forwards"), 6 * 6);
    assert_int_equal(number(t, "tutti.nfe"), 36);
    assert_int_equal(number(t, "tutti.search.pictures_scored"), 6);
    assert_int_equal(number(t, "usage.output_tokens"), N * TOKENS);
    cJSON_Delete(plain);
    cJSON_Delete(t);
}

static const char *const searches[] = {
    SEARCH("pic", "tree", 2, "\"verifier\":\"clip\",\"samples\":5"),
    SEARCH("pic", "tree", 2,
           "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":2,\"candidates\":3"),
    SEARCH("levels", "1", 2,
           "\"verifier\":[\"clip\",{\"name\":\"likelihood\",\"weight\":0.5}],"
           "\"algorithm\":\"beam\",\"beam_width\":3,\"candidates\":4"),
    SEARCH("levels", "2", 1,
           "\"verifier\":\"clip\",\"algorithm\":\"lookahead\",\"lookahead\":1,\"beam_width\":2,"
           "\"candidates\":3,\"schedule\":{\"kind\":\"linear\",\"per_step\":4}"),
    SEARCH("levels", "2", 2,
           "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"prior\":\"uniform\",\"beam_width\":2,"
           "\"candidates\":6,\"schedule\":[4,8],\"complete\":true"),
    SEARCH("next", "3", 3,
           "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":2,\"candidates\":4,"
           "\"fill_first\":true"),
    SEARCH("next", "3", 1,
           "\"verifier\":\"likelihood\",\"algorithm\":\"beam\",\"sample\":false,"
           "\"beam_width\":3,\"candidates\":3,\"mode\":\"weighted\",\"schedule\":\"fixed\""),
    SEARCH("raster", "3", 1,
           "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":2,\"candidates\":2,"
           "\"schedule\":[32,64]"),
};
enum { SEARCHES = sizeof searches / sizeof *searches };

static tt_work *begin(const char *body)
{
    tt_reply r = {0};
    tt_work *w = NULL;
    if (start_work(&w, "/v1/images/generations", NULL, body, strlen(body), &r))
        fail_msg("%.300s: %s", body, tt_buf_text(&r.body));
    return w;
}

static cJSON *end(tt_work *w)
{
    tt_reply r = {0};
    cJSON *t = NULL;
    while (!tt_work_poll(w))
        nap_ms(1);
    tt_work_answer(w, &r);
    tt_work_free(w);
    if (r.status != 200)
        fail_msg("%d %.300s", r.status, tt_buf_text(&r.body));
    assert_int_equal(tt_json_parse(&t, tt_buf_text(&r.body), r.body.size, NULL), TT_OK);
    tt_buf_free(&r.body);
    return t;
}

static void a_search_gives_the_same_bytes_in_any_company(void **state)
{
    (void)state;
    char *alone[SEARCHES];
    tt_work *w[SEARCHES];
    for (int i = 0; i < SEARCHES; i++) {
        cJSON *t = end(begin(searches[i]));
        alone[i] = text_of(t, "data");
        cJSON_Delete(t);
    }
    for (int i = 0; i < SEARCHES; i++)
        w[i] = begin(searches[SEARCHES - 1 - i]);
    for (int i = 0; i < SEARCHES; i++) {
        cJSON *t = end(w[i]);
        char *mixed = text_of(t, "data");
        assert_string_equal(mixed, alone[SEARCHES - 1 - i]);
        free(mixed);
        cJSON_Delete(t);
    }
    for (int i = 0; i < SEARCHES; i++)
        free(alone[i]);
    assert_int_equal(tt_picture_search_alive(), 0);
}

static void who_has_no_say_judges_the_results_alone(void **state)
{
    (void)state;
    cJSON *t = ask("/v1/images/generations",
                   SEARCH("levels", "1", 2, "\"verifier\":\"clip\",\"samples\":9"));
    cJSON *u = ask("/v1/images/generations",
                   SEARCH("levels", "1", 2,
                          "\"verifier\":[{\"name\":\"clip\",\"weight\":0},\"likelihood\"],"
                          "\"samples\":9"));
    cJSON *v = ask("/v1/images/generations",
                   SEARCH("levels", "1", 2,
                          "\"verifier\":[{\"name\":\"likelihood\",\"weight\":0},\"clip\"],"
                          "\"samples\":9"));
    assert_int_equal(number(u, "tutti.search.pictures_scored"), 2);
    assert_int_equal(number(v, "tutti.search.pictures_scored"), 9);
    assert_true(number(t, "data.0.tutti.score") == number(v, "data.0.tutti.score"));
    assert_true(number(t, "data.0.tutti.score") >= number(u, "data.0.tutti.scores.clip"));
    assert_true(number(u, "data.0.tutti.scores.likelihood") >=
                number(v, "data.0.tutti.scores.likelihood"));
    assert_true(number(u, "data.0.tutti.scores.clip") != 0);
    cJSON_Delete(t);
    cJSON_Delete(u);
    cJSON_Delete(v);
}

/* With a schedule of one step, rounded up to 4 tokens, all candidates come back: all but the last
 * token is common, and the last ones are distinct. */
static void siblings_of_single_tokens_differ_in_the_last(void **state)
{
    (void)state;
    enum { N = 12 };
    cJSON *t = ask("/v1/images/generations",
                   SEARCH("next", "3", 12,
                          "\"verifier\":\"likelihood\",\"algorithm\":\"beam\",\"beam_width\":1,"
                          "\"candidates\":12,\"schedule\":[3]"));
    bool seen[ORDERED_CODES] = {false};
    for (int i = 0; i < N; i++)
        for (int k = 0; k < ORDERED; k++) {
            char path[64], first[64];
            snprintf(path, sizeof path, "data.%d.tutti.tokens.%d", i, k);
            snprintf(first, sizeof first, "data.0.tutti.tokens.%d", k);
            int token = (int)number(t, path);
            if (k < FIRST_LEVEL - 1) {
                assert_int_equal(token, (int)number(t, first));
            } else if (k == FIRST_LEVEL - 1) {
                assert_in_range(token, 0, ORDERED_CODES - 1);
                assert_false(seen[token]);
                seen[token] = true;
            } else {
                assert_int_equal(token, -1);
            }
        }
    assert_int_equal(number(t, "tutti.search.forwards"), FIRST_LEVEL - 1 + N);
    cJSON_Delete(t);
}

/* Two of them share some tokens by chance, but not most: they part at the first step. */
static void siblings_of_masked_images_differ_throughout(void **state)
{
    (void)state;
    cJSON *t = ask("/v1/images/generations",
                   SEARCH("pic", "tree", 3,
                          "\"verifier\":\"likelihood\",\"algorithm\":\"beam\",\"beam_width\":1,"
                          "\"candidates\":3,\"schedule\":[6]"));
    int32_t token[3][TOKENS];
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "data.%d.tutti.tokens", i);
        tokens_at(t, path, token[i]);
    }
    for (int i = 0; i < 3; i++) {
        int same = 0;
        for (int k = 0; k < TOKENS; k++)
            same += token[i][k] == token[(i + 1) % 3][k];
        assert_true(same < TOKENS / 2);
    }
    assert_int_equal(number(t, "tutti.search.forwards"), 3 * 6);
    cJSON_Delete(t);
}

/* Pictures of a raster need all tokens: what is scored is the completion, what goes on is not. */
static void a_beam_over_a_raster_looks_to_the_end(void **state)
{
    (void)state;
    cJSON *t = ask("/v1/images/generations",
                   SEARCH("raster", "3", 2,
                          "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":2,"
                          "\"candidates\":2,\"schedule\":[32,64]"));
    int32_t token[TOKENS];
    tokens_at(t, "data.0.tutti.tokens", token);
    for (int k = 0; k < TOKENS; k++)
        assert_in_range(token[k], 0, CODES - 1);
    /* 31 in common, 2 ways, each to the end; then of 2 beams */
    assert_int_equal(number(t, "tutti.search.forwards"), 31 + 2 + 2 * 32 + 2 * 31 + 4);
    assert_int_equal(number(t, "tutti.search.pictures_decoded"), 2 + 4);
    cJSON_Delete(t);
}

/* --- budgets --- */

static void a_budget_is_never_passed(void **state)
{
    (void)state;
    int ended = 0;
    for (int forwards = 4; forwards < 40; forwards += 5) {
        char body[512];
        int status;
        snprintf(body, sizeof body,
                 "{\"model\":\"levels\",\"prompt\":\"1\",\"seed\":7,\"tutti\":{\"search\":{"
                 "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":2,\"candidates\":4,"
                 "\"budget\":{\"forwards\":%d}}}}",
                 forwards);
        cJSON *t = ask_as("/v1/images/generations", NULL, body, strlen(body), &status);
        assert_int_equal(status, 200);
        assert_true(number(t, "tutti.search.forwards") <= forwards);
        bool budget = !strcmp(at(t, "tutti.search.finish")->valuestring, "budget");
        ended += budget;
        assert_int_equal(budget, number(t, "tutti.search.steps") < 5);
        cJSON_Delete(t);
    }
    assert_int_equal(ended, 7); /* the whole search takes 4 + 8 + 10 + 8 + 8 */
    cJSON *t = ask("/v1/images/generations",
                   SEARCH("pic", "tree", 1,
                          "\"verifier\":\"clip\",\"samples\":7,\"budget\":{\"forwards\":20}"));
    assert_int_equal(number(t, "tutti.search.candidates"), 3); /* of 6 steps each */
    assert_string_equal(at(t, "tutti.search.finish")->valuestring, "budget");
    cJSON_Delete(t);
    t = ask("/v1/images/generations",
            SEARCH("levels", "1", 1,
                   "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"candidates\":40,"
                   "\"budget\":{\"ms\":1}"));
    assert_string_equal(at(t, "tutti.search.finish")->valuestring, "budget");
    assert_int_equal(number(t, "tutti.search.steps"), 1);
    cJSON_Delete(t);
    t = ask(
        "/v1/images/generations",
        SEARCH("next", "1", 2, "\"verifier\":\"clip\",\"samples\":1000,\"budget\":{\"ms\":30}"));
    assert_string_equal(at(t, "tutti.search.finish")->valuestring, "budget");
    assert_in_range((int)number(t, "tutti.search.candidates"), 2, 999);
    assert_int_equal(number(t, "tutti.search.candidates"),
                     number(t, "tutti.search.pictures_scored"));
    cJSON_Delete(t);
}

/* --- early ends --- */

static void wait_for_candidates(void)
{
    for (int i = 0; i < 5000 && !tt_picture_search_alive(); i++)
        nap_ms(1);
    assert_true(tt_picture_search_alive() > 0);
}

static void wait_for_none(void)
{
    tt_engine_stats s;
    for (int i = 0; i < 5000; i++) {
        tt_engine_get_stats(api.engine, &s);
        if (!tt_picture_search_alive() && !s.bytes_used)
            break;
        nap_ms(1);
    }
    assert_int_equal(tt_picture_search_alive(), 0);
    assert_int_equal(s.bytes_used, 0);
    assert_int_equal(s.running, 0);
}

static const char long_search[] =
    SEARCH("next", "3", 1,
           "\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":20,\"candidates\":40,"
           "\"schedule\":\"fixed\"");

static void a_lost_client_frees_every_candidate(void **state)
{
    (void)state;
    tt_work *w = begin(long_search);
    wait_for_candidates();
    tt_work_cancel(w);
    wait_for_none();
    tt_work_free(w);
}

static void a_deadline_fails_its_own_request_alone(void **state)
{
    (void)state;
    static const char body[] =
        "{\"model\":\"next\",\"prompt\":\"3\",\"seed\":7,\"tutti\":{\"deadline_ms\":60,"
        "\"search\":{\"verifier\":\"clip\",\"algorithm\":\"beam\",\"beam_width\":20,"
        "\"candidates\":40,\"schedule\":\"fixed\"}}}";
    int status;
    tt_work *other = begin(searches[0]);
    cJSON *t = ask_as("/v1/images/generations", NULL, body, strlen(body), &status);
    assert_int_not_equal(status, 200);
    assert_string_equal(at(t, "error.code")->valuestring, "deadline_exceeded");
    cJSON_Delete(t);
    cJSON_Delete(end(other));
    wait_for_none();
}

/* An image of higher priority is made while a search of hundreds of candidates runs. */
static void a_search_starves_nobody(void **state)
{
    (void)state;
    tt_work *w = begin(long_search);
    wait_for_candidates();
    cJSON *t = ask("/v1/images/generations",
                   "{\"model\":\"next\",\"prompt\":\"1\",\"seed\":1,\"priority\":-1}");
    assert_false(tt_work_poll(w));
    cJSON_Delete(t);
    tt_work_cancel(w);
    tt_work_free(w);
    wait_for_none();
}

/* --- streams --- */

/* The index-th event of this type as JSON; NULL when there are fewer. */
static cJSON *event(const char *text, const char *type, int index)
{
    char head[96];
    snprintf(head, sizeof head, "event: %s\ndata: ", type);
    for (const char *p = text; (p = strstr(p, head)); p += strlen(head))
        if (!index--) {
            const char *data = p + strlen(head);
            cJSON *t = NULL;
            size_t n = strcspn(data, "\n");
            assert_int_equal(tt_json_parse(&t, data, n, NULL), TT_OK);
            return t;
        }
    return NULL;
}

static bool was_kept(const cJSON *step, int index)
{
    const cJSON *c;
    cJSON_ArrayForEach(c, at(step, "candidates"))
    {
        if ((int)number(c, "index") == index)
            return cJSON_IsTrue(at(c, "kept"));
    }
    return false;
}

/* That of image i: images are told in the order in which they are seen to be done. */
static cJSON *completed(const char *stream, int i)
{
    for (int k = 0;; k++) {
        cJSON *t = event(stream, "image_generation.completed", k);
        assert_non_null(t);
        if (number(t, "index") == i)
            return t;
        cJSON_Delete(t);
    }
}

/* The previews of the last step are the three best, which are the results. */
static void assert_best_pictured(const cJSON *stage, const char *stream)
{
    assert_int_equal(cJSON_GetArraySize(at(stage, "others")), 2);
    for (int i = 0; i < 3; i++) {
        char path[40];
        cJSON *done = completed(stream, i);
        snprintf(path, sizeof path, "others.%d.index", i - 1);
        if (i)
            assert_int_equal(number(stage, path), number(done, "candidate"));
        snprintf(path, sizeof path, "others.%d.b64_json", i - 1);
        tt_picture a = picture_at(stage, i ? path : "b64_json"), b = picture_at(done, "b64_json");
        assert_int_equal(a.width, b.width);
        assert_memory_equal(a.rgba, b.rgba, (size_t)a.width * (size_t)a.height * 4);
        tt_picture_free(&a);
        tt_picture_free(&b);
        cJSON_Delete(done);
    }
}

static void a_stream_tells_the_tree(void **state)
{
    (void)state;
    static const char body[] = "{\"model\":\"levels\",\"prompt\":\"1\",\"seed\":7,\"n\":3,"
                               "\"stream\":true,\"tutti\":{\"previews\":3,\"search\":{\"verifier\":"
                               "\"clip\",\"algorithm\":\"beam\",\"beam_width\":3,"
                               "\"candidates\":4}}}";
    enum { STEPS = 5 };
    static const int tokens[STEPS] = {1, 2, 4, 8, 16};
    tt_work *w = begin(body);
    tt_buf out = {0};
    int64_t again;
    while (!tt_work_frames(w, 0, &out, &again))
        nap_ms(1);
    tt_work_free(w);
    const char *text = tt_buf_text(&out);
    cJSON *before = NULL;
    for (int i = 0; i < STEPS; i++) {
        cJSON *t = event(text, "image_generation.search_step", i);
        const cJSON *c;
        int survivors = 0;
        assert_non_null(t);
        assert_int_equal(number(t, "tokens"), tokens[i]);
        assert_int_equal(cJSON_GetArraySize(at(t, "candidates")), i ? 12 : 4);
        cJSON_ArrayForEach(c, at(t, "candidates"))
        {
            survivors += cJSON_IsTrue(at(c, "kept"));
            if (before)
                assert_true(was_kept(before, (int)number(c, "parent")));
            else
                assert_true(cJSON_IsNull(cJSON_GetObjectItem(c, "parent")));
        }
        assert_int_equal(survivors, 3);
        cJSON_Delete(before);
        before = t;
    }
    assert_best_pictured(before, text);
    assert_null(event(text, "image_generation.search_step", STEPS));
    cJSON *done = event(text, "image_generation.completed", 2);
    assert_true(was_kept(before, (int)number(done, "candidate")));
    assert_string_equal(at(done, "tutti.search.algorithm")->valuestring, "beam");
    cJSON_Delete(done);
    cJSON_Delete(before);
    tt_buf_free(&out);
}

/* --- refusals --- */

static void what_cannot_be_searched_is_refused_by_name(void **state)
{
    (void)state;
#define ON(model, more) \
    "{\"model\":\"" model "\",\"prompt\":\"1\",\"tutti\":{\"search\":{" more "}}}"
#define CLIP "\"verifier\":\"clip\","
#define BEAM CLIP "\"algorithm\":\"beam\","
    static const struct {
        const char *body, *param;
    } bad[] = {
        {ON("pic", "\"samples\":3"), "tutti.search.verifier"},
        {ON("pic", "\"verifier\":\"pic\""), "tutti.search.verifier"},
        {ON("pic", "\"verifier\":[\"clip\",{\"name\":\"clip\",\"weight\":-1}]"),
         "tutti.search.verifier[1].weight"},
        {ON("pic", "\"verifier\":[{\"name\":\"clip\",\"weight\":0}]"), "tutti.search.verifier"},
        {ON("pic", "\"verifier\":[\"clip\",\"clip\"]"), "tutti.search.verifier[1]"},
        {ON("pic", CLIP "\"mode\":\"sum\""), "tutti.search.mode"},
        {ON("pic", CLIP "\"algorithm\":\"depth\""), "tutti.search.algorithm"},
        {ON("pic", CLIP "\"beams\":2"), "tutti.search.beams"},
        {ON("pic", CLIP "\"beam_width\":2"), "tutti.search.beam_width"},
        {ON("pic", CLIP "\"lookahead\":2"), "tutti.search.lookahead"},
        {ON("pic", CLIP "\"samples\":0"), "tutti.search.samples"},
        {ON("pic", CLIP "\"samples\":2,\"results\":3"), "tutti.search.results"},
        {ON("pic", BEAM "\"samples\":2"), "tutti.search.samples"},
        {ON("pic", BEAM "\"beam_width\":4096"), "tutti.search.candidates"},
        {ON("pic", BEAM "\"prior\":\"uniform\""), "tutti.search.prior"},
        {ON("pic", BEAM "\"sample\":false"), "tutti.search.sample"},
        {ON("raster", CLIP "\"algorithm\":\"lookahead\",\"lookahead\":3"),
         "tutti.search.lookahead"},
        {ON("levels", BEAM "\"schedule\":[4,2]"), "tutti.search.schedule[1]"},
        {ON("levels", BEAM "\"schedule\":{\"base\":1}"), "tutti.search.schedule.base"},
        {ON("levels", BEAM "\"schedule\":\"cubic\""), "tutti.search.schedule"},
        {ON("levels", BEAM "\"budget\":{\"forwards\":3}"), "tutti.search.budget.forwards"},
        {ON("levels", BEAM "\"budget\":{\"s\":3}"), "tutti.search.budget.s"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int status;
        cJSON *t =
            ask_as("/v1/images/generations", NULL, bad[i].body, strlen(bad[i].body), &status);
        if (status == 200 || strcmp(at(t, "error.param")->valuestring, bad[i].param))
            fail_msg("%s: %d %s", bad[i].body, status, cJSON_PrintUnformatted(t));
        cJSON_Delete(t);
    }
    int status;
    static const char verifier[] = "{\"model\":\"clip\",\"prompt\":\"1\"}";
    cJSON_Delete(ask_as("/v1/images/generations", NULL, verifier, strlen(verifier), &status));
    assert_int_equal(status, 400);
    cJSON_Delete(ask_as("/v1/completions", NULL, verifier, strlen(verifier), &status));
    assert_int_equal(status, 400);
    cJSON *t = call("GET", "/v1/models/clip", &status);
    assert_string_equal(at(t, "tutti.family")->valuestring, "verifier");
    assert_string_equal(at(t, "tutti.kind")->valuestring, "clip");
    cJSON_Delete(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best_of_n_is_the_best_of_the_n_images),
        cmocka_unit_test(a_search_gives_the_same_bytes_in_any_company),
        cmocka_unit_test(who_has_no_say_judges_the_results_alone),
        cmocka_unit_test(siblings_of_single_tokens_differ_in_the_last),
        cmocka_unit_test(siblings_of_masked_images_differ_throughout),
        cmocka_unit_test(a_beam_over_a_raster_looks_to_the_end),
        cmocka_unit_test(a_budget_is_never_passed),
        cmocka_unit_test(a_lost_client_frees_every_candidate),
        cmocka_unit_test(a_deadline_fails_its_own_request_alone),
        cmocka_unit_test(a_search_starves_nobody),
        cmocka_unit_test(a_stream_tells_the_tree),
        cmocka_unit_test(what_cannot_be_searched_is_refused_by_name),
    };
    /* Two or three searches at a time: those that have begun go on while others find no memory. */
    memory_for_jobs = (size_t)20 << 20;
    return cmocka_run_group_tests_name("search_images", tests, open_search_api, close_search_api);
}
