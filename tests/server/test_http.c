/* What can go wrong: clients that leave, lie about lengths, send too much or too little, or read
 * slowly; a server that stops while they wait; headers that proxies and browsers need. */
#include "tests/server/http_help.h"

#define CO "/v1/completions"
#define STREAM "{\"model\":\"org/fake\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":400}"
#define SHORT "{\"model\":\"org/fake\",\"prompt\":\"x\",\"max_tokens\":3}"

static void refusals_have_status_and_headers(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
        const char *says;
    } list[] = {
        {"GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 404, "\"not_found\""},
        {"DELETE /v1/models HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 405, "Allow: GET"},
        {"GET /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 405,
         "Allow: POST"},
        {"BREW /v1/models HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 405, "Allow: GET"},
        {"POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
         "Content-Type: text/xml\r\nContent-Length: 2\r\n\r\n{}", 415, "unsupported_media_type"},
        {"POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
         "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 400,
         "\"param\":\"model\""},
        {"POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 0\r\n"
         "\r\n", 400, "invalid_json"},
        {"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", 400, ""}, /* no Host */
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char *a = roundtrip(list[i].request);
        assert_int_equal(status_in(a), list[i].status);
        has(a, list[i].says);
        free(a);
    }
}

static void every_answer_carries_a_request_id(void **state)
{
    (void)state;
    char *a = roundtrip("GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                        "X-Request-Id: my-id_1.2\r\n\r\n");
    assert_int_equal(status_in(a), 200);
    has(a, "x-request-id: my-id_1.2\r\n");
    free(a);
    a = roundtrip("GET /nothing HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                  "X-Request-Id: bad id\r\n\r\n");
    has(a, "x-request-id: req_");
    lacks(a, "bad id");
    free(a);
}

static void headers_may_be_long_but_not_endless(void **state)
{
    (void)state;
    static const int sizes[] = {30 * 1024, 40 * 1024};
    for (int i = 0; i < 2; i++) {
        tt_buf b = {0};
        tt_buf_puts(&b, "GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\nCookie: ");
        for (int k = 0; k < sizes[i]; k++)
            tt_buf_putc(&b, 'c');
        tt_buf_puts(&b, "\r\n\r\n");
        char *a = roundtrip(tt_buf_text(&b));
        assert_int_equal(status_in(a), i ? 431 : 200);
        free(a);
        tt_buf_free(&b);
    }
}

static void answers_say_how_long_they_took(void **state)
{
    (void)state;
    char *a = post_once(CO, "", SHORT);
    assert_int_equal(status_in(a), 200);
    has(a, "openai-processing-ms: ");
    has(a, "Content-Type: application/json\r\n");
    has(a, "\"text\":\"abc\"");
    free(a);
}

static void connections_are_kept_and_pipelined(void **state)
{
    (void)state;
    int fd = dial();
    tt_buf in = {0};
    for (int i = 0; i < 3; i++) {
        send_post(fd, CO, "", SHORT);
        assert_true(read_until(fd, &in, "\"warnings\":[]}}"));
        tt_buf_clear(&in);
    }
    send_post(fd, CO, "", SHORT); /* two at once */
    send_post(fd, CO, "X-Request-Id: second\r\n", SHORT);
    assert_true(read_until(fd, &in, "x-request-id: second"));
    send_post(fd, CO, "Content-Type: x\r\n", "{}"); /* a refusal keeps it open too */
    close(fd);
    tt_buf_free(&in);
}

static void large_bodies_are_refused_before_they_are_sent(void **state)
{
    (void)state;
    int fd = dial();
    tt_buf in = {0};
    puts_to(fd, "POST " CO " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n");
    assert_true(read_until(fd, &in, "request_too_large"));
    assert_int_equal(status_in(in.data), 413);
    lacks(in.data, "100 Continue");
    close(fd);
    tt_buf_free(&in);
}

static void a_body_without_a_length_is_counted(void **state)
{
    (void)state;
    close_server();
    open_server(&(tt_server_options){.max_body = 1000});
    for (int large = 0; large < 2; large++) {
        int fd = dial();
        tt_buf in = {0};
        puts_to(fd, "POST " CO " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                    "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        puts_to(fd, "a\r\n{\"model\":\"\r\n");
        puts_to(fd, "2a\r\norg/fake\",\"prompt\":\"x\",\"max_tokens\":3     \r\n1\r\n}\r\n");
        for (int i = 0; large && i < 40; i++)
            puts_to(fd, "20\r\n                                \r\n");
        puts_to(fd, "0\r\n\r\n");
        read_until(fd, &in, NULL);
        assert_int_equal(status_in(in.data), large ? 413 : 200);
        close(fd);
        tt_buf_free(&in);
    }
}

static void expect_continue_is_answered(void **state)
{
    (void)state;
    int fd = dial();
    tt_buf in = {0};
    char head[256];
    snprintf(head, sizeof head,
             "POST " CO " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
             "Expect: 100-continue\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
             strlen(SHORT));
    puts_to(fd, head);
    assert_true(read_until(fd, &in, "100 Continue\r\n\r\n"));
    puts_to(fd, SHORT);
    assert_true(read_until(fd, &in, "\"text\":\"abc\""));
    close(fd);
    tt_buf_free(&in);
}

/* A body over 64 KiB goes through a worker; the answer is the same. */
static void long_bodies_are_read_by_workers(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_buf_puts(&b, "{\"model\":\"org/fake\",\"prompt\":\"x\",\"max_tokens\":3,\"user\":\"");
    for (int i = 0; i < 1500000; i++)
        tt_buf_putc(&b, 'u');
    tt_buf_puts(&b, "\"}");
    char *a = post_once(CO, "", tt_buf_text(&b));
    assert_int_equal(status_in(a), 200);
    has(a, "\"text\":\"abc\"");
    free(a);
    b.data[0] = '['; /* and the same for a refusal */
    a = post_once("/v1/tokenize", "", tt_buf_text(&b));
    assert_int_equal(status_in(a), 400);
    free(a);
    for (int i = 0; i < 20; i++) { /* a client that leaves while a worker reads */
        int fd = dial();
        b.data[0] = '{';
        send_post(fd, CO, "", tt_buf_text(&b));
        close(fd);
    }
    tt_buf_free(&b);
    EVENTUALLY(tt_server_active(server) == 0);
}

static void http_1_0_gets_a_plain_stream(void **state)
{
    (void)state;
    char request[512];
    const char *body = "{\"model\":\"org/fake\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":3}";
    snprintf(request, sizeof request,
             "POST " CO " HTTP/1.0\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    char *a = roundtrip(request);
    assert_int_equal(status_in(a), 200);
    lacks(a, "chunked");
    has(a, "Content-Type: text/event-stream; charset=utf-8");
    const char *start = strstr(a, "\r\n\r\n");
    assert_int_equal(strncmp(start + 4, "data: {", 7), 0);
    assert_string_equal(a + strlen(a) - 14, "data: [DONE]\n\n");
    free(a);
}

static void streams_have_the_headers_proxies_need(void **state)
{
    (void)state;
    char *a = post_once(CO, "", "{\"model\":\"org/fake\",\"prompt\":\"x\",\"stream\":true}");
    has(a, "Cache-Control: no-cache\r\n");
    has(a, "X-Accel-Buffering: no\r\n");
    has(a, "Transfer-Encoding: chunked\r\n");
    has(a, "x-request-id: req_");
    free(a);
}

static void a_client_that_leaves_frees_its_place_at_once(void **state)
{
    (void)state;
    tt_fake_engine.step_us = 2000;
    const char *bodies[] = {STREAM,
                            "{\"model\":\"org/fake\",\"prompt\":\"x\",\"max_tokens\":400}"};
    for (int i = 0; i < 2; i++) {
        int before = tt_fake_engine.cancelled, fd = dial();
        tt_buf in = {0};
        send_post(fd, CO, "", bodies[i]);
        if (i == 0)
            assert_true(read_until(fd, &in, "data: "));
        EVENTUALLY(tt_fake_engine.live == 1);
        int64_t start = tt_now_ms();
        close(fd);
        EVENTUALLY(tt_fake_engine.live == 0);
        assert_true(tt_now_ms() - start < 500);
        assert_int_equal(tt_fake_engine.cancelled, before + 1);
        tt_buf_free(&in);
    }
    EVENTUALLY(tt_server_active(server) == 0);
}

static void one_that_leaves_while_nothing_moves_is_noticed(void **state)
{
    (void)state;
    tt_fake_engine.paused = true;
    int fd = dial();
    send_post(fd, CO, "", STREAM);
    EVENTUALLY(tt_fake_engine.live == 1);
    nap_ms(20);
    shutdown(fd, SHUT_RDWR);
    EVENTUALLY(tt_fake_engine.live == 0);
    close(fd);
}

static void a_full_queue_says_when_to_come_back(void **state)
{
    (void)state;
    tt_fake_engine.busy = 1;
    char *a = post_once(CO, "", SHORT);
    assert_int_equal(status_in(a), 429);
    has(a, "Retry-After: 1\r\n");
    has(a, "retry-after-ms: 50\r\n");
    has(a, "\"queue_full\"");
    free(a);
}

static void silent_streams_get_a_heartbeat(void **state)
{
    (void)state;
    close_server();
    open_server(&(tt_server_options){.heartbeat_ms = 30});
    tt_fake_engine.paused = true;
    int fd = dial();
    tt_buf in = {0};
    send_post(fd, CO, "", STREAM);
    assert_true(read_until(fd, &in, ": ping\n\n"));
    tt_buf_clear(&in);
    assert_true(read_until(fd, &in, ": ping\n\n"));
    tt_fake_engine.paused = false;
    assert_true(read_until(fd, &in, "data: [DONE]\n\n"));
    close(fd);
    tt_buf_free(&in);
}

static void slow_readers_lose_nothing(void **state)
{
    (void)state;
    int fd = dial(), small = 4096;
    tt_buf in = {0};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    send_post(fd, CO, "Connection: close\r\n",
              "{\"model\":\"org/fake\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":400,"
              "\"tutti\":{\"trace\":true}}");
    for (int i = 0; i < 50; i++) {
        char piece[64];
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n > 0)
            tt_buf_add(&in, piece, (size_t)n);
        nap_ms(2);
    }
    read_until(fd, &in, NULL);
    has(in.data, "data: [DONE]\n\n");
    has(in.data, "\"finish_reason\":\"length\"");
    close(fd);
    tt_buf_free(&in);
}

static void slow_senders_are_waited_for(void **state)
{
    (void)state;
    int fd = dial();
    tt_buf in = {0};
    char head[256];
    snprintf(head, sizeof head,
             "POST " CO " HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\nConnection: close\r\n\r\n", strlen(SHORT));
    puts_to(fd, head);
    for (const char *p = SHORT; *p; p++) {
        put(fd, p, 1);
        nap_ms(1);
    }
    read_until(fd, &in, NULL);
    assert_int_equal(status_in(in.data), 200);
    close(fd);
    tt_buf_free(&in);
}

static void two_hundred_streams_arrive_complete(void **state)
{
    (void)state;
    enum { STREAMS = 200 };
    static int fd[STREAMS];
    tt_fake_engine.step_us = 1000;
    for (int i = 0; i < STREAMS; i++) {
        fd[i] = dial();
        send_post(fd[i], CO, "Connection: close\r\n",
                  "{\"model\":\"org/fake\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":40}");
    }
    for (int i = 0; i < STREAMS; i++) {
        tt_buf in = {0};
        read_until(fd[i], &in, NULL);
        has(in.data, "data: [DONE]\n\n");
        assert_int_equal(status_in(in.data), 200);
        close(fd[i]);
        tt_buf_free(&in);
    }
    EVENTUALLY(tt_server_active(server) == 0);
}

static void stopping_tells_those_who_wait(void **state)
{
    (void)state;
    enum { WAITING = 12 };
    int fd[WAITING];
    tt_fake_engine.paused = true;
    for (int i = 0; i < WAITING; i++) {
        fd[i] = dial();
        send_post(fd[i], CO, "", i % 2 ? STREAM : SHORT);
    }
    EVENTUALLY(tt_fake_engine.live == WAITING);
    int64_t start = tt_now_ms();
    close_server();
    assert_true(tt_now_ms() - start < 5000);
    for (int i = 0; i < WAITING; i++) {
        tt_buf in = {0};
        read_until(fd[i], &in, NULL);
        assert_int_equal(status_in(in.data), i % 2 ? 200 : 503);
        has(in.data, "\"code\":\"shutting_down\"");
        lacks(in.data, "[DONE]");
        close(fd[i]);
        tt_buf_free(&in);
    }
    assert_int_equal(tt_fake_engine.live, 0);
}

static void draining_finishes_what_runs_and_refuses_more(void **state)
{
    (void)state;
    tt_fake_engine.step_us = 1000;
    int fd = dial();
    tt_buf in = {0};
    send_post(fd, CO, "Connection: close\r\n",
              "{\"model\":\"org/fake\",\"prompt\":\"x\",\"stream\":true,\"max_tokens\":100}");
    EVENTUALLY(tt_fake_engine.live == 1);
    api.state = TT_API_DRAINING;
    char *a = post_once(CO, "", SHORT);
    assert_int_equal(status_in(a), 503);
    has(a, "Retry-After: ");
    free(a);
    read_until(fd, &in, NULL);
    has(in.data, "data: [DONE]\n\n");
    close(fd);
    tt_buf_free(&in);
    EVENTUALLY(tt_server_active(server) == 0);
}

static void keys_are_needed_where_they_should_be(void **state)
{
    (void)state;
    static const char *const keys[] = {"alpha", "beta", NULL};
    char file[] = "/tmp/tutti-keys-XXXXXX";
    int f = mkstemp(file);
    assert_true(f >= 0 && write(f, "# keys\n gamma \n\n", 16) == 16);
    close_server();
    open_server(&(tt_server_options){.keys = keys, .key_file = file});
    static const struct {
        const char *key;
        int status;
    } list[] = {{"alpha", 200}, {"beta", 200}, {"gamma", 200}, {"alph", 401}, {"alphaa", 401},
                {"", 401}, {"keys", 401}, {"delta", 401}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char more[64];
        snprintf(more, sizeof more, "Authorization: Bearer %s\r\n", list[i].key);
        char *a = post_once(CO, more, SHORT);
        assert_int_equal(status_in(a), list[i].status);
        if (list[i].status == 401) {
            has(a, "WWW-Authenticate: Bearer\r\n");
            has(a, "\"invalid_api_key\"");
        }
        free(a);
    }
    char *a = roundtrip("GET /health HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_in(a), 200);
    free(a);
    a = roundtrip("GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_in(a), 401);
    free(a);
    assert_true(pwrite(f, "  delta\n gamma2\n", 16, 0) == 16);
    assert_int_equal(tt_server_reload(server, NULL), TT_OK);
    a = post_once(CO, "Authorization: bearer delta\r\n", SHORT);
    assert_int_equal(status_in(a), 200);
    free(a);
    assert_int_equal(ftruncate(f, 0), 0); /* an empty file changes nothing */
    assert_int_equal(tt_server_reload(server, NULL), TT_EINVAL);
    a = post_once(CO, "Authorization: Bearer delta\r\n", SHORT);
    assert_int_equal(status_in(a), 200);
    free(a);
    close(f);
    unlink(file);
}

static void browsers_may_ask_first(void **state)
{
    (void)state;
    static const char *const cors[] = {"https://a.example", NULL};
    static const char *const keys[] = {"k", NULL};
    close_server();
    open_server(&(tt_server_options){.cors = cors, .keys = keys});
    char *a = roundtrip("OPTIONS " CO " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                        "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n");
    assert_int_equal(status_in(a), 204);
    has(a, "Access-Control-Allow-Origin: https://a.example\r\n");
    has(a, "authorization, content-type");
    has(a, "x-stainless-retry-count");
    has(a, "Vary: Origin\r\n");
    free(a);
    a = roundtrip("OPTIONS " CO " HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                  "Origin: https://b.example\r\n\r\n");
    lacks(a, "Access-Control-Allow-Origin");
    free(a);
    a = post_once(CO, "Origin: https://a.example\r\nAuthorization: Bearer k\r\n", SHORT);
    has(a, "Access-Control-Allow-Origin: https://a.example\r\n");
    has(a, "Access-Control-Expose-Headers: x-request-id");
    free(a);
}

static void the_page_is_served_and_cached(void **state)
{
    (void)state;
    char *a = roundtrip("GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_in(a), 200);
    has(a, "Content-Type: text/html; charset=utf-8\r\n");
    has(a, "<!doctype html>");
    const char *tag = strcasestr(a, "ETag: ");
    assert_non_null(tag);
    char request[256];
    snprintf(request, sizeof request,
             "GET /index.html HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
             "If-None-Match: %.18s\r\n\r\n",
             tag + 6);
    free(a);
    a = roundtrip(request);
    assert_int_equal(status_in(a), 304);
    free(a);
    a = roundtrip("GET /app.js HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    has(a, "Content-Type: text/javascript; charset=utf-8\r\n");
    free(a);
    a = roundtrip("GET /../Makefile HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_in(a), 404);
    free(a);
}

static void ids_with_slashes_are_decoded(void **state)
{
    (void)state;
    char *a = roundtrip("GET /v1/models/org%2Ffake HTTP/1.1\r\nHost: t\r\n"
                        "Connection: close\r\n\r\n");
    assert_int_equal(status_in(a), 200);
    has(a, "\"id\":\"org/fake\"");
    free(a);
    a = roundtrip("HEAD /v1/models/org/fake HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_in(a), 200);
    lacks(a, "\"id\"");
    free(a);
}

/* Every line of the text is a comment or "name{labels} number", and counters went up. */
static void metrics_are_well_formed(void **state)
{
    (void)state;
    static const char counter[] =
        "vllm:request_success_total{model_name=\"org/fake\",finished_reason=\"length\"}";
    free(post_once(CO, "", SHORT));
    free(post_once(CO, "", "{}"));
    EVENTUALLY(tt_server_active(server) == 0);
    char *a = roundtrip("GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    has(a, "Content-Type: text/plain; version=0.0.4; charset=utf-8");
    char *save, *line = strtok_r(strstr(a, "\r\n\r\n") + 4, "\n", &save);
    int lines = 0;
    double requests = 0;
    for (; line; line = strtok_r(NULL, "\n", &save), lines++) {
        char *end, *space = strrchr(line, ' ');
        if (*line == '#')
            continue;
        assert_non_null(space);
        double v = strtod(space + 1, &end);
        assert_true(*end == '\0' && v >= 0);
        if (!strncmp(line, counter, strlen(counter)))
            requests = v;
    }
    assert_true(lines > 100);
    assert_true(requests >= 1);
    free(a);
    a = roundtrip("GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    has(a, "http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"400\"}");
    has(a, "vllm:num_requests_running{model_name=\"all\"} ");
    has(a, "tutti_build_info{version=\"test\"} 1");
    free(a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(refusals_have_status_and_headers),
        TEST(every_answer_carries_a_request_id),
        TEST(headers_may_be_long_but_not_endless),
        TEST(answers_say_how_long_they_took),
        TEST(connections_are_kept_and_pipelined),
        TEST(large_bodies_are_refused_before_they_are_sent),
        TEST(a_body_without_a_length_is_counted),
        TEST(expect_continue_is_answered),
        TEST(long_bodies_are_read_by_workers),
        TEST(http_1_0_gets_a_plain_stream),
        TEST(streams_have_the_headers_proxies_need),
        TEST(a_client_that_leaves_frees_its_place_at_once),
        TEST(one_that_leaves_while_nothing_moves_is_noticed),
        TEST(a_full_queue_says_when_to_come_back),
        TEST(silent_streams_get_a_heartbeat),
        TEST(slow_readers_lose_nothing),
        TEST(slow_senders_are_waited_for),
        TEST(two_hundred_streams_arrive_complete),
        TEST(stopping_tells_those_who_wait),
        TEST(draining_finishes_what_runs_and_refuses_more),
        TEST(keys_are_needed_where_they_should_be),
        TEST(browsers_may_ask_first),
        TEST(the_page_is_served_and_cached),
        TEST(ids_with_slashes_are_decoded),
        TEST(metrics_are_well_formed),
    };
    return cmocka_run_group_tests_name("http", tests, open_api, close_api);
}
