/* What can go wrong: text that cJSON accepts and JSON does not, bytes past the end, numbers that
 * lose value, names that nearly match, keys twice, strings that break a line of a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/base/utf8.h"
#include "server/json_read.h"
#include "server/json_write.h"

/* Parses text placed so that the first byte behind it is not readable. */
static tt_status parse_guarded(const char *text, size_t n, cJSON **out, tt_err *e)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (n / page + 2) * page;
    char *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mprotect(map + room - page, page, PROT_NONE), 0);
    char *at = map + room - page - n;
    memcpy(at, text, n);
    tt_status s = tt_json_parse(out, at, n, e);
    munmap(map, room);
    return s;
}

static void refuses(const char *text, size_t n, const char *says)
{
    cJSON *tree = (cJSON *)1;
    tt_err e = {0};
    assert_int_equal(parse_guarded(text, n, &tree, &e), TT_EINVAL);
    assert_null(tree);
    assert_string_equal(e.code, "invalid_json");
    if (!strstr(e.text, says))
        fail_msg("for %.60s: '%s' does not say '%s'", text, e.text, says);
}

static void broken_text_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "empty"},
        {" ", "line 1"},
        {"{", "line 1, column 2"},
        {"{\"a\":1} junk", "column 9"},
        {"{\"a\":1,\n \"b\":}", "line 2, column 6"},
        {"{\"\xC3\xA9\":tru}", "line 1, column 6"},
        {"[01]", "begin with 0"},
        {"[1.]", "decimal point"},
        {"[1e]", "exponent"},
        {"[-]", "digit"},
        {"[1e400]", "too large"},
        {"[-1e999]", "too large"},
        {"\"\\u0000\"", "U+0000"},
        {"\"\\u00\"", "hexadecimal"},
        {"\"\\x41\"", "escape"},
        {"\"\\ud800\"", "line 1"},
        {"\"a\nb\"", "control character"},
        {"{\x01}", "control character"},
        {"\"abc", "does not end"},
        {"\"abc\\", "escape"},
        {"\"\xC3\"", "UTF-8"},
        {"\"\xED\xA0\x80\"", "UTF-8"},
        {"\"\xC0\x80\"", "UTF-8"},
        {"{'a':1}", "line 1"},
        {"[1,]", "line 1"},
        {"nul", "line 1"},
        {"NaN", "line 1"},
        {"[Infinity]", "line 1"},
        {"/* c */ 1", "line 1"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses(bad[i].text, strlen(bad[i].text), bad[i].says);
    refuses("\"a\0b\"", 5, "control character");
    refuses("{}\0", 3, "control character");
    refuses("1234567890123456789012345678901234567890123456789012345678901234", 64, "digits");
}

static void depth_and_number_of_values_are_bounded(void **state)
{
    (void)state;
    char deep[2 * TT_JSON_MAX_DEPTH + 3];
    cJSON *tree;
    for (int extra = 0; extra < 2; extra++) {
        int n = TT_JSON_MAX_DEPTH + extra;
        memset(deep, '[', (size_t)n);
        memset(deep + n, ']', (size_t)n);
        if (extra) {
            refuses(deep, 2 * (size_t)n, "deeply");
        } else {
            assert_int_equal(tt_json_parse(&tree, deep, 2 * (size_t)n, NULL), TT_OK);
            cJSON_Delete(tree);
        }
    }
    size_t n = 2 * (TT_JSON_MAX_VALUES + 2) + 1;
    char *wide = malloc(n);
    for (size_t i = 0; i < n; i++)
        wide[i] = i == 0 ? '[' : i == n - 1 ? ']' : i % 2 ? '1' : ',';
    refuses(wide, n, "too many values");
    free(wide);
}

static void duplicate_keys_are_refused_at_any_depth(void **state)
{
    (void)state;
    refuses("{\"a\":1,\"a\":2}", 13, "'a' appears twice");
    const char *nested = "{\"x\":[{\"b\":1,\"c\":2,\"b\":3}]}";
    refuses(nested, strlen(nested), "'b' appears twice");
    cJSON *tree; /* case counts: these two are different keys */
    assert_int_equal(tt_json_parse(&tree, "{\"a\":1,\"A\":2}", 13, NULL), TT_OK);
    assert_null(tt_json_get(tree, "seed"));
    assert_int_equal(tt_json_get(tree, "A")->valueint, 2);
    cJSON_Delete(tree);
}

static cJSON *parsed(const char *text)
{
    cJSON *tree;
    tt_err e = {0};
    if (parse_guarded(text, strlen(text), &tree, &e))
        fail_msg("%s", e.text);
    return tree;
}

static void good_text_keeps_its_values(void **state)
{
    (void)state;
    cJSON *t = parsed("\xEF\xBB\xBF{\"s\":\"\\u00e9\\ud83d\\ude00\\\"\\\\\\/\",\"n\":-0.5e+1,"
                      "\"big\":9007199254740992,\"t\":true,\"z\":null,\"Seed\":1}");
    const char *text;
    double number;
    int64_t whole;
    bool truth;
    assert_int_equal(tt_json_text(tt_json_get(t, "s"), "s", &text, NULL), TT_OK);
    assert_string_equal(text, "\xC3\xA9\xF0\x9F\x98\x80\"\\/");
    assert_int_equal(tt_json_number(tt_json_get(t, "n"), "n", -10, 0, &number, NULL), TT_OK);
    assert_true(number == -5);
    assert_int_equal(
        tt_json_int(tt_json_get(t, "big"), "big", 0, TT_JSON_MAX_INT, &whole, NULL), TT_OK);
    assert_true(whole == TT_JSON_MAX_INT);
    assert_int_equal(tt_json_bool(tt_json_get(t, "t"), "t", &truth, NULL), TT_OK);
    assert_true(truth);
    assert_null(tt_json_get(t, "z"));    /* null counts as absent */
    assert_null(tt_json_get(t, "seed")); /* "Seed" does not answer for it */
    cJSON_Delete(t);
}

