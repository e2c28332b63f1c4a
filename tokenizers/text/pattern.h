/* pattern.h - what a Split or Replace looks for: a literal text or a regular expression. */
#ifndef TT_TEXT_PATTERN_H
#define TT_TEXT_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "tokenizers/text/doc.h"
#include "tokenizers/text/regex.h"
#include "tokenizers/text/scratch.h"

typedef struct {
    tt_regex *regex; /* or */
    char *text;
    size_t bytes;
} tt_pattern;

/* d: the member "pattern", {"String": ...} or {"Regex": ...}. */
tt_status tt_pattern_open(tt_pattern *p, const tt_doc *d, tt_err *e);
void tt_pattern_close(tt_pattern *p);

/* The next match in s (see tt_regex_next). A literal empty text matches nowhere. */
tt_status tt_pattern_next(const tt_pattern *p, tt_scratch *w, tt_regex_scan *s, bool *found,
                          tt_err *e);

#endif
