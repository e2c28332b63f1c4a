/* regex.c - see regex.h. Compiled once with the just-in-time compiler where the machine has one;
 * when its small stack is too small for a text, the same match is run again by the interpreter. */
#include "tokenizers/text/regex.h"

#include <stdint.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "kernels/base/utf8.h"

enum {
    MAX_PATTERN = 16384,    /* bytes; real ones have about 300 */
    MATCH_STEPS = 50000000, /* of one match; a run of 4 MB of blanks needs about that many */
    MATCH_HEAP_KIB = 256 * 1024,
};

struct tt_regex {
    pcre2_code *code;
    pcre2_match_context *limits;
};

struct tt_matcher {
    pcre2_match_data *data; /* room for group 0 alone: enough for every pattern */
};

static tt_status compile(tt_regex *r, const tt_buf *pattern, tt_err *e)
{
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a pattern");
    pcre2_set_newline(c, PCRE2_NEWLINE_LF);
    int code = 0;
    size_t at = 0;
    r->code = pcre2_compile((PCRE2_SPTR)tt_buf_text(pattern), pattern->size,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code, &at, c);
    pcre2_compile_context_free(c);
    if (!r->code && code == PCRE2_ERROR_HEAP_FAILED)
        return tt_fail(e, TT_ENOMEM, "no memory for a pattern");
    if (!r->code) {
        char why[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return tt_fail(e, TT_EUNSUP, "pattern refused: %s", why);
    }
    pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* failing means: interpreted */
    return TT_OK;
}

tt_status tt_regex_open(tt_regex **out, const char *pattern, size_t bytes, tt_err *e)
{
    *out = NULL;
    if (bytes > MAX_PATTERN)
        return tt_fail(e, TT_EFORMAT, "pattern of %zu bytes, at most %d are allowed", bytes,
                       MAX_PATTERN);
    tt_buf translated = {0};
    tt_regex *r = calloc(1, sizeof *r);
    tt_status st = r ? tt_regex_translate(&translated, pattern, bytes, e)
                     : tt_fail(e, TT_ENOMEM, "no memory for a pattern");
    if (!st)
        st = compile(r, &translated, e);
    tt_buf_free(&translated);
    if (!st) {
        r->limits = pcre2_match_context_create(NULL);
        if (!r->limits)
            st = tt_fail(e, TT_ENOMEM, "no memory for a pattern");
    }
    if (st) {
        tt_regex_close(r);
        return st;
    }
    pcre2_set_match_limit(r->limits, MATCH_STEPS);
    pcre2_set_heap_limit(r->limits, MATCH_HEAP_KIB);
    *out = r;
    return TT_OK;
}

void tt_regex_close(tt_regex *r)
{
    if (!r)
        return;
    pcre2_code_free(r->code);
    pcre2_match_context_free(r->limits);
    free(r);
}

tt_status tt_matcher_open(tt_matcher **out, tt_err *e)
{
    *out = calloc(1, sizeof **out);
    if (*out)
        (*out)->data = pcre2_match_data_create(1, NULL);
    if (*out && (*out)->data)
        return TT_OK;
    free(*out);
    *out = NULL;
    return tt_fail(e, TT_ENOMEM, "no memory for matching");
}

void tt_matcher_close(tt_matcher *m)
{
    if (!m)
        return;
    pcre2_match_data_free(m->data);
    free(m);
}

tt_status tt_regex_next(const tt_regex *r, tt_matcher *m, tt_regex_scan *s, bool *found, tt_err *e)
{
    *found = false;
    while (s->from <= s->bytes) {
        PCRE2_SPTR text = (PCRE2_SPTR)(s->text ? s->text : "");
        /* Checked once by the caller: PCRE2 would check the whole rest at every match. */
        uint32_t options = PCRE2_NO_UTF_CHECK;
        int rc = pcre2_match(r->code, text, s->bytes, s->from, options, m->data, r->limits);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(r->code, text, s->bytes, s->from, options | PCRE2_NO_JIT, m->data,
                             r->limits);
        if (rc == PCRE2_ERROR_NOMATCH)
            return TT_OK;
        if (rc == PCRE2_ERROR_NOMEMORY)
            return tt_fail(e, TT_ENOMEM, "no memory for matching");
        if (rc < 0)
            return tt_fail(e, TT_EINVAL,
                           "the tokenizer's pattern takes too many steps on this text, at byte %zu",
                           s->from);
        const size_t *at = pcre2_get_ovector_pointer(m->data);
        if (at[1] < at[0] || at[0] < s->from)
            return tt_fail(e, TT_EUNSUP, "the tokenizer's pattern matches backwards");
        if (at[0] == at[1] && s->matched && at[1] == s->end) {
            size_t step = tt_utf8_length(s->text + s->from, s->bytes - s->from);
            s->from += step ? step : 1;
            continue;
        }
        s->start = at[0];
        s->from = s->end = at[1];
        s->matched = *found = true;
        return TT_OK;
    }
    return TT_OK;
}
