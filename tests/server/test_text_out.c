/* What can go wrong: characters cut in two, a stop string over several tokens, one that begins
 * and does not come true, text after a stop id, tokens out of order, results that depend on how
 * often one looks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/text_out.h"
#include "tests/server/tiny_tok.h"

static tt_tok *tok;

enum { COLUMNS = 64 };

typedef struct {
    int32_t id[COLUMNS];
    tt_view v;
} canvas;

/* All columns open. */
static void canvas_init(canvas *c, int32_t columns)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < COLUMNS; i++)
        c->id[i] = -1;
    c->v = (tt_view){.columns = columns, .id = c->id, .end = columns};
}

static void put(canvas *c, int32_t at, const char *text)
{
    for (; *text; text++)
        c->id[at++] = (unsigned char)*text;
}

static void feed(tt_text_out *o, const canvas *c)
{
    tt_err e = {0};
    if (tt_text_out_feed(o, &c->v, &e))
        fail_msg("%s", e.text);
}

#define SHOWS(o, want)                                                                             \
    do {                                                                                           \
        assert_int_equal((o).ready, strlen(want));                                                 \
        assert_memory_equal(tt_buf_text(&(o).text), want, strlen(want));                           \
    } while (0)

static void only_the_contiguous_prefix_is_shown(void **state)
{
    (void)state;
    canvas c;
    canvas_init(&c, 10);
    put(&c, 0, "ab");
    tt_text_out o = {.tok = tok, .begin = 2, .end = 10};
    put(&c, 4, "zz");
    feed(&o, &c);
    SHOWS(o, "");
    put(&c, 2, "x");
    feed(&o, &c);
    SHOWS(o, "x");
    put(&c, 3, "y");
    feed(&o, &c);
    SHOWS(o, "xyzz");
    assert_int_equal(o.finish, TT_FINISH_NONE);
    put(&c, 6, "1234");
    feed(&o, &c);
    SHOWS(o, "xyzz1234");
    assert_int_equal(o.finish, TT_FINISH_LENGTH); /* full, whether or not the engine knows yet */
    assert_int_equal(o.tokens, 8);
    tt_text_out_free(&o);
}

static void what_may_be_revised_waits(void **state)
{
    (void)state;
    canvas c;
    canvas_init(&c, 8);
    tt_text_out o = {.tok = tok, .begin = 0, .end = 8};
    put(&c, 0, "abcdef");
    c.v.unsettled = 4; /* the block begins at column 4 */
    feed(&o, &c);
    SHOWS(o, "abcd");
    c.id[5] = -1; /* taken back */
    put(&c, 4, "x");
    feed(&o, &c);
    SHOWS(o, "abcd");
    put(&c, 5, "yzw");
    feed(&o, &c); /* full, but its end was not said */
    SHOWS(o, "abcd");
    assert_int_equal(o.finish, TT_FINISH_NONE);
    c.v.unsettled = 0;
    feed(&o, &c);
    SHOWS(o, "abcdxyzw");
    assert_int_equal(o.finish, TT_FINISH_LENGTH);
    tt_text_out_free(&o);
    /* A run that ends otherwise shows what there is. */
    c.v.unsettled = 4;
    c.v.finish = TT_FINISH_DEADLINE;
    feed(&o, &c);
    SHOWS(o, "abcdxyzw");
    tt_text_out_free(&o);
}

static void a_character_is_never_cut(void **state)
{
    (void)state;
    canvas c;
    canvas_init(&c, 5);
    tt_text_out o = {.tok = tok, .end = 5};
    static const char *const after[] = {"a", "a", "a", "a", "a\xF0\x9F\x98\x80"};
    const char *text = "a\xF0\x9F\x98\x80";
    for (int i = 0; i < 5; i++) {
        c.id[i] = (unsigned char)text[i];
        feed(&o, &c);
        SHOWS(o, after[i]);
    }
    tt_text_out_free(&o);

    canvas_init(&c, 3); /* the answer ends inside a character */
    tt_text_out cut = {.tok = tok, .end = 3};
    put(&c, 0, "a\xF0\x9F");
    feed(&cut, &c);
    SHOWS(cut, "a\xEF\xBF\xBD");
    tt_text_out_free(&cut);
}

