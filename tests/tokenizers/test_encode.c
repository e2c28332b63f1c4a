/* What can go wrong: control tokens forged by users, white space around added tokens, joints
 * between pieces, unknown characters, long runs that make encoding crawl, ill-formed bytes. */
#include "tests/tokenizers/tok_test.h"

#include <time.h>

/* Characters a-e and blank; "ab", "abc", "bc"; merges in this order: b+c before a+b. */
#define ABC                                                                                      \
    "'model':{'type':'BPE','vocab':{'a':0,'b':1,'c':2,'d':3,'e':4,' ':5,'ab':6,'bc':7,'abc':8}," \
    "'merges':['b c','a b','a bc']}"

static void merges_go_by_rank_then_from_the_left(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{" ABC "}");
    encodes(t, "", "");
    encodes(t, "abc", "8");
    encodes(t, "ababc", "6 8");
    encodes(t, "abd", "6 3");
    encodes(t, "bcbc", "7 7");
    encodes(t, "xaxbx", "6"); /* no unk_token: unknown characters vanish before merging */
    tt_tok_close(t);
}

static void unknown_characters_fuse_only_when_asked(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok("{'model':{'type':'BPE','unk_token':'?','fuse_unk':true,'vocab':{'a':0,'?':1},"
                "'merges':[]}}");
    encodes(t, "xxaxx", "1 0 1");
    tt_tok_close(t);
    t = open_ok("{'model':{'type':'BPE','unk_token':'?','vocab':{'a':0,'?':1},'merges':[]}}");
    encodes(t, "xxax", "1 1 0 1");
    tt_tok_close(t);
    t = open_ok("{'model':{'type':'BPE','unk_token':'?','vocab':{'a':0},'merges':[]}}");
    tt_ids ids = {0};
    tt_err e;
    assert_int_equal(tt_tok_encode(t, "ax", 2, 0, &ids, &e), TT_EFORMAT);
    assert_int_equal(ids.count, 0); /* nothing half done is left */
    tt_ids_free(&ids);
    tt_tok_close(t);
}

static void bytes_stand_for_unknown_characters(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok("{'model':{'type':'BPE','unk_token':'?','byte_fallback':true,'vocab':{'a':0,"
                "'?':1,'<0xC3>':2,'<0xA9>':3,'<':4,'0':5,'x':6,'C':7,'3':8,'>':9},"
                "'merges':[]}}");
    encodes(t, "a\xC3\xA9", "0 2 3");
    encodes(t, "\xC3\xA8", "1");         /* one of its bytes has no token */
    encodes(t, "<0xC3>", "4 5 6 7 8 9"); /* spelled out, not read as that byte */
    tt_tok_close(t);
}

static void whole_pieces_may_skip_the_merges(void **state)
{
    (void)state;
    const char *file = "{'pre_tokenizer':{'type':'WhitespaceSplit'},'model':{'type':'BPE',%s"
                       "'vocab':{'a':0,'b':1,'ab':2,'aab':3},'merges':['a b']}}";
    char json[400];
    snprintf(json, sizeof json, file, "");
    tt_tok *t = open_ok(json);
    encodes(t, "aab aab", "0 2 0 2");
    tt_tok_close(t);
    snprintf(json, sizeof json, file, "'ignore_merges':true,");
    t = open_ok(json);
    encodes(t, "aab ab", "3 2");
    tt_tok_close(t);
}

