/* What can go wrong: a pattern that means something else to PCRE2 than to Oniguruma, for which
 * tokenizer files are written; patterns without end; empty matches. */
#include "tests/tokenizers/tok_test.h"
#include "tokenizers/text/regex.h"

/* All matches, joined with "|". */
static void finds(const char *pattern, const char *text, const char *want)
{
    tt_regex *r;
    tt_matcher *m;
    tt_err e = {0};
    tt_buf have = {0};
    if (tt_regex_open(&r, pattern, strlen(pattern), &e))
        fail_msg("%s: %s", pattern, e.text);
    assert_int_equal(tt_matcher_open(&m, &e), TT_OK);
    tt_regex_scan s = {.text = text, .bytes = strlen(text)};
    for (bool found = true; found;) {
        assert_int_equal(tt_regex_next(r, m, &s, &found, &e), TT_OK);
        if (found) {
            tt_buf_add(&have, text + s.start, s.end - s.start);
            tt_buf_putc(&have, '|');
        }
    }
    if (strcmp(tt_buf_text(&have), want))
        fail_msg("%s in '%s': have '%s', want '%s'", pattern, text, tt_buf_text(&have), want);
    tt_buf_free(&have);
    tt_matcher_close(m);
    tt_regex_close(r);
}

static void refuses(const char *pattern, tt_status want, const char *text)
{
    tt_regex *r;
    tt_err e = {0};
    tt_status st = tt_regex_open(&r, pattern, strlen(pattern), &e);
    assert_null(r);
    if (st != want || !strstr(e.text, text))
        fail_msg("%s: have %d '%s', want %d '%s'", pattern, (int)st, e.text, (int)want, text);
}

static void sets_are_unicode_s(void **state)
{
    (void)state;
    finds("\\s", "a\xC2\x85\xE1\xA0\x8E\xE3\x80\x80\xE2\x80\x8B", "\xC2\x85|\xE3\x80\x80|");
    finds("\\S+",
          "a\xE1\xA0\x8E\xC2\xA0"
          "b",
          "a\xE1\xA0\x8E|b|");
    finds("[^\\s]+", "a\xE1\xA0\x8E b", "a\xE1\xA0\x8E|b|");
    finds("[\\S]", "a \xE2\x80\x8B", "a|\xE2\x80\x8B|");
    finds("\\h+", "xFACE g", "FACE|"); /* hex digits, not blanks */
    finds("[\\H]+", "ag h", "g h|");
    finds("\\d+", "1\xD9\xA2\xC2\xB2", "1\xD9\xA2|");
    finds("\\w+", "a_e\xCC\x81-\xC2\xB2", "a_e\xCC\x81|\xC2\xB2|");
    finds("[\\w]+", "a\xC2\xB2", "a|");
    finds("\\bb",
          "b ab \xC2\xB2"
          "b",
          "b|");
    finds("\\v", "\v\n", "\v|");
}

static void properties_have_long_names(void **state)
{
    (void)state;
    finds("\\p{Letter}+", "ab1", "ab|");
    finds("\\p{Uppercase_Letter}", "aB", "B|");
    finds("\\p{^L}", "a1", "1|");
    finds("\\P{^L}", "a1", "a|");
    finds("\\p{Han}+", "a\xE4\xB8\xAD\xE3\x80\x82", "\xE4\xB8\xAD|");
    finds("\\p{Punct}+", "!+", "!|");
    finds("[[:punct:]]+", "!+", "!+|");
    finds("[[:alpha:][:digit:]]+", "a1-", "a1|");
    finds("[[:^alpha:]]+", "a1-", "1-|");
    refuses("\\p{Klingon}", TT_EUNSUP, "unknown property");
    refuses("\\p{}", TT_EFORMAT, "without a name");
    refuses("\\pL", TT_EFORMAT, "without {name}");
}

