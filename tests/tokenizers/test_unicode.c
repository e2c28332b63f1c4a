/* What can go wrong: marks in the wrong order, a character composed across a border of parts, lower
 * case that is two characters, a character map that points outside itself. */
#include "tests/tokenizers/tok_test.h"
#include "kernels/base/utf8.h"
#include "tokenizers/text/bytes.h"
#include "tokenizers/text/charsmap.h"
#include "tokenizers/text/unicode.h"

#include <utf8proc.h>

static void becomes(tt_uni_form form, const char *text, const char *want)
{
    tt_buf have = {0};
    assert_int_equal(tt_uni_normalize(&have, text, strlen(text), form, NULL), TT_OK);
    assert_string_equal(tt_buf_text(&have), want);
    tt_buf_free(&have);
}

static void marks_are_ordered_and_composed(void **state)
{
    (void)state;
    becomes(TT_NFC, "e\xCC\x81", "\xC3\xA9");
    becomes(TT_NFD, "\xC3\xA9", "e\xCC\x81");
    becomes(TT_NFC, "xe\xCC\x81y", "x\xC3\xA9y");
    becomes(TT_NFC, "e\xCC\x96\xCC\x81", "\xC3\xA9\xCC\x96");
    becomes(TT_NFC, "\xE2\x84\xAB", "\xC3\x85");                             /* Angstrom sign */
    becomes(TT_NFC, "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"); /* Hangul */
    becomes(TT_NFC, "\xEA\xB0\x80\xE1\x86\xA8", "\xEA\xB0\x81");
    becomes(TT_NFKC, "\xEF\xAC\x81\xEF\xBD\xB6\xEF\xBE\x9E", "fi\xE3\x82\xAC"); /* fi, half-width */
    becomes(TT_NFKD, "\xC2\xBD",
            "1\xE2\x81\x84"
            "2");
    becomes(TT_NFC, "", "");
    assert_true(tt_uni_is_normal("plain", 5, TT_NFKD));
    assert_true(tt_uni_is_normal("\xC3\xA9\xE4\xB8\xAD", 5, TT_NFC));
    assert_false(tt_uni_is_normal("e\xCC\x81", 3, TT_NFC));
}