static void words_end_in_their_suffix(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{'pre_tokenizer':{'type':'WhitespaceSplit'},'model':{'type':'BPE',"
                        "'end_of_word_suffix':'</w>','vocab':{'a':0,'b':1,'a</w>':2,'b</w>':3,"
                        "'ab</w>':4},'merges':['a b</w>']}}");
    encodes(t, "ab a b aba", "4 2 3 0 1 2");
    tt_tok_close(t);
}

static void special_tokens_are_text_unless_asked_for(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok("{'added_tokens':[{'id':20,'content':'bc','special':true},{'id':21,"
                "'content':'e','special':false},{'id':22,'content':'bcd','special':true}],"
                "'post_processor':{'type':'BertProcessing','cls':['x',7],'sep':['y',22]}," ABC "}");
    encodes_to(t, "abce", 4, 0, "8 4");
    encodes_to(t, "abce", 4, TT_TOK_PARSE_SPECIAL,
               "0 7 4");                                 /* the model's own ids for known texts */
    encodes_to(t, "bcd", 3, TT_TOK_PARSE_SPECIAL, "22"); /* the longest wins */
    encodes_to(t, "a", 1, TT_TOK_ADD_SPECIAL, "7 0 22");
    tt_tok_close(t);
}

static void added_tokens_take_blanks_and_words_as_told(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{'added_tokens':["
                        "{'id':10,'content':'<l>','lstrip':true,'special':true},"
                        "{'id':11,'content':'<r>','rstrip':true,'special':true},"
                        "{'id':12,'content':'dd','single_word':true}],"
                        "'normalizer':{'type':'Lowercase'}," ABC "}");
    encodes(t, "a <l> b", "0 10 5 1");
    encodes(t, "a <r> b", "0 5 11 1");
    encodes(t, "a \xE3\x80\x80\n<l>", "0 10");
    encodes(t, "<l><r>", "10 11");
    encodes(t, "dd add dda (dd)", "12 5 0 3 3 5 3 3 0 5 12");
    encodes(t, "DD", "12"); /* normalised before it is looked for */
    encodes(t, "<L>", "");  /* special: looked for as it is, and "<" is unknown */
    tt_tok_close(t);
}

static void added_blanks_share_a_run(void **state)
{
    (void)state;
    const char *file = "{'added_tokens':[{'id':10,'content':'  ','lstrip':%s,'rstrip':%s,"
                       "'special':true}]," ABC "}";
    char json[600];
    snprintf(json, sizeof json, file, "true", "true");
    tt_tok *t = open_ok(json);
    encodes(t, "a      b", "0 10 1"); /* the first takes the whole run */
    tt_tok_close(t);
    snprintf(json, sizeof json, file, "false", "true");
    t = open_ok(json);
    encodes(t, "a    b", "0 10 10 1");
    tt_tok_close(t);
}

static void a_text_that_lost_its_beginning_has_no_first_piece(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok("{'normalizer':{'type':'Strip','strip_left':true,'strip_right':true},"
                "'pre_tokenizer':{'type':'Metaspace','replacement':'_','prepend_scheme':"
                "'first'},'model':{'type':'WordLevel','unk_token':'?','vocab':{'?':0,'_a':1,"
                "'a':2}}}");
    encodes(t, "a", "1");
    encodes(t, " a", "2"); /* so the reference has it */
    tt_tok_close(t);
}

static void split_behaviours_differ_in_the_match(void **state)
{
    (void)state;
    static const struct {
        const char *behavior, *plain, *inverted;
    } cases[] = {
        /* "ab c d": a cut shows where "ab" or "b c" cannot join; here blanks are the pattern */
        {"Removed", "10 0 11", "2 2"},
        {"Isolated", "10 2 0 2 11", "10 2 0 2 11"},
        {"MergedWithPrevious", "12 3 11", "10 13 14"},
        {"MergedWithNext", "10 13 14", "12 3 11"},
        {"Contiguous", "10 2 0 2 11", "10 2 0 2 11"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int invert = 0; invert < 2; invert++) {
            char json[700];
            snprintf(
                json, sizeof json,
                "{'pre_tokenizer':{'type':'Split','pattern':{'String':' '},'behavior':'%s',"
                "'invert':%s},'model':{'type':'WordLevel','unk_token':'?','vocab':{'?':9,'c':0,"
                "' ':2,'c ':3,'ab':10,'d':11,'ab ':12,' c':13,' d':14}}}",
                cases[i].behavior, invert ? "true" : "false");
            tt_tok *t = open_ok(json);
            encodes(t, "ab c d", invert ? cases[i].inverted : cases[i].plain);
            tt_tok_close(t);
        }
}

static void metaspace_marks_the_beginning_by_its_scheme(void **state)
{
    (void)state;
    static const struct {
        const char *scheme, *ids;
    } cases[] = {{"always", "1 2 9 1"}, {"first", "1 2 9 3"}, {"never", "3 2 9 3"}};
    for (size_t i = 0; i < 3; i++) {
        char json[500];
        snprintf(json, sizeof json,
                 "{'added_tokens':[{'id':9,'content':'<s>','special':true}],'pre_tokenizer':"
                 "{'type':'Metaspace','replacement':'_','prepend_scheme':'%s'},'model':{'type':"
                 "'WordLevel','unk_token':'?','vocab':{'?':0,'_a':1,'_b':2,'a':3}}}",
                 cases[i].scheme);
        tt_tok *t = open_ok(json);
        encodes(t, "a b<s>a", cases[i].ids);
        tt_tok_close(t);
    }
}

static void wordpiece_takes_the_longest_or_gives_up_the_word(void **state)
{
    (void)state;
    tt_tok *t =
        open_ok("{'pre_tokenizer':{'type':'BertPreTokenizer'},'model':{'type':'WordPiece',"
                "'unk_token':'[UNK]','max_input_chars_per_word':6,'vocab':{'[UNK]':0,'un':1,"
                "'##able':2,'##a':3,'una':4,'##ble':5,'##':6,'.':7}}}");
    encodes(t, "unable.", "4 5 7");
    encodes(t, "una", "4");
    encodes(t, "unx un", "0 1");
    encodes(t, "unablea", "0"); /* seven characters */
    tt_tok_close(t);
}

static void unigram_takes_the_best_sum(void **state)
{
    (void)state;
    const char *file = "{'model':{'type':'Unigram','unk_id':0,'vocab':[['?',0],['a',-1],['b',-1],"
                       "['ab',-1.5],['abc',-9],['c',-1]]}}";
    tt_tok *t = open_ok(file);
    encodes(t, "abc", "3 5"); /* -2.5 beats -3 and -9 */
    encodes(t, "xy", "0");    /* unknown neighbours are one unknown */
    encodes(t, "axyb", "1 0 2");
    tt_tok_close(t);
    t = open_ok("{'model':{'type':'Unigram','vocab':[['a',-1]]}}");
    tt_ids ids = {0};
    tt_err e;
    assert_int_equal(tt_tok_encode(t, "b", 1, 0, &ids, &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "unk_id"));
    tt_ids_free(&ids);
    tt_tok_close(t);
}

static void ill_formed_bytes_become_replacement_characters(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{'model':{'type':'BPE','vocab':{'a':0,'\xEF\xBF\xBD':1},'merges':[]}}");
    encodes_to(t, "a\xFF", 2, 0, "0 1");
    encodes_to(t, "\xE4\xBD", 2, 0, "1"); /* one maximal part */
    encodes_to(t,
               "\xE4\xBD"
               "a\xC0\x80",
               5, 0, "1 0 1 1");
    encodes_to(t, "a\0a", 3, 0, "0 0");
    tt_tok_close(t);
}

static void normalisers_work_in_order(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{'normalizer':{'type':'Sequence','normalizers':[{'type':'Strip',"
                        "'strip_left':true,'strip_right':true},{'type':'NFD'},{'type':"
                        "'StripAccents'},{'type':'Lowercase'},{'type':'Replace','pattern':{'Regex':"
                        "'c+'},'content':'b'},{'type':'Prepend','prepend':'a'}]}," ABC "}");
    encodes(t, " \xC3\x81\xC3\x84 CCC\n", "0 0 0 5 1");
    encodes(t, "  ", "");
    tt_tok_close(t);
}

/* A megabyte of one kind; anything quadratic would take minutes. */
static void long_runs_do_not_crawl(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    tt_tok *t[] = {
        open_ok(
            "{'normalizer':{'type':'NFC'},'model':{'type':'BPE','unk_token':'a','fuse_unk':true,"
            "'vocab':{'a':0,'aa':1,'aaaa':2},'merges':['a a','aa aa']}}"),
        open_ok("{'normalizer':{'type':'BertNormalizer'},'pre_tokenizer':{'type':'Split','pattern':"
                "{'Regex':'\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+|[^\\\\s]+?(?=b)'},"
                "'behavior':'Isolated'},'model':{'type':'WordPiece','unk_token':'a',"
                "'max_input_chars_per_word':2000000000,'vocab':{'a':0,'##a':1,'##aaaaaaaaa':2}}}"),
        open_ok(
            "{'model':{'type':'Unigram','unk_id':0,'vocab':[['?',0],['a',-1],['aaaaaaaa',-2]]}}"),
    };
    static const char *const unit[] = {"a", " ", "\n", "\xCC\x81", "\xCC\x96\xCC\x81", "<", "\xFF"};
    char *text = malloc(N);
    assert_non_null(text);
    clock_t start = clock();
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
            size_t k = strlen(unit[u]);
            for (size_t at = 0; at + k <= N; at += k)
                memcpy(text + at, unit[u], k);
            tt_ids ids = {0};
            tt_err e;
            if (tt_tok_encode(t[i], text, N - N % k, 0, &ids, &e))
                fail_msg("tokenizer %zu, unit %zu: %s", i, u, e.text);
            tt_ids_free(&ids);
        }
        tt_tok_close(t[i]);
    }
    free(text);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 120);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(unknown_characters_fuse_only_when_asked),
        cmocka_unit_test(bytes_stand_for_unknown_characters),
        cmocka_unit_test(whole_pieces_may_skip_the_merges),
        cmocka_unit_test(words_end_in_their_suffix),
        cmocka_unit_test(special_tokens_are_text_unless_asked_for),
        cmocka_unit_test(added_tokens_take_blanks_and_words_as_told),
        cmocka_unit_test(added_blanks_share_a_run),
        cmocka_unit_test(a_text_that_lost_its_beginning_has_no_first_piece),
        cmocka_unit_test(split_behaviours_differ_in_the_match),
        cmocka_unit_test(metaspace_marks_the_beginning_by_its_scheme),
        cmocka_unit_test(wordpiece_takes_the_longest_or_gives_up_the_word),
        cmocka_unit_test(unigram_takes_the_best_sum),
        cmocka_unit_test(ill_formed_bytes_become_replacement_characters),
        cmocka_unit_test(normalisers_work_in_order),
        cmocka_unit_test(long_runs_do_not_crawl),
    };
    return cmocka_run_group_tests_name("encoding", tests, NULL, NULL);
}
