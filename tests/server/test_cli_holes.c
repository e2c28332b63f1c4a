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
    for (tt_hole_part p; tt_holes_next(&text, &p);)
        n += p.text ? snprintf(out + n, sizeof out - (size_t)n, "'%.*s'", (int)p.bytes, p.text)
                    : snprintf(out + n, sizeof out - (size_t)n, "%d", p.tokens);
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

static void broken_marks_are_text(void **state)
{
    (void)state;
    static const char *const broken[] = {"[[",     "[[8",       "[[8]",
                                         "[[]]",   "[[0]]",     "[[-1]]",
                                         "[[8 ]]", "[[10000]]", "[[99999999999999999999]]"};
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
        cmocka_unit_test(broken_marks_are_text),
    };
    return cmocka_run_group_tests_name("holes", tests, NULL, NULL);
}
