/* What can go wrong: marks cut off, zero and huge holes, holes at either end or side by side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/holes.h"

/* Parts as text: literals in quotes, holes as numbers. */
static const char *parts(const char *text)
{
    static char out[512];
    int n = 0;
    out[0] = '\0';
    for (tt_hole_part p; tt_holes_next(&text, &p);) {
        char *to = out + n;
        size_t room = sizeof out - (size_t)n;
        if (p.text)
            n += snprintf(to, room, p.choices ? "{%.*s}" : "'%.*s'", (int)p.bytes, p.text);
        else if (p.min < p.tokens)
            n += snprintf(to, room, "%d-%d", p.min, p.tokens);
        else
            n += snprintf(to, room, "%d", p.tokens);
    }
    return out;
}

static void text_without_holes_is_one_part(void **state)
{
    (void)state;
    assert_string_equal(parts(""), "");
    assert_string_equal(parts("plain"), "'plain'");
    assert_string_equal(parts("a [b] [[c]] d"), "'a [b] [[c]] d'");
}

static void holes_stand_anywhere(void **state)
{
    (void)state;
    assert_string_equal(parts("[[8]]"), "8");
    assert_string_equal(parts("a[[1]]b[[22]]"), "'a'1'b'22");
    assert_string_equal(parts("[[3]][[4]] x"), "34' x'");
    assert_string_equal(parts("[[[5]]]"), "'['5']'");
}

static void lengths_may_be_ranges(void **state)
{
    (void)state;
    assert_string_equal(parts("a[[2-8]]b"), "'a'2-8'b'");
    assert_string_equal(parts("[[5-5]]"), "5");
    assert_string_equal(parts("a[[0-8]]"), "'a'0-8");
    assert_string_equal(parts("[[0-0]]"), "'[[0-0]]'");
    assert_string_equal(parts("[[1-9999]]"), "1-9999");
}

static void holes_may_be_choices(void **state)
{
    (void)state;
    assert_string_equal(parts("a[[yes|no]]b"), "'a'{yes|no}'b'");
    assert_string_equal(parts("[[ x y| z|1-2]]"), "{ x y| z|1-2}");
    assert_string_equal(parts("[[a|b]][[3]]"), "{a|b}3");
}

static void broken_marks_are_text(void **state)
{
    (void)state;
    static const char *const broken[] = {"[[",     "[[8",       "[[8]",
                                         "[[]]",   "[[0]]",     "[[-1]]",
                                         "[[8 ]]", "[[10000]]", "[[99999999999999999999]]",
                                         "[[8-2]]", "[[-2]]",   "[[2-]]",
                                         "[[2-8-9]]", "[[1-10000]]",
                                         "[[|]]",   "[[a|]]",    "[[|a]]",
                                         "[[a||b]]", "[[a|b]",   "[[a]]"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char want[64];
        snprintf(want, sizeof want, "'%s'", broken[i]);
        assert_string_equal(parts(broken[i]), want);
    }
    assert_string_equal(parts("[[9999]]"), "9999");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_without_holes_is_one_part),
        cmocka_unit_test(holes_stand_anywhere),
        cmocka_unit_test(lengths_may_be_ranges),
        cmocka_unit_test(holes_may_be_choices),
        cmocka_unit_test(broken_marks_are_text),
    };
    return cmocka_run_group_tests_name("holes", tests, NULL, NULL);
}
