/* What can go wrong: a comment taken for a merge, a line that is no pair, CLIP's vocabulary without
 * its control tokens, quotes in a merge that break the JSON made of it. */
#include "tests/tokenizers/tok_test.h"
#include "tokenizers/text/pair.h"

static tt_status join(tt_buf *out, const char *vocab, const char *merges, tt_err *e)
{
    char *v = json_of(vocab);
    tt_status s = tt_tok_join_pair(out, v, strlen(v), merges, strlen(merges), e);
    free(v);
    return s;
}

static void gives(const char *vocab, const char *merges, const char *text, unsigned flags,
                    const int32_t *want, size_t n)
{
    tt_buf json = {0};
    tt_tok *t = NULL;
    tt_ids ids = {0};
    tt_err e = {0};
    if (join(&json, vocab, merges, &e) ||
        tt_tok_open_text(&t, tt_buf_text(&json), json.size, NULL, 0, &e) ||
        tt_tok_encode(t, text, strlen(text), flags, &ids, &e))
        fail_msg("%s", e.text);
    assert_int_equal(ids.count, n);
    assert_memory_equal(ids.id, want, n * sizeof *want);
    tt_ids_free(&ids);
    tt_tok_close(t);
    tt_buf_free(&json);
}

static void gpt2_merges_bytes(void **state)
{
    (void)state;
    const int32_t want[] = {3, 1, 4};
    gives("{'a':0,'b':1,'\xC4\xA0':2,'ab':3,'\\\"':4}", "#version: 0.2\na b\n", "abb\"", 0, want,
            3);
}

static void clip_marks_words_and_ends(void **state)
{
    (void)state;
    const char *vocab = "{'a':0,'b':1,'a</w>':2,'b</w>':3,'ab</w>':4,'<|startoftext|>':5,"
                        "'<|endoftext|>':6,'\\\"':7,'\\\"</w>':8}";
    const int32_t want[] = {5, 4, 2, 8, 6};
    gives(vocab, "#version: 0.2\r\na b</w>\r\n\r\n", " AB  a\n\"", TT_TOK_ADD_SPECIAL, want, 5);
}

static void refuse(const char *vocab, const char *merges, const char *named)
{
    tt_buf json = {0};
    tt_err e = {0};
    assert_int_equal(join(&json, vocab, merges, &e), TT_EFORMAT);
    if (!strstr(e.text, named))
        fail_msg("%s", e.text);
    tt_buf_free(&json);
}

static void broken_files_are_named(void **state)
{
    (void)state;
    refuse("{'a':0,", "", "vocab.json");
    refuse("{'a</w>':0}", "", "<|startoftext|>");
    refuse("{'a':0}", "a b\nab\n", "line 2");
    refuse("{'a':0}", "a b c\n", "line 1");
    refuse("{'a':0}", "a \n", "line 1");
    refuse("{'a':0}", "a \x01\n", "line 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_merges_bytes),
        cmocka_unit_test(clip_marks_words_and_ends),
        cmocka_unit_test(broken_files_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
