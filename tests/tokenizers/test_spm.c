/* What can go wrong: a protocol buffer with lying lengths, pieces that are no pieces, user-defined
 * symbols, blanks at the ends, unknown characters, byte pieces. */
#include "tests/tokenizers/tok_test.h"

#include <math.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
enum { UNIGRAM = 1, BPE };

static void put_varint(tt_buf *b, uint64_t v)
{
    for (; v > 127; v >>= 7)
        tt_buf_putc(b, (char)(v | 128));
    tt_buf_putc(b, (char)v);
}

static void put_message(tt_buf *b, unsigned number, const void *data, size_t n)
{
    put_varint(b, number << 3 | 2);
    put_varint(b, n);
    tt_buf_add(b, data, n);
}

static void put_number(tt_buf *b, unsigned number, uint64_t v)
{
    put_varint(b, number << 3);
    put_varint(b, v);
}

static void put_piece(tt_buf *b, const char *text, float score, int type)
{
    tt_buf p = {0};
    put_message(&p, 1, text, strlen(text));
    put_varint(&p, 2 << 3 | 5);
    tt_buf_add(&p, &score, 4);
    put_number(&p, 3, (uint64_t)type);
    put_message(b, 1, p.data, p.size);
    tt_buf_free(&p);
}

typedef struct {
    bool byte_fallback, no_dummy, keep_blanks;
} settings;

static tt_buf start(int model_type, settings s)
{
    tt_buf b = {0}, trainer = {0}, normal = {0};
    put_piece(&b, "<unk>", 0, UNKNOWN);
    put_piece(&b, "<s>", 0, CONTROL);
    put_piece(&b, "</s>", 0, CONTROL);
    put_number(&trainer, 3, (uint64_t)model_type);
    put_number(&trainer, 35, s.byte_fallback);
    put_number(&trainer, 99, 7); /* a field this build does not know */
    put_message(&b, 2, trainer.data, trainer.size);
    put_number(&normal, 3, !s.no_dummy);
    put_number(&normal, 4, !s.keep_blanks);
    put_message(&b, 3, normal.data, normal.size);
    tt_buf_free(&trainer);
    tt_buf_free(&normal);
    return b;
}

static tt_tok *open_file(tt_buf *b, const char *config)
{
    tt_tok *t = NULL;
    tt_err e = {0};
    char *c = config ? json_of(config) : NULL;
    if (tt_tok_open_text(&t, b->data, b->size, c, c ? strlen(c) : 0, &e))
        fail_msg("%s", e.text);
    tt_buf_free(b);
    free(c);
    return t;
}

#define SIGN "\xE2\x96\x81"

static void unigram_normalises_and_takes_the_best(void **state)
{
    (void)state;
    tt_buf b = start(UNIGRAM, (settings){0});
    put_piece(&b, SIGN, -2, NORMAL);      /* 3 */
    put_piece(&b, "a", -3, NORMAL);       /* 4 */
    put_piece(&b, SIGN "a", -4, NORMAL);  /* 5 */
    put_piece(&b, "<mask>", 0, USER);     /* 6 */
    put_piece(&b, "aa", -9, UNUSED);      /* 7 */
    put_piece(&b, SIGN "ab", -1, NORMAL); /* 8 */
    tt_tok *t = open_file(&b, "{'add_bos_token':true}");
    assert_string_equal(tt_tok_kind(t), "SentencePiece unigram");
    assert_int_equal(tt_tok_bos(t), 1);
    assert_int_equal(tt_tok_eos(t), 2);
    encodes(t, "  a   a ", "5 5"); /* blanks at the ends and doubled ones go */
    encodes(t, "", "");
    encodes(t, "   ", "");
    encodes(t, "aa", "5 4");
    encodes(t, "a<mask>a", "5 6 4");
    encodes(t, "<unk>x", "0 3 0"); /* a control token; the rest begins with a blank of its own */
    encodes(t, "xyz ab", "3 0 8");
    encodes_to(t, "a<s>", 4, 0, "5 0"); /* plain text: three unknown characters */
    encodes_to(t, "a", 1, TT_TOK_ADD_SPECIAL, "1 5");
    DECODES(t, false, "a a", 5, 5);
    DECODES(t, true, "a", 1, 5, 2);
    DECODES(t, false, "a \xE2\x81\x87 ", 5, 0);
    tt_tok_close(t);
}

