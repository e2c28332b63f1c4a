/* tok_test.h - what the tokenizer tests share: opening from a string, expecting ids, texts, errors.
 */
#ifndef TT_TOK_TEST_H
#define TT_TOK_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tokenizers/text.h"

/* Single quotes stand for double ones, so that JSON can be written in C. */
static inline char *json_of(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    return copy;
}

static inline tt_tok *open_with(const char *json, const char *config)
{
    tt_tok *t = NULL;
    tt_err e = {0};
    char *j = json_of(json), *c = config ? json_of(config) : NULL;
    tt_status st = tt_tok_open_text(&t, j, strlen(j), c, c ? strlen(c) : 0, &e);
    if (st)
        fail_msg("does not open: %s", e.text);
    free(j);
    free(c);
    return t;
}

static inline tt_tok *open_ok(const char *json)
{
    return open_with(json, NULL);
}

/* It must be refused with this status, and the sentence must hold this text. */
static inline void refused(const char *json, tt_status want, const char *text)
{
    tt_tok *t = (tt_tok *)(void *)&t;
    tt_err e = {0};
    char *j = json_of(json);
    tt_status st = tt_tok_open_text(&t, j, strlen(j), NULL, 0, &e);
    if (st != want || !strstr(e.text, text))
        fail_msg("%s\nhave status %d, '%s'\nwant status %d, '%s'", json, (int)st, st ? e.text : "",
                 (int)want, text);
    assert_null(t);
    free(j);
}

/* ids: "1 2 3". */
static inline void encodes_to(const tt_tok *t, const char *text, size_t n, unsigned flags,
                              const char *ids)
{
    tt_ids have = {0};
    tt_err e = {0};
    char line[4096] = "";
    size_t at = 0;
    if (tt_tok_encode(t, text, n, flags, &have, &e))
        fail_msg("'%s': %s", text, e.text);
    for (size_t i = 0; i < have.count && at < sizeof line - 16; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, i ? " %d" : "%d", have.id[i]);
    if (strcmp(line, ids))
        fail_msg("'%s'\nhave %s\nwant %s", text, line, ids);
    tt_ids_free(&have);
}

static inline void encodes(const tt_tok *t, const char *text, const char *ids)
{
    encodes_to(t, text, strlen(text), TT_TOK_PARSE_SPECIAL, ids);
}

/* Decodes ids at once and one by one: both must give the text. */
static inline void decodes(const tt_tok *t, const int32_t *id, size_t n, bool skip,
                           const char *text)
{
    tt_buf whole = {0}, parts = {0};
    tt_tok_stream s = {.skip_special = skip};
    assert_int_equal(tt_tok_decode(t, id, n, skip, &whole, NULL), TT_OK);
    assert_string_equal(tt_buf_text(&whole), text);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tt_tok_stream_add(t, &s, id[i], &parts, NULL), TT_OK);
    tt_tok_stream_end(t, &s, &parts);
    assert_string_equal(tt_buf_text(&parts), text);
    tt_buf_free(&whole);
    tt_buf_free(&parts);
}

#define DECODES(t, skip, text, ...)              \
    decodes((t), (const int32_t[]){__VA_ARGS__}, \
            sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t), (skip), (text))

#endif
