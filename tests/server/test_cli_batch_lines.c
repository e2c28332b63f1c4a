/* What can go wrong: lines that are no requests, answers that are no JSON line, an earlier output
 * that ends in the middle of a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/api/gen.h"
#include "server/batch_lines.h"

#define GOOD \
    "{\"custom_id\":\"a\",\"method\":\"POST\",\"url\":\"/v1/completions\",\"body\":{\"n\":1}}"

static void good_line_is_read(void **state)
{
    (void)state;
    tt_batch_line l;
    assert_int_equal(tt_batch_line_read(&l, 3, GOOD, strlen(GOOD), NULL), TT_OK);
    assert_int_equal(l.number, 3);
    assert_string_equal(l.custom_id, "a");
    assert_string_equal(l.body, "{\"n\":1}");
    assert_ptr_equal(l.route->endpoint, &tt_endpoint_completions);
    tt_batch_line_free(&l);
    tt_batch_line_free(&l); /* empty now */
}

static void bad_lines_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *line, *param, *code, *id;
    } bad[] = {
        {"", "", "invalid_json", NULL},
        {"[]", "line", "invalid_value", NULL},
        {"{\"custom_id\":7}", "custom_id", "invalid_value", NULL},
        {"{\"url\":\"/v1/completions\",\"body\":{}}", "custom_id", "missing_required_parameter",
         NULL},
        {"{\"custom_id\":\"a\",\"body\":{}}", "url", "missing_required_parameter", "a"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/completions\"}", "body", "missing_required_parameter",
         "a"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":[]}", "body", "invalid_value",
         "a"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{\"stream\":true}}",
         "body.stream", "unsupported_parameter", "a"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/models\",\"body\":{}}", "url", "invalid_url", "a"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/tokenize\",\"body\":{}}", "url", "invalid_url", "a"},
        {"{\"custom_id\":\"a\",\"url\":\"\",\"body\":{}}", "url", "invalid_url", "a"},
        {"{\"custom_id\":\"a\",\"method\":\"GET\",\"url\":\"/v1/completions\",\"body\":{}}", "url",
         "invalid_url", "a"},
        {"{\"custom_id\":\"a\",\"url\":\"/v1/completions\",\"body\":{},\"x\":1}", "x",
         "unknown_parameter", "a"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err e = {0};
        tt_batch_line l;
        assert_int_equal(tt_batch_line_read(&l, 1, bad[i].line, strlen(bad[i].line), &e),
                         TT_EINVAL);
        assert_string_equal(e.code, bad[i].code);
        assert_string_equal(e.param, bad[i].param);
        assert_int_equal(!l.custom_id, !bad[i].id);
        tt_batch_line_free(&l);
    }
}

static void answers_are_one_line_of_json(void **state)
{
    (void)state;
    tt_buf out = {0};
    tt_batch_line l = {.number = 9, .custom_id = "quote\" and\nline"};
    tt_reply r = {.status = 200};
    tt_buf_puts(&r.body, "{\"x\":1}");
    tt_batch_write_reply(&out, &l, &r);
    assert_string_equal(out.data, "{\"id\":\"batch_req_9\",\"custom_id\":\"quote\\\" and\\nline\","
                                  "\"response\":{\"status_code\":200,\"request_id\":\"req_9\","
                                  "\"body\":{\"x\":1}},\"error\":null}\n");
    tt_buf_clear(&out);
    tt_err e = {0};
    tt_fail_param(&e, "url", "invalid_url", "no such %s", "thing");
    tt_batch_write_error(&out, &(tt_batch_line){.number = 2}, &e);
    assert_string_equal(out.data,
                        "{\"id\":\"batch_req_2\",\"custom_id\":null,\"response\":null,"
                        "\"error\":{\"code\":\"invalid_url\",\"message\":\"no such thing\","
                        "\"param\":\"url\",\"line\":2}}\n");
    tt_buf_free(&r.body);
    tt_buf_free(&out);
}

static void earlier_output_is_read_up_to_its_last_whole_line(void **state)
{
    (void)state;
    static const char text[] =
        "{\"id\":\"1\",\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":{}}}\n"
        "{\"id\":\"2\",\"custom_id\":\"b\",\"response\":{\"status_code\":400,\"body\":{}}}\n"
        "{\"id\":\"3\",\"custom_id\":\"c\",\"response\":null,\"error\":{}}\n"
        "scribble\n"
        "{\"id\":\"4\",\"custom_id\":\"d\",\"response\":{\"status_code\":200,\"body\":{}}}";
    FILE *f = fmemopen((void *)text, sizeof text - 1, "r");
    tt_map *done;
    long end;
    int64_t answers;
    assert_int_equal(tt_map_open(&done, 8, NULL), TT_OK);
    assert_int_equal(tt_batch_read_done(f, done, &end, &answers, NULL), TT_OK);
    assert_int_equal(answers, 1);
    assert_int_equal(end, strrchr(text, '\n') + 1 - text);
    assert_int_equal(tt_map_get(done, "a", 1), 1);
    assert_int_equal(tt_map_get(done, "b", 1), -1);
    assert_int_equal(tt_map_get(done, "c", 1), -1);
    assert_int_equal(tt_map_get(done, "d", 1), -1);
    tt_map_close(done);
    fclose(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_line_is_read),
        cmocka_unit_test(bad_lines_are_refused_by_name),
        cmocka_unit_test(answers_are_one_line_of_json),
        cmocka_unit_test(earlier_output_is_read_up_to_its_last_whole_line),
    };
    return cmocka_run_group_tests_name("batch_lines", tests, NULL, NULL);
}