static void bpe_merges_by_score(void **state)
{
    (void)state;
    tt_buf b = start(BPE, (settings){.byte_fallback = true, .keep_blanks = true});
    put_piece(&b, "<0x61>", 0, BYTE);     /* 3 */
    put_piece(&b, "bc", -1, NORMAL);      /* 4 */
    put_piece(&b, "cb", -2, NORMAL);      /* 5 */
    put_piece(&b, SIGN SIGN, -3, NORMAL); /* 6 */
    put_piece(&b, "c", -9, NORMAL);       /* 7 */
    put_piece(&b, "b", -9, NORMAL);       /* 8 */
    put_piece(&b, SIGN, -9, NORMAL);      /* 9 */
    put_piece(&b, "bb", 0, USER);         /* 10 */
    tt_tok *t = open_file(&b, NULL);
    assert_string_equal(tt_tok_kind(t), "SentencePiece BPE");
    encodes(t, "cbc", "9 7 4");
    encodes(t, " c", "6 7");     /* the dummy blank and the text's own */
    encodes(t, "bbc", "9 10 7"); /* user-defined symbols join with nothing */
    encodes(t, "ab", "9 3 8");
    encodes(t, "xb", "9 0 8"); /* x has no byte piece */
    DECODES(t, false, " c", 6, 7);
    DECODES(t, false, "ab", 3, 8);
    tt_tok_close(t);
}

static void files_that_lie_are_refused(void **state)
{
    (void)state;
    tt_buf b = start(UNIGRAM, (settings){0});
    put_piece(&b, SIGN, -2, NORMAL);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *area = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(area != MAP_FAILED && b.size < page);
    assert_int_equal(mprotect(area + page, page, PROT_NONE), 0);
    for (size_t k = 1; k < b.size; k++) { /* every beginning: most are broken, none is read past */
        tt_tok *t;
        memcpy(area + page - k, b.data, k);
        tt_tok_open_text(&t, area + page - k, k, NULL, 0, NULL);
        tt_tok_close(t);
    }
    for (size_t k = 0; k < b.size; k++) /* every byte wrong in every way */
        for (int x = 1; x < 256; x++) {
            tt_tok *t;
            memcpy(area + page - b.size, b.data, b.size);
            area[page - b.size + k] ^= (char)x;
            tt_tok_open_text(&t, area + page - b.size, b.size, NULL, 0, NULL);
            tt_tok_close(t);
        }
    munmap(area, 2 * page);
    tt_buf_free(&b);
}

static void refuses(tt_buf *b, tt_status want, const char *text)
{
    tt_tok *t;
    tt_err e = {0};
    tt_status st = tt_tok_open_text(&t, b->data, b->size, NULL, 0, &e);
    if (st != want || !strstr(e.text, text))
        fail_msg("have %d '%s', want %d '%s'", (int)st, e.text, (int)want, text);
    tt_buf_free(b);
}

static void broken_pieces_are_named(void **state)
{
    (void)state;
    tt_buf b = start(UNIGRAM, (settings){0});
    put_piece(&b, "<s>", -1, NORMAL);
    put_piece(&b, "<s>", -1, NORMAL);
    refuses(&b, TT_EFORMAT, "pieces 3 and 4 are the same");
    b = start(UNIGRAM, (settings){0});
    put_piece(&b, "\xFF", -1, NORMAL);
    refuses(&b, TT_EFORMAT, "(piece): a piece that is empty or not UTF-8");
    b = start(UNIGRAM, (settings){0});
    put_piece(&b, "a", NAN, NORMAL);
    refuses(&b, TT_EFORMAT, "score out of range");
    b = start(UNIGRAM, (settings){0});
    put_piece(&b, "<0xZZ>", 0, BYTE);
    refuses(&b, TT_EFORMAT, "piece 3 is no byte");
    b = start(3, (settings){0});
    refuses(&b, TT_EUNSUP, "model type 3");
    b = (tt_buf){0};
    put_piece(&b, "a", 0, NORMAL);
    refuses(&b, TT_EFORMAT, "no piece for unknown text");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unigram_normalises_and_takes_the_best),
        cmocka_unit_test(bpe_merges_by_score),
        cmocka_unit_test(files_that_lie_are_refused),
        cmocka_unit_test(broken_pieces_are_named),
    };
    return cmocka_run_group_tests_name("SentencePiece", tests, NULL, NULL);
}
