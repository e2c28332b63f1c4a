/* What can go wrong: files cut short, members missing or of another type, ids out of range or given
 * twice, parts nobody knows, settings that would change results without a word. */
#include "tests/tokenizers/tok_test.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL "'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2},'merges':['a b']}"

static void errors_name_the_place(void **state)
{
    (void)state;
    refused("", TT_EFORMAT, "line 1, column 1");
    refused("{\n 'a': x}", TT_EFORMAT, "line 2, column 7");
    refused("[]", TT_EFORMAT, "");
    refused("{}", TT_EFORMAT, "model: is missing");
    refused("{'model':3}", TT_EFORMAT, "model: must be an object, is a number");
    refused("{'model':{'type':'BPE','merges':[]}}", TT_EFORMAT, "model.vocab: is missing");
    refused("{'model':{'type':'BPE','vocab':[],'merges':[]}}", TT_EFORMAT,
            "model.vocab: must be an object, is an array");
    refused("{'model':{'type':'BPE','vocab':{'a':0}}}", TT_EFORMAT, "model.merges: is missing");
    refused("{" MODEL ",'added_tokens':[{'id':7}]}", TT_EFORMAT,
            "added_tokens[0].content: is missing");
    refused("{" MODEL ",'added_tokens':[{'id':7,'content':'x','special':1}]}", TT_EFORMAT,
            "added_tokens[0].special: must be a boolean, is a number");
    refused("{" MODEL ",'normalizer':{'type':'Sequence','normalizers':[{'type':'NFC'},{}]}}",
            TT_EFORMAT, "normalizer.normalizers[1].type: is missing");
    refused("{" MODEL ",'pre_tokenizer':{'type':'Split','behavior':'Isolated'}}", TT_EFORMAT,
            "pre_tokenizer.pattern: is missing");
    refused("{" MODEL "} x", TT_EFORMAT, "not valid JSON");
    refused("{" MODEL ",'model':{}}", TT_EFORMAT, "model: is there twice");
}

static void unknown_parts_are_named(void **state)
{
    (void)state;
    refused("{'model':{'type':'Magic','vocab':{}}}", TT_EUNSUP,
            "model: unknown model type 'Magic'");
    refused("{" MODEL ",'normalizer':{'type':'Magic'}}", TT_EUNSUP,
            "normalizer: unknown normaliser 'Magic'");
    refused("{" MODEL ",'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Magic'}]}}",
            TT_EUNSUP, "pre_tokenizer.pretokenizers[0]: unknown pre-tokeniser 'Magic'");
    refused("{" MODEL ",'decoder':{'type':'Magic'}}", TT_EUNSUP,
            "decoder: unknown decoder 'Magic'");
    refused("{" MODEL ",'post_processor':{'type':'Magic'}}", TT_EUNSUP,
            "post_processor: unknown post-processor 'Magic'");
    refused("{" MODEL ",'pre_tokenizer':{'type':'Split','pattern':{'String':'a'},"
            "'behavior':'Magic'}}",
            TT_EUNSUP, "pre_tokenizer.behavior: unknown behaviour 'Magic'");
    refused("{" MODEL ",'pre_tokenizer':{'type':'Split','pattern':{'Regex':'(*ACCEPT)'},"
            "'behavior':'Isolated'}}",
            TT_EUNSUP, "pre_tokenizer.pattern.Regex: pattern, byte 0");
    refused("{'model':{'type':'BPE','dropout':0.1,'vocab':{'a':0},'merges':[]}}", TT_EUNSUP,
            "model.dropout");
}

