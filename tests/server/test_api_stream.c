/* What can go wrong: deltas that do not add up to the answer, chunks out of order, text that
 * changes after it was sent, a failed stream that looks complete, a slow reader with a backlog. */
#include "tests/server/api_help.h"

#define CO "/v1/completions"
#define CH "/v1/chat/completions"
#define M "\"model\":\"org/fake\",\"stream\":true,"
#define U "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],"

/* The text deltas of one choice, joined. */
static void joined(const stream *s, int index, const char *member, char *out)
{
    *out = '\0';
    for (int i = 0; i < s->frames; i++) {
        const cJSON *c = cJSON_GetArrayItem(at(s->frame[i], "choices"), 0);
        if (!c || (int)number_at(c, "index") != index)
            continue;
        const cJSON *holder = strcmp(member, "content") ? c : at(c, "delta");
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(holder, member);
        if (text)
            strcat(out, text->valuestring);
    }
}

static const cJSON *last(const stream *s) { return s->frame[s->frames - 1]; }

static void deltas_add_up_whatever_the_order_of_commits(void **state)
{
    (void)state;
    for (int backwards = 0; backwards < 2; backwards++) {
        tt_fake_engine.backwards = backwards;
        stream s = follow(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":12}", 1);
        char text[64];
        joined(&s, 0, "text", text);
        assert_string_equal(text, "abcdefghijab");
        assert_true(s.done);
        assert_string_equal(text_at(last(&s), "choices.0.finish_reason"), "length");
        assert_true(number_at(last(&s), "tutti.nfe") == 12);
        for (int i = 0; i < s.frames; i++) {
            assert_string_equal(text_at(s.frame[i], "id"), text_at(s.frame[0], "id"));
            assert_string_equal(text_at(s.frame[i], "object"), "text_completion");
            if (i < s.frames - 1)
                assert_true(cJSON_IsNull(at(s.frame[i], "choices.0.finish_reason")));
        }
        stream_free(&s);
    }
}

static void chat_chunks_come_in_the_order_clients_expect(void **state)
{
    (void)state;
    stream s = follow(CH, "{" M U "\"max_tokens\":3,\"stream_options\":{\"include_usage\":true}}",
                      1);
    char text[64];
    assert_string_equal(text_at(s.frame[0], "object"), "chat.completion.chunk");
    assert_string_equal(text_at(s.frame[0], "choices.0.delta.role"), "assistant");
    assert_string_equal(text_at(s.frame[0], "choices.0.delta.content"), "");
    joined(&s, 0, "content", text);
    assert_string_equal(text, "abc");
    for (int i = 0; i < s.frames - 1; i++)
        assert_true(cJSON_IsNull(at(s.frame[i], "usage")));
    const cJSON *end = s.frame[s.frames - 2];
    assert_int_equal(cJSON_GetArraySize(at(end, "choices.0.delta")), 0);
    assert_string_equal(text_at(end, "choices.0.finish_reason"), "length");
    assert_int_equal(cJSON_GetArraySize(at(last(&s), "choices")), 0);
    assert_true(number_at(last(&s), "usage.completion_tokens") == 3);
    assert_true(s.done);
    stream_free(&s);
}

static void several_choices_interleave_and_close_once_each(void **state)
{
    (void)state;
    stream s = follow(CO, "{" M "\"prompt\":[\"x\",\"y\"],\"n\":2,\"max_tokens\":5}", 1);
    int closed = 0, numbers = 0;
    for (int i = 0; i < s.frames; i++) {
        closed += cJSON_IsString(at(s.frame[i], "choices.0.finish_reason"));
        numbers += cJSON_GetObjectItem(cJSON_GetObjectItem(s.frame[i], "tutti"), "nfe") != NULL;
    }
    assert_int_equal(closed, 4);
    assert_int_equal(numbers, 1);
    for (int c = 0; c < 4; c++) {
        char text[64];
        joined(&s, c, "text", text);
        assert_string_equal(text, "abcde");
    }
    stream_free(&s);
}

