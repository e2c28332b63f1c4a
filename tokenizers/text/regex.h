/* regex.h - the regular expressions of tokenizer.json, run by PCRE2.
 *
 * The files are written for Oniguruma in its Ruby dialect. tt_regex_translate() rewrites a pattern
 * so that PCRE2 matches the same text: \s is Unicode's White_Space, \h a hex digit, "{1,3}+" is
 * not possessive, [a&&[^b]] intersects, (?m:) lets the dot match newlines. What has no equal is
 * refused. A tt_regex is read-only once open; each thread brings its own tt_matcher. */
#ifndef TT_TEXT_REGEX_H
#define TT_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

typedef struct tt_regex tt_regex;
typedef struct tt_matcher tt_matcher; /* one thread's match data */

/* pattern: well-formed UTF-8. Fails with TT_EFORMAT (not a pattern) or TT_EUNSUP. */
tt_status tt_regex_open(tt_regex **out, const char *pattern, size_t bytes, tt_err *e);
void tt_regex_close(tt_regex *r);

tt_status tt_matcher_open(tt_matcher **out, tt_err *e);
void tt_matcher_close(tt_matcher *m);

/* Walks over the matches of one text, left to right; an empty match directly after another match
 * is skipped. Start from {.text = ..., .bytes = ...}; the text must be well-formed UTF-8. */
typedef struct {
    const char *text;
    size_t bytes;
    size_t start, end; /* the match found last */
    size_t from;       /* where to look next */
    bool matched;      /* there was a match already */
} tt_regex_scan;

/* *found tells whether there was one more. Fails with TT_EINVAL when the pattern needs too many
 * steps on this text, TT_ENOMEM. */
tt_status tt_regex_next(const tt_regex *r, tt_matcher *m, tt_regex_scan *s, bool *found, tt_err *e);

/* regex_syntax.c: appends the PCRE2 form of an Oniguruma pattern. */
tt_status tt_regex_translate(tt_buf *out, const char *pattern, size_t bytes, tt_err *e);

#endif
