/* What can go wrong: a character cut between two events, text that differs between stream and
 * whole, first and last tokens that decoders treat differently, special tokens. */
#include "tests/tokenizers/tok_test.h"

#define BYTES                                                                                     \
    "'pre_tokenizer':{'type':'ByteLevel','add_prefix_space':false,'use_regex':false},'decoder':"  \
    "{'type':'ByteLevel'},'model':{'type':'BPE','vocab':{'\xC3\xA2':0,'\xC4\xA4':1,'\xC2\xAC':2," \
    "'a':3,'\xC4\xA0':4,'\xC3\xB0':5,'\xC5\x81':6},'merges':[]}"

static void characters_are_never_cut(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{" BYTES "}"); /* 0 1 2 are E2 82 AC, the euro sign */
    tt_tok_stream s = {0};
    tt_buf out = {0};
    const int32_t id[] = {3, 0, 1, 2, 0, 3};
    const char *const after[] = {"a",
                                 "",
                                 "",
                                 "\xE2\x82\xAC",
                                 "",
                                 "\xEF\xBF\xBD"
                                 "a"};
    encodes(t, "a\xE2\x82\xAC", "3 0 1 2");
    for (int i = 0; i < 6; i++) {
        tt_buf_clear(&out);
        assert_int_equal(tt_tok_stream_add(t, &s, id[i], &out, NULL), TT_OK);
        assert_string_equal(tt_buf_text(&out), after[i]);
    }
    tt_tok_stream_add(t, &s, 0, &out, NULL);
    tt_buf_clear(&out);
    tt_tok_stream_end(t, &s, &out);
    assert_string_equal(tt_buf_text(&out), "\xEF\xBF\xBD");
    tt_buf_clear(&out);
    tt_tok_stream_end(t, &s, &out); /* a second end adds nothing */
    assert_string_equal(tt_buf_text(&out), "");
    DECODES(t, false, "\xEF\xBF\xBD", 0, 1);             /* unfinished: one for the part */
    DECODES(t, false, "\xEF\xBF\xBD\xEF\xBF\xBD", 2, 2); /* ill-formed: one each */
    tt_buf_free(&out);
    tt_tok_close(t);
}

static void a_piece_is_what_one_token_adds(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok("{'added_tokens':[{'id':9,'content':'\xC3\xA9 x','special':true}]," BYTES "}");
    size_t n;
    assert_memory_equal(tt_tok_piece(t, 1, &n), "\x82", 1);
    assert_int_equal(n, 1);
    assert_memory_equal(tt_tok_piece(t, 9, &n), "\xC3\xA9 x", 4); /* literally */
    assert_int_equal(n, 4);
    DECODES(t, false,
            "a\xC3\xA9 x"
            "a",
            3, 9, 3);
    DECODES(t, true, "aa", 3, 9, 3);
    DECODES(t, true, "\xE2\x82\xAC", 0, 9, 1, 9,
            2); /* a skipped token does not break a character */
    tt_tok_close(t);
}

#define WORDS(decoder)                                                                       \
    "{'decoder':" decoder ",'model':{'type':'WordLevel','unk_token':'?','vocab':{'?':0,"     \
    "'_a':1,'b':2,'##c':3,'.':4,'n</w>':5,'_':6,'__d_':7,'<0xE2>':8,'<0x82>':9,'<0xAC>':10," \
    "'do':11,'not':12,'<0xZZ>':13,'x':14}}}"

static void metaspace_drops_signs_of_the_first_token(void **state)
{
    (void)state;
    tt_tok *t = open_ok(WORDS("{'type':'Metaspace','replacement':'_','prepend_scheme':'always'}"));
    DECODES(t, false, "a ab", 1, 1, 2);
    DECODES(t, false, "d a", 7, 1);
    DECODES(t, false, " a", 6, 1);
    tt_tok_close(t);
    t = open_ok(WORDS("{'type':'Metaspace','replacement':'_','prepend_scheme':'never'}"));
    DECODES(t, false, " a ab", 1, 1, 2);
    tt_tok_close(t);
}

static void wordpiece_joins_continuations_and_cleans_up(void **state)
{
    (void)state;
    tt_tok *t = open_ok(WORDS("{'type':'WordPiece','prefix':'##','cleanup':true}"));
    DECODES(t, false, "##c bc.", 3, 2, 3, 4);
    DECODES(t, false, "b do not", 2, 11, 12); /* cleaned token by token, not across */
    tt_tok_close(t);
    t = open_ok(WORDS("{'type':'WordPiece','prefix':'##','cleanup':false}"));
    DECODES(t, false, "b .", 2, 4);
    tt_tok_close(t);
}

static void word_ends_become_blanks_except_the_last(void **state)
{
    (void)state;
    tt_tok *t = open_ok(WORDS("{'type':'BPEDecoder','suffix':'</w>'}"));
    DECODES(t, false, "n bn", 5, 2, 5);
    DECODES(t, false, "n", 5);
    DECODES(t, false, "n n", 5, 5);
    tt_tok_close(t);
}

static void byte_tokens_join_to_characters(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok(WORDS("{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':"
                      "'_'},'content':' '},{'type':'ByteFallback'},{'type':'Fuse'},"
                      "{'type':'Strip','content':' ','start':1,'stop':0}]}"));
    DECODES(t, false, "\xE2\x82\xAC", 8, 9, 10);
    DECODES(t, false,
            "\xEF\xBF\xBD"
            "b",
            8, 9, 2);
    DECODES(t, false, "a a", 1, 1);
    DECODES(t, false, "<0xZZ>", 13); /* no byte: text */
    DECODES(t, false, " d ", 7);     /* one of two blanks is cut */
    tt_tok_close(t);
}

static void strip_at_the_end_waits_for_what_follows(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok(WORDS("{'type':'Sequence','decoders':[{'type':'Replace','pattern':{'String':"
                      "'_'},'content':' '},{'type':'Fuse'},{'type':'Strip','content':' ',"
                      "'start':1,'stop':2}]}"));
    DECODES(t, false, "b", 2, 6);
    DECODES(t, false, "b", 2, 6, 6);
    DECODES(t, false, "b ", 2, 6, 6, 6);
    DECODES(t, false, "b    b", 2, 6, 6, 6, 6, 2);
    DECODES(t, false, "b", 6, 2);
    DECODES(t, false, " b", 6, 6, 2);
    DECODES(t, false, "", 6);
    DECODES(t, false, "", 6, 6, 6);
    DECODES(t, false, " ", 6, 6, 6, 6);
    tt_tok_close(t);
}

static void no_decoder_joins_with_blanks(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{'model':{'type':'WordLevel','unk_token':'?','vocab':{'?':0,'a':1}}}");
    DECODES(t, false, "a ? a", 1, 0, 1);
    DECODES(t, false, "a", 1);
    decodes(t, NULL, 0, false, "");
    tt_tok_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_never_cut),
        cmocka_unit_test(a_piece_is_what_one_token_adds),
        cmocka_unit_test(metaspace_drops_signs_of_the_first_token),
        cmocka_unit_test(wordpiece_joins_continuations_and_cleans_up),
        cmocka_unit_test(word_ends_become_blanks_except_the_last),
        cmocka_unit_test(byte_tokens_join_to_characters),
        cmocka_unit_test(strip_at_the_end_waits_for_what_follows),
        cmocka_unit_test(no_decoder_joins_with_blanks),
    };
    return cmocka_run_group_tests_name("decoding", tests, NULL, NULL);
}