static void classes_nest_and_intersect(void **state)
{
    (void)state;
    finds("[a-z&&[^aeiou]]+", "hello", "h|ll|");
    finds("[a[bc]]+", "abcd", "abc|");
    finds("[^a&&[a-c]]", "abcd", "b|c|d|");
    finds("[a-c&&b-d]", "abcd", "b|c|");
    finds("[^a[b]]", "abc", "c|");
    finds("[]a]", "]a", "]|a|");
    finds("[\\]\\[-]+", "][-x", "][-|");
    finds("[a\\-z]+", "a-zb", "a-z|");
    finds("[\\u4e00-\\u9fa5]",
          "\xE4\xB8\xAD"
          "a",
          "\xE4\xB8\xAD|");
    refuses("[a", TT_EFORMAT, "a class without ]");
    refuses("[z-a]", TT_EFORMAT, "an empty range");
    refuses("[a&&]", TT_EFORMAT, "second operand");
}

static void quantifiers_stack_and_intervals_are_not_possessive(void **state)
{
    (void)state;
    finds("\\p{N}{1,3}", "12345", "123|45|");
    finds("\\p{N}{1,3}+", "12345", "12345|"); /* one or more times 1 to 3 */
    finds("a++b|a", "aab aa", "aab|a|a|");
    finds("(?:ab){2}?c", "ababc c", "ababc|c|"); /* twice or not at all */
    finds("a{,2}", "aaa", "aa|a|");
    finds("a{x", "a{x", "a{x|");
    finds("a**b", "aab", "aab|");
    refuses("*a", TT_EFORMAT, "nothing to repeat");
    refuses("a|+", TT_EFORMAT, "nothing to repeat");
}

static void options_and_anchors_are_ruby_s(void **state)
{
    (void)state;
    finds("(?i:'s|'t)", "'S 't '\xC5\xBF", "'S|'t|'\xC5\xBF|");
    finds("a(?i)b|c", "aB ac b", "aB|ac|"); /* the option takes both branches */
    finds("(?m:a.)", "a\n", "a\n|");
    finds("a.", "a\nab", "ab|");
    finds("^a", "a\na", "a|a|");
    finds("a$", "a\nab\na", "a|a|");
    finds("(?#note)a", "a", "a|");
    finds("(?<n>a)\\1", "aab", "aa|");
    refuses("(?~a)", TT_EUNSUP, "option");
    refuses("(*FAIL)", TT_EUNSUP, "(*");
    refuses("a)", TT_EFORMAT, "without (");
    refuses("(a", TT_EFORMAT, "without )");
    refuses("a\\", TT_EFORMAT, "backslash");
    refuses("\\Qa\\E", TT_EUNSUP, "escape");
}

static void empty_matches_do_not_stand_behind_others(void **state)
{
    (void)state;
    finds("b*", "abb\xC3\xA9", "|bb||"); /* before a; "bb"; at the end, not right behind "bb" */
    finds("", "a", "||");
    finds("a*", "", "|");
}

static void patterns_without_end_are_stopped(void **state)
{
    (void)state;
    const char *pattern = "(?:(?:a|a)+)+b";
    tt_regex *r;
    tt_matcher *m;
    tt_err e;
    char text[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaxb";
    assert_int_equal(tt_regex_open(&r, pattern, strlen(pattern), &e), TT_OK);
    assert_int_equal(tt_matcher_open(&m, &e), TT_OK);
    tt_regex_scan s = {.text = text, .bytes = strlen(text)};
    bool found;
    assert_int_equal(tt_regex_next(r, m, &s, &found, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "too many steps"));
    tt_matcher_close(m);
    tt_regex_close(r);
    char *big = malloc(20001);
    memset(big, 'a', 20000);
    big[20000] = '\0';
    refuses(big, TT_EFORMAT, "at most 16384");
    memset(big, '(', 1000);
    big[1000] = '\0';
    refuses(big, TT_EUNSUP, "nested too deep");
    memset(big, '[', 1000);
    refuses(big, TT_EUNSUP, "nested too deep");
    free(big);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_are_unicode_s),
        cmocka_unit_test(properties_have_long_names),
        cmocka_unit_test(classes_nest_and_intersect),
        cmocka_unit_test(quantifiers_stack_and_intervals_are_not_possessive),
        cmocka_unit_test(options_and_anchors_are_ruby_s),
        cmocka_unit_test(empty_matches_do_not_stand_behind_others),
        cmocka_unit_test(patterns_without_end_are_stopped),
    };
    return cmocka_run_group_tests_name("patterns", tests, NULL, NULL);
}
