/* Error sentences, byte buffers, UTF-8.
 *
 * What can go wrong: a sentence cut inside a character or over two lines, a buffer without its
 * final NUL or that forgets that it failed, overlong or surrogate forms let through, the wrong
 * number of replacement characters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/err.h"
#include "kernels/base/utf8.h"

/* --- err --- */

static void a_failure_has_a_status_and_a_sentence(void **state)
{
    (void)state;
    tt_err e = {.param = "old", .code = "old"};
    assert_int_equal(tt_fail(&e, TT_EIO, "cannot read '%s'", "x.json"), TT_EIO);
    assert_int_equal(e.status, TT_EIO);
    assert_string_equal(e.text, "cannot read 'x.json'");
    assert_string_equal(e.param, "");
    assert_string_equal(e.code, "");
    assert_int_equal(tt_context(&e, TT_EIO, "layer %d", 3), TT_EIO);
    assert_string_equal(e.text, "layer 3: cannot read 'x.json'");
    assert_int_equal(tt_fail_param(&e, "stop[2]", "too_long", "at most %d bytes", 16), TT_EINVAL);
    assert_string_equal(e.param, "stop[2]");
    assert_string_equal(e.code, "too_long");
    assert_int_equal(tt_fail(NULL, TT_ENOMEM, "unheard"), TT_ENOMEM);
    assert_int_equal(tt_context(NULL, TT_ENOMEM, "unheard"), TT_ENOMEM);
    assert_int_equal(tt_fail_param(NULL, "a", "b", "unheard"), TT_EINVAL);
}

static void long_sentences_are_cut_between_characters(void **state)
{
    (void)state;
    static const char *const unit[] = {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x8E\xBC"};
    for (int u = 0; u < 4; u++)
        for (int shift = 0; shift < 5; shift++) {
            char long_text[1200] = "";
            memset(long_text, 'x', (size_t)shift);
            while (strlen(long_text) < 1000)
                strcat(long_text, unit[u]);
            tt_err e;
            tt_fail(&e, TT_EINVAL, "%s", long_text);
            assert_true(strlen(e.text) < sizeof e.text && strlen(e.text) > sizeof e.text - 6);
            assert_int_equal(tt_utf8_valid(e.text, strlen(e.text)), strlen(e.text));
            tt_context(&e, TT_EINVAL, "%s", "\xC3\xA9");
            assert_int_equal(tt_utf8_valid(e.text, strlen(e.text)), strlen(e.text));
            tt_fail_param(&e, long_text, "code", "%s", "x");
            assert_int_equal(tt_utf8_valid(e.param, strlen(e.param)), strlen(e.param));
        }
}

static void a_sentence_is_one_line(void **state)
{
    (void)state;
    tt_err e;
    tt_fail(&e, TT_EFORMAT, "a\nb\r\tc%c", 1);
    assert_string_equal(e.text, "a b  c ");
}

static void every_status_has_a_name(void **state)
{
    (void)state;
    for (int s = TT_OK; s <= TT_EBUSY; s++)
        assert_string_not_equal(tt_status_text((tt_status)s), "unknown status");
    assert_string_equal(tt_status_text((tt_status)99), "unknown status");
}

/* --- buf --- */

static void a_buffer_grows_and_stays_a_string(void **state)
{
    (void)state;
    tt_buf b = {0};
    assert_string_equal(tt_buf_text(&b), "");
    for (int i = 0; i < 5000; i++) {
        tt_buf_putc(&b, (char)('a' + i % 26));
        assert_int_equal(b.data[b.size], '\0');
    }
    assert_int_equal(b.size, 5000);
    assert_int_equal(b.data[4999], 'a' + 4999 % 26);
    tt_buf_clear(&b);
    assert_string_equal(tt_buf_text(&b), "");
    tt_buf_printf(&b, "%d-%s", 7, "seven");
    tt_buf_puts(&b, "!");
    tt_buf_add(&b, "\0x", 2);
    assert_int_equal(b.size, 10);
    assert_memory_equal(b.data, "7-seven!\0x", 11);
    char *long_text = malloc(100001);
    memset(long_text, 'z', 100000);
    long_text[100000] = '\0';
    tt_buf_printf(&b, "%s", long_text);
    assert_int_equal(b.size, 100010);
    free(long_text);
    tt_buf_free(&b);
    assert_null(b.data);
}

static void a_buffer_that_failed_stays_failed_until_cleared(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_buf_puts(&b, "kept");
    assert_false(tt_buf_reserve(&b, SIZE_MAX / 2));
    assert_true(b.failed);
    tt_buf_puts(&b, "lost");
    assert_false(tt_buf_reserve(&b, 1));
    assert_string_equal(tt_buf_text(&b), "kept");
    tt_buf_clear(&b);
    tt_buf_puts(&b, "again");
    assert_string_equal(tt_buf_text(&b), "again");
    tt_buf_free(&b);
}

/* --- UTF-8 --- */

static void every_scalar_value_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        char text[4];
        size_t n = tt_utf8_encode(c, text);
        assert_int_equal(n, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        uint32_t back;
        assert_int_equal(tt_utf8_decode(text, n, &back), n);
        assert_int_equal(back, c);
        for (size_t cut = 1; cut < n; cut++)
            assert_int_equal(tt_utf8_length(text, cut), 0);
    }
}

