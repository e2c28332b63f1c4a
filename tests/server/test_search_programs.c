/* What can go wrong with verifiers that are programs, and with searches over texts: a program that
 * is slow, gone or wrong and takes others with it, a question without what it needs, scores put to
 * the wrong answers, rules that misjudge, an order that is not that of the scores. */
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>

#include "samplers/rules.h"
#include "tests/server/search_help.h"

/* --- a program that scores --- */

typedef enum { RISING, SILENT, BROKEN, SHORT } manner;

static struct {
    int fd, port;
    pthread_t thread;
    _Atomic manner manner;
    _Atomic int questions, candidates, with_picture, with_text;
    char prompt[64];
} program;

enum { PATIENCE_MS = 20000 };
static tt_scorer scorer[3];

static void note_question(const cJSON *q)
{
    const cJSON *c, *prompt = tt_json_get(q, "prompt");
    program.questions++;
    snprintf(program.prompt, sizeof program.prompt, "%s", prompt ? prompt->valuestring : "");
    cJSON_ArrayForEach(c, tt_json_get(q, "candidates"))
    {
        program.candidates++;
        program.with_picture += cJSON_IsString(tt_json_get(c, "b64_json"));
        program.with_text += cJSON_IsString(tt_json_get(c, "text"));
        assert_true(cJSON_IsArray(tt_json_get(c, "tokens")));
        assert_true(cJSON_IsNumber(tt_json_get(c, "logprob")));
    }
}

/* Candidate i gets i, the first of all null. */
static void answer_question(int fd, const char *body)
{
    cJSON *q = NULL;
    tt_buf out = {0};
    manner how = program.manner;
    assert_int_equal(tt_json_parse(&q, body, strlen(body), NULL), TT_OK);
    note_question(q);
    int n = cJSON_GetArraySize(tt_json_get(q, "candidates"));
    cJSON_Delete(q);
    tt_buf_puts(&out, how == BROKEN ? "HTTP/1.0 500 No\r\n\r\n" : "HTTP/1.0 200 OK\r\n\r\n");
    tt_buf_puts(&out, "{\"scores\":[null");
    for (int i = 1; i < n - (how == SHORT); i++)
        tt_buf_printf(&out, ",%d", i);
    tt_buf_puts(&out, "]}");
    while (program.manner == SILENT)
        nap_ms(1);
    if (how != SILENT)
        assert_int_equal(send(fd, out.data, out.size, MSG_NOSIGNAL), out.size);
    tt_buf_free(&out);
}

static void *program_main(void *arg)
{
    (void)arg;
    for (int fd; (fd = accept(program.fd, NULL, NULL)) >= 0; close(fd)) {
        tt_buf in = {0};
        char piece[4096];
        size_t want = SIZE_MAX;
        while (in.size < want) {
            ssize_t n = recv(fd, piece, sizeof piece, 0);
            if (n <= 0)
                break;
            tt_buf_add(&in, piece, (size_t)n);
            const char *head = tt_buf_text(&in), *end = strstr(head, "\r\n\r\n");
            const char *length = strstr(head, "Content-Length: ");
            if (end && length)
                want = (size_t)(end + 4 - head) + (size_t)atoi(length + 16);
        }
        if (in.size == want)
            answer_question(fd, strstr(tt_buf_text(&in), "\r\n\r\n") + 4);
        tt_buf_free(&in);
    }
    return NULL;
}

static int open_all(void **state)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof a;
    char text[64];
    tt_err e = {0};
    program.fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(program.fd, (struct sockaddr *)&a, sizeof a) || listen(program.fd, 8) ||
        getsockname(program.fd, (struct sockaddr *)&a, &size) ||
        pthread_create(&program.thread, NULL, program_main, NULL) || open_search_api(state))
        return -1;
    program.port = ntohs(a.sin_port);
    snprintf(text, sizeof text, "mine=http://127.0.0.1:%d/score", program.port);
    if (tt_scorer_open(&scorer[0], text, 400, &e) ||
        tt_scorer_open(&scorer[1], "gone=http://127.0.0.1:1", 400, &e))
        return -1;
    snprintf(text, sizeof text, "slow=http://127.0.0.1:%d", program.port);
    if (tt_scorer_open(&scorer[2], text, PATIENCE_MS, &e))
        return -1;
    api.scorer = scorer;
    api.scorers = 3;
    return 0;
}

static int close_all(void **state)
{
    shutdown(program.fd, SHUT_RDWR);
    pthread_join(program.thread, NULL);
    close(program.fd);
    return close_search_api(state);
}

/* --- programs --- */

#define PICTURES(who)                                                                             \
    "{\"model\":\"pic\",\"prompt\":\"tree\",\"seed\":7,\"n\":4,\"tutti\":{\"search\":{"            \
    "\"verifier\":\"" who "\",\"samples\":4}}}"