/* Random texts of troublesome characters, against utf8proc doing the whole in one go. */
static void parts_give_what_the_whole_gives(void **state)
{
    (void)state;
    static const uint32_t pool[] = {'a',    'e',    ' ',    0xE9,    0x301,   0x316,  0x327,
                                    0x1100, 0x1161, 0x11A8, 0xAC00,  0x212B,  0x9C7,  0x9BE,
                                    0xF71,  0xF72,  0x3099, 0x30AB,  0xFF76,  0xFF9E, 0xFB01,
                                    0x1F71, 0xFDFA, 0x4E2D, 0x110BA, 0x110A5, 0x1D15E};
    static const utf8proc_option_t options[] = {
        UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    srand(1);
    for (int round = 0; round < 20000; round++) {
        tt_buf text = {0}, have = {0};
        int form = round % 4, n = rand() % 30;
        for (int i = 0; i < n; i++) {
            char c[4];
            size_t k = (size_t)rand() % (sizeof pool / sizeof *pool);
            tt_buf_add(&text, c, tt_utf8_encode(pool[k], c));
        }
        assert_int_equal(
            tt_uni_normalize(&have, tt_buf_text(&text), text.size, (tt_uni_form)form, NULL), TT_OK);
        utf8proc_uint8_t *want = NULL;
        utf8proc_map((const utf8proc_uint8_t *)tt_buf_text(&text), (utf8proc_ssize_t)text.size,
                     &want, options[form]);
        assert_string_equal(tt_buf_text(&have), (char *)want);
        free(want);
        tt_buf_free(&text);
        tt_buf_free(&have);
    }
}

static void lower_case_is_by_character(void **state)
{
    (void)state;
    tt_buf b = {0};
    static const uint32_t cp[] = {'A', 0x130, 0x3A3, 0x1E9E, 0x10400, '1'};
    for (int i = 0; i < 6; i++)
        tt_uni_lower(&b, cp[i]);
    assert_string_equal(tt_buf_text(&b), "ai\xCC\x87\xCF\x83\xC3\x9F\xF0\x90\x90\xA8"
                                         "1");
    tt_buf_free(&b);
}

static void newer_characters_are_as_the_reference_sees_them(void **state)
{
    (void)state;
    assert_true(tt_uni_nonspacing(0x301) && tt_uni_mark(0x301));
    assert_false(tt_uni_nonspacing(0x10D25) || tt_uni_mark(0x10D25)); /* a mark since Unicode 11 */
    assert_true(tt_uni_mark(0x8D4) && !tt_uni_nonspacing(0x8D4));     /* since Unicode 9 */
    assert_false(tt_uni_punctuation(0x2E43));
    assert_true(tt_uni_punctuation('$') && tt_uni_punctuation(0x3002));
    becomes(TT_NFKC, "\xE3\x8B\xBF", "\xE3\x8B\xBF"); /* the era name of 2019 */
    becomes(TT_NFKC, "\xE3\x8D\xBB", "\xE5\xB9\xB3\xE6\x88\x90");
}

static void clusters_end_where_a_reader_sees_it(void **state)
{
    (void)state;
    assert_int_equal(tt_uni_grapheme("e\xCC\x81x", 4), 3);
    assert_int_equal(tt_uni_grapheme("\r\nx", 3), 2);
    assert_int_equal(tt_uni_grapheme("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBBx", 12), 11);
    assert_int_equal(tt_uni_grapheme("\xF0\x9F\x87\xAF\xF0\x9F\x87\xB5\xF0\x9F\x87\xAF", 12), 8);
    assert_int_equal(tt_uni_grapheme("", 0), 0);
}

static void the_byte_alphabet_goes_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        tt_buf spelled = {0}, raw = {0};
        tt_bytes_spell(&spelled, &byte, 1);
        assert_true(tt_bytes_read(&raw, tt_buf_text(&spelled), spelled.size));
        assert_int_equal(raw.size, 1);
        assert_int_equal((unsigned char)raw.data[0], i);
        tt_buf_free(&spelled);
        tt_buf_free(&raw);
    }
    assert_int_equal(tt_bytes_char(' '), 0x120);
    assert_int_equal(tt_bytes_char(0xAD), 0x143);
    tt_buf raw = {0};
    assert_false(tt_bytes_read(&raw, "a\xE4\xB8\xAD", 4));
    assert_int_equal(raw.size, 0);
    tt_buf_free(&raw);
}

/* Trie units at random: a walk must stay inside the arrays (address sanitizer watches). */
static void hostile_character_maps_are_survived(void **state)
{
    (void)state;
    tt_charsmap m;
    size_t covered;
    assert_int_equal(tt_charsmap_open(&m, "abc", 3, NULL), TT_EFORMAT);
    assert_int_equal(tt_charsmap_open(&m, "\xFF\xFF\xFF\xFF", 4, NULL), TT_EFORMAT);
    assert_int_equal(tt_charsmap_open(&m, "\x03\0\0\0abc", 7, NULL), TT_EFORMAT);
    assert_int_equal(tt_charsmap_open_base64(&m, "AA*A", 4, NULL), TT_EFORMAT);
    assert_int_equal(tt_charsmap_open(&m, "", 0, NULL), TT_OK);
    assert_null(tt_charsmap_find(&m, "a", 1, true, &covered));
    srand(1);
    for (int round = 0; round < 3000; round++) {
        unsigned char data[4 + 256 * 4 + 8];
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = (unsigned char)rand();
        memcpy(data, "\0\4\0\0", 4);
        for (size_t i = 4; i < 4 + 256 * 4; i += 4)
            data[i] = (unsigned char)('a' + rand() % 3); /* labels that match */
        if (tt_charsmap_open(&m, data, sizeof data, NULL))
            fail();
        for (int longest = 0; longest < 2; longest++) {
            const char *to = tt_charsmap_find(&m, "abcabcabc", 9, longest, &covered);
            assert_true(!to || (strlen(to) <= 8 && covered <= 9));
        }
        tt_charsmap_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_are_ordered_and_composed),
        cmocka_unit_test(parts_give_what_the_whole_gives),
        cmocka_unit_test(lower_case_is_by_character),
        cmocka_unit_test(newer_characters_are_as_the_reference_sees_them),
        cmocka_unit_test(clusters_end_where_a_reader_sees_it),
        cmocka_unit_test(the_byte_alphabet_goes_both_ways),
        cmocka_unit_test(hostile_character_maps_are_survived),
    };
    return cmocka_run_group_tests_name("characters", tests, NULL, NULL);
}