static void a_stop_id_ends_the_text(void **state)
{
    (void)state;
    static const int32_t stop[] = {TINY_END, TINY_STOP};
    canvas c;
    canvas_init(&c, 8);
    tt_text_out o = {.tok = tok, .end = 8, .stop_id = stop, .stop_ids = 2};
    put(&c, 0, "ab");
    c.id[3] = TINY_STOP; /* with an open column before it: not yet the end */
    put(&c, 4, "junk");
    feed(&o, &c);
    SHOWS(o, "ab");
    assert_int_equal(o.finish, TT_FINISH_NONE);
    put(&c, 2, "c");
    feed(&o, &c);
    SHOWS(o, "abc");
    assert_int_equal(o.finish, TT_FINISH_STOP);
    assert_false(o.hit_stop);
    assert_int_equal(o.tokens, 3);
    tt_text_out_free(&o);

    tt_text_out hole = {.tok = tok, .end = 8}; /* no stop ids: it is an ordinary, silent token */
    feed(&hole, &c);
    SHOWS(hole, "abcjunk");
    tt_text_out_free(&hole);
}

static void text_that_may_begin_a_stop_string_waits(void **state)
{
    (void)state;
    static const char *const stop[] = {"\n\nQ:", "END"};
    canvas c;
    canvas_init(&c, 12);
    tt_text_out o = {.tok = tok, .end = 12, .stop = stop, .stops = 2};
    put(&c, 0, "a\n\nQ");
    feed(&o, &c);
    SHOWS(o, "a");
    put(&c, 4, "E"); /* "\n\nQE": the first did not come true, the second may begin */
    feed(&o, &c);
    SHOWS(o, "a\n\nQ");
    put(&c, 5, "\n\nQ:zz");
    feed(&o, &c);
    SHOWS(o, "a\n\nQE");
    assert_string_equal(o.text.data, "a\n\nQE");
    assert_int_equal(o.finish, TT_FINISH_STOP);
    assert_true(o.hit_stop);
    assert_int_equal(o.tokens, 9);
    assert_int_equal(tt_text_out_tokens_before(&o, o.ready), 5);
    put(&c, 11, "z");
    feed(&o, &c);
    assert_int_equal(o.tokens, 9);
    tt_text_out_free(&o);
}

static void held_text_appears_when_the_answer_is_over(void **state)
{
    (void)state;
    static const char *const stop[] = {"END"};
    canvas c;
    canvas_init(&c, 6);
    tt_text_out o = {.tok = tok, .end = 6, .stop = stop, .stops = 1};
    put(&c, 0, "xEN");
    feed(&o, &c);
    SHOWS(o, "x");
    c.v.finish = TT_FINISH_CANCELLED;
    feed(&o, &c);
    SHOWS(o, "xEN");
    assert_int_equal(o.finish, TT_FINISH_CANCELLED);
    tt_text_out_free(&o);
}