static void ids_are_checked(void **state)
{
    (void)state;
    refused("{'model':{'type':'BPE','vocab':{'a':-1},'merges':[]}}", TT_EFORMAT, "model.vocab.a");
    refused("{'model':{'type':'BPE','vocab':{'a':0.5},'merges':[]}}", TT_EFORMAT, "model.vocab.a");
    refused("{'model':{'type':'BPE','vocab':{'a':16777216},'merges':[]}}", TT_EFORMAT,
            "model.vocab.a: 1.67772e+07 is not an integer from 0 to 16777215");
    refused("{'model':{'type':'BPE','vocab':{'a':1e300},'merges':[]}}", TT_EFORMAT,
            "model.vocab.a");
    refused("{'model':{'type':'BPE','vocab':{'a':0,'b':0},'merges':[]}}", TT_EFORMAT,
            "model.vocab.b: id 0 is given twice");
    refused("{'model':{'type':'BPE','vocab':{'a':0,'a':1},'merges':[]}}", TT_EFORMAT,
            "model.vocab.a: is there twice");
    refused("{" MODEL ",'added_tokens':[{'id':0,'content':'x'}]}", TT_EFORMAT,
            "added_tokens[0]: id 0 belongs to another token");
    refused("{" MODEL ",'post_processor':{'type':'BertProcessing','sep':['x',9],'cls':['x',9]}}",
            TT_EFORMAT, "post_processor.cls[1]: id 9 is not in the vocabulary");
    tt_tok *t = open_ok("{'model':{'type':'BPE','vocab':{'a':16777215,'b':3},'merges':[]}}");
    assert_int_equal(tt_tok_vocab(t), 16777216); /* holes are fine */
    encodes(t, "ab", "16777215 3");
    size_t n;
    assert_null(tt_tok_piece(t, 4, &n));
    assert_null(tt_tok_piece(t, -1, &n));
    assert_null(tt_tok_piece(t, 16777216, &n));
    int32_t hole = 4;
    tt_buf out = {0};
    tt_err e;
    assert_int_equal(tt_tok_decode(t, &hole, 1, false, &out, &e), TT_EINVAL);
    assert_string_equal(e.text, "token id 4 is not in the vocabulary");
    tt_tok_close(t);
}

static void merges_must_make_tokens(void **state)
{
    (void)state;
#define MERGES(m) "{'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2},'merges':" m "}}"
    refused(MERGES("['ab']"), TT_EFORMAT, "model.merges[0]: 'ab' is not two tokens");
    refused(MERGES("['a b','a  b']"), TT_EFORMAT, "model.merges[1]");
    refused(MERGES("['b a']"), TT_EFORMAT, "model.merges[0]: token 'ba' is not in the vocabulary");
    refused(MERGES("[['a']]"), TT_EFORMAT, "model.merges[0]: a merge needs two tokens");
    refused(MERGES("[['a','b','b']]"), TT_EFORMAT, "model.merges[0]: a merge of more than two");
    refused(MERGES("[['a',1]]"), TT_EFORMAT, "model.merges[0][1]: must be a string, is a number");
    refused(MERGES("'a b'"), TT_EFORMAT, "model.merges: must be an array, is a string");
    tt_tok *t = open_ok(MERGES("['a b']"));
    encodes(t, "abab", "2 2");
    tt_tok_close(t);
}

static void text_that_c_cannot_hold_is_refused(void **state)
{
    (void)state;
    refused("{'a':'\\u0000'," MODEL "}", TT_EUNSUP, "\\u0000 is not supported");
    tt_tok *t = open_ok("{'a':'\\\\u0000'," MODEL "}"); /* an escaped backslash and "u0000" */
    tt_tok_close(t);
    tt_err e;
    assert_int_equal(tt_tok_open_text(&t, "{\"\xFF\":0}", 8, NULL, 0, &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "column 3: this is not UTF-8"));
    assert_int_equal(tt_tok_open_text(&t, "{}\0{}", 5, NULL, 0, &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "a NUL byte"));
}

static void deep_nesting_is_refused(void **state)
{
    (void)state;
    tt_buf b = {0};
    tt_buf_puts(&b, "{" MODEL ",'normalizer':");
    for (int i = 0; i < 400; i++)
        tt_buf_puts(&b, "{'type':'Sequence','normalizers':[");
    tt_buf_puts(&b, "{'type':'NFC'}");
    for (int i = 0; i < 400; i++)
        tt_buf_puts(&b, "]}");
    tt_buf_puts(&b, "}");
    refused(tt_buf_text(&b), TT_EUNSUP, "nested too deep");
    tt_buf_clear(&b);
    for (int i = 0; i < 100000; i++)
        tt_buf_puts(&b, "[");
    refused(tt_buf_text(&b), TT_EFORMAT, "not valid JSON");
    tt_buf_free(&b);
}

/* Every beginning of a file, right in front of a page that must not be touched. */
static void cut_files_are_refused_without_reading_on(void **state)
{
    (void)state;
    char *json = json_of("{'added_tokens':[{'id':9,'content':'<s>','special':true}],'normalizer':"
                         "{'type':'Precompiled','precompiled_charsmap':'DAAAAAAAAAAAAAAAAAAAAGEA'},"
                         "'decoder':{'type':'ByteLevel'}," MODEL "}");
    size_t n = strlen(json), page = (size_t)sysconf(_SC_PAGESIZE);
    char *area = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(area != MAP_FAILED && n < page);
    assert_int_equal(mprotect(area + page, page, PROT_NONE), 0);
    for (size_t k = 0; k <= n; k++) {
        tt_tok *t;
        memcpy(area + page - k, json, k);
        tt_status st = tt_tok_open_text(&t, area + page - k, k, NULL, 0, NULL);
        assert_int_equal(st, k == n ? TT_OK : TT_EFORMAT);
        tt_tok_close(t);
    }
    munmap(area, 2 * page);
    free(json);
}