static void a_program_puts_pictures_in_order(void **state)
{
    (void)state;
    static const int order[] = {3, 2, 1, 0}; /* null is last */
    program.questions = program.candidates = program.with_picture = 0;
    cJSON *t = ask("/v1/images/generations", PICTURES("mine"));
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "data.%d.tutti.candidate", i);
        assert_int_equal(at(t, path)->valuedouble, order[i]);
    }
    assert_int_equal(program.questions, 1);
    assert_int_equal(program.candidates, 4);
    assert_int_equal(program.with_picture, 4);
    assert_string_equal(program.prompt, "tree");
    cJSON_Delete(t);
}

static void fails_alone(const char *body, const char *says)
{
    int status;
    const char *path = strstr(body, "\"text\"") ? "/v1/completions" : "/v1/images/generations";
    tt_reply r = {0};
    tt_work *other = NULL;
    const char *plain = PICTURES("clip");
    assert_int_equal(start_work(&other, "/v1/images/generations", NULL, plain, strlen(plain), &r),
                     TT_OK);
    cJSON *t = ask_as(path, NULL, body, strlen(body), &status);
    assert_int_equal(status, 502);
    assert_string_equal(at(t, "error.code")->valuestring, "verifier_failed");
    if (!strstr(at(t, "error.message")->valuestring, says))
        fail_msg("'%s' does not say '%s'", at(t, "error.message")->valuestring, says);
    cJSON_Delete(t);
    while (!tt_work_poll(other))
        nap_ms(1);
    tt_work_answer(other, &r);
    assert_int_equal(r.status, 200);
    tt_work_free(other);
    tt_buf_free(&r.body);
}

#define TEXTS(who)                                                                                \
    "{\"model\":\"text\",\"prompt\":\"12\",\"seed\":7,\"max_tokens\":6,\"temperature\":1,\"n\":2," \
    "\"tutti\":{\"search\":{\"verifier\":" who ",\"samples\":5}}}"

static void a_program_that_fails_fails_its_request_alone(void **state)
{
    (void)state;
    program.manner = BROKEN;
    fails_alone(PICTURES("mine"), "status 500");
    fails_alone(TEXTS("\"mine\""), "status 500");
    program.manner = SHORT;
    fails_alone(PICTURES("mine"), "one per candidate");
    fails_alone(PICTURES("gone"), "refused");
    fails_alone(TEXTS("\"gone\""), "refused");
    program.manner = SILENT;
    fails_alone(PICTURES("mine"), "in time");
    program.manner = RISING;
    assert_int_equal(tt_picture_search_alive(), 0);
}

/* Images are made while a program thinks; and a client that leaves meanwhile leaves nothing. */
static void nobody_waits_for_a_program(void **state)
{
    (void)state;
    tt_reply r = {0};
    tt_work *w = NULL;
    const char *body = PICTURES("slow");
    program.manner = SILENT;
    program.questions = 0;
    assert_int_equal(start_work(&w, "/v1/images/generations", NULL, body, strlen(body), &r), TT_OK);
    for (int i = 0; i < 5000 && !program.questions; i++)
        nap_ms(1);
    int64_t before = tt_now_ms();
    cJSON_Delete(ask("/v1/images/generations", "{\"model\":\"pic\",\"prompt\":\"tree\"}"));
    bool over = tt_work_poll(w);
    int64_t took = tt_now_ms() - before;
    tt_work_cancel(w);
    tt_work_free(w);
    program.manner = RISING;
    for (int i = 0; i < 1000 && tt_picture_search_alive(); i++)
        nap_ms(1);
    assert_int_equal(tt_picture_search_alive(), 0);
    assert_false(over);
    assert_true(took < PATIENCE_MS / 2);
}

static void only_addresses_make_programs(void **state)
{
    (void)state;
    static const char *const bad[] = {"mine",          "mine=",           "=http://a/",
                                      "a=https://b/",  "a=http://",       "a=http://b:/",
                                      "a=http://c d/", "a=http://u@h/",   "a=http:///x"};
    tt_scorer s;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(tt_scorer_open(&s, bad[i], 1000, NULL), TT_EINVAL);
    assert_int_equal(tt_scorer_open(&s, "a=http://127.0.0.1", 1000, NULL), TT_OK);
    assert_string_equal(s.path, "/");
}

/* --- rules --- */

