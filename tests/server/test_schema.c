/* JSON schemas as regular expressions, judged by PCRE2.
 *
 * What can go wrong: a text that is no JSON or not of the schema is let through, a good one is not,
 * a keyword is skipped that would have forbidden something. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "server/api/constrain.h"

static bool fits(const char *regex, const char *text)
{
    int code;
    size_t at;
    tt_buf whole = {0};
    tt_buf_printf(&whole, "\\A(?:%s)\\z", regex);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)tt_buf_text(&whole), whole.size,
                                   PCRE2_UTF | PCRE2_NO_AUTO_CAPTURE, &code, &at, NULL);
    assert_non_null(re);
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    int rc = pcre2_match(re, (PCRE2_SPTR)text, strlen(text), 0, 0, m, NULL);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    tt_buf_free(&whole);
    return rc >= 0;
}

static cJSON *parse(const char *text)
{
    cJSON *s;
    tt_err e;
    if (tt_json_parse(&s, text, strlen(text), &e))
        fail_msg("%s: %s", text, e.text);
    return s;
}

typedef struct {
    const char *schema, *good[8], *bad[8];
} sample;

static void texts_of_a_schema(void **state)
{
    (void)state;
#define ABC                                                                            \
    "\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"},"                    \
    "\"c\":{\"const\":0}}"
    static const sample list[] = {
        {"{\"type\":\"integer\"}", {"0", "-7", "120"}, {"", "01", "1.5", "+1", "1e3", "--1"}},
        {"{\"type\":\"number\",\"minimum\":0}", {"0.5", "3", "1e-7", "2.25E+10"},
         {"-1", ".5", "1."}},
        {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "0", "null"}},
        {"{\"type\":[\"string\",\"null\"]}",
         {"null", "\"\"", "\"a b\"", "\"\xC3\xA9\\n\\\"\\\\\"", "\"\\u001f\""},
         {"\"", "\"a\nb\"", "\"\\x\"", "\"\\ud800\"", "nul", "\"a\"b\""}},
        {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
         {"\"ab\"", "\"\xE2\x82\xAC\\t\xF0\x9F\x98\x80\""}, {"\"a\"", "\"abcd\""}},
        {"{\"type\":\"string\",\"format\":\"date-time\"}", {"\"2026-11-28T09:30:00Z\""},
         {"\"2026-13-28T09:30:00Z\"", "\"2026-11-28\"", "\"2026-11-28T24:00:00Z\""}},
        {"{\"type\":\"string\",\"format\":\"ipv4\"}", {"\"10.0.255.1\""}, {"\"10.0.256.1\""}},
        {"{\"enum\":[\"a.b\",7,null,[1,{\"x\":\"}\"}]]}",
         {"\"a.b\"", "7", "null", "[1,{\"x\":\"}\"}]"}, {"\"axb\"", "77", "[1]"}},
        {"{\"anyOf\":[{\"type\":\"integer\"},{\"const\":\"x|y\"}]}", {"12", "\"x|y\""},
         {"\"x", "y\""}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":2,\"maxItems\":3}",
         {"[1, 2]", "[1,2,3]"}, {"[1]", "[]", "[1,2,3,4]", "[1,2,]", "[,1,2]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}}",
         {"[]", "[true]", "[true, false, true]"}, {"[1]", "[true false]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"maxItems\":0}", {"[]"},
         {"[true]"}},
        {"{\"type\":\"object\"," ABC ",\"required\":[\"a\",\"b\",\"c\"]}",
         {"{\"a\": 1, \"b\": null, \"c\": 0}", "{\"a\":1,\"b\":null,\"c\":0}"},
         {"{\"a\": 1}", "{\"b\": null, \"a\": 1, \"c\": 0}", "{\"a\": 1, \"b\": null, \"c\": 0,}"}},
        {"{\"type\":\"object\"," ABC ",\"required\":[\"b\"]}",
         {"{\"b\": null}", "{\"a\": 1, \"b\": null}", "{\"b\": null, \"c\": 0}",
          "{\"a\": 1, \"b\": null, \"c\": 0}"},
         {"{}", "{\"a\": 1}", "{, \"b\": null}", "{\"a\": 1 \"b\": null}", "{\"b\": null, }"}},
        {"{" ABC "}",
         {"{}", "{\"a\": 1}", "{\"b\": null}", "{\"c\": 0}", "{\"a\": 1, \"c\": 0}",
          "{\"b\": null, \"c\": 0}", "{\"a\": 1, \"b\": null, \"c\": 0}"},
         {"{\"c\": 0, \"a\": 1}", "{\"a\": 1,}", "{,\"a\": 1}", "{\"d\": 1}"}},
        {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}"}, {"{\"a\": 1}"}},
        {"{\"$ref\":\"#/$defs/p\",\"$defs\":{\"p\":{\"type\":\"object\",\"required\":[\"q\"],"
         "\"properties\":{\"q\":{\"$ref\":\"#/$defs/n\"}}},\"n\":{\"type\":\"integer\"}}}",
         {"{\"q\": 5}"}, {"{\"q\": true}", "5"}},
        {"{}", {"1", "\"x\"", "[1, [2, {\"a\": true}]]", "{\"a\": {\"b\": [null]}}", "{}", "[]"},
         {"[1", "{a: 1}", "[[[[1]]]]", "{\"a\":}"}},
        {"{\"properties\":{\"\\\"q\\\" (x)*\":{\"const\":1}},\"required\":[\"\\\"q\\\" (x)*\"]}",
         {"{\"\\\"q\\\" (x)*\": 1}"}, {"{\"\\\"q\\\" xx\": 1}"}},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        cJSON *schema = parse(list[i].schema);
        tt_buf regex = {0};
        tt_err e;
        if (tt_schema_regex(schema, "s", &regex, &e))
            fail_msg("%s: %s", list[i].schema, e.text);
        for (int k = 0; k < 8 && list[i].good[k]; k++) {
            if (!fits(tt_buf_text(&regex), list[i].good[k]))
                fail_msg("%s refuses %s", list[i].schema, list[i].good[k]);
            cJSON_Delete(parse(list[i].good[k])); /* JSON it is */
        }
        for (int k = 0; k < 8 && list[i].bad[k]; k++)
            if (fits(tt_buf_text(&regex), list[i].bad[k]))
                fail_msg("%s takes %s", list[i].schema, list[i].bad[k]);
        tt_buf_free(&regex);
        cJSON_Delete(schema);
    }
}