/* Commits the columns of text in a random order, looking every `stride` commits. */
static void run_through(tt_text_out *o, const char *text, int stride, unsigned seed)
{
    canvas c;
    int n = (int)strlen(text), order[COLUMNS];
    canvas_init(&c, n);
    for (int i = 0; i < n; i++)
        order[i] = i;
    srand(seed);
    for (int i = n - 1; i > 0; i--) {
        int j = rand() % (i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    o->end = n;
    size_t before = 0;
    for (int i = 0; i < n; i++) {
        c.id[order[i]] = (unsigned char)text[order[i]];
        if (i % stride && i < n - 1)
            continue;
        feed(o, &c);
        assert_true(o->ready >= before); /* what was shown stays */
        before = o->ready;
    }
    c.v.finish = TT_FINISH_LENGTH;
    feed(o, &c);
}

static void the_result_does_not_depend_on_when_one_looks(void **state)
{
    (void)state;
    static const char *const stop[] = {"cab", "bb", "\xC3\xA9\xC3\xA9"};
    srand(7);
    for (unsigned round = 0; round < 400; round++) {
        char text[COLUMNS / 2 + 1];
        int n = 1 + rand() % (COLUMNS / 2);
        for (int i = 0; i < n; i++)
            text[i] = "abc\xC3\xA9"[rand() % 5];
        text[n] = '\0';
        unsigned seed = (unsigned)rand();
        tt_text_out often = {.tok = tok, .stop = stop, .stops = 3}, once = often;
        run_through(&often, text, 1, seed);
        run_through(&once, text, 1000, seed);
        assert_int_equal(often.ready, once.ready);
        assert_int_equal(often.tokens, once.tokens);
        assert_int_equal(often.finish, once.finish);
        assert_string_equal(tt_buf_text(&often.text), tt_buf_text(&once.text));
        for (int i = 0; i < 3; i++)
            assert_null(strstr(tt_buf_text(&once.text), stop[i]));
        tt_text_out_free(&often);
        tt_text_out_free(&once);
        srand(seed + round);
    }
}

static void draft(const tt_text_out *o, const canvas *c, const char *want)
{
    tt_buf b = {0};
    assert_int_equal(tt_text_out_draft(o, &c->v, "_", &b, NULL), TT_OK);
    assert_string_equal(tt_buf_text(&b), want);
    tt_buf_free(&b);
}

static void a_draft_shows_every_column(void **state)
{
    (void)state;
    static const int32_t stop[] = {TINY_END};
    canvas c;
    canvas_init(&c, 10);
    tt_text_out o = {.tok = tok, .begin = 1, .end = 10, .stop_id = stop, .stop_ids = 1};
    draft(&o, &c, "_________");
    put(&c, 0, "p");
    put(&c, 2, "x\xC3"); /* half a character before an open column */
    c.id[5] = TINY_END;
    put(&c, 6, "z");
    c.id[8] = TINY_MASK;
    put(&c, 9, "w");
    feed(&o, &c);
    draft(&o, &c, "_x\xEF\xBF\xBD__w");
    put(&c, 1, "y");
    put(&c, 4, "\xA9");
    feed(&o, &c);
    draft(&o, &c, "yx\xC3\xA9");
    assert_int_equal(o.finish, TT_FINISH_STOP);
    tt_text_out_free(&o);
}

static void without_a_tokenizer_columns_are_counted(void **state)
{
    (void)state;
    canvas c;
    canvas_init(&c, 20);
    for (int i = 0; i < 20; i++)
        c.id[i] = 100000 + i;
    tt_text_out o = {.end = 20};
    feed(&o, &c);
    assert_int_equal(o.tokens, 20);
    assert_int_equal(o.finish, TT_FINISH_LENGTH);
    draft(&o, &c, "");
    tt_text_out_free(&o);
}

/* With this decoder the text of a token is known only when the next one is. */
static void late_text_has_the_right_offsets(void **state)
{
    (void)state;
    static const char json[] =
        "{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Whitespace\"},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":\"</w>\",\"fuse_unk\":false,"
        "\"byte_fallback\":false,\"vocab\":{\"a</w>\":0,\"b</w>\":1,\"c\":2},\"merges\":[]}}";
    tt_tok *late;
    tt_err e = {0};
    if (tt_tok_open_text(&late, json, sizeof json - 1, NULL, 0, &e))
        fail_msg("%s", e.text);
    canvas c;
    canvas_init(&c, 4);
    tt_text_out o = {.tok = late, .end = 4};
    static const int32_t ids[] = {0, 1, 2, 0}, offsets[] = {0, 2, 4, 5};
    for (int i = 0; i < 4; i++) {
        c.id[i] = ids[i];
        feed(&o, &c);
    }
    SHOWS(o, "a b ca");
    for (int i = 0; i < 4; i++)
        assert_int_equal(o.offset[i], offsets[i]);
    tt_text_out_free(&o);
    tt_tok_close(late);
}

static void an_id_outside_the_vocabulary_is_an_error(void **state)
{
    (void)state;
    canvas c;
    canvas_init(&c, 2);
    c.id[0] = TINY_VOCAB;
    tt_text_out o = {.tok = tok, .end = 2};
    tt_err e = {0};
    assert_int_equal(tt_text_out_feed(&o, &c.v, &e), TT_EINVAL);
    tt_text_out_free(&o);
}

static int open_tok(void **state)
{
    (void)state;
    tt_err e = {0};
    return tiny_tok_open(&tok, &e) ? (print_error("%s\n", e.text), -1) : 0;
}

static int close_tok(void **state)
{
    (void)state;
    tt_tok_close(tok);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_contiguous_prefix_is_shown),
        cmocka_unit_test(what_may_be_revised_waits),
        cmocka_unit_test(a_character_is_never_cut),
        cmocka_unit_test(a_stop_id_ends_the_text),
        cmocka_unit_test(text_that_may_begin_a_stop_string_waits),
        cmocka_unit_test(held_text_appears_when_the_answer_is_over),
        cmocka_unit_test(the_result_does_not_depend_on_when_one_looks),
        cmocka_unit_test(a_draft_shows_every_column),
        cmocka_unit_test(without_a_tokenizer_columns_are_counted),
        cmocka_unit_test(late_text_has_the_right_offsets),
        cmocka_unit_test(an_id_outside_the_vocabulary_is_an_error),
    };
    return cmocka_run_group_tests_name("text_out", tests, open_tok, close_tok);
}
