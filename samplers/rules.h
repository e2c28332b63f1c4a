/* rules.h - verifiers of texts that need no network: what a text looks like. */
#ifndef TT_RULES_H
#define TT_RULES_H

#include "samplers/constraint.h"

/* A regular expression over bytes, in the syntax of constraint.h. */
tt_status tt_rule_regex_open(tt_grammar **out, const char *regex, size_t bytes, tt_err *e);
/* 1 when the text matches as a whole, else 0. */
float tt_rule_regex(const tt_grammar *g, const char *text, size_t bytes);
/* 0 when the text has min to max characters (code points), else minus how many it is away. */
float tt_rule_length(const char *text, size_t bytes, int64_t min, int64_t max);

#endif