static void reading_names_the_field(void **state)
{
    (void)state;
    cJSON *t = parsed("{\"a\":1.5,\"b\":\"x\",\"c\":1e300,\"d\":7}");
    tt_err e = {0};
    int64_t whole = 42;
    double number = 42;
    tt_json_path p = tt_json_member(tt_json_element("messages", 2).text, "content");
    assert_string_equal(p.text, "messages[2].content");
    assert_int_equal(tt_json_int(tt_json_get(t, "a"), p.text, 0, 9, &whole, &e), TT_EINVAL);
    assert_string_equal(e.param, "messages[2].content");
    assert_string_equal(e.code, "invalid_value");
    assert_non_null(strstr(e.text, "1.5"));
    assert_int_equal(tt_json_int(tt_json_get(t, "c"), "c", 0, INT64_MAX, &whole, &e), TT_EINVAL);
    assert_int_equal(tt_json_int(tt_json_get(t, "d"), "d", 0, 6, &whole, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "0..6"));
    assert_int_equal(tt_json_int(tt_json_get(t, "b"), "b", 0, 6, &whole, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "a string, must be an integer"));
    assert_int_equal(tt_json_number(tt_json_get(t, "d"), "d", 8, 9, &number, &e), TT_EINVAL);
    assert_true(whole == 42 && number == 42);
    cJSON_Delete(t);
}

static void a_path_longer_than_its_field_is_cut(void **state)
{
    (void)state;
    char key[300];
    memset(key, 'k', sizeof key - 1);
    key[sizeof key - 1] = '\0';
    tt_json_path p = tt_json_member(key, key);
    assert_true(strlen(p.text) < sizeof p.text);
    p = tt_json_element(key, 2147483647);
    assert_non_null(strstr(p.text, "[2147483647]"));
}

/* --- writing --- */

static void writer_places_commas_and_escapes(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_json w = {.out = &b};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "a\"b", "x\n\t\"\\\x01\x7F\xE2\x80\xA8");
    tt_json_int_member(&w, "i", INT64_MIN);
    tt_json_open_member(&w, "l", '[');
    tt_json_put_null(&w);
    tt_json_put_bool(&w, true);
    tt_json_open(&w, '{');
    tt_json_close(&w, '}');
    tt_json_put_text(&w, NULL);
    tt_json_close(&w, ']');
    tt_json_float_member(&w, "f", 0.1);
    tt_json_float_member(&w, "n", -1.0 / 0.0);
    tt_json_close(&w, '}');
    assert_string_equal(tt_buf_text(&b),
                        "{\"a\\\"b\":\"x\\n\\t\\\"\\\\\\u0001\\u007f\xE2\x80\xA8\","
                        "\"i\":-9223372036854775808,\"l\":[null,true,{},null],\"f\":0.1,"
                        "\"n\":null}");
    tt_buf_free(&b);
}

static void any_bytes_come_out_as_valid_json_on_one_line(void **state)
{
    (void)state;
    srand(1);
    for (int round = 0; round < 2000; round++) {
        char raw[40], text[200];
        size_t n = (size_t)(rand() % 40), bytes;
        for (size_t i = 0; i < n; i++)
            raw[i] = (char)(rand() % 256);
        tt_buf b = {0}, want = {0};
        tt_json w = {.out = &b};
        tt_json_put_bytes(&w, raw, n);
        assert_null(memchr(b.data, '\n', b.size));
        assert_int_equal(tt_utf8_valid(b.data, b.size), b.size);
        if (!memchr(raw, 0, n)) { /* our own reader refuses U+0000 */
            cJSON *t = NULL;
            assert_int_equal(tt_json_parse(&t, b.data, b.size, NULL), TT_OK);
            tt_utf8_repair(&want, raw, n);
            bytes = (size_t)snprintf(text, sizeof text, "%s", tt_buf_text(&want));
            assert_int_equal(strlen(t->valuestring), bytes);
            assert_string_equal(t->valuestring, text);
            cJSON_Delete(t);
        }
        tt_buf_free(&b);
        tt_buf_free(&want);
    }
}

static void floats_keep_nine_digits_and_integers_all(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_json w = {.out = &b};
    tt_json_open(&w, '[');
    tt_json_put_float(&w, 16777217.0);
    tt_json_put_int(&w, 9007199254740993);
    tt_json_put_float(&w, 1e-45);
    tt_json_close(&w, ']');
    assert_string_equal(tt_buf_text(&b), "[16777217,9007199254740993,1e-45]");
    tt_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_text_is_refused_with_its_place),
        cmocka_unit_test(depth_and_number_of_values_are_bounded),
        cmocka_unit_test(duplicate_keys_are_refused_at_any_depth),
        cmocka_unit_test(good_text_keeps_its_values),
        cmocka_unit_test(reading_names_the_field),
        cmocka_unit_test(a_path_longer_than_its_field_is_cut),
        cmocka_unit_test(writer_places_commas_and_escapes),
        cmocka_unit_test(any_bytes_come_out_as_valid_json_on_one_line),
        cmocka_unit_test(floats_keep_nine_digits_and_integers_all),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