static void echo_and_logprobs_stream_too(void **state)
{
    (void)state;
    stream s = follow(CO, "{" M "\"prompt\":\"Hi\",\"max_tokens\":3,\"echo\":true,\"logprobs\":1}",
                      1);
    char text[64];
    int tokens = 0;
    joined(&s, 0, "text", text);
    assert_string_equal(text, "Hiabc");
    for (int i = 0; i < s.frames; i++) {
        const cJSON *l = at(s.frame[i], "choices.0.logprobs");
        if (cJSON_IsNull(l))
            continue;
        for (int k = 0; k < cJSON_GetArraySize(at(l, "tokens")); k++, tokens++) {
            char path[32];
            snprintf(path, sizeof path, "text_offset.%d", k);
            assert_true(number_at(l, path) == 2 + tokens);
        }
    }
    assert_int_equal(tokens, 3);
    stream_free(&s);
}

static void stop_strings_are_never_shown(void **state)
{
    (void)state;
    stream s = follow(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":400,\"stop\":\"fg\"}", 1);
    char text[64];
    joined(&s, 0, "text", text);
    assert_string_equal(text, "abcde");
    assert_string_equal(text_at(last(&s), "choices.0.finish_reason"), "stop");
    stream_free(&s);
}

static void snapshots_replace_each_other(void **state)
{
    (void)state;
    tt_fake_engine.backwards = true;
    stream s = follow(CH, "{\"model\":\"org/fake\",\"diffusing\":true," U "\"max_tokens\":4,"
                          "\"tutti\":{\"placeholder\":\"_\"}}", 1);
    double progress = -1;
    const char *text = NULL;
    for (int i = 0; i < s.frames; i++) {
        const cJSON *meta = cJSON_GetObjectItem(s.frame[i], "diffusion_meta");
        if (!meta)
            continue;
        assert_true(cJSON_IsTrue(at(meta, "diffusion_content")));
        assert_true(number_at(meta, "diffusion_progress") > progress);
        progress = number_at(meta, "diffusion_progress");
        text = text_at(s.frame[i], "choices.0.delta.content");
        if (progress == 0.25)
            assert_string_equal(text, "___d");
    }
    assert_true(progress == 1);
    assert_string_equal(text, "abcd");
    assert_true(s.done);
    stream_free(&s);
}

static void events_rebuild_the_canvas(void **state)
{
    (void)state;
    tt_fake_engine.backwards = true;
    stream s = follow("/v1/infill",
                      "{" M "\"segments\":[{\"hole\":{\"max\":3}},{\"text\":\"-\"},"
                      "{\"hole\":{\"max\":2}}],\"tutti\":{\"stream_mode\":\"delta\"}}",
                      1);
    char canvas[6] = ".....";
    int seen = 0;
    for (int i = 0; i < s.frames; i++) {
        const cJSON *e, *events =
            cJSON_GetObjectItem(cJSON_GetObjectItem(s.frame[i], "tutti"), "events");
        assert_string_equal(text_at(s.frame[i], "choices.0.text"), "");
        cJSON_ArrayForEach(e, events)
        {
            assert_string_equal(text_at(e, "op"), "set");
            assert_true(cJSON_IsTrue(at(e, "committed")));
            assert_true(number_at(e, "logprob") == -0.25);
            canvas[(int)number_at(e, "pos")] = *text_at(e, "text");
            seen++;
        }
    }
    assert_string_equal(canvas, "abcde");
    assert_int_equal(seen, 5); /* each told once */
    assert_true(number_at(s.frame[0], "tutti.canvas") == 5);
    assert_string_equal(text_at(last(&s), "tutti.text"), "abc-de");
    assert_string_equal(text_at(last(&s), "choices.0.holes.1.text"), "de");
    stream_free(&s);
}

static void a_slow_reader_gets_the_newest_state(void **state)
{
    (void)state;
    stream s = follow(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":300,"
                          "\"tutti\":{\"stream_mode\":\"snapshot\"}}", 30);
    assert_true(s.frames < 100); /* far fewer than 300 steps */
    assert_true(s.done);
    stream_free(&s);
}

static void frames_keep_their_distance(void **state)
{
    (void)state;
    tt_fake_engine.step_us = 1000;
    int64_t start = tt_now_ms();
    stream s = follow(CO, "{" M "\"prompt\":\"x\",\"max_tokens\":100,"
                          "\"tutti\":{\"stream_mode\":\"delta\",\"stream_interval_ms\":40}}", 1);
    int64_t most = (tt_now_ms() - start) / 40 + 3;
    assert_true(s.frames <= most);
    stream_free(&s);
}