static void config_gives_ends_template_and_more_tokens(void **state)
{
    (void)state;
    tt_tok *t =
        open_with("{" MODEL ",'added_tokens':[{'id':5,'content':'<s>','special':true}]}",
                  "{'bos_token':'<s>','eos_token':{'content':'<e>'},'chat_template':[{'name':'x',"
                  "'template':'1'},{'name':'default','template':'2'}],'added_tokens_decoder':{'5':"
                  "{'content':'<s>','special':true},'8':{'content':'<e>','special':true}}}");
    assert_int_equal(tt_tok_bos(t), 5);
    assert_int_equal(tt_tok_eos(t), 8);
    assert_int_equal(tt_tok_vocab(t), 9);
    assert_true(tt_tok_is_special(t, 8));
    assert_false(tt_tok_is_special(t, 0));
    assert_int_equal(tt_tok_id(t, "<e>"), 8);
    assert_int_equal(tt_tok_id(t, "ab"), 2);
    assert_int_equal(tt_tok_id(t, "nothing"), -1);
    encodes(t, "a<e>b", "0 8 1");
    tt_tok_close(t);

    tt_err e;
    char *json = json_of("{" MODEL "}");
    assert_int_equal(tt_tok_open_text(&t, json, strlen(json), "{", 1, &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "tokenizer_config.json: line 1"));
    char *bad = json_of("{'added_tokens_decoder':{'x':{'content':'y'}}}");
    assert_int_equal(tt_tok_open_text(&t, json, strlen(json), bad, strlen(bad), &e), TT_EFORMAT);
    assert_non_null(strstr(e.text, "added_tokens_decoder.x: 'x' is not a token id"));
    free(json);
    free(bad);
}

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_folder_is_opened(void **state)
{
    (void)state;
    char folder[] = "/tmp/tutti-tok-XXXXXX", path[200];
    assert_non_null(mkdtemp(folder));
    tt_tok *t;
    tt_err e;
    assert_int_equal(tt_tok_open(&t, folder, &e), TT_EIO);
    assert_null(t);
    assert_non_null(strstr(e.text, folder));
    assert_non_null(strstr(e.text, "none of tokenizer.json, tokenizer.model, and vocab.json"));
    char *json = json_of("{" MODEL "}");
    put_file(folder, "tokenizer.json", json);
    put_file(folder, "chat_template.jinja", "nobody's");
    assert_int_equal(tt_tok_open(&t, folder, &e), TT_OK);
    assert_string_equal(tt_tok_kind(t), "BPE");
    const tt_chat_format *f;
    assert_int_equal(tt_chat_find(&f, t, NULL, &e), TT_EUNSUP);
    assert_non_null(strstr(e.text, "nobody's"));
    tt_tok_close(t);
    free(json);
    const char *const names[] = {"tokenizer.json", "chat_template.jinja"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void older_files_do_not_name_the_model(void **state)
{
    (void)state;
    tt_tok *t = open_ok("{'model':{'vocab':{'a':0,'b':1,'ab':2},'merges':['a b']}}");
    assert_string_equal(tt_tok_kind(t), "BPE");
    tt_tok_close(t);
    t = open_ok("{'model':{'vocab':[['a',-1],['b',-2]],'unk_id':0}}");
    assert_string_equal(tt_tok_kind(t), "Unigram");
    tt_tok_close(t);
    t = open_ok("{'model':{'vocab':{'a':0},'unk_token':'a','continuing_subword_prefix':'##'}}");
    assert_string_equal(tt_tok_kind(t), "WordPiece");
    tt_tok_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(unknown_parts_are_named),
        cmocka_unit_test(ids_are_checked),
        cmocka_unit_test(merges_must_make_tokens),
        cmocka_unit_test(text_that_c_cannot_hold_is_refused),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(cut_files_are_refused_without_reading_on),
        cmocka_unit_test(config_gives_ends_template_and_more_tokens),
        cmocka_unit_test(a_folder_is_opened),
        cmocka_unit_test(older_files_do_not_name_the_model),
    };
    return cmocka_run_group_tests_name("opening tokenizers", tests, NULL, NULL);
}
