/* What can go wrong: memory runs out at any moment. Every allocation in turn is made to fail, for
 * opening, encoding, decoding and chat; each time a status must come back and nothing half done. */
#include "tests/tokenizers/tok_test.h"

#ifndef __SANITIZE_ADDRESS__

/* The C library's own; these names are part of glibc. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static long countdown; /* 1: the next allocation fails; 0: none does */
static bool failed;

static bool fails(void)
{
    if (countdown == 0 || --countdown > 0)
        return false;
    return failed = true;
}

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}
void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}
void *realloc(void *p, size_t n)
{
    return fails() ? NULL : __libc_realloc(p, n);
}

static const char *const files[] = {
    "{'added_tokens':[{'id':20,'content':'<|im_start|>','special':true},{'id':21,'content':"
    "'<|im_end|>','special':true},{'id':22,'content':'Zz','normalized':true}],'normalizer':"
    "{'type':'Sequence','normalizers':[{'type':'NFKC'},{'type':'Replace','pattern':{'Regex':'q+'},"
    "'content':'a'}]},'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split',"
    "'pattern':{'Regex':'a|b'},'behavior':'Contiguous'},{'type':'ByteLevel'}]},'decoder':"
    "{'type':'ByteLevel'},'post_processor':{'type':'BertProcessing','cls':['x',20],'sep':['y',21]},"
    "'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2,'\xC4\xA0':3},'merges':['a b']}}",
    "{'normalizer':{'type':'BertNormalizer'},'pre_tokenizer':{'type':'BertPreTokenizer'},'decoder':"
    "{'type':'WordPiece'},'model':{'type':'WordPiece','vocab':{'[UNK]':0,'a':1,'##b':2}}}",
    "{'normalizer':{'type':'Precompiled','precompiled_charsmap':'DAAAAAAAAAAAAAAAAAAAAGEA'},"
    "'pre_tokenizer':{'type':'Metaspace'},'decoder':{'type':'Sequence','decoders':[{'type':"
    "'Replace','pattern':{'String':'a'},'content':'b'},{'type':'ByteFallback'},{'type':'Fuse'},"
    "{'type':'Strip','content':' ','start':1,'stop':1}]},'model':{'type':'Unigram','unk_id':0,"
    "'vocab':[['?',0],['a',-1],['\xE2\x96\x81',-2]]}}",
    "\n\x0E\n\x05<unk>\x15\0\0\0\0\x18\2\n\x0A\n\1a\x15\0\0\x80\xBF\x18\1\x12\2\x18\2",
};
static const size_t bytes_of_last = 32;
static const char config[] = "{\"chat_template\":\"<|im_start|> assistant <|im_end|>\","
                             "\"bos_token\":\"<|im_end|>\",\"added_tokens_decoder\":{\"30\":"
                             "{\"content\":\"<x>\"}}}";
static const char text[] =
    "ab ba e\xCC\x81 Zz<|im_end|>aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xFF";

static tt_status use(const tt_tok *t, tt_err *e)
{
    tt_ids ids = {0}, chat = {0};
    tt_buf out = {0};
    const tt_chat_format *f = NULL;
    tt_chat_turn turn = {"user", "ab", 2};
    tt_status st = tt_tok_encode(t, text, sizeof text - 1, 3, &ids, e);
    if (st)
        assert_int_equal(ids.count, 0);
    if (!st)
        st = tt_tok_decode(t, ids.id, ids.count, false, &out, e);
    if (!st && tt_tok_id(t, "<|im_end|>") == 21) {
        st = tt_chat_find(&f, t, NULL, e);
        if (!st)
            st = tt_chat_encode(f, t, &turn, 1, false, &chat, e);
    }
    tt_ids_free(&ids);
    tt_ids_free(&chat);
    tt_buf_free(&out);
    return st;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *file = i < 3 ? json_of(files[i]) : NULL;
        const char *data = file ? file : files[i];
        size_t n = file ? strlen(file) : bytes_of_last;
        long k = 1;
        for (failed = true; failed; k++) {
            tt_tok *t = NULL;
            tt_err e = {0};
            failed = false;
            countdown = k;
            tt_status st = tt_tok_open_text(&t, data, n, config, sizeof config - 1, &e);
            if (!st)
                st = use(t, &e);
            countdown = 0;
            tt_tok_close(t);
            /* The JSON library does not tell lack of memory from bad JSON, and the pattern's
             * compiler goes on without its fast form. */
            if (st && st != TT_ENOMEM && !strstr(e.text, "valid JSON"))
                fail_msg("file %zu, allocation %ld: %s", i, k, e.text);
            if (st && !failed)
                fail_msg("file %zu: %s", i, e.text);
        }
        assert_true(k > 20);
        free(file);
    }
}

#else

static void every_allocation_may_fail(void **state)
{
    (void)state;
    skip(); /* the sanitizer has an allocator of its own */
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests_name("running out of memory", tests, NULL, NULL);
}