static void a_failure_is_the_last_frame_and_there_is_no_done(void **state)
{
    (void)state;
    tt_fake_engine.fail = true;
    stream s = follow(CH, "{" M U "\"max_tokens\":4}", 1);
    assert_string_equal(text_at(last(&s), "error.message"), "the fake device is gone");
    assert_false(s.done);
    stream_free(&s);
}

static void a_request_can_be_failed_from_outside(void **state)
{
    (void)state;
    const char *tail, *body = "{" M "\"prompt\":\"x\"}";
    tt_err e = {0};
    tt_gen *g;
    tt_buf out = {0};
    int64_t again;
    int before = tt_fake_engine.cancelled;
    tt_fake_engine.paused = true;
    const tt_route *route = route_of("POST", CO, &tail);
    assert_int_equal(tt_gen_read(&g, &api, route->endpoint, body, strlen(body), 0, &e), TT_OK);
    assert_int_equal(tt_gen_submit(g, NULL, NULL, NULL, &e), TT_OK);
    assert_false(tt_gen_frames(g, tt_now_ms(), &out, &again));
    tt_fail_param(&e, "", "shutting_down", "the server is shutting down");
    tt_gen_fail(g, &e);
    assert_true(tt_gen_frames(g, tt_now_ms(), &out, &again));
    assert_non_null(strstr(tt_buf_text(&out), "\"code\":\"shutting_down\""));
    assert_null(strstr(tt_buf_text(&out), "[DONE]"));
    assert_int_equal(tt_fake_engine.cancelled, before + 1);
    tt_gen_free(g);
    tt_buf_free(&out);
}

static void numbers_of_a_request_are_recorded(void **state)
{
    (void)state;
    const char *tail, *body = "{" M "\"prompt\":\"xyz\",\"n\":2,\"max_tokens\":4}";
    tt_gen *g;
    tt_buf out = {0};
    int64_t again;
    const tt_route *route = route_of("POST", CO, &tail);
    assert_int_equal(
        tt_gen_read(&g, &api, route->endpoint, body, strlen(body), tt_now_ns(), NULL), TT_OK);
    assert_int_equal(tt_gen_submit(g, NULL, NULL, NULL, NULL), TT_OK);
    while (!tt_gen_frames(g, tt_now_ms(), &out, &again))
        nap_ms(1);
    tt_request_record r;
    tt_gen_record(g, &r);
    assert_string_equal(r.model, "org/fake");
    assert_int_equal(r.prompt_tokens, 3);
    assert_int_equal(r.generation_tokens, 8);
    assert_int_equal(r.nfe, 8);
    assert_int_equal(r.finished[TT_FINISH_LENGTH], 2);
    assert_true(r.first_draft >= 0 && r.first_text >= r.first_draft);
    assert_true(r.end_to_end >= r.first_text && r.end_to_end < 10);
    tt_gen_free(g);
    tt_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(deltas_add_up_whatever_the_order_of_commits, fresh),
        cmocka_unit_test_setup(chat_chunks_come_in_the_order_clients_expect, fresh),
        cmocka_unit_test_setup(several_choices_interleave_and_close_once_each, fresh),
        cmocka_unit_test_setup(echo_and_logprobs_stream_too, fresh),
        cmocka_unit_test_setup(stop_strings_are_never_shown, fresh),
        cmocka_unit_test_setup(snapshots_replace_each_other, fresh),
        cmocka_unit_test_setup(events_rebuild_the_canvas, fresh),
        cmocka_unit_test_setup(a_slow_reader_gets_the_newest_state, fresh),
        cmocka_unit_test_setup(frames_keep_their_distance, fresh),
        cmocka_unit_test_setup(a_failure_is_the_last_frame_and_there_is_no_done, fresh),
        cmocka_unit_test_setup(a_request_can_be_failed_from_outside, fresh),
        cmocka_unit_test_setup(numbers_of_a_request_are_recorded, fresh),
    };
    return cmocka_run_group_tests_name("api_stream", tests, open_api, close_api);
}