static void what_is_not_supported_is_named(void **state)
{
    (void)state;
    static const char *const list[][2] = {
        {"{\"type\":\"string\",\"pattern\":\"a\"}", "s.pattern"},
        {"{\"type\":\"string\",\"format\":\"email\"}", "s.format"},
        {"{\"type\":\"integer\",\"minimum\":1}", "s.minimum"},
        {"{\"type\":\"integer\",\"multipleOf\":2}", "s.multipleOf"},
        {"{\"type\":\"text\"}", "s.type"},
        {"{\"type\":[1]}", "s.type"},
        {"{\"type\":\"array\",\"items\":{\"not\":{}}}", "s.items.not"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "s.maxItems"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "s.uniqueItems"},
        {"{\"properties\":{\"a\":{\"if\":{}}}}", "s.properties.a.if"},
        {"{\"properties\":{\"a\":{}},\"required\":[\"b\"]}", "s.required"},
        {"{\"properties\":{\"a\":{}},\"additionalProperties\":{}}", "s.additionalProperties"},
        {"{\"anyOf\":[{\"type\":\"null\"},{\"x\":1}]}", "s.anyOf[1].x"},
        {"{\"anyOf\":[]}", "s.anyOf"},
        {"{\"allOf\":[{},{}]}", "s.allOf"},
        {"{\"$ref\":\"other.json\"}", "s.$ref"},
        {"{\"$ref\":\"#/$defs/none\"}", "s.$ref"},
        {"[]", "s"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        cJSON *schema = parse(list[i][0]);
        tt_buf regex = {0};
        tt_err e = {0};
        if (tt_schema_regex(schema, "s", &regex, &e) != TT_EINVAL)
            fail_msg("%s is taken", list[i][0]);
        assert_string_equal(e.param, list[i][1]);
        tt_buf_free(&regex);
        cJSON_Delete(schema);
    }
    cJSON *schema = parse("{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"array\",\"items\":"
                          "{\"$ref\":\"#/$defs/t\"}}}}");
    tt_buf regex = {0};
    tt_err e = {0};
    assert_int_equal(tt_schema_regex(schema, "s", &regex, &e), TT_EINVAL); /* recursive */
    assert_non_null(strstr(e.text, "refers to itself"));
    tt_buf_free(&regex);
    cJSON_Delete(schema);
}

/* The automaton stays small where schemas are as people write them. */
static void automata_are_small(void **state)
{
    (void)state;
    tt_buf regex = {0};
    tt_schema_any_object(&regex);
    const tt_alphabet none = {.vocab = 0};
    tt_grammar *g;
    tt_err e;
    if (tt_grammar_open(&g, tt_buf_text(&regex), regex.size, &none, &e))
        fail_msg("%s", e.text);
    assert_true(tt_grammar_states(g) < 800);
    tt_grammar_close(g);
    tt_buf_free(&regex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_of_a_schema),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(automata_are_small),
    };
    return cmocka_run_group_tests_name("schemas", tests, NULL, NULL);
}