static void rules_judge_texts(void **state)
{
    (void)state;
    tt_grammar *g;
    assert_int_equal(tt_rule_regex_open(&g, "[0-9]+(é|x)?", 13, NULL), TT_OK);
    assert_true(tt_rule_regex(g, "123", 3) == 1);
    assert_true(tt_rule_regex(g, "1\xc3\xa9", 3) == 1);
    assert_true(tt_rule_regex(g, "1\xc3", 2) == 0);
    assert_true(tt_rule_regex(g, "12a", 3) == 0);
    assert_true(tt_rule_regex(g, "", 0) == 0);
    tt_grammar_close(g);
    assert_int_equal(tt_rule_regex_open(&g, "(", 1, NULL), TT_EINVAL);
    assert_true(tt_rule_length("a\xc3\xa9z", 4, 3, 3) == 0);
    assert_true(tt_rule_length("abcde", 5, 0, 3) == -2);
    assert_true(tt_rule_length("", 0, 4, 9) == -4);
}

/* --- texts --- */

static double number(const cJSON *t, const char *path)
{
    return at(t, path)->valuedouble;
}

/* The scores are those of the answers' texts, and fall. */
static void texts_come_in_the_order_of_their_scores(void **state)
{
    (void)state;
    cJSON *all = ask("/v1/completions", "{\"model\":\"text\",\"prompt\":\"12\",\"seed\":7,\"n\":5,"
                                        "\"max_tokens\":6,\"temperature\":1}");
    cJSON *t = ask("/v1/completions", TEXTS("\"mine\""));
    assert_int_equal(cJSON_GetArraySize(at(t, "choices")), 2);
    assert_string_equal(at(t, "choices.0.text")->valuestring,
                        at(all, "choices.4.text")->valuestring);
    assert_string_equal(at(t, "choices.1.text")->valuestring,
                        at(all, "choices.3.text")->valuestring);
    assert_int_equal(number(t, "choices.0.tutti.score"), 4);
    assert_int_equal(number(t, "tutti.search.candidates"), 5);
    assert_string_equal(program.prompt, "12");
    assert_int_equal(program.with_text, 5 + 5); /* and those of the failed one */
    cJSON_Delete(t);
    t = ask("/v1/completions", TEXTS("{\"name\":\"length\",\"max\":3}"));
    for (int i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "choices.%d.text", i);
        const char *text = at(t, path)->valuestring;
        snprintf(path, sizeof path, "choices.%d.tutti.score", i);
        assert_true(number(t, path) == (double)tt_rule_length(text, strlen(text), 0, 3));
    }
    assert_true(number(t, "choices.0.tutti.score") >= number(t, "choices.1.tutti.score"));
    cJSON_Delete(t);
    t = ask("/v1/completions",
            TEXTS("[\"likelihood\",\"json\",{\"name\":\"regex\",\"pattern\":\".*\","
                  "\"weight\":0.5}],\"mode\":\"weighted\""));
    assert_true(number(t, "choices.0.tutti.scores.likelihood") <= 0);
    assert_int_equal(number(t, "choices.0.tutti.scores.regex"), 1);
    cJSON_Delete(t);
    cJSON_Delete(all);
}

static void what_texts_cannot_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *more, *param;
    } bad[] = {
        {"\"verifier\":\"clip\"", "tutti.search.verifier"},
        {"\"verifier\":\"regex\"", "tutti.search.verifier"},
        {"\"verifier\":{\"name\":\"regex\",\"pattern\":\"(\"}", "tutti.search.verifier.pattern"},
        {"\"verifier\":{\"name\":\"json\",\"pattern\":\"a\"}", "tutti.search.verifier.pattern"},
        {"\"verifier\":\"json\",\"algorithm\":\"beam\"", "tutti.search.algorithm"},
        {"\"verifier\":\"json\",\"beam_width\":2", "tutti.search.beam_width"},
        {"\"verifier\":\"json\",\"samples\":500", "tutti.search.samples"},
        {"\"samples\":5", "tutti.search.verifier"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char body[400];
        int status;
        snprintf(body, sizeof body,
                 "{\"model\":\"text\",\"prompt\":\"12\",\"tutti\":{\"search\":{%s}}}", bad[i].more);
        cJSON *t = ask_as("/v1/completions", NULL, body, strlen(body), &status);
        if (status == 200 || strcmp(at(t, "error.param")->valuestring, bad[i].param))
            fail_msg("%s: %d %s", body, status, cJSON_PrintUnformatted(t));
        cJSON_Delete(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_puts_pictures_in_order),
        cmocka_unit_test(a_program_that_fails_fails_its_request_alone),
        cmocka_unit_test(nobody_waits_for_a_program),
        cmocka_unit_test(only_addresses_make_programs),
        cmocka_unit_test(rules_judge_texts),
        cmocka_unit_test(texts_come_in_the_order_of_their_scores),
        cmocka_unit_test(what_texts_cannot_is_refused),
    };
    return cmocka_run_group_tests_name("search_programs", tests, open_all, close_all);
}