/* All sequences of up to three bytes, and four-byte ones at their limits, against the table of
 * RFC 3629 read literally. */
static bool rfc3629(const unsigned char *p, size_t n)
{
#define IN(i, lo, hi) (n > (i) && p[i] >= (lo) && p[i] <= (hi))
    if (n == 1)
        return p[0] <= 0x7F;
    if (n == 2)
        return IN(0, 0xC2, 0xDF) && IN(1, 0x80, 0xBF);
    if (n == 3)
        return ((IN(0, 0xE0, 0xE0) && IN(1, 0xA0, 0xBF)) ||
                (IN(0, 0xE1, 0xEC) && IN(1, 0x80, 0xBF)) ||
                (IN(0, 0xED, 0xED) && IN(1, 0x80, 0x9F)) ||
                (IN(0, 0xEE, 0xEF) && IN(1, 0x80, 0xBF))) &&
               IN(2, 0x80, 0xBF);
    return ((IN(0, 0xF0, 0xF0) && IN(1, 0x90, 0xBF)) || (IN(0, 0xF1, 0xF3) && IN(1, 0x80, 0xBF)) ||
            (IN(0, 0xF4, 0xF4) && IN(1, 0x80, 0x8F))) &&
           IN(2, 0x80, 0xBF) && IN(3, 0x80, 0xBF);
#undef IN
}

static void exactly_the_well_formed_sequences_are_accepted(void **state)
{
    (void)state;
    static const unsigned char edge[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F,
                                         0xA0, 0xBF, 0xC0, 0xED, 0xF0, 0xFF};
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++)
            for (size_t c = 0; c < sizeof edge; c++)
                for (size_t d = 0; d < sizeof edge; d++) {
                    unsigned char p[4] = {(unsigned char)a, (unsigned char)b, edge[c], edge[d]};
                    size_t want = 0;
                    for (size_t n = 1; n <= 4 && !want; n++)
                        want = rfc3629(p, n) ? n : 0;
                    if (tt_utf8_length((const char *)p, 4) != want)
                        fail_msg("%02x %02x %02x %02x", p[0], p[1], p[2], p[3]);
                }
    uint32_t c;
    assert_int_equal(tt_utf8_decode("\xED\xA0\x80", 3, &c), 0); /* a surrogate */
    assert_int_equal(c, 0xFFFD);
    assert_int_equal(tt_utf8_length("", 0), 0);
}

static void ill_formed_parts_become_as_many_replacements_as_in_browsers(void **state)
{
    (void)state;
#define R "\xEF\xBF\xBD"
    static const struct {
        const char *in, *out;
    } c[] = {
        {"plain \xC3\xA9", "plain \xC3\xA9"},
        {"\xC0\xAF", R R},       /* overlong */
        {"\xED\xA0\x80", R R R}, /* a surrogate */
        {"\xF0\x9F\x92", R},     /* a character cut off */
        {"\xF0\x9F\x92z", R "z"},
        {"\xF4\x90\x80\x80", R R R R}, /* above U+10FFFF */
        {"\xE2\x82\xE2\x82\xAC", R "\xE2\x82\xAC"},
        {"a\xF1\x80\x80\xE1\x80\xC2"
         "b\x80"
         "c\x80\xBF"
         "d",
         "a" R R R "b" R "c" R R "d"},
        {"\xFF", R},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        tt_buf b = {0};
        tt_utf8_repair(&b, c[i].in, strlen(c[i].in));
        assert_string_equal(tt_buf_text(&b), c[i].out);
        tt_buf_free(&b);
    }
#undef R
}

static void only_an_unfinished_last_character_is_held_back(void **state)
{
    (void)state;
    static const char whole[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x8E\xBC";
    static const size_t complete[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
    for (size_t n = 0; n <= 10; n++)
        assert_int_equal(tt_utf8_complete(whole, n), complete[n]);
    /* What can no longer become a character is not held back. */
    assert_int_equal(tt_utf8_complete("a\x80", 2), 2);
    assert_int_equal(tt_utf8_complete("\xED\xA0", 2), 2);
    assert_int_equal(tt_utf8_complete("\xC0", 1), 1);
    assert_int_equal(tt_utf8_complete("\x80\x80\x80\x80", 4), 4);
    assert_int_equal(tt_utf8_valid("ab\xFFz", 4), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_has_a_status_and_a_sentence),
        cmocka_unit_test(long_sentences_are_cut_between_characters),
        cmocka_unit_test(a_sentence_is_one_line),
        cmocka_unit_test(every_status_has_a_name),
        cmocka_unit_test(a_buffer_grows_and_stays_a_string),
        cmocka_unit_test(a_buffer_that_failed_stays_failed_until_cleared),
        cmocka_unit_test(every_scalar_value_survives_a_round_trip),
        cmocka_unit_test(exactly_the_well_formed_sequences_are_accepted),
        cmocka_unit_test(ill_formed_parts_become_as_many_replacements_as_in_browsers),
        cmocka_unit_test(only_an_unfinished_last_character_is_held_back),
    };
    return cmocka_run_group_tests_name("base text", tests, NULL, NULL);
}
